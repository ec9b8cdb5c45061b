# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as a program: start, end, what findmnt and df say, users without root (C24, and the manual page)."""

import os
import re
import shutil
import signal
import stat
import subprocess
import time

import harness
import pytest
from harness import CTL, DAEMON, eventually, read_text

NOBODY = 65534


def background(host, *words, check=False, **named):
    """Starts the daemon without -f: the result of the parent."""
    argv = [word for word in host.argv() if word != "-f"] + list(words)
    return host.run(argv, check=check, cwd="/", **named)


def end_background(host, source):
    """Unmounts, and waits until the daemon has left."""
    assert host.umount(check=False).returncode == 0
    assert eventually(lambda: os.listdir(source + "/.safewritefs/hosts") == [])
    assert eventually(lambda: host.strays()[0] == [])


def test_background(lab, source):
    """The parent returns 0 when the mount is usable, at once, 5 times."""
    host = lab.host(source, "alpha", mount=False)
    for number in range(5):
        done = background(host)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert host.is_mounted()
        host.run("echo %d > f; test $(cat f) = %d" % (number, number))
        end_background(host, source)


def test_background_leaves_the_terminal(lab, source):
    """The daemon and its supervisor have sessions of their own and keep no descriptor of their parent's."""
    host = lab.host(source, "alpha", mount=False)
    background(host)
    pids, proc = host.strays()
    ours = [pid for pid in pids if "safewritefs" in read_text("%s/%d/cmdline" % (proc, pid))]
    assert len(ours) == 2
    for pid in ours:
        for number in (0, 1, 2):
            assert os.readlink("%s/%d/fd/%d" % (proc, pid, number)) == "/dev/null"
        assert os.readlink("%s/%d/cwd" % (proc, pid)) == "/"
        fields = read_text("%s/%d/stat" % (proc, pid)).rsplit(")", 1)[1].split()
        assert int(fields[3]) in ours, "session"
    end_background(host, source)


