/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks that programs have made through this mount (docs/protocol.md, rules L6 to L9).
 */
#include "carry.h"

#include <errno.h>
#include <string.h>

/* Beyond, a lock is a file like any other. */
#define LOCKS_MAX 10000
/* What a creator leaves that exits is more than a name, a number and a time: data (C18). */
#define LEFT_MAX 64
/* Who sets an older time than this restores a file.  Locks that are linked carry an expiry by their host's clock, and
 * those may be hours apart (C23). */
#define RESTORED_SECONDS 2
#define RESTORED_LINK_SECONDS (24 * 60 * 60)
#define NAMES_MAX 8
#define BELIEVE_US (G_USEC_PER_SEC / 4)

typedef enum { LOCK_MAKING, LOCK_HELD, LOCK_ENDING } State;

struct SwLock {
    gint refs; /* atomic */
    /* immutable once held */
    SwNode *parent; /* counted */
    guint64 dir_ino;
    char *name;
    SwCred cred; /* of who made it */
    SwAppLock disk;
    gboolean doomed;  /* nobody has it: it may have been made, and could not be removed yet */
    gboolean adopted; /* for a removal only: sw_lock_may_remove */
    /* protected by SwLocks.lock */
    State state;
    SwOwner *owner; /* counted; NULL: nobody who could end */
    gboolean job;   /* the owner has it from a job of its own */
};

struct SwLocks {
    SwOverlay *ov;     /* immutable */
    SwExpiry *expiry;  /* immutable */
    SwOwners *owners;  /* immutable */
    gint64 swept_us;   /* of the ticking thread */
    SwMutex lock;      /* taken after none, and none is taken with it */
    GHashTable *table; /* lock: of SwLock by dir_ino and name, counted */
    gint count;        /* atomic: of the table */
};

typedef enum { VERDICT_LIVES, VERDICT_NOBODYS, VERDICT_DEAD, VERDICT_DATA } Verdict;

static guint lock_hash(gconstpointer p)
{
    const SwLock *lock = p;
    return g_str_hash(lock->name) ^ g_int64_hash(&lock->dir_ino);
}

static gboolean lock_equal(gconstpointer a, gconstpointer b)
{
    const SwLock *x = a, *y = b;
    return x->dir_ino == y->dir_ino && strcmp(x->name, y->name) == 0;
}

static SwLock *lock_ref(SwLock *lock)
{
    if (lock)
        g_atomic_int_inc(&lock->refs);
    return lock;
}

static void lock_unref(SwOverlay *ov, SwLock *lock)
{
    if (!lock || !g_atomic_int_dec_and_test(&lock->refs))
        return;
    sw_node_unref(ov, lock->parent);
    sw_owner_unref(lock->owner);
    sw_app_lock_clear(&lock->disk);
    g_free(lock->name);
    g_free(lock);
}

static guint64 ino_of(SwOverlay *ov, SwNode *dir)
{
    SW_HOLD(&ov->lock);
    return dir->id.ino;
}

gboolean sw_lock_is_name(SwOverlay *ov, SwNode *parent, const char *name)
{
    g_autofree char *path = sw_node_path(ov, parent, name);
    return sw_policy_classify(&sw_config_of(ov)->policy, path) == SW_CLASS_LOCK;
}

int sw_lock_open_flags(SwOverlay *ov, SwNode *parent, const char *name)
{
    return ov->network && sw_lock_is_name(ov, parent, name) ? SW_O_UNDELEGATED : 0;
}

gint64 sw_lock_believe_us(SwOverlay *ov, SwNode *parent, const char *name)
{
    return sw_lock_is_name(ov, parent, name) ? BELIEVE_US : G_MAXINT64;
}

/* ---- the table */

static SwLock *find(SwLocks *locks, guint64 dir_ino, const char *name)
{
    if (g_atomic_int_get(&locks->count) == 0)
        return NULL;
    SwLock key = {.dir_ino = dir_ino, .name = (char *)name};
    SW_HOLD(&locks->lock);
    return lock_ref(g_hash_table_lookup(locks->table, &key));
}

/* Only one thread ends a lock. */
static gboolean begin_end(SwLocks *locks, SwLock *lock)
{
    SW_HOLD(&locks->lock);
    if (lock->state != LOCK_HELD)
        return FALSE;
    lock->state = LOCK_ENDING;
    return TRUE;
}

