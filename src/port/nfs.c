/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Calls by name on NFS, for the Linux client has two habits that its users are not to meet.
 *
 * It renames or removes a file whose dentry anybody on this machine uses, be it only for one stat(2) under way, by
 * giving it a name like .nfs0001 first (fs/nfs/dir.c, nfs_rename, nfs_unlink): for that time the name is missing, and
 * other hosts believe that for long (FACTS F9).  So nobody here looks at a name while it is renamed over or removed
 * (names are told apart by a hash of directory and name: two that share it wait for each other for one call), and what
 * replaces a file that is open takes another way (over_open.h).
 *
 * A call that needs several steps on the server gets ESTALE when the file is replaced between them, and the kernel
 * tries it once more only.  Here it is tried again as long as its directory is there.
 */

#include "posix.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>

#define STALE_TRIES 16
#define STALE_BELIEVED 4 /* so many in a row are no coincidence */

void sw_nfs_give_delegation_back(int dirfd, const char *name)
{
    sw_autofd int fd = openat(dirfd, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    (void)fd;
}

static void guards_init(SwPosix *posix)
{
    pthread_rwlockattr_t attr;

    (void)pthread_rwlockattr_init(&attr);
    /* Readers that follow each other closely are not to keep a rename waiting for ever. */
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    for (guint i = 0; i < SW_NAME_GUARDS; i++)
        (void)pthread_rwlock_init(&posix->guards[i], &attr);
    (void)pthread_rwlockattr_destroy(&attr);
}

void sw_nfs_clear(SwPosix *posix)
{
    if (!posix->raw.free) /* never suited to NFS */
        return;
    sw_over_open_free(posix->over);
    sw_mount_clear(&posix->mount);
    for (guint i = 0; i < SW_NAME_GUARDS; i++)
        (void)pthread_rwlock_destroy(&posix->guards[i]);
}

/* Caches of many programs have the same few names in each of their directories.  No server is asked for the number. */
static pthread_rwlock_t *guard_of(SwPosix *posix, int dirfd, const char *name)
{
    struct statx sx = {0};

    (void)statx(dirfd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &sx);
    return &posix->guards[(g_str_hash(name) ^ g_int64_hash(&sx.stx_ino)) % SW_NAME_GUARDS];
}

/* NULL: no name, no guard. */
static pthread_rwlock_t *look_begin(SwPort *port, int dirfd, const char *name)
{
    pthread_rwlock_t *guard = *name ? guard_of((SwPosix *)port, dirfd, name) : NULL;

    if (guard)
        (void)pthread_rwlock_rdlock(guard);
    return guard;
}

static void look_end(pthread_rwlock_t *guard)
{
    if (guard)
        (void)pthread_rwlock_unlock(guard);
}

/* Is it worth another try?  Past the caches, the name will lead elsewhere by then; if not, it is a delegation that
 * makes the client believe it. */
static gboolean goes_on(SwPosix *posix, int dirfd, const char *name, guint tries)
{
    struct stat st;

    if (!*name || tries == STALE_TRIES)
        return FALSE;
    if (tries % STALE_BELIEVED == STALE_BELIEVED - 1)
        sw_nfs_give_delegation_back(dirfd, name);
    return posix->raw.stat_fresh(&posix->base, dirfd, "", &st) == 0;
}

/* A member that looks at a name: guarded, and tried again after ESTALE. */
#define LOOKING(type, member, parameters, arguments)                                                                   \
    static type nfs_##member parameters                                                                                \
    {                                                                                                                  \
        SwPosix *posix = (SwPosix *)port;                                                                              \
        pthread_rwlock_t *guard = look_begin(port, dirfd, name);                                                       \
        type r = posix->raw.member arguments;                                                                          \
                                                                                                                       \
        for (guint tries = 0; r == -ESTALE && goes_on(posix, dirfd, name, tries); tries++)                             \
            r = posix->raw.member arguments;                                                                           \
        look_end(guard);                                                                                               \
        return r;                                                                                                      \
    }

LOOKING(int, openat, (SwPort * port, int dirfd, const char *name, int flags, mode_t mode),
        (port, dirfd, name, flags, mode))

/* A client asks for no delegation when it opens for O_DIRECT (fs/nfs/nfs4proc.c, nfs4_map_atomic_open_share), which can
 * be taken back.  Servers of v4.0 are not asked, and may delegate. */
static int nfs_openat_undelegated(SwPort *port, int dirfd, const char *name, int flags, mode_t mode)
{
    int fd, status;

    if (!(flags & SW_O_UNDELEGATED))
        return nfs_openat(port, dirfd, name, flags, mode);
    flags &= ~SW_O_UNDELEGATED;
    fd = flags & O_APPEND ? -EINVAL : nfs_openat(port, dirfd, name, flags | O_DIRECT, mode);
    if (fd == -EINVAL)
        return nfs_openat(port, dirfd, name, flags, mode);
    status = fd < 0 ? -1 : fcntl(fd, F_GETFL);
    if (status >= 0)
        (void)fcntl(fd, F_SETFL, status & ~O_DIRECT);
    return fd;
}

LOOKING(int, statat, (SwPort * port, int dirfd, const char *name, struct stat *ret_st), (port, dirfd, name, ret_st))
LOOKING(int, stat_fresh, (SwPort * port, int dirfd, const char *name, struct stat *ret_st), (port, dirfd, name, ret_st))
LOOKING(int, stat_cached, (SwPort * port, int dirfd, const char *name, struct stat *ret_st),
        (port, dirfd, name, ret_st))
LOOKING(int, lookat, (SwPort * port, int dirfd, const char *name, SwFound *ret_found), (port, dirfd, name, ret_found))
LOOKING(int, lookat_cached, (SwPort * port, int dirfd, const char *name, SwFound *ret_found),
        (port, dirfd, name, ret_found))
LOOKING(int, accessat, (SwPort * port, int dirfd, const char *name, int mode), (port, dirfd, name, mode))
LOOKING(int, chmodat, (SwPort * port, int dirfd, const char *name, mode_t mode), (port, dirfd, name, mode))
LOOKING(int, chownat, (SwPort * port, int dirfd, const char *name, uid_t uid, gid_t gid), (port, dirfd, name, uid, gid))
LOOKING(int, utimensat, (SwPort * port, int dirfd, const char *name, const struct timespec times[2]),
        (port, dirfd, name, times))
LOOKING(ssize_t, readlinkat, (SwPort * port, int dirfd, const char *name, char *buf, size_t size),
        (port, dirfd, name, buf, size))
LOOKING(ssize_t, getxattr, (SwPort * port, int dirfd, const char *name, const char *key, void *buf, size_t size),
        (port, dirfd, name, key, buf, size))
LOOKING(ssize_t, listxattr, (SwPort * port, int dirfd, const char *name, char *buf, size_t size),
        (port, dirfd, name, buf, size))
LOOKING(int, setxattr,
        (SwPort * port, int dirfd, const char *name, const char *key, const void *value, size_t size, int flags),
        (port, dirfd, name, key, value, size, flags))
LOOKING(int, removexattr, (SwPort * port, int dirfd, const char *name, const char *key), (port, dirfd, name, key))

static int nfs_unlinkat(SwPort *port, int dirfd, const char *name, int flags)
{
    SwPosix *posix = (SwPosix *)port;
    pthread_rwlock_t *guard = guard_of(posix, dirfd, name);
    gint64 begun;
    int r;

    (void)pthread_rwlock_wrlock(guard);
    begun = port->now_us(port);
    r = posix->raw.unlinkat(port, dirfd, name, flags);
    /* The name was there when the caller looked, and is gone, as it should be. */
    if (r == -ENOENT && port->now_us(port) - begun > SW_SENT_AGAIN_US)
        r = 0;
    (void)pthread_rwlock_unlock(guard);
    return r;
}

static int nfs_linkat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname)
{
    SwPosix *posix = (SwPosix *)port;
    gint64 begun = port->now_us(port);
    int r = posix->raw.linkat(port, olddir, oldname, newdir, newname);
    struct stat from, to;

    if (r == -EEXIST && port->now_us(port) - begun > SW_SENT_AGAIN_US &&
        posix->raw.stat_fresh(port, olddir, oldname, &from) == 0 &&
        posix->raw.stat_fresh(port, newdir, newname, &to) == 0 && from.st_ino == to.st_ino)
        r = 0;
    return r;
}

