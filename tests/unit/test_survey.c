/* SPDX-License-Identifier: GPL-2.0-or-later */

/* A look at a control directory by who is no host (C23, C26), and what the administrator may order (C20). */

#include "lease_fixture.h"

#include "../../src/lease/survey.h"

#define HOSTS ".safewritefs/hosts"
#define LEASES ".safewritefs/leases"
#define LOCKS ".safewritefs/locks"
#define SALVAGE ".safewritefs/salvage"
#define GONE "gone.0123456789abcdef"

static SwSurvey survey_of(Fixture *f)
{
    SwSurvey survey;

    assert_int_equal(sw_survey_open(f->port, f->source, &survey), 0);
    return survey;
}

static void no_control_directory(void **state)
{
    Fixture *f = *state;
    SwSurvey survey;

    assert_int_equal(sw_survey_open(f->port, f->source, &survey), -ENOENT);
    assert_int_equal(count_names(f->path, ""), 0);
    assert_int_equal(symlink("/tmp", at(f, ".safewritefs")), 0);
    assert_true(sw_survey_open(f->port, f->source, &survey) < 0);
}

/* Of a host that is gone. */
static void make_mark(Fixture *f, const char *mark)
{
    assert_int_equal(mkdir(at(f, "%s", mark), 0700), 0);
    assert_int_equal(symlink("x", at(f, "%s/" GONE, mark)), 0);
}

static void shows_a_living_host(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    SwSurvey survey;
    const SwSurveyHost *host;
    g_autoptr(GPtrArray) hosts = NULL;

    stage(control, 2, "1", "12345");
    stage(control, 3, "1.info", "a note");
    assert_int_equal(symlinkat("/etc/passwd", sw_control_stage_dir(control, 4), "2"), 0);
    survey = survey_of(f);
    assert_int_equal(sw_survey_hosts(&survey, &hosts), 0);
    assert_int_equal(hosts->len, 1);
    host = sw_survey_find(hosts, sw_control_host_id(control));
    assert_non_null(host);
    assert_null(sw_survey_find(hosts, GONE));
    assert_true(host->here && host->has_record && host->stages_known);
    assert_int_equal(host->state, SW_HOST_ALIVE);
    assert_int_equal(host->stages, 1);
    assert_int_equal(host->stage_bytes, 5);
    assert_int_equal(host->record.pid, getpid());
    assert_true(host->age_us >= 0 && host->age_us < 10 * G_TIME_SPAN_SECOND);
    assert_false(survey.cut);
    sw_survey_clear(&survey);
    assert_int_equal(count_names(at(f, ".safewritefs"), ""), 6); /* nothing of ours is left */
    sw_control_close(control);
}

static void do_nothing(Fixture *f, SwControl *control)
{
    (void)f;
    stage(control, 0, "1", "bytes");
}

/* P7: with its record's lock free it is dead, whatever its heartbeat; looking takes nothing away. */
static void tells_the_dead(void **state)
{
    Fixture *f = *state;
    SwSurvey survey;

    die_after(f, do_nothing);
    survey = survey_of(f);
    for (guint i = 0; i < 2; i++) {
        g_autoptr(GPtrArray) hosts = NULL;

        assert_int_equal(sw_survey_hosts(&survey, &hosts), 0);
        assert_int_equal(hosts->len, 1);
        assert_int_equal(((SwSurveyHost *)hosts->pdata[0])->state, SW_HOST_DEAD);
    }
    sw_survey_clear(&survey);
}

/* Ages are the server's: what stands in the mtime is a counter. */
static void ages_by_the_server(void **state)
{
    static const struct {
        gint64 lead_us;
        SwHostState state;
    } cases[] = {
        {0, SW_HOST_ALIVE},
        {9 * G_TIME_SPAN_SECOND, SW_HOST_ALIVE},
        {11 * G_TIME_SPAN_SECOND, SW_HOST_LATE},
        {22 * G_TIME_SPAN_SECOND, SW_HOST_LATE},
        {23 * G_TIME_SPAN_SECOND, SW_HOST_SILENT},
        {-G_TIME_SPAN_HOUR, SW_HOST_ALIVE},
    };
    Fixture *f = *state;
    SwControl *control = open_control(f);

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        SwSurvey survey = survey_of(f);
        g_autoptr(GPtrArray) hosts = NULL;

        assert_true(survey.now_us > 0);
        survey.now_us += cases[i].lead_us;
        assert_int_equal(sw_survey_hosts(&survey, &hosts), 0);
        assert_int_equal(((SwSurveyHost *)hosts->pdata[0])->state, cases[i].state);
        sw_survey_clear(&survey);
    }
    sw_control_close(control);
}

