# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls of rule C13 that make, move and remove names."""
import os
import stat

from lib import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    KINDS,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    call,
    group,
    linkat,
    renameat2,
    seq,
    write_file,
)

ALL = list(KINDS)
LONG, TOO_LONG = "n" * 255, "n" * 256
BAD_PATHS = {
    "empty path": "",
    "below missing": "no/x",
    "below file": "file/x",
    "below loop": "loop/x",
    "below dangling": "dangling/x",
    "NAME_MAX": LONG,
    "NAME_MAX+1": TOO_LONG,
    "PATH_MAX+1": "./" * 2048 + "x",
    "dot": ".",
    "dotdot": "..",
    "dir/.": "dir/.",
    "dir/..": "dir/..",
    "trailing slash": "new/",
    "slash after file": "file/",
    "slash after dir": "dir/",
    "slash after dirlink": "dirlink/",
    "slash after dangling": "dangling/",
}
BAD_MAKE = ["file", "loop", "dangling", "dir", "dirlink"]


@group
def mkdir(t):
    for kind in ALL:
        t.case(f"at {kind}", lambda: os.mkdir("f"), make=[f"f={kind}"], show=["f"])
    for name, path in BAD_PATHS.items():
        t.case(name, lambda p=path: os.mkdir(p), make=BAD_MAKE, show=["."])
    for mode in (0o700, 0o777, 0o000, 0o1777, 0o2755, 0o4755):
        t.case(f"mode {mode:04o}", lambda m=mode: os.mkdir("d", m), show=["d"])
    t.case(
        "nlink of the parent",
        seq(
            lambda: os.stat(".").st_nlink,
            lambda: os.mkdir("d"),
            lambda: os.stat(".").st_nlink,
            lambda: os.rmdir("d"),
            lambda: os.stat(".").st_nlink,
        ),
    )


@group
def rmdir(t):
    for kind in ALL:
        t.case(f"of {kind}", lambda: os.rmdir("f"), make=[f"f={kind}"], show=["f"])
    for name, path in BAD_PATHS.items():
        t.case(name, lambda p=path: os.rmdir(p), make=BAD_MAKE, show=["."])
    t.case("of the working directory", lambda: _remove_working_directory(), make=["dir"], show=["dir"])


def _remove_working_directory():
    os.chdir("dir")
    os.rmdir("../dir")
    text = seq(lambda: os.listdir("."), lambda: write_file("x", b""), lambda: os.stat(".").st_nlink)()
    fd = os.open("..", os.O_RDONLY) if os.path.isdir("..") else -1
    return f'{text}; parent {"open" if fd >= 0 else "gone"}{"" if fd < 0 else os.close(fd) or ""}'


@group
def unlink(t):
    for kind in ALL:
        t.case(f"of {kind}", lambda: os.unlink("f"), make=[f"f={kind}"], show=["f", "f.2", "f.target"])
    for name, path in BAD_PATHS.items():
        t.case(name, lambda p=path: os.unlink(p), make=BAD_MAKE, show=["."])
    t.case("unlinkat REMOVEDIR", lambda: call("unlinkat", AT_FDCWD, "dir", 0x200), make=["dir"], show=["."])
    t.case("unlinkat REMOVEDIR of a file", lambda: call("unlinkat", AT_FDCWD, "file", 0x200), make=["file"], show=["."])
    t.case("unlinkat bad flags", lambda: call("unlinkat", AT_FDCWD, "file", 0x4000), make=["file"], show=["."])


@group
def symlink(t):
    for kind in ALL:
        t.case(f"at {kind}", lambda: os.symlink("t", "f"), make=[f"f={kind}"], show=["f"])
    for name, path in BAD_PATHS.items():
        t.case(name, lambda p=path: os.symlink("t", p), make=BAD_MAKE, show=["."])
    targets = {
        "empty": "",
        "absolute": "/nowhere/x",
        "dotdot": "../../x",
        "long": "t" * 4095,
        "too long": "t" * 4096,
        "itself": "l",
        "utf-8": "é",
        "slash": "x/",
        "60 bytes": "t" * 60,
        "59 bytes": "t" * 59,
    }
    for name, target in targets.items():
        t.case(f"target {name}", seq(lambda v=target: os.symlink(v, "l"), lambda: len(os.readlink("l"))), show=["l"])
    for kind in ALL:
        t.case(f"readlink of {kind}", lambda: len(os.readlink("f")), make=[f"f={kind}"])
    t.case("readlink cut short", lambda: call("readlink", "dangling", _buffer(3), 3), make=["dangling"])
    t.case("readlink into 0 bytes", lambda: call("readlink", "dangling", _buffer(3), 0), make=["dangling"])
    t.case("forty links deep", lambda: _chain(40), make=["l0=file"])
    t.case("forty-one links deep", lambda: _chain(41), make=["l0=file"])


