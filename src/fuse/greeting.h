/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_GREETING_H
#define SW_FUSE_GREETING_H

/*
 * What this daemon and the kernel have agreed on: FUSE_INIT, and the answer to it.
 *
 * The kernel greets a mount once.  A daemon that follows another gives its libfuse the very request that the first one
 * got, from a socket in the place of /dev/fuse, and takes the answer from there: if that is not byte for byte what the
 * kernel was answered then, the two would not mean the same by what they say, and the daemon does not follow.  What the
 * first one did not ask for, the next does not either.
 */

#include "../core/bundle.h"
#include "config.h"

#include <fuse_lowlevel.h>

typedef struct {
    GByteArray *request, *answer; /* owned; NULL: it has not come yet */
    guint want;                   /* what was asked for: struct fuse_conn_info */
} SwGreeting;

gboolean sw_greeting_is_one(const void *message, gsize size);
gboolean sw_greeting_is_over(const SwGreeting *greeting);
/* May that (FUSE_CAP_...) be wanted?  In a daemon that follows, what the first one wanted. */
gboolean sw_greeting_allows(const SwGreeting *greeting, guint capability);
/* In libfuse's `init`, at its end: what is wanted from the kernel. */
void sw_greeting_settle(SwGreeting *greeting, struct fuse_conn_info *conn);
/* The kernel's: it is answered and remembered.  `amend` adds to libfuse's answer what libfuse does not do. */
typedef void (*SwGreetingAmend)(gpointer data, const void *request, gsize size, GByteArray *answer);
void sw_greeting_first(SwGreeting *greeting, struct fuse_session *session, const struct fuse_buf *buf,
                       SwGreetingAmend amend, gpointer data);
/* In a daemon that follows, once the session has its descriptor: 0; -EPROTO: the answer would be another one; or why
 * there can be no socket. */
int sw_greeting_again(SwGreeting *greeting, struct fuse_session *session) G_GNUC_WARN_UNUSED_RESULT;
void sw_greeting_carry(SwGreeting *greeting, SwBundle *bundle);
void sw_greeting_clear(SwGreeting *greeting);

#endif
