# SPDX-License-Identifier: GPL-2.0-or-later
"""flock(2), fcntl(2) and OFD locks (C6, C22): they exclude on all hosts, from all versions of a file."""

import os
import time

import pytest
from harness import SLOWNESS, Frozen, eventually

# What programs do to lock and unlock a descriptor: "x" exclusive, "s" shared, "u" unlock; `wait` or not.
PRELUDE = """
OFD_SETLK, OFD_SETLKW = 37, 38
MODES = {"x": fcntl.LOCK_EX, "s": fcntl.LOCK_SH, "u": fcntl.LOCK_UN}
TYPES = {"x": fcntl.F_WRLCK, "s": fcntl.F_RDLCK, "u": fcntl.F_UNLCK}

def lock(fd, how, kind, wait=False, start=0, length=0):
    if kind == "flock":
        fcntl.flock(fd, MODES[how] | (0 if wait else fcntl.LOCK_NB))
    elif kind == "fcntl":
        fcntl.lockf(fd, MODES[how] | (0 if wait or how == "u" else fcntl.LOCK_NB), length, start)
    else:
        command = OFD_SETLKW if wait else OFD_SETLK
        fcntl.fcntl(fd, command, struct.pack("hhqqi4x", TYPES[how], 0, start, length, 0))

def refused(*args, **named):
    try:
        lock(*args, **named)
    except BlockingIOError:
        return True
    return False

def opened(name, flags=os.O_RDWR | os.O_CREAT):
    return os.open(name, flags, 0o666)
"""
KINDS = ["flock", "fcntl", "ofd"]
# Python cannot wait in fcntl.fcntl and be asked whether it does; the others can.
WAITING_KINDS = ["flock", "fcntl"]

SLOW = 5 * SLOWNESS


def worker_of(host):
    worker = host.worker()
    worker(PRELUDE)
    return worker


@pytest.fixture
def pair(hosts):
    """A worker on each of two hosts."""
    return [worker_of(host) for host in hosts]


@pytest.mark.parametrize("kind", KINDS)
def test_one_excludes_the_other(pair, source, kind):
    """C22: exclusive, shared, unlocked, closed, on both hosts; the file is there from the first lock on."""
    a, b = pair
    a("fd = opened('f')")
    b("fd = opened('f')")
    assert not a("refused(fd, 'x', kind)", kind=kind)
    assert os.path.exists(source + "/f")
    assert b("refused(fd, 'x', kind)", kind=kind)
    assert b("refused(fd, 's', kind)")
    a("lock(fd, 's', kind)")
    assert not b("refused(fd, 's', kind)")
    assert a("refused(fd, 'x', kind)")
    b("lock(fd, 'u', kind)")
    assert not a("refused(fd, 'x', kind)")
    a("os.close(fd)")
    assert eventually(lambda: not b("refused(fd, 'x', kind)"))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_ranges(pair, kind):
    """C22: byte for byte, to the end of the file and beyond, split and joined."""
    a, b = pair
    for worker in pair:
        worker("fd = opened('f')", kind=kind)
    a("lock(fd, 'x', kind, start=10, length=10)")
    assert b("refused(fd, 's', kind, start=19, length=5)")
    assert b("refused(fd, 's', kind)")
    assert not b("refused(fd, 'x', kind, start=20)")
    assert not b("refused(fd, 'x', kind, start=0, length=10)")
    assert a("refused(fd, 's', kind, start=1 << 40, length=1)")
    a("lock(fd, 'u', kind, start=12, length=2)")
    assert not b("refused(fd, 'x', kind, start=12, length=2)")
    assert b("refused(fd, 'x', kind, start=14, length=1)")
    got = b("struct.unpack('hhqqi4x', fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('hhqqi4x', 1, 0, 14, 1, 0)))")
    assert got[:4] == (1, 0, 14, 6) or kind == "ofd"


