/* SPDX-License-Identifier: GPL-2.0-or-later */

/* What the real port keeps open of processes is asked again and again, and tells what is true then (C3). */

#include "held_file.h"

#include <errno.h>
#include <grp.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

static guint n_writers(pid_t pid)
{
    SwHoldings holdings = holdings_of(pid);

    assert_true(holdings.complete);
    return holdings.n_writers;
}

/* Often enough that it is kept. */
static void make_known(pid_t pid)
{
    SwProcess process;
    pid_t tgid;

    for (guint i = 0; i < 3; i++) {
        (void)holdings_of(pid);
        assert_int_equal(port->process(port, pid, &process), 0);
        assert_int_equal(process.tgid, pid);
        assert_int_equal(port->thread_group(port, pid, &tgid), 0);
        assert_int_equal(tgid, pid);
    }
}

/* How many descriptors this process has; for a listing alone, which is one of them. */
static guint n_descriptors(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    guint n = 0;

    while (g_dir_read_name(dir))
        n++;
    g_dir_close(dir);
    return n;
}

/* ---- descriptors that come, go and change */

static void a_number_is_looked_at_anew_each_time(void **state)
{
    int fd = open("/dev/null", O_RDWR), wanted = open(file_path, O_RDWR), reader = open(file_path, O_RDONLY);
    SwHoldings holdings;

    make_known(getpid());
    assert_int_equal(n_writers(getpid()), 1);
    assert_int_equal(dup2(wanted, fd), fd);
    assert_int_equal(n_writers(getpid()), 2);
    assert_int_equal(dup2(reader, fd), fd);
    holdings = holdings_of(getpid());
    assert_int_equal(holdings.n_writers, 1);
    assert_int_equal(holdings.only_fd, wanted);
    (void)close(wanted);
    assert_int_equal(n_writers(getpid()), 0);
    assert_int_equal(dup2(open(file_path, O_WRONLY), wanted), wanted);
    assert_int_equal(n_writers(getpid()), 1);
    (void)close(fd);
    (void)close(wanted);
    (void)close(reader);
    assert_int_equal(n_writers(getpid()), 0);
}

/* More than are kept, with numbers that are kept in one place. */
static void any_number_of_descriptors_is_seen(void **state)
{
    int fds[60];

    make_known(getpid());
    for (guint round = 0; round < 3; round++) {
        for (guint i = 0; i < G_N_ELEMENTS(fds); i++) {
            fds[i] = open(i % 3 ? file_path : "/dev/null", O_WRONLY);
            if (i % 7 == 0)
                assert_int_equal(n_writers(getpid()), i - i / 3);
        }
        for (guint i = 0; i < G_N_ELEMENTS(fds); i++)
            (void)close(fds[i]);
        assert_int_equal(n_writers(getpid()), 0);
    }
}

static void a_socket_in_the_place_of_a_file_is_noticed(void **state)
{
    int pair[2], fd = open("/dev/null", O_RDWR);

    make_known(getpid());
    assert_false(holdings_of(getpid()).unix_sockets);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(dup2(pair[0], fd), fd);
    (void)close(pair[0]);
    (void)close(pair[1]);
    assert_true(holdings_of(getpid()).unix_sockets);
    (void)close(fd);
    assert_false(holdings_of(getpid()).unix_sockets);
}

static void a_table_that_grows_too_large_is_left_alone(void **state)
{
    int fds[250];

    make_known(getpid());
    for (guint round = 0; round < 2; round++) {
        for (guint i = 0; i < G_N_ELEMENTS(fds); i++)
            fds[i] = open("/dev/null", O_RDONLY);
        for (guint i = 0; i < 2; i++)
            assert_false(holdings_of(getpid()).complete);
        for (guint i = 0; i < G_N_ELEMENTS(fds); i++)
            (void)close(fds[i]);
        for (guint i = 0; i < 2; i++)
            assert_true(holdings_of(getpid()).complete);
    }
}

/* ---- processes that change */

static void *list_many(void *data)
{
    for (guint i = 0; i < 2000; i++)
        if (n_writers(getpid()) != 1)
            return "a descriptor was not seen";
    return NULL;
}

