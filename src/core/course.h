/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_COURSE_H
#define SW_COURSE_H

/*
 * The orders of steps on which safety rests, as data (docs/protocol.md, P4 to P8, P14, L4).
 *
 * A course is a table with one row per state: the one step that leads on from there, and where to.  A state says what
 * has been done; it is kept by whoever does the steps, since what another did before him is done again.  The code of
 * src/lease runs these tables and has no order of its own, and the model that spin checks is made of the same rows
 * (tests/model), so neither can change without the other.
 *
 * Pure.
 */

#include <glib.h>

/*
 * The life of an epoch: state, step that leads on, next state.  Up to ALIVE it is its host's own doing, from LEAVING on
 * as well (from IDLE on, if it never held anything).  From CONDEMNED on it is whoever buries it; any number may go as
 * far as FENCED.
 */
#define SW_EPOCH_COURSE(ROW)                                                                                           \
    ROW(UNCLAIMED, MAKE_DIR, CLAIMED)                                                                                  \
    ROW(CLAIMED, PUT_RECORD, KNOWN)                                                                                    \
    ROW(KNOWN, MAKE_RELEASED, ARMED)                                                                                   \
    ROW(ARMED, MAKE_STAGES, ALIVE)                                                                                     \
    ROW(ALIVE, NOTHING, ALIVE)                                                                                         \
    ROW(CONDEMNED, REMOVE_RELEASED, DISARMED)                                                                          \
    ROW(DISARMED, REMOVE_STAGES, FENCED)                                                                               \
    ROW(FENCED, DROP_LEASES, UNLEASED)                                                                                 \
    ROW(UNLEASED, BREAK_LOCKS, UNLOCKED)                                                                               \
    ROW(UNLOCKED, REMOVE_HOST, GONE)                                                                                   \
    ROW(GONE, NOTHING, GONE)                                                                                           \
    ROW(LEAVING, BREAK_LOCKS, IDLE)                                                                                    \
    ROW(IDLE, REMOVE_RELEASED, PARTED)                                                                                 \
    ROW(PARTED, REMOVE_STAGES, EMPTY)                                                                                  \
    ROW(EMPTY, REMOVE_OWN_HOST, GONE)

/* Ending the hold of a host that is gone: a lease on a content, or the record of an application's lock. */
#define SW_HOLD_COURSE(ROW)                                                                                            \
    ROW(JUDGED, MARK, MARKED)                                                                                          \
    ROW(MARKED, READ_AGAIN, CERTAIN)                                                                                   \
    ROW(CERTAIN, UNDO, UNDONE)                                                                                         \
    ROW(UNDONE, DROP, BROKEN)                                                                                          \
    ROW(BROKEN, NOTHING, BROKEN)

#define SW_COURSE_STATE_(state, step, next) SW_EPOCH_##state,
typedef enum { SW_EPOCH_COURSE(SW_COURSE_STATE_) SW_EPOCH_STATES } SwEpochState;
#undef SW_COURSE_STATE_

#define SW_COURSE_STATE_(state, step, next) SW_HOLD_##state,
typedef enum { SW_HOLD_COURSE(SW_COURSE_STATE_) SW_HOLD_STATES } SwHoldState;
#undef SW_COURSE_STATE_

/* What is done; the code that does it switches over these. */
typedef enum {
    SW_STEP_NOTHING, /* the course ends here */
    /* of an epoch, by its host [P4] [P5] [P6] */
    SW_STEP_MAKE_DIR,
    SW_STEP_PUT_RECORD,
    SW_STEP_MAKE_RELEASED,
    SW_STEP_MAKE_STAGES,
    /* of an epoch, by whoever buries it, or its host that leaves [P8] [L5] */
    SW_STEP_REMOVE_RELEASED,
    SW_STEP_REMOVE_STAGES,
    SW_STEP_DROP_LEASES,
    SW_STEP_BREAK_LOCKS,
    SW_STEP_REMOVE_HOST,
    SW_STEP_REMOVE_OWN_HOST,
    /* of a hold, by whoever breaks it [P14] [L4] */
    SW_STEP_MARK,
    SW_STEP_READ_AGAIN,
    SW_STEP_UNDO,
    SW_STEP_DROP,
} SwStep;

typedef struct {
    SwStep step;
    guint next; /* a state of the same course */
} SwCourseRow;

extern const SwCourseRow sw_epoch_course[SW_EPOCH_STATES];
extern const SwCourseRow sw_hold_course[SW_HOLD_STATES];

/* 0 when the step is done, or had been before; else -errno. */
typedef int (*SwTakeStep)(gpointer data, SwStep step);

/*
 * Takes step after step from state `from` on, until state `until`, which has to be ahead.  The first error ends it and
 * is returned.  *ret_at (may be NULL) is always set: the state that was reached.
 */
int sw_course_run(const SwCourseRow *course, guint from, guint until, SwTakeStep take, gpointer data, guint *ret_at);

#endif
