/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading, writing and closing.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>

SwFile *sw_handle_file(SwOverlay *ov, SwHandle *handle)
{
    sw_mutex_lock(&ov->lock);
    SwFile *file = handle->file ? sw_file_ref(handle->file) : NULL;
    sw_mutex_unlock(&ov->lock);
    return file ? file : sw_stage_file(handle->stage);
}

/* Nobody else writes a stage of ours; and who has gone in place with a lock has had the cache dropped by that (C22). */
static gboolean others_may_write(SwOverlay *ov, const SwHandle *handle)
{
    SwHandleKind kind = sw_handle_kind(handle);
    if (kind != SW_HANDLE_STAGED)
        return kind != SW_HANDLE_INPLACE;
    SW_HOLD(&ov->lock);
    return !handle->stage->materialised || handle->stage->state != SW_STAGE_OPEN;
}

/*
 * What is read from now on is to be at least as new as what the kernel was told; or, for a handle of which it caches
 * nothing, as what the source says.  Not everything is that an NFS client has cached (SwPort.read_anew).
 */
static void drop_old_pages(SwOverlay *ov, const SwHandle *handle, const SwFile *file)
{
    struct stat st = {0};
    gboolean told = handle->caching != SW_CACHE_NONE;
    if (!told && ov->port->statat(ov->port, file->fd, "", &st) < 0)
        return;
    sw_mutex_lock(&ov->lock);
    SwStamp now = told ? handle->node->told.stamp : sw_stamp_of(&st);
    gboolean same = sw_stamp_equal(&handle->node->read_as, &now);
    sw_mutex_unlock(&ov->lock);
    if (same)
        return;
    ov->port->read_anew(ov->port, file->fd);
    /* Not before, or who reads at the same time would go on too early. */
    sw_mutex_lock(&ov->lock);
    handle->node->read_as = now;
    sw_mutex_unlock(&ov->lock);
}

ssize_t sw_overlay_read(SwOverlay *ov, SwHandle *handle, void *buf, size_t size, off_t offset)
{
    if (sw_handle_kind(handle) == SW_HANDLE_APPEND)
        sw_ignore(sw_append_publish(ov, handle, TRUE));
    g_autoptr(SwFile) file = sw_handle_file(ov, handle);
    if (ov->network && others_may_write(ov, handle))
        drop_old_pages(ov, handle, file);
    ssize_t n = ov->port->pread(ov->port, file->fd, buf, size, offset);
    sw_count(ov->port, SW_COUNT_READ_BYTES, (guint64)MAX(n, 0));
    return n;
}

/* A stream is published while it grows (C25); from then on it grows in place, like a file that is appended to. */
static gboolean is_streaming(SwOverlay *ov, SwStage *stage, off_t offset)
{
    struct stat st;
    return stage->klass == SW_CLASS_STREAM && stage->state == SW_STAGE_COMMITTED && stage->parent &&
           ov->port->statat(ov->port, stage->file->fd, "", &st) == 0 && st.st_size == offset;
}

static ssize_t write_stage(SwOverlay *ov, const SwCaller *caller, SwStage *stage, const void *buf, size_t size,
                           off_t offset, gboolean append, gboolean mapped)
{
    sw_mutex_lock(&stage->lock);
    if (!append && is_streaming(ov, stage, offset)) {
        ssize_t n = ov->port->pwrite(ov->port, stage->file->fd, buf, size, offset);
        sw_mutex_unlock(&stage->lock);
        return n;
    }
    sw_mutex_unlock(&stage->lock);
    return sw_stage_write(stage, caller, buf, size, offset, append, mapped);
}

ssize_t sw_overlay_write(SwOverlay *ov, const SwCaller *caller, SwHandle *handle, const void *buf, size_t size,
                         off_t offset, gboolean append, gboolean mapped, gboolean may_wait)
{
    ov->port->become(ov->port, &handle->cred);
    switch (sw_handle_kind(handle)) {
    case SW_HANDLE_STAGED:
        return write_stage(ov, caller, handle->stage, buf, size, offset, append && !mapped, mapped);
    case SW_HANDLE_APPEND:
        if (append && !mapped)
            return sw_append_write(ov, handle, caller, buf, size, may_wait);
        break;
    case SW_HANDLE_INPLACE: {
        int r = sw_in_place_confirm(ov, handle);
        if (r < 0)
            return r;
        break;
    }
    case SW_HANDLE_READ:
        return -EBADF;
    }
    if (offset + (off_t)size > SW_LOCK_SIZE_MAX)
        sw_lock_outgrown(ov, handle->node);
    return sw_in_place_write(ov, handle, buf, size, offset);
}

