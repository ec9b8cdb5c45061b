/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Hosts that do anything at any time, with faults, deaths and restarts; one history for all (C1, C2, C3, C4, C5, C9,
 * C10, C11, C12, C16, C19, C24).
 *
 *   SW_SIM_SEED    one seed only, instead of the few that are always tried
 *   SW_SIM_STEPS   how many steps each host makes
 */

#include "disk.h"
#include "history.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOSTS 4
#define MACHINES 3
#define SEEDS 6
#define STEPS 250
#define ODDS 7
#define SLOTS 6
#define SLOT_SIZE 8
#define PRIVATE "out.thread-1-pid-2"

static const char *const names[] = {"a.bin", "b.bin", "slots.bin", "mixed.bin", "records",
                                    "tmp0",  "tmp1",  "tmp2",      "tmp3",      NULL};

typedef struct World World;

typedef struct {
    World *world;
    guint index;
    SimHost *host;
    SimProcess *process;
    SimFault fault; /* of the step under way */
} Actor;

struct World {
    Sim *sim;
    SimHistory *history;
    Actor actors[HOSTS];
    guint steps;
    guint serial;
    guint n_done, n_failed;
    guint n_deaths;
    GPtrArray *records; /* of char *, owned: all that were ever appended */
};

static guint pick(World *world, guint n)
{
    return (guint)(sim_random(&world->sim->world) % n);
}

static SimEnd end_of(const Actor *actor, int r)
{
    if (r >= 0)
        return SIM_DONE;
    return sim_host_is_dead(actor->host) || actor->fault == SIM_LOST ? SIM_UNSURE : SIM_FAILED;
}

static void conclude(Actor *actor, guint write, int r)
{
    SimEnd end = end_of(actor, r);

    sim_history_end(actor->world->history, write, end);
    if (end == SIM_DONE)
        actor->world->n_done++;
    else
        actor->world->n_failed++;
}

static void refute(Actor *actor, const char *name, const char *value, gint64 since)
{
    g_autofree char *why = sim_history_refute(actor->world->history, name, value, since);

    if (why)
        sim_complain(actor->world->sim, "host %u read %s", actor->index, why);
}

/* ---- whole files */

static char *new_content(Actor *actor)
{
    World *world = actor->world;

    return g_strdup_printf("<%u of host %u, %.*s>", ++world->serial, actor->index, (int)pick(world, 20),
                           "....................");
}

static const char *some_file(Actor *actor)
{
    return names[pick(actor->world, 2)];
}

/* Without an error of its own an open finds out whether there is a file. */
static void read_file(Actor *actor, const char *name)
{
    gint64 since = sim_history_now(actor->world->history);
    g_autofree char *text = NULL;
    int r = sim_get(actor->host, name, &text);

    if (r == 0 && !sim_host_is_dead(actor->host))
        refute(actor, name, text, since);
    else if (actor->fault == SIM_NONE)
        sim_complain(actor->world->sim, "host %u cannot read %s: %d", actor->index, name, r);
}

static void write_file(Actor *actor, const char *name, int flags, int status)
{
    g_autofree char *text = new_content(actor);
    gint64 since = sim_history_now(actor->world->history);
    SimProcess *p = actor->process;
    guint write;
    int fd = sim_open(actor->host, p, name, O_WRONLY | O_CREAT | flags);
    int r;

    if (fd < 0)
        return;
    if (flags & O_EXCL)
        refute(actor, name, NULL, since);
    write = sim_history_begin(actor->world->history, name, text);
    r = (int)sim_write(actor->host, p, fd, text);
    if (pick(actor->world, 4) == 0)
        (void)sim_fsync(actor->host, p, fd);
    if (status) {
        sim_exit(actor->host, p, status);
        sim_history_end(actor->world->history, write, SIM_FAILED);
        return;
    }
    if (r >= 0)
        r = sim_close(actor->host, p, fd);
    else
        (void)sim_close(actor->host, p, fd);
    conclude(actor, write, r);
}