static gboolean is_held(SwLocks *locks, const SwLock *lock)
{
    SW_HOLD(&locks->lock);
    return lock->state == LOCK_HELD;
}

static void set_held(SwLocks *locks, SwLock *lock)
{
    SW_HOLD(&locks->lock);
    lock->state = LOCK_HELD;
}

static void drop(SwLocks *locks, SwLock *lock)
{
    sw_mutex_lock(&locks->lock);
    gboolean listed = g_hash_table_lookup(locks->table, lock) == lock;
    if (listed) {
        g_hash_table_remove(locks->table, lock);
        g_atomic_int_add(&locks->count, -1);
    }
    sw_mutex_unlock(&locks->lock);
    if (listed)
        lock_unref(locks->ov, lock);
}

/* It is no lock any more; what stands at the name stays. */
static void forget(SwLocks *locks, SwLock *lock)
{
    if (!begin_end(locks, lock))
        return;
    if (sw_app_lock_is_ours(locks->ov->control, &lock->disk))
        sw_app_lock_give_up(locks->ov->control, &lock->disk);
    drop(locks, lock);
}

static int end_dead(SwLocks *locks, SwLock *lock)
{
    SwOverlay *ov = locks->ov;
    if (!begin_end(locks, lock))
        return -EAGAIN;
    g_autoptr(SwFile) dir = NULL;
    ov->port->become(ov->port, NULL);
    int r = sw_node_dir(ov, lock->parent, &dir);
    if (!sw_app_lock_is_ours(ov->control, &lock->disk))
        r = 0; /* overruled: the record there is a successor's */
    else if (r == 0)
        r = sw_app_lock_break(ov->control, &lock->disk, dir->fd, lock->name);
    else if (r == -ENOENT || r == -ESTALE)
        r = sw_app_lock_end(ov->control, &lock->disk); /* gone with its directory */
    if (r < 0 && r != -ENOENT && r != -ESTALE) {
        set_held(locks, lock); /* with the next tick again */
        return r;
    }
    SwEvent event = {.kind = SW_EVENT_LOCK_RELEASED, .path = lock->disk.says.path, .pid = lock->disk.says.pid};
    if (!lock->doomed)
        sw_note_event(ov, SW_NOTE_INFO, &event, "%s: the lock of process %d, which ended, is released", event.path,
                      (int)event.pid);
    sw_count(ov->port, SW_COUNT_LOCKS_RELEASED, !lock->doomed);
    drop(locks, lock);
    return 0;
}

/* ---- whose it is [L6] */

static gboolean left_data(SwLocks *locks, const SwLock *lock)
{
    SwOverlay *ov = locks->ov;
    g_autoptr(SwFile) dir = NULL;
    struct stat st;
    ov->port->become(ov->port, &lock->cred);
    if (sw_node_dir(ov, lock->parent, &dir) < 0 || ov->port->statat(ov->port, dir->fd, lock->name, &st) < 0)
        return FALSE;
    if (S_ISDIR(st.st_mode))
        return !sw_app_lock_dir_is_small(ov->control, dir->fd, lock->name, LEFT_MAX);
    return S_ISREG(st.st_mode) && st.st_size > LEFT_MAX;
}

static SwOwner *owner_of(SwLocks *locks, SwLock *lock)
{
    SW_HOLD(&locks->lock);
    return sw_owner_ref(lock->owner);
}

/* Another one has the lock from now on, or nobody, unless another thread has seen to it. */
static void hand_over(SwLocks *locks, SwLock *lock, SwOwner *from, SwOwner *to)
{
    sw_mutex_lock(&locks->lock);
    gboolean mine = lock->owner == from;
    if (mine) {
        lock->owner = sw_owner_ref(to);
        lock->job |= sw_owner_is_job(from);
    }
    sw_mutex_unlock(&locks->lock);
    if (mine)
        sw_owner_unref(from);
}

/* What was typed at a terminal was done when the command ended: the end of the shell, of its terminal or with the
 * status of whatever came last, says nothing about it (C18). */