/* The stage that takes what is written through the handle; NULL: it is written elsewhere. */
static SwStage *staged(const SwHandle *handle)
{
    return sw_handle_kind(handle) == SW_HANDLE_STAGED ? handle->stage : NULL;
}

/* S held by the caller: the bytes of [offset, offset + length) are this writer's, whatever they are. */
static void note_range(SwOverlay *ov, const SwCaller *caller, SwStage *stage, off_t offset, off_t length)
{
    if (stage->edit)
        sw_ranges_add(&stage->ranges, offset, length);
    sw_trial_write(&stage->trial, sw_process_of(ov, caller->tid), offset, length);
    sw_stage_touched(stage);
}

/* Calls that shift what follows touch everything from `offset` on. */
static off_t touched_length(SwOverlay *ov, SwStage *stage, int mode, off_t offset, off_t length)
{
    struct stat st;
    if (!(mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) ||
        ov->port->statat(ov->port, stage->file->fd, "", &st) < 0)
        return length;
    return MAX(st.st_size - offset, length) + length;
}

/* Space that was only reserved holds no bytes of this writer: zeros there would overwrite another host's edit. */
static void note_allocation(SwOverlay *ov, const SwCaller *caller, SwStage *stage, int mode, off_t offset, off_t length,
                            off_t old_size)
{
    if (mode & ~FALLOC_FL_KEEP_SIZE) {
        note_range(ov, caller, stage, offset, touched_length(ov, stage, mode, offset, length));
    } else if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + length > old_size) {
        note_range(ov, caller, stage, old_size, offset + length - old_size);
    } else {
        note_range(ov, caller, stage, offset, 0);
    }
}

int sw_overlay_fallocate(SwOverlay *ov, const SwCaller *caller, SwHandle *handle, int mode, off_t offset, off_t length)
{
    ov->port->become(ov->port, &handle->cred);
    SwStage *stage = staged(handle);
    int confirmed = stage ? 0 : sw_in_place_confirm(ov, handle);
    if (confirmed < 0)
        return confirmed;
    if (!stage && sw_handle_kind(handle) == SW_HANDLE_READ)
        return -EBADF;
    g_autoptr(SwFile) file = stage ? NULL : sw_handle_file(ov, handle);
    if (file)
        return ov->port->fallocate(ov->port, file->fd, mode, offset, length);
    SW_HOLD(&stage->lock);
    struct stat st;
    int r = sw_stage_ready(stage, G_MAXUINT64);
    if (r == 0)
        r = ov->port->statat(ov->port, stage->file->fd, "", &st);
    if (r == 0)
        r = ov->port->fallocate(ov->port, stage->file->fd, mode, offset, length);
    if (r == 0)
        note_allocation(ov, caller, stage, mode, offset, length, st.st_size);
    return r;
}

ssize_t sw_overlay_copy_range(SwOverlay *ov, const SwCaller *caller, SwHandle *from, off_t from_offset, SwHandle *to,
                              off_t to_offset, size_t size)
{
    ov->port->become(ov->port, &to->cred);
    g_autoptr(SwFile) source = sw_handle_file(ov, from);
    SwStage *stage = staged(to);
    int confirmed = stage ? 0 : sw_in_place_confirm(ov, to);
    if (confirmed < 0)
        return confirmed;
    if (!stage && sw_handle_kind(to) != SW_HANDLE_INPLACE)
        return -EOPNOTSUPP; /* the kernel then reads and writes, so that an append is a record */
    g_autoptr(SwFile) file = stage ? NULL : sw_handle_file(ov, to);
    if (file)
        return ov->port->copy_range(ov->port, source->fd, from_offset, file->fd, to_offset, size);
    SW_HOLD(&stage->lock);
    int r = sw_stage_ready(stage, G_MAXUINT64);
    if (r < 0)
        return r;
    ssize_t n = ov->port->copy_range(ov->port, source->fd, from_offset, stage->file->fd, to_offset, size);
    if (n > 0)
        note_range(ov, caller, stage, to_offset, n);
    else if (n < 0)
        sw_trial_write_failed(&stage->trial, sw_process_of(ov, caller->tid), to_offset, -n);
    return n;
}

