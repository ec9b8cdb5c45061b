/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Which descriptors and mappings of one file the real port sees other processes hold. */

#include "held_file.h"

#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>

/* ---- holdings */

static void hold_two_writers(void)
{
    (void)dup2(open(file_path, O_WRONLY), 10);
    (void)dup2(open(file_path, O_RDONLY), 11);
    (void)dup2(open(file_path, O_PATH), 12);
    (void)dup2(open("/dev/null", O_RDWR), 13);
    child_ready_and_wait();
}

static void hold_one_writer(void)
{
    (void)dup2(open(file_path, O_RDWR), 10);
    (void)dup2(open(file_path, O_RDONLY), 11);
    (void)dup2(open(file_path, O_PATH), 12);
    (void)close(3);
    (void)close(4);
    child_ready_and_wait();
}

static void hold_dup_of_writer(void)
{
    int fd = open(file_path, O_WRONLY | O_APPEND);

    (void)dup(fd);
    child_ready_and_wait();
}

static void descriptors_open_for_writing_are_counted(void **state)
{
    Child child = child_start(hold_one_writer);
    SwHoldings holdings = holdings_of(child.pid);

    assert_int_equal(holdings.n_writers, 1);
    assert_int_equal(holdings.only_fd, 10);
    assert_true(holdings.complete);
    assert_false(holdings.unix_sockets);
    assert_false(holdings.uring);
    child_reap(&child);
    child = child_start(hold_dup_of_writer);
    holdings = holdings_of(child.pid);
    assert_int_equal(holdings.n_writers, 2);
    assert_int_equal(holdings.only_fd, -1);
    child_reap(&child);
}

static void the_dead_hold_nothing(void **state)
{
    Child child = child_start(hold_two_writers);
    pid_t pid = child.pid;

    assert_int_equal(holdings_of(pid).n_writers, 2);
    child_let_die(&child);
    assert_int_equal(holdings_of(pid).n_writers, 0);
    assert_true(holdings_of(pid).complete);
    child_reap(&child);
    assert_int_equal(holdings_of(pid).n_writers, 0);
    assert_true(holdings_of(pid).complete);
    assert_false(holdings_of(0).complete);
}

static void hold_without_main_thread(void)
{
    int fd = open(file_path, O_RDWR);

    (void)mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    child_outlive_main_thread();
}

static void a_table_outlives_the_first_thread(void **state)
{
    Child child = child_start(hold_without_main_thread);

    child_await_main_thread(&child);
    assert_int_equal(holdings_of(child.pid).n_writers, 1);
    assert_true(holdings_of(child.pid).complete);
    assert_int_equal(port->mapped(port, child.pid, file.st_dev, file.st_ino), 1);
    child_reap(&child);
}

static void exec_sleep(void)
{
    (void)dup2(open(file_path, O_WRONLY), 50);
    (void)fcntl(50, F_SETFD, FD_CLOEXEC);
    (void)dup2(50, 51);
    (void)close(3);
    (void)fcntl(198, F_SETFD, FD_CLOEXEC);
    child_ready_and_wait();
    (void)execl("/bin/sleep", "sleep", "60", NULL);
}

static void exec_keeps_what_is_not_close_on_exec(void **state)
{
    Child child = child_start(exec_sleep);
    SwHoldings holdings = holdings_of(child.pid);
    char byte;

    assert_int_equal(holdings.n_writers, 2);
    (void)close(child.go);
    assert_int_equal(read(child.ready, &byte, 1), 0); /* the end that exec closed */
    for (guint i = 0; i < 100 && holdings.n_writers != 1; i++, g_usleep(1000))
        holdings = holdings_of(child.pid);
    assert_int_equal(holdings.n_writers, 1);
    assert_int_equal(holdings.only_fd, 51);
    child.go = -1;
    assert_int_equal(kill(child.pid, SIGKILL), 0);
    child_reap(&child);
}

