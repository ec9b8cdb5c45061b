/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * What this mount has put up for others to see, and could not take away.
 *
 * A lease, a lock's record or a mark that names us binds everybody else as long as we live.  So when its removal fails,
 * or its making fails in a way that leaves it open whether it was made, it is remembered, and tried again with each
 * beat [P13] [L3].  Whatever else our threads do to that name they do under its entry in `breaking`, as we do here, so
 * a link that still says what was remembered is that one; and it goes by a rename into `released` of the epoch that
 * made it, which a fenced host cannot do any more [P6].
 */

#include "control_internal.h"

#include <errno.h>
#include <string.h>

typedef struct {
    SwPlace place;
    const SwEpoch *epoch; /* that made it */
    char *name;
    char *text; /* of the link; NULL: it is the mark beside that name */
} Left;

static void left_free(gpointer data)
{
    Left *left = data;

    g_free(left->name);
    g_free(left->text);
    g_free(left);
}

gboolean sw_is_unsure(int r)
{
    return r == -EIO || r == -ETIMEDOUT || r == -EINTR || r == -ESTALE;
}

void sw_leave_behind(SwControl *control, const SwEpoch *epoch, SwPlace place, const char *name, const char *text)
{
    Left *left = g_new(Left, 1);

    *left = (Left){.place = place, .epoch = epoch, .name = g_strdup(name), .text = g_strdup(text)};
    SW_HOLD(&control->lock);
    control->left = g_slist_prepend(control->left, left);
}

static int take_link(SwControl *control, const SwEpoch *epoch, SwPlace place, const char *name, const char *text)
{
    SwPort *port = control->port;
    g_autofree char *seen = NULL;
    int r = sw_read_fresh(control, place, name, &seen);

    if (r == 0 && strcmp(seen, text) != 0)
        return 0;
    if (r == 0)
        r = sw_drop_link(control, epoch, place, name);
    if (r == -ENOSPC || r == -EDQUOT) /* no room for a name: then it goes here, where its text was just read */
        r = port->unlinkat(port, place == SW_IN_LEASES ? control->leases : control->locks, name, 0);
    return r;
}

int sw_take_back(SwControl *control, const SwEpoch *epoch, SwPlace place, const char *name, const char *text)
{
    int r;

    if (!sw_breaking_enter(control, place, name))
        return -EAGAIN;
    r = text ? take_link(control, epoch, place, name, text) : sw_remove_mark(control, epoch, place, name);
    sw_breaking_leave(control, place, name);
    return r == -ENOENT || r == -ESTALE ? 0 : r; /* gone; or we are fenced, and whoever did that sees to it */
}

void sw_left_retry(SwControl *control)
{
    gboolean away = FALSE;
    GSList *all;

    sw_mutex_lock(&control->lock);
    all = g_steal_pointer(&control->left);
    sw_mutex_unlock(&control->lock);
    for (GSList *at = all; at; at = at->next) {
        const Left *left = at->data;
        int r = away ? -EAGAIN : sw_take_back(control, left->epoch, left->place, left->name, left->text);

        if (r < 0)
            sw_leave_behind(control, left->epoch, left->place, left->name, left->text);
        away = away || sw_is_unsure(r); /* the others would fail as well, and each may take long */
        sw_control_beat_if_due(control);
    }
    g_slist_free_full(all, left_free);
}

void sw_left_forget(SwControl *control)
{
    g_slist_free_full(g_steal_pointer(&control->left), left_free);
}
