/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "scenario.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define BEFORE "0123456789abcdef"
#define FRESH "a new and longer content, all of it"

static void allow(SimRun *run, const char *content)
{
    if (content)
        g_ptr_array_add(run->allowed, g_strdup(content));
    else
        run->may_lack = TRUE;
}

static void now_has(SimRun *run, const char *content)
{
    g_free(run->old);
    run->old = g_strdup(content);
}

/* `base` with `text` at `offset`. */
static char *patched(const char *base, const char *text, gsize offset)
{
    GString *result = g_string_new(base);

    while (result->len < offset + strlen(text))
        g_string_append_c(result, '\0');
    memcpy(result->str + offset, text, strlen(text));
    return g_string_free(result, FALSE);
}

/* The call that was to bring `fresh` about returned `r`; `was_dead`: the host died before it. */
static void conclude(SimRun *run, int r, gboolean was_dead, const char *fresh)
{
    if (r == 0) {
        allow(run, fresh);
        return;
    }
    allow(run, run->old);
    if (!was_dead && (sim_host_is_dead(run->a) || run->fault == SIM_LOST))
        allow(run, fresh);
}

/* What a program does with a descriptor: write, fsync perhaps, close; and it reports the first error. */
static void write_and_close(SimRun *run, SimProcess *p, int fd, const char *text, off_t offset, gboolean sync,
                            const char *fresh)
{
    ssize_t n = sim_pwrite(run->a, p, fd, text, offset);
    gboolean was_dead;
    int r;

    if (n >= 0 && sync && sim_fsync(run->a, p, fd) == 0)
        run->synced = text;
    was_dead = sim_host_is_dead(run->a);
    r = sim_close(run->a, p, fd);
    if (n < 0)
        allow(run, run->old);
    else
        conclude(run, r, was_dead, fresh);
}

static void make(SimRun *run, const char *name, int flags, gboolean sync)
{
    SimProcess *p = sim_program(run->a);
    int fd = sim_open(run->a, p, name, flags);

    if (fd >= 0)
        write_and_close(run, p, fd, FRESH, 0, sync, FRESH);
    else
        allow(run, run->old);
    sim_exit(run->a, p, 0);
}

static void new_file(SimRun *run)
{
    make(run, SIM_NAME, O_WRONLY | O_CREAT | O_TRUNC, FALSE);
}

static void rewrite(SimRun *run)
{
    make(run, SIM_NAME, O_WRONLY | O_CREAT | O_TRUNC, TRUE);
}

static void exclusive(SimRun *run)
{
    make(run, SIM_NAME, O_WRONLY | O_CREAT | O_EXCL, TRUE);
}

/* While A holds the name, B must not get it; and the other way round. */
static void exclusive_contended(SimRun *run)
{
    SimProcess *p = sim_program(run->a), *q = sim_program(run->b);
    int fd = sim_open(run->a, p, SIM_NAME, O_WRONLY | O_CREAT | O_EXCL);
    int r = sim_put(run->b, q, SIM_NAME, O_CREAT | O_EXCL, "B's");

    if (fd >= 0 && r != -EEXIST && !sim_host_is_dead(run->a))
        sim_complain(run->sim, "B's O_EXCL create beside A's returned %d", r);
    if (fd < 0 && r < 0 && !sim_host_is_dead(run->a) && run->fault != SIM_LOST)
        sim_complain(run->sim, "nobody could create exclusively: A %d, B %d", fd, r);
    if (r == 0)
        now_has(run, "B's");
    if (fd >= 0)
        write_and_close(run, p, fd, FRESH, 0, FALSE, FRESH);
    else
        allow(run, run->old);
    sim_exit(run->a, p, 0);
}

static void edit_with(SimRun *run, void (*meanwhile)(SimRun *run), gboolean sync)
{
    SimProcess *p = sim_program(run->a);
    int fd = sim_open(run->a, p, SIM_NAME, O_RDWR);

    if (meanwhile)
        meanwhile(run);
    if (fd >= 0) {
        g_autofree char *fresh = patched(run->old, "EDIT", 4);

        write_and_close(run, p, fd, "EDIT", 4, sync, fresh);
    } else {
        allow(run, run->old);
    }
    sim_exit(run->a, p, 0);
}

static void edit(SimRun *run)
{
    edit_with(run, NULL, TRUE);
}

static void others_edit(SimRun *run)
{
    g_autofree char *fresh = patched(run->old, "other", 10);

    if (sim_edit(run->b, sim_program(run->b), SIM_NAME, "other", 10) < 0)
        sim_complain(run->sim, "B's edit beside A's failed");
    now_has(run, fresh);
}