@pytest.mark.parametrize("kind", WAITING_KINDS)
def test_waits_for_its_turn(pair, hosts, kind):
    """C22: a blocking wait ends when the holder lets go, on the same host and on the other."""
    third = worker_of(hosts[0])
    a, b = pair
    for worker in (a, b, third):
        worker("fd = opened('f')", kind=kind)
    a("lock(fd, 'x', kind)")
    for waiting in (b, third):
        waiting.start("lock(fd, 'x', kind, wait=True)")
        assert waiting.is_waiting(0.3)
    a("lock(fd, 'u', kind)")
    first, second = (b, third) if eventually(lambda: not b.is_waiting(0.01) or not third.is_waiting(0.01)) and not b.is_waiting(0.01) else (third, b)
    first.finish()
    assert second.is_waiting(0.3)
    first("lock(fd, 'u', kind)")
    second.finish()


@pytest.mark.parametrize("kind", WAITING_KINDS)
def test_a_signal_ends_the_wait(pair, kind):
    """C22: on both hosts, and the lock is nobody's by mistake afterwards."""
    a, b = pair
    for worker in pair:
        worker("fd = opened('f')", kind=kind)
    a("lock(fd, 'x', kind)")
    b(
        """
class Alarm(Exception):
    pass
def ring(number, frame):
    raise Alarm()
signal.signal(signal.SIGALRM, ring)
"""
    )
    b.start(
        """
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    lock(fd, 'x', kind, wait=True)
    result = "got it"
except Alarm:
    result = "interrupted"
"""
    )
    assert b.finish() == "interrupted"
    a("lock(fd, 'u', kind)")
    assert not a("refused(fd, 'x', kind)")
    a("lock(fd, 'u', kind)")
    assert not b("refused(fd, 'x', kind)")


@pytest.mark.parametrize("kind", WAITING_KINDS)
def test_killed_holder(pair, hosts, kind):
    """C22, C19: kill -9 of the holder, and of one who waits: the next one gets it within 1 s."""
    doomed = worker_of(hosts[1])
    a, b = pair
    for worker in (a, b, doomed):
        worker("fd = opened('f')", kind=kind)
    a("lock(fd, 'x', kind)")
    for waiting in (doomed, b):
        waiting.start("lock(fd, 'x', kind, wait=True); result = time.monotonic()")
        assert waiting.is_waiting()
    doomed.kill()
    killed = time.monotonic()
    a.kill()
    assert b.finish() - killed < 1 * SLOWNESS


@pytest.mark.parametrize("kind", WAITING_KINDS)
def test_killed_daemon(pair, hosts, kind):
    """C22: its locks end with it."""
    a, b = pair
    for worker in pair:
        worker("fd = opened('f')", kind=kind)
    a("lock(fd, 'x', kind)")
    b.start("lock(fd, 'x', kind, wait=True)")
    assert b.is_waiting()
    hosts[0].kill_daemon()
    b.finish()
    hosts[0].umount("-l")
    hosts[0].mount()


def test_inherited(pair):
    """C22: a flock(2) lock lives as long as any copy of its descriptor; an fcntl(2) lock is its process's alone."""
    a, b = pair
    a(
        """
fd = opened('f')
lock(fd, 'x', 'flock')
ends = os.pipe()
child = os.fork()
if child == 0:
    os.close(ends[1])
    os.read(ends[0], 1)
    os._exit(0)
os.close(ends[0])
os.close(fd)
"""
    )
    b("fd = opened('f')")
    time.sleep(0.2)
    assert b("refused(fd, 'x', 'flock')")
    a("os.close(ends[1]); os.waitpid(child, 0)")
    assert eventually(lambda: not b("refused(fd, 'x', 'flock')"))
    b("lock(fd, 'u', 'flock')")
    a("fd = opened('f'); lock(fd, 'x', 'fcntl'); os.close(os.open('f', os.O_RDONLY))")
    assert not b("refused(fd, 'x', 'fcntl')")


