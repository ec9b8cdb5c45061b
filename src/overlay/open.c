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
    sw_old_watch_locked(ov, handle);
    sw_mutex_unlock(&ov->lock);
    return handle;
}

void sw_handle_opened_as(SwOverlay *ov, SwHandle *handle, SwNode *parent, const char *name, nlink_t links)
{
    if (handle->kind != SW_HANDLE_APPEND)
        return;
    handle->links = links;
    handle->name = g_strdup(name);
    sw_mutex_lock(&ov->lock);
    handle->bearer = handle->node;
    handle->parent = parent;
    sw_node_ref_locked(handle->bearer);
    sw_node_ref_locked(handle->parent);
    sw_mutex_unlock(&ov->lock);
}

SwHandle *sw_handle_new_staged(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwStage *stage, int flags)
{
    sw_stage_join(stage, caller, flags);
    SwHandle *handle = sw_handle_new(ov, caller, node, SW_HANDLE_STAGED, flags, NULL, NULL);
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
    gboolean final; /* the kernel will not ask again: serve the node as it is */
    gboolean early; /* its OPEN is still to come */
} Opening;

/* Besides 0 and -errno: the caller is to be answered ESTALE, and what is to become of its second walk is pinned. */
enum { LED = 1 };
/* How often an open is begun that the source answers ESTALE: the version is replaced faster than it can be opened. */
#define STALE_TRIES 16

static void opening_clear(SwOverlay *ov, Opening *opening)
{
    sw_node_unref(ov, opening->parent);
    sw_file_unref(opening->dir);
    g_free(opening->name);
}

/* Leads the caller to `node` on its second walk, where a handle (taken over) or a stage waits for it. */
static int lead_to(SwOverlay *ov, const Opening *opening, SwNode *node, SwHandle *handle, SwStage *stage)
{
    SwPin pin = {.from = opening->node, .node = node, .parent = opening->parent, .name = opening->name};
    pin.flags = opening->flags;
    pin.handle = handle;
    pin.stage = stage;
    sw_pin_add(ov, opening->caller, &pin);
    return LED;
}

/* What stands at the name is no file that could be opened here: the LOOKUP of a second walk will tell. */
static int walk_again(SwOverlay *ov, const Opening *opening)
{
    SwPin intent = {.from = opening->node, .intent = TRUE, .flags = opening->flags};
    sw_pin_add(ov, opening->caller, &intent);
    return LED;
}

/* What the kernel knows of the node: its pages are true, or it believes a size that is not (C2), or it will ask. */
typedef enum { TOLD_TRUE, TOLD_STALE, TOLD_EXPIRED } Told;

