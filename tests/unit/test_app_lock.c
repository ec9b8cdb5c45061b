/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Records of applications' locks (L1 to L5): made, released, contended, broken, buried. */

#include "../../src/lease/app_lock.h"

#include "lease_fixture.h"

#define LOCKS ".safewritefs/locks"
#define SALVAGE ".safewritefs/salvage"

static SwAppLock lock_at(const Fixture *f, SwLockKind kind, const char *name)
{
    SwAppLock lock = {.says = {.kind = kind, .pid = 7, .process = 8}};
    struct stat st;

    assert_int_equal(fstat(f->source, &st), 0);
    lock.says.dir_ino = st.st_ino;
    strcpy(lock.says.path, name);
    return lock;
}

static void make_object(const Fixture *f, SwLockKind kind, const char *name)
{
    if (kind == SW_LOCK_DIR)
        assert_int_equal(mkdir(at(f, "%s", name), 0700), 0);
    else if (kind == SW_LOCK_SYMLINK)
        assert_int_equal(symlink("anything", at(f, "%s", name)), 0);
    else
        write_text(at(f, "%s", name), "");
}

static void made_and_released(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    SwAppLock lock = lock_at(f, SW_LOCK_FILE, "x.lock");

    assert_int_equal(sw_app_lock_begin(control, "x.lock", &lock), 0);
    assert_int_equal(count_names(at(f, LOCKS), ""), 1);
    assert_true(sw_app_lock_is_ours(control, &lock));
    assert_int_equal(sw_app_lock_end(control, &lock), 0);
    assert_int_equal(count_names(at(f, LOCKS), ""), 0);
    assert_int_equal(sw_app_lock_end(control, &lock), 0); /* as if the reply had been lost */
    sw_app_lock_clear(&lock);
    sw_control_close(control);
}

static int (*plain_renameat)(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname,
                             guint flags);

/* As an NFS server answers for a directory that has been removed. */
static int stale_renameat(SwPort *port, int olddir, const char *oldname, int newdir, const char *newname, guint flags)
{
    struct stat st;

    if (fstat(newdir, &st) == 0 && st.st_nlink == 0)
        return -ESTALE;
    return plain_renameat(port, olddir, oldname, newdir, newname, flags);
}

/* C19, L3: a host that wakes up while it is being buried leaves the record, by which the lock is found and broken. */
static void released_while_buried(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    SwAppLock lock = lock_at(f, SW_LOCK_FILE, "x.lock");

    assert_int_equal(sw_app_lock_begin(control, "x.lock", &lock), 0);
    plain_renameat = f->port->renameat;
    f->port->renameat = stale_renameat;
    assert_int_equal(rmdir(at(f, ".safewritefs/hosts/%s/released", lock.says.host_id)), 0);
    assert_int_equal(sw_app_lock_end(control, &lock), -ESTALE);
    assert_int_equal(count_names(at(f, LOCKS), ""), 1);
    f->port->renameat = plain_renameat;
    sw_app_lock_clear(&lock);
    sw_control_close(control);
}

static void living_host_keeps_it(void **state)
{
    Fixture *f = *state;
    SwControl *one = open_control(f), *two = open_control(f);
    SwAppLock lock = lock_at(f, SW_LOCK_DIR, "x.lock"), other = lock_at(f, SW_LOCK_FILE, "x.lock");

    assert_int_equal(sw_app_lock_begin(one, "x.lock", &lock), 0);
    assert_int_equal(sw_app_lock_begin(two, "x.lock", &other), -EEXIST);
    assert_int_equal(sw_app_lock_holder(two, lock.says.dir_ino, "x.lock"), -EBUSY);
    assert_int_equal(sw_app_lock_holder(two, lock.says.dir_ino, "y.lock"), 0);
    sw_app_locks_sweep(two);
    assert_true(sw_app_lock_is_ours(one, &lock));
    sw_app_lock_overrule(two, lock.says.dir_ino, "x.lock");
    assert_int_equal(sw_app_lock_begin(two, "x.lock", &other), 0);
    assert_false(sw_app_lock_is_ours(one, &lock));
    assert_int_equal(sw_app_lock_end(two, &other), 0);
    sw_app_lock_clear(&lock);
    sw_app_lock_clear(&other);
    sw_control_close(one);
    sw_control_close(two);
}

/* Another name has the key: the lock is made without a record, and the other's is left alone. */
static void taken_key(void **state)
{
    Fixture *f = *state;
    SwControl *one = open_control(f), *two = open_control(f);
    SwAppLock lock = lock_at(f, SW_LOCK_FILE, "x.lock");
    g_autofree char *text = NULL;

    strcpy(lock.says.path, "elsewhere/y.lock");
    lock.says.dir_ino++;
    strcpy(lock.says.host_id, sw_control_host_id(one));
    text = sw_lock_text_format(&lock.says);
    lock = lock_at(f, SW_LOCK_FILE, "x.lock");
    assert_int_equal(
        symlink(text, at(f, LOCKS "/%016llx", (unsigned long long)sw_lock_key(lock.says.dir_ino, "x.lock"))), 0);
    assert_int_equal(sw_app_lock_begin(two, "x.lock", &lock), 0);
    assert_null(lock.text);
    assert_int_equal(sw_app_lock_end(two, &lock), 0);
    assert_int_equal(count_names(at(f, LOCKS), ""), 1);
    sw_control_close(two);
    sw_control_close(one);
}

