/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "baton.h"

typedef struct {
    SimSched *sched;
    SimTask task;
    int index;
    gboolean done;
    pthread_t thread;
} Runner;

struct SimSched {
    SwMutex lock;
    pthread_cond_t turn;
    int current; /* -1: nobody is left */
    guint n;
    Runner runners[SIM_TASKS_MAX];
};

static __thread int self = -1;

SimSched *sim_sched_new(const SimTask *tasks, guint n)
{
    SimSched *sched = g_new0(SimSched, 1);

    g_assert(n > 0 && n <= SIM_TASKS_MAX);
    sw_mutex_init(&sched->lock);
    pthread_cond_init(&sched->turn, NULL);
    sched->n = n;
    for (guint i = 0; i < n; i++)
        sched->runners[i] = (Runner){.sched = sched, .task = tasks[i], .index = (int)i};
    return sched;
}

/* The next one after `from` that has not ended; -1 when all have. */
static int next_after(const SimSched *sched, int from)
{
    for (guint i = 1; i <= sched->n; i++) {
        int at = (int)((from + i) % sched->n);

        if (!sched->runners[at].done)
            return at;
    }
    return -1;
}

static void wait_for_turn(SimSched *sched, int index)
{
    while (sched->current != index)
        pthread_cond_wait(&sched->turn, &sched->lock);
}

static void *runner_main(void *data)
{
    Runner *runner = data;
    SimSched *sched = runner->sched;

    self = runner->index;
    sw_mutex_lock(&sched->lock);
    wait_for_turn(sched, self);
    sw_mutex_unlock(&sched->lock);
    runner->task.run(runner->task.data);
    sw_mutex_lock(&sched->lock);
    runner->done = TRUE;
    sched->current = next_after(sched, self);
    pthread_cond_broadcast(&sched->turn);
    sw_mutex_unlock(&sched->lock);
    return NULL;
}

void sim_sched_run(SimSched *sched)
{
    for (guint i = 0; i < sched->n; i++)
        if (pthread_create(&sched->runners[i].thread, NULL, runner_main, &sched->runners[i]) != 0)
            g_error("no thread for a simulated host");
    for (guint i = 0; i < sched->n; i++)
        (void)pthread_join(sched->runners[i].thread, NULL);
}

void sim_sched_pass(SimSched *sched, int to)
{
    sw_mutex_lock(&sched->lock);
    if (to < 0 || sched->runners[to].done)
        to = next_after(sched, self);
    if (to != self) {
        sched->current = to;
        pthread_cond_broadcast(&sched->turn);
        wait_for_turn(sched, self);
    }
    sw_mutex_unlock(&sched->lock);
}

guint sim_sched_count(const SimSched *sched)
{
    return sched->n;
}

void sim_sched_free(SimSched *sched)
{
    pthread_cond_destroy(&sched->turn);
    sw_mutex_clear(&sched->lock);
    g_free(sched);
}
