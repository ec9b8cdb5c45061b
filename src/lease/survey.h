/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_SURVEY_H
#define SW_SURVEY_H

/*
 * A look at a control directory by somebody who is no host of it, for people (safewritectl).
 *
 * Nothing is changed, but for a file that is made and removed to learn the server's present.  Whoever may list the
 * control directory may do this.  It is trusted as far as its owner is: what belongs to somebody else, is of another
 * type or malformed is passed over, nothing is followed, and no more names are looked at than a daemon looks at (P1).
 *
 * Ages are differences between two times of the server, so no host's clock is asked (C23); a negative one is not known.
 * Functions give 0 or -errno, act as the daemon (the user who runs this), and may be called from one thread at a time.
 */

#include "../core/record.h"
#include "../port/port.h"

typedef struct {
    SwPort *port; /* not owned */
    uid_t owner;  /* whose control directory it is */
    int dir;      /* .safewritefs */
    int hosts, leases, locks, salvage;
    char boot_id[37]; /* of this machine */
    gint64 now_us;    /* the server's present when it was opened; -1: no file can be made there */
    gboolean cut;     /* somewhere there were more names than are looked at */
} SwSurvey;

/* `source_fd` is the source's top.  -ENOENT: it has no control directory.  *ret_survey is to be cleared. */
int sw_survey_open(SwPort *port, int source_fd, SwSurvey *ret_survey) G_GNUC_WARN_UNUSED_RESULT;
void sw_survey_clear(SwSurvey *survey);

/* How a host looks from here.  The counter in its record's mtime (P18) is set each quarter of its lease. */
typedef enum {
    SW_HOST_ALIVE,  /* its last heartbeat is at most half its lease old, or was seen to come */
    SW_HOST_LATE,   /* it is older */
    SW_HOST_SILENT, /* it is older than 9/8 of its lease: others are about to break it, where there are any */
    SW_HOST_DEAD,   /* a mount of this machine whose record's lock is free (P7) */
    SW_HOST_GONE,   /* it has no directory: what it still holds binds nobody */
} SwHostState;

/* "alive", "late", ... */
const char *sw_host_state_name(SwHostState state);

typedef struct {
    char id[SW_HOST_ID_MAX + 1];
    gboolean has_record; /* one that can be believed; else the next is empty, but for a lease of 60 s */
    SwHostRecord record;
    gboolean here; /* a mount of this machine, and of this boot */
    SwHostState state;
    gint64 age_us;         /* of its last heartbeat */
    gboolean stages_known; /* else the next two are 0: we may not look into them */
    guint stages;
    guint64 stage_bytes;
} SwSurveyHost;

/*
 * All hosts, sorted by id.  Where the present is not known, the counters are watched for half of the longest lease (at
 * most 30 s), and ages stay unknown: one that changes tells of a host alive, the others are called late.
 */
int sw_survey_hosts(SwSurvey *survey, GPtrArray **ret_hosts) G_GNUC_WARN_UNUSED_RESULT;
/* Among those; NULL: it is gone. */
const SwSurveyHost *sw_survey_find(GPtrArray *hosts, const char *host_id);

/* A file that a host has staged. */
typedef struct {
    char *name; /* "<worker>/<name>" */
    uid_t uid;
    guint64 bytes;
    gint64 idle_us;     /* since its last change; negative: not known */
    SwSalvageInfo says; /* the note beside it; `path` is NULL where there is none */
} SwSurveyStage;

/* All stages of that host.  -EACCES and the like: who runs this may not look into them. */
int sw_survey_stages(SwSurvey *survey, const char *host_id, GPtrArray **ret_stages) G_GNUC_WARN_UNUSED_RESULT;

/* The counter of a host as it is now (P18); FALSE: it has no record that can be looked at. */
gboolean sw_survey_counter(const SwSurvey *survey, const char *host_id, guint64 *ret_counter);

/* A lease on a content, or a mark of somebody who breaks something. */
typedef struct {
    char *name; /* in leases/ or locks/ */
    gboolean is_mark;
    gboolean in_locks; /* a mark in locks/ */
    SwLeaseText says;
    gint64 age_us;
} SwSurveyLease;

/* What stands in leases/, and the marks in locks/. */
int sw_survey_leases(SwSurvey *survey, GPtrArray **ret_leases) G_GNUC_WARN_UNUSED_RESULT;

/* The record of an application's lock. */
typedef struct {
    char *name; /* in locks/ */
    SwLockText says;
    gint64 age_us;
} SwSurveyLock;

int sw_survey_locks(SwSurvey *survey, GPtrArray **ret_locks) G_GNUC_WARN_UNUSED_RESULT;

#endif
