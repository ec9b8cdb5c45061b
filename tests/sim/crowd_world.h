/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_CROWD_WORLD_H
#define SW_TEST_CROWD_WORLD_H

/* A crowd of hosts (test_crowd.c, figures.c): each with a keeper task and, if there is work, a worker task. */

#include "disk.h"
#include "lies.h"

#include "../../src/lease/content_lease.h"
#include "../../src/lease/keeper.h"

#define S G_TIME_SPAN_SECOND
#define TTL (20 * S)

typedef struct World World;

typedef struct {
    World *world;
    guint number;
    SimHost *host; /* while it is up */
    SwKeeper *keeper;
    SwContentLeases *leases;
    gboolean up, busy, lost;
    gint64 died_us;
} Member;

struct World {
    Sim *sim;
    guint n;
    Member *members;
    gint64 stale_us; /* 0: its caches do not lie */
    gboolean bare;   /* no overlays, no stages: hosts that only keep themselves alive */
    void (*work)(Member *m);
    guint64 steps;
    gboolean calm, over;
    GHashTable *epochs; /* id -> Epoch, owned */
    GHashTable *owners; /* what -> id, owned */
    GHashTable *failed; /* texts whose close failed, owned */
    GHashTable *late;   /* names of locks that were made when their hosts had been buried, owned */
    guint serial, deaths, fenced, rejoined, committed, refused, reads;
    gint64 slowest_us; /* from a death to the fence */
    GArray *breaks;    /* of gint64: each of these */
};

World *world_new(guint64 seed, guint n, gint64 stale_us);
/* Runs all hosts and `govern`, which ends with world->over set. */
void world_run(World *world, void (*govern)(gpointer world));
void world_free(World *world);
void world_raise_limits(void);

gint64 now_of(const World *world);
gint64 chance(World *world, gint64 from, gint64 to);
void world_rest(World *world, gint64 us);
/* Has nobody taken away what that epoch needs to publish and release anything? */
gboolean world_is_unfenced(const World *world, const char *id);
/* Have its stages gone as well, which go last?  In between, one may still be committed: nobody has its locks yet. */
gboolean world_is_fenced(const World *world, const char *id);
gboolean world_has(const World *world, const char *name);
/* With the periodic work of its overlay. */
void member_rest(Member *m, gint64 us);
void member_die(Member *m);

#endif
