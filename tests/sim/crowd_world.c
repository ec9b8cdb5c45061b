/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "crowd_world.h"

#include "../../src/lease/control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define STEP_US (250 * G_TIME_SPAN_MILLISECOND) /* as often as an overlay has to be ticked */
#define SLICE_US G_TIME_SPAN_SECOND             /* how late a death is noticed */

/*
 * For so long a breaker may be stopped between its last look and the first step of the burial; who comes back in that
 * time has been silent for its lease all the same.
 */
#define LATE_US (8 * TTL)

typedef struct {
    SwPort *port; /* of its mount, once that is up */
    gint64 beat_us, died_us;
    gint64 silent_us; /* when it last ended a silence of its whole lease */
} Epoch;

static __thread guint hostname_number;

/* Instead of the library's: each host has a name of its own, for those of one name all watch each other (P20). */
int gethostname(char *name, size_t size)
{
    (void)snprintf(name, size, "host%u", hostname_number);
    return 0;
}

gint64 now_of(const World *world)
{
    return world->sim->world.now_us;
}

gint64 chance(World *world, gint64 from, gint64 to)
{
    return from + (gint64)(sim_random(&world->sim->world) % (guint64)(to - from + 1));
}

void world_rest(World *world, gint64 us)
{
    sim_crowd_wait(world->sim->world.crowd, now_of(world) + us);
}

gboolean world_is_unfenced(const World *world, const char *id)
{
    g_autofree char *path = g_build_filename(".safewritefs/hosts", id, "released", NULL);

    return world_has(world, path);
}

gboolean world_is_fenced(const World *world, const char *id)
{
    g_autofree char *path = g_build_filename(".safewritefs/hosts", id, "stage", NULL);

    return !world_has(world, path);
}

gboolean world_has(const World *world, const char *name)
{
    struct stat st;

    return fstatat(world->sim->source, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- what the server sees */

static void saw_beat(gpointer data, const char *host_id)
{
    World *world = data;
    Epoch *epoch = g_hash_table_lookup(world->epochs, host_id);

    if (!epoch) { /* its record is new */
        epoch = g_new0(Epoch, 1);
        *epoch = (Epoch){.beat_us = now_of(world), .silent_us = -LATE_US};
        g_hash_table_insert(world->epochs, g_strdup(host_id), epoch);
    }
    if (now_of(world) - epoch->beat_us >= TTL)
        epoch->silent_us = now_of(world);
    epoch->beat_us = now_of(world);
}

static guint member_of(const World *world, const SwPort *port)
{
    for (guint i = 0; i < world->n; i++)
        if (world->members[i].host && world->members[i].host->port == port)
            return i;
    return world->n;
}

static void saw_fence(gpointer data, SwPort *by, const char *host_id)
{
    World *world = data;
    Epoch *epoch = g_hash_table_lookup(world->epochs, host_id);
    gint64 took_us;

    if (!epoch || !epoch->port || epoch->port == by)
        return;
    if (!epoch->died_us) {
        world->fenced++;
        if (now_of(world) - epoch->beat_us < TTL && now_of(world) - epoch->silent_us > LATE_US)
            sim_complain(world->sim,
                         "%s was fenced by host %u %.3f s after its beat at %.3f s; silent for its lease at %.3f s",
                         host_id, member_of(world, by), (double)(now_of(world) - epoch->beat_us) / S,
                         (double)now_of(world) / S, (double)epoch->silent_us / S);
        return;
    }
    took_us = now_of(world) - epoch->died_us;
    world->slowest_us = MAX(world->slowest_us, took_us);
    g_array_append_val(world->breaks, took_us);
}

/* Does the record of that lock name a life of the member's? */
static gboolean is_recorded(const World *world, const Member *m, const char *name)
{
    g_autofree char *prefix = g_strdup_printf("host%u.", m->number), *path = NULL, *text = NULL;
    struct stat st;

    if (fstat(world->sim->source, &st) < 0)
        return FALSE;
    sim_told_put(world->sim->world.told, &st);
    path = g_strdup_printf("%s/.safewritefs/locks/%016" G_GINT64_MODIFIER "x", world->sim->path,
                           sw_lock_key(st.st_ino, name));
    text = g_file_read_link(path, NULL);
    return text && g_str_has_prefix(text, prefix);
}

/* The call for a lock was under way when its host was buried: then it is made without a record, and is data to
 * everybody until somebody removes it (docs/semantics.md, C20). */
static void saw_made(gpointer data, SwPort *by, const char *name, gint64 took_us)
{
    World *world = data;
    guint number = member_of(world, by);

    if (g_str_has_suffix(name, ".lock") && took_us > TTL / 2 && number < world->n &&
        !is_recorded(world, &world->members[number], name))
        g_hash_table_add(world->late, g_strdup(name));
}

static void know(Member *m, const char *id)
{
    Epoch *epoch = g_hash_table_lookup(m->world->epochs, id);

    g_assert(epoch);
    epoch->port = m->host->port;
}

static void happened(gpointer data, SwKeeperWhat what, const char *host_id, int error)
{
    Member *m = data;

    (void)error;
    if (what != SW_KEEPER_REJOINED)
        return;
    m->world->rejoined++;
    m->lost = TRUE; /* its worker tells the overlay */
    know(m, host_id);
}

/* ---- one host */

void member_die(Member *m)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, m->world->epochs);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Epoch *epoch = value;

        if (epoch->port == m->host->port && !epoch->died_us)
            epoch->died_us = now_of(m->world);
    }
    sim_port_kill(m->host->port);
    m->world->deaths++;
}

