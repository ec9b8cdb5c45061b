/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Two programs of one family, one name: while the child opens it, the parent opens it and closes it again, each at any
 * moment of that (C8, C15).  The stage that the child is led to must not end before the child has come, nor be left
 * when it has gone.
 */

#include "disk.h"

#include "../unit/unit.h"

#include <fcntl.h>
#include <string.h>

#define NAME "data.bin"
#define BEFORE "before"
#define AFTER "after.."
#define MOMENTS_MAX 100

/* The overlay acts as somebody, and asks who somebody is, with none of its locks held while it opens a file. */
static struct {
    SimHost *host;
    SimProcess *parent;
    int (*become)(SwPort *port, const SwCred *cred);
    int (*process)(SwPort *port, pid_t tid, SwProcess *ret_process);
    int (*thread_group)(SwPort *port, pid_t tid, pid_t *ret_tgid);
    gboolean watching;
    guint moment, opens_at, closes_at; /* 0: before the child begins */
    int fd;                            /* of the parent; -1: not opened yet */
    gboolean closed;
} between;

typedef struct {
    const char *name;
    const char *before; /* what the file has; NULL: there is none */
    int flags;          /* of the child */
    gboolean locks;
} Case;

static const Case cases[] = {
    {"write", BEFORE, O_RDWR, FALSE},
    {"lock and write", BEFORE, O_RDWR, TRUE},
    {"make and write", NULL, O_RDWR | O_CREAT, FALSE},
    {"make, lock and write", NULL, O_RDWR | O_CREAT, TRUE},
    {"read", BEFORE, O_RDONLY, FALSE},
};

static void parent_acts(guint moment)
{
    if (between.fd < 0 && moment >= between.opens_at)
        between.fd = sim_open(between.host, between.parent, NAME, O_RDWR);
    if (between.fd >= 0 && !between.closed && moment >= between.closes_at) {
        between.closed = TRUE;
        (void)sim_close(between.host, between.parent, between.fd);
    }
}

static void watch(void)
{
    if (!between.watching)
        return;
    between.watching = FALSE;
    parent_acts(++between.moment);
    between.watching = TRUE;
}

static int become(SwPort *port, const SwCred *cred)
{
    watch();
    return between.become(port, cred);
}

static int process(SwPort *port, pid_t tid, SwProcess *ret_process)
{
    watch();
    return between.process(port, tid, ret_process);
}

static int thread_group(SwPort *port, pid_t tid, pid_t *ret_tgid)
{
    watch();
    return between.thread_group(port, tid, ret_tgid);
}

static void begin(Sim *sim, const Case *c, guint opens_at, guint closes_at)
{
    if (c->before)
        sim_disk_put(sim, NAME, c->before);
    memset(&between, 0, sizeof between);
    between.host = sim_host_mounted(sim, 1);
    between.parent = sim_program(between.host);
    between.opens_at = opens_at;
    between.closes_at = closes_at;
    between.fd = -1;
    between.become = between.host->port->become;
    between.process = between.host->port->process;
    between.thread_group = between.host->port->thread_group;
    between.host->port->become = become;
    between.host->port->process = process;
    between.host->port->thread_group = thread_group;
}

static int child_writes(const Case *c, SimProcess *child, int fd)
{
    int r = c->locks ? sim_flock(between.host, child, fd, SW_RANGE_WRITE) : 0;
    ssize_t n = r < 0 ? r : sim_write(between.host, child, fd, AFTER);

    return n < 0 ? (int)n : 0;
}

static void child_reads(Sim *sim, SimProcess *child, int fd)
{
    g_autofree char *text = NULL;

    if (sim_read(between.host, fd, child, &text) < 0 || strcmp(text, BEFORE) != 0)
        sim_complain(sim, "the child read \"%s\"", text ? text : "?");
}

/* The family has nothing of its own at the name any more: it sees what others do. */
static void look_around(Sim *sim, SimProcess *child, const char *expected)
{
    SimProcess *stranger = sim_program(between.host);
    g_autofree char *text = NULL, *seen = NULL;
    int fd, r;

    if (sim_get(between.host, NAME, &text) < 0 || g_strcmp0(text, expected) != 0)
        sim_complain(sim, "in the end it reads \"%s\"", text ? text : "?");
    r = sim_put(between.host, stranger, NAME, O_TRUNC | O_CREAT, "new");
    fd = sim_open(between.host, child, NAME, O_RDONLY);
    if (r < 0 || fd < 0 || sim_read(between.host, fd, child, &seen) < 0 || strcmp(seen, "new") != 0)
        sim_complain(sim, "put %d, open %d, and the family sees \"%s\"", r, fd, seen ? seen : "?");
    sim_exit(between.host, stranger, 0);
}

static void act(Sim *sim, const Case *c)
{
    SimProcess *child = sim_fork(between.host, between.parent);
    gboolean writes = (c->flags & O_ACCMODE) != O_RDONLY;
    int fd, r = 0;

    parent_acts(0);
    between.watching = TRUE;
    fd = sim_open(between.host, child, NAME, c->flags);
    between.watching = FALSE;
    parent_acts(MOMENTS_MAX);
    if (fd < 0) {
        sim_complain(sim, "the child's open: %d", fd);
        return;
    }
    if (writes)
        r = child_writes(c, child, fd);
    else
        child_reads(sim, child, fd);
    if (r == 0)
        r = sim_close(between.host, child, fd);
    if (r < 0)
        sim_complain(sim, "the child's write: %d", r);
    look_around(sim, child, writes ? AFTER : BEFORE);
    sim_exit(between.host, child, 0);
}

/* FALSE: it went wrong.  *ret_moments: how many there are. */
static gboolean run_once(const Case *c, guint opens_at, guint closes_at, guint *ret_moments)
{
    Sim *sim = sim_new(1);
    gboolean good;

    begin(sim, c, opens_at, closes_at);
    act(sim, c);
    sim_exit(between.host, between.parent, 0);
    sim_host_free(between.host);
    good = sim->complaints->len == 0;
    if (!good)
        print_error("%s, opened at %u and closed at %u:\n%s", c->name, opens_at, closes_at, sim->complaints->str);
    *ret_moments = between.moment;
    sim_free(sim);
    return good;
}

static void all_moments(void **state)
{
    const Case *c = *state;
    guint n_bad = 0, n = 0, moments = MOMENTS_MAX, passed;

    for (guint opens_at = 0; opens_at <= moments; opens_at++) {
        guint last = opens_at;

        for (guint closes_at = opens_at; closes_at <= last; closes_at++) {
            n++;
            n_bad += !run_once(c, opens_at, closes_at, &passed);
            last = MAX(passed, opens_at);
        }
        moments = MIN(moments, last + 1);
    }
    print_message("%s: %u runs\n", c->name, n);
    if (n_bad)
        fail_msg("%s: %u of %u runs went wrong", c->name, n_bad, n);
}

int main(void)
{
    struct CMUnitTest tests[G_N_ELEMENTS(cases)];

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++)
        tests[i] =
            (struct CMUnitTest){.name = cases[i].name, .test_func = all_moments, .initial_state = (void *)&cases[i]};
    return _cmocka_run_group_tests("joins", tests, G_N_ELEMENTS(cases), NULL, NULL);
}
