/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a thread is to be told on its second walk (FACTS F1, F26).
 *
 * The kernel asks only once more after an ESTALE, by one or two LOOKUPs and an OPEN, and both LOOKUPs must answer the
 * same node however fast others replace the name: so the version is opened when ESTALE is answered, and kept here.
 */
#include "internal.h"

#include <errno.h>
#include <string.h>

/* A thread that never comes back (a signal) leaves its pin behind for so long. */
#define PIN_LIFE_US (5 * G_USEC_PER_SEC)

static void pin_free_locked(SwOverlay *ov, SwPin *pin)
{
    ov->pins = g_slist_remove(ov->pins, pin);
    sw_node_unref_locked(ov, pin->from);
    sw_node_unref_locked(ov, pin->node);
    sw_node_unref_locked(ov, pin->parent);
    sw_file_unref(pin->file);
    g_free(pin->name);
    g_free(pin);
}

static SwPin *find_locked(SwOverlay *ov, const SwCaller *caller)
{
    for (GSList *at = ov->pins; at; at = at->next) {
        SwPin *pin = at->data;
        if (pin->tid == caller->tid && (caller->tid || pin->uid == caller->cred.uid))
            return pin;
    }
    return NULL;
}

void sw_pin_add(SwOverlay *ov, const SwCaller *caller, SwNode *from, SwNode *node, SwNode *parent, const char *name,
                SwFile *file, const SwIdentity *id)
{
    SwPin *pin = g_new0(SwPin, 1);
    *pin = (SwPin){.tid = caller->tid, .uid = caller->cred.uid, .from = from, .node = node, .parent = parent};
    pin->name = g_strdup(name);
    pin->file = file ? sw_file_ref(file) : NULL;
    pin->since_us = ov->port->now_us(ov->port);
    if (id)
        pin->id = *id;
    sw_mutex_lock(&ov->lock);
    SwPin *old = find_locked(ov, caller);
    if (old)
        pin_free_locked(ov, old);
    sw_node_ref_locked(from);
    sw_node_ref_locked(node);
    sw_node_ref_locked(parent);
    ov->pins = g_slist_prepend(ov->pins, pin);
    sw_mutex_unlock(&ov->lock);
}

SwNode *sw_pin_walk(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwFile **ret_file)
{
    SwNode *node = NULL;
    sw_mutex_lock(&ov->lock);
    SwPin *pin = ov->pins ? find_locked(ov, caller) : NULL;
    if (pin && pin->parent == parent && strcmp(pin->name, name) == 0) {
        pin->walked = TRUE;
        node = pin->node;
        sw_node_ref_locked(node);
        *ret_file = pin->file ? sw_file_ref(pin->file) : NULL;
    }
    sw_mutex_unlock(&ov->lock);
    return node;
}

gboolean sw_pin_take(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwFile **ret_file, SwIdentity *ret_id)
{
    gboolean found = FALSE;
    sw_mutex_lock(&ov->lock);
    SwPin *pin = ov->pins ? find_locked(ov, caller) : NULL;
    if (pin && pin->node == node) {
        *ret_file = g_steal_pointer(&pin->file);
        *ret_id = pin->id;
        pin_free_locked(ov, pin);
        found = TRUE;
    }
    sw_mutex_unlock(&ov->lock);
    return found;
}

gboolean sw_pin_is_repeat(SwOverlay *ov, const SwCaller *caller, SwNode *from)
{
    sw_mutex_lock(&ov->lock);
    SwPin *pin = ov->pins ? find_locked(ov, caller) : NULL;
    gboolean repeat = pin && pin->from == from && !pin->walked;
    sw_mutex_unlock(&ov->lock);
    return repeat;
}

/* A stage that nobody came to open ends with its pin, without having changed anything. */
static SwStage *abandoned_locked(SwPin *pin)
{
    SwStage *stage = pin->node->stage;
    return stage && !stage->n_writers && stage->state == SW_STAGE_OPEN && !stage->everyone ? sw_stage_ref(stage) : NULL;
}

gint64 sw_pins_expire(SwOverlay *ov, gint64 now)
{
    gint64 next = G_MAXINT64;
    GSList *ended = NULL;
    sw_mutex_lock(&ov->lock);
    for (GSList *at = ov->pins, *after; at; at = after) {
        SwPin *pin = at->data;
        after = at->next;
        if (pin->since_us + PIN_LIFE_US > now) {
            next = MIN(next, pin->since_us + PIN_LIFE_US);
            continue;
        }
        SwStage *stage = abandoned_locked(pin);
        if (stage)
            ended = g_slist_prepend(ended, stage);
        pin_free_locked(ov, pin);
    }
    sw_mutex_unlock(&ov->lock);
    for (GSList *at = ended; at; at = at->next) {
        SwStage *stage = at->data;
        sw_mutex_lock(&stage->lock);
        if (stage->state == SW_STAGE_OPEN && !stage->n_writers)
            sw_stage_discard(stage, NULL, ESTALE);
        sw_mutex_unlock(&stage->lock);
        sw_stage_unref(stage);
    }
    g_slist_free(ended);
    return next;
}
