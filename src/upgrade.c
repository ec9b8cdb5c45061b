/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "upgrade.h"

#include "core/ask.h"
#include "follower.h"
#include "log/log.h"
#include "option_table.h"
#include "supervisor.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* For how long programs may be kept waiting, at most: until what is being served is done, and until the other daemon is
 * ready.  Others take this host for dead after its lease, of which the last beat may be a quarter old. */
#define DRAIN_US (2 * G_USEC_PER_SEC)
#define DRAINS_PER_LEASE 8
#define WHOLE_US (10 * G_USEC_PER_SEC)
#define WHOLES_PER_LEASE 4
#define TEXT_MAX (1u << 20)

/* ---- what is handed on */

/* Options are given to the follower as they were to this one, and the configuration file may have changed since. */
static void carry_setting(SwBundle *bundle, const SwOptionSpec *spec, const char *mine)
{
    g_autofree char *theirs = g_strdup(mine);

    if (sw_bundle_is_out(bundle)) {
        sw_bundle_text(bundle, &theirs, TEXT_MAX);
        return;
    }
    g_clear_pointer(&theirs, g_free);
    sw_bundle_text(bundle, &theirs, TEXT_MAX);
    if (!sw_option_may_change(spec) && g_strcmp0(theirs, mine) != 0)
        sw_bundle_fail(bundle, "option '%s' would change from '%s' to '%s': that takes an unmount", spec->name,
                       theirs ? theirs : "", mine ? mine : "");
}

static void carry_settings(SwBundle *bundle, const SwConfig *config)
{
    for (const SwOptionSpec *spec = sw_option_table(); spec->name; spec++) {
        g_autofree char *text = spec->kind == SW_OPTION_GLOBS ? sw_policy_text(&config->policy, spec->klass)
                                                              : sw_option_value_text(spec, config);
        if (text)
            carry_setting(bundle, spec, text);
    }
}

static void carry_same(SwBundle *bundle, const char *what, const char *mine)
{
    g_autofree char *theirs = NULL;
    char *text = (char *)mine;

    sw_bundle_text(bundle, sw_bundle_is_out(bundle) ? &text : &theirs, TEXT_MAX);
    if (!sw_bundle_is_out(bundle) && g_strcmp0(theirs, mine) != 0)
        sw_bundle_fail(bundle, "the %s is another one", what);
}

static void carry_numbers(SwBundle *bundle, guint64 *numbers, guint n)
{
    guint found = sw_bundle_count(bundle, n, 1u << 16);

    for (guint i = 0; i < found; i++) {
        guint64 number = i < n ? __atomic_load_n(&numbers[i], __ATOMIC_RELAXED) : 0;
        SW_BUNDLE(bundle, number);
        if (i < n)
            __atomic_store_n(&numbers[i], number, __ATOMIC_RELAXED);
    }
}

/* What another version counts beyond this is left out. */
static void carry_metrics(SwBundle *bundle, SwMetrics *metrics)
{
    G_STATIC_ASSERT(sizeof(SwHistogram) == (1 + SW_METRICS_BUCKETS) * sizeof(guint64));
    carry_numbers(bundle, metrics->counts, SW_COUNT_N);
    carry_numbers(bundle, (guint64 *)(void *)metrics->times, SW_TIMER_N * (1 + SW_METRICS_BUCKETS));
}

static void carry_daemon(SwDaemon *d, SwBundle *bundle)
{
    sw_bundle_mark(bundle, "daemon");
    carry_same(bundle, "source", d->options.source);
    carry_same(bundle, "mount point", d->options.mountpoint);
    carry_settings(bundle, d->config);
    sw_bundle_fd(bundle, &d->place_fd);
    sw_bundle_fd(bundle, &d->source_fd);
    sw_bundle_fd(bundle, &d->supervisor_fd);
    SW_BUNDLE(bundle, d->paused_us);
    carry_metrics(bundle, &d->metrics);
}

