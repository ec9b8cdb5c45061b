/* SPDX-License-Identifier: GPL-2.0-or-later */

/* When a daemon that crashed is started again, and the ends that are no crash.  The mounted tests kill real ones. */

#include "../../src/supervisor.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND ((gint64)G_USEC_PER_SEC)

/* The first costs no time, a second soon after it a pause, one after a calm again none. */
static void test_pauses(void **state)
{
    SwCrashes crashes = {0};

    assert_int_equal(sw_crashes_add(&crashes, 7 * SECOND), 0);
    assert_int_equal(sw_crashes_add(&crashes, 7 * SECOND + SW_CRASHES_CALM_US - 1), SW_CRASHES_PAUSE_US);
    assert_int_equal(sw_crashes_add(&crashes, 7 * SECOND + 2 * SW_CRASHES_CALM_US - 1), 0);
}

/* One too many within the time is too many; spread over more time there can be any number. */
static void test_too_many(void **state)
{
    SwCrashes quick = {0}, slow = {0};

    for (guint i = 0; i < SW_CRASHES_MAX; i++)
        assert_true(sw_crashes_add(&quick, i * SECOND) >= 0);
    assert_int_equal(sw_crashes_add(&quick, SW_CRASHES_WITHIN_US - 1), -1);
    assert_true(sw_crashes_add(&quick, SW_CRASHES_WITHIN_US) >= 0);
    assert_int_equal(sw_crashes_add(&quick, SW_CRASHES_WITHIN_US), -1);
    for (guint i = 0; i < 1000; i++)
        assert_true(sw_crashes_add(&slow, (gint64)i * (SW_CRASHES_WITHIN_US / SW_CRASHES_MAX)) >= 0);
}

/* What a daemon does; it cannot tell how often it was started but by `again`. */
static int (*play)(int ready_fd, gboolean again);
static guint answers, complaints, left_dead, hangs, stops; /* counted in the supervisor */

static int serve(gpointer data, int ready_fd, gboolean again)
{
    return play(ready_fd, again);
}

static void ready(gpointer data)
{
    answers++;
}

static void count_left_dead(gpointer data)
{
    left_dead++;
}

static void say(gboolean is_error, const char *text)
{
    complaints += is_error;
    hangs += strstr(text, "has done nothing") != NULL;
    stops += strstr(text, "was stopped by signal 19") != NULL;
}

#define HANG_US (SECOND / 2)

static int supervise(int (*one)(int ready_fd, gboolean again))
{
    const SwSupervised what = {
        .serve = serve, .ready = ready, .left_dead = count_left_dead, .say = say, .hang_us = HANG_US};
    sigset_t before;

    play = one;
    answers = complaints = left_dead = hangs = stops = 0;
    sigprocmask(SIG_SETMASK, NULL, &before);
    int status = sw_supervise(&what, 32);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}

static void answer(int ready_fd)
{
    if (write(ready_fd, "", 1) != 1)
        _exit(99);
    close(ready_fd);
}

static int refuse(int ready_fd, gboolean again)
{
    _exit(32); /* without cmocka's and the sanitizers' last words */
}

static int die_unheard(int ready_fd, gboolean again)
{
    raise(SIGKILL);
    return 0;
}

static int die_once(int ready_fd, gboolean again)
{
    answer(ready_fd);
    if (!again)
        raise(SIGKILL);
    _exit(0);
}

static int fail_once(int ready_fd, gboolean again)
{
    answer(ready_fd);
    _exit(again ? 0 : 1);
}

/* Tells the supervisor to end, and dies of what it hands on. */
static int be_told(int ready_fd, gboolean again)
{
    answer(ready_fd);
    kill(getppid(), SIGTERM);
    for (guint i = 0; i < 10; i++)
        sleep(1);
    _exit(98);
}

static void sleep_us(gint64 us)
{
    gint64 until_us = g_get_monotonic_time() + us;

    while (g_get_monotonic_time() < until_us)
        usleep((useconds_t)MAX(until_us - g_get_monotonic_time(), 1));
}

static void be_alive(int fd)
{
    sw_supervisor_tell(fd, SW_SAYS_ANSWERS, NULL);
    sw_supervisor_tell(fd, SW_SAYS_ALIVE, NULL);
}

static int hang_once(int fd, gboolean again)
{
    be_alive(fd);
    if (!again)
        sleep_us(20 * SECOND);
    _exit(again ? 0 : 98);
}

/* For longer than a hang may last, and then for longer without a word, because that is its end. */
static int be_busy(int fd, gboolean again)
{
    for (guint i = 0; i < 8; i++) {
        be_alive(fd);
        sleep_us(HANG_US / 4);
    }
    sw_supervisor_tell(fd, SW_SAYS_ENDING, NULL);
    sleep_us(2 * HANG_US);
    _exit(again ? 98 : 0);
}

static int be_stopped(int fd, gboolean again)
{
    pid_t daemon = getpid();

    be_alive(fd);
    if (!again && fork() == 0) {
        sleep_us(3 * HANG_US);
        kill(daemon, SIGCONT);
        _exit(0);
    }
    raise(SIGSTOP);
    _exit(again ? 98 : 0);
}

/* Who said once that he is alive, and then nothing for so long, is killed, and followed by another. */
static void test_hang(void **state)
{
    gint64 began_us = g_get_monotonic_time();

    assert_int_equal(supervise(hang_once), 0);
    assert_int_equal(hangs, 1);
    assert_true(g_get_monotonic_time() - began_us >= HANG_US);
    assert_int_equal(complaints + left_dead + stops, 0);
}

/* Not who goes on saying so, nor who has said that he is coming to his end. */
static void test_no_hang(void **state)
{
    assert_int_equal(supervise(be_busy), 0);
    assert_int_equal(hangs + complaints, 0);
}

/* Nor who was stopped on purpose: that is said. */
static void test_stopped(void **state)
{
    assert_int_equal(supervise(be_stopped), 0);
    assert_int_equal(stops, 1);
    assert_int_equal(hangs + complaints, 0);
}

/* Who never answered is not started again, and has said why unless it was killed. */
static void test_never_answered(void **state)
{
    assert_int_equal(supervise(refuse), 32);
    assert_int_equal(complaints, 0);
    assert_int_equal(supervise(die_unheard), 32);
    assert_int_equal(complaints, 1);
    assert_int_equal(answers + left_dead, 0);
}

/* A crash, by a signal or a status, is followed by another daemon; `ready` is called for the first one. */
static void test_crashes(void **state)
{
    assert_int_equal(supervise(die_once), 0);
    assert_int_equal(answers, 1);
    assert_int_equal(supervise(fail_once), 0);
    assert_int_equal(answers, 1);
    assert_int_equal(complaints + left_dead, 0);
}

/* Told to end: no other daemon, and what the last one left dead is to be cleared. */
static void test_told_to_end(void **state)
{
    assert_int_equal(supervise(be_told), 0);
    assert_int_equal(left_dead, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pauses),  cmocka_unit_test(test_too_many),    cmocka_unit_test(test_never_answered),
        cmocka_unit_test(test_crashes), cmocka_unit_test(test_told_to_end), cmocka_unit_test(test_hang),
        cmocka_unit_test(test_no_hang), cmocka_unit_test(test_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
