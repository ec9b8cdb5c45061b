# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks as programs really make them (C18 to C20): never two holders at once, and the dead hold nothing."""
import os
import time

import pytest
from harness import PYTHON, eventually

# (how it is tried once, how it is released)
SHELL = {
    "noclobber": ("(set -C; echo $$ > x.lock) 2> /dev/null", "rm -f x.lock"),
    "symlink": ("ln -s $$ x.lock 2> /dev/null", "rm -f x.lock"),
    "mkdir": ("mkdir x.lock 2> /dev/null", "rmdir x.lock"),
    "dotlockfile": ("dotlockfile -l -r 0 x.lock", "dotlockfile -u x.lock"),
    "dotlockfile -p": ("dotlockfile -l -p -r 0 x.lock", "dotlockfile -u x.lock"),
    "lockfile": ("lockfile -r 0 x.lock 2> /dev/null", "rm -f x.lock"),
    "lockfile-create": ("lockfile-create -q -r 0 x", "lockfile-remove x"),
}
# Inside, an exclusive mkdir on the source itself shows whether anybody else is.
HOLDS = """
held=0
while test $held -lt {rounds}; do
    {take} || {{ sleep 0.0$((RANDOM % 9 + 1)); continue; }}
    mkdir "$SOURCE/inside" || {{ echo overlap; exit 1; }}
    rmdir "$SOURCE/inside"
    {drop} || {{ echo "cannot release"; exit 1; }}
    held=$((held + 1))
done
"""
PYTHON_LOCKS = {
    "flufl": """
from flufl.lock import Lock
lock = Lock('x.lock', lifetime=60)
take, drop = lock.lock, lock.unlock
""",
    "filelock": """
from filelock import SoftFileLock
lock = SoftFileLock('x.lock')
take, drop = lambda: lock.acquire(poll_interval=0.005), lock.release
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
PYTHON_HOLDS = """
import os, sys
for i in range(int(sys.argv[1])):
    take()
    os.mkdir(os.environ['SOURCE'] + '/inside')
    os.rmdir(os.environ['SOURCE'] + '/inside')
    drop()
"""


def finish(processes, timeout=120):
    for process in processes:
        out, err = process.communicate(timeout=timeout)
        assert process.returncode == 0, out + err


def start(host, command):
    return host.popen(command, stdout=-1, stderr=-1, text=True)


@pytest.mark.limit(150)
@pytest.mark.parametrize("kind", sorted(SHELL))
def test_shell_locks_exclude(hosts, kind):
    """C18, C20: two scripts on each of two hosts, 120 holds."""
    take, drop = SHELL[kind]
    script = HOLDS.format(take=take, drop=drop, rounds=30)
    finish([start(host, script) for host in hosts for _ in range(2)])


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


@pytest.mark.limit(150)
@pytest.mark.parametrize("kind", sorted(PYTHON_LOCKS))
def test_python_locks_exclude(hosts, kind):
    """C18, C20: two programs on each of two hosts, 100 holds (flufl.lock, which sleeps for up to 2 s: 16)."""
    rounds = "4" if kind == "flufl" else "25"
    code = PYTHON_LOCKS[kind] + PYTHON_HOLDS
    finish([start(host, [PYTHON, "-c", code, rounds]) for host in hosts for _ in range(2)])


@pytest.mark.limit(90)
@pytest.mark.parametrize("kind", ["optuna symlink", "optuna open", "filelock"])
def test_killed_program_frees(hosts, source, kind):
    """C19: a worker killed while it has the lock: those who wait, on both hosts, go on within 1 s."""
    a, b = hosts
    hold = PYTHON_LOCKS[kind] + "take(); open('held', 'w').close(); import time; time.sleep(1000)"
    wait = PYTHON_LOCKS[kind] + "open(%r, 'w').close(); take(); import time; print(time.monotonic()); drop()"
    owner = a.popen([PYTHON, "-c", hold])
    assert eventually(lambda: os.path.exists(source + "/held"), 20)
    waiting = [start(host, [PYTHON, "-c", wait % ("waits-" + host.hostname)]) for host in hosts]
    assert eventually(lambda: all(os.path.exists(source + "/waits-" + host.hostname) for host in hosts), 30)
    time.sleep(0.3)
    killed = time.monotonic()
    owner.end()
    # Optuna waits up to 1 s between two looks.
    assert eventually(lambda: not os.path.lexists(source + "/x.lock") or waiting[0].poll() is not None, 1)
    first = min(float(process.communicate(timeout=20)[0]) for process in waiting)
    assert first - killed < (2 if "optuna" in kind else 1)


@pytest.mark.limit(120)
@pytest.mark.parametrize("lock", ["JournalFileSymlinkLock", "JournalFileOpenLock"])
def test_optuna_study(hosts, lock):
    """C18 to C20: workers of one study on two hosts, one of them killed: no trial of the others is lost."""
    code = f"""
import sys, time, optuna
from optuna.storages import JournalFileStorage, JournalStorage, {lock}
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = JournalStorage(JournalFileStorage('journal', lock_obj={lock}('journal')))
study = optuna.create_study(storage=storage, study_name='s', load_if_exists=True)
study.optimize(lambda trial: trial.suggest_float('x', 0, 1), n_trials=int(sys.argv[1]))
if sys.argv[1] == '0':
    print(sum(t.state.is_finished() for t in study.trials))
"""
    a, b = hosts
    victim = a.popen([PYTHON, "-W", "ignore", "-c", code, "100000"])
    assert eventually(lambda: a.exists("journal") and a.look("journal").st_size > 5000, 30)
    others = [start(host, [PYTHON, "-W", "ignore", "-c", code, "15"]) for host in hosts for _ in range(2)]
    time.sleep(5)
    victim.end()
    finish(others, 60)
    assert int(b.run([PYTHON, "-W", "ignore", "-c", code, "0"]).stdout) >= 60


@pytest.mark.limit(120)
def test_git_index_lock(hosts):
    """C18, C20: commits of two hosts in one work tree: index.lock and HEAD.lock exclude, no commit is lost."""
    a, b = hosts
    a.run("git init -q repo && cd repo && git config user.name x && git config user.email x@x && git config gc.auto 0")
    commit = """
cd repo; export GIT_OPTIONAL_LOCKS=0
for i in $(seq 15); do
    until git commit -q --allow-empty -m $HOSTNAME-$i 2> /dev/null; do sleep 0.0$((RANDOM % 9)); done
done
"""
    finish([start(host, commit) for host in hosts])
    check = "cd repo && git rev-list --count HEAD && git fsck --strict --no-dangling 2>&1; ls -d .git/[i-z]*.lock"
    assert a.run(check + " 2> /dev/null; true").stdout == "30\n"


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
