/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * One life of this mount under one host id.
 *
 *   hosts/<id>              mkdir, exclusive: the epoch is ours            [P4]
 *   record.new              made, flocked, written                         [P5]
 *   record                  renamed: never seen unlocked or half
 *   released, stage/<w>, old/0  made; a host without them has been buried      [P6]
 *   record's mtime          the heartbeat: a counter, not a time           [P18]
 *
 * When others have taken us for dead, `released` is gone, and a new epoch is claimed [P22].  The old one's descriptors
 * stay open: what is still under way with them fails at the server, because the directories are removed.
 */

#include "../core/course.h"
#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EPOCH_TRIES 16
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NONBLOCK)
#define BEATS_PER_LEASE 4
#define REJOIN_PAUSE_US (2 * G_TIME_SPAN_MILLISECOND)

/* ---- who we are [P5] */

void sw_read_machine_text(SwPort *port, const char *path, char *ret_text, size_t size)
{
    int fd = port->openat(port, AT_FDCWD, path, O_RDONLY, 0);
    ssize_t got;

    *ret_text = '\0';
    if (fd < 0)
        return;
    got = port->pread(port, fd, ret_text, size - 1, 0);
    ret_text[MAX(got, 0)] = '\0';
    ret_text[strcspn(ret_text, "\n")] = '\0';
    sw_fd_close(port, &fd);
}

static char *format_record(const SwControl *control, const SwEpoch *epoch, gboolean locked)
{
    SwHostRecord record = {.pid = getpid(), .lease_us = control->lease_us, .version = SW_VERSION};

    strcpy(record.id, epoch->id);
    /* Without a lock the record says nothing about our life: nobody may take us for a dead mount of this machine. */
    strcpy(record.boot_id, locked && *control->boot_id ? control->boot_id : SW_NO_BOOT_ID);
    sw_read_machine_text(control->port, "/etc/machine-id", record.machine_id, sizeof record.machine_id);
    return sw_host_record_format(&record);
}

static int write_record(SwControl *control, SwEpoch *epoch)
{
    SwPort *port = control->port;
    g_autofree char *text = NULL;
    int r;

    epoch->record = port->openat(port, epoch->own, "record.new", O_RDWR | O_CREAT | O_EXCL, 0644);
    if (epoch->record < 0)
        return epoch->record;
    text = format_record(control, epoch, port->try_flock(port, epoch->record) == 0);
    r = sw_port_write_all(port, epoch->record, text, strlen(text), 0);
    if (r == 0)
        r = port->fsync(port, epoch->record, FALSE);
    if (r == 0)
        r = port->renameat(port, epoch->own, "record.new", epoch->own, "record", 0);
    return r;
}

/* ---- claiming [P4] */

static int make_dir(SwPort *port, int dirfd, const char *name, mode_t mode, int *ret_fd)
{
    int fd;
    int r = port->mkdirat(port, dirfd, name, mode);

    if (r < 0)
        return r;
    fd = port->openat(port, dirfd, name, OPEN_DIR, 0);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return port->chmodat(port, fd, "", mode); /* the umask took some of it */
}

static int make_own_dir(SwControl *control, SwEpoch *epoch)
{
    SwPort *port = control->port;
    char hostname[256] = "";
    guint64 number;
    int r;

    (void)gethostname(hostname, sizeof hostname - 1);
    for (guint i = 0; i < EPOCH_TRIES; i++) {
        r = port->random(port, &number, sizeof number);
        if (r < 0)
            return r;
        sw_host_id_format(epoch->id, hostname, number);
        r = make_dir(port, control->hosts, epoch->id, control->root ? 0755 : 0700, &epoch->own);
        if (r != -EEXIST)
            return r;
    }
    return -EEXIST;
}

static int make_stage_dirs(SwControl *control, SwEpoch *epoch)
{
    SwPort *port = control->port;
    int stage = -1;
    int r = make_dir(port, epoch->own, "stage", 0700, &stage);

    for (guint i = 0; r == 0 && i < SW_STAGE_DIRS; i++) {
        char name[8];

        (void)snprintf(name, sizeof name, "%u", i);
        r = make_dir(port, stage, name, control->root ? 01777 : 0700, &epoch->stages[i]);
    }
    sw_fd_close(port, &stage);
    return r;
}

/* Callers link into the inner one; only the daemon goes through the outer, for what a private directory has hidden is
 * not to be read from here. */
static int make_old_dir(SwControl *control, SwEpoch *epoch)
{
    SwPort *port = control->port;
    int outer = -1;
    int r = make_dir(port, epoch->own, "old", 0700, &outer);

    if (r == 0)
        r = make_dir(port, outer, "0", control->root ? 01777 : 0700, &epoch->old);
    sw_fd_close(port, &outer);
    return r;
}

