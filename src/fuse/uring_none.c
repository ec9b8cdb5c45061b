/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Without liburing. */
#include "uring.h"

#include <errno.h>

int sw_uring_new(const SwUringSetup *setup, SwUring **ret_uring)
{
    (void)setup;
    *ret_uring = NULL;
    return -ENOSYS;
}

void sw_uring_start(SwUring *uring, int device)
{
    (void)uring;
    (void)device;
}

gboolean sw_uring_answer(SwUring *uring, const struct iovec *answer, int n)
{
    (void)uring;
    (void)answer;
    (void)n;
    return FALSE;
}

gboolean sw_uring_let_go(SwUring *uring, guint64 unique)
{
    (void)uring;
    (void)unique;
    return FALSE;
}

void sw_uring_commit_now(SwUring *uring)
{
    (void)uring;
}

gboolean sw_uring_has_unserved(SwUring *uring)
{
    (void)uring;
    return FALSE;
}

gboolean sw_uring_comes_on(SwUring *uring)
{
    (void)uring;
    return TRUE;
}

void sw_uring_stop(SwUring *uring)
{
    (void)uring;
}

void sw_uring_free(SwUring *uring)
{
    (void)uring;
}
