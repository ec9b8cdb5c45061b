/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sample.h"

#include "../core/base.h"

#include <stdio.h>
#include <string.h>

struct SwSampler {
    const char *path;
    gint64 every_us;
    SwMutex lock;
    SwSample *last; /* protected by lock: counted */
};

void sw_sample_unref(SwSample *sample)
{
    if (!sample || !g_atomic_int_dec_and_test(&sample->refs))
        return;
    g_clear_pointer(&sample->hosts, g_ptr_array_unref);
    g_clear_pointer(&sample->stages, g_ptr_array_unref);
    g_clear_pointer(&sample->locks, g_ptr_array_unref);
    g_free(sample);
}

/* ---- numbers of the mounts */

static void add_report(SwNumbers *numbers, const SwMetricsReport *report)
{
    gint64 uptime_us = (gint64)report->metrics.counts[SW_COUNT_UPTIME];

    numbers->uptime_us = numbers->up == 0 ? uptime_us : MIN(numbers->uptime_us, uptime_us);
    numbers->up++;
    for (guint i = 0; i < SW_COUNT_N; i++)
        numbers->metrics.counts[i] += report->metrics.counts[i];
    for (guint i = 0; i < SW_TIMER_N; i++) {
        numbers->metrics.times[i].sum_us += report->metrics.times[i].sum_us;
        for (guint j = 0; j < SW_METRICS_BUCKETS; j++)
            numbers->metrics.times[i].buckets[j] += report->metrics.times[i].buckets[j];
    }
}

static void ask_mounts(const SwPlace *place, SwNumbers *numbers)
{
    for (guint i = 0; i < place->mounts->len; i++) {
        const SwMount *mount = place->mounts->pdata[i];
        g_autofree char *text = NULL;
        SwMetricsReport report;

        if (!sw_place_has_mount(place, mount))
            continue;
        numbers->mounts++;
        if (!mount->top || sw_mount_attribute(mount->mountpoint, SW_METRICS_XATTR, &text) < 0 ||
            sw_metrics_parse(text, &report) < 0)
            continue;
        add_report(numbers, &report);
        sw_metrics_report_clear(&report);
    }
}

/* ---- the source */

static void add_hosts(SwSample *sample, const SwView *view)
{
    for (guint i = 0; i < view->hosts->len; i++) {
        const SwSurveyHost *host = view->hosts->pdata[i];
        g_autofree char *age = sw_age_text(host->age_us);
        g_autofree char *bytes = g_format_size(host->stage_bytes);

        sample->states[host->state]++;
        g_ptr_array_add(sample->hosts, g_strdup_printf("%-34.34s %-7s %9s %7u %10s", host->id,
                                                       sw_host_state_name(host->state), age, host->stages, bytes));
    }
}

static void add_stages(SwSample *sample, SwPlace *place, SwView *view)
{
    SwWriting writing;

    sw_writing_take(place, view, TRUE, &writing);
    for (guint i = 0; i < writing.writes->len; i++) {
        const SwWrite *write = writing.writes->pdata[i];
        g_autofree char *age = sw_age_text(write->line.age_us), *bytes = g_format_size(write->line.bytes);
        g_autofree char *path = sw_printable(write->line.path ? write->line.path : "?", FALSE);
        g_autofree char *command = sw_printable(*write->line.command ? write->line.command : "?", FALSE);

        g_ptr_array_add(sample->stages, g_strdup_printf("%-8s %10s %9s %-15.15s %s",
                                                        write->told ? sw_stage_line_state_name(write->line.state) : "?",
                                                        bytes, age, command, path));
    }
    sw_writing_clear(&writing);
}

static void add_locks(SwSample *sample, const SwView *view)
{
    for (guint i = 0; i < view->locks->len; i++) {
        const SwSurveyLock *lock = view->locks->pdata[i];
        g_autofree char *age = sw_age_text(lock->age_us), *path = sw_printable(lock->says.path, FALSE);

        g_ptr_array_add(sample->locks, g_strdup_printf("%-34.34s %9s %s", lock->says.host_id, age, path));
    }
}

