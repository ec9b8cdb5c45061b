# SPDX-License-Identifier: GPL-2.0-or-later
"""One round of the history checker: four hosts over one source, their workers, and the nemesis.

The workers write journals outside the mount (worker.h); the nemesis kills and freezes by a seed, and writes down what
it did and when.  The journals are all that the checker gets, so the same workers can run in virtual machines.
"""
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "mount"))
import checker  # noqa: E402
import harness  # noqa: E402

HOSTS = ("alpha", "beta", "gamma", "delta")
WRITERS = (
    *("rewrite", "rename", "append", "held", "edit", "excl"),
    *("lockfile", "locksym", "lockdir", "locklink", "flock", "fcntl", "ofd"),
)
READERS = ("read", "read", "look", "tail", "snap")
ROLES = WRITERS + READERS
LEASE, ATTR_CACHE = 3, 1
PATIENCE = 10.0  # s, on top of the lease, until what a dead one held has to be free; rules: 1 s and lease + 2 s
SLOTS, SLOT_SIZE = 8, 6000  # as in worker.h
EXPECTED_LOG = ["rejoined as host"]


def build_worker(directory):
    """The worker as built by meson, or built here."""
    ready, target = os.path.join(harness.BUILD, "tests", "history", "worker"), os.path.join(directory, "history-worker")
    sources = glob.glob(HERE + "/*.c")
    if os.path.exists(ready) and all(os.path.getmtime(ready) >= os.path.getmtime(source) for source in sources):
        shutil.copy(ready, target)
    elif not os.path.exists(target):
        subprocess.run(["cc", "-O1", "-D_GNU_SOURCE", "-std=gnu11", "-o", target, *sources], check=True)
    return target


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Life:
    """One process of a role on a host, from its start to its end."""

    def __init__(self, nemesis, host, side, role, number, life):
        self.host, self.side, self.role, self.number, self.life = host, side, role, number, life
        self.who = "%s.%s.%d" % (host.hostname, role, number)
        journal = "%s/%s.%d.jsonl" % (nemesis.place_of(host), self.who, life)
        words = (role, host.mnt, journal, self.who, side, life, nemesis.rng.randrange(1 << 30), nemesis.PACE)
        self.complaints = "%s/%s.%d.err" % (nemesis.directory, self.who, life)
        with open(self.complaints, "ab") as errors:
            self.process = host.popen([nemesis.worker, *map(str, words)], cwd="/", stderr=errors)
        self.stopped = self.killed = False

    def reap(self):
        """Why it has ended although nobody asked it to, if so."""
        self.process.wait(timeout=60 * harness.SLOWNESS)
        if self.process in self.host.processes:
            self.host.processes.remove(self.process)
        if not self.killed and self.process.returncode:
            said = harness.read_text(self.complaints)
            return ["%s ended with %d: %s" % (self.who, self.process.returncode, said)]
        return []


