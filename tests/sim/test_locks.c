/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Every call that host A makes for a lock goes wrong once, in every way, or is its last (C18, C19, C20, C24).
 *
 * While A's program has the lock, and A lives, nobody else gets it.  Afterwards, when the program has ended or A was
 * started again, B gets it, and after the last unmount no record is left.  What was broken is in salvage.
 *
 *   SW_SIM_ONLY="killed owner/die after/7"   runs one case, and prints what the host called
 */

#include "disk.h"
#include "lies.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#define NAME "x.lock"
#define EXCLUSIVE (O_WRONLY | O_CREAT | O_EXCL)
#define TICK_US (300 * G_TIME_SPAN_MILLISECOND)
#define SWEEP_US (21 * G_TIME_SPAN_SECOND) /* over a lease */

typedef struct {
    Sim *sim;
    SimHost *a, *b;
    SimProcess *p;   /* the program on A */
    gboolean broken; /* a lock that stood was not removed by its program */
} Run;

typedef struct {
    const char *name;
    gboolean after_death; /* another mount of A's machine has the lock, and dies */
    void (*act)(Run *run);
} Scenario;

typedef struct {
    SimFault fault;
    int error;
    gboolean alone; /* B is on A's machine, and A is not started again */
} Way;

static const Way ways[] = {
    {SIM_FAIL, EIO, FALSE},     {SIM_FAIL, ENOSPC, FALSE}, {SIM_LOST, EIO, FALSE},   {SIM_SHORT, 0, FALSE},
    {SIM_DIE_BEFORE, 0, FALSE}, {SIM_DIE_AFTER, 0, FALSE}, {SIM_DIE_AFTER, 0, TRUE},
};

/* B must not have it while A's program does. */
static void contend(Run *run, gboolean held)
{
    SimProcess *q = sim_program(run->b);
    int fd = sim_open(run->b, q, NAME, EXCLUSIVE);

    if (held && !sim_host_is_dead(run->a) && fd != -EEXIST)
        sim_complain(run->sim, "B's exclusive create beside A's returned %d", fd);
    if (held && !sim_host_is_dead(run->a) && sim_unlink(run->b, q, NAME) != -EBUSY)
        sim_complain(run->sim, "B could remove A's lock");
    if (fd >= 0 && (sim_close(run->b, q, fd) < 0 || sim_unlink(run->b, q, NAME) < 0))
        sim_complain(run->sim, "B cannot release its lock");
    sim_exit(run->b, q, 0);
}

static void made_and_released(Run *run)
{
    int fd = sim_open(run->a, run->p, NAME, EXCLUSIVE);

    contend(run, fd >= 0);
    if (fd < 0)
        return;
    (void)sim_write(run->a, run->p, fd, "7\n");
    (void)sim_close(run->a, run->p, fd);
    if (!sim_host_is_dead(run->a))
        contend(run, TRUE);
    (void)sim_unlink(run->a, run->p, NAME);
}

static void renamed_away(Run *run)
{
    int fd = sim_open(run->a, run->p, NAME, EXCLUSIVE);

    if (fd < 0)
        return;
    (void)sim_close(run->a, run->p, fd);
    (void)sim_rename(run->a, run->p, NAME, "data");
    if (!sim_host_is_dead(run->a))
        (void)sim_unlink(run->a, run->p, "data");
}

static void killed_owner(Run *run)
{
    int fd = sim_open(run->a, run->p, NAME, EXCLUSIVE);

    if (fd >= 0)
        (void)sim_write(run->a, run->p, fd, "killed");
    run->broken = fd >= 0;
    sim_exit(run->a, run->p, SIGKILL);
    sim_host_tick(run->a, TICK_US);
}

static void inherited(Run *run)
{
    SimProcess *helper = sim_fork(run->a, run->p);
    int fd = sim_open(run->a, helper, NAME, EXCLUSIVE);

    sim_exit(run->a, helper, 0);
    sim_host_tick(run->a, TICK_US);
    contend(run, fd >= 0);
    if (fd >= 0)
        (void)sim_unlink(run->a, run->p, NAME);
}

