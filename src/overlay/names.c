/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls that change names.  They take effect on the source at once (C13), except where a name is being staged.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <string.h>

static int check_name(const char *name)
{
    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    return sw_name_is_reserved(name) ? -EPERM : 0;
}

/* A stage that the caller sees at the name and that takes writes; with a reference. */
static SwStage *staged_at(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name)
{
    gboolean hot;
    SwStage *stage = sw_pending_visible(ov, caller, parent, name, &hot);
    if (hot && !stage)
        sw_settle_name(ov, parent, name);
    if (stage && sw_stage_is_open(stage))
        return stage;
    sw_stage_unref(stage);
    return NULL;
}

/* ---- making */

typedef struct {
    SwOverlay *ov;
    const SwCaller *caller;
    SwNode *parent;
    const char *name;
    SwFile *dir;
    SwLock *lock; /* being made, or NULL */
} Making;

/* A new file of the caller's own stands in the way like any other object. */
static int making_begin(Making *m, SwLockKind kind)
{
    int r = check_name(m->name);
    if (r < 0)
        return r;
    m->ov->port->become(m->ov->port, &m->caller->cred);
    g_autoptr(SwStage) stage = staged_at(m->ov, m->caller, m->parent, m->name);
    if (stage)
        return -EEXIST;
    m->ov->port->become(m->ov->port, &m->caller->cred);
    r = sw_node_dir(m->ov, m->parent, &m->dir);
    return r < 0 ? r : sw_lock_begin(m->ov, m->caller, m->parent, m->name, kind, &m->lock);
}

static int making_end(Making *m, int r, SwEntry *ret_entry)
{
    if (m->lock)
        r = sw_lock_made(m->ov, m->caller, m->lock, m->dir->fd, r);
    if (r == 0)
        r = sw_overlay_lookup_found(m->ov, m->parent, m->name, sw_pending_turn(m->ov), m->dir, ret_entry);
    g_clear_pointer(&m->dir, sw_file_unref);
    return r;
}

/*
 * A call that took so long was sent again, and its answer may be about the directory that it made the first time (C13):
 * one that is the caller's and has nothing in it (a link: that reads the same).  Of a lock that is not believed, for it
 * would have two owners; so a program has to try again.
 */
static gboolean was_made(const Making *m, gint64 begun, const char *target)
{
    SwPort *port = m->ov->port;
    char text[PATH_MAX];
    struct stat st;
    if (!m->ov->network || m->lock || port->now_us(port) - begun < SW_SENT_AGAIN_US ||
        port->stat_fresh(port, m->dir->fd, m->name, &st) < 0 || st.st_uid != m->caller->cred.uid)
        return FALSE;
    if (!target)
        return S_ISDIR(st.st_mode) && st.st_nlink == 2 && st.st_mtim.tv_sec == st.st_ctim.tv_sec;
    ssize_t n = port->readlinkat(port, m->dir->fd, m->name, text, sizeof text);
    return n == (ssize_t)strlen(target) && memcmp(text, target, (gsize)n) == 0;
}

int sw_overlay_mkdir(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, mode_t mode,
                     SwEntry *ret_entry)
{
    Making m = {.ov = ov, .caller = caller, .parent = parent, .name = name};
    int r = making_begin(&m, SW_LOCK_DIR);
    gint64 begun = ov->port->now_us(ov->port);
    if (r == 0)
        r = ov->port->mkdirat(ov->port, m.dir->fd, name, sw_masked(ov, caller, m.dir->fd, mode));
    if (r == -EEXIST && was_made(&m, begun, NULL))
        r = 0;
    return making_end(&m, r, ret_entry);
}

int sw_overlay_mknod(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, mode_t mode, dev_t dev,
                     SwEntry *ret_entry)
{
    Making m = {.ov = ov, .caller = caller, .parent = parent, .name = name};
    int r = making_begin(&m, SW_LOCK_NONE);
    if (r == 0)
        r = ov->port->mknodat(ov->port, m.dir->fd, name, sw_masked(ov, caller, m.dir->fd, mode), dev);
    return making_end(&m, r, ret_entry);
}

