/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inner loops of the bench, where an interpreter would be most of what is measured.
 *
 *   loops commits MODE THREADS SECONDS DIR   small files: new, rewritten, looked at just then, removed
 *   loops looks THREADS SECONDS DIR          such files are there: opened, read and closed; looked at
 *   loops run OPERATION SECONDS DIR          one operation of the table below, again and again
 *   loops count OPERATION TIMES DIR          the same so many times, from one line on standard input to the next
 *   loops prepare FILES DIR                  so many small files
 *   loops new MODE BYTES FILE                a new file, written in pieces of 1 MiB
 *   loops edit FILE                          one byte in the middle of it
 *   loops crowd PROCESSES SECONDS DIR        half of them rewrite 50 files, the others read them
 *   loops stall MODE DIR                     how long anything waits while the commit of slow/slow does
 *   loops list DIR                           all names in its directories, without looking at the files
 *
 * MODE says how a file is committed: `plain` by close(2), `hand` as a temporary that is then renamed, `fsync` and
 * `hand+fsync` with fsync(2) before close(2).  Each thread has a directory of its own.  What was measured is printed as
 * lines of a name and a number.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SMALL 4096
#define RECORD 100
#define MIB (1 << 20)
/* What is rewritten, read and looked at fits into all caches, however many files a system could make. */
#define HOT 100
#define MOST 4000
#define CROWDED 50
#define THREADS_MAX 64
#define STILL_S 1.0

enum mode { PLAIN = 0, HAND = 1, FSYNC = 2 };

struct place {
    const char *directory;
    enum mode mode;
    int fd;
};

typedef void (*Step)(struct place *place, unsigned number);

static char bytes[MIB];

static void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "loops: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec + ts.tv_nsec / 1e9;
}

static enum mode mode_of(const char *word)
{
    static const char *const words[] = {"plain", "hand", "fsync", "hand+fsync"};
    for (enum mode mode = PLAIN; mode <= (HAND | FSYNC); mode++)
        if (strcmp(word, words[mode]) == 0)
            return mode;
    errno = EINVAL;
    must(0, word);
    return PLAIN;
}

static void name_of(const struct place *place, const char *prefix, unsigned number, char name[static PATH_MAX])
{
    must(snprintf(name, PATH_MAX, "%s/%s%u", place->directory, prefix, number) < PATH_MAX, "name");
}

static void put(const char *name, enum mode mode, size_t size)
{
    char temporary[PATH_MAX + 8];
    snprintf(temporary, sizeof temporary, "%s%s", name, mode & HAND ? ".tmp" : "");
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    must(fd >= 0, temporary);
    for (size_t done = 0; done < size;) {
        size_t piece = size - done < MIB ? size - done : MIB;
        must(write(fd, bytes, piece) == (ssize_t)piece, "write");
        done += piece;
    }
    must(!(mode & FSYNC) || fsync(fd) == 0, "fsync");
    must(close(fd) == 0, "close");
    must(!(mode & HAND) || rename(temporary, name) == 0, "rename");
}

static void get(const char *name)
{
    char buffer[SMALL];
    int fd = open(name, O_RDONLY);
    must(fd >= 0, name);
    while (read(fd, buffer, sizeof buffer) > 0)
        ;
    close(fd);
}

/* ---- operations */

static void step_create(struct place *place, unsigned number)
{
    char name[PATH_MAX];
    name_of(place, "f", number, name);
    put(name, place->mode, SMALL);
}

static void step_rewrite(struct place *place, unsigned number)
{
    step_create(place, number % HOT);
}

static void step_read(struct place *place, unsigned number)
{
    char name[PATH_MAX];
    name_of(place, "f", number % HOT, name);
    get(name);
}

static void step_stat(struct place *place, unsigned number)
{
    char name[PATH_MAX];
    struct stat st;
    name_of(place, "f", number % HOT, name);
    must(stat(name, &st) == 0, name);
}

static void step_unlink(struct place *place, unsigned number)
{
    char name[PATH_MAX];
    name_of(place, "f", number, name);
    must(unlink(name) == 0, name);
}