off_t sw_overlay_lseek(SwOverlay *ov, SwHandle *handle, off_t offset, int whence)
{
    g_autoptr(SwFile) file = sw_handle_file(ov, handle);
    return ov->port->lseek(ov->port, file->fd, offset, whence);
}

/* S held.  From here on the bytes survive anything, so it is noted what they are (C7). */
static void mark_synced(SwStage *stage)
{
    if (stage->synced || stage->state != SW_STAGE_OPEN || !stage->materialised || !stage->trial.has_bytes)
        return;
    stage->synced = TRUE;
    sw_stage_describe(stage);
}

int sw_overlay_fsync(SwOverlay *ov, const SwCaller *caller, SwHandle *handle, gboolean data_only, gboolean may_wait)
{
    if (!may_wait)
        return -EINPROGRESS;
    ov->port->become(ov->port, &handle->cred);
    SwStage *stage = staged(handle);
    if (sw_handle_kind(handle) == SW_HANDLE_APPEND) {
        int r = sw_append_flush(ov, handle, caller, TRUE);
        if (r < 0)
            return r;
    }
    g_autoptr(SwFile) file = sw_handle_file(ov, handle);
    int r = ov->port->fsync(ov->port, file->fd, data_only);
    if (r < 0 || !stage)
        return r;
    SW_HOLD(&stage->lock);
    sw_ignore(sw_stage_end_if_taken(stage, FALSE)); /* the state tells */
    if (stage->state == SW_STAGE_GONE)
        return -stage->gone_error;
    mark_synced(stage);
    if (sw_config_of(ov)->fsync == SW_FSYNC_PUBLISH && stage->state == SW_STAGE_OPEN && stage->trial.dirty &&
        stage->parent && stage->klass != SW_CLASS_PRIVATE)
        r = sw_stage_commit(stage, 0, TRUE);
    return r;
}

/* ---- closing */

static void tell_unsure(SwStage *stage, pid_t of)
{
    SwOverlay *ov = stage->overlay;
    sw_mutex_lock(&ov->lock);
    g_autofree char *path = stage->parent ? sw_node_path_locked(stage->parent, stage->name) : NULL;
    sw_mutex_unlock(&ov->lock);
    if (path)
        sw_note(ov, SW_NOTE_DEBUG, "%s: closed, but process %d might still have it open: the last release commits",
                path, of);
}

static int flush_stage(SwOverlay *ov, const SwCaller *caller, SwStage *stage, gboolean may_wait)
{
    SW_HOLD(&stage->lock);
    sw_ignore(sw_stage_end_if_taken(stage, FALSE)); /* the state tells */
    if (stage->state == SW_STAGE_GONE)
        return stage->trial.failure ? -stage->trial.failure : stage->gone_error == ENOENT ? 0 : -stage->gone_error;
    if (stage->state == SW_STAGE_COMMITTED)
        return 0;
    /* Whatever the verdict is going to be, it takes the server: it is asked for once, by who may wait. */
    if (ov->network && stage->materialised && !may_wait)
        return -EINPROGRESS;
    SwFlusher flusher;
    SwEvidence evidence;
    sw_evidence_gather(stage, caller->tid, &flusher, &evidence);
    SwVerdict verdict = sw_trial_flush(&stage->trial, &flusher, &evidence);
    if (!evidence.complete && evidence.unsure_of)
        tell_unsure(stage, evidence.unsure_of);
    if (verdict == SW_VERDICT_HOLD && stage->trial.failure)
        return -stage->trial.failure;
    if (verdict == SW_VERDICT_HOLD && stage->materialised) {
        int r = ov->network ? ov->port->fsync(ov->port, stage->file->fd, FALSE) : 0;
        if (r < 0)
            return r;
        /* Maybe this was the last close after all: the release that tells has nobody to tell of a lost lease (C21). */
        if (sw_stage_end_if_taken(stage, TRUE))
            return -stage->gone_error;
    }
    return sw_stage_execute(stage, verdict, may_wait);
}

