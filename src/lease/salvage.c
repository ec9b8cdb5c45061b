/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Salvage: where bytes go that cannot be committed [P15].
 *
 *   <entry>.tmp    the description, being written as the owner of the bytes
 *   <entry>.info   the description
 *   <entry>.data   the stage itself, renamed
 *   <entry>.junk   a directory that somebody put among the stages
 *
 * Description first: bytes without one can come only from a full disk.  The bounds are kept per put by guess, and by a
 * look at the directory every so often.  Over the bound, it is the owner who holds most whose oldest entry goes, so
 * that nobody can push out what belongs to others.  Ages are differences between change times that the server gave, the
 * present one being that of a file just made (C23).
 */

#include "salvage.h"

#include "app_lock.h"

#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define TRIM_PUTS 64
#define TRIM_INTERVAL_US (60 * G_TIME_SPAN_SECOND)
#define ORPHAN_AGE_US G_TIME_SPAN_HOUR /* of a description whose bytes never came */

static const char *const suffixes[] = {".data", ".info", ".tmp", ".junk"};

/* ---- names */

static char *entry_file(const char *entry, const char *suffix)
{
    return g_strconcat(entry, suffix, NULL);
}

static char *new_entry(SwControl *control, const char *host_id)
{
    guint32 chance = 0;

    /* Without chance the number still tells this mount's entries apart. */
    (void)control->port->random(control->port, &chance, sizeof chance);
    return g_strdup_printf("%s-%u-%08x", host_id, (guint)g_atomic_int_add(&control->sequence, 1), chance);
}

gboolean sw_salvage_name_is_valid(const char *name)
{
    g_autofree char *host_id = NULL;
    const char *chance = strrchr(name, '-');
    const char *number;

    if (!chance || strlen(name) > SW_HOST_ID_MAX + 32 || strspn(chance + 1, "0123456789abcdef") != 8 || chance[9])
        return FALSE;
    for (number = chance; number > name && g_ascii_isdigit(number[-1]);)
        number--;
    if (number == chance || number - name < 2 || number[-1] != '-')
        return FALSE;
    host_id = g_strndup(name, number - 1 - name);
    return sw_host_id_is_valid(host_id);
}

/* The entry a file belongs to (g_free) and which of its files it is; NULL for anything else. */
static char *entry_of(const char *file, const char **ret_suffix)
{
    for (guint i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        g_autofree char *entry = NULL;

        if (!g_str_has_suffix(file, suffixes[i]))
            continue;
        entry = g_strndup(file, strlen(file) - strlen(suffixes[i]));
        if (!sw_salvage_name_is_valid(entry))
            return NULL;
        *ret_suffix = suffixes[i];
        return g_steal_pointer(&entry);
    }
    return NULL;
}

/* ---- reading */

void sw_salvage_entry_free(SwSalvageEntry *entry)
{
    if (entry)
        g_free(entry->name);
    g_free(entry);
}

static gint64 change_us(const struct stat *st)
{
    return (gint64)st->st_ctim.tv_sec * G_USEC_PER_SEC + st->st_ctim.tv_nsec / 1000;
}

static void scan_file(SwPort *port, int dirfd, const char *file, GHashTable *entries)
{
    const char *suffix;
    g_autofree char *name = entry_of(file, &suffix);
    SwSalvageEntry *entry;
    struct stat st;

    if (!name || port->statat(port, dirfd, file, &st) < 0)
        return;
    entry = g_hash_table_lookup(entries, name);
    if (!entry) {
        entry = g_new0(SwSalvageEntry, 1);
        entry->name = g_steal_pointer(&name);
        g_hash_table_insert(entries, entry->name, entry);
    }
    entry->changed_us = MAX(entry->changed_us, change_us(&st));
    if (S_ISREG(st.st_mode) && strcmp(suffix, ".data") == 0) {
        entry->has_data = TRUE;
        entry->data = st;
    } else if (S_ISREG(st.st_mode) && strcmp(suffix, ".info") == 0) {
        entry->has_info = TRUE;
        entry->info = st;
    }
}

static gint by_age(gconstpointer a, gconstpointer b)
{
    const SwSalvageEntry *x = *(SwSalvageEntry *const *)a, *y = *(SwSalvageEntry *const *)b;

    if (x->changed_us != y->changed_us)
        return x->changed_us < y->changed_us ? -1 : 1;
    return strcmp(x->name, y->name);
}

