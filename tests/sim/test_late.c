/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Every call of host A reaches the server late, once: after B has broken A and gone on (C21, P6, P22, F23).
 *
 * A stops right before the call; B sees it silent for its lease, breaks it, and commits or locks what A was at.  Then
 * the call is delivered, by name or by handle as the real one would be, and A dies, learns that it failed, or goes on.
 * Whatever it was, nothing that anybody can see has changed since, and what B holds is still B's.  What is documented
 * as not kept (docs/semantics.md) is in the table of exceptions, and nothing else.
 *
 *   SW_SIM_ONLY="C10 edit/die after/17"   runs one case, and prints what A called
 */

#include "disk.h"

#include "../../src/lease/app_lock.h"
#include "../../src/lease/content_lease.h"
#include "../../src/lease/keeper.h"
#include "../unit/unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#define S G_TIME_SPAN_SECOND
#define TTL (20 * S)
#define NAME "data.bin"
#define OTHER "other.bin"
#define LOCK "x.lock"
#define PRIVATE "out.thread-1-pid-2"
#define BEFORE "0123456789abcdef"
#define FROM_A "bytes of A, all of them"
#define FROM_B "bytes of B"
#define KEY 0xaa
#define HOSTS 3

enum { A, B, C };

typedef struct Run Run;

typedef struct {
    Run *run;
    SimHost *host;
    SwKeeper *keeper;
    gint64 due_us;
    SimProcess *p;
} Member;

typedef struct {
    const char *name;
    const char *old;         /* content of NAME before, or NULL */
    gboolean breaks;         /* A does nothing but break C, which has died and held everything */
    void (*begin)(Run *run); /* on A, before any call is late; or NULL */
    void (*act)(Run *run);   /* on A */
    void (*go_on)(Run *run); /* on B, once A is broken; or NULL */
    void (*end)(Run *run);   /* on B, after all: what it holds is its own to the end; or NULL */
} Scenario;

struct Run {
    Sim *sim;
    const Scenario *scenario;
    Member members[HOSTS];
    char *id; /* of A, while it was not broken; owned */
    SwContentLeases *leases[HOSTS];
    SwContentLease *lease[HOSTS];
    int fd[HOSTS];
    gboolean worked; /* what A did was reported as done */
    gboolean was_late;
    char *before; /* what could be seen when the call was delivered; owned, NULL: never came to that */
};

/* ---- what docs/semantics.md says is not kept */

static const struct {
    const char *scenario, *call, *why;
} exceptions[] = {
    {"C11 append", "pwrite(", "C21: a write in place that arrives late is not undone"},
    {"C11 append", "ftruncate(", "C21: the same, where it would undo one"},
    {"C11 append", "fallocate(", "C21: the same"},
    {"C13 unlink", "unlinkat(" NAME ")", "C13: takes effect at once, when the server hears of it"},
    {"C15 unlink while staged", "unlinkat(" NAME ")", "C13: the same"},
    {"C13 rename", "renameat(" OTHER ", " NAME ", 0)", "C13: the same"},
};

static gboolean is_excepted(const Run *run)
{
    const char *call = sim_port_struck_call(run->members[A].host->port);

    for (guint i = 0; i < G_N_ELEMENTS(exceptions); i++)
        if (strcmp(exceptions[i].scenario, run->scenario->name) == 0 && g_str_has_prefix(call, exceptions[i].call))
            return TRUE;
    return FALSE;
}

/* ---- what can be seen */

static void describe(Run *run, GString *text, const char *below, const char *name)
{
    g_autofree char *path = g_build_filename(run->sim->path, below, name, NULL);
    g_autofree char *link = g_file_read_link(path, NULL);
    g_autofree char *content = NULL;

    /* What a host that is gone has left binds nobody, and shows to nobody: it is swept. */
    if (link && run->id && strstr(link, run->id))
        return;
    if (!link)
        (void)g_file_get_contents(path, &content, NULL, NULL);
    g_string_append_printf(text, "%s/%s%s %s\n", below, name, link ? " ->" : "",
                           link ? link : (content ? content : "(directory)"));
}

