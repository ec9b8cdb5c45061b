/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * rename(2): on the source, and of what is staged (C5, C15, C16).
 */
#include "internal.h"

#include <errno.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <string.h>

typedef struct {
    SwOverlay *ov;
    const SwCaller *caller;
    SwNode *old_parent, *new_parent;
    const char *old_name, *new_name;
    SwFile *old_dir, *new_dir;
    guint flags;
    gboolean may_wait;
} Renaming;

/* The kernel keeps the node of what was moved: it has to be found under its new name. */
static void moved(const Renaming *r, SwFile *dir, SwNode *from_parent, const char *from_name, SwNode *to_parent,
                  const char *to_name)
{
    SwOverlay *ov = r->ov;
    SwFound found;
    if (ov->port->lookat_cached(ov->port, dir->fd, to_name, &found) < 0)
        return;
    sw_mutex_lock(&ov->lock);
    SwNode *node = sw_node_find_locked(ov, &found);
    if (node) {
        sw_node_ref_locked(node);
        sw_node_drop_name_locked(ov, node, from_parent, from_name);
        sw_node_add_name_locked(ov, node, to_parent, to_name);
        sw_node_unref_locked(ov, node);
    }
    sw_mutex_unlock(&ov->lock);
}

static int rename_source(const Renaming *r)
{
    SwOverlay *ov = r->ov;
    ov->port->become(ov->port, &r->caller->cred);
    int e = sw_lock_rename(ov, r->caller, r->old_parent, r->old_name, r->old_dir->fd, r->new_dir->fd, r->new_name,
                           r->flags);
    if (e < 0)
        return e;
    moved(r, r->new_dir, r->old_parent, r->old_name, r->new_parent, r->new_name);
    if (!(r->flags & RENAME_EXCHANGE)) {
        sw_lingering_unlink(ov, r->new_parent, r->new_name);
        sw_lingering_rename(ov, r->old_parent, r->old_name, r->new_parent, r->new_name);
    } else {
        moved(r, r->old_dir, r->new_parent, r->new_name, r->old_parent, r->old_name);
    }
    return 0;
}

/* S held: the stage gets another name; *old_ takes over what it had. */
static void swap_name(SwStage *stage, SwNode **parent, char **name)
{
    SwOverlay *ov = stage->overlay;
    sw_mutex_lock(&ov->lock);
    sw_pending_remove_locked(ov, stage);
    SwNode *old_parent = stage->parent;
    char *old_name = stage->name;
    stage->parent = *parent;
    stage->name = *name;
    *parent = old_parent;
    *name = old_name;
    sw_pending_add_locked(ov, stage);
    sw_mutex_unlock(&ov->lock);
}

static void set_everyone(SwStage *stage, gboolean everyone)
{
    sw_mutex_lock(&stage->overlay->lock);
    stage->everyone = everyone;
    sw_mutex_unlock(&stage->overlay->lock);
}

/* S held.  A new file: the bytes go straight to the new name. */
static int commit_as(const Renaming *r, SwStage *stage)
{
    SwOverlay *ov = r->ov;
    SwNode *parent = r->new_parent;
    char *name = g_strdup(r->new_name);
    gboolean was_claimed = stage->claimed;
    SwClass was_class = stage->klass;
    g_autofree char *path = sw_node_path(ov, r->new_parent, r->new_name);
    sw_mutex_lock(&ov->lock);
    sw_node_ref_locked(parent);
    sw_mutex_unlock(&ov->lock);
    stage->klass = sw_policy_classify(&sw_config_of(ov)->policy, path);
    /* Under an ordinary name it is for nobody's eyes before the commit. */
    gboolean was_everyones = stage->everyone, stays = was_everyones && stage->klass == SW_CLASS_PRIVATE;
    set_everyone(stage, stays);
    swap_name(stage, &parent, &name);
    int e = stays ? 0 : sw_stage_commit(stage, r->flags, r->may_wait);
    if (e < 0) {
        swap_name(stage, &parent, &name);
        set_everyone(stage, was_everyones);
        stage->klass = was_class;
    } else {
        sw_mutex_lock(&ov->lock);
        sw_node_drop_name_locked(ov, stage->node, r->old_parent, r->old_name);
        sw_node_add_name_locked(ov, stage->node, r->new_parent, r->new_name);
        sw_mutex_unlock(&ov->lock);
    }
    if (e == 0 && was_claimed)
        sw_ignore(sw_control_drop_claim(ov->control, r->old_dir->fd, r->old_name, TRUE, &r->caller->cred));
    sw_node_unref(ov, parent);
    g_free(name);
    return e;
}

