/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flock(2), fcntl(2) and OFD locks (C22).
 *
 * A request is tried at once.  What it does beyond the lock itself (a commit, another version) may have to wait, and
 * then goes on in another thread; a request that waits for the lock is put aside without one, and comes back when it
 * has it.
 */
#include "ops.h"
#include "reply.h"
#include "server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

typedef struct {
    fuse_req_t req;
    SwServer *server;
    SwCaller caller;
    SwHandle *handle;
    SwFileLock lock;
    int waited; /* how waiting for it ended */
    /* of one that may wait: as it was read, for the daemon that follows */
    GByteArray *message;
} Locking;

static void locking_free(Locking *locking)
{
    if (locking->message)
        g_byte_array_unref(locking->message);
    g_free(locking);
}

static void run_later(gpointer data);

static void waited(gpointer data, int result)
{
    Locking *locking = data;
    locking->waited = result;
    sw_workers_push(locking->server->workers, run_later, locking);
}

/* Replies and frees, or hands on. */
static void run(Locking *locking, gboolean may_wait)
{
    SwOverlay *ov = locking->server->overlay;
    int r = locking->waited;
    if (r == 0)
        r = sw_overlay_lock(ov, &locking->caller, locking->handle, &locking->lock, may_wait);
    if (r == -EINPROGRESS) {
        sw_workers_push(locking->server->workers, run_later, locking);
        return;
    }
    if (r == -EAGAIN && locking->lock.waits) {
        r = sw_overlay_lock_wait(ov, &locking->caller, locking->handle, &locking->lock, waited, locking);
        if (r == 0)
            return; /* it may be freed by now */
    }
    sw_reply_error(locking->req, "lock", r);
    locking_free(locking);
}

static void run_later(gpointer data)
{
    run(data, TRUE);
}

static gboolean is_interrupted(gpointer data)
{
    return fuse_req_interrupted(data) != 0;
}

static void interrupted(fuse_req_t req, void *data)
{
    (void)req;
    sw_locking_kick(data);
}

static void start(fuse_req_t req, const struct fuse_file_info *fi, const SwFileLock *lock)
{
    Locking *locking = g_new0(Locking, 1);
    *locking = (Locking){.req = req, .server = sw_server_of(req), .caller = sw_caller_of(req), .lock = *lock};
    locking->handle = sw_handle_of(sw_overlay_of(req), fi);
    locking->caller.interrupted = is_interrupted;
    locking->caller.interrupted_data = req;
    if (lock->waits) {
        gsize size;
        const void *message = sw_served_message(&size);
        if (message)
            locking->message = g_byte_array_append(g_byte_array_new(), message, (guint)size);
        fuse_req_interrupt_func(req, interrupted, locking->server->locking);
    }
    run(locking, FALSE);
}

static SwFileLock range_of(fuse_req_t req, const struct fuse_file_info *fi, const struct flock *lock)
{
    SwFileLock range = {.start = (guint64)lock->l_start, .end = SW_RANGE_END, .owner = fi->lock_owner};
    if (lock->l_len > 0)
        range.end = (guint64)(lock->l_start + (lock->l_len - 1));
    range.mode = lock->l_type == F_WRLCK ? SW_RANGE_WRITE : lock->l_type == F_RDLCK ? SW_RANGE_READ : SW_RANGE_NONE;
    range.pid = fuse_req_ctx(req)->pid;
    return range;
}

void sw_op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
    SwFileLock range = range_of(req, fi, lock);
    range.waits = sleep != 0;
    start(req, fi, &range);
}

void sw_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int operation)
{
    int how = operation & ~LOCK_NB;
    SwFileLock whole = {.flock = TRUE, .end = SW_RANGE_END, .owner = fi->lock_owner};
    whole.mode = how == LOCK_EX ? SW_RANGE_WRITE : how == LOCK_SH ? SW_RANGE_READ : SW_RANGE_NONE;
    whole.pid = fuse_req_ctx(req)->pid;
    whole.waits = !(operation & LOCK_NB);
    start(req, fi, &whole);
}

void sw_op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
    SwFileLock range = range_of(req, fi, lock), other;
    int r = sw_overlay_test_lock(sw_overlay_of(req), sw_handle_of(sw_overlay_of(req), fi), &range, &other);
    if (r < 0) {
        sw_reply_error(req, "getlk", r);
        return;
    }
    struct flock answer = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    if (other.mode != SW_RANGE_NONE) {
        answer.l_type = other.mode == SW_RANGE_WRITE ? F_WRLCK : F_RDLCK;
        answer.l_start = (off_t)other.start;
        answer.l_len = other.end >= SW_RANGE_END ? 0 : (off_t)(other.end - other.start + 1);
        answer.l_pid = other.pid;
    }
    fuse_reply_lock(req, &answer);
}

/* ---- for the daemon that follows */

void sw_waiting_locks_carry(SwServer *server, SwBundle *bundle, GPtrArray *messages)
{
    g_autoptr(GPtrArray) waits = sw_bundle_is_out(bundle) ? sw_overlay_lock_waits(server->overlay) : g_ptr_array_new();
    guint n = sw_bundle_count(bundle, waits->len, G_MAXINT32);
    for (guint i = 0; i < n; i++) {
        GByteArray *message = i < waits->len ? ((Locking *)waits->pdata[i])->message : NULL;
        sw_bundle_array(bundle, &message, SW_LOCK_MESSAGE_MAX);
        if (!message)
            sw_bundle_fail(bundle, "a request that waits for a file lock is not known");
        else if (!sw_bundle_is_out(bundle))
            g_ptr_array_add(messages, message);
    }
}
