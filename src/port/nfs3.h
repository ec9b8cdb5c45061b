/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_NFS3_H
#define SW_NFS3_H

/*
 * What NFSv3 needs beyond nfs.c, which puts it in: a rename over a file that this daemon has open goes through a mount
 * aside (aside.h).  For that it is counted which files are open.
 */

#include "mount.h"
#include "port.h"

typedef struct SwNfs3 SwNfs3;

/* Changes members of `port`, which is that of `posix`.  `say` (may be NULL) is told once if there can be no mount
 * aside. */
SwNfs3 *sw_nfs3_bind(SwPort *port, const SwMount *mount, void (*say)(gpointer data, const char *text), gpointer data);
void sw_nfs3_free(SwNfs3 *nfs3);

#endif
