/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Appends (C11): each write(2) is one record at the then end of the file, under the lease on its content.
 *
 * A record longer than one WRITE arrives in pieces.  They are collected, and published together with the first piece
 * that is not full, at a flush, or when no further one came for `append-interval`; until then nobody sees any of it. Of
 * a writer that is killed meanwhile it cannot be known whether its write(2) was complete, so they go to salvage: a torn
 * record would harm every reader.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* A single write(2) longer than this is published in parts. */
#define RECORD_MAX (64u << 20)
#define PAGE_BYTES 4096
#define LEASE_WAIT_US (600 * G_USEC_PER_SEC)

/* Bytes short of the largest WRITE by which a piece may be smaller and yet not be the last: the first one ends at a
 * page boundary. */
#define PIECE_SLACK 8192

/* The name that the handle was opened by, or where this host has renamed the file to since.  FALSE: it has none. */
static gboolean name_of(SwOverlay *ov, const SwHandle *handle, SwNode **ret_parent, char **ret_name)
{
    SW_HOLD(&ov->lock);
    const SwName *at = handle->bearer->names;
    while (at && (at->parent != handle->parent || strcmp(at->name, handle->name) != 0))
        at = at->next;
    if (!at)
        at = handle->bearer->names;
    if (!at)
        return FALSE;
    sw_node_ref_locked(at->parent);
    *ret_parent = at->parent;
    *ret_name = g_strdup(at->name);
    return TRUE;
}

/* Goes on in the file that was found at that name, and is open as `fd`. */
static void change_file(SwOverlay *ov, SwHandle *handle, const SwFound *found, int fd, SwNode *parent, const char *name)
{
    SwNode *node = sw_node_get(ov, found, parent, name);
    SwFile *file = sw_file_new(ov->port, fd);
    sw_mutex_lock(&ov->lock);
    SwFile *old_file = sw_node_left_locked(handle->node, handle->file);
    SwNode *old_node = handle->bearer;
    handle->file = file;
    handle->bearer = node;
    handle->id = (SwIdentity){.ino = found->st.st_ino, .tag = found->tag};
    handle->links = found->st.st_nlink;
    sw_mutex_unlock(&ov->lock);
    sw_file_unref(old_file);
    sw_node_unref(ov, old_node);
}

static int open_present(SwOverlay *ov, SwHandle *handle, SwNode *parent, const char *name)
{
    g_autoptr(SwFile) dir = NULL;
    SwFound found;
    if (sw_node_dir(ov, parent, &dir) < 0 || sw_look_fresh(ov, dir->fd, name, &found) < 0 || !S_ISREG(found.st.st_mode))
        return 0; /* unlinked: the record goes where the handle's file is, as POSIX has it */
    if (sw_identity_is(&handle->id, &found))
        return 0;
    int fd = ov->port->openat(ov->port, dir->fd, name, (handle->flags & O_ACCMODE) | sw_shared_flags(ov), 0);
    if (fd < 0)
        return fd;
    int r = ov->port->lookat(ov->port, fd, "", &found);
    if (r < 0) {
        ov->port->close(ov->port, fd);
        return r;
    }
    change_file(ov, handle, &found, fd, parent, name);
    return 1;
}

/* Opens the version that stands at the handle's name, and goes on in it.  1; 0: there is none, or it is the same. */
static int follow(SwOverlay *ov, SwHandle *handle)
{
    SwNode *parent;
    g_autofree char *name = NULL;
    if (!name_of(ov, handle, &parent, &name))
        return 0;
    int r = open_present(ov, handle, parent, name);
    sw_node_unref(ov, parent);
    return r;
}

/* Where old versions are kept, one that was replaced has lost no link.  That its name leads elsewhere is not enough:
 * the file may have been renamed. */
static gboolean is_kept(SwOverlay *ov, SwHandle *handle)
{
    SwNode *parent;
    g_autofree char *name = NULL;
    g_autoptr(SwFile) dir = NULL;
    SwFound found;
    if (!sw_control_keeps_old(ov->control) || !name_of(ov, handle, &parent, &name))
        return FALSE;
    int r = sw_node_dir_fresh(ov, parent, &dir);
    sw_node_unref(ov, parent);
    if (r < 0 || sw_look(ov, dir->fd, name, &found, NULL) < 0 || sw_identity_is(&handle->id, &found))
        return FALSE;
    gboolean kept = sw_control_has_old(ov->control, handle->id.ino);
    ov->port->become(ov->port, &handle->cred);
    return kept;
}

