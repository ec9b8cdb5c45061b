/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "uring_internal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

/* A queue has that many slots at first, and more when less than a quarter is free: whoever waits occupies one. */
#define SLOTS_TOTAL 16384
#define SLOTS_FIRST_MIN 128
#define SLOTS_FIRST_MAX 1024
#define SLOTS_MAX 4096
#define PATIENCE_US 1000

typedef struct {
    void *at;
    gsize size;
} Bank;

void sw_uring_wake(SwUring *uring)
{
    const guint64 one = 1;
    sw_ignore(write(uring->wake, &one, sizeof one));
}

/* ---- the reserve */

static void listen_for_wake(SwUring *uring)
{
    struct io_uring_sqe *sqe = sw_uring_next_sqe(&uring->ring);
    io_uring_prep_read(sqe, uring->wake, &uring->woken, sizeof uring->woken, 0);
    sqe->user_data = 0;
}

/* NULL: there is none. */
static char *new_bank(SwUring *uring, guint n_slots)
{
    Bank bank = {.size = n_slots * uring->stride};
    bank.at = sw_uring_map(bank.size);
    if (bank.at)
        g_array_append_val(uring->banks, bank);
    return bank.at;
}

static void add_slots(SwUring *uring, SwUringQueue *queue, char *bank, guint n)
{
    for (guint i = 0; i < n; i++) {
        char *at = bank + i * uring->stride;
        SwUringSlot *slot = g_new0(SwUringSlot, 1);
        slot->queue = queue;
        slot->headers = (void *)at;
        slot->payload = at + PAGE;
        slot->memory[0] = (struct iovec){slot->headers, sizeof *slot->headers};
        slot->memory[1] = (struct iovec){slot->payload, uring->setup.payload_max};
        sw_mutex_lock(&uring->lock);
        g_ptr_array_add(uring->slots, slot);
        sw_mutex_unlock(&uring->lock);
        sw_slot_prepare(&uring->ring, uring, slot, COMMAND_REGISTER, 0);
    }
    queue->n_slots += n;
}

static guint n_slots_first(const SwUring *uring)
{
    return CLAMP(SLOTS_TOTAL / uring->n_queues, SLOTS_FIRST_MIN, SLOTS_FIRST_MAX);
}

static void register_first(SwUring *uring)
{
    uring->is_registered = TRUE;
    for (guint i = 0; i < uring->n_queues; i++)
        add_slots(uring, &uring->queues[i], g_array_index(uring->banks, Bank, i).at, n_slots_first(uring));
}

/* Without memory for more there are as many as before. */
static void double_slots(SwUring *uring, SwUringQueue *queue)
{
    guint n = queue->n_slots;
    char *bank = new_bank(uring, n);
    if (bank)
        add_slots(uring, queue, bank, n);
}

static void add_seats_locked(SwUring *uring, guint n)
{
    for (guint i = 0; i < n && uring->n_free_seats < FREE_SEATS_MAX && !g_atomic_int_get(&uring->stopping); i++)
        sw_seat_add_locked(uring);
}

/* Many programs at once are served fastest by few threads.  Only if these do not come on, because they wait for the
 * source, there are to be more, and soon many.  TRUE: this is to be looked at again. */
static gboolean see_progress(SwUring *uring)
{
    gint64 now = g_get_monotonic_time();
    SW_HOLD(&uring->lock);
    if (g_queue_is_empty(&uring->handed) || uring->progress.n_taken != uring->n_taken) {
        uring->progress.at_us = now;
        uring->progress.n_taken = uring->n_taken;
        uring->progress.n_more = 1;
    } else if (now - uring->progress.at_us >= PATIENCE_US) {
        add_seats_locked(uring, uring->progress.n_more);
        uring->progress.at_us = now;
        uring->progress.n_more = MIN(2 * uring->progress.n_more, FREE_SEATS_MAX);
    }
    return !g_queue_is_empty(&uring->handed) && uring->n_free_seats < FREE_SEATS_MAX;
}

