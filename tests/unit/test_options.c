/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Options from the command line and the configuration file, and the log, which main.c alone would bring together. */

#include "../../src/log/log.h"
#include "../../src/options.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Parses `words` after the program name; asserts success. */
static SwOptions parse(const char *conf_path, const char *const *words)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    SwOptions options;
    char *why = NULL;

    g_ptr_array_add(argv, (char *)"safewritefs");
    for (; *words; words++)
        g_ptr_array_add(argv, (char *)*words);
    if (sw_options_parse((int)argv->len, (char **)argv->pdata, conf_path, &options, &why) != 0)
        fail_msg("refused: %s", why);
    assert_null(why);
    return options;
}

/* The same for words that must be refused: the sentence. */
static char *refusal(const char *conf_path, const char *const *words)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    SwOptions options;
    char *why = NULL;

    g_ptr_array_add(argv, (char *)"safewritefs");
    for (; *words; words++)
        g_ptr_array_add(argv, (char *)*words);
    assert_true(sw_options_parse((int)argv->len, (char **)argv->pdata, conf_path, &options, &why) < 0);
    assert_non_null(why);
    assert_null(options.source);
    sw_options_clear(&options); /* must be harmless */
    return why;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define PARSE(...) parse(NULL, WORDS("/tmp", "/nowhere/cache", __VA_ARGS__))

static void assert_refused(const char *option, const char *sentence)
{
    g_autofree char *why = refusal(NULL, WORDS("/tmp", "/nowhere/cache", "-o", option));

    assert_string_equal(why, sentence);
}

static gboolean has_glob(const GPtrArray *list, const char *glob)
{
    for (guint i = 0; i < list->len; i++)
        if (!strcmp(list->pdata[i], glob))
            return TRUE;
    return FALSE;
}

static void test_defaults(void **state)
{
    SwOptions options = parse(NULL, WORDS("/tmp", "/nowhere/cache"));

    assert_string_equal(options.source, "/tmp");
    assert_string_equal(options.mountpoint, "/nowhere/cache");
    assert_false(options.foreground || options.debug || options.show_help || options.show_version);
    assert_int_equal(options.config.lease_us, 20 * G_USEC_PER_SEC);
    assert_int_equal(options.mount_options->len, 0);
    sw_options_clear(&options);
    sw_options_clear(&options);
}

/* As recorded from mount(8) 2.38 and mount.fuse3 3.14. */
static void test_what_mount_hands_on(void **state)
{
    SwOptions options = parse(NULL, WORDS("-o", ",rw,noatime,noexec,nosuid,nodev,lease=20,_netdev,nofail,user", "--",
                                          "/tmp", "/nowhere/m nt"));
    g_autofree char *text = sw_options_fuse_text(&options);

    assert_string_equal(options.mountpoint, "/nowhere/m nt");
    assert_string_equal(text, "fsname=/tmp,subtype=safewritefs,noatime,noexec,nosuid,nodev");
    sw_options_clear(&options);

    options = parse(NULL, WORDS("/tmp", "/nowhere/cache", "-o", "ro,lease=5s,dev,suid"));
    assert_true(options.config.read_only);
    assert_string_equal(options.mount_options->pdata[0], "ro");
    sw_options_clear(&options);
}

/* The last of the two counts, and "atime" is handed on to nobody. */
static void test_atime(void **state)
{
    SwOptions options = PARSE("-o", "noatime,nodev,atime");
    g_autofree char *text = sw_options_fuse_text(&options);

    assert_string_equal(text, "fsname=/tmp,subtype=safewritefs,nodev");
    sw_options_clear(&options);
    options = PARSE("-o", "atime,noatime");
    g_autofree char *other = sw_options_fuse_text(&options);
    assert_string_equal(other, "fsname=/tmp,subtype=safewritefs,noatime");
    sw_options_clear(&options);
}

