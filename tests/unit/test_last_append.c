/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * After an append lease was broken, the name has a copy (C11, P14): a descriptor of the file as it was plays the kernel
 * of the dead host, whose write arrives late.
 */

#include "lease_fixture.h"

#include "../../src/core/acl.h"

#include <sys/xattr.h>

#define HOST "gone.0123456789abcdef"
#define LATE "two, late\n"

typedef struct {
    Fixture *f;
    SwControl *control;
    SwContentLeases *leases;
    SwLeaseText intent; /* of the dead holder, for LATE behind "one\n" */
    int late;           /* its descriptor */
    struct stat before;
    GString *warnings;
} Run;

static void hear(gpointer data, SwNoteLevel level, const SwEvent *event, const char *text)
{
    g_string_append(data, text);
}

static void run_begin(Run *run, Fixture *f, const char *content)
{
    *run = (Run){.f = f, .control = open_control(f), .warnings = g_string_new(NULL)};
    run->intent = (SwLeaseText){.appending = TRUE, .append_offset = 4, .append_length = strlen(LATE)};
    run->leases = sw_content_leases_new(f->port, run->control, f->source);
    sw_control_on_note(run->control, hear, run->warnings);
    assert_int_equal(mkdir(at(f, "dir"), 0755), 0);
    write_text(at(f, "dir/log"), content);
    run->late = open(at(f, "dir/log"), O_RDWR | O_CLOEXEC);
    assert_int_equal(fstat(run->late, &run->before), 0);
    run->intent.file_ino = run->before.st_ino;
    strcpy(run->intent.host_id, HOST);
    strcpy(run->intent.path, "dir/log");
}

/* The next one takes the lease. */
static void run_break(Run *run)
{
    g_autofree char *target = sw_lease_text_format(&run->intent);
    g_autofree char *link = g_strdup_printf("%s/%016lx", at(run->f, ".safewritefs/leases"), (long)run->before.st_ino);
    gint64 deadline_us = run->f->port->now_us(run->f->port) + 5 * G_USEC_PER_SEC;
    SwContentLease *lease;
    SwPredecessor predecessor;

    assert_int_equal(symlink(target, link), 0);
    assert_int_equal(
        sw_content_lease_take(run->leases, run->before.st_ino, NULL, deadline_us, NULL, NULL, &lease, &predecessor), 0);
    assert_int_equal(predecessor, SW_PREDECESSOR_BROKEN);
    assert_int_equal(sw_content_lease_release(lease), 0);
}

static void arrive_late(Run *run)
{
    assert_int_equal(pwrite(run->late, LATE, strlen(LATE), 4), strlen(LATE));
}

static void run_end(Run *run)
{
    Fixture *f = run->f;

    (void)close(run->late);
    sw_content_leases_free(run->leases);
    sw_control_close(run->control);
    assert_int_equal(count_names(at(f, ".safewritefs/hosts"), ""), 0);
    assert_int_equal(count_names(at(f, ".safewritefs/leases"), ""), 0);
    assert_int_equal(count_names(at(f, ".safewritefs/salvage"), ""), 0);
    g_string_free(run->warnings, TRUE);
}

static gboolean is_replaced(Run *run)
{
    struct stat st;

    assert_int_equal(stat(at(run->f, "dir/log"), &st), 0);
    return st.st_ino != run->before.st_ino;
}

static void a_late_write_touches_nothing(void **state)
{
    static const char *const contents[] = {"one\n", "one\ntwo, l", "one\ntwo, late\n", ""};
    static const char *const expected[] = {"one\n", "one\n", "one\ntwo, late\n", ""};
    Fixture *f = *state;

    for (guint i = 0; i < G_N_ELEMENTS(contents); i++) {
        Run run;

        run_begin(&run, f, contents[i]);
        run_break(&run);
        expect_text(at(f, "dir/log"), expected[i]);
        assert_true(is_replaced(&run));
        arrive_late(&run);
        expect_text(at(f, "dir/log"), expected[i]);
        assert_string_equal(run.warnings->str, "");
        run_end(&run);
        assert_int_equal(unlink(at(f, "dir/log")), 0);
        assert_int_equal(rmdir(at(f, "dir")), 0);
    }
}

