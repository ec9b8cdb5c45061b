/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Tens of hosts that keep themselves alive, watch and break each other, on one clock (C19, C20, C21, C23).
 *
 * A host that is frozen is not stepped; one that is cut off gets an error for every call; one that died does nothing
 * any more.  Whatever happens: no host is broken that has renewed within its lease, and the dead are broken in time.
 * SW_SIM_SEED and SW_SIM_STEPS steer it.
 */

#include "disk.h"

#include "../../src/lease/control_internal.h"
#include "../../src/lease/keeper.h"
#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define S G_TIME_SPAN_SECOND
#define TTL (20 * S)
#define HOSTS 30
#define EPOCHS_MAX 16

/* One host, and what the test knows of it. */
typedef struct {
    struct World *world;
    guint number;
    SimHost *host;
    SwKeeper *keeper;
    SimProcess *program;
    gint64 ahead_us, due_us;
    gint64 frozen_until, cut_until, died_us;
    gint64 renewed_us;     /* by the world's clock */
    char *ids[EPOCHS_MAX]; /* of all its epochs, owned */
    gint64 broken_us[EPOCHS_MAX];
    guint n_ids;
    int fd;          /* of a stage, or -1 */
    guint fd_epoch;  /* in which it was made */
    char staged[32]; /* its name */
    guint writes;
} Member;

typedef struct World {
    Sim *sim;
    Member members[HOSTS];
    guint n;
    guint broken, rejoined, refused, committed;
    gint64 slowest_us; /* from death to break */
    gint64 bound_us;   /* how long that may take, or 0 */
} World;

static gint64 now_of(const World *world)
{
    return world->sim->world.now_us;
}

static gint64 chance(World *world, gint64 from, gint64 to)
{
    return from + (gint64)(sim_random(&world->sim->world) % (guint64)(to - from + 1));
}

/* ---- what hosts report */

static Member *member_of(World *world, const char *id, guint *ret_epoch)
{
    for (guint i = 0; i < world->n; i++)
        for (guint j = 0; j < world->members[i].n_ids; j++)
            if (strcmp(world->members[i].ids[j], id) == 0) {
                *ret_epoch = j;
                return &world->members[i];
            }
    return NULL;
}

static void saw_break(World *world, const char *id)
{
    guint epoch;
    Member *m = member_of(world, id, &epoch);
    gint64 now_us = now_of(world);

    if (!m || m->broken_us[epoch]) {
        sim_complain(world->sim, "%s was broken %s", id, m ? "twice" : "and nobody knows it");
        return;
    }
    m->broken_us[epoch] = now_us;
    world->broken++;
    if (epoch + 1 == m->n_ids && now_us - m->renewed_us < TTL)
        sim_complain(world->sim, "host %u was broken %g s after its renewal", m->number,
                     (double)(now_us - m->renewed_us) / S);
    if (m->died_us && epoch + 1 == m->n_ids)
        world->slowest_us = MAX(world->slowest_us, now_us - m->died_us);
}

static void happened(gpointer data, SwKeeperWhat what, const char *host_id, int error)
{
    Member *m = data;

    (void)error;
    if (what == SW_KEEPER_BROKE)
        saw_break(m->world, host_id);
    if (what == SW_KEEPER_BURIED)
        sim_complain(m->world->sim, "%s was buried by a lock of another machine", host_id);
    if (what != SW_KEEPER_REJOINED)
        return;
    m->world->rejoined++;
    if (m->n_ids < EPOCHS_MAX)
        m->ids[m->n_ids++] = g_strdup(host_id);
    sw_overlay_fenced(m->host->overlay);
}

/* ---- hosts */

static void join(World *world, guint number)
{
    SwKeeperEvents events = {.happened = happened, .data = &world->members[number]};
    Member *m = &world->members[number];

    *m = (Member){.world = world, .number = number, .fd = -1};
    m->host = sim_host_mounted(world->sim, number + 1);
    g_assert(m->host);
    m->ahead_us = chance(world, 0, 1000 * (gint64)S);
    sim_port_set_clock(m->host->port, m->ahead_us);
    m->keeper = sw_keeper_new(m->host->port, m->host->control, TTL, &events);
    m->program = sim_program(m->host);
    m->ids[m->n_ids++] = g_strdup(sw_control_host_id(m->host->control));
    m->due_us = m->renewed_us = now_of(world);
}

