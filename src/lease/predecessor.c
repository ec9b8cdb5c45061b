/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Burying dead mounts of this machine.
 *
 * A mount holds the lock on its record as long as it lives, and the kernel lets go of it when it dies; so the lock
 * being free, in the same boot, means dead [P7].  One at a time buries (breaker.c).  The order of the steps, from which
 * fencing follows [P8], is core/course.h's:
 *
 *   REMOVE_RELEASED  no lease released any more; by this a host that lives learns that it was given up
 *   REMOVE_STAGES    to salvage: from here a rename of one fails at the server, and nothing new can be staged; then the
 *                    old versions that it kept
 *   DROP_LEASES      appends ended on a copy (last_append.c), then dropped
 *   BREAK_LOCKS      of applications, moved to salvage (app_lock.c)
 *   REMOVE_HOST      the record, and the directory: claims of that host bind nobody any more
 *
 * A step that fails ends the burial; the record is still there, and the next one starts over.
 */

#include "../core/course.h"
#include "app_lock.h"
#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define RECORD_AGE_SECONDS 60 /* a mount makes its record at once */
#define EVACUATE_ROUNDS 100
#define SMALL_DIR_MAX 1000
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NONBLOCK)

/* ---- leases of the dead */

/* Of that host, or with NULL of any that is gone. */
static int drop_lease_of(SwControl *control, const SwEpoch *by, const char *name, const char *host_id)
{
    g_autofree char *text = NULL;
    SwLeaseText lease;
    int r;

    if (g_str_has_suffix(name, SW_MARK)) {
        sw_sweep_mark(control, by, SW_IN_LEASES, name);
        return 0;
    }
    r = sw_read_link(control->port, control->leases, name, &text);
    if (r == -ENOENT || r == -EINVAL || r == -EMSGSIZE)
        return 0;
    if (r < 0)
        return r;
    if (sw_lease_text_parse(text, &lease) < 0 || (host_id && strcmp(lease.host_id, host_id) != 0))
        return 0;
    if (!host_id && sw_control_host_exists(control, lease.host_id) != 0)
        return 0;
    r = sw_break_lease(control, by, name, text);
    return r == -ENOENT ? 0 : r;
}

static int drop_leases_of(SwControl *control, const SwEpoch *by, const char *host_id)
{
    g_autoptr(GPtrArray) names = NULL;
    int r = sw_dir_names(control->port, control->leases, SW_HOSTS_MAX, FALSE, &names);

    for (guint i = 0; r == 0 && i < names->len; i++) {
        sw_control_beat_if_due(control);
        r = drop_lease_of(control, by, names->pdata[i], host_id);
    }
    return r;
}

void sw_sweep_leases(SwControl *control)
{
    sw_ignore(drop_leases_of(control, sw_epoch_now(control), NULL)); /* what is left now, the next sweep finds */
}

/* ---- stages of the dead */

gboolean sw_stage_note(SwPort *port, int dirfd, const char *note, uid_t owner, SwSalvageInfo *ret_info)
{
    g_autofree char *text = NULL;
    struct stat st;

    if (port->statat(port, dirfd, note, &st) < 0 || st.st_uid != owner)
        return FALSE;
    if (S_ISLNK(st.st_mode) ? sw_read_link(port, dirfd, note, &text) < 0
                            : sw_port_read_file(port, dirfd, note, SW_RECORD_MAX, &text, &st) < 0 || st.st_uid != owner)
        return FALSE;
    return sw_salvage_info_parse(text, strlen(text), ret_info) == 0;
}

static void tell_saved(SwControl *control, const SwSalvageInfo *info, const char *host_id)
{
    SwEvent event = {.kind = SW_EVENT_SALVAGED, .path = info->path, .command = info->command, .host_id = host_id};

    event.reason = info->reason;
    event.pid = info->pid;
    sw_tell_event(control, SW_NOTE_INFO, &event,
                  "%s: not committed (%s), what %s (pid %d) wrote on host %s is in salvage",
                  *info->path ? info->path : "a file", info->reason, *info->command ? info->command : "a program",
                  (int)info->pid, host_id);
}

static int evacuate_file(SwControl *control, int dirfd, const char *name, const struct stat *st, const char *host_id,
                         const char *reason)
{
    SwPort *port = control->port;
    g_autofree char *note = g_strconcat(name, SW_DESCRIPTION, NULL);
    SwCred owner = {.uid = st->st_uid, .gid = st->st_gid};
    SwSalvageInfo known = {0};
    gboolean described = sw_stage_note(port, dirfd, note, st->st_uid, &known);
    SwSalvageInfo info = {.path = described ? known.path : (char *)"", .reason = (char *)reason};
    int r;

    info.command = described ? known.command : (char *)"";
    info.pid = known.pid;
    info.synced = known.synced;
    r = sw_salvage_put(control, dirfd, name, host_id, &info, &owner);
    if (r == 0) {
        (void)port->unlinkat(port, dirfd, note, 0);
        tell_saved(control, &info, host_id);
    }
    sw_salvage_info_clear(&known);
    return r;
}