static gboolean is_left_by_job(SwLocks *locks, const SwLock *lock, SwOwnerState state)
{
    SW_HOLD(&locks->lock);
    return lock->job && (state == SW_OWNER_HUNG_UP || state == SW_OWNER_FAILED || state == SW_OWNER_EXITED);
}

/* Acts as whom it likes.  `epoch`: sw_app_locks_epoch. */
static Verdict judge_in(SwLocks *locks, SwLock *lock, const SwEpoch *epoch)
{
    if (lock->disk.epoch != epoch)
        return VERDICT_DATA; /* others have ended it: what stands there is not ours */
    if (lock->doomed)
        return VERDICT_DEAD;
    for (;;) {
        SwOwner *owner = owner_of(locks, lock);
        if (!owner)
            return VERDICT_NOBODYS;
        SwOwnerState state = sw_owner_state(owner);
        Verdict verdict = state == SW_OWNER_LIVES ? VERDICT_LIVES : VERDICT_DEAD;
        if (state == SW_OWNER_EXITED || state == SW_OWNER_FAILED)
            verdict = left_data(locks, lock) ? VERDICT_DATA : verdict;
        gboolean stays = verdict == VERDICT_DEAD && is_left_by_job(locks, lock, state);
        gboolean passes = state == SW_OWNER_EXITED && verdict == VERDICT_DEAD;
        if (passes || stays)
            hand_over(locks, lock, owner, stays ? NULL : sw_owner_parent(owner));
        sw_owner_unref(owner);
        if (!passes && !stays)
            return verdict;
    }
}

static Verdict judge(SwLocks *locks, SwLock *lock)
{
    return judge_in(locks, lock, sw_app_locks_epoch(locks->ov->control));
}

static gboolean is_of_family(SwLocks *locks, SwLock *lock, const SwCaller *caller)
{
    SwOwner *owner = owner_of(locks, lock);
    gboolean is = owner && sw_owner_has(owner, caller->tid);
    sw_owner_unref(owner);
    return is;
}

/* ---- making */

static SwLock *lock_new(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwLockKind kind)
{
    SwLock *lock = g_new0(SwLock, 1);
    g_autofree char *path = sw_node_path(ov, parent, name);
    lock->refs = 1;
    sw_mutex_lock(&ov->lock);
    sw_node_ref_locked(parent);
    lock->parent = parent;
    lock->dir_ino = parent->id.ino;
    sw_mutex_unlock(&ov->lock);
    lock->name = g_strdup(name);
    lock->cred = caller->cred;
    lock->disk.says.kind = kind;
    lock->disk.says.dir_ino = lock->dir_ino;
    if (strlen(path) < sizeof lock->disk.says.path)
        strcpy(lock->disk.says.path, path);
    return lock;
}

/* 0: in the table; 1: another is, in *ret_other; -ENOSPC: too many. */
static int enter(SwLocks *locks, SwLock *lock, SwLock **ret_other)
{
    SW_HOLD(&locks->lock);
    SwLock *other = g_hash_table_lookup(locks->table, lock);
    if (other) {
        *ret_other = lock_ref(other);
        return 1;
    }
    if (g_hash_table_size(locks->table) >= LOCKS_MAX)
        return -ENOSPC;
    g_hash_table_add(locks->table, lock_ref(lock));
    g_atomic_int_inc(&locks->count);
    return 0;
}

/* One that is known already: 0 when it is no more, else -EEXIST. */
static int clear_known(SwLocks *locks, SwLock *lock, int dirfd)
{
    SwOverlay *ov = locks->ov;
    struct stat st;
    switch (judge(locks, lock)) {
    case VERDICT_DEAD:
        return end_dead(locks, lock) < 0 ? -EEXIST : 0;
    case VERDICT_DATA:
        forget(locks, lock);
        return -EEXIST;
    case VERDICT_LIVES:
    case VERDICT_NOBODYS:
        break;
    }
    /* Removed past us: on the source, or by a host that found it expired. */
    ov->port->become(ov->port, &lock->cred);
    if (!is_held(locks, lock) || ov->port->statat(ov->port, dirfd, lock->name, &st) != -ENOENT)
        return -EEXIST;
    forget(locks, lock);
    return 0;
}

