/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounting, serving, and the end.
 */
#include "describe.h"
#include "mounting.h"
#include "readers.h"
#include "reply.h"
#include "server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Nothing that the ticker does is more urgent. */
#define TICK_MIN_US (50 * 1000)
/* A burst of requests leaves the allocator with an arena for each thread, which it would keep for good. */
#define TRIM_EVERY_US (10 * G_USEC_PER_SEC)
#define WAITERS_MAX 512
/* How long the kernel may take to greet a mount that succeeded. */
#define GREETING_US (30 * G_USEC_PER_SEC)

char *sw_server_libfuse(void)
{
    return g_strdup_printf("libfuse %s (%s)", fuse_pkgversion(), SW_LIBFUSE);
}

static char *describe(gpointer data, const void *message, gsize size)
{
    return sw_request_describe(data, message, size);
}

static struct fuse_session *session_new(SwServer *server)
{
    g_autofree char *options = g_strconcat("-o", server->setup.fuse_options, NULL);
    char *argv[] = {"safewritefs", options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, argv);
    struct fuse_session *session = fuse_session_new(&args, &sw_fuse_ops, sizeof sw_fuse_ops, server);
    fuse_opt_free_args(&args);
    return session;
}

/* With a negative offset the kernel drops no pages. */
static void forget_cached(gpointer data, SwNode *node, SwStale what)
{
    SwServer *server = data;
    /* The kernel may have forgotten the node as well. */
    (void)fuse_lowlevel_notify_inval_inode(server->session, sw_ino_of(server->overlay, node),
                                           what == SW_STALE_ALL ? 0 : -1, 0);
}

/*
 * Before the first request is read, for any of them may be a close(2), which needs it for its verdict (C3).  The kernel
 * answers this by itself (fuse_update_get_attr in fs/fuse/dir.c).
 */
static gboolean learn_device(SwServer *server)
{
    struct statx stx;
    if (statx(AT_FDCWD, server->setup.mountpoint, AT_STATX_DONT_SYNC, 0, &stx) < 0)
        return FALSE;
    sw_overlay_set_device(server->overlay, makedev(stx.stx_dev_major, stx.stx_dev_minor));
    return TRUE;
}

static int mount_afresh(SwServer *server, const char *place, char **ret_why)
{
    if (fuse_session_mount(server->session, place) == 0)
        return 0;
    *ret_why = g_strdup_printf("cannot mount on %s", server->setup.mountpoint);
    return -EIO;
}

static int replace_dead(SwServer *server, char **ret_why)
{
    SwMounting mounting = {server->setup.source, server->setup.mountpoint, server->setup.mount_options};
    int fd, r = sw_mounting_replace_dead(&mounting, &fd, &server->covers_dead, ret_why);
    if (r < 0)
        return r;
    server->is_own_mount = TRUE;
    /* What libfuse takes for a mount that somebody else made. */
    g_autofree char *place = g_strdup_printf("/dev/fd/%d", fd);
    return mount_afresh(server, place, ret_why);
}

static int mount_session(SwServer *server, char **ret_why)
{
    const char *mountpoint = server->setup.mountpoint;
    gboolean is_dead = sw_mounting_is_dead(mountpoint);
    int r = 0;
    if (is_dead && server->privileged) {
        r = replace_dead(server, ret_why);
        if (r != -ENOSYS && r != -EPERM)
            return r;
        g_clear_pointer(ret_why, g_free);
    }
    if (is_dead)
        r = sw_mounting_clear_dead(mountpoint);
    if (r == 0)
        return mount_afresh(server, mountpoint, ret_why);
    *ret_why = g_strdup_printf("%s is a dead mount and cannot be unmounted: %s", mountpoint, g_strerror(-r));
    return r;
}

/* Not if that is done already, for then another mount could be hit.  FALSE: ours is still there. */
static gboolean unmount_own(SwServer *server)
{
    struct pollfd poll_fd = {.fd = fuse_session_fd(server->session)};
    if (poll(&poll_fd, 1, 0) == 1 && poll_fd.revents & POLLERR)
        return TRUE;
    return sw_mounting_detach(server->setup.mountpoint) == 0;
}

