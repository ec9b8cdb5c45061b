/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * metrics: what mounts of this machine count, and how their sources look, for Prometheus.
 *
 * Each mount tells its own numbers (core/metrics.h); one that does not answer is shown as down, so that somebody is
 * told.  With --textfile they go to files that node_exporter reads: one for each mount, so that one that is unmounted
 * can be told by its file, which goes with the next run.
 */

#include "../core/metrics.h"

#include "commands.h"
#include "place.h"
#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILE_PREFIX "safewritefs-"
#define FILE_SUFFIX ".prom"

/* A mount, and what is known of it. */
typedef struct {
    SwMetricsReport report;
    gboolean up;
    gboolean surveyed; /* the rest is known */
    guint hosts[SW_HOST_GONE + 1];
    guint leases, locks, entries;
    guint64 bytes;
} Seen;

static void seen_free(gpointer data)
{
    Seen *seen = data;

    sw_metrics_report_clear(&seen->report);
    g_free(seen);
}

/* ---- asking */

/* An answer that is none is that of a daemon from before there was any. */
static void ask(Seen *seen, const SwMount *mount)
{
    g_autofree char *text = NULL;
    int r = mount->top ? sw_mount_attribute(mount->mountpoint, SW_METRICS_XATTR, &text) : -EBUSY;

    seen->up = r == 0;
    if (r < 0)
        (void)sw_fail("the mount at %s cannot be asked: %s", mount->mountpoint, g_strerror(-r));
    else if (sw_metrics_parse(text, &seen->report) < 0)
        seen->report = (SwMetricsReport){.version = g_strdup("unknown"), .host_id = g_strdup("unknown")};
    if (!seen->report.version)
        seen->report = (SwMetricsReport){.version = g_strdup(""), .host_id = g_strdup("")};
    seen->report.mountpoint = g_strdup(mount->mountpoint);
    seen->report.source = g_strdup(mount->source);
}

static void count(Seen *seen, const SwView *view, GPtrArray *entries)
{
    for (guint i = 0; i < view->hosts->len; i++)
        seen->hosts[((const SwSurveyHost *)view->hosts->pdata[i])->state]++;
    for (guint i = 0; i < view->leases->len; i++)
        seen->leases += !((const SwSurveyLease *)view->leases->pdata[i])->is_mark;
    seen->locks = view->locks->len;
    for (guint i = 0; i < entries->len; i++) {
        const SwSalvageEntry *entry = entries->pdata[i];

        seen->entries += entry->has_data;
        seen->bytes += entry->has_data ? (guint64)MAX(entry->data.st_size, 0) : 0;
    }
    seen->surveyed = TRUE;
}

/* Who may not look into the source goes without. */
static void survey(Seen *seen)
{
    g_autoptr(GPtrArray) entries = NULL;
    SwPlace place;
    SwSurvey survey;
    SwView view;

    if (sw_place_open(&place, seen->report.source) == 0 && sw_place_survey(&place, &survey) == 0) {
        if (sw_view_take(&view, &survey, place.path) == 0 && sw_view_entries(&view, place.path, &entries) == 0)
            count(seen, &view, entries);
        sw_view_clear(&view);
    }
    sw_place_clear(&place);
}

static void add(GPtrArray *all, const SwMount *mount)
{
    Seen *seen = g_new0(Seen, 1);

    ask(seen, mount);
    survey(seen);
    g_ptr_array_add(all, seen);
}

/* The mounts at, or of, that path; all of this machine without one. */
static int gather(const char *path, GPtrArray *all)
{
    SwPlace place;
    int r = 0;

    if (!path) {
        g_autoptr(GPtrArray) mounts = sw_mounts_list();

        for (guint i = 0; mounts && i < mounts->len; i++)
            add(all, mounts->pdata[i]);
        return mounts ? 0 : sw_fail("cannot read /proc/self/mountinfo");
    }
    r = sw_place_open(&place, path);
    for (guint i = 0; r == 0 && i < place.mounts->len; i++) {
        const SwMount *mount = place.mounts->pdata[i];

        if (sw_place_has_mount(&place, mount))
            add(all, mount);
    }
    if (r == 0 && all->len == 0)
        r = sw_fail("%s is not mounted on this machine", place.path);
    sw_place_clear(&place);
    return r;
}

/* ---- the format */

static void add_gauge(GString *out, const Seen *seen, const char *name, const char *label, guint64 value)
{
    g_autofree char *mountpoint = sw_metrics_escape(seen->report.mountpoint);

    g_string_append_printf(out, "safewritefs_%s{mountpoint=\"%s\"%s} %" G_GUINT64_FORMAT "\n", name, mountpoint, label,
                           value);
}

