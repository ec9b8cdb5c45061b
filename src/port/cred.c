/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * On whose behalf the calling thread acts.
 *
 * fsuid, fsgid and, by the raw system call, supplementary groups belong to a thread, not to the process (glibc's
 * setgroups() would change them for all threads).  Going from fsuid 0 to another takes the file capabilities out of the
 * effective set, going back restores them; CAP_SETUID and CAP_SETGID stay, so that any order of changes is possible.
 *
 * Each thread remembers who it acts as, and calls the kernel for what differs only.  A thread begins as *unknown*, not
 * as the daemon: it inherits the identity its creator had at that moment.  The list of groups is compared without the
 * primary one, which the kernel consults anyway: a root caller in group 0 and a root daemon in no group are the same.
 */

#include "posix.h"

#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>

#ifdef SYS_setgroups32
#define SW_SYS_setgroups SYS_setgroups32
#else
#define SW_SYS_setgroups SYS_setgroups
#endif

typedef struct {
    uid_t uid;
    gid_t gid;
    guint n_groups;
    const gid_t *groups;
} Identity;

/* The daemon's own; immutable after the first port was made. */
static Identity own;

/* Who this thread acts as; thread-local, so free of locks. */
static __thread struct {
    gboolean known;
    Identity now; /* its groups are `own`'s or the buffer here */
    gid_t groups[G_N_ELEMENTS(((SwCred *)0)->groups)];
} self;

static guint drop_group(gid_t *ret_groups, const gid_t *groups, guint n_groups, gid_t dropped)
{
    guint n = 0;

    for (guint i = 0; i < n_groups; i++)
        if (groups[i] != dropped)
            ret_groups[n++] = groups[i];
    return n;
}

static void learn_own(void)
{
    static gsize once;

    if (g_once_init_enter(&once)) {
        int n = getgroups(0, NULL);
        gid_t *groups = g_new(gid_t, MAX(n, 0) + 1);

        n = getgroups(MAX(n, 0), groups);
        own.uid = geteuid();
        own.gid = getegid();
        own.n_groups = drop_group(groups, groups, MAX(n, 0), own.gid);
        own.groups = groups; /* kept for the life of the process */
        g_once_init_leave(&once, 1);
    }
}

static gboolean same_groups(const Identity *a, const Identity *b)
{
    return a->n_groups == b->n_groups &&
           (a->n_groups == 0 || memcmp(a->groups, b->groups, a->n_groups * sizeof *a->groups) == 0);
}

static gboolean same(const Identity *a, const Identity *b)
{
    return a->uid == b->uid && a->gid == b->gid && same_groups(a, b);
}

static void remember(const Identity *identity)
{
    self.known = TRUE;
    self.now = *identity;
    if (identity->groups == own.groups)
        return;
    if (identity->n_groups > 0)
        memcpy(self.groups, identity->groups, identity->n_groups * sizeof *self.groups);
    self.now.groups = self.groups;
}

/* setfsuid(2) and setfsgid(2) report no failure; asking with an impossible id tells what is in force. */
static int switch_ids(const Identity *want, gboolean all)
{
    if (all || want->gid != self.now.gid) {
        (void)setfsgid(want->gid);
        if ((gid_t)setfsgid((gid_t)-1) != want->gid)
            return -EPERM;
    }
    if (all || want->uid != self.now.uid) {
        (void)setfsuid(want->uid);
        if ((uid_t)setfsuid((uid_t)-1) != want->uid)
            return -EPERM;
    }
    return 0;
}

static int switch_to(const Identity *want)
{
    gboolean all = !self.known;
    int r;

    if (!all && same(&self.now, want))
        return 0;
    self.known = FALSE; /* until all of it has worked */
    if ((all || !same_groups(&self.now, want)) && syscall(SW_SYS_setgroups, want->n_groups, want->groups) < 0)
        return -errno;
    r = switch_ids(want, all);
    if (r == 0)
        remember(want);
    return r;
}

static int cred_become(SwPort *port, const SwCred *cred)
{
    gid_t groups[G_N_ELEMENTS(cred->groups)];
    Identity want = own;
    int r;

    if (own.uid != 0)
        return 0;
    if (!cred)
        return switch_to(&own);
    if (cred->uid == (uid_t)-1 || cred->gid == (gid_t)-1 || cred->n_groups > G_N_ELEMENTS(groups))
        return -EINVAL;
    want.uid = cred->uid;
    want.gid = cred->gid;
    want.n_groups = drop_group(groups, cred->groups, cred->n_groups, cred->gid);
    want.groups = groups;
    r = switch_to(&want);
    if (r < 0)
        (void)switch_to(&own); /* never half of somebody */
    return r;
}

int sw_cred_suspend(SwCredSaved *saved)
{
    saved->changed = FALSE;
    if (own.uid != 0 || (self.known && same(&self.now, &own)))
        return 0;
    if (self.known) {
        saved->changed = TRUE;
        saved->cred.uid = self.now.uid;
        saved->cred.gid = self.now.gid;
        saved->cred.n_groups = MIN(self.now.n_groups, G_N_ELEMENTS(saved->cred.groups));
        if (saved->cred.n_groups > 0)
            memcpy(saved->cred.groups, self.now.groups, saved->cred.n_groups * sizeof *saved->cred.groups);
    }
    return switch_to(&own);
}

void sw_cred_resume(const SwCredSaved *saved)
{
    /* It has been in force before, so it can be again; if not, the thread stays the daemon and says so next time. */
    if (saved->changed)
        (void)cred_become(NULL, &saved->cred);
}

void sw_cred_bind(SwPort *port)
{
    learn_own();
    port->become = cred_become;
}
