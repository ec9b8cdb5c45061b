/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_URING_INTERNAL_H
#define SW_FUSE_URING_INTERNAL_H

/*
 * What uring.c (the reserve, and the whole's beginning and end), uring_seat.c and uring_slot.c share.
 */
#include "../core/base.h"
#include "uring.h"

#include <liburing.h>
#include <pthread.h>

/* Seats without a slot: at work, or waiting to be handed one.  More than the first only if these do not come on. */
#define FREE_SEATS_MAX 256
#define FREE_SEATS_FIRST 16
#define SPARES 8
/* Memory that has been used beyond that is given back to the machine when there is nothing to do. */
#define KEPT_MEMORY 16384
#define PAGE 4096

/* ---- as in <linux/fuse.h> since Linux 6.14 */

#define COMMAND_REGISTER 1
#define COMMAND_COMMIT_AND_FETCH 2

typedef struct {
    guint64 flags, commit_id;
    guint16 queue_id;
    guint8 padding[6];
} SwUringCommand;

typedef struct {
    char header[128];    /* struct fuse_in_header, then struct fuse_out_header */
    char arguments[128]; /* the request's own header, as struct fuse_create_in */
    guint64 flags, commit_id;
    guint32 payload_size, padding;
    guint64 reserved;
} SwUringHeaders;

typedef struct {
    guint id;
    guint n_slots;   /* of the reserve */
    guint n_keepers; /* protected by lock */
    gint n_busy;     /* atomic: slots with a request */
} SwUringQueue;

/* Lives from its registration to the end; the kernel knows its memory. */
typedef struct {
    SwUringQueue *queue;
    SwUringHeaders *headers;
    char *payload; /* behind room for what precedes it in a message */
    struct iovec memory[2];
    guint64 unique; /* atomic: of the request that nobody has answered yet; 0: none */
    guint64 lent;   /* atomic: as `unique`, while a seat reads of its memory */
    gboolean is_large;
} SwUringSlot;

struct SwUring {
    /* immutable */
    SwUringSetup setup;
    gsize stride; /* of a slot's memory */
    guint n_queues;
    SwUringQueue *queues;
    int wake; /* the reserve's eventfd */
    pthread_t reserve;

    /* of the reserve */
    struct io_uring ring;
    GArray *banks; /* of Bank (uring.c): the slots' memory */
    guint64 woken; /* what is read from `wake` */
    gboolean is_registered;
    struct {
        gint64 at_us; /* CLOCK_MONOTONIC */
        guint n_taken, n_more;
    } progress;
    gboolean is_settled; /* something has come, or the kernel has refused */

    /* atomic */
    gint device;   /* -1: not yet */
    gint stopping; /* the seats */
    gint ending;
    gint n_handed;             /* as many as `handed` has */
    SwUringSlot *lately[1024]; /* by a part of the request's number: who has it, most probably */

    /* protected by lock */
    SwMutex lock;
    pthread_cond_t changed;
    GQueue handed;    /* slots with a request, for seats */
    GQueue answered;  /* slots for the reserve to commit */
    GPtrArray *slots; /* all, owned */
    GPtrArray *seats;
    guint n_waiting, n_free_seats;
    guint n_taken; /* of those that were handed, ever */
    int made;      /* what became of the reserve's ring: 1: not known yet, 0, or -errno */
};

typedef struct {
    SwUring *uring;
    pthread_t thread;
    struct io_uring ring;
    gboolean has_ring;
    SwUringQueue *keeps; /* one of its slots; NULL: none */
    SwUringSlot *slot;   /* that is being served, until it is answered elsewhere */
    gboolean has_answered;
    char *message; /* its own memory */
    gboolean is_large;
} SwUringSeat;

/* ---- uring_slot.c */
/* NULL: there is no memory. */
void *sw_uring_map(gsize size);
/* A command for the slot is put into the ring, to be submitted. */
void sw_slot_prepare(struct io_uring *ring, const SwUring *uring, SwUringSlot *slot, guint32 operation,
                     guint64 commit_id);
struct io_uring_sqe *sw_uring_next_sqe(struct io_uring *ring);
/* A request has come. */
void sw_slot_begin(SwUring *uring, SwUringSlot *slot);
/* To the reserve, which commits its answer. */
void sw_slot_give_back(SwUring *uring, SwUringSlot *slot);
/* What is used beyond `used` bytes, and some, is given back to the machine; `at` begins a page. */
void sw_slot_trim(void *at, gsize used, gsize size);

/* ---- uring_seat.c */
/* This thread, if it is one; NULL. */
SwUringSeat *sw_seat_self(void);
/* With the lock.  FALSE: there can be no more threads. */
gboolean sw_seat_add_locked(SwUring *uring);
/* For the calling thread alone, which gets requests only where it waits for them: 0, or -errno. */
int sw_uring_make_ring(struct io_uring *ring, guint entries);

/* ---- uring.c */
/* The reserve has something to do. */
void sw_uring_wake(SwUring *uring);

#endif
