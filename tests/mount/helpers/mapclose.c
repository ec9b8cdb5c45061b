/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mapclose PAYLOAD FILE
 *
 * Writes FILE only through a shared mapping whose descriptor was closed before the first store: half of the payload,
 * a pause, the other half, munmap, and then a byte on stdout and a wait for the end of stdin.
 */

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct stat st;
    size_t half;
    char *from, *to, byte;
    int in, out;

    if (argc != 3)
        errx(2, "usage: mapclose PAYLOAD FILE");
    in = open(argv[1], O_RDONLY);
    if (in < 0 || fstat(in, &st) < 0)
        err(2, "%s", argv[1]);
    from = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, in, 0);
    out = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (out < 0 || ftruncate(out, st.st_size) < 0)
        err(2, "%s", argv[2]);
    to = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, out, 0);
    if (from == MAP_FAILED || to == MAP_FAILED)
        err(2, "mmap");
    if (close(out) < 0)
        err(2, "close");
    half = (size_t)st.st_size / 2;
    memcpy(to, from, half);
    usleep(150000);
    memcpy(to + half, from + half, (size_t)st.st_size - half);
    usleep(50000);
    if (munmap(to, (size_t)st.st_size) < 0)
        err(2, "munmap");
    printf("done\n");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    return 0;
}
