# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls of rule C14 that change or move bytes, and plain reading and writing."""
import ctypes
import mmap
import os
import signal

from lib import call, fallocate, group, opened, read_file, seq, write_file

R, W, RW, C, T, A = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND
KEEP, PUNCH, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64
PAGE = 4096


def _blocks(*letters):
    """A file named f of one page for each letter; '.' leaves a hole."""
    fd = os.open("f", RW | C | T)
    for i, letter in enumerate(letters):
        if letter != ".":
            os.pwrite(fd, letter.encode() * PAGE, i * PAGE)
    os.ftruncate(fd, len(letters) * PAGE)
    os.close(fd)


@group
def truncate(t):
    for kind in ("missing", "file", "empty", "dir", "link", "dirlink", "dangling", "loop", "fifo", "sock", "null"):
        for size in (0, 3, 10):
            t.case(f"{kind} to {size}", lambda s=size: os.truncate("f", s), make=[f"f={kind}"], show=["f", "f.target"])
    for size in (0, 4095, 4096, 4097, 100_000):
        t.case(f"three pages to {size}", lambda s=size: (_blocks("A", "B", "C"), os.truncate("f", s))[1], show=["f"])
        t.case(
            f"ftruncate three pages to {size}",
            lambda s=size: (_blocks("A", "B", "C"), opened("f", RW, lambda fd: os.ftruncate(fd, s))())[1],
            show=["f"],
        )
    t.case("negative", lambda: os.truncate("file", -1), make=["file"])
    t.case("ftruncate negative", opened("file", RW, lambda fd: os.ftruncate(fd, -1)), make=["file"])
    t.case("largest", lambda: os.truncate("file", 2**63 - 1), make=["file"])
    t.case(
        "a terabyte of hole",
        seq(
            lambda: os.truncate("f", 2**40),
            lambda: os.stat("f").st_size,
            lambda: os.stat("f").st_blocks < 100,
            lambda: os.truncate("f", 0),
        ),
        make=["f=file"],
    )
    t.case(
        "shrink and grow shows zeros",
        seq(lambda: os.truncate("file", 2), lambda: os.truncate("file", 8)),
        make=["file"],
        show=["file"],
    )
    t.case(
        "between writes",
        opened(
            "f",
            RW | C,
            lambda fd: seq(lambda: os.write(fd, b"abcdef"), lambda: os.ftruncate(fd, 2), lambda: os.write(fd, b"XY"))(),
        ),
        show=["f"],
    )
    for name, path in {
        "empty path": "",
        "below file": "file/x",
        "below missing": "no/x",
        "slash after file": "file/",
        "NAME_MAX+1": "n" * 256,
    }.items():
        t.case(name, lambda p=path: os.truncate(p, 0), make=["file"])
    t.case("beyond RLIMIT_FSIZE", lambda: _limited(lambda: os.truncate("file", 5000)), make=["file"], show=["file"])
    t.case(
        "write beyond RLIMIT_FSIZE",
        lambda: _limited(lambda: write_file("file", b"Z" * 5000)),
        make=["file"],
        show=["file"],
    )


def _limited(act):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        return act()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@group
def fallocate_modes(t):
    modes = {
        "plain": 0,
        "KEEP_SIZE": KEEP,
        "PUNCH|KEEP": PUNCH | KEEP,
        "PUNCH": PUNCH,
        "ZERO": ZERO,
        "ZERO|KEEP": ZERO | KEEP,
        "COLLAPSE": COLLAPSE,
        "INSERT": INSERT,
        "COLLAPSE|KEEP": COLLAPSE | KEEP,
        "unknown": 1024,
    }
    ranges = {
        "inside": (PAGE, PAGE),
        "unaligned": (1000, 5000),
        "across the end": (2 * PAGE, 3 * PAGE),
        "beyond the end": (5 * PAGE, PAGE),
        "empty": (0, 0),
        "negative": (-1, 10),
        "overflow": (2**63 - 10, 100),
    }
    for mode_name, mode in modes.items():
        for range_name, (offset, length) in ranges.items():
            t.case(
                f"{mode_name} {range_name}",
                lambda m=mode, o=offset, n=length: (
                    _blocks("A", "B", "C"),
                    opened("f", RW, lambda fd: fallocate(fd, m, o, n))(),
                )[1],
                show=["f"],
            )
    t.case("new file", opened("f", RW | C, lambda fd: fallocate(fd, 0, 0, 10_000)), show=["f"])
    t.case(
        "new file then written",
        opened("f", RW | C, lambda fd: (fallocate(fd, 0, 0, 6), os.write(fd, b"abc"))[1]),
        show=["f"],
    )
    t.case("posix_fallocate", opened("f", RW | C, lambda fd: os.posix_fallocate(fd, 0, 9)), show=["f"])
    t.case("on a directory", opened("dir", R, lambda fd: fallocate(fd, 0, 0, 10)), make=["dir"])
    t.case("on a fifo", opened("fifo", RW, lambda fd: fallocate(fd, 0, 0, 10)), make=["fifo"])
    t.case("on a bad descriptor", lambda: fallocate(999, 0, 0, 10))


