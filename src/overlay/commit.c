/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From stage to version (docs/design.md, "Commit").
 *
 *  1. The times and, for a replaced file, the attributes are set right; on a network file system the data is made
 *     durable, for only then is it known that it fits.
 *  2. An edit takes the lease on the content it is about to replace, and if that is not the version it was made over,
 *     applies what was written to a copy of it (C10).
 *  3. RENAME out of our own stage directory: the only call that publishes a stage, and the fence (C21).
 *  4. The staged node becomes the name's committed node.
 */
#include "../port/replace.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>

/* C17: how old the time of the last write may be at the commit. */
#define MTIME_SLACK_US (2 * G_USEC_PER_SEC)
/* How long a close waits for the lease of a living holder before it gives up; holders keep it for milliseconds. */
#define LEASE_WAIT_US (600 * G_USEC_PER_SEC)
/* An edit that meets so many new versions in a row is starved; report it instead of spinning. */
#define EDIT_TRIES 1000

/* Another chmod, chown or ACL came to the replaced file since it was copied: the newest counts (C17). */
static int recarry(SwStage *stage, SwTarget *target)
{
    SwPort *port = stage->overlay->port;
    SwFound now;
    int r = sw_look(stage->overlay, target->dir->fd, target->name, &now, NULL);
    if (r < 0 || !S_ISREG(now.st.st_mode))
        return 0;
    target->stood = now;
    if (memcmp(&now.st.st_ctim, &stage->base.st.st_ctim, sizeof now.st.st_ctim) == 0 &&
        now.st.st_ino == stage->base.st.st_ino)
        return 0;
    struct stat mine;
    r = port->statat(port, stage->file->fd, "", &mine);
    if (r < 0 || (mine.st_mode == now.st.st_mode && mine.st_uid == now.st.st_uid && mine.st_gid == now.st.st_gid))
        return r;
    return sw_stage_carry(stage, target->dir->fd, target->name, &now.st, stage->file->fd);
}

static int prepare(SwStage *stage, SwTarget *target)
{
    SwOverlay *ov = stage->overlay;
    SwPort *port = ov->port;
    int r = stage->has_base ? recarry(stage, target) : 0;
    if (r == 0 && !stage->mtime_set && port->now_us(port) - stage->last_write_us > MTIME_SLACK_US) {
        const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
        r = port->utimensat(port, stage->file->fd, "", times);
    }
    gboolean sync = sw_config_of(ov)->commit_sync == SW_SYNC_ALWAYS ||
                    (sw_config_of(ov)->commit_sync == SW_SYNC_AUTO && ov->network);
    if (r == 0 && sync)
        r = port->fsync(port, stage->file->fd, FALSE);
    return r;
}

/* The file of another owner cannot be renamed out of the sticky stage directory by the writer: the daemon does it,
 * after asking whether the writer might. */
static int rename_out(SwStage *stage, const SwTarget *target, guint flags)
{
    SwOverlay *ov = stage->overlay;
    SwPort *port = ov->port;
    struct stat st;
    int r = port->statat(port, stage->file->fd, "", &st);
    if (r < 0)
        return r;
    port->become(port, &stage->cred);
    gboolean foreign = st.st_uid != stage->cred.uid && stage->cred.uid != 0;
    if (foreign) {
        r = port->accessat(port, target->dir->fd, "", W_OK | X_OK);
        if (r < 0)
            return r;
        port->become(port, NULL);
    }
    r = port->renameat(port, sw_stage_dir(stage), stage->stage_name, target->dir->fd, target->name, flags);
    if (foreign)
        port->become(port, &stage->cred);
    return r;
}

static gboolean leads_to(SwOverlay *ov, const SwTarget *target, const SwFound *wanted)
{
    SwFound found;
    return ov->port->lookat(ov->port, target->dir->fd, target->name, &found) == 0 && sw_same_object(&found, wanted);
}

/* The node takes the identity under which it will be found, before others can find it; back when it failed. */
static int publish(SwStage *stage, const SwTarget *target, guint flags)
{
    SwOverlay *ov = stage->overlay;
    SwFound found;
    int r = ov->port->lookat(ov->port, stage->file->fd, "", &found);
    if (r < 0)
        return r;
    SwReplacing replacing = {0};
    if (!flags)
        sw_replacing_begin(ov, &stage->cred, target->dir->fd, target->name, stage->edit, &replacing);
    sw_mutex_lock(&ov->lock);
    sw_node_list_locked(ov, stage->node, &found);
    sw_mutex_unlock(&ov->lock);
    r = rename_out(stage, target, flags);
    if (r < 0 && leads_to(ov, target, &found))
        r = 0; /* done, and the reply was lost (C13) */
    sw_replacing_end(ov, &stage->cred, &replacing, r == 0);
    if (r < 0) {
        sw_mutex_lock(&ov->lock);
        sw_node_unlist_locked(ov, stage->node);
        sw_mutex_unlock(&ov->lock);
    }
    return r;
}

