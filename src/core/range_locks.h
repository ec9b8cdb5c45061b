/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_RANGE_LOCKS_H
#define SW_RANGE_LOCKS_H

/*
 * The file locks (C22) that the programs of one mount have on one file: fcntl(2) and OFD locks on ranges of bytes, or
 * flock(2) locks, which are the same on all bytes.
 *
 * Semantics are those of fcntl(2): an owner has at most one mode on each byte, a new lock replaces what the owner had
 * there, unlocking a part leaves the rest.  Pure; not locked.
 */

#include <glib.h>
#include <sys/types.h>

#define SW_RANGE_END ((guint64)G_MAXINT64) /* the last byte of a lock "to the end" */

typedef enum { SW_RANGE_NONE, SW_RANGE_READ, SW_RANGE_WRITE } SwRangeMode;

typedef struct {
    guint64 start, end; /* first and last byte */
    SwRangeMode mode;
    guint64 owner;   /* as the kernel tells owners apart: a process, or an open file description */
    guint64 through; /* the open file description that it was asked through */
    pid_t pid;       /* of who asked, for people; 0 unknown */
    gint64 since_us;
} SwRangeLock;

typedef struct {
    GArray *locks; /* of SwRangeLock, in no order; those of one owner do not overlap */
} SwRangeLocks;

void sw_range_locks_init(SwRangeLocks *locks);
void sw_range_locks_clear(SwRangeLocks *locks);
gboolean sw_range_locks_is_empty(const SwRangeLocks *locks);

/* A lock of another owner that `wanted` cannot stand beside; NULL if there is none.  Valid until the next change. */
const SwRangeLock *sw_range_locks_conflict(const SwRangeLocks *locks, const SwRangeLock *wanted);
/* Gives the owner that mode on those bytes (SW_RANGE_NONE: takes away); the caller has asked for conflicts. */
void sw_range_locks_set(SwRangeLocks *locks, const SwRangeLock *lock);

/* All owners like that (of guint64), each once. */
GArray *sw_range_locks_blockers(const SwRangeLocks *locks, const SwRangeLock *wanted);
/* Has that owner a lock on any of those bytes? */
gboolean sw_range_locks_any(const SwRangeLocks *locks, guint64 owner, guint64 start, guint64 end);

/*
 * The strongest mode of any owner, as pieces that cover [start, end] in order without gaps; neighbours differ.  Of
 * SwRangeLock, of which only start, end and mode are set.
 */
GArray *sw_range_locks_needs(const SwRangeLocks *locks, guint64 start, guint64 end);

/* Which locks end when somebody closes. */
typedef gboolean (*SwRangeLockTest)(const SwRangeLock *lock, gconstpointer data);
/* Takes the locks away that `test` picks, and returns them (of SwRangeLock). */
GArray *sw_range_locks_take(SwRangeLocks *locks, SwRangeLockTest test, gconstpointer data);

#endif
