/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Seats: the threads that serve.
 */
#include "uring_internal.h"

#include <linux/fuse.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

/*
 * Seats that keep a slot, for each processor.  They become as many as were at work there at once, less those that gave
 * theirs back when there was more to do than seats.  A low limit would do harm: once it is reached by a crowd, whose
 * last answers the reserve commits, all that comes later comes through the reserve, at 0.3 to 0.8 of the speed of
 * /dev/fuse.
 */
#define KEEPERS_MAX 256
#define IDLE_S 10
/* A message with no more data than this is copied, lest it be in the way of its own answer. */
#define COPIED_MAX 16384

static __thread SwUringSeat *this_seat;

SwUringSeat *sw_seat_self(void)
{
    return this_seat;
}

static void keep_none(SwUringSeat *seat)
{
    SwUring *uring = seat->uring;
    if (!seat->keeps)
        return;
    SW_HOLD(&uring->lock);
    seat->keeps->n_keepers--;
    uring->n_free_seats++;
    seat->keeps = NULL;
}

static gboolean keep(SwUringSeat *seat, SwUringQueue *queue)
{
    SwUring *uring = seat->uring;
    cpu_set_t processor;
    if (seat->keeps == queue)
        return TRUE;
    keep_none(seat);
    sw_mutex_lock(&uring->lock);
    if (queue->n_keepers < KEEPERS_MAX) {
        queue->n_keepers++;
        uring->n_free_seats--;
        seat->keeps = queue;
    }
    sw_mutex_unlock(&uring->lock);
    if (!seat->keeps)
        return FALSE;
    CPU_ZERO(&processor);
    CPU_SET(queue->id, &processor);
    sched_setaffinity(0, sizeof processor, &processor); /* it may be forbidden */
    return TRUE;
}

/* Commits the answer to what the slot has, and waits for its next request.  NULL: it has gone. */
static SwUringSlot *commit_and_fetch(SwUringSeat *seat, SwUringSlot *slot)
{
    struct __kernel_timespec idle = {.tv_sec = IDLE_S};
    struct io_uring_cqe *cqe;
    sw_slot_prepare(&seat->ring, seat->uring, slot, COMMAND_COMMIT_AND_FETCH, slot->headers->commit_id);
    while (io_uring_peek_cqe(&seat->ring, &cqe) != 0) {
        int r = 0;
        if (slot->is_large || seat->is_large)
            r = io_uring_submit_and_wait_timeout(&seat->ring, &cqe, 1, &idle, NULL);
        else
            r = io_uring_submit_and_wait(&seat->ring, 1);
        if (g_atomic_int_get(&seat->uring->stopping))
            return NULL;
        if (r == -ETIME) {
            /* Nothing is put there before this thread waits again: IORING_SETUP_DEFER_TASKRUN. */
            sw_slot_trim(slot->payload, 0, seat->uring->setup.payload_max);
            sw_slot_trim(seat->message, 0, seat->uring->stride);
            slot->is_large = seat->is_large = FALSE;
        }
    }
    int r = cqe->res;
    io_uring_cqe_seen(&seat->ring, cqe);
    if (r < 0)
        return NULL;
    sw_slot_begin(seat->uring, slot);
    return slot;
}

/* NULL: there are enough who wait. */
static SwUringSlot *take_handed(SwUringSeat *seat)
{
    SwUring *uring = seat->uring;
    SW_HOLD(&uring->lock);
    while (g_queue_is_empty(&uring->handed) && uring->n_waiting < SPARES && !g_atomic_int_get(&uring->stopping)) {
        uring->n_waiting++;
        pthread_cond_wait(&uring->changed, &uring->lock);
        uring->n_waiting--;
    }
    SwUringSlot *slot = g_queue_pop_head(&uring->handed);
    if (slot) {
        g_atomic_int_add(&uring->n_handed, -1);
        uring->n_taken++;
    }
    return slot;
}

static SwUringSlot *next_request(SwUringSeat *seat)
{
    SwUring *uring = seat->uring;
    SwUringSlot *slot = seat->has_answered ? seat->slot : NULL;
    seat->slot = NULL;
    seat->has_answered = FALSE;
    /* Who has a free slot must be there for it. */
    if (slot && seat->has_ring && !g_atomic_int_get(&uring->n_handed) && keep(seat, slot->queue)) {
        slot = commit_and_fetch(seat, slot);
        if (slot)
            return slot;
    } else if (slot)
        sw_slot_give_back(uring, slot);
    keep_none(seat);
    return take_handed(seat);
}

/* The slot may have another request by now. */
static void take_back(SwUringSlot *slot, guint64 unique)
{
    __atomic_compare_exchange_n(&slot->lent, &unique, 0, FALSE, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static void serve(SwUringSeat *seat, SwUringSlot *slot)
{
    SwUring *uring = seat->uring;
    const SwUringHeaders *headers = slot->headers;
    const struct fuse_in_header *in = (const void *)headers->header;
    gsize payload = headers->payload_size, size = in->len, arguments = size - sizeof *in - payload;
    gboolean is_copied = uring->setup.copies || payload <= COPIED_MAX;
    guint64 unique = in->unique;
    char *message = is_copied ? seat->message : slot->payload - arguments - sizeof *in;
    g_assert(payload <= uring->setup.payload_max && arguments <= sizeof headers->arguments);
    seat->slot = slot;
    memcpy(message, in, sizeof *in);
    memcpy(message + sizeof *in, headers->arguments, arguments);
    if (is_copied) {
        memcpy(message + sizeof *in + arguments, slot->payload, payload);
        seat->is_large |= payload > KEPT_MEMORY;
        take_back(slot, unique);
    }
    uring->setup.serve(uring->setup.data, message, size);
    if (!is_copied)
        take_back(slot, unique);
}

static void seat_free(SwUringSeat *seat)
{
    if (seat->has_ring)
        io_uring_queue_exit(&seat->ring);
    if (seat->message)
        munmap(seat->message, seat->uring->stride);
    g_free(seat);
}

int sw_uring_make_ring(struct io_uring *ring, guint entries)
{
    struct io_uring_params params = {.flags =
                                         IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    return io_uring_queue_init_params(entries, ring, &params);
}

static void *seat_run(void *data)
{
    SwUringSeat *seat = data;
    SwUring *uring = seat->uring;
    pthread_setname_np(pthread_self(), "seat");
    this_seat = seat;
    seat->has_ring = sw_uring_make_ring(&seat->ring, 2) == 0;
    for (SwUringSlot *slot = take_handed(seat); slot; slot = next_request(seat))
        serve(seat, slot);
    this_seat = NULL;
    sw_mutex_lock(&uring->lock);
    g_ptr_array_remove_fast(uring->seats, seat);
    uring->n_free_seats--;
    seat_free(seat);
    pthread_cond_broadcast(&uring->changed);
    sw_mutex_unlock(&uring->lock);
    return NULL;
}

gboolean sw_seat_add_locked(SwUring *uring)
{
    SwUringSeat *seat = g_new0(SwUringSeat, 1);
    seat->uring = uring;
    seat->message = sw_uring_map(uring->stride);
    if (!seat->message || pthread_create(&seat->thread, NULL, seat_run, seat) != 0) {
        seat_free(seat);
        return FALSE;
    }
    pthread_detach(seat->thread);
    g_ptr_array_add(uring->seats, seat);
    uring->n_free_seats++;
    return TRUE;
}
