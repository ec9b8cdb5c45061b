/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "keeper.h"

#include "carrier.h"

#include "../core/ring.h"
#include "../core/watch.h"
#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* How long a want lasts that is not repeated; who waits looks every 100 ms. */
#define WANT_US (5 * G_TIME_SPAN_SECOND)
#define WANTS_MAX 64
/* A record may say anything about its lease; nobody can mount with less or more. */
#define TTL_MIN_US (2 * G_TIME_SPAN_SECOND)
#define TTL_MAX_US G_TIME_SPAN_DAY
/* Without a record nobody can say how long it may be silent: a mount that is just being made is quicker. */
#define NO_RECORD_TTL_US (60 * G_TIME_SPAN_SECOND)
#define RETRY_US (100 * G_TIME_SPAN_MILLISECOND)

/* One host that we watch. */
typedef struct {
    char *id;
    int dir;         /* hosts/<id> */
    gint64 ttl_us;   /* its own */
    gboolean here;   /* a mount of this machine */
    gboolean read;   /* its record has been read */
    gboolean chosen; /* stays watched */
    int beats_lost;  /* of our own beats, at the last look */
    gint64 due_us;
    SwWatch watch;
} Watched;

struct SwKeeper {
    /* immutable */
    SwPort *port;
    SwControl *control;
    gint64 ttl_us;
    SwKeeperEvents events;

    /* of the thread that steps */
    const SwEpoch *epoch; /* as of the last step */
    gboolean lost;        /* fenced, and without another epoch so far; told */
    gint64 beat_due_us, list_due_us, retry_us;
    GPtrArray *ids;      /* of all hosts, sorted, owned */
    struct stat listed;  /* hosts/ when they were read */
    GHashTable *watched; /* id -> Watched, owned */

    /* atomic */
    gint retired;
    gint wanted_more; /* the set below has grown */

    /* protected by lock */
    SwMutex lock;
    GHashTable *wanted; /* id -> until when, both owned */
};

static void watched_free(gpointer data)
{
    Watched *w = data;

    g_free(w->id);
    g_free(w);
}

static void want(gpointer data, const char *host_id)
{
    sw_keeper_want(data, host_id);
}

SwKeeper *sw_keeper_new(SwPort *port, SwControl *control, gint64 ttl_us, const SwKeeperEvents *events)
{
    SwKeeper *keeper = g_new0(SwKeeper, 1);

    keeper->port = port;
    keeper->control = control;
    keeper->ttl_us = ttl_us;
    keeper->events = *events;
    keeper->epoch = sw_epoch_now(control);
    keeper->ids = g_ptr_array_new_with_free_func(g_free);
    keeper->watched = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, watched_free);
    keeper->wanted = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    sw_mutex_init(&keeper->lock);
    sw_control_on_wait(control, want, keeper);
    return keeper;
}

static void forget_watched(SwKeeper *keeper, Watched *w)
{
    sw_fd_close(keeper->port, &w->dir);
    g_hash_table_remove(keeper->watched, w->id);
}

static void forget_all(SwKeeper *keeper)
{
    g_autoptr(GList) all = g_hash_table_get_values(keeper->watched);

    for (GList *at = all; at; at = at->next)
        forget_watched(keeper, at->data);
}

void sw_keeper_free(SwKeeper *keeper)
{
    if (!keeper)
        return;
    sw_control_on_wait(keeper->control, NULL, NULL);
    forget_all(keeper);
    g_hash_table_unref(keeper->watched);
    g_hash_table_unref(keeper->wanted);
    g_ptr_array_unref(keeper->ids);
    sw_mutex_clear(&keeper->lock);
    g_free(keeper);
}

void sw_keeper_retire(SwKeeper *keeper)
{
    g_atomic_int_set(&keeper->retired, TRUE);
}

static void tell(SwKeeper *keeper, SwKeeperWhat what, const char *host_id, int error)
{
    keeper->events.happened(keeper->events.data, what, host_id, error);
}

/* ---- our own renewal [P18] [P22] */

