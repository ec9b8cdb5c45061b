/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "port_sim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define TRACE_LINES 48
#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

/* What a call may suffer. */
enum {
    MAY_FAIL = 1,  /* an error of the source */
    MAY_FILL = 2,  /* no space */
    MAY_SPLIT = 4, /* half of it may be done */
};

typedef struct {
    SwPort base;
    SwPort *real; /* owned */
    SimWorld *world;
    SimProcesses *processes;
    guint machine;
    GHashTable *fds; /* set of open descriptors */
    int boot_fd;     /* the one that reads the boot id, or -1 */
    int cut;         /* the error of all calls, while the server cannot be reached; 0: it can */
    gint64 ahead_us; /* of its boot clock, to the world's */
    SimPlan plan;
    guint64 calls;
    gboolean struck, dead;
    gboolean lose, last; /* of the call under way: lose its reply, die after it */
    GQueue trace;        /* of char *, owned */
    GByteArray *mays;    /* what each call may suffer */
} SimPort;

static const char *const fault_names[] = {"none",       "fail",      "lost reply", "short",
                                          "die before", "die after", "die half",   "pause"};

const char *sim_fault_name(SimFault fault)
{
    return fault_names[fault];
}

/* xorshift64*: small, and the same everywhere. */
guint64 sim_random(SimWorld *world)
{
    guint64 x = world->chance ? world->chance : 1;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    world->chance = x;
    return x * G_GUINT64_CONSTANT(0x2545F4914F6CDD1D);
}

static SimPort *of(SwPort *port)
{
    return (SimPort *)port;
}

static SwPort *real(SwPort *port)
{
    return of(port)->real;
}

/* ---- the plan */

static void remember(SimPort *sim, const char *member, const char *name)
{
    g_queue_push_tail(&sim->trace, g_strdup_printf("%3" G_GUINT64_FORMAT " %s(%s)", sim->calls, member, name));
    if (sim->trace.length > TRACE_LINES)
        g_free(g_queue_pop_head(&sim->trace));
}

static void remember_result(SimPort *sim, gssize result, const char *what)
{
    char *line = g_queue_pop_tail(&sim->trace);

    g_queue_push_tail(&sim->trace, g_strdup_printf("%s = %" G_GSSIZE_FORMAT "%s", line, result, what));
    g_free(line);
}

void sim_port_kill(SwPort *port)
{
    SimPort *sim = of(port);
    GHashTableIter iter;
    gpointer fd;

    sim->dead = TRUE;
    g_hash_table_iter_init(&iter, sim->fds);
    while (g_hash_table_iter_next(&iter, &fd, NULL))
        (void)sim->real->close(sim->real, GPOINTER_TO_INT(fd));
    g_hash_table_remove_all(sim->fds);
}

static void let_others(SimPort *sim, gboolean planned)
{
    SimWorld *world = sim->world;

    if (!world->sched)
        return;
    if (planned)
        sim_sched_pass(world->sched, -1);
    else if (world->odds && sim_random(world) % world->odds == 0)
        sim_sched_pass(world->sched, (int)(sim_random(world) % sim_sched_count(world->sched)));
}

static gboolean harms(const SimPlan *plan, guint may)
{
    gboolean full = plan->error == ENOSPC || plan->error == EDQUOT;

    switch (plan->fault) {
    case SIM_FAIL:
    case SIM_LOST:
        return may & (full ? MAY_FILL : MAY_FAIL);
    case SIM_SHORT:
        return may & MAY_SPLIT;
    default:
        return TRUE;
    }
}