void member_rest(Member *m, gint64 us)
{
    SwPort *port = m->host->port;

    do {
        port->sleep_us(port, MIN(MAX(us, 1), STEP_US));
        us -= STEP_US;
        if (m->lost) {
            m->lost = FALSE;
            sw_overlay_fenced(m->host->overlay);
        }
        if (!sim_host_is_dead(m->host))
            (void)sw_overlay_tick(m->host->overlay, NULL, NULL);
    } while (us > 0 && !sim_host_is_dead(m->host));
}

/* Tens of descriptors less for each of a thousand hosts. */
static int mount_bare(SimHost *host)
{
    g_autofree char *why = NULL;
    int r = sw_control_open(host->port, host->sim->source, host->sim->path, &host->config, &host->control, &why);

    for (guint i = 0; r == 0 && i < SW_STAGE_DIRS; i++)
        sw_fd_close(host->port, &sw_epoch_now(host->control)->stages[i]);
    return r;
}

static gboolean come_up(Member *m)
{
    World *world = m->world;
    SwKeeperEvents events = {.happened = happened, .data = m};
    SimHost *host = sim_host_new(world->sim, m->number + 1);
    int r;

    sim_port_set_clock(host->port, chance(world, 0, 1000 * S));
    if (world->stale_us)
        sim_lies_begin(host->port, &world->sim->world, world->stale_us);
    r = world->bare ? mount_bare(host) : sim_host_mount(host);
    if (r < 0) {
        sim_host_free(host);
        return FALSE;
    }
    m->host = host;
    m->keeper = sw_keeper_new(host->port, host->control, TTL, &events);
    m->leases = sw_content_leases_new(host->port, host->control, world->sim->source);
    m->lost = FALSE;
    know(m, sw_control_host_id(host->control));
    m->up = TRUE;
    return TRUE;
}

static void go_down(Member *m)
{
    m->up = FALSE;
    while (m->busy)
        world_rest(m->world, S / 100);
    if (!sim_host_is_dead(m->host))
        sw_keeper_retire(m->keeper);
    sw_content_leases_free(m->leases);
    sw_keeper_free(m->keeper);
    sim_host_free(g_steal_pointer(&m->host));
}

static void keep(gpointer data)
{
    Member *m = data;
    World *world = m->world;

    hostname_number = m->number;
    world_rest(world, chance(world, 0, TTL));
    while (!world->over) {
        if (!come_up(m)) {
            world_rest(world, S);
            continue;
        }
        while (!sim_host_is_dead(m->host) && !world->over) {
            SwPort *port = m->host->port;
            gint64 next_us = sw_keeper_step(m->keeper);

            port->sleep_us(port, CLAMP(next_us - port->now_us(port), 1000, SLICE_US));
        }
        go_down(m);
        if (!world->over && !world->bare)
            world_rest(world, chance(world, 0, 3 * TTL));
        while (world->bare && !world->over) /* the dead stay dead there */
            world_rest(world, S);
    }
}

static void work(gpointer data)
{
    Member *m = data;
    World *world = m->world;

    hostname_number = m->number;
    while (!world->over) {
        if (m->up && !sim_host_is_dead(m->host)) {
            m->busy = TRUE;
            member_rest(m, chance(world, 0, S / 2));
            if (!sim_host_is_dead(m->host) && !world->calm)
                world->work(m);
            m->busy = FALSE;
        }
        world_rest(world, world->calm ? 20 * S : S);
    }
}

/* ---- all of them */

World *world_new(guint64 seed, guint n, gint64 stale_us)
{
    World *world = g_new0(World, 1);

    world->sim = sim_new(seed);
    world->n = n;
    world->stale_us = stale_us;
    world->members = g_new0(Member, n);
    world->epochs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    world->owners = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    world->failed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    world->late = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    world->breaks = g_array_new(FALSE, FALSE, sizeof(gint64));
    world->sim->world.saw_beat = saw_beat;
    world->sim->world.saw_fence = saw_fence;
    world->sim->world.saw_made = saw_made;
    world->sim->world.saw_data = world;
    return world;
}

void world_run(World *world, void (*govern)(gpointer world))
{
    SimCrowd *crowd = sim_crowd_new(&world->sim->world.now_us);

    world->sim->world.crowd = crowd;
    for (guint i = 0; i < world->n; i++) {
        world->members[i] = (Member){.world = world, .number = i};
        sim_crowd_add(crowd, keep, &world->members[i]);
        if (world->work)
            sim_crowd_add(crowd, work, &world->members[i]);
    }
    sim_crowd_add(crowd, govern, world);
    sim_crowd_run(crowd);
    world->sim->world.crowd = NULL;
    sim_crowd_free(crowd);
}

void world_free(World *world)
{
    g_hash_table_unref(world->epochs);
    g_hash_table_unref(world->owners);
    g_hash_table_unref(world->failed);
    g_hash_table_unref(world->late);
    g_array_unref(world->breaks);
    g_free(world->members);
    sim_free(world->sim);
    g_free(world);
}

void world_raise_limits(void)
{
    struct rlimit limit;
    cpu_set_t here;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    /* One runs at a time: handing on is cheap where they share a processor. */
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    (void)sched_setaffinity(0, sizeof here, &here);
}
