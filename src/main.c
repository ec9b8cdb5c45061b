/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * safewritefs: puts the layers together.
 *
 * Without -f the parent process waits until the mount answers, and then exits 0; when it never will, the reason has
 * been printed and it exits 32, as mount(8) wants.  Its child is the supervisor (supervisor.h), whose child the daemon.
 */
#include "core/ask.h"
#include "core/base.h"
#include "core/config.h"
#include "fuse/keeping.h"
#include "fuse/mounting.h"
#include "fuse/sentry.h"
#include "fuse/server.h"
#include "lease/control.h"
#include "lease/keeper.h"
#include "log/log.h"
#include "notify.h"
#include "options.h"
#include "overlay/overlay.h"
#include "port/port.h"
#include "remount.h"
#include "source.h"
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* mount(8): "mount failure".  Also for options that are no good: no file system is mounted, for that reason. */
enum { EXIT_MOUNT = 32 };

/* A daemon that does nothing for so long, and does not even wait for the source, is not going to. */
#define HANG_US (60 * G_USEC_PER_SEC)

typedef struct {
    SwOptions options;
    int place_fd; /* the source, O_PATH: what its name led to before anything was mounted */
    SwPort *port;
    int source_fd;
    SwControl *control;
    SwKeeper *keeper;
    SwKeeping *keeping;
    SwSentry *sentry;
    SwOverlay *overlay;
    SwServer *server;
    SwMetrics metrics;
    int parent_fd;     /* where the parent waits, or -1 */
    int supervisor_fd; /* for sw_supervisor_tell, or -1 */
    SwAlive alive;
    /* The settings in force, of which `options` has those that it was mounted with. */
    SwMutex changing;
    SwConfig *config; /* protected by changing */
    GSList *configs;  /* protected by changing: all there were since, for some thread may still look at one (owned) */
} Daemon;

static void note(gpointer data, SwNoteLevel level, const SwEvent *event, const char *text)
{
    static const SwLogLevel levels[] = {SW_LOG_DEBUG, SW_LOG_INFO, SW_LOG_WARNING};
    const Daemon *d = data;
    SwEvent known = *event;

    if (!known.host_id && d->control)
        known.host_id = sw_control_host_id(d->control);
    sw_log_event(levels[level], &known, "%s", text);
}

static void warn(gpointer data, const char *text)
{
    (void)data;
    sw_log(SW_LOG_WARNING, "%s", text);
}

static void trace(const char *text)
{
    sw_log(SW_LOG_DEBUG, "%s", text);
}

/* What the keeper has to say, to people and to the overlay. */
static void happened(gpointer data, SwKeeperWhat what, const char *host_id, int error)
{
    static const SwEventKind kinds[] = {[SW_KEEPER_REJOINED] = SW_EVENT_REJOINED,
                                        [SW_KEEPER_LOST] = SW_EVENT_FENCED,
                                        [SW_KEEPER_BROKE] = SW_EVENT_HOST_BROKEN,
                                        [SW_KEEPER_BURIED] = SW_EVENT_HOST_BURIED};
    Daemon *d = data;
    SwEvent event = {.kind = kinds[what], .host_id = host_id};
    switch (what) {
    case SW_KEEPER_REJOINED:
        sw_log_event(SW_LOG_WARNING, &event,
                     "this host was silent for too long and others went on without it: rejoined as host %s, "
                     "what was being written is in salvage",
                     host_id);
        sw_overlay_fenced(d->overlay);
        sw_count(d->port, SW_COUNT_REJOINS, 1);
        break;
    case SW_KEEPER_LOST:
        sw_log_event(SW_LOG_WARNING, &event, "host %s was taken for dead, and cannot rejoin yet: %s", host_id,
                     g_strerror(-error));
        break;
    case SW_KEEPER_BROKE:
        sw_log_event(SW_LOG_INFO, &event, "host %s was silent for its lease: broken, what it was writing is in salvage",
                     host_id);
        sw_count(d->port, SW_COUNT_HOSTS_BROKEN, 1);
        break;
    case SW_KEEPER_BURIED:
        sw_log_event(SW_LOG_INFO, &event,
                     "host %s, a mount of this machine, is dead: what it was writing is in salvage", host_id);
        sw_count(d->port, SW_COUNT_HOSTS_BURIED, 1);
        break;
    }
}

