/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_OVERLAY_LOCKS_H
#define SW_OVERLAY_LOCKS_H

/*
 * The locks that programs have made through this mount: who owns them, who may remove them, when they end (C18 to C20).
 * Private to this directory.
 *
 * A lock belongs to the process that made it.  When that ends with status 0, it passes to the process that was its
 * parent when the lock was made, and so on up; when it ends otherwise, the lock is broken: it goes to salvage.  A lock
 * whose owners have all ended well stays, and may be removed by its user.
 *
 * Functions that take an SwCaller leave the thread acting as that one.  All make calls to the source, and none may be
 * called with a lock of the overlay held.
 */

#include "../lease/app_lock.h"
#include "overlay.h"

/* What a call makes that is never a lock. */
#define SW_LOCK_NONE ((SwLockKind)-1)

typedef struct SwLocks SwLocks;
typedef struct SwLock SwLock;

SwLocks *sw_locks_new(SwOverlay *ov);
/* Leaves the locks that nobody owns; the control ends the others. */
void sw_locks_free(SwLocks *locks);
/* Nobody has the lock of the table just now. */
gboolean sw_locks_table_is_free(SwLocks *locks);
/* Ends the locks of the dead. */
void sw_locks_tick(SwOverlay *ov, gint64 now);

gboolean sw_lock_is_name(SwOverlay *ov, SwNode *parent, const char *name);
/* What the name of a lock adds to the flags of the port's openat: others have to be able to break it when we are dead
 * (C19). */
int sw_lock_open_flags(SwOverlay *ov, SwNode *parent, const char *name);

/* How long the kernel may believe that the name exists: programs that only look whether a lock is gone have to see its
 * end within 1 s (C19). */
gint64 sw_lock_believe_us(SwOverlay *ov, SwNode *parent, const char *name);

/*
 * Around the making of something exclusively: *ret_lock is NULL where that is no lock.  -EEXIST: held by another who
 * lives.  After sw_lock_begin returned 0 with a lock, sw_lock_made is told how the making ended, and passes it on.
 */
int sw_lock_begin(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwLockKind kind,
                  SwLock **ret_lock) G_GNUC_WARN_UNUSED_RESULT;
int sw_lock_made(SwOverlay *ov, const SwCaller *caller, SwLock *lock, int dirfd, int result) G_GNUC_WARN_UNUSED_RESULT;
/* Something stands at the name: 0 if it was a lock of the dead, and is gone now; else -EEXIST. */
int sw_lock_clear(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name,
                  int dirfd) G_GNUC_WARN_UNUSED_RESULT;

/* How the object is going to leave the name: by a rename that the server refuses when this host has been broken (see
 * lock_release.c), or by a call that it would carry out. */
typedef enum { SW_REMOVED_BY_FENCED_RENAME, SW_REMOVED_IN_PLACE } SwRemovedHow;

/* Before and after an unlink, rmdir or rename of (or over) the name, however it ended.  -EBUSY: a lock that others
 * hold. */
int sw_lock_may_remove(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, int dirfd,
                       SwRemovedHow how) G_GNUC_WARN_UNUSED_RESULT;
/* Right before a lock of ours is removed in place after all: 0; -ESTALE: it is ours no more; else nobody can tell. */
int sw_lock_confirm(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name) G_GNUC_WARN_UNUSED_RESULT;
void sw_lock_removed(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name);
void sw_lock_not_removed(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name);

/* ---- lock_release.c: unlink, rmdir and rename, which a host that was taken for dead cannot do to a successor's lock
 * any more; of what is no lock of ours, the plain calls.  Act as the caller. */
int sw_lock_unlink(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, int dirfd,
                   int flags) G_GNUC_WARN_UNUSED_RESULT;
int sw_lock_rename(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, int dirfd, int new_dirfd,
                   const char *new_name, guint flags) G_GNUC_WARN_UNUSED_RESULT;

/* The epoch in which the lock of that name was made through this mount; NULL: there is none. */
const SwEpoch *sw_lock_epoch(SwOverlay *ov, SwNode *parent, const char *name);

/* The file is written beyond what locks hold: if it was one, it is data now. */
void sw_lock_outgrown(SwOverlay *ov, SwNode *node);
/* A program is about to set a modification time. */
void sw_lock_dated(SwOverlay *ov, const SwCaller *caller, SwNode *node, const struct timespec *mtime);

/* ---- expiry.c: locks with an end that the application has written into their times */

typedef struct SwExpiry SwExpiry;

SwExpiry *sw_expiry_new(SwOverlay *ov);
void sw_expiry_free(SwExpiry *expiry);
/* May the caller remove what others hold, because its end has passed by the server's clock? */
gboolean sw_expiry_lets(SwExpiry *expiry, const SwCaller *caller, guint64 dir_ino, int dirfd, const char *name);
/* The caller is about to set the time anew: if the end has passed, it is remembered that it found that. */
void sw_expiry_renewed(SwExpiry *expiry, const SwCaller *caller, guint64 dir_ino, int dirfd, const char *name);
void sw_expiry_tick(SwExpiry *expiry, gint64 now);

/* ---- owners.c: processes, each watched once */

typedef struct SwOwners SwOwners;
typedef struct SwOwner SwOwner; /* counted */

typedef enum {
    SW_OWNER_LIVES,
    SW_OWNER_EXITED,  /* with status 0, or nobody can say how */
    SW_OWNER_FAILED,  /* with another status */
    SW_OWNER_HUNG_UP, /* its terminal is gone: killed by SIGHUP */
    SW_OWNER_KILLED,
} SwOwnerState;

SwOwners *sw_owners_new(SwPort *port);
void sw_owners_free(SwOwners *owners);
/* The process of a thread, and the parents that it has now; NULL where it is not visible. */
SwOwner *sw_owners_get(SwOwners *owners, pid_t tid);
SwOwner *sw_owner_ref(SwOwner *owner);
void sw_owner_unref(SwOwner *owner);
pid_t sw_owner_pid(const SwOwner *owner);
guint64 sw_owner_id(const SwOwner *owner); /* as SwPort.pid_watch */
/* As it was when first watched; NULL: none that could own anything.  Not counted: lives as long as `owner`. */
SwOwner *sw_owner_parent(const SwOwner *owner);
SwOwnerState sw_owner_state(const SwOwner *owner);
/* Was it a job of its parent's: of its session, but a process group of its own, as interactive shells make them? */
gboolean sw_owner_is_job(const SwOwner *owner);
/* Asks for all of them at once; sw_owner_may_have_ended says what came of it the last time, without a call. */
void sw_owners_look(SwOwners *owners);
gboolean sw_owner_may_have_ended(const SwOwner *owner);
/* Is that thread one of the process, or of a descendant? */
gboolean sw_owner_has(const SwOwner *owner, pid_t tid);
/* Forgets those that nobody refers to. */
void sw_owners_prune(SwOwners *owners);

#endif
