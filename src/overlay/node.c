/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Directory descriptors kept open beyond their use. */
#define DIRS_MAX 256

gboolean sw_identity_is(const SwIdentity *id, const SwFound *found)
{
    return id->ino == found->st.st_ino && id->tag == found->tag;
}

SwNode *sw_node_new_locked(SwOverlay *ov, mode_t type)
{
    SwNode *node = g_new0(SwNode, 1);
    node->type = type & S_IFMT;
    node->refs = 1;
    node->dir_link.data = node;
    g_hash_table_add(ov->strays, node);
    return node;
}

void sw_node_ref_locked(SwNode *node)
{
    node->refs++;
}

void sw_node_forget_dir_locked(SwOverlay *ov, SwNode *dir)
{
    if (!dir->dir || dir == ov->root)
        return;
    g_queue_unlink(&ov->dirs, &dir->dir_link);
    g_clear_pointer(&dir->dir, sw_file_unref);
}

static void node_free_locked(SwOverlay *ov, SwNode *node)
{
    sw_ids_drop(ov, node->kernel_id);
    sw_node_unlist_locked(ov, node);
    g_hash_table_remove(ov->strays, node);
    sw_node_forget_dir_locked(ov, node);
    if (node->dir)
        sw_file_unref(node->dir);
    sw_file_unref(node->shown);
    g_free(node->listing);
    while (node->names)
        sw_node_drop_name_locked(ov, node, node->names->parent, node->names->name);
    g_free(node);
}

static void node_maybe_free_locked(SwOverlay *ov, SwNode *node)
{
    if (!node->refs && !node->n_lookup)
        node_free_locked(ov, node);
}

void sw_node_unref_locked(SwOverlay *ov, SwNode *node)
{
    if (!node)
        return;
    g_assert(node->refs > 0);
    node->refs--;
    node_maybe_free_locked(ov, node);
}

void sw_node_unref(SwOverlay *ov, SwNode *node)
{
    if (!node)
        return;
    sw_mutex_lock(&ov->lock);
    sw_node_unref_locked(ov, node);
    sw_mutex_unlock(&ov->lock);
}

void sw_overlay_forget(SwOverlay *ov, SwNode *node, guint64 count)
{
    sw_mutex_lock(&ov->lock);
    node->n_lookup -= MIN(count, node->n_lookup);
    node_maybe_free_locked(ov, node);
    sw_mutex_unlock(&ov->lock);
}

SwNode *sw_node_find_locked(SwOverlay *ov, const SwFound *found)
{
    SwNode key = {.id = {.ino = found->st.st_ino, .tag = found->tag}};
    return g_hash_table_lookup(ov->nodes, &key);
}

void sw_node_unlist_locked(SwOverlay *ov, SwNode *node)
{
    if (!node->listed)
        return;
    g_hash_table_remove(ov->nodes, node);
    g_hash_table_add(ov->strays, node);
    node->listed = FALSE;
}

void sw_node_list_locked(SwOverlay *ov, SwNode *node, const SwFound *found)
{
    sw_node_unlist_locked(ov, node);
    node->id = (SwIdentity){.ino = found->st.st_ino, .tag = found->tag};
    /* A bearer of the same identity can only be a leftover: the object it stood for is gone. */
    SwNode *old = g_hash_table_lookup(ov->nodes, node);
    if (old)
        sw_node_unlist_locked(ov, old);
    g_hash_table_remove(ov->strays, node);
    g_hash_table_add(ov->nodes, node);
    node->listed = TRUE;
}

static SwName **find_name(SwNode *node, SwNode *parent, const char *name)
{
    SwName **at = &node->names;
    while (*at && ((*at)->parent != parent || strcmp((*at)->name, name) != 0))
        at = &(*at)->next;
    return at;
}

void sw_node_drop_name_locked(SwOverlay *ov, SwNode *node, SwNode *parent, const char *name)
{
    SwName **at = find_name(node, parent, name);
    SwName *gone = *at;
    if (!gone)
        return;
    *at = gone->next;
    SwNode *old_parent = gone->parent;
    g_free(gone);
    sw_node_unref_locked(ov, old_parent);
}

void sw_node_add_name_locked(SwOverlay *ov, SwNode *node, SwNode *parent, const char *name)
{
    if (node == ov->root)
        return;
    SwName **known = find_name(node, parent, name);
    if (*known) { /* the one asked for last comes first */
        SwName *moved = *known;
        *known = moved->next;
        moved->next = node->names;
        node->names = moved;
        return;
    }
    size_t size = strlen(name) + 1;
    SwName *fresh = g_malloc(sizeof *fresh + size);
    fresh->parent = parent;
    memcpy(fresh->name, name, size);
    sw_node_ref_locked(parent);
    /* A directory has one name, and found elsewhere it was moved. */
    while (S_ISDIR(node->type) && node->names)
        sw_node_drop_name_locked(ov, node, node->names->parent, node->names->name);
    fresh->next = node->names;
    node->names = fresh;
}

