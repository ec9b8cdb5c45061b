/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_PORT_H
#define SW_PORT_H

/*
 * The one door to files, processes, clocks and chance.
 *
 * Everything above `port/` reaches the outside world through a `SwPort`, so that tests can run several hosts in one
 * process, stop at or fail any call, and turn the clock.  `sw_port_posix_new()` is the real one.
 *
 * Conventions, for every member:
 *  - The result is 0 (or a descriptor, or a count) on success and -errno on failure; `errno` itself means nothing.
 *  - `ret_` parameters are written on success only.
 *  - `dirfd` is an open directory (O_PATH will do); `name` is one path component, or "" with a descriptor of the object
 *    itself where that is said.  No member ever follows a symbolic link in the last component.
 *  - Members may block as long as the file system underneath does.  No shared lock is held around a call.
 *  - All members may be called from any thread.  Credentials (`become`) belong to the calling thread.
 */

#include "../core/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

/* On whose behalf a request is done.  `groups` are the supplementary groups. */
typedef struct {
    uid_t uid;
    gid_t gid;
    guint n_groups;
    gid_t groups[64];
} SwCred;

/*
 * An object as found: its attributes, and which object it is.  Inode numbers are reused at once by servers, so `tag`
 * (a hash of the file handle and the device, else of the birth time) tells two bearers of one number apart (FACTS F10).
 */
typedef struct {
    struct stat st;
    guint64 tag;
} SwFound;

/*
 * For openat: an NFSv4 server is not to delegate the file to this machine.  Before anybody else can rename or remove a
 * file, the server waits until the client that it was delegated to has given it back, which one that is dead never
 * does: so what others have to break in time is opened with this (RFC 8881, sections 10.4 and 20.2).
 */
#define SW_O_UNDELEGATED (1 << 30)

/* For renameat: the new name is in a directory of the daemon's own, and nobody has a file open that stands there; over
 * NFS that saves a look at it (port/over_open.h). */
#define SW_RENAME_OWN (1u << 31)

/* What /proc/PID/status says, which never blocks (F3). */
typedef struct {
    pid_t tgid;  /* process of the thread asked for */
    pid_t ppid;  /* its parent process; 0 where that is outside our pid namespace */
    pid_t group; /* its process group and session; 0 unknown */
    pid_t session;
    gboolean exiting; /* the memory is gone and it is no kernel thread: the process is past its last instruction */
    gboolean killed;  /* a SIGKILL was sent to it, and nothing of its own will run any more */
    gboolean dying;   /* the thread that was asked about ends: by a fatal signal, or with its process */
    gboolean working; /* that thread runs or is about to, or waits within the kernel for what is sure to come */
} SwProcess;

/* Which descriptors of one inode a process holds. */
typedef struct {
    guint n_writers;       /* descriptors open for writing */
    int only_fd;           /* the number they share when there is exactly one, else -1 */
    gboolean queued;       /* descriptors wait in a UNIX socket of its to be received */
    gboolean unix_sockets; /* holds a UNIX socket other than fd 1 or 2: descriptors may be in flight */
    gboolean uring;        /* holds an io_uring: registered files are invisible */
    gboolean complete;     /* FALSE: the table could not be read (permission, too many descriptors) */
} SwHoldings;

/* A call on a network file system that took so long was sent again, maybe to a server that had been restarted and knew
 * nothing of the first time: then its errno is a question, not an answer (C13). */
#define SW_SENT_AGAIN_US (2 * G_USEC_PER_SEC)

typedef struct SwPort SwPort;

struct SwPort {
    /* The server keeps no file that was replaced or removed for those who have it open: they get ESTALE (NFSv3, FACTS
     * F11).  Known before other threads use the port. */
    gboolean forgets_old;
    /* Where is counted what happens; NULL: nowhere.  Set before other threads use the port, and outlives it. */
    SwMetrics *metrics;
    /* What the members call that count; also of a copy of the port, whose members may be called with the copy. */
    const SwPort *uncounted;

    /* ---- credentials: the calling thread acts as `cred` from now on; NULL = as the daemon itself.  Cheap when nothing
     * changes.  A daemon that is not root ignores it. */
    int (*become)(SwPort *port, const SwCred *cred);

    /* ---- opening.  O_CLOEXEC and O_NOFOLLOW are always added; SW_O_UNDELEGATED may be. */
    int (*openat)(SwPort *port, int dirfd, const char *name, int flags, mode_t mode);
    /* A relative path of several components, below `dirfd` and free of symbolic links (openat2(2)). */
    int (*open_beneath)(SwPort *port, int dirfd, const char *path, int flags);
    /* A second, independent open of the file behind `fd`, also when it has no name any more. */
    int (*reopen)(SwPort *port, int fd, int flags);
    int (*close)(SwPort *port, int fd);

