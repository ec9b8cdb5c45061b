/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "proc_kept.h"

#include "posix.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>

#define KEPT_MAX 32U
#define INFOS_MAX 8
/* So many descriptors for each process that could be kept, ours or not, must be allowed to the daemon. */
#define LIMIT_SHARE 64U
/* How many processes that were asked for once are remembered. */
#define ONCE_MAX 64
/* Who has not been asked about for so long is kept no longer. */
#define IDLE_US (2 * G_USEC_PER_SEC)

struct SwKept {
    gint refs; /* atomic */
    pid_t pid; /* immutable */
    int dir;   /* immutable: /proc/<pid> */
    /* atomic; -1: not opened yet */
    int files[SW_KEPT_N];
    pid_t tgid;
    gint64 used_us; /* protected by SwKeepers.lock: when last */

    SwMutex claim;
    /* protected by claim */
    gboolean large;
    struct {
        int number, fd; /* fd -1: none */
    } infos[INFOS_MAX];
};

struct SwKeepers {
    int proc_fd; /* immutable */
    guint max;   /* immutable */

    SwMutex lock;
    /* protected by lock */
    SwKept *kept[KEPT_MAX]; /* counted; the first n */
    guint n;
    pid_t once[ONCE_MAX];
};

SwKeepers *sw_keepers_new(int proc_fd)
{
    SwKeepers *keepers = g_new0(SwKeepers, 1);
    struct rlimit limit = {0};

    keepers->proc_fd = proc_fd;
    keepers->max = KEPT_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / LIMIT_SHARE < KEPT_MAX)
        keepers->max = MAX((guint)(limit.rlim_cur / LIMIT_SHARE), 1U);
    sw_mutex_init(&keepers->lock);
    return keepers;
}

void sw_keepers_free(SwKeepers *keepers)
{
    if (!keepers)
        return;
    for (guint i = 0; i < keepers->n; i++)
        sw_kept_unref(keepers->kept[i]);
    sw_mutex_clear(&keepers->lock);
    g_free(keepers);
}

/* ---- one process */

static SwKept *kept_new(pid_t pid, int dir)
{
    SwKept *kept = g_new0(SwKept, 1);

    kept->refs = 1;
    kept->pid = pid;
    kept->dir = dir;
    for (guint i = 0; i < SW_KEPT_N; i++)
        kept->files[i] = -1;
    for (guint i = 0; i < INFOS_MAX; i++)
        kept->infos[i].fd = -1;
    sw_mutex_init(&kept->claim);
    return kept;
}

