/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The compact text, one number or histogram a line, words parted by one space:
 *
 *   safewritefs-metrics 1 <version> <host id>
 *   <metric> <label's value, or -> <number>
 *   <metric> <label's value> <sum in microseconds> <bucket> ... <bucket>
 */
#include "metrics.h"

#include <errno.h>
#include <string.h>

#define HEAD "safewritefs-metrics 1 "
#define PREFIX "safewritefs_"
#define WORDS_MAX (3 + SW_METRICS_BUCKETS)

static const struct {
    guint64 us;
    const char *le; /* the same in seconds */
} bounds[] = {
    {10, "1e-05"},   {50, "5e-05"},    {100, "0.0001"},  {250, "0.00025"},   {500, "0.0005"},
    {1000, "0.001"}, {5000, "0.005"},  {10000, "0.01"},  {50000, "0.05"},    {100000, "0.1"},
    {500000, "0.5"}, {1000000, "1.0"}, {5000000, "5.0"}, {30000000, "30.0"},
};
G_STATIC_ASSERT(G_N_ELEMENTS(bounds) + 1 == SW_METRICS_BUCKETS);

typedef struct {
    const char *name, *type;
    const char *unit, *label; /* NULL: none */
    const char *help;
} Metric;

static const Metric commits = {"commits", "counter", NULL, "kind", "Versions that took their name"};
static const Metric commits_fenced = {"commits_fenced", "counter", NULL, NULL,
                                      "Commits refused since others had taken this host for dead"};
static const Metric edits_rebased = {"edits_rebased", "counter", NULL, NULL,
                                     "Edits applied to a version that another host had committed meanwhile"};
static const Metric records = {"records_appended", "counter", NULL, NULL, "Records appended"};
static const Metric discards = {"discards", "counter", NULL, "reason", "Stages that were not committed"};
static const Metric salvaged = {"salvaged", "counter", NULL, NULL, "Stages that were moved to salvage"};
static const Metric salvage_failed = {"salvage_failures", "counter", NULL, NULL,
                                      "Stages that could not be moved to salvage"};
static const Metric leases_broken = {"leases_broken", "counter", NULL, NULL,
                                     "Leases on contents taken over from a host that was dead"};
static const Metric locks_released = {"locks_released", "counter", NULL, NULL,
                                      "Lock files of programs that had ended without removing them"};
static const Metric hosts_ended = {"hosts_ended", "counter", NULL, "why", "Other hosts whose life this mount ended"};
static const Metric rejoins = {"rejoins", "counter", NULL, NULL,
                               "Times that others had taken this host for dead, and it went on as another"};
static const Metric read_bytes = {"read_bytes", "counter", "bytes", NULL, "Bytes read by programs through the daemon"};
static const Metric written_bytes = {"written_bytes", "counter", "bytes", NULL, "Bytes written by programs"};
static const Metric passed = {"passthrough_opens", "counter", NULL, NULL,
                              "Opened files that the kernel reads by itself"};
static const Metric deferred = {"requests_deferred", "counter", NULL, NULL,
                                "Requests that had to wait for a lease or for the source"};
static const Metric errors = {"request_errors", "counter", NULL, "error", "Requests answered with such an error"};
static const Metric stages = {"stages", "gauge", NULL, NULL, "Files that are being written, or wait for their commit"};
static const Metric nodes = {"nodes", "gauge", NULL, NULL, "Files and directories that the kernel knows"};
static const Metric uptime = {"uptime_seconds", "gauge", "seconds", NULL, "Since the mount was made"};
static const Metric requests = {"request_duration_seconds", "histogram", "seconds", "operation",
                                "Requests of the kernel, and how long each took"};
static const Metric calls = {"source_call_duration_seconds", "histogram", "seconds", "call",
                             "Calls of the source's file system, and how long each took"};

