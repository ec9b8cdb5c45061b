/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

/* Enough for every real burst, few enough for a disk to survive a server that is away for a night. */
#define BURST 10
#define REFILL_US (6 * G_USEC_PER_SEC)
#define KINDS_MAX 256

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

static void stderr_sink(SwLogLevel level, const char *message, gpointer data);

static int most_verbose = SW_LOG_INFO; /* atomic */

/* protected by `lock`, which is never held while a message is written: standard error may be a file on a dead server */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* not GMutex, which TSan cannot see through */
static GHashTable *buckets;                              /* kind (owned) to SwLogBucket */
static SwLogSink current_sink = stderr_sink;
static gpointer current_data;

static void stderr_sink(SwLogLevel level, const char *message, gpointer data)
{
    g_autofree char *line = g_strdup_printf("safewritefs: %s: %s\n", level_names[level].word, message);

    /* One write, so that lines of several threads and processes do not mix; nobody could be told of a failure. */
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        return;
}

static void system_sink(SwLogLevel level, const char *message, gpointer data)
{
    const char *about = data;
    g_autofree char *text = about ? g_strdup_printf("%s: %s", about, message) : g_strdup(message);
    const GLogField fields[] = {
        {"MESSAGE", text, -1},
        {"PRIORITY", level_names[level].priority, -1},
        {"SYSLOG_IDENTIFIER", "safewritefs", -1},
        {"SAFEWRITEFS_MOUNTPOINT", about ? about : "", -1},
    };

    if (g_log_writer_journald(G_LOG_LEVEL_MESSAGE, fields, G_N_ELEMENTS(fields), NULL) != G_LOG_WRITER_HANDLED)
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
    gint64 earned = (now_us - bucket->filled_us) / REFILL_US;

    if (!bucket->used) {
        *bucket = (SwLogBucket){.used = TRUE, .filled_us = now_us, .tokens = BURST};
    } else if (earned > 0) {
        bucket->tokens = MIN(BURST, bucket->tokens + earned);
        bucket->filled_us += earned * REFILL_US;
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

static char *kind_of(const char *format, const char *message)
{
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

static gboolean may_pass_locked(const char *format, const char *message, guint *ret_suppressed)
{
    g_autofree char *kind = kind_of(format, message);
    SwLogBucket *bucket;
    guint forgotten = 0;

    if (!buckets)
        buckets = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    bucket = g_hash_table_lookup(buckets, kind);
    if (!bucket) {
        if (g_hash_table_size(buckets) >= KINDS_MAX)
            forgotten = forget_kinds_locked();
        bucket = g_new0(SwLogBucket, 1);
        g_hash_table_insert(buckets, g_steal_pointer(&kind), bucket);
    }
    if (!sw_log_bucket_take(bucket, g_get_monotonic_time(), ret_suppressed))
        return FALSE;
    *ret_suppressed += forgotten;
    return TRUE;
}

static void emit(SwLogLevel level, const char *format, const char *message)
{
    guint suppressed = 0;
    SwLogSink sink;
    gpointer data;
    gboolean passes;

    pthread_mutex_lock(&lock);
    passes = level == SW_LOG_DEBUG || may_pass_locked(format, message, &suppressed);
    sink = current_sink;
    data = current_data;
    pthread_mutex_unlock(&lock);

    if (!passes)
        return;
    if (suppressed > 0) {
        g_autofree char *notice = g_strdup_printf("%u messages like the next one were left out", suppressed);

        sink(level, notice, data);
    }
    sink(level, message, data);
}

void sw_log(SwLogLevel level, const char *format, ...)
{
    int saved_errno = errno;
    g_autofree char *raw = NULL;
    g_autofree char *message = NULL;
    va_list args;

    if ((int)level > g_atomic_int_get(&most_verbose))
        return;
    va_start(args, format);
    raw = g_strdup_vprintf(format, args);
    va_end(args);
    message = sw_log_escape(raw);
    emit(level, format, message);
    errno = saved_errno;
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

void sw_log_to_system(const char *about)
{
    openlog("safewritefs", LOG_PID, LOG_DAEMON);
    /* The copy lives as long as the process: another thread may be using the one before. */
    sw_log_set_sink(system_sink, about ? sw_log_escape(about) : NULL);
}

void sw_log_finish(void)
{
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

        sink(SW_LOG_INFO, notice, data);
    }
}
