/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_SERVED_H
#define SW_FUSE_SERVED_H

/*
 * The requests that are being served, and the way out for a program that is killed while one hangs in the source.
 *
 * A call into a file system whose server is away ends when the server is back, and the thread that made it cannot be
 * called off.  The program waits for the reply, even after SIGKILL: the kernel "waits it out" once a request is in user
 * space (request_wait_answer in fs/fuse/dev.c).  So a dying program's request is answered with EINTR by another thread;
 * what the call itself answers later finds nobody (ENOENT), and is undone as any interrupted request's answer.  As on
 * NFS itself only fatal signals end a wait (nfs(5), "intr"); other programs never see an EINTR of this (C24).
 *
 * FLUSH and RELEASE are waited for: what a close does depends on how its caller ends (C3).
 *
 * Every function may be called by any thread.
 */
#include "../port/port.h"

#include <glib.h>

typedef struct SwServing SwServing;

/* One of them; the caller's memory, from begin to end. */
typedef struct {
    GList link;
    guint64 unique;
    gint64 began_us;       /* port clock */
    gint64 interrupted_us; /* port clock; 0: nobody wants to call it off */
    pid_t tid;
    guint32 opcode;
    gboolean gone_on; /* elsewhere: it ends there */
    char *what;       /* owned; only if requests are traced */
    int error;        /* 0, or why it failed */
} SwServed;

/* Who follows them: each is described when it comes, and told of when it ends. */
typedef struct {
    /* Of what was read from the device, at least a header; g_free. */
    char *(*describe)(gpointer data, const void *message, gsize size);
    void (*told)(const char *text);
    gpointer data;
} SwServedTrace;

SwServing *sw_serving_new(SwPort *port);
void sw_serving_free(SwServing *serving);
/* From the next request on; before there are any. */
void sw_serving_trace(SwServing *serving, const SwServedTrace *trace);

/* The request that this thread is serving, as it was read; NULL: none. */
const void *sw_served_message(gsize *ret_size);
/* `message` is what was read from the device.  One that interrupts another is not served itself: FALSE, no end. */
gboolean sw_served_begin(SwServing *serving, SwServed *served, const void *message, gsize size);
/* Counts what was served, and how long that took. */
void sw_served_end(SwServing *serving, SwServed *served);
/* The request that this thread is serving goes on elsewhere, as `to`; begins a second time, and ends both times. */
void sw_served_go_on(SwServing *serving, SwServed *to);
/* Is a request of this thread being served? */
gboolean sw_serving_has(SwServing *serving, pid_t tid);
/* This thread goes on with `served`. */
void sw_served_resume(SwServed *served);
/* What this thread serves fails with that errno.  FALSE: it serves nothing now. */
gboolean sw_served_failed(int error);
/* Has `answer` answer the requests of dying threads with EINTR; called every 100 ms or so, by a thread that never
 * hangs. It may be that one has just been answered. */
void sw_serving_let_go(SwServing *serving, void (*answer)(gpointer data, guint64 unique), gpointer data);

#endif
