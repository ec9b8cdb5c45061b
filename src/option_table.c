/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "option_table.h"

#include "core/units.h"

#include <errno.h>
#include <string.h>

#define MS G_GUINT64_CONSTANT(1000)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

/* Written once and left alone: clang-format 14 and 18 disagree about braces in a macro. */
/* clang-format off */
#define FIELDS(...) {__VA_ARGS__}
/* clang-format on */

#define GLOBS(option_name, option_class, text)                                                                         \
    FIELDS(.name = option_name, .kind = SW_OPTION_GLOBS, .klass = option_class, .help = text)
#define TIME(option_name, member, least, most, text)                                                                   \
    FIELDS(.name = option_name, .kind = SW_OPTION_TIME, .field = offsetof(SwConfig, member), .min = least,             \
           .max = most, .help = text)
#define BYTES(option_name, member, text)                                                                               \
    FIELDS(.name = option_name, .kind = SW_OPTION_BYTES, .field = offsetof(SwConfig, member),                          \
           .max = G_GUINT64_CONSTANT(1) << 60, .help = text)
#define CHOICE(option_name, member, words, text)                                                                       \
    FIELDS(.name = option_name, .kind = SW_OPTION_CHOICE, .field = offsetof(SwConfig, member), .choices = words,       \
           .help = text)
#define PLAIN(option_kind, option_name) FIELDS(.name = option_name, .kind = SW_OPTION_##option_kind)
#define REFUSED(option_name, text) FIELDS(.name = option_name, .kind = SW_OPTION_REFUSED, .help = text)

static const SwOptionSpec table[] = {
    GLOBS("through", SW_CLASS_THROUGH, "names handed straight to the source"),
    GLOBS("stream", SW_CLASS_STREAM, "names published while they are written"),
    GLOBS("private", SW_CLASS_PRIVATE, "temporary names that stay on their host until renamed"),
    /* mount(8) takes "private" for a propagation flag and drops it, value and all. */
    GLOBS("host-private", SW_CLASS_PRIVATE, "the same; write this one in fstab"),
    GLOBS("locks", SW_CLASS_LOCK, "names of lock files"),
    TIME("append-interval", append_interval_us, 10 * MS, HOUR, "how often a growing file is published"),
    TIME("attr-cache", attr_cache_us, 0, HOUR, "how old attributes may be; 0 is strict"),
    TIME("lease", lease_us, 2 * SECOND, DAY, "after how long a silent host is taken for dead"),
    BYTES("edit-copy-max", edit_copy_max, "larger files are edited in place"),
    BYTES("salvage-max", salvage_max, "how much salvage may hold"),
    TIME("salvage-age", salvage_age_us, SECOND, 36500 * DAY, "how long salvage keeps an entry"),
    CHOICE("fsync", fsync, "stage|publish", "fsync(2) makes durable, or visible too"),
    CHOICE("on-kill", on_kill, "salvage|commit", "where the bytes of a killed writer go"),
    CHOICE("commit-sync", commit_sync, "auto|always|never", "write to disk before each commit"),
    CHOICE("keep", keep, "auto|always|never", "keep old versions for those who still read them"),
    TIME("keep-old", keep_old_us, SECOND, DAY, "how long old versions are kept"),
    CHOICE("passthrough", passthrough, "auto|off", "let the kernel read large files by itself"),
    CHOICE("io-uring", uring, "auto|off", "take requests through io_uring where the kernel offers it"),
    {.name = "require-fstype",
     .kind = SW_OPTION_TYPES,
     .field = offsetof(SwConfig, require_fstype),
     .help = "what the source must lie in: nfs:nfs4"},
    TIME("wait-source", wait_source_us, 0, DAY, "how long that is waited for"),
    CHOICE("restart", restart, "yes|no", "start a daemon that crashed again"),
    {.name = "conf", .kind = SW_OPTION_CONF, .help = "configuration file; empty for none"},
    PLAIN(RO, "ro"),
    PLAIN(RW, "rw"),
    PLAIN(FLAG, "suid"),
    PLAIN(FLAG, "nosuid"),
    PLAIN(FLAG, "dev"),
    PLAIN(FLAG, "nodev"),
    PLAIN(FLAG, "exec"),
    PLAIN(FLAG, "noexec"),
    PLAIN(FLAG, "atime"),
    PLAIN(FLAG, "noatime"),
    PLAIN(FLAG, "sync"),
    PLAIN(FLAG, "async"),
    PLAIN(FLAG, "dirsync"),
    PLAIN(REMOUNT, "remount"),
    PLAIN(LABEL, "context"),
    PLAIN(LABEL, "fscontext"),
    PLAIN(LABEL, "defcontext"),
    PLAIN(LABEL, "rootcontext"),
    PLAIN(ALLOW_OTHER, "allow_other"),
    PLAIN(IGNORED, "default_permissions"),
    PLAIN(IGNORED, "subtype"),
    PLAIN(IGNORED, "defaults"),
    PLAIN(IGNORED, "auto"),
    PLAIN(IGNORED, "noauto"),
    PLAIN(IGNORED, "user"),
    PLAIN(IGNORED, "nouser"),
    PLAIN(IGNORED, "users"),
    PLAIN(IGNORED, "nousers"),
    PLAIN(IGNORED, "owner"),
    PLAIN(IGNORED, "noowner"),
    PLAIN(IGNORED, "group"),
    PLAIN(IGNORED, "nogroup"),
    PLAIN(IGNORED, "fail"),
    PLAIN(IGNORED, "nofail"),
    PLAIN(IGNORED, "_netdev"),
    PLAIN(IGNORED, "comment"),
    PLAIN(IGNORED, "symfollow"),
    PLAIN(IGNORED, "silent"),
    PLAIN(IGNORED, "loud"),
    PLAIN(IGNORED, "relatime"),
    PLAIN(IGNORED, "norelatime"),
    PLAIN(IGNORED, "strictatime"),
    PLAIN(IGNORED, "nostrictatime"),
    PLAIN(IGNORED, "lazytime"),
    PLAIN(IGNORED, "nolazytime"),
    PLAIN(IGNORED, "diratime"),
    PLAIN(IGNORED, "nodiratime"),
    PLAIN(IGNORED, "iversion"),
    PLAIN(IGNORED, "noiversion"),
    PLAIN(IGNORED, "mand"),
    PLAIN(IGNORED, "nomand"),
    PLAIN(IGNORED_PREFIX, "x-"),
    PLAIN(IGNORED_PREFIX, "X-"),
    REFUSED("auto_unmount", "after a crash it would uncover the directory without its protection"),
    REFUSED("fsname", "the name of the file system is always SOURCE"),
    REFUSED("allow_root", "there is only allow_other"),
    REFUSED("nosymfollow", "FUSE cannot do that"),
    {.name = NULL},
};

