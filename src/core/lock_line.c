/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lock_line.h"

#include <errno.h>
#include <string.h>

#define WORDS 8

void sw_lock_line_clear(SwLockLine *line)
{
    g_clear_pointer(&line->path, g_free);
}

char *sw_lock_line_format(const SwLockLine *line)
{
    g_autofree char *path = g_strescape(line->path, NULL);

    return g_strdup_printf("%s %s %s %" G_GINT64_FORMAT " %" G_GINT64_FORMAT " %" G_GINT64_FORMAT " %" G_GINT64_FORMAT
                           " %s",
                           line->is_fcntl ? "fcntl" : "flock", line->is_write ? "write" : "read",
                           line->waits ? "waiting" : "held", line->start, line->end, line->pid, line->age_us, path);
}

static gboolean parse_choice(const char *word, const char *no, const char *yes, gboolean *ret_is)
{
    *ret_is = strcmp(word, yes) == 0;
    return *ret_is || strcmp(word, no) == 0;
}

static gboolean parse_number(const char *word, gint64 min, gint64 max, gint64 *ret_value)
{
    return g_ascii_string_to_signed(word, 10, min, max, ret_value, NULL);
}

/* g_strcompress warns of a lone backslash at the end. */
static gboolean escapes_end(const char *text)
{
    for (; *text; text++)
        if (*text == '\\' && !*++text)
            return FALSE;
    return TRUE;
}

int sw_lock_line_parse(const char *text, SwLockLine *ret_line)
{
    g_auto(GStrv) words = g_strsplit(text, " ", WORDS);
    g_auto(SwLockLine) line = {0};
    g_autofree char *again = NULL;

    if (g_strv_length(words) != WORDS || !parse_choice(words[0], "flock", "fcntl", &line.is_fcntl) ||
        !parse_choice(words[1], "read", "write", &line.is_write) ||
        !parse_choice(words[2], "held", "waiting", &line.waits) ||
        !parse_number(words[3], 0, G_MAXINT64, &line.start) ||
        !parse_number(words[4], line.start, G_MAXINT64, &line.end) ||
        !parse_number(words[5], 0, G_MAXINT32, &line.pid) || !parse_number(words[6], 0, G_MAXINT64, &line.age_us) ||
        !escapes_end(words[7]))
        return -EBADMSG;
    line.path = g_strcompress(words[7]);
    again = sw_lock_line_format(&line);
    if (strcmp(again, text) != 0)
        return -EBADMSG; /* another spelling: a NUL in the path, zeros before a number */
    *ret_line = line;
    line.path = NULL;
    return 0;
}
