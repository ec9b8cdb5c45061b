/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_DISK_H
#define SW_TEST_DISK_H

/* What is on the source, past all overlays. */

#include "host.h"

/* Complains about all that is there after the last unmount, but for `names` (NULL at the end) and salvage. */
void sim_disk_litter(Sim *sim, const char *const *names);
/* Are these bytes part of something in salvage? */
gboolean sim_disk_salvaged(Sim *sim, const char *bytes);
/* Puts a file there. */
void sim_disk_put(Sim *sim, const char *name, const char *text);

#endif
