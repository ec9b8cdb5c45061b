/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch.h"

#define BEATS_PER_TTL 4
#define LOOKS_PER_TTL 32
#define EARLY_PER_TTL 256

static void begin(SwWatch *watch, guint64 counter, gint64 ended_us)
{
    *watch = (SwWatch){.known = TRUE, .counter = counter, .looked_us = ended_us, .steady_us = ended_us};
}

/* The beat came since the last look, and a ttl/4 after the one before. */
static void saw_beat(SwWatch *watch, guint64 counter, gint64 ended_us, gint64 ttl_us)
{
    gint64 interval_us = ended_us - watch->looked_us;
    gint64 lag_us = watch->changed ? watch->lag_us + interval_us - ttl_us / BEATS_PER_TTL : interval_us;

    begin(watch, counter, ended_us);
    watch->changed = TRUE;
    watch->lag_us = CLAMP(lag_us, 0, ttl_us / BEATS_PER_TTL);
}

gboolean sw_watch_look(SwWatch *watch, guint64 counter, gint64 began_us, gint64 ended_us, gint64 ttl_us,
                       gboolean renewed)
{
    gint64 since_us = watch->known ? watch->looked_us : began_us;
    gint64 steady_us = watch->known ? watch->steady_us : began_us;
    gboolean fresh = !watch->known || counter != watch->counter;
    gint64 waiting_us = MIN(watch->quiet_us, 0); /* a later gap does not shorten what an earlier one waits for */
    gboolean gap = !renewed || began_us < since_us || ended_us < began_us || ended_us - since_us > ttl_us / 2;

    if (!watch->known)
        begin(watch, counter, ended_us);
    else if (fresh)
        saw_beat(watch, counter, ended_us, ttl_us);
    else
        watch->changed = FALSE;
    watch->looked_us = ended_us;
    if (gap) {
        watch->quiet_us = MIN(waiting_us, -CLAMP(ended_us - steady_us, 0, SW_WATCH_GRACE_US));
        watch->steady_us = renewed ? ended_us : steady_us;
        return FALSE;
    }
    if (!fresh)
        watch->quiet_us += began_us - since_us;
    watch->steady_us = ended_us;
    return watch->quiet_us >= ttl_us;
}

gint64 sw_watch_next_us(const SwWatch *watch, gint64 ttl_us)
{
    gint64 probe_us = ttl_us / LOOKS_PER_TTL;
    /* Seen late: the next look comes before the beat, and those after it find out when that is. */
    gint64 early_us = watch->lag_us > probe_us * 3 / 2 ? watch->lag_us : ttl_us / EARLY_PER_TTL;

    if (watch->changed)
        return watch->looked_us + MAX(ttl_us / BEATS_PER_TTL - early_us, probe_us);
    return watch->looked_us + probe_us;
}

gboolean sw_watch_is_quiet(const SwWatch *watch, gint64 ttl_us)
{
    return watch->known && watch->quiet_us > ttl_us / 2;
}
