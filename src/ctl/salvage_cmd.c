/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Salvage, for people.
 *
 * Everything in salvage may be forged, and this program is run by root too; so what an entry says is acted upon only as
 * the owner of its bytes, and only beneath the source: a forger gains nothing that he could not have done himself.
 *
 *   restore   entry opened once (regular, one name, description of the same owner), target's directory opened beneath
 *             the source as the owner, copied to a reserved name there, renamed to its place without replacing
 */

#include "salvage_cmd.h"

#include "../lease/salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FUSE_FS_TYPE 0x65735546
#define COPY_CHUNK (64 * 1024 * 1024)
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NONBLOCK)

/* The source that a command is about. */
typedef struct {
    SwPort *port;
    char *path; /* of the source */
    int source;
    int salvage; /* its salvage directory */
} Place;

typedef struct {
    gboolean json, all, force;
    char *to;
    char **words;
} Arguments;

G_GNUC_PRINTF(1, 2)
static int fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)fputs("safewritectl: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    return SW_EXIT_FAILURE;
}

/* ---- the source */

/* In /proc/self/mountinfo space, tab, newline and backslash are written \ooo. */
static char *unescape_mount(const char *word)
{
    return g_strcompress(word);
}

/* The source of the safewritefs mount at `path`, if this line is about it. */
static char *source_in_line(const char *line, const char *path)
{
    g_auto(GStrv) words = g_strsplit(line, " ", -1);
    guint n = g_strv_length(words), dash = 6;
    g_autofree char *where = NULL;

    while (dash < n && strcmp(words[dash], "-") != 0)
        dash++;
    if (dash + 2 >= n || strcmp(words[dash + 1], "fuse.safewritefs") != 0)
        return NULL;
    where = unescape_mount(words[4]);
    return strcmp(where, path) == 0 ? unescape_mount(words[dash + 2]) : NULL;
}

static char *source_of_mount(const char *path)
{
    g_autofree char *text = NULL, *real = realpath(path, NULL);
    g_auto(GStrv) lines = NULL;
    char *found = NULL;

    if (!real || !g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
        return NULL;
    lines = g_strsplit(text, "\n", -1);
    for (guint i = 0; lines[i]; i++) {
        char *source = source_in_line(lines[i], real);

        if (source) { /* the last mount at a place is the one on top */
            g_free(found);
            found = source;
        }
    }
    return found;
}

static gboolean is_fuse(SwPort *port, int fd)
{
    guint64 type;

    return port->fs_type(port, fd, &type) == 0 && type == FUSE_FS_TYPE;
}

/* A directory named by who runs this, so links on the way are followed. */
static int open_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

static int open_source(Place *place, const char *path)
{
    int fd = open_directory(path);
    g_autofree char *source = fd >= 0 && is_fuse(place->port, fd) ? source_of_mount(path) : NULL;
    g_autofree char *covered = NULL;

    if (source) {
        (void)close(fd);
        fd = open_directory(source);
        covered = fd >= 0 && is_fuse(place->port, fd) ? source_of_mount(source) : NULL;
    }
    place->path = g_strdup(source ? source : path);
    place->source = fd;
    if (fd < 0)
        return fail("cannot open %s: %s", place->path, g_strerror(-fd));
    if (covered)
        return fail(
            "%s is covered by a mount of safewritefs, which hides its salvage; unmount it first, or give a path "
            "that leads to the source itself",
            place->path);
    return 0;
}

/* 0, or the exit code. */
static int place_open(Place *place, const char *path)
{
    int control;
    int r;

    *place = (Place){.port = sw_port_posix_new(), .source = -1, .salvage = -1};
    r = open_source(place, path);
    if (r != 0)
        return r;
    control = place->port->openat(place->port, place->source, SW_CONTROL_DIR, OPEN_DIR, 0);
    if (control < 0)
        return fail("there is no control directory in %s: %s", place->path, g_strerror(-control));
    place->salvage = place->port->openat(place->port, control, "salvage", OPEN_DIR, 0);
    (void)close(control);
    if (place->salvage < 0)
        return fail("cannot open %s/%s/salvage: %s", place->path, SW_CONTROL_DIR, g_strerror(-place->salvage));
    return 0;
}

static void place_clear(Place *place)
{
    if (place->salvage >= 0)
        (void)close(place->salvage);
    if (place->source >= 0)
        (void)close(place->source);
    g_free(place->path);
    sw_port_free(place->port);
}

/* ---- list */

/* Hostile text for a terminal or a JSON string: what is no plain character is written as an escape. */
static char *printable(const char *text, gboolean json)
{
    GString *out = g_string_new(NULL);
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    for (const char *at = valid; *at; at = g_utf8_next_char(at)) {
        gunichar c = g_utf8_get_char(at);

        if (c == '\\' || (json && c == '"'))
            g_string_append_printf(out, "\\%c", (char)c);
        else if (c < ' ' || c == 0x7f || (c >= 0x80 && !g_unichar_isprint(c)))
            g_string_append_printf(out, c > 0xffff ? "\\u%04x\\u%04x" : "\\u%04x",
                                   c > 0xffff ? 0xd800 + ((c - 0x10000) >> 10) : c, 0xdc00 + (c & 0x3ff));
        else
            g_string_append_unichar(out, c);
    }
    return g_string_free(out, FALSE);
}

static char *when(gint64 wall_us)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(wall_us / G_USEC_PER_SEC);

    return time ? g_date_time_format(time, "%Y-%m-%d %H:%M:%S") : g_strdup("?");
}

