/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_HISTORY_H
#define SW_TEST_HISTORY_H

/*
 * What was written to some registers, and whether what was read can be: close-to-open, with each value written once.
 *
 * A register is a whole file, a piece of one, or a record of a log.  A read may return a value whose write had begun
 * before the read ended, unless another write, begun after that one had ended, had ended before the read began.
 */

#include <glib.h>

typedef enum {
    SIM_DONE,   /* reported as done: others see it from its end on */
    SIM_FAILED, /* reported as failed: nobody may ever see it */
    SIM_UNSURE, /* the writer never learnt: it may have happened at any time since its beginning */
} SimEnd;

typedef struct SimHistory SimHistory;

SimHistory *sim_history_new(void);
void sim_history_free(SimHistory *history);
/* A point in time, later than all before. */
gint64 sim_history_now(SimHistory *history);
/* `value` NULL: the register was removed. */
guint sim_history_begin(SimHistory *history, const char *name, const char *value);
void sim_history_end(SimHistory *history, guint write, SimEnd end);
/* May a read of `name` that began at `since` and ends now have returned `value`?  NULL if so, else why not (g_free). */
char *sim_history_refute(SimHistory *history, const char *name, const char *value, gint64 since);

#endif