static void add_sources(GString *out, GPtrArray *all, SwMetricsFormat format)
{
    static const struct {
        const char *name, *unit, *help;
        gsize field;
    } gauges[] = {
        {"source_content_leases", NULL, "Leases on contents that hosts hold now", G_STRUCT_OFFSET(Seen, leases)},
        {"source_locks", NULL, "Lock files of programs, of all hosts", G_STRUCT_OFFSET(Seen, locks)},
        {"salvage_entries", NULL, "Entries in the source's salvage", G_STRUCT_OFFSET(Seen, entries)},
    };

    sw_metrics_family(out, format, "source_hosts", "gauge", NULL, "Hosts of the source, by how they look from here");
    for (guint i = 0; i < all->len; i++)
        for (SwHostState state = 0; state < SW_HOST_GONE && ((Seen *)all->pdata[i])->surveyed; state++) {
            g_autofree char *label = g_strdup_printf(",state=\"%s\"", sw_host_state_name(state));

            add_gauge(out, all->pdata[i], "source_hosts", label, ((Seen *)all->pdata[i])->hosts[state]);
        }
    for (guint j = 0; j < G_N_ELEMENTS(gauges); j++) {
        sw_metrics_family(out, format, gauges[j].name, "gauge", gauges[j].unit, gauges[j].help);
        for (guint i = 0; i < all->len; i++)
            if (((Seen *)all->pdata[i])->surveyed)
                add_gauge(out, all->pdata[i], gauges[j].name, "",
                          G_STRUCT_MEMBER(guint, all->pdata[i], gauges[j].field));
    }
    sw_metrics_family(out, format, "salvage_bytes", "gauge", "bytes", "Bytes in the source's salvage");
    for (guint i = 0; i < all->len; i++)
        if (((Seen *)all->pdata[i])->surveyed)
            add_gauge(out, all->pdata[i], "salvage_bytes", "", ((Seen *)all->pdata[i])->bytes);
}

/* A mount that is down has no numbers of its own. */
static char *text_of(GPtrArray *all, SwMetricsFormat format)
{
    GString *out = g_string_new(NULL);
    g_autoptr(GPtrArray) reports = g_ptr_array_new();

    sw_metrics_family(out, format, "up", "gauge", NULL, "Whether the mount answers");
    for (guint i = 0; i < all->len; i++) {
        const Seen *seen = all->pdata[i];

        add_gauge(out, seen, "up", "", seen->up);
        if (seen->up)
            g_ptr_array_add(reports, (gpointer)&seen->report);
    }
    sw_metrics_format((const SwMetricsReport *const *)reports->pdata, reports->len, format, out);
    add_sources(out, all, format);
    if (format == SW_METRICS_OPENMETRICS)
        g_string_append(out, "# EOF\n");
    return g_string_free(out, FALSE);
}

/* ---- files for node_exporter */

/* One name for each mountpoint: letters, digits and what cannot be mistaken for an escape stay as they are. */
static char *file_name(const char *mountpoint)
{
    GString *name = g_string_new(FILE_PREFIX);

    for (const char *at = mountpoint; *at; at++)
        if (g_ascii_isalnum(*at) || *at == '.' || *at == '_')
            g_string_append_c(name, *at);
        else
            g_string_append_printf(name, "-%02x", (guchar)*at);
    if (name->len > 200) { /* of two that are longer, and equal to here, the hash tells */
        guint hash = g_str_hash(mountpoint);

        g_string_truncate(name, 200);
        g_string_append_printf(name, "-%08x", hash);
    }
    g_string_append(name, FILE_SUFFIX);
    return g_string_free(name, FALSE);
}

static int write_all(int fd, const char *text)
{
    for (gsize left = strlen(text); left > 0;) {
        ssize_t put = write(fd, text, left);

        if (put < 0 && errno != EINTR)
            return -errno;
        text += MAX(put, 0);
        left -= (gsize)MAX(put, 0);
    }
    return 0;
}

/* Whoever reads it meanwhile reads the one before.  node_exporter looks at names that end in .prom only. */
static int put_file(int dirfd, const char *name, const char *text)
{
    g_autofree char *part = g_strdup_printf(".%s.%d", name, (int)getpid());
    int fd = openat(dirfd, part, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    int r = fd < 0 ? -errno : write_all(fd, text);

    if (fd >= 0 && close(fd) < 0 && r == 0)
        r = -errno;
    if (r == 0 && renameat(dirfd, part, dirfd, name) < 0)
        r = -errno;
    if (r < 0)
        (void)unlinkat(dirfd, part, 0);
    return r;
}

/* Of mounts that are there no more; only when all were looked at. */
static void drop_others(const char *directory, int dirfd, GHashTable *written)
{
    GDir *dir = g_dir_open(directory, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir)))
        if (g_str_has_prefix(name, FILE_PREFIX) && g_str_has_suffix(name, FILE_SUFFIX) &&
            !g_hash_table_contains(written, name))
            (void)unlinkat(dirfd, name, 0);
    if (dir)
        g_dir_close(dir);
}

