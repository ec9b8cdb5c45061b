/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests to the daemon itself (core/ask.h).
 */
#include "../core/ask.h"
#include "ops.h"
#include "reply.h"
#include "server_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void sw_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int command, void *arg, struct fuse_file_info *fi,
                 unsigned flags, const void *in, size_t in_size, size_t out_size)
{
    SwServer *server = sw_server_of(req);
    uid_t uid = fuse_req_ctx(req)->uid;
    SwAsk ask;

    if (ino != FUSE_ROOT_ID || command != SW_ASK_IOCTL || in_size != sizeof ask || out_size != sizeof ask) {
        sw_reply_error(req, "ioctl", -ENOTTY);
        return;
    }
    if (uid != 0 && uid != geteuid()) {
        sw_reply_error(req, "ioctl", -EPERM);
        return;
    }
    memcpy(&ask, in, sizeof ask);
    ask.text[sizeof ask.text - 1] = '\0';
    server->port->become(server->port, NULL);
    g_autofree char *answer = server->setup.asked(server->setup.ready_data, ask.text);
    memset(&ask, 0, sizeof ask);
    g_strlcpy(ask.text, answer, sizeof ask.text);
    fuse_reply_ioctl(req, 0, &ask, sizeof ask);
}
