/* SPDX-License-Identifier: GPL-2.0-or-later */

/* What the journal is sent, with a socket of the test for the journal. */

#include "../../src/log/journal.h"
#include "../../src/log/log.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    char *dir, *place;
    int socket;
} Journal;

static int journal_setup(void **state)
{
    Journal *j = g_new0(Journal, 1);
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    j->dir = g_dir_make_tmp("safewritefs-test-XXXXXX", NULL);
    j->place = g_build_filename(j->dir, "socket", NULL);
    j->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, j->place);
    assert_int_equal(bind(j->socket, (struct sockaddr *)&address, sizeof address), 0);
    *state = j;
    return 0;
}

static int journal_teardown(void **state)
{
    Journal *j = *state;

    sw_log_set_sink(NULL, NULL);
    sw_log_set_journal(NULL);
    sw_log_about(NULL, NULL);
    close(j->socket);
    g_unlink(j->place);
    g_rmdir(j->dir);
    g_free(j->place);
    g_free(j->dir);
    g_free(j);
    return 0;
}

/* The next entry, or NULL when there is none. */
static GString *receive(Journal *j)
{
    g_autofree char *buf = g_malloc(1 << 18);
    ssize_t n = recv(j->socket, buf, 1 << 18, MSG_DONTWAIT);

    return n < 0 ? NULL : g_string_new_len(buf, n);
}

/* The value of a field as journald reads it (g_free), or NULL; the whole entry has to make sense. */
static char *field(const GString *entry, const char *name)
{
    const char *at = entry->str, *end = entry->str + entry->len;
    char *found = NULL;

    while (at < end) {
        const char *line = memchr(at, '\n', end - at);
        const char *equals = line ? memchr(at, '=', line - at) : NULL;
        g_autofree char *key = NULL, *value = NULL;

        assert_non_null(line);
        if (equals) {
            key = g_strndup(at, equals - at);
            value = g_strndup(equals + 1, line - equals - 1);
            at = line + 1;
        } else {
            guint64 size;

            key = g_strndup(at, line - at);
            assert_true(end - line > 8);
            memcpy(&size, line + 1, sizeof size);
            size = GUINT64_FROM_LE(size);
            assert_true(size < (guint64)(end - line - 9));
            value = g_strndup(line + 9, size);
            assert_int_equal(line[9 + size], '\n');
            at = line + 10 + size;
        }
        assert_true(*key && strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(key));
        if (strcmp(key, name) == 0) {
            assert_null(found); /* twice: somebody forged one */
            found = g_steal_pointer(&value);
        }
    }
    return found;
}

static void assert_field(const GString *entry, const char *name, const char *value)
{
    g_autofree char *found = field(entry, name);

    if (!value) {
        assert_null(found);
        return;
    }
    if (!found)
        fail_msg("there is no %s", name);
    assert_string_equal(found, value);
}

static void test_event(void **state)
{
    Journal *j = *state;
    const SwEvent event = {.kind = SW_EVENT_WRITER_KILLED,
                           .path = "dir/result",
                           .command = "python3",
                           .host_id = "alpha.1",
                           .reason = "killed",
                           .pid = 4711};
    GString *entry;

    sw_log_about("/cache", "/srv/nfs/cache");
    sw_log_set_journal(j->place);
    sw_log_to_system();
    errno = EXDEV;
    sw_log_event(SW_LOG_INFO, &event, "%s: gone", "dir/result");
    assert_int_equal(errno, EXDEV);
    entry = receive(j);
    assert_non_null(entry);
    assert_field(entry, "MESSAGE", "/cache: dir/result: gone");
    assert_field(entry, "PRIORITY", "6");
    assert_field(entry, "SYSLOG_IDENTIFIER", "safewritefs");
    assert_field(entry, "MESSAGE_ID", sw_event_message_id(SW_EVENT_WRITER_KILLED));
    assert_field(entry, "SW_EVENT", "writer-killed");
    assert_field(entry, "SW_MOUNT", "/cache");
    assert_field(entry, "SW_SOURCE", "/srv/nfs/cache");
    assert_field(entry, "SW_HOST", "alpha.1");
    assert_field(entry, "SW_PATH", "/cache/dir/result");
    assert_field(entry, "SW_PID", "4711");
    assert_field(entry, "SW_COMM", "python3");
    assert_field(entry, "SW_REASON", "killed");
    g_string_free(entry, TRUE);
    /* What is no event has no more than it has. */
    sw_log(SW_LOG_ERROR, "plain");
    entry = receive(j);
    assert_field(entry, "MESSAGE", "/cache: plain");
    assert_field(entry, "PRIORITY", "3");
    for (guint i = 0; i < 6; i++)
        assert_field(entry, ((const char *[]){"MESSAGE_ID", "SW_EVENT", "SW_PATH", "SW_PID", "SW_COMM", "SW_HOST"})[i],
                     NULL);
    g_string_free(entry, TRUE);
}

