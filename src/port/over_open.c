/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "over_open.h"

#include "aside.h"
#include "posix.h"

#include <stdint.h>

struct SwOverOpen {
    SwPort plain; /* the members as they were */
    SwAside *aside;
    void (*say)(gpointer data, const char *text);
    gpointer data;

    /* protected by lock */
    pthread_mutex_t lock;
    GHashTable *numbers; /* of a descriptor: the inode number of its file */
    GHashTable *counts;  /* of an inode number: how often it is open */
};

static SwOverOpen *of(SwPort *port)
{
    return ((SwPosix *)port)->over;
}

/* ---- which files are open */

static gpointer key(guint64 number)
{
    return (gpointer)(uintptr_t)number;
}

static void change(SwOverOpen *over, gpointer number, gint by)
{
    gint count = GPOINTER_TO_INT(g_hash_table_lookup(over->counts, number)) + by;

    if (count > 0)
        g_hash_table_insert(over->counts, number, GINT_TO_POINTER(count));
    else
        g_hash_table_remove(over->counts, number);
}

static int opened(SwPort *port, int fd)
{
    SwOverOpen *over = of(port);
    struct stat st;

    if (fd < 0 || over->plain.statat(port, fd, "", &st) < 0 || !S_ISREG(st.st_mode))
        return fd;
    (void)pthread_mutex_lock(&over->lock);
    g_hash_table_insert(over->numbers, GINT_TO_POINTER(fd), key(st.st_ino));
    change(over, key(st.st_ino), 1);
    (void)pthread_mutex_unlock(&over->lock);
    return fd;
}

void sw_over_open_adopt(SwPort *port, int fd)
{
    (void)opened(port, fd);
}

static gboolean is_open(SwOverOpen *over, ino_t number)
{
    gboolean open;

    (void)pthread_mutex_lock(&over->lock);
    open = g_hash_table_contains(over->counts, key(number));
    (void)pthread_mutex_unlock(&over->lock);
    return open;
}

static int counted_openat(SwPort *port, int dirfd, const char *name, int flags, mode_t mode)
{
    return opened(port, of(port)->plain.openat(port, dirfd, name, flags, mode));
}

static int counted_open_beneath(SwPort *port, int dirfd, const char *path, int flags)
{
    return opened(port, of(port)->plain.open_beneath(port, dirfd, path, flags));
}

static int counted_reopen(SwPort *port, int fd, int flags)
{
    return opened(port, of(port)->plain.reopen(port, fd, flags));
}

/* Counted until it is closed: once it is, the number may be another thread's. */
static int counted_close(SwPort *port, int fd)
{
    SwOverOpen *over = of(port);
    gpointer number = NULL;
    gboolean counted;
    int r;

    (void)pthread_mutex_lock(&over->lock);
    counted = g_hash_table_steal_extended(over->numbers, GINT_TO_POINTER(fd), NULL, &number);
    (void)pthread_mutex_unlock(&over->lock);
    r = over->plain.close(port, fd);
    (void)pthread_mutex_lock(&over->lock);
    if (counted)
        change(over, number, -1);
    (void)pthread_mutex_unlock(&over->lock);
    return r;
}

/* ---- renaming */

static int counted_renameat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    SwOverOpen *over = of(port);
    g_autofree char *why = NULL;
    struct stat st;
    int r = -ENOTSUP;

    if (!flags && over->plain.statat(port, newdir, newname, &st) == 0 && S_ISREG(st.st_mode) &&
        is_open(over, st.st_ino))
        r = sw_aside_rename(over->aside, olddir, oldname, newdir, newname, &why);
    if (why && over->say)
        over->say(over->data, why);
    return r == -ENOTSUP ? over->plain.renameat(port, olddir, oldname, newdir, newname, flags) : r;
}

SwOverOpen *sw_over_open_bind(SwPort *port, const SwMount *mount, void (*say)(gpointer data, const char *text),
                              gpointer data)
{
    SwOverOpen *over = g_new0(SwOverOpen, 1);

    over->plain = *port;
    over->aside = sw_aside_new(mount, port);
    over->say = say;
    over->data = data;
    (void)pthread_mutex_init(&over->lock, NULL);
    over->numbers = g_hash_table_new(NULL, NULL);
    over->counts = g_hash_table_new(NULL, NULL);
    port->openat = counted_openat;
    port->open_beneath = counted_open_beneath;
    port->reopen = counted_reopen;
    port->close = counted_close;
    port->renameat = counted_renameat;
    return over;
}

void sw_over_open_free(SwOverOpen *over)
{
    if (!over)
        return;
    sw_aside_free(over->aside);
    g_hash_table_unref(over->counts);
    g_hash_table_unref(over->numbers);
    (void)pthread_mutex_destroy(&over->lock);
    g_free(over);
}
