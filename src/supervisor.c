/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    const SwSupervised *what;
    sigset_t before; /* the signal mask that the daemon gets */
    int signals;     /* signalfd */
    int ready_fd;    /* where the present daemon says that its mount answers; then -1 */
    pid_t child;     /* 0 between two */
    gboolean answered, stopping;
} Supervisor;

gint64 sw_crashes_add(SwCrashes *crashes, gint64 now_us)
{
    gboolean calm = !crashes->n || now_us - crashes->at_us[crashes->n - 1] >= SW_CRASHES_CALM_US;

    if (crashes->n == SW_CRASHES_MAX) {
        if (now_us - crashes->at_us[0] < SW_CRASHES_WITHIN_US)
            return -1;
        memmove(crashes->at_us, crashes->at_us + 1, sizeof crashes->at_us - sizeof crashes->at_us[0]);
        crashes->n--;
    }
    crashes->at_us[crashes->n++] = now_us;
    return calm ? 0 : SW_CRASHES_PAUSE_US;
}

static void say(const Supervisor *supervisor, gboolean is_error, char *text)
{
    supervisor->what->say(is_error, text);
    g_free(text);
}

static void take_signals(Supervisor *supervisor)
{
    sigset_t waited;

    /* Whoever started us may ignore it, and then nobody could be waited for. */
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&waited);
    sigaddset(&waited, SIGTERM);
    sigaddset(&waited, SIGINT);
    sigaddset(&waited, SIGHUP);
    sigaddset(&waited, SIGCHLD);
    sigprocmask(SIG_BLOCK, &waited, &supervisor->before);
    supervisor->signals = signalfd(-1, &waited, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void be_daemon(Supervisor *supervisor, int ready_fd)
{
    prctl(PR_SET_NAME, "safewritefs");
    close(supervisor->signals);
    sigprocmask(SIG_SETMASK, &supervisor->before, NULL);
    exit(supervisor->what->serve(supervisor->what->data, ready_fd, supervisor->answered));
}

static gboolean start(Supervisor *supervisor)
{
    int ends[2];
    pid_t child;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return FALSE;
    child = fork();
    if (child == 0) {
        close(ends[0]);
        be_daemon(supervisor, ends[1]);
    }
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return FALSE;
    }
    supervisor->ready_fd = ends[0];
    supervisor->child = child;
    return TRUE;
}

static void drop_ready_fd(Supervisor *supervisor)
{
    if (supervisor->ready_fd >= 0)
        close(supervisor->ready_fd);
    supervisor->ready_fd = -1;
}

/* The daemon's byte, or its end. */
static void hear_daemon(Supervisor *supervisor)
{
    char byte;
    gboolean answers = read(supervisor->ready_fd, &byte, 1) == 1;

    drop_ready_fd(supervisor);
    if (!answers || supervisor->answered)
        return;
    supervisor->answered = TRUE;
    supervisor->what->ready(supervisor->what->data);
}

static void hear_signals(Supervisor *supervisor)
{
    struct signalfd_siginfo info;

    while (read(supervisor->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        supervisor->stopping = TRUE;
        if (supervisor->child)
            kill(supervisor->child, SIGTERM);
    }
}

/* Until something was heard, or `timeout_us` (-1: no limit) is over. */
static void listen_once(Supervisor *supervisor, gint64 timeout_us)
{
    struct pollfd fds[] = {{.fd = supervisor->signals, .events = POLLIN},
                           {.fd = supervisor->ready_fd, .events = POLLIN}};
    int timeout_ms = timeout_us < 0 ? -1 : (int)(timeout_us / 1000);

    if (poll(fds, G_N_ELEMENTS(fds), timeout_ms) <= 0)
        return;
    if (fds[1].revents)
        hear_daemon(supervisor);
    if (fds[0].revents)
        hear_signals(supervisor);
}

/* The status of the present daemon, as wait(2) gives it, when it has ended. */
static int await_end(Supervisor *supervisor)
{
    int status;

    while (waitpid(supervisor->child, &status, WNOHANG) == 0)
        listen_once(supervisor, -1);
    supervisor->child = 0;
    /* It may have written its byte and died before anybody looked. */
    if (supervisor->ready_fd >= 0)
        hear_daemon(supervisor);
    return status;
}

static char *how_it_ended(int status)
{
    if (WIFSIGNALED(status))
        return g_strdup_printf("was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return g_strdup_printf("ended with status %d", WEXITSTATUS(status));
}

/* Has slept as long as it should, unless told to end. */
static void pause_for(Supervisor *supervisor, gint64 pause_us)
{
    gint64 until_us = g_get_monotonic_time() + pause_us, left_us;

    while (!supervisor->stopping && (left_us = until_us - g_get_monotonic_time()) > 0)
        listen_once(supervisor, left_us + 999);
}

/* Another daemon runs, or FALSE: there will be none. */
static gboolean start_again(Supervisor *supervisor, SwCrashes *crashes, int status)
{
    g_autofree char *how = how_it_ended(status);

    do {
        gint64 pause_us = sw_crashes_add(crashes, g_get_monotonic_time());
        if (pause_us < 0) {
            say(supervisor, TRUE,
                g_strdup_printf("the daemon %s, more than %d times within a minute: it is not started again, and the "
                                "mount stays dead until it is unmounted or mounted anew",
                                how, SW_CRASHES_MAX));
            return FALSE;
        }
        say(supervisor, FALSE, g_strdup_printf("the daemon %s: starting it again", how));
        pause_for(supervisor, pause_us);
    } while (!supervisor->stopping && !start(supervisor));
    return !supervisor->stopping;
}

/* The exit status, given how the last daemon ended. */
static int conclude(Supervisor *supervisor, int status, int failure)
{
    gboolean in_order = WIFEXITED(status) && WEXITSTATUS(status) == 0;

    if (supervisor->stopping && supervisor->answered && !in_order)
        supervisor->what->left_dead(supervisor->what->data);
    if (supervisor->stopping || in_order)
        return 0;
    if (!supervisor->answered && WIFSIGNALED(status)) {
        g_autofree char *how = how_it_ended(status);
        say(supervisor, TRUE, g_strdup_printf("the daemon %s before the mount answered", how));
    }
    return failure;
}

int sw_supervise(const SwSupervised *what, int failure)
{
    Supervisor supervisor = {.what = what, .ready_fd = -1};
    SwCrashes crashes = {0};
    int status;
    gboolean is_over;

    take_signals(&supervisor);
    prctl(PR_SET_NAME, "safewritefs-sup");
    if (supervisor.signals < 0 || !start(&supervisor)) {
        say(&supervisor, TRUE, g_strdup_printf("cannot start the daemon: %s", g_strerror(errno)));
        return failure;
    }
    do {
        status = await_end(&supervisor);
        is_over = supervisor.stopping || !supervisor.answered || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
    } while (!is_over && start_again(&supervisor, &crashes, status));
    close(supervisor.signals);
    return conclude(&supervisor, status, failure);
}
