/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * How long the kernel is let believe names and attributes: as long as nothing that it does not see can change them on
 * this host (C2, C15).
 */

#include "disk.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define OLD "old.bin"
#define NEW "new.bin"

/* A program, another one that is no family of it, and what the kernel was told to forget. */
typedef struct {
    Sim *sim;
    SimHost *host;
    SwOverlay *overlay;
    SwCaller caller, stranger;
    gint64 believes_us;
    const SwNode *stale;
    SwStale what;
} Believer;

static void note_stale(gpointer data, SwNode *node, SwStale what)
{
    Believer *b = data;

    b->stale = node;
    b->what = what;
}

static void believer_init(Believer *b)
{
    *b = (Believer){.sim = sim_new(1)};
    b->host = sim_host_mounted(b->sim, 1);
    sim_disk_put(b->sim, OLD, "as it was");
    b->overlay = b->host->overlay;
    b->caller = sim_caller(sim_program(b->host));
    b->stranger = sim_caller(sim_program(b->host));
    b->believes_us = b->host->config.attr_cache_us;
    sw_overlay_on_stale(b->overlay, note_stale, b);
}

static void believer_clear(Believer *b)
{
    assert_string_equal(b->sim->complaints->str, "");
    sim_host_free(b->host);
    sim_free(b->sim);
}

static SwEntry look_up(const Believer *b, const SwCaller *caller, const char *name)
{
    SwEntry entry;

    assert_int_equal(sw_overlay_lookup(b->overlay, caller, sw_overlay_root(b->overlay), name, &entry), 0);
    return entry;
}

static SwHandle *create(const Believer *b, int flags, SwEntry *ret_entry)
{
    SwHandle *handle = NULL;

    assert_int_equal(
        sw_overlay_create(b->overlay, &b->caller, sw_overlay_root(b->overlay), NEW, 0644, flags, ret_entry, &handle),
        0);
    return handle;
}

/* As the kernel opens: looks up, opens, and if it is sent round does so once more.  *ret_entry: what it found last. */
static SwHandle *open_old(const Believer *b, int flags, SwEntry *ret_entry)
{
    SwHandle *handle = NULL;
    int r = -ESTALE;

    for (guint walks = 0; walks < 2 && r == -ESTALE; walks++) {
        *ret_entry = look_up(b, &b->caller, OLD);
        r = sw_overlay_open(b->overlay, &b->caller, ret_entry->node, flags, &handle);
    }
    assert_int_equal(r, 0);
    return handle;
}

static gint64 stat_believed(const Believer *b, SwNode *node, SwHandle *handle, off_t size)
{
    struct stat st;
    gint64 attr_us;

    assert_int_equal(sw_overlay_getattr(b->overlay, &b->caller, node, handle, &st, &attr_us), 0);
    assert_int_equal(st.st_size, size);
    return attr_us;
}

static void write_one(const Believer *b, SwHandle *handle, off_t offset)
{
    assert_int_equal(sw_overlay_write(b->overlay, &b->caller, handle, "x", 1, offset, FALSE, FALSE, TRUE), 1);
}

static void close_it(const Believer *b, SwHandle *handle)
{
    assert_int_equal(sw_overlay_flush(b->overlay, &b->caller, handle, 0, TRUE), 0);
    assert_int_equal(sw_overlay_release(b->overlay, handle, TRUE), 0);
}

/* ---- attributes */

/* What is written through the node of a stage the kernel has written. */
static void of_a_whole_stage(void **state)
{
    Believer b;
    SwEntry entry;
    SwHandle *handle;

    believer_init(&b);
    handle = create(&b, O_WRONLY, &entry);
    assert_int_equal(entry.entry_us, 0);
    assert_int_equal(entry.attr_us, b.believes_us);
    write_one(&b, handle, 0);
    assert_int_equal(stat_believed(&b, entry.node, handle, 1), b.believes_us);
    write_one(&b, handle, 1);
    assert_int_equal(stat_believed(&b, entry.node, NULL, 2), b.believes_us);
    assert_int_equal(look_up(&b, &b.caller, NEW).entry_us, 0);
    close_it(&b, handle);

    handle = open_old(&b, O_WRONLY | O_TRUNC, &entry);
    assert_int_equal(entry.entry_us, 0);
    assert_int_equal(entry.attr_us, b.believes_us);
    close_it(&b, handle);
    believer_clear(&b);
}

