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
typedef struct SwReaders SwReaders;

/* Signals that the caller has blocked stay blocked in the readers; SIGUSR1 is theirs. */
SwReaders *sw_readers_start(struct fuse_session *session, SwServing *serving);
/* Has one of them found that the mount is gone? */
gboolean sw_readers_ended(SwReaders *readers);
/* Does one of them wait for the next request, or are there as many as there may be?  FALSE also while another looks. */
gboolean sw_readers_come_on(SwReaders *readers);
/* Waits until all have answered what they were at, and frees; the session has been told to exit. */
void sw_readers_stop(SwReaders *readers);

#endif
