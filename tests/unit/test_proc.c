/* SPDX-License-Identifier: GPL-2.0-or-later */

/* What the real port says of processes: real children, in every state that matters. */

#include "../../src/port/port.h"
#include "child.h"

#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

static SwPort *port;

/* ---- process */

static void process_tells_living_from_dead(void **state)
{
    Child child = child_start(child_ready_and_wait);
    SwProcess process;
    pid_t pid = child.pid;

    assert_int_equal(port->process(port, pid, &process), 0);
    assert_int_equal(process.tgid, pid);
    assert_int_equal(process.ppid, getpid());
    assert_false(process.exiting);
    child_let_die(&child);
    assert_int_equal(port->process(port, pid, &process), 0);
    assert_true(process.exiting);
    child_reap(&child);
    assert_int_equal(port->process(port, pid, &process), -ESRCH);
    assert_int_equal(port->process(port, 0, &process), -EINVAL);
    assert_int_equal(port->process(port, -5, &process), -EINVAL);
}

static void kernel_threads_are_not_exiting(void **state)
{
    SwProcess process;

    if (port->process(port, 2, &process) != 0 || process.ppid != 0)
        skip(); /* not the first pid namespace */
    assert_false(process.exiting);
}

static void a_process_lives_as_long_as_any_thread(void **state)
{
    Child child = child_start(child_outlive_main_thread);
    SwProcess process;

    child_await_main_thread(&child);
    assert_int_equal(port->process(port, child.pid, &process), 0);
    assert_false(process.exiting);
    child_reap(&child);
}

static gint other_tid, may_end; /* atomic */

static void *other_thread(void *data)
{
    g_atomic_int_set(&other_tid, gettid());
    while (!g_atomic_int_get(&may_end))
        g_usleep(1000);
    return NULL;
}

static void threads_lead_to_their_process(void **state)
{
    GThread *thread = g_thread_new("other", other_thread, NULL);
    SwProcess process;

    while (!g_atomic_int_get(&other_tid))
        g_usleep(100);
    assert_int_equal(port->process(port, other_tid, &process), 0);
    assert_int_equal(process.tgid, getpid());
    assert_int_not_equal(other_tid, getpid());
    assert_false(process.exiting);
    g_atomic_int_set(&may_end, 1);
    g_thread_join(thread);
}

/* ---- exit status */

static void exit_3(void)
{
    child_ready_and_wait();
    _exit(3);
}

static void kill_self(void)
{
    (void)prctl(PR_SET_NAME, "a) 1 (b\n) 9");
    child_ready_and_wait();
    (void)raise(SIGKILL);
}

static int status_of(void (*body)(void))
{
    Child child = child_start(body);
    int status = -1;

    assert_int_equal(port->exit_status(port, child.pid, &status), -EBUSY);
    child_let_die(&child);
    assert_int_equal(port->exit_status(port, child.pid, &status), 0);
    child_reap(&child);
    assert_int_equal(port->exit_status(port, child.pid, &status), -ESRCH);
    return status;
}

static void exit_status_tells_how_it_ended(void **state)
{
    int status = status_of(exit_3);

    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
    status = status_of(kill_self);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_equal(status_of(child_ready_and_wait), 0);
}

/* ---- families */

static void fork_two(void)
{
    for (guint i = 0; i < 2; i++)
        if (fork() == 0) {
            (void)pause();
            _exit(0);
        }
    child_ready_and_wait();
}

static void children_are_listed(void **state)
{
    Child child = child_start(fork_two);
    pid_t pids[4] = {0}, pid = child.pid;
    int n = port->children(port, pid, pids, 4);

    if (n == -EOPNOTSUPP) {
        print_message("no CONFIG_PROC_CHILDREN\n");
    } else {
        SwProcess process;

        assert_int_equal(n, 2);
        assert_int_equal(port->process(port, pids[0], &process), 0);
        assert_int_equal(process.ppid, pid);
        assert_int_equal(port->children(port, pid, pids + 2, 1), 1);
        assert_int_equal(pids[2], pids[0]);
        assert_int_equal(pids[3], 0);
        for (guint i = 0; i < 2; i++)
            assert_int_equal(kill(pids[i], SIGKILL), 0);
        assert_int_equal(port->children(port, 0, pids, 4), -EINVAL);
    }
    child_reap(&child);
    if (n == 2)
        assert_int_equal(port->children(port, pid, pids, 4), -ESRCH);
}

