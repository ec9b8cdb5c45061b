/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_WORKERS_H
#define SW_FUSE_WORKERS_H

/*
 * Threads for calls that may be kept waiting.  They are made as needed up to a limit, and end when idle.
 */

#include <glib.h>

typedef struct SwWorkers SwWorkers;

SwWorkers *sw_workers_new(guint max_threads);
/* Runs `func(data)` soon, in some thread. */
void sw_workers_push(SwWorkers *workers, void (*func)(gpointer data), gpointer data);
/* Waits until nothing is left to do, or `until_us` (CLOCK_MONOTONIC): how much there is. */
guint sw_workers_drain(SwWorkers *workers, gint64 until_us);
/* Waits for all that was pushed. */
void sw_workers_free(SwWorkers *workers);

#endif
