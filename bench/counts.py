# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts, exactly, what one operation costs a file system in FUSE: messages, and system calls of the daemon.

The kernel's tracepoints tell both without slowing anybody down: fuse_request_send, which names the mount, and sys_enter
for the daemon's threads.  Reading a message and answering it are not counted, nor are calls that wait for other threads
or for time, whose number depends on the moment.  What its threads have run for is the scheduler's account of them."""

import collections
import glob
import os
import re
import select
import statistics
import subprocess
import time

import systems

TRACING = "/sys/kernel/tracing"
SENT = re.compile(r" (\d+\.\d+): fuse_request_(\w+): connection \d+ req (\d+) (?:opcode \d+ \((?:FUSE_)?(\w*)\))?")
TIMES = 20
MORE = 200
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
# The same of whole programs, in the words of workloads.py: once each.
PROGRAMS = ["git", "tar", "optuna"]
UNCOUNTED = {"futex", "clock_nanosleep", "rt_sigtimedwait"}
TALK = {"read", "readv", "write", "writev", "splice"}


class Instance:
    """Of the kernel's tracing, with some events, for us alone."""

    def __init__(self, name, *events, only=None):
        self.place = "%s/instances/safewritefs-bench-%d-%s" % (TRACING, os.getpid(), name)
        self.events = events
        os.mkdir(self.place)
        self.tell("buffer_size_kb", "32768")  # for each processor
        for event in events if only else ():
            self.tell("events/%s/filter" % event, only)

    def tell(self, name, word):
        with open("%s/%s" % (self.place, name), "w", encoding="ascii") as file:
            file.write(word)

    def switch(self, on):
        for event in self.events:
            self.tell("events/%s/enable" % event, "1" if on else "0")

    def lines(self):
        return systems.read_text(self.place + "/trace").splitlines()

    def end(self):
        self.switch(False)
        os.rmdir(self.place)


class Trace:
    """Both, for one mount and its daemon."""

    def __init__(self, system):
        self.pid = system.daemon.pid
        process = "/proc/%d" % self.pid
        mount = "connection == %d" % os.minor(os.stat(system.top).st_dev)
        self.messages = Instance("fuse", "fuse/fuse_request_send", "fuse/fuse_request_end", only=mount)
        self.calls = Instance("calls", "raw_syscalls/sys_enter")
        self.calls.tell("options/event-fork", "1")  # threads that are made later too
        self.calls.tell("set_event_pid", " ".join(os.listdir(process + "/task")))
        links = {int(os.path.basename(link)): os.readlink(link) for link in glob.glob(process + "/fd/*")}
        self.fuse = {number for number, target in links.items() if target == "/dev/fuse"}

    def both(self):
        return self.messages, self.calls

    def start(self):
        for instance in self.both():
            instance.tell("trace", "")
            instance.switch(True)

    def stop(self):
        for instance in self.both():
            instance.switch(False)

    def found_messages(self):
        """{message: [microseconds from its sending to its answer]}"""
        sent, found = {}, collections.defaultdict(list)
        for line in self.messages.lines():
            match = SENT.search(line)
            if not match:
                continue
            when, what, number, name = match.groups()
            if what == "send":
                sent[number] = name or "other", float(when)
                found[sent[number][0]].append(None)
            elif number in sent:
                name, began = sent.pop(number)
                found[name][found[name].index(None)] = 1e6 * (float(when) - began)
        return found

    def found_calls(self):
        """{system call: n}"""
        calls = collections.Counter()
        for line in self.calls.lines():
            match = re.search(r"sys_enter: NR (\d+) \((\w+)", line)
            if match:
                name = CALLS.get(int(match[1]), match[1])
                if name not in UNCOUNTED and not (name in TALK and int(match[2], 16) in self.fuse):
                    calls[name] += 1
        return calls

    def processor(self):
        """Microseconds that the daemon's threads have run for, those that have ended included: clock_getcpuclockid(3)."""
        return time.clock_gettime((~self.pid << 3) | 2) * 1e6

    def end(self):
        for instance in self.both():
            instance.end()


def call_names():
    """Numbers of system calls, as the C library's headers have them."""
    command = ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {int(number): name for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", out, re.MULTILINE)}


CALLS = call_names()


def done(place, operation, before, times, around):
    """The operation so many times, by a program that a shell started, as most are: ours looks at its parents.  `around` is
    asked for before and after."""
    with place.fresh():
        if before:  # not through the mount, which would treat names that have just been written with care
            place.loops("prepare", before, place.lower.data + place.directory[len(place.system.top):])
        argv = ["sh", "-c", '"$@"; true', "sh", place.tools.loops, "count", operation, str(times), place.directory]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

            def step(word):
                if not select.select([process.stdout], [], [], 30)[0] or process.stdout.readline() != word + "\n":
                    raise systems.BenchError("%s: no answer" % operation)

            step("ready")
            time.sleep(0.05)
            first = around()
            process.stdin.write("\n")
            process.stdin.flush()
            step("done")
            time.sleep(0.05)  # RELEASE comes after close(2)
            last = around()
            process.stdin.write("\n")
            process.stdin.flush()
    return first, last


def told(trace, times):
    """What was traced, divided: messages, what they wait for, system calls."""
    messages = trace.found_messages()
    waits = {name: [wait for wait in known if wait is not None] for name, known in messages.items()}
    return {
        "messages": {name: len(known) / times for name, known in messages.items()},
        "waits": {name: round(statistics.median(known), 1) for name, known in waits.items() if known},
        "calls": {name: n / times for name, n in trace.found_calls().items()},
    }


def counted(place, trace, operation, before):
    """What one operation costs: that, and microseconds of the daemon's processor."""
    toggle = iter((trace.start, trace.stop))
    done(place, operation, before, TIMES, lambda: next(toggle)())
    found = told(trace, TIMES)
    first, last = done(place, operation, before and MORE, MORE, trace.processor)  # undisturbed
    return {**found, "processor": round((last - first) / MORE, 1)}


def counted_program(place, trace, measure):
    with place.fresh():
        first = trace.processor()
        trace.start()
        measure(place)
        time.sleep(0.05)
        trace.stop()
        return {**told(trace, 1), "processor": round(trace.processor() - first)}


def table(system, place, workloads):
    """[{operation, messages, ...}] of a mount that stands still otherwise."""
    trace = Trace(system)
    try:
        found = [{"operation": what, **counted(place, trace, operation, before)} for what, operation, before in OPERATIONS]
        for workload in workloads:
            if workload.name in PROGRAMS:
                what = "%s, the whole workload" % workload.name
                found.append({"operation": what, **counted_program(place, trace, workload.measure)})
        return found
    finally:
        trace.end()


def why_not():
    if not CALLS:
        return "no C compiler"
    if not os.path.isdir(TRACING + "/events/fuse") or not os.path.isdir(TRACING + "/instances"):
        return "no tracepoints of FUSE at %s" % TRACING
    return None
