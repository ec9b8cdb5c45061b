/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stages: private files that take a writer's bytes (docs/design.md, "The stage").
 *
 *   OPEN --commit--> COMMITTED --write--> OPEN ...
 *     \--discard--> GONE
 */
#include "../core/acl.h"
#include "../port/replace.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

SwStage *sw_stage_ref(SwStage *stage)
{
    g_atomic_int_inc(&stage->refs);
    return stage;
}

/* Never the last one while the overlay's lock is held: it is needed here. */
static void leave_dir_locked(SwStage *stage)
{
    if (stage->counted_in)
        stage->overlay->stages_in[stage->counted_in - 1]--;
    stage->counted_in = 0;
}

void sw_stage_unref(SwStage *stage)
{
    if (!stage || !g_atomic_int_dec_and_test(&stage->refs))
        return;
    sw_mutex_lock(&stage->overlay->lock);
    leave_dir_locked(stage);
    sw_mutex_unlock(&stage->overlay->lock);
    sw_node_unref(stage->overlay, stage->node);
    sw_node_unref(stage->overlay, stage->parent);
    sw_file_unref(stage->file);
    sw_ranges_clear(&stage->ranges);
    g_array_unref(stage->family);
    sw_mutex_clear(&stage->lock);
    g_free(stage->name);
    g_free(stage);
}

SwFile *sw_stage_file(SwStage *stage)
{
    sw_mutex_lock(&stage->overlay->lock);
    SwFile *file = sw_file_ref(stage->file);
    sw_mutex_unlock(&stage->overlay->lock);
    return file;
}

gboolean sw_stage_is_open(SwStage *stage)
{
    sw_mutex_lock(&stage->overlay->lock);
    gboolean is_open = stage->state == SW_STAGE_OPEN;
    sw_mutex_unlock(&stage->overlay->lock);
    return is_open;
}

int sw_stage_dir(const SwStage *stage)
{
    return sw_epoch_stage_dir(stage->epoch, stage->worker);
}

/*
 * The name was never given before, so that the file is new.  NFS charges one more call for O_EXCL; there the file says
 * itself whether it is: whoever else may write to the directory can only put there what he owns, or a link to it.
 */
static int make_file(SwOverlay *ov, const SwStage *stage, int dirfd, const char *name, mode_t mode)
{
    struct stat st;
    if (!ov->network)
        return ov->port->openat(ov->port, dirfd, name, O_RDWR | O_CREAT | O_EXCL, mode & 07777);
    int flags = O_RDWR | O_CREAT | O_NONBLOCK | SW_O_UNDELEGATED;
    int fd = ov->port->openat(ov->port, dirfd, name, flags, mode & 07777);
    if (fd < 0)
        return fd;
    int r = ov->port->statat(ov->port, fd, "", &st);
    gboolean others = st.st_uid != stage->cred.uid && stage->cred.uid != 0;
    if (r == 0 && (!S_ISREG(st.st_mode) || st.st_size || st.st_nlink != 1 || others))
        r = -EEXIST;
    if (r == 0)
        return fd;
    ov->port->close(ov->port, fd);
    return r;
}

/* The directory with the fewest stages: creates and renames in one directory wait for each other, over NFS each for a
 * round trip (FACTS F21). */
static guint choose_dir(SwStage *stage, guint64 *ret_seq)
{
    SwOverlay *ov = stage->overlay;
    SW_HOLD(&ov->lock);
    leave_dir_locked(stage);
    *ret_seq = ov->stage_seq++;
    guint best = *ret_seq % SW_STAGE_DIRS;
    for (guint i = 0; i < SW_STAGE_DIRS; i++)
        if (ov->stages_in[i] < ov->stages_in[best])
            best = i;
    ov->stages_in[best]++;
    stage->counted_in = best + 1;
    return best;
}

int sw_stage_new_name(SwStage *stage, mode_t mode, int *ret_fd)
{
    SwOverlay *ov = stage->overlay;
    guint64 seq;
    guint worker = choose_dir(stage, &seq);
    char name[sizeof stage->stage_name];
    g_snprintf(name, sizeof name, "%" G_GINT64_MODIFIER "x", seq);
    for (guint tries = 0;; tries++) {
        SwEpoch *epoch = sw_control_epoch(ov->control);
        ov->port->become(ov->port, &stage->cred);
        int fd = make_file(ov, stage, sw_epoch_stage_dir(epoch, worker), name, mode);
        if (fd >= 0) {
            stage->epoch = epoch;
            stage->worker = worker;
            strcpy(stage->stage_name, name);
            *ret_fd = fd;
            return 0;
        }
        /* The directory is gone: we have been taken for dead, and are not to keep the caller waiting for the keeper. */
        if ((fd != -ENOENT && fd != -ESTALE) || tries > 0)
            return fd;
        if (sw_control_rejoin(ov->control, epoch) < 0)
            return -ESTALE;
    }
}

