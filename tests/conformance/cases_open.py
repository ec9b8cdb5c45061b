# SPDX-License-Identifier: GPL-2.0-or-later
"""open(2), creat(2), O_TMPFILE: every flag that matters against every kind of target."""
import os

from lib import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    call,
    describe,
    fallocate,
    group,
    linkat,
    opened,
    read_file,
    seq,
    write_file,
)

R, W, RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
C, T, X, A = os.O_CREAT, os.O_TRUNC, os.O_EXCL, os.O_APPEND
DIRECTORY, NOFOLLOW, PATH, NB = os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH, os.O_NONBLOCK

FLAGS = {
    "R": R,
    "W": W,
    "RW": RW,
    "R|T": R | T,
    "W|T": W | T,
    "RW|T": RW | T,
    "R|C": R | C,
    "W|C": W | C,
    "RW|C": RW | C,
    "W|C|T": W | C | T,
    "W|C|X": W | C | X,
    "R|C|X": R | C | X,
    "RW|C|X|T": RW | C | X | T,
    "W|A": W | A,
    "W|C|A": W | C | A,
    "W|C|A|T": W | C | A | T,
    "R|DIRECTORY": R | DIRECTORY,
    "W|DIRECTORY": W | DIRECTORY,
    "W|C|DIRECTORY": W | C | DIRECTORY,
    "R|NOFOLLOW": R | NOFOLLOW,
    "W|C|NOFOLLOW": W | C | NOFOLLOW,
    "PATH": PATH,
    "PATH|NOFOLLOW": PATH | NOFOLLOW,
    "PATH|DIRECTORY": PATH | DIRECTORY,
    "mode3": 3,
    "R|NOATIME": R | os.O_NOATIME,
    "W|C|SYNC": W | C | os.O_SYNC,
    "W|C|DSYNC": W | C | os.O_DSYNC,
}
TARGETS = ["missing", "file", "empty", "dir", "tree", "link", "dirlink", "dangling", "loop", "fifo", "sock", "hard"]


@group
def open_flags(t):
    for kind in TARGETS:
        for name, flags in FLAGS.items():
            t.case(f"{kind} {name}", opened("f", flags | NB), make=[f"f={kind}"], show=["f"])


@group
def open_paths(t):
    """Errors on the way to the last component, and odd forms of a path."""
    paths = {
        "empty path": "",
        "dot": ".",
        "slash after file": "file/",
        "slash after dir": "dir/",
        "slash after missing": "no/",
        "below file": "file/x",
        "below missing": "no/x",
        "below dangling": "dangling/x",
        "below loop": "loop/x",
        "below dirlink": "dirlink/x",
        "dotdot": "dir/../file",
        "dotdot of file": "file/../file",
        "double slash": "dir//x",
        "NAME_MAX": "n" * 255,
        "NAME_MAX+1": "n" * 256,
        "long below missing": "no/" + "n" * 256,
        "PATH_MAX": "./" * 2046 + "fil",
        "PATH_MAX+1": "./" * 2047 + "file",
        "utf-8": "ÿé中",
        "not utf-8": b"\xff\xfe".decode("utf-8", "surrogateescape"),
        "newline": "a\nb",
        "backslash": "a\\b",
        "blank": " ",
        "star": "*",
    }
    make = ["file", "dir", "dangling", "loop", "dirlink"]
    for name, path in paths.items():
        t.case(f"read {name}", opened(path, R), make=make)
        t.case(f"create {name}", opened(path, RW | C, lambda fd: os.write(fd, b"x")), make=make, show=["."])


@group
def open_modes(t):
    """What a new file's mode comes from."""
    for mode in (0o644, 0o666, 0o777, 0o600, 0o000, 0o444, 0o1644, 0o4755, 0o2755, 0o7777):
        t.case(f"creat mode {mode:04o}", opened("f", W | C | T, mode=mode), show=["f"])
    for umask in (0, 0o027, 0o077, 0o777):
        t.case(f"umask {umask:03o}", lambda u=umask: _with_umask(u, opened("f", W | C, mode=0o666)), show=["f"])
    t.case(
        "mode 0400 written by its creator", opened("f", W | C | X, lambda fd: os.write(fd, b"abc"), 0o400), show=["f"]
    )
    t.case("mode of an existing file kept", opened("file", W | C | T, mode=0o777), make=["file"], show=["file"])
    t.case("setgid directory", lambda: _in_setgid(opened("s/f", W | C)), show=["s", "s/f"])
    t.case("setgid directory mkdir", lambda: _in_setgid(lambda: os.mkdir("s/d")), show=["s/d"])
    t.case("setgid directory written", lambda: _in_setgid(lambda: write_file("s/f", b"hello")), show=["s/f"])
    t.case("setgid directory mknod", lambda: _in_setgid(lambda: os.mkfifo("s/p")), show=["s/p"])
    t.case("setgid directory symlink", lambda: _in_setgid(lambda: os.symlink("x", "s/l")), show=["s/l"])
    t.case("creat", lambda: os.close(call("creat", "f", 0o640)), show=["f"])
    t.case("creat over a file", lambda: os.close(call("creat", "file", 0o640)), make=["file"], show=["file"])
    t.case("creat over a directory", lambda: os.close(call("creat", "dir", 0o640)), make=["dir"])


