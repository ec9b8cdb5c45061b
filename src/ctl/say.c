/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void say(const char *format, va_list args)
{
    (void)fflush(stdout);
    (void)fputs("safewritectl: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
}

int sw_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(format, args);
    va_end(args);
    return SW_EXIT_FAILURE;
}

int sw_misused(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(format, args);
    va_end(args);
    (void)fputs("Try 'safewritectl --help'.\n", stderr);
    return SW_EXIT_USAGE;
}

int sw_finish_output(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return sw_fail("cannot write the output: %s", g_strerror(errno));
    return 0;
}

/* ---- text */

char *sw_printable(const char *text, gboolean json)
{
    GString *out = g_string_new(NULL);
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    for (const char *at = valid; *at; at = g_utf8_next_char(at)) {
        gunichar c = g_utf8_get_char(at);

        if (c == '\\' || (json && c == '"'))
            g_string_append_printf(out, "\\%c", (char)c);
        else if (c < ' ' || c == 0x7f || (c >= 0x80 && !g_unichar_isprint(c)))
            g_string_append_printf(out, c > 0xffff ? "\\u%04x\\u%04x" : "\\u%04x",
                                   c > 0xffff ? 0xd800 + ((c - 0x10000) >> 10) : c, 0xdc00 + (c & 0x3ff));
        else
            g_string_append_unichar(out, c);
    }
    return g_string_free(out, FALSE);
}

char *sw_time_text(gint64 wall_us)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(wall_us / G_USEC_PER_SEC);

    return time ? g_date_time_format(time, "%Y-%m-%d %H:%M:%S") : g_strdup("?");
}

char *sw_age_text(gint64 age_us)
{
    double seconds = (double)age_us / G_USEC_PER_SEC;

    if (age_us < 0)
        return g_strdup("?");
    if (seconds < 100)
        return g_strdup_printf("%.1f s", seconds);
    if (seconds < 100 * 60)
        return g_strdup_printf("%.0f min", seconds / 60);
    if (seconds < 48 * 3600)
        return g_strdup_printf("%.1f h", seconds / 3600);
    return g_strdup_printf("%.1f d", seconds / 86400);
}

/* ---- JSON */

void sw_json_init(SwJson *json)
{
    *json = (SwJson){.out = g_string_new(NULL), .open = g_string_new(NULL)};
}

/* Whatever comes before a value: the comma, a line of its own within arrays, the key. */
static void begin(SwJson *json, const char *key)
{
    if (json->comma)
        g_string_append_c(json->out, ',');
    if (!key && json->open->len > 0)
        g_string_append_printf(json->out, "\n%*s", (int)json->open->len, "");
    else if (json->comma)
        g_string_append_c(json->out, ' ');
    if (key)
        g_string_append_printf(json->out, "\"%s\": ", key);
    json->comma = TRUE;
}

void sw_json_open(SwJson *json, const char *key, char bracket)
{
    begin(json, key);
    g_string_append_c(json->out, bracket);
    g_string_append_c(json->open, bracket == '{' ? '}' : ']');
    json->comma = FALSE;
}

void sw_json_close(SwJson *json)
{
    g_string_append_c(json->out, json->open->str[json->open->len - 1]);
    g_string_truncate(json->open, json->open->len - 1);
    json->comma = TRUE;
}

void sw_json_null(SwJson *json, const char *key)
{
    begin(json, key);
    g_string_append(json->out, "null");
}

void sw_json_text(SwJson *json, const char *key, const char *value)
{
    g_autofree char *text = NULL;

    if (!value) {
        sw_json_null(json, key);
        return;
    }
    begin(json, key);
    text = sw_printable(value, TRUE);
    g_string_append_printf(json->out, "\"%s\"", text);
}

void sw_json_number(SwJson *json, const char *key, gint64 value)
{
    begin(json, key);
    g_string_append_printf(json->out, "%" G_GINT64_FORMAT, value);
}

void sw_json_size(SwJson *json, const char *key, guint64 value)
{
    begin(json, key);
    g_string_append_printf(json->out, "%" G_GUINT64_FORMAT, value);
}

void sw_json_decimal(SwJson *json, const char *key, double value)
{
    char text[G_ASCII_DTOSTR_BUF_SIZE];

    begin(json, key);
    g_string_append(json->out, g_ascii_formatd(text, sizeof text, "%.6f", value));
}

void sw_json_bool(SwJson *json, const char *key, gboolean value)
{
    begin(json, key);
    g_string_append(json->out, value ? "true" : "false");
}

void sw_json_seconds(SwJson *json, const char *key, gint64 us)
{
    begin(json, key);
    g_string_append_printf(json->out, "%s%" G_GINT64_FORMAT ".%06d", us < 0 && us > -G_USEC_PER_SEC ? "-" : "",
                           us / G_USEC_PER_SEC, (int)(ABS(us % G_USEC_PER_SEC)));
}

void sw_json_age(SwJson *json, const char *key, gint64 age_us)
{
    if (age_us < 0)
        sw_json_null(json, key);
    else
        sw_json_seconds(json, key, age_us);
}

void sw_json_finish(SwJson *json)
{
    while (json->open->len > 0)
        sw_json_close(json);
    (void)printf("%s\n", json->out->str);
    sw_json_discard(json);
}

void sw_json_discard(SwJson *json)
{
    g_string_free(json->out, TRUE);
    g_string_free(json->open, TRUE);
}
