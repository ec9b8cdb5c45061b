/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "overlay.h"

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>

#ifndef SMB2_SUPER_MAGIC
#define SMB2_SUPER_MAGIC 0xFE534D42
#endif

/* What ids.c has room for. */
#define GENERATIONS_MAX 0xfffe

static guint identity_hash(gconstpointer p)
{
    const SwNode *node = p;
    guint64 h = (node->id.ino ^ node->id.tag) * 0x9E3779B97F4A7C15u;
    return h >> 32;
}

static gboolean identity_equal(gconstpointer a, gconstpointer b)
{
    const SwNode *x = a, *y = b;
    return x->id.ino == y->id.ino && x->id.tag == y->id.tag;
}

static guint pending_hash(gconstpointer p)
{
    const SwPending *pending = p;
    return g_str_hash(pending->name) ^ g_direct_hash(pending->parent);
}

static gboolean pending_equal(gconstpointer a, gconstpointer b)
{
    const SwPending *x = a, *y = b;
    return x->parent == y->parent && strcmp(x->name, y->name) == 0;
}

void sw_note(SwOverlay *ov, SwNoteLevel level, const char *format, ...)
{
    static const SwEvent none = {0};
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    ov->note(ov->note_data, level, &none, text);
}

void sw_note_event(SwOverlay *ov, SwNoteLevel level, const SwEvent *event, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    ov->note(ov->note_data, level, event, text);
}

static gboolean is_network(guint64 type)
{
    static const guint64 types[] = {NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC, SMB2_SUPER_MAGIC, CEPH_SUPER_MAGIC,
                                    FUSE_SUPER_MAGIC, V9FS_MAGIC,      AFS_SUPER_MAGIC,  CODA_SUPER_MAGIC};
    for (guint i = 0; i < G_N_ELEMENTS(types); i++)
        if (types[i] == type)
            return TRUE;
    return FALSE;
}

/* Tried rather than looked up, for it depends on how the file system was made. */
static gboolean can_clone(SwOverlay *ov)
{
    int dir = sw_control_stage_dir(ov->control, 0);
    int a = ov->port->openat(ov->port, dir, "clone-a", O_RDWR | O_CREAT | O_EXCL, 0600);
    int b = ov->port->openat(ov->port, dir, "clone-b", O_RDWR | O_CREAT | O_EXCL, 0600);
    gboolean can =
        a >= 0 && b >= 0 && ov->port->pwrite(ov->port, a, "x", 1, 0) == 1 && ov->port->clone(ov->port, a, b) == 0;
    /* Closed first: an NFS client gives what is open another name before it removes it. */
    if (a >= 0)
        ov->port->close(ov->port, a);
    if (b >= 0)
        ov->port->close(ov->port, b);
    ov->port->unlinkat(ov->port, dir, "clone-a", 0);
    ov->port->unlinkat(ov->port, dir, "clone-b", 0);
    return can;
}

