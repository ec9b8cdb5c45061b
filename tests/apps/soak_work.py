# SPDX-License-Identifier: GPL-2.0-or-later
"""What soak lets its two hosts do, and how it judges what has come of it."""
import ast
import collections
import glob
import os
import random
import re
import signal
import time

import harness
import trees
from soak_programs import BLOCKS, block
from soak_run import Program
from test_git import CLEAN, IDENTITY
from test_joblib import both, broken
from test_stress import FIO, STRESSORS

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS, TREES = os.path.join(HERE, "soak_programs.py"), os.path.join(HERE, "trees.py")
SHARED_FIO = (
    "cd $SCRATCH; fio --name=part{side} --filename=$MNT/shared.fio --size=4m --offset={offset}m --rw=randwrite"
    " --bsrange=512-9000 --bs_unaligned=1 --ioengine=psync --verify=crc32c --verify_fatal=1 --randseed={seed}"
    " --output-format=terse"
)
PUSH = f"""
set -e
git clone -q shared.git {{work}}; cd {{work}}; {IDENTITY}
for i in 1 2 3 4; do
    echo $i > {{work}}-$i; git add -A; git commit -q -m "{{work}} $i"
    n=0; until git push -q origin HEAD:main 2> {{log}}; do
        n=$((n + 1)); test $n -lt 100; git pull -q --rebase origin main 2> {{log}}; done
done
git gc -q --prune=now; {CLEAN}
git -C ../shared.git gc -q 2> {{log}} || grep "already running" {{log}} > {{log}}.gc
cd ..; rm -rf {{work}}
"""


