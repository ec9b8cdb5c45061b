/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_SALVAGE_H
#define SW_SALVAGE_H

/*
 * Reading salvage, for the daemon that bounds it and for safewritectl.
 *
 * An entry is two files in a directory where everybody may make files: <entry>.data, the bytes, and <entry>.info, what
 * they are.  So everything here is hostile: a description counts only if it is a regular file of the same owner as the
 * bytes, and what is neither is passed over.
 */

#include "../core/record.h"
#include "../port/port.h"

#define SW_SALVAGE_NAMES_MAX 40000 /* names looked at in one go */
#define SW_SALVAGE_ENTRIES_MAX 10000

typedef struct {
    char *name; /* "<host id>-<number>-<8 hex digits>" */
    gboolean has_data;
    gboolean has_info;
    struct stat data;  /* of <entry>.data, when there */
    struct stat info;  /* of <entry>.info, when there */
    gint64 changed_us; /* the newest change time of its files, by the server's clock */
} SwSalvageEntry;

void sw_salvage_entry_free(SwSalvageEntry *entry);

/* The name of an entry? */
gboolean sw_salvage_name_is_valid(const char *name);

/* All entries of the salvage directory `dirfd`, oldest first; the array frees them. */
int sw_salvage_scan(SwPort *port, int dirfd, GPtrArray **ret_entries) G_GNUC_WARN_UNUSED_RESULT;

/*
 * What the entry says about itself.  -ENOENT: nothing, or nothing that can be believed.  Reads as the daemon, or as
 * the owner where that is refused; leaves the thread as the daemon.
 */
int sw_salvage_describe(SwPort *port, int dirfd, const SwSalvageEntry *entry,
                        SwSalvageInfo *ret_info) G_GNUC_WARN_UNUSED_RESULT;

/* Removes the files of an entry.  0 when none is left; acts as the thread does. */
int sw_salvage_drop(SwPort *port, int dirfd, const char *name);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(SwSalvageEntry, sw_salvage_entry_free)

#endif
