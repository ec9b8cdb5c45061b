/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "units.h"

#include <string.h>

#define MS G_GUINT64_CONSTANT(1000)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define KIB G_GUINT64_CONSTANT(1024)
#define MIB (KIB * KIB)
#define GIB (KIB * MIB)
#define TIB (KIB * GIB)

typedef struct {
    const char *suffix;
    guint64 factor;
} Unit;

/* Largest first, so that a value is printed in the largest unit that divides it. */
static const Unit time_units[] = {{"d", DAY}, {"h", HOUR}, {"min", MINUTE}, {"s", SECOND}, {"ms", MS}, {NULL, 0}};
static const Unit byte_units[] = {{"T", TIB}, {"G", GIB}, {"M", MIB}, {"K", KIB}, {"", 1}, {NULL, 0}};

static const Unit *table_of(SwUnits units)
{
    return units == SW_UNITS_TIME ? time_units : byte_units;
}

char *sw_units_format(guint64 value, SwUnits units)
{
    const Unit *unit = table_of(units);

    if (value == 0)
        return g_strdup("0");
    while (unit[1].suffix && value % unit->factor != 0)
        unit++;
    return g_strdup_printf("%" G_GUINT64_FORMAT "%s", value / unit->factor, unit->suffix);
}

/* The factor of a suffix; an empty one means seconds or bytes.  0: no such unit. */
static guint64 factor_of(const char *suffix, SwUnits units)
{
    if (!*suffix)
        return units == SW_UNITS_TIME ? SECOND : 1;
    for (const Unit *unit = table_of(units); unit->suffix; unit++)
        if (units == SW_UNITS_TIME ? !strcmp(suffix, unit->suffix) : !g_ascii_strcasecmp(suffix, unit->suffix))
            return unit->factor;
    return 0;
}

/* g_ascii_strtod alone would also take "nan" and "0x1p3". */
gboolean sw_units_parse(const char *text, SwUnits units, double *ret_value)
{
    gsize length = strspn(text, "0123456789.");
    g_autofree char *digits = g_strndup(text, length);
    guint64 factor = factor_of(text + length, units);

    if (factor == 0 || strspn(digits, ".") == length || strchr(digits, '.') != strrchr(digits, '.'))
        return FALSE;
    *ret_value = g_ascii_strtod(digits, NULL) * (double)factor;
    return TRUE;
}
