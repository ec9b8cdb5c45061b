/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * This mount's place in the control directory: from open to close.
 *
 *   hosts/<id>              mkdir, exclusive: the epoch is ours            [P4]
 *   record.new              made, flocked, written                         [P5]
 *   record                  renamed: never seen unlocked or half
 *   stage/<w>, released     made; a host without them has been buried      [P6]
 *   predecessors            buried (predecessor.c)
 */

#include "control_internal.h"

#include "salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EPOCH_TRIES 16
#define LINK_MAX_SIZE 2048 /* longer than any target of ours */
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NONBLOCK)

/* ---- small things */

char *sw_control_unique(SwControl *control, const char *prefix)
{
    return g_strdup_printf("%s%d", prefix, g_atomic_int_add(&control->sequence, 1));
}

int sw_read_link(SwPort *port, int dirfd, const char *name, char **ret_text)
{
    char text[LINK_MAX_SIZE];
    ssize_t got = port->readlinkat(port, dirfd, name, text, sizeof text);

    if (got < 0)
        return (int)got;
    if ((size_t)got >= sizeof text)
        return -EMSGSIZE;
    *ret_text = g_strndup(text, got);
    return 0;
}

int sw_open_fresh(SwControl *control, const char *name)
{
    return control->port->openat(control->port, control->dir, name, OPEN_DIR, 0);
}

const char *sw_control_host_id(const SwControl *control)
{
    return control->id;
}

int sw_control_stage_dir(SwControl *control, guint worker)
{
    g_assert(worker < SW_STAGE_DIRS);
    return control->stages[worker];
}

int sw_control_dir(SwControl *control)
{
    return control->dir;
}

/* ---- who we are [P5] */

/* A small text of the machine, without the end of its line; "" when there is none. */
static void read_machine_text(SwPort *port, const char *path, char *ret_text, size_t size)
{
    int fd = port->openat(port, AT_FDCWD, path, O_RDONLY, 0);
    ssize_t got;

    *ret_text = '\0';
    if (fd < 0)
        return;
    got = port->pread(port, fd, ret_text, size - 1, 0);
    ret_text[MAX(got, 0)] = '\0';
    ret_text[strcspn(ret_text, "\n")] = '\0';
    sw_fd_close(port, &fd);
}

static char *format_record(const SwControl *control, const SwConfig *config, gboolean locked)
{
    SwHostRecord record = {.pid = getpid(), .lease_us = config->lease_us, .version = SW_VERSION};

    strcpy(record.id, control->id);
    /* Without a lock the record says nothing about our life: nobody may take us for a dead mount of this machine. */
    strcpy(record.boot_id, locked && *control->boot_id ? control->boot_id : SW_NO_BOOT_ID);
    read_machine_text(control->port, "/etc/machine-id", record.machine_id, sizeof record.machine_id);
    return sw_host_record_format(&record);
}

static int write_record(SwControl *control, const SwConfig *config)
{
    SwPort *port = control->port;
    g_autofree char *text = NULL;
    int r;

    control->record = port->openat(port, control->own, "record.new", O_RDWR | O_CREAT | O_EXCL, 0644);
    if (control->record < 0)
        return control->record;
    text = format_record(control, config, port->try_flock(port, control->record) == 0);
    r = sw_port_write_all(port, control->record, text, strlen(text), 0);
    if (r == 0)
        r = port->fsync(port, control->record, FALSE);
    if (r == 0)
        r = port->renameat(port, control->own, "record.new", control->own, "record", 0);
    return r;
}

/* ---- the epoch [P4] */

static int make_dir(SwPort *port, int dirfd, const char *name, mode_t mode, int *ret_fd)
{
    int fd;
    int r = port->mkdirat(port, dirfd, name, mode);

    if (r < 0)
        return r;
    fd = port->openat(port, dirfd, name, OPEN_DIR, 0);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return port->chmodat(port, fd, "", mode); /* the umask took some of it */
}

static int make_epoch_dir(SwControl *control)
{
    SwPort *port = control->port;
    char hostname[256] = "";
    guint64 epoch;
    int r;

    (void)gethostname(hostname, sizeof hostname - 1);
    for (guint i = 0; i < EPOCH_TRIES; i++) {
        r = port->random(port, &epoch, sizeof epoch);
        if (r < 0)
            return r;
        sw_host_id_format(control->id, hostname, epoch);
        r = make_dir(port, control->hosts, control->id, control->root ? 0755 : 0700, &control->own);
        if (r != -EEXIST)
            return r;
    }
    return -EEXIST;
}

