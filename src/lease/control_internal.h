/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_CONTROL_INTERNAL_H
#define SW_CONTROL_INTERNAL_H

/*
 * What the files of this directory share; nothing outside includes it.
 *
 * control.c        opening, claims, leaving
 * epoch.c          this mount's directory: claimed, kept alive, lost, claimed anew
 * control_check.c  is this control directory one we may trust and use?
 * predecessor.c    burying the dead: stages, stage directories, leases, record
 * last_append.c    what the append of a dead holder leaves
 * breaker.c        one breaker at a time: of a lease, of a host
 * left.c           what we put up for others to see, and could not take away
 * salvage.c        entries: put, scan, trim
 * carrier.c        what stands for a file when it is locked
 * carry.c          all of this, for the daemon that follows
 * old.c            what was replaced or removed, and is still read
 */

#include "../core/base.h"
#include "control.h"

#define SW_HOSTS_MAX 10000  /* entries of hosts/ and leases/ that are looked at in one go */
#define SW_STAGES_MAX 10000 /* of one stage directory; the rest comes in the next round */

/* Suffix of the note beside a stage. */
#define SW_DESCRIPTION ".info"
#define SW_LINK_SIZE 2048 /* longer than any target of ours */

/* Suffix of a copy that is being made among the stages: nothing of it is anybody's. */
#define SW_PART ".part"

/* Suffix of what stands in leases/ while somebody breaks what is named before it. */
#define SW_MARK ".break"

/* A boot id that no kernel gives: of mounts that cannot be told dead by their record's lock. */
#define SW_NO_BOOT_ID "00000000-0000-0000-0000-000000000000"

/* One life of this mount under one host id.  Kept open to the end: a late call fails at the server, not here. */
struct SwEpoch {
    /* immutable once it is the control's */
    char id[SW_HOST_ID_MAX + 1];
    int own;      /* hosts/<id> */
    int record;   /* hosts/<id>/record, flocked */
    int released; /* hosts/<id>/released: what is taken away from others' reach comes here first */
    int stages[SW_STAGE_DIRS];
    int old;        /* hosts/<id>/old/0: versions kept for those who still read them; -1 where that is not done */
    SwEpoch *older; /* the one before, or NULL */
};

struct SwControl {
    /* immutable after init */
    SwPort *port;
    int source;
    char *source_path; /* for people */
    gboolean root;     /* requests come with many fsuids */
    uid_t owner;       /* who owns what this daemon makes there, as the server says (root_squash) */
    char boot_id[37];
    gint64 lease_us;
    int dir, hosts, leases, locks, carriers, salvage;

    /* set before other threads know of the control */
    void (*want)(gpointer data, const char *host_id);
    gpointer want_data;
    SwNoteFunc note;
    gpointer note_data;

    /* atomic: sw_control_limit */
    gint64 salvage_max; /* bytes */
    gint64 salvage_age_us;
    gint64 copy_max;    /* bytes; what is larger is copied only where blocks can be shared */
    gint64 keep_old_us; /* 0: old versions are not kept, and never will be */

    /* atomic */
    SwEpoch *epoch;     /* owned, with its `older` ones; NULL only while the first is being claimed */
    gint rejoining;     /* somebody is at it */
    gint beats;         /* the counter in the record's mtime */
    gint beats_lost;    /* how many did not get through */
    gint64 beat_us;     /* when the last one that did was begun */
    gint64 source_us;   /* the source's time at one that did */
    guint64 source_dev; /* and its file system */
    gint64 proven_us;   /* the same, of one after which our epoch still stood: until then nobody has broken it */
    gint sequence;      /* of names made by this mount */
    gint trimming;      /* somebody is at it */

    /* of the thread that sweeps locks */
    struct timespec swept[2]; /* when `locks` and `hosts` had changed, at the last sweep */
    guint same_sweeps;        /* how many since have found them unchanged */

    /* protected by lock */
    SwMutex lock;
    guint puts;           /* since the last trim */
    guint64 salvaged;     /* bytes found by the last trim, and put since */
    gint64 trimmed_us;    /* when that was */
    GSList *left;         /* of ours that could not be taken away yet (left.c) */
    GHashTable *breaking; /* names of what threads of this mount are breaking */
    GPtrArray *unheard;   /* of SwKeptEvent, owned */
    GQueue kept;          /* of old.c, those that will be dropped first come first */
};

static inline gint64 sw_control_limit(const gint64 *limit)
{
    return __atomic_load_n(limit, __ATOMIC_RELAXED);
}

static inline void sw_fd_close(SwPort *port, int *fd)
{
    if (*fd >= 0)
        (void)port->close(port, *fd);
    *fd = -1;
}