REFUSALS = {
    "missing-source": ("$D/missing", "$D/mp", "missing"),
    "source-is-a-file": ("$D/file", "$D/mp", "file"),
    "missing-mountpoint": ("$D/source", "$D/nowhere", "nowhere"),
    "mountpoint-is-a-file": ("$D/source", "$D/file", "file"),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("foreground", [True, False])
def test_refusals(lab, source, case, foreground):
    """32 and a message that names what is wrong, from the parent as well."""
    host = lab.host(source, "alpha", mount=False)
    os.mkdir(lab.directory + "/mp")
    with open(lab.directory + "/file", "w", encoding="ascii"):
        pass
    where, mountpoint, word = (text.replace("$D", lab.directory) for text in REFUSALS[case])
    done = host.run([DAEMON, where, mountpoint] + (["-f"] if foreground else []), check=False, cwd="/")
    assert done.returncode == 32 and word in done.stderr, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert os.listdir(source) == []


def test_usage():
    """-h and -V succeed; missing operands do not."""
    shown = subprocess.run([DAEMON, "-h"], capture_output=True, text=True, check=True).stdout
    assert "SOURCE" in shown and "MOUNTPOINT" in shown and "append-interval" in shown
    version = subprocess.run([DAEMON, "-V"], capture_output=True, text=True, check=True).stdout
    assert re.match(r"safewritefs \d.*\nlibfuse \d\S+ \((system|bundled)\)\n$", version)
    for words in ([], ["/tmp"], ["/tmp", "/tmp", "/tmp"], ["--nonsense", "/tmp", "/tmp"]):
        assert subprocess.run([DAEMON, *words], capture_output=True, check=False).returncode != 0
    for words in (["--version"], ["--help"]):
        assert subprocess.run([CTL, *words], capture_output=True, check=False).returncode == 0


def test_findmnt_and_df(host, source):
    """fsname=SOURCE, subtype=safewritefs: findmnt and df tell the truth."""
    line = host.run("findmnt -n -o SOURCE,FSTYPE,TARGET --target $MNT", cwd="/").stdout.split()
    assert line == [source, "fuse.safewritefs", host.mnt]
    shown = host.run("df --output=source,fstype,target $MNT | tail -1", cwd="/").stdout.split()
    assert shown == [source, "fuse.safewritefs", host.mnt]
    mine, theirs = (host.run("df --output=size,itotal %s | tail -1" % d).stdout for d in (host.mnt, source))
    assert mine == theirs


def test_source_with_strange_name(lab):
    """Spaces, commas, backslashes and newlines in the names of both directories."""
    source = lab.source("a b,c\\d\te")
    host = lab.host(source, "alpha", mount=False)
    host.launch()
    assert eventually(lambda: "fuse.safewritefs" in read_text("/proc/%d/mountinfo" % host.pid)), host.log_text()
    host.write("f", b"x")

    def shown():
        """Others mount and unmount while mountinfo is read, and a line can be missed."""
        line = host.run("findmnt -n -o SOURCE --mountpoint $MNT || true").stdout.strip("\n")
        return line.replace("\\x09", "\t")

    assert eventually(lambda: shown() == source), shown()


def test_nonempty_mountpoint(lab, source):
    """As every FUSE 3 file system: over a directory that is not empty; what is below is covered, not changed."""
    host = lab.host(source, "alpha", mount=False)
    with open(host.mnt + "/below", "w", encoding="ascii"):
        pass
    host.mount()
    assert host.list() == []
    assert os.listdir(host.mnt) == ["below"]


def test_mounted_over_the_source_itself(lab):
    """SOURCE and MOUNTPOINT may be one directory: the unprotected one is covered."""
    source = lab.source("both")
    host = lab.host(source, "alpha", mount=False)
    host.mnt = source
    host.mount()
    host.write("f", b"x")
    assert host.read("f") == b"x" and host.list() == ["f"]
    with open(source + "/f", "rb") as f:
        assert f.read() == b"x"


def test_crashed_mount_is_cleared(lab, source):
    """A crashed mount ("Transport endpoint is not connected") is cleared at the next start, several times."""
    host = lab.host(source, "alpha")
    for _ in range(3):
        host.kill_daemon()
        host.end_processes()
        assert host.run("ls " + host.mnt, cwd="/", check=False).returncode != 0
        assert host.is_mounted()
        host.mount()
        host.write("f", b"x")
        assert host.read("f") == b"x"
    assert read_text("/proc/%d/mountinfo" % host.pid).count(" %s " % host.mnt) == 1


def test_umount_ends_the_daemon(lab, source):
    """umount: the daemon leaves with 0, at once; nothing of it stays on the source."""
    host = lab.host(source, "alpha")
    host.write("f", b"x")
    begin = time.monotonic()
    assert host.unmount() == []
    assert time.monotonic() - begin < 3
    assert host.daemon.returncode == 0 and os.listdir(source + "/.safewritefs/hosts") == []


def test_umount_is_refused_while_in_use(host):
    """EBUSY while a stage is open; the stage is none the worse."""
    writer = host.worker(cwd="/")
    writer("fd = os.open(path, REPLACE, 0o644); os.write(fd, b'one ')", path=host.mnt + "/f")
    done = host.umount(check=False)
    assert done.returncode == 32 and "busy" in done.stderr
    writer("os.write(fd, b'two'); os.close(fd)")
    assert host.read("f") == b"one two"


def test_lazy_umount_with_open_stage(lab, source):
    """umount -l: who holds a file finishes it; then the daemon leaves."""
    host = lab.host(source, "alpha")
    writer = host.worker()
    writer("fd = os.open('f', REPLACE, 0o644); os.write(fd, b'one ')")
    host.umount("-l")
    writer("os.write(fd, b'two'); os.close(fd); os.chdir('/')")
    host("os.chdir('/')")
    assert host.daemon.wait(timeout=10) == 0
    host.gone = True
    with open(source + "/f", "rb") as f:
        assert f.read() == b"one two"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_to_the_daemon(lab, source, number):
    """A signal ends it in order: unmounted, stages in salvage, old versions whole, status 0."""
    host = lab.host(source, "alpha")
    host.write("f", b"old")
    writer = host.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'unfinished')")
    host.daemon.end(number)
    assert host.daemon.wait(timeout=10) == 0
    host.gone = True
    assert not host.is_mounted()
    with open(source + "/f", "rb") as f:
        assert f.read() == b"old"
    assert lab.salvaged(source, "f") == [b"unfinished"]
    assert writer("error(os.write, fd, b'x')") is not None


