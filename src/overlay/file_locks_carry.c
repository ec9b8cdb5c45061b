/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File locks, for the daemon that follows.  What this host has on the carriers stays with their descriptors.  Who waits
 * is not carried: his request is served anew (fuse/handover.h).
 */
#include "carry.h"

#include <stdint.h>

#define LOCKS_MAX (1u << 26)

static void add_locked(gpointer key, gpointer value, gpointer data)
{
    (void)key;
    sw_carry_add(data, SW_CARRY_LOCKED, value);
}

void sw_file_locks_collect(SwCarriage *carriage)
{
    SwFileLocks *locks = carriage->overlay->file_locks;

    for (guint kind = 0; kind < G_N_ELEMENTS(locks->files); kind++)
        g_hash_table_foreach(locks->files[kind], add_locked, carriage);
    for (guint i = 0; i < carriage->all[SW_CARRY_HANDLE]->len; i++) {
        const SwHandle *handle = carriage->all[SW_CARRY_HANDLE]->pdata[i];
        for (guint kind = 0; kind < G_N_ELEMENTS(handle->locked); kind++)
            sw_carry_add(carriage, SW_CARRY_LOCKED, handle->locked[kind]);
    }
}

/* `through` is compared with the address of a handle: here it is one, on the way its place. */
static void carry_range(SwCarriage *carriage, SwRangeLock *lock)
{
    gpointer through = (gpointer)(uintptr_t)lock->through;
    SwRangeLock plain = *lock;
    guint mode;

    plain.through = 0;
    SW_BUNDLE(carriage->bundle, plain);
    mode = plain.mode;
    sw_carry_ref(carriage, SW_CARRY_HANDLE, &through, FALSE);
    if (plain.start > plain.end || (mode != SW_RANGE_READ && mode != SW_RANGE_WRITE))
        sw_bundle_fail(carriage->bundle, "a file lock is none");
    plain.through = (guint64)(uintptr_t)through;
    *lock = plain;
}

static void carry_ranges(SwCarriage *carriage, SwRangeLocks *locks)
{
    guint n = sw_bundle_count(carriage->bundle, locks->locks->len, LOCKS_MAX);
    gboolean out = sw_bundle_is_out(carriage->bundle);

    for (guint i = 0; i < n; i++) {
        SwRangeLock lock = out ? g_array_index(locks->locks, SwRangeLock, i) : (SwRangeLock){0};
        carry_range(carriage, &lock);
        if (!out)
            g_array_append_val(locks->locks, lock);
    }
}

static void carry_locked(SwCarriage *carriage, SwLockedFile *file)
{
    SwFileLocks *locks = carriage->overlay->file_locks;
    SwBundle *bundle = carriage->bundle;
    guint kind = file->kind;
    gboolean listed = file->listed;

    sw_bundle_mark(bundle, "locked file");
    sw_bundle_choice(bundle, &kind, SW_CARRIER_FLOCK);
    file->kind = kind;
    SW_BUNDLE(bundle, file->key);
    SW_BUNDLE(bundle, listed);
    carry_ranges(carriage, &file->locks);
    sw_bundle_text(bundle, &file->path, 1u << 20);
    SW_BUNDLE(bundle, file->nameless);
    sw_carrier_carry(carriage->overlay->control, bundle, &file->carrier);
    SW_BUNDLE(bundle, file->try_us);
    SW_BUNDLE(bundle, file->pause_us);
    SW_BUNDLE(bundle, file->ringing);
    SW_BUNDLE(bundle, file->turn_us);
    SW_BUNDLE(bundle, file->idle_us);
    if (sw_bundle_is_out(bundle) || sw_bundle_failed(bundle) || !listed)
        return;
    if (!g_hash_table_insert(locks->files[kind], &file->key, file))
        sw_bundle_fail(bundle, "two files are locked by one name");
    file->listed = TRUE;
}

static void settle(SwCarriage *carriage, guint place)
{
    SwLockedFile *file = carriage->all[SW_CARRY_LOCKED]->pdata[place];
    guint refs = g_array_index(carriage->refs[SW_CARRY_LOCKED], guint, place) + (file->listed ? 1 : 0);

    if (!sw_bundle_is_out(carriage->bundle))
        file->refs = refs;
    else if (file->refs != refs + g_queue_get_length(&file->waits))
        sw_bundle_fail(carriage->bundle, "a locked file is referred to %u times, %u of which are known", file->refs,
                       refs);
    if (!refs)
        sw_bundle_fail(carriage->bundle, "a locked file is nobody's");
}

void sw_file_locks_carry(SwCarriage *carriage)
{
    for (guint i = 0; i < carriage->all[SW_CARRY_LOCKED]->len; i++)
        carry_locked(carriage, carriage->all[SW_CARRY_LOCKED]->pdata[i]);
    for (guint i = 0; i < carriage->all[SW_CARRY_HANDLE]->len; i++) {
        SwHandle *handle = carriage->all[SW_CARRY_HANDLE]->pdata[i];
        for (guint kind = 0; kind < G_N_ELEMENTS(handle->locked); kind++)
            SW_CARRY(carriage, SW_CARRY_LOCKED, handle->locked[kind], TRUE);
    }
    for (guint i = 0; i < carriage->all[SW_CARRY_LOCKED]->len; i++)
        settle(carriage, i);
}
