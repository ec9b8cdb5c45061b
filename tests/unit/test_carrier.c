/* SPDX-License-Identifier: GPL-2.0-or-later */

/* What stands for a file when it is locked (C22, docs/protocol.md K1 to K4): two hosts over one source. */

#include "lease_fixture.h"

#include "../../src/lease/carrier.h"
#include "../../src/lease/control_internal.h"

#include <sys/time.h>

#define KEY 0x1234

typedef struct {
    Fixture *f;
    SwControl *a, *b;
} Two;

static SwControl *control_of(Fixture *f)
{
    SwControl *control = NULL;
    g_autofree char *why = NULL;
    int r = sw_control_open(f->port, f->source, f->path, &f->config, &control, &why);
    if (r < 0)
        fail_msg("%s", why);
    return control;
}

static Two two_of(void **state)
{
    return (Two){.f = *state, .a = control_of(*state), .b = control_of(*state)};
}

static void two_done(Two *two)
{
    sw_control_close(two->a);
    sw_control_close(two->b);
}

static SwCarrier *carrier_of(SwControl *control)
{
    SwCarrier *carrier = NULL;
    assert_int_equal(sw_carrier_open(control, KEY, SW_CARRIER_FCNTL, &carrier), 0);
    return carrier;
}

static int take(SwCarrier *carrier, SwRangeMode mode, guint64 start, guint64 end)
{
    SwRangeLock range = {.start = start, .end = end, .mode = mode};
    return sw_carrier_set(carrier, &range);
}

static guint carriers_on_disk(const Two *two)
{
    g_autoptr(GPtrArray) names = NULL;
    assert_int_equal(sw_dir_names(two->f->port, two->a->carriers, 100, FALSE, &names), 0);
    return names->len;
}

static void test_excludes(void **state)
{
    Two two = two_of(state);
    SwCarrier *a = carrier_of(two.a), *b = carrier_of(two.b);
    SwRangeLock wanted = {.start = 15, .end = SW_RANGE_END, .mode = SW_RANGE_READ}, other;
    assert_int_equal(take(a, SW_RANGE_WRITE, 10, 19), 0);
    assert_int_equal(take(b, SW_RANGE_READ, 19, 19), -EAGAIN);
    assert_int_equal(take(b, SW_RANGE_WRITE, 20, SW_RANGE_END), 0);
    assert_int_equal(sw_carrier_test(b, &wanted, &other), -EAGAIN);
    assert_int_equal(other.start, 10);
    assert_int_equal(other.end, 19);
    assert_int_equal(other.mode, SW_RANGE_WRITE);
    sw_carrier_close(a);
    assert_int_equal(take(b, SW_RANGE_READ, 19, 19), 0);
    sw_carrier_close(b);
    two_done(&two);
}

/* K4: one that is in use stays; one that nobody has a lock on goes, and whoever has it open finds out. */
static void test_retire(void **state)
{
    Two two = two_of(state);
    SwCarrier *a = carrier_of(two.a), *b = carrier_of(two.b);
    assert_int_equal(take(b, SW_RANGE_READ, 0, 0), 0);
    assert_int_equal(sw_carrier_retire(a, FALSE), -EAGAIN);
    assert_int_equal(sw_carrier_check(b), 0);
    assert_int_equal(take(b, SW_RANGE_NONE, 0, 0), 0);
    assert_int_equal(sw_carrier_retire(a, FALSE), 0);
    assert_int_equal(carriers_on_disk(&two), 0);
    sw_carrier_close(a);
    assert_int_equal(take(b, SW_RANGE_WRITE, 0, 0), 0);
    assert_int_equal(sw_carrier_check(b), -ESTALE);
    sw_carrier_close(b);
    two_done(&two);
}

/* K4: the file is gone.  Who had it locked excludes nobody who locks a new one. */
static void test_gone(void **state)
{
    Two two = two_of(state);
    SwCarrier *a = carrier_of(two.a);
    assert_int_equal(take(a, SW_RANGE_WRITE, 0, SW_RANGE_END), 0);
    assert_int_equal(sw_carrier_retire(a, TRUE), 0);
    SwCarrier *b = carrier_of(two.b);
    assert_int_equal(take(b, SW_RANGE_WRITE, 0, SW_RANGE_END), 0);
    assert_int_equal(sw_carrier_check(b), 0);
    assert_int_equal(sw_carrier_check(a), -ESTALE);
    /* Retired twice: the name is the other's by now, and stays. */
    assert_int_equal(sw_carrier_retire(a, TRUE), 0);
    assert_int_equal(sw_carrier_check(b), 0);
    assert_int_equal(carriers_on_disk(&two), 1);
    sw_carrier_close(a);
    sw_carrier_close(b);
    two_done(&two);
}

/* A host died between the two steps of retiring: the next one who wants the name helps it out of it. */
static void test_half_retired(void **state)
{
    Two two = two_of(state);
    sw_carrier_close(carrier_of(two.a));
    int fd = openat(two.a->carriers, "0000000000001234.fcntl", O_RDWR);
    assert_int_equal(ftruncate(fd, 1), 0);
    SwCarrier *b = carrier_of(two.b);
    assert_int_equal(take(b, SW_RANGE_WRITE, 0, SW_RANGE_END), 0);
    assert_int_equal(sw_carrier_check(b), 0);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_nlink, 0);
    close(fd);
    sw_carrier_close(b);
    two_done(&two);
}

/* C26: what is no file of the daemon's is not used. */
static void test_forged(void **state)
{
    Two two = two_of(state);
    SwCarrier *carrier = NULL;
    assert_int_equal(symlinkat("/etc/passwd", two.a->carriers, "0000000000001234.fcntl"), 0);
    assert_int_equal(sw_carrier_open(two.a, KEY, SW_CARRIER_FCNTL, &carrier), -ELOOP);
    assert_int_equal(unlinkat(two.a->carriers, "0000000000001234.fcntl", 0), 0);
    assert_int_equal(mknodat(two.a->carriers, "0000000000001234.fcntl", S_IFIFO | 0600, 0), 0);
    assert_int_equal(sw_carrier_open(two.a, KEY, SW_CARRIER_FCNTL, &carrier), -EPERM);
    assert_null(carrier);
    two_done(&two);
}

/* Old ones that nobody has a lock on are swept; the times are the server's. */
static void test_sweep(void **state)
{
    Two two = two_of(state);
    sw_carrier_close(carrier_of(two.a));
    sw_carriers_sweep(two.a);
    assert_int_equal(carriers_on_disk(&two), 1); /* too young: it may be about to be locked */
    two_done(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_excludes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_retire, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_gone, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_half_retired, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_forged, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_sweep, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
