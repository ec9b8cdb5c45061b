/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_CONTROL_H
#define SW_CONTROL_H

/*
 * The control directory (C26) and this mount's place in it.
 *
 *   .safewritefs/format                      "safewritefs 1"
 *   .safewritefs/hosts/<id>/record           who we are; flock(2)ed while we live
 *   .safewritefs/hosts/<id>/stage/<w>/<seq>  staged files; the directory is the fencing token
 *   .safewritefs/hosts/<id>/old/0/<seq>      versions that were replaced or removed, for those who still read them
 * (old.h) .safewritefs/hosts/<id>/released/        where a lease goes when it is released (one RENAME, fenced: F23)
 *   .safewritefs/leases/<key>                leases on contents, symbolic links
 *   .safewritefs/locks/<key>                 records of applications' locks, symbolic links
 *   .safewritefs/carriers/<key>.<kind>       what stands for a file when it is locked (carrier.h)
 *   .safewritefs/salvage/<entry>.data|.info
 *
 * All access goes through descriptors opened once, below which nothing is followed; entries that are not of the
 * expected type and owner are ignored (or, for the control directory itself, refused with the reason).
 *
 * Threading: everything but open and close may be called from any thread.  Functions act as the daemon itself
 * (`become(NULL)`) unless they say otherwise and leave the thread so.
 */

#include "../core/bundle.h"
#include "../core/config.h"
#include "../core/event.h"
#include "../core/record.h"
#include "../port/port.h"

#define SW_STAGE_DIRS 8

typedef struct SwControl SwControl;

/*
 * One life of this mount under one host id.  When others have taken it for dead, it goes on under a new one (C21); what
 * was made in the old one can then neither be committed nor released.  Lives as long as the control.
 */
typedef struct SwEpoch SwEpoch;

/*
 * Finds or makes the control directory of the directory `source_fd` (known to people as `source_path`), refuses a
 * foreign or forged one, one above or below, an unknown format; claims an epoch; cleans up after dead mounts of this
 * machine (record flock free and same boot id): leases undone, stages to salvage, directories removed.
 * On failure -errno, and *ret_why is a sentence that names what and where (g_free).
 */
