/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_LOG_H
#define SW_LOG_H

/*
 * The log of the daemon: one event, one line.
 *
 * Messages go to standard error ("safewritefs: warning: ...") until sw_log_to_system() turns them to the journal, or
 * to syslog(3) where no journal listens.  Whatever a message contains, a file name above all, cannot forge a second
 * line: what is not printable UTF-8 appears as \xNN.
 *
 * A kind of message (its format, or for the bare format "%s" the text before the first digit, quote or slash) that is
 * repeated too fast is held back, and the next one that passes says how many were; debug messages are never held back.
 *
 * Everything here may be called from any thread and leaves errno alone.  Layers below main.c do not include this.
 */

#include <glib.h>

typedef enum { SW_LOG_ERROR, SW_LOG_WARNING, SW_LOG_INFO, SW_LOG_DEBUG } SwLogLevel;

void sw_log(SwLogLevel level, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Messages above this level are dropped; SW_LOG_INFO at the start. */
void sw_log_set_level(SwLogLevel level);

/* From now on to the journal or syslog; `about` (copied; may be NULL), the mount point, begins each message. */
void sw_log_to_system(const char *about);

/* Says what is still held back.  To be called before the program ends. */
void sw_log_finish(void);

/* ---- for tests */

/* Takes finished, escaped messages instead of standard error; NULL brings that back. */
typedef void (*SwLogSink)(SwLogLevel level, const char *message, gpointer data);
void sw_log_set_sink(SwLogSink sink, gpointer data);

/* `text` as it may stand in a line (g_free). */
char *sw_log_escape(const char *text);

/* How often one kind of message may appear; {0} has never been used. */
typedef struct {
    gboolean used;
    gint64 filled_us; /* the time up to which `tokens` is counted */
    guint tokens;
    guint suppressed; /* since a message last passed */
} SwLogBucket;

/* May a message pass at `now_us`?  If so, *ret_suppressed is how many of its kind were held back before it. */
gboolean sw_log_bucket_take(SwLogBucket *bucket, gint64 now_us, guint *ret_suppressed);

#endif
