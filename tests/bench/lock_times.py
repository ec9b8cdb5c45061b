#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long until another host gets a lock, after its owner ended in one of many ways; and what held locks cost.

  lock_times.py free [--lease S] [--short N] [--long N]   seconds until a lock of each kind is free for another host
  lock_times.py cost [--lease S] [--seconds S]            system calls and processor time of a daemon that is idle

Needs root, /dev/fuse, a build (SW_BUILD) and, for the cost, strace.  Prints tables as docs/leases.md has them.  `free`
measures what takes no lease N = --short times, and what does --long times; the hosts are namespaces of this machine,
those that die with their boot have a boot id of their own.
"""
import argparse
import collections
import glob
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "mount"))
import conftest  # noqa: E402
import harness  # noqa: E402

KINDS = {
    "O_EXCL": "os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))",
    "symlink": "os.symlink('anything', name)",
    "link": "put('mine', b'x'); os.link('mine', name); os.unlink('mine')",
    "mkdir": "os.mkdir(name)",
}
# Beta tries until it has all; what it gets it notes the time of.
TRY_ALL = """
os.path.exists('mine') or put('mine', b'x')
tries = {'O_EXCL': lambda n: os.close(os.open(n, os.O_WRONLY | os.O_CREAT | os.O_EXCL)),
         'symlink': lambda n: os.symlink('x', n), 'link': lambda n: os.link('mine', n), 'mkdir': os.mkdir}
result, until = {}, time.monotonic() + limit
while len(result) < len(tries) and time.monotonic() < until:
    for kind, call in tries.items():
        if kind not in result:
            try:
                call(names[kind])
                result[kind] = time.monotonic()
            except OSError:
                pass
    time.sleep(0.002)
for kind in result:
    (os.rmdir if kind == 'mkdir' else os.unlink)(names[kind])
