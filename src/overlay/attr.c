/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attributes: of a stage through its file, of an open version through its handle, of anything else by its name.
 */
#include "../core/acl.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>
#include <unistd.h>

/* Where the attributes of a node are: `name` below `file`, or `file` itself when `name` is "". */
typedef struct {
    SwFile *file;
    SwStage *stage;
    char *name;
    gboolean by_name;
} Place;

static void place_clear(Place *place)
{
    sw_file_unref(place->file);
    sw_stage_unref(place->stage);
    g_free(place->name);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Place, place_clear)

static SwFile *handle_file_locked(SwNode *node, SwHandle *handle)
{
    if (!handle && node->handles)
        handle = node->handles->data;
    if (!handle)
        return NULL;
    return sw_file_ref(handle->file ? handle->file : handle->stage->file);
}

/* The stage whose attributes are the node's; where it is written in place, they are those of the source's file. */
static SwStage *stage_locked(SwNode *node, SwHandle *handle)
{
    if (node->stage)
        return node->stage;
    return handle && sw_handle_kind(handle) == SW_HANDLE_STAGED ? handle->stage : NULL;
}

/* A name of a node that has several may be gone by now: the first that still leads to it, the others are forgotten. */
static int find_name(SwOverlay *ov, SwNode *node, Place *place)
{
    for (;;) {
        SwNode *parent;
        g_autofree char *name = NULL;
        g_autoptr(SwFile) dir = NULL;
        gboolean several = sw_node_has_several_names(ov, node);
        if (!sw_node_first_name(ov, node, &parent, &name))
            return -ENOENT;
        SwFound found;
        int r = sw_node_dir(ov, parent, &dir);
        if (r == 0 && several)
            r = ov->port->lookat(ov->port, dir->fd, name, &found);
        sw_mutex_lock(&ov->lock);
        gboolean stale = several && (r < 0 || !sw_identity_is(&node->id, &found));
        if (stale)
            sw_node_drop_name_locked(ov, node, parent, name);
        sw_node_unref_locked(ov, parent);
        sw_mutex_unlock(&ov->lock);
        if (stale)
            continue;
        place->file = g_steal_pointer(&dir);
        place->name = g_steal_pointer(&name);
        return r;
    }
}

/* By name, or by a descriptor if one is open: fstat(2) comes without a handle (F26), and an open version may have no
 * name any more. */
static int find_place(SwOverlay *ov, SwNode *node, SwHandle *handle, Place *place)
{
    *place = (Place){0};
    sw_mutex_lock(&ov->lock);
    SwStage *stage = stage_locked(node, handle);
    place->file = stage && stage->materialised ? NULL : sw_in_place_file_locked(node);
    if (stage && !place->file)
        place->stage = sw_stage_ref(stage);
    if (!place->file)
        place->file = place->stage ? sw_file_ref(place->stage->file) : handle_file_locked(node, handle);
    if (!place->file && node->dir)
        place->file = sw_file_ref(node->dir);
    sw_mutex_unlock(&ov->lock);
    if (place->file) {
        place->name = g_strdup("");
        return 0;
    }
    place->by_name = TRUE;
    return find_name(ov, node, place);
}

/* Nobody else writes a stage; of the source's files NFS may tell what was true a minute ago. */
static int stat_place(SwOverlay *ov, SwNode *node, const Place *place, struct stat *ret_st)
{
    if (!ov->network || place->stage || sw_node_is_fresh(ov, node))
        return ov->port->statat(ov->port, place->file->fd, place->name, ret_st);
    int r = ov->port->stat_fresh(ov->port, place->file->fd, place->name, ret_st);
    if (r == 0)
        sw_node_asked(ov, node);
    return r;
}

/* A stage file has a name, but not one that counts. */
static gboolean is_nameless(SwOverlay *ov, const SwStage *stage)
{
    sw_mutex_lock(&ov->lock);
    gboolean nameless = stage->state == SW_STAGE_OPEN && stage->materialised && !stage->parent;
    sw_mutex_unlock(&ov->lock);
    return nameless;
}

