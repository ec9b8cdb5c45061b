/* SPDX-License-Identifier: GPL-2.0-or-later */

/* What an overlay knows, stored and taken over in another process; and the same bytes when somebody has changed them.
 */

#include "../../src/core/base.h"
#include "../../src/overlay/overlay.h"

#include "bundle_forge.h"
#include "lease_fixture.h"

#define FORGED 3000
#define PER_CHILD 50

typedef struct {
    Fixture *f;
    SwConfig config;
    SwControl *control;
    SwOverlay *overlay;
    SwCaller caller;
    SwHandle *staged, *reading, *appending, *locked;
    SwDirHandle *dir;
    GByteArray *bytes;
} World;

static void ignore_note(gpointer data, SwNoteLevel level, const SwEvent *event, const char *text)
{
}

static SwHandle *make(World *w, const char *name, int flags, const char *content)
{
    SwEntry entry;
    SwHandle *handle;
    gsize size = strlen(content);

    assert_int_equal(sw_overlay_create(w->overlay, &w->caller, sw_overlay_root(w->overlay), name, 0644, flags | O_CREAT,
                                       &entry, &handle),
                     0);
    if (size)
        assert_int_equal(
            sw_overlay_write(w->overlay, &w->caller, handle, content, size, 0, (flags & O_APPEND) != 0, FALSE, TRUE),
            size);
    return handle;
}

static SwHandle *open_again(World *w, const char *name)
{
    SwEntry entry;
    SwHandle *handle;

    assert_int_equal(sw_overlay_lookup(w->overlay, &w->caller, sw_overlay_root(w->overlay), name, &entry), 0);
    assert_int_equal(sw_overlay_open(w->overlay, &w->caller, entry.node, O_RDONLY, &handle), 0);
    return handle;
}

static gboolean take_two(gpointer data, const char *name, const struct stat *st, off_t next)
{
    return (*(guint *)data)++ < 2;
}

static void fill(World *w)
{
    const SwFileLock lock = {.flock = TRUE, .mode = SW_RANGE_WRITE, .end = SW_RANGE_END, .owner = 77};
    guint n = 0;

    sw_ignore(sw_overlay_release(w->overlay, make(w, "plain", O_WRONLY, "plain"), TRUE));
    w->reading = open_again(w, "plain");
    w->staged = make(w, "staged", O_RDWR, "not closed");
    w->appending = make(w, "log", O_WRONLY | O_APPEND, "a record\n");
    w->locked = make(w, "locked", O_RDWR, "");
    assert_int_equal(sw_overlay_lock(w->overlay, &w->caller, w->locked, &lock, TRUE), 0);
    sw_ignore(sw_overlay_release(w->overlay, make(w, "x.lock", O_WRONLY | O_EXCL, ""), TRUE));
    assert_int_equal(sw_overlay_opendir(w->overlay, &w->caller, sw_overlay_root(w->overlay), &w->dir), 0);
    assert_int_equal(sw_overlay_readdir(w->overlay, &w->caller, w->dir, 0, take_two, &n), 0);
}

static void store(World *w)
{
    g_autoptr(SwBundle) bundle = sw_bundle_new();
    const void *data;
    gsize size;

    sw_control_carry(w->control, bundle);
    sw_overlay_carry(w->overlay, bundle);
    assert_string_equal(sw_bundle_failed(bundle) ? sw_bundle_failed(bundle) : "", "");
    data = sw_bundle_close(bundle, &size);
    w->bytes = g_byte_array_append(g_byte_array_new(), data, (guint)size);
}

