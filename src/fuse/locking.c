/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "locking.h"

#include "../core/base.h"

#include <signal.h>

/* An interrupt may come in the moment before its request is put in the queue. */
#define SLICE_US (250 * G_TIME_SPAN_MILLISECOND)

struct SwLocking {
    SwPort *port;
    SwOverlay *overlay;
    pthread_t thread;

    SwMutex stepping; /* held over a step, and over a pause */
    SwMutex lock;
    pthread_cond_t kicked_cond;
    gboolean kicked, stop; /* protected by lock */
};

static void wait_until(SwLocking *locking, gint64 next_us)
{
    gint64 now_us = locking->port->now_us(locking->port);

    if (!locking->kicked && !locking->stop)
        sw_cond_wait_us(&locking->kicked_cond, &locking->lock, CLAMP(next_us - now_us, 1, SLICE_US));
}

static void *run(void *data)
{
    SwLocking *locking = data;

    sw_mutex_lock(&locking->lock);
    while (!locking->stop) {
        gint64 next_us;

        locking->kicked = FALSE;
        sw_mutex_unlock(&locking->lock);
        sw_mutex_lock(&locking->stepping);
        next_us = sw_overlay_lock_step(locking->overlay);
        sw_mutex_unlock(&locking->stepping);
        sw_mutex_lock(&locking->lock);
        wait_until(locking, next_us);
    }
    sw_mutex_unlock(&locking->lock);
    return NULL;
}

static void changed(gpointer data)
{
    sw_locking_kick(data);
}

SwLocking *sw_locking_start(SwPort *port, SwOverlay *overlay)
{
    SwLocking *locking = g_new0(SwLocking, 1);
    sigset_t all, before;
    int r;

    locking->port = port;
    locking->overlay = overlay;
    sw_mutex_init(&locking->lock);
    sw_mutex_init(&locking->stepping);
    pthread_cond_init(&locking->kicked_cond, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&locking->thread, NULL, run, locking);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0) {
        sw_overlay_on_lock_change(overlay, changed, locking);
        return locking;
    }
    pthread_cond_destroy(&locking->kicked_cond);
    sw_mutex_clear(&locking->lock);
    sw_mutex_clear(&locking->stepping);
    g_free(locking);
    return NULL;
}

void sw_locking_kick(SwLocking *locking)
{
    SW_HOLD(&locking->lock);
    locking->kicked = TRUE;
    pthread_cond_signal(&locking->kicked_cond);
}

gboolean sw_locking_pause(SwLocking *locking, gint64 until_us)
{
    return sw_mutex_lock_until(&locking->stepping, until_us);
}

void sw_locking_go_on(SwLocking *locking)
{
    sw_mutex_unlock(&locking->stepping);
}

void sw_locking_stop(SwLocking *locking)
{
    if (!locking)
        return;
    sw_mutex_lock(&locking->lock);
    locking->stop = TRUE;
    pthread_cond_signal(&locking->kicked_cond);
    sw_mutex_unlock(&locking->lock);
    pthread_join(locking->thread, NULL);
    sw_overlay_lock_abandon(locking->overlay);
}

void sw_locking_free(SwLocking *locking)
{
    if (!locking)
        return;
    pthread_cond_destroy(&locking->kicked_cond);
    sw_mutex_clear(&locking->lock);
    sw_mutex_clear(&locking->stepping);
    g_free(locking);
}
