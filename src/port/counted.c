/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Calls of the source's file system, counted and timed: the real port's members, each as before with a clock around. */

#include "posix.h"

#define COUNTED(type, member, timer, parameters, arguments)                                                            \
    static type counted_##member parameters                                                                            \
    {                                                                                                                  \
        gint64 began_us = port->now_us(port);                                                                          \
        type r = port->uncounted->member arguments;                                                                    \
                                                                                                                       \
        sw_metrics_time(port->metrics, timer, port->now_us(port) - began_us);                                          \
        return r;                                                                                                      \
    }

COUNTED(int, openat, SW_TIMER_CALL_OPEN, (SwPort * port, int dirfd, const char *name, int flags, mode_t mode),
        (port, dirfd, name, flags, mode))
COUNTED(int, open_beneath, SW_TIMER_CALL_OPEN, (SwPort * port, int dirfd, const char *path, int flags),
        (port, dirfd, path, flags))
COUNTED(int, reopen, SW_TIMER_CALL_OPEN, (SwPort * port, int fd, int flags), (port, fd, flags))
COUNTED(int, close, SW_TIMER_CALL_CLOSE, (SwPort * port, int fd), (port, fd))
COUNTED(int, statat, SW_TIMER_CALL_STAT, (SwPort * port, int dirfd, const char *name, struct stat *st),
        (port, dirfd, name, st))
COUNTED(int, stat_fresh, SW_TIMER_CALL_STAT, (SwPort * port, int dirfd, const char *name, struct stat *st),
        (port, dirfd, name, st))
COUNTED(int, stat_cached, SW_TIMER_CALL_STAT, (SwPort * port, int dirfd, const char *name, struct stat *st),
        (port, dirfd, name, st))
COUNTED(int, lookat, SW_TIMER_CALL_STAT, (SwPort * port, int dirfd, const char *name, SwFound *found),
        (port, dirfd, name, found))
COUNTED(int, lookat_cached, SW_TIMER_CALL_STAT, (SwPort * port, int dirfd, const char *name, SwFound *found),
        (port, dirfd, name, found))
COUNTED(int, accessat, SW_TIMER_CALL_STAT, (SwPort * port, int dirfd, const char *name, int mode),
        (port, dirfd, name, mode))
COUNTED(int, chmodat, SW_TIMER_CALL_SETATTR, (SwPort * port, int dirfd, const char *name, mode_t mode),
        (port, dirfd, name, mode))
COUNTED(int, chownat, SW_TIMER_CALL_SETATTR, (SwPort * port, int dirfd, const char *name, uid_t uid, gid_t gid),
        (port, dirfd, name, uid, gid))
COUNTED(int, utimensat, SW_TIMER_CALL_SETATTR,
        (SwPort * port, int dirfd, const char *name, const struct timespec times[2]), (port, dirfd, name, times))
COUNTED(int, ftruncate, SW_TIMER_CALL_SETATTR, (SwPort * port, int fd, off_t size), (port, fd, size))
COUNTED(ssize_t, getxattr, SW_TIMER_CALL_XATTR,
        (SwPort * port, int dirfd, const char *name, const char *key, void *buf, size_t size),
        (port, dirfd, name, key, buf, size))
COUNTED(ssize_t, listxattr, SW_TIMER_CALL_XATTR, (SwPort * port, int dirfd, const char *name, char *buf, size_t size),
        (port, dirfd, name, buf, size))
COUNTED(int, setxattr, SW_TIMER_CALL_XATTR,
        (SwPort * port, int dirfd, const char *name, const char *key, const void *value, size_t size, int flags),
        (port, dirfd, name, key, value, size, flags))
COUNTED(int, removexattr, SW_TIMER_CALL_XATTR, (SwPort * port, int dirfd, const char *name, const char *key),
        (port, dirfd, name, key))
COUNTED(int, statvfs, SW_TIMER_CALL_STATFS, (SwPort * port, int fd, struct statvfs *st), (port, fd, st))
COUNTED(int, mkdirat, SW_TIMER_CALL_MAKE, (SwPort * port, int dirfd, const char *name, mode_t mode),
        (port, dirfd, name, mode))
COUNTED(int, mknodat, SW_TIMER_CALL_MAKE, (SwPort * port, int dirfd, const char *name, mode_t mode, dev_t dev),
        (port, dirfd, name, mode, dev))