/*
 * The permission check of an open asks between its LOOKUP and its OPEN.  Should the file go just then, ENOENT would
 * reach a program that opens with O_CREAT; only OPEN can have the name walked anew.  So a file that is gone is told
 * once more as it was when its name was looked up.
 */
static gboolean recall(SwOverlay *ov, const SwNode *node, struct stat *ret_st)
{
    sw_mutex_lock(&ov->lock);
    gboolean known = node->type == S_IFREG && sw_node_recall_locked(node, ret_st);
    sw_mutex_unlock(&ov->lock);
    return known;
}

int sw_overlay_getattr(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwHandle *handle, struct stat *ret_st,
                       gint64 *ret_attr_us)
{
    if (handle && sw_handle_kind(handle) == SW_HANDLE_APPEND)
        sw_ignore(sw_append_publish(ov, handle, TRUE));
    ov->port->become(ov->port, &caller->cred);
    g_auto(Place) place;
    int r = find_place(ov, node, handle, &place);
    if (r == 0)
        r = stat_place(ov, node, &place, ret_st);
    /* ESTALE here would spend the kernel's only second walk (F26). */
    if (r == -ESTALE)
        r = -ENOENT;
    /* The name leads to something of another kind by now: that is another object, and ours is gone. */
    if (r == 0 && place.by_name && (ret_st->st_mode & S_IFMT) != node->type)
        r = -ENOENT;
    if (r == -ENOENT && recall(ov, node, ret_st)) {
        *ret_attr_us = 0;
        return 0;
    }
    if (r < 0)
        return r;
    if (place.stage && is_nameless(ov, place.stage))
        ret_st->st_nlink = 0;
    gint64 staged_us = place.stage ? sw_stage_attr_us(place.stage) : 0;
    sw_mutex_lock(&ov->lock);
    sw_node_hide_links_locked(node, ret_st);
    *ret_attr_us = place.stage ? staged_us : sw_attr_us(ov, ret_st, !place.by_name && node->type == S_IFREG);
    *ret_attr_us = sw_node_tell_locked(ov, node, ret_st, *ret_attr_us);
    sw_mutex_unlock(&ov->lock);
    return 0;
}

/* ---- changing */

static int change_owner(SwOverlay *ov, const Place *place, const SwChange *change)
{
    uid_t uid = change->what & SW_SET_UID ? change->uid : (uid_t)-1;
    gid_t gid = change->what & SW_SET_GID ? change->gid : (gid_t)-1;
    return ov->port->chownat(ov->port, place->file->fd, place->name, uid, gid);
}

/*
 * Before another user's write the kernel takes the privilege bits away in the writer's name, who may not change modes.
 * (A chmod(2) of such a user it refuses by itself: default_permissions.)  The write will do the same to the source's
 * file, or the stage is made without the bits.
 */
static gboolean is_privilege_drop(SwOverlay *ov, const Place *place, mode_t mode)
{
    struct stat st;
    if (ov->port->statat(ov->port, place->file->fd, place->name, &st) < 0)
        return FALSE;
    mode_t dropped = (st.st_mode & 07777) & ~mode;
    return (st.st_mode & 07777) == (mode | dropped) && !(dropped & ~(S_ISUID | S_ISGID));
}

static int change_mode(SwOverlay *ov, const Place *place, mode_t mode)
{
    int r = ov->port->chmodat(ov->port, place->file->fd, place->name, mode);
    return r == -EPERM && is_privilege_drop(ov, place, mode) ? 0 : r;
}

static int change_place(SwOverlay *ov, const Place *place, const SwChange *change)
{
    int r = 0;
    if (change->what & (SW_SET_UID | SW_SET_GID))
        r = change_owner(ov, place, change);
    if (r == 0 && (change->what & SW_SET_MODE))
        r = change_mode(ov, place, change->mode & 07777);
    if (r == 0 && (change->what & SW_SET_TIMES))
        r = ov->port->utimensat(ov->port, place->file->fd, place->name, change->times);
    return r;
}

/* Attributes set while a stage is open belong to it and survive the commit (C8). */
static void remember_change(SwStage *stage, const SwChange *change)
{
    if (!stage->materialised)
        return; /* went to the base itself, from where the stage will take it */
    stage->mode_set |= (change->what & SW_SET_MODE) != 0;
    stage->owner_set |= (change->what & (SW_SET_UID | SW_SET_GID)) != 0;
    stage->mtime_set |= (change->what & SW_SET_TIMES) && change->times[1].tv_nsec != UTIME_OMIT;
}

