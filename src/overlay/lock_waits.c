/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who waits for a file lock (docs/protocol.md, K5 and K6).
 *
 * A request that waits has no thread; all are tried again by the one that steps: when something here was given back,
 * and for as long as another host has what is wanted, at pauses that grow.
 */
#include "file_locks.h"

#include "internal.h"

#include <errno.h>

#define PAUSE_MIN_US 1000
#define PAUSE_MAX_US (20 * 1000)

/* ---- who would wait for ever */

/* Whom the waits of `owner` wait for. */
static GArray *blockers_of(SwFileLocks *locks, guint64 owner)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func((GDestroyNotify)sw_locked_file_unref);
    g_autoptr(GArray) wanted = g_array_new(FALSE, FALSE, sizeof(SwRangeLock));
    GArray *blockers = g_array_new(FALSE, FALSE, sizeof(guint64));
    GHashTableIter iter;
    gpointer key;
    sw_mutex_lock(&locks->lock);
    g_hash_table_iter_init(&iter, locks->waiting);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        SwLockedFile *file = key;
        for (GList *at = file->waits.head; at; at = at->next) {
            const SwLockWait *wait = at->data;
            if (file->kind != SW_CARRIER_FCNTL || wait->wanted.owner != owner)
                continue;
            g_ptr_array_add(files, sw_locked_file_ref_locked(file));
            g_array_append_val(wanted, wait->wanted);
        }
    }
    sw_mutex_unlock(&locks->lock);
    for (guint i = 0; i < files->len; i++) {
        SwLockedFile *file = files->pdata[i];
        sw_mutex_lock(&file->lock);
        g_autoptr(GArray) some = sw_range_locks_blockers(&file->locks, &g_array_index(wanted, SwRangeLock, i));
        sw_mutex_unlock(&file->lock);
        g_array_append_vals(blockers, some->data, some->len);
    }
    return blockers;
}

/* Does somebody whom `owner` waits for wait for `owner`, directly or by others? */
static gboolean is_deadlock(SwFileLocks *locks, guint64 owner)
{
    g_autoptr(GArray) todo = blockers_of(locks, owner);
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    while (todo->len) {
        guint64 next = g_array_index(todo, guint64, todo->len - 1);
        g_array_set_size(todo, todo->len - 1);
        if (next == owner)
            return TRUE;
        if (!g_hash_table_add(seen, g_memdup2(&next, sizeof next)))
            continue;
        g_autoptr(GArray) more = blockers_of(locks, next);
        g_array_append_vals(todo, more->data, more->len);
    }
    return FALSE;
}

/* ---- the queue */

static void enqueue(SwFileLocks *locks, SwLockWait *wait)
{
    SW_HOLD(&locks->lock);
    g_queue_push_tail(&wait->file->waits, wait);
    g_hash_table_add(locks->waiting, wait->file);
}

static void dequeue(SwFileLocks *locks, SwLockWait *wait)
{
    SW_HOLD(&locks->lock);
    g_queue_remove(&wait->file->waits, wait);
    if (g_queue_is_empty(&wait->file->waits))
        g_hash_table_remove(locks->waiting, wait->file);
}

static void set_judged(SwFileLocks *locks, SwLockWait *wait)
{
    SW_HOLD(&locks->lock);
    wait->judged = TRUE;
}

static void wait_free(SwLockWait *wait)
{
    sw_locked_file_unref(wait->file);
    g_free(wait);
}

static void finish(SwFileLocks *locks, SwLockWait *wait, int result)
{
    dequeue(locks, wait);
    wait->done(wait->data, result);
    wait_free(wait);
}

int sw_overlay_lock_wait(SwOverlay *ov, const SwCaller *caller, SwHandle *handle, const SwFileLock *lock,
                         void (*done)(gpointer data, int result), gpointer data)
{
    SwFileLocks *locks = ov->file_locks;
    SwLockWait *wait = g_new0(SwLockWait, 1);
    *wait = (SwLockWait){.handle = handle, .caller = *caller, .done = done, .data = data};
    wait->wanted = sw_range_lock_of(ov, handle, lock);
    wait->file = sw_locked_file_of(ov, handle, sw_carrier_kind_of(lock));
    /* One at a time, or two that close a circle together would both be refused. */
    sw_mutex_lock(&locks->judging);
    enqueue(locks, wait);
    gboolean deadlock = !lock->flock && is_deadlock(locks, lock->owner);
    if (deadlock)
        dequeue(locks, wait);
    else
        set_judged(locks, wait);
    sw_mutex_unlock(&locks->judging);
    if (deadlock) {
        wait_free(wait);
        return -EDEADLK;
    }
    if (locks->changed)
        locks->changed(locks->changed_data);
    return 0;
}

/* ---- in turn */

static gboolean is_interrupted(const SwLockWait *wait)
{
    return wait->caller.interrupted && wait->caller.interrupted(wait->caller.interrupted_data);
}

