/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host.h"

#include "../../src/core/base.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICE 77 /* any number will do */
#define READ_MAX 65536

/* An open file description. */
typedef struct {
    SwHandle *handle;
    SwNode *node;
    guint refs;
    int flags;
    off_t at;
} File;

/* A name that the kernel knows, and how many look-ups it owes for it. */
typedef struct {
    SwNode *node;
    guint64 count;
    gint64 until_us;
    ino_t ino;
} Cached;

/* ---- the world */

static char *base_dir(void)
{
    /* Memory, where there is some: thousands of small source directories come and go. */
    return g_strdup(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : g_get_tmp_dir());
}

Sim *sim_new(guint64 seed)
{
    Sim *sim = g_new0(Sim, 1);
    g_autofree char *base = base_dir();

    sim->world = (SimWorld){.now_us = G_TIME_SPAN_HOUR, .chance = seed * 2654435761u + 88172645463325252u};
    sim->world.told = sim_told_new(&sim->world.now_us, &sim->world.aged_us);
    g_snprintf(sim->path, sizeof sim->path, "%s/sw-sim-XXXXXX", base);
    if (!mkdtemp(sim->path))
        g_error("%s: %s", sim->path, g_strerror(errno));
    sim->source = open(sim->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_assert(sim->source >= 0);
    sim->complaints = g_string_new(NULL);
    return sim;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

void sim_free(Sim *sim)
{
    (void)close(sim->source);
    (void)nftw(sim->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    g_string_free(sim->complaints, TRUE);
    sim_told_free(sim->world.told);
    g_free(sim);
}

void sim_complain(Sim *sim, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_string_append_vprintf(sim->complaints, format, args);
    va_end(args);
    g_string_append_c(sim->complaints, '\n');
}

/* ---- hosts */

static void note(gpointer data, SwNoteLevel level, const SwEvent *event, const char *text)
{
    SimHost *host = data;

    if (host->verbose)
        g_printerr("      note %u@%u: %s\n", level, host->machine, text);
}

static void forget_names(SimHost *host)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, host->cache);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const Cached *cached = value;

        sw_overlay_forget(host->overlay, cached->node, cached->count);
        g_hash_table_iter_remove(&iter);
    }
}

SimHost *sim_host_new(Sim *sim, guint machine)
{
    SimHost *host = g_new0(SimHost, 1);

    host->sim = sim;
    host->machine = machine;
    sw_config_init(&host->config);
    sim_processes_init(&host->processes);
    host->port = sim_port_new(&sim->world, machine, &host->processes);
    host->port->forgets_old = g_getenv("SW_SIM_FORGETS") != NULL;
    host->cache = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    host->files = g_ptr_array_new_with_free_func(g_free);
    host->owed = g_array_new(FALSE, FALSE, sizeof(Cached));
    host->verbose = g_getenv("SW_SIM_VERBOSE") != NULL;
    return host;
}

int sim_host_mount(SimHost *host)
{
    g_autofree char *why = NULL;
    int r = sw_control_open(host->port, host->sim->source, host->sim->path, &host->config, &host->control, &why);

    if (r < 0) {
        if (!why)
            sim_complain(host->sim, "a mount failed with %d without a reason", r);
        return r;
    }
    r = sw_overlay_new(host->port, host->control, &host->config, host->sim->source, note, host, &host->overlay);
    if (r == 0)
        sw_overlay_set_device(host->overlay, DEVICE);
    return r;
}

SimHost *sim_host_mounted(Sim *sim, guint machine)
{
    SimHost *host = sim_host_new(sim, machine);
    int r = sim_host_mount(host);

    if (r < 0) {
        sim_complain(sim, "machine %u cannot mount: %s", machine, g_strerror(-r));
        sim_host_free(host);
        return NULL;
    }
    return host;
}

void sim_host_tick(SimHost *host, gint64 us)
{
    host->sim->world.now_us += us;
    if (host->overlay)
        (void)sw_overlay_tick(host->overlay, NULL, NULL);
}

gboolean sim_host_is_dead(const SimHost *host)
{
    return sim_port_is_dead(host->port);
}

void sim_host_free(SimHost *host)
{
    if (!host)
        return;
    if (host->overlay)
        forget_names(host);
    sw_overlay_free(host->overlay);
    sw_control_close(host->control);
    if (sim_port_open_fds(host->port) > 0 && !sim_host_is_dead(host))
        sim_complain(host->sim, "%u descriptors were not closed at the end", sim_port_open_fds(host->port));
    sw_port_free(host->port);
    g_hash_table_unref(host->cache);
    g_ptr_array_unref(host->files);
    g_array_unref(host->owed);
    sim_processes_clear(&host->processes);
    sw_config_clear(&host->config);
    g_free(host);
}

