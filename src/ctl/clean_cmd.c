/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * clean: makes a plain directory of a source that nobody uses any more.
 *
 *   refuse     a mount of this machine, or a host that is not a dead mount of it; salvage that is not empty
 *   join       as gc does: dead mounts are buried, leases, marks and locks of hosts that are gone dropped
 *   claims     that names in the source still have are removed                  (C12)
 *   set aside  the control directory gets another name; who comes now makes a new one
 *   fence      `hosts` is removed, which fails if somebody joined it meanwhile: then all goes back
 *   remove     the rest
 */
#include "../core/record.h"

#include "commands.h"
#include "join.h"
#include "view.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEPTH_MAX 200
/* How long a daemon may take to leave after umount(8) has returned. */
#define LEAVING_US (5 * G_TIME_SPAN_SECOND)
#define PAUSE_US (50 * G_TIME_SPAN_MILLISECOND)

typedef struct {
    SwPlace place;
    gboolean force;
    dev_t dev; /* of the source: other file systems in it are left alone */
    guint entries;
    guint claims;
} Clean;

/* ---- is it unused? */

static const SwMount *find_mount(const Clean *clean)
{
    for (guint i = 0; i < clean->place.mounts->len; i++)
        if (sw_place_has_mount(&clean->place, clean->place.mounts->pdata[i]))
            return clean->place.mounts->pdata[i];
    return NULL;
}

static int find_host_here(Clean *clean, gboolean *ret_found)
{
    SwSurvey survey;
    SwView view;
    int r = sw_place_survey(&clean->place, &survey);

    *ret_found = FALSE;
    if (r != 0)
        return r;
    r = sw_view_take(&view, &survey, clean->place.path);
    for (guint i = 0; r == 0 && i < view.hosts->len; i++) {
        const SwSurveyHost *host = view.hosts->pdata[i];

        *ret_found |= host->here && host->state != SW_HOST_DEAD && host->state != SW_HOST_SILENT;
    }
    sw_view_clear(&view);
    return r;
}

/* Who writes "umount X && safewritectl clean Y" does not want to hear that the host just unmounted is alive. */
static int await_leaving(Clean *clean)
{
    SwPort *port = clean->place.port;
    gint64 until_us = port->now_us(port) + LEAVING_US;
    gboolean found = TRUE;
    int r = 0;

    while (r == 0 && found && !find_mount(clean) && port->now_us(port) < until_us) {
        r = find_host_here(clean, &found);
        if (r == 0 && found)
            port->sleep_us(port, PAUSE_US);
    }
    return r;
}

static int refuse_used(const Clean *clean, const SwView *view)
{
    const SwMount *mount = find_mount(clean);

    if (mount)
        return sw_fail("%s is mounted at %s: unmount it first", clean->place.path, mount->mountpoint);
    for (guint i = 0; i < view->hosts->len; i++) {
        const SwSurveyHost *host = view->hosts->pdata[i];

        if (host->state == SW_HOST_SILENT)
            return sw_fail("host %s of %s is silent, but may come back: end it first, by safewritectl gc or break",
                           host->id, clean->place.path);
        if (host->state != SW_HOST_DEAD)
            return sw_fail("host %s of %s is %s: unmount it first", host->id, clean->place.path,
                           sw_host_state_name(host->state));
    }
    return 0;
}

static int refuse_salvage(Clean *clean, const SwView *view)
{
    g_autoptr(GPtrArray) entries = NULL;
    int r = sw_view_entries(view, clean->place.path, &entries);

    clean->entries = 0;
    for (guint i = 0; r == 0 && i < entries->len; i++)
        clean->entries += ((const SwSalvageEntry *)entries->pdata[i])->has_data;
    if (r == 0 && clean->entries > 0 && !clean->force)
        return sw_fail("%u entries are in salvage of %s: restore or drop them first (safewritectl salvage), or use "
                       "--force to drop them",
                       clean->entries, clean->place.path);
    return r;
}

/* `join`: and buries who is dead, which may put something into salvage. */
static int check(Clean *clean, gboolean join)
{
    SwSurvey survey;
    SwView view;
    SwConfig config;
    SwControl *control;
    int r = sw_place_survey(&clean->place, &survey);

    if (r != 0)
        return r;
    r = sw_view_take(&view, &survey, clean->place.path);
    if (r == 0)
        r = refuse_used(clean, &view);
    if (r == 0)
        r = refuse_salvage(clean, &view);
    sw_join_settings(&config);
    if (r == 0 && join)
        r = sw_join(&clean->place, &view.survey, &config, &control);
    if (r == 0 && join) {
        sw_control_sweep(control);
        (void)sw_control_close(control);
    }
    sw_view_clear(&view);
    return r;
}

/* ---- going through directories, without following anything */

typedef int (*EntryFunc)(Clean *clean, int dirfd, const char *name, guint depth);

static int for_each_entry(Clean *clean, int dirfd, guint depth, EntryFunc func)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    int r = dir ? 0 : -errno;

    if (fd >= 0 && !dir)
        (void)close(fd);
    while (dir && r == 0 && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = func(clean, dirfd, entry->d_name, depth);
    if (dir)
        (void)closedir(dir);
    return r;
}

