# SPDX-License-Identifier: GPL-2.0-or-later
"""Another daemon goes on with a mount, and programs notice nothing (safewritectl(1), upgrade; docs/design.md, "A daemon
that is followed by another").  Each case is one that a crash would have lost."""

import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import harness
import pytest
import test_passthrough
from background import Background, Journal
from harness import SLOWNESS, eventually, payload, read_text
from test_ctl import documented, names_in


@pytest.fixture
def alpha(lab, source):
    return lab.host(source, "alpha", mount=False)


class Mounted:
    """The mount of a host in the background.  Called, it is upgraded, and that is looked at."""

    def __init__(self, host):
        self.host = host
        self.background = Background(host, "lease=8")
        assert self.background.started.returncode == 0, self.background.started

    def __call__(self, program=None, times=1):
        for _ in range(times):
            (before,) = self.background.daemons
            done = ask(self.host, program)
            assert done.returncode == 0, done
            waited = int(re.search(r"programs waited for (\d+) ms", done.stdout).group(1))
            assert waited < 2000 * SLOWNESS
            assert eventually(lambda before=before: before not in self.background.daemons)
            (after,) = self.background.daemons
            assert before != after
        return waited

    def end(self):
        if self.host.is_mounted():
            self.background.end()


@pytest.fixture
def mounted(alpha):
    return Mounted(alpha)


def ending(test):
    """Whatever was mounted by `mounted` is unmounted before it is looked at what is left."""

    @functools.wraps(test)
    def run(**named):
        test(**named)
        if "unmoved" in named:
            named["unmoved"].finish()
        named["mounted"].end()

    return run


def ask(host, program=None):
    return host.run([harness.CTL, "upgrade", host.mnt, *([program] if program else [])], check=False, cwd="/", timeout=60)


def refused(host, sentence, program=None):
    done = ask(host, program)
    assert done.returncode == 1 and sentence in done.stderr, done


@ending
def test_reading(mounted, alpha):
    """C1: open versions, old ones too, mappings, inode numbers and working directories are what they were; the pages
    that the kernel keeps are used on; a directory is listed on where the listing stood."""
    alpha("os.mkdir('d'); os.mkdir('d/e')")
    for n in range(500):
        alpha.write("d/f%03d" % n, b"x")
    alpha.write("v", payload("one", 300000))
    reader = alpha.worker(cwd=alpha.mnt + "/d/e")
    before = reader(
        "import mmap\n"
        "fd = os.open('../../v', os.O_RDONLY); m = mmap.mmap(fd, 0, prot=mmap.PROT_READ); first = os.read(fd, 1000)\n"
        "it = os.scandir('..'); seen = [next(it).name for _ in range(100)]\n"
        "result = os.fstat(fd).st_ino, os.stat('.').st_ino, os.stat('../../v').st_mtime_ns"
    )
    alpha.write("v", payload("two", 300000))
    mounted(times=3)
    after = reader(
        "seen += [entry.name for entry in it]\n"
        "result = first + os.read(fd, 1 << 20), bytes(m), os.fstat(fd).st_ino, os.stat('.').st_ino, sorted(seen)"
    )
    assert after[0] == after[1] == payload("one", 300000)
    assert after[2:4] == before[:2]
    assert after[4] == sorted(["e"] + ["f%03d" % n for n in range(500)])
    assert alpha.read("v") == payload("two", 300000)
    assert reader("os.getcwd()") == alpha.mnt + "/d/e" and reader("get('../f007')") == b"x"


@ending
def test_passed_through(mounted, alpha, source):
    """C1, C6: a large version that the kernel reads by itself is read on without us, and who opens it after the upgrade
    joins those who had it before; the last of them lets it go."""
    if test_passthrough.told(alpha) != "used":
        pytest.skip("kernel or libfuse: " + test_passthrough.told(alpha))
    size = test_passthrough.SIZE
    test_passthrough.words(alpha)
    counted = functools.partial(test_passthrough.counted, alpha)
    alpha("big('f', 'a'); old = opened('f'); m = mapped(old); big('f', 'b'); now = opened('f')")
    mounted(times=2)
    assert counted("from_fd(old), version(m[:]), from_fd(now)") == ((("a", size), ("a", size), ("b", size)), 0, 0)
    assert counted("more = opened('f'); result = from_fd(more)") == (("b", size), 1, 0)
    assert alpha("w = os.open('f', os.O_RDWR); os.pwrite(w, b'c' * SIZE, 0); os.close(w); get('f')") is None
    assert counted("version(get('f'))") == (("c", size), 1, 0)
    assert counted("from_fd(old), from_fd(now), from_fd(more)")[0] == (("a", size), ("b", size), ("b", size))
    alpha("[os.close(fd) for fd in (old, now, more)]; m.close()")
    inode = os.stat(source + "/f").st_ino
    mounted()
    assert counted("version(get('f'))") == (("c", size), 1, 0) and os.stat(source + "/f").st_ino == inode


