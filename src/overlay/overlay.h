/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_OVERLAY_H
#define SW_OVERLAY_H

/*
 * What a name and an open file mean (docs/design.md): versions, views, stages, commits.  The only header that `fuse/`
 * includes from here, and free of FUSE itself, so that tests drive a whole host without a mount.
 *
 * Nodes.  A node is one version of a file, or one directory, symbolic link or special file: what the kernel calls an
 * inode.  A name leads to a node *per caller*: the family of a writer is led to its staged version, everybody else to
 * the committed one (C15).  Every SwEntry that is returned counts one look-up on its node; sw_overlay_forget takes
 * them back.  The root lives as long as the overlay.
 *
 * ESTALE.  open and truncate answer -ESTALE when the caller should be led to another node for that name.  The kernel
 * then walks the path once more, and the overlay remembers (a "pin") what to answer to that thread (FACTS F1, F26).
 *
 * Callers.  Each function that takes an SwCaller acts with its credentials, and leaves the thread with them.
 *
 * Waiting.  Functions marked [waits] may have to wait for a lease or for the source to make data durable.  With
 * `may_wait` FALSE they return -EINPROGRESS instead, having changed nothing, and are to be called again from a thread
 * that may be kept waiting.  All functions may be called from any thread.
 *
 * Results are 0 or -errno as the system call of the program should show it.
 */

#include "../core/bundle.h"
#include "../core/config.h"
#include "../core/event.h"
#include "../core/range_locks.h"
#include "../lease/control.h"
#include "../port/port.h"

typedef struct SwOverlay SwOverlay;
typedef struct SwNode SwNode;
typedef struct SwHandle SwHandle;       /* an open file description */
typedef struct SwDirHandle SwDirHandle; /* an open directory */

typedef struct {
    SwCred cred;
    pid_t tid;    /* the thread that asks, in the daemon's pid namespace; 0 = not visible there */
    mode_t umask; /* for calls that create */
    /* Polled by a write that waits for a lease: a signal has come, it ends with -EINTR (C24).  NULL: none can. */
    gboolean (*interrupted)(gpointer data);
    gpointer interrupted_data;
} SwCaller;

typedef struct {
    SwNode *node;
    struct stat st;
    gint64 entry_us, attr_us; /* how long the kernel may believe the name and the attributes */
} SwEntry;

/* ---- lifetime */

/* `source_fd` is kept open by the caller, `control` outlives the overlay.  -errno: the source cannot be looked at. */
int sw_overlay_new(SwPort *port, SwControl *control, const SwConfig *config, int source_fd, SwNoteFunc note,
                   gpointer note_data, SwOverlay **ret_overlay) G_GNUC_WARN_UNUSED_RESULT;
/* The st_dev under which programs see the mount; the close verdict looks for it in /proc. */
void sw_overlay_set_device(SwOverlay *overlay, dev_t dev);
/* Other settings from now on, whose lists of names are the same; `config` outlives the overlay, as the one before. */
void sw_overlay_set_config(SwOverlay *overlay, const SwConfig *config);
/* The largest WRITE the kernel sends: a longer record arrives in pieces (C11). */
void sw_overlay_set_max_write(SwOverlay *overlay, gsize max_write);
/* Whether the source has POSIX ACLs, which the kernel then asks for and checks (acl(5)). */
gboolean sw_overlay_has_acls(SwOverlay *overlay);
/* May this thread have asked something that is not answered yet?  Called with the overlay's lock held. */
typedef gboolean (*SwMayWait)(gpointer data, pid_t tid);
/* Periodic work: publishes streams and appends that are due, forgets pins of threads that do not come back.  Returns
 * when to call again (port clock).  `may_wait` NULL: nobody waits. */
gint64 sw_overlay_tick(SwOverlay *overlay, SwMayWait may_wait, gpointer data);
/*
 * This host was taken for dead and goes on under another id (C21): what was staged before is in salvage by now, and its
 * writers get ESTALE.  Stages that are busy are ended at their next use.
 */
