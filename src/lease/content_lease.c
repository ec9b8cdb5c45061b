/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The lease on one file's content.
 *
 *   queue     among the threads of this mount, in order; the head competes on disk      [P10]
 *   compete   symlink leases/<key> exclusively; where one stands, look, wait, try again  [P11]
 *   hold      the link names us; a new intent is a new link renamed over it              [P12]
 *   release   rename leases/<key> to released/, then let the next one of the queue go    [P13]
 *
 * Breaking [P14]: a link whose host is gone, that says nothing we understand, or that we ourselves left behind, is
 * dropped under leases/<key>.break, made exclusively; one whose host is a dead mount of this machine is dropped by
 * burying that one, under the lock on its record.  So nobody else can touch the link between the look at it and its
 * removal.
 */

#include "content_lease.h"

#include "control_internal.h"

#include <errno.h>
#include <string.h>

#define PAUSE_FIRST_US 200
#define PAUSE_MOST_US (20 * G_TIME_SPAN_MILLISECOND)
#define CHECK_FIRST_US (5 * G_TIME_SPAN_MILLISECOND)
#define CHECK_EVERY_US (100 * G_TIME_SPAN_MILLISECOND)
#define QUEUE_SLICE_US (50 * G_TIME_SPAN_MILLISECOND)
#define RUN_US (20 * G_TIME_SPAN_MILLISECOND) /* of one mount holding a key on and on */
#define YIELD_US (2 * G_TIME_SPAN_MILLISECOND)
#define RIVAL_US G_TIME_SPAN_SECOND
#define RELEASED_NAMES 64

/* Those of this mount who hold or want one key; in the table while there is anybody. */
typedef struct {
    guint64 key;
    GQueue leases; /* of SwContentLease; the head holds it, or is competing for it */
    gint64 run_us; /* since when this mount has held it without a pause; 0: it does not */
} Slot;

struct SwContentLeases {
    /* immutable after init */
    SwPort *port;
    SwControl *control;

    /* atomic */
    gint sequence;

    /* protected by lock */
    SwMutex lock;
    GHashTable *slots; /* key -> Slot */
    gint64 rival_us;   /* when another mount was last seen to hold any key */
};

struct SwContentLease {
    SwContentLeases *leases;
    guint64 key;
    Slot *slot;
    pthread_cond_t turn; /* signalled when it comes to the head; with leases->lock */
    char name[17];
    char *text;
    char *doubtful; /* what the link may say instead, since the reply to an intent was lost; or NULL */
    SwEpoch *epoch; /* that it is held in */
};

/* One wait for the link, while it lasts. */
typedef struct {
    gint64 deadline_us;
    gboolean (*cancelled)(gpointer);
    gpointer cancelled_data;
    gint64 pause_us;
    gint64 check_us; /* when to look next whether the holder lives */
    char *seen;      /* what the link said when last looked at */
    gboolean broken; /* somebody's hold had to be broken */
    gboolean unsure; /* the link may be ours, and nobody could tell */
} Wait;

SwContentLeases *sw_content_leases_new(SwPort *port, SwControl *control, int source_fd)
{
    SwContentLeases *leases = g_new0(SwContentLeases, 1);

    (void)source_fd; /* the control has its own */
    leases->port = port;
    leases->control = control;
    leases->slots = g_hash_table_new(g_int64_hash, g_int64_equal);
    sw_mutex_init(&leases->lock);
    return leases;
}

void sw_content_leases_free(SwContentLeases *leases)
{
    if (!leases)
        return;
    g_hash_table_unref(leases->slots);
    sw_mutex_clear(&leases->lock);
    g_free(leases);
}

/* ---- the queue of this mount [P10] */

static Slot *slot_get_locked(SwContentLeases *leases, guint64 key)
{
    Slot *slot = g_hash_table_lookup(leases->slots, &key);

    if (!slot) {
        slot = g_new0(Slot, 1);
        slot->key = key;
        g_queue_init(&slot->leases);
        g_hash_table_insert(leases->slots, &slot->key, slot);
    }
    return slot;
}

