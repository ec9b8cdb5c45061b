# SPDX-License-Identifier: GPL-2.0-or-later
"""safewritectl: status, locks, break and gc, on live, dead and frozen mounts, on bare sources and on forged ones."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from harness import CTL, ROOT, SLOWNESS, errno_name, eventually, read_text

CONTROL = ".safewritefs"
LEASE = 2
GONE = "gone.0123456789abcdef"
TAKE = "fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY); result = os.getpid()"


def control(source, *parts):
    return os.path.join(source, CONTROL, *parts)


def hosts_dir(source):
    return os.listdir(control(source, "hosts"))


def look(lab, *words, **named):
    return json.loads(lab.ctl(*words, **named).stdout)


def status(lab, path, **named):
    (found,) = look(lab, "status", "--json", path, **named)
    return found


def states(lab, path, **named):
    return {host["host"].split(".")[0]: host["state"] for host in status(lab, path, **named)["hosts"]}


def documented(command):
    """The names that the manual page gives for a command's JSON."""
    page = read_text(os.path.join(ROOT, "docs", "safewritectl.1"))
    block = re.search(r'\.\\" begin json %s\n(.*?)\.\\" end json %s\n' % (command, command), page, re.S).group(1)
    names = set()
    for line in block.splitlines():
        if line.startswith((".It Va ", ".Va ")):
            names |= set(line.split()[1:]) - {"Va", ",", ".", "It"}
    return names


def names_in(value):
    if isinstance(value, list):
        return set().union(*map(names_in, value), set())
    if isinstance(value, dict):
        return set(value) | names_in(list(value.values()))
    return set()


@pytest.fixture
def pair(lab, source):
    options = "lease=%d" % LEASE
    return lab.host(source, "alpha", options), lab.host(source, "beta", options)


@pytest.fixture
def frozen(request):
    """Stops a daemon, and lets it go on at the end."""
    stopped = []

    def freeze(host):
        host.daemon.end(signal.SIGSTOP)
        stopped.append(host)

    request.addfinalizer(lambda: [host.daemon.end(signal.SIGCONT) for host in stopped])
    return freeze


# ---- status


def make_mark(path):
    """As a host makes it that is gone since."""
    os.mkdir(path, 0o700)
    os.symlink("x", path + "/" + GONE)


def test_status(lab, pair, source):
    """What the hosts are and hold, as they are; every documented name is there, and no other."""
    a, b = pair
    a.write("f", b"old")
    writer, locker = a.worker(), b.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'12345')")
    pid = locker(TAKE, path="d.lock")

    lease, mark = (control(source, "leases", "%016d" % n) for n in (63, 64))

    def forge():
        """A lease and a mark of a host that is gone; a daemon that lists them just then takes them away."""
        if not os.path.lexists(lease):
            os.symlink(GONE + " 7 append 3 4 99 some/path", lease)
        if not os.path.lexists(mark + ".break"):
            make_mark(mark + ".break")

    def looked():
        forge()
        found = status(lab, source)
        return found if found["content_leases"] and found["marks"] else None

    found = eventually(looked, 10)
    assert names_in(found) == documented("status") - {"mountpoint", "options", "passthrough", "io_uring"}
    by_name = {host["host"].split(".")[0]: host for host in found["hosts"]}
    assert sorted(by_name) == ["alpha", "beta"]
    for host in by_name.values():
        assert host["state"] == "alive" and host["machine"] == "here" and host["lease_seconds"] == LEASE
        assert 0 <= host["heartbeat_age_seconds"] <= LEASE and host["pid"] > 0 and host["content_leases"] == 0
    assert (by_name["alpha"]["stages"], by_name["alpha"]["stage_bytes"]) == (1, 5)
    assert (by_name["beta"]["application_locks"], by_name["beta"]["stages"]) == (1, 0)
    (shown,) = found["content_leases"]
    assert shown["host_state"] == "gone" and shown["intent"] == "append" and shown["path"] == "some/path"
    assert (shown["append_offset"], shown["append_bytes"]) == (3, 4) and shown["age_seconds"] >= 0
    (shown,) = found["marks"]
    assert shown["kind"] == "content lease" and shown["breaks"] == "0000000000000064" and shown["host"] == GONE
    assert found["salvage"] == {"entries": 0, "bytes": 0, "oldest_age_seconds": None}
    assert found["mounts"] == [] and not found["truncated"]  # the hosts have mount namespaces of their own
    (lock,) = look(lab, "locks", "--json", source)["application_locks"]
    assert lock["pid"] == pid

    def printed():
        forge()
        text = lab.ctl("status", source).stdout
        return "alpha." in text and "not mounted on this machine" in text and "some/path" in text

    assert eventually(printed, 10)
    lab.ctl("gc", source)


