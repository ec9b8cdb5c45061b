/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_MOUNTING_H
#define SW_FUSE_MOUNTING_H

/*
 * Dead mounts, those whose daemon is gone ("Transport endpoint is not connected"), and what is put in their place.
 *
 * Between the umount(2) of a dead mount and the next mount(2) programs would see, and write into, the directory
 * underneath.  That was measured: 0.2 ms at best, 6 ms on a busy machine.  So for root the new mount is put beneath the
 * dead one, which is then taken away and shows it (MOVE_MOUNT_BENEATH, Linux 6.5).  Older kernels get it on top, which
 * works as well, since the kernel looks up the root of a dead mount without asking anybody; the dead one then stays
 * covered until the mount on it ends.  Either way a program meets the old error or the new mount, and nothing else.
 *
 * An ordinary user mounts by fusermount3, which can do neither, and a container may refuse fsopen(2) and its like.
 */

#include <glib.h>

typedef struct {
    const char *source;
    const char *mountpoint;
    const GPtrArray *options; /* SwOptions.mount_options */
} SwMounting;

/* Asks the file system itself, not what the kernel remembers of it, and starts no automount. */
gboolean sw_mounting_is_dead(const char *mountpoint);

/* Unmounts, also what is in use; an ordinary user by fusermount3.  0 or -errno. */
int sw_mounting_detach(const char *mountpoint);

/* Takes all dead mounts off `mountpoint`.  0 also when there is none, else -errno. */
int sw_mounting_clear_dead(const char *mountpoint) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Mounts in the place of the dead one at `mountpoint`; for root.  *ret_fd is the open /dev/fuse that serves the mount,
 * *ret_covers_dead says that sw_mounting_clear_dead() is due when the new mount has ended.  On failure (-errno, a
 * sentence in *ret_why) the dead mount is still there; -ENOSYS and -EPERM say that there is no other way than to clear
 * it.
 */
int sw_mounting_replace_dead(const SwMounting *mounting, int *ret_fd, gboolean *ret_covers_dead,
                             char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

#endif
