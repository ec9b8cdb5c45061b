/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_LOG_H
#define SW_LOG_H

/*
 * The log of the daemon, and of what safewritectl does for it: one event, one line.
 *
 * Messages go to standard error ("safewritefs: warning: ..."); or to the journal, where standard error leads there
 * (sw_log_begin) and from sw_log_to_system() on, with fields that can be asked for: PRIORITY, SW_MOUNT, SW_SOURCE, and
 * those of an event (core/event.h): MESSAGE_ID, SW_EVENT, SW_HOST, SW_PATH, SW_PID, SW_COMM, SW_REASON.  Where no
 * journal listens, syslog(3) takes what would go there.  Whatever a message contains, a file name above all, cannot
 * forge a second line: what is not printable UTF-8 appears as \xNN.  The journal gets SW_PATH and SW_COMM as they are,
 * framed (journal.h).
 *
 * A kind of message (its format, or for the bare format "%s" the text before the first digit, quote or slash) that is
 * repeated too fast is held back, and the next one that passes says how many were; debug messages are never held back.
 * Messages of an event are of one kind whatever their format, and ten times as many pass.
 *
 * Everything here may be called from any thread and leaves errno alone.  Libraries that others are made of do not
 * include this: they are told whom to tell.
 */

#include "../core/event.h"

#include <glib.h>

typedef enum { SW_LOG_ERROR, SW_LOG_WARNING, SW_LOG_INFO, SW_LOG_DEBUG } SwLogLevel;

void sw_log(SwLogLevel level, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* The same, with what is known of the event besides. */
void sw_log_event(SwLogLevel level, const SwEvent *event, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* What a library has noted (SwNoteFunc); an event that names no host is about this one, `host_id` (may be NULL). */
void sw_log_note(SwNoteLevel level, const SwEvent *event, const char *host_id, const char *text);

/* Messages above this level are dropped; SW_LOG_INFO at the start. */
void sw_log_set_level(SwLogLevel level);

/* To the journal from now on, if that is what standard error leads to. */
void sw_log_begin(void);

/* What mount it is about (both copied; may be NULL); the mount point begins each message to the journal.  Before there
 * are other threads. */
void sw_log_about(const char *mountpoint, const char *source);

/* From now on to the journal or syslog. */
void sw_log_to_system(void);

/* Says what is still held back.  To be called before the program ends. */
void sw_log_finish(void);

/* ---- for tests */

/* Takes finished, escaped messages instead of standard error; NULL brings that back. */
typedef void (*SwLogSink)(SwLogLevel level, const SwEvent *event, const char *message, gpointer data);
void sw_log_set_sink(SwLogSink sink, gpointer data);

/* Where the journal listens; NULL: SW_JOURNAL_PLACE. */
void sw_log_set_journal(const char *place);

/* `text` as it may stand in a line (g_free). */
char *sw_log_escape(const char *text);

/* How often one kind of message may appear; {0} has never been used. */
typedef struct {
    gboolean used;
    gint64 filled_us; /* the time up to which `tokens` is counted */
    guint tokens;
    guint suppressed; /* since a message last passed */
    guint weight;     /* so many times what passes otherwise; 0 is 1 */
} SwLogBucket;

/* May a message pass at `now_us`?  If so, *ret_suppressed is how many of its kind were held back before it. */
gboolean sw_log_bucket_take(SwLogBucket *bucket, gint64 now_us, guint *ret_suppressed);

#endif