static void test_any_order(void **state)
{
    SwOptions options =
        parse(NULL, WORDS("-o", "lease=3", "/tmp", "-fd", "-oro", "/nowhere/cache", "-n", "-v", "-w", "-o", "noatime"));

    assert_true(options.foreground && options.debug);
    assert_false(options.config.read_only);
    assert_int_equal(options.config.lease_us, 3 * G_USEC_PER_SEC);
    sw_options_clear(&options);
    options = PARSE("-d", "--check");
    assert_true(options.foreground && options.check_only);
    sw_options_clear(&options);
    options = parse(NULL, WORDS("-V"));
    assert_true(options.show_version);
    sw_options_clear(&options);
    options = parse(NULL, WORDS("--help"));
    assert_true(options.show_help);
    sw_options_clear(&options);
}

static void test_usage(void **state)
{
    static const struct {
        const char *words[4];
        const char *sentence;
    } cases[] = {
        {{NULL}, "SOURCE and MOUNTPOINT are missing"},
        {{"/tmp"}, "MOUNTPOINT is missing"},
        {{"/tmp", ""}, "SOURCE and MOUNTPOINT must not be empty"},
        {{"/tmp", "/nowhere", "/else"}, "unexpected argument '/else'"},
        {{"/tmp", "/nowhere", "-fz"}, "unknown option -z"},
        {{"/tmp", "/nowhere", "--zoo"}, "unknown option --zoo"},
        {{"/tmp", "/nowhere", "--debug=3"}, "unknown option --debug=3"},
        {{"/tmp", "--debug", "-zf", "/nowhere"}, "unknown option -z"},
        {{"/tmp", "/nowhere", "-o"}, "'-o' needs an argument"},
    };

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *why = refusal(NULL, cases[i].words);

        assert_string_equal(why, cases[i].sentence);
    }
}

static void test_numbers(void **state)
{
    static const struct {
        const char *text;
        gint64 us;
    } times[] = {{"2", 2000000},      {"2.5", 2500000},   {"2500ms", 2500000},
                 {".5min", 30000000}, {"1h", 3600000000}, {"1d", 86400000000}};

    for (guint i = 0; i < G_N_ELEMENTS(times); i++) {
        g_autofree char *text = g_strdup_printf("lease=%s", times[i].text);
        SwOptions options = PARSE("-o", text);

        assert_int_equal(options.config.lease_us, times[i].us);
        sw_options_clear(&options);
    }
    SwOptions options = PARSE("-o", "edit-copy-max=0,salvage-max=1.5k,attr-cache=0,salvage-age=90d");

    assert_int_equal(options.config.edit_copy_max, 0);
    assert_int_equal(options.config.salvage_max, 1536);
    assert_int_equal(options.config.attr_cache_us, 0);
    sw_options_clear(&options);
}

static void test_bad_values(void **state)
{
    assert_refused("lease=1", "option 'lease': '1' is out of range (2s to 1d)");
    assert_refused("lease=1000000000000000000000000000000", "option 'lease': '1000000000000000000000000000000' is out "
                                                            "of range (2s to 1d)");
    assert_refused("salvage-max=2000000T", "option 'salvage-max': '2000000T' is out of range (0 to 1048576T)");
    assert_refused("fsync=always", "option 'fsync': 'always' is none of stage|publish");
    assert_refused("lease", "option 'lease' needs a value");
    assert_refused("ro=1", "option 'ro' takes no value");
    assert_refused("private", "option 'private' needs a value");

    static const char *const no_numbers[] = {"",    "nan",   "inf", "-1", "+3",  "0x10",
                                             "1e3", "1.2.3", ".",   "s",  "3 s", "3w"};

    for (guint i = 0; i < G_N_ELEMENTS(no_numbers); i++) {
        g_autofree char *option = g_strdup_printf("lease=%s", no_numbers[i]);
        g_autofree char *sentence = g_strdup_printf("option 'lease': '%s' is no time (a number, then ms, s, min, h or "
                                                    "d)",
                                                    no_numbers[i]);

        assert_refused(option, sentence);
    }
}

