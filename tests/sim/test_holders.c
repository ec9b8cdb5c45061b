/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Descriptors that are handed on while the close verdict looks for who holds one (C3).
 */

#include "disk.h"

#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define NAME "data.bin"
#define HALF "the first half, "
#define REST "and the rest"

/* What happens right before somebody's descriptors are looked at; static, for the port has no room for it. */
static struct {
    SimHost *host;
    SimProcess *giver; /* when this one is to be looked at, it forks and closes; NULL: that is over */
    SimProcess *taker;
    GArray *closing; /* of SimDescriptor: the giver's, whose FLUSH waits for the verdict */
    int (*holdings)(SwPort *port, pid_t tgid, dev_t dev, ino_t ino, SwHoldings *ret_holdings);
} handing;

static int hand_on(SwPort *port, pid_t tgid, dev_t dev, ino_t ino, SwHoldings *ret_holdings)
{
    SimProcess *giver = handing.giver;

    if (giver && giver->pid == tgid) {
        handing.giver = NULL;
        handing.taker = sim_fork(handing.host, giver);
        /* As its standard output: no copy that is merely inherited. */
        g_array_index(handing.taker->fds, SimDescriptor, 0).number = 1;
        handing.closing = giver->fds;
        giver->fds = g_array_new(FALSE, TRUE, sizeof(SimDescriptor));
    }
    return handing.holdings(port, tgid, dev, ino, ret_holdings);
}

static void assert_reads(SimHost *host, const char *expected)
{
    char *text = NULL;

    assert_int_equal(sim_get(host, NAME, &text), 0);
    assert_string_equal(text ? text : "(none)", expected);
    g_free(text);
}

/* { head; tail & } > file: the shell forks and closes while the end of `head` is judged. */
static void handed_on_meanwhile(void **state)
{
    Sim *sim = sim_new(1);
    SimHost *host = sim_host_mounted(sim, 1), *other = sim_host_mounted(sim, 2);
    SimProcess *shell = sim_program(host), *head;
    int fd = sim_open(host, shell, NAME, O_WRONLY | O_CREAT | O_TRUNC);

    (void)state;
    assert_true(fd >= 0);
    head = sim_fork(host, shell);
    assert_int_equal(sim_write(host, head, fd, HALF), strlen(HALF));
    handing.host = host;
    handing.giver = shell;
    handing.holdings = host->port->holdings;
    host->port->holdings = hand_on;
    sim_exit(host, head, 0);
    assert_non_null(handing.taker);
    assert_reads(other, "(none)");

    g_array_unref(shell->fds);
    shell->fds = handing.closing;
    assert_int_equal(sim_close(host, shell, fd), 0);
    assert_reads(other, "(none)");
    assert_int_equal(sim_write(host, handing.taker, 1, REST), strlen(REST));
    sim_exit(host, handing.taker, 0);
    assert_reads(other, HALF REST);
    assert_string_equal(sim->complaints->str, "");
    sim_host_free(host);
    sim_host_free(other);
    sim_free(sim);
}

/* C21: a breaker takes the stage while the host stands still; a close that leaves open who else has the file tells. */
static void taken_before_a_close_that_is_not_the_last(void **state)
{
    Sim *sim = sim_new(1);
    SimHost *host = sim_host_mounted(sim, 1);
    SimProcess *shell = sim_program(host), *other;
    int fd = sim_open(host, shell, NAME, O_WRONLY | O_CREAT | O_TRUNC);
    g_autofree char *taking = g_strdup_printf("find %s/.safewritefs/hosts -mindepth 3 -type f -delete", sim->path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(sim_write(host, shell, fd, HALF), strlen(HALF));
    other = sim_fork(host, shell);
    g_array_index(other->fds, SimDescriptor, 0).number = 1;
    assert_true(g_spawn_command_line_sync(taking, NULL, NULL, NULL, NULL));
    assert_int_equal(sim_close(host, shell, fd), -ESTALE);
    assert_int_equal(sim_write(host, other, 1, REST), -ESTALE);
    sim_exit(host, other, 0);
    assert_reads(host, "(none)");
    sim_host_free(host);
    sim_free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handed_on_meanwhile),
        cmocka_unit_test(taken_before_a_close_that_is_not_the_last),
    };

    return cmocka_run_group_tests_name("holders", tests, NULL, NULL);
}
