/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which node a name means to a caller.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>

/* How often a name may turn from a link to a file while it is looked at. */
#define LOOK_TRIES 16

void sw_entry_count(SwOverlay *ov, SwEntry *entry)
{
    sw_mutex_lock(&ov->lock);
    sw_node_hide_links_locked(entry->node, &entry->st);
    entry->node->n_lookup++;
    entry->attr_us = sw_node_tell_locked(ov, entry->node, &entry->st, entry->attr_us);
    sw_mutex_unlock(&ov->lock);
    sw_node_end_doubt(ov, entry->node);
}

typedef int (*Look)(SwPort *port, int dirfd, const char *name, SwFound *ret_found);

static int look_with(SwOverlay *ov, Look look, int dirfd, const char *name, SwFound *ret_found, char **ret_claim_host)
{
    char target[PATH_MAX], host[SW_HOST_ID_MAX + 1];
    ssize_t n = -EINVAL;
    /* EINVAL: a commit put a file in the place of the claim just now. */
    for (guint tries = 0; n == -EINVAL && tries < LOOK_TRIES; tries++) {
        int r = look(ov->port, dirfd, name, ret_found);
        if (r < 0 || !S_ISLNK(ret_found->st.st_mode))
            return r;
        n = ov->port->readlinkat(ov->port, dirfd, name, target, sizeof target - 1);
    }
    if (n < 0)
        return n;
    target[n] = '\0';
    if (!sw_claim_parse(target, host))
        return 0;
    if (ret_claim_host)
        *ret_claim_host = g_strdup(host);
    return -ENOENT;
}

int sw_look(SwOverlay *ov, int dirfd, const char *name, SwFound *ret_found, char **ret_claim_host)
{
    return look_with(ov, ov->port->lookat, dirfd, name, ret_found, ret_claim_host);
}

int sw_look_fresh(SwOverlay *ov, int dirfd, const char *name, SwFound *ret_found)
{
    struct stat st;
    int r = ov->network ? ov->port->stat_fresh(ov->port, dirfd, "", &st) : 0;
    return r < 0 ? r : sw_look(ov, dirfd, name, ret_found, NULL);
}

int sw_entry_of_stage(SwStage *stage, SwEntry *ret_entry)
{
    SwEntry entry = {.node = stage->node, .attr_us = sw_stage_attr_us(stage)};
    int r = sw_stage_stat(stage, &entry.st);
    if (r < 0)
        return r;
    *ret_entry = entry;
    sw_entry_count(stage->overlay, ret_entry);
    return 0;
}

/* The look has told which object it is, and no more.  The size and times of a file are to be those of the server,
 * unless it has been asked just now (C2).  -EAGAIN: the name leads to another one by now. */
static int complete(SwOverlay *ov, SwNode *node, int dirfd, const char *name, SwFound *found)
{
    struct stat st;
    gboolean ask = S_ISREG(found->st.st_mode) && !sw_node_is_fresh(ov, node);
    int r = ask ? ov->port->stat_fresh(ov->port, dirfd, name, &st) : ov->port->statat(ov->port, dirfd, name, &st);
    if (r < 0)
        return r;
    if (st.st_ino != found->st.st_ino || st.st_dev != found->st.st_dev)
        return -EAGAIN;
    found->st = st;
    if (ask)
        sw_node_asked(ov, node);
    return 0;
}

static int look_at_node(SwOverlay *ov, SwNode *parent, const char *name, int dirfd, SwFound *ret_found,
                        SwNode **ret_node)
{
    Look look = ov->network ? ov->port->lookat_cached : ov->port->lookat;
    int r = -EAGAIN;
    for (guint tries = 0; r == -EAGAIN && tries < LOOK_TRIES; tries++) {
        r = look_with(ov, look, dirfd, name, ret_found, NULL);
        if (r < 0)
            return r;
        *ret_node = sw_node_get(ov, ret_found, parent, name);
        r = ov->network ? complete(ov, *ret_node, dirfd, name, ret_found) : 0;
        if (r < 0)
            sw_node_unref(ov, *ret_node);
    }
    return r;
}

