/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * New files: staged (C9), claimed first when made exclusively (C12), or made on the source at once (locks, databases,
 * files that are appended to).
 */
#include "../core/acl.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>

/* How often a name may change under a create before it gives up. */
#define CREATE_TRIES 64

typedef struct {
    const SwCaller *caller;
    SwNode *parent;
    const char *name;
    mode_t mode;
    int flags;
    SwFile *dir;
} Creating;

/* The name exists: what open(2) without O_EXCL does then.  The kernel takes whatever node the answer names.  -EAGAIN:
 * others were faster, twice. */
static int create_existing(SwOverlay *ov, const Creating *c, SwEntry *ret_entry, SwHandle **ret_handle)
{
    int r = sw_overlay_lookup(ov, c->caller, c->parent, c->name, ret_entry);
    if (r < 0)
        return r == -ENOENT ? -EAGAIN : r;
    if (S_ISDIR(ret_entry->st.st_mode))
        r = -EISDIR;
    else if (!S_ISREG(ret_entry->st.st_mode))
        r = -ESTALE; /* a symbolic link or the like: the kernel has to walk it */
    else
        r = sw_overlay_open(ov, c->caller, ret_entry->node, c->flags & ~O_CREAT, ret_handle);
    if (r == -ESTALE && S_ISREG(ret_entry->st.st_mode)) {
        sw_overlay_forget(ov, ret_entry->node, 1);
        r = sw_overlay_lookup(ov, c->caller, c->parent, c->name, ret_entry);
        if (r < 0)
            return r == -ENOENT ? -EAGAIN : r;
        r = sw_overlay_open(ov, c->caller, ret_entry->node, c->flags & ~O_CREAT, ret_handle);
        r = r == -ESTALE || r == -ENOENT ? -EAGAIN : r;
    }
    if (r < 0)
        sw_overlay_forget(ov, ret_entry->node, 1);
    return r;
}

mode_t sw_masked(SwOverlay *ov, const SwCaller *caller, int dirfd, mode_t mode)
{
    char acl[8];
    ssize_t r = ov->port->getxattr(ov->port, dirfd, "", SW_ACL_DEFAULT, acl, 0);
    return r > 0 ? mode : mode & ~caller->umask;
}

/* On the source itself, visible to everybody from now on. */
static int create_direct(SwOverlay *ov, const Creating *c, SwHandleKind kind, SwEntry *ret_entry, SwHandle **ret_handle)
{
    int flags = (c->flags & (O_ACCMODE | (kind == SW_HANDLE_INPLACE ? O_APPEND : 0))) | O_CREAT | O_EXCL;
    flags |= sw_lock_open_flags(ov, c->parent, c->name);
    if (kind != SW_HANDLE_READ)
        flags |= sw_shared_flags(ov);
    int fd = ov->port->openat(ov->port, c->dir->fd, c->name, flags, sw_masked(ov, c->caller, c->dir->fd, c->mode));
    if (fd < 0)
        return fd;
    g_autoptr(SwFile) file = sw_file_new(ov->port, fd);
    SwFound found;
    int r = ov->port->lookat(ov->port, fd, "", &found);
    if (r < 0)
        return r;
    SwNode *node = sw_node_get(ov, &found, c->parent, c->name);
    *ret_entry = (SwEntry){.node = node, .st = found.st};
    ret_entry->entry_us = ret_entry->attr_us = sw_config_of(ov)->attr_cache_us;
    SwIdentity id = {.ino = found.st.st_ino, .tag = found.tag};
    *ret_handle = sw_handle_new(ov, c->caller, node, kind, c->flags, file, &id);
    sw_handle_opened_as(ov, *ret_handle, c->parent, c->name, found.st.st_nlink);
    sw_entry_count(ov, ret_entry);
    sw_mutex_lock(&ov->lock);
    node->name_until_us = ov->port->now_us(ov->port) + ret_entry->entry_us;
    sw_mutex_unlock(&ov->lock);
    sw_node_unref(ov, node);
    return 0;
}

