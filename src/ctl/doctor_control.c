/* SPDX-License-Identifier: GPL-2.0-or-later */

/* doctor: the control directory of a source, and its mounts. */

#include "../core/metrics.h"

#include "doctor.h"
#include "view.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define FORMAT "safewritefs 1\n"
#define SKEW_US G_USEC_PER_SEC /* less is nobody's business */

/* ---- whose it is, and modes [P1] */

/* Missing rights are given by the next mount; what is too open, or another's, is refused. */
static void judge_directory(SwFindings *findings, const SwSurvey *survey, const char *name, const struct stat *st)
{
    gboolean shared = strcmp(name, "salvage") == 0;
    mode_t wanted = survey->owner != 0 ? 0700 : shared ? 01777 : 0755;
    gboolean open = (st->st_mode & 022) && !(shared && (st->st_mode & S_ISVTX));
    gboolean refused = open || st->st_uid != survey->owner;
    g_autofree char *advice = g_strdup_printf("chown it to uid %u, and chmod it to %04o", survey->owner, wanted);

    if (refused || (st->st_mode & wanted) != wanted)
        sw_finding(findings, refused ? SW_FINDING_ERROR : SW_FINDING_WARNING, "control", advice,
                   "%s/%s belongs to uid %u and has mode %04o%s", SW_CONTROL_DIR, name, st->st_uid, st->st_mode & 07777,
                   refused ? ", so mounts are refused" : "");
}

static void check_directory(SwFindings *findings, const SwSurvey *survey, const char *name)
{
    struct stat st;
    int r = survey->port->statat(survey->port, survey->dir, name, &st);

    if (r == 0 && S_ISDIR(st.st_mode))
        judge_directory(findings, survey, name, &st);
    else if (r != -ENOENT) /* else the next mount makes it */
        sw_finding(findings, SW_FINDING_ERROR, "control", "mounts are refused; move it away", "%s/%s: %s",
                   SW_CONTROL_DIR, name, r < 0 ? g_strerror(-r) : "it is no directory");
}

static void check_format(SwFindings *findings, const SwSurvey *survey)
{
    g_autofree char *text = NULL;
    int r = sw_port_read_file(survey->port, survey->dir, "format", 100, &text, NULL);

    if (r == -ENOENT || (r == 0 && strcmp(text, FORMAT) == 0))
        return;
    sw_finding(findings, SW_FINDING_ERROR, "control", "use the same version of safewritefs everywhere",
               "%s/format is none that this version knows", SW_CONTROL_DIR);
}

static void check_permissions(SwFindings *findings, const SwSurvey *survey)
{
    static const char *const parts[] = {"", "hosts", "leases", "locks", "carriers", "salvage"};

    for (guint i = 0; i < G_N_ELEMENTS(parts); i++)
        check_directory(findings, survey, parts[i]);
    check_format(findings, survey);
    if (geteuid() != 0 && geteuid() != survey->owner)
        sw_finding(findings, SW_FINDING_WARNING, "control", "mount as that user, or as root",
                   "it belongs to uid %u, and this runs as uid %u", survey->owner, geteuid());
    else if (survey->now_us < 0)
        sw_finding(findings, SW_FINDING_ERROR, "control",
                   "with root_squash, make the source's top writable for who root is there, or mount as its owner",
                   "no file can be made in %s", SW_CONTROL_DIR);
    else
        sw_finding(findings, SW_FINDING_OK, "control", NULL, "%s belongs to uid %u and can be written", SW_CONTROL_DIR,
                   survey->owner);
}

/* ---- hosts and what they have left */

static void check_hosts(SwFindings *findings, const SwView *view, const char *advice)
{
    guint states[SW_HOST_GONE + 1] = {0};
    g_autoptr(GHashTable) versions = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < view->hosts->len; i++) {
        const SwSurveyHost *host = view->hosts->pdata[i];

        states[host->state]++;
        if (host->has_record)
            g_hash_table_add(versions, (gpointer)host->record.version);
        if (host->state == SW_HOST_DEAD)
            sw_finding(findings, SW_FINDING_WARNING, "hosts", advice, "host %s is a dead mount of this machine",
                       host->id);
        if (host->state == SW_HOST_SILENT)
            sw_finding(findings, SW_FINDING_WARNING, "hosts", advice, "host %s is silent, and no other has broken it",
                       host->id);
    }
    if (g_hash_table_size(versions) > 1)
        sw_finding(findings, SW_FINDING_WARNING, "hosts", "bring all to the same one",
                   "hosts run %u versions of safewritefs", g_hash_table_size(versions));
    sw_finding(findings, SW_FINDING_OK, "hosts", NULL, "%u alive, %u late", states[SW_HOST_ALIVE],
               states[SW_HOST_LATE]);
}