static void passes_over_what_is_forged(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    SwSurvey survey;
    g_autoptr(GPtrArray) hosts = NULL, leases = NULL, locks = NULL;

    assert_int_equal(mkfifo(at(f, HOSTS "/fifo.0123456789abcdef"), 0600), 0);
    assert_int_equal(symlink(".", at(f, HOSTS "/link.0123456789abcdef")), 0);
    assert_int_equal(mkdir(at(f, HOSTS "/open.0123456789abcdef"), 0700), 0);
    assert_int_equal(chmod(at(f, HOSTS "/open.0123456789abcdef"), 0777), 0);
    assert_int_equal(mkdir(at(f, HOSTS "/no host"), 0700), 0);
    assert_int_equal(mkdir(at(f, HOSTS "/" GONE), 0700), 0);
    assert_int_equal(mkfifo(at(f, HOSTS "/" GONE "/record"), 0600), 0);
    write_text(at(f, LEASES "/1"), GONE " 1 -");
    assert_int_equal(symlink(GONE " 1 append 5 6 7 ../up", at(f, LEASES "/2")), 0);
    assert_int_equal(symlink(GONE " 1 append 5 6 7 a/b", at(f, LEASES "/3")), 0);
    assert_int_equal(symlink(GONE " 1 -", at(f, LEASES "/2.break")), 0);
    make_mark(f, LEASES "/3.break");
    assert_int_equal(mkfifo(at(f, LOCKS "/4"), 0600), 0);
    assert_int_equal(symlink(GONE " 1 file 5 6 7 a/b", at(f, LOCKS "/5")), 0);
    make_mark(f, LOCKS "/5.break");
    survey = survey_of(f);
    assert_int_equal(sw_survey_hosts(&survey, &hosts), 0);
    assert_int_equal(hosts->len, 2);
    assert_false(sw_survey_find(hosts, GONE)->has_record);
    assert_int_equal(sw_survey_leases(&survey, &leases), 0);
    assert_int_equal(leases->len, 3);
    assert_string_equal(((SwSurveyLease *)leases->pdata[0])->says.path, "a/b");
    assert_true(((SwSurveyLease *)leases->pdata[1])->is_mark && !((SwSurveyLease *)leases->pdata[1])->in_locks);
    assert_true(((SwSurveyLease *)leases->pdata[2])->is_mark && ((SwSurveyLease *)leases->pdata[2])->in_locks);
    assert_int_equal(sw_survey_locks(&survey, &locks), 0);
    assert_int_equal(locks->len, 1);
    sw_survey_clear(&survey);
    sw_control_close(control);
}

/* C20, P8: whatever its heartbeat says, and also one whose record nobody could believe. */
static void breaks_a_host_on_order(void **state)
{
    Fixture *f = *state;
    SwControl *other = open_control(f), *control = open_control(f);

    stage(other, 0, "1", "bytes");
    assert_int_equal(sw_control_break_host(control, sw_control_host_id(control)), -EINVAL);
    assert_int_equal(sw_control_break_host(control, GONE), -ENOENT);
    assert_int_equal(sw_control_break_host(control, "../hosts"), -ENOENT);
    assert_int_equal(sw_control_break_host(control, sw_control_host_id(other)), 0);
    assert_false(exists(at(f, HOSTS "/%s", sw_control_host_id(other))));
    assert_int_equal(count_names(at(f, SALVAGE), ".data"), 1);
    assert_int_equal(count_names(at(f, LEASES), ""), 0);
    assert_int_equal(sw_control_rejoin(other, sw_control_epoch(other)), 0);
    assert_int_equal(mkdir(at(f, HOSTS "/" GONE), 0700), 0);
    assert_int_equal(mkfifo(at(f, HOSTS "/" GONE "/record"), 0600), 0);
    assert_int_equal(sw_control_break_host(control, GONE), 0);
    assert_int_equal(count_names(at(f, HOSTS), ""), 2);
    sw_control_close(control);
    sw_control_close(other);
}

/* C21: what is new is held in an epoch that stands, also before the keeper has seen that the old one was broken. */
static void holds_in_an_epoch_that_stands(void **state)
{
    Fixture *f = *state;
    SwControl *other = open_control(f), *control = open_control(f);
    SwEpoch *first = sw_control_epoch(other), *epoch = NULL;

    assert_int_equal(sw_control_epoch_to_hold(other, &epoch), 0);
    assert_ptr_equal(epoch, first);
    assert_int_equal(sw_control_break_host(control, sw_control_host_id(other)), 0);
    assert_int_equal(sw_control_epoch_to_hold(other, &epoch), 0);
    assert_ptr_not_equal(epoch, first);
    assert_ptr_equal(epoch, sw_control_epoch(other));
    assert_int_equal(sw_control_confirm(other, epoch), 0);
    assert_int_equal(sw_control_confirm(other, first), -ESTALE);
    sw_control_close(control);
    sw_control_close(other);
}

static void sweeps_on_order(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);

    assert_int_equal(symlink(GONE " 1 -", at(f, LEASES "/0000000000000001")), 0);
    make_mark(f, LEASES "/0000000000000001.break");
    assert_int_equal(symlink(GONE " 1 file 1 1 1", at(f, LOCKS "/0000000000000001")), 0);
    sw_control_sweep(control);
    assert_int_equal(count_names(at(f, LEASES), ""), 0);
    assert_int_equal(count_names(at(f, LOCKS), ""), 0);
    sw_control_close(control);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(no_control_directory), TEST(shows_a_living_host),          TEST(tells_the_dead),
        TEST(ages_by_the_server),   TEST(passes_over_what_is_forged),   TEST(breaks_a_host_on_order),
        TEST(sweeps_on_order),      TEST(holds_in_an_epoch_that_stands)};

    return cmocka_run_group_tests_name("survey", tests, NULL, NULL);
}
