/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "disk.h"

#include <dirent.h>
#include <string.h>

static gboolean is_any_of(const char *name, const char *const *allowed)
{
    for (; *allowed; allowed++)
        if (strcmp(name, *allowed) == 0)
            return TRUE;
    return FALSE;
}

/* Complains about every name in the directory that is not allowed. */
static void only_these(Sim *sim, const char *below, const char *const *allowed)
{
    g_autofree char *path = g_build_filename(sim->path, below, NULL);
    DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strcmp(entry->d_name, ".safewritefs") != 0 && !is_any_of(entry->d_name, allowed))
            sim_complain(sim, "left behind: %s/%s", below, entry->d_name);
    if (dir)
        (void)closedir(dir);
}

void sim_disk_litter(Sim *sim, const char *const *names)
{
    static const char *const control[] = {"format", "hosts", "leases", "locks", "carriers", "salvage", NULL};
    static const char *const none[] = {NULL};

    only_these(sim, "", names);
    only_these(sim, ".safewritefs", control);
    only_these(sim, ".safewritefs/hosts", none);
    only_these(sim, ".safewritefs/leases", none);
    only_these(sim, ".safewritefs/locks", none);
    only_these(sim, ".safewritefs/carriers", none);
}

gboolean sim_disk_salvaged(Sim *sim, const char *bytes)
{
    g_autofree char *path = g_build_filename(sim->path, ".safewritefs/salvage", NULL);
    DIR *dir = opendir(path);
    struct dirent *entry;
    gboolean found = FALSE;

    while (dir && (entry = readdir(dir)) && !found) {
        g_autofree char *file = g_build_filename(path, entry->d_name, NULL);
        g_autofree char *text = NULL;

        found = g_str_has_suffix(file, ".data") && g_file_get_contents(file, &text, NULL, NULL) && strstr(text, bytes);
    }
    if (dir)
        (void)closedir(dir);
    return found;
}

void sim_disk_put(Sim *sim, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(sim->path, name, NULL);

    if (!g_file_set_contents(path, text, -1, NULL))
        g_error("cannot write %s", path);
}
