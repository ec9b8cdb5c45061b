# SPDX-License-Identifier: GPL-2.0-or-later
"""When a handle commits: every way in which descriptors end (C3), seen by readers on both hosts (C1, C2)."""

import os
import subprocess
import time

import pytest
from harness import PYTHON, eventually, payload

OLD, NEW = payload("old", 60_000), payload("new", 90_000)

# name: what a program does.  $P holds the new content, f is the file.
SHELL = {
    "redirection": "cat $P > f",
    "external-then-close": "cat < $P > f; true",
    "subshell": "(head -c 30000 $P; sleep 0.1; tail -c +30001 $P) > f",
    "braces": "{ head -c 30000 $P; sleep 0.1; tail -c +30001 $P; } > f",
    "builtin-and-children": '{ IFS= read -r line < $P; printf "%s\\n" "$line"; sleep 0.1; tail -n +2 $P; } > f',
    "pipeline": "cat $P | (sleep 0.05; cat) > f",
    "exec-descriptor": "exec 7> f; head -c 30000 $P >&7; sleep 0.1; tail -c +30001 $P >&7; exec 7>&-",
    "tee": "head -c 90000 $P | tee f > /dev/null",
    "dd": "dd if=$P of=f bs=7000 status=none",
    "background-writer": "(sleep 0.1; cat $P) > f & wait",
    "grandchild-outlives": "{ head -c 30000 $P; (sleep 0.2; tail -c +30001 $P) & } > f; sleep 0.5",
    "tar-like": "exec 5> f; sh -c 'exec 6>&5 5>&-; cat $P >&6' ; exec 5>&-",
}

PROGRAMS = {
    "popen-parent-closes": """
import subprocess
f = open('f', 'wb')
p = subprocess.Popen(['sh', '-c', 'sleep 0.1; head -c 30000 $P; sleep 0.1; tail -c +30001 $P'], stdout=f)
f.close()
assert p.wait() == 0
""",
    "thread-forks": """
import subprocess, threading
stop = threading.Event()
def forks():
    while not stop.is_set():
        subprocess.run(['true'], close_fds=False)
        if os.fork() == 0:
            os._exit(0)
        os.wait()
t = threading.Thread(target=forks)
t.start()
put('f', new, piece=4096, pause=0.005)
stop.set()
t.join()
""",
    "dup-and-close": """
fd = os.open('f', REPLACE, 0o666)
for at in range(0, len(new), 9000):
    copy = os.dup(fd)
    os.write(copy, new[at:at + 9000])
    os.close(fd)
    fd = copy
    time.sleep(0.01)
os.close(fd)
""",
    "posix-spawn": """
fd = os.open('f', REPLACE, 0o666)
actions = [(os.POSIX_SPAWN_DUP2, fd, 1), (os.POSIX_SPAWN_CLOSE, fd)]
argv = ['sh', '-c', 'sleep 0.1; head -c 30000 $P; sleep 0.1; tail -c +30001 $P']
pid = os.posix_spawn('/bin/sh', argv, os.environ, file_actions=actions)
os.close(fd)
assert os.waitpid(pid, 0)[1] == 0
""",
    "close-on-exec-copy": """
import subprocess
fd = os.open('f', REPLACE | os.O_CLOEXEC, 0o666)
os.write(fd, new[:30000])
p = subprocess.Popen(['sleep', '0.3'], close_fds=False)
time.sleep(0.1)
os.write(fd, new[30000:])
os.close(fd)
result = 'p'
p.wait()
""",
    "vfork-child-writes-first": """
import subprocess
f = open('f', 'wb')
subprocess.run(['head', '-c', '30000', os.environ['P']], stdout=f)
f.seek(30000)
time.sleep(0.1)
f.write(new[30000:])
f.close()
""",
    "exit-1-without-close": """
if os.fork() == 0:
    fd = os.open('f', REPLACE, 0o666)
    os.write(fd, new[:50000])
    time.sleep(0.05)
    os.write(fd, new[50000:])
    os._exit(1)
os.wait()
""",
    "exec-closes": """
if os.fork() == 0:
    fd = os.open('f', REPLACE | os.O_CLOEXEC, 0o666)
    os.write(fd, new)
    os.execv('/bin/true', ['true'])
os.wait()
""",
    "opened-for-reading-too": """
fd = os.open('f', os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
os.write(fd, new[:40000])
assert os.pread(fd, 40000, 0) == new[:40000]
time.sleep(0.05)
os.write(fd, new[40000:])
os.close(fd)
""",
    "two-handles-of-one-family": """
first = os.open('f', REPLACE, 0o666)
os.write(first, new[:30000])
second = os.open('f', os.O_WRONLY)
os.close(first)
time.sleep(0.05)
os.pwrite(second, new[30000:], 30000)
os.close(second)
""",
    "passed-over-a-socket": """
import socket
ours, theirs = socket.socketpair()
if os.fork() == 0:
    ours.close()
    _, fds, _, _ = socket.recv_fds(theirs, 10, 1)
    for at in range(0, len(new), 30000):
        time.sleep(0.05)
        os.write(fds[0], new[at:at + 30000])
    os.close(fds[0])
    os._exit(0)
theirs.close()
fd = os.open('f', REPLACE, 0o666)
socket.send_fds(ours, [b'x'], [fd])
os.close(fd)
os.wait()
""",
}


