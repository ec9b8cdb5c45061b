/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who could still hold a descriptor of a stage (C3)?
 *
 * Looked at are: everybody who opened it, the closing process, the parents and children of these, and every process
 * made since it was opened.  A descriptor gets anywhere else only through a UNIX socket or an io_uring, and holding one
 * of those makes the evidence incomplete.
 */
#include "internal.h"

#include <errno.h>

/* Beyond so many processes it is cheaper, and as true, to wait for the RELEASE. */
#define SUSPECTS_MAX 100

typedef struct {
    pid_t pids[SUSPECTS_MAX];
    guint n, n_close; /* the first n_close are openers and the flusher */
    gboolean overflow, unknown;
} Suspects;

static void suspect(Suspects *suspects, pid_t pid)
{
    if (pid <= 0)
        return;
    for (guint i = 0; i < suspects->n; i++)
        if (suspects->pids[i] == pid)
            return;
    if (suspects->n == SUSPECTS_MAX)
        suspects->overflow = TRUE;
    else
        suspects->pids[suspects->n++] = pid;
}

static void suspect_family(SwStage *stage, Suspects *suspects)
{
    SwOverlay *ov = stage->overlay;
    sw_mutex_lock(&ov->lock);
    for (guint i = 0; i < stage->family->len; i++) {
        pid_t pid = g_array_index(stage->family, pid_t, i);
        if (pid)
            suspect(suspects, pid);
        else
            suspects->unknown = TRUE; /* opened from a pid namespace that we do not see */
    }
    sw_mutex_unlock(&ov->lock);
    suspect(suspects, stage->trial.writer);
}

static void suspect_relatives(SwPort *port, Suspects *suspects, pid_t pid)
{
    SwProcess process;
    pid_t children[SUSPECTS_MAX];
    if (port->process(port, pid, &process) == 0)
        suspect(suspects, process.ppid);
    int n = port->children(port, pid, children, G_N_ELEMENTS(children));
    for (int i = 0; i < n; i++)
        suspect(suspects, children[i]);
    if (n == (int)G_N_ELEMENTS(children))
        suspects->overflow = TRUE;
}

static gboolean suspect_newcomers(SwStage *stage, Suspects *suspects)
{
    SwPort *port = stage->overlay->port;
    pid_t now, pids[SUSPECTS_MAX];
    if (!stage->mark || port->last_pid(port, &now) < 0)
        return FALSE;
    if (now == stage->mark)
        return TRUE;
    int n = port->pids_between(port, stage->mark, now, pids, G_N_ELEMENTS(pids));
    for (int i = 0; i < n; i++)
        suspect(suspects, pids[i]);
    return n >= 0;
}

static void identify_flusher(SwStage *stage, pid_t tid, SwFlusher *flusher)
{
    SwPort *port = stage->overlay->port;
    SwProcess process;
    *flusher = (SwFlusher){0};
    if (tid <= 0 || port->process(port, tid, &process) < 0)
        return;
    flusher->pid = process.tgid;
    flusher->exiting = process.exiting;
    int status;
    if (process.exiting && port->exit_status(port, tid, &status) == 0)
        flusher->signal = status & 0x7f;
}

static void weigh(SwStage *stage, pid_t pid, gboolean close_kin, int *inherited_fd, SwEvidence *evidence)
{
    SwOverlay *ov = stage->overlay;
    SwHoldings holdings;
    struct stat st;
    if (sw_stage_stat(stage, &st) < 0 || ov->port->holdings(ov->port, pid, ov->device, st.st_ino, &holdings) < 0) {
        evidence->complete = FALSE;
        return;
    }
    evidence->complete &= holdings.complete;
    if (close_kin)
        evidence->in_flight |= holdings.unix_sockets || holdings.uring;
    if (!holdings.n_writers)
        return;
    evidence->n_holders++;
    gboolean same_number = *inherited_fd < 0 || *inherited_fd == holdings.only_fd;
    if (holdings.only_fd >= 3 && same_number && pid != stage->trial.opener && pid != stage->trial.writer) {
        *inherited_fd = holdings.only_fd;
        evidence->n_inherited++;
    }
}

static gboolean any_mapping(SwStage *stage, const Suspects *suspects, const SwFlusher *flusher)
{
    SwOverlay *ov = stage->overlay;
    struct stat st;
    if (!stage->read_write)
        return FALSE;
    if (sw_stage_stat(stage, &st) < 0)
        return TRUE;
    for (guint i = 0; i < suspects->n; i++) {
        if (suspects->pids[i] == flusher->pid && flusher->exiting)
            continue;
        int r = ov->port->mapped(ov->port, suspects->pids[i], ov->device, st.st_ino);
        if (r != 0 && r != -ESRCH && r != -ENOENT && !(i >= suspects->n_close && r < 0))
            return TRUE;
    }
    return FALSE;
}

void sw_evidence_gather(SwStage *stage, pid_t tid, SwFlusher *ret_flusher, SwEvidence *ret_evidence)
{
    SwPort *port = stage->overlay->port;
    Suspects suspects = {.n = 0};
    int inherited_fd = -1;
    *ret_evidence = (SwEvidence){.complete = tid != 0 && stage->overlay->device != 0};
    identify_flusher(stage, tid, ret_flusher);
    if (tid > 0 && !ret_flusher->pid)
        ret_evidence->complete = FALSE;
    suspect(&suspects, ret_flusher->pid);
    suspect_family(stage, &suspects);
    suspects.n_close = suspects.n;
    if (suspects.n == 0 || suspects.unknown)
        ret_evidence->complete = FALSE;
    for (guint i = 0; i < suspects.n_close; i++)
        suspect_relatives(port, &suspects, suspects.pids[i]);
    if (!suspect_newcomers(stage, &suspects) || suspects.overflow)
        ret_evidence->complete = FALSE;
    for (guint i = 0; i < suspects.n && ret_evidence->complete; i++)
        weigh(stage, suspects.pids[i], i < suspects.n_close, &inherited_fd, ret_evidence);
    if (ret_evidence->complete)
        ret_evidence->mapped = any_mapping(stage, &suspects, ret_flusher);
}
