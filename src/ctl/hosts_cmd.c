/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * hosts: which hosts a source has, and whether each was seen to be alive.
 *
 * Times that the server gave tell how old a heartbeat is (as status has it).  Here it is looked at as hosts look at
 * each other, too: twice and more, for a while; whose counter moves is alive, whatever any clock says (P19).
 */
#include "../core/units.h"

#include "commands.h"
#include "place.h"
#include "view.h"

#include <stdio.h>
#include <string.h>

#define LOOK_US (50 * G_TIME_SPAN_MILLISECOND)
#define WATCH_MAX_US (30 * G_TIME_SPAN_SECOND)
#define BEATS_PER_LEASE 4

/* What watching has shown. */
typedef struct {
    gboolean known; /* it has a counter */
    guint64 counter;
    gint64 beat_us; /* own clock, when it was seen to move last; 0: it did not */
} Watched;

typedef struct {
    SwPlace place;
    SwView view;
    Watched *watched; /* as view.hosts */
    gint64 watched_us;
} Hosts;

/* ---- watching */

static gint64 now_of(const Hosts *hosts)
{
    return hosts->place.port->now_us(hosts->place.port);
}

/* TRUE: nobody is left who could be seen for the first time. */
static gboolean look(Hosts *hosts, gboolean first)
{
    gboolean all = TRUE;

    for (guint i = 0; i < hosts->view.hosts->len; i++) {
        const SwSurveyHost *host = hosts->view.hosts->pdata[i];
        Watched *watched = &hosts->watched[i];
        guint64 counter;

        if (host->state == SW_HOST_DEAD || !sw_survey_counter(&hosts->view.survey, host->id, &counter))
            continue;
        if (!first && watched->known && counter != watched->counter)
            watched->beat_us = now_of(hosts);
        watched->counter = counter;
        watched->known = TRUE;
        all = all && watched->beat_us != 0;
    }
    return all;
}

/* As long as the slowest takes for one beat and a half. */
static gint64 watch_time(const Hosts *hosts)
{
    gint64 longest_us = 0;

    for (guint i = 0; i < hosts->view.hosts->len; i++)
        longest_us = MAX(longest_us, ((const SwSurveyHost *)hosts->view.hosts->pdata[i])->record.lease_us);
    return MIN(longest_us / BEATS_PER_LEASE * 3 / 2, WATCH_MAX_US);
}

static void watch(Hosts *hosts, gint64 for_us)
{
    gint64 began_us = now_of(hosts);
    gboolean done = look(hosts, TRUE);

    if (for_us < 0)
        for_us = watch_time(hosts);
    while (!done && now_of(hosts) - began_us < for_us) {
        hosts->place.port->sleep_us(hosts->place.port, LOOK_US);
        done = look(hosts, FALSE);
    }
    hosts->watched_us = now_of(hosts) - began_us;
}

/* ---- telling */

static guint count_holds(const Hosts *hosts, const char *id, gboolean locks)
{
    guint n = 0;

    for (guint i = 0; !locks && i < hosts->view.leases->len; i++) {
        const SwSurveyLease *lease = hosts->view.leases->pdata[i];

        n += !lease->is_mark && strcmp(lease->says.host_id, id) == 0;
    }
    for (guint i = 0; locks && i < hosts->view.locks->len; i++)
        n += strcmp(((const SwSurveyLock *)hosts->view.locks->pdata[i])->says.host_id, id) == 0;
    return n;
}

static const char *machine_of(const SwSurveyHost *host)
{
    return !host->has_record ? "unknown" : host->here ? "here" : "elsewhere";
}

