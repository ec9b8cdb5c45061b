/* SPDX-License-Identifier: GPL-2.0-or-later */

/* File locks of one mount on one file: as fcntl(2) has them (C22).  The last test compares with the kernel's own. */

#include "../../src/core/range_locks.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static SwRangeLock lock_of(guint64 owner, SwRangeMode mode, guint64 start, guint64 end)
{
    return (SwRangeLock){.owner = owner, .through = owner, .mode = mode, .start = start, .end = end};
}

static void set(SwRangeLocks *locks, guint64 owner, SwRangeMode mode, guint64 start, guint64 end)
{
    SwRangeLock lock = lock_of(owner, mode, start, end);
    sw_range_locks_set(locks, &lock);
}

static gboolean conflicts(const SwRangeLocks *locks, guint64 owner, SwRangeMode mode, guint64 start, guint64 end)
{
    SwRangeLock lock = lock_of(owner, mode, start, end);
    return sw_range_locks_conflict(locks, &lock) != NULL;
}

/* "0-4r 5-9w ..." of what the carrier would need. */
static char *needs_of(const SwRangeLocks *locks, guint64 start, guint64 end)
{
    GString *text = g_string_new(NULL);
    g_autoptr(GArray) pieces = sw_range_locks_needs(locks, start, end);
    for (guint i = 0; i < pieces->len; i++) {
        const SwRangeLock *piece = &g_array_index(pieces, SwRangeLock, i);
        g_string_append_printf(text, "%s%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT "%c", i ? " " : "", piece->start,
                               piece->end, "-rw"[piece->mode]);
    }
    return g_string_free(text, FALSE);
}

static void assert_needs(const SwRangeLocks *locks, guint64 start, guint64 end, const char *expected)
{
    g_autofree char *text = needs_of(locks, start, end);
    assert_string_equal(text, expected);
}

static void test_conflicts(void **state)
{
    SwRangeLocks locks;
    sw_range_locks_init(&locks);
    set(&locks, 1, SW_RANGE_READ, 10, 19);
    set(&locks, 2, SW_RANGE_WRITE, 30, 39);
    assert_false(conflicts(&locks, 2, SW_RANGE_READ, 10, 19));
    assert_true(conflicts(&locks, 2, SW_RANGE_WRITE, 19, 25));
    assert_false(conflicts(&locks, 2, SW_RANGE_WRITE, 20, 29));
    assert_false(conflicts(&locks, 1, SW_RANGE_WRITE, 0, 29));
    assert_true(conflicts(&locks, 1, SW_RANGE_READ, 0, SW_RANGE_END));
    assert_false(conflicts(&locks, 3, SW_RANGE_NONE, 0, SW_RANGE_END));
    sw_range_locks_clear(&locks);
}

static void test_replacing_and_splitting(void **state)
{
    SwRangeLocks locks;
    sw_range_locks_init(&locks);
    set(&locks, 1, SW_RANGE_WRITE, 0, SW_RANGE_END);
    set(&locks, 1, SW_RANGE_NONE, 10, 19);
    set(&locks, 1, SW_RANGE_READ, 30, 39);
    assert_needs(&locks, 0, SW_RANGE_END, "0-9w 10-19- 20-29w 30-39r 40-9223372036854775807w");
    assert_needs(&locks, 15, 34, "15-19- 20-29w 30-34r");
    set(&locks, 1, SW_RANGE_NONE, 0, SW_RANGE_END);
    assert_true(sw_range_locks_is_empty(&locks));
    sw_range_locks_clear(&locks);
}

/* One lock, not many: a program that locks byte after byte does not make a long list. */
static void test_neighbours_join(void **state)
{
    SwRangeLocks locks;
    sw_range_locks_init(&locks);
    for (guint64 at = 0; at < 100; at++)
        set(&locks, 1, SW_RANGE_READ, at, at);
    assert_int_equal(locks.locks->len, 1);
    set(&locks, 1, SW_RANGE_WRITE, 100, 100);
    assert_int_equal(locks.locks->len, 2);
    sw_range_locks_clear(&locks);
}

