/* SPDX-License-Identifier: GPL-2.0-or-later */

/* status: what a source, or each source that is mounted on this machine, looks like now. */

#include "commands.h"

#include "../core/config.h"
#include "place.h"
#include "view.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    SwPlace place;
    SwView view;
    guint salvage_entries;
    guint64 salvage_bytes;
    gint64 oldest_age_us; /* -1: there is none, or the present is not known */
} Status;

static const char *machine_of(const SwSurveyHost *host)
{
    return !host->has_record ? "unknown" : host->here ? "here" : "elsewhere";
}

/* ---- gathering */

static int count_salvage(Status *status)
{
    const SwSurvey *survey = &status->view.survey;
    g_autoptr(GPtrArray) entries = NULL;
    int r = sw_view_entries(&status->view, status->place.path, &entries);

    status->oldest_age_us = -1;
    if (r != 0)
        return r;
    for (guint i = 0; i < entries->len; i++) {
        const SwSalvageEntry *entry = entries->pdata[i];

        if (!entry->has_data)
            continue;
        status->salvage_entries++;
        status->salvage_bytes += (guint64)MAX(entry->data.st_size, 0);
        if (survey->now_us >= 0)
            status->oldest_age_us = MAX(status->oldest_age_us, survey->now_us - entry->changed_us);
    }
    return 0;
}

static guint count_leases(const Status *status, const char *host_id)
{
    guint n = 0;

    for (guint i = 0; i < status->view.leases->len; i++) {
        const SwSurveyLease *lease = status->view.leases->pdata[i];

        n += !lease->is_mark && strcmp(lease->says.host_id, host_id) == 0;
    }
    return n;
}

static guint count_locks(const Status *status, const char *host_id)
{
    guint n = 0;

    for (guint i = 0; i < status->view.locks->len; i++)
        n += strcmp(((SwSurveyLock *)status->view.locks->pdata[i])->says.host_id, host_id) == 0;
    return n;
}

/* What the kernel may do for a mount, and whether it does. */
static const struct {
    const char *name, *attribute;
} helps[] = {
    {"passthrough", SW_PASSTHROUGH_XATTR},
    {"io_uring", SW_URING_XATTR},
};

/* What the mount says of it, for people; NULL if it says nothing, or does not answer. */
static char *help_of(const SwMount *mount, const char *attribute)
{
    g_autofree char *text = NULL;

    if (!mount->top || sw_mount_attribute(mount->mountpoint, attribute, &text) < 0 || !*text)
        return NULL;
    return sw_printable(text, FALSE);
}

/* ---- JSON */

static void mounts_json(const Status *status, SwJson *json)
{
    sw_json_open(json, "mounts", '[');
    for (guint i = 0; i < status->place.mounts->len; i++) {
        const SwMount *mount = status->place.mounts->pdata[i];

        if (!sw_place_has_mount(&status->place, mount))
            continue;
        sw_json_open(json, NULL, '{');
        sw_json_text(json, "mountpoint", mount->mountpoint);
        sw_json_text(json, "options", mount->options);
        for (guint j = 0; j < G_N_ELEMENTS(helps); j++) {
            g_autofree char *text = help_of(mount, helps[j].attribute);
            if (text)
                sw_json_text(json, helps[j].name, text);
            else
                sw_json_null(json, helps[j].name);
        }
        sw_json_close(json);
    }
    sw_json_close(json);
}

static void host_json(const Status *status, const SwSurveyHost *host, SwJson *json)
{
    sw_json_open(json, NULL, '{');
    sw_json_text(json, "host", host->id);
    sw_json_text(json, "machine", machine_of(host));
    if (host->has_record) {
        sw_json_number(json, "pid", host->record.pid);
        sw_json_text(json, "version", host->record.version);
    } else {
        sw_json_null(json, "pid");
        sw_json_null(json, "version");
    }
    sw_json_age(json, "lease_seconds", host->has_record ? host->record.lease_us : -1);
    sw_json_age(json, "heartbeat_age_seconds", host->age_us);
    sw_json_text(json, "state", sw_host_state_name(host->state));
    if (host->stages_known) {
        sw_json_number(json, "stages", host->stages);
        sw_json_size(json, "stage_bytes", host->stage_bytes);
    } else {
        sw_json_null(json, "stages");
        sw_json_null(json, "stage_bytes");
    }
    sw_json_number(json, "content_leases", count_leases(status, host->id));
    sw_json_number(json, "application_locks", count_locks(status, host->id));
    sw_json_close(json);
}

