/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Carriers of file locks [K1 to K4].
 *
 *   open     the name, made if need be; a retired one that still has its name is helped out of it
 *   retire   under the guard: not retired yet?  give it a size, then unlink the name
 *
 * Only retiring takes a name away, and only one host at a time does; so what is unlinked is what was looked at.
 */

#include "carrier.h"

#include "app_lock.h"
#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define GUARD_NAME "format" /* a file that is always there; locked while a carrier is retired */
#define GUARD_TRIES 50
#define GUARD_PAUSE_US 1000
#define OPEN_TRIES 100
#define NAME_SIZE 32
/* What was not retired for so long is nobody's, or is locked and stays. */
#define OLD_SECONDS 3600

struct SwCarrier {
    SwControl *control;
    int fd;
    char name[NAME_SIZE];
};

static short type_of(SwRangeMode mode)
{
    return mode == SW_RANGE_WRITE ? F_WRLCK : mode == SW_RANGE_READ ? F_RDLCK : F_UNLCK;
}

static struct flock flock_of(const SwRangeLock *range)
{
    struct flock lock = {.l_type = type_of(range->mode), .l_whence = SEEK_SET, .l_start = (off_t)range->start};

    lock.l_len = range->end >= SW_RANGE_END ? 0 : (off_t)(range->end - range->start + 1);
    return lock;
}

static SwRangeLock everything(SwRangeMode mode)
{
    return (SwRangeLock){.end = SW_RANGE_END, .mode = mode};
}

/* ---- the guard */

static int guard_take(SwControl *control, int *ret_guard)
{
    SwPort *port = control->port;
    SwRangeLock all = everything(SW_RANGE_WRITE);
    struct flock lock = flock_of(&all);
    int guard = port->openat(port, control->dir, GUARD_NAME, O_RDWR | O_NONBLOCK, 0);
    int r = guard < 0 ? guard : -EAGAIN;

    for (guint tries = 0; r == -EAGAIN && tries < GUARD_TRIES; tries++) {
        if (tries)
            port->sleep_us(port, GUARD_PAUSE_US);
        r = port->ofd_lock(port, guard, F_OFD_SETLK, &lock);
    }
    if (r == 0)
        *ret_guard = guard;
    else
        sw_fd_close(port, &guard);
    return r;
}

/* ---- opening */

/* 1: in use; 0: retired; -EPERM: no carrier at all. */
static int judge(SwControl *control, int fd)
{
    struct stat st;
    int r = control->port->stat_fresh(control->port, fd, "", &st);

    if (r == -ESTALE)
        return 0;
    if (r < 0)
        return r;
    if (!S_ISREG(st.st_mode) || st.st_uid != control->owner)
        return -EPERM;
    return st.st_size == 0 && st.st_nlink > 0;
}

static int open_name(SwControl *control, const char *name, int flags)
{
    return control->port->openat(control->port, control->carriers, name, O_RDWR | O_NONBLOCK | flags, 0600);
}

/* Under the guard: takes the name away from a carrier that was retired, if it still is one. */
static int finish_retired(SwControl *control, const char *name)
{
    SwPort *port = control->port;
    int guard, fd, r = guard_take(control, &guard);

    if (r < 0)
        return r;
    fd = open_name(control, name, 0);
    r = fd < 0 ? fd : judge(control, fd);
    if (r == 0)
        r = port->unlinkat(port, control->carriers, name, 0);
    sw_fd_close(port, &fd);
    sw_fd_close(port, &guard);
    return r < 0 && r != -ENOENT ? r : 0;
}

static int open_used(SwControl *control, const char *name, int *ret_fd)
{
    SwPort *port = control->port;
    int r = 0;

    for (guint tries = 0; r == 0 && tries < OPEN_TRIES; tries++) {
        int fd = open_name(control, name, O_CREAT);

        if (fd < 0)
            return fd;
        r = judge(control, fd);
        if (r == 1) {
            *ret_fd = fd;
            return 0;
        }
        sw_fd_close(port, &fd);
        if (r == 0)
            r = finish_retired(control, name);
    }
    return r < 0 ? r : -EBUSY;
}

static void write_name(char name[NAME_SIZE], guint64 key, SwCarrierKind kind)
{
    (void)snprintf(name, NAME_SIZE, "%016" G_GINT64_MODIFIER "x.%s", key, kind == SW_CARRIER_FLOCK ? "flock" : "fcntl");
}

gboolean sw_carrier_is_used(SwControl *control, guint64 key)
{
    SwPort *port = control->port;
    char name[NAME_SIZE];
    struct stat st;

    if (port->become(port, NULL) < 0)
        return FALSE;
    for (SwCarrierKind kind = SW_CARRIER_FCNTL; kind <= SW_CARRIER_FLOCK; kind++) {
        write_name(name, key, kind);
        if (port->statat(port, control->carriers, name, &st) == 0)
            return TRUE;
    }
    return FALSE;
}