static void threads_do_not_disturb_each_other(void **state)
{
    int fd = open(file_path, O_WRONLY);
    GThread *threads[4];

    make_known(getpid());
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("list", list_many, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
        assert_null(g_thread_join(threads[i]));
    (void)close(fd);
}

static void the_dead_are_gone_at_once(void **state)
{
    Child child = child_start(child_ready_and_wait);
    pid_t tgid, pid = child.pid, pids[4];
    SwProcess process;

    make_known(pid);
    child_let_die(&child);
    assert_int_equal(port->process(port, pid, &process), 0);
    assert_true(process.exiting);
    assert_int_equal(n_writers(pid), 0);
    child_reap(&child);
    assert_int_equal(port->process(port, pid, &process), -ESRCH);
    assert_int_equal(port->thread_group(port, pid, &tgid), -ESRCH);
    assert_true(port->children(port, pid, pids, 4) < 0);
    assert_int_equal(n_writers(pid), 0);
}

static gint ended; /* atomic */

static void *fork_and_wait(void *data)
{
    pid_t *pid = data;

    *pid = fork();
    if (*pid == 0) {
        (void)pause();
        _exit(0);
    }
    while (!g_atomic_int_get(&ended))
        g_usleep(1000);
    return NULL;
}

static void children_of_all_threads_are_seen(void **state)
{
    pid_t pids[4] = {0}, mine = 0, theirs = 0;
    GThread *thread;
    int n = port->children(port, getpid(), pids, 4);

    if (n == -EOPNOTSUPP)
        skip();
    make_known(getpid());
    assert_int_equal(port->children(port, getpid(), pids, 4), n);
    mine = fork();
    if (mine == 0) {
        (void)pause();
        _exit(0);
    }
    assert_int_equal(port->children(port, getpid(), pids, 4), n + 1);
    g_atomic_int_set(&ended, FALSE);
    thread = g_thread_new("fork", fork_and_wait, &theirs);
    for (guint i = 0; i < 2000 && port->children(port, getpid(), pids, 4) != n + 2; i++)
        g_usleep(1000);
    assert_int_equal(port->children(port, getpid(), pids, 4), n + 2);
    g_atomic_int_set(&ended, TRUE);
    g_thread_join(thread);
    assert_int_equal(port->children(port, getpid(), pids, 4), n + 2); /* they have got another thread for a parent */
    assert_int_equal(kill(mine, SIGKILL), 0);
    assert_int_equal(kill(theirs, SIGKILL), 0);
    assert_int_equal(waitpid(mine, NULL, 0), mine);
    assert_int_equal(waitpid(theirs, NULL, 0), theirs);
    assert_int_equal(port->children(port, getpid(), pids, 4), n);
}

static void groups_are_those_of_now(void **state)
{
    static const gid_t some[] = {5, 6, 7};
    SwCred cred = {0};

    if (geteuid() != 0)
        skip();
    make_known(getpid());
    assert_int_equal(setgroups(3, some), 0);
    assert_int_equal(port->groups(port, getpid(), &cred), 0);
    assert_int_equal(cred.n_groups, 3);
    assert_int_equal(setgroups(1, some), 0);
    assert_int_equal(port->groups(port, getpid(), &cred), 0);
    assert_int_equal(cred.n_groups, 1);
    assert_int_equal(setgroups(0, NULL), 0);
}

/* A child with the number that was `wanted`; FALSE where that cannot be chosen.  It holds the file. */
static gboolean start_as(pid_t wanted, int *ret_go)
{
    pid_t set[] = {wanted};
    struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)set, .set_tid_size = 1};
    int go[2];
    pid_t pid;

    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        char byte;

        (void)close(go[1]);
        (void)open(file_path, O_WRONLY);
        while (read(go[0], &byte, 1) > 0)
            ;
        _exit(0);
    }
    (void)close(go[0]);
    *ret_go = go[1];
    return pid == wanted;
}

static void fork_one(void)
{
    if (fork() == 0) {
        struct pollfd parent = {.fd = 199};

        (void)poll(&parent, 1, -1); /* until its parent's parent lets go */
        _exit(0);
    }
    child_ready_and_wait();
}

/* The number of one that was kept goes to another: everything is told of that one. */
static void a_successor_is_not_taken_for_the_one_before(void **state)
{
    Child child = child_start(fork_one);
    pid_t pid = child.pid, tgid, pids[4];
    SwProcess process;
    int go;

    make_known(pid);
    assert_int_equal(n_writers(pid), 0);
    (void)port->children(port, pid, pids, 4);
    child_reap(&child);
    if (!start_as(pid, &go)) {
        (void)close(go);
        skip();
    }
    for (guint i = 0; i < 2000 && holdings_of(pid).n_writers == 0; i++)
        g_usleep(1000);
    assert_int_equal(n_writers(pid), 1);
    assert_int_equal(port->process(port, pid, &process), 0);
    assert_false(process.exiting);
    assert_int_equal(port->thread_group(port, pid, &tgid), 0);
    assert_int_equal(tgid, pid);
    assert_true(port->children(port, pid, pids, 4) <= 0);
    (void)close(go);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(port->process(port, pid, &process), -ESRCH);
}

/* Of however many processes, and whatever they have open. */
static void what_is_kept_is_bounded(void **state)
{
    guint before = n_descriptors(), most;

    for (guint i = 0; i < 100; i++) {
        Child child = child_start(child_ready_and_wait);

        make_known(child.pid);
        child_reap(&child);
    }
    most = n_descriptors();
    assert_true(most - before <= 32 * 15);
    g_usleep(2100 * 1000);
    port->tidy_processes(port);
    assert_true(n_descriptors() <= before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_is_looked_at_anew_each_time),
        cmocka_unit_test(any_number_of_descriptors_is_seen),
        cmocka_unit_test(a_socket_in_the_place_of_a_file_is_noticed),
        cmocka_unit_test(a_table_that_grows_too_large_is_left_alone),
        cmocka_unit_test(threads_do_not_disturb_each_other),
        cmocka_unit_test(the_dead_are_gone_at_once),
        cmocka_unit_test(children_of_all_threads_are_seen),
        cmocka_unit_test(groups_are_those_of_now),
        cmocka_unit_test(a_successor_is_not_taken_for_the_one_before),
        cmocka_unit_test(what_is_kept_is_bounded),
    };

    return cmocka_run_group_tests(tests, held_file_set_up, held_file_tear_down);
}
