/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_OVERLAY_FILE_LOCKS_H
#define SW_OVERLAY_FILE_LOCKS_H

/*
 * File locks: flock(2), fcntl(2) and OFD locks (C6, C22).  Private to this directory; what the FUSE side calls is in
 * overlay.h.
 *
 *   file_locks.c   which locks there are: of the programs here in a table, of this host on the carrier
 * (lease/carrier.h) lock_waits.c   who waits for one, in turn; and who would wait for ever in_place.c     what a lock
 * does to the handle: current version, in place; and at its end, commit
 *
 * A file is locked by its name: all versions of it share one SwLockedFile.  What the table holds and what the carrier
 * has are kept the same: on each byte the strongest mode of any program here.
 *
 * Locks, in this order: SwLockedFile.lock (port calls are made under it), SwFileLocks.lock.  Neither is taken with a
 * lock of the overlay held, nor the other way round.
 */

#include "../core/base.h"
#include "../core/range_locks.h"
#include "../lease/carrier.h"
#include "overlay.h"

typedef struct SwFileLocks SwFileLocks;
typedef struct SwLockedFile SwLockedFile;

SwFileLocks *sw_file_locks_new(SwOverlay *ov);
/* No handle is left, and nobody waits.  Retires the carriers that no other host uses.  NULL is allowed. */
void sw_file_locks_free(SwFileLocks *locks);
/* Has anybody on any host locked the name of that handle lately? */
gboolean sw_file_locks_are_used(SwOverlay *ov, SwHandle *handle);
/* Retires carriers that have been idle. */
void sw_file_locks_tick(SwOverlay *ov, gint64 now);
/* What this mount holds and who waits, a line for each (core/lock_line.h; docs/protocol.md, K7); g_free. */
char *sw_file_locks_text(SwOverlay *ov);

/* close(2) of one descriptor: the closing process has no fcntl locks on the file any more, whatever else it has open.
 */
void sw_file_locks_flushed(SwOverlay *ov, SwHandle *handle, guint64 owner);
/* The open file description is gone, and with it its flock(2) and OFD locks. */
void sw_file_locks_released(SwOverlay *ov, SwHandle *handle);
/* The name is gone: a new file there is another file.  Or it was moved, and its locks with it. */
void sw_file_locks_removed(SwOverlay *ov, SwNode *parent, const char *name);
void sw_file_locks_renamed(SwOverlay *ov, SwNode *old_parent, const char *old_name, SwNode *new_parent,
                           const char *new_name);

/* ---- between file_locks.c and lock_waits.c */

/* One who waits. */
typedef struct SwLockWait {
    SwLockedFile *file; /* counted */
    SwHandle *handle;
    SwRangeLock wanted;
    SwCaller caller;
    void (*done)(gpointer data, int result);
    gpointer data;
    gboolean judged; /* protected by SwFileLocks.lock: it will not wait for ever, and may be served */
} SwLockWait;

struct SwLockedFile {
    /* immutable */
    SwOverlay *overlay;
    SwCarrierKind kind;

    /* protected by SwFileLocks.lock */
    guint refs;      /* handles, waits, and the table while it is listed */
    gboolean listed; /* in the table under `key` */
    guint64 key;
    GQueue waits; /* of SwLockWait, the longest waiting first; in SwFileLocks.waiting while not empty */

    /* protected by lock */
    SwMutex lock;
    SwRangeLocks locks;
    char *path;         /* owned; for people */
    gboolean nameless;  /* no other host can open it: no carrier is needed */
    SwCarrier *carrier; /* NULL: none yet */
    gint64 try_us;      /* another host has it: when to try again */
    gint64 pause_us;    /* how long the last pause was; 0: nobody else was met */
    gboolean ringing;   /* a sign on the carrier that somebody here waits for another host */
    gint64 turn_us;     /* since when nobody else had the chance */
    gint64 idle_us;     /* since when it is not locked */
};

struct SwFileLocks {
    SwMutex judging; /* one looks for a deadlock; before all others */
    SwMutex lock;
    GHashTable *files[2]; /* key -> SwLockedFile, by kind */
    GHashTable *waiting;  /* SwLockedFile with waits; a set */
    void (*changed)(gpointer data);
    gpointer changed_data;
};

/* One without a reference, to be filled in. */
SwLockedFile *sw_locked_file_blank(SwOverlay *ov);
SwLockedFile *sw_locked_file_ref_locked(SwLockedFile *file);
void sw_locked_file_unref(SwLockedFile *file);
/* The file of the handle for that kind of lock, with a reference. */
SwLockedFile *sw_locked_file_of(SwOverlay *ov, SwHandle *handle, SwCarrierKind kind);
/* 0; -EAGAIN: somebody has it, here or elsewhere.  One who waits lets other hosts go first now and then. */
int sw_locked_file_take(SwLockedFile *file, const SwRangeLock *wanted, gboolean waits, gboolean *ret_elsewhere);
/* Sets or takes away the sign that somebody here waits for another host. */
void sw_locked_file_ring(SwLockedFile *file, gboolean ringing);
SwRangeLock sw_range_lock_of(SwOverlay *ov, const SwHandle *handle, const SwFileLock *lock);
SwCarrierKind sw_carrier_kind_of(const SwFileLock *lock);

/* ---- in_place.c */

/* [waits] The handle has got a lock. */
int sw_in_place_enter(SwOverlay *ov, const SwCaller *caller, SwHandle *handle,
                      gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
/* [waits] The handle is about to lose one. */
int sw_in_place_leave(SwOverlay *ov, SwHandle *handle, gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
/* Before a write: has this host been taken for dead since the lock was taken (C21)?  Acts as the handle's opener. */
int sw_in_place_confirm(SwOverlay *ov, SwHandle *handle) G_GNUC_WARN_UNUSED_RESULT;

#endif