static void replace_file(Actor *actor, const char *name, const char *temporary, gboolean open)
{
    g_autofree char *text = new_content(actor);
    SimProcess *p = actor->process;
    int fd = sim_open(actor->host, p, temporary, O_WRONLY | O_CREAT | O_TRUNC);
    int r = fd < 0 ? fd : (int)sim_write(actor->host, p, fd, text);
    guint write;

    if (fd >= 0 && !open && r >= 0)
        r = sim_close(actor->host, p, fd);
    if (r >= 0) {
        write = sim_history_begin(actor->world->history, name, text);
        conclude(actor, write, sim_rename(actor->host, p, temporary, name));
    }
}

static void remove_file(Actor *actor, const char *name)
{
    guint write = sim_history_begin(actor->world->history, name, NULL);
    int r = sim_unlink(actor->host, actor->process, name);

    /* Not there: then it is not this call that removed it, unless its first reply was lost. */
    sim_history_end(actor->world->history, write,
                    r == -ENOENT && actor->fault != SIM_LOST ? SIM_FAILED : end_of(actor, r));
}

/*
 * ---- slots: an edit writes some of a file, a rewrite all
 *
 * Rewriters take no lease.  An edit that meets one finds out by its exchange, and for as long as it takes to put back
 * what it took away, readers may see the edit over the older version.  So in the file that is rewritten as well, it is
 * only in the end that old values are wrong.
 */

#define EDITED "slots.bin"
#define MIXED "mixed.bin"

static char *slot_name(const char *file, guint slot)
{
    return g_strdup_printf("%s, slot %u", file, slot);
}

static void write_slots(Actor *actor, const char *file, guint first, guint n, int flags)
{
    World *world = actor->world;
    guint writes[SLOTS];
    char text[SLOTS * SLOT_SIZE + 1];
    int fd = sim_open(actor->host, actor->process, file, flags);
    int r;

    if (fd < 0)
        return;
    for (guint i = 0; i < n; i++) {
        g_autofree char *name = slot_name(file, first + i);

        (void)snprintf(text + (gsize)i * SLOT_SIZE, SLOT_SIZE + 1, "%07u.", ++world->serial % 10000000);
        writes[i] = sim_history_begin(world->history, name, text + (gsize)i * SLOT_SIZE);
    }
    r = (int)sim_pwrite(actor->host, actor->process, fd, text, (off_t)first * SLOT_SIZE);
    if (r >= 0)
        r = sim_close(actor->host, actor->process, fd);
    for (guint i = 0; i < n; i++)
        conclude(actor, writes[i], r);
}

static void edit_slots(Actor *actor, const char *file)
{
    guint first = pick(actor->world, SLOTS);

    write_slots(actor, file, first, 1 + pick(actor->world, SLOTS - first), O_RDWR);
}

static void read_slots(Actor *actor, const char *file)
{
    gboolean strict = strcmp(file, EDITED) == 0 || !actor->world->sim->world.sched;
    gint64 since = strict ? sim_history_now(actor->world->history) : 0;
    g_autofree char *text = NULL;
    int r = sim_get(actor->host, file, &text);

    if (r < 0 || sim_host_is_dead(actor->host)) {
        if (actor->fault == SIM_NONE)
            sim_complain(actor->world->sim, "host %u cannot read slots: %d", actor->index, r);
        return;
    }
    if (!text || strlen(text) != SLOTS * SLOT_SIZE) {
        sim_complain(actor->world->sim, "host %u read slots \"%s\"", actor->index, text ? text : "(none)");
        return;
    }
    for (guint i = 0; i < SLOTS; i++) {
        g_autofree char *name = slot_name(file, i);
        g_autofree char *value = g_strndup(text + (gsize)i * SLOT_SIZE, SLOT_SIZE);

        refute(actor, name, value, since);
    }
}

/* ---- records */

static void set_initially(World *world, const char *name, const char *value)
{
    sim_history_end(world->history, sim_history_begin(world->history, name, value), SIM_DONE);
}