static int begin_known(SwLocks *locks, const SwCaller *caller, SwLock *lock)
{
    SwOverlay *ov = locks->ov;
    SwLock *other = NULL;
    g_autoptr(SwFile) dir = NULL;
    int r = enter(locks, lock, &other);
    if (r <= 0)
        return r;
    ov->port->become(ov->port, &caller->cred);
    r = sw_node_dir(ov, lock->parent, &dir);
    if (r == 0)
        r = clear_known(locks, other, dir->fd);
    lock_unref(ov, g_steal_pointer(&other));
    if (r == 0)
        r = enter(locks, lock, &other);
    lock_unref(ov, other);
    return r == 1 ? -EEXIST : r;
}

int sw_lock_begin(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwLockKind kind,
                  SwLock **ret_lock)
{
    SwLocks *locks = ov->locks;
    *ret_lock = NULL;
    if (kind == SW_LOCK_NONE || !sw_lock_is_name(ov, parent, name))
        return 0;
    SwLock *lock = lock_new(ov, caller, parent, name, kind);
    int r = begin_known(locks, caller, lock);
    if (r == 0) {
        lock->owner = sw_owners_get(locks->owners, caller->tid);
        lock->disk.says.pid = sw_owner_pid(lock->owner);
        lock->disk.says.process = sw_owner_id(lock->owner);
        r = sw_app_lock_begin(ov->control, name, &lock->disk);
        if (r < 0)
            drop(locks, lock);
    }
    if (r == 0)
        *ret_lock = lock;
    else
        lock_unref(ov, lock);
    ov->port->become(ov->port, &caller->cred);
    return r == -ENOSPC && !*ret_lock && g_atomic_int_get(&locks->count) >= LOCKS_MAX ? 0 : r;
}

/* It may have been made, and the reply lost: then it goes to salvage, lest it bind for ever. */
static void not_made(SwLocks *locks, SwLock *lock, int dirfd, int error)
{
    SwControl *control = locks->ov->control;
    gboolean unsure = sw_is_unsure(error);
    int r = unsure ? sw_app_lock_break(control, &lock->disk, dirfd, lock->name) : 0;
    if (!unsure)
        sw_app_lock_give_up(control, &lock->disk);
    lock->doomed = r < 0 && r != -ENOENT && r != -ESTALE;
    if (lock->doomed)
        set_held(locks, lock); /* the next tick tries again */
    else
        drop(locks, lock);
}

int sw_lock_made(SwOverlay *ov, const SwCaller *caller, SwLock *lock, int dirfd, int result)
{
    SwLocks *locks = ov->locks;
    if (!lock)
        return result;
    if (result == 0)
        set_held(locks, lock);
    else
        not_made(locks, lock, dirfd, result);
    lock_unref(ov, lock);
    ov->port->become(ov->port, &caller->cred);
    return result;
}

int sw_lock_clear(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, int dirfd)
{
    if (!sw_lock_is_name(ov, parent, name))
        return -EEXIST;
    guint64 dir_ino = ino_of(ov, parent);
    SwLock *lock = find(ov->locks, dir_ino, name);
    int r = lock ? clear_known(ov->locks, lock, dirfd) : sw_app_lock_holder(ov->control, dir_ino, name);
    lock_unref(ov, lock);
    ov->port->become(ov->port, &caller->cred);
    return r == 0 ? 0 : -EEXIST;
}

/* ---- removing [L7, L8] */

static int may_remove_known(SwOverlay *ov, const SwCaller *caller, SwLock *lock, Verdict verdict, int dirfd)
{
    SwLocks *locks = ov->locks;
    if (verdict == VERDICT_DEAD)
        return 0;
    if (verdict == VERDICT_LIVES && is_of_family(locks, lock, caller))
        return 0;
    /* Nobody owns it who could end: its user may remove it, and the administrator. */
    if (verdict == VERDICT_NOBODYS && (caller->cred.uid == lock->cred.uid || caller->cred.uid == 0))
        return 0;
    return sw_expiry_lets(locks->expiry, caller, lock->dir_ino, dirfd, lock->name) ? 0 : -EBUSY;
}

static int may_remove_foreign(SwOverlay *ov, const SwCaller *caller, guint64 dir_ino, const char *name, int dirfd)
{
    int r = sw_app_lock_holder(ov->control, dir_ino, name);
    if (r == -EBUSY && sw_expiry_lets(ov->locks->expiry, caller, dir_ino, dirfd, name)) {
        sw_app_lock_overrule(ov->control, dir_ino, name);
        r = 0;
    }
    return r;
}