/* A note without its stage: that was committed, or goes to salvage first. */
static int evacuate_description(SwControl *control, int dirfd, const char *note)
{
    g_autofree char *name = g_strndup(note, strlen(note) - strlen(SW_DESCRIPTION));
    struct stat st;

    if (control->port->statat(control->port, dirfd, name, &st) == 0)
        return 0;
    return control->port->unlinkat(control->port, dirfd, note, 0);
}

static int evacuate_stage(SwControl *control, int dirfd, const char *name, const char *host_id, const char *reason)
{
    SwPort *port = control->port;
    struct stat st;
    int r = port->statat(port, dirfd, name, &st);

    if (r == 0 && (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) && g_str_has_suffix(name, SW_DESCRIPTION))
        r = evacuate_description(control, dirfd, name);
    else if (r == 0 && S_ISREG(st.st_mode) && g_str_has_suffix(name, SW_PART))
        r = port->unlinkat(port, dirfd, name, 0);
    else if (r == 0 && S_ISREG(st.st_mode))
        r = evacuate_file(control, dirfd, name, &st, host_id, reason);
    else if (r == 0)
        r = sw_salvage_junk(control, dirfd, name);
    return r == -ENOENT ? 0 : r;
}

/* Until it is empty and gone; a living owner may still be adding (P8). */
static int evacuate_stage_dir(SwControl *control, int stage, const char *worker, const char *host_id,
                              const char *reason)
{
    SwPort *port = control->port;
    int fd = port->openat(port, stage, worker, OPEN_DIR, 0);
    int r = fd;

    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    for (guint round = 0; round < EVACUATE_ROUNDS; round++) {
        g_autoptr(GPtrArray) names = NULL;

        r = sw_dir_names(port, fd, SW_STAGES_MAX, FALSE, &names);
        for (guint i = 0; r == 0 && i < names->len; i++) {
            sw_control_beat_if_due(control);
            r = evacuate_stage(control, fd, names->pdata[i], host_id, reason);
        }
        if (r == 0)
            r = port->unlinkat(port, stage, worker, AT_REMOVEDIR);
        if (r != -ENOTEMPTY)
            break;
    }
    sw_fd_close(port, &fd);
    return r == -ENOENT ? 0 : r;
}

/* A mark that was not put in its place. */
static void remove_unput(SwPort *port, int released, const char *name)
{
    g_autoptr(GPtrArray) names = NULL;
    int fd = port->openat(port, released, name, OPEN_DIR, 0);

    if (fd >= 0 && sw_dir_names(port, fd, SMALL_DIR_MAX, FALSE, &names) == 0)
        for (guint i = 0; i < names->len; i++)
            (void)port->unlinkat(port, fd, names->pdata[i], 0);
    sw_fd_close(port, &fd);
    (void)port->unlinkat(port, released, name, AT_REMOVEDIR);
}

/* A directory of what nobody wants any more. */
static int remove_rubbish(SwControl *control, int parent, const char *name)
{
    SwPort *port = control->port;
    int fd = port->openat(port, parent, name, OPEN_DIR, 0);
    int r = fd;

    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    for (guint round = 0; round < EVACUATE_ROUNDS; round++) {
        g_autoptr(GPtrArray) names = NULL;

        r = sw_dir_names(port, fd, SMALL_DIR_MAX, FALSE, &names);
        for (guint i = 0; r == 0 && i < names->len; i++) {
            sw_control_beat_if_due(control);
            if (port->unlinkat(port, fd, names->pdata[i], 0) == -EISDIR)
                remove_unput(port, fd, names->pdata[i]);
        }
        if (r == 0)
            r = port->unlinkat(port, parent, name, AT_REMOVEDIR);
        if (r != -ENOTEMPTY)
            break;
    }
    sw_fd_close(port, &fd);
    return r == -ENOENT ? 0 : r;
}

