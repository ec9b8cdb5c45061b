/* SPDX-License-Identifier: GPL-2.0-or-later */

/* The content lease: one holder at a time among threads and mounts, in order, and broken when its holder is dead. */

#include "lease_fixture.h"

#define KEY 77
#define LEASES ".safewritefs/leases"
#define LINK LEASES "/000000000000004d"
#define ROUNDS 200

static int take(SwContentLeases *leases, const SwLeaseText *intent, gint64 wait_us, SwContentLease **ret_lease,
                SwPredecessor *ret_predecessor)
{
    SwPort *port = sw_port_posix_new();
    gint64 deadline_us = port->now_us(port) + wait_us;

    sw_port_free(port);
    return sw_content_lease_take(leases, KEY, intent, deadline_us, NULL, NULL, ret_lease, ret_predecessor);
}

static void is_a_link_while_held(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    SwContentLeases *leases = sw_content_leases_new(f->port, control, f->source);
    SwLeaseText intent = {.appending = TRUE, .append_offset = 3, .append_length = 9, .file_ino = KEY, .path = "a"};
    SwLeaseText found;
    SwPredecessor predecessor;
    SwContentLease *lease;
    char text[1024] = "";

    assert_int_equal(take(leases, NULL, G_USEC_PER_SEC, &lease, &predecessor), 0);
    assert_int_equal(predecessor, SW_PREDECESSOR_CLEAN);
    assert_true(readlink(at(f, LINK), text, sizeof text - 1) > 0);
    assert_int_equal(sw_lease_text_parse(text, &found), 0);
    assert_string_equal(found.host_id, sw_control_host_id(control));
    assert_false(found.appending);
    assert_int_equal(sw_content_lease_intend(lease, &intent), 0);
    memset(text, 0, sizeof text);
    assert_true(readlink(at(f, LINK), text, sizeof text - 1) > 0);
    assert_int_equal(sw_lease_text_parse(text, &found), 0);
    assert_int_equal(found.append_offset, 3);
    assert_string_equal(found.path, "a");
    assert_int_equal(sw_content_lease_release(lease), 0);
    assert_false(exists(at(f, LINK)));
    sw_content_leases_free(leases);
    sw_control_close(control);
    assert_int_equal(count_names(at(f, ".safewritefs/hosts"), ""), 0);
}

static gboolean always(gpointer data)
{
    (void)data;
    return TRUE;
}

static void waits_end(void **state)
{
    Fixture *f = *state;
    SwControl *one = open_control(f), *two = open_control(f);
    SwContentLeases *here = sw_content_leases_new(f->port, one, f->source);
    SwContentLeases *there = sw_content_leases_new(f->port, two, f->source);
    SwContentLease *held, *lease;
    SwPredecessor predecessor;
    gint64 start_us;

    assert_int_equal(take(here, NULL, 0, &held, &predecessor), 0);
    start_us = g_get_monotonic_time();
    assert_int_equal(take(here, NULL, 150000, &lease, &predecessor), -ETIMEDOUT);
    assert_int_equal(take(there, NULL, 150000, &lease, &predecessor), -ETIMEDOUT);
    assert_in_range(g_get_monotonic_time() - start_us, 290000, 1000000);
    assert_int_equal(take(here, NULL, 0, &lease, &predecessor), -ETIMEDOUT);
    assert_int_equal(take(there, NULL, 0, &lease, &predecessor), -ETIMEDOUT);
    assert_int_equal(sw_content_lease_take(here, KEY, NULL, G_MAXINT64, always, NULL, &lease, &predecessor), -EINTR);
    assert_int_equal(sw_content_lease_take(there, KEY, NULL, G_MAXINT64, always, NULL, &lease, &predecessor), -EINTR);
    assert_int_equal(sw_content_lease_release(held), 0);
    assert_int_equal(take(there, NULL, 0, &lease, &predecessor), 0);
    assert_int_equal(predecessor, SW_PREDECESSOR_CLEAN);
    assert_int_equal(sw_content_lease_release(lease), 0);
    sw_content_leases_free(here);
    sw_content_leases_free(there);
    sw_control_close(one);
    sw_control_close(two);
}

