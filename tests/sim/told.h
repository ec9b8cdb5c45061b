/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_TOLD_H
#define SW_TEST_TOLD_H

/*
 * What the simulated server tells of its files instead of what the real directory says: inode numbers in the order in
 * which they were met, and times by the virtual clock.  Both decide things (records are named after inode numbers, and
 * who came first is a question of times), so with the real ones no seed would run the same way twice.
 *
 * A file is known by its real inode number.  Whoever changes one through a port says so; what tests change behind the
 * ports' backs is seen by the real change time, and counts as changed when it is looked at.
 */

#include <glib.h>
#include <sys/stat.h>

typedef struct SimTold SimTold;

/* Both clocks outlive it: the virtual time in microseconds, and how far the server is ahead of it. */
SimTold *sim_told_new(const gint64 *now_us, const gint64 *ahead_us);
void sim_told_free(SimTold *told);

/* What happened to a file just now. */
typedef enum {
    SIM_TOLD_MADE,    /* it is new, whatever had its number */
    SIM_TOLD_WRITTEN, /* its bytes, or the names in it */
    SIM_TOLD_CHANGED, /* something else of it */
    SIM_TOLD_DATED,   /* its modification time was set */
} SimToldWhat;

/* `name` in `dirfd`, or what is behind `dirfd` with ""; nothing when it is not there. */
void sim_told_note(SimTold *told, int dirfd, const char *name, SimToldWhat what);
/* Around the removal of a name, or a rename over it: what it leads to is another file afterwards, or none, but is still
 * seen by who has it open.  NULL: nothing that is known. */
typedef struct SimToldFile SimToldFile;
SimToldFile *sim_told_find(SimTold *told, int dirfd, const char *name);
void sim_told_lost_name(SimTold *told, SimToldFile *file);
/* Replaces what is real in `st`. */
void sim_told_put(SimTold *told, struct stat *st);
/* The same for `size` bytes of records of getdents64(2) of the directory `fd`. */
void sim_told_list(SimTold *told, int fd, void *buf, gsize size);

#endif