static World *world_new(guint64 seed, guint n)
{
    World *world = g_new0(World, 1);

    world->sim = sim_new(seed);
    for (guint i = 0; i < n; i++) {
        world->n = i + 1;
        join(world, i);
        world->sim->world.now_us += chance(world, 0, S);
    }
    return world;
}

static gboolean is_up(const World *world, const Member *m)
{
    return !m->died_us && m->frozen_until <= now_of(world);
}

static void step(World *world, Member *m)
{
    gint64 beat_us;

    if (m->cut_until && m->cut_until <= now_of(world)) {
        m->cut_until = 0;
        sim_port_cut(m->host->port, 0);
    }
    beat_us = sw_control_beat_us(m->host->control);
    m->due_us = sw_keeper_step(m->keeper) - m->ahead_us + chance(world, 0, S / 20);
    /* The first one counts from its claim. */
    if (sw_control_beat_us(m->host->control) != beat_us)
        m->renewed_us = sw_control_beat_us(m->host->control) - m->ahead_us;
}

/* Runs all hosts until then, each when it is due, or when it wakes. */
static void run_until(World *world, gint64 until_us)
{
    for (;;) {
        Member *next = NULL;
        gint64 next_us = until_us;

        for (guint i = 0; i < world->n; i++) {
            Member *m = &world->members[i];
            gint64 due_us = MAX(m->due_us, m->frozen_until);

            if (!m->died_us && due_us < next_us) {
                next = m;
                next_us = due_us;
            }
        }
        world->sim->world.now_us = MAX(world->sim->world.now_us, next_us);
        if (!next)
            return;
        step(world, next);
    }
}

static void die(World *world, Member *m)
{
    sim_port_kill(m->host->port);
    m->died_us = now_of(world);
}

static void world_free(World *world)
{
    g_autofree char *complaints = g_strdup(world->sim->complaints->str);

    for (guint i = 0; i < world->n; i++) {
        Member *m = &world->members[i];

        sim_port_cut(m->host->port, 0);
        if (!m->died_us && m->fd >= 0)
            sim_exit(m->host, m->program, 0);
        sw_keeper_free(m->keeper);
        sim_host_free(m->host);
        for (guint j = 0; j < m->n_ids; j++)
            g_free(m->ids[j]);
    }
    g_string_truncate(world->sim->complaints, 0); /* a dead host's descriptors */
    sim_free(world->sim);
    g_free(world);
    if (*complaints)
        fail_msg("%s", complaints);
}

/* ---- what is staged, and what becomes of it */

static void stage_file(World *world, Member *m)
{
    if (m->fd >= 0 || !is_up(world, m) || m->cut_until)
        return;
    g_snprintf(m->staged, sizeof m->staged, "f%u-%u", m->number, m->writes++);
    m->fd = sim_open(m->host, m->program, m->staged, O_WRONLY | O_CREAT | O_TRUNC);
    if (m->fd >= 0 && sim_pwrite(m->host, m->program, m->fd, m->staged, 0) < 0)
        sim_complain(world->sim, "host %u cannot write", m->number);
    /* An open may be what noticed that the epoch was lost. */
    m->fd_epoch = strcmp(sw_control_host_id(m->host->control), m->ids[m->n_ids - 1]) == 0 ? m->n_ids - 1 : m->n_ids;
}