/* ---- mutual exclusion */

typedef struct {
    Fixture *f;
    SwContentLeases *leases;
    guint failed;
} Worker;

/* Increments a counter in a file by read, a little rest, write: any two holders at once lose one. */
static gboolean increment(Fixture *f)
{
    int fd = open(at(f, "counter"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    guint value = 0;
    gboolean good = fd >= 0 && pread(fd, &value, sizeof value, 0) >= 0;

    usleep(20);
    value++;
    good = good && pwrite(fd, &value, sizeof value, 0) == sizeof value;
    (void)close(fd);
    return good;
}

static gpointer work(gpointer data)
{
    Worker *worker = data;
    SwLeaseText intent = {.appending = TRUE, .append_length = 1, .path = "none"};

    for (guint i = 0; i < ROUNDS; i++) {
        SwContentLease *lease;
        SwPredecessor predecessor;

        if (take(worker->leases, i % 2 ? &intent : NULL, 60 * G_USEC_PER_SEC, &lease, &predecessor) < 0) {
            worker->failed++;
            continue;
        }
        worker->failed += predecessor != SW_PREDECESSOR_CLEAN;
        if (i % 5 == 0)
            worker->failed += sw_content_lease_intend(lease, &intent) < 0;
        worker->failed += !increment(worker->f);
        worker->failed += sw_content_lease_release(lease) < 0;
    }
    return NULL;
}

static int work_in_process(Fixture *f)
{
    SwControl *control = open_control(f);
    SwContentLeases *leases = sw_content_leases_new(f->port, control, f->source);
    Worker workers[2];
    GThread *threads[2];
    guint failed = 0;

    for (guint i = 0; i < 2; i++) {
        workers[i] = (Worker){.f = f, .leases = leases};
        threads[i] = g_thread_new("worker", work, &workers[i]);
    }
    for (guint i = 0; i < 2; i++) {
        (void)g_thread_join(threads[i]);
        failed += workers[i].failed;
    }
    sw_content_leases_free(leases);
    sw_control_close(control);
    return failed > 0;
}

static void excludes_threads_and_mounts(void **state)
{
    Fixture *f = *state;
    guint value = 0;
    pid_t pids[2];
    int fd;

    for (guint i = 0; i < 2; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            _exit(work_in_process(f));
    }
    for (guint i = 0; i < 2; i++) {
        int status;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    fd = open(at(f, "counter"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, &value, sizeof value), sizeof value);
    (void)close(fd);
    assert_int_equal(value, 2 * 2 * ROUNDS);
    assert_int_equal(count_names(at(f, LEASES), ""), 0);
}

/* ---- breaking */

static void hold_and_tear(Fixture *f, SwControl *control)
{
    SwContentLeases *leases = sw_content_leases_new(f->port, control, f->source);
    SwLeaseText intent = {.appending = TRUE, .append_offset = 4, .append_length = 6, .path = "dir/log"};
    SwContentLease *lease;
    SwPredecessor predecessor;
    struct stat st;

    if (mkdir(at(f, "dir"), 0755) < 0)
        _exit(1);
    write_text(at(f, "dir/log"), "one\ntor");
    if (stat(at(f, "dir/log"), &st) < 0)
        _exit(1);
    intent.file_ino = st.st_ino;
    stage(control, 2, "1", "bytes");
    if (take(leases, &intent, 0, &lease, &predecessor) < 0)
        _exit(1);
}

static void breaks_the_dead_of_this_machine(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    SwContentLeases *leases = sw_content_leases_new(f->port, control, f->source);
    SwContentLease *lease;
    SwPredecessor predecessor;
    gint64 start_us;

    die_after(f, hold_and_tear);
    start_us = g_get_monotonic_time();
    assert_int_equal(take(leases, NULL, 5 * G_USEC_PER_SEC, &lease, &predecessor), 0);
    assert_true(g_get_monotonic_time() - start_us < G_USEC_PER_SEC);
    assert_int_equal(predecessor, SW_PREDECESSOR_BROKEN);
    expect_text(at(f, "dir/log"), "one\n");
    assert_int_equal(count_names(at(f, ".safewritefs/hosts"), ""), 1);
    assert_int_equal(count_names(at(f, ".safewritefs/salvage"), ".data"), 1);
    assert_int_equal(sw_content_lease_release(lease), 0);
    sw_content_leases_free(leases);
    sw_control_close(control);
}

/* A mount that increments a few times, and dies with the lease in hand. */
static void increment_and_die(Fixture *f)
{
    SwContentLeases *leases = sw_content_leases_new(f->port, open_control(f), f->source);
    SwContentLease *lease;
    SwPredecessor predecessor;

    for (guint i = 0; i < 5; i++) {
        if (i > 0 && sw_content_lease_release(lease) < 0)
            _exit(2);
        if (take(leases, NULL, 20 * G_USEC_PER_SEC, &lease, &predecessor) < 0 || !increment(f))
            _exit(3);
    }
    _exit(0);
}

/* Several break the same holder at the same time, again and again: one of them wins. */
static void excludes_in_spite_of_deaths(void **state)
{
    Fixture *f = *state;
    guint started = 0, value = 0;
    int fd, status;

    for (guint ended = 0; ended < 24; ended++) {
        for (; started < 24 && started < ended + 4; started++)
            if (fork() == 0)
                increment_and_die(f);
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    fd = open(at(f, "counter"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, &value, sizeof value), sizeof value);
    (void)close(fd);
    assert_int_equal(value, 24 * 5);
    sw_control_close(open_control(f));
    assert_int_equal(count_names(at(f, LEASES), ""), 0);
    assert_int_equal(count_names(at(f, ".safewritefs/hosts"), ""), 0);
}

static void put_link(Fixture *f, const SwLeaseText *text)
{
    g_autofree char *target = sw_lease_text_format(text);

    assert_int_equal(symlink(target, at(f, LINK)), 0);
}

/* Takes what stands at LINK, which must be broken, and leaves nothing. */
static void expect_broken(Fixture *f)
{
    SwControl *control = open_control(f);
    SwContentLeases *leases = sw_content_leases_new(f->port, control, f->source);
    SwContentLease *lease;
    SwPredecessor predecessor;

    assert_int_equal(take(leases, NULL, G_USEC_PER_SEC, &lease, &predecessor), 0);
    assert_int_equal(predecessor, SW_PREDECESSOR_BROKEN);
    assert_int_equal(sw_content_lease_release(lease), 0);
    assert_int_equal(count_names(at(f, LEASES), ""), 0);
    sw_content_leases_free(leases);
    sw_control_close(control);
}

static void breaks_those_whose_host_is_gone(void **state)
{
    Fixture *f = *state;
    SwLeaseText text = {.appending = TRUE, .append_offset = 4, .append_length = 6, .path = "log"};
    struct stat st;

    sw_host_id_format(text.host_id, "gone", 1);
    sw_control_close(open_control(f));
    write_text(at(f, "log"), "one\ntor");
    assert_int_equal(stat(at(f, "log"), &st), 0);
    text.file_ino = st.st_ino;
    put_link(f, &text);
    expect_broken(f);
    expect_text(at(f, "log"), "one\n");
}

/* Only the very file, of a size between, beneath the source, and free of links. */
static void undoes_only_what_is_torn(void **state)
{
    Fixture *f = *state;
    SwLeaseText text = {.appending = TRUE, .append_offset = 4, .append_length = 3, .path = "log"};
    struct stat st;

    sw_host_id_format(text.host_id, "gone", 1);
    sw_control_close(open_control(f));
    write_text(at(f, "log"), "one\ntwo");
    assert_int_equal(stat(at(f, "log"), &st), 0);
    text.file_ino = st.st_ino;
    put_link(f, &text); /* whole */
    expect_broken(f);
    text.append_length = 9;
    text.file_ino = st.st_ino + 1;
    put_link(f, &text); /* another file */
    expect_broken(f);
    text.file_ino = st.st_ino;
    assert_int_equal(symlink("log", at(f, "link")), 0);
    strcpy(text.path, "link");
    put_link(f, &text); /* reached by a link */
    expect_broken(f);
    text.append_offset = 7;
    strcpy(text.path, "log");
    put_link(f, &text); /* nothing was written yet */
    expect_broken(f);
    expect_text(at(f, "log"), "one\ntwo");
}

static void breaks_what_it_left_behind_itself(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    SwContentLeases *leases = sw_content_leases_new(f->port, control, f->source);
    SwLeaseText text = {.sequence = 999999};
    SwContentLease *lease;
    SwPredecessor predecessor;

    strcpy(text.host_id, sw_control_host_id(control));
    put_link(f, &text);
    assert_int_equal(take(leases, NULL, G_USEC_PER_SEC, &lease, &predecessor), 0);
    assert_int_equal(sw_content_lease_release(lease), 0);
    sw_content_leases_free(leases);
    sw_control_close(control);
}

static void breaks_junk_and_dead_breakers(void **state)
{
    Fixture *f = *state;

    sw_control_close(open_control(f));
    assert_int_equal(symlink("nonsense", at(f, LINK)), 0);
    assert_int_equal(mkdir(at(f, LINK ".break"), 0755), 0);
    assert_int_equal(symlink("x", at(f, LINK ".break/gone.0123456789abcdef")), 0);
    expect_broken(f);
    assert_int_equal(symlink("nonsense", at(f, LINK)), 0);
    assert_int_equal(symlink("no mark at all", at(f, LINK ".break")), 0);
    expect_broken(f);
    write_text(at(f, LINK), "a file");
    expect_broken(f);
    assert_int_equal(mkfifo(at(f, LINK), 0666), 0);
    expect_broken(f);
    assert_int_equal(mkdir(at(f, LINK), 0755), 0);
    expect_broken(f);
}

static void respects_the_living(void **state)
{
    Fixture *f = *state;
    SwLeaseText text = {.sequence = 1};
    SwControl *living = open_control(f), *control = open_control(f);
    SwContentLeases *leases = sw_content_leases_new(f->port, control, f->source);
    SwContentLease *lease;
    SwPredecessor predecessor;

    strcpy(text.host_id, sw_control_host_id(living));
    put_link(f, &text);
    assert_int_equal(take(leases, NULL, 400000, &lease, &predecessor), -ETIMEDOUT);
    assert_true(exists(at(f, LINK)));
    sw_content_leases_free(leases);
    sw_control_close(control);
    sw_control_close(living);
}

/* ---- fencing (C21) */

static void a_fenced_host_releases_nothing(void **state)
{
    Fixture *f = *state;
    SwControl *fenced = open_control(f), *other = open_control(f);
    SwContentLeases *here = sw_content_leases_new(f->port, fenced, f->source);
    SwContentLeases *there = sw_content_leases_new(f->port, other, f->source);
    SwContentLease *old, *successor, *none;
    SwPredecessor predecessor;
    g_autofree char *remove = g_strdup_printf("rm -r %s", at(f, ".safewritefs/hosts/%s", sw_control_host_id(fenced)));

    assert_int_equal(take(here, NULL, 0, &old, &predecessor), 0);
    assert_int_equal(system(remove), 0);
    assert_int_equal(take(there, NULL, G_USEC_PER_SEC, &successor, &predecessor), 0);
    assert_int_equal(predecessor, SW_PREDECESSOR_BROKEN);
    assert_int_equal(sw_content_lease_intend(old, NULL), -ESTALE);
    assert_int_equal(sw_content_lease_release(old), -ESTALE);
    assert_true(exists(at(f, LINK)));
    assert_int_equal(take(here, NULL, G_USEC_PER_SEC, &none, &predecessor), -ESTALE);
    assert_int_equal(sw_content_lease_release(successor), 0);
    sw_content_leases_free(here);
    sw_content_leases_free(there);
    sw_control_close(fenced);
    sw_control_close(other);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(is_a_link_while_held),           TEST(waits_end),
        TEST(excludes_threads_and_mounts),    TEST(breaks_the_dead_of_this_machine),
        TEST(excludes_in_spite_of_deaths),    TEST(breaks_those_whose_host_is_gone),
        TEST(undoes_only_what_is_torn),       TEST(breaks_what_it_left_behind_itself),
        TEST(breaks_junk_and_dead_breakers),  TEST(respects_the_living),
        TEST(a_fenced_host_releases_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