static void queue_leave_locked(SwContentLease *lease)
{
    Slot *slot = lease->slot;
    SwContentLease *head;

    g_queue_remove(&slot->leases, lease);
    head = g_queue_peek_head(&slot->leases);
    if (head) {
        pthread_cond_signal(&head->turn);
        return;
    }
    g_hash_table_remove(lease->leases->slots, &slot->key);
    g_free(slot);
}

static int wait_over(SwPort *port, const Wait *wait)
{
    if (wait->cancelled && wait->cancelled(wait->cancelled_data))
        return -EINTR;
    return port->now_us(port) >= wait->deadline_us ? -ETIMEDOUT : 0;
}

/* Returns at the head of the queue, or having left it. */
static int queue_join(SwContentLease *lease, const Wait *wait)
{
    SwContentLeases *leases = lease->leases;
    int r = 0;

    sw_mutex_lock(&leases->lock);
    lease->slot = slot_get_locked(leases, lease->key);
    g_queue_push_tail(&lease->slot->leases, lease);
    while (r == 0 && g_queue_peek_head(&lease->slot->leases) != lease) {
        r = wait_over(leases->port, wait);
        if (r == 0)
            sw_cond_wait_us(&lease->turn, &leases->lock, QUEUE_SLICE_US);
    }
    if (r < 0)
        queue_leave_locked(lease);
    sw_mutex_unlock(&leases->lock);
    return r;
}

static void queue_leave(SwContentLease *lease)
{
    sw_mutex_lock(&lease->leases->lock);
    queue_leave_locked(lease);
    sw_mutex_unlock(&lease->leases->lock);
}

/* Where other mounts have been seen, a queue that has gone on for long makes room: they poll, and never queue. */
static void yield_to_rivals(SwContentLease *lease)
{
    SwContentLeases *leases = lease->leases;
    gint64 now_us = leases->port->now_us(leases->port);
    gboolean yield;

    sw_mutex_lock(&leases->lock);
    yield = lease->slot->run_us > 0 && now_us - lease->slot->run_us > RUN_US && leases->rival_us > 0 &&
            now_us - leases->rival_us < RIVAL_US;
    if (yield || lease->slot->run_us == 0)
        lease->slot->run_us = now_us;
    sw_mutex_unlock(&leases->lock);
    if (yield)
        leases->port->sleep_us(leases->port, YIELD_US);
}

static void saw_rival(SwContentLease *lease)
{
    SwContentLeases *leases = lease->leases;
    gint64 now_us = leases->port->now_us(leases->port);

    sw_mutex_lock(&leases->lock);
    leases->rival_us = now_us;
    lease->slot->run_us = 0;
    sw_mutex_unlock(&leases->lock);
}

/* ---- breaking [P14] */

static gboolean link_says(SwPort *port, int dirfd, const char *name, const char *expected)
{
    g_autofree char *text = NULL;

    return sw_read_link(port, dirfd, name, &text) == 0 && strcmp(text, expected) == 0;
}

/* A text that names us and no other hold of ours. */
static char *make_text(SwContentLeases *leases, const SwEpoch *epoch, const SwLeaseText *intent)
{
    SwLeaseText text = intent ? *intent : (SwLeaseText){0};

    strcpy(text.host_id, sw_epoch_host_id(epoch));
    text.sequence = (guint32)g_atomic_int_add(&leases->sequence, 1);
    return sw_lease_text_format(&text);
}

/* May the hold that `text` tells of be ended?  1: yes; 0: no, or it has been ended just now. */
static int is_abandoned(SwControl *control, const char *text, gboolean *ret_buried)
{
    SwLeaseText holder;
    int r;

    if (sw_lease_text_parse(text, &holder) < 0)
        return 1;
    if (strcmp(holder.host_id, sw_control_host_id(control)) == 0)
        return 1; /* we are the head of the queue: a release of ours that did not work */
    r = sw_control_host_exists(control, holder.host_id);
    if (r <= 0)
        return r < 0 ? r : 1;
    *ret_buried = sw_bury_if_dead(control, holder.host_id) == 0;
    if (!*ret_buried)
        sw_control_want(control, holder.host_id);
    return 0;
}

/* ---- competing on disk [P11] */