static SwStage *stage_alloc(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name)
{
    SwStage *stage = g_new0(SwStage, 1);
    stage->overlay = ov;
    stage->refs = 1;
    sw_mutex_init(&stage->lock);
    stage->cred = caller->cred;
    stage->family = g_array_new(FALSE, FALSE, sizeof(pid_t));
    stage->klass = SW_CLASS_STAGED;
    stage->opened_us = ov->port->now_us(ov->port);
    sw_ranges_init(&stage->ranges);
    if (ov->port->last_pid(ov->port, &stage->mark) < 0)
        stage->mark = 0;
    if (!parent)
        return stage;
    g_autofree char *path = sw_node_path(ov, parent, name);
    stage->klass = sw_policy_classify(&sw_config_of(ov)->policy, path);
    sw_mutex_lock(&ov->lock);
    sw_node_ref_locked(parent);
    sw_mutex_unlock(&ov->lock);
    stage->parent = parent;
    stage->name = g_strdup(name);
    return stage;
}

static void family_add(SwStage *stage, pid_t pid)
{
    SwOverlay *ov = stage->overlay;
    sw_mutex_lock(&ov->lock);
    gboolean known = FALSE;
    for (guint i = 0; i < stage->family->len && !known; i++)
        known = g_array_index(stage->family, pid_t, i) == pid;
    if (!known)
        g_array_append_val(stage->family, pid);
    sw_mutex_unlock(&ov->lock);
}

/* Makes the stage visible: from here on look-ups of the family find it. */
static void stage_enter(SwStage *stage, const SwCaller *caller, gboolean dirty)
{
    SwOverlay *ov = stage->overlay;
    pid_t pid = sw_process_of(ov, caller->tid);
    sw_trial_open(&stage->trial, pid, dirty);
    g_array_append_val(stage->family, pid);
    stage->last_write_us = stage->published_us = ov->port->now_us(ov->port);
    sw_mutex_lock(&ov->lock);
    stage->n_coming = 1; /* its maker */
    stage->node = sw_node_new_locked(ov, S_IFREG);
    stage->node->stage = sw_stage_ref(stage);
    if (stage->parent) {
        sw_node_add_name_locked(ov, stage->node, stage->parent, stage->name);
        sw_pending_add_locked(ov, stage);
    }
    sw_mutex_unlock(&ov->lock);
}

/* What a create in `dir` would inherit: the mode after umask or default ACL, the ACL, the group (C17). */
typedef struct {
    mode_t mode;
    gid_t gid;
    gboolean set_gid;
    void *acl; /* owned */
    gsize acl_size;
} Inherited;

static int inherit(SwOverlay *ov, const SwCaller *caller, int dirfd, mode_t mode, Inherited *ret)
{
    struct stat st;
    int r = ov->port->statat(ov->port, dirfd, "", &st);
    if (r < 0)
        return r;
    *ret = (Inherited){.mode = mode & ~caller->umask, .gid = st.st_gid, .set_gid = (st.st_mode & S_ISGID) != 0};
    char acl[4096];
    ssize_t size = ov->port->getxattr(ov->port, dirfd, "", SW_ACL_DEFAULT, acl, sizeof acl);
    if (size <= 0)
        return 0;
    return sw_acl_inherit(acl, size, mode, &ret->mode, &ret->acl, &ret->acl_size);
}

static int apply_inherited(SwStage *stage, int fd, const Inherited *inherited)
{
    SwPort *port = stage->overlay->port;
    int r = 0;
    if (inherited->set_gid && inherited->gid != stage->cred.gid) {
        r = port->chownat(port, fd, "", (uid_t)-1, inherited->gid);
        if (r == -EPERM) {
            port->become(port, NULL);
            r = port->chownat(port, fd, "", (uid_t)-1, inherited->gid);
            port->become(port, &stage->cred);
        }
        /* chown(2) clears the setuid bits that were asked for. */
        if (r == 0 && (inherited->mode & (S_ISUID | S_ISGID)))
            r = port->chmodat(port, fd, "", inherited->mode & 07777);
    }
    if (r == 0 && inherited->acl)
        r = port->setxattr(port, fd, "", SW_ACL_ACCESS, inherited->acl, inherited->acl_size, 0);
    return r;
}