@pytest.mark.parametrize("kind", KINDS)
def test_from_all_versions(pair, hosts, source, kind):
    """C22: whoever opens the name after a commit, by rename(2) or by a rewrite, is excluded by who locked it before."""
    a, b = pair
    for worker in pair:
        worker("put('f', b'one'); fd = opened('f')", kind=kind)
    a("lock(fd, 'x', kind)")
    hosts[1].write("f", b"two")
    assert b("refused(opened('f'), 'x', kind)")
    hosts[1]("put('t', b'three'); os.rename('t', 'f')")
    assert b("refused(opened('f'), 'x', kind)")
    assert a("refused(os.open('f', os.O_RDWR), 'x', 'flock' if kind == 'flock' else 'ofd')")
    a("lock(fd, 'u', kind)")
    assert not b("refused(fd, 'x', kind)")
    assert b("os.pread(fd, 9, 0)") == b"three"


@pytest.mark.parametrize("kind", KINDS)
def test_release_commits_and_acquire_moves(pair, source, kind):
    """C6: writers that truncate, readers that lock: each sees what was unlocked last, through the handle it has."""
    a, b = pair
    a("put('f', b'one')", kind=kind)
    b("fd = os.open('f', os.O_RDONLY); first = os.read(fd, 99)", kind=kind)
    for number in (b"second", b"3", b"the fourth"):
        a("w = os.open('f', os.O_RDWR | os.O_TRUNC); lock(w, 'x', kind); os.write(w, data)", data=number)
        assert b("os.pread(fd, 99, 0)") != number
        a("lock(w, 'u', kind)")
        b("lock(fd, 's', kind)")
        assert b("os.pread(fd, 99, 0), os.fstat(fd).st_size") == (number, len(number))
        b("lock(fd, 'u', kind)")
        a("os.close(w)")
        with open(source + "/f", "rb") as f:
            assert f.read() == number


@pytest.mark.parametrize("kind", KINDS)
def test_creators_handle_goes_on(pair, source, kind):
    """C6: one who made the file with O_TRUNC and keeps it open adds to what others have added under the lock, as
    Python's mailbox does."""
    a, b = pair
    a("fd = opened('f', os.O_RDWR | os.O_CREAT | os.O_TRUNC)", kind=kind)
    a("lock(fd, 'x', kind); os.write(fd, b'1'); lock(fd, 'u', kind)")
    b("fd = os.open('f', os.O_RDWR)", kind=kind)
    for number in range(2, 8):
        worker = (a, b)[number % 2]
        worker("lock(fd, 'x', kind); os.lseek(fd, 0, 2); os.write(fd, b'%d' % n); lock(fd, 'u', kind)", n=number)
    with open(source + "/f", "rb") as f:
        assert f.read() == b"1234567"


@pytest.mark.parametrize("kind", KINDS)
def test_two_creators_in_turn(pair, source, kind):
    """C6, C8: both have asked for a new, empty file before either has the lock, as two of Python's mailboxes do: who
    comes second adds to what the first has made."""
    for worker in pair:
        worker("fd = opened('f', os.O_RDWR | os.O_CREAT | os.O_TRUNC)", kind=kind)
    pair[0]("lock(fd, 'x', kind); os.write(fd, b'0')")
    pair[1]("refused(fd, 'x', kind) and lock(fd, 'u', kind)")
    pair[0]("lock(fd, 'u', kind)")
    pair[1]("lock(fd, 'u', kind)")
    for number in range(1, 8):
        pair[number % 2]("lock(fd, 'x', kind); os.lseek(fd, 0, 2); os.write(fd, b'%d' % n); lock(fd, 'u', kind)", n=number)
    with open(source + "/f", "rb") as f:
        assert f.read() == b"01234567"


@pytest.mark.parametrize("kind", KINDS)
def test_two_writers_in_turn(pair, source, kind):
    """C9: who opened with "w", waited for the lock and begins at the beginning writes the whole file."""
    for worker in pair:
        worker("fd = opened('f', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)", kind=kind)
    for worker, data in zip(pair, (b"the long first one", b"second")):
        worker("lock(fd, 'x', kind); os.write(fd, data); lock(fd, 'u', kind); os.close(fd)", data=data)
        with open(source + "/f", "rb") as f:
            assert f.read() == data