int sw_salvage_scan(SwPort *port, int dirfd, GPtrArray **ret_entries)
{
    g_autoptr(GPtrArray) names = NULL, sorted = NULL;
    g_autoptr(GHashTable) entries = NULL;
    GHashTableIter iter;
    gpointer entry;
    int r = sw_dir_names(port, dirfd, SW_SALVAGE_NAMES_MAX, FALSE, &names);

    if (r < 0)
        return r;
    entries = g_hash_table_new(g_str_hash, g_str_equal);
    for (guint i = 0; i < names->len; i++)
        scan_file(port, dirfd, names->pdata[i], entries);
    sorted = g_ptr_array_new_with_free_func((GDestroyNotify)sw_salvage_entry_free);
    g_hash_table_iter_init(&iter, entries);
    while (g_hash_table_iter_next(&iter, NULL, &entry))
        g_ptr_array_add(sorted, entry);
    g_ptr_array_sort(sorted, by_age);
    *ret_entries = g_steal_pointer(&sorted);
    return 0;
}

static int read_as_owner(SwPort *port, int dirfd, const char *file, const struct stat *owner, char **ret_text,
                         struct stat *ret_st)
{
    SwCred cred = {.uid = owner->st_uid, .gid = owner->st_gid};
    int r = port->become(port, &cred);

    if (r == 0)
        r = sw_port_read_file(port, dirfd, file, SW_RECORD_MAX, ret_text, ret_st);
    (void)port->become(port, NULL);
    return r;
}

int sw_salvage_describe(SwPort *port, int dirfd, const SwSalvageEntry *entry, SwSalvageInfo *ret_info)
{
    g_autofree char *file = entry_file(entry->name, ".info");
    g_autofree char *text = NULL;
    struct stat st;
    int r;

    if (!entry->has_info || !entry->has_data || entry->info.st_uid != entry->data.st_uid)
        return -ENOENT;
    r = sw_port_read_file(port, dirfd, file, SW_RECORD_MAX, &text, &st);
    if (r == -EACCES || r == -EPERM)
        r = read_as_owner(port, dirfd, file, &entry->info, &text, &st);
    if (r < 0 || st.st_uid != entry->data.st_uid)
        return -ENOENT;
    return sw_salvage_info_parse(text, st.st_size, ret_info) < 0 ? -ENOENT : 0;
}

/* A lock directory holds small files at most; one that holds more stays. */
static int drop_directory(SwPort *port, int dirfd, const char *name)
{
    g_autoptr(GPtrArray) names = NULL;
    int fd = port->openat(port, dirfd, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);

    if (fd >= 0 && sw_dir_names(port, fd, SW_LOCK_ENTRIES_MAX, FALSE, &names) == 0)
        for (guint i = 0; i < names->len; i++)
            (void)port->unlinkat(port, fd, names->pdata[i], 0);
    sw_fd_close(port, &fd);
    return port->unlinkat(port, dirfd, name, AT_REMOVEDIR);
}

int sw_salvage_drop(SwPort *port, int dirfd, const char *name)
{
    int result = 0;

    for (guint i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        g_autofree char *file = entry_file(name, suffixes[i]);
        int r = port->unlinkat(port, dirfd, file, 0);

        if (r == -EISDIR)
            r = drop_directory(port, dirfd, file);
        if (r < 0 && r != -ENOENT)
            result = r;
    }
    return result;
}

/* ---- the bounds */

/* What one user has in salvage. */
typedef struct {
    uid_t uid;
    guint64 bytes;
    guint count;
    guint next; /* entries before this one are gone or another's */
} Holder;

typedef struct {
    GPtrArray *entries; /* a dropped one is NULL */
    GArray *holders;    /* of Holder */
    guint64 bytes;      /* all but the newest entry's */
    guint64 newest;     /* that one's */
    guint count;
} Holdings;

static Holder *holder_of(Holdings *all, uid_t uid)
{
    Holder fresh = {.uid = uid};

    for (guint i = 0; i < all->holders->len; i++)
        if (g_array_index(all->holders, Holder, i).uid == uid)
            return &g_array_index(all->holders, Holder, i);
    g_array_append_val(all->holders, fresh);
    return &g_array_index(all->holders, Holder, all->holders->len - 1);
}

