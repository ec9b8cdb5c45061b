/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * One breaker at a time.
 *
 * Whoever ends the hold of another, be it a lease, a lock or a whole host, does so under <name>.break [P14] [P21] [L4],
 * a directory with one entry, which is named as the epoch that made it.  It is renamed into place, which fails where
 * one stands that is not empty.  A mark whose maker can do nothing any more is dropped by the next one who comes: that
 * one's entry by its name, then the directory, which stays when another has put his there.  So however late a call
 * comes, it ends nobody else's mark.  In one mount the name is also kept in memory, for two threads of it have one id.
 */

#include "../core/course.h"
#include "app_lock.h"
#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define MARK_TRIES 3
#define MAKERS_MAX 16
#define ORDER_TRIES 200
#define ORDER_PAUSE_US (50 * G_TIME_SPAN_MILLISECOND)
#define NSEC_PER_SEC G_GINT64_CONSTANT(1000000000)

/* ---- looking past the caches */

static int place_fd(const SwControl *control, SwPlace place)
{
    return place == SW_IN_LEASES ? control->leases : control->locks;
}

int sw_read_fresh(SwControl *control, SwPlace place, const char *name, char **ret_text)
{
    SwPort *port = control->port;
    int dirfd = sw_open_fresh(control, place == SW_IN_LEASES ? "leases" : "locks");
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

static gboolean has_stages(SwControl *control, const char *host_id)
{
    SwPort *port = control->port;
    struct stat st;
    int host = sw_open_trusted(port, control->hosts, host_id, control->owner);
    int r = host < 0 ? host : port->stat_fresh(port, host, "stage", &st);

    sw_fd_close(port, &host);
    return r != -ENOENT;
}

/* Can whoever made this mark do nothing any more?  Without `stage`, which goes after `released`, it can take nothing
 * away [P6]. */
static gboolean maker_is_gone(SwControl *control, const SwEpoch *by, const char *host_id)
{
    int r;

    if (strcmp(host_id, by->id) == 0)
        return TRUE; /* no thread of ours is at it: one of ours that could not be dropped */
    r = sw_control_host_exists(control, host_id);
    if (r <= 0)
        return r == 0;
    if (!has_stages(control, host_id) || sw_is_dead_here(control, host_id))
        return TRUE;
    sw_control_want(control, host_id);
    return FALSE;
}

int sw_drop_link(SwControl *control, const SwEpoch *by, SwPlace place, const char *name)
{
    SwPort *port = control->port;
    g_autofree char *taken = sw_control_unique(control, "dropped-");
    int r = port->renameat(port, place_fd(control, place), name, by->released, taken, 0);

    if (r < 0)
        return r;
    if (port->unlinkat(port, by->released, taken, 0) == -EISDIR)
        (void)port->unlinkat(port, by->released, taken, AT_REMOVEDIR);
    return 0;
}

/* What this epoch made there, and the mark itself when it is empty: both fail on what is another's, however late. */
static int remove_mark_of(SwControl *control, SwPlace place, const char *mark, const char *host_id)
{
    SwPort *port = control->port;
    int fd = sw_open_trusted(port, place_fd(control, place), mark, control->owner);
    int r = fd < 0 ? fd : port->unlinkat(port, fd, host_id, 0);

    sw_fd_close(port, &fd);
    (void)port->unlinkat(port, place_fd(control, place), mark, AT_REMOVEDIR);
    return r;
}

static int put_mark(SwControl *control, const SwEpoch *by, SwPlace place, const char *mark)
{
    SwPort *port = control->port;
    g_autofree char *fresh = sw_control_unique(control, "mark-");
    int fd, r = port->mkdirat(port, by->released, fresh, 0700);

    if (r < 0)
        return r;
    fd = r = port->openat(port, by->released, fresh, O_RDONLY | O_DIRECTORY, 0);
    if (fd >= 0)
        r = port->symlinkat(port, mark, fd, by->id);
    if (r == 0)
        r = port->renameat(port, by->released, fresh, place_fd(control, place), mark, 0);
    if (r < 0 && fd >= 0)
        (void)port->unlinkat(port, fd, by->id, 0);
    if (r < 0)
        (void)port->unlinkat(port, by->released, fresh, AT_REMOVEDIR);
    sw_fd_close(port, &fd);
    return r;
}

/* Who made the mark, asked of the server; an array of one or none, unless somebody forges. */
static int read_mark(SwControl *control, SwPlace place, const char *mark, GPtrArray **ret_makers)
{
    SwPort *port = control->port;
    int fd = sw_open_trusted(port, place_fd(control, place), mark, control->owner);
    int r = fd < 0 ? fd : sw_dir_names(port, fd, MAKERS_MAX, FALSE, ret_makers);

    sw_fd_close(port, &fd);
    return r;
}

/* 0: it binds nobody any more. */
static int drop_harmless(SwControl *control, const SwEpoch *by, SwPlace place, const char *mark)
{
    g_autoptr(GPtrArray) makers = NULL;
    int r = read_mark(control, place, mark, &makers);

    if (r == -ENOENT)
        return 0;
    if (r == -ENOTDIR || r == -ELOOP || r == -EPERM) /* none of ours */
        return sw_drop_link(control, by, place, mark);
    if (r == 0 && makers->len == 0) /* dropped, but for this */
        (void)control->port->unlinkat(control->port, place_fd(control, place), mark, AT_REMOVEDIR);
    for (guint i = 0; r == 0 && i < makers->len; i++)
        r = !maker_is_gone(control, by, makers->pdata[i]) ? -EAGAIN
                                                          : remove_mark_of(control, place, mark, makers->pdata[i]);
    return r == -ENOENT ? 0 : r;
}

/* Made, and the reply was lost; or left by a thread of this epoch that could not drop it, and none is at it now. */
static gboolean is_ours(SwControl *control, const SwEpoch *by, SwPlace place, const char *mark)
{
    g_autoptr(GPtrArray) makers = NULL;

    return read_mark(control, place, mark, &makers) == 0 && makers->len == 1 && strcmp(makers->pdata[0], by->id) == 0;
}

static int make_mark(SwControl *control, const SwEpoch *by, SwPlace place, const char *mark)
{
    int r = -EAGAIN;

    for (guint i = 0; i < MARK_TRIES; i++) {
        r = put_mark(control, by, place, mark);
        if (r == 0 || is_ours(control, by, place, mark))
            return 0;
        if (r != -EEXIST && r != -ENOTEMPTY && r != -ENOTDIR)
            return r;
        r = drop_harmless(control, by, place, mark);
        if (r < 0)
            return r;
    }
    return -EAGAIN;
}

/* Two names of one key never meet: what is in locks/ is told apart by its mark's directory. */
static char *entry_of(SwPlace place, const char *name)
{
    return g_strconcat(place == SW_IN_LEASES ? "" : "locks/", name, NULL);
}

gboolean sw_breaking_enter(SwControl *control, SwPlace place, const char *name)
{
    SW_HOLD(&control->lock);
    return g_hash_table_add(control->breaking, entry_of(place, name));
}

void sw_breaking_leave(SwControl *control, SwPlace place, const char *name)
{
    g_autofree char *entry = entry_of(place, name);
    SW_HOLD(&control->lock);
    g_hash_table_remove(control->breaking, entry);
}

int sw_breaking_begin(SwControl *control, const SwEpoch *by, SwPlace place, const char *name)
{
    g_autofree char *mark = g_strconcat(name, SW_MARK, NULL);
    int r;

    if (!sw_breaking_enter(control, place, name))
        return -EAGAIN;
    r = make_mark(control, by, place, mark);
    if (r < 0)
        sw_breaking_leave(control, place, name);
    return r;
}

int sw_remove_mark(SwControl *control, const SwEpoch *by, SwPlace place, const char *name)
{
    g_autofree char *mark = g_strconcat(name, SW_MARK, NULL);

    return remove_mark_of(control, place, mark, by->id);
}

void sw_breaking_end(SwControl *control, const SwEpoch *by, SwPlace place, const char *name)
{
    int r = sw_remove_mark(control, by, place, name);

    if (r < 0 && r != -ENOENT)
        sw_leave_behind(control, by, place, name, NULL);
    sw_breaking_leave(control, place, name);
}

void sw_sweep_mark(SwControl *control, const SwEpoch *by, SwPlace place, const char *mark)
{
    g_autofree char *name = g_strndup(mark, strlen(mark) - strlen(SW_MARK));

    if (!sw_breaking_enter(control, place, name))
        return;
    sw_ignore(drop_harmless(control, by, place, mark)); /* the next one comes by */
    sw_breaking_leave(control, place, name);
}

/* ---- one lease [P14] */

typedef struct {
    SwControl *control;
    const SwEpoch *by;
    const char *name, *judged;
} Break;

static int undo(SwControl *control, const char *text)
{
    SwLeaseText holder;

    return sw_lease_text_parse(text, &holder) == 0 ? sw_end_append(control, &holder) : 0;
}

/* Under the mark nobody else drops the link: is it still the one that was judged? */
static int read_again(const Break *b)
{
    g_autofree char *text = NULL;
    int r = sw_read_fresh(b->control, SW_IN_LEASES, b->name, &text);

    return r < 0 ? r : strcmp(text, b->judged) == 0 ? 0 : -ENOENT;
}

static int take_step(gpointer data, SwStep step)
{
    const Break *b = data;

    switch (step) {
    case SW_STEP_MARK:
        return sw_breaking_begin(b->control, b->by, SW_IN_LEASES, b->name);
    case SW_STEP_READ_AGAIN:
        return read_again(b);
    case SW_STEP_UNDO:
        return undo(b->control, b->judged);
    case SW_STEP_DROP:
        return sw_drop_link(b->control, b->by, SW_IN_LEASES, b->name);
    default:
        g_assert_not_reached();
    }
}

int sw_break_lease(SwControl *control, const SwEpoch *by, const char *name, const char *judged)
{
    Break b = {.control = control, .by = by, .name = name, .judged = judged};
    guint at;
    int r = sw_course_run(sw_hold_course, SW_HOLD_JUDGED, SW_HOLD_BROKEN, take_step, &b, &at);

    if (at != SW_HOLD_JUDGED)
        sw_breaking_end(control, by, SW_IN_LEASES, name);
    return r;
}

/* ---- a host [P21] */

int sw_break_host(SwControl *control, const char *host_id, guint64 counter, gboolean alone)
{
    SwPort *port = control->port;
    const SwEpoch *by = sw_epoch_now(control);
    guint64 now = 0;
    int r, host = sw_open_trusted(port, control->hosts, host_id, control->owner);

    if (host < 0)
        return host;
    r = alone ? sw_breaking_begin(control, by, SW_IN_LEASES, host_id) : 0;
    if (r == 0) {
        r = sw_host_counter(control, host, &now);
        if (r == 0 && now != counter)
            r = -EEXIST; /* it has come back just in time */
        if (r == 0)
            r = alone ? sw_bury(control, by, host, host_id, "fenced") : sw_fence(control, host, host_id, "fenced");
        if (alone)
            sw_breaking_end(control, by, SW_IN_LEASES, host_id);
    }
    sw_fd_close(port, &host);
    return r;
}

/* ---- as the administrator says (C20) */

/* No heartbeat is asked for: one that comes now changes nothing. */
static int break_now(SwControl *control, const char *host_id)
{
    SwPort *port = control->port;
    const SwEpoch *by = sw_epoch_now(control);
    int r, host = sw_open_trusted(port, control->hosts, host_id, control->owner);

    if (host < 0)
        return host;
    r = sw_breaking_begin(control, by, SW_IN_LEASES, host_id);
    if (r == 0) {
        r = sw_bury(control, by, host, host_id, "fenced");
        sw_breaking_end(control, by, SW_IN_LEASES, host_id);
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
