/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories: the source's own entries at the source's own positions, without what is ours, then the new files that
 * only this caller (C15) or this host (C16) sees.
 */
#include "carry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>

#define BUFFER_SIZE 65536
/* Positions of the entries that are added: above all that file systems use but the end mark. */
#define EXTRA_BASE ((off_t)0x7ffffffffff00000)

/* As getdents64(2) gives it. */
typedef struct {
    guint64 d_ino;
    gint64 d_off;
    guint16 d_reclen;
    guint8 d_type;
    char d_name[];
} Dirent;

struct SwDirHandle {
    guint64 kernel_id; /* as that of a node */
    GList link;        /* SwOverlay.lock: in SwOverlay.open_dirs */
    SwNode *node;      /* counted */
    int fd;
    SwListing *listing; /* NULL: the kernel keeps nothing of what it reads here */
    gboolean right;     /* what it has kept of others is right */
    SwWish wish;
    SwMutex lock;   /* of all below */
    off_t position; /* after the entry consumed last */
    size_t at, filled;
    gboolean at_end;
    GPtrArray *extras;
    char buffer[BUFFER_SIZE];
};

gboolean sw_dir_handle_keeps(const SwDirHandle *handle, gboolean *ret_right)
{
    *ret_right = handle->right;
    return handle->listing != NULL;
}

/* Through the descriptor: reading a directory needs no right to search it. */
static int open_dir(SwOverlay *ov, SwNode *node)
{
    g_autoptr(SwFile) dir = NULL;
    int r = sw_node_dir(ov, node, &dir);
    return r < 0 ? r : ov->port->reopen(ov->port, dir->fd, O_RDONLY | O_DIRECTORY);
}

/* The directory may have been replaced by another host: then this node is not what the name means now. */
static int check_dir(SwOverlay *ov, SwNode *node)
{
    SwNode *parent;
    g_autofree char *name = NULL;
    if (node == ov->root || !sw_node_first_name(ov, node, &parent, &name))
        return 0;
    g_autoptr(SwFile) dir = NULL;
    SwFound found;
    int r = sw_node_dir(ov, parent, &dir);
    if (r == 0)
        r = ov->port->lookat(ov->port, dir->fd, name, &found);
    sw_mutex_lock(&ov->lock);
    gboolean same = r == 0 && sw_identity_is(&node->id, &found);
    if (!same)
        sw_node_forget_dir_locked(ov, node);
    sw_node_unref_locked(ov, parent);
    sw_mutex_unlock(&ov->lock);
    return r < 0 ? r : same ? 0 : -ESTALE;
}

int sw_overlay_opendir(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwDirHandle **ret_handle)
{
    ov->port->become(ov->port, &caller->cred);
    int r = check_dir(ov, node);
    if (r == -ESTALE) {
        /* The name may turn out to be a file, whose open must not need another second walk. */
        SwPin intent = {.from = node, .intent = TRUE, .flags = O_RDONLY};
        sw_pin_add(ov, caller, &intent);
    }
    if (r < 0)
        return r;
    struct stat st;
    int fd = open_dir(ov, node);
    if (fd < 0)
        return fd;
    r = ov->port->stat_fresh(ov->port, fd, "", &st);
    if (r < 0) {
        ov->port->close(ov->port, fd);
        return r;
    }
    SwDirHandle *handle = g_new(SwDirHandle, 1);
    handle->node = node;
    handle->fd = fd;
    handle->listing = sw_listing_open(ov, node, &st, &handle->right);
    handle->wish = sw_reader_opens(ov, caller->tid, node);
    handle->kernel_id = 0;
    handle->link = (GList){.data = handle};
    handle->position = 0;
    handle->at = handle->filled = 0;
    handle->at_end = FALSE;
    handle->extras = NULL;
    sw_mutex_init(&handle->lock);
    sw_mutex_lock(&ov->lock);
    sw_node_ref_locked(node);
    g_queue_push_tail_link(&ov->open_dirs, &handle->link);
    sw_mutex_unlock(&ov->lock);
    *ret_handle = handle;
    return 0;
}

