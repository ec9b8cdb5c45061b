/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names that have a stage, and who may see it (C15).
 */
#include "internal.h"

#include <string.h>

/* How long it is remembered that a name had a stage (F27). */
#define HOT_US (2 * G_USEC_PER_SEC)
/* A chain of parents longer than this is no family. */
#define ANCESTORS_MAX 64

static SwPending *find_locked(SwOverlay *ov, const SwNode *parent, const char *name)
{
    if (!g_hash_table_size(ov->pending))
        return NULL;
    SwPending key = {.parent = (SwNode *)parent, .name = (char *)name};
    return g_hash_table_lookup(ov->pending, &key);
}

static void drop_locked(SwOverlay *ov, SwPending *pending)
{
    g_hash_table_remove(ov->pending, pending);
    sw_node_unref_locked(ov, pending->parent);
    g_free(pending->name);
    g_free(pending);
}

static void turn_locked(SwOverlay *ov, SwPending *pending)
{
    pending->turn = ++ov->stage_turn;
    pending->looked = FALSE;
}

guint64 sw_pending_turn(SwOverlay *ov)
{
    SW_HOLD(&ov->lock);
    return ov->stage_turn;
}

/*
 * Not while there is a stage, nor when one came or went since `turn`: what is being answered may be of before.  And not
 * at the first look, which is all that most files get that are written under one name and renamed to another: a
 * believed name costs a walk more where it is renamed to one that has a stage (rename.c).
 */
gboolean sw_pending_believed_locked(SwOverlay *ov, const SwNode *parent, const char *name, guint64 turn)
{
    SwPending *pending = find_locked(ov, parent, name);
    if (!pending)
        return TRUE;
    if (pending->stages || pending->turn > turn)
        return FALSE;
    gboolean again = pending->looked;
    pending->looked = TRUE;
    return again;
}

gboolean sw_pending_has_stages_locked(SwOverlay *ov, const SwNode *parent, const char *name)
{
    const SwPending *pending = find_locked(ov, parent, name);
    return pending && pending->stages;
}

void sw_pending_add_locked(SwOverlay *ov, SwStage *stage)
{
    /* A rename that did not commit may have found it taken, and ended it (C21). */
    if (stage->listed || !stage->parent || stage->state != SW_STAGE_OPEN)
        return;
    SwPending *pending = find_locked(ov, stage->parent, stage->name);
    if (!pending) {
        pending = g_new0(SwPending, 1);
        pending->parent = stage->parent;
        sw_node_ref_locked(pending->parent);
        pending->name = g_strdup(stage->name);
        g_hash_table_add(ov->pending, pending);
    }
    pending->stages = g_slist_prepend(pending->stages, sw_stage_ref(stage));
    turn_locked(ov, pending);
    stage->listed = TRUE;
}

void sw_pending_remove_locked(SwOverlay *ov, SwStage *stage)
{
    SwPending *pending = stage->listed ? find_locked(ov, stage->parent, stage->name) : NULL;
    if (!pending)
        return;
    pending->stages = g_slist_remove(pending->stages, stage);
    pending->hot_until_us = ov->port->now_us(ov->port) + HOT_US;
    turn_locked(ov, pending);
    stage->listed = FALSE;
    sw_stage_unref(stage);
}

/* Names that are not hot any more go; called with every tick. */
static gint64 cool_locked(SwOverlay *ov, gint64 now)
{
    gint64 next = G_MAXINT64;
    GHashTableIter iter;
    gpointer key;
    g_autoptr(GPtrArray) cold = g_ptr_array_new();
    g_hash_table_iter_init(&iter, ov->pending);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        SwPending *pending = key;
        if (pending->stages)
            continue;
        if (pending->hot_until_us <= now)
            g_ptr_array_add(cold, pending);
        else
            next = MIN(next, pending->hot_until_us);
    }
    for (guint i = 0; i < cold->len; i++)
        drop_locked(ov, cold->pdata[i]);
    return next;
}

gint64 sw_pending_cool(SwOverlay *ov, gint64 now)
{
    sw_mutex_lock(&ov->lock);
    gint64 next = cool_locked(ov, now);
    sw_mutex_unlock(&ov->lock);
    return next;
}

void sw_pending_rename_locked(SwOverlay *ov, SwNode *old_parent, const char *old_name, SwNode *new_parent,
                              const char *new_name)
{
    SwPending *pending = find_locked(ov, old_parent, old_name);
    while (pending && pending->stages) {
        SwStage *stage = sw_stage_ref(pending->stages->data);
        sw_pending_remove_locked(ov, stage);
        sw_node_ref_locked(new_parent);
        sw_node_unref_locked(ov, stage->parent);
        stage->parent = new_parent;
        g_free(stage->name);
        stage->name = g_strdup(new_name);
        sw_node_drop_name_locked(ov, stage->node, old_parent, old_name);
        sw_node_add_name_locked(ov, stage->node, new_parent, new_name);
        sw_pending_add_locked(ov, stage);
        sw_stage_unref(stage);
    }
}

