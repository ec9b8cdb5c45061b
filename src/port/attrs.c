/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Attributes, by name or (name "") by descriptor, which may be an O_PATH one.
 *
 * Two things have no call of their own on the oldest kernel we serve: attributes of a name below a descriptor that are
 * reached without following a link (xattrs, chmod), and a look that tells number and identity together.  The first go
 * through /proc/self/fd, the last through a descriptor held for the moment.
 */

#include "posix.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define AT_OBJECT (AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)
#define HANDLE_MAX 128 /* MAX_HANDLE_SZ of the kernel */
#define PATH_SIZE (32 + NAME_MAX + 1)

/* "/proc/self/fd/<fd>" or "/proc/self/fd/<dirfd>/<name>". */
static int object_path(char ret_path[PATH_SIZE], int dirfd, const char *name)
{
    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    (void)snprintf(ret_path, PATH_SIZE, "/proc/self/fd/%d%s%s", dirfd, *name ? "/" : "", name);
    return 0;
}

/* ---- looking */

static int attr_statat(SwPort *port, int dirfd, const char *name, struct stat *ret_st)
{
    struct stat st;

    if (fstatat(dirfd, name, &st, AT_OBJECT) < 0)
        return -errno;
    *ret_st = st;
    return 0;
}

/* `sync`: AT_STATX_FORCE_SYNC or AT_STATX_DONT_SYNC. */
static int stat_with(int dirfd, const char *name, int sync, struct stat *ret_st)
{
    struct statx sx;

    if (statx(dirfd, name, AT_OBJECT | sync, STATX_BASIC_STATS, &sx) < 0)
        return -errno;
    *ret_st = (struct stat){
        .st_dev = makedev(sx.stx_dev_major, sx.stx_dev_minor),
        .st_ino = sx.stx_ino,
        .st_mode = sx.stx_mode,
        .st_nlink = sx.stx_nlink,
        .st_uid = sx.stx_uid,
        .st_gid = sx.stx_gid,
        .st_rdev = makedev(sx.stx_rdev_major, sx.stx_rdev_minor),
        .st_size = (off_t)sx.stx_size,
        .st_blksize = (blksize_t)sx.stx_blksize,
        .st_blocks = (blkcnt_t)sx.stx_blocks,
        .st_atim = {.tv_sec = sx.stx_atime.tv_sec, .tv_nsec = sx.stx_atime.tv_nsec},
        .st_mtim = {.tv_sec = sx.stx_mtime.tv_sec, .tv_nsec = sx.stx_mtime.tv_nsec},
        .st_ctim = {.tv_sec = sx.stx_ctime.tv_sec, .tv_nsec = sx.stx_ctime.tv_nsec},
    };
    return 0;
}

static int attr_stat_fresh(SwPort *port, int dirfd, const char *name, struct stat *ret_st)
{
    return stat_with(dirfd, name, AT_STATX_FORCE_SYNC, ret_st);
}

static int attr_stat_cached(SwPort *port, int dirfd, const char *name, struct stat *ret_st)
{
    return stat_with(dirfd, name, AT_STATX_DONT_SYNC, ret_st);
}

/*
 * An O_PATH descriptor of the object and its attributes.  A path walk of the kernel repeats itself past the caches when
 * it meets a stale handle, a descriptor cannot; so after ESTALE the name is asked for, and then opened once more.
 */
static int open_object(int dirfd, const char *name, struct stat *ret_st)
{
    struct stat ignored;

    for (int i = 0; i < 3; i++) {
        int error, fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0)
            return -errno;
        if (fstat(fd, ret_st) == 0)
            return fd;
        error = errno;
        (void)close(fd);
        if (error != ESTALE)
            return -error;
        (void)fstatat(dirfd, name, &ignored, AT_SYMLINK_NOFOLLOW);
    }
    return -ESTALE;
}

static guint64 mix(guint64 hash, const void *data, size_t size)
{
    const guint8 *bytes = data;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * G_GUINT64_CONSTANT(0x100000001b3);
    return hash;
}

static guint64 mix_birth(guint64 hash, int fd)
{
    struct statx sx;

    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BTIME | STATX_INO, &sx) < 0)
        return hash;
    hash = mix(hash, &sx.stx_ino, sizeof sx.stx_ino);
    if (!(sx.stx_mask & STATX_BTIME))
        return hash;
    hash = mix(hash, &sx.stx_btime.tv_sec, sizeof sx.stx_btime.tv_sec);
    return mix(hash, &sx.stx_btime.tv_nsec, sizeof sx.stx_btime.tv_nsec);
}

/* Which object this is: FNV-1a over the file handle and device, else over birth time, number and device. */
static guint64 object_tag(int fd, dev_t dev)
{
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + HANDLE_MAX];
    } u;
    guint64 hash = mix(G_GUINT64_CONSTANT(0xcbf29ce484222325), &dev, sizeof dev);
    int mount_id;

    u.handle.handle_bytes = HANDLE_MAX;
    if (name_to_handle_at(fd, "", &u.handle, &mount_id, AT_EMPTY_PATH) < 0)
        return mix_birth(hash, fd);
    hash = mix(hash, &u.handle.handle_type, sizeof u.handle.handle_type);
    return mix(hash, u.handle.f_handle, MIN(u.handle.handle_bytes, HANDLE_MAX));
}

