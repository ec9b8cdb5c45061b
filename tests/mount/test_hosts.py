# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that die, freeze and come back: heartbeat, watch, break, rejoin (C19 to C21)."""

import os
import time

import pytest
from harness import SLOWNESS, Frozen, eventually

LEASE = 2
GRACE = 2  # what the contract allows on top
REJOINED = "rejoined as host"


def host_id(source, hostname):
    """The id of the only mount of that host."""
    (found,) = [name for name in os.listdir(source + "/.safewritefs/hosts") if name.startswith(hostname + ".")]
    return found


def hosts_dir(source):
    return os.listdir(source + "/.safewritefs/hosts")


def is_gone(source, name, seconds=LEASE + GRACE):
    return eventually(lambda: name not in hosts_dir(source), seconds)


@pytest.fixture
def pair(lab, source):
    options = "lease=%d" % LEASE
    return lab.host(source, "alpha", options), lab.host(source, "beta", options)


def test_the_living_are_left_alone(pair, source):
    """C20: idle hosts, and one with an open stage, keep their ids for several leases."""
    a, b = pair
    before = sorted(hosts_dir(source))
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'slow')")
    time.sleep(3 * LEASE)
    assert sorted(hosts_dir(source)) == before
    writer("os.close(fd)")
    assert b.read("f") == b"slow"


@pytest.mark.expect_log(REJOINED)
def test_a_frozen_host_is_fenced(lab, pair, source):
    """C19, C21: the others go on within lease + 2 s; what the frozen one had staged is in salvage, its writers get
    ESTALE, its lock on a content is gone, and it goes on as a new host."""
    a, b = pair
    a.write("old", b"old version")
    a.write("log", b"1\n")
    writer, other = a.worker(), a.worker()
    writer("fd = os.open('old', REPLACE); os.write(fd, b'half of the'); os.fsync(fd)")
    other("fd = os.open('new', REPLACE | os.O_EXCL); os.write(fd, b'unfinished')")
    first = host_id(source, "alpha")
    with Frozen(a):
        frozen = time.monotonic()
        inode = os.stat(source + "/log").st_ino
        os.symlink(first + " 1 append 2 2 %d log" % inode, "%s/.safewritefs/leases/%016x" % (source, inode))
        appender = b.worker()
        appender("put('log', b'2\\n', flags=os.O_WRONLY | os.O_APPEND)")
        waited = time.monotonic() - frozen
        assert LEASE * 0.7 < waited < (LEASE + GRACE) * SLOWNESS, "went on after %.2f s" % waited
        assert is_gone(source, first, 1)
        assert b.read("log") == b"1\n2\n" and b.read("old") == b"old version"
        b.write("new", b"of beta")
    assert writer("error(os.write, fd, b' rest')") in ("ESTALE", None)  # nobody may have noticed yet
    assert eventually(lambda: REJOINED in a.log_text())
    for name, worker in (("old", writer), ("new", other)):
        assert worker("error(os.fsync, fd)") == "ESTALE", name
        assert worker("error(os.write, fd, b' rest')") == "ESTALE", name
        assert worker("error(os.close, fd)") == "ESTALE", name
    assert host_id(source, "alpha") != first
    for host in pair:
        assert host.read("old") == b"old version" and host.read("new") == b"of beta"
    salvaged = {entry["path"]: entry["reason"] for entry in lab.salvage(source)}
    assert salvaged == {"old": "fenced", "": "fenced"}  # only what was fsynced is known by name
    assert lab.salvaged(source, "old")[0].startswith(b"half of the")
    a.write("old", b"after it")
    a.write("third", b"as well")
    a("put('log', b'3\\n', flags=os.O_WRONLY | os.O_APPEND)")
    assert b.read("old") == b"after it" and b.read("third") == b"as well" and b.read("log") == b"1\n2\n3\n"


