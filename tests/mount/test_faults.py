# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of the source (C24): the right errno at the right call, old versions whole, no litter."""

import glob
import os
import shutil
import subprocess
import time

import pytest
from harness import DEAD, SLOWNESS, eventually, payload

OLD = payload("old", 300_000)


@pytest.fixture
def small(lab, small_source):
    """Two hosts over 16 MiB."""
    return lab.host(small_source, "alpha"), lab.host(small_source, "beta"), small_source


def free(path):
    st = os.statvfs(path)
    return st.f_bavail * st.f_bsize


def fill(path, leave):
    """Takes all space but so much, beside the mount."""
    with open(path + "/ballast", "wb") as f:
        os.posix_fallocate(f.fileno(), 0, free(path) - leave)


def test_disk_full(small):
    """C24, C3: ENOSPC reaches write(2) or close(2); the old version is whole on both hosts; afterwards all works."""
    a, b, source = small
    a.write("f", OLD)
    fill(source, 1 << 20)
    reader = b.reader("f", [OLD])
    writer = a.worker()
    for _ in range(3):
        assert writer("error(put, 'f', b'x' * (4 << 20), piece=65536)") == "ENOSPC"
        assert a.read("f") == OLD and b.read("f") == OLD
    assert set(reader.stop()) == {0}
    os.unlink(source + "/ballast")
    writer("put('f', b'fits')")
    assert b.read("f") == b"fits"


def test_disk_full_ignored_by_the_program(small):
    """C24, C3: a program that ignores the error of write(2): close reports it; no torso is published."""
    a, b, source = small
    a.write("f", OLD)
    fill(source, 1 << 20)
    writer = a.worker()
    writer("fd = os.open('f', REPLACE)")
    assert writer("error(lambda: [os.write(fd, b'x' * 65536) for _ in range(100)])") == "ENOSPC"
    assert writer("error(os.close, fd)") == "ENOSPC"
    assert a.read("f") == OLD and b.read("f") == OLD
    done = a.run("dd if=/dev/zero of=f bs=64k count=100 status=none", check=False)
    assert done.returncode != 0 and "No space" in done.stderr
    assert b.read("f") == OLD


def test_disk_full_made_good(small):
    """C3: a failed write that the program repeats with success is forgiven."""
    a, b, source = small
    fill(source, 1 << 20)
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666)")
    writer(
        """
at = 0
try:
    while True:
        at += os.pwrite(fd, b'x' * 65536, at)
except OSError as e:
    assert e.errno == errno.ENOSPC
"""
    )
    os.unlink(source + "/ballast")
    writer("os.pwrite(fd, b'y' * 65536, at); os.close(fd)")
    at = writer("at")
    assert b.read("f") == b"x" * at + b"y" * 65536


def test_disk_full_for_edits_and_appends(small):
    """C10, C11, C24: an edit that cannot be staged, a record that does not fit: ENOSPC, nothing changed."""
    a, b, source = small
    a.write("f", OLD)
    a.write("log", b"line\n" * 10_000)
    a.write("ballast2", b"x" * (1 << 20))
    fill(source, 100_000)
    writer = a.worker()
    assert writer("error(put_at, 'f', (0, b'X'))") == "ENOSPC"
    assert writer("error(put, 'log', b'y' * 900000, flags=os.O_WRONLY | os.O_APPEND)") == "ENOSPC"
    assert b.read("f") == OLD and b.read("log") == b"line\n" * 10_000
    assert writer("error(put, 'log', b'last\\n', flags=os.O_WRONLY | os.O_APPEND)") is None
    assert b.read("log") == b"line\n" * 10_000 + b"last\n"


@pytest.fixture
def limited(lab):
    """Two hosts over a subvolume that may hold 4 MiB."""
    if not shutil.which("mkfs.btrfs"):
        pytest.skip("no mkfs.btrfs")
    top = lab.loop_source("btrfs", 256 << 20)
    source = top + "/limited"
    for words in (["quota", "enable", top], ["subvolume", "create", source], ["qgroup", "limit", "4M", source]):
        subprocess.run(["btrfs", *words], check=True, stdout=subprocess.DEVNULL)
    os.chmod(source, 0o777)
    return lab.host(source, "alpha"), lab.host(source, "beta")