static void step_excl(struct place *place, unsigned number)
{
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/excl.lock", place->directory);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0666);
    must(fd >= 0, name);
    close(fd);
    must(unlink(name) == 0, name);
}

static void step_symlink(struct place *place, unsigned number)
{
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/symlink.lock", place->directory);
    must(symlink("owner", name) == 0, name);
    must(unlink(name) == 0, name);
}

static int kept_open(struct place *place, const char *what)
{
    char name[PATH_MAX];
    if (place->fd < 0) {
        snprintf(name, sizeof name, "%s/%s", place->directory, what);
        place->fd = open(name, O_RDWR | O_CREAT, 0666);
        must(place->fd >= 0, name);
    }
    return place->fd;
}

static void step_fcntl(struct place *place, unsigned number)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    must(fcntl(kept_open(place, "fcntl"), F_SETLK, &lock) == 0, "F_SETLK");
    lock.l_type = F_UNLCK;
    must(fcntl(place->fd, F_SETLK, &lock) == 0, "unlock");
}

static void step_flock(struct place *place, unsigned number)
{
    must(flock(kept_open(place, "flock"), LOCK_EX | LOCK_NB) == 0, "flock");
    must(flock(place->fd, LOCK_UN) == 0, "unlock");
}

static void append_to(const char *name)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND, 0666);
    must(fd >= 0, name);
    must(write(fd, bytes, RECORD) == RECORD, "append");
    must(close(fd) == 0, "close");
}

/* The file is named by the directory of the place, with ending and all. */
static void step_append(struct place *place, unsigned number)
{
    append_to(place->directory);
}

static void step_record(struct place *place, unsigned number)
{
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/records", place->directory);
    append_to(name);
}

static void step_edit(struct place *place, unsigned number)
{
    char name[PATH_MAX];
    name_of(place, "f", number % HOT, name);
    int fd = open(name, O_RDWR);
    must(fd >= 0, name);
    must(pwrite(fd, "x", 1, SMALL / 2) == 1, "pwrite");
    must(close(fd) == 0, "close");
}

static const struct {
    const char *name;
    Step step;
} operations[] = {
    {"create", step_create}, {"rewrite", step_rewrite}, {"read", step_read},       {"stat", step_stat},
    {"unlink", step_unlink}, {"excl", step_excl},       {"symlink", step_symlink}, {"fcntl", step_fcntl},
    {"flock", step_flock},   {"append", step_append},   {"record", step_record},   {"edit", step_edit},
};

static Step operation(const char *name)
{
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (strcmp(operations[i].name, name) == 0)
            return operations[i].step;
    errno = EINVAL;
    must(0, name);
    return NULL;
}

/* ---- threads that do one thing for a time */

struct worker {
    pthread_t thread;
    struct place place;
    char directory[PATH_MAX];
    unsigned done;
    double ended;
    /* of the phase */
    Step step;
    unsigned limit;
    double until;
    pthread_barrier_t *barrier;
};

static void *work(void *data)
{
    struct worker *worker = data;
    pthread_barrier_wait(worker->barrier);
    worker->done = 0;
    do
        worker->step(&worker->place, worker->done++);
    while (worker->done < worker->limit && now() < worker->until);
    worker->ended = now();
    return NULL;
}

/* Operations per second of all together; each does at least one, and at most `limit`, or what it has done before. */
static double phase(struct worker *workers, unsigned count, Step step, double seconds, unsigned limit)
{
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, count);
    double began = now(), ended = began;
    unsigned done = 0;
    for (unsigned i = 0; i < count; i++) {
        struct worker *worker = &workers[i];
        worker->step = step;
        worker->limit = limit ? limit : worker->done;
        worker->until = began + seconds;
        worker->barrier = &barrier;
        must(pthread_create(&worker->thread, NULL, work, worker) == 0, "thread");
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        done += workers[i].done;
        ended = workers[i].ended > ended ? workers[i].ended : ended;
    }
    pthread_barrier_destroy(&barrier);
    return done / (ended - began);
}

static struct worker workers[THREADS_MAX];

