# SPDX-License-Identifier: GPL-2.0-or-later
"""require-fstype and wait-source: a source that is not there yet is waited for, and the empty directory in its place is
not served (the manual page).  ramfs and tmpfs stand in for NFS."""

import os
import signal
import time

import pytest
from background import Background
from harness import SLOWNESS, eventually


@pytest.fixture
def alpha(lab, source):
    return lab.host(source, "alpha", mount=False)


def test_is_waited_for(lab, source, alpha):
    """Mounted after 2 s: nothing is mounted before, what is served is the file system, the directory stays empty."""
    alpha.launch("require-fstype=nfs:ramfs")
    assert eventually(lambda: "waiting for it, up to 30s" in alpha.log_text())
    time.sleep(2)
    assert not alpha.is_mounted() and os.listdir(source) == []
    alpha.run("mount -t ramfs ramfs $SOURCE && echo share > $SOURCE/f", cwd="/")
    began = time.monotonic()
    alpha.await_mount()
    assert time.monotonic() - began < 2 * SLOWNESS
    assert alpha.read("f") == b"share\n"
    assert os.listdir(source) == []


def test_a_directory_that_comes_later(lab, source, alpha):
    """A source that does not exist yet is waited for as well."""
    share = source + "/share"
    alpha.run("mount -t tmpfs tmpfs $SOURCE", cwd="/")
    alpha.source = share
    alpha.launch("require-fstype=tmpfs")
    missing = "%s: No such file or directory; the tmpfs at %s is mounted, so it has yet to be made: waiting" % (share, source)
    assert eventually(lambda: missing in alpha.log_text())
    alpha.run(["mkdir", share], cwd="/")
    alpha.await_mount()


@pytest.mark.parametrize("foreground", [True, False])
def test_refused(lab, source, alpha, foreground):
    """The time is over: 32, and a sentence that names source, type and what was wanted."""
    alpha.run("mount -t tmpfs tmpfs $SOURCE", cwd="/")
    for wait, lines in (("0", 1), ("1.5", 2)):
        options = "require-fstype=nfs:nfs4,wait-source=%s" % wait
        began = time.monotonic()
        argv = [word for word in alpha.argv(options) if foreground or word != "-f"]
        done = alpha.run(argv, check=False, cwd="/")
        assert done.returncode == 32 and time.monotonic() - began >= float(wait)
        last = "safewritefs: error: source %s is of type tmpfs, not nfs:nfs4 as require-fstype says" % source
        assert done.stderr.splitlines()[-1] == last and len(done.stderr.splitlines()) == lines
        assert not alpha.is_mounted() and alpha.run("ls -A $SOURCE", cwd="/").stdout == ""


@pytest.mark.parametrize("foreground", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_wait_ends_with_a_signal(lab, source, alpha, foreground, number):
    """SIGTERM, and ^C, end who waits, and nothing is mounted later."""
    argv = [word for word in alpha.argv("require-fstype=ramfs") if foreground or word != "-f"]
    with open(alpha.log, "wb") as log:
        waiting = alpha.popen(argv, cwd="/", stderr=log)
    assert eventually(lambda: "waiting" in alpha.log_text())
    waiting.end(number)
    assert waiting.wait(timeout=5 * SLOWNESS) == -number
    alpha.run("mount -t ramfs ramfs $SOURCE", cwd="/")
    time.sleep(1)
    assert not alpha.is_mounted() and alpha.strays()[0] == []


def test_after_a_crash(lab, source, alpha):
    """The daemon that comes back serves the directory that was found first, whatever its name leads to by then."""
    alpha.run("mount -t ramfs ramfs $SOURCE && echo share > $SOURCE/f", cwd="/")
    background = Background(alpha, "require-fstype=ramfs")
    alpha.run("mount -t tmpfs tmpfs $SOURCE", cwd="/")
    background.crash()
    background.await_next()
    assert alpha.read("f") == b"share\n"
    background.end()