/* The source does not answer any more, or does again. */
static void told_by_sentry(gpointer data, gboolean silent, gint64 for_us)
{
    const Daemon *d = data;
    SwEvent event = {.kind = silent ? SW_EVENT_SOURCE_LOST : SW_EVENT_SOURCE_FOUND};
    event.host_id = sw_control_host_id(d->control);
    event.reason = silent ? "silent" : NULL;
    double seconds = for_us / (double)G_USEC_PER_SEC;
    if (silent)
        sw_log_event(SW_LOG_WARNING, &event, "the source %s has not answered for %.0f s", d->options.source, seconds);
    else
        sw_log_event(SW_LOG_INFO, &event, "the source %s answers again, after %.0f s", d->options.source, seconds);
}

/* Limits and rights of the process.  A user's quota and the blocks reserved for root must bind the daemon when it acts
 * as that user, so the capability that overrides them goes, once the descriptor limit is up. */
static void prepare_process(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    umask(0);
    if (geteuid() != 0)
        return;
    /* Memory that the kernel reclaims through this mount must not wait for the mount (prctl(2)). */
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2];
    if (syscall(SYS_capget, &header, caps) == 0) {
        caps[0].effective &= ~(1u << CAP_SYS_RESOURCE);
        caps[0].permitted &= ~(1u << CAP_SYS_RESOURCE);
        caps[0].inheritable &= ~(1u << CAP_SYS_RESOURCE);
        syscall(SYS_capset, &header, caps);
    }
}

/* Does the mount point cover the source, because it is the same directory or one above it? */
static gboolean is_covered(const SwOptions *options)
{
    gsize length = strlen(options->mountpoint);
    const char *source = options->source;
    return g_str_has_prefix(source, options->mountpoint) && (source[length] == '/' || source[length] == '\0');
}

/* A dead mount over the source has to go before the source can be found.  For that moment the source lies open; a
 * supervised daemon, which has the source from before, does not come here. */
static int uncover_source(const SwOptions *options, char **why)
{
    int r = is_covered(options) ? sw_mounting_clear_dead(options->mountpoint) : 0;
    if (r < 0)
        *why = g_strdup_printf("%s is a dead mount and cannot be unmounted: %s", options->mountpoint, g_strerror(-r));
    return r;
}

/* The source is waited for, which may be for longer than systemd would wait for us. */
static void tell_of_wait(gpointer data, const char *text, gint64 wait_us)
{
    gboolean *waited = data;
    *waited = TRUE;
    const SwEvent event = {.kind = SW_EVENT_SOURCE_LOST, .reason = "not-mounted"};
    sw_log_event(SW_LOG_INFO, &event, "%s", text);
    sw_notify("STATUS=%s\nEXTEND_TIMEOUT_USEC=%" G_GINT64_FORMAT, text, wait_us + 30 * G_USEC_PER_SEC);
}

static int find_source(Daemon *d, char **why)
{
    gboolean waited = FALSE;
    int r = uncover_source(&d->options, why);
    if (r < 0)
        return r;
    r = sw_source_find(d->options.source, &d->options.config, tell_of_wait, &waited, &d->place_fd, why);
    if (r == 0 && waited) {
        const SwEvent event = {.kind = SW_EVENT_SOURCE_FOUND};
        sw_log_event(SW_LOG_INFO, &event, "source %s is there", d->options.source);
    }
    return r;
}

static int open_source(Daemon *d, char **why)
{
    d->source_fd = openat(d->place_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->source_fd >= 0)
        return 0;
    *why = g_strdup_printf("source %s: %s", d->options.source, g_strerror(errno));
    return -errno;
}

static int check_mountpoint(Daemon *d, char **why)
{
    const char *mountpoint = d->options.mountpoint;
    struct stat st;
    /* It is replaced when all else is ready. */
    if (sw_mounting_is_dead(mountpoint))
        return 0;
    if (stat(mountpoint, &st) < 0) {
        *why = g_strdup_printf("mount point %s: %s", mountpoint, g_strerror(errno));
        return -errno;
    }
    if (!S_ISDIR(st.st_mode)) {
        *why = g_strdup_printf("mount point %s is not a directory", mountpoint);
        return -ENOTDIR;
    }
    return 0;
}