/* -EAGAIN: nothing is staged there any more, rename what the source has. */
static int rename_stage(const Renaming *r, SwStage *stage)
{
    int e;
    sw_mutex_lock(&stage->lock);
    if (stage->state != SW_STAGE_OPEN)
        e = -EAGAIN;
    else if (!stage->has_base && !(r->flags & RENAME_EXCHANGE))
        e = commit_as(r, stage);
    else if (stage->trial.dirty)
        e = sw_stage_commit(stage, 0, r->may_wait);
    else
        e = 0;
    gboolean to_move = e == 0 && (stage->has_base && stage->parent != NULL) &&
                       (stage->parent == r->old_parent && strcmp(stage->name, r->old_name) == 0);
    sw_mutex_unlock(&stage->lock);
    return to_move ? -EAGAIN : e;
}

static void stages_follow(const Renaming *r)
{
    SwOverlay *ov = r->ov;
    sw_mutex_lock(&ov->lock);
    sw_pending_rename_locked(ov, r->old_parent, r->old_name, r->new_parent, r->new_name);
    sw_mutex_unlock(&ov->lock);
}

/* A stage of the caller's own at the new name is replaced like any file: its close will not bring it back. */
static void displace(const Renaming *r, const SwStage *moving)
{
    SwOverlay *ov = r->ov;
    gboolean hot;
    g_autoptr(SwStage) stage = sw_pending_visible(ov, r->caller, r->new_parent, r->new_name, &hot);
    if (!stage || stage == moving)
        return;
    sw_mutex_lock(&stage->lock);
    if (stage->state == SW_STAGE_OPEN && !sw_stage_is_wanted(stage)) {
        sw_stage_discard(stage, NULL, ENOENT);
    } else if (stage->state == SW_STAGE_OPEN) {
        sw_mutex_lock(&ov->lock);
        sw_pending_remove_locked(ov, stage);
        SwNode *parent = g_steal_pointer(&stage->parent);
        g_clear_pointer(&stage->name, g_free);
        sw_node_unref_locked(ov, parent);
        sw_mutex_unlock(&ov->lock);
        stage->claimed = FALSE;
    }
    sw_mutex_unlock(&stage->lock);
}

static int rename_opened(Renaming *r)
{
    SwOverlay *ov = r->ov;
    gboolean hot;
    g_autoptr(SwStage) stage = sw_pending_visible(ov, r->caller, r->old_parent, r->old_name, &hot);
    if (hot && !stage)
        sw_settle_name(ov, r->old_parent, r->old_name);
    gboolean same = r->old_parent == r->new_parent && strcmp(r->old_name, r->new_name) == 0;
    if (same && stage)
        return 0;
    int e = -EAGAIN;
    if (stage)
        e = rename_stage(r, stage);
    if (e == -EAGAIN) {
        e = rename_source(r);
        if (e == 0)
            stages_follow(r);
    }
    if (e == 0 && !(r->flags & RENAME_EXCHANGE))
        displace(r, stage);
    return e;
}

/* A thread that was told to walk once more comes back at once, or not at all. */
#define MOVING_US G_USEC_PER_SEC

gboolean sw_node_is_moving_locked(SwOverlay *ov, const SwNode *node)
{
    return node->moving_us && ov->port->now_us(ov->port) - node->moving_us < MOVING_US;
}