static int remove_stages(SwControl *control, int host, const char *host_id, const char *reason)
{
    SwPort *port = control->port;
    g_autoptr(GPtrArray) workers = NULL;
    int stage = sw_open_trusted(port, host, "stage", control->owner);
    int r = stage;

    if (stage >= 0)
        r = sw_dir_names(port, stage, SMALL_DIR_MAX, FALSE, &workers);
    for (guint i = 0; r == 0 && i < workers->len; i++)
        r = evacuate_stage_dir(control, stage, workers->pdata[i], host_id, reason);
    sw_fd_close(port, &stage);
    if (r == 0)
        r = port->unlinkat(port, host, "stage", AT_REMOVEDIR);
    return r == -ENOENT ? 0 : r;
}

/* ---- record and directory */

/*
 * The record goes out of the directory before that is removed, since NFS would leave an open file there under another
 * name; and it stays locked until both are gone.
 */
static int remove_host(SwControl *control, const SwEpoch *by, int host, const char *host_id)
{
    SwPort *port = control->port;
    g_autofree char *buried = sw_control_unique(control, "buried-");
    g_autoptr(GPtrArray) names = NULL;
    int r = sw_dir_names(port, host, SMALL_DIR_MAX, FALSE, &names);

    for (guint i = 0; r == 0 && i < names->len; i++)
        if (strcmp(names->pdata[i], "record") != 0)
            r = port->unlinkat(port, host, names->pdata[i], 0);
    if (r == 0)
        r = port->renameat(port, host, "record", by->released, buried, 0);
    if (r < 0 && r != -ENOENT) /* it died before it had one, or whoever buried it did after this */
        return r;
    r = port->unlinkat(port, control->hosts, host_id, AT_REMOVEDIR);
    (void)port->unlinkat(port, by->released, buried, 0);
    return r;
}

int sw_read_record(SwControl *control, int fd, SwHostRecord *ret_record)
{
    SwPort *port = control->port;
    char text[SW_RECORD_MAX];
    struct stat st;
    ssize_t got;
    int r = port->statat(port, fd, "", &st);

    if (r < 0)
        return r;
    if (!S_ISREG(st.st_mode) || st.st_uid != control->owner || st.st_size > SW_RECORD_MAX)
        return -EBADMSG;
    got = port->pread(port, fd, text, sizeof text, 0);
    return got < 0 ? (int)got : sw_host_record_parse(text, got, ret_record);
}