/* Another host has it: when to ask again. */
static void pause_file(SwLockedFile *file, gint64 now)
{
    SW_HOLD(&file->lock);
    file->pause_us = CLAMP(file->pause_us * 2, PAUSE_MIN_US, PAUSE_MAX_US);
    file->try_us = MAX(file->try_us, now + file->pause_us);
    sw_locked_file_ring(file, TRUE);
}

static void resume_file(SwLockedFile *file)
{
    SW_HOLD(&file->lock);
    file->pause_us = 0;
    sw_locked_file_ring(file, FALSE);
}

/* Those that may be served; only the thread that steps takes these away. */
static GPtrArray *waits_of(SwFileLocks *locks, SwLockedFile *file)
{
    GPtrArray *waits = g_ptr_array_new();
    SW_HOLD(&locks->lock);
    for (GList *at = file->waits.head; at; at = at->next)
        if (((SwLockWait *)at->data)->judged)
            g_ptr_array_add(waits, at->data);
    return waits;
}

/* Another host has refused something that is part of this: it need not be asked. */
static gboolean includes_any(const SwRangeLock *wanted, const GArray *refused)
{
    for (guint i = 0; i < refused->len; i++) {
        const SwRangeLock *part = &g_array_index(refused, SwRangeLock, i);
        if (wanted->start <= part->start && part->end <= wanted->end && part->mode <= wanted->mode)
            return TRUE;
    }
    return FALSE;
}

static int serve_one(SwLockWait *wait, gboolean due, GArray *refused)
{
    gboolean elsewhere;
    if (is_interrupted(wait))
        return -EINTR;
    if (!due || includes_any(&wait->wanted, refused))
        return -EAGAIN;
    int r = sw_locked_file_take(wait->file, &wait->wanted, TRUE, &elsewhere);
    if (r == -EAGAIN && elsewhere)
        g_array_append_val(refused, wait->wanted);
    return r;
}

static gint64 try_again_us(SwLockedFile *file)
{
    SW_HOLD(&file->lock);
    return file->try_us;
}

static gboolean is_wanted(SwFileLocks *locks, SwLockedFile *file)
{
    SW_HOLD(&locks->lock);
    return !g_queue_is_empty(&file->waits);
}

/* Returns when to ask other hosts again. */
static gint64 serve(SwOverlay *ov, SwLockedFile *file)
{
    gint64 now = ov->port->now_us(ov->port);
    gboolean due = now >= try_again_us(file);
    g_autoptr(GArray) refused = g_array_new(FALSE, FALSE, sizeof(SwRangeLock));
    g_autoptr(GPtrArray) waits = waits_of(ov->file_locks, file);
    for (guint i = 0; i < waits->len; i++) {
        int r = serve_one(waits->pdata[i], due, refused);
        if (r != -EAGAIN)
            finish(ov->file_locks, waits->pdata[i], r);
    }
    if (refused->len)
        pause_file(file, now);
    else if (due || !is_wanted(ov->file_locks, file))
        resume_file(file);
    return refused->len || !due ? try_again_us(file) : G_MAXINT64;
}

static GPtrArray *waiting_files(SwFileLocks *locks)
{
    GPtrArray *files = g_ptr_array_new_with_free_func((GDestroyNotify)sw_locked_file_unref);
    GHashTableIter iter;
    gpointer key;
    SW_HOLD(&locks->lock);
    g_hash_table_iter_init(&iter, locks->waiting);
    while (g_hash_table_iter_next(&iter, &key, NULL))
        g_ptr_array_add(files, sw_locked_file_ref_locked(key));
    return files;
}

gint64 sw_overlay_lock_step(SwOverlay *ov)
{
    gint64 next = G_MAXINT64;
    g_autoptr(GPtrArray) files = waiting_files(ov->file_locks);
    for (guint i = 0; i < files->len; i++)
        next = MIN(next, serve(ov, files->pdata[i]));
    return next;
}

GPtrArray *sw_overlay_lock_waits(SwOverlay *ov)
{
    GPtrArray *all = g_ptr_array_new();
    g_autoptr(GPtrArray) files = waiting_files(ov->file_locks);
    for (guint i = 0; i < files->len; i++) {
        const SwLockedFile *file = files->pdata[i];
        SW_HOLD(&ov->file_locks->lock);
        for (GList *at = file->waits.head; at; at = at->next)
            g_ptr_array_add(all, ((SwLockWait *)at->data)->data);
    }
    return all;
}

void sw_overlay_lock_abandon(SwOverlay *ov)
{
    g_autoptr(GPtrArray) files = waiting_files(ov->file_locks);
    for (guint i = 0; i < files->len; i++) {
        g_autoptr(GPtrArray) waits = waits_of(ov->file_locks, files->pdata[i]);
        for (guint j = 0; j < waits->len; j++)
            finish(ov->file_locks, waits->pdata[j], -ENOTCONN);
    }
}
