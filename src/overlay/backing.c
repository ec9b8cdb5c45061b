/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Passthrough: a large file is read by the kernel itself (docs/design.md).
 *
 * The kernel fails an open(2) with EIO that does not go with the others of its node: either all go by a backing file,
 * and all by the same one, or none does.  So a node has a backing from the first handle that is passed through until
 * the last that goes by it; and one of which the kernel has handles without a backing gets none.  What is opened while
 * a node has one:
 *
 *   to read that file                            passed through
 *   to write it, or to be read uncached;         served by us, and mapped by the kernel
 *   another file that has to be served in the
 *   node (open_here), if nobody could store into
 *   a mapping of it
 *   another one                                  refused, for its stores would go to the wrong file
 */
#include "internal.h"

#include <errno.h>

/* Smaller ones are not faster for it (docs/performance.md). */
#define PASSED_MIN (1024 * 1024)
#define TRIAL_NAME "backing"

const char *sw_overlay_bars_passthrough(SwOverlay *ov)
{
    if (sw_config_of(ov)->passthrough == SW_PASSTHROUGH_OFF)
        return "passthrough=off";
    /* What is read there has to be at least as new as what the server says (drop_old_pages in io.c), and a mapping
     * outlives its handle, by which an old version is kept.
     */
    return ov->network ? "the source is a network file system" : NULL;
}

void sw_overlay_offer_passthrough(SwOverlay *ov, const SwBackingCalls *calls)
{
    ov->backing_calls = *calls;
    ov->backing_barred = NULL;
}

void sw_overlay_refuse_passthrough(SwOverlay *ov, const char *why)
{
    ov->backing_barred = why;
}

/* ---- does it work with this source? */

/* Whoever opens with O_DIRECT has the kernel open the backing so, which is to succeed. */
static int try_file(SwOverlay *ov, int dir)
{
    SwPort *port = ov->port;
    int fd = port->openat(port, dir, TRIAL_NAME, O_RDWR | O_CREAT | O_EXCL | O_DIRECT, 0600);
    int id = fd < 0 ? fd : ov->backing_calls.open(ov->backing_calls.data, fd);
    if (id > 0)
        ov->backing_calls.close(ov->backing_calls.data, id);
    if (fd >= 0)
        port->close(port, fd);
    port->unlinkat(port, dir, TRIAL_NAME, 0);
    return MIN(id, 0);
}

/* Will it be so at the next try as well? */
static gboolean is_lasting(int error)
{
    return error == 0 || error == -ELOOP || error == -EINVAL || error == -EPERM || error == -EOPNOTSUPP;
}

/* Tried with the first file that it is wanted for: the kernel takes no backing before it has been greeted. */
static gboolean is_possible(SwOverlay *ov)
{
    if (!ov->backing_calls.open)
        return FALSE;
    ov->port->become(ov->port, NULL);
    SW_HOLD(&ov->backing_lock);
    if (!ov->backing_tried)
        ov->backing_error = try_file(ov, sw_control_stage_dir(ov->control, 0));
    ov->backing_tried = is_lasting(ov->backing_error);
    return ov->backing_error == 0;
}

char *sw_backing_text(SwOverlay *ov)
{
    if (is_possible(ov))
        return g_strdup("used");
    const char *why = ov->backing_barred;
    SW_HOLD(&ov->backing_lock);
    if (!why && ov->backing_error == -ELOOP)
        why = "the source is on a stacked file system";
    return g_strdup_printf("not used: %s", why ? why : g_strerror(-ov->backing_error));
}

/* ---- one handle */

static gboolean same_file(const SwNode *node, const SwHandle *handle)
{
    const SwIdentity *of = &node->backing->of;
    return handle && handle->file && handle->id.ino == of->ino && handle->id.tag == of->tag;
}

/* Reads come from the file that the node stands for, and from its page cache. */
static gboolean is_plain_reader(const SwHandle *handle)
{
    return handle->kind == SW_HANDLE_READ && handle->caching != SW_CACHE_NONE && !(handle->flags & O_DIRECT);
}

/* Nobody reads or maps by it.  Past the kernel's pages what is written is copied once less, and no GETXATTR comes
 * before each write(2); of what others have read of the stage, the kernel drops what is written over. */