static gboolean contains(const pid_t *pids, int n, pid_t pid)
{
    for (int i = 0; i < n; i++)
        if (pids[i] == pid)
            return TRUE;
    return FALSE;
}

static void processes_created_since_are_a_range(void **state)
{
    pid_t before, after, pids[64];
    Child child;
    int n;

    assert_int_equal(port->last_pid(port, &before), 0);
    child = child_start(child_outlive_main_thread); /* has a thread too, which is no process */
    assert_int_equal(port->last_pid(port, &after), 0);
    assert_int_not_equal(before, after);
    n = port->pids_between(port, before, after, pids, G_N_ELEMENTS(pids));
    assert_true(n >= 1);
    assert_true(contains(pids, n, child.pid));
    for (int i = 0; i < n; i++) {
        SwProcess process;

        if (port->process(port, pids[i], &process) == 0)
            assert_int_equal(process.tgid, pids[i]);
    }
    assert_int_equal(port->pids_between(port, after, after, pids, 1), 0);
    assert_int_equal(port->pids_between(port, before, after, pids, 0), -E2BIG);
    assert_int_equal(port->pids_between(port, -1, 5, pids, 5), -EINVAL);
    child_reap(&child);
}

/* A range is asked for pid by pid, a large one by listing; both see the same, and both wrap. */
static void ranges_wrap_and_may_be_large(void **state)
{
    pid_t max, pids[4096], self = getpid();
    g_autofree char *text = NULL;
    int n;

    assert_true(g_file_get_contents("/proc/sys/kernel/pid_max", &text, NULL, NULL));
    max = atoi(text);
    n = port->pids_between(port, 0, max, pids, G_N_ELEMENTS(pids));
    assert_true(contains(pids, n, self) && contains(pids, n, 1));
    n = port->pids_between(port, self, self - 1, pids, G_N_ELEMENTS(pids));
    assert_true(n > 0 && !contains(pids, n, self) && contains(pids, n, 1));
    n = port->pids_between(port, max - 10, 1, pids, G_N_ELEMENTS(pids));
    assert_true(n > 0 && contains(pids, n, 1) && n < 11);
    n = port->pids_between(port, self - 1, self, pids, G_N_ELEMENTS(pids));
    assert_int_equal(n, 1);
    assert_int_equal(pids[0], self);
}

/* ---- groups and names */

static void take_groups(gid_t n)
{
    gid_t groups[1000];

    for (gid_t i = 0; i < n; i++)
        groups[i] = 100000000 + i;
    (void)!setgroups(n, groups);
    child_ready_and_wait();
}

static void take_two(void)
{
    take_groups(2);
}

static void take_64(void)
{
    take_groups(64);
}

static void take_1000(void)
{
    take_groups(1000);
}

static void groups_are_read_up_to_the_limit(void **state)
{
    SwCred cred = {.uid = 7};
    SwProcess process;
    Child child;

    if (geteuid() != 0)
        skip();
    child = child_start(take_two);
    assert_int_equal(port->groups(port, child.pid, &cred), 0);
    assert_int_equal(cred.n_groups, 2);
    assert_int_equal(cred.groups[1], 100000001);
    assert_int_equal(cred.uid, 7);
    child_reap(&child);
    child = child_start(take_64);
    assert_int_equal(port->groups(port, child.pid, &cred), 0);
    assert_int_equal(cred.n_groups, 64);
    assert_int_equal(cred.groups[63], 100000063);
    child_reap(&child);
    child = child_start(take_1000);
    assert_int_equal(port->groups(port, child.pid, &cred), -E2BIG);
    assert_int_equal(port->process(port, child.pid, &process), 0);
    assert_false(process.exiting); /* what tells that comes late in a long status */
    child_reap(&child);
    assert_int_equal(port->groups(port, child.pid, &cred), -ESRCH);
}

static void name_badly(void)
{
    (void)prctl(PR_SET_NAME, "a\nTgid:\t1\x01");
    child_ready_and_wait();
}

