/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_SOURCE_H
#define SW_SOURCE_H

/*
 * Finding the source: the directory itself, and not the empty one that waits for it to be mounted there.
 */

#include "core/config.h"

/*
 * Opens `source` (O_PATH).  With config->require_fstype it must lie in a mount of one of these types, as
 * /proc/self/mountinfo names it, and is waited for until config->wait_source_us is over; `say` is told so, once.
 * SIGTERM ends that wait with the process.  0; or -errno, -ENODEV where the type is another one, and in *ret_why a
 * sentence that names source, type and what was wanted (g_free).
 */
int sw_source_find(const char *source, const SwConfig *config,
                   void (*say)(gpointer data, const char *text, gint64 wait_us), gpointer data, int *ret_fd,
                   char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

#endif
