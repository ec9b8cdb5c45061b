/* SPDX-License-Identifier: GPL-2.0-or-later */

/* C19, C20, C23: who was silent for how long, as one watcher sees it. */

#include "../../src/core/ring.h"
#include "../../src/core/watch.h"
#include "unit.h"

#include <string.h>

#define S G_TIME_SPAN_SECOND
#define TTL (20 * S)
#define ROUNDS 3000
#define HOSTS 1000

/* ---- tables: looks in seconds of the watcher's clock */

typedef struct {
    double at;       /* begin of the look */
    double took;     /* its duration */
    guint64 counter; /* what it saw */
    gboolean failed; /* a renewal of our own did not get through since the last */
    gboolean broken; /* expected */
} Look;

typedef struct {
    const char *name;
    Look looks[16]; /* ends with at = 0 */
} Case;

static const Case cases[] = {
    {"dead: broken at the first look after its ttl",
     {{100, 0, 7}, {105, 0, 7}, {110, 0, 7}, {115, 0, 7}, {119.9, 0, 7}, {120, 0, 7, FALSE, TRUE}}},
    {"a change starts over",
     {{100, 0, 7}, {110, 0, 7}, {119, 0, 8}, {129, 0, 8}, {138, 0, 8}, {139, 0, 8, FALSE, TRUE}}},
    {"a counter that jumps backwards is a change",
     {{100, 0, 7}, {110, 0, 7}, {119, 0, 3}, {129, 0, 3}, {138.9, 0, 3}, {139, 0, 3, FALSE, TRUE}}},
    {"a counter that comes back to an old value is a change as well",
     {{100, 0, 7}, {110, 0, 8}, {119, 0, 7}, {129, 0, 7}, {138, 0, 7}, {139, 0, 7, FALSE, TRUE}}},
    {"a gap starts over, and is waited for once more",
     {{100, 0, 7}, {110, 0, 7}, {120.1, 0, 7}, {130, 0, 7}, {140, 0, 7}, {150, 0, 7}, {150.3, 0, 7, FALSE, TRUE}}},
    {"a frozen watcher that wakes breaks nobody",
     {{100, 0, 7}, {110, 0, 7}, {4000, 0, 7}, {4010, 0, 7}, {4020, 0, 7}, {4030, 0, 7}, {4040, 0, 7}, {4050, 0, 7}}},
    {"nor when it sees that the host changed meanwhile, until it changes again",
     {{100, 0, 7},
      {110, 0, 7},
      {4000, 0, 8},
      {4010, 0, 8},
      {4019, 0, 8},
      {4021, 0, 9},
      {4031, 0, 9},
      {4040, 0, 9},
      {4041, 0, 9, FALSE, TRUE}}},
    {"renewals of our own that fail start over",
     {{100, 0, 7}, {110, 0, 7}, {119, 0, 7, TRUE}, {128, 0, 7}, {138, 0, 7}, {147.9, 0, 7}, {148, 0, 7, FALSE, TRUE}}},
    {"a server that is away for everybody, and slow to come back",
     {{100, 0, 7},
      {105, 0, 7, TRUE},
      {110, 0, 7, TRUE},
      {115, 0, 7, TRUE},
      {119, 0, 7, TRUE},
      {129, 0, 7},
      {139, 0, 7},
      {149, 0, 8}}},
    {"a look that takes long counts for what is certain only",
     {{100, 8, 7}, {110, 0, 7}, {119.9, 0, 7}, {127.9, 0, 7}, {128, 0, 7, FALSE, TRUE}}},
    {"a look that waited for the server is a gap",
     {{100, 0, 7},
      {105, 60, 7},
      {174, 0, 7},
      {184, 0, 7},
      {194, 0, 7},
      {204, 0, 7},
      {214, 0, 7},
      {224, 0, 7},
      {234, 0, 7},
      {244, 0, 7},
      {249, 0, 7},
      {249.9, 0, 7},
      {250, 0, 7, FALSE, TRUE}}},
    {"a clock that runs backwards breaks nobody", {{100, 0, 7}, {110, 0, 7}, {90, 0, 7}, {100, 0, 7}, {109.9, 0, 7}}},
};