/* Who has the version open that was replaced is told that it has lost a link. */
static void forget_replaced(SwOverlay *ov, const SwTarget *target)
{
    if (!target->stood.st.st_ino)
        return;
    sw_mutex_lock(&ov->lock);
    SwNode *node = sw_node_find_locked(ov, &target->stood);
    gboolean believed = node && node->handles && node->told.until_us > ov->port->now_us(ov->port);
    if (believed)
        sw_node_ref_locked(node);
    sw_mutex_unlock(&ov->lock);
    if (!believed)
        return;
    sw_node_forget_told(ov, node);
    sw_node_unref(ov, node);
}

static void committed(SwStage *stage, const SwTarget *target)
{
    SwOverlay *ov = stage->overlay;
    gint64 now = ov->port->now_us(ov->port);
    sw_stage_forget_description(stage);
    stage->claimed = FALSE;
    stage->published_us = now;
    stage->trial = (SwTrial){.opener = stage->trial.opener, .writer = stage->trial.writer, .ever_flushed = TRUE};
    sw_mutex_lock(&ov->lock);
    stage->state = SW_STAGE_COMMITTED;
    stage->has_base = TRUE;
    stage->everyone = stage->quiet = FALSE;
    sw_node_add_name_locked(ov, stage->node, target->parent, target->name);
    sw_pending_remove_locked(ov, stage);
    sw_lingering_add_locked(ov, stage);
    SwStage *was = g_steal_pointer(&stage->node->stage);
    sw_mutex_unlock(&ov->lock);
    sw_stage_unref(was);
    forget_replaced(ov, target);
    sw_count(ov->port, stage->edit ? SW_COUNT_COMMITS_EDIT : SW_COUNT_COMMITS_WHOLE, 1);
}

/* ---- edits */

static gboolean same_content(const SwFound *a, const SwFound *b)
{
    return sw_same_object(a, b) && a->st.st_size == b->st.st_size &&
           memcmp(&a->st.st_mtim, &b->st.st_mtim, sizeof a->st.st_mtim) == 0;
}

/* What the handle wrote, over a copy of `current`. */
static int merge(SwStage *stage, int current, const SwFound *now, int to)
{
    SwPort *port = stage->overlay->port;
    guint64 keep = MIN(stage->ranges.cut, (guint64)now->st.st_size);
    gboolean cut = stage->ranges.cut != G_MAXUINT64;
    guint64 size = cut ? stage->ranges.size : (guint64)now->st.st_size;
    int r = 0;
    if (keep == (guint64)now->st.st_size && port->clone(port, current, to) == 0)
        keep = 0;
    if (keep)
        r = sw_copy_sparse(port, current, to, keep, NULL);
    for (guint i = 0; r == 0 && i < sw_ranges_count(&stage->ranges); i++) {
        SwRange piece = sw_ranges_get(&stage->ranges, i);
        size = MAX(size, piece.end);
        r = sw_copy_bytes(port, stage->file->fd, to, piece.start, piece.end, NULL);
    }
    return r < 0 ? r : port->ftruncate(port, to, size);
}

/* The version opened is not current any more: the stage becomes a copy of the current one with the edits applied. */
static int rebase(SwStage *stage, const SwTarget *target, const SwFound *now)
{
    SwOverlay *ov = stage->overlay;
    SwPort *port = ov->port;
    int current = port->openat(port, target->dir->fd, target->name, O_RDONLY, 0);
    if (current == -EACCES) {
        port->become(port, NULL);
        current = port->openat(port, target->dir->fd, target->name, O_RDONLY, 0);
        port->become(port, &stage->cred);
    }
    if (current < 0)
        return current;
    sw_stage_forget_description(stage);
    SwEpoch *epoch = stage->epoch;
    guint worker = stage->worker;
    g_autofree char *name = g_strdup(stage->stage_name);
    int fd, r = sw_stage_new_name(stage, 0600, &fd);
    if (r < 0) {
        port->close(port, current);
        return r;
    }
    r = merge(stage, current, now, fd);
    port->close(port, current);
    if (r == 0)
        r = sw_stage_carry(stage, target->dir->fd, target->name, &now->st, fd);
    if (r < 0) { /* what was written is still under the name before */
        port->unlinkat(port, sw_stage_dir(stage), stage->stage_name, 0);
        port->close(port, fd);
        stage->epoch = epoch;
        stage->worker = worker;
        g_strlcpy(stage->stage_name, name, sizeof stage->stage_name);
        return r;
    }
    port->unlinkat(port, sw_epoch_stage_dir(epoch, worker), name, 0);
    sw_mutex_lock(&ov->lock);
    SwFile *old = sw_node_left_locked(stage->node, stage->file);
    stage->file = sw_file_new(port, fd);
    sw_mutex_unlock(&ov->lock);
    sw_file_unref(old);
    stage->base = *now;
    return 0;
}

