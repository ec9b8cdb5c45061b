# SPDX-License-Identifier: GPL-2.0-or-later
"""What the journal gets of each event that people must know (docs/operating.md, Events), and what -d says."""

import os
import re
import subprocess
import time

import pytest
from background import Background, Journal
from harness import CTL, ROOT, eventually

OLD = b"." * 4096


@pytest.fixture
def alpha(lab, source):
    return lab.host(source, "alpha", mount=False)


@pytest.fixture
def journal(alpha):
    """The host's journal; its mount is in the background, and for the test to end."""
    made = Journal(alpha)
    made.background = Background(alpha, "lease=4")
    assert made.background.started.returncode == 0
    return made


def described(event):
    """The MESSAGE_ID that docs/operating.md has for an event."""
    with open(ROOT + "/docs/operating.md", encoding="utf-8") as f:
        return re.search(r"^\| `%s` \| `([0-9a-f]{32})` \|" % event, f.read(), re.MULTILINE).group(1)


def test_mounted(alpha, journal):
    entry = journal.find("mounted")
    assert entry["SW_MOUNT"] == alpha.mnt and entry["SW_SOURCE"] == alpha.source
    assert entry["SW_HOST"].startswith("alpha.") and entry["PRIORITY"] == "6" and entry["SYSLOG_IDENTIFIER"] == "safewritefs"
    assert entry["MESSAGE_ID"] == described("mounted")
    journal.background.end()


@pytest.mark.parametrize("name", ["plain", "line\nPRIORITY=0\nSW_PID=1", "\x1b[2J\x07", "b\udcff\udcfe"])
def test_killed_writer(alpha, journal, name):
    """C4: who was killed, by pid and command, and what it was writing, whatever that is called."""
    alpha("os.mkdir('d')")
    writer = alpha.worker()
    writer("fd = os.open(n, os.O_WRONLY | os.O_CREAT); os.write(fd, b'half')", n="d/" + name)
    pid = writer.process.inner_pid
    writer.kill()
    entry = journal.find("writer-killed")
    assert entry and entry["SW_PATH"] == "%s/d/%s" % (alpha.mnt, name)
    assert entry["SW_COMM"] == "python3" and entry["SW_REASON"] == "killed" and entry["SW_HOST"].startswith("alpha.")
    assert entry["MESSAGE_ID"] == described("writer-killed") and entry["PRIORITY"] == "6"
    assert entry["SW_PID"] == str(pid) and "\n" not in entry["MESSAGE"] and "\x1b" not in entry["MESSAGE"]
    journal.background.end()


def test_lock_of_the_dead(alpha, journal):
    """C19: whose lock is free, and which it was."""
    owner = alpha.worker()
    owner("os.close(os.open('q.lock', os.O_WRONLY | os.O_CREAT | os.O_EXCL))")
    pid = owner.process.inner_pid
    owner.kill()
    entry = journal.find("lock-released", SW_PATH=alpha.mnt + "/q.lock", SW_PID=str(pid))
    assert entry and entry["MESSAGE_ID"] == described("lock-released")
    journal.background.end()


def test_rebased_edit(lab, alpha, journal):
    """C10: an edit that met another host's version."""
    beta = lab.host(alpha.source, "beta")
    alpha.write("f", OLD)
    editor = alpha.worker()
    editor("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'X', 0)")
    beta("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'Y', 99); os.close(fd)")
    editor("os.close(fd)")
    entry = journal.find("rebased", SW_PATH=alpha.mnt + "/f")
    assert entry and entry["SW_COMM"] == "python3" and entry["MESSAGE_ID"] == described("rebased")
    journal.background.end()


def test_crashed_neighbour(lab, alpha, journal):
    """C19, C24: a dead mount of this machine: the host, what it had staged, and the locks it held."""
    beta = lab.host(alpha.source, "beta")
    writer = beta.worker()
    writer("os.close(os.open('q.lock', os.O_WRONLY | os.O_CREAT | os.O_EXCL))")
    writer("fd = os.open('f', os.O_WRONLY | os.O_CREAT); os.write(fd, b'staged'); os.fsync(fd)")
    beta.kill_daemon()
    buried = journal.find("host-buried", timeout=15)
    assert buried and buried["SW_HOST"].startswith("beta.") and buried["MESSAGE_ID"] == described("host-buried")
    saved = journal.find("salvaged", SW_PATH=alpha.mnt + "/f")
    assert saved and saved["SW_HOST"] == buried["SW_HOST"] and saved["SW_REASON"] == "crashed"
    assert saved["MESSAGE_ID"] == described("salvaged")
    broken = journal.find("lock-broken", SW_PATH=alpha.mnt + "/q.lock")
    assert broken and broken["SW_HOST"] == buried["SW_HOST"] and broken["SW_REASON"] == "host-gone"
    assert broken["MESSAGE_ID"] == described("lock-broken")
    journal.background.end()


