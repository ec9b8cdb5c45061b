/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The option table, the help text and the parser as programs can ask them: for options.py.
 *
 *   option_probe table             one line per option: kind TAB name TAB default
 *   option_probe help              what --help prints
 *   option_probe parse ARGUMENT... what the parser says: "ok", or why not
 */

#include "../../src/option_table.h"
#include "../../src/options.h"

#include <string.h>

static const char *kind_word(const SwOptionSpec *spec)
{
    if (spec->kind <= SW_OPTION_CONF)
        return "settings";
    if (spec->kind <= SW_OPTION_LABEL)
        return "kernel";
    return spec->kind == SW_OPTION_REFUSED ? "refused" : "ignored";
}

static void print_table(void)
{
    SwConfig config;

    sw_config_init(&config);
    for (const SwOptionSpec *spec = sw_option_table(); spec->name; spec++) {
        g_autofree char *value = sw_option_value_text(spec, &config);
        const char *fixed = spec->kind == SW_OPTION_CONF ? SW_CONF_PATH : "";

        printf("%s\t%s%s\t%s\n", kind_word(spec), spec->name, spec->kind == SW_OPTION_IGNORED_PREFIX ? "*" : "",
               value ? value : fixed);
    }
    sw_config_clear(&config);
}

static int parse(int argc, char **argv)
{
    g_autofree char *why = NULL;
    SwOptions options;
    int r = sw_options_parse(argc, argv, NULL, &options, &why);

    printf("%s\n", r < 0 ? why : "ok");
    if (r == 0)
        sw_options_clear(&options);
    return r < 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "table"))
        print_table();
    else if (argc == 2 && !strcmp(argv[1], "help"))
        sw_options_print_help(stdout);
    else if (argc > 2 && !strcmp(argv[1], "parse"))
        return parse(argc - 1, argv + 1);
    else
        return 2;
    return 0;
}