static void hold_sockets(void)
{
    (void)socket(AF_INET, SOCK_STREAM, 0);
    (void)socket(AF_UNIX, SOCK_DGRAM, 0);
    child_ready_and_wait();
}

static void hold_inet_socket(void)
{
    (void)socket(AF_INET, SOCK_STREAM, 0);
    child_ready_and_wait();
}

static void hold_std_sockets(void)
{
    int pair[2];

    (void)!socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    (void)dup2(pair[0], 1);
    (void)dup2(pair[1], 2);
    (void)close(pair[0]);
    (void)close(pair[1]);
    child_ready_and_wait();
}

static void unix_sockets_are_noticed(void **state)
{
    static const struct {
        void (*body)(void);
        gboolean expected;
    } cases[] = {{hold_sockets, TRUE}, {hold_inet_socket, FALSE}, {hold_std_sockets, FALSE}};

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        Child child = child_start(cases[i].body);
        SwHoldings holdings = holdings_of(child.pid);

        assert_int_equal(holdings.unix_sockets, cases[i].expected);
        assert_true(holdings.complete);
        child_reap(&child);
    }
}

/* A descriptor on its way: sent over what takes the place of standard output, not received yet. */
static void hold_queued_descriptor(void)
{
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control};
    struct cmsghdr *header;
    int pair[2], fd = open(file_path, O_WRONLY);

    message.msg_controllen = sizeof control;
    header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    (void)!socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    (void)!sendmsg(pair[0], &message, 0);
    (void)dup2(pair[0], 1);
    (void)dup2(pair[1], 2);
    (void)close(pair[0]);
    (void)close(pair[1]);
    (void)close(fd);
    child_ready_and_wait();
}

static void a_queued_descriptor_is_noticed(void **state)
{
    void (*const bodies[])(void) = {hold_std_sockets, hold_queued_descriptor};

    for (guint i = 0; i < G_N_ELEMENTS(bodies); i++) {
        Child child = child_start(bodies[i]);
        SwHoldings holdings = holdings_of(child.pid);

        assert_int_equal(holdings.queued, i);
        assert_int_equal(holdings.n_writers, 0);
        assert_true(holdings.complete);
        child_reap(&child);
    }
}

static void hold_uring(void)
{
    struct io_uring_params params = {0};

    if (syscall(SYS_io_uring_setup, 4, &params) < 0)
        (void)dup2(1, 190); /* the sign that there is none */
    child_ready_and_wait();
}

static void an_io_uring_is_noticed(void **state)
{
    Child child = child_start(hold_uring);
    g_autofree char *sign = g_strdup_printf("/proc/%d/fd/190", child.pid);
    gboolean none = faccessat(AT_FDCWD, sign, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    gboolean uring = holdings_of(child.pid).uring;

    child_reap(&child);
    assert_true(uring || none);
    assert_false(holdings_of(getpid()).uring);
}

static void hold_very_many(void)
{
    int fd = open(file_path, O_WRONLY);

    for (guint i = 0; i < 210; i++)
        (void)fcntl(fd, F_DUPFD, 200);
    child_ready_and_wait();
}

static void large_tables_are_left_alone(void **state)
{
    Child child = child_start(hold_very_many);

    assert_false(holdings_of(child.pid).complete);
    assert_int_equal(holdings_of(child.pid).only_fd, -1);
    child_reap(&child);
}

static void holdings_see_past_borrowed_credentials(void **state)
{
    SwCred cred = {.uid = 65534, .gid = 65534};
    Child child;

    if (geteuid() != 0)
        skip();
    child = child_start(hold_one_writer);
    assert_int_equal(port->become(port, &cred), 0);
    assert_int_equal(holdings_of(child.pid).only_fd, 10);
    assert_int_equal(port->mapped(port, child.pid, file.st_dev, file.st_ino), 0);
    assert_int_equal(setfsuid(-1), cred.uid); /* still the other */
    assert_int_equal(port->become(port, NULL), 0);
    child_reap(&child);
}

/* ---- mappings */

static void map_shared(void)
{
    int fd = open(file_path, O_RDWR);

    (void)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    child_ready_and_wait();
}

static void map_private(void)
{
    int fd = open(file_path, O_RDWR);

    (void)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    (void)close(fd);
    child_ready_and_wait();
}

static void shared_mappings_are_found(void **state)
{
    Child child = child_start(map_shared);
    pid_t pid = child.pid;

    assert_int_equal(port->mapped(port, pid, file.st_dev, file.st_ino), 1);
    assert_int_equal(port->mapped(port, pid, file.st_dev, file.st_ino + 1), 0);
    assert_int_equal(port->mapped(port, pid, file.st_dev + 1, file.st_ino), 0);
    assert_int_equal(holdings_of(pid).n_writers, 0);
    child_let_die(&child);
    assert_int_equal(port->mapped(port, pid, file.st_dev, file.st_ino), 0);
    child_reap(&child);
    assert_int_equal(port->mapped(port, pid, file.st_dev, file.st_ino), 0);
    assert_int_equal(port->mapped(port, 0, file.st_dev, file.st_ino), -EINVAL);
    child = child_start(map_private);
    assert_int_equal(port->mapped(port, child.pid, file.st_dev, file.st_ino), 0);
    child_reap(&child);
}

static void map_many(void)
{
    int fd = open(file_path, O_RDWR);

    /* Every other page is of another protection, so that the kernel joins none of them. */
    for (guint i = 0; i < 1500; i++)
        (void)mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)mmap((void *)0x10000000, 4096, PROT_READ, MAP_SHARED, fd, 0);
    child_ready_and_wait();
}

