/* SPDX-License-Identifier: GPL-2.0-or-later */

/* One process: what it is, how it ended, its groups and its name.  proc.h says what may be read of whom. */

#include "proc.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#define TEXT_MAX (1024 * 1024) /* a status with all the groups a process can have */

/* ---- the mount */

static gboolean on_procfs(int fd)
{
    struct statfs st;

    /* Containers like to mount files of their own over some of /proc; those tell of other things. */
    return fstatfs(fd, &st) == 0 && st.f_type == PROC_SUPER_MAGIC;
}

/* Is it ours?  The /proc of another pid namespace has other processes under our numbers. */
static gboolean shows_us(int fd)
{
    char self[16] = "", expected[16];

    (void)snprintf(expected, sizeof expected, "%d", getpid());
    if (readlinkat(fd, "self", self, sizeof self - 1) < 0)
        return FALSE;
    return strcmp(self, expected) == 0;
}

static int open_checked(int dirfd, const char *path, int flags)
{
    int fd = openat(dirfd, path, flags | O_CLOEXEC);

    if (fd >= 0 && !on_procfs(fd)) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

static void learn_anon_inode(SwProc *proc)
{
    sw_autofd int fd = eventfd(0, EFD_CLOEXEC);
    char path[SW_PROC_BASE_SIZE];
    SwProcFdinfo info;

    (void)snprintf(path, sizeof path, "self/fdinfo/%d", fd);
    if (fd < 0 || sw_proc_read_fdinfo(proc->fd, path, &info) < 0)
        return;
    proc->anon.mount = info.mount;
    proc->anon.ino = info.ino;
}

SwProc *sw_proc_new(void)
{
    SwProc *proc = g_new0(SwProc, 1);

    proc->refs = 1;
    sw_mutex_init(&proc->maps.lock);
    sw_mutex_init(&proc->ends.lock);
    (void)pthread_cond_init(&proc->maps.wanted, NULL);
    g_queue_init(&proc->maps.jobs);
    proc->loadavg_fd = -1;
    proc->fd = open_checked(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY);
    if (proc->fd >= 0 && !shows_us(proc->fd)) {
        (void)close(proc->fd);
        proc->fd = -1;
    }
    if (proc->fd < 0)
        return proc;
    proc->loadavg_fd = open_checked(proc->fd, "loadavg", O_RDONLY);
    proc->keepers = sw_keepers_new(proc->fd);
    proc->has_children = faccessat(proc->fd, "thread-self/children", F_OK, 0) == 0;
    proc->hides = faccessat(proc->fd, "1", F_OK, 0) < 0;
    learn_anon_inode(proc);
    return proc;
}

SwProc *sw_proc_ref(SwProc *proc)
{
    g_atomic_int_inc(&proc->refs);
    return proc;
}

void sw_proc_unref(SwProc *proc)
{
    if (!g_atomic_int_dec_and_test(&proc->refs))
        return;
    sw_keepers_free(proc->keepers);
    if (proc->loadavg_fd >= 0)
        (void)close(proc->loadavg_fd);
    if (proc->fd >= 0)
        (void)close(proc->fd);
    (void)pthread_cond_destroy(&proc->maps.wanted);
    sw_mutex_clear(&proc->maps.lock);
    sw_exits_free(proc->ends.exits);
    sw_mutex_clear(&proc->ends.lock);
    g_free(proc);
}

/* ---- reading */

static ssize_t read_to_end(int fd, char *buf, gsize size, gsize done)
{
    while (done < size) {
        ssize_t got = TEMP_FAILURE_RETRY(read(fd, buf + done, size - done));

        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += got;
    }
    return (ssize_t)done;
}

static int read_text(int fd, SwProcText *ret_text)
{
    gsize room = sizeof ret_text->small - 1;
    ssize_t got = read_to_end(fd, ret_text->small, room, 0);

    ret_text->big = NULL;
    ret_text->text = ret_text->small;
    if (got == (ssize_t)room) {
        ret_text->text = ret_text->big = g_malloc(TEXT_MAX + 1);
        memcpy(ret_text->big, ret_text->small, room);
        got = read_to_end(fd, ret_text->big, TEXT_MAX, room);
    }
    if (got < 0) {
        sw_proc_text_clear(ret_text);
        return (int)got;
    }
    ret_text->length = got;
    ret_text->text[got] = '\0';
    return 0;
}

/* All that is read at once is of one moment; and the kernel gives as much of such a file as there is room for. */
static int read_again(int fd, SwProcText *ret_text)
{
    gsize room = sizeof ret_text->small - 1;
    ssize_t got = TEMP_FAILURE_RETRY(pread(fd, ret_text->small, room, 0));

    ret_text->big = NULL;
    ret_text->text = ret_text->small;
    if (got == (ssize_t)room) {
        ret_text->text = ret_text->big = g_malloc(TEXT_MAX + 1);
        got = TEMP_FAILURE_RETRY(pread(fd, ret_text->big, TEXT_MAX, 0));
    }
    if (got < 0) {
        int error = -errno;

        sw_proc_text_clear(ret_text);
        return error;
    }
    ret_text->length = got;
    ret_text->text[got] = '\0';
    return 0;
}

int sw_proc_read(int dirfd, const char *path, SwProcText *ret_text)
{
    sw_autofd int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

    ret_text->big = NULL;
    return fd < 0 ? -errno : read_text(fd, ret_text);
}

void sw_proc_text_clear(SwProcText *text)
{
    g_clear_pointer(&text->big, g_free);
}

/* The text after a key such as "\nTgid:\t", or NULL.  The kernel escapes line ends in the names that users choose. */
static const char *after(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    return at ? at + strlen(key) : NULL;
}

int sw_proc_parse_fdinfo(int fd, SwProcFdinfo *ret_info)
{
    ssize_t got = TEMP_FAILURE_RETRY(pread(fd, ret_info->text, sizeof ret_info->text - 1, 0));
    const char *flags, *mount, *ino;

    if (got < 0)
        return -errno;
    ret_info->text[got] = '\0';
    flags = after(ret_info->text, "\nflags:\t");
    mount = after(ret_info->text, "\nmnt_id:\t");
    ino = after(ret_info->text, "\nino:\t");
    if (!flags || !mount || !ino)
        return -EBADMSG;
    ret_info->flags = (int)strtol(flags, NULL, 8);
    ret_info->mount = (int)strtol(mount, NULL, 10);
    ret_info->ino = strtoull(ino, NULL, 10);
    return 0;
}

int sw_proc_read_fdinfo(int dirfd, const char *name, SwProcFdinfo *ret_info)
{
    sw_autofd int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);

    return fd < 0 ? -errno : sw_proc_parse_fdinfo(fd, ret_info);
}

