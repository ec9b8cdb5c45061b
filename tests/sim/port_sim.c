/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "port_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TRACE_LINES 48
#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

/* What a call may suffer. */
enum {
    MAY_FAIL = 1,  /* an error of the source */
    MAY_FILL = 2,  /* no space */
    MAY_SPLIT = 4, /* half of it may be done */
};

/* Of this thread's call under way: its reply is lost, and this error is what comes instead; it is the host's last. */
static __thread int lost_error;
static __thread gboolean last_call;

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

static void close_all(SimPort *sim)
{
    GHashTableIter iter;
    gpointer fd;

    g_hash_table_iter_init(&iter, sim->fds);
    while (g_hash_table_iter_next(&iter, &fd, NULL))
        (void)sim->real->close(sim->real, GPOINTER_TO_INT(fd));
    g_hash_table_remove_all(sim->fds);
}

/* In a crowd a call may be under way, which needs them: then they go with the port. */
void sim_port_kill(SwPort *port)
{
    of(port)->dead = TRUE;
    if (!of(port)->world->crowd)
        close_all(of(port));
}

/* ---- the way to the server, in a crowd */

/* Once in so many calls; the others arrive before anybody else goes on. */
#define WAIT_ODDS 4
#define STUCK_ODDS 4000
#define STUCK_MOST_US (45 * G_TIME_SPAN_SECOND)
#define LOST_ODDS 800
#define FAIL_ODDS 800

static void rest(SimPort *sim, gint64 us)
{
    SimWorld *world = sim->world;

    sim_crowd_wait(world->crowd, world->now_us + us);
    while (!sim->dead && sim->frozen_until > world->now_us)
        sim_crowd_wait(world->crowd, sim->frozen_until);
}

