/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Feeds every parser of core with noise, and with good texts that were tampered with and sealed again, so that the sum
 * does not keep the noise from the fields behind it.  Nothing may crash (run it under sanitizers, too), and whatever
 * is accepted must come back the same after being written.  `test_fuzz SEED` repeats a run.
 */

#include "../../src/core/acl.h"
#include "../../src/core/policy.h"
#include "../../src/core/ranges.h"
#include "../../src/core/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ITERATIONS 200000
#define INPUT_MAX 400

static guint64 state;

static guint64 next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

typedef struct {
    char bytes[INPUT_MAX + 1]; /* always ends with NUL */
    gsize length;
} Input;

/* The sum as core/record.c describes it. */
static void reseal(Input *input)
{
    guint64 hash = G_GUINT64_CONSTANT(0xcbf29ce484222325);
    char sum[22];

    if (input->length < 21)
        return;
    for (gsize i = 0; i < input->length - 21; i++)
        hash = (hash ^ (guchar)input->bytes[i]) * G_GUINT64_CONSTANT(0x100000001b3);
    g_snprintf(sum, sizeof(sum), "sum=%016" G_GINT64_MODIFIER "x\n", hash);
    memcpy(input->bytes + input->length - 21, sum, 21);
}

static void make_noise(Input *input)
{
    static const char likely[] = "/.%:[]!\\*?= -\n+0123456789abcdefxsafewritefs";

    input->length = next() % 120;
    for (gsize i = 0; i < input->length; i++)
        input->bytes[i] = next() % 4 ? likely[next() % (sizeof(likely) - 1)] : (char)next();
    input->bytes[input->length] = '\0';
}

static void tamper(Input *input, const char *good)
{
    static const char likely[] = "%/.=\n 0-9a";

    input->length = MIN(strlen(good), INPUT_MAX);
    memcpy(input->bytes, good, input->length);
    for (guint n = (guint)(next() % 4); n > 0; n--)
        input->bytes[next() % input->length] = next() % 3 ? likely[next() % (sizeof(likely) - 1)] : (char)next();
    if (next() % 8 == 0)
        input->length = next() % input->length;
    input->bytes[input->length] = '\0';
}

static void check(gboolean good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "not the same after being written: %s\n", what);
    abort();
}

static void try_host(const Input *input)
{
    SwHostRecord record, again;
    g_autofree char *text = NULL;

    if (sw_host_record_parse(input->bytes, input->length, &record) < 0)
        return;
    text = sw_host_record_format(&record);
    check(sw_host_record_parse(text, strlen(text), &again) == 0 && memcmp(&record, &again, sizeof(record)) == 0, text);
}

static void try_salvage(const Input *input)
{
    SwSalvageInfo info, again;
    g_autofree char *text = NULL;

    if (sw_salvage_info_parse(input->bytes, input->length, &info) < 0)
        return;
    text = sw_salvage_info_format(&info);
    check(sw_salvage_info_parse(text, strlen(text), &again) == 0, text);
    check(strcmp(info.path, again.path) == 0 && strcmp(info.host_id, again.host_id) == 0 && info.size == again.size &&
              strcmp(info.reason, again.reason) == 0,
          text);
    sw_salvage_info_clear(&info);
    sw_salvage_info_clear(&again);
}

static void try_links(const Input *input)
{
    char id[SW_HOST_ID_MAX + 1];
    SwLeaseText lease, again;
    g_autofree char *text = NULL;

    if (sw_claim_parse(input->bytes, id))
        check(sw_host_id_is_valid(id), id);
    if (sw_lease_text_parse(input->bytes, &lease) < 0)
        return;
    text = sw_lease_text_format(&lease);
    check(sw_lease_text_parse(text, &again) == 0 && memcmp(&lease, &again, sizeof(lease)) == 0, text);
}

static void try_lock(const Input *input)
{
    SwLockText lock, again;
    g_autofree char *text = NULL;

    if (sw_lock_text_parse(input->bytes, &lock) < 0)
        return;
    text = sw_lock_text_format(&lock);
    check(sw_lock_text_parse(text, &again) == 0 && memcmp(&lock, &again, sizeof(lock)) == 0, text);
}

