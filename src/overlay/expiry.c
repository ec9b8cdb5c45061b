/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks whose modification time says until when they are held, as flufl.lock makes them (L9).
 */
#include "carry.h"

#include <string.h>

/* How long a program that found a lock expired may take to remove it. */
#define GRANT_US (10 * G_USEC_PER_SEC)
#define GRANTS_MAX 256

/* A program found a lock expired, and set its time anew before it breaks it. */
typedef struct {
    guint64 dir_ino;
    char *name;
    pid_t pid;
    gint64 until_us;
} Grant;

struct SwExpiry {
    SwOverlay *ov; /* immutable */
    SwMutex lock;
    GSList *grants; /* lock: of Grant, the newest first */
};

static void grant_free(gpointer data)
{
    g_free(((Grant *)data)->name);
    g_free(data);
}

SwExpiry *sw_expiry_new(SwOverlay *ov)
{
    SwExpiry *expiry = g_new0(SwExpiry, 1);
    expiry->ov = ov;
    sw_mutex_init(&expiry->lock);
    return expiry;
}

void sw_expiry_free(SwExpiry *expiry)
{
    g_slist_free_full(expiry->grants, grant_free);
    sw_mutex_clear(&expiry->lock);
    g_free(expiry);
}

static gboolean is_later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* A time of modification after that of the last change can only have been set; by the server's clock it has passed. */
static gboolean has_expired(SwOverlay *ov, const SwCaller *caller, int dirfd, const char *name)
{
    struct timespec now;
    struct stat st;
    ov->port->become(ov->port, &caller->cred);
    return ov->port->statat(ov->port, dirfd, name, &st) == 0 && is_later(&st.st_mtim, &st.st_ctim) &&
           sw_app_lock_server_now(ov->control, &now) == 0 && is_later(&now, &st.st_mtim);
}

static pid_t process_of(SwOverlay *ov, const SwCaller *caller)
{
    return caller->tid > 0 ? sw_process_of(ov, caller->tid) : 0;
}

static gboolean is_granted(SwExpiry *expiry, const SwCaller *caller, guint64 dir_ino, const char *name)
{
    SwOverlay *ov = expiry->ov;
    pid_t pid = process_of(ov, caller);
    gint64 now_us = ov->port->now_us(ov->port);
    SW_HOLD(&expiry->lock);
    for (GSList *at = expiry->grants; at; at = at->next) {
        const Grant *grant = at->data;
        if (grant->pid == pid && grant->dir_ino == dir_ino && grant->until_us > now_us &&
            strcmp(grant->name, name) == 0)
            return TRUE;
    }
    return FALSE;
}

gboolean sw_expiry_lets(SwExpiry *expiry, const SwCaller *caller, guint64 dir_ino, int dirfd, const char *name)
{
    return is_granted(expiry, caller, dir_ino, name) || has_expired(expiry->ov, caller, dirfd, name);
}

void sw_expiry_renewed(SwExpiry *expiry, const SwCaller *caller, guint64 dir_ino, int dirfd, const char *name)
{
    SwOverlay *ov = expiry->ov;
    if (!has_expired(ov, caller, dirfd, name))
        return;
    Grant *grant = g_new0(Grant, 1);
    *grant = (Grant){.dir_ino = dir_ino, .name = g_strdup(name), .pid = process_of(ov, caller)};
    grant->until_us = ov->port->now_us(ov->port) + GRANT_US;
    SW_HOLD(&expiry->lock);
    if (g_slist_length(expiry->grants) >= GRANTS_MAX) {
        GSList *last = g_slist_last(expiry->grants);
        grant_free(last->data);
        expiry->grants = g_slist_delete_link(expiry->grants, last);
    }
    expiry->grants = g_slist_prepend(expiry->grants, grant);
}

void sw_expiry_tick(SwExpiry *expiry, gint64 now)
{
    SW_HOLD(&expiry->lock);
    for (GSList *at = expiry->grants, *next; at; at = next) {
        next = at->next;
        if (((Grant *)at->data)->until_us > now)
            continue;
        grant_free(at->data);
        expiry->grants = g_slist_delete_link(expiry->grants, at);
    }
}

/* For the daemon that follows. */
void sw_expiry_carry(SwExpiry *expiry, SwBundle *bundle)
{
    gboolean out = sw_bundle_is_out(bundle);
    guint n = sw_bundle_count(bundle, g_slist_length(expiry->grants), GRANTS_MAX);
    GSList *at = expiry->grants;
    for (guint i = 0; i < n; i++) {
        Grant *grant = out ? at->data : g_new0(Grant, 1);
        SW_BUNDLE(bundle, grant->dir_ino);
        sw_bundle_text(bundle, &grant->name, NAME_MAX + 1);
        SW_BUNDLE(bundle, grant->pid);
        SW_BUNDLE(bundle, grant->until_us);
        if (!grant->name)
            sw_bundle_fail(bundle, "a lock has no name");
        if (!out && grant->name)
            expiry->grants = g_slist_append(expiry->grants, grant);
        else if (!out)
            g_free(grant);
        at = out ? at->next : NULL;
    }
}