/*
 * truncate(2) by name opens like a writer: the kernel is sent round (ESTALE) to the staged node, and comes back with
 * the same request for that.  Of a file that is written in place it is cut here.
 */
static int truncate_name(SwOverlay *ov, const SwCaller *caller, SwNode *node, guint64 size)
{
    SwHandle *handle = NULL;
    struct stat st;
    gint64 attr_us;
    int r = sw_overlay_getattr(ov, caller, node, NULL, &st, &attr_us);
    if (r == 0 && (guint64)st.st_size == size) {
        SwChange touch = {.what = SW_SET_TIMES, .times = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}}};
        return sw_overlay_setattr(ov, caller, node, NULL, &touch, TRUE, &st, &attr_us);
    }
    if (r == 0)
        r = sw_overlay_open(ov, caller, node, O_WRONLY, &handle);
    if (r < 0)
        return r;
    SwChange cut = {.what = SW_SET_SIZE, .size = size};
    r = sw_overlay_setattr(ov, caller, node, handle, &cut, TRUE, &st, &attr_us);
    int released = sw_overlay_release(ov, handle, TRUE);
    return r < 0 ? r : released;
}

/*
 * By name, as one who opens, cuts and closes: the stage may be the one that truncate_name made, which nobody else has
 * open, or it may be committed at any moment by the RELEASE of its last writer.
 */
static int truncate_stage(SwOverlay *ov, const SwCaller *caller, SwStage *stage, const SwHandle *handle, guint64 size,
                          gboolean may_wait)
{
    sw_mutex_lock(&ov->lock);
    gboolean private = stage->everyone;
    sw_mutex_unlock(&ov->lock);
    if (private || (handle && handle->stage == stage))
        return sw_stage_truncate(stage, caller, size);
    if (!may_wait)
        return -EINPROGRESS;
    if (!sw_stage_await(stage)) /* its last writer has closed it since it was found */
        return truncate_name(ov, caller, stage->node, size);
    /* This is what the second walk was for; the thread's next open is another matter. */
    SwPin pin = {0};
    sw_ignore(sw_pin_take(ov, caller, stage->node, SW_PIN_ANY, &pin));
    if (pin.stage)
        sw_stage_give_up(pin.stage);
    sw_stage_unref(pin.stage);
    SwHandle *cutter = sw_handle_new_staged(ov, caller, stage->node, stage, O_WRONLY);
    int r = sw_stage_truncate(stage, caller, size);
    int released = sw_overlay_release(ov, cutter, TRUE);
    return r < 0 ? r : released;
}

static int change_stage(SwOverlay *ov, const SwCaller *caller, const Place *place, const SwHandle *handle,
                        const SwChange *change, gboolean may_wait)
{
    SwStage *stage = place->stage;
    int r = change->what & SW_SET_SIZE ? truncate_stage(ov, caller, stage, handle, change->size, may_wait) : 0;
    if (r < 0 || !(change->what & ~SW_SET_SIZE))
        return r;
    SW_HOLD(&stage->lock);
    Place now = {.file = stage->file, .name = (char *)""};
    r = change_place(ov, &now, change);
    if (r == 0)
        remember_change(stage, change);
    if (r == 0 && !stage->materialised)
        r = ov->port->lookat(ov->port, stage->file->fd, "", &stage->base);
    return r;
}

static int truncate_handle(SwOverlay *ov, SwHandle *handle, guint64 size)
{
    if (sw_handle_kind(handle) == SW_HANDLE_APPEND)
        return sw_append_truncate(ov, handle, size);
    int r = sw_in_place_confirm(ov, handle);
    g_autoptr(SwFile) file = sw_handle_file(ov, handle);
    return r < 0 ? r : ov->port->ftruncate(ov->port, file->fd, size);
}

