/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "served.h"

#include "../core/base.h"

#include <linux/fuse.h>

/* Most that are interrupted are answered sooner by themselves. */
#define PATIENCE_US (200 * G_TIME_SPAN_MILLISECOND)

struct SwServing {
    SwPort *port;
    SwServedTrace trace; /* immutable once there are requests */
    SwMutex lock;
    GQueue all; /* of SwServed */
    guint n_interrupted;
};

/* What this thread serves. */
static __thread SwServed *current;
static __thread const void *current_message;
static __thread gsize current_size;

SwServing *sw_serving_new(SwPort *port)
{
    SwServing *serving = g_new0(SwServing, 1);

    serving->port = port;
    sw_mutex_init(&serving->lock);
    g_queue_init(&serving->all);
    return serving;
}

void sw_serving_free(SwServing *serving)
{
    if (!serving)
        return;
    sw_mutex_clear(&serving->lock);
    g_free(serving);
}

void sw_serving_trace(SwServing *serving, const SwServedTrace *trace)
{
    serving->trace = *trace;
}

static void interrupt(SwServing *serving, guint64 unique)
{
    SW_HOLD(&serving->lock);

    /* It may go on elsewhere, and be there twice for a moment. */
    for (GList *at = serving->all.head; at; at = at->next) {
        SwServed *served = at->data;

        if (served->unique != unique || served->interrupted_us)
            continue;
        served->interrupted_us = serving->port->now_us(serving->port);
        serving->n_interrupted++;
    }
}

static void add_locked(SwServing *serving, SwServed *served)
{
    served->link = (GList){.data = served};
    g_queue_push_head_link(&serving->all, &served->link);
}

const void *sw_served_message(gsize *ret_size)
{
    *ret_size = current_size;
    return current_message;
}

gboolean sw_served_begin(SwServing *serving, SwServed *served, const void *message, gsize size)
{
    const struct fuse_in_header *header = message;
    const struct fuse_interrupt_in *called_off = (const void *)(header + 1);

    if (size < sizeof *header)
        return FALSE;
    if (header->opcode == FUSE_INTERRUPT) {
        if (size >= sizeof *header + sizeof *called_off)
            interrupt(serving, called_off->unique);
        return FALSE;
    }
    *served = (SwServed){.unique = header->unique, .tid = (pid_t)header->pid, .opcode = header->opcode};
    served->began_us = serving->port->now_us(serving->port);
    if (serving->trace.told)
        served->what = serving->trace.describe(serving->trace.data, message, size);
    current = served;
    current_message = message;
    current_size = size;
    SW_HOLD(&serving->lock);
    add_locked(serving, served);
    return TRUE;
}

/* A look-up's timer is 0, and so is what the table does not have. */
static SwTimer timer_of(guint32 opcode)
{
    static const guint8 timers[] = {
        [FUSE_FORGET] = SW_TIMER_FORGET,
        [FUSE_GETATTR] = SW_TIMER_GETATTR,
        [FUSE_SETATTR] = SW_TIMER_SETATTR,
        [FUSE_READLINK] = SW_TIMER_READLINK,
        [FUSE_SYMLINK] = SW_TIMER_SYMLINK,
        [FUSE_MKNOD] = SW_TIMER_MKNOD,
        [FUSE_MKDIR] = SW_TIMER_MKDIR,
        [FUSE_UNLINK] = SW_TIMER_UNLINK,
        [FUSE_RMDIR] = SW_TIMER_RMDIR,
        [FUSE_RENAME] = SW_TIMER_RENAME,
        [FUSE_LINK] = SW_TIMER_LINK,
        [FUSE_OPEN] = SW_TIMER_OPEN,
        [FUSE_READ] = SW_TIMER_READ,
        [FUSE_WRITE] = SW_TIMER_WRITE,
        [FUSE_STATFS] = SW_TIMER_STATFS,
        [FUSE_RELEASE] = SW_TIMER_RELEASE,
        [FUSE_FSYNC] = SW_TIMER_FSYNC,
        [FUSE_SETXATTR] = SW_TIMER_SETXATTR,
        [FUSE_GETXATTR] = SW_TIMER_GETXATTR,
        [FUSE_LISTXATTR] = SW_TIMER_LISTXATTR,
        [FUSE_REMOVEXATTR] = SW_TIMER_REMOVEXATTR,
        [FUSE_FLUSH] = SW_TIMER_FLUSH,
        [FUSE_OPENDIR] = SW_TIMER_OPENDIR,
        [FUSE_READDIR] = SW_TIMER_READDIR,
        [FUSE_RELEASEDIR] = SW_TIMER_RELEASEDIR,
        [FUSE_FSYNCDIR] = SW_TIMER_FSYNCDIR,
        [FUSE_GETLK] = SW_TIMER_LOCK,
        [FUSE_SETLK] = SW_TIMER_LOCK,
        [FUSE_SETLKW] = SW_TIMER_LOCK,
        [FUSE_CREATE] = SW_TIMER_CREATE,
        [FUSE_BATCH_FORGET] = SW_TIMER_FORGET,
        [FUSE_FALLOCATE] = SW_TIMER_FALLOCATE,
        [FUSE_READDIRPLUS] = SW_TIMER_READDIR,
        [FUSE_RENAME2] = SW_TIMER_RENAME,
        [FUSE_LSEEK] = SW_TIMER_LSEEK,
        [FUSE_COPY_FILE_RANGE] = SW_TIMER_COPY_FILE_RANGE,
    };

    if (opcode == FUSE_LOOKUP)
        return SW_TIMER_LOOKUP;
    return opcode < G_N_ELEMENTS(timers) && timers[opcode] ? timers[opcode] : SW_TIMER_OTHER;
}

