/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_LOCKING_H
#define SW_FUSE_LOCKING_H

/*
 * A thread that serves those who wait for file locks: however many, they keep no other (F32).  It runs when something
 * was given back, when a request was interrupted, and for as long as another host has what is wanted.
 */

#include "../overlay/overlay.h"

typedef struct SwLocking SwLocking;

/* Starts it; NULL when there can be no more threads.  It takes no signals. */
SwLocking *sw_locking_start(SwPort *port, SwOverlay *overlay);
/* There is something to do.  Any thread. */
void sw_locking_kick(SwLocking *locking);
/* Between a pause and its end no step is made.  FALSE: one is still under way at `until_us` (CLOCK_MONOTONIC), and
 * there is no pause. */
gboolean sw_locking_pause(SwLocking *locking, gint64 until_us) G_GNUC_WARN_UNUSED_RESULT;
void sw_locking_go_on(SwLocking *locking);
/* Ends it, and all waits.  It may still be kicked.  NULL is allowed. */
void sw_locking_stop(SwLocking *locking);
void sw_locking_free(SwLocking *locking);

#endif
