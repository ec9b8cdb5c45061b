/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_SALVAGE_CMD_H
#define SW_SALVAGE_CMD_H

/* `safewritectl salvage ...`: list, restore, drop. */

#define SW_EXIT_FAILURE 1
#define SW_EXIT_USAGE 2

/* `argv[0]` is the action.  Prints what went wrong, if anything did; the result is the exit code. */
int sw_salvage_command(int argc, char **argv);

#endif
