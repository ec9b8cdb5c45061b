/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names that only one may have: O_EXCL, lock files, and the locks of flock(2) and fcntl(2). */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RANGES = 4 };

typedef struct {
    const char *prefix;            /* of the lock's name */
    int (*make)(const char *path); /* 0 or an errno */
    int (*remove)(const char *path);
} LockKind;

/* ---- O_EXCL on names of data */

/* All racers try the same name at about the same time. */
static unsigned present_race(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (unsigned)(now.tv_sec * 12 + now.tv_nsec / 83400000) % RACES;
}

static void use_won(unsigned n, int fd, const char *path, const char *value)
{
    size_t size = 1 + chance(5000);
    char *data = version_make(value, &size);
    int error = write_pieces(fd, data, size);

    free(data);
    if (!error)
        note(n, "commit", "%s", "");
    error = close(fd) < 0 ? errno : error;
    if (error) {
        note_end(n, error);
        return;
    }
    note(n, "kept", "%s", "");
    if (chance(3) == 0) {
        pause_ms(40);
        note(n, "release", "%s", "");
        note_end(n, unlink(path) < 0 ? errno : 0);
    }
}

void step_excl(void)
{
    static unsigned last = RACES;
    char key[NAME_SIZE], value[NAME_SIZE / 2], path[NAME_SIZE];
    unsigned n;
    int fd;

    if (present_race() == last && chance(3))
        return pause_ms(20);
    last = present_race();
    snprintf(key, sizeof key, "r%u", last);
    snprintf(value, sizeof value, "%s-%d-%u", worker.who, worker.life, last);
    n = note_begin("excl", ",\"key\":\"%s\",\"val\":\"%s\"", key, value);
    fd = open(path_of(path, key), O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (fd < 0) {
        note_end(n, errno);
    } else {
        note(n, "held", "%s", "");
        use_won(n, fd, path, value);
    }
    pause_ms(20);
}

/* ---- what a holder does: a counter that everybody increments who holds the lock */

static void protected_work(unsigned hold, const char *counter)
{
    char value[NAME_SIZE] = "", more[2 * NAME_SIZE];
    int error = get_version(counter, "", value);

    if (chance(4) == 0)
        pause_ms(chance(6) ? 40 : 800);
    if (error && error != ENOENT)
        return;
    snprintf(more, sizeof more, ",\"hold\":%u,\"prev\":\"%s\"", hold, value);
    put_version(counter, more, 40 + chance(900));
}

/* ---- lock files */

static int make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);

    if (fd < 0)
        return errno;
    if (chance(2))
        dprintf(fd, "%d\n", getpid());
    return close(fd) < 0 ? errno : 0;
}

static int make_symlink(const char *path)
{
    return symlink("owner", path) < 0 ? errno : 0;
}

static int make_dir(const char *path)
{
    return mkdir(path, 0777) < 0 ? errno : 0;
}

static int make_link(const char *path)
{
    char name[NAME_SIZE], mine[NAME_SIZE];
    int fd, error;

    snprintf(name, sizeof name, "mine.%s", worker.who);
    fd = open(path_of(mine, name), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0)
        return errno;
    dprintf(fd, "%s-%d\n", worker.who, worker.life);
    close(fd);
    error = link(mine, path) < 0 ? errno : 0;
    unlink(mine);
    return error;
}

static int remove_name(const char *path)
{
    return unlink(path) < 0 ? errno : 0;
}

static int remove_dir(const char *path)
{
    return rmdir(path) < 0 ? errno : 0;
}

static void step_lock(const LockKind *kind)
{
    char key[NAME_SIZE], path[NAME_SIZE], counter[NAME_SIZE];
    unsigned which = chance(LOCKS), n;
    int error = EEXIST;

    snprintf(key, sizeof key, "%s%u.lock", kind->prefix, which);
    snprintf(counter, sizeof counter, "c-%s%u", kind->prefix, which);
    n = note_begin("hold", ",\"key\":\"%s\",\"mode\":\"ex\",\"from\":0,\"len\":0", key);
    path_of(path, key);
    for (int tries = 300; error == EEXIST && tries && !worker.stop; tries--) {
        error = kind->make(path);
        if (error)
            pause_ms(20);
    }
    if (error) {
        note_end(n, error);
        return;
    }
    note(n, "held", "%s", "");
    protected_work(n, counter);
    note(n, "release", "%s", "");
    note_end(n, kind->remove(path));
    pause_ms(60);
}

void step_lock_file(void)
{
    step_lock(&(LockKind){"lf", make_file, remove_name});
}

void step_lock_symlink(void)
{
    step_lock(&(LockKind){"ls", make_symlink, remove_name});
}

void step_lock_dir(void)
{
    step_lock(&(LockKind){"ld", make_dir, remove_dir});
}

void step_lock_link(void)
{
    step_lock(&(LockKind){"ll", make_link, remove_name});
}

/* ---- flock(2), fcntl(2): exclusive or shared, all of the file or one range */

static int set_lock(int fd, int command, int type, unsigned from, unsigned length)
{
    struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = from, .l_len = length};

    return fcntl(fd, command, &lock) < 0 ? errno : 0;
}

static int take_lock(int fd, int command, int shared, unsigned from, unsigned length)
{
    if (command < 0)
        return flock(fd, shared ? LOCK_SH : LOCK_EX) < 0 ? errno : 0;
    return set_lock(fd, command, shared ? F_RDLCK : F_WRLCK, from, length);
}

static void hold_lock(int fd, int command, const char *key)
{
    int shared = chance(4) == 0, error;
    unsigned part = chance(RANGES), whole = command < 0 || chance(3) == 0, n;
    unsigned from = whole ? 0 : part * 10, length = whole ? 0 : 10;
    char counter[2 * NAME_SIZE];

    snprintf(counter, sizeof counter, "c-%s-%u", key, part);
    n = note_begin("hold", ",\"key\":\"%s\",\"mode\":\"%s\",\"from\":%u,\"len\":%u", key, shared ? "sh" : "ex", from,
                   length);
    error = take_lock(fd, command, shared, from, length);
    if (error) {
        note_end(n, error);
        return;
    }
    note(n, "held", "%s", "");
    if (shared)
        pause_ms(20);
    else
        protected_work(n, counter);
    note(n, "release", "%s", "");
    if (chance(2)) /* else close(2) releases it */
        error = command < 0 ? (flock(fd, LOCK_UN) < 0 ? errno : 0) : set_lock(fd, command, F_UNLCK, from, length);
    note_end(n, error);
}

static void step_kernel_lock(const char *name, int command)
{
    char key[NAME_SIZE], path[NAME_SIZE];
    int fd;

    snprintf(key, sizeof key, "%s%u", name, chance(LOCKS));
    fd = open(path_of(path, key), O_RDWR | O_CREAT, 0666);
    if (fd >= 0) {
        hold_lock(fd, command, key);
        close(fd);
    }
    pause_ms(40);
}

void step_flock(void)
{
    step_kernel_lock("flock", -1);
}

/* These two see each other's locks. */
void step_fcntl(void)
{
    step_kernel_lock("posix", F_SETLKW);
}

void step_ofd(void)
{
    step_kernel_lock("posix", F_OFD_SETLKW);
}