static void stage_abandon(SwStage *stage, int fd)
{
    SwPort *port = stage->overlay->port;
    port->unlinkat(port, sw_stage_dir(stage), stage->stage_name, 0);
    port->close(port, fd);
    sw_stage_unref(stage);
}

int sw_stage_new_file(SwOverlay *ov, const SwCaller *caller, SwNode *inherit_from, SwNode *parent, const char *name,
                      mode_t mode, SwStage **ret_stage)
{
    g_autoptr(SwFile) dir = NULL;
    int r = sw_node_dir(ov, inherit_from, &dir);
    if (r < 0)
        return r;
    Inherited inherited = {0};
    r = inherit(ov, caller, dir->fd, mode, &inherited);
    if (r == 0)
        r = ov->port->accessat(ov->port, dir->fd, "", W_OK | X_OK);
    if (r < 0)
        return r;
    SwStage *stage = stage_alloc(ov, caller, parent, name);
    int fd;
    r = sw_stage_new_name(stage, inherited.mode, &fd);
    if (r < 0) {
        sw_stage_unref(stage);
        return r;
    }
    r = apply_inherited(stage, fd, &inherited);
    g_free(g_steal_pointer(&inherited.acl));
    if (r < 0) {
        stage_abandon(stage, fd);
        return r;
    }
    stage->file = sw_file_new(ov->port, fd);
    stage->materialised = TRUE;
    stage_enter(stage, caller, TRUE);
    *ret_stage = stage;
    return 0;
}

int sw_stage_new_over(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, const SwFound *base,
                      SwFile *base_file, gboolean truncated, SwStage **ret_stage)
{
    SwStage *stage = stage_alloc(ov, caller, parent, name);
    stage->has_base = TRUE;
    stage->base = *base;
    stage->edit = !truncated;
    stage->file = sw_file_ref(base_file);
    /* Emptying what is empty changes nothing, but it makes the writer one who writes the whole file (C8, C9). */
    gboolean changed = truncated && base->st.st_size > 0;
    if (changed) {
        int r = sw_stage_materialise(stage, 0);
        if (r < 0) {
            sw_stage_unref(stage);
            return r;
        }
    }
    stage_enter(stage, caller, changed);
    *ret_stage = stage;
    return 0;
}

/* ---- attributes carried over from the version that is replaced (C17) */

/* A user's write takes the privilege bits away, as on any file system; root keeps them (CAP_FSETID). */
static mode_t carried_mode(const SwStage *stage, const struct stat *from)
{
    mode_t mode = from->st_mode & 07777;
    if (stage->cred.uid == 0)
        return mode;
    return mode & ~(S_ISUID | ((mode & S_IXGRP) ? S_ISGID : 0));
}

int sw_stage_carry(SwStage *stage, int from_dirfd, const char *from_name, const struct stat *from, int to_fd)
{
    SwPort *port = stage->overlay->port;
    struct stat now;
    int r = port->statat(port, to_fd, "", &now);
    if (r < 0)
        return r;
    /* As the daemon: a writer may be neither owner nor member of the group.  What the server refuses stays the
     * writer's own. */
    port->become(port, NULL);
    if (!stage->owner_set && (now.st_uid != from->st_uid || now.st_gid != from->st_gid) &&
        port->chownat(port, to_fd, "", from->st_uid, from->st_gid) < 0)
        (void)port->chownat(port, to_fd, "", (uid_t)-1, from->st_gid);
    r = sw_carry_xattrs(port, from_dirfd, from_name, to_fd, from->st_uid == stage->cred.uid);
    if (r == 0 && !stage->mode_set && port->statat(port, to_fd, "", &now) == 0 &&
        (now.st_mode & 07777) != carried_mode(stage, from))
        r = port->chmodat(port, to_fd, "", carried_mode(stage, from));
    port->become(port, &stage->cred);
    return r == -EPERM ? 0 : r;
}

/* ---- content */

static int copy_base(SwStage *stage, int from, int to, guint64 upto)
{
    SwPort *port = stage->overlay->port;
    struct stat st;
    int r = port->statat(port, from, "", &st);
    if (r < 0 || upto == 0 || st.st_size == 0)
        return r;
    if (upto >= (guint64)st.st_size && port->clone(port, from, to) == 0)
        return 0;
    return sw_copy_sparse(port, from, to, MIN(upto, (guint64)st.st_size), NULL);
}

