/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_OVERLAY_INTERNAL_H
#define SW_OVERLAY_INTERNAL_H

/*
 * The overlay's own structures, shared by the files of this directory only.
 *
 * Locks, in the order in which they may be taken:
 *  1. SwStage.lock    held while a stage is written, judged or committed; port calls are made under it
 *  2. SwHandle.lock   of an append handle, likewise
 *  3. SwOverlay.lock  the tables; never held over a port call
 *
 * "L:" on a field: protected by SwOverlay.lock.  "S:": protected by SwStage.lock.  No mark: immutable once visible.
 */

#include "../core/base.h"
#include "../core/ranges.h"
#include "../core/verdict.h"
#include "../lease/content_lease.h"
#include "../lease/old.h"
#include "file_locks.h"
#include "locks.h"
#include "overlay.h"

#include <fcntl.h>
#include <string.h>

/* An open descriptor with a reference count; closed with the last. */
typedef struct {
    SwPort *port;
    int fd;
    gint refs; /* atomic */
} SwFile;

typedef struct SwStage SwStage;

/* One name of a node.  A directory has one, a file as many as were looked up, a deleted object none. */
typedef struct SwName {
    struct SwName *next;
    SwNode *parent; /* counted */
    char name[];
} SwName;

/* Which object on the source a node stands for. */
typedef struct {
    ino_t ino;
    guint64 tag;
} SwIdentity;

/* What tells the contents of a file apart. */
typedef struct {
    off_t size;
    struct timespec mtime, ctime;
} SwStamp;

static inline SwStamp sw_stamp_of(const struct stat *st)
{
    return (SwStamp){.size = st->st_size, .mtime = st->st_mtim, .ctime = st->st_ctim};
}

