/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_BACKING_H
#define SW_FUSE_BACKING_H

/*
 * FUSE passthrough, as far as it is FUSE's: asks the kernel for it in INIT, and gives it files.
 *
 * It needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH, libfuse 3.17, and a daemon with CAP_SYS_ADMIN.
 */

#include "config.h"

#include <fuse_lowlevel.h>

typedef struct SwServer SwServer;

/* Within INIT: asks for it, and tells the overlay what comes of that. */
void sw_backing_greet(SwServer *server, struct fuse_conn_info *conn);

#endif