static void tables(void **state)
{
    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        SwWatch watch = {0};

        for (guint j = 0; j < G_N_ELEMENTS(cases[i].looks) && cases[i].looks[j].at > 0; j++) {
            const Look *look = &cases[i].looks[j];
            gint64 began_us = (gint64)(look->at * S), ended_us = began_us + (gint64)(look->took * S);
            gboolean broken = sw_watch_look(&watch, look->counter, began_us, ended_us, TTL, !look->failed);

            if (broken != look->broken)
                fail_msg("%s: look at %g s said %d", cases[i].name, look->at, broken);
        }
    }
}

/* ---- properties: a host and one watcher, each with its own delays */

typedef struct {
    GRand *rand;
    gint64 beat_us, next_beat_us; /* of the host */
    guint64 counter;
    guint looks, beats;
    gint64 worst_us; /* from the last beat to the verdict */
} World;

static gint64 chance_us(World *world, double low_s, double high_s)
{
    return (gint64)(g_rand_double_range(world->rand, low_s, high_s) * S);
}

static void beat_until(World *world, gint64 now_us, double low_s, double high_s)
{
    while (world->next_beat_us <= now_us) {
        world->counter++;
        world->beats++;
        world->beat_us = world->next_beat_us;
        world->next_beat_us += chance_us(world, low_s, high_s);
    }
}

/* Any delays at all of the watcher, up to nearly a ttl between beats of the host: never judged dead. */
static void the_living_are_never_broken(void **state)
{
    World world = {.rand = g_rand_new_with_seed(1)};
    gint64 now_us = 100 * S;
    SwWatch watch = {0};

    (void)state;
    world.next_beat_us = now_us;
    for (guint i = 0; i < ROUNDS * 10; i++) {
        gint64 began_us = now_us, seen_us = began_us + chance_us(&world, 0, 0.5);
        gboolean wild = g_rand_int_range(world.rand, 0, 20) == 0;
        gboolean broken;

        beat_until(&world, seen_us, 0.1, 19.99);
        now_us = seen_us + chance_us(&world, 0, 0.5);
        broken = sw_watch_look(&watch, world.counter, began_us, now_us, TTL, g_rand_int_range(world.rand, 0, 9) > 0);
        if (broken)
            fail_msg("broken %g s after its last beat", (double)(seen_us - world.beat_us) / S);
        now_us = wild ? now_us + chance_us(&world, 0, 100) : MAX(now_us, sw_watch_next_us(&watch, TTL));
    }
    g_rand_free(world.rand);
}

/* The server is away for minutes; all clients come back to it after at most as long as it was away. */
static void a_server_away_breaks_nobody(void **state)
{
    World world = {.rand = g_rand_new_with_seed(2)};

    (void)state;
    for (guint i = 0; i < ROUNDS; i++) {
        gint64 away_us = chance_us(&world, 11, 290), back_us = 200 * S + away_us;
        gint64 host_us = back_us + chance_us(&world, 0, (double)away_us / S);
        gint64 now_us = 100 * S + chance_us(&world, 0, 5);
        guint64 counter = 1;
        SwWatch watch = {0};

        for (gint64 beat_us = 100 * S; now_us < host_us + 100 * S; now_us = sw_watch_next_us(&watch, TTL)) {
            gint64 began_us = now_us;

            if (now_us > 200 * S && now_us < back_us) /* the look waits for the server */
                now_us = back_us + chance_us(&world, 0, 5);
            for (; beat_us <= now_us; beat_us += 5 * S)
                counter += beat_us < 200 * S || beat_us >= host_us;
            assert_false(sw_watch_look(&watch, counter, began_us, now_us, TTL, TRUE));
        }
    }
    g_rand_free(world.rand);
}

/* One host that beats every ttl/4, a little late at times, and then dies. */
static void live_and_die(World *world, gint64 ttl_us)
{
    gint64 now_us = 100 * S, death_us = now_us + chance_us(world, 30, 200) * ttl_us / TTL;
    double ttl_s = (double)ttl_us / S;
    SwWatch watch = {0};

    world->next_beat_us = now_us - chance_us(world, 0, ttl_s / 4);
    for (;;) {
        gint64 seen_us = now_us + chance_us(world, 0, 0.01);

        beat_until(world, MIN(seen_us, death_us), ttl_s / 4, ttl_s / 4 + 0.02);
        now_us = seen_us + chance_us(world, 0, 0.01);
        world->looks += seen_us < death_us;
        if (sw_watch_look(&watch, world->counter, seen_us, now_us, ttl_us, TRUE))
            break;
        now_us = sw_watch_next_us(&watch, ttl_us) + chance_us(world, 0, 0.05);
    }
    assert_true(now_us - world->beat_us >= ttl_us);
    world->worst_us = MAX(world->worst_us, now_us - world->beat_us);
}

