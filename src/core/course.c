/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "course.h"

#define ROW(state, step, next) [SW_EPOCH_##state] = {SW_STEP_##step, SW_EPOCH_##next},
const SwCourseRow sw_epoch_course[SW_EPOCH_STATES] = {SW_EPOCH_COURSE(ROW)};
#undef ROW

#define ROW(state, step, next) [SW_HOLD_##state] = {SW_STEP_##step, SW_HOLD_##next},
const SwCourseRow sw_hold_course[SW_HOLD_STATES] = {SW_HOLD_COURSE(ROW)};
#undef ROW

int sw_course_run(const SwCourseRow *course, guint from, guint until, SwTakeStep take, gpointer data, guint *ret_at)
{
    guint at = from;
    int r = 0;

    while (r == 0 && at != until) {
        g_assert(course[at].step != SW_STEP_NOTHING);
        r = take(data, course[at].step);
        if (r == 0)
            at = course[at].next;
    }
    if (ret_at)
        *ret_at = at;
    return r;
}
