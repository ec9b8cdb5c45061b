/* SPDX-License-Identifier: GPL-2.0-or-later */

/* safewritectl: looks after safewritefs directories.  The first word, or two with salvage, says what is done. */

#include "commands.h"
#include "say.h"

#include <glib.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "Usage: safewritectl status [--json] [PATH]\n"
    "       safewritectl hosts [--json] [--watch TIME] PATH\n"
    "       safewritectl locks [--json] PATH [FILE...]\n"
    "       safewritectl stages [--json] PATH\n"
    "       safewritectl break [--json] [--force] [PATH] LOCK|HOST\n"
    "       safewritectl gc [--json] [--salvage-max SIZE] [--salvage-age TIME] PATH\n"
    "       safewritectl clean [--json] [--force] PATH\n"
    "       safewritectl top [--json] [PATH]\n"
    "       safewritectl metrics [--json] [--textfile DIR] [PATH]\n"
    "       safewritectl doctor [--json] [--salvage-max SIZE] [PATH]\n"
    "       safewritectl upgrade [--json] PATH [PROGRAM]\n"
    "       safewritectl salvage list [--json] PATH\n"
    "       safewritectl salvage restore [--json] [--to FILE] [--force] PATH ENTRY\n"
    "       safewritectl salvage drop [--json] PATH ENTRY|--all\n"
    "       safewritectl --help | --version\n"
    "\n"
    "Looks after directories that are shared by safewritefs.  PATH is the source directory, or where it\n"
    "is mounted by safewritefs.\n"
    "\n"
    "  status    mounts, hosts alive and dead, leases on contents, stages, salvage\n"
    "  hosts     who uses a source, and whether their heartbeats come\n"
    "  locks     who holds what, since when\n"
    "  stages    what is being written, by whom, since when\n"
    "  break     end the lock of an application, or a host, whoever holds it or lives\n"
    "  gc        clear away what dead hosts have left\n"
    "  clean     make a plain directory of a source that no host uses any more\n"
    "  top       what is done, each second anew\n"
    "  metrics   what mounts have counted, for Prometheus\n"
    "  doctor    what is wrong with this machine, a source or its mounts, and what to do\n"
    "  upgrade   go on with a mount by another program file, with all that is open\n"
    "  salvage   show, bring back or remove bytes that could not be committed\n"
    "\n"
    "Each command has a --help of its own.  Exit status: 0 done, 1 failed, 2 wrong command line.\n";

static const SwCommand *const commands[] = {
    &sw_status_command,          &sw_hosts_command,        &sw_stages_command,  &sw_locks_command,
    &sw_break_command,           &sw_gc_command,           &sw_clean_command,   &sw_metrics_command,
    &sw_doctor_command,          &sw_top_command,          &sw_upgrade_command, &sw_salvage_list_command,
    &sw_salvage_restore_command, &sw_salvage_drop_command,
};

/* How many of the words make up its name; 0: it is not meant. */
static int words_of(const SwCommand *command, int argc, char **argv)
{
    g_auto(GStrv) words = g_strsplit(command->name, " ", -1);
    int n = (int)g_strv_length(words);

    for (int i = 0; i < n; i++)
        if (i + 1 >= argc || strcmp(argv[i + 1], words[i]) != 0)
            return 0;
    return n;
}

int main(int argc, char **argv)
{
    (void)setlocale(LC_ALL, "");
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)printf("safewritectl %s\n", SW_VERSION);
        return sw_finish_output();
    }
    for (guint i = 0; i < G_N_ELEMENTS(commands); i++) {
        int words = words_of(commands[i], argc, argv);

        if (words > 0)
            return sw_command_run(commands[i], argc - words, argv + words);
    }
    if (argc >= 2 && strcmp(argv[argc - 1], "--help") == 0) {
        (void)fputs(help, stdout);
        return sw_finish_output();
    }
    if (argc >= 2) {
        g_autofree char *shown = sw_printable(argv[1], FALSE);

        return sw_misused("there is no command %s%s", shown,
                          strcmp(shown, "salvage") == 0 ? " without list, restore or drop" : "");
    }
    (void)fputs(help, stderr);
    return SW_EXIT_USAGE;
}
