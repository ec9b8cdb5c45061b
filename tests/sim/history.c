/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "history.h"

#include <string.h>

typedef struct {
    char *name, *value; /* owned */
    gint64 begin, end;  /* G_MAXINT64 while under way or unsure */
    gboolean failed, done;
} Write;

struct SimHistory {
    GArray *writes; /* of Write */
    gint64 now;
};

static void write_clear(gpointer data)
{
    Write *write = data;

    g_free(write->name);
    g_free(write->value);
}

SimHistory *sim_history_new(void)
{
    SimHistory *history = g_new0(SimHistory, 1);

    history->writes = g_array_new(FALSE, FALSE, sizeof(Write));
    g_array_set_clear_func(history->writes, write_clear);
    return history;
}

void sim_history_free(SimHistory *history)
{
    g_array_unref(history->writes);
    g_free(history);
}

gint64 sim_history_now(SimHistory *history)
{
    return ++history->now;
}

guint sim_history_begin(SimHistory *history, const char *name, const char *value)
{
    Write write = {.name = g_strdup(name), .value = g_strdup(value), .end = G_MAXINT64};

    write.begin = sim_history_now(history);
    g_array_append_val(history->writes, write);
    return history->writes->len - 1;
}

void sim_history_end(SimHistory *history, guint write, SimEnd end)
{
    Write *ended = &g_array_index(history->writes, Write, write);

    ended->failed = end == SIM_FAILED;
    ended->done = end == SIM_DONE;
    if (ended->done)
        ended->end = sim_history_now(history);
}

static gboolean is_overwritten(const SimHistory *history, const Write *write, gint64 since)
{
    for (guint i = 0; i < history->writes->len; i++) {
        const Write *other = &g_array_index(history->writes, Write, i);

        if (other->done && other->begin > write->end && other->end < since && strcmp(other->name, write->name) == 0)
            return TRUE;
    }
    return FALSE;
}

char *sim_history_refute(SimHistory *history, const char *name, const char *value, gint64 since)
{
    const char *why = "was never written";

    for (guint i = 0; i < history->writes->len; i++) {
        const Write *write = &g_array_index(history->writes, Write, i);

        if (strcmp(write->name, name) != 0 || g_strcmp0(write->value, value) != 0)
            continue;
        if (!write->failed && !is_overwritten(history, write, since))
            return NULL;
        why = write->failed ? "was reported as failed" : "is an old version";
    }
    return g_strdup_printf("%s: \"%s\" %s", name, value ? value : "(none)", why);
}