def _with_umask(umask, act):
    old = os.umask(umask)
    try:
        return act()
    finally:
        os.umask(old)


def _in_setgid(act):
    os.mkdir("s")
    os.chown("s", -1, 1234)
    os.chmod("s", 0o2775)
    return act()


@group
def openat(t):
    def at(path, flags, of="dir"):
        def run():
            fd = os.open(of, os.O_RDONLY)
            try:
                return opened(path, flags, dir_fd=fd)()
            finally:
                os.close(fd)

        return run

    t.case("create below a descriptor", at("f", W | C), make=["dir"], show=["dir", "dir/f"])
    t.case("below a descriptor of a file", at("f", W | C, "file"), make=["file"])
    t.case("bad descriptor", opened("f", R, dir_fd=999))
    t.case("absolute path ignores the descriptor", lambda: value_of_root())
    t.case("dotdot of a descriptor", at("../file", R), make=["dir", "file"])
    t.case("removed directory", lambda: _removed_directory(lambda fd: opened("f", W | C, dir_fd=fd)()), make=["dir"])
    t.case("removed directory mkdir", lambda: _removed_directory(lambda fd: os.mkdir("x", dir_fd=fd)), make=["dir"])
    t.case(
        "removed directory symlink",
        lambda: _removed_directory(lambda fd: os.symlink("x", "y", dir_fd=fd)),
        make=["dir"],
    )
    t.case("removed directory mkfifo", lambda: _removed_directory(lambda fd: os.mkfifo("x", dir_fd=fd)), make=["dir"])
    t.case("removed directory listing", lambda: _removed_directory(os.listdir), make=["dir"])
    t.case("removed directory fstat", lambda: _removed_directory(lambda fd: os.fstat(fd).st_nlink), make=["dir"])
    t.case(
        "removed directory rename into",
        lambda: _removed_directory(lambda fd: os.rename("file", "x", dst_dir_fd=fd)),
        make=["dir", "file"],
    )
    t.case(
        "removed directory link into",
        lambda: _removed_directory(lambda fd: os.link("file", "x", dst_dir_fd=fd)),
        make=["dir", "file"],
    )


def value_of_root():
    fd = os.open(".", os.O_RDONLY)
    try:
        return "dir" if opened("/", DIRECTORY, dir_fd=fd)() else "none"
    finally:
        os.close(fd)


def _removed_directory(act):
    fd = os.open("dir", os.O_RDONLY)
    try:
        os.rmdir("dir")
        return act(fd)
    finally:
        os.close(fd)


@group
def descriptors(t):
    """What an open descriptor may do, by the way it was opened."""
    acts = {
        "read": lambda fd: os.read(fd, 10),
        "write": lambda fd: os.write(fd, b"XY"),
        "pread": lambda fd: os.pread(fd, 2, 1),
        "pwrite": lambda fd: os.pwrite(fd, b"XY", 1),
        "ftruncate": lambda fd: os.ftruncate(fd, 2),
        "fchmod": lambda fd: os.fchmod(fd, 0o600),
        "fchown": lambda fd: os.fchown(fd, 1, 1),
        "fsync": os.fsync,
        "fdatasync": os.fdatasync,
        "futimens": lambda fd: os.utime(fd, (1, 1)),
        "listdir": os.listdir,
        "fchdir": os.fchdir,
        "fallocate": lambda fd: fallocate(fd, 0, 0, 10),
        "fsetxattr": lambda fd: os.setxattr(fd, "user.a", b"1"),
        "lseek end": lambda fd: os.lseek(fd, 0, os.SEEK_END),
        "lseek before 0": lambda fd: os.lseek(fd, -1, os.SEEK_SET),
        "syncfs": lambda fd: call("syncfs", fd),
        "fadvise": lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED),
        "readahead": lambda fd: call("readahead", fd, 0, 10),
        "sync_file_range": lambda fd: call("sync_file_range", fd, 0, 10, 2),
        "fstatfs": lambda fd: os.fstatvfs(fd).f_namemax,
    }
    ways = {
        "R": (R, "file"),
        "W": (W, "file"),
        "RW": (RW, "file"),
        "W|A": (W | A, "file"),
        "PATH": (PATH, "file"),
        "dir": (R | DIRECTORY, "dir"),
    }
    for way, (flags, kind) in ways.items():
        for name, act in acts.items():
            t.case(f"{way} {name}", opened(kind, flags, act), make=[kind], show=[kind])