/* 0: go on with the call; else its result. */
static gssize refused(SwPort *port, const char *member, const char *name, guint may)
{
    SimPort *sim = of(port);
    SimFault fault;

    sim->lose = sim->last = FALSE;
    if (sim->dead || sim->cut)
        return sim->dead ? -EIO : -sim->cut;
    sim->calls++;
    sim->world->now_us++;
    g_byte_array_append(sim->mays, &(guint8){(guint8)may}, 1);
    remember(sim, member, name);
    gboolean planned = sim->calls == sim->plan.at || (sim->plan.again && sim->calls == sim->plan.again);
    fault = planned && harms(&sim->plan, may) ? sim->plan.fault : SIM_NONE;
    sim->struck |= fault != SIM_NONE;
    let_others(sim, fault == SIM_PAUSE);
    sim->lose = fault == SIM_LOST;
    sim->last = fault == SIM_DIE_AFTER || fault == SIM_DIE_HALF;
    if (fault == SIM_FAIL) {
        remember_result(sim, -sim->plan.error, " (planned)");
        return -sim->plan.error;
    }
    if (fault == SIM_DIE_BEFORE) {
        remember_result(sim, -EIO, " (dead before)");
        sim_port_kill(port);
        return -EIO;
    }
    return 0;
}

/* The result of a call that was done. */
static gssize done(SwPort *port, gssize result)
{
    SimPort *sim = of(port);

    remember_result(sim, result, sim->last ? " (dead after)" : sim->lose ? " (lost)" : "");
    if (sim->last) {
        sim_port_kill(port);
        return -EIO;
    }
    if (sim->lose && result >= 0)
        return -sim->plan.error;
    return result;
}

static int done_open(SwPort *port, int fd)
{
    SimPort *sim = of(port);
    int result;

    if (fd >= 0)
        g_hash_table_add(sim->fds, GINT_TO_POINTER(fd));
    result = (int)done(port, fd);
    if (fd >= 0 && result < 0 && g_hash_table_remove(sim->fds, GINT_TO_POINTER(fd)))
        (void)sim->real->close(sim->real, fd);
    return result;
}

/* How much of a write is done. */
static size_t portion(SwPort *port, size_t size)
{
    SimPort *sim = of(port);
    gboolean split = sim->calls == sim->plan.at && (sim->plan.fault == SIM_SHORT || sim->plan.fault == SIM_DIE_HALF);

    return split && size > 1 ? size / 2 : size;
}

/* ---- opening */

static int sim_become(SwPort *port, const SwCred *cred)
{
    (void)cred;
    return of(port)->dead ? -EIO : 0;
}

static int sim_openat(SwPort *port, int dirfd, const char *name, int flags, mode_t mode)
{
    int r = (int)refused(port, "openat", name, flags & O_CREAT ? MAY_FAIL | MAY_FILL : MAY_FAIL);

    if (r == 0)
        r = done_open(port, real(port)->openat(real(port), dirfd, name, flags, mode));
    if (r >= 0 && strcmp(name, BOOT_ID_PATH) == 0)
        of(port)->boot_fd = r;
    return r;
}

static int sim_open_beneath(SwPort *port, int dirfd, const char *path, int flags)
{
    int r = (int)refused(port, "open_beneath", path, MAY_FAIL);

    return r ? r : done_open(port, real(port)->open_beneath(real(port), dirfd, path, flags));
}

static int sim_reopen(SwPort *port, int fd, int flags)
{
    int r = (int)refused(port, "reopen", "", MAY_FAIL);

    return r ? r : done_open(port, real(port)->reopen(real(port), fd, flags));
}

/* The descriptor goes whatever close(2) says. */
static int sim_close(SwPort *port, int fd)
{
    SimPort *sim = of(port);
    int r = (int)refused(port, "close", "", MAY_FAIL);

    if (sim->boot_fd == fd)
        sim->boot_fd = -1;
    if (!g_hash_table_remove(sim->fds, GINT_TO_POINTER(fd))) {
        if (!sim->dead)
            g_error("close(%d) of what is not open", fd);
        return -EIO;
    }
    if (r == 0)
        return (int)done(port, sim->real->close(sim->real, fd));
    (void)sim->real->close(sim->real, fd);
    return r;
}

/* ---- attributes */

static gint64 real_ns(clockid_t clock)
{
    struct timespec now = {0};

    (void)clock_gettime(clock, &now);
    return now.tv_sec * (gint64)1000000000 + now.tv_nsec;
}

