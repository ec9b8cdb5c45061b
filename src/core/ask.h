/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_ASK_H
#define SW_ASK_H

/*
 * What root and the mount's user may ask of a daemon: one ioctl(2) on the top directory of its mount, with a request in
 * and an answer out, which works on a read-only mount as well.  ENOTTY: no mount of safewritefs, or of one that knows
 * no requests, or not its top; EPERM: of another user.
 *
 * A request is a word, and after an end of line what belongs to it.  An answer is "ok", or "no", a space and a
 * sentence.
 */

#include <sys/ioctl.h>

#define SW_ASK_SIZE 8192

typedef struct {
    char text[SW_ASK_SIZE]; /* ended by a NUL */
} SwAsk;

#define SW_ASK_IOCTL _IOWR(0x53, 0x57, SwAsk)

/* "check" and "change": mount options, as `mount -o remount` has them; the source on a line, the options on another. */
#define SW_ASK_CHECK "check"
#define SW_ASK_CHANGE "change"

/* "upgrade": another program goes on with the mount; on a line its full path, or nothing for that of the daemon.  "ok":
 * it will be tried.  "upgraded": how that went, "ok", the version that goes on, and
 * for how long nobody was served, in microseconds; "wait" until it is known. */
#define SW_ASK_UPGRADE "upgrade"
#define SW_ASK_UPGRADED "upgraded"

#endif
