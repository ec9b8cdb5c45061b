/* SPDX-License-Identifier: GPL-2.0-or-later */

/* locks: who holds what, since when. */

#include "../core/lock_line.h"

#include "commands.h"
#include "place.h"
#include "view.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DAEMON_NAME "safewritefs"

/* A lock of flock(2) or fcntl(2), and the mount that told of it. */
typedef struct {
    const SwMount *mount;
    SwLockLine line;
} FileLock;

typedef struct {
    SwPlace place;
    SwView view;
    GPtrArray *wanted;     /* paths below the source; empty: all */
    GPtrArray *file_locks; /* of FileLock */
    gboolean complete;     /* all mounts of this machine have told theirs, and there is one */
} Locks;

static void file_lock_free(gpointer data)
{
    FileLock *lock = data;

    sw_lock_line_clear(&lock->line);
    g_free(lock);
}

static gboolean is_wanted(const Locks *locks, const char *path)
{
    for (guint i = 0; i < locks->wanted->len; i++)
        if (strcmp(locks->wanted->pdata[i], path) == 0)
            return TRUE;
    return locks->wanted->len == 0;
}

/* ---- flock and fcntl */

static void add_lines(Locks *locks, const SwMount *mount, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (guint i = 0; lines[i]; i++) {
        g_auto(SwLockLine) line = {0};
        FileLock *lock;

        if (!*lines[i] || sw_lock_line_parse(lines[i], &line) < 0 || !is_wanted(locks, line.path))
            continue;
        lock = g_new0(FileLock, 1);
        lock->mount = mount;
        lock->line = line;
        line.path = NULL;
        g_ptr_array_add(locks->file_locks, lock);
    }
}

/* A mount that is covered by another cannot be asked. */
static void ask_mounts(Locks *locks)
{
    GPtrArray *mounts = locks->place.mounts;
    guint asked = 0;

    locks->complete = TRUE;
    for (guint i = 0; i < mounts->len; i++) {
        const SwMount *mount = mounts->pdata[i];
        g_autofree char *text = NULL;
        int r;

        if (!sw_place_has_mount(&locks->place, mount))
            continue;
        r = mount->top ? sw_mount_attribute(mount->mountpoint, SW_LOCKS_XATTR, &text) : -EBUSY;
        asked++;
        if (r < 0) {
            locks->complete = FALSE;
            (void)sw_fail("the mount at %s cannot be asked for its flock and fcntl locks: %s", mount->mountpoint,
                          g_strerror(-r));
        } else {
            add_lines(locks, mount, text);
        }
    }
    locks->complete = locks->complete && asked > 0;
}

/* ---- processes of this machine */

typedef enum { LIFE_UNKNOWN, LIFE_LIVES, LIFE_ENDED } Life;

/* Process numbers of a daemon in another pid namespace say nothing here: then its own does not lead to it either. */
static gboolean shares_pids(const Locks *locks, const SwSurveyHost *host)
{
    SwPort *port = locks->place.port;
    char comm[64];

    if (!host || !host->here || host->record.pid <= 0)
        return FALSE;
    port->comm(port, (pid_t)host->record.pid, comm, sizeof comm);
    return strcmp(comm, DAEMON_NAME) == 0;
}

/*
 * Is the process that made the lock still there?  Its name, if so (g_free); and also where nobody can tell, Linux
 * before 6.9, whether it is the same process that has that number: a lock does not outlive its owner for long.
 */
static Life life_of(const Locks *locks, const SwLockText *says, char **ret_command)
{
    SwPort *port = locks->place.port;
    char comm[64];
    guint64 id;
    int fd;

    *ret_command = NULL;
    if (says->pid <= 0 || !shares_pids(locks, sw_survey_find(locks->view.hosts, says->host_id)))
        return LIFE_UNKNOWN;
    fd = port->pid_watch(port, (pid_t)says->pid, &id);
    if (fd < 0)
        return fd == -ESRCH ? LIFE_ENDED : LIFE_UNKNOWN;
    port->comm(port, (pid_t)says->pid, comm, sizeof comm);
    port->pid_unwatch(port, fd);
    if (id != 0 && says->process != 0 && id != says->process)
        return LIFE_ENDED;
    *ret_command = g_strdup(comm);
    return id != 0 && says->process != 0 ? LIFE_LIVES : LIFE_UNKNOWN;
}

