/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Does a process have a shared mapping of an inode?
 *
 * Opening `maps` of a process that is inside execve(2) blocks until the exec is over, and the exec may be waiting for
 * the very answer we are about to give.  So a detached thread does it, and is left behind at the deadline: it ends when
 * the exec does, and frees what it shares with the one who asked.  On a busy machine a thread that is not blocked can
 * miss any deadline, and the commit would come after close(2) (C3): as long as it only lacks a processor, it is waited
 * for.
 */

#include "proc.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#define NS_PER_S 1000000000L
#define DEADLINE_NS (20L * 1000 * 1000)
#define DEADLINES_MAX 250 /* of a thread that is not blocked: 5 s */
#define READERS_MAX 16    /* threads left behind at once; beyond, "cannot be asked" is the answer */
#define STACK_SIZE (256 * 1024)
#define BUFFER_SIZE (20 * 1024) /* over the longest line, a path of escapes */

typedef struct {
    /* immutable */
    SwProc *proc; /* owned reference */
    pid_t tgid;
    dev_t dev;
    ino_t ino;

    gint tid; /* atomic; the reader's, 0 until it runs */

    /* the reader's; here because a first allocation in a new thread costs it an arena */
    char buf[BUFFER_SIZE];

    /* protected by lock */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    guint refs;
    gboolean done;
    int result;
} Job;

static void job_unref(Job *job)
{
    gboolean last;

    (void)pthread_mutex_lock(&job->lock);
    last = --job->refs == 0;
    (void)pthread_mutex_unlock(&job->lock);
    if (!last)
        return;
    (void)pthread_mutex_destroy(&job->lock);
    (void)pthread_cond_destroy(&job->cond);
    sw_proc_unref(job->proc);
    g_free(job);
}

/* "<from>-<to> rw-s <offset> <major>:<minor> <ino>  <path>"; the kernel escapes line ends in the path. */
static gboolean is_mapping_of(const char *line, dev_t dev, ino_t ino)
{
    const char *permissions = strchr(line, ' ');
    unsigned int found_major, found_minor;
    unsigned long long found_ino;

    if (!permissions || strlen(permissions) < 6 || permissions[4] != 's')
        return FALSE; /* stores into private mappings never reach the file */
    if (sscanf(permissions + 6, "%*x %x:%x %llu", &found_major, &found_minor, &found_ino) != 3)
        return FALSE;
    return found_ino == ino && found_major == major(dev) && found_minor == minor(dev);
}

/* Looks at all whole lines in the buffer; returns how many bytes those were, or -1 when a mapping was found. */
static ssize_t look_at_lines(Job *job, gsize size)
{
    char *buf = job->buf;
    gsize at = 0;

    for (;;) {
        char *end = memchr(buf + at, '\n', size - at);

        if (!end)
            return (ssize_t)at;
        *end = '\0';
        if (is_mapping_of(buf + at, job->dev, job->ino))
            return -1;
        at = end - buf + 1;
    }
}

/* 1, 0 or -errno as the member; *ret_any tells whether there was anything to read. */
static int look_at_file(Job *job, int fd, gboolean *ret_any)
{
    char *buf = job->buf;
    gsize kept = 0;

    for (;;) {
        ssize_t used, got = TEMP_FAILURE_RETRY(read(fd, buf + kept, BUFFER_SIZE - kept));

        if (got <= 0)
            return got < 0 ? -errno : 0;
        *ret_any = TRUE;
        used = look_at_lines(job, kept + got);
        if (used < 0)
            return 1;
        kept = kept + got - used;
        if (kept == BUFFER_SIZE)
            return -EBADMSG; /* no line is that long */
        memmove(buf, buf + used, kept);
    }
}

