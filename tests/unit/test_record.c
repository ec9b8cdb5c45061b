/* SPDX-License-Identifier: GPL-2.0-or-later */

/* core/record: texts on disk (C12, C11, C26), there and back, and torn. */

#include "../../src/core/record.h"

#include "unit.h"
#include <errno.h>
#include <string.h>

#define ID "node-7.0123456789abcdef"

static void test_reserved(void **state)
{
    (void)state;
    assert_true(sw_name_is_reserved(".safewritefs"));
    assert_true(sw_name_is_reserved(".safewritefs-x"));
    assert_false(sw_name_is_reserved(".safewrite"));
    assert_false(sw_name_is_reserved("safewritefs"));
    assert_false(sw_name_is_reserved(""));
}

static void test_host_id(void **state)
{
    char id[SW_HOST_ID_MAX + 1], name[300];

    (void)state;
    sw_host_id_format(id, "node.cluster.example/x y", 0xabc);
    assert_string_equal(id, "node-cluster-example-x-y.0000000000000abc");
    assert_true(sw_host_id_is_valid(id));
    sw_host_id_format(id, "", G_MAXUINT64);
    assert_string_equal(id, "host.ffffffffffffffff");
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    sw_host_id_format(id, name, 1);
    assert_int_equal(strlen(id), SW_HOST_ID_MAX);
    assert_true(sw_host_id_is_valid(id));

    assert_true(sw_host_id_is_valid(ID));
    assert_false(sw_host_id_is_valid(""));
    assert_false(sw_host_id_is_valid("."));
    assert_false(sw_host_id_is_valid(".0123456789abcdef"));
    assert_false(sw_host_id_is_valid("a.0123456789abcde"));
    assert_false(sw_host_id_is_valid("a.0123456789abcdef0"));
    assert_false(sw_host_id_is_valid("a.0123456789ABCDEF"));
    assert_false(sw_host_id_is_valid("a/b.0123456789abcdef"));
    assert_false(sw_host_id_is_valid("../x.0123456789abcdef"));
    assert_false(sw_host_id_is_valid("a.b.0123456789abcdef"));
}

/* Every cut and every flipped byte of a sealed text must be refused. */
static void assert_tearproof(const char *text, int (*parses)(const char *, gsize))
{
    gsize length = strlen(text);

    assert_int_equal(parses(text, length), 0);
    for (gsize cut = 0; cut < length; cut++)
        assert_int_equal(parses(text, cut), -EBADMSG);
    for (gsize at = 0; at < length; at++) {
        g_autofree char *spoilt = g_strdup(text);

        spoilt[at] ^= 1;
        assert_int_equal(parses(spoilt, length), -EBADMSG);
        spoilt[at] = '\0';
        assert_int_equal(parses(spoilt, length), -EBADMSG);
    }
}

static int host_parses(const char *text, gsize length)
{
    SwHostRecord record;

    return sw_host_record_parse(text, length, &record);
}

static void test_host_record(void **state)
{
    SwHostRecord record = {.id = ID,
                           .boot_id = "01234567-89ab-cdef-0123-456789abcdef",
                           .machine_id = "0123456789abcdef0123456789abcdef",
                           .pid = 4711,
                           .lease_us = 20000000,
                           .version = "0.1.0 (test%)"};
    SwHostRecord back = {0};
    g_autofree char *text = sw_host_record_format(&record);

    (void)state;
    assert_true(g_str_has_prefix(text, "safewritefs-host 1\nid=" ID "\n"));
    assert_int_equal(sw_host_record_parse(text, strlen(text), &back), 0);
    assert_string_equal(back.id, record.id);
    assert_string_equal(back.boot_id, record.boot_id);
    assert_string_equal(back.machine_id, record.machine_id);
    assert_string_equal(back.version, record.version);
    assert_int_equal(back.pid, 4711);
    assert_int_equal(back.lease_us, 20000000);
    assert_tearproof(text, host_parses);
}