/* What can be said of an entry that says nothing itself. */
static void describe(Place *place, const SwSalvageEntry *entry, SwSalvageInfo *ret_info)
{
    if (sw_salvage_describe(place->port, place->salvage, entry, ret_info) == 0)
        return;
    *ret_info = (SwSalvageInfo){.path = g_strdup(""), .reason = g_strdup("?"), .host_id = g_strdup("")};
    ret_info->command = g_strdup("");
    ret_info->wall_us = (gint64)entry->data.st_mtim.tv_sec * G_USEC_PER_SEC;
}

static void print_row(Place *place, const SwSalvageEntry *entry)
{
    SwSalvageInfo info;
    g_autofree char *path = NULL, *command = NULL, *writer = NULL, *time = NULL;

    describe(place, entry, &info);
    path = printable(*info.path ? info.path : "?", FALSE);
    command = printable(*info.command ? info.command : "?", FALSE);
    writer = g_strdup_printf("%s/%" G_GINT64_FORMAT, command, info.pid);
    time = when(info.wall_us);
    (void)printf("%-44s %12" G_GINT64_FORMAT " %-19s %-10s %-20s %s\n", entry->name, (gint64)entry->data.st_size, time,
                 info.reason, writer, path);
    sw_salvage_info_clear(&info);
}

static void print_object(Place *place, const SwSalvageEntry *entry, gboolean first)
{
    SwSalvageInfo info;
    g_autofree char *path = NULL, *command = NULL;

    describe(place, entry, &info);
    path = printable(info.path, TRUE);
    command = printable(info.command, TRUE);
    (void)printf("%s\n  {\"entry\": \"%s\", \"path\": \"%s\", \"size\": %" G_GINT64_FORMAT ", \"reason\": \"%s\", ",
                 first ? "" : ",", entry->name, path, (gint64)entry->data.st_size, info.reason);
    (void)printf("\"command\": \"%s\", \"pid\": %" G_GINT64_FORMAT ", \"host\": \"%s\", \"uid\": %u, ", command,
                 info.pid, info.host_id, entry->data.st_uid);
    (void)printf("\"time\": %" G_GINT64_FORMAT ".%06d, \"synced\": %s}", info.wall_us / G_USEC_PER_SEC,
                 (int)(ABS(info.wall_us) % G_USEC_PER_SEC), info.synced ? "true" : "false");
    sw_salvage_info_clear(&info);
}

