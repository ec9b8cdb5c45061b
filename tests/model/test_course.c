/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The code takes the steps of core/course.h in the order of the table, and each step does what it is called: the calls
 * of a burial, and of the breaking of a lease, as the source sees them (P8, P14).
 */

#include "../../src/core/course.h"

#include "../../src/lease/control_internal.h"
#include "../unit/lease_fixture.h"

typedef int (*Unlinkat)(SwPort *port, int dirfd, const char *name, int flags);
typedef int (*Renameat)(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags);

static Unlinkat real_unlinkat;
static Renameat real_renameat;
static const SwControl *watched;
static GString *seen;

static void saw(const char *what)
{
    if (!g_str_has_suffix(seen->str, what))
        g_string_append_printf(seen, "%s%s", seen->len ? " " : "", what);
}

static int unlinkat_seen(SwPort *port, int dirfd, const char *name, int flags)
{
    int r = real_unlinkat(port, dirfd, name, flags);

    if (r == 0 && (flags & AT_REMOVEDIR) && strcmp(name, "released") == 0)
        saw("REMOVE_RELEASED");
    else if (r == 0 && (flags & AT_REMOVEDIR) && strcmp(name, "stage") == 0)
        saw("REMOVE_STAGES");
    else if (r == 0 && (flags & AT_REMOVEDIR) && dirfd == watched->hosts)
        saw("REMOVE_HOST");
    return r;
}

static int renameat_seen(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    int r = real_renameat(port, olddir, oldname, newdir, newname, flags);

    if (r == 0 && newdir == watched->leases && g_str_has_suffix(newname, SW_MARK))
        saw("MARK");
    else if (r == 0 && olddir == watched->leases)
        saw("DROP_LEASES");
    else if (r == 0 && olddir == watched->locks)
        saw("BREAK_LOCKS");
    return r;
}

/* A mount that dies with a stage, a lease and a record of a lock. */
static void hold_all(Fixture *f, SwControl *control)
{
    g_autofree char *lease = g_strdup_printf("%s 1 -", sw_control_host_id(control));
    g_autofree char *record = g_strdup_printf("%s 1 file 1 1 1", sw_control_host_id(control));

    stage(control, 0, "1", "bytes");
    if (symlink(lease, at(f, ".safewritefs/leases/00000000000000aa")) < 0 ||
        symlink(record, at(f, ".safewritefs/locks/00000000000000bb")) < 0)
        _exit(1);
}

/* What the table says from CONDEMNED on, as it shows: the host's mark comes first, and the lease has one of its own. */
static char *expected_burial(void)
{
    static const char *const names[] = {
#define NAME(state, step, next) #step,
        SW_EPOCH_COURSE(NAME)
#undef NAME
    };
    GString *steps = g_string_new("MARK");

    for (guint at = SW_EPOCH_CONDEMNED; at != SW_EPOCH_GONE; at = sw_epoch_course[at].next)
        g_string_append_printf(steps, "%s %s", sw_epoch_course[at].step == SW_STEP_DROP_LEASES ? " MARK" : "",
                               names[at]);
    return g_string_free(steps, FALSE);
}

static char *other_host(const Fixture *f, SwControl *control)
{
    GDir *dir = g_dir_open(at(f, ".safewritefs/hosts"), 0, NULL);
    char *id = NULL;
    const char *name;

    assert_non_null(dir);
    while ((name = g_dir_read_name(dir)))
        if (strcmp(name, sw_control_host_id(control)) != 0)
            id = g_strdup(name);
    g_dir_close(dir);
    assert_non_null(id);
    return id;
}

static void burial(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    g_autofree char *expected = expected_burial(), *id = NULL;

    die_after(f, hold_all);
    id = other_host(f, control);
    watched = control;
    seen = g_string_new(NULL);
    real_unlinkat = f->port->unlinkat;
    real_renameat = f->port->renameat;
    f->port->unlinkat = unlinkat_seen;
    f->port->renameat = renameat_seen;
    assert_int_equal(sw_bury_if_dead(control, id), 0);
    f->port->unlinkat = real_unlinkat;
    f->port->renameat = real_renameat;
    assert_string_equal(seen->str, expected);
    g_string_free(seen, TRUE);
    sw_control_close(control);
}

/* Each state leads on, and no course goes in circles. */
static void courses_end(void **state)
{
    (void)state;
    for (guint from = 0; from < SW_EPOCH_STATES; from++) {
        guint at = from, n = 0;

        while (sw_epoch_course[at].step != SW_STEP_NOTHING && n++ < SW_EPOCH_STATES)
            at = sw_epoch_course[at].next;
        assert_true(at == SW_EPOCH_ALIVE || at == SW_EPOCH_GONE);
    }
    for (guint from = 0; from < SW_HOLD_STATES; from++) {
        guint at = from, n = 0;

        while (sw_hold_course[at].step != SW_STEP_NOTHING && n++ < SW_HOLD_STATES)
            at = sw_hold_course[at].next;
        assert_int_equal(at, SW_HOLD_BROKEN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(burial, fixture_setup, fixture_teardown),
        cmocka_unit_test(courses_end),
    };

    return cmocka_run_group_tests_name("course", tests, NULL, NULL);
}
