/* SPDX-License-Identifier: GPL-2.0-or-later */
/* C19 on kernels before 6.15: how processes ended that somebody else has waited for.  Newer kernels tell it as well, so
 * what the port does not use there can be tried on all. */
#include "../../src/port/exits.h"

#include "child.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHILDREN 100 /* child.h needs the descriptors 198 and 199 */

static SwExits *exits;

static int set_up(void **state)
{
    (void)state;
    exits = sw_exits_new();
    return exits ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    sw_exits_free(exits);
    return 0;
}

static void die_of_kill(void)
{
    child_ready_and_wait();
    (void)raise(SIGKILL);
}

/* That the first thread has ended shows as the state of the process. */
static gboolean first_thread_has_ended(void)
{
    char text[256] = "";
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t got = read(fd, text, sizeof text - 1);

    (void)close(fd);
    return got > 0 && strstr(text, ") Z") != NULL;
}

static void *fail_later(void *data)
{
    (void)data;
    while (!first_thread_has_ended())
        (void)usleep(1000);
    child_ready_and_wait();
    _exit(4);
}

/* The first thread ends before the process does. */
static void lose_the_first_thread(void)
{
    pthread_t thread;

    (void)pthread_create(&thread, NULL, fail_later, NULL);
    pthread_exit(NULL);
}

/* A pidfd of the child, watched. */
static int add(const Child *child)
{
    int fd = (int)syscall(SYS_pidfd_open, child->pid, 0);

    assert_true(fd >= 0);
    sw_exits_add(exits, fd, child->pid);
    return fd;
}

static void drop(int fd)
{
    sw_exits_remove(exits, fd);
    (void)close(fd);
}

static void expect_end(void (*body)(void), int expected)
{
    Child child = child_start(body);
    int status = -2, fd = add(&child), other = add(&child);

    sw_exits_read(exits); /* that the first thread has ended may be known before the rest */
    child_reap(&child);
    assert_true(sw_exits_status(exits, fd, &status));
    assert_int_equal(status, expected);
    drop(fd);
    assert_true(sw_exits_status(exits, other, &status)); /* as often as one likes */
    assert_int_equal(status, expected);
    drop(other);
    assert_false(sw_exits_status(exits, other, &status));
    assert_int_equal(status, -1);
}

static void ends_are_told_after_the_wait(void **state)
{
    (void)state;
    expect_end(child_ready_and_wait, 0);
    expect_end(child_fail_with_3, 3 << 8);
    expect_end(die_of_kill, SIGKILL);
    expect_end(lose_the_first_thread, 4 << 8);
}

/* The exits of others in between, also of threads, are none of ours. */
static void many_ends_are_told_apart(void **state)
{
    Child failing = child_start(child_fail_with_3), living = child_start(child_ready_and_wait);
    int status, fds[CHILDREN], failed = add(&failing), lives = add(&living);

    (void)state;
    for (int i = 0; i < CHILDREN; i++) {
        Child child = child_start(i % 2 ? child_ready_and_wait : die_of_kill);
        fds[i] = add(&child);
        child_reap(&child);
    }
    child_reap(&failing);
    assert_true(sw_exits_status(exits, failed, &status));
    assert_int_equal(status, 3 << 8);
    for (int i = 0; i < CHILDREN; i++) {
        assert_true(sw_exits_status(exits, fds[i], &status));
        assert_int_equal(status, i % 2 ? 0 : SIGKILL);
        drop(fds[i]);
    }
    assert_false(sw_exits_status(exits, lives, &status)); /* it has not ended */
    child_reap(&living);
    drop(lives);
    drop(failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ends_are_told_after_the_wait, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_ends_are_told_apart, set_up, tear_down),
    };

    exits = sw_exits_new();
    if (!exits) {
        printf("skipped: the kernel does not tell this process of exits\n");
        return 77;
    }
    sw_exits_free(exits);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