def test_quota(limited):
    """C24, C3: EDQUOT reaches write(2) or close(2); the old version is whole; below the limit all works."""
    a, b = limited
    a.write("f", OLD)
    a("put('log', b'line\\n' * 1000, flags=os.O_WRONLY | os.O_CREAT | os.O_APPEND)")
    reader = b.reader("f", [OLD])
    writer = a.worker()
    for _ in range(3):
        assert writer("error(put, 'f', os.urandom(8 << 20), piece=65536)") == "EDQUOT"
        assert a.read("f") == OLD and b.read("f") == OLD
    record = "error(put, 'log', os.urandom(6 << 20), flags=os.O_WRONLY | os.O_APPEND, piece=8 << 20)"
    assert writer(record) == "EDQUOT"
    assert b.read("log") == b"line\n" * 1000
    done = a.run("dd if=/dev/urandom of=f bs=64k count=200 status=none", check=False)
    assert done.returncode != 0 and "quota" in done.stderr
    assert set(reader.stop()) == {0}
    writer("put('f', b'fits')")
    assert a.read("f") == b.read("f") == b"fits"


def test_completely_full(small):
    """C24: not one block is left: reading, unlinking, chmod and the heartbeat go on."""
    a, b, source = small
    a.write("f", OLD)
    a.write("g", OLD)
    fill(source, 200_000)
    with open(source + "/rest", "wb", buffering=0) as f:
        for piece in (b"x" * 4096, b"x"):
            try:
                while True:
                    f.write(piece)
            except OSError:
                pass
    assert a.error("put", "n", b"x" * 100_000) == "ENOSPC"
    assert b.read("f") == OLD
    a("os.chmod('f', 0o600); os.unlink('g')")
    assert b.list() == ["ballast", "f", "rest"] or "n" in b.list()
    b("os.unlink('ballast')")
    a.write("n", b"fits again")
    assert b.read("n") == b"fits again"


def test_no_inodes(lab):
    """C24: ENOSPC of a new file for want of an inode comes at open."""
    source = lab.loop_source("ext4", 16 << 20)
    a = lab.host(source, "alpha")
    a.write("f", OLD)
    os.mkdir(source + "/many")
    try:
        for number in range(100_000):
            os.mknod(source + "/many/%d" % number)
    except OSError:
        pass
    assert a.error("put", "new", b"x") == "ENOSPC"
    assert a.read("f") == OLD
    for name in glob.glob(source + "/many/1*"):
        os.unlink(name)
    a.write("new", b"x")
    assert a.read("new") == b"x"


def device_of(source):
    return subprocess.run(
        ["findmnt", "-n", "-o", "SOURCE", "--mountpoint", source], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.expect_log("warning|error")
def test_source_turns_read_only(lab):
    """C24: the file system of the source fails and turns read-only: EROFS (or EIO), old versions readable."""
    source = lab.loop_source("ext4", 16 << 20, "loop,errors=remount-ro")
    trigger = "/sys/fs/ext4/%s/trigger_fs_error" % os.path.basename(device_of(source))
    if not os.path.exists(trigger):
        pytest.skip("no %s" % trigger)
    a, b = lab.host(source, "alpha"), lab.host(source, "beta")
    a.write("f", OLD)
    os.sync()
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'x')")
    with open(trigger, "w", encoding="ascii") as f:
        f.write("test")
    assert a.error("os.mkdir", "d") in ("EROFS", "EIO")
    assert a.error("put", "g", b"x") in ("EROFS", "EIO")
    assert writer("error(os.close, fd)") in ("EROFS", "EIO")
    assert a.read("f") == OLD and b.read("f") == OLD
    lab.leftovers_expected = True


def test_read_only_source(lab):
    """C24: a source that is mounted read-only: said at the start, or served read-only; never half."""
    source = lab.loop_source("ext4", 16 << 20)
    with open(source + "/f", "wb") as f:
        f.write(OLD)
    subprocess.run(["mount", "-o", "remount,ro", source], check=True)
    host = lab.host(source, "alpha", mount=False)
    host.launch()
    eventually(lambda: host.is_mounted() or host.daemon.poll() is not None)
    if host.daemon.poll() is None:
        assert host.read("f") == OLD and host.error("put", "g", b"x") == "EROFS"
    else:
        assert host.daemon.returncode == 32 and "ead-only" in host.log_text()
        host.logs, host.gone = [], True


