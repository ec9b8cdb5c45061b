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
#include <signal.h>

/* Beyond so many processes it is cheaper, and as true, to wait for the RELEASE. */
#define SUSPECTS_MAX 100

typedef enum {
    ROLE_KIN,    /* opened it, wrote it, or closes it now */
    ROLE_PARENT, /* of one of those: may have been handed a copy, and may be init with its thousand descriptors */
    ROLE_OTHER,  /* their children, and who was made since */
} Role;

typedef struct {
    pid_t pids[SUSPECTS_MAX];
    Role roles[SUSPECTS_MAX];
    guint n, n_weighed;
    pid_t upto; /* whoever was made since the opening, up to this one, is among them */
    gboolean overflow, unknown;
} Suspects;

static void suspect(Suspects *suspects, pid_t pid, Role role)
{
    if (pid <= 0)
        return;
    for (guint i = 0; i < suspects->n; i++)
        if (suspects->pids[i] == pid)
            return;
    if (suspects->n == SUSPECTS_MAX) {
        suspects->overflow = TRUE;
        return;
    }
    suspects->pids[suspects->n] = pid;
    suspects->roles[suspects->n++] = role;
}

static void suspect_family(SwStage *stage, Suspects *suspects)
{
    SwOverlay *ov = stage->overlay;
    sw_mutex_lock(&ov->lock);
    for (guint i = 0; i < stage->family->len; i++) {
        pid_t pid = g_array_index(stage->family, pid_t, i);
        if (pid)
            suspect(suspects, pid, ROLE_KIN);
        else
            suspects->unknown = TRUE; /* opened from a pid namespace that we do not see */
    }
    sw_mutex_unlock(&ov->lock);
    suspect(suspects, stage->trial.writer, ROLE_KIN);
}

/* `closing`: what has just been read of the one who closes. */
static void suspect_relatives(SwPort *port, Suspects *suspects, pid_t pid, const SwProcess *closing)
{
    SwProcess process = *closing;
    pid_t children[SUSPECTS_MAX];
    if (pid == closing->tgid || port->process(port, pid, &process) == 0)
        suspect(suspects, process.ppid, ROLE_PARENT);
    int n = port->children(port, pid, children, G_N_ELEMENTS(children));
    for (int i = 0; i < n; i++)
        suspect(suspects, children[i], ROLE_OTHER);
    if (n == (int)G_N_ELEMENTS(children))
        suspects->overflow = TRUE;
}

/* Who was made since the last time.  FALSE: that cannot be told. */
static gboolean suspect_newcomers(SwPort *port, Suspects *suspects)
{
    pid_t now, pids[SUSPECTS_MAX];
    if (!suspects->upto || port->last_pid(port, &now) < 0)
        return FALSE;
    if (now == suspects->upto)
        return TRUE;
    int n = port->pids_between(port, suspects->upto, now, pids, G_N_ELEMENTS(pids));
    for (int i = 0; i < n; i++)
        suspect(suspects, pids[i], ROLE_OTHER);
    suspects->upto = now;
    return n >= 0;
}

static void identify_flusher(SwStage *stage, pid_t tid, SwFlusher *flusher, SwProcess *ret_process)
{
    SwPort *port = stage->overlay->port;
    *flusher = (SwFlusher){0};
    *ret_process = (SwProcess){0};
    if (tid <= 0 || port->process(port, tid, ret_process) < 0)
        return;
    flusher->pid = ret_process->tgid;
    flusher->exiting = ret_process->exiting;
    int status;
    if (ret_process->exiting && port->exit_status(port, tid, &status) == 0)
        flusher->signal = status & 0x7f;
}

void sw_evidence_opener(SwStage *stage, SwFlusher *ret_opener)
{
    SwPort *port = stage->overlay->port;
    SwProcess process;
    pid_t pid = stage->trial.opener;
    *ret_opener = (SwFlusher){0};
    if (stage->trial.ever_flushed || stage->trial.has_bytes || pid <= 0)
        return;
    int r = port->process(port, pid, &process);
    if (r == -ESRCH || (r == 0 && process.killed))
        *ret_opener = (SwFlusher){.pid = pid, .exiting = TRUE, .signal = SIGKILL};
    else
        identify_flusher(stage, pid, ret_opener, &process);
}

/* What is asked of each, and what is known so far. */
typedef struct {
    SwStage *stage;
    const SwFlusher *flusher;
    dev_t dev; /* how programs see the stage's file */
    ino_t ino;
    int inherited_fd; /* -1: none yet */
    SwEvidence *evidence;
} Weighing;

