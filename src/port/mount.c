/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mount.h"

#include <stdio.h>
#include <string.h>

void sw_mount_clear(SwMount *mount)
{
    g_free(mount->root);
    g_free(mount->point);
    g_free(mount->type);
    g_free(mount->source);
    g_free(mount->options);
    *mount = (SwMount){0};
}

/* "38 28 0:32 / /mnt rw,relatime shared:1 - nfs server:/export rw,vers=3": some optional fields, then a dash.  Spaces
 * and the like in a field are octal escapes. */
static gboolean parse_row(const char *line, guint id, SwMount *ret_mount)
{
    g_auto(GStrv) words = g_strsplit(line, " ", 0);
    guint n = g_strv_length(words), dash = 6;

    if (n < 7 || g_ascii_strtoull(words[0], NULL, 10) != id)
        return FALSE;
    while (dash < n && strcmp(words[dash], "-") != 0)
        dash++;
    if (dash + 3 >= n)
        return FALSE;
    *ret_mount = (SwMount){.root = g_strcompress(words[3]),
                           .point = g_strcompress(words[4]),
                           .type = g_strcompress(words[dash + 1]),
                           .source = g_strcompress(words[dash + 2]),
                           .options = g_strcompress(words[dash + 3])};
    return TRUE;
}

void sw_mount_find(const char *mountinfo, guint id, SwMount *ret_mount)
{
    g_auto(GStrv) lines = g_strsplit(mountinfo, "\n", 0);

    *ret_mount = (SwMount){0};
    for (guint i = 0; lines[i]; i++)
        if (parse_row(lines[i], id, ret_mount))
            return;
}

void sw_mount_of(int fd, SwMount *ret_mount)
{
    char path[48];
    g_autofree char *info = NULL, *mounts = NULL;
    const char *id;

    *ret_mount = (SwMount){0};
    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    if (!g_file_get_contents(path, &info, NULL, NULL) ||
        !g_file_get_contents("/proc/self/mountinfo", &mounts, NULL, NULL))
        return;
    id = strstr(info, "mnt_id:");
    if (id)
        sw_mount_find(mounts, (guint)g_ascii_strtoull(id + strlen("mnt_id:"), NULL, 10), ret_mount);
}

/* nfs(5), as nfs_show_mount_options() of fs/nfs/super.c writes them.  `nolock` is shown as local_lock=all besides. */
static const struct {
    const char *option, *what;
} doubts[] = {
    {"soft", "calls fail when the server is slow, and may be carried out all the same: use hard"},
    {"softerr", "calls fail when the server is slow, and may be carried out all the same: use hard"},
    {"softreval", "while the server is silent, names are believed as they were: use nosoftreval"},
    {"nocto", "a file that another host appends to or changes under its lock may be read as it was: use cto"},
    {"local_lock=all", "flock and fcntl locks exclude programs of this machine only"},
    {"local_lock=flock", "flock locks exclude programs of this machine only"},
    {"local_lock=posix", "fcntl locks exclude programs of this machine only"},
};

void sw_mount_judge(const SwMount *mount, void (*say)(gpointer data, const char *text), gpointer data)
{
    g_auto(GStrv) options = mount->options ? g_strsplit(mount->options, ",", 0) : NULL;

    for (guint i = 0; options && i < G_N_ELEMENTS(doubts); i++) {
        if (!g_strv_contains((const char *const *)options, doubts[i].option))
            continue;
        g_autofree char *text = g_strdup_printf("the source's NFS mount %s has the option %s: %s", mount->point,
                                                doubts[i].option, doubts[i].what);
        say(data, text);
    }
}

gboolean sw_mount_is_nfs3(const SwMount *mount)
{
    g_auto(GStrv) options = mount->options ? g_strsplit(mount->options, ",", 0) : NULL;

    return options && strcmp(mount->type, "nfs") == 0 && g_strv_contains((const char *const *)options, "vers=3");
}
