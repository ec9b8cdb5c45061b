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
    *handle = (SwHandle){.kind = kind, .flags = flags, .node = node, .cred = caller->cred};
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

SwHandle *sw_handle_new_staged(SwOverlay *ov, const SwCaller *caller, SwStage *stage, int flags)
{
    sw_stage_join(stage, caller, flags);
    SwHandle *handle = sw_handle_new(ov, caller, stage->node, SW_HANDLE_STAGED, flags, NULL, NULL);
    handle->stage = sw_stage_ref(stage);
    return handle;
}

gboolean sw_can_replace(SwOverlay *ov, const SwCred *cred, int dirfd, const struct stat *target)
{
    struct stat dir;
    if (ov->port->accessat(ov->port, dirfd, "", W_OK | X_OK) < 0 || ov->port->statat(ov->port, dirfd, "", &dir) < 0)
        return FALSE;
    return !(dir.st_mode & S_ISVTX) || cred->uid == 0 || cred->uid == target->st_uid || cred->uid == dir.st_uid;
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

/* A file with several known names: those that lead elsewhere by now are forgotten, and the walk is done again. */
static int check_names(SwOverlay *ov, SwNode *node)
{
    g_autoptr(GPtrArray) stale = g_ptr_array_new_with_free_func(g_free);
    GSList *names = NULL;
    sw_mutex_lock(&ov->lock);
    for (SwName *at = node->names && node->names->next ? node->names : NULL; at; at = at->next) {
        sw_node_ref_locked(at->parent);
        names = g_slist_prepend(g_slist_prepend(names, g_strdup(at->name)), at->parent);
    }
    SwIdentity id = node->id;
    sw_mutex_unlock(&ov->lock);
    gboolean dropped = FALSE;
    for (GSList *at = names; at; at = at->next->next) {
        SwNode *parent = at->data;
        g_autofree char *name = at->next->data;
        g_autoptr(SwFile) dir = NULL;
        SwFound found;
        int r = sw_node_dir(ov, parent, &dir);
        gboolean true_name =
            r == 0 && ov->port->lookat(ov->port, dir->fd, name, &found) == 0 && sw_identity_is(&id, &found);
        sw_mutex_lock(&ov->lock);
        if (!true_name) {
            sw_node_drop_name_locked(ov, node, parent, name);
            dropped = TRUE;
        }
        sw_node_unref_locked(ov, parent);
        sw_mutex_unlock(&ov->lock);
    }
    g_slist_free(names);
    return dropped ? -ESTALE : 0;
}

/* Leads the caller to `node` on its second walk. */
static int lead_to(SwOverlay *ov, const Opening *opening, SwNode *node, SwFile *file, const SwIdentity *id)
{
    sw_pin_add(ov, opening->caller, opening->node, node, opening->parent, opening->name, file, id);
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

static int open_read(SwOverlay *ov, Opening *opening, SwHandle **ret_handle, gboolean *ret_keep)
{
    g_autoptr(SwFile) file = NULL;
    SwFound found;
    int r = open_version(ov, opening, O_RDONLY | (opening->flags & O_NOATIME), &file, &found);
    if (r < 0)
        return r;
    SwIdentity id = {.ino = found.st.st_ino, .tag = found.tag};
    *ret_keep = seen_before(ov, opening->node, &found.st);
    *ret_handle = sw_handle_new(ov, opening->caller, opening->node, SW_HANDLE_READ, opening->flags, file, &id);
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
    gboolean truncated = (opening->flags & O_TRUNC) && found->st.st_size > 0;
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
    if (too_large || !sw_can_replace(ov, &opening->caller->cred, opening->dir->fd, &found.st)) {
        sw_note(ov, SW_NOTE_INFO, "%s: written in place, for %s", path,
                too_large ? "it is larger than edit-copy-max" : "the writer may not replace it");
        return open_in_place(ov, opening, SW_HANDLE_INPLACE, ret_handle);
    }
    return open_staged(ov, opening, base, &found);
}

static int open_committed(SwOverlay *ov, Opening *opening, SwHandle **ret_handle, gboolean *ret_keep)
{
    const SwCaller *caller = opening->caller;
    gboolean repeat = sw_pin_is_repeat(ov, caller, opening->node);
    if (repeat || !sw_node_first_name(ov, opening->node, &opening->parent, &opening->name))
        return open_by_handle(ov, opening, ret_handle);
    int r = check_names(ov, opening->node);
    if (r < 0)
        return r;
    gboolean hot;
    g_autoptr(SwStage) stage = sw_pending_visible(ov, caller, opening->parent, opening->name, &hot);
    if (stage && stage->state == SW_STAGE_OPEN)
        return lead_to(ov, opening, stage->node, NULL, NULL);
    if (hot)
        sw_settle_name(ov, opening->parent, opening->name);
    ov->port->become(ov->port, &caller->cred);
    r = sw_node_dir(ov, opening->parent, &opening->dir);
    if (r == 0)
        r = sw_writes(opening->flags) ? open_write(ov, opening, ret_handle)
                                      : open_read(ov, opening, ret_handle, ret_keep);
    /* Gone or never seen by this caller: the second walk will say so with the right errno. */
    return r == -ENOENT && opening->node->handles ? open_by_handle(ov, opening, ret_handle) : r;
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
    }
    *ret_handle = sw_handle_new_staged(ov, caller, stage, flags);
    return 0;
}

int sw_overlay_open(SwOverlay *ov, const SwCaller *caller, SwNode *node, int flags, SwHandle **ret_handle,
                    gboolean *ret_keep_cache)
{
    *ret_keep_cache = FALSE;
    ov->port->become(ov->port, &caller->cred);
    g_autoptr(SwFile) file = NULL;
    SwIdentity id = {0};
    gboolean pinned = sw_pin_take(ov, caller, node, &file, &id);
    sw_mutex_lock(&ov->lock);
    g_autoptr(SwStage) stage = node->stage ? sw_stage_ref(node->stage) : NULL;
    sw_mutex_unlock(&ov->lock);
    if (stage)
        return open_joining(ov, caller, stage, flags, ret_handle);
    Opening opening = {.caller = caller, .node = node, .flags = flags};
    if (pinned && file && !sw_writes(flags)) {
        *ret_handle = sw_handle_new(ov, caller, node, SW_HANDLE_READ, flags, file, &id);
        return 0;
    }
    int r = open_committed(ov, &opening, ret_handle, ret_keep_cache);
    opening_clear(ov, &opening);
    return r;
}