/* A rewriter's version that the edit displaced goes back to its name, and the edit starts over with it. */
static int put_back(SwStage *stage, const SwTarget *target, const SwFound *displaced)
{
    SwPort *port = stage->overlay->port;
    SwFound put;
    int r = port->lookat(port, stage->file->fd, "", &put);
    if (r < 0)
        return r;
    return sw_give_back(port, sw_stage_dir(stage), stage->stage_name, target->dir->fd, target->name, &put, displaced);
}

/*
 * Rewriters do not take the lease (C9), so one may slip in between the look and the rename.  An exchange shows what was
 * replaced: if it is not what the edit was made over, the edit is made again over that.  1: again; 0: done.
 */
static int publish_edit(SwStage *stage, const SwTarget *target, const SwFound *over)
{
    SwOverlay *ov = stage->overlay;
    int stage_dir = sw_stage_dir(stage);
    int r = publish(stage, target, RENAME_EXCHANGE);
    if (sw_lacks_rename(r) || r == -EPERM || r == -EACCES)
        return publish(stage, target, 0);
    if (r < 0)
        return r;
    SwFound replaced;
    ov->port->become(ov->port, NULL);
    /* If this fails it is not known what would be dropped, so nothing is. */
    if (ov->port->lookat(ov->port, stage_dir, stage->stage_name, &replaced) == 0) {
        if (sw_same_object(&replaced, over)) {
            sw_ignore(sw_old_unlink(ov, stage_dir, stage->stage_name)); /* else it is in salvage one day */
        } else {
            r = put_back(stage, target, &replaced);
            r = r < 0 ? r : 1;
        }
    }
    ov->port->become(ov->port, &stage->cred);
    return r;
}

static void tell_rebased(SwStage *stage)
{
    SwOverlay *ov = stage->overlay;
    g_autofree char *path = NULL;
    char comm[64] = "";
    SwEvent event = {.kind = SW_EVENT_REBASED, .command = comm, .pid = stage->trial.writer};
    if (event.pid)
        ov->port->comm(ov->port, stage->trial.writer, comm, sizeof comm);
    sw_mutex_lock(&ov->lock);
    event.path = path = sw_node_path_locked(stage->parent, stage->name);
    sw_mutex_unlock(&ov->lock);
    sw_note_event(ov, SW_NOTE_INFO, &event, "%s: changed by another host meanwhile, edits applied to it", path);
}

static int edit_once(SwStage *stage, const SwTarget *target, const SwFound *seen)
{
    SwFound now;
    int r = sw_look_fresh(stage->overlay, target->dir->fd, target->name, &now);
    if (r < 0)
        return r == -ENOENT ? -ESTALE : r;
    if (!sw_same_object(&now, seen))
        return 1; /* the lease is on a version that was replaced meanwhile */
    if (!same_content(&stage->base, &now)) {
        r = rebase(stage, target, &now);
        if (r < 0)
            return r;
        tell_rebased(stage);
        sw_count(stage->overlay->port, SW_COUNT_EDITS_REBASED, 1);
    }
    return publish_edit(stage, target, &now);
}

static int commit_edit(SwStage *stage, const SwTarget *target, gboolean may_wait)
{
    SwOverlay *ov = stage->overlay;
    for (guint tries = 0; tries < EDIT_TRIES; tries++) {
        SwFound now;
        int r = sw_look_fresh(ov, target->dir->fd, target->name, &now);
        if (r < 0)
            return r == -ENOENT ? -ESTALE : r;
        SwContentLease *lease;
        SwPredecessor predecessor;
        gint64 deadline = may_wait ? ov->port->now_us(ov->port) + LEASE_WAIT_US : 0;
        r = sw_content_lease_take(ov->leases, now.st.st_ino, NULL, deadline, NULL, NULL, &lease, &predecessor);
        ov->port->become(ov->port, &stage->cred);
        if (r == -ETIMEDOUT && !may_wait)
            return -EINPROGRESS;
        if (r < 0)
            return r;
        sw_count(ov->port, SW_COUNT_LEASES_BROKEN, predecessor == SW_PREDECESSOR_BROKEN);
        r = edit_once(stage, target, &now);
        /* Published is published, whatever becomes of the lease. */
        (void)sw_content_lease_release(lease);
        ov->port->become(ov->port, &stage->cred);
        if (r <= 0)
            return r;
    }
    return -EBUSY;
}

