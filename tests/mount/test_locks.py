# SPDX-License-Identifier: GPL-2.0-or-later
"""Lock files of applications (C18 to C20): one owner, until it lets go or dies."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from harness import SLOWNESS, eventually, read_text

MAKE = {
    "file": "os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))",
    "symlink": "os.symlink('anything', name)",
    "link": "put('mine-' + str(me), b'x'); os.link('mine-' + str(me), name); os.unlink('mine-' + str(me))",
    "dir": "os.mkdir(name)",
}
DROP = {"file": "os.unlink(name)", "symlink": "os.unlink(name)", "link": "os.unlink(name)", "dir": "os.rmdir(name)"}
KINDS = sorted(MAKE)

# Takes the lock, proves on the source itself that nobody else has it, lets go.
ROUNDS = """
def take():
    try:
        %s
    except FileExistsError:
        %s
        return False
    return True
held = 0
until = time.monotonic() + 60
while held < rounds and time.monotonic() < until:
    if not take():
        time.sleep(0.001)
        continue
    os.mkdir(source + '/inside')
    os.rmdir(source + '/inside')
    %s
    held += 1
result = held
"""


def make(worker, kind, name, me=0):
    worker(MAKE[kind], name=name, me=me)


def records(source):
    return os.listdir(source + "/.safewritefs/locks")


@pytest.mark.limit(150)
@pytest.mark.parametrize("kind", KINDS)
def test_one_winner(hosts, source, kind):
    """C18, C20: 2 x 4 racers, 160 holds of one lock: never two at once, and everybody gets on."""
    os.chmod(source, 0o1777)
    workers = [host.worker() for host in hosts for _ in range(4)]
    undo = "os.unlink('mine-' + str(me))" if kind == "link" else "pass"
    for number, worker in enumerate(workers):
        code = ROUNDS % (MAKE[kind], undo, DROP[kind])
        worker.start(code, name="x.lock", me=number, rounds=20, source=source)
    assert [worker.finish(90) for worker in workers] == [20] * 8
    assert records(source) == []


@pytest.mark.parametrize("kind", KINDS)
def test_killed_owner(lab, hosts, source, kind):
    """C19, C18: kill -9 of the owner: within 1 s others get the lock on both hosts, and the old one is in salvage."""
    for waiting in (hosts[0], hosts[1]):
        owner, next_one = hosts[0].worker(), waiting.worker()
        make(owner, kind, "x.lock")
        assert len(records(source)) == 1
        next_one.start(
            """
while True:
    try:
        os.mkdir(name)
        break
    except FileExistsError:
        time.sleep(0.01)