static gint by_text(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *visible(Run *run)
{
    static const char *const places[] = {"", ".safewritefs/leases", ".safewritefs/locks"};
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autofree char *path = g_build_filename(run->sim->path, places[i], NULL);
        g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
        DIR *dir = opendir(path);
        struct dirent *entry;

        while (dir && (entry = readdir(dir)))
            if (entry->d_name[0] != '.')
                g_ptr_array_add(names, g_strdup(entry->d_name));
        if (dir)
            (void)closedir(dir);
        g_ptr_array_sort(names, by_text);
        for (guint j = 0; j < names->len; j++)
            describe(run, text, places[i], names->pdata[j]);
    }
    return g_string_free(text, FALSE);
}

/* ---- hosts */

static void happened(gpointer data, SwKeeperWhat what, const char *host_id, int error)
{
    Member *m = data;

    (void)host_id;
    (void)error;
    if (what == SW_KEEPER_REJOINED)
        sw_overlay_fenced(m->host->overlay);
}

static void join(Run *run, guint number)
{
    Member *m = &run->members[number];
    SwKeeperEvents events = {.happened = happened, .data = m};

    *m = (Member){.run = run, .host = sim_host_mounted(run->sim, number + 1)};
    g_assert(m->host);
    m->keeper = sw_keeper_new(m->host->port, m->host->control, TTL, &events);
    m->p = sim_program(m->host);
    run->leases[number] = sw_content_leases_new(m->host->port, m->host->control, run->sim->source);
    run->fd[number] = -1;
}

static gboolean is_there(Run *run, const char *id)
{
    g_autofree char *path = g_build_filename(run->sim->path, ".safewritefs/hosts", id, NULL);

    return g_file_test(path, G_FILE_TEST_IS_DIR);
}

/* Steps the hosts of that set, each when it is due. */
static void run_for(Run *run, guint set, gint64 us)
{
    gint64 until_us = run->sim->world.now_us + us;

    for (;;) {
        Member *next = NULL;

        for (guint i = 0; i < HOSTS; i++) {
            Member *m = &run->members[i];

            if ((set & (1u << i)) && !sim_host_is_dead(m->host) && m->due_us < until_us &&
                (!next || m->due_us < next->due_us))
                next = m;
        }
        if (!next)
            break;
        run->sim->world.now_us = MAX(run->sim->world.now_us, next->due_us);
        next->due_us = MAX(sw_keeper_step(next->keeper), run->sim->world.now_us + 1000);
        (void)sw_overlay_tick(next->host->overlay, NULL, NULL);
    }
    run->sim->world.now_us = MAX(run->sim->world.now_us, until_us);
}

/* ---- what A does */

static int put(Run *run, guint who, const char *name, int flags, const char *text)
{
    return sim_put(run->members[who].host, run->members[who].p, name, flags, text);
}

static void put_new(Run *run)
{
    run->worked = put(run, A, NAME, O_CREAT | O_TRUNC, FROM_A) == 0;
}

static void put_exclusive(Run *run)
{
    run->worked = put(run, A, NAME, O_CREAT | O_EXCL, FROM_A) == 0;
}

static void edit(Run *run)
{
    run->worked = sim_edit(run->members[A].host, run->members[A].p, NAME, "EDIT", 4) == 0;
}

static void append(Run *run)
{
    run->worked = put(run, A, NAME, O_CREAT | O_APPEND, "<A>\n") == 0;
}

static void stage(Run *run, const char *name)
{
    Member *a = &run->members[A];

    run->fd[A] = sim_open(a->host, a->p, name, O_WRONLY | O_CREAT | O_TRUNC);
    if (run->fd[A] >= 0)
        (void)sim_pwrite(a->host, a->p, run->fd[A], FROM_A, 0);
}

static void stage_other(Run *run)
{
    stage(run, OTHER);
}

static void stage_name(Run *run)
{
    stage(run, NAME);
}