static void edit_beside_edit(SimRun *run)
{
    edit_with(run, others_edit, FALSE);
}

static void others_rewrite(SimRun *run)
{
    if (sim_put(run->b, sim_program(run->b), SIM_NAME, O_TRUNC, "B's own new version") < 0)
        sim_complain(run->sim, "B's rewrite beside A's edit failed");
    now_has(run, "B's own new version");
}

static void edit_beside_rewrite(SimRun *run)
{
    edit_with(run, others_rewrite, FALSE);
}

/* ---- appends */

static void append(SimRun *run, SimHost *host, SimProcess *p, int fd, const char *record)
{
    gboolean was_dead = sim_host_is_dead(host);
    ssize_t n = sim_write(host, p, fd, record);

    if (n > 0)
        g_ptr_array_add(run->records, g_strdup(record));
    else if (host == run->a && !was_dead && (sim_host_is_dead(host) || run->fault == SIM_LOST))
        g_ptr_array_add(run->unsure, g_strdup(record));
}

static void appends(SimRun *run)
{
    SimProcess *p = sim_program(run->a), *q = sim_program(run->b);
    int fd = sim_open(run->a, p, SIM_NAME, O_WRONLY | O_CREAT | O_APPEND);
    int other = sim_open(run->b, q, SIM_NAME, O_WRONLY | O_CREAT | O_APPEND);

    run->appends = TRUE;
    if (run->old)
        g_ptr_array_add(run->records, g_strdup(run->old));
    if (fd >= 0)
        append(run, run->a, p, fd, "<first of A>\n");
    if (other < 0)
        sim_complain(run->sim, "B cannot append: %d", other);
    else if (!sim_host_is_dead(run->a) || run->b->machine == run->a->machine)
        append(run, run->b, q, other, "<the one of B>\n");
    if (fd >= 0)
        append(run, run->a, p, fd, "<second of A>\n");
    sim_exit(run->b, q, 0);
    sim_exit(run->a, p, 0);
}

static SimRun *overtaken; /* by B, right before A's first try for a lease */

static int symlinkat_overtaken(SwPort *port, const char *target, int dirfd, const char *name)
{
    SimRun *run = g_steal_pointer(&overtaken);

    run->a->port->symlinkat = run->symlinkat;
    if (sim_put(run->b, sim_program(run->b), SIM_NAME, O_APPEND, "<B>\n") == 0)
        g_ptr_array_add(run->records, g_strdup("<B>\n"));
    else
        sim_complain(run->sim, "B's append beside A's failed");
    return port->symlinkat(port, target, dirfd, name);
}

/* The end is another when A gets the lease; A's record is longer than what B has appended meanwhile. */
static void overtaken_append(SimRun *run)
{
    SimProcess *p = sim_program(run->a);
    int fd = sim_open(run->a, p, SIM_NAME, O_WRONLY | O_APPEND);

    run->appends = TRUE;
    g_ptr_array_add(run->records, g_strdup(run->old));
    if (fd >= 0 && !sim_host_is_dead(run->a)) {
        overtaken = run;
        run->symlinkat = run->a->port->symlinkat;
        run->a->port->symlinkat = symlinkat_overtaken;
        append(run, run->a, p, fd, "<a long record of A>\n");
        run->a->port->symlinkat = run->symlinkat;
    }
    sim_exit(run->a, p, 0);
}

#define LATE "<the late one>\n"

/* A mount of A's machine has died with the lease in hand, and half of its record is there. */
static int leave_torn_append(SimRun *run, ino_t *ret_ino)
{
    SimHost *dead = sim_host_mounted(run->sim, 1);
    off_t offset = (off_t)strlen(run->old);
    int fd = openat(run->sim->source, SIM_NAME, O_RDWR | O_CLOEXEC);
    g_autofree char *target = NULL, *link = NULL;
    struct stat st = {0}, told;

    if (fd < 0 || fstat(fd, &st) < 0 || pwrite(fd, LATE, strlen(LATE) / 2, offset) < 0)
        sim_complain(run->sim, "cannot prepare the torn append");
    told = st;
    sim_told_put(run->sim->world.told, &told);
    target = g_strdup_printf("%s 1 append %ld %zu %lu " SIM_NAME, sw_control_host_id(dead->control), (long)offset,
                             strlen(LATE), (unsigned long)told.st_ino);
    link = g_strdup_printf(".safewritefs/leases/%016lx", (unsigned long)told.st_ino);
    if (symlinkat(target, run->sim->source, link) < 0)
        sim_complain(run->sim, "cannot prepare the lease");
    sim_port_kill(dead->port);
    sim_host_free(dead);
    *ret_ino = st.st_ino;
    return fd;
}