/* A daemon that died has answered nothing. */
static gssize answer(const SimHost *host, gssize r)
{
    return sim_host_is_dead(host) ? -ENOTCONN : r;
}

/* ---- programs */

SimProcess *sim_program(SimHost *host)
{
    return sim_process_new(&host->processes, 1);
}

SimProcess *sim_fork(SimHost *host, SimProcess *parent)
{
    SimProcess *child = sim_process_new(&host->processes, parent->pid);

    for (guint i = 0; i < parent->fds->len; i++) {
        SimDescriptor fd = g_array_index(parent->fds, SimDescriptor, i);

        ((File *)fd.file)->refs++;
        g_array_append_val(child->fds, fd);
    }
    return child;
}

void sim_exit(SimHost *host, SimProcess *process, int status)
{
    process->exiting = TRUE;
    process->status = status;
    while (process->fds->len > 0)
        (void)sim_close(host, process, g_array_index(process->fds, SimDescriptor, 0).number);
    process->gone = TRUE;
}

SwCaller sim_caller(const SimProcess *process)
{
    return (SwCaller){.cred = {.uid = geteuid(), .gid = getegid()}, .tid = process->pid, .umask = 022};
}

static SimDescriptor *descriptor(const SimProcess *process, int number)
{
    for (guint i = 0; i < process->fds->len; i++) {
        SimDescriptor *fd = &g_array_index(process->fds, SimDescriptor, i);

        if (fd->number == number)
            return fd;
    }
    g_error("%d is no descriptor of %d", number, process->pid);
}

static int install(SimHost *host, SimProcess *process, SwHandle *handle, SwNode *node, ino_t ino, int flags)
{
    File *file = g_new0(File, 1);
    SimDescriptor fd = {.number = 3, .ino = ino, .file = file};

    *file = (File){.handle = handle, .node = node, .refs = 1, .flags = flags};
    g_ptr_array_add(host->files, file);
    fd.writes = (flags & O_ACCMODE) != O_RDONLY;
    for (guint i = 0; i < process->fds->len; i++)
        fd.number = MAX(fd.number, g_array_index(process->fds, SimDescriptor, i).number + 1);
    g_array_append_val(process->fds, fd);
    return fd.number;
}

/* ---- names */

static void drop_name(SimHost *host, const char *name)
{
    Cached *cached = g_hash_table_lookup(host->cache, name);

    if (!cached)
        return;
    if (host->n_opening)
        g_array_append_val(host->owed, *cached);
    else
        sw_overlay_forget(host->overlay, cached->node, cached->count);
    g_hash_table_remove(host->cache, name);
}

static void forget_owed(SimHost *host)
{
    for (guint i = 0; i < host->owed->len; i++) {
        Cached *owed = &g_array_index(host->owed, Cached, i);

        sw_overlay_forget(host->overlay, owed->node, owed->count);
    }
    g_array_set_size(host->owed, 0);
}

/* The kernel has one number for all descriptors of a node: what it was told last. */
static void tell_number(SimHost *host, SwNode *node, ino_t ino)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, host->processes.by_pid);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        GArray *fds = ((SimProcess *)value)->fds;

        for (guint i = 0; i < fds->len; i++) {
            SimDescriptor *fd = &g_array_index(fds, SimDescriptor, i);

            if (((File *)fd->file)->node == node)
                fd->ino = ino;
        }
    }
}

static Cached *keep_name(SimHost *host, const char *name, const SwEntry *entry)
{
    Cached *cached = g_hash_table_lookup(host->cache, name);

    if (cached && cached->node != entry->node) {
        drop_name(host, name);
        cached = NULL;
    }
    if (!cached) {
        cached = g_new0(Cached, 1);
        cached->node = entry->node;
        g_hash_table_insert(host->cache, g_strdup(name), cached);
    }
    cached->count++;
    cached->until_us = host->sim->world.now_us + entry->entry_us;
    cached->ino = entry->st.st_ino;
    tell_number(host, entry->node, entry->st.st_ino);
    return cached;
}

static int look_up(SimHost *host, const SwCaller *caller, const char *name, gboolean again, Cached *ret_cached)
{
    Cached *cached = g_hash_table_lookup(host->cache, name);
    SwEntry entry;
    int r = 0;

    if (cached && !again && cached->until_us > host->sim->world.now_us) {
        *ret_cached = *cached;
        return 0;
    }
    r = sw_overlay_lookup(host->overlay, caller, sw_overlay_root(host->overlay), name, &entry);
    if (r < 0) {
        drop_name(host, name);
        return r;
    }
    *ret_cached = *keep_name(host, name, &entry);
    return 0;
}

