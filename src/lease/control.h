/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_CONTROL_H
#define SW_CONTROL_H

/*
 * The control directory (C26) and this mount's place in it.
 *
 *   .safewritefs/format                      "safewritefs 1"
 *   .safewritefs/hosts/<id>/record           who we are; flock(2)ed while we live
 *   .safewritefs/hosts/<id>/stage/<w>/<seq>  staged files; the directory is the fencing token
 *   .safewritefs/hosts/<id>/released/        where a lease goes when it is released (one RENAME, fenced: F23)
 *   .safewritefs/leases/<key>                leases on contents, symbolic links
 *   .safewritefs/salvage/<entry>.data|.info
 *
 * All access goes through descriptors opened once, below which nothing is followed; entries that are not of the
 * expected type and owner are ignored (or, for the control directory itself, refused with the reason).
 *
 * Threading: everything but open and close may be called from any thread.  Functions act as the daemon itself
 * (`become(NULL)`) unless they say otherwise and leave the thread so.
 */

#include "../core/config.h"
#include "../core/record.h"
#include "../port/port.h"

#define SW_STAGE_DIRS 8

typedef struct SwControl SwControl;

/*
 * Finds or makes the control directory of the directory `source_fd` (known to people as `source_path`), refuses a
 * foreign or forged one, one above or below, an unknown format; claims an epoch; cleans up after dead mounts of this
 * machine (record flock free and same boot id): leases undone, stages to salvage, directories removed.
 * On failure -errno, and *ret_why is a sentence that names what and where (g_free).
 */
int sw_control_open(SwPort *port, int source_fd, const char *source_path, const SwConfig *config,
                    SwControl **ret_control, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

/* Leaves: what is still staged goes to salvage (reason "unmounted"), then our directory goes.  NULL is allowed. */
void sw_control_close(SwControl *control);

const char *sw_control_host_id(const SwControl *control);

/* Directory descriptor of stage directory `worker` (0 .. SW_STAGE_DIRS - 1); the control keeps it. */
int sw_control_stage_dir(SwControl *control, guint worker);
int sw_control_dir(SwControl *control); /* of .safewritefs itself */

/*
 * Moves stage `name` of directory `worker` to salvage, with `info` (host_id, wall_us and size are filled in here).
 * Acts as `cred` (the owner of the bytes) for the files it makes.  Keeps salvage within its bounds.  An empty stage
 * is removed instead.  On failure the stage stays where it is.
 */
int sw_control_salvage(SwControl *control, guint worker, const char *name, const SwSalvageInfo *info,
                       const SwCred *cred) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Leaves a note beside stage `name` of what it holds, for whoever finds it after a crash: its path above all.  As
 * `cred`.  To be forgotten before the stage is committed; sw_control_salvage does so by itself.
 */
int sw_control_describe(SwControl *control, guint worker, const char *name, const SwSalvageInfo *info,
                        const SwCred *cred) G_GNUC_WARN_UNUSED_RESULT;
void sw_control_forget_description(SwControl *control, guint worker, const char *name, const SwCred *cred);

/* Drops what salvage holds over its bounds in size and age, oldest first. */
void sw_control_trim_salvage(SwControl *control);

/* Is that host's directory still there?  1, 0, or -errno.  A claim of a host that is gone binds nobody. */
int sw_control_host_exists(SwControl *control, const char *host_id);

/*
 * Removes the claim at `name` in `dirfd` if its owner `host_id` is gone or `mine` says it is ours: renamed into our
 * own directory first (fenced), checked there, put back if it was another object.  0, -EEXIST (owner lives),
 * -ENOENT.  Acts as `cred`.
 */
int sw_control_drop_claim(SwControl *control, int dirfd, const char *name, gboolean mine,
                          const SwCred *cred) G_GNUC_WARN_UNUSED_RESULT;

#endif