/* Names and commands are anybody's: they begin no field and no line. */
static void test_hostile(void **state)
{
    Journal *j = *state;
    static const char *const names[] = {
        "a\nPRIORITY=0\nMESSAGE_ID=00", "\nMESSAGE=forged\n", "\x1b[2J", "\xff\xfe", "=", "", "ä"};

    sw_log_about("/cache\nSW_EVENT=mounted", "/srv");
    sw_log_set_journal(j->place);
    sw_log_to_system();
    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        const SwEvent event = {.kind = SW_EVENT_REBASED, .path = names[i], .command = names[i]};
        g_autofree char *path = g_build_filename("/cache\nSW_EVENT=mounted", names[i], NULL);
        GString *entry;

        sw_log_event(SW_LOG_WARNING, &event, "%s", names[i]);
        entry = receive(j);
        assert_non_null(entry);
        assert_field(entry, "PRIORITY", "4");
        assert_field(entry, "SW_EVENT", "rebased");
        assert_field(entry, "MESSAGE_ID", sw_event_message_id(SW_EVENT_REBASED));
        assert_field(entry, "SW_PATH", path);
        assert_field(entry, "SW_COMM", names[i]);
        assert_field(entry, "SW_MOUNT", "/cache\nSW_EVENT=mounted");
        g_string_free(entry, TRUE);
    }
}

/* A value that no datagram could hold is cut. */
static void test_long(void **state)
{
    Journal *j = *state;
    g_autofree char *path = g_strnfill(1 << 20, 'x');
    g_autofree char *found = NULL;
    const SwEvent event = {.kind = SW_EVENT_REBASED, .path = path};
    GString *entry;

    sw_log_set_journal(j->place);
    sw_log_to_system();
    sw_log_event(SW_LOG_WARNING, &event, "%s", path);
    entry = receive(j);
    assert_non_null(entry);
    found = field(entry, "SW_PATH");
    assert_int_equal(strlen(found), SW_JOURNAL_VALUE_MAX);
    g_string_free(entry, TRUE);
}

static guint entries_left(Journal *j)
{
    guint n = 0;

    for (GString *entry; (entry = receive(j)); n++)
        g_string_free(entry, TRUE);
    return n;
}

/* A journal that does not read: nobody waits for long, and the next entry that gets through says how many did not. */
static void test_full(void **state)
{
    Journal *j = *state;
    const SwEvent event = {.kind = SW_EVENT_SALVAGED};
    g_autofree char *message = NULL;
    GString *entry;
    guint sent = 0;

    sw_log_set_journal(j->place);
    while (sent < 10000) {
        g_autoptr(GString) one = g_string_new("MESSAGE=x\n");

        if (sw_journal_send(j->place, one) < 0)
            break;
        sent++;
    }
    if (sent == 10000)
        skip(); /* the system's queue is too long to be filled */
    sw_log_to_system();
    gint64 began_us = g_get_monotonic_time();
    sw_log_event(SW_LOG_INFO, &event, "one");
    sw_log_event(SW_LOG_INFO, &event, "two");
    assert_true(g_get_monotonic_time() - began_us < 20 * G_USEC_PER_SEC);
    assert_int_equal(entries_left(j), sent);
    sw_log_event(SW_LOG_INFO, &event, "three");
    entry = receive(j);
    message = field(entry, "MESSAGE");
    g_string_free(entry, TRUE);
    assert_non_null(strstr(message, " messages like the next one were left out"));
    assert_int_equal(entries_left(j), 1);
}

