# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons without -f, as mount(8) and people start them: a supervisor, its daemon, and their log."""

import os
import re
import signal
import socket
import threading
import time

from harness import SLOWNESS, eventually, read_text


def fields_of(data):
    """What journald makes of a datagram: {name: value}."""
    fields, at = {}, 0
    while at < len(data):
        end = data.index(b"\n", at)
        name, equals, value = data[at:end].partition(b"=")
        if not equals:
            size = int.from_bytes(data[end + 1 : end + 9], "little")
            value, end = data[end + 9 : end + 9 + size], end + 9 + size
            assert data[end : end + 1] == b"\n"
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]*", name) and name not in fields
        fields[name.decode()] = value.decode("utf-8", "surrogateescape")
        at = end + 1
    return fields


class Journal:
    """Where the daemons of a host believe the journal to be."""

    def __init__(self, host):
        self.seen, self.entries = [], []
        path = os.path.join(host.scratch, "journal")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        os.chmod(path, 0o666)
        place = "/run/systemd/journal"
        host.run(
            "mkdir -p %s && mount -t tmpfs tmpfs %s && touch %s/socket && mount --bind %s %s/socket"
            % (place, place, place, path, place),
            cwd="/",
        )
        # Its queue is short, and who finds it full waits.
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self):
        while True:
            data = self.socket.recv(1 << 18)
            self.seen.append(data.decode(errors="replace"))
            self.entries.append(fields_of(data))

    def says(self, text, times=1):
        return eventually(lambda: "\n".join(self.seen).count(text) == times)

    def find(self, event, timeout=3.0, **fields):
        """The fields of the first entry of that event that has all those."""
        wanted = {"SW_EVENT": event, **fields}.items()
        return eventually(lambda: next((e for e in list(self.entries) if wanted <= e.items()), None), timeout)


class Background:
    """The two processes of the mount of `host`, which was made with mount=False."""

    def __init__(self, host, options="", command=(), **named):
        self.host = host
        argv = [word for word in host.argv(options) if word != "-f"]
        self.started = host.run([*command, *argv], check=False, cwd="/", **named)

    @classmethod
    def found(cls, host):
        """That of a host on which somebody else mounted."""
        background = cls.__new__(cls)
        background.host = host
        return background

    def pids(self, name):
        """Pids on the host of what has that name."""
        pids, proc = self.host.strays()
        return [pid for pid in pids if read_text("%s/%d/comm" % (proc, pid)).strip() == name]

    @property
    def daemons(self):
        return self.pids("safewritefs")

    @property
    def supervisors(self):
        return self.pids("safewritefs-sup")

    def signal(self, pids, number=signal.SIGKILL):
        self.host.run(["kill", "-%d" % number, *map(str, pids)], cwd="/")

    def answers(self):
        return self.host.run(["stat", "-f", "-c", "%T", self.host.mnt], check=False, cwd="/").stdout == "fuseblk\n"

    def crash(self):
        """Kills the daemon: when that was."""
        (daemon,) = self.daemons
        began = time.monotonic()
        self.signal([daemon])
        assert eventually(lambda: daemon not in self.daemons, 10)
        return began

    def await_next(self):
        """Until the mount answers again."""
        assert eventually(lambda: len(self.daemons) == 1 and self.answers(), 10), "the mount does not come back"

    def await_end(self):
        """Until both have left."""
        assert eventually(lambda: not self.daemons and not self.supervisors, 10 * SLOWNESS)

    def end_programs(self):
        """Whatever else was started on the host, and might keep the mount busy."""
        self.host._worker = None
        for process in self.host.processes:
            process.end()
            process.wait(timeout=20 * SLOWNESS)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()
        self.host.processes = []

    def end(self):
        self.end_programs()
        assert eventually(lambda: self.host.umount(check=False).returncode == 0, 5)
        self.await_end()
