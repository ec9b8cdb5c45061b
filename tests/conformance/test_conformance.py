# SPDX-License-Identifier: GPL-2.0-or-later
"""A mount answers every call of rules C13 and C14 as the file system below it does, but for what is listed.

conform.py runs in a plain directory and in the mount; its lines must be equal.  differences.txt holds the exceptions
with their reasons: one that is not listed fails, and so does one that is listed and does not occur (any more).
"""
import os
import re
import subprocess
import tempfile

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
CONFORM = os.path.join(HERE, "conform.py")
PYTHON = "/usr/bin/python3"
GROUPS = subprocess.run([PYTHON, CONFORM, "--list"], check=True, capture_output=True, text=True).stdout.split()


class Difference:
    """A line "GROUP CHECK :: PLAIN => MOUNTED"; a star stands for any text."""

    def __init__(self, line, reason):
        self.line, self.reason = line, reason
        self.name, _, results = line.partition(" :: ")
        self.plain, arrow, self.mounted = results.partition(" => ")
        assert arrow and reason, f"differences.txt: no reason or no arrow: {line}"

    def explains(self, name, plain, mounted):
        pairs = ((self.name, name), (self.plain, plain), (self.mounted, mounted))
        return all(re.fullmatch(re.escape(glob).replace(r"\*", ".*"), text) for glob, text in pairs)


def known_differences(group):
    """The entries of a group; comment lines above them are their reason."""
    found, reason, fresh = [], "", True
    with open(os.path.join(HERE, "differences.txt"), encoding="utf-8") as f:
        for line in map(str.strip, f):
            if line.startswith("#"):
                reason = line.strip("# ") if fresh else f'{reason} {line.strip("# ")}'
                fresh = False
            elif line:
                fresh = True
                if line.split()[0] == group:
                    found.append(Difference(line, reason))
    return found


def transcript(host, directory, group):
    """{check: result} of one run."""
    run = host.run([PYTHON, CONFORM, directory, group], cwd="/", timeout=200)
    lines = [line.partition(" :: ") for line in run.stdout.splitlines()]
    assert all(separator for _, separator, _ in lines), run.stdout
    return {name: result for name, _, result in lines}


def plain_directory(lab, name):
    path = os.path.join(lab.directory, name)
    os.mkdir(path, 0o755)
    return path


@pytest.mark.limit(240)
@pytest.mark.parametrize("group", GROUPS)
def test_same_answers(lab, host, group):
    plain = transcript(host, plain_directory(lab, "plain"), group)
    mounted = transcript(host, host.mnt, group)
    assert list(plain) == list(mounted)
    known, used, wrong = known_differences(group), set(), []
    for name in plain:
        if plain[name] == mounted[name]:
            continue
        hits = [d for d in known if d.explains(name, plain[name], mounted[name])]
        used.update(hits)
        if not hits:
            wrong.append(f"{name} ::\n    plain   {plain[name]}\n    mounted {mounted[name]}")
    wrong += [f"listed, but does not occur: {d.line}" for d in known if d not in used]
    print(f"{len(plain)} checks, {len(used)} listed differences")
    assert not wrong, f"{len(wrong)} of {len(plain)} checks:\n" + "\n".join(wrong)


def test_listed_groups_exist():
    with open(os.path.join(HERE, "differences.txt"), encoding="utf-8") as f:
        named = {line.split()[0] for line in f if line.strip() and not line.startswith("#")}
    assert named <= set(GROUPS)


def test_transcript_is_steady():
    """Two runs in plain directories are equal, so that a difference means something; and the checks are many."""
    runs = []
    for _ in range(2):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            os.chmod(directory, 0o755)
            run = subprocess.run([PYTHON, CONFORM, directory], check=True, capture_output=True, text=True)
        runs.append(run.stdout.splitlines())
    unsteady = [pair for pair in zip(*runs) if pair[0] != pair[1]]
    assert not unsteady and len(runs[0]) == len(runs[1]) > 3000
    assert not [line for line in runs[0] if "broken case" in line]
