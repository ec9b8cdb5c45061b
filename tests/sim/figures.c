/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * What it costs many hosts to keep themselves alive and to watch each other (P18 to P20, C19): for docs/protocol.md.
 *
 *   SW_SIM_HOSTS=1000 figures
 *
 * One tenth of them dies at once, after one has died alone, ten times.  Each call takes up to 2 ms, one in four.
 */

#include "crowd_world.h"

#include "../../src/core/ring.h"

#include <stdio.h>
#include <string.h>

#define SINGLE_DEATHS 10

static guint hosts;

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static gint by_time(gconstpointer a, gconstpointer b)
{
    gint64 x = *(const gint64 *)a, y = *(const gint64 *)b;

    return x < y ? -1 : x > y;
}

/* By how many each of the living is watched. */
static void print_watchers(World *world)
{
    g_autoptr(GPtrArray) ids = g_ptr_array_new();
    g_autoptr(GHashTable) watchers = g_hash_table_new(g_str_hash, g_str_equal);
    guint least = G_MAXUINT, most = 0;

    for (guint i = 0; i < world->n; i++)
        if (world->members[i].up)
            g_ptr_array_add(ids, (gpointer)sw_control_host_id(world->members[i].host->control));
    g_ptr_array_sort(ids, by_name);
    for (guint i = 0; i < ids->len; i++) {
        g_autoptr(GPtrArray) chosen = sw_ring_choose(ids, ids->pdata[i], NULL, NULL);

        for (guint j = 0; j < chosen->len; j++)
            g_hash_table_insert(
                watchers, chosen->pdata[j],
                GUINT_TO_POINTER(GPOINTER_TO_UINT(g_hash_table_lookup(watchers, chosen->pdata[j])) + 1));
    }
    for (guint i = 0; i < ids->len; i++) {
        guint n = GPOINTER_TO_UINT(g_hash_table_lookup(watchers, ids->pdata[i]));

        least = MIN(least, n);
        most = MAX(most, n);
    }
    printf("hosts up %u, watchers per host %u to %u\n", ids->len, least, most);
}

static void print_breaks(World *world, const char *what)
{
    GArray *breaks = world->breaks;

    g_array_sort(breaks, by_time);
    if (breaks->len)
        printf("%s: %u broken, from death to the fence %.2f s at least, %.2f s median, %.2f s worst\n", what,
               breaks->len, (double)g_array_index(breaks, gint64, 0) / S,
               (double)g_array_index(breaks, gint64, breaks->len / 2) / S,
               (double)g_array_index(breaks, gint64, breaks->len - 1) / S);
    g_array_set_size(breaks, 0);
}

static void print_rates(World *world, gint64 us)
{
    guint64 before = world->sim->world.n_calls, calls;

    for (guint i = 0; i < world->n; i++)
        if (world->members[i].up)
            sim_port_watch_kinds(world->members[i].host->port);
    world_rest(world, us);
    calls = world->sim->world.n_calls - before;
    SimKinds kinds = {0};
    for (guint i = 0; i < world->n; i++)
        if (world->members[i].up)
            sim_port_add_kinds(world->members[i].host->port, &kinds);
    printf("calls to the server per second: %.0f in all, %.2f per host (looks at others %.2f, heartbeats %.2f, reading "
           "the list %.2f)\n",
           (double)calls / us * S, (double)calls / us * S / hosts, (double)kinds.looks / us * S / hosts,
           (double)kinds.beats / us * S / hosts, (double)kinds.lists / us * S / hosts);
    printf("looks per beat at each watched host %.2f, about %.1f entries of hosts/ read per second and host\n",
           (double)kinds.looks / SW_RING_WATCHED / MAX(kinds.beats, 1), (double)kinds.bytes / 48 / us * S / hosts);
}

static void die_at_random(World *world)
{
    Member *m;

    do
        m = &world->members[chance(world, 0, world->n - 1)];
    while (!m->up || sim_host_is_dead(m->host));
    member_die(m);
}

static void govern(gpointer data)
{
    World *world = data;

    world_rest(world, 3 * TTL);
    printf("calls to bring them up within a lease: %.0f per host\n", (double)world->sim->world.n_calls / hosts);
    print_watchers(world);
    print_rates(world, 10 * TTL);
    for (guint i = 0; i < SINGLE_DEATHS; i++) {
        die_at_random(world);
        world_rest(world, 2 * TTL);
    }
    print_breaks(world, "one death at a time");
    for (guint i = 0; i < hosts / 10; i++)
        die_at_random(world);
    world_rest(world, 6 * TTL);
    print_breaks(world, "a tenth of all at once");
    world->over = TRUE;
}

int main(void)
{
    const char *text = g_getenv("SW_SIM_HOSTS");
    World *world;

    hosts = text ? (guint)g_ascii_strtoull(text, NULL, 10) : 100;
    world_raise_limits();
    world = world_new(20, hosts, 0);
    world->bare = TRUE;
    setlinebuf(stdout);
    world_run(world, govern);
    printf("%s", world->sim->complaints->str);
    world_free(world);
    return 0;
}
