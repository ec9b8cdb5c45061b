/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Opening, names and data: one system call per member wherever there is one.
 *
 * Calls that only read or write at a given place are repeated after EINTR; calls that change names are not, since a
 * signal may have come after the server did its part, and whoever called has to look (C13).
 */

#include "posix.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#define COPY_CHUNK (256 * 1024)
#define FD_PATH_SIZE 32

static void fd_path(char ret_path[FD_PATH_SIZE], int fd)
{
    (void)snprintf(ret_path, FD_PATH_SIZE, "/proc/self/fd/%d", fd);
}

/* ---- opening */

static int file_openat(SwPort *port, int dirfd, const char *name, int flags, mode_t mode)
{
    flags = (flags & ~SW_O_UNDELEGATED) | O_CLOEXEC | O_NOFOLLOW;
    if (flags & O_CREAT)
        return sw_result(openat(dirfd, name, flags, mode)); /* changes names */
    /* With the mode, for O_TMPFILE. */
    return sw_result(TEMP_FAILURE_RETRY(openat(dirfd, name, flags, mode)));
}

static int file_open_beneath(SwPort *port, int dirfd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (guint)(flags | O_CLOEXEC | O_NOFOLLOW),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd = -1;

    /* EAGAIN: a rename elsewhere kept the kernel from proving that ".." stays below. */
    for (int i = 0; i < 8; i++) {
        fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return sw_result(fd);
}

static int file_reopen(SwPort *port, int fd, int flags)
{
    char path[FD_PATH_SIZE];

    /* O_NOFOLLOW would refuse the magic link; it leads to the very file of `fd`, whatever stands at its name. */
    fd_path(path, fd);
    return sw_result(TEMP_FAILURE_RETRY(open(path, (flags & ~(O_NOFOLLOW | O_CREAT | O_EXCL)) | O_CLOEXEC)));
}

static int file_close(SwPort *port, int fd)
{
    return sw_result(close(fd));
}

/* ---- names */

static int file_mkdirat(SwPort *port, int dirfd, const char *name, mode_t mode)
{
    return sw_result(mkdirat(dirfd, name, mode));
}

static int file_mknodat(SwPort *port, int dirfd, const char *name, mode_t mode, dev_t dev)
{
    return sw_result(mknodat(dirfd, name, mode, dev));
}

static int file_symlinkat(SwPort *port, const char *target, int dirfd, const char *name)
{
    return sw_result(symlinkat(target, dirfd, name));
}

static ssize_t file_readlinkat(SwPort *port, int dirfd, const char *name, char *buf, size_t size)
{
    return sw_result(readlinkat(dirfd, name, buf, size));
}

static int file_linkat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname)
{
    char path[FD_PATH_SIZE];

    if (*oldname)
        return sw_result(linkat(olddir, oldname, newdir, newname, 0));
    /* The file behind the descriptor; AT_EMPTY_PATH would ask for a capability. */
    fd_path(path, olddir);
    return sw_result(linkat(AT_FDCWD, path, newdir, newname, AT_SYMLINK_FOLLOW));
}

static int file_unlinkat(SwPort *port, int dirfd, const char *name, int flags)
{
    return sw_result(unlinkat(dirfd, name, flags));
}

static int file_renameat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    return sw_result(syscall(SYS_renameat2, olddir, oldname, newdir, newname, flags & ~SW_RENAME_OWN));
}

static ssize_t file_getdents(SwPort *port, int fd, void *buf, size_t size)
{
    return sw_result(syscall(SYS_getdents64, fd, buf, size));
}

static int file_seekdir(SwPort *port, int fd, off_t offset)
{
    return lseek(fd, offset, SEEK_SET) < 0 ? -errno : 0;
}

/* ---- data */

static ssize_t file_pread(SwPort *port, int fd, void *buf, size_t size, off_t offset)
{
    return sw_result(TEMP_FAILURE_RETRY(pread(fd, buf, size, offset)));
}

static ssize_t file_pwrite(SwPort *port, int fd, const void *buf, size_t size, off_t offset)
{
    return sw_result(TEMP_FAILURE_RETRY(pwrite(fd, buf, size, offset)));
}