/* ---- JSON */

static const char *kind_name(SwLockKind kind)
{
    static const char *const names[] = {"file", "symlink", "link", "dir"};

    return names[kind];
}

static void lock_json(const Locks *locks, const SwSurveyLock *lock, SwJson *json)
{
    g_autofree char *command = NULL;
    Life life = life_of(locks, &lock->says, &command);

    sw_json_open(json, NULL, '{');
    sw_json_text(json, "path", *lock->says.path ? lock->says.path : NULL);
    sw_json_text(json, "kind", kind_name(lock->says.kind));
    sw_json_text(json, "host", lock->says.host_id);
    sw_json_text(json, "host_state", sw_host_state_name(sw_view_state(&locks->view, lock->says.host_id)));
    sw_json_number(json, "pid", lock->says.pid);
    if (life == LIFE_UNKNOWN)
        sw_json_null(json, "process_alive");
    else
        sw_json_bool(json, "process_alive", life == LIFE_LIVES);
    sw_json_text(json, "command", command);
    sw_json_age(json, "age_seconds", lock->age_us);
    sw_json_close(json);
}

static void file_lock_json(const FileLock *lock, SwJson *json)
{
    sw_json_open(json, NULL, '{');
    sw_json_text(json, "mountpoint", lock->mount->mountpoint);
    sw_json_text(json, "path", lock->line.path);
    sw_json_text(json, "kind", lock->line.is_fcntl ? "fcntl" : "flock");
    sw_json_text(json, "mode", lock->line.is_write ? "write" : "read");
    sw_json_text(json, "state", lock->line.waits ? "waiting" : "held");
    sw_json_number(json, "first_byte", lock->line.start);
    if (lock->line.end == SW_LOCK_LINE_TO_THE_END)
        sw_json_null(json, "last_byte");
    else
        sw_json_number(json, "last_byte", lock->line.end);
    sw_json_number(json, "pid", lock->line.pid);
    sw_json_seconds(json, "age_seconds", lock->line.age_us);
    sw_json_close(json);
}

static void print_json(const Locks *locks)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '{');
    sw_json_text(&json, "source", locks->place.path);
    sw_json_open(&json, "application_locks", '[');
    for (guint i = 0; i < locks->view.locks->len; i++) {
        const SwSurveyLock *lock = locks->view.locks->pdata[i];

        if (is_wanted(locks, lock->says.path))
            lock_json(locks, lock, &json);
    }
    sw_json_close(&json);
    sw_view_leases_json(&locks->view, &json);
    sw_json_open(&json, "file_locks", '[');
    for (guint i = 0; i < locks->file_locks->len; i++)
        file_lock_json(locks->file_locks->pdata[i], &json);
    sw_json_close(&json);
    sw_json_bool(&json, "file_locks_complete", locks->complete);
    sw_json_bool(&json, "truncated", locks->view.survey.cut);
    sw_json_finish(&json);
}

/* ---- text */

static void print_lock(const Locks *locks, const SwSurveyLock *lock)
{
    static const char *const lives[] = {"", "", " (ended)"};
    g_autofree char *command = NULL;
    Life life = life_of(locks, &lock->says, &command);
    g_autofree char *shown = sw_printable(command ? command : "?", FALSE);
    g_autofree char *who = g_strdup_printf("%s/%" G_GINT64_FORMAT "%s", shown, lock->says.pid, lives[life]);
    g_autofree char *age = sw_age_text(lock->age_us);
    g_autofree char *path = sw_printable(*lock->says.path ? lock->says.path : "?", FALSE);

    (void)printf("%-8s %9s %-24s %-7s %-32s %s\n", kind_name(lock->says.kind), age, who,
                 sw_host_state_name(sw_view_state(&locks->view, lock->says.host_id)), lock->says.host_id, path);
}