static SwKept *kept_ref(SwKept *kept)
{
    g_atomic_int_inc(&kept->refs);
    return kept;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

void sw_kept_unref(SwKept *kept)
{
    if (!kept || !g_atomic_int_dec_and_test(&kept->refs))
        return;
    for (guint i = 0; i < SW_KEPT_N; i++)
        close_if_open(kept->files[i]);
    for (guint i = 0; i < INFOS_MAX; i++)
        close_if_open(kept->infos[i].fd);
    (void)close(kept->dir);
    sw_mutex_clear(&kept->claim);
    g_free(kept);
}

static int open_file(const SwKept *kept, SwKeptFile which)
{
    static const struct {
        const char *name;
        int flags;
    } files[SW_KEPT_N] = {
        [SW_KEPT_STATUS] = {"status", O_RDONLY},
        [SW_KEPT_STATM] = {"statm", O_RDONLY},
        [SW_KEPT_TASKS] = {"task", O_RDONLY | O_DIRECTORY},
        [SW_KEPT_FDS] = {"fd", O_RDONLY | O_DIRECTORY},
        [SW_KEPT_INFOS] = {"fdinfo", O_PATH | O_DIRECTORY},
    };
    char path[40];
    int fd;

    if (which == SW_KEPT_CHILDREN) {
        (void)snprintf(path, sizeof path, "task/%d/children", kept->pid);
        fd = openat(kept->dir, path, O_RDONLY | O_CLOEXEC);
    } else {
        fd = openat(kept->dir, files[which].name, files[which].flags | O_CLOEXEC);
    }
    return fd < 0 ? -errno : fd;
}

int sw_kept_file(SwKept *kept, SwKeptFile which)
{
    int none = -1, fd = __atomic_load_n(&kept->files[which], __ATOMIC_ACQUIRE);

    if (fd >= 0)
        return fd;
    fd = open_file(kept, which);
    if (fd < 0)
        return fd;
    if (__atomic_compare_exchange_n(&kept->files[which], &none, fd, FALSE, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return fd;
    (void)close(fd); /* another thread was faster */
    return none;
}

pid_t sw_kept_tgid(const SwKept *kept)
{
    return __atomic_load_n(&kept->tgid, __ATOMIC_RELAXED);
}

void sw_kept_set_tgid(SwKept *kept, pid_t tgid)
{
    __atomic_store_n(&kept->tgid, tgid, __ATOMIC_RELAXED);
}

gboolean sw_kept_try_claim(SwKept *kept)
{
    return sw_mutex_trylock(&kept->claim);
}

void sw_kept_yield(SwKept *kept)
{
    sw_mutex_unlock(&kept->claim);
}

int sw_kept_info(SwKept *kept, int number)
{
    guint i = (guint)number % INFOS_MAX;

    return kept->infos[i].number == number ? kept->infos[i].fd : -1;
}

void sw_kept_set_info(SwKept *kept, int number, int fd)
{
    guint i = (guint)number % INFOS_MAX;

    close_if_open(kept->infos[i].fd);
    kept->infos[i].number = number;
    kept->infos[i].fd = fd;
}

gboolean sw_kept_is_large(const SwKept *kept)
{
    return kept->large;
}

void sw_kept_set_large(SwKept *kept, gboolean large)
{
    kept->large = large;
}

/* ---- all of them */

static SwKept *find_locked(SwKeepers *keepers, pid_t pid)
{
    for (guint i = 0; i < keepers->n; i++) {
        if (keepers->kept[i]->pid != pid)
            continue;
        keepers->kept[i]->used_us = g_get_monotonic_time();
        return kept_ref(keepers->kept[i]);
    }
    return NULL;
}

/* Takes over the reference.  What has to make room for it, or NULL. */
static SwKept *add_locked(SwKeepers *keepers, SwKept *kept)
{
    guint oldest = 0;
    SwKept *out;

    kept->used_us = g_get_monotonic_time();
    if (keepers->n < keepers->max) {
        keepers->kept[keepers->n++] = kept;
        return NULL;
    }
    for (guint i = 1; i < keepers->n; i++)
        if (keepers->kept[i]->used_us < keepers->kept[oldest]->used_us)
            oldest = i;
    out = keepers->kept[oldest];
    keepers->kept[oldest] = kept;
    return out;
}

SwKept *sw_kept_find(SwKeepers *keepers, pid_t pid)
{
    SW_HOLD(&keepers->lock);
    return find_locked(keepers, pid);
}

/* Two threads may come to keep one process twice: then the older of them is not found any more, and goes in its turn.
 */
static SwKept *add(SwKeepers *keepers, pid_t pid, int dir)
{
    SwKept *kept = kept_new(pid, dir), *out;

    sw_mutex_lock(&keepers->lock);
    out = add_locked(keepers, kept_ref(kept));
    sw_mutex_unlock(&keepers->lock);
    sw_kept_unref(out);
    return kept;
}

int sw_kept_get(SwKeepers *keepers, pid_t pid, SwKept **ret_kept, gboolean *ret_known)
{
    SwKept *kept = sw_kept_find(keepers, pid);
    char name[16];
    int dir;

    *ret_known = kept != NULL;
    if (!kept) {
        (void)snprintf(name, sizeof name, "%d", pid);
        dir = openat(keepers->proc_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
            return -errno;
        kept = add(keepers, pid, dir);
    }
    *ret_kept = kept;
    return 0;
}

static gboolean was_asked_for(SwKeepers *keepers, pid_t pid)
{
    pid_t *once = &keepers->once[(guint)pid % ONCE_MAX];
    gboolean was;

    SW_HOLD(&keepers->lock);
    was = *once == pid;
    *once = pid;
    return was;
}

SwKept *sw_kept_again(SwKeepers *keepers, pid_t pid)
{
    SwKept *kept = sw_kept_find(keepers, pid);
    gboolean known;

    if (!kept && was_asked_for(keepers, pid) && sw_kept_get(keepers, pid, &kept, &known) < 0)
        kept = NULL;
    return kept;
}

void sw_kept_drop(SwKeepers *keepers, SwKept *kept)
{
    gboolean found = FALSE;

    sw_mutex_lock(&keepers->lock);
    for (guint i = 0; i < keepers->n && !found; i++) {
        found = keepers->kept[i] == kept;
        if (found)
            keepers->kept[i] = keepers->kept[--keepers->n];
    }
    sw_mutex_unlock(&keepers->lock);
    if (found)
        sw_kept_unref(kept);
}

void sw_keepers_tidy(SwKeepers *keepers)
{
    SwKept *idle[KEPT_MAX];
    gint64 since_us = g_get_monotonic_time() - IDLE_US;
    guint n_idle = 0;

    sw_mutex_lock(&keepers->lock);
    for (guint i = keepers->n; i-- > 0;) {
        if (keepers->kept[i]->used_us > since_us)
            continue;
        idle[n_idle++] = keepers->kept[i];
        keepers->kept[i] = keepers->kept[--keepers->n];
    }
    sw_mutex_unlock(&keepers->lock);
    while (n_idle > 0)
        sw_kept_unref(idle[--n_idle]);
}