static void put_other(Run *run)
{
    if (put(run, A, OTHER, O_CREAT | O_TRUNC, FROM_A) < 0)
        sim_complain(run->sim, "A cannot make %s", OTHER);
}

static void put_private(Run *run)
{
    if (put(run, A, PRIVATE, O_CREAT | O_TRUNC, FROM_A) < 0)
        sim_complain(run->sim, "A cannot make %s", PRIVATE);
}

static void rename_other(Run *run)
{
    run->worked = sim_rename(run->members[A].host, run->members[A].p, OTHER, NAME) == 0;
}

static void rename_private(Run *run)
{
    run->worked = sim_rename(run->members[A].host, run->members[A].p, PRIVATE, NAME) == 0;
}

static void link_staged(Run *run)
{
    run->worked = sim_link(run->members[A].host, run->members[A].p, OTHER, NAME) == 0;
}

static void close_it(Run *run)
{
    if (run->fd[A] >= 0)
        run->worked = sim_close(run->members[A].host, run->members[A].p, run->fd[A]) == 0;
}

static void fsync_it(Run *run)
{
    if (run->fd[A] >= 0)
        (void)sim_fsync(run->members[A].host, run->members[A].p, run->fd[A]);
}

static void kill_writer(Run *run)
{
    sim_exit(run->members[A].host, run->members[A].p, SIGKILL);
}

static void unlink_name(Run *run)
{
    run->worked = sim_unlink(run->members[A].host, run->members[A].p, NAME) == 0;
}

static void take(Run *run, guint who)
{
    SwPredecessor predecessor;
    SwPort *port = run->members[who].host->port;
    int r = sw_content_lease_take(run->leases[who], KEY, NULL, port->now_us(port) + 5 * S, NULL, NULL, &run->lease[who],
                                  &predecessor);

    if (r < 0 && who == B)
        sim_complain(run->sim, "B cannot take the lease: %d", r);
}

static void take_lease(Run *run)
{
    take(run, A);
}

static void intend_and_release(Run *run)
{
    SwLeaseText intent = {.appending = TRUE, .append_length = 4, .file_ino = KEY, .path = NAME};

    if (!run->lease[A])
        return;
    sw_ignore(sw_content_lease_intend(run->lease[A], &intent));
    sw_ignore(sw_content_lease_release(g_steal_pointer(&run->lease[A])));
}

/* ---- locks, of all four kinds */

#define EXCLUSIVE (O_WRONLY | O_CREAT | O_EXCL)

static int lock_as_file(Run *run, guint who)
{
    Member *m = &run->members[who];
    int fd = sim_open(m->host, m->p, LOCK, EXCLUSIVE);

    if (fd < 0)
        return fd;
    (void)sim_write(m->host, m->p, fd, "7\n");
    return sim_close(m->host, m->p, fd);
}

static int lock_as_symlink(Run *run, guint who)
{
    return sim_symlink(run->members[who].host, run->members[who].p, "nowhere", LOCK);
}

static int lock_as_link(Run *run, guint who)
{
    return sim_link(run->members[who].host, run->members[who].p, NAME, LOCK);
}

static int lock_as_directory(Run *run, guint who)
{
    return sim_mkdir(run->members[who].host, run->members[who].p, LOCK);
}

#define LOCK_KIND(kind)                                                                                                \
    static void a_locks_##kind(Run *run)                                                                               \
    {                                                                                                                  \
        (void)lock_as_##kind(run, A);                                                                                  \
    }                                                                                                                  \
    static void b_locks_##kind(Run *run)                                                                               \
    {                                                                                                                  \
        int r = lock_as_##kind(run, B);                                                                                \
                                                                                                                       \
        if (r < 0)                                                                                                     \
            sim_complain(run->sim, "B cannot make the lock: %d", r);                                                   \
    }

LOCK_KIND(file)
LOCK_KIND(symlink)
LOCK_KIND(link)
LOCK_KIND(directory)

