/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * One breaker at a time.
 *
 * Whoever ends the hold of another, be it a lease or a whole host, does so under leases/<name>.break, a symbolic link
 * made exclusively that names its maker [P14] [P21].  In one mount the name is also kept in memory, for two threads of
 * it have one host id.  A mark whose maker can do nothing any more is dropped by the next one who comes.
 */

#include "app_lock.h"
#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define MARK_TRIES 3
#define ORDER_TRIES 200
#define ORDER_PAUSE_US (50 * G_TIME_SPAN_MILLISECOND)
#define NSEC_PER_SEC G_GINT64_CONSTANT(1000000000)

/* ---- looking past the caches */

int sw_read_fresh(SwControl *control, const char *name, char **ret_text)
{
    SwPort *port = control->port;
    int dirfd = sw_open_fresh(control, "leases");
    int r;

    if (dirfd < 0)
        return dirfd;
    r = sw_read_link(port, dirfd, name, ret_text);
    sw_fd_close(port, &dirfd);
    if (r == -EINVAL || r == -EMSGSIZE) {
        *ret_text = g_strdup("");
        r = 0;
    }
    return r;
}

int sw_host_counter(SwControl *control, int host, guint64 *ret_counter)
{
    struct stat st;
    int r = control->port->stat_fresh(control->port, host, "record", &st);

    if (r == -ENOENT) { /* not written yet, or taken away already */
        r = control->port->stat_fresh(control->port, host, "", &st);
        if (r == 0 && st.st_nlink == 0)
            r = -ENOENT;
        if (r == 0)
            *ret_counter = 0;
        return r;
    }
    if (r < 0)
        return r;
    if (!S_ISREG(st.st_mode) || st.st_uid != control->owner)
        return -EEXIST;
    *ret_counter = (guint64)st.st_mtim.tv_sec * NSEC_PER_SEC + st.st_mtim.tv_nsec;
    return 0;
}

/* ---- the mark */

static gboolean has_released(SwControl *control, const char *host_id)
{
    SwPort *port = control->port;
    struct stat st;
    int host = sw_open_trusted(port, control->hosts, host_id, control->owner);
    int r = host < 0 ? host : port->stat_fresh(port, host, "released", &st);

    sw_fd_close(port, &host);
    return r != -ENOENT;
}

/* Can whoever made this mark do nothing any more?  Without `released` it can take nothing away [P6]. */
static gboolean maker_is_gone(SwControl *control, const char *text)
{
    SwLeaseText maker;
    int r;

    if (sw_lease_text_parse(text, &maker) < 0)
        return TRUE;
    if (strcmp(maker.host_id, sw_control_host_id(control)) == 0)
        return TRUE; /* no thread of ours is at it: one of ours that could not be dropped */
    r = sw_control_host_exists(control, maker.host_id);
    if (r <= 0)
        return r == 0;
    if (!has_released(control, maker.host_id) || sw_is_dead_here(control, maker.host_id))
        return TRUE;
    sw_control_want(control, maker.host_id);
    return FALSE;
}

int sw_drop_mark(SwControl *control, const char *mark, const char *expected)
{
    SwPort *port = control->port;
    g_autofree char *taken = sw_control_unique(control, "mark-");
    g_autofree char *text = NULL;
    int released = sw_epoch_now(control)->released;
    int r = port->renameat(port, control->leases, mark, released, taken, 0);

    if (r < 0)
        return r;
    r = sw_read_link(port, released, taken, &text);
    if (r == 0 && strcmp(text, expected) != 0 && *expected) {
        if (port->renameat(port, released, taken, control->leases, mark, RENAME_NOREPLACE) == 0)
            return -EAGAIN;
        /* NFS has no such rename, but link is exclusive */
        sw_ignore(port->linkat(port, released, taken, control->leases, mark));
        r = -EAGAIN;
    }
    if (port->unlinkat(port, released, taken, 0) == -EISDIR)
        (void)port->unlinkat(port, released, taken, AT_REMOVEDIR);
    return r == -EAGAIN ? r : 0;
}

static int make_mark(SwControl *control, const char *mark)
{
    SwPort *port = control->port;
    SwLeaseText maker = {.sequence = (guint32)g_atomic_int_add(&control->sequence, 1)};
    g_autofree char *text = NULL;

    strcpy(maker.host_id, sw_control_host_id(control));
    text = sw_lease_text_format(&maker);
    for (guint i = 0; i < MARK_TRIES; i++) {
        g_autofree char *found = NULL;
        int r = port->symlinkat(port, text, control->leases, mark);

        if (r == 0)
            return 0;
        if (sw_read_fresh(control, mark, &found) == 0 && strcmp(found, text) == 0)
            return 0; /* made, and the reply was lost */
        if (r != -EEXIST)
            return r;
        if (found && !maker_is_gone(control, found))
            return -EAGAIN;
        if (found)
            (void)sw_drop_mark(control, mark, found);
    }
    return -EAGAIN;
}

