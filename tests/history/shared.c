/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Appenders and editors of files that all share, and their readers. */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LONGEST = 6000, HEAD = 32 };

static unsigned written;

static char *some_log(char *buffer)
{
    snprintf(buffer, NAME_SIZE, "log%u", chance(LOGS));
    return buffer;
}

/* A record is its name, its length, letters that belong to both, and a newline. */
static size_t make_record(char *record, const char *value, size_t length)
{
    size_t head = (size_t)snprintf(record, LONGEST, "%s %zu ", value, length);

    for (size_t i = head; i < length; i++)
        record[i] = (char)('a' + (length + i + (unsigned char)value[i % strlen(value)]) % 26);
    record[length - 1] = '\n';
    return length;
}

static int append_record(int fd, const char *log, unsigned *ret_n)
{
    char value[NAME_SIZE / 2], record[LONGEST + 1];
    size_t length;
    ssize_t put;
    unsigned n;

    snprintf(value, sizeof value, "%s-%d-%u", worker.who, worker.life, ++written);
    length = make_record(record, value, strlen(value) + 10 + chance(chance(4) ? 200 : LONGEST - 200));
    *ret_n = n = note_begin("append", ",\"key\":\"%s\",\"val\":\"%s\",\"size\":%zu", log, value, length);
    put = write(fd, record, length);
    if (put >= 0 && (size_t)put != length)
        note(n, "end", ",\"err\":\"\",\"bad\":\"%zd of %zu bytes\"", put, length);
    else
        note_end(n, put < 0 ? errno : 0);
    return put < 0 ? -1 : 0;
}

void step_append(void)
{
    char log[NAME_SIZE], path[NAME_SIZE];
    int fd = open(path_of(path, some_log(log)), O_WRONLY | O_APPEND | O_CREAT, 0666);
    unsigned n;

    if (fd >= 0) {
        append_record(fd, log, &n);
        if (close(fd) == 0)
            note(n, "closed", "%s", "");
    }
    pause_ms(80);
}

void step_append_held(void)
{
    char log[NAME_SIZE], path[NAME_SIZE];
    int fd = open(path_of(path, some_log(log)), O_RDWR | O_APPEND | O_CREAT, 0666);
    unsigned n;

    for (uint32_t i = 1 + chance(60); fd >= 0 && i && !worker.stop; i--) {
        if (append_record(fd, log, &n) < 0)
            break;
        pause_ms(80);
    }
    if (fd >= 0)
        close(fd);
    pause_ms(80);
}

/* The whole file: malloc'd and ended by a NUL, or NULL with errno. */
static char *slurp(int fd, size_t *ret_size)
{
    size_t room = 1 << 16, have = 0;
    char *data = malloc(room + 1);
    ssize_t got;

    while ((got = read(fd, data + have, room - have)) > 0) {
        have += (size_t)got;
        if (have == room) {
            room *= 2;
            data = realloc(data, room + 1);
        }
    }
    if (got < 0) {
        free(data);
        return NULL;
    }
    data[have] = '\0';
    *ret_size = have;
    return data;
}

/* Is there a whole record?  Its length and its name, or 0. */
static size_t parse_record(const char *data, size_t size, char *ret_value)
{
    char record[LONGEST + 1];
    size_t length;

    if (sscanf(data, "%100s %zu ", ret_value, &length) != 2 || length > size || length > LONGEST ||
        length < strlen(ret_value) + 3)
        return 0;
    make_record(record, ret_value, length);
    return memcmp(record, data, length) == 0 ? length : 0;
}

/* What is no whole record must be the beginning of one, and the end of the file: the checker asks whose. */
static void note_records(unsigned n, const char *data, size_t size)
{
    uint64_t hash = 1469598103934665603u;
    char value[NAME_SIZE / 2] = "";
    unsigned count = 0;
    size_t at = 0, length;

    while (at < size && (length = parse_record(data + at, size - at, value)) > 0) {
        for (const char *letter = value; *letter; letter++)
            hash = (hash ^ (unsigned char)*letter) * 1099511628211u;
        at += length;
        count++;
    }
    *value = '\0';
    if (at < size && sscanf(data + at, "%100s", value) == 1)
        for (char *letter = value; *letter; letter++)
            *letter = *letter == '"' || *letter == '\\' || *letter < ' ' || *letter > '~' ? '?' : *letter;
    note(n, "end", ",\"records\":%u,\"hash\":%llu,\"torn\":%zu,\"tail\":\"%s\",\"err\":\"\"", count,
         (unsigned long long)hash, size - at, value);
}

