/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a thread is to be told on its second walk (FACTS F1, F26).
 *
 * The kernel asks only once more after an ESTALE, by one or two LOOKUPs and an OPEN, and both LOOKUPs must answer the
 * same node however fast others replace the name: so the version is opened when ESTALE is answered, and kept here.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* LOOKUPs answered from a pin: one or two, and two more whenever another thread of this host gets its own answer for
 * the name into the kernel's cache meanwhile.  Any further one is taken for a call of its own. */
#define WALKS_MAX 64
/* A thread that never comes back (a signal) leaves its pin behind for so long, in time in which we were there to answer
 * it: it cannot walk while this process is frozen, its ticker waits for the server, or it waits behind hundreds of
 * others. */
#define PIN_LIFE_US (20 * G_USEC_PER_SEC)
#define STEP_MOST_US G_USEC_PER_SEC
/* A walk with O_CREAT that finds nothing looks a second time, at once.  What comes later is a call of its own. */
#define MISS_US (G_USEC_PER_SEC / 10)

/* Takes the pin off the list.  What it kept is freed by pin_end, without the lock. */
static SwPin *detach_locked(SwOverlay *ov, SwPin *pin)
{
    ov->pins = g_slist_remove(ov->pins, pin);
    return pin;
}

/* A stage that nobody came to open ends with its pin, without having changed anything. */
static void pin_end(SwOverlay *ov, SwPin *pin)
{
    if (pin->stage)
        sw_stage_give_up(pin->stage);
    if (pin->handle)
        sw_ignore(sw_overlay_release(ov, pin->handle, TRUE)); /* nobody is there to hear of an error */
    sw_stage_unref(pin->stage);
    sw_node_unref(ov, pin->from);
    sw_node_unref(ov, pin->node);
    sw_node_unref(ov, pin->parent);
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

static void ref_locked(SwNode *node)
{
    if (node)
        sw_node_ref_locked(node);
}

void sw_pin_add(SwOverlay *ov, const SwCaller *caller, const SwPin *wanted)
{
    SwPin *pin = g_memdup2(wanted, sizeof *wanted);
    pin->tid = caller->tid;
    pin->uid = caller->cred.uid;
    pin->name = g_strdup(wanted->name);
    pin->stage = wanted->stage ? sw_stage_ref(wanted->stage) : NULL;
    pin->since_us = ov->port->now_us(ov->port);
    sw_mutex_lock(&ov->lock);
    SwPin *old = find_locked(ov, caller);
    if (old)
        detach_locked(ov, old);
    ref_locked(pin->from);
    ref_locked(pin->node);
    ref_locked(pin->parent);
    ov->pins = g_slist_prepend(ov->pins, pin);
    sw_mutex_unlock(&ov->lock);
    if (old)
        pin_end(ov, old);
}

static gboolean is_at(const SwPin *pin, const SwNode *parent, const char *name)
{
    return pin->parent == parent && strcmp(pin->name, name) == 0;
}

SwNode *sw_pin_walk(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwFile **ret_file)
{
    SwNode *node = NULL;
    sw_mutex_lock(&ov->lock);
    SwPin *pin = ov->pins ? find_locked(ov, caller) : NULL;
    if (pin && !pin->intent && pin->walks < WALKS_MAX && is_at(pin, parent, name)) {
        pin->walks++;
        pin->age_us = 0;
        node = pin->node;
        sw_node_ref_locked(node);
        if (pin->stage)
            *ret_file = sw_file_ref(pin->stage->file);
        else if (pin->handle && pin->handle->file)
            *ret_file = sw_file_ref(pin->handle->file);
    }
    sw_mutex_unlock(&ov->lock);
    return node;
}

gboolean sw_pin_intends(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwNode **ret_from,
                        int *ret_flags)
{
    SwPin *over = NULL;
    sw_mutex_lock(&ov->lock);
    SwPin *pin = ov->pins ? find_locked(ov, caller) : NULL;
    gboolean intends = pin && pin->intent;
    if (intends && pin->name && (!is_at(pin, parent, name) || pin->since_us <= ov->port->now_us(ov->port) - MISS_US)) {
        over = detach_locked(ov, pin);
        intends = FALSE;
    }
    if (intends) {
        pin->walks++;
        *ret_flags = pin->flags;
        *ret_from = pin->from;
        sw_node_ref_locked(pin->from);
    }
    sw_mutex_unlock(&ov->lock);
    if (over)
        pin_end(ov, over);
    return intends;
}

void sw_pin_missed(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name)
{
    sw_mutex_lock(&ov->lock);
    SwPin *pin = find_locked(ov, caller);
    if (pin && pin->intent && !pin->name) {
        pin->parent = parent;
        sw_node_ref_locked(parent);
        pin->name = g_strdup(name);
        pin->since_us = ov->port->now_us(ov->port);
    }
    sw_mutex_unlock(&ov->lock);
}

/* Hands over what the pin keeps, and ends it. */
static void yield_pin(SwOverlay *ov, SwPin *pin, SwPin *ret_pin)
{
    *ret_pin = (SwPin){.error = pin->error};
    ret_pin->handle = g_steal_pointer(&pin->handle);
    ret_pin->stage = g_steal_pointer(&pin->stage);
    pin_end(ov, pin);
}

static gboolean leads_to(const SwPin *pin, const SwNode *node)
{
    return pin->node == node && !pin->intent;
}

static gboolean came_from(const SwPin *pin, const SwNode *node)
{
    return pin->from == node && !pin->walks;
}

static gboolean same_open(int a, int b)
{
    const int what = O_ACCMODE | O_TRUNC | O_APPEND;
    return a == SW_PIN_ANY || b == SW_PIN_ANY || (a & what) == (b & what);
}

static gboolean take_if(SwOverlay *ov, const SwCaller *caller, gboolean (*fits)(const SwPin *, const SwNode *),
                        SwNode *node, int flags, SwPin *ret_pin)
{
    sw_mutex_lock(&ov->lock);
    SwPin *pin = ov->pins ? find_locked(ov, caller) : NULL;
    gboolean found = pin && fits(pin, node);
    gboolean same = found && same_open(pin->flags, flags);
    if (found)
        detach_locked(ov, pin);
    sw_mutex_unlock(&ov->lock);
    if (same)
        yield_pin(ov, pin, ret_pin);
    else if (found)
        pin_end(ov, pin);
    return same;
}

gboolean sw_pin_take(SwOverlay *ov, const SwCaller *caller, SwNode *node, int flags, SwPin *ret_pin)
{
    return take_if(ov, caller, leads_to, node, flags, ret_pin);
}

gboolean sw_pin_take_repeat(SwOverlay *ov, const SwCaller *caller, SwNode *from, int flags, SwPin *ret_pin)
{
    return take_if(ov, caller, came_from, from, flags, ret_pin);
}

gboolean sw_pin_take_walked(SwOverlay *ov, const SwCaller *caller)
{
    sw_mutex_lock(&ov->lock);
    SwPin *pin = ov->pins ? find_locked(ov, caller) : NULL;
    gboolean walked = pin && pin->walks && !pin->intent;
    if (walked)
        detach_locked(ov, pin);
    sw_mutex_unlock(&ov->lock);
    if (walked)
        pin_end(ov, pin);
    return walked;
}

static void end_all(SwOverlay *ov, GSList *detached)
{
    for (GSList *at = detached; at; at = at->next)
        pin_end(ov, at->data);
    g_slist_free(detached);
}

/* Hundreds that open names of one directory wait for it in the kernel, one behind the other. */
static gboolean is_on_its_way(SwOverlay *ov, pid_t tid)
{
    SwProcess process;
    return tid && ov->port->process(ov->port, tid, &process) == 0 && process.working;
}

/* The threads that have pins and do not seem to come back: neither their requests nor they are on the way. */
static GArray *find_absent(SwOverlay *ov, SwMayWait may_wait, gpointer data)
{
    GArray *tids = g_array_new(FALSE, FALSE, sizeof(pid_t));
    sw_mutex_lock(&ov->lock);
    for (GSList *at = ov->pins; at; at = at->next) {
        const SwPin *pin = at->data;
        if (!may_wait || !may_wait(data, pin->tid))
            g_array_append_val(tids, pin->tid);
    }
    sw_mutex_unlock(&ov->lock);
    for (guint i = tids->len; i-- > 0;) {
        if (is_on_its_way(ov, g_array_index(tids, pid_t, i)))
            g_array_remove_index_fast(tids, i);
    }
    return tids;
}

static gboolean has(const GArray *tids, pid_t tid)
{
    guint i = 0;
    while (i < tids->len && g_array_index(tids, pid_t, i) != tid)
        i++;
    return i < tids->len;
}

gint64 sw_pins_expire(SwOverlay *ov, gint64 now, SwMayWait may_wait, gpointer data)
{
    g_autoptr(GArray) absent = find_absent(ov, may_wait, data);
    GSList *ended = NULL;
    sw_mutex_lock(&ov->lock);
    gint64 step = MIN(now - ov->pins_at_us, STEP_MOST_US);
    ov->pins_at_us = now;
    for (GSList *at = ov->pins, *after; at; at = after) {
        SwPin *pin = at->data;
        after = at->next;
        if (has(absent, pin->tid))
            pin->age_us += step;
        if (pin->age_us >= PIN_LIFE_US)
            ended = g_slist_prepend(ended, detach_locked(ov, pin));
    }
    gint64 next = ov->pins ? now + STEP_MOST_US : G_MAXINT64;
    sw_mutex_unlock(&ov->lock);
    end_all(ov, ended);
    return next;
}

void sw_pins_clear(SwOverlay *ov)
{
    sw_mutex_lock(&ov->lock);
    GSList *all = g_steal_pointer(&ov->pins);
    sw_mutex_unlock(&ov->lock);
    end_all(ov, all);
}