static Told compare_told(SwOverlay *ov, SwNode *node, const struct stat *st)
{
    gint64 now = ov->port->now_us(ov->port);
    SwStamp found = sw_stamp_of(st);
    sw_mutex_lock(&ov->lock);
    gboolean same = sw_stamp_equal(&node->told.stamp, &found) && !node->doubted;
    gboolean believed = now < node->told.until_us || node->doubted;
    sw_mutex_unlock(&ov->lock);
    return same ? TOLD_TRUE : believed ? TOLD_STALE : TOLD_EXPIRED;
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

static SwHandle *handle_of(SwOverlay *ov, const Opening *opening, SwNode *node, SwHandleKind kind, SwFile *file,
                           const SwFound *found)
{
    SwIdentity id = {.ino = found->st.st_ino, .tag = found->tag};
    SwHandle *handle = sw_handle_new(ov, opening->caller, node, kind, opening->flags, file, &id);
    sw_handle_opened_as(ov, handle, opening->parent, opening->name, found->st.st_nlink);
    handle->cut_later = opening->early && (opening->flags & O_TRUNC);
    return handle;
}

/*
 * Opens what stands at the name.  If that is another version than the node, or the kernel believes a wrong size of it,
 * the caller is led to it, and finds it opened.
 */
static int open_version(SwOverlay *ov, Opening *opening, SwHandleKind kind, int flags, SwHandle **ret_handle)
{
    int fd = ov->port->openat(ov->port, opening->dir->fd, opening->name, flags | O_NONBLOCK, 0);
    if (fd == -ELOOP || fd == -ENXIO)
        return walk_again(ov, opening); /* a symbolic link or a FIFO by now */
    if (fd < 0)
        return fd;
    g_autoptr(SwFile) file = sw_file_new(ov->port, fd);
    SwFound found;
    int r = ov->port->lookat(ov->port, fd, "", &found);
    if (r == 0 && !S_ISREG(found.st.st_mode))
        return walk_again(ov, opening);
    if (r < 0)
        return r;
    SwNode *node = opening->node;
    sw_mutex_lock(&ov->lock);
    gboolean same = sw_identity_is(&node->id, &found) && !node->stage && !node->lingering;
    sw_mutex_unlock(&ov->lock);
    Told told = same ? compare_told(ov, node, &found.st) : TOLD_STALE;
    if (same && (told != TOLD_STALE || opening->final)) {
        *ret_handle = handle_of(ov, opening, node, kind, file, &found);
        if (ov->network)
            sw_node_asked(ov, node); /* by the open itself (close-to-open) */
        if (kind == SW_HANDLE_READ && told == TOLD_TRUE)
            (*ret_handle)->caching = SW_CACHE_KEEP;
        return 0;
    }
    node = sw_node_get(ov, &found, opening->parent, opening->name);
    r = lead_to(ov, opening, node, handle_of(ov, opening, node, kind, file, &found), NULL);
    sw_node_unref(ov, node);
    return r;
}

static int open_read(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    int flags = opening->flags & O_NOATIME;
    flags |= sw_lock_open_flags(ov, opening->parent, opening->name);
    return open_version(ov, opening, SW_HANDLE_READ, O_RDONLY | flags, ret_handle);
}

static int open_in_place(SwOverlay *ov, Opening *opening, SwHandleKind kind, SwHandle **ret_handle)
{
    int cut = opening->early ? 0 : O_TRUNC;
    int flags = opening->flags & (O_ACCMODE | cut | (kind == SW_HANDLE_INPLACE ? O_APPEND : 0));
    flags |= sw_shared_flags(ov) | sw_lock_open_flags(ov, opening->parent, opening->name);
    return open_version(ov, opening, kind, flags, ret_handle);
}

/* What is thrown away need not be opened, which over NFS takes two calls: *ret_fd is an O_PATH descriptor.  No open has
 * asked the server about it, so its attributes may be older than C2 has it. */
static int look_at_base(SwOverlay *ov, const Opening *opening, int *ret_fd, SwFound *ret_found)
{
    int fd = ov->port->openat(ov->port, opening->dir->fd, opening->name, O_PATH, 0);
    if (fd < 0)
        return fd;
    int r = ov->port->lookat(ov->port, fd, "", ret_found);
    sw_mutex_lock(&ov->lock);
    gboolean same = r == 0 && sw_identity_is(&opening->node->id, ret_found);
    sw_mutex_unlock(&ov->lock);
    if (r == 0 && ov->network && !(same && sw_node_is_fresh(ov, opening->node)))
        r = ov->port->stat_fresh(ov->port, fd, "", &ret_found->st);
    if (r < 0)
        ov->port->close(ov->port, fd);
    else
        *ret_fd = fd;
    return r;
}

static int open_for_copying(SwOverlay *ov, const Opening *opening, int *ret_fd, SwFound *ret_found)
{
    int fd = ov->port->openat(ov->port, opening->dir->fd, opening->name, O_RDONLY | O_NONBLOCK, 0);
    if (fd == -EACCES) {
        ov->port->become(ov->port, NULL);
        fd = ov->port->openat(ov->port, opening->dir->fd, opening->name, O_RDONLY | O_NONBLOCK, 0);
        ov->port->become(ov->port, &opening->caller->cred);
    }
    if (fd < 0)
        return fd;
    int r = ov->port->lookat(ov->port, fd, "", ret_found);
    if (r < 0)
        ov->port->close(ov->port, fd);
    else
        *ret_fd = fd;
    return r;
}

/* An empty one is not replaced at once, and may be read; and only an open by name is sure to find what stands there now
 * (port/nfs.c). */
static int open_to_truncate(SwOverlay *ov, const Opening *opening, int *ret_fd, SwFound *ret_found)
{
    SwFound found;
    int fd, looked = look_at_base(ov, opening, ret_fd, ret_found);
    if (looked == 0 && (ret_found->st.st_size > 0 || !S_ISREG(ret_found->st.st_mode)))
        return 0;
    if (looked < 0 && looked != -ESTALE)
        return looked;
    int r = open_for_copying(ov, opening, &fd, &found);
    if (looked == 0 && r == -EACCES)
        return 0;
    if (looked == 0)
        ov->port->close(ov->port, *ret_fd);
    if (r == 0) {
        *ret_fd = fd;
        *ret_found = found;
    }
    return r;
}

/* The base of a stage: the caller must be allowed to write it. */
static int open_base(SwOverlay *ov, Opening *opening, SwFile **ret_file, SwFound *ret_found)
{
    int fd, r = ov->port->accessat(ov->port, opening->dir->fd, opening->name, W_OK);
    if (r < 0)
        return r;
    r = opening->flags & O_TRUNC ? open_to_truncate(ov, opening, &fd, ret_found)
                                 : open_for_copying(ov, opening, &fd, ret_found);
    if (r == -ELOOP)
        return walk_again(ov, opening);
    if (r < 0)
        return r;
    g_autoptr(SwFile) file = sw_file_new(ov->port, fd);
    if (!S_ISREG(ret_found->st.st_mode))
        return walk_again(ov, opening);
    *ret_file = g_steal_pointer(&file);
    return 0;
}

static int open_staged(SwOverlay *ov, Opening *opening, SwFile *base, const SwFound *found)
{
    gboolean truncated = (opening->flags & O_TRUNC) != 0;
    SwStage *stage;
    int r = sw_stage_new_over(ov, opening->caller, opening->parent, opening->name, found, base, truncated, &stage);
    if (r < 0)
        return r;
    r = lead_to(ov, opening, stage->node, NULL, stage);
    sw_stage_unref(stage);
    return r;
}

static int open_write(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    g_autofree char *path = sw_node_path(ov, opening->parent, opening->name);
    SwClass klass = sw_policy_classify(&sw_config_of(ov)->policy, path);
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
        !(opening->flags & O_TRUNC) && !ov->clones && (guint64)found.st.st_size > sw_config_of(ov)->edit_copy_max;
    gboolean can_replace;
    r = sw_can_replace(ov, &opening->caller->cred, opening->dir->fd, &found.st, &can_replace);
    if (r < 0)
        return r;
    if (too_large || !can_replace) {
        SwEvent event = {
            .kind = SW_EVENT_IN_PLACE, .path = path, .reason = too_large ? "too-large" : "not-replaceable"};
        sw_note_event(ov, SW_NOTE_INFO, &event, "%s: written in place, for %s", path,
                      too_large ? "it is larger than edit-copy-max" : "the writer may not replace it");
        return open_in_place(ov, opening, SW_HANDLE_INPLACE, ret_handle);
    }
    return open_staged(ov, opening, base, &found);
}

/* By the name that `opening` has: 0, LED or -errno. */
static int open_named(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    const SwCaller *caller = opening->caller;
    gboolean hot;
    g_autoptr(SwStage) stage = sw_pending_visible(ov, caller, opening->parent, opening->name, &hot);
    if (stage && sw_stage_is_open(stage) && sw_stage_await(stage))
        return lead_to(ov, opening, stage->node, NULL, stage);
    if (hot)
        sw_settle_name(ov, opening->parent, opening->name);
    ov->port->become(ov->port, &caller->cred);
    int r = sw_node_dir_fresh(ov, opening->parent, &opening->dir);
    if (r < 0)
        return r;
    return sw_writes(opening->flags) ? open_write(ov, opening, ret_handle) : open_read(ov, opening, ret_handle);
}

/*
 * The kernel will not walk again: what was to wait elsewhere is served in this node.  The pages of the node belong to
 * those who have its version open, and some thread's open that failed before looks just like a magic link; so the
 * kernel caches nothing for this handle.
 */
static gboolean open_here(SwOverlay *ov, Opening *opening, SwPin *pin, SwHandle **ret_handle)
{
    *ret_handle = pin->handle;
    if (pin->stage && !pin->handle) {
        sw_mutex_lock(&ov->lock);
        pin->stage->guests = TRUE;
        sw_mutex_unlock(&ov->lock);
        /* What they write the kernel does not connect with the node of the stage. */
        sw_node_forget_told(ov, pin->stage->node);
        *ret_handle = sw_handle_new_staged(ov, opening->caller, opening->node, pin->stage, opening->flags);
    }
    if (*ret_handle)
        (*ret_handle)->caching = SW_CACHE_NONE;
    sw_stage_unref(pin->stage);
    return *ret_handle || open_by_handle(ov, opening, ret_handle) == 0;
}

static int open_by_name(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    int r = open_named(ov, opening, ret_handle);
    SwPin pin = {0};
    if (r == LED && opening->final && sw_pin_take_repeat(ov, opening->caller, opening->node, opening->flags, &pin))
        return open_here(ov, opening, &pin, ret_handle) ? 0 : LED;
    return r;
}

/* What was kept for it cannot be served in that node; then it is led anew, which a magic link cannot follow. */
static gboolean drop_excluded(SwOverlay *ov, const Opening *opening, SwPin *pin)
{
    gboolean keeps = pin->handle || pin->stage;
    if (!keeps || !sw_backing_excludes(ov, opening->node, opening->flags, pin->handle))
        return FALSE;
    if (pin->handle)
        sw_ignore(sw_overlay_release(ov, pin->handle, TRUE)); /* nothing was written */
    else
        sw_stage_give_up(pin->stage);
    sw_stage_unref(pin->stage);
    ov->port->become(ov->port, &opening->caller->cred);
    return TRUE;
}

static int open_committed(SwOverlay *ov, Opening *opening, SwHandle **ret_handle)
{
    const SwCaller *caller = opening->caller;
    SwNode *node = opening->node;
    SwPin pin = {0};
    gboolean repeat = sw_pin_take_repeat(ov, caller, node, opening->flags, &pin) && !drop_excluded(ov, opening, &pin);
    if (repeat && open_here(ov, opening, &pin, ret_handle))
        return 0;
    opening->final = repeat || sw_pin_take_walked(ov, caller);
    int r = -ENOENT;
    if ((repeat || !sw_node_has_several_names(ov, node)) &&
        sw_node_first_name(ov, node, &opening->parent, &opening->name))
        r = open_by_name(ov, opening, ret_handle);
    /* Gone, whoever has it open: a second walk finds that out, and with O_CREAT makes it anew.  Only a magic link does
     * not walk, and is served through another handle when it comes again. */
    if (r == -ENOENT || r == -ESTALE)
        r = walk_again(ov, opening);
    return r == LED ? -ESTALE : r;
}

int sw_open_resolve(SwOverlay *ov, const SwCaller *caller, SwNode *from, SwNode *node, SwNode *parent, const char *name,
                    int flags)
{
    SwHandle *handle = NULL;
    Opening opening = {.caller = caller, .node = node, .flags = flags, .name = g_strdup(name), .parent = parent};
    opening.early = TRUE;
    sw_mutex_lock(&ov->lock);
    sw_node_ref_locked(parent);
    sw_mutex_unlock(&ov->lock);
    int r = open_named(ov, &opening, &handle);
    for (guint tries = 0; r == -ESTALE && tries < STALE_TRIES; tries++) {
        sw_file_unref(g_steal_pointer(&opening.dir));
        r = open_named(ov, &opening, &handle);
    }
    if (r != LED && r != -ENOENT) {
        SwPin pin = {.from = from, .node = node, .parent = parent, .name = opening.name};
        pin.flags = flags;
        pin.handle = handle;
        pin.error = r;
        pin.walks = 1;
        sw_pin_add(ov, caller, &pin);
    }
    opening_clear(ov, &opening);
    return r == -ENOENT ? r : 0;
}

static int cut_joined(SwStage *stage, const SwCaller *caller)
{
    struct stat st;
    int r = sw_stage_stat(stage, &st);
    if (r == 0 && st.st_size > 0)
        r = sw_stage_truncate(stage, caller, 0);
    if (r < 0)
        return r;
    sw_mutex_lock(&stage->lock);
    if (!stage->materialised)
        sw_stage_set_edit(stage, FALSE);
    sw_mutex_unlock(&stage->lock);
    return 0;
}

/* The stage awaits it. */
static int open_joining(SwOverlay *ov, const SwCaller *caller, SwStage *stage, int flags, SwHandle **ret_handle)
{
    int r = flags & O_TRUNC ? cut_joined(stage, caller) : 0;
    if (r < 0) {
        sw_stage_give_up(stage);
        return r;
    }
    *ret_handle = sw_handle_new_staged(ov, caller, stage->node, stage, flags);
    return 0;
}

/*
 * The stage of the node, which awaits this open, if it is to join it.  A stranger may have found the node while its
 * commit was under way: that is over when the lock is free, and then the node is the version he wants.  Where it is not
 * (a magic link to a staged file) he joins as well.
 */
static SwStage *stage_to_join(SwOverlay *ov, SwNode *node)
{
    sw_mutex_lock(&ov->lock);
    SwStage *stage = node->stage ? sw_stage_ref(node->stage) : NULL;
    if (stage)
        stage->n_coming++;
    sw_mutex_unlock(&ov->lock);
    if (!stage)
        return NULL;
    sw_mutex_lock(&stage->lock);
    gboolean is_open = stage->state == SW_STAGE_OPEN;
    sw_mutex_unlock(&stage->lock);
    if (is_open)
        return stage;
    sw_stage_give_up(stage);
    sw_stage_unref(stage);
    return NULL;
}

/* What a LOOKUP opened for this OPEN. */
static int open_kept(SwOverlay *ov, SwHandle *handle, SwHandle **ret_handle)
{
    int r = handle->cut_later ? ov->port->ftruncate(ov->port, handle->file->fd, 0) : 0;
    handle->cut_later = FALSE;
    if (r < 0)
        sw_ignore(sw_overlay_release(ov, handle, TRUE));
    else
        *ret_handle = handle;
    return r;
}

int sw_overlay_open(SwOverlay *ov, const SwCaller *caller, SwNode *node, int flags, SwHandle **ret_handle)
{
    ov->port->become(ov->port, &caller->cred);
    SwPin pin = {0};
    sw_ignore(sw_pin_take(ov, caller, node, flags, &pin)); /* no pin is an empty one */
    if (pin.error)
        return pin.error;
    if (pin.handle)
        return open_kept(ov, pin.handle, ret_handle);
    g_autoptr(SwStage) stage = pin.stage ? pin.stage : stage_to_join(ov, node);
    if (stage)
        return open_joining(ov, caller, stage, flags, ret_handle);
    Opening opening = {.caller = caller, .node = node, .flags = flags};
    int r = open_committed(ov, &opening, ret_handle);
    opening_clear(ov, &opening);
    return r;
}