@group
def tmpfile(t):
    """O_TMPFILE, and giving such a file a name."""
    TMP = os.O_TMPFILE

    def write_and(act, flags=RW | TMP):
        def on_descriptor(fd):
            os.write(fd, b"hello")
            return act(fd)

        return opened(".", flags, on_descriptor, mode=0o640)

    def by_proc(fd, name="f"):
        linkat(AT_FDCWD, f"/proc/self/fd/{fd}", AT_FDCWD, name, AT_SYMLINK_FOLLOW)

    t.case("fstat", opened(".", RW | TMP, mode=0o666), show=["."])
    t.case("W", opened(".", W | TMP), show=["."])
    t.case("R", opened(".", R | TMP))
    t.case("on a file", opened("file", RW | TMP), make=["file"])
    t.case("on a missing name", opened("no", RW | TMP))
    t.case("read back", write_and(lambda fd: os.pread(fd, 10, 0)), show=["."])
    t.case("linkat by /proc", write_and(by_proc), show=["f"])
    t.case("linkat by descriptor", write_and(lambda fd: linkat(fd, "", AT_FDCWD, "f", AT_EMPTY_PATH)), show=["f"])
    t.case("linkat over a file", write_and(lambda fd: by_proc(fd, "file")), make=["file"], show=["file"])
    t.case("linkat into a missing directory", write_and(lambda fd: by_proc(fd, "no/f")))
    t.case("EXCL cannot be linked", write_and(by_proc, RW | TMP | X), show=["f"])
    t.case("linked twice", write_and(lambda fd: seq(lambda: by_proc(fd), lambda: by_proc(fd, "g"))()), show=["f", "g"])
    t.case("write after linkat", write_and(lambda fd: (by_proc(fd), os.write(fd, b" world"))[1]), show=["f"])
    t.case("attributes before linkat", write_and(_attributes_then(by_proc)), show=["f"])
    t.case(
        "nlink before and after",
        write_and(lambda fd: f"{os.fstat(fd).st_nlink} {by_proc(fd)} {os.fstat(fd).st_nlink}"),
        show=["f"],
    )
    t.case("never linked leaves nothing", write_and(lambda fd: None), show=["."])
    t.case("seen by path after linkat while open", write_and(lambda fd: (by_proc(fd), describe("f"))[1]))


def _attributes_then(act):
    def run(fd):
        os.fchmod(fd, 0o751)
        os.fchown(fd, 12, 34)
        os.setxattr(fd, "user.note", b"kept")
        os.utime(fd, (5, 7))
        act(fd)
        st = os.stat("f")
        return f'{st.st_mtime_ns} {os.getxattr("f", "user.note")!r}'

    return run