def test_a_shell_that_goes_on_has_not_closed(lab, source):
    """C3: bash opens, dups and closes a copy; what it has open when the daemon is ended was not closed, and is in salvage."""
    host = lab.host(source, "alpha")
    shell = host.popen("exec 3>busy; echo part >&3; echo ready; sleep 1000", stdout=subprocess.PIPE, text=True)
    assert shell.stdout.readline() == "ready\n"
    host.gone = True
    host.daemon.end(signal.SIGTERM)
    assert host.daemon.wait(timeout=10) == 0
    assert sorted(os.listdir(source)) == [".safewritefs"]
    assert lab.salvaged(source, "busy") == [b"part\n"]


def test_unmount_commits_what_was_closed(lab, source):
    """Clean unmount commits nothing wrongly: closed is there, killed is not."""
    host = lab.host(source, "alpha")
    host.python("put('closed', b'x' * 100000)")
    killed = host.worker()
    killed("fd = os.open('killed', REPLACE, 0o600); os.write(fd, b'y')")
    killed.kill()
    assert host.unmount() == []
    assert sorted(os.listdir(source)) == [".safewritefs", "closed"]


def test_many_descriptors(host):
    """2,000 files open at once by one process, and 300 staged ones."""
    host.run("for i in $(seq 2000); do echo $i > r$i; done")
    worker = host.worker()
    worker(
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "fds = [os.open('r%d' % i, os.O_RDONLY) for i in range(1, 2001)]\n"
        "staged = [os.open('w%d' % i, REPLACE, 0o600) for i in range(300)]\n"
        "for fd in staged: os.write(fd, b'data')"
    )
    assert worker("all(os.read(fd, 10) == b'%d\\n' % (i + 1) for i, fd in enumerate(fds))")
    worker("for fd in staged: os.close(fd)")
    assert len([name for name in host.list() if name[0] == "w"]) == 300


@pytest.mark.limit(150)
def test_no_growth(host):
    """20,000 small writes: the daemon's memory and descriptors stay where they are."""
    host("for i in range(2000): put('f%d' % (i % 50), b'x' * 100)")
    eventually(lambda: False, 0.3)
    before, open_before = host.resident(), len(os.listdir("/proc/%d/fd" % host.daemon.target))
    worker = host.worker()
    worker.start("for i in range(8000): put('f%d' % (i % 50), b'x' * 100); get('f%d' % (i % 50))")
    worker.finish(100)
    assert eventually(lambda: len(os.listdir("/proc/%d/fd" % host.daemon.target)) <= open_before + 5)
    assert host.resident() < before * 1.3 + 4000


def test_callers_of_other_users(lab):
    """A root mount serves everybody, each as himself."""
    source = lab.source("shared")
    os.chmod(source, 0o1777)
    host = lab.host(source, "alpha")
    host.worker(uid=NOBODY, gid=NOBODY)("put('f', b'x')")
    assert os.stat(source + "/f").st_uid == NOBODY
    assert host.read("f") == b"x"


@pytest.fixture
def users_host(lab, monkeypatch):
    """A host where nobody owns the source and the mount point and may open /dev/fuse, as everybody usually may."""
    helper = "/usr/bin/fusermount3"
    if not os.path.exists(helper) or not os.stat(helper).st_mode & stat.S_ISUID:
        pytest.skip("fusermount3 is not setuid root")
    # The build may stand where only root may go, below /root for example.
    daemon = os.path.join(lab.directory, "safewritefs")
    shutil.copy(harness.DAEMON, daemon)
    monkeypatch.setattr(harness, "DAEMON", daemon)
    source = lab.source("own")
    os.chown(source, NOBODY, NOBODY)
    host = lab.host(source, "alpha", mount=False)
    os.chown(host.mnt, NOBODY, NOBODY)
    device = os.path.join(lab.directory, "fuse")
    os.mknod(device, stat.S_IFCHR | 0o666, os.stat("/dev/fuse").st_rdev)
    os.chmod(device, 0o666)
    host.run(["mount", "--bind", device, "/dev/fuse"], cwd="/")
    return host


