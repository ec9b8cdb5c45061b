/* SPDX-License-Identifier: GPL-2.0-or-later */

/* core/policy: what a name means (C16, C18, C25). */

#include "../../src/core/policy.h"

#include "unit.h"
#include <errno.h>
#include <string.h>

static const struct {
    const char *path;
    SwClass klass;
} defaults[] = {
    /* databases, swap files, disks (C25) */
    {"results.db", SW_CLASS_THROUGH},
    {"a/b/results.db-wal", SW_CLASS_THROUGH},
    {"results.db-shm", SW_CLASS_THROUGH},
    {"results.db-journal", SW_CLASS_THROUGH},
    {"History-journal", SW_CLASS_THROUGH},
    {"x.db-mj0A1B2C912", SW_CLASS_THROUGH},
    {"places.sqlite", SW_CLASS_THROUGH},
    {"map.gpkg", SW_CLASS_THROUGH},
    {"env/data.mdb", SW_CLASS_THROUGH},
    {"env/lock.mdb", SW_CLASS_THROUGH},
    {"x.gdbm", SW_CLASS_THROUGH},
    {".paper.tex.swp", SW_CLASS_THROUGH},
    {".paper.tex.swo", SW_CLASS_THROUGH},
    {".paper.tex.swpx", SW_CLASS_THROUGH},
    {"vm/disk.qcow2", SW_CLASS_THROUGH},
    /* ordinary data */
    {"model.dat", SW_CLASS_STAGED},
    {"brain.img", SW_CLASS_STAGED},
    {"photo.raw", SW_CLASS_STAGED},
    {"cache/ab/cdef.dir", SW_CLASS_STAGED},
    {"x.h5", SW_CLASS_STAGED},
    {"output.pkl", SW_CLASS_STAGED},
    {"a.db/file.txt", SW_CLASS_STAGED},
    {"movie.swf", SW_CLASS_STAGED},
    {"clock", SW_CLASS_STAGED},
    {"block.txt", SW_CLASS_STAGED},
    {"", SW_CLASS_STAGED},
    /* locks (C18) */
    {"journal.log.lock", SW_CLASS_LOCK},
    {"x.lck", SW_CLASS_LOCK},
    {"x.lockfile", SW_CLASS_LOCK},
    {"X.LOCK", SW_CLASS_LOCK},
    {"build/lock", SW_CLASS_LOCK},
    {"build/.lock", SW_CLASS_LOCK},
    {"lockfile", SW_CLASS_LOCK},
    {".#paper.tex", SW_CLASS_LOCK},
    {"x.lock.d", SW_CLASS_LOCK},
    {"x.lockdir", SW_CLASS_LOCK},
    {".git/index.lock", SW_CLASS_LOCK},
    {"results.db.lock", SW_CLASS_LOCK},
    {"requirements.txt.lock", SW_CLASS_LOCK},
    /* pinned dependencies are data (C18, F25) */
    {"Cargo.lock", SW_CLASS_STAGED},
    {"web/yarn.lock", SW_CLASS_STAGED},
    {"poetry.lock", SW_CLASS_STAGED},
    {"uv.lock", SW_CLASS_STAGED},
    {"flake.lock", SW_CLASS_STAGED},
    {"Gemfile.lock", SW_CLASS_STAGED},
    {"composer.lock", SW_CLASS_STAGED},
    {"Pipfile.lock", SW_CLASS_STAGED},
    {"renv.lock", SW_CLASS_STAGED},
    {"dvc.lock", SW_CLASS_STAGED},
    {"gradle.lockfile", SW_CLASS_STAGED},
    {"package-lock.json", SW_CLASS_STAGED},
    {"cargo.lock", SW_CLASS_LOCK},
    /* joblib (C16) */
    {"output.pkl.thread-140-pid-77", SW_CLASS_PRIVATE},
    {"metadata.json.thread-140-pid-77", SW_CLASS_PRIVATE},
    /* streams, and the order of classes (C25) */
    {"run.log", SW_CLASS_STREAM},
    {"slurm-123.out", SW_CLASS_STREAM},
    {"nohup.out", SW_CLASS_STREAM},
    {"a.out", SW_CLASS_STAGED},
    {"tb/events.out.tfevents.1.host.2.0", SW_CLASS_STREAM},
    {"run.thread-1-pid-2.log", SW_CLASS_PRIVATE},
    {".run.log.swp", SW_CLASS_THROUGH},
};

static void test_defaults(void **state)
{
    SwPolicy policy;

    (void)state;
    sw_policy_init(&policy);
    for (guint i = 0; i < G_N_ELEMENTS(defaults); i++)
        if (sw_policy_classify(&policy, defaults[i].path) != defaults[i].klass)
            fail_msg("%s: class %d", defaults[i].path, sw_policy_classify(&policy, defaults[i].path));
    sw_policy_clear(&policy);
}

