/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * What a thread is told on its second walk to a name that it opens (FACTS F1): the kernel walks once more after an
 * ESTALE, and then gives up, so a second ESTALE would reach the program.
 */

#include "disk.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define NAME "data.bin"
#define OLD "as it was"
#define NEW "as it is"

/* A thread, and the node of the version that it has looked up. */
typedef struct {
    Sim *sim;
    SimHost *host;
    SwOverlay *overlay;
    SwCaller caller;
    SwNode *node;
} Walker;

static SwNode *look_up(const Walker *w)
{
    SwEntry entry;

    assert_int_equal(sw_overlay_lookup(w->overlay, &w->caller, sw_overlay_root(w->overlay), NAME, &entry), 0);
    return entry.node;
}

static void walker_init(Walker *w)
{
    *w = (Walker){.sim = sim_new(1)};
    w->host = sim_host_mounted(w->sim, 1);
    sim_disk_put(w->sim, NAME, OLD);
    w->overlay = w->host->overlay;
    w->caller = sim_caller(sim_program(w->host));
    w->node = look_up(w);
}

static void walker_clear(Walker *w)
{
    assert_string_equal(w->sim->complaints->str, "");
    sim_host_free(w->host);
    sim_free(w->sim);
}

static void assert_reads(const Walker *w, SwHandle *handle, const char *expected)
{
    char text[64] = "";

    assert_int_equal(sw_overlay_read(w->overlay, handle, text, sizeof text - 1, 0), strlen(expected));
    assert_string_equal(text, expected);
}

static SwHandle *open_of(const Walker *w, SwNode *node, int flags)
{
    SwHandle *handle = NULL;

    assert_int_equal(sw_overlay_open(w->overlay, &w->caller, node, flags, &handle), 0);
    return handle;
}

/* How the kernel is told to cache a handle that it has asked for by `node`. */
static SwCaching caching_of(const Walker *w, SwHandle *handle, SwNode *node)
{
    SwManner manner;

    assert_int_equal(sw_handle_settle(w->overlay, handle, node, &manner), 0);
    return manner.caching;
}

static void close_of(const Walker *w, SwHandle *handle)
{
    assert_int_equal(sw_overlay_release(w->overlay, handle, TRUE), 0);
}

static int open_fails(const Walker *w, SwNode *node, int flags)
{
    SwHandle *handle = NULL;

    return sw_overlay_open(w->overlay, &w->caller, node, flags, &handle);
}

/* C2, C10: the daemon is frozen between the two walks, for however long. */
static void after_a_freeze(void **state)
{
    Walker w;
    SwNode *staged;

    (void)state;
    walker_init(&w);
    assert_int_equal(open_fails(&w, w.node, O_RDWR), -ESTALE);
    w.sim->world.now_us += G_TIME_SPAN_HOUR;
    (void)sw_overlay_tick(w.overlay, NULL, NULL);
    staged = look_up(&w);
    assert_ptr_not_equal(staged, w.node);
    close_of(&w, open_of(&w, staged, O_RDWR));
    walker_clear(&w);
}

static gboolean everybody_waits(gpointer data, pid_t tid)
{
    (void)data;
    (void)tid;
    return TRUE;
}

static void seconds_pass(Walker *w, guint seconds, SwMayWait may_wait)
{
    while (seconds--) {
        w->sim->world.now_us += G_USEC_PER_SEC;
        (void)sw_overlay_tick(w->overlay, may_wait, NULL);
    }
}

static int works(SwPort *port, pid_t tid, SwProcess *ret_process)
{
    (void)port;
    *ret_process = (SwProcess){.tgid = tid, .working = TRUE};
    return 0;
}

/* C2, C10: its second walk waits behind many others, with its request or before it can make one; one that never comes
 * leaves nothing. */
static void in_a_crowd(void **state)
{
    int (*process)(SwPort *, pid_t, SwProcess *);
    Walker w;
    SwNode *staged;

    (void)state;
    walker_init(&w);
    assert_int_equal(open_fails(&w, w.node, O_RDWR), -ESTALE);
    seconds_pass(&w, 100, everybody_waits);
    staged = look_up(&w);
    assert_ptr_not_equal(staged, w.node);
    process = w.host->port->process;
    w.host->port->process = works;
    seconds_pass(&w, 100, NULL);
    w.host->port->process = process;
    close_of(&w, open_of(&w, staged, O_RDWR));
    assert_int_equal(open_fails(&w, w.node, O_RDWR), -ESTALE);
    seconds_pass(&w, 30, NULL);
    assert_ptr_equal(look_up(&w), w.node);
    walker_clear(&w);
}

/* C10: the node of the version that others read takes none of a writer's pages, though he is served in it: a magic
 * link, or what looks like one because an open of this thread failed before. */
static void without_a_walk(void **state)
{
    Walker w;
    SwHandle *reader, *writer;

    (void)state;
    walker_init(&w);
    reader = open_of(&w, w.node, O_RDONLY);
    assert_int_equal(open_fails(&w, w.node, O_RDWR), -ESTALE);
    writer = open_of(&w, w.node, O_RDWR);
    assert_int_equal(caching_of(&w, writer, w.node), SW_CACHE_NONE);
    assert_int_equal(sw_overlay_write(w.overlay, &w.caller, writer, "AS", 2, 0, FALSE, FALSE, TRUE), 2);
    assert_reads(&w, writer, "AS it was");
    assert_reads(&w, reader, OLD);
    close_of(&w, writer);
    assert_reads(&w, reader, OLD);
    close_of(&w, reader);
    walker_clear(&w);
}

/* C2: the walk ends at another node than it was led to, because others look the name up meanwhile. */
static void led_elsewhere(void **state)
{
    Walker w;
    SwHandle *reader, *writer;
    SwNode *now;

    (void)state;
    walker_init(&w);
    assert_int_equal(open_fails(&w, w.node, O_RDWR), -ESTALE);
    assert_ptr_not_equal(look_up(&w), w.node);
    writer = open_of(&w, w.node, O_RDWR);
    assert_int_equal(caching_of(&w, writer, w.node), SW_CACHE_NONE);
    close_of(&w, writer);

    sim_disk_put(w.sim, NAME, NEW);
    assert_int_equal(open_fails(&w, w.node, O_RDONLY), -ESTALE);
    now = look_up(&w);
    assert_ptr_not_equal(now, w.node);
    reader = open_of(&w, w.node, O_RDONLY);
    assert_int_equal(caching_of(&w, reader, w.node), SW_CACHE_NONE);
    assert_reads(&w, reader, NEW);
    close_of(&w, reader);
    walker_clear(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_a_freeze),
        cmocka_unit_test(in_a_crowd),
        cmocka_unit_test(without_a_walk),
        cmocka_unit_test(led_elsewhere),
    };

    return cmocka_run_group_tests_name("walks", tests, NULL, NULL);
}
