/* SPDX-License-Identifier: GPL-2.0-or-later */

/* The control directory: made, shared, refused when forged (C26), and cleaned of dead predecessors (C19). */

#include "lease_fixture.h"

#define HOSTS ".safewritefs/hosts"

/* Opening must fail, with a reason that says `expected`. */
static void expect_refusal(Fixture *f, int error, const char *expected)
{
    g_autofree char *why = NULL;
    SwControl *control = NULL;

    assert_int_equal(sw_control_open(f->port, f->source, f->path, &f->config, &control, &why), -error);
    assert_null(control);
    assert_non_null(why);
    if (!strstr(why, expected))
        fail_msg("\"%s\" does not say \"%s\"", why, expected);
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

static void makes_all_of_it(void **state)
{
    Fixture *f = *state;
    mode_t mask = umask(077);
    SwControl *control = open_control(f);
    gboolean root = geteuid() == 0;

    umask(mask);
    expect_text(at(f, ".safewritefs/format"), "safewritefs 1\n");
    assert_int_equal(mode_of(at(f, ".safewritefs")), root ? 0755 : 0700);
    assert_int_equal(mode_of(at(f, ".safewritefs/leases")), root ? 0755 : 0700);
    assert_int_equal(mode_of(at(f, ".safewritefs/salvage")), root ? 01777 : 0700);
    assert_int_equal(mode_of(at(f, HOSTS "/%s", sw_control_host_id(control))), root ? 0755 : 0700);
    assert_int_equal(mode_of(at(f, HOSTS "/%s/stage/7", sw_control_host_id(control))), root ? 01777 : 0700);
    assert_true(exists(at(f, HOSTS "/%s/record", sw_control_host_id(control))));
    assert_int_equal(count_names(at(f, ".safewritefs"), ""), 6);
    sw_control_close(control);
    assert_int_equal(count_names(at(f, HOSTS), ""), 0);
    sw_control_close(NULL);
}

static void two_mounts_live_side_by_side(void **state)
{
    Fixture *f = *state;
    SwControl *one = open_control(f), *two = open_control(f);

    assert_string_not_equal(sw_control_host_id(one), sw_control_host_id(two));
    assert_int_equal(sw_control_host_exists(one, sw_control_host_id(two)), 1);
    assert_int_equal(sw_control_host_exists(two, sw_control_host_id(one)), 1);
    sw_control_close(one);
    assert_int_equal(sw_control_host_exists(two, "nobody.0123456789abcdef"), 0);
    assert_int_equal(sw_control_host_exists(two, "../leases"), 0);
    sw_control_close(two);
}

static void many_start_at_once(void **state)
{
    Fixture *f = *state;
    pid_t pids[6];

    for (guint i = 0; i < G_N_ELEMENTS(pids); i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            g_autofree char *why = NULL;
            SwControl *control;
            int r = sw_control_open(f->port, f->source, f->path, &f->config, &control, &why);

            if (r < 0)
                print_error("%s\n", why);
            usleep(50000);
            if (r == 0)
                sw_control_close(control);
            _exit(r != 0);
        }
    }
    for (guint i = 0; i < G_N_ELEMENTS(pids); i++) {
        int status;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(count_names(at(f, HOSTS), ""), 0);
    assert_int_equal(count_names(at(f, ".safewritefs"), ""), 6);
}

static void refuses_what_is_no_directory(void **state)
{
    Fixture *f = *state;
    const char *path = at(f, ".safewritefs");

    assert_int_equal(symlink("/tmp", path), 0);
    expect_refusal(f, ENOTDIR, "symbolic link");
    assert_int_equal(unlink(path), 0);
    write_text(path, "");
    expect_refusal(f, ENOTDIR, "is a file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0666), 0);
    expect_refusal(f, ENOTDIR, "FIFO");
    assert_int_equal(unlink(path), 0);
    sw_control_close(open_control(f));
    assert_int_equal(rename(at(f, ".safewritefs/leases"), at(f, "elsewhere")), 0);
    assert_int_equal(symlink("/tmp", at(f, ".safewritefs/leases")), 0);
    expect_refusal(f, ENOTDIR, ".safewritefs/leases is a symbolic link");
}

static void refuses_a_source_that_is_no_directory(void **state)
{
    Fixture *f = *state;

    write_text(at(f, "file"), "");
    (void)close(f->source);
    f->source = open(at(f, "file"), O_RDONLY | O_CLOEXEC);
    expect_refusal(f, ENOTDIR, "not a directory");
}

static void refuses_foreign_owners(void **state)
{
    Fixture *f = *state;
    const char *const parts[] = {"", "/hosts", "/leases", "/salvage", "/format"};

    if (geteuid() != 0)
        skip();
    sw_control_close(open_control(f));
    for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
        const char *path = at(f, ".safewritefs%s", parts[i]);
        g_autofree char *expected = g_strdup_printf("%s belongs to uid 1000, expected 0", path);

        assert_int_equal(chown(path, 1000, 1000), 0);
        expect_refusal(f, EPERM, expected);
        assert_int_equal(chown(path, 0, 0), 0);
    }
    sw_control_close(open_control(f));
    assert_int_equal(count_names(at(f, HOSTS), ""), 0);
}

static void refuses_what_others_may_write(void **state)
{
    Fixture *f = *state;
    const char *const parts[] = {"", "/hosts", "/leases", "/salvage"};

    sw_control_close(open_control(f));
    for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
        const char *path = at(f, ".safewritefs%s", parts[i]);
        mode_t mode = mode_of(path);

        assert_int_equal(chmod(path, 0777), 0);
        expect_refusal(f, EPERM, "written by others");
        assert_int_equal(chmod(path, mode), 0);
    }
    sw_control_close(open_control(f));
}