static void append_records(Actor *actor)
{
    World *world = actor->world;
    int fd = sim_open(actor->host, actor->process, "records", O_WRONLY | O_CREAT | O_APPEND);

    for (guint n = 1 + pick(world, 3); fd >= 0 && n > 0; n--) {
        char *record = g_strdup_printf("[%u by %u]", ++world->serial, actor->index);
        guint write;

        g_ptr_array_add(world->records, record);
        set_initially(world, record, NULL);
        write = sim_history_begin(world->history, record, record);
        conclude(actor, write, (int)sim_write(actor->host, actor->process, fd, record));
    }
}

/* Nothing but whole records, each at most once, and all that were done before. */
static void check_records(World *world, const char *text, gint64 since)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    while (text && *text) {
        const char *end = strchr(text, ']');
        char *record = end ? g_strndup(text, end + 1 - text) : g_strdup(text);
        g_autofree char *why = sim_history_refute(world->history, record, record, since);

        if (why)
            sim_complain(world->sim, "torn or failed record: %s", why);
        if (!g_hash_table_add(seen, record))
            sim_complain(world->sim, "doubled record");
        text += end ? (gsize)(end + 1 - text) : strlen(text);
    }
    for (guint i = 0; i < world->records->len; i++) {
        const char *record = world->records->pdata[i];
        g_autofree char *why =
            g_hash_table_contains(seen, record) ? NULL : sim_history_refute(world->history, record, NULL, since);

        if (why)
            sim_complain(world->sim, "lost record %s", record);
    }
}

/* Records are appended in place; what went wrong in the middle of one is cleaned up later, and seen until then. */
static gboolean is_calm(const World *world)
{
    for (guint i = 0; i < HOSTS; i++)
        if (world->actors[i].fault != SIM_NONE)
            return FALSE;
    return TRUE;
}

static void read_records(Actor *actor)
{
    World *world = actor->world;
    gint64 since = sim_history_now(world->history);
    guint n_deaths = world->n_deaths;
    gboolean was_calm = is_calm(world);
    g_autofree char *text = NULL;

    if (sim_get(actor->host, "records", &text) == 0 && was_calm && is_calm(world) && n_deaths == world->n_deaths)
        check_records(world, text, since);
}

/* ---- steps */

static void act(Actor *actor)
{
    char temporary[] = "tmp0";

    temporary[3] = (char)('0' + actor->index);
    switch (pick(actor->world, 14)) {
    case 0:
        write_file(actor, some_file(actor), O_TRUNC, 0);
        return;
    case 1:
        write_file(actor, some_file(actor), O_EXCL, 0);
        return;
    case 2:
        write_file(actor, some_file(actor), O_TRUNC, SIGKILL);
        return;
    case 3:
        replace_file(actor, some_file(actor), temporary, TRUE);
        return;
    case 4:
        replace_file(actor, some_file(actor), temporary, FALSE);
        return;
    case 5:
        replace_file(actor, some_file(actor), PRIVATE, FALSE);
        return;
    case 6:
        remove_file(actor, some_file(actor));
        return;
    case 7:
        edit_slots(actor, EDITED);
        return;
    case 8:
        edit_slots(actor, MIXED);
        return;
    case 9:
        write_slots(actor, MIXED, 0, SLOTS, O_WRONLY | O_CREAT | O_TRUNC);
        return;
    case 10:
        append_records(actor);
        return;
    case 11:
        read_slots(actor, EDITED);
        read_slots(actor, MIXED);
        return;
    case 12:
        read_records(actor);
        return;
    default:
        read_file(actor, some_file(actor));
    }
}

static void mount(Actor *actor)
{
    actor->host = sim_host_mounted(actor->world->sim, 1 + actor->index % MACHINES);
    if (!actor->host)
        g_error("a host cannot mount"); /* none of its calls fails */
}

/* Some fault at one of the next calls, now and then. */
static void plan_fault(Actor *actor)
{
    static const SimFault faults[] = {SIM_FAIL, SIM_LOST, SIM_SHORT, SIM_DIE_BEFORE, SIM_DIE_AFTER, SIM_DIE_HALF};
    World *world = actor->world;
    SimPlan plan = {0};

    if (pick(world, 6) == 0)
        plan = (SimPlan){.fault = faults[pick(world, G_N_ELEMENTS(faults))],
                         .at = 1 + pick(world, 50),
                         .error = pick(world, 2) ? EIO : ENOSPC};
    actor->fault = plan.fault;
    sim_port_plan(actor->host->port, &plan);
}

