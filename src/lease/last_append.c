/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * What the append of a dead holder leaves (C11) [P14].
 *
 * No server refuses a WRITE of a host that was taken for dead, however late it comes: it goes by handle.  So whoever
 * breaks the lease of an append, under the mark, does this before anybody else can get it:
 *
 *   find   the path of the intent has to lead to the very file
 *   cut    a torn record is cut off, in place: readers, and other names of the file, have it too
 *   copy   into a stage of ours, as the file's owner, up to the end as it was when we looked
 *   swap   RENAME out of our epoch, if the name still leads to that file
 *
 * From then on a late write finds a file that has no name, or only other ones (hard links).  Whichever call is the last
 * of a breaker, the next one begins again, or finds that the path leads elsewhere and nothing is left to do.
 */

#include "../port/replace.h"
#include "control_internal.h"
#include "old.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>

typedef struct {
    SwControl *control;
    const SwLeaseText *intent;
    int dir; /* where the file is, O_PATH */
    char *name;
    int file;      /* O_PATH */
    SwFound found; /* the file, before anything was done to it */
    SwCred owner;
    off_t end;      /* of what is whole */
    SwEpoch *epoch; /* ours */
    int stage;      /* directory in it */
    int copy;
    char *copy_name; /* among the stages */
} Ending;

static gboolean may_pass(int r)
{
    return sw_is_unsure(r) || r == -ENOMEM;
}

/* As the owner, since root may be nobody on the server; or else as the daemon: an appender may have had the file open
 * before its owner lost the right to. */
static int open_as_owner(Ending *e, int flags)
{
    SwPort *port = e->control->port;
    int r = port->become(port, &e->owner);

    if (r == 0)
        r = port->reopen(port, e->file, flags | O_NONBLOCK | O_NOCTTY);
    (void)port->become(port, NULL);
    if (r == -EACCES || r == -EPERM)
        r = port->reopen(port, e->file, flags | O_NONBLOCK | O_NOCTTY);
    return r;
}

/* ---- find */

static void ending_clear(Ending *e)
{
    SwPort *port = e->control->port;

    sw_fd_close(port, &e->copy);
    sw_fd_close(port, &e->file);
    sw_fd_close(port, &e->dir);
    g_free(e->copy_name);
    g_free(e->name);
}

static gboolean is_torn(const SwLeaseText *intent, const struct stat *st)
{
    return st->st_size > 0 && (guint64)st->st_size > intent->append_offset &&
           (guint64)st->st_size - intent->append_offset < intent->append_length;
}

/* -ENOENT: the path does not lead to that file (any more). */
static int find(Ending *e)
{
    SwPort *port = e->control->port;
    g_autofree char *parent = g_path_get_dirname(e->intent->path);
    int r;

    e->name = g_path_get_basename(e->intent->path);
    e->dir = port->open_beneath(port, e->control->source, parent, O_PATH | O_DIRECTORY);
    if (e->dir < 0)
        return e->dir;
    e->file = port->openat(port, e->dir, e->name, O_PATH, 0);
    if (e->file < 0)
        return e->file;
    r = port->lookat(port, e->file, "", &e->found);
    if (r < 0)
        return r;
    if (!S_ISREG(e->found.st.st_mode) || (guint64)e->found.st.st_ino != e->intent->file_ino)
        return -ENOENT;
    e->owner = (SwCred){.uid = e->found.st.st_uid, .gid = e->found.st.st_gid};
    e->end = is_torn(e->intent, &e->found.st) ? (off_t)e->intent->append_offset : e->found.st.st_size;
    return 0;
}

/* ---- cut */

static int cut(Ending *e)
{
    SwPort *port = e->control->port;
    int file, r;

    if (e->end == e->found.st.st_size)
        return 0;
    file = open_as_owner(e, O_WRONLY);
    if (file < 0)
        return file;
    r = port->ftruncate(port, file, e->end);
    if (r == 0)
        r = port->fsync(port, file, FALSE);
    sw_fd_close(port, &file);
    return r;
}

/* ---- copy */

static void beat(gpointer data)
{
    sw_control_beat_if_due(data);
}