static void assert_host_refused(SwHostRecord record)
{
    g_autofree char *text = sw_host_record_format(&record);

    assert_int_equal(host_parses(text, strlen(text)), -EBADMSG);
}

static void test_host_record_forged(void **state)
{
    SwHostRecord good = {.id = ID, .lease_us = 1}, bad = good;
    g_autofree char *text = sw_host_record_format(&good);

    (void)state;
    assert_int_equal(host_parses(text, strlen(text)), 0);
    strcpy(bad.id, "../../etc");
    assert_host_refused(bad);
    bad = good;
    bad.lease_us = 0;
    assert_host_refused(bad);
    bad.lease_us = G_MAXINT64;
    assert_host_refused(bad);
    bad = good;
    bad.pid = -1;
    assert_host_refused(bad);
    bad = good;
    strcpy(bad.boot_id, "not hex");
    assert_host_refused(bad);
}

/* Parses the body with title and a true sum around it. */
static int parse_sealed(const char *body)
{
    g_autofree char *front = g_strconcat("safewritefs-host 1\n", body, NULL);
    g_autofree char *text = NULL;
    guint64 hash = G_GUINT64_CONSTANT(0xcbf29ce484222325);

    for (const char *c = front; *c; c++)
        hash = (hash ^ (guchar)*c) * G_GUINT64_CONSTANT(0x100000001b3);
    text = g_strdup_printf("%ssum=%016" G_GINT64_MODIFIER "x\n", front, hash);
    return host_parses(text, strlen(text));
}

#define FIELDS "id=" ID "\nboot-id=\nmachine-id=\npid=1\nlease-us=2\nversion=\n"

static void test_fields(void **state)
{
    (void)state;
    assert_int_equal(parse_sealed(FIELDS), 0);
    assert_int_equal(parse_sealed("later=x\n\n=\n" FIELDS), 0); /* of a later version */
    assert_int_equal(parse_sealed(FIELDS "pid=1\n"), -EBADMSG);
    assert_int_equal(parse_sealed(FIELDS "id"), -EBADMSG);
    assert_int_equal(parse_sealed(strchr(FIELDS, '\n') + 1), -EBADMSG);
    assert_int_equal(parse_sealed(""), -EBADMSG);
}

static void test_claim(void **state)
{
    static const char *const refused[] = {
        "",
        "/",
        "/.safewritefs/hosts/" ID "/stage/3/",
        "/.safewritefs/hosts/" ID "/stage//17",
        "/.safewritefs/hosts/" ID "/stage/3",
        "/.safewritefs/hosts/" ID "/stage/3/17/",
        "/.safewritefs/hosts/" ID "/stage/3/17/x",
        "/.safewritefs/hosts/" ID "/stage/../17",
        "/.safewritefs/hosts/" ID "/record/3/17",
        "/.safewritefs/hosts/" ID,
        "/.safewritefs/hosts//stage/3/17",
        "/.safewritefs/hosts/x/stage/3/17",
        ".safewritefs/hosts/" ID "/stage/3/17",
        "//.safewritefs/hosts/" ID "/stage/3/17",
        "/x/.safewritefs/hosts/" ID "/stage/3/17",
    };
    g_autofree char *target = sw_claim_format(ID, "3/17");
    char id[SW_HOST_ID_MAX + 1] = "untouched";

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(refused); i++)
        assert_false(sw_claim_parse(refused[i], id));
    assert_string_equal(id, "untouched");
    assert_string_equal(target, "/.safewritefs/hosts/" ID "/stage/3/17");
    assert_true(sw_claim_parse(target, id));
    assert_string_equal(id, ID);
}