class Round:
    NAMES = HOSTS
    PACE = 1  # of the workers: their pauses are so many times as long
    EXPECTED = EXPECTED_LOG

    def __init__(self, lab, seed, seconds, lease=LEASE):
        self.lab, self.seed, self.seconds, self.lease = lab, seed, seconds, lease
        self.rng = random.Random(seed)
        self.directory = os.path.join(lab.directory, "journals")
        os.mkdir(self.directory)
        self.faults = open(self.directory + "/faults.jsonl", "a", encoding="ascii")
        self.lock = threading.Lock()
        self.worker = self.find_worker()
        self.source = lab.source()
        self.problems, self.lives, self.later, self.busy = [], [], [], {}
        self.stop_watching = threading.Event()
        options = "lease=%d,attr-cache=%d" % (lease, ATTR_CACHE)
        self.hosts = [lab.host(self.source, name, options) for name in self.NAMES]

    # ---- what is otherwise where hosts are machines

    def find_worker(self):
        return build_worker(self.lab.helpers)

    def place_of(self, host):
        """Where its journals are written, on the host."""
        return self.directory

    def clocks(self):
        """{host: [least, most]}: seconds to be added to the readings of its clock, so that they are ours."""
        return {}

    def collect(self):
        """Brings the journals here."""

    def note(self, what, **named):
        line = json.dumps({"t": now(), "ev": what, **named})
        with self.lock:
            self.faults.write(line + "\n")
            self.faults.flush()

    # ---- workers

    def start(self, host):
        side = self.hosts.index(host)
        for number, role in enumerate(ROLES):
            self.begin(host, side, role, number, 0)

    def begin(self, host, side, role, number, life):
        started = Life(self, host, side, role, number, life)
        with self.lock:
            self.lives.append(started)

    def lives_of(self, host):
        with self.lock:
            return [life for life in self.lives if life.host is host]

    def kill(self, life):
        """Says so before it does it: from then on it may be dead.  One that waits for its daemon dies later, with it."""
        if not life.killed:
            life.killed = True
            self.note("kill", who=life.who, life=life.life, host=life.host.hostname)
        life.process.end(signal.SIGKILL)

    def replace(self, life):
        """When the killed one is gone, which can be when its daemon answers again, its successor starts."""
        with self.lock:
            if life not in self.lives:
                return True  # it was replaced with all others of its host
        if life.process.poll() is None or self.busy.get(life.host) == "dead":
            return False
        self.forget(life)
        self.begin(life.host, life.side, life.role, life.number, life.life + 1)
        return True

    def forget(self, life):
        self.problems += life.reap()
        with self.lock:
            self.lives.remove(life)

    # ---- faults

    def after(self, seconds, call, *arguments):
        self.later.append((time.monotonic() + seconds, call, arguments))

    def run_later(self):
        for entry in [entry for entry in self.later if entry[0] <= time.monotonic()]:
            self.later.remove(entry)
            if entry[1](*entry[2]) is False:
                self.after(0.1, entry[1], *entry[2])

    def a_worker(self):
        free = [life for life in self.lives if not life.killed and not life.stopped and life.host not in self.busy]
        return self.rng.choice(free) if free else None

    def a_host(self):
        free = [host for host in self.hosts if host not in self.busy]
        return self.rng.choice(free) if len(free) > min(2, len(self.hosts) - 1) else None

    def kill_worker(self):
        life = self.a_worker()
        if life:
            self.kill(life)
            self.after(self.rng.uniform(0, 1), self.replace, life)

    def stop_worker(self):
        life = self.a_worker()
        if life:
            life.stopped = True
            self.note("stop", who=life.who, life=life.life, host=life.host.hostname)
            life.process.end(signal.SIGSTOP)
            self.after(self.rng.choice((0.05, 0.3, 1, 1.5 * self.lease)), self.cont_worker, life)

    def cont_worker(self, life):
        if not life.killed and life.process.poll() is None:
            life.process.end(signal.SIGCONT)
            self.note("cont", who=life.who, life=life.life, host=life.host.hostname)
        life.stopped = False

    # How a host is made to do nothing, and to go on.
    WAYS = {
        "frozen": (
            lambda self, host: host.daemon.end(signal.SIGSTOP),
            lambda self, host: host.daemon.end(signal.SIGCONT),
        )
    }

    def freeze_for(self, seconds, way):
        host = self.a_host()
        if host:
            self.busy[host] = way
            self.note("freeze", host=host.hostname, meant=seconds, way=way)
            self.WAYS[way][0](self, host)
            self.after(seconds, self.thaw, host, way)
        return bool(host)

    def thaw(self, host, way):
        self.WAYS[way][1](self, host)
        self.note("thaw", host=host.hostname)
        self.after(1, self.busy.pop, host)

    def freeze_short(self, way="frozen"):
        self.freeze_for(self.lease * self.rng.uniform(0.05, 0.4), way)

    def freeze_long(self, way="frozen"):
        return self.freeze_for(self.lease * self.rng.uniform(1.3, 2.2), way)

    def kill_daemon(self):
        """As on a crash of the machine, or of the daemon alone: its programs meet the dead mount for a moment."""
        host = self.a_host()
        if host:
            self.busy[host] = "dead"
            self.note("daemon-kill", host=host.hostname)
            host.kill_daemon()
            delay = self.rng.choice((0, 0.3, 1, self.lease + 2))
            threading.Thread(target=self.remount, args=(host, delay), daemon=True).start()
        return bool(host)

    def remount(self, host, delay):
        try:
            time.sleep(min(delay, 0.3))
            dead = self.lives_of(host)
            for life in dead:
                self.kill(life)
            time.sleep(max(0, delay - 0.3))
            for life in dead:
                life.process.wait(timeout=30 * harness.SLOWNESS)
            host.umount("-l")
            host.end_processes()
            host.mount()
            self.note("mounted", host=host.hostname)
            self.busy[host] = "mounted"
            for life in dead:
                self.replace(life)
        except Exception as e:
            self.problems.append("%s: could not be mounted again: %r" % (host.hostname, e))
        self.after(1, self.busy.pop, host)

    def watch_the_machine(self):
        """When this thread does not get to run, daemons may not either: then nobody is blamed for a broken host."""
        before = now()
        while not self.stop_watching.wait(0.05):
            if now() - before > self.lease * 0.25e9:
                self.note("stall", **{"from": before / 1e9})
            before = now()

    FAULTS = {"kill_worker": 12, "stop_worker": 5, "freeze_short": 3, "freeze_long": 1, "kill_daemon": 1}

    def torment(self):
        until = time.monotonic() + self.seconds
        names, weights = zip(*self.FAULTS.items())
        planned = [(0.15, self.freeze_long), (0.45, self.kill_daemon)]  # each round has one of these at least
        while time.monotonic() < until:
            time.sleep(self.rng.uniform(0.02, 0.4))
            self.run_later()
            if planned and until - time.monotonic() < (1 - planned[0][0]) * self.seconds:
                if planned[0][1]():  # else there are too many faults already
                    planned.pop(0)
            else:
                getattr(self, self.rng.choices(names, weights)[0])()
            for life in list(self.lives):
                if life.process.poll() is not None and not life.killed:
                    self.problems.append("%s ended by itself with %d" % (life.who, life.process.returncode))
                    life.killed = True

    # ---- the end

    def calm_down(self):
        deadline = time.monotonic() + 60 * harness.SLOWNESS
        while (self.busy or self.later) and time.monotonic() < deadline:
            time.sleep(0.05)
            self.run_later()
        if self.busy:
            self.problems.append("still at it: %s" % {host.hostname: what for host, what in self.busy.items()})
        time.sleep(1)
        self.note("calm")

    def end_workers(self, roles):
        """SIGTERM: they finish what they are doing.  Readers go last, and see what has become of everything."""
        ending = [life for life in self.lives if life.role in roles]
        for life in ending:
            life.process.end(signal.SIGTERM)
        for life in ending:
            self.forget(life)

    def note_meta(self, clocks):
        meta = {"lease": self.lease, "attr_cache": ATTR_CACHE, "patience": PATIENCE * harness.SLOWNESS, "hosts": self.NAMES,
                "seed": self.seed, "clocks": {}}  # fmt: skip
        for host in clocks[0]:
            least, most = zip(*(readings[host] for readings in clocks))
            meta["clocks"][host] = [min(least), max(most)]
        with open(self.directory + "/meta.json", "w", encoding="ascii") as f:
            json.dump(meta, f)

    def note_finals(self):
        for host in self.hosts:
            for key in ("log0", "log1"):
                vals, rest = [], b""
                for line in host.read(key).splitlines(keepends=True) if host.exists(key) else []:
                    words = line.split(b" ")
                    good = not rest and len(words) == 3 and words[1] == b"%d" % len(line) and line.endswith(b"\n")
                    vals += [words[0].decode()] if good else []
                    rest += b"" if good else line
                self.note("final", host=host.hostname, key=key, vals=vals, rest=rest[:60].decode(errors="replace"))

    def note_rejoins(self):
        for host in self.hosts:
            self.note("rejoins", host=host.hostname, count=len(re.findall(EXPECTED_LOG[0], host.log_text())))
        locks = [name for name in os.listdir(self.source) if name.endswith(".lock")]
        left = harness.eventually(lambda: not any(os.path.lexists(self.source + "/" + n) for n in locks), self.lease + PATIENCE)
        if not left:
            self.problems.append("locks of which nobody is left: %s" % locks)

    def run(self):
        """Work, faults, the end; then what was found: violations as text."""
        slots = "".join("%-31d\n%s%-31d\n" % (0, "." * (SLOT_SIZE - 64), 0) for _ in range(SLOTS))
        self.hosts[0].write("e0", slots.encode())
        clocks = [self.clocks()]
        self.note_meta(clocks)
        watching = threading.Thread(target=self.watch_the_machine, daemon=True)
        watching.start()
        for host in self.hosts:
            self.start(host)
        self.torment()
        self.calm_down()
        self.end_workers(WRITERS)
        time.sleep(1)
        self.end_workers(READERS)
        clocks.append(self.clocks())
        self.collect()
        self.note_meta(clocks)
        self.note_finals()
        self.note_rejoins()
        self.stop_watching.set()
        watching.join()
        self.faults.close()

    def judge(self):
        """(summary, problems)"""
        history = checker.load(self.directory)
        violations = checker.check(history)
        return checker.summary(history), self.problems + [checker.explain(history, v) for v in violations[:20]]

    def keep(self, problems):
        """Copies the journals and logs to where they outlive the test; the path."""
        kept = tempfile.mkdtemp(prefix="sw-history-%d-" % self.seed)
        shutil.copytree(self.directory, kept + "/journals")
        for name, text in (("daemons.log", self.lab.log_text()), ("problems", "\n\n".join(problems))):
            with open(os.path.join(kept, name), "w", encoding="utf-8") as f:
                f.write(text + "\n")
        return kept


def play(lab, seed, seconds, kind=Round):
    """A round from its beginning to clean unmounts; raises AssertionError with the explanation and where it is kept."""
    one = kind(lab, seed, seconds)
    problems, said = ["it did not come to its end"], ""
    try:
        one.run()
        said, problems = one.judge()
        try:
            lab.finish(kind.EXPECTED)
        except AssertionError as e:
            problems.append(str(e))
    finally:
        if problems:
            where = one.keep(problems)
            print("seed %d: kept in %s" % (seed, where), flush=True)
    assert not problems, "seed %d, kept in %s\n%s" % (seed, where, "\n\n".join(problems))
    return said
