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
 *
 * A daemon that hangs does not crash by itself.  It says every few seconds that it is alive (SW_SAYS_ALIVE), and once
 * it has done so and then is silent for `hang_us`, it is killed by SIGABRT, for a core.  Silence is counted in looks,
 * so that time in which the machine, or the supervisor itself, stood still does not count.  A daemon that was stopped
 * (SIGSTOP, a debugger) is left alone, for somebody wanted that; it is only said.
 */

#include <glib.h>
#include <sys/types.h>

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

/* What a daemon says to its supervisor. */
typedef enum {
    SW_SAYS_ANSWERS,  /* its mount answers */
    SW_SAYS_ALIVE,    /* it does what it is there for */
    SW_SAYS_CHANGED,  /* its options, as the text has it */
    SW_SAYS_FOLLOWED, /* by another daemon, a child of its own, whose pid the text is: this one ends now */
    SW_SAYS_ENDING,   /* it comes to its end, which may take as long as it takes: silence means nothing any more */
} SwSays;

/* How often the supervisor looks within `hang_us`, and so how often at least a daemon should say that it is alive. */
#define SW_HANG_LOOKS 6

/* To be called in the daemon, with the socket it was given; nothing happens where that is -1, or nobody listens. `text`
 * belongs to some of them, else it is NULL. */
void sw_supervisor_tell(int fd, SwSays what, const char *text);

typedef struct {
    /*
     * The daemon, in a child with the signals as they were before; its return is the exit status.  `fd` is a socket for
     * sw_supervisor_tell, which closes with the process.  `again` says that it is not the first.
     */
    int (*serve)(gpointer data, int fd, gboolean again);
    /* In the supervisor, when the mount answers for the first time. */
    void (*ready)(gpointer data);
    /* In the supervisor: what the daemon has changed, for the next one.  May be NULL. */
    void (*changed)(gpointer data, const char *text);
    /* In the supervisor, when it was told to end and the daemon could not do so in order. */
    void (*left_dead)(gpointer data);
    /* In the supervisor: a sentence for the log. */
    void (*say)(gboolean is_error, const char *text);
    gpointer data;
    gint64 hang_us; /* 0: whether it hangs is not watched */
} SwSupervised;

/*
 * Supervises until the daemon has ended for good.  SIGTERM, SIGINT and SIGHUP are passed on to the daemon, as SIGTERM.
 * The exit status for both: the last daemon's, or `failure` where it died.
 */
int sw_supervise(const SwSupervised *what, int failure);

#endif
