/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The attribute is a little-endian 32-bit version, then entries of tag (16 bits), permissions (16) and id (32).
 * The order that the kernel demands is checked by the same automaton as its posix_acl_valid(): owner, named users,
 * group, named groups, mask (required once anybody is named), others.
 */

#include "acl.h"

#include <errno.h>
#include <linux/posix_acl_xattr.h>
#include <string.h>
#include <sys/stat.h>

/* The tags of linux/posix_acl.h, which is not for user space; ours, so as not to need libacl for eight numbers. */
enum {
    TAG_USER_OBJ = 0x01,
    TAG_USER = 0x02,
    TAG_GROUP_OBJ = 0x04,
    TAG_GROUP = 0x08,
    TAG_MASK = 0x10,
    TAG_OTHER = 0x20,
};

#define PERMS 07u
#define NO_ID 0xffffffffu
/* What an extended attribute can hold at all (XATTR_SIZE_MAX). */
#define ACL_BYTES_MAX 65536

typedef struct {
    guint16 tag, perm;
    guint32 id;
} Entry;

/* Which entry may come next; the kernel's states under names. */
typedef enum { AT_OWNER, AT_USERS, AT_GROUPS, AT_OTHER, AT_END } Place;

static gboolean is_named(const Entry *entry)
{
    return entry->tag == TAG_USER || entry->tag == TAG_GROUP;
}

/* Steps over one entry: where we are then, or -EINVAL if it does not belong here. */
static int next_place(Place place, const Entry *entry, gboolean needs_mask)
{
    if ((entry->perm & ~PERMS) || (is_named(entry) && entry->id == NO_ID))
        return -EINVAL;
    switch (entry->tag) {
    case TAG_USER_OBJ:
        return place == AT_OWNER ? AT_USERS : -EINVAL;
    case TAG_USER:
        return place == AT_USERS ? AT_USERS : -EINVAL;
    case TAG_GROUP_OBJ:
        return place == AT_USERS ? AT_GROUPS : -EINVAL;
    case TAG_GROUP:
        return place == AT_GROUPS ? AT_GROUPS : -EINVAL;
    case TAG_MASK:
        return place == AT_GROUPS ? AT_OTHER : -EINVAL;
    case TAG_OTHER:
        return place == AT_OTHER || (place == AT_GROUPS && !needs_mask) ? AT_END : -EINVAL;
    default:
        return -EINVAL;
    }
}

/* The entries of a well-formed attribute; NULL for any other. */
static GArray *entries_parse(const void *acl, gsize size)
{
    const guint8 *bytes = acl;
    g_autoptr(GArray) entries = NULL;
    gboolean needs_mask = FALSE;
    int place = AT_OWNER;
    guint32 version;

    if (size < sizeof(version) || size > ACL_BYTES_MAX || (size - sizeof(version)) % sizeof(Entry) != 0)
        return NULL;
    memcpy(&version, bytes, sizeof(version));
    if (GUINT32_FROM_LE(version) != POSIX_ACL_XATTR_VERSION)
        return NULL;

    entries = g_array_new(FALSE, FALSE, sizeof(Entry));
    for (gsize at = sizeof(version); at < size && place >= 0; at += sizeof(Entry)) {
        Entry entry;

        memcpy(&entry, bytes + at, sizeof(entry));
        entry = (Entry){GUINT16_FROM_LE(entry.tag), GUINT16_FROM_LE(entry.perm), GUINT32_FROM_LE(entry.id)};
        needs_mask = needs_mask || is_named(&entry);
        place = next_place(place, &entry, needs_mask);
        g_array_append_val(entries, entry);
    }
    return place == AT_END ? g_steal_pointer(&entries) : NULL;
}

static void *entries_format(const GArray *entries, gsize *ret_size)
{
    guint32 version = GUINT32_TO_LE(POSIX_ACL_XATTR_VERSION);
    gsize size = sizeof(version) + entries->len * sizeof(Entry);
    guint8 *bytes = g_malloc(size);

    memcpy(bytes, &version, sizeof(version));
    for (guint i = 0; i < entries->len; i++) {
        const Entry *from = &g_array_index(entries, Entry, i);
        guint32 id = is_named(from) ? from->id : NO_ID;
        Entry entry = {GUINT16_TO_LE(from->tag), GUINT16_TO_LE(from->perm), GUINT32_TO_LE(id)};

        memcpy(bytes + sizeof(version) + i * sizeof(entry), &entry, sizeof(entry));
    }
    *ret_size = size;
    return bytes;
}

/* Entry and mode keep what both of them allow; `shift` is where the mode has the entry's bits. */
static void meet(Entry *entry, mode_t *mode, guint shift)
{
    entry->perm &= (*mode >> shift) & PERMS;
    *mode = (*mode & ~(PERMS << shift)) | ((mode_t)entry->perm << shift);
}

int sw_acl_inherit(const void *default_acl, gsize size, mode_t mode, mode_t *ret_mode, void **ret_access,
                   gsize *ret_size)
{
    g_autoptr(GArray) entries = entries_parse(default_acl, size);
    Entry *group = NULL, *mask = NULL;
    gboolean says_more = FALSE;

    if (!entries)
        return -EINVAL;
    for (guint i = 0; i < entries->len; i++) {
        Entry *entry = &g_array_index(entries, Entry, i);

        if (entry->tag == TAG_USER_OBJ)
            meet(entry, &mode, 6);
        else if (entry->tag == TAG_OTHER)
            meet(entry, &mode, 0);
        else if (entry->tag == TAG_GROUP_OBJ)
            group = entry;
        else if (entry->tag == TAG_MASK)
            mask = entry;
        says_more = says_more || is_named(entry) || entry->tag == TAG_MASK;
    }
    /* With a mask the mode's group bits are the mask, and the group's own entry stays as it is. */
    meet(mask ? mask : group, &mode, 3);

    *ret_mode = mode;
    *ret_access = says_more ? entries_format(entries, ret_size) : NULL;
    if (!says_more)
        *ret_size = 0;
    return 0;
}
