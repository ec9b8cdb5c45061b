/* SPDX-License-Identifier: GPL-2.0-or-later */

/* doctor: what a mount needs of this machine. */

#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CONF_PATH "/etc/safewritefs.conf"
#define DESCRIPTORS_MIN 4096
#define FUSE3(major, minor) ((major)*1000 + (minor))

/* ---- the kernel */

static void check_kernel(SwFindings *findings)
{
    struct utsname system;
    guint major = 0, minor = 0;

    if (uname(&system) < 0 || sscanf(system.release, "%u.%u", &major, &minor) != 2)
        sw_finding(findings, SW_FINDING_WARNING, "kernel", NULL, "its version cannot be told");
    else if (FUSE3(major, minor) < FUSE3(6, 1))
        sw_finding(findings, SW_FINDING_ERROR, "kernel", "use Linux 6.1 or later", "Linux %s is too old",
                   system.release);
    else if (FUSE3(major, minor) < FUSE3(6, 6))
        sw_finding(findings, geteuid() == 0 ? SW_FINDING_OK : SW_FINDING_WARNING, "kernel",
                   "Linux 6.6 and, without any exception, 6.15 do better",
                   "Linux %s tells only root's daemon how a program ended: the lock files of a killed program wait for "
                   "its parent in the mounts of other users",
                   system.release);
    else if (FUSE3(major, minor) < FUSE3(6, 15))
        sw_finding(findings, SW_FINDING_OK, "kernel", NULL,
                   "Linux %s (before 6.15 a daemon in a pid namespace of its own, as in a container, may not be told "
                   "how a program ended; its lock files then wait for its parent)",
                   system.release);
    else
        sw_finding(findings, SW_FINDING_OK, "kernel", NULL, "Linux %s", system.release);
}

/* ---- FUSE */

static void check_device(SwFindings *findings)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fd >= 0)
        sw_finding(findings, SW_FINDING_OK, "fuse", NULL, "/dev/fuse can be opened");
    else if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        sw_finding(findings, SW_FINDING_ERROR, "fuse", "modprobe fuse; a container needs --device /dev/fuse",
                   "there is no /dev/fuse");
    else
        sw_finding(findings, SW_FINDING_ERROR, "fuse", "its mode should be 0666", "/dev/fuse cannot be opened: %s",
                   g_strerror(errno));
    if (fd >= 0)
        (void)close(fd);
}

/* What the daemon loads is of the same package as fusermount3, if it has none of its own. */
static void check_library(SwFindings *findings, const char *helper)
{
#ifdef SW_BUNDLED_LIBFUSE
    (void)helper;
    sw_finding(findings, SW_FINDING_OK, "libfuse", NULL, "libfuse %s is a part of the daemon", SW_BUNDLED_LIBFUSE);
#else
    g_autofree char *command = g_shell_quote(helper), *said = NULL, *line = g_strconcat(command, " --version", NULL);
    const char *number = NULL;
    guint major = 0, minor = 0;

    if (g_spawn_command_line_sync(line, &said, NULL, NULL, NULL))
        number = strpbrk(said, "0123456789"); /* of "fusermount3", first */
    if (number && strchr(number, ':'))
        number = strchr(number, ':') + 1;
    if (!number || sscanf(number, "%u.%u", &major, &minor) != 2)
        sw_finding(findings, SW_FINDING_WARNING, "libfuse", NULL, "%s does not tell its version", helper);
    else if (FUSE3(major, minor) < FUSE3(3, 14))
        sw_finding(findings, SW_FINDING_ERROR, "libfuse", "install libfuse 3.14 or later", "libfuse %u.%u is too old",
                   major, minor);
    else
        sw_finding(findings, SW_FINDING_OK, "libfuse", NULL, "libfuse %u.%u", major, minor);
#endif
}

static void check_helper(SwFindings *findings)
{
    g_autofree char *helper = g_find_program_in_path("fusermount3");
    SwFindingLevel lacking = geteuid() == 0 ? SW_FINDING_WARNING : SW_FINDING_ERROR;
    struct stat st;

    if (!helper || stat(helper, &st) < 0) {
        sw_finding(findings, lacking, "helper", "install the package fuse3",
                   "there is no fusermount3, without which only root can mount");
        return;
    }
    if (st.st_uid != 0 || !(st.st_mode & S_ISUID))
        sw_finding(findings, lacking, "helper", "chown root it, and chmod u+s",
                   "%s is not setuid root, so only root can mount", helper);
    else
        sw_finding(findings, SW_FINDING_OK, "helper", NULL, "%s lets users mount", helper);
    check_library(findings, helper);
}

/* ---- rights and limits */

