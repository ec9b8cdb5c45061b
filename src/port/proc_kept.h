/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_PROC_KEPT_H
#define SW_PROC_KEPT_H

/*
 * What is kept open of processes that are asked about again and again: files of theirs in /proc.
 *
 * A descriptor of something in /proc/<pid> is tied to the process, whoever gets its number later: once the process has
 * been waited for, reading says ESRCH and listing ENOENT.  So what is read through a kept one is of the process that
 * has the number now, as if it had been opened by that number, for one call instead of three or four.  All that is kept
 * of one process is opened below one descriptor of its directory, so none of it can be of a successor.
 *
 * Kept are those that were asked about last, a bounded number of them with a bounded number of descriptors each.  What
 * may be opened of whom says proc.h.
 *
 * All functions may be called from any thread.
 */

#include "../core/base.h"

#include <sys/types.h>

/* Of one process or thread; counted. */
typedef struct SwKept SwKept;

typedef struct SwKeepers SwKeepers;

typedef enum {
    SW_KEPT_STATUS,
    SW_KEPT_STATM,
    SW_KEPT_TASKS,    /* the directory task/ */
    SW_KEPT_CHILDREN, /* those of the thread that has the number itself */
    SW_KEPT_FDS,      /* the directory fd/ */
    SW_KEPT_INFOS,    /* the directory fdinfo/, as a place to open what is in it */
    SW_KEPT_N,
} SwKeptFile;

/* `proc_fd`: of /proc, borrowed. */
SwKeepers *sw_keepers_new(int proc_fd);
void sw_keepers_free(SwKeepers *keepers);
/* Keeps no longer whom nobody has asked about for two seconds. */
void sw_keepers_tidy(SwKeepers *keepers);

/* Keeps process or thread `pid` from now on, if it does not already: *ret_kept, with a reference.  *ret_known: it did,
 * and the process may have ended since.  -ENOENT: there is none. */
int sw_kept_get(SwKeepers *keepers, pid_t pid, SwKept **ret_kept, gboolean *ret_known) G_GNUC_WARN_UNUSED_RESULT;
/* The one that is kept, or NULL. */
SwKept *sw_kept_find(SwKeepers *keepers, pid_t pid);
/* The one that is kept, or is from now on, if it was asked for by this before; else NULL: most are looked at once. */
SwKept *sw_kept_again(SwKeepers *keepers, pid_t pid);
/* The process has ended: it is kept no longer. */
void sw_kept_drop(SwKeepers *keepers, SwKept *kept);
void sw_kept_unref(SwKept *kept);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SwKept, sw_kept_unref)

/* The descriptor of one of its files, opened when it is first asked for; good as long as the reference.  -errno. */
int sw_kept_file(SwKept *kept, SwKeptFile which) G_GNUC_WARN_UNUSED_RESULT;

/* Its thread group, once somebody has read and set it: no thread ever changes that.  0: not known. */
pid_t sw_kept_tgid(const SwKept *kept);
void sw_kept_set_tgid(SwKept *kept, pid_t tgid);

/* Whoever reads a file in pieces, lists a directory, or asks for an fdinfo, has the process for himself meanwhile.
 * FALSE: another thread has. */
gboolean sw_kept_try_claim(SwKept *kept);
void sw_kept_yield(SwKept *kept);

/* Claimed: what /proc/<pid>/fdinfo/<number> was kept open; -1: none. */
int sw_kept_info(SwKept *kept, int number);
/* Claimed: keeps `fd` (taken over; -1: nothing) as that, in the place of another if need be. */
void sw_kept_set_info(SwKept *kept, int number, int fd);

/* Claimed: its table was found too large to be looked at. */
gboolean sw_kept_is_large(const SwKept *kept);
void sw_kept_set_large(SwKept *kept, gboolean large);

#endif
