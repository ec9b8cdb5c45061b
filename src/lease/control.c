/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * This mount's place in the control directory: from open to close, and the claims of files made exclusively [P9].
 */

#include "control_internal.h"

#include "app_lock.h"
#include "old.h"
#include "salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define UNHEARD_MAX 100 /* notes from before there is somebody to hear them */
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NONBLOCK)

/* ---- small things */

char *sw_control_unique(SwControl *control, const char *prefix)
{
    return g_strdup_printf("%s%d", prefix, g_atomic_int_add(&control->sequence, 1));
}

int sw_read_link(SwPort *port, int dirfd, const char *name, char **ret_text)
{
    char text[SW_LINK_SIZE];
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

int sw_control_dir(SwControl *control)
{
    return control->dir;
}

/* ---- what people should know */

static void tell(SwControl *control, SwNoteLevel level, const SwEvent *event, const char *text)
{
    if (control->note) {
        control->note(control->note_data, level, event, text);
        return;
    }
    SW_HOLD(&control->lock);
    if (control->unheard->len < UNHEARD_MAX)
        g_ptr_array_add(control->unheard, sw_event_keep(level, event, text));
}

void sw_warn(SwControl *control, const char *format, ...)
{
    static const SwEvent none = {0};
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    tell(control, SW_NOTE_WARNING, &none, text);
}

void sw_tell_event(SwControl *control, SwNoteLevel level, const SwEvent *event, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    tell(control, level, event, text);
}

void sw_control_on_note(SwControl *control, SwNoteFunc note, gpointer data)
{
    control->note_data = data;
    control->note = note;
    for (guint i = 0; note && i < control->unheard->len; i++) {
        const SwKeptEvent *kept = control->unheard->pdata[i];
        note(data, kept->level, &kept->event, kept->text);
    }
    g_ptr_array_set_size(control->unheard, 0);
}

/* ---- open and close */

SwControl *sw_control_blank(SwPort *port, const char *source_path, const SwConfig *config)
{
    SwControl *control = g_new0(SwControl, 1);

    control->port = port;
    control->source_path = g_strdup(source_path);
    control->root = geteuid() == 0;
    control->owner = geteuid();
    control->lease_us = config->lease_us;
    control->source = control->dir = control->hosts = control->leases = control->locks = control->carriers =
        control->salvage = -1;
    control->keep_old_us = sw_old_wanted(port, config);
    sw_control_set_limits(control, config);
    g_queue_init(&control->kept);
    control->breaking = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    control->unheard = g_ptr_array_new_with_free_func(sw_event_free);
    sw_read_machine_text(port, "/proc/sys/kernel/random/boot_id", control->boot_id, sizeof control->boot_id);
    sw_mutex_init(&control->lock);
    return control;
}

/* No option is over G_MAXINT64. */
void sw_control_set_limits(SwControl *control, const SwConfig *config)
{
    __atomic_store_n(&control->salvage_max, (gint64)config->salvage_max, __ATOMIC_RELAXED);
    __atomic_store_n(&control->salvage_age_us, config->salvage_age_us, __ATOMIC_RELAXED);
    __atomic_store_n(&control->copy_max, (gint64)config->edit_copy_max, __ATOMIC_RELAXED);
    if (sw_control_limit(&control->keep_old_us))
        __atomic_store_n(&control->keep_old_us, config->keep_old_us, __ATOMIC_RELAXED);
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

static int claim_first(SwControl *control, char **ret_why)
{
    int r = sw_epoch_claim(control);

    if (r < 0)
        return sw_refuse(ret_why, -r, "cannot make this mount's directory in %s/%s/hosts: %s", control->source_path,
                         SW_CONTROL_DIR, g_strerror(-r));
    return 0;
}

int sw_control_open(SwPort *port, int source_fd, const char *source_path, const SwConfig *config,
                    SwControl **ret_control, char **ret_why)
{
    SwControl *control;
    int r = port->become(port, NULL);

    if (r < 0)
        return sw_refuse(ret_why, -r, "cannot act as the daemon itself: %s", g_strerror(-r));
    control = sw_control_blank(port, source_path, config);
    r = open_source(control, source_fd, ret_why);
    if (r == 0)
        r = sw_check_above(control, ret_why);
    if (r == 0)
        r = sw_check_below(control, ret_why);
    if (r == 0)
        r = sw_enter_control_dir(control, ret_why);
    if (r == 0)
        r = claim_first(control, ret_why);
    if (r < 0) {
        (void)sw_control_close(control);
        return r;
    }
    sw_bury_predecessors(control);
    sw_control_trim_salvage(control);
    *ret_control = control;
    return 0;
}

int sw_control_close(SwControl *control)
{
    SwPort *port;
    int r = 0;

    if (!control)
        return 0;
    port = control->port;
    (void)port->become(port, NULL);
    if (control->epoch)
        sw_left_retry(control); /* what stays now is found to be of nobody */
    /* Whoever holds a lock that was made through us does so no more: others may go on. */
    if (control->epoch)
        r = sw_leave(control, control->epoch, FALSE);
    while (control->epoch) {
        SwEpoch *epoch = control->epoch;

        control->epoch = epoch->older;
        sw_epoch_free(control, epoch);
    }
    sw_fd_close(port, &control->salvage);
    sw_fd_close(port, &control->carriers);
    sw_fd_close(port, &control->locks);
    sw_fd_close(port, &control->leases);
    sw_fd_close(port, &control->hosts);
    sw_fd_close(port, &control->dir);
    sw_fd_close(port, &control->source);
    sw_old_forget(control);
    sw_left_forget(control);
    g_hash_table_unref(control->breaking);
    g_ptr_array_unref(control->unheard);
    sw_mutex_clear(&control->lock);
    g_free(control->source_path);
    g_free(control);
    return r;
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
    if (!mine || strcmp(host_id, sw_epoch_now(control)->id) != 0) {
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
static int take_claim(SwControl *control, int dirfd, const char *name, int stage, const char *taken, const SwCred *cred)
{
    SwPort *port = control->port;
    struct stat st;
    int r = port->become(port, cred);

    if (r == 0)
        r = port->renameat(port, dirfd, name, stage, taken, 0);
    if ((r == -EPERM || r == -EACCES) && port->statat(port, dirfd, name, &st) == 0 && S_ISLNK(st.st_mode)) {
        SwCred owner = {.uid = st.st_uid, .gid = st.st_gid};

        if (port->become(port, &owner) == 0)
            r = port->renameat(port, dirfd, name, stage, taken, 0);
    }
    return r;
}

/* It was something else by the time we moved it.  Where the name has been taken meanwhile, bytes go to salvage. */
int sw_put_back(SwControl *control, int dirfd, const char *name, int stage, const char *taken, const SwCred *cred)
{
    SwPort *port = control->port;
    SwSalvageInfo info = {.path = (char *)"", .reason = (char *)"conflict", .command = (char *)""};
    int r = port->renameat(port, stage, taken, dirfd, name, RENAME_NOREPLACE);

    if (sw_lacks_rename(r)) { /* NFS has no such rename, but link is exclusive */
        r = port->linkat(port, stage, taken, dirfd, name);
        if (r == 0)
            r = port->unlinkat(port, stage, taken, 0);
    }
    if (r < 0)
        (void)sw_salvage_put(control, stage, taken, sw_control_host_id(control), &info, cred);
    return -EEXIST;
}

int sw_control_drop_claim(SwControl *control, int dirfd, const char *name, gboolean mine, const SwCred *cred)
{
    SwPort *port = control->port;
    g_autofree char *text = NULL, *moved = NULL, *taken = sw_control_unique(control, "claim-");
    int stage = sw_control_stage_dir(control, 0);
    int r = port->become(port, cred);

    if (r == 0)
        r = judge_claim(control, dirfd, name, mine, &text);
    if (r == 0) {
        r = take_claim(control, dirfd, name, stage, taken, cred);
        /* Still as whoever could move it. */
        if (r == 0 && (sw_read_link(port, stage, taken, &moved) < 0 || strcmp(moved, text) != 0))
            r = sw_put_back(control, dirfd, name, stage, taken, cred);
    }
    (void)port->become(port, NULL);
    if (r == 0)
        (void)port->unlinkat(port, stage, taken, 0);
    return r;
}
