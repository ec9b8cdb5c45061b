/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_KEEPING_H
#define SW_FUSE_KEEPING_H

/*
 * A thread for the keeper alone: whatever requests wait for, this host stays alive in the eyes of others, also while
 * the last commits of an unmount are under way.
 */

#include "../lease/keeper.h"

typedef struct SwKeeping SwKeeping;

/* Starts it; NULL when there can be no more threads.  It takes no signals. */
SwKeeping *sw_keeping_start(SwPort *port, SwKeeper *keeper);
/* From the return on no event comes any more; only the heartbeat goes on. */
void sw_keeping_retire(SwKeeping *keeping);
/* Ends it.  NULL is allowed. */
void sw_keeping_stop(SwKeeping *keeping);

#endif
