/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * safewritefs: puts the layers together.
 *
 * Without -f the parent process waits until the mount answers, and then exits 0; when it never will, the reason has
 * been printed and it exits 32, as mount(8) wants.  Its child is the supervisor (supervisor.h), whose child the daemon.
 */
#include "core/ask.h"
#include "daemon.h"
#include "fuse/mounting.h"
#include "log/log.h"
#include "remount.h"
#include "source.h"
#include "supervisor.h"
#include "upgrade.h"

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

/* A daemon that does nothing for so long, and does not even wait for the source, is not going to. */
#define HANG_US (60 * G_USEC_PER_SEC)

void sw_daemon_note(gpointer data, SwNoteLevel level, const SwEvent *event, const char *text)
{
    const SwDaemon *d = data;
    sw_log_note(level, event, d->control ? sw_control_host_id(d->control) : NULL, text);
}

void sw_daemon_warn(gpointer data, const char *text)
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
    SwDaemon *d = data;
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
    const SwDaemon *d = data;
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
void sw_daemon_prepare(void)
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

static int find_source(SwDaemon *d, char **why)
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

static int open_source(SwDaemon *d, char **why)
{
    d->source_fd = openat(d->place_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->source_fd >= 0)
        return 0;
    *why = g_strdup_printf("source %s: %s", d->options.source, g_strerror(errno));
    return -errno;
}

static int check_mountpoint(SwDaemon *d, char **why)
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
    SwDaemon *d = data;
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
    SwDaemon *d = data;
    if (!sw_alive_is_due(&d->alive, d->port->now_us(d->port)))
        return;
    sw_supervisor_tell(d->supervisor_fd, SW_SAYS_ALIVE, NULL);
    if (d->options.foreground)
        sw_notify("WATCHDOG=1");
}

/* The mount answers. */
static void ready(gpointer data)
{
    SwDaemon *d = data;
    const char *host_id = sw_control_host_id(d->control);
    if (d->options.follow) {
        sw_log(SW_LOG_INFO, "goes on with %s on %s as host %s, programs waited for %" G_GINT64_FORMAT " ms",
               d->options.source, d->options.mountpoint, host_id, d->waited_us / 1000);
        if (d->options.foreground)
            sw_notify("STATUS=%s mounted on %s as host %s", d->options.source, d->options.mountpoint, host_id);
        return;
    }
    if (!d->options.foreground)
        leave_terminal(d);
    sw_supervisor_tell(d->supervisor_fd, SW_SAYS_ANSWERS, NULL);
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

static void change_settings(SwDaemon *d, const SwConfig *config)
{
    d->config = g_memdup2(config, sizeof *config);
    d->configs = g_slist_prepend(d->configs, d->config);
    sw_overlay_set_config(d->overlay, d->config);
    sw_control_set_limits(d->control, d->config);
}

/* `text` is what follows the verb. */
static char *remount(SwDaemon *d, const char *text, gboolean really)
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
        if (!d->remounted)
            d->remounted = g_ptr_array_new_with_free_func(g_free);
        sw_remount_remember(tokens, d->remounted);
        sw_supervisor_tell(d->supervisor_fd, SW_SAYS_CHANGED, text);
        sw_log(SW_LOG_INFO, "remounted: %s", strchr(text, '\n') + 1);
    }
    return g_strdup("ok");
}

static char *asked(gpointer data, const char *request)
{
    SwDaemon *d = data;
    if (g_str_has_prefix(request, SW_ASK_CHECK "\n"))
        return remount(d, request + strlen(SW_ASK_CHECK "\n"), FALSE);
    if (g_str_has_prefix(request, SW_ASK_CHANGE "\n"))
        return remount(d, request + strlen(SW_ASK_CHANGE "\n"), TRUE);
    if (g_str_has_prefix(request, SW_ASK_UPGRADE "\n"))
        return sw_upgrade_begin(d, request + strlen(SW_ASK_UPGRADE "\n"));
    if (strcmp(request, SW_ASK_UPGRADED "\n") == 0)
        return sw_upgrade_result(d);
    return refusal(g_strdup("this daemon knows no such request"));
}

char *sw_daemon_fuse_options(const SwDaemon *d)
{
    g_autofree char *text = sw_options_fuse_text(&d->options);
    return g_strconcat(text, geteuid() == 0 ? ",allow_other" : "", ",default_permissions", NULL);
}

void sw_daemon_open_port(SwDaemon *d)
{
    d->port = sw_port_posix_new();
    sw_port_posix_count(d->port, &d->metrics);
    sw_port_posix_suit(d->port, d->source_fd, sw_daemon_warn, NULL);
}

SwKeeper *sw_daemon_new_keeper(SwDaemon *d)
{
    SwKeeperEvents events = {.happened = happened, .data = d};
    return sw_keeper_new(d->port, d->control, d->options.config.lease_us, &events);
}

static int start_keeping(SwDaemon *d)
{
    d->keeping = sw_keeping_start(d->port, d->keeper);
    d->sentry = sw_sentry_start(d->port, d->control, d->options.config.lease_us, told_by_sentry, d);
    return d->keeping && d->sentry ? 0 : -EAGAIN;
}

static void attend(gpointer data)
{
    sw_upgrade_attend(data);
}

void sw_daemon_setup(SwDaemon *d, const char *fuse_options, SwServerSetup *ret_setup)
{
    *ret_setup = (SwServerSetup){.port = d->port, .overlay = d->overlay, .source = d->options.source};
    ret_setup->mountpoint = d->options.mountpoint;
    ret_setup->mount_options = d->options.mount_options;
    ret_setup->fuse_options = fuse_options;
    ret_setup->ready = ready;
    ret_setup->ready_data = d;
    ret_setup->trace = d->options.debug ? trace : NULL;
    ret_setup->attend = attend;
    ret_setup->alive = alive;
    ret_setup->asked = asked;
    d->alive = sw_alive_every(d->supervisor_fd >= 0 ? HANG_US : 0);
}