static int make_stage_dirs(SwControl *control)
{
    SwPort *port = control->port;
    int stage = -1;
    int r = make_dir(port, control->own, "stage", 0700, &stage);

    for (guint i = 0; r == 0 && i < SW_STAGE_DIRS; i++) {
        char name[8];

        (void)snprintf(name, sizeof name, "%u", i);
        r = make_dir(port, stage, name, control->root ? 01777 : 0700, &control->stages[i]);
    }
    sw_fd_close(port, &stage);
    return r;
}

static int claim_epoch(SwControl *control, const SwConfig *config, char **ret_why)
{
    int r = make_epoch_dir(control);

    if (r == 0)
        r = write_record(control, config);
    if (r == 0)
        r = make_dir(control->port, control->own, "released", 0700, &control->released);
    if (r == 0)
        r = make_stage_dirs(control);
    if (r < 0)
        return sw_refuse(ret_why, -r, "cannot make this mount's directory %s/%s/hosts/%s: %s", control->source_path,
                         SW_CONTROL_DIR, control->id, g_strerror(-r));
    return 0;
}

/* ---- open and close */

static SwControl *control_new(SwPort *port, const char *source_path, const SwConfig *config)
{
    SwControl *control = g_new0(SwControl, 1);

    control->port = port;
    control->source_path = g_strdup(source_path);
    control->root = geteuid() == 0;
    control->owner = geteuid();
    control->salvage_max = config->salvage_max;
    control->salvage_age_us = config->salvage_age_us;
    control->source = control->dir = control->hosts = control->leases = control->salvage = -1;
    control->own = control->record = control->released = -1;
    for (guint i = 0; i < SW_STAGE_DIRS; i++)
        control->stages[i] = -1;
    read_machine_text(port, "/proc/sys/kernel/random/boot_id", control->boot_id, sizeof control->boot_id);
    sw_mutex_init(&control->lock);
    return control;
}

static int open_source(SwControl *control, int source_fd, char **ret_why)
{
    control->source = control->port->openat(control->port, source_fd, ".", O_PATH | O_DIRECTORY, 0);
    if (control->source == -ENOTDIR)
        return sw_refuse(ret_why, ENOTDIR, "the source %s is not a directory", control->source_path);
    if (control->source < 0)
        return sw_refuse(ret_why, -control->source, "cannot open the source %s: %s", control->source_path,
                         g_strerror(-control->source));
    return 0;
}

int sw_control_open(SwPort *port, int source_fd, const char *source_path, const SwConfig *config,
                    SwControl **ret_control, char **ret_why)
{
    SwControl *control;
    int r = port->become(port, NULL);

    if (r < 0)
        return sw_refuse(ret_why, -r, "cannot act as the daemon itself: %s", g_strerror(-r));
    control = control_new(port, source_path, config);
    r = open_source(control, source_fd, ret_why);
    if (r == 0)
        r = sw_check_above(control, ret_why);
    if (r == 0)
        r = sw_check_below(control, ret_why);
    if (r == 0)
        r = sw_enter_control_dir(control, ret_why);
    if (r == 0)
        r = claim_epoch(control, config, ret_why);
    if (r < 0) {
        sw_control_close(control);
        return r;
    }
    sw_bury_predecessors(control);
    sw_control_trim_salvage(control);
    *ret_control = control;
    return 0;
}

/* Once the record is closed, a mount starting on this machine may take us for dead, and helps. */
static void leave(SwControl *control)
{
    SwPort *port = control->port;

    if (sw_evacuate_host(control, control->own, control->id, "unmounted") < 0)
        return; /* the next mount here buries us */
    sw_fd_close(port, &control->record);
    (void)port->unlinkat(port, control->own, "record.new", 0);
    (void)port->unlinkat(port, control->own, "record", 0);
    (void)port->unlinkat(port, control->hosts, control->id, AT_REMOVEDIR);
}

void sw_control_close(SwControl *control)
{
    SwPort *port;

    if (!control)
        return;
    port = control->port;
    (void)port->become(port, NULL);
    if (control->own >= 0)
        leave(control);
    for (guint i = 0; i < SW_STAGE_DIRS; i++)
        sw_fd_close(port, &control->stages[i]);
    sw_fd_close(port, &control->released);
    sw_fd_close(port, &control->record);
    sw_fd_close(port, &control->own);
    sw_fd_close(port, &control->salvage);
    sw_fd_close(port, &control->leases);
    sw_fd_close(port, &control->hosts);
    sw_fd_close(port, &control->dir);
    sw_fd_close(port, &control->source);
    sw_mutex_clear(&control->lock);
    g_free(control->source_path);
    g_free(control);
}

