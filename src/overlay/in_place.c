/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a file lock does to the handle that takes it (C6, C22).
 *
 *   taken       a reader, an appender: goes on in the current version
 *               staged, nothing written, opened without O_TRUNC: the file is the program's own from now on, and is
 *               written in place; a new one is published empty
 *               staged otherwise: stays staged, over the current version if nothing is staged now
 *   given back  what is staged is committed; what was written in place is made to reach the server
 *
 * A handle in place stays a member of the stage it was opened in, for its kernel inode is that stage's; should another
 * thread have been writing to it meanwhile, that is committed as ever.
 */
#include "file_locks.h"

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>

SwFile *sw_in_place_file_locked(SwNode *node)
{
    for (GSList *at = node->handles; at; at = at->next) {
        SwHandle *handle = at->data;
        if (handle->in_place && handle->file)
            return sw_file_ref(handle->file);
    }
    return NULL;
}

static void forget_pages(SwOverlay *ov, SwNode *node)
{
    if (ov->stale)
        ov->stale(ov->stale_data, node, SW_STALE_ALL);
}

void sw_node_forget_told(SwOverlay *ov, SwNode *node)
{
    if (ov->stale)
        ov->stale(ov->stale_data, node, SW_STALE_ATTRIBUTES);
    SW_HOLD(&ov->lock);
    node->told.until_us = 0;
}

void sw_node_end_doubt(SwOverlay *ov, SwNode *node)
{
    sw_mutex_lock(&ov->lock);
    gboolean doubted = node->doubted;
    sw_mutex_unlock(&ov->lock);
    if (!doubted)
        return;
    sw_node_forget_told(ov, node);
    /* Not before, or an open would go by a size that the kernel does not have. */
    SW_HOLD(&ov->lock);
    node->doubted = FALSE;
}

/* ---- the current version */

gboolean sw_handle_name(SwOverlay *ov, SwHandle *handle, SwNode **ret_parent, char **ret_name)
{
    if (!handle->stage)
        return sw_node_first_name(ov, handle->node, ret_parent, ret_name);
    SW_HOLD(&ov->lock);
    if (!handle->stage->parent)
        return FALSE;
    sw_node_ref_locked(handle->stage->parent);
    *ret_parent = handle->stage->parent;
    *ret_name = g_strdup(handle->stage->name);
    return TRUE;
}

/* Where the handle's file is, opened as its opener. */
static int place_of(SwOverlay *ov, SwHandle *handle, SwFile **ret_dir, char **ret_name)
{
    SwNode *parent;
    g_autofree char *name = NULL;
    ov->port->become(ov->port, &handle->cred);
    if (!sw_handle_name(ov, handle, &parent, &name))
        return -ENOENT;
    int r = sw_node_dir_fresh(ov, parent, ret_dir);
    sw_node_unref(ov, parent);
    if (r == 0)
        *ret_name = g_steal_pointer(&name);
    return r;
}

/* As the opener; the rights were asked for at the open, and may have gone since. */
static int open_current(SwOverlay *ov, const SwHandle *handle, int dirfd, const char *name, int flags, mode_t mode,
                        SwFile **ret_file, SwFound *ret_found)
{
    SwPort *port = ov->port;
    flags |= O_NONBLOCK;
    if ((flags & O_ACCMODE) != O_RDONLY)
        flags |= sw_shared_flags(ov);
    int fd = port->openat(port, dirfd, name, flags, mode);
    if (fd == -EACCES) {
        port->become(port, NULL);
        fd = port->openat(port, dirfd, name, flags & ~O_CREAT, 0);
        port->become(port, &handle->cred);
    }
    if (fd < 0)
        return fd;
    g_autoptr(SwFile) file = sw_file_new(port, fd);
    int r = port->lookat(port, fd, "", ret_found);
    if (r == 0 && !S_ISREG(ret_found->st.st_mode))
        r = -ESTALE;
    if (r == 0)
        *ret_file = g_steal_pointer(&file);
    return r;
}

