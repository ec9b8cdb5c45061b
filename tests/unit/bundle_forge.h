/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BUNDLE_FORGE_H
#define BUNDLE_FORGE_H

/* Bundles that somebody has changed, and sealed again as core/bundle.c does. */

#include <glib.h>
#include <string.h>

#define FORGE_HEAD 40 /* magic, format and layout, size, sum, number of descriptors */
#define FORGE_SIZE_AT 16
#define FORGE_SUM_AT 24

static inline guint64 forge_next(guint64 *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline void forge_seal(GByteArray *bytes)
{
    guint64 size = bytes->len - FORGE_HEAD, n_fds, sum;

    memcpy(&n_fds, bytes->data + FORGE_HEAD - 8, 8);
    sum = size ^ n_fds << 32;

    for (guint64 at = 0; at < size; at += 8) {
        guint64 word = 0;

        memcpy(&word, bytes->data + FORGE_HEAD + at, MIN(8, size - at));
        sum = (sum ^ word) * G_GUINT64_CONSTANT(0x9E3779B97F4A7C15);
        sum ^= sum >> 29;
    }
    memcpy(bytes->data + FORGE_SIZE_AT, &size, 8);
    memcpy(bytes->data + FORGE_SUM_AT, &sum, 8);
}

/* One to three words changed to something likely, or the end cut off or doubled. */
static inline GByteArray *forge(const GByteArray *good, guint64 seed)
{
    GByteArray *bytes = g_byte_array_append(g_byte_array_new(), good->data, good->len);
    guint64 state = seed * G_GUINT64_CONSTANT(0x9E3779B97F4A7C15) | 1;
    guint n = 1 + forge_next(&state) % 3;

    for (guint i = 0; i < n; i++) {
        static const guint32 likely[] = {0, 1, 2, 3, 4, 8, 255, 0x7fffffff, 0x80000000, 0xffffffff};
        guint32 word = likely[forge_next(&state) % G_N_ELEMENTS(likely)];
        gsize at = FORGE_HEAD - 8 + forge_next(&state) % (bytes->len - FORGE_HEAD + 4);

        switch (forge_next(&state) % 4) {
        case 0:
            bytes->data[at] ^= (guint8)(1 << forge_next(&state) % 8);
            break;
        case 1:
            word = (guint32)(forge_next(&state) % 300);
            /* fall through */
        default:
            memcpy(bytes->data + at, &word, MIN(sizeof word, bytes->len - at));
            break;
        }
    }
    if (forge_next(&state) % 16 == 0)
        g_byte_array_set_size(bytes, (guint)(FORGE_HEAD + forge_next(&state) % (bytes->len - FORGE_HEAD)));
    forge_seal(bytes);
    return bytes;
}

#endif