@group
def copy_file_range(t):
    def copy(count, src_at=None, dst_at=None, flags=W, name="g"):
        def run():
            src, dst = os.open("f", R), os.open(name, flags)
            try:
                return os.copy_file_range(src, dst, count, src_at, dst_at)
            finally:
                os.close(src)
                os.close(dst)

        return run

    for name, args in {
        "whole": (5,),
        "more than there is": (100,),
        "nothing": (0,),
        "part": (2, 1, 0),
        "beyond the end": (5, 9, 0),
        "to an offset": (5, 0, 3),
        "to a far offset": (5, 0, 10_000),
        "negative offset": (5, -1, 0),
    }.items():
        t.case(f"{name} to an empty file", copy(*args), make=["f=file", "g=empty"], show=["g"])
        t.case(f"{name} to a file", copy(*args), make=["f=file", "g=file"], show=["g"])
        t.case(f"{name} to a new file", copy(*args, flags=W | C), make=["f=file"], show=["g"])
    t.case(
        "a megabyte",
        lambda: (write_file("f", b"Q" * 1_000_000), write_file("g", b""), copy(1_000_000)())[2],
        show=["g"],
    )
    t.case("to a read-only descriptor", copy(5, flags=R), make=["f=file", "g=file"])
    t.case("to an appending descriptor", copy(5, flags=W | A), make=["f=file", "g=file"], show=["g"])
    t.case("to itself, overlapping", copy(5, 0, 2, name="f"), make=["f=file"], show=["f"])
    t.case("to itself, apart", copy(5, 0, 5, name="f"), make=["f=file"], show=["f"])
    t.case("from a directory", copy(5), make=["f=dir", "g=empty"])
    t.case("from a fifo", lambda: _copy_from_fifo(), make=["fifo", "g=empty"])
    t.case("sendfile", lambda: _sendfile(), make=["f=file", "g=empty"], show=["g"])
    t.case("FICLONE of a directory", opened("dir", R, lambda fd: _clone(fd, "g")), make=["dir", "g=empty"])
    t.case("splice from a pipe", lambda: _splice(), show=["g"])


def _copy_from_fifo():
    src, dst = os.open("fifo", os.O_RDWR), os.open("g", W)
    try:
        return os.copy_file_range(src, dst, 5)
    finally:
        os.close(src)
        os.close(dst)


def _clone(fd, name):
    return opened(name, W, lambda dst: call("ioctl", dst, 0x40049409, fd))()


def _sendfile():
    src, dst = os.open("f", R), os.open("g", W)
    try:
        return os.sendfile(dst, src, 0, 5)
    finally:
        os.close(src)
        os.close(dst)


def _splice():
    r, w = os.pipe()
    os.write(w, b"spliced")
    os.close(w)
    try:
        return opened(
            "g",
            W | C,
            lambda fd: os.splice(r, fd, 7) if hasattr(os, "splice") else call("splice", r, None, fd, None, 7, 0),
        )()
    finally:
        os.close(r)