static const struct {
    const Metric *metric;
    const char *value; /* of its label */
} counted[SW_COUNT_N] = {
    [SW_COUNT_COMMITS_WHOLE] = {&commits, "whole"},
    [SW_COUNT_COMMITS_EDIT] = {&commits, "edit"},
    [SW_COUNT_COMMITS_FENCED] = {&commits_fenced, NULL},
    [SW_COUNT_EDITS_REBASED] = {&edits_rebased, NULL},
    [SW_COUNT_RECORDS] = {&records, NULL},
    [SW_COUNT_DISCARDS_KILLED] = {&discards, "killed"},
    [SW_COUNT_DISCARDS_FAILED] = {&discards, "failed"},
    [SW_COUNT_DISCARDS_REMOVED] = {&discards, "removed"},
    [SW_COUNT_DISCARDS_FENCED] = {&discards, "fenced"},
    [SW_COUNT_DISCARDS_UNMOUNTED] = {&discards, "unmounted"},
    [SW_COUNT_DISCARDS_NAMELESS] = {&discards, "nameless"},
    [SW_COUNT_DISCARDS_SUPERSEDED] = {&discards, "superseded"},
    [SW_COUNT_DISCARDS_UNWRITTEN] = {&discards, "unwritten"},
    [SW_COUNT_SALVAGED] = {&salvaged, NULL},
    [SW_COUNT_SALVAGE_FAILED] = {&salvage_failed, NULL},
    [SW_COUNT_LEASES_BROKEN] = {&leases_broken, NULL},
    [SW_COUNT_LOCKS_RELEASED] = {&locks_released, NULL},
    [SW_COUNT_HOSTS_BROKEN] = {&hosts_ended, "silent"},
    [SW_COUNT_HOSTS_BURIED] = {&hosts_ended, "dead"},
    [SW_COUNT_REJOINS] = {&rejoins, NULL},
    [SW_COUNT_READ_BYTES] = {&read_bytes, NULL},
    [SW_COUNT_WRITTEN_BYTES] = {&written_bytes, NULL},
    [SW_COUNT_PASSED] = {&passed, NULL},
    [SW_COUNT_DEFERRED] = {&deferred, NULL},
    [SW_COUNT_ERRORS_IO] = {&errors, "EIO"},
    [SW_COUNT_ERRORS_STALE] = {&errors, "ESTALE"},
    [SW_COUNT_ERRORS_SPACE] = {&errors, "ENOSPC"},
    [SW_COUNT_STAGES] = {&stages, NULL},
    [SW_COUNT_NODES] = {&nodes, NULL},
    [SW_COUNT_UPTIME] = {&uptime, NULL},
};

static const struct {
    const Metric *metric;
    const char *value;
} timed[SW_TIMER_N] = {
    [SW_TIMER_LOOKUP] = {&requests, "lookup"},       [SW_TIMER_FORGET] = {&requests, "forget"},
    [SW_TIMER_GETATTR] = {&requests, "getattr"},     [SW_TIMER_SETATTR] = {&requests, "setattr"},
    [SW_TIMER_READLINK] = {&requests, "readlink"},   [SW_TIMER_MKNOD] = {&requests, "mknod"},
    [SW_TIMER_MKDIR] = {&requests, "mkdir"},         [SW_TIMER_UNLINK] = {&requests, "unlink"},
    [SW_TIMER_RMDIR] = {&requests, "rmdir"},         [SW_TIMER_SYMLINK] = {&requests, "symlink"},
    [SW_TIMER_RENAME] = {&requests, "rename"},       [SW_TIMER_LINK] = {&requests, "link"},
    [SW_TIMER_OPEN] = {&requests, "open"},           [SW_TIMER_CREATE] = {&requests, "create"},
    [SW_TIMER_READ] = {&requests, "read"},           [SW_TIMER_WRITE] = {&requests, "write"},
    [SW_TIMER_FLUSH] = {&requests, "flush"},         [SW_TIMER_RELEASE] = {&requests, "release"},
    [SW_TIMER_FSYNC] = {&requests, "fsync"},         [SW_TIMER_OPENDIR] = {&requests, "opendir"},
    [SW_TIMER_READDIR] = {&requests, "readdir"},     [SW_TIMER_RELEASEDIR] = {&requests, "releasedir"},
    [SW_TIMER_FSYNCDIR] = {&requests, "fsyncdir"},   [SW_TIMER_STATFS] = {&requests, "statfs"},
    [SW_TIMER_GETXATTR] = {&requests, "getxattr"},   [SW_TIMER_LISTXATTR] = {&requests, "listxattr"},
    [SW_TIMER_SETXATTR] = {&requests, "setxattr"},   [SW_TIMER_REMOVEXATTR] = {&requests, "removexattr"},
    [SW_TIMER_FALLOCATE] = {&requests, "fallocate"}, [SW_TIMER_COPY_FILE_RANGE] = {&requests, "copy_file_range"},
    [SW_TIMER_LSEEK] = {&requests, "lseek"},         [SW_TIMER_LOCK] = {&requests, "lock"},
    [SW_TIMER_OTHER] = {&requests, "other"},         [SW_TIMER_CALL_OPEN] = {&calls, "open"},
    [SW_TIMER_CALL_CLOSE] = {&calls, "close"},       [SW_TIMER_CALL_STAT] = {&calls, "stat"},
    [SW_TIMER_CALL_SETATTR] = {&calls, "setattr"},   [SW_TIMER_CALL_XATTR] = {&calls, "xattr"},
    [SW_TIMER_CALL_STATFS] = {&calls, "statfs"},     [SW_TIMER_CALL_MAKE] = {&calls, "make"},
    [SW_TIMER_CALL_READLINK] = {&calls, "readlink"}, [SW_TIMER_CALL_LINK] = {&calls, "link"},
    [SW_TIMER_CALL_UNLINK] = {&calls, "unlink"},     [SW_TIMER_CALL_RENAME] = {&calls, "rename"},
    [SW_TIMER_CALL_READDIR] = {&calls, "readdir"},   [SW_TIMER_CALL_READ] = {&calls, "read"},
    [SW_TIMER_CALL_WRITE] = {&calls, "write"},       [SW_TIMER_CALL_ALLOCATE] = {&calls, "allocate"},
    [SW_TIMER_CALL_SYNC] = {&calls, "sync"},         [SW_TIMER_CALL_COPY] = {&calls, "copy"},
    [SW_TIMER_CALL_LOCK] = {&calls, "lock"},
};

