/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "port_internal.h"

#include <errno.h>
#include <fcntl.h>

/* ---- processes: what /proc would tell, without fault and without being counted */

void sim_processes_init(SimProcesses *processes)
{
    processes->by_pid = g_hash_table_new(NULL, NULL);
    processes->last_pid = 100;
}

static void process_free(gpointer key, gpointer value, gpointer data)
{
    SimProcess *process = value;

    (void)key;
    (void)data;
    g_array_unref(process->fds);
    g_free(process);
}

void sim_processes_clear(SimProcesses *processes)
{
    g_hash_table_foreach(processes->by_pid, process_free, NULL);
    g_hash_table_unref(processes->by_pid);
}

SimProcess *sim_process_new(SimProcesses *processes, pid_t ppid)
{
    SimProcess *process = g_new0(SimProcess, 1);

    process->pid = ++processes->last_pid;
    process->ppid = ppid;
    process->fds = g_array_new(FALSE, TRUE, sizeof(SimDescriptor));
    g_hash_table_insert(processes->by_pid, GINT_TO_POINTER(process->pid), process);
    return process;
}

static SimProcess *find(SwPort *port, pid_t pid)
{
    SimProcesses *processes = ((SimPort *)port)->processes;
    SimProcess *process = processes ? g_hash_table_lookup(processes->by_pid, GINT_TO_POINTER(pid)) : NULL;

    return process && !process->gone ? process : NULL;
}

static int sim_process(SwPort *port, pid_t tid, SwProcess *ret_process)
{
    SimProcess *process = find(port, tid);

    if (!process)
        return -ESRCH;
    *ret_process = (SwProcess){.tgid = process->pid, .ppid = process->ppid, .exiting = process->exiting};
    return 0;
}

static int sim_thread_group(SwPort *port, pid_t tid, pid_t *ret_tgid)
{
    SimProcess *process = find(port, tid);

    if (!process)
        return -ESRCH;
    *ret_tgid = process->pid;
    return 0;
}

static int sim_exit_status(SwPort *port, pid_t tid, int *ret_status)
{
    SimProcess *process = find(port, tid);

    if (!process)
        return -ESRCH;
    *ret_status = process->status;
    return 0;
}

static int sim_holdings(SwPort *port, pid_t tgid, dev_t dev, ino_t ino, SwHoldings *ret_holdings)
{
    SimProcess *process = find(port, tgid);
    SwHoldings holdings = {.only_fd = -1, .complete = TRUE};

    (void)dev;
    if (!process)
        return -ESRCH;
    for (guint i = 0; i < process->fds->len; i++) {
        const SimDescriptor *fd = &g_array_index(process->fds, SimDescriptor, i);

        if (!fd->writes || fd->ino != ino)
            continue;
        holdings.only_fd = holdings.n_writers++ ? -1 : fd->number;
    }
    *ret_holdings = holdings;
    return 0;
}

static int sim_mapped(SwPort *port, pid_t tgid, dev_t dev, ino_t ino)
{
    (void)dev;
    (void)ino;
    return find(port, tgid) ? 0 : -ESRCH;
}

static int sim_last_pid(SwPort *port, pid_t *ret_pid)
{
    if (!((SimPort *)port)->processes)
        return -ENOENT;
    *ret_pid = ((SimPort *)port)->processes->last_pid;
    return 0;
}

static int sim_children(SwPort *port, pid_t tgid, pid_t *ret_pids, guint max)
{
    SimProcesses *processes = ((SimPort *)port)->processes;
    guint n = 0;

    for (pid_t pid = 1; processes && pid <= processes->last_pid && n < max; pid++) {
        SimProcess *process = find(port, pid);

        if (process && process->ppid == tgid)
            ret_pids[n++] = pid;
    }
    return (int)n;
}

static int sim_pids_between(SwPort *port, pid_t after, pid_t upto, pid_t *ret_pids, guint max)
{
    guint n = 0;

    for (pid_t pid = after + 1; pid <= upto; pid++) {
        if (!find(port, pid))
            continue;
        if (n == max)
            return -E2BIG;
        ret_pids[n++] = pid;
    }
    return (int)n;
}

static int sim_pid_watch(SwPort *port, pid_t tgid, guint64 *ret_id)
{
    int fd;

    if (((SimPort *)port)->dead || !find(port, tgid))
        return -ESRCH;
    fd = ((SimPort *)port)->real->openat(((SimPort *)port)->real, AT_FDCWD, "/dev/null", O_RDONLY, 0);
    if (fd >= 0)
        g_hash_table_add(((SimPort *)port)->fds, GINT_TO_POINTER(fd));
    *ret_id = (guint64)tgid;
    return fd;
}

static void sim_pid_unwatch(SwPort *port, int fd)
{
    (void)port->close(port, fd);
}

/* Pids are never used twice here. */
static int sim_pid_ended(SwPort *port, int fd, pid_t tgid, int *ret_status)
{
    SimProcesses *processes = ((SimPort *)port)->processes;
    const SimProcess *process = g_hash_table_lookup(processes->by_pid, GINT_TO_POINTER(tgid));

    (void)fd;
    if (!process->gone)
        return 0;
    *ret_status = process->status;
    return 1;
}

static int sim_pids_ended(SwPort *port, const int *fds, const pid_t *tgids, guint n, gboolean *ret_ended)
{
    int status;

    for (guint i = 0; i < n; i++)
        ret_ended[i] = sim_pid_ended(port, fds[i], tgids[i], &status) == 1;
    return 0;
}

static int sim_groups(SwPort *port, pid_t tid, SwCred *cred)
{
    (void)port;
    (void)tid;
    cred->n_groups = 0;
    return 0;
}

static void sim_comm(SwPort *port, pid_t tgid, char *ret_comm, size_t size)
{
    (void)port;
    g_snprintf(ret_comm, size, "p%d", tgid);
}

static void sim_tidy(SwPort *port)
{
    (void)port;
}

void sim_port_bind_processes(SwPort *port)
{
    port->process = sim_process;
    port->thread_group = sim_thread_group;
    port->exit_status = sim_exit_status;
    port->holdings = sim_holdings;
    port->mapped = sim_mapped;
    port->last_pid = sim_last_pid;
    port->children = sim_children;
    port->pids_between = sim_pids_between;
    port->pid_watch = sim_pid_watch;
    port->pid_unwatch = sim_pid_unwatch;
    port->pid_ended = sim_pid_ended;
    port->pids_ended = sim_pids_ended;
    port->groups = sim_groups;
    port->comm = sim_comm;
    port->tidy_processes = sim_tidy;
}
