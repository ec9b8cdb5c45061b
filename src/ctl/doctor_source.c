/* SPDX-License-Identifier: GPL-2.0-or-later */

/* doctor: the file system that a source lies in, and who serves it. */

#include "doctor.h"
#include "source_mount.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#define EXPORTS "/var/lib/nfs/etab" /* what exportfs(8) has told the kernel, with all defaults written out */
#define FREE_MIN 20                 /* warn below one part in so many */

static void check_type(SwFindings *findings, const SwSourceMount *mount)
{
    static const char *const tried[] = {"nfs", "nfs4", "ext4", "xfs", "btrfs", "tmpfs", NULL};

    if (!mount->type)
        sw_finding(findings, SW_FINDING_OK, "source", NULL,
                   "its file system is not known: a mount covers it; give a path that leads to the source itself");
    else if (!g_strv_contains(tried, mount->type))
        sw_finding(findings, SW_FINDING_WARNING, "source", "try it with what you mean to do there",
                   "its file system is %s, with which safewritefs has not been tried", mount->type);
    else if (mount->is_nfs3)
        sw_finding(findings, SW_FINDING_OK, "source", "vers=4.2 saves calls",
                   "nfs, version 3: each version that is replaced is kept for a while by one more link");
    else
        sw_finding(findings, SW_FINDING_OK, "source", NULL, "its file system is %s", mount->type);
}

static void check_nfs(SwFindings *findings, const SwSourceMount *mount)
{
    for (guint i = 0; i < mount->doubts->len; i++)
        sw_finding(findings, SW_FINDING_WARNING, "nfs", NULL, "%s", (const char *)mount->doubts->pdata[i]);
    if (!mount->type || !g_str_has_prefix(mount->type, "nfs"))
        return;
    if (mount->doubts->len == 0)
        sw_finding(findings, SW_FINDING_OK, "nfs", NULL, "no mount option weakens anything");
    sw_finding(findings, SW_FINDING_OK, "export", "run safewritectl doctor on the server, too",
               "the server's export options, sync and no_subtree_check, cannot be seen from here");
}

/* "/srv/shared\tclient(rw,sync,...)": each client is a line of its own. */
static void check_export(SwFindings *findings, const char *line, const char *path)
{
    const char *tab = strchr(line, '\t'), *open = tab ? strchr(tab, '(') : NULL;
    g_autofree char *written = tab ? g_strndup(line, (gsize)(tab - line)) : NULL;
    g_autofree char *exported = written ? g_strcompress(written) : NULL;
    g_autofree char *inside = open ? g_strndup(open + 1, strcspn(open + 1, ")")) : NULL;
    g_auto(GStrv) options = inside ? g_strsplit(inside, ",", -1) : NULL;
    gsize length = exported ? strlen(exported) : 0;

    if (!options || !g_str_has_prefix(path, exported) || (length > 1 && path[length] && path[length] != '/'))
        return;
    if (g_strv_contains((const char *const *)options, "subtree_check"))
        sw_finding(findings, SW_FINDING_ERROR, "export", "export it with no_subtree_check",
                   "%s is exported with subtree_check: what is renamed out of the stage directory becomes stale for "
                   "who has it open",
                   exported);
    if (g_strv_contains((const char *const *)options, "async"))
        sw_finding(findings, SW_FINDING_ERROR, "export", "export it with sync",
                   "%s is exported with async: a server that restarts forgets what it had promised", exported);
    if (g_strv_contains((const char *const *)options, "sync") &&
        g_strv_contains((const char *const *)options, "no_subtree_check"))
        sw_finding(findings, SW_FINDING_OK, "export", NULL, "%s is exported with sync and no_subtree_check", exported);
}

static void check_exports(SwFindings *findings, const char *path)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents(EXPORTS, &text, NULL, NULL))
        return;
    lines = g_strsplit(text, "\n", -1);
    for (guint i = 0; lines[i]; i++)
        check_export(findings, lines[i], path);
}

static void check_space(SwFindings *findings, const SwPlace *place)
{
    struct statvfs st;
    int r = place->port->statvfs(place->port, place->source, &st);

    if (r < 0)
        sw_finding(findings, SW_FINDING_ERROR, "space", NULL, "it cannot be asked for its space: %s", g_strerror(-r));
    else if (st.f_blocks && st.f_bavail < st.f_blocks / FREE_MIN)
        sw_finding(findings, SW_FINDING_WARNING, "space", "a version needs room beside the one that it replaces",
                   "%.1f %% are free", 100.0 * (double)st.f_bavail / (double)st.f_blocks);
    else if (st.f_files && st.f_favail < st.f_files / FREE_MIN)
        sw_finding(findings, SW_FINDING_WARNING, "space", "each version is a new file",
                   "%.1f %% of the inodes are free", 100.0 * (double)st.f_favail / (double)st.f_files);
    else
        sw_finding(findings, SW_FINDING_OK, "space", NULL, "there is room");
}

void sw_doctor_source(SwFindings *findings, const SwPlace *place)
{
    SwSourceMount mount;

    sw_source_mount_find(place->source, &mount);
    check_type(findings, &mount);
    check_nfs(findings, &mount);
    check_exports(findings, place->path);
    check_space(findings, place);
    sw_source_mount_clear(&mount);
}