@pytest.mark.parametrize("kind", KINDS)
def test_second_creator_that_cuts_first(pair, source, kind):
    """C10: it has seen what the first has made, so its write at the beginning after that is an edit."""
    a, b = pair
    for worker in pair:
        worker("fd = opened('f', os.O_RDWR | os.O_CREAT | os.O_TRUNC)", kind=kind)
    a("lock(fd, 'x', kind); os.write(fd, b'0123456789'); lock(fd, 'u', kind); os.close(fd)")
    b("lock(fd, 'x', kind); os.ftruncate(fd, 5); os.pwrite(fd, b'x', 0); lock(fd, 'u', kind); os.close(fd)")
    with open(source + "/f", "rb") as f:
        assert f.read() == b"x1234"


def test_nothing_but_new_replaces_nothing(pair, source):
    """C8: a file that was new when it was opened, and is still empty at the close, is not put over what others made."""
    a, b = pair
    a("fd = opened('f', os.O_WRONLY | os.O_CREAT | os.O_TRUNC); os.ftruncate(fd, 0); os.fchmod(fd, 0o600)")
    b("put('f', b'data')")
    a("os.close(fd)")
    with open(source + "/f", "rb") as f:
        assert f.read() == a("get('f')") == b"data"


def test_new_and_locked_is_published_whole(pair):
    """C22, C9: open(2) with O_TRUNC and a lock, as h5py's "w": nobody sees it before the lock is released."""
    a, b = pair
    a("fd = opened('f', os.O_RDWR | os.O_CREAT | os.O_TRUNC); lock(fd, 'x', 'flock'); os.write(fd, b'half')")
    assert b("os.path.exists('f')") is False
    a("os.write(fd, b' and all'); os.close(fd)")
    assert b("get('f')") == b"half and all"


@pytest.mark.parametrize("kind", KINDS)
def test_in_place(pair, source, kind):
    """C22: locked before its first write, a handle writes the source itself: at once, and the inode stays."""
    a, b = pair
    a("put('f', b'0123456789')", kind=kind)
    inode = os.stat(source + "/f").st_ino
    a("fd = os.open('f', os.O_RDWR); lock(fd, 'x', kind); os.pwrite(fd, b'AB', 2)")
    with open(source + "/f", "rb") as f:
        assert f.read() == b"01AB456789"
    assert b("get('f')") == b"01AB456789"
    a("os.ftruncate(fd, 5); os.pwrite(fd, b'Z', 7)")
    assert a("os.fstat(fd).st_size, os.pread(fd, 99, 0)") == (8, b"01AB4\0\0Z")
    assert b("get('f')") == b"01AB4\0\0Z"
    a("os.close(fd)")
    assert os.stat(source + "/f").st_ino == inode
    assert b("get('f')") == b"01AB4\0\0Z"


def test_in_place_handles_see_each_other(pair, hosts):
    """C22: programs of one host that have a file in place read what the others write, as from one cache."""
    other = worker_of(hosts[0])
    a = pair[0]
    a("put('f', b'a' * 8192)")
    for worker in (a, other):
        worker("fd = os.open('f', os.O_RDWR); lock(fd, 's', 'fcntl', start=100, length=1)")
        assert worker("os.pread(fd, 10, 4090)") == b"a" * 10
    a("os.pwrite(fd, b'BBBB', 4094)")
    assert eventually(lambda: other("os.pread(fd, 10, 4090)") == b"aaaaBBBBaa")
    other("os.pwrite(fd, b'CC', 4095)")
    assert eventually(lambda: a("os.pread(fd, 10, 4090)") == b"aaaaBCCBaa")


COUNT = """
def count(name, kind, rounds):
    for _ in range(rounds):
        fd = opened(name)
        lock(fd, 'x', kind, wait=True)
        value = int(os.read(fd, 100) or b'0') + 1
        os.lseek(fd, 0, 0)
        os.ftruncate(fd, 0)
        os.write(fd, b'%d' % value)
        os.close(fd)
"""


