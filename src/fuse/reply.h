/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_REPLY_H
#define SW_FUSE_REPLY_H

/*
 * Between FUSE's terms and the overlay's: callers, node numbers, entries, errors.  Internal to src/fuse.
 */

#include "../overlay/overlay.h"
#include "config.h"

#include <fuse_lowlevel.h>

typedef struct SwServer SwServer;

/* Who asks, with supplementary groups where they matter (a daemon of root's, a caller who is not). */
SwCaller sw_caller_of(fuse_req_t req);
SwServer *sw_server_of(fuse_req_t req);
SwOverlay *sw_overlay_of(fuse_req_t req);

SwNode *sw_node_of(SwOverlay *overlay, fuse_ino_t ino);
/* NULL for NULL. */
SwHandle *sw_handle_of(SwOverlay *overlay, const struct fuse_file_info *fi);
fuse_ino_t sw_ino_of(SwOverlay *overlay, SwNode *node);

/* Each of these ends the request. */
void sw_reply_error(fuse_req_t req, const char *operation, int r);
void sw_reply_entry(fuse_req_t req, const char *operation, int r, SwEntry *entry);
void sw_reply_attr(fuse_req_t req, const char *operation, int r, const struct stat *st, gint64 attr_us);
void sw_reply_count(fuse_req_t req, const char *operation, ssize_t n);

struct fuse_entry_param sw_entry_param(SwOverlay *overlay, const SwEntry *entry);

#endif
