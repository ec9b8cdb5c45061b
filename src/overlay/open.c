/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening: which kind of handle, and whether the caller has to be led to another node first (ESTALE).
 *
 *   staged node                    join the stage
 *   committed node, for reading    the very version the name has now, else ESTALE to its node
 *   committed node, for writing    through, lock        in place
 *                                  O_APPEND             records go to the end of this file
 *                                  else                 a stage is made, ESTALE to its node
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* A lock file holds an owner's name, not data (C18). */
#define LOCK_SIZE_MAX 4096

/* Opening with O_TRUNC changes the file, whatever may be done through the descriptor. */
gboolean sw_writes(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

SwHandle *sw_handle_new(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwHandleKind kind, int flags, SwFile *file,
                        const SwIdentity *id)
{
    SwHandle *handle = g_new0(SwHandle, 1);
    *handle = (SwHandle){.caching = kind == SW_HANDLE_APPEND ? SW_CACHE_NONE : SW_CACHE_DROP,
                         .kind = kind,
                         .flags = flags,
                         .node = node,
                         .cred = caller->cred};
    sw_mutex_init(&handle->lock);
    handle->file = file ? sw_file_ref(file) : NULL;
    if (id)
        handle->id = *id;
    sw_mutex_lock(&ov->lock);
    sw_node_ref_locked(node);
    node->handles = g_slist_prepend(node->handles, handle);
    sw_mutex_unlock(&ov->lock);
    return handle;
}

SwCaching sw_handle_caching(const SwHandle *handle)
{
    return handle->caching;
}

SwHandle *sw_handle_new_staged(SwOverlay *ov, const SwCaller *caller, SwStage *stage, int flags)
{
    sw_stage_join(stage, caller, flags);
    SwHandle *handle = sw_handle_new(ov, caller, stage->node, SW_HANDLE_STAGED, flags, NULL, NULL);
    handle->stage = sw_stage_ref(stage);
    return handle;
}

int sw_can_replace(SwOverlay *ov, const SwCred *cred, int dirfd, const struct stat *target, gboolean *ret_can)
{
    struct stat dir;
    int r = ov->port->accessat(ov->port, dirfd, "", W_OK | X_OK);
    if (r == 0)
        r = ov->port->statat(ov->port, dirfd, "", &dir);
    /* Any other failure says nothing about rights, and writing in place for it would tear the file for readers. */
    if (r < 0 && r != -EACCES && r != -EPERM && r != -EROFS)
        return r;
    *ret_can = r == 0 &&
               (!(dir.st_mode & S_ISVTX) || cred->uid == 0 || cred->uid == target->st_uid || cred->uid == dir.st_uid);
    return 0;
}

/* What is known of the name that an open goes by. */
typedef struct {
    const SwCaller *caller;
    SwNode *node, *parent;
    char *name;
    SwFile *dir;
    int flags;
} Opening;

static void opening_clear(SwOverlay *ov, Opening *opening)
{
    sw_node_unref(ov, opening->parent);
    sw_file_unref(opening->dir);
    g_free(opening->name);
}

/* Leads the caller to `node` on its second walk. */
static int lead_to(SwOverlay *ov, const Opening *opening, SwNode *node, SwFile *file, const SwIdentity *id)
{
    SwPin pin = {.from = opening->node, .node = node, .parent = opening->parent, .name = opening->name, .file = file};
    if (id)
        pin.id = *id;
    sw_pin_add(ov, opening->caller, &pin);
    return -ESTALE;
}

/* Remembers what the version looks like, and tells whether pages cached of it are still true. */
static gboolean seen_before(SwOverlay *ov, SwNode *node, const struct stat *st)
{
    sw_mutex_lock(&ov->lock);
    gboolean same = node->seen_size == st->st_size &&
                    memcmp(&node->seen_mtime, &st->st_mtim, sizeof st->st_mtim) == 0 &&
                    memcmp(&node->seen_ctime, &st->st_ctim, sizeof st->st_ctim) == 0;
    node->seen_size = st->st_size;
    node->seen_mtime = st->st_mtim;
    node->seen_ctime = st->st_ctim;
    sw_mutex_unlock(&ov->lock);
    return same;
}

/* A version whose name is gone or leads elsewhere, opened through another handle of it (magic links, F1). */
static int open_by_handle(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    SwFile *other = NULL;
    SwIdentity id = {0};
    sw_mutex_lock(&ov->lock);
    for (GSList *at = opening->node->handles; at && !other; at = at->next) {
        SwHandle *handle = at->data;
        if (handle->file) {
            other = sw_file_ref(handle->file);
            id = handle->id;
        } else if (handle->stage) {
            other = sw_file_ref(handle->stage->file);
        }
    }
    sw_mutex_unlock(&ov->lock);
    if (!other)
        return -ESTALE;
    int fd = ov->port->reopen(ov->port, other->fd, opening->flags & (O_ACCMODE | O_TRUNC));
    sw_file_unref(other);
    if (fd < 0)
        return fd;
    g_autoptr(SwFile) file = sw_file_new(ov->port, fd);
    SwHandleKind kind = sw_writes(opening->flags) ? SW_HANDLE_INPLACE : SW_HANDLE_READ;
    *ret_handle = sw_handle_new(ov, opening->caller, opening->node, kind, opening->flags, file, &id);
    return 0;
}

/* Opens what stands at the name; if that is another version than the node, leads there. */
static int open_version(SwOverlay *ov, Opening *opening, int flags, SwFile **ret_file, SwFound *ret_found)
{
    int fd = ov->port->openat(ov->port, opening->dir->fd, opening->name, flags, 0);
    if (fd == -ELOOP)
        return -ESTALE; /* a symbolic link by now */
    if (fd < 0)
        return fd;
    g_autoptr(SwFile) file = sw_file_new(ov->port, fd);
    SwFound found;
    int r = ov->port->lookat(ov->port, fd, "", &found);
    if (r < 0)
        return r;
    sw_mutex_lock(&ov->lock);
    gboolean same = sw_identity_is(&opening->node->id, &found) && !opening->node->stage;
    sw_mutex_unlock(&ov->lock);
    if (!same) {
        SwNode *node = sw_node_get(ov, &found, opening->parent, opening->name);
        SwIdentity id = {.ino = found.st.st_ino, .tag = found.tag};
        r = lead_to(ov, opening, node, file, &id);
        sw_node_unref(ov, node);
        return r;
    }
    *ret_file = g_steal_pointer(&file);
    *ret_found = found;
    return 0;
}

static int open_read(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    g_autoptr(SwFile) file = NULL;
    SwFound found;
    int r = open_version(ov, opening, O_RDONLY | (opening->flags & O_NOATIME), &file, &found);
    if (r < 0)
        return r;
    SwIdentity id = {.ino = found.st.st_ino, .tag = found.tag};
    *ret_handle = sw_handle_new(ov, opening->caller, opening->node, SW_HANDLE_READ, opening->flags, file, &id);
    (*ret_handle)->caching = seen_before(ov, opening->node, &found.st) ? SW_CACHE_KEEP : SW_CACHE_DROP;
    return 0;
}

static int open_in_place(SwOverlay *ov, Opening *opening, SwHandleKind kind, SwHandle **ret_handle)
{
    g_autoptr(SwFile) file = NULL;
    SwFound found;
    int flags = opening->flags & (O_ACCMODE | (kind == SW_HANDLE_INPLACE ? O_APPEND : 0));
    int r = open_version(ov, opening, flags, &file, &found);
    if (r == 0 && (opening->flags & O_TRUNC))
        r = ov->port->ftruncate(ov->port, file->fd, 0);
    if (r < 0)
        return r;
    SwIdentity id = {.ino = found.st.st_ino, .tag = found.tag};
    *ret_handle = sw_handle_new(ov, opening->caller, opening->node, kind, opening->flags, file, &id);
    return 0;
}

/* The base of a stage, opened for copying: the caller must be allowed to write it, the daemon to read it. */
static int open_base(SwOverlay *ov, Opening *opening, SwFile **ret_file, SwFound *ret_found)
{
    int r = ov->port->accessat(ov->port, opening->dir->fd, opening->name, W_OK);
    if (r < 0)
        return r;
    int fd = ov->port->openat(ov->port, opening->dir->fd, opening->name, O_RDONLY, 0);
    if (fd == -EACCES) {
        ov->port->become(ov->port, NULL);
        fd = ov->port->openat(ov->port, opening->dir->fd, opening->name, O_RDONLY, 0);
        ov->port->become(ov->port, &opening->caller->cred);
    }
    /* What is thrown away need not be read. */
    if (fd == -EACCES && (opening->flags & O_TRUNC))
        fd = ov->port->openat(ov->port, opening->dir->fd, opening->name, O_PATH, 0);
    if (fd == -ELOOP)
        return -ESTALE;
    if (fd < 0)
        return fd;
    g_autoptr(SwFile) file = sw_file_new(ov->port, fd);
    r = ov->port->lookat(ov->port, fd, "", ret_found);
    if (r == 0 && !S_ISREG(ret_found->st.st_mode))
        r = -ESTALE;
    if (r == 0)
        *ret_file = g_steal_pointer(&file);
    return r;
}

static int open_staged(SwOverlay *ov, Opening *opening, SwFile *base, const SwFound *found)
{
    gboolean truncated = (opening->flags & O_TRUNC) != 0;
    SwStage *stage;
    int r = sw_stage_new_over(ov, opening->caller, opening->parent, opening->name, found, base, truncated, &stage);
    if (r < 0)
        return r;
    r = lead_to(ov, opening, stage->node, NULL, NULL);
    sw_stage_unref(stage);
    return r;
}

static int open_write(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    g_autofree char *path = sw_node_path(ov, opening->parent, opening->name);
    SwClass klass = sw_policy_classify(&ov->config->policy, path);
    if (klass == SW_CLASS_THROUGH)
        return open_in_place(ov, opening, SW_HANDLE_INPLACE, ret_handle);
    if ((opening->flags & (O_APPEND | O_TRUNC)) == O_APPEND && klass != SW_CLASS_PRIVATE)
        return open_in_place(ov, opening, SW_HANDLE_APPEND, ret_handle);
    g_autoptr(SwFile) base = NULL;
    SwFound found;
    int r = open_base(ov, opening, &base, &found);
    if (r < 0)
        return r;
    if (klass == SW_CLASS_LOCK && found.st.st_size <= LOCK_SIZE_MAX)
        return open_in_place(ov, opening, SW_HANDLE_INPLACE, ret_handle);
    gboolean too_large =
        !(opening->flags & O_TRUNC) && !ov->clones && (guint64)found.st.st_size > ov->config->edit_copy_max;
    gboolean can_replace;
    r = sw_can_replace(ov, &opening->caller->cred, opening->dir->fd, &found.st, &can_replace);
    if (r < 0)
        return r;
    if (too_large || !can_replace) {
        sw_note(ov, SW_NOTE_INFO, "%s: written in place, for %s", path,
                too_large ? "it is larger than edit-copy-max" : "the writer may not replace it");
        return open_in_place(ov, opening, SW_HANDLE_INPLACE, ret_handle);
    }
    return open_staged(ov, opening, base, &found);
}

/* By the name that `opening` has. */
static int open_named(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    const SwCaller *caller = opening->caller;
    gboolean hot;
    g_autoptr(SwStage) stage = sw_pending_visible(ov, caller, opening->parent, opening->name, &hot);
    if (stage && sw_stage_is_open(stage))
        return lead_to(ov, opening, stage->node, NULL, NULL);
    if (hot)
        sw_settle_name(ov, opening->parent, opening->name);
    ov->port->become(ov->port, &caller->cred);
    int r = sw_node_dir(ov, opening->parent, &opening->dir);
    if (r < 0)
        return r;
    return sw_writes(opening->flags) ? open_write(ov, opening, ret_handle) : open_read(ov, opening, ret_handle);
}

static gboolean has_several_names(SwOverlay *ov, SwNode *node)
{
    sw_mutex_lock(&ov->lock);
    gboolean several = node->names && node->names->next;
    sw_mutex_unlock(&ov->lock);
    return several;
}

static int open_committed(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    const SwCaller *caller = opening->caller;
    SwNode *node = opening->node;
    gboolean repeat = sw_pin_is_repeat(ov, caller, node);
    if (repeat && open_by_handle(ov, opening, ret_handle) == 0)
        return 0;
    if (!repeat && has_several_names(ov, node)) {
        SwPin intent = {.from = node, .intent = TRUE, .flags = opening->flags};
        sw_pin_add(ov, caller, &intent);
        return -ESTALE;
    }
    if (!sw_node_first_name(ov, node, &opening->parent, &opening->name))
        return open_by_handle(ov, opening, ret_handle);
    int r = open_named(ov, opening, ret_handle);
    /* Gone, but open elsewhere: served if this is a magic link; a walk by name will find out that it is gone. */
    return r == -ENOENT && open_by_handle(ov, opening, ret_handle) == 0 ? 0 : r;
}

void sw_open_resolve(SwOverlay *ov, const SwCaller *caller, SwNode *from, SwNode *node, SwNode *parent,
                     const char *name, int flags)
{
    SwHandle *handle = NULL;
    Opening opening = {.caller = caller, .node = node, .flags = flags, .name = g_strdup(name), .parent = parent};
    sw_mutex_lock(&ov->lock);
    sw_node_ref_locked(parent);
    sw_mutex_unlock(&ov->lock);
    int r = open_named(ov, &opening, &handle);
    /* ESTALE: open_named has pinned where to go. */
    if (r != -ESTALE) {
        SwPin pin = {.from = from, .node = node, .parent = parent, .name = opening.name};
        pin.handle = handle;
        pin.error = r;
        pin.walks = 1;
        sw_pin_add(ov, caller, &pin);
    }
    opening_clear(ov, &opening);
}

static int open_joining(SwOverlay *ov, const SwCaller *caller, SwStage *stage, int flags, SwHandle **ret_handle)
{
    if (flags & O_TRUNC) {
        struct stat st;
        int r = sw_stage_stat(stage, &st);
        if (r == 0 && st.st_size > 0)
            r = sw_stage_truncate(stage, caller, 0);
        if (r < 0)
            return r;
        sw_mutex_lock(&stage->lock);
        if (!stage->materialised)
            stage->edit = FALSE;
        sw_mutex_unlock(&stage->lock);
    }
    *ret_handle = sw_handle_new_staged(ov, caller, stage, flags);
    return 0;
}

int sw_overlay_open(SwOverlay *ov, const SwCaller *caller, SwNode *node, int flags, SwHandle **ret_handle)
{
    ov->port->become(ov->port, &caller->cred);
    SwPin pin = {0};
    gboolean pinned = sw_pin_take(ov, caller, node, &pin);
    g_autoptr(SwFile) file = pin.file;
    if (pin.handle || pin.error) {
        *ret_handle = pin.handle;
        return pin.error;
    }
    sw_mutex_lock(&ov->lock);
    g_autoptr(SwStage) stage = node->stage ? sw_stage_ref(node->stage) : NULL;
    sw_mutex_unlock(&ov->lock);
    if (stage)
        return open_joining(ov, caller, stage, flags, ret_handle);
    Opening opening = {.caller = caller, .node = node, .flags = flags};
    if (pinned && file && !sw_writes(flags)) {
        *ret_handle = sw_handle_new(ov, caller, node, SW_HANDLE_READ, flags, file, &pin.id);
        return 0;
    }
    int r = open_committed(ov, &opening, ret_handle);
    opening_clear(ov, &opening);
    return r;
}
