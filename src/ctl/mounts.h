/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_MOUNTS_H
#define SW_MOUNTS_H

/* The safewritefs mounts of this machine, as /proc/self/mountinfo has them.  No mount is asked: one may not answer. */

#include <glib.h>

typedef struct {
    char *mountpoint;
    char *source;
    char *options; /* as the kernel shows them */
    gboolean top;  /* nothing is mounted over it at the same place */
} SwMount;

/* All of them, in the order they were mounted (the array frees them); NULL: mountinfo cannot be read. */
GPtrArray *sw_mounts_list(void);
/* The one that is on top at that place, or NULL; `path` has to be a real path. */
const SwMount *sw_mounts_at(GPtrArray *mounts, const char *path);
/* The one that `path`, a real path, is in or at; *ret_rest (not owned) is what is below it, "" at its top. */
const SwMount *sw_mounts_over(GPtrArray *mounts, const char *path, const char **ret_rest);

/*
 * The locks that a mount tells of in `key` of its top directory; "" where there is no such attribute.  Asked in another
 * process, with 3 s to answer: -ETIMEDOUT for a mount whose daemon stands still, which must not hang whoever looks.
 */
int sw_mount_attribute(const char *mountpoint, const char *key, char **ret_text) G_GNUC_WARN_UNUSED_RESULT;
/* A request to the daemon of a mount (core/ask.h), in the same way; `mountpoint` is its top. */
int sw_mount_ask(const char *mountpoint, const char *request, char **ret_answer) G_GNUC_WARN_UNUSED_RESULT;

#endif