/* A commit may put other bytes there, pages are written whenever the kernel likes, and others may have the stage open
 * in another node. */
static void of_a_stage_that_may_change(void **state)
{
    Believer b;
    SwEntry entry, read;
    SwHandle *handle, *guest, *reader;

    believer_init(&b);
    handle = open_old(&b, O_WRONLY, &entry);
    assert_int_equal(entry.attr_us, 0);
    write_one(&b, handle, 0);
    assert_int_equal(stat_believed(&b, entry.node, handle, 9), 0);
    close_it(&b, handle);

    handle = create(&b, O_RDWR, &entry);
    assert_int_equal(entry.attr_us, b.believes_us); /* nothing can be mapped yet */
    write_one(&b, handle, 0);
    assert_int_equal(stat_believed(&b, entry.node, handle, 1), 0);
    close_it(&b, handle);

    reader = open_old(&b, O_RDONLY, &read);
    handle = open_old(&b, O_WRONLY | O_TRUNC, &entry);
    assert_ptr_not_equal(entry.node, read.node);
    assert_int_equal(stat_believed(&b, entry.node, handle, 0), b.believes_us);
    assert_int_equal(sw_overlay_open(b.overlay, &b.caller, read.node, O_WRONLY, &guest), -ESTALE);
    b.stale = NULL;
    assert_int_equal(sw_overlay_open(b.overlay, &b.caller, read.node, O_WRONLY, &guest), 0);
    assert_ptr_equal(b.stale, entry.node);
    assert_int_equal(b.what, SW_STALE_ATTRIBUTES);
    write_one(&b, guest, 4);
    assert_int_equal(stat_believed(&b, entry.node, handle, 5), 0);
    close_it(&b, guest);
    close_it(&b, handle);
    close_it(&b, reader);
    believer_clear(&b);
}

/* The commit is the last change of a version; who may write it again does not let it be believed. */
static void of_a_version_just_committed(void **state)
{
    Believer b;
    SwEntry entry, seen;
    SwHandle *handle;

    believer_init(&b);
    handle = create(&b, O_WRONLY, &entry);
    write_one(&b, handle, 0);
    close_it(&b, handle);
    seen = look_up(&b, &b.stranger, NEW);
    assert_ptr_equal(seen.node, entry.node);
    assert_int_equal(seen.st.st_size, 1);
    assert_int_equal(seen.attr_us, b.believes_us);

    handle = open_old(&b, O_WRONLY | O_TRUNC, &entry);
    write_one(&b, handle, 0);
    assert_int_equal(sw_overlay_rename(b.overlay, &b.caller, sw_overlay_root(b.overlay), OLD,
                                       sw_overlay_root(b.overlay), NEW, 0, TRUE),
                     0);
    seen = look_up(&b, &b.stranger, NEW);
    assert_int_equal(seen.attr_us, 0);
    assert_int_equal(seen.entry_us, 0);
    close_it(&b, handle);
    believer_clear(&b);
}

/* Who has a version open that is replaced sees that it has lost its link. */
static void of_a_version_that_is_replaced(void **state)
{
    static const int flags[] = {O_WRONLY | O_TRUNC, O_WRONLY};
    Believer b;
    SwEntry entry, read;
    SwHandle *handle, *reader;

    believer_init(&b);
    for (guint i = 0; i < G_N_ELEMENTS(flags); i++) {
        reader = open_old(&b, O_RDONLY, &read);
        handle = open_old(&b, flags[i], &entry);
        write_one(&b, handle, 0);
        assert_int_equal(look_up(&b, &b.stranger, OLD).attr_us, b.believes_us);
        b.stale = NULL;
        close_it(&b, handle);
        assert_ptr_equal(b.stale, read.node);
        assert_int_equal(b.what, SW_STALE_ATTRIBUTES);
        close_it(&b, reader);
    }
    believer_clear(&b);
}