/* require-fstype: words between colons, for fstab; empty takes it back. */
static void test_types(void **state)
{
    SwOptions options = PARSE("-o", "require-fstype=nfs:nfs4,wait-source=2min");

    assert_string_equal(options.config.require_fstype, "nfs:nfs4");
    assert_int_equal(options.config.wait_source_us, 120 * G_USEC_PER_SEC);
    sw_options_clear(&options);
    options = PARSE("-o", "require-fstype=nfs,require-fstype=fuse.sshfs");
    assert_string_equal(options.config.require_fstype, "fuse.sshfs");
    assert_int_equal(options.config.wait_source_us, 30 * G_USEC_PER_SEC);
    sw_options_clear(&options);
    options = PARSE("-o", "require-fstype=nfs,require-fstype=");
    assert_null(options.config.require_fstype);
    sw_options_clear(&options);
    assert_refused("require-fstype=nfs::nfs4", "option 'require-fstype': 'nfs::nfs4' is no list of file system types, "
                                               "as nfs:nfs4");
    assert_refused("require-fstype=nfs|nfs4", "option 'require-fstype': 'nfs|nfs4' is no list of file system types, "
                                              "as nfs:nfs4");
    assert_refused("require-fstype", "option 'require-fstype' needs a value");
}

static void test_names(void **state)
{
    SwOptions options;

    assert_refused("foo", "unknown option 'foo'");
    assert_refused("foo=1,lease=5", "unknown option 'foo'");
    assert_refused("auto_unmount", "option 'auto_unmount' is refused: after a crash it would uncover the directory "
                                   "without its protection");
    assert_refused("fsname=x", "option 'fsname' is refused: the name of the file system is always SOURCE");
    options = PARSE("-s", "-o", "foo,lease=5");
    assert_int_equal(options.warnings->len, 1);
    assert_string_equal(options.warnings->pdata[0], "unknown option 'foo', ignoring");
    sw_options_clear(&options);
    options = PARSE("-o", "x-systemd.automount,X-mount.mkdir,comment=a,user=joe,subtype=x,relatime,defaults,noauto");
    assert_int_equal(options.mount_options->len, 0);
    sw_options_clear(&options);
}

static void test_lists(void **state)
{
    SwOptions options = PARSE("-o", "private=+*.mine:*.too,stream=*.only,through=");

    assert_true(has_glob(options.config.policy.private, "*.mine"));
    assert_true(options.config.policy.private->len > 2);
    assert_int_equal(options.config.policy.stream->len, 1);
    assert_int_equal(options.config.policy.through->len, 0);
    sw_options_clear(&options);
    options = PARSE("-o", "host-private=*.mine");
    assert_int_equal(options.config.policy.private->len, 1);
    sw_options_clear(&options);

    g_autofree char *why = refusal(NULL, WORDS("/tmp", "/nowhere/cache", "-o", "locks=[a"));

    assert_true(g_str_has_prefix(why, "option 'locks': "));
}

static void test_commas(void **state)
{
    SwOptions options = parse(NULL, WORDS("/", "/nowhere/cache", "-o", "context=\"a:s0:c1,c2\",noatime"));
    g_autofree char *text = NULL;

    g_free(options.source);
    options.source = g_strdup("/a,b\\c");
    text = sw_options_fuse_text(&options);
    assert_string_equal(text, "fsname=/a\\,b\\\\c,subtype=safewritefs,context=\"a:s0:c1\\,c2\",noatime");
    sw_options_clear(&options);
}

/* A configuration file with this text; the caller removes it. */
static char *write_conf(const char *text)
{
    char *path = NULL;
    int fd = g_file_open_tmp("safewritefs-conf-XXXXXX", &path, NULL);

    assert_true(fd >= 0);
    close(fd);
    assert_true(g_file_set_contents(path, text, -1, NULL));
    return path;
}