def test_status_of_all_mounts(lab, mount, source):
    """Without PATH: each source that is mounted here, with its mountpoints; by the mountpoint it is the same."""
    everything = lab.ctl("status", "--json", check=False).stdout  # of other tests' mounts, too, which may end meanwhile
    sources = {found["source"]: found for found in json.loads(everything)}
    assert [m["mountpoint"] for m in sources[source]["mounts"]] == [mount.mnt]
    assert "rw" in sources[source]["mounts"][0]["options"].split(",")
    assert names_in(sources[source]) <= documented("status")
    assert status(lab, mount.mnt)["source"] == source
    assert mount.mnt in lab.ctl("status", check=False).stdout


@pytest.mark.expect_log("rejoined")
def test_states(lab, pair, source, frozen):
    """C23: alive, late, silent, dead, by the server's times alone."""
    a, b = pair
    assert states(lab, source) == {"alpha": "alive", "beta": "alive"}
    frozen(a)
    frozen(b)
    seen = set()

    def all_silent():
        now = states(lab, source)
        seen.update(now.values())
        return set(now.values()) == {"silent"}

    assert eventually(all_silent, 3 * LEASE) and seen <= {"alive", "late", "silent"}
    b.kill_daemon()
    assert states(lab, source) == {"alpha": "silent", "beta": "dead"}
    a.daemon.end(signal.SIGCONT)
    assert eventually(lambda: states(lab, source) == {"alpha": "alive"}, 4 * LEASE)


@pytest.mark.expect_log("rejoined")
def test_without_a_present(lab, pair, source, frozen):
    """Who can make no file looks at the counters twice: one that moves tells of a host alive, no age is given."""
    a, _ = pair
    salvage = control(source, "salvage")
    os.chmod(salvage, 0o1755)
    frozen(a)
    found = status(lab, source, user=31001, group=31001, extra_groups=[])
    assert {host["host"].split(".")[0]: host["state"] for host in found["hosts"]} == {"alpha": "late", "beta": "alive"}
    assert {host["heartbeat_age_seconds"] for host in found["hosts"]} == {None}
    assert {host["stages"] for host in found["hosts"]} == {None}
    os.chmod(salvage, 0o1777)
    found = status(lab, source, user=31001, group=31001, extra_groups=[])
    assert None not in {host["heartbeat_age_seconds"] for host in found["hosts"]}
    assert os.listdir(salvage) == []
    a.daemon.end(signal.SIGCONT)
    lab.leftovers_expected = True


def test_dead_and_frozen_mounts_stop_nothing(lab, source, frozen):
    """C24: a mount that does not answer, frozen or killed: status, locks and salvage by its mountpoint end in time."""
    mount = lab.host(source, "plain", "lease=60", namespaces=False)
    frozen(mount)
    for words in (["status", "--json"], ["locks", "--json"], ["salvage", "list"]):
        lab.ctl(*words, mount.mnt, timeout=30 * SLOWNESS)
    found = look(lab, "locks", "--json", mount.mnt)
    assert found["file_locks"] == [] and found["file_locks_complete"] is False
    mount.kill_daemon()
    assert [host["state"] for host in status(lab, mount.mnt)["hosts"]] == ["dead"]
    assert look(lab, "locks", "--json", mount.mnt)["file_locks_complete"] is False
    assert len(look(lab, "gc", "--json", mount.mnt)["hosts_buried"]) == 1
    assert status(lab, mount.mnt)["hosts"] == []


# ---- locks


