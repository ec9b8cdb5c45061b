/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_DOCTOR_H
#define SW_DOCTOR_H

/* The checks of doctor, by what they look at. */

#include "findings.h"
#include "place.h"

/* Kernel, /dev/fuse, helpers, rights, limits, the configuration file. */
void sw_doctor_machine(SwFindings *findings);
/* The source's file system, its mount options, whether this machine exports it, and how. */
void sw_doctor_source(SwFindings *findings, const SwPlace *place);
/* Its control directory: whose it is, modes, hosts and what they have left, salvage, clocks. */
void sw_doctor_control(SwFindings *findings, SwPlace *place, guint64 salvage_max);
/* Its mounts on this machine: do they answer? */
void sw_doctor_mounts(SwFindings *findings, const SwPlace *place);

#endif