static void unmount_session(SwServer *server)
{
    gboolean is_gone = TRUE;
    if (server->is_own_mount)
        is_gone = unmount_own(server);
    else if (server->mounted)
        fuse_session_unmount(server->session);
    /* What stays dead now is cleared by the next mount. */
    if (server->covers_dead && is_gone)
        (void)!sw_mounting_clear_dead(server->setup.mountpoint);
}

static SwServer *server_blank(const SwServerSetup *setup)
{
    SwServer *server = g_new0(SwServer, 1);
    server->setup = *setup;
    server->port = setup->port;
    server->overlay = setup->overlay;
    server->privileged = geteuid() == 0;
    sw_mutex_init(&server->ticking);
    return server;
}

static void equip(SwServer *server)
{
    server->serving = sw_serving_new(server->port);
    if (server->setup.trace)
        sw_serving_trace(server->serving, &(SwServedTrace){describe, server->setup.trace, server});
    server->workers = sw_workers_new(WAITERS_MAX);
    sw_overlay_on_stale(server->overlay, forget_cached, server);
}

int sw_server_new(const SwServerSetup *setup, SwServer **ret_server, char **ret_why)
{
    SwServer *server = server_blank(setup);
    server->session = session_new(server);
    if (!server->session) {
        *ret_why = g_strdup("libfuse does not accept the mount options");
        sw_mutex_clear(&server->ticking);
        g_free(server);
        return -EINVAL;
    }
    int r = mount_session(server, ret_why);
    server->mounted = r == 0;
    if (server->mounted && !learn_device(server)) {
        *ret_why = g_strdup_printf("cannot look at the mount on %s", setup->mountpoint);
        r = -EIO;
    }
    if (r < 0) {
        sw_server_free(server);
        return r;
    }
    equip(server);
    sw_server_direct_answers(server);
    server->locking = sw_locking_start(server->port, server->overlay);
    if (!server->locking) {
        *ret_why = g_strdup("cannot make threads");
        sw_server_free(server);
        return -EAGAIN;
    }
    *ret_server = server;
    return 0;
}

int sw_server_follow(const SwServerSetup *setup, SwBundle *bundle, SwServer **ret_server, char **ret_why)
{
    SwServer *server = server_blank(setup);
    int device, r;
    server->waiting = g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);
    sw_server_carry_state(server, bundle, &device);
    server->session = session_new(server);
    g_autofree char *place = g_strdup_printf("/dev/fd/%d", device);
    if (sw_bundle_failed(bundle) || !server->session || fuse_session_mount(server->session, place) != 0) {
        *ret_why = g_strdup_printf("cannot take over the mount: %s",
                                   sw_bundle_failed(bundle) ? sw_bundle_failed(bundle) : "libfuse does not accept it");
        return -EINVAL;
    }
    r = sw_greeting_again(&server->greeting, server->session);
    if (r < 0) {
        *ret_why = g_strdup_printf("it would agree with the kernel on something else than the daemon before (%s)",
                                   g_strerror(-r));
        return r;
    }
    server->mounted = server->is_own_mount = TRUE;
    equip(server);
    sw_overlay_tell_uring(server->overlay, "the daemon before this one had none");
    *ret_server = server;
    return 0;
}

/* Of one tick: whether there are requests that no reader has come to yet is asked once, if anybody wants to know. */
typedef struct {
    SwServer *server;
    gboolean asked, unread;
} Unanswered;

/* Its request may be among those, or is being served. */
static gboolean may_wait(gpointer data, pid_t tid)
{
    Unanswered *of = data;
    if (!of->asked) {
        struct pollfd device = {.fd = fuse_session_fd(of->server->session), .events = POLLIN};
        SwUring *uring = sw_server_uring(of->server);
        of->unread = (poll(&device, 1, 0) == 1 && (device.revents & POLLIN)) || (uring && sw_uring_has_unserved(uring));
        of->asked = TRUE;
    }
    return of->unread || sw_serving_has(of->server->serving, tid);
}

