/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FOLLOWER_H
#define SW_FOLLOWER_H

/*
 * The process that follows a daemon: started from another program file, with the state in a bundle and the descriptors
 * that belong to it, each under its number.
 *
 *   daemon     start    await ............. go, _exit        or: dismiss, and it goes on as if nothing had been
 *   follower       receive   ready, wait for go ............ serves
 *
 * Until it is told to go the follower changes nothing anywhere, so that until then the daemon can go on.  It ends when
 * the socket closes without that word.
 */

#include "core/bundle.h"

#include <sys/types.h>

typedef struct {
    pid_t pid;
    int pidfd; /* it is no child of this process; -1: it has ended already */
    int socket;
} SwFollower;

/* `argv` begins with the program; of the environment WATCHDOG_PID is left out, which names this process.  0 or -errno.
 */
int sw_follower_start(char *const *argv, SwBundle *bundle, SwFollower *ret_follower) G_GNUC_WARN_UNUSED_RESULT;
/* Until `until_us` (CLOCK_MONOTONIC): 0: it is ready; else -errno, and why not (g_free). */
int sw_follower_await(const SwFollower *follower, gint64 until_us, char **ret_why) G_GNUC_WARN_UNUSED_RESULT;
/* It is its turn; this process is to end at once, and without any cleaning up. */
void sw_follower_go(const SwFollower *follower);
/* Ends it. */
void sw_follower_dismiss(SwFollower *follower);

/* The option by which a follower is told where its state and its socket are: "<socket>:<state>". */
#define SW_FOLLOWER_OPTION "follow"

/* ---- in the follower */

/* The state: its bytes, mapped for as long as the process lives, and a bundle of them.  Its descriptors are closed by
 * execve(2) from now on.  NULL if there is none. */
SwBundle *sw_follower_receive(const char *where, int *ret_socket);
/* FALSE: it is not to go.  `why` NULL: it is ready. */
gboolean sw_follower_answer(int socket, const char *why);

#endif
