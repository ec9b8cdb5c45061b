/* SPDX-License-Identifier: GPL-2.0-or-later */

/* What every port can do with its members; no system call of its own, so it works on simulated ports too. */

#include "port.h"

#include <errno.h>
#include <fcntl.h>

int sw_port_write_all(SwPort *port, int fd, const void *buf, size_t size, off_t offset)
{
    const char *bytes = buf;

    while (size > 0) {
        ssize_t written = port->pwrite(port, fd, bytes, size, offset);

        if (written < 0)
            return (int)written;
        if (written == 0)
            return -EIO; /* would go on for ever */
        bytes += written;
        offset += written;
        size -= written;
    }
    return 0;
}

/* As much as there is, at most `size` bytes. */
static ssize_t read_up_to(SwPort *port, int fd, char *buf, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = port->pread(port, fd, buf + done, size - done, (off_t)done);

        if (got < 0)
            return got;
        if (got == 0)
            break;
        done += got;
    }
    return (ssize_t)done;
}

static int read_opened(SwPort *port, int fd, size_t max, char **ret_text, struct stat *ret_st)
{
    g_autofree char *text = NULL;
    struct stat st;
    ssize_t got;
    int r = port->statat(port, fd, "", &st);

    if (r < 0)
        return r;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if (st.st_size > 0 && (guint64)st.st_size > max)
        return -EFBIG;
    text = g_malloc(max + 2);
    got = read_up_to(port, fd, text, max + 1); /* one more than allowed, since the size may have been a lie */
    if (got < 0)
        return (int)got;
    if ((size_t)got > max)
        return -EFBIG;
    text[got] = '\0';
    st.st_size = got;
    *ret_text = g_realloc(g_steal_pointer(&text), got + 1);
    if (ret_st)
        *ret_st = st;
    return 0;
}

int sw_port_read_file(SwPort *port, int dirfd, const char *name, size_t max, char **ret_text, struct stat *ret_st)
{
    /* Whatever stands at the name, a FIFO or a terminal say, must neither block nor adopt the daemon. */
    int fd = port->openat(port, dirfd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    int r;

    if (fd == -ELOOP || fd == -ENXIO)
        return -EINVAL; /* a symbolic link; a socket or a device without a driver */
    if (fd < 0)
        return fd;
    r = read_opened(port, fd, max, ret_text, ret_st);
    (void)port->close(port, fd);
    return r;
}