/* Of root in a container much may have been taken away. */
static void check_rights(SwFindings *findings)
{
    g_autofree char *status = NULL;
    const char *line = NULL;
    guint64 rights = 0;

    if (geteuid() != 0) {
        sw_finding(findings, SW_FINDING_OK, "rights", NULL,
                   "uid %u: a mount would serve this user alone; root's serves everybody", geteuid());
        return;
    }
    if (g_file_get_contents("/proc/self/status", &status, NULL, NULL))
        line = strstr(status, "CapEff:");
    if (line)
        rights = g_ascii_strtoull(line + strlen("CapEff:"), NULL, 16);
    if (line && !(rights & (G_GUINT64_CONSTANT(1) << CAP_SYS_ADMIN)))
        sw_finding(findings, SW_FINDING_ERROR, "rights", "give the container CAP_SYS_ADMIN, or mount outside of it",
                   "root may not mount here");
    else
        sw_finding(findings, SW_FINDING_OK, "rights", NULL, "root: a mount serves all users");
}

static void check_limits(SwFindings *findings)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    if (limit.rlim_max < DESCRIPTORS_MIN)
        sw_finding(findings, SW_FINDING_WARNING, "limits", "raise the hard limit (ulimit -Hn, LimitNOFILE=)",
                   "a daemon may open %llu files only, and needs one for each that programs have open",
                   (unsigned long long)limit.rlim_max);
    else
        sw_finding(findings, SW_FINDING_OK, "limits", NULL, "a daemon may open %llu files",
                   (unsigned long long)limit.rlim_max);
}

/* ---- the configuration file */

/* Globs that take in everything: few can mean that.  `where` is what has the option. */
static void check_globs(SwFindings *findings, const char *where, const char *key, const char *value)
{
    static const struct {
        const char *key, *what;
    } keys[] = {{"through", "no file is protected by it"},
                {"locks", "every new file is taken for a lock file"},
                {"private", "no new file is seen by other hosts before it is renamed"},
                {"host-private", "no new file is seen by other hosts before it is renamed"},
                {"stream", "every file is seen half-written"}};
    g_auto(GStrv) globs = g_strsplit(*value == '+' ? value + 1 : value, ":", -1);
    gboolean all =
        g_strv_contains((const char *const *)globs, "*") || g_strv_contains((const char *const *)globs, "**");

    for (guint i = 0; all && i < G_N_ELEMENTS(keys); i++)
        if (strcmp(key, keys[i].key) == 0)
            sw_finding(findings, SW_FINDING_WARNING, "options", "name the files that are meant", "%s: %s=%s: %s", where,
                       key, value, keys[i].what);
}

static void check_group(SwFindings *findings, GKeyFile *file, const char *group)
{
    g_autofree char *where = g_strdup_printf("%s, [%s]", CONF_PATH, group);
    g_auto(GStrv) keys = g_key_file_get_keys(file, group, NULL, NULL);

    for (guint i = 0; keys && keys[i]; i++) {
        g_autofree char *value = g_key_file_get_value(file, group, keys[i], NULL);

        if (value)
            check_globs(findings, where, keys[i], value);
    }
}

static void check_fstab(SwFindings *findings)
{
    FILE *file = setmntent("/etc/fstab", "re");
    const struct mntent *line;

    while (file && (line = getmntent(file))) {
        g_auto(GStrv) options = g_strsplit(line->mnt_opts, ",", -1);
        g_autofree char *where = g_strdup_printf("/etc/fstab, %s", line->mnt_dir);

        if (strcmp(line->mnt_type, "safewritefs") != 0 && strcmp(line->mnt_type, "fuse.safewritefs") != 0)
            continue;
        for (guint i = 0; options[i]; i++) {
            char *value = strchr(options[i], '=');

            if (value) {
                *value = '\0';
                check_globs(findings, where, options[i], value + 1);
            }
        }
    }
    if (file)
        (void)endmntent(file);
}

/* The daemon's own parser says whether it would take the file. */
static void check_options(SwFindings *findings)
{
    const char *argv[] = {"safewritefs", "--check", "/source", "/mountpoint", NULL};
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_auto(GStrv) groups = NULL;
    g_autofree char *said = NULL;
    int status = 0;

    if (!g_file_test(CONF_PATH, G_FILE_TEST_EXISTS)) {
        sw_finding(findings, SW_FINDING_OK, "options", NULL, "there is no %s: the defaults are in force", CONF_PATH);
        return;
    }
    if (g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL,
                     &said, &status, NULL) &&
        status != 0)
        sw_finding(findings, SW_FINDING_ERROR, "options", "nothing can be mounted until that is mended", "%s",
                   g_strstrip(said));
    else
        sw_finding(findings, SW_FINDING_OK, "options", NULL, "%s", CONF_PATH);
    if (!g_key_file_load_from_file(file, CONF_PATH, G_KEY_FILE_NONE, NULL))
        return;
    groups = g_key_file_get_groups(file, NULL);
    for (guint i = 0; groups[i]; i++)
        check_group(findings, file, groups[i]);
}

void sw_doctor_machine(SwFindings *findings)
{
    check_kernel(findings);
    check_device(findings);
    check_helper(findings);
    check_rights(findings);
    check_limits(findings);
    check_options(findings);
    check_fstab(findings);
}
