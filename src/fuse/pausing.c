/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A server that stands still, so that another daemon can go on with what it knows.
 */
#include "ops.h"
#include "server_internal.h"

/* All threads but this one, in the order in which they give each other work; `until_us` as sw_server_pause. */
static gboolean pause_threads(SwServer *server, gint64 until_us, char **ret_why)
{
    if (!sw_mutex_lock_until(&server->ticking, until_us)) {
        *ret_why = g_strdup("the source is waited for");
        return FALSE;
    }
    if (sw_locking_pause(server->locking, until_us)) {
        if (sw_readers_pause(server->readers, until_us))
            return TRUE;
        sw_locking_go_on(server->locking);
    }
    sw_mutex_unlock(&server->ticking);
    *ret_why = g_strdup("requests are being served that take long");
    return FALSE;
}

gboolean sw_server_pause(SwServer *server, gint64 until_us, char **ret_why)
{
    guint n;

    if (sw_server_uring(server)) {
        *ret_why = g_strdup("its requests come through io_uring, which cannot be handed on (io-uring=off)");
        return FALSE;
    }
    if (!pause_threads(server, until_us, ret_why))
        return FALSE;
    n = sw_workers_drain(server->workers, until_us);
    /* Who was interrupted, and who can have his lock now, waits no more. */
    sw_ignore(sw_overlay_lock_step(server->overlay));
    if (n == 0)
        n = sw_workers_drain(server->workers, until_us);
    if (n == 0)
        return TRUE;
    *ret_why = g_strdup_printf("%u requests wait for a lease or the source", n);
    sw_server_go_on(server);
    return FALSE;
}

void sw_server_go_on(SwServer *server)
{
    sw_readers_go_on(server->readers);
    sw_locking_go_on(server->locking);
    sw_mutex_unlock(&server->ticking);
    sw_locking_kick(server->locking);
}

void sw_server_carry_state(SwServer *server, SwBundle *bundle, int *ret_device)
{
    sw_bundle_mark(bundle, "server");
    sw_bundle_fd(bundle, ret_device);
    SW_BUNDLE(bundle, server->covers_dead);
    sw_greeting_carry(&server->greeting, bundle);
    sw_waiting_locks_carry(server, bundle, server->waiting);
    sw_bundle_mark(bundle, "end of server");
}

void sw_server_carry(SwServer *server, SwBundle *bundle)
{
    int device = fuse_session_fd(server->session);

    sw_server_carry_state(server, bundle, &device);
}
