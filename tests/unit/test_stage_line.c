/* SPDX-License-Identifier: GPL-2.0-or-later */

/* core/stage_line: files that are being written, as a mount tells them. */

#include "../../src/core/stage_line.h"

#include "unit.h"

#include <errno.h>
#include <string.h>

static void there_and_back(void **state)
{
    static const char *const texts[] = {"", "f", "with space", "line\nend", "tab\t\\ \"", "\xc3\xa4\xff\x01"};

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(texts) * 8; i++) {
        SwStageLine line = {.state = (SwStageLineState)(i % 4), .synced = (i >> 2) & 1, .pid = i, .bytes = G_MAXUINT64};
        g_auto(SwStageLine) back = {0};
        g_autofree char *text = NULL;

        line.age_us = (gint64)i << 40;
        line.idle_us = i;
        line.stage = (char *)"3/17";
        line.command = (char *)texts[i / 8];
        line.path = (char *)texts[(i / 8 + i) % G_N_ELEMENTS(texts)];
        text = sw_stage_line_format(&line);
        assert_null(strchr(text, '\n'));
        assert_int_equal(sw_stage_line_parse(text, &back), 0);
        assert_string_equal(back.path, line.path);
        assert_string_equal(back.command, line.command);
        assert_string_equal(back.stage, line.stage);
        assert_true(back.state == line.state && back.synced == line.synced && back.bytes == line.bytes);
        assert_true(back.pid == line.pid && back.age_us == line.age_us && back.idle_us == line.idle_us);
    }
}

static void as_documented(void **state)
{
    SwStageLine line = {
        .state = SW_STAGE_LINE_PRIVATE, .synced = TRUE, .bytes = 5, .pid = 42, .age_us = 9, .idle_us = 1};
    g_autofree char *text = NULL;

    (void)state;
    line.stage = (char *)"-";
    line.command = (char *)"my program";
    line.path = (char *)"a b\n";
    text = sw_stage_line_format(&line);
    assert_string_equal(text, "private 1 5 42 9 1 - my\\040program a b\\n");
    assert_string_equal(sw_stage_line_state_name(SW_STAGE_LINE_BUSY), "busy");
}

static void refuses_everything_else(void **state)
{
    static const char *const bad[] = {
        "",
        "writing",
        "writing 1 5 42 9 1 - sh",
        "reading 1 5 42 9 1 - sh f",
        "writing 2 5 42 9 1 - sh f",
        "writing 1 -5 42 9 1 - sh f",
        "writing 1 05 42 9 1 - sh f",
        "writing 1 18446744073709551616 42 9 1 - sh f",
        "writing 1 5 2147483648 9 1 - sh f",
        "writing 1 5 42 -9 1 - sh f",
        "writing 1 5 42 9 9223372036854775808 - sh f",
        "writing  1 5 42 9 1 - sh f",
        "writing 1 5 42 9 1 - sh\\ f",
        "writing 1 5 42 9 1 - sh f\\",
        "writing 1 5 42 9 1 - sh f\\000x",
        "writing 1 5 42 9 1 - sh f\n",
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
        SwStageLine line;

        if (sw_stage_line_parse(bad[i], &line) != -EBADMSG)
            fail_msg("taken: %s", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(as_documented),
        cmocka_unit_test(refuses_everything_else),
    };

    return cmocka_run_group_tests_name("stage_line", tests, NULL, NULL);
}
