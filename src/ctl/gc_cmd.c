/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * gc: what daemons do by and by, now.
 *
 *   join       dead mounts of this machine are buried                          [P7]
 *   watch      hosts that look silent, as a keeper does, and broken if they are [P19, P21]
 *   sweep      leases, marks and locks of hosts that are gone
 *   trim       salvage, to the bounds that were given
 *
 * What has been done is what was there before and is not there after.
 */

#include "../core/units.h"
#include "../lease/keeper.h"

#include "commands.h"
#include "join.h"
#include "view.h"

#include <stdio.h>
#include <string.h>

#define PAUSE_US (100 * G_TIME_SPAN_MILLISECOND)
#define PROGRESS_US (5 * G_TIME_SPAN_SECOND)
#define SPARE_US (10 * G_TIME_SPAN_SECOND)

typedef struct {
    char *id;
    guint64 counter;
    gint64 lease_us;
} Silent;

typedef struct {
    SwPlace place;
    SwConfig config;
    GPtrArray *silent;                   /* of Silent: being watched */
    GPtrArray *buried, *broken, *spared; /* host ids, owned */
    guint dropped_leases, dropped_marks, dropped_locks;
    guint dropped_entries, added_entries;
    guint64 dropped_bytes;
} Gc;

/* ---- the settings */

static int read_bound(const char *option, const char *text, SwUnits units, gint64 *ret_value)
{
    double value;

    if (!text)
        return 0;
    if (!sw_units_parse(text, units, &value) || value > (double)(G_GINT64_CONSTANT(1) << 61))
        return sw_misused("gc: --%s: '%s' is no %s", option, text,
                          units == SW_UNITS_TIME ? "time (a number, then ms, s, min, h or d)"
                                                 : "size (a number, then K, M, G or T)");
    *ret_value = (gint64)(value + 0.5);
    return 0;
}

static int read_settings(Gc *gc, const SwArguments *arguments)
{
    gint64 max = G_MAXINT64;
    int r;

    sw_join_settings(&gc->config);
    r = read_bound("salvage-max", arguments->salvage_max, SW_UNITS_BYTES, &max);
    gc->config.salvage_max = (guint64)max;
    return r != 0 ? r : read_bound("salvage-age", arguments->salvage_age, SW_UNITS_TIME, &gc->config.salvage_age_us);
}

/* ---- watching */

static void silent_free(gpointer data)
{
    Silent *silent = data;

    g_free(silent->id);
    g_free(silent);
}

static void find_silent(Gc *gc, const SwView *view)
{
    for (guint i = 0; i < view->hosts->len; i++) {
        const SwSurveyHost *host = view->hosts->pdata[i];
        Silent silent = {.lease_us = host->record.lease_us};

        if (host->state != SW_HOST_SILENT || !sw_survey_counter(&view->survey, host->id, &silent.counter))
            continue;
        silent.id = g_strdup(host->id);
        g_ptr_array_add(gc->silent, g_memdup2(&silent, sizeof silent));
    }
}

static void happened(gpointer data, SwKeeperWhat what, const char *host_id, int error)
{
    Gc *gc = data;

    (void)error;
    if (what == SW_KEEPER_BROKE) {
        g_ptr_array_add(gc->broken, g_strdup(host_id));
        sw_join_tell(SW_EVENT_HOST_BROKEN, host_id, NULL);
    } else if (what == SW_KEEPER_BURIED) {
        g_ptr_array_add(gc->buried, g_strdup(host_id));
        sw_join_tell(SW_EVENT_HOST_BURIED, host_id, NULL);
    }
}

/* Broken, by us or others, or alive after all: is watched no more. */
static void settle(Gc *gc, const SwView *view)
{
    for (guint i = gc->silent->len; i-- > 0;) {
        const Silent *silent = gc->silent->pdata[i];
        guint64 counter;

        if (!sw_survey_counter(&view->survey, silent->id, &counter)) {
            g_ptr_array_remove_index(gc->silent, i);
        } else if (counter != silent->counter) {
            g_ptr_array_add(gc->spared, g_strdup(silent->id));
            g_ptr_array_remove_index(gc->silent, i);
        }
    }
}

static gint64 longest_us(const Gc *gc)
{
    gint64 longest = 0;

    for (guint i = 0; i < gc->silent->len; i++)
        longest = MAX(longest, ((Silent *)gc->silent->pdata[i])->lease_us);
    return longest;
}

static void tell_progress(const Gc *gc, gint64 began_us, gint64 *next_us)
{
    gint64 now_us = gc->place.port->now_us(gc->place.port);

    if (now_us < *next_us)
        return;
    (void)fprintf(stderr, "safewritectl: watching %u silent %s, for %.0f of %.0f s\n", gc->silent->len,
                  gc->silent->len == 1 ? "host" : "hosts", (double)(now_us - began_us) / G_USEC_PER_SEC,
                  (double)longest_us(gc) / G_USEC_PER_SEC);
    *next_us = now_us + PROGRESS_US;
}