    /* ---- attributes.  `name` "" = the object behind `dirfd`. */
    int (*statat)(SwPort *port, int dirfd, const char *name, struct stat *ret_st);
    /* As statat, asked of the server whatever is cached (AT_STATX_FORCE_SYNC). */
    int (*stat_fresh)(SwPort *port, int dirfd, const char *name, struct stat *ret_st);
    /* As statat, asked of nobody (AT_STATX_DONT_SYNC): over NFS as old as the caches, elsewhere the truth. */
    int (*stat_cached)(SwPort *port, int dirfd, const char *name, struct stat *ret_st);
    int (*lookat)(SwPort *port, int dirfd, const char *name, SwFound *ret_found);
    /* As lookat, but with the attributes of stat_cached: which object it is, and of what type, is right. */
    int (*lookat_cached)(SwPort *port, int dirfd, const char *name, SwFound *ret_found);
    int (*chmodat)(SwPort *port, int dirfd, const char *name, mode_t mode);
    int (*chownat)(SwPort *port, int dirfd, const char *name, uid_t uid, gid_t gid);
    int (*utimensat)(SwPort *port, int dirfd, const char *name, const struct timespec times[2]);
    ssize_t (*getxattr)(SwPort *port, int dirfd, const char *name, const char *key, void *buf, size_t size);
    ssize_t (*listxattr)(SwPort *port, int dirfd, const char *name, char *buf, size_t size);
    int (*setxattr)(SwPort *port, int dirfd, const char *name, const char *key, const void *value, size_t size,
                    int flags);
    int (*removexattr)(SwPort *port, int dirfd, const char *name, const char *key);
    /* faccessat2(AT_EACCESS): may the thread's present credentials do `mode` (R_OK, W_OK, X_OK)? */
    int (*accessat)(SwPort *port, int dirfd, const char *name, int mode);
    int (*statvfs)(SwPort *port, int fd, struct statvfs *ret_st);
    /* f_type of statfs(2), to tell network file systems from local ones. */
    int (*fs_type)(SwPort *port, int fd, guint64 *ret_type);

    /* ---- names */
    int (*mkdirat)(SwPort *port, int dirfd, const char *name, mode_t mode);
    int (*mknodat)(SwPort *port, int dirfd, const char *name, mode_t mode, dev_t dev);
    int (*symlinkat)(SwPort *port, const char *target, int dirfd, const char *name);
    ssize_t (*readlinkat)(SwPort *port, int dirfd, const char *name, char *buf, size_t size);
    /* With `oldname` "" it links the file behind `olddir`, also when that has no name any more and the server allows
     * it. */
    int (*linkat)(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname);
    int (*unlinkat)(SwPort *port, int dirfd, const char *name, int flags);
    /* renameat2(2) with its RENAME_ flags, and SW_RENAME_OWN. */
    int (*renameat)(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags);
    /* Raw getdents64(2) records into `buf`; 0 at the end.  `seekdir` positions by a record's d_off. */
    ssize_t (*getdents)(SwPort *port, int fd, void *buf, size_t size);
    int (*seekdir)(SwPort *port, int fd, off_t offset);

    /* ---- data */
    ssize_t (*pread)(SwPort *port, int fd, void *buf, size_t size, off_t offset);
    ssize_t (*pwrite)(SwPort *port, int fd, const void *buf, size_t size, off_t offset);
    int (*ftruncate)(SwPort *port, int fd, off_t size);
    int (*fallocate)(SwPort *port, int fd, int mode, off_t offset, off_t length);
    off_t (*lseek)(SwPort *port, int fd, off_t offset, int whence);
    int (*fsync)(SwPort *port, int fd, gboolean data_only);
    /* From here on the file's bytes are read from the server, not from what was cached before.  An NFS client that has
     * the file open for writing takes other hosts' changes for its own, and keeps what it cached (nfs_update_inode in
     * fs/nfs/inode.c).  Does nothing elsewhere. */
    void (*read_anew)(SwPort *port, int fd);
    /* Shares all blocks of `from` with the empty file `to` (FICLONE); -EOPNOTSUPP or -EXDEV where that cannot be. */
    int (*clone)(SwPort *port, int from, int to);
    /* copy_file_range(2), by hand where it cannot be.  Bytes copied, 0 at the end of `from`. */
    ssize_t (*copy_range)(SwPort *port, int from, off_t from_offset, int to, off_t to_offset, size_t size);
    /* flock(2) LOCK_EX|LOCK_NB. -EWOULDBLOCK when another open file description has it.  Ends with close. */
    int (*try_flock)(SwPort *port, int fd);
    /* fcntl(2) F_OFD_SETLK or F_OFD_GETLK as `command` says, never waiting.  -EAGAIN when another description has it.
     */
    int (*ofd_lock)(SwPort *port, int fd, int command, struct flock *lock);