static void names_are_made_printable(void **state)
{
    Child child = child_start(name_badly);
    SwProcess process;
    char comm[32], tiny[4];

    port->comm(port, child.pid, comm, sizeof comm);
    assert_string_equal(comm, "a?Tgid:?1?");
    port->comm(port, child.pid, tiny, sizeof tiny);
    assert_string_equal(tiny, "a?T");
    assert_int_equal(port->process(port, child.pid, &process), 0);
    assert_int_equal(process.tgid, child.pid);
    child_reap(&child);
    port->comm(port, child.pid, comm, sizeof comm);
    assert_string_equal(comm, "?");
    port->comm(port, 0, comm, sizeof comm);
    assert_string_equal(comm, "?");
}

/* ---- watching */

/* What `body` ends with, while it is a zombie and once it has been waited for (C19). */
static void watch_end(void (*body)(void), int expected)
{
    Child child = child_start(body);
    guint64 id = 0, again = 0;
    int status = -2, fd = port->pid_watch(port, child.pid, &id), other = port->pid_watch(port, child.pid, &again);
    int r;

    assert_true(fd >= 0 && other >= 0);
    assert_int_equal(id, again);
    assert_int_equal(port->pid_ended(port, fd, child.pid, &status), 0);
    child_let_die(&child);
    assert_int_equal(port->pid_ended(port, fd, child.pid, &status), 1);
    assert_int_equal(status, expected);
    child_reap(&child);
    r = port->pid_ended(port, fd, child.pid, &status);
    assert_int_equal(r, 1);
    assert_true(status == expected || status == -1); /* before Linux 6.15 nobody can say any more */
    assert_int_equal(port->pid_watch(port, child.pid, &id), -ESRCH);
    port->pid_unwatch(port, fd);
    port->pid_unwatch(port, other);
}

static void die_of_term(void)
{
    child_ready_and_wait();
    (void)raise(SIGTERM);
}

static void the_end_of_any_process_is_seen(void **state)
{
    guint64 id;

    watch_end(child_ready_and_wait, 0);
    watch_end(child_fail_with_3, 3 << 8);
    watch_end(die_of_term, SIGTERM);
    assert_int_equal(port->pid_watch(port, 0, &id), -EINVAL);
}

/* L6: of many at once; here more than one call takes. */
static void the_ends_of_many_are_seen(void **state)
{
    enum { MANY = 1500 };
    Child child = child_start(child_ready_and_wait), other = child_start(child_ready_and_wait);
    int fds[MANY];
    pid_t pids[MANY];
    gboolean ended[MANY];
    guint64 id;

    for (guint i = 0; i < MANY; i++) {
        pids[i] = i % 3 ? child.pid : other.pid;
        fds[i] = i == 1 || i == 3 ? port->pid_watch(port, pids[i], &id) : i < 3 ? -1 : fds[i % 3 ? 1 : 3];
    }
    fds[0] = fds[3];
    fds[2] = fds[1];
    child_let_die(&child);
    assert_int_equal(port->pids_ended(port, fds, pids, MANY, ended), 0);
    for (guint i = 0; i < MANY; i++)
        assert_int_equal(ended[i], i % 3 != 0);
    child_reap(&child);
    assert_int_equal(port->pids_ended(port, fds, pids, MANY, ended), 0);
    assert_true(ended[1] && !ended[3]);
    assert_int_equal(port->pids_ended(port, NULL, NULL, 0, NULL), 0);
    child_let_die(&other);
    child_reap(&other);
    (void)port->close(port, fds[1]);
    (void)port->close(port, fds[3]);
}

static int group_set_up(void **state)
{
    port = sw_port_posix_new();
    return 0;
}

static int group_tear_down(void **state)
{
    sw_port_free(port);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(process_tells_living_from_dead),        cmocka_unit_test(kernel_threads_are_not_exiting),
        cmocka_unit_test(a_process_lives_as_long_as_any_thread), cmocka_unit_test(threads_lead_to_their_process),
        cmocka_unit_test(exit_status_tells_how_it_ended),        cmocka_unit_test(children_are_listed),
        cmocka_unit_test(processes_created_since_are_a_range),   cmocka_unit_test(ranges_wrap_and_may_be_large),
        cmocka_unit_test(groups_are_read_up_to_the_limit),       cmocka_unit_test(names_are_made_printable),
        cmocka_unit_test(the_end_of_any_process_is_seen),        cmocka_unit_test(the_ends_of_many_are_seen),
    };

    return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
