/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs commands in a virtual machine of the rig: one TCP connection each.
 *
 * Frames both ways: a letter, four bytes of length (big endian), that many bytes.
 *   to the agent    R   the request, first: words ended by NUL: cwd, uid, gid, groups ("" none, else "1,2"), how many
 *                       variables, the variables, the arguments
 *                   0   for the command's standard input; empty: its end
 *   from the agent  P   its pid, in digits
 *                   1 2 what it says
 *                   X   the status of wait(2), in digits; last
 * A connection that ends early kills the command's session.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT 7
#define WORDS_MAX 4096
#define GROUPS_MAX 64
#define PIECE 65536

static void die(const char *what)
{
    perror(what);
    _exit(125);
}

static int read_all(int fd, void *to, size_t size)
{
    for (size_t have = 0; have < size;) {
        ssize_t n = read(fd, (char *)to + have, size - have);
        if (n == 0 || (n < 0 && errno != EINTR))
            return -1;
        if (n > 0)
            have += (size_t)n;
    }
    return 0;
}

static int write_all(int fd, const void *from, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)from + done, size - done);
        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0)
            done += (size_t)n;
    }
    return 0;
}

static int send_frame(int fd, char letter, const void *data, uint32_t size)
{
    char head[5] = {letter};
    uint32_t length = htonl(size);
    memcpy(head + 1, &length, sizeof length);
    return write_all(fd, head, sizeof head) < 0 || write_all(fd, data, size) < 0 ? -1 : 0;
}

/* The caller frees it; ended by a NUL more than was sent. */
static char *read_frame(int fd, char *ret_letter, uint32_t *ret_size)
{
    char head[5];
    uint32_t size;
    if (read_all(fd, head, sizeof head) < 0)
        return NULL;
    memcpy(&size, head + 1, sizeof size);
    size = ntohl(size);
    char *data = calloc(1, (size_t)size + 1);
    if (!data || read_all(fd, data, size) < 0) {
        free(data);
        return NULL;
    }
    *ret_letter = head[0];
    *ret_size = size;
    return data;
}

typedef struct {
    char *words[WORDS_MAX + 1];
    int n;
} Request;

static void split(Request *request, char *data, uint32_t size)
{
    for (char *at = data; at < data + size && request->n < WORDS_MAX; at += strlen(at) + 1)
        request->words[request->n++] = at;
    if (request->n < 6)
        exit(1);
}

static void become(const Request *request)
{
    gid_t groups[GROUPS_MAX];
    size_t n = 0;
    for (char *at = request->words[3]; *at && n < GROUPS_MAX; at += *at == ',')
        groups[n++] = (gid_t)strtoul(at, &at, 10);
    if (setgroups(n, groups) < 0 || setgid((gid_t)atoi(request->words[2])) < 0 ||
        setuid((uid_t)atoi(request->words[1])) < 0)
        die("setuid");
}

static void run(Request *request, const int pipes[3])
{
    int variables = atoi(request->words[4]);
    for (int fd = 0; fd < 3; fd++)
        dup2(pipes[fd], fd);
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    setsid();
    signal(SIGPIPE, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    clearenv();
    for (int i = 5; i < 5 + variables && i < request->n; i++)
        putenv(request->words[i]);
    /* Root may not look into a mount of a user's. */
    become(request);
    if (chdir(request->words[0]) < 0)
        die(request->words[0]);
    execvp(request->words[5 + variables], request->words + 5 + variables);
    die(request->words[5 + variables]);
}

/* What the connection says to the command.  FALSE: it has ended. */
static int feed(int connection, int *to_child)
{
    char letter = 0;
    uint32_t size = 0;
    char *data = read_frame(connection, &letter, &size);
    if (!data)
        return 0;
    if (letter == '0' && *to_child >= 0 && (size == 0 || write_all(*to_child, data, size) < 0)) {
        close(*to_child);
        *to_child = -1;
    }
    free(data);
    return 1;
}

static void forward(int connection, struct pollfd *from, char letter)
{
    static char piece[PIECE];
    ssize_t n = read(from->fd, piece, sizeof piece);
    if (n > 0 && send_frame(connection, letter, piece, (uint32_t)n) == 0)
        return;
    close(from->fd);
    from->fd = -1;
}

/* Until the command has ended and nothing more comes from it, or from what it left behind. */
static void relay(int connection, pid_t child, int to_child, int out, int err)
{
    struct pollfd fds[3] = {
        {.fd = connection, .events = POLLIN}, {.fd = out, .events = POLLIN}, {.fd = err, .events = POLLIN}};
    int status = 0, ended = 0;
    char digits[16];
    while (!ended || fds[1].fd >= 0 || fds[2].fd >= 0) {
        if (poll(fds, 3, ended ? 200 : 20) < 0 && errno != EINTR)
            break;
        if (fds[0].revents && !feed(connection, &to_child)) {
            kill(-child, SIGKILL);
            return;
        }
        int quiet = !fds[1].revents && !fds[2].revents;
        for (int i = 1; i < 3; i++)
            if (fds[i].revents)
                forward(connection, &fds[i], (char)('0' + i));
        if (ended && quiet)
            break; /* a daemon of its own has our pipes */
        if (!ended && waitpid(child, &status, WNOHANG) == child)
            ended = 1;
    }
    (void)snprintf(digits, sizeof digits, "%d", status);
    send_frame(connection, 'X', digits, (uint32_t)strlen(digits));
}

static void serve(int connection)
{
    static Request request;
    int in[2], out[2], err[2], one = 1;
    char letter = 0, digits[16];
    uint32_t size = 0;
    char *data = read_frame(connection, &letter, &size);
    if (!data || letter != 'R')
        exit(1);
    split(&request, data, size);
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (pipe(in) < 0 || pipe(out) < 0 || pipe(err) < 0)
        die("pipe");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        run(&request, (int[]){in[0], out[1], err[1]});
    close(in[0]);
    close(out[1]);
    close(err[1]);
    (void)snprintf(digits, sizeof digits, "%d", (int)child);
    if (send_frame(connection, 'P', digits, (uint32_t)strlen(digits)) < 0)
        kill(-child, SIGKILL);
    relay(connection, child, in[1], out[0], err[0]);
    exit(0);
}

int main(void)
{
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 64) < 0)
        die("listen");
    for (;;) {
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0)
            continue;
        if (fork() == 0) {
            signal(SIGCHLD, SIG_DFL);
            serve(connection);
        }
        close(connection);
    }
}
