/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_RANGES_H
#define SW_RANGES_H

/*
 * The byte ranges an edit wrote (C10): a sorted list of disjoint, non-adjacent [start, end), and the truncations among
 * them.  Pure; memory is bounded: beyond SW_RANGES_MAX pieces the two nearest neighbours are joined, and the bytes
 * between them then count as written (their value is that of the version opened).
 *
 * Truncations: `cut` is the smallest size the file was ever cut to (G_MAXUINT64 = never), so that bytes of the base
 * from there on are gone, and `size` the size set by the last truncation or extended by a later write.
 */

#include <glib.h>

#define SW_RANGES_MAX 4096

typedef struct {
    guint64 start, end;
} SwRange;

typedef struct {
    GArray *pieces; /* of SwRange; NULL while empty */
    guint64 cut;    /* smallest truncation, or G_MAXUINT64 */
    guint64 size;   /* meaningful when cut != G_MAXUINT64 or grown */
} SwRanges;

void sw_ranges_init(SwRanges *ranges);
void sw_ranges_clear(SwRanges *ranges);
/* [start, start + length) was written; a length of 0 changes nothing; sums saturate. */
void sw_ranges_add(SwRanges *ranges, guint64 start, guint64 length);
/* The file was cut or extended to `size`: pieces beyond it vanish. */
void sw_ranges_truncate(SwRanges *ranges, guint64 size);
gboolean sw_ranges_is_empty(const SwRanges *ranges); /* nothing written and never truncated */
guint sw_ranges_count(const SwRanges *ranges);
SwRange sw_ranges_get(const SwRanges *ranges, guint index);

#endif
