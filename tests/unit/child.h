/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_CHILD_H
#define SW_TEST_CHILD_H

/* A forked child that gets itself into some state, says so, and stays there until the parent lets it go. */

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    pid_t pid;
    int go; /* the parent closes it: the child may end */
    int ready;
} Child;

/* In the child: everything is set up; waits for the parent.  Its pipes are at 198 and 199, out of the way. */
static inline void child_ready_and_wait(void)
{
    char byte = 'r';

    (void)!write(198, &byte, 1);
    (void)!read(199, &byte, 1);
}

static inline void child_fail_with_3(void)
{
    child_ready_and_wait();
    _exit(3);
}

static inline void child_close_others(void)
{
    (void)syscall(SYS_close_range, 3, 197, 0);
    (void)syscall(SYS_close_range, 200, ~0U, 0);
}

static inline Child child_start(void (*body)(void))
{
    int ready[2], go[2];
    Child child = {0};
    char byte;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    child.pid = fork();
    if (child.pid == 0) {
        (void)dup2(ready[1], 198);
        (void)dup2(go[0], 199);
        child_close_others();
        body();
        _exit(0);
    }
    (void)close(ready[1]);
    (void)close(go[0]);
    child.go = go[1];
    child.ready = ready[0];
    assert_int_equal(read(child.ready, &byte, 1), 1);
    return child;
}

static inline void child_reap(Child *child)
{
    int status;

    (void)close(child->go);
    (void)close(child->ready);
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
}

/* Lets it end, and waits until it has, without reaping it. */
static inline void child_let_die(Child *child)
{
    siginfo_t info;

    (void)close(child->go);
    child->go = -1;
    assert_int_equal(waitid(P_PID, child->pid, &info, WEXITED | WNOWAIT), 0);
}

static inline void *child_idle(void *data)
{
    child_ready_and_wait();
    _exit(0);
}

/* The first thread ends, another lives on. */
static inline void child_outlive_main_thread(void)
{
    pthread_t thread;

    (void)pthread_create(&thread, NULL, child_idle, NULL);
    pthread_exit(NULL);
}

/* ... and may still be on its way out. */
static inline void child_await_main_thread(const Child *child)
{
    for (guint i = 0; i < 200; i++) {
        g_autofree char *statm_path = g_strdup_printf("/proc/%d/statm", child->pid), *statm = NULL;

        assert_true(g_file_get_contents(statm_path, &statm, NULL, NULL));
        if (g_str_has_prefix(statm, "0 "))
            break;
        g_usleep(5000);
    }
}

#endif