@ending
def test_writing(mounted, alpha, source):
    """C3, C9, C10, C14: what was staged before is committed by the close after, whole, and seen by nobody until then."""
    alpha.write("edited", payload("base", 100000))
    alpha.write("replaced", b"old")
    writer = alpha.worker()
    writer(
        "new = os.open('new', REPLACE); os.write(new, b'half ')\n"
        "rep = os.open('replaced', REPLACE); os.write(rep, b'half ')\n"
        "edit = os.open('edited', os.O_RDWR); os.pwrite(edit, b'EDIT', 50000)\n"
        "tmp = os.open('.', os.O_TMPFILE | os.O_RDWR); os.write(tmp, b'no name ')\n"
        "gone = os.open('gone', os.O_RDWR | os.O_CREAT | os.O_TRUNC); os.write(gone, b'gone '); os.unlink('gone')\n"
        "app = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT); os.write(app, b'first\\n')\n"
        "clean = os.open('replaced2', REPLACE)"
    )
    mounted(times=2)
    assert not alpha.exists("new") and alpha.read("replaced") == b"old" and alpha.read("edited") == payload("base", 100000)
    writer(
        "os.write(new, b'and half'); os.write(rep, b'and half'); os.pwrite(edit, b'MORE', 60000)\n"
        "os.write(tmp, b'yet'); os.write(gone, b'still'); os.write(app, b'second\\n')\n"
        "assert get('new') == b'half and half', 'its own'"
    )
    mounted()
    assert writer("os.pread(gone, 99, 0), os.fstat(gone).st_nlink, os.fstat(new).st_size") == (b"gone still", 0, 13)
    writer(
        "os.link('/proc/self/fd/%d' % tmp, 'named', src_dir_fd=os.open('.', os.O_RDONLY))\n"
        "for fd in (new, rep, edit, tmp, gone, app, clean): os.close(fd)"
    )
    content = bytearray(payload("base", 100000))
    content[50000:50004] = b"EDIT"
    content[60000:60004] = b"MORE"
    assert alpha.read("new") == alpha.read("replaced") == b"half and half"
    assert alpha.read("edited") == bytes(content)
    assert alpha.read("named") == b"no name yet" and not alpha.exists("gone")
    assert eventually(lambda: alpha.read("log") == b"first\nsecond\n")
    assert alpha.read("replaced2") == b""
    assert alpha.list() == ["edited", "log", "named", "new", "replaced", "replaced2"]


@ending
def test_killed_afterwards(lab, mounted, alpha, source):
    """C4, C7: who is killed after the upgrade commits nothing, and what was written before and after is in salvage."""
    alpha.write("f", b"old")
    writer = alpha.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'before '); os.fsync(fd)")
    mounted()
    writer("os.write(fd, b'after')")
    writer.kill()
    assert eventually(lambda: lab.salvaged(source, "f")) == [b"before after"]
    assert alpha.read("f") == b"old"


@ending
def test_died_meanwhile(lab, mounted, alpha, source):
    """C4: the same for who dies while nobody serves the mount."""
    alpha.write("f", b"old")
    writers = [alpha.worker() for _ in range(5)]
    for n, writer in enumerate(writers):
        writer("fd = os.open(name, REPLACE); os.write(fd, b'torso')", name="f%d" % n)
    upgrading = alpha.popen([harness.CTL, "upgrade", alpha.mnt], cwd="/")
    for writer in writers:
        writer.process.end()
    assert upgrading.wait(timeout=30 * SLOWNESS) == 0
    for n in range(5):
        assert eventually(lambda n=n: lab.salvaged(source, "f%d" % n)) == [b"torso"]
    assert alpha.list() == ["f"]