static int change_committed(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwHandle *handle, const Place *place,
                            const SwChange *change, gboolean may_wait)
{
    int r = 0;
    if ((change->what & SW_SET_SIZE) && handle && handle->file && sw_writes(handle->flags))
        r = truncate_handle(ov, handle, change->size);
    else if (change->what & SW_SET_SIZE)
        r = may_wait ? truncate_name(ov, caller, node, change->size) : -EINPROGRESS;
    if (r == 0 && (change->what & ~SW_SET_SIZE)) {
        ov->port->become(ov->port, &caller->cred);
        r = change_place(ov, place, change);
    }
    return r;
}

int sw_overlay_setattr(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwHandle *handle, const SwChange *change,
                       gboolean may_wait, struct stat *ret_st, gint64 *ret_attr_us)
{
    ov->port->become(ov->port, &caller->cred);
    g_auto(Place) place;
    int r = find_place(ov, node, handle, &place);
    if (r < 0)
        return r;
    if ((change->what & SW_SET_TIMES) && change->times[1].tv_nsec != UTIME_NOW &&
        change->times[1].tv_nsec != UTIME_OMIT)
        sw_lock_dated(ov, caller, node, &change->times[1]);
    /* A stage that was committed is written again only through its own handle. */
    gboolean staged = place.stage && (sw_stage_is_open(place.stage) || (change->what & SW_SET_SIZE));
    r = staged ? change_stage(ov, caller, &place, handle, change, may_wait)
               : change_committed(ov, caller, node, handle, &place, change, may_wait);
    return r < 0 ? r : sw_overlay_getattr(ov, caller, node, handle, ret_st, ret_attr_us);
}

/* ---- extended */

static gboolean is_acl(const char *key)
{
    return strcmp(key, SW_ACL_ACCESS) == 0 || strcmp(key, SW_ACL_DEFAULT) == 0;
}

gboolean sw_overlay_has_acls(SwOverlay *ov)
{
    return ov->port->getxattr(ov->port, ov->source_fd, "", SW_ACL_ACCESS, NULL, 0) != -EOPNOTSUPP;
}

ssize_t sw_overlay_getxattr(SwOverlay *ov, const SwCaller *caller, SwNode *node, const char *key, void *buf,
                            size_t size)
{
    if (sw_is_told(ov, node, key))
        return sw_tell(ov, caller, key, buf, size);
    ov->port->become(ov->port, &caller->cred);
    g_auto(Place) place;
    ssize_t r = find_place(ov, node, NULL, &place);
    if (r == 0)
        r = ov->port->getxattr(ov->port, place.file->fd, place.name, key, buf, size);
    /* What lies on another file system than the source's root may have no ACLs.  The kernel, which asks in order to
     * check a permission, takes any other answer for an error of the program's call (fs/fuse/acl.c).
     */
    return r == -EOPNOTSUPP && is_acl(key) ? -ENODATA : r;
}

ssize_t sw_overlay_listxattr(SwOverlay *ov, const SwCaller *caller, SwNode *node, char *buf, size_t size)
{
    ov->port->become(ov->port, &caller->cred);
    g_auto(Place) place;
    int r = find_place(ov, node, NULL, &place);
    return r < 0 ? r : ov->port->listxattr(ov->port, place.file->fd, place.name, buf, size);
}

int sw_overlay_setxattr(SwOverlay *ov, const SwCaller *caller, SwNode *node, const char *key, const void *value,
                        size_t size, int flags)
{
    ov->port->become(ov->port, &caller->cred);
    g_auto(Place) place;
    int r = find_place(ov, node, NULL, &place);
    return r < 0 ? r : ov->port->setxattr(ov->port, place.file->fd, place.name, key, value, size, flags);
}

int sw_overlay_removexattr(SwOverlay *ov, const SwCaller *caller, SwNode *node, const char *key)
{
    ov->port->become(ov->port, &caller->cred);
    g_auto(Place) place;
    int r = find_place(ov, node, NULL, &place);
    return r < 0 ? r : ov->port->removexattr(ov->port, place.file->fd, place.name, key);
}

int sw_overlay_statfs(SwOverlay *ov, const SwCaller *caller, struct statvfs *ret_st)
{
    ov->port->become(ov->port, &caller->cred);
    return ov->port->statvfs(ov->port, ov->source_fd, ret_st);
}
