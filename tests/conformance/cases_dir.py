# SPDX-License-Identifier: GPL-2.0-or-later
"""Listing directories, statfs, access, stat: what a tree looks like."""
import ctypes
import os

from lib import AT_EMPTY_PATH, AT_FDCWD, KINDS, call, group, opened, renameat2, seq, write_file

_libc = ctypes.CDLL(None, use_errno=True)


class Dirent(ctypes.Structure):
    _fields_ = [
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("reclen", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    ]


for _name, _result, _arguments in (
    ("opendir", ctypes.c_void_p, [ctypes.c_char_p]),
    ("telldir", ctypes.c_long, [ctypes.c_void_p]),
    ("readdir", ctypes.POINTER(Dirent), [ctypes.c_void_p]),
    ("seekdir", None, [ctypes.c_void_p, ctypes.c_long]),
    ("rewinddir", None, [ctypes.c_void_p]),
    ("closedir", ctypes.c_int, [ctypes.c_void_p]),
):
    getattr(_libc, _name).restype, getattr(_libc, _name).argtypes = _result, _arguments


class Stream:
    """opendir(3) and its friends, which Python's os module hides."""

    def __init__(self, path):
        self.dir = _libc.opendir(path.encode())
        if not self.dir:
            raise OSError(ctypes.get_errno(), "opendir")

    def __iter__(self):
        while True:
            entry = _libc.readdir(self.dir)
            if not entry:
                return
            yield entry.contents.name.decode(), entry.contents.type, entry.contents.ino

    def tell(self):
        return _libc.telldir(self.dir)

    def seek(self, where):
        _libc.seekdir(self.dir, where)

    def rewind(self):
        _libc.rewinddir(self.dir)

    def close(self):
        _libc.closedir(self.dir)


def _entries(path):
    stream = Stream(path)
    try:
        return list(stream)
    finally:
        stream.close()


def _fill(count):
    os.mkdir("big")
    write_file("one", b"")
    for i in range(count):
        os.link("one", f"big/name-{i:05d}")


def _with_stream(count, act):
    _fill(count)
    stream = Stream("big")
    try:
        return act(stream)
    finally:
        stream.close()


def _seek_back(stream):
    """Every position told leads back to the entry that followed it."""
    places, names = [], []
    for name, _, _ in _telling(stream, places):
        names.append(name)
    wrong = 0
    for i in range(0, len(names), 37):
        stream.seek(places[i])
        wrong += next(iter(stream))[0] != names[i]
    return f"{len(names)} names, {wrong} wrong"


def _telling(stream, places):
    while True:
        places.append(stream.tell())
        entry = next(iter(stream), None)
        if entry is None:
            return
        yield entry


def _rewound(stream):
    first = sorted(n for n, _, _ in stream)
    write_file("big/added", b"")
    stream.rewind()
    second = sorted(n for n, _, _ in stream)
    return f'{len(first)} {len(second)} {"added" in second}'


def _removing(stream):
    """rm -r's way: names already given are removed while the listing goes on; each name must come once."""
    seen = []
    for name, _, _ in stream:
        if name not in (".", ".."):
            seen.append(name)
            os.unlink(f"big/{name}")
    return f'{len(seen)} {len(set(seen))} left {len(os.listdir("big"))}'


def _adding(stream):
    seen = []
    for i, (name, _, _) in enumerate(stream):
        seen.append(name)
        if i < 200:
            write_file(f"big/zz-{i}", b"")
    old = [n for n in seen if n.startswith("name-")]
    return f"{len(old)} {len(set(old))} twice {len(seen) - len(set(seen))}"


@group
def listing(t):
    for count in (1, 50, 3000):
        t.case(f"of {count}", lambda c=count: _with_stream(c, lambda s: len(set(n for n, _, _ in s))))
        t.case(f"seekdir in {count}", lambda c=count: _with_stream(c, _seek_back))
        t.case(f"rewinddir in {count}", lambda c=count: _with_stream(c, _rewound))
        t.case(f"removing {count}", lambda c=count: _with_stream(c, _removing))
        t.case(f"adding to {count}", lambda c=count: _with_stream(c, _adding))
    t.case(
        "types",
        lambda: sorted((n, k) for n, k, _ in _entries(".") if n != ".."),
        make=[k for k in KINDS if k != "missing"],
    )
    t.case("inode numbers are those of stat", lambda: _inode_numbers(), make=[k for k in KINDS if k != "missing"])
    t.case("dot and dotdot are there once", lambda: sorted(n for n, _, _ in _entries("dir")), make=["dir"])
    t.case("long names", lambda: _long_names())
    t.case("odd names", lambda: _odd_names())
    t.case("a name made while it is open", opened("n", os.O_RDWR | os.O_CREAT, lambda fd: os.listdir(".")))
    t.case(
        "a name removed while it is open",
        opened("n", os.O_RDWR | os.O_CREAT, lambda fd: (os.unlink("n"), os.listdir("."))[1]),
    )
    t.case(
        "after an exchange",
        seq(lambda: renameat2("file", "dir", 2), lambda: sorted((e.name, e.is_dir()) for e in os.scandir("."))),
        make=["file", "dir"],
    )
    for kind in ("missing", "file", "link", "dirlink", "dangling", "loop", "fifo"):
        t.case(f"opendir of {kind}", lambda: Stream("f").close(), make=[f"f={kind}"])
    t.case("read of a directory", opened("dir", os.O_RDONLY, lambda fd: os.read(fd, 10)), make=["dir"])
    t.case(
        "getdents of a file",
        opened("file", os.O_RDONLY, lambda fd: call("getdents64", fd, ctypes.create_string_buffer(100), 100)),
        make=["file"],
    )
    t.case(
        "getdents with a small buffer",
        opened("dir", os.O_RDONLY, lambda fd: call("getdents64", fd, ctypes.create_string_buffer(10), 10)),
        make=["dir"],
    )


def _inode_numbers():
    wrong = [n for n, _, ino in _entries(".") if os.lstat(n).st_ino != ino]
    return f"wrong: {wrong}"


def _long_names():
    os.mkdir("d")
    for i in range(60):
        write_file("d/" + f"{i:02d}".ljust(255, "x"), b"")
    return len(os.listdir("d")), max(len(n) for n in os.listdir("d"))


def _odd_names():
    names = [
        b"\xff",
        b"a\nb",
        b" ",
        b"...",
        b"-rf",
        b"\x01",
        b"a\\",
        "é".encode(),
        b".hidden",
        b"#x",
        b"~",
        b"%s",
        b"*?[",
    ]
    for name in names:
        os.mkdir(name)
    return sorted(os.listdir(b".")) == sorted(names)


@group
def statfs(t):
    fields = "f_bsize f_frsize f_blocks f_files f_namemax".split()
    for kind in ("file", "dir", "link", "dangling", "missing", "fifo"):
        t.case(f"of {kind}", lambda: [getattr(os.statvfs("f"), f) for f in fields], make=[f"f={kind}"])
    t.case(
        "fstatfs", opened("file", os.O_RDONLY, lambda fd: [getattr(os.statvfs(fd), f) for f in fields]), make=["file"]
    )
    t.case("free space makes sense", lambda: _space())
    t.case("pathconf", lambda: [os.pathconf(".", n) for n in ("PC_NAME_MAX", "PC_PATH_MAX", "PC_PIPE_BUF")])


def _space():
    s = os.statvfs(".")
    return 0 < s.f_bavail <= s.f_bfree <= s.f_blocks and 0 < s.f_ffree <= s.f_files


@group
def access(t):
    for kind in KINDS:
        t.case(f"F_OK {kind}", lambda: call("access", "f", 0), make=[f"f={kind}"])
        t.case(f"X_OK {kind}", lambda: call("access", "f", 1), make=[f"f={kind}"])
    for mode in (0o000, 0o100, 0o200, 0o400, 0o644, 0o711, 0o007, 0o070):
        for want in (1, 2, 4, 6):
            t.case(
                f"file {mode:03o} wants {want}",
                lambda m=mode, w=want: (os.chmod("file", m), call("access", "file", w))[1],
                make=["file"],
            )
    t.case("bad mode", lambda: call("access", "file", 64), make=["file"])
    t.case("faccessat2 EACCESS", lambda: call("faccessat", AT_FDCWD, "file", 1, 0x200), make=["file"])
    for name, path in {
        "empty path": "",
        "below file": "file/x",
        "below missing": "no/x",
        "NAME_MAX+1": "n" * 256,
        "slash after file": "file/",
    }.items():
        t.case(name, lambda p=path: call("access", p, 0), make=["file"])


@group
def stat_calls(t):
    for kind in KINDS:
        t.case(f"stat of {kind}", lambda: os.stat("f"), make=[f"f={kind}"])
        t.case(f"lstat of {kind}", lambda: os.lstat("f"), make=[f"f={kind}"])
        t.case(
            f"fstatat empty path of {kind}",
            opened("f", os.O_PATH | os.O_NOFOLLOW, lambda fd: _empty_path_stat(fd)),
            make=[f"f={kind}"],
        )
    for name, path in {
        "empty path": "",
        "below file": "file/x",
        "below missing": "no/x",
        "NAME_MAX+1": "n" * 256,
        "slash after file": "file/",
        "slash after dir": "dir/",
        "below loop": "loop/x",
        "PATH_MAX+1": "./" * 2048 + "x",
    }.items():
        t.case(name, lambda p=path: os.stat(p), make=["file", "dir", "loop"])
    t.case(
        "one device",
        lambda: os.stat(".").st_dev == os.lstat("file").st_dev == os.stat("dir").st_dev,
        make=["file", "dir"],
    )
    t.case("inode stays over stats", lambda: os.stat("file").st_ino == os.stat("file").st_ino, make=["file"])
    t.case("dotdot is the parent", lambda: os.path.samefile("dir/..", "."), make=["dir"])
    t.case("block size", lambda: os.stat("file").st_blksize, make=["file"])
    t.case("blocks of a file", lambda: _blocks_of(100_000))
    t.case(
        "directory link count",
        seq(
            lambda: os.stat("dir").st_nlink,
            lambda: os.mkdir("dir/a"),
            lambda: os.stat("dir").st_nlink,
            lambda: os.mkdir("dir/b"),
            lambda: os.rmdir("dir/a"),
            lambda: os.stat("dir").st_nlink,
            lambda: write_file("dir/f", b""),
            lambda: os.stat("dir").st_nlink,
        ),
        make=["dir"],
    )


def _empty_path_stat(fd):
    call("faccessat", fd, "", 0, AT_EMPTY_PATH)
    return os.fstat(fd)


def _blocks_of(size):
    write_file("f", b"x" * size)
    fd = os.open("f", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return os.stat("f").st_blocks * 512 >= size
