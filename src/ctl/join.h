/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_JOIN_H
#define SW_JOIN_H

/* Becoming a host of a source for the time of a command, for what only hosts may do. */

#include "../core/event.h"
#include "../lease/control.h"
#include "place.h"

/* A lease that is long enough for what a command does between two heartbeats, and bounds of salvage that drop nothing.
 */
void sw_join_settings(SwConfig *ret_config);

/*
 * Joins as who runs this, which has to be whose control directory it is; exit code.  Dead mounts of this machine are
 * buried on the way (P7).  What happens to locks, stages and hosts from then on is told to the journal, as a daemon
 * would.  End with sw_control_close.
 */
int sw_join(const SwPlace *place, const SwSurvey *survey, const SwConfig *config, SwControl **ret_control);

/* Tells the journal that a host was broken or buried; `reason` may be NULL.  After sw_join. */
void sw_join_tell(SwEventKind kind, const char *host_id, const char *reason);

#endif
