/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * What the handles of one node go by when the kernel reads a file by itself: all by one backing, or all by none
 * (fs/fuse/iomode.c, which fails an open that is told otherwise).
 */

#include "disk.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define NAME "data.bin"
#define SIZE (1 << 20)

/* A kernel that knows files by numbers, and a thread with the node that it has looked up. */
typedef struct {
    Sim *sim;
    SimHost *host;
    SwOverlay *overlay;
    SwCaller caller;
    SwNode *node;
    int error; /* that the next ones are refused with */
    int last;  /* number given */
    guint n_asked, n_open;
} Kernel;

static int back(gpointer data, int fd)
{
    Kernel *k = data;

    (void)fd;
    k->n_asked++;
    if (k->error)
        return -k->error;
    k->n_open++;
    return ++k->last;
}

static void let_go(gpointer data, int id)
{
    Kernel *k = data;

    assert_in_range(id, 1, k->last);
    k->n_open--;
}

static void put_file(Kernel *k, const char *text)
{
    g_autofree char *path = g_build_filename(k->sim->path, NAME, NULL);

    sim_disk_put(k->sim, NAME, text);
    assert_int_equal(truncate(path, SIZE), 0);
}

static SwNode *look_up(const Kernel *k)
{
    SwEntry entry;

    assert_int_equal(sw_overlay_lookup(k->overlay, &k->caller, sw_overlay_root(k->overlay), NAME, &entry), 0);
    return entry.node;
}

static void kernel_init(Kernel *k)
{
    const SwBackingCalls calls = {.open = back, .close = let_go, .data = k};

    *k = (Kernel){.sim = sim_new(1)};
    k->host = sim_host_mounted(k->sim, 1);
    k->overlay = k->host->overlay;
    sw_overlay_offer_passthrough(k->overlay, &calls);
    put_file(k, "old");
    k->caller = sim_caller(sim_program(k->host));
    k->node = look_up(k);
}

static void kernel_clear(Kernel *k)
{
    assert_int_equal(k->n_open, 0);
    assert_string_equal(k->sim->complaints->str, "");
    sim_host_free(k->host);
    sim_free(k->sim);
}

static SwHandle *open_node(Kernel *k, int flags, SwCaching caching, int backing)
{
    SwHandle *handle = NULL;
    SwManner manner;

    assert_int_equal(sw_overlay_open(k->overlay, &k->caller, k->node, flags, &handle), 0);
    assert_int_equal(sw_handle_settle(k->overlay, handle, k->node, &manner), 0);
    assert_int_equal(manner.caching, caching);
    assert_int_equal(manner.backing, backing);
    return handle;
}

static void release(Kernel *k, SwHandle *handle)
{
    assert_int_equal(sw_overlay_release(k->overlay, handle, TRUE), 0);
}

static int open_fails(Kernel *k, int flags)
{
    SwHandle *handle = NULL;

    return sw_overlay_open(k->overlay, &k->caller, k->node, flags, &handle);
}

static void by_one_backing(void **state)
{
    SwHandle *handles[5];
    Kernel k;
    int first;

    (void)state;
    kernel_init(&k);
    first = 2; /* the first was the trial's */
    handles[0] = open_node(&k, O_RDONLY, SW_CACHE_DROP, first);
    handles[1] = open_node(&k, O_RDONLY, SW_CACHE_DROP, first);
    handles[2] = open_node(&k, O_WRONLY | O_APPEND, SW_CACHE_NONE, first);
    handles[3] = open_node(&k, O_RDWR | O_APPEND, SW_CACHE_NONE, first);
    handles[4] = open_node(&k, O_RDONLY | O_DIRECT, SW_CACHE_NONE, first);
    assert_int_equal(k.n_asked, 2);
    for (guint i = 0; i < G_N_ELEMENTS(handles); i++) {
        assert_int_equal(k.n_open, 1);
        release(&k, handles[i]);
    }
    assert_int_equal(k.n_open, 0);
    release(&k, open_node(&k, O_RDONLY, SW_CACHE_DROP, first + 1));
    kernel_clear(&k);
}

