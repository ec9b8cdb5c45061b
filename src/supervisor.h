/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_SUPERVISOR_H
#define SW_SUPERVISOR_H

/*
 * A process that does nothing but wait for the daemon, and starts another one when it crashed.
 *
 * It has read no file of the source and made no thread, so what kills a daemon passes it by.  It keeps open what
 * `serve` is to find again, above all the source: its name may by then lead to the dead mount.
 *
 * A crash is an end by a signal, or with another status than 0, of a daemon whose mount had answered.  A daemon that
 * ends with 0 was unmounted or told to end, and so does its supervisor; one whose mount never answered has said why.
 */

#include <glib.h>

/* More than this within SW_CRASHES_WITHIN_US, and it gives up: what kills each daemon at once is not cured by another.
 * The dead mount stays, and programs go on getting its error instead of the directory underneath. */
#define SW_CRASHES_MAX 5
#define SW_CRASHES_WITHIN_US (60 * G_USEC_PER_SEC)
/* The first crash costs no time; after another one within this time there is a pause. */
#define SW_CRASHES_CALM_US (10 * G_USEC_PER_SEC)
#define SW_CRASHES_PAUSE_US G_USEC_PER_SEC

/* The last crashes; {0} is none. */
typedef struct {
    gint64 at_us[SW_CRASHES_MAX]; /* oldest first */
    guint n;
} SwCrashes;

/* One more, at `now_us` (never decreasing): how long to wait before the next start, or -1: it was one too many. */
gint64 sw_crashes_add(SwCrashes *crashes, gint64 now_us);

typedef struct {
    /*
     * The daemon, in a child with the signals as they were before; its return is the exit status.  It writes a byte to
     * `ready_fd` and closes it when its mount answers.  `again` says that it is not the first.
     */
    int (*serve)(gpointer data, int ready_fd, gboolean again);
    /* In the supervisor, when the mount answers for the first time. */
    void (*ready)(gpointer data);
    /* In the supervisor, when it was told to end and the daemon could not do so in order. */
    void (*left_dead)(gpointer data);
    /* In the supervisor: a sentence for the log. */
    void (*say)(gboolean is_error, const char *text);
    gpointer data;
} SwSupervised;

/*
 * Supervises until the daemon has ended for good.  SIGTERM, SIGINT and SIGHUP are passed on to the daemon, as SIGTERM.
 * The exit status for both: the last daemon's, or `failure` where it died.
 */
int sw_supervise(const SwSupervised *what, int failure);

#endif
