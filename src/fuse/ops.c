/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE requests that never wait for another host: decode, call, reply.  Those that may are in ops_waiting.c.
 */
#include "ops.h"

#include "backing.h"
#include "reply.h"
#include "server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/limits.h>
#include <string.h>

static SwDirHandle *dir_of(fuse_req_t req, const struct fuse_file_info *fi)
{
    return sw_overlay_dir(sw_overlay_of(req), fi->fh);
}

static int set_handle(SwOverlay *ov, struct fuse_file_info *fi, SwHandle *handle, SwNode *node)
{
    SwManner manner;
    int r = sw_handle_settle(ov, handle, node, &manner);
    fi->fh = sw_overlay_handle_id(ov, handle);
    fi->keep_cache = manner.caching == SW_CACHE_KEEP;
    fi->direct_io = manner.caching == SW_CACHE_NONE;
#ifdef FUSE_CAP_PASSTHROUGH
    fi->backing_id = manner.backing;
#endif
    return r;
}

static void op_init(void *data, struct fuse_conn_info *conn)
{
    SwServer *server = data;
    static const unsigned wanted = FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_DONT_MASK | FUSE_CAP_AUTO_INVAL_DATA |
                                   FUSE_CAP_READDIRPLUS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS;
    unsigned acls = sw_overlay_has_acls(server->overlay) ? FUSE_CAP_POSIX_ACL : 0;
    conn->want |= (wanted | acls) & conn->capable;
    /* Which listings are to have attributes is known better here (sw_overlay_listed) than to the kernel, which takes
     * the first page of each for one that is.
     */
    conn->want &= ~FUSE_CAP_READDIRPLUS_AUTO;
    /* Written-back pages have no writer (C4), and a pipe per request costs more than a copy (F32). */
    conn->want &= ~(FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ);
    /* Requests would come past readers.c, if only FUSE_URING_ENABLE stands in somebody's environment. */
    conn->want &= ~FUSE_CAP_OVER_IO_URING;
    /* A chown(2) that changes nothing drops set-id bits, but its SETATTR names no owner: only the kernel can tell.  And
     * look-ups that overtake changes of their directory have not been tried: libfuse before 3.17 does not pass that on.
     */
    conn->want &= ~(FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_PARALLEL_DIROPS);
    conn->max_background = 64;
    conn->time_gran = 1;
    sw_backing_greet(server, conn);
    sw_greeting_settle(&server->greeting, conn);
    sw_overlay_set_max_write(server->overlay, conn->max_write);
    g_atomic_int_set(&server->greeted, TRUE);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    SwEntry entry;
    int r = sw_overlay_lookup(ov, &caller, sw_node_of(ov, parent), name, &entry);
    sw_reply_entry(req, "lookup", r, &entry);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    SwOverlay *ov = sw_overlay_of(req);
    sw_overlay_forget(ov, sw_node_of(ov, ino), n);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    SwOverlay *ov = sw_overlay_of(req);
    for (size_t i = 0; i < count; i++)
        sw_overlay_forget(ov, sw_node_of(ov, forgets[i].ino), forgets[i].nlookup);
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    struct stat st;
    gint64 attr_us = 0;
    SwNode *node = sw_node_of(ov, ino);
    int r = sw_overlay_getattr(ov, &caller, node, sw_handle_of(sw_overlay_of(req), fi), &st, &attr_us);
    sw_reply_attr(req, "getattr", r, &st, attr_us);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    char target[PATH_MAX + 1];
    ssize_t n = sw_overlay_readlink(ov, &caller, sw_node_of(ov, ino), target, PATH_MAX);
    if (n < 0) {
        sw_reply_error(req, "readlink", n);
        return;
    }
    target[n] = '\0';
    fuse_reply_readlink(req, target);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    SwEntry entry;
    sw_reply_entry(req, "mkdir", sw_overlay_mkdir(ov, &caller, sw_node_of(ov, parent), name, mode, &entry), &entry);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    SwEntry entry;
    int r = sw_overlay_mknod(ov, &caller, sw_node_of(ov, parent), name, mode, dev, &entry);
    sw_reply_entry(req, "mknod", r, &entry);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    SwEntry entry;
    int r = sw_overlay_symlink(ov, &caller, target, sw_node_of(ov, parent), name, &entry);
    sw_reply_entry(req, "symlink", r, &entry);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    sw_reply_error(req, "unlink", sw_overlay_unlink(ov, &caller, sw_node_of(ov, parent), name));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    sw_reply_error(req, "rmdir", sw_overlay_rmdir(ov, &caller, sw_node_of(ov, parent), name));
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    SwHandle *handle;
    int r = sw_overlay_open(ov, &caller, sw_node_of(ov, ino), fi->flags, &handle);
    if (r < 0) {
        sw_reply_error(req, "open", r);
        return;
    }
    r = set_handle(ov, fi, handle, sw_node_of(ov, ino));
    if (r < 0)
        sw_reply_error(req, "open", r);
    if (r < 0 || fuse_reply_open(req, fi) < 0)
        sw_ignore(sw_overlay_release(ov, handle, TRUE));
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    SwNode *dir = sw_node_of(ov, parent);
    SwEntry entry;
    SwHandle *handle;
    gboolean tmpfile = (fi->flags & O_TMPFILE) == O_TMPFILE && strcmp(name, SW_TMPFILE_NAME) == 0;
    int r = tmpfile ? sw_overlay_tmpfile(ov, &caller, dir, mode, fi->flags, &entry, &handle)
                    : sw_overlay_create(ov, &caller, dir, name, mode, fi->flags, &entry, &handle);
    if (r < 0) {
        sw_reply_error(req, "create", r);
        return;
    }
    struct fuse_entry_param param = sw_entry_param(ov, &entry);
    r = set_handle(ov, fi, handle, entry.node);
    if (r < 0)
        sw_reply_error(req, "create", r);
    if (r < 0 || fuse_reply_create(req, &param, fi) < 0) {
        sw_ignore(sw_overlay_release(ov, handle, TRUE));
        sw_overlay_forget(ov, entry.node, 1);
    }
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    g_autofree char *buf = g_malloc(size);
    ssize_t n = sw_overlay_read(sw_overlay_of(req), sw_handle_of(sw_overlay_of(req), fi), buf, size, offset);
    if (n < 0)
        sw_reply_error(req, "read", n);
    else
        fuse_reply_buf(req, buf, n);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                         struct fuse_file_info *fi)
{
    SwCaller caller = sw_caller_of(req);
    int r =
        sw_overlay_fallocate(sw_overlay_of(req), &caller, sw_handle_of(sw_overlay_of(req), fi), mode, offset, length);
    sw_reply_error(req, "fallocate", r);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi,
                               fuse_ino_t to, off_t to_offset, struct fuse_file_info *to_fi, size_t size, int flags)
{
    SwCaller caller = sw_caller_of(req);
    ssize_t n = sw_overlay_copy_range(sw_overlay_of(req), &caller, sw_handle_of(sw_overlay_of(req), from_fi),
                                      from_offset, sw_handle_of(sw_overlay_of(req), to_fi), to_offset, size);
    sw_reply_count(req, "copy_file_range", n);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
    off_t at = sw_overlay_lseek(sw_overlay_of(req), sw_handle_of(sw_overlay_of(req), fi), offset, whence);
    if (at < 0)
        sw_reply_error(req, "lseek", at);
    else
        fuse_reply_lseek(req, at);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    SwCaller caller = sw_caller_of(req);
    struct statvfs st;
    int r = sw_overlay_statfs(sw_overlay_of(req), &caller, &st);
    if (r < 0)
        sw_reply_error(req, "statfs", r);
    else
        fuse_reply_statfs(req, &st);
}