SwNode *sw_node_get(SwOverlay *ov, const SwFound *found, SwNode *parent, const char *name)
{
    sw_mutex_lock(&ov->lock);
    SwNode *node = sw_node_find_locked(ov, found);
    /* A version that is still being written by those who have it open is not for others: they get a node of their own,
     * whose pages nobody changes (C1). */
    if (node && node->lingering)
        sw_node_unlist_locked(ov, node);
    if (node && !node->lingering && (found->st.st_mode & S_IFMT) == node->type) {
        sw_node_ref_locked(node);
    } else {
        node = sw_node_new_locked(ov, found->st.st_mode);
        sw_node_list_locked(ov, node, found);
    }
    if (node != parent)
        sw_node_add_name_locked(ov, node, parent, name);
    sw_mutex_unlock(&ov->lock);
    return node;
}

gint64 sw_node_tell_locked(SwOverlay *ov, SwNode *node, const struct stat *st, gint64 attr_us)
{
    /* Of answers that cross each other the kernel takes one, and nobody knows which.  From the second size on it
     * believes none for any time, and what it believes of before it is told to forget: that also undoes answers that
     * have not reached it yet. */
    if (!node->grows && node->told.mode && !node->told.staged && !node->stage && S_ISREG(st->st_mode) &&
        node->told.stamp.size != st->st_size)
        node->grows = node->doubted = TRUE;
    if (node->grows)
        attr_us = 0;
    node->told.staged = node->stage != NULL;
    node->told.since = TRUE;
    node->told.ino = st->st_ino;
    node->told.stamp = sw_stamp_of(st);
    node->told.blocks = st->st_blocks;
    node->told.mode = st->st_mode;
    node->told.uid = st->st_uid;
    node->told.gid = st->st_gid;
    node->told.nlink = st->st_nlink;
    node->told.atime = st->st_atim;
    node->told.until_us = attr_us ? ov->port->now_us(ov->port) + attr_us : 0;
    return attr_us;
}

SwFile *sw_node_left_locked(SwNode *node, SwFile *left)
{
    if (node->shown && !node->told.since)
        return left;
    SwFile *was = node->shown;
    node->shown = left;
    node->told.since = FALSE;
    return was;
}

gboolean sw_node_recall_locked(const SwNode *node, struct stat *ret_st)
{
    if (!node->told.mode)
        return FALSE;
    *ret_st = (struct stat){.st_ino = node->told.ino, .st_mode = node->told.mode, .st_nlink = node->told.nlink};
    ret_st->st_uid = node->told.uid;
    ret_st->st_gid = node->told.gid;
    ret_st->st_size = node->told.stamp.size;
    ret_st->st_blocks = node->told.blocks;
    ret_st->st_blksize = 4096;
    ret_st->st_atim = node->told.atime;
    ret_st->st_mtim = node->told.stamp.mtime;
    ret_st->st_ctim = node->told.stamp.ctime;
    return TRUE;
}

char *sw_node_path_locked(SwNode *parent, const char *name)
{
    GString *path = g_string_new(name);
    for (guint depth = 0; parent && parent->names && depth < 4096; depth++) {
        g_string_prepend_c(path, '/');
        g_string_prepend(path, parent->names->name);
        parent = parent->names->parent;
    }
    return g_string_free(path, FALSE);
}

char *sw_node_path(SwOverlay *ov, SwNode *parent, const char *name)
{
    sw_mutex_lock(&ov->lock);
    char *path = sw_node_path_locked(parent, name);
    sw_mutex_unlock(&ov->lock);
    return path;
}

char *sw_overlay_path(SwOverlay *ov, SwNode *node, const char *name)
{
    SW_HOLD(&ov->lock);
    if (name)
        return sw_node_path_locked(node, name);
    return node->names ? sw_node_path_locked(node->names->parent, node->names->name) : g_strdup("");
}

/* The n-th name of the node, as sw_node_first_name. */
static gboolean nth_name(SwOverlay *ov, SwNode *node, guint n, SwNode **ret_parent, char **ret_name)
{
    sw_mutex_lock(&ov->lock);
    SwName *at = node->names;
    while (at && n--)
        at = at->next;
    if (at) {
        sw_node_ref_locked(at->parent);
        *ret_parent = at->parent;
        *ret_name = g_strdup(at->name);
    }
    sw_mutex_unlock(&ov->lock);
    return at != NULL;
}

gboolean sw_node_first_name(SwOverlay *ov, SwNode *node, SwNode **ret_parent, char **ret_name)
{
    return nth_name(ov, node, 0, ret_parent, ret_name);
}

gboolean sw_node_has_several_names(SwOverlay *ov, SwNode *node)
{
    sw_mutex_lock(&ov->lock);
    gboolean several = node->names && node->names->next;
    sw_mutex_unlock(&ov->lock);
    return several;
}