void sim_age(SimWorld *world)
{
    world->aged_ns = real_ns(CLOCK_REALTIME);
    while (real_ns(CLOCK_REALTIME_COARSE) <= world->aged_ns) /* by either the kernel may date what comes now */
        g_usleep(1000);
}

static void age(const SimWorld *world, struct stat *st)
{
    if (world->aged_ns && st->st_ctim.tv_sec * (gint64)1000000000 + st->st_ctim.tv_nsec > world->aged_ns)
        st->st_ctim.tv_sec += 3600;
}

static int sim_statat(SwPort *port, int dirfd, const char *name, struct stat *ret_st)
{
    gssize r = refused(port, "statat", name, MAY_FAIL);

    if (r)
        return (int)r;
    r = real(port)->statat(real(port), dirfd, name, ret_st);
    if (r == 0)
        age(of(port)->world, ret_st);
    return (int)done(port, r);
}

/* The directory is a local one, which caches nothing. */
static int sim_stat_fresh(SwPort *port, int dirfd, const char *name, struct stat *ret_st)
{
    gssize r = refused(port, "stat_fresh", name, MAY_FAIL);

    if (r)
        return (int)r;
    r = real(port)->stat_fresh(real(port), dirfd, name, ret_st);
    if (r == 0)
        age(of(port)->world, ret_st);
    return (int)done(port, r);
}

static int sim_lookat(SwPort *port, int dirfd, const char *name, SwFound *ret_found)
{
    gssize r = refused(port, "lookat", name, MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->lookat(real(port), dirfd, name, ret_found)));
}

static int sim_chmodat(SwPort *port, int dirfd, const char *name, mode_t mode)
{
    gssize r = refused(port, "chmodat", name, MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->chmodat(real(port), dirfd, name, mode)));
}

static int sim_chownat(SwPort *port, int dirfd, const char *name, uid_t uid, gid_t gid)
{
    gssize r = refused(port, "chownat", name, MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->chownat(real(port), dirfd, name, uid, gid)));
}

static int sim_utimensat(SwPort *port, int dirfd, const char *name, const struct timespec times[2])
{
    gssize r = refused(port, "utimensat", name, MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->utimensat(real(port), dirfd, name, times)));
}

static ssize_t sim_getxattr(SwPort *port, int dirfd, const char *name, const char *key, void *buf, size_t size)
{
    gssize r = refused(port, "getxattr", key, MAY_FAIL);

    return r ? r : done(port, real(port)->getxattr(real(port), dirfd, name, key, buf, size));
}

static ssize_t sim_listxattr(SwPort *port, int dirfd, const char *name, char *buf, size_t size)
{
    gssize r = refused(port, "listxattr", name, MAY_FAIL);

    return r ? r : done(port, real(port)->listxattr(real(port), dirfd, name, buf, size));
}

static int sim_setxattr(SwPort *port, int dirfd, const char *name, const char *key, const void *value, size_t size,
                        int flags)
{
    gssize r = refused(port, "setxattr", key, MAY_FAIL | MAY_FILL);

    return (int)(r ? r : done(port, real(port)->setxattr(real(port), dirfd, name, key, value, size, flags)));
}

static int sim_removexattr(SwPort *port, int dirfd, const char *name, const char *key)
{
    gssize r = refused(port, "removexattr", key, MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->removexattr(real(port), dirfd, name, key)));
}

static int sim_accessat(SwPort *port, int dirfd, const char *name, int mode)
{
    gssize r = refused(port, "accessat", name, MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->accessat(real(port), dirfd, name, mode)));
}

static int sim_statvfs(SwPort *port, int fd, struct statvfs *ret_st)
{
    gssize r = refused(port, "statvfs", "", MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->statvfs(real(port), fd, ret_st)));
}

static int sim_fs_type(SwPort *port, int fd, guint64 *ret_type)
{
    gssize r = refused(port, "fs_type", "", MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->fs_type(real(port), fd, ret_type)));
}

/* ---- names */