/* 0: it has arrived, though the host may have died meanwhile; else its error. */
static int travel(SimPort *sim)
{
    SimWorld *world = sim->world;
    gboolean stuck = world->faulty && sim_random(world) % STUCK_ODDS == 0;

    if (stuck || sim_random(world) % WAIT_ODDS == 0 || sim->frozen_until > world->now_us)
        rest(sim, (gint64)(100 + sim_random(world) % (stuck ? (guint64)STUCK_MOST_US : 2000)));
    while (sim->parted_until > world->now_us && !sim->dead) {
        if (sim->parted_error) {
            rest(sim, (gint64)(sim_random(world) % (2 * G_TIME_SPAN_SECOND)));
            sim->mishaps++;
            return -sim->parted_error;
        }
        rest(sim, sim->parted_until - world->now_us);
    }
    if (sim->dead) { /* what was on its way may arrive */
        lost_error = EIO;
        return sim_random(world) % 2 ? -EIO : 0;
    }
    if (!world->faulty)
        return 0;
    if (sim_random(world) % LOST_ODDS == 0)
        lost_error = EIO;
    else if (sim_random(world) % FAIL_ODDS == 0)
        lost_error = -1;
    sim->mishaps += lost_error != 0;
    return lost_error < 0 ? -EIO : 0;
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

    lost_error = 0;
    last_call = FALSE;
    if (sim->dead || sim->cut)
        return sim->dead ? -EIO : -sim->cut;
    sim->world->n_calls++;
    sim->total++;
    if (sim->world->crowd)
        return travel(sim);
    sim->calls++;
    sim->world->now_us++;
    g_byte_array_append(sim->mays, &(guint8){(guint8)may}, 1);
    remember(sim, member, name);
    if (sim->struck && sim->plan.away) {
        remember_result(sim, -sim->plan.error, " (away)");
        return -sim->plan.error;
    }
    gboolean planned = sim->calls == sim->plan.at || (sim->plan.again && sim->calls == sim->plan.again);
    fault = planned && harms(&sim->plan, may) ? sim->plan.fault : SIM_NONE;
    if (fault != SIM_NONE) {
        sim->struck = TRUE;
        g_free(sim->struck_call);
        sim->struck_call = g_strdup_printf("%s(%s)", member, name);
    }
    let_others(sim, fault == SIM_PAUSE);
    if (fault == SIM_PAUSE)
        fault = sim->plan.then;
    lost_error = fault == SIM_LOST ? sim->plan.error : 0;
    last_call = fault == SIM_DIE_AFTER || fault == SIM_DIE_HALF;
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

/* To what is behind `dirfd`, or `name` in it, that happened, if the call has worked. */
static gssize noted(SwPort *port, gssize result, int dirfd, const char *name, SimToldWhat what)
{
    if (result >= 0)
        sim_told_note(of(port)->world->told, dirfd, name, what);
    return result;
}

/* The same for a name that is new. */
static gssize noted_name(SwPort *port, gssize result, int dirfd, const char *name, SimToldWhat what)
{
    return noted(port, noted(port, result, dirfd, name, what), dirfd, "", SIM_TOLD_WRITTEN);
}

/* The result of a call that was done. */
static gssize done(SwPort *port, gssize result)
{
    SimPort *sim = of(port);

    if (!sim->world->crowd)
        remember_result(sim, result, last_call ? " (dead after)" : lost_error ? " (lost)" : "");
    if (last_call) {
        sim_port_kill(port);
        return -EIO;
    }
    return lost_error && result >= 0 ? -lost_error : result;
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

/*
 * Where a call names an object that the client looks up first, and then tells the server of by its handle, a late one
 * reaches that object, wherever it is by then (F23).  So it is looked up before a pause.  -1: by name.
 */
static int by_handle(SwPort *port, int dirfd, const char *name)
{
    SimPort *sim = of(port);
    gboolean late = sim->world->crowd || (sim->plan.fault == SIM_PAUSE && sim->calls + 1 == sim->plan.at);

    if (!late || !*name || sim->dead || sim->cut)
        return -1;
    return sim->real->openat(sim->real, dirfd, name, O_PATH, 0);
}

static int end_by_handle(SwPort *port, int handle, int r)
{
    if (handle >= 0)
        (void)real(port)->close(real(port), handle);
    return r;
}

/* ---- opening */

static int sim_become(SwPort *port, const SwCred *cred)
{
    (void)cred;
    return of(port)->dead ? -EIO : 0;
}

static int open_there(SwPort *port, int dirfd, const char *name, int flags, mode_t mode)
{
    gboolean makes = (flags & O_CREAT) && faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0;
    int fd = real(port)->openat(real(port), dirfd, name, flags, mode);

    if (makes)
        return (int)noted_name(port, fd, dirfd, name, SIM_TOLD_MADE);
    return flags & O_TRUNC ? (int)noted(port, fd, fd, "", SIM_TOLD_WRITTEN) : fd;
}

static int sim_openat(SwPort *port, int dirfd, const char *name, int flags, mode_t mode)
{
    const SimWorld *world = of(port)->world;
    gint64 began_us = world->now_us;
    int r = (int)refused(port, "openat", name, flags & O_CREAT ? MAY_FAIL | MAY_FILL : MAY_FAIL);

    if (r == 0) {
        r = open_there(port, dirfd, name, flags, mode);
        if (r >= 0 && (flags & O_EXCL) && world->saw_made)
            world->saw_made(world->saw_data, port, name, world->now_us - began_us);
        r = done_open(port, r);
    }
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
    int r = sim->world->crowd ? 0 : (int)refused(port, "close", "", MAY_FAIL);

    if (sim->boot_fd == fd)
        sim->boot_fd = -1;
    if (!g_hash_table_remove(sim->fds, GINT_TO_POINTER(fd))) {
        if (!sim->dead)
            g_error("close(%d) of what is not open", fd);
        return -EIO;
    }
    if (r == 0 && sim->world->crowd) /* nothing that others see, and nothing that takes time */
        return sim->real->close(sim->real, fd);
    if (r == 0)
        return (int)done(port, sim->real->close(sim->real, fd));
    (void)sim->real->close(sim->real, fd);
    return r;
}

/* ---- what is told of */

/* The host whose directory, or the file `rest` in it, is behind the descriptor; NULL: none. */
static char *host_of(int fd, const char *rest)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *path = g_file_read_link(link, NULL);
    const char *hosts = path ? strstr(path, "/hosts/") : NULL;

    const char *id = hosts ? hosts + strlen("/hosts/") : NULL;

    return id && strcmp(id + strcspn(id, "/"), rest) == 0 ? g_strndup(id, strcspn(id, "/")) : NULL;
}

static void tell_fence(SwPort *port, int dirfd)
{
    const SimWorld *world = of(port)->world;
    g_autofree char *id = world->saw_fence ? host_of(dirfd, "") : NULL;

    if (id)
        world->saw_fence(world->saw_data, port, id);
}

static void tell_beat(SwPort *port, int fd, const char *rest)
{
    const SimWorld *world = of(port)->world;
    g_autofree char *id = world->saw_beat ? host_of(fd, rest) : NULL;

    if (id)
        world->saw_beat(world->saw_data, id);
}

/* ---- attributes */

void sim_age(SimWorld *world)
{
    world->aged_us += G_TIME_SPAN_HOUR;
}

static int sim_statat(SwPort *port, int dirfd, const char *name, struct stat *ret_st)
{
    gssize r = refused(port, "statat", name, MAY_FAIL);

    if (r)
        return (int)r;
    r = real(port)->statat(real(port), dirfd, name, ret_st);
    if (r == 0)
        sim_told_put(of(port)->world->told, ret_st);
    return (int)done(port, r);
}

/* The directory is a local one, which caches nothing. */
static int sim_stat_fresh(SwPort *port, int dirfd, const char *name, struct stat *ret_st)
{
    gssize r = refused(port, "stat_fresh", name, MAY_FAIL);

    of(port)->kinds.looks += strcmp(name, "record") == 0;
    if (r)
        return (int)r;
    r = real(port)->stat_fresh(real(port), dirfd, name, ret_st);
    if (r == 0)
        sim_told_put(of(port)->world->told, ret_st);
    return (int)done(port, r);
}

static int sim_lookat(SwPort *port, int dirfd, const char *name, SwFound *ret_found)
{
    gssize r = refused(port, "lookat", name, MAY_FAIL);

    if (r)
        return (int)r;
    r = real(port)->lookat(real(port), dirfd, name, ret_found);
    if (r == 0) {
        sim_told_put(of(port)->world->told, &ret_found->st);
        ret_found->tag = ret_found->st.st_ino; /* given only once */
    }
    return (int)done(port, r);
}

static int sim_chmodat(SwPort *port, int dirfd, const char *name, mode_t mode)
{
    int handle = by_handle(port, dirfd, name);
    gssize r = refused(port, "chmodat", name, MAY_FAIL);

    if (r == 0 && handle >= 0)
        r = done(port, noted(port, real(port)->chmodat(real(port), handle, "", mode), handle, "", SIM_TOLD_CHANGED));
    else if (r == 0)
        r = done(port, noted(port, real(port)->chmodat(real(port), dirfd, name, mode), dirfd, name, SIM_TOLD_CHANGED));
    return end_by_handle(port, handle, (int)r);
}

static int sim_chownat(SwPort *port, int dirfd, const char *name, uid_t uid, gid_t gid)
{
    int handle = by_handle(port, dirfd, name);
    gssize r = refused(port, "chownat", name, MAY_FAIL);

    if (r == 0 && handle >= 0)
        r = done(port,
                 noted(port, real(port)->chownat(real(port), handle, "", uid, gid), handle, "", SIM_TOLD_CHANGED));
    else if (r == 0)
        r = done(port,
                 noted(port, real(port)->chownat(real(port), dirfd, name, uid, gid), dirfd, name, SIM_TOLD_CHANGED));
    return end_by_handle(port, handle, (int)r);
}

static SimToldWhat dated(const struct timespec times[2])
{
    if (!times || times[1].tv_nsec == UTIME_NOW)
        return SIM_TOLD_WRITTEN;
    return times[1].tv_nsec == UTIME_OMIT ? SIM_TOLD_CHANGED : SIM_TOLD_DATED;
}

static int sim_utimensat(SwPort *port, int dirfd, const char *name, const struct timespec times[2])
{
    int handle = by_handle(port, dirfd, name);
    gssize r = refused(port, "utimensat", name, MAY_FAIL);

    if (r == 0 && !*name) {
        tell_beat(port, dirfd, "/record");
        of(port)->kinds.beats++;
    }
    if (r == 0 && handle >= 0)
        r = done(port, noted(port, real(port)->utimensat(real(port), handle, "", times), handle, "", dated(times)));
    else if (r == 0)
        r = done(port, noted(port, real(port)->utimensat(real(port), dirfd, name, times), dirfd, name, dated(times)));
    return end_by_handle(port, handle, (int)r);
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

    if (r == 0)
        r = done(port, noted(port, real(port)->setxattr(real(port), dirfd, name, key, value, size, flags), dirfd, name,
                             SIM_TOLD_CHANGED));
    return (int)r;
}

static int sim_removexattr(SwPort *port, int dirfd, const char *name, const char *key)
{
    gssize r = refused(port, "removexattr", key, MAY_FAIL);

    if (r == 0)
        r = done(port,
                 noted(port, real(port)->removexattr(real(port), dirfd, name, key), dirfd, name, SIM_TOLD_CHANGED));
    return (int)r;
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

    if (r == 0)
        r = done(port,
                 noted_name(port, real(port)->mkdirat(real(port), dirfd, name, mode), dirfd, name, SIM_TOLD_MADE));
    return (int)r;
}

static int sim_mknodat(SwPort *port, int dirfd, const char *name, mode_t mode, dev_t dev)
{
    gssize r = refused(port, "mknodat", name, MAY_FAIL | MAY_FILL);

    if (r == 0)
        r = done(port,
                 noted_name(port, real(port)->mknodat(real(port), dirfd, name, mode, dev), dirfd, name, SIM_TOLD_MADE));
    return (int)r;
}

static int sim_symlinkat(SwPort *port, const char *target, int dirfd, const char *name)
{
    gssize r = refused(port, "symlinkat", name, MAY_FAIL | MAY_FILL);

    if (r == 0)
        r = done(port,
                 noted_name(port, real(port)->symlinkat(real(port), target, dirfd, name), dirfd, name, SIM_TOLD_MADE));
    return (int)r;
}

static ssize_t sim_readlinkat(SwPort *port, int dirfd, const char *name, char *buf, size_t size)
{
    gssize r = refused(port, "readlinkat", name, MAY_FAIL);

    return r ? r : done(port, real(port)->readlinkat(real(port), dirfd, name, buf, size));
}

static int sim_linkat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname)
{
    int handle = by_handle(port, olddir, oldname);
    gssize r = refused(port, "linkat", newname, MAY_FAIL | MAY_FILL);

    if (r == 0) {
        r = handle >= 0 ? real(port)->linkat(real(port), handle, "", newdir, newname)
                        : real(port)->linkat(real(port), olddir, oldname, newdir, newname);
        r = done(port, noted_name(port, r, newdir, newname, SIM_TOLD_CHANGED));
    }
    return end_by_handle(port, handle, (int)r);
}

