/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "notify.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void sw_notify(const char *format, ...)
{
    const char *place = g_getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gsize length = place ? strlen(place) : 0;
    va_list args;

    if (length < 2 || length >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, place, length);
    if (*place == '@') /* an abstract one */
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    (void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address,
                  offsetof(struct sockaddr_un, sun_path) + length);
    close(fd);
}

/* Half the time is what sd_watchdog_enabled(3) advises; we may be late by as much as a busy machine makes us. */
#define ALIVE_PER_HANG 4

static gint64 watchdog_us(void)
{
    const char *time = g_getenv("WATCHDOG_USEC"), *pid = g_getenv("WATCHDOG_PID");
    guint64 us, whose = (guint64)getpid();

    if (!time || !g_ascii_string_to_unsigned(time, 10, 1, G_MAXINT64, &us, NULL))
        return 0;
    if (pid && !g_ascii_string_to_unsigned(pid, 10, 1, G_MAXINT32, &whose, NULL))
        return 0;
    return whose == (guint64)getpid() ? (gint64)us : 0;
}

SwAlive sw_alive_every(gint64 hang_us)
{
    gint64 us = watchdog_us();

    if (us && (!hang_us || us < hang_us))
        hang_us = us;
    return (SwAlive){.every_us = hang_us ? MAX(hang_us / ALIVE_PER_HANG, 1) : 0};
}

gboolean sw_alive_is_due(SwAlive *alive, gint64 now_us)
{
    if (!alive->every_us || now_us < alive->next_us)
        return FALSE;
    alive->next_us = now_us + alive->every_us;
    return TRUE;
}
