/* SPDX-License-Identifier: GPL-2.0-or-later */

/* safewritectl: looks after a safewritefs directory.  The first word says what is looked after, the second what is
 * done. */

#include "salvage_cmd.h"

#include <glib.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "Usage: safewritectl salvage list [--json] PATH\n"
    "       safewritectl salvage restore [--to FILE] [--force] PATH ENTRY\n"
    "       safewritectl salvage drop PATH ENTRY|--all\n"
    "       safewritectl --help | --version\n"
    "\n"
    "Looks after what safewritefs could not commit.  PATH is the source directory, or where it is\n"
    "mounted by safewritefs.\n"
    "\n"
    "  list      show the entries: name, size, time, reason, program, and where the bytes belong\n"
    "    --json      as an array of objects\n"
    "  restore   copy an entry to where it belongs, or to FILE; the entry stays\n"
    "    --to FILE   put it there\n"
    "    --force     replace what is there\n"
    "  drop      remove an entry, or all of them\n";

int main(int argc, char **argv)
{
    (void)setlocale(LC_ALL, "");
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)printf("safewritectl %s\n", SW_VERSION);
        return 0;
    }
    if (argc >= 3 && strcmp(argv[1], "salvage") == 0)
        return sw_salvage_command(argc - 2, argv + 2);
    (void)fputs(help, stderr);
    return SW_EXIT_USAGE;
}
