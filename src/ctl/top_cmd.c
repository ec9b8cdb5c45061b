/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * top: what a source and its mounts of this machine do, each second anew, on the whole terminal.
 *
 *   how many hosts, how much is in salvage, what is done in a second
 *   the operations that take most time, beside the source's calls that do
 *   hosts, then what is being written, then lock files, as far as there are rows
 */
#include "commands.h"
#include "sample.h"
#include "screen.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EVERY_US G_USEC_PER_SEC
#define OLD_US (4 * G_USEC_PER_SEC) /* of a sample, when a look at the source hangs */
#define PATIENCE_US (10 * G_USEC_PER_SEC)
#define BUSIEST 6

typedef struct {
    const char *name;
    double rate, mean_us;
} Busy;

static void add(GPtrArray *lines, const char *format, ...) G_GNUC_PRINTF(2, 3);

static void add(GPtrArray *lines, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(lines, g_strdup_vprintf(format, args));
    va_end(args);
}

/* ---- what takes most time */

static int by_time(const void *a, const void *b)
{
    const Busy *x = a, *y = b;
    double difference = y->rate * y->mean_us - x->rate * x->mean_us;

    return difference > 0 ? 1 : difference < 0 ? -1 : 0;
}

/* Of the timers from `first` to before `end`; as many as are busy, at most `max`. */
static guint find_busy(const SwSample *sample, guint first, guint end, Busy *ret_busy, guint max)
{
    Busy all[SW_TIMER_N];
    guint n = 0;

    for (guint i = first; i < end; i++) {
        Busy busy;

        (void)sw_metrics_timer_name((SwTimer)i, &busy.name);
        busy.rate = sw_sample_times(sample, (SwTimer)i, &busy.mean_us);
        if (busy.rate > 0)
            all[n++] = busy;
    }
    qsort(all, n, sizeof *all, by_time);
    n = MIN(n, max);
    memcpy(ret_busy, all, n * sizeof *all);
    return n;
}

static char *time_text(double us)
{
    if (us < 1000)
        return g_strdup_printf("%.0f us", us);
    return us < 1e6 ? g_strdup_printf("%.1f ms", us / 1e3) : g_strdup_printf("%.1f s", us / 1e6);
}

static char *busy_text(const Busy *busy, guint n, guint at)
{
    g_autofree char *mean = NULL;

    if (at >= n)
        return g_strdup_printf("%-38s", "");
    mean = time_text(busy[at].mean_us);
    return g_strdup_printf("%-16s %10.1f %10s", busy[at].name, busy[at].rate, mean);
}

static void add_busy(GPtrArray *lines, const SwSample *sample)
{
    Busy operations[BUSIEST], calls[BUSIEST];
    guint n = find_busy(sample, 0, SW_TIMER_CALL_OPEN, operations, BUSIEST);
    guint m = find_busy(sample, SW_TIMER_CALL_OPEN, SW_TIMER_N, calls, BUSIEST);

    add(lines, "%-16s %10s %10s | %-16s %10s %10s", "REQUEST", "PER S", "MEAN", "SOURCE CALL", "PER S", "MEAN");
    for (guint i = 0; i < BUSIEST; i++) {
        g_autofree char *left = busy_text(operations, n, i), *right = busy_text(calls, m, i);

        add(lines, "%s | %s", left, right);
    }
}

/* ---- the screen */

static double all_requests(const SwSample *sample)
{
    double mean_us, rate = 0;

    for (guint i = 0; i < SW_TIMER_CALL_OPEN; i++)
        rate += sw_sample_times(sample, (SwTimer)i, &mean_us);
    return rate;
}

