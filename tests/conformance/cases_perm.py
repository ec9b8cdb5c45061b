# SPDX-License-Identifier: GPL-2.0-or-later
"""What another user may do: modes of directories and files, sticky and setgid directories, ACLs, owners."""
import os
import stat

from lib import (
    NOBODY,
    OLD,
    UTIME_NOW,
    acl,
    call,
    fallocate,
    group,
    opened,
    outcome_as,
    read_file,
    renameat2,
    seq,
    utimensat,
    write_file,
)

MEMBER = (NOBODY, NOBODY, [1234])


def _mk_tree(dirmode, filemode=0o644, owner=0, dirowner=0, gid=0):
    """d/ with a file, an empty directory and a link in it."""
    os.mkdir("d")
    write_file("d/f", b"hello")
    os.mkdir("d/e")
    os.symlink("f", "d/l")
    write_file("mine", b"mine")
    os.chown("mine", NOBODY, NOBODY)
    os.chown("d/f", owner, gid)
    os.chown("d/e", owner, gid)
    os.chown("d/l", owner, gid, follow_symlinks=False)
    os.chmod("d/f", filemode)
    os.chown("d", dirowner, gid)
    os.chmod("d", dirmode)


OPS = {
    "list": lambda: sorted(os.listdir("d")),
    "stat": lambda: os.stat("d/f"),
    "read": lambda: read_file("d/f"),
    "write": opened("d/f", os.O_WRONLY, lambda fd: os.write(fd, b"XX")),
    "rewrite": lambda: write_file("d/f", b"new"),
    "open O_RDONLY|O_TRUNC": opened("d/f", os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda: os.truncate("d/f", 1),
    "append": opened("d/f", os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"+")),
    "create": lambda: write_file("d/n", b"n"),
    "create excl": opened("d/n", os.O_RDWR | os.O_CREAT | os.O_EXCL),
    "create existing": opened("d/f", os.O_RDWR | os.O_CREAT),
    "tmpfile": opened("d", os.O_RDWR | os.O_TMPFILE),
    "mkdir": lambda: os.mkdir("d/n"),
    "mkdir existing": lambda: os.mkdir("d/f"),
    "symlink": lambda: os.symlink("x", "d/n"),
    "readlink": lambda: os.readlink("d/l"),
    "mkfifo": lambda: os.mkfifo("d/n"),
    "link out": lambda: os.link("d/f", "out"),
    "link in": lambda: os.link("mine", "d/n"),
    "unlink": lambda: os.unlink("d/f"),
    "unlink missing": lambda: os.unlink("d/n"),
    "rmdir": lambda: os.rmdir("d/e"),
    "rename within": lambda: os.rename("d/f", "d/n"),
    "rename out": lambda: os.rename("d/f", "out"),
    "rename in": lambda: os.rename("mine", "d/n"),
    "rename over": lambda: os.rename("mine", "d/f"),
    "rename dir": lambda: os.rename("d/e", "d/n"),
    "rename dir out": lambda: os.rename("d/e", "out"),
    "exchange": lambda: renameat2("mine", "d/f", 2),
    "noreplace": lambda: renameat2("mine", "d/n", 1),
    "chmod": lambda: os.chmod("d/f", 0o600),
    "chmod dir": lambda: os.chmod("d", 0o700),
    "chown": lambda: os.chown("d/f", NOBODY, -1),
    "chdir": lambda: os.chdir("d"),
    "chgrp own": lambda: os.chown("d/f", -1, NOBODY),
    "chgrp other": lambda: os.chown("d/f", -1, 4321),
    "utimens now": lambda: utimensat("d/f", (0, UTIME_NOW), (0, UTIME_NOW)),
    "utimens set": lambda: os.utime("d/f", (1, 1)),
    "setxattr user": lambda: os.setxattr("d/f", "user.a", b"1"),
    "getxattr user": lambda: os.getxattr("d/f", "user.a"),
    "setxattr trusted": lambda: os.setxattr("d/f", "trusted.a", b"1"),
    "setxattr security": lambda: os.setxattr("d/f", "security.a", b"1"),
    "listxattr": lambda: len(os.listxattr("d/f")),
    "set acl": lambda: os.setxattr("d/f", "system.posix_acl_access", acl(("u:", 6), ("g:", 4), ("o", 4))),
    "setxattr on dir": lambda: os.setxattr("d", "user.a", b"1"),
    "O_NOATIME": opened("d/f", os.O_RDONLY | os.O_NOATIME),
    "access R": lambda: call("access", "d/f", 4),
    "access W": lambda: call("access", "d/f", 2),
    "access X": lambda: call("access", "d/f", 1),
    "access W dir": lambda: call("access", "d", 2),
    "fallocate": opened("d/f", os.O_RDWR, lambda fd: fallocate(fd, 0, 0, 10)),
}


def _table(t, label, make, user, show):
    for name, act in OPS.items():
        t.case(f"{label}: {name}", lambda a=act: (make(), outcome_as(user, a))[1], show=show, dirmode=0o777)


