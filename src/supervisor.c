/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervisor.h"

#include "core/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    const SwSupervised *what;
    sigset_t before; /* the signal mask that the daemon gets */
    int signals;     /* signalfd */
    int daemon_fd;   /* where the present daemon speaks; -1: not any more */
    pid_t child;     /* 0 between two */
    pid_t follower;  /* the daemon that goes on when `child` has ended; 0: none */
    gboolean answered, stopping;
    gboolean watched; /* the daemon is to say that it is alive */
    gboolean stopped; /* by a signal */
    guint silent;     /* looks in a row that found that it had said nothing */
    gint64 look_us;   /* the next one */
} Supervisor;

/* One message on the socket. */
typedef struct {
    char what;
    char text[SW_ASK_SIZE];
} Said;

void sw_supervisor_tell(int fd, SwSays what, const char *text)
{
    g_autofree Said *said = g_new0(Said, 1);

    said->what = (char)what;
    if (text)
        g_strlcpy(said->text, text, sizeof said->text);
    if (fd >= 0)
        (void)!send(fd, said, offsetof(Said, text) + strlen(said->text), MSG_NOSIGNAL | MSG_DONTWAIT);
}

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

static void be_daemon(Supervisor *supervisor, int fd)
{
    prctl(PR_SET_NAME, "safewritefs");
    close(supervisor->signals);
    sigprocmask(SIG_SETMASK, &supervisor->before, NULL);
    exit(supervisor->what->serve(supervisor->what->data, fd, supervisor->answered));
}

static gboolean start(Supervisor *supervisor)
{
    int ends[2];
    pid_t child;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
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
    supervisor->daemon_fd = ends[0];
    supervisor->child = child;
    supervisor->watched = supervisor->stopped = FALSE;
    supervisor->silent = 0;
    return TRUE;
}

static void drop_daemon_fd(Supervisor *supervisor)
{
    if (supervisor->daemon_fd >= 0)
        close(supervisor->daemon_fd);
    supervisor->daemon_fd = -1;
}

static void hear_one(Supervisor *supervisor, SwSays said, const char *text)
{
    supervisor->silent = 0;
    if (said == SW_SAYS_CHANGED && supervisor->what->changed)
        supervisor->what->changed(supervisor->what->data, text);
    if (said == SW_SAYS_ALIVE || said == SW_SAYS_ENDING)
        supervisor->watched = said == SW_SAYS_ALIVE && supervisor->what->hang_us > 0;
    if (said == SW_SAYS_FOLLOWED)
        supervisor->follower = (pid_t)g_ascii_strtoll(text, NULL, 10);
    if (said != SW_SAYS_ANSWERS || supervisor->answered)
        return;
    supervisor->answered = TRUE;
    supervisor->what->ready(supervisor->what->data);
}

/* What the daemon has said, or that it has ended. */
static void hear_daemon(Supervisor *supervisor)
{
    g_autofree Said *said = g_new(Said, 1);
    ssize_t n;

    while ((n = recv(supervisor->daemon_fd, said, sizeof *said - 1, MSG_DONTWAIT)) > 0) {
        ((char *)said)[n] = '\0';
        hear_one(supervisor, (SwSays)said->what, said->text);
    }
    if (n == 0 || errno != EAGAIN)
        drop_daemon_fd(supervisor);
}

/* ---- hangs */

static gint64 look_apart_us(const Supervisor *supervisor)
{
    return supervisor->what->hang_us / SW_HANG_LOOKS;
}

/* When the next look is due; -1: none is. */
static gint64 until_look_us(Supervisor *supervisor)
{
    gint64 left_us = supervisor->look_us - g_get_monotonic_time();

    if (!supervisor->watched || supervisor->stopped)
        return -1;
    return CLAMP(left_us, 0, look_apart_us(supervisor));
}

/* Each look counts for one, however long ago the last was. */
static void look_for_hang(Supervisor *supervisor)
{
    if (until_look_us(supervisor) != 0)
        return;
    supervisor->look_us = g_get_monotonic_time() + look_apart_us(supervisor);
    if (supervisor->silent++ < SW_HANG_LOOKS)
        return;
    supervisor->watched = FALSE;
    say(supervisor, FALSE,
        g_strdup_printf("the daemon has done nothing for %d s, without waiting for the source: it is killed",
                        (int)(supervisor->what->hang_us / G_USEC_PER_SEC)));
    kill(supervisor->child, SIGABRT);
}

static void hear_stop(Supervisor *supervisor, int status)
{
    supervisor->stopped = WIFSTOPPED(status);
    supervisor->silent = 0;
    if (supervisor->stopped)
        say(supervisor, FALSE,
            g_strdup_printf("the daemon was stopped by signal %d (%s): programs wait until it goes on (kill -CONT %d), "
                            "and other hosts take it for dead after its lease",
                            WSTOPSIG(status), strsignal(WSTOPSIG(status)), (int)supervisor->child));
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
                           {.fd = supervisor->daemon_fd, .events = POLLIN}};
    int timeout_ms = timeout_us < 0 ? -1 : (int)((timeout_us + 999) / 1000);

    if (poll(fds, G_N_ELEMENTS(fds), timeout_ms) <= 0)
        return;
    if (fds[1].revents)
        hear_daemon(supervisor);
    if (fds[0].revents)
        hear_signals(supervisor);
}

/* The next news of a child: its status, or 0 for none.  Others than the daemon are orphans of one, and nobody's. */
static pid_t next_news(Supervisor *supervisor, int *ret_status)
{
    pid_t pid;

    do
        pid = waitpid(-1, ret_status, WNOHANG | WUNTRACED | WCONTINUED);
    while (pid > 0 && pid != supervisor->child);
    return pid;
}

/* The daemon has ended: what it said before that, and whether another one of the same connection goes on. */
static gboolean is_followed(Supervisor *supervisor)
{
    if (supervisor->daemon_fd >= 0)
        hear_daemon(supervisor);
    supervisor->child = supervisor->follower;
    supervisor->follower = 0;
    supervisor->stopped = FALSE;
    supervisor->silent = 0;
    if (supervisor->child && supervisor->stopping) /* which only the one before was told */
        kill(supervisor->child, SIGTERM);
    return supervisor->child > 0;
}

/* The status of the present daemon, as wait(2) gives it, when it has ended. */
static int await_end(Supervisor *supervisor)
{
    pid_t heard;
    int status = 0;

    supervisor->look_us = g_get_monotonic_time() + look_apart_us(supervisor);
    while ((heard = next_news(supervisor, &status)) == 0 ||
           (heard > 0 && (WIFSTOPPED(status) || WIFCONTINUED(status) || is_followed(supervisor)))) {
        if (heard > 0 && (WIFSTOPPED(status) || WIFCONTINUED(status)))
            hear_stop(supervisor, status);
        if (heard > 0)
            continue;
        look_for_hang(supervisor);
        listen_once(supervisor, until_look_us(supervisor));
    }
    supervisor->child = 0;
    drop_daemon_fd(supervisor);
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
        listen_once(supervisor, left_us);
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
    Supervisor supervisor = {.what = what, .daemon_fd = -1};
    SwCrashes crashes = {0};
    int status;
    gboolean is_over;

    take_signals(&supervisor);
    prctl(PR_SET_NAME, "safewritefs-sup");
    /* A daemon that follows another is started as an orphan (follower.c), and so becomes a child of ours. */
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
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
