/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The server cannot be reached from any call on that host A makes, for less than A's lease (C19, C20, C24).
 *
 * A lives on, so nobody breaks it; but whatever its program wanted and could not get, or could not give back, B can
 * have a beat after the server is there again.  The call with which it begins is done or not, for its reply is lost.
 *
 *   SW_SIM_ONLY="lock/lost reply/7"   runs one case, and prints what the host called
 */

#include "disk.h"

#include "../../src/lease/content_lease.h"
#include "../../src/lease/keeper.h"
#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#define S G_TIME_SPAN_SECOND
#define TTL (20 * S)
#define LOCK "x.lock"
#define FILE_NAME "f"
#define KEY 0xf001
#define STEP_US (250 * G_TIME_SPAN_MILLISECOND)
#define AFTER_US (TTL / 4 + S) /* a beat, and a little */

typedef struct {
    SimHost *host;
    SwKeeper *keeper;
    SwContentLeases *leases;
    SimProcess *program;
} Side;

typedef struct {
    Sim *sim;
    Side a, b;
} Run;

typedef struct {
    const char *name;
    void (*act)(Run *run);
} Scenario;

/* ---- what A's program does */

static void lock_file(Run *run)
{
    int fd = sim_open(run->a.host, run->a.program, LOCK, O_WRONLY | O_CREAT | O_EXCL);

    if (fd < 0)
        return;
    (void)sim_write(run->a.host, run->a.program, fd, "7\n");
    (void)sim_close(run->a.host, run->a.program, fd);
    (void)sim_unlink(run->a.host, run->a.program, LOCK);
}

static void lock_left(Run *run)
{
    (void)sim_open(run->a.host, run->a.program, LOCK, O_WRONLY | O_CREAT | O_EXCL);
    sim_exit(run->a.host, run->a.program, SIGKILL);
    sim_host_tick(run->a.host, STEP_US);
}

static void lock_directory(Run *run)
{
    if (sim_mkdir(run->a.host, run->a.program, LOCK) == 0)
        (void)sim_rmdir(run->a.host, run->a.program, LOCK);
}

static void lock_link(Run *run)
{
    if (sim_symlink(run->a.host, run->a.program, "7", LOCK) == 0)
        (void)sim_unlink(run->a.host, run->a.program, LOCK);
}

static void lease(Run *run)
{
    SwLeaseText intent = {.appending = TRUE, .append_length = 1, .file_ino = KEY, .path = "none"};
    SwPredecessor predecessor;
    SwContentLease *held;

    if (sw_content_lease_take(run->a.leases, KEY, NULL, 0, NULL, NULL, &held, &predecessor) < 0)
        return;
    sw_ignore(sw_content_lease_intend(held, &intent)); /* whatever it says, the lease has to go */
    (void)sw_content_lease_release(held);
}

static void edit(Run *run)
{
    (void)sim_edit(run->a.host, run->a.program, FILE_NAME, "A", 0);
}

static void append(Run *run)
{
    (void)sim_put(run->a.host, run->a.program, FILE_NAME, O_APPEND, "A");
}

static const Scenario scenarios[] = {
    {"lock", lock_file},          {"killed", lock_left}, {"lock directory", lock_directory},
    {"symbolic link", lock_link}, {"lease", lease},      {"edit", edit},
    {"append", append},
};

/* ---- a run */

static void happened(gpointer data, SwKeeperWhat what, const char *host_id, int error)
{
    (void)error;
    sim_complain(data, "%s was taken for dead (%d)", host_id, (int)what);
}

static Side join(Sim *sim, guint machine)
{
    SwKeeperEvents events = {.happened = happened, .data = sim};
    Side side = {.host = sim_host_mounted(sim, machine)};

    g_assert(side.host);
    side.keeper = sw_keeper_new(side.host->port, side.host->control, TTL, &events);
    side.leases = sw_content_leases_new(side.host->port, side.host->control, sim->source);
    side.program = sim_program(side.host);
    (void)sw_keeper_step(side.keeper);
    return side;
}

static void part(Side *side)
{
    if (!side->program->gone)
        sim_exit(side->host, side->program, SIGKILL);
    sw_content_leases_free(side->leases);
    sw_keeper_free(side->keeper);
    sim_host_free(side->host);
}

static void go_on(Run *run, gint64 us)
{
    for (; us > 0; us -= STEP_US) {
        sim_host_tick(run->a.host, STEP_US);
        (void)sw_overlay_tick(run->b.host->overlay, NULL, NULL);
        (void)sw_keeper_step(run->a.keeper);
        (void)sw_keeper_step(run->b.keeper);
    }
}

static void check_free(Run *run)
{
    SwPort *port = run->b.host->port;
    SwPredecessor predecessor;
    SwContentLease *held;
    int r = sim_put(run->b.host, run->b.program, LOCK, O_CREAT | O_EXCL, "7");

    if (r < 0 || sim_unlink(run->b.host, run->b.program, LOCK) < 0)
        sim_complain(run->sim, "the lock is not free: %d", r);
    r = sw_content_lease_take(run->b.leases, KEY, NULL, port->now_us(port) + S, NULL, NULL, &held, &predecessor);
    if (r < 0 || sw_content_lease_release(held) < 0)
        sim_complain(run->sim, "the lease is not free: %d", r);
    r = sim_edit(run->b.host, run->b.program, FILE_NAME, "B", 0);
    if (r < 0)
        sim_complain(run->sim, "the file cannot be edited: %d", r);
}

