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
/* Between a pause and its end there is no heartbeat.  FALSE: a step is still under way at `until_us` (CLOCK_MONOTONIC),
 * and there is no pause. */
gboolean sw_keeping_pause(SwKeeping *keeping, gint64 until_us) G_GNUC_WARN_UNUSED_RESULT;
void sw_keeping_go_on(SwKeeping *keeping);
/* From the return on no event comes any more; only the heartbeat goes on. */
void sw_keeping_retire(SwKeeping *keeping);
/* Ends it.  NULL is allowed. */
void sw_keeping_stop(SwKeeping *keeping);

#endif
