# SPDX-License-Identifier: GPL-2.0-or-later
"""What the case files share: the recorder that writes the transcript, the text of a result, and raw system calls.

The transcript must be equal for equal behaviour, so it holds no inode numbers, paths, sizes of directories or times;
these appear as relations only ("ino same", "mtime moved").
"""
import ctypes
import errno
import os
import socket
import stat
import struct
import time

NOBODY = 65534
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
OLD = 1_000_000_000

GROUPS = {}
_libc = ctypes.CDLL(None, use_errno=True)


def group(function):
    """Registers a group of cases under its function's name."""
    GROUPS[function.__name__] = function
    return function


def call(name, *args):
    """A libc function by name; -1 becomes the OSError that the os module would raise."""
    function = getattr(_libc, name)
    function.restype = ctypes.c_long
    result = function(*[_argument(a) for a in args])
    if ctypes.c_int(result).value == -1 and result in (-1, 0xFFFFFFFF):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _argument(value):
    if isinstance(value, int):
        return ctypes.c_long(value)
    if isinstance(value, str):
        return ctypes.c_char_p(value.encode())
    return value


def renameat2(old, new, flags):
    call("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)


def linkat(olddir, old, newdir, new, flags):
    call("linkat", olddir, old, newdir, new, flags)


def fallocate(fd, mode, offset, length):
    call("fallocate", fd, mode, offset, length)


def utimensat(path, atime, mtime, flags=0, dirfd=AT_FDCWD):
    """Times are (seconds, nanoseconds); path None means the descriptor itself."""
    call("utimensat", dirfd, path if path is not None else None, (ctypes.c_long * 4)(*atime, *mtime), flags)


def lsetxattr(path, name, value, flags=0):
    os.setxattr(path, name, value, flags, follow_symlinks=False)


def acl(*entries):
    """The kernel's form of an ACL; an entry is (tag, permission bits[, id])."""
    tags = {"u:": 1, "u": 2, "g:": 4, "g": 8, "m": 16, "o": 32}
    body = b"".join(struct.pack("<HHI", tags[e[0]], e[1], e[2] if len(e) > 2 else 0xFFFFFFFF) for e in entries)
    return struct.pack("<I", 2) + body


def acl_text(path, kind="access"):
    """The ACL that a file carries, as 'u:6 u65534:7 ...' or the errno."""
    names = {1: "u:", 2: "u", 4: "g:", 8: "g", 16: "m", 32: "o"}
    raw = os.getxattr(path, f"system.posix_acl_{kind}")
    out = []
    for tag, perm, ident in struct.iter_unpack("<HHI", raw[4:]):
        out.append(f'{names[tag]}{ident if tag in (2, 8) else ""}={perm}')
    return " ".join(out)


# Objects that cases ask for by name: 'file', 'dir', 'a=file' (a file named a), ...
def _file(path):
    write_file(path, b"hello")


def _tree(path):
    os.mkdir(path)
    write_file(f"{path}/in", b"x")


def _socket(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)


def _hard(path):
    write_file(path, b"hello")
    os.link(path, path + ".2")


def _symlink_to_file(path):
    write_file(path + ".target", b"hello")
    os.symlink(path + ".target", path)


def _symlink_to_dir(path):
    os.mkdir(path + ".target")
    os.symlink(path + ".target", path)


KINDS = {
    "missing": lambda p: None,
    "file": _file,
    "empty": lambda p: write_file(p, b""),
    "dir": os.mkdir,
    "tree": _tree,
    "link": _symlink_to_file,
    "dirlink": _symlink_to_dir,
    "dangling": lambda p: os.symlink("nowhere", p),
    "loop": lambda p: os.symlink(p, p),
    "fifo": lambda p: os.mkfifo(p, 0o644),
    "sock": _socket,
    "hard": _hard,
    "null": lambda p: os.mknod(p, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
}


def write_file(path, data, mode=0o644):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def read_file(path):
    with open(path, "rb", buffering=0) as f:
        return f.read()


def stat_text(st):
    kind = {
        stat.S_IFREG: "reg",
        stat.S_IFDIR: "dir",
        stat.S_IFLNK: "lnk",
        stat.S_IFIFO: "fifo",
        stat.S_IFSOCK: "sock",
        stat.S_IFCHR: "chr",
        stat.S_IFBLK: "blk",
    }[stat.S_IFMT(st.st_mode)]
    text = f"{kind} {stat.S_IMODE(st.st_mode):04o} {st.st_uid}:{st.st_gid} n{st.st_nlink}"
    if kind in ("reg", "lnk"):
        text += f" s{st.st_size}"
    if kind in ("chr", "blk"):
        text += f" {os.major(st.st_rdev)},{os.minor(st.st_rdev)}"
    return text


def describe(path):
    """lstat of a path, with the content of a file, the target of a link, the names in a directory."""
    try:
        st = os.lstat(path)
        text = stat_text(st)
        if stat.S_ISREG(st.st_mode):
            text += " " + bytes_text(read_file(path))
        elif stat.S_ISLNK(st.st_mode):
            text += " ->" + os.readlink(path)[:40]
        elif stat.S_ISDIR(st.st_mode):
            text += "".join(" " + name for name in sorted(os.listdir(path)))[:120]
        return text.replace("\n", "\\n")
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))