/*
 * Nobody holds it, but before it is removed somebody may make it, and what would be removed is his: the caller may well
 * have had it, on a host that was taken for dead since.  So it is entered for the removal, and removed like any lock:
 * then no other can be made, or this host is refused (C21).  What has stood there before is no lock of this record, so
 * nobody touches it should this host die.  A file that is too large for a lock is data, and is left to the plain call
 * (C18).
 */
static int adopt(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, int dirfd)
{
    struct stat st;
    SwLock *lock;
    if (ov->port->statat(ov->port, dirfd, name, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > SW_LOCK_SIZE_MAX)
        return 0;
    int r = sw_lock_begin(ov, caller, parent, name, SW_LOCK_FILE, &lock);
    if (r < 0)
        return r == -EEXIST ? -EBUSY : r;
    if (!lock)
        return 0;
    lock->adopted = TRUE;
    set_held(ov->locks, lock);
    lock_unref(ov, lock);
    return 0;
}

/* `lock` is ours as far as we know.  -ESTALE: overruled meanwhile (an expiry, the administrator), no lock any more, or
 * this host was taken for dead (C20, C21); what stands there may be another's.  Unless the server is going to say so,
 * the look at our epoch comes last, and no answer is no consent. */
static int may_remove_held(SwOverlay *ov, const SwCaller *caller, SwLock *lock, int dirfd, SwRemovedHow how,
                           gboolean *ret_data)
{
    Verdict verdict = judge(ov->locks, lock);
    *ret_data = verdict == VERDICT_DATA;
    int r = verdict == VERDICT_DATA || !sw_app_lock_is_ours(ov->control, &lock->disk) ? -ESTALE : 0;
    if (r == 0)
        r = may_remove_known(ov, caller, lock, verdict, dirfd);
    if (r == 0 && how == SW_REMOVED_IN_PLACE)
        r = sw_app_lock_confirm(ov->control, &lock->disk);
    if (r == -ESTALE)
        forget(ov->locks, lock);
    return r;
}

int sw_lock_may_remove(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, int dirfd,
                       SwRemovedHow how)
{
    if (!sw_lock_is_name(ov, parent, name))
        return 0;
    guint64 dir_ino = ino_of(ov, parent);
    SwLock *lock = find(ov->locks, dir_ino, name);
    gboolean data = FALSE;
    int r = !lock                      ? -ESTALE
            : is_held(ov->locks, lock) ? may_remove_held(ov, caller, lock, dirfd, how, &data)
                                       : -EBUSY; /* another thread is making or ending it */
    lock_unref(ov, lock);
    if (r == -ESTALE) {
        r = may_remove_foreign(ov, caller, dir_ino, name, dirfd);
        if (r == 0 && !data && how == SW_REMOVED_BY_FENCED_RENAME)
            r = adopt(ov, caller, parent, name, dirfd);
    }
    ov->port->become(ov->port, &caller->cred);
    return r;
}

const SwEpoch *sw_lock_epoch(SwOverlay *ov, SwNode *parent, const char *name)
{
    SwLock *lock = find(ov->locks, ino_of(ov, parent), name);
    const SwEpoch *epoch = lock && is_held(ov->locks, lock) ? lock->disk.epoch : NULL;
    lock_unref(ov, lock);
    return epoch;
}

int sw_lock_confirm(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name)
{
    SwLock *lock = find(ov->locks, ino_of(ov, parent), name);
    int r = lock ? sw_app_lock_confirm(ov->control, &lock->disk) : -ESTALE;
    lock_unref(ov, lock);
    ov->port->become(ov->port, &caller->cred);
    return r;
}

/* Its record is not looked at again: it was right before the removal, and an overruler who came since has met no lock.
 */
static void leave(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, gboolean adopted_only)
{
    SwLock *lock = find(ov->locks, ino_of(ov, parent), name);
    if (!lock)
        return;
    if ((lock->adopted || !adopted_only) && begin_end(ov->locks, lock)) {
        sw_app_lock_give_up(ov->control, &lock->disk);
        drop(ov->locks, lock);
    }
    lock_unref(ov, lock);
    ov->port->become(ov->port, &caller->cred);
}

void sw_lock_removed(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name)
{
    leave(ov, caller, parent, name, FALSE);
}

void sw_lock_not_removed(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name)
{
    leave(ov, caller, parent, name, TRUE);
}

/* ---- what turns out to be data [L6] */

typedef struct {
    SwNode *parent; /* counted */
    char *name;
} Named;

static guint names_of(SwOverlay *ov, SwNode *node, Named ret_names[NAMES_MAX])
{
    guint n = 0;
    SW_HOLD(&ov->lock);
    for (SwName *at = node->names; at && n < NAMES_MAX; at = at->next, n++) {
        sw_node_ref_locked(at->parent);
        ret_names[n] = (Named){.parent = at->parent, .name = g_strdup(at->name)};
    }
    return n;
}

static void named_clear(SwOverlay *ov, Named *named)
{
    sw_node_unref(ov, named->parent);
    g_free(named->name);
}

void sw_lock_outgrown(SwOverlay *ov, SwNode *node)
{
    Named names[NAMES_MAX];
    if (g_atomic_int_get(&ov->locks->count) == 0)
        return;
    guint n = names_of(ov, node, names);
    for (guint i = 0; i < n; i++) {
        SwLock *lock = find(ov->locks, ino_of(ov, names[i].parent), names[i].name);
        if (lock)
            forget(ov->locks, lock);
        lock_unref(ov, lock);
        named_clear(ov, &names[i]);
    }
}

static void date_name(SwOverlay *ov, const SwCaller *caller, const Named *named, const struct timespec *mtime)
{
    if (!sw_lock_is_name(ov, named->parent, named->name))
        return;
    guint64 dir_ino = ino_of(ov, named->parent);
    SwLock *lock = find(ov->locks, dir_ino, named->name);
    g_autoptr(SwFile) dir = NULL;
    struct stat st;
    ov->port->become(ov->port, &caller->cred);
    if (sw_node_dir(ov, named->parent, &dir) == 0 && ov->port->statat(ov->port, dir->fd, named->name, &st) == 0) {
        gint64 old = lock && lock->disk.says.kind == SW_LOCK_LINK ? RESTORED_LINK_SECONDS : RESTORED_SECONDS;
        if (lock && mtime->tv_sec + old < st.st_ctim.tv_sec)
            forget(ov->locks, lock);
        else
            sw_expiry_renewed(ov->locks->expiry, caller, dir_ino, dir->fd, named->name);
    }
    lock_unref(ov, lock);
}

void sw_lock_dated(SwOverlay *ov, const SwCaller *caller, SwNode *node, const struct timespec *mtime)
{
    Named names[NAMES_MAX];
    guint n = names_of(ov, node, names);
    for (guint i = 0; i < n; i++) {
        date_name(ov, caller, &names[i], mtime);
        named_clear(ov, &names[i]);
    }
    ov->port->become(ov->port, &caller->cred);
}

/* ---- all of them */

/* Those whose owner may have ended, or that are of another epoch than this (NULL: all): the others cost no call. */
static GPtrArray *all_doubtful(SwLocks *locks, const SwEpoch *epoch)
{
    GPtrArray *doubtful = g_ptr_array_new();
    GHashTableIter iter;
    gpointer key;
    SW_HOLD(&locks->lock);
    g_hash_table_iter_init(&iter, locks->table);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        SwLock *lock = key;
        if (lock->state == LOCK_HELD && (!epoch || lock->disk.epoch != epoch || lock->doomed ||
                                         (lock->owner && sw_owner_may_have_ended(lock->owner))))
            g_ptr_array_add(doubtful, lock_ref(lock));
    }
    return doubtful;
}