int sw_carrier_open(SwControl *control, guint64 key, SwCarrierKind kind, SwCarrier **ret_carrier)
{
    SwCarrier *carrier = g_new0(SwCarrier, 1);
    int r = control->port->become(control->port, NULL);

    carrier->control = control;
    carrier->fd = -1;
    write_name(carrier->name, key, kind);
    if (r == 0)
        r = open_used(control, carrier->name, &carrier->fd);
    if (r == 0)
        *ret_carrier = carrier;
    else
        sw_carrier_close(carrier);
    return r;
}

void sw_carrier_close(SwCarrier *carrier)
{
    if (!carrier)
        return;
    sw_fd_close(carrier->control->port, &carrier->fd);
    g_free(carrier);
}

/* ---- locking */

int sw_carrier_set(SwCarrier *carrier, const SwRangeLock *range)
{
    SwPort *port = carrier->control->port;
    struct flock lock = flock_of(range);

    return port->ofd_lock(port, carrier->fd, F_OFD_SETLK, &lock);
}

int sw_carrier_check(SwCarrier *carrier)
{
    int r = carrier->control->port->become(carrier->control->port, NULL);

    if (r == 0)
        r = judge(carrier->control, carrier->fd);
    return r < 0 ? r : r ? 0 : -ESTALE;
}

int sw_carrier_test(SwCarrier *carrier, const SwRangeLock *wanted, SwRangeLock *ret_other)
{
    SwPort *port = carrier->control->port;
    struct flock lock = flock_of(wanted);
    int r = port->ofd_lock(port, carrier->fd, F_OFD_GETLK, &lock);

    if (r < 0 || lock.l_type == F_UNLCK)
        return r;
    *ret_other = (SwRangeLock){.start = (guint64)lock.l_start, .end = SW_RANGE_END};
    if (lock.l_len > 0)
        ret_other->end = (guint64)(lock.l_start + lock.l_len - 1);
    ret_other->mode = lock.l_type == F_WRLCK ? SW_RANGE_WRITE : SW_RANGE_READ;
    return -EAGAIN;
}

/* ---- retiring */

/* Under the guard. */
static int retire_guarded(SwCarrier *carrier, gboolean gone)
{
    SwPort *port = carrier->control->port;
    SwRangeLock all = everything(SW_RANGE_WRITE);
    int r = gone ? 0 : sw_carrier_set(carrier, &all);

    if (r == 0)
        r = judge(carrier->control, carrier->fd);
    if (r <= 0)
        return r;
    r = port->ftruncate(port, carrier->fd, 1);
    if (r == 0)
        r = port->unlinkat(port, carrier->control->carriers, carrier->name, 0);
    return r;
}

int sw_carrier_retire(SwCarrier *carrier, gboolean gone)
{
    SwPort *port = carrier->control->port;
    int guard = -1, r = port->become(port, NULL);

    if (r == 0)
        r = guard_take(carrier->control, &guard);
    if (r == 0)
        r = retire_guarded(carrier, gone);
    sw_fd_close(port, &guard);
    return r;
}

static void sweep_one(SwControl *control, const char *name, const struct timespec *now)
{
    SwPort *port = control->port;
    SwCarrier carrier = {.control = control, .fd = -1};
    struct stat st;

    if (strlen(name) >= sizeof carrier.name || port->statat(port, control->carriers, name, &st) < 0 ||
        !S_ISREG(st.st_mode) || now->tv_sec - st.st_ctim.tv_sec < OLD_SECONDS)
        return;
    strcpy(carrier.name, name);
    carrier.fd = open_name(control, name, 0);
    if (carrier.fd < 0)
        return;
    if (st.st_size > 0)
        sw_ignore(finish_retired(control, name)); /* the next sweep, or who wants the name, tries again */
    else
        sw_ignore(sw_carrier_retire(&carrier, FALSE));
    sw_fd_close(port, &carrier.fd);
}

void sw_carriers_sweep(SwControl *control)
{
    g_autoptr(GPtrArray) names = NULL;
    struct timespec now;

    if (control->port->become(control->port, NULL) < 0 ||
        sw_dir_names(control->port, control->carriers, SW_HOSTS_MAX, FALSE, &names) < 0 || names->len == 0 ||
        sw_app_lock_server_now(control, &now) < 0)
        return;
    for (guint i = 0; i < names->len; i++)
        sweep_one(control, names->pdata[i], &now);
}

/* ---- for the daemon that follows */

void sw_carrier_carry(SwControl *control, SwBundle *bundle, SwCarrier **carrier)
{
    gboolean is_there = *carrier != NULL;

    SW_BUNDLE(bundle, is_there);
    if (!is_there)
        return;
    if (!*carrier) {
        *carrier = g_new0(SwCarrier, 1);
        (*carrier)->control = control;
    }
    sw_bundle_fd(bundle, &(*carrier)->fd);
    sw_bundle_field(bundle, (*carrier)->name, sizeof(*carrier)->name);
    if ((*carrier)->fd < 0 || strchr((*carrier)->name, '/'))
        sw_bundle_fail(bundle, "a carrier is none");
    else if (!sw_bundle_is_out(bundle))
        sw_port_posix_adopt(control->port, (*carrier)->fd);
}