static void step(Actor *actor)
{
    plan_fault(actor);
    actor->process = sim_program(actor->host);
    act(actor);
    if (!actor->process->gone)
        sim_exit(actor->host, actor->process, 0);
    sim_port_plan(actor->host->port, &(SimPlan){0});
    if (sim_host_is_dead(actor->host)) {
        actor->world->n_deaths++;
        sim_host_free(actor->host);
        mount(actor);
    }
    actor->fault = SIM_NONE;
    if (pick(actor->world, 10) == 0)
        sim_host_tick(actor->host, pick(actor->world, 3 * G_USEC_PER_SEC));
}

static void run_actor(gpointer data)
{
    Actor *actor = data;

    for (guint i = 0; i < actor->world->steps && actor->world->sim->complaints->len == 0; i++)
        step(actor);
}

/* ---- a run */

static void check_end(World *world)
{
    Actor *last = &world->actors[0];
    g_autofree char *text = NULL;

    for (guint i = 0; i < HOSTS; i++)
        sim_host_free(world->actors[i].host);
    mount(last);
    read_file(last, names[0]);
    read_file(last, names[1]);
    read_slots(last, EDITED);
    read_slots(last, MIXED);
    if (sim_get(last->host, "records", &text) == 0)
        check_records(world, text, sim_history_now(world->history));
    sim_host_free(last->host);
    sim_age(&world->sim->world);
    mount(last);
    sim_host_free(last->host);
    sim_disk_litter(world->sim, names);
}

static void prepare_slots(World *world, const char *file)
{
    GString *slots = g_string_new(NULL);

    for (guint i = 0; i < SLOTS; i++) {
        g_autofree char *name = slot_name(file, i);

        g_string_append(slots, "initial.");
        set_initially(world, name, "initial.");
    }
    sim_disk_put(world->sim, file, slots->str);
    g_string_free(slots, TRUE);
}

static void prepare(World *world)
{
    set_initially(world, names[0], NULL);
    set_initially(world, names[1], NULL);
    prepare_slots(world, EDITED);
    prepare_slots(world, MIXED);
}

static gboolean run_seed(guint64 seed, guint steps)
{
    World world = {.sim = sim_new(seed), .history = sim_history_new(), .steps = steps};
    SimTask tasks[HOSTS];
    gboolean good;

    world.records = g_ptr_array_new_with_free_func(g_free);
    prepare(&world);
    for (guint i = 0; i < HOSTS; i++) {
        world.actors[i] = (Actor){.world = &world, .index = i};
        mount(&world.actors[i]);
        tasks[i] = (SimTask){run_actor, &world.actors[i]};
    }
    world.sim->world.sched = sim_sched_new(tasks, HOSTS);
    world.sim->world.odds = ODDS;
    sim_sched_run(world.sim->world.sched);
    sim_sched_free(g_steal_pointer(&world.sim->world.sched));
    check_end(&world);
    good = world.sim->complaints->len == 0;
    print_message("seed %" G_GUINT64_FORMAT ": %u writes done, %u not, %u deaths\n", seed, world.n_done, world.n_failed,
                  world.n_deaths);
    if (!good)
        print_error("SW_SIM_SEED=%" G_GUINT64_FORMAT " SW_SIM_STEPS=%u:\n%s", seed, steps, world.sim->complaints->str);
    g_ptr_array_unref(world.records);
    sim_history_free(world.history);
    sim_free(world.sim);
    return good;
}

static guint64 setting(const char *name, guint64 otherwise)
{
    const char *text = g_getenv(name);

    return text ? g_ascii_strtoull(text, NULL, 10) : otherwise;
}

static void random_hosts(void **state)
{
    guint steps = (guint)setting("SW_SIM_STEPS", STEPS);
    guint64 seed = setting("SW_SIM_SEED", 0);
    guint n_bad = 0;

    (void)state;
    for (guint64 i = seed ? seed : 1; i <= (seed ? seed : SEEDS); i++)
        n_bad += !run_seed(i, steps);
    assert_int_equal(n_bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_hosts)};

    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