@group
def open_files(t):
    """A file that changes its name, or loses it, while it is open."""

    def while_open(*acts, flags=RW):
        return opened("file", flags, lambda fd: seq(*[lambda a=a: a(fd) for a in acts])())

    t.case(
        "unlink, then read and write",
        while_open(
            lambda fd: os.unlink("file"),
            lambda fd: os.pread(fd, 9, 0),
            lambda fd: os.pwrite(fd, b"XX", 1),
            lambda fd: os.pread(fd, 9, 0),
            os.fstat,
        ),
        make=["file"],
        show=["file", "."],
    )
    t.case(
        "unlink, then create anew",
        while_open(
            lambda fd: os.unlink("file"),
            lambda fd: write_file("file", b"new"),
            lambda fd: os.pread(fd, 9, 0),
            lambda fd: os.pwrite(fd, b"old", 0),
        ),
        make=["file"],
        show=["file"],
    )
    t.case(
        "unlink of one of two links",
        while_open(lambda fd: os.unlink("file"), lambda fd: os.fstat(fd).st_nlink),
        make=["file=hard"],
        show=["file.2"],
    )
    t.case(
        "rename, then write",
        while_open(lambda fd: os.rename("file", "g"), lambda fd: os.pwrite(fd, b"XX", 0), os.fstat),
        make=["file"],
        show=["file", "g"],
    )
    t.case(
        "renamed over",
        while_open(lambda fd: os.rename("g", "file"), lambda fd: os.pread(fd, 9, 0), os.fstat),
        make=["file", "g=empty"],
        show=["file"],
    )
    t.case(
        "written, renamed, written",
        while_open(
            lambda fd: os.pwrite(fd, b"AA", 0), lambda fd: os.rename("file", "g"), lambda fd: os.pwrite(fd, b"BB", 3)
        ),
        make=["file"],
        show=["file", "g"],
    )
    t.case(
        "new file renamed while open",
        opened(
            "n",
            RW | C | X,
            lambda fd: seq(lambda: os.write(fd, b"one"), lambda: os.rename("n", "m"), lambda: os.write(fd, b"two"))(),
        ),
        show=["n", "m"],
    )
    t.case(
        "new file linked while open",
        opened(
            "n",
            RW | C | X,
            lambda fd: seq(lambda: os.write(fd, b"one"), lambda: os.link("n", "m"), lambda: os.fstat(fd).st_nlink)(),
        ),
        show=["n", "m"],
    )
    t.case(
        "new file unlinked while open",
        opened(
            "n",
            RW | C | X,
            lambda fd: seq(
                lambda: os.write(fd, b"one"),
                lambda: os.unlink("n"),
                lambda: os.write(fd, b"two"),
                lambda: os.pread(fd, 9, 0),
            )(),
        ),
        show=["n", "."],
    )
    t.case(
        "new file stat by path while open",
        opened(
            "n",
            RW | C | X,
            lambda fd: seq(
                lambda: os.write(fd, b"one"), lambda: os.stat("n"), lambda: read_file("n"), lambda: os.listdir(".")
            )(),
        ),
    )
    t.case(
        "attributes by path while open",
        opened(
            "n",
            RW | C | X,
            lambda fd: seq(
                lambda: os.write(fd, b"one"),
                lambda: os.chmod("n", 0o711),
                lambda: os.chown("n", 3, 4),
                lambda: os.setxattr("n", "user.k", b"v"),
                lambda: os.utime("n", (11, 22)),
                lambda: os.fstat(fd),
            )(),
        ),
        show=["n"],
    )
    t.case(
        "attributes survive the close",
        lambda: seq(
            opened(
                "n",
                RW | C | X,
                lambda fd: seq(
                    lambda: os.write(fd, b"one"),
                    lambda: os.utime(fd, (11, 22)),
                    lambda: os.setxattr(fd, "user.k", b"v"),
                )(),
            ),
            lambda: os.stat("n").st_mtime_ns,
            lambda: os.getxattr("n", "user.k"),
        )(),
    )
    t.case(
        "truncate by path while open",
        while_open(lambda fd: os.truncate("file", 2), lambda fd: os.pread(fd, 9, 0), lambda fd: os.pwrite(fd, b"Z", 4)),
        make=["file"],
        show=["file"],
    )
    t.case(
        "two writers of one process",
        while_open(
            lambda fd: opened("file", RW, lambda f2: (os.pwrite(f2, b"B", 1), os.pwrite(fd, b"A", 0))[1])(),
            lambda fd: read_file("file"),
        ),
        make=["file"],
        show=["file"],
    )
    t.case(
        "dup closed, then written",
        while_open(lambda fd: os.close(os.dup(fd)), lambda fd: os.pwrite(fd, b"AA", 0)),
        make=["file"],
        show=["file"],
    )
    t.case(
        "/proc/self/fd reopened",
        while_open(
            lambda fd: opened(f"/proc/self/fd/{fd}", RW, lambda f2: os.pwrite(f2, b"AA", 0))(),
            lambda fd: os.pread(fd, 9, 0),
        ),
        make=["file"],
        show=["file"],
    )
    t.case(
        "O_PATH reopened by /proc",
        opened("file", PATH, lambda fd: opened(f"/proc/self/fd/{fd}", RW, lambda f2: os.pwrite(f2, b"AA", 0))()),
        make=["file"],
        show=["file"],
    )
    t.case(
        "xattr and mode by /proc",
        opened(
            "file",
            PATH,
            lambda fd: seq(
                lambda: os.setxattr(f"/proc/self/fd/{fd}", "user.a", b"1"),
                lambda: os.chmod(f"/proc/self/fd/{fd}", 0o600),
                lambda: os.getxattr("file", "user.a"),
            )(),
        ),
        make=["file"],
        show=["file"],
    )
