/* SPDX-License-Identifier: GPL-2.0-or-later */

/* The real port's files, attributes, clocks and chance, on a directory of its own. */

#include "../../src/port/mount.h"
#include "../../src/port/port.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static SwPort *port;
static char *dir_path;
static int dir = -1;

static int set_up(void **state)
{
    port = sw_port_posix_new();
    dir_path = g_dir_make_tmp("sw-port-XXXXXX", NULL);
    assert_non_null(dir_path);
    dir = open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    return 0;
}

static int tear_down(void **state)
{
    g_autofree char *command = g_strdup_printf("rm -rf '%s'", dir_path);

    (void)close(dir);
    sw_port_free(port);
    assert_int_equal(system(command), 0);
    g_free(dir_path);
    return 0;
}

static int make_file(const char *name, const char *text)
{
    int fd = port->openat(port, dir, name, O_RDWR | O_CREAT | O_TRUNC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(sw_port_write_all(port, fd, text, strlen(text), 0), 0);
    return fd;
}

static void put(const char *name, const char *text)
{
    assert_int_equal(port->close(port, make_file(name, text)), 0);
}

static void assert_text(const char *name, const char *expected)
{
    g_autofree char *text = NULL;

    assert_int_equal(sw_port_read_file(port, dir, name, 1 << 20, &text, NULL), 0);
    assert_string_equal(text, expected);
}

/* ---- opening */

static void opens_add_cloexec_and_nofollow(void **state)
{
    int fd = make_file("f", "x");

    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(port->close(port, fd), 0);
    assert_int_equal(port->close(port, fd), -EBADF);
    assert_int_equal(port->symlinkat(port, "f", dir, "link"), 0);
    assert_int_equal(port->openat(port, dir, "link", O_RDONLY, 0), -ELOOP);
    assert_int_equal(port->openat(port, dir, "missing", O_RDONLY, 0), -ENOENT);
    assert_int_equal(port->openat(port, dir, "f", O_RDWR | O_CREAT | O_EXCL, 0600), -EEXIST);
}

static void open_beneath_refuses_links_and_escapes(void **state)
{
    int fd;

    assert_int_equal(port->mkdirat(port, dir, "a", 0755), 0);
    assert_int_equal(port->mkdirat(port, dir, "a/b", 0755), 0);
    put("a/b/f", "deep");
    assert_int_equal(port->symlinkat(port, "a", dir, "to_a"), 0);
    fd = port->open_beneath(port, dir, "a/b/f", O_RDONLY);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(port->close(port, fd), 0);
    assert_int_equal(port->open_beneath(port, dir, "to_a/b/f", O_RDONLY), -ELOOP);
    assert_int_equal(port->open_beneath(port, dir, "../etc/passwd", O_RDONLY), -EXDEV);
    assert_int_equal(port->open_beneath(port, dir, "/etc/passwd", O_RDONLY), -EXDEV);
    assert_int_equal(port->open_beneath(port, dir, "a/none", O_RDONLY), -ENOENT);
}

static void reopen_reaches_a_nameless_file(void **state)
{
    int fd = make_file("f", "gone"), path_fd, again;
    char buf[8] = "";

    path_fd = port->openat(port, dir, "f", O_PATH, 0);
    assert_int_equal(port->unlinkat(port, dir, "f", 0), 0);
    again = port->reopen(port, fd, O_RDONLY | O_NOFOLLOW);
    assert_true(again >= 0);
    assert_int_equal(port->pread(port, again, buf, sizeof buf, 0), 4);
    assert_string_equal(buf, "gone");
    assert_int_equal(port->pwrite(port, again, "x", 1, 0), -EBADF);
    assert_int_equal(port->close(port, again), 0);
    again = port->reopen(port, path_fd, O_RDWR);
    assert_int_equal(port->pwrite(port, again, "x", 1, 0), 1);
    assert_int_equal(port->close(port, again), 0);
    assert_int_equal(port->close(port, path_fd), 0);
    assert_int_equal(port->close(port, fd), 0);
    assert_int_equal(port->reopen(port, fd, O_RDONLY), -ENOENT);
}

/* ---- names */

static void names_are_made_and_removed(void **state)
{
    struct stat st;
    char target[16] = "";

    assert_int_equal(port->mkdirat(port, dir, "d", 0755), 0);
    assert_int_equal(port->mkdirat(port, dir, "d", 0755), -EEXIST);
    assert_int_equal(port->mknodat(port, dir, "fifo", S_IFIFO | 0600, 0), 0);
    assert_int_equal(port->statat(port, dir, "fifo", &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_int_equal(port->symlinkat(port, "nowhere", dir, "s"), 0);
    assert_int_equal(port->readlinkat(port, dir, "s", target, sizeof target), 7);
    assert_string_equal(target, "nowhere");
    assert_int_equal(port->readlinkat(port, dir, "d", target, sizeof target), -EINVAL);
    assert_int_equal(port->unlinkat(port, dir, "d", 0), -EISDIR);
    assert_int_equal(port->unlinkat(port, dir, "d", AT_REMOVEDIR), 0);
    assert_int_equal(port->unlinkat(port, dir, "d", AT_REMOVEDIR), -ENOENT);
}

static void links_share_an_inode(void **state)
{
    int fd = make_file("f", "x");
    struct stat st;

    assert_int_equal(port->linkat(port, dir, "f", dir, "g"), 0);
    assert_int_equal(port->linkat(port, dir, "f", dir, "g"), -EEXIST);
    assert_int_equal(port->linkat(port, fd, "", dir, "h"), 0);
    assert_int_equal(port->statat(port, fd, "", &st), 0);
    assert_int_equal(st.st_nlink, 3);
    assert_int_equal(port->close(port, fd), 0);
    fd = port->openat(port, dir, ".", O_TMPFILE | O_RDWR, 0600);
    if (fd >= 0) {
        assert_int_equal(port->linkat(port, fd, "", dir, "named"), 0);
        assert_int_equal(port->statat(port, dir, "named", &st), 0);
        assert_int_equal(port->close(port, fd), 0);
    }
}

static void renames_obey_their_flags(void **state)
{
    put("a", "A");
    put("b", "B");
    assert_int_equal(port->renameat(port, dir, "a", dir, "b", RENAME_NOREPLACE), -EEXIST);
    assert_int_equal(port->renameat(port, dir, "a", dir, "b", RENAME_EXCHANGE), 0);
    assert_text("a", "B");
    assert_int_equal(port->renameat(port, dir, "a", dir, "b", 0), 0);
    assert_text("b", "B");
    assert_int_equal(port->renameat(port, dir, "a", dir, "b", 0), -ENOENT);
}

struct entry {
    guint64 ino;
    gint64 off;
    guint16 reclen;
    guint8 type;
    char name[];
};

static guint count_entries(int fd, gint64 *ret_first_off)
{
    _Alignas(struct entry) char buf[4096];
    guint n = 0;
    ssize_t size;

    while ((size = port->getdents(port, fd, buf, sizeof buf)) > 0) {
        for (ssize_t at = 0; at < size; n++) {
            const struct entry *entry = (const void *)(buf + at);

            if (n == 0)
                *ret_first_off = entry->off;
            at += entry->reclen;
        }
    }
    assert_int_equal(size, 0);
    return n;
}

static void directories_are_listed_and_positioned(void **state)
{
    int fd = port->openat(port, dir, ".", O_RDONLY | O_DIRECTORY, 0);
    gint64 first = 0, ignored;

    for (guint i = 0; i < 300; i++) {
        g_autofree char *name = g_strdup_printf("file-with-some-name-%u", i);

        put(name, "");
    }
    assert_int_equal(count_entries(fd, &first), 302);
    assert_int_equal(port->seekdir(port, fd, first), 0);
    assert_int_equal(count_entries(fd, &ignored), 301);
    assert_int_equal(port->seekdir(port, fd, 0), 0);
    assert_int_equal(count_entries(fd, &ignored), 302);
    assert_int_equal(port->close(port, fd), 0);
    assert_int_equal(port->seekdir(port, fd, 0), -EBADF);
    assert_int_equal(port->getdents(port, dir, &first, sizeof first), -EBADF);
}

/* ---- attributes */

static void stat_never_follows(void **state)
{
    struct stat st, same;

    put("f", "abc");
    assert_int_equal(port->symlinkat(port, "f", dir, "s"), 0);
    assert_int_equal(port->statat(port, dir, "s", &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(port->statat(port, dir, "", &st), 0);
    assert_int_equal(fstat(dir, &same), 0);
    assert_int_equal(st.st_ino, same.st_ino);
    st.st_ino = 77;
    assert_int_equal(port->statat(port, dir, "missing", &st), -ENOENT);
    assert_int_equal(st.st_ino, 77);
}

static SwFound look(int fd, const char *name)
{
    SwFound found;

    assert_int_equal(port->lookat(port, fd, name, &found), 0);
    return found;
}

static void look_tells_bearers_of_one_number_apart(void **state)
{
    SwFound first, other;
    int fd = make_file("f", "x");
    guint reused = 0;

    assert_int_equal(port->linkat(port, dir, "f", dir, "g"), 0);
    first = look(dir, "f");
    assert_true(first.tag == look(dir, "g").tag);
    assert_true(first.tag == look(fd, "").tag);
    assert_int_equal(first.st.st_ino, look(fd, "").st.st_ino);
    assert_int_equal(port->close(port, fd), 0);
    assert_int_equal(port->unlinkat(port, dir, "g", 0), 0);
    for (guint i = 0; i < 50; i++) {
        assert_int_equal(port->unlinkat(port, dir, "f", 0), 0);
        put("f", "x");
        other = look(dir, "f");
        assert_true(other.tag != first.tag);
        reused += other.st.st_ino == first.st.st_ino;
        first = other;
    }
    print_message("inode numbers reused: %u of 50\n", reused);
    assert_int_equal(port->symlinkat(port, "f", dir, "s"), 0);
    assert_true(S_ISLNK(look(dir, "s").st.st_mode));
    assert_true(look(dir, "s").tag != other.tag);
    assert_int_equal(port->lookat(port, dir, "missing", &other), -ENOENT);
}

static gint stop_exchanging; /* atomic */

static void *exchange(void *data)
{
    while (!g_atomic_int_get(&stop_exchanging))
        assert_int_equal(port->renameat(port, dir, "a", dir, "b", RENAME_EXCHANGE), 0);
    return NULL;
}

static void look_never_mixes_two_objects(void **state)
{
    SwFound a, b;
    GThread *thread;

    put("a", "");
    put("b", "");
    a = look(dir, "a");
    b = look(dir, "b");
    g_atomic_int_set(&stop_exchanging, 0);
    thread = g_thread_new("exchange", exchange, NULL);
    for (guint i = 0; i < 20000; i++) {
        SwFound found = look(dir, "a");

        assert_true(found.tag == (found.st.st_ino == a.st.st_ino ? a.tag : b.tag));
    }
    g_atomic_int_set(&stop_exchanging, 1);
    g_thread_join(thread);
}

static guint mode_of(const char *name)
{
    return look(dir, name).st.st_mode & 07777;
}

static void chmod_reaches_the_object_itself(void **state)
{
    int fd = make_file("f", ""), path_fd = port->openat(port, dir, "f", O_PATH, 0), link_fd;

    assert_int_equal(port->symlinkat(port, "f", dir, "s"), 0);
    assert_int_equal(port->chmodat(port, dir, "f", 0600), 0);
    assert_int_equal(mode_of("f"), 0600);
    assert_int_equal(port->chmodat(port, fd, "", 0640), 0);
    assert_int_equal(mode_of("f"), 0640);
    assert_int_equal(port->chmodat(port, path_fd, "", 0444), 0);
    assert_int_equal(mode_of("f"), 0444);
    assert_int_equal(port->chmodat(port, dir, "s", 0777), -EOPNOTSUPP);
    link_fd = port->openat(port, dir, "s", O_PATH, 0);
    assert_int_equal(port->chmodat(port, link_fd, "", 0777), -EOPNOTSUPP);
    assert_int_equal(mode_of("f"), 0444);
    assert_int_equal(port->chmodat(port, dir, "missing", 0), -ENOENT);
    assert_int_equal(port->close(port, link_fd), 0);
    assert_int_equal(port->close(port, path_fd), 0);
    assert_int_equal(port->close(port, fd), 0);
    assert_int_equal(port->chmodat(port, fd, "", 0600), -EBADF);
}

static void times_and_owners_are_set(void **state)
{
    const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 2000, .tv_nsec = UTIME_OMIT}};
    int fd = make_file("f", "");

    assert_int_equal(port->symlinkat(port, "f", dir, "s"), 0);
    assert_int_equal(port->utimensat(port, dir, "s", times), 0);
    assert_int_equal(look(dir, "s").st.st_atim.tv_sec, 1000);
    assert_int_not_equal(look(dir, "f").st.st_atim.tv_sec, 1000);
    assert_int_equal(port->utimensat(port, fd, "", times), 0);
    assert_int_equal(look(dir, "f").st.st_atim.tv_sec, 1000);
    assert_int_not_equal(look(dir, "f").st.st_mtim.tv_sec, 2000);
    assert_int_equal(port->chownat(port, dir, "f", -1, getegid()), 0);
    assert_int_equal(port->chownat(port, fd, "", -1, getegid()), 0);
    assert_int_equal(port->chownat(port, dir, "missing", 1, 1), -ENOENT);
    assert_int_equal(port->close(port, fd), 0);
}

static void xattrs_work_by_name_and_descriptor(void **state)
{
    int path_fd;
    char buf[64] = "";
    g_autofree char *longest = g_strnfill(300, 'x');

    put("f", "");
    path_fd = port->openat(port, dir, "f", O_PATH, 0);
    if (port->setxattr(port, dir, "f", "user.one", "1", 1, 0) == -EOPNOTSUPP)
        skip();
    assert_int_equal(port->setxattr(port, path_fd, "", "user.two", "22", 2, 0), 0);
    assert_int_equal(port->getxattr(port, dir, "f", "user.two", buf, sizeof buf), 2);
    assert_int_equal(port->getxattr(port, path_fd, "", "user.one", buf, sizeof buf), 1);
    assert_int_equal(port->getxattr(port, dir, "f", "user.two", buf, 1), -ERANGE);
    assert_int_equal(port->listxattr(port, dir, "f", NULL, 0), 18);
    assert_int_equal(port->listxattr(port, path_fd, "", buf, sizeof buf), 18);
    assert_int_equal(port->removexattr(port, dir, "f", "user.one"), 0);
    assert_int_equal(port->removexattr(port, path_fd, "", "user.one"), -ENODATA);
    assert_int_equal(port->symlinkat(port, "f", dir, "s"), 0);
    assert_int_equal(port->getxattr(port, dir, "s", "user.two", buf, sizeof buf), -ENODATA);
    assert_int_equal(port->getxattr(port, dir, longest, "user.two", buf, sizeof buf), -ENAMETOOLONG);
    assert_int_equal(port->close(port, path_fd), 0);
}

static void file_systems_tell_their_kind(void **state)
{
    struct statvfs st;
    guint64 type = 0;
    int proc = open("/proc", O_PATH | O_CLOEXEC);

    assert_int_equal(port->statvfs(port, dir, &st), 0);
    assert_true(st.f_namemax >= 200);
    assert_int_equal(port->fs_type(port, proc, &type), 0);
    assert_int_equal(type, 0x9fa0);
    assert_int_equal(port->close(port, proc), 0);
    assert_int_equal(port->fs_type(port, proc, &type), -EBADF);
    assert_int_equal(port->statvfs(port, proc, &st), -EBADF);
}

/* ---- data */

static void data_calls_do_what_they_say(void **state)
{
    int fd = make_file("f", "0123456789");
    struct stat st;

    assert_int_equal(port->ftruncate(port, fd, 4), 0);
    assert_text("f", "0123");
    assert_int_equal(port->fallocate(port, fd, 0, 0, 8192), 0);
    assert_int_equal(port->statat(port, fd, "", &st), 0);
    assert_int_equal(st.st_size, 8192);
    assert_int_equal(port->lseek(port, fd, 0, SEEK_END), 8192);
    assert_int_equal(port->lseek(port, fd, 9000, SEEK_DATA), -ENXIO);
    assert_int_equal(port->fsync(port, fd, FALSE), 0);
    assert_int_equal(port->fsync(port, fd, TRUE), 0);
    assert_int_equal(port->fsync(port, dir, TRUE), -EBADF);
    assert_int_equal(port->ftruncate(port, fd, -1), -EINVAL);
    assert_int_equal(port->close(port, fd), 0);
}

static void assert_copies(int from, int to)
{
    char buf[8] = "";

    assert_int_equal(port->copy_range(port, from, 2, to, 1, 3), 3);
    assert_int_equal(port->pread(port, to, buf, sizeof buf, 1), 3);
    assert_string_equal(buf, "234");
    assert_int_equal(port->copy_range(port, from, 8, to, 0, 100), 2);
    assert_int_equal(port->copy_range(port, from, 10, to, 0, 100), 0);
    assert_int_equal(port->copy_range(port, from, 0, to, 0, 0), 0);
}

static void ranges_are_copied_within_and_across(void **state)
{
    int from = make_file("from", "0123456789"), to = make_file("to", "");
    FILE *elsewhere = fopen("/dev/shm/sw-port-test", "we+x"); /* another file system, where there is one */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    int r = port->clone(port, from, to);

    assert_true(r == 0 || r == -EOPNOTSUPP);
    assert_int_equal(port->ftruncate(port, to, 0), 0);
    assert_copies(from, to);
    if (elsewhere) {
        assert_int_equal(unlink("/dev/shm/sw-port-test"), 0);
        r = port->clone(port, from, fileno(elsewhere));
        assert_true(r == -EXDEV || r == -EOPNOTSUPP);
        assert_copies(from, fileno(elsewhere));
        assert_int_equal(fclose(elsewhere), 0);
    }
    r = port->clone(port, null, to);
    assert_true(r == -EXDEV || r == -EOPNOTSUPP);
    assert_true(port->copy_range(port, status, 0, to, 0, 4096) > 0); /* where the kernel says 0 or "cannot" */
    assert_int_equal(port->copy_range(port, dir, 0, to, 0, 10), -EBADF);
    for (guint i = 0; i < 2; i++)
        assert_int_equal(port->close(port, i ? from : to), 0);
    assert_int_equal(port->close(port, null), 0);
    assert_int_equal(port->close(port, status), 0);
}

static void flock_excludes_descriptions(void **state)
{
    int fd = make_file("f", ""), other = port->openat(port, dir, "f", O_RDWR, 0);

    assert_int_equal(port->try_flock(port, fd), 0);
    assert_int_equal(port->try_flock(port, other), -EWOULDBLOCK);
    assert_int_equal(port->close(port, fd), 0);
    assert_int_equal(port->try_flock(port, other), 0);
    assert_int_equal(port->close(port, other), 0);
}

static int pwrites_left;

static ssize_t short_pwrite(SwPort *faulty, int fd, const void *buf, size_t size, off_t offset)
{
    if (pwrites_left-- == 0)
        return -ENOSPC;
    return pwrite(fd, buf, MIN(size, 2), offset);
}

static ssize_t short_pread(SwPort *faulty, int fd, void *buf, size_t size, off_t offset)
{
    return pread(fd, buf, MIN(size, 2), offset);
}

static void whole_files_survive_short_counts(void **state)
{
    SwPort faulty = *port;
    g_autofree char *text = NULL;
    struct stat st;
    int fd = make_file("f", "");

    faulty.pwrite = short_pwrite;
    faulty.pread = short_pread;
    pwrites_left = 4;
    assert_int_equal(sw_port_write_all(&faulty, fd, "1234567", 7, 3), 0);
    assert_int_equal(sw_port_write_all(&faulty, fd, "1", 1, 0), -ENOSPC);
    assert_int_equal(port->pwrite(port, fd, "abc", 3, 0), 3);
    assert_int_equal(sw_port_read_file(&faulty, dir, "f", 10, &text, &st), 0);
    assert_string_equal(text, "abc1234567");
    assert_int_equal(st.st_size, 10);
    assert_int_equal(port->close(port, fd), 0);
}

static void read_file_takes_small_regular_files_only(void **state)
{
    char *text = (char *)0x1;

    put("f", "12345");
    put("empty", "");
    assert_int_equal(port->mknodat(port, dir, "fifo", S_IFIFO | 0600, 0), 0);
    assert_int_equal(port->symlinkat(port, "f", dir, "s"), 0);
    assert_int_equal(port->mkdirat(port, dir, "d", 0755), 0);
    assert_int_equal(sw_port_read_file(port, dir, "f", 4, &text, NULL), -EFBIG);
    assert_int_equal(sw_port_read_file(port, dir, "fifo", 4, &text, NULL), -EINVAL);
    assert_int_equal(sw_port_read_file(port, dir, "s", 4, &text, NULL), -EINVAL);
    assert_int_equal(sw_port_read_file(port, dir, "d", 4, &text, NULL), -EINVAL);
    assert_int_equal(sw_port_read_file(port, dir, "missing", 4, &text, NULL), -ENOENT);
    assert_ptr_equal(text, (char *)0x1);
    assert_text("f", "12345");
    assert_text("empty", "");
}

/* ---- clocks and chance */

static void clocks_run_and_chance_varies(void **state)
{
    gint64 before = port->now_us(port);
    char a[600], b[600];

    port->sleep_us(port, 5000);
    assert_true(port->now_us(port) - before >= 5000);
    port->sleep_us(port, -1);
    assert_true(port->now_us(port) - before < 5 * G_USEC_PER_SEC);
    assert_true(ABS(port->wall_us(port) - g_get_real_time()) < G_USEC_PER_SEC);
    assert_int_equal(port->random(port, a, sizeof a), 0);
    assert_int_equal(port->random(port, b, sizeof b), 0);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a + 584, b + 584, 16);
}

/* What a heartbeat is read by: whole seconds and the end of a directory, as the file system has them. */
static void stat_fresh_tells_what_statat_does(void **state)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 7}};
    int sub, fd = make_file("beat", "x");
    struct stat fresh, st;

    assert_int_equal(port->utimensat(port, fd, "", times), 0);
    assert_int_equal(port->stat_fresh(port, dir, "beat", &fresh), 0);
    assert_int_equal(port->statat(port, fd, "", &st), 0);
    assert_true(fresh.st_mtim.tv_sec == 7 && fresh.st_mtim.tv_nsec == 0);
    assert_memory_equal(&fresh.st_ctim, &st.st_ctim, sizeof st.st_ctim);
    assert_true(fresh.st_ino == st.st_ino && fresh.st_dev == st.st_dev && fresh.st_mode == st.st_mode);
    assert_true(fresh.st_uid == st.st_uid && fresh.st_gid == st.st_gid && fresh.st_size == st.st_size);
    assert_int_equal(port->stat_fresh(port, dir, "missing", &fresh), -ENOENT);
    assert_int_equal(port->mkdirat(port, dir, "sub", 0755), 0);
    sub = port->openat(port, dir, "sub", O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(port->unlinkat(port, dir, "sub", AT_REMOVEDIR), 0);
    assert_int_equal(port->stat_fresh(port, sub, "", &fresh), 0);
    assert_int_equal(fresh.st_nlink, 0);
    assert_int_equal(port->close(port, sub), 0);
    assert_int_equal(port->close(port, fd), 0);
}