static gboolean is_there(World *world, const char *name)
{
    struct stat st;

    return fstatat(world->sim->source, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A close of what was staged in an epoch that was broken fails, and publishes nothing; any other works. */
static void finish(World *world, Member *m)
{
    gboolean broken;
    int r;

    if (m->fd < 0 || !is_up(world, m) || m->cut_until)
        return;
    broken = m->fd_epoch < EPOCHS_MAX && m->broken_us[m->fd_epoch] > 0;
    r = sim_close(m->host, m->program, m->fd);
    m->fd = -1;
    if (broken ? r != -ESTALE : r < 0)
        sim_complain(world->sim, "host %u: close of %s in a%s epoch: %d", m->number, m->staged,
                     broken ? " broken" : "n unbroken", r);
    if (is_there(world, m->staged) == broken)
        sim_complain(world->sim, "host %u: %s is%s there", m->number, m->staged, broken ? "" : " not");
    world->refused += broken;
    world->committed += !broken;
}

/* Whoever is up and can be reached is a member of the disk under one id; nobody else is. */
static void check_disk(World *world)
{
    g_autofree char *path = g_strdup_printf("%s/.safewritefs/hosts", world->sim->path);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    guint found = 0, expected = 0;

    while ((name = g_dir_read_name(dir))) {
        guint epoch;
        Member *m = member_of(world, name, &epoch);

        found++;
        if (!m || m->died_us || epoch + 1 != m->n_ids)
            sim_complain(world->sim, "%s is left over", name);
    }
    for (guint i = 0; i < world->n; i++)
        expected += !world->members[i].died_us;
    if (found != expected)
        sim_complain(world->sim, "%u hosts on disk, %u are up", found, expected);
}

/* ---- scenarios */

static guint64 seed_of(void)
{
    const char *text = g_getenv("SW_SIM_SEED");

    return text ? g_ascii_strtoull(text, NULL, 10) : 20;
}

static guint rounds(guint usual)
{
    const char *text = g_getenv("SW_SIM_STEPS");

    return text ? (guint)strtoul(text, NULL, 10) : usual;
}

/* Nothing but deaths, here and there: each is found in time, by exactly one. */
static void the_dead(void **state)
{
    guint64 seed = seed_of();
    World *world = world_new(seed, HOSTS);
    guint deaths = 0;

    (void)state;
    run_until(world, now_of(world) + 2 * TTL);
    for (guint i = 0; i < HOSTS / 2; i++) {
        Member *m = &world->members[chance(world, 0, HOSTS - 1)];

        if (is_up(world, m)) {
            stage_file(world, m);
            die(world, m);
            deaths++;
        }
        run_until(world, now_of(world) + chance(world, 0, 2 * TTL));
    }
    run_until(world, now_of(world) + 2 * TTL);
    check_disk(world);
    print_message("seed %" G_GUINT64_FORMAT ": %u of %u hosts died, each was broken within %.2f s\n", seed, deaths,
                  HOSTS, (double)world->slowest_us / S);
    if (world->broken != deaths || world->slowest_us > TTL + 2 * S || world->rejoined > 0)
        sim_complain(world->sim, "%u broken, %u rejoined, the slowest after %g s", world->broken, world->rejoined,
                     (double)world->slowest_us / S);
    world_free(world);
}

/* Others can find a host that has not put its record yet; if it dies as soon as it has, it is still found in time. */
static void the_newly_come(void **state)
{
    guint64 seed = seed_of() + 3, newcomers = 8;
    World *world = world_new(seed, 4);

    (void)state;
    run_until(world, now_of(world) + 2 * TTL);
    for (guint i = 0; i < newcomers; i++) {
        Member *m = &world->members[world->n];
        g_autofree char *record = NULL, *later = NULL;

        join(world, world->n++);
        record = g_strdup_printf("%s/.safewritefs/hosts/%s/record", world->sim->path, m->ids[0]);
        later = g_strconcat(record, ".new", NULL);
        assert_int_equal(rename(record, later), 0);
        run_until(world, now_of(world) + TTL / 4 + chance(world, 0, 2 * S));
        assert_int_equal(rename(later, record), 0);
        die(world, m);
        run_until(world, now_of(world) + 2 * TTL);
    }
    check_disk(world);
    print_message("seed %" G_GUINT64_FORMAT ": %u died as they came, each was broken within %.2f s\n", seed,
                  world->broken, (double)world->slowest_us / S);
    if (world->broken != newcomers || world->slowest_us > TTL + 2 * S)
        sim_complain(world->sim, "%u broken, the slowest after %g s", world->broken, (double)world->slowest_us / S);
    world_free(world);
}

/* The server cannot be reached for minutes, by anybody; they come back to it at their own pace. */
static void server_away(void **state)
{
    guint64 seed = seed_of() + 1;
    World *world = world_new(seed, HOSTS);

    (void)state;
    run_until(world, now_of(world) + 2 * TTL);
    for (guint round = 0; round < rounds(4); round++) {
        gint64 away_us = chance(world, 5 * S, 280 * (gint64)S);

        for (guint i = 0; i < HOSTS; i++)
            stage_file(world, &world->members[i]);
        for (guint i = 0; i < HOSTS; i++) {
            Member *m = &world->members[i];

            sim_port_cut(m->host->port, i % 2 ? EIO : ETIMEDOUT);
            m->cut_until = now_of(world) + away_us + chance(world, 0, away_us);
        }
        run_until(world, now_of(world) + 2 * away_us + 3 * TTL);
        for (guint i = 0; i < HOSTS; i++)
            finish(world, &world->members[i]);
    }
    check_disk(world);
    print_message("seed %" G_GUINT64_FORMAT ": server away, %u files committed after it, %u hosts broken\n", seed,
                  world->committed, world->broken);
    if (world->broken > 0 || world->refused > 0)
        sim_complain(world->sim, "%u broken, %u closes refused", world->broken, world->refused);
    world_free(world);
}

static void disturb(World *world, Member *m)
{
    gint64 length_us = chance(world, 0, 1) ? chance(world, S, TTL / 2) : chance(world, S, 4 * TTL);

    if (!is_up(world, m) || m->cut_until)
        return;
    stage_file(world, m);
    switch (chance(world, 0, 9)) {
    case 0:
        die(world, m);
        break;
    case 1:
    case 2:
    case 3:
        m->cut_until = now_of(world) + length_us;
        sim_port_cut(m->host->port, chance(world, 0, 1) ? EIO : ETIMEDOUT);
        break;
    default:
        m->frozen_until = now_of(world) + length_us;
        break;
    }
}

/* Everything at once.  What has to be found is found when it is over. */
static void chaos(void **state)
{
    guint64 seed = seed_of() + 2;
    World *world = world_new(seed, HOSTS);
    guint deaths = 0;

    (void)state;
    for (guint round = 0; round < rounds(150); round++) {
        disturb(world, &world->members[chance(world, 0, HOSTS - 1)]);
        run_until(world, now_of(world) + chance(world, 0, TTL / 2));
        finish(world, &world->members[chance(world, 0, HOSTS - 1)]);
    }
    run_until(world, now_of(world) + 16 * TTL);
    for (guint i = 0; i < HOSTS; i++) {
        deaths += world->members[i].died_us > 0;
        finish(world, &world->members[i]);
        stage_file(world, &world->members[i]);
        finish(world, &world->members[i]);
    }
    check_disk(world);
    print_message("seed %" G_GUINT64_FORMAT ": %u died, %u broken, %u rejoined, %u closes refused, %u committed\n",
                  seed, deaths, world->broken, world->rejoined, world->refused, world->committed);
    if (world->rejoined + deaths != world->broken || world->refused == 0 || world->rejoined == 0)
        sim_complain(world->sim, "that does not add up");
    world_free(world);
}

/* ---- a breaker that stops anywhere */

#define KEY "00000000000000aa"
#define ANOTHER_KEY "00000000000000bb"

/* Host 0 is dead, host 1 breaks it, 2 and 3 look on. */
typedef struct {
    World *world;
    gint64 until_us;
    gboolean paused; /* others have gone on meanwhile */
    char *leases;    /* path, owned */
} Breaking;

static void hold(Breaking *b, const char *key, guint holder)
{
    Member *m = &b->world->members[holder];
    g_autofree char *text = g_strdup_printf("%s 1 -", m->ids[m->n_ids - 1]);
    g_autofree char *path = g_strdup_printf("%s/%s", b->leases, key);

    if (symlink(text, path) < 0)
        sim_complain(b->world->sim, "the lease %s cannot be taken: %s", key, g_strerror(errno));
}

static void breaker_steps(gpointer data)
{
    Breaking *b = data;
    Member *breaker = &b->world->members[1];

    while (now_of(b->world) < b->until_us && !b->world->members[0].broken_us[0] && !sim_host_is_dead(breaker->host)) {
        b->world->sim->world.now_us = MAX(now_of(b->world), breaker->due_us);
        step(b->world, breaker);
    }
    if (sim_host_is_dead(breaker->host))
        breaker->died_us = now_of(b->world);
}

/* Long enough for two breaks one after the other; then the lease of the dead is another's. */
static void others_step(gpointer data)
{
    Breaking *b = data;
    Member *breaker = &b->world->members[1];

    if (!breaker->died_us)
        breaker->frozen_until = G_MAXINT64;
    b->paused = TRUE;
    run_until(b->world, now_of(b->world) + 6 * TTL);
    breaker->frozen_until = 0;
    hold(b, KEY, 2);
}

static void check_leases(Breaking *b)
{
    g_autoptr(GDir) dir = g_dir_open(b->leases, 0, NULL);
    const char *name;
    gboolean kept = FALSE;

    while ((name = g_dir_read_name(dir))) {
        if (strcmp(name, KEY) == 0)
            kept = TRUE;
        else
            sim_complain(b->world->sim, "leases/%s is left over", name);
    }
    if (!kept)
        sim_complain(b->world->sim, "a lease was taken from its living holder");
}

/* Returns how many calls the breaker made. */
static guint64 break_with(const SimPlan *plan, guint64 seed)
{
    Breaking b = {.world = world_new(seed, 4)};
    Member *dead = &b.world->members[0], *breaker = &b.world->members[1];
    SimTask tasks[] = {{breaker_steps, &b}, {others_step, &b}};
    guint64 calls;

    b.leases = g_strdup_printf("%s/.safewritefs/leases", b.world->sim->path);
    run_until(b.world, now_of(b.world) + TTL);
    stage_file(b.world, dead);
    hold(&b, KEY, 0);
    hold(&b, ANOTHER_KEY, 0);
    die(b.world, dead);
    run_until(b.world, now_of(b.world) + TTL - 6 * S);
    b.until_us = now_of(b.world) + 10 * S;
    sim_port_plan(breaker->host->port, plan);
    b.world->sim->world.sched = sim_sched_new(tasks, plan->fault == SIM_PAUSE ? 2 : 1);
    sim_sched_run(b.world->sim->world.sched);
    sim_sched_free(g_steal_pointer(&b.world->sim->world.sched));
    calls = sim_port_calls(breaker->host->port);
    sim_port_plan(breaker->host->port, &(SimPlan){0});
    if (!b.paused)
        others_step(&b);
    run_until(b.world, now_of(b.world) + 6 * TTL);
    check_disk(b.world);
    check_leases(&b);
    if (!sim_disk_salvaged(b.world->sim, dead->staged))
        sim_complain(b.world->sim, "what the dead host staged is lost");
    if (b.world->sim->complaints->len > 0)
        sim_complain(b.world->sim, "  %s at call %" G_GUINT64_FORMAT " of the breaker", sim_fault_name(plan->fault),
                     plan->at);
    g_free(b.leases);
    world_free(b.world);
    return calls;
}

/* C21: dead, or frozen so long that it is broken itself, and then goes on with what it was about to do. */
static void breakers(void **state)
{
    static const SimFault faults[] = {SIM_DIE_BEFORE, SIM_DIE_AFTER, SIM_PAUSE};
    guint64 seed = seed_of() + 3, calls = break_with(&(SimPlan){0}, seed);

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(faults); i++)
        for (guint64 at = 1; at <= calls; at++)
            (void)break_with(&(SimPlan){.fault = faults[i], .at = at}, seed);
    print_message("seed %" G_GUINT64_FORMAT ": a breaker stopped at each of its %" G_GUINT64_FORMAT
                  " calls, in %zu ways\n",
                  seed, calls, G_N_ELEMENTS(faults));
}

/* C24: two breakers that died while each had the mark of the other: the marks keep nobody from burying both. */
static void crossed_marks(void **state)
{
    Breaking b = {.world = world_new(seed_of(), 4)};

    (void)state;
    b.leases = g_strdup_printf("%s/.safewritefs/leases", b.world->sim->path);
    run_until(b.world, now_of(b.world) + TTL);
    for (guint i = 0; i < 2; i++) {
        g_autofree char *mark = g_strdup_printf("%s/%s.break", b.leases, b.world->members[i].ids[0]);
        g_autofree char *maker = g_strdup_printf("%s/%s", mark, b.world->members[1 - i].ids[0]);

        stage_file(b.world, &b.world->members[i]);
        assert_int_equal(mkdir(mark, 0755), 0);
        assert_int_equal(symlink("x", maker), 0);
    }
    die(b.world, &b.world->members[0]);
    die(b.world, &b.world->members[1]);
    run_until(b.world, now_of(b.world) + 4 * TTL);
    hold(&b, KEY, 2);
    check_disk(b.world);
    check_leases(&b);
    g_free(b.leases);
    world_free(b.world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_dead), cmocka_unit_test(server_away),   cmocka_unit_test(chaos),
        cmocka_unit_test(breakers), cmocka_unit_test(crossed_marks), cmocka_unit_test(the_newly_come),
    };
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = MIN(limit.rlim_max, 65536);
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
