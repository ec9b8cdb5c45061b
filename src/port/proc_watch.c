/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Waiting for processes that are no children of ours.
 *
 * A pidfd tells of any process when it ended, and from Linux 6.15 on how, also after its parent has asked (FACTS F5).
 * Before that the status can be read only while the process is a zombie; or it was told at its exit (exits.h).
 */

#include "proc.h"

#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

/* Younger than the C library's headers: linux/pidfd.h of Linux 6.15. */
#define PID_FS_MAGIC_NUMBER 0x50494446
#define PIDFD_INFO_EXIT_BIT (G_GUINT64_CONSTANT(1) << 3)

struct pidfd_info_6_15 {
    guint64 mask, cgroupid;
    guint32 pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    gint32 exit_code;
    guint32 coredump_mask, spare;
};

#define POLL_MAX 1024U

#define PIDFD_GET_INFO_6_15 _IOWR(0xFF, 11, struct pidfd_info_6_15)

static gboolean pidfds_tell(void)
{
    struct utsname name;
    guint major = 0, minor = 0;

    return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 15));
}

/* From the first process on that is watched. */
static SwExits *exits_of(SwPort *port)
{
    SwProc *proc = sw_posix_proc(port);

    SW_HOLD(&proc->ends.lock);
    if (!proc->ends.asked) {
        proc->ends.asked = TRUE;
        proc->ends.exits = pidfds_tell() ? NULL : sw_exits_new();
    }
    return proc->ends.exits;
}

int sw_proc_watch(SwPort *port, pid_t tgid, guint64 *ret_id)
{
    struct statfs fs;
    struct stat st;
    SwExits *exits;
    int fd;

    if (tgid <= 0)
        return -EINVAL;
    exits = exits_of(port);
    fd = (int)syscall(SYS_pidfd_open, tgid, 0);
    if (fd < 0)
        return -errno;
    /* On their own file system pidfds have an inode per process; before, all of them shared one. */
    if (exits)
        sw_exits_add(exits, fd, tgid);
    *ret_id = fstatfs(fd, &fs) == 0 && fs.f_type == PID_FS_MAGIC_NUMBER && fstat(fd, &st) == 0 ? st.st_ino : 0;
    return fd;
}

void sw_proc_unwatch(SwPort *port, int fd)
{
    SwExits *exits = exits_of(port);

    if (exits)
        sw_exits_remove(exits, fd);
    (void)close(fd);
}

static gboolean tells_status(int fd, int *ret_status)
{
    struct pidfd_info_6_15 info = {.mask = PIDFD_INFO_EXIT_BIT};

    if (ioctl(fd, PIDFD_GET_INFO_6_15, &info) < 0 || !(info.mask & PIDFD_INFO_EXIT_BIT))
        return FALSE;
    *ret_status = info.exit_code;
    return TRUE;
}

/* Once it has been waited for, the number may be another's, so what was read counts only if it had not by then. */
static gboolean zombie_status(SwPort *port, int fd, pid_t tgid, int *ret_status)
{
    int status;

    if (port->exit_status(port, tgid, &status) < 0)
        return FALSE;
    if (syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) < 0 && errno == ESRCH)
        return FALSE;
    *ret_status = status;
    return TRUE;
}

int sw_proc_ended(SwPort *port, int fd, pid_t tgid, int *ret_status)
{
    struct pollfd ask = {.fd = fd, .events = POLLIN};
    int r = TEMP_FAILURE_RETRY(poll(&ask, 1, 0));
    SwExits *exits;

    if (r < 0)
        return -errno;
    if (r == 0)
        return 0;
    exits = exits_of(port);
    if (exits && sw_exits_status(exits, fd, ret_status))
        return 1;
    /* The kernel tells of those that have been waited for; that may happen between the two questions. */
    if (!tells_status(fd, ret_status) && !zombie_status(port, fd, tgid, ret_status) && !tells_status(fd, ret_status))
        *ret_status = -1;
    return 1;
}

/* One call tells of many; poll(2) takes no more than there may be open descriptors. */
int sw_proc_watched_ended(SwPort *port, const int *fds, const pid_t *tgids, guint n, gboolean *ret_ended)
{
    g_autofree struct pollfd *ask = g_new0(struct pollfd, POLL_MAX);
    SwExits *exits = exits_of(port);

    if (exits)
        sw_exits_read(exits);
    (void)tgids;
    for (guint done = 0; done < n; done += POLL_MAX) {
        guint some = MIN(n - done, POLL_MAX);

        for (guint i = 0; i < some; i++)
            ask[i] = (struct pollfd){.fd = fds[done + i], .events = POLLIN};
        if (TEMP_FAILURE_RETRY(poll(ask, some, 0)) < 0)
            return -errno;
        for (guint i = 0; i < some; i++)
            ret_ended[done + i] = ask[i].revents != 0;
    }
    return 0;
}

int sw_port_posix_adopt_watch(SwPort *port)
{
    return exits_of(port) ? -ENOTSUP : 0;
}