static int nfs_renameat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    SwPosix *posix = (SwPosix *)port;
    pthread_rwlock_t *a = guard_of(posix, olddir, oldname), *b = guard_of(posix, newdir, newname);
    int r;

    (void)pthread_rwlock_wrlock(MIN(a, b));
    if (a != b)
        (void)pthread_rwlock_wrlock(MAX(a, b));
    r = posix->raw.renameat(port, olddir, oldname, newdir, newname, flags);
    if (a != b)
        (void)pthread_rwlock_unlock(MAX(a, b));
    (void)pthread_rwlock_unlock(MIN(a, b));
    return r;
}

static void nfs_read_anew(SwPort *port, int fd)
{
    (void)port;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

void sw_port_posix_suit(SwPort *port, int fd, void (*say)(gpointer data, const char *text), gpointer data)
{
    SwPosix *posix = (SwPosix *)port;
    guint64 type;

    if (port->fs_type(port, fd, &type) < 0 || type != NFS_SUPER_MAGIC)
        return;
    sw_mount_of(fd, &posix->mount);
    if (say)
        sw_mount_judge(&posix->mount, say, data);
    port->forgets_old = sw_mount_is_nfs3(&posix->mount);
    posix->over = sw_over_open_bind(port, &posix->mount, say, data);
    posix->raw = *port;
    guards_init(posix);
    port->read_anew = nfs_read_anew;
    port->openat = nfs_openat_undelegated;
    port->statat = nfs_statat;
    port->stat_fresh = nfs_stat_fresh;
    port->stat_cached = nfs_stat_cached;
    port->lookat = nfs_lookat;
    port->lookat_cached = nfs_lookat_cached;
    port->accessat = nfs_accessat;
    port->chmodat = nfs_chmodat;
    port->chownat = nfs_chownat;
    port->utimensat = nfs_utimensat;
    port->readlinkat = nfs_readlinkat;
    port->getxattr = nfs_getxattr;
    port->listxattr = nfs_listxattr;
    port->setxattr = nfs_setxattr;
    port->removexattr = nfs_removexattr;
    port->unlinkat = nfs_unlinkat;
    port->linkat = nfs_linkat;
    port->renameat = nfs_renameat;
}

void sw_port_posix_adopt(SwPort *port, int fd)
{
    SwPosix *posix = (SwPosix *)port;

    if (posix->raw.free && posix->over) /* suited to NFS */
        sw_over_open_adopt(port, fd);
}
