/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_ASIDE_H
#define SW_ASIDE_H

/*
 * A second, private mount of an NFS export, to rename through.  Inside of the real port.
 *
 * The client renames over a file that somebody on this machine has open by giving that another name first, and for a
 * moment the name is missing (FACTS F9).  It knows of open files by its own cache of names; a second mount that shares
 * no cache (`nosharecache`) knows of none, and there the rename is one call that replaces (F20).  It has no mount point
 * and is made when it is first needed.
 *
 * Any thread may use it.
 */

#include "mount.h"
#include "port.h"

typedef struct SwAside SwAside;

/* Of the mount that `mount` tells, which outlives it, with the members of `plain`. */
SwAside *sw_aside_new(const SwMount *mount, const SwPort *plain);
void sw_aside_free(SwAside *aside);

/*
 * rename(2), as the thread is, of names in directories of the first mount; what that has cached of them is brought up
 * to date.  -ENOTSUP: there is no such mount and can be none (*ret_why is a sentence, once; g_free), or one of the
 * directories was not found in it.
 */
int sw_aside_rename(SwAside *aside, int olddir, const char *oldname, int newdir, const char *newname,
                    char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

#endif
