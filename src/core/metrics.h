/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_METRICS_H
#define SW_METRICS_H

/*
 * What a mount has done, in numbers: counters, and how long things took.
 *
 * A daemon counts into one SwMetrics.  That takes no lock, no memory and no system call, and any thread may do it.  It
 * tells the numbers as compact text (sw_metrics_text) through the extended attribute SW_METRICS_XATTR of its root
 * directory, which may have 64 KiB only; safewritectl reads that back (sw_metrics_parse) and shows it as OpenMetrics.
 * Names of metrics, labels and help texts are in metrics.c, and in docs/monitoring.md.  Pure.
 */

#include <glib.h>

#define SW_METRICS_XATTR "user.safewritefs.metrics"

/* What is counted; those of one metric stand together.  A gauge is what is now, and is set when somebody asks. */
typedef enum {
    SW_COUNT_COMMITS_WHOLE, /* a new or rewritten file took its name */
    SW_COUNT_COMMITS_EDIT,  /* an edit of a version took its place */
    SW_COUNT_COMMITS_FENCED,
    SW_COUNT_EDITS_REBASED,
    SW_COUNT_RECORDS, /* appended */
    SW_COUNT_DISCARDS_KILLED,
    SW_COUNT_DISCARDS_FAILED,
    SW_COUNT_DISCARDS_REMOVED,
    SW_COUNT_DISCARDS_FENCED,
    SW_COUNT_DISCARDS_UNMOUNTED,
    SW_COUNT_DISCARDS_NAMELESS,   /* unlinked, or O_TMPFILE: nobody wanted it to be committed */
    SW_COUNT_DISCARDS_SUPERSEDED, /* others made a file of that name meanwhile, and this one had no bytes */
    SW_COUNT_DISCARDS_UNWRITTEN,  /* opened for writing, and not written */
    SW_COUNT_SALVAGED,
    SW_COUNT_SALVAGE_FAILED,
    SW_COUNT_LEASES_BROKEN,
    SW_COUNT_LOCKS_RELEASED,
    SW_COUNT_HOSTS_BROKEN,
    SW_COUNT_HOSTS_BURIED,
    SW_COUNT_REJOINS,
    SW_COUNT_READ_BYTES,
    SW_COUNT_WRITTEN_BYTES,
    SW_COUNT_PASSED, /* opens */
    SW_COUNT_DEFERRED,
    SW_COUNT_ERRORS_IO, /* EIO */
    SW_COUNT_ERRORS_STALE,
    SW_COUNT_ERRORS_SPACE, /* ENOSPC, EDQUOT */
    SW_COUNT_STAGES,       /* gauge */
    SW_COUNT_NODES,        /* gauge */
    SW_COUNT_UPTIME,       /* gauge, microseconds */
    SW_COUNT_N,
} SwCount;

/* What is timed: requests of the kernel by operation, and calls of the source by member of SwPort. */
typedef enum {
    SW_TIMER_LOOKUP,
    SW_TIMER_FORGET,
    SW_TIMER_GETATTR,
    SW_TIMER_SETATTR,
    SW_TIMER_READLINK,
    SW_TIMER_MKNOD,
    SW_TIMER_MKDIR,
    SW_TIMER_UNLINK,
    SW_TIMER_RMDIR,
    SW_TIMER_SYMLINK,
    SW_TIMER_RENAME,
    SW_TIMER_LINK,
    SW_TIMER_OPEN,
    SW_TIMER_CREATE,
    SW_TIMER_READ,
    SW_TIMER_WRITE,
    SW_TIMER_FLUSH,
    SW_TIMER_RELEASE,
    SW_TIMER_FSYNC,
    SW_TIMER_OPENDIR,
    SW_TIMER_READDIR,
    SW_TIMER_RELEASEDIR,
    SW_TIMER_FSYNCDIR,
    SW_TIMER_STATFS,
    SW_TIMER_GETXATTR,
    SW_TIMER_LISTXATTR,
    SW_TIMER_SETXATTR,
    SW_TIMER_REMOVEXATTR,
    SW_TIMER_FALLOCATE,
    SW_TIMER_COPY_FILE_RANGE,
    SW_TIMER_LSEEK,
    SW_TIMER_LOCK, /* of a lock that is waited for: until it was put aside */
    SW_TIMER_OTHER,
    SW_TIMER_CALL_OPEN,
    SW_TIMER_CALL_CLOSE,
    SW_TIMER_CALL_STAT,
    SW_TIMER_CALL_SETATTR,
    SW_TIMER_CALL_XATTR,
    SW_TIMER_CALL_STATFS,
    SW_TIMER_CALL_MAKE, /* directories, symbolic links, nodes */
    SW_TIMER_CALL_READLINK,
    SW_TIMER_CALL_LINK,
    SW_TIMER_CALL_UNLINK,
    SW_TIMER_CALL_RENAME,
    SW_TIMER_CALL_READDIR,
    SW_TIMER_CALL_READ,
    SW_TIMER_CALL_WRITE,
    SW_TIMER_CALL_ALLOCATE,
    SW_TIMER_CALL_SYNC,
    SW_TIMER_CALL_COPY,
    SW_TIMER_CALL_LOCK,
    SW_TIMER_N,
} SwTimer;