static int list(Place *place, const Arguments *arguments)
{
    g_autoptr(GPtrArray) entries = NULL;
    gboolean first = TRUE;
    int r = sw_salvage_scan(place->port, place->salvage, &entries);

    if (r < 0)
        return fail("cannot list %s/%s/salvage: %s", place->path, SW_CONTROL_DIR, g_strerror(-r));
    if (arguments->json)
        (void)fputc('[', stdout);
    else if (entries->len > 0)
        (void)printf("%-44s %12s %-19s %-10s %-20s %s\n", "ENTRY", "SIZE", "WHEN", "REASON", "WRITER", "PATH");
    for (guint i = 0; i < entries->len; i++) {
        const SwSalvageEntry *entry = entries->pdata[i];

        if (!entry->has_data)
            continue;
        if (arguments->json)
            print_object(place, entry, first);
        else
            print_row(place, entry);
        first = FALSE;
    }
    if (arguments->json)
        (void)fputs(first ? "]\n" : "\n]\n", stdout);
    return 0;
}

/* ---- restore */

/* The owner with all groups, as a login would have them: the target may be writable by group only. */
static void owner_cred(const struct stat *st, SwCred *ret_cred)
{
    const struct passwd *user = getpwuid(st->st_uid);
    gid_t groups[G_N_ELEMENTS(ret_cred->groups)];
    int n = G_N_ELEMENTS(groups);

    *ret_cred = (SwCred){.uid = st->st_uid, .gid = user ? user->pw_gid : st->st_gid};
    if (!user || getgrouplist(user->pw_name, user->pw_gid, groups, &n) < 0)
        return;
    memcpy(ret_cred->groups, groups, n * sizeof *groups);
    ret_cred->n_groups = n;
}

static const SwSalvageEntry *find_entry(GPtrArray *entries, const char *name)
{
    for (guint i = 0; i < entries->len; i++)
        if (strcmp(((SwSalvageEntry *)entries->pdata[i])->name, name) == 0)
            return entries->pdata[i];
    return NULL;
}