@pytest.mark.expect_log("rejoined")
def test_broken_by_the_administrator(lab, alpha, journal):
    """C20: whose lock, and which host, safewritectl broke."""
    beta = lab.host(alpha.source, "beta")
    owner = beta.worker()
    owner("os.close(os.open('q.lock', os.O_WRONLY | os.O_CREAT | os.O_EXCL))")
    alpha.run([CTL, "break", alpha.source + "/q.lock"], cwd="/")
    broken = journal.find("lock-broken", SW_PATH="q.lock")
    assert broken["SW_REASON"] == "administrator" and broken["SW_PID"] == str(owner.process.inner_pid)
    assert broken["SW_HOST"].startswith("beta.") and broken["SW_SOURCE"] == alpha.source and "SW_MOUNT" not in broken
    alpha.run([CTL, "break", "--force", alpha.source, broken["SW_HOST"]], cwd="/")
    assert journal.find("host-broken", SW_HOST=broken["SW_HOST"], SW_REASON="administrator")
    assert eventually(lambda: "rejoined" in beta.log_text(), 15)
    journal.background.end()


def test_frozen_and_fenced(lab, alpha, journal):
    """C19, C21: the others say whom they broke, and who wakes up says that it was fenced."""
    beta = lab.host(alpha.source, "beta", "lease=4", mount=False)
    there = Journal(beta)
    background = Background(beta, "lease=4")
    assert background.started.returncode == 0
    writer = beta.worker()
    writer("fd = os.open('f', os.O_WRONLY | os.O_CREAT); os.write(fd, b'staged'); os.fsync(fd)")
    (daemon,) = background.daemons
    background.signal([daemon], 19)
    broken = journal.find("host-broken", timeout=30)
    assert broken and broken["SW_HOST"].startswith("beta.") and broken["MESSAGE_ID"] == described("host-broken")
    background.signal([daemon], 18)
    rejoined = there.find("rejoined", timeout=15)
    assert rejoined and rejoined["SW_HOST"].startswith("beta.") and rejoined["SW_HOST"] != broken["SW_HOST"]
    assert rejoined["PRIORITY"] == "4" and rejoined["MESSAGE_ID"] == described("rejoined")
    background.end()
    journal.background.end()


def test_daemon_died(alpha, journal):
    """C24: the supervisor says that it starts another one."""
    journal.background.crash()
    journal.background.await_next()
    entry = journal.find("daemon-died")
    assert entry["SW_MOUNT"] == alpha.mnt and entry["PRIORITY"] == "4" and entry["MESSAGE_ID"] == described("daemon-died")
    journal.background.end()


@pytest.mark.expect_log("has not answered")
def test_source_away(lab):
    """C24: a source that does not answer is told of while it does not, and when it does."""
    source = lab.loop_source("ext4", 32 << 20)
    alpha = lab.host(source, "alpha", "lease=4")
    alpha.write("f", OLD)
    subprocess.run(["fsfreeze", "-f", source], check=True)
    try:
        assert eventually(lambda: "has not answered for 1" in alpha.log_text(), 20)
    finally:
        subprocess.run(["fsfreeze", "-u", source], check=True)
    assert eventually(lambda: "the source %s answers again, after 1" % source in alpha.log_text(), 5)


def test_foreground(alpha):
    """With -f into the journal, as a service has it: fields, and nothing twice on standard error."""
    journal = Journal(alpha)
    with open(alpha.log, "wb"):
        pass
    stream = os.stat(alpha.log)
    alpha.mount(env={**os.environ, "JOURNAL_STREAM": "%d:%d" % (stream.st_dev, stream.st_ino)})
    assert journal.find("mounted")["SW_MOUNT"] == alpha.mnt
    assert alpha.log_text() == ""


def test_foreground_elsewhere(alpha):
    """With -f and standard error on a terminal or in a file the log is there, whatever the environment says."""
    journal = Journal(alpha)
    alpha.mount(env={**os.environ, "JOURNAL_STREAM": "1:1"})
    assert "mounted on" in alpha.log_text()
    time.sleep(0.2)
    assert journal.entries == []


def test_requests_are_traced(alpha):
    """-d: each request in a line, with its paths, how it ended, how long it took, and who asked."""
    with open(alpha.log, "ab") as log:
        alpha.daemon = alpha.popen([*alpha.argv(), "-d"], cwd="/", stdout=log, stderr=log)
    alpha.await_mount()
    alpha("os.mkdir('d'); put('d/a', b'data'); os.rename('d/a', 'd/b'); error(os.unlink, 'd/none')")
    ended = r"%s: %s, \d+\.\d ms, for python3 \(\d+\)$"
    for what, how in (("mkdir d", "done"), ("create d/a", "done"), (r"write d/a, 4 bytes at 0", "done"), ("rename d/a to d/b", "done"),
                      ("flush d/a", "done"), ("lookup d/none", "No such file or directory")):
        line = re.compile("^safewritefs: debug: " + ended % (what, how), re.MULTILINE)
        assert eventually(lambda line=line: line.search(alpha.log_text())), what  # it comes after the answer
