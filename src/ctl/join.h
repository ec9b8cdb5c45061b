/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_JOIN_H
#define SW_JOIN_H

/* Becoming a host of a source for the time of a command, for what only hosts may do. */

#include "../lease/control.h"
#include "place.h"

/* A lease that is long enough for what a command does between two heartbeats, and bounds of salvage that drop nothing.
 */
void sw_join_settings(SwConfig *ret_config);

/*
 * Joins as who runs this, which has to be whose control directory it is; exit code.  Dead mounts of this machine are
 * buried on the way (P7).  End with sw_control_close.
 */
int sw_join(const SwPlace *place, const SwSurvey *survey, const SwConfig *config, SwControl **ret_control);

#endif
