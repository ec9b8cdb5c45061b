/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * appendrec FILE WHO COUNT LENGTH [reopen]
 *
 * Appends COUNT records "WHO NNNNNN xxxx...\n" of LENGTH bytes, each with one writev(2) of three parts; reopen: opens
 * and closes around each.
 */

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);

    if (fd < 0)
        err(2, "%s", path);
    return fd;
}

static void append(int fd, const char *who, int number, size_t length)
{
    char head[64];
    char *fill = malloc(length);
    int used = snprintf(head, sizeof head, "%s %06d ", who, number);
    struct iovec parts[3] = {{head, (size_t)used}, {fill, length - (size_t)used - 1}, {"\n", 1}};

    if (!fill)
        errx(2, "out of memory");
    memset(fill, 'a' + number % 26, length);
    if (writev(fd, parts, 3) != (ssize_t)length)
        err(2, "writev");
    free(fill);
}

int main(int argc, char **argv)
{
    int reopen = argc > 5 && strcmp(argv[5], "reopen") == 0;
    int fd = -1;

    if (argc < 5)
        errx(2, "usage: appendrec FILE WHO COUNT LENGTH [reopen]");
    for (int i = 0; i < atoi(argv[3]); i++) {
        if (fd < 0)
            fd = open_file(argv[1]);
        append(fd, argv[2], i, (size_t)atol(argv[4]));
        if (reopen) {
            if (close(fd) < 0)
                err(2, "close");
            fd = -1;
        }
    }
    if (fd >= 0 && close(fd) < 0)
        err(2, "close");
    return 0;
}
