/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Old versions on a source that forgets them (C1; lease/old.h).
 *
 *   replaced   linked into old/ before the rename, so that at no moment it has no link
 *   removed    renamed into old/
 *   read       a handle looks now and then whether its file still is what its name leads to; if not, it makes a link of
 *              its own, which ends with the handle
 *
 * Programs are not to see those links: a file that was replaced has none for them, and one that is about to be has one
 * fewer.
 */
#include "../port/replace.h"
#include "internal.h"

#include <errno.h>

/* A handle has to have seen that its file is old well before that is dropped. */
#define LOOKS_PER_KEEP 3
#define LOOKS_PER_TICK 100
#define REPLACING_WAIT_US (5 * G_USEC_PER_SEC)
#define REPLACING_TRIES 8

/* ---- replaced */

/* One link more than programs are to see, or one fewer again. */
static void hide_link(SwOverlay *ov, SwReplacing *replacing, int change)
{
    sw_mutex_lock(&ov->lock);
    if (change > 0)
        replacing->node = sw_node_find_locked(ov, &replacing->found);
    if (replacing->node && change > 0)
        sw_node_ref_locked(replacing->node);
    if (replacing->node)
        replacing->node->hidden_links += change;
    sw_mutex_unlock(&ov->lock);
}

/*
 * Of two hosts that replace a file at once, each would link what stands there now, and the one that comes second
 * replace what the first has just put there, of which there is no link.  So they do it one after the other.  Who cannot
 * have the lease in time goes on without it.
 */
static void lease_it(SwOverlay *ov, const SwCred *cred, int dirfd, const char *name, SwReplacing *replacing)
{
    gint64 deadline = ov->port->now_us(ov->port) + REPLACING_WAIT_US;
    for (guint tries = 0; tries < REPLACING_TRIES; tries++) {
        SwPredecessor predecessor; /* of an append, whose file is replaced as it is */
        SwFound now;
        int r = sw_content_lease_take(ov->leases, replacing->found.st.st_ino, NULL, deadline, NULL, NULL,
                                      &replacing->lease, &predecessor);
        ov->port->become(ov->port, cred);
        if (r < 0) {
            replacing->lease = NULL;
            return;
        }
        if (sw_look_fresh(ov, dirfd, name, &now) < 0 || !S_ISREG(now.st.st_mode) ||
            sw_same_object(&now, &replacing->found))
            return;
        (void)sw_content_lease_release(g_steal_pointer(&replacing->lease));
        ov->port->become(ov->port, cred);
        replacing->found = now;
    }
}

static void end_lease(SwOverlay *ov, const SwCred *cred, SwReplacing *replacing)
{
    if (!replacing->lease)
        return;
    (void)sw_content_lease_release(g_steal_pointer(&replacing->lease));
    ov->port->become(ov->port, cred);
}

void sw_replacing_begin(SwOverlay *ov, const SwCred *cred, int dirfd, const char *name, gboolean leased,
                        SwReplacing *replacing)
{
    *replacing = (SwReplacing){0};
    if (!sw_control_keeps_old(ov->control) || sw_look(ov, dirfd, name, &replacing->found, NULL) < 0 ||
        !S_ISREG(replacing->found.st.st_mode))
        return;
    if (!leased)
        lease_it(ov, cred, dirfd, name, replacing);
    hide_link(ov, replacing, 1);
    if (sw_old_link(ov->control, dirfd, name, cred, &replacing->old) == 0)
        return;
    end_lease(ov, cred, replacing);
    hide_link(ov, replacing, -1);
    sw_node_unref(ov, replacing->node);
    replacing->node = NULL;
}

/* Of a file with several names only one was taken: the others keep it, and our link would be one too many. */
static gboolean lives_on(SwOverlay *ov, const SwReplacing *replacing)
{
    return replacing->found.st.st_nlink > 1 && sw_old_is_linked_elsewhere(ov->control, &replacing->old);
}

void sw_replacing_end(SwOverlay *ov, const SwCred *cred, SwReplacing *replacing, gboolean replaced)
{
    if (!replacing->old.epoch)
        return;
    if (replaced && !lives_on(ov, replacing)) {
        sw_old_drop_later(ov->control, &replacing->old);
        sw_mutex_lock(&ov->lock);
        if (replacing->node)
            replacing->node->replaced = TRUE;
        sw_mutex_unlock(&ov->lock);
    } else {
        sw_old_drop(ov->control, &replacing->old);
        ov->port->become(ov->port, cred);
    }
    hide_link(ov, replacing, -1);
    sw_node_unref(ov, replacing->node);
    end_lease(ov, cred, replacing);
}

/* ---- removed */

static void set_replaced(SwOverlay *ov, const SwFound *found)
{
    sw_mutex_lock(&ov->lock);
    SwNode *node = sw_node_find_locked(ov, found);
    if (node)
        node->replaced = TRUE;
    sw_mutex_unlock(&ov->lock);
}

