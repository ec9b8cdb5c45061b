# SPDX-License-Identifier: GPL-2.0-or-later
"""Modes, owners, times, extended attributes and ACLs (rule C13), and which times each call moves."""
import os

from lib import (
    AT_EMPTY_PATH,
    AT_SYMLINK_NOFOLLOW,
    KINDS,
    OLD,
    UTIME_NOW,
    UTIME_OMIT,
    acl,
    acl_text,
    call,
    fallocate,
    group,
    linkat,
    lsetxattr,
    opened,
    renameat2,
    seq,
    utimensat,
    write_file,
    AT_FDCWD,
)

REAL = [k for k in KINDS if k != "missing"]
BAD = {
    "empty path": "",
    "below missing": "no/x",
    "below file": "file/x",
    "loop": "loop",
    "dangling": "dangling",
    "NAME_MAX+1": "n" * 256,
    "slash after file": "file/",
    "slash after dir": "dir/",
    "dot": ".",
}
BAD_MAKE = ["file", "loop", "dangling", "dir"]


@group
def chmod(t):
    for kind in KINDS:
        t.case(f"of {kind}", lambda: os.chmod("f", 0o640), make=[f"f={kind}"], show=["f", "f.target"])
    for mode in (0, 0o777, 0o1777, 0o2777, 0o4777, 0o7777, 0o4755, 0o2644):
        t.case(f"file {mode:04o}", lambda m=mode: os.chmod("file", m), make=["file"], show=["file"])
        t.case(f"dir {mode:04o}", lambda m=mode: os.chmod("dir", m), make=["dir"], show=["dir"])
        t.case(
            f"fchmod {mode:04o}",
            opened("file", os.O_RDWR, lambda fd, m=mode: os.fchmod(fd, m)),
            make=["file"],
            show=["file"],
        )
    for name, path in BAD.items():
        t.case(name, lambda p=path: os.chmod(p, 0o700), make=BAD_MAKE)
    t.case("fchmodat bad flags", lambda: call("fchmodat", AT_FDCWD, "file", 0o600, 0x4000), make=["file"])
    t.case(
        "mode 0 still opens for root",
        seq(lambda: os.chmod("file", 0), lambda: write_file("file", b"x")),
        make=["file"],
        show=["file"],
    )


@group
def chown(t):
    for kind in KINDS:
        t.case(f"of {kind}", lambda: os.chown("f", 10, 20), make=[f"f={kind}"], show=["f", "f.target"])
        t.case(f"lchown of {kind}", lambda: os.lchown("f", 10, 20), make=[f"f={kind}"], show=["f", "f.target"])
    pairs = {"user": (5, -1), "group": (-1, 6), "none": (-1, -1), "large": (4_000_000_000, 4_000_000_000)}
    for name, (uid, gid) in pairs.items():
        t.case(f"{name} only", lambda u=uid, g=gid: os.chown("file", u, g), make=["file"], show=["file"])
        t.case(
            f"fchown {name}",
            opened("file", os.O_RDONLY, lambda fd, u=uid, g=gid: os.fchown(fd, u, g)),
            make=["file"],
            show=["file"],
        )
    for mode in (0o6755, 0o6644, 0o2745, 0o4711):
        t.case(
            f"clears bits of {mode:04o}",
            seq(lambda m=mode: os.chmod("file", m), lambda: os.chown("file", 1, 1)),
            make=["file"],
            show=["file"],
        )
        t.case(
            f"directory keeps bits of {mode:04o}",
            seq(lambda m=mode: os.chmod("dir", m), lambda: os.chown("dir", 1, 1)),
            make=["dir"],
            show=["dir"],
        )
    for name, path in BAD.items():
        t.case(name, lambda p=path: os.chown(p, 1, 1), make=BAD_MAKE)
    t.case(
        "fchownat empty path",
        opened("file", os.O_PATH, lambda fd: call("fchownat", fd, "", 7, 8, AT_EMPTY_PATH)),
        make=["file"],
        show=["file"],
    )


def _stamps(path):
    st = os.lstat(path)
    return st.st_atime_ns, st.st_mtime_ns


def _followed(path):
    st = os.stat(path)
    return st.st_atime_ns, st.st_mtime_ns


