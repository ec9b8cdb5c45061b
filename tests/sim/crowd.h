/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_CROWD_H
#define SW_TEST_CROWD_H

/*
 * Hundreds of tasks on one virtual clock, of which exactly one runs at a time.
 *
 * A task waits for a moment of the clock; the one whose moment is next goes on, and the clock with it.  So the order is
 * that of the moments, which chance made up, and a run can be repeated.  A task may hold locks of its host while it
 * waits, as a thread may that waits for the server; so no two tasks of a host may use a lock that is held over calls.
 */

#include <glib.h>

typedef struct SimCrowd SimCrowd;

/* `now_us` is the clock, and belongs to the caller. */
SimCrowd *sim_crowd_new(gint64 *now_us);
void sim_crowd_add(SimCrowd *crowd, void (*run)(gpointer data), gpointer data);
/* Runs all to their end. */
void sim_crowd_run(SimCrowd *crowd);
/* Goes on at that moment, if it is not past. */
void sim_crowd_wait(SimCrowd *crowd, gint64 until_us);
void sim_crowd_free(SimCrowd *crowd);

#endif