static void watch(Gc *gc, SwControl *control, const SwView *view)
{
    SwPort *port = gc->place.port;
    SwKeeperEvents events = {.happened = happened, .data = gc};
    gint64 began_us = port->now_us(port), next_us = began_us, end_us = began_us + 2 * longest_us(gc) + SPARE_US;
    SwKeeper *keeper = sw_keeper_new(port, control, gc->config.lease_us, &events);

    while (gc->silent->len > 0 && port->now_us(port) < end_us) {
        tell_progress(gc, began_us, &next_us);
        for (guint i = 0; i < gc->silent->len; i++)
            sw_keeper_want(keeper, ((Silent *)gc->silent->pdata[i])->id);
        (void)sw_keeper_step(keeper);
        settle(gc, view);
        if (gc->silent->len > 0)
            port->sleep_us(port, PAUSE_US);
    }
    for (guint i = 0; i < gc->silent->len; i++)
        g_ptr_array_add(gc->spared, g_strdup(((Silent *)gc->silent->pdata[i])->id));
    for (guint i = gc->spared->len; i-- > 0;) /* moved once, and was silent for a lease since */
        if (g_ptr_array_find_with_equal_func(gc->broken, gc->spared->pdata[i], g_str_equal, NULL))
            g_ptr_array_remove_index(gc->spared, i);
    sw_keeper_free(keeper);
}

/* ---- what has been done */

static GHashTable *names_of(GPtrArray *items, char *(*name)(gconstpointer item))
{
    GHashTable *names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    for (guint i = 0; i < items->len; i++)
        g_hash_table_add(names, name(items->pdata[i]));
    return names;
}

static char *lease_name(gconstpointer item)
{
    const SwSurveyLease *lease = item;

    return g_strdup_printf("%d %s %s %" G_GUINT64_FORMAT, lease->in_locks, lease->name, lease->says.host_id,
                           lease->says.sequence);
}

static char *lock_name(gconstpointer item)
{
    const SwSurveyLock *lock = item;

    return g_strdup_printf("%s %s %" G_GUINT64_FORMAT, lock->name, lock->says.host_id, lock->says.sequence);
}

static char *entry_name(gconstpointer item)
{
    return g_strdup(((const SwSalvageEntry *)item)->name);
}

/* Those of hosts that live come and go by themselves. */
static gboolean is_left_over(const SwView *before, const SwView *after, const char *host_id)
{
    return sw_view_state(before, host_id) != SW_HOST_ALIVE && !sw_survey_find(after->hosts, host_id);
}

static void compare_hosts(Gc *gc, const SwView *before, const SwView *after)
{
    for (guint i = 0; i < before->hosts->len; i++) {
        const SwSurveyHost *host = before->hosts->pdata[i];

        if (host->state == SW_HOST_DEAD && !sw_survey_find(after->hosts, host->id) &&
            !g_ptr_array_find_with_equal_func(gc->buried, host->id, g_str_equal, NULL))
            g_ptr_array_add(gc->buried, g_strdup(host->id));
    }
}

static void compare_holds(Gc *gc, const SwView *before, const SwView *after)
{
    g_autoptr(GHashTable) leases = names_of(after->leases, lease_name), locks = names_of(after->locks, lock_name);

    for (guint i = 0; i < before->leases->len; i++) {
        const SwSurveyLease *lease = before->leases->pdata[i];
        g_autofree char *name = lease_name(lease);

        if (g_hash_table_contains(leases, name) || !is_left_over(before, after, lease->says.host_id))
            continue;
        gc->dropped_marks += lease->is_mark;
        gc->dropped_leases += !lease->is_mark;
    }
    for (guint i = 0; i < before->locks->len; i++) {
        const SwSurveyLock *lock = before->locks->pdata[i];
        g_autofree char *name = lock_name(lock);

        gc->dropped_locks += !g_hash_table_contains(locks, name) && is_left_over(before, after, lock->says.host_id);
    }
}

static void compare_salvage(Gc *gc, GPtrArray *before, GPtrArray *after)
{
    g_autoptr(GHashTable) then = names_of(before, entry_name), now = names_of(after, entry_name);

    for (guint i = 0; i < before->len; i++) {
        const SwSalvageEntry *entry = before->pdata[i];

        if (!entry->has_data || g_hash_table_contains(now, entry->name))
            continue;
        gc->dropped_entries++;
        gc->dropped_bytes += (guint64)MAX(entry->data.st_size, 0);
    }
    for (guint i = 0; i < after->len; i++) {
        const SwSalvageEntry *entry = after->pdata[i];

        gc->added_entries += entry->has_data && !g_hash_table_contains(then, entry->name);
    }
}

/* ---- telling */

static void ids_json(SwJson *json, const char *key, GPtrArray *ids)
{
    sw_json_open(json, key, '[');
    for (guint i = 0; i < ids->len; i++)
        sw_json_text(json, NULL, ids->pdata[i]);
    sw_json_close(json);
}

