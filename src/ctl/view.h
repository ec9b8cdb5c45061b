/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_VIEW_H
#define SW_VIEW_H

/* What several commands show: which host, in which state; leases on contents. */

#include "../lease/salvage.h"
#include "../lease/survey.h"
#include "say.h"

/* Everything a look at a control directory gives, at once. */
typedef struct {
    SwSurvey survey;
    GPtrArray *hosts;  /* of SwSurveyHost */
    GPtrArray *leases; /* of SwSurveyLease: leases on contents and marks */
    GPtrArray *locks;  /* of SwSurveyLock */
} SwView;

/* Exit code; `path` is the source's, for messages.  Takes over `survey`.  To be cleared in any case. */
int sw_view_take(SwView *view, const SwSurvey *survey, const char *path);
void sw_view_clear(SwView *view);

/* The state of that host, SW_HOST_GONE if it has no directory. */
SwHostState sw_view_state(const SwView *view, const char *host_id);

/* What is in salvage, of SwSalvageEntry; exit code. */
int sw_view_entries(const SwView *view, const char *path, GPtrArray **ret_entries);

/* "content_leases": an array of objects.  As text: nothing where there are none. */
void sw_view_leases_json(const SwView *view, SwJson *json);
void sw_view_leases_print(const SwView *view);

#endif
