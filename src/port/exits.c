/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "exits.h"

#include "../core/base.h"

#include <errno.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_PID_NAMESPACE 0xEFFFFFFCU /* PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h */
#define BUFFER_SIZE (4 * 1024 * 1024)
#define WAIT_US (200 * 1000)
#define WHAT_OFFSET (NLMSG_HDRLEN + sizeof(struct cn_msg))

typedef struct {
    int fd;
    pid_t tgid;
    int status;     /* -1 until known */
    gboolean early; /* the first thread has ended before others */
    gboolean lost;
} Watched;

struct SwExits {
    int fd; /* of the connector */

    /* protected by lock */
    SwMutex lock;
    GHashTable *by_fd;   /* int: owned Watched */
    GHashTable *by_tgid; /* pid_t: GSList of the Watched that have that number and are not known to have ended */
};

static int ask(int fd, guint32 operation)
{
    guint8 request[WHAT_OFFSET + sizeof operation];
    struct nlmsghdr head = {.nlmsg_len = sizeof request, .nlmsg_type = NLMSG_DONE, .nlmsg_pid = (guint32)getpid()};
    struct cn_msg message = {.id = {.idx = CN_IDX_PROC, .val = CN_VAL_PROC}, .len = sizeof operation};

    memcpy(request, &head, sizeof head);
    memcpy(request + NLMSG_HDRLEN, &message, sizeof message);
    memcpy(request + WHAT_OFFSET, &operation, sizeof operation);
    return send(fd, request, sizeof request, 0) == (ssize_t)sizeof request ? 0 : -errno;
}