static int unlock(Run *run, guint who)
{
    Member *m = &run->members[who];
    int r = sim_unlink(m->host, m->p, LOCK);

    return r == -EISDIR ? sim_rmdir(m->host, m->p, LOCK) : r;
}

static void a_unlocks(Run *run)
{
    (void)unlock(run, A);
}

/* As the kernel does that believes the name for a while (C19). */
static void a_unlocks_unseen(Run *run)
{
    const Member *a = &run->members[A];
    SwCaller caller = sim_caller(a->p);

    (void)!sw_overlay_unlink(a->host->overlay, &caller, sw_overlay_root(a->host->overlay), LOCK);
}

static void a_removes_unseen(Run *run)
{
    const Member *a = &run->members[A];
    SwCaller caller = sim_caller(a->p);

    (void)!sw_overlay_rmdir(a->host->overlay, &caller, sw_overlay_root(a->host->overlay), LOCK);
}

/* A makes it, is taken for dead, and goes on as another: what it then unlinks is not its own any more. */
static void a_loses(Run *run, int (*lock)(Run *run, guint who))
{
    if (lock(run, A) < 0)
        sim_complain(run->sim, "A cannot make the lock");
    run_for(run, 1u << B | 1u << C, 3 * TTL);
    run_for(run, 1u << A | 1u << B | 1u << C, TTL);
    g_free(run->id);
    run->id = g_strdup(sw_control_host_id(run->members[A].host->control));
}

