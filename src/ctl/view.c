/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "view.h"

#include <errno.h>
#include <stdio.h>

int sw_view_take(SwView *view, const SwSurvey *survey, const char *path)
{
    int r;

    *view = (SwView){.survey = *survey};
    r = sw_survey_hosts(&view->survey, &view->hosts);
    if (r == 0)
        r = sw_survey_leases(&view->survey, &view->leases);
    if (r == 0)
        r = sw_survey_locks(&view->survey, &view->locks);
    if (r < 0)
        return sw_fail("cannot read the control directory %s/%s: %s", path, SW_CONTROL_DIR, g_strerror(-r));
    return 0;
}

void sw_view_clear(SwView *view)
{
    g_clear_pointer(&view->hosts, g_ptr_array_unref);
    g_clear_pointer(&view->leases, g_ptr_array_unref);
    g_clear_pointer(&view->locks, g_ptr_array_unref);
    sw_survey_clear(&view->survey);
}

SwHostState sw_view_state(const SwView *view, const char *host_id)
{
    const SwSurveyHost *host = sw_survey_find(view->hosts, host_id);

    return host ? host->state : SW_HOST_GONE;
}

int sw_view_entries(const SwView *view, const char *path, GPtrArray **ret_entries)
{
    int salvage = view->survey.salvage;
    int r = salvage < 0 ? salvage : sw_salvage_scan(view->survey.port, salvage, ret_entries);

    if (r == -ENOENT) { /* a control directory that has just been made */
        *ret_entries = g_ptr_array_new();
        r = 0;
    }
    if (r < 0)
        return sw_fail("cannot list %s/%s/salvage: %s", path, SW_CONTROL_DIR, g_strerror(-r));
    return 0;
}

/* ---- leases on contents */

static void lease_json(const SwView *view, const SwSurveyLease *lease, SwJson *json)
{
    sw_json_open(json, NULL, '{');
    sw_json_text(json, "inode_hex", lease->name);
    sw_json_text(json, "host", lease->says.host_id);
    sw_json_text(json, "host_state", sw_host_state_name(sw_view_state(view, lease->says.host_id)));
    sw_json_age(json, "age_seconds", lease->age_us);
    sw_json_text(json, "intent", lease->says.appending ? "append" : "edit");
    sw_json_text(json, "path", *lease->says.path ? lease->says.path : NULL);
    if (lease->says.appending) {
        sw_json_size(json, "append_offset", lease->says.append_offset);
        sw_json_size(json, "append_bytes", lease->says.append_length);
    } else {
        sw_json_null(json, "append_offset");
        sw_json_null(json, "append_bytes");
    }
    sw_json_close(json);
}

void sw_view_leases_json(const SwView *view, SwJson *json)
{
    sw_json_open(json, "content_leases", '[');
    for (guint i = 0; i < view->leases->len; i++)
        if (!((SwSurveyLease *)view->leases->pdata[i])->is_mark)
            lease_json(view, view->leases->pdata[i], json);
    sw_json_close(json);
}

void sw_view_leases_print(const SwView *view)
{
    gboolean titled = FALSE;

    for (guint i = 0; i < view->leases->len; i++) {
        const SwSurveyLease *lease = view->leases->pdata[i];
        g_autofree char *age = sw_age_text(lease->age_us);
        g_autofree char *path = sw_printable(*lease->says.path ? lease->says.path : "?", FALSE);
        g_autofree char *name = sw_printable(lease->name, FALSE);

        if (lease->is_mark)
            continue;
        if (!titled)
            (void)printf("\n  %-16s %-7s %9s %-7s %-32s %s\n", "LEASE ON INODE", "FOR", "HELD FOR", "STATE", "HOST",
                         "PATH");
        titled = TRUE;
        (void)printf("  %-16s %-7s %9s %-7s %-32s %s\n", name, lease->says.appending ? "append" : "edit", age,
                     sw_host_state_name(sw_view_state(view, lease->says.host_id)), lease->says.host_id, path);
    }
}
