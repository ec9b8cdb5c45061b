/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_LOCK_OBJECT_H
#define SW_LOCK_OBJECT_H

/*
 * The end of a lock file that its owner will not remove [L4].  Inside of lease/.
 *
 * Results are 0 or -errno; an error means that the lock may still stand.  What is not the lock that the record tells of
 * stays where it is, and that is no error.  Functions act as whoever may do it, and leave the thread as the daemon.
 */

#include "app_lock.h"

/* Of a path: the name in it. */
const char *sw_last_component(const char *path);

/* A record, and who acts on it; all borrowed. */
typedef struct {
    SwControl *control;
    const SwEpoch *by; /* in which we act */
    const SwLockText *says;
    struct timespec since; /* the record was made then, by the server's clock */
} SwJudgedLock;

/* Moves the lock `name` in `dirfd` to salvage. */
int sw_lock_object_end(const SwJudgedLock *judged, int dirfd, const char *name) G_GNUC_WARN_UNUSED_RESULT;
/* The same by the path that the record tells, if that still leads to the directory that the lock was made in. */
int sw_lock_object_end_by_path(const SwJudgedLock *judged) G_GNUC_WARN_UNUSED_RESULT;

#endif
