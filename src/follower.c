/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "follower.h"

#include "core/base.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORD_READY 'R'
#define WORD_GO 'G'
#define WHY_MAX 4096

extern char **environ;

/* ---- the daemon's side */

static int write_all(int fd, const guint8 *data, gsize size)
{
    while (size) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        size -= (gsize)n;
    }
    return 0;
}

static int make_state(SwBundle *bundle, int *ret_fd)
{
    gsize size;
    const void *data = sw_bundle_close(bundle, &size);
    int r, fd = memfd_create("safewritefs-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    r = write_all(fd, data, size);
    if (r == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        r = -errno;
    if (r < 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}

static char **follower_environment(void)
{
    g_auto(GStrv) all = g_strdupv(environ);
    GPtrArray *some = g_ptr_array_new();

    for (guint i = 0; all[i]; i++)
        if (!g_str_has_prefix(all[i], "WATCHDOG_PID="))
            g_ptr_array_add(some, g_strdup(all[i]));
    g_ptr_array_add(some, NULL);
    return (char **)g_ptr_array_free(some, FALSE);
}

/*
 * Not a child of this process, which is going to end: whoever looks after that one (systemd, the supervisor) is the
 * parent of a process whose parent has ended.  systemd takes a main process that is no child of its own for somebody
 * else's, and does not wait for its end when it stops the service.
 *
 * In the child of a process with threads: only what a signal handler may call.
 */
static void become_follower(char *const *argv, char *const *environment, const int *fds, guint n)
{
    for (guint i = 0; i < n; i++)
        if (fcntl(fds[i], F_SETFD, 0) < 0)
            _exit(126);
    execve(argv[0], argv, environment);
    _exit(127);
}

/* Its pid, or -errno. */
static pid_t start_orphan(char *const *argv, char *const *environment, const GArray *fds)
{
    int told[2], status;
    pid_t between, orphan = -EAGAIN;

    if (pipe2(told, O_CLOEXEC) < 0)
        return -errno;
    between = fork();
    if (between == 0) {
        orphan = _Fork();
        if (orphan == 0)
            become_follower(argv, environment, (const int *)(void *)fds->data, fds->len);
        _exit(write(told[1], &orphan, sizeof orphan) != sizeof orphan);
    }
    close(told[1]);
    if (between < 0 || TEMP_FAILURE_RETRY(read(told[0], &orphan, sizeof orphan)) != sizeof orphan || orphan < 0)
        orphan = -EAGAIN;
    close(told[0]);
    if (between > 0)
        (void)TEMP_FAILURE_RETRY(waitpid(between, &status, 0));
    return orphan;
}

int sw_follower_start(char *const *argv, SwBundle *bundle, SwFollower *ret_follower)
{
    g_auto(GStrv) environment = follower_environment(), words = NULL;
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    int ends[2], state = -1, r;
    guint n;
    const int *passed;
    pid_t child;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    r = make_state(bundle, &state);
    if (r < 0) {
        close(ends[0]);
        close(ends[1]);
        return r;
    }
    passed = sw_bundle_fds(bundle, &n);
    g_array_append_vals(fds, passed, n);
    g_array_append_val(fds, ends[1]);
    g_array_append_val(fds, state);
    words = g_new0(char *, g_strv_length((char **)argv) + 2);
    words[0] = g_strdup(argv[0]);
    words[1] = g_strdup_printf("--" SW_FOLLOWER_OPTION "=%d:%d", ends[1], state);
    for (guint i = 1; argv[i]; i++)
        words[i + 1] = g_strdup(argv[i]);
    child = start_orphan(words, environment, fds);
    r = MIN(child, 0);
    close(ends[1]);
    close(state);
    if (r < 0)
        close(ends[0]);
    else
        *ret_follower = (SwFollower){.pid = child, .pidfd = pidfd_open(child, 0), .socket = ends[0]};
    return r;
}

int sw_follower_await(const SwFollower *follower, gint64 until_us, char **ret_why)
{
    struct pollfd heard = {.fd = follower->socket, .events = POLLIN};
    gint64 left_us = until_us - g_get_monotonic_time();
    g_autofree char *said = g_malloc0(WHY_MAX);
    ssize_t n;

    if (TEMP_FAILURE_RETRY(poll(&heard, 1, (int)(MAX(left_us, 0) / 1000))) <= 0) {
        *ret_why = g_strdup("the new daemon takes too long");
        return -ETIMEDOUT;
    }
    n = recv(follower->socket, said, WHY_MAX - 1, MSG_DONTWAIT);
    if (n == 1 && *said == WORD_READY)
        return 0;
    *ret_why = n > 0 ? g_strdup(said) : g_strdup("the new daemon cannot be started, or is none that can follow");
    return -EPROTO;
}

void sw_follower_go(const SwFollower *follower)
{
    static const char go = WORD_GO;

    sw_ignore(send(follower->socket, &go, 1, MSG_NOSIGNAL)); /* one that is dead is started again as any other */
}

void sw_follower_dismiss(SwFollower *follower)
{
    close(follower->socket);
    if (follower->pidfd < 0)
        return;
    sw_ignore(pidfd_send_signal(follower->pidfd, SIGKILL, NULL, 0)); /* it may have ended */
    close(follower->pidfd);
}

/* ---- the follower's side */

static const void *map_state(int fd, gsize *ret_size)
{
    struct stat st;
    void *data;

    if (fstat(fd, &st) < 0 || st.st_size <= 0)
        return NULL;
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    *ret_size = (gsize)st.st_size;
    return data == MAP_FAILED ? NULL : data;
}

SwBundle *sw_follower_receive(const char *where, int *ret_socket)
{
    int ends, state, type;
    socklen_t length = sizeof type;
    gsize size;
    const void *data;
    SwBundle *bundle;
    const int *fds;
    guint n;

    if (sscanf(where, "%d:%d", &ends, &state) != 2 || getsockopt(ends, SOL_SOCKET, SO_TYPE, &type, &length) < 0 ||
        type != SOCK_SEQPACKET)
        return NULL;
    data = map_state(state, &size);
    close(state);
    if (!data || fcntl(ends, F_SETFD, FD_CLOEXEC) < 0)
        return NULL;
    bundle = sw_bundle_open(data, size);
    fds = sw_bundle_fds(bundle, &n);
    for (guint i = 0; i < n; i++)
        if (fcntl(fds[i], F_SETFD, FD_CLOEXEC) < 0)
            sw_bundle_fail(bundle, "descriptor %d is not open", fds[i]);
    *ret_socket = ends;
    return bundle;
}

gboolean sw_follower_answer(int socket, const char *why)
{
    static const char ready[] = {WORD_READY, '\0'};
    char word = 0;

    if (send(socket, why ? why : ready, strlen(why ? why : ready), MSG_NOSIGNAL) < 0 || why)
        return FALSE;
    return TEMP_FAILURE_RETRY(recv(socket, &word, 1, 0)) == 1 && word == WORD_GO;
}