static void hand(SwUring *uring, SwUringSlot *slot)
{
    SwUringQueue *queue = slot->queue;
    guint n_busy;
    uring->is_settled = TRUE;
    sw_slot_begin(uring, slot);
    sw_mutex_lock(&uring->lock);
    g_queue_push_tail(&uring->handed, slot);
    g_atomic_int_inc(&uring->n_handed);
    if (uring->n_waiting < uring->handed.length && uring->n_free_seats < FREE_SEATS_FIRST)
        add_seats_locked(uring, 1);
    pthread_cond_signal(&uring->changed);
    sw_mutex_unlock(&uring->lock);
    n_busy = g_atomic_int_get(&queue->n_busy);
    if (n_busy > queue->n_slots / 4 * 3 && queue->n_slots < SLOTS_MAX)
        double_slots(uring, queue);
}

static void refuse(SwUring *uring, int error)
{
    uring->is_settled = TRUE;
    uring->setup.refused(uring->setup.data, error);
}

static void reap(SwUring *uring)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
        SwUringSlot *slot = (void *)(uintptr_t)cqe->user_data;
        int r = cqe->res;
        io_uring_cqe_seen(&uring->ring, cqe);
        if (!slot)
            listen_for_wake(uring);
        else if (r == 0)
            hand(uring, slot);
        else if (!uring->is_settled)
            refuse(uring, -r);
    }
}

static void commit_answered(SwUring *uring)
{
    GQueue answered;
    SwUringSlot *slot;
    sw_mutex_lock(&uring->lock);
    answered = uring->answered;
    g_queue_init(&uring->answered);
    sw_mutex_unlock(&uring->lock);
    while ((slot = g_queue_pop_head(&answered)))
        sw_slot_prepare(&uring->ring, uring, slot, COMMAND_COMMIT_AND_FETCH, slot->headers->commit_id);
}

static void *reserve_run(void *data)
{
    SwUring *uring = data;
    struct __kernel_timespec patience = {.tv_nsec = PATIENCE_US * 1000};
    struct io_uring_cqe *cqe;
    gboolean looks_again = FALSE;
    int r = sw_uring_make_ring(&uring->ring, 256);
    pthread_setname_np(pthread_self(), "reserve");
    sw_mutex_lock(&uring->lock);
    uring->made = r;
    pthread_cond_broadcast(&uring->changed);
    sw_mutex_unlock(&uring->lock);
    if (r < 0)
        return NULL;
    listen_for_wake(uring);
    while (!g_atomic_int_get(&uring->ending)) {
        if (!uring->is_registered && g_atomic_int_get(&uring->device) >= 0)
            register_first(uring);
        commit_answered(uring);
        if (looks_again)
            io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, &patience, NULL);
        else
            io_uring_submit_and_wait(&uring->ring, 1);
        reap(uring);
        looks_again = see_progress(uring);
    }
    commit_answered(uring);
    io_uring_submit(&uring->ring);
    io_uring_queue_exit(&uring->ring);
    return NULL;
}

/* ---- */

static void release(SwUring *uring)
{
    for (guint i = 0; i < uring->banks->len; i++) {
        const Bank *bank = &g_array_index(uring->banks, Bank, i);
        munmap(bank->at, bank->size);
    }
    g_array_unref(uring->banks);
    g_queue_clear(&uring->handed);
    g_queue_clear(&uring->answered);
    g_ptr_array_unref(uring->slots);
    g_ptr_array_unref(uring->seats);
    if (uring->wake >= 0)
        close(uring->wake);
    pthread_cond_destroy(&uring->changed);
    sw_mutex_clear(&uring->lock);
    g_free(uring->queues);
    g_free(uring);
}

/* The kernel has a queue for each that may ever be there: "0-3", "0-1,4"; 0: not to be known. */
static guint possible_processors(void)
{
    g_autofree char *text = NULL;
    const char *last;
    if (!g_file_get_contents("/sys/devices/system/cpu/possible", &text, NULL, NULL))
        return 0;
    last = text + strlen(text);
    while (last > text && !g_ascii_isdigit(last[-1]))
        last--;
    while (last > text && g_ascii_isdigit(last[-1]))
        last--;
    return (guint)g_ascii_strtoull(last, NULL, 10) + 1;
}

