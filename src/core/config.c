/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Defaults, and the relations that have to hold between settings.  The bounds are wide: they refuse what cannot work
 * or was meant in another unit, not what is unwise.
 */

#include "config.h"

#define SECOND G_USEC_PER_SEC
#define HOUR (3600 * (gint64)SECOND)
#define DAY (24 * HOUR)

void sw_config_init(SwConfig *config)
{
    *config = (SwConfig){
        .append_interval_us = SECOND,
        .attr_cache_us = SECOND,
        .lease_us = 20 * SECOND,
        .edit_copy_max = G_GUINT64_CONSTANT(1) << 30,
        .salvage_max = G_GUINT64_CONSTANT(1) << 30,
        .salvage_age_us = 7 * DAY,
        .fsync = SW_FSYNC_STAGE,
        .on_kill = SW_ON_KILL_SALVAGE,
        .commit_sync = SW_SYNC_AUTO,
        .keep = SW_KEEP_AUTO,
        .keep_old_us = 60 * SECOND,
        .passthrough = SW_PASSTHROUGH_AUTO,
        .uring = SW_URING_AUTO,
        .wait_source_us = 30 * SECOND,
        .restart = SW_RESTART_YES,
    };
    sw_policy_init(&config->policy);
}

void sw_config_clear(SwConfig *config)
{
    sw_policy_clear(&config->policy);
    g_clear_pointer(&config->require_fstype, g_free);
}

/* The first time that is out of its bounds, as a sentence, or NULL. */
static char *time_complaint(const SwConfig *config)
{
    const struct {
        const char *name;
        gint64 value, min, max;
    } times[] = {
        {"append-interval", config->append_interval_us, SECOND / 100, HOUR},
        {"attr-cache", config->attr_cache_us, 0, HOUR},
        {"lease", config->lease_us, 2 * SECOND, DAY},
        {"keep-old", config->keep_old_us, SECOND, DAY},
        {"wait-source", config->wait_source_us, 0, DAY},
        {"salvage-age", config->salvage_age_us, SECOND, 36500 * DAY},
    };

    for (guint i = 0; i < G_N_ELEMENTS(times); i++)
        if (times[i].value < times[i].min || times[i].value > times[i].max)
            return g_strdup_printf("%s must be between %g and %g seconds, not %g.", times[i].name,
                                   (double)times[i].min / SECOND, (double)times[i].max / SECOND,
                                   (double)times[i].value / SECOND);
    return NULL;
}

char *sw_config_complaint(const SwConfig *config)
{
    char *complaint = time_complaint(config);

    if (complaint)
        return complaint;
    /* An entry that is older than this when it arrives would be dropped before anybody can have seen it. */
    if (config->salvage_age_us < config->lease_us)
        return g_strdup("salvage-age must not be shorter than lease.");
    if (config->fsync != SW_FSYNC_STAGE && config->fsync != SW_FSYNC_PUBLISH)
        return g_strdup("fsync must be \"stage\" or \"publish\".");
    if (config->on_kill != SW_ON_KILL_SALVAGE && config->on_kill != SW_ON_KILL_COMMIT)
        return g_strdup("on-kill must be \"salvage\" or \"commit\".");
    if (config->commit_sync != SW_SYNC_AUTO && config->commit_sync != SW_SYNC_ALWAYS &&
        config->commit_sync != SW_SYNC_NEVER)
        return g_strdup("commit-sync must be \"auto\", \"always\" or \"never\".");
    if (config->keep != SW_KEEP_AUTO && config->keep != SW_KEEP_ALWAYS && config->keep != SW_KEEP_NEVER)
        return g_strdup("keep must be \"auto\", \"always\" or \"never\".");
    return NULL;
}
