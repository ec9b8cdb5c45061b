# SPDX-License-Identifier: GPL-2.0-or-later
"""safewritectl hosts, stages and clean: who is there, what is being written, and how it all goes away."""

import json
import os
import subprocess
import time

import pytest
from harness import CTL, SLOWNESS, Frozen, eventually
from test_ctl import GONE, control, documented, look, make_host, names_in

LEASE = 2


# ---- hosts


@pytest.mark.expect_log("rejoined")
@pytest.mark.options("lease=%d" % LEASE)
def test_hosts(lab, hosts, source):
    """P18: whose counter moves while it is watched is seen to beat; who is frozen, dead or forged is not."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'12345')")
    with Frozen(b):
        found = look(lab, "hosts", "--json", source)
    assert names_in(found) == documented("hosts")
    by_name = {host["hostname"]: host for host in found["hosts"]}
    assert sorted(by_name) == ["alpha", "beta"] and found["source"] == source
    alpha, beta = by_name["alpha"], by_name["beta"]
    assert alpha["heartbeat_seen"] is True and 0 <= alpha["heartbeat_seen_age_seconds"] <= found["watched_seconds"]
    assert beta["heartbeat_seen"] is False and beta["heartbeat_seen_age_seconds"] is None
    assert alpha["host"] == "alpha." + alpha["epoch"] and len(alpha["epoch"]) == 16
    assert (alpha["stages"], alpha["stage_bytes"], beta["stages"]) == (1, 5, 0)
    assert alpha["machine"] == "here" and alpha["lease_seconds"] == LEASE
    assert "beating" in lab.ctl("hosts", source).stdout
    writer("os.close(fd)")


def test_hosts_ends_in_time(lab, source):
    """It watches until all have beaten, for --watch, or for one beat and a half; a bare source has none."""
    assert lab.ctl("hosts", source, check=False).returncode == 1
    assert lab.host(source, "alpha").unmount() == []
    assert "has no hosts" in lab.ctl("hosts", source).stdout
    make_host(source, "still.0123456789abcdef", LEASE)
    began = time.monotonic()
    found = look(lab, "hosts", "--json", "--watch", "300ms", source)
    assert 0.3 <= found["watched_seconds"] <= time.monotonic() - began
    (host,) = look(lab, "hosts", "--json", source)["hosts"]
    assert host["heartbeat_seen"] is False and host["machine"] == "elsewhere" and host["machine_id"] is None
    assert look(lab, "hosts", "--json", "--watch", "0", source)["watched_seconds"] < 0.3 * SLOWNESS
    assert lab.ctl("hosts", "--watch", "long", source, check=False).returncode == 2
    lab.leftovers_expected = True


# ---- stages


def stages(lab, path, **named):
    found = look(lab, "stages", "--json", path, **named)
    return {stage["path"]: stage for stage in found["stages"]}, found["complete"]


@pytest.mark.options("private=*.part")
def test_stages_of_a_mount(lab, mount, source):
    """A mount here tells path, program, size and times, of what was not written yet as well."""
    writer, opener, closer = mount.worker(), mount.worker(), mount.worker()
    writer("fd = os.open('a b', REPLACE); os.write(fd, b'12345'); os.fsync(fd)")
    opener("put('old', b'x'); fd = os.open('old', os.O_RDWR)")
    closer("put('x.part', b'123')")
    for path in (source, mount.mnt):
        found, complete = stages(lab, path)
        assert complete is True and sorted(found) == ["a b", "old", "x.part"]
        assert names_in(found["a b"]) <= documented("stages")
        one = found["a b"]
        assert (one["state"], one["bytes"], one["synced"], one["uid"]) == ("writing", 5, True, 0)
        assert one["pid"] == writer.process.inner_pid and one["command"].startswith("python")
        assert 0 <= one["idle_seconds"] <= one["age_seconds"] < 60 * SLOWNESS and one["host_state"] == "alive"
        assert (found["old"]["bytes"], found["old"]["uid"], found["old"]["state"]) == (0, None, "writing")
        assert (found["x.part"]["state"], found["x.part"]["bytes"]) == ("private", 3)
    assert "a b" in lab.ctl("stages", source).stdout
    writer("os.close(fd)")
    opener("os.close(fd)")
    closer("os.rename('x.part', 'x')")
    assert stages(lab, source) == ({}, True)
    assert "nothing is being written" in lab.ctl("stages", source).stdout


def test_stages_elsewhere(lab, hosts, source):
    """Of other hosts: size, owner and silence; the path of what was synced (C7)."""
    a, _ = hosts
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'12345'); os.fsync(fd)")
    writer("other = os.open('g', REPLACE); os.write(other, b'1')")
    found, _ = stages(lab, source)
    assert sorted(found, key=str) == [None, "f"] and names_in(look(lab, "stages", "--json", source)) == documented("stages")
    assert (found["f"]["bytes"], found["f"]["synced"], found["f"]["host"][:6]) == (5, True, "alpha.")
    assert found[None]["bytes"] == 1 and found[None]["state"] is None and found[None]["age_seconds"] is None
    assert 0 <= found[None]["idle_seconds"] < 60 * SLOWNESS and found[None]["pid"] is None
    inside = json.loads(a.run([CTL, "stages", "--json", a.mnt], cwd="/").stdout)
    assert sorted(stage["path"] for stage in inside["stages"]) == ["f", "g"]
    _, complete = stages(lab, source, user=31001, group=31001, extra_groups=[])
    assert complete is False
    writer("os.close(fd); os.close(other)")


def test_stages_of_a_frozen_mount(lab, source):
    """C24: one that does not answer is left out, and nobody waits for it."""
    host = lab.host(source, "alpha", "lease=60")
    writer = host.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'12345')")
    with Frozen(host):
        found = json.loads(host.run([CTL, "stages", "--json", host.mnt], cwd="/").stdout)
    assert found["complete"] is False and [stage["bytes"] for stage in found["stages"]] == [5]
    writer("os.close(fd)")


# ---- clean


def test_clean(lab, source):
    """A plain directory remains: files, and no claim of a dead writer; the next mount begins anew."""
    mount = lab.host(source, "plain", "lease=60", namespaces=False)
    mount.write("f", b"data")
    mount("os.mkdir('d')")
    claimer = mount.worker()
    claimer("fd = os.open('d/claimed', os.O_CREAT | os.O_EXCL | os.O_WRONLY); os.write(fd, b'x')")
    done = lab.ctl("clean", source, check=False)
    assert done.returncode == 1 and "is mounted at " + mount.mnt in done.stderr
    mount.kill_daemon()
    mount.umount("-l")
    claimer.kill()
    os.symlink("/etc/passwd", source + "/link")
    os.symlink(GONE + " 2 -", control(source, "leases", "0000000000000001"))
    done = lab.ctl("clean", source, check=False)
    assert done.returncode == 1 and "1 entries are in salvage" in done.stderr and os.path.isdir(control(source))
    assert os.path.islink(source + "/d/claimed")
    done = look(lab, "clean", "--json", "--force", source)
    assert names_in(done) == documented("clean")
    assert done["salvage_entries_dropped"] == 1 and done["claims_removed"] == 1
    assert sorted(os.listdir(source)) == ["d", "f", "link"] and os.listdir(source + "/d") == []
    assert os.path.exists("/etc/passwd")
    done = lab.ctl("clean", source, check=False)
    assert done.returncode == 1 and "no control directory" in done.stderr
    assert lab.host(source, "again").read("f") == b"data"


def test_clean_right_after_umount(lab, source):
    """umount(8) returns before the daemon has left: it is waited for."""
    mount = lab.host(source, "plain", "lease=60", namespaces=False)
    mount.write("f", b"data")
    mount.end_processes()
    with Frozen(mount):
        mount.umount("-l")
        cleaning = subprocess.Popen([CTL, "clean", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(1)
    said = cleaning.communicate(timeout=60)[0]
    assert "plain directory" in said and os.listdir(source) == ["f"]
    assert mount.daemon.wait(timeout=15 * SLOWNESS) == 0
    mount.gone = True


def test_clean_refuses_hosts(lab, source):
    """C20: of other machines, alive, late, silent or without a record: all is left as it was."""
    a = lab.host(source, "alpha", "lease=%d" % LEASE)
    done = lab.ctl("clean", source, check=False)
    assert done.returncode == 1 and "alpha." in done.stderr and "unmount it first" in done.stderr
    assert a.error("os.mkdir", "d") is None and a.unmount() == []
    record = make_host(source, "still.0123456789abcdef", LEASE)
    assert eventually(lambda: "is silent" in lab.ctl("clean", "--force", source, check=False).stderr, 3 * LEASE)
    os.unlink(record)
    assert lab.ctl("clean", "--force", source, check=False).returncode == 1
    os.rmdir(os.path.dirname(record))
    done = lab.ctl("clean", source, check=False, user=31001, group=31001, extra_groups=[])
    assert done.returncode == 1 and os.path.isdir(control(source, "hosts"))
    assert "plain directory" in lab.ctl("clean", source).stdout
    assert os.listdir(source) == ["d"]


@pytest.mark.expect_log("safewritefs: error: cannot")
def test_clean_meets_a_newcomer(lab, source):
    """A host that joins between the look and the end is refused, or not robbed of its control directory."""
    assert lab.host(source, "alpha").unmount() == []
    os.mkdir(source + "/deep")
    for number in range(3000):  # something to look through for claims
        os.symlink("x", source + "/deep/%d" % number)
    newcomer = None
    for _ in range(20):
        clean = lab.start_ctl("clean", source)
        newcomer = newcomer or lab.host(source, "beta", mount=False)
        try:
            newcomer.mount()
        except AssertionError:
            newcomer.mount()
        out, err = clean.communicate()
        assert newcomer.error("os.mkdir", "made") in (None, "EEXIST"), (out, err)
        newcomer.write("f", b"data")
        assert newcomer.read("f") == b"data" and os.path.isdir(control(source, "hosts"))
        assert not [name for name in os.listdir(source) if "cleaned" in name], (out, err)
        assert newcomer.unmount() == []
