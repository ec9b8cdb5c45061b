/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "log.h"

#include "journal.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

/* Enough for every real burst, few enough for a disk to survive a server that is away for a night. */
#define BURST 10
#define REFILL_US (6 * G_USEC_PER_SEC)
/* An event is about one file or host among many: a job of a hundred programs that is killed is told of in full. */
#define EVENT_WEIGHT 10
#define KINDS_MAX 256

typedef struct {
    const char *mountpoint, *source;
} About;

typedef struct {
    const char *word;
    const char *priority; /* as the journal wants it */
    int syslog;
} LevelName;

static const LevelName level_names[] = {
    [SW_LOG_ERROR] = {"error", "3", LOG_ERR},
    [SW_LOG_WARNING] = {"warning", "4", LOG_WARNING},
    [SW_LOG_INFO] = {"info", "6", LOG_INFO},
    [SW_LOG_DEBUG] = {"debug", "7", LOG_DEBUG},
};

static void stderr_sink(SwLogLevel level, const SwEvent *event, const char *message, gpointer data);

static int most_verbose = SW_LOG_INFO; /* atomic */
static gint unsent;                    /* atomic: messages that the journal did not take */
static About about;                    /* set before there are other threads */
static const char *journal_place = SW_JOURNAL_PLACE;

/* protected by `lock`, which is never held while a message is written: standard error may be a file on a dead server */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* not GMutex, which TSan cannot see through */
static GHashTable *buckets;                              /* kind (owned) to SwLogBucket */
static SwLogSink current_sink = stderr_sink;
static gpointer current_data;

static void stderr_sink(SwLogLevel level, const SwEvent *event, const char *message, gpointer data)
{
    g_autofree char *line = g_strdup_printf("safewritefs: %s: %s\n", level_names[level].word, message);

    /* One write, so that lines of several threads and processes do not mix; nobody could be told of a failure. */
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        return;
}

/* Where programs find it. */
static char *path_in_mount(const char *path)
{
    return path && about.mountpoint ? g_build_filename(about.mountpoint, path, NULL) : g_strdup(path);
}

static GString *journal_entry(SwLogLevel level, const SwEvent *event, const char *text)
{
    GString *entry = g_string_new(NULL);
    g_autofree char *path = path_in_mount(event->path);
    g_autofree char *pid = event->pid ? g_strdup_printf("%" PRId64, event->pid) : NULL;

    sw_journal_add(entry, "MESSAGE", text);
    sw_journal_add(entry, "PRIORITY", level_names[level].priority);
    sw_journal_add(entry, "SYSLOG_IDENTIFIER", "safewritefs");
    sw_journal_add(entry, "MESSAGE_ID", sw_event_message_id(event->kind));
    sw_journal_add(entry, "SW_EVENT", sw_event_name(event->kind));
    sw_journal_add(entry, "SW_MOUNT", about.mountpoint);
    sw_journal_add(entry, "SW_SOURCE", about.source);
    sw_journal_add(entry, "SW_HOST", event->host_id);
    sw_journal_add(entry, "SW_PATH", path);
    sw_journal_add(entry, "SW_PID", pid);
    sw_journal_add(entry, "SW_COMM", event->command);
    sw_journal_add(entry, "SW_REASON", event->reason);
    return entry;
}

/* To the journal, or where there is none to syslog(3), which may wait. */
static void system_sink(SwLogLevel level, const SwEvent *event, const char *message, gpointer data)
{
    g_autofree char *place = about.mountpoint ? sw_log_escape(about.mountpoint) : NULL;
    g_autofree char *text = place ? g_strdup_printf("%s: %s", place, message) : g_strdup(message);
    GString *entry = journal_entry(level, event, text);
    int r = sw_journal_send(journal_place, entry);

    g_string_free(entry, TRUE);
    if (r == -EAGAIN)
        g_atomic_int_inc(&unsent);
    else if (r < 0)
        syslog(level_names[level].syslog, "%s", text);
}

static gboolean is_harmless(gunichar c)
{
    GUnicodeType type = g_unichar_type(c);

    return g_unichar_isprint(c) && type != G_UNICODE_LINE_SEPARATOR && type != G_UNICODE_PARAGRAPH_SEPARATOR;
}

char *sw_log_escape(const char *text)
{
    GString *line = g_string_sized_new(strlen(text) + 1);

    for (const char *p = text; *p;) {
        gunichar c = g_utf8_get_char_validated(p, -1);
        gboolean is_valid = c != (gunichar)-1 && c != (gunichar)-2;
        gsize length = is_valid ? (gsize)(g_utf8_next_char(p) - p) : 1;

        if (is_valid && is_harmless(c))
            g_string_append_len(line, p, length);
        else
            for (gsize i = 0; i < length; i++)
                g_string_append_printf(line, "\\x%02x", (guchar)p[i]);
        p += length;
    }
    return g_string_free(line, FALSE);
}

static void bucket_fill(SwLogBucket *bucket, gint64 now_us)
{
    guint weight = MAX(bucket->weight, 1);
    gint64 refill_us = REFILL_US / weight;
    gint64 earned = (now_us - bucket->filled_us) / refill_us;

    if (!bucket->used) {
        bucket->used = TRUE;
        bucket->filled_us = now_us;
        bucket->tokens = BURST * weight;
    } else if (earned > 0) {
        bucket->tokens = MIN(BURST * weight, bucket->tokens + earned);
        bucket->filled_us += earned * refill_us;
    }
}

