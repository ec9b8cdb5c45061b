# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a mount means to differ from a plain directory: old versions stay whole for who reads them, links break."""
import os

from lib import NOBODY, group, opened, outcome_as, read_file, seq, write_file


def _inode(path):
    return os.stat(path).st_ino


def _inode_over(act, path="file"):
    before = _inode(path)
    act()
    return "same" if _inode(path) == before else "other"


def _reader_during(act):
    """What a descriptor opened before a change reads after it."""
    return opened("file", os.O_RDONLY, lambda fd: (act(), os.pread(fd, 20, 0))[1])


def _child(act):
    """Runs an action in a child, so that the reader is not of the writer's family."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        except OSError as e:
            os._exit(e.errno)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@group
def versions(t):
    file = ["file"]
    edit = opened("file", os.O_RDWR, lambda fd: os.pwrite(fd, b"XX", 0))
    append = opened("file", os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"++"))
    rewrite = lambda: write_file("file", b"second")  # noqa: E731
    for name, act in {"rewrite": rewrite, "edit": edit, "truncate": lambda: os.truncate("file", 1)}.items():
        t.case(f"inode after {name}", lambda a=act: _inode_over(a), make=file)
        t.case(f"reader during {name}", _reader_during(act), make=file, show=file)
        t.case(f"reader during {name} by a child", _reader_during(lambda a=act: _child(a)), make=file, show=file)
        t.case(f"hard link after {name}", act, make=["file=hard"], show=["file", "file.2"])
    t.case("inode after append", lambda: _inode_over(append), make=file)
    t.case("reader during append", _reader_during(append), make=file, show=file)
    t.case("hard link after append", append, make=["file=hard"], show=["file", "file.2"])
    t.case("inode after an open without a write", lambda: _inode_over(opened("file", os.O_RDWR)), make=file)
    t.case(
        "inode after O_TRUNC of an empty file",
        lambda: _inode_over(opened("empty", os.O_WRONLY | os.O_TRUNC), "empty"),
        make=["empty"],
    )
    t.case("inode after chmod", lambda: _inode_over(lambda: os.chmod("file", 0o600)), make=file)
    t.case("inode after touch", lambda: _inode_over(lambda: os.utime("file")), make=file)
    t.case("inode of a new file at fstat and after close", lambda: _new_inode())
    t.case("owner after a rewrite by root", lambda: (os.chown("file", 7, 8), rewrite())[1], make=file, show=file)
    t.case(
        "owner after a rewrite by another user",
        lambda: (os.chown("file", 7, 8), os.chmod("file", 0o666), outcome_as(NOBODY, rewrite))[2],
        make=file,
        show=file,
        dirmode=0o777,
    )
    t.case(
        "owner after an edit by another user",
        lambda: (os.chown("file", 7, 8), os.chmod("file", 0o666), outcome_as(NOBODY, edit))[2],
        make=file,
        show=file,
        dirmode=0o777,
    )
    t.case(
        "rewrite through a symlink", lambda: write_file("link", b"second"), make=["link"], show=["link", "link.target"]
    )
    t.case(
        "create through a dangling link",
        lambda: write_file("dangling", b"second"),
        make=["dangling"],
        show=["dangling", "nowhere"],
    )
    t.case(
        "rename keeps a reader",
        _reader_during(lambda: (write_file("n", b"new"), os.rename("n", "file"))),
        make=file,
        show=file,
    )
    t.case("unlink keeps a reader", _reader_during(lambda: os.unlink("file")), make=file)
    t.case("second writer joins", lambda: _joined(), make=file, show=file)
    t.case(
        "reader of the same process sees staged bytes",
        opened("file", os.O_RDWR, lambda fd: (os.pwrite(fd, b"XX", 0), read_file("file"))[1]),
        make=file,
    )
    t.case(
        "child sees staged bytes",
        opened("file", os.O_RDWR, lambda fd: (os.pwrite(fd, b"XX", 0), _child_read("file"))[1]),
        make=file,
    )


def _new_inode():
    fd = os.open("n", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x")
    before = os.fstat(fd).st_ino
    os.close(fd)
    return "same" if _inode("n") == before else "other"


def _joined():
    a = os.open("file", os.O_RDWR)
    b = os.open("file", os.O_RDWR)
    text = seq(
        lambda: os.pwrite(a, b"A", 0),
        lambda: os.pwrite(b, b"B", 1),
        lambda: os.close(a),
        lambda: os.pwrite(b, b"C", 2),
        lambda: os.close(b),
    )()
    return text


def _child_read(path):
    r, w = os.pipe()
    if os.fork() == 0:
        os.write(w, read_file(path))
        os._exit(0)
    os.wait()
    os.close(w)
    with os.fdopen(r, "rb") as f:
        return f.read()