@group
def utimens(t):
    exact = (OLD, 123_456_789)
    for kind in KINDS:
        t.case(
            f"exact of {kind}", seq(lambda: utimensat("f", exact, exact), lambda: _followed("f")), make=[f"f={kind}"]
        )
        t.case(
            f"nofollow of {kind}",
            seq(lambda: utimensat("f", exact, exact, AT_SYMLINK_NOFOLLOW), lambda: _stamps("f")),
            make=[f"f={kind}"] if kind != "missing" else ["f=file"],
        )
    values = {
        "zero": (0, 0),
        "negative": (-5, 0),
        "year 2100": (4_102_444_800, 1),
        "nanosecond": (OLD, 1),
        "last nanosecond": (OLD, 999_999_999),
    }
    for name, value in values.items():
        t.case(name, seq(lambda v=value: utimensat("file", v, v), lambda: _stamps("file")), make=["file"])
    for name, value in {"too many nanoseconds": (1, 1_000_000_000), "negative nanoseconds": (1, -1)}.items():
        t.case(name, lambda v=value: utimensat("file", v, v), make=["file"])
    specials = {"now": (0, UTIME_NOW), "omit": (0, UTIME_OMIT), "old": exact}
    for aname, atime in specials.items():
        for mname, mtime in specials.items():
            t.case(f"atime {aname} mtime {mname}", lambda a=atime, m=mtime: _special(a, m), make=["file"])
    t.case("null times", lambda: _null_times(), make=["file"])
    t.case(
        "futimens",
        opened("file", os.O_RDONLY, lambda fd: (utimensat(None, exact, exact, dirfd=fd), _stamps("file"))[1]),
        make=["file"],
    )
    t.case(
        "by empty path",
        opened("file", os.O_PATH, lambda fd: (utimensat("", exact, exact, AT_EMPTY_PATH, fd), _stamps("file"))[1]),
        make=["file"],
    )
    for name, path in BAD.items():
        t.case(name, lambda p=path: utimensat(p, exact, exact), make=BAD_MAKE)


def _relation(stamp, before):
    return (
        "exact"
        if stamp == OLD * 10**9 + 123_456_789
        else "kept"
        if stamp == before
        else "now"
        if stamp > before
        else "odd"
    )


def _special(atime, mtime):
    utimensat("file", (OLD + 50, 0), (OLD + 60, 0))
    utimensat("file", atime, mtime)
    a, m = _stamps("file")
    return f"{_relation(a, (OLD + 50) * 10**9)} {_relation(m, (OLD + 60) * 10**9)}"


def _null_times():
    utimensat("file", (OLD, 0), (OLD, 0))
    os.utime("file")
    return " ".join(_relation(s, OLD * 10**9) for s in _stamps("file"))