/* From here on the handle reads and writes that file. */
static void adopt(SwOverlay *ov, SwHandle *handle, SwHandleKind kind, SwFile *file, const SwFound *found)
{
    sw_mutex_lock(&ov->lock);
    SwFile *old = handle->file ? sw_node_left_locked(handle->node, handle->file) : NULL;
    handle->file = sw_file_ref(file);
    handle->id = (SwIdentity){.ino = found->st.st_ino, .tag = found->tag};
    __atomic_store_n(&handle->kind, kind, __ATOMIC_RELEASE);
    sw_mutex_unlock(&ov->lock);
    sw_file_unref(old);
}

static gboolean is_there(SwOverlay *ov, const SwHandle *handle, int dirfd, const char *name)
{
    SwFound found;
    return sw_look(ov, dirfd, name, &found, NULL) < 0 || sw_identity_is(&handle->id, &found);
}

/* The kernel reads the version that was opened, and cannot be led to another.  Who locks in order to read what is
 * current is told so. */
static int stays_behind(SwOverlay *ov, const char *name)
{
    sw_note(ov, SW_NOTE_WARNING,
            "%s: replaced since it was opened, so its lock is refused; passthrough=off prevents that", name);
    return -ESTALE;
}

/* A version that was replaced since the open is not what the lock is about.  One that was removed stays open. */
static int refresh(SwOverlay *ov, SwHandle *handle)
{
    g_autoptr(SwFile) dir = NULL, file = NULL;
    g_autofree char *name = NULL;
    SwFound found;
    struct stat st;
    /* What this machine has cached of it is from before the lock. */
    if (ov->network)
        sw_ignore(ov->port->stat_fresh(ov->port, handle->file->fd, "", &st));
    if (place_of(ov, handle, &dir, &name) < 0 || is_there(ov, handle, dir->fd, name))
        return 0;
    int flags = handle->flags & (O_ACCMODE | (sw_handle_kind(handle) == SW_HANDLE_APPEND ? 0 : O_APPEND));
    int r = open_current(ov, handle, dir->fd, name, flags, 0, &file, &found);
    if (r == 0 && handle->passed)
        return stays_behind(ov, name);
    if (r == 0)
        adopt(ov, handle, sw_handle_kind(handle), file, &found);
    return r == -ENOENT || r == -ELOOP || r == -ESTALE ? 0 : r;
}

/* ---- from the stage into place */

/* S held. */
static gboolean stays_staged(const SwHandle *handle, const SwStage *stage)
{
    gboolean written = stage->trial.dirty && (stage->has_base || stage->trial.has_bytes);
    return (handle->flags & O_TRUNC) || written || stage->state == SW_STAGE_GONE || !stage->parent ||
           stage->klass == SW_CLASS_PRIVATE;
}

/* S held.  A new file becomes visible, empty, unless another host was faster. */
static int publish_new(SwStage *stage, gboolean may_wait)
{
    if (stage->state != SW_STAGE_OPEN || stage->has_base)
        return 0;
    int r = sw_stage_commit(stage, stage->claimed ? 0 : RENAME_NOREPLACE, may_wait);
    /* NFS has no such rename: the open that follows makes the file. */
    return r == -EEXIST || sw_lacks_rename(r) ? 0 : r;
}

/* S held.  What the family is led to by the name is the current version as well. */
static void rebase_clean(SwOverlay *ov, SwStage *stage, SwFile *file, const SwFound *found)
{
    if (stage->state == SW_STAGE_OPEN && !stage->has_base) {
        stage->trial = (SwTrial){.opener = stage->trial.opener, .writer = stage->trial.writer, .ever_flushed = TRUE};
        ov->port->unlinkat(ov->port, sw_stage_dir(stage), stage->stage_name, 0);
    }
    stage->base = *found;
    sw_mutex_lock(&ov->lock);
    stage->edit = TRUE;
    SwFile *old = sw_node_left_locked(stage->node, stage->file);
    stage->file = sw_file_ref(file);
    stage->materialised = FALSE;
    stage->has_base = TRUE;
    sw_mutex_unlock(&ov->lock);
    sw_file_unref(old);
}