/* The parent may go, and with it the terminal.  Not before: under x-systemd.automount whoever is not of systemd's
 * process group waits at the mount point for the mount to be made, and that goes for who makes it as well. */
static void leave_terminal(gpointer data)
{
    Daemon *d = data;
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd < 3; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
    sw_log_to_system();
    if (d->parent_fd < 0)
        return;
    if (write(d->parent_fd, "", 1) != 1)
        sw_log(SW_LOG_DEBUG, "nobody waits for the mount any more");
    close(d->parent_fd);
    d->parent_fd = -1;
}

/* Those who would kill a daemon that hangs hear that it does not. */
static void alive(gpointer data)
{
    Daemon *d = data;
    if (!sw_alive_is_due(&d->alive, d->port->now_us(d->port)))
        return;
    sw_supervisor_tell(d->supervisor_fd, SW_SAYS_ALIVE, NULL);
    if (d->options.foreground)
        sw_notify("WATCHDOG=1");
}

/* The mount answers. */
static void ready(gpointer data)
{
    Daemon *d = data;
    if (!d->options.foreground)
        leave_terminal(d);
    sw_supervisor_tell(d->supervisor_fd, SW_SAYS_ANSWERS, NULL);
    const char *host_id = sw_control_host_id(d->control);
    g_autofree char *libfuse = sw_server_libfuse();
    const SwEvent event = {.kind = SW_EVENT_MOUNTED, .host_id = host_id};
    sw_log_event(SW_LOG_INFO, &event, "%s mounted on %s as host %s, by %s", d->options.source, d->options.mountpoint,
                 host_id, libfuse);
    if (d->options.foreground)
        sw_notify("READY=1\nSTATUS=%s mounted on %s as host %s", d->options.source, d->options.mountpoint, host_id);
}

/* ---- requests */

static char *refusal(char *why)
{
    g_autofree char *said = why;
    return g_strconcat("no ", said, NULL);
}

static void change_settings(Daemon *d, const SwConfig *config)
{
    d->config = g_memdup2(config, sizeof *config);
    d->configs = g_slist_prepend(d->configs, d->config);
    sw_overlay_set_config(d->overlay, d->config);
    sw_control_set_limits(d->control, d->config);
}

/* `text` is what follows the verb. */
static char *remount(Daemon *d, const char *text, gboolean really)
{
    g_autofree char *source = NULL;
    g_autoptr(GPtrArray) tokens = NULL;
    SwConfig config;
    char *why = NULL;
    if (!sw_remount_split(text, &source, &tokens))
        return refusal(g_strdup("that is no request"));
    if (strcmp(source, d->options.source) != 0)
        return refusal(g_strdup_printf("what is mounted there is %s, not %s", d->options.source, source));
    SW_HOLD(&d->changing);
    if (sw_remount_settings(&d->options, d->config, tokens, &config, &why) < 0)
        return refusal(why);
    if (really) {
        change_settings(d, &config);
        sw_supervisor_tell(d->supervisor_fd, SW_SAYS_CHANGED, text);
        sw_log(SW_LOG_INFO, "remounted: %s", strchr(text, '\n') + 1);
    }
    return g_strdup("ok");
}

static char *asked(gpointer data, const char *request)
{
    Daemon *d = data;
    if (g_str_has_prefix(request, SW_ASK_CHECK "\n"))
        return remount(d, request + strlen(SW_ASK_CHECK "\n"), FALSE);
    if (g_str_has_prefix(request, SW_ASK_CHANGE "\n"))
        return remount(d, request + strlen(SW_ASK_CHANGE "\n"), TRUE);
    return refusal(g_strdup("this daemon knows no such request"));
}

static char *fuse_options(const SwOptions *options)
{
    g_autofree char *text = sw_options_fuse_text(options);
    return g_strconcat(text, geteuid() == 0 ? ",allow_other" : "", ",default_permissions", NULL);
}

