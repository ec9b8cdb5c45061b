# SPDX-License-Identifier: GPL-2.0-or-later
"""The control directory (C26) and recovery: invisible, unforgeable, harmless whatever stands in it."""

import os
import shutil
import socket
import stat

import pytest
from harness import DEAD, eventually, payload

CONTROL = ".safewritefs"


def control(source, *parts):
    return os.path.join(source, CONTROL, *parts)


def refused(lab, source, *words):
    """A mount of the source is refused with status 32, and says why in these words."""
    host = lab.host(source, "refused%d" % len(lab.hosts), mount=False)
    done = host.run(host.argv(), check=False, cwd="/")
    assert done.returncode == 32, done
    assert not host.is_mounted()
    for word in words:
        assert word in done.stderr, done.stderr
    return done.stderr


def test_invisible(hosts, source):
    """C26: not listed, not found, not opened; on the source it is there."""
    a, b = hosts
    a.write("f", b"x")
    assert os.path.isdir(control(source))
    for host in hosts:
        assert host.list() == ["f"]
        for call in ("os.lstat", "os.listdir", "os.readlink"):
            assert host.error(call, CONTROL) == "ENOENT"
        assert host.error("os.open", CONTROL, os.O_RDONLY) == "ENOENT"
        assert host.error("os.open", CONTROL + "/format", os.O_RDONLY) == "ENOENT"
    assert a.run("find . | sort").stdout.split() == [".", "./f"]