/* L4: the lock goes to salvage, whatever it is, and what is no lock of the record stays. */
static void broken(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);

    for (SwLockKind kind = SW_LOCK_FILE; kind <= SW_LOCK_DIR; kind++) {
        SwAppLock lock = lock_at(f, kind, "x.lock");

        assert_int_equal(sw_app_lock_begin(control, "x.lock", &lock), 0);
        make_object(f, kind, "x.lock");
        assert_int_equal(sw_app_lock_break(control, &lock, f->source, "x.lock"), 0);
        assert_false(exists(at(f, "x.lock")));
        assert_int_equal(count_names(at(f, SALVAGE), ".data") + count_names(at(f, SALVAGE), ".junk"), kind + 1);
        sw_app_lock_clear(&lock);
    }
    assert_int_equal(count_names(at(f, LOCKS), ""), 0);
    sw_control_close(control);
}

/* C20, L3: on order, whoever lives; the record of a successor is not the former owner's. */
static void broken_on_order(void **state)
{
    Fixture *f = *state;
    SwControl *one = open_control(f), *two = open_control(f), *admin = open_control(f);
    SwAppLock lock = lock_at(f, SW_LOCK_FILE, "x.lock"), next = lock_at(f, SW_LOCK_FILE, "x.lock");
    SwLockText says;

    assert_int_equal(sw_app_lock_break_name(admin, lock.says.dir_ino, "x.lock", &says), -ENOENT);
    assert_int_equal(sw_app_lock_begin(one, "x.lock", &lock), 0);
    make_object(f, SW_LOCK_FILE, "x.lock");
    assert_int_equal(sw_app_lock_break_name(admin, lock.says.dir_ino, "y.lock", &says), -ENOENT);
    assert_int_equal(sw_app_lock_break_name(admin, lock.says.dir_ino, "x.lock", &says), 0);
    assert_string_equal(says.host_id, sw_control_host_id(one));
    assert_int_equal(says.pid, 7);
    assert_false(exists(at(f, "x.lock")));
    assert_int_equal(count_names(at(f, SALVAGE), ".data"), 1);
    assert_int_equal(count_names(at(f, LOCKS), ""), 0);
    assert_int_equal(sw_app_lock_begin(two, "x.lock", &next), 0);
    assert_false(sw_app_lock_is_ours(one, &lock));
    assert_true(sw_app_lock_is_ours(two, &next));
    assert_int_equal(sw_app_lock_end(two, &next), 0);
    sw_app_lock_clear(&lock);
    sw_app_lock_clear(&next);
    sw_control_close(admin);
    sw_control_close(two);
    sw_control_close(one);
}

static void make_data(const Fixture *f, guint which)
{
    g_autofree char *big = g_strnfill(SW_LOCK_SIZE_MAX + 1, 'x');

    if (which == 0) {
        write_text(at(f, "x.lock"), big);
        return;
    }
    assert_int_equal(mkdir(at(f, "x.lock"), 0700), 0);
    if (which == 1)
        assert_int_equal(mkdir(at(f, "x.lock/sub"), 0700), 0);
    else if (which == 2)
        write_text(at(f, "x.lock/big"), big);
    for (guint i = 0; which == 3 && i <= SW_LOCK_ENTRIES_MAX; i++)
        write_text(at(f, "x.lock/%u", i), "");
}

/* C18 */
static void data_stays(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);

    for (guint which = 0; which < 5; which++) {
        SwAppLock lock = lock_at(f, which == 0 || which == 4 ? SW_LOCK_FILE : SW_LOCK_DIR, "x.lock");
        g_autofree char *aside = g_strdup(at(f, "aside-%u", which));

        if (which == 4) { /* older than the record: somebody else's */
            write_text(at(f, "x.lock"), "");
            g_usleep(20000);
        }
        assert_int_equal(sw_app_lock_begin(control, "x.lock", &lock), 0);
        if (which < 4)
            make_data(f, which);
        assert_int_equal(sw_app_lock_break(control, &lock, f->source, "x.lock"), 0);
        assert_int_equal(rename(at(f, "x.lock"), aside), 0);
        assert_int_equal(count_names(at(f, LOCKS), ""), 0);
        sw_app_lock_clear(&lock);
    }
    assert_int_equal(count_names(at(f, SALVAGE), ""), 0);
    sw_control_close(control);
}

