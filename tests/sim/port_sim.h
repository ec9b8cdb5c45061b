/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_PORT_SIM_H
#define SW_TEST_PORT_SIM_H

/*
 * A port for simulated hosts: files are those of a real directory, through the real port; clock, chance and processes
 * are made up; and any call can fail, be the last one, or let another host go first.
 *
 * Many hosts share one SimWorld (clock, chance, scheduler).  Each host has a port of its own, and a daemon that dies is
 * a port whose calls all fail with EIO from then on, and whose descriptors, and with them its locks, are gone.
 */

#include "../../src/port/port.h"
#include "baton.h"
#include "crowd.h"
#include "told.h"

typedef enum {
    SIM_NONE,
    SIM_FAIL,       /* it fails, nothing was done */
    SIM_LOST,       /* it was done, but reported as failed: the reply was lost */
    SIM_SHORT,      /* a write or copy does half of it; others are done */
    SIM_DIE_BEFORE, /* the host dies, nothing was done */
    SIM_DIE_AFTER,  /* the host dies, it was done */
    SIM_DIE_HALF,   /* the host dies, half of the write was done; others were done */
    SIM_PAUSE,      /* the next task goes first */
} SimFault;

const char *sim_fault_name(SimFault fault);

typedef struct {
    gint64 now_us;
    guint64 chance;  /* state of the random numbers */
    SimSched *sched; /* NULL: one host at a time */
    gint64 aged_us;  /* how far the source's clock is ahead */
    SimTold *told;   /* owned by whoever made the world */
    guint odds;      /* once in so many calls another task goes on; 0: only where a plan says so */

    /*
     * Many hosts, more than one task each: every call to the server takes time, and others go on meanwhile.  A host
     * that is frozen or cut off finds its calls delivered when that is over, whatever has happened since.
     */
    SimCrowd *crowd;
    gboolean faulty; /* some calls get stuck for long, some fail, some replies are lost */
    guint64 n_calls; /* that reached the server, or would have */
    /* What the server did: `released` of the host was removed by `by`, or its record's times set.  May be NULL. */
    void (*saw_fence)(gpointer data, SwPort *by, const char *host_id);
    void (*saw_beat)(gpointer data, const char *host_id);
    /* A file was made exclusively, so long after the call for it had been begun. */
    void (*saw_made)(gpointer data, SwPort *by, const char *name, gint64 took_us);
    gpointer saw_data;
} SimWorld;

guint64 sim_random(SimWorld *world);
/* From now on the source's clock is an hour ahead: what is there is old. */
void sim_age(SimWorld *world);

/* ---- processes, as the port shows them */

typedef struct {
    int number;
    ino_t ino;       /* as the kernel was last told */
    gboolean writes; /* open for writing */
    gpointer file;   /* the user's */
} SimDescriptor;

typedef struct {
    pid_t pid, ppid;
    gboolean exiting;
    gboolean gone;
    int status;  /* of an exiting one, as wait(2) has it */
    GArray *fds; /* of SimDescriptor */
} SimProcess;

typedef struct {
    GHashTable *by_pid; /* pid -> SimProcess, owned */
    pid_t last_pid;
} SimProcesses;

void sim_processes_init(SimProcesses *processes);
void sim_processes_clear(SimProcesses *processes);
SimProcess *sim_process_new(SimProcesses *processes, pid_t ppid);

/* ---- the port */

/* Which call is to go wrong, and how.  Calls are counted from 1 by sim_port_plan. */
typedef struct {
    SimFault fault;
    guint64 at;
    guint64 again; /* PAUSE also before this later call; 0: not */
    SimFault then; /* after a PAUSE: how the call ends that was late, NONE, LOST or DIE_AFTER */
    int error;     /* for FAIL and LOST; calls that cannot end so are not harmed */
    gboolean away; /* from there on all calls fail so: the server cannot be reached until the next plan */
} SimPlan;

/* `machine` tells boot ids apart: only hosts of one machine can see each other dead.  `processes` may be NULL. */
SwPort *sim_port_new(SimWorld *world, guint machine, SimProcesses *processes);
/* Starts counting at 0. */
void sim_port_plan(SwPort *port, const SimPlan *plan);
guint64 sim_port_calls(SwPort *port);
/* What each call since then could have suffered, to tell which plans are worth a run. */
GByteArray *sim_port_suffers(SwPort *port);
gboolean sim_plan_harms(const SimPlan *plan, const GByteArray *suffers);
/* Did the plan come to pass, and harm a call? */
gboolean sim_port_struck(SwPort *port);
/* The last call that the plan harmed, "member(name)"; "" before. */
const char *sim_port_struck_call(SwPort *port);
gboolean sim_port_is_dead(SwPort *port);
void sim_port_kill(SwPort *port);
/* From now on all calls fail so, for the server cannot be reached; 0: it can again. */
void sim_port_cut(SwPort *port, int error);
/* Of a crowd's host: its calls stop until then. */
void sim_port_freeze(SwPort *port, gint64 until_us);
/* Of a crowd's host: until then the server cannot be reached: calls wait, or with an `error` end so after a while. */
void sim_port_part(SwPort *port, gint64 until_us, int error);
/* How many of its calls failed or lost their reply by chance. */
guint sim_port_mishaps(SwPort *port);
guint64 sim_port_total(SwPort *port);
/* What kind of calls a crowd's host made since the counting began. */
typedef struct {
    guint64 looks, beats, lists; /* at others' records; of its own; of calls to list a directory */
    guint64 bytes;               /* that these listings returned */
} SimKinds;
void sim_port_watch_kinds(SwPort *port);
void sim_port_add_kinds(SwPort *port, SimKinds *kinds);
/* The wall clock jumps by so much (C23). */
void sim_port_jump(SwPort *port, gint64 us);
/* For a layer over the port to keep what it needs. */
gpointer *sim_port_layer(SwPort *port);
/* How far its clock is ahead of the world's (C23). */
void sim_port_set_clock(SwPort *port, gint64 ahead_us);
/* Descriptors that are open now. */
guint sim_port_open_fds(SwPort *port);
/* The last calls, a line each, for messages (g_free). */
char *sim_port_trace(SwPort *port);

#endif
