/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which file locks there are (docs/protocol.md, K1 to K6).
 *
 *   take     no conflict in the table; what the carrier lacks is asked for, and given back if that fails; then the
 * table give     the table; then what nobody here needs any more goes from the carrier
 */
#include "file_locks.h"

#include "../core/lock_line.h"
#include "internal.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* A carrier that was not locked for so long is retired. */
#define IDLE_US (10 * G_USEC_PER_SEC)
/* While programs here take turns at a lock, other hosts find it taken whenever they look.  So after so long it is
 * looked whether one waits, and if so nobody here takes it for longer than the other's pause between two tries. */
#define TURN_US (100 * 1000)
#define STAND_BACK_US (30 * 1000)
/* Others may have retired the carrier in the very moment when it was opened. */
#define TAKE_TRIES 100
/* Release of a handle follows its close(2) by as much: somebody who does not wait is not refused for that. */
#define CLOSING_TRIES 4
#define CLOSING_US 500

/* A byte that no lock of a program is asked for on: whoever waits has a read lock on it. */
#define BELL SW_RANGE_END

SwCarrierKind sw_carrier_kind_of(const SwFileLock *lock)
{
    return lock->flock ? SW_CARRIER_FLOCK : SW_CARRIER_FCNTL;
}

SwRangeLock sw_range_lock_of(SwOverlay *ov, const SwHandle *handle, const SwFileLock *lock)
{
    return (SwRangeLock){
        .start = lock->start,
        .end = MIN(lock->end, SW_RANGE_END),
        .mode = lock->mode,
        .owner = lock->owner,
        .through = (guint64)(uintptr_t)handle,
        .pid = lock->pid,
        .since_us = ov->port->now_us(ov->port),
    };
}

/* ---- files and their names */

SwFileLocks *sw_file_locks_new(SwOverlay *ov)
{
    SwFileLocks *locks = g_new0(SwFileLocks, 1);
    sw_mutex_init(&locks->lock);
    for (guint i = 0; i < G_N_ELEMENTS(locks->files); i++)
        locks->files[i] = g_hash_table_new(g_int64_hash, g_int64_equal);
    locks->waiting = g_hash_table_new(NULL, NULL);
    return locks;
}

SwLockedFile *sw_locked_file_ref_locked(SwLockedFile *file)
{
    file->refs++;
    return file;
}

static void file_free(SwLockedFile *file)
{
    sw_carrier_close(file->carrier);
    sw_range_locks_clear(&file->locks);
    sw_mutex_clear(&file->lock);
    g_free(file->path);
    g_free(file);
}

void sw_locked_file_unref(SwLockedFile *file)
{
    if (!file)
        return;
    SwFileLocks *locks = file->overlay->file_locks;
    sw_mutex_lock(&locks->lock);
    gboolean last = --file->refs == 0;
    sw_mutex_unlock(&locks->lock);
    if (last)
        file_free(file);
}

static SwLockedFile *file_new(SwOverlay *ov, SwCarrierKind kind)
{
    SwLockedFile *file = g_new0(SwLockedFile, 1);
    file->overlay = ov;
    file->kind = kind;
    file->refs = 1;
    file->turn_us = file->idle_us = ov->port->now_us(ov->port);
    sw_mutex_init(&file->lock);
    sw_range_locks_init(&file->locks);
    return file;
}

SwLockedFile *sw_locked_file_blank(SwOverlay *ov)
{
    SwLockedFile *file = file_new(ov, SW_CARRIER_FCNTL);
    file->refs = 0;
    return file;
}

static void list_locked(SwFileLocks *locks, SwLockedFile *file, guint64 key)
{
    file->key = key;
    file->listed = TRUE;
    g_hash_table_insert(locks->files[file->kind], &file->key, sw_locked_file_ref_locked(file));
}

/* The caller has a reference besides the table's, which ends here. */
static void unlist_locked(SwFileLocks *locks, SwLockedFile *file)
{
    if (!file->listed)
        return;
    g_hash_table_remove(locks->files[file->kind], &file->key);
    file->listed = FALSE;
    file->refs--;
}

static SwLockedFile *find(SwFileLocks *locks, SwCarrierKind kind, guint64 key)
{
    SW_HOLD(&locks->lock);
    SwLockedFile *file = g_hash_table_lookup(locks->files[kind], &key);
    return file ? sw_locked_file_ref_locked(file) : NULL;
}