static void print_file_lock(const FileLock *lock)
{
    g_autofree char *age = sw_age_text(lock->line.age_us);
    g_autofree char *path = sw_printable(lock->line.path, FALSE);
    g_autofree char *mountpoint = sw_printable(lock->mount->mountpoint, FALSE);
    g_autofree char *last = lock->line.end == SW_LOCK_LINE_TO_THE_END
                                ? g_strdup("end")
                                : g_strdup_printf("%" G_GINT64_FORMAT, lock->line.end);
    g_autofree char *range = g_strdup_printf("%" G_GINT64_FORMAT "-%s", lock->line.start, last);

    (void)printf("%-8s %9s %-7s %-5s %-20s %8" G_GINT64_FORMAT " %s/%s\n", lock->line.is_fcntl ? "fcntl" : "flock", age,
                 lock->line.waits ? "waiting" : "held", lock->line.is_write ? "write" : "read", range, lock->line.pid,
                 mountpoint, path);
}

static void print_locks(const Locks *locks)
{
    gboolean titled = FALSE;

    for (guint i = 0; i < locks->view.locks->len; i++) {
        const SwSurveyLock *lock = locks->view.locks->pdata[i];

        if (!is_wanted(locks, lock->says.path))
            continue;
        if (!titled)
            (void)printf("%-8s %9s %-24s %-7s %-32s %s\n", "LOCK", "HELD FOR", "PROCESS", "STATE", "HOST", "PATH");
        titled = TRUE;
        print_lock(locks, lock);
    }
    sw_view_leases_print(&locks->view);
    if (locks->file_locks->len > 0)
        (void)printf("\n%-8s %9s %-7s %-5s %-20s %8s %s\n", "KIND", "FOR", "STATE", "MODE", "BYTES", "PID", "FILE");
    for (guint i = 0; i < locks->file_locks->len; i++)
        print_file_lock(locks->file_locks->pdata[i]);
    if (locks->view.survey.cut)
        (void)printf("there is more than can be shown\n");
}

/* ---- the command */

static int want(Locks *locks, const SwArguments *arguments)
{
    locks->wanted = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 1; i < arguments->n_words; i++) {
        char *path = sw_place_relative(&locks->place, arguments->words[i]);

        if (!path)
            return sw_fail("%s is not in %s", arguments->words[i], locks->place.path);
        g_ptr_array_add(locks->wanted, path);
    }
    return 0;
}

static int show(Locks *locks, const SwArguments *arguments)
{
    SwSurvey survey;
    int r = want(locks, arguments);

    if (r == 0)
        r = sw_place_survey(&locks->place, &survey);
    if (r != 0)
        return r;
    r = sw_view_take(&locks->view, &survey, locks->place.path);
    if (r == 0) {
        locks->file_locks = g_ptr_array_new_with_free_func(file_lock_free);
        ask_mounts(locks);
        if (arguments->json)
            print_json(locks);
        else
            print_locks(locks);
    }
    sw_view_clear(&locks->view);
    g_clear_pointer(&locks->file_locks, g_ptr_array_unref);
    return r;
}

static int run(const SwArguments *arguments)
{
    Locks locks = {0};
    int r = sw_place_open(&locks.place, arguments->words[0]);

    if (r == 0)
        r = show(&locks, arguments);
    g_clear_pointer(&locks.wanted, g_ptr_array_unref);
    sw_place_clear(&locks.place);
    return r;
}

const SwCommand sw_locks_command = {
    .name = "locks",
    .options = "json",
    .min_words = 1,
    .max_words = G_MAXUINT,
    .usage = "PATH [FILE...]",
    .summary = "Shows lock files of applications, leases on contents, and flock and fcntl locks of the mounts of this "
               "machine.  With FILE: those of these files only.",
    .run = run,
};
