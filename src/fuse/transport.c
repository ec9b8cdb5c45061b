/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which way requests come, from /dev/fuse or through io_uring, and answers go.
 *
 * libfuse 3.18 has io_uring as well, which is not used: docs/design.md, "Requests through io_uring".
 */
#include "readers.h"
#include "server_internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <unistd.h>

#define ENABLED_PATH "/sys/module/fuse/parameters/enable_uring"
/* FUSE_OVER_IO_URING of <linux/fuse.h> since Linux 6.14, in `flags2`. */
#define OVER_IO_URING (1u << 9)
/* FUSE_DEFAULT_MAX_PAGES_PER_REQ of fs/fuse/fuse_i.h */
#define PAGES_BY_DEFAULT 32

/* As the kernel will, fuse_uring_create in fs/fuse/dev_uring.c. */
static gsize payload_max(const struct fuse_init_out *init)
{
    guint n_pages = init->flags & FUSE_MAX_PAGES ? init->max_pages : PAGES_BY_DEFAULT;
    return MAX(MAX(FUSE_MIN_READ_BUFFER, init->max_write), n_pages * (guint)getpagesize());
}

static void serve(gpointer data, void *message, gsize size)
{
    SwServer *server = data;
    sw_readers_serve(server->session, server->serving, message, size);
}

static void refused(gpointer data, int error)
{
    SwServer *server = data;
    sw_overlay_tell_uring(server->overlay, g_intern_string(g_strerror(error)));
}

static gboolean is_enabled(void)
{
    g_autofree char *text = NULL;
    return g_file_get_contents(ENABLED_PATH, &text, NULL, NULL) && *text == 'Y';
}

/* ---- answers */

static ssize_t write_answer(int fd, struct iovec *answer, int n, void *data)
{
    SwServer *server = data;
    const struct fuse_out_header *out = answer[0].iov_base;
    SwUring *uring = sw_server_uring(server);
    if (uring && out->unique == 0)
        sw_uring_commit_now(uring); /* a notification, which may wait for programs */
    else if (uring && sw_uring_answer(uring, answer, n))
        return (ssize_t)out->len;
    return writev(fd, answer, n);
}

static ssize_t read_request(int fd, void *buf, size_t size, void *data)
{
    (void)data;
    return read(fd, buf, size);
}

void sw_server_direct_answers(SwServer *server)
{
    static const struct fuse_custom_io io = {.writev = write_answer, .read = read_request};
    const char *why = sw_overlay_bars_uring(server->overlay);
    if (!why && !is_enabled())
        why = "the kernel does not offer it (Linux 6.14, parameter enable_uring of the module fuse)";
    if (!why && fuse_session_custom_io(server->session, &io, fuse_session_fd(server->session)) != 0)
        why = "this libfuse leaves its reading and writing to nobody (custom io)";
    server->wants_uring = !why;
    sw_overlay_tell_uring(server->overlay, why ? why : "the kernel has not been asked");
}

void sw_server_let_go(gpointer data, guint64 unique)
{
    SwServer *server = data;
    struct fuse_out_header answer = {.len = sizeof answer, .error = -EINTR, .unique = unique};
    SwUring *uring = sw_server_uring(server);
    if (uring && sw_uring_let_go(uring, unique))
        return;
    sw_ignore((int)write(fuse_session_fd(server->session), &answer, sizeof answer));
}

/* ---- the greeting */

static const char *ask(SwServer *server, const struct fuse_init_in *offered, struct fuse_init_out *init)
{
    SwUringSetup setup = {.serve = serve, .refused = refused, .data = server, .payload_max = payload_max(init)};
    SwUring *uring;
    int r;
    if (!(offered->flags & FUSE_INIT_EXT) || !(offered->flags2 & OVER_IO_URING))
        return "the kernel does not offer it";
    setup.copies = sw_overlay_on_network(server->overlay);
    r = sw_uring_new(&setup, &uring);
    if (r == -ENOSYS)
        return "built without liburing, or the kernel has none";
    if (r < 0)
        return g_intern_string(g_strerror(-r));
    g_atomic_pointer_set(&server->uring, uring);
    init->flags |= FUSE_INIT_EXT;
    init->flags2 |= OVER_IO_URING;
    return NULL;
}

static void amend(gpointer data, const void *request, gsize size, GByteArray *answer)
{
    SwServer *server = data;
    const struct fuse_init_in *offered = (const void *)((const struct fuse_in_header *)request + 1);
    struct fuse_init_out *init = (void *)(answer->data + sizeof(struct fuse_out_header));
    if (!server->wants_uring || size < sizeof(struct fuse_in_header) + sizeof *offered ||
        answer->len < sizeof(struct fuse_out_header) + sizeof *init)
        return;
    sw_overlay_tell_uring(server->overlay, ask(server, offered, init));
}

void sw_server_greet(SwServer *server, const struct fuse_buf *buf)
{
    sw_greeting_first(&server->greeting, server->session, buf, amend, server);
    if (sw_server_uring(server))
        sw_uring_start(sw_server_uring(server), fuse_session_fd(server->session));
}
