/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "remount.h"

#include "core/ask.h"
#include "option_table.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int refuse(char **ret_why, char *why)
{
    g_free(*ret_why);
    *ret_why = why;
    return -EINVAL;
}

/* ---- the daemon's part */

static gboolean was_given(const GPtrArray *given, const char *token)
{
    return g_ptr_array_find_with_equal_func((GPtrArray *)given, token, g_str_equal, NULL);
}

static gboolean has_field(const SwOptionSpec *spec)
{
    return spec->kind == SW_OPTION_TIME || spec->kind == SW_OPTION_BYTES || spec->kind == SW_OPTION_CHOICE;
}

static int set_field(const SwOptionSpec *spec, const char *value, SwConfig *config, char **ret_why)
{
    g_autofree char *before = sw_option_value_text(spec, config), *after = NULL;
    int r = sw_option_store(spec, value, config, ret_why);

    if (r < 0 || sw_option_may_change(spec))
        return r;
    after = sw_option_value_text(spec, config);
    if (strcmp(before, after) == 0)
        return 0;
    return refuse(
        ret_why, g_strdup_printf("option '%s' is %s, and cannot change: unmount, and mount again", spec->name, before));
}

static int set_option(const SwOptions *options, const char *token, SwConfig *config, char **ret_why)
{
    const char *value;
    const SwOptionSpec *spec = sw_option_of_token(token, &value);

    if (!spec)
        return refuse(ret_why, g_strdup_printf("unknown option '%s'", token));
    switch (spec->kind) {
    case SW_OPTION_GLOBS:
    case SW_OPTION_TYPES:
    case SW_OPTION_CONF:
    case SW_OPTION_LABEL:
        if (was_given(options->given, token))
            return 0;
        return refuse(ret_why, g_strdup_printf("option '%s' was not given like this when it was mounted, and cannot "
                                               "change: unmount, and mount again",
                                               spec->name));
    default:
        return value && has_field(spec) ? set_field(spec, value, config, ret_why) : 0;
    }
}

int sw_remount_settings(const SwOptions *options, const SwConfig *now, const GPtrArray *tokens, SwConfig *ret_config,
                        char **ret_why)
{
    SwConfig config = *now;
    char *complaint;
    int r = 0;

    for (guint i = 0; r == 0 && i < tokens->len; i++)
        r = set_option(options, tokens->pdata[i], &config, ret_why);
    if (r < 0)
        return r;
    complaint = sw_config_complaint(&config);
    if (complaint)
        return refuse(ret_why, complaint);
    *ret_config = config;
    return 0;
}

static void remove_token(GPtrArray *tokens, const char *token)
{
    guint at;

    while (g_ptr_array_find_with_equal_func(tokens, token, g_str_equal, &at))
        g_ptr_array_remove_index(tokens, at);
}

void sw_remount_flags(SwOptions *options, const GPtrArray *tokens)
{
    for (guint i = 0; i < tokens->len; i++) {
        const char *token = tokens->pdata[i], *value;
        const SwOptionSpec *spec = sw_option_of_token(token, &value);

        if (spec && spec->kind == SW_OPTION_FLAG)
            sw_options_add_flag(options, token);
        if (!spec || (spec->kind != SW_OPTION_RO && spec->kind != SW_OPTION_RW))
            continue;
        options->config.read_only = spec->kind == SW_OPTION_RO;
        remove_token(options->mount_options, "ro");
        if (options->config.read_only)
            g_ptr_array_insert(options->mount_options, 0, g_strdup("ro"));
    }
}

void sw_remount_remember(const GPtrArray *tokens, GPtrArray *all)
{
    for (guint i = 0; i < tokens->len; i++) {
        const char *value;
        const SwOptionSpec *spec = sw_option_of_token(tokens->pdata[i], &value);
        gboolean is_flag =
            spec && (spec->kind == SW_OPTION_FLAG || spec->kind == SW_OPTION_RO || spec->kind == SW_OPTION_RW);

        if (spec && (is_flag || (has_field(spec) && sw_option_may_change(spec))))
            g_ptr_array_add(all, g_strdup(tokens->pdata[i]));
    }
}

gboolean sw_remount_split(const char *request, char **ret_source, GPtrArray **ret_tokens)
{
    const char *end = strchr(request, '\n');

    if (!end)
        return FALSE;
    *ret_source = g_strndup(request, end - request);
    *ret_tokens = sw_options_split(end + 1);
    return TRUE;
}

/* ---- who asks */