/* A truncation that comes late, and a hold that never came to its write. */
static void copies_what_could_be_written_to(void **state)
{
    Run run;

    run_begin(&run, *state, "one\ntwo\n");
    run.intent.append_offset = 8;
    run.intent.append_length = 0;
    run_break(&run);
    assert_true(is_replaced(&run));
    assert_int_equal(ftruncate(run.late, 1), 0);
    expect_text(at(run.f, "dir/log"), "one\ntwo\n");
    run_end(&run);
    assert_int_equal(unlink(at(run.f, "dir/log")), 0);
    assert_int_equal(rmdir(at(run.f, "dir")), 0);
    run_begin(&run, *state, "one\n");
    run.intent.appending = FALSE;
    run_break(&run);
    assert_false(is_replaced(&run));
    run_end(&run);
}

/* u::rw-, u:4711:r--, g::r--, m::r--, o::--- */
static const unsigned char acl[] = {2, 0,    0,    0,    1,    0,    6,  0, 0xff, 0xff, 0xff, 0xff, 2,    0,   4,
                                    0, 0x67, 0x12, 0,    0,    4,    0,  4, 0,    0xff, 0xff, 0xff, 0xff, 16,  0,
                                    4, 0,    0xff, 0xff, 0xff, 0xff, 32, 0, 0,    0,    0xff, 0xff, 0xff, 0xff};

static void the_copy_has_all_attributes(void **state)
{
    const struct timespec times[2] = {{.tv_sec = 1000000, .tv_nsec = 1000}, {.tv_sec = 2000000, .tv_nsec = 2000}};
    g_autofree char *log = NULL;
    char value[64] = "";
    struct stat st;
    Run run;

    run_begin(&run, *state, "one\ntorn");
    log = g_strdup(at(run.f, "dir/log"));
    if (geteuid() == 0)
        assert_int_equal(chown(log, 4712, 4713), 0);
    assert_int_equal(setxattr(log, "user.note", "kept", 4, 0), 0);
    assert_int_equal(setxattr(log, SW_ACL_ACCESS, acl, sizeof acl, 0), 0);
    run_break(&run);
    assert_true(is_replaced(&run));
    assert_int_equal(stat(log, &st), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0640);
    assert_int_equal(st.st_uid, geteuid() == 0 ? 4712 : geteuid());
    assert_int_equal(st.st_gid, geteuid() == 0 ? 4713 : run.before.st_gid);
    assert_int_equal(getxattr(log, "user.note", value, sizeof value), 4);
    assert_string_equal(value, "kept");
    assert_int_equal(getxattr(log, SW_ACL_ACCESS, value, sizeof value), sizeof acl);
    assert_memory_equal(value, acl, sizeof acl);
    run_end(&run);
    assert_int_equal(unlink(log), 0);
    assert_int_equal(rmdir(at(run.f, "dir")), 0);
    run_begin(&run, *state, "one\n");
    assert_int_equal(utimensat(AT_FDCWD, log, times, 0), 0);
    run_break(&run);
    assert_true(is_replaced(&run));
    assert_int_equal(stat(log, &st), 0);
    assert_memory_equal(&st.st_mtim, &times[1], sizeof st.st_mtim);
    run_end(&run);
}

/* C17: as by any commit; the other name keeps the old file, where the late write arrives. */
static void a_hard_link_is_broken(void **state)
{
    Run run;

    run_begin(&run, *state, "one\ntorn");
    assert_int_equal(link(at(run.f, "dir/log"), at(run.f, "other")), 0);
    run_break(&run);
    assert_true(is_replaced(&run));
    expect_text(at(run.f, "other"), "one\n");
    arrive_late(&run);
    expect_text(at(run.f, "other"), "one\n" LATE);
    expect_text(at(run.f, "dir/log"), "one\n");
    run_end(&run);
}

static void larger_files_stay_and_are_reported(void **state)
{
    Fixture *f = *state;
    Run run;

    f->config.edit_copy_max = 3;
    run_begin(&run, f, "one\ntorn");
    run_break(&run);
    if (is_replaced(&run)) /* shared blocks: a copy costs nothing */
        assert_string_equal(run.warnings->str, "");
    else
        assert_non_null(strstr(run.warnings->str, "dir/log"));
    expect_text(at(f, "dir/log"), "one\n");
    run_end(&run);
}

static void an_unknown_path_is_reported(void **state)
{
    Run run;

    run_begin(&run, *state, "one\n");
    *run.intent.path = '\0';
    run_break(&run);
    assert_false(is_replaced(&run));
    assert_non_null(strstr(run.warnings->str, "too long"));
    run_end(&run);
}

/* ---- what others do meanwhile, and what goes wrong */

