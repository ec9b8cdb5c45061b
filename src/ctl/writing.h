/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_WRITING_H
#define SW_WRITING_H

/*
 * What is being written in a source: the stages of all its hosts, as they lie in the control directory, and of mounts
 * of this machine as they tell it, for only these know paths, programs and times.
 */

#include "../core/stage_line.h"
#include "place.h"
#include "view.h"

typedef struct {
    const char *host_id; /* owned by the view's hosts, or by SwWriting.ids */
    SwHostState host_state;
    gboolean told;     /* by its mount; else state, age and who are as far as a note beside the stage has them */
    SwStageLine line;  /* `path` is NULL where it is not known; ages are negative */
    gboolean has_file; /* of which the owner is known */
    uid_t uid;
} SwWrite;

typedef struct {
    GPtrArray *writes; /* of SwWrite, the longest first */
    GPtrArray *ids;    /* char * */
    gboolean complete; /* all hosts could be looked into, and all mounts of this machine have told theirs */
} SwWriting;

/* `view` outlives it.  `quiet`: says nothing of mounts that do not answer.  To be cleared. */
void sw_writing_take(SwPlace *place, SwView *view, gboolean quiet, SwWriting *ret_writing);
void sw_writing_clear(SwWriting *writing);

#endif
