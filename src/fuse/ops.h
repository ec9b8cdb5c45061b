/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_FUSE_OPS_H
#define SW_FUSE_OPS_H

/* Requests that may have to wait (ops_waiting.c), as struct fuse_lowlevel_ops names them. */

#include "../core/bundle.h"
#include "config.h"
#include "reply.h"

#include <fuse_lowlevel.h>

void sw_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void sw_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                  unsigned int flags);
void sw_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void sw_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi);
void sw_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void sw_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void sw_op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);

/* ops_ask.c */
void sw_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int command, void *arg, struct fuse_file_info *fi,
                 unsigned flags, const void *in, size_t in_size, size_t out_size);

/* ops_lock.c */
#define SW_LOCK_MESSAGE_MAX 512
/* Requests that wait for file locks: stored, or added to `messages` (of GByteArray, owned). */
void sw_waiting_locks_carry(SwServer *server, SwBundle *bundle, GPtrArray *messages);
void sw_op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void sw_op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep);
void sw_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int operation);

#endif
