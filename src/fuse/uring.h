/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_URING_H
#define SW_FUSE_URING_H

/*
 * Requests that come through io_uring instead of from /dev/fuse (Linux 6.14,
 * Documentation/filesystems/fuse-io-uring.rst and fs/fuse/dev_uring.c).
 *
 * Each processor has a queue of slots (the kernel's "ring entries").  A free slot is taken by the next request of a
 * program on that processor, and is occupied until the answer to that is committed; then it is free again, for the
 * thread that committed.  What all this is built on:
 *
 * - The kernel takes the slot that became free last, and hands the request to the thread that has committed it, on its
 *   processor.  One that is always at its next call gets it with one switch and one system call.  So a thread, a
 *   "seat", keeps the slot whose request it has answered itself, and waits for nothing else then.
 * - A request that finds no free slot is given to the next that is committed, not to one that is registered.  So there
 *   are many from the beginning, more than can wait for locks.  The "reserve" is a thread that has all those no seat
 *   has; it never serves, but hands what comes to seats without a slot.
 * - Any thread may commit any slot.  What is not answered by its seat (it waits for a lease, a lock, or the source) is
 *   committed by the reserve; its seat goes on without a slot.
 *
 * FORGET and INTERRUPT, and all before the kernel was greeted, come from /dev/fuse as ever (readers.h), and
 * notifications go there.  The kernel does not go back from io_uring to /dev/fuse.
 */
#include <glib.h>
#include <sys/uio.h>

typedef struct SwUring SwUring;

typedef struct {
    /* Called in a seat: `message`, `size` bytes, is laid out as read from /dev/fuse; more bytes follow than any name
     * may have.  It lasts until the return. */
    void (*serve)(gpointer data, void *message, gsize size);
    /* The kernel will not have it so, for that errno: all requests come from /dev/fuse. */
    void (*refused)(gpointer data, int error);
    gpointer data;
    gsize payload_max; /* bytes, of a request or an answer without its header */
    /* Each message is the seat's own, which costs a copy of large ones.  Else a request with much data cannot be let go
     * (sw_uring_let_go). */
    gboolean copies;
} SwUringSetup;

/* Makes all that can be made before the kernel is asked: 0, or -errno: -ENOSYS without liburing, -EPERM where io_uring
 * is forbidden. */
int sw_uring_new(const SwUringSetup *setup, SwUring **ret_uring) G_GNUC_WARN_UNUSED_RESULT;
/* Once the kernel has been answered that requests shall come so.  Until all processors have slots, none come at all; if
 * it refuses, they come from `device`. */
void sw_uring_start(SwUring *uring, int device);
/* `answer` begins with a struct fuse_out_header.  FALSE: its request did not come from here.  Any thread. */
gboolean sw_uring_answer(SwUring *uring, const struct iovec *answer, int n);
/*
 * Answers with EINTR what another thread serves, as sw_serving_let_go; what that thread answers later finds nobody.
 * FALSE: it did not come from here.
 */
gboolean sw_uring_let_go(SwUring *uring, guint64 unique);
/* This thread is about to wait for the kernel: what it has answered must not wait for it. */
void sw_uring_commit_now(SwUring *uring);
/* Has something come that no seat has got round to? */
gboolean sw_uring_has_unserved(SwUring *uring);
/* Do the threads come on?  FALSE once means nothing. */
gboolean sw_uring_comes_on(SwUring *uring);
/* Waits for what is being served; what was put off can still be answered.  NULL is allowed. */
void sw_uring_stop(SwUring *uring);
/* After that, once nobody answers any more.  NULL is allowed. */
void sw_uring_free(SwUring *uring);

#endif
