/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Lock files of applications: their records.
 *
 *   begin    symlink locks/<key> exclusively; where one stands, look who holds it         [L1, L2]
 *   end      rename it to released/                                                       [L3]
 *   break    under locks/<key>.break, made exclusively: the lock to salvage, then the end [L4]
 *   burial   the same for all records of one host, which its undertaker alone may do      [L5]
 */

#include "app_lock.h"

#include "../core/course.h"
#include "control_internal.h"
#include "lock_object.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define BEGIN_TRIES 8
#define BEGIN_PAUSE_US (2 * G_TIME_SPAN_MILLISECOND) /* a living host removes the record right after the lock */
#define ORDER_TRIES 50
#define ORDER_PAUSE_US (20 * G_TIME_SPAN_MILLISECOND)
#define RELEASED_NAMES 64
#define KEY_SIZE 17

static void key_name(guint64 key, char ret_name[KEY_SIZE])
{
    (void)snprintf(ret_name, KEY_SIZE, "%016" G_GINT64_MODIFIER "x", key);
}

void sw_app_lock_clear(SwAppLock *lock)
{
    g_clear_pointer(&lock->text, g_free);
}

/* ---- records */

static gboolean link_says(SwPort *port, int dirfd, const char *name, const char *expected)
{
    g_autofree char *text = NULL;

    return sw_read_link(port, dirfd, name, &text) == 0 && strcmp(text, expected) == 0;
}

/* What locks/<name> says at the server, and since when; "" for what is no link of ours. */
static int read_record(SwControl *control, const char *name, char **ret_text, struct timespec *ret_since)
{
    SwPort *port = control->port;
    struct stat st;
    int dirfd = sw_open_fresh(control, "locks");
    int r;

    if (dirfd < 0)
        return dirfd;
    r = port->statat(port, dirfd, name, &st);
    if (r == 0)
        r = sw_read_link(port, dirfd, name, ret_text);
    sw_fd_close(port, &dirfd);
    if (r == -EINVAL || r == -EMSGSIZE) {
        *ret_text = g_strdup("");
        r = 0;
    }
    if (r == 0 && ret_since)
        *ret_since = st.st_ctim;
    return r;
}

/* Does the text make sense at that name?  A path that was too long to be written is none. */
static gboolean parse_record(const char *name, const char *text, SwLockText *ret_says)
{
    char expected[KEY_SIZE];

    if (sw_lock_text_parse(text, ret_says) < 0)
        return FALSE;
    key_name(sw_lock_key(ret_says->dir_ino, sw_last_component(ret_says->path)), expected);
    return !*ret_says->path || strcmp(expected, name) == 0;
}

/* Takes locks/<name> out of reach and drops it.  The caller knows that it may. */
static int drop_record(SwControl *control, const SwEpoch *by, const char *name)
{
    int r = sw_drop_link(control, by, SW_IN_LOCKS, name);

    if (r == -ENOSPC || r == -EDQUOT) /* no room for a name: then it goes here, where its text was just read */
        r = control->port->unlinkat(control->port, control->locks, name, 0);
    return r;
}

/* ---- breaking [L4] */

enum { ABANDONED = 1, ABANDONED_BY_US };

/* May the hold that `text` tells of be ended?  0: it has been; -EBUSY: its host lives. */
static int is_abandoned(SwControl *control, const SwEpoch *by, const char *text)
{
    SwLockText says;
    int r;

    if (sw_lock_text_parse(text, &says) < 0)
        return ABANDONED;
    if (strcmp(says.host_id, by->id) == 0)
        return ABANDONED_BY_US;
    r = sw_control_host_exists(control, says.host_id);
    if (r <= 0)
        return r < 0 ? r : ABANDONED;
    if (sw_bury_if_dead(control, says.host_id) == 0)
        return 0;
    sw_control_want(control, says.host_id);
    return -EBUSY;
}

