/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Salvage: what is put there, in which bounds it stays, and what hostile entries can do (nothing). */

#include "lease_fixture.h"

#include "../../src/lease/salvage.h"

#define SALVAGE ".safewritefs/salvage"
#define FORGED "x.0123456789abcdef-1-00c0ffee"

static SwCred self(void)
{
    return (SwCred){.uid = geteuid(), .gid = getegid()};
}

static int put(SwControl *control, const char *name, const char *path)
{
    SwSalvageInfo info = {.path = (char *)path, .reason = (char *)"killed", .command = (char *)"job", .pid = 42};
    SwCred cred = self();

    return sw_control_salvage(control, sw_control_epoch(control), 0, name, &info, &cred);
}

static GPtrArray *scan(Fixture *f)
{
    GPtrArray *entries = NULL;
    int fd = open(at(f, SALVAGE), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_int_equal(sw_salvage_scan(f->port, fd, &entries), 0);
    (void)close(fd);
    return entries;
}

/* -ENOENT when the entry says nothing that can be believed. */
static int describe(Fixture *f, const char *name, SwSalvageInfo *ret_info)
{
    g_autoptr(GPtrArray) entries = scan(f);
    int fd = open(at(f, SALVAGE), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = -ESRCH;

    for (guint i = 0; i < entries->len; i++) {
        SwSalvageEntry *entry = entries->pdata[i];

        if (strcmp(entry->name, name) == 0)
            r = sw_salvage_describe(f->port, fd, entry, ret_info);
    }
    (void)close(fd);
    return r;
}

static void keeps_bytes_and_tells_what_they_are(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    g_autofree char *entry = NULL;
    SwSalvageInfo info;
    struct stat st;

    stage(control, 0, "1", "bytes");
    assert_int_equal(fchmodat(sw_control_stage_dir(control, 0), "1", 06751, 0), 0);
    assert_int_equal(put(control, "1", "dir/name"), 0);
    entry = only_name(at(f, SALVAGE), ".data");
    assert_true(sw_salvage_name_is_valid(entry));
    expect_text(at(f, SALVAGE "/%s.data", entry), "bytes");
    assert_int_equal(stat(at(f, SALVAGE "/%s.data", entry), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(at(f, SALVAGE "/%s.info", entry), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(describe(f, entry, &info), 0);
    assert_string_equal(info.path, "dir/name");
    assert_string_equal(info.reason, "killed");
    assert_string_equal(info.command, "job");
    assert_string_equal(info.host_id, sw_control_host_id(control));
    assert_int_equal(info.size, 5);
    assert_true(info.wall_us > 0);
    sw_salvage_info_clear(&info);
    assert_int_equal(count_names(at(f, SALVAGE), ""), 2);
    sw_control_close(control);
}

static void drops_what_is_empty_and_refuses_what_is_no_file(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);

    stage(control, 0, "1", "");
    assert_int_equal(put(control, "1", "name"), 0);
    assert_int_equal(put(control, "1", "name"), -ENOENT);
    assert_int_equal(symlinkat("/etc/passwd", sw_control_stage_dir(control, 0), "2"), 0);
    assert_int_equal(put(control, "2", "name"), -EINVAL);
    assert_int_equal(count_names(at(f, SALVAGE), ""), 0);
    sw_control_close(control);
    assert_int_equal(count_names(at(f, SALVAGE), ""), 0);
}

static void leaving_saves_what_is_staged(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    g_autofree char *entry = NULL;
    SwSalvageInfo info;

    stage(control, 5, "1", "bytes");
    sw_control_close(control);
    entry = only_name(at(f, SALVAGE), ".data");
    assert_int_equal(describe(f, entry, &info), 0);
    assert_string_equal(info.reason, "unmounted");
    sw_salvage_info_clear(&info);
}

/* Another user's bytes are described by files of that user, whoever the stage's writer was. */
static void acts_as_the_owner(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    g_autofree char *entry = NULL;
    SwSalvageInfo info;
    struct stat st;

    if (geteuid() == 0) {
        stage(control, 0, "1", "bytes");
        assert_int_equal(fchownat(sw_control_stage_dir(control, 0), "1", 1000, 1000, 0), 0);
        assert_int_equal(put(control, "1", "name"), 0);
        entry = only_name(at(f, SALVAGE), ".data");
        assert_int_equal(stat(at(f, SALVAGE "/%s.info", entry), &st), 0);
        assert_int_equal(st.st_uid, 1000);
        assert_int_equal(describe(f, entry, &info), 0);
        sw_salvage_info_clear(&info);
    }
    sw_control_close(control);
}

/* ---- bounds */

static void put_large(SwControl *control, guint number, uid_t owner)
{
    g_autofree char *bytes = g_strnfill(100 * 1024, 'x');
    char name[16];

    (void)snprintf(name, sizeof name, "%u", number);
    stage(control, 0, name, bytes);
    if (owner != geteuid())
        assert_int_equal(fchownat(sw_control_stage_dir(control, 0), name, owner, owner, 0), 0);
    (void)snprintf(name, sizeof name, "%u", number);
    assert_int_equal(put(control, name, name), 0);
}

static guint64 bytes_of(GPtrArray *entries, uid_t owner, guint *ret_count)
{
    guint64 bytes = 0;

    *ret_count = 0;
    for (guint i = 0; i < entries->len; i++) {
        SwSalvageEntry *entry = entries->pdata[i];

        if (entry->data.st_uid == owner) {
            bytes += entry->data.st_size;
            ++*ret_count;
        }
    }
    return bytes;
}

static void stays_within_its_size(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    g_autoptr(GPtrArray) entries = NULL;
    SwSalvageInfo info;
    guint count;

    for (guint i = 0; i < 40; i++)
        put_large(control, i, geteuid());
    entries = scan(f);
    assert_true(bytes_of(entries, geteuid(), &count) <= f->config.salvage_max);
    assert_in_range(count, 6, 10);
    assert_int_equal(describe(f, ((SwSalvageEntry *)entries->pdata[count - 1])->name, &info), 0);
    assert_string_equal(info.path, "39"); /* the oldest went */
    sw_salvage_info_clear(&info);
    sw_control_close(control);
}

static void nobody_pushes_out_what_others_have(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    g_autoptr(GPtrArray) entries = NULL;
    guint count;

    if (geteuid() == 0) {
        put_large(control, 1, 1000);
        put_large(control, 2, 1000);
        for (guint i = 10; i < 40; i++)
            put_large(control, i, 1001);
        entries = scan(f);
        (void)bytes_of(entries, 1000, &count);
        assert_int_equal(count, 2);
        assert_true(bytes_of(entries, 1001, &count) <= f->config.salvage_max);
    }
    sw_control_close(control);
}

static void one_too_large_stays_while_it_is_the_newest(void **state)
{
    Fixture *f = *state;
    SwControl *control;
    g_autoptr(GPtrArray) before = NULL, after = NULL;

    f->config.salvage_max = 150 * 1024;
    control = open_control(f);
    put_large(control, 1, geteuid());
    put_large(control, 2, geteuid());
    before = scan(f);
    assert_int_equal(before->len, 1);
    f->config.salvage_max = 10;
    sw_control_close(control);
    control = open_control(f);
    after = scan(f);
    assert_int_equal(after->len, 1);
    sw_control_close(control);
}

static void the_aged_go(void **state)
{
    Fixture *f = *state;
    SwControl *control;

    f->config.salvage_age_us = 300000;
    control = open_control(f);
    stage(control, 0, "1", "bytes");
    assert_int_equal(put(control, "1", "name"), 0);
    sw_control_trim_salvage(control);
    assert_int_equal(count_names(at(f, SALVAGE), ".data"), 1);
    usleep(400000);
    sw_control_trim_salvage(control);
    assert_int_equal(count_names(at(f, SALVAGE), ""), 0);
    sw_control_close(control);
}

typedef struct {
    SwControl *control;
    guint first;
} Putter;

static gpointer put_many(gpointer data)
{
    Putter *putter = data;
    guint failed = 0;

    for (guint i = 0; i < 100; i++) {
        char name[16];
        int fd;

        (void)snprintf(name, sizeof name, "%u", putter->first + i);
        fd = openat(sw_control_stage_dir(putter->control, 0), name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, "x", 1) != 1 || put(putter->control, name, name) < 0)
            failed++;
        (void)close(fd);
    }
    return GUINT_TO_POINTER(failed);
}

static void many_put_at_once(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    Putter putters[3];
    GThread *threads[3];

    for (guint i = 0; i < 3; i++) {
        putters[i] = (Putter){control, 1000 * i};
        threads[i] = g_thread_new("putter", put_many, &putters[i]);
    }
    for (guint i = 0; i < 3; i++)
        assert_int_equal(GPOINTER_TO_UINT(g_thread_join(threads[i])), 0);
    assert_int_equal(count_names(at(f, SALVAGE), ".data"), 300);
    assert_int_equal(count_names(at(f, SALVAGE), ".info"), 300);
    assert_int_equal(count_names(at(f, SALVAGE), ""), 600);
    sw_control_close(control);
}

/* ---- hostile entries */

static void names_are_judged(void **state)
{
    (void)state;
    assert_true(sw_salvage_name_is_valid(FORGED));
    assert_true(sw_salvage_name_is_valid("a-b-1.0123456789abcdef-12-00000000"));
    assert_false(sw_salvage_name_is_valid(""));
    assert_false(sw_salvage_name_is_valid("-"));
    assert_false(sw_salvage_name_is_valid("-1-00000000"));
    assert_false(sw_salvage_name_is_valid("x.0123456789abcdef-00000000"));
    assert_false(sw_salvage_name_is_valid("x.0123456789abcdef--00000000"));
    assert_false(sw_salvage_name_is_valid("x.0123456789abcdef-1-0000000"));
    assert_false(sw_salvage_name_is_valid("x.0123456789abcdef-1-000000000"));
    assert_false(sw_salvage_name_is_valid("../x.0123456789abcdef-1-00000000"));
    assert_false(sw_salvage_name_is_valid("x.0123456789abcdeg-1-00000000"));
}

static void describes_nothing_forged(void **state)
{
    Fixture *f = *state;
    g_autofree char *path = g_strdup(at(f, SALVAGE "/" FORGED ".info"));
    SwSalvageInfo info;

    sw_control_close(open_control(f));
    write_text(at(f, SALVAGE "/" FORGED ".data"), "bytes");
    assert_int_equal(describe(f, FORGED, &info), -ENOENT);
    assert_int_equal(mkfifo(path, 0666), 0);
    assert_int_equal(describe(f, FORGED, &info), -ENOENT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(describe(f, FORGED, &info), -ENOENT);
    assert_int_equal(unlink(path), 0);
    write_text(path, "safewritefs-salvage 1\npath=../../etc/passwd\n");
    assert_int_equal(describe(f, FORGED, &info), -ENOENT);
    assert_int_equal(truncate(path, 1 << 30), 0);
    assert_int_equal(describe(f, FORGED, &info), -ENOENT);
}

static void believes_only_the_owner_of_the_bytes(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    g_autofree char *entry = NULL;
    SwSalvageInfo info;

    stage(control, 0, "1", "bytes");
    assert_int_equal(put(control, "1", "name"), 0);
    entry = only_name(at(f, SALVAGE), ".data");
    if (geteuid() == 0) {
        assert_int_equal(chown(at(f, SALVAGE "/%s.info", entry), 1000, 1000), 0);
        assert_int_equal(describe(f, entry, &info), -ENOENT);
    }
    sw_control_close(control);
}

static void trims_among_junk(void **state)
{
    Fixture *f = *state;
    SwControl *control;

    f->config.salvage_age_us = 0;
    control = open_control(f);
    assert_int_equal(symlink("/etc/passwd", at(f, SALVAGE "/" FORGED ".data")), 0);
    assert_int_equal(mkfifo(at(f, SALVAGE "/" FORGED ".info"), 0666), 0);
    assert_int_equal(mkdir(at(f, SALVAGE "/x.0123456789abcdef-2-00c0ffee.data"), 0755), 0);
    assert_int_equal(mkdir(at(f, SALVAGE "/x.0123456789abcdef-3-00c0ffee.junk"), 0755), 0);
    write_text(at(f, SALVAGE "/x.0123456789abcdef-3-00c0ffee.junk/file"), "");
    write_text(at(f, SALVAGE "/notes"), "mine");
    for (int i = 0; i < 2000; i++)
        write_text(at(f, SALVAGE "/junk%d.data", i), "");
    usleep(20000);
    sw_control_trim_salvage(control);
    assert_false(exists(at(f, SALVAGE "/" FORGED ".data")));
    assert_false(exists(at(f, SALVAGE "/" FORGED ".info")));
    assert_true(exists("/etc/passwd"));
    expect_text(at(f, SALVAGE "/notes"), "mine");
    sw_control_close(control);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(keeps_bytes_and_tells_what_they_are),
        TEST(drops_what_is_empty_and_refuses_what_is_no_file),
        TEST(leaving_saves_what_is_staged),
        TEST(acts_as_the_owner),
        TEST(stays_within_its_size),
        TEST(nobody_pushes_out_what_others_have),
        TEST(one_too_large_stays_while_it_is_the_newest),
        TEST(the_aged_go),
        TEST(many_put_at_once),
        TEST(names_are_judged),
        TEST(describes_nothing_forged),
        TEST(believes_only_the_owner_of_the_bytes),
        TEST(trims_among_junk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