static void add_numbers(GPtrArray *lines, const SwSample *sample)
{
    g_autofree char *salvage = g_format_size(sample->salvage_bytes);
    g_autofree char *in = g_format_size((guint64)sw_sample_rate(sample, SW_COUNT_READ_BYTES));
    g_autofree char *out = g_format_size((guint64)sw_sample_rate(sample, SW_COUNT_WRITTEN_BYTES));

    add(lines, "hosts: %u alive, %u late, %u silent, %u dead   salvage: %u entries, %s", sample->states[SW_HOST_ALIVE],
        sample->states[SW_HOST_LATE], sample->states[SW_HOST_SILENT], sample->states[SW_HOST_DEAD],
        sample->salvage_entries, salvage);
    if (sample->now.mounts == 0) {
        add(lines, "not mounted on this machine");
        add(lines, "%s", "");
        return;
    }
    add(lines, "per s: %.0f requests, %s read, %s written, %.1f commits, %.1f records", all_requests(sample), in, out,
        sw_sample_rate(sample, SW_COUNT_COMMITS_WHOLE) + sw_sample_rate(sample, SW_COUNT_COMMITS_EDIT),
        sw_sample_rate(sample, SW_COUNT_RECORDS));
    add(lines,
        "since the mount: %" G_GUINT64_FORMAT " edits rebased, %" G_GUINT64_FORMAT " killed writers, %" G_GUINT64_FORMAT
        " failed, %" G_GUINT64_FORMAT " fenced",
        sample->now.metrics.counts[SW_COUNT_EDITS_REBASED], sample->now.metrics.counts[SW_COUNT_DISCARDS_KILLED],
        sample->now.metrics.counts[SW_COUNT_DISCARDS_FAILED], sample->now.metrics.counts[SW_COUNT_DISCARDS_FENCED]);
}

/* As many of them as there are rows for; the last row says how many more there are. */
static void add_section(GPtrArray *lines, const char *title, GPtrArray *rows, guint room)
{
    guint shown;

    if (!rows || rows->len == 0 || room < 3)
        return;
    add(lines, "%s", "");
    add(lines, "%s", title);
    shown = rows->len <= room - 2 ? rows->len : room - 3;
    for (guint i = 0; i < shown; i++)
        add(lines, "%s", (const char *)rows->pdata[i]);
    if (shown < rows->len)
        add(lines, "... and %u more", rows->len - shown);
}

static guint room_left(GPtrArray *lines, guint rows)
{
    return rows > lines->len ? rows - lines->len : 0;
}

static void add_title(GPtrArray *lines, const char *path, const SwSample *sample)
{
    g_autofree char *shown = sw_printable(path, FALSE), *now = sw_time_text(g_get_real_time());
    g_autofree char *uptime = sample ? sw_age_text(sample->now.uptime_us) : g_strdup("?");
    gint64 age_us = sample ? g_get_monotonic_time() - sample->taken_us : 0;

    if (!sample)
        add(lines, "safewritectl top %s, looking - %s", now + strlen("2000-01-01 "), shown);
    else if (age_us > OLD_US)
        add(lines, "safewritectl top, NO ANSWER FOR %.0f s - %s", (double)age_us / G_USEC_PER_SEC, shown);
    else
        add(lines, "safewritectl top %s, %u of %u mounts here answer, up %s - %s", now + strlen("2000-01-01 "),
            sample->now.up, sample->now.mounts, uptime, shown);
}

static GPtrArray *lines_of(const char *path, const SwSample *sample, guint rows)
{
    GPtrArray *lines = g_ptr_array_new_with_free_func(g_free);
    guint room;

    add_title(lines, path, sample);
    if (!sample)
        return lines;
    add_numbers(lines, sample);
    add(lines, "%s", "");
    if (sample->now.mounts > 0)
        add_busy(lines, sample);
    room = room_left(lines, rows);
    add_section(lines, "HOST                               STATE   HEARTBEAT  STAGES      BYTES", sample->hosts,
                MAX(room / 3, MIN(room, 4)));
    room = room_left(lines, rows);
    add_section(lines, "WRITING       BYTES     SINCE COMMAND         PATH", sample->stages,
                sample->locks && sample->locks->len > 0 ? room / 3 * 2 : room);
    add_section(lines, "LOCKED BY                           HELD FOR PATH", sample->locks, room_left(lines, rows));
    return lines;
}

static void draw(const char *path, SwSampler *sampler)
{
    g_autoptr(SwSample) sample = sw_sampler_last(sampler);
    g_autoptr(GPtrArray) lines = NULL;
    guint columns, rows;

    sw_screen_size(&columns, &rows);
    lines = lines_of(path, sample, rows);
    sw_screen_show(lines);
}

static int live(const char *path)
{
    SwSampler *sampler;
    int key = 0;

    if (!sw_screen_begin())
        return sw_fail("top needs a terminal; --json prints one sample anywhere");
    sampler = sw_sampler_start(path, EVERY_US);
    while (key >= 0 && key != 'q' && key != 'Q') {
        draw(path, sampler);
        key = sw_screen_key(EVERY_US / 1000 / 2);
    }
    sw_screen_end();
    return 0;
}

/* ---- JSON */

