# SPDX-License-Identifier: GPL-2.0-or-later
"""Killed writers publish nothing and lose nothing (C4, C7): old version everywhere, what was written in salvage."""

import glob
import os
import signal
import subprocess
import time

import pytest
from harness import SLOWNESS, eventually, pattern, payload

OLD = payload("old", 50_000)
SIGNALS = ["KILL", "TERM", "SEGV", "ABRT", "PIPE", "INT"]
OFFSETS = [1, 4095, 4096, 100_000, 1_000_001]


def number_of(name):
    return getattr(signal, "SIG" + name)


def end_at(host, name, offset, how, *more):
    """Runs the writer that ends itself by a signal at an offset."""
    done = host.run([host.lab.helper("killat"), name, str(offset), str(number_of(how)), *more], check=False)
    assert done.returncode == -number_of(how), done


@pytest.mark.parametrize("how", SIGNALS)
def test_sweep(hosts, lab, source, how):
    """C4: each signal at each offset: the old version stays, the bytes are in salvage, nothing else appears."""
    a, b = hosts
    for offset in OFFSETS:
        name = "f%d" % offset
        a.write(name, OLD)
        end_at(a, name, offset, how)
        assert a.read(name) == OLD
        assert b.read(name) == OLD
        assert lab.salvaged(source, name) == [pattern(offset)]
    entry = lab.salvage(source, "f100000")[0]
    assert entry["reason"] == "killed" and entry["size"] == 100_000
    assert a.list() == b.list() == sorted("f%d" % offset for offset in OFFSETS)


@pytest.mark.parametrize("how", SIGNALS)
def test_new_file(hosts, lab, source, how):
    """C4: a new file whose writer is killed never was; its name is free at once."""
    a, b = hosts
    end_at(a, "n", 30_000, how)
    assert not a.exists("n") and not b.exists("n")
    assert a.list() == b.list() == []
    assert lab.salvaged(source, "n") == [pattern(30_000)]
    b.write("n", b"second try")
    assert a.read("n") == b"second try"


def test_killed_while_others_read(hosts, lab):
    """C1, C4: readers on both hosts see the old version only, 30 times."""
    a, b = hosts
    a.write("f", OLD)
    readers = [a.reader("f", [OLD]), b.reader("f", [OLD])]
    for number in range(30):
        end_at(a, "f", 7919 * number + 1, SIGNALS[number % len(SIGNALS)])
    for reader in readers:
        assert set(reader.stop()) == {0}


