/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Hundreds of hosts that do everything at once, over a source that lies as NFS does (C1, C12, C18 to C21, C23, C24).
 *
 * Each host has a keeper, which keeps it alive and watches others, and a worker, whose programs take leases and locks,
 * create exclusively, and rewrite files.  Meanwhile hosts freeze, are cut off, die and come back, wall clocks jump, the
 * server goes away, calls get stuck and arrive late, replies are lost, and caches answer what is past.  Always:
 *
 *   - no host is fenced that has renewed within its lease (C20)
 *   - no name, lease or exclusive file has two owners: who gets it finds the one before to be fenced, or done (C12,
 * C20)
 *   - what was staged in a broken epoch is never seen, nor what a close reported as failed (C21, C3)
 *   - when the faults are over, all that anybody dead has held can be had, and nothing is left in the end (C19, C24)
 *
 *   SW_SIM_SEED    one seed only, instead of a few and a fresh one
 *   SW_SIM_STEPS   how many calls to the server while there are faults, in all
 *   SW_SIM_HOSTS   how many hosts
 */

#include "crowd_world.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOSTS 200
#define STEPS 1000000
#define SEEDS 2
#define FEW 20 /* hosts, of the run that is made twice */
#define FEW_STEPS 20000
#define LOCKS 40
#define KEYS 60
#define FILES 8
#define STALE_US (18 * S)
#define CALM_US (420 * S)

/* ---- who owns what */

static void owns(Member *m, const char *what, const char *id)
{
    World *world = m->world;
    const char *before = g_hash_table_lookup(world->owners, what);

    if (before && world_is_unfenced(world, before))
        sim_complain(world->sim, "%s: %s has it, and so has %s", what, id, before);
    g_hash_table_insert(world->owners, g_strdup(what), g_strdup(id));
}

/* From now on it may be another's. */
static void disowns(Member *m, const char *what, const char *id)
{
    const char *owner = g_hash_table_lookup(m->world->owners, what);

    if (owner && (!id || strcmp(owner, id) == 0))
        g_hash_table_remove(m->world->owners, what);
}

/* Was nothing amiss with this host since then? */
static gboolean was_well(const Member *m, guint mishaps, const char *id)
{
    return !sim_host_is_dead(m->host) && sim_port_mishaps(m->host->port) == mishaps && world_is_unfenced(m->world, id);
}

static char *id_of(const Member *m)
{
    return g_strdup(sw_control_host_id(m->host->control));
}

static gboolean is_of(const Member *m, const char *id)
{
    return strcmp(sw_control_host_id(m->host->control), id) == 0;
}

/* ---- what programs do */

static void take_lease(Member *m)
{
    World *world = m->world;
    g_autofree char *id = id_of(m);
    guint64 key = 0xf000 + (guint64)chance(world, 1, KEYS);
    g_autofree char *what = g_strdup_printf("lease %x", (guint)key);
    SwPort *port = m->host->port;
    SwContentLease *lease;
    SwPredecessor predecessor;
    guint mishaps;
    int r = sw_content_lease_take(m->leases, key, NULL, port->now_us(port) + chance(world, S, 4 * S), NULL, NULL,
                                  &lease, &predecessor);

    if (r < 0)
        return;
    if (is_of(m, id))
        owns(m, what, id);
    member_rest(m, chance(world, 0, 19) ? 0 : chance(world, 0, 30 * S));
    mishaps = sim_port_mishaps(port);
    disowns(m, what, id);
    r = sw_content_lease_release(lease);
    if (r < 0 && was_well(m, mishaps, id))
        sim_complain(world->sim, "%s of %s was taken from it: %d", what, id, r);
}

/* Locks are there as long as their owner's host is unfenced. */
static void hold_lock(Member *m, const char *name, const char *id, gint64 us)
{
    for (gint64 until_us = now_of(m->world) + us; now_of(m->world) < until_us && !sim_host_is_dead(m->host);) {
        if (!world_has(m->world, name) && world_is_unfenced(m->world, id))
            sim_complain(m->world->sim, "%s of %s, which lives, is gone", name, id);
        member_rest(m, 200 * G_TIME_SPAN_MILLISECOND);
    }
}