static void refuses_other_formats(void **state)
{
    Fixture *f = *state;
    const char *path = at(f, ".safewritefs/format");

    sw_control_close(open_control(f));
    write_text(path, "safewritefs 2\n");
    expect_refusal(f, EPROTONOSUPPORT, "says \"safewritefs 2\", and this program knows format 1 only");
    write_text(path, "");
    expect_refusal(f, EPROTONOSUPPORT, "not the format");
    write_text(path, "safewritefs 1 and then a great deal of text that goes on and on and on and on, and on");
    expect_refusal(f, EPROTONOSUPPORT, "not the format file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0666), 0);
    expect_refusal(f, EPROTONOSUPPORT, "not the format file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/etc/hostname", path), 0);
    expect_refusal(f, EPROTONOSUPPORT, "not the format file");
    assert_int_equal(unlink(path), 0);
    sw_control_close(open_control(f));
    expect_text(path, "safewritefs 1\n");
}

static void mount_elsewhere(Fixture *f, const char *path)
{
    (void)close(f->source);
    f->source = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->source >= 0);
}

static void refuses_one_above(void **state)
{
    Fixture *f = *state;
    char top[sizeof f->path];

    sw_control_close(open_control(f));
    assert_int_equal(mkdir(at(f, "a"), 0755), 0);
    assert_int_equal(mkdir(at(f, "a/b"), 0755), 0);
    mount_elsewhere(f, at(f, "a/b"));
    strcpy(top, f->path);
    strcat(f->path, "/a/b");
    expect_refusal(f, EBUSY, "above the source");
    strcpy(f->path, top);
    assert_false(exists(at(f, "a/b/.safewritefs")));
}

static void refuses_one_below(void **state)
{
    Fixture *f = *state;
    int top = dup(f->source);

    for (int i = 0; i < 50; i++) { /* what is no directory must not use up the search */
        write_text(at(f, "file%d", i), "");
        assert_int_equal(mkfifo(at(f, "fifo%d", i), 0666), 0);
    }
    assert_int_equal(mkdir(at(f, "a"), 0755), 0);
    assert_int_equal(mkdir(at(f, "a/b"), 0755), 0);
    mount_elsewhere(f, at(f, "a/b"));
    sw_control_close(open_control(f));
    (void)close(f->source);
    f->source = top;
    expect_refusal(f, EBUSY, "/a/b/.safewritefs");
    assert_false(exists(at(f, ".safewritefs")));
}

static void spoil_hosts(Fixture *f)
{
    static const char id[] = "x.0123456789abcde";

    assert_int_equal(symlink("/", at(f, HOSTS "/%s0", id)), 0);
    assert_int_equal(mkfifo(at(f, HOSTS "/%s1", id), 0666), 0);
    write_text(at(f, HOSTS "/%s2", id), "");
    for (char c = '3'; c <= '9'; c++)
        assert_int_equal(mkdir(at(f, HOSTS "/%s%c", id, c), 0755), 0);
    assert_int_equal(symlink("/etc/passwd", at(f, HOSTS "/%s3/record", id)), 0);
    assert_int_equal(mkfifo(at(f, HOSTS "/%s4/record", id), 0666), 0);
    write_text(at(f, HOSTS "/%s5/record", id), "safewritefs-host 1\nid=");
    write_text(at(f, HOSTS "/%s6/record", id), "");
    assert_int_equal(truncate(at(f, HOSTS "/%s6/record", id), 1 << 30), 0);
    assert_int_equal(mkdir(at(f, HOSTS "/%s7/record", id), 0755), 0);
    assert_int_equal(chmod(at(f, HOSTS "/%s8", id), 0777), 0);
    assert_int_equal(mkdir(at(f, HOSTS "/no host at all"), 0755), 0);
    for (int i = 0; i < 3000; i++)
        assert_int_equal(mkdir(at(f, HOSTS "/junk%d", i), 0755), 0);
}

