/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Every call that host A makes for a file lock goes wrong once, in every way, or is its last (C6, C22, C24; K1 to K9).
 *
 * While A's program has the lock, and A lives, B does not get it.  Afterwards B gets it, the name has a content that it
 * may have, and after the last unmount no carrier is left.
 *
 *   SW_SIM_ONLY="C22 in place/die after/7"   runs one case, and prints what the host called
 */

#include "disk.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#define NAME "data.bin"
#define OTHER "other.bin"
#define IDLE_US (21 * G_TIME_SPAN_SECOND) /* over what a carrier may be idle, and over a lease */

typedef struct {
    Sim *sim;
    SimHost *a, *b;
    SimProcess *p; /* the program on A */
} Run;

typedef struct {
    const char *name;
    void (*act)(Run *run);
} Scenario;

typedef struct {
    SimFault fault;
    int error;
} Way;

static const Way ways[] = {
    {SIM_FAIL, EIO}, {SIM_FAIL, ENOSPC}, {SIM_LOST, EIO}, {SIM_DIE_BEFORE, 0}, {SIM_DIE_AFTER, 0}};

/* B must not have it while A's program does. */
static void contend(Run *run, const char *name)
{
    SimProcess *q = sim_program(run->b);
    int fd = sim_open(run->b, q, name, O_RDWR | O_CREAT);
    int r = fd < 0 ? fd : sim_flock(run->b, q, fd, SW_RANGE_READ);

    if (!sim_host_is_dead(run->a) && r != -EAGAIN)
        sim_complain(run->sim, "B's lock beside A's: %d", r);
    sim_exit(run->b, q, 0);
}

/* The descriptor of a lock that A's program has, or -1. */
static int locked(Run *run, int flags)
{
    int fd = sim_open(run->a, run->p, NAME, flags);

    return fd >= 0 && sim_flock(run->a, run->p, fd, SW_RANGE_WRITE) == 0 ? fd : -1;
}

static void in_place(Run *run)
{
    int fd = locked(run, O_RDWR);

    if (fd < 0)
        return;
    (void)sim_pwrite(run->a, run->p, fd, "new", 0);
    contend(run, NAME);
    (void)sim_flock(run->a, run->p, fd, SW_RANGE_NONE);
    (void)sim_close(run->a, run->p, fd);
}

static void of_a_new_file(Run *run)
{
    int fd = sim_open(run->a, run->p, OTHER, O_RDWR | O_CREAT);

    if (fd < 0 || sim_flock(run->a, run->p, fd, SW_RANGE_WRITE) < 0)
        return;
    contend(run, OTHER);
    (void)sim_close(run->a, run->p, fd);
    if (!sim_host_is_dead(run->a))
        (void)sim_unlink(run->a, run->p, OTHER);
}

static void staged(Run *run)
{
    int fd = locked(run, O_RDWR | O_TRUNC);

    if (fd < 0)
        return;
    (void)sim_write(run->a, run->p, fd, "new old");
    contend(run, NAME);
    (void)sim_flock(run->a, run->p, fd, SW_RANGE_NONE);
    (void)sim_close(run->a, run->p, fd);
}

static void replaced(Run *run)
{
    int fd = locked(run, O_RDONLY);

    if (fd < 0)
        return;
    if (sim_put(run->a, run->p, NAME, O_WRONLY | O_TRUNC, "new old") == 0)
        contend(run, NAME);
    (void)sim_close(run->a, run->p, fd);
}

static void renamed(Run *run)
{
    int fd = locked(run, O_RDONLY);

    if (fd < 0)
        return;
    if (sim_rename(run->a, run->p, NAME, OTHER) == 0 && !sim_port_struck(run->a->port))
        contend(run, OTHER);
    (void)sim_close(run->a, run->p, fd);
    if (!sim_host_is_dead(run->a))
        (void)sim_rename(run->a, run->p, OTHER, NAME);
}

static const Scenario scenarios[] = {
    {"C22 in place", in_place}, {"C22 of a new file", of_a_new_file},
    {"C6 staged", staged},      {"C22 of a version", replaced},
    {"C22 renamed", renamed},
};