/* S held.  Readable if that can be had, for others of the family read the stage through it. */
static int open_for_place(SwOverlay *ov, SwHandle *handle, SwStage *stage, SwFile **ret_file, SwFound *ret_found)
{
    g_autoptr(SwFile) dir = NULL;
    g_autofree char *name = NULL;
    struct stat st = {.st_mode = 0600};
    int make = stage->has_base ? 0 : O_CREAT, append = handle->flags & O_APPEND;
    sw_ignore(ov->port->statat(ov->port, stage->file->fd, "", &st));
    int r = place_of(ov, handle, &dir, &name);
    if (r < 0)
        return r;
    r = open_current(ov, handle, dir->fd, name, O_RDWR | append | make, st.st_mode & 07777, ret_file, ret_found);
    if (r == -EACCES)
        r = open_current(ov, handle, dir->fd, name, (handle->flags & O_ACCMODE) | append, 0, ret_file, ret_found);
    return r;
}

/* S held.  Nothing is staged now, but the handle is to stay so: what it reads, and edits next, is the current version.
 */
static int catch_up(SwOverlay *ov, SwHandle *handle, SwStage *stage)
{
    g_autoptr(SwFile) dir = NULL, file = NULL;
    g_autofree char *name = NULL;
    SwFound found, had;
    gboolean is_open = stage->state == SW_STAGE_OPEN;
    gboolean clean =
        stage->state == SW_STAGE_COMMITTED || (is_open && (!stage->trial.dirty || sw_stage_is_only_new(stage)));
    gboolean unmade = stage->unmade || (is_open && !stage->edit);
    if (!clean || !stage->parent || stage->klass == SW_CLASS_PRIVATE || place_of(ov, handle, &dir, &name) < 0)
        return 0;
    int r = open_current(ov, handle, dir->fd, name, O_RDONLY, 0, &file, &found);
    if (r == 0)
        r = ov->port->lookat(ov->port, stage->file->fd, "", &had);
    if (r == 0 && (had.st.st_ino != found.st.st_ino || had.tag != found.tag)) {
        rebase_clean(ov, stage, file, &found);
        stage->unmade = unmade;
    }
    return r == -ENOENT || r == -ELOOP || r == -ESTALE ? 0 : r;
}

static int leave_stage(SwOverlay *ov, SwHandle *handle, gboolean may_wait)
{
    SwStage *stage = handle->stage;
    g_autoptr(SwFile) file = NULL;
    SwFound found;
    SW_HOLD(&stage->lock);
    if (stays_staged(handle, stage))
        return catch_up(ov, handle, stage);
    int r = publish_new(stage, may_wait);
    ov->port->become(ov->port, &handle->cred);
    if (r == 0)
        r = open_for_place(ov, handle, stage, &file, &found);
    if (r == -ELOOP)
        return 0; /* somebody is about to make another file there: this one stays a stage */
    if (r < 0)
        return r;
    SwEpoch *epoch;
    r = sw_control_epoch_to_hold(ov->control, &epoch);
    ov->port->become(ov->port, &handle->cred);
    if (r < 0)
        return r;
    handle->epoch = epoch;
    adopt(ov, handle, SW_HANDLE_INPLACE, file, &found);
    rebase_clean(ov, stage, file, &found);
    return 0;
}

int sw_in_place_enter(SwOverlay *ov, const SwCaller *caller, SwHandle *handle, gboolean may_wait)
{
    int r = 0;
    ov->port->become(ov->port, &handle->cred);
    if (sw_handle_kind(handle) == SW_HANDLE_STAGED) {
        r = leave_stage(ov, handle, may_wait);
    } else {
        SW_HOLD(&handle->lock); /* which an appender holds while it follows its file */
        r = refresh(ov, handle);
    }
    if (r < 0)
        return r;
    sw_mutex_lock(&ov->lock);
    gboolean staged = sw_handle_kind(handle) == SW_HANDLE_STAGED;
    if (!staged && !handle->in_place) {
        handle->in_place = TRUE;
        ov->in_place = g_slist_prepend(ov->in_place, handle);
    }
    sw_mutex_unlock(&ov->lock);
    /* What fstat(2) says under a lock is never older than the lock. */
    if (handle->caching != SW_CACHE_NONE)
        forget_pages(ov, handle->node);
    else
        sw_node_forget_told(ov, handle->node);
    return 0;
}

