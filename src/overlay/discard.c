/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a stage would go, and what becomes of one that does not go there: salvage, or nothing.
 */
#include "internal.h"

#include <errno.h>
#include <string.h>

void sw_target_clear(SwStage *stage, SwTarget *target)
{
    sw_node_unref(stage->overlay, target->parent);
    sw_file_unref(target->dir);
    g_free(target->name);
}

int sw_target_find(SwStage *stage, SwTarget *target)
{
    SwOverlay *ov = stage->overlay;
    sw_mutex_lock(&ov->lock);
    if (stage->parent) {
        target->parent = stage->parent;
        sw_node_ref_locked(target->parent);
        target->name = g_strdup(stage->name);
    }
    sw_mutex_unlock(&ov->lock);
    if (!target->parent)
        return -ENOENT;
    ov->port->become(ov->port, &stage->cred);
    int r = sw_node_dir(ov, target->parent, &target->dir);
    return r == -ESTALE ? -ENOENT : r;
}

/* What the stage holds, as salvage tells it; `comm` (of 64 bytes) keeps the command. */
static SwSalvageInfo describe(SwStage *stage, const char *reason, char *comm, char **path)
{
    SwOverlay *ov = stage->overlay;
    pid_t pid = stage->trial.writer ? stage->trial.writer : stage->trial.opener;
    *comm = '\0';
    if (pid)
        ov->port->comm(ov->port, pid, comm, 64);
    sw_mutex_lock(&ov->lock);
    *path = sw_node_path_locked(stage->parent, stage->name ? stage->name : "");
    sw_mutex_unlock(&ov->lock);
    return (SwSalvageInfo){
        .path = *path, .reason = (char *)reason, .command = comm, .pid = pid, .synced = stage->synced};
}

void sw_stage_describe(SwStage *stage)
{
    SwOverlay *ov = stage->overlay;
    g_autofree char *path = NULL;
    char comm[64];
    SwSalvageInfo info = describe(stage, "crashed", comm, &path);
    info.host_id = (char *)sw_epoch_host_id(stage->epoch);
    int r = sw_control_describe(ov->control, stage->epoch, stage->worker, stage->stage_name, &info, &stage->cred);
    ov->port->become(ov->port, &stage->cred);
    stage->described = r == 0;
    if (r < 0)
        sw_note(ov, SW_NOTE_INFO, "%s: synced, but not noted where it belongs: %s", path, g_strerror(-r));
}

void sw_stage_forget_description(SwStage *stage)
{
    SwOverlay *ov = stage->overlay;
    if (stage->described)
        sw_control_forget_description(ov->control, stage->epoch, stage->worker, stage->stage_name, &stage->cred);
    stage->described = FALSE;
    ov->port->become(ov->port, &stage->cred);
}

/* Only breakers take anything out of another's stage directory; our own epoch lasts until they have begun. */
static gboolean is_taken(SwStage *stage, gboolean look)
{
    SwPort *port = stage->overlay->port;
    if (stage->epoch != sw_control_epoch(stage->overlay->control))
        return TRUE;
    struct stat st;
    int r = look ? port->statat(port, sw_stage_dir(stage), stage->stage_name, &st) : 0;
    return r == -ENOENT || r == -ESTALE;
}

static void tell_kept(SwOverlay *ov, const SwSalvageInfo *info, const char *reason)
{
    gboolean killed = strcmp(reason, "killed") == 0;
    SwEvent event = {.kind = killed ? SW_EVENT_WRITER_KILLED : SW_EVENT_SALVAGED,
                     .path = info->path,
                     .command = info->command,
                     .reason = reason,
                     .pid = info->pid};
    sw_note_event(ov, SW_NOTE_INFO, &event, "%s: not committed (%s), what %s (pid %d) wrote is in salvage", info->path,
                  reason, info->command, (int)info->pid);
}

static void tell_lost(SwOverlay *ov, const SwSalvageInfo *info, int error)
{
    SwEvent event = {.kind = SW_EVENT_SALVAGE_FAILED,
                     .path = info->path,
                     .command = info->command,
                     .reason = info->reason,
                     .pid = info->pid};
    sw_note_event(ov, SW_NOTE_WARNING, &event, "%s: what %s (pid %d) wrote could not be moved to salvage: %s",
                  info->path, info->command, (int)info->pid, g_strerror(error));
}

static void put_aside(SwStage *stage, const char *reason)
{
    SwOverlay *ov = stage->overlay;
    g_autofree char *path = NULL;
    char comm[64];
    SwSalvageInfo info = describe(stage, reason, comm, &path);
    int r = sw_control_salvage(ov->control, stage->epoch, stage->worker, stage->stage_name, &info, &stage->cred);
    ov->port->become(ov->port, &stage->cred);
    stage->described = FALSE;
    if ((r == -ENOENT || r == -ESTALE) && is_taken(stage, TRUE)) {
        reason = "fenced"; /* and put there by who took us for dead */
        r = 0;
    }
    sw_count(ov->port, r < 0 ? SW_COUNT_SALVAGE_FAILED : SW_COUNT_SALVAGED, 1);
    if (r < 0)
        tell_lost(ov, &info, -r);
    else
        tell_kept(ov, &info, reason);
}

