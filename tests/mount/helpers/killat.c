/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * killat FILE OFFSET SIGNAL [sync|thread|append|edit]
 *
 * Writes a pattern (byte i is 'a' + (i / 7) % 26) in chunks of 4096 up to exactly OFFSET bytes and then ends itself by
 * SIGNAL; SIGNAL 0 exits with status 1 without closing.  sync: fsync first.  thread: the signal is sent while a second
 * thread stands by.  append, edit: opens that way.
 */

#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *stand_by(void *unused)
{
    (void)unused;
    for (;;)
        pause();
    return NULL;
}

static void write_pattern(int fd, long upto)
{
    char chunk[4096];

    for (long at = 0; at < upto;) {
        long length = upto - at < (long)sizeof chunk ? upto - at : (long)sizeof chunk;

        for (long i = 0; i < length; i++)
            chunk[i] = (char)('a' + ((at + i) / 7) % 26);
        if (write(fd, chunk, (size_t)length) != length)
            err(2, "write");
        at += length;
    }
}

int main(int argc, char **argv)
{
    const char *how = argc > 4 ? argv[4] : "";
    int flags = O_WRONLY | O_CREAT | O_TRUNC;
    int number = argc > 3 ? atoi(argv[3]) : 0;
    pthread_t other;
    int fd;

    if (argc < 4)
        errx(2, "usage: killat FILE OFFSET SIGNAL [sync|thread|append|edit]");
    if (strcmp(how, "append") == 0)
        flags = O_WRONLY | O_CREAT | O_APPEND;
    if (strcmp(how, "edit") == 0)
        flags = O_RDWR;
    fd = open(argv[1], flags, 0644);
    if (fd < 0)
        err(2, "%s", argv[1]);
    if (strcmp(how, "thread") == 0 && pthread_create(&other, NULL, stand_by, NULL) != 0)
        errx(2, "pthread_create");
    write_pattern(fd, atol(argv[2]));
    if (strcmp(how, "sync") == 0 && fsync(fd) < 0)
        err(2, "fsync");
    if (number == 0)
        _exit(1);
    signal(number, SIG_DFL);
    kill(getpid(), number);
    pause();
    return 2;
}