int sw_old_unlink(SwOverlay *ov, int dirfd, const char *name)
{
    SwFound found;
    SwOld old;
    gboolean keep = sw_control_keeps_old(ov->control) && ov->port->lookat(ov->port, dirfd, name, &found) == 0 &&
                    S_ISREG(found.st.st_mode) && found.st.st_nlink == 1;
    /* What cannot be moved, to another file system say, is removed; and the errno is that of an unlink. */
    if (!keep || sw_old_take(ov->control, dirfd, name, &old) < 0)
        return ov->port->unlinkat(ov->port, dirfd, name, 0);
    sw_old_drop_later(ov->control, &old);
    set_replaced(ov, &found);
    return 0;
}

/* ---- shown */

void sw_node_hide_links_locked(const SwNode *node, struct stat *st)
{
    if (!S_ISREG(st->st_mode))
        return;
    if (node->replaced)
        st->st_nlink = 0;
    else if (node->hidden_links && st->st_nlink > 1)
        st->st_nlink--;
}

/* ---- read */

static gint64 look_interval(SwOverlay *ov)
{
    return sw_control_keeps_old(ov->control) / LOOKS_PER_KEEP;
}

void sw_old_watch_locked(SwOverlay *ov, SwHandle *handle)
{
    if (!sw_control_keeps_old(ov->control))
        return;
    handle->look_us = ov->port->now_us(ov->port) + look_interval(ov);
    handle->look_link.data = handle;
    g_queue_push_tail_link(&ov->looks, &handle->look_link);
}

void sw_old_unwatch_locked(SwOverlay *ov, SwHandle *handle)
{
    if (handle->look_link.data)
        g_queue_unlink(&ov->looks, &handle->look_link);
    handle->look_link.data = NULL;
}

void sw_old_released(SwOverlay *ov, const SwOld *held)
{
    if (held->epoch)
        sw_old_drop(ov->control, held);
}

/* What a look needs to know of a handle that may be closed meanwhile. */
typedef struct {
    SwHandle *handle; /* to be found again, not to be followed */
    SwNode *node;     /* counted */
    SwFile *file;     /* counted */
} Look;

/* The version that is read through the handle; NULL: a stage. */
static SwFile *version_locked(const SwHandle *handle)
{
    const SwStage *stage = handle->stage;
    SwFile *file = handle->file;
    if (!file && stage && !(stage->state == SW_STAGE_OPEN && stage->materialised))
        file = stage->file;
    return file ? sw_file_ref(file) : NULL;
}

/* The handle whose turn it is; FALSE: none is due, and *ret_next is when the first will be. */
static gboolean next_look(SwOverlay *ov, gint64 now_us, Look *look, gint64 *ret_next)
{
    SW_HOLD(&ov->lock);
    SwHandle *handle = g_queue_peek_head(&ov->looks);
    *ret_next = handle ? handle->look_us : G_MAXINT64;
    if (!handle || handle->look_us > now_us)
        return FALSE;
    sw_old_unwatch_locked(ov, handle);
    sw_old_watch_locked(ov, handle);
    *look = (Look){.handle = handle, .node = handle->node, .file = version_locked(handle)};
    sw_node_ref_locked(look->node);
    return TRUE;
}

/* 1: the name of the node leads to something else, or it has none; 0: it does not; else nobody knows. */
static int is_old(SwOverlay *ov, const Look *look)
{
    SwNode *parent;
    g_autofree char *name = NULL;
    g_autoptr(SwFile) dir = NULL;
    SwFound mine, now;
    int r = ov->port->lookat(ov->port, look->file->fd, "", &mine);
    if (r < 0)
        return r;
    if (!sw_node_first_name(ov, look->node, &parent, &name))
        return 1;
    r = sw_node_dir_fresh(ov, parent, &dir);
    sw_node_unref(ov, parent);
    if (r == 0)
        r = ov->port->lookat(ov->port, dir->fd, name, &now);
    if (r < 0)
        return r == -ENOENT || r == -ESTALE ? 1 : r;
    return !sw_same_object(&mine, &now);
}

/* The handle takes the link over, unless it was closed. */
static gboolean hand_over(SwOverlay *ov, const Look *look, const SwOld *held)
{
    SW_HOLD(&ov->lock);
    for (GSList *at = look->node->handles; at; at = at->next) {
        SwHandle *handle = at->data;
        if (handle != look->handle || !handle->look_link.data)
            continue;
        sw_old_unwatch_locked(ov, handle);
        handle->held = *held;
        look->node->replaced |= !(look->node->names && look->node->names->next);
        return TRUE;
    }
    return FALSE;
}

static void take_look(SwOverlay *ov, const Look *look)
{
    SwOld held;
    if (is_old(ov, look) != 1 || sw_old_link(ov->control, look->file->fd, "", NULL, &held) < 0)
        return;
    if (!hand_over(ov, look, &held))
        sw_old_drop(ov->control, &held);
}

gint64 sw_old_look(SwOverlay *ov, gint64 now_us)
{
    Look look;
    gint64 next_us = now_us;
    ov->port->become(ov->port, NULL);
    for (guint i = 0; i < LOOKS_PER_TICK && next_look(ov, now_us, &look, &next_us); i++) {
        if (look.file)
            take_look(ov, &look);
        sw_file_unref(look.file);
        sw_node_unref(ov, look.node);
    }
    return MIN(next_us, sw_old_tick(ov->control, now_us));
}
