/* SPDX-License-Identifier: GPL-2.0-or-later */

/* core/config: defaults and relations. */

#include "../../src/core/config.h"

#include "unit.h"

static void test_defaults(void **state)
{
    SwConfig config;

    (void)state;
    sw_config_init(&config);
    assert_null(sw_config_complaint(&config));
    assert_int_equal(config.append_interval_us, 1000000); /* C11 */
    assert_int_equal(config.attr_cache_us, 1000000);      /* C2 */
    assert_int_equal(config.lease_us, 20000000);          /* C19 */
    assert_int_equal(config.edit_copy_max, 1073741824);   /* C10 */
    assert_int_equal(config.salvage_age_us, 604800000000);
    assert_int_equal(config.fsync, SW_FSYNC_STAGE);       /* C7 */
    assert_int_equal(config.on_kill, SW_ON_KILL_SALVAGE); /* C4 */
    assert_int_equal(config.commit_sync, SW_SYNC_AUTO);
    assert_int_equal(config.keep, SW_KEEP_AUTO);
    assert_int_equal(config.keep_old_us, 60000000); /* C1 */
    assert_false(config.read_only);
    assert_int_equal(sw_policy_classify(&config.policy, "a.lock"), SW_CLASS_LOCK);
    sw_config_clear(&config);
}

/* Expects a complaint that has `word` in it, and repairs the field. */
static void assert_complains(SwConfig *config, gint64 *field, gint64 value, const char *word)
{
    gint64 kept = *field;
    char *why;

    *field = value;
    why = sw_config_complaint(config);
    assert_non_null(why);
    assert_non_null(strstr(why, word));
    g_free(why);
    *field = kept;
    assert_null(sw_config_complaint(config));
}

static void test_bounds(void **state)
{
    SwConfig config;

    (void)state;
    sw_config_init(&config);
    assert_complains(&config, &config.lease_us, 1999999, "lease");
    assert_complains(&config, &config.lease_us, G_MAXINT64, "lease");
    assert_complains(&config, &config.append_interval_us, 0, "append-interval");
    assert_complains(&config, &config.append_interval_us, -1, "append-interval");
    assert_complains(&config, &config.attr_cache_us, -1, "attr-cache");
    assert_complains(&config, &config.salvage_age_us, 19 * G_USEC_PER_SEC, "salvage-age");
    assert_complains(&config, &config.keep_old_us, 999999, "keep-old");
    assert_complains(&config, &config.wait_source_us, -1, "wait-source");
    config.attr_cache_us = 0; /* strict */
    assert_null(sw_config_complaint(&config));
    config.lease_us = 2 * G_USEC_PER_SEC;
    assert_null(sw_config_complaint(&config));
    sw_config_clear(&config);
}

static void test_enums(void **state)
{
    SwConfig config;
    char *why;

    (void)state;
    sw_config_init(&config);
    config.fsync = (SwFsyncMode)7;
    why = sw_config_complaint(&config);
    assert_non_null(why);
    g_free(why);
    config.fsync = SW_FSYNC_PUBLISH;
    config.on_kill = SW_ON_KILL_COMMIT;
    config.commit_sync = SW_SYNC_NEVER;
    assert_null(sw_config_complaint(&config));
    sw_config_clear(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_enums),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