static void print_json(const Gc *gc)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "source", gc->place.path);
    ids_json(&json, "hosts_buried", gc->buried);
    ids_json(&json, "hosts_broken", gc->broken);
    ids_json(&json, "hosts_left_alone", gc->spared);
    sw_json_number(&json, "content_leases_dropped", gc->dropped_leases);
    sw_json_number(&json, "marks_dropped", gc->dropped_marks);
    sw_json_number(&json, "application_locks_broken", gc->dropped_locks);
    sw_json_number(&json, "salvage_entries_added", gc->added_entries);
    sw_json_number(&json, "salvage_entries_dropped", gc->dropped_entries);
    sw_json_size(&json, "salvage_bytes_dropped", gc->dropped_bytes);
    sw_json_finish(&json);
}

static void print_ids(const char *what, GPtrArray *ids)
{
    for (guint i = 0; i < ids->len; i++)
        (void)printf("%s %s\n", what, (const char *)ids->pdata[i]);
}

static void print_count(const char *format, guint n)
{
    if (n > 0)
        (void)printf(format, n);
}

static void print_text(const Gc *gc)
{
    print_ids("buried dead mount", gc->buried);
    print_ids("broke silent host", gc->broken);
    print_ids("left alone, since it moved or could not be judged: host", gc->spared);
    print_count("leases on contents dropped: %u\n", gc->dropped_leases);
    print_count("marks dropped: %u\n", gc->dropped_marks);
    print_count("locks of applications broken: %u\n", gc->dropped_locks);
    print_count("entries moved to salvage: %u\n", gc->added_entries);
    print_count("entries of salvage dropped: %u\n", gc->dropped_entries);
    if (gc->buried->len + gc->broken->len + gc->spared->len + gc->dropped_leases + gc->dropped_marks +
            gc->dropped_locks + gc->added_entries + gc->dropped_entries ==
        0)
        (void)printf("nothing to clear away\n");
}

/* ---- the command */

static int act(Gc *gc, const SwView *before)
{
    SwControl *control;
    int r;

    find_silent(gc, before);
    r = sw_join(&gc->place, &before->survey, &gc->config, &control);
    if (r != 0)
        return r;
    if (gc->silent->len > 0)
        watch(gc, control, before);
    sw_control_sweep(control);
    sw_control_trim_salvage(control);
    (void)sw_control_close(control);
    return 0;
}

static int take(Gc *gc, SwView *view, GPtrArray **ret_entries)
{
    SwSurvey survey;
    int r = sw_place_survey(&gc->place, &survey);

    if (r != 0)
        return r;
    r = sw_view_take(view, &survey, gc->place.path);
    if (r == 0)
        r = sw_view_entries(view, gc->place.path, ret_entries);
    if (r != 0)
        sw_view_clear(view);
    return r;
}

static int compare(Gc *gc, const SwView *before, GPtrArray *entries)
{
    g_autoptr(GPtrArray) entries_after = NULL;
    SwView after;
    int r = take(gc, &after, &entries_after);

    if (r != 0)
        return r;
    compare_hosts(gc, before, &after);
    compare_holds(gc, before, &after);
    compare_salvage(gc, entries, entries_after);
    sw_view_clear(&after);
    return 0;
}

static int collect(Gc *gc, const SwArguments *arguments)
{
    g_autoptr(GPtrArray) entries = NULL;
    SwView before;
    int r = take(gc, &before, &entries);

    if (r != 0)
        return r;
    r = act(gc, &before);
    if (r == 0)
        r = compare(gc, &before, entries);
    if (r == 0 && arguments->json)
        print_json(gc);
    else if (r == 0)
        print_text(gc);
    sw_view_clear(&before);
    return r;
}

static int run(const SwArguments *arguments)
{
    Gc gc = {0};
    int r = read_settings(&gc, arguments);

    if (r != 0)
        return r;
    gc.silent = g_ptr_array_new_with_free_func(silent_free);
    gc.buried = g_ptr_array_new_with_free_func(g_free);
    gc.broken = g_ptr_array_new_with_free_func(g_free);
    gc.spared = g_ptr_array_new_with_free_func(g_free);
    r = sw_place_open(&gc.place, arguments->words[0]);
    if (r == 0)
        r = collect(&gc, arguments);
    sw_place_clear(&gc.place);
    g_ptr_array_unref(gc.spared);
    g_ptr_array_unref(gc.broken);
    g_ptr_array_unref(gc.buried);
    g_ptr_array_unref(gc.silent);
    return r;
}

const SwCommand sw_gc_command = {
    .name = "gc",
    .options = "json salvage-max salvage-age",
    .min_words = 1,
    .max_words = 1,
    .usage = "PATH",
    .summary =
        "Clears away what dead hosts have left: buries dead mounts of this machine, breaks hosts that are silent "
        "for a whole\nlease as seen from here, drops leases and locks of hosts that are gone, and trims salvage "
        "to the bounds given.",
    .run = run,
};