static int refill(SwOverlay *ov, SwDirHandle *handle)
{
    ssize_t n = ov->port->getdents(ov->port, handle->fd, handle->buffer, sizeof handle->buffer);
    if (n < 0)
        return n;
    handle->at = 0;
    handle->filled = n;
    handle->at_end = n == 0;
    return 0;
}

static int seek(SwOverlay *ov, SwDirHandle *handle, off_t offset)
{
    if (offset == handle->position && offset != 0)
        return 0;
    handle->at = handle->filled = 0;
    handle->at_end = offset >= EXTRA_BASE && offset < G_MAXINT64;
    handle->position = offset;
    return handle->at_end ? 0 : ov->port->seekdir(ov->port, handle->fd, offset);
}

/* Ours, or a claim: not there for anybody (C9, C26). */
static gboolean is_hidden(SwOverlay *ov, SwDirHandle *handle, const Dirent *entry)
{
    if (sw_name_is_reserved(entry->d_name))
        return TRUE;
    if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN)
        return FALSE;
    char target[PATH_MAX], host[SW_HOST_ID_MAX + 1];
    ssize_t n = ov->port->readlinkat(ov->port, handle->fd, entry->d_name, target, sizeof target - 1);
    if (n < 0)
        return FALSE;
    target[n] = '\0';
    return sw_claim_parse(target, host);
}

/* TRUE: go on. */
static gboolean give_entry(SwOverlay *ov, SwDirHandle *handle, SwFillFunc fill, gpointer data)
{
    const Dirent *entry = (const Dirent *)(handle->buffer + handle->at);
    struct stat st = {.st_ino = entry->d_ino, .st_mode = DTTOIF(entry->d_type)};
    if (!is_hidden(ov, handle, entry) && !fill(data, entry->d_name, &st, entry->d_off))
        return FALSE;
    handle->at += entry->d_reclen;
    handle->position = entry->d_off;
    return TRUE;
}

gboolean sw_overlay_listed(SwOverlay *ov, const SwCaller *caller, SwDirHandle *handle, const char *name, off_t offset,
                           SwEntry *ret_entry)
{
    if (handle->wish == SW_WISH_NAMES || (handle->wish == SW_WISH_UNKNOWN && offset != 0))
        return FALSE;
    gboolean hot;
    g_autoptr(SwStage) stage = sw_pending_visible(ov, caller, handle->node, name, &hot);
    if (stage && sw_stage_is_open(stage))
        return sw_entry_of_stage(stage, ret_entry) == 0;
    ov->port->become(ov->port, &caller->cred);
    g_autoptr(SwFile) dir = NULL;
    return sw_node_dir(ov, handle->node, &dir) == 0 &&
           sw_overlay_lookup_found(ov, handle->node, name, 0, dir, ret_entry) == 0;
}

static void give_extras(SwOverlay *ov, const SwCaller *caller, SwDirHandle *handle, off_t offset, SwFillFunc fill,
                        gpointer data)
{
    guint i = offset >= EXTRA_BASE && offset < G_MAXINT64 ? offset - EXTRA_BASE : 0;
    if (i == 0 || !handle->extras) {
        g_clear_pointer(&handle->extras, g_ptr_array_unref);
        handle->extras = sw_pending_names(ov, caller, handle->node);
    }
    if (handle->listing && handle->extras->len)
        sw_listing_spoilt(ov, handle->listing);
    for (; i < handle->extras->len; i++) {
        struct stat st = {.st_ino = (ino_t)-1, .st_mode = S_IFREG};
        if (!fill(data, handle->extras->pdata[i], &st, EXTRA_BASE + i + 1))
            return;
        handle->position = EXTRA_BASE + i + 1;
    }
}

int sw_overlay_readdir(SwOverlay *ov, const SwCaller *caller, SwDirHandle *handle, off_t offset, SwFillFunc fill,
                       gpointer data)
{
    ov->port->become(ov->port, &caller->cred);
    SW_HOLD(&handle->lock);
    if (handle->listing && offset == 0)
        sw_listing_begins(ov, handle->listing);
    int r = seek(ov, handle, offset);
    while (r == 0 && !handle->at_end) {
        if (handle->at == handle->filled)
            r = refill(ov, handle);
        else if (!give_entry(ov, handle, fill, data))
            return 0;
    }
    if (r == 0)
        give_extras(ov, caller, handle, offset, fill, data);
    return r;
}