void sw_locks_tick(SwOverlay *ov, gint64 now)
{
    SwLocks *locks = ov->locks;
    const SwEpoch *epoch = g_atomic_int_get(&locks->count) ? sw_app_locks_epoch(ov->control) : NULL;
    sw_owners_look(locks->owners);
    g_autoptr(GPtrArray) doubtful = all_doubtful(locks, epoch);
    for (guint i = 0; i < doubtful->len; i++) {
        SwLock *lock = doubtful->pdata[i];
        Verdict verdict = judge_in(locks, lock, epoch);
        if (verdict == VERDICT_DEAD)
            sw_ignore(end_dead(locks, lock));
        else if (verdict == VERDICT_DATA)
            forget(locks, lock);
        lock_unref(ov, lock);
    }
    sw_owners_prune(locks->owners);
    sw_expiry_tick(locks->expiry, now);
    if (now - locks->swept_us >= sw_config_of(ov)->lease_us) {
        sw_app_locks_sweep(ov->control);
        locks->swept_us = now;
    }
    ov->port->become(ov->port, NULL);
}

gboolean sw_locks_table_is_free(SwLocks *locks)
{
    return sw_mutex_is_free(&locks->lock);
}

SwLocks *sw_locks_new(SwOverlay *ov)
{
    SwLocks *locks = g_new0(SwLocks, 1);
    locks->ov = ov;
    locks->owners = sw_owners_new(ov->port);
    locks->expiry = sw_expiry_new(ov);
    locks->swept_us = ov->port->now_us(ov->port);
    sw_mutex_init(&locks->lock);
    locks->table = g_hash_table_new(lock_hash, lock_equal);
    return locks;
}