static void long_lists_of_mappings_are_read_through(void **state)
{
    Child child = child_start(map_many);

    assert_int_equal(port->mapped(port, child.pid, file.st_dev, file.st_ino), 1);
    assert_int_equal(port->mapped(port, child.pid, file.st_dev, file.st_ino + 1), 0);
    child_reap(&child);
}

static guint count_threads(void)
{
    struct stat st;

    assert_int_equal(stat("/proc/self/task", &st), 0);
    return st.st_nlink - 2;
}

static gboolean comes_to(guint threads)
{
    for (guint i = 0; i < 500 && count_threads() != threads; i++)
        (void)usleep(10000);
    return count_threads() == threads;
}

typedef struct {
    SwPort *port;
    pid_t pid;
    guint n_wrong;
} Asker;

static void *ask(void *data)
{
    Asker *asker = data;

    for (guint i = 0; i < 50; i++) {
        int r = asker->port->mapped(asker->port, asker->pid, file.st_dev, file.st_ino);

        asker->n_wrong += r != 1 && r != -ETIMEDOUT; /* a machine that is slow may miss the deadline */
    }
    return NULL;
}

/* Who reads maps waits for the next who asks; a few do, and go with the port. */
static void readers_of_maps_are_used_again(void **state)
{
    SwPort *own = sw_port_posix_new();
    guint before = count_threads();
    Child child = child_start(map_shared);
    Asker askers[12];
    pthread_t threads[12];

    for (guint i = 0; i < 20; i++) {
        Asker asker = {.port = own, .pid = child.pid};

        (void)ask(&asker);
        assert_int_equal(asker.n_wrong, 0);
    }
    assert_in_range(count_threads() - before, 1, 4);
    for (guint i = 0; i < 12; i++) {
        askers[i] = (Asker){.port = own, .pid = child.pid};
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
    }
    for (guint i = 0; i < 12; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(askers[i].n_wrong, 0);
    }
    for (guint i = 0; i < 500 && count_threads() - before > 4; i++)
        (void)usleep(10000);
    assert_in_range(count_threads() - before, 1, 4);
    child_reap(&child);
    sw_port_free(own);
    assert_true(comes_to(before));
}

