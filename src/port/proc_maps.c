/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Does a process have a shared mapping of an inode?
 *
 * Opening `maps` of a process that is inside execve(2) blocks until the exec is over, and the exec may be waiting for
 * the very answer we are about to give.  So a detached thread does it, a *reader*, and is left behind at the deadline:
 * it goes on when the exec is over, and frees what it shares with the one who asked.  On a busy machine a thread can
 * miss any deadline, and the commit would come after close(2) (C3): as long as it only lacks a processor, it is waited
 * for, and for a while also if it is blocked by something else than an exec: whoever is in its way may lack one.  A few
 * readers that are done stay, parked, for the next who asks: making one costs 20 system calls.
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
#define BLOCKED_MAX 10    /* of one that is: not long, for munmap(2) may wait for us with what it waits for */
#define READERS_MAX 16    /* threads, most of them left behind; beyond, "cannot be asked" is the answer */
#define PARKED_MAX 4
#define STACK_SIZE (256 * 1024)
#define BUFFER_SIZE (20 * 1024) /* over the longest line, a path of escapes */

typedef struct {
    /* immutable */
    pid_t tgid;
    dev_t dev;
    ino_t ino;

    gint tid; /* atomic; the reader's, 0 until it runs */

    /* protected by lock */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    guint refs;
    gboolean done;
    int result;
} Job;

/* Allocated by who makes it, because a first allocation in a new thread costs it an arena. */
typedef struct {
    SwProc *proc; /* owned reference */
    Job *job;     /* counted: the one at hand */
    char buf[BUFFER_SIZE];
} Reader;

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
static ssize_t look_at_lines(Reader *reader, gsize size)
{
    char *buf = reader->buf;
    gsize at = 0;

    for (;;) {
        char *end = memchr(buf + at, '\n', size - at);

        if (!end)
            return (ssize_t)at;
        *end = '\0';
        if (is_mapping_of(buf + at, reader->job->dev, reader->job->ino))
            return -1;
        at = end - buf + 1;
    }
}

/* 1, 0 or -errno as the member; *ret_any tells whether there was anything to read. */
static int look_at_file(Reader *reader, int fd, gboolean *ret_any)
{
    char *buf = reader->buf;
    gsize kept = 0;

    for (;;) {
        ssize_t used, got = TEMP_FAILURE_RETRY(read(fd, buf + kept, BUFFER_SIZE - kept));

        if (got <= 0)
            return got < 0 ? -errno : 0;
        *ret_any = TRUE;
        used = look_at_lines(reader, kept + got);
        if (used < 0)
            return 1;
        kept = kept + got - used;
        if (kept == BUFFER_SIZE)
            return -EBADMSG; /* no line is that long */
        memmove(buf, buf + used, kept);
    }
}

static int look_at_base(Reader *reader, const char *base, gboolean *ret_any)
{
    char path[SW_PROC_BASE_SIZE + 8];
    sw_autofd int fd = -1;

    (void)snprintf(path, sizeof path, "%s/maps", base);
    fd = openat(reader->proc->fd, path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : look_at_file(reader, fd, ret_any);
}

static int look_at_process(Reader *reader)
{
    char base[SW_PROC_BASE_SIZE];
    gboolean any = FALSE;
    int r;

    sw_proc_base(base, reader->job->tgid);
    r = look_at_base(reader, base, &any);
    /* Nothing there: exiting, or only the first thread has ended. */
    if (r == 0 && !any) {
        pid_t tid = sw_proc_live_thread(reader->proc, reader->job->tgid);

        if (tid > 0 && tid != reader->job->tgid) {
            sw_proc_thread_base(base, reader->job->tgid, tid);
            r = look_at_base(reader, base, &any);
        }
    }
    if (r >= 0)
        return r;
    r = sw_proc_error(reader->job->tgid, r);
    return r == -ESRCH ? 0 : r; /* the gone map nothing */
}

static void answer(Reader *reader)
{
    Job *job = reader->job;
    SwCredSaved ignored;
    /* A new thread acts as its creator did at that moment, perhaps as one who may not look. */
    int r = sw_cred_suspend(&ignored);

    g_atomic_int_set(&job->tid, gettid());
    if (r == 0)
        r = look_at_process(reader);
    (void)pthread_mutex_lock(&job->lock);
    job->result = r;
    job->done = TRUE;
    (void)pthread_mutex_unlock(&job->lock);
    (void)pthread_cond_signal(&job->cond); /* not before, or it would wait for the lock */
    job_unref(job);
}

/* The next job, or NULL: this reader is not needed any more. */
static Job *park(SwProc *proc)
{
    Job *job = NULL;

    SW_HOLD(&proc->maps.lock);
    if (!proc->maps.closed && proc->maps.n_parked < PARKED_MAX) {
        proc->maps.n_parked++;
        while (!proc->maps.closed && g_queue_is_empty(&proc->maps.jobs))
            (void)pthread_cond_wait(&proc->maps.wanted, &proc->maps.lock);
        proc->maps.n_parked--;
        job = g_queue_pop_head(&proc->maps.jobs);
    }
    if (!job)
        proc->maps.n_readers--;
    return job;
}

static void *read_maps(void *data)
{
    Reader *reader = data;

    do {
        answer(reader);
        reader->job = park(reader->proc);
    } while (reader->job);
    sw_proc_unref(reader->proc);
    g_free(reader);
    return NULL;
}

void sw_proc_maps_close(SwProc *proc)
{
    SW_HOLD(&proc->maps.lock);
    proc->maps.closed = TRUE;
    (void)pthread_cond_broadcast(&proc->maps.wanted);
}

/* Detached, on a small stack, with all signals blocked: they are for the daemon's main thread. */
static int start_thread(Reader *reader)
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
    r = pthread_create(&thread, &attr, read_maps, reader);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attr);
    return -r;
}