static SwUring *uring_blank(const SwUringSetup *setup, guint n_queues)
{
    SwUring *uring = g_new0(SwUring, 1);
    uring->setup = *setup;
    uring->stride = PAGE + (setup->payload_max + PAGE - 1) / PAGE * PAGE;
    uring->n_queues = n_queues;
    uring->queues = g_new0(SwUringQueue, n_queues);
    for (guint i = 0; i < n_queues; i++)
        uring->queues[i].id = i;
    uring->wake = eventfd(0, EFD_CLOEXEC);
    uring->device = -1;
    uring->made = 1;
    uring->banks = g_array_new(FALSE, FALSE, sizeof(Bank));
    uring->slots = g_ptr_array_new_with_free_func(g_free);
    uring->seats = g_ptr_array_new();
    sw_mutex_init(&uring->lock);
    pthread_cond_init(&uring->changed, NULL);
    g_queue_init(&uring->handed);
    g_queue_init(&uring->answered);
    return uring;
}

/* With the lock. */
static int start_threads_locked(SwUring *uring)
{
    if (pthread_create(&uring->reserve, NULL, reserve_run, uring) != 0)
        return -EAGAIN;
    while (uring->made > 0)
        pthread_cond_wait(&uring->changed, &uring->lock);
    if (uring->made < 0) {
        pthread_join(uring->reserve, NULL);
        return uring->made;
    }
    while (uring->seats->len < SPARES && sw_seat_add_locked(uring))
        ;
    return 0;
}

int sw_uring_new(const SwUringSetup *setup, SwUring **ret_uring)
{
    guint n_queues = possible_processors();
    SwUring *uring;
    int r;
    *ret_uring = NULL;
    if (n_queues == 0)
        return -ENOENT;
    uring = uring_blank(setup, n_queues);
    r = uring->wake < 0 ? -EMFILE : 0;
    for (guint i = 0; i < n_queues && r == 0; i++)
        r = new_bank(uring, n_slots_first(uring)) ? 0 : -ENOMEM;
    sw_mutex_lock(&uring->lock);
    if (r == 0)
        r = start_threads_locked(uring);
    sw_mutex_unlock(&uring->lock);
    if (r < 0) {
        release(uring);
        return r;
    }
    *ret_uring = uring;
    if (uring->seats->len < SPARES) {
        sw_uring_stop(uring);
        sw_uring_free(g_steal_pointer(ret_uring));
        return -EAGAIN;
    }
    return 0;
}

void sw_uring_start(SwUring *uring, int device)
{
    g_atomic_int_set(&uring->device, device);
    sw_uring_wake(uring);
}

gboolean sw_uring_has_unserved(SwUring *uring)
{
    return g_atomic_int_get(&uring->n_handed) > 0;
}

gboolean sw_uring_comes_on(SwUring *uring)
{
    return sw_mutex_is_free(&uring->lock);
}

void sw_uring_stop(SwUring *uring)
{
    if (!uring)
        return;
    g_atomic_int_set(&uring->stopping, TRUE);
    sw_mutex_lock(&uring->lock);
    pthread_cond_broadcast(&uring->changed);
    /* One may be about to block when the first signal comes. */
    while (uring->seats->len) {
        for (guint i = 0; i < uring->seats->len; i++)
            pthread_kill(((SwUringSeat *)uring->seats->pdata[i])->thread, SIGUSR1);
        sw_cond_wait_us(&uring->changed, &uring->lock, 2000);
    }
    sw_mutex_unlock(&uring->lock);
}

void sw_uring_free(SwUring *uring)
{
    if (!uring)
        return;
    g_atomic_int_set(&uring->ending, TRUE);
    sw_uring_wake(uring);
    pthread_join(uring->reserve, NULL);
    release(uring);
}
