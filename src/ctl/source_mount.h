/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_SOURCE_MOUNT_H
#define SW_SOURCE_MOUNT_H

/* The mount that a source lies in, as port/mount.h has it, which calls one by the same name as mounts.h does. */

#include <glib.h>

typedef struct {
    char *type;    /* "nfs"; NULL: not known, as of a source that a mount covers */
    char *options; /* of the file system */
    gboolean is_nfs3;
    GPtrArray *doubts; /* sentences: which options weaken what programs may rely on (char *, owned) */
} SwSourceMount;

void sw_source_mount_find(int fd, SwSourceMount *ret_mount);
void sw_source_mount_clear(SwSourceMount *mount);

#endif
