#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Has spin prove the models of the protocol, and refute what is wrong with each of their mutants.

usage: check.py TABLES COMPILER [ARGUMENT...]
SW_MODEL: only runs whose name has this in it.

TABLES prints the tables of src/core/course.h as Promela.  A mutant is a model with one rule of the protocol left out
(-DMUTANT_...), or with two steps of a table in the other's place.
"""
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = ("hosts.inc", "lease.pml", "lock.pml")
MEMORY_MB = 3500
DEPTH = 100000

LEFT_OVER = ("LEFT_OVER", "HOSTS=4")

# What has to hold: model, definitions.
PROOFS = [
    ("lease", ()),
    ("lease", ("CHAIN",)),
    ("lease", ("REJOIN",)),
    ("lease", LEFT_OVER),
    ("lease", LEFT_OVER + ("APPEND",)),
    ("lease", ("FREED",)),
    ("lock", ()),
    ("lock", ("CHAIN",)),
    ("lock", LEFT_OVER),
    ("lock", ("FREED",)),
]

# What has to be refuted: model, definitions, steps that change places.
MUTANTS = [
    ("lease", ("MUTANT_RENAMED_AWAY",), None),
    ("lease", LEFT_OVER + ("MUTANT_NO_LEASE_MARK",), None),
    ("lease", ("MUTANT_UNLINK",), None),
    ("lease", LEFT_OVER + ("MUTANT_DROP_BY_NAME",), None),
    ("lease", (), ("REMOVE_STAGES", "DROP_LEASES")),
    ("lease", (), ("REMOVE_STAGES", "REMOVE_HOST")),
    ("lease", LEFT_OVER, ("READ_AGAIN", "DROP")),
    ("lease", LEFT_OVER, ("MARK", "READ_AGAIN")),
    ("lease", LEFT_OVER + ("APPEND",), ("UNDO", "DROP")),
    ("lock", ("MUTANT_RENAMED_AWAY",), None),
    ("lock", ("MUTANT_NO_MARK",), None),
    ("lock", ("MUTANT_NO_SECOND_LOOK",), None),
    ("lock", ("MUTANT_UNLINK_LOCK",), None),
    ("lock", LEFT_OVER + ("MUTANT_DROP_BY_NAME",), None),
    ("lock", (), ("REMOVE_STAGES", "BREAK_LOCKS")),
    ("lock", (), ("REMOVE_HOST", "BREAK_LOCKS")),
    ("lock", ("FREED",), ("UNDO", "DROP")),
]


def spent():
    """Processor time of what was run, in seconds: other than the time by the clock it says something on a busy machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def fail(text):
    print(text)
    sys.exit(1)


def exchanged(tables, steps):
    """The tables with two steps in each other's place, everywhere."""
    if not steps:
        return tables
    one, other = (f"step = STEP_{step};" for step in steps)
    if one not in tables or other not in tables:
        fail(f"the tables have no steps {' and '.join(steps)}")
    return tables.replace(one, "step = ?;").replace(other, one).replace("step = ?;", other)


def run(command, directory, **more):
    return subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def must(command, directory):
    result = run(command, directory)
    if result.returncode != 0:
        fail(f"{' '.join(command)}:\n{result.stdout}")


def verify(tables, compiler, model, definitions, steps, optimise):
    """(what was found wrong or None, states, the verifier's output)"""
    with tempfile.TemporaryDirectory() as directory:
        for name in FILES:
            shutil.copy(os.path.join(HERE, name), directory)
        with open(os.path.join(directory, "tables.pml"), "w", encoding="ascii") as file:
            file.write(exchanged(tables, steps))
        lives = "FREED" in definitions
        must(["spin", *(f"-D{d}" for d in definitions), "-a", model + ".pml"], directory)
        must([*compiler, optimise, "-w", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}", "-DNFAIR=3" if lives else "-DSAFETY",
              "-o", "pan", "pan.c"], directory)
        output = run(["./pan", "-w23", f"-m{DEPTH}", *(("-a", "-f") if lives else ("-E",))], directory).stdout
    if "max search depth" in output or "truncated" in output or "pan: out of memory" in output:
        fail(f"{model}: not all of it could be searched:\n{output}")
    errors = re.search(r"errors: (\d+)", output)
    states = re.search(r"(\d+) states, stored", output)
    if not errors or not states:
        fail(f"{model}: the verifier did not end well:\n{output}")
    found = re.search(r"^pan:1: (.*)", output, re.MULTILINE)
    return found and found.group(1), int(states.group(1)), output


def report(kind, model, definitions, steps, states, seconds, outcome):
    what = " ".join((model,) + definitions) + (f" {steps[0]}<->{steps[1]}" if steps else "")
    print(f"{kind:7} {what:52} {states:9} states {seconds:6.1f} s of CPU  {outcome}", flush=True)


def main():
    if not shutil.which("spin"):
        print("skipped: there is no spin")
        sys.exit(77)
    tables = subprocess.run([sys.argv[1]], check=True, capture_output=True, text=True).stdout
    only, bad, total = os.environ.get("SW_MODEL", ""), 0, 0
    for kind, runs in (("proof", [(m, d, None) for m, d in PROOFS]), ("mutant", MUTANTS)):
        for model, definitions, steps in runs:
            if only not in " ".join((kind, model) + definitions + (steps or ())):
                continue
            start = spent()
            wrong, states, output = verify(tables, sys.argv[2:], model, definitions, steps,
                                           "-O1" if kind == "proof" else "-O0")
            right = (wrong is None) == (kind == "proof")
            total += states
            report(kind, model, definitions, steps, states, spent() - start,
                   (wrong or "holds") if right else f"WRONG: {wrong or 'not refuted'}")
            if not right:
                bad += 1
                print(output[:2000])
    print(f"{total} states in {spent():.0f} s of CPU")
    sys.exit(bad > 0)


main()