static void host_json(const Hosts *hosts, guint at, SwJson *json)
{
    const SwSurveyHost *host = hosts->view.hosts->pdata[at];
    const Watched *watched = &hosts->watched[at];
    const char *dot = strrchr(host->id, '.');
    g_autofree char *name = g_strndup(host->id, (gsize)(dot - host->id));

    sw_json_open(json, NULL, '{');
    sw_json_text(json, "host", host->id);
    sw_json_text(json, "hostname", name);
    sw_json_text(json, "epoch", dot + 1);
    sw_json_text(json, "state", sw_host_state_name(host->state));
    sw_json_text(json, "machine", machine_of(host));
    sw_json_text(json, "machine_id", *host->record.machine_id ? host->record.machine_id : NULL);
    if (host->has_record)
        sw_json_number(json, "pid", host->record.pid);
    else
        sw_json_null(json, "pid");
    sw_json_text(json, "version", host->has_record ? host->record.version : NULL);
    sw_json_age(json, "lease_seconds", host->has_record ? host->record.lease_us : -1);
    sw_json_age(json, "heartbeat_age_seconds", host->age_us);
    sw_json_bool(json, "heartbeat_seen", watched->beat_us != 0);
    sw_json_age(json, "heartbeat_seen_age_seconds", watched->beat_us ? now_of(hosts) - watched->beat_us : -1);
    if (host->stages_known) {
        sw_json_number(json, "stages", host->stages);
        sw_json_size(json, "stage_bytes", host->stage_bytes);
    } else {
        sw_json_null(json, "stages");
        sw_json_null(json, "stage_bytes");
    }
    sw_json_number(json, "content_leases", count_holds(hosts, host->id, FALSE));
    sw_json_number(json, "application_locks", count_holds(hosts, host->id, TRUE));
    sw_json_close(json);
}

static void print_json(const Hosts *hosts)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "source", hosts->place.path);
    sw_json_seconds(&json, "watched_seconds", hosts->watched_us);
    sw_json_open(&json, "hosts", '[');
    for (guint i = 0; i < hosts->view.hosts->len; i++)
        host_json(hosts, i, &json);
    sw_json_close(&json);
    sw_json_bool(&json, "truncated", hosts->view.survey.cut);
    sw_json_finish(&json);
}

static void print_text(const Hosts *hosts)
{
    g_autofree char *watched = sw_age_text(hosts->watched_us);

    if (hosts->view.hosts->len == 0)
        (void)printf("%s has no hosts\n", hosts->place.path);
    else
        (void)printf("%-32s %-7s %-9s %8s %7s %9s %-9s %7s %6s %6s\n", "HOST", "STATE", "MACHINE", "PID", "LEASE",
                     "HEARTBEAT", "SEEN", "STAGES", "LEASES", "LOCKS");
    for (guint i = 0; i < hosts->view.hosts->len; i++) {
        const SwSurveyHost *host = hosts->view.hosts->pdata[i];
        g_autofree char *age = sw_age_text(host->age_us);
        g_autofree char *lease = sw_age_text(host->has_record ? host->record.lease_us : -1);
        g_autofree char *stages = host->stages_known ? g_strdup_printf("%u", host->stages) : g_strdup("?");

        (void)printf("%-32s %-7s %-9s %8" G_GINT64_FORMAT " %7s %9s %-9s %7s %6u %6u\n", host->id,
                     sw_host_state_name(host->state), machine_of(host), host->record.pid, lease, age,
                     hosts->watched[i].beat_us ? "beating" : "no", stages, count_holds(hosts, host->id, FALSE),
                     count_holds(hosts, host->id, TRUE));
    }
    if (hosts->view.hosts->len > 0)
        (void)printf("watched for %s\n", watched);
    if (hosts->view.survey.cut)
        (void)printf("there is more than can be shown\n");
}

/* ---- the command */

static int show(Hosts *hosts, gint64 for_us, gboolean as_json)
{
    SwSurvey survey;
    int r = sw_place_survey(&hosts->place, &survey);

    if (r != 0)
        return r;
    r = sw_view_take(&hosts->view, &survey, hosts->place.path);
    if (r == 0) {
        hosts->watched = g_new0(Watched, hosts->view.hosts->len + 1);
        watch(hosts, for_us);
        if (as_json)
            print_json(hosts);
        else
            print_text(hosts);
        g_free(hosts->watched);
    }
    sw_view_clear(&hosts->view);
    return r;
}

static int run(const SwArguments *arguments)
{
    Hosts hosts = {0};
    double for_us = -1;
    int r;

    if (arguments->watch && !sw_units_parse(arguments->watch, SW_UNITS_TIME, &for_us))
        return sw_misused("hosts: --watch: '%s' is no time (a number, then ms, s, min, h or d)", arguments->watch);
    r = sw_place_open(&hosts.place, arguments->words[0]);
    if (r == 0)
        r = show(&hosts, (gint64)for_us, arguments->json);
    sw_place_clear(&hosts.place);
    return r;
}

const SwCommand sw_hosts_command = {
    .name = "hosts",
    .options = "json watch",
    .min_words = 1,
    .max_words = 1,
    .usage = "PATH",
    .summary = "Shows the hosts of a source, and watches for a while whose heartbeat comes.",
    .run = run,
};
