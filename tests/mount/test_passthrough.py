# SPDX-License-Identifier: GPL-2.0-or-later
"""Large files that the kernel reads by itself: no READ comes, and all that holds of a reader holds of these."""

import json
import os
import shutil
import subprocess

import pytest
from harness import DAEMON, SLOWNESS, eventually
from test_daemon import launch_as_user, umount_as_user, users_host  # noqa: F401  a fixture
from test_metrics import grown, numbers

SIZE = 1 << 20  # the least that is passed through
WORDS = """
import mmap
SIZE = %d
def big(path, version, flags=REPLACE):
    put(path, version.encode() * SIZE, flags)
def version(data):
    assert len(set(data)) == 1, set(data)
    return chr(data[0]), len(data)
def opened(path, flags=os.O_RDONLY):
    return os.open(path, flags)
def from_fd(fd, size=SIZE + 100):
    return version(os.pread(fd, size, 0))
def mapped(fd, size=SIZE):
    return mmap.mmap(fd, size, prot=mmap.PROT_READ)
""" % SIZE


def words(*hosts):
    for host in hosts:
        host(WORDS)


def told(host):
    return host("os.getxattr('.', 'user.safewritefs.passthrough').decode()")


@pytest.fixture
def used(host):
    """A host that passes files through."""
    if told(host) != "used":
        pytest.skip("kernel or libfuse: " + told(host))
    words(host)
    return host


@pytest.fixture
def two(hosts):
    if told(hosts[0]) != "used":
        pytest.skip("kernel or libfuse: " + told(hosts[0]))
    words(*hosts)
    return hosts


def counted(host, code, **values):
    """What the code returns, the opens that were passed through, and the READs that came."""
    before = numbers(host)
    result = host(code, **values)
    grew = grown(host, before)
    reads = grew.get(("request_duration_seconds_count", "read"), 0)
    return result, grew.get(("passthrough_opens_total", None), 0), reads


def test_no_read_comes(used):
    """C1: of a large file nothing that is read, mapped, sent or run comes to the daemon; of others all does."""
    used("big('f', 'a'); big('small', 'b'); os.truncate('small', SIZE - 1)")
    assert counted(used, "version(get('f'))") == (("a", SIZE), 1, 0)
    code = "fd = opened('f'); m = mapped(fd); os.close(fd); result = version(m[:])"
    assert counted(used, code) == (("a", SIZE), 1, 0)
    code = "fd = opened('f'); out = os.memfd_create('x'); result = os.sendfile(out, fd, 0, SIZE); os.close(fd)"
    assert counted(used, code) == (SIZE, 1, 0)
    found, opens, reads = counted(used, "version(get('small'))")
    assert found == ("b", SIZE - 1) and opens == 0 and reads > 0
    shutil.copy(shutil.which("bash"), used.scratch + "/bash")
    used.run(["cp", used.scratch + "/bash", "bash"])
    before = numbers(used)
    assert used.run(["./bash", "-c", "echo run"]).stdout == "run\n"
    assert ("request_duration_seconds_count", "read") not in grown(used, before)


def test_direct_io_as_ever(used):
    """C14: O_DIRECT may begin and end anywhere, beside others who read the file."""
    used("big('f', 'a'); kept = opened('f'); fd = opened('f', os.O_DIRECT)")
    assert used("version(os.pread(fd, 7, 3))") == ("a", 7)


def test_replaced_meanwhile(two):
    """C1: who has it open, or mapped, keeps the version; who opens it now has the new one, on both hosts."""
    a, b = two
    a("big('f', 'a'); old = opened('f'); other = opened('f'); m = mapped(other); os.close(other)")
    b("version(get('f')); old = opened('f')")
    for writer, reader, name in ((a, b, "b"), (b, a, "c")):
        writer("big('f', name)", name=name)
        assert reader("version(get('f'))") == writer("version(get('f'))") == (name, SIZE)
        assert a("from_fd(old)") == b("from_fd(old)") == a("version(m[:])") == ("a", SIZE)
    a("os.unlink('f')")
    assert a("from_fd(old)") == b("from_fd(old)") == ("a", SIZE)


