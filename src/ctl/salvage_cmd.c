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

#include "../lease/salvage.h"

#include "commands.h"
#include "place.h"
#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPY_CHUNK (64 * 1024 * 1024)
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NONBLOCK)

/* A source with its salvage directory. */
typedef struct {
    SwPlace place;
    int salvage;
} Salvage;

/* 0, or the exit code; to be cleared in any case. */
static int salvage_open(Salvage *in, const char *path)
{
    SwPort *port;
    int control, r;

    in->salvage = -1;
    r = sw_place_open(&in->place, path);
    if (r != 0)
        return r;
    port = in->place.port;
    control = port->openat(port, in->place.source, SW_CONTROL_DIR, OPEN_DIR, 0);
    if (control < 0)
        return sw_fail("there is no control directory in %s: %s", in->place.path, g_strerror(-control));
    in->salvage = port->openat(port, control, "salvage", OPEN_DIR, 0);
    (void)close(control);
    if (in->salvage < 0)
        return sw_fail("cannot open %s/%s/salvage: %s", in->place.path, SW_CONTROL_DIR, g_strerror(-in->salvage));
    return 0;
}

static void salvage_clear(Salvage *in)
{
    if (in->salvage >= 0)
        (void)close(in->salvage);
    sw_place_clear(&in->place);
}

/* ---- list */

/* What can be said of an entry that says nothing itself. */
static void describe(Salvage *in, const SwSalvageEntry *entry, SwSalvageInfo *ret_info)
{
    if (sw_salvage_describe(in->place.port, in->salvage, entry, ret_info) == 0)
        return;
    *ret_info = (SwSalvageInfo){.path = g_strdup(""), .reason = g_strdup("?"), .host_id = g_strdup("")};
    ret_info->command = g_strdup("");
    ret_info->wall_us = (gint64)entry->data.st_mtim.tv_sec * G_USEC_PER_SEC;
}

static void print_row(Salvage *in, const SwSalvageEntry *entry)
{
    SwSalvageInfo info;
    g_autofree char *path = NULL, *command = NULL, *writer = NULL, *time = NULL;

    describe(in, entry, &info);
    path = sw_printable(*info.path ? info.path : "?", FALSE);
    command = sw_printable(*info.command ? info.command : "?", FALSE);
    writer = g_strdup_printf("%s/%" G_GINT64_FORMAT, command, info.pid);
    time = sw_time_text(info.wall_us);
    (void)printf("%-44s %12" G_GINT64_FORMAT " %-19s %-10s %-20s %s\n", entry->name, (gint64)entry->data.st_size, time,
                 info.reason, writer, path);
    sw_salvage_info_clear(&info);
}

static void add_object(Salvage *in, const SwSalvageEntry *entry, SwJson *json)
{
    SwSalvageInfo info;

    describe(in, entry, &info);
    sw_json_open(json, NULL, '{');
    sw_json_text(json, "entry", entry->name);
    sw_json_text(json, "path", info.path);
    sw_json_size(json, "size", (guint64)MAX(entry->data.st_size, 0));
    sw_json_text(json, "reason", info.reason);
    sw_json_text(json, "command", info.command);
    sw_json_number(json, "pid", info.pid);
    sw_json_text(json, "host", info.host_id);
    sw_json_number(json, "uid", entry->data.st_uid);
    sw_json_seconds(json, "unix_time_seconds", info.wall_us);
    sw_json_bool(json, "synced", info.synced);
    sw_json_close(json);
    sw_salvage_info_clear(&info);
}

static void print_all(Salvage *in, GPtrArray *entries)
{
    if (entries->len > 0)
        (void)printf("%-44s %12s %-19s %-10s %-20s %s\n", "ENTRY", "SIZE", "WHEN", "REASON", "WRITER", "PATH");
    for (guint i = 0; i < entries->len; i++)
        if (((SwSalvageEntry *)entries->pdata[i])->has_data)
            print_row(in, entries->pdata[i]);
}

static void print_json(Salvage *in, GPtrArray *entries)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '[');
    for (guint i = 0; i < entries->len; i++)
        if (((SwSalvageEntry *)entries->pdata[i])->has_data)
            add_object(in, entries->pdata[i], &json);
    sw_json_finish(&json);
}

