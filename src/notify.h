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

#endif
