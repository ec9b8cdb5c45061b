/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ring.h"

#include <string.h>

/* Index of the first id after `own`; the length if there is none. */
static guint first_after(const GPtrArray *ids, const char *own)
{
    guint low = 0, high = ids->len;

    while (low < high) {
        guint middle = low + (high - low) / 2;

        if (strcmp(ids->pdata[middle], own) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

GPtrArray *sw_ring_choose(const GPtrArray *ids, const char *own, gboolean (*is_quiet)(gpointer data, const char *id),
                          gpointer data)
{
    GPtrArray *chosen = g_ptr_array_new();
    guint start = first_after(ids, own), wanted = SW_RING_WATCHED;

    for (guint i = 0; i < ids->len && wanted > 0; i++) {
        char *id = ids->pdata[(start + i) % ids->len];

        if (strcmp(id, own) == 0)
            break; /* all the way round */
        g_ptr_array_add(chosen, id);
        if (!is_quiet || !is_quiet(data, id))
            wanted--;
    }
    return chosen;
}