static int sim_mkdirat(SwPort *port, int dirfd, const char *name, mode_t mode)
{
    gssize r = refused(port, "mkdirat", name, MAY_FAIL | MAY_FILL);

    return (int)(r ? r : done(port, real(port)->mkdirat(real(port), dirfd, name, mode)));
}

static int sim_mknodat(SwPort *port, int dirfd, const char *name, mode_t mode, dev_t dev)
{
    gssize r = refused(port, "mknodat", name, MAY_FAIL | MAY_FILL);

    return (int)(r ? r : done(port, real(port)->mknodat(real(port), dirfd, name, mode, dev)));
}

static int sim_symlinkat(SwPort *port, const char *target, int dirfd, const char *name)
{
    gssize r = refused(port, "symlinkat", name, MAY_FAIL | MAY_FILL);

    return (int)(r ? r : done(port, real(port)->symlinkat(real(port), target, dirfd, name)));
}

static ssize_t sim_readlinkat(SwPort *port, int dirfd, const char *name, char *buf, size_t size)
{
    gssize r = refused(port, "readlinkat", name, MAY_FAIL);

    return r ? r : done(port, real(port)->readlinkat(real(port), dirfd, name, buf, size));
}

static int sim_linkat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname)
{
    gssize r = refused(port, "linkat", newname, MAY_FAIL | MAY_FILL);

    return (int)(r ? r : done(port, real(port)->linkat(real(port), olddir, oldname, newdir, newname)));
}

static int sim_unlinkat(SwPort *port, int dirfd, const char *name, int flags)
{
    gssize r = refused(port, flags ? "rmdirat" : "unlinkat", name, MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->unlinkat(real(port), dirfd, name, flags)));
}

static int sim_renameat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    g_autofree char *both = g_strdup_printf("%s, %s, %u", oldname, newname, flags);
    gssize r = refused(port, "renameat", both, MAY_FAIL | MAY_FILL);

    return (int)(r ? r : done(port, real(port)->renameat(real(port), olddir, oldname, newdir, newname, flags)));
}

static ssize_t sim_getdents(SwPort *port, int fd, void *buf, size_t size)
{
    gssize r = refused(port, "getdents", "", MAY_FAIL);

    return r ? r : done(port, real(port)->getdents(real(port), fd, buf, size));
}

static int sim_seekdir(SwPort *port, int fd, off_t offset)
{
    gssize r = refused(port, "seekdir", "", MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->seekdir(real(port), fd, offset)));
}

/* ---- data */

static ssize_t sim_pread(SwPort *port, int fd, void *buf, size_t size, off_t offset)
{
    SimPort *sim = of(port);
    gssize r = refused(port, "pread", "", MAY_FAIL);
    char id[40];

    if (r || fd != sim->boot_fd)
        return r ? r : done(port, real(port)->pread(real(port), fd, buf, size, offset));
    (void)snprintf(id, sizeof id, "5eed0000-0000-4000-8000-%012u\n", sim->machine);
    size = MIN(size, strlen(id));
    memcpy(buf, id, size);
    return done(port, (gssize)size);
}

static ssize_t sim_pwrite(SwPort *port, int fd, const void *buf, size_t size, off_t offset)
{
    gssize r = refused(port, "pwrite", "", MAY_FAIL | MAY_FILL | MAY_SPLIT);

    return r ? r : done(port, real(port)->pwrite(real(port), fd, buf, portion(port, size), offset));
}

static int sim_ftruncate(SwPort *port, int fd, off_t size)
{
    gssize r = refused(port, "ftruncate", "", MAY_FAIL | MAY_FILL);

    return (int)(r ? r : done(port, real(port)->ftruncate(real(port), fd, size)));
}

static int sim_fallocate(SwPort *port, int fd, int mode, off_t offset, off_t length)
{
    gssize r = refused(port, "fallocate", "", MAY_FAIL | MAY_FILL);

    return (int)(r ? r : done(port, real(port)->fallocate(real(port), fd, mode, offset, length)));
}