/*
 * The present epoch.  Ask once, before the first look, and keep to it: what others have taken for dead has to stay
 * fenced in the middle of what it was doing, though another thread of it has rejoined meanwhile [P6] [P22].  Functions
 * that take things away are told in which epoch: `by`.
 */
static inline SwEpoch *sw_epoch_now(const SwControl *control)
{
    return __atomic_load_n(&control->epoch, __ATOMIC_ACQUIRE);
}

/* ---- control.c */

/* One that has nothing open. */
SwControl *sw_control_blank(SwPort *port, const char *source_path, const SwConfig *config);

/* ---- epoch.c */

/* One that has nothing open, and no id. */
SwEpoch *sw_epoch_blank(void);

/* A small text of the machine, without the end of its line; "" when there is none. */
void sw_read_machine_text(SwPort *port, const char *path, char *ret_text, size_t size);
/* Claims a new epoch and makes it the present one. */
int sw_epoch_claim(SwControl *control) G_GNUC_WARN_UNUSED_RESULT;
/* Removes what is left of its directory on disk once that has been evacuated. */
void sw_epoch_remove(SwControl *control, SwEpoch *epoch);
void sw_epoch_free(SwControl *control, SwEpoch *epoch);
/* 0: it stands; -ESTALE: others have begun to break it, `released` goes first; else nobody knows.  `fresh`: asked of
 * the server itself, past all caches; else as far as this machine knows, which over NFS is next to nothing, and costs
 * nothing. */
int sw_epoch_check(SwControl *control, const SwEpoch *epoch, gboolean fresh) G_GNUC_WARN_UNUSED_RESULT;
/* -ESTALE, that is. */
gboolean sw_epoch_is_fenced(SwControl *control, const SwEpoch *epoch, gboolean fresh);
/* The heartbeat: one SETATTR.  Failures are counted in `beats_lost`. */
int sw_control_beat(SwControl *control) G_GNUC_WARN_UNUSED_RESULT;
/* A heartbeat, and then a look whether that epoch still stands: -ESTALE if not.  A host that wakes up may renew a
 * record that others have left behind; only both together prove that it still lives for them (P23). */
int sw_control_renew(SwControl *control, const SwEpoch *epoch) G_GNUC_WARN_UNUSED_RESULT;
/* For loops that may take long, whichever thread they are in. */
void sw_control_beat_if_due(SwControl *control);
gint64 sw_control_beat_interval(const SwControl *control);

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

/* Tells people.  One sentence, without an end. */
void sw_warn(SwControl *control, const char *format, ...) G_GNUC_PRINTF(2, 3);
void sw_tell_event(SwControl *control, SwNoteLevel level, const SwEvent *event, const char *format, ...)
    G_GNUC_PRINTF(4, 5);

/* What was taken among our stages as `taken` goes back to its name; to salvage, if that has been taken meanwhile.
 * -EEXIST. */
int sw_put_back(SwControl *control, int dirfd, const char *name, int stage, const char *taken, const SwCred *cred);

/* ---- predecessor.c */

/* Buries all dead mounts of this machine.  Errors are left for the next mount. */
void sw_bury_predecessors(SwControl *control);
/* Buries that host if it is a dead mount of this machine: 0; -EEXIST: lives, or nobody can tell; -ENOENT: gone. */
int sw_bury_if_dead(SwControl *control, const char *host_id) G_GNUC_WARN_UNUSED_RESULT;
/* Empties and removes `released` and stage directories of a host: from here on it can commit and release nothing. */
int sw_fence(SwControl *control, int host, const char *host_id, const char *reason) G_GNUC_WARN_UNUSED_RESULT;
/* An epoch of ours ends, and its record is closed.  Not if it is `idle`, never having held anything: its locks first.
 */
int sw_leave(SwControl *control, SwEpoch *epoch, gboolean idle) G_GNUC_WARN_UNUSED_RESULT;

/* Drops what hosts that are gone have left in leases/: calls of theirs that came late. */
void sw_sweep_leases(SwControl *control);
/* Buries that host, whoever knows that it is dead; only under the mark of sw_breaking_begin, and looked at after that:
 * it still has to be there. */
int sw_bury(SwControl *control, const SwEpoch *by, int host, const char *host_id,
            const char *reason) G_GNUC_WARN_UNUSED_RESULT;
/* Is it a mount of this machine that is dead? */
gboolean sw_is_dead_here(SwControl *control, const char *host_id);
/* The record of a host: -EBADMSG unless it is one of the expected owner. */
int sw_read_record(SwControl *control, int fd, SwHostRecord *ret_record) G_GNUC_WARN_UNUSED_RESULT;