static void lock(Member *m)
{
    World *world = m->world;
    SimProcess *p = sim_program(m->host);
    g_autofree char *id = id_of(m), *name = g_strdup_printf("l%u.lock", (guint)chance(world, 1, LOCKS));
    int fd = sim_open(m->host, p, name, O_WRONLY | O_CREAT | O_EXCL);
    guint mishaps;
    int r;

    if (fd >= 0 && is_of(m, id)) {
        owns(m, name, id);
        (void)sim_close(m->host, p, fd);
        hold_lock(m, name, id, chance(world, 0, 4) ? chance(world, 0, S) : chance(world, 0, 60 * S));
        mishaps = sim_port_mishaps(m->host->port);
        disowns(m, name, id);
        if (chance(world, 0, 3)) {
            r = sim_unlink(m->host, p, name);
            if (r < 0 && was_well(m, mishaps, id))
                sim_complain(world->sim, "%s of %s cannot be released: %d", name, id, r);
        }
    }
    sim_exit(m->host, p, SIGKILL);
}

static void judge_write(Member *m, const char *text, int r, gboolean was_fenced, guint mishaps)
{
    World *world = m->world;
    gboolean sure = !sim_host_is_dead(m->host) && sim_port_mishaps(m->host->port) == mishaps;

    if (r >= 0 && was_fenced)
        sim_complain(world->sim, "%s was committed in a broken epoch", text);
    if (r < 0 && (sure || was_fenced))
        g_hash_table_add(world->failed, g_strdup(text));
    world->committed += r >= 0;
    world->refused += r < 0 && was_fenced;
}

static void rewrite(Member *m, int flags)
{
    World *world = m->world;
    SimProcess *p = sim_program(m->host);
    g_autofree char *id = id_of(m);
    g_autofree char *name = g_strdup_printf("%c%u", flags & O_EXCL ? 'x' : 'f', (guint)chance(world, 1, FILES));
    g_autofree char *text = g_strdup_printf("<%u of %s>", ++world->serial, id);
    guint mishaps = sim_port_mishaps(m->host->port);
    int fd = sim_open(m->host, p, name, O_WRONLY | O_CREAT | flags);
    gboolean was_fenced;
    int r;

    if (fd >= 0 && is_of(m, id)) {
        if (flags & O_EXCL)
            owns(m, name, id);
        r = (int)sim_write(m->host, p, fd, text);
        member_rest(m, chance(world, 0, 4) ? 0 : chance(world, 0, 40 * S));
        was_fenced = r >= 0 && world_is_fenced(world, id);
        r = r < 0 ? r : sim_close(m->host, p, fd);
        judge_write(m, text, r, was_fenced, mishaps);
    }
    if ((flags & O_EXCL) && (fd >= 0 || chance(world, 0, 3) == 0)) {
        disowns(m, name, NULL);
        (void)sim_unlink(m->host, p, name);
    }
    sim_exit(m->host, p, SIGKILL);
}

static void read_file(Member *m)
{
    World *world = m->world;
    g_autofree char *name = g_strdup_printf("f%u", (guint)chance(world, 1, FILES)), *text = NULL;
    guint mishaps = sim_port_mishaps(m->host->port);
    int r = sim_get(m->host, name, &text);

    if (r < 0 && !sim_host_is_dead(m->host) && sim_port_mishaps(m->host->port) == mishaps)
        sim_complain(world->sim, "%s cannot be read: %d", name, r);
    if (r < 0 || !text || sim_host_is_dead(m->host))
        return;
    if (*text != '<' || text[strlen(text) - 1] != '>')
        sim_complain(world->sim, "%s reads \"%s\"", name, text);
    if (g_hash_table_contains(world->failed, text))
        sim_complain(world->sim, "%s reads %s, whose close failed", name, text);
    world->reads++;
}