static void mounts_are_told(void **state)
{
    const char *text =
        "36 28 0:31 / /var/lib/nfs/rpc_pipefs rw,relatime - rpc_pipefs rpc_pipefs rw\n"
        "38 28 0:32 /sub /nfs\\040free rw,relatime shared:7 master:1 - nfs server:/export/free rw,vers=3,hard\n"
        "39 28 0:33 / /nfs4 rw - nfs4 server:/free rw,vers=4.2\n"
        "40 28 0:34 / /cut rw";
    SwMount mount;
    int proc;

    sw_mount_find(text, 38, &mount);
    assert_string_equal(mount.root, "/sub");
    assert_string_equal(mount.point, "/nfs free");
    assert_string_equal(mount.source, "server:/export/free");
    assert_string_equal(mount.options, "rw,vers=3,hard");
    assert_true(sw_mount_is_nfs3(&mount));
    sw_mount_clear(&mount);
    sw_mount_find(text, 39, &mount);
    assert_string_equal(mount.type, "nfs4");
    assert_false(sw_mount_is_nfs3(&mount));
    sw_mount_clear(&mount);
    for (guint id = 40; id < 42; id++) { /* half a row, and none */
        sw_mount_find(text, id, &mount);
        assert_null(mount.point);
        assert_false(sw_mount_is_nfs3(&mount));
    }
    /* Of /proc itself: in a chroot there may be no row for the directory that we are in. */
    proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(proc >= 0);
    sw_mount_of(proc, &mount);
    assert_string_equal(mount.type, "proc");
    sw_mount_clear(&mount);
    (void)close(proc);
}

