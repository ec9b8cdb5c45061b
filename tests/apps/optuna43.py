# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule by which Optuna from 4.3 on takes a lock away that it believes abandoned, for tests with Debian's 3.1.

It tries, and at each EEXIST asks for the modification time at the lock's name (of a symbolic link: of what that leads
to, the journal).  When that has not changed for the grace period, by its own monotonic clock, it lets go of the lock in
the name of whoever has it: rename, then unlink.  What cannot be asked for or renamed is tried again without a pause.
"""
import errno
import os
import time
import uuid


class Lock:
    def __init__(self, path, kind, grace):
        self.target, self.name, self.kind, self.grace = path, path + ".lock", kind, grace
        self.forced = 0

    def make(self):
        if self.kind == "symlink":
            os.symlink(self.target, self.name)
        else:
            os.close(os.open(self.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def acquire(self, until):
        pause, seen, changed = 0.001, None, time.monotonic()
        while time.monotonic() < until:
            try:
                self.make()
                return True
            except OSError as e:
                if e.errno != errno.EEXIST:
                    raise
            try:
                mtime = os.stat(self.name).st_mtime
            except OSError:
                continue
            if mtime != seen:
                seen, changed = mtime, time.monotonic()
            if time.monotonic() - changed > self.grace:
                self.forced += 1
                try:
                    self.release()
                    pause = 0.001
                except RuntimeError:
                    continue
            time.sleep(pause)
            pause = min(pause * 2, 1)
        return False

    def release(self):
        away = self.name + str(uuid.uuid4()) + ".rename"
        try:
            os.rename(self.name, away)
            os.unlink(away)
        except OSError:
            raise RuntimeError("did not possess lock") from None