/* Only exits wake us.  What a filter loads is taken for network order. */
static int filter_exits(int fd)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, WHAT_OFFSET),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, GUINT32_TO_BE(PROC_EVENT_EXIT), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = G_N_ELEMENTS(code), .filter = code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static int listen_to_kernel(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
    int size = BUFFER_SIZE;
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR);

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (filter_exits(fd) == 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        ask(fd, PROC_CN_MCAST_LISTEN) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

SwExits *sw_exits_new(void)
{
    struct stat st;
    SwExits *exits;
    int fd;

    /* Elsewhere the numbers told are not ours, or nothing is told. */
    if (stat("/proc/self/ns/pid", &st) < 0 || st.st_ino != FIRST_PID_NAMESPACE)
        return NULL;
    fd = listen_to_kernel();
    if (fd < 0)
        return NULL;
    exits = g_new0(SwExits, 1);
    exits->fd = fd;
    sw_mutex_init(&exits->lock);
    exits->by_fd = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    exits->by_tgid = g_hash_table_new(NULL, NULL);
    return exits;
}

void sw_exits_free(SwExits *exits)
{
    GHashTableIter iter;
    gpointer list;

    if (!exits)
        return;
    (void)ask(exits->fd, PROC_CN_MCAST_IGNORE); /* before 6.6 closing does not tell the kernel that nobody listens */
    (void)close(exits->fd);
    g_hash_table_iter_init(&iter, exits->by_tgid);
    while (g_hash_table_iter_next(&iter, NULL, &list))
        g_slist_free(list);
    g_hash_table_unref(exits->by_tgid);
    g_hash_table_unref(exits->by_fd);
    sw_mutex_clear(&exits->lock);
    g_free(exits);
}

static GSList *list_of(SwExits *exits, pid_t tgid)
{
    return g_hash_table_lookup(exits->by_tgid, GINT_TO_POINTER(tgid));
}

static void set_list(SwExits *exits, pid_t tgid, GSList *list)
{
    if (list)
        g_hash_table_insert(exits->by_tgid, GINT_TO_POINTER(tgid), list);
    else
        g_hash_table_remove(exits->by_tgid, GINT_TO_POINTER(tgid));
}

/* Whoever had the number before has ended: its exit was told before the number could be given away. */
static void forget_former(SwExits *exits, pid_t tgid)
{
    GSList *left = NULL;

    for (GSList *at = list_of(exits, tgid); at; at = at->next)
        if (((Watched *)at->data)->status == -1)
            left = g_slist_prepend(left, at->data);
    g_slist_free(list_of(exits, tgid));
    set_list(exits, tgid, left);
}

void sw_exits_add(SwExits *exits, int fd, pid_t tgid)
{
    Watched *watched = g_new0(Watched, 1);

    sw_exits_read(exits);
    *watched = (Watched){.fd = fd, .tgid = tgid, .status = -1};
    SW_HOLD(&exits->lock);
    forget_former(exits, tgid);
    g_hash_table_insert(exits->by_fd, GINT_TO_POINTER(fd), watched);
    set_list(exits, tgid, g_slist_prepend(list_of(exits, tgid), watched));
}

void sw_exits_remove(SwExits *exits, int fd)
{
    SW_HOLD(&exits->lock);
    Watched *watched = g_hash_table_lookup(exits->by_fd, GINT_TO_POINTER(fd));

    if (!watched)
        return;
    set_list(exits, watched->tgid, g_slist_remove(list_of(exits, watched->tgid), watched));
    g_hash_table_remove(exits->by_fd, GINT_TO_POINTER(fd));
}

static gboolean has_ended(const Watched *watched)
{
    struct pollfd ask = {.fd = watched->fd, .events = POLLIN};

    return TEMP_FAILURE_RETRY(poll(&ask, 1, 0)) == 1;
}

/* Each thread's exit is told.  All of a process that ends by a signal, or by exit_group(2), have its status; a thread
 * that ends before, be it the first, has 0. */
static void take_in(SwExits *exits, const struct proc_event *event)
{
    pid_t tid = event->event_data.exit.process_pid, tgid = event->event_data.exit.process_tgid;
    int status = (int)event->event_data.exit.exit_code;

    for (GSList *at = list_of(exits, tgid); at; at = at->next) {
        Watched *watched = at->data;
        gboolean ended = status || has_ended(watched);

        watched->early |= tid == tgid && !ended;
        if (status || (ended && watched->status == -1 && (tid == tgid || watched->early)))
            watched->status = status;
    }
}

/* FALSE: there is nothing more for now. */
static gboolean read_one(SwExits *exits)
{
    guint8 told[WHAT_OFFSET + sizeof(struct proc_event)];
    struct proc_event event = {0};
    struct sockaddr_nl from = {0};
    socklen_t size = sizeof from;
    ssize_t got;

    got = TEMP_FAILURE_RETRY(recvfrom(exits->fd, told, sizeof told, 0, (struct sockaddr *)&from, &size));
    if (got < 0)
        return errno == ENOBUFS; /* some were lost; there may be others behind that */
    /* Others than the kernel may send to the group as well. */
    if (from.nl_pid != 0 ||
        got < (ssize_t)(WHAT_OFFSET + G_STRUCT_OFFSET(struct proc_event, event_data) + sizeof event.event_data.exit))
        return TRUE;
    memcpy(&event, told + WHAT_OFFSET, got - WHAT_OFFSET); /* not aligned where it lies */
    if (event.what == PROC_EVENT_EXIT)
        take_in(exits, &event);
    return TRUE;
}

void sw_exits_read(SwExits *exits)
{
    SW_HOLD(&exits->lock);
    while (read_one(exits)) {
    }
}

/* TRUE when it is known, or when it need not be waited for any more. */
static gboolean is_settled(SwExits *exits, int fd, gboolean late, int *ret_status)
{
    SW_HOLD(&exits->lock);
    Watched *watched = g_hash_table_lookup(exits->by_fd, GINT_TO_POINTER(fd));

    *ret_status = watched ? watched->status : -1;
    if (watched && late)
        watched->lost = watched->status == -1;
    return !watched || watched->lost || watched->status != -1;
}

gboolean sw_exits_status(SwExits *exits, int fd, int *ret_status)
{
    struct pollfd news = {.fd = exits->fd, .events = POLLIN};
    gint64 deadline = g_get_monotonic_time() + WAIT_US, now;

    do {
        now = g_get_monotonic_time();
        sw_exits_read(exits);
        if (is_settled(exits, fd, now >= deadline, ret_status))
            break;
        (void)poll(&news, 1, (int)((deadline - now) / 1000) + 1);
    } while (now < deadline);
    return *ret_status != -1;
}
