/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "journal.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static gboolean is_plain(const char *value, gsize length)
{
    for (gsize i = 0; i < length; i++)
        if (!g_ascii_isprint(value[i]))
            return FALSE;
    return TRUE;
}

void sw_journal_add(GString *entry, const char *name, const char *value)
{
    gsize length = value ? strnlen(value, SW_JOURNAL_VALUE_MAX) : 0;
    guint64 size = GUINT64_TO_LE((guint64)length);

    if (!value)
        return;
    g_string_append(entry, name);
    if (is_plain(value, length)) {
        g_string_append_c(entry, '=');
    } else {
        g_string_append_c(entry, '\n');
        g_string_append_len(entry, (const char *)&size, sizeof size);
    }
    g_string_append_len(entry, value, (gssize)length);
    g_string_append_c(entry, '\n');
}

int sw_journal_send(const char *place, const GString *entry)
{
    static const struct timeval patience = {.tv_usec = 200 * 1000};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, r = 0;

    if (strlen(place) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    strcpy(address.sun_path, place);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* A journal that does not read must not keep a daemon from serving. */
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (sendto(fd, entry->str, entry->len, MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address) < 0)
        r = -errno;
    close(fd);
    return r;
}

gboolean sw_journal_is_behind(int fd)
{
    const char *said = g_getenv("JOURNAL_STREAM");
    guint64 device, inode;
    struct stat st;
    char end;

    if (!said || sscanf(said, "%" G_GINT64_MODIFIER "u:%" G_GINT64_MODIFIER "u%c", &device, &inode, &end) != 2)
        return FALSE;
    return fstat(fd, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}