static void times_json(const SwSample *sample, SwJson *json, const char *key, guint first, guint end)
{
    Busy busy[SW_TIMER_N];
    guint n = find_busy(sample, first, end, busy, SW_TIMER_N);

    sw_json_open(json, key, '[');
    for (guint i = 0; i < n; i++) {
        sw_json_open(json, NULL, '{');
        sw_json_text(json, "name", busy[i].name);
        sw_json_decimal(json, "per_second", busy[i].rate);
        sw_json_decimal(json, "mean_seconds", busy[i].mean_us / G_USEC_PER_SEC);
        sw_json_close(json);
    }
    sw_json_close(json);
}

/* One that has another before it, for what is done between them; where no mount answers, there is nothing to wait for.
 */
static SwSample *await_sample(SwSampler *sampler)
{
    gint64 end_us = g_get_monotonic_time() + PATIENCE_US;
    SwSample *sample = NULL;

    while (!sample || (sample->span_us == 0 && sample->now.up > 0 && g_get_monotonic_time() < end_us)) {
        sw_sample_unref(sample);
        g_usleep(EVERY_US / 20);
        sample = sw_sampler_last(sampler);
    }
    return sample;
}

static int print_one(const char *path)
{
    g_autoptr(SwSample) sample = await_sample(sw_sampler_start(path, EVERY_US));
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "path", path);
    sw_json_number(&json, "mounts", sample->now.mounts);
    sw_json_number(&json, "mounts_up", sample->now.up);
    sw_json_seconds(&json, "interval_seconds", sample->span_us);
    sw_json_decimal(&json, "requests_per_second", all_requests(sample));
    sw_json_decimal(&json, "read_bytes_per_second", sw_sample_rate(sample, SW_COUNT_READ_BYTES));
    sw_json_decimal(&json, "written_bytes_per_second", sw_sample_rate(sample, SW_COUNT_WRITTEN_BYTES));
    sw_json_decimal(&json, "commits_per_second",
                    sw_sample_rate(sample, SW_COUNT_COMMITS_WHOLE) + sw_sample_rate(sample, SW_COUNT_COMMITS_EDIT));
    sw_json_decimal(&json, "records_per_second", sw_sample_rate(sample, SW_COUNT_RECORDS));
    times_json(sample, &json, "requests", 0, SW_TIMER_CALL_OPEN);
    times_json(sample, &json, "source_calls", SW_TIMER_CALL_OPEN, SW_TIMER_N);
    sw_json_number(&json, "hosts", sample->hosts ? sample->hosts->len : 0);
    sw_json_number(&json, "stages", sample->stages ? sample->stages->len : 0);
    sw_json_number(&json, "application_locks", sample->locks ? sample->locks->len : 0);
    sw_json_number(&json, "salvage_entries", sample->salvage_entries);
    sw_json_size(&json, "salvage_bytes", sample->salvage_bytes);
    sw_json_finish(&json);
    return 0;
}

/* ---- the command */

/* The only source that is mounted here (g_free). */
static char *only_source(void)
{
    g_autoptr(GPtrArray) mounts = sw_mounts_list();
    const char *source = NULL;

    for (guint i = 0; mounts && i < mounts->len; i++) {
        const SwMount *mount = mounts->pdata[i];

        if (source && strcmp(source, mount->source) != 0)
            return NULL;
        source = mount->source;
    }
    return g_strdup(source);
}

static int run(const SwArguments *arguments)
{
    g_autofree char *path = arguments->n_words > 0 ? g_strdup(arguments->words[0]) : only_source();
    SwPlace place;
    SwSurvey survey;
    int r;

    if (!path)
        return sw_misused("top: name one: not one source is mounted here, but none or several");
    r = sw_place_open(&place, path);
    if (r == 0)
        r = sw_place_survey(&place, &survey);
    if (r == 0)
        sw_survey_clear(&survey);
    sw_place_clear(&place);
    if (r == 0)
        r = arguments->json ? print_one(path) : live(path);
    if (r == 0) /* the thread that takes samples may hang, and uses what is in here */
        path = NULL;
    return r;
}

const SwCommand sw_top_command = {
    .name = "top",
    .options = "json",
    .min_words = 0,
    .max_words = 1,
    .usage = "[PATH]",
    .summary =
        "Shows what a source and its mounts of this machine do, each second anew; q ends it.  PATH may be left out if\n"
        "only one source is mounted here.",
    .run = run,
};