/* What was written in place reaches the server at each close, as NFS itself does it (C22). */
static int flush_place(SwOverlay *ov, SwHandle *handle, gboolean may_wait)
{
    if (!handle->in_place || !ov->network)
        return 0;
    g_autoptr(SwFile) file = sw_handle_file(ov, handle);
    return may_wait ? ov->port->fsync(ov->port, file->fd, TRUE) : -EINPROGRESS;
}

static int flush_writer(SwOverlay *ov, const SwCaller *caller, SwHandle *handle, gboolean may_wait)
{
    ov->port->become(ov->port, &handle->cred);
    switch (sw_handle_kind(handle)) {
    case SW_HANDLE_STAGED:
        return flush_stage(ov, caller, handle->stage, may_wait);
    case SW_HANDLE_APPEND:
        return sw_append_flush(ov, handle, caller, may_wait);
    case SW_HANDLE_INPLACE:
        return flush_place(ov, handle, may_wait);
    case SW_HANDLE_READ:
        return 0;
    }
    g_assert_not_reached();
}

int sw_overlay_flush(SwOverlay *ov, const SwCaller *caller, SwHandle *handle, guint64 owner, gboolean may_wait)
{
    int r = sw_writes(handle->flags) ? flush_writer(ov, caller, handle, may_wait) : 0;
    if (r != -EINPROGRESS)
        sw_file_locks_flushed(ov, handle, owner);
    return r;
}

static int release_stage(SwOverlay *ov, SwHandle *handle, gboolean may_wait)
{
    SwStage *stage = handle->stage;
    SW_HOLD(&stage->lock);
    sw_mutex_lock(&ov->lock);
    gboolean last = sw_writes(handle->flags) && stage->n_writers == 1;
    sw_mutex_unlock(&ov->lock);
    int r = 0;
    if (last && stage->state == SW_STAGE_OPEN) {
        SwFlusher opener;
        sw_evidence_opener(stage, &opener);
        r = sw_stage_execute(stage, sw_trial_last_release(&stage->trial, &opener), may_wait);
        if (r == -EINPROGRESS)
            return r;
    }
    sw_mutex_lock(&ov->lock);
    if (sw_writes(handle->flags) && --stage->n_writers == 0)
        sw_lingering_remove_locked(ov, stage);
    sw_mutex_unlock(&ov->lock);
    if (last)
        sw_stage_discard_unwanted(stage);
    return r;
}

static void handle_free(SwOverlay *ov, SwHandle *handle)
{
    sw_file_locks_released(ov, handle);
    SwFile *shown = NULL;
    sw_mutex_lock(&ov->lock);
    int backing = sw_backing_leave_locked(ov, handle);
    handle->node->handles = g_slist_remove(handle->node->handles, handle);
    if (!handle->node->handles)
        shown = g_steal_pointer(&handle->node->shown);
    ov->in_place = g_slist_remove(ov->in_place, handle);
    ov->appenders = g_slist_remove(ov->appenders, handle);
    sw_old_unwatch_locked(ov, handle);
    sw_mutex_unlock(&ov->lock);
    sw_backing_close(ov, backing);
    sw_file_unref(shown);
    sw_file_unref(handle->file);
    sw_old_released(ov, &handle->held);
    sw_stage_unref(handle->stage);
    sw_node_unref(ov, handle->node);
    sw_node_unref(ov, handle->bearer);
    sw_node_unref(ov, handle->parent);
    g_free(handle->name);
    if (handle->pending)
        g_byte_array_unref(handle->pending);
    sw_mutex_clear(&handle->lock);
    sw_ids_drop(ov, handle->kernel_id);
    g_free(handle);
}

int sw_overlay_release(SwOverlay *ov, SwHandle *handle, gboolean may_wait)
{
    int r = 0;
    ov->port->become(ov->port, &handle->cred);
    if (handle->stage)
        r = release_stage(ov, handle, may_wait);
    else if (sw_handle_kind(handle) == SW_HANDLE_APPEND)
        r = sw_append_publish(ov, handle, may_wait);
    if (r != -EINPROGRESS)
        handle_free(ov, handle);
    return r;
}
