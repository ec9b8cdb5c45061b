/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_OLD_H
#define SW_OLD_H

/*
 * Old versions, for those who still read them (C1).
 *
 * A server that forgets a file with its last name (NFSv3) answers ESTALE to whoever has it open.  So whoever replaces a
 * version links it into `old/` of its own epoch first, whoever removes a file renames it there instead, and both are
 * dropped `keep-old` later.  Who reads one for longer than that links it once more, into an `old/` of its own, by its
 * descriptor.  A link there publishes nothing: it is below no name that anybody looks up.
 *
 * Where old versions are not kept, nothing of this may be called but sw_control_keeps_old and the tick.
 * Threading: any thread.  Functions act as the thread does and leave it so, but where they say otherwise.
 */

#include "control.h"

/* One link in old/.  Plain data; `epoch` NULL is none. */
typedef struct {
    SwEpoch *epoch;
    guint number;
} SwOld;

/* How long old versions are kept, in microseconds; 0: they are not. */
gint64 sw_control_keeps_old(const SwControl *control);

/*
 * Links the file `name` in `dirfd`, or the one behind `dirfd` with `name` "", as old.  Whoever may replace a file need
 * not be allowed to link it; then the daemon does it.  Leaves the thread as `cred` (NULL: the daemon).
 */
int sw_old_link(SwControl *control, int dirfd, const char *name, const SwCred *cred,
                SwOld *ret_old) G_GNUC_WARN_UNUSED_RESULT;
/* Removes `name` from `dirfd` by making it an old version.  On failure it is where it was. */
int sw_old_take(SwControl *control, int dirfd, const char *name, SwOld *ret_old) G_GNUC_WARN_UNUSED_RESULT;

/* Drops the link at once, or when its time has come.  The first acts as the daemon and leaves the thread so. */
void sw_old_drop(SwControl *control, const SwOld *old);
void sw_old_drop_later(SwControl *control, const SwOld *old);

/* Has the old version further links?  Asked of the server. */
gboolean sw_old_is_linked_elsewhere(SwControl *control, const SwOld *old);

/* Is the file of that inode number kept as old by any host?  Looks through all of them, as the daemon, and leaves the
 * thread so. */
gboolean sw_control_has_old(SwControl *control, ino_t ino);

/* Drops those whose time has come, as the daemon.  Returns when the next one's is, G_MAXINT64 for never. */
gint64 sw_old_tick(SwControl *control, gint64 now_us);

/* ---- for control.c */
gboolean sw_old_wanted(SwPort *port, const SwConfig *config);
void sw_old_forget(SwControl *control);
/* Those that are to be dropped, for the daemon that follows. */
void sw_olds_carry(SwControl *control, SwBundle *bundle);

#endif
