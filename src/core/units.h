/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_UNITS_H
#define SW_UNITS_H

/* Times and sizes as people write them: "20", "1.5h", "1G".  Without a unit: seconds, bytes.  Pure. */

#include <glib.h>

typedef enum { SW_UNITS_TIME, SW_UNITS_BYTES } SwUnits;

/*
 * Microseconds or bytes.  A number is decimal digits with at most one point; units are ms, s, min, h, d as written
 * here, or K, M, G, T (of 1024) in either case.  FALSE: none of that.
 */
gboolean sw_units_parse(const char *text, SwUnits units, double *ret_value);

/* In the largest unit that divides it (g_free). */
char *sw_units_format(guint64 value, SwUnits units);

#endif