int sw_overlay_symlink(SwOverlay *ov, const SwCaller *caller, const char *target, SwNode *parent, const char *name,
                       SwEntry *ret_entry)
{
    char host[SW_HOST_ID_MAX + 1];
    Making m = {.ov = ov, .caller = caller, .parent = parent, .name = name};
    /* A link that reads like a claim would be taken for one by every host. */
    int r = sw_claim_parse(target, host) ? -EPERM : making_begin(&m, SW_LOCK_SYMLINK);
    gint64 begun = ov->port->now_us(ov->port);
    if (r == 0)
        r = ov->port->symlinkat(ov->port, target, m.dir->fd, name);
    if (r == -EEXIST && was_made(&m, begun, target))
        r = 0;
    return making_end(&m, r, ret_entry);
}

ssize_t sw_overlay_readlink(SwOverlay *ov, const SwCaller *caller, SwNode *node, char *buf, size_t size)
{
    g_autofree char *name = NULL;
    g_autoptr(SwFile) dir = NULL;
    ov->port->become(ov->port, &caller->cred);
    ssize_t r = sw_node_place(ov, node, &dir, &name);
    return r < 0 ? r : ov->port->readlinkat(ov->port, dir->fd, name, buf, size);
}

/* ---- removing */

/* The handle keeps the file, the name is free, and close will not bring it back (C15). */
static void unlink_stage(SwOverlay *ov, SwStage *stage)
{
    sw_mutex_lock(&stage->lock);
    if (stage->state == SW_STAGE_OPEN && !sw_stage_is_wanted(stage)) {
        sw_stage_discard(stage, NULL, ENOENT); /* a closed private file */
        sw_mutex_unlock(&stage->lock);
        return;
    }
    sw_stage_lose_name(stage);
    sw_mutex_unlock(&stage->lock);
}

/* Edits that other programs of this machine have open of the file that was just removed go nowhere, as POSIX has it. */
static void unlink_edits(SwOverlay *ov, SwNode *parent, const char *name)
{
    g_autoptr(GPtrArray) stages = sw_pending_stages(ov, parent, name);
    for (guint i = 0; i < stages->len; i++) {
        SwStage *stage = stages->pdata[i];
        sw_mutex_lock(&stage->lock);
        gboolean edit = stage->state == SW_STAGE_OPEN && stage->edit && stage->has_base && sw_stage_is_wanted(stage);
        sw_mutex_unlock(&stage->lock);
        if (edit)
            unlink_stage(ov, stage);
    }
}

static int unlink_source(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwFile *dir)
{
    int r = sw_lock_may_remove(ov, caller, parent, name, dir->fd, SW_REMOVED_BY_FENCED_RENAME);
    if (r < 0)
        return r;
    SwRemoval removal = {.parent = parent, .name = name};
    sw_removal_begin(ov, &removal);
    r = sw_lock_unlink(ov, caller, parent, name, dir->fd, 0);
    if (r == 0) {
        sw_lingering_unlink(ov, parent, name);
        unlink_edits(ov, parent, name);
    }
    sw_removal_end(ov, &removal);
    if (r == 0) {
        sw_lock_removed(ov, caller, parent, name);
        sw_file_locks_removed(ov, parent, name);
    } else {
        sw_lock_not_removed(ov, caller, parent, name);
    }
    return r;
}

int sw_overlay_unlink(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name)
{
    int r = check_name(name);
    if (r < 0)
        return r;
    g_autoptr(SwFile) dir = NULL;
    ov->port->become(ov->port, &caller->cred);
    g_autoptr(SwStage) stage = staged_at(ov, caller, parent, name);
    ov->port->become(ov->port, &caller->cred);
    r = sw_node_dir(ov, parent, &dir);
    if (r < 0)
        return r;
    if (!stage)
        return unlink_source(ov, caller, parent, name, dir);
    sw_mutex_lock(&stage->lock);
    gboolean claimed = stage->claimed, based = stage->has_base;
    sw_mutex_unlock(&stage->lock);
    /* A version may stand at the name as well; our own claim, if any, goes with the same call. */
    r = based || claimed ? sw_old_unlink(ov, dir->fd, name) : 0;
    if (r < 0 && r != -ENOENT)
        return r;
    sw_mutex_lock(&stage->lock);
    stage->claimed = FALSE;
    sw_mutex_unlock(&stage->lock);
    unlink_stage(ov, stage);
    sw_file_locks_removed(ov, parent, name);
    return 0;
}

