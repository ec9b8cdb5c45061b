/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_BUNDLE_H
#define SW_BUNDLE_H

/*
 * The state of a daemon as bytes, for the one that follows it on the same machine (docs/design.md, "A daemon that is
 * followed by another").
 *
 * One function says for each structure what belongs to it, and works both ways: with a bundle that is being written
 * (`out`) it stores, with one that is read it fills in.  So the two cannot disagree about order or size.  Values are
 * stored as they are in memory, each with its size: reader and writer are of one machine and one SW_BUNDLE_FORMAT,
 * which changes with the meaning of any of them.
 *
 * Every byte may be hostile.  Reading beyond the end, an item of another size, a count that cannot be, a descriptor
 * that was not passed or is claimed twice: from the first such fault on, `failed` says what it was, all that is read is
 * 0, and counts are 0.  So callers check once, at the end, and what they made until then they leave alone.
 */

#include <glib.h>

#define SW_BUNDLE_FORMAT 1

typedef struct SwBundle SwBundle;

/* One to be written. */
SwBundle *sw_bundle_new(void);
/* One to be read, of bytes that outlive it; `failed` if they are not a whole one of this format. */
SwBundle *sw_bundle_open(const void *data, gsize size);
void sw_bundle_free(SwBundle *bundle);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SwBundle, sw_bundle_free)

gboolean sw_bundle_is_out(const SwBundle *bundle);
/* What went wrong first: a sentence without an end, or NULL. */
const char *sw_bundle_failed(const SwBundle *bundle);
/* Makes it so; only the first sentence counts. */
void sw_bundle_fail(SwBundle *bundle, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* The bytes of one that was written, which is over with that (owned by it); and the descriptors that go with them. */
const void *sw_bundle_close(SwBundle *bundle, gsize *ret_size);
const int *sw_bundle_fds(const SwBundle *bundle, guint *ret_n);
/* Has everything been read, and every descriptor been claimed?  Else it has failed. */
void sw_bundle_end(SwBundle *bundle);

/* ---- items */

void sw_bundle_bytes(SwBundle *bundle, void *item, gsize size);
#define SW_BUNDLE(bundle, lvalue) sw_bundle_bytes(bundle, &(lvalue), sizeof(lvalue))
/* An enum or a number with a largest value. */
void sw_bundle_choice(SwBundle *bundle, guint *item, guint max);
/* How many follow, at most `max`; each takes a byte at least. */
guint sw_bundle_count(SwBundle *bundle, guint n, guint max);
/* A text, or NULL; at most `max` bytes.  What is read is the caller's (g_free). */
void sw_bundle_text(SwBundle *bundle, char **text, gsize max);
/* A text in a field of that size. */
void sw_bundle_field(SwBundle *bundle, char *text, gsize size);
/* Bytes in an array, or NULL. */
void sw_bundle_array(SwBundle *bundle, GByteArray **array, gsize max);
/* A descriptor, which the other process has under the same number; -1 is none. */
void sw_bundle_fd(SwBundle *bundle, int *fd);
/* Tells apart what follows from anything else. */
void sw_bundle_mark(SwBundle *bundle, const char *name);

#endif