def test_locks(lab, host, source):
    """C18: kind, path, owner, age and whether the process lives; by name of a file; null where nobody can know."""
    host("os.mkdir('d')")
    first, second, third = host.worker(), host.worker(), host.worker()
    pid = first(TAKE, path="d/x.lock")
    second("os.mkdir('d/y.lock')")
    third("os.symlink('me', 'z.lock')")
    inside = json.loads(host.run([CTL, "locks", "--json", host.mnt]).stdout)
    assert names_in(inside) - {"file_locks"} <= documented("locks")
    by_path = {lock["path"]: lock for lock in inside["application_locks"]}
    assert {path: lock["kind"] for path, lock in by_path.items()} == {
        "d/x.lock": "file",
        "d/y.lock": "dir",
        "z.lock": "symlink",
    }
    lock = by_path["d/x.lock"]
    assert lock["pid"] == pid and lock["host_state"] == "alive" and 0 <= lock["age_seconds"] < 60 * SLOWNESS
    assert lock["command"].startswith("python")
    assert lock["process_alive"] in (True, None)  # Linux before 6.9 does not tell processes apart
    outside = look(lab, "locks", "--json", source)  # another pid namespace: nothing is known of its processes
    assert {lock["process_alive"] for lock in outside["application_locks"]} == {None}
    assert outside["file_locks_complete"] is False
    for words in ([source, "d/x.lock"], [source, source + "/d/x.lock"], [source, "./d/../d/x.lock"]):
        assert [lock["path"] for lock in look(lab, "locks", "--json", *words)["application_locks"]] == ["d/x.lock"]
    some = json.loads(host.run([CTL, "locks", "--json", host.mnt, host.mnt + "/z.lock"]).stdout)
    assert [lock["path"] for lock in some["application_locks"]] == ["z.lock"]
    assert lab.ctl("locks", source, "/nowhere", check=False).returncode == 1
    assert "d/x.lock" in lab.ctl("locks", source).stdout
    second("os.rmdir('d/y.lock')")
    third("os.unlink('z.lock')")
    first("os.unlink('d/x.lock')")
    assert look(lab, "locks", "--json", source)["application_locks"] == []


def test_file_locks_of_a_mount(lab, mount):
    """C22: what programs lock by flock and fcntl through a mount, and who waits."""
    holder, waiting = mount.worker(), mount.worker()
    holder("fd = os.open('a b', os.O_RDWR | os.O_CREAT); fcntl.flock(fd, fcntl.LOCK_EX)")
    holder("other = os.open('f', os.O_RDWR | os.O_CREAT); fcntl.lockf(other, fcntl.LOCK_SH, 5, 5)")
    waiting.start("fd = os.open('f', os.O_RDWR | os.O_CREAT); fcntl.lockf(fd, fcntl.LOCK_EX, 0, 7)")
    assert eventually(lambda: len(look(lab, "locks", "--json", mount.mnt)["file_locks"]) == 3)
    found = look(lab, "locks", "--json", mount.mnt)
    assert names_in(found["file_locks"]) <= documented("locks") and found["file_locks_complete"] is True
    shown = {(lock["path"], lock["kind"], lock["mode"], lock["state"], lock["first_byte"], lock["last_byte"])
             for lock in found["file_locks"]}
    assert shown == {
        ("a b", "flock", "write", "held", 0, None),
        ("f", "fcntl", "read", "held", 5, 9),
        ("f", "fcntl", "write", "waiting", 7, None),
    }
    assert {lock["pid"] for lock in found["file_locks"]} == {holder.process.inner_pid, waiting.process.inner_pid}
    assert [lock["path"] for lock in look(lab, "locks", "--json", mount.mnt, "a b")["file_locks"]] == ["a b"]
    assert "a b" in lab.ctl("locks", mount.mnt).stdout
    holder("os.close(other)")
    waiting.finish()


# ---- break


def test_break_a_lock(lab, pair, source):
    """C20, L3, L4: broken wherever its owner is; the old owner, living or killed, cannot end a successor's lock."""
    a, b = pair
    a("os.mkdir('d')")
    owner, other = a.worker(), b.worker()
    pid = owner(TAKE, path="d/x.lock")
    assert other("error(os.open, path, os.O_CREAT | os.O_EXCL)", path="d/x.lock") == "EEXIST"
    said = lab.ctl("break", source, "d/x.lock").stdout
    assert "process %d" % pid in said and "alpha." in said
    assert [(entry["path"], entry["reason"]) for entry in lab.salvage(source)] == [("d/x.lock", "broken")]
    assert look(lab, "locks", "--json", source)["application_locks"] == []
    other(TAKE, path="d/x.lock")
    (lock,) = look(lab, "locks", "--json", source)["application_locks"]
    assert lock["host"].startswith("beta.")
    for call in ("os.unlink, path", "os.rename, path, 'elsewhere'"):
        assert owner("error(%s)" % call, path="d/x.lock") == "EBUSY", call
    other("os.unlink('d/x.lock')")
    assert look(lab, "locks", "--json", source)["application_locks"] == []