static guint64 entry_bytes(const SwSalvageEntry *entry)
{
    return entry->has_data && entry->data.st_size > 0 ? (guint64)entry->data.st_size : 0;
}

static uid_t entry_owner(const SwSalvageEntry *entry)
{
    return entry->has_data ? entry->data.st_uid : entry->info.st_uid;
}

/* The newest entry always stays, so it is nobody's holding. */
static void count_entries(Holdings *all)
{
    for (guint i = 0; i < all->entries->len; i++) {
        const SwSalvageEntry *entry = all->entries->pdata[i];
        Holder *holder;

        if (!entry)
            continue;
        if (i + 1 == all->entries->len) {
            all->newest = entry_bytes(entry);
            return;
        }
        holder = holder_of(all, entry_owner(entry));
        holder->bytes += entry_bytes(entry);
        holder->count++;
        all->bytes += entry_bytes(entry);
        all->count++;
    }
}

static void drop_entry(SwControl *control, Holdings *all, guint index)
{
    SwSalvageEntry *entry = all->entries->pdata[index];

    (void)sw_salvage_drop(control->port, control->salvage, entry->name);
    sw_salvage_entry_free(entry);
    all->entries->pdata[index] = NULL;
}

static gint64 server_now_us(SwControl *control)
{
    SwPort *port = control->port;
    g_autofree char *entry = new_entry(control, sw_control_host_id(control));
    g_autofree char *file = entry_file(entry, ".tmp");
    int fd = port->openat(port, control->salvage, file, O_WRONLY | O_CREAT | O_EXCL, 0600);
    struct stat st;
    int r;

    if (fd < 0)
        return -1;
    r = port->statat(port, fd, "", &st);
    sw_fd_close(port, &fd);
    (void)port->unlinkat(port, control->salvage, file, 0);
    return r < 0 ? -1 : change_us(&st);
}

static void drop_aged(SwControl *control, Holdings *all)
{
    gint64 now_us = all->entries->len > 0 ? server_now_us(control) : -1;

    for (guint i = 0; now_us >= 0 && i < all->entries->len; i++) {
        const SwSalvageEntry *entry = all->entries->pdata[i];
        gint64 age_us = sw_control_limit(&control->salvage_age_us);
        gint64 limit_us = entry->has_data ? age_us : MIN(age_us, ORPHAN_AGE_US);

        if (now_us - entry->changed_us > limit_us)
            drop_entry(control, all, i);
    }
}

static Holder *holder_of_most(Holdings *all, gboolean by_count)
{
    Holder *most = NULL;

    for (guint i = 0; i < all->holders->len; i++) {
        Holder *holder = &g_array_index(all->holders, Holder, i);

        if (!most || (by_count ? holder->count > most->count : holder->bytes > most->bytes))
            most = holder;
    }
    return most;
}

/* Drops the oldest entry of the holder of most; FALSE when nobody holds anything. */
static gboolean drop_one(SwControl *control, Holdings *all, gboolean by_count)
{
    Holder *most = holder_of_most(all, by_count);

    for (; most && most->next + 1 < all->entries->len; most->next++) {
        const SwSalvageEntry *entry = all->entries->pdata[most->next];

        if (!entry || entry_owner(entry) != most->uid)
            continue;
        all->bytes -= entry_bytes(entry);
        most->bytes -= entry_bytes(entry);
        all->count--;
        most->count--;
        drop_entry(control, all, most->next);
        return TRUE;
    }
    return FALSE;
}

/* A little more than needed, so that not every put has to trim. */
static void drop_excess(SwControl *control, Holdings *all)
{
    guint64 max = (guint64)sw_control_limit(&control->salvage_max);
    guint64 slack = max / 8;
    /* However large the newest entry is, half of the room remains to the others. */
    guint64 room = max - MIN(all->newest, max / 2);

    if (all->bytes > room)
        while (all->bytes > room - slack && drop_one(control, all, FALSE))
            ;
    if (all->count >= SW_SALVAGE_ENTRIES_MAX)
        while (all->count > SW_SALVAGE_ENTRIES_MAX - SW_SALVAGE_ENTRIES_MAX / 8 && drop_one(control, all, TRUE))
            ;
}

