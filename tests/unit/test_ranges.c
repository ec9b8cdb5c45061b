/* SPDX-License-Identifier: GPL-2.0-or-later */

/* core/ranges: what an edit wrote (C10). */

#include "../../src/core/ranges.h"

#include "unit.h"

static void assert_pieces(const SwRanges *ranges, guint count, const SwRange *expected)
{
    assert_int_equal(sw_ranges_count(ranges), count);
    for (guint i = 0; i < count; i++) {
        assert_true(sw_ranges_get(ranges, i).start == expected[i].start);
        assert_true(sw_ranges_get(ranges, i).end == expected[i].end);
    }
}

#define ASSERT_PIECES(ranges, ...)                                                                                     \
    do {                                                                                                               \
        const SwRange expected_[] = {__VA_ARGS__};                                                                     \
        assert_pieces(ranges, G_N_ELEMENTS(expected_), expected_);                                                     \
    } while (0)

static void test_empty(void **state)
{
    SwRanges ranges;

    (void)state;
    sw_ranges_init(&ranges);
    assert_true(sw_ranges_is_empty(&ranges));
    sw_ranges_add(&ranges, 7, 0);
    assert_true(sw_ranges_is_empty(&ranges));
    assert_null(ranges.pieces);
    sw_ranges_truncate(&ranges, 7);
    assert_false(sw_ranges_is_empty(&ranges));
    sw_ranges_clear(&ranges);
    assert_true(sw_ranges_is_empty(&ranges));
    sw_ranges_clear(&ranges);
}

static void test_melting(void **state)
{
    SwRanges ranges;

    (void)state;
    sw_ranges_init(&ranges);
    sw_ranges_add(&ranges, 10, 10);
    sw_ranges_add(&ranges, 40, 10);
    sw_ranges_add(&ranges, 0, 5);
    ASSERT_PIECES(&ranges, {0, 5}, {10, 20}, {40, 50});
    sw_ranges_add(&ranges, 20, 5); /* touches from above */
    ASSERT_PIECES(&ranges, {0, 5}, {10, 25}, {40, 50});
    sw_ranges_add(&ranges, 8, 2); /* touches from below */
    ASSERT_PIECES(&ranges, {0, 5}, {8, 25}, {40, 50});
    sw_ranges_add(&ranges, 12, 3); /* inside */
    ASSERT_PIECES(&ranges, {0, 5}, {8, 25}, {40, 50});
    sw_ranges_add(&ranges, 4, 40); /* over several */
    ASSERT_PIECES(&ranges, {0, 50});
    assert_true(ranges.size == 50);
    assert_true(ranges.cut == G_MAXUINT64);
    sw_ranges_clear(&ranges);
}

static void test_sequential_is_one_piece(void **state)
{
    SwRanges ranges;

    (void)state;
    sw_ranges_init(&ranges);
    for (guint i = 0; i < 100000; i++)
        sw_ranges_add(&ranges, i * 4096ull, 4096);
    ASSERT_PIECES(&ranges, {0, 100000 * 4096ull});
    sw_ranges_clear(&ranges);
}

static void test_saturation(void **state)
{
    SwRanges ranges;

    (void)state;
    sw_ranges_init(&ranges);
    sw_ranges_add(&ranges, G_MAXUINT64 - 5, 100);
    ASSERT_PIECES(&ranges, {G_MAXUINT64 - 5, G_MAXUINT64});
    sw_ranges_add(&ranges, G_MAXUINT64, 1); /* nothing can stand there */
    ASSERT_PIECES(&ranges, {G_MAXUINT64 - 5, G_MAXUINT64});
    sw_ranges_add(&ranges, 0, G_MAXUINT64);
    ASSERT_PIECES(&ranges, {0, G_MAXUINT64});
    sw_ranges_clear(&ranges);
}

static void test_truncation(void **state)
{
    SwRanges ranges;

    (void)state;
    sw_ranges_init(&ranges);
    sw_ranges_add(&ranges, 0, 10);
    sw_ranges_add(&ranges, 20, 10);
    sw_ranges_add(&ranges, 40, 10);
    sw_ranges_truncate(&ranges, 25);
    ASSERT_PIECES(&ranges, {0, 10}, {20, 25});
    assert_true(ranges.cut == 25 && ranges.size == 25);

    sw_ranges_truncate(&ranges, 100); /* extended: the base is still gone from 25 on */
    assert_true(ranges.cut == 25 && ranges.size == 100);
    sw_ranges_add(&ranges, 90, 20);
    assert_true(ranges.cut == 25 && ranges.size == 110);

    sw_ranges_truncate(&ranges, 20); /* exactly where a piece begins */
    ASSERT_PIECES(&ranges, {0, 10});
    sw_ranges_truncate(&ranges, 10); /* exactly where a piece ends */
    ASSERT_PIECES(&ranges, {0, 10});
    sw_ranges_truncate(&ranges, 0);
    assert_int_equal(sw_ranges_count(&ranges), 0);
    assert_true(ranges.cut == 0 && ranges.size == 0);
    assert_false(sw_ranges_is_empty(&ranges));
    sw_ranges_clear(&ranges);
}

static void test_bounded(void **state)
{
    SwRanges ranges;

    (void)state;
    sw_ranges_init(&ranges);
    for (guint i = 0; i < SW_RANGES_MAX; i++)
        sw_ranges_add(&ranges, i * 100ull, 10);
    assert_int_equal(sw_ranges_count(&ranges), SW_RANGES_MAX);
    sw_ranges_add(&ranges, 730, 1); /* nearest: [700,710) and [730,731) */
    assert_int_equal(sw_ranges_count(&ranges), SW_RANGES_MAX);
    assert_true(sw_ranges_get(&ranges, 7).start == 700 && sw_ranges_get(&ranges, 7).end == 731);
    sw_ranges_clear(&ranges);
}

/* Against a plain array of bytes, with writes and cuts at random. */
static void test_against_bytes(void **state)
{
    GRand *rand = g_rand_new_with_seed(20261);
    SwRanges ranges;

    (void)state;
    for (guint round = 0; round < 200; round++) {
        guint8 written[256] = {0};
        guint cut = 256;

        sw_ranges_init(&ranges);
        for (guint step = 0; step < 30; step++) {
            guint a = (guint)g_rand_int_range(rand, 0, 256), n = (guint)g_rand_int_range(rand, 0, 20);

            if (g_rand_int_range(rand, 0, 6) == 0) {
                sw_ranges_truncate(&ranges, a);
                memset(written + a, 0, 256 - a);
                cut = MIN(cut, a);
            } else {
                n = MIN(n, 256 - a);
                sw_ranges_add(&ranges, a, n);
                memset(written + a, 1, n);
            }
        }
        for (guint i = 0; i < sw_ranges_count(&ranges); i++) {
            SwRange piece = sw_ranges_get(&ranges, i);

            assert_true(piece.start < piece.end && piece.end <= 256);
            assert_true(i == 0 || sw_ranges_get(&ranges, i - 1).end < piece.start);
            for (guint64 at = piece.start; at < piece.end; at++)
                assert_int_equal(written[at]--, 1);
        }
        for (guint at = 0; at < 256; at++)
            assert_int_equal(written[at], 0);
        assert_true(ranges.cut == (cut == 256 ? G_MAXUINT64 : cut));
        sw_ranges_clear(&ranges);
    }
    g_rand_free(rand);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),         cmocka_unit_test(test_melting),
        cmocka_unit_test(test_saturation),    cmocka_unit_test(test_sequential_is_one_piece),
        cmocka_unit_test(test_truncation),    cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_against_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
