/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_SENTRY_H
#define SW_FUSE_SENTRY_H

/*
 * Notices that the source does not answer, and that it does again.
 *
 * A call into a file system whose server is away just hangs, that of the keeper's heartbeat as well.  So this is a
 * thread that calls nothing of the source: it looks each second how long ago the last heartbeat got through.  More than
 * half a lease and 10 s, at two looks in a row (a machine that was frozen has a second to catch up), is silence.
 */

#include "../lease/control.h"

typedef struct SwSentry SwSentry;

/* Called by the sentry's thread: `silent` says which of the two, `for_us` how long it has been or was silent. */
typedef void (*SwSentryFunc)(gpointer data, gboolean silent, gint64 for_us);

/* Starts it; NULL when there can be no more threads.  `lease_us` is this host's.  It takes no signals. */
SwSentry *sw_sentry_start(SwPort *port, SwControl *control, gint64 lease_us, SwSentryFunc tell, gpointer data);
/* Ends it, at once; from the return on nothing is told any more.  NULL is allowed. */
void sw_sentry_stop(SwSentry *sentry);

#endif