@pytest.mark.parametrize("name", [CONTROL, CONTROL + ".x", CONTROL + "-tmp", "d/" + CONTROL, "d/" + CONTROL + "x"])
def test_reserved_names(host, name):
    """C26: names that the protocol reserves: EPERM for whatever would make them, at every depth."""
    host("put('f', b'x'); os.mkdir('d'); os.mkdir('e')")
    calls = [
        ("os.mkdir", name),
        ("os.mknod", name),
        ("os.mkfifo", name),
        ("os.symlink", "x", name),
        ("os.link", "f", name),
        ("os.rename", "f", name),
        ("os.rename", "e", name + "x"),
        ("os.open", name, os.O_WRONLY | os.O_CREAT),
        ("os.open", name, os.O_WRONLY | os.O_CREAT | os.O_EXCL),
        ("put", name, b"x", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ]
    for call in calls:
        assert host.error(*call) == "EPERM", call
    for call in (("os.unlink", name), ("os.rmdir", name), ("os.rename", name, "g")):
        assert host.error(*call) in ("EPERM", "ENOENT"), call
    assert host.list() == ["d", "e", "f"] and host.list("d") == []


def test_similar_names_are_free(host):
    """C26: names that only look like it are the user's."""
    for name in ("safewritefs", ".safewrite", "x.safewritefs", ".SAFEWRITEFS", "..safewritefs"):
        host.write(name, b"x")
        assert host.read(name) == b"x"


def test_layout_and_modes(hosts, source):
    """C26: the format says its version; nobody else may write where the protocol lives, but for sticky stages."""
    with open(control(source, "format"), encoding="ascii") as f:
        assert f.read() == "safewritefs 1\n"
    assert len(os.listdir(control(source, "hosts"))) == 2
    for place in ("", "hosts", "leases"):
        assert os.stat(control(source, place)).st_mode & 0o022 == 0, place
    for directory, _, _ in os.walk(control(source, "hosts")):
        mode = os.stat(directory).st_mode
        assert not mode & 0o002 or mode & stat.S_ISVTX, directory


def test_clean_unmount_leaves_no_host(lab, source):
    """C26: after the last unmount no host stands in the control directory; files are plain files."""
    a, b = lab.host(source, "alpha"), lab.host(source, "beta")
    a.write("f", b"data")
    assert a.unmount() == []
    assert len(os.listdir(control(source, "hosts"))) == 1
    assert b.unmount() == []
    assert os.listdir(control(source, "hosts")) == os.listdir(control(source, "leases")) == []
    with open(source + "/f", "rb") as f:
        assert f.read() == b"data"


@pytest.mark.parametrize("text", ["safewritefs 2\n", "safewritefs 999999999999\n", "something else\n", "", "\0" * 100])
def test_unknown_format(lab, source, text):
    """C26: a format version this program does not know: refused with the reason, nothing touched."""
    os.mkdir(control(source))
    with open(control(source, "format"), "w", encoding="ascii") as f:
        f.write(text)
    refused(lab, source, "format")
    with open(control(source, "format"), encoding="ascii") as f:
        assert f.read() == text
    assert os.listdir(control(source)) == ["format"]
    lab.leftovers_expected = True



FORGERIES = {
    "file": lambda path: open(path, "w", encoding="ascii").close(),
    "symlink": lambda path: os.symlink("/etc", path),
    "dangling": lambda path: os.symlink("nowhere", path),
    "fifo": os.mkfifo,
    "foreign-owner": lambda path: (os.mkdir(path), os.chown(path, 31001, 31001)),
    "writable-for-all": lambda path: (os.mkdir(path), os.chmod(path, 0o777)),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_forged_control_directory(lab, source, kind):
    """C26: what is no directory of the daemon's own is refused with its name; nothing behind a link is touched."""
    FORGERIES[kind](control(source))
    before = os.lstat(control(source))
    etc = sorted(os.listdir("/etc"))
    refused(lab, source, CONTROL)
    after = os.lstat(control(source))
    assert (before.st_ino, before.st_mode, before.st_uid) == (after.st_ino, after.st_mode, after.st_uid)
    assert sorted(os.listdir("/etc")) == etc
    lab.leftovers_expected = True


@pytest.mark.parametrize("place", ["hosts", "leases", "salvage", "format"])
@pytest.mark.parametrize("kind", ["symlink", "fifo", "foreign-owner"])
def test_forged_parts(lab, source, place, kind):
    """C26: each part of it forged: refused, or ignored with whole service; never followed."""
    host = lab.host(source, "first")
    host.unmount()
    path = control(source, place)
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)
    trap = lab.source("trap")
    if kind == "symlink":
        os.symlink(trap, path)
    else:
        FORGERIES[kind](path)
    again = lab.host(source, "second", mount=False)
    again.launch()
    eventually(lambda: again.is_mounted() or again.daemon.poll() is not None)
    if again.daemon.poll() is None:
        again.write("f", b"works")
        assert again.read("f") == b"works"
    else:
        assert again.daemon.returncode == 32 and place in again.log_text()
        again.gone = True
        # Announced lines of the refusal are no accident.
        again.logs = []
    assert os.listdir(trap) == []
    lab.leftovers_expected = True


def hostile_host(source, name):
    """A directory under hosts/ that a dead or malicious mount might have left."""
    path = control(source, "hosts", name)
    os.makedirs(path + "/stage/0")
    return path


def no_record(path, _):
    os.chmod(path, 0o700)


def junk_record(path, _):
    with open(path + "/record", "wb") as f:
        f.write(os.urandom(2000))


def huge_record(path, _):
    with open(path + "/record", "wb") as f:
        f.truncate(1 << 40)


def torn_record(path, _):
    with open(path + "/record", "wb") as f:
        f.write(b"id alpha.0123456789abcdef\nboot")


def fifo_record(path, _):
    os.mkfifo(path + "/record")


def device_record(path, _):
    os.mknod(path + "/record", stat.S_IFCHR | 0o600, os.makedev(1, 5))


def linked_record(path, trap):
    os.symlink(trap + "/secret", path + "/record")


def socket_record(path, _):
    s = socket.socket(socket.AF_UNIX)
    os.chdir(path)
    s.bind("record")
    os.chdir("/")
    s.close()


def linked_stage(path, trap):
    os.rmdir(path + "/stage/0")
    os.symlink(trap, path + "/stage/0")
    junk_record(path, trap)


def linked_stages(path, trap):
    shutil.rmtree(path + "/stage")
    os.symlink(trap, path + "/stage")


def links_in_stage(path, trap):
    os.symlink(trap + "/secret", path + "/stage/0/1")
    os.link(trap + "/secret", path + "/stage/0/2")
    os.mkfifo(path + "/stage/0/3")
    os.mkdir(path + "/stage/0/4")


def deep_stage(path, _):
    os.makedirs(path + "/stage/0/" + "/".join("d" * 200 for _ in range(15)))


def foreign_owner(path, _):
    for directory, _, files in os.walk(path):
        os.chown(directory, 31001, 31001)
        for name in files:
            os.chown(os.path.join(directory, name), 31001, 31001)


HOSTILE = [
    no_record, junk_record, huge_record, torn_record, fifo_record, device_record, linked_record, socket_record,
    linked_stage, linked_stages, links_in_stage, deep_stage, foreign_owner,
]  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
@pytest.mark.expect_log("warning")
def test_hostile_host(lab, source, make):
    """C26: whatever stands under hosts/: the mount works, and nothing outside the control directory is touched."""
    first = lab.host(source, "first")
    first.write("f", b"data")
    first.unmount()
    trap = lab.source("trap")
    with open(trap + "/secret", "w", encoding="ascii") as f:
        f.write("secret")
    os.chmod(trap + "/secret", 0o600)
    make(hostile_host(source, "evil.0123456789abcdef"), trap)
    host = lab.host(source, "second")
    host.write("g", b"works")
    assert host.read("f") == b"data" and host.list() == ["f", "g"]
    assert os.listdir(trap) == ["secret"] and os.stat(trap + "/secret").st_mode == stat.S_IFREG | 0o600
    with open(trap + "/secret", encoding="ascii") as f:
        assert f.read() == "secret"
    lab.leftovers_expected = True


@pytest.mark.expect_log("warning")
def test_many_strange_names(lab, source):
    """C26: strange names everywhere in the control directory."""
    first = lab.host(source, "first")
    first.unmount()
    for place in ("", "hosts", "leases", "salvage"):
        os.makedirs(control(source, place), exist_ok=True)
        for name in ("x", "a\nb", "x" * 255, "..x", "%s%n", "\xff\xfe", "evil.zzzzzzzzzzzzzzzz", "-rf"):
            with open(control(source, place, name), "wb") as f:
                f.write(b"\xff\0" * 50)
        os.symlink("/etc/passwd", control(source, place, "link"))
        os.mkfifo(control(source, place, "fifo"))
    passwd = os.stat("/etc/passwd")
    host = lab.host(source, "second")
    host.write("g", b"works")
    host.run("for i in 1 2 3; do echo $i >> g; done")
    assert host.read("g") == b"works1\n2\n3\n"
    assert lab.salvage(source) == []
    assert os.stat("/etc/passwd").st_ino == passwd.st_ino and os.stat("/etc/passwd").st_mtime == passwd.st_mtime
    lab.leftovers_expected = True


@pytest.mark.expect_log("warning")
def test_hostile_leases_while_mounted(lab, source, host):
    """C26, C11: forged leases on the file being appended to: no crash, no endless wait."""
    host.write("log", b"0\n")
    key = os.stat(source + "/log").st_ino
    evil = "evil.0123456789abcdef 1 "
    forged = [evil + "idle", "x" * 4000, "../../etc/passwd", " ", evil + "append 0 2 %d log" % key]
    for number, target in enumerate(forged):
        for name in ("%d" % key, "%x" % key, "%016x" % key):
            path = control(source, "leases", name)
            if not os.path.lexists(path):
                os.symlink(target, path)
        host.run("echo %d >> log" % (number + 1), timeout=20)
    assert host.read("log") == b"0\n1\n2\n3\n4\n5\n"
    lab.leftovers_expected = True


def test_control_directory_removed_while_mounted(lab, source, host):
    """C24, C26: rm -rf of it by an administrator: errors, no crash, and committed files stay."""
    host.write("f", b"kept")
    shutil.rmtree(control(source))
    assert host.read("f") == b"kept"
    result = host.error("put", "f", b"new")
    assert result in (None, "ESTALE", "EIO", "ENOENT")
    assert host.read("f") == (b"kept" if result else b"new")
    host.list()
    lab.leftovers_expected = True


@pytest.mark.parametrize("deep", ["sub", "sub/deeper"])
def test_control_directory_above(lab, source, deep):
    """C26: a host mounts a subtree of a source that has its own control directory above: refused with the reason."""
    os.makedirs(os.path.join(source, deep))
    lab.host(source, "above")
    refused(lab, os.path.join(source, deep), CONTROL, source)
    assert os.listdir(os.path.join(source, deep)) == []


@pytest.mark.parametrize("deep", ["sub", "sub/deeper"])
def test_control_directory_below(lab, source, deep):
    """C26: and the other way round."""
    os.makedirs(os.path.join(source, deep))
    lab.host(os.path.join(source, deep), "below")
    refused(lab, source, deep)
    assert not os.path.exists(control(source))


def test_two_mounts_in_one_namespace(lab, source):
    """C26: a second mount of the same source on the same machine, simultaneously: another host."""
    a = lab.host(source, "alpha")
    b = lab.host(source, "alpha", inside=a)
    assert a.mnt != b.mnt
    a.write("f", b"1")
    assert b.read("f") == b"1"
    writer = b.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'22')")
    assert a.read("f") == b"1"
    writer("os.close(fd)")
    assert a.read("f") == b"22"
    names = os.listdir(control(source, "hosts"))
    assert len(names) == 2 and all(name.startswith("alpha.") for name in names)


