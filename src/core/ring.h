/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_RING_H
#define SW_RING_H

/*
 * Who watches whom: all host ids, sorted, in a ring; each host watches the next SW_RING_WATCHED after it, so each is
 * watched by as many, and nobody has to agree with anybody.  For each one of these that has been silent for long, one
 * more: the host behind a dead one is to have as many living watchers as any.  Pure.
 */

#include <glib.h>

#define SW_RING_WATCHED 3

/*
 * Ids out of `ids` (of char *, sorted by strcmp, without doubles) that `own` has to watch, borrowed.  `own` itself may
 * be missing there.  `is_quiet` (may be NULL) tells whether a host has been seen silent for long.
 */
GPtrArray *sw_ring_choose(const GPtrArray *ids, const char *own, gboolean (*is_quiet)(gpointer data, const char *id),
                          gpointer data);

#endif
