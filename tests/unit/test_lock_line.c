/* SPDX-License-Identifier: GPL-2.0-or-later */

/* core/lock_line: flock and fcntl locks as a mount tells them (C22). */

#include "../../src/core/lock_line.h"

#include "unit.h"

#include <errno.h>
#include <string.h>

static void there_and_back(void **state)
{
    static const char *const paths[] = {"", "f", "d/with space", "line\nend", "tab\t\\ \"", "\xc3\xa4\xff\x01"};

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(paths) * 8; i++) {
        SwLockLine line = {.is_fcntl = i & 1, .is_write = (i >> 1) & 1, .waits = (i >> 2) & 1, .pid = i};
        g_auto(SwLockLine) back = {0};
        g_autofree char *text = NULL;

        line.end = line.is_fcntl ? (gint64)i : SW_LOCK_LINE_TO_THE_END;
        line.age_us = (gint64)i << 40;
        line.path = (char *)paths[i / 8];
        text = sw_lock_line_format(&line);
        assert_null(strchr(text, '\n'));
        assert_int_equal(sw_lock_line_parse(text, &back), 0);
        assert_string_equal(back.path, line.path);
        line.path = back.path;
        assert_true(back.is_fcntl == line.is_fcntl && back.is_write == line.is_write && back.waits == line.waits);
        assert_true(back.start == line.start && back.end == line.end && back.pid == line.pid);
        assert_true(back.age_us == line.age_us);
    }
}

static void as_documented(void **state)
{
    SwLockLine line = {.is_fcntl = TRUE, .waits = TRUE, .start = 5, .end = SW_LOCK_LINE_TO_THE_END, .pid = 42};
    g_autofree char *text = NULL;

    (void)state;
    line.age_us = 1500000;
    line.path = (char *)"a b\n";
    text = sw_lock_line_format(&line);
    assert_string_equal(text, "fcntl read waiting 5 9223372036854775807 42 1500000 a b\\n");
}

static void refuses_everything_else(void **state)
{
    static const char *const bad[] = {
        "",
        "flock",
        "flock read held 0 1 1 1",
        "lease read held 0 1 1 1 f",
        "flock none held 0 1 1 1 f",
        "flock read lost 0 1 1 1 f",
        "flock read held -1 1 1 1 f",
        "flock read held 2 1 1 1 f",
        "flock read held 0 9223372036854775808 1 1 f",
        "flock read held 0 1 2147483648 1 f",
        "flock read held 0 1 1 -1 f",
        "flock read held 00 1 1 1 f",
        "flock read held -0 1 1 1 f",
        "flock read held +0 1 1 1 f",
        "flock  read held 0 1 1 1 f",
        " flock read held 0 1 1 1 f",
        "flock read held 0 1 1 1 f\\",
        "flock read held 0 1 1 1 f\\000x",
        "flock read held 0 1 1 1 f\\x",
        "flock read held 0 1 1 1 f\n",
        "flock read held 0 1 1 1 \xff",
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
        SwLockLine line;

        if (sw_lock_line_parse(bad[i], &line) != -EBADMSG)
            fail_msg("taken: %s", bad[i]);
    }
}

/* Any change of one byte is refused or read as what it says. */
static void spoilt(void **state)
{
    const char *whole = "fcntl write held 10 20 7 99 d/\\303\\244 x\\n";

    (void)state;
    for (gsize at = 0; at < strlen(whole); at++)
        for (guint byte = 0; byte < 256; byte++) {
            g_autofree char *text = g_strdup(whole);
            g_autofree char *again = NULL;
            g_auto(SwLockLine) line = {0};

            text[at] = (char)byte;
            if (sw_lock_line_parse(text, &line) < 0)
                continue;
            again = sw_lock_line_format(&line);
            assert_string_equal(again, text);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(as_documented),
        cmocka_unit_test(refuses_everything_else),
        cmocka_unit_test(spoilt),
    };

    return cmocka_run_group_tests_name("lock_line", tests, NULL, NULL);
}
