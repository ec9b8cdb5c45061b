/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The control of a daemon, for the one that follows: it goes on as the same host, in the same epoch, with the lock on
 * its record, which belongs to the description that both have open.
 */

#include "control_internal.h"

#include "old.h"

#include <string.h>

#define EPOCHS_MAX 100000

/* Whoever adds a field has to say here what becomes of it.  Made anew are the settings, and whom to tell what: what has
 * not been told yet is only what was found before anybody listened. */
#if defined __x86_64__ && !defined __SANITIZE_THREAD__ && !defined __SANITIZE_ADDRESS__
G_STATIC_ASSERT(sizeof(SwControl) == 384);
#endif

void sw_epoch_carry(SwControl *control, SwBundle *bundle, SwEpoch **epoch)
{
    guint place = 0, n = 0;

    for (SwEpoch *at = control->epoch; at; at = at->older) {
        n++;
        if (sw_bundle_is_out(bundle) && at == *epoch)
            place = n;
    }
    if (sw_bundle_is_out(bundle) && *epoch && !place)
        sw_bundle_fail(bundle, "an epoch is not listed");
    sw_bundle_choice(bundle, &place, n);
    if (sw_bundle_is_out(bundle))
        return;
    *epoch = place ? control->epoch : NULL;
    while (place > 1 && place--)
        *epoch = (*epoch)->older;
}

static void carry_one(SwBundle *bundle, SwEpoch *epoch)
{
    sw_bundle_mark(bundle, "epoch");
    sw_bundle_field(bundle, epoch->id, sizeof epoch->id);
    sw_bundle_fd(bundle, &epoch->own);
    sw_bundle_fd(bundle, &epoch->record);
    sw_bundle_fd(bundle, &epoch->released);
    for (guint i = 0; i < SW_STAGE_DIRS; i++)
        sw_bundle_fd(bundle, &epoch->stages[i]);
    sw_bundle_fd(bundle, &epoch->old);
    if (!sw_host_id_is_valid(epoch->id) || epoch->own < 0)
        sw_bundle_fail(bundle, "an epoch is none");
}

static void carry_epochs(SwControl *control, SwBundle *bundle)
{
    SwEpoch **at = &control->epoch;
    guint n = 0;

    for (const SwEpoch *epoch = control->epoch; epoch; epoch = epoch->older)
        n++;
    n = sw_bundle_count(bundle, n, EPOCHS_MAX);
    if (!n)
        sw_bundle_fail(bundle, "there is no epoch");
    for (guint i = 0; i < n; i++) {
        if (!*at)
            *at = sw_epoch_blank();
        carry_one(bundle, *at);
        at = &(*at)->older;
    }
}

static void carry_numbers(SwControl *control, SwBundle *bundle)
{
    SW_BUNDLE(bundle, control->beats);
    SW_BUNDLE(bundle, control->beats_lost);
    SW_BUNDLE(bundle, control->beat_us);
    SW_BUNDLE(bundle, control->proven_us);
    SW_BUNDLE(bundle, control->source_us);
    SW_BUNDLE(bundle, control->source_dev);
    SW_BUNDLE(bundle, control->sequence);
    SW_BUNDLE(bundle, control->swept);
    SW_BUNDLE(bundle, control->same_sweeps);
    SW_BUNDLE(bundle, control->puts);
    SW_BUNDLE(bundle, control->salvaged);
    SW_BUNDLE(bundle, control->trimmed_us);
}

void sw_control_carry(SwControl *control, SwBundle *bundle)
{
    int *const dirs[] = {&control->source, &control->dir,      &control->hosts,  &control->leases,
                         &control->locks,  &control->carriers, &control->salvage};

    sw_bundle_mark(bundle, "control");
    for (guint i = 0; i < G_N_ELEMENTS(dirs); i++) {
        sw_bundle_fd(bundle, dirs[i]);
        if (*dirs[i] < 0)
            sw_bundle_fail(bundle, "a directory is not open");
    }
    carry_epochs(control, bundle);
    carry_numbers(control, bundle);
    sw_olds_carry(control, bundle);
    if (g_atomic_int_get(&control->rejoining) || g_atomic_int_get(&control->trimming) ||
        g_hash_table_size(control->breaking))
        sw_bundle_fail(bundle, "the control directory is being cleared");
    if (control->left)
        sw_bundle_fail(bundle, "there is something on the source that could not be taken away yet");
    sw_bundle_mark(bundle, "end of control");
}

SwControl *sw_control_resume(SwPort *port, const char *source_path, const SwConfig *config, SwBundle *bundle)
{
    SwControl *control = sw_control_blank(port, source_path, config);

    sw_control_carry(control, bundle);
    return control;
}
