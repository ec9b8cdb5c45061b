/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * What stands at the name of a lock: whether it is the lock that a record tells of, and its end.
 */

#include "lock_object.h"

#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

const char *sw_last_component(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static gboolean is_older(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

gboolean sw_app_lock_dir_is_small(SwControl *control, int dirfd, const char *name, off_t total_max)
{
    SwPort *port = control->port;
    g_autoptr(GPtrArray) names = NULL;
    struct stat st;
    off_t total = 0;
    int fd = port->openat(port, dirfd, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);
    gboolean small = fd >= 0 && sw_dir_names(port, fd, SW_LOCK_ENTRIES_MAX + 1, FALSE, &names) == 0 &&
                     names->len <= SW_LOCK_ENTRIES_MAX;

    for (guint i = 0; small && i < names->len; i++) {
        small =
            port->statat(port, fd, names->pdata[i], &st) == 0 && !S_ISDIR(st.st_mode) && st.st_size <= SW_LOCK_SIZE_MAX;
        total += small ? st.st_size : 0;
    }
    sw_fd_close(port, &fd);
    return small && total <= total_max;
}

int sw_app_lock_dir_is_empty(SwControl *control, int dirfd, const char *name)
{
    SwPort *port = control->port;
    g_autoptr(GPtrArray) names = NULL;
    int fd = port->openat(port, dirfd, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);
    int r = fd < 0 ? fd : sw_dir_names(port, fd, 1, FALSE, &names);

    sw_fd_close(port, &fd);
    return r == 0 && names->len ? -ENOTEMPTY : r;
}

/* Is the object that stands there the lock that the record tells of?  Its owner's rights are enough to look. */
static gboolean is_that_lock(const SwJudgedLock *judged, int dirfd, const char *name, const struct stat *st)
{
    SwPort *port = judged->control->port;
    SwCred owner = {.uid = st->st_uid, .gid = st->st_gid};
    gboolean little;

    if (is_older(&st->st_ctim, &judged->since))
        return FALSE; /* it stood there before: the record is of one who did not get it */
    switch (judged->says->kind) {
    case SW_LOCK_SYMLINK:
        return S_ISLNK(st->st_mode);
    case SW_LOCK_FILE:
        return S_ISREG(st->st_mode) && st->st_size <= SW_LOCK_SIZE_MAX;
    case SW_LOCK_LINK:
        return S_ISLNK(st->st_mode) || (S_ISREG(st->st_mode) && st->st_size <= SW_LOCK_SIZE_MAX);
    case SW_LOCK_DIR:
        break;
    }
    little = S_ISDIR(st->st_mode) && port->become(port, &owner) == 0 &&
             sw_app_lock_dir_is_small(judged->control, dirfd, name, G_MAXINT64);
    (void)port->become(port, NULL);
    return little;
}

static int rename_as(const SwJudgedLock *judged, const SwCred *cred, int dirfd, const char *name, const char *taken)
{
    SwPort *port = judged->control->port;
    int r = port->become(port, cred);

    if (r == 0)
        r = port->renameat(port, dirfd, name, sw_epoch_stage_dir(judged->by, 0), taken, 0);
    (void)port->become(port, NULL);
    return r;
}

/* Among our stages, where a fenced host cannot put it any more.  The owner's groups are not known, so whoever owns the
 * directory may have to do it. */
static int take_object(const SwJudgedLock *judged, int dirfd, const char *name, const struct stat *st,
                       const char *taken)
{
    SwPort *port = judged->control->port;
    int stage = sw_epoch_stage_dir(judged->by, 0);
    SwCred owner = {.uid = st->st_uid, .gid = st->st_gid};
    struct stat dir, now;
    int r = rename_as(judged, &owner, dirfd, name, taken);

    if ((r == -EACCES || r == -EPERM) && port->statat(port, dirfd, "", &dir) == 0) {
        SwCred host = {.uid = dir.st_uid, .gid = dir.st_gid};

        r = rename_as(judged, &host, dirfd, name, taken);
    }
    if (r == -EACCES || r == -EPERM)
        r = rename_as(judged, NULL, dirfd, name, taken);
    /* Done, and the reply was lost. */
    if (r < 0 && port->statat(port, stage, taken, &now) == 0)
        r = 0;
    if (r == 0 && port->statat(port, stage, taken, &now) == 0 && now.st_ino != st->st_ino)
        return sw_put_back(judged->control, dirfd, name, stage, taken, &owner);
    return r;
}

static int put_in_salvage(const SwJudgedLock *judged, const char *taken, const struct stat *st)
{
    SwControl *control = judged->control;
    int stage = sw_epoch_stage_dir(judged->by, 0);
    SwCred owner = {.uid = st->st_uid, .gid = st->st_gid};
    SwSalvageInfo info = {.path = (char *)judged->says->path, .reason = (char *)"broken", .command = (char *)""};
    int r;

    info.pid = judged->says->pid;
    if (S_ISREG(st->st_mode))
        return sw_salvage_put(control, stage, taken, judged->says->host_id, &info, &owner);
    r = sw_salvage_keep_junk(control, stage, taken, judged->says->host_id);
    if ((r == -EACCES || r == -EPERM) && control->port->become(control->port, &owner) == 0) {
        r = sw_salvage_keep_junk(control, stage, taken, judged->says->host_id);
        (void)control->port->become(control->port, NULL);
    }
    return r;
}

int sw_lock_object_end(const SwJudgedLock *judged, int dirfd, const char *name)
{
    SwControl *control = judged->control;
    SwPort *port = control->port;
    g_autofree char *taken = sw_control_unique(control, "lock-");
    struct stat st;
    /* What this host believes of the name may be older than the lock (F12). */
    int r = port->stat_fresh(port, dirfd, "", &st);

    if (r == 0)
        r = port->statat(port, dirfd, name, &st);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (!is_that_lock(judged, dirfd, name, &st))
        return 0;
    r = take_object(judged, dirfd, name, &st, taken);
    if (r < 0)
        return r == -ENOENT || r == -EEXIST || r == -EXDEV ? 0 : r;
    /* Should this fail, it lies among our stages, and goes to salvage with them. */
    (void)put_in_salvage(judged, taken, &st);
    return 0;
}

int sw_lock_object_end_by_path(const SwJudgedLock *judged)
{
    SwControl *control = judged->control;
    SwPort *port = control->port;
    g_autofree char *parent = g_path_get_dirname(judged->says->path);
    struct stat st;
    int fd;
    int r;

    if (!*judged->says->path)
        return 0;
    fd = port->open_beneath(port, control->source, parent, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV ? 0 : fd;
    r = port->statat(port, fd, "", &st);
    if (r == 0 && (guint64)st.st_ino == judged->says->dir_ino)
        r = sw_lock_object_end(judged, fd, sw_last_component(judged->says->path));
    sw_fd_close(port, &fd);
    return r == -ENOENT ? 0 : r;
}
