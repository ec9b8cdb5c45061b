/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_SCENARIO_H
#define SW_TEST_SCENARIO_H

/*
 * A scenario is what programs do on host A, with host B looking on or joining in; it says which contents its name may
 * have in the end.  test_faults.c runs each with every call of A going wrong in every way.
 */

#include "host.h"

#define SIM_NAME "data.bin"   /* the name that scenarios are about */
#define SIM_OTHER "other.bin" /* where it may come from */
#define SIM_PRIVATE "out.thread-1-pid-2"

typedef struct {
    Sim *sim;
    SimHost *a, *b;
    SimFault fault;
    char *old;          /* owned: what the name has now; NULL: it does not exist */
    GPtrArray *allowed; /* of char *, owned: what it may have in the end; "" stands for an empty file */
    gboolean may_lack;  /* it may not exist */
    const char *synced; /* bytes whose fsync succeeded */
    GPtrArray *records; /* of appends reported as done, owned */
    GPtrArray *unsure;  /* of appends whose end the program did not learn, owned */
    gboolean appends;   /* then not `allowed` counts, but records */
    int (*symlinkat)(SwPort *port, const char *target, int dirfd, const char *name); /* A's, while it is replaced */
} SimRun;

typedef struct {
    const char *name;  /* with the rules that it is about */
    const char *old;   /* content before, NULL: none */
    gboolean to_mount; /* it is A's mount that goes wrong, and nothing is done after */
    void (*act)(SimRun *run);
} SimScenario;

extern const SimScenario sim_scenarios[];
extern const guint sim_n_scenarios;

#endif
