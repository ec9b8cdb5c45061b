/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_UNIT_H
#define SW_TEST_UNIT_H

/* What cmocka wants included before itself, in one place. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