static void test_lock_text(void **state)
{
    static const char *const bad[] = {"",
                                      "a.0123456789abcdef 1 file 2 3",
                                      "a.0123456789abcdef 1 hat 2 3 4",
                                      "a.0123456789abcdef 1 file -2 3 4",
                                      "a.0123456789abcdef 1 file 2 3 4 ../x.lock",
                                      "a.0123456789abcdef 1 file 2 3 4 /x.lock",
                                      "a.0123456789abcdef 1 file 2 3 4 x.lock y",
                                      "a 1 file 2 3 4 x.lock"};
    SwLockText lock = {.host_id = "a.0123456789abcdef", .sequence = 1, .kind = SW_LOCK_DIR, .pid = 2, .process = 3};
    SwLockText back;

    lock.dir_ino = 4;
    strcpy(lock.path, "a b/x.lock");
    g_autofree char *text = sw_lock_text_format(&lock);
    assert_string_equal(text, "a.0123456789abcdef 1 dir 2 3 4 a%20b/x.lock");
    assert_int_equal(sw_lock_text_parse(text, &back), 0);
    assert_memory_equal(&lock, &back, sizeof lock);
    for (guint i = 0; i < G_N_ELEMENTS(bad); i++)
        assert_int_equal(sw_lock_text_parse(bad[i], &back), -EBADMSG);
    memset(lock.path, ' ', 900); /* too long once it is escaped */
    g_autofree char *without = sw_lock_text_format(&lock);
    assert_string_equal(without, "a.0123456789abcdef 1 dir 2 3 4");
    assert_true(sw_lock_key(4, "x") != sw_lock_key(4, "y") && sw_lock_key(4, "x") != sw_lock_key(5, "x"));
}

static void test_lease_text(void **state)
{
    SwLeaseText idle = {.host_id = ID, .sequence = G_MAXUINT64}, back;
    SwLeaseText busy = {.host_id = ID,
                        .sequence = 9,
                        .appending = TRUE,
                        .append_offset = 100,
                        .append_length = 20,
                        .file_ino = 55,
                        .path = "a dir/50%\nlog"};
    g_autofree char *idle_text = sw_lease_text_format(&idle), *busy_text = sw_lease_text_format(&busy);

    (void)state;
    assert_string_equal(idle_text, ID " 18446744073709551615 -");
    assert_string_equal(busy_text, ID " 9 append 100 20 55 a%20dir/50%25%0Alog");
    assert_int_equal(sw_lease_text_parse(idle_text, &back), 0);
    assert_false(back.appending);
    assert_true(back.sequence == G_MAXUINT64);
    assert_int_equal(sw_lease_text_parse(busy_text, &back), 0);
    assert_true(back.appending && back.append_offset == 100 && back.append_length == 20 && back.file_ino == 55);
    assert_string_equal(back.path, busy.path);
    assert_string_equal(back.host_id, ID);
}

/* A path that does not fit into a symbolic link everywhere, or must not be acted upon, is left out. */
static void test_lease_text_without_path(void **state)
{
    SwLeaseText lease = {.host_id = ID, .appending = TRUE};
    g_autofree char *text = NULL, *other = NULL;
    SwLeaseText back;

    (void)state;
    memset(lease.path, 'p', sizeof(lease.path) - 1);
    for (gsize i = 100; i < sizeof(lease.path) - 1; i += 100)
        lease.path[i] = '/';
    text = sw_lease_text_format(&lease);
    assert_string_equal(text, ID " 0 append 0 0 0");
    assert_int_equal(sw_lease_text_parse(text, &back), 0);
    assert_string_equal(back.path, "");
    strcpy(lease.path, "../x");
    other = sw_lease_text_format(&lease);
    assert_string_equal(other, text);
}

