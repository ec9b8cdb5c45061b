/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Which descriptors of one inode a process holds.
 *
 * Following /proc/<pid>/fd/<n>, by stat or readlink, is not possible: recent kernels (seen on 6.18) block it while the
 * process is inside execve(2), like `maps`.  What stays open to us is the mode of the link itself, which tells how the
 * descriptor was opened, and /proc/<pid>/fdinfo/<n>, which tells the inode number and the mount.  Neither reaches the
 * file system of the descriptor, which may be ours.  The mount is looked up only when the number is right.
 */

#include "proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define FDS_MAX 200 /* about a millisecond of looking; a larger table is not worth the wait of a close(2) */

typedef struct {
    SwProc *proc;
    const char *base; /* sw_proc_base */
    int fds;          /* <base>/fd */
    int infos;        /* <base>/fdinfo */
    SwKept *kept;     /* whose those are, claimed; NULL: they are open for this look only */
    dev_t dev;
    ino_t ino;
    guint n_seen;
    SwHoldings found;
} Scan;

/* ---- the device of a mount */

/* A mount and its device in one word; 0 is never one, since mounts are numbered from 1. */
static guint64 pack_mount(int mount, dev_t dev)
{
    return (guint64)(guint)mount << 32 | major(dev) << 20 | (minor(dev) & 0xfffff);
}

static const char *find_mount(const char *mountinfo, int mount)
{
    char key[16];
    const char *at;

    (void)snprintf(key, sizeof key, "\n%d ", mount);
    if (g_str_has_prefix(mountinfo, key + 1))
        return mountinfo;
    at = strstr(mountinfo, key);
    return at ? at + 1 : NULL;
}

/* By the mountinfo of the process `base`. */
static gboolean find_device(const SwProc *proc, const char *base, int mount, dev_t *ret_dev)
{
    g_auto(SwProcText) mountinfo = {.big = NULL};
    char path[SW_PROC_BASE_SIZE + 16];
    const char *line;
    guint found_major, found_minor;

    (void)snprintf(path, sizeof path, "%s/mountinfo", base);
    if (sw_proc_read(proc->fd, path, &mountinfo) < 0)
        return FALSE;
    line = find_mount(mountinfo.text, mount);
    if (!line || sscanf(line, "%*d %*d %u:%u", &found_major, &found_minor) != 2)
        return FALSE;
    *ret_dev = makedev(found_major, found_minor);
    return TRUE;
}

/*
 * Is `mount` one of the file system wanted?  What a process in a container was given by who started it may be open on a
 * mount that only we see.  Yes, too, when nobody can say: the inode number was right already, and a holder too many
 * only delays a commit.
 */
static gboolean is_wanted_mount(const Scan *scan, int mount)
{
    guint64 packed = pack_mount(mount, scan->dev);
    dev_t dev;

    if (__atomic_load_n(&scan->proc->known_mount, __ATOMIC_RELAXED) == packed)
        return TRUE;
    if (!find_device(scan->proc, scan->base, mount, &dev) && !find_device(scan->proc, "self", mount, &dev))
        return TRUE;
    if (dev != scan->dev)
        return FALSE;
    __atomic_store_n(&scan->proc->known_mount, packed, __ATOMIC_RELAXED);
    return TRUE;
}

/* ---- one descriptor */

static gboolean is_wanted(const Scan *scan, const SwProcFdinfo *info)
{
    return info->ino == scan->ino && is_wanted_mount(scan, info->mount);
}

/*
 * An io_uring says so, unless it is busy, when some kernels print nothing.  Anonymous inodes that are not the one most
 * such descriptors share are few: io_urings, and userfaultfds, which can be told.
 */
static gboolean is_uring(const SwProc *proc, const SwProcFdinfo *info)
{
    if (strstr(info->text, "\nSqMask:"))
        return TRUE;
    return proc->anon.mount == info->mount && proc->anon.ino != info->ino && !strstr(info->text, "\npending:");
}

static void judge(Scan *scan, int fd, const SwProcFdinfo *info)
{
    static const char queue[] = "\nscm_fds:"; /* only UNIX sockets count the descriptors that wait in their queue */
    const char *queued = strstr(info->text, queue);

    if (is_wanted(scan, info)) {
        scan->found.n_writers++;
        scan->found.only_fd = scan->found.n_writers == 1 ? fd : -1;
    } else if (queued) {
        scan->found.queued = scan->found.queued || strtoul(queued + strlen(queue), NULL, 10) > 0;
        scan->found.unix_sockets = scan->found.unix_sockets || (fd != 1 && fd != 2);
    } else if (is_uring(scan->proc, info)) {
        scan->found.uring = TRUE;
    }
}

