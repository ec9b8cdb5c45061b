/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of a lock by its program's own call (docs/protocol.md, L3).
 *
 * A host that was frozen right before its unlink(2) reached the server may be broken meanwhile, and another lock may
 * stand at the name when the call arrives.  So a lock of ours is renamed into a stage directory of the epoch it was
 * made in, first: that directory is gone then, and the server refuses (C21).  There it is removed, or renamed to where
 * the program wants it.  Until that is done the record still binds, so nobody takes the name meanwhile.
 */
#include "../port/replace.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>

typedef struct {
    SwOverlay *ov;
    const SwCaller *caller;
    int stage; /* directory of the lock's epoch */
    char *taken;
} Taking;

/* What only the place of the call forbids: the lock is on another file system than the control directory (EXDEV), or a
 * directory that its user may not write, which may be removed but not moved. */
static gboolean cannot_be_moved(int r)
{
    return r == -EXDEV || r == -EACCES || r == -EPERM;
}

/* The stage directory is gone, or the lock is. */
static int explain(SwOverlay *ov, int dirfd, const char *name, int r)
{
    struct stat st;
    if (r != -ENOENT && r != -ESTALE)
        return r;
    return ov->port->statat(ov->port, dirfd, name, &st) == 0 ? -EBUSY : -ENOENT;
}

/* Where it is, the server removes it whoever asks (C21). */
static int stays(const Taking *t, SwNode *parent, const char *name)
{
    int r = sw_lock_confirm(t->ov, t->caller, parent, name);
    return r == -ESTALE ? -EBUSY : r;
}

/*
 * 1: the lock is ours now; 0: it is none of ours, or has to be dealt with where it is; else -errno.  A directory that
 * is to be `empty` and is not stays where it is.
 */
static int take(Taking *t, SwNode *parent, const char *name, int dirfd, gboolean empty)
{
    SwOverlay *ov = t->ov;
    const SwEpoch *epoch = sw_lock_epoch(ov, parent, name);
    ov->port->become(ov->port, &t->caller->cred);
    if (!epoch)
        return 0;
    int r = empty ? sw_app_lock_dir_is_empty(ov->control, dirfd, name) : 0;
    if (r == -EACCES) /* who may not read it may remove it */
        return stays(t, parent, name);
    if (r < 0)
        return r;
    t->stage = sw_epoch_stage_dir(epoch, 0);
    sw_mutex_lock(&ov->lock);
    t->taken = g_strdup_printf("lock-%" G_GINT64_MODIFIER "x", ov->stage_seq++);
    sw_mutex_unlock(&ov->lock);
    r = ov->port->renameat(ov->port, dirfd, name, t->stage, t->taken, SW_RENAME_OWN);
    struct stat st;
    if ((r == -EIO || r == -ENOENT) && ov->port->statat(ov->port, t->stage, t->taken, &st) == 0)
        r = 0; /* done, and the reply was lost (C13) */
    if (cannot_be_moved(r))
        return stays(t, parent, name);
    return r < 0 ? explain(ov, dirfd, name, r) : 1;
}

static gboolean is_removed(SwPort *port, int dirfd)
{
    struct stat st;
    int r = port->stat_fresh(port, dirfd, "", &st);
    return r == -ESTALE || (r == 0 && st.st_nlink == 0);
}

static void put_back(Taking *t, int dirfd, const char *name)
{
    SwPort *port = t->ov->port;
    port->become(port, NULL);
    int r = port->renameat(port, t->stage, t->taken, dirfd, name, RENAME_NOREPLACE);
    if (sw_lacks_rename(r)) /* nobody is there: the record still binds */
        r = port->renameat(port, t->stage, t->taken, dirfd, name, 0);
    /* Whoever has broken this host meanwhile has the directory, and the lock with it. */
    if (r < 0)
        sw_note(t->ov, is_removed(port, t->stage) ? SW_NOTE_INFO : SW_NOTE_WARNING,
                "%s: the lock could not be put back: %s", name, g_strerror(-r));
    port->become(port, &t->caller->cred);
}

/* In a sticky directory only the owner may remove, who may be another than the caller. */
static int remove_taken(Taking *t, int flags)
{
    SwPort *port = t->ov->port;
    int r = port->unlinkat(port, t->stage, t->taken, flags);
    if (r == -EPERM || r == -EACCES) {
        port->become(port, NULL);
        r = port->unlinkat(port, t->stage, t->taken, flags);
        port->become(port, &t->caller->cred);
    }
    return r == -ENOENT ? 0 : r;
}

int sw_lock_unlink(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, int dirfd, int flags)
{
    Taking t = {.ov = ov, .caller = caller};
    int r = take(&t, parent, name, dirfd, (flags & AT_REMOVEDIR) != 0);
    if (r == 0) {
        gboolean data = !(flags & AT_REMOVEDIR) && !sw_lock_is_name(ov, parent, name);
        r = data ? sw_old_unlink(ov, dirfd, name) : ov->port->unlinkat(ov->port, dirfd, name, flags);
    } else if (r > 0) {
        r = remove_taken(&t, flags);
        if (r < 0)
            put_back(&t, dirfd, name);
    }
    g_free(t.taken);
    return r;
}

static gboolean same_file(SwOverlay *ov, int a_dir, const char *a, int b_dir, const char *b)
{
    SwFound first, second;
    return ov->port->lookat(ov->port, a_dir, a, &first) == 0 && ov->port->lookat(ov->port, b_dir, b, &second) == 0 &&
           sw_same_object(&first, &second);
}

static int rename_data(SwOverlay *ov, const SwCaller *caller, int dirfd, const char *name, int new_dirfd,
                       const char *new_name, guint flags)
{
    SwReplacing replacing = {0};
    if (!flags && sw_control_keeps_old(ov->control) && !same_file(ov, dirfd, name, new_dirfd, new_name))
        sw_replacing_begin(ov, &caller->cred, new_dirfd, new_name, FALSE, &replacing);
    int r = ov->port->renameat(ov->port, dirfd, name, new_dirfd, new_name, flags);
    sw_replacing_end(ov, &caller->cred, &replacing, r == 0);
    return r;
}

int sw_lock_rename(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, int dirfd, int new_dirfd,
                   const char *new_name, guint flags)
{
    Taking t = {.ov = ov, .caller = caller};
    ov->port->become(ov->port, &caller->cred);
    int r = flags & RENAME_EXCHANGE ? 0 : take(&t, parent, name, dirfd, FALSE);
    if (r == 0) {
        r = rename_data(ov, caller, dirfd, name, new_dirfd, new_name, flags);
    } else if (r > 0) {
        r = ov->port->renameat(ov->port, t.stage, t.taken, new_dirfd, new_name, flags);
        if (r < 0)
            put_back(&t, dirfd, name);
    }
    g_free(t.taken);
    return r;
}