static void spoil_leases(Fixture *f)
{
    assert_int_equal(symlink("../../../etc", at(f, ".safewritefs/leases/0000000000000001")), 0);
    assert_int_equal(symlink("x.0123456789abcdef 1 append 0 5 7 ../../x", at(f, ".safewritefs/leases/2")), 0);
    assert_int_equal(mkfifo(at(f, ".safewritefs/leases/3"), 0666), 0);
    assert_int_equal(mkdir(at(f, ".safewritefs/leases/4"), 0755), 0);
    write_text(at(f, ".safewritefs/leases/5"), "text");
}

static void passes_over_junk(void **state)
{
    Fixture *f = *state;
    gint64 start_us = g_get_monotonic_time();

    sw_control_close(open_control(f));
    spoil_hosts(f);
    spoil_leases(f);
    sw_control_close(open_control(f));
    assert_true(g_get_monotonic_time() - start_us < 5 * G_USEC_PER_SEC);
    assert_true(exists(at(f, HOSTS "/x.0123456789abcde5/record")));
    assert_true(exists(at(f, HOSTS "/x.0123456789abcde9"))); /* too young to be a stillborn one */
}

/* ---- predecessors */

static void leave_much(Fixture *f, SwControl *control)
{
    SwContentLeases *leases = sw_content_leases_new(f->port, control, f->source);
    SwLeaseText intent = {.appending = TRUE, .append_offset = 4, .append_length = 6, .path = "log"};
    SwContentLease *lease;
    SwPredecessor predecessor;
    struct stat st;

    stage(control, 0, "1", "bytes");
    stage(control, 3, "2", "");
    assert_int_equal(symlinkat("x", sw_control_stage_dir(control, 1), "link"), 0);
    assert_int_equal(mkdirat(sw_control_stage_dir(control, 1), "dir", 0755), 0);
    assert_int_equal(mkdirat(sw_control_stage_dir(control, 1), "dir/full", 0755), 0);
    write_text(at(f, "log"), "one\ntor");
    assert_int_equal(stat(at(f, "log"), &st), 0);
    intent.file_ino = st.st_ino;
    if (sw_content_lease_take(leases, st.st_ino, &intent, G_MAXINT64, NULL, NULL, &lease, &predecessor) < 0)
        _exit(1);
}

static void buries_the_dead(void **state)
{
    Fixture *f = *state;
    g_autofree char *entry = NULL, *text = NULL;
    SwSalvageInfo info;
    SwControl *control, *living = open_control(f);
    gsize length;

    die_after(f, leave_much);
    assert_int_equal(count_names(at(f, HOSTS), ""), 2);
    control = open_control(f);
    assert_int_equal(count_names(at(f, HOSTS), ""), 2); /* us and the living */
    assert_int_equal(sw_control_host_exists(control, sw_control_host_id(living)), 1);
    assert_int_equal(count_names(at(f, ".safewritefs/leases"), ""), 0);
    expect_text(at(f, "log"), "one\n");
    entry = only_name(at(f, ".safewritefs/salvage"), ".data");
    expect_text(at(f, ".safewritefs/salvage/%s.data", entry), "bytes");
    assert_true(g_file_get_contents(at(f, ".safewritefs/salvage/%s.info", entry), &text, &length, NULL));
    assert_int_equal(sw_salvage_info_parse(text, length, &info), 0);
    assert_string_equal(info.reason, "crashed");
    assert_int_equal(info.size, 5);
    sw_salvage_info_clear(&info);
    sw_control_close(control);
    sw_control_close(living);
}

static char long_path[3000];

static void leave_described(Fixture *f, SwControl *control)
{
    SwSalvageInfo info = {.path = "a/b c\n", .reason = "crashed", .command = "writer", .pid = 7, .synced = TRUE};
    const SwEpoch *epoch = sw_control_epoch(control);
    const SwCred cred = {.uid = geteuid(), .gid = getegid()};

    memset(long_path, 'p', sizeof long_path - 1);
    stage(control, 0, "1", "short");
    stage(control, 0, "2", "long");
    info.host_id = (char *)sw_epoch_host_id(epoch);
    if (sw_control_describe(control, epoch, 0, "1", &info, &cred) < 0)
        _exit(1);
    info.path = long_path;
    if (sw_control_describe(control, epoch, 0, "2", &info, &cred) < 0)
        _exit(1);
}