def test_appended_meanwhile(two):
    """C11: who has it open sees what is appended, on both hosts; the appender's reads and writes come to the daemon."""
    a, b = two
    a("big('f', 'a'); fd = opened('f')")
    b("fd = opened('f')")
    before = numbers(a)
    a("put('f', b'a', os.O_WRONLY | os.O_APPEND)")
    assert grown(a, before)["records_appended_total", None] == 1
    assert a("from_fd(fd)") == b("from_fd(fd)") == ("a", SIZE + 1)
    assert a("os.fstat(fd).st_size") == SIZE + 1
    assert eventually(lambda: b("os.fstat(fd).st_size") == SIZE + 1)
    b("more = opened('f', os.O_RDWR | os.O_APPEND); write_all(more, b'aa')")
    assert b("from_fd(more)") == a("from_fd(fd)") == b("from_fd(fd)") == ("a", SIZE + 3)
    assert a("version(get('f'))") == ("a", SIZE + 3)


def test_edited_meanwhile(two):
    """C10: the edit is in the version after, and its reader's is as it was."""
    a, b = two
    a("big('f', 'a'); fd = opened('f'); m = mapped(fd)")
    for editor in (a, b):
        editor("put_at('f', (5, b'E'))")
        assert editor("get('f')[4:7]") == b"aEa"
    assert a("from_fd(fd)") == a("version(m[:])") == ("a", SIZE)
    a("os.truncate('f', 10)")
    assert b("get('f')") == b"aaaaaEaaaa" and a("from_fd(fd)") == ("a", SIZE)


@pytest.mark.options("edit-copy-max=64K")
def test_edited_in_place_meanwhile(used):
    """C10: too large for a copy, it changes in place for who has it open, by writes and by stores through a mapping."""
    used("big('f', 'a'); fd = opened('f'); e = opened('f', os.O_RDWR); same = os.fstat(fd).st_ino == os.fstat(e).st_ino")
    if not used("same"):
        pytest.skip("the source of this machine shares blocks")
    used("os.pwrite(e, b'WW', 0); s = mmap.mmap(e, SIZE); s[2:4] = b'MM'; s.flush()")
    assert used("os.pread(fd, 5, 0)") == used("os.pread(e, 5, 0)") == b"WWMMa"
    used("del s; os.close(e)")
    assert used("get('f')[:5]") == b"WWMMa"


def test_the_same_inode_by_its_descriptor(used):
    """C10, C15: /proc/self/fd opens it anew for reading, and for writing; for both it is refused, and nothing changes."""
    used("big('f', 'a'); fd = opened('f'); link = '/proc/self/fd/%d' % fd")
    assert used("version(get(link))") == ("a", SIZE)
    assert used.error("os.open", used("link"), os.O_RDWR) == "ESTALE"
    used("put_at(link, (0, b'W'), flags=os.O_WRONLY)")
    assert used("from_fd(fd)") == ("a", SIZE)
    assert used("get('f')[:2]") == b"Wa"
    used("os.close(fd); fd = opened('f'); put_at('f', (0, b'X'))")
    assert used("os.pread(fd, 2, 0)") == b"Wa" and used("get('f')[:2]") == b"Xa"