/*
 * The lease in hand: *ret_st is what the server says of the handle's file, as nobody else writes it now.  1: the file
 * was replaced, by a commit or by the copy on which to go on after a break (C11), and the handle follows.  A file that
 * lost one of several names may have lost this one; one that lost none was renamed at most, and is kept.
 */
static int look_at_end(SwOverlay *ov, SwHandle *handle, SwPredecessor predecessor, struct stat *ret_st)
{
    int r = ov->port->stat_fresh(ov->port, handle->file->fd, "", ret_st);
    if (r < 0 && r != -ESTALE)
        return r;
    if (r < 0 || ret_st->st_nlink == 0 || ret_st->st_nlink < handle->links || predecessor == SW_PREDECESSOR_BROKEN ||
        is_kept(ov, handle)) {
        int moved = follow(ov, handle);
        if (moved != 0 || r < 0)
            return moved ? moved : r;
    }
    handle->links = ret_st->st_nlink;
    return 0;
}

/*
 * Stores what is to be written, for whoever finds the lease after our death.  Not before the end is known for sure: an
 * offset that is too small would have others' records cut off.
 */
static int intend(SwOverlay *ov, SwHandle *handle, SwContentLease *lease, gsize size, const struct stat *st)
{
    SwLeaseText intent = {.appending = TRUE, .append_offset = st->st_size, .append_length = size};
    intent.file_ino = st->st_ino;
    SwNode *parent;
    g_autofree char *name = NULL, *path = NULL;
    if (name_of(ov, handle, &parent, &name)) {
        path = sw_node_path(ov, parent, name);
        sw_node_unref(ov, parent);
    }
    if (path && strlen(path) < sizeof intent.path)
        strcpy(intent.path, path);
    int r = sw_content_lease_intend(lease, &intent);
    ov->port->become(ov->port, &handle->cred);
    return r;
}

/* Takes the lease on the file the handle's records belong into; *ret_st is that file's.  `caller`, if any, can end the
 * wait by a signal. */
static int lease_end(SwOverlay *ov, SwHandle *handle, const SwCaller *caller, gsize size, gboolean may_wait,
                     SwContentLease **ret_lease, struct stat *ret_st)
{
    for (;;) {
        SwPredecessor predecessor;
        gint64 deadline = may_wait ? ov->port->now_us(ov->port) + LEASE_WAIT_US : 0;
        int r = sw_content_lease_take(ov->leases, handle->id.ino, NULL, deadline, caller ? caller->interrupted : NULL,
                                      caller ? caller->interrupted_data : NULL, ret_lease, &predecessor);
        ov->port->become(ov->port, &handle->cred);
        if (r < 0)
            return r == -ETIMEDOUT && !may_wait ? -EINPROGRESS : r;
        sw_count(ov->port, SW_COUNT_LEASES_BROKEN, predecessor == SW_PREDECESSOR_BROKEN);
        int moved = look_at_end(ov, handle, predecessor, ret_st);
        if (moved == 0)
            r = intend(ov, handle, *ret_lease, size, ret_st);
        if (moved == 0 && r == 0)
            return 0;
        (void)sw_content_lease_release(*ret_lease);
        ov->port->become(ov->port, &handle->cred);
        if (r < 0 || moved < 0)
            return r < 0 ? r : moved;
    }
}

/*
 * A write of more than one page can be cut short by a full disk or quota, and btrfs then has no room to cut off what
 * was written: so the room is taken before.  On a network file system that would be one more round trip for each
 * record.
 */
static int reserve(SwOverlay *ov, SwHandle *handle, off_t end, gsize size)
{
    if (ov->network || end % PAGE_BYTES + size <= PAGE_BYTES)
        return 0;
    int r = ov->port->fallocate(ov->port, handle->file->fd, FALLOC_FL_KEEP_SIZE, end, size);
    return r == -ENOSPC || r == -EDQUOT || r == -EFBIG ? r : 0;
}