/* One record whose host is gone. */
typedef struct {
    SwControl *control;
    const SwEpoch *by; /* in which we act */
    const char *name, *judged;
    struct timespec since; /* it was made then */
} Break;

static int read_again(Break *b)
{
    g_autofree char *text = NULL;
    int r = read_record(b->control, b->name, &text, &b->since);

    return r < 0 ? r : strcmp(text, b->judged) == 0 ? 0 : -EAGAIN;
}

/* The lock itself, if the record makes sense. */
static int undo(const Break *b)
{
    SwLockText says;
    SwJudgedLock judged = {.control = b->control, .by = b->by, .says = &says, .since = b->since};

    return parse_record(b->name, b->judged, &says) ? sw_lock_object_end_by_path(&judged) : 0;
}

static int take_step(gpointer data, SwStep step)
{
    Break *b = data;

    switch (step) {
    case SW_STEP_MARK:
        return sw_breaking_begin(b->control, b->by, SW_IN_LOCKS, b->name);
    case SW_STEP_READ_AGAIN:
        return read_again(b);
    case SW_STEP_UNDO:
        return undo(b);
    case SW_STEP_DROP:
        return drop_record(b->control, b->by, b->name);
    default:
        g_assert_not_reached();
    }
}

static void tell_broken(SwControl *control, const SwLockText *says, const char *reason)
{
    SwEvent event = {.kind = SW_EVENT_LOCK_BROKEN, .path = says->path, .host_id = says->host_id, .reason = reason};

    event.pid = says->pid;
    sw_tell_event(control, SW_NOTE_INFO, &event, "%s: the lock of process %d on host %s is broken (%s)", says->path,
                  (int)says->pid, says->host_id, reason);
}

/* 0: `judged` stands there no more; -EAGAIN: look again. */
static int break_record(SwControl *control, const SwEpoch *by, const char *name, const char *judged, const char *reason)
{
    Break b = {.control = control, .by = by, .name = name, .judged = judged};
    guint at;
    int r = sw_course_run(sw_hold_course, SW_HOLD_JUDGED, SW_HOLD_BROKEN, take_step, &b, &at);
    SwLockText says;

    if (at != SW_HOLD_JUDGED)
        sw_breaking_end(control, by, SW_IN_LOCKS, name);
    if (r == 0 && sw_lock_text_parse(judged, &says) == 0)
        tell_broken(control, &says, reason);
    return r == -ENOENT ? 0 : r;
}

/* 0: nothing stands at the record's name any more, or something else; -EBUSY: who holds it lives. */
static int contend(SwControl *control, const char *name, char **ret_text)
{
    const SwEpoch *by = sw_epoch_now(control);
    g_autofree char *text = NULL;
    int r = read_record(control, name, &text, NULL);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = is_abandoned(control, by, text);
    if (r == ABANDONED)
        r = break_record(control, by, name, text, "host-gone");
    else if (r == ABANDONED_BY_US) /* nobody here knows of it: a release that did not work, after the lock had gone */
        r = sw_take_back(control, by, SW_IN_LOCKS, name, text);
    if (r == -ENOENT)
        r = 0;
    if (ret_text)
        *ret_text = g_steal_pointer(&text);
    return r;
}

/* ---- the interface */

static gboolean is_of_this_name(const char *text, guint64 dir_ino, const char *name)
{
    SwLockText says;

    /* What cannot be read, or has no path, may be ours. */
    return sw_lock_text_parse(text, &says) < 0 ||
           (says.dir_ino == dir_ino && (!*says.path || strcmp(sw_last_component(says.path), name) == 0));
}

static int make_record(SwControl *control, const char *name, const char *text)
{
    SwPort *port = control->port;
    int r = port->symlinkat(port, text, control->locks, name);

    return r < 0 && link_says(port, control->locks, name, text) ? 0 : r; /* made, and the reply was lost */
}

