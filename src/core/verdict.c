/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Two questions, asked in this order.  May anybody still write through this stage (then HOLD)?  And if nobody may,
 * what are its bytes worth (settle)?
 *
 *   holders besides the closing one            bytes good   killed or failed
 *   cannot be told, or a mapping lives         HOLD         HOLD
 *   none                                       COMMIT       DISCARD
 *   inherited copies only, stage has bytes     COMMIT       HOLD: a copy may yet write and so make it good
 *   any other                                  HOLD         HOLD
 *
 * A wrong HOLD costs time, for the RELEASE decides after all; a wrong COMMIT makes a second version (C3); a wrong
 * DISCARD would break a program that did nothing wrong.  Hence the order of preference in doubt.
 */

#include "verdict.h"

/* Whose end decides (C4). */
static pid_t last_writer(const SwTrial *trial)
{
    return trial->writer ? trial->writer : trial->opener;
}

/*
 * `pid` changed the bytes.  An unknown one is mostly the kernel writing back somebody's mapping, which tells nothing
 * about who wrote, and nothing against the death of a writer: its own last pages may come so.
 */
static void touched_by(SwTrial *trial, pid_t pid)
{
    trial->dirty = TRUE;
    trial->flushed = FALSE;
    if (pid == 0)
        return;
    if (pid != last_writer(trial))
        trial->killed = FALSE;
    trial->writer = pid;
}

void sw_trial_open(SwTrial *trial, pid_t pid, gboolean makes_dirty)
{
    gboolean joins = trial->opener != 0;

    if (!joins)
        trial->opener = pid;
    trial->flushed = FALSE;
    if (!makes_dirty)
        return;
    /* New or truncated: whatever was wrong with the bytes before is gone with them. */
    if (joins)
        touched_by(trial, pid);
    trial->dirty = TRUE;
    trial->has_bytes = FALSE;
    trial->killed = FALSE;
    trial->failure = 0;
}

void sw_trial_write(SwTrial *trial, pid_t pid, guint64 offset, guint64 length)
{
    if (length == 0)
        return;
    touched_by(trial, pid);
    trial->has_bytes = TRUE;
    if (offset <= trial->failed_at && trial->failed_at - offset < length)
        trial->failure = 0;
}

void sw_trial_write_failed(SwTrial *trial, pid_t pid, guint64 offset, int error)
{
    /* Somebody holds it and tries, but wrote nothing: so the last writer stays who it was. */
    (void)pid;
    trial->flushed = FALSE;
    /* Of several failures the lowest is kept: a truncation below it mends them all, and who repeats it repeats all. */
    if (trial->failure != 0 && trial->failed_at <= offset)
        return;
    trial->failure = ABS(error);
    trial->failed_at = offset;
}

void sw_trial_truncate(SwTrial *trial, pid_t pid, guint64 size)
{
    touched_by(trial, pid);
    if (size <= trial->failed_at)
        trial->failure = 0;
    if (size == 0)
        trial->has_bytes = FALSE;
}

/* Nobody can write any more: what becomes of it? */
static SwVerdict settle(const SwTrial *trial)
{
    if (!trial->dirty)
        return SW_VERDICT_COMMIT;
    if (trial->killed)
        return SW_VERDICT_DISCARD_KILLED;
    if (trial->failure != 0)
        return SW_VERDICT_DISCARD_FAILED;
    return SW_VERDICT_COMMIT;
}

static SwVerdict judge(const SwTrial *trial, const SwEvidence *evidence)
{
    SwVerdict worth = settle(trial);

    if (!evidence->complete || evidence->in_flight || evidence->mapped)
        return SW_VERDICT_HOLD;
    if (evidence->n_holders == 0)
        return worth;
    /* The opener's own copies never count as inherited, so here it has closed; but it has to be known for that. */
    if (evidence->n_inherited == evidence->n_holders && trial->opener != 0 && trial->has_bytes &&
        worth == SW_VERDICT_COMMIT)
        return SW_VERDICT_COMMIT;
    return SW_VERDICT_HOLD;
}

SwVerdict sw_trial_flush(SwTrial *trial, const SwFlusher *flusher, const SwEvidence *evidence)
{
    trial->flushed = trial->ever_flushed = TRUE;
    /* Without a number neither its end nor its other descriptors can be known (F6). */
    if (flusher->pid == 0)
        return SW_VERDICT_HOLD;
    if (flusher->exiting && flusher->signal != 0 && flusher->pid == last_writer(trial))
        trial->killed = TRUE;
    return judge(trial, evidence);
}

SwVerdict sw_trial_ask(const SwTrial *trial, const SwEvidence *evidence)
{
    return trial->flushed ? judge(trial, evidence) : SW_VERDICT_HOLD;
}

SwVerdict sw_trial_last_release(const SwTrial *trial, const SwFlusher *opener)
{
    gboolean killed_in_open = !trial->ever_flushed && !trial->has_bytes && opener->exiting && opener->signal != 0;

    return killed_in_open && trial->dirty ? SW_VERDICT_DISCARD_KILLED : settle(trial);
}