/* Only on one processor, with precedence over everything ordinary. */
static gboolean take_processor(int policy, int priority)
{
    struct sched_param param = {.sched_priority = priority};
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(0, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0 && sched_setscheduler(0, policy, &param) == 0;
}

static void hog(void)
{
    gboolean got = take_processor(SCHED_FIFO, 1);

    child_ready_and_wait();
    (void)alarm(10);
    while (got)
        ;
}

/* C3: threads that we make get no processor for nearly a second; that is no reason not to know. */
static void a_busy_machine_is_waited_for(void **state)
{
    struct sched_param ordinary = {0};
    cpu_set_t all;
    Child child;
    int r;

    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    child = child_start(hog);
    if (!take_processor(SCHED_FIFO | SCHED_RESET_ON_FORK, 2)) {
        child_reap(&child);
        skip(); /* may not open a real-time class */
    }
    (void)close(child.go); /* it runs */
    child.go = -1;
    r = port->mapped(port, child.pid, 0, 1);
    assert_int_equal(sched_setscheduler(0, SCHED_OTHER, &ordinary), 0);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(kill(child.pid, SIGKILL), 0);
    child_reap(&child);
    assert_int_equal(r, 0);
}

enum { NO_RIGHT = 77 };

static void stop_all(int number)
{
    (void)kill(getpid(), SIGSTOP);
}

static _Noreturn void ask_and_be_stopped(void)
{
    struct itimerval soon = {.it_value = {.tv_usec = 5000}};
    SwPort *own = sw_port_posix_new();
    gboolean got = take_processor(SCHED_FIFO | SCHED_RESET_ON_FORK, 2);

    child_ready_and_wait();
    if (!got)
        _exit(NO_RIGHT);
    (void)signal(SIGALRM, stop_all);
    (void)setitimer(ITIMER_REAL, &soon, NULL);
    _exit(own->mapped(own, getppid(), 0, 1) == 0 ? 0 : 1);
}

/* Who was forked by a process of many threads is not to start any (TSan says so): the asker is a program of its own. */
static void exec_asker(void)
{
    (void)execl("/proc/self/exe", "test_holdings", "ask", NULL);
}

/* C3: the time for which a daemon was stopped in the middle of asking, its reader with it, is no reason not to know. */
static void a_stop_is_no_deadline(void **state)
{
    Child hogger = child_start(hog), asker = child_start(exec_asker);
    int status;

    (void)close(hogger.go); /* it runs */
    hogger.go = -1;
    (void)usleep(10000);
    (void)close(asker.go);
    asker.go = -1;
    assert_int_equal(waitpid(asker.pid, &status, WUNTRACED), asker.pid);
    if (WIFSTOPPED(status)) {
        (void)usleep(5500000); /* longer than any reader is waited for */
        (void)kill(asker.pid, SIGCONT);
        assert_int_equal(waitpid(asker.pid, &status, 0), asker.pid);
    }
    (void)close(asker.ready);
    assert_int_equal(kill(hogger.pid, SIGKILL), 0);
    child_reap(&hogger);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_RIGHT)
        skip(); /* may not open a real-time class */
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_open_for_writing_are_counted),
        cmocka_unit_test(the_dead_hold_nothing),
        cmocka_unit_test(a_table_outlives_the_first_thread),
        cmocka_unit_test(exec_keeps_what_is_not_close_on_exec),
        cmocka_unit_test(unix_sockets_are_noticed),
        cmocka_unit_test(a_queued_descriptor_is_noticed),
        cmocka_unit_test(an_io_uring_is_noticed),
        cmocka_unit_test(large_tables_are_left_alone),
        cmocka_unit_test(holdings_see_past_borrowed_credentials),
        cmocka_unit_test(shared_mappings_are_found),
        cmocka_unit_test(long_lists_of_mappings_are_read_through),
        cmocka_unit_test(readers_of_maps_are_used_again),
        cmocka_unit_test(a_stop_is_no_deadline), /* before who leaves less of a second to others */
        cmocka_unit_test(a_busy_machine_is_waited_for),
    };

    if (argc == 2 && g_str_equal(argv[1], "ask"))
        ask_and_be_stopped();
    return cmocka_run_group_tests(tests, held_file_set_up, held_file_tear_down);
}