void sw_locks_free(SwLocks *locks)
{
    g_autoptr(GPtrArray) all = all_doubtful(locks, NULL);
    for (guint i = 0; i < all->len; i++) {
        SwLock *lock = all->pdata[i];
        Verdict verdict = judge(locks, lock);
        if (verdict == VERDICT_NOBODYS || verdict == VERDICT_DATA)
            forget(locks, lock);
        else
            drop(locks, lock);
        lock_unref(locks->ov, lock);
    }
    sw_expiry_free(locks->expiry);
    g_hash_table_unref(locks->table);
    sw_owners_free(locks->owners);
    sw_mutex_clear(&locks->lock);
    g_free(locks);
}

/* ---- for the daemon that follows */

static void carry_lock(SwLocks *locks, SwCarriage *carriage, SwLock *lock)
{
    SwBundle *bundle = carriage->bundle;
    sw_bundle_mark(bundle, "lock");
    SW_CARRY(carriage, SW_CARRY_NODE, lock->parent, TRUE);
    SW_BUNDLE(bundle, lock->dir_ino);
    sw_carry_name(carriage, &lock->name);
    sw_carry_cred(carriage, &lock->cred);
    sw_app_lock_carry(locks->ov->control, bundle, &lock->disk);
    SW_BUNDLE(bundle, lock->doomed);
    sw_owner_carry(locks->owners, bundle, &lock->owner);
    SW_BUNDLE(bundle, lock->job);
    if (!lock->parent || !lock->name)
        sw_bundle_fail(bundle, "a lock has no name");
    if (sw_bundle_is_out(bundle) && (lock->state != LOCK_HELD || g_atomic_int_get(&lock->refs) != 1))
        sw_bundle_fail(bundle, "a lock is being made or ended");
    lock->state = LOCK_HELD;
}

static SwLock *next_lock(SwLocks *locks, SwCarriage *carriage, GHashTableIter *iter)
{
    gpointer key;
    if (sw_bundle_is_out(carriage->bundle))
        return g_hash_table_iter_next(iter, &key, NULL) ? key : NULL;
    SwLock *lock = g_new0(SwLock, 1);
    lock->refs = 1;
    return lock;
}

void sw_locks_carry(SwLocks *locks, SwCarriage *carriage)
{
    SwBundle *bundle = carriage->bundle;
    GHashTableIter iter;
    sw_owners_carry(locks->owners, bundle);
    guint n = sw_bundle_count(bundle, g_hash_table_size(locks->table), LOCKS_MAX);
    g_hash_table_iter_init(&iter, locks->table);
    for (guint i = 0; i < n; i++) {
        SwLock *lock = next_lock(locks, carriage, &iter);
        carry_lock(locks, carriage, lock);
        if (sw_bundle_is_out(bundle) || sw_bundle_failed(bundle))
            continue;
        g_hash_table_add(locks->table, lock);
        g_atomic_int_inc(&locks->count);
    }
    sw_expiry_carry(locks->expiry, bundle);
    SW_BUNDLE(bundle, locks->swept_us);
}
