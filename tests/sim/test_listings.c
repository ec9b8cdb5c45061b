/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * What the kernel is let keep of a listing (C2, C15), and who is given attributes with one.
 */

#include "../../src/lease/control_internal.h"
#include "disk.h"

#include "../unit/unit.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define S G_TIME_SPAN_SECOND
#define LONG (10 * S)

typedef struct {
    Sim *sim;
    SwOverlay *overlay;
    SimHost *host;
    SwCaller caller;
} Lister;

static void lister_init(Lister *l)
{
    *l = (Lister){.sim = sim_new(1)};
    l->host = sim_host_mounted(l->sim, 1);
    l->overlay = l->host->overlay;
    l->caller = sim_caller(sim_program(l->host));
    sim_disk_put(l->sim, "one", "1");
    sim_host_tick(l->host, LONG);
}

static void lister_clear(Lister *l)
{
    assert_string_equal(l->sim->complaints->str, "");
    sim_host_free(l->host);
    sim_free(l->sim);
}

static SwDirHandle *open_dir(const Lister *l, SwNode *dir)
{
    SwDirHandle *handle = NULL;

    assert_int_equal(sw_overlay_opendir(l->overlay, &l->caller, dir, &handle), 0);
    return handle;
}

static gboolean count(gpointer data, const char *name, const struct stat *st, off_t next)
{
    guint *n = data;

    (*n)++;
    return TRUE;
}

static guint read_dir(const Lister *l, SwDirHandle *handle)
{
    guint n = 0;

    assert_int_equal(sw_overlay_readdir(l->overlay, &l->caller, handle, 0, count, &n), 0);
    return n;
}

typedef enum { KEEPS_NOTHING, FILLS, IS_SERVED } Keeping;

static Keeping keeping_of(const SwDirHandle *handle)
{
    gboolean right;

    return !sw_dir_handle_keeps(handle, &right) ? KEEPS_NOTHING : right ? IS_SERVED : FILLS;
}

/* What the kernel is told when it opens the top; it then reads it, if it has nothing. */
static Keeping list(const Lister *l)
{
    SwDirHandle *handle = open_dir(l, sw_overlay_root(l->overlay));
    Keeping keeping = keeping_of(handle);

    if (keeping != IS_SERVED)
        (void)read_dir(l, handle);
    sw_overlay_releasedir(l->overlay, handle);
    return keeping;
}

/* C2: only what was read so long after the last change that the next one cannot have the same times. */
static void kept_when_it_has_settled(void **state)
{
    Lister l;

    (void)state;
    lister_init(&l);
    assert_int_equal(list(&l), FILLS);
    sim_host_tick(l.host, LONG);
    assert_int_equal(list(&l), FILLS);
    assert_int_equal(list(&l), IS_SERVED);
    sim_disk_put(l.sim, "two", "2");
    assert_int_equal(list(&l), FILLS); /* just now: a third could come within the same tick */
    assert_int_equal(list(&l), FILLS);
    sim_host_tick(l.host, LONG);
    assert_int_equal(list(&l), FILLS);
    assert_int_equal(list(&l), IS_SERVED);
    lister_clear(&l);
}

/* C2: the source's own time tells of what was changed long ago, and nobody has to watch it for a while. */
static void kept_at_once_when_it_is_old(void **state)
{
    struct stat st;
    Lister l;

    (void)state;
    lister_init(&l);
    assert_int_equal(list(&l), FILLS);
    assert_int_equal(sw_control_beat(l.host->control), 0);
    assert_int_equal(list(&l), FILLS); /* changed a moment before the heartbeat */
    sim_age(&l.sim->world);
    assert_int_equal(list(&l), FILLS); /* no heartbeat since */
    assert_int_equal(sw_control_beat(l.host->control), 0);
    assert_int_equal(list(&l), FILLS);
    assert_int_equal(list(&l), IS_SERVED);
    assert_int_equal(fstat(l.sim->source, &st), 0);
    assert_true(sw_control_source_us(l.host->control, st.st_dev) > 0);
    assert_true(sw_control_source_us(l.host->control, st.st_dev + 1) == 0); /* which may have another clock */
    lister_clear(&l);
}

