/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "args.h"

#include "say.h"

#include <string.h>

static gboolean takes(const SwCommand *command, const char *option)
{
    g_auto(GStrv) names = g_strsplit(command->options, " ", -1);

    return g_strv_contains((const char *const *)names, option);
}

static GOptionContext *context_of(const SwCommand *command, SwArguments *ret_arguments)
{
    const GOptionEntry all[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &ret_arguments->json, "Print JSON", NULL},
        {"to", 0, 0, G_OPTION_ARG_FILENAME, &ret_arguments->to, "Put it there", "FILE"},
        {"textfile", 0, 0, G_OPTION_ARG_FILENAME, &ret_arguments->textfile, "Write files for node_exporter there",
         "DIR"},
        {"watch", 0, 0, G_OPTION_ARG_STRING, &ret_arguments->watch, "Watch for so long", "TIME"},
        {"force", 0, 0, G_OPTION_ARG_NONE, &ret_arguments->force, "Even so", NULL},
        {"all", 0, 0, G_OPTION_ARG_NONE, &ret_arguments->all, "Every entry", NULL},
        {"salvage-max", 0, 0, G_OPTION_ARG_STRING, &ret_arguments->salvage_max, "Trim salvage to this", "SIZE"},
        {"salvage-age", 0, 0, G_OPTION_ARG_STRING, &ret_arguments->salvage_age, "Drop what is older", "TIME"},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &ret_arguments->words, NULL, NULL},
        {NULL},
    };
    GOptionContext *context = g_option_context_new(command->usage);
    GOptionEntry one[2] = {{NULL}, {NULL}};

    for (const GOptionEntry *option = all; option->long_name; option++)
        if (!*option->long_name || takes(command, option->long_name)) {
            one[0] = *option;
            g_option_context_add_main_entries(context, one, NULL);
        }
    g_option_context_set_summary(context, command->summary);
    return context;
}

static int parse(const SwCommand *command, int argc, char **argv, SwArguments *ret_arguments)
{
    g_autofree char *program = g_strconcat("safewritectl ", command->name, NULL);
    g_autoptr(GOptionContext) context = NULL;
    g_autoptr(GError) error = NULL;

    g_set_prgname(program);
    context = context_of(command, ret_arguments);
    if (!g_option_context_parse(context, &argc, &argv, &error))
        return sw_misused("%s: %s", command->name, error->message);
    ret_arguments->n_words = ret_arguments->words ? g_strv_length(ret_arguments->words) : 0;
    /* --all stands for the last word. */
    if (ret_arguments->n_words + ret_arguments->all < command->min_words ||
        ret_arguments->n_words + ret_arguments->all > command->max_words)
        return sw_misused("wrong number of arguments; %s takes: %s", command->name, command->usage);
    return 0;
}

int sw_command_run(const SwCommand *command, int argc, char **argv)
{
    SwArguments arguments = {0};
    int r = parse(command, argc, argv, &arguments);
    int written;

    if (r == 0)
        r = command->run(&arguments);
    written = sw_finish_output();
    g_free(arguments.to);
    g_free(arguments.textfile);
    g_free(arguments.watch);
    g_free(arguments.salvage_max);
    g_free(arguments.salvage_age);
    g_strfreev(arguments.words);
    return r != 0 ? r : written;
}
