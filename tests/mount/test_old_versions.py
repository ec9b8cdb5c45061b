# SPDX-License-Identifier: GPL-2.0-or-later
"""C1 where the server forgets what was replaced (NFSv3): old versions are kept for those who still read them.  Here it is
done on a local source (`keep=always`), for all that shows on one; tests/nfs/test_v3.py has the real servers."""

import glob
import os
import stat
import time

import pytest
from harness import eventually

KEEP = 2
pytestmark = pytest.mark.options("keep=always,keep-old=%d" % KEEP)


def kept(source):
    """How many links each host has in its old/: {hostname: n}."""
    hosts = os.path.join(source, ".safewritefs", "hosts")
    return {name.split(".")[0]: len(os.listdir(os.path.join(hosts, name, "old", "0"))) for name in os.listdir(hosts)}


CALLS = {
    "rewrite": "put('f', b'new')",
    "edit": "put('f', b'n', os.O_WRONLY)",
    "rename of a stage": "put('g', b'new'); os.rename('g', 'f')",
    "unlink": "os.unlink('f')",
}


@pytest.mark.parametrize("call", CALLS)
def test_kept_for_a_while(hosts, source, call):
    """C1: a version that was replaced or removed keeps a link, which goes after keep-old."""
    a, b = hosts
    a.write("f", b"old")
    inode = os.stat(source + "/f").st_ino
    assert kept(source) == {"alpha": 0, "beta": 0}
    a(CALLS[call])
    old = glob.glob(source + "/.safewritefs/hosts/alpha.*/old/0")[0]
    assert [os.stat(os.path.join(old, name)).st_ino for name in os.listdir(old)] == [inode]
    assert b.exists("f") == (call != "unlink")
    time.sleep(KEEP / 2)
    assert kept(source) == {"alpha": 1, "beta": 0}
    eventually(lambda: kept(source) == {"alpha": 0, "beta": 0}, timeout=3 * KEEP)


def test_nobody_gets_at_it_past_its_directory(host, source):
    """C26: a file that was in a private directory is not to be had by its link."""
    host("os.mkdir('d', 0o700); put('d/f', b'old'); put('d/f', b'new')")
    assert kept(source) == {"alpha": 1}
    assert stat.S_IMODE(os.stat(glob.glob(source + "/.safewritefs/hosts/alpha.*/old")[0]).st_mode) == 0o700


def test_rename_of_a_file_keeps_what_it_replaces(host, source):
    """C1: rename(2) over a file by hand, neither of them staged; of a file to another name of its own: nothing."""
    host.write("f", b"old")
    host.write("g", b"new")
    host("os.rename('g', 'f')")
    assert kept(source) == {"alpha": 1}
    host("os.link('f', 'h'); os.rename('f', 'h')")
    assert kept(source) == {"alpha": 1}


def test_nothing_is_kept_of_what_is_no_data(host, source):
    """C18: lock files, symbolic links, and files that are new."""
    host("put('n', b'1'); os.close(os.open('a.lock', os.O_CREAT | os.O_EXCL | os.O_WRONLY)); os.unlink('a.lock')")
    host("os.symlink('n', 's'); os.unlink('s'); os.mkdir('d'); os.rmdir('d')")
    assert kept(source) == {"alpha": 0}


def test_readers_keep_what_they_read(hosts, source):
    """C1: who reads an old version for longer than a third of keep-old makes a link of its own, as long as it reads."""
    a, b = hosts
    a.write("f", b"old")
    reader = b.worker()
    reader("fd = os.open('f', os.O_RDONLY)")
    a.write("f", b"new")
    eventually(lambda: kept(source) == {"alpha": 1, "beta": 1}, timeout=2 * KEEP)
    eventually(lambda: kept(source) == {"alpha": 0, "beta": 1}, timeout=3 * KEEP)
    assert reader("os.read(fd, 9)") == b"old"
    assert reader("os.fstat(fd).st_nlink") == 0
    reader("os.close(fd)")
    eventually(lambda: kept(source) == {"alpha": 0, "beta": 0})


def test_readers_of_what_is_current_make_no_link(host, source):
    """C13: st_nlink is what programs made, while a file is read for long."""
    host.write("f", b"x")
    reader = host.worker()
    reader("fd = os.open('f', os.O_RDONLY)")
    time.sleep(2 * KEEP)
    assert reader("os.fstat(fd).st_nlink, os.stat('f').st_nlink") == (1, 1)
    assert kept(source) == {"alpha": 0}


def test_links_are_not_shown(host, source):
    """C13, C17: the count of links of what was replaced, removed, and of what has other names."""
    reader = host.worker()
    host.write("f", b"x")
    reader("fd = os.open('f', os.O_RDONLY)")
    host.write("f", b"y")
    assert reader("os.fstat(fd).st_nlink, os.stat('f').st_nlink") == (0, 1)
    reader("os.close(fd); fd = os.open('f', os.O_RDONLY); os.unlink('f')")
    assert reader("os.fstat(fd).st_nlink") == 0
    before = kept(source)
    reader("put('a', b'x'); os.link('a', 'b'); put('a', b'y')")
    assert reader("os.stat('a').st_nlink, os.stat('b').st_nlink") == (1, 1)
    reader("os.link('b', 'c'); os.unlink('c')")
    assert reader("os.stat('b').st_nlink") == 1
    assert kept(source) == before


def test_appenders_follow_a_replacement_and_stay_with_a_rename(hosts, source):
    """C11: neither has lost the file a link."""
    a, b = hosts
    a.write("f", b"1\n")
    appender = b.worker()
    appender("fd = os.open('f', os.O_WRONLY | os.O_APPEND); os.write(fd, b'2\\n')")
    a.write("f", b"3\n")
    appender("os.write(fd, b'4\\n')")
    assert a.read("f") == b"3\n4\n"
    a("os.rename('f', 'f.1'); put('f', b'5\\n')")
    appender("os.write(fd, b'6\\n'); os.close(fd)")
    assert (a.read("f.1"), a.read("f")) == (b"3\n4\n6\n", b"5\n")


def test_emptied_at_unmount(lab, source):
    """What is kept goes with the mount."""
    host = lab.host(source, "alpha", "keep=always,keep-old=1h")
    host.write("f", b"old")
    host.write("f", b"new")
    assert kept(source) == {"alpha": 1}
    host.unmount()
    assert os.listdir(source + "/.safewritefs/hosts") == []


def test_buried_with_a_dead_host(lab, source):
    """C19: what a dead host kept is removed, and is not in salvage."""
    dead = lab.host(source, "alpha", "keep=always,keep-old=1h", namespaces=False)
    dead.write("f", b"old")
    dead.write("f", b"new")
    assert kept(source) == {os.uname().nodename.split(".")[0]: 1}
    dead.kill_daemon()
    lab.ctl("gc", source)
    assert os.listdir(source + "/.safewritefs/hosts") == []
    assert lab.salvage(source) == []


@pytest.mark.options("")
def test_local_sources_keep_nothing(host, source):
    """keep=auto: only where the server forgets."""
    host.write("f", b"old")
    host.write("f", b"new")
    host_dir = source + "/.safewritefs/hosts/" + os.listdir(source + "/.safewritefs/hosts")[0]
    assert "old" not in os.listdir(host_dir)