@pytest.fixture(params=["replaced", "new"])
def scene(request, hosts, lab):
    """Two hosts, the file with old content or not there, and the new content where programs find it."""
    a, b = hosts
    if request.param == "replaced":
        a.write("f", OLD)
    path = os.path.join(lab.directory, "payload")
    with open(path, "wb") as f:
        f.write(NEW)
    return a, b, path, [OLD, NEW] if request.param == "replaced" else [NEW, NEW]


def environment(path):
    return dict(os.environ, P=path, LC_ALL="C")


def judge(readers, b, versions, now=True):
    """The new version is there (on the other host at once), and no reader ever saw anything else than whole ones."""
    if now:
        assert b.read("f") == NEW
    else:
        assert eventually(lambda: b.read("f") == NEW), "never committed"
    for reader in readers:
        seen = reader.stop()
        assert "absent" not in seen or versions[0] is NEW, seen


def watchers(a, b, versions):
    return [b.reader("f", versions), a.reader("f", versions)]


@pytest.mark.parametrize("case", SHELL)
def test_shell(scene, case):
    """C1, C3: nothing is published before the last copy of the descriptor is closed, and then at once."""
    a, b, path, versions = scene
    readers = watchers(a, b, versions)
    a.run(SHELL[case], env=environment(path))
    judge(readers, b, versions)


@pytest.mark.parametrize("case", PROGRAMS)
def test_program(scene, case):
    """C1, C3: the same for programs that duplicate, inherit, hand on or leave open their descriptors."""
    a, b, path, versions = scene
    readers = watchers(a, b, versions)
    worker = a.worker(env=environment(path))
    worker(PROGRAMS[case], new=NEW)
    judge(readers, b, versions, now=case != "passed-over-a-socket")


def test_handed_to_an_earlier_process(scene, lab):
    """C3: in flight over a socket that the sender has closed: nobody can know; no byte is lost, a guess is logged."""
    a, b, path, versions = scene
    worker = a.worker()
    worker(
        """
import socket
ours, theirs = socket.socketpair()
receiver = os.fork()
if receiver == 0:
    ours.close()
    time.sleep(0.2)
    _, fds, _, _ = socket.recv_fds(theirs, 10, 1)
    time.sleep(0.1)
    os.write(fds[0], new[30000:])
    os.close(fds[0])
    os._exit(0)
theirs.close()
fd = os.open('f', REPLACE, 0o666)
os.write(fd, new[:30000])
socket.send_fds(ours, [b'x'], [fd])
ours.close()
os.close(fd)
""",
        new=NEW,
    )
    early = eventually(lambda: b.exists("f") and b.read("f") == NEW[:30000], 0.1)
    worker("os.waitpid(receiver, 0)[1]")
    assert eventually(lambda: b.read("f") == NEW)
    if early:
        assert "second version" in lab.log_text()


