/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "source_mount.h"

#include "../port/mount.h"

static void doubt(gpointer data, const char *text)
{
    g_ptr_array_add(data, g_strdup(text));
}

void sw_source_mount_find(int fd, SwSourceMount *ret_mount)
{
    SwMount mount;

    sw_mount_of(fd, &mount);
    *ret_mount = (SwSourceMount){.type = g_strdup(mount.type), .options = g_strdup(mount.options)};
    ret_mount->doubts = g_ptr_array_new_with_free_func(g_free);
    if (mount.type) {
        ret_mount->is_nfs3 = sw_mount_is_nfs3(&mount);
        if (g_str_has_prefix(mount.type, "nfs"))
            sw_mount_judge(&mount, doubt, ret_mount->doubts);
    }
    sw_mount_clear(&mount);
}

void sw_source_mount_clear(SwSourceMount *mount)
{
    g_free(mount->type);
    g_free(mount->options);
    g_ptr_array_unref(mount->doubts);
}