/* What all hosts know the name by. */
static guint64 key_of(SwOverlay *ov, const SwNode *parent, const char *name)
{
    sw_mutex_lock(&ov->lock);
    ino_t dir = parent->id.ino;
    sw_mutex_unlock(&ov->lock);
    return sw_lock_key(dir, name);
}

/* What all hosts know the name of a handle's file by; FALSE: it has none. */
static gboolean name_of(SwOverlay *ov, SwHandle *handle, guint64 *ret_key, char **ret_path)
{
    SwNode *parent;
    g_autofree char *name = NULL;
    if (!sw_handle_name(ov, handle, &parent, &name))
        return FALSE;
    *ret_key = key_of(ov, parent, name);
    if (ret_path)
        *ret_path = sw_node_path(ov, parent, name);
    sw_node_unref(ov, parent);
    return TRUE;
}

gboolean sw_file_locks_are_used(SwOverlay *ov, SwHandle *handle)
{
    guint64 key;
    return name_of(ov, handle, &key, NULL) && sw_carrier_is_used(ov->control, key);
}

/* The one that the handle has locked before: it goes with it whatever becomes of the name. */
static SwLockedFile *known_file(SwFileLocks *locks, SwHandle *handle, SwCarrierKind kind)
{
    SW_HOLD(&locks->lock);
    SwLockedFile *file = handle->locked[kind];
    return file ? sw_locked_file_ref_locked(file) : NULL;
}

/* The file of that name, made if need be; it comes with a reference. */
static SwLockedFile *named_file(SwOverlay *ov, SwHandle *handle, SwCarrierKind kind)
{
    SwFileLocks *locks = ov->file_locks;
    guint64 key = 0;
    g_autofree char *path = NULL;
    gboolean named = name_of(ov, handle, &key, &path);
    SwLockedFile *file = named ? find(locks, kind, key) : NULL;
    if (file)
        return file;
    SwLockedFile *made = file_new(ov, kind);
    made->path = g_steal_pointer(&path);
    made->nameless = !named;
    sw_mutex_lock(&locks->lock);
    SwLockedFile *other = named ? g_hash_table_lookup(locks->files[kind], &key) : NULL;
    if (other) /* another thread was faster */
        file = sw_locked_file_ref_locked(other);
    else if (named)
        list_locked(locks, made, key);
    sw_mutex_unlock(&locks->lock);
    if (!file)
        return made;
    file_free(made);
    return file;
}

SwLockedFile *sw_locked_file_of(SwOverlay *ov, SwHandle *handle, SwCarrierKind kind)
{
    SwFileLocks *locks = ov->file_locks;
    SwLockedFile *file = known_file(locks, handle, kind);
    if (file)
        return file;
    file = named_file(ov, handle, kind);
    sw_mutex_lock(&locks->lock);
    if (!handle->locked[kind])
        handle->locked[kind] = sw_locked_file_ref_locked(file);
    sw_mutex_unlock(&locks->lock);
    return file;
}

/* ---- the carrier; SwLockedFile.lock is held */

static int ready_carrier(SwLockedFile *file)
{
    if (file->carrier)
        return 0;
    return sw_carrier_open(file->overlay->control, file->key, file->kind, &file->carrier);
}

/* The bell is none of the programs' bytes. */
static int set_carrier(SwLockedFile *file, SwRangeLock piece)
{
    piece.end = MIN(piece.end, BELL - 1);
    return file->carrier && piece.start <= piece.end ? sw_carrier_set(file->carrier, &piece) : 0;
}

/* As much as the table says.  Giving back cannot be refused; what fails all the same ends with the descriptor. */
static void give_back(SwLockedFile *file, guint64 start, guint64 end)
{
    g_autoptr(GArray) pieces = sw_range_locks_needs(&file->locks, start, end);
    for (guint i = 0; i < pieces->len; i++)
        sw_ignore(set_carrier(file, g_array_index(pieces, SwRangeLock, i)));
}

