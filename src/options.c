/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "options.h"
#include "follower.h"
#include "option_table.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the command line says, before anything is made of it. */
typedef struct {
    GPtrArray *tokens;   /* mount options, one by one (owned) */
    GPtrArray *operands; /* SOURCE, MOUNTPOINT (owned by argv) */
    gboolean sloppy;
} CommandLine;

static void command_line_clear(CommandLine *line)
{
    g_ptr_array_unref(line->tokens);
    g_ptr_array_unref(line->operands);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CommandLine, command_line_clear)

static int fail(char **ret_why, char *why)
{
    *ret_why = why;
    return -EINVAL;
}

/* Security labels have commas between double quotes. */
static void split_options(const char *text, GPtrArray *tokens)
{
    gboolean quoted = FALSE;
    const char *start = text;

    for (const char *p = text;; p++) {
        if (*p == '"')
            quoted = !quoted;
        if (*p && (quoted || *p != ','))
            continue;
        if (p > start)
            g_ptr_array_add(tokens, g_strndup(start, p - start));
        if (!*p)
            return;
        start = p + 1;
    }
}

GPtrArray *sw_options_split(const char *text)
{
    GPtrArray *tokens = g_ptr_array_new_with_free_func(g_free);

    split_options(text, tokens);
    return tokens;
}

static gboolean take_switch(int letter, CommandLine *line, SwOptions *options)
{
    switch (letter) {
    case 'o':
        split_options(optarg, line->tokens);
        return TRUE;
    case 'r':
    case 'w':
        g_ptr_array_add(line->tokens, g_strdup(letter == 'r' ? "ro" : "rw"));
        return TRUE;
    case 'd':
        options->debug = TRUE;
        options->foreground = TRUE;
        return TRUE;
    case 'f':
        options->foreground = TRUE;
        return TRUE;
    case 'c':
        options->check_only = TRUE;
        return TRUE;
    case 'V':
        options->show_version = TRUE;
        return TRUE;
    case 'h':
        options->show_help = TRUE;
        return TRUE;
    case 's':
        line->sloppy = options->sloppy = TRUE;
        return TRUE;
    case 'F':
        g_free(options->follow);
        options->follow = g_strdup(optarg);
        return TRUE;
    default:
        return letter == 'n' || letter == 'v';
    }
}