""",
            name="x.lock",
        )
        time.sleep(0.3)
        assert next_one.is_waiting()
        killed = time.monotonic()
        owner.kill()
        next_one.finish()
        assert time.monotonic() - killed < (SLOWNESS if lab.is_emulated else 1)
        next_one("os.rmdir('x.lock')")
    assert records(source) == []
    assert len([name for name in os.listdir(source + "/.safewritefs/salvage") if not name.endswith(".info")]) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_living_owner_is_not_robbed(hosts, source, kind):
    """C20: strangers of both hosts get EBUSY for rm, rmdir and renames; reading and attributes are free."""
    a, b = hosts
    owner = a.worker()
    make(owner, kind, "x.lock")
    remove = "os.rmdir" if kind == "dir" else "os.unlink"
    for stranger in (a, b):
        assert stranger.error(remove, "x.lock") == "EBUSY"
        assert stranger.error("os.rename", "x.lock", "y") == "EBUSY"
        if kind != "dir":
            stranger.write("data-" + stranger.hostname, b"new")
            assert stranger.error("os.rename", "data-" + stranger.hostname, "x.lock") == "EBUSY"
        stranger("os.lstat('x.lock').st_ino")
        if kind not in ("dir", "symlink"):
            stranger("os.chmod('x.lock', 0o600); os.utime('x.lock'); os.close(os.open('x.lock', os.O_WRONLY))")
            assert stranger.read("x.lock") in (b"", b"x")
    child = "pid = os.fork()\nif not pid: os._exit(error(%s, 'x.lock') is not None)\nresult = os.waitpid(pid, 0)[1]"
    assert owner(child % remove) == 0  # a descendant of the owner may
    assert not os.path.lexists(source + "/x.lock") and records(source) == []


def test_link_count(hosts):
    """C18: the lock's link count is the program's own: 2, then 1."""
    owner = hosts[0].worker()
    owner("put('temp', b'123'); os.link('temp', 'x.lock')")
    assert owner("os.stat('x.lock').st_nlink") == owner("os.stat('temp').st_nlink") == 2
    assert hosts[1].look("x.lock").st_nlink == 2
    owner("os.unlink('temp')")
    assert owner("os.stat('x.lock').st_nlink") == 1
    owner("os.unlink('x.lock')")


@pytest.mark.parametrize("command", ["mkdir x.lock", "ln -s $$ x.lock", "(set -C; echo $$ > x.lock)"])
def test_script_inherits(hosts, source, command):
    """C20: a helper that exits with 0 leaves its lock to the script, whose death frees it (C19)."""
    a, b = hosts
    script = a.popen("%s && touch held && exec 5<> <(:) && read -u 5 || sleep 1000" % command)
    assert eventually(lambda: b.exists("held"))
    time.sleep(0.6)
    assert b.exists("x.lock")
    assert a.error("os.rename", "x.lock", "y") == b.error("os.rename", "x.lock", "y") == "EBUSY"
    script.end(signal.SIGTERM)
    assert eventually(lambda: not os.path.lexists(source + "/x.lock"), 1)
    # bash looks before it makes a file without clobbering, and names may be believed for 0.25 s.
    assert eventually(lambda: a.run("%s && rm -r x.lock" % command, check=False).returncode == 0, 1)
    assert eventually(lambda: records(source) == [], 1)


def test_failed_helper_frees(hosts, source):
    """C20: a creator that exits with another status holds nothing any more."""
    hosts[0].run("bash -c 'mkdir x.lock; exit 3'", check=False)
    assert eventually(lambda: not os.path.lexists(source + "/x.lock"), 1)


def test_nobodys_lock_stays(hosts, source):
    """C20: whose owners have all ended well is left, and its user may remove it."""
    a, b = hosts
    a.run(["mkdir", "x.lock"])
    time.sleep(0.6)
    assert b.exists("x.lock") and b.error("os.rmdir", "x.lock") == "EBUSY"
    assert a.error("os.rmdir", "x.lock") is None
    a.run(["mkdir", "y.lock"])
    a.unmount()
    assert os.path.isdir(source + "/y.lock") and records(source) == []


def test_grown_lock_is_data(hosts, source):
    """C18: over 4 KiB, over 64 bytes after a normal end, or of an old date: data, which nobody's death removes."""
    a = hosts[0]
    for name, code in (
        ("big.lock", "put('big.lock', b'x' * 5000, flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL)"),
        ("old.lock", "put('old.lock', b'', flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL); os.utime('old.lock', (9, 9))"),
    ):
        worker = a.worker()
        worker(code)
        worker.kill()
        assert records(source) == [], name
    shell = a.popen("(set -C; printf %%0100d 7 > left.lock; set +C); touch done; sleep 100".replace("%%", "%"))
    assert eventually(lambda: a.exists("done") and records(source) == [])
    shell.end()
    time.sleep(0.6)
    assert [os.path.exists(source + "/" + name) for name in ("big.lock", "old.lock", "left.lock")] == [True] * 3


def test_trees_are_left_alone(hosts, lab, source):
    """C18: cp, tar and git of trees with names like locks: nothing refused, nothing gone with the shell."""
    a, b = hosts
    a.run(
        """
mkdir -p $SCRATCH/tree/lock/lockfile $SCRATCH/tree/sub && cd $SCRATCH/tree
seq 3000 > Cargo.lock; echo small > yarn.lock; seq 100 > some.lock; : > lock/lock; seq 50 > lock/lockfile/.lock
seq 50 > .lock; : > sub/lock; echo x > sub/package.lock; touch -d 2020-01-01 lock/lock sub/lock sub/package.lock
git init -q . && git add -A && git -c user.name=x -c user.email=x@x commit -qm x && rm -rf .git/hooks
tar cf ../tree.tar .
""",
        cwd="/",
    )
    shell = a.popen(
        "mkdir t && tar xf $SCRATCH/tree.tar -C t && cp -a $SCRATCH/tree c && git clone -q $SCRATCH/tree g"
        " && touch done; sleep 100"
    )
    assert eventually(lambda: b.exists("done"), 20)
    shell.end()
    time.sleep(0.8)
    for copy in ("t", "c"):
        assert b.run("diff -r --exclude=.git $SCRATCH/../*/tree %s" % copy, check=False).stdout == ""
    compare = "cd g && for f in Cargo.lock some.lock .lock lock/lockfile/.lock; do cmp $f ../t/$f; done"
    assert b.run(compare).stdout == ""


