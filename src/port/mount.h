/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_MOUNT_H
#define SW_MOUNT_H

/*
 * What /proc/self/mountinfo says of the mount that a descriptor is in (proc(5)).  Inside of the real port.
 */

#include <glib.h>

/* One row; all NULL where nothing is known. */
typedef struct {
    char *root;    /* the directory of the file system that is mounted, as the file system tells it */
    char *point;   /* where */
    char *type;    /* "nfs" */
    char *source;  /* "server:/export" */
    char *options; /* of the file system, "rw,vers=3,..." */
} SwMount;

/* Looks the mount of `fd` up; the row is to be cleared. */
void sw_mount_of(int fd, SwMount *ret_mount);
/* The row with that number in the text of a mountinfo. */
void sw_mount_find(const char *mountinfo, guint id, SwMount *ret_mount);
gboolean sw_mount_is_nfs3(const SwMount *mount);
void sw_mount_clear(SwMount *mount);

/* Tells `say`, in one sentence each, which mount options of an NFS source weaken what applications may rely on, and how
 * (nfs(5); docs/nfs.md).  The server's export options cannot be seen from here. */
void sw_mount_judge(const SwMount *mount, void (*say)(gpointer data, const char *text), gpointer data);

#endif