static int set_up(Daemon *d, char **why)
{
    int r = check_mountpoint(d, why);
    if (r == 0)
        r = open_source(d, why);
    if (r < 0)
        return r;
    d->port = sw_port_posix_new();
    sw_port_posix_count(d->port, &d->metrics);
    sw_port_posix_suit(d->port, d->source_fd, warn, NULL);
    r = sw_control_open(d->port, d->source_fd, d->options.source, &d->options.config, &d->control, why);
    if (r < 0)
        return r;
    sw_control_on_note(d->control, note, d);
    r = sw_overlay_new(d->port, d->control, &d->options.config, d->source_fd, note, d, &d->overlay);
    if (r < 0) {
        *why = g_strdup_printf("cannot look at the source %s: %s", d->options.source, g_strerror(-r));
        return r;
    }
    SwKeeperEvents events = {.happened = happened, .data = d};
    d->keeper = sw_keeper_new(d->port, d->control, d->options.config.lease_us, &events);
    d->keeping = sw_keeping_start(d->port, d->keeper);
    d->sentry = sw_sentry_start(d->port, d->control, d->options.config.lease_us, told_by_sentry, d);
    if (!d->keeping || !d->sentry) {
        *why = g_strdup("cannot start another thread");
        return -EAGAIN;
    }
    g_autofree char *options = fuse_options(&d->options);
    SwServerSetup setup = {.port = d->port, .overlay = d->overlay, .source = d->options.source};
    setup.mountpoint = d->options.mountpoint;
    setup.mount_options = d->options.mount_options;
    setup.fuse_options = options;
    setup.ready = ready;
    setup.ready_data = d;
    setup.trace = d->options.debug ? trace : NULL;
    setup.alive = alive;
    setup.asked = asked;
    d->alive = sw_alive_every(d->supervisor_fd >= 0 ? HANG_US : 0);
    return sw_server_new(&setup, &d->server, why);
}

static void tear_down(Daemon *d)
{
    sw_server_free(d->server);
    sw_sentry_stop(d->sentry);
    if (d->keeping)
        sw_keeping_retire(d->keeping);
    sw_overlay_free(d->overlay);
    sw_keeping_stop(d->keeping);
    g_slist_free_full(g_steal_pointer(&d->configs), g_free);
    sw_keeper_free(d->keeper);
    int left = sw_control_close(d->control);
    if (left < 0)
        sw_log(SW_LOG_INFO, "the entry of this host stays in the source until the next mount removes it: %s",
               g_strerror(-left));
    sw_port_free(d->port);
    if (d->source_fd >= 0)
        close(d->source_fd);
    if (d->place_fd >= 0)
        close(d->place_fd);
    sw_options_clear(&d->options);
    sw_log_finish();
}

static int serve(Daemon *d)
{
    g_autofree char *why = NULL;
    d->config = &d->options.config;
    prepare_process();
    int r = set_up(d, &why);
    if (r == 0) {
        r = sw_server_run(d->server);
        if (r < 0)
            why = g_strdup("the kernel did not take up the mount");
        sw_supervisor_tell(d->supervisor_fd, SW_SAYS_ENDING, NULL);
        if (d->options.foreground)
            sw_notify("STOPPING=1\nSTATUS=unmounting\nWATCHDOG_USEC=0");
    }
    if (r < 0)
        sw_log(SW_LOG_ERROR, "%s", why ? why : g_strerror(-r));
    tear_down(d);
    return r < 0 ? EXIT_MOUNT : EXIT_SUCCESS;
}

/* The supervisor's child. */
static int serve_supervised(gpointer data, int fd, gboolean again)
{
    Daemon *d = data;
    /* The parent learns of a failure when the last copy is closed. */
    if (d->parent_fd >= 0)
        close(d->parent_fd);
    d->parent_fd = -1;
    d->supervisor_fd = fd;
    if (!again || sw_mounting_is_dead(d->options.mountpoint))
        return serve(d);
    sw_log(SW_LOG_INFO, "the dead mount has been unmounted: the daemon does not come back");
    return EXIT_SUCCESS;
}

/* What was mounted has other options by now, which the next daemon begins with. */
static void changed(gpointer data, const char *text)
{
    Daemon *d = data;
    g_autofree char *source = NULL, *why = NULL;
    g_autoptr(GPtrArray) tokens = NULL;
    SwConfig config;
    if (!sw_remount_split(text, &source, &tokens) ||
        sw_remount_settings(&d->options, &d->options.config, tokens, &config, &why) < 0)
        return;
    d->options.config = config;
    sw_remount_flags(&d->options, tokens);
}