static inline gboolean sw_stamp_equal(const SwStamp *a, const SwStamp *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

typedef struct SwListing SwListing; /* listing.c */

/* What the kernel's handles of a node go by when it reads the file by itself (backing.c). */
typedef struct {
    int id;
    SwIdentity of; /* the file */
    guint handles; /* that go by it */
} SwBacking;

/* There is one for each name that the kernel has cached, which may be millions. */
struct SwNode {
    guint64 kernel_id;     /* of one that an earlier daemon made: how the kernel calls it (ids.c); else 0 */
    SwIdentity id;         /* L: of the committed version, or of the stage file once it is being committed */
    gboolean listed;       /* L: in SwOverlay.nodes under `id` */
    mode_t type;           /* S_IFMT bits */
    guint64 n_lookup;      /* L: the kernel's count */
    guint refs;            /* L: names of children, handles, stages, pins */
    guint hidden_links;    /* L: of ours, made to keep it while it is replaced */
    SwName *names;         /* L */
    SwStage *stage;        /* L: counted; set while this is a version not committed */
    GSList *handles;       /* L: of SwHandle, open ones */
    SwFile *dir;           /* L: counted; a directory's descriptor while it is among the recently used */
    GList dir_link;        /* L: in SwOverlay.dirs */
    SwListing *listing;    /* L: of a directory that was listed */
    guint in_place_writes; /* L: under way now */
    guint stale : 1;       /* L: what the kernel has cached of it is to be dropped when those are over */
    guint lingering : 1;   /* L: committed, but handles are open that may write again: nobody else is led here */
    guint replaced : 1;    /* L: whatever links it has are in old/ */
    guint grows : 1;       /* L: its size was seen to change: the kernel may not believe it for any time (C2) */
    guint doubted : 1;     /* L: that was just now, and the kernel may yet believe what it was told before */
    gint64 name_until_us;  /* L: until when the kernel may believe a name of it */
    gint64 moving_us;      /* L: when a thread was told to look for it once more before it renames it; 0: none was */
    pid_t moving_tid;      /* L: that one */
    guint n_unbacked;      /* L: handles that the kernel has of it, and that do not go by `backing` */
    SwBacking *backing;    /* L: owned; while the kernel has handles of it that do, else NULL */
    gint64 asked_us;       /* L: when the server was last asked about it; on a network file system */
    /* L: what the kernel was told last: the inode number is what shows in /proc, the rest is what its cached pages and
     * size go by, which it believes until `until_us`. */
    struct {
        ino_t ino;
        SwStamp stamp;
        blkcnt_t blocks;
        guint mode : 16;  /* 0: never told */
        guint staged : 1; /* it had a stage then */
        guint since : 1;  /* since the last handle left a file for another one (sw_node_left_locked) */
        uid_t uid;
        gid_t gid;
        guint nlink;
        struct timespec atime;
        gint64 until_us;
    } told;
    SwFile *shown;     /* L: counted; the file that has the number told, where no handle has it open any more */
    SwStamp read_as;   /* L: on a network file system: what this machine has cached is at least as new */
    off_t appended_to; /* L: where the last record ended that this host appended */
};

typedef enum {
    SW_STAGE_OPEN,      /* takes writes */
    SW_STAGE_COMMITTED, /* is the name's version; a write starts anew over it */
    SW_STAGE_GONE,      /* discarded; further writes fail with `gone_error` */
} SwStageState;

/* A version that is not committed: a base (none, or the version opened) and what was written over it. */
struct SwStage {
    SwOverlay *overlay;
    gint refs; /* atomic */
    SwMutex lock;
    SwCred cred; /* of the opener */
    SwClass klass;

    SwNode *node;       /* counted */
    SwNode *parent;     /* L: counted; NULL without a name (unlinked, O_TMPFILE) */
    char *name;         /* L */
    gboolean listed;    /* L: in SwOverlay.pending under parent and name */
    gboolean everyone;  /* L: a closed file with a private name, seen by the whole host (C16) */
    gboolean quiet;     /* L: every holder has flushed and the last verdict was to hold */
    gboolean guests;    /* L: also opened through another node (F1), whose number those descriptors show */
    SwStageState state; /* L for reading, S and L for changing */
    GArray *family;     /* L: pid_t of those who opened it */
    guint n_writers;    /* S and L for changing, either for reading: handles open for writing */
    guint n_coming;     /* L: opens on their way to join it, its maker's among them: it waits for them */
    SwFile *file;       /* L for the pointer: where reads go (base or stage file); NULL never */

    gboolean materialised; /* L for reading, S and L for changing: `file` is a stage file of ours */
    SwEpoch *epoch;        /* S: the stage file was made in; from no other is it ever renamed */
    guint worker;          /* S: stage directory of it */
    guint counted_in;      /* L: that directory + 1, or 0: in SwOverlay.stages_in */
    char stage_name[32];   /* S */
    gboolean edit;         /* S and L for changing, either for reading: made over a base that has to survive where it
                            * was not written (C10) */
    gboolean unmade;       /* S: a lock led it to what others made: its first change tells whether it edits that */
    gboolean has_base;     /* L for reading, S and L for changing: a version stood at the name when it was opened */
    SwFound base;          /* S: that version */
    SwRanges ranges;       /* S: what an edit wrote */
    SwTrial trial;         /* S */
    gboolean synced;       /* S: fsync was called: never thrown away */
    gboolean described;    /* S: a note lies beside the stage file */
    gboolean mtime_set, mode_set, owner_set; /* S: set by the program (C8) */
    gboolean claimed;                        /* S: our claim stands at the name (C12) */
    gboolean read_write;    /* S and L for changing, either for reading: some handle could have made a shared mapping */
    gboolean was_in_flight; /* S: a descriptor may have been on its way somewhere */
    gboolean was_mapped;    /* S: and one of them did */
    pid_t mark;             /* S: last pid when first opened */
    gint64 opened_us;
    gint64 last_write_us;         /* S */
    gint64 published_us;          /* S: of a stream, when last */
    int gone_error;               /* S */
    pid_t writer_tid, writer_pid; /* S: the last writing thread and its process, to spare a look at /proc */
};

typedef enum {
    SW_HANDLE_READ,    /* one committed version */
    SW_HANDLE_STAGED,  /* reads and writes a stage */
    SW_HANDLE_APPEND,  /* records go to the end of the file (C11) */
    SW_HANDLE_INPLACE, /* the source's own file (C22, C25) */
} SwHandleKind;

struct SwHandle {
    guint64 kernel_id; /* as that of a node */
    SwHandleKind kind; /* atomic: STAGED becomes INPLACE with a file lock; ask sw_handle_kind */
    int flags;
    SwCaching caching;
    SwNode *node;   /* counted */
    SwStage *stage; /* counted; of STAGED, and of what was that before */
    SwCred cred;
    SwMutex lock;  /* of `file` and `pending` of an APPEND handle */
    SwFile *file;  /* L for the pointer: counted; all but STAGED */
    SwIdentity id; /* of `file` */
    /* APPEND: where its file is, for the intent and when that file is replaced */
    SwNode *bearer; /* counted; of `file`: has its names, as far as they are known here */
    SwNode *parent; /* counted; the name it was opened by */
    char *name;
    nlink_t links;       /* names that `file` had when it was last known to be the right one */
    GByteArray *pending; /* pieces of a record that is not complete yet */
    int failure;         /* of a record whose first pieces were taken: for the next write or close to report */
    gint64 pending_since_us;
    pid_t pending_writer; /* process */
    SwNode *served_in;    /* L: counted; by which node the kernel has it, or NULL: it does not know it yet */
    gboolean backed;      /* L: it goes by the backing of that */
    gboolean passed;      /* and all that is read through it comes from there, without us */
    gboolean cut_later;   /* INPLACE: O_TRUNC is to be done when the second walk's OPEN takes it */

    /* of file locks */
    SwLockedFile *locked[2]; /* protected by SwFileLocks.lock: counted; by SwCarrierKind */
    gboolean in_place;       /* L: in SwOverlay.in_place: it had a lock, and reads what others write in place */
    SwEpoch *epoch;          /* in which it went in place; NULL: it did not */

    /* of old versions (old.c) */
    GList look_link; /* L: in SwOverlay.looks; its `data` is NULL where it is not */
    gint64 look_us;  /* L */
    SwOld held;      /* L: the link that keeps what it reads */
};

static inline SwHandleKind sw_handle_kind(const SwHandle *handle)
{
    return __atomic_load_n(&handle->kind, __ATOMIC_ACQUIRE);
}

/*
 * What the second walk of a thread is to be told (FACTS F1).
 *
 * A file with several names is opened by a name that OPEN does not tell: such a pin is an intent at first, and resolved
 * by the LOOKUP that brings the name.
 */
typedef struct {
    pid_t tid;
    uid_t uid;
    SwNode *from;    /* counted: the node whose open was answered ESTALE */
    int flags;       /* of that open */
    gboolean intent; /* the rest is not known yet */
    SwNode *node;    /* counted: the one to lead to */
    SwNode *parent;  /* counted */
    char *name;
    SwHandle *handle; /* what the open will get, or NULL */
    SwStage *stage;   /* counted: what the open will join, whatever has become of it by then, or NULL */
    int error;        /* what the open will get, or 0 */
    guint walks;      /* LOOKUPs that came: a second walk makes one or two (F1) */
    gint64 since_us;
    gint64 age_us; /* L */
} SwPin;

/* The stages at one name; kept for a while after the last, for the kernel's cached names (F27). */
typedef struct {
    SwNode *parent; /* counted */
    char *name;
    GSList *stages; /* of SwStage, counted */
    gint64 hot_until_us;
    guint64 turn;    /* of SwOverlay.stage_turn, when a stage came or went last */
    gboolean looked; /* the name was looked up since */
} SwPending;

/* Whether who lists directories asks for the attributes of what they contain, as `ls -l` and `find -size` do. */
typedef enum { SW_WISH_UNKNOWN, SW_WISH_NAMES, SW_WISH_ATTRIBUTES } SwWish;
typedef struct {
    pid_t tid;
    SwWish wish;
    guint n_believed;  /* directories listed since that was found out */
    const SwNode *dir; /* opened last; not counted, and only compared */
} SwReader;

struct SwOverlay {
    SwPort *port;
    SwControl *control;
    SwContentLeases *leases;
    SwLocks *locks;
    SwFileLocks *file_locks;
    const SwConfig *config; /* atomic: sw_config_of */
    int source_fd;
    guint64 device;   /* atomic */
    gsize max_write;  /* atomic */
    gint64 began_us;  /* port clock */
    gboolean network; /* the source is a network file system */
    gboolean clones;  /* it can share blocks */
    SwNoteFunc note;
    gpointer note_data;
    SwStaleFunc stale; /* may be NULL */
    gpointer stale_data;

    SwBackingCalls backing_calls;
    const char *backing_barred; /* NULL, or why there are none; static */
    const char *uring_barred;   /* atomic: NULL, or why requests do not come through io_uring; static */
    SwMutex backing_lock;       /* held over the trial of the calls, for whoever wants its outcome */
    gboolean backing_tried;     /* protected by backing_lock, as the next one */
    int backing_error;          /* of the last trial, or 0 */

    SwMutex lock;
    SwNode *root;
    GHashTable *nodes;              /* L: SwNode by identity, the listed ones */
    GHashTable *strays;             /* L: all other SwNode: staged, replaced, gone */
    GHashTable *pending;            /* L: SwPending by parent and name */
    GSList *pins;                   /* L */
    gint64 pins_at_us;              /* L: when their age was last counted */
    GQueue dirs;                    /* L: nodes with a descriptor, most recently used first */
    GSList *appenders;              /* L: APPEND handles with a pending record */
    guint64 stage_seq;              /* L */
    guint64 stage_turn;             /* L: how often a name has got or lost a stage */
    guint stages_in[SW_STAGE_DIRS]; /* L: stages, by their directory */
    GSList *in_place;               /* L: of SwHandle */
    GSList *removals;               /* L: SwRemoval */
    GQueue looks;         /* L: of SwHandle, in the order in which they are to look whether what they read is old */
    GSList *lingering;    /* L: committed stages that some handle may still write, counted */
    SwReader readers[64]; /* L: of directories, by thread */
    GQueue open_dirs;     /* L: of SwDirHandle */

    guint generation;       /* how many daemons this mount has had before */
    SwMutex inherited_lock; /* taken after all others */
    GHashTable *inherited;  /* inherited_lock: id -> node, handle or open directory of an earlier daemon */
};

/* The settings now; `mount -o remount` changes them between two looks. */
static inline const SwConfig *sw_config_of(const SwOverlay *ov)
{
    return __atomic_load_n(&ov->config, __ATOMIC_ACQUIRE);
}

/* ---- io.c */
/* Where a handle reads now; with a reference. */
SwFile *sw_handle_file(SwOverlay *ov, SwHandle *handle);

/* ---- ids.c */
/* The kernel knows the object by this number, which is the object's own. */
void sw_ids_inherit(SwOverlay *ov, const guint64 *id, gpointer object);
/* One that ends, with its kernel_id. */
void sw_ids_drop(SwOverlay *ov, guint64 inherited);
guint64 sw_ids_of(const SwOverlay *ov, guint64 inherited, gconstpointer object);

/* ---- in_place.c */
/* The name of a handle's file, of a stage the one that it would be committed under; FALSE: none.  *ret_parent comes
 * with a reference. */
gboolean sw_handle_name(SwOverlay *ov, SwHandle *handle, SwNode **ret_parent, char **ret_name);
/* What is read and written in place through handles of that node, with a reference; NULL if nothing is. */
SwFile *sw_in_place_file_locked(SwNode *node);
/* The kernel is to ask anew for the attributes of that node; waits for nothing.  No lock held. */
void sw_node_forget_told(SwOverlay *ov, SwNode *node);
/* The same, if the node is in doubt, which it then is no longer.  No lock held.  Within a LOOKUP, whose answer the
 * kernel then takes for older than that and drops, to ask again when it needs the size; never within a GETATTR: a
 * read(2) that asked for the size would go by the one before. */
void sw_node_end_doubt(SwOverlay *ov, SwNode *node);
/* Writes through an INPLACE handle. */
ssize_t sw_in_place_write(SwOverlay *ov, SwHandle *handle, const void *buf, size_t size, off_t offset);

/* ---- rename.c */
/* Its name is not to be believed, for it is about to be renamed to where somebody has a stage. */
gboolean sw_node_is_moving_locked(SwOverlay *ov, const SwNode *node);

/* ---- backing.c */
/* The handle ends.  What is returned, if not 0, is for sw_backing_close. */
int sw_backing_leave_locked(SwOverlay *ov, SwHandle *handle) G_GNUC_WARN_UNUSED_RESULT;
void sw_backing_close(SwOverlay *ov, int id); /* 0 is allowed */
/* Would a handle that is opened so (NULL: one of a stage) be refused in that node? */
gboolean sw_backing_excludes(SwOverlay *ov, const SwNode *node, int flags, const SwHandle *handle);
/* Whether passthrough is used, for safewritectl; g_free. */
char *sw_backing_text(SwOverlay *ov);

/* ---- files.c */
SwFile *sw_file_new(SwPort *port, int fd); /* takes the descriptor */
SwFile *sw_file_ref(SwFile *file);
void sw_file_unref(SwFile *file);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SwFile, sw_file_unref)