def test_a_broken_owner_is_killed(lab, pair, source):
    """C19, C20: an owner whose lock was broken and who is killed then takes no successor's lock with it."""
    a, b = pair
    owner, other = a.worker(), b.worker()
    owner(TAKE, path="x.lock")
    lab.ctl("break", source, "x.lock")
    other(TAKE, path="x.lock")
    owner.kill()
    time.sleep(1.5 * SLOWNESS)  # more than what it takes to release the locks of the dead (C19)
    assert b.exists("x.lock")
    (still,) = look(lab, "locks", "--json", source)["application_locks"]
    assert still["host"].startswith("beta.") and still["age_seconds"] >= 1.5
    other("os.unlink('x.lock')")
    assert len(lab.salvage(source)) == 1


def test_break_a_lock_for_the_same_host(lab, host, source):
    """C20, L7: a successor on the same host, too, and every kind of lock and way to name it."""
    owner, other = host.worker(), host.worker()
    makes = {
        "file.lock": TAKE,
        "dir.lock": "os.mkdir(path)",
        "symlink.lock": "os.symlink('me', path)",
        "link.lock": "put('tmp', b''); os.link('tmp', path)",
    }
    for name, make in makes.items():
        owner(make, path=name)
        if name == "dir.lock":
            host.run([CTL, "break", "./" + name])
        elif name == "file.lock":
            host.run([CTL, "break", name])
        elif name == "link.lock":
            lab.ctl("break", source + "/" + name)
        else:
            host.run([CTL, "break", host.mnt, name])
        assert not os.path.lexists(source + "/" + name), name
        other(TAKE, path=name)
        assert owner("error(os.unlink, path)", path=name) == "EBUSY", name
        other("os.unlink(path)", path=name)
        owner(TAKE, path=name)
        owner("os.unlink(path)", path=name)
    assert {entry["reason"] for entry in lab.salvage(source)} == {"broken"}


def test_break_says_why_not(lab, pair, source):
    """Nothing there, ambiguous, alive, somebody else's: exit status 1 and a reason."""
    a, b = pair
    a.write("f", b"data")
    for words, reason in (
        ([source, "f"], "no lock and no host f"),
        ([source, "missing/x.lock"], "no lock and no host"),
        ([source, "../x.lock"], "no lock and no host"),
        ([source, "alpha"], "--force"),
        ([source, ""], "no lock and no host"),
        (["nobody-here"], "no source that is mounted here"),
        (["/x.lock"], "in no source"),
        ([lab.directory, "alpha"], "no control directory"),
    ):
        done = lab.ctl("break", *words, check=False)
        assert done.returncode == 1 and reason in done.stderr, (words, done)
    done = lab.ctl("break", source, "alpha", check=False, user=31001, group=31001, extra_groups=[])
    assert done.returncode == 1
    done = lab.ctl("break", "--force", source, "alpha", check=False, user=31001, group=31001, extra_groups=[])
    assert done.returncode == 1 and "belongs to uid 0" in done.stderr
    assert lab.ctl("break", check=False).returncode == 2
    assert sorted(states(lab, source)) == ["alpha", "beta"] and a.read("f") == b"data"


@pytest.mark.expect_log("rejoined")
def test_break_a_living_host(lab, pair, source):
    """C20, C21, P21: with --force: its writers get ESTALE, its stages are in salvage, it goes on as another host."""
    a, b = pair
    a.write("f", b"old")
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'new'); os.fsync(fd)")
    locker = a.worker()
    locker(TAKE, path="x.lock")
    (first,) = [name for name in hosts_dir(source) if name.startswith("alpha.")]
    assert "alive" in lab.ctl("break", source, first, check=False).stderr
    lab.ctl("break", "--force", source, first)
    assert first not in hosts_dir(source)
    assert writer("error(os.close, fd)") == "ESTALE"
    assert eventually(lambda: "rejoined" in a.log_text(), 3 * LEASE)
    assert b.read("f") == b"old" and lab.salvaged(source, "f") == [b"new"]
    assert {entry["reason"] for entry in lab.salvage(source)} == {"fenced", "broken"}
    assert not b.exists("x.lock")
    a.write("f", b"after")
    assert b.read("f") == b"after"


