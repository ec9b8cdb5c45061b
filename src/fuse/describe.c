/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "describe.h"

#include "reply.h"

#include <linux/fuse.h>
#include <string.h>

/* What follows the header of a request: a structure, and then so many names, each ended by a NUL. */
typedef struct {
    const char *word;
    guint16 body;  /* size of the structure */
    guint8 names;  /* in the directory that the request is about */
    gboolean node; /* without them: it is about a file */
} Shape;

static const Shape shapes[] = {
    [FUSE_LOOKUP] = {"lookup", 0, 1, FALSE},
    [FUSE_FORGET] = {"forget", 0, 0, FALSE},
    [FUSE_GETATTR] = {"getattr", 0, 0, TRUE},
    [FUSE_SETATTR] = {"setattr", 0, 0, TRUE},
    [FUSE_READLINK] = {"readlink", 0, 0, TRUE},
    [FUSE_SYMLINK] = {"symlink", 0, 1, FALSE},
    [FUSE_MKNOD] = {"mknod", sizeof(struct fuse_mknod_in), 1, FALSE},
    [FUSE_MKDIR] = {"mkdir", sizeof(struct fuse_mkdir_in), 1, FALSE},
    [FUSE_UNLINK] = {"unlink", 0, 1, FALSE},
    [FUSE_RMDIR] = {"rmdir", 0, 1, FALSE},
    [FUSE_RENAME] = {"rename", sizeof(struct fuse_rename_in), 2, FALSE},
    [FUSE_LINK] = {"link", sizeof(struct fuse_link_in), 1, FALSE},
    [FUSE_OPEN] = {"open", 0, 0, TRUE},
    [FUSE_READ] = {"read", 0, 0, TRUE},
    [FUSE_WRITE] = {"write", 0, 0, TRUE},
    [FUSE_STATFS] = {"statfs", 0, 0, FALSE},
    [FUSE_RELEASE] = {"release", 0, 0, TRUE},
    [FUSE_FSYNC] = {"fsync", 0, 0, TRUE},
    [FUSE_SETXATTR] = {"setxattr", 0, 0, TRUE},
    [FUSE_GETXATTR] = {"getxattr", 0, 0, TRUE},
    [FUSE_LISTXATTR] = {"listxattr", 0, 0, TRUE},
    [FUSE_REMOVEXATTR] = {"removexattr", 0, 0, TRUE},
    [FUSE_FLUSH] = {"flush", 0, 0, TRUE},
    [FUSE_INIT] = {"init", 0, 0, FALSE},
    [FUSE_OPENDIR] = {"opendir", 0, 0, TRUE},
    [FUSE_READDIR] = {"readdir", 0, 0, TRUE},
    [FUSE_RELEASEDIR] = {"releasedir", 0, 0, TRUE},
    [FUSE_FSYNCDIR] = {"fsyncdir", 0, 0, TRUE},
    [FUSE_GETLK] = {"getlk", 0, 0, TRUE},
    [FUSE_SETLK] = {"setlk", 0, 0, TRUE},
    [FUSE_SETLKW] = {"setlkw", 0, 0, TRUE},
    [FUSE_ACCESS] = {"access", 0, 0, TRUE},
    [FUSE_CREATE] = {"create", sizeof(struct fuse_create_in), 1, FALSE},
    [FUSE_DESTROY] = {"destroy", 0, 0, FALSE},
    [FUSE_BATCH_FORGET] = {"batch_forget", 0, 0, FALSE},
    [FUSE_FALLOCATE] = {"fallocate", 0, 0, TRUE},
    [FUSE_READDIRPLUS] = {"readdirplus", 0, 0, TRUE},
    [FUSE_RENAME2] = {"rename", sizeof(struct fuse_rename2_in), 2, FALSE},
    [FUSE_LSEEK] = {"lseek", 0, 0, TRUE},
    [FUSE_COPY_FILE_RANGE] = {"copy_file_range", 0, 0, TRUE},
};

typedef struct {
    SwServer *server;
    const struct fuse_in_header *header;
    const char *at; /* behind the header */
    gsize left;
} Message;

/* A structure that the message has in full, or NULL. */
static const void *body_of(const Message *message, gsize size)
{
    return message->left >= size ? message->at : NULL;
}

/* The n-th name; the kernel ends each by a NUL, and who else wrote the message need not be believed. */
static const char *name_of(const Message *message, gsize body, guint n)
{
    const char *at = message->at + body, *end = message->at + message->left;

    if (message->left < body)
        return "";
    for (; n > 0 && at < end; n--)
        at += strnlen(at, (gsize)(end - at)) + 1;
    return at < end && memchr(at, '\0', (gsize)(end - at)) ? at : "";
}

static char *path_in(const Message *message, guint64 dir, const char *name)
{
    SwOverlay *overlay = message->server->overlay;

    return sw_overlay_path(overlay, sw_node_of(overlay, dir), name);
}

static guint64 new_dir_of(const Message *message)
{
    const struct fuse_rename_in *rename = body_of(message, sizeof *rename);

    return rename ? rename->newdir : FUSE_ROOT_ID; /* which rename2 begins with as well */
}

static char *describe_names(const Message *message, const Shape *shape)
{
    const struct fuse_link_in *link = body_of(message, sizeof *link);
    g_autofree char *path = path_in(message, message->header->nodeid, name_of(message, shape->body, 0));
    g_autofree char *other = NULL;

    if (shape->names == 2) {
        other = path_in(message, new_dir_of(message), name_of(message, shape->body, 1));
        return g_strdup_printf("%s %s to %s", shape->word, path, other);
    }
    if (message->header->opcode != FUSE_LINK || !link)
        return g_strdup_printf("%s %s", shape->word, path);
    other = path_in(message, link->oldnodeid, NULL);
    return g_strdup_printf("%s %s to %s", shape->word, other, path);
}

static char *describe_node(const Message *message, const Shape *shape)
{
    const struct fuse_write_in *io = body_of(message, sizeof *io); /* which begins as fuse_read_in does */
    const struct fuse_open_in *open = body_of(message, sizeof *open);
    g_autofree char *path = path_in(message, message->header->nodeid, NULL);
    const char *shown = *path ? path : ".";

    switch (message->header->opcode) {
    case FUSE_READ:
    case FUSE_WRITE:
        if (io)
            return g_strdup_printf("%s %s, %u bytes at %" G_GUINT64_FORMAT, shape->word, shown, io->size,
                                   (guint64)io->offset);
        break;
    case FUSE_OPEN:
        if (open)
            return g_strdup_printf("%s %s, flags 0%o", shape->word, shown, open->flags);
        break;
    default:
        break;
    }
    return g_strdup_printf("%s %s", shape->word, shown);
}

char *sw_request_describe(SwServer *server, const void *message, gsize size)
{
    const struct fuse_in_header *header = message;
    Message m = {server, header, (const char *)(header + 1), size - sizeof *header};
    const Shape *shape = header->opcode < G_N_ELEMENTS(shapes) ? &shapes[header->opcode] : NULL;

    if (!shape || !shape->word)
        return g_strdup_printf("request %u", header->opcode);
    if (shape->names)
        return describe_names(&m, shape);
    return shape->node ? describe_node(&m, shape) : g_strdup(shape->word);
}
