# SPDX-License-Identifier: GPL-2.0-or-later
"""How programs take and release their locks, one entry per kind."""
from harness import PYTHON

# In a shell: how it is tried once, how it is released.
SHELL = {
    "noclobber": ("(set -C; echo $$ > x.lock) 2> /dev/null", "rm -f x.lock"),
    "symlink": ("ln -s $$ x.lock 2> /dev/null", "rm -f x.lock"),
    "mkdir": ("mkdir x.lock 2> /dev/null", "rmdir x.lock"),
    "dotlockfile": ("dotlockfile -l -r 0 x.lock", "dotlockfile -u x.lock"),
    "dotlockfile -p": ("dotlockfile -l -p -r 0 x.lock", "dotlockfile -u x.lock"),
    "lockfile": ("lockfile -r 0 x.lock 2> /dev/null", "rm -f x.lock"),
    "lockfile-create": ("lockfile-create -q -r 0 x", "lockfile-remove x"),
    "lockfile-create -p": ("lockfile-create -q -p -r 0 x", "lockfile-remove x"),
}

# In Python: take() waits, drop() releases.  A library that sleeps for long is asked for one try at a time.
TRYING = """
import time
def trying(once, refusal):
    def take():
        while True:
            try:
                return once()
            except refusal:
                time.sleep(0.003)
    return take
"""
PROGRAMS = {
    "flufl": """
from datetime import timedelta
from flufl.lock import Lock, TimeOutError
lock = Lock('x.lock', lifetime=60)
take, drop = trying(lambda: lock.lock(timeout=timedelta(0)), TimeOutError), lock.unlock
""",
    "SoftFileLock": """
from filelock import SoftFileLock
lock = SoftFileLock('x.lock')
take, drop = lambda: lock.acquire(poll_interval=0.003), lock.release
""",
    "FileLock": """
from filelock import FileLock
lock = FileLock('x.lock')
take, drop = lambda: lock.acquire(poll_interval=0.003), lock.release
""",
    "mailbox": """
import mailbox
lock = mailbox.mbox('x')
take, drop = trying(lock.lock, mailbox.ExternalClashError), lock.unlock
""",
    "optuna symlink": """
from optuna.storages import JournalFileSymlinkLock
lock = JournalFileSymlinkLock('x')
take, drop = lock.acquire, lock.release
""",
    "optuna open": """
from optuna.storages import JournalFileOpenLock
lock = JournalFileOpenLock('x')
take, drop = lock.acquire, lock.release
""",
}

# Batch mode can ask nobody what to do about another's lock.
EMACS = """
(setq create-lockfiles t)
(load "userlock" nil t)
(defun ask-user-about-lock (file opponent) (signal 'file-locked (list file opponent)))
(defun take () (condition-case nil (progn (lock-file (expand-file-name "x")) t) (file-locked nil)))
(defun drop () (unlock-file (expand-file-name "x")))
"""


def python(kind, code, *words):
    return [PYTHON, "-W", "ignore", "-c", TRYING + PROGRAMS[kind] + code, *map(str, words)]


def emacs(code):
    return ["emacs", "--batch", "-Q", "--eval", "(progn %s %s)" % (EMACS, code)]
