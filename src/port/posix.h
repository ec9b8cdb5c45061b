/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_POSIX_H
#define SW_POSIX_H

/*
 * Inside of the real port, private to this directory.  Each `_bind` fills in the members its file implements.
 */

#include "mount.h"
#include "over_open.h"
#include "port.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

/* So many names can be renamed over at once without waiting for each other (nfs.c). */
#define SW_NAME_GUARDS 256

typedef struct SwProc SwProc;

typedef struct {
    SwPort base;
    SwProc *proc;     /* owned reference */
    SwMount mount;    /* of the source, on NFS */
    SwOverOpen *over; /* likewise */
    SwPort uncounted; /* the members as they were before sw_port_posix_count */
    SwPort raw;       /* the members as they were before sw_port_posix_suit */
    pthread_rwlock_t guards[SW_NAME_GUARDS];
} SwPosix;

void sw_files_bind(SwPort *port); /* files.c: opening, names, data */
void sw_attrs_bind(SwPort *port); /* attrs.c: attributes */
void sw_cred_bind(SwPort *port);  /* cred.c: become */
void sw_proc_bind(SwPort *port);  /* proc*.c: processes */
/* What sw_port_posix_suit has made for NFS, if it has. */
void sw_nfs_clear(SwPosix *posix);
/*
 * While the client has a delegation of a file, it believes that its name leads there, whatever is asked of the server
 * (nfs_lookup_revalidate_delegated in fs/nfs/dir.c); and the server does not recall it from the client that replaced
 * the file itself (nfsd_breaker_owns_lease in fs/nfsd/nfs4state.c).  An open for writing gives it back
 * (nfs4_return_incompatible_delegation in fs/nfs/nfs4proc.c), one that the server refuses as well.
 */
void sw_nfs_give_delegation_back(int dirfd, const char *name);

/* Makes the calling thread act as the daemon itself for a while; `saved` remembers what to go back to. */
typedef struct {
    gboolean changed;
    SwCred cred;
} SwCredSaved;

int sw_cred_suspend(SwCredSaved *saved) G_GNUC_WARN_UNUSED_RESULT;
void sw_cred_resume(const SwCredSaved *saved);

static inline SwProc *sw_posix_proc(SwPort *port)
{
    return ((SwPosix *)port)->proc;
}

/* The kernel's -1 and errno as our one value. */
static inline ssize_t sw_result(ssize_t result)
{
    return result < 0 ? -errno : result;
}

static inline void sw_autofd_close(const int *fd)
{
    int error = errno;

    if (*fd >= 0)
        (void)close(*fd);
    errno = error;
}

/* A descriptor that is closed at the end of its scope; -1 for none. */
#define sw_autofd __attribute__((cleanup(sw_autofd_close)))

#endif
