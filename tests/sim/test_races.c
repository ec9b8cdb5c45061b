/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Two hosts, one name: what B does happens in the middle of what A does, before each of A's calls in turn (C1, C2, C9,
 * C10, C11, C12, C15).  B goes first until it has ended, or waits for a lease of A.
 */

#include "disk.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define NAME "data.bin"
#define BEFORE "0123456789abcdef"
#define REWRITTEN "a new and longer content, all of it"
#define FEW_CALLS 8 /* of A between the two times B goes first */
#define NEWEST "the newest, which came last"

typedef struct {
    Sim *sim;
    SimHost *host;
    int (*act)(SimHost *host, SimProcess *process);
    int result;
    char *text; /* owned: what it read */
} Side;

typedef struct {
    const char *name;
    const char *old;
    int (*a)(SimHost *host, SimProcess *process);
    int (*b)(SimHost *host, SimProcess *process);
    /* Complains when results and the content in the end do not go together. */
    void (*check)(Sim *sim, int a, int b, const char *text);
    const char *reads[3]; /* what B may read, when it reads; NULL at the end */
} Race;

/* ---- what they do */

static int edits(SimHost *host, SimProcess *process)
{
    return sim_edit(host, process, NAME, "EDIT", 4);
}

static int edits_too(SimHost *host, SimProcess *process)
{
    return sim_edit(host, process, NAME, "other", 10);
}

static int rewrites(SimHost *host, SimProcess *process)
{
    return sim_put(host, process, NAME, O_CREAT | O_TRUNC, REWRITTEN);
}

/* Twice, and the other side goes on in between. */
static int rewrites_twice(SimHost *host, SimProcess *process)
{
    int r = sim_put(host, process, NAME, O_CREAT | O_TRUNC, REWRITTEN);

    if (host->sim->world.sched)
        sim_sched_pass(host->sim->world.sched, -1);
    return r < 0 ? r : sim_put(host, process, NAME, O_CREAT | O_TRUNC, NEWEST);
}

static int appends(SimHost *host, SimProcess *process)
{
    return sim_put(host, process, NAME, O_CREAT | O_APPEND, "<A>");
}

static int appends_too(SimHost *host, SimProcess *process)
{
    return sim_put(host, process, NAME, O_CREAT | O_APPEND, "<B>");
}

static int makes(SimHost *host, SimProcess *process)
{
    return sim_put(host, process, NAME, O_CREAT | O_EXCL, "A's");
}

static int makes_too(SimHost *host, SimProcess *process)
{
    return sim_put(host, process, NAME, O_CREAT | O_EXCL, "B's");
}

static int removes(SimHost *host, SimProcess *process)
{
    return sim_unlink(host, process, NAME);
}

static int renames(SimHost *host, SimProcess *process)
{
    int fd = sim_open(host, process, "temporary", O_WRONLY | O_CREAT | O_TRUNC);
    int r = fd;

    if (fd >= 0) {
        r = (int)sim_write(host, process, fd, REWRITTEN);
        if (r >= 0)
            r = sim_rename(host, process, "temporary", NAME);
        (void)sim_close(host, process, fd);
    }
    return r;
}

/* ---- how it may end */

static void both(Sim *sim, int a, int b, const char *text, const char *const *allowed)
{
    if (a < 0 || b < 0)
        sim_complain(sim, "results %d and %d", a, b);
    for (; *allowed; allowed++)
        if (g_strcmp0(*allowed, text) == 0)
            return;
    sim_complain(sim, "in the end it reads \"%s\"", text ? text : "(none)");
}

static void both_edits(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){"0123EDIT89otherf", NULL});
}

static void rewritten_or_edited(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){REWRITTEN, "a neEDITd longer content, all of it", NULL});
}

static void newest_or_edited(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){NEWEST, "the EDITst, which came last", NULL});
}

static void rewritten(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){REWRITTEN, NULL});
}

