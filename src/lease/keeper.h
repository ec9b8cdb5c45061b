/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_KEEPER_H
#define SW_KEEPER_H

/*
 * Keeps this host alive in the eyes of others, and watches some of them (docs/protocol.md, P18 to P22).
 *
 *   renewal   each lease/4 the heartbeat; then, is our epoch still there?  If not, another one is claimed
 *   watching  the next 3 hosts of the ring, more where those are silent, and whoever somebody here waits for
 *   breaking  a host that was silent for its own lease, as we saw it; a dead mount of this machine at once
 *
 * Threading: step and retire from one thread at a time; want from any.  Events are called by the thread that steps.
 * Every call may block as long as the source does.
 */

#include "control.h"

typedef enum {
    SW_KEEPER_REJOINED, /* we had been taken for dead, and go on as another host: sw_overlay_fenced; `host_id` is new */
    SW_KEEPER_LOST,     /* the same, but there is no other epoch yet; it is tried again.  `error` says why */
    SW_KEEPER_BROKE,    /* `host_id` was silent for its lease; what it had staged is in salvage */
    SW_KEEPER_BURIED,   /* `host_id` was a dead mount of this machine */
} SwKeeperWhat;

typedef struct {
    void (*happened)(gpointer data, SwKeeperWhat what, const char *host_id, int error);
    gpointer data;
} SwKeeperEvents;

typedef struct SwKeeper SwKeeper;

/* `control` and `port` outlive it.  It listens to sw_control_want from now on. */
SwKeeper *sw_keeper_new(SwPort *port, SwControl *control, gint64 ttl_us, const SwKeeperEvents *events);
/* NULL is allowed. */
void sw_keeper_free(SwKeeper *keeper);

/*
 * Does what is due, which is nothing when called too early.  Returns when to call again (port clock); a want may come
 * before that, so call at least every 250 ms.
 */
gint64 sw_keeper_step(SwKeeper *keeper);

/* That host is watched for the next few seconds, wherever it is in the ring. */
void sw_keeper_want(SwKeeper *keeper, const char *host_id);

/* From now on only the heartbeat is kept up: the mount is coming to its end. */
void sw_keeper_retire(SwKeeper *keeper);

#endif