/* ---- the daemon that is followed */

static char *own_program(void)
{
    g_autofree char *program = g_file_read_link("/proc/self/exe", NULL);
    static const char deleted[] = " (deleted)"; /* a package has put another in its place */

    if (program && g_str_has_suffix(program, deleted))
        program[strlen(program) - strlen(deleted)] = '\0';
    return g_steal_pointer(&program);
}

/* The options of this daemon, with what was changed since. */
static char **arguments_of(SwDaemon *d, const char *program)
{
    GPtrArray *words = g_ptr_array_new();
    g_autoptr(GString) options = g_string_new(NULL);

    for (guint i = 0; i < d->options.given->len; i++)
        g_string_append_printf(options, ",%s", (const char *)d->options.given->pdata[i]);
    for (guint i = 0; d->remounted && i < d->remounted->len; i++)
        g_string_append_printf(options, ",%s", (const char *)d->remounted->pdata[i]);
    g_ptr_array_add(words, g_strdup(program));
    if (d->options.debug || d->options.foreground)
        g_ptr_array_add(words, g_strdup(d->options.debug ? "-d" : "-f"));
    if (d->options.sloppy)
        g_ptr_array_add(words, g_strdup("-s"));
    g_ptr_array_add(words, g_strdup("-o"));
    g_ptr_array_add(words, g_strdup(options->str));
    g_ptr_array_add(words, g_strdup("--"));
    g_ptr_array_add(words, g_strdup(d->options.source));
    g_ptr_array_add(words, g_strdup(d->options.mountpoint));
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(words, FALSE);
}

/* A signal that only this process has got. */
static gboolean is_to_end(void)
{
    sigset_t pending;

    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT) || sigismember(&pending, SIGHUP));
}

/* Everything stands still. */
static void hand_on(SwDaemon *d, const char *program, gint64 until_us, char **ret_why)
{
    g_autoptr(SwBundle) bundle = sw_bundle_new();
    g_auto(GStrv) arguments = arguments_of(d, program);
    g_autofree char *pid = NULL;
    SwFollower follower;
    int r;

    carry_daemon(d, bundle);
    sw_control_carry(d->control, bundle);
    sw_overlay_carry(d->overlay, bundle);
    sw_server_carry(d->server, bundle);
    if (sw_bundle_failed(bundle)) {
        *ret_why = g_strdup_printf("there is something that cannot be handed on now: %s", sw_bundle_failed(bundle));
        return;
    }
    r = sw_follower_start(arguments, bundle, &follower);
    if (r < 0) {
        *ret_why = g_strdup_printf("cannot start %s: %s", program, g_strerror(-r));
        return;
    }
    if (sw_follower_await(&follower, until_us, ret_why) < 0) {
        sw_follower_dismiss(&follower);
        return;
    }
    if (is_to_end()) {
        *ret_why = g_strdup("the daemon is to end");
        sw_follower_dismiss(&follower);
        return;
    }
    pid = g_strdup_printf("%d", (int)follower.pid);
    sw_supervisor_tell(d->supervisor_fd, SW_SAYS_FOLLOWED, pid);
    if (d->options.foreground)
        sw_notify("MAINPID=%s", pid);
    sw_follower_go(&follower);
    _exit(0);
}

/* Returns when it did not come to that: why. */
static char *upgrade(SwDaemon *d, const char *program)
{
    gint64 began_us = g_get_monotonic_time(), lease_us = d->config->lease_us;
    gint64 drained_us = began_us + MIN(DRAIN_US, lease_us / DRAINS_PER_LEASE);
    char *why = NULL;

    d->paused_us = began_us;
    if (!sw_keeping_pause(d->keeping, drained_us))
        return g_strdup("the source is waited for");
    if (sw_server_pause(d->server, drained_us, &why)) {
        hand_on(d, program, began_us + MIN(WHOLE_US, lease_us / WHOLES_PER_LEASE), &why);
        sw_server_go_on(d->server);
    }
    sw_keeping_go_on(d->keeping);
    return why;
}