static int (*real_renameat)(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname,
                            guint flags);
static int rename_error;          /* of the rename that puts the copy in place */
static gboolean exchanges;        /* NFS does not */
static void (*meanwhile)(void *); /* done once, right before it */
static void *meanwhile_data;

static int renameat_hook(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    if (strcmp(newname, "log") == 0 && g_str_has_prefix(oldname, "copy-")) {
        void (*act)(void *) = meanwhile;

        meanwhile = NULL;
        if (act)
            act(meanwhile_data);
        if (rename_error)
            return rename_error;
        if (flags && !exchanges)
            return -EINVAL;
    }
    return real_renameat(port, olddir, oldname, newdir, newname, flags);
}

static void hook(Fixture *f, int error, gboolean may_exchange, void (*act)(void *), void *data)
{
    real_renameat = f->port->renameat;
    f->port->renameat = renameat_hook;
    rename_error = error;
    exchanges = may_exchange;
    meanwhile = act;
    meanwhile_data = data;
}

static void without_exchange(void **state)
{
    Run run;

    run_begin(&run, *state, "one\ntorn");
    hook(*state, 0, FALSE, NULL, NULL);
    run_break(&run);
    assert_true(is_replaced(&run));
    arrive_late(&run);
    expect_text(at(run.f, "dir/log"), "one\n");
    run_end(&run);
}

static void rewrite(void *data)
{
    Fixture *f = data;

    write_text(at(f, "new"), "a version of its own\n");
    assert_int_equal(rename(at(f, "new"), at(f, "dir/log")), 0);
}

/* C9, C10: a rewriter that slips in between the look and the exchange is not lost. */
static void a_rewriter_wins(void **state)
{
    Run run;

    run_begin(&run, *state, "one\ntorn");
    hook(*state, 0, TRUE, rewrite, *state);
    run_break(&run);
    expect_text(at(run.f, "dir/log"), "a version of its own\n");
    run_end(&run);
}

/* C24: cut off as far as can be, said, and the lease is free. */
static void where_nothing_can_be_replaced(void **state)
{
    static const int errors[] = {-EACCES, -EPERM, -ENOSPC, -EDQUOT, -EROFS, -EXDEV, -EIO};
    Fixture *f = *state;

    for (guint i = 0; i < G_N_ELEMENTS(errors); i++) {
        Run run;

        run_begin(&run, f, "one\ntorn");
        hook(f, errors[i], TRUE, NULL, NULL);
        run_break(&run);
        f->port->renameat = real_renameat;
        assert_false(is_replaced(&run));
        expect_text(at(f, "dir/log"), "one\n");
        assert_non_null(strstr(run.warnings->str, "dir/log"));
        assert_non_null(strstr(run.warnings->str, g_strerror(-errors[i])));
        run_end(&run);
        assert_int_equal(unlink(at(f, "dir/log")), 0);
        assert_int_equal(rmdir(at(f, "dir")), 0);
    }
}

/* ---- breakers that die */

static void stage_half_a_copy(Fixture *f, SwControl *control)
{
    (void)f;
    stage(control, 0, "copy-1.part", "half");
}

static void half_a_copy_is_nobodys(void **state)
{
    Fixture *f = *state;

    die_after(f, stage_half_a_copy);
    sw_control_close(open_control(f));
    assert_int_equal(count_names(at(f, ".safewritefs/salvage"), ""), 0);
    assert_int_equal(count_names(at(f, ".safewritefs/hosts"), ""), 0);
}

/* What is said before there is anybody to hear it, at the mount. */
static void warnings_wait(void **state)
{
    Fixture *f = *state;
    Run run;

    run_begin(&run, f, "one\n");
    *run.intent.path = '\0';
    sw_control_on_note(run.control, NULL, NULL);
    run_break(&run);
    assert_string_equal(run.warnings->str, "");
    sw_control_on_note(run.control, hear, run.warnings);
    assert_non_null(strstr(run.warnings->str, "too long"));
    run_end(&run);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_late_write_touches_nothing),
        TEST(copies_what_could_be_written_to),
        TEST(the_copy_has_all_attributes),
        TEST(a_hard_link_is_broken),
        TEST(larger_files_stay_and_are_reported),
        TEST(an_unknown_path_is_reported),
        TEST(without_exchange),
        TEST(a_rewriter_wins),
        TEST(where_nothing_can_be_replaced),
        TEST(half_a_copy_is_nobodys),
        TEST(warnings_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