/* As the owner, whose quota it counts against: so it belongs to whom it should, also where root is nobody. */
static int make_copy_file(Ending *e)
{
    SwControl *control = e->control;
    SwPort *port = control->port;
    g_autofree char *unique = sw_control_unique(control, "copy-");
    int r = port->become(port, &e->owner);

    e->copy_name = g_strconcat(unique, SW_PART, NULL);
    if (r == 0)
        r = port->openat(port, e->stage, e->copy_name, O_RDWR | O_CREAT | O_EXCL, 0600);
    (void)port->become(port, NULL);
    if (r < 0) {
        g_clear_pointer(&e->copy_name, g_free);
        return r;
    }
    e->copy = r;
    return 0;
}

static int copy_bytes(Ending *e)
{
    SwControl *control = e->control;
    SwPort *port = control->port;
    const SwMeanwhile meanwhile = {.call = beat, .data = control};
    int r, from = open_as_owner(e, O_RDONLY);

    if (from < 0)
        return from;
    if (port->clone(port, from, e->copy) == 0)
        r = port->ftruncate(port, e->copy, e->end);
    else if ((guint64)e->end > (guint64)sw_control_limit(&control->copy_max))
        r = -EFBIG;
    else
        r = sw_copy_sparse(port, from, e->copy, e->end, &meanwhile);
    sw_fd_close(port, &from);
    return r;
}

/* All that the file had; a copy of another owner or group would be another's file. */
static int carry(Ending *e)
{
    SwPort *port = e->control->port;
    const struct stat *st = &e->found.st;
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    struct stat now;
    int r = port->statat(port, e->copy, "", &now);

    if (r == 0 && (now.st_uid != st->st_uid || now.st_gid != st->st_gid))
        r = port->chownat(port, e->copy, "", st->st_uid, st->st_gid);
    if (r == 0)
        r = port->become(port, &e->owner);
    if (r == 0)
        r = sw_carry_xattrs(port, e->file, "", e->copy, TRUE);
    if (r == 0)
        r = port->chmodat(port, e->copy, "", st->st_mode & 07777);
    if (r == 0)
        r = port->utimensat(port, e->copy, "", times);
    (void)port->become(port, NULL);
    return r;
}

static int make_copy(Ending *e)
{
    SwPort *port = e->control->port;
    struct stat st;
    int r = port->statat(port, e->stage, "", &st);

    if (r == 0 && st.st_dev != e->found.st.st_dev)
        return -EXDEV; /* no rename will lead there */
    if (r == 0)
        r = make_copy_file(e);
    if (r == 0)
        r = copy_bytes(e);
    if (r == 0)
        r = carry(e);
    /* Records that were fsynced are not to be less safe than they were. */
    return r < 0 ? r : port->fsync(port, e->copy, FALSE);
}

/* ---- swap */

/* From here on what is at the name may be somebody's, so whoever finds it keeps it. */
static int finish_name(Ending *e)
{
    SwPort *port = e->control->port;
    g_autofree char *name = g_strndup(e->copy_name, strlen(e->copy_name) - strlen(SW_PART));
    int r = port->renameat(port, e->stage, e->copy_name, e->stage, name, 0);

    if (r == 0) {
        g_free(e->copy_name);
        e->copy_name = g_steal_pointer(&name);
    }
    return r;
}

/* Leads the name to that object?  Asked of the server. */
static gboolean leads_to(Ending *e, const SwFound *wanted)
{
    SwPort *port = e->control->port;
    struct stat st;
    SwFound found;

    return port->stat_fresh(port, e->dir, e->name, &st) == 0 && port->lookat(port, e->dir, e->name, &found) == 0 &&
           sw_same_object(&found, wanted);
}

static int rename_copy(Ending *e, guint flags)
{
    SwPort *port = e->control->port;
    int r = port->renameat(port, e->stage, e->copy_name, e->dir, e->name, flags);

    if ((r == -EACCES || r == -EPERM) && port->become(port, &e->owner) == 0)
        r = port->renameat(port, e->stage, e->copy_name, e->dir, e->name, flags);
    (void)port->become(port, NULL);
    return r;
}

