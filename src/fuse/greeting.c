/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "greeting.h"

#include "../core/base.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGE_MAX 4096

gboolean sw_greeting_is_one(const void *message, gsize size)
{
    const struct fuse_in_header *header = message;

    return size >= sizeof *header && header->opcode == FUSE_INIT;
}

gboolean sw_greeting_is_over(const SwGreeting *greeting)
{
    return greeting->answer != NULL;
}

gboolean sw_greeting_allows(const SwGreeting *greeting, guint capability)
{
    return !greeting->answer || (greeting->want & capability);
}

void sw_greeting_settle(SwGreeting *greeting, struct fuse_conn_info *conn)
{
    if (greeting->answer) /* this one follows */
        conn->want &= greeting->want;
    greeting->want = conn->want;
}

/* libfuse's answer to a request, instead of the kernel being given it.  No other thread uses the descriptor. */
static int answer_of(struct fuse_session *session, const struct fuse_buf *buf, GByteArray **ret_answer)
{
    int fd = fuse_session_fd(session), ends[2], device, r = 0;
    guint8 answer[MESSAGE_MAX];
    ssize_t n = 0;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    /* dup(2), because the thread sanitizer does not follow a descriptor through fcntl(2). */
    device = dup(fd);
    if (device < 0 || fcntl(device, F_SETFD, FD_CLOEXEC) < 0 || dup3(ends[0], fd, O_CLOEXEC) < 0)
        r = -errno;
    if (r == 0) {
        fuse_session_process_buf(session, buf);
        n = recv(ends[1], answer, sizeof answer, MSG_DONTWAIT);
        if (dup3(device, fd, O_CLOEXEC) < 0)
            g_error("cannot take the device back");
    }
    if (device >= 0)
        close(device);
    close(ends[0]);
    close(ends[1]);
    if (r < 0)
        return r;
    if (n <= 0)
        return -EPROTO;
    *ret_answer = g_byte_array_append(g_byte_array_new(), answer, (guint)n);
    return 0;
}

void sw_greeting_first(SwGreeting *greeting, struct fuse_session *session, const struct fuse_buf *buf,
                       SwGreetingAmend amend, gpointer data)
{
    GByteArray *answer;

    if (greeting->answer || buf->size > MESSAGE_MAX || answer_of(session, buf, &answer) < 0) {
        fuse_session_process_buf(session, buf);
        return;
    }
    greeting->request = g_byte_array_append(g_byte_array_new(), buf->mem, (guint)buf->size);
    amend(data, buf->mem, buf->size, answer);
    greeting->answer = answer;
    sw_ignore(
        write(fuse_session_fd(session), answer->data, answer->len)); /* a mount that is gone is found by reading */
}

int sw_greeting_again(SwGreeting *greeting, struct fuse_session *session)
{
    g_autofree guint8 *message = g_memdup2(greeting->request->data, greeting->request->len);
    struct fuse_buf buf = {.mem = message, .size = greeting->request->len};
    GByteArray *answer;
    gboolean same;
    int r;

    if (!sw_greeting_is_one(buf.mem, buf.size))
        return -EPROTO;
    r = answer_of(session, &buf, &answer);
    if (r < 0)
        return r;
    same = answer->len == greeting->answer->len && memcmp(answer->data, greeting->answer->data, answer->len) == 0;
    g_byte_array_unref(answer);
    return same ? 0 : -EPROTO;
}

void sw_greeting_carry(SwGreeting *greeting, SwBundle *bundle)
{
    sw_bundle_mark(bundle, "greeting");
    sw_bundle_array(bundle, &greeting->request, MESSAGE_MAX);
    sw_bundle_array(bundle, &greeting->answer, MESSAGE_MAX);
    SW_BUNDLE(bundle, greeting->want);
    if (!greeting->request || !greeting->answer)
        sw_bundle_fail(bundle, "it is not known what was agreed with the kernel");
}

void sw_greeting_clear(SwGreeting *greeting)
{
    g_clear_pointer(&greeting->request, g_byte_array_unref);
    g_clear_pointer(&greeting->answer, g_byte_array_unref);
}