/* ---- listing.c */
/*
 * A directory that has these attributes now is opened to be listed.  NULL: the kernel is not to keep what it reads;
 * else, until closed, it may, and *ret_right tells whether what it has kept before is right.
 */
SwListing *sw_listing_open(SwOverlay *ov, SwNode *dir, const struct stat *st, gboolean *ret_right);
/* It is read from its beginning. */
void sw_listing_begins(SwOverlay *ov, SwListing *listing);
/* It contains what is not for everybody. */
void sw_listing_spoilt(SwOverlay *ov, SwListing *listing);
void sw_listing_close(SwOverlay *ov, SwListing *listing);
/* A thread opens a directory; what it will want to know about the entries. */
SwWish sw_reader_opens(SwOverlay *ov, pid_t tid, SwNode *dir);
/* It has looked up something of that type there. */
void sw_reader_looks_up(SwOverlay *ov, pid_t tid, SwNode *dir, mode_t type);

/* ---- node.c.  `_locked`: the caller holds SwOverlay.lock. */
SwNode *sw_node_new_locked(SwOverlay *ov, mode_t type);
void sw_node_ref_locked(SwNode *node);
void sw_node_unref_locked(SwOverlay *ov, SwNode *node);
void sw_node_unref(SwOverlay *ov, SwNode *node);
G_GNUC_WARN_UNUSED_RESULT SwNode *sw_node_find_locked(SwOverlay *ov, const SwFound *found);
/* The node of a found object, made if need be, known by this name from now on; comes with a reference. */
SwNode *sw_node_get(SwOverlay *ov, const SwFound *found, SwNode *parent, const char *name);
void sw_node_list_locked(SwOverlay *ov, SwNode *node, const SwFound *found);
void sw_node_unlist_locked(SwOverlay *ov, SwNode *node);
void sw_node_add_name_locked(SwOverlay *ov, SwNode *node, SwNode *parent, const char *name);
void sw_node_drop_name_locked(SwOverlay *ov, SwNode *node, SwNode *parent, const char *name);
/* "dir/name" below the source, for policy and people; g_free. */
char *sw_node_path(SwOverlay *ov, SwNode *parent, const char *name);
char *sw_node_path_locked(SwNode *parent, const char *name);
gboolean sw_identity_is(const SwIdentity *id, const SwFound *found);
/* A copy of the node's first name: FALSE when it has none.  *ret_parent comes with a reference. */
gboolean sw_node_first_name(SwOverlay *ov, SwNode *node, SwNode **ret_parent, char **ret_name);
gboolean sw_node_has_several_names(SwOverlay *ov, SwNode *node);
/* Where the node is: of several names the one that leads to it, for others may be gone or lead elsewhere by now; if
 * none does, the one asked for last.  Acts with the thread's credentials.  -ENOENT: no name is left. */
