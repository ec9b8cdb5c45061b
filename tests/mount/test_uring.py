# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that come through io_uring (docs/design.md, "Requests through io_uring"): what threads and slots could get
wrong.  `tests/run-all uring` has the kernel offer it, and runs other mounted tests so, too."""

import json
import os
import subprocess
import time

import pytest
from background import Background
from harness import SLOWNESS, eventually, read_text
from test_upgrade import ask

ENABLED = "/sys/module/fuse/parameters/enable_uring"


def is_offered():
    return os.path.exists(ENABLED) and read_text(ENABLED).strip() == "Y"


def told(host):
    return host("os.getxattr('.', 'user.safewritefs.io-uring').decode()")


def used_or_skip(host):
    if not is_offered():
        pytest.skip("the kernel does not offer io_uring")
    assert told(host) == "used"
    return host


@pytest.fixture
def host(lab, source):
    return used_or_skip(lab.host(source, "alpha"))


@pytest.fixture
def two(lab, source):
    return [used_or_skip(host) for host in lab.pair(source)]


def threads_of(host):
    return ["/proc/%d/task/%s" % (host.daemon.target, task) for task in os.listdir("/proc/%d/task" % host.daemon.target)]


def seats(host):
    return [task for task in threads_of(host) if read_text(task + "/comm").strip() == "seat"]


def test_is_told(lab, source):
    """What is used, and why it is not: in `status` as well."""
    host = used_or_skip(lab.host(source, "alpha", namespaces=False))
    other = lab.host(source, "beta", "io-uring=off", namespaces=False)
    (found,) = json.loads(lab.ctl("status", "--json", source).stdout)
    by_place = {mount["mountpoint"]: mount["io_uring"] for mount in found["mounts"]}
    assert by_place[host.mnt] == "used" and by_place[other.mnt] == "not used: io-uring=off"
    assert ", io_uring used\n" in lab.ctl("status", source).stdout
    host.write("f", b"through it")
    assert other.read("f") == b"through it"


def test_falls_back(lab, source):
    """Where the kernel does not offer it all works as ever, and that is told."""
    if is_offered():
        pytest.skip("the kernel offers io_uring")
    host = lab.host(source, "alpha")
    assert told(host).startswith("not used: the kernel does not offer it")
    host.write("f", b"from /dev/fuse")
    assert host.read("f") == b"from /dev/fuse"


def test_no_memory(lab, source):
    """Slots take address space; where there is too little requests come from /dev/fuse, and that is told."""
    if not is_offered() or SLOWNESS > 1:
        pytest.skip("the kernel does not offer io_uring, or a sanitizer needs the address space itself")
    daemon = os.path.join(lab.directory, "daemon")
    with open(daemon, "w") as script:
        script.write('#!/bin/sh\nulimit -v 600000\nexec %s "$@"\n' % lab.daemon)
    os.chmod(daemon, 0o755)
    lab.daemon = daemon
    host = lab.host(source, "alpha")
    assert told(host) == "not used: Cannot allocate memory"
    host.write("f", b"data")
    assert host.read("f") == b"data"


def test_requests_come_so(host):
    """And not from /dev/fuse, where only what is forgotten or interrupted comes from."""
    readers = [task for task in threads_of(host) if task not in seats(host)]
    before = [read_text(task + "/status").split("\nvoluntary_ctxt_switches:")[1].split()[0] for task in readers]
    host("[put('f', b'x' * i) for i in range(300)] and None")
    assert len(seats(host)) > 0
    after = [read_text(task + "/status").split("\nvoluntary_ctxt_switches:")[1].split()[0] for task in readers]
    for task, n, later in zip(readers, before, after):
        if read_text(task + "/comm").strip() == "safewritefs":
            assert int(later) - int(n) < 300, task


MANY = """
import fcntl
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one processor, so one queue of slots
def waiter(kind):
    child = os.fork()
    if child:
        return child
    try:
        fd = os.open('lock', os.O_RDWR)
        (fcntl.flock if kind == 'flock' else fcntl.lockf)(fd, fcntl.LOCK_EX)
        log = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, b'x')
    finally:
        os._exit(0)
