/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "aside.h"

#include "posix.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#define OPEN_DIR (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
/* Longer than a tick of any server's clock, by which the first mount tells that a directory has changed. */
#define TICK_US 12000
#define NUDGES 3

struct SwAside {
    const SwMount *mount;
    SwPort plain;
    pthread_mutex_t lock;
    gboolean tried; /* protected by lock */
    gint root;      /* atomic: of the second mount; -1 while there is none */
};

SwAside *sw_aside_new(const SwMount *mount, const SwPort *plain)
{
    SwAside *aside = g_new0(SwAside, 1);

    aside->mount = mount;
    aside->plain = *plain;
    aside->root = -1;
    (void)pthread_mutex_init(&aside->lock, NULL);
    return aside;
}

void sw_aside_free(SwAside *aside)
{
    if (!aside)
        return;
    if (aside->root >= 0)
        (void)close(aside->root);
    (void)pthread_mutex_destroy(&aside->lock);
    g_free(aside);
}

/* ---- making it */

static int configure(int context, guint command, const char *key, const char *value)
{
    return syscall(SYS_fsconfig, context, command, key, value, 0) < 0 ? -errno : 0;
}

/* One of "rw", "vers=3". */
static int set_option(int context, const char *option)
{
    const char *value = strchr(option, '=');
    g_autofree char *key = value ? g_strndup(option, value - option) : NULL;

    return value ? configure(context, FSCONFIG_SET_STRING, key, value + 1)
                 : configure(context, FSCONFIG_SET_FLAG, option, NULL);
}

/* The options are those that the kernel shows of the first mount: addresses, not names, for nobody resolves them here.
 * `ported`: the port of the mount service as well, which may have changed since. */
static int set_options(int context, const SwMount *mount, gboolean ported, const char **ret_at)
{
    g_auto(GStrv) options = g_strsplit(mount->options, ",", 0);
    int r = configure(context, FSCONFIG_SET_STRING, "source", mount->source);

    for (guint i = 0; r == 0 && options[i]; i++) {
        *ret_at = g_intern_string(options[i]);
        if (ported || !g_str_has_prefix(options[i], "mountport="))
            r = set_option(context, options[i]);
    }
    if (r == 0) {
        *ret_at = "nosharecache";
        r = set_option(context, *ret_at);
    }
    if (r == 0) {
        *ret_at = "all of them";
        r = configure(context, FSCONFIG_CMD_CREATE, NULL, NULL);
    }
    return r;
}

static int make_once(const SwMount *mount, gboolean ported, const char **ret_at)
{
    sw_autofd int context = (int)syscall(SYS_fsopen, mount->type, FSOPEN_CLOEXEC);
    int r, root;

    if (context < 0)
        return -errno;
    r = set_options(context, mount, ported, ret_at);
    if (r < 0)
        return r;
    root = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    return root < 0 ? -errno : root;
}

static int make(const SwMount *mount, char **ret_why)
{
    const char *at = "none";
    SwCredSaved saved;
    int r = sw_cred_suspend(&saved);

    if (r == 0) {
        r = make_once(mount, TRUE, &at);
        if (r < 0 && r != -EPERM)
            r = make_once(mount, FALSE, &at);
        sw_cred_resume(&saved);
    }
    if (r < 0)
        *ret_why = g_strdup_printf("cannot mount %s a second time (%s, options: %s): while a program here has a file "
                                   "open, other machines can miss its name for a moment when it is replaced",
                                   mount->source, g_strerror(-r), at);
    return r;
}

static int root_of(SwAside *aside, char **ret_why)
{
    int root = g_atomic_int_get(&aside->root);

    if (root >= 0)
        return root;
    (void)pthread_mutex_lock(&aside->lock);
    if (!aside->tried) {
        aside->tried = TRUE;
        root = make(aside->mount, ret_why);
        g_atomic_int_set(&aside->root, root);
    }
    root = g_atomic_int_get(&aside->root);
    (void)pthread_mutex_unlock(&aside->lock);
    return root < 0 ? -ENOTSUP : root;
}

/* ---- the same directory, in the second mount */

static gboolean same_directory(int a, int b)
{
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } one = {.handle = {.handle_bytes = MAX_HANDLE_SZ}}, two = one;
    int mount;

    return name_to_handle_at(a, "", &one.handle, &mount, AT_EMPTY_PATH) == 0 &&
           name_to_handle_at(b, "", &two.handle, &mount, AT_EMPTY_PATH) == 0 &&
           one.handle.handle_bytes == two.handle.handle_bytes &&
           memcmp(one.handle.f_handle, two.handle.f_handle, one.handle.handle_bytes) == 0;
}