@pytest.mark.parametrize("kind", KINDS)
def test_killed_daemon(lab, source, kind):
    """C19: a crashed mount that is started again frees at once what it held."""
    a, b = lab.host(source, "alpha"), lab.host(source, "beta", mount=False)
    make(a.worker(), kind, "x.lock")
    a.kill_daemon()
    a.umount("-l")
    a.end_processes()
    assert len(records(source)) == 1
    a.mount()
    assert records(source) == [] and not os.path.lexists(source + "/x.lock")
    b.mount()
    assert b.error("os.mkdir", "x.lock") is None


@pytest.mark.expect_log("rejoined as host")
def test_frozen_host(lab, source):
    """C19, C21: a frozen host loses its locks within its lease + 2 s, and cannot remove its successor's when it wakes."""
    a, b = (lab.host(source, name, "lease=2") for name in ("alpha", "beta"))
    owner, successor = a.worker(), b.worker()
    make(owner, "file", "x.lock")
    a.daemon.end(signal.SIGSTOP)
    take = "error(os.close, os.open('x.lock', os.O_WRONLY | os.O_CREAT | os.O_EXCL))"
    assert eventually(lambda: successor("os.path.lexists('x.lock')") is False, 4.5)
    successor(take)
    a.daemon.end(signal.SIGCONT)
    assert owner("error(os.unlink, 'x.lock')") == "EBUSY"
    assert os.path.exists(source + "/x.lock")
    successor("os.unlink('x.lock')")
    make(owner, "file", "x.lock")
    owner("os.unlink('x.lock')")


def test_expiry_of_the_application(hosts, source):
    """C20: past the expiry that flufl.lock writes into the lock's time anybody may break it, before nobody."""
    a, b = hosts
    owner = a.worker()
    owner("put('claim', b'x'); t = time.time() + 2; os.utime('claim', (t, t)); os.link('claim', 'x.lock')")
    assert a.error("os.unlink", "x.lock") == b.error("os.unlink", "x.lock") == "EBUSY"
    time.sleep(2.2)
    b("t = time.time() + 15; os.utime('x.lock', (t, t)); os.unlink('x.lock')")
    assert records(source) == []
    b("os.mkdir('x.lock')")
    assert owner("error(os.rmdir, 'x.lock')") == "EBUSY"  # it is another's by now
    b("os.rmdir('x.lock')")


def test_forged_records(lab, source):
    """C26: whatever stands among the records, locks work, and nothing outside is touched."""
    host = lab.host(source, "alpha")
    place = source + "/.safewritefs/locks/"
    os.symlink("nonsense", place + "0123456789abcdef")
    os.mkdir(place + "dir")
    os.mkfifo(place + "fifo.break")
    os.symlink("x.0123456789abcdef 1 dir 1 1 %d ../victim" % os.stat(source).st_ino, place + "ffffffffffffffff")
    os.mkdir(source + "/victim.lock")
    os.symlink("x.0123456789abcdef 1 file 1 1 2 victim.lock", place + "fffffffffffffffe")
    host("os.mkdir('x.lock'); os.rmdir('x.lock')")
    other = lab.host(source, "beta")
    assert other.exists("victim.lock")
    lab.leftovers_expected = True


@pytest.mark.limit(120)
def test_held_locks_cost_nothing(hosts):
    """C19, L6: what a quiet daemon does does not grow with the locks that are held: at most one call for all owners."""
    a, held = hosts[0], 600
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    owner = a.worker()
    owner("for i in range(held): os.close(os.open('%d.lock' % i, os.O_WRONLY | os.O_CREAT | os.O_EXCL))", held=held)
    time.sleep(1)
    table = a.scratch + "/calls"
    command = ["timeout", "-s", "INT", "6", "strace", "-f", "-c", "-o", table, "-p", str(a.daemon.target)]
    subprocess.run(command, check=False, capture_output=True)
    total = int(read_text(table).splitlines()[-1].split()[3])
    owner("for i in range(held): os.unlink('%d.lock' % i)", held=held)
    assert 0 < total < held, read_text(table)
