/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_NOTIFY_H
#define SW_NOTIFY_H

/*
 * Tells systemd, or whoever else set NOTIFY_SOCKET, how far the daemon is: sd_notify(3).
 *
 * The protocol is one datagram of text, and documented as stable.  libsystemd was left out for it: a library in the
 * daemon of every mount, which the build would sometimes find and sometimes not, for these few lines.
 */

#include <glib.h>

/* Sends "READY=1\nSTATUS=..." and the like.  Nothing happens where nobody wants to know, or when it cannot be sent. */
void sw_notify(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* How often somebody is told that the daemon is alive. */
typedef struct {
    gint64 every_us; /* 0: nobody wants to know */
    gint64 next_us;
} SwAlive;

/*
 * So often that both are content: who sees silence of `hang_us` as death (0: nobody), and systemd, where WatchdogSec=
 * is set for this process (WATCHDOG_USEC and WATCHDOG_PID, sd_watchdog_enabled(3)).
 */
SwAlive sw_alive_every(gint64 hang_us);
/* Is it time?  If so, `now_us` counts as the last one. */
gboolean sw_alive_is_due(SwAlive *alive, gint64 now_us);

#endif