@pytest.mark.limit(150)
@pytest.mark.parametrize("kind", KINDS)
def test_counters(hosts, source, kind):
    """C22: 2 x 3 programs add to a number in a file, each under its lock: none is lost."""
    workers = [worker_of(host) for host in hosts for _ in range(3)]
    for worker in workers:
        worker(COUNT)
        worker.start("count('number', kind, 40)", kind=kind)
    for worker in workers:
        worker.finish(120)
    with open(source + "/number", "rb") as f:
        assert f.read() == b"240"


@pytest.mark.limit(150)
def test_counters_rewritten(hosts, source):
    """C6: the same with "w" under a lock on the reader's handle: the commit is inside the unlock."""
    code = """
def count(rounds):
    for _ in range(rounds):
        guard = os.open('guard', os.O_RDWR | os.O_CREAT)
        fcntl.flock(guard, fcntl.LOCK_EX)
        value = int(get('number')) + 1
        put('number', b'%d' % value)
        os.close(guard)
"""
    hosts[0].write("number", b"0")
    workers = [worker_of(host) for host in hosts for _ in range(3)]
    for worker in workers:
        worker(code)
        worker.start("count(40)")
    for worker in workers:
        worker.finish(120)
    with open(source + "/number", "rb") as f:
        assert f.read() == b"240"


@pytest.mark.limit(150)
def test_sqlite(hosts, source):
    """C22: a database that no `through=` names, of two hosts and four programs: every transaction counts."""
    code = """
import sqlite3
def add(rounds):
    db = sqlite3.connect('data', timeout=60, isolation_level=None)
    for _ in range(rounds):
        db.execute('BEGIN IMMEDIATE')
        db.execute('UPDATE t SET n = n + 1')
        db.execute('COMMIT')
    db.close()
"""
    lab = hosts[0].lab
    program = (
        "import sqlite3; db = sqlite3.connect('data'); db.execute('CREATE TABLE t (n)'); "
        "db.execute('INSERT INTO t VALUES (0)'); db.commit()"
    )
    hosts[0].run(["/usr/bin/python3", "-c", program])
    processes = [
        host.popen(["/usr/bin/python3", "-c", code + "add(25)"]) for host in hosts for _ in range(2)
    ]
    assert [process.wait(timeout=120 * SLOWNESS) for process in processes] == [0] * 4, lab
    check = "import sqlite3; print(sqlite3.connect('data').execute('SELECT n FROM t').fetchall(), sqlite3.connect('data').execute('PRAGMA integrity_check').fetchall())"
    for host in hosts:
        assert host.run(["/usr/bin/python3", "-c", check]).stdout == "[(100,)] [('ok',)]\n"


@pytest.mark.limit(120)
def test_nobody_starves(pair):
    """C22: a program that locks again as soon as it has unlocked, and one of another host that waits."""
    a, b = pair
    for worker in pair:
        worker("fd = opened('f')")
    a.start(
        """
until = time.monotonic() + 30
rounds = 0
while time.monotonic() < until and not os.path.exists('stop'):
    lock(fd, 'x', 'flock', wait=True)
    time.sleep(0.002)
    lock(fd, 'u', 'flock')
    rounds += 1
result = rounds
"""
    )
    b(
        """
for _ in range(5):
    time.sleep(0.1)
    lock(fd, 'x', 'flock', wait=True)
    lock(fd, 'u', 'flock')
put('stop', b'')
"""
    )
    assert a.finish() >= 1


