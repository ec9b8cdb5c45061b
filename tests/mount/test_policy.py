# SPDX-License-Identifier: GPL-2.0-or-later
"""Policy by name (C25): through, stream, private, append and staged names, and the options that change them."""

import os
import time

import pytest
from harness import eventually


def test_through_names(hosts, source):
    """C25: databases, their journals and swap files are handed straight to the source: written is visible."""
    a, b = hosts
    for name in ("x.db", "x.db-wal", "x-journal", ".f.swp"):
        writer = a.worker()
        writer("fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600); os.write(fd, b'at once')", name=name)
        assert b.read(name) == b"at once"
        before = os.stat(os.path.join(source, name)).st_ino
        writer("os.pwrite(fd, b'AT', 0)")
        assert b.read(name) == b"AT once"
        writer.kill()
        assert b.read(name) == b"AT once"
        assert os.stat(os.path.join(source, name)).st_ino == before


@pytest.mark.options("through=*.raw:disk/*")
def test_through_option(hosts):
    """C25: the list is an option; a glob with a slash is matched against the whole path; without + it replaces."""
    a, b = hosts
    a("os.mkdir('disk'); os.mkdir('other')")
    writer = a.worker()
    for name, seen in (("x.raw", True), ("disk/f", True), ("other/f", False), ("x.db", False)):
        writer("fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600); os.write(fd, b'data')", name=name)
        assert b.exists(name) == seen, name
        writer("os.close(fd)")
        assert b.read(name) == b"data"


@pytest.mark.options("through=+*.raw")
def test_option_adds(hosts):
    """C25: a list that begins with + adds to the defaults."""
    a, b = hosts
    writer = a.worker()
    for name in ("x.raw", "x.db"):
        writer("fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600); os.write(fd, b'data')", name=name)
        assert b.read(name) == b"data"


@pytest.mark.options("append-interval=200ms")
@pytest.mark.parametrize("name", ["job.log", "slurm-17.out", "nohup.out", "events.out.tfevents.1"])
def test_stream_names(hosts, name):
    """C25: published every append-interval while written sequentially, at a write boundary, and at the close."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open(name, REPLACE, 0o644); os.write(fd, b'line 1\\n')", name=name)
    assert eventually(lambda: b.exists(name) and b.read(name) == b"line 1\n", 1.5)
    writer("os.write(fd, b'line 2\\n')")
    assert eventually(lambda: b.read(name) == b"line 1\nline 2\n", 1.5)
    writer("os.write(fd, b'line 3\\n'); os.close(fd)")
    assert b.read(name) == b"line 1\nline 2\nline 3\n"


@pytest.mark.options("append-interval=100ms,stream=*.progress")
def test_stream_option(hosts):
    """C25: stream= replaces the default list."""
    a, b = hosts
    writer = a.worker()
    writer("one = os.open('x.progress', REPLACE, 0o644); os.write(one, b'12%')")
    writer("two = os.open('x.log', REPLACE, 0o644); os.write(two, b'34%')")
    assert eventually(lambda: b.exists("x.progress") and b.read("x.progress") == b"12%", 1.5)
    time.sleep(0.3)
    assert not b.exists("x.log")
    writer("os.close(one); os.close(two)")


@pytest.mark.options("append-interval=1h")
def test_append_interval_is_honoured(hosts):
    """C25: with an hour nothing of a stream is published before the close."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('x.log', REPLACE, 0o644); os.write(fd, b'line\\n')")
    time.sleep(1.5)
    assert not b.exists("x.log")
    writer("os.close(fd)")
    assert b.read("x.log") == b"line\n"


