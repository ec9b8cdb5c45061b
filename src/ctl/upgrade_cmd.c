/* SPDX-License-Identifier: GPL-2.0-or-later */

/* upgrade: another program file goes on with a mount, and nobody notices. */

#include "commands.h"
#include "mounts.h"
#include "say.h"

#include "../core/ask.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESULT_US (30 * G_TIME_SPAN_SECOND)
#define PAUSE_US (20 * G_TIME_SPAN_MILLISECOND)

static int refused(const char *path, const char *answer)
{
    g_autofree char *why = sw_printable(g_str_has_prefix(answer, "no ") ? answer + 3 : answer, FALSE);

    return sw_fail("%s is not upgraded: %s", path, why);
}

/* "VERSION MICROSECONDS" */
static int print(const SwArguments *arguments, const char *result)
{
    g_auto(GStrv) words = g_strsplit(result, " ", 2);
    g_autofree char *version = sw_printable(words[0] ? words[0] : "?", FALSE);
    gint64 waited_us = words[0] && words[1] ? g_ascii_strtoll(words[1], NULL, 10) : 0;
    SwJson json;

    if (!arguments->json) {
        (void)printf("%s: safewritefs %s goes on; programs waited for %" G_GINT64_FORMAT " ms\n", arguments->words[0],
                     version, waited_us / 1000);
        return 0;
    }
    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "mountpoint", arguments->words[0]);
    sw_json_text(&json, "version", words[0]);
    sw_json_seconds(&json, "waited", waited_us);
    sw_json_finish(&json);
    return 0;
}

/* While the daemons change, nobody answers. */
static int await_result(const char *path, char **ret_result)
{
    gint64 until_us = g_get_monotonic_time() + RESULT_US;
    int r;

    for (;;) {
        r = sw_mount_ask(path, SW_ASK_UPGRADED "\n", ret_result);
        if (g_get_monotonic_time() >= until_us || (r < 0 && r != -ETIMEDOUT) ||
            (r == 0 && strcmp(*ret_result, "wait") != 0))
            return r;
        g_clear_pointer(ret_result, g_free);
        g_usleep(PAUSE_US);
    }
}

static int upgrade(const SwArguments *arguments, const char *program)
{
    const char *path = arguments->words[0];
    g_autofree char *request = g_strconcat(SW_ASK_UPGRADE "\n", program, NULL), *answer = NULL, *result = NULL;
    int r = sw_mount_ask(path, request, &answer);

    if (r == -ENOTTY)
        return sw_fail("%s is not the top of a mount of safewritefs that could be upgraded", path);
    if (r == 0 && strcmp(answer, "ok") != 0)
        return refused(path, answer);
    if (r == 0)
        r = await_result(path, &result);
    if (r < 0)
        return sw_fail("%s: %s", path, r == -ETIMEDOUT ? "its daemon does not answer" : g_strerror(-r));
    return g_str_has_prefix(result, "ok ") ? print(arguments, result + 3) : refused(path, result);
}

static int run(const SwArguments *arguments)
{
    g_autofree char *program =
        arguments->n_words == 2 ? g_canonicalize_filename(arguments->words[1], NULL) : g_strdup("");

    return upgrade(arguments, program);
}

const SwCommand sw_upgrade_command = {
    .name = "upgrade",
    .options = "json",
    .min_words = 1,
    .max_words = 2,
    .usage = "PATH [PROGRAM]",
    .summary =
        "Has the daemon that serves the mount at PATH followed by one of the program file PROGRAM, or of the one it "
        "was\nstarted from as it is now.  What programs have open, written and locked stays as it is.  If that cannot "
        "be, the\ndaemon that is there goes on, and it is said why.",
    .run = run,
};