static void add_line(gpointer data, const char *text)
{
    g_ptr_array_add(data, g_strdup(text));
}

/* Only what weakens a promise is told: no longer option that begins alike, and no other value. */
static void doubtful_mount_options_are_told(void **state)
{
    g_autoptr(GPtrArray) said = g_ptr_array_new_with_free_func(g_free);
    SwMount mount = {.point = (char *)"/nfs", .options = (char *)"rw,vers=3,hard,softly,local_lock=none,actimeo=600"};
    SwMount unknown = {0};

    sw_mount_judge(&mount, add_line, said);
    sw_mount_judge(&unknown, add_line, said);
    assert_int_equal(said->len, 0);
    mount.options = (char *)"rw,vers=3,soft,nocto,nolock,local_lock=all";
    sw_mount_judge(&mount, add_line, said);
    assert_int_equal(said->len, 3);
    assert_non_null(strstr(said->pdata[0], "mount /nfs has the option soft: calls fail"));
    assert_non_null(strstr(said->pdata[1], "nocto: "));
    assert_non_null(strstr(said->pdata[2], "local_lock=all: "));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stat_fresh_tells_what_statat_does),
        TEST(opens_add_cloexec_and_nofollow),
        TEST(open_beneath_refuses_links_and_escapes),
        TEST(reopen_reaches_a_nameless_file),
        TEST(names_are_made_and_removed),
        TEST(links_share_an_inode),
        TEST(renames_obey_their_flags),
        TEST(directories_are_listed_and_positioned),
        TEST(stat_never_follows),
        TEST(look_tells_bearers_of_one_number_apart),
        TEST(look_never_mixes_two_objects),
        TEST(chmod_reaches_the_object_itself),
        TEST(times_and_owners_are_set),
        TEST(xattrs_work_by_name_and_descriptor),
        TEST(file_systems_tell_their_kind),
        TEST(mounts_are_told),
        TEST(doubtful_mount_options_are_told),
        TEST(data_calls_do_what_they_say),
        TEST(ranges_are_copied_within_and_across),
        TEST(flock_excludes_descriptions),
        TEST(whole_files_survive_short_counts),
        TEST(read_file_takes_small_regular_files_only),
        TEST(clocks_run_and_chance_varies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