/* ---- extended attributes: a size of 0 asks how large the answer is */

static void reply_xattr(fuse_req_t req, const char *operation, ssize_t n, const char *buf, size_t size)
{
    if (n < 0)
        sw_reply_error(req, operation, n);
    else if (size == 0)
        fuse_reply_xattr(req, n);
    else
        fuse_reply_buf(req, buf, n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *key, size_t size)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    g_autofree char *buf = size ? g_malloc(size) : NULL;
    ssize_t n = sw_overlay_getxattr(ov, &caller, sw_node_of(ov, ino), key, buf, size);
    reply_xattr(req, "getxattr", n, buf, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    g_autofree char *buf = size ? g_malloc(size) : NULL;
    ssize_t n = sw_overlay_listxattr(ov, &caller, sw_node_of(ov, ino), buf, size);
    reply_xattr(req, "listxattr", n, buf, size);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *key, const char *value, size_t size, int flags)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    sw_reply_error(req, "setxattr", sw_overlay_setxattr(ov, &caller, sw_node_of(ov, ino), key, value, size, flags));
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *key)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    sw_reply_error(req, "removexattr", sw_overlay_removexattr(ov, &caller, sw_node_of(ov, ino), key));
}

/* ---- directories */

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    SwDirHandle *handle;
    int r = sw_overlay_opendir(ov, &caller, sw_node_of(ov, ino), &handle);
    if (r < 0) {
        sw_reply_error(req, "opendir", r);
        return;
    }
    gboolean right;
    fi->fh = sw_overlay_dir_id(ov, handle);
    fi->cache_readdir = sw_dir_handle_keeps(handle, &right);
    fi->keep_cache = right;
    if (fuse_reply_open(req, fi) < 0)
        sw_overlay_releasedir(ov, handle);
}

