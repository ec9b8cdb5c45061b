# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd is told of a daemon of type notify: sd_notify(3), and safewritefs(8), SYSTEMD."""

import os
import signal
import socket

import pytest
from background import Background
from harness import SLOWNESS, eventually


@pytest.fixture(params=["path", "abstract"])
def listener(request, lab):
    """A socket, and the environment that names it."""
    name = lab.directory + "/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name if request.param == "path" else "\0" + name)
        sock.settimeout(15 * SLOWNESS)
        yield sock, {**os.environ, "NOTIFY_SOCKET": name if request.param == "path" else "@" + name}


def heard(sock):
    return sock.recv(4096).decode().split("\n")


def test_start_and_end(lab, source, listener):
    """Waiting is told, with more time for it; READY comes when the mount answers, STOPPING when it is to end."""
    sock, env = listener
    host = lab.host(source, "alpha", mount=False)
    host.launch("require-fstype=ramfs,wait-source=10", env=env)
    status, extension = heard(sock)
    assert "STATUS=source %s is of type " % source in status and status.endswith("waiting for it, up to 10s")
    assert extension == "EXTEND_TIMEOUT_USEC=40000000"
    host.run("mount -t ramfs ramfs $SOURCE", cwd="/")
    first, status = heard(sock)
    assert first == "READY=1" and host.is_alive()
    assert status.startswith("STATUS=%s mounted on %s as host alpha." % (source, host.mnt))
    host.daemon.end(signal.SIGTERM)
    assert heard(sock) == ["STOPPING=1", "STATUS=unmounting"]
    assert host.daemon.wait(timeout=10 * SLOWNESS) == 0
    host.gone = True


def test_not_in_the_background(lab, source, listener):
    """A daemon that no service waits for says nothing to the service that happened to start it."""
    sock, env = listener
    host = lab.host(source, "alpha", mount=False)
    background = Background(host, env=env)
    assert background.started.returncode == 0 and eventually(background.answers)
    background.end()
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard(sock)