static int write_files(GPtrArray *all, const char *directory, gboolean every)
{
    g_autoptr(GHashTable) written = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    int dirfd = sw_place_directory(directory), result = 0;

    if (dirfd < 0)
        return sw_fail("cannot open %s: %s", directory, g_strerror(-dirfd));
    for (guint i = 0; i < all->len; i++) {
        Seen *seen = all->pdata[i];
        g_autoptr(GPtrArray) one = g_ptr_array_new();
        g_autofree char *text = NULL, *name = file_name(seen->report.mountpoint);
        int r;

        g_ptr_array_add(one, seen);
        text = text_of(one, SW_METRICS_TEXT);
        r = put_file(dirfd, name, text);
        if (r < 0)
            result = sw_fail("cannot write %s/%s: %s", directory, name, g_strerror(-r));
        g_hash_table_add(written, g_steal_pointer(&name));
    }
    if (every && result == 0)
        drop_others(directory, dirfd, written);
    (void)close(dirfd);
    return result;
}

/* ---- JSON */

static void counts_json(const SwMetricsReport *report, SwJson *json)
{
    sw_json_open(json, "counts", '[');
    for (SwCount what = 0; what < SW_COUNT_N; what++) {
        const char *label, *name = sw_metrics_count_name(what, &label);

        sw_json_open(json, NULL, '{');
        sw_json_text(json, "name", name);
        sw_json_text(json, "label", label);
        if (what == SW_COUNT_UPTIME)
            sw_json_seconds(json, "value", (gint64)report->metrics.counts[what]);
        else
            sw_json_size(json, "value", report->metrics.counts[what]);
        sw_json_close(json);
    }
    sw_json_close(json);
}

static void times_json(const SwMetricsReport *report, SwJson *json)
{
    sw_json_open(json, "times", '[');
    for (SwTimer what = 0; what < SW_TIMER_N; what++) {
        const char *label, *name = sw_metrics_timer_name(what, &label);
        const SwHistogram *times = &report->metrics.times[what];
        guint64 total = 0;

        for (guint i = 0; i < SW_METRICS_BUCKETS; i++)
            total += times->buckets[i];
        if (total == 0)
            continue;
        sw_json_open(json, NULL, '{');
        sw_json_text(json, "name", name);
        sw_json_text(json, "label", label);
        sw_json_size(json, "count", total);
        sw_json_seconds(json, "sum_seconds", (gint64)times->sum_us);
        sw_json_open(json, "buckets", '[');
        for (guint i = 0; i < SW_METRICS_BUCKETS; i++)
            sw_json_size(json, NULL, times->buckets[i]);
        sw_json_close(json);
        sw_json_close(json);
    }
    sw_json_close(json);
}

static void print_json(GPtrArray *all)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '[');
    for (guint i = 0; i < all->len; i++) {
        const Seen *seen = all->pdata[i];

        sw_json_open(&json, NULL, '{');
        sw_json_text(&json, "mountpoint", seen->report.mountpoint);
        sw_json_text(&json, "source", seen->report.source);
        sw_json_bool(&json, "up", seen->up);
        sw_json_text(&json, "host", seen->up ? seen->report.host_id : NULL);
        sw_json_text(&json, "version", seen->up ? seen->report.version : NULL);
        counts_json(&seen->report, &json);
        times_json(&seen->report, &json);
        sw_json_close(&json);
    }
    sw_json_finish(&json);
}

/* ---- the command */

static int show(const SwArguments *arguments, GPtrArray *all)
{
    g_autofree char *text = NULL;

    if (arguments->textfile)
        return write_files(all, arguments->textfile, arguments->n_words == 0);
    if (arguments->json) {
        print_json(all);
        return 0;
    }
    text = text_of(all, SW_METRICS_OPENMETRICS);
    (void)fputs(text, stdout);
    return 0;
}

static int run(const SwArguments *arguments)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func(seen_free);
    int r = gather(arguments->n_words > 0 ? arguments->words[0] : NULL, all);

    return r != 0 ? r : show(arguments, all);
}

const SwCommand sw_metrics_command = {
    .name = "metrics",
    .options = "json textfile",
    .min_words = 0,
    .max_words = 1,
    .usage = "[PATH]",
    .summary = "Prints what mounts of this machine count, as OpenMetrics, or writes it to files for node_exporter.\n"
               "Without PATH: of all mounts.",
    .run = run,
};