/* Where the descriptor's directory is below the root of the mount. */
static int path_in_mount(const SwMount *mount, int fd, char ret_path[PATH_MAX])
{
    char link[32], path[PATH_MAX];
    size_t length = strcmp(mount->point, "/") == 0 ? 0 : strlen(mount->point);
    ssize_t got;

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    got = readlink(link, path, sizeof path - 1);
    if (got < 0)
        return -errno;
    path[got] = '\0';
    if (strncmp(path, mount->point, length) != 0 || (path[length] != '/' && path[length] != '\0'))
        return -ENOENT;
    if (snprintf(ret_path, PATH_MAX, "%s%s", mount->root, path + length) >= PATH_MAX)
        return -ENAMETOOLONG;
    return 0;
}

/* Step by step, for a directory that other hosts have replaced may be cached here: `fresh`, each is asked for. */
static int walk(SwAside *aside, int root, const char *path, gboolean fresh)
{
    g_auto(GStrv) names = g_strsplit(path, "/", 0);
    struct stat st;
    int fd = openat(root, ".", OPEN_DIR);

    for (guint i = 0; fd >= 0 && names[i]; i++) {
        int next;

        if (!*names[i])
            continue;
        if (fresh)
            (void)aside->plain.stat_fresh(&aside->plain, fd, "", &st);
        next = openat(fd, names[i], OPEN_DIR);
        (void)close(fd);
        fd = next;
    }
    return fd;
}

/* As the daemon, for a caller need not be able to go the whole way. */
static int open_there(SwAside *aside, int root, int fd)
{
    char path[PATH_MAX];
    SwCredSaved saved;
    int there = -1;
    int r = path_in_mount(aside->mount, fd, path);

    if (r == 0)
        r = sw_cred_suspend(&saved);
    if (r < 0)
        return r;
    for (guint fresh = 0; fresh < 2 && there < 0; fresh++) {
        there = walk(aside, root, path, fresh);
        if (there >= 0 && !same_directory(fd, there)) {
            (void)close(there);
            there = -1;
        }
    }
    sw_cred_resume(&saved);
    return there < 0 ? -ESTALE : there;
}

/* ---- renaming */

static gboolean still_there(SwPort *plain, int dirfd, const char *name, ino_t replaced)
{
    struct stat st;
    int r;

    if (!replaced || plain->stat_fresh(plain, dirfd, "", &st) < 0)
        return FALSE;
    r = plain->statat(plain, dirfd, name, &st);
    return r == -ESTALE || (r == 0 && st.st_ino == replaced);
}

/*
 * The first mount tells by the times of a directory whether its names may have changed.  If it has asked for them since
 * the last change, and that was within the same tick of the server's clock, it believes the old name; then the
 * directory is changed once more.
 */
static void tell_first_mount(SwAside *aside, int newdir, const char *newname, int there, ino_t replaced)
{
    SwPort *plain = &aside->plain;
    g_autofree char *name = g_strdup_printf(".safewritefs-tick-%d-%s", (int)getpid(), newname);

    if (!still_there(plain, newdir, newname, replaced))
        return;
    sw_nfs_give_delegation_back(newdir, newname);
    name[MIN(strlen(name), NAME_MAX)] = '\0';
    for (guint i = 0; i < NUDGES && still_there(plain, newdir, newname, replaced); i++) {
        plain->sleep_us(plain, TICK_US);
        if (plain->mkdirat(plain, there, name, 0700) == 0)
            (void)plain->unlinkat(plain, there, name, AT_REMOVEDIR);
    }
}

int sw_aside_rename(SwAside *aside, int olddir, const char *oldname, int newdir, const char *newname, char **ret_why)
{
    SwPort *plain = &aside->plain;
    int root = root_of(aside, ret_why);
    sw_autofd int old_there = root < 0 ? -1 : open_there(aside, root, olddir);
    sw_autofd int new_there = old_there < 0 ? -1 : open_there(aside, root, newdir);
    struct stat st;
    int r;

    if (new_there < 0 || plain->statat(plain, newdir, newname, &st) < 0)
        return -ENOTSUP;
    r = plain->renameat(plain, old_there, oldname, new_there, newname, 0);
    (void)plain->stat_fresh(plain, olddir, "", &(struct stat){0});
    tell_first_mount(aside, newdir, newname, new_there, r == 0 ? st.st_ino : 0);
    return r;
}
