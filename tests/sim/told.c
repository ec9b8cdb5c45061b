/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "told.h"

#include <dirent.h>
#include <fcntl.h>

#define NSEC_PER_USEC G_GINT64_CONSTANT(1000)
#define NSEC_PER_SEC G_GINT64_CONSTANT(1000000000)

/* The virtual clock begins about here, so that no time that a program sets is before the world was made. */
#define BEGINNING_NS (G_GINT64_CONSTANT(1000000000) * NSEC_PER_SEC)

struct SimToldFile {
    ino_t number;
    struct timespec changed, written;           /* as told */
    struct timespec real_changed, real_written; /* when that was last brought up to date */
    gboolean behind;                            /* these two are to be learned anew */
};

struct SimTold {
    const gint64 *now_us, *ahead_us;
    GHashTable *files; /* real inode number -> SimToldFile, owned */
    ino_t last;
    gint64 last_ns; /* no two changes are of one time */
};

SimTold *sim_told_new(const gint64 *now_us, const gint64 *ahead_us)
{
    SimTold *told = g_new0(SimTold, 1);

    told->now_us = now_us;
    told->ahead_us = ahead_us;
    told->files = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    return told;
}

void sim_told_free(SimTold *told)
{
    g_hash_table_unref(told->files);
    g_free(told);
}

static struct timespec present(SimTold *told)
{
    gint64 ns = BEGINNING_NS + (*told->now_us + *told->ahead_us) * NSEC_PER_USEC;

    told->last_ns = MAX(ns, told->last_ns + 1);
    return (struct timespec){.tv_sec = told->last_ns / NSEC_PER_SEC, .tv_nsec = told->last_ns % NSEC_PER_SEC};
}

static gboolean is_same(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static void learn_real(SimToldFile *known, const struct stat *st)
{
    known->real_changed = st->st_ctim;
    known->real_written = st->st_mtim;
    known->behind = FALSE;
}

static SimToldFile *meet(SimTold *told, const struct stat *st)
{
    SimToldFile *known = g_new0(SimToldFile, 1);
    guint64 ino = st->st_ino;

    known->number = ++told->last;
    learn_real(known, st);
    known->changed = known->written = present(told);
    g_hash_table_insert(told->files, g_memdup2(&ino, sizeof ino), known);
    return known;
}

static void bring_up(SimTold *told, SimToldFile *known, const struct stat *st, SimToldWhat what)
{
    known->changed = present(told);
    if (what == SIM_TOLD_WRITTEN)
        known->written = known->changed;
    else if (what == SIM_TOLD_DATED)
        known->written = st->st_mtim;
    learn_real(known, st);
}

static SimToldFile *find(SimTold *told, const struct stat *st)
{
    guint64 ino = st->st_ino;

    return g_hash_table_lookup(told->files, &ino);
}

void sim_told_note(SimTold *told, int dirfd, const char *name, SimToldWhat what)
{
    struct stat st;
    SimToldFile *known;

    if (fstatat(dirfd, name, &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
        return;
    known = what == SIM_TOLD_MADE ? NULL : find(told, &st);
    if (known)
        bring_up(told, known, &st, what);
    else
        (void)meet(told, &st);
}

SimToldFile *sim_told_find(SimTold *told, int dirfd, const char *name)
{
    struct stat st;

    return fstatat(dirfd, name, &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0 ? find(told, &st) : NULL;
}

void sim_told_lost_name(SimTold *told, SimToldFile *file)
{
    if (!file)
        return;
    file->changed = present(told);
    file->behind = TRUE;
}

void sim_told_put(SimTold *told, struct stat *st)
{
    SimToldFile *known = find(told, st);

    if (!known)
        known = meet(told, st);
    else if (known->behind)
        learn_real(known, st);
    else if (!is_same(&known->real_changed, &st->st_ctim))
        bring_up(told, known, st, is_same(&known->real_written, &st->st_mtim) ? SIM_TOLD_CHANGED : SIM_TOLD_WRITTEN);
    st->st_ino = known->number;
    st->st_ctim = known->changed;
    st->st_mtim = st->st_atim = known->written;
}

void sim_told_list(SimTold *told, int fd, void *buf, gsize size)
{
    for (gsize at = 0; at < size;) {
        struct dirent64 *entry = (struct dirent64 *)((char *)buf + at);
        struct stat st;

        if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            sim_told_put(told, &st);
            entry->d_ino = st.st_ino;
        }
        at += entry->d_reclen;
    }
}
