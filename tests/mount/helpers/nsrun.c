/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes and enters the namespaces that stand for a host in the mounted tests.
 *
 *   nsrun host NAME                    new pid, uts and mount namespace; prints "PID\n", the outer pid of its process
 * 1; lives until its stdin ends, and everything inside dies with it nsrun in HOST [OPTIONS] -- ARGV    runs ARGV
 * inside; prints nothing, ends as ARGV ends (same status or signal)
 *
 * HOST is the outer pid of process 1, or 0 for the namespaces we are in.  Options:
 *   -t N   the pid inside (clone3 set_tid), so that two hosts can have equal ones
 *   -f FD  the outer pid of ARGV is written there as "PID\n"
 *   -c DIR working directory inside
 *   -u UID -g GID -G GID,GID...
 *   -m     mount namespace only: a process whose pid the host cannot see
 *   -R     no address randomisation
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <mntent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct entry {
    pid_t host;
    pid_t wanted;
    int report_fd;
    const char *dir;
    long uid, gid;
    char *groups;
    int mount_only, fixed;
};

static void die(const char *what)
{
    fprintf(stderr, "nsrun: %s: %s\n", what, strerror(errno));
    exit(125);
}

/* Mounts of other tests that came along with the namespace; as long as they are here, they do not end there. */
static void leave_others_mounts(void)
{
    FILE *mounts = setmntent("/proc/self/mounts", "r");
    struct mntent *entry;

    while (mounts && (entry = getmntent(mounts)))
        if (strcmp(entry->mnt_type, "fuse.safewritefs") == 0)
            umount2(entry->mnt_dir, MNT_DETACH);
    if (mounts)
        endmntent(mounts);
}

/* Process 1: collects orphans until the supervisor's end of the pipe closes. */
static void be_init(const char *name)
{
    struct sigaction no_wait = {.sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT};
    char byte;
    ssize_t got;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigaction(SIGCHLD, &no_wait, NULL);
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        die("make mounts private");
    leave_others_mounts();
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        die("mount /proc");
    if (sethostname(name, strlen(name)) < 0)
        die("sethostname");
    printf("ready\n");
    fflush(stdout);
    do
        got = read(STDIN_FILENO, &byte, 1);
    while (got > 0 || (got < 0 && errno == EINTR));
    _exit(0);
}

static int make_host(const char *name)
{
    pid_t init;

    if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS) < 0)
        die("unshare");
    init = fork();
    if (init < 0)
        die("fork");
    if (init == 0)
        be_init(name);
    printf("%d\n", init);
    fflush(stdout);
    close(STDOUT_FILENO);
    close(STDIN_FILENO);
    waitpid(init, NULL, 0);
    return 0;
}

static void join(const struct entry *entry)
{
    int spaces = CLONE_NEWNS | (entry->mount_only ? 0 : CLONE_NEWPID | CLONE_NEWUTS);
    int fd = (int)syscall(SYS_pidfd_open, entry->host, 0);

    if (fd < 0)
        die("pidfd_open");
    if (setns(fd, spaces) < 0)
        die("setns");
    close(fd);
}

static void set_groups(char *list)
{
    gid_t groups[64];
    size_t count = 0;

    for (char *word = strtok(list, ","); word && count < 64; word = strtok(NULL, ","))
        groups[count++] = (gid_t)strtoul(word, NULL, 10);
    if (setgroups(count, groups) < 0)
        die("setgroups");
}

static void become(const struct entry *entry)
{
    if (entry->groups)
        set_groups(entry->groups);
    else if (entry->uid >= 0 && setgroups(0, NULL) < 0)
        die("setgroups");
    if (entry->gid >= 0 && setresgid(entry->gid, entry->gid, entry->gid) < 0)
        die("setgid");
    if (entry->uid >= 0 && setresuid(entry->uid, entry->uid, entry->uid) < 0)
        die("setuid");
}

static void run(const struct entry *entry, char **argv)
{
    struct rlimit none = {0, 0};

    setrlimit(RLIMIT_CORE, &none);
    if (entry->fixed)
        personality(ADDR_NO_RANDOMIZE);
    become(entry);
    /* A user's own mount lets nobody else in, not even root. */
    if (entry->dir && chdir(entry->dir) < 0)
        die(entry->dir);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* What a shell starts in the background ignores them, and so would all that it starts. */
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    execvp(argv[0], argv);
    die(argv[0]);
}

static pid_t start(const struct entry *entry)
{
    pid_t tids[1] = {entry->wanted};
    struct clone_args args = {.exit_signal = SIGCHLD};

    if (entry->wanted) {
        args.set_tid = (unsigned long)tids;
        args.set_tid_size = 1;
    }
    return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static int end_alike(int status)
{
    struct rlimit none = {0, 0};

    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    setrlimit(RLIMIT_CORE, &none);
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
    return 128 + WTERMSIG(status);
}

static int enter(const struct entry *entry, char **argv)
{
    pid_t child;
    int status;

    if (entry->host)
        join(entry);
    child = start(entry);
    if (child < 0)
        die("clone3");
    if (child == 0)
        run(entry, argv);
    if (entry->report_fd >= 0) {
        dprintf(entry->report_fd, "%d\n", child);
        close(entry->report_fd);
    }
    /* Only the child may hold the other ends of its pipes. */
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    signal(SIGINT, SIG_IGN);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return end_alike(status);
}

static char **parse(int argc, char **argv, struct entry *entry)
{
    int letter;

    *entry = (struct entry){.report_fd = -1, .uid = -1, .gid = -1};
    entry->host = (pid_t)atoi(argv[2]);
    optind = 3;
    while ((letter = getopt(argc, argv, "+t:f:c:u:g:G:mR")) != -1) {
        switch (letter) {
        case 't':
            entry->wanted = (pid_t)atoi(optarg);
            break;
        case 'f':
            entry->report_fd = atoi(optarg);
            fcntl(entry->report_fd, F_SETFD, FD_CLOEXEC);
            break;
        case 'c':
            entry->dir = optarg;
            break;
        case 'u':
            entry->uid = atol(optarg);
            break;
        case 'g':
            entry->gid = atol(optarg);
            break;
        case 'G':
            entry->groups = optarg;
            break;
        case 'm':
            entry->mount_only = 1;
            break;
        case 'R':
            entry->fixed = 1;
            break;
        default:
            exit(125);
        }
    }
    return argv + optind;
}

int main(int argc, char **argv)
{
    struct entry entry;
    char **command;

    if (argc == 3 && strcmp(argv[1], "host") == 0)
        return make_host(argv[2]);
    if (argc < 4 || strcmp(argv[1], "in") != 0) {
        fprintf(stderr, "usage: nsrun host NAME | nsrun in PID [OPTIONS] -- ARGV\n");
        return 125;
    }
    command = parse(argc, argv, &entry);
    if (!*command) {
        fprintf(stderr, "nsrun: no command\n");
        return 125;
    }
    return enter(&entry, command);
}