int sw_node_place(SwOverlay *ov, SwNode *node, SwFile **ret_dir, char **ret_name) G_GNUC_WARN_UNUSED_RESULT;
/* An open directory's descriptor; -ENOENT or -ESTALE when it is not there any more. */
int sw_node_dir(SwOverlay *ov, SwNode *dir, SwFile **ret_file) G_GNUC_WARN_UNUSED_RESULT;
/* The same, and what is looked up in it next is what the server has now: NFS believes a directory's names for as long
 * as it believes its change time, and for many seconds (F12, F19).  One GETATTR there, nothing elsewhere. */
int sw_node_dir_fresh(SwOverlay *ov, SwNode *dir, SwFile **ret_file) G_GNUC_WARN_UNUSED_RESULT;
/* The server was asked about the node just now; was it within `attr-cache`, so that stat(2) may be answered with what
 * this machine has cached of it (C2)? */
void sw_node_asked(SwOverlay *ov, SwNode *node);
gboolean sw_node_is_fresh(SwOverlay *ov, const SwNode *node);
/*
 * A handle of the node, or its stage, goes on in another file than `left` (taken).  /proc shows the number of the file
 * that the kernel was told of, and the close verdict goes by that: so that file is kept, lest its number becomes
 * another one's while a handle is open.  Returns what is not needed any more, to be given back without L.
 */