static off_t sim_lseek(SwPort *port, int fd, off_t offset, int whence)
{
    gssize r = refused(port, "lseek", "", MAY_FAIL);

    return r ? r : done(port, real(port)->lseek(real(port), fd, offset, whence));
}

/* Nobody cuts the power here, so the real one would only cost time. */
static int sim_fsync(SwPort *port, int fd, gboolean data_only)
{
    gssize r = refused(port, "fsync", "", MAY_FAIL | MAY_FILL);

    (void)fd;
    (void)data_only;
    return (int)(r ? r : done(port, 0));
}

static int sim_clone(SwPort *port, int from, int to)
{
    gssize r = refused(port, "clone", "", MAY_FAIL | MAY_FILL);

    return (int)(r ? r : done(port, real(port)->clone(real(port), from, to)));
}

static ssize_t sim_copy_range(SwPort *port, int from, off_t from_offset, int to, off_t to_offset, size_t size)
{
    gssize r = refused(port, "copy_range", "", MAY_FAIL | MAY_FILL | MAY_SPLIT);

    /* Halving a length that reaches far beyond the end would halve nothing. */
    size = portion(port, MIN(size, (size_t)64));
    return r ? r : done(port, real(port)->copy_range(real(port), from, from_offset, to, to_offset, size));
}

static int sim_try_flock(SwPort *port, int fd)
{
    gssize r = refused(port, "try_flock", "", MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->try_flock(real(port), fd)));
}

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
    SimProcesses *processes = of(port)->processes;
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
    if (!of(port)->processes)
        return -ENOENT;
    *ret_pid = of(port)->processes->last_pid;
    return 0;
}

static int sim_children(SwPort *port, pid_t tgid, pid_t *ret_pids, guint max)
{
    SimProcesses *processes = of(port)->processes;
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

    if (of(port)->dead || !find(port, tgid))
        return -ESRCH;
    fd = real(port)->openat(real(port), AT_FDCWD, "/dev/null", O_RDONLY, 0);
    if (fd >= 0)
        g_hash_table_add(of(port)->fds, GINT_TO_POINTER(fd));
    *ret_id = (guint64)tgid;
    return fd;
}