typedef struct {
    fuse_req_t req;
    SwOverlay *overlay;
    const SwCaller *caller;
    SwDirHandle *dir;
    off_t offset;
    char *buf;
    size_t size, used;
} Listing;

static gboolean fill_plain(gpointer data, const char *name, const struct stat *st, off_t next)
{
    Listing *list = data;
    size_t room = list->size - list->used;
    size_t n = fuse_add_direntry(list->req, list->buf + list->used, room, name, st, next);
    if (n > room)
        return FALSE;
    list->used += n;
    return TRUE;
}

static gboolean fill_plus(gpointer data, const char *name, const struct stat *st, off_t next)
{
    Listing *list = data;
    SwEntry entry;
    size_t room = list->size - list->used;
    gboolean dots = strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
    /* What cannot be looked up is listed without attributes; the kernel will ask for them. */
    gboolean known = !dots && sw_overlay_listed(list->overlay, list->caller, list->dir, name, list->offset, &entry);
    struct fuse_entry_param param = {.attr = *st};
    if (known)
        param = sw_entry_param(list->overlay, &entry);
    size_t n = fuse_add_direntry_plus(list->req, list->buf + list->used, room, name, &param, next);
    if (n > room && known)
        sw_overlay_forget(list->overlay, entry.node, 1);
    if (n > room)
        return FALSE;
    list->used += n;
    return TRUE;
}

/* The kernel never learnt of what a listing with attributes tells. */
static void forget_listed(const Listing *list)
{
    for (size_t at = 0; at < list->used;) {
        const struct fuse_direntplus *listed = (const void *)(list->buf + at);
        if (listed->entry_out.nodeid)
            sw_overlay_forget(list->overlay, sw_node_of(list->overlay, listed->entry_out.nodeid), 1);
        at += FUSE_DIRENTPLUS_SIZE(listed);
    }
}

static void list_dir(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, SwFillFunc fill)
{
    SwOverlay *ov = sw_overlay_of(req);
    SwCaller caller = sw_caller_of(req);
    g_autofree char *buf = g_malloc(size);
    Listing list = {.req = req, .overlay = ov, .caller = &caller, .buf = buf, .size = size};
    list.dir = dir_of(req, fi);
    list.offset = offset;
    int r = sw_overlay_readdir(ov, &caller, dir_of(req, fi), offset, fill, &list);
    if (r < 0 && list.used == 0)
        sw_reply_error(req, "readdir", r);
    else if (fuse_reply_buf(req, buf, list.used) < 0 && fill == fill_plus)
        forget_listed(&list);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    list_dir(req, size, offset, fi, fill_plain);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    list_dir(req, size, offset, fi, fill_plus);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    sw_overlay_releasedir(sw_overlay_of(req), dir_of(req, fi));
    fuse_reply_err(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    sw_reply_error(req, "fsyncdir", sw_overlay_fsyncdir(sw_overlay_of(req), dir_of(req, fi)));
}

const struct fuse_lowlevel_ops sw_fuse_ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = sw_op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = sw_op_rename,
    .link = sw_op_link,
    .open = op_open,
    .read = op_read,
    .write = sw_op_write,
    .flush = sw_op_flush,
    .release = sw_op_release,
    .fsync = sw_op_fsync,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .statfs = op_statfs,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
    .create = op_create,
    .fallocate = op_fallocate,
    .copy_file_range = op_copy_file_range,
    .lseek = op_lseek,
    .getlk = sw_op_getlk,
    .setlk = sw_op_setlk,
    .flock = sw_op_flock,
    .ioctl = sw_op_ioctl,
};