/* How many calls A made. */
static guint64 run_once(const Scenario *scenario, const SimPlan *plan, gboolean verbose, char **ret_complaints)
{
    static const char *const names[] = {FILE_NAME, NULL};
    Run run = {.sim = sim_new(plan->at)};
    guint64 n_calls;

    sim_disk_put(run.sim, FILE_NAME, "old");
    run.a = join(run.sim, 1);
    run.b = join(run.sim, 2);
    sim_port_plan(run.a.host->port, plan);
    scenario->act(&run);
    if (!run.a.program->gone)
        sim_exit(run.a.host, run.a.program, SIGKILL);
    n_calls = sim_port_calls(run.a.host->port);
    if (verbose) {
        g_autofree char *trace = sim_port_trace(run.a.host->port);

        g_printerr("%s", trace);
    }
    sim_port_plan(run.a.host->port, &(SimPlan){0});
    go_on(&run, AFTER_US);
    check_free(&run);
    part(&run.a);
    part(&run.b);
    sim_disk_litter(run.sim, names);
    *ret_complaints = run.sim->complaints->len > 0 ? g_strdup(run.sim->complaints->str) : NULL;
    sim_free(run.sim);
    return n_calls;
}

static gboolean run_case(const Scenario *scenario, SimFault fault, guint64 at)
{
    SimPlan plan = {.fault = fault, .at = at, .error = EIO, .away = TRUE};
    const char *only = g_getenv("SW_SIM_ONLY");
    g_autofree char *complaints = NULL;
    g_autofree char *label = g_strdup_printf("%s/%s/%u", scenario->name, sim_fault_name(fault), (guint)at);

    if (only && strcmp(only, label) != 0)
        return TRUE;
    (void)run_once(scenario, &plan, only != NULL, &complaints);
    if (complaints)
        print_error("%s:\n%s", label, complaints);
    return !complaints;
}

static void from_any_call_on(void **state)
{
    const Scenario *scenario = *state;
    g_autofree char *complaints = NULL;
    guint64 n_calls = run_once(scenario, &(SimPlan){0}, FALSE, &complaints);
    guint n_bad = 0, n = (guint)(2 * n_calls);

    if (complaints)
        fail_msg("%s with the server there:\n%s", scenario->name, complaints);
    for (guint64 at = 1; at <= n_calls; at++)
        n_bad += !run_case(scenario, SIM_FAIL, at) + !run_case(scenario, SIM_LOST, at);
    print_message("%s: %u runs\n", scenario->name, n);
    if (n_bad)
        fail_msg("%s: %u of %u runs went wrong", scenario->name, n_bad, n);
}

/* ---- a mount whose call `at` fails is refused, or as good as any */

/* How many calls the mount has made. */
static guint64 mount_once(Sim *sim, guint64 at)
{
    SimHost *a = sim_host_new(sim, 1), *b = sim_host_mounted(sim, 2);
    SimProcess *p = sim_program(a), *q = sim_program(b);
    SimPlan plan = {.fault = SIM_FAIL, .at = at, .error = EIO};
    guint64 n_calls;

    sim_port_plan(a->port, &plan);
    if (sim_host_mount(a) == 0) {
        g_autofree char *id = g_strdup(sw_control_host_id(a->control));

        n_calls = sim_port_calls(a->port);
        if (sim_put(a, p, LOCK, O_CREAT | O_EXCL, "7") < 0)
            sim_complain(sim, "A cannot get the lock");
        sim_port_kill(a->port);
        if (sw_control_break_host(b->control, id) < 0)
            sim_complain(sim, "B cannot break A");
    } else {
        n_calls = sim_port_calls(a->port);
    }
    if (sim_put(b, q, LOCK, O_CREAT | O_EXCL, "7") < 0)
        sim_complain(sim, "B cannot get the lock that A had");
    sim_exit(a, p, SIGKILL);
    sim_exit(b, q, SIGKILL);
    sim_host_free(a);
    sim_host_free(b);
    return n_calls;
}

static void mounts(void **state)
{
    guint64 n_calls = 1;

    (void)state;
    for (guint64 at = 0; at <= n_calls; at++) {
        Sim *sim = sim_new(1);
        guint64 n = mount_once(sim, at);
        g_autofree char *complaints = g_strdup(sim->complaints->str);

        sim_free(sim);
        if (*complaints)
            fail_msg("call %u failed:\n%s", (guint)at, complaints);
        n_calls = at == 0 ? n : n_calls;
    }
    print_message("%u mounts\n", (guint)n_calls);
}

int main(void)
{
    struct CMUnitTest tests[G_N_ELEMENTS(scenarios) + 1] = {[G_N_ELEMENTS(scenarios)] = cmocka_unit_test(mounts)};

    for (guint i = 0; i < G_N_ELEMENTS(scenarios); i++)
        tests[i] = (struct CMUnitTest){
            .name = scenarios[i].name, .test_func = from_any_call_on, .initial_state = (void *)&scenarios[i]};
    return _cmocka_run_group_tests("away", tests, G_N_ELEMENTS(tests), NULL, NULL);
}