def test_no_access(lab, source):
    """C24: EACCES comes at open, not at close; a directory closed while a stage is open: EACCES at close, salvage."""
    os.chmod(source, 0o755)
    host = lab.host(source, "alpha")
    host("os.mkdir('d'); os.chown('d', 31001, 31001)")
    user = host.worker(uid=31001, gid=31001)
    assert user("error(put, 'f', b'x')") == "EACCES"
    user("put('d/f', b'old')")
    user("fd = os.open('d/f', REPLACE); os.write(fd, b'new')")
    host("os.chown('d', 0, 0); os.chmod('d', 0o755)")
    assert user("error(os.close, fd)") == "EACCES"
    assert host.read("d/f") == b"old"
    assert lab.salvaged(source, "d/f") == [b"new"]


def test_file_size_limit(host):
    """C24: EFBIG of RLIMIT_FSIZE is the program's own business: the old version stays."""
    host.write("f", OLD)
    done = host.run("ulimit -f 64; trap '' XFSZ; dd if=/dev/zero of=f bs=16k count=20 status=none", check=False)
    assert done.returncode != 0
    assert host.read("f") in (OLD, b"\0" * 65536)


def test_source_unmounted_lazily(lab):
    """C24: umount -l of the source under the daemon: it holds on to what it serves; a commit reaches that."""
    source = lab.loop_source("ext4", 16 << 20)
    host = lab.host(source, "alpha")
    host.write("f", OLD)
    host.run(["umount", "-l", source], cwd="/")
    assert host.read("f") == OLD
    result = host.error("put", "f", b"new")
    assert host.read("f") == (OLD if result else b"new")


def test_source_covered(lab, source):
    """C24: another file system mounted over the source: the daemon goes on with the directory it was given."""
    host = lab.host(source, "alpha")
    host.write("f", OLD)
    host.run(["mount", "-t", "tmpfs", "none", source], cwd="/")
    host.write("f", b"new")
    assert host.read("f") == b"new"
    assert host.run("ls -A %s" % source, cwd="/").stdout == ""
    with open(source + "/f", "rb") as f:
        assert f.read() == b"new"


@pytest.mark.expect_log("warning|error")
def test_source_removed(lab, source):
    """C24: rm -rf of the source: ENOENT or ESTALE, no crash, an unmount that ends."""
    host = lab.host(source, "alpha")
    host.write("f", OLD)
    writer = host.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'x')")
    subprocess.run("rm -rf %s/* %s/.safewritefs; rmdir %s" % (source, source, source), shell=True, check=True)
    assert host.error("put", "g", b"x") in ("ENOENT", "ESTALE")
    assert writer("error(os.close, fd)") in ("ENOENT", "ESTALE")
    assert host.error("os.open", "f", os.O_RDONLY) in ("ENOENT", "ESTALE")
    lab.leftovers_expected = True


def test_changes_beside_the_mount(hosts, source):
    """C24, C2: files made, replaced and removed directly on the source are seen."""
    a, _ = hosts
    for number in range(10):
        with open(source + "/t", "wb") as f:
            f.write(b"%d" % number)
        os.rename(source + "/t", source + "/f")
        assert a.read("f") == b"%d" % number
    os.unlink(source + "/f")
    assert a.error("os.open", "f", os.O_RDONLY) == "ENOENT"
    os.mkdir(source + "/d")
    assert a.list() == ["d"]


def test_slow_source_is_interruptible(hosts):
    """C24: a wait for the lease of a frozen host's append ends with a signal."""
    a, b = hosts
    a.write("log", b"0\n")
    writer = a.worker()
    writer("fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'1\\n')")
    a.daemon.end(19)  # SIGSTOP
    try:
        process = b.popen("echo 2 >> log")
        time.sleep(0.3)
        process.end(15)
        process.wait(timeout=10)
    finally:
        a.daemon.end(18)  # SIGCONT
    writer("os.close(fd)")
    assert eventually(lambda: b"1\n" in b.read("log"))
    assert b.read("log") in (b"0\n1\n", b"0\n1\n2\n", b"0\n2\n1\n")


OPENERS = """
import threading
fd = os.open('f', os.O_RDWR)
os.pwrite(fd, b'EDIT', 0)
def again():
    other = os.open('f', os.O_RDWR)
    os.close(other)
threads = [threading.Thread(target=os.close, args=(fd,))] + [threading.Thread(target=again) for _ in range(40)]
for thread in threads:
    thread.start()
    time.sleep(0.01)
for thread in threads:
    thread.join()
"""