int sw_proc_error(pid_t pid, int error)
{
    if (error != -ENOENT && error != -ESRCH)
        return error;
    /* Under hidepid other users' processes look like gone ones, and "gone" is what locks are broken upon. */
    if (kill(pid, 0) == 0 || errno == EPERM)
        return -EACCES;
    return -ESRCH;
}

/* A file of one process, "<pid>/<file>". */
static int read_of(SwProc *proc, pid_t pid, const char *file, SwProcText *ret_text)
{
    char path[SW_PROC_BASE_SIZE];
    int r;

    ret_text->big = NULL;
    if (proc->fd < 0)
        return -EOPNOTSUPP;
    if (pid <= 0)
        return -EINVAL; /* a pid of 0 is "unknown", which is not the same as "gone" */
    (void)snprintf(path, sizeof path, "%d/%s", pid, file);
    r = sw_proc_read(proc->fd, path, ret_text);
    return r < 0 ? sw_proc_error(pid, r) : 0;
}

/* The file that is kept of a process, read; and the process.  One that has ended is kept no longer, for its number may
 * be another's by now. */
static int read_kept(SwProc *proc, pid_t pid, SwKeptFile which, SwProcText *ret_text, SwKept **ret_kept)
{
    gboolean known = TRUE;
    int r = -ESRCH;

    ret_text->big = NULL;
    if (proc->fd < 0)
        return -EOPNOTSUPP;
    if (pid <= 0)
        return -EINVAL;
    while (known && (r == -ENOENT || r == -ESRCH)) {
        g_autoptr(SwKept) kept = NULL;

        r = sw_kept_get(proc->keepers, pid, &kept, &known);
        if (r == 0)
            r = sw_kept_file(kept, which);
        if (r >= 0)
            r = read_again(r, ret_text);
        if (r == 0)
            *ret_kept = g_steal_pointer(&kept);
        else if (kept)
            sw_kept_drop(proc->keepers, kept);
    }
    return r < 0 ? sw_proc_error(pid, r) : 0;
}