static void trim(SwControl *control)
{
    Holdings all = {0};

    if (sw_salvage_scan(control->port, control->salvage, &all.entries) < 0)
        return;
    all.holders = g_array_new(FALSE, FALSE, sizeof(Holder));
    drop_aged(control, &all);
    count_entries(&all);
    drop_excess(control, &all);
    sw_mutex_lock(&control->lock);
    control->salvaged = all.bytes + MIN(all.newest, (guint64)sw_control_limit(&control->salvage_max) / 2);
    control->puts = 0;
    control->trimmed_us = control->port->now_us(control->port);
    sw_mutex_unlock(&control->lock);
    g_array_free(all.holders, TRUE);
    g_ptr_array_unref(all.entries);
}

void sw_control_trim_salvage(SwControl *control)
{
    if (!g_atomic_int_compare_and_exchange(&control->trimming, 0, 1))
        return; /* somebody is at it */
    if (control->port->become(control->port, NULL) == 0)
        trim(control);
    g_atomic_int_set(&control->trimming, 0);
}

static void count_put(SwControl *control, guint64 size)
{
    gint64 now_us = control->port->now_us(control->port);
    gboolean due;

    sw_mutex_lock(&control->lock);
    control->puts++;
    control->salvaged += size;
    due = control->puts >= TRIM_PUTS || control->salvaged > (guint64)sw_control_limit(&control->salvage_max) ||
          now_us - control->trimmed_us > TRIM_INTERVAL_US;
    sw_mutex_unlock(&control->lock);
    if (due)
        sw_control_trim_salvage(control);
}

/* ---- putting */

static char *describe(const SwControl *control, const char *host_id, const SwSalvageInfo *info, guint64 size)
{
    SwSalvageInfo filled = *info;

    filled.host_id = (char *)host_id;
    filled.wall_us = control->port->wall_us(control->port);
    filled.size = size;
    return sw_salvage_info_format(&filled);
}