static void work_once(Member *m)
{
    switch (chance(m->world, 0, 7)) {
    case 0:
    case 1:
        take_lease(m);
        break;
    case 2:
    case 3:
        lock(m);
        break;
    case 4:
        rewrite(m, O_TRUNC);
        break;
    case 5:
        rewrite(m, O_EXCL);
        break;
    default:
        read_file(m);
        break;
    }
}

/* ---- what befalls them */

static void befall(World *world, Member *m)
{
    gint64 until_us = now_of(world) + (chance(world, 0, 1) ? chance(world, 0, TTL / 2) : chance(world, 0, 5 * TTL));

    if (!m->up || sim_host_is_dead(m->host))
        return;
    switch (chance(world, 0, 7)) {
    case 0:
        member_die(m);
        break;
    case 1:
    case 2:
        sim_port_part(m->host->port, until_us, 0);
        break;
    case 3:
        sim_port_part(m->host->port, until_us, chance(world, 0, 1) ? EIO : ETIMEDOUT);
        break;
    case 4:
        sim_port_jump(m->host->port, chance(world, -1000, 1000) * G_TIME_SPAN_DAY);
        break;
    default:
        sim_port_freeze(m->host->port, until_us);
        break;
    }
}

/* For everybody, and they come back to it at their own pace. */
static void server_goes_away(World *world)
{
    gint64 away_us = chance(world, S, 200 * S);

    for (guint i = 0; i < world->n; i++)
        if (world->members[i].up)
            sim_port_part(world->members[i].host->port, now_of(world) + away_us + chance(world, 0, away_us),
                          chance(world, 0, 1) ? 0 : EIO);
}

/* All of it can be had again, by somebody who comes when the faults are over. */
static void check_free(World *world)
{
    Member *m = &world->members[0];
    SimProcess *p = sim_program(m->host);
    SwPort *port = m->host->port;

    for (guint i = 1; i <= KEYS; i++) {
        SwContentLease *lease;
        SwPredecessor predecessor;
        int r = sw_content_lease_take(m->leases, 0xf000 + i, NULL, port->now_us(port) + 2 * S, NULL, NULL, &lease,
                                      &predecessor);

        if (r < 0 || sw_content_lease_release(lease) < 0)
            sim_complain(world->sim, "lease %u is not free: %d", i, r);
    }
    for (guint i = 1; i <= LOCKS; i++) {
        g_autofree char *name = g_strdup_printf("l%u.lock", i);
        int r;

        if (g_hash_table_contains(world->late, name))
            (void)sim_unlink(m->host, p, name); /* if it is there still, anybody may */
        r = sim_put(m->host, p, name, O_CREAT | O_EXCL, "7");
        if (r < 0 || sim_unlink(m->host, p, name) < 0)
            sim_complain(world->sim, "%s is not free: %d", name, r);
    }
    sim_exit(m->host, p, 0);
}

/*
 * A claim whose drop failed, since the server could not be reached when its program ended, goes with its host, which
 * may live; so these are looked at when all are gone.
 */
static void check_claims(Sim *sim)
{
    SimHost *last = sim_host_mounted(sim, 1);
    SimProcess *p = sim_program(last);

    for (guint i = 1; i <= FILES; i++) {
        g_autofree char *name = g_strdup_printf("x%u", i);
        int r;

        (void)sim_unlink(last, p, name);
        r = sim_put(last, p, name, O_CREAT | O_EXCL, "7");
        if (r < 0 || sim_unlink(last, p, name) < 0)
            sim_complain(sim, "%s is not free: %d", name, r);
    }
    sim_exit(last, p, 0);
    sim_host_free(last);
}