static int each_in_block(const char *buf, ssize_t size, SwProcVisit visit, void *data)
{
    int r = 0;

    for (ssize_t at = 0; at < size && r == 0;) {
        const struct dirent64 *entry = (const void *)(buf + at);

        at += entry->d_reclen;
        if (isdigit((guchar)entry->d_name[0]))
            r = visit((pid_t)strtol(entry->d_name, NULL, 10), data);
    }
    return r;
}

int sw_proc_each(int dirfd, SwProcVisit visit, void *data)
{
    _Alignas(struct dirent64) char buf[8192];

    for (;;) {
        ssize_t size = syscall(SYS_getdents64, dirfd, buf, sizeof buf);
        int r;

        if (size <= 0)
            return size < 0 ? -errno : 0;
        r = each_in_block(buf, size, visit, data);
        if (r != 0)
            return r;
    }
}

/* ---- threads */

void sw_proc_base(char ret_base[SW_PROC_BASE_SIZE], pid_t tgid)
{
    (void)snprintf(ret_base, SW_PROC_BASE_SIZE, "%d", tgid);
}

struct live {
    int tasks; /* <tgid>/task */
    pid_t tid;
};

/* "<pages> <resident> <shared> <text> ...", read in one piece. */
static SwProcMemory memory_of(const char *statm)
{
    guint pages, text;

    if (sscanf(statm, "%u %*u %*u %u", &pages, &text) != 2 || pages == 0)
        return SW_PROC_NO_MEMORY;
    return text == 0 ? SW_PROC_NEW_MEMORY : SW_PROC_MEMORY;
}

static int read_memory(int fd, SwProcMemory *ret_memory)
{
    char statm[128];
    ssize_t got = TEMP_FAILURE_RETRY(pread(fd, statm, sizeof statm - 1, 0));

    if (got < 0)
        return -errno;
    statm[got] = '\0';
    *ret_memory = memory_of(statm);
    return 0;
}

int sw_proc_memory(int dirfd, pid_t tid, SwProcMemory *ret_memory)
{
    char path[SW_PROC_BASE_SIZE];
    sw_autofd int fd = -1;

    (void)snprintf(path, sizeof path, "%d/statm", tid);
    fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : read_memory(fd, ret_memory);
}

int sw_proc_memory_again(SwProc *proc, pid_t tgid, SwProcMemory *ret_memory)
{
    g_autoptr(SwKept) kept = sw_kept_find(proc->keepers, tgid);
    int fd = kept ? sw_kept_file(kept, SW_KEPT_STATM) : -ENOENT;

    /* One that has ended is asked for by its number, which may be another's by now. */
    return fd >= 0 && read_memory(fd, ret_memory) == 0 ? 0 : sw_proc_memory(proc->fd, tgid, ret_memory);
}

static int visit_task(pid_t tid, void *data)
{
    struct live *live = data;
    SwProcMemory memory;
    int r = sw_proc_memory(live->tasks, tid, &memory);

    if (r < 0)
        return r == -ENOENT || r == -ESRCH ? 0 : r; /* gone meanwhile */
    if (memory == SW_PROC_NO_MEMORY)
        return 0;
    live->tid = tid;
    return 1;
}

