# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd is told of a daemon of type notify: sd_notify(3), and safewritefs(8), SYSTEMD."""

import os
import signal
import socket
import subprocess
import time

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
    assert heard(sock) == ["STOPPING=1", "STATUS=unmounting", "WATCHDOG_USEC=0"]
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


def watchdog(env, **more):
    """What systemd gives a service with WatchdogSec=1; the pid is not known before there is one."""
    return {**env, "WATCHDOG_USEC": "1000000", **more}


def test_alive(lab, source, listener):
    """A daemon that comes on says so four times within WatchdogSec=; one that was stopped does not, until it goes on."""
    sock, env = listener
    host = lab.host(source, "alpha", mount=False)
    host.mount(env=watchdog(env))
    assert heard(sock)[0] == "READY=1"
    began = time.monotonic()
    assert [heard(sock) for _ in range(5)] == [["WATCHDOG=1"]] * 5
    assert time.monotonic() - began < 3 * SLOWNESS
    host.daemon.end(signal.SIGSTOP)
    assert eventually(host.daemon_stands_still)
    sock.setblocking(False)
    while eventually(lambda: not_heard(sock), 0.1) is False:
        pass
    time.sleep(1)
    assert not_heard(sock)
    host.daemon.end(signal.SIGCONT)
    sock.settimeout(15 * SLOWNESS)
    assert heard(sock) == ["WATCHDOG=1"]


def not_heard(sock):
    try:
        return not heard(sock)
    except BlockingIOError:
        return True


def test_alive_while_the_source_is_away(lab, listener):
    """Requests that wait for the source, more than there are readers at first, are no hang."""
    sock, env = listener
    source = lab.loop_source("ext4", 16 << 20)
    host = lab.host(source, "alpha", mount=False)
    host.mount("lease=1d", env=watchdog(env))
    workers = [host.worker() for _ in range(12)]
    subprocess.run(["fsfreeze", "--freeze", source], check=True)
    try:
        for n, worker in enumerate(workers):
            worker.start("os.mkdir('d%d' % n)", n=n)
        assert all(worker.is_waiting() for worker in workers)
        sock.setblocking(False)
        while not not_heard(sock):
            pass
        sock.settimeout(15 * SLOWNESS)
        assert [heard(sock) for _ in range(8)] == [["WATCHDOG=1"]] * 8
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", source], check=True)
    for worker in workers:
        worker.finish()


def test_watchdog_of_another_process(lab, source, listener):
    """What is set for another process is not ours (sd_watchdog_enabled(3))."""
    sock, env = listener
    host = lab.host(source, "alpha", mount=False)
    host.mount(env=watchdog(env, WATCHDOG_PID="1"))
    assert heard(sock)[0] == "READY=1"
    time.sleep(1)
    sock.setblocking(False)
    assert not_heard(sock)