int sw_stage_materialise(SwStage *stage, guint64 upto)
{
    SwOverlay *ov = stage->overlay;
    if (stage->materialised)
        return 0;
    int fd;
    int r = sw_stage_new_name(stage, carried_mode(stage, &stage->base.st), &fd);
    if (r < 0)
        return r;
    if (upto && stage->edit)
        r = copy_base(stage, stage->file->fd, fd, upto);
    if (r == 0)
        r = sw_stage_carry(stage, stage->file->fd, "", &stage->base.st, fd);
    if (r < 0) {
        ov->port->unlinkat(ov->port, sw_stage_dir(stage), stage->stage_name, 0);
        ov->port->close(ov->port, fd);
        return r;
    }
    stage->unmade = FALSE;
    sw_mutex_lock(&ov->lock);
    SwFile *old = stage->node ? sw_node_left_locked(stage->node, stage->file) : stage->file;
    stage->file = sw_file_new(ov->port, fd);
    stage->materialised = TRUE;
    sw_mutex_unlock(&ov->lock);
    sw_file_unref(old);
    return 0;
}

int sw_stage_reopen(SwStage *stage)
{
    SwOverlay *ov = stage->overlay;
    int r = ov->port->lookat(ov->port, stage->file->fd, "", &stage->base);
    if (r < 0)
        return r;
    stage->synced = FALSE;
    stage->mtime_set = stage->mode_set = stage->owner_set = FALSE;
    sw_ranges_clear(&stage->ranges);
    sw_ranges_init(&stage->ranges);
    sw_mutex_lock(&ov->lock);
    stage->edit = stage->has_base = TRUE;
    stage->materialised = FALSE;
    stage->state = SW_STAGE_OPEN;
    sw_lingering_remove_locked(ov, stage);
    sw_node_unlist_locked(ov, stage->node);
    if (!stage->node->stage)
        stage->node->stage = sw_stage_ref(stage);
    sw_pending_add_locked(ov, stage);
    g_autofree char *path = stage->parent ? sw_node_path_locked(stage->parent, stage->name) : NULL;
    sw_mutex_unlock(&ov->lock);
    if (path)
        sw_note(ov, SW_NOTE_INFO, "%s: written after its commit, a second version will follow", path);
    return 0;
}

gboolean sw_stage_await(SwStage *stage)
{
    SW_HOLD(&stage->overlay->lock);
    if (stage->state == SW_STAGE_GONE)
        return FALSE;
    stage->n_coming++;
    return TRUE;
}

gboolean sw_stage_is_wanted(SwStage *stage)
{
    SW_HOLD(&stage->overlay->lock);
    return stage->n_writers || stage->n_coming;
}

/* One comes less.  If he is a reader, what the last writer has left is kept: a new file may be nothing but new. */
static void came(SwStage *stage, gboolean gives_up)
{
    SwOverlay *ov = stage->overlay;
    sw_mutex_lock(&ov->lock);
    gboolean wanted = --stage->n_coming || stage->n_writers;
    sw_mutex_unlock(&ov->lock);
    if (wanted)
        return;
    SW_HOLD(&stage->lock);
    if (gives_up || !stage->trial.dirty)
        sw_stage_discard_unwanted(stage);
}

void sw_stage_give_up(SwStage *stage)
{
    came(stage, TRUE);
}

void sw_stage_join(SwStage *stage, const SwCaller *caller, int flags)
{
    SwOverlay *ov = stage->overlay;
    if (!sw_writes(flags)) {
        came(stage, FALSE);
        return;
    }
    pid_t pid = sw_process_of(ov, caller->tid);
    family_add(stage, pid);
    sw_mutex_lock(&stage->lock);
    sw_trial_open(&stage->trial, pid, FALSE);
    sw_mutex_lock(&ov->lock);
    if ((flags & O_ACCMODE) == O_RDWR)
        stage->read_write = TRUE;
    stage->n_coming--;
    stage->n_writers++;
    stage->quiet = FALSE;
    if (stage->state == SW_STAGE_COMMITTED) /* while this one was on its way */
        sw_lingering_add_locked(ov, stage);
    sw_mutex_unlock(&ov->lock);
    sw_mutex_unlock(&stage->lock);
}

