/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_UPGRADE_H
#define SW_UPGRADE_H

/*
 * Another program file goes on with the mount, and nobody notices (docs/design.md, "A daemon that is followed by
 * another").
 */

#include "daemon.h"

/* An upgrade to that program (absolute; "" for the one that this daemon was started from, as it is now) is to be made:
 * the answer (core/ask.h; g_free).  Any thread. */
char *sw_upgrade_begin(SwDaemon *daemon, const char *program);
/* How it went: the answer. */
char *sw_upgrade_result(SwDaemon *daemon);
/* By the thread in sw_server_run: makes it, if one is to be made.  When that succeeds the process ends in here. */
void sw_upgrade_attend(SwDaemon *daemon);

/*
 * In a process that was started to follow (options.follow): takes over what the daemon before it had, and waits for its
 * turn.  0: it serves from now on, and the other one does no more; else nothing was changed, and the process is to
 * _exit(2).
 */
int sw_upgrade_follow(SwDaemon *daemon) G_GNUC_WARN_UNUSED_RESULT;

#endif