/* The page that the record goes into may be cached without what others appended, and then reads so after it. */
static void see_what_others_appended(SwOverlay *ov, SwHandle *handle, off_t end, off_t new_end)
{
    sw_mutex_lock(&ov->lock);
    gboolean ours = handle->bearer->appended_to == end;
    handle->bearer->appended_to = new_end;
    sw_mutex_unlock(&ov->lock);
    if (!ours)
        ov->port->read_anew(ov->port, handle->file->fd);
}

static int append_record(SwOverlay *ov, SwHandle *handle, const SwCaller *caller, const void *buf, gsize size,
                         gboolean may_wait)
{
    SwContentLease *lease;
    struct stat st;
    int r = lease_end(ov, handle, caller, size, may_wait, &lease, &st);
    if (r < 0)
        return r;
    r = sw_content_lease_confirm(lease);
    ov->port->become(ov->port, &handle->cred);
    if (r < 0) {
        (void)sw_content_lease_release(lease);
        ov->port->become(ov->port, &handle->cred);
        return r;
    }
    if (ov->network)
        see_what_others_appended(ov, handle, st.st_size, st.st_size + (off_t)size);
    r = reserve(ov, handle, st.st_size, size);
    if (r == 0)
        r = sw_port_write_all(ov->port, handle->file->fd, buf, size, st.st_size);
    if (r < 0)
        (void)ov->port->ftruncate(ov->port, handle->file->fd, st.st_size);
    else if (ov->network)
        r = ov->port->fsync(ov->port, handle->file->fd, TRUE);
    /* The record is there; only if the lease was another's by then, nobody knows. */
    int released = sw_content_lease_release(lease);
    ov->port->become(ov->port, &handle->cred);
    r = r < 0 || released != -ESTALE ? r : released;
    sw_count(ov->port, SW_COUNT_RECORDS, r == 0);
    return r;
}

static int publish_pending(SwOverlay *ov, SwHandle *handle, gboolean may_wait)
{
    if (!handle->pending || !handle->pending->len)
        return 0;
    int r = append_record(ov, handle, NULL, handle->pending->data, handle->pending->len, may_wait);
    if (r == -EINPROGRESS)
        return r;
    sw_mutex_lock(&ov->lock);
    ov->appenders = g_slist_remove(ov->appenders, handle);
    sw_mutex_unlock(&ov->lock);
    g_byte_array_set_size(handle->pending, 0);
    handle->failure = r;
    return r;
}

static int take_failure(SwHandle *handle)
{
    int failure = handle->failure;
    handle->failure = 0;
    return failure;
}

int sw_append_publish(SwOverlay *ov, SwHandle *handle, gboolean may_wait)
{
    SW_HOLD(&handle->lock);
    return publish_pending(ov, handle, may_wait);
}

static gboolean was_killed(SwOverlay *ov, const SwHandle *handle, pid_t tid)
{
    SwProcess process;
    int status;
    return tid > 0 && ov->port->process(ov->port, tid, &process) == 0 && process.exiting &&
           process.tgid == handle->pending_writer && ov->port->exit_status(ov->port, tid, &status) == 0 &&
           (status & 0x7f);
}

/* The collected bytes become a stage of their own that ends as if its writer had been killed (C4). */
static void put_aside(SwOverlay *ov, SwHandle *handle, const SwCaller *caller)
{
    SwNode *parent;
    g_autofree char *name = NULL;
    if (!sw_node_first_name(ov, handle->node, &parent, &name))
        return;
    SwStage *stage = NULL;
    SwCaller owner = {.cred = handle->cred, .tid = caller->tid};
    int r = sw_stage_new_file(ov, &owner, parent, NULL, NULL, 0600, &stage);
    if (r == 0) {
        sw_mutex_lock(&stage->lock);
        r = sw_port_write_all(ov->port, stage->file->fd, handle->pending->data, handle->pending->len, 0);
        sw_trial_write(&stage->trial, stage->trial.opener, 0, handle->pending->len);
        sw_mutex_lock(&ov->lock);
        sw_node_ref_locked(parent);
        stage->parent = parent;
        stage->name = g_steal_pointer(&name);
        sw_mutex_unlock(&ov->lock);
        sw_stage_discard(stage, "killed", ESTALE);
        sw_mutex_unlock(&stage->lock);
        sw_stage_unref(stage);
    }
    if (r < 0)
        sw_note(ov, SW_NOTE_WARNING, "the last record of a killed writer is lost: %s", g_strerror(-r));
    sw_node_unref(ov, parent);
}