@group
def foreign(t):
    """Another user's directory and file, by the directory's mode."""
    for mode in (0o000, 0o700, 0o711, 0o744, 0o755, 0o777, 0o1777, 0o733):
        _table(t, f"dir {mode:04o}", lambda m=mode: _mk_tree(m), NOBODY, ["d", "d/f"])


@group
def foreign_file(t):
    """Another user's file in a directory that anybody may change, by the file's mode."""
    for mode in (0o000, 0o600, 0o666, 0o622, 0o4777):
        _table(t, f"file {mode:04o}", lambda m=mode: _mk_tree(0o777, m), NOBODY, ["d/f"])


@group
def own_file(t):
    """One's own file in one's own or another's directory."""
    for mode in (0o644, 0o444, 0o000):
        _table(t, f"own {mode:04o}", lambda m=mode: _mk_tree(0o755, m, NOBODY, NOBODY, NOBODY), NOBODY, ["d", "d/f"])
    _table(t, "own in a foreign directory", lambda: _mk_tree(0o755, 0o644, NOBODY, 0, NOBODY), NOBODY, ["d", "d/f"])
    _table(t, "own in a sticky directory", lambda: _mk_tree(0o1777, 0o644, NOBODY, 0, NOBODY), NOBODY, ["d", "d/f"])
    _table(t, "foreign in an own sticky directory", lambda: _mk_tree(0o1755, 0o644, 0, NOBODY), NOBODY, ["d", "d/f"])


@group
def group_member(t):
    """A file and directory of a group the caller is in by its supplementary groups only."""
    for dirmode, filemode in ((0o770, 0o660), (0o2770, 0o640), (0o750, 0o060), (0o707, 0o606)):
        _table(
            t,
            f"dir {dirmode:04o} file {filemode:04o}",
            lambda d=dirmode, f=filemode: _mk_tree(d, f, 0, 0, 1234),
            MEMBER,
            ["d", "d/f", "d/n"],
        )


@group
def special_bits(t):
    """setuid, setgid and sticky as calls of an ordinary user change them."""

    def own(mode, *acts, gid=NOBODY, user=NOBODY):
        def run():
            write_file("f", b"hello")
            os.chown("f", NOBODY, gid)
            os.chmod("f", mode)
            return outcome_as(user, seq(*acts))

        return run

    acts = {
        "write": opened("f", os.O_WRONLY, lambda fd: os.write(fd, b"X")),
        "rewrite": lambda: write_file("f", b"new"),
        "truncate": lambda: os.truncate("f", 2),
        "chmod same": lambda: os.chmod("f", stat.S_IMODE(os.stat("f").st_mode)),
        "chmod 6755": lambda: os.chmod("f", 0o6755),
        "chown to itself": lambda: os.chown("f", NOBODY, NOBODY),
        "chown of nothing": lambda: os.chown("f", -1, -1),
        "chmod sticky": lambda: os.chmod("f", 0o1755),
        "fallocate": opened("f", os.O_RDWR, lambda fd: fallocate(fd, 0, 0, 10)),
        "open only": opened("f", os.O_RDWR),
        "setxattr": lambda: os.setxattr("f", "user.a", b"1"),
        "utimens": lambda: os.utime("f", (1, 1)),
    }
    for mode in (0o6777, 0o2767, 0o2757, 0o4711):
        for name, act in acts.items():
            t.case(f"{mode:04o} {name}", own(mode, act), show=["f"], dirmode=0o777)
            t.case(f"{mode:04o} foreign group {name}", own(mode, act, gid=1234), show=["f"], dirmode=0o777)
    for name in ("write", "truncate", "fallocate", "rewrite"):
        t.case(
            f"root {name} of 6777",
            lambda a=acts[name]: (write_file("f", b"hello"), os.chmod("f", 0o6777), a())[2],
            show=["f"],
        )
        t.case(
            f"root {name} of 2767",
            lambda a=acts[name]: (write_file("f", b"hello"), os.chmod("f", 0o2767), a())[2],
            show=["f"],
        )
    for name, mode in {"own group": 0o2775, "no bit": 0o0775}.items():
        t.case(f"mkdir below setgid, {name}", lambda m=mode: _below_setgid(m, lambda: os.mkdir("s/n")), show=["s/n"])
        t.case(
            f"create 2775 below setgid, {name}",
            lambda m=mode: _below_setgid(m, opened("s/n", os.O_WRONLY | os.O_CREAT, mode=0o2775)),
            show=["s/n"],
        )
        t.case(
            f"chmod g+s below setgid, {name}",
            lambda m=mode: _below_setgid(
                m, seq(opened("s/n", os.O_WRONLY | os.O_CREAT, mode=0o755), lambda: os.chmod("s/n", 0o2755))
            ),
            show=["s/n"],
        )
        t.case(
            f"tmpfile 2775 below setgid, {name}",
            lambda m=mode: _below_setgid(m, opened("s", os.O_WRONLY | os.O_TMPFILE, mode=0o2775)),
        )


def _below_setgid(mode, act):
    os.mkdir("s")
    os.chown("s", NOBODY, 1234)
    os.chmod("s", mode)
    return outcome_as(NOBODY, act)