/* At least what is wanted; of none or all of its bytes. */
static int raise_carrier(SwLockedFile *file, const SwRangeLock *wanted)
{
    g_autoptr(GArray) pieces = sw_range_locks_needs(&file->locks, wanted->start, wanted->end);
    int r = 0;
    for (guint i = 0; i < pieces->len && r == 0; i++) {
        SwRangeLock piece = g_array_index(pieces, SwRangeLock, i);
        if (piece.mode >= wanted->mode)
            continue;
        piece.mode = wanted->mode;
        r = set_carrier(file, piece);
    }
    if (r < 0)
        give_back(file, wanted->start, wanted->end);
    return r;
}

/* The carrier may have been retired by another host since we opened it; while we have a lock on it nobody does. */
static int take_carrier(SwLockedFile *file, const SwRangeLock *wanted)
{
    gboolean first = sw_range_locks_is_empty(&file->locks);
    int r = -ESTALE;
    for (guint tries = 0; r == -ESTALE && tries < TAKE_TRIES; tries++) {
        r = ready_carrier(file);
        if (r == 0)
            r = raise_carrier(file, wanted);
        if (r == 0 && first)
            r = sw_carrier_check(file->carrier);
        if (r < 0 && r != -EAGAIN) {
            g_clear_pointer(&file->carrier, sw_carrier_close);
            file->ringing = FALSE;
        }
    }
    return r;
}

void sw_locked_file_ring(SwLockedFile *file, gboolean ringing)
{
    const SwRangeLock bell = {.start = BELL, .end = BELL, .mode = ringing ? SW_RANGE_READ : SW_RANGE_NONE};
    if (file->ringing != ringing && file->carrier && sw_carrier_set(file->carrier, &bell) == 0)
        file->ringing = ringing;
}

/* Is it time to let another host have a chance? */
static gboolean stands_back(SwLockedFile *file)
{
    const SwRangeLock bell = {.start = BELL, .end = BELL, .mode = SW_RANGE_WRITE};
    gint64 now = file->overlay->port->now_us(file->overlay->port);
    SwRangeLock other;
    if (!sw_range_locks_is_empty(&file->locks))
        return FALSE;
    if (now < file->try_us)
        return TRUE;
    if (!file->carrier || now - file->turn_us < TURN_US)
        return FALSE;
    file->turn_us = now;
    if (sw_carrier_test(file->carrier, &bell, &other) != -EAGAIN)
        return FALSE;
    file->try_us = file->turn_us = now + STAND_BACK_US;
    return TRUE;
}

static int take_held(SwLockedFile *file, const SwRangeLock *wanted, gboolean waits, gboolean *ret_elsewhere)
{
    *ret_elsewhere = FALSE;
    if (sw_range_locks_conflict(&file->locks, wanted))
        return -EAGAIN;
    *ret_elsewhere = TRUE;
    if (waits && !file->nameless && stands_back(file))
        return -EAGAIN;
    int r = file->nameless ? 0 : take_carrier(file, wanted);
    if (r < 0)
        return r;
    sw_range_locks_set(&file->locks, wanted);
    give_back(file, wanted->start, wanted->end); /* what a weaker mode does not need any more */
    return 0;
}

int sw_locked_file_take(SwLockedFile *file, const SwRangeLock *wanted, gboolean waits, gboolean *ret_elsewhere)
{
    SwPort *port = file->overlay->port;
    port->become(port, NULL);
    for (guint tries = 0;; tries++) {
        sw_mutex_lock(&file->lock);
        int r = take_held(file, wanted, waits, ret_elsewhere);
        sw_mutex_unlock(&file->lock);
        if (r != -EAGAIN || waits || file->overlay->network || tries == CLOSING_TRIES)
            return r;
        port->sleep_us(port, CLOSING_US << tries);
    }
}

static void changed(SwFileLocks *locks)
{
    if (locks->changed)
        locks->changed(locks->changed_data);
}

void sw_overlay_on_lock_change(SwOverlay *ov, void (*changed)(gpointer data), gpointer data)
{
    ov->file_locks->changed = changed;
    ov->file_locks->changed_data = data;
}

