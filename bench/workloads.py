# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured.  A workload does its work once in a directory of its own on one system, and tells what it found as
{metric: value}; METRICS says in what unit, and which way is better."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time

import systems

# The unit "/s" (and MB/s) is the better the more, a time the better the less.
COMMITS = ["create", "rewrite", "stat, just written", "unlink"]
FIO = ["seq read", "seq read x4", "rand read", "rand read x4", "seq write", "seq write x4", "rand write", "rand write x4"]


class Place:
    """Where one measurement takes place, and with what."""

    numbers = itertools.count()

    def __init__(self, system, given, tools):
        self.system, self.lower, self.given, self.tools = system, system.lower, given, tools
        self.seconds = given.seconds
        self.directory = ""

    @contextlib.contextmanager
    def fresh(self):
        """A directory of this measurement."""
        name = "/work-%d" % next(self.numbers)
        self.directory = self.system.top + name
        os.mkdir(self.directory)
        try:
            yield self
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def shared(self, path):
        return os.path.join(self.system.top, path)

    def loops(self, *words, timeout=60):
        out = systems.run([self.tools.loops, *map(str, words)], timeout)
        return {name: float(value) for name, value in (line.split() for line in out.splitlines())}

    def timed(self, argv, **named):
        began = time.monotonic()
        systems.run(argv, **named)
        return time.monotonic() - began


# ---- small files


def commits(mode, threads):
    def measure(place):
        chosen = place.system.commits if mode == "plain" else mode
        found = place.loops("commits", chosen, threads, place.seconds, place.directory)
        suffix = (", temp + rename" if mode == "hand" else "") + (" x%d" % threads if threads > 1 else "")
        names = {"create": "create", "rewrite": "rewrite", "stat-new": "stat, just written", "unlink": "unlink"}
        return {names[name] + suffix: rate for name, rate in found.items() if names[name] + suffix in UNITS}

    return measure


def looks(place):
    """At files that nobody has written lately: names that were are not cached for a while by ours."""
    found = {}
    for threads, suffix in ((1, ""), (8, " x8")):
        rates = place.loops("looks", threads, place.seconds, place.shared("shared/hot"))
        found.update({name + suffix: rate for name, rate in rates.items()})
    return found


def locks(place):
    names = {"excl": "lock O_EXCL", "symlink": "lock symlink", "fcntl": "lock fcntl", "flock": "lock flock"}
    return {name: place.loops("run", kind, place.seconds, place.directory)["rate"] for kind, name in names.items()}


def append(place):
    sizes = {"append, 1 KiB": 1 << 10, "append, 1 MiB": 1 << 20}
    found = {}
    for name, size in sizes.items():
        path = place.directory + "/log-%d" % size
        with open(path, "wb") as file:
            file.write(b"x" * size)
        found[name] = place.loops("run", "append", place.seconds, path)["rate"]
    big = place.lower.big()
    found["append, 1 GiB"] = place.loops("run", "append", place.seconds, place.shared(big))["rate"]
    # A larger one would be edited in another way (edit-copy-max).
    os.truncate(os.path.join(place.lower.data, big), place.lower.big_size)
    return found


def crowd(place):
    found = place.loops("crowd", 500, max(place.seconds, 0.5), place.directory)
    return {"500 at once: commits": found["written"], "500 at once: reads": found["read"]}


def stall(place):
    """The daemon is one whose renames to a certain name take a second."""
    if not place.system.is_mount:
        return {"longest stall": 1000 * place.loops("stall", "fsync", place.directory)["stall"]}
    mode = "plain" if place.system.is_ours else "hand"
    place.system.restart(place.tools.slow)
    try:
        found = place.loops("stall", mode, place.directory)
        if found["waited"] < 0.9:
            raise systems.BenchError("nothing waited")
        return {"longest stall": 1000 * found["stall"]}
    finally:
        place.system.restart()


# ---- large files