@group
def acl_access(t):
    """Whether ACLs decide, and the caller's groups with them."""
    entries = {
        "user rw": ("u", 6),
        "user none": ("u", 0),
        "user r": ("u", 4),
        "user rwx masked r": ("u", 7),
    }
    for name, (tag, perm) in entries.items():
        mask = 4 if "masked" in name else 7
        value = acl(("u:", 6), (tag, perm, NOBODY), ("g:", 0), ("m", mask), ("o", 4))
        for op in (
            "read",
            "write",
            "rewrite",
            "append",
            "truncate",
            "setxattr user",
            "utimens now",
            "access R",
            "access W",
            "access X",
            "chmod",
            "link out",
            "unlink",
        ):
            t.case(
                f"{name}: {op}",
                lambda v=value, o=op: (
                    _mk_tree(0o777, 0o600),
                    os.setxattr("d/f", "system.posix_acl_access", v),
                    outcome_as(NOBODY, OPS[o]),
                )[2],
                show=["d/f"],
                dirmode=0o777,
            )
    group_rw = acl(("u:", 6), ("g:", 0), ("g", 6, 1234), ("m", 7), ("o", 0))
    for op in ("read", "write", "rewrite", "append", "access W"):
        t.case(
            f"named group: {op}",
            lambda o=op: (
                _mk_tree(0o777, 0o600),
                os.setxattr("d/f", "system.posix_acl_access", group_rw),
                outcome_as(MEMBER, OPS[o]),
            )[2],
            show=["d/f"],
            dirmode=0o777,
        )
        t.case(
            f"named group, no member: {op}",
            lambda o=op: (
                _mk_tree(0o777, 0o600),
                os.setxattr("d/f", "system.posix_acl_access", group_rw),
                outcome_as(NOBODY, OPS[o]),
            )[2],
            show=["d/f"],
            dirmode=0o777,
        )
    dir_w = acl(("u:", 7), ("u", 7, NOBODY), ("g:", 5), ("m", 7), ("o", 0))
    for op in ("create", "mkdir", "unlink", "rename out", "list", "stat", "rewrite"):
        t.case(
            f"directory for the user: {op}",
            lambda o=op: (
                _mk_tree(0o700),
                os.setxattr("d", "system.posix_acl_access", dir_w),
                outcome_as(NOBODY, OPS[o]),
            )[2],
            show=["d", "d/f"],
            dirmode=0o777,
        )
    t.case(
        "owner sets an ACL",
        lambda: (
            _mk_tree(0o755, 0o640, NOBODY, NOBODY, NOBODY),
            outcome_as(NOBODY, lambda: os.setxattr("d/f", "system.posix_acl_access", dir_w)),
        )[1],
        show=["d/f"],
        dirmode=0o777,
    )
    t.case(
        "setting an ACL clears setgid of a foreign group",
        lambda: (
            _mk_tree(0o755, 0o2750, NOBODY, NOBODY, 1234),
            outcome_as(NOBODY, lambda: os.setxattr("d/f", "system.posix_acl_access", dir_w)),
        )[1],
        show=["d/f"],
        dirmode=0o777,
    )


@group
def opened_before(t):
    """A descriptor keeps the rights it was opened with."""

    def kept(*acts, flags=os.O_RDWR):
        return lambda: (
            write_file("f", b"hello"),
            os.chown("f", NOBODY, NOBODY),
            outcome_as(NOBODY, opened("f", flags, lambda fd: seq(*[lambda a=a: a(fd) for a in acts])())),
        )[2]

    t.case(
        "chmod 0, then write",
        kept(
            lambda fd: os.chmod("f", 0),
            lambda fd: os.write(fd, b"XX"),
            lambda fd: os.pread(fd, 9, 0),
            lambda fd: read_file("f"),
        ),
        show=["f"],
        dirmode=0o777,
    )
    t.case(
        "directory closed off, then write",
        kept(
            lambda fd: os.mkdir("sub"),
            lambda fd: os.rename("f", "sub/f"),
            lambda fd: os.chmod("sub", 0),
            lambda fd: os.write(fd, b"XX"),
            lambda fd: os.chmod("sub", 0o755),
        ),
        show=["sub/f"],
        dirmode=0o777,
    )
    t.case(
        "new file of mode 0",
        lambda: outcome_as(
            NOBODY,
            seq(
                opened("n", os.O_RDWR | os.O_CREAT, lambda fd: os.write(fd, b"abc"), mode=0),
                lambda: read_file("n"),
                lambda: os.utime("n", (OLD, OLD)),
                lambda: os.stat("n").st_mtime_ns,
            ),
        ),
        show=["n"],
        dirmode=0o777,
    )
    t.case(
        "new file of mode 0444, created and written",
        lambda: outcome_as(
            NOBODY,
            seq(
                opened("n", os.O_WRONLY | os.O_CREAT | os.O_EXCL, lambda fd: os.write(fd, b"abc"), mode=0o444),
                opened("n", os.O_WRONLY),
            ),
        ),
        show=["n"],
        dirmode=0o777,
    )