/* FALSE: there was nothing to give. */
static gboolean give(SwLockedFile *file, const SwRangeLock *what)
{
    SwPort *port = file->overlay->port;
    port->become(port, NULL);
    SW_HOLD(&file->lock);
    if (!sw_range_locks_any(&file->locks, what->owner, what->start, what->end))
        return FALSE;
    sw_range_locks_set(&file->locks, what);
    give_back(file, what->start, what->end);
    if (sw_range_locks_is_empty(&file->locks))
        file->idle_us = port->now_us(port);
    return TRUE;
}

static void give_and_tell(SwLockedFile *file, const SwRangeLock *what)
{
    if (give(file, what))
        changed(file->overlay->file_locks);
}

static void take_away(SwLockedFile *file, SwRangeLockTest test, gconstpointer data)
{
    SwPort *port = file->overlay->port;
    port->become(port, NULL);
    sw_mutex_lock(&file->lock);
    g_autoptr(GArray) taken = sw_range_locks_take(&file->locks, test, data);
    for (guint i = 0; i < taken->len; i++)
        give_back(file, g_array_index(taken, SwRangeLock, i).start, g_array_index(taken, SwRangeLock, i).end);
    if (taken->len && sw_range_locks_is_empty(&file->locks))
        file->idle_us = port->now_us(port);
    sw_mutex_unlock(&file->lock);
    if (taken->len)
        changed(file->overlay->file_locks);
}

/* ---- what programs call */

static int unlock(SwOverlay *ov, SwHandle *handle, const SwFileLock *lock, gboolean may_wait)
{
    int r = sw_in_place_leave(ov, handle, may_wait);
    if (r == -EINPROGRESS)
        return r;
    SwLockedFile *file = sw_locked_file_of(ov, handle, sw_carrier_kind_of(lock));
    SwRangeLock what = sw_range_lock_of(ov, handle, lock);
    give_and_tell(file, &what);
    sw_locked_file_unref(file);
    return r;
}

int sw_overlay_lock(SwOverlay *ov, const SwCaller *caller, SwHandle *handle, const SwFileLock *lock, gboolean may_wait)
{
    if (lock->mode == SW_RANGE_NONE)
        return unlock(ov, handle, lock, may_wait);
    SwLockedFile *file = sw_locked_file_of(ov, handle, sw_carrier_kind_of(lock));
    SwRangeLock wanted = sw_range_lock_of(ov, handle, lock);
    gboolean elsewhere;
    int r = sw_locked_file_take(file, &wanted, lock->waits, &elsewhere);
    if (r == 0) {
        r = sw_in_place_enter(ov, caller, handle, may_wait);
        wanted.mode = SW_RANGE_NONE;
        if (r < 0 && r != -EINPROGRESS)
            give_and_tell(file, &wanted);
    }
    sw_locked_file_unref(file);
    return r;
}

int sw_overlay_test_lock(SwOverlay *ov, SwHandle *handle, const SwFileLock *lock, SwFileLock *ret_other)
{
    SwLockedFile *file = sw_locked_file_of(ov, handle, sw_carrier_kind_of(lock));
    SwRangeLock wanted = sw_range_lock_of(ov, handle, lock), other = {.mode = SW_RANGE_NONE};
    int r = 0;
    ov->port->become(ov->port, NULL);
    sw_mutex_lock(&file->lock);
    const SwRangeLock *conflict = sw_range_locks_conflict(&file->locks, &wanted);
    if (conflict)
        other = *conflict;
    else if (!file->nameless)
        r = ready_carrier(file);
    wanted.end = MIN(wanted.end, BELL - 1);
    if (!conflict && r == 0 && file->carrier)
        r = sw_carrier_test(file->carrier, &wanted, &other);
    sw_mutex_unlock(&file->lock);
    sw_locked_file_unref(file);
    *ret_other = (SwFileLock){.flock = lock->flock, .mode = other.mode, .start = other.start, .end = other.end};
    ret_other->pid = other.pid;
    if (ret_other->end == BELL - 1)
        ret_other->end = SW_RANGE_END;
    return r == -EAGAIN ? 0 : r;
}

static gboolean is_owners(const SwRangeLock *lock, gconstpointer data)
{
    return lock->owner == *(const guint64 *)data;
}

static gboolean is_through(const SwRangeLock *lock, gconstpointer data)
{
    return lock->through == (guint64)(uintptr_t)data;
}