static gboolean enter(SwControl *control, const char *name)
{
    SW_HOLD(&control->lock);
    return g_hash_table_add(control->breaking, g_strdup(name));
}

static void forget(SwControl *control, const char *name)
{
    SW_HOLD(&control->lock);
    g_hash_table_remove(control->breaking, name);
}

int sw_breaking_begin(SwControl *control, const char *name)
{
    g_autofree char *mark = g_strconcat(name, SW_MARK, NULL);
    int r;

    if (!enter(control, name))
        return -EAGAIN;
    r = make_mark(control, mark);
    if (r < 0)
        forget(control, name);
    return r;
}

void sw_breaking_end(SwControl *control, const char *name)
{
    g_autofree char *mark = g_strconcat(name, SW_MARK, NULL);

    (void)sw_drop_lease(control, mark); /* if that fails the next one finds it to be of nobody */
    forget(control, name);
}

/* ---- one lease */

/* Only under the mark, where nobody else drops the link: is it still the one that was judged? */
static int drop_judged(SwControl *control, const char *name, const char *judged)
{
    g_autofree char *text = NULL;
    SwLeaseText holder;
    int r = sw_read_fresh(control, name, &text);

    if (r < 0)
        return r;
    if (strcmp(text, judged) != 0)
        return -ENOENT;
    if (sw_lease_text_parse(text, &holder) == 0)
        r = sw_undo_append(control, &holder);
    return r < 0 ? r : sw_drop_lease(control, name);
}

int sw_break_lease(SwControl *control, const char *name, const char *judged)
{
    int r = sw_breaking_begin(control, name);

    if (r < 0)
        return r;
    r = drop_judged(control, name, judged);
    sw_breaking_end(control, name);
    return r;
}

/* ---- a host [P21] */

int sw_break_host(SwControl *control, const char *host_id, guint64 counter, gboolean alone)
{
    SwPort *port = control->port;
    guint64 now = 0;
    int r, host = sw_open_trusted(port, control->hosts, host_id, control->owner);

    if (host < 0)
        return host;
    r = alone ? sw_breaking_begin(control, host_id) : 0;
    if (r == 0) {
        r = sw_host_counter(control, host, &now);
        if (r == 0 && now != counter)
            r = -EEXIST; /* it has come back just in time */
        if (r == 0)
            r = alone ? sw_bury(control, host, host_id, "fenced") : sw_evacuate_host(control, host, host_id, "fenced");
        if (alone)
            sw_breaking_end(control, host_id);
    }
    sw_fd_close(port, &host);
    return r;
}

/* ---- as the administrator says (C20) */

/* No heartbeat is asked for: one that comes now changes nothing. */
static int break_now(SwControl *control, const char *host_id)
{
    SwPort *port = control->port;
    int r, host = sw_open_trusted(port, control->hosts, host_id, control->owner);

    if (host < 0)
        return host;
    r = sw_breaking_begin(control, host_id);
    if (r == 0) {
        r = sw_bury(control, host, host_id, "fenced");
        sw_breaking_end(control, host_id);
    }
    sw_fd_close(port, &host);
    return r;
}

int sw_control_break_host(SwControl *control, const char *host_id)
{
    SwPort *port = control->port;
    int r = port->become(port, NULL);

    if (r < 0)
        return r;
    if (!sw_host_id_is_valid(host_id))
        return -ENOENT;
    if (strcmp(host_id, sw_control_host_id(control)) == 0)
        return -EINVAL;
    if (sw_bury_if_dead(control, host_id) == 0)
        return 0;
    r = break_now(control, host_id);
    for (guint i = 0; r == -EAGAIN && i < ORDER_TRIES; i++) {
        port->sleep_us(port, ORDER_PAUSE_US);
        sw_control_beat_if_due(control);
        r = break_now(control, host_id);
    }
    return r;
}

void sw_control_sweep(SwControl *control)
{
    if (control->port->become(control->port, NULL) < 0)
        return;
    sw_bury_predecessors(control);
    sw_sweep_leases(control);
    sw_app_locks_sweep(control);
}