COUNTED(int, symlinkat, SW_TIMER_CALL_MAKE, (SwPort * port, const char *target, int dirfd, const char *name),
        (port, target, dirfd, name))
COUNTED(ssize_t, readlinkat, SW_TIMER_CALL_READLINK,
        (SwPort * port, int dirfd, const char *name, char *buf, size_t size), (port, dirfd, name, buf, size))
COUNTED(int, linkat, SW_TIMER_CALL_LINK,
        (SwPort * port, int olddir, const char *oldname, int newdir, const char *newname),
        (port, olddir, oldname, newdir, newname))
COUNTED(int, unlinkat, SW_TIMER_CALL_UNLINK, (SwPort * port, int dirfd, const char *name, int flags),
        (port, dirfd, name, flags))
COUNTED(int, renameat, SW_TIMER_CALL_RENAME,
        (SwPort * port, int olddir, const char *oldname, int newdir, const char *newname, guint flags),
        (port, olddir, oldname, newdir, newname, flags))
COUNTED(ssize_t, getdents, SW_TIMER_CALL_READDIR, (SwPort * port, int fd, void *buf, size_t size),
        (port, fd, buf, size))
COUNTED(ssize_t, pread, SW_TIMER_CALL_READ, (SwPort * port, int fd, void *buf, size_t size, off_t offset),
        (port, fd, buf, size, offset))
COUNTED(ssize_t, pwrite, SW_TIMER_CALL_WRITE, (SwPort * port, int fd, const void *buf, size_t size, off_t offset),
        (port, fd, buf, size, offset))
COUNTED(int, fallocate, SW_TIMER_CALL_ALLOCATE, (SwPort * port, int fd, int mode, off_t offset, off_t length),
        (port, fd, mode, offset, length))
COUNTED(int, fsync, SW_TIMER_CALL_SYNC, (SwPort * port, int fd, gboolean data_only), (port, fd, data_only))
COUNTED(int, clone, SW_TIMER_CALL_COPY, (SwPort * port, int from, int to), (port, from, to))
COUNTED(ssize_t, copy_range, SW_TIMER_CALL_COPY,
        (SwPort * port, int from, off_t from_offset, int to, off_t to_offset, size_t size),
        (port, from, from_offset, to, to_offset, size))
COUNTED(int, try_flock, SW_TIMER_CALL_LOCK, (SwPort * port, int fd), (port, fd))
COUNTED(int, ofd_lock, SW_TIMER_CALL_LOCK, (SwPort * port, int fd, int command, struct flock *lock),
        (port, fd, command, lock))

static void bind_names(SwPort *port)
{
    port->openat = counted_openat;
    port->open_beneath = counted_open_beneath;
    port->statat = counted_statat;
    port->stat_fresh = counted_stat_fresh;
    port->stat_cached = counted_stat_cached;
    port->lookat = counted_lookat;
    port->lookat_cached = counted_lookat_cached;
    port->accessat = counted_accessat;
    port->chmodat = counted_chmodat;
    port->chownat = counted_chownat;
    port->utimensat = counted_utimensat;
    port->getxattr = counted_getxattr;
    port->listxattr = counted_listxattr;
    port->setxattr = counted_setxattr;
    port->removexattr = counted_removexattr;
    port->mkdirat = counted_mkdirat;
    port->mknodat = counted_mknodat;
    port->symlinkat = counted_symlinkat;
    port->readlinkat = counted_readlinkat;
    port->linkat = counted_linkat;
    port->unlinkat = counted_unlinkat;
    port->renameat = counted_renameat;
}

static void bind_data(SwPort *port)
{
    port->reopen = counted_reopen;
    port->close = counted_close;
    port->ftruncate = counted_ftruncate;
    port->statvfs = counted_statvfs;
    port->getdents = counted_getdents;
    port->pread = counted_pread;
    port->pwrite = counted_pwrite;
    port->fallocate = counted_fallocate;
    port->fsync = counted_fsync;
    port->clone = counted_clone;
    port->copy_range = counted_copy_range;
    port->try_flock = counted_try_flock;
    port->ofd_lock = counted_ofd_lock;
}

void sw_port_posix_count(SwPort *port, SwMetrics *metrics)
{
    SwPosix *posix = (SwPosix *)port;

    port->metrics = metrics;
    posix->uncounted = *port;
    port->uncounted = &posix->uncounted;
    bind_names(port);
    bind_data(port);
}
