/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lies.h"

#include "stale.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>

typedef struct {
    SwPort truth; /* the members below the lies */
    SimWorld *world;
    SimStale *stale;
    gint64 stale_us;
} Lies;

static Lies *of(SwPort *port)
{
    return *sim_port_layer(port);
}

static ino_t ino_of(SwPort *port, int fd)
{
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return 0;
    sim_told_put(of(port)->world->told, &st);
    return st.st_ino;
}

static SimRemembered *recall(SwPort *port, int dirfd, const char *name)
{
    return sim_stale_find(of(port)->stale, ino_of(port, dirfd), name, of(port)->world->now_us);
}

static gboolean is_missing(SwPort *port, int dirfd, const char *name)
{
    const SimRemembered *remembered = *name ? recall(port, dirfd, name) : NULL;

    return remembered && remembered->missing;
}

/* Believed to stand there. */
static gboolean is_taken(SwPort *port, int dirfd, const char *name)
{
    const SimRemembered *remembered = recall(port, dirfd, name);

    return remembered && !remembered->missing;
}

static void forget(SwPort *port, int dirfd, const char *name)
{
    sim_stale_forget(of(port)->stale, ino_of(port, dirfd), name);
}

static SimRemembered *keep(SwPort *port, int dirfd, const char *name, const SwFound *found)
{
    Lies *lies = of(port);
    gint64 until_us = lies->world->now_us + (gint64)(sim_random(lies->world) % (guint64)lies->stale_us);

    return sim_stale_remember(lies->stale, ino_of(port, dirfd), name, found, until_us);
}

/* ---- looking */

static int lie_lookat(SwPort *port, int dirfd, const char *name, SwFound *ret_found)
{
    SimRemembered *remembered = recall(port, dirfd, name);
    SwFound found;
    int r;

    if (!remembered) {
        r = of(port)->truth.lookat(port, dirfd, name, &found);
        if (r < 0 && r != -ENOENT)
            return r;
        remembered = keep(port, dirfd, name, r == 0 ? &found : NULL);
    }
    if (remembered->missing)
        return -ENOENT;
    *ret_found = remembered->found;
    return 0;
}

static int lie_statat(SwPort *port, int dirfd, const char *name, struct stat *ret_st)
{
    SwFound found;
    int r = lie_lookat(port, dirfd, name, &found);

    if (r == 0)
        *ret_st = found.st;
    return r;
}

static int lie_stat_fresh(SwPort *port, int dirfd, const char *name, struct stat *ret_st)
{
    int r;

    if (is_missing(port, dirfd, name))
        return -ENOENT;
    r = of(port)->truth.stat_fresh(port, dirfd, name, ret_st);
    if (*name)
        forget(port, dirfd, name);
    else
        sim_stale_forget_inode(of(port)->stale, ino_of(port, dirfd));
    return r;
}

static ssize_t lie_readlinkat(SwPort *port, int dirfd, const char *name, char *buf, size_t size)
{
    SimRemembered *remembered = *name ? recall(port, dirfd, name) : NULL;
    ssize_t r;

    if (remembered && remembered->missing)
        return -ENOENT;
    if (remembered && remembered->text) {
        r = (ssize_t)MIN(size, strlen(remembered->text));
        memcpy(buf, remembered->text, r);
        return r;
    }
    r = of(port)->truth.readlinkat(port, dirfd, name, buf, size);
    if (r == -ENOENT && *name)
        (void)keep(port, dirfd, name, NULL);
    remembered = r >= 0 && *name ? recall(port, dirfd, name) : NULL;
    if (remembered && !remembered->missing && !remembered->text)
        remembered->text = g_strndup(buf, r);
    return r;
}

/* ---- opening */

static int lie_openat(SwPort *port, int dirfd, const char *name, int flags, mode_t mode)
{
    int fd;

    if (flags & O_CREAT) {
        if ((flags & O_EXCL) && is_taken(port, dirfd, name))
            return -EEXIST;
        fd = of(port)->truth.openat(port, dirfd, name, flags, mode);
        forget(port, dirfd, name);
        return fd;
    }
    if (dirfd >= 0 && is_missing(port, dirfd, name))
        return -ENOENT;
    fd = of(port)->truth.openat(port, dirfd, name, flags, mode);
    if (fd >= 0 && !(flags & O_PATH)) /* close-to-open */
        sim_stale_forget_inode(of(port)->stale, ino_of(port, fd));
    return fd;
}