def new_file(place):
    megabytes = place.lower.big_size / 1e6
    mode = "fsync" if place.system.commits == "plain" else place.system.commits
    found = place.loops("new", mode, place.lower.big_size, place.directory + "/new")
    return {"new 1 GiB file": megabytes / found["seconds"]}


def edit(place):
    return {"edit 1 byte in 1 GiB": 1000 * place.loops("edit", place.shared(place.lower.big()))["seconds"]}


def fio(place, words, which):
    """Bytes per second of each group.  Caches are left as they are, and nothing is laid out twice.  It takes longer
    than a loop: an open that drops a gigabyte of cached pages would take most of that."""
    argv = ["fio", "--output-format=json", "--thread", "--ioengine=psync", "--invalidate=0", "--fallocate=none",
            "--group_reporting", "--time_based", "--runtime=%dms" % (place.seconds * 3000), *words]
    for name, kind, block, jobs in which:
        argv += ["--name=" + name, "--stonewall", "--new_group", "--rw=" + kind, "--bs=" + block, "--numjobs=%d" % jobs]
    out = systems.run(argv, cwd=place.given.directory)
    jobs = json.loads(out[out.index("{"):])["jobs"]
    side = "read" if "read" in which[0][1] else "write"
    return {job["jobname"]: job[side]["bw_bytes"] / 1e6 for job in jobs}


def data_read(place):
    path = place.shared(place.lower.big())
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(1 << 20)
        while file.readinto(buffer):
            pass
        found = fio(place, ["--filename=" + path, "--size=%d" % place.lower.big_size, "--norandommap", "--readonly"],
                    [("seq read", "read", "128k", 1), ("seq read x4", "read", "128k", 4),
                     ("rand read", "randread", "4k", 1), ("rand read x4", "randread", "4k", 4)])
        if place.system.is_mount:  # the memory is needed by the others; their common source stays cached
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return found


def data_write(place):
    return fio(place, ["--directory=" + place.directory, "--size=%d" % (place.lower.big_size // 16), "--norandommap"],
               [("seq write", "write", "128k", 1), ("seq write x4", "write", "128k", 4),
                ("rand write", "randwrite", "4k", 1), ("rand write x4", "randwrite", "4k", 4)])


# ---- many files


def find(place):
    tree = place.shared(place.lower.tree())
    if place.system.is_mount:
        place.system.restart()
    found = {"cold find -size +0": place.timed(["find", tree, "-size", "+0", "-fprintf", "/dev/null", "x"])}
    found["readdir"] = place.loops("list", tree)["seconds"]
    found["second find"] = place.timed(["find", tree, "-fprintf", "/dev/null", "x"])
    return found


# ---- programs

GIT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench",
       "GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench"}


def make_fixtures(directory):
    """A tree of 500 small files as directory, tar archive and git repository; and C sources that take a moment each."""
    tree, source = directory + "/project", directory + "/source"
    for number in range(500):
        folder = "%s/part-%d" % (tree, number // 20)
        os.makedirs(folder, exist_ok=True)
        with open("%s/file-%d.txt" % (folder, number), "w", encoding="ascii") as file:
            file.write("".join("line %d of file %d\n" % (line, number) for line in range(20 + number % 300)))
    systems.run(["tar", "cf", directory + "/project.tar", "-C", directory, "project"])
    environment = {**os.environ, **GIT}
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "all"], ["gc", "-q"]):
        systems.run(["git", "-c", "gc.auto=0", *words], cwd=tree, env=environment)
    os.mkdir(source)
    for number in range(8):
        with open("%s/unit%d.c" % (source, number), "w", encoding="ascii") as file:
            file.write("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n")
            for function in range(30):
                numbers = (number, function, function)
                file.write("int f%d_%d(int x) { for (int i = 0; i < x; i++) x += i * %d; return x; }\n" % numbers)
    with open(source + "/Makefile", "w", encoding="ascii") as file:
        file.write("CFLAGS = -O1\nunits = $(patsubst %.c,%.o,$(wildcard *.c))\nlib.a: $(units)\n\tar rcs $@ $^\n")


def tar(place):
    return {"tar x": place.timed(["tar", "xf", place.given.directory + "/project.tar", "-C", place.directory])}