/* Somebody opens while the kernel is being told: he may not go by what it has. */
static void open_early(gpointer data, SwNode *node, SwStale what)
{
    Believer *b = data;
    SwHandle *handle;

    note_stale(b, node, what);
    assert_int_equal(sw_overlay_open(b->overlay, &b->stranger, node, O_RDONLY, &handle), -ESTALE);
}

/* By another host, in place. */
static void append(const Believer *b, const char *text)
{
    g_autofree char *path = g_build_filename(b->sim->path, OLD, NULL);
    int fd = open(path, O_WRONLY | O_APPEND);

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
}

/* C2: of answers of two sizes that cross each other the kernel may have taken the older; so it is told to forget that,
 * once, and believes no size from then on. */
static void of_a_file_that_grows(void **state)
{
    Believer b;
    SwEntry before, after;
    SwHandle *handle;

    believer_init(&b);
    before = look_up(&b, &b.caller, OLD);
    assert_int_equal(before.attr_us, b.believes_us);
    assert_null(b.stale);
    sw_overlay_on_stale(b.overlay, open_early, &b);
    append(&b, " and more");
    after = look_up(&b, &b.caller, OLD);
    assert_ptr_equal(after.node, before.node);
    assert_int_equal(after.st.st_size, before.st.st_size + 9);
    assert_int_equal(after.attr_us, 0);
    assert_ptr_equal(b.stale, after.node);
    assert_int_equal(b.what, SW_STALE_ATTRIBUTES);

    b.stale = NULL;
    after = look_up(&b, &b.stranger, OLD);
    assert_ptr_equal(after.node, before.node);
    assert_int_equal(sw_overlay_open(b.overlay, &b.stranger, after.node, O_RDONLY, &handle), 0);
    close_it(&b, handle);
    append(&b, " and more");
    assert_int_equal(stat_believed(&b, after.node, NULL, after.st.st_size + 9), 0);
    assert_null(b.stale);
    believer_clear(&b);
}

/* ---- names */

static void commit(const Believer *b)
{
    SwEntry entry;
    SwHandle *handle = create(b, O_WRONLY, &entry);

    write_one(b, handle, 0);
    close_it(b, handle);
}

static gint64 name_believed(const Believer *b)
{
    return look_up(b, &b->stranger, NEW).entry_us;
}

static void edit_old(const Believer *b, gint64 *ret_meanwhile)
{
    SwEntry entry;
    SwHandle *handle = open_old(b, O_WRONLY, &entry);

    write_one(b, handle, 0);
    *ret_meanwhile = look_up(b, &b->stranger, OLD).entry_us;
    close_it(b, handle);
}

/* From the second look on, as long as nothing is staged there. */
static void of_a_name_just_written(void **state)
{
    gint64 meanwhile;
    Believer b;

    believer_init(&b);
    commit(&b);
    assert_int_equal(name_believed(&b), 0);
    assert_int_equal(name_believed(&b), b.believes_us);
    assert_int_equal(name_believed(&b), b.believes_us);
    for (guint i = 0; i < 3; i++) {
        edit_old(&b, &meanwhile);
        assert_int_equal(meanwhile, 0);
        assert_int_equal(look_up(&b, &b.stranger, OLD).entry_us, 0);
        assert_int_equal(look_up(&b, &b.stranger, OLD).entry_us, b.believes_us);
    }
    believer_clear(&b);
}

static int rename_to_old(const Believer *b, const SwCaller *caller)
{
    SwNode *root = sw_overlay_root(b->overlay);

    return sw_overlay_rename(b->overlay, caller, root, NEW, root, OLD, 0, TRUE);
}

/* F27: the kernel's name moves along with what is renamed, and with it how long it is believed.  So where somebody has
 * a stage it is looked for once more before. */