static guint64 get(const guint64 *number)
{
    return __atomic_load_n(number, __ATOMIC_RELAXED);
}

void sw_metrics_time(SwMetrics *metrics, SwTimer what, gint64 us)
{
    SwHistogram *times = &metrics->times[what];
    guint64 took = (guint64)MAX(us, 0);
    guint at = 0;

    while (at < G_N_ELEMENTS(bounds) && took > bounds[at].us)
        at++;
    (void)__atomic_fetch_add(&times->sum_us, took, __ATOMIC_RELAXED);
    (void)__atomic_fetch_add(&times->buckets[at], 1, __ATOMIC_RELAXED);
}

const char *sw_metrics_count_name(SwCount what, const char **ret_label)
{
    *ret_label = counted[what].value;
    return counted[what].metric->name;
}

const char *sw_metrics_timer_name(SwTimer what, const char **ret_label)
{
    *ret_label = timed[what].value;
    return timed[what].metric->name;
}

static guint64 total_of(const SwHistogram *times)
{
    guint64 total = 0;

    for (guint i = 0; i < SW_METRICS_BUCKETS; i++)
        total += get(&times->buckets[i]);
    return total;
}

/* ---- compact text */

char *sw_metrics_text(const SwMetrics *metrics, const char *version, const char *host_id)
{
    GString *text = g_string_new(NULL);

    g_string_append_printf(text, HEAD "%s %s\n", version, host_id);
    for (guint i = 0; i < SW_COUNT_N; i++) {
        guint64 count = get(&metrics->counts[i]);

        if (count)
            g_string_append_printf(text, "%s %s %" G_GUINT64_FORMAT "\n", counted[i].metric->name,
                                   counted[i].value ? counted[i].value : "-", count);
    }
    for (guint i = 0; i < SW_TIMER_N; i++) {
        const SwHistogram *times = &metrics->times[i];

        if (!total_of(times))
            continue;
        g_string_append_printf(text, "%s %s %" G_GUINT64_FORMAT, timed[i].metric->name, timed[i].value,
                               get(&times->sum_us));
        for (guint j = 0; j < SW_METRICS_BUCKETS; j++)
            g_string_append_printf(text, " %" G_GUINT64_FORMAT, get(&times->buckets[j]));
        g_string_append_c(text, '\n');
    }
    return g_string_free(text, FALSE);
}