static void the_dead_are_found_in_time(void **state)
{
    static const int ttls[] = {2, 5, 20, 60};

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(ttls); i++) {
        World world = {.rand = g_rand_new_with_seed(3)};

        for (guint j = 0; j < ROUNDS; j++)
            live_and_die(&world, ttls[i] * S);
        print_message("ttl %d s: found at most %.2f s after the last beat, %.2f looks per beat\n", ttls[i],
                      (double)world.worst_us / S, (double)world.looks / world.beats);
        if (ttls[i] <= 20)
            assert_true(world.worst_us <= (ttls[i] + 2) * S);
        assert_true(world.looks <= world.beats * (ttls[i] == 2 ? 3.0 : 1.6));
        g_rand_free(world.rand);
    }
}

/* ---- the ring */

static GPtrArray *many_ids(guint n)
{
    GPtrArray *ids = g_ptr_array_new_with_free_func(g_free);

    for (guint i = 0; i < n; i++)
        g_ptr_array_add(ids, g_strdup_printf("host%04u.%016x", i, i * 2654435761u));
    return ids;
}

static gboolean is_in(gpointer data, const char *id)
{
    return g_hash_table_contains(data, id);
}

static void each_is_watched_by_three(void **state)
{
    g_autoptr(GPtrArray) ids = many_ids(HOSTS);
    guint watchers[HOSTS] = {0};

    (void)state;
    for (guint i = 0; i < HOSTS; i++) {
        g_autoptr(GPtrArray) chosen = sw_ring_choose(ids, ids->pdata[i], NULL, NULL);

        assert_int_equal(chosen->len, SW_RING_WATCHED);
        for (guint j = 0; j < chosen->len; j++)
            watchers[atoi((char *)chosen->pdata[j] + 4)]++;
    }
    for (guint i = 0; i < HOSTS; i++)
        assert_int_equal(watchers[i], SW_RING_WATCHED);
    print_message("%d hosts: each watches %d and is watched by %d\n", HOSTS, SW_RING_WATCHED, SW_RING_WATCHED);
}

/* Any number of silent ones in a row: each one behind them is still watched by three that are not silent. */
static void the_silent_do_not_count(void **state)
{
    g_autoptr(GPtrArray) ids = many_ids(40);
    GRand *rand = g_rand_new_with_seed(4);

    (void)state;
    for (guint round = 0; round < ROUNDS; round++) {
        g_autoptr(GHashTable) quiet = g_hash_table_new(g_str_hash, g_str_equal);
        guint watchers[40] = {0};

        for (guint i = g_rand_int_range(rand, 0, 36); i > 0; i--)
            g_hash_table_add(quiet, ids->pdata[g_rand_int_range(rand, 0, 40)]);
        for (guint i = 0; i < ids->len; i++) {
            g_autoptr(GPtrArray) chosen = sw_ring_choose(ids, ids->pdata[i], is_in, quiet);

            for (guint j = 0; j < chosen->len && !is_in(quiet, ids->pdata[i]); j++)
                watchers[atoi((char *)chosen->pdata[j] + 4)]++;
        }
        for (guint i = 0; i < ids->len; i++)
            assert_true(watchers[i] >= SW_RING_WATCHED);
    }
    g_rand_free(rand);
}

static void small_rings(void **state)
{
    (void)state;
    for (guint n = 0; n < 6; n++) {
        g_autoptr(GPtrArray) ids = many_ids(n);
        g_autoptr(GPtrArray) outside = sw_ring_choose(ids, "zzz.0000000000000000", NULL, NULL);

        assert_int_equal(outside->len, MIN(n, SW_RING_WATCHED));
        for (guint i = 0; i < n; i++) {
            g_autoptr(GPtrArray) chosen = sw_ring_choose(ids, ids->pdata[i], NULL, NULL);

            assert_int_equal(chosen->len, MIN(n - 1, SW_RING_WATCHED));
            for (guint j = 0; j < chosen->len; j++)
                assert_string_not_equal(chosen->pdata[j], ids->pdata[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables),
        cmocka_unit_test(the_living_are_never_broken),
        cmocka_unit_test(a_server_away_breaks_nobody),
        cmocka_unit_test(the_dead_are_found_in_time),
        cmocka_unit_test(each_is_watched_by_three),
        cmocka_unit_test(the_silent_do_not_count),
        cmocka_unit_test(small_rings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
