/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_JOURNAL_H
#define SW_JOURNAL_H

/*
 * The journal's own protocol: one datagram of fields for each entry.
 *
 * It is documented as stable (systemd.io/JOURNAL_NATIVE_PROTOCOL), and written by hand for the reason that notify.h
 * gives.  A field is "NAME=value\n", or, where its value has bytes that are no printable ASCII, the name, a newline,
 * the length in 64 bits (little endian), the value and a newline: so no value can begin another field.
 *
 * Any thread may call these; errno is left alone but for sw_journal_send.
 */

#include <glib.h>

/* Where it listens. */
#define SW_JOURNAL_PLACE "/run/systemd/journal/socket"

/* No more of a value is sent: a datagram has to fit into a socket's buffer. */
#define SW_JOURNAL_VALUE_MAX 16384

/* Adds a field.  `name`: A to Z, 0 to 9 and underscores; a NULL `value` adds nothing. */
void sw_journal_add(GString *entry, const char *name, const char *value);

/* Sends it to the socket at `place`.  0 or -errno: -ENOENT, there is no journal; -EAGAIN, it did not take it in 0.2 s.
 */
int sw_journal_send(const char *place, const GString *entry) G_GNUC_WARN_UNUSED_RESULT;

/* Does this descriptor lead to the journal, as JOURNAL_STREAM says ("DEVICE:INODE"; systemd.exec(5))? */
gboolean sw_journal_is_behind(int fd);

#endif