os.path.exists('mine') and os.unlink('mine')
"""
NAMES = {kind: kind + ".lock" for kind in KINDS}
RELEASE = "[os.rmdir(n) if k == 'mkdir' else os.unlink(n) for k, n in names.items()]"


class Scene:
    """Two hosts; alpha holds one lock of each kind, and beta waits for all of them."""

    def __init__(self, helpers, lease, own_boot):
        self.directory = tempfile.mkdtemp(prefix="sw-bench-")
        os.chmod(self.directory, 0o755)
        self.lab = harness.Lab(helpers, self.directory)
        source, options = self.lab.source(), "lease=%d" % lease
        self.lease = lease
        self.alpha = self.lab.host(source, "alpha", options, mount=False)
        if own_boot:
            fake = os.path.join(self.directory, "boot_id")
            with open(fake, "w", encoding="ascii") as f:
                f.write("11111111-2222-3333-4444-555555555555\n")
            self.alpha.run(["mount", "--bind", fake, "/proc/sys/kernel/random/boot_id"], cwd="/")
        self.alpha.mount()
        self.beta = self.lab.host(source, "beta", options)

    def measure(self, end):
        """Seconds by kind from `end(scene, owner)`, which returns when it began, to beta having it."""
        owner = self.alpha.worker()
        for kind, code in KINDS.items():
            owner(code, name=NAMES[kind])
        waiter = self.beta.worker()
        waiter.start(TRY_ALL, names=NAMES, limit=2 * self.lease + 20)
        time.sleep(0.3 + 0.25 * (time.monotonic() % 1))
        began = end(self, owner)
        got = waiter.finish(2 * self.lease + 30)
        assert set(got) == set(KINDS), "not free: %r" % (set(KINDS) - set(got))
        waiter.kill()
        return {kind: at - began for kind, at in got.items()}

    def close(self):
        self.lab.destroy()


def by_signal(number):
    def end(_, owner):
        began = time.monotonic()
        owner.kill(number)
        return began

    return end


def by_exit(code):
    def end(_, owner):
        began = time.monotonic()
        owner.start("import os; " + code, names=NAMES)
        return began

    return end


def released(_, owner):
    began = time.monotonic()
    owner(RELEASE, names=NAMES)
    return began


def daemon_and_owner(scene, owner):
    began = time.monotonic()
    owner.process.end()
    scene.alpha.kill_daemon()
    return began


def daemon_restarted(scene, _):
    began = time.monotonic()
    scene.alpha.kill_daemon()
    scene.alpha.umount("-l")
    scene.alpha.end_processes()
    scene.alpha.mount()
    return began


def frozen(scene, owner):
    began = time.monotonic()
    owner.process.end(signal.SIGSTOP)
    scene.alpha.daemon.end(signal.SIGSTOP)
    return began


def cut_off(scene, _):
    """Seen from the source, a host whose calls do not arrive: its programs run on."""
    began = time.monotonic()
    scene.alpha.daemon.end(signal.SIGSTOP)
    return began


# What it is called, how it is done, whether the host dies with its boot, and whether it takes a lease.
ENDS = [
    ("released by its owner", released, False, False),
    ("owner exits with 3, lock left", by_exit("os._exit(3)"), False, False),
    ("owner killed, SIGKILL", by_signal(signal.SIGKILL), False, False),
    ("owner killed, SIGTERM", by_signal(signal.SIGTERM), False, False),
    ("owner killed, SIGSEGV", by_signal(signal.SIGSEGV), False, False),
    ("daemon and owner killed, mounted again at once", daemon_restarted, False, False),
    ("daemon and owner killed, another mount of the machine", daemon_and_owner, False, True),
    ("daemon and owner killed, no other mount of the machine", daemon_and_owner, True, True),
    ("frozen: daemon and owner stopped", frozen, True, True),
    ("cut off: no call of the daemon arrives, owner runs", cut_off, True, True),
]


def row(what, found):
    cells = ["%.2f / %.2f" % (statistics.median(found[kind]), max(found[kind])) for kind in KINDS]
    print("| %s | %d | %s |" % (what, len(found["mkdir"]), " | ".join(cells)), flush=True)


def free(helpers, lease, short, long):
    print("lease=%d | N | %s  (median / max, seconds)" % (lease, " | ".join(KINDS)))
    for what, end, own_boot, takes_lease in ENDS:
        found, scene = collections.defaultdict(list), None
        again = not takes_lease  # the same two hosts can do it once more
        for _ in range(long if takes_lease else short):
            scene = scene or Scene(helpers, lease, own_boot)
            try:
                for kind, seconds in scene.measure(end).items():
                    found[kind].append(seconds)
            except BaseException:
                scene.close()
                raise
            if not again:
                scene.close()
                scene = None
        if scene:
            scene.close()
        row(what, found)


# ---- what held locks cost

# `owners` processes, each of which holds `each` locks.
HOLD = """
import os, sys, time
owners, each = map(int, sys.argv[1:])
for i in range(owners):
    if os.fork() == 0:
        for j in range(each):
            os.close(os.open('%d-%d.lock' % (i, j), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        time.sleep(10000)
time.sleep(10000)
"""
CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)")


def trace(host, seconds):
    """Calls as {(call, whether it names something of the source)}: count, without the threads that read messages."""
    out = os.path.join(host.scratch, "trace")
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-qq", "-o", out, "-p", str(host.daemon.target)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1.5)
    start = os.path.getsize(out)
    time.sleep(seconds)
    stop = os.path.getsize(out)
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    with open(out, encoding="utf-8", errors="replace") as f:
        f.seek(start)
        lines = f.read(stop - start).splitlines()[1:]
    calls = collections.Counter()
    for line in lines:
        match = CALL.match(line)
        if match and "/dev/fuse" not in line and "resumed" not in line:
            calls[match[2], host.source in match[3]] += 1
    return calls


def processor_seconds(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(helpers, lease, seconds, rows):
    print("lease=%d, %g s, two hosts; calls per second of the daemon of the holder" % (lease, seconds))
    print("| held | owners | all calls | to the source | which | ms of processor per s |")
    for count, owners in (map(int, row.split("/")) for row in rows):
        scene = Scene(helpers, lease, False)
        try:
            alpha = scene.alpha
            if owners:
                alpha.popen([harness.PYTHON, "-c", HOLD, str(owners), str(count // owners)])
            held = glob.escape(scene.alpha.source) + "/.safewritefs/locks/*"
            harness.eventually(lambda: len(glob.glob(held)) == count, 300)
            assert len(glob.glob(held)) == count, "%d held" % len(glob.glob(held))
            time.sleep(2.5 * lease)  # what has just been made is forgotten, and swept
            before, began = processor_seconds(alpha.daemon.target), time.monotonic()
            time.sleep(seconds)
            busy = (processor_seconds(alpha.daemon.target) - before) / (time.monotonic() - began)
            calls = trace(alpha, seconds)
            here = collections.Counter({call: n for (call, of), n in calls.items() if of})
            which = ", ".join("%s %.2f" % (call, n / seconds) for call, n in here.most_common())
            total = sum(calls.values()) / seconds
            print(
                "| %d | %d | %.1f | %.2f | %s | %.1f |"
                % (count, owners, total, sum(here.values()) / seconds, which, busy * 1000),
                flush=True,
            )
        finally:
            scene.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["free", "cost"])
    parser.add_argument("--lease", type=int, default=20)
    parser.add_argument("--short", type=int, default=10)
    parser.add_argument("--long", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rows", nargs="+", metavar="LOCKS/OWNERS", default=["0/0", "100/1", "100/100", "10000/1", "10000/200"])
    given = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="sw-helpers-")
    os.chmod(directory, 0o755)
    try:
        helpers = conftest.built_helpers(directory)
        if given.what == "free":
            free(helpers, given.lease, given.short, given.long)
        else:
            cost(helpers, given.lease, given.seconds, given.rows)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