static gboolean is_our_claim(SwOverlay *ov, const Creating *c, const char *target)
{
    char text[PATH_MAX];
    ssize_t n = ov->port->readlinkat(ov->port, c->dir->fd, c->name, text, sizeof text - 1);
    return n > 0 && (size_t)n == strlen(target) && memcmp(text, target, n) == 0;
}

/* The claim stands before the stage is seen by anybody; a dead host's claim is taken away first (C12). */
static int claim(SwOverlay *ov, const Creating *c, const SwStage *stage)
{
    char where[64];
    g_snprintf(where, sizeof where, "%u/%s", stage->worker, stage->stage_name);
    g_autofree char *target = sw_claim_format(sw_epoch_host_id(stage->epoch), where);
    for (guint tries = 0; tries < CREATE_TRIES; tries++) {
        ov->port->become(ov->port, &c->caller->cred);
        int r = ov->port->symlinkat(ov->port, target, c->dir->fd, c->name);
        if (r < 0 && is_our_claim(ov, c, target))
            return 0; /* made, and the reply was lost (C13) */
        if (r != -EEXIST)
            return r;
        SwFound found;
        g_autofree char *host = NULL;
        r = sw_look(ov, c->dir->fd, c->name, &found, &host);
        if (!host)
            return r == -ENOENT ? -EAGAIN : -EEXIST;
        if (strcmp(host, sw_control_host_id(ov->control)) == 0)
            return -EEXIST;
        r = sw_control_drop_claim(ov->control, c->dir->fd, c->name, FALSE, &c->caller->cred);
        if (r < 0 && r != -ENOENT)
            return r;
    }
    return -EEXIST;
}

static int create_staged(SwOverlay *ov, const Creating *c, SwEntry *ret_entry, SwHandle **ret_handle)
{
    SwStage *stage;
    int r = sw_stage_new_file(ov, c->caller, c->parent, c->parent, c->name, c->mode, &stage);
    if (r < 0)
        return r;
    gboolean exclusive = (c->flags & O_EXCL) && stage->klass != SW_CLASS_PRIVATE;
    if (exclusive) {
        r = claim(ov, c, stage);
        sw_mutex_lock(&stage->lock);
        stage->claimed = r == 0;
        if (r < 0)
            sw_stage_discard(stage, NULL, -r);
        sw_mutex_unlock(&stage->lock);
    }
    SwEntry entry;
    if (r == 0) {
        r = sw_entry_of_stage(stage, &entry);
        sw_mutex_lock(&stage->lock);
        if (r < 0)
            sw_stage_discard(stage, NULL, -r);
        sw_mutex_unlock(&stage->lock);
    }
    if (r == 0) {
        *ret_handle = sw_handle_new_staged(ov, c->caller, stage->node, stage, c->flags);
        *ret_entry = entry;
    }
    sw_stage_unref(stage);
    return r;
}

static int create_lock(SwOverlay *ov, const Creating *c, SwHandleKind kind, SwEntry *ret_entry, SwHandle **ret_handle)
{
    SwLock *lock;
    int r = sw_lock_begin(ov, c->caller, c->parent, c->name, SW_LOCK_FILE, &lock);
    if (r == 0) {
        r = create_direct(ov, c, kind, ret_entry, ret_handle);
        r = sw_lock_made(ov, c->caller, lock, c->dir->fd, r);
        if (r == 0)
            ret_entry->entry_us = MIN(ret_entry->entry_us, sw_lock_believe_us(ov, c->parent, c->name));
    }
    return r;
}

/* The name is taken; but a lock of the dead makes room. */
static int meet_lock(SwOverlay *ov, const Creating *c)
{
    SwFound found;
    int r = sw_lock_clear(ov, c->caller, c->parent, c->name, c->dir->fd);
    return r == 0 && ov->port->lookat(ov->port, c->dir->fd, c->name, &found) == -ENOENT ? -EAGAIN : -EEXIST;
}