SwEpoch *sw_epoch_blank(void)
{
    SwEpoch *epoch = g_new0(SwEpoch, 1);

    epoch->own = epoch->record = epoch->released = epoch->old = -1;
    for (guint i = 0; i < SW_STAGE_DIRS; i++)
        epoch->stages[i] = -1;
    return epoch;
}

void sw_epoch_free(SwControl *control, SwEpoch *epoch)
{
    SwPort *port = control->port;

    for (guint i = 0; i < SW_STAGE_DIRS; i++)
        sw_fd_close(port, &epoch->stages[i]);
    sw_fd_close(port, &epoch->old);
    sw_fd_close(port, &epoch->released);
    sw_fd_close(port, &epoch->record);
    sw_fd_close(port, &epoch->own);
    g_free(epoch);
}

/* Once the record is closed, a mount starting on this machine may take us for dead, and helps. */
void sw_epoch_remove(SwControl *control, SwEpoch *epoch)
{
    SwPort *port = control->port;

    sw_fd_close(port, &epoch->record);
    (void)port->unlinkat(port, epoch->own, "record.new", 0);
    (void)port->unlinkat(port, epoch->own, "record", 0);
    (void)port->unlinkat(port, control->hosts, epoch->id, AT_REMOVEDIR);
}

/* It never was anybody's: nothing is in it but directories. */
static void undo_claim(SwControl *control, SwEpoch *epoch)
{
    if (epoch->own >= 0)
        sw_ignore(sw_leave(control, epoch, TRUE)); /* else it is found to be of nobody */
    sw_epoch_free(control, epoch);
}

typedef struct {
    SwControl *control;
    SwEpoch *epoch;
} Claim;

static int take_step(gpointer data, SwStep step)
{
    const Claim *c = data;
    int r;

    switch (step) {
    case SW_STEP_MAKE_DIR:
        return make_own_dir(c->control, c->epoch);
    case SW_STEP_PUT_RECORD:
        return write_record(c->control, c->epoch);
    case SW_STEP_MAKE_RELEASED:
        return make_dir(c->control->port, c->epoch->own, "released", 0700, &c->epoch->released);
    case SW_STEP_MAKE_STAGES:
        r = make_stage_dirs(c->control, c->epoch);
        return r == 0 && sw_control_limit(&c->control->keep_old_us) ? make_old_dir(c->control, c->epoch) : r;
    default:
        g_assert_not_reached();
    }
}

/* Of what the last call that changed the record has brought: nobody is asked. */
static void note_source_time(SwControl *control, const SwEpoch *epoch)
{
    struct stat st;

    if (control->port->stat_cached(control->port, epoch->record, "", &st) < 0)
        return;
    __atomic_store_n(&control->source_dev, st.st_dev, __ATOMIC_RELAXED);
    __atomic_store_n(&control->source_us, (gint64)st.st_ctim.tv_sec * G_USEC_PER_SEC + st.st_ctim.tv_nsec / 1000,
                     __ATOMIC_RELAXED);
}

int sw_epoch_claim(SwControl *control)
{
    SwEpoch *epoch = sw_epoch_blank();
    Claim claim = {.control = control, .epoch = epoch};
    int r;

    __atomic_store_n(&control->beat_us, control->port->now_us(control->port), __ATOMIC_RELEASE);
    r = sw_course_run(sw_epoch_course, SW_EPOCH_UNCLAIMED, SW_EPOCH_ALIVE, take_step, &claim, NULL);
    if (r < 0) {
        undo_claim(control, epoch);
        return r;
    }
    note_source_time(control, epoch);
    epoch->older = sw_epoch_now(control);
    g_atomic_pointer_set(&control->epoch, epoch);
    /* Not before: until then it is the old epoch that would be taken for proven. */
    __atomic_store_n(&control->proven_us, sw_control_beat_us(control), __ATOMIC_RELEASE);
    return 0;
}

/* ---- what others ask */

SwEpoch *sw_control_epoch(const SwControl *control)
{
    return sw_epoch_now(control);
}

const char *sw_epoch_host_id(const SwEpoch *epoch)
{
    return epoch->id;
}

int sw_epoch_stage_dir(const SwEpoch *epoch, guint worker)
{
    g_assert(worker < SW_STAGE_DIRS);
    return epoch->stages[worker];
}

const char *sw_control_host_id(const SwControl *control)
{
    return sw_epoch_now(control)->id;
}

int sw_control_stage_dir(const SwControl *control, guint worker)
{
    return sw_epoch_stage_dir(sw_epoch_now(control), worker);
}

/* ---- the heartbeat [P18] */

gint64 sw_control_beat_interval(const SwControl *control)
{
    return control->lease_us / BEATS_PER_LEASE;
}

