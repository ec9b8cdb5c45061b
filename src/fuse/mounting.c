/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mounting.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define DYING_MS_MAX 2000

#ifndef MOVE_MOUNT_BENEATH
#define MOVE_MOUNT_BENEATH 0x200
#endif

gboolean sw_mounting_is_dead(const char *mountpoint)
{
    /* An io_uring ends some milliseconds later than its process; who asks meanwhile is told so. */
    for (guint i = 0; i < DYING_MS_MAX; i++) {
        struct statx stx;

        if (statx(AT_FDCWD, mountpoint, AT_NO_AUTOMOUNT | AT_STATX_FORCE_SYNC, STATX_MODE, &stx) == 0)
            return FALSE;
        if (errno != ECANCELED && errno != ECONNABORTED)
            return errno == ENOTCONN;
        g_usleep(1000);
    }
    return FALSE;
}

int sw_mounting_detach(const char *mountpoint)
{
    const char *argv[] = {"fusermount3", "-u", "-z", "--", mountpoint, NULL};
    int status = -1;

    if (umount2(mountpoint, MNT_DETACH) == 0)
        return 0;
    if (geteuid() == 0)
        return -errno;
    gboolean spawned = g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL,
                                    NULL, NULL, NULL, &status, NULL);
    return spawned && status == 0 ? 0 : -ENOTCONN;
}

int sw_mounting_clear_dead(const char *mountpoint)
{
    int r = 0;

    while (r == 0 && sw_mounting_is_dead(mountpoint))
        r = sw_mounting_detach(mountpoint);
    return r;
}

/* What mount(8) calls options are three things to fsmount(2): attributes of the mount, flags and strings of the file
 * system.  The words are those of the option table. */
static const struct {
    const char *name;
    guint set, clear; /* attributes */
    const char *flag; /* of the file system */
} words[] = {
    {"ro", MOUNT_ATTR_RDONLY, 0, "ro"},
    {"suid", 0, MOUNT_ATTR_NOSUID, NULL},
    {"nosuid", MOUNT_ATTR_NOSUID, 0, NULL},
    {"dev", 0, MOUNT_ATTR_NODEV, NULL},
    {"nodev", MOUNT_ATTR_NODEV, 0, NULL},
    {"exec", 0, MOUNT_ATTR_NOEXEC, NULL},
    {"noexec", MOUNT_ATTR_NOEXEC, 0, NULL},
    {"noatime", MOUNT_ATTR_NOATIME, 0, NULL},
    {"sync", 0, 0, "sync"},
    {"async", 0, 0, "async"},
    {"dirsync", 0, 0, "dirsync"},
};

static int set_text(int context, const char *key, const char *value)
{
    return fsconfig(context, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

static int set_flag(int context, const char *key)
{
    return fsconfig(context, FSCONFIG_SET_FLAG, key, NULL, 0) < 0 ? -errno : 0;
}

/* A label.  The quotes are for lists of options, where a label with a comma needs them. */
static int set_label(int context, const char *option)
{
    const char *equals = strchr(option, '=');
    g_autofree char *key = NULL, *value = NULL;

    if (!equals)
        return -EINVAL;
    key = g_strndup(option, equals - option);
    value = g_strdup(equals[1] == '"' ? equals + 2 : equals + 1);
    if (equals[1] == '"' && g_str_has_suffix(value, "\""))
        value[strlen(value) - 1] = '\0';
    return set_text(context, key, value);
}

static int set_option(int context, const char *option, guint *attributes)
{
    for (guint i = 0; i < G_N_ELEMENTS(words); i++) {
        if (strcmp(words[i].name, option) != 0)
            continue;
        *attributes = (*attributes & ~words[i].clear) | words[i].set;
        return words[i].flag ? set_flag(context, words[i].flag) : 0;
    }
    return set_label(context, option);
}

/* As libfuse mounts for root. */
static int configure(int context, int device, const SwMounting *mounting, guint *attributes)
{
    g_autofree char *fd = g_strdup_printf("%d", device);
    const char *const texts[][2] = {
        {"source", mounting->source}, {"subtype", "safewritefs"}, {"fd", fd},
        {"rootmode", "40000"},        {"user_id", "0"},           {"group_id", "0"},
    };
    static const char *const flags[] = {"allow_other", "default_permissions"};
    int r = 0;

    *attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    for (guint i = 0; r == 0 && i < G_N_ELEMENTS(texts); i++)
        r = set_text(context, texts[i][0], texts[i][1]);
    for (guint i = 0; r == 0 && i < G_N_ELEMENTS(flags); i++)
        r = set_flag(context, flags[i]);
    for (guint i = 0; r == 0 && i < mounting->options->len; i++)
        r = set_option(context, mounting->options->pdata[i], attributes);
    return r;
}

/* A mount that has no place yet: its descriptor. */
static int make_mount(int device, const SwMounting *mounting)
{
    int context = fsopen("fuse", FSOPEN_CLOEXEC), mount, r;
    guint attributes;

    if (context < 0)
        return -errno;
    r = configure(context, device, mounting, &attributes);
    if (r == 0 && fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        r = -errno;
    if (r == 0) {
        mount = fsmount(context, FSMOUNT_CLOEXEC, attributes);
        r = mount < 0 ? -errno : mount;
    }
    close(context);
    return r;
}

static int put_in_place(int mount, const char *mountpoint, gboolean *ret_covers_dead)
{
    *ret_covers_dead = FALSE;
    if (move_mount(mount, "", AT_FDCWD, mountpoint, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH) == 0)
        return umount2(mountpoint, MNT_DETACH) < 0 ? -errno : 0;
    if (move_mount(mount, "", AT_FDCWD, mountpoint, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -errno;
    *ret_covers_dead = TRUE;
    return 0;
}

int sw_mounting_replace_dead(const SwMounting *mounting, int *ret_fd, gboolean *ret_covers_dead, char **ret_why)
{
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC), mount = -1;
    int r = device < 0 ? -errno : 0;

    if (r == 0) {
        mount = make_mount(device, mounting);
        r = mount < 0 ? mount : put_in_place(mount, mounting->mountpoint, ret_covers_dead);
    }
    if (mount >= 0)
        close(mount);
    if (r == 0) {
        *ret_fd = device;
        return 0;
    }
    *ret_why =
        g_strdup_printf("cannot mount in the place of the dead mount at %s: %s", mounting->mountpoint, g_strerror(-r));
    if (device >= 0)
        close(device);
    return r;
}