static void test_set(void **state)
{
    SwPolicy policy;
    char *text;

    (void)state;
    sw_policy_init(&policy);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_STREAM, "+*.out:*.txt", NULL), 0);
    assert_int_equal(sw_policy_classify(&policy, "a.out"), SW_CLASS_STREAM);
    assert_int_equal(sw_policy_classify(&policy, "a.log"), SW_CLASS_STREAM);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_STREAM, "*.out:run/*", NULL), 0);
    assert_int_equal(sw_policy_classify(&policy, "a.log"), SW_CLASS_STAGED);
    text = sw_policy_text(&policy, SW_CLASS_STREAM);
    assert_string_equal(text, "*.out:run/*");
    g_free(text);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_STREAM, "", NULL), 0);
    assert_int_equal(sw_policy_classify(&policy, "a.out"), SW_CLASS_STAGED);
    text = sw_policy_text(&policy, SW_CLASS_STREAM);
    assert_string_equal(text, "");
    g_free(text);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_LOCK, "my\\[lock", NULL), 0);
    assert_int_equal(sw_policy_classify(&policy, "d/my[lock"), SW_CLASS_LOCK);
    sw_policy_clear(&policy);
}

static void test_paths(void **state)
{
    SwPolicy policy;

    (void)state;
    sw_policy_init(&policy);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_THROUGH, "scratch/*:/top:[ab]?/x", NULL), 0);
    assert_int_equal(sw_policy_classify(&policy, "scratch/a"), SW_CLASS_THROUGH);
    assert_int_equal(sw_policy_classify(&policy, "scratch/a/b"), SW_CLASS_THROUGH);
    assert_int_equal(sw_policy_classify(&policy, "scratch/.a"), SW_CLASS_THROUGH);
    assert_int_equal(sw_policy_classify(&policy, "my/scratch/a"), SW_CLASS_STAGED);
    assert_int_equal(sw_policy_classify(&policy, "top"), SW_CLASS_THROUGH);
    assert_int_equal(sw_policy_classify(&policy, "a/top"), SW_CLASS_STAGED);
    assert_int_equal(sw_policy_classify(&policy, "b1/x"), SW_CLASS_THROUGH);
    sw_policy_clear(&policy);
}

static void test_default_text_survives_itself(void **state)
{
    SwPolicy policy;

    (void)state;
    sw_policy_init(&policy);
    for (int klass = SW_CLASS_THROUGH; klass < SW_CLASS_STAGED; klass++) {
        g_autofree char *text = sw_policy_text(&policy, klass);
        g_autofree char *again = NULL;

        assert_int_equal(sw_policy_set(&policy, klass, text, NULL), 0);
        again = sw_policy_text(&policy, klass);
        assert_string_equal(text, again);
    }
    sw_policy_clear(&policy);
}

static void assert_refused(const char *text, const char *word)
{
    SwPolicy policy;
    char *why = NULL;

    sw_policy_init(&policy);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_LOCK, text, &why), -EINVAL);
    assert_non_null(why);
    if (!strstr(why, word))
        fail_msg("%s: %s", text, why);
    g_free(why);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_LOCK, text, NULL), -EINVAL);
    assert_int_equal(sw_policy_classify(&policy, "a.lock"), SW_CLASS_LOCK); /* as before */
    sw_policy_clear(&policy);
}

static void test_refusals(void **state)
{
    SwPolicy policy;
    GString *text = g_string_new(NULL);

    (void)state;
    assert_refused(":", "empty");
    assert_refused("a::b", "empty");
    assert_refused("a:", "empty");
    assert_refused("+", "empty");
    assert_refused("*.x:[ab", "\"[ab\"");
    assert_refused("[]", "bracket");
    assert_refused("[!]", "bracket");
    assert_refused("[a\\]", "bracket");
    assert_refused("a b", "space");
    assert_refused("a,b", "comma");
    assert_refused("a\nb", "space");

    for (guint i = 0; i < 256; i++)
        g_string_append_c(text, 'x');
    assert_refused(text->str, "too long");
    g_string_truncate(text, 0);
    for (guint i = 0; i < 257; i++)
        g_string_append_printf(text, "%sg%u", i ? ":" : "", i);
    assert_refused(text->str, "too many");
    g_string_truncate(text, strlen(text->str) - strlen(":g256"));

    sw_policy_init(&policy);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_LOCK, text->str, NULL), 0);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_LOCK, "+one-more", NULL), -EINVAL);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_LOCK, "+g1", NULL), 0);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_LOCK, "[]]:[!]]:[a-c]", NULL), 0);
    assert_int_equal(sw_policy_set(&policy, SW_CLASS_STAGED, "x", NULL), -EINVAL);
    sw_policy_clear(&policy);
    g_string_free(text, TRUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_set),
        cmocka_unit_test(test_paths),    cmocka_unit_test(test_default_text_survives_itself),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
