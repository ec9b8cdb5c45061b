# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon that dies is not the end: the mount comes back by itself (C24; the manual page, CRASHES)."""

import os
import shutil
import signal
import time

import pytest
from background import Background, Journal
from harness import DEAD, SLOWNESS, eventually, read_text
from test_daemon import users_host  # noqa: F401  a fixture


@pytest.fixture
def alpha(lab, source):
    return lab.host(source, "alpha", mount=False)


def mounts(host):
    lines = read_text("/proc/%d/mountinfo" % host.pid).splitlines()
    return [line.split()[4] for line in lines].count(host.mnt)


@pytest.mark.parametrize("over", ["elsewhere", "itself"])
def test_comes_back(lab, source, alpha, over):
    """Killed under load with files open: within 2 s the mount answers, what was synced is in salvage under its name, old
    descriptors get an error at once, locks are free, what was committed is whole; also over the source itself."""
    if over == "itself":
        alpha.mnt = source
    background = Background(alpha)
    assert background.started.returncode == 0, background.started
    supervisors = background.supervisors
    alpha.write("f", b"old")
    reader, writer, locker, loader = (alpha.worker() for _ in range(4))
    reader("rfd = os.open('f', os.O_RDONLY)")
    writer("fd = os.open('f', REPLACE); os.write(fd, b'staged and synced'); os.fsync(fd)")
    locker("os.mkdir('x.lock'); lfd = os.open('f', os.O_RDWR); fcntl.flock(lfd, fcntl.LOCK_EX)")
    loader.start("n = 0\nwhile not error(put, 'load%d' % (n % 9), b'load' * 1000): n += 1\nresult = n")
    assert eventually(lambda: alpha.exists("load8"))
    began = background.crash()
    background.await_next()
    assert time.monotonic() - began < 2 * SLOWNESS
    assert loader.finish() > 8
    assert writer("error(os.write, fd, b'x')") in DEAD and writer("error(os.fsync, fd)") in DEAD
    assert reader("error(os.pread, rfd, 9, 4096)") in DEAD + (None,)  # what the kernel had read may still be there
    assert locker("error(os.stat, 'f')") in DEAD, "the working directory"
    other = alpha.worker()
    assert other("get('f')") == b"old" and {other("len(get('load%d'))" % n) for n in range(8)} == {4000}
    assert other("error(os.mkdir, 'x.lock')") is None
    assert other("fd = os.open('f', os.O_RDWR); error(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)") is None
    other("put('f', b'new')")
    assert other("get('f')") == b"new"
    assert background.supervisors == supervisors and mounts(alpha) == 1
    background.end()
    assert mounts(alpha) == 0
    assert lab.salvaged(source, "f") == [b"staged and synced"]
    if over == "elsewhere":
        assert os.listdir(alpha.mnt) == []


def traced(words):
    """A command that starts another one under strace with these words."""
    if not shutil.which("strace"):
        pytest.skip("no strace")
    # The leak checker is a tracer itself, and there can be one only.
    line = 'export ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0"; exec strace -D -f -qq %s "$@" >/dev/null 2>&1'
    return ["sh", "-c", line % words, "sh"]


def refusing(call, error, first=""):
    """A command that starts another one, and makes a system call of its processes fail, or only the first of each."""
    inject = "inject=%s:error=%s%s" % (call, error, first and ":when=%d" % first)
    return traced("-o /dev/null -e trace=%s -e %s" % (call, inject))


def test_it_asks_its_own_mount_nothing(alpha):
    """A daemon that is killed while it waits for an answer of its own can never end, and everybody waits with it."""
    trace = os.path.join(alpha.scratch, "trace")
    background = Background(alpha, command=traced("-o %s -e trace=%%file" % trace))
    alpha.write("f", b"x")
    background.end()
    lines = [line for line in read_text(trace).splitlines() if '"%s"' % alpha.mnt in line]
    (mounted,) = [number for number, line in enumerate(lines) if " mount(" in line]
    # libfuse may start a mount(8) that writes mtab, and looks at nothing.
    looks = [line for line in lines[mounted + 1 :] if "AT_STATX_DONT_SYNC" not in line and "execve(" not in line]
    assert mounted > 0 and looks == []


@pytest.mark.parametrize("kernel", ["new", "before-6.5"])
def test_nothing_is_written_underneath(alpha, kernel):
    """A program that goes on writing while the mount is dead and comes back never meets the directory underneath."""
    # The first move_mount(2) of each daemon is refused, as older kernels refuse what they do not know.
    command = refusing("move_mount", "EINVAL", 1) if kernel == "before-6.5" else []
    background = Background(alpha, command=command)
    assert background.started.returncode == 0, background.started
    writer = alpha.worker(cwd="/")
    stop = os.path.join(alpha.scratch, "stop")
    writer.start(
        "good = bad = 0\n"
        "while not os.path.exists(stop):\n"
        "    if error(put, path + '/w%d' % (good % 50), b'x'): bad += 1\n"
        "    else: good += 1\n"
        "result = good, bad",
        path=alpha.mnt,
        stop=stop,
    )
    for _ in range(3):
        background.crash()
        background.await_next()
    alpha.touch(stop)
    good, bad = writer.finish()
    assert good and bad > 10
    # The dead ones stay underneath where the new one could only be put on top.
    assert mounts(alpha) == (1 if kernel == "new" else 4)
    background.end()
    assert eventually(lambda: mounts(alpha) == 0)
    assert os.listdir(alpha.mnt) == []


