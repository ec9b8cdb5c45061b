/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_TEST_HELD_FILE_H
#define SW_TEST_HELD_FILE_H

/* A file of one page that processes hold, and a port that is asked who does. */

#include "../../src/port/port.h"
#include "child.h"

#include <stdlib.h>

static SwPort *port;
static struct stat file; /* the inode looked for */
static char file_path[] = "/tmp/sw-held-XXXXXX";

static inline SwHoldings holdings_of(pid_t pid)
{
    SwHoldings holdings;

    assert_int_equal(port->holdings(port, pid, file.st_dev, file.st_ino, &holdings), 0);
    return holdings;
}

static inline int held_file_set_up(void **state)
{
    int fd = mkstemp(file_path);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(fstat(fd, &file), 0);
    (void)close(fd);
    port = sw_port_posix_new();
    return 0;
}

static inline int held_file_tear_down(void **state)
{
    sw_port_free(port);
    return unlink(file_path);
}

#endif