static int open_directory(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static int remove_entry(Clean *clean, int dirfd, const char *name, guint depth)
{
    int fd, r = unlinkat(dirfd, name, 0) < 0 ? -errno : 0;

    if ((r != -EISDIR && r != -EPERM) || depth == DEPTH_MAX)
        return r == -ENOENT ? 0 : r;
    fd = open_directory(dirfd, name);
    if (fd < 0)
        return fd;
    r = for_each_entry(clean, fd, depth + 1, remove_entry);
    (void)close(fd);
    return r == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 ? -errno : r;
}

/* Whose host is gone by now, for there is none left. */
static gboolean is_claim(const Clean *clean, int dirfd, const char *name)
{
    char target[512], host_id[SW_HOST_ID_MAX + 1];
    ssize_t size = clean->place.port->readlinkat(clean->place.port, dirfd, name, target, sizeof target - 1);

    if (size <= 0)
        return FALSE;
    target[size] = '\0';
    return sw_claim_parse(target, host_id);
}

static int drop_claims(Clean *clean, int dirfd, const char *name, guint depth)
{
    struct stat st;
    int fd, r = 0;

    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || sw_name_is_reserved(name))
        return 0;
    if (S_ISLNK(st.st_mode) && is_claim(clean, dirfd, name)) {
        r = unlinkat(dirfd, name, 0) < 0 ? -errno : 0;
        clean->claims += r == 0;
    }
    if (!S_ISDIR(st.st_mode) || st.st_dev != clean->dev || depth == DEPTH_MAX)
        return r;
    fd = open_directory(dirfd, name);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    r = for_each_entry(clean, fd, depth + 1, drop_claims);
    (void)close(fd);
    return r;
}

/* ---- the control directory */

static int put_back(Clean *clean, const char *aside, int error)
{
    SwPort *port = clean->place.port;
    int source = clean->place.source, r = port->renameat(port, source, aside, source, SW_CONTROL_DIR, RENAME_NOREPLACE);

    if (sw_lacks_rename(r)) /* over a directory that is not empty, this fails as well */
        r = port->renameat(port, source, aside, source, SW_CONTROL_DIR, 0);
    if (r < 0)
        return sw_fail("a host joined %s just now, and its control directory could not be put back from %s: %s",
                       clean->place.path, aside, g_strerror(-r));
    if (error == -ENOTEMPTY || error == -EEXIST)
        return sw_fail("a host joined %s just now: it is left as it was", clean->place.path);
    return sw_fail("cannot remove the hosts of %s: %s", clean->place.path, g_strerror(-error));
}

static int remove_control(Clean *clean)
{
    SwPort *port = clean->place.port;
    g_autofree char *aside = NULL;
    guint64 chance = 0;
    int fd, r = port->random(port, &chance, sizeof chance);

    aside = g_strdup_printf("%s-cleaned-%016" G_GINT64_MODIFIER "x", SW_CONTROL_DIR, chance);
    if (r == 0)
        r = port->renameat(port, clean->place.source, SW_CONTROL_DIR, clean->place.source, aside, 0);
    if (r < 0)
        return sw_fail("cannot set the control directory of %s aside: %s", clean->place.path, g_strerror(-r));
    fd = open_directory(clean->place.source, aside);
    r = fd < 0 ? fd : unlinkat(fd, "hosts", AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
    if (fd >= 0)
        (void)close(fd);
    if (r < 0)
        return put_back(clean, aside, r);
    r = remove_entry(clean, clean->place.source, aside, 0);
    return r < 0 ? sw_fail("%s/%s, what was the control directory, cannot be removed: %s", clean->place.path, aside,
                           g_strerror(-r))
                 : 0;
}

static int act(Clean *clean)
{
    struct stat st;
    int r;

    if (fstat(clean->place.source, &st) < 0)
        return sw_fail("cannot look at %s: %s", clean->place.path, g_strerror(errno));
    clean->dev = st.st_dev;
    r = await_leaving(clean);
    if (r == 0)
        r = check(clean, TRUE);
    if (r == 0) /* what was buried has gone to salvage */
        r = check(clean, FALSE);
    if (r != 0)
        return r;
    r = for_each_entry(clean, clean->place.source, 0, drop_claims);
    if (r < 0)
        return sw_fail("cannot look for claims in all of %s: %s", clean->place.path, g_strerror(-r));
    return remove_control(clean);
}

static void print_json(const Clean *clean)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "source", clean->place.path);
    sw_json_number(&json, "claims_removed", clean->claims);
    sw_json_number(&json, "salvage_entries_dropped", clean->entries);
    sw_json_finish(&json);
}

static int run(const SwArguments *arguments)
{
    Clean clean = {.force = arguments->force};
    int r = sw_place_open(&clean.place, arguments->words[0]);

    if (r == 0)
        r = act(&clean);
    if (r == 0 && arguments->json)
        print_json(&clean);
    else if (r == 0)
        (void)printf("%s is a plain directory now\n", clean.place.path);
    sw_place_clear(&clean.place);
    return r;
}

const SwCommand sw_clean_command = {
    .name = "clean",
    .options = "json force",
    .min_words = 1,
    .max_words = 1,
    .usage = "PATH",
    .summary =
        "Makes a plain directory of a source that no host uses any more: removes its control directory.  Refuses if\n"
        "a host may be alive, and without --force if something is in salvage.",
    .run = run,
};