void sw_overlay_fenced(SwOverlay *overlay);
/*
 * Another daemon of this machine goes on with all of it: stores it in a bundle that is being written, and changes
 * nothing; no other call may be running, and none of those who wait for file locks is stored.  Fails, in the words of
 * the bundle, if there is anything that cannot be handed on.
 */
void sw_overlay_carry(SwOverlay *overlay, SwBundle *bundle);
/* As sw_overlay_new, of what was stored.  It makes no call that changes the source.  If the bundle has failed, the
 * process is to end without a further call. */
SwOverlay *sw_overlay_resume(SwPort *port, SwControl *control, const SwConfig *config, int source_fd, SwNoteFunc note,
                             gpointer note_data, SwBundle *bundle);
/* Commits what every holder has closed, moves the rest to salvage, frees.  No other call may be running. */
void sw_overlay_free(SwOverlay *overlay);

/* Can all the locks be had that nobody keeps while he waits for anything?  Tries each once, and never waits. */
gboolean sw_overlay_tables_are_free(SwOverlay *overlay);

SwNode *sw_overlay_root(SwOverlay *overlay);
/* "dir/name" below the source, for people, of `name` in that directory, or, if it is NULL, of the node; g_free. */
char *sw_overlay_path(SwOverlay *overlay, SwNode *node, const char *name);

/*
 * What the kernel calls them: 64 bits that stay the same when another daemon goes on with the mount.  The root's is not
 * used.
 */
guint64 sw_overlay_node_id(SwOverlay *overlay, SwNode *node);
SwNode *sw_overlay_node(SwOverlay *overlay, guint64 id);
guint64 sw_overlay_handle_id(SwOverlay *overlay, SwHandle *handle);
SwHandle *sw_overlay_handle(SwOverlay *overlay, guint64 id);
guint64 sw_overlay_dir_id(SwOverlay *overlay, SwDirHandle *handle);
SwDirHandle *sw_overlay_dir(SwOverlay *overlay, guint64 id);

/* ---- names */

int sw_overlay_lookup(SwOverlay *overlay, const SwCaller *caller, SwNode *parent, const char *name,
                      SwEntry *ret_entry) G_GNUC_WARN_UNUSED_RESULT;
void sw_overlay_forget(SwOverlay *overlay, SwNode *node, guint64 count);

int sw_overlay_mkdir(SwOverlay *overlay, const SwCaller *caller, SwNode *parent, const char *name, mode_t mode,
                     SwEntry *ret_entry) G_GNUC_WARN_UNUSED_RESULT;
int sw_overlay_mknod(SwOverlay *overlay, const SwCaller *caller, SwNode *parent, const char *name, mode_t mode,
                     dev_t dev, SwEntry *ret_entry) G_GNUC_WARN_UNUSED_RESULT;
int sw_overlay_symlink(SwOverlay *overlay, const SwCaller *caller, const char *target, SwNode *parent, const char *name,
                       SwEntry *ret_entry) G_GNUC_WARN_UNUSED_RESULT;
/* [waits] Commits the node first if it is staged (C5). */
int sw_overlay_link(SwOverlay *overlay, const SwCaller *caller, SwNode *node, SwNode *parent, const char *name,
                    gboolean may_wait, SwEntry *ret_entry) G_GNUC_WARN_UNUSED_RESULT;
int sw_overlay_unlink(SwOverlay *overlay, const SwCaller *caller, SwNode *parent,
                      const char *name) G_GNUC_WARN_UNUSED_RESULT;
int sw_overlay_rmdir(SwOverlay *overlay, const SwCaller *caller, SwNode *parent,
                     const char *name) G_GNUC_WARN_UNUSED_RESULT;
/* [waits] `flags` as renameat2(2).  Commits a version that is being staged at the old name under the new one (C5).
 * -ESTALE, once for a thread: the kernel is to look for the old name anew. */