static int attr_lookat(SwPort *port, int dirfd, const char *name, SwFound *ret_found)
{
    sw_autofd int opened = -1;
    struct stat st;

    /* Attributes and handle must be of one object, but two calls by name can straddle any number of renames, and no
     * comparison afterwards sees a name that was exchanged twice.  So both are asked of a descriptor. */
    if (*name) {
        opened = open_object(dirfd, name, &st);
        if (opened < 0)
            return opened;
        dirfd = opened;
    } else if (fstatat(dirfd, "", &st, AT_OBJECT) < 0) {
        return -errno;
    }
    ret_found->st = st;
    ret_found->tag = object_tag(dirfd, st.st_dev);
    return 0;
}

static int attr_lookat_cached(SwPort *port, int dirfd, const char *name, SwFound *ret_found)
{
    sw_autofd int opened = -1;
    int r;

    if (*name) {
        opened = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (opened < 0)
            return -errno;
        dirfd = opened;
    }
    r = stat_with(dirfd, "", AT_STATX_DONT_SYNC, &ret_found->st);
    if (r == 0)
        ret_found->tag = object_tag(dirfd, ret_found->st.st_dev);
    return r;
}

static int attr_accessat(SwPort *port, int dirfd, const char *name, int mode)
{
    return sw_result(syscall(SYS_faccessat2, dirfd, name, mode, AT_EACCESS | AT_OBJECT));
}

static int attr_statvfs(SwPort *port, int fd, struct statvfs *ret_st)
{
    struct statvfs st;

    if (TEMP_FAILURE_RETRY(fstatvfs(fd, &st)) < 0)
        return -errno;
    *ret_st = st;
    return 0;
}

static int attr_fs_type(SwPort *port, int fd, guint64 *ret_type)
{
    struct statfs st;

    if (TEMP_FAILURE_RETRY(fstatfs(fd, &st)) < 0)
        return -errno;
    *ret_type = (guint32)st.f_type;
    return 0;
}

/* ---- changing */

static int attr_chmodat(SwPort *port, int dirfd, const char *name, mode_t mode)
{
    sw_autofd int opened = -1;
    char path[PATH_SIZE];
    struct stat st;
    int r;

    if (*name) {
        opened = open_object(dirfd, name, &st);
        if (opened < 0)
            return opened;
        dirfd = opened;
    } else {
        if (fchmod(dirfd, mode) == 0)
            return 0;
        if (errno != EBADF || fstat(dirfd, &st) < 0) /* EBADF may just mean O_PATH */
            return -errno;
    }
    if (S_ISLNK(st.st_mode))
        return -EOPNOTSUPP;
    r = object_path(path, dirfd, "");
    return r < 0 ? r : sw_result(chmod(path, mode));
}

static int attr_chownat(SwPort *port, int dirfd, const char *name, uid_t uid, gid_t gid)
{
    return sw_result(fchownat(dirfd, name, uid, gid, AT_OBJECT));
}

static int attr_utimensat(SwPort *port, int dirfd, const char *name, const struct timespec times[2])
{
    return sw_result(utimensat(dirfd, name, times, AT_OBJECT));
}

/* ---- extended attributes.  With a name, /proc/self/fd/<dirfd> is a directory on the way, and the l-calls keep from
 * following the last component; without one, the magic link is the last component and is what must be followed. */

static ssize_t attr_getxattr(SwPort *port, int dirfd, const char *name, const char *key, void *buf, size_t size)
{
    char path[PATH_SIZE];
    int r = object_path(path, dirfd, name);

    if (r < 0)
        return r;
    return sw_result(*name ? lgetxattr(path, key, buf, size) : getxattr(path, key, buf, size));
}

static ssize_t attr_listxattr(SwPort *port, int dirfd, const char *name, char *buf, size_t size)
{
    char path[PATH_SIZE];
    int r = object_path(path, dirfd, name);

    if (r < 0)
        return r;
    return sw_result(*name ? llistxattr(path, buf, size) : listxattr(path, buf, size));
}

static int attr_setxattr(SwPort *port, int dirfd, const char *name, const char *key, const void *value, size_t size,
                         int flags)
{
    char path[PATH_SIZE];
    int r = object_path(path, dirfd, name);

    if (r < 0)
        return r;
    return sw_result(*name ? lsetxattr(path, key, value, size, flags) : setxattr(path, key, value, size, flags));
}

static int attr_removexattr(SwPort *port, int dirfd, const char *name, const char *key)
{
    char path[PATH_SIZE];
    int r = object_path(path, dirfd, name);

    if (r < 0)
        return r;
    return sw_result(*name ? lremovexattr(path, key) : removexattr(path, key));
}

void sw_attrs_bind(SwPort *port)
{
    port->statat = attr_statat;
    port->stat_fresh = attr_stat_fresh;
    port->stat_cached = attr_stat_cached;
    port->lookat = attr_lookat;
    port->lookat_cached = attr_lookat_cached;
    port->chmodat = attr_chmodat;
    port->chownat = attr_chownat;
    port->utimensat = attr_utimensat;
    port->getxattr = attr_getxattr;
    port->listxattr = attr_listxattr;
    port->setxattr = attr_setxattr;
    port->removexattr = attr_removexattr;
    port->accessat = attr_accessat;
    port->statvfs = attr_statvfs;
    port->fs_type = attr_fs_type;
}