@group
def seek(t):
    def seeks(fd):
        whence = (("DATA", os.SEEK_DATA), ("HOLE", os.SEEK_HOLE))
        places = (0, PAGE, PAGE + 1, 3 * PAGE, 4 * PAGE - 1, 4 * PAGE, -1)
        return seq(*[lambda w=w, p=p: os.lseek(fd, p, w) for _, w in whence for p in places])()

    shapes = {
        "data": "AAAA",
        "hole": "....",
        "data hole": "AA..",
        "hole data": "..AA",
        "mixed": "A.A.",
        "middle": ".AA.",
    }
    for name, letters in shapes.items():
        t.case(f"{name}, closed", lambda s=letters: (_blocks(*s), opened("f", R, seeks)())[1])
        t.case(f"{name}, staged", lambda s=letters: opened("f", RW | C, lambda fd: (_fill(fd, s), seeks(fd))[1])())
    t.case(
        "edit of a file with holes",
        lambda: (_blocks("A", ".", ".", "B"), opened("f", RW, lambda fd: (os.pwrite(fd, b"x", 0), seeks(fd))[1])())[1],
        show=["f"],
    )
    t.case(
        "holes survive an edit",
        lambda: (
            _blocks("A", ".", ".", "B"),
            opened("f", RW, lambda fd: os.pwrite(fd, b"x", 0))(),
            opened("f", R, seeks)(),
        )[2],
    )
    t.case(
        "punched",
        lambda: (
            _blocks("A", "B", "C", "D"),
            opened("f", RW, lambda fd: (fallocate(fd, PUNCH | KEEP, PAGE, PAGE), seeks(fd))[1])(),
        )[1],
    )
    t.case("empty file", opened("empty", R, seeks), make=["empty"])
    t.case("directory", opened("dir", R, lambda fd: os.lseek(fd, 0, os.SEEK_DATA)), make=["dir"])
    t.case(
        "plain whences",
        opened(
            "file",
            R,
            lambda fd: seq(
                lambda: os.lseek(fd, 2, 0),
                lambda: os.lseek(fd, 1, 1),
                lambda: os.lseek(fd, -1, 2),
                lambda: os.lseek(fd, -9, 2),
                lambda: os.lseek(fd, 10**12, 0),
                lambda: os.read(fd, 1),
                lambda: os.lseek(fd, 0, 99),
            )(),
        ),
        make=["file"],
    )


def _fill(fd, letters):
    for i, letter in enumerate(letters):
        if letter != ".":
            os.pwrite(fd, letter.encode() * PAGE, i * PAGE)
    os.ftruncate(fd, len(letters) * PAGE)


@group
def append(t):
    t.case(
        "two writes",
        opened("file", W | A, lambda fd: (os.write(fd, b"-1"), os.write(fd, b"-2"))[1]),
        make=["file"],
        show=["file"],
    )
    t.case(
        "after a seek",
        opened("file", W | A, lambda fd: (os.lseek(fd, 0, 0), os.write(fd, b"-1"))[1]),
        make=["file"],
        show=["file"],
    )
    t.case("pwrite appends", opened("file", W | A, lambda fd: os.pwrite(fd, b"-1", 0)), make=["file"], show=["file"])
    t.case(
        "position after", opened("file", RW | A, lambda fd: (os.write(fd, b"-1"), os.lseek(fd, 0, 1))[1]), make=["file"]
    )
    t.case("reads from the start", opened("file", RW | A, lambda fd: os.read(fd, 9)), make=["file"])
    t.case(
        "reads what it wrote",
        opened("file", RW | A, lambda fd: (os.write(fd, b"-1"), os.pread(fd, 20, 0))[1]),
        make=["file"],
    )
    t.case("new file", opened("f", W | A | C, lambda fd: os.write(fd, b"first")), show=["f"])
    t.case(
        "truncated between",
        opened(
            "file",
            W | A,
            lambda fd: seq(lambda: os.write(fd, b"123"), lambda: os.ftruncate(fd, 2), lambda: os.write(fd, b"456"))(),
        ),
        make=["file"],
        show=["file"],
    )
    t.case("O_TRUNC|O_APPEND", opened("file", W | A | T, lambda fd: os.write(fd, b"new")), make=["file"], show=["file"])
    t.case(
        "set by fcntl",
        opened("file", W, lambda fd: seq(lambda: call("fcntl", fd, 4, A), lambda: os.write(fd, b"-1"))()),
        make=["file"],
        show=["file"],
    )
    t.case(
        "cleared by fcntl",
        opened("file", W | A, lambda fd: seq(lambda: call("fcntl", fd, 4, 0), lambda: os.pwrite(fd, b"XY", 0))()),
        make=["file"],
        show=["file"],
    )
    t.case(
        "two handles in turn",
        opened(
            "file",
            W | A,
            lambda a: opened(
                "file",
                W | A,
                lambda b: seq(lambda: os.write(a, b"1"), lambda: os.write(b, b"2"), lambda: os.write(a, b"3"))(),
            )(),
        ),
        make=["file"],
        show=["file"],
    )
    t.case("a hundred records", lambda: _hundred(), show=["f"])
    t.case(
        "writev",
        opened("file", W | A, lambda fd: os.writev(fd, [b"a", b"bc", b"", b"d"])),
        make=["file"],
        show=["file"],
    )
    t.case("through a second name", opened("hard", W | A, lambda fd: os.write(fd, b"X")), make=["hard"], show=["hard"])


