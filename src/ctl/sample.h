/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_SAMPLE_H
#define SW_SAMPLE_H

/*
 * What top shows: how much its mounts of this machine do in a second, and what the source looks like.
 *
 * A thread takes samples, for the source may not answer; whoever shows them never waits for it.
 */

#include "../core/metrics.h"

#include "writing.h"

typedef struct {
    guint mounts, up;  /* of this machine; how many of them answer */
    gint64 uptime_us;  /* of the youngest */
    SwMetrics metrics; /* of all of them */
} SwNumbers;

typedef struct {
    gint refs;                /* atomic */
    gint64 taken_us, span_us; /* monotonic; since the one before: 0 in the first */
    SwNumbers before, now;
    /* Of the source; NULL, and the counts are 0, where it cannot be looked at. */
    GPtrArray *hosts; /* lines for people, as the next two */
    GPtrArray *stages;
    GPtrArray *locks;
    guint states[SW_HOST_GONE + 1];
    guint salvage_entries;
    guint64 salvage_bytes;
} SwSample;

typedef struct SwSampler SwSampler;

/* `path` is a source or a mountpoint, and outlives it; each takes at least `every_us`.  It is never ended: the thread
 * may hang in the source for as long as the program lives. */
SwSampler *sw_sampler_start(const char *path, gint64 every_us);
/* The last one, with a reference; NULL: there is none yet. */
SwSample *sw_sampler_last(SwSampler *sampler);
void sw_sample_unref(SwSample *sample);

/* How many per second. */
double sw_sample_rate(const SwSample *sample, SwCount what);
/* How many per second, and how long each took on average. */
double sw_sample_times(const SwSample *sample, SwTimer what, double *ret_mean_us);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(SwSample, sw_sample_unref)

#endif
