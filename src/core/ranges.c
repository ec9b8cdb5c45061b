/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The list stays sorted, disjoint and without neighbours that touch, after every call.  A search by halves finds the
 * place, so that the usual writer, who goes on where it stopped, costs next to nothing.
 */

#include "ranges.h"

void sw_ranges_init(SwRanges *ranges)
{
    *ranges = (SwRanges){.cut = G_MAXUINT64};
}

void sw_ranges_clear(SwRanges *ranges)
{
    if (ranges->pieces)
        g_array_free(ranges->pieces, TRUE);
    sw_ranges_init(ranges);
}

guint sw_ranges_count(const SwRanges *ranges)
{
    return ranges->pieces ? ranges->pieces->len : 0;
}

SwRange sw_ranges_get(const SwRanges *ranges, guint index)
{
    g_assert(index < sw_ranges_count(ranges));
    return g_array_index(ranges->pieces, SwRange, index);
}

gboolean sw_ranges_is_empty(const SwRanges *ranges)
{
    return sw_ranges_count(ranges) == 0 && ranges->cut == G_MAXUINT64;
}

/* Index of the first piece that ends at `offset` or later; the count when there is none. */
static guint first_reaching(const SwRanges *ranges, guint64 offset)
{
    guint low = 0, high = sw_ranges_count(ranges);

    while (low < high) {
        guint middle = low + (high - low) / 2;

        if (sw_ranges_get(ranges, middle).end < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Joins the two neighbours with the smallest gap between them. */
static void join_nearest(SwRanges *ranges)
{
    SwRange *pieces = &g_array_index(ranges->pieces, SwRange, 0);
    guint best = 1;

    for (guint i = 2; i < ranges->pieces->len; i++)
        if (pieces[i].start - pieces[i - 1].end < pieces[best].start - pieces[best - 1].end)
            best = i;
    pieces[best - 1].end = pieces[best].end;
    g_array_remove_index(ranges->pieces, best);
}

void sw_ranges_add(SwRanges *ranges, guint64 start, guint64 length)
{
    SwRange piece = {start, length > G_MAXUINT64 - start ? G_MAXUINT64 : start + length};
    guint first, last;

    if (piece.start == piece.end)
        return;
    if (!ranges->pieces)
        ranges->pieces = g_array_new(FALSE, FALSE, sizeof(SwRange));

    /* All pieces that touch or overlap the new one melt into it. */
    first = last = first_reaching(ranges, piece.start);
    while (last < ranges->pieces->len && sw_ranges_get(ranges, last).start <= piece.end) {
        SwRange met = sw_ranges_get(ranges, last++);

        piece.start = MIN(piece.start, met.start);
        piece.end = MAX(piece.end, met.end);
    }
    if (last > first) {
        g_array_index(ranges->pieces, SwRange, first) = piece;
        if (last > first + 1)
            g_array_remove_range(ranges->pieces, first + 1, last - first - 1);
    } else {
        g_array_insert_val(ranges->pieces, first, piece);
    }
    if (ranges->pieces->len > SW_RANGES_MAX)
        join_nearest(ranges);
    ranges->size = MAX(ranges->size, piece.end);
}

void sw_ranges_truncate(SwRanges *ranges, guint64 size)
{
    guint count = sw_ranges_count(ranges), keep;

    ranges->cut = MIN(ranges->cut, size);
    ranges->size = size;
    if (count == 0)
        return;
    keep = first_reaching(ranges, size);
    if (keep < count && sw_ranges_get(ranges, keep).start < size)
        g_array_index(ranges->pieces, SwRange, keep++).end = size;
    g_array_set_size(ranges->pieces, keep);
}