/* A directory for each. */
static void employ(unsigned count, enum mode mode, const char *directory)
{
    must(count > 0 && count <= THREADS_MAX, "threads");
    for (unsigned i = 0; i < count; i++) {
        snprintf(workers[i].directory, PATH_MAX, "%s/t%u", directory, i);
        must(mkdir(workers[i].directory, 0777) == 0 || errno == EEXIST, workers[i].directory);
        workers[i].place = (struct place){workers[i].directory, mode, -1};
    }
}

static void commits(enum mode mode, unsigned count, double seconds, const char *directory)
{
    unsigned made[THREADS_MAX];
    employ(count, mode, directory);
    printf("create %f\n", phase(workers, count, step_create, seconds, MOST));
    for (unsigned i = 0; i < count; i++) {
        made[i] = workers[i].done;
        struct place quick = {workers[i].directory, PLAIN, -1};
        for (; made[i] < HOT; made[i]++)
            step_create(&quick, made[i]);
    }
    printf("rewrite %f\n", phase(workers, count, step_rewrite, seconds, -1));
    printf("stat-new %f\n", phase(workers, count, step_stat, seconds, -1));
    for (unsigned i = 0; i < count; i++)
        workers[i].done = made[i];
    printf("unlink %f\n", phase(workers, count, step_unlink, 1e9, 0));
}

static void looks(unsigned count, double seconds, const char *directory)
{
    employ(count, PLAIN, directory);
    phase(workers, count, step_read, 1e9, HOT);
    printf("read %f\n", phase(workers, count, step_read, seconds, -1));
    printf("stat %f\n", phase(workers, count, step_stat, seconds, -1));
}

static void run(Step step, double seconds, const char *directory)
{
    struct place place = {directory, PLAIN, -1};
    unsigned done = 0;
    step(&place, done++); /* what only the first one costs, such as a look-up */
    double began = now();
    for (done = 0; done == 0 || now() < began + seconds; done++)
        step(&place, done);
    printf("rate %f\n", done / (now() - began));
}

static void await_line(const char *said)
{
    char line[16];
    puts(said);
    fflush(stdout);
    must(fgets(line, sizeof line, stdin) != NULL, "standard input");
}

static void count(Step step, unsigned times, const char *directory)
{
    struct place place = {directory, PLAIN, -1};
    /* What only the first one costs is not counted where it has no consequence for the others. */
    if (step == step_read || step == step_stat)
        for (unsigned i = 0; i < times; i++)
            step(&place, i);
    if (step == step_fcntl || step == step_flock || step == step_excl || step == step_symlink || step == step_record)
        step(&place, 0);
    await_line("ready");
    for (unsigned i = 0; i < times; i++)
        step(&place, i);
    await_line("done");
}

/* ---- many processes at once */

static void member(unsigned number, double until, const char *directory, volatile unsigned *done)
{
    struct place place = {directory, PLAIN, -1};
    char name[PATH_MAX];
    for (*done = 0; now() < until; ++*done) {
        name_of(&place, "c", (number / 2 + *done) % CROWDED, name);
        if (number % 2)
            get(name);
        else
            put(name, PLAIN, SMALL);
    }
}

