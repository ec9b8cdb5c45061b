/* SPDX-License-Identifier: GPL-2.0-or-later */

/* stages: which files are being written, by whom, since when. */

#include "commands.h"
#include "writing.h"

#include <stdio.h>

static const char *state_of(const SwWrite *write)
{
    return write->told ? sw_stage_line_state_name(write->line.state) : NULL;
}

/* What is busy has not told who writes. */
static gboolean knows_who(const SwWrite *write)
{
    return write->line.pid > 0;
}

static void write_json(const SwWrite *write, SwJson *json)
{
    const SwStageLine *line = &write->line;
    gboolean counted = write->has_file || (write->told && line->state != SW_STAGE_LINE_BUSY);

    sw_json_open(json, NULL, '{');
    sw_json_text(json, "path", line->path);
    sw_json_text(json, "host", write->host_id);
    sw_json_text(json, "host_state", sw_host_state_name(write->host_state));
    sw_json_text(json, "state", state_of(write));
    if (counted)
        sw_json_size(json, "bytes", line->bytes);
    else
        sw_json_null(json, "bytes");
    if (write->has_file)
        sw_json_number(json, "uid", write->uid);
    else
        sw_json_null(json, "uid");
    if (knows_who(write))
        sw_json_number(json, "pid", line->pid);
    else
        sw_json_null(json, "pid");
    sw_json_text(json, "command", knows_who(write) ? line->command : NULL);
    sw_json_age(json, "age_seconds", line->age_us);
    sw_json_age(json, "idle_seconds", line->idle_us);
    sw_json_bool(json, "synced", line->synced);
    sw_json_close(json);
}

static void print_json(const SwPlace *place, const SwView *view, const SwWriting *writing)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "source", place->path);
    sw_json_open(&json, "stages", '[');
    for (guint i = 0; i < writing->writes->len; i++)
        write_json(writing->writes->pdata[i], &json);
    sw_json_close(&json);
    sw_json_bool(&json, "complete", writing->complete);
    sw_json_bool(&json, "truncated", view->survey.cut);
    sw_json_finish(&json);
}

static void print_text(const SwPlace *place, const SwWriting *writing)
{
    if (writing->writes->len == 0)
        (void)printf("nothing is being written in %s\n", place->path);
    else
        (void)printf("%-8s %12s %9s %9s %8s %-15s %-32s %s\n", "STATE", "BYTES", "SINCE", "IDLE", "PID", "COMMAND",
                     "HOST", "PATH");
    for (guint i = 0; i < writing->writes->len; i++) {
        const SwWrite *write = writing->writes->pdata[i];
        g_autofree char *age = sw_age_text(write->line.age_us), *idle = sw_age_text(write->line.idle_us);
        g_autofree char *command = sw_printable(knows_who(write) ? write->line.command : "?", FALSE);
        g_autofree char *path = sw_printable(write->line.path ? write->line.path : "?", FALSE);

        (void)printf("%-8s %12" G_GUINT64_FORMAT " %9s %9s %8" G_GINT64_FORMAT " %-15s %-32s %s\n",
                     state_of(write) ? state_of(write) : "?", write->line.bytes, age, idle, write->line.pid, command,
                     write->host_id, path);
    }
    if (!writing->complete)
        (void)printf("there may be more: not all hosts could be looked into\n");
}

static int show(SwPlace *place, gboolean as_json)
{
    SwSurvey survey;
    SwView view;
    SwWriting writing;
    int r = sw_place_survey(place, &survey);

    if (r != 0)
        return r;
    r = sw_view_take(&view, &survey, place->path);
    if (r == 0) {
        sw_writing_take(place, &view, FALSE, &writing);
        if (as_json)
            print_json(place, &view, &writing);
        else
            print_text(place, &writing);
        sw_writing_clear(&writing);
    }
    sw_view_clear(&view);
    return r;
}

static int run(const SwArguments *arguments)
{
    SwPlace place;
    int r = sw_place_open(&place, arguments->words[0]);

    if (r == 0)
        r = show(&place, arguments->json);
    sw_place_clear(&place);
    return r;
}

const SwCommand sw_stages_command = {
    .name = "stages",
    .options = "json",
    .min_words = 1,
    .max_words = 1,
    .usage = "PATH",
    .summary = "Shows which files are being written in a source, by whom and since when.  Of other machines only what\n"
               "lies in the control directory is known.",
    .run = run,
};