static gboolean is_plain_writer(const SwHandle *handle)
{
    return handle->kind == SW_HANDLE_STAGED && (handle->flags & O_ACCMODE) == O_WRONLY;
}

/* Databases are opened by others for writing, who would have to do without the kernel's cache meanwhile.  And a lock
 * moves its handle to the current version (C6), which one that is passed through cannot follow. */
static gboolean is_locked_or_through(SwOverlay *ov, SwHandle *handle)
{
    SwNode *parent;
    g_autofree char *name = NULL;
    if (!sw_handle_name(ov, handle, &parent, &name))
        return FALSE;
    g_autofree char *path = sw_node_path(ov, parent, name);
    sw_node_unref(ov, parent);
    return sw_policy_classify(&sw_config_of(ov)->policy, path) == SW_CLASS_THROUGH ||
           sw_file_locks_are_used(ov, handle);
}

/* An id of its file, or 0. */
static int open_backing(SwOverlay *ov, SwHandle *handle, SwNode *node)
{
    if (!ov->backing_calls.open || !is_plain_reader(handle))
        return 0;
    sw_mutex_lock(&ov->lock);
    gboolean wanted = node->told.stamp.size >= PASSED_MIN && !node->backing && !node->n_unbacked;
    sw_mutex_unlock(&ov->lock);
    if (!wanted || is_locked_or_through(ov, handle) || !is_possible(ov))
        return 0;
    int id = ov->backing_calls.open(ov->backing_calls.data, handle->file->fd);
    return id > 0 ? id : 0; /* what is mounted within the source may be on another file system */
}

/* L held by the caller.  Goes by the backing that the node has. */
static int join_locked(SwHandle *handle, SwNode *node)
{
    gboolean same = same_file(node, handle);
    handle->passed = same && is_plain_reader(handle);
    if (!same && (handle->flags & O_ACCMODE) == O_RDWR)
        return -ESTALE;
    handle->caching = handle->passed ? SW_CACHE_DROP : SW_CACHE_NONE;
    handle->backed = TRUE;
    node->backing->handles++;
    return 0;
}

int sw_handle_settle(SwOverlay *ov, SwHandle *handle, SwNode *node, SwManner *ret_manner)
{
    int r = 0, id = open_backing(ov, handle, node);
    sw_mutex_lock(&ov->lock);
    if (id && !node->backing && !node->n_unbacked) {
        node->backing = g_new(SwBacking, 1);
        *node->backing = (SwBacking){.id = id, .of = handle->id};
        id = 0;
    }
    if (node->backing)
        r = join_locked(handle, node);
    else
        node->n_unbacked++;
    if (r == 0) {
        sw_node_ref_locked(node);
        handle->served_in = node;
    }
    *ret_manner = (SwManner){.caching = handle->caching, .backing = handle->backed ? node->backing->id : 0};
    if (is_plain_writer(handle))
        ret_manner->caching = SW_CACHE_NONE;
    sw_mutex_unlock(&ov->lock);
    sw_count(ov->port, SW_COUNT_PASSED, handle->passed);
    sw_backing_close(ov, id);
    return r;
}

gboolean sw_backing_excludes(SwOverlay *ov, const SwNode *node, int flags, const SwHandle *handle)
{
    SW_HOLD(&ov->lock);
    return node->backing && (flags & O_ACCMODE) == O_RDWR && !same_file(node, handle);
}

static int take_id_locked(SwNode *node)
{
    g_autofree SwBacking *backing = g_steal_pointer(&node->backing);
    return backing->id;
}

int sw_backing_leave_locked(SwOverlay *ov, SwHandle *handle)
{
    SwNode *node = g_steal_pointer(&handle->served_in);
    int id = 0;
    if (!node)
        return 0;
    if (!handle->backed)
        node->n_unbacked--;
    else if (--node->backing->handles == 0)
        id = take_id_locked(node);
    sw_node_unref_locked(ov, node);
    return id;
}

void sw_backing_close(SwOverlay *ov, int id)
{
    if (id && ov->backing_calls.close)
        ov->backing_calls.close(ov->backing_calls.data, id);
}
