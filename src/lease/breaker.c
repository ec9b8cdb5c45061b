/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * One breaker at a time.
 *
 * Whoever ends the hold of another, be it a lease or a whole host, does so under leases/<name>.break, a symbolic link
 * made exclusively that names its maker [P14] [P21].  In one mount the name is also kept in memory, for two threads of
 * it have one host id.  A mark whose maker can do nothing any more is dropped by the next one who comes.
 */

#include "../core/course.h"
#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define MARK_TRIES 3
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
static gboolean maker_is_gone(SwControl *control, const SwEpoch *by, const char *text)
{
    SwLeaseText maker;
    int r;

    if (sw_lease_text_parse(text, &maker) < 0)
        return TRUE;
    if (strcmp(maker.host_id, by->id) == 0)
        return TRUE; /* no thread of ours is at it: one of ours that could not be dropped */
    r = sw_control_host_exists(control, maker.host_id);
    if (r <= 0)
        return r == 0;
    if (!has_stages(control, maker.host_id) || sw_is_dead_here(control, maker.host_id))
        return TRUE;
    sw_control_want(control, maker.host_id);
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

int sw_drop_mark(SwControl *control, const SwEpoch *by, SwPlace place, const char *mark, const char *expected)
{
    SwPort *port = control->port;
    g_autofree char *taken = sw_control_unique(control, "mark-");
    g_autofree char *text = NULL;
    int released = by->released, dirfd = place_fd(control, place);
    int r = port->renameat(port, dirfd, mark, released, taken, 0);

    if (r < 0)
        return r;
    r = sw_read_link(port, released, taken, &text);
    if (r == 0 && strcmp(text, expected) != 0 && *expected) {
        if (port->renameat(port, released, taken, dirfd, mark, RENAME_NOREPLACE) == 0)
            return -EAGAIN;
        /* NFS has no such rename, but link is exclusive */
        sw_ignore(port->linkat(port, released, taken, dirfd, mark));
        r = -EAGAIN;
    }
    if (port->unlinkat(port, released, taken, 0) == -EISDIR)
        (void)port->unlinkat(port, released, taken, AT_REMOVEDIR);
    return r == -EAGAIN ? r : 0;
}

static int make_mark(SwControl *control, const SwEpoch *by, SwPlace place, const char *mark)
{
    SwPort *port = control->port;
    SwLeaseText maker = {.sequence = (guint32)g_atomic_int_add(&control->sequence, 1)};
    g_autofree char *text = NULL;

    strcpy(maker.host_id, by->id);
    text = sw_lease_text_format(&maker);
    for (guint i = 0; i < MARK_TRIES; i++) {
        g_autofree char *found = NULL;
        int r = port->symlinkat(port, text, place_fd(control, place), mark);

        if (r == 0)
            return 0;
        if (sw_read_fresh(control, place, mark, &found) == 0 && strcmp(found, text) == 0)
            return 0; /* made, and the reply was lost */
        if (r != -EEXIST)
            return r;
        if (found && !maker_is_gone(control, by, found))
            return -EAGAIN;
        if (found)
            (void)sw_drop_mark(control, by, place, mark, found);
    }
    return -EAGAIN;
}

/* Two names of one key never meet: what is in locks/ is told apart by its mark's directory. */
static char *entry_of(SwPlace place, const char *name)
{
    return g_strconcat(place == SW_IN_LEASES ? "" : "locks/", name, NULL);
}

static gboolean enter(SwControl *control, SwPlace place, const char *name)
{
    SW_HOLD(&control->lock);
    return g_hash_table_add(control->breaking, entry_of(place, name));
}

static void forget(SwControl *control, SwPlace place, const char *name)
{
    g_autofree char *entry = entry_of(place, name);
    SW_HOLD(&control->lock);
    g_hash_table_remove(control->breaking, entry);
}

int sw_breaking_begin(SwControl *control, const SwEpoch *by, SwPlace place, const char *name)
{
    g_autofree char *mark = g_strconcat(name, SW_MARK, NULL);
    int r;

    if (!enter(control, place, name))
        return -EAGAIN;
    r = make_mark(control, by, place, mark);
    if (r < 0)
        forget(control, place, name);
    return r;
}

void sw_breaking_end(SwControl *control, const SwEpoch *by, SwPlace place, const char *name)
{
    g_autofree char *mark = g_strconcat(name, SW_MARK, NULL);

    (void)sw_drop_link(control, by, place, mark); /* if that fails the next one finds it to be of nobody */
    forget(control, place, name);
}

void sw_sweep_mark(SwControl *control, const SwEpoch *by, SwPlace place, const char *name)
{
    g_autofree char *mark = g_strconcat(name, SW_MARK, NULL), *found = NULL;

    if (!enter(control, place, name))
        return;
    if (sw_read_fresh(control, place, mark, &found) == 0 && maker_is_gone(control, by, found))
        (void)sw_drop_mark(control, by, place, mark, found);
    forget(control, place, name);
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

    return sw_lease_text_parse(text, &holder) == 0 ? sw_undo_append(control, &holder) : 0;
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
