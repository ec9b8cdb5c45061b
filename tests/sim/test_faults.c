/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Every call that a host makes goes wrong once, in every way; or is its last (C1, C3, C4, C9-C13, C15, C16, C24, C26).
 *
 * After each run: the name has one of the whole versions that it may have, for every host; what was fsynced is in it or
 * in salvage (C7); a restart on the same machine, or a host of that machine, takes away what a dead one left, so that
 * others can create exclusively, edit and append; and after the last unmount nothing is left.
 *
 *   SW_SIM_ONLY="C10 edit/die after/17"   runs one case, and prints what the host called
 */

#include "disk.h"
#include "scenario.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    SimFault fault;
    int error;
    gboolean alone; /* B is on A's machine and there is no restart: B itself has to bury A */
} Way;

static const Way ways[] = {
    {SIM_FAIL, EIO, FALSE},     {SIM_FAIL, ENOSPC, FALSE}, {SIM_LOST, EIO, FALSE},   {SIM_SHORT, 0, FALSE},
    {SIM_DIE_BEFORE, 0, FALSE}, {SIM_DIE_AFTER, 0, FALSE}, {SIM_DIE_HALF, 0, FALSE}, {SIM_DIE_AFTER, 0, TRUE},
};

/* ---- invariants */

/* Each record that was reported as done once, each unsure one at most once, and nothing else. */
static void check_records(SimRun *run, const char *text, const char *who)
{
    g_autofree char *rest = g_strdup(text ? text : "");

    for (guint i = 0; i < run->records->len + run->unsure->len; i++) {
        gboolean sure = i < run->records->len;
        const char *record = sure ? run->records->pdata[i] : run->unsure->pdata[i - run->records->len];
        char *at = strstr(rest, record);

        if (at)
            memmove(at, at + strlen(record), strlen(at + strlen(record)) + 1);
        else if (sure)
            sim_complain(run->sim, "%s: record %s is lost, there is \"%s\"", who, record, text ? text : "(none)");
    }
    if (*rest)
        sim_complain(run->sim, "%s: torn, doubled or unasked-for records \"%s\" in \"%s\"", who, rest, text);
}

static void check_content(SimRun *run, const char *text, const char *who)
{
    g_autofree char *wanted = NULL;

    if (run->appends) {
        check_records(run, text, who);
        return;
    }
    if (!text && run->may_lack)
        return;
    for (guint i = 0; text && i < run->allowed->len; i++)
        if (strcmp(text, run->allowed->pdata[i]) == 0)
            return;
    g_ptr_array_add(run->allowed, NULL);
    wanted = g_strjoinv("\" or \"", (char **)run->allowed->pdata);
    g_ptr_array_set_size(run->allowed, (int)run->allowed->len - 1);
    sim_complain(run->sim, "%s reads \"%s\", expected \"%s\"%s", who, text ? text : "(none)", wanted,
                 run->may_lack ? " or none" : "");
}

/* What `host` reads; it has to be allowed, and what others read before. */
static void check_read(SimRun *run, SimHost *host, const char *who, char **seen)
{
    char *text = NULL;
    int r = sim_get(host, SIM_NAME, &text);

    if (r < 0) {
        sim_complain(run->sim, "%s cannot read: %d", who, r);
        return;
    }
    check_content(run, text, who);
    if (*seen && g_strcmp0(*seen, text) != 0)
        sim_complain(run->sim, "%s reads \"%s\", before it was \"%s\"", who, text ? text : "(none)", *seen);
    g_free(*seen);
    *seen = text;
}

/* Nothing stands in anybody's way. */
static void check_usable(SimRun *run, SimHost *other, const char *seen)
{
    SimProcess *p = sim_program(run->b);
    int r = seen ? sim_edit(run->b, p, SIM_NAME, "!", 0) : sim_put(run->b, p, SIM_NAME, O_CREAT | O_EXCL, "!");
    g_autofree char *text = NULL;

    if (r < 0)
        sim_complain(run->sim, "%s by B afterwards: %d", seen ? "an edit" : "an exclusive create", r);
    r = sim_put(run->b, p, SIM_NAME, O_APPEND, "<last>");
    if (r < 0)
        sim_complain(run->sim, "an append by B afterwards: %d", r);
    r = sim_get(other, SIM_NAME, &text);
    if (r < 0 || !text || *text != '!' || !g_str_has_suffix(text, "<last>"))
        sim_complain(run->sim, "afterwards it reads \"%s\" (%d)", text ? text : "(none)", r);
}

static void check_synced(SimRun *run, const char *seen)
{
    if (run->synced && !(seen && strstr(seen, run->synced)) && !sim_disk_salvaged(run->sim, run->synced))
        sim_complain(run->sim, "what was fsynced is neither committed nor in salvage");
}

/* ---- a run */