static int look_at_base(Job *job, const char *base, gboolean *ret_any)
{
    char path[SW_PROC_BASE_SIZE + 8];
    sw_autofd int fd = -1;

    (void)snprintf(path, sizeof path, "%s/maps", base);
    fd = openat(job->proc->fd, path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : look_at_file(job, fd, ret_any);
}

static int look_at_process(Job *job)
{
    char base[SW_PROC_BASE_SIZE];
    gboolean any = FALSE;
    int r;

    sw_proc_base(base, job->tgid);
    r = look_at_base(job, base, &any);
    /* Nothing there: exiting, or only the first thread has ended. */
    if (r == 0 && !any) {
        pid_t tid = sw_proc_live_thread(job->proc, job->tgid);

        if (tid > 0 && tid != job->tgid) {
            sw_proc_thread_base(base, job->tgid, tid);
            r = look_at_base(job, base, &any);
        }
    }
    if (r >= 0)
        return r;
    r = sw_proc_error(job->tgid, r);
    return r == -ESRCH ? 0 : r; /* the gone map nothing */
}

static void *reader(void *data)
{
    Job *job = data;
    SwCredSaved ignored;
    /* A new thread acts as its creator did at that moment, perhaps as one who may not look. */
    int r = sw_cred_suspend(&ignored);

    g_atomic_int_set(&job->tid, gettid());
    if (r == 0)
        r = look_at_process(job);
    g_atomic_int_add(&job->proc->n_map_readers, -1);
    (void)pthread_mutex_lock(&job->lock);
    job->result = r;
    job->done = TRUE;
    (void)pthread_cond_signal(&job->cond);
    (void)pthread_mutex_unlock(&job->lock);
    job_unref(job);
    return NULL;
}

/* Detached, on a small stack, with all signals blocked: they are for the daemon's main thread. */
static int start_reader(Job *job)
{
    pthread_attr_t attr;
    sigset_t all, before;
    pthread_t thread;
    int r;

    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, STACK_SIZE);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attr, reader, job);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attr);
    return -r;
}

/* Does the reader wait for a processor, and for nothing else? */
static gboolean is_runnable(const Job *job)
{
    char path[64], text[128] = "";
    const char *state;
    pid_t tid = g_atomic_int_get(&job->tid);
    sw_autofd int fd = -1;

    if (!tid)
        return TRUE;
    (void)snprintf(path, sizeof path, "self/task/%d/stat", tid);
    fd = openat(job->proc->fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return FALSE;
    state = strrchr(text, ')');
    return state && strncmp(state, ") R", 3) == 0;
}

static int await(Job *job)
{
    struct timespec until;
    int r = 0;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    (void)pthread_mutex_lock(&job->lock);
    for (guint tries = 0; !job->done && tries < DEADLINES_MAX && (!tries || is_runnable(job)); tries++) {
        until.tv_nsec += DEADLINE_NS;
        if (until.tv_nsec >= NS_PER_S) {
            until.tv_nsec -= NS_PER_S;
            until.tv_sec++;
        }
        for (r = 0; !job->done && r == 0;)
            r = pthread_cond_clockwait(&job->cond, &job->lock, CLOCK_MONOTONIC, &until);
    }
    r = job->done ? job->result : -ETIMEDOUT;
    (void)pthread_mutex_unlock(&job->lock);
    return r;
}

static Job *job_new(SwPort *port, pid_t tgid, dev_t dev, ino_t ino)
{
    Job *job = g_new0(Job, 1);

    (void)pthread_mutex_init(&job->lock, NULL);
    (void)pthread_cond_init(&job->cond, NULL);
    job->proc = sw_proc_ref(sw_posix_proc(port));
    job->tgid = tgid;
    job->dev = dev;
    job->ino = ino;
    job->refs = 2; /* the asker's and the reader's */
    return job;
}

static int ask_reader(SwPort *port, pid_t tgid, dev_t dev, ino_t ino)
{
    SwProc *proc = sw_posix_proc(port);
    Job *job;
    int r;

    if (g_atomic_int_add(&proc->n_map_readers, 1) >= READERS_MAX) {
        g_atomic_int_add(&proc->n_map_readers, -1);
        return -ETIMEDOUT;
    }
    job = job_new(port, tgid, dev, ino);
    r = start_reader(job);
    if (r < 0) {
        g_atomic_int_add(&proc->n_map_readers, -1);
        job_unref(job);
    } else {
        r = await(job);
    }
    job_unref(job);
    return r;
}

int sw_proc_mapped(SwPort *port, pid_t tgid, dev_t dev, ino_t ino)
{
    SwProc *proc = sw_posix_proc(port);
    SwProcMemory memory;
    int r;

    if (proc->fd < 0)
        return -EOPNOTSUPP;
    if (tgid <= 0)
        return -EINVAL;
    r = sw_proc_memory(proc->fd, tgid, &memory);
    if (r < 0) {
        r = sw_proc_error(tgid, r);
        return r == -ESRCH ? 0 : r; /* the gone map nothing */
    }
    /* Inside execve, where most closes that could block us happen: nothing is mapped that was mapped before. */
    return memory == SW_PROC_NEW_MEMORY ? 0 : ask_reader(port, tgid, dev, ino);
}