static int sim_unlinkat(SwPort *port, int dirfd, const char *name, int flags)
{
    gssize r = refused(port, flags ? "rmdirat" : "unlinkat", name, MAY_FAIL);
    SimToldFile *file;

    if (r)
        return (int)r;
    file = sim_told_find(of(port)->world->told, dirfd, name);
    r = noted(port, real(port)->unlinkat(real(port), dirfd, name, flags), dirfd, "", SIM_TOLD_WRITTEN);
    if (r == 0)
        sim_told_lost_name(of(port)->world->told, file);
    if (r == 0 && flags && strcmp(name, "released") == 0)
        tell_fence(port, dirfd);
    return (int)done(port, r);
}

static int sim_renameat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    g_autofree char *both = g_strdup_printf("%s, %s, %u", oldname, newname, flags);
    gssize r = refused(port, "renameat", both, MAY_FAIL | MAY_FILL);
    SimToldFile *file;

    if (r)
        return (int)r;
    file = sim_told_find(of(port)->world->told, newdir, newname);
    r = real(port)->renameat(real(port), olddir, oldname, newdir, newname, flags);
    r = noted_name(port, noted(port, r, olddir, "", SIM_TOLD_WRITTEN), newdir, newname, SIM_TOLD_CHANGED);
    if (r == 0)
        sim_told_lost_name(of(port)->world->told, file);
    if (r == 0 && strcmp(oldname, "record.new") == 0) /* from here on others may look at it */
        tell_beat(port, olddir, "");
    return (int)done(port, r);
}