/* Opens the bytes as their owner; negative errno, -EINVAL for what is no plain file with one name. */
static int open_data(Place *place, const SwSalvageEntry *entry, const SwCred *owner, struct stat *ret_st)
{
    SwPort *port = place->port;
    g_autofree char *file = g_strconcat(entry->name, ".data", NULL);
    int fd = port->become(port, owner);
    int r;

    if (fd == 0)
        fd = port->openat(port, place->salvage, file, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    (void)port->become(port, NULL);
    if (fd == -EACCES) /* a mode that forbids its own owner to read; to the daemon's user that means nothing */
        fd = port->openat(port, place->salvage, file, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return fd;
    r = port->statat(port, fd, "", ret_st);
    if (r == 0 && (!S_ISREG(ret_st->st_mode) || ret_st->st_nlink != 1 || ret_st->st_uid != owner->uid))
        r = -EINVAL;
    if (r == 0)
        return fd;
    (void)port->close(port, fd);
    return r;
}

static int copy_all(SwPort *port, int from, int to, gint64 size)
{
    for (off_t at = 0; at < size;) {
        ssize_t copied = port->copy_range(port, from, at, to, at, MIN(size - at, COPY_CHUNK));

        if (copied <= 0)
            return copied < 0 ? (int)copied : 0;
        at += copied;
    }
    return 0;
}

static int write_copy(SwPort *port, int from, const struct stat *st, int to)
{
    struct timespec times[2] = {st->st_atim, st->st_mtim};
    int r = copy_all(port, from, to, st->st_size);

    if (r == 0)
        r = port->fsync(port, to, FALSE);
    if (r == 0)
        r = port->chmodat(port, to, "", st->st_mode & 0777);
    if (r == 0)
        (void)port->utimensat(port, to, "", times);
    return r;
}

static int put_in_place(SwPort *port, int dirfd, const char *temporary, const char *name, gboolean force)
{
    int r;

    if (force)
        return port->renameat(port, dirfd, temporary, dirfd, name, 0);
    r = port->renameat(port, dirfd, temporary, dirfd, name, RENAME_NOREPLACE);
    if (r != -EINVAL && r != -ENOSYS && r != -EOPNOTSUPP)
        return r;
    r = port->linkat(port, dirfd, temporary, dirfd, name); /* NFS: link is exclusive too */
    return r < 0 ? r : port->unlinkat(port, dirfd, temporary, 0);
}

/* Copies into `dirfd`, as whom the thread acts, and gives the copy to `owner` if that is somebody else. */
static int copy_into(SwPort *port, int from, const struct stat *st, int dirfd, const char *name, gboolean force)
{
    g_autofree char *temporary = NULL;
    guint64 chance;
    int to;
    int r = port->random(port, &chance, sizeof chance);

    if (r < 0)
        return r;
    temporary = g_strdup_printf("%s-restore-%016" G_GINT64_MODIFIER "x", SW_RESERVED_PREFIX, chance);
    to = port->openat(port, dirfd, temporary, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (to < 0)
        return to;
    (void)port->chownat(port, to, "", st->st_uid, st->st_gid); /* changes nothing when its owner does this */
    r = write_copy(port, from, st, to);
    (void)port->close(port, to);
    if (r == 0)
        r = put_in_place(port, dirfd, temporary, name, force);
    if (r < 0)
        (void)port->unlinkat(port, dirfd, temporary, 0);
    return r;
}

/* To where the description says, as the owner of the bytes. */
static int restore_home(Place *place, int from, const struct stat *st, const char *path, const SwCred *owner,
                        gboolean force)
{
    SwPort *port = place->port;
    g_autofree char *directory = g_path_get_dirname(path);
    g_autofree char *name = g_path_get_basename(path);
    int dirfd;
    int r = port->become(port, owner);

    if (r < 0)
        return r;
    dirfd = port->open_beneath(port, place->source, directory, OPEN_DIR);
    r = dirfd < 0 ? dirfd : copy_into(port, from, st, dirfd, name, force);
    if (dirfd >= 0)
        (void)port->close(port, dirfd);
    (void)port->become(port, NULL);
    return r;
}

/* To a place that who runs this has chosen, as that one. */
static int restore_to(Place *place, int from, const struct stat *st, const char *path, gboolean force)
{
    g_autofree char *directory = g_path_get_dirname(path);
    g_autofree char *name = g_path_get_basename(path);
    int dirfd = open_directory(directory);
    int r = dirfd < 0 ? dirfd : copy_into(place->port, from, st, dirfd, name, force);

    if (dirfd >= 0)
        (void)close(dirfd);
    return r;
}

static int restore_entry(Place *place, const SwSalvageEntry *entry, const Arguments *arguments)
{
    SwSalvageInfo info;
    SwCred owner;
    struct stat st;
    g_autofree char *shown = NULL;
    int from = -1;
    int r;

    describe(place, entry, &info);
    owner_cred(&entry->data, &owner);
    shown = arguments->to ? g_strdup(arguments->to) : printable(info.path, FALSE);
    if (!arguments->to && !*info.path) {
        r = fail("%s does not say where it belongs: use --to FILE", entry->name);
    } else if ((from = open_data(place, entry, &owner, &st)) < 0) {
        r = fail("cannot open %s.data in salvage: %s", entry->name,
                 from == -EINVAL ? "it is not a plain file of its owner" : g_strerror(-from));
    } else {
        r = arguments->to ? restore_to(place, from, &st, arguments->to, arguments->force)
                          : restore_home(place, from, &st, info.path, &owner, arguments->force);
        (void)close(from);
        if (r < 0)
            r = fail("cannot restore %s to %s%s%s: %s", entry->name, arguments->to ? "" : place->path,
                     arguments->to ? "" : "/", shown,
                     r == -EEXIST ? "there is a file already (--force replaces it)" : g_strerror(-r));
    }
    sw_salvage_info_clear(&info);
    return r;
}

static int with_entry(Place *place, const char *name, const SwSalvageEntry **ret_entry, GPtrArray **ret_entries)
{
    int r = sw_salvage_name_is_valid(name) ? sw_salvage_scan(place->port, place->salvage, ret_entries) : 0;

    if (r < 0)
        return fail("cannot list %s/%s/salvage: %s", place->path, SW_CONTROL_DIR, g_strerror(-r));
    *ret_entry = *ret_entries ? find_entry(*ret_entries, name) : NULL;
    if (!*ret_entry || !(*ret_entry)->has_data) {
        g_autofree char *shown = printable(name, FALSE);

        return fail("there is no entry %s in %s/%s/salvage", shown, place->path, SW_CONTROL_DIR);
    }
    return 0;
}

static int restore(Place *place, const Arguments *arguments)
{
    g_autoptr(GPtrArray) entries = NULL;
    const SwSalvageEntry *entry;
    int r = with_entry(place, arguments->words[1], &entry, &entries);

    return r != 0 ? r : restore_entry(place, entry, arguments);
}

/* ---- drop */

static int drop_one(Place *place, const SwSalvageEntry *entry)
{
    int r = sw_salvage_drop(place->port, place->salvage, entry->name);

    return r < 0 ? fail("cannot drop %s: %s", entry->name, g_strerror(-r)) : 0;
}

static int drop(Place *place, const Arguments *arguments)
{
    g_autoptr(GPtrArray) entries = NULL;
    const SwSalvageEntry *entry;
    int result = 0;
    int r;

    if (!arguments->all) {
        r = with_entry(place, arguments->words[1], &entry, &entries);
        return r != 0 ? r : drop_one(place, entry);
    }
    r = sw_salvage_scan(place->port, place->salvage, &entries);
    if (r < 0)
        return fail("cannot list %s/%s/salvage: %s", place->path, SW_CONTROL_DIR, g_strerror(-r));
    for (guint i = 0; i < entries->len; i++)
        if (drop_one(place, entries->pdata[i]) != 0)
            result = SW_EXIT_FAILURE;
    return result;
}

/* ---- the command */

/* What each action takes: its options as one string of letters, and how many words. */
typedef struct {
    const char *name;
    const char *options; /* j: --json, t: --to, f: --force, a: --all, which stands for the second word */
    guint words;
    int (*run)(Place *place, const Arguments *arguments);
} Action;

static const Action actions[] = {
    {"list", "j", 1, list},
    {"restore", "tf", 2, restore},
    {"drop", "a", 2, drop},
};

static int usage(const char *format, const char *what)
{
    (void)fputs("safewritectl: ", stderr);
    (void)fprintf(stderr, "%s%s\n", format, what);
    (void)fputs("Try 'safewritectl --help'.\n", stderr);
    return SW_EXIT_USAGE;
}

static int parse(const Action *action, int *argc, char ***argv, Arguments *ret_arguments)
{
    GOptionEntry all[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &ret_arguments->json, "print JSON", NULL},
        {"to", 0, 0, G_OPTION_ARG_FILENAME, &ret_arguments->to, "put it there", "FILE"},
        {"force", 0, 0, G_OPTION_ARG_NONE, &ret_arguments->force, "replace what is there", NULL},
        {"all", 0, 0, G_OPTION_ARG_NONE, &ret_arguments->all, "every entry", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &ret_arguments->words, NULL, NULL},
        {NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;
    GOptionEntry one[2] = {{NULL}, {NULL}};

    for (const GOptionEntry *option = all; option->long_name; option++)
        if (!*option->long_name || strchr(action->options, option->long_name[0])) {
            one[0] = *option;
            g_option_context_add_main_entries(context, one, NULL);
        }
    if (!g_option_context_parse(context, argc, argv, &error))
        return usage("", error->message);
    if ((ret_arguments->words ? g_strv_length(ret_arguments->words) : 0) != action->words - ret_arguments->all)
        return usage("wrong number of arguments for salvage ", action->name);
    return 0;
}

static int run(const Action *action, int argc, char **argv)
{
    Arguments arguments = {0};
    Place place;
    int r = parse(action, &argc, &argv, &arguments);

    if (r == 0) {
        r = place_open(&place, arguments.words[0]);
        if (r == 0)
            r = action->run(&place, &arguments);
        place_clear(&place);
    }
    if (r == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        r = fail("cannot write the output: %s", g_strerror(errno));
    g_free(arguments.to);
    g_strfreev(arguments.words);
    return r;
}

int sw_salvage_command(int argc, char **argv)
{
    for (guint i = 0; i < G_N_ELEMENTS(actions); i++)
        if (strcmp(argv[0], actions[i].name) == 0)
            return run(&actions[i], argc, argv);
    return usage("no such action: salvage ", argv[0]);
}
