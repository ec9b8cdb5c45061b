/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_ACL_H
#define SW_ACL_H

/*
 * POSIX ACLs as the system.posix_acl_* attributes carry them (linux/posix_acl_xattr.h), just enough to give a stage
 * what a create beside its target would have inherited (C17).  Pure; input is hostile.
 */

#include <glib.h>
#include <sys/types.h>

#define SW_ACL_ACCESS "system.posix_acl_access"
#define SW_ACL_DEFAULT "system.posix_acl_default"

/*
 * What a new file with create mode `mode` (umask not applied) gets from its directory's default ACL (acl(5), "object
 * creation and default ACLs"; the kernel's posix_acl_create_masq): *ret_mode, and in *ret_access the value for
 * SW_ACL_ACCESS (g_free), or NULL when the mode alone says it all.  -EINVAL for a malformed ACL.
 */
int sw_acl_inherit(const void *default_acl, gsize size, mode_t mode, mode_t *ret_mode, void **ret_access,
                   gsize *ret_size) G_GNUC_WARN_UNUSED_RESULT;

#endif
