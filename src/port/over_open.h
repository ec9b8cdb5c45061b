/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_OVER_OPEN_H
#define SW_OVER_OPEN_H

/*
 * A rename over a file that this daemon has open goes through a mount aside (aside.h), on NFS of any version; nfs.c
 * puts it in.  For that it is counted which files are open.
 */

#include "mount.h"
#include "port.h"

typedef struct SwOverOpen SwOverOpen;

/* Changes members of `port`, which is that of `posix`.  `say` (may be NULL) is told once if there can be no mount
 * aside. */
SwOverOpen *sw_over_open_bind(SwPort *port, const SwMount *mount, void (*say)(gpointer data, const char *text),
                              gpointer data);
/* A descriptor that was opened elsewhere counts as well, until it is closed. */
void sw_over_open_adopt(SwPort *port, int fd);
void sw_over_open_free(SwOverOpen *over);

#endif