int sw_control_beat(SwControl *control)
{
    SwPort *port = control->port;
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = g_atomic_int_add(&control->beats, 1) + 1}};
    gint64 now_us = port->now_us(port);
    SwEpoch *epoch = sw_epoch_now(control);
    int r = port->utimensat(port, epoch->record, "", times);

    if (r < 0) {
        (void)g_atomic_int_add(&control->beats_lost, 1);
        return r;
    }
    __atomic_store_n(&control->beat_us, now_us, __ATOMIC_RELEASE);
    note_source_time(control, epoch);
    return 0;
}

gint64 sw_control_beat_us(const SwControl *control)
{
    return __atomic_load_n(&control->beat_us, __ATOMIC_ACQUIRE);
}

gint64 sw_control_source_us(const SwControl *control, dev_t dev)
{
    gboolean same = __atomic_load_n(&control->source_dev, __ATOMIC_RELAXED) == dev;

    return same ? __atomic_load_n(&control->source_us, __ATOMIC_RELAXED) : 0;
}

void sw_control_beat_if_due(SwControl *control)
{
    gint64 now_us = control->port->now_us(control->port);

    if (sw_epoch_now(control) && now_us - sw_control_beat_us(control) >= sw_control_beat_interval(control))
        sw_ignore(sw_control_beat(control)); /* counted; the keeper sees to it */
}

/* ---- fenced [P22] */

int sw_epoch_check(SwControl *control, const SwEpoch *epoch, gboolean fresh)
{
    SwPort *port = control->port;
    struct stat st;
    int r =
        fresh ? port->stat_fresh(port, epoch->released, "", &st) : port->stat_cached(port, epoch->released, "", &st);

    return r == -ENOENT || (r == 0 && st.st_nlink == 0) ? -ESTALE : r;
}

gboolean sw_epoch_is_fenced(SwControl *control, const SwEpoch *epoch, gboolean fresh)
{
    return sw_epoch_check(control, epoch, fresh) == -ESTALE;
}

int sw_control_renew(SwControl *control, const SwEpoch *epoch)
{
    gint64 began_us = control->port->now_us(control->port);
    int beaten = sw_control_beat(control);
    int r = sw_epoch_check(control, epoch, TRUE);

    if (r == 0 && beaten == 0)
        __atomic_store_n(&control->proven_us, began_us, __ATOMIC_RELEASE);
    return r == 0 ? beaten : r;
}

int sw_control_confirm(SwControl *control, const SwEpoch *epoch)
{
    SwPort *port = control->port;
    int r = 0;

    if (port->now_us(port) - __atomic_load_n(&control->proven_us, __ATOMIC_ACQUIRE) > control->lease_us / 2) {
        r = port->become(port, NULL);
        if (r == 0)
            r = sw_control_renew(control, epoch);
    }
    return r == 0 && sw_epoch_now(control) != epoch ? -ESTALE : r;
}

/* Another thread is claiming it, which takes as long as it would take us. */
static int await_rejoin(SwControl *control, const SwEpoch *lost)
{
    SwPort *port = control->port;
    gint64 until_us = port->now_us(port) + control->lease_us;

    while (sw_epoch_now(control) == lost && g_atomic_int_get(&control->rejoining) && port->now_us(port) < until_us)
        port->sleep_us(port, REJOIN_PAUSE_US);
    return sw_epoch_now(control) == lost ? -EAGAIN : 0;
}

int sw_control_rejoin(SwControl *control, const SwEpoch *lost)
{
    int r = control->port->become(control->port, NULL);

    if (r < 0 || sw_epoch_now(control) != lost)
        return r;
    if (!g_atomic_int_compare_and_exchange(&control->rejoining, 0, 1))
        return await_rejoin(control, lost);
    if (sw_epoch_now(control) == lost)
        r = sw_epoch_is_fenced(control, lost, TRUE) ? sw_epoch_claim(control) : -EEXIST;
    g_atomic_int_set(&control->rejoining, 0);
    return r;
}

int sw_control_epoch_to_hold(SwControl *control, SwEpoch **ret_epoch)
{
    SwEpoch *epoch = sw_epoch_now(control);
    int r = 0;

    if (sw_epoch_is_fenced(control, epoch, FALSE) || sw_control_confirm(control, epoch) == -ESTALE)
        r = sw_control_rejoin(control, epoch);
    *ret_epoch = sw_epoch_now(control);
    return r == -EAGAIN ? -ESTALE : r == -EEXIST ? 0 : r;
}

void sw_control_on_wait(SwControl *control, void (*want)(gpointer data, const char *host_id), gpointer data)
{
    control->want_data = data;
    control->want = want;
}

void sw_control_want(SwControl *control, const char *host_id)
{
    if (control->want)
        control->want(control->want_data, host_id);
}