static void check_left(SwFindings *findings, const SwView *view, const char *advice)
{
    guint leases = 0, locks = 0, marks = 0;

    for (guint i = 0; i < view->leases->len; i++) {
        const SwSurveyLease *lease = view->leases->pdata[i];
        gboolean left = sw_view_state(view, lease->says.host_id) == SW_HOST_GONE;

        leases += left && !lease->is_mark;
        marks += left && lease->is_mark;
    }
    for (guint i = 0; i < view->locks->len; i++)
        locks += sw_view_state(view, ((const SwSurveyLock *)view->locks->pdata[i])->says.host_id) == SW_HOST_GONE;
    if (leases + locks + marks > 0)
        sw_finding(findings, SW_FINDING_WARNING, "leftovers", advice,
                   "of hosts that are gone there are %u leases, %u locks and %u marks", leases, locks, marks);
    else
        sw_finding(findings, SW_FINDING_OK, "leftovers", NULL, "hosts that are gone have left nothing");
}

/* ---- salvage, clocks */

static void check_salvage(SwFindings *findings, GPtrArray *entries, guint64 max)
{
    guint64 bytes = 0;
    guint n = 0;

    for (guint i = 0; i < entries->len; i++) {
        const SwSalvageEntry *entry = entries->pdata[i];

        n += entry->has_data;
        bytes += entry->has_data ? (guint64)MAX(entry->data.st_size, 0) : 0;
    }
    if (bytes > max / 8 * 7 || n > SW_SALVAGE_ENTRIES_MAX / 8 * 7)
        sw_finding(
            findings, SW_FINDING_WARNING, "salvage", "safewritectl salvage list; restore what is wanted, drop the rest",
            "%u entries, %" G_GUINT64_FORMAT " bytes, of at most %" G_GUINT64_FORMAT ": the oldest go", n, bytes, max);
    else
        sw_finding(findings, SW_FINDING_OK, "salvage", NULL, "%u entries, %" G_GUINT64_FORMAT " bytes", n, bytes);
}

/* For people, and for make(1): safewritefs compares no clock with another (C23). */
static void check_clocks(SwFindings *findings, const SwSurvey *survey)
{
    gint64 skew_us = survey->port->wall_us(survey->port) - survey->now_us;
    g_autofree char *skew = sw_age_text(ABS(skew_us));

    if (survey->now_us < 0)
        return;
    if (ABS(skew_us) < SKEW_US)
        sw_finding(findings, SW_FINDING_OK, "clocks", NULL, "this machine and the source agree");
    else
        sw_finding(findings, SW_FINDING_OK, "clocks", "programs like make do compare times",
                   "this machine is %s %s the source, on which nothing here depends", skew,
                   skew_us > 0 ? "ahead of" : "behind");
}

void sw_doctor_control(SwFindings *findings, SwPlace *place, guint64 salvage_max)
{
    g_autofree char *shown = sw_printable(place->path, FALSE);
    g_autofree char *advice = g_strdup_printf("safewritectl gc %s", shown);
    g_autoptr(GPtrArray) entries = NULL;
    SwSurvey survey;
    SwView view;
    int r = sw_survey_open(place->port, place->source, &survey);

    if (r == -ENOENT) {
        sw_finding(findings, SW_FINDING_OK, "control", NULL, "%s was never mounted", place->path);
        return;
    }
    if (r < 0) {
        sw_finding(findings, SW_FINDING_ERROR, "control", "run this as its owner, or as root",
                   "%s cannot be opened: %s", SW_CONTROL_DIR, g_strerror(-r));
        return;
    }
    check_permissions(findings, &survey);
    check_clocks(findings, &survey);
    if (sw_view_take(&view, &survey, place->path) == 0) {
        check_hosts(findings, &view, advice);
        check_left(findings, &view, advice);
    }
    if (sw_view_entries(&view, place->path, &entries) == 0)
        check_salvage(findings, entries, salvage_max);
    sw_view_clear(&view);
}

/* ---- mounts */

static void check_mount(SwFindings *findings, const SwMount *mount)
{
    g_autofree char *text = NULL;
    int r = mount->top ? sw_mount_attribute(mount->mountpoint, SW_METRICS_XATTR, &text) : 0;

    if (!mount->top)
        sw_finding(findings, SW_FINDING_WARNING, "mounts", "unmount one of them", "something is mounted over %s",
                   mount->mountpoint);
    else if (r == -ENOTCONN || r == -ECONNABORTED)
        sw_finding(findings, SW_FINDING_ERROR, "mounts", "umount it, and mount it again", "the daemon of %s has died",
                   mount->mountpoint);
    else if (r == -ETIMEDOUT)
        sw_finding(findings, SW_FINDING_ERROR, "mounts",
                   "is the source's server away?  Else kill the daemon, umount -l, and mount again",
                   "%s does not answer", mount->mountpoint);
    else if (r < 0 && r != -EACCES)
        sw_finding(findings, SW_FINDING_ERROR, "mounts", NULL, "%s: %s", mount->mountpoint, g_strerror(-r));
    else
        sw_finding(findings, SW_FINDING_OK, "mounts", NULL, "%s answers", mount->mountpoint);
}

void sw_doctor_mounts(SwFindings *findings, const SwPlace *place)
{
    for (guint i = 0; i < place->mounts->len; i++)
        if (sw_place_has_mount(place, place->mounts->pdata[i]))
            check_mount(findings, place->mounts->pdata[i]);
}