/* The note its owner left beside a stage (sw_control_describe), if it is one; *ret_info is to be cleared. */
gboolean sw_stage_note(SwPort *port, int dirfd, const char *note, uid_t owner, SwSalvageInfo *ret_info);

/* ---- last_append.c */

/*
 * Cuts off what a dead holder's append left torn, and puts a copy of the file in its place, so that a write of that
 * holder which arrives late finds a file without a name.  Where no copy can be made it says so
 * (sw_control_on_warning).  Only failures that may pass are reported, and -ESTALE when we have been fenced.
 */
int sw_end_append(SwControl *control, const SwLeaseText *intent) G_GNUC_WARN_UNUSED_RESULT;

/* ---- breaker.c */

/* Where links are that others may have to end, and the marks beside them. */
typedef enum { SW_IN_LEASES, SW_IN_LOCKS } SwPlace;

/* What that link says at the server; "" for what is no link of ours. */
int sw_read_fresh(SwControl *control, SwPlace place, const char *name, char **ret_text) G_GNUC_WARN_UNUSED_RESULT;
/* Takes the link out of reach and drops it.  The caller knows that it may. */
int sw_drop_link(SwControl *control, const SwEpoch *by, SwPlace place, const char *name);
/*
 * The heartbeat of the host whose directory is `host`, asked of the server; 0 when it has no record.  -ENOENT: the host
 * is gone; -EEXIST: its record is none that we believe.
 */
int sw_host_counter(SwControl *control, int host, guint64 *ret_counter) G_GNUC_WARN_UNUSED_RESULT;
/* Makes <name>.break ours until the end; -EAGAIN while it is another's. */
int sw_breaking_begin(SwControl *control, const SwEpoch *by, SwPlace place, const char *name) G_GNUC_WARN_UNUSED_RESULT;
void sw_breaking_end(SwControl *control, const SwEpoch *by, SwPlace place, const char *name);
/* What sw_breaking_end does; only between sw_breaking_enter and sw_breaking_leave. */
int sw_remove_mark(SwControl *control, const SwEpoch *by, SwPlace place, const char *name) G_GNUC_WARN_UNUSED_RESULT;
/* Keeps other threads of this mount from ending what has that name, with or without a mark.  FALSE: one is at it. */
gboolean sw_breaking_enter(SwControl *control, SwPlace place, const char *name) G_GNUC_WARN_UNUSED_RESULT;
void sw_breaking_leave(SwControl *control, SwPlace place, const char *name);
/* Drops the mark of that name if whoever made it can do nothing any more. */
void sw_sweep_mark(SwControl *control, const SwEpoch *by, SwPlace place, const char *mark);
/* Ends the hold that `judged` tells of.  0; -ENOENT: something else stands there now; -EAGAIN: look again later. */
int sw_break_lease(SwControl *control, const SwEpoch *by, const char *name,
                   const char *judged) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Fences and buries a host that was silent for its lease, if its heartbeat still is `counter`: -EEXIST if not, -EAGAIN
 * while another does.  Not `alone`: only fences it, which any number may do at once; for a host whose breaker is silent
 * as well.
 */
int sw_break_host(SwControl *control, const char *host_id, guint64 counter, gboolean alone) G_GNUC_WARN_UNUSED_RESULT;

/* ---- left.c */

/*
 * A link of that name may stand there that says `text`, made in `epoch`, or with NULL its mark, and nobody will come
 * back to take it away: sw_left_retry will.
 */
void sw_leave_behind(SwControl *control, const SwEpoch *epoch, SwPlace place, const char *name, const char *text);
/* Takes it away, if it is still that one.  0: it stands there no more; -EAGAIN: another thread is at that name. */
int sw_take_back(SwControl *control, const SwEpoch *epoch, SwPlace place, const char *name,
                 const char *text) G_GNUC_WARN_UNUSED_RESULT;
/* By the keeper, with each beat. */
void sw_left_retry(SwControl *control);
/* The mount ends: others find that the maker of what is left is gone. */
void sw_left_forget(SwControl *control);

/* ---- salvage.c */

/* Moves the regular file `name` of `dirfd` to salvage as what `host_id` left; removes it instead when empty. */
int sw_salvage_put(SwControl *control, int dirfd, const char *name, const char *host_id, const SwSalvageInfo *info,
                   const SwCred *cred);
/* Moves anything else out of a stage directory's way. */
int sw_salvage_junk(SwControl *control, int dirfd, const char *name) G_GNUC_WARN_UNUSED_RESULT;
/* Keeps it there, as what `host_id` left, until it is old. */
int sw_salvage_keep_junk(SwControl *control, int dirfd, const char *name,
                         const char *host_id) G_GNUC_WARN_UNUSED_RESULT;

#endif
