/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "readers.h"

#include "../core/base.h"
#include "server_internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#ifndef FUSE_TMPFILE
#define FUSE_TMPFILE 51
#endif

#define READERS_FIRST 8
/* Each has a buffer for the largest request, 1 MiB. */
#define READERS_MAX 256

struct SwReaders {
    SwServer *server;
    struct fuse_session *session;
    SwServing *serving;
    SwMutex lock;
    pthread_cond_t left;
    pthread_t threads[READERS_MAX]; /* the first `n` */
    guint n, n_idle;
    gboolean greeted; /* INIT has been answered */
    gboolean paused;  /* no request is to be taken */
    guint n_parked;   /* threads that have seen that */
    pthread_cond_t moved;
    gint ended; /* atomic */
};

static void woken(int signal)
{
    (void)signal;
}

static void *reader(void *data);

static gboolean add_locked(SwReaders *readers)
{
    if (readers->n == READERS_MAX || pthread_create(&readers->threads[readers->n], NULL, reader, readers) != 0)
        return FALSE;
    pthread_detach(readers->threads[readers->n]);
    readers->n++;
    readers->n_idle++;
    return TRUE;
}

/* The first request is INIT, and no other comes before its answer.  What libfuse settles then it looks at in each
 * reader, without a lock: so the others begin after it. */
static void greet_locked(SwReaders *readers)
{
    readers->greeted = TRUE;
    while (readers->n < READERS_FIRST && add_locked(readers))
        ;
}

static void begin_request(SwReaders *readers)
{
    sw_mutex_lock(&readers->lock);
    if (--readers->n_idle == 0 && readers->greeted)
        add_locked(readers);
    sw_mutex_unlock(&readers->lock);
}

/* FALSE: there are enough that wait. */
static gboolean end_request(SwReaders *readers)
{
    sw_mutex_lock(&readers->lock);
    if (!readers->greeted)
        greet_locked(readers);
    gboolean stays = readers->n_idle < READERS_FIRST;
    if (stays)
        readers->n_idle++;
    sw_mutex_unlock(&readers->lock);
    return stays;
}

static void leave(SwReaders *readers)
{
    sw_mutex_lock(&readers->lock);
    guint at = 0;
    while (!pthread_equal(readers->threads[at], pthread_self()))
        at++;
    readers->threads[at] = readers->threads[--readers->n];
    pthread_cond_signal(&readers->left);
    sw_mutex_unlock(&readers->lock);
}

/*
 * libfuse before 3.17 knows no FUSE_TMPFILE.  The request is laid out like a FUSE_CREATE, and is answered like one, so
 * it is handed on as that, under a name no program can use (C26).
 */
static void disguise_tmpfile(struct fuse_buf *buf)
{
    static const char name[] = SW_TMPFILE_NAME;
    struct fuse_in_header *header = buf->mem;
    size_t size = sizeof *header + sizeof(struct fuse_create_in) + sizeof name;
    if (buf->size < sizeof *header + sizeof(struct fuse_create_in) || header->opcode != FUSE_TMPFILE)
        return;
    memcpy((char *)buf->mem + size - sizeof name, name, sizeof name);
    header->opcode = FUSE_CREATE;
    header->len = buf->size = size;
}

static void wait_while_paused(SwReaders *readers)
{
    SW_HOLD(&readers->lock);
    if (!readers->paused)
        return;
    readers->n_parked++;
    pthread_cond_broadcast(&readers->left);
    while (readers->paused)
        pthread_cond_wait(&readers->moved, &readers->lock);
    readers->n_parked--;
}

/* FALSE: the mount is gone, or the session is to end. */
static gboolean receive(SwReaders *readers, struct fuse_buf *buf)
{
    int r = -EINTR;
    while (r == -EINTR && !fuse_session_exited(readers->session)) {
        wait_while_paused(readers);
        r = fuse_session_receive_buf(readers->session, buf);
    }
    if (r <= 0)
        g_atomic_int_set(&readers->ended, TRUE);
    return r > 0;
}

static void serve(struct fuse_session *session, SwServing *serving, struct fuse_buf *buf)
{
    SwServed served;
    gboolean is_served = sw_served_begin(serving, &served, buf->mem, buf->size);
    disguise_tmpfile(buf);
    fuse_session_process_buf(session, buf);
    if (is_served)
        sw_served_end(serving, &served);
}

void sw_readers_serve(struct fuse_session *session, SwServing *serving, void *message, gsize size)
{
    struct fuse_buf buf = {.mem = message, .size = size};
    serve(session, serving, &buf);
}

static void *reader(void *data)
{
    SwReaders *readers = data;
    struct fuse_buf buf = {0};
    gboolean stays = TRUE;
    while (stays && receive(readers, &buf)) {
        begin_request(readers);
        if (sw_greeting_is_one(buf.mem, buf.size))
            sw_server_greet(readers->server, &buf);
        else
            serve(readers->session, readers->serving, &buf);
        stays = end_request(readers);
    }
    free(buf.mem);
    leave(readers);
    return NULL;
}

SwReaders *sw_readers_start(SwServer *server)
{
    const struct sigaction wake = {.sa_handler = woken};
    SwReaders *readers = g_new0(SwReaders, 1);
    readers->server = server;
    readers->session = server->session;
    readers->serving = server->serving;
    sw_mutex_init(&readers->lock);
    pthread_cond_init(&readers->left, NULL);
    pthread_cond_init(&readers->moved, NULL);
    readers->greeted = sw_greeting_is_over(&server->greeting);
    sigaction(SIGUSR1, &wake, NULL);
    sw_mutex_lock(&readers->lock);
    if (!add_locked(readers))
        g_error("cannot make threads");
    if (readers->greeted)
        greet_locked(readers);
    sw_mutex_unlock(&readers->lock);
    return readers;
}

gboolean sw_readers_ended(SwReaders *readers)
{
    return g_atomic_int_get(&readers->ended);
}

gboolean sw_readers_pause(SwReaders *readers, gint64 until_us)
{
    SW_HOLD(&readers->lock);
    readers->paused = TRUE;
    /* One may be about to block when the first signal comes. */
    while (readers->n_parked < readers->n && g_get_monotonic_time() < until_us) {
        for (guint i = 0; i < readers->n; i++)
            pthread_kill(readers->threads[i], SIGUSR1);
        sw_cond_wait_us(&readers->left, &readers->lock, 2000);
    }
    readers->paused = readers->n_parked == readers->n;
    if (!readers->paused)
        pthread_cond_broadcast(&readers->moved);
    return readers->paused;
}

void sw_readers_go_on(SwReaders *readers)
{
    SW_HOLD(&readers->lock);
    readers->paused = FALSE;
    pthread_cond_broadcast(&readers->moved);
}

gboolean sw_readers_come_on(SwReaders *readers)
{
    if (!sw_mutex_trylock(&readers->lock))
        return FALSE;
    gboolean comes_on = readers->n_idle > 0 || readers->n == READERS_MAX;
    sw_mutex_unlock(&readers->lock);
    return comes_on;
}

void sw_readers_stop(SwReaders *readers)
{
    sw_mutex_lock(&readers->lock);
    /* One may be about to block when the first signal comes: they are called until all have left. */
    while (readers->n) {
        for (guint i = 0; i < readers->n; i++)
            pthread_kill(readers->threads[i], SIGUSR1);
        sw_cond_wait_us(&readers->left, &readers->lock, 2000);
    }
    sw_mutex_unlock(&readers->lock);
    pthread_cond_destroy(&readers->left);
    pthread_cond_destroy(&readers->moved);
    sw_mutex_clear(&readers->lock);
    g_free(readers);
}