/* Its write arrives now.  If it finds the file at the name, that is because the break is not over, or, with a fault
 * that keeps A from making a copy, because A goes on in place: the case that semantics.md leaves open. */
static void arrive_late(SimRun *run, int late, ino_t ino)
{
    struct stat st;
    gboolean copied = fstatat(run->sim->source, SIM_NAME, &st, 0) == 0 && st.st_ino != ino;

    if (!copied && !sim_host_is_dead(run->a)) {
        if (run->fault == SIM_NONE)
            sim_complain(run->sim, "A went on in place");
        return;
    }
    if (!copied)
        g_ptr_array_add(run->unsure, g_strdup(LATE));
    if (pwrite(late, LATE, strlen(LATE), (off_t)strlen(run->old)) < 0)
        sim_complain(run->sim, "the late write failed");
}

static void broken_append(SimRun *run)
{
    SimProcess *p = sim_program(run->a), *q = sim_program(run->b);
    int fd = sim_open(run->a, p, SIM_NAME, O_WRONLY | O_APPEND);
    int other = sim_open(run->b, q, SIM_NAME, O_WRONLY | O_APPEND);
    ino_t ino;
    int late = leave_torn_append(run, &ino);

    run->appends = TRUE;
    g_ptr_array_add(run->records, g_strdup(run->old));
    if (fd >= 0)
        append(run, run->a, p, fd, "<first of A>\n");
    arrive_late(run, late, ino);
    /* Should A not have come to it: the next mount of that machine buries. */
    if (!sim_host_is_dead(run->a))
        sim_host_free(sim_host_mounted(run->sim, 1));
    if (other < 0)
        sim_complain(run->sim, "B cannot append: %d", other);
    else if (!sim_host_is_dead(run->a) || run->b->machine == run->a->machine)
        append(run, run->b, q, other, "<the one of B>\n");
    if (fd >= 0)
        append(run, run->a, p, fd, "<second of A>\n");
    (void)close(late);
    sim_exit(run->b, q, 0);
    sim_exit(run->a, p, 0);
}

/* ---- renames */

static void rename_staged(SimRun *run)
{
    SimProcess *p = sim_program(run->a);
    int fd = sim_open(run->a, p, SIM_OTHER, O_WRONLY | O_CREAT | O_TRUNC);
    ssize_t n = fd < 0 ? fd : sim_pwrite(run->a, p, fd, FRESH, 0);
    gboolean was_dead = sim_host_is_dead(run->a);

    if (n >= 0)
        conclude(run, sim_rename(run->a, p, SIM_OTHER, SIM_NAME), was_dead, FRESH);
    else
        allow(run, run->old);
    sim_exit(run->a, p, 0);
}

static void rename_closed(SimRun *run, const char *name)
{
    SimProcess *p = sim_program(run->a);
    int r = sim_put(run->a, p, name, O_CREAT | O_TRUNC, FRESH);
    gboolean was_dead = sim_host_is_dead(run->a);

    if (r == 0)
        conclude(run, sim_rename(run->a, p, name, SIM_NAME), was_dead, FRESH);
    else
        allow(run, run->old);
    sim_exit(run->a, p, 0);
}

static void rename_committed(SimRun *run)
{
    rename_closed(run, SIM_OTHER);
}

/* B uses the same private name for bytes of its own. */
static void rename_private(SimRun *run)
{
    SimProcess *q = sim_program(run->b);
    char *text;

    if (sim_put(run->b, q, SIM_PRIVATE, O_CREAT | O_TRUNC, "B's bytes") < 0)
        sim_complain(run->sim, "B's private file failed");
    rename_closed(run, SIM_PRIVATE);
    if (sim_get(run->b, SIM_PRIVATE, &text) < 0 || g_strcmp0(text, "B's bytes") != 0)
        sim_complain(run->sim, "B's private file reads \"%s\"", text ? text : "(none)");
    g_free(text);
    if (sim_unlink(run->b, q, SIM_PRIVATE) < 0)
        sim_complain(run->sim, "B's private file cannot be removed");
}

/* ---- other ends */