@group
def times(t):
    """Which times a call moves: of the object and of its directory."""
    F = ["file", "."]
    t.times("chmod", lambda: os.chmod("file", 0o600), F, ["file"])
    t.times("chmod same mode", lambda: os.chmod("file", 0o644), F, ["file"])
    t.times("chown", lambda: os.chown("file", 1, 1), F, ["file"])
    t.times("setxattr", lambda: os.setxattr("file", "user.a", b"1"), F, ["file"])
    t.times("setxattr of a directory", lambda: os.setxattr("dir", "user.a", b"1"), ["dir", "."], ["dir"])
    t.times("link", lambda: os.link("file", "n"), F, ["file"])
    t.times("link into another directory", lambda: os.link("file", "dir/n"), F + ["dir"], ["file", "dir"])
    t.times("unlink of one link", lambda: os.unlink("hard"), ["hard.2", "."], ["hard"])
    t.times("rename", lambda: os.rename("file", "n"), ["n", "."], ["file"])
    t.times("rename into a directory", lambda: os.rename("file", "dir/n"), [".", "dir"], ["file", "dir"])
    t.times("rename over", lambda: os.rename("file", "b"), ["."], ["file", "b=empty"])
    t.times("rename of a directory", lambda: os.rename("tree", "dir/n"), [".", "dir"], ["tree", "dir"])
    t.times("exchange", lambda: renameat2("file", "dir/b", 2), ["dir", "."], ["file", "dir", "dir/b=empty"])
    t.times("mkdir", lambda: os.mkdir("n"), [".", "n"])
    t.times("mkdir that fails", lambda: os.mkdir("file"), F, ["file"])
    t.times("rmdir", lambda: os.rmdir("dir"), ["."], ["dir"])
    t.times("symlink", lambda: os.symlink("x", "n"), ["."])
    t.times("mkfifo", lambda: os.mkfifo("n"), ["."])
    t.times("create", lambda: write_file("n", b""), [".", "n"])
    t.times("create with content", lambda: write_file("n", b"abc"), [".", "n"])
    t.times("open to read", opened("file", os.O_RDONLY, lambda fd: os.read(fd, 9)), F, ["file"])
    t.times("open to write, no write", opened("file", os.O_RDWR), F, ["file"])
    t.times("write of nothing", opened("file", os.O_RDWR, lambda fd: os.write(fd, b"")), F, ["file"])
    t.times("write", opened("file", os.O_RDWR, lambda fd: os.write(fd, b"X")), F, ["file"])
    t.times("append", opened("file", os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"X")), F, ["file"])
    t.times("O_TRUNC of an empty file", opened("empty", os.O_WRONLY | os.O_TRUNC), ["empty", "."], ["empty"])
    t.times("O_TRUNC", opened("file", os.O_WRONLY | os.O_TRUNC), F, ["file"])
    t.times("truncate", lambda: os.truncate("file", 2), F, ["file"])
    t.times("truncate to the same size", lambda: os.truncate("file", 5), F, ["file"])
    t.times("ftruncate to the same size", opened("file", os.O_RDWR, lambda fd: os.ftruncate(fd, 5)), F, ["file"])
    t.times("fallocate", opened("file", os.O_RDWR, lambda fd: fallocate(fd, 0, 0, 100)), F, ["file"])
    t.times("fallocate KEEP_SIZE", opened("file", os.O_RDWR, lambda fd: fallocate(fd, 1, 0, 100)), F, ["file"])
    t.times("utimensat omit both", lambda: utimensat("file", (0, UTIME_OMIT), (0, UTIME_OMIT)), F, ["file"])
    t.times("utimensat mtime", lambda: utimensat("file", (0, UTIME_OMIT), (1, 0)), F, ["file"])
    t.times("utimensat atime", lambda: utimensat("file", (1, 0), (0, UTIME_OMIT)), F, ["file"])
    t.times("listing", lambda: len(os.listdir(".")), F, ["file"])
    t.times("O_TMPFILE linked", _tmpfile_linked, [".", "n"])


def _tmpfile_linked():
    fd = os.open(".", os.O_RDWR | os.O_TMPFILE, 0o644)
    try:
        linkat(fd, "", AT_FDCWD, "n", AT_EMPTY_PATH)
    finally:
        os.close(fd)