/* Another thread may have claimed the new epoch, when it could not stage any more. */
static void check_epoch(SwKeeper *keeper, gboolean fenced)
{
    SwControl *control = keeper->control;
    int r = 0;

    if (fenced && sw_epoch_now(control) == keeper->epoch)
        r = sw_control_rejoin(control, keeper->epoch);
    if (r < 0 && r != -EAGAIN && !keeper->lost) {
        keeper->lost = TRUE;
        tell(keeper, SW_KEEPER_LOST, keeper->epoch->id, r);
    }
    if (r < 0)
        keeper->beat_due_us = keeper->port->now_us(keeper->port) + RETRY_US;
    if (sw_epoch_now(control) == keeper->epoch)
        return;
    keeper->epoch = sw_epoch_now(control);
    keeper->lost = FALSE;
    keeper->list_due_us = 0;
    tell(keeper, SW_KEEPER_REJOINED, keeper->epoch->id, 0);
}

static void renew(SwKeeper *keeper)
{
    gint64 interval_us = sw_control_beat_interval(keeper->control);
    gint64 began_us = keeper->port->now_us(keeper->port);
    int r = sw_control_renew(keeper->control, keeper->epoch);

    /* Others see a beat that comes late as a sign of death: one that failed is not waited for. */
    keeper->beat_due_us = began_us + (r < 0 ? interval_us / 4 : interval_us);
    check_epoch(keeper, r == -ESTALE);
}

/* ---- whom to watch [P20] */

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static gboolean list_is_current(SwKeeper *keeper)
{
    struct stat st;

    return keeper->port->stat_fresh(keeper->port, keeper->control->hosts, "", &st) == 0 &&
           memcmp(&st.st_mtim, &keeper->listed.st_mtim, sizeof st.st_mtim) == 0;
}

/* A directory opened anew is read past the caches. */
static int read_list(SwKeeper *keeper)
{
    SwPort *port = keeper->port;
    g_autoptr(GPtrArray) names = NULL;
    struct stat st;
    int r, hosts = sw_open_fresh(keeper->control, "hosts");

    if (hosts < 0)
        return hosts;
    r = port->stat_fresh(port, hosts, "", &st);
    if (r == 0)
        r = sw_dir_names(port, hosts, SW_HOSTS_MAX, TRUE, &names);
    sw_fd_close(port, &hosts);
    if (r < 0)
        return r;
    keeper->listed = st;
    g_ptr_array_set_size(keeper->ids, 0);
    for (guint i = 0; i < names->len; i++)
        if (sw_host_id_is_valid(names->pdata[i]))
            g_ptr_array_add(keeper->ids, g_strdup(names->pdata[i]));
    g_ptr_array_sort(keeper->ids, by_name);
    return 0;
}

static gboolean is_quiet(gpointer data, const char *id)
{
    SwKeeper *keeper = data;
    const Watched *w = g_hash_table_lookup(keeper->watched, id);

    return w && sw_watch_is_quiet(&w->watch, w->ttl_us);
}

static void choose(SwKeeper *keeper, const char *id)
{
    Watched *w = g_hash_table_lookup(keeper->watched, id);

    if (strcmp(id, sw_control_host_id(keeper->control)) == 0)
        return;
    if (!w) {
        w = g_new0(Watched, 1);
        w->id = g_strdup(id);
        w->dir = sw_open_trusted(keeper->port, keeper->control->hosts, id, keeper->control->owner);
        w->ttl_us = MAX(keeper->ttl_us, NO_RECORD_TTL_US);
        w->beats_lost = g_atomic_int_get(&keeper->control->beats_lost);
        g_hash_table_insert(keeper->watched, w->id, w);
    }
    w->chosen = TRUE;
}

static GPtrArray *wanted_now(SwKeeper *keeper)
{
    GPtrArray *ids = g_ptr_array_new_with_free_func(g_free);
    gint64 now_us = keeper->port->now_us(keeper->port);
    GHashTableIter iter;
    gpointer id, until;
    SW_HOLD(&keeper->lock);

    g_hash_table_iter_init(&iter, keeper->wanted);
    while (g_hash_table_iter_next(&iter, &id, &until)) {
        if (*(gint64 *)until >= now_us)
            g_ptr_array_add(ids, g_strdup(id));
        else
            g_hash_table_iter_remove(&iter);
    }
    return ids;
}

