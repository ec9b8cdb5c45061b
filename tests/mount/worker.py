# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs on a host and does what the test says: a line (code, values) in, a line ("ok", result) out, as literals."""

import errno
import fcntl  # noqa: F401
import os
import signal  # noqa: F401  what is sent here may use these
import stat  # noqa: F401
import struct  # noqa: F401
import sys  # noqa: F401
import time
import traceback

REPLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def write_all(fd, data):
    """Goes on after short writes, as programs do."""
    while data:
        data = data[os.write(fd, data) :]


def put(path, data, flags=REPLACE, mode=0o666, piece=1 << 20, pause=0):
    """Opens, writes all of it in pieces, closes."""
    fd = os.open(path, flags, mode)
    try:
        for at in range(0, len(data), piece):
            write_all(fd, data[at : at + piece])
            if pause:
                time.sleep(pause)
    finally:
        os.close(fd)


def put_at(path, *places, flags=os.O_RDWR):
    """Opens without truncation, writes each (offset, data), closes."""
    fd = os.open(path, flags)
    try:
        for offset, data in places:
            os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def drain(fd):
    """Everything from the present offset on."""
    pieces = []
    while True:
        piece = os.read(fd, 1 << 18)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def get(path):
    """Opens, reads all, closes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return drain(fd)
    finally:
        os.close(fd)


def look(path):
    """fstat of a fresh open, as close-to-open promises it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return tuple(os.fstat(fd))[:7]
    finally:
        os.close(fd)


def error(call, *args, **named):
    """The name of the errno the call ends with, or None."""
    try:
        call(*args, **named)
    except OSError as e:
        return errno.errorcode[e.errno]
    return None


def name_it(fd, name):
    """Gives an O_TMPFILE a name.  (Python follows links only when a directory is given.)"""
    os.link("/proc/self/fd/%d" % fd, name, src_dir_fd=0, follow_symlinks=True)


def read_once(path, versions, classify):
    """One open and read of the name: (label, what) with label None for what is no version."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as e:
        return ("absent" if e.errno == errno.ENOENT else None), errno.errorcode[e.errno]
    try:
        size = os.fstat(fd).st_size
        data = drain(fd)
        what = (len(data), size, data[:32], data[-32:])
        if classify:
            return classify(data), what
        return (versions.index(data) if data in versions and size == len(data) else None), what
    except OSError as e:
        return None, "read: " + errno.errorcode[e.errno]
    finally:
        os.close(fd)


def watch(path, stop, versions, classify=None):
    """Reads the name again and again until the file `stop` exists: ({label: times}, what was no version)."""
    seen, bad = {}, []
    while len(bad) < 5:
        last = os.path.exists(stop)
        label, what = read_once(path, versions, classify)
        seen[label] = seen.get(label, 0) + 1
        if label is None:
            bad.append(what)
        if last:
            break
    return seen, bad


def evaluate(code, space):
    """The value of an expression, or what statements left in `result`."""
    try:
        compiled = compile(code, "<test>", "eval")
    except SyntaxError:
        exec(compile(code, "<test>", "exec"), space)
        return space.pop("result", None)
    return eval(compiled, space)


def answer_to(line, space):
    code, values = eval(line)
    space.update(values)
    try:
        return "ok", evaluate(code, space)
    except OSError as e:
        return "oserror", e.errno, str(e)
    except BaseException:
        return "error", traceback.format_exc()


def main():
    """Keeps the pipes to itself and leaves 0, 1 and 2 as a plain program has them."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    space = dict(globals())
    for line in requests:
        answers.write((repr(answer_to(line, space)) + "\n").encode())
        answers.flush()


if __name__ == "__main__":
    main()