def _hundred():
    for i in range(100):
        opened("f", W | A | C, lambda fd: os.write(fd, b"%03d\n" % i))()
    return read_file("f") == b"".join(b"%03d\n" % i for i in range(100))


@group
def read_write(t):
    def staged(*acts, flags=RW | C):
        return opened("f", flags, lambda fd: seq(*[lambda a=a: a(fd) for a in acts])())

    t.case("beyond the end leaves zeros", staged(lambda fd: os.pwrite(fd, b"X", 10)), show=["f"])
    t.case(
        "far beyond the end",
        staged(
            lambda fd: os.pwrite(fd, b"X", 2**33),
            lambda fd: os.fstat(fd).st_size,
            lambda fd: os.pread(fd, 5, 2**33 - 2),
            lambda fd: os.ftruncate(fd, 0),
        ),
    )
    t.case("at the largest offset", staged(lambda fd: os.pwrite(fd, b"XX", 2**63 - 2)))
    t.case("negative offset", staged(lambda fd: os.pwrite(fd, b"X", -1), lambda fd: os.pread(fd, 1, -1)))
    t.case("of nothing", staged(lambda fd: os.write(fd, b""), lambda fd: os.pwrite(fd, b"", 100)), show=["f"])
    t.case(
        "writev and preadv",
        staged(lambda fd: os.writev(fd, [b"ab", b"", b"cd"]), lambda fd: os.preadv(fd, [bytearray(3)], 1)),
        show=["f"],
    )
    t.case(
        "pwritev with RWF_APPEND",
        staged(lambda fd: os.pwritev(fd, [b"end"], 0, 16), flags=RW),
        make=["f=file"],
        show=["f"],
    )
    t.case("from a bad address", staged(lambda fd: call("write", fd, ctypes.c_void_p(8), 10)), show=["f"])
    t.case("eight megabytes", staged(lambda fd: _large(fd), lambda fd: os.fstat(fd).st_size), show=["f"])
    t.case("unaligned pieces", lambda: _pieces(), show=["f"])
    t.case("read of a written page", staged(lambda fd: os.write(fd, b"abc"), lambda fd: os.pread(fd, 10, 1)))
    t.case(
        "rewrite",
        seq(lambda: write_file("f", b"one"), lambda: write_file("f", b"second"), lambda: write_file("f", b"3")),
        show=["f"],
    )
    t.case(
        "overwrite in the middle", opened("file", RW, lambda fd: os.pwrite(fd, b"EL", 1)), make=["file"], show=["file"]
    )
    t.case("O_DIRECT", lambda: _direct(), show=["f"])
    t.case("write to a closed descriptor", lambda: os.write(999, b"x"))
    t.case(
        "fsync, then more",
        staged(lambda fd: os.write(fd, b"a"), os.fsync, lambda fd: os.write(fd, b"b"), os.fdatasync),
        show=["f"],
    )


def _large(fd):
    return sum(os.write(fd, bytes([65 + i]) * 2**20) for i in range(8))


def _pieces():
    fd = os.open("f", RW | C)
    for i in range(300):
        os.pwrite(fd, b"%05d" % i, i * 5)
    os.close(fd)
    return read_file("f") == b"".join(b"%05d" % i for i in range(300))


def _direct():
    area = mmap.mmap(-1, PAGE)
    area.write(b"D" * PAGE)
    return opened(
        "f",
        RW | C | os.O_DIRECT,
        lambda fd: seq(
            lambda: os.pwritev(fd, [area], 0), lambda: os.preadv(fd, [area], 0), lambda: os.fstat(fd).st_size
        )(),
    )()