GPtrArray *sw_pending_stages(SwOverlay *ov, SwNode *parent, const char *name)
{
    GPtrArray *stages = g_ptr_array_new_with_free_func((GDestroyNotify)sw_stage_unref);
    SW_HOLD(&ov->lock);
    SwPending *pending = find_locked(ov, parent, name);
    for (GSList *at = pending ? pending->stages : NULL; at; at = at->next)
        g_ptr_array_add(stages, sw_stage_ref(at->data));
    return stages;
}

/* Borrowed, under the lock; `dir` NULL: below any. */
static GSList *collect_locked(SwOverlay *ov, const SwNode *dir)
{
    GSList *stages = NULL;
    GHashTableIter iter;
    gpointer key;
    g_hash_table_iter_init(&iter, ov->pending);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        const SwPending *pending = key;
        for (GSList *at = !dir || pending->parent == dir ? pending->stages : NULL; at; at = at->next)
            stages = g_slist_prepend(stages, at->data);
    }
    return g_slist_reverse(stages);
}

GPtrArray *sw_pending_stages_below(SwOverlay *ov, const SwNode *dir)
{
    GPtrArray *stages = g_ptr_array_new_with_free_func((GDestroyNotify)sw_stage_unref);
    SW_HOLD(&ov->lock);
    g_autoptr(GSList) found = collect_locked(ov, dir);
    for (GSList *at = found; at; at = at->next)
        g_ptr_array_add(stages, sw_stage_ref(at->data));
    return stages;
}

gboolean sw_pending_below_locked(SwOverlay *ov, const SwNode *dir, gboolean held)
{
    g_autoptr(GSList) found = collect_locked(ov, dir);
    for (GSList *at = found; at; at = at->next) {
        const SwStage *stage = at->data;
        /* One that only a pin keeps may be that of a thread which was killed between its two walks. */
        if (!held || stage->n_writers || stage->everyone)
            return TRUE;
    }
    return FALSE;
}

pid_t sw_process_of(SwOverlay *ov, pid_t tid)
{
    pid_t tgid;
    return tid && ov->port->thread_group(ov->port, tid, &tgid) == 0 ? tgid : tid;
}

static gboolean opened_by(SwOverlay *ov, SwStage *stage, pid_t pid)
{
    gboolean has = FALSE;
    sw_mutex_lock(&ov->lock);
    for (guint i = 0; i < stage->family->len && !has; i++)
        has = g_array_index(stage->family, pid_t, i) == pid;
    sw_mutex_unlock(&ov->lock);
    return has;
}

gboolean sw_family_has(SwOverlay *ov, SwStage *stage, pid_t tid)
{
    pid_t pid = tid;
    if (opened_by(ov, stage, pid))
        return TRUE;
    for (guint i = 0; i < ANCESTORS_MAX && pid > 0; i++) {
        SwProcess process;
        if (ov->port->process(ov->port, pid, &process) < 0)
            return FALSE;
        if (opened_by(ov, stage, process.tgid))
            return TRUE;
        pid = process.ppid;
        if (pid <= 1)
            return pid == 1 && opened_by(ov, stage, 1);
    }
    return FALSE;
}

SwStage *sw_pending_visible(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, gboolean *ret_hot)
{
    SwStage *visible = NULL;
    sw_mutex_lock(&ov->lock);
    SwPending *pending = find_locked(ov, parent, name);
    *ret_hot = pending != NULL;
    GSList *stages = pending ? g_slist_copy(pending->stages) : NULL;
    for (GSList *at = stages; at; at = at->next) {
        SwStage *stage = sw_stage_ref(at->data);
        if (stage->everyone && !visible)
            visible = sw_stage_ref(stage);
    }
    sw_mutex_unlock(&ov->lock);
    for (GSList *at = stages; at; at = at->next) {
        SwStage *stage = at->data;
        if (!visible && sw_family_has(ov, stage, caller->tid))
            visible = sw_stage_ref(stage);
        sw_stage_unref(stage);
    }
    g_slist_free(stages);
    return visible;
}

void sw_settle_name(SwOverlay *ov, SwNode *parent, const char *name)
{
    sw_mutex_lock(&ov->lock);
    SwPending *pending = find_locked(ov, parent, name);
    GSList *quiet = NULL;
    for (GSList *at = pending ? pending->stages : NULL; at; at = at->next) {
        SwStage *stage = at->data;
        if (stage->quiet)
            quiet = g_slist_prepend(quiet, sw_stage_ref(stage));
    }
    sw_mutex_unlock(&ov->lock);
    for (GSList *at = quiet; at; at = at->next) {
        SwStage *stage = at->data;
        if (sw_mutex_trylock(&stage->lock)) {
            SwEvidence evidence;
            SwFlusher nobody;
            if (stage->state == SW_STAGE_OPEN) {
                sw_evidence_gather(stage, -1, &nobody, &evidence);
                sw_ignore(sw_stage_execute(stage, sw_trial_ask(&stage->trial, &evidence), FALSE));
            }
            sw_mutex_unlock(&stage->lock);
        }
        sw_stage_unref(stage);
    }
    g_slist_free(quiet);
}

