/* SPDX-License-Identifier: GPL-2.0-or-later */

/* core/bundle: what was stored comes back, and bytes of any kind crash nobody. */

#include "../../src/core/bundle.h"

#include "bundle_forge.h"
#include "unit.h"

#define ROUNDS 100000

typedef struct {
    guint64 number;
    struct {
        char letter;
        gint32 other;
    } pair;
    guint choice;
    char *text, *none;
    char field[8];
    GByteArray *array, *no_array;
    GArray *numbers; /* of guint */
    int fd, no_fd;
} Thing;

static void carry(SwBundle *bundle, Thing *thing)
{
    guint n;

    sw_bundle_mark(bundle, "thing");
    SW_BUNDLE(bundle, thing->number);
    SW_BUNDLE(bundle, thing->pair);
    sw_bundle_choice(bundle, &thing->choice, 3);
    sw_bundle_text(bundle, &thing->text, 100);
    sw_bundle_text(bundle, &thing->none, 100);
    sw_bundle_field(bundle, thing->field, sizeof thing->field);
    sw_bundle_array(bundle, &thing->array, 100);
    sw_bundle_array(bundle, &thing->no_array, 100);
    n = sw_bundle_count(bundle, thing->numbers->len, 50);
    for (guint i = 0; i < n; i++) {
        guint number = i < thing->numbers->len ? g_array_index(thing->numbers, guint, i) : 0;

        SW_BUNDLE(bundle, number);
        if (i >= thing->numbers->len)
            g_array_append_val(thing->numbers, number);
    }
    sw_bundle_fd(bundle, &thing->fd);
    sw_bundle_fd(bundle, &thing->no_fd);
    sw_bundle_mark(bundle, "end");
}

static Thing thing_new(void)
{
    return (Thing){.numbers = g_array_new(FALSE, FALSE, sizeof(guint)), .fd = -1, .no_fd = -1};
}

static void thing_clear(Thing *thing)
{
    g_free(thing->text);
    g_free(thing->none);
    if (thing->array)
        g_byte_array_unref(thing->array);
    if (thing->no_array)
        g_byte_array_unref(thing->no_array);
    g_array_unref(thing->numbers);
}

static GByteArray *stored(void)
{
    g_autoptr(SwBundle) bundle = sw_bundle_new();
    Thing thing = thing_new();
    gsize size;
    const void *data;
    GByteArray *bytes;

    thing.number = G_GUINT64_CONSTANT(0x1122334455667788);
    thing.pair.letter = 'p';
    thing.pair.other = -7;
    thing.choice = 3;
    thing.text = g_strdup("a text");
    strcpy(thing.field, "field");
    thing.array = g_byte_array_append(g_byte_array_new(), (const guint8 *)"\0\1\2", 3);
    for (guint i = 0; i < 10; i++)
        g_array_append_val(thing.numbers, i);
    thing.fd = 12345;
    carry(bundle, &thing);
    assert_null(sw_bundle_failed(bundle));
    data = sw_bundle_close(bundle, &size);
    bytes = g_byte_array_append(g_byte_array_new(), data, (guint)size);
    thing_clear(&thing);
    return bytes;
}

static void test_there_and_back(void **state)
{
    g_autoptr(GByteArray) bytes = stored();
    g_autoptr(SwBundle) bundle = sw_bundle_open(bytes->data, bytes->len);
    Thing thing = thing_new();
    guint n;

    assert_int_equal(sw_bundle_fds(bundle, &n)[0], 12345);
    assert_int_equal(n, 1);
    carry(bundle, &thing);
    sw_bundle_end(bundle);
    assert_null(sw_bundle_failed(bundle));
    assert_true(thing.number == G_GUINT64_CONSTANT(0x1122334455667788));
    assert_int_equal(thing.pair.letter, 'p');
    assert_int_equal(thing.pair.other, -7);
    assert_int_equal(thing.choice, 3);
    assert_string_equal(thing.text, "a text");
    assert_null(thing.none);
    assert_string_equal(thing.field, "field");
    assert_int_equal(thing.array->len, 3);
    assert_memory_equal(thing.array->data, "\0\1\2", 3);
    assert_null(thing.no_array);
    assert_int_equal(thing.numbers->len, 10);
    assert_int_equal(g_array_index(thing.numbers, guint, 9), 9);
    assert_int_equal(thing.fd, 12345);
    assert_int_equal(thing.no_fd, -1);
    thing_clear(&thing);
}

static gboolean is_taken(const void *data, gsize size)
{
    g_autoptr(SwBundle) bundle = sw_bundle_open(data, size);
    Thing thing = thing_new();
    gboolean taken;

    carry(bundle, &thing);
    sw_bundle_end(bundle);
    taken = !sw_bundle_failed(bundle);
    thing_clear(&thing);
    return taken;
}

static void test_damaged(void **state)
{
    g_autoptr(GByteArray) bytes = stored();

    for (guint size = 0; size < bytes->len; size++) {
        g_autofree void *part = g_memdup2(bytes->data, size); /* a sanitizer sees a read beyond it */
        assert_false(is_taken(part, size));
    }
    for (guint i = 0; i < bytes->len * 8; i++) {
        bytes->data[i / 8] ^= (guint8)(1 << i % 8);
        assert_false(is_taken(bytes->data, bytes->len));
        bytes->data[i / 8] ^= (guint8)(1 << i % 8);
    }
    assert_true(is_taken(bytes->data, bytes->len));
}

/* Bytes that were changed on purpose, with the right sum: some are taken, and none crashes. */
static void test_forged(void **state)
{
    g_autoptr(GByteArray) good = stored();
    guint taken = 0;

    for (guint round = 0; round < ROUNDS; round++) {
        g_autoptr(GByteArray) bytes = forge(good, round + 1);

        taken += is_taken(bytes->data, bytes->len);
    }
    assert_in_range(taken, 1, ROUNDS - 1);
}

static void read_two(SwBundle *bundle, int *first, int *second)
{
    sw_bundle_fd(bundle, first);
    sw_bundle_fd(bundle, second);
}

static void test_descriptors(void **state)
{
    g_autoptr(SwBundle) out = sw_bundle_new(), twice = NULL, few = NULL;
    int first = 5, second = 6;
    gsize size;
    const void *data;

    read_two(out, &first, &second);
    data = sw_bundle_close(out, &size);
    few = sw_bundle_open(data, size);
    sw_bundle_fd(few, &first);
    SW_BUNDLE(few, second);
    assert_null(sw_bundle_failed(few));
    sw_bundle_end(few);
    assert_string_equal(sw_bundle_failed(few), "descriptor 6 is nobody's");
    g_clear_pointer(&out, sw_bundle_free);
    out = sw_bundle_new();
    second = first = 5;
    sw_bundle_fd(out, &first);
    SW_BUNDLE(out, second);
    data = sw_bundle_close(out, &size);
    twice = sw_bundle_open(data, size);
    read_two(twice, &first, &second);
    assert_int_equal(first, 5);
    assert_int_equal(second, -1);
    assert_string_equal(sw_bundle_failed(twice), "descriptor 5 was not passed, or twice");
}

static void test_formats(void **state)
{
    g_autoptr(GByteArray) bytes = stored();
    g_autoptr(SwBundle) bundle = NULL;

    bytes->data[8]++; /* the format */
    bundle = sw_bundle_open(bytes->data, bytes->len);
    assert_string_equal(sw_bundle_failed(bundle), "it is of format 2, not 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_damaged), cmocka_unit_test(test_forged),
        cmocka_unit_test(test_descriptors),    cmocka_unit_test(test_formats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