static int create(SimHost *host, SimProcess *process, const char *name, int flags)
{
    SwCaller caller = sim_caller(process);
    SwHandle *handle = NULL;
    SwEntry entry;
    int r =
        sw_overlay_create(host->overlay, &caller, sw_overlay_root(host->overlay), name, 0666, flags, &entry, &handle);

    if (r < 0)
        return r;
    (void)keep_name(host, name, &entry);
    return install(host, process, handle, entry.node, entry.st.st_ino, flags);
}

static int open_once(SimHost *host, SimProcess *process, const char *name, int flags, gboolean again)
{
    SwCaller caller = sim_caller(process);
    SwHandle *handle = NULL;
    Cached cached;
    int r = look_up(host, &caller, name, again, &cached);

    if (r == 0 && again) /* a walk that revalidates may ask twice (F1) */
        r = look_up(host, &caller, name, TRUE, &cached);
    if (r == -ENOENT && (flags & O_CREAT))
        return create(host, process, name, flags);
    if (r < 0)
        return r;
    if ((flags & O_CREAT) && (flags & O_EXCL))
        return -EEXIST;
    r = sw_overlay_open(host->overlay, &caller, cached.node, flags & ~(O_CREAT | O_EXCL), &handle);
    return r < 0 ? r : install(host, process, handle, cached.node, cached.ino, flags);
}

int sim_open(SimHost *host, SimProcess *process, const char *name, int flags)
{
    int r;

    host->n_opening++;
    r = open_once(host, process, name, flags, FALSE);
    if (r == -ESTALE)
        r = open_once(host, process, name, flags, TRUE);
    if (--host->n_opening == 0)
        forget_owed(host);
    return (int)answer(host, r);
}

int sim_rename(SimHost *host, SimProcess *process, const char *from, const char *to)
{
    SwCaller caller = sim_caller(process);
    SwNode *root = sw_overlay_root(host->overlay);
    Cached found, *cached, *moved;
    int r = -ESTALE;

    for (guint walks = 0; walks < 2 && r == -ESTALE; walks++) {
        r = look_up(host, &caller, from, walks > 0, &found);
        if (r == 0)
            r = look_up(host, &caller, to, walks > 0, &found);
        if (r == 0 || r == -ENOENT)
            r = sw_overlay_rename(host->overlay, &caller, root, from, root, to, 0, TRUE);
    }
    r = (int)answer(host, r);
    if (r < 0)
        return r;
    drop_name(host, to);
    cached = g_hash_table_lookup(host->cache, from);
    if (cached) {
        moved = g_memdup2(cached, sizeof *cached);
        g_hash_table_remove(host->cache, from);
        g_hash_table_insert(host->cache, g_strdup(to), moved);
    }
    return 0;
}

int sim_unlink(SimHost *host, SimProcess *process, const char *name)
{
    SwCaller caller = sim_caller(process);
    Cached cached;
    int r = look_up(host, &caller, name, FALSE, &cached);

    if (r == 0)
        r = sw_overlay_unlink(host->overlay, &caller, sw_overlay_root(host->overlay), name);
    if (r == 0)
        drop_name(host, name);
    return (int)answer(host, r);
}

static int made(SimHost *host, const char *name, int r, const SwEntry *entry)
{
    if (r == 0)
        (void)keep_name(host, name, entry);
    return (int)answer(host, r);
}

int sim_mkdir(SimHost *host, SimProcess *process, const char *name)
{
    SwCaller caller = sim_caller(process);
    SwEntry entry;
    int r = sw_overlay_mkdir(host->overlay, &caller, sw_overlay_root(host->overlay), name, 0777, &entry);

    return made(host, name, r, &entry);
}

int sim_symlink(SimHost *host, SimProcess *process, const char *target, const char *name)
{
    SwCaller caller = sim_caller(process);
    SwEntry entry;
    int r = sw_overlay_symlink(host->overlay, &caller, target, sw_overlay_root(host->overlay), name, &entry);

    return made(host, name, r, &entry);
}

int sim_link(SimHost *host, SimProcess *process, const char *from, const char *to)
{
    SwCaller caller = sim_caller(process);
    SwNode *root = sw_overlay_root(host->overlay);
    SwEntry entry;
    Cached cached;
    int r = look_up(host, &caller, from, FALSE, &cached);

    if (r == 0)
        r = sw_overlay_link(host->overlay, &caller, cached.node, root, to, TRUE, &entry);
    return made(host, to, r, &entry);
}