def bytes_text(data):
    """Short data as it is, long data by its length and the runs of equal bytes it starts with."""
    if len(data) <= 40:
        return repr(data)
    runs, at = [], 0
    while at < len(data) and len(runs) < 8:
        end = at
        while end < len(data) and data[end] == data[at]:
            end += 1
        runs.append(f"{data[at]:02x}*{end - at}")
        at = end
    return f'<{len(data)}: {" ".join(runs)}>'


def value_text(value):
    if isinstance(value, os.stat_result):
        return stat_text(value)
    if isinstance(value, bytes):
        return bytes_text(value)
    if value is None:
        return "0"
    return str(value)


def outcome(act):
    try:
        return value_text(act())
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))


def seq(*acts):
    """Runs several actions; the result is the list of all outcomes, so that a failing step does not hide the next."""
    return lambda: "; ".join(outcome(a) for a in acts)


class Recorder:
    """Runs cases, each in a fresh directory, and prints a line for each."""

    def __init__(self, top, group_name):
        self.top = os.path.abspath(top)
        self.group = group_name
        self.count = 0
        self.seen = set()

    def case(self, name, act, make=(), show=(), user=None, dirmode=0o755):
        """`make` lists objects ('file', 'a=tree'), `show` paths described afterwards, `user` a uid to act as."""
        if name in self.seen:
            raise ValueError(f"two cases named {name}")
        self.seen.add(name)
        self._enter()
        for spec in make:
            path, _, kind = spec.rpartition("=")
            KINDS[kind](path or kind)
        os.chmod(".", dirmode)
        text = outcome(act) if user is None else outcome_as(user, act)
        for path in show:
            text += f" | {path}: {describe(path)}"
        print(f"{self.group} {name} :: {text}", flush=True)
        self.count += 1
        os.chdir(self.top)

    def times(self, name, act, watch, make=()):
        """Tells which times of the watched paths an action moved: m for mtime, c for ctime."""

        def measured():
            before = {p: _times(p) for p in watch}
            time.sleep(0.012)
            result = outcome(act)
            return result + "".join(f" {p}({_moved(before[p], _times(p))})" for p in watch)

        self.case(name, measured, make=make)

    def _enter(self):
        path = f"{self.top}/{self.count:04d}"
        os.mkdir(path)
        os.chdir(path)


def _times(path):
    try:
        st = os.lstat(path)
        return st.st_mtime_ns, st.st_ctime_ns
    except OSError:
        return None


def _moved(before, after):
    if before is None or after is None:
        return "absent" if after is None else "new"
    return "".join(c for c, a, b in zip("mc", before, after) if a != b) or "-"


def outcome_as(user, act):
    """The outcome of an action in a child that has become another user; user is a uid or (uid, gid, groups)."""
    uid, gid, groups = user if isinstance(user, tuple) else (user, user, [])
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            text = outcome(act)
        except BaseException as e:
            text = f"broken case: {e!r}"
        os.write(write_end, text.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as f:
        text = f.read().decode()
    os.waitpid(child, 0)
    return text


def opened(path, flags, act=None, mode=0o644, dir_fd=None):
    """An action: open, do something with the descriptor (its fstat if nothing is given), close."""

    def run():
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
        try:
            return act(fd) if act else os.fstat(fd)
        finally:
            os.close(fd)

    return run