def test_mapping_outlives_descriptor(scene, lab):
    """C3: the close of a descriptor whose mapping lives commits nothing; munmap does."""
    a, b, path, versions = scene
    readers = watchers(a, b, versions)
    process = a.popen([lab.helper("mapclose"), path, "f"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"done\n"
    judge(readers, b, versions, now=False)


def test_uring_direct_descriptor(scene, lab):
    """C3: closed without a FLUSH, invisible in /proc: the RELEASE commits."""
    a, b, path, versions = scene
    readers = watchers(a, b, versions)
    done = a.run([lab.helper("uringfile"), path, "f"], check=False)
    if done.returncode == 77:
        pytest.skip("io_uring: " + done.stderr)
    assert done.returncode == 0, done.stderr
    judge(readers, b, versions, now=False)


def test_inherited_by_an_idle_worker(scene):
    """C3: a pool worker that merely inherited the descriptor does not hold the commit back."""
    a, b, path, versions = scene
    readers = watchers(a, b, versions)
    worker = a.worker()
    worker(
        """
fd = os.open('f', REPLACE, 0o666)
os.write(fd, new[:30000])
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
os.write(fd, new[30000:])
os.close(fd)
""",
        new=NEW,
    )
    judge(readers, b, versions)
    assert worker("os.kill(child, 0)") is None


def test_the_number_of_an_open_file_stays_its_own(hosts, source):
    """C3: the verdict goes by inode numbers: while an editor shows that of the version it opened, no other file gets it."""
    a, b = hosts
    a.write("f", OLD)
    number = a.look("f").st_ino
    editor = a.worker()
    editor("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'x', 0)")
    b.write("f", NEW)
    for other in range(100):
        with open(os.path.join(source, "other.%d" % other), "wb") as f:
            assert os.fstat(f.fileno()).st_ino != number
    editor("os.close(fd)")


def test_pool_of_workers(hosts):
    """C3: multiprocessing's own pool, forked while the file is open."""
    a, b = hosts
    a.run(
        [
            PYTHON,
            "-c",
            """
import multiprocessing, time
def work(n):
    time.sleep(0.05)
    return n
f = open('f', 'w')
f.write('first ')
f.flush()
pool = multiprocessing.get_context('fork').Pool(3)
f.write(repr(pool.map(work, range(6))))
f.close()
assert open('f').read() == 'first [0, 1, 2, 3, 4, 5]'
import os
os.rename('f', 'g')
pool.terminate()
""",
        ]
    )
    assert b.read("g") == b"first [0, 1, 2, 3, 4, 5]"


def test_two_threads_close_at_once(hosts, lab):
    """C3: two closes of one handle at the same moment: committed when both have returned."""
    a, b = hosts
    process = a.popen(
        [lab.helper("closerace"), "f", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    for number in range(60):
        assert process.stdout.readline() == "%d\n" % number
        assert b.read("f") == b"round %d\n" % number * 512
        process.stdin.write("go\n")
    assert process.wait(timeout=10) == 0


def test_fork_storm(hosts, lab):
    """C3: forks and execs at every step of writing; each close is a whole version sooner or later, none is partial."""
    a, b = hosts
    path = os.path.join(lab.directory, "payload")
    with open(path, "wb") as f:
        f.write(NEW)
    reader = b.reader("f", [NEW])
    a.run([lab.helper("forkstorm"), path, "f", "60"])
    assert eventually(lambda: b.exists("f") and b.read("f") == NEW)
    assert reader.stop().get(0)


def test_writer_in_nested_pid_namespace(scene):
    """C3: a container on the host: its processes have other numbers inside."""
    a, b, path, versions = scene
    readers = watchers(a, b, versions)
    a.run(["unshare", "--pid", "--fork", "bash", "-c", SHELL["subshell"]], env=environment(path))
    judge(readers, b, versions)


def test_writer_outside_the_pid_namespace(scene):
    """C3: a writer whose pid the host cannot see (FLUSH with pid 0): the last reference commits."""
    a, b, path, versions = scene
    readers = watchers(a, b, versions)
    a.run(SHELL["subshell"], flags=["-m"], env=environment(path))
    judge(readers, b, versions, now=False)


def test_visible_when_close_returns(hosts):
    """C2, C3: 200 closes, each seen by the other host's next open."""
    a, b = hosts
    writer, reader = a.worker(), b.worker()
    for number in range(200):
        data = b"version %d" % number * (number + 1)
        writer("put('f', data)", data=data)
        assert reader("get('f')") == data


def test_new_names_visible_when_close_returns(hosts):
    """C2: a name looked up in vain before is found by the first look-up after the close, and gone after unlink."""
    a, b = hosts
    for number in range(50):
        name = "n%d" % (number % 7)
        assert b.error("os.open", name, os.O_RDONLY) == "ENOENT"
        a.write(name, b"%d" % number)
        assert b.read(name) == b"%d" % number
        assert name in b.list()
        a("os.unlink(name)", name=name)
        assert b.error("os.open", name, os.O_RDONLY) == "ENOENT"


def test_visible_when_a_shell_redirection_returns(hosts):
    """C2, C3: one shell, 30 redirections of a builtin and 30 of a program."""
    a, b = hosts
    shell = a.popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    for number in range(30):
        for command in ("echo", "/bin/echo"):
            shell.stdin.write("%s %s %d > f; echo done\n" % (command, command, number))
            assert shell.stdout.readline() == "done\n"
            assert b.read("f") == b"%s %d\n" % (command.encode(), number)


@pytest.mark.options("commit-sync=always")
def test_close_during_a_slow_commit(hosts):
    """C1, C3: close waits for the commit of a large stage; others read the old version meanwhile."""
    a, b = hosts
    a.write("f", OLD)
    big = payload("big", 48 << 20)
    reader = b.reader("f", [OLD], classify="def classify(d): return len(d) if len(d) in (%d, %d) else None"
                      % (len(OLD), len(big)))
    a.write("f", big)
    assert b.look("f").st_size == len(big)
    reader.stop()
    assert b.read("f") == big


def test_reader_keeps_its_version(hosts):
    """C1: an open file stays the version opened, on both hosts, through ten commits; so does a mapping."""
    a, b = hosts
    a.write("f", OLD)
    readers = [a.worker(), b.worker()]
    for reader in readers:
        reader("import mmap; fd = os.open('f', os.O_RDONLY); m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)")
        assert reader("os.pread(fd, 100, 0)") == OLD[:100]
    for number in range(10):
        a.write("f", payload("later%d" % number, 70_000))
    a("os.unlink('f')")
    for reader in readers:
        assert reader("os.fstat(fd).st_size") == len(OLD)
        assert reader("drain(fd)") == OLD
        assert reader("bytes(m)") == OLD


def test_write_after_a_commit_by_rename(hosts):
    """C5: what is written after the commit makes another version."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('f.tmp', REPLACE, 0o666); os.write(fd, b'one'); os.rename('f.tmp', 'f')")
    assert b.read("f") == b"one"
    writer("os.write(fd, b'two'); os.close(fd)")
    assert b.read("f") == b"onetwo"
    assert b.list() == ["f"]


def test_descriptor_reopened_through_proc(hosts):
    """C3: /proc/self/fd/N opened for writing is the same stage."""
    a, b = hosts
    a.write("f", OLD)
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666); os.write(fd, new[:100])", new=NEW)
    writer("again = os.open('/proc/self/fd/%d' % fd, os.O_RDWR); os.close(fd)")
    assert b.read("f") == OLD
    writer("os.pwrite(again, new[100:], 100); os.close(again)", new=NEW)
    assert b.read("f") == NEW


def test_nothing_is_waited_for_long(hosts):
    """C3: the proof is cheap: closes with 60 other processes and 100 other descriptors about."""
    a, _ = hosts
    crowd = a.popen("for i in $(seq 60); do sleep 30 & done; wait")
    writer = a.worker()
    writer("held = [os.open('/dev/null', os.O_RDONLY) for _ in range(100)]")
    begin = time.monotonic()
    writer("for i in range(100): put('f', b'x')")
    assert time.monotonic() - begin < 5
    crowd.end()


def test_readers_keep_the_version_that_is_written_on(hosts):
    """C1, C5: committed by rename while open: who opened that version keeps it, whatever its writer does next."""
    a, b = hosts
    data = payload("first", 50_000)
    writer = a.worker()
    writer("fd = os.open('t', REPLACE, 0o666); os.write(fd, data); os.rename('t', 'f')", data=data)
    readers = [a.worker(), b.worker()]
    for reader in readers:
        reader("import mmap; fd = os.open('f', os.O_RDONLY); m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)")
        assert reader("os.pread(fd, 100, 0)") == data[:100]
    writer("os.pwrite(fd, b'X' * 30000, 0); os.ftruncate(fd, 40000)")
    for reader in readers:
        assert reader("os.fstat(fd).st_size, os.pread(fd, 60000, 0), bytes(m)") == (50_000, data, data)
    writer("os.close(fd)")
    for reader in readers:
        assert reader("os.fstat(fd).st_size, os.pread(fd, 60000, 0), bytes(m)") == (50_000, data, data)
    assert b.read("f") == b"X" * 30_000 + data[30_000:40_000]