def launch_as_user(host):
    """Mounts as nobody; returns a worker of that user."""
    host.launch(uid=NOBODY, gid=NOBODY)
    mine = host.worker(uid=NOBODY, gid=NOBODY, cwd="/")
    probe = "os.path.ismount(path) and error(put, path + '/f', b'x') is None"
    ready = eventually(lambda: host.daemon.poll() is not None or mine(probe, path=host.mnt))
    assert ready and host.daemon.poll() is None, host.log_text()
    return host.worker(uid=NOBODY, gid=NOBODY)


def umount_as_user(host):
    host.end_processes()
    host.run(["fusermount3", "-u", host.mnt], cwd="/", uid=NOBODY, gid=NOBODY)
    assert host.daemon.wait(timeout=10) == 0
    host.gone = True


def test_ordinary_user(users_host):
    """An ordinary user mounts a directory of his own through fusermount3, uses it and unmounts it."""
    host = users_host
    mine = launch_as_user(host)
    mine("put('f', b'old'); os.mkdir('d'); put('d/g', b'x'); os.chmod('f', 0o600)")
    writer = host.worker(uid=NOBODY, gid=NOBODY)
    writer("fd = os.open('f', REPLACE); os.write(fd, b'new')")
    assert mine("get('f')") == b"old" and writer("get('f')") == b"new"
    writer("os.close(fd)")
    assert mine("get('f')") == b"new"
    killed = host.worker(uid=NOBODY, gid=NOBODY)
    killed("fd = os.open('f', REPLACE); os.write(fd, b'never')")
    killed.kill()
    assert mine("get('f')") == b"new"
    line = host.run("findmnt -n -o SOURCE,FSTYPE --mountpoint " + host.mnt, cwd="/").stdout.split()
    assert line == [host.source, "fuse.safewritefs"]
    umount_as_user(host)
    with open(host.source + "/f", "rb") as f:
        assert f.read() == b"new"


def test_ordinary_user_restarts_after_a_crash(users_host):
    """His crashed mount is cleared at his next start, too."""
    for _ in range(3):
        launch_as_user(users_host)("put('f', b'x')")
        users_host.kill_daemon()
        users_host.end_processes()
    assert launch_as_user(users_host)("get('f')") == b"x"
    umount_as_user(users_host)
    assert not users_host.is_mounted()


def test_namespaces_of_the_test_itself(mount):
    """The same daemon beside the test's own processes, without namespaces."""
    mount.write("f", b"x")
    writer = mount.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'y')")
    assert mount.read("f") == b"x"
    writer("os.close(fd)")
    assert mount.read("f") == b"y"


@pytest.mark.expect_log("no copy could be made")
@pytest.mark.parametrize("why", ["directory", "owner"])
def test_ordinary_user_breaks_an_append(users_host, why):
    """C11, C24: where he may not replace the file, or could not give the copy to its owner, appends go on in place, and
    the log says so."""
    host = users_host
    mine = launch_as_user(host)
    mine("os.mkdir('d'); put('d/log', b'one\\ntorn')")
    log = host.source + "/d/log"
    os.chmod(log, 0o666)
    os.chmod(host.source + "/d", 0o555 if why == "directory" else 0o755)
    os.chown(log, NOBODY if why == "directory" else 31001, -1)
    before = os.stat(log)
    text = "gone.0123456789abcdef 1 append 4 9 %d d/log" % before.st_ino
    os.symlink(text, "%s/.safewritefs/leases/%016x" % (host.source, before.st_ino))
    mine("put('d/log', b'two\\n', flags=os.O_WRONLY | os.O_APPEND)")
    after = os.stat(log)
    assert (after.st_ino, after.st_uid) == (before.st_ino, before.st_uid)
    with open(log, "rb") as f:
        assert f.read() == b"one\ntwo\n"
    assert "d/log: a host that is dead was appending to it" in host.log_text()
    umount_as_user(host)