/* What a mark stands beside: a host, or a lease or lock by its key. */
static char *broken_by(const SwSurveyLease *mark)
{
    return g_strndup(mark->name, strlen(mark->name) - strlen(".break"));
}

static void mark_json(const Status *status, const SwSurveyLease *mark, SwJson *json)
{
    g_autofree char *broken = broken_by(mark);

    sw_json_open(json, NULL, '{');
    sw_json_text(json, "breaks", broken);
    sw_json_text(json, "kind",
                 mark->in_locks                ? "application lock"
                 : sw_host_id_is_valid(broken) ? "host"
                                               : "content lease");
    sw_json_text(json, "host", mark->says.host_id);
    sw_json_text(json, "host_state", sw_host_state_name(sw_view_state(&status->view, mark->says.host_id)));
    sw_json_age(json, "age_seconds", mark->age_us);
    sw_json_close(json);
}

static void add_json(const Status *status, SwJson *json)
{
    sw_json_open(json, NULL, '{');
    sw_json_text(json, "source", status->place.path);
    sw_json_number(json, "owner_uid", status->view.survey.owner);
    mounts_json(status, json);
    sw_json_open(json, "hosts", '[');
    for (guint i = 0; i < status->view.hosts->len; i++)
        host_json(status, status->view.hosts->pdata[i], json);
    sw_json_close(json);
    sw_view_leases_json(&status->view, json);
    sw_json_open(json, "marks", '[');
    for (guint i = 0; i < status->view.leases->len; i++)
        if (((SwSurveyLease *)status->view.leases->pdata[i])->is_mark)
            mark_json(status, status->view.leases->pdata[i], json);
    sw_json_close(json);
    sw_json_open(json, "salvage", '{');
    sw_json_number(json, "entries", status->salvage_entries);
    sw_json_size(json, "bytes", status->salvage_bytes);
    sw_json_age(json, "oldest_age_seconds", status->oldest_age_us);
    sw_json_close(json);
    sw_json_bool(json, "truncated", status->view.survey.cut);
    sw_json_close(json);
}

/* ---- text */

static void print_mounts(const Status *status)
{
    guint n = 0;

    for (guint i = 0; i < status->place.mounts->len; i++) {
        const SwMount *mount = status->place.mounts->pdata[i];
        g_autofree char *where = sw_printable(mount->mountpoint, FALSE);

        if (!sw_place_has_mount(&status->place, mount))
            continue;
        (void)printf("  mounted at %s (%s)", where, mount->options);
        for (guint j = 0; j < G_N_ELEMENTS(helps); j++) {
            g_autofree char *text = help_of(mount, helps[j].attribute);
            if (text)
                (void)printf(", %s %s", helps[j].name, text);
        }
        (void)putchar('\n');
        n++;
    }
    if (n == 0)
        (void)printf("  not mounted on this machine\n");
}

static void print_host(const Status *status, const SwSurveyHost *host)
{
    g_autofree char *age = sw_age_text(host->age_us);
    g_autofree char *lease = sw_age_text(host->has_record ? host->record.lease_us : -1);
    g_autofree char *stages = host->stages_known ? g_strdup_printf("%u", host->stages) : g_strdup("?");
    g_autofree char *bytes =
        host->stages_known ? g_strdup_printf("%" G_GUINT64_FORMAT, host->stage_bytes) : g_strdup("?");
    g_autofree char *version = sw_printable(host->record.version, FALSE);

    (void)printf("  %-32s %-7s %-9s %8" G_GINT64_FORMAT " %-8s %7s %9s %7s %12s %6u %6u\n", host->id,
                 sw_host_state_name(host->state), machine_of(host), host->record.pid, *version ? version : "?", lease,
                 age, stages, bytes, count_leases(status, host->id), count_locks(status, host->id));
}