static void clear_dead(gpointer data)
{
    Daemon *d = data;
    int r = sw_mounting_clear_dead(d->options.mountpoint);
    if (r < 0)
        sw_log(SW_LOG_WARNING, "the dead mount cannot be unmounted: %s", g_strerror(-r));
}

static void say(gboolean is_error, const char *text)
{
    const SwEvent event = {.kind = is_error ? SW_EVENT_GIVEN_UP : SW_EVENT_DAEMON_DIED};
    sw_log_event(is_error ? SW_LOG_ERROR : SW_LOG_WARNING, &event, "%s", text);
}

static int supervise(Daemon *d)
{
    SwSupervised what = {.serve = serve_supervised, .ready = leave_terminal, .left_dead = clear_dead, .say = say};
    what.data = d;
    what.hang_us = HANG_US;
    what.changed = changed;
    int status = sw_supervise(&what, EXIT_MOUNT);
    sw_options_clear(&d->options);
    sw_log_finish();
    return status;
}

/* Waits for the byte that says "mounted"; its absence means that the child has said why not. */
static int wait_for_child(int fd)
{
    char byte;
    ssize_t n;
    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    return n == 1 ? EXIT_SUCCESS : EXIT_MOUNT;
}

static int serve_in_background(Daemon *d)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0 || fflush(NULL) != 0) {
        sw_log(SW_LOG_ERROR, "cannot start in the background: %s", g_strerror(errno));
        return EXIT_MOUNT;
    }
    pid_t child = fork();
    if (child < 0) {
        sw_log(SW_LOG_ERROR, "cannot start in the background: %s", g_strerror(errno));
        return EXIT_MOUNT;
    }
    if (child > 0) {
        close(ends[1]);
        sw_options_clear(&d->options);
        return wait_for_child(ends[0]);
    }
    close(ends[0]);
    if (chdir("/") < 0)
        sw_log(SW_LOG_DEBUG, "cannot leave the working directory");
    d->parent_fd = ends[1];
    return d->options.config.restart == SW_RESTART_YES ? supervise(d) : serve(d);
}

static void print_version(void)
{
    g_autofree char *libfuse = sw_server_libfuse();
    printf("safewritefs %s\n%s\n", SW_VERSION, libfuse);
}

int main(int argc, char **argv)
{
    static Daemon d = {
        .changing = PTHREAD_MUTEX_INITIALIZER, .place_fd = -1, .source_fd = -1, .parent_fd = -1, .supervisor_fd = -1};
    g_autofree char *why = NULL;
    sw_log_begin();
    if (sw_options_parse(argc, argv, SW_CONF_PATH, &d.options, &why) < 0) {
        sw_log(SW_LOG_ERROR, "%s", why);
        return EXIT_MOUNT;
    }
    if (d.options.show_help)
        sw_options_print_help(stdout);
    if (d.options.show_version)
        print_version();
    if (d.options.show_help || d.options.show_version || d.options.check_only) {
        sw_options_clear(&d.options);
        return EXIT_SUCCESS;
    }
    sw_log_about(d.options.mountpoint, d.options.source);
    for (guint i = 0; i < d.options.warnings->len; i++)
        sw_log(SW_LOG_WARNING, "%s", (const char *)d.options.warnings->pdata[i]);
    if (d.options.debug)
        sw_log_set_level(SW_LOG_DEBUG);
    if (d.options.remount) {
        int r = sw_remount(&d.options, &why);
        if (r < 0)
            sw_log(SW_LOG_ERROR, "%s", why);
        sw_options_clear(&d.options);
        return r < 0 ? EXIT_MOUNT : EXIT_SUCCESS;
    }
    /* Still in the process that was called, which can be interrupted while it waits. */
    if (find_source(&d, &why) < 0) {
        sw_log(SW_LOG_ERROR, "%s", why);
        sw_options_clear(&d.options);
        return EXIT_MOUNT;
    }
    return d.options.foreground ? serve(&d) : serve_in_background(&d);
}