@pytest.mark.expect_log("rejoined")
def test_break_a_silent_host(lab, source, frozen):
    """P21: one that is silent needs no --force; by its hostname, and by the beginning of its id."""
    a = lab.host(source, "alpha", "lease=%d" % LEASE)
    frozen(a)
    assert eventually(lambda: states(lab, source) == {"alpha": "silent"}, 3 * LEASE)
    assert "broke host alpha." in lab.ctl("break", source, "alph").stdout
    assert hosts_dir(source) == []
    a.daemon.end(signal.SIGCONT)
    assert eventually(lambda: states(lab, source) == {"alpha": "alive"}, 3 * LEASE)


# ---- gc


def test_gc_after_a_killed_daemon(lab, source):
    """P7, P8: a dead mount of this machine, its stage, lease and lock: gone at once, its bytes in salvage."""
    a = lab.host(source, "alpha", "lease=60")
    a.write("f", b"old")
    writer, locker = a.worker(), a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'new'); os.fsync(fd)")
    locker(TAKE, path="x.lock")
    (first,) = hosts_dir(source)
    os.symlink(first + " 1 -", control(source, "leases", "%016x" % os.stat(source + "/f").st_ino))
    os.symlink(GONE + " 2 -", control(source, "leases", "0000000000000001"))
    make_mark(control(source, "leases", "0000000000000001.break"))
    a.kill_daemon()
    done = look(lab, "gc", "--json", source)
    assert names_in(done) == documented("gc")
    assert done["hosts_buried"] == [first] and done["hosts_broken"] == done["hosts_left_alone"] == []
    assert done["content_leases_dropped"] == 2 and done["marks_dropped"] == 1
    assert done["application_locks_broken"] == 1 and done["salvage_entries_added"] == 2
    assert not os.path.exists(source + "/x.lock") and lab.leftovers() == []
    assert lab.salvaged(source, "f") == [b"new"]
    assert lab.ctl("gc", source).stdout == "nothing to clear away\n"


@pytest.mark.expect_log("rejoined")
def test_gc_breaks_the_silent(lab, source, frozen):
    """P19, P21: a frozen host, which no other watches, is watched for its lease, then broken."""
    a = lab.host(source, "alpha", "lease=%d" % LEASE)
    (first,) = hosts_dir(source)
    frozen(a)
    assert eventually(lambda: states(lab, source) == {"alpha": "silent"}, 3 * LEASE)
    began = time.monotonic()
    done = lab.ctl("gc", "--json", source)
    assert time.monotonic() - began >= LEASE * 0.9
    assert json.loads(done.stdout)["hosts_broken"] == [first]
    assert "watching 1 silent host" in done.stderr
    assert hosts_dir(source) == []
    a.daemon.end(signal.SIGCONT)
    assert eventually(lambda: "rejoined" in a.log_text(), 3 * LEASE)
    assert a.error("os.mkdir", "d") is None


def make_host(source, host_id, lease, boot="11111111-2222-3333-4444-555555555555"):
    """A host of another machine, by its record alone; its path."""
    body = "safewritefs-host 1\nid=%s\nboot-id=%s\nmachine-id=\npid=7\nlease-us=%d\nversion=9.9\n" % (
        host_id,
        boot,
        lease * 1000000,
    )
    total = 0xCBF29CE484222325
    for byte in body.encode():
        total = (total ^ byte) * 0x100000001B3 % (1 << 64)
    directory = control(source, "hosts", host_id)
    os.mkdir(directory)
    put(directory + "/record", b"%ssum=%016x\n" % (body.encode(), total))
    return directory + "/record"