static void judge(SimRun *run, gboolean alone, gboolean to_mount)
{
    static const char *const names[] = {SIM_NAME, SIM_OTHER, NULL};
    g_autofree char *seen = NULL;
    SimHost *other = run->a;

    check_read(run, run->b, "B", &seen);
    if (sim_host_is_dead(run->a) || !run->a->overlay) {
        sim_host_free(run->a);
        run->a = other = alone ? run->b : sim_host_mounted(run->sim, 1);
        if (!other)
            return;
    }
    check_read(run, other, other == run->b ? "B again" : "A", &seen);
    check_usable(run, other, seen);
    if (other != run->b)
        sim_host_free(other);
    sim_host_free(run->b);
    run->a = run->b = NULL;
    if (alone || to_mount) { /* what stands in nobody's way is for a later mount to take away */
        sim_age(&run->sim->world);
        sim_host_free(sim_host_mounted(run->sim, 1));
    }
    sim_disk_litter(run->sim, names);
    check_synced(run, seen);
}

/* Returns what the calls of A could suffer. */
static GByteArray *run_once(const SimScenario *scenario, const SimPlan *plan, gboolean alone, gboolean verbose,
                            char **ret_complaints)
{
    Sim *sim = sim_new(plan->at);
    SimRun run = {.sim = sim, .fault = plan->fault, .old = g_strdup(scenario->old)};
    GByteArray *suffers;
    SwPort *port;

    run.allowed = g_ptr_array_new_with_free_func(g_free);
    run.records = g_ptr_array_new_with_free_func(g_free);
    run.unsure = g_ptr_array_new_with_free_func(g_free);
    if (scenario->old)
        sim_disk_put(sim, SIM_NAME, scenario->old);
    run.a = sim_host_new(sim, 1);
    port = run.a->port;
    if (scenario->to_mount)
        sim_port_plan(port, plan);
    if (sim_host_mount(run.a) < 0 && !scenario->to_mount)
        sim_complain(sim, "A cannot mount");
    run.b = sim_host_mounted(sim, alone ? 1 : 2);
    if (!scenario->to_mount)
        sim_port_plan(port, plan);
    if (run.b)
        scenario->act(&run);
    suffers = sim_port_suffers(port);
    if (verbose || sim->complaints->len > 0) {
        g_autofree char *trace = sim_port_trace(port);

        g_printerr("%s", trace);
    }
    sim_port_plan(port, &(SimPlan){0});
    if (run.b)
        judge(&run, alone, scenario->to_mount);
    *ret_complaints = sim->complaints->len > 0 ? g_strdup(sim->complaints->str) : NULL;
    g_ptr_array_unref(run.allowed);
    g_ptr_array_unref(run.records);
    g_ptr_array_unref(run.unsure);
    g_free(run.old);
    sim_free(sim);
    return suffers;
}

static gboolean is_wanted(const char *label)
{
    const char *only = g_getenv("SW_SIM_ONLY");

    return !only || strcmp(only, label) == 0;
}

static gboolean run_case(const SimScenario *scenario, const Way *way, guint64 at)
{
    SimPlan plan = {.fault = way->fault, .at = at, .error = way->error};
    g_autofree char *complaints = NULL;
    g_autofree char *label =
        g_strdup_printf("%s/%s%s%s/%u", scenario->name, sim_fault_name(way->fault),
                        way->error == ENOSPC ? " ENOSPC" : "", way->alone ? " alone" : "", (guint)at);

    if (!is_wanted(label))
        return TRUE;
    g_byte_array_unref(run_once(scenario, &plan, way->alone, g_getenv("SW_SIM_ONLY") != NULL, &complaints));
    if (complaints)
        print_error("%s:\n%s", label, complaints);
    return !complaints;
}

static void all_faults(void **state)
{
    const SimScenario *scenario = *state;
    SimPlan none = {0};
    g_autofree char *complaints = NULL;
    g_autoptr(GByteArray) suffers = run_once(scenario, &none, FALSE, FALSE, &complaints);
    guint n_bad = 0;

    if (complaints)
        fail_msg("%s without any fault:\n%s", scenario->name, complaints);
    for (guint w = 0; w < G_N_ELEMENTS(ways); w++) {
        for (guint64 at = 1; at <= suffers->len; at++) {
            SimPlan plan = {.fault = ways[w].fault, .at = at, .error = ways[w].error};

            if (ways[w].fault == SIM_DIE_HALF && !(suffers->data[at - 1] & 4))
                continue;
            if (sim_plan_harms(&plan, suffers) && !run_case(scenario, &ways[w], at))
                n_bad++;
        }
    }
    if (n_bad)
        fail_msg("%s: %u runs went wrong", scenario->name, n_bad);
}

int main(void)
{
    struct CMUnitTest *tests = g_new0(struct CMUnitTest, sim_n_scenarios);
    int r;

    for (guint i = 0; i < sim_n_scenarios; i++)
        tests[i] = (struct CMUnitTest){
            .name = sim_scenarios[i].name, .test_func = all_faults, .initial_state = (void *)&sim_scenarios[i]};
    if (g_getenv("SW_SIM_TEST"))
        cmocka_set_test_filter(g_getenv("SW_SIM_TEST"));
    r = _cmocka_run_group_tests("faults", tests, sim_n_scenarios, NULL, NULL);
    g_free(tests);
    return r;
}
