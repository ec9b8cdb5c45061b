/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "old.h"

#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define NAME_SIZE 16
#define DROPS_PER_TICK 200 /* the ticker has other things to do as well */

/* One that is to be dropped. */
typedef struct {
    SwOld old;
    gint64 due_us;
} Kept;

gboolean sw_old_wanted(SwPort *port, const SwConfig *config)
{
    return config->keep == SW_KEEP_ALWAYS || (config->keep == SW_KEEP_AUTO && port->forgets_old);
}

gint64 sw_control_keeps_old(const SwControl *control)
{
    return sw_control_limit(&control->keep_old_us);
}

static SwOld next_old(SwControl *control, char ret_name[NAME_SIZE])
{
    SwOld old = {.epoch = sw_epoch_now(control), .number = (guint)g_atomic_int_add(&control->sequence, 1)};

    (void)snprintf(ret_name, NAME_SIZE, "%x", old.number);
    return old;
}

int sw_old_link(SwControl *control, int dirfd, const char *name, const SwCred *cred, SwOld *ret_old)
{
    SwPort *port = control->port;
    char as[NAME_SIZE];
    SwOld old = next_old(control, as);
    int r = port->become(port, cred);

    if (r == 0)
        r = port->linkat(port, dirfd, name, old.epoch->old, as);
    if (cred &&
        (r == -EPERM || r == -EACCES)) { /* fs.protected_hardlinks, or a file of others in a directory of ours */
        r = port->become(port, NULL);
        if (r == 0)
            r = port->linkat(port, dirfd, name, old.epoch->old, as);
        (void)port->become(port, cred);
    }
    if (r == 0)
        *ret_old = old;
    return r;
}

int sw_old_take(SwControl *control, int dirfd, const char *name, SwOld *ret_old)
{
    SwPort *port = control->port;
    char as[NAME_SIZE];
    SwOld old = next_old(control, as);
    struct stat st;
    int r = port->renameat(port, dirfd, name, old.epoch->old, as, 0);

    if (r < 0 && port->statat(port, old.epoch->old, as, &st) == 0)
        r = 0; /* done, and the reply was lost (C13) */
    if (r == 0)
        *ret_old = old;
    return r;
}

void sw_old_drop(SwControl *control, const SwOld *old)
{
    SwPort *port = control->port;
    char name[NAME_SIZE];

    (void)snprintf(name, sizeof name, "%x", old->number);
    /* What is left goes with the directory. */
    if (port->become(port, NULL) == 0)
        (void)port->unlinkat(port, old->epoch->old, name, 0);
}

void sw_old_drop_later(SwControl *control, const SwOld *old)
{
    Kept *kept = g_new(Kept, 1);

    *kept =
        (Kept){.old = *old, .due_us = control->port->now_us(control->port) + sw_control_limit(&control->keep_old_us)};
    SW_HOLD(&control->lock);
    g_queue_push_tail(&control->kept, kept);
}

gboolean sw_old_is_linked_elsewhere(SwControl *control, const SwOld *old)
{
    SwPort *port = control->port;
    struct stat st;
    char name[NAME_SIZE];

    (void)snprintf(name, sizeof name, "%x", old->number);
    return port->stat_fresh(port, old->epoch->old, name, &st) == 0 && st.st_nlink > 1;
}

/* ---- its time has come */

/* The first one if it is due; else *ret_next is when it will be. */
static Kept *next_due(SwControl *control, gint64 now_us, gint64 *ret_next)
{
    SW_HOLD(&control->lock);
    const Kept *first = g_queue_peek_head(&control->kept);

    *ret_next = first ? first->due_us : G_MAXINT64;
    return first && first->due_us <= now_us ? g_queue_pop_head(&control->kept) : NULL;
}

gint64 sw_old_tick(SwControl *control, gint64 now_us)
{
    gint64 next_us = now_us;
    Kept *kept;

    for (guint i = 0; i < DROPS_PER_TICK && (kept = next_due(control, now_us, &next_us)); i++) {
        sw_old_drop(control, &kept->old);
        g_free(kept);
    }
    return next_us;
}

void sw_old_forget(SwControl *control)
{
    g_queue_clear_full(&control->kept, g_free);
}

/* ---- is it one? */

static gboolean holds_number(const char *buf, ssize_t size, ino_t ino)
{
    for (ssize_t at = 0; at < size;) {
        guint64 number;
        guint16 length;

        memcpy(&number, buf + at, sizeof number); /* struct linux_dirent64: d_ino, then d_off, then d_reclen */
        memcpy(&length, buf + at + 16, sizeof length);
        if (number == ino)
            return TRUE;
        at += length;
    }
    return FALSE;
}

static gboolean host_has_old(SwControl *control, const char *host_id, ino_t ino)
{
    SwPort *port = control->port;
    g_autofree char *buf = g_malloc(32768);
    int host = sw_open_trusted(port, control->hosts, host_id, control->owner);
    int fd = host < 0 ? host : port->open_beneath(port, host, "old/0", O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    gboolean has = FALSE;
    ssize_t got;

    while (fd >= 0 && !has && (got = port->getdents(port, fd, buf, 32768)) > 0)
        has = holds_number(buf, got, ino);
    sw_fd_close(port, &fd);
    sw_fd_close(port, &host);
    return has;
}

gboolean sw_control_has_old(SwControl *control, ino_t ino)
{
    g_autoptr(GPtrArray) names = NULL;

    if (control->port->become(control->port, NULL) < 0 ||
        sw_dir_names(control->port, control->hosts, SW_HOSTS_MAX, TRUE, &names) < 0)
        return FALSE;
    for (guint i = 0; i < names->len; i++)
        if (sw_host_id_is_valid(names->pdata[i]) && host_has_old(control, names->pdata[i], ino))
            return TRUE;
    return FALSE;
}

/* ---- for the daemon that follows */

void sw_olds_carry(SwControl *control, SwBundle *bundle)
{
    guint n = sw_bundle_count(bundle, control->kept.length, G_MAXINT32);
    GList *at = control->kept.head;

    for (guint i = 0; i < n; i++) {
        Kept *kept = at ? at->data : g_new0(Kept, 1);

        sw_epoch_carry(control, bundle, &kept->old.epoch);
        SW_BUNDLE(bundle, kept->old.number);
        SW_BUNDLE(bundle, kept->due_us);
        if (!kept->old.epoch)
            sw_bundle_fail(bundle, "an old version is of no epoch");
        if (!at)
            g_queue_push_tail(&control->kept, kept);
        at = at ? at->next : NULL;
    }
}
