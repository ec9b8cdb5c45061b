# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts, exactly, what one operation costs a file system in FUSE: messages, and system calls of the daemon.

The kernel's tracepoints tell both without slowing anybody down: fuse_request_send, which names the mount, and sys_enter
for the daemon's threads.  Reading a message and answering it are not counted, nor are calls that wait for other threads
or for time, whose number depends on the moment."""

import collections
import glob
import os
import re
import select
import subprocess
import time

import systems

TRACING = "/sys/kernel/tracing"
TIMES = 20
# What is counted, in the words of loops.c, and what has to be there before.
OPERATIONS = [
    ("new file: open, write, close", "create", 0),
    ("overwrite (O_TRUNC)", "rewrite", TIMES),
    ("open, read, close", "read", TIMES),
    ("stat, cached", "stat", TIMES),
    ("unlink", "unlink", TIMES),
    ("append a record: open, write, close", "record", 0),
    ("edit one byte: open, pwrite, close", "edit", TIMES),
    ("lock and unlock: O_EXCL, unlink", "excl", 0),
    ("lock and unlock: symlink, unlink", "symlink", 0),
    ("lock and unlock: fcntl", "fcntl", 0),
    ("lock and unlock: flock", "flock", 0),
]
UNCOUNTED = {"futex", "clock_nanosleep", "rt_sigtimedwait"}
TALK = {"read", "readv", "write", "writev", "splice"}


class Instance:
    """Of the kernel's tracing, with one event, for us alone."""

    def __init__(self, event):
        self.place = "%s/instances/safewritefs-bench-%d-%s" % (TRACING, os.getpid(), os.path.basename(event))
        self.event = "events/" + event
        os.mkdir(self.place)
        self.tell("buffer_size_kb", "4096")

    def tell(self, name, word):
        with open("%s/%s" % (self.place, name), "w", encoding="ascii") as file:
            file.write(word)

    def start(self):
        self.tell(self.event + "/enable", "1")

    def lines(self):
        return systems.read_text(self.place + "/trace").splitlines()

    def end(self):
        self.tell(self.event + "/enable", "0")
        os.rmdir(self.place)


class Trace:
    """Both, for one mount and its daemon."""

    def __init__(self, system):
        process = "/proc/%d" % system.daemon.pid
        self.instances = [Instance("fuse/fuse_request_send"), Instance("raw_syscalls/sys_enter")]
        sent, called = self.instances
        sent.tell(sent.event + "/filter", "connection == %d" % os.minor(os.stat(system.top).st_dev))
        called.tell("options/event-fork", "1")  # threads that are made later too
        called.tell("set_event_pid", " ".join(os.listdir(process + "/task")))
        links = {int(os.path.basename(link)): os.readlink(link) for link in glob.glob(process + "/fd/*")}
        self.fuse = {number for number, target in links.items() if target == "/dev/fuse"}
        for instance in self.instances:
            instance.start()

    def clear(self):
        for instance in self.instances:
            instance.tell("trace", "")

    def found(self):
        """({message: n}, {system call: n}) since it was cleared."""
        messages, calls = collections.Counter(), collections.Counter()
        for line in self.instances[0].lines():
            match = re.search(r"fuse_request_send: .* opcode \d+ \((?:FUSE_)?(\w*)\)", line)
            if match:
                messages[match[1] or "other"] += 1
        for line in self.instances[1].lines():
            match = re.search(r"sys_enter: NR (\d+) \((\w+)", line)
            if match:
                name = CALLS.get(int(match[1]), match[1])
                if name not in UNCOUNTED and not (name in TALK and int(match[2], 16) in self.fuse):
                    calls[name] += 1
        return messages, calls

    def end(self):
        for instance in self.instances:
            instance.end()


def call_names():
    """Numbers of system calls, as the C library's headers have them."""
    out = subprocess.run(["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"], capture_output=True, text=True,
                         check=False).stdout
    return {int(number): name for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", out, re.MULTILINE)}


CALLS = call_names()


def counted(place, trace, operation, before):
    """What one operation costs.  It is done by a program that a shell started, as most are: ours looks at its parents."""
    with place.fresh():
        if before:  # not through the mount, which would treat names that have just been written with care
            place.loops("prepare", before, place.lower.data + place.directory[len(place.system.top):])
        argv = ["sh", "-c", '"$@"; true', "sh", place.tools.loops, "count", operation, str(TIMES), place.directory]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            def step(word):
                if not select.select([process.stdout], [], [], 30)[0] or process.stdout.readline() != word + "\n":
                    raise systems.BenchError("%s: no answer" % operation)
            step("ready")
            time.sleep(0.05)
            trace.clear()
            process.stdin.write("\n")
            process.stdin.flush()
            step("done")
            time.sleep(0.05)  # RELEASE comes after close(2)
            found = trace.found()
            process.stdin.write("\n")
            process.stdin.flush()
    return [{name: n / TIMES for name, n in one.items()} for one in found]


def table(system, place):
    """[(operation, messages, calls)] of a mount that stands still otherwise."""
    trace = Trace(system)
    try:
        return [(what, *counted(place, trace, operation, before)) for what, operation, before in OPERATIONS]
    finally:
        trace.end()


def why_not():
    if not CALLS:
        return "no C compiler"
    if not os.path.isdir(TRACING + "/events/fuse") or not os.path.isdir(TRACING + "/instances"):
        return "no tracepoints of FUSE at %s" % TRACING
    return None