/* Without the identity of the top nothing is right: locks there would have records that no other host looks for. */
static int make_root(SwOverlay *ov)
{
    SwFound found;
    sw_mutex_lock(&ov->lock);
    ov->root = sw_node_new_locked(ov, S_IFDIR);
    sw_mutex_unlock(&ov->lock);
    int fd = ov->port->openat(ov->port, ov->source_fd, ".", O_PATH | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    ov->root->dir = sw_file_new(ov->port, fd);
    int r = ov->port->lookat(ov->port, fd, "", &found);
    if (r < 0)
        return r;
    sw_mutex_lock(&ov->lock);
    sw_node_list_locked(ov, ov->root, &found);
    sw_mutex_unlock(&ov->lock);
    return 0;
}

static SwOverlay *blank(SwPort *port, SwControl *control, const SwConfig *config, int source_fd, SwNoteFunc note,
                        gpointer note_data)
{
    SwOverlay *ov = g_new0(SwOverlay, 1);
    *ov = (SwOverlay){.port = port, .control = control, .config = config, .source_fd = source_fd};
    ov->note = note;
    ov->note_data = note_data;
    ov->max_write = 128 * 1024;
    ov->began_us = port->now_us(port);
    sw_mutex_init(&ov->lock);
    sw_mutex_init(&ov->backing_lock);
    ov->backing_barred = ov->uring_barred = "the kernel has not been asked";
    g_queue_init(&ov->dirs);
    g_queue_init(&ov->looks);
    g_queue_init(&ov->open_dirs);
    sw_mutex_init(&ov->inherited_lock);
    ov->inherited = g_hash_table_new(g_int64_hash, g_int64_equal);
    ov->nodes = g_hash_table_new(identity_hash, identity_equal);
    ov->strays = g_hash_table_new(NULL, NULL);
    ov->pending = g_hash_table_new(pending_hash, pending_equal);
    ov->leases = sw_content_leases_new(port, control, source_fd);
    ov->locks = sw_locks_new(ov);
    ov->file_locks = sw_file_locks_new(ov);
    return ov;
}

SwOverlay *sw_overlay_resume(SwPort *port, SwControl *control, const SwConfig *config, int source_fd, SwNoteFunc note,
                             gpointer note_data, SwBundle *bundle)
{
    SwOverlay *ov = blank(port, control, config, source_fd, note, note_data);
    sw_overlay_carry(ov, bundle);
    if (ov->generation == GENERATIONS_MAX)
        sw_bundle_fail(bundle, "this mount has had as many daemons as it can have");
    ov->generation++;
    return ov;
}

int sw_overlay_new(SwPort *port, SwControl *control, const SwConfig *config, int source_fd, SwNoteFunc note,
                   gpointer note_data, SwOverlay **ret_overlay)
{
    SwOverlay *ov = blank(port, control, config, source_fd, note, note_data);
    guint64 type = 0;
    int r = port->fs_type(port, source_fd, &type);
    ov->network = is_network(type);
    ov->clones = can_clone(ov);
    int rooted = make_root(ov);
    r = r < 0 ? r : rooted;
    if (r < 0)
        sw_overlay_free(ov);
    else
        *ret_overlay = ov;
    return r;
}

void sw_overlay_set_device(SwOverlay *ov, dev_t dev)
{
    __atomic_store_n(&ov->device, dev, __ATOMIC_RELAXED);
}

void sw_overlay_on_stale(SwOverlay *ov, SwStaleFunc stale, gpointer data)
{
    ov->stale = stale;
    ov->stale_data = data;
}

void sw_overlay_set_config(SwOverlay *ov, const SwConfig *config)
{
    __atomic_store_n(&ov->config, config, __ATOMIC_RELEASE);
}

void sw_overlay_set_max_write(SwOverlay *ov, gsize max_write)
{
    __atomic_store_n(&ov->max_write, max_write, __ATOMIC_RELAXED);
}

gboolean sw_overlay_tables_are_free(SwOverlay *ov)
{
    return sw_mutex_is_free(&ov->lock) && sw_mutex_is_free(&ov->file_locks->lock) && sw_locks_table_is_free(ov->locks);
}

SwNode *sw_overlay_root(SwOverlay *ov)
{
    return ov->root;
}

/* Those without a name as well. */
static void add_staged(gpointer key, gpointer value, gpointer data)
{
    const SwNode *node = key;
    (void)value;
    if (node->stage)
        g_ptr_array_add(data, sw_stage_ref(node->stage));
}

void sw_overlay_fenced(SwOverlay *ov)
{
    g_autoptr(GPtrArray) stages = g_ptr_array_new_with_free_func((GDestroyNotify)sw_stage_unref);
    sw_mutex_lock(&ov->lock);
    g_hash_table_foreach(ov->nodes, add_staged, stages);
    g_hash_table_foreach(ov->strays, add_staged, stages);
    sw_mutex_unlock(&ov->lock);
    for (guint i = 0; i < stages->len; i++) {
        SwStage *stage = stages->pdata[i];
        /* Whoever has it may wait for long, and the caller has to keep this host alive. */
        if (!sw_mutex_trylock(&stage->lock))
            continue;
        sw_ignore(sw_stage_end_if_taken(stage, FALSE));
        sw_mutex_unlock(&stage->lock);
    }
}

/* Streams are published at a write boundary: no write is under way while the stage's lock is ours (C25). */
static gint64 tick_streams(SwOverlay *ov, gint64 now)
{
    gint64 next = G_MAXINT64;
    g_autoptr(GPtrArray) stages = sw_pending_stages_below(ov, NULL);
    for (guint i = 0; i < stages->len; i++) {
        SwStage *stage = stages->pdata[i];
        if (!sw_mutex_trylock(&stage->lock))
            continue;
        if (stage->klass != SW_CLASS_STREAM) {
            sw_mutex_unlock(&stage->lock);
            continue;
        }
        gint64 due = stage->published_us + sw_config_of(ov)->append_interval_us;
        if (stage->state == SW_STAGE_OPEN && stage->trial.has_bytes && !stage->edit && due <= now) {
            int r = sw_stage_commit(stage, 0, TRUE);
            if (r < 0)
                sw_note(ov, SW_NOTE_WARNING, "%s: stream not published: %s", stage->name, g_strerror(-r));
            stage->published_us = now;
        } else if (stage->state == SW_STAGE_OPEN && !stage->edit) {
            next = MIN(next, MAX(due, now + G_USEC_PER_SEC / 10));
        }
        sw_mutex_unlock(&stage->lock);
    }
    return next;
}

gint64 sw_overlay_tick(SwOverlay *ov, SwMayWait may_wait, gpointer data)
{
    gint64 now = ov->port->now_us(ov->port);
    gint64 next = now + G_USEC_PER_SEC / 4;
    ov->port->tidy_processes(ov->port);
    sw_locks_tick(ov, now); /* first: others wait for them */
    sw_file_locks_tick(ov, now);
    next = MIN(next, sw_append_tick(ov, now));
    next = MIN(next, tick_streams(ov, now));
    next = MIN(next, sw_pins_expire(ov, now, may_wait, data));
    next = MIN(next, sw_old_look(ov, now));
    return MIN(next, sw_pending_cool(ov, now));
}

/* A descriptor outlives the mount, and whoever has one may not be done. */
static gboolean is_held(SwStage *stage)
{
    SwFlusher nobody;
    SwEvidence evidence;
    sw_evidence_gather(stage, -1, &nobody, &evidence);
    return evidence.n_holders > 0;
}

/* The mount is gone.  A stage that all its holders have closed is committed: its RELEASE may have been lost with the
 * connection.  What was still open, and what has a private name, goes to salvage. */
static void end_stage(SwOverlay *ov, SwStage *stage)
{
    sw_mutex_lock(&stage->lock);
    const SwFlusher nobody = {0};
    if (stage->state == SW_STAGE_OPEN && stage->trial.flushed && !stage->everyone && !is_held(stage))
        sw_ignore(sw_stage_execute(stage, sw_trial_last_release(&stage->trial, &nobody), TRUE));
    if (stage->state == SW_STAGE_OPEN)
        sw_stage_discard(stage, "unmounted", ENOTCONN);
    sw_mutex_unlock(&stage->lock);
}

static void add_node(gpointer key, gpointer value, gpointer data)
{
    (void)value;
    g_ptr_array_add(data, key);
}

/* The kernel's counts end with the mount, without a FORGET for each. */
static void free_nodes(SwOverlay *ov)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    sw_mutex_lock(&ov->lock);
    g_hash_table_foreach(ov->nodes, add_node, nodes);
    g_hash_table_foreach(ov->strays, add_node, nodes);
    for (guint i = 0; i < nodes->len; i++)
        sw_node_ref_locked(nodes->pdata[i]);
    for (guint i = 0; i < nodes->len; i++) {
        SwNode *node = nodes->pdata[i];
        node->n_lookup = 0;
        while (node->handles) {
            SwHandle *handle = node->handles->data;
            sw_mutex_unlock(&ov->lock);
            sw_ignore(sw_overlay_release(ov, handle, TRUE));
            sw_mutex_lock(&ov->lock);
        }
    }
    for (guint i = 0; i < nodes->len; i++)
        sw_node_unref_locked(ov, nodes->pdata[i]);
    sw_node_unref_locked(ov, ov->root);
    sw_mutex_unlock(&ov->lock);
}