static gboolean read_numbers(char **words, guint n, guint64 *ret_numbers)
{
    for (guint i = 0; i < n; i++)
        if (!g_ascii_string_to_unsigned(words[i], 10, 0, G_MAXUINT64, &ret_numbers[i], NULL))
            return FALSE;
    return TRUE;
}

static guint64 *find_count(SwMetrics *metrics, const char *name, const char *value)
{
    for (guint i = 0; i < SW_COUNT_N; i++)
        if (strcmp(counted[i].metric->name, name) == 0 && strcmp(counted[i].value ? counted[i].value : "-", value) == 0)
            return &metrics->counts[i];
    return NULL;
}

static SwHistogram *find_times(SwMetrics *metrics, const char *name, const char *value)
{
    for (guint i = 0; i < SW_TIMER_N; i++)
        if (strcmp(timed[i].metric->name, name) == 0 && strcmp(timed[i].value, value) == 0)
            return &metrics->times[i];
    return NULL;
}

static gboolean parse_line(const char *line, SwMetrics *metrics)
{
    g_auto(GStrv) words = g_strsplit(line, " ", WORDS_MAX + 1);
    guint n = g_strv_length(words);
    guint64 numbers[1 + SW_METRICS_BUCKETS];
    guint64 *count = n == 3 ? find_count(metrics, words[0], words[1]) : NULL;
    SwHistogram *times = n == WORDS_MAX ? find_times(metrics, words[0], words[1]) : NULL;

    if (n < 3 || n > WORDS_MAX || !read_numbers(words + 2, n - 2, numbers))
        return FALSE;
    if (count)
        *count = numbers[0];
    if (times) {
        times->sum_us = numbers[0];
        memcpy(times->buckets, numbers + 1, sizeof times->buckets);
    }
    return TRUE;
}

int sw_metrics_parse(const char *text, SwMetricsReport *ret_report)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    guint n = g_strv_length(lines);
    g_auto(GStrv) head = g_strsplit(n > 0 && g_str_has_prefix(lines[0], HEAD) ? lines[0] + strlen(HEAD) : "", " ", -1);
    SwMetrics metrics = {0};

    if (g_strv_length(head) != 2 || *lines[n - 1]) /* a line that does not end was cut off */
        return -EBADMSG;
    for (guint i = 1; i + 1 < n; i++)
        if (!parse_line(lines[i], &metrics))
            return -EBADMSG;
    *ret_report = (SwMetricsReport){.metrics = metrics, .version = g_strdup(head[0]), .host_id = g_strdup(head[1])};
    return 0;
}

void sw_metrics_report_clear(SwMetricsReport *report)
{
    g_free(report->version);
    g_free(report->host_id);
    g_free(report->mountpoint);
    g_free(report->source);
    *report = (SwMetricsReport){0};
}

/* ---- OpenMetrics, and the text format before it */

char *sw_metrics_escape(const char *value)
{
    GString *out = g_string_new(NULL);
    g_autofree char *valid = g_utf8_make_valid(value, -1);

    for (const char *at = valid; *at; at++) {
        if (*at == '\\' || *at == '"')
            g_string_append_c(out, '\\');
        if (*at == '\n')
            g_string_append(out, "\\n");
        else
            g_string_append_c(out, *at);
    }
    return g_string_free(out, FALSE);
}

/* Before OpenMetrics a counter was named with its "_total", there was no info, and units were no business of the
 * format. */
void sw_metrics_family(GString *out, SwMetricsFormat format, const char *name, const char *type, const char *unit,
                       const char *help)
{
    gboolean is_new = format == SW_METRICS_OPENMETRICS;
    const char *suffix = is_new                         ? ""
                         : strcmp(type, "counter") == 0 ? "_total"
                         : strcmp(type, "info") == 0    ? "_info"
                                                        : "";

    g_string_append_printf(out, "# HELP " PREFIX "%s%s %s\n", name, suffix, help);
    g_string_append_printf(out, "# TYPE " PREFIX "%s%s %s\n", name, suffix,
                           !is_new && strcmp(type, "info") == 0 ? "gauge" : type);
    if (is_new && unit)
        g_string_append_printf(out, "# UNIT " PREFIX "%s %s\n", name, unit);
}

