/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_APP_LOCK_H
#define SW_APP_LOCK_H

/*
 * Lock files of applications on the source (C18 to C20): their records, and the end of those whose host died.
 *
 * A record is the symbolic link locks/<key>, made before the lock and released after it, so that no lock is without
 * one while its maker lives (docs/protocol.md, rules L).  The lock itself is the application's: who makes or
 * removes it calls the source as the application does.  Who owns it on this host, and who may remove it, is decided
 * above (overlay/locks.h).
 *
 * Results are 0 or -errno.  Functions act as the daemon, and leave the thread so.  They make several calls to the
 * source each, may be called from any thread, and wait for other hosts for some milliseconds at most.
 */

#include "../core/bundle.h"
#include "control.h"

/* A regular file that is larger, or a directory with more entries or larger ones, is data (C18). */
#define SW_LOCK_SIZE_MAX 4096
#define SW_LOCK_ENTRIES_MAX 16

/* A record of ours. */
typedef struct {
    guint64 key;
    const SwEpoch *epoch; /* it was made in; from no other is it released */
    SwLockText says;      /* host and sequence are filled in by sw_app_lock_begin */
    char *text; /* NULL: there is none, since another name's has the key; nobody else will break such a lock */
} SwAppLock;

void sw_app_lock_clear(SwAppLock *lock);
/* For the daemon that follows. */
void sw_app_lock_carry(SwControl *control, SwBundle *bundle, SwAppLock *lock);

/*
 * Makes the record of a lock that is about to be made; `lock->says` is filled in but for host and sequence, and the
 * caller sees to it that no other thread is at this name.  -EEXIST: a host that lives holds it.  The record of one
 * that does not is broken first.
 */
int sw_app_lock_begin(SwControl *control, const char *name, SwAppLock *lock) G_GNUC_WARN_UNUSED_RESULT;
/* The lock is gone, or no lock any more: releases the record. */
int sw_app_lock_end(SwControl *control, const SwAppLock *lock);
/* The same for who will not come back to it: a record that cannot be released now is tried again with each beat. */
void sw_app_lock_give_up(SwControl *control, const SwAppLock *lock);
/* The epoch whose locks are still this host's; NULL when it has been broken.  One look at a directory, for any number.
 */
const SwEpoch *sw_app_locks_epoch(SwControl *control);
/*
 * To be asked right before a lock of ours is removed, which no server refuses: 0 if this host is still the one that
 * made it; -ESTALE if others have taken it for dead, and ended the lock; else why nobody can tell.  Costs a look at a
 * directory.
 */
int sw_app_lock_confirm(SwControl *control, const SwAppLock *lock) G_GNUC_WARN_UNUSED_RESULT;
/* Has nobody overruled it?  To be asked where somebody may have. */
gboolean sw_app_lock_is_ours(SwControl *control, const SwAppLock *lock);
/* The lock of another host has been removed because its own expiry had passed: its record goes as well. */
void sw_app_lock_overrule(SwControl *control, guint64 dir_ino, const char *name);
/* Moves the lock `name` in `dirfd` to salvage, if it is what the record tells of, and releases the record. */
int sw_app_lock_break(SwControl *control, const SwAppLock *lock, int dirfd, const char *name) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Does the directory hold no more than a lock does: SW_LOCK_ENTRIES_MAX entries, no directories, no file over
 * SW_LOCK_SIZE_MAX, and `total_max` bytes in all?  Acts as the thread does.
 */
gboolean sw_app_lock_dir_is_small(SwControl *control, int dirfd, const char *name, off_t total_max);

/* 0: it is a directory without entries; -ENOTEMPTY; else why nobody can tell.  Acts as the thread does. */
int sw_app_lock_dir_is_empty(SwControl *control, int dirfd, const char *name) G_GNUC_WARN_UNUSED_RESULT;

/* Who holds that name?  -EBUSY: another host that lives; 0: nobody does, any more. */
int sw_app_lock_holder(SwControl *control, guint64 dir_ino, const char *name) G_GNUC_WARN_UNUSED_RESULT;

/* Ends all locks of a host that is dead: a step of its burial, which we do in the epoch `by`.  An error ends it. */
int sw_app_locks_drop_of(SwControl *control, const SwEpoch *by, const char *host_id) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Breaks the lock of that name whoever holds it, because the administrator says so (C20): L4.  0, and what its record
 * said; -ENOENT: there is no record of it; -EAGAIN: another one is breaking it.  What stands there and is no lock (any
 * more) stays.  The host that it was made on finds out when it asks sw_app_lock_is_ours.
 */
int sw_app_lock_break_name(SwControl *control, guint64 dir_ino, const char *name,
                           SwLockText *ret_says) G_GNUC_WARN_UNUSED_RESULT;
/* Ends those of hosts that are gone, which a burial that failed may have left.  Costs two attributes as long as neither
 * records nor hosts come or go.  Call it from one thread, at least a tick of the server's clock apart. */
void sw_app_locks_sweep(SwControl *control);

/* The present by the server's clock, to compare with times of files there. */
int sw_app_lock_server_now(SwControl *control, struct timespec *ret_now) G_GNUC_WARN_UNUSED_RESULT;

#endif