static int create_once(SwOverlay *ov, const Creating *c, SwEntry *ret_entry, SwHandle **ret_handle)
{
    gboolean hot;
    g_autoptr(SwStage) stage = sw_pending_visible(ov, c->caller, c->parent, c->name, &hot);
    if (stage && sw_stage_is_open(stage))
        return c->flags & O_EXCL ? -EEXIST : create_existing(ov, c, ret_entry, ret_handle);
    if (hot)
        sw_settle_name(ov, c->parent, c->name);
    ov->port->become(ov->port, &c->caller->cred);
    SwFound found;
    g_autofree char *claimed_by = NULL;
    int r = sw_look(ov, c->dir->fd, c->name, &found, &claimed_by);
    if (r == 0)
        return c->flags & O_EXCL ? meet_lock(ov, c) : create_existing(ov, c, ret_entry, ret_handle);
    if (r != -ENOENT)
        return r;
    g_autofree char *path = sw_node_path(ov, c->parent, c->name);
    SwClass klass = sw_policy_classify(&sw_config_of(ov)->policy, path);
    gboolean reading = (c->flags & O_ACCMODE) == O_RDONLY;
    if (klass == SW_CLASS_LOCK && (c->flags & O_EXCL))
        return create_lock(ov, c, reading ? SW_HANDLE_READ : SW_HANDLE_INPLACE, ret_entry, ret_handle);
    if (reading && klass != SW_CLASS_PRIVATE && !claimed_by)
        r = create_direct(ov, c, SW_HANDLE_READ, ret_entry, ret_handle); /* empty, and so complete */
    else if (klass == SW_CLASS_THROUGH || klass == SW_CLASS_LOCK)
        r = create_direct(ov, c, SW_HANDLE_INPLACE, ret_entry, ret_handle);
    else if ((c->flags & (O_APPEND | O_EXCL)) == O_APPEND && klass != SW_CLASS_PRIVATE && !claimed_by)
        r = create_direct(ov, c, SW_HANDLE_APPEND, ret_entry, ret_handle);
    else
        return create_staged(ov, c, ret_entry, ret_handle);
    if (r == -EEXIST && !(c->flags & O_EXCL))
        return -EAGAIN;
    return r;
}

int sw_overlay_create(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, mode_t mode, int flags,
                      SwEntry *ret_entry, SwHandle **ret_handle)
{
    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    if (sw_name_is_reserved(name))
        return -EPERM;
    Creating c = {.caller = caller, .parent = parent, .name = name, .mode = mode & 07777, .flags = flags};
    ov->port->become(ov->port, &caller->cred);
    int r = sw_node_dir(ov, parent, &c.dir);
    if (r < 0)
        return r;
    r = -EAGAIN;
    for (guint tries = 0; tries < CREATE_TRIES && r == -EAGAIN; tries++)
        r = create_once(ov, &c, ret_entry, ret_handle);
    sw_file_unref(c.dir);
    return r == -EAGAIN ? -EBUSY : r;
}

int sw_overlay_tmpfile(SwOverlay *ov, const SwCaller *caller, SwNode *parent, mode_t mode, int flags,
                       SwEntry *ret_entry, SwHandle **ret_handle)
{
    ov->port->become(ov->port, &caller->cred);
    SwStage *stage;
    int r = sw_stage_new_file(ov, caller, parent, NULL, NULL, mode & 07777, &stage);
    if (r < 0)
        return r;
    SwHandle *handle = sw_handle_new_staged(ov, caller, stage->node, stage, flags);
    r = sw_entry_of_stage(stage, ret_entry);
    if (r == 0) {
        ret_entry->st.st_nlink = 0;
        *ret_handle = handle;
    } else {
        sw_ignore(sw_overlay_release(ov, handle, TRUE)); /* nothing was written */
    }
    sw_stage_unref(stage);
    return r;
}
