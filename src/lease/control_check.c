/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Is this control directory one we may trust and use?
 *
 *   1. no control directory above the source, none near below it          [P2]
 *   2. .safewritefs is a directory, not a link or anything else           [P1]
 *   3. its owner is who a file made by this daemon belongs to there       [P1]
 *   4. nobody else may write in it, nor in hosts, leases, locks           [P1]
 *   5. its format is one we know                                          [P3]
 *
 * The owner is learned from a file made exclusively and looked at through its own descriptor: whoever owns the
 * directory could replace a name, and with it the answer, but not that.
 */

#include "control_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FORMAT_NAME "format"
#define FORMAT_TITLE "safewritefs "
#define FORMAT_TEXT FORMAT_TITLE G_STRINGIFY(SW_FORMAT_VERSION) "\n"
#define FORMAT_MAX 64
#define ANCESTORS_MAX 512
#define BELOW_LEVELS 2
#define BELOW_DIRS_MAX 1000
#define BELOW_NAMES_MAX 10000
#define BELOW_TIME_US (300 * G_TIME_SPAN_MILLISECOND)
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NONBLOCK)

int sw_refuse(char **ret_why, int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    *ret_why = g_strdup_vprintf(format, args);
    va_end(args);
    return -error;
}

/* ---- directories */

static void collect_names(GPtrArray *names, const char *buf, ssize_t size, guint max, gboolean dirs_only)
{
    /* struct linux_dirent64: inode 8, offset 8, record length 2, type 1, name. */
    for (ssize_t at = 0; at < size && names->len < max;) {
        const char *name = buf + at + 19;
        guint8 type = (guint8)buf[at + 18];
        guint16 length;

        memcpy(&length, buf + at + 16, sizeof length);
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && (!dirs_only || type == DT_DIR || type == DT_UNKNOWN))
            g_ptr_array_add(names, g_strdup(name));
        at += length;
    }
}

int sw_dir_names(SwPort *port, int dirfd, guint max, gboolean dirs_only, GPtrArray **ret_names)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *buf = g_malloc(32768);
    int fd = port->openat(port, dirfd, ".", OPEN_DIR, 0);
    ssize_t got = 0;

    if (fd < 0)
        return fd;
    while (names->len < max && (got = port->getdents(port, fd, buf, 32768)) > 0)
        collect_names(names, buf, got, max, dirs_only);
    sw_fd_close(port, &fd);
    if (got < 0)
        return (int)got;
    *ret_names = g_steal_pointer(&names);
    return 0;
}

int sw_open_trusted(SwPort *port, int dirfd, const char *name, uid_t owner)
{
    struct stat st;
    int fd = port->openat(port, dirfd, name, OPEN_DIR, 0);
    int r;

    if (fd < 0)
        return fd;
    r = port->statat(port, fd, "", &st);
    if (r == 0 && (st.st_uid != owner || (st.st_mode & 022)))
        r = -EPERM;
    if (r == 0)
        return fd;
    sw_fd_close(port, &fd);
    return r;
}

/* ---- above and below [P2] */

/* Does a control directory stand in this one?  One that cannot be looked into counts. */
static gboolean has_control_dir(SwPort *port, int dirfd)
{
    g_autofree char *text = NULL;
    int fd = port->openat(port, dirfd, SW_CONTROL_DIR, O_PATH | O_DIRECTORY, 0);
    int r;

    if (fd < 0)
        return FALSE;
    r = sw_port_read_file(port, fd, FORMAT_NAME, FORMAT_MAX, &text, NULL);
    sw_fd_close(port, &fd);
    return r == -EACCES || r == -EPERM || (r == 0 && g_str_has_prefix(text, FORMAT_TITLE));
}