/* ---- changing names */

static int lie_mkdirat(SwPort *port, int dirfd, const char *name, mode_t mode)
{
    int r = is_taken(port, dirfd, name) ? -EEXIST : of(port)->truth.mkdirat(port, dirfd, name, mode);

    if (r == 0)
        forget(port, dirfd, name);
    return r;
}

static int lie_symlinkat(SwPort *port, const char *target, int dirfd, const char *name)
{
    int r = is_taken(port, dirfd, name) ? -EEXIST : of(port)->truth.symlinkat(port, target, dirfd, name);

    if (r == 0)
        forget(port, dirfd, name);
    return r;
}

static int lie_linkat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname)
{
    int r = is_missing(port, olddir, oldname) ? -ENOENT
            : is_taken(port, newdir, newname) ? -EEXIST
                                              : of(port)->truth.linkat(port, olddir, oldname, newdir, newname);

    if (r == 0) {
        forget(port, olddir, oldname);
        forget(port, newdir, newname);
    }
    return r;
}

static int lie_unlinkat(SwPort *port, int dirfd, const char *name, int flags)
{
    int r = is_missing(port, dirfd, name) ? -ENOENT : of(port)->truth.unlinkat(port, dirfd, name, flags);

    forget(port, dirfd, name);
    return r;
}

static int lie_renameat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    int r = flags & ~SW_RENAME_OWN ? -EINVAL : is_missing(port, olddir, oldname) ? -ENOENT : 0;

    if (r == 0)
        r = of(port)->truth.renameat(port, olddir, oldname, newdir, newname, flags);
    forget(port, olddir, oldname);
    forget(port, newdir, newname);
    return r;
}

/* ---- changing what is behind a descriptor: its attributes are asked for anew */

static ssize_t lie_pwrite(SwPort *port, int fd, const void *buf, size_t size, off_t offset)
{
    sim_stale_forget_inode(of(port)->stale, ino_of(port, fd));
    return of(port)->truth.pwrite(port, fd, buf, size, offset);
}

static int lie_ftruncate(SwPort *port, int fd, off_t size)
{
    sim_stale_forget_inode(of(port)->stale, ino_of(port, fd));
    return of(port)->truth.ftruncate(port, fd, size);
}

static int lie_chmodat(SwPort *port, int dirfd, const char *name, mode_t mode)
{
    if (!*name)
        sim_stale_forget_inode(of(port)->stale, ino_of(port, dirfd));
    forget(port, dirfd, name);
    return of(port)->truth.chmodat(port, dirfd, name, mode);
}

static int lie_utimensat(SwPort *port, int dirfd, const char *name, const struct timespec times[2])
{
    if (!*name)
        sim_stale_forget_inode(of(port)->stale, ino_of(port, dirfd));
    forget(port, dirfd, name);
    return of(port)->truth.utimensat(port, dirfd, name, times);
}

static int lie_fs_type(SwPort *port, int fd, guint64 *ret_type)
{
    int r = of(port)->truth.fs_type(port, fd, ret_type);

    if (r == 0)
        *ret_type = NFS_SUPER_MAGIC;
    return r;
}

static void lie_free(SwPort *port)
{
    Lies *lies = of(port);
    void (*free_truth)(SwPort *) = lies->truth.free;

    sim_stale_free(lies->stale);
    g_free(lies);
    free_truth(port);
}

void sim_lies_begin(SwPort *port, SimWorld *world, gint64 stale_us)
{
    Lies *lies = g_new0(Lies, 1);

    *lies = (Lies){.truth = *port, .world = world, .stale = sim_stale_new(), .stale_us = stale_us};
    *sim_port_layer(port) = lies;
    port->stat_cached = lie_statat;
    port->lookat = lie_lookat;
    port->lookat_cached = lie_lookat;
    port->statat = lie_statat;
    port->stat_fresh = lie_stat_fresh;
    port->readlinkat = lie_readlinkat;
    port->openat = lie_openat;
    port->mkdirat = lie_mkdirat;
    port->symlinkat = lie_symlinkat;
    port->linkat = lie_linkat;
    port->unlinkat = lie_unlinkat;
    port->renameat = lie_renameat;
    port->pwrite = lie_pwrite;
    port->ftruncate = lie_ftruncate;
    port->chmodat = lie_chmodat;
    port->utimensat = lie_utimensat;
    port->fs_type = lie_fs_type;
    port->free = lie_free;
}