/* C7: fsynced bytes of a host that died come with the name that they were for, however long. */
static void keeps_what_was_described(void **state)
{
    Fixture *f = *state;
    g_autoptr(GDir) dir = NULL;
    SwControl *control;
    const char *name;
    guint found = 0;

    die_after(f, leave_described);
    control = open_control(f);
    dir = g_dir_open(at(f, ".safewritefs/salvage"), 0, NULL);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *text = NULL;
        SwSalvageInfo info;
        gsize length;

        if (!g_str_has_suffix(name, ".info"))
            continue;
        found++;
        assert_true(g_file_get_contents(at(f, ".safewritefs/salvage/%s", name), &text, &length, NULL));
        assert_int_equal(sw_salvage_info_parse(text, length, &info), 0);
        assert_string_equal(info.path, info.size == 5 ? "a/b c\n" : long_path);
        assert_string_equal(info.command, "writer");
        assert_true(info.synced);
        sw_salvage_info_clear(&info);
    }
    assert_int_equal(found, 2);
    sw_control_close(control);
}

/* A record like that of a dead mount, but of another boot: only the watcher of its heartbeat may judge that. */
static void leaves_other_boots_alone(void **state)
{
    Fixture *f = *state;
    SwHostRecord record = {.boot_id = "11111111-2222-3333-4444-555555555555", .pid = 1, .lease_us = 1000000};
    g_autofree char *text = NULL;

    sw_control_close(open_control(f));
    sw_host_id_format(record.id, "other", 42);
    text = sw_host_record_format(&record);
    assert_int_equal(mkdir(at(f, HOSTS "/%s", record.id), 0755), 0);
    write_text(at(f, HOSTS "/%s/record", record.id), text);
    sw_control_close(open_control(f));
    assert_true(exists(at(f, HOSTS "/%s/record", record.id)));
}

/* ---- claims */

static void leave_claim(Fixture *f, SwControl *control)
{
    g_autofree char *target = sw_claim_format(sw_control_host_id(control), "0/1");

    if (symlink(target, at(f, "claimed")) < 0)
        _exit(1);
}

static int drop_claim(Fixture *f, SwControl *control, const char *name, gboolean mine)
{
    SwCred cred = {.uid = geteuid(), .gid = getegid()};

    return sw_control_drop_claim(control, f->source, name, mine, &cred);
}

static void claims_bind_while_their_host_lives(void **state)
{
    Fixture *f = *state;
    SwControl *one = open_control(f), *two = open_control(f);

    leave_claim(f, one);
    assert_int_equal(drop_claim(f, two, "claimed", FALSE), -EEXIST);
    assert_int_equal(drop_claim(f, two, "claimed", TRUE), -EEXIST);
    assert_int_equal(drop_claim(f, one, "claimed", TRUE), 0);
    assert_int_equal(drop_claim(f, one, "claimed", TRUE), -ENOENT);
    leave_claim(f, one);
    sw_control_close(one);
    assert_int_equal(drop_claim(f, two, "claimed", FALSE), 0);
    assert_false(exists(at(f, "claimed")));
    die_after(f, leave_claim); /* not buried yet */
    assert_int_equal(drop_claim(f, two, "claimed", FALSE), 0);
    write_text(at(f, "file"), "data");
    assert_int_equal(symlink("file", at(f, "link")), 0);
    assert_int_equal(drop_claim(f, two, "file", TRUE), -EEXIST);
    assert_int_equal(drop_claim(f, two, "link", TRUE), -EEXIST);
    sw_control_close(two);
}

/* In a sticky directory another user's dead claim must not stand for ever. */
static void drops_claims_of_others_in_sticky_directories(void **state)
{
    Fixture *f = *state;
    SwCred other = {.uid = 1001, .gid = 1001};
    SwControl *one = open_control(f), *two = open_control(f);

    if (geteuid() != 0) {
        sw_control_close(one);
        sw_control_close(two);
        skip();
    }
    assert_int_equal(chmod(f->path, 01777), 0);
    leave_claim(f, one);
    assert_int_equal(lchown(at(f, "claimed"), 1000, 1000), 0);
    sw_control_close(one);
    assert_int_equal(sw_control_drop_claim(two, f->source, "claimed", FALSE, &other), 0);
    assert_false(exists(at(f, "claimed")));
    sw_control_close(two);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(makes_all_of_it),
        TEST(two_mounts_live_side_by_side),
        TEST(many_start_at_once),
        TEST(refuses_what_is_no_directory),
        TEST(refuses_a_source_that_is_no_directory),
        TEST(refuses_foreign_owners),
        TEST(refuses_what_others_may_write),
        TEST(refuses_other_formats),
        TEST(refuses_one_above),
        TEST(refuses_one_below),
        TEST(passes_over_junk),
        TEST(buries_the_dead),
        TEST(keeps_what_was_described),
        TEST(leaves_other_boots_alone),
        TEST(claims_bind_while_their_host_lives),
        TEST(drops_claims_of_others_in_sticky_directories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