/* 1: `ret_info` is what is known of a descriptor that can write; 0: it cannot. */
static int look_at(Scan *scan, int fd, SwProcFdinfo *ret_info)
{
    struct stat st;
    char name[16];
    int info_fd, r;

    (void)snprintf(name, sizeof name, "%d", fd);
    if (fstatat(scan->fds, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (!(st.st_mode & S_IWUSR))
        return 0; /* sockets and io_urings are always open both ways */
    info_fd = openat(scan->infos, name, O_RDONLY | O_CLOEXEC);
    if (info_fd < 0)
        return -errno;
    r = sw_proc_parse_fdinfo(info_fd, ret_info);
    if (r == 0 && scan->kept)
        sw_kept_set_info(scan->kept, fd, info_fd);
    else
        (void)close(info_fd);
    return r < 0 ? r : 1;
}

/* The same, of one whose fdinfo was kept when the number was looked at before; it may be another descriptor by now. */
static int look_again(Scan *scan, int fd, SwProcFdinfo *ret_info)
{
    int info_fd = scan->kept ? sw_kept_info(scan->kept, fd) : -1;
    int r;

    if (info_fd < 0)
        return look_at(scan, fd, ret_info);
    r = sw_proc_parse_fdinfo(info_fd, ret_info);
    return r < 0 ? r : (ret_info->flags & O_ACCMODE) != O_RDONLY;
}

static int visit_fd(pid_t fd, void *data)
{
    Scan *scan = data;
    SwProcFdinfo info;
    int r;

    if (++scan->n_seen > FDS_MAX)
        return -E2BIG;
    r = look_again(scan, fd, &info);
    if (r > 0)
        judge(scan, fd, &info);
    else if (r < 0 && r != -ENOENT && r != -ESRCH) /* closed meanwhile */
        scan->found.complete = FALSE;
    return 0;
}

/* ---- the table */

/* Kernels since 6.2 tell the number of descriptors as the size of the directory. */
static gboolean is_too_large(int fds)
{
    struct stat st;

    return fstat(fds, &st) == 0 && st.st_size > FDS_MAX;
}

static int scan_table(Scan *scan)
{
    char path[SW_PROC_BASE_SIZE + 8];
    sw_autofd int fds = -1, infos = -1;

    (void)snprintf(path, sizeof path, "%s/fd", scan->base);
    fds = openat(scan->proc->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fds < 0)
        return -errno;
    if (is_too_large(fds))
        return -E2BIG;
    (void)snprintf(path, sizeof path, "%s/fdinfo", scan->base);
    infos = openat(scan->proc->fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (infos < 0)
        return -errno;
    scan->fds = fds;
    scan->infos = infos;
    return sw_proc_each(fds, visit_fd, scan);
}

/* As the table of a process that is kept; its size is asked for only if it was too large before. */
static int scan_kept(Scan *scan, SwKept *kept)
{
    int r;

    scan->kept = kept;
    scan->fds = sw_kept_file(kept, SW_KEPT_FDS);
    scan->infos = sw_kept_file(kept, SW_KEPT_INFOS);
    if (scan->fds < 0 || scan->infos < 0)
        return MIN(scan->fds, scan->infos);
    if (sw_kept_is_large(kept) && is_too_large(scan->fds))
        return -E2BIG;
    if (lseek(scan->fds, 0, SEEK_SET) < 0)
        return -errno;
    r = sw_proc_each(scan->fds, visit_fd, scan);
    sw_kept_set_large(kept, r == -E2BIG);
    return r;
}

/* By what is kept of the process.  FALSE: nothing is, another thread has it, or nobody is there any more: what has the
 * number now is to be looked at. */
static gboolean try_kept(SwProc *proc, pid_t tgid, Scan *scan, int *ret_r)
{
    const Scan fresh = *scan;
    g_autoptr(SwKept) kept = sw_kept_again(proc->keepers, tgid);

    if (!kept || !sw_kept_try_claim(kept))
        return FALSE;
    *ret_r = scan_kept(scan, kept);
    sw_kept_yield(kept);
    if (*ret_r == -E2BIG || (*ret_r == 0 && scan->n_seen > 0))
        return TRUE;
    if (*ret_r < 0)
        sw_kept_drop(proc->keepers, kept);
    *scan = fresh;
    return FALSE;
}

/* `base` is the caller's, for as long as he uses `scan`. */
static int scan_process(SwProc *proc, pid_t tgid, char base[SW_PROC_BASE_SIZE], Scan *scan)
{
    int r;

    sw_proc_base(base, tgid);
    scan->base = base;
    if (try_kept(proc, tgid, scan, &r))
        return r;
    r = scan_table(scan);
    /* Who has given up his memory shows an empty table to root, and none to others.  It may be all of the process,
     * which holds nothing then, or just the first thread, which ended before the others. */
    if (r == -EACCES || (r == 0 && scan->n_seen == 0)) {
        pid_t tid = sw_proc_live_thread(proc, tgid);

        if (tid <= 0) {
            r = tid;
        } else if (tid != tgid) {
            sw_proc_thread_base(base, tgid, tid);
            r = scan_table(scan);
        }
    }
    return r;
}

int sw_proc_holdings(SwPort *port, pid_t tgid, dev_t dev, ino_t ino, SwHoldings *ret_holdings)
{
    SwProc *proc = sw_posix_proc(port);
    Scan scan = {.proc = proc, .dev = dev, .ino = ino, .found = {.only_fd = -1, .complete = TRUE}};
    char base[SW_PROC_BASE_SIZE];
    SwCredSaved saved;
    int r = -EINVAL;

    /* The directory is open to its owner and the capable only, so not to whomever this thread acts for. */
    if (proc->fd >= 0 && tgid > 0)
        r = sw_cred_suspend(&saved);
    if (r == 0) {
        r = scan_process(proc, tgid, base, &scan);
        sw_cred_resume(&saved);
    }
    if (r < 0) {
        scan.found = (SwHoldings){.only_fd = -1};
        scan.found.complete = sw_proc_error(tgid, r) == -ESRCH; /* the gone hold nothing */
    }
    *ret_holdings = scan.found;
    return 0;
}