SwFile *sw_node_left_locked(SwNode *node, SwFile *left);
/* What the kernel was told last; FALSE if nothing. */
gboolean sw_node_recall_locked(const SwNode *node, struct stat *ret_st);
void sw_node_forget_dir_locked(SwOverlay *ov, SwNode *dir);

/*
 * To open a file with that other hosts write at the same time, in other places.  An NFS client writes whole pages as it
 * has them cached, and so takes back what others wrote there, unless each write goes to the server by itself
 * (nfs_can_extend_write in fs/nfs/write.c).
 */
static inline int sw_shared_flags(const SwOverlay *ov)
{
    return ov->network ? O_DSYNC : 0;
}

/* ---- pending.c */
/* A stage at the name that the caller may see, with a reference; NULL if none.  *ret_hot: there is or was one lately.
 */
SwStage *sw_pending_visible(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, gboolean *ret_hot);
/* Now, for sw_pending_believed_locked. */
guint64 sw_pending_turn(SwOverlay *ov);
/* Whether the kernel may believe for a while what it is told of the name, as far as stages go (F27); counts as a look.
 */
gboolean sw_pending_believed_locked(SwOverlay *ov, const SwNode *parent, const char *name, guint64 turn);
gboolean sw_pending_has_stages_locked(SwOverlay *ov, const SwNode *parent, const char *name);
void sw_pending_add_locked(SwOverlay *ov, SwStage *stage);
void sw_pending_remove_locked(SwOverlay *ov, SwStage *stage);
/* Stages at the old name go to the new one. */
void sw_pending_rename_locked(SwOverlay *ov, SwNode *old_parent, const char *old_name, SwNode *new_parent,
                              const char *new_name);
/* All stages at the name, whoever may see them, counted; to be freed with g_ptr_array_unref. */
GPtrArray *sw_pending_stages(SwOverlay *ov, SwNode *parent, const char *name);
gint64 sw_pending_cool(SwOverlay *ov, gint64 now);
/* All stages that stand at a name below `dir`, or below any (NULL), counted; to be freed with g_ptr_array_unref. */
GPtrArray *sw_pending_stages_below(SwOverlay *ov, const SwNode *dir);
/* Is there one below `dir`?  `held`: one that a writer has, or the whole host sees. */
gboolean sw_pending_below_locked(SwOverlay *ov, const SwNode *dir, gboolean held);
/* Names of new files below `dir` that the caller sees and the source does not show. */
GPtrArray *sw_pending_names(SwOverlay *ov, const SwCaller *caller, SwNode *dir);
gboolean sw_family_has(SwOverlay *ov, SwStage *stage, pid_t tid);
pid_t sw_process_of(SwOverlay *ov, pid_t tid); /* thread group, or `tid` itself */