def test_gc_leaves_alone_who_lives(lab, source):
    """C20, C23: a host elsewhere whose record looks old, by whatever clock, and whose counter moves, is not broken."""
    assert lab.host(source, "alpha").unmount() == []
    moves = make_host(source, "moves.0123456789abcdef", LEASE)
    make_host(source, "still.0123456789abcdef", LEASE)
    os.utime(moves, (9e9, 9e9))  # a counter, not a time
    assert {host["machine"] for host in status(lab, source)["hosts"]} == {"elsewhere"}
    assert eventually(lambda: states(lab, source) == {"moves": "silent", "still": "silent"}, 3 * LEASE)
    gc = subprocess.Popen([CTL, "gc", "--json", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "watching" not in gc.stderr.readline():
        assert gc.poll() is None
    number = 0
    while gc.poll() is None:
        number += 1
        os.utime(moves, (number, number))
        time.sleep(0.05)
    done = json.loads(gc.stdout.read())
    assert done["hosts_broken"] == ["still.0123456789abcdef"] and done["hosts_left_alone"] == ["moves.0123456789abcdef"]
    assert hosts_dir(source) == ["moves.0123456789abcdef"]
    lab.leftovers_expected = True


def fill_salvage(host, count):
    for number in range(count):
        writer = host.worker()
        writer("fd = os.open(path, REPLACE); os.write(fd, b'x' * 1000)", path="f%d" % number)
        writer.kill()


def test_gc_trims_salvage(lab, host, source):
    """P16: to the bounds that are given, and to none that are not."""
    fill_salvage(host, 6)
    assert eventually(lambda: len(lab.salvage(source)) == 6)
    assert look(lab, "gc", "--json", source)["salvage_entries_dropped"] == 0
    done = look(lab, "gc", "--json", "--salvage-max", "4K", source)
    assert done["salvage_entries_dropped"] == 6 - len(lab.salvage(source)) > 0
    assert done["salvage_bytes_dropped"] == 1000 * done["salvage_entries_dropped"]
    left = len(lab.salvage(source))
    assert look(lab, "gc", "--json", "--salvage-age", "1h", source)["salvage_entries_dropped"] == 0
    time.sleep(0.1)
    assert look(lab, "gc", "--json", "--salvage-age", "50ms", source)["salvage_entries_dropped"] == left
    for words in (["--salvage-max", "much"], ["--salvage-age", "-1"], ["--salvage-age", ""], ["--salvage-max", "nan"]):
        assert lab.ctl("gc", *words, source, check=False).returncode == 2, words


# ---- places


def test_mount_over_its_own_source(lab, source):
    """Root looks beneath: status, locks, break, gc and salvage; another user is told why not."""
    mount = lab.host(source, "plain", namespaces=False, mount=False)
    os.rmdir(mount.mnt)
    mount.mnt = source
    mount.mount()
    writer = mount.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'new')")
    writer.kill()
    locker = mount.worker()
    locker(TAKE, path="x.lock")

    def mounts():
        """Not those of tests that run beside this one."""
        return [line for line in read_text("/proc/self/mountinfo").splitlines() if source in line]

    before = mounts()
    assert before and eventually(lambda: [entry["path"] for entry in lab.salvage(source)] == ["f"])
    found = status(lab, source)
    assert [m["mountpoint"] for m in found["mounts"]] == [source] and found["hosts"][0]["state"] == "alive"
    assert [lock["path"] for lock in look(lab, "locks", "--json", source)["application_locks"]] == ["x.lock"]
    lab.ctl("break", source + "/x.lock")
    assert eventually(lambda: errno_name(os.lstat, source + "/x.lock") == "ENOENT")
    lab.ctl("gc", source)
    lab.ctl("salvage", "restore", source, lab.salvage(source)[0]["entry"])
    assert eventually(lambda: mount.read("f") == b"new")
    lab.ctl("salvage", "drop", "--all", source)
    assert mounts() == before
    done = lab.ctl("status", source, check=False, user=31001, group=31001, extra_groups=[])
    assert done.returncode == 1 and "only root can look beneath" in done.stderr


def test_bare_source(lab, source):
    """Without any mount: what is there is shown; where there is no control directory, that is said."""
    for words in (["status"], ["locks"], ["gc"], ["break", source + "/x.lock"], ["salvage", "list"]):
        done = lab.ctl(*words, *([] if len(words) > 1 and "/" in words[1] else [source]), check=False)
        assert done.returncode == 1 and ("no control directory" in done.stderr or "in no source" in done.stderr), words
    assert os.listdir(source) == []
    assert lab.host(source, "alpha").unmount() == []
    found = status(lab, source)
    assert found["hosts"] == [] and found["owner_uid"] == 0
    assert lab.ctl("gc", source).stdout == "nothing to clear away\n"
    assert look(lab, "locks", "--json", source)["application_locks"] == []


def test_a_users_own_mount(lab, source):
    """As who runs it: root looks at a user's directory, and changes nothing in it; the user does."""
    os.chown(source, 31001, 31001)
    me = {"user": 31001, "group": 31001, "extra_groups": []}
    os.mkdir(control(source), 0o700)
    os.chown(control(source), 31001, 31001)
    assert lab.ctl("gc", source, **me).stdout == "nothing to clear away\n"
    os.mkdir(control(source, "hosts", GONE), 0o700)
    os.chown(control(source, "hosts", GONE), 31001, 31001)
    assert status(lab, source)["owner_uid"] == 31001
    assert [host["machine"] for host in status(lab, source)["hosts"]] == ["unknown"]
    for words in (["gc", source], ["break", "--force", source, "gone"]):
        done = lab.ctl(*words, check=False)
        assert done.returncode == 1 and "belongs to uid 31001" in done.stderr, words
    lab.ctl("break", "--force", source, "gone", **me)
    assert hosts_dir(source) == []


# ---- forged control directories (C26)

RECORDS = {
    "fifo": os.mkfifo,
    "symlink": lambda path: os.symlink("/etc/passwd", path),
    "loop": lambda path: os.symlink("record", path),
    "dir": os.mkdir,
    "huge": lambda path: put(path, b"id=" + b"x" * (4 << 20)),
    "empty": lambda path: put(path, b""),
    "zeros": lambda path: put(path, b"\0" * 4096),
    "torn": lambda path: put(path, b"safewritefs-host 1\nid=a.0123456789abcdef\n"),
}


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)


