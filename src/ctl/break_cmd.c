/* SPDX-License-Identifier: GPL-2.0-or-later */

/* break: ends an application's lock, or a host, because the administrator says so (C20). */

#include "../lease/app_lock.h"

#include "commands.h"
#include "join.h"
#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* What is to be broken, as far as it is known. */
typedef struct {
    gboolean as_json;
    SwPlace place;
    SwSurvey survey;
    GPtrArray *hosts;
    const SwSurveyHost *host; /* the host that is meant, or NULL */
    char *path;               /* of the lock that is meant, below the source, or NULL */
    guint64 dir_ino;
    char *name;
} Target;

static void target_clear(Target *target)
{
    if (target->hosts) {
        g_ptr_array_unref(target->hosts);
        sw_survey_clear(&target->survey);
    }
    g_free(target->path);
    g_free(target->name);
    sw_place_clear(&target->place);
}

static int open_place(Target *target, const char *path)
{
    int r = sw_place_open(&target->place, path);

    if (r == 0)
        r = sw_place_survey(&target->place, &target->survey);
    if (r != 0)
        return r;
    r = sw_survey_hosts(&target->survey, &target->hosts);
    if (r == 0)
        return 0;
    sw_survey_clear(&target->survey);
    return sw_fail("cannot read the control directory %s/%s: %s", target->place.path, SW_CONTROL_DIR, g_strerror(-r));
}

/* ---- a lock */

/* The inode of the directory that a path below the source is in. */
static int find_directory(const Target *target, const char *path, guint64 *ret_ino)
{
    SwPort *port = target->place.port;
    g_autofree char *parent = g_path_get_dirname(path);
    struct stat st;
    int r, fd = port->open_beneath(port, target->place.source, parent, O_PATH | O_DIRECTORY);

    if (fd < 0)
        return fd;
    r = port->statat(port, fd, "", &st);
    (void)port->close(port, fd);
    if (r == 0)
        *ret_ino = st.st_ino;
    return r;
}

/* Is there a record of such a lock?  Then it is what is meant. */
static gboolean find_lock(Target *target, const char *path)
{
    SwPort *port = target->place.port;
    char key[20];
    struct stat st;

    if (!*path || find_directory(target, path, &target->dir_ino) < 0)
        return FALSE;
    target->name = g_path_get_basename(path);
    (void)snprintf(key, sizeof key, "%016" G_GINT64_MODIFIER "x", sw_lock_key(target->dir_ino, target->name));
    if (target->survey.locks < 0 || port->statat(port, target->survey.locks, key, &st) < 0) {
        g_clear_pointer(&target->name, g_free);
        return FALSE;
    }
    target->path = g_strdup(path);
    return TRUE;
}

/* What stands at the name now, for people. */
static gboolean still_stands(const Target *target)
{
    SwPort *port = target->place.port;
    int fd = port->open_beneath(port, target->place.source, target->path, O_PATH);

    if (fd < 0)
        return fd == -ELOOP; /* a symbolic link */
    (void)port->close(port, fd);
    return TRUE;
}

/* Of a host, what tells of a lock is NULL. */
static void print_json(const Target *target, const SwLockText *says)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "source", target->place.path);
    sw_json_text(&json, "kind", says ? "lock" : "host");
    sw_json_text(&json, "host", !says ? target->host->id : *says->host_id ? says->host_id : NULL);
    sw_json_text(&json, "path", says ? target->path : NULL);
    if (says) {
        sw_json_number(&json, "pid", says->pid);
        sw_json_bool(&json, "object_left", still_stands(target));
    } else {
        sw_json_null(&json, "pid");
        sw_json_null(&json, "object_left");
    }
    sw_json_finish(&json);
}

static int break_lock(Target *target, SwControl *control)
{
    g_autofree char *shown = sw_printable(target->path, FALSE);
    SwLockText says = {0};
    int r = sw_app_lock_break_name(control, target->dir_ino, target->name, &says);

    if (r == -ENOENT)
        return sw_fail("there is no lock %s/%s any more", target->place.path, shown);
    if (r < 0)
        return sw_fail("cannot break the lock %s/%s: %s", target->place.path, shown,
                       r == -EAGAIN ? "somebody else is breaking it" : g_strerror(-r));
    if (target->as_json) {
        print_json(target, &says);
        return 0;
    }
    (void)printf("broke the lock %s/%s of process %" G_GINT64_FORMAT " on host %s; %s\n", target->place.path, shown,
                 says.pid, *says.host_id ? says.host_id : "?",
                 still_stands(target) ? "what stands there now stays: it is no lock, or a new one"
                                      : "what it consisted of is in salvage");
    return 0;
}

/* ---- a host */

