/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_OPTIONS_H
#define SW_OPTIONS_H

/*
 * From the command line and the configuration file to the settings of one mount.
 *
 *   safewritefs SOURCE MOUNTPOINT [-f] [-d] [-o OPTION,...]      in any order, as mount(8) and mount.fuse pass them
 *
 * What is said later wins: defaults, then [defaults] of the file, then its groups for this mount point, then the
 * command line.  Lists of globs that begin with '+' add to what is in force at that point.
 */

#include "core/config.h"

#include <stdio.h>

#define SW_CONF_PATH "/etc/safewritefs.conf"

typedef struct {
    char *source, *mountpoint; /* absolute, and without symbolic links as far as they exist */
    gboolean foreground, debug;
    gboolean show_help, show_version; /* then nothing else in here means anything, but all is initialised */
    gboolean check_only;              /* --check: say whether the options are sound, mount nothing */
    gboolean sloppy;                  /* unknown mount options are let pass */
    char *follow;                     /* goes on with the mount of another daemon: follower.h; or NULL */
    gboolean remount;                 /* other options for what is mounted already: remount.h */
    gboolean allow_other;             /* asked for by name; only root gets that far */
    SwConfig config;
    GPtrArray *mount_options; /* for the kernel: "ro", "nosuid", "context=..." in the order given (char *, owned) */
    GPtrArray *given;         /* mount options of the command line, as given (char *, owned) */
    GPtrArray *warnings;      /* sentences for the log: options that -s let pass (char *, owned) */
} SwOptions;

/*
 * Parses `argv` (not changed).  `conf_path` (may be NULL) is read if it exists; `-o conf=FILE` names another one, which
 * must exist, or with an empty FILE none.  0; or -EINVAL (usage, a bad value), or the errno of the configuration file,
 * and in *ret_why a sentence for people (g_free).  On failure `ret` is left cleared.
 */
int sw_options_parse(int argc, char **argv, const char *conf_path, SwOptions *ret,
                     char **ret_why) G_GNUC_WARN_UNUSED_RESULT;
void sw_options_clear(SwOptions *options);

/* Splits mount options at commas, but not at those between double quotes (char *, owned). */
GPtrArray *sw_options_split(const char *text);

/* One of the kernel's flags, by its name, for options->mount_options. */
void sw_options_add_flag(SwOptions *options, const char *flag);

/*
 * The text for libfuse's own `-o`, with its escapes (g_free): "fsname=SOURCE,subtype=safewritefs", then the
 * mount_options.  allow_other and default_permissions are left to the caller.
 */
char *sw_options_fuse_text(const SwOptions *options);

void sw_options_print_help(FILE *file);

#endif