void sw_file_locks_flushed(SwOverlay *ov, SwHandle *handle, guint64 owner)
{
    SwFileLocks *locks = ov->file_locks;
    sw_mutex_lock(&locks->lock);
    gboolean any = g_hash_table_size(locks->files[SW_CARRIER_FCNTL]) > 0 || handle->locked[SW_CARRIER_FCNTL];
    sw_mutex_unlock(&locks->lock);
    guint64 key;
    if (!any)
        return;
    SwLockedFile *file = known_file(locks, handle, SW_CARRIER_FCNTL);
    if (!file && name_of(ov, handle, &key, NULL))
        file = find(locks, SW_CARRIER_FCNTL, key);
    if (file)
        take_away(file, is_owners, &owner);
    sw_locked_file_unref(file);
}

void sw_file_locks_released(SwOverlay *ov, SwHandle *handle)
{
    for (guint kind = 0; kind < G_N_ELEMENTS(handle->locked); kind++) {
        SwLockedFile *file = known_file(ov->file_locks, handle, kind);
        if (!file)
            continue;
        take_away(file, is_through, handle);
        sw_mutex_lock(&ov->file_locks->lock);
        handle->locked[kind] = NULL;
        file->refs--; /* not the last, for `file` is one */
        sw_mutex_unlock(&ov->file_locks->lock);
        sw_locked_file_unref(file);
    }
}

/* ---- names that change */

/* From now on nobody finds it by its name; its carrier excludes those only who have it already. */
static void detach(SwLockedFile *file)
{
    SwFileLocks *locks = file->overlay->file_locks;
    sw_mutex_lock(&locks->lock);
    unlist_locked(locks, file);
    sw_mutex_unlock(&locks->lock);
    SW_HOLD(&file->lock);
    if (file->carrier && sw_carrier_retire(file->carrier, TRUE) < 0)
        sw_note(file->overlay, SW_NOTE_INFO, "%s: removed, but its locks still bind who locks a new file there",
                file->path);
    file->nameless = TRUE;
}

void sw_file_locks_removed(SwOverlay *ov, SwNode *parent, const char *name)
{
    guint64 key = key_of(ov, parent, name);
    for (guint kind = 0; kind < G_N_ELEMENTS(ov->file_locks->files); kind++) {
        SwLockedFile *file = find(ov->file_locks, kind, key);
        if (file)
            detach(file);
        sw_locked_file_unref(file);
    }
}

/* The locks of a file that goes by another name now are taken again on the carrier of that. */
static void move(SwLockedFile *file, guint64 key, SwNode *parent, const char *name)
{
    SwOverlay *ov = file->overlay;
    SwCarrier *carrier = NULL;
    ov->port->become(ov->port, NULL);
    SW_HOLD(&file->lock);
    int r = sw_carrier_open(ov->control, key, file->kind, &carrier);
    if (r < 0)
        return;
    /* Who has locks there has them on the file that was replaced. */
    sw_ignore(sw_carrier_retire(carrier, TRUE));
    sw_carrier_close(carrier);
    r = sw_carrier_open(ov->control, key, file->kind, &carrier);
    if (r < 0)
        return;
    SwCarrier *old = file->carrier;
    file->carrier = carrier;
    file->ringing = FALSE;
    file->nameless = FALSE;
    give_back(file, 0, SW_RANGE_END);
    if (old)
        sw_ignore(sw_carrier_retire(old, TRUE));
    sw_carrier_close(old);
    g_free(file->path);
    file->path = sw_node_path(ov, parent, name);
}

static gboolean has_locks(SwLockedFile *file)
{
    SW_HOLD(&file->lock);
    return !sw_range_locks_is_empty(&file->locks);
}

/* A file that takes another's name without being locked is a version of it, and whoever locks that name goes on. */
void sw_file_locks_renamed(SwOverlay *ov, SwNode *old_parent, const char *old_name, SwNode *new_parent,
                           const char *new_name)
{
    SwFileLocks *locks = ov->file_locks;
    guint64 old_key = key_of(ov, old_parent, old_name), new_key = key_of(ov, new_parent, new_name);
    for (guint kind = 0; kind < G_N_ELEMENTS(locks->files); kind++) {
        SwLockedFile *file = find(locks, kind, old_key);
        if (file && has_locks(file)) {
            SwLockedFile *replaced = find(locks, kind, new_key);
            if (replaced)
                detach(replaced);
            sw_locked_file_unref(replaced);
            sw_mutex_lock(&locks->lock);
            unlist_locked(locks, file);
            if (!g_hash_table_contains(locks->files[kind], &new_key))
                list_locked(locks, file, new_key);
            sw_mutex_unlock(&locks->lock);
            move(file, new_key, new_parent, new_name);
        } else if (file) {
            detach(file);
        }
        sw_locked_file_unref(file);
    }
}

