/* SPDX-License-Identifier: GPL-2.0-or-later */

/* The real port: its making and end, clocks and chance. */

#include "posix.h"
#include "proc.h"

#include <sys/random.h>
#include <time.h>

#define SLEEP_MAX_US ((gint64)G_USEC_PER_SEC * 60 * 60 * 24 * 365) /* keeps the sum below from overflowing */

static gint64 clock_us(clockid_t clock)
{
    struct timespec now = {0};

    (void)clock_gettime(clock, &now);
    return (gint64)now.tv_sec * G_USEC_PER_SEC + now.tv_nsec / 1000;
}

/* CLOCK_MONOTONIC stands still while the machine is suspended; a lease does not. */
static gint64 posix_now_us(SwPort *port)
{
    return clock_us(CLOCK_BOOTTIME);
}

static gint64 posix_wall_us(SwPort *port)
{
    return clock_us(CLOCK_REALTIME);
}

static void posix_sleep_us(SwPort *port, gint64 us)
{
    gint64 until = clock_us(CLOCK_BOOTTIME) + MIN(us, SLEEP_MAX_US);
    struct timespec at = {.tv_sec = until / G_USEC_PER_SEC, .tv_nsec = until % G_USEC_PER_SEC * 1000};

    if (us <= 0)
        return;
    /* Towards a point in time, so that signals do not make it longer. */
    while (clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

static int posix_random(SwPort *port, void *buf, size_t size)
{
    char *bytes = buf;

    while (size > 0) {
        ssize_t got = TEMP_FAILURE_RETRY(getrandom(bytes, size, 0));

        if (got < 0)
            return -errno;
        bytes += got;
        size -= got;
    }
    return 0;
}

static void posix_free(SwPort *port)
{
    sw_proc_maps_close(sw_posix_proc(port));
    sw_proc_unref(sw_posix_proc(port));
    sw_nfs_clear((SwPosix *)port);
    g_free(port);
}

SwPort *sw_port_posix_new(void)
{
    SwPosix *posix = g_new0(SwPosix, 1);
    SwPort *port = &posix->base;

    sw_cred_bind(port);
    sw_files_bind(port);
    sw_attrs_bind(port);
    posix->proc = sw_proc_new();
    sw_proc_bind(port);
    port->now_us = posix_now_us;
    port->wall_us = posix_wall_us;
    port->sleep_us = posix_sleep_us;
    port->random = posix_random;
    port->free = posix_free;
    return port;
}