static int check_holder(SwContentLease *lease, Wait *wait)
{
    SwControl *control = lease->leases->control;
    g_autofree char *text = NULL;
    gboolean buried = FALSE;
    int r = sw_read_fresh(control, SW_IN_LEASES, lease->name, &text);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = is_abandoned(control, text, &buried);
    if (r == 1) {
        r = sw_break_lease(control, lease->epoch, lease->name, text);
        buried = r == 0;
    }
    if (buried) {
        wait->broken = TRUE;
        wait->pause_us = PAUSE_FIRST_US;
    }
    return r == -EAGAIN || r == -ENOENT ? 0 : r;
}

static int cannot_tell(Wait *wait, int error)
{
    wait->unsure = TRUE;
    return error;
}

/* The link stands.  1: it is ours, its reply had been lost; 0: try again. */
static int meet_holder(SwContentLease *lease, Wait *wait)
{
    SwControl *control = lease->leases->control;
    SwPort *port = control->port;
    g_autofree char *text = NULL;
    gint64 now_us = port->now_us(port);
    int r = sw_read_link(port, control->leases, lease->name, &text);

    if (r == 0 && strcmp(text, lease->text) == 0)
        return 1;
    saw_rival(lease);
    if (r == -EINVAL || r == -EMSGSIZE)
        text = g_strdup("");
    else if (r < 0)
        return r == -ENOENT ? 0 : cannot_tell(wait, r);
    /* A holder that changes lives. */
    if (g_strcmp0(text, wait->seen) != 0) {
        g_free(wait->seen);
        wait->seen = g_steal_pointer(&text);
        wait->check_us = now_us + CHECK_FIRST_US;
    }
    if (now_us < wait->check_us)
        return 0;
    wait->check_us = now_us + CHECK_EVERY_US;
    return check_holder(lease, wait);
}

static int pause_between(SwPort *port, Wait *wait)
{
    int r = wait_over(port, wait);

    if (r < 0)
        return r;
    port->sleep_us(port, CLAMP(wait->deadline_us - port->now_us(port), 1, wait->pause_us));
    wait->pause_us = MIN(2 * wait->pause_us, PAUSE_MOST_US);
    return 0;
}

static int compete(SwContentLease *lease, Wait *wait)
{
    SwControl *control = lease->leases->control;
    SwPort *port = control->port;
    int r = port->become(port, NULL);

    while (r == 0) {
        if (lease->epoch != sw_epoch_now(control) || sw_epoch_is_fenced(control, lease->epoch, FALSE))
            return -ESTALE;
        r = port->symlinkat(port, lease->text, control->leases, lease->name);
        /* Made, and the reply was lost. */
        if (r < 0 && r != -EEXIST && link_says(port, control->leases, lease->name, lease->text))
            return 0;
        if (r != -EEXIST)
            return sw_is_unsure(r) ? cannot_tell(wait, r) : r;
        r = meet_holder(lease, wait);
        if (r == 1)
            return 0;
        if (r == 0)
            r = pause_between(port, wait);
    }
    return r;
}

/* ---- the interface */

static void lease_free(SwContentLease *lease)
{
    pthread_cond_destroy(&lease->turn);
    g_free(lease->text);
    g_free(lease->doubtful);
    g_free(lease);
}

/* Nobody comes back to it: what stands there in the end is taken away with a beat. */
static void leave_link(SwContentLease *lease)
{
    SwControl *control = lease->leases->control;

    sw_leave_behind(control, lease->epoch, SW_IN_LEASES, lease->name, lease->text);
    if (lease->doubtful)
        sw_leave_behind(control, lease->epoch, SW_IN_LEASES, lease->name, lease->doubtful);
}

static SwContentLease *lease_new(SwContentLeases *leases, guint64 key, const SwLeaseText *intent)
{
    SwContentLease *lease = g_new0(SwContentLease, 1);

    lease->leases = leases;
    lease->key = key;
    g_snprintf(lease->name, sizeof lease->name, "%016" G_GINT64_MODIFIER "x", key);
    lease->epoch = sw_control_epoch(leases->control);
    lease->text = make_text(leases, lease->epoch, intent);
    pthread_cond_init(&lease->turn, NULL);
    return lease;
}