/* ---- in time */

static GPtrArray *all_files(SwFileLocks *locks)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)sw_locked_file_unref);
    GHashTableIter iter;
    gpointer value;
    SW_HOLD(&locks->lock);
    for (guint kind = 0; kind < G_N_ELEMENTS(locks->files); kind++) {
        g_hash_table_iter_init(&iter, locks->files[kind]);
        while (g_hash_table_iter_next(&iter, NULL, &value))
            g_ptr_array_add(all, sw_locked_file_ref_locked(value));
    }
    return all;
}

static void retire_if_idle(SwLockedFile *file, gint64 now)
{
    SwFileLocks *locks = file->overlay->file_locks;
    if (!sw_mutex_trylock(&file->lock))
        return;
    gboolean idle = sw_range_locks_is_empty(&file->locks) && !file->ringing && now - file->idle_us >= IDLE_US;
    if (idle && file->carrier) {
        sw_ignore(sw_carrier_retire(file->carrier, FALSE)); /* another host's: it does so when it is idle */
        g_clear_pointer(&file->carrier, sw_carrier_close);
    }
    sw_mutex_unlock(&file->lock);
    sw_mutex_lock(&locks->lock);
    if (idle && file->refs == 2) /* the table's and the caller's */
        unlist_locked(locks, file);
    sw_mutex_unlock(&locks->lock);
}

void sw_file_locks_tick(SwOverlay *ov, gint64 now)
{
    g_autoptr(GPtrArray) files = all_files(ov->file_locks);
    for (guint i = 0; i < files->len; i++)
        retire_if_idle(files->pdata[i], now);
}

void sw_file_locks_free(SwFileLocks *locks)
{
    if (!locks)
        return;
    GPtrArray *files = all_files(locks);
    for (guint i = 0; i < files->len; i++)
        retire_if_idle(files->pdata[i], G_MAXINT64);
    g_ptr_array_unref(files);
    for (guint kind = 0; kind < G_N_ELEMENTS(locks->files); kind++)
        g_hash_table_unref(locks->files[kind]);
    g_hash_table_unref(locks->waiting);
    sw_mutex_clear(&locks->lock);
    g_free(locks);
}

static void add_line(GString *text, const SwLockedFile *file, const SwRangeLock *lock, gboolean waits, gint64 now)
{
    const SwLockLine line = {
        .is_fcntl = file->kind == SW_CARRIER_FCNTL,
        .is_write = lock->mode == SW_RANGE_WRITE,
        .waits = waits,
        .start = (gint64)lock->start,
        .end = (gint64)lock->end,
        .pid = lock->pid,
        .age_us = MAX(now - lock->since_us, 0),
        .path = file->path ? file->path : (char *)"",
    };
    g_autofree char *shown = sw_lock_line_format(&line);
    g_string_append_printf(text, "%s\n", shown);
}

char *sw_file_locks_text(SwOverlay *ov)
{
    GString *text = g_string_new(NULL);
    gint64 now = ov->port->now_us(ov->port);
    g_autoptr(GPtrArray) files = all_files(ov->file_locks);
    for (guint i = 0; i < files->len; i++) {
        SwLockedFile *file = files->pdata[i];
        sw_mutex_lock(&file->lock);
        for (guint j = 0; j < file->locks.locks->len; j++)
            add_line(text, file, &g_array_index(file->locks.locks, SwRangeLock, j), FALSE, now);
        sw_mutex_lock(&ov->file_locks->lock);
        for (GList *at = file->waits.head; at; at = at->next)
            add_line(text, file, &((SwLockWait *)at->data)->wanted, TRUE, now);
        sw_mutex_unlock(&ov->file_locks->lock);
        sw_mutex_unlock(&file->lock);
    }
    return g_string_free(text, FALSE);
}