@pytest.mark.limit(120)
def test_hundreds_wait(pair, hosts):
    """C22: 500 wait for one lock and keep nobody from being served; then each has it once."""
    a, b = pair
    a("fd = opened('f'); lock(fd, 'x', 'flock')")
    b(
        """
children = []
for _ in range(500):
    child = os.fork()
    if child == 0:
        fd = opened('f')
        fcntl.flock(fd, fcntl.LOCK_EX)
        log = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, b'%d begins\\n' % os.getpid())
        os.write(log, b'%d ends\\n' % os.getpid())
        os._exit(0)
    children.append(child)
result = len(children)
"""
    )
    texts = lambda: b("os.getxattr('.', 'user.safewritefs.locks')")
    assert eventually(lambda: texts().count(b" waiting ") == 500, 30)
    threads = len(os.listdir("/proc/%d/task" % hosts[1].daemon.target))
    assert threads < 60, "%d threads" % threads
    hosts[1].write("other", b"served")
    a("lock(fd, 'u', 'flock')")
    b("[os.waitpid(child, 0)[1] for child in children]")
    lines = b("get('log')").split()
    assert len(lines) == 2000
    assert all(lines[i] == lines[i + 2] and lines[i + 1] == b"begins" for i in range(0, 2000, 4))


def test_deadlock(pair, hosts):
    """C22: two programs of one host that wait for each other: one is told so."""
    a, b = worker_of(hosts[0]), worker_of(hosts[0])
    for number, worker in enumerate((a, b)):
        worker("f, g = opened('f'), opened('g')")
        worker("lock((f, g)[%d], 'x', 'fcntl')" % number)
    a.start("error(lock, g, 'x', 'fcntl', wait=True)")
    assert a.is_waiting(0.3)
    assert b("error(lock, f, 'x', 'fcntl', wait=True)") in ("EDEADLK", "EDEADLOCK")
    b("lock(g, 'u', 'fcntl')")
    assert a.finish() is None


def test_removed_and_moved(pair):
    """C22: a lock goes with its file: not to a new one of the old name, but along when the file is renamed."""
    a, b = pair
    a("fd = opened('f'); lock(fd, 'x', 'flock'); os.unlink('f')")
    assert not b("refused(opened('f'), 'x', 'flock')")
    a("fd = opened('g'); lock(fd, 'x', 'flock'); os.rename('g', 'h')")
    assert b("refused(opened('h'), 'x', 'flock')")
    assert not b("refused(opened('g'), 'x', 'flock')")
    a("os.close(fd)")
    assert eventually(lambda: not b("refused(opened('h'), 'x', 'flock')"))


@pytest.mark.options("lease=2")
@pytest.mark.expect_log("taken for dead|given up|fenced|rejoin")
def test_fenced_in_place(pair, hosts, source):
    """C21: a host that was frozen for longer than its lease does not write in place any more, until it locks anew."""
    a, b = pair
    a("put('f', b'old old old'); fd = os.open('f', os.O_RDWR); lock(fd, 'x', 'flock'); os.pwrite(fd, b'1', 0)")
    places = source + "/.safewritefs/hosts/"
    frozen = [name for name in os.listdir(places) if name.startswith("alpha")][0]
    with Frozen(hosts[0]):
        a.start("error(os.pwrite, fd, b'late', 4)")
        assert eventually(lambda: not os.path.exists(places + frozen), 20)
    assert a.finish() == "ESTALE"
    assert b("get('f')") == b"1ld old old"
    a("os.close(fd); fd = os.open('f', os.O_RDWR); lock(fd, 'x', 'flock'); os.pwrite(fd, b'new', 4)")
    assert b("get('f')") == b"1ld new old"


def test_what_is_held(pair, hosts):
    """C22: the mount tells root, and nobody else, what is locked through it."""
    a, b = pair
    a("os.mkdir('d'); fd = opened('d/a file'); lock(fd, 'x', 'fcntl', start=5, length=3)")
    line = hosts[0]("os.getxattr('.', 'user.safewritefs.locks')").decode().split()
    assert line[:5] == ["fcntl", "write", "held", "5", "7"]
    assert line[-2:] == ["d/a", "file"]
    assert hosts[1]("os.getxattr('.', 'user.safewritefs.locks')") == b""
    user = hosts[0].worker(uid=1000, gid=1000)
    assert user("error(os.getxattr, '.', 'user.safewritefs.locks')") == "ENODATA"
