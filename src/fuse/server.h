/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_SERVER_H
#define SW_FUSE_SERVER_H

/*
 * The FUSE side of one mount: from mounting to the last request.
 *
 * Requests are read by a fixed set of threads.  A call of the overlay that would have to wait (for a lease, for data
 * to become durable) is handed to further threads, so that it never keeps others from being served.
 */

#include "../overlay/overlay.h"

typedef struct SwServer SwServer;

typedef struct {
    SwPort *port;
    SwOverlay *overlay;
    const char *source; /* its name, for mountinfo */
    const char *mountpoint;
    const char *fuse_options;       /* for libfuse's -o */
    const GPtrArray *mount_options; /* those of them that are the kernel's, one by one */
    /* Called once, when the kernel has greeted us: from now on the mount answers. */
    void (*ready)(gpointer data);
    gpointer ready_data;
    /* Called for each request when it ends, with a line that tells it in words; NULL: nobody follows them. */
    void (*trace)(const char *text);
    /* Somebody who may has sent a request (core/ask.h): the answer (g_free).  Called by any thread, with ready_data. */
    char *(*asked)(gpointer data, const char *request);
    /* Called several times a second by the thread in sw_server_run, which may then use sw_server_pause. */
    void (*attend)(gpointer data);
    /* Called several times a second by the thread in sw_server_run, as long as sw_server_is_sound; with ready_data. */
    void (*alive)(gpointer data);
} SwServerSetup;

/*
 * Mounts; a dead mount at the mount point is replaced (mounting.h).  -errno, and a sentence in *ret_why (g_free), when
 * that fails; what libfuse itself has to say goes to standard error.
 */
int sw_server_new(const SwServerSetup *setup, SwServer **ret_server, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

/* Serves until unmounted, or until SIGTERM, SIGINT or SIGHUP.  0, or -errno when the connection broke. */
int sw_server_run(SwServer *server) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Does the server come on?  Some thread waits for the next request, or all there may be are at work; and the tables,
 * which nobody holds while he waits for anything (docs/concurrency.md), can be had.  FALSE once means nothing: somebody
 * has just that table.  Says nothing about calls of the source, which may take as long as they take.
 */
gboolean sw_server_is_sound(SwServer *server);

/*
 * Another daemon goes on with the mount (docs/design.md, "A daemon that is followed by another").
 *
 * pause    takes no further request, waits for what is being served, and stands still, but for those who wait for file
 *          locks.  FALSE, and a sentence in *ret_why (g_free): that is not so by `until_us` (CLOCK_MONOTONIC); then all
 *          goes on.  The kernel keeps what programs ask for meanwhile.
 * go_on    ends a pause
 * carry    within a pause: stores the device, what was agreed with the kernel, and who waits for file locks
 * follow   as sw_server_new, of what was stored.  Until sw_server_run nothing is read and nothing answered.  -errno and
 * a sentence.
 */
gboolean sw_server_pause(SwServer *server, gint64 until_us, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;
void sw_server_go_on(SwServer *server);
void sw_server_carry(SwServer *server, SwBundle *bundle);
int sw_server_follow(const SwServerSetup *setup, SwBundle *bundle, SwServer **ret_server,
                     char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

/* Unmounts if need be and frees; waits for calls handed to other threads. */
void sw_server_free(SwServer *server);

/* Which libfuse that is, for people: "libfuse 3.18.3 (bundled)"; g_free. */
char *sw_server_libfuse(void) G_GNUC_WARN_UNUSED_RESULT;

#endif