/* Mounts of this machine are few, and only here can they be seen dead at once; most share the hostname. */
static void choose_neighbours(SwKeeper *keeper)
{
    const char *own = sw_control_host_id(keeper->control);
    size_t length = strrchr(own, '.') + 1 - own;

    for (guint i = 0; i < keeper->ids->len; i++)
        if (strncmp(keeper->ids->pdata[i], own, length) == 0)
            choose(keeper, keeper->ids->pdata[i]);
}

/* One that is silent stays watched when others push it out of our part of the ring: who comes anew starts from zero. */
static void choose_all(SwKeeper *keeper)
{
    g_autoptr(GPtrArray) ring = sw_ring_choose(keeper->ids, sw_control_host_id(keeper->control), is_quiet, keeper);
    g_autoptr(GPtrArray) wanted = wanted_now(keeper);
    g_autoptr(GList) all = g_hash_table_get_values(keeper->watched);

    for (GList *at = all; at; at = at->next)
        ((Watched *)at->data)->chosen = is_quiet(keeper, ((Watched *)at->data)->id);
    for (guint i = 0; i < ring->len; i++)
        choose(keeper, ring->pdata[i]);
    for (guint i = 0; i < wanted->len; i++)
        choose(keeper, wanted->pdata[i]);
    choose_neighbours(keeper);
    for (GList *at = all; at; at = at->next)
        if (!((Watched *)at->data)->chosen)
            forget_watched(keeper, at->data);
}

void sw_keeper_want(SwKeeper *keeper, const char *host_id)
{
    gint64 until_us = keeper->port->now_us(keeper->port) + WANT_US;
    SW_HOLD(&keeper->lock);

    if (g_hash_table_size(keeper->wanted) >= WANTS_MAX && !g_hash_table_contains(keeper->wanted, host_id))
        return;
    if (!g_hash_table_contains(keeper->wanted, host_id))
        g_atomic_int_set(&keeper->wanted_more, TRUE);
    g_hash_table_insert(keeper->wanted, g_strdup(host_id), g_memdup2(&until_us, sizeof until_us));
}

/* ---- looking [P19] */

static void read_host(SwKeeper *keeper, Watched *w)
{
    SwPort *port = keeper->port;
    SwHostRecord record;
    int r, fd = port->openat(port, w->dir, "record", O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);

    if (fd < 0)
        return;
    r = sw_read_record(keeper->control, fd, &record);
    sw_fd_close(port, &fd);
    if (r < 0 || strcmp(record.id, w->id) != 0)
        return;
    w->read = TRUE;
    w->watch = (SwWatch){0}; /* what went before was measured by another lease */
    w->ttl_us = CLAMP(record.lease_us, TTL_MIN_US, TTL_MAX_US);
    w->here = *keeper->control->boot_id && strcmp(record.boot_id, keeper->control->boot_id) == 0;
}

/* Since the last look at that host all our renewals got through, and there have been some. */
static gboolean have_renewed(SwKeeper *keeper, Watched *w, gint64 now_us)
{
    int lost = g_atomic_int_get(&keeper->control->beats_lost);
    gboolean all = lost == w->beats_lost;

    w->beats_lost = lost;
    return all && now_us - sw_control_beat_us(keeper->control) <= keeper->ttl_us / 2;
}

static void break_it(SwKeeper *keeper, Watched *w)
{
    /* Silent for another whole lease: then it is not for want of trying, but its breaker may wait for us as well. */
    gboolean stuck = w->watch.quiet_us >= 2 * w->ttl_us;
    int r;

    if (stuck)
        sw_ignore(sw_break_host(keeper->control, w->id, w->watch.counter, FALSE));
    r = sw_break_host(keeper->control, w->id, w->watch.counter, TRUE);
    if (r == 0)
        tell(keeper, SW_KEEPER_BROKE, w->id, 0);
    if (r == 0 || r == -ENOENT)
        forget_watched(keeper, w);
    else
        w->due_us = keeper->port->now_us(keeper->port) + w->ttl_us / 32;
}