static char *take_program(SwDaemon *d)
{
    SW_HOLD(&d->changing);
    return g_steal_pointer(&d->upgrade_to);
}

static void say(SwDaemon *d, char *answer)
{
    SW_HOLD(&d->changing);
    g_free(d->upgrade_said);
    d->upgrade_said = answer;
}

void sw_upgrade_attend(SwDaemon *d)
{
    g_autofree char *program = take_program(d), *why = NULL;

    if (!program)
        return;
    sw_log(SW_LOG_INFO, "%s is to go on with the mount", program);
    why = upgrade(d, program);
    sw_log(SW_LOG_WARNING, "%s does not go on with the mount, this daemon does: %s", program, why);
    say(d, g_strdup_printf("no %s", why));
}

char *sw_upgrade_begin(SwDaemon *d, const char *program)
{
    g_autofree char *chosen = *program ? g_strdup(program) : own_program();

    if (d->options.foreground && !g_getenv("NOTIFY_SOCKET"))
        return g_strdup(
            "no the daemon runs in the foreground, and is no service: who started it would take it for dead");
    if (!chosen || *chosen != '/' || access(chosen, X_OK) < 0)
        return g_strdup_printf("no %s is no program with a full path", chosen ? chosen : "that");
    SW_HOLD(&d->changing);
    if (d->upgrade_to)
        return g_strdup("no there is another upgrade under way");
    g_clear_pointer(&d->upgrade_said, g_free);
    d->upgrade_to = g_steal_pointer(&chosen);
    return g_strdup("ok");
}

char *sw_upgrade_result(SwDaemon *d)
{
    SW_HOLD(&d->changing);
    return g_strdup(d->upgrade_said ? d->upgrade_said : "wait");
}

/* ---- the daemon that follows */

static int take_over(SwDaemon *d, SwBundle *bundle, char **ret_why)
{
    g_autofree char *fuse_options = sw_daemon_fuse_options(d);
    SwServerSetup setup;

    carry_daemon(d, bundle);
    if (sw_bundle_failed(bundle))
        return -EPROTO;
    sw_daemon_open_port(d);
    d->control = sw_control_resume(d->port, d->options.source, d->config, bundle);
    sw_control_on_note(d->control, sw_daemon_note, d);
    if (sw_bundle_failed(bundle))
        return -EPROTO;
    d->overlay = sw_overlay_resume(d->port, d->control, d->config, d->source_fd, sw_daemon_note, d, bundle);
    if (sw_bundle_failed(bundle))
        return -EPROTO;
    d->keeper = sw_daemon_new_keeper(d);
    sw_daemon_setup(d, fuse_options, &setup);
    return sw_server_follow(&setup, bundle, &d->server, ret_why);
}

int sw_upgrade_follow(SwDaemon *d)
{
    g_autofree char *why = NULL;
    int socket = -1, r;
    SwBundle *bundle = sw_follower_receive(d->options.follow, &socket);

    if (!bundle)
        return -EINVAL;
    r = take_over(d, bundle, &why);
    sw_bundle_end(bundle);
    if (r == 0 && sw_bundle_failed(bundle))
        r = -EPROTO;
    if (r < 0 && !why)
        why = g_strdup_printf("the new daemon does not understand the state of this one: %s",
                              sw_bundle_failed(bundle) ? sw_bundle_failed(bundle) : g_strerror(-r));
    if (!sw_follower_answer(socket, why))
        return -ECANCELED;
    close(socket);
    sw_bundle_free(bundle);
    d->waited_us = g_get_monotonic_time() - d->paused_us;
    say(d, g_strdup_printf("ok %s %" G_GINT64_FORMAT, SW_VERSION, d->waited_us));
    return 0;
}