@pytest.mark.expect_log("so its lock is refused")
def test_locks(two):
    """C6, C22: the version that is current can be locked and read; one that was replaced is refused."""
    a, b = two
    a("big('f', 'a'); fd = opened('f'); fcntl.flock(fd, fcntl.LOCK_SH)")
    b("e = opened('f', os.O_RDWR)")
    assert b.error("fcntl.flock", b("e"), 6) == "EAGAIN"  # LOCK_EX | LOCK_NB
    a("fcntl.flock(fd, fcntl.LOCK_UN)")
    b("fcntl.flock(e, fcntl.LOCK_EX); os.pwrite(e, b'aaab', 0); fcntl.flock(e, fcntl.LOCK_UN); os.close(e)")
    a("fcntl.flock(fd, fcntl.LOCK_SH)")
    assert a("os.pread(fd, 5, 0)") == b"aaaba"
    a("fcntl.flock(fd, fcntl.LOCK_UN)")
    b("big('f', 'c')")
    assert a.error("fcntl.flock", a("fd"), 1) == "ESTALE"
    assert a("from_fd(opened('f'))") == ("c", SIZE)


def test_what_is_locked_is_not_passed_through(two):
    """C6: where anybody has locked the name lately, on any host, who opens it goes on in the current version."""
    a, b = two
    a("big('f', 'a')")
    b("fd = opened('f'); fcntl.lockf(fd, fcntl.LOCK_SH)")
    assert counted(a, "fd = opened('f'); result = from_fd(fd)")[:2] == (("a", SIZE), 0)
    b("fcntl.lockf(fd, fcntl.LOCK_UN); big('f', 'b')")
    a("fcntl.lockf(fd, fcntl.LOCK_SH)")
    assert a("from_fd(fd)") == ("b", SIZE)


def test_databases_are_not_passed_through(used):
    """C25: what is handed straight to the source stays in the kernel's cache, for whoever writes it."""
    used("big('x.db', 'a')")
    assert counted(used, "version(get('x.db'))")[:2] == (("a", SIZE), 0)


def test_the_kernel_lets_go(lab):
    """C24: a file that was passed through takes up no space once it is removed and closed."""
    if not shutil.which("mkfs.ext4"):
        pytest.skip("no mkfs.ext4")
    source = lab.loop_source("ext4", 64 << 20)
    host = lab.host(source, "alpha")
    if told(host) != "used":
        pytest.skip("kernel or libfuse: " + told(host))
    words(host)

    def free():
        st = os.statvfs(source)
        return st.f_bavail * st.f_frsize

    for _ in range(3):
        host("big('f', 'a'); fds = [opened('f') for _ in range(3)]; m = mapped(fds[0]); [os.close(fd) for fd in fds]")
        host("version(get('f')); version(m[:]); del m")
    before = free()
    host("os.unlink('f')")
    assert eventually(lambda: free() >= before + SIZE)


READ = """
import mmap
def work(path, stop):
    n = 0
    while not os.path.exists(stop):
        fd = os.open(path, os.O_RDONLY)
        mapping = mmap.mmap(fd, SIZE, prot=mmap.PROT_READ)
        first = version(os.pread(fd, SIZE, 0))
        os.close(fd)
        assert version(mapping[:]) == first, first
        n += 1
    return n
"""
WRITE = """
def work(path, stop):
    n = 0
    while not os.path.exists(stop):
        big(path, chr(ord('a') + n % 26))
        n += 1
    return n
"""
OTHERS = """
def work(path, stop):
    n = 0
    while not os.path.exists(stop):
        for flags in (os.O_WRONLY | os.O_APPEND, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_RDONLY | os.O_DIRECT):
            os.close(os.open(path, flags))
        n += 1
    return n
"""


def test_opens_of_all_kinds_at_once(two):
    """C1, C8: readers, rewriters and whoever opens it otherwise, on two hosts: no error, and no mixture."""
    stop = two[0].scratch + "/stop"
    two[0]("big('f', 'a')")
    workers = []
    for host in two:
        for code in (READ, READ, WRITE, OTHERS):
            workers.append(host.worker())
            workers[-1](WORDS + code)
            workers[-1].start("work('f', stop)", stop=stop)
    assert not eventually(lambda: any(not w.is_waiting(0.01) for w in workers), 4 / SLOWNESS)
    two[0].touch(stop)
    assert all(w.finish() > 0 for w in workers)


