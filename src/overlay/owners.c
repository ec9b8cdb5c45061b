/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processes that own locks, and their ancestors.
 */
#include "internal.h"

#include <errno.h>
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
    SwOwner *parent; /* counted */
};

struct SwOwners {
    SwPort *port; /* immutable */
    SwMutex lock;
    GHashTable *by_pid; /* lock: pid -> SwOwner, counted; the last bearer of that pid that was seen */
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
        (void)owner->port->close(owner->port, owner->fd);
        g_free(owner);
        owner = parent;
    }
}

SwOwners *sw_owners_new(SwPort *port)
{
    SwOwners *owners = g_new0(SwOwners, 1);
    owners->port = port;
    sw_mutex_init(&owners->lock);
    owners->by_pid = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)sw_owner_unref);
    return owners;
}

void sw_owners_free(SwOwners *owners)
{
    g_hash_table_unref(owners->by_pid);
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
    SwProcess process;
    /* Process 1 adopts orphans; it is nobody's heir. */
    if (depth > 0 && port->process(port, pid, &process) == 0 && process.ppid > 1)
        owner->parent = get_process(owners, process.ppid, depth - 1);
    sw_mutex_lock(&owners->lock);
    SwOwner *old = g_hash_table_lookup(owners->by_pid, GINT_TO_POINTER(pid));
    if (old)
        g_hash_table_steal(owners->by_pid, GINT_TO_POINTER(pid));
    g_hash_table_insert(owners->by_pid, GINT_TO_POINTER(pid), owner);
    sw_mutex_unlock(&owners->lock);
    sw_owner_unref(old);
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

SwOwnerState sw_owner_state(const SwOwner *owner)
{
    int status = -1;
    if (owner->port->pid_ended(owner->port, owner->fd, owner->pid, &status) != 1)
        return SW_OWNER_LIVES;
    if (status == -1) /* an old kernel: what the parent does decides, if there is one */
        return owner->parent ? SW_OWNER_EXITED : SW_OWNER_KILLED;
    if (!WIFEXITED(status))
        return SW_OWNER_KILLED;
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

static gboolean is_unused(gpointer key, gpointer value, gpointer data)
{
    (void)key;
    if (g_atomic_int_get(&((SwOwner *)value)->refs) > 1)
        return FALSE;
    g_ptr_array_add(data, value); /* closing is a port call: not with the lock */
    return TRUE;
}

void sw_owners_prune(SwOwners *owners)
{
    g_autoptr(GPtrArray) unused = g_ptr_array_new_with_free_func((GDestroyNotify)sw_owner_unref);
    sw_mutex_lock(&owners->lock);
    (void)g_hash_table_foreach_steal(owners->by_pid, is_unused, unused);
    sw_mutex_unlock(&owners->lock);
}