static void of_a_name_that_moves_to_a_stage(void **state)
{
    Believer b;
    SwEntry entry;
    SwHandle *handle;

    believer_init(&b);
    commit(&b);
    handle = open_old(&b, O_WRONLY | O_TRUNC, &entry);
    write_one(&b, handle, 0);
    assert_int_equal(name_believed(&b), 0);
    assert_int_equal(rename_to_old(&b, &b.stranger), 0); /* it was not believed */
    assert_int_equal(look_up(&b, &b.caller, OLD).entry_us, 0);

    commit(&b);
    assert_int_equal(name_believed(&b), 0);
    assert_int_equal(name_believed(&b), b.believes_us);
    assert_int_equal(rename_to_old(&b, &b.stranger), -ESTALE);
    assert_int_equal(name_believed(&b), 0);
    assert_int_equal(name_believed(&b), 0);
    assert_int_equal(rename_to_old(&b, &b.stranger), 0);
    assert_ptr_equal(look_up(&b, &b.caller, OLD).node, entry.node);

    commit(&b);
    (void)name_believed(&b);
    assert_int_equal(name_believed(&b), b.believes_us);
    assert_int_equal(rename_to_old(&b, &b.stranger), -ESTALE);
    assert_int_equal(rename_to_old(&b, &b.stranger), 0); /* never twice, though it did not look */

    commit(&b);
    (void)name_believed(&b);
    assert_int_equal(name_believed(&b), b.believes_us);
    assert_int_equal(rename_to_old(&b, &b.stranger), -ESTALE);
    sim_host_tick(b.host, 2 * G_TIME_SPAN_SECOND);
    assert_int_equal(name_believed(&b), b.believes_us); /* it did not come back */
    close_it(&b, handle);
    assert_int_equal(rename_to_old(&b, &b.stranger), 0); /* nobody has a stage there any more */
    believer_clear(&b);
}

/* A stage comes while the look is under way, after it was asked whether there is one. */
static Believer *between;
static int (*real_lookat)(SwPort *port, int dirfd, const char *name, SwFound *ret_found);

static int lookat(SwPort *port, int dirfd, const char *name, SwFound *ret_found)
{
    int r = real_lookat(port, dirfd, name, ret_found);

    if (between && strcmp(name, NEW) == 0) {
        Believer *b = between;

        between = NULL;
        assert_int_equal(sim_put(b->host, sim_program(b->host), NEW, O_TRUNC, "by another"), 0);
    }
    return r;
}

static void of_a_name_written_meanwhile(void **state)
{
    Believer b;

    believer_init(&b);
    commit(&b);
    assert_int_equal(name_believed(&b), 0);
    real_lookat = b.host->port->lookat;
    b.host->port->lookat = lookat;
    between = &b;
    assert_int_equal(name_believed(&b), 0);
    assert_null(between);
    sim_host_tick(b.host, 3 * G_TIME_SPAN_SECOND);
    between = &b;
    assert_int_equal(name_believed(&b), 0); /* it had none for long */
    assert_null(between);
    believer_clear(&b);
}

/* Nobody who has a lock goes by what he was told before (C22); of an append handle the kernel keeps no pages. */
static void ends_with_a_lock(void **state)
{
    static const int flags[] = {O_WRONLY, O_RDONLY, O_WRONLY | O_APPEND};
    Believer b;
    SwEntry entry;

    believer_init(&b);
    for (guint i = 0; i < G_N_ELEMENTS(flags); i++) {
        SwHandle *handle = open_old(&b, flags[i], &entry);
        SwFileLock lock = {.flock = TRUE, .mode = SW_RANGE_READ, .end = SW_RANGE_END};

        lock.owner = (guint64)(uintptr_t)handle;
        b.stale = NULL;
        assert_int_equal(sw_overlay_lock(b.overlay, &b.caller, handle, &lock, TRUE), 0);
        assert_ptr_equal(b.stale, entry.node);
        close_it(&b, handle);
    }
    believer_clear(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_a_whole_stage),
        cmocka_unit_test(of_a_stage_that_may_change),
        cmocka_unit_test(of_a_version_just_committed),
        cmocka_unit_test(of_a_version_that_is_replaced),
        cmocka_unit_test(of_a_file_that_grows),
        cmocka_unit_test(of_a_name_just_written),
        cmocka_unit_test(of_a_name_that_moves_to_a_stage),
        cmocka_unit_test(of_a_name_written_meanwhile),
        cmocka_unit_test(ends_with_a_lock),
    };

    return cmocka_run_group_tests_name("believed", tests, NULL, NULL);
}