static int may_break(const Target *target, const SwArguments *arguments)
{
    const SwSurveyHost *host = target->host;
    g_autofree char *age = sw_age_text(host->age_us);
    g_autofree char *lease = sw_age_text(host->record.lease_us);

    if (arguments->force || host->state == SW_HOST_SILENT || host->state == SW_HOST_DEAD)
        return 0;
    return sw_fail("host %s is %s: its last heartbeat is %s old, and its lease %s.  Its writers would lose what they "
                   "have not committed, and its programs their locks; --force breaks it even so",
                   host->id, sw_host_state_name(host->state), age, lease);
}

static int break_host(Target *target, SwControl *control)
{
    int r = sw_control_break_host(control, target->host->id);

    if (r < 0 && r != -ENOENT) /* gone meanwhile: a dead mount of this machine is buried when we join */
        return sw_fail("cannot break host %s of %s: %s", target->host->id, target->place.path,
                       r == -EAGAIN ? "somebody else is breaking it" : g_strerror(-r));
    sw_join_tell(SW_EVENT_HOST_BROKEN, target->host->id, "administrator");
    if (target->as_json)
        print_json(target, NULL);
    else
        (void)printf("broke host %s of %s; what it had staged is in salvage\n", target->host->id, target->place.path);
    return 0;
}

/* ---- the command */

static int break_it(Target *target, const SwArguments *arguments)
{
    SwConfig config;
    SwControl *control;
    int r = target->host ? may_break(target, arguments) : 0;

    sw_join_settings(&config);
    if (r == 0)
        r = sw_join(&target->place, &target->survey, &config, &control);
    if (r != 0)
        return r;
    r = target->host ? break_host(target, control) : break_lock(target, control);
    (void)sw_control_close(control);
    return r;
}

/* The word may be either, unless it has a slash. */
static int find_target(Target *target, const char *word)
{
    g_autofree char *path = sw_place_relative(&target->place, word);
    g_autofree char *shown = sw_printable(word, FALSE);
    gboolean is_lock = path && find_lock(target, path);
    int r = strchr(word, '/') ? 0 : sw_place_find_host(&target->place, target->hosts, word, &target->host);

    if (r != 0)
        return r;
    if (is_lock && target->host)
        return sw_fail("%s is a host and a lock of %s: write ./%s for the lock", shown, target->place.path, shown);
    if (is_lock || target->host)
        return 0;
    return sw_fail("%s has no lock and no host %s", target->place.path, shown);
}

static int break_in_place(const SwArguments *arguments, const char *place, const char *word)
{
    Target target = {.as_json = arguments->json};
    int r = open_place(&target, place);

    if (r == 0)
        r = find_target(&target, word);
    if (r == 0)
        r = break_it(&target, arguments);
    target_clear(&target);
    return r;
}

/* The one source mounted here that has such a host. */
static int break_anywhere(const SwArguments *arguments, const char *word)
{
    g_autoptr(GPtrArray) mounts = sw_mounts_list();
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    g_autofree char *shown = sw_printable(word, FALSE);
    const char *found = NULL;
    guint n = 0;
    int r;

    for (guint i = 0; mounts && i < mounts->len; i++) {
        const SwMount *mount = mounts->pdata[i];
        Target target = {0};

        if (!g_hash_table_add(seen, mount->source))
            continue;
        r = open_place(&target, mount->source);
        if (r == 0)
            r = sw_place_find_host(&target.place, target.hosts, word, &target.host);
        if (target.host) {
            found = mount->source;
            n++;
        }
        target_clear(&target);
        if (r != 0)
            return r;
    }
    if (n == 1)
        return break_in_place(arguments, found, word);
    return sw_fail(n > 1 ? "several sources that are mounted here have a host %s: write PATH before it"
                         : "no source that is mounted here has a host %s, and there is no such file; write PATH before "
                           "it",
                   shown);
}

static int run(const SwArguments *arguments)
{
    const char *word = arguments->words[arguments->n_words - 1];
    g_autofree char *place = NULL, *relative = NULL, *path = NULL;

    if (arguments->n_words == 2)
        return break_in_place(arguments, arguments->words[0], word);
    if (!strchr(word, '/') && !g_file_test(word, G_FILE_TEST_EXISTS | G_FILE_TEST_IS_SYMLINK))
        return break_anywhere(arguments, word);
    if (!sw_place_find(word, &place, &relative))
        return sw_fail("%s is in no source of safewritefs and in no mount of one", word);
    path = g_strconcat("./", relative, NULL);
    return break_in_place(arguments, place, path);
}

const SwCommand sw_break_command = {
    .name = "break",
    .options = "json force",
    .min_words = 1,
    .max_words = 2,
    .usage = "[PATH] LOCK|HOST",
    .summary = "Breaks a lock file wherever its owner is, or fences and buries a host.  LOCK is a path, or with PATH "
               "one below it;\nHOST a host id, its beginning, or a hostname.  A host that lives is broken with --force "
               "only.",
    .run = run,
};