/* Without the lock: nothing that is counted is behind it. */
static void count(const SwServing *serving, const SwServed *served)
{
    SwPort *port = serving->port;

    if (port->metrics && !served->gone_on)
        sw_metrics_time(port->metrics, timer_of(served->opcode), port->now_us(port) - served->began_us);
    sw_count(port, SW_COUNT_DEFERRED, served->gone_on);
}

static void trace(SwServing *serving, const SwServed *served)
{
    double took_ms = (double)(serving->port->now_us(serving->port) - served->began_us) / 1000;
    char comm[64] = "";
    g_autofree char *text = NULL;

    if (served->tid)
        serving->port->comm(serving->port, served->tid, comm, sizeof comm);
    text = g_strdup_printf("%s: %s, %.1f ms, for %s (%d)", served->what,
                           served->error ? g_strerror(served->error) : "done", took_ms, *comm ? comm : "the kernel",
                           (int)served->tid);
    serving->trace.told(text);
}

void sw_served_end(SwServing *serving, SwServed *served)
{
    count(serving, served);
    if (served->what)
        trace(serving, served);
    g_free(served->what);
    if (current == served) {
        current = NULL;
        current_message = NULL;
    }
    SW_HOLD(&serving->lock);
    g_queue_unlink(&serving->all, &served->link);
    serving->n_interrupted -= served->interrupted_us != 0;
}

void sw_served_go_on(SwServing *serving, SwServed *to)
{
    SW_HOLD(&serving->lock);

    *to = *current;
    current->what = NULL;
    current->gone_on = TRUE;
    serving->n_interrupted += to->interrupted_us != 0;
    add_locked(serving, to);
}

gboolean sw_serving_has(SwServing *serving, pid_t tid)
{
    SW_HOLD(&serving->lock);

    for (GList *at = serving->all.head; at; at = at->next) {
        const SwServed *served = at->data;

        if (served->tid == tid)
            return TRUE;
    }
    return FALSE;
}

void sw_served_resume(SwServed *served)
{
    current = served;
}

gboolean sw_served_failed(int error)
{
    if (current)
        current->error = error;
    return current != NULL;
}

static gboolean may_let_go(const SwServed *served)
{
    return served->opcode != FUSE_FLUSH && served->opcode != FUSE_RELEASE;
}

/* A thread that is not to be seen (another pid namespace) is not known to die. */
static gboolean is_dying(SwPort *port, pid_t tid)
{
    SwProcess process;

    return tid != 0 && port->process(port, tid, &process) == 0 && process.dying;
}

/* One that was interrupted long enough ago.  From here its patience begins anew: a thread may yet be killed. */
static gboolean take_interrupted(SwServing *serving, gint64 now_us, SwServed *ret_served)
{
    SW_HOLD(&serving->lock);

    for (GList *at = serving->n_interrupted ? serving->all.head : NULL; at; at = at->next) {
        SwServed *served = at->data;

        if (!served->interrupted_us || now_us - served->interrupted_us < PATIENCE_US || !may_let_go(served))
            continue;
        served->interrupted_us = now_us;
        *ret_served = *served;
        return TRUE;
    }
    return FALSE;
}

void sw_serving_let_go(SwServing *serving, void (*answer)(gpointer data, guint64 unique), gpointer data)
{
    gint64 now_us = serving->port->now_us(serving->port);
    SwServed served;

    while (take_interrupted(serving, now_us, &served)) {
        if (is_dying(serving->port, served.tid))
            answer(data, served.unique);
    }
}
