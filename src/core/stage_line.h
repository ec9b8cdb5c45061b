/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_STAGE_LINE_H
#define SW_STAGE_LINE_H

/*
 * One file that is being written as a line of text: what a mount tells through the extended attribute SW_STAGES_XATTR
 * of its root directory.  The first line is its host id, the others one stage each.
 *
 *   <state> <synced> <bytes> <pid> <age in microseconds> <idle in microseconds> <stage> <command> <path>
 *
 * Words are parted by one space.  <synced> is 0 or 1, <stage> "<worker>/<name>" below the host's stage directory, or
 * "-" where nothing was written yet.  Command and path are as g_strescape() writes them, spaces of the command as \040;
 * the path is below the mount and goes to the end of the line.  The formatter writes, and the parser takes, one
 * spelling of each value only.  Pure.
 */

#include <glib.h>

#define SW_STAGES_XATTR "user.safewritefs.stages"

typedef enum {
    SW_STAGE_LINE_WRITING, /* somebody has it open for writing */
    SW_STAGE_LINE_CLOSED,  /* all have closed it, or are about to; it is not sure yet that nobody has it */
    SW_STAGE_LINE_PRIVATE, /* closed; has a private name, and waits to be renamed (C16) */
    SW_STAGE_LINE_BUSY,    /* is being written or committed just now: the numbers are not known */
} SwStageLineState;

typedef struct {
    SwStageLineState state;
    gboolean synced; /* the program has called fsync(2) */
    guint64 bytes;
    gint64 pid;     /* who wrote last, or opened, as the daemon numbers processes; 0 unknown */
    gint64 age_us;  /* since it was opened */
    gint64 idle_us; /* since the last write */
    char *stage;    /* owned, as the next two */
    char *command;
    char *path;
} SwStageLine;

/* "writing", "closed", ... */
const char *sw_stage_line_state_name(SwStageLineState state);
void sw_stage_line_clear(SwStageLine *line);
/* Without the end of line (g_free). */
char *sw_stage_line_format(const SwStageLine *line);
/* Total: any NUL-terminated bytes give a line (to be cleared) or -EBADMSG. */
int sw_stage_line_parse(const char *text, SwStageLine *ret_line) G_GNUC_WARN_UNUSED_RESULT;

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SwStageLine, sw_stage_line_clear)

#endif