static void govern(gpointer data)
{
    World *world = data;
    guint64 until;

    world_rest(world, 3 * TTL);
    if (g_getenv("SW_SIM_VERBOSE"))
        g_printerr("up after %" G_GUINT64_FORMAT " calls\n", world->sim->world.n_calls);
    world->sim->world.faulty = TRUE;
    until = world->sim->world.n_calls + world->steps;
    while (world->sim->world.n_calls < until) {
        befall(world, &world->members[chance(world, 0, world->n - 1)]);
        if (chance(world, 0, 499) == 0)
            server_goes_away(world);
        world_rest(world, chance(world, 0, 2 * S));
    }
    world->sim->world.faulty = FALSE;
    if (g_getenv("SW_SIM_VERBOSE"))
        g_printerr("calm after %.0f s\n", (double)now_of(world) / S);
    world->calm = TRUE;
    for (guint i = 0; i < world->n; i++)
        if (world->members[i].up) {
            sim_port_part(world->members[i].host->port, 0, 0);
            sim_port_freeze(world->members[i].host->port, 0);
        }
    world_rest(world, CALM_US);
    if (g_getenv("SW_SIM_VERBOSE"))
        g_printerr("checked after %" G_GUINT64_FORMAT " calls\n", world->sim->world.n_calls);
    check_free(world);
    world->over = TRUE;
}

/* ---- */

static guint64 number_of(const char *variable, guint64 usual)
{
    const char *text = g_getenv(variable);

    return text ? g_ascii_strtoull(text, NULL, 10) : usual;
}

/* The state of chance in the end, which tells two courses apart. */
static guint64 run_seed(guint64 seed, guint hosts, guint64 steps)
{
    static const char *const names[] = {"f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", NULL};
    World *world = world_new(seed, hosts, STALE_US);
    g_autofree char *complaints = NULL;
    guint64 end;

    world->steps = steps;
    world->work = work_once;
    world_run(world, govern);
    sim_age(&world->sim->world);
    check_claims(world->sim);
    sim_disk_litter(world->sim, names);
    print_message("seed %" G_GUINT64_FORMAT ": %" G_GUINT64_FORMAT
                  " calls, %.0f s, %u deaths, %u fenced alive, %u rejoined, %u commits, %u refused, %u reads, slowest "
                  "break of a dead host %.1f s\n",
                  seed, world->sim->world.n_calls, (double)now_of(world) / S, world->deaths, world->fenced,
                  world->rejoined, world->committed, world->refused, world->reads, (double)world->slowest_us / S);
    complaints = g_strdup(world->sim->complaints->str);
    end = world->sim->world.chance;
    world_free(world);
    if (*complaints)
        fail_msg("SW_SIM_SEED=%" G_GUINT64_FORMAT " SW_SIM_STEPS=%" G_GUINT64_FORMAT " SW_SIM_HOSTS=%u:\n%s", seed,
                 steps, hosts, complaints);
    return end;
}

/* Else a seed that is printed would be worth nothing. */
static void the_same_again(void **state)
{
    guint64 seed = (guint64)g_get_real_time() % 1000000;

    (void)state;
    assert_true(run_seed(seed, FEW, FEW_STEPS) == run_seed(seed, FEW, FEW_STEPS));
}

static void everything(void **state)
{
    guint64 slowness = MAX(number_of("SW_SLOWNESS", 1), 1);
    guint64 steps = number_of("SW_SIM_STEPS", STEPS / (slowness > 1 ? 4 * slowness : 1));
    guint64 fresh = (guint64)g_get_real_time() % 1000000;
    guint hosts = (guint)number_of("SW_SIM_HOSTS", HOSTS);

    (void)state;
    if (g_getenv("SW_SIM_SEED")) {
        (void)run_seed(number_of("SW_SIM_SEED", 0), hosts, steps);
        return;
    }
    for (guint i = 1; i <= SEEDS; i++)
        (void)run_seed(i, hosts, steps / (SEEDS + 1));
    (void)run_seed(fresh, hosts, steps / (SEEDS + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_same_again), cmocka_unit_test(everything)};

    world_raise_limits();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