@ending
def test_handed_down(mounted, alpha):
    """C3: the proof that a close is the last one is made from what was known before: copies of forked children."""
    writer = alpha.worker()
    writer(
        "fd = os.open('f', REPLACE); os.write(fd, b'x')\n"
        "r, w = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.close(w); os.read(r, 1); os._exit(0)\n"
        "os.close(r); copy = os.dup(fd)"
    )
    mounted()
    writer("os.close(fd)")
    assert not alpha.exists("f")
    writer("os.close(copy)")
    assert alpha.exists("f"), "the child's copies are inherited"
    writer("os.close(w); os.waitpid(pid, 0)")


LOCK = "fcntl.flock(fd, fcntl.LOCK_EX%s)"
RANGE = "fcntl.lockf(fd, fcntl.LOCK_EX%s, 10, 5)"


@pytest.mark.parametrize("call", [LOCK, RANGE])
@ending
def test_file_locks(lab, mounted, alpha, source, call):
    """C22: who had a lock has it, against programs here and on another host; who waits goes on waiting in his turn, can be
    interrupted, and gets it when it is given back."""
    beta = lab.host(source, "beta", options="lease=8")
    alpha.write("f", b"0123456789abcdef")
    holder, second, third, quitter = (alpha.worker() for _ in range(4))
    for worker in (holder, second, third, quitter):
        worker("fd = os.open('f', os.O_RDWR)")
    holder(call % "")
    second.start(call % "" + "; os.write(fd, b'second'); result = time.monotonic()")
    assert second.is_waiting()
    third.start(call % "" + "; os.write(fd, b'third'); result = time.monotonic()")
    quitter("import signal\ndef stop(*_): raise InterruptedError(4, 'x')\nsignal.signal(signal.SIGUSR1, stop)")
    quitter.start("error(lambda: %s)" % (call % ""))
    assert third.is_waiting() and quitter.is_waiting()
    mounted(times=2)
    assert second.is_waiting() and third.is_waiting() and quitter.is_waiting()
    stranger = beta.worker()
    for worker in (alpha.worker(), stranger):
        worker("fd = os.open('f', os.O_RDWR)")
        assert worker("error(lambda: %s)" % (call % " | fcntl.LOCK_NB")) == "EAGAIN"
    quitter.process.end(signal.SIGUSR1)
    assert quitter.finish() == "EINTR"
    holder("os.pwrite(fd, b'holder', 0); " + (call % "").replace("LOCK_EX", "LOCK_UN"))
    assert second.finish()
    assert third.is_waiting()
    mounted()
    assert third.is_waiting()
    second("os.close(fd)")
    assert third.finish()
    third.kill()
    assert eventually(lambda: stranger("error(lambda: %s)" % (call % " | fcntl.LOCK_NB")) is None)