/* A committed stage with open handles goes with its file: renamed with it, or without a name when it is unlinked. */
void sw_lingering_add_locked(SwOverlay *ov, SwStage *stage);
void sw_lingering_remove_locked(SwOverlay *ov, SwStage *stage);
void sw_lingering_rename(SwOverlay *ov, SwNode *old_parent, const char *old_name, SwNode *new_parent,
                         const char *new_name);
void sw_lingering_unlink(SwOverlay *ov, SwNode *parent, const char *name);
gboolean sw_lingering_any_locked(SwOverlay *ov, const SwNode *parent, const char *name);

/* S held.  The file of its handles is an unlinked one from now on, and is never committed (C15). */
void sw_stage_lose_name(SwStage *stage);

/* An unlink(2) by this host on its way, from before the source is asked until the stages know.  An edit that finds its
 * file gone meanwhile was not robbed of it by another host. */
typedef struct {
    const SwNode *parent;
    const char *name;
} SwRemoval;
void sw_removal_begin(SwOverlay *ov, SwRemoval *removal);
void sw_removal_end(SwOverlay *ov, SwRemoval *removal);
gboolean sw_removal_of(SwOverlay *ov, const SwStage *stage);

/* ---- pins.c */
/* Leads to `node`; with `handle` (taken over), `stage` (which awaits the open) or `error` that is decided already. */
void sw_pin_add(SwOverlay *ov, const SwCaller *caller, const SwPin *pin);
/* The node pinned for that walk, with a reference, or NULL. */
SwNode *sw_pin_walk(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwFile **ret_file);
/* Does the thread walk to a file whose name its OPEN did not tell, and may this be that name?  *ret_from comes with a
 * reference. */
gboolean sw_pin_intends(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, SwNode **ret_from,
                        int *ret_flags);
/* It has found nothing at that name: the walk looks there once more at most. */
void sw_pin_missed(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name);
/* Opening the pinned node with the same flags ends the pin: its `handle` and awaited `stage` are the caller's.  FALSE
 * if there is none; one of an earlier open that came to nothing (other flags) is ended.  SW_PIN_ANY: whatever the
 * flags. */
#define SW_PIN_ANY (-1)
gboolean sw_pin_take(SwOverlay *ov, const SwCaller *caller, SwNode *node, int flags, SwPin *ret_pin);
/* The same thread opens the same node again without having walked: a magic link (F1).  As sw_pin_take. */
gboolean sw_pin_take_repeat(SwOverlay *ov, const SwCaller *caller, SwNode *from, int flags, SwPin *ret_pin);
/* Ends the thread's pin if it has walked by it: an OPEN that comes instead of the one that was led to is the last that
 * the kernel sends for that open(2).  FALSE: there is none, or no walk came. */
gboolean sw_pin_take_walked(SwOverlay *ov, const SwCaller *caller);
gint64 sw_pins_expire(SwOverlay *ov, gint64 now, SwMayWait may_wait, gpointer data);
void sw_pins_clear(SwOverlay *ov);

/* ---- open.c */
/* The LOOKUP of an intent: opens `node`, found at that name, and pins the outcome.  -ENOENT: it is gone again. */
int sw_open_resolve(SwOverlay *ov, const SwCaller *caller, SwNode *from, SwNode *node, SwNode *parent, const char *name,
                    int flags);

/* ---- stage.c */
SwStage *sw_stage_ref(SwStage *stage);
void sw_stage_unref(SwStage *stage);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SwStage, sw_stage_unref)
/* A new file: parent may be NULL (O_TMPFILE); `mode` as the caller gave it. */
int sw_stage_new_file(SwOverlay *ov, const SwCaller *caller, SwNode *inherit_from, SwNode *parent, const char *name,
                      mode_t mode, SwStage **ret_stage) G_GNUC_WARN_UNUSED_RESULT;
/* Over a version: `truncated` = nothing of it is wanted.  Takes a reference on `base_file`. */
int sw_stage_new_over(SwOverlay *ov, const SwCaller *caller, SwNode *parent, const char *name, const SwFound *base,
                      SwFile *base_file, gboolean truncated, SwStage **ret_stage) G_GNUC_WARN_UNUSED_RESULT;
/* S held: readies the stage for a change of content; of a base, `upto` bytes are wanted. */
int sw_stage_ready(SwStage *stage, guint64 upto) G_GNUC_WARN_UNUSED_RESULT;
/* S held: makes `file` a stage file holding the first `upto` bytes of the base. */
int sw_stage_materialise(SwStage *stage, guint64 upto) G_GNUC_WARN_UNUSED_RESULT;
/* S held: a committed stage takes writes again, as an edit of what it had committed. */
int sw_stage_reopen(SwStage *stage) G_GNUC_WARN_UNUSED_RESULT;
int sw_stage_new_name(SwStage *stage, mode_t mode, int *ret_fd) G_GNUC_WARN_UNUSED_RESULT;
/* S held: descriptor of the directory that the stage file is in. */
int sw_stage_dir(const SwStage *stage);
int sw_stage_carry(SwStage *stage, int from_dirfd, const char *from_name, const struct stat *from,
                   int to_fd) G_GNUC_WARN_UNUSED_RESULT;