static void head_of(GString *out, SwMetricsFormat format, const Metric *metric)
{
    sw_metrics_family(out, format, metric->name, metric->type, metric->unit, metric->help);
}

/* {mountpoint="/m",label="value"}, the beginning of a sample. */
static void begin_sample(GString *out, const SwMetricsReport *report, const Metric *metric, const char *suffix,
                         const char *value)
{
    g_autofree char *mountpoint = sw_metrics_escape(report->mountpoint);

    g_string_append_printf(out, PREFIX "%s%s{mountpoint=\"%s\"", metric->name, suffix, mountpoint);
    if (value)
        g_string_append_printf(out, ",%s=\"%s\"", metric->label, value);
}

static void add_count(GString *out, const SwMetricsReport *report, guint what)
{
    const Metric *metric = counted[what].metric;
    guint64 count = report->metrics.counts[what];

    begin_sample(out, report, metric, strcmp(metric->type, "counter") == 0 ? "_total" : "", counted[what].value);
    if (what == SW_COUNT_UPTIME)
        g_string_append_printf(out, "} %" G_GUINT64_FORMAT ".%06u\n", count / G_USEC_PER_SEC,
                               (guint)(count % G_USEC_PER_SEC));
    else
        g_string_append_printf(out, "} %" G_GUINT64_FORMAT "\n", count);
}

static void add_times(GString *out, const SwMetricsReport *report, guint what)
{
    const SwHistogram *times = &report->metrics.times[what];
    const Metric *metric = timed[what].metric;
    guint64 so_far = 0;

    if (!total_of(times))
        return;
    for (guint i = 0; i < SW_METRICS_BUCKETS; i++) {
        so_far += times->buckets[i];
        begin_sample(out, report, metric, "_bucket", timed[what].value);
        g_string_append_printf(out, ",le=\"%s\"} %" G_GUINT64_FORMAT "\n",
                               i < G_N_ELEMENTS(bounds) ? bounds[i].le : "+Inf", so_far);
    }
    begin_sample(out, report, metric, "_sum", timed[what].value);
    g_string_append_printf(out, "} %" G_GUINT64_FORMAT ".%06u\n", times->sum_us / G_USEC_PER_SEC,
                           (guint)(times->sum_us % G_USEC_PER_SEC));
    begin_sample(out, report, metric, "_count", timed[what].value);
    g_string_append_printf(out, "} %" G_GUINT64_FORMAT "\n", so_far);
}

static void add_info(const SwMetricsReport *const *reports, guint n, SwMetricsFormat format, GString *out)
{
    sw_metrics_family(out, format, "mount", "info", NULL, "What is mounted, and as which host");
    for (guint i = 0; i < n; i++) {
        g_autofree char *mountpoint = sw_metrics_escape(reports[i]->mountpoint);
        g_autofree char *source = sw_metrics_escape(reports[i]->source);
        g_autofree char *host = sw_metrics_escape(reports[i]->host_id);
        g_autofree char *version = sw_metrics_escape(reports[i]->version);

        g_string_append_printf(out, PREFIX "mount_info{mountpoint=\"%s\",source=\"%s\",host=\"%s\",version=\"%s\"} 1\n",
                               mountpoint, source, host, version);
    }
}

/* The samples of one metric have to stand together, whichever mount they are of. */
void sw_metrics_format(const SwMetricsReport *const *reports, guint n, SwMetricsFormat format, GString *out)
{
    guint i, j, end;

    add_info(reports, n, format, out);
    for (i = 0; i < SW_COUNT_N; i = end) {
        head_of(out, format, counted[i].metric);
        for (end = i; end < SW_COUNT_N && counted[end].metric == counted[i].metric;)
            end++;
        for (j = 0; j < n; j++)
            for (guint k = i; k < end; k++)
                add_count(out, reports[j], k);
    }
    for (i = 0; i < SW_TIMER_N; i = end) {
        head_of(out, format, timed[i].metric);
        for (end = i; end < SW_TIMER_N && timed[end].metric == timed[i].metric;)
            end++;
        for (j = 0; j < n; j++)
            for (guint k = i; k < end; k++)
                add_times(out, reports[j], k);
    }
}
