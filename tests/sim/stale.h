/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_STALE_H
#define SW_TEST_STALE_H

/*
 * What a host's NFS client remembers of names, and answers without asking the server (F12).
 *
 * A name found, or found missing, is believed for a random time up to `stale_us`; its attributes, and a link's text,
 * with it.  Opening the directory anew, or asking for the directory's own attributes past the cache, forgets all names
 * in it; what the host itself makes, renames or removes is forgotten as well.  Directories are known by inode number.
 */

#include "../../src/port/port.h"

typedef struct {
    gboolean missing;
    SwFound found;
    char *text; /* of a link that was read, owned; NULL: not read */
    gint64 until_us;
    guint64 generation, own_generation; /* of the directory, of the object */
} SimRemembered;

typedef struct SimStale SimStale;

SimStale *sim_stale_new(void);
void sim_stale_free(SimStale *stale);
/* NULL: the server has to be asked. */
SimRemembered *sim_stale_find(SimStale *stale, ino_t dir, const char *name, gint64 now_us);
/* `found` NULL: it is missing.  Returned for a text to be added. */
SimRemembered *sim_stale_remember(SimStale *stale, ino_t dir, const char *name, const SwFound *found, gint64 until_us);
void sim_stale_forget(SimStale *stale, ino_t dir, const char *name);
/* All names in that directory, and the attributes of that file or directory under all its names. */
void sim_stale_forget_inode(SimStale *stale, ino_t ino);

#endif
