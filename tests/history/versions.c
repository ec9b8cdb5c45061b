/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rewriters, renamers, readers: a key is a file whose versions are written whole. */
#include "worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t LARGEST = 300 << 10;

static unsigned values;

/* Every byte after the header depends on the value and on its place. */
static void fill(char *data, size_t from, size_t size, const char *value)
{
    uint64_t seed = 1469598103934665603u;

    for (; *value; value++)
        seed = (seed ^ (unsigned char)*value) * 1099511628211u;
    for (size_t i = from; i < size; i++)
        data[i] = (char)('a' + ((seed >> (i % 7 * 8)) + i / 61) % 26);
}

char *version_make(const char *value, size_t *size)
{
    char header[NAME_SIZE];
    size_t length = (size_t)snprintf(header, sizeof header, "%s %zu\n", value, *size);
    char *data;

    while (*size < length + 10) {
        *size = length + 10;
        length = (size_t)snprintf(header, sizeof header, "%s %zu\n", value, *size);
    }
    data = malloc(*size);
    memcpy(data, header, length);
    fill(data, length, *size, value);
    return data;
}

int version_read(const char *data, size_t size, char *ret_value)
{
    char value[NAME_SIZE / 2], *right;
    size_t told;
    int same;

    *ret_value = '\0';
    if (!size)
        return 0;
    if (sscanf(data, "%100s %zu", value, &told) != 2 || told > 2 * LARGEST) {
        strcpy(ret_value, "no header");
        return -1;
    }
    if (told != size) {
        snprintf(ret_value, NAME_SIZE, "%zu bytes of %s, which has %zu", size, value, told);
        return -1;
    }
    right = version_make(value, &told);
    same = told == size && memcmp(right, data, size) == 0;
    free(right);
    snprintf(ret_value, NAME_SIZE, same ? "%s" : "mixed with or torn: %s", value);
    return same ? 0 : -1;
}

static size_t some_size(void)
{
    if (chance(25) == 0)
        return 0;
    return chance(1u << (6 + chance(13))) * LARGEST / (1 << 18) + 1;
}

static char *new_value(char *buffer)
{
    snprintf(buffer, NAME_SIZE / 2, "%s-%d-%u", worker.who, worker.life, ++values);
    return buffer;
}

static int write_version(int fd, const char *value, size_t size)
{
    char *data;
    int error;

    if (!size)
        return 0;
    data = version_make(value, &size);
    error = write_pieces(fd, data, size);
    free(data);
    return error;
}

/* How many bytes it will have. */
static size_t final_size(const char *value, size_t size)
{
    if (size)
        free(version_make(value, &size));
    return size;
}

void put_version(const char *key, const char *more, size_t size)
{
    char path[NAME_SIZE], value[NAME_SIZE / 2];
    unsigned n;
    int fd, error;

    size = final_size(new_value(value), size);
    n = note_begin("put", ",\"key\":\"%s\",\"val\":\"%s\",\"size\":%zu%s", key, value, size, more);
    fd = open(path_of(path, key), O_WRONLY | O_CREAT | O_TRUNC, 0666);

    if (fd < 0) {
        note_end(n, errno);
        return;
    }
    error = write_version(fd, value, size);
    if (error) {
        note_end(n, error); /* close(2) may commit nothing any more, and is not waited for */
        close(fd);
        return;
    }
    note(n, "commit", "%s", "");
    note_end(n, close(fd) < 0 ? errno : 0);
}

static char *some_key(char *buffer)
{
    snprintf(buffer, NAME_SIZE, "k%u", chance(KEYS));
    return buffer;
}

void step_rewrite(void)
{
    char key[NAME_SIZE];

    put_version(some_key(key), "", some_size());
    pause_ms(60);
}

/* A temporary file that is renamed, closed before or after (C5). */
static int write_and_rename(unsigned n, const char *from, const char *to, const char *value, size_t size, int early)
{
    int fd = open(from, O_WRONLY | O_CREAT | O_TRUNC, 0666), error;

    if (fd < 0)
        return errno;
    error = write_version(fd, value, size);
    if (!early && close(fd) < 0 && !error)
        error = errno;
    if (!error) {
        note(n, "commit", "%s", "");
        error = rename(from, to) < 0 ? errno : 0;
    }
    if (early)
        close(fd);
    if (error)
        unlink(from);
    return error;
}

void step_rename(void)
{
    char key[NAME_SIZE], value[NAME_SIZE / 2], temporary[2 * NAME_SIZE], from[NAME_SIZE], to[NAME_SIZE];
    size_t size = final_size(new_value(value), some_size());
    unsigned n;

    n = note_begin("put", ",\"key\":\"%s\",\"val\":\"%s\",\"size\":%zu,\"how\":\"rename\"", some_key(key), value, size);
    snprintf(temporary, sizeof temporary, "%s.tmp.%s", key, value);
    note_end(n, write_and_rename(n, path_of(from, temporary), path_of(to, key), value, size, chance(2) == 0));
    pause_ms(60);
}