int sw_in_place_leave(SwOverlay *ov, SwHandle *handle, gboolean may_wait)
{
    if (!sw_writes(handle->flags))
        return 0;
    ov->port->become(ov->port, &handle->cred);
    if (sw_handle_kind(handle) == SW_HANDLE_APPEND)
        return sw_append_publish(ov, handle, may_wait);
    if (sw_handle_kind(handle) == SW_HANDLE_INPLACE) {
        /* Stores through a mapping are only in the kernel's pages until those are dropped. */
        if (handle->in_place && (handle->flags & O_ACCMODE) == O_RDWR)
            forget_pages(ov, handle->node);
        if (!ov->network)
            return 0;
        g_autoptr(SwFile) file = sw_handle_file(ov, handle);
        return may_wait ? ov->port->fsync(ov->port, file->fd, TRUE) : -EINPROGRESS;
    }
    SwStage *stage = handle->stage;
    SW_HOLD(&stage->lock);
    if (stage->state != SW_STAGE_OPEN || !stage->trial.dirty || !stage->parent || stage->klass == SW_CLASS_PRIVATE)
        return 0;
    /* Programs unlock as well what they failed to lock. */
    int r = sw_stage_commit_behind(stage, may_wait);
    return MIN(r, 0);
}

/* ---- writing */

int sw_in_place_confirm(SwOverlay *ov, SwHandle *handle)
{
    if (!handle->epoch)
        return 0;
    int r = sw_control_confirm(ov->control, handle->epoch);
    ov->port->become(ov->port, &handle->cred);
    return r;
}

/* Other nodes through which the file of that handle is read and written in place, counted. */
static GPtrArray *peers_locked(SwOverlay *ov, const SwHandle *handle)
{
    GPtrArray *peers = g_ptr_array_new();
    for (GSList *at = ov->in_place; at; at = at->next) {
        const SwHandle *other = at->data;
        gboolean same = other->id.ino == handle->id.ino && other->id.tag == handle->id.tag;
        if (!same || other->node == handle->node || g_ptr_array_find(peers, other->node, NULL))
            continue;
        sw_node_ref_locked(other->node);
        g_ptr_array_add(peers, other->node);
    }
    return peers;
}

/*
 * Handles of one file have pages of their own where they were opened in stages of their own, so what one writes the
 * others have to forget, before write(2) returns.  Dropping pages waits for those that are being written, and these
 * wait for their answer: two writers that wait for each other's pages would never answer.  A node that is being written
 * is marked instead, and dropped right after.
 */
ssize_t sw_in_place_write(SwOverlay *ov, SwHandle *handle, const void *buf, size_t size, off_t offset)
{
    g_autoptr(SwFile) file = sw_handle_file(ov, handle);
    sw_mutex_lock(&ov->lock);
    handle->node->in_place_writes++;
    sw_mutex_unlock(&ov->lock);
    ssize_t n = ov->port->pwrite(ov->port, file->fd, buf, size, offset);
    sw_mutex_lock(&ov->lock);
    g_autoptr(GPtrArray) peers = peers_locked(ov, handle);
    sw_mutex_unlock(&ov->lock);
    for (guint i = 0; i < peers->len; i++) {
        SwNode *peer = peers->pdata[i];
        sw_mutex_lock(&ov->lock);
        gboolean later = peer->stale = peer->in_place_writes > 0;
        sw_mutex_unlock(&ov->lock);
        if (!later)
            forget_pages(ov, peer);
        sw_node_unref(ov, peer);
    }
    sw_mutex_lock(&ov->lock);
    handle->node->in_place_writes--;
    sw_mutex_unlock(&ov->lock);
    return n;
}

SwNode *sw_overlay_take_stale(SwOverlay *ov, SwHandle *handle)
{
    SwNode *node = NULL;
    SW_HOLD(&ov->lock);
    if (handle->node->stale && !handle->node->in_place_writes) {
        node = handle->node;
        node->stale = FALSE;
        sw_node_ref_locked(node);
    }
    return node;
}

void sw_overlay_drop_stale(SwOverlay *ov, SwNode *node)
{
    if (!node)
        return;
    forget_pages(ov, node);
    sw_node_unref(ov, node);
}