const SwEpoch *sw_app_locks_epoch(SwControl *control)
{
    const SwEpoch *epoch = sw_epoch_now(control);

    return sw_epoch_is_fenced(control, epoch, FALSE) ? NULL : epoch;
}

int sw_app_lock_confirm(SwControl *control, const SwAppLock *lock)
{
    SwPort *port = control->port;
    int r = lock->epoch == sw_epoch_now(control) ? port->become(port, NULL) : -ESTALE;

    return r < 0 ? r : sw_epoch_check(control, lock->epoch, TRUE);
}

int sw_app_lock_begin(SwControl *control, const char *name, SwAppLock *lock)
{
    SwPort *port = control->port;
    char key[KEY_SIZE];
    SwEpoch *epoch = sw_epoch_now(control);
    int r = port->become(port, NULL);

    if (r == 0)
        r = sw_control_epoch_to_hold(control, &epoch);
    lock->key = sw_lock_key(lock->says.dir_ino, name);
    key_name(lock->key, key);
    lock->epoch = epoch;
    strcpy(lock->says.host_id, lock->epoch->id);
    lock->says.sequence = (guint32)g_atomic_int_add(&control->sequence, 1);
    lock->text = sw_lock_text_format(&lock->says);
    for (guint i = 0; r == 0 && i < BEGIN_TRIES; i++) {
        g_autofree char *seen = NULL;

        r = make_record(control, key, lock->text);
        if (r != -EEXIST)
            break;
        r = contend(control, key, &seen);
        if (r == -EBUSY && seen && !is_of_this_name(seen, lock->says.dir_ino, name)) {
            sw_app_lock_clear(lock);
            return 0;
        }
        if (r == -EBUSY || r == -EAGAIN) {
            port->sleep_us(port, BEGIN_PAUSE_US);
            r = 0;
        }
        if (r == 0 && i + 1 == BEGIN_TRIES)
            r = -EEXIST;
    }
    if (sw_is_unsure(r)) /* it may have been made */
        sw_leave_behind(control, lock->epoch, SW_IN_LOCKS, key, lock->text);
    if (r < 0)
        sw_app_lock_clear(lock);
    return r;
}

/* [L3] As the lease on a content is released (P13). */
int sw_app_lock_end(SwControl *control, const SwAppLock *lock)
{
    SwPort *port = control->port;
    char key[KEY_SIZE], name[16];
    int r;

    if (!lock->text)
        return 0;
    key_name(lock->key, key);
    (void)snprintf(name, sizeof name, "lock-%u", (guint)(lock->key % RELEASED_NAMES));
    r = port->become(port, NULL);
    if (r == 0)
        r = port->renameat(port, control->locks, key, lock->epoch->released, name, SW_RENAME_OWN);
    /* No room for a name, or a fault.  Not when we are fenced, which is ESTALE over NFS: whoever did that finds the
     * lock by its record. */
    if (r < 0 && r != -ENOENT && r != -ESTALE && link_says(port, control->locks, key, lock->text))
        return port->unlinkat(port, control->locks, key, 0);
    if (r < 0 && link_says(port, lock->epoch->released, name, lock->text))
        return 0;
    return r == -ENOENT ? -ESTALE : r;
}

void sw_app_lock_give_up(SwControl *control, const SwAppLock *lock)
{
    char key[KEY_SIZE];
    int r = sw_app_lock_end(control, lock);

    key_name(lock->key, key);
    if (r < 0 && r != -ESTALE)
        sw_leave_behind(control, lock->epoch, SW_IN_LOCKS, key, lock->text);
}

gboolean sw_app_lock_is_ours(SwControl *control, const SwAppLock *lock)
{
    g_autofree char *text = NULL;
    char key[KEY_SIZE];

    key_name(lock->key, key);
    if (lock->epoch != sw_epoch_now(control))
        return FALSE;
    return !lock->text || control->port->become(control->port, NULL) < 0 ||
           read_record(control, key, &text, NULL) < 0 || strcmp(text, lock->text) == 0;
}