/* Of a dead mount of the same machine: whoever looks after records finds it. */
static void swept(Run *run)
{
    sim_host_tick(run->a, SWEEP_US);
    made_and_released(run);
}

static const Scenario scenarios[] = {
    {"made and released", FALSE, made_and_released},
    {"renamed away", FALSE, renamed_away},
    {"killed owner", FALSE, killed_owner},
    {"inherited", FALSE, inherited},
    {"swept", TRUE, swept},
};

/* ---- a run */

static void leave_lock(Sim *sim)
{
    SimHost *dead = sim_host_mounted(sim, 1);
    SimProcess *p = sim_program(dead);

    if (sim_open(dead, p, NAME, EXCLUSIVE) < 0)
        sim_complain(sim, "the first lock cannot be made");
    sim_port_kill(dead->port);
    sim_exit(dead, p, SIGKILL);
    sim_host_free(dead);
}

/* Whatever went wrong, the lock is free once its program and its host are. */
static void check_free(Run *run, gboolean alone)
{
    SimProcess *q = sim_program(run->b);
    int fd = -EEXIST;

    for (guint i = 0; i < 4 && fd < 0; i++) {
        sim_host_tick(run->b, alone ? SWEEP_US : TICK_US);
        fd = sim_open(run->b, q, NAME, EXCLUSIVE);
    }
    if (fd < 0)
        sim_complain(run->sim, "B cannot get the lock afterwards: %d", fd);
    else if (sim_close(run->b, q, fd) < 0 || sim_unlink(run->b, q, NAME) < 0)
        sim_complain(run->sim, "B cannot release the lock");
    sim_exit(run->b, q, 0);
}

static void judge(Run *run, gboolean alone)
{
    static const char *const none[] = {"data", NULL};

    if (sim_host_is_dead(run->a)) {
        sim_host_free(run->a);
        run->a = alone ? NULL : sim_host_mounted(run->sim, 1);
    } else {
        if (!run->p->gone)
            sim_exit(run->a, run->p, SIGKILL);
        sim_host_tick(run->a, SWEEP_US);
        sim_host_tick(run->a, SWEEP_US);
    }
    check_free(run, alone);
    sim_host_free(run->a);
    sim_host_free(run->b);
    sim_age(&run->sim->world);
    sim_host_free(sim_host_mounted(run->sim, 1));
    sim_disk_litter(run->sim, none);
    if (run->broken && !sim_disk_salvaged(run->sim, ""))
        sim_complain(run->sim, "the broken lock is not in salvage");
}

static GByteArray *run_once(const Scenario *scenario, const SimPlan *plan, gboolean alone, gboolean verbose,
                            char **ret_complaints)
{
    Run run = {.sim = sim_new(plan->at)};
    GByteArray *suffers;

    run.b = sim_host_mounted(run.sim, alone ? 1 : 2);
    run.a = sim_host_mounted(run.sim, 1);
    if (scenario->after_death)
        leave_lock(run.sim);
    run.p = sim_program(run.a);
    sim_port_plan(run.a->port, plan);
    scenario->act(&run);
    suffers = sim_port_suffers(run.a->port);
    if (verbose || run.sim->complaints->len > 0) {
        g_autofree char *trace = sim_port_trace(run.a->port);

        g_printerr("%s", trace);
    }
    sim_port_plan(run.a->port, &(SimPlan){0});
    judge(&run, alone);
    *ret_complaints = run.sim->complaints->len > 0 ? g_strdup(run.sim->complaints->str) : NULL;
    sim_free(run.sim);
    return suffers;
}