def hold_lease(source, name, holder):
    """What a living host that is slow leaves for a while: the lease on the content."""
    host_id = next(entry for entry in os.listdir(source + "/.safewritefs/hosts") if entry.startswith(holder + "."))
    lease = "%s/.safewritefs/leases/%016x" % (source, os.stat(source + "/" + name).st_ino)
    os.symlink(host_id + " 1 -", lease)
    return lease


ALARMED = """
def alarmed(number, frame):
    raise InterruptedError(errno.EINTR, 'alarm')
signal.signal(signal.SIGALRM, alarmed)
signal.setitimer(signal.ITIMER_REAL, 0.5)
fd = os.open('log', os.O_WRONLY | os.O_APPEND)
result = error(os.write, fd, b'interrupted\\n')
os.write(fd, b'after\\n')
os.close(fd)
"""


def test_waiting_append_ends_with_a_signal(hosts, source):
    """C24, C11: write(2) waiting for a lease gets EINTR when a handled signal comes, and has appended nothing."""
    a, b = hosts
    a.write("log", b"0\n")
    lease = hold_lease(source, "log", "beta")
    writer = a.worker()
    writer.start(ALARMED)
    assert writer.is_waiting(1)
    os.unlink(lease)
    assert writer.finish() == "EINTR"
    assert b.read("log") == b"0\nafter\n"


def test_waiting_requests_keep_nobody_else(hosts, source):
    """C24: a commit waits for a lease that another host holds, 40 threads for that commit; everybody else goes on."""
    a, b = hosts
    a.write("f", b"....")
    lease = hold_lease(source, "f", "beta")
    writer = a.worker()
    writer.start(OPENERS)
    assert writer.is_waiting(1)
    started = time.monotonic()
    assert a.read("f") == b"...." and a.list() == ["f"]
    a.write("g", b"new")
    assert time.monotonic() - started < 5
    os.unlink(lease)
    writer.finish()
    assert b.read("f") == b"EDIT"


def test_daemon_killed_under_readers_and_writers(lab, source):
    """C24: a killed daemon: ENOTCONN for everybody, the other host goes on, nothing is torn."""
    a, b = lab.host(source, "alpha"), lab.host(source, "beta")
    a.write("f", OLD)
    reader = b.reader("f", [OLD])
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'x')")
    a.kill_daemon()
    assert writer("error(os.close, fd)") in (None, "EIO", *DEAD)
    assert writer("error(os.stat, 'f')") in DEAD
    assert set(reader.stop()) == {0}
    b.write("g", b"goes on")
    a.end_processes()
    a.mount()
    assert a.read("f") == OLD and a.read("g") == b"goes on"


@pytest.mark.parametrize(
    "deed, number", [("os.mkdir('e')", 9), ("os.open('f', REPLACE)", 15), ("os.link('f', 'l')", 9), ("put('g', b'x')", 2)]
)
def test_a_killed_program_does_not_wait_for_the_source(lab, deed, number):
    """C24: a source that hangs holds whoever waits for it, but not who is killed meanwhile; then everything goes on."""
    source = lab.loop_source("ext4", 16 << 20)
    host = lab.host(source, "alpha")
    host.write("f", b"old")
    host("os.mkdir('d')")  # the kernel lets one at a time change a directory
    doomed, other = host.worker(), host.worker()
    doomed("None if signal.signal(signal.SIGINT, signal.SIG_DFL) else None")
    other("signal.signal(signal.SIGALRM, lambda *_: None); None if signal.setitimer(signal.ITIMER_REAL, 0.5) else None")
    subprocess.run(["fsfreeze", "-f", source], check=True)
    try:
        doomed.start(deed)
        other.start("error(os.mkdir, 'd/other')")  # an alarm does not end its wait
        time.sleep(1)
        began = time.monotonic()
        doomed.process.end(number)
        doomed.process.wait(timeout=10)
        assert time.monotonic() - began < 2 * SLOWNESS, "it waited"
    finally:
        subprocess.run(["fsfreeze", "-u", source], check=True)
    assert other.finish(20) is None
    assert host.read("f") == b"old" and not host.exists("g")
    host.write("g", b"goes on")