static void test_conf_precedence(void **state)
{
    g_autofree char *path = write_conf("# a comment\n"
                                       "[/nowhere/cache/]\nattr-cache = 3 \nprivate=+*.mount\nnoatime=true\nnodev=no\n"
                                       "[defaults]\nlease=5\nattr-cache=2\nprivate=+*.all\nro=yes\nthrough=a\\[b\n"
                                       "require-fstype=nfs:nfs4\n"
                                       "[/elsewhere]\nlease=7\nnonsense=1\n");
    SwOptions options = parse(path, WORDS("/tmp", "/nowhere/cache", "-o", "lease=9,private=+*.line"));

    assert_int_equal(options.config.lease_us, 9 * G_USEC_PER_SEC);
    assert_int_equal(options.config.attr_cache_us, 3 * G_USEC_PER_SEC);
    assert_true(has_glob(options.config.policy.private, "*.mount"));
    assert_true(has_glob(options.config.policy.private, "*.all"));
    assert_true(has_glob(options.config.policy.private, "*.line"));
    assert_true(has_glob(options.config.policy.through, "a\\[b"));
    assert_string_equal(options.config.require_fstype, "nfs:nfs4");
    assert_true(options.config.read_only);
    assert_int_equal(options.mount_options->len, 2);
    assert_string_equal(options.mount_options->pdata[1], "noatime");
    sw_options_clear(&options);

    /* The command line takes "ro" back, and conf= the whole file. */
    options = parse(path, WORDS("/tmp", "/nowhere/cache", "-o", "rw"));
    assert_false(options.config.read_only);
    sw_options_clear(&options);
    options = parse(path, WORDS("/tmp", "/nowhere/cache", "-o", "conf="));
    assert_int_equal(options.config.lease_us, 20 * G_USEC_PER_SEC);
    sw_options_clear(&options);
    g_unlink(path);
}

static void test_conf_faults(void **state)
{
    static const char *const cases[][2] = {
        {"[defaults]\nfoo=1\n", ": [defaults]: unknown option 'foo'"},
        {"[/nowhere/cache]\nlease=1\n", ": [/nowhere/cache]: option 'lease': '1' is out of range (2s to 1d)"},
        {"[cache]\nlease=5\n", ": group [cache] is neither [defaults] nor a mount point"},
        {"[defaults]\n_netdev=true\n", ": [defaults]: option '_netdev' has no meaning here"},
        {"[defaults]\nconf=/x\n", ": [defaults]: option 'conf' has no meaning here"},
        {"[defaults]\nro=perhaps\n", ": [defaults]: option 'ro': 'perhaps' is neither true nor false"},
        {"lease=5\n", NULL},
        {"[defaults]\nlease\n", NULL},
        {"[defaults\n", NULL},
        {"\x7f\xff\xfe", NULL},
    };

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = write_conf(cases[i][0]);
        g_autofree char *why = refusal(path, WORDS("/tmp", "/nowhere/cache"));

        assert_true(g_str_has_prefix(why, path));
        if (cases[i][1])
            assert_string_equal(why + strlen(path), cases[i][1]);
        g_unlink(path);
    }
}

static void test_conf_missing(void **state)
{
    SwOptions options = parse("/nowhere/safewritefs.conf", WORDS("/tmp", "/nowhere/cache"));
    g_autofree char *why = NULL;

    sw_options_clear(&options);
    why = refusal(NULL, WORDS("/tmp", "/nowhere/cache", "-o", "conf=/nowhere/safewritefs.conf"));
    assert_true(g_str_has_prefix(why, "/nowhere/safewritefs.conf: "));
    g_free(why);
    why = refusal("/tmp", WORDS("/tmp", "/nowhere/cache"));
    assert_true(g_str_has_prefix(why, "/tmp: "));
}

/* Symbolic links go, and what cannot be looked at keeps its name. */
static void test_paths(void **state)
{
    g_autofree char *dir = g_dir_make_tmp("safewritefs-test-XXXXXX", NULL);
    g_autofree char *real = realpath(dir, NULL);
    g_autofree char *link = g_build_filename(dir, "link", NULL);
    g_autofree char *through = g_build_filename(link, "new", NULL);
    g_autofree char *expected = g_build_filename(real, "new", NULL);
    SwOptions options;

    assert_int_equal(symlink(".", link), 0);
    options = parse(NULL, WORDS(link, through));
    assert_string_equal(options.source, real);
    assert_string_equal(options.mountpoint, expected);
    sw_options_clear(&options);
    g_unlink(link);
    g_rmdir(dir);
}

static void test_escape(void **state)
{
    static const char *const cases[][2] = {
        {"plain \xc3\xa4\xe2\x82\xac \\ ok", "plain \xc3\xa4\xe2\x82\xac \\ ok"},
        {"a\nsafewritefs: error: forged", "a\\x0asafewritefs: error: forged"},
        {"\x1b[2J\r\x7f", "\\x1b[2J\\x0d\\x7f"},
        {"\xff\xc3", "\\xff\\xc3"},
        {"\xe2\x80\xa8\xe2\x80\xae", "\\xe2\\x80\\xa8\\xe2\\x80\\xae"},
        {"", ""},
    };

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *line = sw_log_escape(cases[i][0]);

        assert_string_equal(line, cases[i][1]);
    }
}

