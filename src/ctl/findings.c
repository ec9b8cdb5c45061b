/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "findings.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct {
    SwFindingLevel level;
    const char *check;
    char *text, *advice;
} Finding;

struct SwFindings {
    GPtrArray *all; /* of Finding */
};

static void finding_free(gpointer data)
{
    Finding *finding = data;

    g_free(finding->text);
    g_free(finding->advice);
    g_free(finding);
}

SwFindings *sw_findings_new(void)
{
    SwFindings *findings = g_new0(SwFindings, 1);

    findings->all = g_ptr_array_new_with_free_func(finding_free);
    return findings;
}

void sw_findings_free(SwFindings *findings)
{
    g_ptr_array_unref(findings->all);
    g_free(findings);
}

void sw_finding(SwFindings *findings, SwFindingLevel level, const char *check, const char *advice, const char *format,
                ...)
{
    Finding *finding = g_new0(Finding, 1);
    va_list args;

    va_start(args, format);
    *finding = (Finding){.level = level, .check = check, .advice = g_strdup(advice)};
    finding->text = g_strdup_vprintf(format, args);
    va_end(args);
    g_ptr_array_add(findings->all, finding);
}

static const char *level_name(SwFindingLevel level)
{
    static const char *const names[] = {"ok", "warning", "error"};

    return names[level];
}

static void print_json(const SwFindings *findings)
{
    SwJson json;

    sw_json_init(&json);
    sw_json_open(&json, NULL, '[');
    for (guint i = 0; i < findings->all->len; i++) {
        const Finding *finding = findings->all->pdata[i];

        sw_json_open(&json, NULL, '{');
        sw_json_text(&json, "result", level_name(finding->level));
        sw_json_text(&json, "check", finding->check);
        sw_json_text(&json, "text", finding->text);
        sw_json_text(&json, "advice", finding->advice);
        sw_json_close(&json);
    }
    sw_json_finish(&json);
}

static void print_text(const SwFindings *findings)
{
    for (guint i = 0; i < findings->all->len; i++) {
        const Finding *finding = findings->all->pdata[i];
        g_autofree char *text = sw_printable(finding->text, FALSE);
        g_autofree char *advice = sw_printable(finding->advice ? finding->advice : "", FALSE);

        (void)printf("%-7s  %-9s  %s%s%s\n", level_name(finding->level), finding->check, text, *advice ? ": " : "",
                     advice);
    }
}

int sw_findings_print(const SwFindings *findings, gboolean as_json)
{
    int r = 0;

    if (as_json)
        print_json(findings);
    else
        print_text(findings);
    for (guint i = 0; i < findings->all->len; i++)
        if (((const Finding *)findings->all->pdata[i])->level == SW_FINDING_ERROR)
            r = SW_EXIT_FAILURE;
    return r;
}
