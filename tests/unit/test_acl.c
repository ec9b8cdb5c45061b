/* SPDX-License-Identifier: GPL-2.0-or-later */

/* core/acl: what a new file inherits (C17), against the rules and against this machine's kernel. */

#include "../../src/core/acl.h"

#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

typedef struct {
    guint8 bytes[4 + 8 * 8];
    gsize size;
} Acl;

static void add(Acl *acl, guint16 tag, guint16 perm, guint32 id)
{
    guint16 tag_le = GUINT16_TO_LE(tag), perm_le = GUINT16_TO_LE(perm);
    guint32 id_le = GUINT32_TO_LE(id), version = GUINT32_TO_LE(2);

    if (acl->size == 0) {
        memcpy(acl->bytes, &version, 4);
        acl->size = 4;
    }
    memcpy(acl->bytes + acl->size, &tag_le, 2);
    memcpy(acl->bytes + acl->size + 2, &perm_le, 2);
    memcpy(acl->bytes + acl->size + 4, &id_le, 4);
    acl->size += 8;
}

/* u, g, o with optional named user, named group and mask (-1 = absent). */
static Acl make(int u, int named_user, int g, int named_group, int mask, int o)
{
    Acl acl = {.size = 0};

    add(&acl, USER_OBJ, (guint16)u, G_MAXUINT32);
    if (named_user >= 0)
        add(&acl, USER, (guint16)named_user, 1234);
    add(&acl, GROUP_OBJ, (guint16)g, G_MAXUINT32);
    if (named_group >= 0)
        add(&acl, GROUP, (guint16)named_group, 5678);
    if (mask >= 0)
        add(&acl, MASK, (guint16)mask, G_MAXUINT32);
    add(&acl, OTHER, (guint16)o, G_MAXUINT32);
    return acl;
}

static void test_equivalent_to_mode(void **state)
{
    Acl acl = make(7, -1, 5, -1, -1, 0);
    void *access = &acl;
    gsize size = 77;
    mode_t mode;

    (void)state;
    assert_int_equal(sw_acl_inherit(acl.bytes, acl.size, S_IFREG | S_ISUID | 0666, &mode, &access, &size), 0);
    assert_int_equal(mode, S_IFREG | S_ISUID | 0640);
    assert_null(access);
    assert_int_equal(size, 0);
}

static void test_with_mask(void **state)
{
    Acl acl = make(7, 7, 5, -1, 7, 4), expected = make(6, 7, 5, -1, 4, 4);
    void *access;
    gsize size;
    mode_t mode;

    (void)state;
    assert_int_equal(sw_acl_inherit(acl.bytes, acl.size, 0644, &mode, &access, &size), 0);
    assert_int_equal(mode, 0644);
    assert_int_equal(size, expected.size);
    assert_memory_equal(access, expected.bytes, size);
    g_free(access);
}

static void assert_malformed(const Acl *acl)
{
    mode_t mode = 1;
    void *access = &mode;
    gsize size = 3;

    assert_int_equal(sw_acl_inherit(acl->bytes, acl->size, 0666, &mode, &access, &size), -EINVAL);
    assert_true(mode == 1 && access == &mode && size == 3);
}

static void test_malformed(void **state)
{
    Acl acl = make(7, 7, 5, 5, 7, 0), other;

    (void)state;
    for (gsize size = 0; size < acl.size; size++) {
        other = acl;
        other.size = size;
        assert_malformed(&other);
    }
    other = acl;
    other.bytes[0] = 1; /* version */
    assert_malformed(&other);
    other = acl;
    other.bytes[4 + 2] = 8; /* more than rwx */
    assert_malformed(&other);
    other = acl;
    memset(other.bytes + 4 + 8 + 4, 0xff, 4); /* a named user without id */
    assert_malformed(&other);
    other = make(7, 7, 5, -1, -1, 0); /* named without mask */
    assert_malformed(&other);
    other = acl;
    add(&other, OTHER, 7, G_MAXUINT32); /* after the end */
    assert_malformed(&other);
    other = (Acl){.size = 0};
    add(&other, GROUP_OBJ, 7, G_MAXUINT32); /* out of order */
    add(&other, USER_OBJ, 7, G_MAXUINT32);
    add(&other, OTHER, 7, G_MAXUINT32);
    assert_malformed(&other);
    other = (Acl){.size = 0};
    add(&other, 3, 7, 0); /* no such tag */
    assert_malformed(&other);
}

/* A file made by the kernel in a directory with this default ACL, compared with ours. */
static void compare_with_kernel(const char *dir, const Acl *acl, mode_t create)
{
    g_autofree char *path = g_build_filename(dir, "file", NULL);
    g_autofree void *access = NULL;
    guint8 theirs[128];
    gsize size;
    ssize_t their_size;
    struct stat st;
    mode_t mode;
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, create);

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    their_size = fgetxattr(fd, SW_ACL_ACCESS, theirs, sizeof(theirs));
    close(fd);
    assert_int_equal(unlink(path), 0);

    assert_int_equal(sw_acl_inherit(acl->bytes, acl->size, S_IFREG | create, &mode, &access, &size), 0);
    assert_int_equal(mode, st.st_mode);
    if (access) {
        assert_int_equal(their_size, size);
        assert_memory_equal(theirs, access, size);
    } else {
        assert_int_equal(their_size, -1);
    }
}

static void test_against_kernel(void **state)
{
    static const mode_t modes[] = {0777, 0666, 0640, 0604, 0600, 0444, 0751, 0070, 0007, 0};
    g_autofree char *dir = g_build_filename(g_get_tmp_dir(), "sw-acl-XXXXXX", NULL);
    Acl probe = make(7, -1, 5, -1, -1, 0);
    gboolean supported;

    (void)state;
    assert_non_null(mkdtemp(dir));
    supported = setxattr(dir, SW_ACL_DEFAULT, probe.bytes, probe.size, 0) == 0;
    for (guint bits = 0; supported && bits < 4 * 64; bits++) {
        /* Bits 6 and 7 say who is named; the other six make permissions that differ from each other. */
        gboolean named_user = bits & 64, named_group = bits & 128, mask = named_user || named_group || (bits & 1);
        Acl acl = make((int)(bits & 7), named_user ? 6 : -1, (int)(bits >> 3 & 7), named_group ? 3 : -1,
                       mask ? (int)((bits ^ bits >> 3) & 7) : -1, (int)((bits >> 1) & 7));

        assert_int_equal(setxattr(dir, SW_ACL_DEFAULT, acl.bytes, acl.size, 0), 0);
        for (guint i = 0; i < G_N_ELEMENTS(modes); i++)
            compare_with_kernel(dir, &acl, modes[i]);
    }
    assert_int_equal(rmdir(dir), 0);
    if (!supported) {
        print_message("no ACLs in the directory for temporary files\n");
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equivalent_to_mode),
        cmocka_unit_test(test_with_mask),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_against_kernel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