/* What this host has on the carrier is the strongest that anybody here has (K2). */
static void test_strongest_of_all(void **state)
{
    SwRangeLocks locks;
    sw_range_locks_init(&locks);
    set(&locks, 1, SW_RANGE_READ, 0, 19);
    set(&locks, 2, SW_RANGE_READ, 10, 29);
    set(&locks, 3, SW_RANGE_WRITE, 40, 49);
    assert_needs(&locks, 0, 59, "0-29r 30-39- 40-49w 50-59-");
    set(&locks, 1, SW_RANGE_NONE, 0, 19);
    assert_needs(&locks, 0, 59, "0-9- 10-29r 30-39- 40-49w 50-59-");
    sw_range_locks_clear(&locks);
}

static gboolean is_owner(const SwRangeLock *lock, gconstpointer data)
{
    return lock->owner == *(const guint64 *)data;
}

static void test_taking_away(void **state)
{
    SwRangeLocks locks;
    guint64 owner = 1;
    sw_range_locks_init(&locks);
    set(&locks, 1, SW_RANGE_READ, 0, 9);
    set(&locks, 2, SW_RANGE_READ, 0, 9);
    set(&locks, 1, SW_RANGE_WRITE, 20, 29);
    assert_true(sw_range_locks_any(&locks, 1, 29, 50));
    g_autoptr(GArray) taken = sw_range_locks_take(&locks, is_owner, &owner);
    assert_int_equal(taken->len, 2);
    assert_false(sw_range_locks_any(&locks, 1, 0, SW_RANGE_END));
    assert_needs(&locks, 0, 29, "0-9r 10-29-");
    sw_range_locks_clear(&locks);
}

static void test_blockers(void **state)
{
    SwRangeLocks locks;
    SwRangeLock wanted = lock_of(9, SW_RANGE_WRITE, 0, SW_RANGE_END);
    sw_range_locks_init(&locks);
    set(&locks, 1, SW_RANGE_READ, 0, 9);
    set(&locks, 2, SW_RANGE_READ, 0, 9);
    set(&locks, 2, SW_RANGE_WRITE, 20, 29);
    set(&locks, 9, SW_RANGE_WRITE, 40, 49);
    g_autoptr(GArray) owners = sw_range_locks_blockers(&locks, &wanted);
    assert_int_equal(owners->len, 2);
    sw_range_locks_clear(&locks);
}

/* ---- the kernel's opinion: OFD locks of as many descriptions as there are owners */

#define OWNERS 4
#define BYTES 24
#define STEPS 4000

static struct flock flock_of(const SwRangeLock *lock)
{
    short type = lock->mode == SW_RANGE_WRITE ? F_WRLCK : lock->mode == SW_RANGE_READ ? F_RDLCK : F_UNLCK;
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)lock->start};
    range.l_len = lock->end == SW_RANGE_END ? 0 : (off_t)(lock->end - lock->start + 1);
    return range;
}

static void test_as_the_kernel(void **state)
{
    char path[] = "/tmp/sw-range-XXXXXX";
    int fds[OWNERS];
    SwRangeLocks locks;
    guint refused = 0;
    fds[0] = mkstemp(path);
    assert_true(fds[0] >= 0);
    for (guint i = 1; i < OWNERS; i++)
        assert_true((fds[i] = open(path, O_RDWR)) >= 0);
    sw_range_locks_init(&locks);
    srand(7);
    for (guint step = 0; step < STEPS; step++) {
        guint owner = (guint)rand() % OWNERS;
        guint64 start = (guint64)rand() % BYTES, end = start + (guint64)rand() % BYTES;
        SwRangeLock lock = lock_of(owner, (SwRangeMode)(rand() % 3), start, rand() % 8 ? end : SW_RANGE_END);
        struct flock range = flock_of(&lock);
        gboolean taken = fcntl(fds[owner], F_OFD_SETLK, &range) == 0;
        assert_int_equal(taken, sw_range_locks_conflict(&locks, &lock) == NULL);
        if (taken)
            sw_range_locks_set(&locks, &lock);
        else
            refused++;
    }
    assert_in_range(refused, STEPS / 20, STEPS);
    sw_range_locks_clear(&locks);
    for (guint i = 0; i < OWNERS; i++)
        close(fds[i]);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conflicts),       cmocka_unit_test(test_replacing_and_splitting),
        cmocka_unit_test(test_neighbours_join), cmocka_unit_test(test_strongest_of_all),
        cmocka_unit_test(test_taking_away),     cmocka_unit_test(test_blockers),
        cmocka_unit_test(test_as_the_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
