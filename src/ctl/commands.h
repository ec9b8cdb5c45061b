/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_COMMANDS_H
#define SW_COMMANDS_H

/* The commands of safewritectl, one file each.  Each prints what it found or did, and what went wrong. */

#include "args.h"

extern const SwCommand sw_status_command;
extern const SwCommand sw_hosts_command;
extern const SwCommand sw_locks_command;
extern const SwCommand sw_stages_command;
extern const SwCommand sw_break_command;
extern const SwCommand sw_clean_command;
extern const SwCommand sw_doctor_command;
extern const SwCommand sw_gc_command;
extern const SwCommand sw_metrics_command;
extern const SwCommand sw_top_command;
extern const SwCommand sw_upgrade_command;
extern const SwCommand sw_salvage_list_command;
extern const SwCommand sw_salvage_restore_command;
extern const SwCommand sw_salvage_drop_command;

#endif
