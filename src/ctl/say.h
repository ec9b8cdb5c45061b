/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_SAY_H
#define SW_SAY_H

/* What every command prints the same way: failures, hostile text, times, tables of text and JSON. */

#include <glib.h>

/* Exit codes. */
#define SW_EXIT_FAILURE 1
#define SW_EXIT_USAGE 2

/* Says what went wrong; SW_EXIT_FAILURE. */
int sw_fail(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* The same for a wrong command line, and where to read more; SW_EXIT_USAGE. */
int sw_misused(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* Flushes what was printed: 0, or what sw_fail gives. */
int sw_finish_output(void);

/* Hostile text for a terminal or a JSON string: what is no plain character is written as an escape (g_free). */
char *sw_printable(const char *text, gboolean json);
/* "2025-11-24 17:05:00" of a host's clock, and "3.2 s", "5 min", "2.5 h", "?" for a negative one (g_free). */
char *sw_time_text(gint64 wall_us);
char *sw_age_text(gint64 age_us);

/*
 * JSON, in the order of the calls: values within an object have a `key`, those within an array NULL.  `bracket` is '{'
 * or '['.
 */
typedef struct {
    GString *out;
    GString *open; /* a closing bracket for each that is open */
    gboolean comma;
} SwJson;

void sw_json_init(SwJson *json);
void sw_json_open(SwJson *json, const char *key, char bracket);
void sw_json_close(SwJson *json);
void sw_json_text(SwJson *json, const char *key, const char *value); /* NULL: null */
void sw_json_number(SwJson *json, const char *key, gint64 value);
void sw_json_size(SwJson *json, const char *key, guint64 value);
/* With six digits behind the point, whatever the locale. */
void sw_json_decimal(SwJson *json, const char *key, double value);
void sw_json_bool(SwJson *json, const char *key, gboolean value);
void sw_json_null(SwJson *json, const char *key);
void sw_json_seconds(SwJson *json, const char *key, gint64 us);
/* As seconds; a negative one, which is not known, as null. */
void sw_json_age(SwJson *json, const char *key, gint64 age_us);
/* Closes what is open, prints and frees it; or only frees it. */
void sw_json_finish(SwJson *json);
void sw_json_discard(SwJson *json);

#endif
