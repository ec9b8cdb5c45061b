/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_SERVER_INTERNAL_H
#define SW_FUSE_SERVER_INTERNAL_H

#include "../core/base.h"
#include "../core/bundle.h"
#include "config.h"
#include "greeting.h"
#include "locking.h"
#include "readers.h"
#include "server.h"
#include "uring.h"
#include "workers.h"

#include <fuse_lowlevel.h>

/* What an older libfuse does not know, it never offers. */
#ifndef FUSE_CAP_OVER_IO_URING
#define FUSE_CAP_OVER_IO_URING 0
#endif

struct SwServer {
    SwServerSetup setup;
    SwPort *port;
    SwOverlay *overlay;
    struct fuse_session *session;
    SwReaders *readers; /* while it runs */
    SwServing *serving;
    SwWorkers *workers;
    SwLocking *locking;
    gboolean privileged; /* the daemon is root and acts as its callers */
    gboolean mounted;
    gboolean is_own_mount; /* libfuse does not know of it: it took the place of a dead one */
    gboolean covers_dead;  /* which is still beneath it */
    SwGreeting greeting;
    gboolean wants_uring;
    SwUring *uring;     /* atomic, by sw_server_uring; NULL: requests come from /dev/fuse */
    SwMutex ticking;    /* held over a tick, and over a pause */
    GPtrArray *waiting; /* of one that follows: requests to be served anew (GByteArray, owned) */
    gint greeted;       /* atomic: INIT came */
    gint stop;          /* atomic: the ticker shall end */
};

extern const struct fuse_lowlevel_ops sw_fuse_ops;

/* Other threads run when it is made. */
static inline SwUring *sw_server_uring(SwServer *server)
{
    return g_atomic_pointer_get(&server->uring);
}

/* ---- transport.c */
/* Before the kernel is greeted: what libfuse writes goes where its request came from. */
void sw_server_direct_answers(SwServer *server);
/* The kernel's greeting. */
void sw_server_greet(SwServer *server, const struct fuse_buf *buf);
/* Answers with EINTR what hangs elsewhere, for sw_serving_let_go. */
void sw_server_let_go(gpointer server, guint64 unique);

/* ---- pausing.c */
/* *ret_device is /dev/fuse as it is open. */
void sw_server_carry_state(SwServer *server, SwBundle *bundle, int *ret_device);

/* A request that is a FUSE_TMPFILE in disguise of a FUSE_CREATE carries this name (readers.c). */
#define SW_TMPFILE_NAME ".safewritefs-tmpfile"

#endif