static int list(Salvage *in, const SwArguments *arguments)
{
    g_autoptr(GPtrArray) entries = NULL;
    int r = sw_salvage_scan(in->place.port, in->salvage, &entries);

    if (r < 0)
        return sw_fail("cannot list %s/%s/salvage: %s", in->place.path, SW_CONTROL_DIR, g_strerror(-r));
    if (arguments->json)
        print_json(in, entries);
    else
        print_all(in, entries);
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
static int open_data(Salvage *in, const SwSalvageEntry *entry, const SwCred *owner, struct stat *ret_st)
{
    SwPort *port = in->place.port;
    g_autofree char *file = g_strconcat(entry->name, ".data", NULL);
    int fd = port->become(port, owner);
    int r;

    if (fd == 0)
        fd = port->openat(port, in->salvage, file, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    (void)port->become(port, NULL);
    if (fd == -EACCES) /* a mode that forbids its own owner to read; to the daemon's user that means nothing */
        fd = port->openat(port, in->salvage, file, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
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
    if (!sw_lacks_rename(r))
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
static int restore_home(Salvage *in, int from, const struct stat *st, const char *path, const SwCred *owner,
                        gboolean force)
{
    SwPort *port = in->place.port;
    g_autofree char *directory = g_path_get_dirname(path);
    g_autofree char *name = g_path_get_basename(path);
    int dirfd;
    int r = port->become(port, owner);

    if (r < 0)
        return r;
    dirfd = port->open_beneath(port, in->place.source, directory, OPEN_DIR);
    r = dirfd < 0 ? dirfd : copy_into(port, from, st, dirfd, name, force);
    if (dirfd >= 0)
        (void)port->close(port, dirfd);
    (void)port->become(port, NULL);
    return r;
}

/* To a place that who runs this has chosen, as that one. */
static int restore_to(Salvage *in, int from, const struct stat *st, const char *path, gboolean force)
{
    g_autofree char *directory = g_path_get_dirname(path);
    g_autofree char *name = g_path_get_basename(path);
    int dirfd = sw_place_directory(directory);
    int r = dirfd < 0 ? dirfd : copy_into(in->place.port, from, st, dirfd, name, force);

    if (dirfd >= 0)
        (void)close(dirfd);
    return r;
}

static void restored_json(const Salvage *in, const SwSalvageEntry *entry, const char *path, const char *to)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "source", in->place.path);
    sw_json_text(&json, "entry", entry->name);
    sw_json_text(&json, "path", to ? NULL : path);
    sw_json_text(&json, "to", to);
    sw_json_number(&json, "size", entry->data.st_size);
    sw_json_finish(&json);
}

static int restore_entry(Salvage *in, const SwSalvageEntry *entry, const SwArguments *arguments)
{
    SwSalvageInfo info;
    SwCred owner;
    struct stat st;
    g_autofree char *shown = NULL;
    int from = -1;
    int r;

    describe(in, entry, &info);
    owner_cred(&entry->data, &owner);
    shown = arguments->to ? g_strdup(arguments->to) : sw_printable(info.path, FALSE);
    if (!arguments->to && !*info.path) {
        r = sw_fail("%s does not say where it belongs: use --to FILE", entry->name);
    } else if ((from = open_data(in, entry, &owner, &st)) < 0) {
        r = sw_fail("cannot open %s.data in salvage: %s", entry->name,
                    from == -EINVAL ? "it is not a plain file of its owner" : g_strerror(-from));
    } else {
        r = arguments->to ? restore_to(in, from, &st, arguments->to, arguments->force)
                          : restore_home(in, from, &st, info.path, &owner, arguments->force);
        (void)close(from);
        if (r < 0)
            r = sw_fail("cannot restore %s to %s%s%s: %s", entry->name, arguments->to ? "" : in->place.path,
                        arguments->to ? "" : "/", shown,
                        r == -EEXIST ? "there is a file already (--force replaces it)" : g_strerror(-r));
        else if (arguments->json)
            restored_json(in, entry, info.path, arguments->to);
    }
    sw_salvage_info_clear(&info);
    return r;
}

static int with_entry(Salvage *in, const char *name, const SwSalvageEntry **ret_entry, GPtrArray **ret_entries)
{
    int r = sw_salvage_name_is_valid(name) ? sw_salvage_scan(in->place.port, in->salvage, ret_entries) : 0;

    if (r < 0)
        return sw_fail("cannot list %s/%s/salvage: %s", in->place.path, SW_CONTROL_DIR, g_strerror(-r));
    *ret_entry = *ret_entries ? find_entry(*ret_entries, name) : NULL;
    if (!*ret_entry || !(*ret_entry)->has_data) {
        g_autofree char *shown = sw_printable(name, FALSE);

        return sw_fail("there is no entry %s in %s/%s/salvage", shown, in->place.path, SW_CONTROL_DIR);
    }
    return 0;
}

static int restore(Salvage *in, const SwArguments *arguments)
{
    g_autoptr(GPtrArray) entries = NULL;
    const SwSalvageEntry *entry;
    int r = with_entry(in, arguments->words[1], &entry, &entries);

    return r != 0 ? r : restore_entry(in, entry, arguments);
}

/* ---- drop */

static int drop_one(Salvage *in, const SwSalvageEntry *entry, guint *dropped)
{
    int r = sw_salvage_drop(in->place.port, in->salvage, entry->name);

    *dropped += r >= 0;
    return r < 0 ? sw_fail("cannot drop %s: %s", entry->name, g_strerror(-r)) : 0;
}

static int drop_asked(Salvage *in, const SwArguments *arguments, guint *dropped)
{
    g_autoptr(GPtrArray) entries = NULL;
    const SwSalvageEntry *entry;
    int result = 0;
    int r;

    if (!arguments->all) {
        r = with_entry(in, arguments->words[1], &entry, &entries);
        return r != 0 ? r : drop_one(in, entry, dropped);
    }
    r = sw_salvage_scan(in->place.port, in->salvage, &entries);
    if (r < 0)
        return sw_fail("cannot list %s/%s/salvage: %s", in->place.path, SW_CONTROL_DIR, g_strerror(-r));
    for (guint i = 0; i < entries->len; i++)
        if (drop_one(in, entries->pdata[i], dropped) != 0)
            result = SW_EXIT_FAILURE;
    return result;
}

static int drop(Salvage *in, const SwArguments *arguments)
{
    guint dropped = 0;
    int r = drop_asked(in, arguments, &dropped);
    SwJson json;

    if (!arguments->json)
        return r;
    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "source", in->place.path);
    sw_json_number(&json, "entries_dropped", dropped);
    sw_json_finish(&json);
    return r;
}

/* ---- the commands */

static int run(int (*action)(Salvage *in, const SwArguments *arguments), const SwArguments *arguments)
{
    Salvage in;
    int r = salvage_open(&in, arguments->words[0]);

    if (r == 0)
        r = action(&in, arguments);
    salvage_clear(&in);
    return r;
}

static int run_list(const SwArguments *arguments)
{
    return run(list, arguments);
}

static int run_restore(const SwArguments *arguments)
{
    return run(restore, arguments);
}

static int run_drop(const SwArguments *arguments)
{
    return run(drop, arguments);
}

const SwCommand sw_salvage_list_command = {
    .name = "salvage list",
    .options = "json",
    .min_words = 1,
    .max_words = 1,
    .usage = "PATH",
    .summary = "Shows the entries of salvage: name, size, time, reason, program, and where the bytes belong.",
    .run = run_list,
};

const SwCommand sw_salvage_restore_command = {
    .name = "salvage restore",
    .options = "json to force",
    .min_words = 2,
    .max_words = 2,
    .usage = "PATH ENTRY",
    .summary = "Copies an entry of salvage to where it belongs, or to FILE; the entry stays.  With --force what is "
               "there is replaced.",
    .run = run_restore,
};

const SwCommand sw_salvage_drop_command = {
    .name = "salvage drop",
    .options = "json all",
    .min_words = 2,
    .max_words = 2,
    .usage = "PATH ENTRY|--all",
    .summary = "Removes an entry of salvage, or all of them.",
    .run = run_drop,
};
