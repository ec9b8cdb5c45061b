/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nfs3.h"

#include "aside.h"
#include "posix.h"

#include <stdint.h>

struct SwNfs3 {
    SwPort plain; /* the members as they were */
    SwAside *aside;
    void (*say)(gpointer data, const char *text);
    gpointer data;
    pthread_mutex_t lock;
    GHashTable
        *numbers; /* protected by lock: of a descriptor, the inode number of its file, and how often that is open */
    GHashTable *counts;
};

static SwNfs3 *of(SwPort *port)
{
    return ((SwPosix *)port)->nfs3;
}

/* ---- which files are open */

static gpointer key(guint64 number)
{
    return (gpointer)(uintptr_t)number;
}

static void change(SwNfs3 *nfs3, gpointer number, gint by)
{
    gint count = GPOINTER_TO_INT(g_hash_table_lookup(nfs3->counts, number)) + by;

    if (count > 0)
        g_hash_table_insert(nfs3->counts, number, GINT_TO_POINTER(count));
    else
        g_hash_table_remove(nfs3->counts, number);
}

static int opened(SwNfs3 *nfs3, int fd)
{
    struct stat st;

    if (fd < 0 || nfs3->plain.statat(&nfs3->plain, fd, "", &st) < 0 || !S_ISREG(st.st_mode))
        return fd;
    (void)pthread_mutex_lock(&nfs3->lock);
    g_hash_table_insert(nfs3->numbers, GINT_TO_POINTER(fd), key(st.st_ino));
    change(nfs3, key(st.st_ino), 1);
    (void)pthread_mutex_unlock(&nfs3->lock);
    return fd;
}

static gboolean is_open(SwNfs3 *nfs3, ino_t number)
{
    gboolean open;

    (void)pthread_mutex_lock(&nfs3->lock);
    open = g_hash_table_contains(nfs3->counts, key(number));
    (void)pthread_mutex_unlock(&nfs3->lock);
    return open;
}

static int nfs3_openat(SwPort *port, int dirfd, const char *name, int flags, mode_t mode)
{
    SwNfs3 *nfs3 = of(port);

    return opened(nfs3, nfs3->plain.openat(port, dirfd, name, flags, mode));
}

static int nfs3_open_beneath(SwPort *port, int dirfd, const char *path, int flags)
{
    SwNfs3 *nfs3 = of(port);

    return opened(nfs3, nfs3->plain.open_beneath(port, dirfd, path, flags));
}

static int nfs3_reopen(SwPort *port, int fd, int flags)
{
    SwNfs3 *nfs3 = of(port);

    return opened(nfs3, nfs3->plain.reopen(port, fd, flags));
}

/* Counted until it is closed: once it is, the number may be another thread's. */
static int nfs3_close(SwPort *port, int fd)
{
    SwNfs3 *nfs3 = of(port);
    gpointer number = NULL;
    gboolean counted;
    int r;

    (void)pthread_mutex_lock(&nfs3->lock);
    counted = g_hash_table_steal_extended(nfs3->numbers, GINT_TO_POINTER(fd), NULL, &number);
    (void)pthread_mutex_unlock(&nfs3->lock);
    r = nfs3->plain.close(port, fd);
    (void)pthread_mutex_lock(&nfs3->lock);
    if (counted)
        change(nfs3, number, -1);
    (void)pthread_mutex_unlock(&nfs3->lock);
    return r;
}

/* ---- renaming */

static int nfs3_renameat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    SwNfs3 *nfs3 = of(port);
    g_autofree char *why = NULL;
    struct stat st;
    int r = -ENOTSUP;

    if (!flags && nfs3->plain.statat(port, newdir, newname, &st) == 0 && S_ISREG(st.st_mode) &&
        is_open(nfs3, st.st_ino))
        r = sw_aside_rename(nfs3->aside, olddir, oldname, newdir, newname, &why);
    if (why && nfs3->say)
        nfs3->say(nfs3->data, why);
    return r == -ENOTSUP ? nfs3->plain.renameat(port, olddir, oldname, newdir, newname, flags) : r;
}

SwNfs3 *sw_nfs3_bind(SwPort *port, const SwMount *mount, void (*say)(gpointer data, const char *text), gpointer data)
{
    SwNfs3 *nfs3 = g_new0(SwNfs3, 1);

    nfs3->plain = *port;
    nfs3->aside = sw_aside_new(mount, port);
    nfs3->say = say;
    nfs3->data = data;
    (void)pthread_mutex_init(&nfs3->lock, NULL);
    nfs3->numbers = g_hash_table_new(NULL, NULL);
    nfs3->counts = g_hash_table_new(NULL, NULL);
    port->openat = nfs3_openat;
    port->open_beneath = nfs3_open_beneath;
    port->reopen = nfs3_reopen;
    port->close = nfs3_close;
    port->renameat = nfs3_renameat;
    return nfs3;
}

void sw_nfs3_free(SwNfs3 *nfs3)
{
    if (!nfs3)
        return;
    sw_aside_free(nfs3->aside);
    g_hash_table_unref(nfs3->counts);
    g_hash_table_unref(nfs3->numbers);
    (void)pthread_mutex_destroy(&nfs3->lock);
    g_free(nfs3);
}
