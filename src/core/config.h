/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_CONFIG_H
#define SW_CONFIG_H

/*
 * The settings of one mount, as values.  Where they come from (command line, fstab, /etc/safewritefs.conf) is the
 * business of `options`; what they mean is said here, once.  Plain data, owned by whoever holds the struct.
 */

#include "policy.h"

#include <glib.h>

typedef enum { SW_FSYNC_STAGE, SW_FSYNC_PUBLISH } SwFsyncMode;   /* C7 */
typedef enum { SW_ON_KILL_SALVAGE, SW_ON_KILL_COMMIT } SwOnKill; /* C4 */
typedef enum { SW_SYNC_AUTO, SW_SYNC_ALWAYS, SW_SYNC_NEVER } SwCommitSync;
typedef enum { SW_RESTART_YES, SW_RESTART_NO } SwRestart;
typedef enum { SW_KEEP_AUTO, SW_KEEP_ALWAYS, SW_KEEP_NEVER } SwKeep;
typedef enum { SW_PASSTHROUGH_AUTO, SW_PASSTHROUGH_OFF } SwPassthrough;
typedef enum { SW_URING_AUTO, SW_URING_OFF } SwUringUse;

typedef struct {
    SwPolicy policy;           /* through=, stream=, private=, locks= (C16, C18, C25) */
    gint64 append_interval_us; /* append-interval=, default 1 s (C11) */
    gint64 attr_cache_us;      /* attr-cache=, default 1 s; 0 = strict (C2) */
    gint64 lease_us;           /* lease=, default 20 s, at least 2 s */
    guint64 edit_copy_max;     /* edit-copy-max=, default 1 GiB (C10) */
    guint64 salvage_max;       /* salvage-max=, default 1 GiB; the oldest entries go first */
    gint64 salvage_age_us;     /* salvage-age=, default 7 days */
    SwFsyncMode fsync;         /* fsync=stage|publish */
    SwOnKill on_kill;          /* on-kill=salvage|commit */
    SwCommitSync commit_sync;  /* commit-sync=auto|always|never: fsync each stage before its rename; auto: on network
                                  file systems */
    SwKeep keep;        /* keep=auto|always|never: keep old versions for those who still read them; auto: where the
                           server does not (NFSv3) */
    gint64 keep_old_us; /* keep-old=, default 60 s: for how long (C1) */
    SwPassthrough passthrough; /* passthrough=auto|off: whether the kernel may read large files by itself */
    SwUringUse uring;          /* io-uring=auto|off: whether requests come through io_uring */
    char *require_fstype;      /* require-fstype=, owned: "nfs:nfs4", what the source may lie in; NULL for anything */
    gint64 wait_source_us;     /* wait-source=, default 30 s: how long is waited until it does */
    SwRestart restart;         /* restart=yes|no: whether a daemon in the background that crashed is started again */
    gboolean read_only;        /* ro */
} SwConfig;

/* By this attribute of its root a mount tells whether it passes anything through: "used", or "not used: " and why. */
#define SW_PASSTHROUGH_XATTR "user.safewritefs.passthrough"
/* By this one whether its requests come through io_uring, likewise. */
#define SW_URING_XATTR "user.safewritefs.io-uring"

/* Fills in the defaults. */
void sw_config_init(SwConfig *config);
void sw_config_clear(SwConfig *config);

/* Checks relations between fields.  NULL when sound, else a sentence for people (free with g_free). */
char *sw_config_complaint(const SwConfig *config);

#endif
