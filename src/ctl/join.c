/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "join.h"

#include "../log/log.h"

#include "say.h"

#include <unistd.h>

#define LEASE_US (20 * G_TIME_SPAN_SECOND)

void sw_join_settings(SwConfig *ret_config)
{
    *ret_config = (SwConfig){.lease_us = LEASE_US, .salvage_max = G_MAXINT64, .salvage_age_us = G_MAXINT64};
}

/* Where root is somebody else on the server, only trying tells. */
static int refuse_foreign(const SwPlace *place, const SwSurvey *survey)
{
    return sw_fail("the control directory %s/%s belongs to uid %u, and this runs as uid %u: run it as that user",
                   place->path, SW_CONTROL_DIR, survey->owner, geteuid());
}

static void note(gpointer data, SwNoteLevel level, const SwEvent *event, const char *text)
{
    sw_log_note(level, event, sw_control_host_id(data), text);
}

void sw_join_tell(SwEventKind kind, const char *host_id, const char *reason)
{
    SwEvent event = {.kind = kind, .host_id = host_id, .reason = reason};

    sw_log_event(SW_LOG_INFO, &event, "host %s is %s by safewritectl", host_id,
                 kind == SW_EVENT_HOST_BURIED ? "buried" : "broken");
}

int sw_join(const SwPlace *place, const SwSurvey *survey, const SwConfig *config, SwControl **ret_control)
{
    g_autofree char *why = NULL;
    int r;

    if (geteuid() != 0 && geteuid() != survey->owner)
        return refuse_foreign(place, survey);
    r = sw_control_open(place->port, place->source, place->path, config, ret_control, &why);
    if (r < 0 && geteuid() != survey->owner)
        return refuse_foreign(place, survey);
    if (r < 0)
        return sw_fail("cannot join the hosts of %s: %s", place->path, why);
    sw_log_about(NULL, place->path);
    sw_log_to_system();
    sw_control_on_note(*ret_control, note, *ret_control);
    return 0;
}
