/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "source.h"

#include "core/units.h"
#include "port/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LOOK_EVERY_US (G_USEC_PER_SEC / 5)

/* The type of the mount that `fd` is in (g_free). */
static char *type_of(int fd)
{
    SwMount mount;
    char *type;

    sw_mount_of(fd, &mount);
    type = g_strdup(mount.type ? mount.type : "unknown");
    sw_mount_clear(&mount);
    return type;
}

static gboolean is_wanted(const char *type, const char *wanted)
{
    g_auto(GStrv) words = g_strsplit(wanted, ":", 0);

    return g_strv_contains((const char *const *)words, type);
}

/* Is the share mounted, and only the directory in it not made?  A sentence's end that says so (g_free). */
static char *what_is_above(const char *source, const char *wanted)
{
    g_autofree char *above = g_path_get_dirname(source);
    g_autofree char *type = NULL;
    int fd;

    while ((fd = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0 && strcmp(above, "/") != 0) {
        char *next = g_path_get_dirname(above);

        g_free(above);
        above = next;
    }
    if (fd < 0)
        return g_strdup("");
    type = type_of(fd);
    close(fd);
    return is_wanted(type, wanted) ? g_strdup_printf("; the %s at %s is mounted, so it has yet to be made", type, above)
                                   : g_strdup("");
}

/* One look: a descriptor, or -errno and why. */
static int look(const char *source, const char *wanted, char **ret_why)
{
    int fd = open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 ? -errno : 0;
    g_autofree char *type = NULL;

    if (r < 0) {
        g_autofree char *more = r == -ENOENT && wanted ? what_is_above(source, wanted) : g_strdup("");

        *ret_why = g_strdup_printf("source %s: %s%s", source, g_strerror(-r), more);
        return r;
    }
    if (!wanted)
        return fd;
    type = type_of(fd);
    if (is_wanted(type, wanted))
        return fd;
    *ret_why = g_strdup_printf("source %s is of type %s, not %s as require-fstype says", source, type, wanted);
    close(fd);
    return -ENODEV;
}

int sw_source_find(const char *source, const SwConfig *config,
                   void (*say)(gpointer data, const char *text, gint64 wait_us), gpointer data, int *ret_fd,
                   char **ret_why)
{
    gint64 until_us = g_get_monotonic_time() + (config->require_fstype ? config->wait_source_us : 0);
    gboolean is_first = TRUE;
    int fd;

    for (;; is_first = FALSE) {
        g_autofree char *why = NULL;
        fd = look(source, config->require_fstype, &why);
        gint64 left_us = until_us - g_get_monotonic_time();
        if (fd < 0 && left_us <= 0)
            *ret_why = g_steal_pointer(&why);
        if (fd >= 0 || left_us <= 0)
            break;
        if (is_first) {
            g_autofree char *time = sw_units_format(config->wait_source_us, SW_UNITS_TIME);
            g_autofree char *text = g_strdup_printf("%s: waiting for it, up to %s", why, time);
            say(data, text, config->wait_source_us);
        }
        g_usleep(MIN(left_us, LOOK_EVERY_US));
    }
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}