static ssize_t sim_getdents(SwPort *port, int fd, void *buf, size_t size)
{
    gssize r = refused(port, "getdents", "", MAY_FAIL);

    if (r == 0)
        r = done(port, real(port)->getdents(real(port), fd, buf, size));
    if (r > 0)
        sim_told_list(of(port)->world->told, fd, buf, (gsize)r);
    of(port)->kinds.lists++;
    of(port)->kinds.bytes += (guint64)MAX(r, 0);
    return r;
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

    if (r == 0)
        r = done(port, noted(port, real(port)->pwrite(real(port), fd, buf, portion(port, size), offset), fd, "",
                             SIM_TOLD_WRITTEN));
    return r;
}

static int sim_ftruncate(SwPort *port, int fd, off_t size)
{
    gssize r = refused(port, "ftruncate", "", MAY_FAIL | MAY_FILL);

    if (r == 0)
        r = done(port, noted(port, real(port)->ftruncate(real(port), fd, size), fd, "", SIM_TOLD_WRITTEN));
    return (int)r;
}

static int sim_fallocate(SwPort *port, int fd, int mode, off_t offset, off_t length)
{
    gssize r = refused(port, "fallocate", "", MAY_FAIL | MAY_FILL);

    if (r == 0)
        r = done(port,
                 noted(port, real(port)->fallocate(real(port), fd, mode, offset, length), fd, "", SIM_TOLD_WRITTEN));
    return (int)r;
}