int sw_stage_ready(SwStage *stage, guint64 upto)
{
    sw_ignore(sw_stage_end_if_taken(stage, FALSE)); /* the state tells */
    if (stage->state == SW_STAGE_GONE)
        return -stage->gone_error;
    if (stage->state == SW_STAGE_COMMITTED) {
        int r = sw_stage_reopen(stage);
        if (r < 0)
            return r;
    }
    return sw_stage_materialise(stage, upto);
}

static pid_t writer_of(SwStage *stage, const SwCaller *caller, gboolean mapped)
{
    if (mapped || !caller->tid)
        return 0;
    if (stage->writer_tid != caller->tid) {
        stage->writer_pid = sw_process_of(stage->overlay, caller->tid);
        stage->writer_tid = caller->tid;
    }
    return stage->writer_pid;
}

void sw_stage_touched(SwStage *stage)
{
    SwOverlay *ov = stage->overlay;
    stage->last_write_us = ov->port->now_us(ov->port);
    stage->mtime_set = FALSE;
    SW_HOLD(&ov->lock);
    stage->quiet = FALSE;
    stage->node->told.until_us = 0;
}

gboolean sw_stage_is_only_new(const SwStage *stage)
{
    struct stat st;
    return stage->state == SW_STAGE_OPEN && !stage->has_base && !stage->claimed && !stage->trial.has_bytes &&
           stage->overlay->port->statat(stage->overlay->port, stage->file->fd, "", &st) == 0 && st.st_size == 0;
}

void sw_stage_set_edit(SwStage *stage, gboolean edit)
{
    SW_HOLD(&stage->overlay->lock);
    stage->edit = edit;
}

/*
 * Who asked for an empty file and waited for its lock may find what others made meanwhile.  If it begins at the
 * beginning, it goes on to write the whole file (C9); if not, it has seen what is there and adds to it (C10).
 */
static void decide(SwStage *stage, off_t offset, gboolean append, gboolean mapped)
{
    if (stage->unmade)
        sw_stage_set_edit(stage, offset != 0 || append || mapped);
}

ssize_t sw_stage_write(SwStage *stage, const SwCaller *caller, const void *buf, size_t size, off_t offset,
                       gboolean append, gboolean mapped)
{
    SwPort *port = stage->overlay->port;
    SW_HOLD(&stage->lock);
    pid_t pid = writer_of(stage, caller, mapped);
    decide(stage, offset, append, mapped);
    int r = sw_stage_ready(stage, G_MAXUINT64);
    struct stat st;
    if (r == 0 && append)
        r = port->statat(port, stage->file->fd, "", &st);
    if (r < 0) {
        sw_trial_write_failed(&stage->trial, pid, offset, -r);
        return r;
    }
    if (append)
        offset = st.st_size;
    ssize_t n = port->pwrite(port, stage->file->fd, buf, size, offset);
    if (n < 0) {
        sw_trial_write_failed(&stage->trial, pid, offset, -n);
        return n;
    }
    if (stage->edit)
        sw_ranges_add(&stage->ranges, offset, n);
    sw_trial_write(&stage->trial, pid, offset, n);
    sw_stage_touched(stage);
    return n;
}

int sw_stage_truncate(SwStage *stage, const SwCaller *caller, guint64 size)
{
    SwPort *port = stage->overlay->port;
    SW_HOLD(&stage->lock);
    int r = sw_stage_ready(stage, size);
    if (r == 0)
        r = port->ftruncate(port, stage->file->fd, size);
    if (r < 0)
        return r;
    if (stage->edit)
        sw_ranges_truncate(&stage->ranges, size);
    sw_trial_truncate(&stage->trial, writer_of(stage, caller, FALSE), size);
    sw_stage_touched(stage);
    return 0;
}

/*
 * Not of an edit, for which the commit may take another file, nor of one whose pages may be written without the
 * kernel's asking for its times, nor where writes come through other nodes.
 */
gint64 sw_stage_attr_us(SwStage *stage)
{
    SW_HOLD(&stage->overlay->lock);
    gboolean is_whole = stage->state == SW_STAGE_OPEN && stage->materialised && !stage->edit;
    return is_whole && !stage->read_write && !stage->guests ? sw_config_of(stage->overlay)->attr_cache_us : 0;
}

int sw_stage_stat(SwStage *stage, struct stat *ret_st)
{
    g_autoptr(SwFile) file = sw_stage_file(stage);
    int r = file->port->statat(file->port, file->fd, "", ret_st);
    /* A stage that has a claim or no name yet is one file with one name all the same. */
    if (r == 0 && stage->parent)
        ret_st->st_nlink = MAX(ret_st->st_nlink, 1);
    return r;
}
