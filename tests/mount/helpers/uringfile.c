/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uringfile PAYLOAD FILE
 *
 * Writes FILE through an io_uring direct descriptor, which no /proc table shows and which is closed without a FLUSH:
 * openat into slot 0, writes of 16 KiB, close of slot 0.  Exit status 77: io_uring cannot be used here.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ring {
    int fd;
    unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
};

static void *map(int fd, size_t size, off_t what)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);

    if (at == MAP_FAILED)
        err(77, "mmap of the ring");
    return at;
}

static void ring_init(struct ring *ring)
{
    struct io_uring_params p = {0};
    int empty[1] = {-1};
    char *sq, *cq;

    ring->fd = (int)syscall(SYS_io_uring_setup, 4, &p);
    if (ring->fd < 0)
        err(77, "io_uring_setup");
    sq = map(ring->fd, p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    cq = map(ring->fd, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    ring->sqes = map(ring->fd, p.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    ring->sq_tail = (unsigned *)(sq + p.sq_off.tail);
    ring->sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
    ring->sq_array = (unsigned *)(sq + p.sq_off.array);
    ring->cq_head = (unsigned *)(cq + p.cq_off.head);
    ring->cq_tail = (unsigned *)(cq + p.cq_off.tail);
    ring->cq_mask = (unsigned *)(cq + p.cq_off.ring_mask);
    ring->cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
    if (syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_FILES, empty, 1) < 0)
        err(77, "io_uring_register");
}

static int ring_do(struct ring *ring, const struct io_uring_sqe *sqe)
{
    unsigned tail = *ring->sq_tail, slot = tail & *ring->sq_mask;
    unsigned head;
    int result;

    ring->sqes[slot] = *sqe;
    ring->sq_array[slot] = slot;
    __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        err(2, "io_uring_enter");
    head = *ring->cq_head;
    if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
        errx(2, "no completion");
    result = ring->cqes[head & *ring->cq_mask].res;
    __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
    return result;
}

static void check(const char *what, int result)
{
    if (result < 0) {
        errno = -result;
        err(result == -EINVAL ? 77 : 2, "%s", what);
    }
}

int main(int argc, char **argv)
{
    static char payload[1 << 20];
    struct io_uring_sqe sqe = {0};
    struct ring ring;
    ssize_t size;
    int in;

    if (argc != 3)
        errx(2, "usage: uringfile PAYLOAD FILE");
    in = open(argv[1], O_RDONLY);
    size = in < 0 ? -1 : read(in, payload, sizeof payload);
    if (size < 0)
        err(2, "%s", argv[1]);
    ring_init(&ring);
    sqe.opcode = IORING_OP_OPENAT;
    sqe.fd = AT_FDCWD;
    sqe.addr = (uintptr_t)argv[2];
    sqe.open_flags = O_WRONLY | O_CREAT | O_TRUNC;
    sqe.len = 0644;
    sqe.file_index = 1;
    check("open", ring_do(&ring, &sqe));
    for (ssize_t at = 0; at < size; at += 16384) {
        sqe = (struct io_uring_sqe){.opcode = IORING_OP_WRITE, .flags = IOSQE_FIXED_FILE, .fd = 0};
        sqe.addr = (uintptr_t)(payload + at);
        sqe.len = (unsigned)(size - at < 16384 ? size - at : 16384);
        sqe.off = (uint64_t)at;
        check("write", ring_do(&ring, &sqe));
        usleep(2000);
    }
    sqe = (struct io_uring_sqe){.opcode = IORING_OP_CLOSE, .file_index = 1};
    check("close", ring_do(&ring, &sqe));
    return 0;
}