def git(place):
    environment, copy = {**os.environ, **GIT}, place.directory + "/copy"
    clone = place.timed(["git", "clone", "-q", "--no-hardlinks", place.given.directory + "/project", copy], env=environment)
    status = place.timed(["git", "-C", copy, "status", "--porcelain"], env=environment)
    return {"git clone": clone, "git status": status, "git clone + status": clone + status}


def compiling(place):
    source = shutil.copytree(place.given.directory + "/source", place.directory + "/source")
    return {"compile": place.timed(["make", "-s", "-j2", "-C", source])}


class Programs:
    """The Python process that has joblib and Optuna imported."""

    def __init__(self):
        self.process = None

    def ask(self, **request):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(["/usr/bin/python3", systems.HERE + "/programs.py"], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd="/")
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            raise systems.BenchError(answer["error"])
        return answer

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()


def joblib(place):
    return place.tools.programs.ask(do="joblib", directory=place.directory, seconds=2 * place.seconds)


def optuna(place):
    return place.tools.programs.ask(do="optuna", directory=place.directory, trials=max(5, int(100 * place.seconds)))


class Workload:
    """`rounds` of it are done in each pass.  `on`: the lower file systems that it is measured on unless told otherwise.
    `by_hand`: whether it differs where programs commit with care."""

    def __init__(self, name, measure, metrics, on, rounds=1, by_hand=False):
        self.name, self.measure, self.metrics, self.on = name, measure, metrics, on
        self.rounds, self.by_hand = rounds, by_hand


ALL = [
    Workload("commits", commits("plain", 1), dict.fromkeys(COMMITS, "/s"), "tmpfs ext4 xfs", 3, True),
    Workload("by-hand", commits("hand", 1), {name + ", temp + rename": "/s" for name in COMMITS[:2]}, "tmpfs ext4 xfs", 3),
    Workload("commits-8", commits("plain", 8), {name + " x8": "/s" for name in COMMITS}, "tmpfs ext4", 3, True),
    Workload("looks", looks, dict.fromkeys(["read", "read x8", "stat", "stat x8"], "/s"), "tmpfs ext4 xfs", 3),
    # Before the large file is changed: what was changed just now is believed less.
    Workload("read", data_read, dict.fromkeys(FIO[:4], "MB/s"), "ext4 xfs"),
    Workload("new", new_file, {"new 1 GiB file": "MB/s"}, "ext4 xfs", 1, True),
    Workload("edit", edit, {"edit 1 byte in 1 GiB": "ms"}, "xfs ext4"),
    Workload("append", append, {"append, 1 KiB": "/s", "append, 1 MiB": "/s", "append, 1 GiB": "/s"}, "ext4", 3),
    Workload("write", data_write, dict.fromkeys(FIO[4:], "MB/s"), "ext4 xfs"),
    Workload("find", find, {name: "s" for name in ("cold find -size +0", "readdir", "second find")}, "ext4"),
    Workload("joblib", joblib, {"joblib hit": "/s", "joblib miss": "/s"}, "tmpfs ext4", 2),
    Workload("optuna", optuna, {"optuna trials": "/s"}, "tmpfs ext4", 2),
    Workload("git", git, {"git clone": "s", "git status": "s", "git clone + status": "s"}, "tmpfs ext4"),
    Workload("tar", tar, {"tar x": "s"}, "ext4"),
    Workload("compile", compiling, {"compile": "s"}, "ext4"),
    Workload("locks", locks, {"lock " + kind: "/s" for kind in ("O_EXCL", "symlink", "fcntl", "flock")}, "tmpfs ext4", 2),
    Workload("crowd", crowd, {"500 at once: commits": "/s", "500 at once: reads": "/s"}, "tmpfs"),
    Workload("stall", stall, {"longest stall": "ms"}, "tmpfs"),
]
UNITS = {metric: unit for workload in ALL for metric, unit in workload.metrics.items()}


def is_rate(metric):
    return UNITS[metric].endswith("/s")
