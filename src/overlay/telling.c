/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the mount tells safewritectl of itself, as extended attributes of its root that are not on the source, for root
 * and the mount's user: what programs lock through it (K7), what it has counted, what is being written, and
 * whether the kernel reads by itself.
 */
#include "../core/lock_line.h"
#include "../core/stage_line.h"
#include "internal.h"

#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <unistd.h>

static guint count_stages(SwOverlay *ov)
{
    g_autoptr(GPtrArray) stages = sw_pending_stages_below(ov, NULL);
    return stages->len;
}

static char *metrics_text(SwOverlay *ov)
{
    SwMetrics *metrics = ov->port->metrics;
    if (!metrics)
        return g_strdup("");
    sw_metrics_set(metrics, SW_COUNT_STAGES, count_stages(ov));
    sw_mutex_lock(&ov->lock);
    guint nodes = g_hash_table_size(ov->nodes) + g_hash_table_size(ov->strays);
    sw_mutex_unlock(&ov->lock);
    sw_metrics_set(metrics, SW_COUNT_NODES, nodes);
    sw_metrics_set(metrics, SW_COUNT_UPTIME, (guint64)(ov->port->now_us(ov->port) - ov->began_us));
    return sw_metrics_text(metrics, SW_VERSION, sw_control_host_id(ov->control));
}

/* ---- stages */

/* S held.  Sizes are those of the stage file, which nobody else writes. */
static void describe(SwOverlay *ov, SwStage *stage, gint64 now_us, SwStageLine *line)
{
    struct stat st;
    pid_t pid = stage->trial.writer ? stage->trial.writer : stage->trial.opener;
    char comm[64] = "";
    if (pid)
        ov->port->comm(ov->port, pid, comm, sizeof comm);
    if (stage->materialised) {
        line->stage = g_strdup_printf("%u/%s", stage->worker, stage->stage_name);
        if (ov->port->statat(ov->port, stage->file->fd, "", &st) == 0)
            line->bytes = (guint64)MAX(st.st_size, 0);
    }
    line->synced = stage->synced;
    line->pid = pid;
    line->command = g_strdup(comm);
    line->idle_us = MIN(line->age_us, now_us - stage->last_write_us);
    sw_mutex_lock(&ov->lock);
    line->state = stage->everyone                     ? SW_STAGE_LINE_PRIVATE
                  : stage->quiet || !stage->n_writers ? SW_STAGE_LINE_CLOSED
                                                      : SW_STAGE_LINE_WRITING;
    sw_mutex_unlock(&ov->lock);
}

/* Whoever has the stage may wait for long, and who asks is not to wait for that. */
static void add_stage(SwOverlay *ov, SwStage *stage, gint64 now_us, GString *text)
{
    g_auto(SwStageLine) line = {.state = SW_STAGE_LINE_BUSY, .age_us = MAX(now_us - stage->opened_us, 0)};
    if (sw_mutex_trylock(&stage->lock)) {
        gboolean is_open = stage->state == SW_STAGE_OPEN;
        if (is_open)
            describe(ov, stage, now_us, &line);
        sw_mutex_unlock(&stage->lock);
        if (!is_open)
            return;
    }
    sw_mutex_lock(&ov->lock);
    line.path = sw_node_path_locked(stage->parent, stage->name ? stage->name : "");
    sw_mutex_unlock(&ov->lock);
    if (!line.stage)
        line.stage = g_strdup("-");
    if (!line.command)
        line.command = g_strdup("");
    g_autofree char *shown = sw_stage_line_format(&line);
    g_string_append_printf(text, "%s\n", shown);
}

/* Those that do not fit are left out, whole. */
static char *stages_text(SwOverlay *ov)
{
    GString *text = g_string_new(sw_control_host_id(ov->control));
    g_string_append_c(text, '\n');
    gint64 now_us = ov->port->now_us(ov->port);
    g_autoptr(GPtrArray) stages = sw_pending_stages_below(ov, NULL);
    for (guint i = 0; i < stages->len; i++) {
        gsize before = text->len;
        add_stage(ov, stages->pdata[i], now_us, text);
        if (text->len > XATTR_SIZE_MAX)
            g_string_truncate(text, before);
    }
    return g_string_free(text, FALSE);
}

static char *uring_text(SwOverlay *ov)
{
    const char *why = g_atomic_pointer_get(&ov->uring_barred);
    return why ? g_strdup_printf("not used: %s", why) : g_strdup("used");
}

const char *sw_overlay_bars_uring(SwOverlay *ov)
{
    return sw_config_of(ov)->uring == SW_URING_OFF ? "io-uring=off" : NULL;
}

void sw_overlay_tell_uring(SwOverlay *ov, const char *why_not)
{
    g_atomic_pointer_set(&ov->uring_barred, why_not);
}

/* ---- asking */

typedef char *(*Text)(SwOverlay *ov);

/* NULL: no attribute of ours. */
static Text text_of(const char *key)
{
    static const struct {
        const char *key;
        Text text;
    } told[] = {
        {SW_LOCKS_XATTR, sw_file_locks_text},    {SW_METRICS_XATTR, metrics_text}, {SW_STAGES_XATTR, stages_text},
        {SW_PASSTHROUGH_XATTR, sw_backing_text}, {SW_URING_XATTR, uring_text},
    };
    for (guint i = 0; i < G_N_ELEMENTS(told); i++)
        if (strcmp(key, told[i].key) == 0)
            return told[i].text;
    return NULL;
}

gboolean sw_is_told(SwOverlay *ov, const SwNode *node, const char *key)
{
    return node == ov->root && text_of(key);
}

ssize_t sw_tell(SwOverlay *ov, const SwCaller *caller, const char *key, void *buf, size_t size)
{
    if (caller->cred.uid != 0 && caller->cred.uid != geteuid())
        return -ENODATA;
    ov->port->become(ov->port, NULL);
    g_autofree char *text = text_of(key)(ov);
    size_t length = MIN(strlen(text), XATTR_SIZE_MAX);
    if (size && length > size)
        return -ERANGE;
    memcpy(buf, text, size ? length : 0);
    return (ssize_t)length;
}