static int set_up(SwDaemon *d, char **why)
{
    int r = check_mountpoint(d, why);
    if (r == 0)
        r = open_source(d, why);
    if (r < 0)
        return r;
    sw_daemon_open_port(d);
    r = sw_control_open(d->port, d->source_fd, d->options.source, &d->options.config, &d->control, why);
    if (r < 0)
        return r;
    sw_control_on_note(d->control, sw_daemon_note, d);
    r = sw_overlay_new(d->port, d->control, &d->options.config, d->source_fd, sw_daemon_note, d, &d->overlay);
    if (r < 0) {
        *why = g_strdup_printf("cannot look at the source %s: %s", d->options.source, g_strerror(-r));
        return r;
    }
    d->keeper = sw_daemon_new_keeper(d);
    r = start_keeping(d);
    if (r < 0) {
        *why = g_strdup("cannot start another thread");
        return r;
    }
    g_autofree char *options = sw_daemon_fuse_options(d);
    SwServerSetup setup;
    sw_daemon_setup(d, options, &setup);
    return sw_server_new(&setup, &d->server, why);
}

static void tear_down(SwDaemon *d)
{
    sw_server_free(d->server);
    sw_sentry_stop(d->sentry);
    if (d->keeping)
        sw_keeping_retire(d->keeping);
    sw_overlay_free(d->overlay);
    sw_keeping_stop(d->keeping);
    g_slist_free_full(g_steal_pointer(&d->configs), g_free);
    g_clear_pointer(&d->remounted, g_ptr_array_unref);
    g_clear_pointer(&d->upgrade_to, g_free);
    g_clear_pointer(&d->upgrade_said, g_free);
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

/* Until the mount has ended. */
static int run(SwDaemon *d, int r, char *why)
{
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
    g_free(why);
    tear_down(d);
    return r < 0 ? SW_EXIT_MOUNT : EXIT_SUCCESS;
}

static int serve(SwDaemon *d)
{
    char *why = NULL;
    d->config = &d->options.config;
    sw_daemon_prepare();
    int r = set_up(d, &why);
    return run(d, r, why);
}

/* Goes on with the mount of another daemon.  Until it is our turn nothing may be cleaned up: all of it is the other's.
 */
static int follow(SwDaemon *d)
{
    d->config = &d->options.config;
    if (!d->options.foreground)
        sw_log_to_system();
    prctl(PR_SET_NAME, "safewritefs");
    sw_daemon_prepare();
    if (sw_upgrade_follow(d) < 0)
        _exit(SW_EXIT_MOUNT);
    if (start_keeping(d) < 0) {
        sw_log(SW_LOG_ERROR, "cannot start another thread");
        _exit(SW_EXIT_MOUNT);
    }
    return run(d, 0, NULL);
}

/* The supervisor's child. */
static int serve_supervised(gpointer data, int fd, gboolean again)
{
    SwDaemon *d = data;
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
    SwDaemon *d = data;
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
    SwDaemon *d = data;
    int r = sw_mounting_clear_dead(d->options.mountpoint);
    if (r < 0)
        sw_log(SW_LOG_WARNING, "the dead mount cannot be unmounted: %s", g_strerror(-r));
}

static void say(gboolean is_error, const char *text)
{
    const SwEvent event = {.kind = is_error ? SW_EVENT_GIVEN_UP : SW_EVENT_DAEMON_DIED};
    sw_log_event(is_error ? SW_LOG_ERROR : SW_LOG_WARNING, &event, "%s", text);
}

static int supervise(SwDaemon *d)
{
    SwSupervised what = {.serve = serve_supervised, .ready = leave_terminal, .left_dead = clear_dead, .say = say};
    what.data = d;
    what.hang_us = HANG_US;
    what.changed = changed;
    int status = sw_supervise(&what, SW_EXIT_MOUNT);
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
    return n == 1 ? EXIT_SUCCESS : SW_EXIT_MOUNT;
}

static int serve_in_background(SwDaemon *d)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0 || fflush(NULL) != 0) {
        sw_log(SW_LOG_ERROR, "cannot start in the background: %s", g_strerror(errno));
        return SW_EXIT_MOUNT;
    }
    pid_t child = fork();
    if (child < 0) {
        sw_log(SW_LOG_ERROR, "cannot start in the background: %s", g_strerror(errno));
        return SW_EXIT_MOUNT;
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
    static SwDaemon d = {
        .changing = PTHREAD_MUTEX_INITIALIZER, .place_fd = -1, .source_fd = -1, .parent_fd = -1, .supervisor_fd = -1};
    g_autofree char *why = NULL;
    sw_log_begin();
    if (sw_options_parse(argc, argv, SW_CONF_PATH, &d.options, &why) < 0) {
        sw_log(SW_LOG_ERROR, "%s", why);
        return SW_EXIT_MOUNT;
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
        return r < 0 ? SW_EXIT_MOUNT : EXIT_SUCCESS;
    }
    if (d.options.follow)
        return follow(&d);
    /* Still in the process that was called, which can be interrupted while it waits. */
    if (find_source(&d, &why) < 0) {
        sw_log(SW_LOG_ERROR, "%s", why);
        sw_options_clear(&d.options);
        return SW_EXIT_MOUNT;
    }
    return d.options.foreground ? serve(&d) : serve_in_background(&d);
}
