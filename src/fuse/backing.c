/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "backing.h"

#include "server_internal.h"

#include <errno.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* As in <linux/fuse.h> since Linux 6.9, which Debian 12 does not have.  libfuse has calls of its own for these, which
 * write to the log what fails, and do not tell why.
 */
typedef struct {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
} Backing;
#define BACKING_OPEN _IOW(229, 1, Backing)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

static int open_backing(gpointer data, int fd)
{
    const SwServer *server = data;
    Backing backing = {.fd = fd};
    int id = ioctl(fuse_session_fd(server->session), BACKING_OPEN, &backing);
    return id < 0 ? -errno : id > 0 ? id : -EIO;
}

static void close_backing(gpointer data, int id)
{
    const SwServer *server = data;
    uint32_t number = id;
    /* Of a connection that is gone the kernel has closed all. */
    (void)ioctl(fuse_session_fd(server->session), BACKING_CLOSE, &number);
}

/* NULL: the kernel has been asked. */
static const char *ask(const SwServer *server, struct fuse_conn_info *conn)
{
#ifdef FUSE_CAP_PASSTHROUGH
    if (!server->privileged)
        return "only a daemon of root's may";
    if (!(conn->capable & FUSE_CAP_PASSTHROUGH))
        return "the kernel has none (Linux 6.9, CONFIG_FUSE_PASSTHROUGH)";
    if (!sw_greeting_allows(&server->greeting, FUSE_CAP_PASSTHROUGH))
        return "the daemon before this one had none";
    conn->want |= FUSE_CAP_PASSTHROUGH;
    /* The other choice is a source that may be stacked, and no overlayfs that could be mounted over us. */
    conn->max_backing_stack_depth = FUSE_BACKING_STACKED_UNDER;
    return NULL;
#else
    (void)server;
    (void)conn;
    return "libfuse has none (3.17)";
#endif
}

void sw_backing_greet(SwServer *server, struct fuse_conn_info *conn)
{
    const SwBackingCalls calls = {.open = open_backing, .close = close_backing, .data = server};
    const char *barred = sw_overlay_bars_passthrough(server->overlay);
    if (!barred)
        barred = ask(server, conn);
    if (barred)
        sw_overlay_refuse_passthrough(server->overlay, barred);
    else
        sw_overlay_offer_passthrough(server->overlay, &calls);
}
