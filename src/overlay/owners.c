/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processes that own locks, and their ancestors.
 */
#include "carry.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

/* A chain of parents longer than this is no family. */
#define ANCESTORS_MAX 64

struct SwOwner {
    gint refs; /* atomic */
    /* immutable */
    SwPort *port;
    pid_t pid;
    guint64 id;
    int fd;
    pid_t group, session; /* when it was first watched */
    SwOwner *parent;      /* counted */
    gboolean ended;       /* atomic: sw_owners_look has seen it */
};

struct SwOwners {
    SwPort *port; /* immutable */
    SwMutex lock;
    GHashTable *all;    /* lock: of SwOwner, counted */
    GHashTable *by_pid; /* lock: pid -> SwOwner; of `all` the last bearer of that pid */
    GPtrArray *listed;  /* while they are carried */
};

SwOwner *sw_owner_ref(SwOwner *owner)
{
    if (owner)
        g_atomic_int_inc(&owner->refs);
    return owner;
}

void sw_owner_unref(SwOwner *owner)
{
    while (owner && g_atomic_int_dec_and_test(&owner->refs)) {
        SwOwner *parent = owner->parent;
        owner->port->pid_unwatch(owner->port, owner->fd);
        g_free(owner);
        owner = parent;
    }
}

SwOwners *sw_owners_new(SwPort *port)
{
    SwOwners *owners = g_new0(SwOwners, 1);
    owners->port = port;
    sw_mutex_init(&owners->lock);
    owners->all = g_hash_table_new_full(NULL, NULL, (GDestroyNotify)sw_owner_unref, NULL);
    owners->by_pid = g_hash_table_new(NULL, NULL);
    return owners;
}

void sw_owners_free(SwOwners *owners)
{
    g_clear_pointer(&owners->listed, g_ptr_array_unref);
    g_hash_table_unref(owners->by_pid);
    g_hash_table_unref(owners->all);
    sw_mutex_clear(&owners->lock);
    g_free(owners);
}

static SwOwner *known(SwOwners *owners, pid_t pid)
{
    sw_mutex_lock(&owners->lock);
    SwOwner *owner = sw_owner_ref(g_hash_table_lookup(owners->by_pid, GINT_TO_POINTER(pid)));
    sw_mutex_unlock(&owners->lock);
    if (owner && sw_owner_state(owner) == SW_OWNER_LIVES)
        return owner;
    sw_owner_unref(owner); /* the number is another's now */
    return NULL;
}

static SwOwner *get_process(SwOwners *owners, pid_t pid, guint depth)
{
    SwPort *port = owners->port;
    SwOwner *owner = known(owners, pid);
    if (owner)
        return owner;
    guint64 id = 0;
    int fd = port->pid_watch(port, pid, &id);
    if (fd < 0)
        return NULL;
    owner = g_new0(SwOwner, 1);
    *owner = (SwOwner){.refs = 2, .port = port, .pid = pid, .id = id, .fd = fd};
    SwProcess process = {0};
    sw_ignore(port->process(port, pid, &process)); /* gone again: no parent */
    owner->group = process.group;
    owner->session = process.session;
    /* Process 1 adopts orphans; it is nobody's heir. */
    if (depth > 0 && process.ppid > 1)
        owner->parent = get_process(owners, process.ppid, depth - 1);
    sw_mutex_lock(&owners->lock);
    g_hash_table_add(owners->all, owner);
    g_hash_table_insert(owners->by_pid, GINT_TO_POINTER(pid), owner);
    sw_mutex_unlock(&owners->lock);
    return owner;
}

SwOwner *sw_owners_get(SwOwners *owners, pid_t tid)
{
    SwProcess process;
    if (tid <= 0 || owners->port->process(owners->port, tid, &process) < 0)
        return NULL;
    return get_process(owners, process.tgid, ANCESTORS_MAX);
}

pid_t sw_owner_pid(const SwOwner *owner)
{
    return owner ? owner->pid : 0;
}

guint64 sw_owner_id(const SwOwner *owner)
{
    return owner ? owner->id : 0;
}

SwOwner *sw_owner_parent(const SwOwner *owner)
{
    return owner->parent;
}

gboolean sw_owner_is_job(const SwOwner *owner)
{
    const SwOwner *parent = owner->parent;
    return parent && owner->session && owner->session == parent->session && owner->group != parent->group;
}

SwOwnerState sw_owner_state(const SwOwner *owner)
{
    int status = -1;
    if (owner->port->pid_ended(owner->port, owner->fd, owner->pid, &status) != 1)
        return SW_OWNER_LIVES;
    if (status == -1) /* nobody can tell: what the parent does decides, if there is one */
        return owner->parent ? SW_OWNER_EXITED : SW_OWNER_KILLED;
    if (!WIFEXITED(status))
        return WTERMSIG(status) == SIGHUP ? SW_OWNER_HUNG_UP : SW_OWNER_KILLED;
    return WEXITSTATUS(status) == 0 ? SW_OWNER_EXITED : SW_OWNER_FAILED;
}

gboolean sw_owner_has(const SwOwner *owner, pid_t tid)
{
    SwPort *port = owner->port;
    SwProcess process;
    for (guint i = 0; i < ANCESTORS_MAX && tid > 0 && port->process(port, tid, &process) == 0; i++) {
        if (process.tgid == owner->pid)
            return TRUE;
        tid = process.ppid;
    }
    return FALSE;
}

/* All of them as of now, referred to. */
static GPtrArray *snapshot(SwOwners *owners)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)sw_owner_unref);
    GHashTableIter iter;
    gpointer owner;
    SW_HOLD(&owners->lock);
    g_hash_table_iter_init(&iter, owners->all);
    while (g_hash_table_iter_next(&iter, &owner, NULL))
        g_ptr_array_add(all, sw_owner_ref(owner));
    return all;
}