static void edited(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){"0123EDIT89abcdef", NULL});
}

static void both_records(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){BEFORE "<A><B>", BEFORE "<B><A>", NULL});
}

static void both_first_records(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){"<A><B>", "<B><A>", NULL});
}

static void edited_and_appended(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){"0123EDIT89abcdef<B>", NULL});
}

static void appended_and_edited(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){"0123456789otherf<A>", NULL});
}

static void rewritten_or_appended(Sim *sim, int a, int b, const char *text)
{
    both(sim, a, b, text, (const char *const[]){REWRITTEN, REWRITTEN "<A>", NULL});
}

static void one_maker(Sim *sim, int a, int b, const char *text)
{
    if ((a == 0) == (b == 0) || (a < 0 && a != -EEXIST) || (b < 0 && b != -EEXIST))
        sim_complain(sim, "exclusive creates returned %d and %d", a, b);
    if (g_strcmp0(text, a == 0 ? "A's" : "B's") != 0)
        sim_complain(sim, "A %d, B %d, but it reads \"%s\"", a, b, text ? text : "(none)");
}

/* An edit never creates anew what was removed. */
static void removed(Sim *sim, int a, int b, const char *text)
{
    if (b < 0 || (a < 0 && a != -ESTALE && a != -ENOENT) || text)
        sim_complain(sim, "edit %d, unlink %d, \"%s\"", a, b, text ? text : "(none)");
}

static void removed_or_rewritten(Sim *sim, int a, int b, const char *text)
{
    if (a < 0 || b < 0 || (text && strcmp(text, REWRITTEN) != 0))
        sim_complain(sim, "rewrite %d, unlink %d, \"%s\"", a, b, text ? text : "(none)");
}

static const Race races[] = {
    {"C10 edit and edit", BEFORE, edits, edits_too, both_edits, {NULL}},
    {"C10 edit and rewrite", BEFORE, edits, rewrites, rewritten_or_edited, {NULL}},
    {"C10 rewrite and edit", BEFORE, rewrites, edits, rewritten_or_edited, {NULL}},
    {"C10 edit and append", BEFORE, edits, appends_too, edited_and_appended, {NULL}},
    {"C11 append and edit", BEFORE, appends, edits_too, appended_and_edited, {NULL}},
    {"C11 append and append", BEFORE, appends, appends_too, both_records, {NULL}},
    {"C11 append and append, new", NULL, appends, appends_too, both_first_records, {NULL}},
    {"C11 append and rewrite", BEFORE, appends, rewrites, rewritten_or_appended, {NULL}},
    {"C12 two exclusive creates", NULL, makes, makes_too, one_maker, {NULL}},
    {"C15 edit and unlink", BEFORE, edits, removes, removed, {NULL}},
    {"C15 rewrite and unlink", BEFORE, rewrites, removes, removed_or_rewritten, {NULL}},
    {"C9 two rewrites", BEFORE, rewrites, rewrites, rewritten, {NULL}},
    {"C1 rewrite and read", BEFORE, rewrites, NULL, rewritten, {BEFORE, REWRITTEN, NULL}},
    {"C1 edit and read", BEFORE, edits, NULL, edited, {BEFORE, "0123EDIT89abcdef", NULL}},
    {"C1 rename and read", BEFORE, renames, NULL, rewritten, {BEFORE, REWRITTEN, NULL}},
};

/* ---- a run */

static void run_side(gpointer data)
{
    Side *side = data;

    if (side->act) {
        SimProcess *process = sim_program(side->host);

        side->result = side->act(side->host, process);
        sim_exit(side->host, process, 0);
    } else {
        side->result = sim_get(side->host, NAME, &side->text);
    }
}

static void check_read(Sim *sim, const Race *race, const Side *b)
{
    for (guint i = 0; race->reads[i]; i++)
        if (g_strcmp0(race->reads[i], b->text) == 0)
            return;
    if (race->reads[0])
        sim_complain(sim, "B reads \"%s\" (%d)", b->text ? b->text : "(none)", b->result);
}