def forge(source, canary):
    for number, (_, make) in enumerate(sorted(RECORDS.items())):
        host = control(source, "hosts", "forged.%016x" % number)
        os.mkdir(host)
        make(os.path.join(host, "record"))
        os.mkdir(os.path.join(host, "stage"))
        os.symlink(canary, os.path.join(host, "stage", "0"))
    os.mkfifo(control(source, "hosts", "fifo.0123456789abcdef"))
    os.symlink(canary, control(source, "hosts", "link.0123456789abcdef"))
    put(control(source, "hosts", "file.0123456789abcdef"), b"x")
    os.mkdir(control(source, "hosts", "not a host id\n\x1b[2J"))
    os.mkdir(control(source, "hosts", "foreign.0123456789abcdef"))
    os.chown(control(source, "hosts", "foreign.0123456789abcdef"), 31001, 31001)
    for place in ("leases", "locks"):
        os.mkfifo(control(source, place, "0000000000000001"))
        os.mkdir(control(source, place, "0000000000000002"))
        os.symlink(GONE + " 1 append 0 18446744073709551615 1 ../../etc/passwd", control(source, place, "3"))
        os.symlink("x" * 1000, control(source, place, "4"))
        os.symlink(GONE + " 1 file 1 1 1 \x1b[2J", control(source, place, "5"))
        os.symlink(GONE + " 1 -", control(source, place, "\x1b[2J\n.break"))


def test_forged(lab, source):
    """C26: whatever stands there can neither crash nor be followed, nor write to the terminal."""
    assert lab.host(source, "alpha").unmount() == []
    canary = os.path.join(lab.directory, "canary")
    os.mkdir(canary)
    put(canary + "/f", b"canary")
    forge(source, canary)
    for words in (["status"], ["status", "--json"], ["locks"], ["locks", "--json"], ["gc"], ["gc", "--json"]):
        done = lab.ctl(*words, source, timeout=60 * SLOWNESS)
        assert "\x1b" not in done.stdout + done.stderr, words
    found = status(lab, source)
    assert {host["machine"] for host in found["hosts"]} == {"unknown"}
    assert not any("file." in host["host"] or "link." in host["host"] for host in found["hosts"])
    assert not any("foreign." in host["host"] for host in found["hosts"])
    assert sum(host["stages"] for host in found["hosts"]) == 0  # links are not followed
    for target in ("foreign", "fifo", "link", "file"):
        assert lab.ctl("break", "--force", source, target, check=False).returncode == 1
    for number in range(len(RECORDS)):
        lab.ctl("break", "--force", source, "forged.%016x" % number, check=False, timeout=60 * SLOWNESS)
    assert os.listdir(canary) == ["f"] and read_text(canary + "/f") == "canary"
    lab.leftovers_expected = True


