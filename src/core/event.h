/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_EVENT_H
#define SW_EVENT_H

/*
 * What happens that people should know: the kinds of it, and what is known about one.
 *
 * Each kind has a name, and a MESSAGE_ID by which the journal can be asked for it (sd_journal_print(3)); both stay as
 * they are for good, for people write them into their scripts.  docs/operating.md has them all.  Pure.
 */

#include <glib.h>

typedef enum { SW_NOTE_DEBUG, SW_NOTE_INFO, SW_NOTE_WARNING } SwNoteLevel;

typedef enum {
    SW_EVENT_NONE, /* a message that is of no kind */
    SW_EVENT_MOUNTED,
    SW_EVENT_WRITER_KILLED,  /* nothing of it was committed; what it wrote is in salvage */
    SW_EVENT_SALVAGED,       /* not committed for another reason, and in salvage */
    SW_EVENT_SALVAGE_FAILED, /* neither committed nor kept */
    SW_EVENT_REBASED,        /* an edit met a newer version, and was applied to that */
    SW_EVENT_IN_PLACE,       /* a file is written in place, although staging is the rule */
    SW_EVENT_LOCK_RELEASED,  /* a lock file of a program of this host that ended without removing it */
    SW_EVENT_LOCK_BROKEN,    /* one of another host, or of a dead mount of this machine */
    SW_EVENT_HOST_BROKEN,    /* another host was silent for its lease */
    SW_EVENT_HOST_BURIED,    /* a mount of this machine was found dead */
    SW_EVENT_FENCED,         /* this host was taken for dead, and cannot rejoin yet */
    SW_EVENT_REJOINED,       /* this host was taken for dead, and goes on as another */
    SW_EVENT_SOURCE_LOST,    /* the source does not answer, or is not there yet */
    SW_EVENT_SOURCE_FOUND,
    SW_EVENT_DAEMON_DIED, /* its supervisor starts another one */
    SW_EVENT_GIVEN_UP,    /* there is no daemon, and none is started any more */
    SW_EVENT_KINDS,
} SwEventKind;

/* What is not known is NULL or 0. */
typedef struct {
    SwEventKind kind;
    const char *path;    /* below the source */
    const char *command; /* of the program that it is about */
    const char *host_id; /* of the host that it is about; NULL: this one */
    const char *reason;  /* one word */
    gint64 pid;          /* of that program, as its host numbers processes */
} SwEvent;

/* Tells one; `event` is never NULL, and lasts as long as the call.  Called by any thread. */
typedef void (*SwNoteFunc)(gpointer data, SwNoteLevel level, const SwEvent *event, const char *text);

/* In lower case with hyphens; NULL for SW_EVENT_NONE. */
const char *sw_event_name(SwEventKind kind);
/* 32 hexadecimal digits; NULL for SW_EVENT_NONE. */
const char *sw_event_message_id(SwEventKind kind);

/* A copy that owns its strings (sw_event_free); `text` goes with it. */
typedef struct {
    SwNoteLevel level;
    SwEvent event;
    char *text;
} SwKeptEvent;
SwKeptEvent *sw_event_keep(SwNoteLevel level, const SwEvent *event, const char *text);
/* For GDestroyNotify. */
void sw_event_free(gpointer kept);

#endif