static void test_lease_text_refused(void **state)
{
    static const char *const refused[] = {
        "",
        " ",
        ID,
        ID " 1",
        ID " 1 ",
        ID " x -",
        ID " -1 -",
        ID " 1 - ",
        ID " 1 - x",
        ID "  1 -",
        ID " 1 append",
        ID " 1 append 1 2",
        ID " 1 append 1 2 3 ",
        ID " 1 append 1 2 3 a b",
        ID " 1 append 1 2 3 /a",
        ID " 1 append 1 2 3 a/../b",
        ID " 1 append 1 2 3 a//b",
        ID " 1 append 1 2 3 a/",
        ID " 1 append 1 2 3 .safewritefs/format",
        ID " 1 append 1 2 3 a%0",
        ID " 1 append 1 2 3 a%00",
        ID " 1 append 1 2 3 a%zz",
        ID " 1 append 9223372036854775807 1 3",
        ID " 1 append 99999999999999999999 0 3",
        ID " 1 append 0x1 0 3",
        "../x 1 -",
        "/etc/passwd",
    };
    SwLeaseText back;

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(refused); i++)
        if (sw_lease_text_parse(refused[i], &back) != -EBADMSG)
            fail_msg("accepted: %s", refused[i]);
}

static int salvage_parses(const char *text, gsize length)
{
    SwSalvageInfo info;
    int r = sw_salvage_info_parse(text, length, &info);

    if (r == 0)
        sw_salvage_info_clear(&info);
    return r;
}

static void test_salvage(void **state)
{
    SwSalvageInfo info = {.path = (char *)"d\xc3\xbc/a file\n%x",
                          .reason = (char *)"killed",
                          .host_id = (char *)ID,
                          .command = (char *)"my cmd",
                          .pid = 12,
                          .wall_us = -5,
                          .size = G_MAXUINT64,
                          .synced = TRUE};
    SwSalvageInfo back;
    g_autofree char *text = sw_salvage_info_format(&info);

    (void)state;
    assert_non_null(strstr(text, "\npath=d\xc3\xbc/a%20file%0A%25x\n"));
    assert_int_equal(sw_salvage_info_parse(text, strlen(text), &back), 0);
    assert_string_equal(back.path, info.path);
    assert_string_equal(back.reason, "killed");
    assert_string_equal(back.host_id, ID);
    assert_string_equal(back.command, "my cmd");
    assert_true(back.pid == 12 && back.wall_us == -5 && back.size == G_MAXUINT64 && back.synced);
    sw_salvage_info_clear(&back);
    assert_null(back.path);
    assert_tearproof(text, salvage_parses);
}

/* Whatever a caller fills in, the text can be read again and keeps within the bound. */
static void test_salvage_odd(void **state)
{
    SwSalvageInfo info = {0}, back;
    g_autofree char *text = sw_salvage_info_format(&info), *other = NULL, *insane = NULL;
    g_autoptr(GString) path = g_string_new("top");

    (void)state;
    assert_int_equal(sw_salvage_info_parse(text, strlen(text), &back), 0);
    assert_string_equal(back.path, "");
    assert_string_equal(back.reason, "unknown");
    sw_salvage_info_clear(&back);

    while (path->len < 4000)
        g_string_append(path, "/a b c d e f");
    g_string_append(path, "/last");
    info.path = path->str;
    other = sw_salvage_info_format(&info);
    assert_true(strlen(other) <= SW_RECORD_MAX);
    assert_int_equal(sw_salvage_info_parse(other, strlen(other), &back), 0);
    assert_string_equal(back.path, ".../last");
    sw_salvage_info_clear(&back);

    info.path = (char *)"../../etc/passwd";
    insane = sw_salvage_info_format(&info);
    assert_string_equal(insane, text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserved),
        cmocka_unit_test(test_host_id),
        cmocka_unit_test(test_host_record),
        cmocka_unit_test(test_host_record_forged),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_claim),
        cmocka_unit_test(test_lease_text),
        cmocka_unit_test(test_lock_text),
        cmocka_unit_test(test_lease_text_without_path),
        cmocka_unit_test(test_lease_text_refused),
        cmocka_unit_test(test_salvage),
        cmocka_unit_test(test_salvage_odd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