/* C2: what another handle has read before the change may still come into the kernel's cache. */
static void not_while_another_reads(void **state)
{
    Lister l;
    SwDirHandle *early;

    (void)state;
    lister_init(&l);
    early = open_dir(&l, sw_overlay_root(l.overlay));
    (void)read_dir(&l, early);
    sim_disk_put(l.sim, "two", "2");
    assert_int_equal(list(&l), FILLS);
    sim_host_tick(l.host, LONG);
    assert_int_equal(list(&l), FILLS);
    assert_int_equal(list(&l), FILLS);
    sw_overlay_releasedir(l.overlay, early);
    assert_int_equal(list(&l), FILLS);
    assert_int_equal(list(&l), IS_SERVED);
    lister_clear(&l);
}

/* C15: a new file is listed to its writer only. */
static void not_with_what_is_staged(void **state)
{
    Lister l;
    SwDirHandle *early;
    SimProcess *writer;
    int fd;

    (void)state;
    lister_init(&l);
    writer = sim_program(l.host);
    early = open_dir(&l, sw_overlay_root(l.overlay));
    assert_int_equal(read_dir(&l, early), 3);
    fd = sim_open(l.host, writer, "new", O_WRONLY | O_CREAT | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(list(&l), KEEPS_NOTHING);
    assert_int_equal(read_dir(&l, early), 3);
    l.caller.tid = writer->pid;
    assert_int_equal(read_dir(&l, early), 4); /* by a descriptor that was opened for keeping: that is over */
    assert_int_equal(sim_close(l.host, writer, fd), 0);
    sw_overlay_releasedir(l.overlay, early);
    assert_int_equal(list(&l), FILLS);
    lister_clear(&l);
}

/* ---- attributes */

typedef struct {
    const Lister *lister;
    SwDirHandle *handle;
    off_t offset;
    guint n, n_known;
} Listing;

static gboolean give(gpointer data, const char *name, const struct stat *st, off_t next)
{
    Listing *listing = data;
    SwEntry entry;

    if (name[0] == '.')
        return TRUE;
    listing->n++;
    if (sw_overlay_listed(listing->lister->overlay, &listing->lister->caller, listing->handle, name, listing->offset,
                          &entry)) {
        listing->n_known++;
        assert_true(S_ISREG(entry.st.st_mode));
        sw_overlay_forget(listing->lister->overlay, entry.node, 1);
    }
    return TRUE;
}

/* Which part of the files of a directory comes with attributes, on its first page and on others. */
static void assert_known(const Lister *l, SwNode *dir, gboolean on_first, gboolean on_others)
{
    Listing listing = {.lister = l, .handle = open_dir(l, dir)};

    for (guint i = 0; i < 2; i++) {
        listing.n = listing.n_known = 0;
        listing.offset = i;
        assert_int_equal(sw_overlay_readdir(l->overlay, &l->caller, listing.handle, 0, give, &listing), 0);
        assert_int_equal(listing.n, 1);
        assert_int_equal(listing.n_known, (i ? on_others : on_first) ? 1 : 0);
    }
    sw_overlay_releasedir(l->overlay, listing.handle);
}

static SwNode *look_up(const Lister *l, SwNode *parent, const char *name)
{
    SwEntry entry;

    assert_int_equal(sw_overlay_lookup(l->overlay, &l->caller, parent, name, &entry), 0);
    return entry.node;
}

static void for_who_looks_at_what_he_lists(void **state)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    SwNode *dirs[G_N_ELEMENTS(names)];
    Lister l;

    (void)state;
    lister_init(&l);
    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *file = g_strdup_printf("%s/file", names[i]);

        assert_int_equal(mkdirat(l.sim->source, names[i], 0755), 0);
        sim_disk_put(l.sim, file, "x");
        dirs[i] = look_up(&l, sw_overlay_root(l.overlay), names[i]);
    }
    assert_known(&l, dirs[0], TRUE, FALSE);  /* nothing is known of him */
    assert_known(&l, dirs[1], FALSE, FALSE); /* he has looked at nothing in there */
    sw_overlay_forget(l.overlay, look_up(&l, dirs[1], "file"), 1);
    assert_known(&l, dirs[2], TRUE, TRUE);
    assert_known(&l, dirs[3], TRUE, TRUE);
    l.caller.tid++;
    assert_known(&l, dirs[3], TRUE, FALSE);
    for (guint i = 0; i < G_N_ELEMENTS(names); i++)
        sw_overlay_forget(l.overlay, dirs[i], 1);
    lister_clear(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_when_it_has_settled),       cmocka_unit_test(kept_at_once_when_it_is_old),
        cmocka_unit_test(not_while_another_reads),        cmocka_unit_test(not_with_what_is_staged),
        cmocka_unit_test(for_who_looks_at_what_he_lists),
    };

    return cmocka_run_group_tests_name("listings", tests, NULL, NULL);
}
