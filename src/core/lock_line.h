/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_LOCK_LINE_H
#define SW_LOCK_LINE_H

/*
 * One flock(2) or fcntl(2) lock as a line of text: what a mount tells through the extended attribute SW_LOCKS_XATTR of
 * its root directory, one lock a line.
 *
 *   <flock|fcntl> <read|write> <held|waiting> <start> <end> <pid> <age in microseconds> <path>
 *
 * Words are parted by one space.  The path is below the mount, as g_strescape() writes it, and goes to the end of the
 * line.  The formatter writes, and the parser takes, one spelling of each value only.  Pure.
 */

#include <glib.h>

#define SW_LOCKS_XATTR "user.safewritefs.locks"
#define SW_LOCK_LINE_TO_THE_END G_MAXINT64 /* as `end`: however long the file grows */

typedef struct {
    gboolean is_fcntl; /* fcntl(2), by ranges; else flock(2), the whole file */
    gboolean is_write; /* excludes all others; else only writers */
    gboolean waits;    /* not held yet */
    gint64 start, end; /* bytes, inclusive */
    gint64 pid;        /* of who locked, as the daemon numbers processes; 0: not visible there */
    gint64 age_us;     /* since it was taken, or since the wait began, by the daemon's clock */
    char *path;        /* below the mount, owned */
} SwLockLine;

void sw_lock_line_clear(SwLockLine *line);

/* Without the end of line (g_free). */
char *sw_lock_line_format(const SwLockLine *line);
/* Total: any NUL-terminated bytes give a line (to be cleared) or -EBADMSG. */
int sw_lock_line_parse(const char *text, SwLockLine *ret_line) G_GNUC_WARN_UNUSED_RESULT;

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SwLockLine, sw_lock_line_clear)

#endif
