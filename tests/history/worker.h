/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_WORKER_H
#define SW_TEST_WORKER_H

/*
 * A program of the history checker: does one kind of work on a mount until SIGTERM, and writes down what it did.
 *
 * The journal is a file outside the mount, one JSON object a line, each line one write(2), so that whatever had been
 * done before a kill -9 is known.  `t` is CLOCK_BOOTTIME in ns, `n` the number of the operation within the worker, `ph`
 * its phase.  The first line of an operation has its `op` and `key`.  Everything is single-threaded.
 */

#include <stdint.h>
#include <sys/types.h>

enum { KEYS = 3, LOGS = 2, SLOTS = 8, SLOT_SIZE = 6000, RACES = 1000, LOCKS = 2, NAME_SIZE = 256 };

typedef struct {
    const char *who, *top; /* what stands in every value it writes; the mount */
    int side;              /* which host: 0 ... SLOTS - 1 */
    int life;
    uint32_t pace; /* pauses are so many times as long */
    volatile int stop;
} Worker;

typedef struct {
    const char *name;
    void (*step)(void); /* one operation, and a pause */
} Role;

extern Worker worker;

/* ---- journal and chance (worker.c) */

unsigned note_begin(const char *op, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `format` gives more members, each with a comma before it. */
void note(unsigned n, const char *phase, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The end of an operation with an errno, 0 for none. */
void note_end(unsigned n, int error);
uint32_t chance(uint32_t below);
/* Sleeps for 0 to `ms`; a signal ends it. */
void pause_ms(uint32_t ms);
const char *path_of(char *buffer, const char *name);
/* Writes all of it in some pieces; 0 or an errno. */
int write_pieces(int fd, const char *data, size_t size);

/* ---- versions (versions.c): whole files that tell which version they are at every byte */

/* Puts a version of `size` bytes (the least possible if smaller) there; `value` becomes its name.  The caller frees it.
 */
char *version_make(const char *value, size_t *size);
/* Which version the bytes are: 0 and its name ("" for none at all), or -1 and why they are none. */
int version_read(const char *data, size_t size, char *ret_value);
void put_version(const char *key, const char *more, size_t size);
/* Reads a key whole into `ret_value` and notes it; 0 or an errno; -1 for what is no version. */
int get_version(const char *key, const char *more, char *ret_value);

void step_rewrite(void);
void step_rename(void);
void step_read(void);
void step_look(void);

/* ---- files that are shared (shared.c) */

void step_append(void);
void step_append_held(void);
void step_tail(void);
void step_edit(void);
void step_snap(void);

/* ---- names and locks (names.c) */

void step_excl(void);
void step_lock_file(void);
void step_lock_symlink(void);
void step_lock_dir(void);
void step_lock_link(void);
void step_flock(void);
void step_fcntl(void);
void step_ofd(void);

#endif