def test_killed_from_outside(hosts, lab, source):
    """C4: kill -9 at moments nobody chose."""
    a, b = hosts
    a.write("f", OLD)
    for number in range(12):
        process = a.popen("while :; do echo a line of the log; done > f")
        time.sleep(0.003 + 0.007 * number)
        process.end()
        process.wait()
        assert b.read("f") == OLD and a.read("f") == OLD
    for data in lab.salvaged(source, "f"):
        assert (b"a line of the log\n" * (len(data) // 18 + 1)).startswith(data)


def test_timeout_command(hosts, lab, source):
    """C4: `timeout 0.3 cmd > f`: the writer dies by TERM, timeout itself closes later."""
    a, b = hosts
    a.write("f", OLD)
    done = a.run("timeout 0.3 sh -c 'echo begun; exec sleep 20' > f", check=False)
    assert done.returncode == 124
    # The writer of "begun" became the sleep that was killed.
    assert a.read("f") == OLD and b.read("f") == OLD
    assert eventually(lambda: lab.salvaged(source, "f") == [b"begun\n"])


def test_parent_closes_after_the_writer_was_killed(hosts, lab, source):
    """C4: the process that wrote last was killed; it does not matter that another one closes."""
    a, b = hosts
    a.write("f", OLD)
    a.run("exec 3> f; sh -c 'echo part >&3; kill -9 $$'; exec 3>&-; true")
    assert b.read("f") == OLD and a.read("f") == OLD
    assert eventually(lambda: lab.salvaged(source, "f") == [b"part\n"])


def test_parent_killed_after_the_writer_ended_well(hosts, lab):
    """C4: who only held the handle may be killed; the last writer ended by itself."""
    a, b = hosts
    a.write("f", OLD)
    a.run("exec 3> f; /bin/echo whole >&3; kill -9 $$", check=False)
    assert eventually(lambda: b.read("f") == b"whole\n")


def test_parent_goes_on_writing_after_a_killed_child(hosts):
    """C4: the one who wrote last closed it."""
    a, b = hosts
    a.run("exec 3> f; sh -c 'echo one >&3; kill -9 $$'; /bin/echo two >&3; exec 3>&-")
    assert b.read("f") == b"one\ntwo\n"


def test_idle_holder_killed_later(hosts):
    """C3, C4: an heir of the descriptor that never wrote is killed: the version is there already and stays."""
    a, b = hosts
    worker = a.worker()
    worker(
        """
fd = os.open('f', REPLACE, 0o666)
os.write(fd, b'all of it')
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
os.close(fd)
"""
    )
    assert b.read("f") == b"all of it"
    worker("os.kill(child, 9); os.waitpid(child, 0)")
    time.sleep(0.1)
    assert b.read("f") == b"all of it" and a.read("f") == b"all of it"


@pytest.mark.parametrize("how", ["KILL", "TERM"])
def test_multithreaded(hosts, lab, source, how):
    """C4: the FLUSH of a process with threads may carry another thread's id."""
    a, b = hosts
    a.write("f", OLD)
    for _ in range(5):
        end_at(a, "f", 20_000, how, "thread")
    assert a.read("f") == OLD and b.read("f") == OLD
    assert lab.salvaged(source, "f") == [pattern(20_000)] * 5


def test_exit_without_close(hosts, lab):
    """C4: exit(1) is no kill, also in a process with threads."""
    a, b = hosts
    for more in ([], ["thread"]):
        a.write("f", OLD)
        done = a.run([lab.helper("killat"), "f", "12345", "0", *more], check=False)
        assert done.returncode == 1
        assert b.read("f") == pattern(12_345)


def test_keyboard_interrupt(hosts):
    """C4: Python's `with` on Ctrl-C: the program catches the signal and closes, so it commits."""
    a, b = hosts
    a.write("f", OLD)
    process = a.popen(
        [
            "/usr/bin/python3",
            "-c",
            "import time\nwith open('f', 'w') as f:\n    f.write('begun')\n    f.flush()\n    print(flush=True)\n"
            "    time.sleep(30)",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    process.stdout.readline()
    process.end(signal.SIGINT)
    assert process.wait(timeout=10 * SLOWNESS) == -signal.SIGINT
    assert b.read("f") == b"begun"


def test_ctrl_c_of_a_pipeline(hosts, lab, source):
    """C4: the signal of a terminal reaches the whole group at once."""
    a, b = hosts
    a.write("f", OLD)
    process = a.popen("(while :; do echo y; sleep 0.01; done | cat) > f")
    staged = source + "/.safewritefs/hosts/*/stage/*/*"
    assert eventually(lambda: any(os.path.getsize(path) > 10 for path in glob.glob(staged)), 10)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=10 * SLOWNESS)
    assert eventually(lambda: lab.salvage(source, "f"))
    assert b.read("f") == OLD


@pytest.mark.options("on-kill=commit")
def test_on_kill_commit(hosts, lab, source):
    """C4: for those who want torsos."""
    a, b = hosts
    a.write("f", OLD)
    end_at(a, "f", 30_000, "KILL")
    assert b.read("f") == pattern(30_000)
    assert lab.salvage(source) == []


def test_killed_before_the_first_write(hosts, lab, source):
    """C4: O_TRUNC, nothing written, killed: nothing happened."""
    a, b = hosts
    a.write("f", OLD)
    end_at(a, "f", 0, "KILL")
    assert a.read("f") == OLD and b.read("f") == OLD
    assert lab.salvage(source) == []


def test_killed_editor(hosts, lab, source):
    """C4: an edit of an existing file: its version stays; salvage holds the file as the editor had it."""
    a, b = hosts
    a.write("f", OLD)
    end_at(a, "f", 10_000, "SEGV", "edit")
    assert a.read("f") == OLD and b.read("f") == OLD
    assert lab.salvaged(source, "f") == [pattern(10_000) + OLD[10_000:]]


def test_killed_after_fsync(hosts, lab, source):
    """C7: fsynced bytes are never thrown away: in salvage, marked as synced."""
    a, b = hosts
    a.write("f", OLD)
    end_at(a, "f", 25_000, "KILL", "sync")
    assert a.read("f") == OLD and b.read("f") == OLD
    entry = lab.salvage(source, "f")[0]
    assert entry["synced"] is True
    assert lab.salvaged(source, "f") == [pattern(25_000)]


def test_fsync_makes_durable_not_visible(hosts):
    """C7: fsync=stage, the default."""
    a, b = hosts
    a.write("f", OLD)
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'half'); os.fsync(fd)")
    assert b.read("f") == OLD and a.read("f") == OLD
    writer("os.write(fd, b'whole'); os.close(fd)")
    assert b.read("f") == b"halfwhole"


@pytest.mark.options("fsync=publish")
def test_fsync_publishes(hosts):
    """C7: fsync=publish, for programs that keep a file open for ever."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'one '); os.fsync(fd)")
    assert b.read("f") == b"one "
    writer("os.write(fd, b'two '); os.fdatasync(fd)")
    assert b.read("f") == b"one two "
    writer("os.write(fd, b'three')")
    assert b.read("f") == b"one two "
    writer("os.close(fd)")
    assert b.read("f") == b"one two three"


def test_restore_in_place(hosts, lab, source):
    """C4: what was salvaged goes back to where it belonged, as a whole version."""
    a, b = hosts
    a("os.mkdir('d')")
    a.write("d/f", OLD)
    end_at(a, "d/f", 33_333, "TERM")
    entry = lab.salvage(source, "d/f")[0]
    reader = b.reader("d/f", [OLD, pattern(33_333)])
    assert lab.ctl("salvage", "restore", source, entry["entry"], check=False).returncode != 0
    lab.ctl("salvage", "restore", "--force", source, entry["entry"])
    assert b.read("d/f") == pattern(33_333)
    reader.stop()
    lab.ctl("salvage", "drop", source, entry["entry"])
    assert lab.salvage(source, "d/f") == []


def test_temporary_name_killed(hosts, lab, source):
    """C4: a temporary file of the usual kind leaves nothing beside its target."""
    a, b = hosts
    a.write("f", OLD)
    end_at(a, "f.tmp", 5000, "KILL")
    assert b.list() == a.list() == ["f"]
    assert os.listdir(source + "/.safewritefs/hosts") and lab.salvage(source, "f.tmp")


def test_killed_with_many_files_open(hosts, lab, source):
    """C4: all of a process's stages go together."""
    a, b = hosts
    worker = a.worker()
    worker(
        "fds = [os.open('m%d' % i, REPLACE, 0o666) for i in range(40)]\n"
        "for i, fd in enumerate(fds): os.write(fd, b'part %d' % i)"
    )
    worker.kill()
    assert eventually(lambda: len(lab.salvage(source)) == 40)
    assert b.list() == a.list() == []
    assert lab.salvaged(source, "m7") == [b"part 7"]