def _buffer(size):
    import ctypes

    return ctypes.create_string_buffer(size)


def _chain(depth):
    for i in range(depth):
        os.symlink(f"l{i}", f"l{i + 1}")
    return os.stat(f"l{depth}")


@group
def link(t):
    for kind in ALL:
        t.case(f"of {kind}", lambda: os.link("f", "n", follow_symlinks=False), make=[f"f={kind}"], show=["f", "n"])
        t.case(
            f"following {kind}",
            lambda: linkat(AT_FDCWD, "f", AT_FDCWD, "n", AT_SYMLINK_FOLLOW),
            make=[f"f={kind}"],
            show=["n", "f.target"],
        )
        t.case(f"at {kind}", lambda: os.link("src", "f"), make=["src=file", f"f={kind}"], show=["src", "f"])
    for name, path in BAD_PATHS.items():
        t.case(f"old {name}", lambda p=path: os.link(p, "n"), make=BAD_MAKE, show=["n"])
        t.case(f"new {name}", lambda p=path: os.link("src", p), make=BAD_MAKE + ["src=file"], show=[".", "src"])
    t.case("another file system", lambda: os.link("/proc/version", "n"))
    t.case("same name", lambda: os.link("file", "file"), make=["file"], show=["file"])
    t.case("bad flags", lambda: linkat(AT_FDCWD, "file", AT_FDCWD, "n", 0x4000), make=["file"])
    t.case("empty path of a descriptor", lambda: _link_descriptor(), make=["file"], show=["file", "n"])
    t.case("inode of both", seq(lambda: os.link("file", "n"), lambda: os.path.samefile("file", "n")), make=["file"])
    t.case("a hundred links", lambda: _many_links(100), make=["file"], show=["file"])
    t.case("into another directory", lambda: os.link("file", "dir/n"), make=["file", "dir"], show=["file", "dir/n"])
    t.case(
        "unlinked by the first name",
        seq(lambda: os.unlink("hard"), lambda: os.unlink("hard.2")),
        make=["hard"],
        show=["."],
    )
    t.case("chmod shows on both", lambda: os.chmod("hard", 0o604), make=["hard"], show=["hard", "hard.2"])
    t.case(
        "xattr shows on both",
        seq(lambda: os.setxattr("hard", "user.a", b"1"), lambda: os.getxattr("hard.2", "user.a")),
        make=["hard"],
    )


def _link_descriptor():
    fd = os.open("file", os.O_RDONLY)
    try:
        linkat(fd, "", AT_FDCWD, "n", AT_EMPTY_PATH)
    finally:
        os.close(fd)


def _many_links(count):
    for i in range(count):
        os.link("file", f"n{i}")
    return os.stat("n0").st_nlink


@group
def mknod(t):
    kinds = {
        "fifo": stat.S_IFIFO,
        "sock": stat.S_IFSOCK,
        "reg": stat.S_IFREG,
        "none": 0,
        "chr": stat.S_IFCHR,
        "blk": stat.S_IFBLK,
        "dir": stat.S_IFDIR,
        "lnk": stat.S_IFLNK,
    }
    for name, kind in kinds.items():
        t.case(f"{name}", lambda k=kind: os.mknod("n", k | 0o640, os.makedev(1, 3)), show=["n"])
        t.case(
            f"{name} at a file",
            lambda k=kind: os.mknod("file", k | 0o640, os.makedev(1, 3)),
            make=["file"],
            show=["file"],
        )
        t.case(
            f"{name} as another user",
            lambda k=kind: os.mknod("n", k | 0o640, os.makedev(1, 3)),
            user=65534,
            dirmode=0o777,
            show=["n"],
        )
    for name, path in BAD_PATHS.items():
        t.case(f"fifo {name}", lambda p=path: os.mkfifo(p), make=BAD_MAKE, show=["."])
    t.case("mode and umask", lambda: os.mknod("n", stat.S_IFIFO | 0o7777), show=["n"])
    t.case("large device number", lambda: os.mknod("n", stat.S_IFCHR | 0o600, os.makedev(4000, 70000)), show=["n"])
    t.case("a fifo carries bytes", lambda: _through_fifo(), make=["fifo"])
    t.case("regular, then written", seq(lambda: os.mknod("n", 0o600), lambda: write_file("n", b"abc")), show=["n"])