int sw_control_open(SwPort *port, int source_fd, const char *source_path, const SwConfig *config,
                    SwControl **ret_control, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

/*
 * For a daemon that follows this one as the same host (core/bundle.h): stores what there is, and changes nothing; no
 * other call may be running.
 */
void sw_control_carry(SwControl *control, SwBundle *bundle);
/* As sw_control_open, of what was stored, without a call that changes the source.  If the bundle has failed, the
 * process is to end without a further call. */
SwControl *sw_control_resume(SwPort *port, const char *source_path, const SwConfig *config, SwBundle *bundle);
/* One of the control's epochs, or NULL. */
void sw_epoch_carry(SwControl *control, SwBundle *bundle, SwEpoch **epoch);

/* Other bounds from now on: salvage-max, salvage-age, edit-copy-max, and keep-old where old versions are kept. */
void sw_control_set_limits(SwControl *control, const SwConfig *config);

/* Leaves: what is still staged goes to salvage (reason "unmounted"), then our directory goes.  NULL is allowed.  0; or
 * why the directory stays, which the next mount of this machine removes. */
int sw_control_close(SwControl *control);

/* The present epoch; any thread may see it replaced by another at any time. */
SwEpoch *sw_control_epoch(const SwControl *control);
const char *sw_epoch_host_id(const SwEpoch *epoch);
/* Directory descriptor of stage directory `worker` (0 .. SW_STAGE_DIRS - 1); the epoch keeps it. */
int sw_epoch_stage_dir(const SwEpoch *epoch, guint worker);

/* Both of the present epoch. */
const char *sw_control_host_id(const SwControl *control);
int sw_control_stage_dir(const SwControl *control, guint worker);
int sw_control_dir(SwControl *control); /* of .safewritefs itself */

/*
 * Moves stage `name` of directory `worker` of that epoch to salvage, with `info` (host_id, wall_us and size are filled
 * in here).
 * Acts as `cred` (the owner of the bytes) for the files it makes.  Keeps salvage within its bounds.  An empty stage
 * is removed instead.  On failure the stage stays where it is.
 */
int sw_control_salvage(SwControl *control, const SwEpoch *epoch, guint worker, const char *name,
                       const SwSalvageInfo *info, const SwCred *cred) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Leaves a note beside stage `name` of what it holds, for whoever finds it after a crash: its path above all.  As
 * `cred`.  To be forgotten before the stage is committed; sw_control_salvage does so by itself.
 */
int sw_control_describe(SwControl *control, const SwEpoch *epoch, guint worker, const char *name,
                        const SwSalvageInfo *info, const SwCred *cred) G_GNUC_WARN_UNUSED_RESULT;
void sw_control_forget_description(SwControl *control, const SwEpoch *epoch, guint worker, const char *name,
                                   const SwCred *cred);

/* Drops what salvage holds over its bounds in size and age, oldest first. */
void sw_control_trim_salvage(SwControl *control);

/*
 * Goes on under a new host id if `lost` is still the present epoch and others have removed it.  0: there is another one
 * now; -EEXIST: `lost` is as good as ever; -EAGAIN: another thread is at it; else why it cannot be made.
 */
int sw_control_rejoin(SwControl *control, const SwEpoch *lost) G_GNUC_WARN_UNUSED_RESULT;

/*
 * The epoch in which something new is to be held: not one that others have removed while this host was silent, for in
 * that one nothing more can be done.  It is proven as sw_control_confirm has it, and rejoined under another if lost.
 * 0, -ESTALE while it cannot be, or why not.
 */
int sw_control_epoch_to_hold(SwControl *control, SwEpoch **ret_epoch) G_GNUC_WARN_UNUSED_RESULT;

/*
 * May this host still write in place what it holds in that epoch (C21)?  Servers do not refuse such a write: the host
 * itself stops, half a lease after its last renewal, unless it can renew now.  0, -ESTALE or why it cannot.
 */
int sw_control_confirm(SwControl *control, const SwEpoch *epoch) G_GNUC_WARN_UNUSED_RESULT;

/* When the last heartbeat that got through was begun (port clock); by any thread. */
gint64 sw_control_beat_us(const SwControl *control);
/*
 * The own time of the source's file system, which is `dev`, at the last heartbeat that got through: a ctime there, in
 * microseconds.  What changes there later is given this or a later one, unless its clock is set back.  0: not known, or
 * another file system, which may have another clock.  By any thread.
 */
gint64 sw_control_source_us(const SwControl *control, dev_t dev);

/*
 * Whoever waits for something that another host holds says so each time it looks, at least once in 100 ms or so: that
 * host is then watched, and broken when it is dead.  `want` is called by any thread; it is set once, before there are
 * others (keeper.h).
 */
void sw_control_want(SwControl *control, const char *host_id);
void sw_control_on_wait(SwControl *control, void (*want)(gpointer data, const char *host_id), gpointer data);

/*
 * Whom to tell what people should know; by any thread.  Set once, before there are others; what was to be said before
 * is told at once.
 */
void sw_control_on_note(SwControl *control, SwNoteFunc note, gpointer data);

/*
 * Fences and buries that host whatever its heartbeat says, because the administrator says so: reason "fenced", or
 * "crashed" for a dead mount of this machine (P7, P8, P21).  Waits up to 10 s for another breaker.
 * -ENOENT: there is no such host; -EINVAL: it is this one; -EAGAIN: another one is at it.
 */
int sw_control_break_host(SwControl *control, const char *host_id) G_GNUC_WARN_UNUSED_RESULT;

/* Buries the dead mounts of this machine, and drops leases, marks and locks of hosts that are gone. */
void sw_control_sweep(SwControl *control);

/* Is that host's directory still there?  1, 0, or -errno.  A claim of a host that is gone binds nobody. */
int sw_control_host_exists(SwControl *control, const char *host_id);

/* Did a call to the source fail in a way that leaves it open whether it was done? */
gboolean sw_is_unsure(int r);

/*
 * Removes the claim at `name` in `dirfd` if its owner `host_id` is gone or `mine` says it is ours: renamed into our
 * own directory first (fenced), checked there, put back if it was another object.  0, -EEXIST (owner lives),
 * -ENOENT.  Acts as `cred`.
 */
int sw_control_drop_claim(SwControl *control, int dirfd, const char *name, gboolean mine,
                          const SwCred *cred) G_GNUC_WARN_UNUSED_RESULT;

#endif
