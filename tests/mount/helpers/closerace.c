/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * closerace FILE ROUNDS
 *
 * Writes "round N\n" 512 times into FILE and lets two threads close the two descriptors of the handle at the same
 * moment; prints N when both closes have returned and waits for a line on stdin before the next round.
 */

#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_barrier_t barrier;

static void *close_at_once(void *fd)
{
    pthread_barrier_wait(&barrier);
    if (close((int)(long)fd) < 0)
        err(2, "close");
    return NULL;
}

static void one_round(const char *path, int number)
{
    char line[32];
    pthread_t threads[2];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644), copy = fd < 0 ? -1 : dup(fd);

    if (copy < 0)
        err(2, "%s", path);
    snprintf(line, sizeof line, "round %d\n", number);
    for (int i = 0; i < 512; i++) {
        if (write(i % 2 ? fd : copy, line, strlen(line)) < 0)
            err(2, "write");
    }
    if (pthread_create(&threads[0], NULL, close_at_once, (void *)(long)fd) != 0 ||
        pthread_create(&threads[1], NULL, close_at_once, (void *)(long)copy) != 0)
        errx(2, "pthread_create");
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
}

int main(int argc, char **argv)
{
    char line[32];

    if (argc != 3)
        errx(2, "usage: closerace FILE ROUNDS");
    pthread_barrier_init(&barrier, NULL, 2);
    for (int i = 0; i < atoi(argv[2]); i++) {
        one_round(argv[1], i);
        printf("%d\n", i);
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin))
            return 0;
    }
    return 0;
}
