/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_LEASE_FIXTURE_H
#define SW_LEASE_FIXTURE_H

/* A source directory of its own for each test, on the real port, and small ways to look at and to spoil it. */

#include "../../src/core/record.h"
#include "../../src/lease/content_lease.h"
#include "../../src/lease/control.h"
#include "../../src/port/port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glib.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Last: it needs what is above. */
#include <cmocka.h>

typedef struct {
    SwPort *port;
    SwConfig config;
    char path[64]; /* of the source */
    int source;
} Fixture;

static inline int fixture_setup(void **state)
{
    Fixture *f = g_new0(Fixture, 1);

    strcpy(f->path, "/tmp/sw-lease-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    f->source = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->port = sw_port_posix_new();
    f->config = (SwConfig){.lease_us = 20000000, .salvage_max = 1 << 20, .salvage_age_us = G_TIME_SPAN_HOUR};
    f->config.edit_copy_max = 1 << 20;
    *state = f;
    return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static inline int fixture_teardown(void **state)
{
    Fixture *f = *state;

    (void)f->port->become(f->port, NULL);
    (void)close(f->source);
    sw_port_free(f->port);
    (void)nftw(f->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    g_free(f);
    return 0;
}

/* Path below the source; a few may be in use at a time. */
G_GNUC_PRINTF(2, 3)
static inline const char *at(const Fixture *f, const char *format, ...)
{
    static __thread char paths[8][512];
    static __thread unsigned turn;
    char *path = paths[turn++ % 8];
    int length = snprintf(path, sizeof paths[0], "%s/", f->path);
    va_list args;

    va_start(args, format);
    (void)vsnprintf(path + length, sizeof paths[0] - length, format, args);
    va_end(args);
    return path;
}

static inline void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
}

static inline void expect_text(const char *path, const char *expected)
{
    g_autofree char *text = NULL;

    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    assert_string_equal(text, expected);
}

static inline gboolean exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static inline guint count_names(const char *path, const char *suffix)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    guint n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)))
        n += entry->d_name[0] != '.' && g_str_has_suffix(entry->d_name, suffix);
    (void)closedir(dir);
    return n;
}

/* The one name in a directory that ends so, without that end. */
static inline char *only_name(const char *path, const char *suffix)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    char *found = NULL;

    assert_non_null(dir);
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.' && g_str_has_suffix(entry->d_name, suffix)) {
            assert_null(found);
            found = g_strndup(entry->d_name, strlen(entry->d_name) - strlen(suffix));
        }
    (void)closedir(dir);
    assert_non_null(found);
    return found;
}

static inline SwControl *open_control(Fixture *f)
{
    g_autofree char *why = NULL;
    SwControl *control = NULL;
    int r = sw_control_open(f->port, f->source, f->path, &f->config, &control, &why);

    if (r < 0)
        print_error("%s\n", why);
    assert_int_equal(r, 0);
    assert_null(why);
    return control;
}

static inline void stage(SwControl *control, guint worker, const char *name, const char *text)
{
    int fd = openat(sw_control_stage_dir(control, worker), name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
}

/*
 * A mount of this machine that dies: `act` runs in a child, which is then killed.  Assertions do not reach us from
 * there, so a failing `act` exits.
 */
static inline void die_after(Fixture *f, void (*act)(Fixture *f, SwControl *control))
{
    int ready[2], status;
    char byte;
    pid_t pid;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        act(f, open_control(f));
        if (write(ready[1], "x", 1) == 1)
            (void)pause();
        _exit(1);
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    (void)kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

#endif