/* Is the record behind `fd` still the one at its name? */
static gboolean still_there(SwPort *port, int host, int fd)
{
    struct stat opened, named;

    return port->statat(port, fd, "", &opened) == 0 && port->statat(port, host, "record", &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/* The locked record of a dead mount of this machine; -EEXIST if it lives or cannot be judged from here [P7]. */
static int lock_dead_record(SwControl *control, int host, const char *host_id)
{
    SwPort *port = control->port;
    SwHostRecord record;
    struct stat st;
    int fd;
    int r = port->statat(port, host, "record", &st);

    if (r < 0 || !S_ISREG(st.st_mode))
        return r < 0 ? r : -EEXIST;
    fd = port->openat(port, host, "record", O_RDWR | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return fd;
    r = sw_read_record(control, fd, &record);
    if (r == 0 && strcmp(record.id, host_id) == 0 && *control->boot_id &&
        strcmp(record.boot_id, control->boot_id) == 0 && port->try_flock(port, fd) == 0 && still_there(port, host, fd))
        return fd;
    sw_fd_close(port, &fd);
    return -EEXIST;
}

/* ---- the burial [P8] */

typedef struct {
    SwControl *control;
    const SwEpoch *by;
    int host; /* hosts/<id> */
    const char *id, *reason;
    SwEpoch *own; /* of a mount that leaves: its own epoch */
} Burial;

static int take_step(gpointer data, SwStep step)
{
    const Burial *b = data;
    int r;

    switch (step) {
    case SW_STEP_REMOVE_RELEASED:
        return remove_rubbish(b->control, b->host, "released");
    case SW_STEP_REMOVE_STAGES:
        r = remove_stages(b->control, b->host, b->id, b->reason);
        return r < 0 ? r : remove_rubbish(b->control, b->host, "old");
    case SW_STEP_DROP_LEASES:
        return drop_leases_of(b->control, b->by, b->id);
    case SW_STEP_BREAK_LOCKS:
        return sw_app_locks_drop_of(b->control, b->by, b->id);
    case SW_STEP_REMOVE_HOST:
        return remove_host(b->control, b->by, b->host, b->id);
    case SW_STEP_REMOVE_OWN_HOST:
        sw_epoch_remove(b->control, b->own);
        return 0;
    default:
        g_assert_not_reached();
    }
}

int sw_bury(SwControl *control, const SwEpoch *by, int host, const char *host_id, const char *reason)
{
    Burial b = {.control = control, .by = by, .host = host, .id = host_id, .reason = reason};

    return sw_course_run(sw_epoch_course, SW_EPOCH_CONDEMNED, SW_EPOCH_GONE, take_step, &b, NULL);
}

int sw_fence(SwControl *control, int host, const char *host_id, const char *reason)
{
    Burial b = {.control = control, .host = host, .id = host_id, .reason = reason};

    return sw_course_run(sw_epoch_course, SW_EPOCH_CONDEMNED, SW_EPOCH_FENCED, take_step, &b, NULL);
}

int sw_leave(SwControl *control, SwEpoch *epoch, gboolean idle)
{
    Burial b = {
        .control = control, .by = epoch, .host = epoch->own, .id = epoch->id, .reason = "unmounted", .own = epoch};

    return sw_course_run(sw_epoch_course, idle ? SW_EPOCH_IDLE : SW_EPOCH_LEAVING, SW_EPOCH_GONE, take_step, &b, NULL);
}

gboolean sw_is_dead_here(SwControl *control, const char *host_id)
{
    SwPort *port = control->port;
    int host = sw_open_trusted(port, control->hosts, host_id, control->owner);
    int record = host < 0 ? host : lock_dead_record(control, host, host_id);
    gboolean dead = record >= 0;

    sw_fd_close(port, &record);
    sw_fd_close(port, &host);
    return dead;
}

int sw_bury_if_dead(SwControl *control, const char *host_id)
{
    SwPort *port = control->port;
    const SwEpoch *by = sw_epoch_now(control);
    int record, host, r;

    if (!sw_host_id_is_valid(host_id) || strcmp(host_id, by->id) == 0)
        return -EEXIST;
    host = sw_open_trusted(port, control->hosts, host_id, control->owner);
    if (host < 0)
        return host;
    record = r = lock_dead_record(control, host, host_id);
    if (record >= 0) {
        r = sw_breaking_begin(control, by, SW_IN_LEASES, host_id);
        if (r == 0) {
            /* Another may have buried it before the mark was ours; then what still names it has no undertaker. */
            r = still_there(port, host, record) ? sw_bury(control, by, host, host_id, "crashed") : -ENOENT;
            sw_breaking_end(control, by, SW_IN_LEASES, host_id);
        }
        sw_fd_close(port, &record);
    }
    sw_fd_close(port, &host);
    return r;
}

/* Older than any mount takes to come up.  Compared by the server's clock (C23). */
static gboolean is_leftover(SwControl *control, int dirfd, const char *name, mode_t kind)
{
    SwPort *port = control->port;
    struct stat now, then;

    return port->statat(port, sw_epoch_now(control)->own, "", &now) == 0 &&
           port->statat(port, dirfd, name, &then) == 0 && (then.st_mode & S_IFMT) == kind &&
           then.st_uid == control->owner && now.st_ctim.tv_sec - then.st_ctim.tv_sec > RECORD_AGE_SECONDS;
}

/* A mount that died before its record was there leaves a directory with an unfinished one at most. */
static void drop_stillborn(SwControl *control, const char *host_id)
{
    SwPort *port = control->port;
    int host;

    if (!is_leftover(control, control->hosts, host_id, S_IFDIR))
        return;
    host = sw_open_trusted(port, control->hosts, host_id, control->owner);
    if (host >= 0)
        (void)port->unlinkat(port, host, "record.new", 0);
    sw_fd_close(port, &host);
    (void)port->unlinkat(port, control->hosts, host_id, AT_REMOVEDIR); /* fails unless it is empty */
}

/* Before that, it was about to learn the owner or to write the format. */
static void drop_unfinished(SwControl *control)
{
    SwPort *port = control->port;
    g_autoptr(GPtrArray) names = NULL;

    if (sw_dir_names(port, control->dir, SMALL_DIR_MAX, FALSE, &names) < 0)
        return;
    for (guint i = 0; i < names->len; i++) {
        const char *name = names->pdata[i];

        if ((g_str_has_prefix(name, "probe.") || g_str_has_prefix(name, "format.")) &&
            is_leftover(control, control->dir, name, S_IFREG))
            (void)port->unlinkat(port, control->dir, name, 0);
    }
}

void sw_bury_predecessors(SwControl *control)
{
    g_autoptr(GPtrArray) names = NULL;

    drop_unfinished(control);
    if (sw_dir_names(control->port, control->hosts, SW_HOSTS_MAX, TRUE, &names) < 0)
        return;
    for (guint i = 0; i < names->len; i++) {
        const char *name = names->pdata[i];

        if (!sw_host_id_is_valid(name) || strcmp(name, sw_control_host_id(control)) == 0)
            continue;
        if (sw_bury_if_dead(control, name) == -ENOENT)
            drop_stillborn(control, name);
    }
}