static gboolean same_directory(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Goes from *fd to its parent.  1, or 0 at the top or where we may not go further. */
static int step_up(SwPort *port, int *fd)
{
    struct stat here, there;
    int parent = port->openat(port, *fd, "..", O_PATH | O_DIRECTORY, 0);

    if (parent < 0)
        return 0;
    if (port->statat(port, *fd, "", &here) < 0 || port->statat(port, parent, "", &there) < 0 ||
        same_directory(&here, &there)) {
        sw_fd_close(port, &parent);
        return 0;
    }
    sw_fd_close(port, fd);
    *fd = parent;
    return 1;
}

int sw_check_above(SwControl *control, char **ret_why)
{
    SwPort *port = control->port;
    g_autofree char *path = g_strdup(control->source_path);
    int fd = port->openat(port, control->source, ".", O_PATH | O_DIRECTORY, 0);
    gboolean found = FALSE;

    if (fd < 0)
        return sw_refuse(ret_why, -fd, "cannot open %s: %s", control->source_path, g_strerror(-fd));
    for (guint i = 0; i < ANCESTORS_MAX && !found && step_up(port, &fd); i++) {
        char *parent = g_path_get_dirname(path);

        g_free(path);
        path = parent;
        found = has_control_dir(port, fd);
    }
    sw_fd_close(port, &fd);
    if (!found)
        return 0;
    return sw_refuse(
        ret_why, EBUSY,
        "there is a control directory above the source: %s/%s; all hosts have to mount the same directory, "
        "so mount %s (or remove that control directory if nobody uses it any more)",
        strcmp(path, "/") == 0 ? "" : path, SW_CONTROL_DIR, path);
}

/* Directories still to be looked through, with their depth. */
typedef struct {
    char *path; /* below the source */
    guint level;
} Below;

static void below_free(gpointer data)
{
    Below *below = data;

    g_free(below->path);
    g_free(below);
}

static void queue_children(SwPort *port, int fd, const Below *parent, GQueue *queue)
{
    g_autoptr(GPtrArray) names = NULL;

    if (sw_dir_names(port, fd, BELOW_NAMES_MAX, TRUE, &names) < 0)
        return;
    for (guint i = 0; i < names->len; i++) {
        const char *name = names->pdata[i];
        Below *child;

        if (sw_name_is_reserved(name))
            continue;
        child = g_new(Below, 1);
        child->path = *parent->path ? g_strconcat(parent->path, "/", name, NULL) : g_strdup(name);
        child->level = parent->level + 1;
        g_queue_push_tail(queue, child);
    }
}

/* Looks through one; TRUE if it holds a control directory of its own.  *dirs counts those that were directories. */
static gboolean look_below(SwControl *control, const Below *below, GQueue *queue, guint *dirs)
{
    SwPort *port = control->port;
    gboolean found;
    int fd = *below->path ? port->open_beneath(port, control->source, below->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK)
                          : port->openat(port, control->source, ".", OPEN_DIR, 0);

    if (fd < 0)
        return FALSE;
    (*dirs)++;
    found = *below->path && has_control_dir(port, fd);
    if (!found && below->level < BELOW_LEVELS)
        queue_children(port, fd, below, queue);
    sw_fd_close(port, &fd);
    return found;
}

int sw_check_below(SwControl *control, char **ret_why)
{
    SwPort *port = control->port;
    GQueue queue = G_QUEUE_INIT;
    gint64 end_us = port->now_us(port) + BELOW_TIME_US;
    guint dirs = 0;
    int r = 0;

    /* A courtesy that must not make mounts slow: what is deeper, or comes later, is found by the mount that is there
     * (it looks above). */
    g_queue_push_tail(&queue, g_new0(Below, 1));
    ((Below *)queue.head->data)->path = g_strdup("");
    while (r == 0 && !g_queue_is_empty(&queue) && dirs < BELOW_DIRS_MAX && port->now_us(port) < end_us) {
        Below *below = g_queue_pop_head(&queue);

        if (look_below(control, below, &queue, &dirs))
            r = sw_refuse(ret_why, EBUSY,
                          "there is a control directory below the source: %s/%s/%s; all hosts have to mount the same "
                          "directory (remove that control directory if nobody uses it any more)",
                          control->source_path, below->path, SW_CONTROL_DIR);
        below_free(below);
    }
    g_queue_clear_full(&queue, below_free);
    return r;
}

/* ---- the control directory itself [P1] */

static const char *kind_of(mode_t mode)
{
    return S_ISLNK(mode) ? "a symbolic link" : S_ISREG(mode) ? "a file" : S_ISFIFO(mode) ? "a FIFO" : "no directory";
}

static int foreign(char **ret_why, const char *path, uid_t found, uid_t expected)
{
    return sw_refuse(
        ret_why, EPERM,
        "the control directory %s belongs to uid %u, expected %u: somebody else made it, and what stands in "
        "it cannot be trusted; remove it, or mount as that user",
        path, found, expected);
}

static char *path_of(const SwControl *control, const char *name)
{
    return *name ? g_strdup_printf("%s/%s/%s", control->source_path, SW_CONTROL_DIR, name)
                 : g_strdup_printf("%s/%s", control->source_path, SW_CONTROL_DIR);
}

/* Opens the directory `name`, after making it if need be. */
static int make_and_open(SwControl *control, int dirfd, const char *name, mode_t mode, const char *path, char **ret_why)
{
    SwPort *port = control->port;
    struct stat st;
    int fd;
    int r = port->mkdirat(port, dirfd, name, mode);

    /* Whatever mkdir says (EEXIST, EROFS, a lost reply): what counts is what stands there. */
    fd = port->openat(port, dirfd, name, OPEN_DIR, 0);
    if (fd >= 0)
        return fd;
    if (port->statat(port, dirfd, name, &st) == 0 && !S_ISDIR(st.st_mode))
        return sw_refuse(ret_why, ENOTDIR, "the control directory %s is %s", path, kind_of(st.st_mode));
    if (r < 0 && r != -EEXIST)
        return sw_refuse(ret_why, -r, "cannot make the control directory %s: %s", path, g_strerror(-r));
    return sw_refuse(ret_why, -fd, "cannot open the control directory %s: %s", path, g_strerror(-fd));
}

/* Owner and mode as they have to be, only a `shared` one may be written by others; missing rights (a umask, a mount
 * that died between mkdir and chmod) are given. */
static int check_directory(SwControl *control, int fd, mode_t mode, gboolean shared, const char *path, char **ret_why)
{
    SwPort *port = control->port;
    struct stat st;
    int r = port->statat(port, fd, "", &st);

    if (r < 0)
        return sw_refuse(ret_why, -r, "cannot look at the control directory %s: %s", path, g_strerror(-r));
    if (st.st_uid != control->owner)
        return foreign(ret_why, path, st.st_uid, control->owner);
    if ((st.st_mode & 022) && !(shared && (st.st_mode & S_ISVTX)))
        return sw_refuse(ret_why, EPERM,
                         "the control directory %s can be written by others (mode %04o); what stands in "
                         "it cannot be trusted",
                         path, st.st_mode & 07777);
    if ((st.st_mode & mode) == mode)
        return 0;
    r = port->chmodat(port, fd, "", (st.st_mode & 07777) | mode);
    if (r < 0)
        return sw_refuse(ret_why, -r, "cannot set the mode of %s: %s", path, g_strerror(-r));
    return 0;
}

static int learn_owner(SwControl *control, const char *path, char **ret_why)
{
    SwPort *port = control->port;
    char name[32];
    guint64 chance;
    struct stat top, made;
    int fd;
    int r = port->random(port, &chance, sizeof chance);

    if (r == 0)
        r = port->statat(port, control->dir, "", &top);
    if (r < 0)
        return sw_refuse(ret_why, -r, "cannot look at the control directory %s: %s", path, g_strerror(-r));
    (void)snprintf(name, sizeof name, "probe.%016" G_GINT64_MODIFIER "x", chance);
    fd = port->openat(port, control->dir, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if ((fd == -EACCES || fd == -EPERM) && top.st_uid != geteuid())
        return foreign(ret_why, path, top.st_uid, geteuid());
    if (fd < 0)
        return sw_refuse(ret_why, -fd, "cannot make files in the control directory %s: %s", path, g_strerror(-fd));
    r = port->statat(port, fd, "", &made);
    sw_fd_close(port, &fd);
    (void)port->unlinkat(port, control->dir, name, 0);
    if (r < 0)
        return sw_refuse(ret_why, -r, "cannot look at files in the control directory %s: %s", path, g_strerror(-r));
    control->owner = made.st_uid;
    return 0;
}

/* ---- the format [P3] */

/* Written under another name first, so that nobody sees half of it; whoever comes second finds it there. */
static int write_format(SwControl *control)
{
    SwPort *port = control->port;
    g_autofree char *name = NULL;
    guint64 chance;
    int fd;
    int r = port->random(port, &chance, sizeof chance);

    if (r < 0)
        return r;
    name = g_strdup_printf("format.%016" G_GINT64_MODIFIER "x", chance);
    fd = port->openat(port, control->dir, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        return fd;
    r = sw_port_write_all(port, fd, FORMAT_TEXT, strlen(FORMAT_TEXT), 0);
    if (r == 0)
        r = port->fsync(port, fd, FALSE);
    sw_fd_close(port, &fd);
    if (r == 0) {
        r = port->linkat(port, control->dir, name, control->dir, FORMAT_NAME);
        if (r < 0 && r != -EEXIST) /* no hard links there; a second writer's text would be the same */
            r = port->renameat(port, control->dir, name, control->dir, FORMAT_NAME, 0);
    }
    (void)port->unlinkat(port, control->dir, name, 0);
    return r == -EEXIST ? 0 : r;
}

static int judge_format(SwControl *control, const char *text, const struct stat *st, char **ret_why)
{
    g_autofree char *path = path_of(control, FORMAT_NAME);
    g_autofree char *line = g_strchomp(g_strdup(text));
    g_autofree char *shown = g_strescape(line, NULL);

    if (st->st_uid != control->owner)
        return foreign(ret_why, path, st->st_uid, control->owner);
    if (strcmp(text, FORMAT_TEXT) == 0)
        return 0;
    if (g_str_has_prefix(text, FORMAT_TITLE))
        return sw_refuse(
            ret_why, EPROTONOSUPPORT,
            "%s says \"%s\", and this program knows format %d only: use the version of safewritefs that the "
            "other hosts use",
            path, shown, SW_FORMAT_VERSION);
    return sw_refuse(ret_why, EPROTONOSUPPORT, "%s is not the format of a control directory: \"%s\"", path, shown);
}

static int check_format(SwControl *control, char **ret_why)
{
    g_autofree char *text = NULL;
    g_autofree char *path = path_of(control, FORMAT_NAME);
    struct stat st;
    int r = sw_port_read_file(control->port, control->dir, FORMAT_NAME, FORMAT_MAX, &text, &st);

    if (r == -ENOENT) {
        r = write_format(control);
        if (r == 0)
            r = sw_port_read_file(control->port, control->dir, FORMAT_NAME, FORMAT_MAX, &text, &st);
    }
    if (r == -EINVAL || r == -EFBIG)
        return sw_refuse(ret_why, EPROTONOSUPPORT, "%s is not the format file of a control directory", path);
    if (r < 0)
        return sw_refuse(ret_why, -r, "cannot read or write %s: %s", path, g_strerror(-r));
    return judge_format(control, text, &st, ret_why);
}

static int enter(SwControl *control, const char *name, mode_t mode, gboolean shared, int *ret_fd, char **ret_why)
{
    g_autofree char *path = path_of(control, name);
    int fd = make_and_open(control, control->dir, name, mode, path, ret_why);
    int r;

    if (fd < 0)
        return fd;
    r = check_directory(control, fd, mode, shared, path, ret_why);
    if (r < 0)
        sw_fd_close(control->port, &fd);
    else
        *ret_fd = fd;
    return r;
}

int sw_enter_control_dir(SwControl *control, char **ret_why)
{
    g_autofree char *path = path_of(control, "");
    mode_t mode = control->root ? 0755 : 0700;
    int r;

    control->dir = make_and_open(control, control->source, SW_CONTROL_DIR, mode, path, ret_why);
    r = control->dir < 0 ? control->dir : learn_owner(control, path, ret_why);
    if (r == 0)
        r = check_directory(control, control->dir, mode, FALSE, path, ret_why);
    if (r == 0)
        r = check_format(control, ret_why);
    if (r == 0)
        r = enter(control, "hosts", mode, FALSE, &control->hosts, ret_why);
    if (r == 0)
        r = enter(control, "leases", mode, FALSE, &control->leases, ret_why);
    if (r == 0)
        r = enter(control, "locks", mode, FALSE, &control->locks, ret_why);
    if (r == 0)
        r = enter(control, "carriers", mode, FALSE, &control->carriers, ret_why);
    if (r == 0)
        r = enter(control, "salvage", control->root ? 01777 : 0700, TRUE, &control->salvage, ret_why);
    return r;
}