"""

WAITING = "sum(get('/proc/%d/wchan' % child) == b'request_wait_answer' for child in children)"


@pytest.mark.limit(120)
@pytest.mark.parametrize("kind", ("flock", "fcntl"))
def test_more_wait_than_there_are_slots(host, kind):
    """C22, C24: 1,300 programs on one processor wait for a lock; others there are served, some are killed, and when it
    is given back all have it."""
    n = int(1300 / SLOWNESS)
    host.write("lock", b"")
    worker = host.worker()
    worker(MANY)
    host.write("other", b"")
    holder = host.worker()
    holder("import fcntl; fd = os.open('lock', os.O_RDWR)")
    holder("(fcntl.flock if kind == 'flock' else fcntl.lockf)(fd, fcntl.LOCK_EX)", kind=kind)
    worker("children = [waiter(kind) for _ in range(n)]", kind=kind, n=n)
    assert eventually(lambda: worker(WAITING) == n, 60)
    began = time.monotonic()
    worker("put('other', b'served')")
    assert time.monotonic() - began < 2 * SLOWNESS
    worker("[os.kill(child, 9) for child in children[:50]]; [os.waitpid(child, 0) for child in children[:50]]; None")
    assert time.monotonic() - began < 10 * SLOWNESS
    holder("os.close(fd)")
    worker("[os.waitpid(child, 0)[1] for child in children[50:]] and None")
    assert host.read("log") == b"x" * (n - 50)


def test_threads_end_again(host):
    """Requests that are put off, or come all at once, leave no more threads than can be of use."""
    host("import threading; [t.start() or t for t in [threading.Thread(target=put, args=('f%d' % i, b'x')) "
         "for i in range(200)]] and None")
    assert eventually(lambda: len(seats(host)) < 100)
    assert eventually(lambda: all(host.exists("f%d" % i) for i in range(200)))


def test_memory_goes_back(lab, source):
    """After large writes and reads, within 10 s in which nothing comes."""
    host = used_or_skip(lab.host(source, "alpha", "passthrough=off"))
    at_once = "import threading; threads = [threading.Thread(target=%s) for i in range(24)]; "
    at_once += "[t.start() for t in threads]; [t.join() for t in threads]; None"
    host(at_once % "put, args=('h%d' % i, b'x' * 4096)")
    before = host.resident()
    host(at_once % "put, args=('h%d' % i, b'x' * (8 << 20))")
    host(at_once % "get, args=('h%d' % i,)")
    assert eventually(lambda: host.resident() < before + (12 << 10), 40), (before, host.resident())


def stages_of(source):
    """What is staged there, past all mounts."""
    for place, _, names in os.walk(source + "/.safewritefs"):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                yield file.read()


@pytest.mark.parametrize("size", (4096, 120 << 10))
def test_data_of_a_killed_writer(lab, size):
    """C1, C24: while the source hangs, a killed writer's write may still read what it was given.  That stays as it is: the
    answers of other requests do not get into the file, which another process goes on with."""
    source = lab.loop_source("ext4", 64 << 20)
    host = used_or_skip(lab.host(source, "alpha"))
    host.write("z", b"Z" * (120 << 10))
    writer = host.worker()
    writer("fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); os.write(fd, b'start'.ljust(4096)); None")
    subprocess.run(["fsfreeze", "-f", source], check=True)
    try:
        writer("child = os.fork()\nif child == 0:\n    os.write(fd, b'A' * size)\n    os._exit(0)", size=size)
        time.sleep(0.5)
        writer("os.kill(child, 9)")
        time.sleep(1)
        for _ in range(40):
            host("fd = os.open('z', os.O_RDONLY); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); "
                 "n = len(os.pread(fd, 1 << 20, 0)); os.close(fd)")
    finally:
        subprocess.run(["fsfreeze", "-u", source], check=True)
    writer("os.waitpid(child, 0)")
    staged = lambda: [data for data in stages_of(source) if data.startswith(b"start")]
    assert eventually(lambda: staged() == [b"start".ljust(4096) + b"A" * size]), [data[-9:] for data in staged()]


def test_programs_do_not_wait_for_one_close(lab):
    """C24: while a close waits for the source, what others do elsewhere is not kept waiting by its thread."""
    source = lab.loop_source("ext4", 64 << 20)
    other = lab.source("other")
    slow, quick = used_or_skip(lab.host(source, "alpha")), used_or_skip(lab.host(other, "beta"))
    waiting = slow.worker()
    waiting("fd = os.open('f', REPLACE, 0o644); os.write(fd, b'x')")
    slow.write("cached", b"cached")
    subprocess.run(["fsfreeze", "-f", source], check=True)
    try:
        waiting.start("os.close(fd)")
        time.sleep(0.3)
        began = time.monotonic()
        for _ in range(50):
            assert slow.read("cached") == b"cached"
            quick.write("g", b"y")
        assert time.monotonic() - began < 5 * SLOWNESS
        assert waiting.is_waiting()
    finally:
        subprocess.run(["fsfreeze", "-u", source], check=True)
    waiting.finish()
    assert slow.read("f") == b"x"


def test_is_not_handed_on(lab, source):
    """An upgrade in place is refused with the reason, and the mount goes on."""
    host = lab.host(source, "alpha", mount=False)
    background = Background(host, "lease=8")
    try:
        used_or_skip(host)
        done = ask(host)
        assert done.returncode != 0 and "io_uring" in done.stderr and "io-uring=off" in done.stderr
        host.write("f", b"goes on")
        assert host.read("f") == b"goes on"
    finally:
        background.end()


def test_both_hosts(two):
    """C1, C2, C10: versions are whole, and seen at once, whichever thread answers."""
    a, b = two
    versions = [b"%d" % i * 3000 for i in range(10)]
    a.write("f", versions[0])
    reader = b.reader("f", versions)
    for _ in range(20):
        for version in versions:
            a.write("f", version)
            assert b.read("f") == version
    assert set(reader.stop()) <= set(range(10))
