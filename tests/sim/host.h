/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_HOST_H
#define SW_TEST_HOST_H

/*
 * Simulated hosts, and programs on them: system calls in terms of the overlay, as the kernel would make them of them.
 *
 *   sim_open     LOOKUP (or the name cached), then OPEN or CREATE; on ESTALE once more with two LOOKUPs; then ESTALE
 *   sim_close    the number is free, FLUSH, and with the last reference RELEASE
 *   sim_exit     the same for all numbers, as an exiting process, with a wait status
 *
 * Results are 0, a descriptor or a count, or -errno as the program sees it.  All names are in the top directory.
 */

#include "../../src/overlay/overlay.h"
#include "port_sim.h"

/* A source directory, the clock, and what went wrong. */
typedef struct {
    SimWorld world;
    char path[64];
    int source;
    GString *complaints; /* empty while all is well */
} Sim;

Sim *sim_new(guint64 seed);
void sim_free(Sim *sim);
/* Remembers a broken invariant; tasks cannot assert, for they are threads. */
void sim_complain(Sim *sim, const char *format, ...) G_GNUC_PRINTF(2, 3);

typedef struct {
    Sim *sim;
    guint machine;
    SwPort *port;
    SwConfig config;
    SwControl *control;
    SwOverlay *overlay;
    SimProcesses processes;
    GHashTable *cache; /* name -> cached entry: what the kernel knows */
    GPtrArray *files;  /* of open file descriptions */
    guint n_opening;   /* opens under way: one may begin within another */
    GArray *owed;      /* of Cached: look-ups to be forgotten when none is, for they may use the nodes */
    gboolean verbose;
} SimHost;

/* A daemon that is not mounted yet. */
SimHost *sim_host_new(Sim *sim, guint machine);
int sim_host_mount(SimHost *host) G_GNUC_WARN_UNUSED_RESULT;
/* A new host that is mounted; NULL, after a complaint, when it cannot. */
SimHost *sim_host_mounted(Sim *sim, guint machine);
/* The periodic work, `us` later. */
void sim_host_tick(SimHost *host, gint64 us);
gboolean sim_host_is_dead(const SimHost *host);
/* Unmounts, or when it died only frees.  Programs' descriptors are gone. */
void sim_host_free(SimHost *host);

SimProcess *sim_program(SimHost *host);
/* As whom its only thread calls. */
SwCaller sim_caller(const SimProcess *process);
SimProcess *sim_fork(SimHost *host, SimProcess *parent);
/* `status` as wait(2) shows it: a signal, or an exit code << 8. */
void sim_exit(SimHost *host, SimProcess *process, int status);

int sim_open(SimHost *host, SimProcess *process, const char *name, int flags);
ssize_t sim_write(SimHost *host, SimProcess *process, int fd, const char *text);
ssize_t sim_pwrite(SimHost *host, SimProcess *process, int fd, const char *text, off_t offset);
/* All of it, from the beginning (g_free). */
int sim_read(SimHost *host, int fd, SimProcess *process, char **ret_text);
/* flock(2) of the whole file, without waiting. */
int sim_flock(SimHost *host, SimProcess *process, int fd, SwRangeMode mode);
int sim_fsync(SimHost *host, SimProcess *process, int fd);
int sim_close(SimHost *host, SimProcess *process, int fd);
int sim_rename(SimHost *host, SimProcess *process, const char *from, const char *to);
int sim_unlink(SimHost *host, SimProcess *process, const char *name);
int sim_mkdir(SimHost *host, SimProcess *process, const char *name);
int sim_rmdir(SimHost *host, SimProcess *process, const char *name);
int sim_symlink(SimHost *host, SimProcess *process, const char *target, const char *name);
int sim_link(SimHost *host, SimProcess *process, const char *from, const char *to);

/* open, write, close: 0 when all of it worked. */
int sim_put(SimHost *host, SimProcess *process, const char *name, int flags, const char *text);
/* Opens O_RDWR, writes at `offset`, closes. */
int sim_edit(SimHost *host, SimProcess *process, const char *name, const char *text, off_t offset);
/* The content as a new program sees it; *ret_text NULL when there is no such file. */
int sim_get(SimHost *host, const char *name, char **ret_text);

#endif
