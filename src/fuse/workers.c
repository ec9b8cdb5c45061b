/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * glib's pool would do, but for the thread sanitizer, which does not see its locks (core/base.h).
 */
#include "workers.h"

#include "../core/base.h"

#include <errno.h>
#include <time.h>

#define IDLE_SECONDS 10

typedef struct {
    void (*func)(gpointer data);
    gpointer data;
} Job;

struct SwWorkers {
    SwMutex lock;
    pthread_cond_t changed;
    GQueue jobs; /* of Job */
    guint n_threads, n_idle, max_threads;
    gboolean ending;
};

/* With the lock; NULL when the thread should end. */
static Job *next_job(SwWorkers *workers)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += IDLE_SECONDS;
    workers->n_idle++;
    int r = 0;
    while (g_queue_is_empty(&workers->jobs) && !workers->ending && r != ETIMEDOUT)
        r = pthread_cond_timedwait(&workers->changed, &workers->lock, &until);
    workers->n_idle--;
    return g_queue_pop_head(&workers->jobs);
}

static void *worker(void *data)
{
    SwWorkers *workers = data;
    sw_mutex_lock(&workers->lock);
    for (Job *job = next_job(workers); job; job = next_job(workers)) {
        sw_mutex_unlock(&workers->lock);
        job->func(job->data);
        g_free(job);
        sw_mutex_lock(&workers->lock);
    }
    workers->n_threads--;
    pthread_cond_broadcast(&workers->changed);
    sw_mutex_unlock(&workers->lock);
    return NULL;
}

SwWorkers *sw_workers_new(guint max_threads)
{
    SwWorkers *workers = g_new0(SwWorkers, 1);
    sw_mutex_init(&workers->lock);
    pthread_cond_init(&workers->changed, NULL);
    g_queue_init(&workers->jobs);
    workers->max_threads = max_threads;
    return workers;
}

void sw_workers_push(SwWorkers *workers, void (*func)(gpointer data), gpointer data)
{
    Job *job = g_new(Job, 1);
    *job = (Job){.func = func, .data = data};
    sw_mutex_lock(&workers->lock);
    g_queue_push_tail(&workers->jobs, job);
    gboolean more = g_queue_get_length(&workers->jobs) > workers->n_idle && workers->n_threads < workers->max_threads;
    pthread_t thread;
    if (more && pthread_create(&thread, NULL, worker, workers) == 0) {
        pthread_detach(thread);
        workers->n_threads++;
    }
    pthread_cond_signal(&workers->changed);
    sw_mutex_unlock(&workers->lock);
}

guint sw_workers_drain(SwWorkers *workers, gint64 until_us)
{
    SW_HOLD(&workers->lock);
    guint n = g_queue_get_length(&workers->jobs) + workers->n_threads - workers->n_idle;
    while (n && g_get_monotonic_time() < until_us) {
        sw_mutex_unlock(&workers->lock);
        g_usleep(1000);
        sw_mutex_lock(&workers->lock);
        n = g_queue_get_length(&workers->jobs) + workers->n_threads - workers->n_idle;
    }
    return n;
}

void sw_workers_free(SwWorkers *workers)
{
    if (!workers)
        return;
    sw_mutex_lock(&workers->lock);
    workers->ending = TRUE;
    pthread_cond_broadcast(&workers->changed);
    while (workers->n_threads)
        pthread_cond_wait(&workers->changed, &workers->lock);
    sw_mutex_unlock(&workers->lock);
    pthread_cond_destroy(&workers->changed);
    sw_mutex_clear(&workers->lock);
    g_free(workers);
}