@pytest.mark.limit(180)
def test_ten_thousand(lab, source):
    """C26, P1: more entries than are looked at: bounded, said so, and each command ends."""
    assert lab.host(source, "alpha").unmount() == []
    for number in range(11000):
        os.symlink(GONE + " %d -" % number, control(source, "leases", "%016x" % number))
        os.symlink(GONE + " %d file 1 1 1" % number, control(source, "locks", "%016x" % number))
    for number in range(2000):
        os.mkdir(control(source, "hosts", "many.%016x" % number))
    found = status(lab, source, timeout=60 * SLOWNESS)
    assert found["truncated"] is True and len(found["hosts"]) == 2000
    assert 9000 < len(found["content_leases"]) <= 10000
    assert look(lab, "locks", "--json", source)["truncated"] is True
    assert "more than can be shown" in lab.ctl("locks", source).stdout
    for _ in range(3):
        lab.ctl("gc", source, timeout=100 * SLOWNESS)
    found = status(lab, source)
    assert found["content_leases"] == [] and look(lab, "locks", "--json", source)["application_locks"] == []
    lab.leftovers_expected = True


# ---- the command line


def test_help_and_usage(lab):
    """Each command has a --help; a wrong command line is status 2."""
    commands = ["status", "locks", "break", "gc", "salvage list", "salvage restore", "salvage drop"]
    page = lab.ctl("--help").stdout
    for command in commands:
        assert "safewritectl " + command in page
        own = lab.ctl(*command.split(), "--help").stdout
        assert "safewritectl " + command in own and "Help Options" in own
    assert lab.ctl("salvage", "--help").stdout == page
    assert lab.ctl("--version").stdout.startswith("safewritectl ")
    for words in ([], ["nonsense"], ["salvage"], ["salvage", "eat"], ["status", "--force"], ["status", "a", "b"]):
        assert lab.ctl(*words, check=False).returncode == 2, words
    for words in (["locks"], ["gc"], ["gc", "a", "b"], ["salvage", "drop", "x"], ["salvage", "list", "--to", "x", "y"]):
        assert lab.ctl(*words, check=False).returncode == 2, words
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([CTL, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and b"cannot write" in done.stderr


def test_salvage_json(lab, host, source):
    """The names that the manual page gives."""
    fill_salvage(host, 1)
    assert eventually(lambda: lab.salvage(source))
    (entry,) = lab.salvage(source)
    assert set(entry) == documented("salvage list")
    assert entry["size"] == 1000 and abs(entry["unix_time_seconds"] - time.time()) < 600


def test_json_of_what_changes_things(lab, host, source):
    """break, salvage restore and salvage drop tell as JSON what they did."""
    locker, writer = host.worker(), host.worker()
    pid = locker(TAKE, path="x.lock")
    done = look(lab, "break", "--json", source, "x.lock")
    assert names_in(done) == documented("break")
    assert (done["kind"], done["path"], done["pid"], done["object_left"]) == ("lock", "x.lock", pid, False)
    assert done["host"].startswith("alpha.") and done["source"] == source
    writer("fd = os.open('f', REPLACE); os.write(fd, b'lost')")
    writer.kill()
    entry = eventually(lambda: lab.salvage(source, "f"))[0]["entry"]
    done = look(lab, "salvage", "restore", "--json", source, entry)
    assert names_in(done) == documented("salvage restore")
    assert done == {"source": source, "entry": entry, "path": "f", "to": None, "size": 4}
    to = lab.directory + "/restored"
    done = look(lab, "salvage", "restore", "--json", "--to", to, source, entry)
    assert (done["path"], done["to"]) == (None, to) and read_text(to) == "lost"
    assert lab.ctl("salvage", "restore", "--json", source, entry, check=False).stdout == ""
    done = look(lab, "salvage", "drop", "--json", source, entry)
    assert names_in(done) == documented("salvage drop") and done["entries_dropped"] == 1
    assert look(lab, "salvage", "drop", "--json", source, "--all")["entries_dropped"] == 1
    make_host(source, "other.0123456789abcdef", LEASE)
    done = look(lab, "break", "--json", "--force", source, "other")
    assert done["host"] == "other.0123456789abcdef" and done["kind"] == "host"
    assert {done[name] for name in ("path", "pid", "object_left")} == {None}


def test_json_everywhere():
    """Each command takes --json, and the manual page has its names."""
    usage = subprocess.run([CTL, "--help"], capture_output=True, text=True, check=True).stdout.split("\n\n")[0]
    commands = [re.search(r"safewritectl ((?:[a-z]+ ?)+)", line).group(1).strip() for line in usage.splitlines()[:-1]]
    assert len(commands) == 14
    for line, command in zip(usage.splitlines(), commands):
        assert "[--json]" in line and len(documented(command)) >= 2, command