int sw_overlay_rename(SwOverlay *overlay, const SwCaller *caller, SwNode *old_parent, const char *old_name,
                      SwNode *new_parent, const char *new_name, guint flags,
                      gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
ssize_t sw_overlay_readlink(SwOverlay *overlay, const SwCaller *caller, SwNode *node, char *buf, size_t size);

/* ---- attributes.  `handle` may be NULL. */

int sw_overlay_getattr(SwOverlay *overlay, const SwCaller *caller, SwNode *node, SwHandle *handle, struct stat *ret_st,
                       gint64 *ret_attr_us) G_GNUC_WARN_UNUSED_RESULT;

enum { SW_SET_MODE = 1, SW_SET_UID = 2, SW_SET_GID = 4, SW_SET_SIZE = 8, SW_SET_TIMES = 16 };
typedef struct {
    guint what; /* SW_SET_ bits */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    guint64 size;
    struct timespec times[2]; /* as utimensat(2), UTIME_NOW and UTIME_OMIT included */
} SwChange;

/* [waits] for a change of size by name. */
int sw_overlay_setattr(SwOverlay *overlay, const SwCaller *caller, SwNode *node, SwHandle *handle,
                       const SwChange *change, gboolean may_wait, struct stat *ret_st,
                       gint64 *ret_attr_us) G_GNUC_WARN_UNUSED_RESULT;

ssize_t sw_overlay_getxattr(SwOverlay *overlay, const SwCaller *caller, SwNode *node, const char *key, void *buf,
                            size_t size);
ssize_t sw_overlay_listxattr(SwOverlay *overlay, const SwCaller *caller, SwNode *node, char *buf, size_t size);
int sw_overlay_setxattr(SwOverlay *overlay, const SwCaller *caller, SwNode *node, const char *key, const void *value,
                        size_t size, int flags) G_GNUC_WARN_UNUSED_RESULT;
int sw_overlay_removexattr(SwOverlay *overlay, const SwCaller *caller, SwNode *node,
                           const char *key) G_GNUC_WARN_UNUSED_RESULT;
int sw_overlay_statfs(SwOverlay *overlay, const SwCaller *caller, struct statvfs *ret_st) G_GNUC_WARN_UNUSED_RESULT;

/* ---- files */

int sw_overlay_open(SwOverlay *overlay, const SwCaller *caller, SwNode *node, int flags,
                    SwHandle **ret_handle) G_GNUC_WARN_UNUSED_RESULT;
/* What the kernel may do with pages of the node for this handle. */
typedef enum {
    SW_CACHE_DROP, /* cache, but forget what was cached before */
    SW_CACHE_KEEP, /* what was cached is still true */
    SW_CACHE_NONE, /* nothing: the kernel does not know where an appended record goes */
} SwCaching;
/* How the kernel is to serve a handle. */
typedef struct {
    SwCaching caching;
    int backing; /* an id of SwBackingCalls, 0 for none; with SW_CACHE_NONE only mappings are served by that */
} SwManner;
/*
 * To be called once, before the kernel is told of a handle, with the node by which it has asked.  What it may do
 * depends on the others that it has of that node (fs/fuse/iomode.c).  -ESTALE: this one cannot stand beside them, and
 * is to be released.
 */
int sw_handle_settle(SwOverlay *overlay, SwHandle *handle, SwNode *node,
                     SwManner *ret_manner) G_GNUC_WARN_UNUSED_RESULT;
int sw_overlay_create(SwOverlay *overlay, const SwCaller *caller, SwNode *parent, const char *name, mode_t mode,
                      int flags, SwEntry *ret_entry, SwHandle **ret_handle) G_GNUC_WARN_UNUSED_RESULT;
/* O_TMPFILE below `parent`: a stage without a name until it is linked. */
int sw_overlay_tmpfile(SwOverlay *overlay, const SwCaller *caller, SwNode *parent, mode_t mode, int flags,
                       SwEntry *ret_entry, SwHandle **ret_handle) G_GNUC_WARN_UNUSED_RESULT;
ssize_t sw_overlay_read(SwOverlay *overlay, SwHandle *handle, void *buf, size_t size, off_t offset);
/* [waits] for appends.  `append`: the handle has O_APPEND now.  `mapped`: pages of a mapping written back. */
ssize_t sw_overlay_write(SwOverlay *overlay, const SwCaller *caller, SwHandle *handle, const void *buf, size_t size,
                         off_t offset, gboolean append, gboolean mapped, gboolean may_wait);
int sw_overlay_fallocate(SwOverlay *overlay, const SwCaller *caller, SwHandle *handle, int mode, off_t offset,
                         off_t length) G_GNUC_WARN_UNUSED_RESULT;
ssize_t sw_overlay_copy_range(SwOverlay *overlay, const SwCaller *caller, SwHandle *from, off_t from_offset,
                              SwHandle *to, off_t to_offset, size_t size);
off_t sw_overlay_lseek(SwOverlay *overlay, SwHandle *handle, off_t offset, int whence);
/* [waits] C7. */
int sw_overlay_fsync(SwOverlay *overlay, const SwCaller *caller, SwHandle *handle, gboolean data_only,
                     gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
/* [waits] close(2) of one descriptor: commits if that was provably the last (C3).  `owner` has no fcntl(2) locks on the
 * file any more (C22). */
int sw_overlay_flush(SwOverlay *overlay, const SwCaller *caller, SwHandle *handle, guint64 owner,
                     gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
/* [waits] The last reference is gone.  Frees the handle (also on error), except when -EINPROGRESS is returned. */
int sw_overlay_release(SwOverlay *overlay, SwHandle *handle, gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;

/* ---- file locks: flock(2), fcntl(2) and OFD locks (C6, C22) */

typedef struct {
    gboolean flock;     /* flock(2); else fcntl(2) or OFD */
    SwRangeMode mode;   /* SW_RANGE_NONE: to be given back */
    guint64 start, end; /* first and last byte; SW_RANGE_END: to the end */
    guint64 owner;      /* as the kernel tells owners apart */
    pid_t pid;          /* for people; 0 unknown */
    gboolean waits;     /* who asks will wait, if it is refused */
} SwFileLock;

/*
 * [waits] Takes or changes a lock, or gives it back, which commits what the handle staged first (C6).  A handle that
 * gets a lock is moved to the current version, and is in place from then on if nothing was written through it (C22).
 * -EAGAIN: somebody has it.
 */
int sw_overlay_lock(SwOverlay *overlay, const SwCaller *caller, SwHandle *handle, const SwFileLock *lock,
                    gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
/* Who would refuse it?  ret_other->mode is SW_RANGE_NONE if nobody. */
int sw_overlay_test_lock(SwOverlay *overlay, SwHandle *handle, const SwFileLock *lock,
                         SwFileLock *ret_other) G_GNUC_WARN_UNUSED_RESULT;
/*
 * After -EAGAIN: waits for it.  `done` is called once, by the thread that steps: 0: it is taken, and sw_overlay_lock is
 * to be called once more, for the rest; -EINTR: `caller` says that it was interrupted; else why it cannot be had.
 * -EDEADLK is returned at once, and `done` not called.  The handle outlives the wait.
 */
int sw_overlay_lock_wait(SwOverlay *overlay, const SwCaller *caller, SwHandle *handle, const SwFileLock *lock,
                         void (*done)(gpointer data, int result), gpointer data) G_GNUC_WARN_UNUSED_RESULT;
/* Tries for those who wait; by one thread at a time.  Returns when to call again (port clock), if nothing changes. */
gint64 sw_overlay_lock_step(SwOverlay *overlay);
/* Something was given back: time for a step.  Set once, before there are requests; called by any thread. */
void sw_overlay_on_lock_change(SwOverlay *overlay, void (*changed)(gpointer data), gpointer data);
/* The `data` of all who wait, those for one file in their order (to be freed with g_ptr_array_unref). */
GPtrArray *sw_overlay_lock_waits(SwOverlay *overlay);
/* Ends all waits with -ENOTCONN. */
void sw_overlay_lock_abandon(SwOverlay *overlay);

/*
 * What the kernel has cached of that node is not true any more; `stale` is called by any thread, without locks, and
 * does not return before it is gone.  Dropping pages waits for those that are being read or written, dropping
 * attributes waits for nothing.  Set once, before there are requests.
 */
typedef enum { SW_STALE_ATTRIBUTES, SW_STALE_ALL } SwStale;
typedef void (*SwStaleFunc)(gpointer data, SwNode *node, SwStale what);
void sw_overlay_on_stale(SwOverlay *overlay, SwStaleFunc stale, gpointer data);
/*
 * After a write: what the kernel has cached of the node is not true any more, but can be dropped only when the write
 * has been answered, and the handle may be gone then.  NULL, or the node, for sw_overlay_drop_stale.
 */
SwNode *sw_overlay_take_stale(SwOverlay *overlay, SwHandle *handle);
/* NULL is allowed. */
void sw_overlay_drop_stale(SwOverlay *overlay, SwNode *node);

/* ---- io_uring: how the requests come that lead here */

/* NULL, or why it is not to be asked for: a static text. */
const char *sw_overlay_bars_uring(SwOverlay *overlay);
/* NULL: through io_uring; or why not, a static text.  Any thread. */
void sw_overlay_tell_uring(SwOverlay *overlay, const char *why_not);
/* May calls of the source wait for a server? */
gboolean sw_overlay_on_network(const SwOverlay *overlay);

/* ---- passthrough: files that the kernel reads by itself (docs/design.md) */

typedef struct {
    /* From now on the kernel knows the file by an id, which is returned (> 0), or -errno. */
    int (*open)(gpointer data, int fd);
    void (*close)(gpointer data, int id);
    gpointer data;
} SwBackingCalls;
/* NULL, or what of the mount itself stands against it; static. */
const char *sw_overlay_bars_passthrough(SwOverlay *overlay);
/* The kernel has been asked for it, and will have agreed before the next request.  Set once, before there is one. */
void sw_overlay_offer_passthrough(SwOverlay *overlay, const SwBackingCalls *calls);
/* Or there is none, and `why` (static) says so. */
void sw_overlay_refuse_passthrough(SwOverlay *overlay, const char *why);

/* ---- directories */

int sw_overlay_opendir(SwOverlay *overlay, const SwCaller *caller, SwNode *node,
                       SwDirHandle **ret_handle) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Calls `fill` for each entry after position `offset` (0 = start) until it returns FALSE (the entry was not taken).
 * `next` is the position after the entry; `st` carries st_ino and the type bits of st_mode.
 */
typedef gboolean (*SwFillFunc)(gpointer data, const char *name, const struct stat *st, off_t next);
int sw_overlay_readdir(SwOverlay *overlay, const SwCaller *caller, SwDirHandle *handle, off_t offset, SwFillFunc fill,
                       gpointer data) G_GNUC_WARN_UNUSED_RESULT;
/*
 * From within `fill`: what is known of an entry, if the caller is thought to ask for it at once; counts as a look-up.
 * `offset` is the one that was given to sw_overlay_readdir.  FALSE: it can ask when it wants to know.
 */
gboolean sw_overlay_listed(SwOverlay *overlay, const SwCaller *caller, SwDirHandle *handle, const char *name,
                           off_t offset, SwEntry *ret_entry);
/* May the kernel keep what it reads of that handle for others?  Then *ret_right: and use what it has kept of others. */
gboolean sw_dir_handle_keeps(const SwDirHandle *handle, gboolean *ret_right);
int sw_overlay_fsyncdir(SwOverlay *overlay, SwDirHandle *handle) G_GNUC_WARN_UNUSED_RESULT;
void sw_overlay_releasedir(SwOverlay *overlay, SwDirHandle *handle);

#endif
