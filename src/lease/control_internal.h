/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_CONTROL_INTERNAL_H
#define SW_CONTROL_INTERNAL_H

/*
 * What the files of this directory share; nothing outside includes it.
 *
 * control.c        opening, the epoch, claims, leaving
 * control_check.c  is this control directory one we may trust and use?
 * predecessor.c    burying the dead: stages, stage directories, leases, record
 * salvage.c        entries: put, scan, trim
 */

#include "../core/base.h"
#include "control.h"

#define SW_HOSTS_MAX 10000  /* entries of hosts/ and leases/ that are looked at in one go */
#define SW_STAGES_MAX 10000 /* of one stage directory; the rest comes in the next round */

/* Suffix of the note beside a stage. */
#define SW_DESCRIPTION ".info"

/* A boot id that no kernel gives: of mounts that cannot be told dead by their record's lock. */
#define SW_NO_BOOT_ID "00000000-0000-0000-0000-000000000000"

struct SwControl {
    /* immutable after init */
    SwPort *port;
    int source;
    char *source_path; /* for people */
    gboolean root;     /* requests come with many fsuids */
    uid_t owner;       /* who owns what this daemon makes there, as the server says (root_squash) */
    char id[SW_HOST_ID_MAX + 1];
    char boot_id[37];
    guint64 salvage_max;
    gint64 salvage_age_us;
    int dir, hosts, leases, salvage;
    int own;      /* hosts/<id> */
    int record;   /* hosts/<id>/record, flocked */
    int released; /* hosts/<id>/released: what is taken away from others' reach comes here first */
    int stages[SW_STAGE_DIRS];

    /* atomic */
    gint sequence; /* of names made by this mount */
    gint trimming; /* somebody is at it */

    /* protected by lock */
    SwMutex lock;
    guint puts;        /* since the last trim */
    guint64 salvaged;  /* bytes found by the last trim, and put since */
    gint64 trimmed_us; /* when that was */
};

static inline void sw_fd_close(SwPort *port, int *fd)
{
    if (*fd >= 0)
        (void)port->close(port, *fd);
    *fd = -1;
}

/* ---- control_check.c */

/* -error; *ret_why becomes the sentence. */
int sw_refuse(char **ret_why, int error, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Names in a directory, "." and ".." left out, at most `max`; of char *, owned.  With `dirs_only` those are left out
 * that are certainly no directories. */
int sw_dir_names(SwPort *port, int dirfd, guint max, gboolean dirs_only,
                 GPtrArray **ret_names) G_GNUC_WARN_UNUSED_RESULT;
/* Opens a directory below `dirfd` for reading if it is one of `owner` that nobody else may write; -EPERM if not. */
int sw_open_trusted(SwPort *port, int dirfd, const char *name, uid_t owner) G_GNUC_WARN_UNUSED_RESULT;

int sw_check_above(SwControl *control, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;
int sw_check_below(SwControl *control, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;
/* Makes or finds .safewritefs, learns the owner, makes or finds the directories in it, checks the format. */
int sw_enter_control_dir(SwControl *control, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

/* ---- control.c */

/* A name that this mount has not given before: "<prefix><number>". */
char *sw_control_unique(SwControl *control, const char *prefix);
/* Text of the symbolic link `name`; -EINVAL if it is none, -EMSGSIZE if longer than any of ours. */
int sw_read_link(SwPort *port, int dirfd, const char *name, char **ret_text) G_GNUC_WARN_UNUSED_RESULT;
/* Opens directory `name` of the control directory anew, so that names below are looked up at the server (F12). */
int sw_open_fresh(SwControl *control, const char *name) G_GNUC_WARN_UNUSED_RESULT;

/* ---- predecessor.c */

/* Buries all dead mounts of this machine.  Errors are left for the next mount. */
void sw_bury_predecessors(SwControl *control);
/* Buries that host if it is a dead mount of this machine: 0; -EEXIST: lives, or nobody can tell; -ENOENT: gone. */
int sw_bury_if_dead(SwControl *control, const char *host_id) G_GNUC_WARN_UNUSED_RESULT;
/* Empties and removes stage directories and `released` of a host: from here on it can commit and release nothing. */
int sw_evacuate_host(SwControl *control, int host, const char *host_id, const char *reason) G_GNUC_WARN_UNUSED_RESULT;
/* Cuts off what a dead holder's append left torn.  Only failures that may pass are reported. */
int sw_undo_append(SwControl *control, const SwLeaseText *lease) G_GNUC_WARN_UNUSED_RESULT;
/* Takes leases/<name> out of reach and drops it.  The caller knows that it may. */
int sw_drop_lease(SwControl *control, const char *name);

/* ---- salvage.c */

/* Moves the regular file `name` of `dirfd` to salvage as what `host_id` left; removes it instead when empty. */
int sw_salvage_put(SwControl *control, int dirfd, const char *name, const char *host_id, const SwSalvageInfo *info,
                   const SwCred *cred);
/* Moves anything else out of a stage directory's way. */
int sw_salvage_junk(SwControl *control, int dirfd, const char *name) G_GNUC_WARN_UNUSED_RESULT;

#endif