/* `argv` is changed.  GOption is no help here: it cannot read "-oro", which people are used to. */
static int split_command_line(int argc, char **argv, CommandLine *line, SwOptions *options, char **ret_why)
{
    static const struct option long_options[] = {
        {"options", required_argument, NULL, 'o'},
        {"foreground", no_argument, NULL, 'f'},
        {"debug", no_argument, NULL, 'd'},
        {"check", no_argument, NULL, 'c'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {SW_FOLLOWER_OPTION, required_argument, NULL, 'F'},
        {"read-only", no_argument, NULL, 'r'},
        {"read-write", no_argument, NULL, 'w'},
        {NULL, 0, NULL, 0},
    };
    static const char letters[] = ":o:fdVhrwsnv";
    int letter;

    opterr = 0;
    optind = 0; /* glibc: start afresh */
    while ((letter = getopt_long(argc, argv, letters, long_options, NULL)) != -1) {
        if (take_switch(letter, line, options))
            continue;
        if (letter == ':')
            return fail(ret_why, g_strdup_printf("'%s' needs an argument", argv[optind - 1]));
        if (optopt && !strchr(letters, optopt))
            return fail(ret_why, g_strdup_printf("unknown option -%c", optopt));
        return fail(ret_why, g_strdup_printf("unknown option %s", argv[optind - 1]));
    }
    for (; optind < argc; optind++)
        g_ptr_array_add(line->operands, argv[optind]);
    return 0;
}

/*
 * The real path, so that df and the groups of the configuration file agree whichever way it was written.  A mount
 * point that crashed cannot be looked at itself; its directory can.
 */
static char *absolute_path(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    g_autofree char *base = g_path_get_basename(path);
    g_autofree char *plain = g_canonicalize_filename(path, NULL);
    char *whole = realpath(path, NULL);
    char *real_dir = NULL;
    char *result;

    if (!whole && strcmp(base, ".") != 0 && strcmp(base, "..") != 0)
        real_dir = realpath(dir, NULL);
    if (whole)
        result = g_strdup(whole);
    else if (real_dir)
        result = g_build_filename(real_dir, base, NULL);
    else
        result = g_steal_pointer(&plain);
    /* realpath(3) allocates with malloc. */
    free(whole);
    free(real_dir);
    return result;
}

static int take_operands(const GPtrArray *operands, SwOptions *options, char **ret_why)
{
    const char *source, *mountpoint;

    if (operands->len < 2)
        return fail(ret_why, g_strdup(operands->len ? "MOUNTPOINT is missing" : "SOURCE and MOUNTPOINT are missing"));
    if (operands->len > 2)
        return fail(ret_why, g_strdup_printf("unexpected argument '%s'", (char *)operands->pdata[2]));
    source = operands->pdata[0];
    mountpoint = operands->pdata[1];
    if (!*source || !*mountpoint)
        return fail(ret_why, g_strdup("SOURCE and MOUNTPOINT must not be empty"));
    /* They are absolute, and to look at them would be to ask the mount that nobody serves now. */
    options->source = options->follow ? g_strdup(source) : absolute_path(source);
    options->mountpoint = options->follow ? g_strdup(mountpoint) : absolute_path(mountpoint);
    return 0;
}

static gboolean takes_value(const SwOptionSpec *spec)
{
    switch (spec->kind) {
    case SW_OPTION_GLOBS:
    case SW_OPTION_TIME:
    case SW_OPTION_BYTES:
    case SW_OPTION_CHOICE:
    case SW_OPTION_TYPES:
    case SW_OPTION_CONF:
    case SW_OPTION_LABEL:
        return TRUE;
    default:
        return FALSE;
    }
}

/* `value` is NULL when there was no '='. */
static int check_shape(const SwOptionSpec *spec, const char *value, char **ret_why)
{
    gboolean may_have_value =
        takes_value(spec) || spec->kind == SW_OPTION_IGNORED || spec->kind == SW_OPTION_IGNORED_PREFIX;

    if (spec->kind == SW_OPTION_REFUSED)
        return fail(ret_why, g_strdup_printf("option '%s' is refused: %s", spec->name, spec->help));
    if (takes_value(spec) && !value)
        return fail(ret_why, g_strdup_printf("option '%s' needs a value", spec->name));
    if (value && !may_have_value)
        return fail(ret_why, g_strdup_printf("option '%s' takes no value", spec->name));
    return 0;
}

/* libfuse knows no "atime" from 3.18 on: it is what there is without "noatime". */
void sw_options_add_flag(SwOptions *options, const char *option)
{
    GPtrArray *all = options->mount_options;

    if (strcmp(option, "atime") != 0) {
        g_ptr_array_add(all, g_strdup(option));
        return;
    }
    for (guint i = all->len; i > 0; i--)
        if (!strcmp(all->pdata[i - 1], "noatime"))
            g_ptr_array_remove_index(all, i - 1);
}

/* `token` is the option as written, of the right shape. */
static int apply_option(SwOptions *options, const SwOptionSpec *spec, const char *value, const char *token,
                        char **ret_why)
{
    switch (spec->kind) {
    case SW_OPTION_GLOBS:
    case SW_OPTION_TIME:
    case SW_OPTION_BYTES:
    case SW_OPTION_CHOICE:
    case SW_OPTION_TYPES:
        return sw_option_store(spec, value, &options->config, ret_why);
    case SW_OPTION_RO:
        options->config.read_only = TRUE;
        return 0;
    case SW_OPTION_RW:
        options->config.read_only = FALSE;
        return 0;
    case SW_OPTION_FLAG:
    case SW_OPTION_LABEL:
        sw_options_add_flag(options, token);
        return 0;
    case SW_OPTION_REMOUNT:
        options->remount = TRUE;
        return 0;
    case SW_OPTION_ALLOW_OTHER:
        options->allow_other = TRUE;
        return 0;
    case SW_OPTION_CONF: /* read before all others */
    case SW_OPTION_IGNORED:
    case SW_OPTION_IGNORED_PREFIX:
    case SW_OPTION_REFUSED:
        return 0;
    }
    g_assert_not_reached();
}

static int apply_token(SwOptions *options, const char *token, gboolean sloppy, char **ret_why)
{
    g_autofree char *name = g_strndup(token, strcspn(token, "="));
    const char *value;
    const SwOptionSpec *spec = sw_option_of_token(token, &value);
    int r;

    if (!spec && sloppy) {
        g_ptr_array_add(options->warnings, g_strdup_printf("unknown option '%s', ignoring", name));
        return 0;
    }
    if (!spec)
        return fail(ret_why, g_strdup_printf("unknown option '%s'", name));
    r = check_shape(spec, value, ret_why);
    if (r < 0)
        return r;
    return apply_option(options, spec, value, token, ret_why);
}

/* ---- the configuration file */

static gboolean parse_truth(const char *text, gboolean *ret_truth)
{
    static const char *const yes[] = {"true", "yes", "on", "1", NULL};
    static const char *const no[] = {"false", "no", "off", "0", NULL};

    if (!g_strv_contains(yes, text) && !g_strv_contains(no, text))
        return FALSE;
    *ret_truth = g_strv_contains(yes, text);
    return TRUE;
}

/* In the file a flag has a value, for a key file has no other way to write it. */
static int apply_conf_flag(SwOptions *options, const SwOptionSpec *spec, const char *value, char **ret_why)
{
    gboolean truth;

    if (!parse_truth(value, &truth))
        return fail(ret_why, g_strdup_printf("option '%s': '%s' is neither true nor false", spec->name, value));
    if (spec->kind != SW_OPTION_FLAG)
        options->config.read_only = truth == (spec->kind == SW_OPTION_RO);
    else if (truth)
        sw_options_add_flag(options, spec->name);
    return 0;
}

static int apply_conf_key(SwOptions *options, GKeyFile *file, const char *group, const char *key, char **ret_why)
{
    /* The raw value: a backslash in a glob is the glob's own. */
    g_autofree char *value = g_key_file_get_value(file, group, key, NULL);
    const SwOptionSpec *spec = sw_option_find(key);

    if (!value || !spec)
        return fail(ret_why, g_strdup_printf("unknown option '%s'", key));
    if (!sw_option_is_setting(spec))
        return fail(ret_why, g_strdup_printf("option '%s' has no meaning here", key));
    g_strchomp(value);
    if (!takes_value(spec))
        return apply_conf_flag(options, spec, value, ret_why);
    return sw_option_store(spec, value, &options->config, ret_why);
}

static int apply_conf_group(SwOptions *options, GKeyFile *file, const char *path, const char *group, char **ret_why)
{
    g_auto(GStrv) keys = g_key_file_get_keys(file, group, NULL, NULL);
    g_autofree char *why = NULL;

    for (guint i = 0; keys && keys[i]; i++)
        if (apply_conf_key(options, file, group, keys[i], &why) < 0)
            return fail(ret_why, g_strdup_printf("%s: [%s]: %s", path, group, why));
    return 0;
}

/* Compared as text: to look at another mount point, whose server may be away, could take for ever. */
static gboolean is_about(const char *group, const SwOptions *options)
{
    g_autofree char *plain = g_canonicalize_filename(group, "/");

    return *group == '/' && !strcmp(plain, options->mountpoint);
}

static int apply_conf(SwOptions *options, GKeyFile *file, const char *path, char **ret_why)
{
    g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);
    int r = 0;

    for (guint i = 0; groups[i]; i++)
        if (*groups[i] != '/' && strcmp(groups[i], "defaults") != 0)
            return fail(ret_why,
                        g_strdup_printf("%s: group [%s] is neither [defaults] nor a mount point", path, groups[i]));
    if (g_key_file_has_group(file, "defaults"))
        r = apply_conf_group(options, file, path, "defaults", ret_why);
    for (guint i = 0; groups[i] && r == 0; i++)
        if (is_about(groups[i], options))
            r = apply_conf_group(options, file, path, groups[i], ret_why);
    return r;
}