static gboolean dir_has_stages(SwOverlay *ov, int dirfd, const char *name)
{
    sw_mutex_lock(&ov->lock);
    gboolean any = g_hash_table_size(ov->pending) > 0;
    sw_mutex_unlock(&ov->lock);
    SwFound found;
    if (!any || ov->port->lookat(ov->port, dirfd, name, &found) < 0)
        return FALSE;
    sw_mutex_lock(&ov->lock);
    SwNode *node = sw_node_find_locked(ov, &found);
    gboolean has = node && sw_pending_below_locked(ov, node, TRUE);
    sw_mutex_unlock(&ov->lock);
    return has;
}

int sw_overlay_rmdir(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name)
{
    int r = check_name(name);
    if (r < 0)
        return r;
    g_autoptr(SwFile) dir = NULL;
    ov->port->become(ov->port, &caller->cred);
    r = sw_node_dir(ov, parent, &dir);
    if (r < 0)
        return r;
    if (dir_has_stages(ov, dir->fd, name))
        return -ENOTEMPTY;
    r = sw_lock_may_remove(ov, caller, parent, name, dir->fd, SW_REMOVED_BY_FENCED_RENAME);
    if (r < 0)
        return r;
    r = sw_lock_unlink(ov, caller, parent, name, dir->fd, AT_REMOVEDIR);
    if (r == 0)
        sw_lock_removed(ov, caller, parent, name);
    else
        sw_lock_not_removed(ov, caller, parent, name);
    return r;
}

/* ---- linking */

/* S held: link(2) of a stage says "now" (C5); without a name (O_TMPFILE) the link becomes its name. */
static int link_stage(SwOverlay *ov, SwStage *stage, SwNode *parent, const char *name, gboolean may_wait)
{
    if (stage->state != SW_STAGE_OPEN)
        return -EAGAIN;
    gboolean nameless = !stage->parent;
    gboolean private = stage->everyone;
    if (!nameless && !private) {
        int r = stage->trial.dirty ? sw_stage_commit(stage, 0, may_wait) : 0;
        return r < 0 ? r : -EAGAIN; /* committed: now it is linked like any file */
    }
    sw_mutex_lock(&ov->lock);
    sw_pending_remove_locked(ov, stage);
    SwNode *old_parent = stage->parent;
    char *old_name = stage->name;
    sw_node_ref_locked(parent);
    stage->parent = parent;
    stage->name = g_strdup(name);
    stage->edit = FALSE;
    sw_mutex_unlock(&ov->lock);
    int r = sw_stage_commit(stage, RENAME_NOREPLACE, may_wait);
    sw_mutex_lock(&ov->lock);
    if (r < 0) {
        sw_node_unref_locked(ov, stage->parent);
        g_free(stage->name);
        stage->parent = old_parent;
        stage->name = old_name;
        sw_pending_add_locked(ov, stage);
    } else {
        if (old_parent)
            sw_node_drop_name_locked(ov, stage->node, old_parent, old_name);
        sw_node_unref_locked(ov, old_parent);
        g_free(old_name);
    }
    sw_mutex_unlock(&ov->lock);
    return r;
}

static int link_committed(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwFile *new_dir, const char *name)
{
    g_autofree char *old_name = NULL;
    g_autoptr(SwFile) old_dir = NULL;
    ov->port->become(ov->port, &caller->cred);
    int r = sw_node_place(ov, node, &old_dir, &old_name);
    return r < 0 ? r : ov->port->linkat(ov->port, old_dir->fd, old_name, new_dir->fd, name);
}

int sw_overlay_link(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwNode *parent, const char *name,
                    gboolean may_wait, SwEntry *ret_entry)
{
    Making m = {.ov = ov, .caller = caller, .parent = parent, .name = name};
    /* The record of a lock is more than one call to the source. */
    if (!may_wait && sw_lock_is_name(ov, parent, name))
        return -EINPROGRESS;
    int r = making_begin(&m, SW_LOCK_LINK);
    if (r < 0)
        return making_end(&m, r, ret_entry);
    sw_mutex_lock(&ov->lock);
    g_autoptr(SwStage) stage = node->stage ? sw_stage_ref(node->stage) : NULL;
    sw_mutex_unlock(&ov->lock);
    r = -EAGAIN;
    if (stage) {
        sw_mutex_lock(&stage->lock);
        r = link_stage(ov, stage, parent, name, may_wait);
        sw_mutex_unlock(&stage->lock);
    }
    if (r == -EAGAIN)
        r = link_committed(ov, caller, node, m.dir, name);
    return making_end(&m, r, ret_entry);
}
