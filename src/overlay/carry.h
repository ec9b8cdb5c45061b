/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_OVERLAY_CARRY_H
#define SW_OVERLAY_CARRY_H

/*
 * What an overlay knows, for the daemon that follows this one (core/bundle.h).  Private to this directory; what main.c
 * calls is in overlay.h.
 *
 * It is a graph: nodes, descriptors, stages and handles refer to each other.  All of them are listed first, and
 * references are places in these lists.  References that are counted are counted here as well, on both sides, and have
 * to come out as the counters say: state that refers to something and is not carried is noticed before anything is
 * handed over, by the daemon that has it.
 *
 * No other thread is in the overlay, so no lock is taken.
 */

#include "../core/bundle.h"
#include "internal.h"

typedef enum { SW_CARRY_NODE, SW_CARRY_FILE, SW_CARRY_STAGE, SW_CARRY_HANDLE, SW_CARRY_LOCKED, SW_CARRY_N } SwCarryKind;

typedef struct {
    SwBundle *bundle;
    SwOverlay *overlay;
    GPtrArray *all[SW_CARRY_N];
    GArray *refs[SW_CARRY_N]; /* of guint: how often referred to by what is carried */
    GHashTable *places;       /* out: object -> its place + 1 */
} SwCarriage;

/* Lists an object, if it is none (NULL) or not listed yet. */
void sw_carry_add(SwCarriage *carriage, SwCarryKind kind, gpointer object);
/* A reference, or NULL; `counted`: one that the object's counter knows of. */
void sw_carry_ref(SwCarriage *carriage, SwCarryKind kind, gpointer *object, gboolean counted);
#define SW_CARRY(carriage, kind, pointer, counted)                                                                     \
    do {                                                                                                               \
        gpointer object_ = (pointer);                                                                                  \
        sw_carry_ref(carriage, kind, &object_, counted);                                                               \
        (pointer) = object_;                                                                                           \
    } while (0)
/* A name in a directory. */
void sw_carry_name(SwCarriage *carriage, char **name);
void sw_carry_cred(SwCarriage *carriage, SwCred *cred);
void sw_carry_old(SwCarriage *carriage, SwOld *old);

/* ---- by what owns them */
void sw_listing_carry(SwBundle *bundle, SwListing **listing);
void sw_dirs_carry(SwCarriage *carriage);
void sw_locks_carry(SwLocks *locks, SwCarriage *carriage);
void sw_owners_carry(SwOwners *owners, SwBundle *bundle);
/* One of those that sw_owners_carry has listed, with a reference on the reading side. */
void sw_owner_carry(SwOwners *owners, SwBundle *bundle, SwOwner **owner);
void sw_expiry_carry(SwExpiry *expiry, SwBundle *bundle);
/* Lists the locked files, and carries them. */
void sw_file_locks_collect(SwCarriage *carriage);
void sw_file_locks_carry(SwCarriage *carriage);

#endif
