# SPDX-License-Identifier: GPL-2.0-or-later
"""After the break of an append lease, appends go on in a copy (C11, P14).

A write of a dead host's kernel that arrives late is played by a descriptor of the file as it was on the source.
"""

import os
import random
import signal
import struct
import subprocess
import time

import pytest
from harness import eventually

APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
USER, GROUP = 31001, 31002
GONE = "gone.0123456789abcdef"
NO_COPY = "no copy could be made"
LATE = b"two, late\n"


def host_id(source, hostname):
    (found,) = [name for name in os.listdir(source + "/.safewritefs/hosts") if name.startswith(hostname + ".")]
    return found


class Late:
    """A host that died while it appended LATE to "one\\n": half of it is there, the rest may come."""

    def __init__(self, source, name, holder=GONE, there=4, size=4):
        self.path, self.offset = os.path.join(source, name), size
        self.fd = os.open(self.path, os.O_RDWR)
        os.pwrite(self.fd, LATE[:there], self.offset)
        inode = os.fstat(self.fd).st_ino
        text = "%s 1 append %d %d %d %s" % (holder, self.offset, len(LATE), inode, name)
        self.inode = inode
        os.symlink(text, "%s/.safewritefs/leases/%016x" % (source, inode))

    def arrives(self):
        os.pwrite(self.fd, LATE, self.offset)
        os.close(self.fd)

    def is_replaced(self):
        return os.stat(self.path).st_ino != self.inode


def append(host, record, name="log"):
    host("put(name, record, flags=flags)", name=name, record=record, flags=APPEND)


@pytest.mark.parametrize("there", [0, 4, len(LATE)])
def test_a_late_write_finds_no_name(lab, source, there):
    """C11: not even half of it is seen, by any host; appenders that had the file open go on where all do."""
    a, b, c = (lab.host(source, name) for name in ("alpha", "beta", "gamma"))
    a.write("log", b"one\n")
    before, quiet = a.worker(), c.worker()
    before("fd = os.open('log', flags); r = os.open('log', os.O_RDONLY); drain(r)", flags=APPEND)
    quiet("fd = os.open('log', flags)", flags=APPEND)
    late = Late(source, "log", there=there)
    append(b, b"of beta\n")
    assert late.is_replaced()
    late.arrives()
    before("os.write(fd, b'of alpha\\n')")
    quiet("os.write(fd, b'of gamma\\n')")
    whole = b"one\n" + (LATE if there == len(LATE) else b"") + b"of beta\nof alpha\nof gamma\n"
    for host in (a, b, c):
        assert host.read("log") == whole
    assert before("(os.lseek(r, 0, 0), drain(r))[1]") == b"one\n" + LATE  # C11: a reader keeps the file it has open


def test_a_frozen_host_s_write(lab, source):
    """C11, C21: the same when a live host was silent for its lease."""
    a, b = (lab.host(source, name, "lease=2") for name in ("alpha", "beta"))
    a.write("log", b"one\n")
    holder = host_id(source, "alpha")
    a.daemon.end(signal.SIGSTOP)
    late = Late(source, "log", holder)
    append(b, b"of beta\n")
    assert late.is_replaced()
    late.arrives()
    assert b.read("log") == b"one\nof beta\n"
    a.kill_daemon()
    a.run(["umount", "-l", a.mnt], cwd="/")


def check_lines(data, sure, unsure):
    """Lines "who.number fill": the sure ones once, the unsure ones at most once, nothing else, none torn."""
    names = []
    for line in data.decode().splitlines():
        name, fill = line.split(" ")
        assert fill == fill_of(name), "torn: " + line[:60]
        names.append(name)
    assert len(set(names)) == len(names), "doubled"
    assert not set(sure) - set(names), "lost"
    assert not set(names) - set(sure) - set(unsure), "never written"


def fill_of(name):
    who, number = name.split(".")
    return who * (int(number) * 641 % 4000 + 1)


APPEND_UNTIL_STOPPED = """
sure, unsure, number = [], [], 0
def line(number): return b'a.%d ' % number + b'a' * (number * 641 % 4000 + 1) + b'\\n'
while not os.path.exists(stop):
    try:
        os.write(fd, line(number))
        sure.append('a.%d' % number)
    except OSError:
        unsure.append('a.%d' % number)
    number += 1
"""


@pytest.mark.limit(120)
@pytest.mark.expect_log("rejoined as host")
def test_frozen_in_full_flight(lab, source):
    """C11, C21: a host that is frozen while it appends, and wakes: what it was told is there is there, once and whole,
    and so is all that the other one appended meanwhile."""
    seed = int(os.environ.get("SW_SEED", random.SystemRandom().randrange(1 << 30)))
    print("SW_SEED=%d" % seed)
    pick = random.Random(seed)
    a, b = (lab.host(source, name, "lease=2") for name in ("alpha", "beta"))
    writer, stop, sure = a.worker(), os.path.join(a.scratch, "stop"), []
    writer("fd = os.open('log', flags, 0o666)", flags=APPEND)
    writer.start(APPEND_UNTIL_STOPPED, stop=stop)
    for _ in range(4):
        time.sleep(0.05 + pick.random() / 10)
        a.daemon.end(signal.SIGSTOP)
        for _ in range(20):
            name = "b.%d" % len(sure)
            append(b, ("%s %s\n" % (name, fill_of(name))).encode())
            sure.append(name)
        a.daemon.end(signal.SIGCONT)
    time.sleep(0.2)
    with open(stop, "w", encoding="ascii"):
        pass
    writer.finish()
    check_lines(b.read("log"), sure + writer("sure"), writer("unsure"))


