/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_REMOUNT_H
#define SW_REMOUNT_H

/*
 * `mount -o remount,...`: other options for a mount that goes on.
 *
 * mount(8) calls the program as for a mount, with all that fstab and the command line say.  So an option that says what
 * is so already is no change, and may be any; what differs has to be one that can change in a running daemon
 * (sw_option_may_change, and the kernel's flags).  Options that are not named stay as they are, whatever the
 * configuration file has now.  Nothing is changed if anything is refused.
 *
 *   1. the daemon is asked whether it would (core/ask.h)
 *   2. the kernel is told its flags: mount(2)
 *   3. the daemon does it, and tells its supervisor, for the daemon that may follow it
 */

#include "options.h"

/* Remounts options->mountpoint with options->given.  0, or -errno and a sentence in *ret_why (g_free). */
int sw_remount(const SwOptions *options, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

/*
 * In the daemon: what options of a mount with `options`, whose settings are `now`, become of `tokens` (as
 * sw_options_split gives them).  0, and *ret_config is a copy of `now` with what changes; lists and strings in it are
 * those of `now`.  -EINVAL, and a sentence in *ret_why (g_free).
 */
int sw_remount_settings(const SwOptions *options, const SwConfig *now, const GPtrArray *tokens, SwConfig *ret_config,
                        char **ret_why) G_GNUC_WARN_UNUSED_RESULT;

/* The mount options of a mount that is made anew: with the kernel's flags among `tokens`. */
void sw_remount_flags(SwOptions *options, const GPtrArray *tokens);

/* Adds those of `tokens` to `all` that sw_remount_settings may change, and the kernel's flags. */
void sw_remount_remember(const GPtrArray *tokens, GPtrArray *all);

/* The two lines of a request (core/ask.h), what its verb left; FALSE: there are not two. */
gboolean sw_remount_split(const char *request, char **ret_source, GPtrArray **ret_tokens);

#endif