GPtrArray *sw_pending_names(SwOverlay *ov, const SwCaller *caller, SwNode *dir)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) stages = sw_pending_stages_below(ov, dir);
    for (guint i = 0; i < stages->len; i++) {
        SwStage *stage = stages->pdata[i];
        gboolean family = sw_family_has(ov, stage, caller->tid);
        sw_mutex_lock(&ov->lock);
        if ((family || stage->everyone) && !stage->has_base && stage->name)
            g_ptr_array_add(names, g_strdup(stage->name));
        sw_mutex_unlock(&ov->lock);
    }
    return names;
}

/* ---- committed stages whose handles are still open */

void sw_lingering_add_locked(SwOverlay *ov, SwStage *stage)
{
    if (stage->n_writers && stage->parent && !g_slist_find(ov->lingering, stage))
        ov->lingering = g_slist_prepend(ov->lingering, sw_stage_ref(stage));
    stage->node->lingering = stage->n_writers > 0;
}

void sw_lingering_remove_locked(SwOverlay *ov, SwStage *stage)
{
    stage->node->lingering = FALSE;
    if (!g_slist_find(ov->lingering, stage))
        return;
    ov->lingering = g_slist_remove(ov->lingering, stage);
    sw_stage_unref(stage);
}

/* The stages at that name, counted. */
static GSList *lingering_at_locked(SwOverlay *ov, SwNode *parent, const char *name)
{
    GSList *found = NULL;
    for (GSList *at = ov->lingering; at; at = at->next) {
        SwStage *stage = at->data;
        if (stage->parent == parent && strcmp(stage->name, name) == 0)
            found = g_slist_prepend(found, sw_stage_ref(stage));
    }
    return found;
}

gboolean sw_lingering_any_locked(SwOverlay *ov, const SwNode *parent, const char *name)
{
    for (GSList *at = ov->lingering; at; at = at->next) {
        const SwStage *stage = at->data;
        if (stage->parent == parent && strcmp(stage->name, name) == 0)
            return TRUE;
    }
    return FALSE;
}

static void set_name_locked(SwOverlay *ov, SwStage *stage, SwNode *parent, const char *name)
{
    if (parent)
        sw_node_ref_locked(parent);
    sw_node_unref_locked(ov, stage->parent);
    stage->parent = parent;
    g_free(stage->name);
    stage->name = g_strdup(name);
}

void sw_lingering_rename(SwOverlay *ov, SwNode *old_parent, const char *old_name, SwNode *new_parent,
                         const char *new_name)
{
    sw_mutex_lock(&ov->lock);
    GSList *stages = lingering_at_locked(ov, old_parent, old_name);
    for (GSList *at = stages; at; at = at->next)
        set_name_locked(ov, at->data, new_parent, new_name);
    sw_mutex_unlock(&ov->lock);
    g_slist_free_full(stages, (GDestroyNotify)sw_stage_unref);
}

void sw_lingering_unlink(SwOverlay *ov, SwNode *parent, const char *name)
{
    sw_mutex_lock(&ov->lock);
    GSList *stages = lingering_at_locked(ov, parent, name);
    for (GSList *at = stages; at; at = at->next) {
        sw_lingering_remove_locked(ov, at->data);
        set_name_locked(ov, at->data, NULL, NULL);
    }
    sw_mutex_unlock(&ov->lock);
    g_slist_free_full(stages, (GDestroyNotify)sw_stage_unref);
}

/* ---- names that are being removed */

void sw_stage_lose_name(SwStage *stage)
{
    SwOverlay *ov = stage->overlay;
    sw_mutex_lock(&ov->lock);
    sw_pending_remove_locked(ov, stage);
    if (stage->parent)
        sw_node_drop_name_locked(ov, stage->node, stage->parent, stage->name);
    SwNode *parent = g_steal_pointer(&stage->parent);
    g_clear_pointer(&stage->name, g_free);
    sw_mutex_unlock(&ov->lock);
    sw_node_unref(ov, parent);
}

void sw_removal_begin(SwOverlay *ov, SwRemoval *removal)
{
    SW_HOLD(&ov->lock);
    ov->removals = g_slist_prepend(ov->removals, removal);
}

void sw_removal_end(SwOverlay *ov, SwRemoval *removal)
{
    SW_HOLD(&ov->lock);
    ov->removals = g_slist_remove(ov->removals, removal);
}

gboolean sw_removal_of(SwOverlay *ov, const SwStage *stage)
{
    SW_HOLD(&ov->lock);
    for (GSList *at = ov->removals; at; at = at->next) {
        const SwRemoval *removal = at->data;
        if (removal->parent == stage->parent && strcmp(removal->name, stage->name) == 0)
            return TRUE;
    }
    return FALSE;
}