@group
def xattr(t):
    CREATE, REPLACE = os.XATTR_CREATE, os.XATTR_REPLACE
    for kind in KINDS:
        for space in ("user", "trusted", "security"):
            name = f"{space}.t"
            t.case(
                f"{space} on {kind}",
                seq(
                    lambda n=name: lsetxattr("f", n, b"value"),
                    lambda n=name: os.getxattr("f", n, follow_symlinks=False),
                    lambda: sorted(os.listxattr("f", follow_symlinks=False)),
                    lambda n=name: os.removexattr("f", n, follow_symlinks=False),
                ),
                make=[f"f={kind}"],
            )
    names = {
        "no namespace": "plain",
        "empty": "",
        "user.": "user.",
        "system.x": "system.x",
        "unknown namespace": "foo.bar",
        "255 bytes": "user." + "n" * 250,
        "256 bytes": "user." + "n" * 251,
        "utf-8": "user.é",
    }
    for label, name in names.items():
        t.case(
            f"name {label}",
            seq(
                lambda n=name: os.setxattr("file", n, b"1"),
                lambda n=name: os.getxattr("file", n),
                lambda n=name: os.removexattr("file", n),
            ),
            make=["file"],
        )
    for size in (0, 1, 100, 2000):
        t.case(
            f"value of {size}",
            seq(lambda s=size: os.setxattr("file", "user.a", b"v" * s), lambda: len(os.getxattr("file", "user.a"))),
            make=["file"],
        )
    t.case("value of 65537", lambda: os.setxattr("file", "user.a", b"v" * 65537), make=["file"])
    for label, flags in {"CREATE": CREATE, "REPLACE": REPLACE, "both": 3, "unknown": 8}.items():
        t.case(f"{label} of a missing one", lambda f=flags: os.setxattr("file", "user.a", b"1", f), make=["file"])
        t.case(
            f"{label} of a present one",
            seq(
                lambda: os.setxattr("file", "user.a", b"0"),
                lambda f=flags: os.setxattr("file", "user.a", b"1", f),
                lambda: os.getxattr("file", "user.a"),
            ),
            make=["file"],
        )
    t.case("get of a missing one", lambda: os.getxattr("file", "user.a"), make=["file"])
    t.case("remove of a missing one", lambda: os.removexattr("file", "user.a"), make=["file"])
    t.case("list of none", lambda: os.listxattr("file"), make=["file"])
    t.case("list of twenty", lambda: _twenty("file"), make=["file"])
    t.case("list of twenty on a directory", lambda: _twenty("dir"), make=["dir"])
    t.case("sizes and short buffers", lambda: _short_buffers(), make=["file"])
    for label, path in BAD.items():
        t.case(label, lambda p=path: os.setxattr(p, "user.a", b"1"), make=BAD_MAKE)
    t.case(
        "by descriptor",
        opened(
            "file",
            os.O_RDONLY,
            lambda fd: seq(
                lambda: os.setxattr(fd, "user.a", b"1"),
                lambda: os.getxattr(fd, "user.a"),
                lambda: os.listxattr(fd),
                lambda: os.removexattr(fd, "user.a"),
            )(),
        ),
        make=["file"],
    )
    t.case(
        "security.capability lost by a write",
        seq(
            lambda: os.setxattr("file", "security.capability", _CAPABILITY),
            lambda: len(os.getxattr("file", "security.capability")),
            opened("file", os.O_WRONLY, lambda fd: os.write(fd, b"X")),
            lambda: len(os.getxattr("file", "security.capability")),
        ),
        make=["file"],
    )
    t.case(
        "user.* survives a write",
        seq(
            lambda: os.setxattr("file", "user.a", b"1"),
            lambda: write_file("file", b"new"),
            lambda: os.getxattr("file", "user.a"),
        ),
        make=["file"],
        show=["file"],
    )
    t.case(
        "user.* survives an append",
        seq(
            lambda: os.setxattr("file", "user.a", b"1"),
            opened("file", os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"X")),
            lambda: os.getxattr("file", "user.a"),
        ),
        make=["file"],
    )
    t.case(
        "user.* survives a rename",
        seq(
            lambda: os.setxattr("file", "user.a", b"1"),
            lambda: os.rename("file", "n"),
            lambda: os.getxattr("n", "user.a"),
        ),
        make=["file"],
    )


_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def _twenty(path):
    for i in range(20):
        os.setxattr(path, f"user.attribute{i:02d}", bytes([65 + i]) * i)
    return len(os.listxattr(path)), sum(len(os.getxattr(path, n)) for n in os.listxattr(path) if n.startswith("user."))


def _short_buffers():
    import ctypes

    os.setxattr("file", "user.a", b"12345")
    room = ctypes.create_string_buffer(64)
    return seq(
        lambda: call("getxattr", "file", "user.a", None, 0),
        lambda: call("getxattr", "file", "user.a", room, 4),
        lambda: call("getxattr", "file", "user.a", room, 5),
        lambda: call("listxattr", "file", None, 0) > 0,
        lambda: call("listxattr", "file", room, 3),
    )()