@ending
def test_lock_files(lab, mounted, alpha, source):
    """C18 to C20: a lock file is still its owner's, no other may remove it, here or elsewhere, and it ends with him."""
    beta = lab.host(source, "beta", options="lease=8")
    owner = alpha.worker()
    owner("os.close(os.open('x.lock', os.O_CREAT | os.O_EXCL | os.O_WRONLY)); os.mkdir('y.lock')")
    other = alpha.worker()
    other("os.close(os.open('z.lock', os.O_CREAT | os.O_EXCL | os.O_WRONLY))")
    mounted(times=2)
    for host in (alpha, beta):
        assert host.error("os.unlink", "x.lock") == "EBUSY" and host.error("os.rmdir", "y.lock") == "EBUSY"
        assert host.error("os.open", "x.lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == "EEXIST"
    other("os.unlink('z.lock')")
    owner.kill()
    began = time.monotonic()
    assert eventually(lambda: not beta.exists("x.lock") and not beta.exists("y.lock"), 10)
    assert time.monotonic() - began < 2 * SLOWNESS
    assert not alpha.exists("z.lock")


@ending
def test_unlocked_meanwhile(mounted, alpha):
    """C6: a lock given back commits what was staged under it, before and after."""
    worker = alpha.worker()
    worker("fd = os.open('f', REPLACE); fcntl.flock(fd, fcntl.LOCK_EX); os.write(fd, b'locked')")
    mounted()
    assert not alpha.exists("f") or alpha.read("f") == b""
    worker("fcntl.flock(fd, fcntl.LOCK_UN)")
    assert alpha.read("f") == b"locked"
    worker("os.close(fd)")


@ending
def test_private_and_stream(mounted, alpha, source):
    """C16, C25: closed private files stay this host's and can be renamed; streams are published on."""
    alpha.write("a.pkl.thread-1-pid-2", b"private")
    (name,) = alpha.list()
    writer = alpha.worker()
    writer("fd = os.open('run.log', REPLACE); os.write(fd, b'one\\n')")
    mounted()
    assert alpha.read(name) == b"private" and name not in os.listdir(source)
    writer("os.write(fd, b'two\\n')")
    assert eventually(lambda: open(source + "/run.log", "rb").read() == b"one\ntwo\n", 10)
    alpha("os.rename(old, 'public')", old=name)
    assert open(source + "/public", "rb").read() == b"private"
    writer("os.close(fd)")


@ending
def test_under_load(lab, mounted, alpha, source):
    """C1 to C3, C11, C20: programs that write, read, append, lock and walk in loops on two hosts meet no error and no torn
    file while the daemon changes again and again, nor is the host taken for dead."""
    beta = lab.host(source, "beta", options="lease=2")
    versions = [payload("v%d" % n, 70000) for n in range(4)]
    for n, content in enumerate(versions):
        alpha.write("shared", content)
    stop = os.path.join(alpha.scratch, "stop")
    readers = [host.reader("shared", versions) for host in (alpha, beta)]
    loops = {
        "replace": "put('shared', versions[n % 4])",
        "create": "put('c%d' % (n % 40), versions[n % 4]); os.unlink('c%d' % (n % 40))",
        "append": "put('log', b'a%06d\\n' % n, flags=os.O_WRONLY | os.O_APPEND | os.O_CREAT)",
        "edit": "put_at('edited', (n % 70000, b'e'))",
        "lock": "fd = os.open('l', os.O_RDWR | os.O_CREAT); fcntl.flock(fd, fcntl.LOCK_EX); os.close(fd)",
        "lock2": "fd = os.open('l', os.O_RDWR | os.O_CREAT); fcntl.lockf(fd, fcntl.LOCK_EX); os.close(fd)",
        "exclusive": "os.close(os.open('m.lock', os.O_CREAT | os.O_EXCL | os.O_WRONLY)); os.unlink('m.lock')",
        "walk": "[os.stat(os.path.join(top, f)) for top, _, fs in os.walk('tree') for f in fs]",
    }
    alpha("os.makedirs('tree/a/b')")
    for n in range(30):
        alpha.write("tree/a/b/f%d" % n, b"x")
    alpha.write("edited", payload("e", 70000))
    workers = {name: alpha.worker() for name in loops}
    for name, worker in workers.items():
        worker.start(
            "n = 0\nwhile not os.path.exists(stop):\n    %s\n    n += 1\nresult = n" % loops[name],
            stop=stop,
            versions=versions,
        )
    waited = []
    for _ in range(12):
        time.sleep(0.2)
        waited.append(mounted())
    alpha.touch(stop)
    counts = {name: worker.finish(60) for name, worker in workers.items()}
    assert all(counts.values()), counts
    for reader in readers:
        assert sum(reader.stop().values()) > 10
    assert alpha.read("log") == b"".join(b"a%06d\n" % n for n in range(counts["append"]))
    assert "was silent" not in beta.log_text() and len(os.listdir(source + "/.safewritefs/hosts")) == 2
    print("waited", waited, counts)


# ---- when it does not succeed


class Unmoved:
    """What must not have changed after an upgrade that failed."""

    def __init__(self, host, mounted):
        self.host, self.mounted = host, mounted
        host.write("f", b"old")
        self.writer, self.holder, self.waiter = (host.worker() for _ in range(3))
        self.writer("fd = os.open('f', REPLACE); os.write(fd, b'x')")
        self.holder("fd = os.open('l', os.O_RDWR | os.O_CREAT); fcntl.flock(fd, fcntl.LOCK_EX)")
        self.waiter("fd = os.open('l', os.O_RDWR)")
        self.waiter.start("fcntl.flock(fd, fcntl.LOCK_EX)")
        assert self.waiter.is_waiting()
        (self.daemon,) = mounted.background.daemons

    def check(self):
        assert self.mounted.background.daemons == [self.daemon]
        self.writer("os.write(fd, b'.')")
        assert self.host.read("f") == b"old" and self.waiter.is_waiting()

    def finish(self):
        self.check()
        self.mounted()
        assert self.waiter.is_waiting() and self.host.read("f") == b"old"
        self.holder("os.close(fd)")
        self.waiter.finish()
        self.writer("os.close(fd)")
        assert re.fullmatch(rb"x\.+", self.host.read("f"))


@pytest.fixture
def unmoved(alpha, mounted):
    return Unmoved(alpha, mounted)


@pytest.mark.parametrize("program", ["/bin/false", "/bin/true", "/bin/sleep", "/proc/version"])
@ending
def test_no_follower(unmoved, mounted, alpha, program):
    """A program that ends, that hangs, or that is none: the daemon that is there goes on, with all that was open."""
    if program == "/bin/sleep":
        path = os.path.join(alpha.scratch, "hang")
        with open(path, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\nexec sleep 100\n")
        os.chmod(path, 0o755)
        refused(alpha, "the new daemon takes too long", path)
    elif program == "/proc/version":
        refused(alpha, "is no program with a full path", program)
    else:
        refused(alpha, "the new daemon cannot be started, or is none that can follow", program)
    unmoved.check()


@pytest.mark.parametrize("call,when", [("mmap", 2), ("prctl", 2), ("capset", 1)])
@ending
def test_it_dies_on_the_way(unmoved, mounted, alpha, call, when):
    """A follower that is killed while it takes over, in that call of its."""
    if not shutil.which("strace"):
        pytest.skip("no strace")
    path = os.path.join(alpha.scratch, "traced")
    with open(path, "w", encoding="ascii") as f:
        words = "-qq -o /dev/null -e trace=%s -e inject=%s:signal=KILL:when=%d" % (call, call, when)
        f.write('#!/bin/sh\nexec strace -D %s %s "$@"\n' % (words, alpha.lab.daemon))
    os.chmod(path, 0o755)
    refused(alpha, "the new daemon cannot be started", path)
    unmoved.check()


@ending
def test_other_settings(lab, mounted, alpha, source):
    """What cannot change in a running daemon is refused by name when the configuration file has it by now."""
    conf = os.path.join(alpha.scratch, "conf")
    mounted.background.end()
    with open(conf, "w", encoding="ascii") as f:
        f.write("[defaults]\nattr-cache=2\n")
    Background(alpha, "conf=" + conf)
    with open(conf, "w", encoding="ascii") as f:
        f.write("[defaults]\nattr-cache=0\nlease=9\n")
    refused(alpha, "option 'lease' would change from '20s' to '9s'")
    with open(conf, "w", encoding="ascii") as f:
        f.write("[defaults]\nthrough=*.x\n")
    refused(alpha, "option 'through' would change from ")
    with open(conf, "w", encoding="ascii") as f:
        f.write("[defaults]\nattr-cache=0\n")
    assert ask(alpha).returncode == 0


def test_busy_source(lab):
    """While requests wait for the source it is not tried for longer than 2 s, and they are answered afterwards."""
    source = lab.loop_source("ext4", 16 << 20)
    alpha = lab.host(source, "alpha", mount=False)
    background = Background(alpha, "lease=1d")
    worker = alpha.worker()
    subprocess.run(["fsfreeze", "--freeze", source], check=True)
    try:
        worker.start("os.mkdir('d')")
        assert worker.is_waiting()
        began = time.monotonic()
        done = ask(alpha)
        assert done.returncode == 1 and re.search("are being served that take long|source is waited for", done.stderr), done
        assert time.monotonic() - began < 4 * SLOWNESS
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", source], check=True)
    worker.finish()
    assert ask(alpha).returncode == 0 and alpha.exists("d")
    background.end()


# ---- around it


@ending
def test_json(mounted, alpha):
    """The manual page has the names of what --json prints."""
    said = json.loads(alpha.run([harness.CTL, "upgrade", "--json", alpha.mnt], cwd="/").stdout)
    assert names_in(said) == documented("upgrade")
    assert said["mountpoint"] == alpha.mnt and 0 < said["waited"] < 2 * SLOWNESS


@ending
def test_whose(mounted, alpha):
    """Only root has root's daemon followed by another."""
    done = alpha.run([harness.CTL, "upgrade", alpha.mnt], check=False, cwd="/", uid=1000, gid=1000)
    assert done.returncode == 1 and "Operation not permitted" in done.stderr


@ending
def test_ends_as_ever(mounted, alpha, source):
    """umount, SIGTERM to either process and a crash do with a daemon that follows what they do with any."""
    background = mounted.background
    supervisors = background.supervisors
    mounted(times=2)
    assert background.supervisors == supervisors
    background.crash()
    background.await_next()
    assert background.supervisors == supervisors
    mounted()
    background.end()
    assert os.listdir(source + "/.safewritefs/hosts") == []
    for whom in ("daemons", "supervisors"):
        background = Background(alpha)
        assert ask(alpha).returncode == 0
        alpha._worker = None
        background.end_programs()
        background.signal(getattr(background, whom), signal.SIGTERM)
        background.await_end()
        assert not alpha.is_mounted() and os.listdir(source + "/.safewritefs/hosts") == []
    alpha.gone = True


@ending
def test_keeps_what_was_remounted(mounted, alpha):
    """Options that were changed are changed in the next daemon too, and in the one after a crash."""
    argv = [alpha.lab.daemon, alpha.source, alpha.mnt, "-o", "remount,on-kill=commit"]
    alpha.run(argv, cwd="/")
    mounted(times=2)
    worker = alpha.worker()
    worker("fd = os.open('f', REPLACE); os.write(fd, b'torso')")
    worker.kill()
    assert eventually(lambda: alpha.read("f")) == b"torso"


@ending
def test_log(mounted, alpha):
    """The log has who goes on, and why not."""
    journal = Journal(alpha)
    mounted()
    assert journal.says("goes on with %s on %s as host alpha." % (alpha.source, alpha.mnt))
    refused(alpha, "none that can follow", "/bin/false")
    assert journal.says("/bin/false does not go on with the mount, this daemon does: ")


def test_as_a_service(lab, source, alpha):
    """systemd is told the pid of the daemon that goes on, which goes on telling that it is alive."""
    name = lab.directory + "/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.settimeout(15 * SLOWNESS)
        heard = lambda: sock.recv(4096).decode().split("\n")  # noqa: E731
        env = {**os.environ, "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"}
        alpha.mount(env=env)
        assert heard()[0] == "READY=1"
        worker = alpha.worker()
        worker("fd = os.open('f', REPLACE); os.write(fd, b'x')")
        assert ask(alpha).returncode == 0
        lines = []
        while not any(line.startswith("MAINPID=") for line in lines):
            lines += heard()
        (pid,) = [int(line.split("=")[1]) for line in lines if line.startswith("MAINPID=")]
        assert alpha.daemon.wait(timeout=10 * SLOWNESS) == 0
        alpha.gone = True
        lines = heard()
        while lines != ["WATCHDOG=1"]:
            lines = heard()
        worker("os.write(fd, b'y'); os.close(fd)")
        assert alpha.read("f") == b"xy"
        alpha.run(["kill", str(pid)], cwd="/")
        lines = []
        while "STOPPING=1" not in lines:
            lines += heard()
    assert eventually(lambda: not alpha.is_mounted() and os.listdir(source + "/.safewritefs/hosts") == [])


def test_not_in_the_foreground(alpha):
    """Who started a daemon with -f and is no systemd would take it for dead."""
    alpha.mount()
    refused(alpha, "runs in the foreground, and is no service")


@ending
def test_program_was_replaced(mounted, alpha):
    """Without a name it is the program that stands where the daemon was started from, as after a package upgrade."""
    background = mounted.background
    path = os.path.join(alpha.scratch, "safewritefs")
    shutil.copy(alpha.lab.daemon, path)
    mounted(path)
    os.unlink(path)
    refused(alpha, "is no program with a full path")
    shutil.copy(alpha.lab.daemon, path)
    mounted()
    (daemon,) = background.daemons
    link = alpha.run(["readlink", "/proc/%d/exe" % daemon], cwd="/").stdout.strip()
    assert link == path and "follow" in read_text("/proc/%d/root/proc/%d/cmdline" % (alpha.pid, daemon))