/* Pids are never used twice here. */
static int sim_pid_ended(SwPort *port, int fd, pid_t tgid, int *ret_status)
{
    SimProcesses *processes = of(port)->processes;
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

/* ---- clock and chance */

static gint64 sim_now_us(SwPort *port)
{
    return of(port)->world->now_us + of(port)->ahead_us;
}

/* Wrong by a different amount on each machine (C23). */
static gint64 sim_wall_us(SwPort *port)
{
    return of(port)->world->now_us + of(port)->machine * G_TIME_SPAN_DAY;
}

/* Whoever waits, waits for others. */
static void sim_sleep_us(SwPort *port, gint64 us)
{
    SimWorld *world = of(port)->world;

    world->now_us += MAX(us, 1);
    if (world->sched)
        sim_sched_pass(world->sched, world->odds ? (int)(sim_random(world) % sim_sched_count(world->sched)) : -1);
}

static int sim_random_bytes(SwPort *port, void *buf, size_t size)
{
    guint8 *bytes = buf;

    if (of(port)->dead)
        return -EIO;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (guint8)(sim_random(of(port)->world) >> 32);
    return 0;
}

/* ---- making */

static void sim_free(SwPort *port)
{
    SimPort *sim = of(port);

    sim_port_kill(port);
    g_hash_table_unref(sim->fds);
    g_queue_clear_full(&sim->trace, g_free);
    g_byte_array_unref(sim->mays);
    sw_port_free(sim->real);
    g_free(sim);
}

static void bind_files(SwPort *port)
{
    port->become = sim_become;
    port->openat = sim_openat;
    port->open_beneath = sim_open_beneath;
    port->reopen = sim_reopen;
    port->close = sim_close;
    port->statat = sim_statat;
    port->stat_fresh = sim_stat_fresh;
    port->lookat = sim_lookat;
    port->chmodat = sim_chmodat;
    port->chownat = sim_chownat;
    port->utimensat = sim_utimensat;
    port->getxattr = sim_getxattr;
    port->listxattr = sim_listxattr;
    port->setxattr = sim_setxattr;
    port->removexattr = sim_removexattr;
    port->accessat = sim_accessat;
    port->statvfs = sim_statvfs;
    port->fs_type = sim_fs_type;
}

static void bind_names(SwPort *port)
{
    port->mkdirat = sim_mkdirat;
    port->mknodat = sim_mknodat;
    port->symlinkat = sim_symlinkat;
    port->readlinkat = sim_readlinkat;
    port->linkat = sim_linkat;
    port->unlinkat = sim_unlinkat;
    port->renameat = sim_renameat;
    port->getdents = sim_getdents;
    port->seekdir = sim_seekdir;
    port->pread = sim_pread;
    port->pwrite = sim_pwrite;
    port->ftruncate = sim_ftruncate;
    port->fallocate = sim_fallocate;
    port->lseek = sim_lseek;
    port->fsync = sim_fsync;
    port->clone = sim_clone;
    port->copy_range = sim_copy_range;
    port->try_flock = sim_try_flock;
}

static void bind_rest(SwPort *port)
{
    port->process = sim_process;
    port->exit_status = sim_exit_status;
    port->holdings = sim_holdings;
    port->mapped = sim_mapped;
    port->last_pid = sim_last_pid;
    port->children = sim_children;
    port->pids_between = sim_pids_between;
    port->pid_watch = sim_pid_watch;
    port->pid_ended = sim_pid_ended;
    port->pids_ended = sim_pids_ended;
    port->groups = sim_groups;
    port->comm = sim_comm;
    port->now_us = sim_now_us;
    port->wall_us = sim_wall_us;
    port->sleep_us = sim_sleep_us;
    port->random = sim_random_bytes;
    port->free = sim_free;
}

SwPort *sim_port_new(SimWorld *world, guint machine, SimProcesses *processes)
{
    SimPort *sim = g_new0(SimPort, 1);

    sim->real = sw_port_posix_new();
    sim->world = world;
    sim->machine = machine;
    sim->processes = processes;
    sim->fds = g_hash_table_new(NULL, NULL);
    sim->boot_fd = -1;
    sim->mays = g_byte_array_new();
    g_queue_init(&sim->trace);
    bind_files(&sim->base);
    bind_names(&sim->base);
    bind_rest(&sim->base);
    return &sim->base;
}

void sim_port_cut(SwPort *port, int error)
{
    of(port)->cut = error;
}

void sim_port_set_clock(SwPort *port, gint64 ahead_us)
{
    of(port)->ahead_us = ahead_us;
}

void sim_port_plan(SwPort *port, const SimPlan *plan)
{
    of(port)->plan = *plan;
    of(port)->calls = 0;
    of(port)->struck = FALSE;
    g_byte_array_set_size(of(port)->mays, 0);
}

GByteArray *sim_port_suffers(SwPort *port)
{
    return g_byte_array_ref(of(port)->mays);
}

gboolean sim_plan_harms(const SimPlan *plan, const GByteArray *suffers)
{
    return plan->at >= 1 && plan->at <= suffers->len && harms(plan, suffers->data[plan->at - 1]);
}

guint64 sim_port_calls(SwPort *port)
{
    return of(port)->calls;
}

gboolean sim_port_struck(SwPort *port)
{
    return of(port)->struck;
}

gboolean sim_port_is_dead(SwPort *port)
{
    return of(port)->dead;
}

guint sim_port_open_fds(SwPort *port)
{
    return g_hash_table_size(of(port)->fds);
}

char *sim_port_trace(SwPort *port)
{
    GString *text = g_string_new(NULL);

    for (GList *at = of(port)->trace.head; at; at = at->next)
        g_string_append_printf(text, "    %s\n", (const char *)at->data);
    return g_string_free(text, FALSE);
}
