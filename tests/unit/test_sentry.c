/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Whether the source answers, by a clock of the test's own. */

#include "../../src/fuse/sentry.h"
#include "../../src/lease/control_internal.h"
#include "lease_fixture.h"

#define SECOND G_USEC_PER_SEC

static gint64 clock_us = 1000 * SECOND; /* atomic */

static gint64 now(SwPort *port)
{
    return __atomic_load_n(&clock_us, __ATOMIC_ACQUIRE);
}

static void pass(gint64 us)
{
    __atomic_add_fetch(&clock_us, us, __ATOMIC_RELEASE);
}

typedef struct {
    gint lost, found; /* atomic */
    gint64 for_us;
} Heard;

static void hear(gpointer data, gboolean silent, gint64 for_us)
{
    Heard *heard = data;

    heard->for_us = for_us;
    g_atomic_int_inc(silent ? &heard->lost : &heard->found);
}

/* Within 30 s of real time, for it looks each second. */
static gboolean comes(gint *counter, gint value)
{
    for (guint i = 0; i < 600 && g_atomic_int_get(counter) != value; i++)
        g_usleep(50000);
    return g_atomic_int_get(counter) == value;
}

static SwSentry *begin(Fixture *f, gint64 lease_us, Heard *heard, SwControl **ret_control)
{
    g_autofree char *why = NULL;
    SwSentry *sentry;

    f->port->now_us = now;
    f->config.lease_us = lease_us;
    assert_int_equal(sw_control_open(f->port, f->source, f->path, &f->config, ret_control, &why), 0);
    sentry = sw_sentry_start(f->port, *ret_control, lease_us, hear, heard);
    assert_non_null(sentry);
    return sentry;
}

static void test_silence(void **state)
{
    SwControl *control;
    Heard heard = {0};
    SwSentry *sentry = begin(*state, 60 * SECOND, &heard, &control);

    /* Half a lease is nothing. */
    pass(30 * SECOND);
    g_usleep(2500000);
    assert_int_equal(g_atomic_int_get(&heard.lost), 0);
    pass(SECOND);
    assert_true(comes(&heard.lost, 1));
    assert_int_equal(heard.for_us, 31 * SECOND);
    /* Said once. */
    pass(100 * SECOND);
    g_usleep(1500000);
    assert_int_equal(g_atomic_int_get(&heard.lost), 1);
    assert_int_equal(g_atomic_int_get(&heard.found), 0);
    assert_int_equal(sw_control_beat(control), 0);
    assert_true(comes(&heard.found, 1));
    assert_int_equal(heard.for_us, 131 * SECOND);
    assert_int_equal(g_atomic_int_get(&heard.lost), 1);
    sw_sentry_stop(sentry);
    assert_int_equal(sw_control_close(control), 0);
}

/* With a short lease nobody is told of a pause. */
static void test_short_lease(void **state)
{
    SwControl *control;
    Heard heard = {0};
    SwSentry *sentry = begin(*state, 2 * SECOND, &heard, &control);

    pass(9 * SECOND);
    g_usleep(2500000);
    assert_int_equal(g_atomic_int_get(&heard.lost), 0);
    sw_sentry_stop(sentry);
    sw_sentry_stop(NULL);
    assert_int_equal(sw_control_close(control), 0);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {TEST(test_silence), TEST(test_short_lease)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
