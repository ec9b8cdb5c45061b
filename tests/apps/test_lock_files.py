# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks as programs really make them (C18 to C20): the dead hold nothing, and the living are not robbed."""
import os
import signal
import time

import pytest
from harness import PYTHON, SLOWNESS, eventually
from lock_kinds import PROGRAMS, SHELL, emacs, python


def start(host, command):
    return host.popen(command, stdout=-1, stderr=-1, text=True)


@pytest.mark.parametrize("kind", sorted(SHELL))
def test_killed_script_frees(hosts, source, kind):
    """C19, C20: the script keeps what its helper made; killed, it holds nothing any more."""
    a, b = hosts
    take, _ = SHELL[kind]
    script = a.popen(f"{take} && touch held; sleep 1000")
    assert eventually(lambda: os.path.exists(source + "/held"), 5)
    time.sleep(0.5)
    assert b.run(take, check=False).returncode != 0
    assert os.path.lexists(source + "/x.lock")
    script.end()
    assert eventually(lambda: b.run(take, check=False).returncode == 0, 1)


FIRST_LOOKS_AFTER = {"flufl": 2.5, "optuna symlink": 1.5, "optuna open": 1.5}  # what the library may sleep, and a little


@pytest.mark.limit(90)
@pytest.mark.parametrize("kind", sorted(PROGRAMS))
def test_killed_program_frees(hosts, source, kind):
    """C19: a program killed while it has the lock: those who wait, on both hosts, go on within 1 s."""
    a = hosts[0]
    owner = a.popen(python(kind, "take(); open('held', 'w').close(); time.sleep(1000)"))
    assert eventually(lambda: os.path.exists(source + "/held"), 20)
    wait = "open(sys.argv[1], 'w').close(); take(); print(time.monotonic()); drop()"
    waiting = [start(host, python(kind, "import sys; " + wait, "waits-" + host.hostname)) for host in hosts]
    assert eventually(lambda: all(os.path.exists(source + "/waits-" + host.hostname) for host in hosts), 30)
    time.sleep(0.3)
    assert [process.poll() for process in waiting] == [None, None]
    killed = time.monotonic()
    owner.end()
    first, second = sorted(float(process.communicate(timeout=20)[0]) for process in waiting)
    assert first - killed < (1 + FIRST_LOOKS_AFTER.get(kind, 0)) * SLOWNESS
    assert second - killed < 10 * SLOWNESS


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_killed_emacs_frees(hosts, source, number):
    """C19, C20: the link that says who edits a file: nobody else's while he does, and gone with him."""
    a, b = hosts
    owner = a.popen(emacs('(take) (write-region "" nil "held") (sleep-for 1000)'))
    assert eventually(lambda: os.path.exists(source + "/held"), 20)
    time.sleep(0.5)
    tries = emacs("(kill-emacs (if (take) 0 3))")
    assert a.run(tries, check=False).returncode == b.run(tries, check=False).returncode == 3
    assert b.error("os.unlink", ".#x") == "EBUSY"
    owner.end(number)
    assert eventually(lambda: not os.path.lexists(source + "/.#x"), 1)
    b.run(tries)


# What takes a lock away that it believes stale, tried against one that a living script on another host holds.
ROBBERS = {
    "dotlockfile -p, no such pid here": "dotlockfile -l -p -r 0 x.lock",
    "lockfile -l, older than 1 s": "timeout 4 lockfile -1 -l 1 -s 1 -r 2 x.lock",
    "lockfile-create -p, no such pid here": "lockfile-create -q -p -r 0 x",
    "rm -f and again": "rm -f x.lock; (set -C; echo $$ > x.lock)",
    "mv away and again": "mv x.lock x.lock.$$; (set -C; echo $$ > x.lock)",
    "mv over it": "echo $$ > mine; mv -f mine x.lock",
    "rename and unlink, as SoftFileLock breaks": f"{PYTHON} -c \"import os; os.rename('x.lock', 'x.lock.break.1')\"",
}


@pytest.mark.parametrize("robber", sorted(ROBBERS))
def test_none_is_robbed(hosts, source, robber):
    """C20: what guesses that a live lock is stale does not get it, on either host."""
    a, b = hosts
    holder = a.popen("dotlockfile -l -p -r 0 x.lock && touch held && sleep 1000; :")
    assert eventually(lambda: os.path.exists(source + "/held"), 5)
    before = os.stat(source + "/x.lock")
    time.sleep(1.2)
    for host in (b, a):
        assert host.run(ROBBERS[robber], check=False).returncode != 0, host.hostname
        after = os.stat(source + "/x.lock")
        assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    holder.end()
    assert eventually(lambda: not os.path.lexists(source + "/x.lock"), 1)


@pytest.mark.limit(60)
def test_flufl_lifetime(hosts):
    """C20: flufl.lock's own promise: held for its lifetime, refreshed for longer, and then anybody's.  The slop that the
    library adds, 10 s, is made 1 s here."""
    a, b = hosts
    hold = "lock.lifetime = 2; take(); open('held', 'w').close(); time.sleep(1)\n"
    hold += "lock.refresh(2); print(time.time(), flush=True); time.sleep(1000)"
    owner = start(a, python("flufl", hold))
    assert eventually(lambda: a.exists("held"), 20)
    refreshed = float(owner.stdout.readline())
    take = "import flufl.lock._lockfile as f; f.CLOCK_SLOP = timedelta(seconds=1); lock.lock(); print(time.time()); drop()"
    got = float(start(b, python("flufl", take)).communicate(timeout=40)[0])
    assert got - refreshed > 1.9  # it counts in whole seconds
    owner.end()


def test_git_killed(hosts, source):
    """C19: what a killed git leaves of index.lock bars nobody."""
    a, b = hosts
    a.run("git init -q repo && cd repo && git config user.name x && git config user.email x@x && touch f")
    git = a.popen("cd repo && git add f && GIT_EDITOR='sleep 1000;:' exec git commit -a")
    # The add before it has taken and left the lock as well; the editor comes with the commit's.
    assert eventually(lambda: os.path.exists(source + "/repo/.git/COMMIT_EDITMSG"), 5)
    assert b.run("cd repo && git add f", check=False).returncode != 0
    git.end()
    assert eventually(lambda: not os.path.exists(source + "/repo/.git/index.lock"), 1)
    b.run("cd repo && git add f && git -c user.name=x -c user.email=x@x commit -qm done")