static void look(SwSample *sample, SwPlace *place)
{
    g_autoptr(GPtrArray) entries = NULL;
    SwSurvey survey;
    SwView view;

    if (sw_survey_open(place->port, place->source, &survey) < 0)
        return;
    if (sw_view_take(&view, &survey, place->path) == 0 && sw_view_entries(&view, place->path, &entries) == 0) {
        sample->hosts = g_ptr_array_new_with_free_func(g_free);
        sample->stages = g_ptr_array_new_with_free_func(g_free);
        sample->locks = g_ptr_array_new_with_free_func(g_free);
        add_hosts(sample, &view);
        add_stages(sample, place, &view);
        add_locks(sample, &view);
    }
    for (guint i = 0; entries && i < entries->len; i++) {
        const SwSalvageEntry *entry = entries->pdata[i];

        sample->salvage_entries += entry->has_data;
        sample->salvage_bytes += entry->has_data ? (guint64)MAX(entry->data.st_size, 0) : 0;
    }
    sw_view_clear(&view);
}

/* ---- the thread */

static SwSample *take(const SwSampler *sampler)
{
    SwSample *sample = g_new0(SwSample, 1);
    SwPlace place;

    sample->refs = 1;
    if (sw_place_open(&place, sampler->path) == 0) {
        ask_mounts(&place, &sample->now);
        sample->taken_us = g_get_monotonic_time();
        look(sample, &place);
    }
    sw_place_clear(&place);
    return sample;
}

static void *sample_for_ever(void *data)
{
    SwSampler *sampler = data;
    SwSample *before = NULL;

    for (;;) {
        gint64 began_us = g_get_monotonic_time();
        SwSample *sample = take(sampler);
        gint64 left_us;

        /* Counters of a mount that came, went or did not answer would look like a leap. */
        if (before && before->now.up == sample->now.up && sample->now.up > 0) {
            sample->before = before->now;
            sample->span_us = sample->taken_us - before->taken_us;
        }
        sw_mutex_lock(&sampler->lock);
        before = sampler->last;
        sampler->last = sample;
        sw_mutex_unlock(&sampler->lock);
        sw_sample_unref(before);
        before = sample; /* lives until the next has taken its place */
        left_us = sampler->every_us - (g_get_monotonic_time() - began_us);
        if (left_us > 0)
            g_usleep((gulong)left_us);
    }
    return NULL;
}

SwSampler *sw_sampler_start(const char *path, gint64 every_us)
{
    SwSampler *sampler = g_new0(SwSampler, 1);
    pthread_t thread;

    sampler->path = path;
    sampler->every_us = every_us;
    sw_mutex_init(&sampler->lock);
    if (pthread_create(&thread, NULL, sample_for_ever, sampler) == 0)
        (void)pthread_detach(thread);
    return sampler;
}

SwSample *sw_sampler_last(SwSampler *sampler)
{
    SwSample *last;

    SW_HOLD(&sampler->lock);
    last = sampler->last;
    if (last)
        g_atomic_int_inc(&last->refs);
    return last;
}

/* ---- rates */

static double grown(guint64 now, guint64 before)
{
    return now > before ? (double)(now - before) : 0;
}

static double per_second(const SwSample *sample, double n)
{
    return sample->span_us > 0 ? n * G_USEC_PER_SEC / (double)sample->span_us : 0;
}

double sw_sample_rate(const SwSample *sample, SwCount what)
{
    return per_second(sample, grown(sample->now.metrics.counts[what], sample->before.metrics.counts[what]));
}

double sw_sample_times(const SwSample *sample, SwTimer what, double *ret_mean_us)
{
    const SwHistogram *now = &sample->now.metrics.times[what], *before = &sample->before.metrics.times[what];
    double n = 0;

    for (guint i = 0; i < SW_METRICS_BUCKETS; i++)
        n += grown(now->buckets[i], before->buckets[i]);
    *ret_mean_us = n > 0 && sample->span_us > 0 ? grown(now->sum_us, before->sum_us) / n : 0;
    return per_second(sample, n);
}
