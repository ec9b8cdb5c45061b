/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "writing.h"

#include <errno.h>
#include <string.h>

static void write_free(gpointer data)
{
    SwWrite *write = data;

    sw_stage_line_clear(&write->line);
    g_free(write);
}

/* ---- what mounts tell */

static void add_told(SwWriting *writing, const SwView *view, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    char *id;

    if (!lines[0] || !sw_host_id_is_valid(lines[0]))
        return;
    id = g_strdup(lines[0]);
    g_ptr_array_add(writing->ids, id);
    for (guint i = 1; lines[i]; i++) {
        SwStageLine line;
        SwWrite *write;

        if (!*lines[i] || sw_stage_line_parse(lines[i], &line) < 0)
            continue;
        write = g_new0(SwWrite, 1);
        *write = (SwWrite){.host_id = id, .host_state = sw_view_state(view, id), .told = TRUE, .line = line};
        g_ptr_array_add(writing->writes, write);
    }
}

static void ask_mounts(const SwPlace *place, const SwView *view, gboolean quiet, SwWriting *writing)
{
    for (guint i = 0; i < place->mounts->len; i++) {
        const SwMount *mount = place->mounts->pdata[i];
        g_autofree char *text = NULL;
        int r;

        if (!sw_place_has_mount(place, mount))
            continue;
        r = mount->top ? sw_mount_attribute(mount->mountpoint, SW_STAGES_XATTR, &text) : -EBUSY;
        writing->complete = writing->complete && r == 0;
        if (r < 0 && !quiet)
            (void)sw_fail("the mount at %s cannot be asked what is written: %s", mount->mountpoint, g_strerror(-r));
        else if (r == 0)
            add_told(writing, view, text);
    }
}

/* ---- what lies in the control directory */

static SwWrite *find_told(const SwWriting *writing, const char *host_id, const char *stage)
{
    for (guint i = 0; i < writing->writes->len; i++) {
        SwWrite *write = writing->writes->pdata[i];

        if (strcmp(write->host_id, host_id) == 0 && strcmp(write->line.stage, stage) == 0)
            return write;
    }
    return NULL;
}

static void add_file(SwWriting *writing, const SwSurveyHost *host, const SwSurveyStage *stage)
{
    SwWrite *write = find_told(writing, host->id, stage->name);

    if (!write) {
        write = g_new0(SwWrite, 1);
        write->host_id = host->id;
        write->host_state = host->state;
        write->line = (SwStageLine){.age_us = -1, .idle_us = stage->idle_us, .pid = stage->says.pid};
        write->line.synced = stage->says.path && stage->says.synced;
        write->line.stage = g_strdup(stage->name);
        write->line.path = g_strdup(stage->says.path);
        write->line.command = g_strdup(stage->says.command ? stage->says.command : "");
        g_ptr_array_add(writing->writes, write);
    }
    if (!write->told || write->line.state == SW_STAGE_LINE_BUSY)
        write->line.bytes = stage->bytes;
    write->has_file = TRUE;
    write->uid = stage->uid;
}

static void look(SwView *view, SwWriting *writing)
{
    for (guint i = 0; i < view->hosts->len; i++) {
        const SwSurveyHost *host = view->hosts->pdata[i];
        g_autoptr(GPtrArray) stages = NULL;

        if (sw_survey_stages(&view->survey, host->id, &stages) < 0) {
            writing->complete = FALSE;
            continue;
        }
        for (guint j = 0; j < stages->len; j++)
            add_file(writing, host, stages->pdata[j]);
    }
}

static gint by_age(gconstpointer a, gconstpointer b)
{
    const SwWrite *x = *(SwWrite *const *)a, *y = *(SwWrite *const *)b;

    return x->line.age_us < y->line.age_us ? 1 : x->line.age_us > y->line.age_us ? -1 : strcmp(x->host_id, y->host_id);
}

void sw_writing_take(SwPlace *place, SwView *view, gboolean quiet, SwWriting *ret_writing)
{
    *ret_writing = (SwWriting){.complete = TRUE};
    ret_writing->writes = g_ptr_array_new_with_free_func(write_free);
    ret_writing->ids = g_ptr_array_new_with_free_func(g_free);
    ask_mounts(place, view, quiet, ret_writing);
    look(view, ret_writing);
    g_ptr_array_sort(ret_writing->writes, by_age);
}

void sw_writing_clear(SwWriting *writing)
{
    g_ptr_array_unref(writing->writes);
    g_ptr_array_unref(writing->ids);
}