const SwOptionSpec *sw_option_table(void)
{
    return table;
}

const SwOptionSpec *sw_option_find(const char *name)
{
    for (const SwOptionSpec *spec = table; spec->name; spec++)
        if (spec->kind == SW_OPTION_IGNORED_PREFIX ? g_str_has_prefix(name, spec->name) : !strcmp(name, spec->name))
            return spec;
    return NULL;
}

const SwOptionSpec *sw_option_of_token(const char *token, const char **ret_value)
{
    gsize length = strcspn(token, "=");
    g_autofree char *name = g_strndup(token, length);

    *ret_value = token[length] ? token + length + 1 : NULL;
    return sw_option_find(name);
}

gboolean sw_option_is_setting(const SwOptionSpec *spec)
{
    switch (spec->kind) {
    case SW_OPTION_GLOBS:
    case SW_OPTION_TIME:
    case SW_OPTION_BYTES:
    case SW_OPTION_CHOICE:
    case SW_OPTION_TYPES:
    case SW_OPTION_RO:
    case SW_OPTION_RW:
    case SW_OPTION_FLAG:
        return TRUE;
    default:
        return FALSE;
    }
}

gboolean sw_option_may_change(const SwOptionSpec *spec)
{
    static const gsize fields[] = {
        offsetof(SwConfig, append_interval_us),
        offsetof(SwConfig, attr_cache_us),
        offsetof(SwConfig, edit_copy_max),
        offsetof(SwConfig, salvage_max),
        offsetof(SwConfig, salvage_age_us),
        offsetof(SwConfig, fsync),
        offsetof(SwConfig, on_kill),
        offsetof(SwConfig, commit_sync),
        offsetof(SwConfig, keep_old_us),
    };

    for (guint i = 0; i < G_N_ELEMENTS(fields); i++)
        if (spec->field == fields[i])
            return TRUE;
    return FALSE;
}

static SwUnits units_of(const SwOptionSpec *spec)
{
    return spec->kind == SW_OPTION_TIME ? SW_UNITS_TIME : SW_UNITS_BYTES;
}