static int file_ftruncate(SwPort *port, int fd, off_t size)
{
    return sw_result(TEMP_FAILURE_RETRY(ftruncate(fd, size)));
}

static int file_fallocate(SwPort *port, int fd, int mode, off_t offset, off_t length)
{
    return sw_result(TEMP_FAILURE_RETRY(fallocate(fd, mode, offset, length)));
}

static off_t file_lseek(SwPort *port, int fd, off_t offset, int whence)
{
    off_t result = lseek(fd, offset, whence);

    return result < 0 ? -errno : result;
}

/* There is one cache, and everybody writes through it. */
static void file_read_anew(SwPort *port, int fd)
{
    (void)port;
    (void)fd;
}

static int file_fsync(SwPort *port, int fd, gboolean data_only)
{
    return sw_result(TEMP_FAILURE_RETRY(data_only ? fdatasync(fd) : fsync(fd)));
}

static int file_clone(SwPort *port, int from, int to)
{
    if (TEMP_FAILURE_RETRY(ioctl(to, FICLONE, from)) == 0)
        return 0;
    /* Three more ways in which file systems say that they do not know how. */
    if (errno == ENOTTY || errno == EINVAL || errno == ENOSYS)
        return -EOPNOTSUPP;
    return -errno;
}

static ssize_t copy_by_hand(SwPort *port, int from, off_t from_offset, int to, off_t to_offset, size_t size)
{
    g_autofree char *buf = NULL;
    ssize_t got;
    int r;

    size = MIN(size, COPY_CHUNK);
    buf = g_malloc(size);
    got = file_pread(port, from, buf, size, from_offset);
    if (got <= 0)
        return got;
    r = sw_port_write_all(port, to, buf, got, to_offset);
    return r < 0 ? r : got;
}

static gboolean cannot_copy_in_kernel(int error)
{
    return error == EXDEV || error == EINVAL || error == EOPNOTSUPP || error == ENOSYS;
}

static ssize_t file_copy_range(SwPort *port, int from, off_t from_offset, int to, off_t to_offset, size_t size)
{
    off_t in = from_offset, out = to_offset;
    ssize_t copied;

    if (size == 0)
        return 0;
    copied = TEMP_FAILURE_RETRY(copy_file_range(from, &in, to, &out, size, 0));
    if (copied > 0)
        return copied;
    if (copied < 0 && !cannot_copy_in_kernel(errno))
        return -errno;
    /* A 0 is not believed either: some file systems answer it without having looked. */
    return copy_by_hand(port, from, from_offset, to, to_offset, size);
}

static int file_try_flock(SwPort *port, int fd)
{
    return sw_result(TEMP_FAILURE_RETRY(flock(fd, LOCK_EX | LOCK_NB)));
}

static int file_ofd_lock(SwPort *port, int fd, int command, struct flock *lock)
{
    int r = (int)sw_result(TEMP_FAILURE_RETRY(fcntl(fd, command, lock)));

    return r == -EACCES ? -EAGAIN : r;
}

static void bind_names(SwPort *port)
{
    port->openat = file_openat;
    port->open_beneath = file_open_beneath;
    port->reopen = file_reopen;
    port->close = file_close;
    port->mkdirat = file_mkdirat;
    port->mknodat = file_mknodat;
    port->symlinkat = file_symlinkat;
    port->readlinkat = file_readlinkat;
    port->linkat = file_linkat;
    port->unlinkat = file_unlinkat;
    port->renameat = file_renameat;
    port->getdents = file_getdents;
    port->seekdir = file_seekdir;
}

void sw_files_bind(SwPort *port)
{
    bind_names(port);
    port->pread = file_pread;
    port->pwrite = file_pwrite;
    port->ftruncate = file_ftruncate;
    port->fallocate = file_fallocate;
    port->lseek = file_lseek;
    port->fsync = file_fsync;
    port->read_anew = file_read_anew;
    port->clone = file_clone;
    port->copy_range = file_copy_range;
    port->try_flock = file_try_flock;
    port->ofd_lock = file_ofd_lock;
}
