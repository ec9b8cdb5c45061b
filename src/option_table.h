/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_OPTION_TABLE_H
#define SW_OPTION_TABLE_H

/*
 * Every mount option there is, once: the parser, `--help` and (by a lint test) the manual page follow this table.
 */

#include "core/config.h"

#include <stdio.h>

typedef enum {
    /* settings of ours; these, and the flags below, may also stand in the configuration file */
    SW_OPTION_GLOBS,
    SW_OPTION_TIME,
    SW_OPTION_BYTES,
    SW_OPTION_CHOICE,
    SW_OPTION_TYPES, /* file system types, separated by colons */
    SW_OPTION_CONF,  /* the configuration file itself */
    /* for the kernel */
    SW_OPTION_RO,
    SW_OPTION_RW,
    SW_OPTION_FLAG,
    SW_OPTION_REMOUNT,
    SW_OPTION_LABEL, /* with a value */
    /* what mount(8), fstab and systemd write for themselves */
    SW_OPTION_IGNORED,
    SW_OPTION_IGNORED_PREFIX,
    SW_OPTION_ALLOW_OTHER,
    SW_OPTION_REFUSED,
} SwOptionKind;

typedef struct {
    const char *name; /* without '=' */
    SwOptionKind kind;
    const char *help;    /* what it does, or why it is refused; NULL where the name says it */
    gsize field;         /* offset in SwConfig: time, bytes, choice, types */
    guint64 min, max;    /* time (microseconds) and bytes */
    const char *choices; /* separated by '|', in the order of the enum */
    SwClass klass;       /* globs */
} SwOptionSpec;

/* The table, ended by a NULL name. */
const SwOptionSpec *sw_option_table(void);
/* The option of that name, or NULL. */
const SwOptionSpec *sw_option_find(const char *name);
/* The same of "NAME=VALUE" or "NAME"; *ret_value is within `token`, or NULL where it has none. */
const SwOptionSpec *sw_option_of_token(const char *token, const char **ret_value);
/* May it stand in the configuration file? */
gboolean sw_option_is_setting(const SwOptionSpec *spec);

/* May it change while mounted (remount.h)?  The kernel's flags aside. */
gboolean sw_option_may_change(const SwOptionSpec *spec);

/*
 * Stores a value (globs, time, bytes, choice, types) in `config`.  0, or -EINVAL and in *ret_why a sentence that names
 * option, value and range (g_free).  A list of globs that was refused may have been stored in part.
 */
int sw_option_store(const SwOptionSpec *spec, const char *value, SwConfig *config,
                    char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

/* The present value as text (g_free): time, bytes and choice; NULL for others. */
char *sw_option_value_text(const SwOptionSpec *spec, const SwConfig *config);

/* "through=GLOBS": how the option is written (g_free). */
char *sw_option_synopsis(const SwOptionSpec *spec);

#endif
