/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "reply.h"

#include "server_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

SwServer *sw_server_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

SwOverlay *sw_overlay_of(fuse_req_t req)
{
    return sw_server_of(req)->overlay;
}

SwCaller sw_caller_of(fuse_req_t req)
{
    SwServer *server = sw_server_of(req);
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    SwCaller caller = {.cred = {.uid = ctx->uid, .gid = ctx->gid}, .tid = ctx->pid, .umask = ctx->umask};
    /* Without /proc the caller is given fewer rights than it has, never more. */
    if (server->privileged && ctx->uid != 0 && ctx->pid)
        sw_ignore(server->port->groups(server->port, ctx->pid, &caller.cred));
    return caller;
}

SwNode *sw_node_of(SwOverlay *overlay, fuse_ino_t ino)
{
    return ino == FUSE_ROOT_ID ? sw_overlay_root(overlay) : sw_overlay_node(overlay, ino);
}

fuse_ino_t sw_ino_of(SwOverlay *overlay, SwNode *node)
{
    return node == sw_overlay_root(overlay) ? FUSE_ROOT_ID : sw_overlay_node_id(overlay, node);
}

SwHandle *sw_handle_of(SwOverlay *overlay, const struct fuse_file_info *fi)
{
    return fi ? sw_overlay_handle(overlay, fi->fh) : NULL;
}

/* What was put aside is answered by a thread that serves nothing. */
static void trace(fuse_req_t req, const char *operation, int r)
{
    SwServer *server = sw_server_of(req);
    if (!server->setup.trace || sw_served_failed(r < 0 ? -r : 0))
        return;
    g_autofree char *text = g_strdup_printf("%s, put aside before: %s", operation, r < 0 ? g_strerror(-r) : "done");
    server->setup.trace(text);
}

/* An open, a truncation or a rename that is to walk once more is told so by ESTALE: no error that anybody sees. */
static void count(const SwPort *port, const char *operation, int r)
{
    gboolean walks =
        strcmp(operation, "open") == 0 || strcmp(operation, "setattr") == 0 || strcmp(operation, "rename") == 0;
    sw_count(port, SW_COUNT_ERRORS_IO, r == -EIO);
    sw_count(port, SW_COUNT_ERRORS_STALE, r == -ESTALE && !walks);
    sw_count(port, SW_COUNT_ERRORS_SPACE, r == -ENOSPC || r == -EDQUOT);
}

void sw_reply_error(fuse_req_t req, const char *operation, int r)
{
    count(sw_server_of(req)->port, operation, r);
    trace(req, operation, r);
    fuse_reply_err(req, r < 0 ? -r : 0);
}

struct fuse_entry_param sw_entry_param(SwOverlay *overlay, const SwEntry *entry)
{
    struct fuse_entry_param param = {.ino = sw_ino_of(overlay, entry->node), .attr = entry->st};
    param.entry_timeout = entry->entry_us / (double)G_USEC_PER_SEC;
    param.attr_timeout = entry->attr_us / (double)G_USEC_PER_SEC;
    return param;
}

void sw_reply_entry(fuse_req_t req, const char *operation, int r, SwEntry *entry)
{
    SwOverlay *overlay = sw_overlay_of(req);
    if (r < 0) {
        sw_reply_error(req, operation, r);
        return;
    }
    struct fuse_entry_param param = sw_entry_param(overlay, entry);
    /* An interrupted request never learnt of the node. */
    if (fuse_reply_entry(req, &param) < 0)
        sw_overlay_forget(overlay, entry->node, 1);
}

void sw_reply_attr(fuse_req_t req, const char *operation, int r, const struct stat *st, gint64 attr_us)
{
    if (r < 0)
        sw_reply_error(req, operation, r);
    else
        fuse_reply_attr(req, st, attr_us / (double)G_USEC_PER_SEC);
}

void sw_reply_count(fuse_req_t req, const char *operation, ssize_t n)
{
    if (n < 0)
        sw_reply_error(req, operation, n);
    else
        fuse_reply_write(req, n);
}