/* Upper bounds are in metrics.c; the last bucket has none. */
#define SW_METRICS_BUCKETS 15

typedef struct {
    guint64 sum_us;
    guint64 buckets[SW_METRICS_BUCKETS]; /* how many fell into each, not cumulative */
} SwHistogram;

/* All zero at the start; every number is changed atomically, and may be read while others count. */
typedef struct {
    guint64 counts[SW_COUNT_N];
    SwHistogram times[SW_TIMER_N];
} SwMetrics;

static inline void sw_metrics_add(SwMetrics *metrics, SwCount what, guint64 n)
{
    (void)__atomic_fetch_add(&metrics->counts[what], n, __ATOMIC_RELAXED);
}

static inline void sw_metrics_set(SwMetrics *metrics, SwCount what, guint64 n)
{
    __atomic_store_n(&metrics->counts[what], n, __ATOMIC_RELAXED);
}

/* One that took so long; a negative time counts as none. */
void sw_metrics_time(SwMetrics *metrics, SwTimer what, gint64 us);

/* The compact text (g_free); a timer that nothing was timed with is left out, and so is a counter that is 0. */
char *sw_metrics_text(const SwMetrics *metrics, const char *version, const char *host_id);

/* What a mount told, and what people call that mount. */
typedef struct {
    SwMetrics metrics;
    char *version, *host_id;
    char *mountpoint, *source;
} SwMetricsReport;

/*
 * Reads compact text.  0, and `metrics`, `version` and `host_id` are filled in; or -EBADMSG.  What another version of
 * the daemon counts beyond this is left out.
 */
int sw_metrics_parse(const char *text, SwMetricsReport *ret_report) G_GNUC_WARN_UNUSED_RESULT;
/* What is counted or timed there, "commits", and the value of its label, "edit", or NULL. */
const char *sw_metrics_count_name(SwCount what, const char **ret_label);
const char *sw_metrics_timer_name(SwTimer what, const char **ret_label);

void sw_metrics_report_clear(SwMetricsReport *report);

/* OPENMETRICS is what Prometheus and others negotiate; TEXT the older format, which node_exporter reads from files. */
typedef enum { SW_METRICS_OPENMETRICS, SW_METRICS_TEXT } SwMetricsFormat;

/*
 * All metrics of those mounts, each metric once.  Others may follow, by sw_metrics_family and lines of their own;
 * OpenMetrics then ends with "# EOF\n".
 */
void sw_metrics_format(const SwMetricsReport *const *reports, guint n, SwMetricsFormat format, GString *out);
/* The head of a metric; `type` is "counter" (its samples are <name>_total), "gauge", "info" (<name>_info).  `unit` may
 * be NULL; a name ends with it. */
void sw_metrics_family(GString *out, SwMetricsFormat format, const char *name, const char *type, const char *unit,
                       const char *help);
/* A label's value as it has to be written (g_free). */
char *sw_metrics_escape(const char *value);

#endif
