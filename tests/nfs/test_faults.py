# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that are cut off, frozen, switched off, and a server that goes away, in the middle of writes and locks."""
import os
import time

import pytest
from harness import SLOWNESS, eventually

LEASE = 6
OLD = b"the version before, whole " * 2000
NEW = b"the version after, whole " * 3000


def inside(lab, place):
    return "/disk/%s/%s/.safewritefs/%s" % (lab.export, lab.sources[0].rsplit("/", 1)[1], place)


def names(lab, place):
    return lab.rig.server.run(["ls", inside(lab, place)]).stdout.split()


def host_id(lab, host):
    return [name for name in names(lab, "hosts") if name.split(".")[0] == host.hostname][0]


def is_buried(lab, identity):
    return lambda: identity not in names(lab, "hosts")


@pytest.mark.limit(60)
@pytest.mark.options("lease=%d" % LEASE)
@pytest.mark.expect_log("rejoined|cannot|not responding|silent|renew|warning")
@pytest.mark.parametrize("how", ["cut off", "frozen"])
def test_a_host_that_was_away(hosts, lab, how):
    """C20, C21: away for longer than its lease it publishes nothing it staged before, and its lock is another's; what it
    had synced is in salvage; it goes on as another host."""
    a, b = hosts
    a.write("f", OLD)
    writer, idle = a.worker(), a.worker()
    writer("fd = os.open('f', REPLACE); write_all(fd, data); os.fsync(fd)", data=NEW)
    idle("lock = os.open('x.lock', os.O_WRONLY | os.O_CREAT | os.O_EXCL)")
    was = host_id(lab, a)
    lab.leftovers_expected = True
    began = time.monotonic()
    if how == "frozen":
        a.vm.freeze()
    else:
        lab.rig.cut(a.vm.name)
    assert eventually(is_buried(lab, was), LEASE * 2)
    taken = b.error("os.mkdir", "x.lock")
    assert taken is None, taken
    seconds = time.monotonic() - began
    b.write("f", b"the successor's")
    if how == "frozen":
        a.vm.thaw()
    else:
        lab.rig.heal(a.vm.name)
    assert writer("error(os.close, fd)") == "ESTALE"
    assert b.read("f") == a.read("f") == b"the successor's"
    assert NEW in lab.salvaged(a.source, "f")
    a.write("g", NEW)
    assert b.read("g") == NEW
    print("%s: its lock was another's after %.1f s" % (how, seconds))


@pytest.mark.limit(60)
@pytest.mark.options("lease=%d" % LEASE)
@pytest.mark.expect_log("rejoined|cannot|not responding|silent|renew|warning")
def test_a_late_rename(hosts, lab):
    """C21, F23: the call that publishes reaches the server after the break: it finds nothing to publish."""
    a, b = hosts
    a.write("f", OLD)
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); write_all(fd, data)", data=NEW)
    was = host_id(lab, a)
    lab.leftovers_expected = True
    lab.rig.cut_at(a.vm.name, "RENAME")
    writer.start("error(os.close, fd)")
    assert eventually(lambda: lab.rig.is_cut(a.vm.name), 10)
    assert eventually(is_buried(lab, was), LEASE * 2)
    b.write("f", b"the successor's")
    lab.rig.heal(a.vm.name)
    assert writer.finish() == "ESTALE"
    assert b.read("f") == a.read("f") == b"the successor's"


@pytest.mark.limit(90)
@pytest.mark.options("lease=60")
@pytest.mark.parametrize("operation", ["RENAME", "SYMLINK", "MKDIR", "LINK", "REMOVE"])
def test_a_lost_reply(hosts, lab, operation):
    """C13: the answer to a call is lost, and when it is sent again the server has been restarted and remembers nothing:
    the call has been done once, and says so."""
    a, b = hosts
    a.write("f", OLD)
    a.write("old", OLD)
    deed = {
        "RENAME": "put('f', data)",
        "SYMLINK": "os.symlink('target', 's')",
        "MKDIR": "os.mkdir('d')",
        "LINK": "os.link('f', 'l')",
        "REMOVE": "os.unlink('old')",
    }[operation]
    seen = operation
    if "vers=4" in lab.nfs_options and operation in ("SYMLINK", "MKDIR"):
        seen = "CREATE"
    worker = a.worker()
    worker("None")
    lab.rig.cut_at(a.vm.name, seen, "reply")
    worker.start("error(lambda: %s)" % deed, data=NEW)
    assert eventually(lambda: lab.rig.is_cut(a.vm.name), 10)
    time.sleep(1)
    lab.rig.restart_nfs()
    lab.rig.heal(a.vm.name)
    assert worker.finish(60) is None
    assert b.read("f") == (NEW if operation == "RENAME" else OLD)
    listed = {"SYMLINK": {"s"}, "MKDIR": {"d"}, "LINK": {"l"}}.get(operation, set())
    assert set(b.list()) == {"f", "old"} - ({"old"} if operation == "REMOVE" else set()) | listed