/* ---- other hosts and their claims [P9] */

int sw_control_host_exists(SwControl *control, const char *host_id)
{
    SwPort *port = control->port;
    struct stat st;
    int hosts;
    int r;

    if (!sw_host_id_is_valid(host_id))
        return 0;
    r = port->become(port, NULL);
    if (r < 0)
        return r;
    hosts = sw_open_fresh(control, "hosts");
    if (hosts < 0)
        return hosts;
    r = port->statat(port, hosts, host_id, &st);
    sw_fd_close(port, &hosts);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    return S_ISDIR(st.st_mode) && st.st_uid == control->owner;
}

/* 0: what stands there is a claim that binds nobody, or ours if `mine`; its text is *ret_text. */
static int judge_claim(SwControl *control, int dirfd, const char *name, gboolean mine, char **ret_text)
{
    g_autofree char *text = NULL;
    char host_id[SW_HOST_ID_MAX + 1];
    int r = sw_read_link(control->port, dirfd, name, &text);

    if (r == -EINVAL || r == -EMSGSIZE || (r == 0 && !sw_claim_parse(text, host_id)))
        return -EEXIST; /* no claim at all */
    if (r < 0)
        return r;
    if (!mine || strcmp(host_id, control->id) != 0) {
        r = sw_control_host_exists(control, host_id);
        if (r > 0) /* a mount of this machine may be dead and not buried yet */
            r = sw_bury_if_dead(control, host_id) == 0 ? 0 : -EEXIST;
        if (r < 0)
            return r;
    }
    *ret_text = g_steal_pointer(&text);
    return 0;
}

/* Renames the claim among our stages.  In a sticky directory only its owner may, who is gone: then we act as that one.
 */
static int take_claim(SwControl *control, int dirfd, const char *name, const char *taken, const SwCred *cred)
{
    SwPort *port = control->port;
    struct stat st;
    int r = port->become(port, cred);

    if (r == 0)
        r = port->renameat(port, dirfd, name, control->stages[0], taken, 0);
    if ((r == -EPERM || r == -EACCES) && port->statat(port, dirfd, name, &st) == 0 && S_ISLNK(st.st_mode)) {
        SwCred owner = {.uid = st.st_uid, .gid = st.st_gid};

        if (port->become(port, &owner) == 0)
            r = port->renameat(port, dirfd, name, control->stages[0], taken, 0);
    }
    return r;
}

/* It was something else by the time we moved it.  Where the name has been taken meanwhile, bytes go to salvage. */
static int put_back(SwControl *control, int dirfd, const char *name, const char *taken, const SwCred *cred)
{
    SwPort *port = control->port;
    SwSalvageInfo info = {.path = (char *)"", .reason = (char *)"conflict", .command = (char *)""};
    int r = port->renameat(port, control->stages[0], taken, dirfd, name, RENAME_NOREPLACE);

    if (r == -EINVAL || r == -ENOSYS || r == -EOPNOTSUPP) { /* NFS has no such rename, but link is exclusive */
        r = port->linkat(port, control->stages[0], taken, dirfd, name);
        if (r == 0)
            r = port->unlinkat(port, control->stages[0], taken, 0);
    }
    if (r < 0)
        (void)sw_salvage_put(control, control->stages[0], taken, control->id, &info, cred);
    return -EEXIST;
}

int sw_control_drop_claim(SwControl *control, int dirfd, const char *name, gboolean mine, const SwCred *cred)
{
    SwPort *port = control->port;
    g_autofree char *text = NULL, *moved = NULL, *taken = sw_control_unique(control, "claim-");
    int r = port->become(port, cred);

    if (r == 0)
        r = judge_claim(control, dirfd, name, mine, &text);
    if (r == 0) {
        r = take_claim(control, dirfd, name, taken, cred);
        /* Still as whoever could move it. */
        if (r == 0 && (sw_read_link(port, control->stages[0], taken, &moved) < 0 || strcmp(moved, text) != 0))
            r = put_back(control, dirfd, name, taken, cred);
    }
    (void)port->become(port, NULL);
    if (r == 0)
        (void)port->unlinkat(port, control->stages[0], taken, 0);
    return r;
}
