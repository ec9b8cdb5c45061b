/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_CONFIG_H
#define SW_FUSE_CONFIG_H

/* The libfuse interface this code is written to; before any of its headers. */
#define FUSE_USE_VERSION 312

#endif
