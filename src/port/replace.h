/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_REPLACE_H
#define SW_REPLACE_H

/*
 * What it takes to put one file in the place of another: its bytes, its extended attributes, and the way back.  For
 * stages (C10, C17) and for the copy on which appends continue (C11).
 *
 * Functions act as the thread does, and may be called from any thread.  Results are 0 or -errno.
 */

#include "port.h"

/* Called now and then by what may take long. */
typedef struct {
    void (*call)(gpointer data);
    gpointer data;
} SwMeanwhile;

/* The bytes of [start, end) to the same place; stops early where `from` ends.  `meanwhile` may be NULL. */
int sw_copy_bytes(SwPort *port, int from, int to, off_t start, off_t end,
                  const SwMeanwhile *meanwhile) G_GNUC_WARN_UNUSED_RESULT;
/* The first `end` bytes of a file, holes left as holes, into an empty one, which then has that size. */
int sw_copy_sparse(SwPort *port, int from, int to, off_t end, const SwMeanwhile *meanwhile) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Gives the file behind `to` the extended attributes of the other, ACLs among them; file capabilities only if asked.
 * What may not be set is left out; -ENOSPC and -EDQUOT are reported.
 */
int sw_carry_xattrs(SwPort *port, int from_dirfd, const char *from_name, int to,
                    gboolean capabilities) G_GNUC_WARN_UNUSED_RESULT;

static inline gboolean sw_same_object(const SwFound *a, const SwFound *b)
{
    return a->st.st_ino == b->st.st_ino && a->tag == b->tag;
}

/*
 * `put` was exchanged for what stood at `name` in `dirfd`, and that turned out to be another version than the one to be
 * replaced: `displaced`, which is at `own_name` in `own` now, goes back.  Should a still newer one stand there by
 * then, that comes out in exchange, and goes back in its turn: the last commit wins (C9).  Afterwards `put`, or a
 * version that was replaced, is at `own_name`.  -EBUSY: too many came.
 */
int sw_give_back(SwPort *port, int own, const char *own_name, int dirfd, const char *name, const SwFound *put,
                 const SwFound *displaced) G_GNUC_WARN_UNUSED_RESULT;

#endif
