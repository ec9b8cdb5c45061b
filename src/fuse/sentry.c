/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sentry.h"

#include "../core/base.h"

#include <signal.h>

#define LOOK_EVERY_US G_USEC_PER_SEC
/* With a short lease: nobody is to be told of what a busy machine does now and then. */
#define LIMIT_MIN_US (10 * G_USEC_PER_SEC)

struct SwSentry {
    /* immutable */
    SwPort *port;
    SwControl *control;
    gint64 limit_us;
    SwSentryFunc tell;
    gpointer data;
    pthread_t thread;

    /* of the thread */
    gboolean suspects, silent;
    gint64 since_us;

    /* protected by lock */
    SwMutex lock;
    pthread_cond_t wake;
    gboolean stop;
};

static void look(SwSentry *sentry)
{
    gint64 now_us = sentry->port->now_us(sentry->port);
    gint64 beat_us = sw_control_beat_us(sentry->control);
    gboolean late = now_us - beat_us > sentry->limit_us;

    if (sentry->silent && !late) {
        sentry->silent = FALSE;
        sentry->tell(sentry->data, FALSE, beat_us - sentry->since_us);
    } else if (!sentry->silent && late && sentry->suspects) {
        sentry->silent = TRUE;
        sentry->since_us = beat_us;
        sentry->tell(sentry->data, TRUE, now_us - beat_us);
    }
    sentry->suspects = late;
}

static void *run(void *data)
{
    SwSentry *sentry = data;

    sw_mutex_lock(&sentry->lock);
    while (!sentry->stop) {
        sw_mutex_unlock(&sentry->lock);
        look(sentry);
        sw_mutex_lock(&sentry->lock);
        if (!sentry->stop)
            sw_cond_wait_us(&sentry->wake, &sentry->lock, LOOK_EVERY_US);
    }
    sw_mutex_unlock(&sentry->lock);
    return NULL;
}

static void sentry_free(SwSentry *sentry)
{
    pthread_cond_destroy(&sentry->wake);
    sw_mutex_clear(&sentry->lock);
    g_free(sentry);
}

SwSentry *sw_sentry_start(SwPort *port, SwControl *control, gint64 lease_us, SwSentryFunc tell, gpointer data)
{
    SwSentry *sentry = g_new0(SwSentry, 1);
    sigset_t all, before;
    int r;

    sentry->port = port;
    sentry->control = control;
    sentry->limit_us = MAX(lease_us / 2, LIMIT_MIN_US);
    sentry->tell = tell;
    sentry->data = data;
    sw_mutex_init(&sentry->lock);
    pthread_cond_init(&sentry->wake, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&sentry->thread, NULL, run, sentry);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0)
        return sentry;
    sentry_free(sentry);
    return NULL;
}

void sw_sentry_stop(SwSentry *sentry)
{
    if (!sentry)
        return;
    sw_mutex_lock(&sentry->lock);
    sentry->stop = TRUE;
    pthread_cond_signal(&sentry->wake);
    sw_mutex_unlock(&sentry->lock);
    pthread_join(sentry->thread, NULL);
    sentry_free(sentry);
}