/* Does the reader wait for a processor, and for nothing else? */
static gboolean is_runnable(const SwProc *proc, const Job *job)
{
    char path[64], text[128] = "";
    const char *state;
    pid_t tid = g_atomic_int_get(&job->tid);
    sw_autofd int fd = -1;

    if (!tid)
        return TRUE;
    (void)snprintf(path, sizeof path, "self/task/%d/stat", tid);
    fd = openat(proc->fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return FALSE;
    state = strrchr(text, ')');
    return state && strncmp(state, ") R", 3) == 0;
}

/* Is the reader to be left to itself, that many deadlines after it began? */
static gboolean is_stuck(const SwProc *proc, const Job *job, guint deadlines)
{
    SwProcMemory memory;

    if (deadlines == 0 || is_runnable(proc, job))
        return FALSE;
    return deadlines >= BLOCKED_MAX ||
           (sw_proc_memory(proc->fd, job->tgid, &memory) == 0 && memory == SW_PROC_NEW_MEMORY);
}

static int await(const SwProc *proc, Job *job)
{
    struct timespec until;
    int r = 0;

    (void)pthread_mutex_lock(&job->lock);
    for (guint tries = 0; !job->done && tries < DEADLINES_MAX && !is_stuck(proc, job, tries); tries++) {
        /* From now, not from the deadline before: a daemon that was stopped finds many of those past at once, and its
         * reader, which was stopped with it, has had nothing of them. */
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
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

static Job *job_new(pid_t tgid, dev_t dev, ino_t ino)
{
    Job *job = g_new0(Job, 1);

    (void)pthread_mutex_init(&job->lock, NULL);
    (void)pthread_cond_init(&job->cond, NULL);
    job->tgid = tgid;
    job->dev = dev;
    job->ino = ino;
    job->refs = 2; /* the asker's and the reader's */
    return job;
}

static int start_reader(SwProc *proc, Job *job)
{
    Reader *reader = g_new0(Reader, 1);
    int r;

    reader->proc = sw_proc_ref(proc);
    reader->job = job;
    r = start_thread(reader);
    if (r < 0) {
        sw_proc_unref(proc);
        g_free(reader);
    }
    return r;
}

/* Hands the job to a reader, with a reference.  -ETIMEDOUT: they are all stuck. */
static int hand_over(SwProc *proc, Job *job)
{
    gboolean parked;
    int r = 0;

    sw_mutex_lock(&proc->maps.lock);
    parked = proc->maps.n_parked > g_queue_get_length(&proc->maps.jobs);
    if (parked)
        g_queue_push_tail(&proc->maps.jobs, job);
    else if (proc->maps.n_readers >= READERS_MAX)
        r = -ETIMEDOUT;
    else
        r = start_reader(proc, job);
    if (!parked && r == 0)
        proc->maps.n_readers++;
    sw_mutex_unlock(&proc->maps.lock);
    if (parked)
        (void)pthread_cond_signal(&proc->maps.wanted);
    return r;
}

static int ask_reader(SwPort *port, pid_t tgid, dev_t dev, ino_t ino)
{
    SwProc *proc = sw_posix_proc(port);
    Job *job = job_new(tgid, dev, ino);
    int r = hand_over(proc, job);

    if (r < 0)
        job_unref(job);
    else
        r = await(proc, job);
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
    r = sw_proc_memory_again(proc, tgid, &memory);
    if (r < 0) {
        r = sw_proc_error(tgid, r);
        return r == -ESRCH ? 0 : r; /* the gone map nothing */
    }
    /* Inside execve, where most closes that could block us happen: nothing is mapped that was mapped before. */
    return memory == SW_PROC_NEW_MEMORY ? 0 : ask_reader(port, tgid, dev, ino);
}