/* While one goes by no backing, none does. */
static void by_none(void **state)
{
    SwHandle *appender, *reader;
    Kernel k;

    (void)state;
    kernel_init(&k);
    appender = open_node(&k, O_WRONLY | O_APPEND, SW_CACHE_NONE, 0);
    reader = open_node(&k, O_RDONLY, SW_CACHE_KEEP, 0);
    release(&k, appender);
    release(&k, open_node(&k, O_RDONLY, SW_CACHE_KEEP, 0));
    release(&k, reader);
    assert_int_equal(k.n_asked, 0);
    release(&k, open_node(&k, O_RDONLY, SW_CACHE_DROP, 2));
    kernel_clear(&k);
}

/* What cannot be backed is cached; if the first trial says so, nothing else is tried. */
static void refused_by_the_kernel(void **state)
{
    Kernel k;

    (void)state;
    kernel_init(&k);
    release(&k, open_node(&k, O_RDONLY, SW_CACHE_DROP, 2));
    k.error = ELOOP;
    release(&k, open_node(&k, O_RDONLY, SW_CACHE_KEEP, 0));
    assert_int_equal(k.n_asked, 3);
    kernel_clear(&k);

    kernel_init(&k);
    k.error = ELOOP;
    release(&k, open_node(&k, O_RDONLY, SW_CACHE_KEEP, 0));
    release(&k, open_node(&k, O_RDONLY, SW_CACHE_KEEP, 0));
    assert_int_equal(k.n_asked, 1);
    kernel_clear(&k);
}

/* C10: a stage whose stores through a mapping would go into the version that others read is not served in its node. */
static void stages_elsewhere(void **state)
{
    SwHandle *reader, *writer = NULL;
    SwManner manner;
    Kernel k;

    (void)state;
    kernel_init(&k);
    reader = open_node(&k, O_RDONLY, SW_CACHE_DROP, 2);
    assert_int_equal(open_fails(&k, O_RDWR), -ESTALE);
    assert_int_equal(open_fails(&k, O_RDWR),
                     -ESTALE); /* no walk between: a magic link, or an open after one that failed */
    assert_ptr_not_equal(look_up(&k), k.node);
    assert_int_equal(sw_overlay_open(k.overlay, &k.caller, k.node, O_RDWR, &writer), 0);
    assert_int_equal(sw_handle_settle(k.overlay, writer, k.node, &manner), -ESTALE);
    release(&k, writer);
    assert_int_equal(open_fails(&k, O_WRONLY), -ESTALE);
    release(&k, open_node(&k, O_WRONLY, SW_CACHE_NONE, 2));
    release(&k, reader);
    kernel_clear(&k);
}

/* C1, C2: a newer version that has to be served in the node of an older one is read through us. */
static void newer_in_the_node_of_an_older(void **state)
{
    SwHandle *reader, *newer;
    char text[4] = "";
    Kernel k;

    (void)state;
    kernel_init(&k);
    reader = open_node(&k, O_RDONLY, SW_CACHE_DROP, 2);
    put_file(&k, "new");
    assert_int_equal(open_fails(&k, O_RDONLY), -ESTALE);
    assert_ptr_not_equal(look_up(&k), k.node);
    newer = open_node(&k, O_RDONLY, SW_CACHE_NONE, 2);
    assert_int_equal(sw_overlay_read(k.overlay, newer, text, 3, 0), 3);
    assert_string_equal(text, "new");
    release(&k, reader);
    release(&k, newer);

    kernel_clear(&k);

    kernel_init(&k);
    put_file(&k, "new");
    assert_int_equal(open_fails(&k, O_RDONLY), -ESTALE);
    assert_ptr_not_equal(look_up(&k), k.node);
    release(&k, open_node(&k, O_RDONLY, SW_CACHE_NONE, 0));
    kernel_clear(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_one_backing),
        cmocka_unit_test(by_none),
        cmocka_unit_test(refused_by_the_kernel),
        cmocka_unit_test(stages_elsewhere),
        cmocka_unit_test(newer_in_the_node_of_an_older),
    };

    return cmocka_run_group_tests_name("backing", tests, NULL, NULL);
}