/* Opens a file for reading, and gives all of it, noting everything but its content; NULL when there is nothing. */
static char *read_shared(const char *op, const char *key, unsigned *ret_n, size_t *ret_size)
{
    char path[NAME_SIZE], *data;
    int fd;

    *ret_n = note_begin(op, ",\"key\":\"%s\"", key);
    fd = open(path_of(path, key), O_RDONLY);
    if (fd < 0) {
        note_end(*ret_n, errno);
        return NULL;
    }
    note(*ret_n, "opened", "%s", "");
    if (chance(10) == 0)
        pause_ms(100);
    data = slurp(fd, ret_size);
    if (!data)
        note_end(*ret_n, errno);
    close(fd);
    return data;
}

void step_tail(void)
{
    char log[NAME_SIZE], *data;
    unsigned n;
    size_t size;

    data = read_shared("tail", some_log(log), &n, &size);
    if (data)
        note_records(n, data, size);
    free(data);
    pause_ms(120);
}

/* ---- editors: each host has a slot of the file, whose head and tail are written together */

static void make_mark(char *mark, long value)
{
    snprintf(mark, HEAD + 1, "%-*ld\n", HEAD - 1, value);
}

static int edit_slot(int fd, long value)
{
    off_t start = (off_t)worker.side * SLOT_SIZE;
    char mark[HEAD + 1];

    make_mark(mark, value);
    if (pwrite(fd, mark, HEAD, start) != HEAD)
        return errno;
    if (chance(3) == 0)
        pause_ms(30);
    return pwrite(fd, mark, HEAD, start + SLOT_SIZE - HEAD) == HEAD ? 0 : errno;
}

void step_edit(void)
{
    long value = worker.life * 1000000L + ++written;
    char path[NAME_SIZE];
    unsigned n = note_begin("edit", ",\"key\":\"e0\",\"slot\":%d,\"val\":%ld", worker.side, value);
    int fd = open(path_of(path, "e0"), O_RDWR), error;

    if (fd < 0) {
        note_end(n, errno);
        return pause_ms(60);
    }
    error = edit_slot(fd, value);
    if (error) {
        note_end(n, error);
        close(fd);
    } else {
        note(n, "commit", "%s", "");
        note_end(n, close(fd) < 0 ? errno : 0);
    }
    pause_ms(60);
}

static void note_slots(unsigned n, const char *data, size_t size)
{
    char text[32 * SLOTS], *to = text, mark[HEAD + 1];

    if (size != SLOTS * SLOT_SIZE) {
        note(n, "end", ",\"err\":\"\",\"bad\":\"%zu bytes\"", size);
        return;
    }
    for (int i = 0; i < SLOTS; i++) {
        const char *slot = data + (size_t)i * SLOT_SIZE, *tail = slot + SLOT_SIZE - HEAD;
        long value = strtol(slot, NULL, 10);

        make_mark(mark, value);
        if (memcmp(mark, slot, HEAD) != 0 || memcmp(mark, tail, HEAD) != 0) {
            note(n, "end", ",\"err\":\"\",\"bad\":\"slot %d begins with %ld and ends with %ld\"", i, value,
                 strtol(tail, NULL, 10));
            return;
        }
        to += sprintf(to, "%s%ld", i ? "," : "", value);
    }
    note(n, "end", ",\"err\":\"\",\"vals\":[%s]", text);
}

void step_snap(void)
{
    unsigned n;
    size_t size;
    char *data = read_shared("snap", "e0", &n, &size);

    if (data)
        note_slots(n, data, size);
    free(data);
    pause_ms(40);
}