def test_equal_hostnames(lab, source):
    """C26: two machines with one hostname, equal pids of daemons and writers."""
    a, b = lab.host(source, "twin"), lab.host(source, "twin")
    assert a.daemon.inner_pid == b.daemon.inner_pid
    writers = [host.worker(pid=500) for host in (a, b)]
    data = [payload("first", 20_000), payload("second", 30_000)]
    reader = a.reader("f", data)
    for writer, content in zip(writers, data):
        writer.start("for i in range(50): put('f', data, piece=5000)", data=content)
    for writer in writers:
        writer.finish()
    reader.stop()
    assert a.read("f") == b.read("f") and a.read("f") in data


def test_restart_cleans_up_after_a_dead_predecessor(lab, source):
    """C26, C7, C24: kill -9 of the daemon: started again on the same machine it clears the mount, salvages, goes on."""
    a, b = lab.host(source, "alpha"), lab.host(source, "beta")
    a.write("f", b"old")
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'synced'); os.fsync(fd)")
    other = a.worker()
    other("fd2 = os.open('n', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600); os.write(fd2, b'claimed')")
    a.kill_daemon()
    assert writer("error(os.write, fd, b'x')") in DEAD
    assert writer("error(os.stat, 'f')") in DEAD
    assert b.read("f") == b"old"
    a.end_processes()
    a.mount()
    assert len(os.listdir(control(source, "hosts"))) == 2
    assert b"synced" in lab.salvaged(source)
    assert {entry["reason"] for entry in lab.salvage(source)} == {"crashed"}
    assert a.read("f") == b"old" and a.list() == b.list() == ["f"]
    b("put('n', b'free', flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL)")
    assert a.read("n") == b"free"