static int setup(void **state)
{
    World *w = g_new0(World, 1);
    void *f;
    char *why = NULL;

    (void)fixture_setup(&f);
    w->f = f;
    sw_config_init(&w->config);
    w->caller = (SwCaller){.cred = {.uid = geteuid(), .gid = getegid()}, .tid = getpid()};
    assert_int_equal(sw_control_open(w->f->port, w->f->source, w->f->path, &w->config, &w->control, &why), 0);
    assert_int_equal(sw_overlay_new(w->f->port, w->control, &w->config, w->f->source, ignore_note, NULL, &w->overlay),
                     0);
    fill(w);
    store(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    World *w = *state;
    void *f = w->f;

    sw_overlay_releasedir(w->overlay, w->dir);
    sw_overlay_free(w->overlay);
    sw_ignore(sw_control_close(w->control));
    sw_config_clear(&w->config);
    g_byte_array_unref(w->bytes);
    (void)fixture_teardown(&f);
    g_free(w);
    return 0;
}

/* In a process that only ever ends without cleaning up.  NULL: it was not taken. */
static SwOverlay *take_over(World *w, const GByteArray *bytes)
{
    SwBundle *bundle = sw_bundle_open(bytes->data, bytes->len);
    SwControl *control = sw_control_resume(w->f->port, w->f->path, &w->config, bundle);
    SwOverlay *overlay;

    if (sw_bundle_failed(bundle))
        return NULL;
    overlay = sw_overlay_resume(w->f->port, control, &w->config, w->f->source, ignore_note, NULL, bundle);
    sw_bundle_end(bundle);
    return sw_bundle_failed(bundle) ? NULL : overlay;
}

static int status_of(pid_t child)
{
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static gboolean reads(World *w, SwOverlay *overlay, guint64 id, const char *content)
{
    char buf[64] = "";
    ssize_t n = sw_overlay_read(overlay, sw_overlay_handle(overlay, id), buf, sizeof buf - 1, 0);

    return n == (ssize_t)strlen(content) && strcmp(buf, content) == 0;
}

/* The child says by its status what was not as before. */
static int check(World *w, SwOverlay *overlay)
{
    const SwFileLock lock = {.flock = TRUE, .mode = SW_RANGE_READ, .end = SW_RANGE_END, .owner = 78};
    SwHandle *locked;
    SwFileLock other;
    SwEntry entry;

    if (!overlay)
        return 1;
    if (!reads(w, overlay, sw_overlay_handle_id(w->overlay, w->reading), "plain"))
        return 2;
    if (!reads(w, overlay, sw_overlay_handle_id(w->overlay, w->staged), "not closed"))
        return 3;
    locked = sw_overlay_handle(overlay, sw_overlay_handle_id(w->overlay, w->locked));
    if (sw_overlay_test_lock(overlay, locked, &lock, &other) < 0 || other.owner != 0 || other.mode != SW_RANGE_WRITE)
        return 4;
    if (sw_overlay_lookup(overlay, &w->caller, sw_overlay_root(overlay), "staged", &entry) < 0 ||
        sw_overlay_node_id(overlay, entry.node) >> 48 != 0)
        return 5;
    if (sw_overlay_lookup(overlay, &w->caller, sw_overlay_root(overlay), "log", &entry) < 0)
        return 6;
    return 0;
}

static void test_taken_over(void **state)
{
    World *w = *state;
    pid_t child = fork();

    if (child == 0)
        _exit(check(w, take_over(w, w->bytes)));
    assert_int_equal(status_of(child), 0);
}

/* Storing changes nothing. */
static void test_goes_on(void **state)
{
    World *w = *state;
    struct stat st;

    assert_int_equal(sw_overlay_write(w->overlay, &w->caller, w->staged, " yet", 4, 10, FALSE, FALSE, TRUE), 4);
    assert_int_equal(stat(at(w->f, "staged"), &st), -1);
    assert_true(sw_overlay_tables_are_free(w->overlay));
}

/* Whatever the bytes say, they are taken or not, and nobody crashes. */
static void test_forged(void **state)
{
    World *w = *state;

    for (guint done = 0; done < FORGED; done += PER_CHILD) {
        pid_t child = fork();

        for (guint i = 0; child == 0 && i < PER_CHILD; i++)
            (void)take_over(w, forge(w->bytes, done + i + 1));
        if (child == 0)
            _exit(0);
        if (status_of(child) != 0)
            fail_msg("one of the seeds from %u on crashes", done + 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken_over),
        cmocka_unit_test(test_forged),
        cmocka_unit_test(test_goes_on),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