def test_killed_stream_writer(hosts, lab, source):
    """C25, C4: what was published stays; what was not is in salvage or gone with the writer, never half a line."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('x.log', REPLACE, 0o644); os.write(fd, b'line 1\\n')")
    assert eventually(lambda: b.exists("x.log") and b.read("x.log") == b"line 1\n", 2.5)
    writer("os.write(fd, b'line 2\\n')")
    writer.kill()
    assert eventually(lambda: b.read("x.log") in (b"line 1\n", b"line 1\nline 2\n"))


def test_sqlite(hosts):
    """C25: SQLite's own use, rollback and WAL, one host after the other; C22 keeps the two apart."""
    a, b = hosts
    for mode in ("delete", "wal"):
        a.run("sqlite3 %s.db 'pragma journal_mode=%s; create table t(x); insert into t values (1);'" % (mode, mode))
        b.run("sqlite3 %s.db 'insert into t values (2);'" % mode)
        a.run("sqlite3 %s.db 'insert into t select x + 2 from t;'" % mode)
        done = b.run("sqlite3 %s.db 'select count(*), sum(x) from t; pragma integrity_check;'" % mode)
        assert done.stdout == "4|10\nok\n"
    assert b.list() == ["delete.db", "wal.db"]


def test_same_in_the_configuration_file(lab, source):
    """C25: /etc/safewritefs.conf, defaults and per mount point; the command line goes before it."""
    host = lab.host(source, "alpha", mount=False)
    conf = os.path.join(lab.directory, "conf")
    with open(conf, "w", encoding="ascii") as f:
        f.write("[defaults]\nthrough=*.x\n[%s]\non-kill=commit\nthrough=*.raw\n" % host.mnt)
    host.mount("conf=" + conf)
    writer = host.worker()
    writer("fd = os.open('f.raw', os.O_RDWR | os.O_CREAT, 0o600); os.write(fd, b'data')")
    assert host.read("f.raw") == b"data"
    writer("fd = os.open('g.x', os.O_RDWR | os.O_CREAT, 0o600); os.write(fd, b'data')")
    assert not host.exists("g.x")
    writer.kill()
    assert eventually(lambda: host.exists("g.x"))
    assert host.read("g.x") == b"data"


BAD_OPTIONS = [
    ("nonsense", "nonsense"),
    ("on-kill=perhaps", "on-kill"),
    ("lease=1ms", "lease"),
    ("append-interval=soon", "append-interval"),
    ("through=a b", "through"),
    ("auto_unmount", "auto_unmount"),
    ("conf=/does/not/exist", "/does/not/exist"),
    ("fsync", "fsync"),
]


@pytest.mark.parametrize("text,word", BAD_OPTIONS)
def test_bad_options(lab, source, text, word):
    """C25: refused by name, exit status 32, nothing mounted."""
    host = lab.host(source, "alpha", mount=False)
    done = host.run(host.argv(text), check=False, cwd="/")
    assert done.returncode == 32 and word in done.stderr, done
    assert not host.is_mounted() and os.listdir(source) == []


def test_options_of_mount_are_swallowed(lab, source):
    """C25: what mount(8) hands on."""
    words = "_netdev,nofail,user,defaults,rw,noauto,x-systemd.automount,comment=x,relatime,nosuid,nodev"
    host = lab.host(source, "alpha", words)
    host.write("f", b"x")
    with open("/proc/%d/mountinfo" % host.pid, encoding="utf-8") as f:
        line = next(line for line in f if host.mnt in line)
    assert "nosuid" in line and "nodev" in line


@pytest.mark.options("ro")
def test_read_only(lab, source, options):
    """C24, C25: ro: reads work, writes end with EROFS."""
    with open(source + "/f", "wb") as f:
        f.write(b"data")
    host = lab.host(source, "alpha", options)
    assert host.read("f") == b"data"
    assert host.error("os.open", "f", os.O_WRONLY) == "EROFS"
    assert host.error("put", "g", b"x") == "EROFS"
    assert host.error("os.unlink", "f") == "EROFS"


def test_classes_in_order(hosts):
    """C25: through goes before stream; append before stream."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('x.log.db', REPLACE, 0o600); os.write(fd, b'now')")
    assert b.read("x.log.db") == b"now"
    writer("os.close(fd)")


def test_rename_between_classes(hosts):
    """C25: a staged file becomes a through name and the other way round by rename, with its bytes."""
    a, b = hosts
    a("put('f', b'data'); os.rename('f', 'f.db')")
    assert b.read("f.db") == b"data"
    b("os.rename('f.db', 'g')")
    a("put('g', b'next')")
    assert b.read("g") == b"next"
