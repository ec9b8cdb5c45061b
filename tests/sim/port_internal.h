/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_PORT_INTERNAL_H
#define SW_TEST_PORT_INTERNAL_H

/* What port_sim.c and port_processes.c share. */

#include "port_sim.h"

typedef struct {
    SwPort base;
    SwPort *real; /* owned */
    SimWorld *world;
    SimProcesses *processes;
    guint machine;
    GHashTable *fds; /* set of open descriptors */
    int boot_fd;     /* the one that reads the boot id, or -1 */
    int cut;         /* the error of all calls, while the server cannot be reached; 0: it can */
    gint64 ahead_us; /* of its boot clock, to the world's */
    SimPlan plan;
    guint64 calls;
    gboolean struck, dead;
    char *struck_call; /* owned, or NULL */
    gint64 frozen_until, parted_until;
    int parted_error; /* 0: calls wait */
    guint mishaps;
    guint64 total;
    gint64 wall_us; /* its wall clock, to where it would be */
    gpointer layer;
    SimKinds kinds;
    GQueue trace;     /* of char *, owned */
    GByteArray *mays; /* what each call may suffer */
} SimPort;

void sim_port_bind_processes(SwPort *port);

#endif
