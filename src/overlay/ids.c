/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The numbers by which the kernel knows nodes, handles and open directories.
 *
 * A number is the object's address, with the generation of the daemon above it.  So the first daemon of a mount, and
 * each one for what it made itself, needs no table.  What a daemon has from the one before it has another address than
 * its number says, and stands in a table until it ends; no new number can be one of these.
 */
#include "internal.h"

#include <stdint.h>

#define GENERATION_SHIFT 48

guint64 sw_ids_of(const SwOverlay *ov, guint64 inherited, gconstpointer object)
{
    return inherited ? inherited : (guint64)(uintptr_t)object | (guint64)ov->generation << GENERATION_SHIFT;
}

static gpointer object_of(SwOverlay *ov, guint64 id)
{
    if (id >> GENERATION_SHIFT == ov->generation)
        return (gpointer)(uintptr_t)(id & ((G_GUINT64_CONSTANT(1) << GENERATION_SHIFT) - 1));
    SW_HOLD(&ov->inherited_lock);
    return g_hash_table_lookup(ov->inherited, &id);
}

void sw_ids_inherit(SwOverlay *ov, const guint64 *id, gpointer object)
{
    SW_HOLD(&ov->inherited_lock);
    g_hash_table_insert(ov->inherited, (gpointer)id, object);
}

void sw_ids_drop(SwOverlay *ov, guint64 inherited)
{
    if (!inherited)
        return;
    SW_HOLD(&ov->inherited_lock);
    g_hash_table_remove(ov->inherited, &inherited);
}

guint64 sw_overlay_node_id(SwOverlay *ov, SwNode *node)
{
    return sw_ids_of(ov, node->kernel_id, node);
}

SwNode *sw_overlay_node(SwOverlay *ov, guint64 id)
{
    return object_of(ov, id);
}

guint64 sw_overlay_handle_id(SwOverlay *ov, SwHandle *handle)
{
    return sw_ids_of(ov, handle->kernel_id, handle);
}

SwHandle *sw_overlay_handle(SwOverlay *ov, guint64 id)
{
    return object_of(ov, id);
}

SwDirHandle *sw_overlay_dir(SwOverlay *ov, guint64 id)
{
    return object_of(ov, id);
}
