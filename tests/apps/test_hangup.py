# SPDX-License-Identifier: GPL-2.0-or-later
"""C18: trees in which names look like locks, made from a terminal that is then hung up: nothing refused, nothing gone."""
import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from harness import eventually

TREE = """
mkdir -p lock lockfile/deep sub/lock
seq 3000 > Cargo.lock; echo small > yarn.lock; : > poetry.lock; echo '{}' > package-lock.json
seq 100 > some.lock; seq 50 > .lock; seq 40 > lock/a; seq 40 > lockfile/deep/b; seq 30 > sub/lock/lock
echo 1 > tiny.lock; : > sub/empty.lock; mkdir -p small/lock; echo 2 > small/lock/x
"""
# (what is typed, the directory that comes of it)
WAYS = {
    "git": ("git clone -q $SCRATCH/tree made", "made"),
    "cp": ("cp -r $SCRATCH/tree made", "made"),
    "tar": ("mkdir made && tar xf $SCRATCH/tree.tar -C made", "made"),
    "npm": (
        "mkdir app && cd app && echo '{}' > package.json && npm --offline --no-audit --no-fund"
        " --cache $SCRATCH/cache --silent install $SCRATCH/tree.tgz && cd ..",
        "app/node_modules/tree",
    ),
}


class Terminal:
    """An interactive shell on a terminal of its own, in the top of the mount."""

    def __init__(self, host):
        self.host = host
        self.process = host.popen(
            ["script", "-qc", "bash --norc --noprofile -i", "/dev/null"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # A shell that is just starting throws away what was typed before it asked.
        assert eventually(self.answers, 30)

    def answers(self):
        self.type(": > $SCRATCH/ready")
        time.sleep(0.1)
        return os.path.exists(self.host.scratch + "/ready")

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def shells(self):
        found = self.host.run("pgrep -x bash; true", cwd="/").stdout.split()
        return [pid for pid in found if "script" not in pid]

    def hang_up(self):
        """The other end of the terminal is gone: the kernel sends SIGHUP to the session."""
        self.process.end(signal.SIGKILL)
        self.process.wait(timeout=20)


def contents(top):
    found = {}
    for where, folders, files in os.walk(top):
        for name in folders:
            found[os.path.relpath(os.path.join(where, name), top)] = None
        for name in files:
            with open(os.path.join(where, name), "rb") as f:
                found[os.path.relpath(os.path.join(where, name), top)] = f.read()
    return {name: data for name, data in found.items() if not name.startswith((".git", "package.json"))}


@pytest.mark.limit(120)
@pytest.mark.parametrize("way", sorted(WAYS))
def test_trees_survive_the_terminal(lab, hosts, source, way):
    a, b = hosts
    if way == "npm" and not shutil.which("npm"):
        pytest.skip("npm is not installed")
    a.run(f"mkdir $SCRATCH/tree && cd $SCRATCH/tree && {TREE}", cwd="/")
    tree = a.scratch + "/tree"
    with open(tree + "/package.json", "w", encoding="ascii") as f:
        json.dump({"name": "tree", "version": "1.0.0"}, f)
    a.run(
        "cd $SCRATCH && tar cf tree.tar -C tree . && tar czf tree.tgz --transform s,^tree,package, tree && cd tree &&"
        " git init -q . && git add -A -f && git -c user.name=x -c user.email=x@x commit -qm x && rm -rf .git/hooks",
        cwd="/",
    )
    command, place = WAYS[way]
    wanted = contents(tree)
    terminal = Terminal(a)
    terminal.type(f"{command}; echo $? > status")
    assert eventually(lambda: b.exists("status") and b.read("status"), 60)
    assert b.read("status") == b"0\n"
    time.sleep(0.6)
    made = contents(os.path.join(source, place))
    missing = {"package-lock.json"} if way == "npm" else set()  # npm packs none
    assert {name for name in wanted if made.get(name, 1) != wanted[name]} <= missing
    terminal.hang_up()
    assert eventually(lambda: a.run("pgrep -x bash | wc -l; true", cwd="/").stdout.strip() in ("0", "1"), 10)
    time.sleep(0.8)
    assert contents(os.path.join(source, place)) == made
    assert lab.salvage(source) == [] and os.listdir(source + "/.safewritefs/salvage") == []
