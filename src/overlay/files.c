/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "internal.h"

SwFile *sw_file_new(SwPort *port, int fd)
{
    SwFile *file = g_new(SwFile, 1);
    *file = (SwFile){.port = port, .fd = fd, .refs = 1};
    return file;
}

SwFile *sw_file_ref(SwFile *file)
{
    g_atomic_int_inc(&file->refs);
    return file;
}

void sw_file_unref(SwFile *file)
{
    if (file && g_atomic_int_dec_and_test(&file->refs)) {
        file->port->close(file->port, file->fd);
        g_free(file);
    }
}