def acl_of(uid):
    entries = [(1, 6, -1), (2, 4, uid), (4, 4, -1), (16, 4, -1), (32, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def test_the_copy_has_all_attributes(hosts, source):
    """C17: owner, group, mode, xattrs, ACL and times of a user's file, in a directory where he may make none."""
    a, b = hosts
    a.write("log", b"one\n")
    path = source + "/log"
    os.chown(path, USER, GROUP)
    os.setxattr(path, "user.note", b"kept")
    os.setxattr(path, "system.posix_acl_access", acl_of(4711))
    late = Late(source, "log", there=0)
    os.utime(path, ns=(10**18 + 1000, 10**18 + 2000))
    before = os.stat(path)
    with open(path, "rb"):
        a.run("flock log true")  # opens and closes it, and looks at nothing
    user = b.worker(uid=USER, gid=GROUP)
    user("fd = os.open('log', os.O_WRONLY | os.O_APPEND); error(os.write, fd, b'')")
    b("os.close(os.open('log', os.O_RDWR)); put_at('log', (0, b'O'))")
    assert late.is_replaced()
    after = os.stat(path)
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, USER, GROUP)
    assert os.getxattr(path, "user.note") == b"kept"
    assert os.getxattr(path, "system.posix_acl_access") == acl_of(4711)
    late.arrives()
    user("os.write(fd, b'mine\\n')")
    assert b.read("log") == b"One\nmine\n"


def test_a_hard_link_keeps_the_old_file(hosts, source):
    """C17: appenders follow the name they had opened; the late write is seen by the other one only."""
    a, b = hosts
    a("put('log', b'one\\n'); os.link('log', 'other')")
    first, second = a.worker(), a.worker()
    first("fd = os.open('log', flags)", flags=APPEND)
    second("fd = os.open('other', flags)", flags=APPEND)
    late = Late(source, "log")
    append(b, b"of beta\n")
    first("os.write(fd, b'first\\n')")
    assert b.read("log") == b"one\nof beta\nfirst\n" and b.read("other") == b"one\n"
    late.arrives()
    assert b.read("log") == b"one\nof beta\nfirst\n" and b.read("other") == b"one\n" + LATE
    second("os.write(fd, b'second\\n')")
    assert b.read("other") == b"one\n" + LATE + b"second\n"


@pytest.mark.expect_log(NO_COPY)
def test_no_room_for_a_copy(lab, small_source):
    """C24: appends go on, the torn record is cut off, and the log says what may still come."""
    a, b = lab.host(small_source, "alpha"), lab.host(small_source, "beta")
    before = b"x" * (6 << 20)
    a.write("log", before)
    subprocess.run(["dd", "if=/dev/zero", "of=%s/ballast" % small_source, "bs=64k", "count=72"], check=False)
    late = Late(small_source, "log", size=len(before))
    append(b, b"of beta\n")
    assert not late.is_replaced() and NO_COPY in b.log_text()
    assert b.read("log") == before + b"of beta\n"
    late = Late(small_source, "log", size=len(before) + 8)
    os.unlink(small_source + "/ballast")
    append(b, b"again\n")
    assert late.is_replaced()
    late.arrives()
    assert a.read("log") == before + b"of beta\nagain\n"


@pytest.mark.expect_log(NO_COPY)
@pytest.mark.options("edit-copy-max=1M")
def test_larger_than_edit_copy_max(hosts, source):
    """C11: as for edits, files over edit-copy-max are not copied, unless blocks can be shared."""
    a, b = hosts
    before = b"x" * (2 << 20)
    a.write("log", before)
    late = Late(source, "log", size=len(before))
    append(b, b"of beta\n")
    assert late.is_replaced() or "larger than edit-copy-max" in b.log_text()
    assert b.read("log") == before + b"of beta\n"


def test_shared_blocks(loop_source, lab):
    """C11: on file systems that clone, and on one that does not; holes stay holes."""
    a, b = lab.host(loop_source, "alpha"), lab.host(loop_source, "beta")
    a("put('log', b'begin\\n'); os.truncate('log', 64 << 20)")
    late = Late(loop_source, "log", size=64 << 20)
    append(b, b"of beta\n")
    late.arrives()
    assert late.is_replaced() and b("os.stat('log').st_blocks") * 512 < 1 << 20
    with open(late.path, "rb") as f:
        assert f.read().replace(b"\0", b"") == b"begin\nof beta\n"


def test_a_breaker_that_is_killed(lab, source):
    """C11, C19: kill -9 in the middle of the copy: the next one begins again, and nothing of it is left."""
    a, b = (lab.host(source, name, "lease=2") for name in ("alpha", "beta"))
    before = os.urandom(1 << 20) * 150
    with open(source + "/log", "wb") as f:
        f.write(before)
    late = Late(source, "log", size=len(before))
    worker = b.worker()
    worker.start("fd = os.open('log', flags); error(os.write, fd, b'of beta\\n')", flags=APPEND)
    beta = "%s/.safewritefs/hosts/%s" % (source, host_id(source, "beta"))
    assert eventually(lambda: late.is_replaced() or "copy-" in "".join(os.listdir(beta + "/stage/0")), 10)
    b.kill_daemon()
    worker.kill()
    b.run(["umount", "-l", b.mnt], cwd="/")
    append(a, b"of alpha\n")
    late.arrives()
    with open(late.path, "rb") as f:
        whole = f.read()
    assert whole.startswith(before) and whole[len(before) :] in (b"of alpha\n", b"of beta\nof alpha\n")
    assert eventually(lambda: not os.path.exists(beta), 10) and not lab.salvage(source)
