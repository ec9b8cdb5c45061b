/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE requests that may have to wait for a lease or for the source.
 *
 * Each is tried at once; if the overlay says that it would have to wait, the call moves to another thread, so that the
 * threads that read requests always come back to reading.
 */
#include "ops.h"
#include "reply.h"
#include "server_internal.h"

#include <errno.h>
#include <fcntl.h>

typedef struct Call Call;

struct Call {
    fuse_req_t req;
    SwServer *server;
    SwServed served; /* once it is put off */
    SwCaller caller;
    /* Replies and returns anything but -EINPROGRESS, or returns that and is called again with may_wait. */
    int (*run)(Call *call, gboolean may_wait);
    SwNode *node, *parent, *new_parent;
    SwHandle *handle;
    char *name, *new_name; /* borrowed until the call is put off */
    void *buf;             /* likewise */
    size_t size;
    off_t offset;
    int flags;
    gboolean mapped;
    SwChange change;
    guint64 owner;
};

static void run_later(gpointer data)
{
    Call *call = data;
    sw_served_resume(&call->served);
    call->run(call, TRUE);
    sw_served_end(call->server->serving, &call->served);
    g_free(call->name);
    g_free(call->new_name);
    g_free(call->buf);
    g_free(call);
}

static void start(Call *call)
{
    if (call->run(call, FALSE) != -EINPROGRESS)
        return;
    Call *later = g_memdup2(call, sizeof *call);
    later->name = g_strdup(call->name);
    later->new_name = g_strdup(call->new_name);
    later->buf = call->buf ? g_memdup2(call->buf, call->size) : NULL;
    sw_served_go_on(call->server->serving, &later->served);
    sw_workers_push(call->server->workers, run_later, later);
}

static gboolean is_interrupted(gpointer data)
{
    return fuse_req_interrupted(data) != 0;
}

static Call call_new(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi,
                     int (*run)(Call *call, gboolean may_wait))
{
    SwServer *server = sw_server_of(req);
    Call call = {.req = req, .server = server, .run = run, .caller = sw_caller_of(req)};
    call.caller.interrupted = is_interrupted;
    call.caller.interrupted_data = req;
    call.node = ino ? sw_node_of(server->overlay, ino) : NULL;
    call.handle = sw_handle_of(server->overlay, fi);
    return call;
}

static int run_setattr(Call *call, gboolean may_wait)
{
    struct stat st;
    gint64 attr_us = 0;
    int r = sw_overlay_setattr(call->server->overlay, &call->caller, call->node, call->handle, &call->change, may_wait,
                               &st, &attr_us);
    if (r != -EINPROGRESS)
        sw_reply_attr(call->req, "setattr", r, &st, attr_us);
    return r;
}

static struct timespec time_of(int to_set, int bit, int now_bit, struct timespec given)
{
    if (to_set & now_bit)
        return (struct timespec){.tv_nsec = UTIME_NOW};
    return to_set & bit ? given : (struct timespec){.tv_nsec = UTIME_OMIT};
}

void sw_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    Call call = call_new(req, ino, fi, run_setattr);
    SwChange *change = &call.change;
    change->what = (to_set & FUSE_SET_ATTR_MODE ? SW_SET_MODE : 0) | (to_set & FUSE_SET_ATTR_UID ? SW_SET_UID : 0) |
                   (to_set & FUSE_SET_ATTR_GID ? SW_SET_GID : 0) | (to_set & FUSE_SET_ATTR_SIZE ? SW_SET_SIZE : 0);
    if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW))
        change->what |= SW_SET_TIMES;
    change->mode = attr->st_mode;
    change->uid = attr->st_uid;
    change->gid = attr->st_gid;
    change->size = attr->st_size;
    change->times[0] = time_of(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, attr->st_atim);
    change->times[1] = time_of(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, attr->st_mtim);
    start(&call);
}

static int run_rename(Call *call, gboolean may_wait)
{
    int r = sw_overlay_rename(call->server->overlay, &call->caller, call->parent, call->name, call->new_parent,
                              call->new_name, call->flags, may_wait);
    if (r != -EINPROGRESS)
        sw_reply_error(call->req, "rename", r);
    return r;
}

void sw_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                  unsigned int flags)
{
    Call call = call_new(req, 0, NULL, run_rename);
    call.parent = sw_node_of(call.server->overlay, parent);
    call.new_parent = sw_node_of(call.server->overlay, new_parent);
    call.name = (char *)name;
    call.new_name = (char *)new_name;
    call.flags = flags;
    start(&call);
}

static int run_link(Call *call, gboolean may_wait)
{
    SwEntry entry;
    int r =
        sw_overlay_link(call->server->overlay, &call->caller, call->node, call->parent, call->name, may_wait, &entry);
    if (r != -EINPROGRESS)
        sw_reply_entry(call->req, "link", r, &entry);
    return r;
}

void sw_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    Call call = call_new(req, ino, NULL, run_link);
    call.parent = sw_node_of(call.server->overlay, parent);
    call.name = (char *)name;
    start(&call);
}

static int run_write(Call *call, gboolean may_wait)
{
    ssize_t n = sw_overlay_write(call->server->overlay, &call->caller, call->handle, call->buf, call->size,
                                 call->offset, (call->flags & O_APPEND) != 0, call->mapped, may_wait);
    if (n == -EINPROGRESS)
        return n;
    sw_count(call->server->port, SW_COUNT_WRITTEN_BYTES, (guint64)MAX(n, 0));
    SwOverlay *ov = call->server->overlay;
    SwNode *stale = sw_overlay_take_stale(ov, call->handle);
    sw_reply_count(call->req, "write", n);
    sw_overlay_drop_stale(ov, stale);
    return n < 0 ? n : 0;
}

void sw_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
    Call call = call_new(req, ino, fi, run_write);
    call.buf = (char *)buf;
    call.size = size;
    call.offset = offset;
    call.flags = fi->flags;
    call.mapped = fi->writepage;
    start(&call);
}

static int run_flush(Call *call, gboolean may_wait)
{
    int r = sw_overlay_flush(call->server->overlay, &call->caller, call->handle, call->owner, may_wait);
    if (r != -EINPROGRESS)
        sw_reply_error(call->req, "flush", r);
    return r;
}

void sw_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    Call call = call_new(req, ino, fi, run_flush);
    call.owner = fi->lock_owner;
    start(&call);
}

static int run_release(Call *call, gboolean may_wait)
{
    int r = sw_overlay_release(call->server->overlay, call->handle, may_wait);
    if (r != -EINPROGRESS)
        sw_reply_error(call->req, "release", r);
    return r;
}

void sw_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    Call call = call_new(req, ino, fi, run_release);
    start(&call);
}

static int run_fsync(Call *call, gboolean may_wait)
{
    int r = sw_overlay_fsync(call->server->overlay, &call->caller, call->handle, call->flags, may_wait);
    if (r != -EINPROGRESS)
        sw_reply_error(call->req, "fsync", r);
    return r;
}

void sw_op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    Call call = call_new(req, ino, fi, run_fsync);
    call.flags = data_only;
    start(&call);
}