void sw_overlay_free(SwOverlay *ov)
{
    if (!ov)
        return;
    ov->stale = NULL; /* the kernel has forgotten everything by now, and closed all backings */
    ov->backing_calls = (SwBackingCalls){0};
    (void)sw_append_tick(ov, G_MAXINT64 / 2);
    GPtrArray *stages = sw_pending_stages_below(ov, NULL);
    for (guint i = 0; i < stages->len; i++)
        end_stage(ov, stages->pdata[i]);
    g_ptr_array_unref(stages);
    sw_pins_clear(ov);
    (void)sw_pending_cool(ov, G_MAXINT64);
    sw_locks_free(ov->locks);
    free_nodes(ov);
    ov->port->become(ov->port, NULL);
    sw_file_locks_free(ov->file_locks);
    sw_content_leases_free(ov->leases);
    g_hash_table_unref(ov->inherited);
    sw_mutex_clear(&ov->inherited_lock);
    g_hash_table_unref(ov->pending);
    g_hash_table_unref(ov->nodes);
    g_hash_table_unref(ov->strays);
    sw_mutex_clear(&ov->backing_lock);
    sw_mutex_clear(&ov->lock);
    g_free(ov);
}

gboolean sw_overlay_on_network(const SwOverlay *ov)
{
    return ov->network;
}
