/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_PLACE_H
#define SW_PLACE_H

/*
 * The source that a command is about, named by its own path or by where it is mounted.
 *
 * A mount is never asked, for its daemon may stand still: which source it has is in mountinfo.  Where a mount covers
 * its own source, root looks beneath it: a thread of its own takes the mount away in a mount namespace of its own, and
 * only the descriptor of the source comes back.
 */

#include "../lease/survey.h"
#include "mounts.h"

typedef struct {
    SwPort *port;
    char *path;        /* of the source; a real path where there is one */
    int source;        /* its top */
    GPtrArray *mounts; /* all of this machine */
} SwPlace;

/* 0, or an exit code, and it has been said why.  To be cleared in any case. */
int sw_place_open(SwPlace *place, const char *path);
void sw_place_clear(SwPlace *place);

/* Opens a directory named by who runs this, so links on the way are followed; or -errno. */
int sw_place_directory(const char *path);

/* Opens its control directory for reading; exit code.  To be cleared if 0. */
int sw_place_survey(SwPlace *place, SwSurvey *ret_survey);

/* Is that a mount of this source? */
gboolean sw_place_has_mount(const SwPlace *place, const SwMount *mount);

/*
 * What a path is called below the source (g_free), NULL if it is elsewhere.  An absolute one may lead through the
 * source or any of its mounts; a relative one is below the source already.
 */
char *sw_place_relative(const SwPlace *place, const char *path);

/*
 * Finds the mount or source that a path (its last component need not exist) is in.  FALSE: none; else both are to be
 * freed with g_free.
 */
gboolean sw_place_find(const char *path, char **ret_place, char **ret_relative);

/*
 * The host meant by a host id, a hostname, or the beginning of a host id; the last two have to be unambiguous, else it
 * is said so, and the result is an exit code.  *ret_host is NULL where there is none.
 */
int sw_place_find_host(const SwPlace *place, GPtrArray *hosts, const char *word, const SwSurveyHost **ret_host);

#endif
