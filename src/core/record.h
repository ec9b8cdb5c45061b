/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_RECORD_H
#define SW_RECORD_H

/*
 * Every text the protocol puts on disk, and the way back.  Parsers are total: any bytes at all give a value or
 * -EBADMSG, never a crash, never an allocation larger than the input.  Formats are described in docs/protocol.md.
 * Pure.
 */

#include <glib.h>
#include <sys/types.h>

#define SW_CONTROL_DIR ".safewritefs"
#define SW_RESERVED_PREFIX ".safewritefs" /* every name that begins so is the protocol's (C26) */
#define SW_FORMAT_VERSION 1
#define SW_HOST_ID_MAX 100 /* "<hostname>.<16 hex digits>", hostname cut to fit, [A-Za-z0-9-] only */
#define SW_RECORD_MAX 4096 /* bytes; longer files are refused before they are read */

/* Is this name component one that programs may not use (C26)? */
gboolean sw_name_is_reserved(const char *name);

/* "<hostname>.<epoch>": characters outside [A-Za-z0-9-] become '-'. */
void sw_host_id_format(char ret_id[SW_HOST_ID_MAX + 1], const char *hostname, guint64 epoch);
gboolean sw_host_id_is_valid(const char *id);

/* hosts/<id>/record: who a mount is. */
typedef struct {
    char id[SW_HOST_ID_MAX + 1];
    char boot_id[37];    /* /proc/sys/kernel/random/boot_id */
    char machine_id[33]; /* /etc/machine-id, or "" */
    gint64 pid;          /* the daemon's own number for itself; for people */
    gint64 lease_us;
    char version[32]; /* program version that wrote it */
} SwHostRecord;

char *sw_host_record_format(const SwHostRecord *record); /* g_free */
int sw_host_record_parse(const char *text, gsize length, SwHostRecord *ret_record) G_GNUC_WARN_UNUSED_RESULT;

/*
 * The target of a claim: what O_EXCL puts at the name of a data file until it is committed (C12, F18):
 * "/.safewritefs/hosts/<id>/<stage>".  It dangles, for nothing stands at "/.safewritefs".
 */
char *sw_claim_format(const char *host_id, const char *stage); /* g_free; `stage` is "<worker>/<seq>" */
gboolean sw_claim_parse(const char *target, char ret_host_id[SW_HOST_ID_MAX + 1]);

/*
 * The target of leases/<key>, the lease on one file's content: "<id> <sequence> <intent>"; the intent says what the
 * holder is about to append, so that the next holder can undo a torn record (C11).
 */
typedef struct {
    char host_id[SW_HOST_ID_MAX + 1];
    guint64 sequence;      /* counts the leases taken by this host; tells two holds apart */
    gboolean appending;    /* then the two below */
    guint64 append_offset; /* size of the file before the append */
    guint64 append_length;
    guint64 file_ino; /* of the file appended to */
    char path[1024];  /* its path below the source, "" when longer */
} SwLeaseText;

char *sw_lease_text_format(const SwLeaseText *lease); /* g_free */
int sw_lease_text_parse(const char *text, SwLeaseText *ret_lease) G_GNUC_WARN_UNUSED_RESULT;

/* How an application made its lock (C18). */
typedef enum { SW_LOCK_FILE, SW_LOCK_SYMLINK, SW_LOCK_LINK, SW_LOCK_DIR } SwLockKind;

/*
 * The target of locks/<key>, the record of an application's lock:
 * "<id> <sequence> <kind> <pid> <process> <directory inode>[ <path>]".
 */
typedef struct {
    char host_id[SW_HOST_ID_MAX + 1];
    guint64 sequence; /* counts the locks of this host; tells two holds apart */
    SwLockKind kind;
    gint64 pid;      /* of who made it, as its host numbers processes; 0: not visible there */
    guint64 process; /* what tells it from later bearers of that pid in the same boot; 0: the kernel cannot say */
    guint64 dir_ino; /* of the directory that the lock is in */
    char path[1024]; /* below the source, "" when longer than a record can say */
} SwLockText;

char *sw_lock_text_format(const SwLockText *lock); /* g_free */
int sw_lock_text_parse(const char *text, SwLockText *ret_lock) G_GNUC_WARN_UNUSED_RESULT;
/* Which record in locks/ is this name's. */
guint64 sw_lock_key(guint64 dir_ino, const char *name);

/* salvage/<entry>.info: what the bytes in salvage/<entry>.data are. */
typedef struct {
    char *path;   /* where they would have been committed, below the source */
    char *reason; /* one word: killed, failed, fenced, crashed, unmounted, removed, conflict */
    char *host_id;
    char *command;  /* comm of the last writer, or "" */
    gint64 pid;     /* of the last writer, or 0 */
    gint64 wall_us; /* when, for people */
    guint64 size;
    gboolean synced; /* the program had called fsync */
} SwSalvageInfo;

void sw_salvage_info_clear(SwSalvageInfo *info);
char *sw_salvage_info_format(const SwSalvageInfo *info); /* g_free */
int sw_salvage_info_parse(const char *text, gsize length, SwSalvageInfo *ret_info) G_GNUC_WARN_UNUSED_RESULT;

#endif