static void try_acl(const Input *input)
{
    g_autofree void *access = NULL;
    gsize size;
    mode_t mode;

    if (sw_acl_inherit(input->bytes, input->length, 0666, &mode, &access, &size) == 0)
        check((mode & ~0666u) == 0, "acl");
}

static void try_policy(const Input *input)
{
    SwPolicy policy;

    sw_policy_init(&policy);
    if (sw_policy_set(&policy, (SwClass)(next() % 5), input->bytes, NULL) == 0)
        sw_policy_classify(&policy, input->bytes);
    sw_policy_clear(&policy);
}

static void try_ranges(SwRanges *ranges)
{
    guint64 at = next() >> next() % 64, n = next() >> next() % 64;

    if (next() % 16 == 0)
        sw_ranges_truncate(ranges, at);
    else
        sw_ranges_add(ranges, at, n);
    check(sw_ranges_count(ranges) <= SW_RANGES_MAX, "ranges");
}

/* Good texts to start from. */
typedef struct {
    char *host, *salvage, *lease, *claim, *lock;
} Samples;

static Samples samples_new(void)
{
    const SwHostRecord host = {.id = "n.0123456789abcdef", .boot_id = "0-1", .lease_us = 20, .version = "0.1"};
    const SwSalvageInfo info = {.path = (char *)"a b/c", .reason = (char *)"killed", .command = (char *)"x"};
    const SwLeaseText lease = {.host_id = "n.0123456789abcdef", .appending = TRUE, .path = "a b/c"};

    const SwLockText lock = {.host_id = "n.0123456789abcdef", .kind = SW_LOCK_LINK, .pid = 7, .path = "a b/c"};

    return (Samples){sw_host_record_format(&host), sw_salvage_info_format(&info), sw_lease_text_format(&lease),
                     sw_claim_format("n.0123456789abcdef", "1/2"), sw_lock_text_format(&lock)};
}

static void samples_free(Samples *samples)
{
    g_free(samples->host);
    g_free(samples->salvage);
    g_free(samples->lease);
    g_free(samples->claim);
    g_free(samples->lock);
}

static void acl_like(Input *input)
{
    static const char acl[] = "\2\0\0\0\1\0\7\0\377\377\377\377\2\0\7\0\1\0\0\0\4\0\5\0\377\377\377\377"
                              "\20\0\7\0\377\377\377\377\40\0\4\0\377\377\377\377";

    input->length = sizeof(acl) - 1;
    memcpy(input->bytes, acl, sizeof(acl));
    input->bytes[next() % input->length] = (char)(next() % 64);
}

static void iterate(const Samples *samples, SwRanges *ranges)
{
    Input input;

    switch (next() % 8) {
    case 0:
        make_noise(&input);
        try_host(&input);
        try_salvage(&input);
        try_links(&input);
        try_lock(&input);
        try_acl(&input);
        break;
    case 1:
    case 2:
        tamper(&input, next() % 2 ? samples->host : samples->salvage);
        reseal(&input);
        try_host(&input);
        try_salvage(&input);
        break;
    case 3:
    case 4:
        tamper(&input, next() % 2 ? samples->lease : samples->claim);
        try_links(&input);
        tamper(&input, samples->lock);
        try_lock(&input);
        break;
    case 5:
        acl_like(&input);
        try_acl(&input);
        break;
    default:
        try_ranges(ranges);
    }
    /* Setting up a policy costs more than all the others. */
    if (next() % 50 == 0) {
        make_noise(&input);
        try_policy(&input);
    }
}

int main(int argc, char **argv)
{
    guint64 seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 20261122;
    Samples samples = samples_new();
    SwRanges ranges;

    printf("seed %" G_GUINT64_FORMAT "\n", seed);
    fflush(stdout);
    state = seed ? seed : 1;
    sw_ranges_init(&ranges);
    for (guint i = 0; i < ITERATIONS; i++)
        iterate(&samples, &ranges);
    sw_ranges_clear(&ranges);
    samples_free(&samples);
    return 0;
}
