/* SPDX-License-Identifier: GPL-2.0-or-later */

/* On whose behalf the threads of the real port act.  Most of it needs root, and is skipped without. */

#include "../../src/port/port.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define NOBODY 65534

static SwPort *port;
static char *dir_path;
static int dir = -1;

static int set_up(void **state)
{
    port = sw_port_posix_new();
    dir_path = g_dir_make_tmp("sw-cred-XXXXXX", NULL);
    assert_non_null(dir_path);
    dir = open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    return 0;
}

static int tear_down(void **state)
{
    g_autofree char *command = g_strdup_printf("rm -rf '%s'", dir_path);

    assert_int_equal(port->become(port, NULL), 0);
    (void)close(dir);
    sw_port_free(port);
    assert_int_equal(system(command), 0);
    g_free(dir_path);
    return 0;
}

static SwCred cred_of(uid_t uid, gid_t gid, gid_t extra)
{
    return (SwCred){.uid = uid, .gid = gid, .n_groups = 2, .groups = {gid, extra}};
}

static void need_root(void)
{
    if (geteuid() != 0)
        skip();
}

static void assert_acts_as(const char *name, uid_t uid, gid_t gid)
{
    struct stat st;

    assert_int_equal(port->close(port, port->openat(port, dir, name, O_RDWR | O_CREAT | O_EXCL, 0600)), 0);
    assert_int_equal(port->statat(port, dir, name, &st), 0);
    assert_int_equal(st.st_uid, uid);
    assert_int_equal(st.st_gid, gid);
}

static void become_changes_who_creates_and_who_may(void **state)
{
    SwCred cred = cred_of(NOBODY, NOBODY, 4242);

    need_root();
    assert_int_equal(port->chmodat(port, dir, "", 01777), 0);
    assert_int_equal(port->mkdirat(port, dir, "mine", 0700), 0);
    assert_int_equal(port->mkdirat(port, dir, "group", 0070), 0);
    assert_int_equal(port->chownat(port, dir, "group", 0, 4242), 0);
    assert_int_equal(port->chmodat(port, dir, "group", 0070), 0);
    assert_int_equal(port->become(port, &cred), 0);
    assert_acts_as("theirs", NOBODY, NOBODY);
    assert_int_equal(port->accessat(port, dir, "mine", R_OK), -EACCES);
    assert_int_equal(port->openat(port, dir, "mine/x", O_CREAT | O_RDWR, 0600), -EACCES);
    assert_int_equal(port->accessat(port, dir, "group", R_OK | W_OK | X_OK), 0);
    assert_int_equal(port->chmodat(port, dir, "theirs", 0644), 0); /* by way of /proc/self, also when undumpable */
    assert_int_equal(port->chmodat(port, dir, "mine", 0777), -EPERM);
    cred.n_groups = 1;
    assert_int_equal(port->become(port, &cred), 0);
    assert_int_equal(port->accessat(port, dir, "group", R_OK), -EACCES);
    assert_int_equal(port->become(port, NULL), 0);
    assert_int_equal(port->accessat(port, dir, "mine", R_OK | W_OK), 0);
    assert_acts_as("ours", 0, getegid());
    assert_int_equal(port->chownat(port, dir, "theirs", 0, 0), 0); /* the capabilities are back */
}

static void become_refuses_what_nobody_can_be(void **state)
{
    SwCred cred = cred_of(-1, 0, 0);

    need_root();
    assert_int_equal(port->become(port, &cred), -EINVAL);
    cred = cred_of(0, -1, 0);
    assert_int_equal(port->become(port, &cred), -EINVAL);
    cred = cred_of(1, 1, 1);
    cred.n_groups = 65;
    assert_int_equal(port->become(port, &cred), -EINVAL);
    assert_acts_as("still-root", 0, getegid());
}

static void *work_as(void *data)
{
    SwCred cred = cred_of(GPOINTER_TO_UINT(data), 2000 + GPOINTER_TO_UINT(data), 3000);

    for (guint i = 0; i < 200; i++) {
        g_autofree char *name = g_strdup_printf("%u-%u", cred.uid, i);

        assert_int_equal(port->become(port, i % 3 ? &cred : NULL), 0);
        assert_acts_as(name, i % 3 ? cred.uid : 0, i % 3 ? cred.gid : getegid());
    }
    return NULL;
}

static void threads_act_for_different_people(void **state)
{
    GThread *threads[2];

    need_root();
    assert_int_equal(port->chmodat(port, dir, "", 01777), 0);
    for (guint i = 0; i < 2; i++)
        threads[i] = g_thread_new("as", work_as, GUINT_TO_POINTER(1000 + i));
    for (guint i = 0; i < 2; i++)
        g_thread_join(threads[i]);
    assert_acts_as("main-thread", 0, getegid());
}

static void *back_to_self(void *data)
{
    assert_int_equal(port->become(port, NULL), 0);
    assert_acts_as("child-thread", 0, getegid());
    return NULL;
}

static void threads_do_not_trust_what_they_inherit(void **state)
{
    SwCred cred = cred_of(NOBODY, NOBODY, NOBODY);

    need_root();
    assert_int_equal(port->chmodat(port, dir, "", 01777), 0);
    assert_int_equal(port->become(port, &cred), 0);
    g_thread_join(g_thread_new("heir", back_to_self, NULL));
    assert_acts_as("parent-thread", NOBODY, NOBODY);
}

static int ignore_as_user(void)
{
    SwCred cred = cred_of(1, 1, 1);
    SwPort *mine;
    int r;

    if (setresuid(NOBODY, NOBODY, NOBODY) < 0)
        return 2;
    mine = sw_port_posix_new();
    r = mine->become(mine, &cred);
    sw_port_free(mine);
    return r == 0 ? 0 : 1;
}

static int run_apart(const char *program, const char *mode)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        (void)execl(program, program, mode, NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void an_ordinary_daemon_ignores_become(void **state)
{
    need_root();
    /* In a program of its own: who the daemon is, is learnt once. */
    assert_int_equal(run_apart("/proc/self/exe", "ignore-as-user"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(become_changes_who_creates_and_who_may), TEST(become_refuses_what_nobody_can_be),
        TEST(threads_act_for_different_people),       TEST(threads_do_not_trust_what_they_inherit),
        TEST(an_ordinary_daemon_ignores_become),
    };

    if (argc > 1 && strcmp(argv[1], "ignore-as-user") == 0)
        return ignore_as_user();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