pid_t sw_proc_live_thread(SwProc *proc, pid_t tgid)
{
    struct live live = {.tid = 0};
    sw_autofd int tasks = -1;
    char path[SW_PROC_BASE_SIZE];
    int r;

    (void)snprintf(path, sizeof path, "%d/task", tgid);
    tasks = openat(proc->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = tasks < 0 ? -errno : 0;
    live.tasks = tasks;
    if (r == 0)
        r = sw_proc_each(tasks, visit_task, &live);
    if (r < 0)
        r = sw_proc_error(tgid, r);
    return r < 0 && r != -ESRCH ? r : live.tid;
}

void sw_proc_thread_base(char ret_base[SW_PROC_BASE_SIZE], pid_t tgid, pid_t tid)
{
    (void)snprintf(ret_base, SW_PROC_BASE_SIZE, "%d/task/%d", tgid, tid);
}

/* ---- status */

static gboolean number_after(const char *text, const char *key, int *ret_number)
{
    const char *at = after(text, key);

    if (!at)
        return FALSE;
    *ret_number = (int)strtol(at, NULL, 10);
    return TRUE;
}

static gboolean is_kernel_thread(const char *status, pid_t tid, pid_t ppid)
{
    int kthread;

    if (number_after(status, "\nKthread:\t", &kthread))
        return kthread != 0;
    return tid == 2 || ppid == 2; /* older kernels: kthreadd and its children */
}

/*
 * Past its last instruction: no thread of the process has memory any more.  The first thread may have ended before the
 * others (pthread_exit in main), or one thread while the process lives on, so a second look is needed if there are
 * more.
 */
static gboolean is_exiting(SwProc *proc, const char *status, pid_t tid, const SwProcess *process)
{
    int n_threads = 0;

    if (strstr(status, "\nVmSize:") || is_kernel_thread(status, tid, process->ppid))
        return FALSE;
    if (number_after(status, "\nThreads:\t", &n_threads) && n_threads <= 1)
        return TRUE;
    return sw_proc_live_thread(proc, process->tgid) == 0;
}

/* `set`: "\nShdPnd:\t" for what was sent to the whole process, "\nSigPnd:\t" for the thread's own. */
static gboolean has_kill(const char *status, const char *set)
{
    const char *at = after(status, set);

    return at && (g_ascii_strtoull(at, NULL, 16) & (G_GUINT64_CONSTANT(1) << (SIGKILL - 1)));
}

static int process_from_status(SwProc *proc, const char *status, pid_t tid, SwProcess *ret_process)
{
    SwProcess process = {0};

    if (!number_after(status, "\nTgid:\t", &process.tgid) || !number_after(status, "\nPPid:\t", &process.ppid))
        return -EBADMSG;
    sw_ignore(number_after(status, "\nNSpgid:\t", &process.group)); /* else 0 */
    sw_ignore(number_after(status, "\nNSsid:\t", &process.session));
    process.exiting = is_exiting(proc, status, tid, &process);
    process.killed = has_kill(status, "\nShdPnd:\t");
    /* Each fatal signal, and exit_group(2), puts a SIGKILL in the sets of all threads (complete_signal in
     * kernel/signal.c).
     */
    process.dying = process.killed || has_kill(status, "\nSigPnd:\t");
    process.working = strstr(status, "\nState:\tR") || strstr(status, "\nState:\tD");
    *ret_process = process;
    return 0;
}

static int proc_process(SwPort *port, pid_t tid, SwProcess *ret_process)
{
    SwProc *proc = sw_posix_proc(port);
    g_autoptr(SwKept) kept = NULL;
    g_auto(SwProcText) status;
    int r = read_kept(proc, tid, SW_KEPT_STATUS, &status, &kept);

    if (r == 0)
        r = process_from_status(proc, status.text, tid, ret_process);
    if (r == 0)
        sw_kept_set_tgid(kept, ret_process->tgid);
    return r;
}

/* A file that is cheap to read tells whether what is kept is still of the thread that has the number. */
static gboolean is_kept_alive(SwKept *kept)
{
    SwProcMemory memory;
    int fd = sw_kept_file(kept, SW_KEPT_STATM);

    return fd >= 0 && read_memory(fd, &memory) == 0;
}

static int proc_thread_group(SwPort *port, pid_t tid, pid_t *ret_tgid)
{
    SwProc *proc = sw_posix_proc(port);
    g_autoptr(SwKept) kept = proc->keepers ? sw_kept_find(proc->keepers, tid) : NULL;
    SwProcess process;
    int r;

    if (kept && sw_kept_tgid(kept) && is_kept_alive(kept)) {
        *ret_tgid = sw_kept_tgid(kept);
        return 0;
    }
    r = proc_process(port, tid, &process);
    if (r == 0)
        *ret_tgid = process.tgid;
    return r;
}

static void proc_tidy(SwPort *port)
{
    const SwProc *proc = sw_posix_proc(port);

    if (proc->keepers)
        sw_keepers_tidy(proc->keepers);
}

static int proc_groups(SwPort *port, pid_t tid, SwCred *cred)
{
    gid_t groups[G_N_ELEMENTS(cred->groups)];
    g_autoptr(SwKept) kept = NULL;
    g_auto(SwProcText) status;
    guint n = 0;
    const char *at;
    char *end;
    int r = read_kept(sw_posix_proc(port), tid, SW_KEPT_STATUS, &status, &kept);

    if (r < 0)
        return r;
    at = after(status.text, "\nGroups:\t");
    if (!at)
        return -EBADMSG;
    for (; isdigit((guchar)*at); at = *end == ' ' ? end + 1 : end) {
        if (n == G_N_ELEMENTS(groups))
            return -E2BIG;
        groups[n++] = (gid_t)strtoul(at, &end, 10);
    }
    memcpy(cred->groups, groups, n * sizeof *groups);
    cred->n_groups = n;
    return 0;
}

/* ---- how it ended */

/* Field 52 of `stat`.  The name in field 2 may contain anything, a ')' too; nothing after it does. */
static int parse_exit_code(const char *stat, int *ret_status)
{
    const char *at = strrchr(stat, ')');

    for (int field = 2; at && field < 52; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    if (!at || !isdigit((guchar)*at))
        return -EBADMSG;
    *ret_status = (int)strtol(at, NULL, 10);
    return 0;
}

/* Are all four ids of a status line (real, effective, saved, file system) this one? */
static gboolean ids_are(const char *status, const char *key, guint id)
{
    const char *at = after(status, key);
    guint ids[3];

    return at && sscanf(at, "%u %u %u", &ids[0], &ids[1], &ids[2]) == 3 && ids[0] == id && ids[1] == id && ids[2] == id;
}

/* The kernel shows exit codes to those who might trace the process, and a plain 0 to all others. */
static gboolean may_see_exit_code(const char *status)
{
    return geteuid() == 0 || (ids_are(status, "\nUid:\t", geteuid()) && ids_are(status, "\nGid:\t", getegid()));
}

static int read_exit_code(int stat_fd, pid_t tid, int *ret_status)
{
    g_auto(SwProcText) stat = {.big = NULL};
    int r = read_text(stat_fd, &stat);

    return r < 0 ? sw_proc_error(tid, r) : parse_exit_code(stat.text, ret_status);
}

static int proc_exit_status(SwPort *port, pid_t tid, int *ret_status)
{
    SwProc *proc = sw_posix_proc(port);
    char path[SW_PROC_BASE_SIZE];
    g_auto(SwProcText) status = {.big = NULL};
    sw_autofd int stat_fd = -1;
    SwProcess process;
    int r, code = 0;

    /* Opened first, and only then looked at again: the descriptor is tied to the process, so a successor under the
     * same number, which might be inside execve, is never read. */
    (void)snprintf(path, sizeof path, "%d/stat", tid);
    stat_fd = proc->fd < 0 ? -1 : openat(proc->fd, path, O_RDONLY | O_CLOEXEC);
    r = read_of(proc, tid, "status", &status);
    if (r == 0)
        r = process_from_status(proc, status.text, tid, &process);
    if (r < 0)
        return r;
    if (!process.exiting)
        return -EBUSY;
    if (stat_fd < 0)
        return -ESRCH;
    r = read_exit_code(stat_fd, tid, &code);
    if (r < 0)
        return r;
    if (code == 0 && !may_see_exit_code(status.text))
        return -EACCES;
    *ret_status = code;
    return 0;
}

/* ---- its name */

static void proc_comm(SwPort *port, pid_t tgid, char *ret_comm, size_t size)
{
    g_auto(SwProcText) comm;

    if (size == 0)
        return;
    if (read_of(sw_posix_proc(port), tgid, "comm", &comm) < 0 || comm.length <= 1) {
        (void)g_strlcpy(ret_comm, "?", size);
        return;
    }
    comm.text[comm.length - 1] = '\0'; /* the line end the kernel adds */
    for (char *at = comm.text; *at; at++)
        if (!g_ascii_isprint(*at))
            *at = '?';
    (void)g_strlcpy(ret_comm, comm.text, size);
}

void sw_proc_bind(SwPort *port)
{
    port->process = proc_process;
    port->thread_group = proc_thread_group;
    port->exit_status = proc_exit_status;
    port->groups = proc_groups;
    port->comm = proc_comm;
    port->tidy_processes = proc_tidy;
    port->holdings = sw_proc_holdings;
    port->mapped = sw_proc_mapped;
    port->last_pid = sw_proc_last_pid;
    port->children = sw_proc_children;
    port->pids_between = sw_proc_pids_between;
    port->pid_watch = sw_proc_watch;
    port->pid_unwatch = sw_proc_unwatch;
    port->pid_ended = sw_proc_ended;
    port->pids_ended = sw_proc_watched_ended;
}
