/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_VERDICT_H
#define SW_VERDICT_H

/*
 * The close verdict: may this stage be committed now (C3), must it be thrown away (C4), or is it too early to say?
 *
 * Pure: events and evidence in, a verdict out.  The caller gathers evidence from /proc at FLUSH (close(2) waits for
 * it), and again whenever somebody asks for a name whose holders have all flushed.  RELEASE needs no evidence: the
 * kernel says itself that the last reference is gone.
 *
 *   event                         verdict
 *   FLUSH, evidence incomplete    HOLD      (the RELEASE will decide)
 *   FLUSH, other writers hold it  HOLD
 *   FLUSH, only inherited copies  COMMIT    if the stage has bytes and the opener has closed (C3), else HOLD
 *   FLUSH, sole holder            COMMIT or DISCARD
 *   last RELEASE                  COMMIT or DISCARD
 *
 * DISCARD instead of COMMIT: the process that wrote last (before any write: the one that opened) was ended by a signal
 * while it held the handle, or a write failed and was not made good.
 */

#include <glib.h>
#include <sys/types.h>

typedef enum {
    SW_VERDICT_HOLD,
    SW_VERDICT_COMMIT,
    SW_VERDICT_DISCARD_KILLED,
    SW_VERDICT_DISCARD_FAILED, /* report the error of the failed write */
} SwVerdict;

/* What /proc told about everybody who could hold a descriptor, the closing one excepted. */
typedef struct {
    gboolean complete;  /* everyone concerned could be looked at */
    gboolean in_flight; /* UNIX sockets or an io_uring may carry references */
    gboolean mapped;    /* a mapping lives, or could not be excluded */
    guint n_holders;    /* processes that hold a descriptor open for writing */
    guint n_inherited;  /* of those: exactly one descriptor, all at the same number >= 3, never wrote, not the opener */
    pid_t unsure_of;    /* for the log: who could not be looked at, 0 = it was not one process */
} SwEvidence;

/* Who ended how: taken from the flusher at FLUSH. */
typedef struct {
    pid_t pid;        /* thread group; 0 unknown (other pid namespace) */
    gboolean exiting; /* past its last instruction */
    int signal;       /* the signal that ended it, 0 = exited by itself; meaningful when exiting */
} SwFlusher;

/* The life of one stage as far as the verdict needs it.  Plain value; {0} then sw_trial_open. */
typedef struct {
    pid_t opener;       /* who opened first; stands for the writer until somebody writes */
    pid_t writer;       /* who wrote last; 0 = nobody known */
    gboolean dirty;     /* new, truncated or written: there is something to commit */
    gboolean has_bytes; /* something was written */
    gboolean killed;    /* the last writer was ended by a signal while it held the handle */
    gboolean flushed;   /* some FLUSH came since the last open or write */
    gboolean ever_flushed;
    int failure;       /* errno of a write that failed and was not made good, else 0 */
    guint64 failed_at; /* its offset */
} SwTrial;

void sw_trial_open(SwTrial *trial, pid_t pid, gboolean makes_dirty);
/* `pid` 0: unknown (a mapping written back, another pid namespace).  A success that covers `failed_at` makes good. */
void sw_trial_write(SwTrial *trial, pid_t pid, guint64 offset, guint64 length);
void sw_trial_write_failed(SwTrial *trial, pid_t pid, guint64 offset, int error);
void sw_trial_truncate(SwTrial *trial, pid_t pid, guint64 size);

SwVerdict sw_trial_flush(SwTrial *trial, const SwFlusher *flusher, const SwEvidence *evidence);
/* Somebody asks for the name: `evidence` as at a FLUSH.  HOLD unless every holder has flushed. */
SwVerdict sw_trial_ask(const SwTrial *trial, const SwEvidence *evidence);
/* `opener`: how it fares.  Killed, and no FLUSH ever came: it died inside open(2), without a descriptor. */
SwVerdict sw_trial_last_release(const SwTrial *trial, const SwFlusher *opener);

#endif