static off_t sim_lseek(SwPort *port, int fd, off_t offset, int whence)
{
    gssize r = refused(port, "lseek", "", MAY_FAIL);

    return r ? r : done(port, real(port)->lseek(real(port), fd, offset, whence));
}

/* There is one cache. */
static void sim_read_anew(SwPort *port, int fd)
{
    (void)port;
    (void)fd;
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

    return (int)(r ? r : done(port, noted(port, real(port)->clone(real(port), from, to), to, "", SIM_TOLD_WRITTEN)));
}

static ssize_t sim_copy_range(SwPort *port, int from, off_t from_offset, int to, off_t to_offset, size_t size)
{
    gssize r = refused(port, "copy_range", "", MAY_FAIL | MAY_FILL | MAY_SPLIT);

    /* Halving a length that reaches far beyond the end would halve nothing. */
    size = portion(port, MIN(size, (size_t)64));
    if (r == 0)
        r = done(port, noted(port, real(port)->copy_range(real(port), from, from_offset, to, to_offset, size), to, "",
                             SIM_TOLD_WRITTEN));
    return r;
}

static int sim_try_flock(SwPort *port, int fd)
{
    gssize r = refused(port, "try_flock", "", MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->try_flock(real(port), fd)));
}

static int sim_ofd_lock(SwPort *port, int fd, int command, struct flock *lock)
{
    gssize r = refused(port, "ofd_lock", "", MAY_FAIL);

    return (int)(r ? r : done(port, real(port)->ofd_lock(real(port), fd, command, lock)));
}

/* ---- clock and chance */

static gint64 sim_now_us(SwPort *port)
{
    return of(port)->world->now_us + of(port)->ahead_us;
}

/* Wrong by a different amount on each machine (C23). */
static gint64 sim_wall_us(SwPort *port)
{
    return of(port)->world->now_us + of(port)->machine * G_TIME_SPAN_DAY + of(port)->wall_us;
}

/* Whoever waits, waits for others. */
static void sim_sleep_us(SwPort *port, gint64 us)
{
    SimWorld *world = of(port)->world;

    if (world->crowd) {
        rest(of(port), MAX(us, 1));
        return;
    }
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

    close_all(sim);
    g_hash_table_unref(sim->fds);
    g_queue_clear_full(&sim->trace, g_free);
    g_byte_array_unref(sim->mays);
    g_free(sim->struck_call);
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
    port->stat_cached = sim_statat;
    port->lookat = sim_lookat;
    port->lookat_cached = sim_lookat;
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
    port->read_anew = sim_read_anew;
    port->clone = sim_clone;
    port->copy_range = sim_copy_range;
    port->try_flock = sim_try_flock;
    port->ofd_lock = sim_ofd_lock;
}

static void bind_rest(SwPort *port)
{
    sim_port_bind_processes(port);
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

void sim_port_freeze(SwPort *port, gint64 until_us)
{
    of(port)->frozen_until = until_us;
}

void sim_port_part(SwPort *port, gint64 until_us, int error)
{
    of(port)->parted_until = until_us;
    of(port)->parted_error = error;
}

guint sim_port_mishaps(SwPort *port)
{
    return of(port)->mishaps;
}

guint64 sim_port_total(SwPort *port)
{
    return of(port)->total;
}

void sim_port_watch_kinds(SwPort *port)
{
    of(port)->kinds = (SimKinds){0};
}

void sim_port_add_kinds(SwPort *port, SimKinds *kinds)
{
    const SimKinds *own = &of(port)->kinds;

    kinds->looks += own->looks;
    kinds->beats += own->beats;
    kinds->lists += own->lists;
    kinds->bytes += own->bytes;
}

void sim_port_jump(SwPort *port, gint64 us)
{
    of(port)->wall_us += us;
}

gpointer *sim_port_layer(SwPort *port)
{
    return &of(port)->layer;
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
    g_clear_pointer(&of(port)->struck_call, g_free);
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

const char *sim_port_struck_call(SwPort *port)
{
    return of(port)->struck_call ? of(port)->struck_call : "";
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