static int errno_of(const GError *error)
{
    if (error->domain != G_FILE_ERROR)
        return -EINVAL;
    switch (error->code) {
    case G_FILE_ERROR_NOENT:
        return -ENOENT;
    case G_FILE_ERROR_ACCES:
        return -EACCES;
    default:
        return -EIO;
    }
}

static int read_conf(SwOptions *options, const char *path, gboolean must_exist, char **ret_why)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) error = NULL;
    int r;

    if (g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, &error))
        return apply_conf(options, file, path, ret_why);
    r = errno_of(error);
    if (r == -ENOENT && !must_exist)
        return 0;
    *ret_why = g_strdup_printf("%s: %s", path, error->message);
    return r;
}

/* The last conf= counts. */
static int choose_conf(SwOptions *options, const GPtrArray *tokens, const char *conf_path, char **ret_why)
{
    const char *named = NULL;

    for (guint i = 0; i < tokens->len; i++)
        if (g_str_has_prefix(tokens->pdata[i], "conf="))
            named = (const char *)tokens->pdata[i] + strlen("conf=");
    if (named)
        return *named ? read_conf(options, named, TRUE, ret_why) : 0;
    return conf_path ? read_conf(options, conf_path, FALSE, ret_why) : 0;
}

/* ---- the whole */

