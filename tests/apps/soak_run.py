# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs on hosts, and threads, for soak: neither goes on or fails unnoticed."""
import os
import signal
import subprocess
import tempfile
import threading

import harness


class Hang(Exception):
    pass


class Program:
    """Runs on a host, perhaps until it is killed; what it says goes to files outside the mount."""

    def __init__(self, host, command, killed_after=None, limit=180):
        self.host, self.command, self.limit = host, command, limit
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.process = host.popen(command, stdout=self.out, stderr=self.err)
        self.timer = threading.Timer(killed_after or 0, self._kill)
        if killed_after and self.process.target:
            self.pidfd = os.pidfd_open(self.process.target)  # the number may be somebody else's by then
            self.timer.start()

    def _kill(self):
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was faster

    def end(self):
        """(status, output, errors); the status is -9 if it was killed."""
        try:
            status = self.process.wait(self.limit * harness.SLOWNESS)
        except subprocess.TimeoutExpired:
            raise Hang(f"{self.host.hostname}: {self.command}\n{self.host.lab.describe()}") from None
        if self.timer.ident:
            self.timer.cancel()
            self.timer.join()
            os.close(self.pidfd)
        self.host.processes.remove(self.process)
        texts = []
        for file in (self.out, self.err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return status, *texts


class Thread(threading.Thread):
    """finish() raises what it ended with; it does not outlive the program."""

    def __init__(self, call, *arguments):
        super().__init__(target=call, args=arguments, daemon=True)
        self.raised = None
        self.start()

    def run(self):
        try:
            super().run()
        except BaseException as e:
            self.raised = e

    def finish(self):
        self.join()
        if self.raised:
            raise self.raised
