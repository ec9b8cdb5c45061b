/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_DESCRIBE_H
#define SW_FUSE_DESCRIBE_H

/*
 * A request in words, for whoever follows a daemon with -d: "rename dir/a to dir/b", "write dir/a, 4096 bytes at 0".
 */
#include "server_internal.h"

/* `message` is what was read from the device, of that many bytes; g_free.  Paths are below the mount point. */
char *sw_request_describe(SwServer *server, const void *message, gsize size) G_GNUC_WARN_UNUSED_RESULT;

#endif
