/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_WATCH_H
#define SW_WATCH_H

/*
 * For how long another host has been seen to stand still (C19, C20, C23).
 *
 * A host that lives changes a counter every ttl/4.  Whoever watches it looks at the counter now and then, and adds up
 * the time between looks that saw the same; when that reaches the ttl, the host is to be broken.  Only the watcher's
 * own clock is asked, and only for differences.  Not counted is what may have been an outage that hit the other as
 * well:
 *
 *   - a look that ends more than ttl/2 after the one before: the watcher was frozen, or the server did not answer;
 *   - time in which the watcher's own renewals did not get through.
 *
 * After such a gap the count starts over, and as long as the gap was, at most SW_WATCH_GRACE_US, has to pass in
 * addition: a client whose server was away asks for it less and less often, up to every five minutes.
 *
 * Pure; times are microseconds of the watcher's clock.
 */

#include <glib.h>

#define SW_WATCH_GRACE_US (300 * G_TIME_SPAN_SECOND)

typedef struct {
    gboolean known;   /* looked at before */
    gboolean changed; /* the last look saw another counter than the one before it */
    guint64 counter;  /* as last seen */
    gint64 looked_us; /* end of the last look */
    gint64 lag_us;    /* how long before the last look that saw a change this may have been, at most */
    gint64 steady_us; /* end of the last look before which there was no gap */
    gint64 quiet_us;  /* how long it has been seen unchanged; below 0 what has to pass in addition */
} SwWatch;

/*
 * A look from `began_us` to `ended_us` saw `counter`; the truth is some moment between.  `renewed`: since the last look
 * no renewal of the watcher's own has failed.  `ttl_us` is the one of the host looked at.  TRUE: it is to be broken.
 */
gboolean sw_watch_look(SwWatch *watch, guint64 counter, gint64 began_us, gint64 ended_us, gint64 ttl_us,
                       gboolean renewed);

/*
 * When to look next.  After a look that saw a change, ttl/4 less ttl/256 later, a little earlier in the beat's phase
 * each time; once it comes too early for the beat, looks are ttl/32 apart until one sees it.  So a beat is seen at most
 * ttl/32 late, and a host that lives costs little more than a look per beat.
 */
gint64 sw_watch_next_us(const SwWatch *watch, gint64 ttl_us);

/* Has it missed a beat, and more than that?  Then it is worth another watcher's attention as well. */
gboolean sw_watch_is_quiet(const SwWatch *watch, gint64 ttl_us);

#endif