static int write_file(SwPort *port, int dirfd, const char *name, const char *text, gboolean sync)
{
    int fd = port->openat(port, dirfd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    int r;

    if (fd < 0)
        return fd;
    r = sw_port_write_all(port, fd, text, strlen(text), 0);
    if (r == 0 && sync)
        r = port->fsync(port, fd, FALSE);
    sw_fd_close(port, &fd);
    return r;
}

/* Acts as the owner of the bytes, and comes back as the daemon. */
static int write_info(SwControl *control, const char *entry, const char *text, gboolean sync, const SwCred *owner)
{
    SwPort *port = control->port;
    g_autofree char *temporary = entry_file(entry, ".tmp");
    g_autofree char *file = entry_file(entry, ".info");
    int r = port->become(port, owner);

    if (r == 0) {
        r = write_file(port, control->salvage, temporary, text, sync);
        if (r == 0)
            r = port->renameat(port, control->salvage, temporary, control->salvage, file, 0);
        if (r < 0)
            (void)port->unlinkat(port, control->salvage, temporary, 0);
    }
    (void)port->become(port, NULL);
    /* A full disk must not keep the bytes themselves from being saved. */
    return r == -ENOSPC || r == -EDQUOT ? 0 : r;
}

static int move_data(SwControl *control, int dirfd, const char *name, const char *entry, const struct stat *st,
                     const SwCred *owner)
{
    SwPort *port = control->port;
    g_autofree char *file = entry_file(entry, ".data");
    struct stat now;
    int r = port->become(port, owner);

    /* Salvage is no place for programs that run as somebody.  A file with another name is not ours to change. */
    /* The directory it came for may have kept others out; salvage does not, so the mode has to. */
    if (r == 0 && (st->st_mode & ~S_IFMT & ~(mode_t)0700) && st->st_nlink == 1)
        (void)port->chmodat(port, dirfd, name, st->st_mode & 0700);
    (void)port->become(port, NULL);
    r = port->renameat(port, dirfd, name, control->salvage, file, 0);
    if ((r == -EACCES || r == -EPERM) && port->become(port, owner) == 0) {
        r = port->renameat(port, dirfd, name, control->salvage, file, 0);
        (void)port->become(port, NULL);
    }
    /* Moved, and the reply was lost: then nothing but what is in salvage is left of the bytes. */
    if (r < 0 && port->statat(port, dirfd, name, &now) == -ENOENT &&
        port->statat(port, control->salvage, file, &now) == 0)
        return 0;
    return r;
}

int sw_salvage_put(SwControl *control, int dirfd, const char *name, const char *host_id, const SwSalvageInfo *info,
                   const SwCred *cred)
{
    SwPort *port = control->port;
    g_autofree char *entry = NULL, *text = NULL;
    SwCred owner = *cred;
    struct stat st;
    int r = port->become(port, NULL);

    if (r == 0)
        r = port->statat(port, dirfd, name, &st);
    if (r < 0)
        return r;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    /* An empty lock says all that it has to say by being there. */
    if (st.st_size == 0 && strcmp(info->reason, "broken") != 0)
        return port->unlinkat(port, dirfd, name, 0);
    if (owner.uid != st.st_uid) /* the stage was given the owner that the old version had (C17) */
        owner = (SwCred){.uid = st.st_uid, .gid = st.st_gid};
    entry = new_entry(control, host_id);
    text = describe(control, host_id, info, st.st_size);
    r = write_info(control, entry, text, info->synced, &owner);
    if (r == 0)
        r = move_data(control, dirfd, name, entry, &st, &owner);
    if (r < 0)
        (void)sw_salvage_drop(port, control->salvage, entry);
    else
        count_put(control, st.st_size);
    return r;
}

int sw_salvage_junk(SwControl *control, int dirfd, const char *name)
{
    SwPort *port = control->port;
    g_autofree char *entry = NULL, *file = NULL;
    int r = port->unlinkat(port, dirfd, name, 0);

    if (r == -EISDIR)
        r = port->unlinkat(port, dirfd, name, AT_REMOVEDIR);
    if (r != -ENOTEMPTY)
        return r;
    entry = new_entry(control, sw_control_host_id(control));
    file = entry_file(entry, ".junk");
    return port->renameat(port, dirfd, name, control->salvage, file, 0);
}

int sw_salvage_keep_junk(SwControl *control, int dirfd, const char *name, const char *host_id)
{
    g_autofree char *entry = new_entry(control, host_id);
    g_autofree char *file = entry_file(entry, ".junk");

    return control->port->renameat(control->port, dirfd, name, control->salvage, file, 0);
}

int sw_control_salvage(SwControl *control, const SwEpoch *epoch, guint worker, const char *name,
                       const SwSalvageInfo *info, const SwCred *cred)
{
    int r = sw_salvage_put(control, sw_epoch_stage_dir(epoch, worker), name, epoch->id, info, cred);

    sw_control_forget_description(control, epoch, worker, name, cred);
    (void)control->port->become(control->port, NULL);
    return r;
}

/* As the target of a symbolic link it is one call; what is too long for that is a file. */
static int put_description(SwPort *port, int dirfd, const char *name, const char *text)
{
    int r = strlen(text) < SW_LINK_SIZE ? port->symlinkat(port, text, dirfd, name) : -ENAMETOOLONG;

    if (r == 0)
        r = port->fsync(port, dirfd, FALSE);
    return r == -ENAMETOOLONG ? write_file(port, dirfd, name, text, TRUE) : r;
}

int sw_control_describe(SwControl *control, const SwEpoch *epoch, guint worker, const char *name,
                        const SwSalvageInfo *info, const SwCred *cred)
{
    SwPort *port = control->port;
    g_autofree char *file = entry_file(name, SW_DESCRIPTION);
    g_autofree char *text = sw_salvage_info_format(info);
    int r = port->become(port, cred);

    if (r == 0)
        r = put_description(port, epoch->stages[worker], file, text);
    (void)port->become(port, NULL);
    return r;
}

void sw_control_forget_description(SwControl *control, const SwEpoch *epoch, guint worker, const char *name,
                                   const SwCred *cred)
{
    SwPort *port = control->port;
    g_autofree char *file = entry_file(name, SW_DESCRIPTION);

    if (port->become(port, cred) == 0)
        (void)port->unlinkat(port, epoch->stages[worker], file, 0);
    (void)port->become(port, NULL);
}