class Mapping:
    """A mapping made by the bare call: Python's own keeps a copy of the descriptor, which would matter."""

    def __init__(self, fd, length, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_SHARED):
        function = ctypes.CDLL(None, use_errno=True).mmap
        function.restype = ctypes.c_void_p
        self.address = function(None, ctypes.c_size_t(length), prot, flags, fd, ctypes.c_long(0))
        if self.address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        self.length = length

    def put(self, offset, data):
        ctypes.memmove(self.address + offset, data, len(data))

    def get(self, offset, count):
        return ctypes.string_at(self.address + offset, count)

    def sync(self):
        call("msync", ctypes.c_void_p(self.address), self.length, 4)

    def close(self):
        call("munmap", ctypes.c_void_p(self.address), self.length)


@group
def mappings(t):
    def mapped(open_flags, act, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_SHARED, size=PAGE):
        def on_descriptor(fd):
            m = Mapping(fd, size, prot, flags)
            try:
                return act(m, fd)
            finally:
                m.close()

        return opened("f", open_flags, on_descriptor)

    file = ["f=file"]
    t.case("shared write", mapped(RW, lambda m, fd: m.put(1, b"EL")), make=file, show=["f"])
    t.case("shared write and msync", mapped(RW, lambda m, fd: (m.put(1, b"EL"), m.sync())[1]), make=file, show=["f"])
    t.case("shared write seen by read", mapped(RW, lambda m, fd: (m.put(0, b"J"), os.pread(fd, 9, 0))[1]), make=file)
    t.case("write seen by the mapping", mapped(RW, lambda m, fd: (os.pwrite(fd, b"J", 0), m.get(0, 5))[1]), make=file)
    t.case(
        "private write stays private",
        mapped(RW, lambda m, fd: (m.put(0, b"J"), os.pread(fd, 9, 0))[1], flags=mmap.MAP_PRIVATE),
        make=file,
        show=["f"],
    )
    t.case(
        "private of a read-only descriptor",
        mapped(R, lambda m, fd: (m.put(0, b"J"), m.get(0, 5))[1], flags=mmap.MAP_PRIVATE),
        make=file,
        show=["f"],
    )
    t.case("shared write of a read-only descriptor", mapped(R, lambda m, fd: None), make=file)
    t.case("shared read of a write-only descriptor", mapped(W, lambda m, fd: None, prot=mmap.PROT_READ), make=file)
    t.case("zeros after the end", mapped(R, lambda m, fd: m.get(0, 9), prot=mmap.PROT_READ), make=file)
    t.case("stores after the end are lost", mapped(RW, lambda m, fd: m.put(5, b"LOST")), make=file, show=["f"])
    t.case("of a directory", opened("dir", R, lambda fd: Mapping(fd, PAGE, mmap.PROT_READ)), make=["dir"])
    t.case("of an empty file", opened("empty", RW, lambda fd: Mapping(fd, PAGE).close()), make=["empty"])
    t.case("stored after close", lambda: _stored_after_close("f"), make=file, show=["f"])
    t.case("new file stored after close", lambda: _stored_after_close("n", RW | C), show=["n"])
    t.case(
        "truncated under the mapping",
        mapped(RW, lambda m, fd: (m.put(0, b"ABCDE"), os.ftruncate(fd, 2), m.get(0, 4))[2]),
        make=file,
        show=["f"],
    )
    t.case(
        "grown under the mapping",
        mapped(RW, lambda m, fd: (os.ftruncate(fd, PAGE), m.put(100, b"x"))[1]),
        make=file,
        show=["f"],
    )
    t.case(
        "executable",
        mapped(R, lambda m, fd: m.get(0, 5), prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE),
        make=file,
    )
    t.case("memmap by Python", lambda: _python_mmap(), show=["f"])


def _stored_after_close(name, flags=RW):
    fd = os.open(name, flags, 0o644)
    os.ftruncate(fd, 5)
    m = Mapping(fd, PAGE)
    os.close(fd)
    m.put(0, b"LATER")
    m.close()
    return read_file(name)


def _python_mmap():
    with open("f", "w+b") as f:
        f.truncate(2 * PAGE)
        m = mmap.mmap(f.fileno(), 2 * PAGE)
    m[0:3] = b"abc"
    m[PAGE : PAGE + 1] = b"z"
    m.flush()
    m.close()