#define LOSES_KIND(kind)                                                                                               \
    static void a_loses_##kind(Run *run)                                                                               \
    {                                                                                                                  \
        a_loses(run, lock_as_##kind);                                                                                  \
    }

LOSES_KIND(file)
LOSES_KIND(symlink)
LOSES_KIND(link)
LOSES_KIND(directory)

static void a_renames_lock(Run *run)
{
    (void)sim_rename(run->members[A].host, run->members[A].p, LOCK, OTHER);
}

static void a_owner_killed(Run *run)
{
    kill_writer(run);
    sim_host_tick(run->members[A].host, 300 * G_TIME_SPAN_MILLISECOND);
}

static void b_unlocks(Run *run)
{
    int r = unlock(run, B);

    if (r < 0 && !is_excepted(run))
        sim_complain(run->sim, "B's lock was not its own to the end: %d", r);
}

/* ---- what B does then */

static void b_puts(Run *run)
{
    int r = put(run, B, NAME, O_CREAT | O_TRUNC, FROM_B);

    if (r < 0)
        sim_complain(run->sim, "B cannot commit: %d", r);
}

static void b_appends(Run *run)
{
    int r = put(run, B, NAME, O_CREAT | O_APPEND, "<B>\n");

    if (r < 0)
        sim_complain(run->sim, "B cannot append: %d", r);
}

static void b_claims(Run *run)
{
    Member *b = &run->members[B];
    g_autofree char *text = NULL;

    run->fd[B] = sim_open(b->host, b->p, NAME, EXCLUSIVE);
    if (run->fd[B] == -EEXIST && sim_get(b->host, NAME, &text) == 0 && g_strcmp0(text, FROM_A) == 0)
        return; /* A had committed before */
    if (run->fd[B] < 0)
        sim_complain(run->sim, "B cannot create exclusively: %d", run->fd[B]);
    else if (sim_write(b->host, b->p, run->fd[B], FROM_B) < 0)
        sim_complain(run->sim, "B cannot write");
}

static void b_commits_claim(Run *run)
{
    int r = run->fd[B] < 0 ? 0 : sim_close(run->members[B].host, run->members[B].p, run->fd[B]);
    g_autofree char *text = NULL;

    if (run->fd[B] >= 0 && (r < 0 || sim_get(run->members[B].host, NAME, &text) < 0 || g_strcmp0(text, FROM_B) != 0))
        sim_complain(run->sim, "B's exclusive create came to %d, \"%s\"", r, text ? text : "(none)");
}

static void b_takes(Run *run)
{
    take(run, B);
}

static void b_releases(Run *run)
{
    int r = run->lease[B] ? sw_content_lease_release(g_steal_pointer(&run->lease[B])) : 0;

    if (r < 0)
        sim_complain(run->sim, "B's lease was not its own to the end: %d", r);
}

/* ---- A breaks C */

/* C holds and has staged something of each kind, and dies. */
static void c_dies(Run *run)
{
    Member *c = &run->members[C];

    if (lock_as_file(run, C) < 0)
        sim_complain(run->sim, "C cannot lock");
    take(run, C);
    run->fd[C] = sim_open(c->host, c->p, NAME, O_WRONLY | O_CREAT | O_TRUNC);
    if (run->fd[C] < 0 || sim_pwrite(c->host, c->p, run->fd[C], "of C", 0) < 0)
        sim_complain(run->sim, "C cannot stage");
    sim_port_kill(c->host->port);
    run_for(run, 1u << A | 1u << B, TTL - 3 * S);
}

static void break_c(Run *run)
{
    run->members[B].due_us = run->sim->world.now_us + 8 * S; /* A comes first */
    run_for(run, 1u << A, 8 * S);
}

static void b_has_all(Run *run)
{
    b_puts(run);
    b_takes(run);
    b_locks_file(run);
}

static void b_ends_all(Run *run)
{
    b_releases(run);
    b_unlocks(run);
}

static const Scenario scenarios[] = {
    {"C9 new", NULL, FALSE, NULL, put_new, b_puts, NULL},
    {"C9 rewrite", BEFORE, FALSE, NULL, put_new, b_puts, NULL},
    {"C9 close of a rewrite", BEFORE, FALSE, stage_name, close_it, b_puts, NULL},
    {"C10 edit", BEFORE, FALSE, NULL, edit, b_puts, NULL},
    {"C11 append", "<old>\n", FALSE, NULL, append, b_appends, NULL},
    {"C12 exclusive", NULL, FALSE, NULL, put_exclusive, b_claims, b_commits_claim},
    {"C5 rename of a staged file", BEFORE, FALSE, stage_other, rename_other, b_puts, NULL},
    {"C5 link of a staged file", NULL, FALSE, stage_other, link_staged, b_puts, NULL},
    {"C13 rename", BEFORE, FALSE, put_other, rename_other, b_puts, NULL},
    {"C13 unlink", BEFORE, FALSE, NULL, unlink_name, b_puts, NULL},
    {"C15 unlink while staged", BEFORE, FALSE, stage_name, unlink_name, b_puts, NULL},
    {"C16 private name", BEFORE, FALSE, put_private, rename_private, b_puts, NULL},
    {"C7 fsync", BEFORE, FALSE, stage_name, fsync_it, b_puts, NULL},
    {"C4 killed writer", BEFORE, FALSE, stage_name, kill_writer, b_puts, NULL},
    {"P11 lease taken", NULL, FALSE, NULL, take_lease, b_takes, b_releases},
    {"P12 P13 lease intended and released", NULL, FALSE, take_lease, intend_and_release, b_takes, b_releases},
    {"C18 make file", NULL, FALSE, NULL, a_locks_file, b_locks_file, b_unlocks},
    {"C18 make symlink", NULL, FALSE, NULL, a_locks_symlink, b_locks_symlink, b_unlocks},
    {"C18 make link", BEFORE, FALSE, NULL, a_locks_link, b_locks_link, b_unlocks},
    {"C18 make directory", NULL, FALSE, NULL, a_locks_directory, b_locks_directory, b_unlocks},
    {"C18 release file", NULL, FALSE, a_locks_file, a_unlocks, b_locks_file, b_unlocks},
    {"C18 release symlink", NULL, FALSE, a_locks_symlink, a_unlocks, b_locks_symlink, b_unlocks},
    {"C18 release link", BEFORE, FALSE, a_locks_link, a_unlocks, b_locks_link, b_unlocks},
    {"C18 release directory", NULL, FALSE, a_locks_directory, a_unlocks, b_locks_directory, b_unlocks},
    {"C21 release of a lost file", NULL, FALSE, a_loses_file, a_unlocks_unseen, b_locks_file, b_unlocks},
    {"C21 release of a lost symlink", NULL, FALSE, a_loses_symlink, a_unlocks_unseen, b_locks_symlink, b_unlocks},
    {"C21 release of a lost link", BEFORE, FALSE, a_loses_link, a_unlocks_unseen, b_locks_link, b_unlocks},
    {"C21 release of a lost directory", NULL, FALSE, a_loses_directory, a_removes_unseen, b_locks_directory, b_unlocks},
    {"C21 rename of a lost lock", NULL, FALSE, a_loses_file, a_renames_lock, b_locks_file, b_unlocks},
    {"C18 rename away", NULL, FALSE, a_locks_file, a_renames_lock, b_locks_file, b_unlocks},
    {"C19 owner killed", NULL, FALSE, a_locks_file, a_owner_killed, b_locks_file, b_unlocks},
    {"C19 owner of a directory killed", NULL, FALSE, a_locks_directory, a_owner_killed, b_locks_directory, b_unlocks},
    {"P21 break of a host", BEFORE, TRUE, c_dies, break_c, b_has_all, b_ends_all},
};

/* ---- a run */

static void a_acts(gpointer data)
{
    Run *run = data;

    run->scenario->act(run);
}

/* A is stopped; B goes on until A is broken, and C if it died, and then does what A was at. */
static void b_goes_on(gpointer data)
{
    Run *run = data;

    if (!sim_port_struck(run->members[A].host->port))
        return;
    run->was_late = TRUE;
    for (guint i = 0; i < 60 && is_there(run, run->id); i++)
        run_for(run, 1u << B | (run->scenario->breaks ? 0 : 1u << C), S);
    if (is_there(run, run->id))
        sim_complain(run->sim, "B did not break A");
    run_for(run, 1u << B, run->scenario->breaks ? TTL : S);
    if (run->scenario->go_on)
        run->scenario->go_on(run);
    run->before = visible(run);
}

static void judge(Run *run)
{
    g_autofree char *after = visible(run);

    if (run->before && strcmp(run->before, after) != 0 && !is_excepted(run) &&
        (!run->worked || sim_host_is_dead(run->members[A].host)))
        sim_complain(run->sim, "%s changed what could be seen, from\n%sto\n%s",
                     sim_port_struck_call(run->members[A].host->port), run->before, after);
    if (run->was_late && run->scenario->end)
        run->scenario->end(run);
}

/* A sees what happened; then all end, and nothing is left but names. */
static void finish(Run *run)
{
    static const char *const names[] = {NAME, OTHER, LOCK, NULL};

    run_for(run, 1u << A | 1u << B | 1u << C, 3 * TTL);
    for (guint i = 0; i < HOSTS; i++) {
        Member *m = &run->members[i];

        if (run->lease[i])
            sw_ignore(sw_content_lease_release(run->lease[i]));
        if (!m->p->gone)
            sim_exit(m->host, m->p, 0);
        sw_content_leases_free(run->leases[i]);
        sw_keeper_free(m->keeper);
        sim_host_free(m->host);
    }
    sim_age(&run->sim->world);
    for (guint i = 0; i < HOSTS; i++)
        sim_host_free(sim_host_mounted(run->sim, i + 1));
    sim_disk_litter(run->sim, names);
}

static void begin(Run *run)
{
    for (guint i = 0; i < HOSTS; i++)
        join(run, i);
    if (run->scenario->old)
        sim_disk_put(run->sim, NAME, run->scenario->old);
    run_for(run, 1u << A | 1u << B | 1u << C, 2 * TTL);
    run->id = g_strdup(sw_control_host_id(run->members[A].host->control));
    if (run->scenario->begin)
        run->scenario->begin(run);
}

static guint64 run_once(const Scenario *scenario, const SimPlan *plan, gboolean verbose, char **ret_complaints)
{
    Run run = {.sim = sim_new(plan->at), .scenario = scenario};
    SimTask tasks[] = {{a_acts, &run}, {b_goes_on, &run}};
    guint64 calls;

    begin(&run);
    sim_port_plan(run.members[A].host->port, plan);
    run.sim->world.sched = sim_sched_new(tasks, G_N_ELEMENTS(tasks));
    sim_sched_run(run.sim->world.sched);
    sim_sched_free(g_steal_pointer(&run.sim->world.sched));
    calls = sim_port_calls(run.members[A].host->port);
    judge(&run);
    if (verbose || run.sim->complaints->len > 0) {
        g_autofree char *trace = sim_port_trace(run.members[A].host->port);

        g_printerr("%s", trace);
    }
    sim_port_plan(run.members[A].host->port, &(SimPlan){0});
    finish(&run);
    *ret_complaints = run.sim->complaints->len > 0 ? g_strdup(run.sim->complaints->str) : NULL;
    g_free(run.before);
    g_free(run.id);
    sim_free(run.sim);
    return calls;
}

static void each_call_late(void **state)
{
    static const SimFault ends[] = {SIM_DIE_AFTER, SIM_LOST, SIM_NONE};
    const Scenario *scenario = *state;
    const char *only = g_getenv("SW_SIM_ONLY");
    g_autofree char *complaints = NULL;
    guint64 calls = run_once(scenario, &(SimPlan){0}, FALSE, &complaints);
    guint n = 0, n_bad = 0;

    if (complaints)
        fail_msg("%s, with nothing late:\n%s", scenario->name, complaints);
    for (guint e = 0; e < G_N_ELEMENTS(ends); e++)
        for (guint64 at = 1; at <= calls; at++) {
            SimPlan plan = {.fault = SIM_PAUSE, .at = at, .then = ends[e], .error = EIO};
            g_autofree char *label = g_strdup_printf("%s/%s/%u", scenario->name, sim_fault_name(ends[e]), (guint)at);

            if (only && strcmp(only, label) != 0)
                continue;
            g_clear_pointer(&complaints, g_free);
            (void)run_once(scenario, &plan, only != NULL, &complaints);
            n++;
            n_bad += complaints != NULL;
            if (complaints)
                print_error("%s:\n%s", label, complaints);
        }
    print_message("%s: %u runs\n", scenario->name, n);
    if (n_bad)
        fail_msg("%s: %u of %u runs went wrong", scenario->name, n_bad, n);
}

/* Does it enter a record, for the removal of that alone? */
static gboolean is_entered(const char *content)
{
    Sim *sim = sim_new(1);
    SimHost *host = sim_host_mounted(sim, 1);
    g_autofree char *trace = NULL;

    sim_disk_put(sim, LOCK, content);
    sim_port_plan(host->port, &(SimPlan){0});
    assert_int_equal(sim_unlink(host, sim_program(host), LOCK), 0);
    trace = sim_port_trace(host->port);
    sim_host_free(host);
    assert_string_equal(sim->complaints->str, "");
    sim_free(sim);
    return strstr(trace, "symlinkat") != NULL;
}

/* C18, L7: the name of a lock is entered by who removes it without holding it; what is too large for one is data. */
static void large_files_are_data(void **state)
{
    g_autofree char *large = g_strnfill(SW_LOCK_SIZE_MAX + 1, 'x');

    (void)state;
    assert_true(is_entered("7"));
    assert_false(is_entered(large));
}

int main(void)
{
    struct CMUnitTest tests[G_N_ELEMENTS(scenarios) + 1] = {[G_N_ELEMENTS(scenarios)] =
                                                                cmocka_unit_test(large_files_are_data)};

    for (guint i = 0; i < G_N_ELEMENTS(scenarios); i++)
        tests[i] = (struct CMUnitTest){
            .name = scenarios[i].name, .test_func = each_call_late, .initial_state = (void *)&scenarios[i]};
    return _cmocka_run_group_tests("late", tests, G_N_ELEMENTS(tests), NULL, NULL);
}
