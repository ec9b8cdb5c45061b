/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bundle.h"

#include <string.h>
#include <sys/stat.h>

#define MAGIC G_GUINT64_CONSTANT(0x3165646e75427753) /* "SwBunde1" */
#define FDS_MAX 1000000

typedef struct {
    guint64 magic;
    guint32 format;
    guint32 layout; /* sizes of what is stored as it is in memory */
    guint64 size;   /* of all that follows this */
    guint64 sum;    /* of the same, and of the next */
    guint64 n_fds;  /* these stand at the end, each an int */
} Head;

struct SwBundle {
    gboolean out;
    char *failed;
    guint8 *made; /* out: with room for the head at its beginning */
    gsize size, room;
    GArray *fds; /* of int: out: passed; in: passed and not claimed yet, -1 where it was */
    const guint8 *at, *end;
    GHashTable *places; /* in: descriptor -> its index in `fds` + 1 */
};

static guint32 layout(void)
{
    return (guint32)(sizeof(struct stat) << 16 | sizeof(void *) << 8 | sizeof(long));
}

/* Against damage, not against forgery: who can write this can do worse. */
static guint64 sum_of(const void *data, gsize size, guint64 n_fds)
{
    guint64 sum = size ^ n_fds << 32;

    for (gsize at = 0; at < size; at += sizeof(guint64)) {
        guint64 word = 0;

        memcpy(&word, (const guint8 *)data + at, MIN(sizeof word, size - at));
        sum = (sum ^ word) * G_GUINT64_CONSTANT(0x9E3779B97F4A7C15);
        sum ^= sum >> 29;
    }
    return sum;
}

SwBundle *sw_bundle_new(void)
{
    SwBundle *bundle = g_new0(SwBundle, 1);

    bundle->out = TRUE;
    bundle->room = 4096;
    bundle->made = g_malloc0(bundle->room);
    bundle->size = sizeof(Head);
    bundle->fds = g_array_new(FALSE, FALSE, sizeof(int));
    return bundle;
}

static void open_fds(SwBundle *bundle, guint64 n)
{
    const guint8 *from;

    if (n > FDS_MAX || n * sizeof(int) > (gsize)(bundle->end - bundle->at)) {
        sw_bundle_fail(bundle, "it names more descriptors than there can be");
        return;
    }
    from = bundle->end -= n * sizeof(int);
    for (guint64 i = 0; i < n && !bundle->failed; i++) {
        int fd;

        memcpy(&fd, from + i * sizeof fd, sizeof fd);
        if (fd < 0 || g_hash_table_contains(bundle->places, GINT_TO_POINTER(fd)))
            sw_bundle_fail(bundle, "it names descriptor %d in a list of different ones", fd);
        g_array_append_val(bundle->fds, fd);
        g_hash_table_insert(bundle->places, GINT_TO_POINTER(fd), GUINT_TO_POINTER(bundle->fds->len));
    }
}

SwBundle *sw_bundle_open(const void *data, gsize size)
{
    SwBundle *bundle = g_new0(SwBundle, 1);
    Head head;

    bundle->fds = g_array_new(FALSE, FALSE, sizeof(int));
    bundle->places = g_hash_table_new(NULL, NULL);
    if (size < sizeof head) {
        sw_bundle_fail(bundle, "it is too short");
        return bundle;
    }
    memcpy(&head, data, sizeof head);
    if (head.magic != MAGIC)
        sw_bundle_fail(bundle, "it is no state of safewritefs");
    else if (head.format != SW_BUNDLE_FORMAT || head.layout != layout())
        sw_bundle_fail(bundle, "it is of format %u, not %u", head.format, SW_BUNDLE_FORMAT);
    else if (head.size != size - sizeof head ||
             head.sum != sum_of((const guint8 *)data + sizeof head, head.size, head.n_fds))
        sw_bundle_fail(bundle, "it is damaged");
    else {
        bundle->at = (const guint8 *)data + sizeof head;
        bundle->end = bundle->at + head.size;
        open_fds(bundle, head.n_fds);
    }
    return bundle;
}

void sw_bundle_free(SwBundle *bundle)
{
    if (!bundle)
        return;
    g_free(bundle->made);
    if (bundle->places)
        g_hash_table_unref(bundle->places);
    g_array_unref(bundle->fds);
    g_free(bundle->failed);
    g_free(bundle);
}

gboolean sw_bundle_is_out(const SwBundle *bundle)
{
    return bundle->out;
}

const char *sw_bundle_failed(const SwBundle *bundle)
{
    return bundle->failed;
}

void sw_bundle_fail(SwBundle *bundle, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (!bundle->failed)
        bundle->failed = g_strdup_vprintf(format, args);
    va_end(args);
    bundle->at = bundle->end = NULL;
}

const int *sw_bundle_fds(const SwBundle *bundle, guint *ret_n)
{
    *ret_n = bundle->fds->len;
    return (const int *)(void *)bundle->fds->data;
}

static void append(SwBundle *bundle, const void *data, gsize size)
{
    if (bundle->size + size > bundle->room) {
        bundle->room = 2 * (bundle->size + size);
        bundle->made = g_realloc(bundle->made, bundle->room);
    }
    if (size)
        memcpy(bundle->made + bundle->size, data, size);
    bundle->size += size;
}

const void *sw_bundle_close(SwBundle *bundle, gsize *ret_size)
{
    Head head = {.magic = MAGIC, .format = SW_BUNDLE_FORMAT, .layout = layout(), .n_fds = bundle->fds->len};

    append(bundle, bundle->fds->data, bundle->fds->len * sizeof(int));
    head.size = bundle->size - sizeof head;
    head.sum = sum_of(bundle->made + sizeof head, head.size, head.n_fds);
    memcpy(bundle->made, &head, sizeof head);
    *ret_size = bundle->size;
    return bundle->made;
}