static void test_bucket(void **state)
{
    SwLogBucket bucket = {0};
    guint suppressed = 0, passed = 0;

    for (guint i = 0; i < 100; i++)
        passed += sw_log_bucket_take(&bucket, 1000, &suppressed);
    assert_int_equal(passed, 10);
    assert_false(sw_log_bucket_take(&bucket, 1000 + 6 * G_USEC_PER_SEC - 1, &suppressed));
    assert_int_equal(suppressed, 0);
    assert_true(sw_log_bucket_take(&bucket, 1000 + 6 * G_USEC_PER_SEC, &suppressed));
    assert_int_equal(suppressed, 91);
    assert_false(sw_log_bucket_take(&bucket, 1000 + 6 * G_USEC_PER_SEC, &suppressed));
    /* A night later no more than the burst has been saved up. */
    passed = 0;
    for (guint i = 0; i < 100; i++)
        passed += sw_log_bucket_take(&bucket, 40000 * (gint64)G_USEC_PER_SEC, &suppressed);
    assert_int_equal(passed, 10);
}

static void collect(SwLogLevel level, const SwEvent *event, const char *message, gpointer data)
{
    g_ptr_array_add(data, g_strdup_printf("%d %s", level, message));
}

static void *shout(void *data)
{
    for (guint i = 0; i < 50; i++)
        sw_log(SW_LOG_WARNING, "thread says %u", i);
    return NULL;
}

static void test_log(void **state)
{
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);

    sw_log_set_sink(collect, lines);
    sw_log(SW_LOG_DEBUG, "not asked for");
    errno = EXDEV;
    sw_log(SW_LOG_ERROR, "name %s", "a\nb");
    assert_int_equal(errno, EXDEV);
    sw_log_set_level(SW_LOG_DEBUG);
    for (guint i = 0; i < 20; i++)
        sw_log(SW_LOG_DEBUG, "debug");
    assert_int_equal(lines->len, 21);
    assert_string_equal(lines->pdata[0], "0 name a\\x0ab");
    /* Texts that come ready made are told apart by how they begin. */
    for (guint i = 0; i < 15; i++) {
        g_autofree char *text = g_strdup_printf("stage %u lost", i);

        sw_log(SW_LOG_WARNING, "%s", text);
        if (i >= 10)
            sw_log(SW_LOG_INFO, "%s", "another matter");
    }
    assert_int_equal(lines->len, 21 + 10 + 5);
    sw_log_finish();
    assert_string_equal(lines->pdata[36], "2 5 repeated messages were left out");
    sw_log_set_sink(NULL, NULL);
    sw_log_set_level(SW_LOG_INFO);
}

static gint counted; /* atomic */

static void count(SwLogLevel level, const SwEvent *event, const char *message, gpointer data)
{
    g_atomic_int_inc(&counted);
}

static void test_log_threads(void **state)
{
    pthread_t threads[4];

    sw_log_set_sink(count, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, shout, NULL), 0);
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
        pthread_join(threads[i], NULL);
    sw_log_finish();
    sw_log_set_sink(NULL, NULL);
    assert_int_equal(counted, 10 + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_what_mount_hands_on),
        cmocka_unit_test(test_any_order),   cmocka_unit_test(test_usage),
        cmocka_unit_test(test_numbers),     cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_types),       cmocka_unit_test(test_atime),
        cmocka_unit_test(test_names),       cmocka_unit_test(test_lists),
        cmocka_unit_test(test_commas),      cmocka_unit_test(test_conf_precedence),
        cmocka_unit_test(test_conf_faults), cmocka_unit_test(test_conf_missing),
        cmocka_unit_test(test_paths),       cmocka_unit_test(test_escape),
        cmocka_unit_test(test_bucket),      cmocka_unit_test(test_log),
        cmocka_unit_test(test_log_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