static void leave_locks(Fixture *f, SwControl *control)
{
    SwAppLock lock = lock_at(f, SW_LOCK_DIR, "x.lock"), unmade = lock_at(f, SW_LOCK_FILE, "y.lock");

    if (sw_app_lock_begin(control, "x.lock", &lock) < 0 || mkdir(at(f, "x.lock"), 0700) < 0 ||
        sw_app_lock_begin(control, "y.lock", &unmade) < 0)
        _exit(1);
}

/* L5, C19: the next mount of the machine ends them. */
static void buried(void **state)
{
    Fixture *f = *state;
    SwControl *control;

    die_after(f, leave_locks);
    assert_int_equal(count_names(at(f, LOCKS), ""), 2);
    control = open_control(f);
    assert_int_equal(count_names(at(f, LOCKS), ""), 0);
    assert_false(exists(at(f, "x.lock")));
    assert_int_equal(count_names(at(f, SALVAGE), ".junk"), 1);
    sw_control_close(control);
}

/* L2: whoever wants the lock of a mount of this machine that died meanwhile buries that one. */
static void contended_after_death(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    SwAppLock lock = lock_at(f, SW_LOCK_DIR, "x.lock");

    die_after(f, leave_locks);
    assert_int_equal(sw_app_lock_begin(control, "x.lock", &lock), 0);
    assert_false(exists(at(f, "x.lock")));
    assert_int_equal(sw_app_lock_end(control, &lock), 0);
    assert_int_equal(count_names(at(f, LOCKS), ""), 0);
    sw_app_lock_clear(&lock);
    sw_control_close(control);
}

/* L4: of hosts that are gone, and of breakers that died. */
static void swept(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f);
    SwAppLock lock = lock_at(f, SW_LOCK_FILE, "x.lock");
    g_autofree char *text = NULL;

    strcpy(lock.says.host_id, "gone.0123456789abcdef");
    text = sw_lock_text_format(&lock.says);
    g_autofree char *record =
        g_strdup(at(f, LOCKS "/%016llx", (unsigned long long)sw_lock_key(lock.says.dir_ino, "x.lock")));
    g_autofree char *breaker = g_strconcat(record, ".break", NULL);
    assert_int_equal(symlink(text, record), 0);
    g_autofree char *maker = g_strconcat(breaker, "/gone.0123456789abcdef", NULL);
    assert_int_equal(mkdir(breaker, 0755), 0);
    assert_int_equal(symlink("x", maker), 0);
    make_object(f, SW_LOCK_FILE, "x.lock");
    sw_app_locks_sweep(control);
    sw_app_locks_sweep(control); /* the breaker may have been met after the record */
    assert_int_equal(count_names(at(f, LOCKS), ""), 0);
    assert_false(exists(at(f, "x.lock")));
    assert_int_equal(count_names(at(f, SALVAGE), ".data"), 1);
    sw_control_close(control);
}

static guint listings;
static ssize_t (*real_getdents)(SwPort *port, int fd, void *buf, size_t size);

static ssize_t counted_getdents(SwPort *port, int fd, void *buf, size_t size)
{
    listings++;
    return real_getdents(port, fd, buf, size);
}

static gboolean sweep_lists(SwControl *control)
{
    guint before = listings;

    sw_app_locks_sweep(control);
    return listings > before;
}

/* L5: as long as neither records nor hosts come or go, a sweep does not look at what is held. */
static void sweeps_what_has_changed(void **state)
{
    Fixture *f = *state;
    SwControl *control = open_control(f), *other = NULL;
    SwAppLock lock = lock_at(f, SW_LOCK_FILE, "x.lock");

    real_getdents = f->port->getdents;
    f->port->getdents = counted_getdents;
    for (int round = 0; round < 3; round++) {
        /* The second look may have missed what came within one tick of the clock after the first. */
        assert_true(sweep_lists(control));
        assert_true(sweep_lists(control));
        assert_false(sweep_lists(control));
        assert_false(sweep_lists(control));
        g_usleep(20000);
        if (round == 0)
            assert_int_equal(sw_app_lock_begin(control, "x.lock", &lock), 0);
        else if (round == 1)
            other = open_control(f);
        else
            sw_control_close(other);
    }
    assert_true(sweep_lists(control));
    f->port->getdents = real_getdents;
    assert_int_equal(sw_app_lock_end(control, &lock), 0);
    sw_app_lock_clear(&lock);
    sw_control_close(control);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(made_and_released),
                                       TEST(released_while_buried),
                                       TEST(living_host_keeps_it),
                                       TEST(taken_key),
                                       TEST(broken),
                                       TEST(broken_on_order),
                                       TEST(data_stays),
                                       TEST(buried),
                                       TEST(contended_after_death),
                                       TEST(swept),
                                       TEST(sweeps_what_has_changed)};

    return cmocka_run_group_tests_name("app_lock", tests, NULL, NULL);
}
