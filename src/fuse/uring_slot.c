/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One slot: its memory, the request it has, and the answer to that.
 */
#include "uring_internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/mman.h>

void *sw_uring_map(gsize size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    /* Of most slots not one page is ever used. */
    madvise(at, size, MADV_NOHUGEPAGE);
    return at;
}

void sw_slot_trim(void *at, gsize used, gsize size)
{
    gsize kept = MAX(KEPT_MEMORY, (used + PAGE - 1) / PAGE * PAGE);
    if (kept < size)
        madvise((char *)at + kept, size - kept, MADV_DONTNEED);
}

struct io_uring_sqe *sw_uring_next_sqe(struct io_uring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    while (!sqe) {
        io_uring_submit(ring);
        sqe = io_uring_get_sqe(ring);
    }
    return sqe;
}

void sw_slot_prepare(struct io_uring *ring, const SwUring *uring, SwUringSlot *slot, guint32 operation,
                     guint64 commit_id)
{
    struct io_uring_sqe *sqe = sw_uring_next_sqe(ring);
    SwUringCommand *command = (void *)sqe->cmd;
    memset(sqe, 0, 2 * sizeof *sqe); /* IORING_SETUP_SQE128 */
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = uring->device;
    sqe->cmd_op = operation;
    sqe->user_data = (guint64)(uintptr_t)slot;
    if (operation == COMMAND_REGISTER) {
        sqe->addr = (guint64)(uintptr_t)slot->memory;
        sqe->len = G_N_ELEMENTS(slot->memory);
    }
    *command = (SwUringCommand){.commit_id = commit_id, .queue_id = slot->queue->id};
}

/* ---- a request and its answer */

void sw_slot_begin(SwUring *uring, SwUringSlot *slot)
{
    const struct fuse_in_header *in = (const void *)slot->headers->header;
    g_atomic_int_inc(&slot->queue->n_busy);
    slot->is_large |= slot->headers->payload_size > KEPT_MEMORY;
    __atomic_store_n(&slot->lent, in->unique, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->unique, in->unique, __ATOMIC_RELEASE);
    __atomic_store_n(&uring->lately[in->unique / 2 % G_N_ELEMENTS(uring->lately)], slot, __ATOMIC_RELEASE);
}

/* Among those who want to answer it only one gets TRUE. */
static gboolean claim(SwUringSlot *slot, guint64 unique)
{
    if (!__atomic_compare_exchange_n(&slot->unique, &unique, 0, FALSE, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return FALSE;
    g_atomic_int_add(&slot->queue->n_busy, -1);
    return TRUE;
}

static gboolean has_request(const SwUringSlot *slot, guint64 unique)
{
    return slot && __atomic_load_n(&slot->unique, __ATOMIC_ACQUIRE) == unique;
}

static SwUringSlot *find(SwUring *uring, guint64 unique)
{
    SwUringSlot *slot = __atomic_load_n(&uring->lately[unique / 2 % G_N_ELEMENTS(uring->lately)], __ATOMIC_ACQUIRE);
    if (has_request(slot, unique))
        return slot;
    SW_HOLD(&uring->lock);
    for (guint i = 0; i < uring->slots->len; i++) {
        slot = uring->slots->pdata[i];
        if (has_request(slot, unique))
            return slot;
    }
    return NULL;
}

static void put_answer(SwUring *uring, SwUringSlot *slot, const struct iovec *answer, int n)
{
    struct fuse_out_header *out = (void *)slot->headers->header;
    gsize size = 0;
    memcpy(out, answer[0].iov_base, sizeof *out);
    for (int i = 1; i < n; i++) {
        if (answer[i].iov_len > uring->setup.payload_max - size) {
            *out = (struct fuse_out_header){.len = sizeof *out, .unique = out->unique, .error = -EIO};
            size = 0;
            break;
        }
        memcpy(slot->payload + size, answer[i].iov_base, answer[i].iov_len);
        size += answer[i].iov_len;
    }
    slot->headers->payload_size = size;
    slot->is_large |= size > KEPT_MEMORY;
}

void sw_slot_give_back(SwUring *uring, SwUringSlot *slot)
{
    if (slot->is_large)
        sw_slot_trim(slot->payload, slot->headers->payload_size, uring->setup.payload_max);
    slot->is_large = slot->headers->payload_size > KEPT_MEMORY;
    sw_mutex_lock(&uring->lock);
    gboolean is_first = g_queue_is_empty(&uring->answered);
    g_queue_push_tail(&uring->answered, slot);
    sw_mutex_unlock(&uring->lock);
    if (is_first)
        sw_uring_wake(uring);
}

gboolean sw_uring_answer(SwUring *uring, const struct iovec *answer, int n)
{
    const struct fuse_out_header *out = answer[0].iov_base;
    SwUringSeat *seat = sw_seat_self();
    gboolean is_own = seat && seat->slot && has_request(seat->slot, out->unique);
    SwUringSlot *slot = is_own ? seat->slot : find(uring, out->unique);
    if (!slot || !claim(slot, out->unique))
        return FALSE;
    put_answer(uring, slot, answer, n);
    if (is_own)
        seat->has_answered = TRUE;
    else
        sw_slot_give_back(uring, slot);
    return TRUE;
}

gboolean sw_uring_let_go(SwUring *uring, guint64 unique)
{
    struct fuse_out_header out = {.len = sizeof out, .error = -EINTR, .unique = unique};
    const struct iovec answer = {&out, sizeof out};
    SwUringSlot *slot = find(uring, unique);
    if (!slot)
        return FALSE;
    if (__atomic_load_n(&slot->lent, __ATOMIC_ACQUIRE) == unique || !claim(slot, unique))
        return TRUE;
    put_answer(uring, slot, &answer, 1);
    sw_slot_give_back(uring, slot);
    return TRUE;
}

void sw_uring_commit_now(SwUring *uring)
{
    SwUringSeat *seat = sw_seat_self();
    if (!seat || !seat->has_answered)
        return;
    /* Not by this thread: it would be given the slot's next request while it waits. */
    sw_slot_give_back(uring, seat->slot);
    seat->slot = NULL;
    seat->has_answered = FALSE;
}