int sw_overlay_lookup_found(SwOverlay *ov, SwNode *parent, const char *name, guint64 turn, SwFile *dir,
                            SwEntry *ret_entry)
{
    SwFound found;
    SwEntry entry = {0};
    int r = look_at_node(ov, parent, name, dir->fd, &found, &entry.node);
    if (r < 0)
        return r;
    gint64 believe_us = sw_lock_believe_us(ov, parent, name);
    entry.st = found.st;
    sw_mutex_lock(&ov->lock);
    gboolean lingering = sw_lingering_any_locked(ov, parent, name);
    gboolean believed =
        sw_pending_believed_locked(ov, parent, name, turn) && !lingering && !sw_node_is_moving_locked(ov, entry.node);
    entry.entry_us = believed ? MIN(sw_config_of(ov)->attr_cache_us, believe_us) : 0;
    if (believed)
        entry.node->name_until_us = ov->port->now_us(ov->port) + entry.entry_us;
    sw_node_hide_links_locked(entry.node, &entry.st);
    entry.attr_us = sw_attr_us(ov, &entry.st, lingering);
    entry.node->n_lookup++;
    entry.attr_us = sw_node_tell_locked(ov, entry.node, &entry.st, entry.attr_us);
    sw_node_unref_locked(ov, entry.node);
    sw_mutex_unlock(&ov->lock);
    sw_node_end_doubt(ov, entry.node);
    *ret_entry = entry;
    return 0;
}

/* A commit to one name of a file with several changes the count of its links, and the kernel does not know which. */
gint64 sw_attr_us(SwOverlay *ov, const struct stat *st, gboolean hot)
{
    return hot || (S_ISREG(st->st_mode) && st->st_nlink > 1) ? 0 : sw_config_of(ov)->attr_cache_us;
}

/* The second walk after an ESTALE: what was promised, whatever stands at the name by now. */
static int lookup_pinned(SwOverlay *ov, SwNode *node, SwFile *file, SwEntry *ret_entry)
{
    SwEntry entry = {.node = node};
    sw_mutex_lock(&ov->lock);
    g_autoptr(SwStage) stage = node->stage ? sw_stage_ref(node->stage) : NULL;
    sw_mutex_unlock(&ov->lock);
    if (stage)
        return sw_entry_of_stage(stage, ret_entry);
    if (!file)
        return -ESTALE; /* decided already: an ordinary look-up tells the same node */
    int r = ov->port->statat(ov->port, file->fd, "", &entry.st);
    if (r < 0)
        return r;
    *ret_entry = entry;
    sw_entry_count(ov, ret_entry);
    return 0;
}

static int lookup_plain(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwEntry *ret_entry)
{
    gboolean hot;
    guint64 turn = sw_pending_turn(ov);
    g_autoptr(SwStage) stage = sw_pending_visible(ov, caller, parent, name, &hot);
    if (hot && !stage)
        sw_settle_name(ov, parent, name);
    if (stage && sw_stage_is_open(stage))
        return sw_entry_of_stage(stage, ret_entry);
    ov->port->become(ov->port, &caller->cred);
    g_autoptr(SwFile) dir = NULL;
    int r = sw_node_dir_fresh(ov, parent, &dir);
    return r < 0 ? r : sw_overlay_lookup_found(ov, parent, name, turn, dir, ret_entry);
}

/* TRUE: answered as pinned. */
static gboolean lookup_second(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name,
                              SwEntry *ret_entry)
{
    g_autoptr(SwFile) file = NULL;
    SwNode *pinned = sw_pin_walk(ov, caller, parent, name, &file);
    if (!pinned)
        return FALSE;
    int r = lookup_pinned(ov, pinned, file, ret_entry);
    sw_node_unref(ov, pinned);
    return r == 0;
}

/* The name that an open meant has been found: the open is done now, since its OPEN may not be answered ESTALE again. */
static int lookup_resolved(SwOverlay *ov, const SwCaller *caller, SwNode *from, SwNode *parent, const char *name,
                           int flags, SwEntry *entry)
{
    SwEntry second;
    int r = sw_open_resolve(ov, caller, from, entry->node, parent, name, flags);
    if (r < 0) {
        sw_overlay_forget(ov, entry->node, 1);
        return r;
    }
    if (lookup_second(ov, caller, parent, name, &second)) {
        sw_overlay_forget(ov, entry->node, 1);
        *entry = second;
    }
    return 0;
}

int sw_overlay_lookup(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwEntry *ret_entry)
{
    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    if (sw_name_is_reserved(name))
        return -ENOENT;
    ov->port->become(ov->port, &caller->cred);
    if (lookup_second(ov, caller, parent, name, ret_entry))
        return 0;
    SwNode *from;
    int flags;
    gboolean intends = sw_pin_intends(ov, caller, parent, name, &from, &flags);
    int r = lookup_plain(ov, caller, parent, name, ret_entry);
    if (!intends) {
        if (r == 0)
            sw_reader_looks_up(ov, caller->tid, parent, ret_entry->st.st_mode);
        return r;
    }
    if (r == 0 && S_ISREG(ret_entry->st.st_mode))
        r = lookup_resolved(ov, caller, from, parent, name, flags, ret_entry);
    if (r < 0)
        sw_pin_missed(ov, caller, parent, name);
    sw_node_unref(ov, from);
    return r;
}
