/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mounts.h"

#include "../core/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FS_TYPE "fuse.safewritefs"
#define ANSWER_MS 3000
#define ATTRIBUTE_MAX 65536 /* of any extended attribute, by the kernel */

/* ---- mountinfo */

static void mount_free(gpointer data)
{
    SwMount *mount = data;

    g_free(mount->mountpoint);
    g_free(mount->source);
    g_free(mount->options);
    g_free(mount);
}

/* Whatever was mounted at that place before is covered now. */
static void cover(GPtrArray *mounts, const char *mountpoint)
{
    for (guint i = 0; i < mounts->len; i++) {
        SwMount *mount = mounts->pdata[i];

        if (strcmp(mount->mountpoint, mountpoint) == 0)
            mount->top = FALSE;
    }
}

/* Space, tab, newline and backslash are written \ooo. */
static void add_line(GPtrArray *mounts, const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", -1);
    guint n = g_strv_length(words), dash = 6;
    g_autofree char *mountpoint = NULL;
    SwMount *mount;

    while (dash < n && strcmp(words[dash], "-") != 0)
        dash++;
    if (dash + 2 >= n)
        return;
    mountpoint = g_strcompress(words[4]);
    cover(mounts, mountpoint);
    if (strcmp(words[dash + 1], FS_TYPE) != 0)
        return;
    mount = g_new0(SwMount, 1);
    mount->mountpoint = g_steal_pointer(&mountpoint);
    mount->source = g_strcompress(words[dash + 2]);
    mount->options = g_strdup(words[5]);
    mount->top = TRUE;
    g_ptr_array_add(mounts, mount);
}

GPtrArray *sw_mounts_list(void)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    GPtrArray *mounts;

    if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
        return NULL;
    mounts = g_ptr_array_new_with_free_func(mount_free);
    lines = g_strsplit(text, "\n", -1);
    for (guint i = 0; lines[i]; i++)
        add_line(mounts, lines[i]);
    return mounts;
}

const SwMount *sw_mounts_at(GPtrArray *mounts, const char *path)
{
    for (guint i = 0; i < mounts->len; i++) {
        const SwMount *mount = mounts->pdata[i];

        if (mount->top && strcmp(mount->mountpoint, path) == 0)
            return mount;
    }
    return NULL;
}

const SwMount *sw_mounts_over(GPtrArray *mounts, const char *path, const char **ret_rest)
{
    const SwMount *best = NULL;
    gsize best_length = 0;

    for (guint i = 0; i < mounts->len; i++) {
        const SwMount *mount = mounts->pdata[i];
        gsize length = strlen(mount->mountpoint);

        if (!mount->top || !g_str_has_prefix(path, mount->mountpoint) || (path[length] && path[length] != '/') ||
            (best && length < best_length))
            continue;
        best = mount;
        best_length = length;
    }
    if (best)
        *ret_rest = path + best_length + strspn(path + best_length, "/");
    return best;
}

/* ---- asking a mount */

/* What a mount is asked: `size` bytes into `text`, or -errno. */
typedef ssize_t (*Question)(const char *mountpoint, const char *key, char *text);

static ssize_t ask_attribute(const char *mountpoint, const char *key, char *text)
{
    ssize_t size = getxattr(mountpoint, key, text, ATTRIBUTE_MAX);

    return size < 0 ? -errno : size;
}

static ssize_t ask_daemon(const char *mountpoint, const char *request, char *text)
{
    g_autofree SwAsk *ask = g_new0(SwAsk, 1);
    int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    g_strlcpy(ask->text, request, sizeof ask->text);
    if (ioctl(fd, SW_ASK_IOCTL, ask) < 0)
        return -errno;
    ask->text[sizeof ask->text - 1] = '\0';
    return g_snprintf(text, sizeof ask->text, "%s", ask->text);
}

static void answer(Question question, const char *mountpoint, const char *key, int to)
{
    g_autofree char *text = g_malloc(ATTRIBUTE_MAX);
    ssize_t size;
    int r;

    /* This process may not end before the daemon goes on, and who reads our output to its end is not to wait for it. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        (void)close(fd);
    size = question(mountpoint, key, text);
    r = (int)MIN(size, 0);
    if (write(to, &r, sizeof r) == sizeof r)
        for (ssize_t at = 0, put; at < size; at += put) {
            put = write(to, text + at, size - at);
            if (put <= 0)
                break;
        }
    _exit(0);
}

/* Up to the end, or until the time is over. */
static int read_answer(int from, GString *text)
{
    gint64 end_us = g_get_monotonic_time() + ANSWER_MS * 1000;
    char part[4096];

    for (;;) {
        struct pollfd ready = {.fd = from, .events = POLLIN};
        gint64 left_us = end_us - g_get_monotonic_time();
        ssize_t got;

        if (left_us <= 0 || poll(&ready, 1, (int)(left_us / 1000) + 1) == 0)
            return -ETIMEDOUT;
        got = read(from, part, sizeof part);
        if (got < 0 && errno != EINTR)
            return -errno;
        if (got == 0)
            return 0;
        if (got > 0)
            g_string_append_len(text, part, got);
    }
}

static int ask_in_time(Question question, const char *mountpoint, const char *key, char **ret_text)
{
    g_autoptr(GString) text = g_string_new(NULL);
    int ends[2], r, said = -EIO;
    pid_t pid;

    if (pipe(ends) < 0)
        return -errno;
    pid = fork();
    if (pid == 0)
        answer(question, mountpoint, key, ends[1]);
    (void)close(ends[1]);
    r = pid < 0 ? -errno : read_answer(ends[0], text);
    (void)close(ends[0]);
    if (pid > 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, r < 0 ? WNOHANG : 0); /* who waits for a daemon may not end before that does */
    }
    if (r < 0)
        return r;
    if (text->len >= sizeof said)
        memcpy(&said, text->str, sizeof said);
    if (said == 0)
        *ret_text = g_strdup(text->len > sizeof said ? text->str + sizeof said : "");
    return said;
}

int sw_mount_attribute(const char *mountpoint, const char *key, char **ret_text)
{
    int r = ask_in_time(ask_attribute, mountpoint, key, ret_text);

    if (r != -ENODATA && r != -EOPNOTSUPP)
        return r;
    *ret_text = g_strdup("");
    return 0;
}

int sw_mount_ask(const char *mountpoint, const char *request, char **ret_answer)
{
    return ask_in_time(ask_daemon, mountpoint, request, ret_answer);
}
