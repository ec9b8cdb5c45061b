/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_DAEMON_H
#define SW_DAEMON_H

/* The parts of one daemon, shared by main.c, which puts them together, and upgrade.c, which hands them on. */

#include "core/base.h"
#include "core/metrics.h"
#include "fuse/keeping.h"
#include "fuse/sentry.h"
#include "fuse/server.h"
#include "lease/control.h"
#include "lease/keeper.h"
#include "notify.h"
#include "options.h"
#include "overlay/overlay.h"
#include "port/port.h"

/* mount(8): "mount failure".  Also for options that are no good: no file system is mounted, for that reason. */
enum { SW_EXIT_MOUNT = 32 };

typedef struct {
    SwOptions options;
    int place_fd; /* the source, O_PATH: what its name led to before anything was mounted */
    SwPort *port;
    int source_fd;
    SwControl *control;
    SwKeeper *keeper;
    SwKeeping *keeping;
    SwSentry *sentry;
    SwOverlay *overlay;
    SwServer *server;
    SwMetrics metrics;
    int parent_fd;     /* where the parent waits, or -1 */
    int supervisor_fd; /* for sw_supervisor_tell, or -1 */
    SwAlive alive;
    gint64 paused_us; /* of one that follows: since when nobody was served (CLOCK_MONOTONIC); else 0 */
    gint64 waited_us; /* and for how long */
    /* The settings in force, of which `options` has those that it was mounted with. */
    SwMutex changing;
    SwConfig *config; /* protected by changing */
    GSList *configs;  /* protected by changing: all there were since, for some thread may still look at one (owned) */
    GPtrArray *remounted; /* protected by changing: options that were changed, as given (char *, owned); or NULL */
    char *upgrade_to;     /* protected by changing: the program that is to go on, or NULL */
    char *upgrade_said;   /* protected by changing: how the last upgrade ended, as an answer (core/ask.h), or NULL */
} SwDaemon;

/* ---- main.c */

/* As a daemon that is not to be mounted first: limits and rights of the process. */
void sw_daemon_prepare(void);
/* With the port that there is: what it needs to know of the source. */
void sw_daemon_open_port(SwDaemon *daemon);
void sw_daemon_setup(SwDaemon *daemon, const char *fuse_options, SwServerSetup *ret_setup);
char *sw_daemon_fuse_options(const SwDaemon *daemon);
SwKeeper *sw_daemon_new_keeper(SwDaemon *daemon);
void sw_daemon_note(gpointer data, SwNoteLevel level, const SwEvent *event, const char *text);
void sw_daemon_warn(gpointer data, const char *text);

#endif
