/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Prints the tables of core/course.h as Promela: the model is made of the rows that the code runs. */

#include "../../src/core/course.h"

#include <stdio.h>

static const char *const epochs[] = {
#define NAME(state, step, next) "EPOCH_" #state,
    SW_EPOCH_COURSE(NAME)
#undef NAME
};

static const char *const holds[] = {
#define NAME(state, step, next) "HOLD_" #state,
    SW_HOLD_COURSE(NAME)
#undef NAME
};

/* What a state's row calls its step. */
static const char *const epoch_steps[] = {
#define NAME(state, step, next) "STEP_" #step,
    SW_EPOCH_COURSE(NAME)
#undef NAME
};

static const char *const hold_steps[] = {
#define NAME(state, step, next) "STEP_" #step,
    SW_HOLD_COURSE(NAME)
#undef NAME
};

static void print_course(const char *what, const SwCourseRow *course, guint n, const char *const *names,
                         const char *const *steps)
{
    for (guint i = 0; i < n; i++)
        printf("#define %s %u\n", names[i], i);
    for (guint i = 0; i < n; i++)
        printf("#ifndef %s\n#define %s %d\n#endif\n", steps[i], steps[i], course[i].step);
    printf("\ninline %s_row(at, step, next)\n{\n\tif\n", what);
    for (guint i = 0; i < n; i++)
        printf("\t:: at == %s -> step = %s; next = %s\n", names[i], steps[i], names[course[i].next]);
    printf("\tfi\n}\n\n");
}

int main(void)
{
    printf("/* Made of src/core/course.h by tests/model/tables.c. */\n\n");
    print_course("epoch", sw_epoch_course, SW_EPOCH_STATES, epochs, epoch_steps);
    print_course("hold", sw_hold_course, SW_HOLD_STATES, holds, hold_steps);
    return 0;
}
