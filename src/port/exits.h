/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_EXITS_H
#define SW_EXITS_H

/*
 * How processes ended, where pidfds do not say it (before Linux 6.15); inside of the real port.
 *
 * Of a process that its parent has waited for, an older kernel knows nothing any more.  But it tells of each exit as it
 * happens, by the process connector (Documentation/driver-api/connector.rst, linux/cn_proc.h).  That takes
 * CONFIG_PROC_EVENTS, the first pid namespace, and CAP_NET_ADMIN before Linux 6.6.
 *
 * Any thread may use it.
 */

#include <glib.h>
#include <sys/types.h>

typedef struct SwExits SwExits;

/* NULL where the kernel does not tell us. */
SwExits *sw_exits_new(void);
void sw_exits_free(SwExits *exits);

/* Remembers how the process `tgid` of the pidfd `fd`, which has not been waited for yet, ends, until that is removed.
 */
void sw_exits_add(SwExits *exits, int fd, pid_t tgid);
void sw_exits_remove(SwExits *exits, int fd);

/* Takes in what the kernel has told; to be called often, for it keeps only some thousand exits for us. */
void sw_exits_read(SwExits *exits);

/* How the process that was added as `fd`, and has ended, did that: as wait(2) has it.  Waits for a moment, as the
 * kernel tells it a little later than that it has ended.  FALSE: the news was lost. */
gboolean sw_exits_status(SwExits *exits, int fd, int *ret_status) G_GNUC_WARN_UNUSED_RESULT;

#endif
