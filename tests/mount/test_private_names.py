# SPDX-License-Identifier: GPL-2.0-or-later
"""Host-private names (C16): temporary names that are equal on two hosts never meet."""

import glob
import os
import re

import pytest
from harness import PYTHON, eventually, payload

TMP = "output.pkl.thread-140-pid-300"

JOBLIB = """
import os, sys, time, warnings
warnings.simplefilter('error')
import joblib, numpy
memory = joblib.Memory(sys.argv[1], verbose=0)
@memory.cache
def work(n):
    return numpy.full(3000, float(os.environ['HOST_NUMBER'])), n
begin = time.time()
for n in range(int(sys.argv[2])):
    array, number = work(n)
    assert number == n and len(set(array)) == 1, (number, n, set(array))
print(os.getpid())
"""


def test_stays_on_its_host(hosts):
    """C16: closed, visible to everybody on its host, to nobody elsewhere."""
    a, b = hosts
    a.write(TMP, b"alpha's")
    assert a.read(TMP) == b"alpha's" and a.list() == [TMP]
    assert not b.exists(TMP) and b.list() == []
    b.write(TMP, b"beta's")
    assert (a.read(TMP), b.read(TMP)) == (b"alpha's", b"beta's")


def test_each_rename_publishes_its_own(hosts):
    """C16: equal names on two hosts: no ENOENT, each rename publishes that host's bytes."""
    a, b = hosts
    for number in range(30):
        a.write(TMP, b"alpha %d" % number)
        b.write(TMP, b"beta %d" % number)
        a("os.rename(tmp, 'output.pkl')", tmp=TMP)
        assert b.read("output.pkl") == b"alpha %d" % number
        b("os.rename(tmp, 'output.pkl')", tmp=TMP)
        assert a.read("output.pkl") == b"beta %d" % number
    assert a.list() == b.list() == ["output.pkl"]


def test_readers_of_the_published_name(hosts):
    """C16, C1: 2 hosts storing under one temporary name at full speed: whole results only."""
    a, b = hosts
    versions = [payload("alpha", 50_000), payload("beta", 70_000)]
    readers = [host.reader("output.pkl", versions) for host in hosts]
    writers = [a.worker(), b.worker()]
    for number, writer in enumerate(writers):
        writer.start(
            "for i in range(60): put(tmp, data, piece=10000); os.rename(tmp, 'output.pkl')",
            tmp=TMP,
            data=versions[number],
        )
    for writer in writers:
        writer.finish()
    for reader in readers:
        reader.stop()
    assert a.list() == b.list() == ["output.pkl"]


def test_attributes_and_removal(hosts, source):
    """C16: stat, chmod, utimens, append, link, unlink of a private file work on its host."""
    a, b = hosts
    a.write(TMP, b"12345")
    a("os.chmod(tmp, 0o640); os.utime(tmp, (1e9, 1e9))", tmp=TMP)
    assert a("os.stat(tmp).st_size, os.stat(tmp).st_mtime, os.stat(tmp).st_mode & 0o777", tmp=TMP) == (5, 1e9, 0o640)
    a("put(tmp, b'67', flags=os.O_WRONLY | os.O_APPEND)", tmp=TMP)
    assert a.read(TMP) == b"1234567"
    a("os.utime(tmp, (1e9, 1e9)); os.rename(tmp, 'f')", tmp=TMP)
    assert os.stat(source + "/f").st_mode & 0o777 == 0o640 and os.stat(source + "/f").st_mtime == 1e9
    a.write(TMP, b"x")
    a("os.unlink(tmp)", tmp=TMP)
    assert a.error("os.stat", TMP) == "ENOENT" and a.list() == ["f"] == b.list()


def test_in_a_directory(hosts):
    """C16: rmdir sees it on its own host; a rename of the directory takes it along."""
    a, b = hosts
    a("os.mkdir('d')")
    a.write("d/" + TMP, b"kept")
    assert a.error("os.rmdir", "d") == "ENOTEMPTY"
    a("os.rename('d', 'e')")
    a("os.rename('e/' + tmp, 'e/output.pkl')", tmp=TMP)
    assert b.read("e/output.pkl") == b"kept"


def test_left_at_unmount(lab, source):
    """C16: what is left at unmount goes to salvage."""
    a = lab.host(source, "alpha")
    a.write(TMP, b"left behind")
    assert a.unmount() == []
    assert lab.salvaged(source, TMP) == [b"left behind"]
    assert os.listdir(source) == [".safewritefs"]


@pytest.mark.options("host-private=*.mine")
def test_option(hosts):
    """C16, C25: the globs are a mount option; a list without + replaces the default."""
    a, b = hosts
    a.write("x.mine", b"1")
    a.write(TMP, b"2")
    assert a.list() == [TMP, "x.mine"] and b.list() == [TMP]


def test_private_temporary_killed(hosts, lab, source):
    """C16, C4: killed while writing a private name: nothing is left of it."""
    a, b = hosts
    worker = a.worker()
    worker("fd = os.open(tmp, REPLACE, 0o600); os.write(fd, b'half')", tmp=TMP)
    worker.kill()
    assert eventually(lambda: not a.exists(TMP))
    assert b.list() == []


def joblib_runs(hosts, place, count):
    """The same program with the same pid, the same addresses and one directory, on every host at once."""
    running = [
        host.popen(
            [PYTHON, "-c", JOBLIB, place, str(count)],
            pid=700,
            flags=["-R"],
            stdout=-1,
            stderr=-1,
            text=True,
            env=dict(os.environ, HOST_NUMBER=str(number + 1), PYTHONHASHSEED="0"),
        )
        for number, host in enumerate(hosts)
    ]
    return [(*process.communicate(timeout=100), process.returncode) for process in running]


@pytest.mark.limit(150)
def test_joblib(hosts, source):
    """C16: joblib's own Memory from two hosts with equal pids: no error, no warning, no mixed or torn entry."""
    pytest.importorskip("joblib")
    a, b = hosts
    for round_number in range(2):
        for out, err, status in joblib_runs(hosts, "cache%d" % round_number, 300):
            assert (status, err, out.strip()) == (0, "", "700")
    check = """
import glob, joblib, sys
entries = glob.glob('cache*/**/output.pkl', recursive=True)
for entry in entries:
    array, number = joblib.load(entry)
    assert len(set(array)) == 1, entry
print(len(entries))
"""
    assert a.run([PYTHON, "-c", check]).stdout == b.run([PYTHON, "-c", check]).stdout == "600\n"
    names = glob.glob(source + "/cache*/**", recursive=True)
    assert not [name for name in names if re.search("thread|pid", name)]