static void weigh_descriptors(Weighing *weighing, pid_t pid, Role role)
{
    const SwTrial *trial = &weighing->stage->trial;
    SwEvidence *evidence = weighing->evidence;
    SwPort *port = weighing->stage->overlay->port;
    SwHoldings holdings;
    if (port->holdings(port, pid, weighing->dev, weighing->ino, &holdings) < 0) {
        evidence->complete &= role == ROLE_PARENT;
        return;
    }
    evidence->complete &= holdings.complete || role == ROLE_PARENT;
    evidence->in_flight |= holdings.queued || (role == ROLE_KIN && (holdings.unix_sockets || holdings.uring));
    if (!holdings.n_writers)
        return;
    evidence->n_holders++;
    gboolean same_number = weighing->inherited_fd < 0 || weighing->inherited_fd == holdings.only_fd;
    if (holdings.only_fd >= 3 && same_number && pid != trial->opener && pid != trial->writer) {
        weighing->inherited_fd = holdings.only_fd;
        evidence->n_inherited++;
    }
}

/* munmap(2) takes a mapping out of sight before its pages are written.  So what was once seen mapped waits for its
 * RELEASE. */
static void weigh_mappings(Weighing *weighing, pid_t pid, Role role)
{
    SwStage *stage = weighing->stage;
    SwPort *port = stage->overlay->port;
    if (!stage->read_write || stage->was_mapped || (pid == weighing->flusher->pid && weighing->flusher->exiting))
        return;
    int r = port->mapped(port, pid, weighing->dev, weighing->ino);
    stage->was_mapped = r > 0;
    if (r < 0 && r != -ESRCH && r != -ENOENT && role == ROLE_KIN)
        weighing->evidence->complete = FALSE;
}

/*
 * First the family, then who was made since the opening.  A descriptor may be handed on while we look: its holder forks
 * when the others have been found already, and closes its own before it is looked at.  So whoever was made meanwhile is
 * looked at too, until nobody was.
 */
static void weigh_all(Weighing *weighing, Suspects *suspects)
{
    SwEvidence *evidence = weighing->evidence;
    while (evidence->complete && suspects->n_weighed < suspects->n) {
        guint i = suspects->n_weighed++;
        weigh_descriptors(weighing, suspects->pids[i], suspects->roles[i]);
        if (evidence->complete)
            weigh_mappings(weighing, suspects->pids[i], suspects->roles[i]);
        if (!evidence->complete)
            evidence->unsure_of = suspects->pids[i];
        else if (suspects->n_weighed == suspects->n)
            evidence->complete = suspect_newcomers(weighing->stage->overlay->port, suspects) && !suspects->overflow;
    }
}

void sw_evidence_gather(SwStage *stage, pid_t tid, SwFlusher *ret_flusher, SwEvidence *ret_evidence)
{
    SwPort *port = stage->overlay->port;
    SwProcess closing;
    Suspects suspects = {.upto = stage->mark};
    Weighing weighing = {.stage = stage, .flusher = ret_flusher, .inherited_fd = -1, .evidence = ret_evidence};
    weighing.dev = __atomic_load_n(&stage->overlay->device, __ATOMIC_RELAXED);
    /* The stage file may have another number by now: the copy of a base, or of the version it was rebased on. */
    sw_mutex_lock(&stage->overlay->lock);
    weighing.ino = stage->node->told.ino;
    gboolean guests = stage->guests; /* whose descriptors have the number of another node */
    sw_mutex_unlock(&stage->overlay->lock);
    *ret_evidence = (SwEvidence){.complete = tid != 0 && weighing.dev != 0 && weighing.ino != 0 && !guests};
    identify_flusher(stage, tid, ret_flusher, &closing);
    if (tid > 0 && !ret_flusher->pid)
        ret_evidence->complete = FALSE;
    suspect(&suspects, ret_flusher->pid, ROLE_KIN);
    suspect_family(stage, &suspects);
    guint n_kin = suspects.n;
    if (n_kin == 0 || suspects.unknown)
        ret_evidence->complete = FALSE;
    for (guint i = 0; i < n_kin; i++)
        suspect_relatives(port, &suspects, suspects.pids[i], &closing);
    if (suspects.overflow)
        ret_evidence->complete = FALSE;
    weigh_all(&weighing, &suspects);
    /* Where a descriptor that was once on its way has got to, nobody can tell later. */
    stage->was_in_flight |= ret_evidence->in_flight;
    ret_evidence->in_flight = stage->was_in_flight;
    /* Only a close(2), which writes the pages of a mapping first, can say that there is none. */
    ret_evidence->mapped = stage->was_mapped || (tid == -1 && stage->read_write);
}