static int store_number(const SwOptionSpec *spec, const char *text, void *field, char **ret_why)
{
    g_autofree char *min = sw_units_format(spec->min, units_of(spec));
    g_autofree char *max = sw_units_format(spec->max, units_of(spec));
    double value;

    if (!sw_units_parse(text, units_of(spec), &value)) {
        *ret_why = g_strdup_printf("option '%s': '%s' is no %s (a number, then %s)", spec->name, text,
                                   spec->kind == SW_OPTION_TIME ? "time" : "size",
                                   spec->kind == SW_OPTION_TIME ? "ms, s, min, h or d" : "K, M, G or T");
        return -EINVAL;
    }
    if (value < (double)spec->min || value > (double)spec->max) {
        *ret_why = g_strdup_printf("option '%s': '%s' is out of range (%s to %s)", spec->name, text, min, max);
        return -EINVAL;
    }
    /* Both kinds of field are 64 bits wide, and no maximum is over G_MAXINT64. */
    *(guint64 *)field = (guint64)(value + 0.5);
    return 0;
}

static int store_choice(const SwOptionSpec *spec, const char *text, void *field, char **ret_why)
{
    g_auto(GStrv) words = g_strsplit(spec->choices, "|", 0);

    for (guint i = 0; words[i]; i++)
        if (!strcmp(text, words[i])) {
            *(guint *)field = i;
            return 0;
        }
    *ret_why = g_strdup_printf("option '%s': '%s' is none of %s", spec->name, text, spec->choices);
    return -EINVAL;
}

/* An empty list lets the source be anywhere again. */
static int store_types(const SwOptionSpec *spec, const char *text, char **field, char **ret_why)
{
    static const char harmless[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    g_auto(GStrv) words = g_strsplit(text, ":", 0);

    for (guint i = 0; *text && words[i]; i++)
        if (!*words[i] || words[i][strspn(words[i], harmless)]) {
            *ret_why =
                g_strdup_printf("option '%s': '%s' is no list of file system types, as nfs:nfs4", spec->name, text);
            return -EINVAL;
        }
    g_free(*field);
    *field = *text ? g_strdup(text) : NULL;
    return 0;
}

static int store_globs(const SwOptionSpec *spec, const char *text, SwConfig *config, char **ret_why)
{
    g_autofree char *why = NULL;
    int r = sw_policy_set(&config->policy, spec->klass, text, &why);

    if (r < 0)
        *ret_why = g_strdup_printf("option '%s': %s", spec->name, why ? why : g_strerror(-r));
    return r;
}

int sw_option_store(const SwOptionSpec *spec, const char *value, SwConfig *config, char **ret_why)
{
    void *field = (char *)config + spec->field;

    switch (spec->kind) {
    case SW_OPTION_GLOBS:
        return store_globs(spec, value, config, ret_why);
    case SW_OPTION_TIME:
    case SW_OPTION_BYTES:
        return store_number(spec, value, field, ret_why);
    case SW_OPTION_CHOICE:
        return store_choice(spec, value, field, ret_why);
    case SW_OPTION_TYPES:
        return store_types(spec, value, field, ret_why);
    default:
        g_assert_not_reached();
    }
}

char *sw_option_value_text(const SwOptionSpec *spec, const SwConfig *config)
{
    const void *field = (const char *)config + spec->field;
    g_auto(GStrv) words = NULL;

    switch (spec->kind) {
    case SW_OPTION_TIME:
    case SW_OPTION_BYTES:
        return sw_units_format(*(const guint64 *)field, units_of(spec));
    case SW_OPTION_CHOICE:
        words = g_strsplit(spec->choices, "|", 0);
        return g_strdup(words[*(const guint *)field]);
    default:
        return NULL;
    }
}

char *sw_option_synopsis(const SwOptionSpec *spec)
{
    static const char *const placeholders[] = {
        [SW_OPTION_GLOBS] = "GLOBS", [SW_OPTION_TIME] = "TIME", [SW_OPTION_BYTES] = "SIZE",
        [SW_OPTION_TYPES] = "TYPES", [SW_OPTION_CONF] = "FILE", [SW_OPTION_LABEL] = "LABEL",
    };

    if (spec->kind == SW_OPTION_CHOICE)
        return g_strdup_printf("%s=%s", spec->name, spec->choices);
    if (spec->kind == SW_OPTION_IGNORED_PREFIX)
        return g_strdup_printf("%s*", spec->name);
    if (spec->kind < G_N_ELEMENTS(placeholders) && placeholders[spec->kind])
        return g_strdup_printf("%s=%s", spec->name, placeholders[spec->kind]);
    return g_strdup(spec->name);
}