static void killed_writer(SimRun *run)
{
    SimProcess *p = sim_program(run->a);
    int fd = sim_open(run->a, p, SIM_NAME, O_WRONLY | O_CREAT | O_TRUNC);

    allow(run, run->old);
    if (fd >= 0 && sim_pwrite(run->a, p, fd, FRESH, 0) >= 0 && sim_fsync(run->a, p, fd) == 0)
        run->synced = FRESH;
    sim_exit(run->a, p, SIGKILL);
}

static void unlink_staged(SimRun *run)
{
    SimProcess *p = sim_program(run->a);
    int fd = sim_open(run->a, p, SIM_NAME, O_WRONLY | O_CREAT | O_TRUNC);
    gboolean was_dead;
    int r;

    if (fd >= 0)
        (void)sim_pwrite(run->a, p, fd, FRESH, 0);
    was_dead = sim_host_is_dead(run->a);
    r = sim_unlink(run->a, p, SIM_NAME);
    conclude(run, r, was_dead, NULL);
    /* If it could not be unlinked, the close commits it, and may say so or not. */
    if (r < 0 && !was_dead && fd >= 0)
        allow(run, FRESH);
    sim_exit(run->a, p, 0);
}

/* The parent closes its copy; the child goes on (C3). */
static void inherited(SimRun *run, int flags)
{
    SimProcess *p = sim_program(run->a), *child;
    int fd = sim_open(run->a, p, SIM_NAME, flags);
    g_autofree char *text = NULL;

    if (fd < 0) {
        allow(run, run->old);
        sim_exit(run->a, p, 0);
        return;
    }
    child = sim_fork(run->a, p);
    if (sim_pwrite(run->a, child, fd, "CHILD", 0) >= 0 && sim_close(run->a, p, fd) == 0 &&
        sim_pwrite(run->a, child, fd, "WRITES", 5) >= 0) {
        gboolean was_dead = sim_host_is_dead(run->a);
        g_autofree char *fresh = flags & O_TRUNC ? g_strdup("CHILDWRITES") : patched(run->old, "CHILDWRITES", 0);

        if (sim_get(run->b, SIM_NAME, &text) < 0 || g_strcmp0(text, run->old) != 0)
            sim_complain(run->sim, "committed while a child that writes holds it: \"%s\"", text ? text : "(none)");
        conclude(run, sim_close(run->a, child, fd), was_dead, fresh);
    } else {
        /* Whether the half is committed is the child's to say, which says nothing here. */
        allow(run, run->old);
        sim_exit(run->a, child, SIGKILL);
    }
    sim_exit(run->a, p, 0);
    sim_exit(run->a, child, 0);
}

static void inherited_rewrite(SimRun *run)
{
    inherited(run, O_WRONLY | O_TRUNC);
}

static void inherited_edit(SimRun *run)
{
    inherited(run, O_RDWR);
}

static void mount_only(SimRun *run)
{
    allow(run, run->old);
}

const SimScenario sim_scenarios[] = {
    {"C9 new file", NULL, FALSE, new_file},
    {"C9 rewrite", BEFORE, FALSE, rewrite},
    {"C10 edit", BEFORE, FALSE, edit},
    {"C10 edit beside an edit", BEFORE, FALSE, edit_beside_edit},
    {"C10 edit beside a rewrite", BEFORE, FALSE, edit_beside_rewrite},
    {"C11 appends", "<old>\n", FALSE, appends},
    {"C11 appends to a new file", NULL, FALSE, appends},
    {"C11 append that is overtaken", "<old>\n", FALSE, overtaken_append},
    {"C11 append after a broken one", "<old>\n", FALSE, broken_append},
    {"C12 exclusive", NULL, FALSE, exclusive},
    {"C12 exclusive, contended", NULL, FALSE, exclusive_contended},
    {"C5 rename of a staged file", BEFORE, FALSE, rename_staged},
    {"C13 rename of a committed file", BEFORE, FALSE, rename_committed},
    {"C16 private name", BEFORE, FALSE, rename_private},
    {"C4 killed writer", BEFORE, FALSE, killed_writer},
    {"C4 killed writer of a new file", NULL, FALSE, killed_writer},
    {"C15 unlink while staged", NULL, FALSE, unlink_staged},
    {"C15 unlink while staged over a version", BEFORE, FALSE, unlink_staged},
    {"C3 inherited rewrite", BEFORE, FALSE, inherited_rewrite},
    {"C3 inherited edit", BEFORE, FALSE, inherited_edit},
    {"C26 mount", BEFORE, TRUE, mount_only},
};

const guint sim_n_scenarios = G_N_ELEMENTS(sim_scenarios);