void sw_bundle_end(SwBundle *bundle)
{
    if (bundle->at != bundle->end)
        sw_bundle_fail(bundle, "it has more than is known of");
    for (guint i = 0; i < bundle->fds->len; i++)
        if (g_array_index(bundle->fds, int, i) >= 0)
            sw_bundle_fail(bundle, "descriptor %d is nobody's", g_array_index(bundle->fds, int, i));
}

/* ---- items */

/* The next `size` bytes of one that is read, or NULL. */
static const guint8 *take(SwBundle *bundle, gsize size)
{
    const guint8 *at = bundle->at;

    if (!bundle->failed && size > (gsize)(bundle->end - bundle->at))
        sw_bundle_fail(bundle, "it ends too early");
    if (bundle->failed)
        return NULL;
    bundle->at += size;
    return at;
}

/* The size before an item. */
static gboolean take_size(SwBundle *bundle, guint32 *ret_size)
{
    const guint8 *at = take(bundle, sizeof *ret_size);

    if (at)
        memcpy(ret_size, at, sizeof *ret_size);
    return at != NULL;
}

static void put(SwBundle *bundle, const void *item, gsize size)
{
    guint32 length = (guint32)size;

    append(bundle, &length, sizeof length);
    append(bundle, item, size);
}

void sw_bundle_bytes(SwBundle *bundle, void *item, gsize size)
{
    guint32 length;
    const guint8 *at = NULL;

    if (bundle->out) {
        put(bundle, item, size);
        return;
    }
    if (take_size(bundle, &length) && length != size)
        sw_bundle_fail(bundle, "it has an item of %u bytes instead of %u", length, (guint)size);
    at = take(bundle, size);
    if (at)
        memcpy(item, at, size);
    else
        memset(item, 0, size);
}

void sw_bundle_choice(SwBundle *bundle, guint *item, guint max)
{
    guint32 value = *item;

    SW_BUNDLE(bundle, value);
    if (value > max) {
        sw_bundle_fail(bundle, "it has %u where there can be %u at most", value, max);
        value = 0;
    }
    *item = value;
}

guint sw_bundle_count(SwBundle *bundle, guint n, guint max)
{
    sw_bundle_choice(bundle, &n, max);
    if (!bundle->out && n > (gsize)(bundle->end - bundle->at)) {
        sw_bundle_fail(bundle, "it counts more than it has");
        n = 0;
    }
    return bundle->failed ? 0 : n;
}

void sw_bundle_text(SwBundle *bundle, char **text, gsize max)
{
    guint32 size = bundle->out && *text ? (guint32)strlen(*text) + 1 : 0;
    const guint8 *at;

    if (bundle->out) {
        if (size > max)
            sw_bundle_fail(bundle, "a text is too long");
        put(bundle, *text, size);
        return;
    }
    *text = NULL;
    if (!take_size(bundle, &size) || size == 0)
        return;
    if (size > max)
        sw_bundle_fail(bundle, "it has a text that is too long");
    at = take(bundle, size);
    if (at && (at[size - 1] != '\0' || strlen((const char *)at) + 1 != size))
        sw_bundle_fail(bundle, "it has a text with zeros in it");
    else if (at)
        *text = g_memdup2(at, size);
}

void sw_bundle_field(SwBundle *bundle, char *text, gsize size)
{
    sw_bundle_bytes(bundle, text, size);
    if (!bundle->out && !memchr(text, '\0', size)) {
        sw_bundle_fail(bundle, "it has a text without an end");
        *text = '\0';
    }
}

void sw_bundle_array(SwBundle *bundle, GByteArray **array, gsize max)
{
    gboolean is_there = bundle->out && *array;
    guint32 size = is_there ? (*array)->len : 0;
    const guint8 *at;

    SW_BUNDLE(bundle, is_there);
    if (bundle->out) {
        if (size > max)
            sw_bundle_fail(bundle, "an array is too long");
        put(bundle, is_there ? (*array)->data : NULL, size);
        return;
    }
    *array = NULL;
    if (take_size(bundle, &size) && size > max)
        sw_bundle_fail(bundle, "it has an array that is too long");
    at = take(bundle, size);
    if (at && is_there)
        *array = g_byte_array_append(g_byte_array_new(), at, size);
}

void sw_bundle_fd(SwBundle *bundle, int *fd)
{
    guint place;

    if (bundle->out && *fd >= 0)
        g_array_append_val(bundle->fds, *fd);
    SW_BUNDLE(bundle, *fd);
    if (bundle->out)
        return;
    if (bundle->failed)
        *fd = -1;
    if (*fd < 0)
        return;
    place = GPOINTER_TO_UINT(g_hash_table_lookup(bundle->places, GINT_TO_POINTER(*fd)));
    if (place && g_array_index(bundle->fds, int, place - 1) >= 0) {
        g_array_index(bundle->fds, int, place - 1) = -1;
        return;
    }
    sw_bundle_fail(bundle, "descriptor %d was not passed, or twice", *fd);
    *fd = -1;
}

void sw_bundle_mark(SwBundle *bundle, const char *name)
{
    guint32 mark = g_str_hash(name), found = mark;

    SW_BUNDLE(bundle, found);
    if (found != mark)
        sw_bundle_fail(bundle, "where '%s' should be there is something else", name);
}
