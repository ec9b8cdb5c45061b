/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_READERS_H
#define SW_FUSE_READERS_H

/*
 * The threads that read requests and serve them.
 *
 * Once the kernel has been greeted, one of them always waits for the next request: when the last that does gets one,
 * another is started, up to a limit, and those too many end when they are done.  So a call that hangs in the source (a
 * server that is away), or behind another commit of the same stage, keeps nobody else from being served.  What waits
 * for a lease does not even keep a reader (ops_waiting.c).
 */
#include "served.h"

#include <glib.h>

struct fuse_session;
typedef struct SwServer SwServer;
typedef struct SwReaders SwReaders;

/* Signals that the caller has blocked stay blocked in the readers; SIGUSR1 is theirs. */
SwReaders *sw_readers_start(SwServer *server);
/* Takes no further request, and waits until all that were taken have been served or put off.  FALSE: that is not so by
 * `until_us` (CLOCK_MONOTONIC), and nothing is changed. */
gboolean sw_readers_pause(SwReaders *readers, gint64 until_us) G_GNUC_WARN_UNUSED_RESULT;
void sw_readers_go_on(SwReaders *readers);
/* Serves a request as if it had been read just now. */
void sw_readers_serve(struct fuse_session *session, SwServing *serving, void *message, gsize size);
/* Has one of them found that the mount is gone? */
gboolean sw_readers_ended(SwReaders *readers);
/* Does one of them wait for the next request, or are there as many as there may be?  FALSE also while another looks. */
gboolean sw_readers_come_on(SwReaders *readers);
/* Waits until all have answered what they were at, and frees; the session has been told to exit. */
void sw_readers_stop(SwReaders *readers);

#endif