static gboolean leads_to(SwOverlay *ov, SwNode *node, int dirfd, const char *name)
{
    SwFound found;
    if (ov->port->lookat(ov->port, dirfd, name, &found) < 0)
        return FALSE;
    sw_mutex_lock(&ov->lock);
    gboolean leads = sw_identity_is(&node->id, &found);
    sw_mutex_unlock(&ov->lock);
    return leads;
}

int sw_node_place(SwOverlay *ov, SwNode *node, SwFile **ret_dir, char **ret_name)
{
    g_autoptr(SwFile) first_dir = NULL;
    g_autofree char *first_name = NULL;
    SwNode *parent;
    g_autofree char *name = NULL;
    for (guint n = 0; nth_name(ov, node, n, &parent, &name); n++) {
        g_autoptr(SwFile) dir = NULL;
        int r = sw_node_dir(ov, parent, &dir);
        sw_node_unref(ov, parent);
        gboolean sure =
            r == 0 && ((n == 0 && !sw_node_has_several_names(ov, node)) || leads_to(ov, node, dir->fd, name));
        if (sure) {
            *ret_dir = g_steal_pointer(&dir);
            *ret_name = g_steal_pointer(&name);
            return 0;
        }
        if (r == 0 && !first_dir) {
            first_dir = g_steal_pointer(&dir);
            first_name = g_steal_pointer(&name);
        }
        g_clear_pointer(&name, g_free);
    }
    if (!first_dir)
        return -ENOENT;
    *ret_dir = g_steal_pointer(&first_dir);
    *ret_name = g_steal_pointer(&first_name);
    return 0;
}

/* Keeps `fresh` for the directory, unless another thread was faster. */
static SwFile *remember_dir(SwOverlay *ov, SwNode *dir, SwFile *fresh)
{
    sw_mutex_lock(&ov->lock);
    if (!dir->dir) {
        dir->dir = sw_file_ref(fresh);
        g_queue_push_head_link(&ov->dirs, &dir->dir_link);
        if (ov->dirs.length > DIRS_MAX)
            sw_node_forget_dir_locked(ov, g_queue_peek_tail(&ov->dirs));
    }
    sw_mutex_unlock(&ov->lock);
    return fresh;
}

int sw_node_dir(SwOverlay *ov, SwNode *dir, SwFile **ret_file)
{
    sw_mutex_lock(&ov->lock);
    SwFile *known = dir->dir ? sw_file_ref(dir->dir) : NULL;
    if (known && dir != ov->root && ov->dirs.head != &dir->dir_link) {
        g_queue_unlink(&ov->dirs, &dir->dir_link);
        g_queue_push_head_link(&ov->dirs, &dir->dir_link);
    }
    g_autofree char *path = known || !dir->names ? NULL : sw_node_path_locked(dir->names->parent, dir->names->name);
    SwIdentity id = dir->id;
    sw_mutex_unlock(&ov->lock);
    if (known) {
        *ret_file = known;
        return 0;
    }
    if (!path)
        return -ENOENT;
    int fd = ov->port->open_beneath(ov->port, ov->source_fd, path, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return fd == -ELOOP || fd == -ENOTDIR ? -ESTALE : fd;
    g_autoptr(SwFile) file = sw_file_new(ov->port, fd);
    SwFound found;
    int r = ov->port->lookat(ov->port, fd, "", &found);
    if (r < 0)
        return r;
    if (!sw_identity_is(&id, &found))
        return -ESTALE;
    *ret_file = remember_dir(ov, dir, g_steal_pointer(&file));
    return 0;
}

void sw_node_asked(SwOverlay *ov, SwNode *node)
{
    SW_HOLD(&ov->lock);
    node->asked_us = ov->port->now_us(ov->port);
}

gboolean sw_node_is_fresh(SwOverlay *ov, const SwNode *node)
{
    SW_HOLD(&ov->lock);
    return node->asked_us && !node->grows &&
           ov->port->now_us(ov->port) - node->asked_us < sw_config_of(ov)->attr_cache_us;
}

int sw_node_dir_fresh(SwOverlay *ov, SwNode *dir, SwFile **ret_file)
{
    struct stat st;
    int r = sw_node_dir(ov, dir, ret_file);
    if (r < 0 || !ov->network)
        return r;
    r = ov->port->stat_fresh(ov->port, (*ret_file)->fd, "", &st);
    if (r == 0) {
        sw_node_asked(ov, dir);
        return 0;
    }
    g_clear_pointer(ret_file, sw_file_unref);
    if (r != -ESTALE)
        return r;
    /* Removed, or replaced by another host: what is there now is told by its path. */
    sw_mutex_lock(&ov->lock);
    sw_node_forget_dir_locked(ov, dir);
    sw_mutex_unlock(&ov->lock);
    return sw_node_dir(ov, dir, ret_file);
}