void sw_app_lock_overrule(SwControl *control, guint64 dir_ino, const char *name)
{
    const SwEpoch *by = sw_epoch_now(control);
    g_autofree char *text = NULL;
    char key[KEY_SIZE];

    key_name(sw_lock_key(dir_ino, name), key);
    if (control->port->become(control->port, NULL) == 0 && read_record(control, key, &text, NULL) == 0 &&
        is_of_this_name(text, dir_ino, name))
        (void)drop_record(control, by, key);
}

int sw_app_lock_break(SwControl *control, const SwAppLock *lock, int dirfd, const char *name)
{
    SwPort *port = control->port;
    SwJudgedLock judged = {.control = control, .by = lock->epoch, .says = &lock->says};
    struct stat record;
    char key[KEY_SIZE];
    int r = port->become(port, NULL);

    key_name(lock->key, key);
    if (r == 0 && lock->text) {
        r = port->statat(port, control->locks, key, &record);
        if (r == 0)
            judged.since = record.st_ctim;
    }
    if (r == 0)
        r = sw_lock_object_end(&judged, dirfd, name);
    return r < 0 && r != -ENOENT ? r : sw_app_lock_end(control, lock);
}

int sw_app_lock_holder(SwControl *control, guint64 dir_ino, const char *name)
{
    SwPort *port = control->port;
    g_autofree char *text = NULL;
    char key[KEY_SIZE];
    int r = port->become(port, NULL);

    key_name(sw_lock_key(dir_ino, name), key);
    if (r == 0)
        r = contend(control, key, &text);
    if (r == -EBUSY && text && !is_of_this_name(text, dir_ino, name))
        return 0;
    return r == -EAGAIN ? -EBUSY : r;
}

int sw_app_lock_break_name(SwControl *control, guint64 dir_ino, const char *name, SwLockText *ret_says)
{
    const SwEpoch *by = sw_epoch_now(control);
    char key[KEY_SIZE];
    int r = control->port->become(control->port, NULL);

    key_name(sw_lock_key(dir_ino, name), key);
    for (guint i = 0; r == 0; i++) {
        g_autofree char *text = NULL;

        r = read_record(control, key, &text, NULL);
        if (r < 0 || !is_of_this_name(text, dir_ino, name))
            return r < 0 ? r : -ENOENT;
        if (sw_lock_text_parse(text, ret_says) < 0)
            *ret_says = (SwLockText){0};
        r = break_record(control, by, key, text, "administrator");
        if (r != -EAGAIN || i >= ORDER_TRIES)
            return r;
        control->port->sleep_us(control->port, ORDER_PAUSE_US);
        r = 0;
    }
    return r;
}

/* ---- many at once [L5] */

static int drop_one_of(SwControl *control, const SwEpoch *by, const char *name, const char *host_id)
{
    g_autofree char *text = NULL;
    struct timespec since;
    SwLockText says;
    Break b;
    int r;

    if (g_str_has_suffix(name, SW_MARK)) {
        sw_sweep_mark(control, by, SW_IN_LOCKS, name);
        return 0;
    }
    r = read_record(control, name, &text, &since);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (sw_lock_text_parse(text, &says) < 0 || strcmp(says.host_id, host_id) != 0)
        return 0;
    b = (Break){.control = control, .by = by, .name = name, .judged = text, .since = since};
    r = sw_course_run(sw_hold_course, SW_HOLD_CERTAIN, SW_HOLD_BROKEN, take_step, &b, NULL);
    if (r == 0)
        tell_broken(control, &says, strcmp(by->id, host_id) == 0 ? "unmounted" : "host-gone");
    return r == -ENOENT ? 0 : r;
}