def test_the_daemon_dies(used):
    """C24: what was open stays readable, and nothing else."""
    used.lab.leftovers_expected = True
    used("big('f', 'a'); fd = opened('f')")
    used.kill_daemon()
    assert used("from_fd(fd)") == ("a", SIZE)
    assert used.error("get", "f") == "ENOTCONN"


# ---- where it is not used


def falls_back(host, why):
    words(host)
    host("big('f', 'a')")
    said = told(host)
    assert said.startswith("not used: ") and why in said, said
    found, opens, reads = counted(host, "version(get('f'))")
    assert found == ("a", SIZE) and opens == 0 and reads > 0


@pytest.mark.options("passthrough=off")
def test_switched_off(host):
    falls_back(host, "passthrough=off")


@pytest.mark.options("passthrough=off")
def test_locked_without_it(host):
    """C6: then a lock moves whoever has a large file open to the version that is current."""
    words(host)
    host("big('f', 'a'); fd = opened('f'); big('f', 'b'); fcntl.flock(fd, fcntl.LOCK_SH)")
    assert host("from_fd(fd)") == ("b", SIZE)


def test_libfuse_or_kernel_without_it(host):
    """What is built with an older libfuse says so."""
    version = subprocess.run([DAEMON, "--version"], capture_output=True, text=True, check=True).stdout
    if "libfuse 3.14" in version:
        falls_back(host, "libfuse")
    else:
        assert told(host) == "used" or "kernel" in told(host)


def test_stacked_source(lab):
    """The kernel does not pass through to overlayfs: its depth would be more than is asked for."""
    base = lab.source("base")
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(os.path.join(base, name))
    merged = base + "/merged"
    layers = ",".join("%s=%s/%s" % (key, base, name) for key, name in
                      (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")))
    made = subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", merged], check=False)
    if made.returncode:
        pytest.skip("kernel: no overlayfs over this file system")
    lab.mounts.append(merged)
    host = lab.host(merged, "alpha")
    if "libfuse" in told(host) or "kernel has none" in told(host):
        pytest.skip("kernel or libfuse: " + told(host))
    falls_back(host, "stacked")


def test_a_users_daemon(users_host):
    """Only root's may ask the kernel for it."""
    mine = launch_as_user(users_host)
    mine(WORDS)
    said = mine("os.getxattr('.', 'user.safewritefs.passthrough').decode()")
    assert said.startswith("not used: ") and ("root" in said or "libfuse" in said)
    assert mine("big('f', 'a'); result = version(get('f'))") == ("a", SIZE)
    umount_as_user(users_host)


def test_overlayfs_over_the_mount(lab, mount):
    """Passthrough takes none of the depth that overlayfs has."""
    words(mount)
    mount("big('f', 'a')")
    base = lab.source("base")
    for name in ("upper", "work", "merged"):
        os.mkdir(os.path.join(base, name))
    layers = "lowerdir=%s,upperdir=%s/upper,workdir=%s/work" % (mount.mnt, base, base)
    made = subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", base + "/merged"], check=False)
    if made.returncode:
        pytest.skip("kernel: no overlayfs over this file system")
    try:
        assert mount("version(get(path))", path=base + "/merged/f") == ("a", SIZE)
    finally:
        subprocess.run(["umount", base + "/merged"], check=True)


# ---- what is told


def test_status_tells(lab, source):
    """safewritectl status has it for each mount of this machine, in both forms."""
    lab.host(source, "plain", namespaces=False)
    without = lab.host(source, "other", "passthrough=off", namespaces=False)
    (found,) = json.loads(lab.ctl("status", "--json", source).stdout)
    by_place = {mount["mountpoint"]: mount["passthrough"] for mount in found["mounts"]}
    assert by_place.pop(without.mnt) == "not used: passthrough=off"
    (other,) = by_place.values()
    assert other == "used" or other.startswith("not used: ")
    assert "passthrough not used: passthrough=off, io_uring " in lab.ctl("status", source).stdout