int sw_content_lease_take(SwContentLeases *leases, guint64 key, const SwLeaseText *intent, gint64 deadline_us,
                          gboolean (*cancelled)(gpointer), gpointer cancelled_data, SwContentLease **ret_lease,
                          SwPredecessor *ret_predecessor)
{
    Wait wait = {.deadline_us = deadline_us, .cancelled = cancelled, .cancelled_data = cancelled_data};
    SwContentLease *lease = lease_new(leases, key, intent);
    int r = queue_join(lease, &wait);

    wait.pause_us = PAUSE_FIRST_US;
    if (r == 0) {
        yield_to_rivals(lease);
        r = compete(lease, &wait);
        if (r < 0 && wait.unsure)
            leave_link(lease);
        if (r < 0)
            queue_leave(lease);
    }
    g_free(wait.seen);
    if (r < 0) {
        lease_free(lease);
        return r;
    }
    *ret_lease = lease;
    *ret_predecessor = wait.broken ? SW_PREDECESSOR_BROKEN : SW_PREDECESSOR_CLEAN;
    return 0;
}

/* [P12] The fresh link is made where a fenced host cannot rename it from any more. */
int sw_content_lease_intend(SwContentLease *lease, const SwLeaseText *intent)
{
    SwControl *control = lease->leases->control;
    SwPort *port = control->port;
    g_autofree char *text = make_text(lease->leases, lease->epoch, intent);
    g_autofree char *fresh = sw_control_unique(control, "intent-");
    int released = lease->epoch->released;
    int r = port->become(port, NULL);

    if (r == 0)
        r = port->symlinkat(port, text, released, fresh);
    if (r == 0) {
        r = port->renameat(port, released, fresh, control->leases, lease->name, SW_RENAME_OWN);
        if (r < 0)
            (void)port->unlinkat(port, released, fresh, 0);
    }
    if (r < 0 && !sw_is_unsure(r))
        return r == -ENOENT ? -ESTALE : r;
    g_free(r < 0 ? lease->doubtful : lease->text);
    *(r < 0 ? &lease->doubtful : &lease->text) = g_steal_pointer(&text);
    return r;
}

int sw_content_lease_confirm(SwContentLease *lease)
{
    return sw_control_confirm(lease->leases->control, lease->epoch);
}

/* [P13] */
static int let_go(SwContentLease *lease)
{
    SwControl *control = lease->leases->control;
    SwPort *port = control->port;
    char name[8];
    int released = lease->epoch->released;
    int r = port->become(port, NULL);

    if (r < 0)
        return r;
    /* A few names that are used over and over: the rename drops what was released under it before. */
    g_snprintf(name, sizeof name, "%u", (guint)(lease->key % RELEASED_NAMES));
    r = port->renameat(port, control->leases, lease->name, released, name, SW_RENAME_OWN);
    if (r == -ENOENT) /* ours no more; or done, and the reply was lost */
        return link_says(port, released, name, lease->text) ? 0 : -ESTALE;
    if (r == -ESTALE)
        return r;
    /* No room for a name, or a fault.  Should even this fail, the next one here who wants it finds it abandoned. */
    if (r < 0 && link_says(port, control->leases, lease->name, lease->text))
        return port->unlinkat(port, control->leases, lease->name, 0);
    return r < 0 && link_says(port, released, name, lease->text) ? 0 : r;
}

int sw_content_lease_release(SwContentLease *lease)
{
    int r = let_go(lease);

    if (r < 0 && r != -ESTALE)
        leave_link(lease);
    queue_leave(lease);
    lease_free(lease);
    return r;
}

/* ---- for the daemon that follows */

void sw_content_leases_carry(SwContentLeases *leases, SwBundle *bundle)
{
    GHashTableIter iter;
    gpointer slot;

    g_hash_table_iter_init(&iter, leases->slots);
    while (g_hash_table_iter_next(&iter, NULL, &slot))
        if (!g_queue_is_empty(&((Slot *)slot)->leases))
            sw_bundle_fail(bundle, "a lease is held or waited for");
    SW_BUNDLE(bundle, leases->sequence);
    SW_BUNDLE(bundle, leases->rival_us);
}
