/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_ARGS_H
#define SW_ARGS_H

/* The command lines of all commands: one struct, of which each command takes some. */

#include <glib.h>

typedef struct {
    gboolean json, all, force;
    char *to;
    char *textfile;
    char *watch;
    char *salvage_max, *salvage_age;
    char **words; /* NULL: none */
    guint n_words;
} SwArguments;

typedef struct {
    const char *name;    /* "salvage list" */
    const char *options; /* names of those it takes, parted by spaces */
    guint min_words, max_words;
    const char *usage;   /* the words, as --help shows them */
    const char *summary; /* what it does, for --help */
    int (*run)(const SwArguments *arguments);
} SwCommand;

/* Parses (`argv[0]` is left out of account; --help prints and ends the program), runs; the exit code. */
int sw_command_run(const SwCommand *command, int argc, char **argv);

#endif
