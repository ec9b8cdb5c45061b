/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stage_line.h"

#include <errno.h>
#include <string.h>

#define WORDS 9

static const char *const state_names[] = {"writing", "closed", "private", "busy"};

const char *sw_stage_line_state_name(SwStageLineState state)
{
    return state_names[state];
}

void sw_stage_line_clear(SwStageLine *line)
{
    g_clear_pointer(&line->stage, g_free);
    g_clear_pointer(&line->command, g_free);
    g_clear_pointer(&line->path, g_free);
}

/* A word: spaces are escaped, too. */
static char *escape_word(const char *text)
{
    g_autofree char *escaped = g_strescape(text, NULL);
    g_auto(GStrv) parts = g_strsplit(escaped, " ", -1);

    return g_strjoinv("\\040", parts);
}

char *sw_stage_line_format(const SwStageLine *line)
{
    g_autofree char *path = g_strescape(line->path, NULL), *command = escape_word(line->command);

    return g_strdup_printf("%s %d %" G_GUINT64_FORMAT " %" G_GINT64_FORMAT " %" G_GINT64_FORMAT " %" G_GINT64_FORMAT
                           " %s %s %s",
                           state_names[line->state], line->synced, line->bytes, line->pid, line->age_us, line->idle_us,
                           line->stage, command, path);
}

static gboolean parse_state(const char *word, SwStageLineState *ret_state)
{
    for (guint i = 0; i < G_N_ELEMENTS(state_names); i++)
        if (strcmp(word, state_names[i]) == 0) {
            *ret_state = (SwStageLineState)i;
            return TRUE;
        }
    return FALSE;
}

static gboolean parse_number(const char *word, gint64 max, gint64 *ret_value)
{
    return g_ascii_string_to_signed(word, 10, 0, max, ret_value, NULL);
}

/* g_strcompress warns of a lone backslash at the end. */
static gboolean escapes_end(const char *text)
{
    for (; *text; text++)
        if (*text == '\\' && !*++text)
            return FALSE;
    return TRUE;
}

int sw_stage_line_parse(const char *text, SwStageLine *ret_line)
{
    g_auto(GStrv) words = g_strsplit(text, " ", WORDS);
    g_auto(SwStageLine) line = {0};
    g_autofree char *again = NULL;
    gint64 synced;

    if (g_strv_length(words) != WORDS || !parse_state(words[0], &line.state) || !parse_number(words[1], 1, &synced) ||
        !g_ascii_string_to_unsigned(words[2], 10, 0, G_MAXUINT64, &line.bytes, NULL) ||
        !parse_number(words[3], G_MAXINT32, &line.pid) || !parse_number(words[4], G_MAXINT64, &line.age_us) ||
        !parse_number(words[5], G_MAXINT64, &line.idle_us) || !escapes_end(words[7]) || !escapes_end(words[8]))
        return -EBADMSG;
    line.synced = synced != 0;
    line.stage = g_strdup(words[6]);
    line.command = g_strcompress(words[7]);
    line.path = g_strcompress(words[8]);
    again = sw_stage_line_format(&line);
    if (strcmp(again, text) != 0)
        return -EBADMSG; /* another spelling: a NUL in the path, zeros before a number */
    *ret_line = line;
    line = (SwStageLine){0};
    return 0;
}