@pytest.mark.limit(90)
@pytest.mark.options("lease=%d" % LEASE)
@pytest.mark.expect_log("cannot|not responding|silent|renew|warning")
def test_a_server_that_is_away_breaks_nobody(hosts, lab):
    """C20, C23: the server is switched off for more than two leases: nobody is taken for dead, and everybody goes on."""
    a, b = hosts
    a.write("f", OLD)
    writer, idle = a.worker(), b.worker()
    writer("fd = os.open('f', REPLACE); write_all(fd, data)", data=NEW)
    idle("lock = os.open('x.lock', os.O_WRONLY | os.O_CREAT | os.O_EXCL)")
    before = set(names(lab, "hosts"))
    doomed = [host.worker() for host in hosts]
    for worker in doomed:
        worker("None")
    lab.rig.server.power_off()
    writer.start("error(os.close, fd)")
    for worker in doomed:
        worker.start("get('f')")
    time.sleep(LEASE)
    for worker in doomed:  # nor does it hold who is killed
        worker.process.end()
        worker.process.wait(timeout=20)
    time.sleep(LEASE * 1.5)
    lab.rig.server.power_on()
    assert writer.finish(60) is None
    assert b.read("f") == NEW
    assert a.error("os.mkdir", "x.lock") == "EEXIST"
    idle("os.close(lock); os.unlink('x.lock')")
    assert set(names(lab, "hosts")) == before


@pytest.mark.limit(60)
@pytest.mark.options("lease=%d" % LEASE)
def test_clocks_decide_nothing(hosts, lab):
    """C23: hours apart, and jumping while things are held."""
    a, b = hosts
    idle = a.worker()
    idle("lock = os.open('x.lock', os.O_WRONLY | os.O_CREAT | os.O_EXCL)")
    try:
        for hours in ("+5 hours", "-9 hours", "+4 hours"):
            a.vm.run(["date", "-s", hours], check=True)
            time.sleep(LEASE / 2)
        assert b.error("os.mkdir", "x.lock") == "EEXIST"
        a.write("f", NEW)
        assert b.read("f") == NEW
    finally:
        a.vm.run(["date", "-s", "@%d" % time.time()])
    idle("os.close(lock); os.unlink('x.lock')")
    assert b.error("os.mkdir", "x.lock") is None


@pytest.mark.limit(60)
@pytest.mark.options("lease=%d" % LEASE)
def test_a_machine_without_power(lab, source):
    """C19: its locks are free within the lease and 2 s (and what this slow machine adds), its stages are no versions."""
    a, b = lab.host(source, "alpha", "lease=%d" % LEASE), lab.host(source, "beta", "lease=%d" % LEASE)
    a.write("f", OLD)
    writer = a.worker()
    writer("fds = [os.open(name, REPLACE) for name in ('f', 'new')]", data=NEW)
    writer("[write_all(fd, data) for fd in fds]; os.fsync(fds[1])", data=NEW)
    # Of what it has read the server may believe that it still minds (a delegation of NFSv4).
    writer("os.mkdir('x.lock'); os.close(os.open('y.lock', os.O_RDWR | os.O_CREAT | os.O_EXCL)); open('y.lock').read()")
    a.gone = True
    try:
        a.vm.power_off()
        began = time.monotonic()
        assert eventually(lambda: b.error("os.mkdir", "x.lock") is None, LEASE)
        seconds = time.monotonic() - began
        assert seconds < (LEASE + 2) * SLOWNESS
        assert b.error("os.open", "y.lock", os.O_RDWR | os.O_CREAT | os.O_EXCL) is None
        assert b.read("f") == OLD and b.error("os.stat", "new") == "ENOENT"
        notes = lab.rig.server.run("cat %s/*.info" % inside(lab, "salvage")).stdout
        assert "path=new\nreason=fenced\n" in notes
        print("free after %.1f s" % seconds)
    finally:
        a.vm.power_on()
        lab.rig.known[a.vm.name] = a.vm.run("cd /proc; echo [0-9]*").stdout.split()
        a.processes = []
        a.daemon = None
