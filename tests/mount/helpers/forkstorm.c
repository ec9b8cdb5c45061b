/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * forkstorm PAYLOAD FILE ROUNDS
 *
 * One thread forks and execs (or forks and exits) without pause while another writes FILE whole, in pieces, and closes
 * it, ROUNDS times: copies of the descriptor come and go at every step of the write.
 */

#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int done;

static void *storm(void *unused)
{
    (void)unused;
    for (int i = 0; !done; i++) {
        pid_t child = fork();

        if (child == 0) {
            if (i % 2)
                execl("/bin/true", "true", (char *)NULL);
            _exit(0);
        }
        if (child > 0)
            waitpid(child, NULL, 0);
    }
    return NULL;
}

static void write_whole(const char *path, const char *payload, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    if (fd < 0)
        err(2, "%s", path);
    for (size_t at = 0; at < size; at += 8192) {
        size_t length = size - at < 8192 ? size - at : 8192;

        if (write(fd, payload + at, length) != (ssize_t)length)
            err(2, "write");
    }
    if (close(fd) < 0)
        err(2, "close");
}

int main(int argc, char **argv)
{
    static char payload[1 << 20];
    pthread_t thread;
    ssize_t size;
    int in;

    if (argc != 4)
        errx(2, "usage: forkstorm PAYLOAD FILE ROUNDS");
    in = open(argv[1], O_RDONLY | O_CLOEXEC);
    size = in < 0 ? -1 : read(in, payload, sizeof payload);
    if (size < 0 || pthread_create(&thread, NULL, storm, NULL) != 0)
        err(2, "%s", argv[1]);
    for (int i = 0; i < atoi(argv[3]); i++)
        write_whole(argv[2], payload, (size_t)size);
    done = 1;
    pthread_join(thread, NULL);
    return 0;
}
