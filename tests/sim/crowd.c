/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "crowd.h"

#include "../../src/core/base.h"

#define STACK_BYTES (512 * 1024)

typedef struct {
    SimCrowd *crowd;
    void (*run)(gpointer data);
    gpointer data;
    guint index;
    gint64 wake_us;
    pthread_t thread;
    pthread_cond_t turn;
} Runner;

/* The runners that have not ended are a heap: the one that wakes first is in front. */
struct SimCrowd {
    gint64 *now_us;
    SwMutex lock;
    GPtrArray *all;
    GPtrArray *heap; /* borrowed */
    Runner *current;
};

static __thread Runner *self;

static gboolean is_before(const Runner *a, const Runner *b)
{
    return a->wake_us != b->wake_us ? a->wake_us < b->wake_us : a->index < b->index;
}

static void swap(GPtrArray *heap, guint i, guint j)
{
    gpointer at = heap->pdata[i];

    heap->pdata[i] = heap->pdata[j];
    heap->pdata[j] = at;
}

static void push(GPtrArray *heap, Runner *runner)
{
    guint i = heap->len;

    g_ptr_array_add(heap, runner);
    for (; i > 0 && is_before(heap->pdata[i], heap->pdata[(i - 1) / 2]); i = (i - 1) / 2)
        swap(heap, i, (i - 1) / 2);
}

static Runner *pop(GPtrArray *heap)
{
    Runner *first = heap->len ? g_ptr_array_remove_index_fast(heap, 0) : NULL;

    for (guint i = 0, least = 0;; i = least) {
        for (guint j = 2 * i + 1; j <= 2 * i + 2 && j < heap->len; j++)
            if (is_before(heap->pdata[j], heap->pdata[least]))
                least = j;
        if (least == i)
            return first;
        swap(heap, i, least);
    }
}

SimCrowd *sim_crowd_new(gint64 *now_us)
{
    SimCrowd *crowd = g_new0(SimCrowd, 1);

    crowd->now_us = now_us;
    crowd->all = g_ptr_array_new_with_free_func(g_free);
    crowd->heap = g_ptr_array_new();
    sw_mutex_init(&crowd->lock);
    return crowd;
}

void sim_crowd_add(SimCrowd *crowd, void (*run)(gpointer data), gpointer data)
{
    Runner *runner = g_new0(Runner, 1);

    *runner = (Runner){.crowd = crowd, .run = run, .data = data, .index = crowd->all->len, .wake_us = *crowd->now_us};
    pthread_cond_init(&runner->turn, NULL);
    g_ptr_array_add(crowd->all, runner);
    push(crowd->heap, runner);
}

/* With the lock. */
static void hand_on(SimCrowd *crowd)
{
    crowd->current = pop(crowd->heap);
    if (!crowd->current)
        return;
    *crowd->now_us = MAX(*crowd->now_us, crowd->current->wake_us);
    pthread_cond_signal(&crowd->current->turn);
}

static void await_turn(SimCrowd *crowd, Runner *runner)
{
    while (crowd->current != runner)
        pthread_cond_wait(&runner->turn, &crowd->lock);
}

static void *runner_main(void *data)
{
    Runner *runner = data;
    SimCrowd *crowd = runner->crowd;

    self = runner;
    sw_mutex_lock(&crowd->lock);
    await_turn(crowd, runner);
    sw_mutex_unlock(&crowd->lock);
    runner->run(runner->data);
    sw_mutex_lock(&crowd->lock);
    hand_on(crowd);
    sw_mutex_unlock(&crowd->lock);
    return NULL;
}

void sim_crowd_run(SimCrowd *crowd)
{
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    for (guint i = 0; i < crowd->all->len; i++) {
        Runner *runner = crowd->all->pdata[i];

        if (pthread_create(&runner->thread, &attr, runner_main, runner) != 0)
            g_error("no thread for a simulated host");
    }
    pthread_attr_destroy(&attr);
    sw_mutex_lock(&crowd->lock);
    hand_on(crowd);
    sw_mutex_unlock(&crowd->lock);
    for (guint i = 0; i < crowd->all->len; i++)
        (void)pthread_join(((Runner *)crowd->all->pdata[i])->thread, NULL);
}

void sim_crowd_wait(SimCrowd *crowd, gint64 until_us)
{
    Runner *runner = self;

    if (!runner || runner->crowd != crowd) { /* before or after all tasks */
        *crowd->now_us = MAX(*crowd->now_us, until_us);
        return;
    }
    sw_mutex_lock(&crowd->lock);
    runner->wake_us = MAX(until_us, *crowd->now_us);
    push(crowd->heap, runner);
    hand_on(crowd);
    await_turn(crowd, runner);
    sw_mutex_unlock(&crowd->lock);
}

void sim_crowd_free(SimCrowd *crowd)
{
    for (guint i = 0; i < crowd->all->len; i++)
        pthread_cond_destroy(&((Runner *)crowd->all->pdata[i])->turn);
    g_ptr_array_unref(crowd->all);
    g_ptr_array_unref(crowd->heap);
    sw_mutex_clear(&crowd->lock);
    g_free(crowd);
}