static gboolean run_case(const Scenario *scenario, const Way *way, guint64 at)
{
    SimPlan plan = {.fault = way->fault, .at = at, .error = way->error};
    const char *only = g_getenv("SW_SIM_ONLY");
    g_autofree char *complaints = NULL;
    g_autofree char *label =
        g_strdup_printf("%s/%s%s%s/%u", scenario->name, sim_fault_name(way->fault),
                        way->error == ENOSPC ? " ENOSPC" : "", way->alone ? " alone" : "", (guint)at);

    if (only && strcmp(only, label) != 0)
        return TRUE;
    g_byte_array_unref(run_once(scenario, &plan, way->alone, only != NULL, &complaints));
    if (complaints)
        print_error("%s:\n%s", label, complaints);
    return !complaints;
}

static void all_faults(void **state)
{
    const Scenario *scenario = *state;
    g_autofree char *complaints = NULL;
    g_autoptr(GByteArray) suffers = run_once(scenario, &(SimPlan){0}, FALSE, FALSE, &complaints);
    guint n_bad = 0, n = 0;

    if (complaints)
        fail_msg("%s without any fault:\n%s", scenario->name, complaints);
    for (guint w = 0; w < G_N_ELEMENTS(ways); w++)
        for (guint64 call = 1; call <= suffers->len; call++) {
            SimPlan plan = {.fault = ways[w].fault, .at = call, .error = ways[w].error};

            if (!sim_plan_harms(&plan, suffers))
                continue;
            n++;
            n_bad += !run_case(scenario, &ways[w], call);
        }
    print_message("%s: %u runs\n", scenario->name, n);
    if (n_bad)
        fail_msg("%s: %u of %u runs went wrong", scenario->name, n_bad, n);
}

/* ---- what a breaker's client remembers of the name is older than the lock (F12) */

static void take(SimHost *host, SimProcess *p, const char *who)
{
    int r = sim_put(host, p, NAME, O_CREAT | O_EXCL, "7");

    if (r < 0)
        sim_complain(host->sim, "%s cannot get the lock: %d", who, r);
}

/* B believes that the name is missing, or that it is another lock of long ago. */
static void break_unseen(Sim *sim, gboolean another)
{
    SimHost *a = sim_host_mounted(sim, 1), *b = sim_host_new(sim, 2), *c = sim_host_mounted(sim, 3);
    SimProcess *p = sim_program(a), *q = sim_program(c);
    g_autofree char *seen = NULL, *id = g_strdup(sw_control_host_id(a->control));

    sim_lies_begin(b->port, &sim->world, G_TIME_SPAN_HOUR);
    if (sim_host_mount(b) < 0)
        sim_complain(sim, "B cannot mount");
    if (another)
        take(a, p, "A");
    (void)sim_get(b, NAME, &seen);
    if (another && sim_unlink(a, p, NAME) < 0)
        sim_complain(sim, "A cannot release its first lock");
    take(a, p, "A");
    sim_port_kill(a->port);
    if (sw_control_break_host(b->control, id) < 0)
        sim_complain(sim, "B cannot break A");
    take(c, q, "C");
    sim_exit(a, p, SIGKILL);
    sim_exit(c, q, SIGKILL);
    sim_host_free(a);
    sim_host_free(b);
    sim_host_free(c);
}

static void unseen_locks(void **state)
{
    (void)state;
    for (gboolean another = FALSE; another <= TRUE; another++) {
        Sim *sim = sim_new(1);
        g_autofree char *complaints = NULL;

        break_unseen(sim, another);
        complaints = g_strdup(sim->complaints->str);
        sim_free(sim);
        if (*complaints)
            fail_msg("B %s:\n%s", another ? "remembers another lock" : "believes that there is none", complaints);
    }
}

int main(void)
{
    struct CMUnitTest tests[G_N_ELEMENTS(scenarios) + 1] = {[G_N_ELEMENTS(scenarios)] = cmocka_unit_test(unseen_locks)};

    for (guint i = 0; i < G_N_ELEMENTS(scenarios); i++)
        tests[i] = (struct CMUnitTest){
            .name = scenarios[i].name, .test_func = all_faults, .initial_state = (void *)&scenarios[i]};
    return _cmocka_run_group_tests("locks", tests, G_N_ELEMENTS(tests), NULL, NULL);
}
