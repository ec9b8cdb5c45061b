/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FINDINGS_H
#define SW_FINDINGS_H

/* What doctor finds: one line each, how bad it is, and what to do about it. */

#include "say.h"

typedef enum { SW_FINDING_OK, SW_FINDING_WARNING, SW_FINDING_ERROR } SwFindingLevel;

typedef struct SwFindings SwFindings;

SwFindings *sw_findings_new(void);
void sw_findings_free(SwFindings *findings);
/* `check` (not copied) is a word for what was looked at; `advice` (copied) may be NULL.  The rest is what was found. */
void sw_finding(SwFindings *findings, SwFindingLevel level, const char *check, const char *advice, const char *format,
                ...) G_GNUC_PRINTF(5, 6);
/* Prints them, as text or JSON; exit code: SW_EXIT_FAILURE if one is an error. */
int sw_findings_print(const SwFindings *findings, gboolean as_json);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(SwFindings, sw_findings_free)

#endif