/*
 * The kernel's name moves along with what is renamed, and is believed for as long as it was told before; so those who
 * have a stage at the new name would see this file there, and not their own (C15).  rename(2) that is answered ESTALE
 * walks once more, and asks for the name (F1): then it is told that it may not be believed.  The second time it is done
 * in any case, for a second ESTALE would reach the program.
 */
static gboolean has_to_walk(const Renaming *r, SwFile *dir, const char *name, SwNode *to_parent, const char *to_name)
{
    SwOverlay *ov = r->ov;
    SwFound found;
    sw_mutex_lock(&ov->lock);
    gboolean staged = sw_pending_has_stages_locked(ov, to_parent, to_name);
    sw_mutex_unlock(&ov->lock);
    if (!staged || ov->port->lookat_cached(ov->port, dir->fd, name, &found) < 0)
        return FALSE;
    SW_HOLD(&ov->lock);
    gint64 now = ov->port->now_us(ov->port);
    SwNode *node = sw_node_find_locked(ov, &found);
    gboolean again = node && sw_node_is_moving_locked(ov, node) && node->moving_tid == r->caller->tid;
    gboolean walks = node && node->name_until_us > now && !again;
    if (node) {
        node->moving_us = walks ? now : 0;
        node->moving_tid = r->caller->tid;
        node->name_until_us = again ? 0 : node->name_until_us;
    }
    return walks;
}

static gboolean is_believed_too_long(const Renaming *r)
{
    return has_to_walk(r, r->old_dir, r->old_name, r->new_parent, r->new_name) ||
           ((r->flags & RENAME_EXCHANGE) && has_to_walk(r, r->new_dir, r->new_name, r->old_parent, r->old_name));
}

/* Renamed away or over, a lock is none any more. */
static void locks_follow(const Renaming *r)
{
    if (r->old_parent == r->new_parent && strcmp(r->old_name, r->new_name) == 0)
        return;
    sw_lock_removed(r->ov, r->caller, r->old_parent, r->old_name);
    sw_lock_removed(r->ov, r->caller, r->new_parent, r->new_name);
    if (!(r->flags & RENAME_EXCHANGE))
        sw_file_locks_renamed(r->ov, r->old_parent, r->old_name, r->new_parent, r->new_name);
}

int sw_overlay_rename(SwOverlay *ov, const SwCaller *caller, SwNode *old_parent, const char *old_name,
                      SwNode *new_parent, const char *new_name, guint flags, gboolean may_wait)
{
    if (strlen(old_name) > NAME_MAX || strlen(new_name) > NAME_MAX)
        return -ENAMETOOLONG;
    if (sw_name_is_reserved(old_name) || sw_name_is_reserved(new_name))
        return -EPERM;
    Renaming r = {.ov = ov, .caller = caller, .old_parent = old_parent, .new_parent = new_parent};
    r.old_name = old_name;
    r.new_name = new_name;
    r.flags = flags;
    r.may_wait = may_wait;
    ov->port->become(ov->port, &caller->cred);
    int e = sw_node_dir(ov, old_parent, &r.old_dir);
    if (e == 0)
        e = sw_node_dir(ov, new_parent, &r.new_dir);
    if (e == 0 && is_believed_too_long(&r))
        e = -ESTALE;
    if (e == 0)
        e = sw_lock_may_remove(ov, caller, old_parent, old_name, r.old_dir->fd,
                               flags & RENAME_EXCHANGE ? SW_REMOVED_IN_PLACE : SW_REMOVED_BY_FENCED_RENAME);
    if (e == 0)
        e = sw_lock_may_remove(ov, caller, new_parent, new_name, r.new_dir->fd, SW_REMOVED_IN_PLACE);
    if (e == 0)
        e = rename_opened(&r);
    if (e == 0)
        locks_follow(&r);
    else
        sw_lock_not_removed(ov, caller, old_parent, old_name);
    sw_file_unref(r.old_dir);
    sw_file_unref(r.new_dir);
    return e;
}
