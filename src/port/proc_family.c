/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Many processes: those created since, and the children of one. */

#include "proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define PROBE_MAX 1024              /* pids asked for one by one; beyond, listing all processes costs less */
#define PID_LIMIT (4 * 1024 * 1024) /* the highest the kernel ever gives out */
#define FIRST_WRAPPED 300           /* the kernel's RESERVED_PIDS: where numbers go on after the highest one */

int sw_proc_last_pid(SwPort *port, pid_t *ret_pid)
{
    SwProc *proc = sw_posix_proc(port);
    char text[128];
    const char *last;
    ssize_t got;

    if (proc->loadavg_fd < 0)
        return -EOPNOTSUPP;
    got = TEMP_FAILURE_RETRY(pread(proc->loadavg_fd, text, sizeof text - 1, 0));
    if (got < 0)
        return -errno;
    text[got] = '\0';
    last = strrchr(text, ' ');
    if (!last)
        return -EBADMSG;
    *ret_pid = (pid_t)strtol(last, NULL, 10);
    return 0;
}

/* ---- children */

typedef struct {
    int tasks;
    pid_t *pids;
    guint n, max;
} Children;

/* 1: there is no room for more. */
static int take_numbers(Children *children, const char *list)
{
    char *end;

    for (const char *at = list; children->n < children->max; at = end) {
        long pid = strtol(at, &end, 10);

        if (end == at)
            return 0;
        children->pids[children->n++] = (pid_t)pid;
    }
    return 1;
}

static int visit_children(pid_t tid, void *data)
{
    Children *children = data;
    char path[SW_PROC_BASE_SIZE];
    g_auto(SwProcText) list = {.big = NULL};

    (void)snprintf(path, sizeof path, "%d/children", tid);
    if (sw_proc_read(children->tasks, path, &list) < 0)
        return 0; /* that thread is gone; its children have another parent now */
    return take_numbers(children, list.text);
}

static int list_children(SwProc *proc, pid_t tgid, Children *children)
{
    sw_autofd int tasks = -1;
    char path[SW_PROC_BASE_SIZE];

    (void)snprintf(path, sizeof path, "%d/task", tgid);
    tasks = openat(proc->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tasks < 0)
        return -errno;
    children->tasks = tasks;
    return sw_proc_each(tasks, visit_children, children);
}

/* The kernel tells the number of threads in the links of the directory: two, and one for each (proc_task_getattr in
 * fs/proc/base.c). */
static gboolean has_one_thread(SwKept *kept)
{
    int tasks = sw_kept_file(kept, SW_KEPT_TASKS);
    struct stat st;

    return tasks >= 0 && fstat(tasks, &st) == 0 && st.st_nlink == 3;
}

/*
 * Most processes have one thread and few children: then one read tells of all.  A page is always filled before a
 * list goes on in the next read (seq_read_iter in fs/seq_file.c).  FALSE: it is to be listed.  Of who has ended this
 * tells no children, and so it is: they have another parent.
 */
static gboolean read_children(SwProc *proc, pid_t tgid, Children *children)
{
    g_autoptr(SwKept) kept = sw_kept_find(proc->keepers, tgid);
    char list[1024];
    ssize_t got = -1;
    int fd;

    if (!kept || !has_one_thread(kept))
        return FALSE;
    fd = sw_kept_file(kept, SW_KEPT_CHILDREN);
    if (fd >= 0)
        got = TEMP_FAILURE_RETRY(pread(fd, list, sizeof list - 1, 0));
    if (got < 0 || got >= (ssize_t)sizeof list / 2)
        return FALSE;
    list[got] = '\0';
    take_numbers(children, list);
    return TRUE;
}

int sw_proc_children(SwPort *port, pid_t tgid, pid_t *ret_pids, guint max)
{
    SwProc *proc = sw_posix_proc(port);
    Children children = {.pids = ret_pids, .max = max};
    int r;

    if (proc->fd < 0 || !proc->has_children)
        return -EOPNOTSUPP;
    if (tgid <= 0)
        return -EINVAL;
    if (read_children(proc, tgid, &children))
        return (int)children.n;
    r = list_children(proc, tgid, &children);
    return r < 0 ? sw_proc_error(tgid, r) : (int)children.n;
}

/* ---- the pids of a range */

typedef struct {
    pid_t after, upto;
    pid_t *pids;
    guint n, max;
} Range;

static gboolean in_range(const Range *range, pid_t pid)
{
    if (range->after <= range->upto)
        return pid > range->after && pid <= range->upto;
    return pid > range->after || pid <= range->upto;
}

static int visit_process(pid_t pid, void *data)
{
    Range *range = data;

    if (!in_range(range, pid))
        return 0;
    if (range->n == range->max)
        return -E2BIG;
    range->pids[range->n++] = pid;
    return 0;
}

/* Signal 0 to thread `pid` of process `pid`: ESRCH unless that is the first thread of a process. */
static gboolean is_process(pid_t pid)
{
    return syscall(SYS_tgkill, pid, pid, 0) == 0 || errno != ESRCH;
}

/* The pids first..last, one by one. */
static int probe(Range *range, pid_t first, pid_t last)
{
    int r = 0;

    for (pid_t pid = first; pid <= last && r == 0; pid++)
        if (is_process(pid))
            r = visit_process(pid, range);
    return r;
}

static int list_all(SwProc *proc, Range *range)
{
    /* A descriptor of its own, since reading a directory moves the position. */
    sw_autofd int fd = openat(proc->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? -errno : sw_proc_each(fd, visit_process, range);
}

static int read_pid_max(SwProc *proc, pid_t *ret_max)
{
    g_auto(SwProcText) text = {.big = NULL};
    int r = sw_proc_read(proc->fd, "sys/kernel/pid_max", &text);

    if (r < 0)
        return r;
    *ret_max = (pid_t)strtol(text.text, NULL, 10);
    return 0;
}

static int probe_wrapped(SwProc *proc, Range *range, pid_t pid_max)
{
    int r = probe(range, range->after + 1, pid_max - 1);

    if (r < 0)
        return r;
    return probe(range, range->upto < FIRST_WRAPPED ? 1 : FIRST_WRAPPED, range->upto);
}

static int find_between(SwProc *proc, Range *range)
{
    gboolean wrapped = range->after > range->upto;
    pid_t pid_max = 0;
    int r = wrapped ? read_pid_max(proc, &pid_max) : 0;

    if (r < 0)
        return r;
    if ((gint64)range->upto - range->after + pid_max > PROBE_MAX)
        return proc->hides ? -E2BIG : list_all(proc, range);
    return wrapped ? probe_wrapped(proc, range, pid_max) : probe(range, range->after + 1, range->upto);
}

int sw_proc_pids_between(SwPort *port, pid_t after, pid_t upto, pid_t *ret_pids, guint max)
{
    SwProc *proc = sw_posix_proc(port);
    Range range = {.after = after, .upto = upto, .pids = ret_pids, .max = max};
    int r;

    if (proc->fd < 0)
        return -EOPNOTSUPP;
    if (after < 0 || upto < 0 || after > PID_LIMIT || upto > PID_LIMIT)
        return -EINVAL;
    r = find_between(proc, &range);
    return r < 0 ? r : (int)range.n;
}