static const struct {
    const char *name;
    unsigned long set, clear;
} flags[] = {
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"suid", 0, MS_NOSUID},
    {"nosuid", MS_NOSUID, 0},
    {"dev", 0, MS_NODEV},
    {"nodev", MS_NODEV, 0},
    {"exec", 0, MS_NOEXEC},
    {"noexec", MS_NOEXEC, 0},
    {"atime", MS_RELATIME, MS_NOATIME},
    {"noatime", MS_NOATIME, MS_RELATIME},
    {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS},
};

static const struct {
    unsigned long shown, flag; /* by statvfs(3), of mount(2) */
} shown_flags[] = {
    {ST_RDONLY, MS_RDONLY},           {ST_NOSUID, MS_NOSUID},   {ST_NODEV, MS_NODEV},       {ST_NOEXEC, MS_NOEXEC},
    {ST_SYNCHRONOUS, MS_SYNCHRONOUS}, {ST_NOATIME, MS_NOATIME}, {ST_RELATIME, MS_RELATIME},
};

static int present_flags(int dirfd, unsigned long *ret_flags)
{
    struct statvfs st;

    if (fstatvfs(dirfd, &st) < 0)
        return -errno;
    *ret_flags = 0;
    for (guint i = 0; i < G_N_ELEMENTS(shown_flags); i++)
        if (st.f_flag & shown_flags[i].shown)
            *ret_flags |= shown_flags[i].flag;
    return 0;
}

/* dirsync is not to be seen, so mount(2) gets it only from who says it: then it is told even if nothing else changes.
 */
static int change_flags(const SwOptions *options, int dirfd, char **ret_why)
{
    unsigned long before = 0, after;
    gboolean dirsync = FALSE;
    int r = present_flags(dirfd, &before);

    after = before;
    for (guint i = 0; r == 0 && i < options->given->len; i++) {
        dirsync |= strcmp(options->given->pdata[i], "dirsync") == 0;
        for (guint j = 0; j < G_N_ELEMENTS(flags); j++)
            if (strcmp(options->given->pdata[i], flags[j].name) == 0)
                after = (after & ~flags[j].clear) | flags[j].set;
    }
    if (r == 0 && (after != before || dirsync) &&
        mount(NULL, options->mountpoint, NULL, MS_REMOUNT | after | (dirsync ? MS_DIRSYNC : 0), NULL) < 0)
        r = -errno;
    if (r < 0)
        *ret_why = g_strdup_printf("cannot remount %s: %s%s", options->mountpoint, g_strerror(-r),
                                   r == -EBUSY ? " (files are open for writing)" : "");
    return r;
}

static int ask(const SwOptions *options, int dirfd, const char *verb, char **ret_why)
{
    g_autofree char **words = g_new0(char *, options->given->len + 1);
    g_autofree char *text = NULL, *request = NULL;
    g_autofree SwAsk *asked = g_new0(SwAsk, 1);

    for (guint i = 0; i < options->given->len; i++)
        words[i] = options->given->pdata[i];
    text = g_strjoinv(",", words);
    request = g_strconcat(verb, "\n", options->source, "\n", text, NULL);
    if (g_strlcpy(asked->text, request, sizeof asked->text) >= sizeof asked->text)
        return refuse(ret_why, g_strdup("too many options"));
    if (ioctl(dirfd, SW_ASK_IOCTL, asked) < 0) {
        int error = errno;

        *ret_why = error == ENOTTY
                       ? g_strdup_printf("%s is no mount of safewritefs that could be remounted", options->mountpoint)
                       : g_strdup_printf("cannot remount %s: %s", options->mountpoint, g_strerror(error));
        return -error;
    }
    asked->text[sizeof asked->text - 1] = '\0';
    if (strcmp(asked->text, "ok") == 0)
        return 0;
    return refuse(ret_why, g_strdup(g_str_has_prefix(asked->text, "no ") ? asked->text + 3 : "no answer"));
}

int sw_remount(const SwOptions *options, char **ret_why)
{
    int r, dirfd = open(options->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dirfd < 0) {
        r = -errno;
        *ret_why = g_strdup_printf("%s: %s", options->mountpoint, g_strerror(-r));
        return r;
    }
    r = ask(options, dirfd, SW_ASK_CHECK, ret_why);
    if (r == 0)
        r = change_flags(options, dirfd, ret_why);
    if (r == 0)
        r = ask(options, dirfd, SW_ASK_CHANGE, ret_why);
    close(dirfd);
    return r;
}
