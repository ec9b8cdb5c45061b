# SPDX-License-Identifier: GPL-2.0-or-later
"""Optuna's journal on a shared directory, with both of its locks (C18 to C21): Debian's version, unmodified, and the rule
of newer ones.  SW_LEASE=20 SW_GRACE=30 asks for the figures of the defaults, where here are 2 s each."""
import collections
import os
import signal
import time

import pytest
from harness import PYTHON, SLOWNESS, eventually
from lock_kinds import python

HERE = os.path.dirname(os.path.abspath(__file__))
LEASE = int(os.environ.get("SW_LEASE", "2"))
GRACE = float(os.environ.get("SW_GRACE", "2"))
LOCKS = ["JournalFileSymlinkLock", "JournalFileOpenLock"]
KIND = {"JournalFileSymlinkLock": "optuna symlink", "JournalFileOpenLock": "optuna open"}
POLLS = 1  # Optuna sleeps up to that long between two tries

STUDY = """
import sys, optuna
from optuna.storages import JournalFileStorage, JournalStorage, {lock}
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = JournalStorage(JournalFileStorage('journal', lock_obj={lock}('journal')))
study = optuna.create_study(storage=storage, study_name='s', load_if_exists=True)
done = []
study.optimize(lambda trial: trial.suggest_float('x', 0, 1), n_trials=int(sys.argv[1]),
               callbacks=[lambda study, trial: done.append(trial.number)])
print(done)
"""
ALL = STUDY + "print([(t.number, t.state.is_finished(), len(t.params)) for t in study.trials])"


def start(host, command):
    return host.popen(command, stdout=-1, stderr=-1, text=True)


def optuna(code, *words):
    return [PYTHON, "-W", "ignore", "-c", code, *map(str, words)]


def numbers(process):
    out, err = process.communicate(timeout=120 * SLOWNESS)
    assert process.returncode == 0, out + err
    return eval(out)


@pytest.mark.limit(180)
@pytest.mark.parametrize("lock", LOCKS)
def test_study(hosts, lock):
    """C11, C18 to C20: four workers of one study on two hosts, and a fifth that is killed: no trial is lost or doubled."""
    a, b = hosts
    code = STUDY.format(lock=lock)
    victim = a.popen(optuna(code, 100000))
    assert eventually(lambda: a.exists("journal") and a.look("journal").st_size > 5000, 30)
    workers = [start(host, optuna(code, 12)) for host in hosts for _ in range(2)]
    assert eventually(lambda: a.look("journal").st_size > 15000, 30)
    victim.end()
    done = collections.Counter(number for worker in workers for number in numbers(worker))
    assert sum(done.values()) == 48 and max(done.values()) == 1
    views = [host.run(optuna(ALL.format(lock=lock), 0), timeout=60).stdout.splitlines()[-1] for host in hosts]
    assert views[0] == views[1]
    trials = eval(views[0])
    assert [number for number, _, _ in trials] == list(range(len(trials)))
    finished = {number for number, ended, parameters in trials if ended and parameters == 1}
    assert set(done) <= finished
    # Only what the victim was at may be unfinished.
    assert len([number for number, ended, _ in trials if not ended]) <= 1


def hold(host, lock):
    owner = host.popen(python(KIND[lock], "take(); open('held', 'w').close(); time.sleep(1000)"))
    assert eventually(lambda: host.exists("held"), 30)
    return owner


def wait_on(hosts, lock):
    code = "import sys; open(sys.argv[1], 'w').close(); take(); print(time.monotonic()); drop()"
    waiting = [start(host, python(KIND[lock], code, "waits-" + host.hostname)) for host in hosts]
    for host in hosts:
        assert eventually(lambda: hosts[-1].exists("waits-" + host.hostname), 30)
    time.sleep(0.3)
    return waiting


def got(waiting, limit):
    """When the first of them had it; all get it in their turn."""
    return min(time_of(process, limit) for process in waiting)


def time_of(process, limit):
    out, err = process.communicate(timeout=limit * SLOWNESS)
    assert process.returncode == 0, out + err
    return float(out)


@pytest.mark.limit(90 + 3 * LEASE)
@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.expect_log("rejoined as host")
def test_daemon_dies_with_the_worker(lab, source, lock, how):
    """C19: both killed, on a machine of their own, or both frozen: others go on within lease + 2 s."""
    options = "lease=%d" % LEASE
    a = lab.host(source, "alpha", options, mount=False)
    with open(lab.directory + "/boot_id", "w", encoding="ascii") as f:
        f.write("11111111-2222-3333-4444-555555555555\n")
    a.run(["mount", "--bind", lab.directory + "/boot_id", "/proc/sys/kernel/random/boot_id"], cwd="/")
    a.mount()
    b = lab.host(source, "beta", options)
    owner = hold(a, lock)
    waiting = wait_on([b, b], lock)
    began = time.monotonic()
    if how == "killed":
        owner.end()
        a.kill_daemon()
    else:
        owner.end(signal.SIGSTOP)
        a.daemon.end(signal.SIGSTOP)
    assert got(waiting, LEASE * 3 + 20) - began < LEASE + 2 + POLLS + SLOWNESS
    if how == "frozen":
        a.daemon.end(signal.SIGCONT)
        assert eventually(lambda: "rejoined as host" in a.log_text(), 10)


LOAD = ["while :; do :; done"] * 4 + ["while :; do head -c 30M /dev/zero > big; done"]
ROB = """
import sys, time
sys.path.insert(0, sys.argv[1])
import optuna43
lock = optuna43.Lock('x', sys.argv[2], float(sys.argv[3]))
got = lock.acquire(time.monotonic() + float(sys.argv[4]))
print((got, lock.forced))
"""


@pytest.mark.limit(120 + 6 * LEASE)
@pytest.mark.parametrize("lock", LOCKS)
def test_the_living_are_not_robbed(lab, source, lock):
    """C20: held for three leases and longer than the grace period, on a busy host: nobody gets it by any version's rule."""
    a, b = hosts = [lab.host(source, name, "lease=%d" % LEASE) for name in ("alpha", "beta")]
    a.write("x", b"")
    load = [a.popen(command) for command in LOAD]
    owner = hold(a, lock)
    before = os.lstat(source + "/x.lock")
    (waiting,) = wait_on([b], lock)
    kind, seconds = KIND[lock].split()[1], max(3 * LEASE, GRACE + 2)
    robbers = [start(host, optuna(ROB, HERE, kind, GRACE, seconds)) for host in hosts for _ in range(2)]
    for robber in robbers:
        has_got, forced = numbers(robber)
        assert not has_got and forced > 0
    after = os.lstat(source + "/x.lock")
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)
    assert waiting.poll() is None
    for busy in load:
        busy.end()
    killed = time.monotonic()
    owner.end()
    assert time_of(waiting, 20) - killed < 1 + POLLS + SLOWNESS