/* One flood of an event does not fill a disk, and says what it left out; one of a hundred is told in full. */
static void test_flood(void **state)
{
    Journal *j = *state;
    guint got = 0;

    sw_log_set_journal(j->place);
    sw_log_to_system();
    for (guint i = 0; i < 1000; i++) {
        g_autofree char *path = g_strdup_printf("%c%u", 'a' + i % 26, i);
        const SwEvent event = {.kind = SW_EVENT_IN_PLACE, .path = path};

        sw_log_event(SW_LOG_INFO, &event, "%s", path);
        got += entries_left(j);
    }
    assert_in_range(got, 100, 110);
    sw_log_finish();
    assert_int_equal(entries_left(j), 1);
}

static void test_nobody(void **state)
{
    Journal *j = *state;
    g_autoptr(GString) entry = g_string_new("MESSAGE=x\n");
    g_autofree char *nowhere = g_build_filename(j->dir, "nowhere", NULL);
    g_autofree char *endless = g_strnfill(200, 'x');

    assert_int_equal(sw_journal_send(nowhere, entry), -ENOENT);
    assert_int_equal(sw_journal_send(endless, entry), -ENAMETOOLONG);
}

/* JOURNAL_STREAM says where a service's output goes, until somebody turns it elsewhere. */
static void test_stream(void **state)
{
    static const char *const nonsense[] = {"", ":", "1", "1:", "x:y", "18446744073709551615:18446744073709551615"};
    g_autofree char *right = NULL, *more = NULL, *other = NULL;
    struct stat st;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fstat(ends[1], &st), 0);
    right = g_strdup_printf("%" G_GINT64_MODIFIER "u:%" G_GINT64_MODIFIER "u", (guint64)st.st_dev, (guint64)st.st_ino);
    more = g_strconcat(right, "x", NULL);
    other = g_strconcat(right, "1", NULL);
    g_unsetenv("JOURNAL_STREAM");
    assert_false(sw_journal_is_behind(ends[1]));
    g_setenv("JOURNAL_STREAM", right, TRUE);
    assert_true(sw_journal_is_behind(ends[1]));
    assert_false(sw_journal_is_behind(-1));
    g_setenv("JOURNAL_STREAM", more, TRUE);
    assert_false(sw_journal_is_behind(ends[1]));
    g_setenv("JOURNAL_STREAM", other, TRUE);
    assert_false(sw_journal_is_behind(ends[1]));
    for (guint i = 0; i < G_N_ELEMENTS(nonsense); i++) {
        g_setenv("JOURNAL_STREAM", nonsense[i], TRUE);
        assert_false(sw_journal_is_behind(ends[1]));
    }
    g_unsetenv("JOURNAL_STREAM");
    close(ends[0]);
    close(ends[1]);
}

/* Every kind has a name and an id of its own. */
static void test_kinds(void **state)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    assert_null(sw_event_name(SW_EVENT_NONE));
    assert_null(sw_event_message_id(SW_EVENT_NONE));
    for (int kind = SW_EVENT_NONE + 1; kind < SW_EVENT_KINDS; kind++) {
        const char *id = sw_event_message_id(kind);

        assert_non_null(sw_event_name(kind));
        assert_int_equal(strlen(id), 32);
        assert_int_equal(strspn(id, "0123456789abcdef"), 32);
        assert_true(g_hash_table_add(seen, (char *)id));
        assert_true(g_hash_table_add(seen, (char *)sw_event_name(kind)));
    }
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, journal_setup, journal_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_event), TEST(test_hostile), TEST(test_long),   TEST(test_full),
        TEST(test_flood), TEST(test_nobody),  TEST(test_stream), TEST(test_kinds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