gboolean sw_stage_is_open(SwStage *stage);
SwFile *sw_stage_file(SwStage *stage); /* a reference on where reads go */
/* An open is on its way to the stage, which does not end for want of writers until it has joined or given up.  FALSE:
 * it has ended already. */
gboolean sw_stage_await(SwStage *stage) G_GNUC_WARN_UNUSED_RESULT;
void sw_stage_give_up(SwStage *stage);
/* Is it open for writing, or about to be opened? */
gboolean sw_stage_is_wanted(SwStage *stage);
/* S held.  Its opener made it, and nothing was put into it since. */
gboolean sw_stage_is_only_new(const SwStage *stage);
/* The end of the way for one that was awaited; who makes a stage is. */
void sw_stage_join(SwStage *stage, const SwCaller *caller, int flags);
ssize_t sw_stage_write(SwStage *stage, const SwCaller *caller, const void *buf, size_t size, off_t offset,
                       gboolean append, gboolean mapped);
int sw_stage_truncate(SwStage *stage, const SwCaller *caller, guint64 size) G_GNUC_WARN_UNUSED_RESULT;
int sw_stage_stat(SwStage *stage, struct stat *ret_st) G_GNUC_WARN_UNUSED_RESULT;

/* ---- discard.c; S held for all */
/* The name that a stage would be committed under. */
typedef struct {
    SwFile *dir;    /* counted */
    SwNode *parent; /* counted */
    char *name;
    SwFound stood; /* what was last seen there, if a version was known to stand there; number 0: nothing */
} SwTarget;
/* Acts as the stage's owner from here on.  -ENOENT: no name, or no such directory any more. */
int sw_target_find(SwStage *stage, SwTarget *target) G_GNUC_WARN_UNUSED_RESULT;
void sw_target_clear(SwStage *stage, SwTarget *target);
/* Ends the stage without a commit; what it holds goes to salvage under `reason` (NULL: dropped). */
void sw_stage_discard(SwStage *stage, const char *reason, int gone_error);
/* Nothing was written, and the name keeps what it has (C8): ends the stage if nobody wants it. */
void sw_stage_discard_unwanted(SwStage *stage);
/* Its host was taken for dead meanwhile, and whoever did has moved the stage file to salvage: ends the stage with
 * ESTALE, FALSE if that is not so.  Costs a look at the source only when `look`. */
gboolean sw_stage_end_if_taken(SwStage *stage, gboolean look);
/* Leaves a note of what the stage holds, for the time after a crash. */
void sw_stage_describe(SwStage *stage);
void sw_stage_forget_description(SwStage *stage);

