/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_LIES_H
#define SW_TEST_LIES_H

/*
 * A simulated host that has its files from NFS: it answers from caches where the kernel's client does (F12).
 *
 * By name, stat, readlink and open may be answered with what was true up to `stale_us` ago, also that a name is
 * missing; an exclusive make with EEXIST, and a rename or unlink with ENOENT, likewise.  The truth comes of opening the
 * directory anew, or of stat_fresh on it; stat_fresh on a file asks the server, unless its name is believed missing.
 * The flags of renameat2(2) are not known, and the source says that it is NFS.
 */

#include "port_sim.h"

void sim_lies_begin(SwPort *port, SimWorld *world, gint64 stale_us);

#endif
