/* SPDX-License-Identifier: GPL-2.0-or-later */

/* core/metrics: counting, the compact text there and back, and what Prometheus reads. */

#include "../../src/core/metrics.h"

#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define XATTR_SIZE_MAX 65536
#define THREADS 4
#define ROUNDS 20000

static SwMetrics shared;

static void *counts_much(void *data)
{
    (void)data;
    for (guint i = 0; i < ROUNDS; i++) {
        sw_metrics_add(&shared, SW_COUNT_READ_BYTES, 3);
        sw_metrics_time(&shared, SW_TIMER_READ, i % 2 ? 5 : 20);
    }
    return NULL;
}

/* Nothing that several threads count is lost. */
static void counts_together(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    for (guint i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, counts_much, NULL), 0);
    for (guint i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(shared.counts[SW_COUNT_READ_BYTES], 3 * THREADS * ROUNDS);
    assert_int_equal(shared.times[SW_TIMER_READ].buckets[0], THREADS * ROUNDS / 2);
    assert_int_equal(shared.times[SW_TIMER_READ].buckets[1], THREADS * ROUNDS / 2);
    assert_int_equal(shared.times[SW_TIMER_READ].sum_us, THREADS * ROUNDS / 2 * 25);
}

/* A bound belongs to the bucket below it, as "le" says; what is longer than all falls into the last. */
static void buckets(void **state)
{
    static const struct {
        gint64 us;
        guint bucket;
    } cases[] = {{-1, 0},   {0, 0},    {10, 0},       {11, 1},        {50, 1},        {51, 2},
                 {1000, 5}, {1001, 6}, {1000000, 11}, {30000000, 13}, {30000001, 14}, {G_MAXINT64, 14}};

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        SwMetrics metrics = {0};

        sw_metrics_time(&metrics, SW_TIMER_WRITE, cases[i].us);
        assert_int_equal(metrics.times[SW_TIMER_WRITE].buckets[cases[i].bucket], 1);
        assert_int_equal(metrics.times[SW_TIMER_WRITE].sum_us, MAX(cases[i].us, 0));
    }
}

static void fill(SwMetrics *metrics, guint64 with)
{
    for (guint i = 0; i < SW_COUNT_N; i++)
        metrics->counts[i] = with - i;
    for (guint i = 0; i < SW_TIMER_N; i++) {
        metrics->times[i].sum_us = with - 1000 - i;
        for (guint j = 0; j < SW_METRICS_BUCKETS; j++)
            metrics->times[i].buckets[j] = with / 100 - i - 100 * j;
    }
}

/* Every number has a place of its own in the text; at its largest it fits into an extended attribute. */
static void there_and_back(void **state)
{
    SwMetrics metrics;
    SwMetricsReport report;
    g_autofree char *text = NULL, *again = NULL;

    (void)state;
    memset(&metrics, 0, sizeof metrics);
    fill(&metrics, G_MAXUINT64);
    text = sw_metrics_text(&metrics, "1.2.3", "host.0123456789abcdef");
    assert_true(strlen(text) < XATTR_SIZE_MAX);
    assert_int_equal(sw_metrics_parse(text, &report), 0);
    assert_memory_equal(&report.metrics, &metrics, sizeof metrics);
    assert_string_equal(report.version, "1.2.3");
    assert_string_equal(report.host_id, "host.0123456789abcdef");
    again = sw_metrics_text(&report.metrics, report.version, report.host_id);
    assert_string_equal(again, text);
    sw_metrics_report_clear(&report);
}

/* Of another version: what is not known here is left out. */
static void other_versions(void **state)
{
    SwMetricsReport report;

    (void)state;
    assert_int_equal(sw_metrics_parse("safewritefs-metrics 1 9 h.1\ncommits edit 7\ncommits magic 1\nnovelty - 3\n"
                                      "novel_seconds x 5 1 2 3\nread_bytes - 8\n",
                                      &report),
                     0);
    assert_int_equal(report.metrics.counts[SW_COUNT_COMMITS_EDIT], 7);
    assert_int_equal(report.metrics.counts[SW_COUNT_READ_BYTES], 8);
    sw_metrics_report_clear(&report);
}