int sim_rmdir(SimHost *host, SimProcess *process, const char *name)
{
    SwCaller caller = sim_caller(process);
    int r = sw_overlay_rmdir(host->overlay, &caller, sw_overlay_root(host->overlay), name);

    if (r == 0)
        drop_name(host, name);
    return (int)answer(host, r);
}

/* ---- data */

static ssize_t write_at(SimHost *host, SimProcess *process, File *file, const char *text, size_t size, off_t offset)
{
    SwCaller caller = sim_caller(process);

    return answer(host, sw_overlay_write(host->overlay, &caller, file->handle, text, size, offset,
                                         (file->flags & O_APPEND) != 0, FALSE, TRUE));
}

/* Programs go on after a short count. */
ssize_t sim_pwrite(SimHost *host, SimProcess *process, int fd, const char *text, off_t offset)
{
    File *file = descriptor(process, fd)->file;
    size_t size = strlen(text);

    for (size_t done = 0; done < size;) {
        ssize_t n = write_at(host, process, file, text + done, size - done, offset + (off_t)done);

        if (n <= 0)
            return n < 0 ? n : -EIO;
        done += n;
    }
    return (ssize_t)size;
}

ssize_t sim_write(SimHost *host, SimProcess *process, int fd, const char *text)
{
    File *file = descriptor(process, fd)->file;
    ssize_t n = sim_pwrite(host, process, fd, text, file->at);

    file->at += MAX(n, 0);
    return n;
}

int sim_read(SimHost *host, int fd, SimProcess *process, char **ret_text)
{
    File *file = descriptor(process, fd)->file;
    g_autofree char *buf = g_malloc(READ_MAX);
    ssize_t n = sw_overlay_read(host->overlay, file->handle, buf, READ_MAX - 1, 0);

    if (n < 0)
        return (int)n;
    buf[n] = '\0';
    *ret_text = g_steal_pointer(&buf);
    return 0;
}

int sim_fsync(SimHost *host, SimProcess *process, int fd)
{
    SwCaller caller = sim_caller(process);
    File *file = descriptor(process, fd)->file;

    return (int)answer(host, sw_overlay_fsync(host->overlay, &caller, file->handle, FALSE, TRUE));
}

int sim_flock(SimHost *host, SimProcess *process, int fd, SwRangeMode mode)
{
    SwCaller caller = sim_caller(process);
    File *file = descriptor(process, fd)->file;
    SwFileLock lock = {.flock = TRUE, .mode = mode, .end = SW_RANGE_END, .owner = (guint64)(uintptr_t)file};

    return (int)answer(host, sw_overlay_lock(host->overlay, &caller, file->handle, &lock, TRUE));
}

int sim_close(SimHost *host, SimProcess *process, int fd)
{
    SwCaller caller = sim_caller(process);
    SimDescriptor *closing = descriptor(process, fd);
    File *file = closing->file;
    int r;

    g_array_remove_index(process->fds, (guint)(closing - &g_array_index(process->fds, SimDescriptor, 0)));
    r = (int)answer(host, sw_overlay_flush(host->overlay, &caller, file->handle, process->pid, TRUE));
    if (--file->refs == 0) /* whatever it says, nobody hears of it */
        sw_ignore(sw_overlay_release(host->overlay, file->handle, TRUE));
    return r;
}

/* ---- whole programs */

int sim_put(SimHost *host, SimProcess *process, const char *name, int flags, const char *text)
{
    int fd = sim_open(host, process, name, flags | O_WRONLY);
    ssize_t n;
    int r;

    if (fd < 0)
        return fd;
    n = sim_write(host, process, fd, text);
    r = sim_close(host, process, fd);
    return n < 0 ? (int)n : r;
}

int sim_edit(SimHost *host, SimProcess *process, const char *name, const char *text, off_t offset)
{
    int fd = sim_open(host, process, name, O_RDWR);
    ssize_t n;
    int r;

    if (fd < 0)
        return fd;
    n = sim_pwrite(host, process, fd, text, offset);
    r = sim_close(host, process, fd);
    return n < 0 ? (int)n : r;
}

int sim_get(SimHost *host, const char *name, char **ret_text)
{
    SimProcess *process = sim_program(host);
    int fd = sim_open(host, process, name, O_RDONLY);
    int r = fd;

    *ret_text = NULL;
    if (fd >= 0) {
        r = sim_read(host, fd, process, ret_text);
        (void)sim_close(host, process, fd);
    }
    sim_exit(host, process, 0);
    return r == -ENOENT ? 0 : r;
}
