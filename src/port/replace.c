/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replace.h"

#include <errno.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((off_t)1 << 30)
#define CHUNK_MEANWHILE ((off_t)8 << 20) /* so that a heartbeat comes in time on a slow disk, too */
#define GIVE_BACK_TRIES 1000
#define KEYS_SIZE 4096

/* ---- bytes */

int sw_copy_bytes(SwPort *port, int from, int to, off_t start, off_t end, const SwMeanwhile *meanwhile)
{
    while (start < end) {
        off_t chunk = meanwhile ? CHUNK_MEANWHILE : CHUNK;
        ssize_t n = port->copy_range(port, from, start, to, start, MIN(end - start, chunk));

        if (n < 0)
            return n;
        if (n == 0)
            break; /* the file was cut while it was copied; whoever puts the copy in its place will see that */
        start += n;
        if (meanwhile)
            meanwhile->call(meanwhile->data);
    }
    return 0;
}

int sw_copy_sparse(SwPort *port, int from, int to, off_t end, const SwMeanwhile *meanwhile)
{
    int r = 0;

    port->read_anew(port, from);
    for (off_t at = 0; r == 0 && at < end;) {
        off_t hole, data = port->lseek(port, from, at, SEEK_DATA);

        if (data == -ENXIO || data >= end)
            break; /* a hole to the end */
        hole = data < 0 ? end : port->lseek(port, from, data, SEEK_HOLE);
        at = hole > data && hole < end ? hole : end;
        r = sw_copy_bytes(port, from, to, MAX(data, 0), at, meanwhile);
    }
    return r < 0 ? r : port->ftruncate(port, to, end);
}

/* ---- extended attributes */

/*
 * Every file has an NFSv4 ACL (RFC 8881, section 6), most of them one that says what the mode says: entries for
 * OWNER@, GROUP@ and EVERYONE@ only.  `value` is XDR: a count, then type, flags, mask and a counted, padded name each.
 */
static gboolean is_plain_nfs4_acl(const guint8 *value, gsize length)
{
    gsize at = 4;

    while (at + 16 <= length) {
        gsize size = (gsize)value[at + 12] << 24 | value[at + 13] << 16 | value[at + 14] << 8 | value[at + 15];

        at += 16;
        if (size == 0 || size > length - at || value[at + size - 1] != '@')
            return FALSE;
        at += (size + 3) & ~(gsize)3;
    }
    return TRUE;
}

int sw_carry_xattrs(SwPort *port, int from_dirfd, const char *from_name, int to, gboolean capabilities)
{
    char keys[KEYS_SIZE];
    ssize_t size = port->listxattr(port, from_dirfd, from_name, keys, sizeof keys);

    for (const char *key = keys; size > 0 && key < keys + size; key += strlen(key) + 1) {
        g_autofree void *value = NULL;
        ssize_t length;
        int r;

        if (!capabilities && strcmp(key, "security.capability") == 0)
            continue;
        value = g_malloc(XATTR_SIZE_MAX);
        length = port->getxattr(port, from_dirfd, from_name, key, value, XATTR_SIZE_MAX);
        if (length > 0 && strcmp(key, "system.nfs4_acl") == 0 && is_plain_nfs4_acl(value, length))
            continue;
        r = length < 0 ? 0 : port->setxattr(port, to, "", key, value, length, 0);
        if (r == -ENOSPC || r == -EDQUOT)
            return r;
    }
    return 0;
}

/* ---- the way back */

int sw_give_back(SwPort *port, int own, const char *own_name, int dirfd, const char *name, const SwFound *put,
                 const SwFound *displaced)
{
    SwFound there = *put, here = *displaced, out;

    for (guint tries = 0; tries < GIVE_BACK_TRIES; tries++) {
        int r = port->renameat(port, own, own_name, dirfd, name, RENAME_EXCHANGE);

        if (r == 0)
            r = port->lookat(port, own, own_name, &out);
        if (r < 0 || sw_same_object(&out, &there))
            return r;
        there = here;
        here = out;
    }
    return -EBUSY;
}
