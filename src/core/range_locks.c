/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "range_locks.h"

void sw_range_locks_init(SwRangeLocks *locks)
{
    locks->locks = g_array_new(FALSE, FALSE, sizeof(SwRangeLock));
}

void sw_range_locks_clear(SwRangeLocks *locks)
{
    g_clear_pointer(&locks->locks, g_array_unref);
}

gboolean sw_range_locks_is_empty(const SwRangeLocks *locks)
{
    return locks->locks->len == 0;
}

static const SwRangeLock *lock_at(const SwRangeLocks *locks, guint i)
{
    return &g_array_index(locks->locks, SwRangeLock, i);
}

static gboolean overlap(const SwRangeLock *a, const SwRangeLock *b)
{
    return a->start <= b->end && b->start <= a->end;
}

static gboolean conflict(const SwRangeLock *lock, const SwRangeLock *wanted)
{
    gboolean one_writes = lock->mode == SW_RANGE_WRITE || wanted->mode == SW_RANGE_WRITE;
    return lock->owner != wanted->owner && overlap(lock, wanted) && one_writes && wanted->mode != SW_RANGE_NONE;
}

const SwRangeLock *sw_range_locks_conflict(const SwRangeLocks *locks, const SwRangeLock *wanted)
{
    for (guint i = 0; i < locks->locks->len; i++)
        if (conflict(lock_at(locks, i), wanted))
            return lock_at(locks, i);
    return NULL;
}

static gboolean has_number(const GArray *numbers, guint64 number)
{
    for (guint i = 0; i < numbers->len; i++)
        if (g_array_index(numbers, guint64, i) == number)
            return TRUE;
    return FALSE;
}

GArray *sw_range_locks_blockers(const SwRangeLocks *locks, const SwRangeLock *wanted)
{
    GArray *owners = g_array_new(FALSE, FALSE, sizeof(guint64));
    for (guint i = 0; i < locks->locks->len; i++) {
        const SwRangeLock *lock = lock_at(locks, i);
        if (conflict(lock, wanted) && !has_number(owners, lock->owner))
            g_array_append_val(owners, lock->owner);
    }
    return owners;
}

gboolean sw_range_locks_any(const SwRangeLocks *locks, guint64 owner, guint64 start, guint64 end)
{
    const SwRangeLock bytes = {.start = start, .end = end};
    for (guint i = 0; i < locks->locks->len; i++)
        if (lock_at(locks, i)->owner == owner && overlap(lock_at(locks, i), &bytes))
            return TRUE;
    return FALSE;
}

/* What is left of `lock` beside the bytes [start, end]; 0 to 2 pieces. */
static void append_rest(GArray *to, const SwRangeLock *lock, guint64 start, guint64 end)
{
    SwRangeLock rest = *lock;
    if (lock->start < start) {
        rest.end = start - 1;
        g_array_append_val(to, rest);
    }
    if (lock->end > end) {
        rest = *lock;
        rest.start = end + 1;
        g_array_append_val(to, rest);
    }
}

/* One lock instead of two that touch and are alike, as /proc/locks shows it too. */
static gboolean join(SwRangeLock *into, const SwRangeLock *lock)
{
    gboolean alike = into->owner == lock->owner && into->mode == lock->mode && into->through == lock->through;
    gboolean touch = (lock->end < SW_RANGE_END && lock->end + 1 == into->start) ||
                     (into->end < SW_RANGE_END && into->end + 1 == lock->start);
    if (!alike || !touch)
        return FALSE;
    into->start = MIN(into->start, lock->start);
    into->end = MAX(into->end, lock->end);
    into->since_us = MIN(into->since_us, lock->since_us);
    return TRUE;
}

void sw_range_locks_set(SwRangeLocks *locks, const SwRangeLock *lock)
{
    GArray *after = g_array_new(FALSE, FALSE, sizeof(SwRangeLock));
    SwRangeLock added = *lock;
    for (guint i = 0; i < locks->locks->len; i++) {
        const SwRangeLock *has = lock_at(locks, i);
        gboolean own = has->owner == lock->owner;
        if (own && overlap(has, lock))
            append_rest(after, has, lock->start, lock->end);
        else if (!own || !join(&added, has))
            g_array_append_val(after, *has);
    }
    if (lock->mode != SW_RANGE_NONE)
        g_array_append_val(after, added);
    g_array_unref(locks->locks);
    locks->locks = after;
}

static gint compare_numbers(gconstpointer a, gconstpointer b)
{
    guint64 x = *(const guint64 *)a, y = *(const guint64 *)b;
    return x < y ? -1 : x > y;
}

/* The first bytes of the pieces that [start, end] falls into. */
static GArray *borders(const SwRangeLocks *locks, guint64 start, guint64 end)
{
    GArray *firsts = g_array_new(FALSE, FALSE, sizeof(guint64));
    g_array_append_val(firsts, start);
    for (guint i = 0; i < locks->locks->len; i++) {
        guint64 first = lock_at(locks, i)->start, after = lock_at(locks, i)->end + 1;
        if (first > start && first <= end)
            g_array_append_val(firsts, first);
        if (after > start && after <= end)
            g_array_append_val(firsts, after);
    }
    g_array_sort(firsts, compare_numbers);
    return firsts;
}

static SwRangeMode strongest(const SwRangeLocks *locks, guint64 byte)
{
    SwRangeMode mode = SW_RANGE_NONE;
    for (guint i = 0; i < locks->locks->len; i++)
        if (lock_at(locks, i)->start <= byte && byte <= lock_at(locks, i)->end)
            mode = MAX(mode, lock_at(locks, i)->mode);
    return mode;
}

GArray *sw_range_locks_needs(const SwRangeLocks *locks, guint64 start, guint64 end)
{
    GArray *pieces = g_array_new(FALSE, FALSE, sizeof(SwRangeLock));
    g_autoptr(GArray) firsts = borders(locks, start, end);
    for (guint i = 0; i < firsts->len; i++) {
        SwRangeLock piece = {.start = g_array_index(firsts, guint64, i), .end = end};
        SwRangeLock *last = pieces->len ? &g_array_index(pieces, SwRangeLock, pieces->len - 1) : NULL;
        piece.mode = strongest(locks, piece.start);
        if (last && (last->mode == piece.mode || last->start == piece.start))
            continue;
        if (last)
            last->end = piece.start - 1;
        g_array_append_val(pieces, piece);
    }
    return pieces;
}

GArray *sw_range_locks_take(SwRangeLocks *locks, SwRangeLockTest test, gconstpointer data)
{
    GArray *taken = g_array_new(FALSE, FALSE, sizeof(SwRangeLock));
    for (guint i = locks->locks->len; i-- > 0;) {
        SwRangeLock lock = *lock_at(locks, i);
        if (test(&lock, data)) {
            g_array_append_val(taken, lock);
            g_array_remove_index_fast(locks->locks, i);
        }
    }
    return taken;
}