static gboolean is_allowed(const char *text)
{
    return !text || strcmp(text, "old old") == 0 || strcmp(text, "new old") == 0;
}

static void check_free(Run *run)
{
    static const char *const names[] = {NAME, OTHER};

    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        SimProcess *q = sim_program(run->b);
        int fd = sim_open(run->b, q, names[i], O_RDWR | O_CREAT);
        int r = fd < 0 ? fd : sim_flock(run->b, q, fd, SW_RANGE_WRITE);
        g_autofree char *text = NULL;

        if (r < 0)
            sim_complain(run->sim, "B cannot lock %s afterwards: %d", names[i], r);
        sim_exit(run->b, q, 0);
        if (i == 0 && (sim_get(run->b, NAME, &text) < 0 || (!is_allowed(text) && *text)))
            sim_complain(run->sim, "%s has \"%s\"", NAME, text ? text : "?");
    }
}

static void judge(Run *run)
{
    static const char *const names[] = {NAME, OTHER, NULL};

    if (sim_host_is_dead(run->a)) {
        sim_host_free(run->a);
        run->a = sim_host_mounted(run->sim, 1);
    } else {
        sim_exit(run->a, run->p, SIGKILL);
        sim_host_tick(run->a, IDLE_US);
        sim_host_tick(run->a, IDLE_US);
    }
    check_free(run);
    sim_host_free(run->a);
    sim_host_free(run->b);
    sim_age(&run->sim->world);
    sim_host_free(sim_host_mounted(run->sim, 1));
    sim_disk_litter(run->sim, names);
}

static GByteArray *run_once(const Scenario *scenario, const SimPlan *plan, gboolean verbose, char **ret_complaints)
{
    Run run = {.sim = sim_new(plan->at)};
    GByteArray *suffers;

    sim_disk_put(run.sim, NAME, "old old");
    run.b = sim_host_mounted(run.sim, 2);
    run.a = sim_host_mounted(run.sim, 1);
    run.p = sim_program(run.a);
    sim_port_plan(run.a->port, plan);
    scenario->act(&run);
    suffers = sim_port_suffers(run.a->port);
    if (verbose || run.sim->complaints->len > 0) {
        g_autofree char *trace = sim_port_trace(run.a->port);

        g_printerr("%s", trace);
    }
    sim_port_plan(run.a->port, &(SimPlan){0});
    judge(&run);
    *ret_complaints = run.sim->complaints->len > 0 ? g_strdup(run.sim->complaints->str) : NULL;
    sim_free(run.sim);
    return suffers;
}

static gboolean run_case(const Scenario *scenario, const Way *way, guint64 at)
{
    SimPlan plan = {.fault = way->fault, .at = at, .error = way->error};
    const char *only = g_getenv("SW_SIM_ONLY");
    g_autofree char *complaints = NULL;
    g_autofree char *label = g_strdup_printf("%s/%s%s/%u", scenario->name, sim_fault_name(way->fault),
                                             way->error == ENOSPC ? " ENOSPC" : "", (guint)at);

    if (only && strcmp(only, label) != 0)
        return TRUE;
    g_byte_array_unref(run_once(scenario, &plan, only != NULL, &complaints));
    if (complaints)
        print_error("%s:\n%s", label, complaints);
    return !complaints;
}

static void all_faults(void **state)
{
    const Scenario *scenario = *state;
    g_autofree char *complaints = NULL;
    g_autoptr(GByteArray) suffers = run_once(scenario, &(SimPlan){0}, FALSE, &complaints);
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

int main(void)
{
    struct CMUnitTest tests[G_N_ELEMENTS(scenarios)];

    for (guint i = 0; i < G_N_ELEMENTS(scenarios); i++)
        tests[i] = (struct CMUnitTest){
            .name = scenarios[i].name, .test_func = all_faults, .initial_state = (void *)&scenarios[i]};
    return _cmocka_run_group_tests("file_locks", tests, G_N_ELEMENTS(scenarios), NULL, NULL);
}
