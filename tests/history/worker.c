/* SPDX-License-Identifier: GPL-2.0-or-later */
/* worker ROLE MOUNT JOURNAL WHO SIDE LIFE SEED: see worker.h. */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

Worker worker;

static int journal;
static unsigned operations;
static uint64_t state;

static const Role roles[] = {
    {"rewrite", step_rewrite},
    {"rename", step_rename},
    {"read", step_read},
    {"look", step_look},
    {"append", step_append},
    {"held", step_append_held},
    {"tail", step_tail},
    {"edit", step_edit},
    {"snap", step_snap},
    {"excl", step_excl},
    {"lockfile", step_lock_file},
    {"locksym", step_lock_symlink},
    {"lockdir", step_lock_dir},
    {"locklink", step_lock_link},
    {"flock", step_flock},
    {"fcntl", step_fcntl},
    {"ofd", step_ofd},
};

static void write_line(unsigned n, const char *phase, const char *head, const char *format, va_list arguments)
{
    static char line[1 << 16];
    struct timespec now;
    int length;

    clock_gettime(CLOCK_BOOTTIME, &now);
    length = snprintf(line, sizeof line, "{\"t\":%lld,\"n\":%u,\"ph\":\"%s\"%s",
                      now.tv_sec * 1000000000LL + now.tv_nsec, n, phase, head);
    length += vsnprintf(line + length, sizeof line - (size_t)length, format, arguments);
    if (length > (int)sizeof line - 3)
        abort();
    strcpy(line + length, "}\n");
    if (write(journal, line, (size_t)length + 2) != length + 2)
        abort();
}

unsigned note_begin(const char *op, const char *format, ...)
{
    char head[64];
    va_list arguments;

    snprintf(head, sizeof head, ",\"op\":\"%s\"", op);
    va_start(arguments, format);
    write_line(++operations, "begin", head, format, arguments);
    va_end(arguments);
    return operations;
}

void note(unsigned n, const char *phase, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_line(n, phase, "", format, arguments);
    va_end(arguments);
}

void note_end(unsigned n, int error)
{
    note(n, "end", ",\"err\":\"%s\"", error ? strerrorname_np(error) : "");
}

uint32_t chance(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 32) % below);
}

void pause_ms(uint32_t ms)
{
    usleep(worker.pace * chance(ms * 1000 + 1));
}

const char *path_of(char *buffer, const char *name)
{
    snprintf(buffer, NAME_SIZE, "%s/%s", worker.top, name);
    return buffer;
}

int write_pieces(int fd, const char *data, size_t size)
{
    size_t piece = size / (1 + chance(4)) + 1;

    while (size) {
        ssize_t put = write(fd, data, piece < size ? piece : size);

        if (put < 0)
            return errno;
        data += put;
        size -= (size_t)put;
        if (size && chance(3) == 0)
            pause_ms(10);
    }
    return 0;
}

static void on_term(int number)
{
    worker.stop = 1;
}

static void prepare(char **argv)
{
    /* No SA_RESTART: who waits for a lock is to come back. */
    struct sigaction action = {.sa_handler = on_term};

    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    worker = (Worker){.top = argv[2], .who = argv[4], .side = atoi(argv[5]), .life = atoi(argv[6])};
    worker.pace = strtoul(argv[8], NULL, 10);
    state = strtoull(argv[7], NULL, 10) * 2654435761u + 88172645463325252u;
    journal = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (journal < 0) {
        perror(argv[3]);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    const Role *role = roles, *end = roles + sizeof roles / sizeof *roles;

    while (argc == 9 && role < end && strcmp(role->name, argv[1]) != 0)
        role++;
    if (argc != 9 || role == end) {
        fprintf(stderr, "usage: worker ROLE MOUNT JOURNAL WHO SIDE LIFE SEED PACE\n");
        return 2;
    }
    prepare(argv);
    while (!worker.stop)
        role->step();
    return 0;
}