@group
def acls(t):
    ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
    minimal = acl(("u:", 6), ("g:", 4), ("o", 0))
    full = acl(("u:", 6), ("u", 7, 65534), ("g:", 4), ("g", 5, 1234), ("m", 5), ("o", 0))
    inherit = acl(("u:", 7), ("u", 6, 65534), ("g:", 5), ("m", 7), ("o", 0))
    for kind in ("file", "dir", "fifo", "link", "dangling", "missing"):
        t.case(
            f"access on {kind}",
            seq(lambda: os.setxattr("f", ACCESS, full), lambda: acl_text("f")),
            make=[f"f={kind}"],
            show=["f", "f.target"],
        )
        t.case(
            f"default on {kind}",
            seq(lambda: os.setxattr("f", DEFAULT, inherit), lambda: acl_text("f", "default")),
            make=[f"f={kind}"],
            show=["f"],
        )
        t.case(f"access read of {kind} without one", lambda: acl_text("f"), make=[f"f={kind}"])
    t.case(
        "minimal becomes the mode",
        seq(lambda: os.setxattr("file", ACCESS, minimal), lambda: acl_text("file")),
        make=["file"],
        show=["file"],
    )
    wrong = {
        "empty": b"",
        "no entries": b"\2\0\0\0",
        "version 1": b"\1" + full[1:],
        "cut": full[:-3],
        "no mask": acl(("u:", 6), ("u", 7, 5), ("g:", 4), ("o", 0)),
        "two owners": acl(("u:", 6), ("u:", 6), ("g:", 4), ("o", 0)),
        "no other": acl(("u:", 6), ("g:", 4)),
        "bad permission": acl(("u:", 16), ("g:", 4), ("o", 0)),
    }
    for label, value in wrong.items():
        t.case(f"wrong: {label}", lambda v=value: os.setxattr("file", ACCESS, v), make=["file"], show=["file"])
    t.case(
        "chmod changes the mask",
        seq(lambda: os.setxattr("file", ACCESS, full), lambda: os.chmod("file", 0o620), lambda: acl_text("file")),
        make=["file"],
        show=["file"],
    )
    t.case(
        "removed",
        seq(
            lambda: os.setxattr("file", ACCESS, full), lambda: os.removexattr("file", ACCESS), lambda: acl_text("file")
        ),
        make=["file"],
        show=["file"],
    )
    t.case(
        "listed", seq(lambda: os.setxattr("file", ACCESS, full), lambda: sorted(os.listxattr("file"))), make=["file"]
    )
    makers = {
        "create": lambda: write_file("dir/n", b"x", 0o666),
        "create 0600": lambda: write_file("dir/n", b"x", 0o600),
        "mkdir": lambda: os.mkdir("dir/n"),
        "mkfifo": lambda: os.mkfifo("dir/n", 0o666),
        "symlink": lambda: os.symlink("x", "dir/n"),
        "tmpfile": lambda: _tmpfile_in_dir(),
    }
    for label, maker in makers.items():
        t.case(
            f"inherited by {label}",
            seq(
                lambda: os.setxattr("dir", DEFAULT, inherit),
                maker,
                lambda: acl_text("dir/n"),
                lambda: acl_text("dir/n", "default"),
            ),
            make=["dir"],
            show=["dir/n"],
        )
    t.case(
        "umask does not apply below a default ACL",
        seq(
            lambda: os.setxattr("dir", DEFAULT, inherit),
            lambda: os.umask(0o077),
            lambda: write_file("dir/n", b"x", 0o666),
            lambda: os.umask(0o022),
        ),
        make=["dir"],
        show=["dir/n"],
    )
    t.case(
        "survives a rewrite",
        seq(lambda: os.setxattr("file", ACCESS, full), lambda: write_file("file", b"new"), lambda: acl_text("file")),
        make=["file"],
        show=["file"],
    )
    t.case(
        "survives a write",
        seq(
            lambda: os.setxattr("file", ACCESS, full),
            opened("file", os.O_WRONLY, lambda fd: os.write(fd, b"X")),
            lambda: acl_text("file"),
        ),
        make=["file"],
        show=["file"],
    )
    t.case("set by another user", seq(lambda: os.setxattr("file", ACCESS, minimal)), make=["file"], user=65534)


def _tmpfile_in_dir():
    fd = os.open("dir", os.O_RDWR | os.O_TMPFILE, 0o666)
    try:
        linkat(fd, "", AT_FDCWD, "dir/n", AT_EMPTY_PATH)
    finally:
        os.close(fd)