static void check_end(Sim *sim, const Race *race, const Side *a, const Side *b)
{
    static const char *const names[] = {NAME, NULL};
    char *of_a = NULL, *of_b = NULL;

    if (sim_get(a->host, NAME, &of_a) < 0 || sim_get(b->host, NAME, &of_b) < 0 || g_strcmp0(of_a, of_b) != 0)
        sim_complain(sim, "A reads \"%s\", B \"%s\"", of_a ? of_a : "(none)", of_b ? of_b : "(none)");
    race->check(sim, a->result, b->result, of_a);
    g_free(of_a);
    g_free(of_b);
    sim_host_free(a->host);
    sim_host_free(b->host);
    sim_disk_litter(sim, names);
}

/* B goes first before A's call `at`, and a second time before the call `again`.  The number of A's calls; 0 after a
 * complaint. */
static guint64 race_once(const Race *race, guint64 at, guint64 again)
{
    Sim *sim = sim_new(at);
    Side a = {.sim = sim, .act = race->a}, b = {.sim = sim, .act = race->b};
    SimTask tasks[2] = {{run_side, &a}, {run_side, &b}};
    SimSched *sched = sim_sched_new(tasks, 2);
    guint64 calls;

    if (race->old)
        sim_disk_put(sim, NAME, race->old);
    a.host = sim_host_mounted(sim, 1);
    b.host = sim_host_mounted(sim, 2);
    sim_port_plan(a.host->port, &(SimPlan){.fault = SIM_PAUSE, .at = at, .again = again});
    sim->world.sched = sched;
    sim_sched_run(sched);
    sim->world.sched = NULL;
    calls = sim_port_calls(a.host->port);
    if (at)
        check_read(sim, race, &b);
    check_end(sim, race, &a, &b);
    if (sim->complaints->len > 0) {
        print_error("%s, before A's calls %u and %u:\n%s", race->name, (guint)at, (guint)again, sim->complaints->str);
        calls = 0;
    }
    g_free(b.text);
    sim_sched_free(sched);
    sim_free(sim);
    return calls;
}

static void race_everywhere(void **state)
{
    const Race *race = *state;
    guint64 calls = race_once(race, 0, 0);
    guint n_bad = 0;

    assert_true(calls > 0);
    for (guint64 at = 1; at <= calls; at++)
        n_bad += race_once(race, at, 0) == 0;
    if (n_bad)
        fail_msg("%s: %u runs went wrong", race->name, n_bad);
}

/* C9, C10: rewriters come before any two calls of an editor, who puts back what he displaced: the last one wins. */
static void edit_among_rewriters(void **state)
{
    static const Race race = {"C10 edit and two rewrites", BEFORE, edits, rewrites_twice, newest_or_edited, {NULL}};
    guint64 calls = race_once(&race, 0, 0);
    guint n_bad = 0;

    (void)state;
    assert_true(calls > 0);
    for (guint64 at = 1; at <= calls; at++)
        for (guint64 again = at + 1; again <= MIN(at + FEW_CALLS, calls + FEW_CALLS); again++)
            n_bad += race_once(&race, at, again) == 0;
    if (n_bad)
        fail_msg("%u runs went wrong", n_bad);
}

int main(void)
{
    struct CMUnitTest tests[G_N_ELEMENTS(races) + 1];

    for (guint i = 0; i < G_N_ELEMENTS(races); i++)
        tests[i] = (struct CMUnitTest){
            .name = races[i].name, .test_func = race_everywhere, .initial_state = (void *)&races[i]};
    tests[G_N_ELEMENTS(races)] = (struct CMUnitTest)cmocka_unit_test(edit_among_rewriters);
    return cmocka_run_group_tests_name("races", tests, NULL, NULL);
}
