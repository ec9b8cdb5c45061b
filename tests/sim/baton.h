/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_BATON_H
#define SW_TEST_BATON_H

/*
 * Several tasks in one process of which exactly one runs at a time, so that a run can be repeated.
 *
 * Each task has a thread, and there is one baton.  It changes hands only where a task passes it (the simulated port
 * does, at its calls and sleeps) or ends.  A task may hold locks of its own host while others run; so there is at most
 * one task for each host.
 */

#include "../../src/core/base.h"

#define SIM_TASKS_MAX 8

typedef struct SimSched SimSched;

typedef struct {
    void (*run)(gpointer data);
    gpointer data;
} SimTask;

SimSched *sim_sched_new(const SimTask *tasks, guint n);
/* Runs all to their end, beginning with the first. */
void sim_sched_run(SimSched *sched);
/* Hands the baton to that task, unless it has ended, or to the one after the caller (-1); returns with the baton. */
void sim_sched_pass(SimSched *sched, int to);
guint sim_sched_count(const SimSched *sched);
void sim_sched_free(SimSched *sched);

#endif