void sw_owners_look(SwOwners *owners)
{
    g_autoptr(GPtrArray) all = snapshot(owners);
    g_autofree int *fds = g_new(int, all->len);
    g_autofree pid_t *pids = g_new(pid_t, all->len);
    g_autofree gboolean *ended = g_new0(gboolean, all->len);
    for (guint i = 0; i < all->len; i++) {
        const SwOwner *owner = all->pdata[i];
        fds[i] = owner->fd;
        pids[i] = owner->pid;
    }
    /* Where it cannot be told, each is asked. */
    gboolean unknown = owners->port->pids_ended(owners->port, fds, pids, all->len, ended) < 0;
    for (guint i = 0; i < all->len; i++)
        g_atomic_int_set(&((SwOwner *)all->pdata[i])->ended, unknown || ended[i]);
}

gboolean sw_owner_may_have_ended(const SwOwner *owner)
{
    return g_atomic_int_get(&owner->ended);
}

void sw_owners_prune(SwOwners *owners)
{
    g_autoptr(GPtrArray) unused = g_ptr_array_new_with_free_func((GDestroyNotify)sw_owner_unref);
    GHashTableIter iter;
    gpointer key;
    SW_HOLD(&owners->lock);
    g_hash_table_iter_init(&iter, owners->all);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        SwOwner *owner = key;
        if (g_atomic_int_get(&owner->refs) > 1)
            continue;
        g_hash_table_iter_steal(&iter);
        if (g_hash_table_lookup(owners->by_pid, GINT_TO_POINTER(owner->pid)) == owner)
            g_hash_table_remove(owners->by_pid, GINT_TO_POINTER(owner->pid));
        g_ptr_array_add(unused, owner);
    }
}

/* ---- for the daemon that follows */

static void carry_one(SwOwners *owners, SwBundle *bundle, SwOwner *owner)
{
    sw_bundle_mark(bundle, "owner");
    SW_BUNDLE(bundle, owner->pid);
    SW_BUNDLE(bundle, owner->id);
    sw_bundle_fd(bundle, &owner->fd);
    SW_BUNDLE(bundle, owner->group);
    SW_BUNDLE(bundle, owner->session);
    SW_BUNDLE(bundle, owner->ended);
    if (owner->fd < 0)
        sw_bundle_fail(bundle, "a process is not watched");
    if (sw_port_posix_adopt_watch(owners->port) < 0)
        sw_bundle_fail(bundle, "programs hold locks, and this kernel tells only one daemon how they end");
}

static void add_one(gpointer key, gpointer value, gpointer data)
{
    (void)value;
    g_ptr_array_add(data, key);
}

/* The last bearers of their pids; the others are of the dead. */
static void carry_pids(SwOwners *owners, SwBundle *bundle)
{
    GHashTableIter iter;
    gpointer pid, value;
    SwOwner *owner = NULL;
    guint n = sw_bundle_count(bundle, g_hash_table_size(owners->by_pid), G_MAXINT32);
    g_hash_table_iter_init(&iter, owners->by_pid);
    for (guint i = 0; i < n; i++) {
        if (sw_bundle_is_out(bundle) && g_hash_table_iter_next(&iter, &pid, &value))
            owner = value;
        sw_owner_carry(owners, bundle, &owner);
        if (sw_bundle_is_out(bundle) || !owner)
            continue;
        g_hash_table_insert(owners->by_pid, GINT_TO_POINTER(owner->pid), owner);
        sw_owner_unref(owner);
    }
}

static void check_chain(SwBundle *bundle, const SwOwner *owner, guint n)
{
    while (owner && n--)
        owner = owner->parent;
    if (owner && owner->parent)
        sw_bundle_fail(bundle, "a process is its own ancestor");
}

/* Parents come after all, for the order is none; owners->listed is where they stand. */
void sw_owners_carry(SwOwners *owners, SwBundle *bundle)
{
    gboolean out = sw_bundle_is_out(bundle);
    g_clear_pointer(&owners->listed, g_ptr_array_unref);
    owners->listed = g_ptr_array_new();
    if (out)
        g_hash_table_foreach(owners->all, add_one, owners->listed);
    guint n = sw_bundle_count(bundle, owners->listed->len, G_MAXINT32);
    for (guint i = 0; i < n; i++) {
        SwOwner *owner = out ? owners->listed->pdata[i] : g_new0(SwOwner, 1);
        if (!out) {
            owner->refs = 1; /* of the set */
            owner->port = owners->port;
            g_ptr_array_add(owners->listed, owner);
            g_hash_table_add(owners->all, owner);
        }
        carry_one(owners, bundle, owner);
    }
    for (guint i = 0; i < n; i++)
        sw_owner_carry(owners, bundle, &((SwOwner *)owners->listed->pdata[i])->parent);
    for (guint i = 0; i < n; i++)
        check_chain(bundle, owners->listed->pdata[i], n);
    carry_pids(owners, bundle);
}

void sw_owner_carry(SwOwners *owners, SwBundle *bundle, SwOwner **owner)
{
    guint place = 0;
    if (sw_bundle_is_out(bundle) && *owner && g_ptr_array_find(owners->listed, *owner, &place))
        place++;
    else if (sw_bundle_is_out(bundle) && *owner)
        sw_bundle_fail(bundle, "a process is not listed");
    sw_bundle_choice(bundle, &place, owners->listed->len);
    if (!sw_bundle_is_out(bundle))
        *owner = place ? sw_owner_ref(owners->listed->pdata[place - 1]) : NULL;
}