static void *ticker(void *data)
{
    SwServer *server = data;
    gint64 trimmed = server->port->now_us(server->port);
    while (!g_atomic_int_get(&server->stop)) {
        Unanswered unanswered = {.server = server};
        sw_mutex_lock(&server->ticking);
        gint64 next = sw_overlay_tick(server->overlay, may_wait, &unanswered);
        sw_mutex_unlock(&server->ticking);
        gint64 now = server->port->now_us(server->port);
        if (now - trimmed >= TRIM_EVERY_US) {
            malloc_trim(0);
            trimmed = now;
        }
        server->port->sleep_us(server->port, CLAMP(next - now, TICK_MIN_US, G_USEC_PER_SEC / 4));
    }
    return NULL;
}

/*
 * The mount answers: reports it.  The daemon does not look at it to see.  If it were killed while it asks itself, the
 * thread that waits for the answer would keep /dev/fuse open and wait for ever, and with it everybody who uses the
 * mount.
 */
static gboolean announce(SwServer *server)
{
    gint64 until = server->port->now_us(server->port) + GREETING_US;
    while (!g_atomic_int_get(&server->greeted) && !sw_readers_ended(server->readers) &&
           server->port->now_us(server->port) < until)
        g_usleep(500);
    if (!g_atomic_int_get(&server->greeted))
        return FALSE;
    server->setup.ready(server->setup.ready_data);
    return TRUE;
}

gboolean sw_server_is_sound(SwServer *server)
{
    SwUring *uring = sw_server_uring(server);
    return sw_readers_come_on(server->readers) && (!uring || sw_uring_comes_on(uring)) &&
           sw_overlay_tables_are_free(server->overlay);
}

/* Until a signal asks to end or the mount is gone. */
static void wait_for_end(SwServer *server, const sigset_t *signals)
{
    const struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};
    while (!sw_readers_ended(server->readers) && sigtimedwait(signals, NULL, &pause) < 0) {
        sw_serving_let_go(server->serving, sw_server_let_go, server);
        if (server->setup.attend)
            server->setup.attend(server->setup.ready_data);
        if (server->setup.alive && sw_server_is_sound(server))
            server->setup.alive(server->setup.ready_data);
    }
    fuse_session_exit(server->session);
}

static void block_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Those who waited for file locks wait in the same order as before. */
static gboolean serve_waiting(SwServer *server)
{
    server->locking = sw_locking_start(server->port, server->overlay);
    if (!server->locking)
        return FALSE;
    for (guint i = 0; i < server->waiting->len; i++) {
        GByteArray *message = server->waiting->pdata[i];
        sw_readers_serve(server->session, server->serving, message->data, message->len);
    }
    g_clear_pointer(&server->waiting, g_ptr_array_unref);
    return TRUE;
}

int sw_server_run(SwServer *server)
{
    pthread_t tick;
    sigset_t signals;
    block_signals(&signals);
    if (server->waiting && !serve_waiting(server))
        return -EAGAIN;
    server->readers = sw_readers_start(server);
    gboolean ticking = pthread_create(&tick, NULL, ticker, server) == 0;
    gboolean up = announce(server);
    if (up)
        wait_for_end(server, &signals);
    fuse_session_exit(server->session);
    sw_readers_stop(g_steal_pointer(&server->readers));
    sw_uring_stop(sw_server_uring(server));
    sw_locking_stop(server->locking);
    g_atomic_int_set(&server->stop, TRUE);
    if (ticking)
        pthread_join(tick, NULL);
    return up ? 0 : -EIO;
}

void sw_server_free(SwServer *server)
{
    if (!server)
        return;
    sw_workers_free(server->workers);
    sw_locking_free(server->locking);
    sw_uring_free(sw_server_uring(server));
    sw_serving_free(server->serving);
    unmount_session(server);
    fuse_session_destroy(server->session);
    sw_greeting_clear(&server->greeting);
    sw_mutex_clear(&server->ticking);
    g_free(server);
}