int sw_overlay_fsyncdir(SwOverlay *ov, SwDirHandle *handle)
{
    return ov->port->fsync(ov->port, handle->fd, FALSE);
}

void sw_overlay_releasedir(SwOverlay *ov, SwDirHandle *handle)
{
    ov->port->close(ov->port, handle->fd);
    if (handle->listing)
        sw_listing_close(ov, handle->listing);
    sw_mutex_lock(&ov->lock);
    g_queue_unlink(&ov->open_dirs, &handle->link);
    sw_node_unref_locked(ov, handle->node);
    sw_mutex_unlock(&ov->lock);
    sw_ids_drop(ov, handle->kernel_id);
    if (handle->extras)
        g_ptr_array_unref(handle->extras);
    sw_mutex_clear(&handle->lock);
    g_free(handle);
}

guint64 sw_overlay_dir_id(SwOverlay *ov, SwDirHandle *handle)
{
    return sw_ids_of(ov, handle->kernel_id, handle);
}

/* ---- for the daemon that follows */

static void carry_extras(SwBundle *bundle, SwDirHandle *handle)
{
    gboolean has = handle->extras != NULL;
    SW_BUNDLE(bundle, has);
    if (!has)
        return;
    guint n = sw_bundle_count(bundle, handle->extras ? handle->extras->len : 0, G_MAXINT32);
    if (!handle->extras)
        handle->extras = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < n; i++) {
        char *name = i < handle->extras->len ? handle->extras->pdata[i] : NULL;
        sw_bundle_text(bundle, &name, NAME_MAX + 1);
        if (i >= handle->extras->len)
            g_ptr_array_add(handle->extras, name ? name : g_strdup(""));
    }
}

/* What was read and not given is read again: no reader goes on at that position, for it is none of a directory. */
static void carry_dir(SwCarriage *carriage, SwDirHandle *handle)
{
    SwBundle *bundle = carriage->bundle;
    guint wish = handle->wish;
    gboolean is_listing = handle->listing != NULL;
    sw_bundle_mark(bundle, "directory");
    if (sw_bundle_is_out(bundle))
        handle->kernel_id = sw_overlay_dir_id(carriage->overlay, handle);
    SW_BUNDLE(bundle, handle->kernel_id);
    SW_CARRY(carriage, SW_CARRY_NODE, handle->node, TRUE);
    sw_bundle_fd(bundle, &handle->fd);
    SW_BUNDLE(bundle, is_listing);
    SW_BUNDLE(bundle, handle->right);
    sw_bundle_choice(bundle, &wish, SW_WISH_ATTRIBUTES);
    handle->wish = wish;
    carry_extras(bundle, handle);
    if (!handle->node || handle->fd < 0 || (is_listing && !handle->node->listing))
        sw_bundle_fail(bundle, "an open directory is none");
    else
        handle->listing = is_listing ? handle->node->listing : NULL;
}

static SwDirHandle *blank_dir(SwOverlay *ov)
{
    SwDirHandle *handle = g_new0(SwDirHandle, 1);
    handle->link.data = handle;
    handle->position = -1;
    sw_mutex_init(&handle->lock);
    g_queue_push_tail_link(&ov->open_dirs, &handle->link);
    return handle;
}

void sw_dirs_carry(SwCarriage *carriage)
{
    SwOverlay *ov = carriage->overlay;
    gboolean out = sw_bundle_is_out(carriage->bundle);
    guint n = sw_bundle_count(carriage->bundle, ov->open_dirs.length, G_MAXINT32);
    GList *at = ov->open_dirs.head;
    for (guint i = 0; i < n; i++) {
        SwDirHandle *handle = out ? at->data : blank_dir(ov);
        carry_dir(carriage, handle);
        if (!out && !sw_bundle_failed(carriage->bundle))
            sw_ids_inherit(ov, &handle->kernel_id, handle);
        at = out ? at->next : NULL;
    }
}