int sw_append_flush(SwOverlay *ov, SwHandle *handle, const SwCaller *caller, gboolean may_wait)
{
    SW_HOLD(&handle->lock);
    if (!handle->pending || !handle->pending->len)
        return take_failure(handle);
    if (sw_config_of(ov)->on_kill == SW_ON_KILL_COMMIT || !was_killed(ov, handle, caller->tid)) {
        int r = publish_pending(ov, handle, may_wait);
        return r == -EINPROGRESS ? r : take_failure(handle);
    }
    put_aside(ov, handle, caller);
    g_byte_array_set_size(handle->pending, 0);
    return 0;
}

static void keep_piece(SwOverlay *ov, SwHandle *handle, const SwCaller *caller, const void *buf, gsize size)
{
    if (!handle->pending)
        handle->pending = g_byte_array_new();
    g_byte_array_append(handle->pending, buf, size);
    handle->pending_since_us = ov->port->now_us(ov->port);
    handle->pending_writer = sw_process_of(ov, caller->tid);
    sw_mutex_lock(&ov->lock);
    if (!g_slist_find(ov->appenders, handle))
        ov->appenders = g_slist_prepend(ov->appenders, handle);
    sw_mutex_unlock(&ov->lock);
}

ssize_t sw_append_write(SwOverlay *ov, SwHandle *handle, const SwCaller *caller, const void *buf, size_t size,
                        gboolean may_wait)
{
    SW_HOLD(&handle->lock);
    /* The pieces before this one were taken, so that write(2) counted them: whoever goes on has to know. */
    if (handle->failure)
        return take_failure(handle);
    gboolean more = size + PIECE_SLACK > __atomic_load_n(&ov->max_write, __ATOMIC_RELAXED);
    gsize waiting = handle->pending ? handle->pending->len : 0;
    if (more && waiting + size < RECORD_MAX) {
        keep_piece(ov, handle, caller, buf, size);
        return size;
    }
    if (!waiting) {
        int r = append_record(ov, handle, caller, buf, size, may_wait);
        return r < 0 ? r : (ssize_t)size;
    }
    g_byte_array_append(handle->pending, buf, size);
    int r = publish_pending(ov, handle, may_wait);
    if (r == -EINPROGRESS)
        g_byte_array_set_size(handle->pending, waiting);
    return r < 0 ? r : (ssize_t)size;
}

int sw_append_truncate(SwOverlay *ov, SwHandle *handle, guint64 size)
{
    SW_HOLD(&handle->lock);
    SwContentLease *lease;
    struct stat st;
    int r = publish_pending(ov, handle, TRUE);
    if (r == 0)
        r = lease_end(ov, handle, NULL, 0, TRUE, &lease, &st);
    if (r < 0)
        return r;
    r = ov->port->ftruncate(ov->port, handle->file->fd, size);
    int released = sw_content_lease_release(lease);
    ov->port->become(ov->port, &handle->cred);
    return r < 0 ? r : released;
}

gint64 sw_append_tick(SwOverlay *ov, gint64 now)
{
    gint64 next = G_MAXINT64, apart = sw_config_of(ov)->append_interval_us;
    g_autoptr(GPtrArray) due = g_ptr_array_new();
    sw_mutex_lock(&ov->lock);
    for (GSList *at = ov->appenders; at; at = at->next) {
        SwHandle *handle = at->data;
        /* The lock order forbids waiting for a handle here; one that is busy is not due. */
        if (!sw_mutex_trylock(&handle->lock)) {
            next = MIN(next, now + apart);
        } else if (handle->pending_since_us + apart <= now) {
            g_ptr_array_add(due, handle);
        } else {
            next = MIN(next, handle->pending_since_us + apart);
            sw_mutex_unlock(&handle->lock);
        }
    }
    sw_mutex_unlock(&ov->lock);
    for (guint i = 0; i < due->len; i++) {
        SwHandle *handle = due->pdata[i];
        ov->port->become(ov->port, &handle->cred);
        int r = publish_pending(ov, handle, TRUE);
        sw_mutex_unlock(&handle->lock);
        if (r < 0)
            sw_note(ov, SW_NOTE_WARNING, "a record could not be appended: %s", g_strerror(-r));
    }
    return next;
}
