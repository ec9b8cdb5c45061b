/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_CONTENT_LEASE_H
#define SW_CONTENT_LEASE_H

/*
 * The lease on one file's content, held while an edit is committed (C10) or a record appended (C11).
 *
 * It is keyed by the inode number of the file's current version, so that it follows the file through renames and hard
 * links; whoever finds, with the lease in hand, that the name leads to another inode by now lets go and takes that
 * one's.  It is a symbolic link leases/<key>, made exclusively, whose target names its holder; it is released by
 * renaming it into the holder's own directory, so that a late release of a fenced host fails at the server (F23).
 *
 * Within one mount holders queue on the key in memory, in order, so only one at a time competes on disk.  Between
 * mounts the loser polls: 0.2 ms, doubling to 20 ms.  A holder whose host directory is gone, or whose mount on this
 * machine is dead (its record's flock is free and the boot id ours), is broken on the spot: an append is ended on a
 * copy of the file first (docs/protocol.md, P14), so that the name leads to another inode afterwards.
 */

#include "../core/bundle.h"
#include "control.h"

typedef struct SwContentLeases SwContentLeases;
typedef struct SwContentLease SwContentLease;

SwContentLeases *sw_content_leases_new(SwPort *port, SwControl *control, int source_fd);
void sw_content_leases_free(SwContentLeases *leases);

/* For the daemon that follows; fails while anybody holds or wants one. */
void sw_content_leases_carry(SwContentLeases *leases, SwBundle *bundle);

/* How the previous holder ended, for the caller to act on. */
typedef enum { SW_PREDECESSOR_CLEAN, SW_PREDECESSOR_BROKEN } SwPredecessor;

/*
 * Takes the lease on `key`, waiting until `deadline_us` (port clock).  `intent` (may be NULL) is stored with it.
 * 0; -ETIMEDOUT; -ESTALE when this host has been fenced (its directory is gone); or the errno of the source.
 * `cancelled` (may be NULL) is polled and ends the wait with -EINTR.
 */
int sw_content_lease_take(SwContentLeases *leases, guint64 key, const SwLeaseText *intent, gint64 deadline_us,
                          gboolean (*cancelled)(gpointer), gpointer cancelled_data, SwContentLease **ret_lease,
                          SwPredecessor *ret_predecessor) G_GNUC_WARN_UNUSED_RESULT;

/* Stores another intent with a lease that is held (a fresh link renamed over it). */
int sw_content_lease_intend(SwContentLease *lease, const SwLeaseText *intent) G_GNUC_WARN_UNUSED_RESULT;

/*
 * To be asked right before a write that no server will refuse, as an append is one: may others have taken the lease
 * from us, because we were silent for too long?  0 or -ESTALE; when it is half of the lease time since the last
 * renewal, it renews first, and its errno.
 */
int sw_content_lease_confirm(SwContentLease *lease) G_GNUC_WARN_UNUSED_RESULT;

/* Releases and frees.  -ESTALE: it was not ours any more. */
int sw_content_lease_release(SwContentLease *lease);

#endif
