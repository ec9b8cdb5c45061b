# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutual exclusion of two hosts by the locks of unmodified programs (C18, C20): of all holds no two overlap.

Each holder notes when it began and ended inside, and adds one to a number that only the lock protects.  Here are 40
holds of each kind, so that they take seconds; SW_HOLDS=1000 asks for as many as the acceptance of the locks was done with.
"""
import os

import pytest
from harness import eventually
from lock_kinds import PROGRAMS, SHELL, emacs, python

HOLDS = int(os.environ.get("SW_HOLDS", "40"))
LIMIT = 60 + HOLDS // 2

IN_SHELL = """
held=0; exec 9<> <(:)
while test $held -lt {rounds}; do
    {take} || {{ read -t 0.00$((RANDOM % 9 + 1)) -u 9; continue; }}
    {inside} {log} counter || exit 1
    {drop} || {{ echo "cannot release"; exit 1; }}
    held=$((held + 1))
    read -t 0.00$((RANDOM % 9 + 1)) -u 9
done
exit 0
"""
IN_PYTHON = """
import random, subprocess, sys, time
for i in range(int(sys.argv[1])):
    take()
    subprocess.run(sys.argv[2:], check=True)
    drop()
    time.sleep(random.random() / 100)
"""
IN_EMACS = """
(let ((held 0))
  (while (< held {rounds})
    (if (not (take)) (sleep-for 0.003)
      (unless (eq 0 (call-process "{inside}" nil nil nil "{log}" "counter")) (kill-emacs 1))
      (drop)
      (setq held (1+ held))
      (sleep-for (/ (random 10) 1000.0)))))
"""
# The hook of commit -a runs while git holds index.lock.
IN_GIT = """
cd repo; export GIT_OPTIONAL_LOCKS=0 LOG={log}
for i in $(seq {rounds}); do
    until git commit -q -a --allow-empty -m $HOSTNAME-$i 2> /dev/null; do sleep 0.0$((RANDOM % 9)); done
done
"""


class Inside:
    """The logs of who was inside, and the number that was protected."""

    def __init__(self, lab, hosts, rounds, counter="counter"):
        self.lab, self.hosts, self.rounds, self.counter = lab, hosts, rounds, counter
        self.logs = [os.path.join(lab.directory, "inside-" + host.hostname) for host in hosts]
        hosts[0].write(counter, b"0")

    def words(self):
        for host, log in zip(self.hosts, self.logs):
            yield host, {"rounds": self.rounds, "inside": self.lab.helper("inside"), "log": log}

    def judge(self, processes, more=False):
        for process in processes:
            out, err = process.communicate(timeout=LIMIT * 2)
            assert process.returncode == 0, out + err
        intervals = []
        for log in self.logs:
            with open(log, encoding="ascii") as lines:
                found = [tuple(map(int, line.split())) for line in lines]
            assert len(found) == self.rounds or (more and len(found) > self.rounds), log
            intervals += found
        intervals.sort()
        overlaps = [(a, b) for a, b in zip(intervals, intervals[1:]) if a[1] > b[0]]
        assert overlaps == []
        assert [number for _, _, number in intervals] == list(range(1, len(intervals) + 1))
        for host in self.hosts:
            assert int(host.read(self.counter)) == len(intervals)


def start(host, command):
    return host.popen(command, stdout=-1, stderr=-1, text=True)


@pytest.mark.limit(LIMIT)
@pytest.mark.parametrize("kind", sorted(SHELL))
def test_shell(lab, hosts, kind):
    """A script on each host."""
    inside = Inside(lab, hosts, HOLDS // 2)
    take, drop = SHELL[kind]
    inside.judge([start(host, IN_SHELL.format(take=take, drop=drop, **words)) for host, words in inside.words()])


@pytest.mark.limit(LIMIT)
@pytest.mark.parametrize("kind", sorted(PROGRAMS))
def test_python(lab, hosts, kind):
    """A program on each host."""
    inside = Inside(lab, hosts, HOLDS // 2)
    inside.judge(
        [
            start(host, python(kind, IN_PYTHON, words["rounds"], words["inside"], words["log"], "counter"))
            for host, words in inside.words()
        ]
    )


@pytest.mark.limit(LIMIT)
def test_mailbox_keeps_all(lab, hosts):
    """C6, C10: messages that two hosts put into one mailbox under its lock: each is there once, and whole."""
    code = """
import os, sys
for i in range(int(sys.argv[1])):
    take()
    lock.add('Subject: %s %d\\n\\n%s\\n' % (os.uname().nodename, i, 'text ' * 50))
    lock.flush()
    drop()
"""
    for process in [start(host, python("mailbox", code, HOLDS // 2)) for host in hosts]:
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, out + err
    list_all = "print(sorted(m['Subject'] for m in lock)); assert all(m.get_payload() == 'text ' * 50 + '\\n' for m in lock)"
    wanted = sorted("%s %d" % (host.hostname, i) for host in hosts for i in range(HOLDS // 2))
    assert hosts[1].run(python("mailbox", list_all)).stdout == "%r\n" % wanted


@pytest.mark.limit(LIMIT)
def test_emacs(lab, hosts):
    """The symbolic links that stand for files under edit."""
    inside = Inside(lab, hosts, HOLDS // 2)
    inside.judge([start(host, emacs(IN_EMACS.format(**words))) for host, words in inside.words()])


@pytest.mark.limit(LIMIT)
def test_git(lab, hosts):
    """index.lock of one work tree, and no commit is lost."""
    a, b = hosts
    a.run("git init -q repo && cd repo && git config user.name x && git config user.email x@x && git config gc.auto 0")
    inside = Inside(lab, hosts, HOLDS // 2, "repo/.git/counter")
    a.write("repo/.git/hooks/pre-commit", b'#!/bin/sh\nexec %s "$LOG" .git/counter\n' % lab.helper("inside").encode())
    a.run("chmod +x repo/.git/hooks/pre-commit")
    assert eventually(lambda: os.access(a.source + "/repo/.git/hooks/pre-commit", os.X_OK))
    # Which commit HEAD is at, git has read before it takes the lock: it may have to give up after the hook.
    inside.judge([start(host, IN_GIT.format(**words)) for host, words in inside.words()], more=True)
    check = "cd repo && git rev-list --count HEAD && git fsck --strict --no-dangling 2>&1; ls -d .git/[i-z]*.lock"
    assert b.run(check + " 2> /dev/null; true").stdout == "%d\n" % (HOLDS // 2 * 2)