/* ---- readers */

static sigjmp_buf no_page;

static void on_bus(int number)
{
    siglongjmp(no_page, 1);
}

/* A daemon that died has no pages to give: that is EIO. */
static int copy_mapping(char *data, const char *map, size_t size)
{
    struct sigaction action = {.sa_handler = on_bus}, before;
    int missing;

    sigaction(SIGBUS, &action, &before);
    missing = sigsetjmp(no_page, 1);
    if (!missing)
        memcpy(data, map, size);
    sigaction(SIGBUS, &before, NULL);
    errno = EIO;
    return missing ? -1 : 0;
}

/* All of the file from its beginning, in pieces, or through a mapping: malloc'd, or NULL with errno. */
static char *read_whole(int fd, size_t size, size_t *ret_size)
{
    char *data = malloc(size + LARGEST + 2);
    size_t have = 0, piece = chance(2) ? 4096 + chance(1 << 16) : LARGEST + 1;
    ssize_t got = 1;

    if (size && chance(4) == 0) {
        char *map = mmap(NULL, size, PROT_READ, chance(2) ? MAP_SHARED : MAP_PRIVATE, fd, 0);

        if (map != MAP_FAILED) {
            got = copy_mapping(data, map, size);
            munmap(map, size);
            have = size;
        }
    }
    while (got > 0 && have < size + LARGEST) {
        got = pread(fd, data + have, piece < size + LARGEST - have ? piece : size + LARGEST - have, (off_t)have);
        have += got > 0 ? (size_t)got : 0;
        if (chance(20) == 0)
            pause_ms(30);
    }
    if (got < 0) {
        free(data);
        return NULL;
    }
    data[have] = '\0';
    *ret_size = have;
    return data;
}

static int note_content(unsigned n, const char *phase, int fd, char *ret_value)
{
    struct stat status;
    size_t size = 0;
    char *data = fstat(fd, &status) == 0 ? read_whole(fd, (size_t)status.st_size, &size) : NULL;
    int error = errno, bad;

    if (!data) {
        note(n, phase, ",\"err\":\"%s\"", strerrorname_np(error));
        return error;
    }
    bad = version_read(data, size, ret_value);
    if (!bad && size != (size_t)status.st_size) {
        snprintf(ret_value, NAME_SIZE, "fstat tells %lld of %zu bytes", (long long)status.st_size, size);
        bad = -1;
    }
    note(n, phase, ",\"%s\":\"%s\",\"size\":%zu,\"err\":\"\"", bad ? "bad" : "val", ret_value, size);
    free(data);
    return bad;
}

/* Opened files are kept for a while, and read again. */
static int open_version(const char *key, const char *more, unsigned *ret_n)
{
    char path[NAME_SIZE];
    unsigned n = note_begin("get", ",\"key\":\"%s\"%s", key, more);
    int fd = open(path_of(path, key), O_RDONLY);

    if (fd < 0) {
        note_end(n, errno);
        return -1;
    }
    note(n, "opened", "%s", "");
    *ret_n = n;
    return fd;
}

int get_version(const char *key, const char *more, char *ret_value)
{
    unsigned n;
    int fd = open_version(key, more, &n), error;

    if (fd < 0)
        return errno;
    error = note_content(n, "end", fd, ret_value);
    close(fd);
    return error;
}

void step_read(void)
{
    char key[NAME_SIZE], value[NAME_SIZE];
    unsigned n;
    int fd = open_version(some_key(key), "", &n);

    if (fd >= 0) {
        note_content(n, "end", fd, value);
        if (chance(3) == 0) {
            pause_ms(400);
            note_content(n, "again", fd, value);
        }
        close(fd);
    }
    pause_ms(20);
}

static void look_around(void)
{
    unsigned n = note_begin("list", "%s", "");
    DIR *dir = opendir(worker.top);
    int seen = 0, reserved = 0, error;

    if (!dir) {
        note_end(n, errno);
        return;
    }
    for (struct dirent *entry; errno = 0, (entry = readdir(dir));) {
        for (int i = 0; i < KEYS; i++)
            seen |= entry->d_name[0] == 'k' && entry->d_name[1] == '0' + i && !entry->d_name[2] ? 1 << i : 0;
        reserved |= strncmp(entry->d_name, ".safewritefs", 12) == 0;
    }
    error = errno; /* of readdir(3) */
    closedir(dir);
    if (error)
        note_end(n, error);
    else
        note(n, "end", ",\"seen\":%d,\"reserved\":%d,\"err\":\"\"", seen, reserved);
}

void step_look(void)
{
    char key[NAME_SIZE], path[NAME_SIZE];
    struct stat status;
    unsigned n = note_begin("stat", ",\"key\":\"%s\"", some_key(key));

    if (stat(path_of(path, key), &status) < 0)
        note_end(n, errno);
    else
        note(n, "end", ",\"size\":%lld,\"err\":\"\"", (long long)status.st_size);
    if (chance(8) == 0)
        look_around();
    pause_ms(30);
}