static void drop_claim(SwStage *stage)
{
    SwTarget target = {0};
    if (sw_target_find(stage, &target) == 0)
        sw_ignore(sw_control_drop_claim(stage->overlay->control, target.dir->fd, target.name, TRUE, &stage->cred));
    stage->claimed = FALSE;
    sw_target_clear(stage, &target);
}

/* Returns the node's reference, to be dropped without the overlay's lock. */
static SwStage *end_locked(SwStage *stage, int gone_error)
{
    stage->gone_error = gone_error;
    stage->state = SW_STAGE_GONE;
    stage->everyone = stage->quiet = FALSE;
    sw_pending_remove_locked(stage->overlay, stage);
    return g_steal_pointer(&stage->node->stage);
}

static void end(SwStage *stage, int gone_error)
{
    SwOverlay *ov = stage->overlay;
    sw_mutex_lock(&ov->lock);
    SwStage *was = end_locked(stage, gone_error);
    sw_mutex_unlock(&ov->lock);
    sw_stage_unref(was);
}

/* The claim binds nobody any more, and goes with the next one who wants the name; the note is the breaker's. */
gboolean sw_stage_end_if_taken(SwStage *stage, gboolean look)
{
    SwOverlay *ov = stage->overlay;
    if (stage->state != SW_STAGE_OPEN || !stage->materialised || !is_taken(stage, look))
        return FALSE;
    g_autofree char *path = NULL;
    char comm[64];
    SwSalvageInfo info = describe(stage, "fenced", comm, &path);
    stage->claimed = stage->described = FALSE;
    tell_kept(ov, &info, info.reason);
    sw_count(ov->port, SW_COUNT_DISCARDS_FENCED, 1);
    end(stage, ESTALE);
    return TRUE;
}

static void drop_content(SwStage *stage, const char *reason)
{
    SwOverlay *ov = stage->overlay;
    ov->port->become(ov->port, &stage->cred);
    if (stage->materialised && reason && (stage->trial.has_bytes || stage->synced))
        put_aside(stage, reason);
    else if (stage->materialised)
        ov->port->unlinkat(ov->port, sw_stage_dir(stage), stage->stage_name, 0);
    sw_stage_forget_description(stage);
    if (stage->claimed)
        drop_claim(stage);
}

/* Without a reason nothing is kept, whatever was the matter. */
static SwCount count_of(const SwStage *stage, const char *reason, int gone_error)
{
    static const struct {
        const char *reason;
        SwCount count;
    } counts[] = {{"killed", SW_COUNT_DISCARDS_KILLED},
                  {"failed", SW_COUNT_DISCARDS_FAILED},
                  {"removed", SW_COUNT_DISCARDS_REMOVED},
                  {"unmounted", SW_COUNT_DISCARDS_UNMOUNTED}};

    for (guint i = 0; reason && i < G_N_ELEMENTS(counts); i++)
        if (strcmp(reason, counts[i].reason) == 0)
            return counts[i].count;
    if (!stage->parent || gone_error == ENOENT)
        return SW_COUNT_DISCARDS_NAMELESS;
    return gone_error == ESTALE ? SW_COUNT_DISCARDS_SUPERSEDED : SW_COUNT_DISCARDS_FAILED;
}

void sw_stage_discard(SwStage *stage, const char *reason, int gone_error)
{
    if (stage->state != SW_STAGE_OPEN || sw_stage_end_if_taken(stage, FALSE))
        return;
    sw_count(stage->overlay->port, count_of(stage, reason, gone_error), 1);
    drop_content(stage, reason);
    end(stage, gone_error);
}

/* Looking whether anybody comes and ending it are one step: whoever comes later finds that it has ended. */
void sw_stage_discard_unwanted(SwStage *stage)
{
    SwOverlay *ov = stage->overlay;
    if (stage->state != SW_STAGE_OPEN || sw_stage_end_if_taken(stage, FALSE))
        return;
    sw_mutex_lock(&ov->lock);
    gboolean unwanted = !stage->n_writers && !stage->n_coming && !stage->everyone;
    SwStage *was = unwanted ? end_locked(stage, ENOENT) : NULL;
    sw_mutex_unlock(&ov->lock);
    sw_count(ov->port, SW_COUNT_DISCARDS_UNWRITTEN, unwanted);
    if (unwanted)
        drop_content(stage, NULL);
    sw_stage_unref(was);
}