/* A mount of this machine is dead when the lock on its record is free. */
static gboolean bury_neighbour(SwKeeper *keeper, Watched *w)
{
    int r = w->here ? sw_bury_if_dead(keeper->control, w->id) : -EEXIST;

    if (r == 0)
        tell(keeper, SW_KEEPER_BURIED, w->id, 0);
    if (r == 0 || r == -ENOENT)
        forget_watched(keeper, w);
    return r == 0 || r == -ENOENT;
}

static void look(SwKeeper *keeper, Watched *w)
{
    SwPort *port = keeper->port;
    gint64 began_us = port->now_us(port), ended_us;
    guint64 counter;
    gboolean dead;
    int r;

    if (!w->read && w->dir >= 0)
        read_host(keeper, w);
    r = w->dir < 0 ? -ENOENT : sw_host_counter(keeper->control, w->dir, &counter);
    ended_us = port->now_us(port);
    if (r == -ENOENT || r == -ESTALE || r == -EEXIST) {
        forget_watched(keeper, w); /* gone, or nothing that we can judge; if it is there, the next list shows it */
        return;
    }
    w->due_us = ended_us + w->ttl_us / 32;
    if (r < 0) /* no answer: the next look finds a gap */
        return;
    dead = sw_watch_look(&w->watch, counter, began_us, ended_us, w->ttl_us, have_renewed(keeper, w, began_us));
    /* Its record comes at any moment, and its lease counts from then on. */
    w->due_us = sw_watch_next_us(&w->watch, w->read ? w->ttl_us : MIN(w->ttl_us, keeper->ttl_us));
    if (!bury_neighbour(keeper, w) && dead)
        break_it(keeper, w);
}

static void look_at_all(SwKeeper *keeper)
{
    g_autoptr(GPtrArray) due = g_ptr_array_new_with_free_func(g_free);
    gint64 now_us = keeper->port->now_us(keeper->port);
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, keeper->watched);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (((Watched *)value)->due_us <= now_us)
            g_ptr_array_add(due, g_strdup(((Watched *)value)->id));
    for (guint i = 0; i < due->len; i++) {
        Watched *w = g_hash_table_lookup(keeper->watched, due->pdata[i]);

        /* Breaking one may take long. */
        if (keeper->port->now_us(keeper->port) >= keeper->beat_due_us)
            renew(keeper);
        if (w)
            look(keeper, w);
    }
}

static gint64 next_due(SwKeeper *keeper)
{
    gint64 next = MIN(keeper->beat_due_us, keeper->list_due_us);
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, keeper->watched);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        next = MIN(next, ((Watched *)value)->due_us);
    return next;
}

/* One host is enough, whichever it is. */
static void sweep(SwKeeper *keeper)
{
    if (keeper->ids->len == 0 || strcmp(keeper->ids->pdata[0], sw_control_host_id(keeper->control)) != 0)
        return;
    sw_sweep_leases(keeper->control);
    sw_carriers_sweep(keeper->control);
}

gint64 sw_keeper_step(SwKeeper *keeper)
{
    SwPort *port = keeper->port;
    gint64 now_us = port->now_us(port);
    gboolean beat = now_us >= keeper->beat_due_us, changed = FALSE;

    if (port->become(port, NULL) < 0)
        return now_us + RETRY_US;
    if (g_atomic_int_get(&keeper->retired)) {
        sw_control_beat_if_due(keeper->control);
        return sw_control_beat_us(keeper->control) + sw_control_beat_interval(keeper->control);
    }
    if (beat) {
        renew(keeper);
        sw_left_retry(keeper->control);
    }
    if (now_us >= keeper->list_due_us || (beat && !list_is_current(keeper))) {
        changed = read_list(keeper) == 0;
        keeper->list_due_us = port->now_us(port) + (changed ? keeper->ttl_us : keeper->ttl_us / 32);
        if (changed)
            sweep(keeper);
    }
    if (g_atomic_int_compare_and_exchange(&keeper->wanted_more, TRUE, FALSE) || changed || beat)
        choose_all(keeper);
    look_at_all(keeper);
    return next_due(keeper);
}