/* ---- commit.c; S held for all */
int sw_stage_commit(SwStage *stage, guint rename_flags, gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
/* As one who takes the place behind all who came since the open (C8): what is nothing but new replaces nothing.
 * 1: others made a file of that name; the stage stays. */
int sw_stage_commit_behind(SwStage *stage, gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
/* Acts on a verdict: commit, discard or nothing. */
int sw_stage_execute(SwStage *stage, SwVerdict verdict, gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;

/* ---- evidence.c; S held. */
/* How the opener of a stage that was never flushed fares: one that is gone never had its descriptor. */
void sw_evidence_opener(SwStage *stage, SwFlusher *ret_opener);
/* `tid` of the flusher, 0 = not visible here, -1 = nobody closes, somebody asks. */
void sw_evidence_gather(SwStage *stage, pid_t tid, SwFlusher *ret_flusher, SwEvidence *ret_evidence);

/* ---- old.c */
/* A version that is about to be replaced by a rename over `name`.  Begin leaves the thread as `cred`, end as well. */
typedef struct {
    SwFound found;
    SwNode *node; /* counted; NULL: not known here */
    SwOld old;
    SwContentLease *lease; /* on what is replaced, so that nobody else replaces it between the link and the rename */
} SwReplacing;
/* `leased`: the caller has the lease on what stands there. */
void sw_replacing_begin(SwOverlay *ov, const SwCred *cred, int dirfd, const char *name, gboolean leased,
                        SwReplacing *replacing);
void sw_replacing_end(SwOverlay *ov, const SwCred *cred, SwReplacing *replacing, gboolean replaced);
/* unlink(2) of a file of data. */
int sw_old_unlink(SwOverlay *ov, int dirfd, const char *name) G_GNUC_WARN_UNUSED_RESULT;
/* Takes the links that programs are not to see out of a node's attributes. */
void sw_node_hide_links_locked(const SwNode *node, struct stat *st);
/* A handle that was opened, and that is closed. */
void sw_old_watch_locked(SwOverlay *ov, SwHandle *handle);
void sw_old_unwatch_locked(SwOverlay *ov, SwHandle *handle);
void sw_old_released(SwOverlay *ov, const SwOld *held);
/* Keeps what is still read, drops what was kept long enough. */
gint64 sw_old_look(SwOverlay *ov, gint64 now_us);

/* ---- telling.c */
/* An attribute of that node that is not on the source? */
gboolean sw_is_told(SwOverlay *ov, const SwNode *node, const char *key);
ssize_t sw_tell(SwOverlay *ov, const SwCaller *caller, const char *key, void *buf, size_t size);

/* ---- append.c */
ssize_t sw_append_write(SwOverlay *ov, SwHandle *handle, const SwCaller *caller, const void *buf, size_t size,
                        gboolean may_wait);
/* As publish, for close(2) and fsync(2): an incomplete record of a killed writer goes to salvage, and a record that
 * could not be appended since the last report is reported. */
int sw_append_flush(SwOverlay *ov, SwHandle *handle, const SwCaller *caller,
                    gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
int sw_append_publish(SwOverlay *ov, SwHandle *handle, gboolean may_wait) G_GNUC_WARN_UNUSED_RESULT;
int sw_append_truncate(SwOverlay *ov, SwHandle *handle, guint64 size) G_GNUC_WARN_UNUSED_RESULT;
gint64 sw_append_tick(SwOverlay *ov, gint64 now);

/* ---- helpers used by several */
void sw_note(SwOverlay *ov, SwNoteLevel level, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* The same, with what is known of the event besides. */
void sw_note_event(SwOverlay *ov, SwNoteLevel level, const SwEvent *event, const char *format, ...) G_GNUC_PRINTF(4, 5);
/* `turn`: sw_pending_turn before it was asked what is staged at the name; 0: what had a stage lately is not to be
 * believed. */
int sw_overlay_lookup_found(SwOverlay *ov, SwNode *parent, const char *name, guint64 turn, SwFile *dir,
                            SwEntry *ret_entry) G_GNUC_WARN_UNUSED_RESULT;
/* The object at a name, with claims taken for what they are: -ENOENT.  *ret_claim (may be NULL) tells. */
int sw_look(SwOverlay *ov, int dirfd, const char *name, SwFound *ret_found,
            char **ret_claim_host) G_GNUC_WARN_UNUSED_RESULT;
/* The same past the caches of a network file system: for what may not be older than this call. */
int sw_look_fresh(SwOverlay *ov, int dirfd, const char *name, SwFound *ret_found) G_GNUC_WARN_UNUSED_RESULT;
/* S held.  What the kernel sent was written, so it asks for size and times when it next needs them. */
void sw_stage_touched(SwStage *stage);
/* S held. */
void sw_stage_set_edit(SwStage *stage, gboolean edit);
/* How long the kernel may believe what it is told of a stage: what is written through its own node it knows. */
gint64 sw_stage_attr_us(SwStage *stage);
int sw_entry_of_stage(SwStage *stage, SwEntry *ret_entry) G_GNUC_WARN_UNUSED_RESULT;
void sw_entry_count(SwOverlay *ov, SwEntry *entry);
/* How long the kernel may believe them. */
gint64 sw_attr_us(SwOverlay *ov, const struct stat *st, gboolean hot);
/* To be called with every set of attributes that goes to the kernel, and in a LOOKUP sw_node_end_doubt after it, before
 * they go. */
gint64 sw_node_tell_locked(SwOverlay *ov, SwNode *node, const struct stat *st, gint64 attr_us);
/* May the caller put another file in the place of the one that is there (C17)? */
int sw_can_replace(SwOverlay *ov, const SwCred *cred, int dirfd, const struct stat *target,
                   gboolean *ret_can) G_GNUC_WARN_UNUSED_RESULT;
SwHandle *sw_handle_new(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwHandleKind kind, int flags, SwFile *file,
                        const SwIdentity *id);
/* Tells an APPEND handle by which name it was opened, and how many its file has. */
void sw_handle_opened_as(SwOverlay *ov, SwHandle *handle, SwNode *parent, const char *name, nlink_t links);
/* Joins the stage, which was awaiting that.  `node` is the stage's own, but for a magic link. */
SwHandle *sw_handle_new_staged(SwOverlay *ov, const SwCaller *caller, SwNode *node, SwStage *stage, int flags);
gboolean sw_writes(int flags);
/* The mode for a create in that directory: the source applies a default ACL by itself; without one the umask is ours to
 * apply. */
mode_t sw_masked(SwOverlay *ov, const SwCaller *caller, int dirfd, mode_t mode);
/* Runs the proof for a quiet stage at the name, so that what was closed is seen (C2). */
void sw_settle_name(SwOverlay *ov, SwNode *parent, const char *name);

#endif