def test_where_fsopen_is_refused(alpha):
    """As containers may do: the mount comes back all the same, though not without a moment between."""
    background = Background(alpha, command=refusing("fsopen", "EPERM"))
    alpha.write("f", b"x")
    background.crash()
    background.await_next()
    assert alpha.worker()("get('f')") == b"x"
    background.end()
    assert mounts(alpha) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("whom", ["daemons", "supervisors"])
def test_signals(lab, source, alpha, whom, number):
    """A signal to either of the two ends both, in order: unmounted, and what was staged is in salvage."""
    background = Background(alpha)
    writer = alpha.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'unfinished')")
    background.signal(getattr(background, whom), number)
    background.await_end()
    assert mounts(alpha) == 0
    assert lab.salvaged(source, "f") == [b"unfinished"]


def test_umount_while_it_is_dead(lab, alpha):
    """Who unmounts the dead mount meant it: no daemon comes back, and both have left."""
    journal = Journal(alpha)
    background = Background(alpha)
    background.crash()
    background.await_next()
    background.crash()  # so soon after the first that there is a pause
    assert not background.answers()
    alpha.umount("-l")
    background.await_end()
    assert mounts(alpha) == 0
    assert journal.says("the dead mount has been unmounted")
    lab.leftovers_expected = True  # the next mount of this machine removes them


def test_sigterm_while_it_is_dead(lab, alpha):
    """Nor when the supervisor is told to end: it takes the dead mount away."""
    background = Background(alpha)
    background.crash()
    background.await_next()
    background.crash()
    background.signal(background.supervisors, signal.SIGTERM)
    background.await_end()
    assert mounts(alpha) == 0
    lab.leftovers_expected = True


def test_gives_up(lab, source, alpha):
    """What kills each daemon is not fed for ever: the sixth crash within a minute is the last, the log says so, and
    programs go on getting the error, not the directory underneath; a mount by hand cures it."""
    journal = Journal(alpha)
    background = Background(alpha)
    for _ in range(5):
        background.crash()
        background.await_next()
    background.crash()
    background.await_end()
    assert mounts(alpha) == 1 and alpha.run("echo x > $MNT/f", cwd="/", check=False).returncode
    assert journal.says("was killed by signal 9 (Killed): starting it again", 5)
    assert journal.says("it is not started again")
    again = Background(alpha)
    assert again.started.returncode == 0
    alpha.write("f", b"x")
    again.end()
    assert mounts(alpha) == 0 and os.listdir(alpha.mnt) == []


def test_restart_no(lab, source, alpha):
    """restart=no: no supervisor, and the mount stays dead."""
    background = Background(alpha, "restart=no")
    assert len(background.daemons) == 1 and background.supervisors == []
    background.crash()
    time.sleep(1.5)
    assert not background.answers() and background.daemons == []
    alpha.umount("-l")
    lab.leftovers_expected = True  # the next mount of this machine removes them


@pytest.mark.parametrize("options", ["", "ro,noexec,noatime,suid,dirsync", "rw,sync,dev,exec,atime"])
def test_options_and_flags_are_kept(lab, source, alpha, options):
    """The mount that comes back has the options of the first one, and looks the same in mountinfo."""

    def shown():
        lines = read_text("/proc/%d/mountinfo" % alpha.pid).splitlines()
        return [line.split()[4:6] + line.split(" - ")[1].split() for line in lines if " %s " % alpha.mnt in line]

    background = Background(alpha, options)
    before = shown()
    background.crash()
    background.await_next()
    assert len(before) == 1 and shown() == before
    assert alpha.error("os.mkdir", "d") == ("EROFS" if options.startswith("ro") else None)
    background.end()


def test_of_an_ordinary_user(lab, users_host):  # noqa: F811
    """His mount comes back, too."""
    host, me = users_host, {"uid": 65534, "gid": 65534}
    background = Background(host, **me)
    assert background.started.returncode == 0, background.started
    host.worker(**me)("put('f', b'old')")
    began = background.crash()
    assert eventually(lambda: host.run("cat $MNT/f", cwd="/", check=False, **me).stdout == "old")
    assert time.monotonic() - began < 2 * SLOWNESS
    assert mounts(host) == 1
    background.end_programs()
    host.run(["fusermount3", "-u", host.mnt], cwd="/", **me)
    background.await_end()