static int finish(SwOptions *options, char **ret_why)
{
    char *why = sw_config_complaint(&options->config);

    if (why)
        return fail(ret_why, why);
    /* An ordinary user's daemon acts as that user whoever asks, so nobody else may be let in. */
    if (options->allow_other && geteuid() != 0)
        return fail(ret_why, g_strdup("option 'allow_other' needs root"));
    if (options->config.read_only)
        g_ptr_array_insert(options->mount_options, 0, g_strdup("ro"));
    return 0;
}

static int parse(int argc, char **argv, const char *conf_path, SwOptions *options, char **ret_why)
{
    g_auto(CommandLine) line = {g_ptr_array_new_with_free_func(g_free), g_ptr_array_new(), FALSE};
    g_autofree char **copy = g_new0(char *, argc + 1);
    int r;

    memcpy(copy, argv, sizeof(char *) * argc);
    r = split_command_line(argc, copy, &line, options, ret_why);
    if (r < 0 || options->show_help || options->show_version)
        return r;
    r = take_operands(line.operands, options, ret_why);
    if (r == 0)
        r = choose_conf(options, line.tokens, conf_path, ret_why);
    for (guint i = 0; r == 0 && i < line.tokens->len; i++) {
        g_ptr_array_add(options->given, g_strdup(line.tokens->pdata[i]));
        r = apply_token(options, line.tokens->pdata[i], line.sloppy, ret_why);
    }
    return r < 0 ? r : finish(options, ret_why);
}

int sw_options_parse(int argc, char **argv, const char *conf_path, SwOptions *ret, char **ret_why)
{
    int r;

    *ret = (SwOptions){
        .mount_options = g_ptr_array_new_with_free_func(g_free),
        .given = g_ptr_array_new_with_free_func(g_free),
        .warnings = g_ptr_array_new_with_free_func(g_free),
    };
    sw_config_init(&ret->config);
    r = parse(argc, argv, conf_path, ret, ret_why);
    if (r < 0)
        sw_options_clear(ret);
    return r;
}

void sw_options_clear(SwOptions *options)
{
    if (!options->mount_options)
        return;
    g_free(options->source);
    g_free(options->mountpoint);
    g_free(options->follow);
    sw_config_clear(&options->config);
    g_ptr_array_unref(options->mount_options);
    g_ptr_array_unref(options->given);
    g_ptr_array_unref(options->warnings);
    *options = (SwOptions){0};
}