gboolean sw_log_bucket_take(SwLogBucket *bucket, gint64 now_us, guint *ret_suppressed)
{
    bucket_fill(bucket, now_us);
    if (bucket->tokens == 0) {
        bucket->suppressed++;
        return FALSE;
    }
    bucket->tokens--;
    *ret_suppressed = bucket->suppressed;
    bucket->suppressed = 0;
    return TRUE;
}

static char *kind_of(const SwEvent *event, const char *format, const char *message)
{
    if (event->kind)
        return g_strdup(sw_event_name(event->kind));
    if (strcmp(format, "%s") != 0)
        return g_strdup(format);
    return g_strndup(message, strcspn(message, "0123456789'\"/"));
}

/* What all kinds together hold back; the table is empty afterwards. */
static guint forget_kinds_locked(void)
{
    GHashTableIter iter;
    gpointer bucket;
    guint held = 0;

    g_hash_table_iter_init(&iter, buckets);
    while (g_hash_table_iter_next(&iter, NULL, &bucket))
        held += ((SwLogBucket *)bucket)->suppressed;
    g_hash_table_remove_all(buckets);
    return held;
}

static gboolean may_pass_locked(const SwEvent *event, const char *format, const char *message, guint *ret_suppressed)
{
    g_autofree char *kind = kind_of(event, format, message);
    SwLogBucket *bucket;
    guint forgotten = 0;

    if (!buckets)
        buckets = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    bucket = g_hash_table_lookup(buckets, kind);
    if (!bucket) {
        if (g_hash_table_size(buckets) >= KINDS_MAX)
            forgotten = forget_kinds_locked();
        bucket = g_new0(SwLogBucket, 1);
        bucket->weight = event->kind ? EVENT_WEIGHT : 1;
        g_hash_table_insert(buckets, g_steal_pointer(&kind), bucket);
    }
    if (!sw_log_bucket_take(bucket, g_get_monotonic_time(), ret_suppressed))
        return FALSE;
    *ret_suppressed += forgotten;
    return TRUE;
}

static void emit(SwLogLevel level, const SwEvent *event, const char *format, const char *message)
{
    static const SwEvent none = {0};
    guint suppressed = 0;
    SwLogSink sink;
    gpointer data;
    gboolean passes;

    pthread_mutex_lock(&lock);
    passes = level == SW_LOG_DEBUG || may_pass_locked(event, format, message, &suppressed);
    sink = current_sink;
    data = current_data;
    pthread_mutex_unlock(&lock);

    if (!passes)
        return;
    suppressed += (guint)g_atomic_int_exchange(&unsent, 0);
    if (suppressed > 0) {
        g_autofree char *notice = g_strdup_printf("%u messages like the next one were left out", suppressed);

        sink(level, &none, notice, data);
    }
    sink(level, event, message, data);
}

static void log_valist(SwLogLevel level, const SwEvent *event, const char *format, va_list args)
{
    int saved_errno = errno;
    g_autofree char *raw = NULL;
    g_autofree char *message = NULL;

    if ((int)level > g_atomic_int_get(&most_verbose))
        return;
    raw = g_strdup_vprintf(format, args);
    message = sw_log_escape(raw);
    emit(level, event, format, message);
    errno = saved_errno;
}

void sw_log(SwLogLevel level, const char *format, ...)
{
    static const SwEvent none = {0};
    va_list args;

    va_start(args, format);
    log_valist(level, &none, format, args);
    va_end(args);
}

void sw_log_event(SwLogLevel level, const SwEvent *event, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    log_valist(level, event, format, args);
    va_end(args);
}

void sw_log_note(SwNoteLevel level, const SwEvent *event, const char *host_id, const char *text)
{
    static const SwLogLevel levels[] = {SW_LOG_DEBUG, SW_LOG_INFO, SW_LOG_WARNING};
    SwEvent known = *event;

    if (!known.host_id)
        known.host_id = host_id;
    sw_log_event(levels[level], &known, "%s", text);
}

void sw_log_set_level(SwLogLevel level)
{
    g_atomic_int_set(&most_verbose, (int)level);
}

void sw_log_set_sink(SwLogSink sink, gpointer data)
{
    pthread_mutex_lock(&lock);
    current_sink = sink ? sink : stderr_sink;
    current_data = data;
    pthread_mutex_unlock(&lock);
}

void sw_log_about(const char *mountpoint, const char *source)
{
    g_free((char *)about.mountpoint);
    g_free((char *)about.source);
    about = (About){.mountpoint = g_strdup(mountpoint), .source = g_strdup(source)};
}

void sw_log_to_system(void)
{
    openlog("safewritefs", LOG_PID, LOG_DAEMON);
    sw_log_set_sink(system_sink, NULL);
}

void sw_log_begin(void)
{
    if (sw_journal_is_behind(STDERR_FILENO))
        sw_log_to_system();
}

void sw_log_set_journal(const char *place)
{
    journal_place = place ? place : SW_JOURNAL_PLACE;
}

void sw_log_finish(void)
{
    static const SwEvent none = {0};
    guint held;
    SwLogSink sink;
    gpointer data;

    pthread_mutex_lock(&lock);
    held = buckets ? forget_kinds_locked() : 0;
    sink = current_sink;
    data = current_data;
    pthread_mutex_unlock(&lock);

    if (held > 0) {
        g_autofree char *notice = g_strdup_printf("%u repeated messages were left out", held);

        sink(SW_LOG_INFO, &none, notice, data);
    }
}