static void crowd(unsigned processes, double seconds, const char *directory)
{
    struct place place = {directory, PLAIN, -1};
    char name[PATH_MAX];
    unsigned *done = mmap(NULL, processes * sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned sum[2] = {0, 0};
    int status, failed = 0;
    must(done != MAP_FAILED, "mmap");
    for (unsigned i = 0; i < CROWDED; i++) {
        name_of(&place, "c", i, name);
        put(name, PLAIN, SMALL);
    }
    double start = now(), until = start + 0.2 + seconds;
    for (unsigned i = 0; i < processes; i++)
        if (fork() == 0) {
            member(i, until, directory, &done[i]);
            _exit(0);
        }
    while (wait(&status) > 0)
        failed += status != 0;
    double took = now() - start;
    must(failed == 0, "some of the crowd failed");
    for (unsigned i = 0; i < processes; i++)
        sum[i % 2] += done[i];
    printf("written %f\nread %f\n", sum[0] / took, sum[1] / took);
}

/* ---- one that waits, and another one */

struct closing {
    const char *directory;
    enum mode mode;
    double took;
    volatile int over;
};

static void *slow_commit(void *data)
{
    struct closing *closing = data;
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/slow/slow", closing->directory);
    double began = now();
    if (closing->mode & FSYNC)
        usleep(STILL_S * 1e6); /* nothing waits: what remains is what the machine itself makes others wait for */
    else
        put(name, closing->mode, SMALL);
    closing->took = now() - began;
    closing->over = 1;
    return NULL;
}

static void stall(enum mode mode, const char *directory)
{
    static const Step steps[] = {step_create, step_rewrite, step_read, step_stat, step_edit};
    struct closing closing = {.directory = directory, .mode = mode};
    char name[PATH_MAX];
    pthread_t thread;
    double worst = 0;
    snprintf(name, sizeof name, "%s/slow", directory);
    must(mkdir(name, 0777) == 0, name);
    snprintf(name, sizeof name, "%s/others", directory);
    must(mkdir(name, 0777) == 0, name);
    struct place place = {name, PLAIN, -1};
    for (unsigned i = 0; i < HOT; i++)
        step_create(&place, i);
    must(pthread_create(&thread, NULL, slow_commit, &closing) == 0, "thread");
    for (unsigned i = 0; !closing.over; i++) {
        double began = now();
        steps[i % 5](&place, i % MOST);
        double took = now() - began;
        /* One that began before the commit did, or ended with it, has waited for neither. */
        worst = took > worst ? took : worst;
    }
    pthread_join(thread, NULL);
    printf("waited %f\nstall %f\n", closing.took, worst);
}

/* ---- the rest */

static unsigned long list(const char *directory)
{
    unsigned long names = 0;
    DIR *stream = opendir(directory);
    must(stream != NULL, directory);
    for (struct dirent *entry; (entry = readdir(stream));) {
        char name[PATH_MAX];
        if (entry->d_name[0] == '.')
            continue;
        names++;
        if (entry->d_type != DT_DIR)
            continue;
        snprintf(name, sizeof name, "%s/%s", directory, entry->d_name);
        names += list(name);
    }
    closedir(stream);
    return names;
}

static void edit(const char *file)
{
    struct stat st;
    must(stat(file, &st) == 0, file);
    double began = now();
    int fd = open(file, O_RDWR);
    must(fd >= 0, file);
    must(pwrite(fd, "x", 1, st.st_size / 2) == 1, "pwrite");
    must(close(fd) == 0, "close");
    printf("seconds %f\n", now() - began);
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    memset(bytes, 'b', sizeof bytes);
    if (strcmp(what, "commits") == 0 && argc == 6) {
        commits(mode_of(argv[2]), atoi(argv[3]), atof(argv[4]), argv[5]);
    } else if (strcmp(what, "looks") == 0 && argc == 5) {
        looks(atoi(argv[2]), atof(argv[3]), argv[4]);
    } else if (strcmp(what, "run") == 0 && argc == 5) {
        run(operation(argv[2]), atof(argv[3]), argv[4]);
    } else if (strcmp(what, "count") == 0 && argc == 5) {
        count(operation(argv[2]), atoi(argv[3]), argv[4]);
    } else if (strcmp(what, "prepare") == 0 && argc == 4) {
        struct place place = {argv[3], PLAIN, -1};
        for (int i = 0; i < atoi(argv[2]); i++)
            step_create(&place, i);
    } else if (strcmp(what, "new") == 0 && argc == 5) {
        double began = now();
        put(argv[4], mode_of(argv[2]), strtoul(argv[3], NULL, 10));
        printf("seconds %f\n", now() - began);
    } else if (strcmp(what, "edit") == 0) {
        edit(argv[2]);
    } else if (strcmp(what, "crowd") == 0 && argc == 5) {
        crowd(atoi(argv[2]), atof(argv[3]), argv[4]);
    } else if (strcmp(what, "stall") == 0 && argc == 4) {
        stall(mode_of(argv[2]), argv[3]);
    } else if (strcmp(what, "list") == 0) {
        double began = now();
        unsigned long names = list(argv[2]);
        printf("names %lu\nseconds %f\n", names, now() - began);
    } else {
        fprintf(stderr, "usage: see the head of loops.c\n");
        return 2;
    }
    return 0;
}