static void append_escaped(GString *text, const char *value)
{
    for (; *value; value++) {
        if (*value == ',' || *value == '\\')
            g_string_append_c(text, '\\');
        g_string_append_c(text, *value);
    }
}

char *sw_options_fuse_text(const SwOptions *options)
{
    GString *text = g_string_new("fsname=");

    append_escaped(text, options->source);
    g_string_append(text, ",subtype=safewritefs");
    for (guint i = 0; i < options->mount_options->len; i++) {
        g_string_append_c(text, ',');
        append_escaped(text, options->mount_options->pdata[i]);
    }
    return g_string_free(text, FALSE);
}

/* ---- help */

static void print_settings(FILE *file, const SwConfig *defaults)
{
    for (const SwOptionSpec *spec = sw_option_table(); spec->name; spec++) {
        g_autofree char *synopsis = sw_option_synopsis(spec);
        g_autofree char *value = sw_option_value_text(spec, defaults);

        if (sw_option_is_setting(spec) && takes_value(spec))
            fprintf(file, "    %-30s %s%s%s%s\n", synopsis, spec->help, value ? " [" : "", value ? value : "",
                    value ? "]" : "");
    }
    fprintf(file, "    %-30s %s [%s]\n", "conf=FILE", sw_option_find("conf")->help, SW_CONF_PATH);
}

static void print_names(FILE *file, const char *title, SwOptionKind first, SwOptionKind last)
{
    int column = fprintf(file, "%s:", title);

    for (const SwOptionSpec *spec = sw_option_table(); spec->name; spec++) {
        g_autofree char *synopsis = sw_option_synopsis(spec);

        if (spec->kind < first || spec->kind > last)
            continue;
        if (column + strlen(synopsis) > 76)
            column = fprintf(file, "\n   ") - 1;
        column += fprintf(file, " %s", synopsis);
    }
    fputc('\n', file);
}

static void print_lists(FILE *file, const SwConfig *defaults)
{
    fprintf(file, "\nDefault lists:\n");
    for (const SwOptionSpec *spec = sw_option_table(); spec->name; spec++) {
        g_autofree char *text = NULL;

        if (spec->kind != SW_OPTION_GLOBS || !strcmp(spec->name, "host-private"))
            continue;
        text = sw_policy_text(&defaults->policy, spec->klass);
        fprintf(file, "    %s=%s\n", spec->name, text);
    }
}

void sw_options_print_help(FILE *file)
{
    SwConfig defaults;

    sw_config_init(&defaults);
    fprintf(file,
            "usage: safewritefs SOURCE MOUNTPOINT [OPTIONS]\n\n"
            "Shows the directory SOURCE, which many hosts share, at MOUNTPOINT, so that files change as a whole.\n\n"
            "    -o OPTION[,OPTION...]          mount options, see below\n"
            "    -f, --foreground               stay in the foreground, log to standard error\n"
            "    -d, --debug                    log debug messages; implies -f\n"
            "        --check                    check the options, mount nothing\n"
            "    -V, --version                  print the version\n"
            "    -h, --help                     print this\n"
            "    -r, -w, -s, -n, -v             as in mount(8)\n\n"
            "Mount options [default]:\n");
    print_settings(file, &defaults);
    fprintf(file, "\nGLOBS are separated by colons; a list that begins with '+' adds to the list in force.\n"
                  "TIME is in seconds, or with ms, s, min, h, d; SIZE in bytes, or with K, M, G, T.\n\n");
    print_names(file, "Passed on to the kernel", SW_OPTION_RO, SW_OPTION_LABEL);
    print_names(file, "Accepted and ignored", SW_OPTION_IGNORED, SW_OPTION_ALLOW_OTHER);
    print_names(file, "Refused", SW_OPTION_REFUSED, SW_OPTION_REFUSED);
    print_lists(file, &defaults);
    sw_config_clear(&defaults);
}