def _through_fifo():
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("fifo", os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(writer, b"through")
        return os.read(reader, 20)
    finally:
        os.close(reader)
        os.close(writer)


MOVABLE = ["missing", "file", "dir", "tree", "link", "dirlink", "dangling", "fifo", "hard", "null"]


@group
def rename(t):
    for old in MOVABLE:
        for new in MOVABLE:
            t.case(f"{old} over {new}", lambda: os.rename("a", "b"), make=[f"a={old}", f"b={new}"], show=["a", "b"])
    for name, path in BAD_PATHS.items():
        t.case(f"old {name}", lambda p=path: os.rename(p, "n"), make=BAD_MAKE, show=["n", "."])
        t.case(f"file to {name}", lambda p=path: os.rename("src", p), make=BAD_MAKE + ["src=file"], show=["."])
        t.case(f"dir to {name}", lambda p=path: os.rename("src", p), make=BAD_MAKE + ["src=dir"], show=["."])
    t.case("onto itself", lambda: os.rename("file", "file"), make=["file"], show=["file"])
    t.case("directory onto itself", lambda: os.rename("dir", "dir"), make=["dir"], show=["dir"])
    t.case("one link onto the other", lambda: os.rename("hard", "hard.2"), make=["hard"], show=["hard", "hard.2"])
    t.case("into itself", lambda: os.rename("tree", "tree/x"), make=["tree"], show=["tree"])
    t.case("parent over child", lambda: os.rename("tree/in", "tree"), make=["tree"], show=["tree"])
    t.case("into a directory", lambda: os.rename("file", "dir/n"), make=["file", "dir"], show=["dir/n", "."])
    t.case(
        "directory into a directory",
        seq(lambda: os.rename("tree", "dir/n"), lambda: os.stat(".").st_nlink, lambda: os.stat("dir").st_nlink),
        make=["tree", "dir"],
        show=["dir/n", "."],
    )
    t.case("across file systems", lambda: os.rename("file", "/proc/x"), make=["file"])
    t.case("inode kept", lambda: _inode_after(lambda: os.rename("file", "n"), "file", "n"), make=["file"])
    t.case(
        "inode of a directory kept", lambda: _inode_after(lambda: os.rename("tree", "n"), "tree", "n"), make=["tree"]
    )
    t.case(
        "child of a renamed directory",
        seq(lambda: os.rename("tree", "n"), lambda: write_file("n/in", b"zz")),
        make=["tree"],
        show=["n/in"],
    )


def _inode_after(act, before, after):
    first = os.lstat(before).st_ino
    act()
    return "same" if os.lstat(after).st_ino == first else "other"


@group
def renameat2_flags(t):
    flags = {"NOREPLACE": RENAME_NOREPLACE, "EXCHANGE": RENAME_EXCHANGE}
    for name, flag in flags.items():
        for old in ("missing", "file", "tree", "dangling", "hard"):
            for new in ("missing", "file", "dir", "tree", "dangling", "fifo"):
                t.case(
                    f"{name} {old} and {new}",
                    lambda f=flag: renameat2("a", "b", f),
                    make=[f"a={old}", f"b={new}"],
                    show=["a", "b"],
                )
        t.case(f"{name} with itself", lambda f=flag: renameat2("file", "file", f), make=["file"], show=["file"])
        t.case(f"{name} into own child", lambda f=flag: renameat2("tree", "tree/in", f), make=["tree"], show=["tree"])
        t.case(f"{name} long name", lambda f=flag: renameat2("file", TOO_LONG, f), make=["file"])
        t.case(f"{name} across file systems", lambda f=flag: renameat2("file", "/proc/version", f), make=["file"])
    t.case("both flags", lambda: renameat2("a", "b", 3), make=["a=file", "b=file"], show=["a", "b"])
    t.case("unknown flag", lambda: renameat2("a", "b", 8), make=["a=file", "b=file"], show=["a", "b"])
    t.case("WHITEOUT", lambda: renameat2("a", "b", RENAME_WHITEOUT), make=["a=file", "b=empty"], show=["a", "b"])
    t.case(
        "EXCHANGE of directories",
        seq(
            lambda: renameat2("a", "d/b", RENAME_EXCHANGE),
            lambda: os.listdir("a"),
            lambda: os.stat(".").st_nlink,
            lambda: os.stat("d").st_nlink,
        ),
        make=["d=dir", "a=tree", "d/b=dir"],
        show=["d/b", "a"],
    )
    t.case(
        "EXCHANGE of file and directory",
        seq(
            lambda: renameat2("a", "d/b", RENAME_EXCHANGE), lambda: os.stat(".").st_nlink, lambda: os.stat("d").st_nlink
        ),
        make=["d=dir", "a=file", "d/b=dir"],
        show=["d/b", "a"],
    )
    t.case(
        "EXCHANGE, then write both",
        seq(lambda: renameat2("a", "b", RENAME_EXCHANGE), lambda: write_file("a", b"1"), lambda: write_file("b", b"2")),
        make=["a=file", "b=empty"],
        show=["a", "b"],
    )