class Work:
    """What the hosts do together is a method of (rng, seconds, pause), what one does alone of (host, other, rng).  Each
    takes away what it made, so that a round leaves nothing."""

    def __init__(self, lab, seed):
        self.lab, self.rng, self.problems = lab, random.Random(seed), []
        self.source = lab.source()
        self.hosts = [lab.host(self.source, name) for name in ("alpha", "beta")]
        self.number, self.counts, self.began = 0, collections.Counter(), time.monotonic()
        self.known_stressors = [
            name for name in self.hosts[0].run("stress-ng --stressors").stdout.split() if name in STRESSORS.split()
        ]
        self.original = os.path.join(lab.directory, "original")
        trees.make_tree(self.original, folders=6, files=15, seed=seed)
        self.manifest = trees.manifest(self.original)
        self.hosts[0].run(
            f"git init -q -b main seed && cd seed && {IDENTITY}; git commit -q --allow-empty -m first && cd .. &&"
            " git clone -q --bare seed shared.git && rm -rf seed"
        )

    def check(self, good, what):
        if not good:
            self.problems.append(f"round {self.number}: {what}")
            print("FAILED", self.problems[-1], flush=True)

    def program(self, host, *words, killed_after=None):
        return Program(host, [harness.PYTHON, PROGRAMS, *map(str, words)], killed_after)

    def ended(self, program, may_be_killed=False):
        """What a program said, and whether it was killed; it has to end well."""
        status, out, err = program.end()
        killed = status == -signal.SIGKILL and may_be_killed
        self.check(
            killed or status == 0, f"{program.host.hostname}: {program.command}: {status}\n{out[-500:]}{err[-900:]}"
        )
        self.counts["killed" if killed else "programs"] += 1
        return out, killed

    def run(self, host, command):
        return self.ended(Program(host, command))[0]

    def name(self, what, rng):
        return f"{what}-{self.number}-{rng.randrange(1 << 30)}"

    # ---- both hosts, one thing

    def appending(self, rng, seconds, pause):
        """Records of four appenders: none lost, doubled or torn; a killed one keeps its whole records (C11)."""
        log, running = self.name("journal", rng), []
        for host in self.hosts:
            for how in ("reopen", "held"):
                length = rng.choice((60, 700, 5000, 1_200_000))
                count = 5 if length > 1 << 20 else int(60 * seconds)
                who, victim = f"{host.hostname}-{how}-{length}", rng.random() < 0.3
                words = [self.lab.helper("appendrec"), log, who, str(count), str(length), how]
                running.append(
                    (who, count, length, Program(host, words, rng.uniform(0.01, seconds) if victim else None))
                )
        ends = {who: (count, length, self.ended(p, True)[1]) for who, count, length, p in running}
        views = [host.read(log) for host in self.hosts]
        self.check(views[0] == views[1], f"{log}: the hosts see different logs")
        numbers = {who: 0 for who in ends}
        for line in views[0].split(b"\n")[:-1]:
            parts = re.fullmatch(rb"(\S+) (\d{6}) ([a-z])\3*", line)
            who, number = (parts[1].decode(), int(parts[2])) if parts else ("", 0)
            good = (
                who in ends
                and number == numbers[who]
                and len(line) + 1 == ends[who][1]
                and line[-1] == 97 + number % 26
            )
            self.check(good, f"{log}: {line[:50]!r} of {len(line)} bytes, after {numbers}")
            numbers[who] = number + 1
        self.check(views[0].endswith(b"\n"), f"{log}: torn at the end")
        for who, (count, _, killed) in ends.items():
            self.check(killed or numbers[who] == count, f"{log}: {numbers[who]} records of {count} by {who}")
        self.counts["records"] += sum(numbers.values())
        self.hosts[0]("os.unlink(path)", path=log)

    def editing(self, rng, seconds, pause):
        """Disjoint ranges of one file: what a close has promised is there, on both hosts (C10)."""
        name, size = self.name("edited", rng), rng.choice((1000, 4096))
        self.hosts[0].write(name, b"".join(block(i, 0, size) for i in range(BLOCKS)))
        victim = rng.choice((0, 1, None, None))
        running = [
            self.program(host, "edit", name, side, rng.random(), seconds, pause, size,
                         killed_after=rng.uniform(0.1, seconds) if victim == side else None)
            for side, host in enumerate(self.hosts)
        ]  # fmt: skip
        possible = {number: {0} for number in range(BLOCKS)}
        for program in running:
            for line in self.ended(program, True)[0].splitlines():
                word, number, generation = line.split(" ")
                possible[int(number)] = (possible[int(number)] if word == "try" else set()) | {int(generation)}
                self.counts["edits"] += word == "done"
        for host in self.hosts:
            data = host.read(name)
            self.check(len(data) == size * BLOCKS, f"{name}: {len(data)} bytes on {host.hostname}")
            for number, generations in possible.items():
                found = data[number * size : (number + 1) * size]
                good = any(found == block(number, generation, size) for generation in generations)
                self.check(good, f"{name} on {host.hostname}: block {number} is {found[:40]!r}, not of {generations}")
        self.hosts[1]("os.unlink(path)", path=name)

    def rewriting(self, rng, seconds, pause):
        """Readers see whole versions, and no earlier one after a later one (C1, C2)."""
        name, victim = self.name("rewritten", rng), rng.choice((0, 1, None))
        self.hosts[0].write(name, harness.payload("first 0 300", 300))
        running = []
        for side, host in enumerate(self.hosts):
            killed_after = rng.uniform(0.1, seconds) if victim == side else None
            who = f"{host.hostname}-writer"
            running.append(
                self.program(host, "rewrite", name, who, rng.random(), seconds, pause, killed_after=killed_after)
            )
            running.append(self.program(host, "read", name, seconds, pause))
        for program in running:
            for line in self.ended(program, "rewrite" in program.command)[0].splitlines():
                self.counts[line.split()[0]] += int(line.split()[1])
        self.run(self.hosts[0], f"rm -f {name}*")

    def racing(self, rng, seconds, pause):
        """Exclusive makers of the same names at the same moments: one winner (C12)."""
        prefix, victim, count = self.name("race", rng), rng.choice((0, 1, None, None)), int(40 * seconds)
        start, results = time.time() + 0.5, []
        for side, host in enumerate(self.hosts):
            killed_after = rng.uniform(0.5, seconds / 2) if victim == side else None
            results.append(self.program(host, "race", prefix, host.hostname, start, count, killed_after=killed_after))
        results = [self.ended(program, True) for program in results]
        winners = {number: [] for number in range(count)}
        for host, (out, _) in zip(self.hosts, results):
            for line in out.splitlines():
                if line.startswith("won"):
                    winners[int(line.split()[1])].append(host.hostname)
        anybody_killed = any(killed for _, killed in results)
        for number, won in winners.items():
            # The killed one's last name may have gone to nobody, or to it without a line in its ledger.
            self.check(len(won) == 1 or (anybody_killed and not won), f"{prefix}-{number}: won by {won}")
            if number % 4 == 0 and won:
                found = {host.read(f"{prefix}-{number}").decode() for host in self.hosts}
                self.check(found == set(won), f"{prefix}-{number}: is of {found}, won by {won}")
        self.counts["races"] += count
        self.run(self.hosts[0], f"rm -rf {prefix}*")

    def storing(self, rng, seconds, pause):
        """joblib into one cache, with equal pids (C16)."""
        folder, count = self.name("cache", rng), int(15 * seconds)
        for stale in glob.glob(self.lab.directory + "/pace-*"):
            os.unlink(stale)
        self.hosts[0]("os.mkdir(path)", path=folder)
        reports, states = both(self.lab, self.hosts, [f"{host.mnt}/{folder}" for host in self.hosts], count)
        good = not broken(reports, states) and states[0] == states[1] and not states[0]["temporary"]
        self.check(good and states[0]["whole"] == count, f"joblib: {reports} {states}")
        self.counts["stores"] += 2 * count
        self.run(self.hosts[1], f"rm -rf {folder}")

    def sharing(self, rng, seconds, pause):
        """fio on both, each in its half of one file; then each verifies the other's half (C10)."""
        self.hosts[0]("os.close(os.open('shared.fio', REPLACE)); os.truncate('shared.fio', 8 << 20)")
        seed = rng.randrange(1 << 30)
        commands = [SHARED_FIO.format(side=side, offset=4 * side, seed=seed) for side in (0, 1)]
        for extra, order in (("", (0, 1)), (" --verify_only", (1, 0))):
            for program in [Program(host, commands[side] + extra) for host, side in zip(self.hosts, order)]:
                self.ended(program)
        self.run(self.hosts[1], "rm shared.fio")

    MEETINGS = (appending, editing, rewriting, racing, storing, sharing)
    BESIDE = (editing, rewriting, appending)

    # ---- each host what it likes

    def own_fio(self, host, other, rng):
        """fio in files of its own, its lines in a log that both share."""
        folder = self.name("fio", rng)
        with open(f"{host.scratch}/job.fio", "w", encoding="ascii") as f:
            f.write(FIO.format(mnt=f"{host.mnt}/{folder}", thread=rng.randrange(2)))
        said = self.run(host, f"set -o pipefail; mkdir {folder}; cd $SCRATCH; fio --output-format=terse job.fio"
                              f" | tee -a $MNT/fio.log; status=$?; rm -r $MNT/{folder}; exit $status")  # fmt: skip
        known = self.run(other, "cat fio.log").splitlines()
        lost = [line for line in said.splitlines() if known.count(line) != 1]
        self.check(said and not lost, f"fio.log: lines of {host.hostname} are lost: {lost}")

    def stressors(self, host, other, rng):
        """stress-ng finds no error, and the other host can remove the directory it worked in."""
        for name in rng.sample(self.known_stressors, 10):
            folder = self.name(name, rng)
            command = f"mkdir {folder}; stress-ng --{name} 1 --timeout 1 --verify --temp-path {folder} --oomable"
            status, _, err = Program(host, command + " --hdd-bytes 8m --fallocate-bytes 8m").end()
            self.check(status in (0, 3, 4), f"stress-ng {name}: {status}\n{err}")  # 3, 4: cannot run here
            self.run(other, f"rmdir {folder} || {{ find {folder} -ls; rm -rf {folder}; exit 1; }}")
            self.counts["stressors"] += 1

    def planting(self, host, other, rng):
        """A tree that changes all the time is in the end what a model says, seen from both hosts."""
        top = self.name("tree", rng)
        killed_after = rng.uniform(0.5, 4) if rng.random() < 0.3 else None
        model, killed = self.ended(self.program(host, "plant", top, rng.random(), 4, killed_after=killed_after), True)
        for place in (other, host):
            found, _ = self.ended(self.program(place, "walk", top))
            self.check(killed or found == model, f"{top}: {place.hostname} sees another tree\n{found}\n{model}")
        self.run(other, f"rm -rf {top}")

    def copying(self, host, other, rng):
        """cp -a and tar are faithful, and of a killed cp only whole files are left (C4)."""
        top = self.name("copy", rng)
        pack = f"tar -C '{self.original}' --format=posix --xattrs --acls -cf - ."
        unpack = "tar --xattrs --acls --xattrs-include='*' -xpf -"
        self.run(host, rng.choice((f"cp -a '{self.original}' {top}", f"mkdir {top}; {pack} | {unpack} -C {top}")))
        for place in (other, host):
            seen = ast.literal_eval(self.run(place, [harness.PYTHON, TREES, top]))
            self.check(seen == self.manifest, f"{top} on {place.hostname}: {trees.differences(self.manifest, seen)}")
        self.ended(Program(host, ["cp", "-a", top, top + "-torso"], rng.uniform(0.01, 1)), True)
        text = self.run(other, f"test ! -e {top}-torso || {harness.PYTHON} {TREES} {top}-torso")
        for path, entry in ast.literal_eval(text or "{}").items():
            whole = entry[5:7] == self.manifest[path][5:7]
            # What has a lock's name is written through, and goes a moment after its writer (C18, C19).
            self.check(whole or path.endswith(b".lock"), f"{top}-torso: half of {path} is left: {entry}")
        self.run(other, f"rm -rf {top} {top}-torso")

    def pushing(self, host, other, rng):
        """Clones, commits, pushes of both into one repository, gc and fsck: no push is lost."""
        work = self.name("work", rng)
        said = self.run(host, PUSH.format(work=work, log=f"{host.scratch}/push"))
        self.check(not said, f"git: {said}")
        names = self.run(other, "git -C shared.git ls-tree --name-only main").split()
        self.check({f"{work}-{i}" for i in (1, 2, 3, 4)} <= set(names), f"git: pushes of {work} are lost")

    ALONE = (own_fio, stressors, planting, copying, pushing)