int sw_app_locks_drop_of(SwControl *control, const SwEpoch *by, const char *host_id)
{
    g_autoptr(GPtrArray) names = NULL;
    int r = control->port->become(control->port, NULL);

    if (r == 0)
        r = sw_dir_names(control->port, control->locks, SW_HOSTS_MAX, FALSE, &names);
    for (guint i = 0; r == 0 && i < names->len; i++)
        r = drop_one_of(control, by, names->pdata[i], host_id);
    return r;
}

/* No record and no host has come or gone since the last sweep, nor in the moment in which that looked: two looks have
 * to agree, for a change within one tick of the server's clock does not show. */
static gboolean nothing_new(SwControl *control)
{
    struct timespec now[2] = {{0}};
    struct stat st;

    for (int i = 0; i < 2; i++) {
        if (control->port->stat_fresh(control->port, i ? control->hosts : control->locks, "", &st) < 0)
            return FALSE;
        now[i] = st.st_mtim;
    }
    control->same_sweeps = memcmp(now, control->swept, sizeof now) == 0 ? control->same_sweeps + 1 : 0;
    memcpy(control->swept, now, sizeof now);
    return control->same_sweeps > 1;
}

static void sweep_one(SwControl *control, const char *name, const char *host_id, GHashTable *alive)
{
    int r = contend(control, name, NULL);

    if (r == -EBUSY)
        g_hash_table_add(alive, g_strdup(host_id));
    else if (r < 0)
        control->same_sweeps = 0; /* to be tried again */
}

void sw_app_locks_sweep(SwControl *control)
{
    g_autoptr(GPtrArray) names = NULL;
    g_autoptr(GHashTable) alive = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    if (control->port->become(control->port, NULL) < 0 || nothing_new(control))
        return;
    if (sw_dir_names(control->port, control->locks, SW_HOSTS_MAX, FALSE, &names) < 0)
        control->same_sweeps = 0;
    for (guint i = 0; names && i < names->len; i++) {
        const char *name = names->pdata[i];
        g_autofree char *text = NULL;
        SwLockText says;

        if (g_str_has_suffix(name, SW_MARK)) {
            sw_sweep_mark(control, sw_epoch_now(control), SW_IN_LOCKS, name);
            continue;
        }
        /* What nobody understands is left to who wants that name. */
        if (read_record(control, name, &text, NULL) < 0 || sw_lock_text_parse(text, &says) < 0)
            continue;
        if (strcmp(says.host_id, sw_control_host_id(control)) != 0 && !g_hash_table_contains(alive, says.host_id))
            sweep_one(control, name, says.host_id, alive);
    }
}

int sw_app_lock_server_now(SwControl *control, struct timespec *ret_now)
{
    SwPort *port = control->port;
    g_autofree char *name = sw_control_unique(control, "now-");
    int r = port->become(port, NULL);
    int fd = r < 0 ? r : port->openat(port, sw_epoch_now(control)->released, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    struct stat st;

    if (fd < 0)
        return fd;
    r = port->statat(port, fd, "", &st);
    sw_fd_close(port, &fd);
    (void)port->unlinkat(port, sw_epoch_now(control)->released, name, 0);
    if (r == 0)
        *ret_now = st.st_ctim;
    return r;
}

/* ---- for the daemon that follows */

void sw_app_lock_carry(SwControl *control, SwBundle *bundle, SwAppLock *lock)
{
    SwEpoch *epoch = (SwEpoch *)lock->epoch;
    guint kind;

    SW_BUNDLE(bundle, lock->key);
    sw_epoch_carry(control, bundle, &epoch);
    lock->epoch = epoch;
    SW_BUNDLE(bundle, lock->says);
    sw_bundle_text(bundle, &lock->text, SW_LINK_SIZE);
    kind = lock->says.kind;
    if (kind > SW_LOCK_DIR || !memchr(lock->says.path, '\0', sizeof lock->says.path) ||
        !memchr(lock->says.host_id, '\0', sizeof lock->says.host_id))
        sw_bundle_fail(bundle, "a lock's record is none");
    if (!epoch)
        sw_bundle_fail(bundle, "a lock is of no epoch");
}