    /* ---- processes.  A pid is one of the daemon's own pid namespace.  -ESRCH: no such process. */
    int (*process)(SwPort *port, pid_t tid, SwProcess *ret_process);
    /* Only the process of the thread: cheaper, for threads that were asked about before. */
    int (*thread_group)(SwPort *port, pid_t tid, pid_t *ret_tgid);
    /* The wait status of an *exiting* process (F2): call it only after `process` said so (F3 deadlock). */
    int (*exit_status)(SwPort *port, pid_t tid, int *ret_status);
    int (*holdings)(SwPort *port, pid_t tgid, dev_t dev, ino_t ino, SwHoldings *ret_holdings);
    /* 1: a mapping of the inode exists, 0: none, -ETIMEDOUT: the process is inside execve and cannot be asked. */
    int (*mapped)(SwPort *port, pid_t tgid, dev_t dev, ino_t ino);
    /* The pid allocated last, so that "created since" is a range; pids wrap. */
    int (*last_pid)(SwPort *port, pid_t *ret_pid);
    /* Direct children of `tgid` (all its threads'); returns the number, at most `max`. */
    int (*children)(SwPort *port, pid_t tgid, pid_t *ret_pids, guint max);
    /*
     * A descriptor (pidfd_open(2)) that stands for process `tgid`, whoever gets its number later.  *ret_id: a number
     * that no other process of this boot has; 0 where the kernel gives none.
     */
    int (*pid_watch)(SwPort *port, pid_t tgid, guint64 *ret_id);
    /* Closes it. */
    void (*pid_unwatch)(SwPort *port, int fd);
    /* 0: the process behind the descriptor lives; 1: it has ended, *ret_status as wait(2) has it, -1 if unknown. */
    int (*pid_ended)(SwPort *port, int fd, pid_t tgid, int *ret_status);
    /* Of `n` such descriptors and their processes, all at once: ret_ended[i] is whether that one has ended. */
    int (*pids_ended)(SwPort *port, const int *fds, const pid_t *tgids, guint n, gboolean *ret_ended);
    /* Thread-group ids among the pids in (after, upto], wrapping; -E2BIG when there are more than `max`. */
    int (*pids_between)(SwPort *port, pid_t after, pid_t upto, pid_t *ret_pids, guint max);
    /* The caller's supplementary groups into cred->groups (-E2BIG if over the limit). */
    int (*groups)(SwPort *port, pid_t tid, SwCred *cred);
    /* "comm" of the process, for messages; "?" when unknown. */
    void (*comm)(SwPort *port, pid_t tgid, char *ret_comm, size_t size);
    /* To be called now and then: lets go of what was kept in order to ask about the same processes again. */
    void (*tidy_processes)(SwPort *port);

    /* ---- clock and chance */
    gint64 (*now_us)(SwPort *port);  /* CLOCK_BOOTTIME, microseconds */
    gint64 (*wall_us)(SwPort *port); /* CLOCK_REALTIME, for people to read; decides nothing (C23) */
    void (*sleep_us)(SwPort *port, gint64 us);
    int (*random)(SwPort *port, void *buf, size_t size);

    void (*free)(SwPort *port);
};

/* The real port.  Never fails; what /proc or the kernel cannot give shows as errors of the members concerned. */
SwPort *sw_port_posix_new(void);
/* Counts and times its calls of the source's file system, there and in what sw_count tells.  For the real port only,
 * before sw_port_posix_suit, so that what is done for NFS counts too. */
void sw_port_posix_count(SwPort *port, SwMetrics *metrics);
/* Makes its calls as the file system of `fd` needs them: on NFS, those by name (nfs.c).  For the real port only, before
 * other threads use it.  `say` (may be NULL) is called by any thread, with what people should know. */
void sw_port_posix_suit(SwPort *port, int fd, void (*say)(gpointer data, const char *text), gpointer data);

/* Goes on with a descriptor that the daemon before this one has opened through its port: of a file or directory, or of
 * a process that it watched (-ENOTSUP: only that one can tell how it ends).  For the real port only. */
void sw_port_posix_adopt(SwPort *port, int fd);
int sw_port_posix_adopt_watch(SwPort *port);

/* Writes or reads all of it, going on after short counts.  -EIO when the file ends early (read). */
int sw_port_write_all(SwPort *port, int fd, const void *buf, size_t size, off_t offset) G_GNUC_WARN_UNUSED_RESULT;
/* At most `max` bytes of a regular file behind `name`, NUL-terminated: -EFBIG over it, -EINVAL if it is not regular. */
int sw_port_read_file(SwPort *port, int dirfd, const char *name, size_t max, char **ret_text,
                      struct stat *ret_st) G_GNUC_WARN_UNUSED_RESULT;

/* Something happened `n` times. */
static inline void sw_count(const SwPort *port, SwCount what, guint64 n)
{
    if (port->metrics)
        sw_metrics_add(port->metrics, what, n);
}

static inline void sw_port_free(SwPort *port)
{
    if (port)
        port->free(port);
}

/* `r` of a renameat with flags tells that the source has no such rename: NFS has none, and file systems may not know
 * the flag (rename(2)). */
static inline gboolean sw_lacks_rename(int r)
{
    return r == -EINVAL || r == -ENOSYS || r == -EOPNOTSUPP;
}

#endif
