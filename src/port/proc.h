/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_PROC_H
#define SW_PROC_H

/*
 * /proc, as the real port reads it; private to this directory.
 *
 * What may be read of whom (measured; getting it wrong deadlocks the daemon and the program for good): a process that
 * is inside execve(2), closing a close-on-exec descriptor, waits for our answer to its FLUSH while it holds the lock
 * that `stat`, `maps`, `environ`, `wchan` and `stack` take.  `status`, `statm`, `comm`, `fd/`, `fdinfo/`, `task/` and
 * `children` and `mountinfo` take other locks; the links in `fd/` may be listed and lstat'ed, not followed.  So `stat`
 * is read only of processes that have given up their memory, and `maps` only by a thread that may be left behind.
 */

#include "../core/base.h"
#include "exits.h"
#include "posix.h"
#include "proc_kept.h"

/* Reference counted, since a thread stuck in `maps` may outlive the port. */
struct SwProc {
    /* atomic */
    gint refs;
    guint64 known_mount; /* proc_fds.c: a mount that was seen to be of a device */

    struct { /* proc_maps.c; protected by lock */
        SwMutex lock;
        pthread_cond_t wanted; /* a job came, or the end */
        GQueue jobs;           /* counted; each has a parked reader that will take it */
        guint n_readers, n_parked;
        gboolean closed;
    } maps;

    struct { /* proc_watch.c; protected by lock */
        SwMutex lock;
        gboolean asked;
        SwExits *exits; /* owned; NULL where it is not needed or not to be had */
    } ends;

    /* immutable after sw_proc_new */
    int fd;                /* /proc of our own pid namespace, or -1: then nothing is known of anybody */
    int loadavg_fd;        /* or -1 */
    SwKeepers *keepers;    /* owned; NULL where fd is -1 */
    gboolean has_children; /* the kernel has CONFIG_PROC_CHILDREN */
    gboolean hides;        /* mounted with hidepid: a process that is not there may well exist */
    struct {
        int mount;
        guint64 ino;
    } anon; /* the anonymous inode that eventfds and the like share; mount 0 where unknown */
};

SwProc *sw_proc_new(void); /* never NULL */
SwProc *sw_proc_ref(SwProc *proc);
void sw_proc_unref(SwProc *proc);
/* The port is going: whoever is parked for it ends. */
void sw_proc_maps_close(SwProc *proc);

/* A file of /proc, whole, NUL-terminated. */
typedef struct {
    char *text;
    gsize length;
    char small[4096];
    char *big; /* owned; NULL while `small` is enough */
} SwProcText;

int sw_proc_read(int dirfd, const char *path, SwProcText *ret_text) G_GNUC_WARN_UNUSED_RESULT;
void sw_proc_text_clear(SwProcText *text);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SwProcText, sw_proc_text_clear)

/* What /proc/<pid>/fdinfo/<n> says first.  `text` is its beginning, enough for what tells kinds of files apart. */
typedef struct {
    int flags; /* of open(2) */
    int mount;
    guint64 ino;
    char text[1024];
} SwProcFdinfo;

int sw_proc_read_fdinfo(int dirfd, const char *name, SwProcFdinfo *ret_info) G_GNUC_WARN_UNUSED_RESULT;
/* What such a file, open, says now: of whatever has its number by now.  -ENOENT: nothing has. */
int sw_proc_parse_fdinfo(int fd, SwProcFdinfo *ret_info) G_GNUC_WARN_UNUSED_RESULT;

/* The errno of a file of process `pid` as an answer: -ESRCH only when the process is really gone, not just hidden. */
int sw_proc_error(pid_t pid, int error) G_GNUC_WARN_UNUSED_RESULT;

/* Calls `visit` for each numeric name in an open directory; a result other than 0 ends it and is passed on. */
typedef int (*SwProcVisit)(pid_t number, void *data);
int sw_proc_each(int dirfd, SwProcVisit visit, void *data) G_GNUC_WARN_UNUSED_RESULT;

typedef enum {
    SW_PROC_NO_MEMORY,  /* ended (or a kernel thread) */
    SW_PROC_NEW_MEMORY, /* inside execve: the old memory is gone, the new program not mapped yet */
    SW_PROC_MEMORY,
} SwProcMemory;

/* What `<tid>/statm` below `dirfd` says; never blocks. */
int sw_proc_memory(int dirfd, pid_t tid, SwProcMemory *ret_memory) G_GNUC_WARN_UNUSED_RESULT;
/* The same of a process, through what is kept of it if anything is. */
int sw_proc_memory_again(SwProc *proc, pid_t tgid, SwProcMemory *ret_memory) G_GNUC_WARN_UNUSED_RESULT;

/*
 * "<tgid>", or "<tgid>/task/<tid>" where the first thread of the process has ended before others: its own directory
 * shows neither descriptors nor mappings then.
 */
#define SW_PROC_BASE_SIZE 40
void sw_proc_base(char ret_base[SW_PROC_BASE_SIZE], pid_t tgid);
void sw_proc_thread_base(char ret_base[SW_PROC_BASE_SIZE], pid_t tgid, pid_t tid);
/* A thread of the process that still has its memory, 0 if none, or -errno. */
pid_t sw_proc_live_thread(SwProc *proc, pid_t tgid);

/* Members of the port. */
int sw_proc_holdings(SwPort *port, pid_t tgid, dev_t dev, ino_t ino, SwHoldings *ret_holdings);
int sw_proc_mapped(SwPort *port, pid_t tgid, dev_t dev, ino_t ino);
int sw_proc_last_pid(SwPort *port, pid_t *ret_pid);
int sw_proc_children(SwPort *port, pid_t tgid, pid_t *ret_pids, guint max);
int sw_proc_pids_between(SwPort *port, pid_t after, pid_t upto, pid_t *ret_pids, guint max);
int sw_proc_watch(SwPort *port, pid_t tgid, guint64 *ret_id);
void sw_proc_unwatch(SwPort *port, int fd);
int sw_proc_ended(SwPort *port, int fd, pid_t tgid, int *ret_status);
int sw_proc_watched_ended(SwPort *port, const int *fds, const pid_t *tgids, guint n, gboolean *ret_ended);

#endif
