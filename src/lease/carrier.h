/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_CARRIER_H
#define SW_CARRIER_H

/*
 * What stands for a file when programs lock it with flock(2) or fcntl(2) (C22; docs/protocol.md, rules K).
 *
 * A commit puts another inode at a name, so locks on the file itself would exclude nobody from the next version.  They
 * are taken on a carrier instead: carriers/<key>.<kind>, an empty file of the daemon's, one for each name and kind of
 * lock, on which this host has OFD locks.  These exclude as far as those of the source reach: all mounts of one
 * machine, and on NFS all its clients.  They end with the descriptor, and so with this daemon.
 *
 * A carrier that nobody needs any more is *retired*: it gets a size, by which whoever has it open knows, and is
 * unlinked.
 *
 * Results are 0 or -errno.  Functions act as the daemon and leave the thread so.  One carrier is used by one thread at
 * a time.
 */

#include "../core/bundle.h"
#include "../core/range_locks.h"
#include "control.h"

typedef enum {
    SW_CARRIER_FCNTL, /* fcntl(2) and OFD locks, byte for byte */
    SW_CARRIER_FLOCK, /* flock(2) */
} SwCarrierKind;

typedef struct SwCarrier SwCarrier;

/* The carrier of the name with that key (sw_lock_key), made if need be. */
int sw_carrier_open(SwControl *control, guint64 key, SwCarrierKind kind,
                    SwCarrier **ret_carrier) G_GNUC_WARN_UNUSED_RESULT;
/* Is there one of either kind?  Then some host has locked that name within its last seconds, or has it locked now. */
gboolean sw_carrier_is_used(SwControl *control, guint64 key);
/* Ends all locks that this host has on it.  NULL is allowed. */
void sw_carrier_close(SwCarrier *carrier);

/* For the daemon that follows: NULL, or a carrier with its descriptor, and so with all its locks. */
void sw_carrier_carry(SwControl *control, SwBundle *bundle, SwCarrier **carrier);

/* Gives this host the mode on those bytes of `range`; the rest of it does not matter.  -EAGAIN: another host has them.
 */
int sw_carrier_set(SwCarrier *carrier, const SwRangeLock *range) G_GNUC_WARN_UNUSED_RESULT;
/* To be asked after the first lock on it: does everybody else still use this one?  -ESTALE: it was retired. */
int sw_carrier_check(SwCarrier *carrier) G_GNUC_WARN_UNUSED_RESULT;
/* What another host has that `wanted` cannot stand beside: -EAGAIN, and start, end and mode of it; 0: nothing. */
int sw_carrier_test(SwCarrier *carrier, const SwRangeLock *wanted, SwRangeLock *ret_other) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Retires it.  Its file is `gone`: whoever has locks on it keeps them, and excludes nobody who locks a new file of that
 * name.  Else only if no host has a lock on it: -EAGAIN.
 */
int sw_carrier_retire(SwCarrier *carrier, gboolean gone);

/* Retires what hosts that died have left. */
void sw_carriers_sweep(SwControl *control);

#endif