def test_salvage_after_a_crash_knows_the_file(lab, source):
    """C7, C26: fsynced bytes of a crashed mount can be restored to where they belong: salvage tells the name."""
    a = lab.host(source, "alpha")
    a("os.mkdir('d'); put('d/f', b'old')")
    writer = a.worker()
    writer("fd = os.open('d/f', REPLACE); os.write(fd, b'synced'); os.fsync(fd)")
    a.kill_daemon()
    a.end_processes()
    a.mount()
    assert lab.salvaged(source, "d/f") == [b"synced"]
    assert lab.salvage(source, "d/f")[0]["synced"] is True


def test_predecessor_died_in_the_middle_of_everything(lab, source):
    """C24, C26: kill -9 of the daemon under load, five times: old versions whole, appends whole, no litter."""
    a, b = lab.host(source, "alpha"), lab.host(source, "beta")
    versions = [payload("v%d" % n, 40_000) for n in range(3)]
    a.write("f", versions[0])
    a.write("e", b"." * 4096)
    reader = b.reader("f", versions)
    for number in range(5):
        rewriter, editor, appender = a.worker(), a.worker(), a.worker()
        rewriter.start("for i in range(10**6): put('f', data[i % 2], piece=9000)", data=versions[1:])
        editor.start("for i in range(10**6): put_at('e', (64 * (i % 64), bytes([97 + i % 26]) * 64))")
        appender.start("for i in range(10**6): put('log', b'r%d %06d\\n' % (n, i), flags=os.O_WRONLY | os.O_CREAT"
                       " | os.O_APPEND)", n=number)
        rewriter.is_waiting(0.1 + 0.05 * number)
        assert eventually(lambda: os.path.exists(source + "/log") and os.path.getsize(source + "/log"))
        a.kill_daemon()
        a.end_processes()
        a.mount()
        assert a.read("f") in versions and a.read("f") == b.read("f")
        blocks = [a.read("e")[at : at + 64] for at in range(0, 4096, 64)]
        assert all(block == block[:1] * 64 for block in blocks)
        assert a.read("log").endswith(b"\n")
    reader.stop()
    counts = {}
    for line in b.read("log").decode().splitlines():
        who, record = line.split(" ")
        assert int(record) == counts.get(who, 0), line
        counts[who] = int(record) + 1
    assert len(os.listdir(control(source, "hosts"))) == 2
    assert set(a.list()) == set(b.list()) == {"e", "f", "log"}
