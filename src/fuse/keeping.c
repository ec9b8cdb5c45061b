/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "keeping.h"

#include "../core/base.h"

#include <signal.h>

/* How late a want may be seen, and how long the end has to wait. */
#define SLICE_US (50 * G_TIME_SPAN_MILLISECOND)

struct SwKeeping {
    SwPort *port;
    SwKeeper *keeper;
    pthread_t thread;
    SwMutex stepping; /* held over a step, for whoever wants it to be over; nothing else is behind it */
    gint stop;        /* atomic */
};

static void *run(void *data)
{
    SwKeeping *keeping = data;

    while (!g_atomic_int_get(&keeping->stop)) {
        gint64 next_us, now_us;

        sw_mutex_lock(&keeping->stepping);
        next_us = sw_keeper_step(keeping->keeper);
        sw_mutex_unlock(&keeping->stepping);
        now_us = keeping->port->now_us(keeping->port);
        keeping->port->sleep_us(keeping->port, CLAMP(next_us - now_us, 1000, SLICE_US));
    }
    return NULL;
}

SwKeeping *sw_keeping_start(SwPort *port, SwKeeper *keeper)
{
    SwKeeping *keeping = g_new0(SwKeeping, 1);
    sigset_t all, before;
    int r;

    keeping->port = port;
    keeping->keeper = keeper;
    sw_mutex_init(&keeping->stepping);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&keeping->thread, NULL, run, keeping);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0)
        return keeping;
    sw_mutex_clear(&keeping->stepping);
    g_free(keeping);
    return NULL;
}

gboolean sw_keeping_pause(SwKeeping *keeping, gint64 until_us)
{
    return sw_mutex_lock_until(&keeping->stepping, until_us);
}

void sw_keeping_go_on(SwKeeping *keeping)
{
    sw_mutex_unlock(&keeping->stepping);
}

void sw_keeping_retire(SwKeeping *keeping)
{
    sw_keeper_retire(keeping->keeper);
    sw_mutex_lock(&keeping->stepping);
    sw_mutex_unlock(&keeping->stepping);
}

void sw_keeping_stop(SwKeeping *keeping)
{
    if (!keeping)
        return;
    g_atomic_int_set(&keeping->stop, TRUE);
    pthread_join(keeping->thread, NULL);
    sw_mutex_clear(&keeping->stepping);
    g_free(keeping);
}
