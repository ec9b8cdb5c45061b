/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_POLICY_H
#define SW_POLICY_H

/*
 * What a name means (C25): lists of globs, matched against the last path component, or against the whole path below
 * the source when the glob contains a '/'.  Pure.
 *
 * A list is written `GLOB:GLOB:...` (no spaces, no commas: it has to survive fstab).  A list that begins with '+'
 * adds to the defaults, any other replaces them; an empty list switches the class off.  Globs are fnmatch(3) without
 * special treatment of leading dots.
 */

#include <glib.h>

/* In order of precedence.  APPEND is decided by open flags, not by name, between PRIVATE and STREAM (C25). */
typedef enum {
    SW_CLASS_THROUGH, /* handed straight to the source */
    SW_CLASS_LOCK,    /* an application's lock when made exclusively: written through */
    SW_CLASS_PRIVATE, /* visible on its own host until renamed (C16) */
    SW_CLASS_STREAM,  /* published while it is written */
    SW_CLASS_STAGED,
} SwClass;

typedef struct {
    GPtrArray *through, *locks, *private, *stream; /* of char *, owned */
    GPtrArray *data;                               /* never locks: Cargo.lock, yarn.lock ... (C18) */
} SwPolicy;

void sw_policy_init(SwPolicy *policy); /* the defaults */
void sw_policy_clear(SwPolicy *policy);

/*
 * Replaces or extends the list of `klass` by the text of an option.  0, or -EINVAL for an empty glob, a glob over 255
 * bytes, more than 256 globs, an unclosed bracket, a space or comma; `ret_why` (may be NULL) then names it.
 */
int sw_policy_set(SwPolicy *policy, SwClass klass, const char *text, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

/* The class of a name; `path` is relative to the source, without leading '/'. */
SwClass sw_policy_classify(const SwPolicy *policy, const char *path);

/* The list as option text, to print (g_free). */
char *sw_policy_text(const SwPolicy *policy, SwClass klass);

#endif