/* NFS says ESTALE of a directory that another host removed, where C15 has ENOENT. */
static gboolean is_gone(SwOverlay *ov, const SwTarget *target)
{
    struct stat st;
    return ov->network && target->dir && ov->port->stat_fresh(ov->port, target->dir->fd, "", &st) == -ESTALE;
}

int sw_stage_commit(SwStage *stage, guint rename_flags, gboolean may_wait)
{
    if (stage->state != SW_STAGE_OPEN || !stage->materialised)
        return 0;
    if (stage->overlay->network && !may_wait)
        return -EINPROGRESS;
    SwTarget target = {0};
    int r = sw_target_find(stage, &target);
    if (r == 0)
        r = prepare(stage, &target);
    if (r == 0)
        r = stage->edit && !rename_flags ? commit_edit(stage, &target, may_wait)
                                         : publish(stage, &target, rename_flags);
    if (r == 0)
        committed(stage, &target);
    if (r == -ESTALE && is_gone(stage->overlay, &target))
        r = -ENOENT;
    sw_target_clear(stage, &target);
    if ((r == -ENOENT || r == -ESTALE) && stage->edit && stage->parent && sw_removal_of(stage->overlay, stage)) {
        sw_stage_lose_name(stage);
        return 0;
    }
    /* "No such file" may be what is missing of ours. */
    if ((r == -ENOENT || r == -ESTALE) && sw_stage_end_if_taken(stage, TRUE)) {
        sw_count(stage->overlay->port, SW_COUNT_COMMITS_FENCED, 1);
        return -ESTALE;
    }
    return r;
}

/* ---- acting on a verdict */

static gboolean name_is_taken(SwStage *stage)
{
    SwTarget target = {0};
    SwFound found;
    gboolean taken =
        sw_target_find(stage, &target) == 0 && sw_look_fresh(stage->overlay, target.dir->fd, target.name, &found) == 0;
    sw_target_clear(stage, &target);
    return taken;
}

int sw_stage_commit_behind(SwStage *stage, gboolean may_wait)
{
    if (!sw_stage_is_only_new(stage))
        return sw_stage_commit(stage, 0, may_wait);
    int r = sw_stage_commit(stage, RENAME_NOREPLACE, may_wait);
    /* NFS has no such rename: between the look and the rename somebody may slip in. */
    if (sw_lacks_rename(r))
        return name_is_taken(stage) ? 1 : sw_stage_commit(stage, 0, may_wait);
    return r == -EEXIST ? 1 : r;
}

static int commit_or_discard(SwStage *stage, gboolean may_wait)
{
    SwOverlay *ov = stage->overlay;
    if (!stage->trial.dirty)
        return 0;
    if (!stage->parent) {
        sw_stage_discard(stage, NULL, ENOENT);
        return 0;
    }
    if (stage->klass == SW_CLASS_PRIVATE) {
        sw_mutex_lock(&ov->lock);
        stage->everyone = TRUE;
        sw_mutex_unlock(&ov->lock);
        return 0;
    }
    int r = sw_stage_commit_behind(stage, may_wait);
    if (r == 0 && !stage->parent)
        sw_stage_discard(stage, NULL, ENOENT);
    if (r > 0) {
        sw_stage_discard(stage, NULL, ESTALE);
        return 0;
    }
    if (r < 0 && r != -EINPROGRESS)
        sw_stage_discard(stage, r == -ESTALE || r == -ENOENT ? "removed" : "failed", -r);
    return r;
}

int sw_stage_execute(SwStage *stage, SwVerdict verdict, gboolean may_wait)
{
    SwOverlay *ov = stage->overlay;
    if (stage->state != SW_STAGE_OPEN)
        return 0;
    switch (verdict) {
    case SW_VERDICT_HOLD:
        sw_mutex_lock(&ov->lock);
        stage->quiet = stage->trial.flushed;
        sw_mutex_unlock(&ov->lock);
        return 0;
    case SW_VERDICT_DISCARD_KILLED:
        if (sw_config_of(ov)->on_kill == SW_ON_KILL_COMMIT)
            return commit_or_discard(stage, may_wait);
        sw_stage_discard(stage, stage->parent ? "killed" : NULL, ESTALE);
        return 0;
    case SW_VERDICT_DISCARD_FAILED:
        sw_stage_discard(stage, stage->synced ? "failed" : NULL, stage->trial.failure);
        return -stage->trial.failure;
    case SW_VERDICT_COMMIT:
        return commit_or_discard(stage, may_wait);
    }
    g_assert_not_reached();
}
