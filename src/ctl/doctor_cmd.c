/* SPDX-License-Identifier: GPL-2.0-or-later */

/* doctor: is everything as it should be, and what is to be done where it is not?  Nothing is changed. */

#include "../core/config.h"
#include "../core/units.h"

#include "commands.h"
#include "doctor.h"

static int read_max(const SwArguments *arguments, guint64 *ret_max)
{
    SwConfig config;
    double value;

    sw_config_init(&config);
    *ret_max = config.salvage_max;
    sw_config_clear(&config);
    if (!arguments->salvage_max)
        return 0;
    if (!sw_units_parse(arguments->salvage_max, SW_UNITS_BYTES, &value))
        return sw_misused("doctor: --salvage-max: '%s' is no size (a number, then K, M, G or T)",
                          arguments->salvage_max);
    *ret_max = (guint64)value;
    return 0;
}

static int look(const char *path, guint64 max, SwFindings *findings)
{
    SwPlace place;
    int r = sw_place_open(&place, path);

    if (r == 0) {
        sw_doctor_source(findings, &place);
        sw_doctor_control(findings, &place, max);
        sw_doctor_mounts(findings, &place);
    }
    sw_place_clear(&place);
    return r;
}

static int run(const SwArguments *arguments)
{
    g_autoptr(SwFindings) findings = sw_findings_new();
    guint64 max;
    int printed, r = read_max(arguments, &max);

    if (r != 0)
        return r;
    sw_doctor_machine(findings);
    if (arguments->n_words > 0)
        r = look(arguments->words[0], max, findings);
    printed = sw_findings_print(findings, arguments->json);
    return r != 0 ? r : printed;
}

const SwCommand sw_doctor_command = {
    .name = "doctor",
    .options = "json salvage-max",
    .min_words = 0,
    .max_words = 1,
    .usage = "[PATH]",
    .summary =
        "Checks this machine, and with PATH a source and its mounts, and says what to do.  Exit status 1: there is\n"
        "an error.  --salvage-max is what the mounts were told, of which 7/8 are no reason to worry.",
    .run = run,
};