@pytest.mark.expect_log(REJOINED)
def test_a_commit_right_after_waking_fails(pair, source):
    """C21: closes that come in before anybody has noticed: each fails, none publishes."""
    a, b = pair
    workers = [a.worker() for _ in range(8)]
    for number, worker in enumerate(workers):
        worker("fd = os.open('f%d', REPLACE); os.write(fd, b'staged before')" % number)
    first = host_id(source, "alpha")
    with Frozen(a):
        for worker in workers:
            worker.start("error(os.close, fd)")
        assert is_gone(source, first)
    assert [worker.finish() for worker in workers] == ["ESTALE"] * len(workers)
    assert b.list() == [] and os.listdir(source) == [".safewritefs"]
    a.write("f0", b"new")
    assert b.read("f0") == b"new"


@pytest.mark.expect_log(REJOINED)
def test_creates_right_after_waking_work(pair, source):
    """C21: it rejoins by itself, and new files do not wait for that."""
    a, b = pair
    a.write("f", b"before")
    first = host_id(source, "alpha")
    with Frozen(a):
        workers = [a.worker() for _ in range(4)]
        for number, worker in enumerate(workers):
            worker.start("put('n%d', b'made while frozen')" % number)
        assert is_gone(source, first)
    for number, worker in enumerate(workers):
        worker.finish()
        assert b.read("n%d" % number) == b"made while frozen"
    assert eventually(lambda: REJOINED in a.log_text())


@pytest.mark.expect_log(REJOINED)
def test_an_unwritten_handle_survives(pair, source):
    """C21: who had only opened the file for an edit has lost nothing, and goes on."""
    a, b = pair
    a.write("f", b"....")
    writer = a.worker()
    writer("fd = os.open('f', os.O_RDWR)")
    first = host_id(source, "alpha")
    with Frozen(a):
        assert is_gone(source, first)
    assert eventually(lambda: REJOINED in a.log_text())
    writer("os.pwrite(fd, b'EDIT', 0); os.close(fd)")
    assert b.read("f") == b"EDIT"


def test_a_short_freeze_harms_nobody(pair, source):
    """C20: half a lease is no death."""
    a, b = pair
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'whole')")
    first = host_id(source, "alpha")
    for _ in range(3):
        with Frozen(a):
            time.sleep(LEASE * 0.5)
        time.sleep(LEASE * 0.5)
    assert host_id(source, "alpha") == first
    writer("os.close(fd)")
    assert b.read("f") == b"whole"


def test_a_killed_daemon_is_buried_by_its_neighbour(lab, pair, source):
    """C19: kill -9 of the daemon: the other mount of the machine cleans up, without anybody waiting for anything."""
    a, b = pair
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'unfinished')")
    dead = host_id(source, "alpha")
    a.kill_daemon()
    assert is_gone(source, dead, LEASE)
    assert [entry["reason"] for entry in lab.salvage(source, "")] == ["crashed"]
    assert os.listdir(source + "/.safewritefs/leases") == []
    b.write("f", b"goes on")


@pytest.mark.expect_log(REJOINED)
def test_both_frozen_in_turn(pair, source):
    """C21: a breaker is no better off than anybody else."""
    a, b = pair
    for number, (frozen, awake) in enumerate(((a, b), (b, a), (a, b))):
        before = host_id(source, frozen.hostname)
        with Frozen(frozen):
            assert is_gone(source, before, LEASE + GRACE + 1)
        assert eventually(lambda: host_id_or_none(source, frozen.hostname) not in (None, before), LEASE)
        frozen.write("f%d" % number, b"new")
        assert awake.read("f%d" % number) == b"new"


def host_id_or_none(source, hostname):
    found = [name for name in hosts_dir(source) if name.startswith(hostname + ".")]
    return found[0] if found else None


@pytest.mark.expect_log(REJOINED)
def test_an_unmount_while_fenced(pair, source):
    """C21, C24: a host that wakes to its own unmount leaves nothing behind."""
    a, b = pair
    first = host_id(source, "alpha")
    with Frozen(a):
        assert is_gone(source, first)
    a.end_processes()
    a.umount()
    assert a.daemon.wait(timeout=10) == 0
    a.gone = True
    assert [name for name in hosts_dir(source) if name.startswith("alpha.")] == []
    b.write("f", b"goes on")
