/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * inside LOG COUNTER: what a program does while it holds a lock.
 *
 * Adds one to the number in COUNTER, which only the lock protects, and a line "BEGIN END NUMBER" to LOG, in nanoseconds
 * of CLOCK_MONOTONIC.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static long number_in(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        die(path);
    close(fd);
    return atol(text);
}

static void put(const char *path, int flags, const char *text, int length)
{
    int fd = open(path, O_WRONLY | O_CREAT | flags, 0666);
    if (fd < 0 || write(fd, text, length) != length || close(fd) < 0)
        die(path);
}

int main(int argc, char **argv)
{
    char text[96];
    long long begin = now();
    if (argc != 3)
        return 2;
    long number = number_in(argv[2]) + 1;
    put(argv[2], O_TRUNC, text, snprintf(text, sizeof text, "%ld", number));
    put(argv[1], O_APPEND, text, snprintf(text, sizeof text, "%lld %lld %ld\n", begin, now(), number));
    return 0;
}