static void print_marks(const Status *status)
{
    for (guint i = 0; i < status->view.leases->len; i++) {
        const SwSurveyLease *mark = status->view.leases->pdata[i];
        g_autofree char *broken = NULL, *shown = NULL, *age = NULL;

        if (!mark->is_mark)
            continue;
        broken = broken_by(mark);
        shown = sw_printable(broken, FALSE);
        age = sw_age_text(mark->age_us);
        (void)printf("  %s has been breaking %s%s for %s\n", mark->says.host_id, mark->in_locks ? "lock " : "", shown,
                     age);
    }
}

static void print_status(const Status *status)
{
    g_autofree char *path = sw_printable(status->place.path, FALSE);
    g_autofree char *oldest = sw_age_text(status->oldest_age_us);

    (void)printf("%s\n", path);
    print_mounts(status);
    if (status->view.hosts->len > 0)
        (void)printf("\n  %-32s %-7s %-9s %8s %-8s %7s %9s %7s %12s %6s %6s\n", "HOST", "STATE", "MACHINE", "PID",
                     "VERSION", "LEASE", "HEARTBEAT", "STAGES", "BYTES", "LEASES", "LOCKS");
    for (guint i = 0; i < status->view.hosts->len; i++)
        print_host(status, status->view.hosts->pdata[i]);
    sw_view_leases_print(&status->view);
    (void)printf("\n");
    print_marks(status);
    if (status->salvage_entries > 0)
        (void)printf("  salvage: %u entries, %" G_GUINT64_FORMAT " bytes, the oldest %s old\n", status->salvage_entries,
                     status->salvage_bytes, oldest);
    else
        (void)printf("  salvage: empty\n");
    if (status->view.survey.cut)
        (void)printf("  there is more than can be shown\n");
}

/* ---- the command */

static int show(const char *path, gboolean as_json, SwJson *json)
{
    Status status = {0};
    SwSurvey survey;
    int r = sw_place_open(&status.place, path);

    if (r == 0)
        r = sw_place_survey(&status.place, &survey);
    if (r == 0) {
        r = sw_view_take(&status.view, &survey, status.place.path);
        if (r == 0)
            r = count_salvage(&status);
        if (r == 0 && as_json)
            add_json(&status, json);
        else if (r == 0)
            print_status(&status);
        sw_view_clear(&status.view);
    }
    sw_place_clear(&status.place);
    return r;
}

/* Each source once, however often it is mounted. */
static int show_all(gboolean as_json, SwJson *json)
{
    g_autoptr(GPtrArray) mounts = sw_mounts_list();
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    int result = 0;

    if (!mounts)
        return sw_fail("cannot read /proc/self/mountinfo");
    for (guint i = 0; i < mounts->len; i++) {
        const SwMount *mount = mounts->pdata[i];

        if (!g_hash_table_add(seen, mount->source))
            continue;
        if (g_hash_table_size(seen) > 1 && !as_json)
            (void)printf("\n");
        if (show(mount->source, as_json, json) != 0)
            result = SW_EXIT_FAILURE;
    }
    if (mounts->len == 0 && !as_json)
        (void)printf("safewritefs is not mounted on this machine\n");
    return result;
}

static int run(const SwArguments *arguments)
{
    SwJson json;
    int r;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '[');
    r = arguments->n_words == 0 ? show_all(arguments->json, &json) : show(arguments->words[0], arguments->json, &json);
    if (arguments->json)
        sw_json_finish(&json);
    else
        sw_json_discard(&json);
    return r;
}

const SwCommand sw_status_command = {
    .name = "status",
    .options = "json",
    .min_words = 0,
    .max_words = 1,
    .usage = "[PATH]",
    .summary = "Shows the mounts of a source on this machine, its hosts alive and dead, leases on contents, stages and "
               "salvage.  Without PATH: of all that are mounted here.",
    .run = run,
};