static void refuses_everything_else(void **state)
{
    static const char *const bad[] = {
        "",
        "\n",
        "safewritefs-metrics 2 9 h.1\n",
        "safewritefs-metrics 1 9\n",
        "safewritefs-metrics 1 9 h.1",
        "safewritefs-metrics 1 9 h.1\ncommits edit 7",
        "safewritefs-metrics 1 9 h.1\ncommits edit\n",
        "safewritefs-metrics 1 9 h.1\ncommits edit -7\n",
        "safewritefs-metrics 1 9 h.1\ncommits edit 18446744073709551616\n",
        "safewritefs-metrics 1 9 h.1\ncommits edit seven\n",
        "safewritefs-metrics 1 9 h.1\n\n",
        "safewritefs-metrics 1 9 h.1\nx y 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n",
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
        SwMetricsReport report;

        if (sw_metrics_parse(bad[i], &report) != -EBADMSG)
            fail_msg("taken: %s", bad[i]);
    }
}

static SwMetricsReport report_of(const char *mountpoint)
{
    return (SwMetricsReport){
        .version = (char *)"1", .host_id = (char *)"h", .source = (char *)"/s", .mountpoint = (char *)mountpoint};
}

static void has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no %s in:\n%s", part, text);
}

/* Metrics stand once, with the samples of all mounts together; buckets add up; labels cannot break out. */
static void openmetrics(void **state)
{
    SwMetricsReport a = report_of("/a"), b = report_of("/b \"\\\n\xff");
    const SwMetricsReport *const both[] = {&a, &b};
    g_autoptr(GString) out = g_string_new(NULL);
    const char *head;

    (void)state;
    sw_metrics_add(&a.metrics, SW_COUNT_COMMITS_EDIT, 3);
    sw_metrics_time(&a.metrics, SW_TIMER_LOOKUP, 40);
    sw_metrics_time(&a.metrics, SW_TIMER_LOOKUP, 2000000);
    sw_metrics_set(&b.metrics, SW_COUNT_UPTIME, 1500000);
    sw_metrics_format(both, 2, SW_METRICS_OPENMETRICS, out);
    has(out->str, "safewritefs_commits_total{mountpoint=\"/a\",kind=\"whole\"} 0\n"
                  "safewritefs_commits_total{mountpoint=\"/a\",kind=\"edit\"} 3\n"
                  "safewritefs_commits_total{mountpoint=\"/b \\\"\\\\\\n\xef\xbf\xbd\",kind=\"whole\"} 0\n");
    has(out->str, "# TYPE safewritefs_read_bytes counter\n# UNIT safewritefs_read_bytes bytes\n");
    has(out->str, "operation=\"lookup\",le=\"1e-05\"} 0\n");
    has(out->str, "operation=\"lookup\",le=\"5e-05\"} 1\n");
    has(out->str, "operation=\"lookup\",le=\"1.0\"} 1\n");
    has(out->str, "operation=\"lookup\",le=\"5.0\"} 2\n");
    has(out->str, "operation=\"lookup\",le=\"+Inf\"} 2\n");
    has(out->str, "safewritefs_request_duration_seconds_sum{mountpoint=\"/a\",operation=\"lookup\"} 2.000040\n");
    has(out->str, "safewritefs_uptime_seconds{mountpoint=\"/b \\\"\\\\\\n\xef\xbf\xbd\"} 1.500000\n");
    head = strstr(out->str, "# TYPE safewritefs_commits counter\n");
    assert_non_null(head);
    assert_null(strstr(head + 1, "# TYPE safewritefs_commits counter\n"));
}

/* Before OpenMetrics a counter's name was that of its sample. */
static void text_format(void **state)
{
    SwMetricsReport a = report_of("/a");
    const SwMetricsReport *const one[] = {&a};
    g_autoptr(GString) out = g_string_new(NULL);

    (void)state;
    sw_metrics_format(one, 1, SW_METRICS_TEXT, out);
    has(out->str, "# TYPE safewritefs_commits_total counter\n");
    has(out->str, "# TYPE safewritefs_mount_info gauge\n");
    has(out->str, "# TYPE safewritefs_stages gauge\n");
    assert_null(strstr(out->str, "# UNIT"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_together),
        cmocka_unit_test(buckets),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(other_versions),
        cmocka_unit_test(refuses_everything_else),
        cmocka_unit_test(openmetrics),
        cmocka_unit_test(text_format),
    };

    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