/* The exchange has put it where the copy was. */
static void drop_replaced(Ending *e)
{
    SwControl *control = e->control;
    SwOld old;

    if (sw_control_keeps_old(control) && sw_old_take(control, e->stage, e->copy_name, &old) == 0)
        sw_old_drop_later(control, &old);
    else
        (void)control->port->unlinkat(control->port, e->stage, e->copy_name, 0);
}

/* Where there is no exchange: whoever reads the file goes on with it (C1). */
static int rename_copy_over(Ending *e)
{
    SwControl *control = e->control;
    SwOld old;
    gboolean kept = sw_control_keeps_old(control) && sw_old_link(control, e->dir, e->name, NULL, &old) == 0;
    int r = rename_copy(e, 0);

    if (kept && r == 0)
        sw_old_drop_later(control, &old);
    else if (kept)
        sw_old_drop(control, &old);
    return r;
}

/* Rewriters take no lease (C9): if a version of one slipped in before the exchange, it goes back. */
static int look_what_came_out(Ending *e, const SwFound *copy)
{
    SwPort *port = e->control->port;
    SwFound out;
    int r = port->lookat(port, e->stage, e->copy_name, &out);

    if (r == 0 && !sw_same_object(&out, &e->found))
        r = sw_give_back(port, e->stage, e->copy_name, e->dir, e->name, copy, &out);
    if (r == 0)
        drop_replaced(e);
    g_clear_pointer(&e->copy_name, g_free); /* what could not be told is left, and goes to salvage with the stage */
    return 0;
}

static int swap(Ending *e)
{
    SwPort *port = e->control->port;
    SwFound copy;
    int r = port->lookat(port, e->copy, "", &copy);
    gboolean exchanged = TRUE;

    sw_fd_close(port, &e->file); /* NFS would move a file that is held aside first, and leave a gap (F9) */
    if (r == 0 && !leads_to(e, &e->found))
        return 0; /* replaced meanwhile: a late write finds no name, as it should be */
    if (r == 0)
        r = finish_name(e);
    if (r < 0)
        return r;
    r = rename_copy(e, RENAME_EXCHANGE);
    if (sw_lacks_rename(r)) {
        exchanged = FALSE;
        r = rename_copy_over(e);
    }
    if (r < 0 && leads_to(e, &copy))
        r = 0; /* done, and the reply was lost (C13) */
    if (r < 0)
        return r;
    if (exchanged)
        return look_what_came_out(e, &copy);
    g_clear_pointer(&e->copy_name, g_free);
    return 0;
}

/* ---- all of it */

static int continue_on_copy(Ending *e)
{
    SwControl *control = e->control;
    SwPort *port = control->port;
    int r;

    e->epoch = sw_epoch_now(control);
    e->stage = e->epoch->stages[0];
    r = make_copy(e);
    if (r == 0)
        r = swap(e);
    if (e->copy_name)
        (void)port->unlinkat(port, e->stage, e->copy_name, 0);
    return r;
}

static int end_append(Ending *e)
{
    const char *why = NULL;
    int r = find(e);

    if (r == 0)
        r = cut(e);
    if (r < 0)
        return may_pass(r) ? r : 0;
    r = continue_on_copy(e);
    if (r == -ENOENT || r == -ESTALE) /* of ours, or of what was to be replaced */
        return sw_epoch_is_fenced(e->control, e->epoch, TRUE) ? -ESTALE : -EAGAIN;
    if (r == -EINTR || r == -ENOMEM || r == -ETIMEDOUT)
        return r;
    if (r == -EFBIG)
        why = "it is larger than edit-copy-max";
    if (r < 0)
        sw_warn(e->control,
                "%s: a host that is dead was appending to it, and no copy could be made to go on with (%s); "
                "should its write still arrive, it can overwrite records",
                e->intent->path, why ? why : g_strerror(-r));
    return 0;
}

int sw_end_append(SwControl *control, const SwLeaseText *intent)
{
    Ending e = {.control = control, .intent = intent, .dir = -1, .file = -1, .copy = -1};
    int r;

    if (!intent->appending || intent->append_offset > G_MAXINT64)
        return 0;
    if (!*intent->path) {
        sw_warn(control, "a host that is dead was appending to a file whose path is too long to be known here; should "
                         "its write still arrive, it can overwrite records");
        return 0;
    }
    r = end_append(&e);
    ending_clear(&e);
    return r;
}
