# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts, processes and readers for the mounted tests.

A `Host` is a pid, uts and mount namespace with a hostname and a daemon of its own: to safewritefs it is a machine.  A
`Worker` is a Python process on a host that does what it is told, statement by statement, so that a test can stop a
program anywhere.  A `Reader` opens and reads one name in a tight loop and remembers everything it ever saw.
"""

import errno
import glob
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("SW_BUILD") or os.path.join(ROOT, "build")
DAEMON = os.environ.get("SAFEWRITEFS") or os.path.join(BUILD, "src", "safewritefs")
CTL = os.environ.get("SAFEWRITECTL") or os.path.join(BUILD, "src", "ctl", "safewritectl")
PYTHON = "/usr/bin/python3"
SLOWNESS = float(os.environ.get("SW_SLOWNESS", "1"))  # sanitizers: multiplies every time limit
# What programs are told by a mount whose daemon has died; ECANCELED at first, if their requests go through io_uring.
DEAD = ("ENOTCONN", "ECONNABORTED", "ECANCELED")

SUSPICIOUS = re.compile(
    r"warning|error|assert|critical|AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error", re.IGNORECASE
)


class WorkerError(Exception):
    """The worker's code raised something that is no OSError, or the worker ended."""


def payload(tag, size):
    """Bytes that tell which version they belong to at every place."""
    line = b"%s line %%09d of a version that must be whole\n" % tag.encode()
    count = size // len(line % 0) + 1
    return b"".join(line % i for i in range(count))[:size]


def pattern(size):
    """What helpers/killat.c writes."""
    return bytes(ord("a") + (i // 7) % 26 for i in range(size))


def eventually(check, timeout=3.0):
    """Polls until `check()` is true and returns its value; the last value otherwise.  A name may still be missing."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while True:
        try:
            value = check()
        except FileNotFoundError:
            value = None
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.01)


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError as e:
        return "(%s)" % e.strerror


class ReportedProcess(subprocess.Popen):
    """A program that another one starts for us, which writes its pid, our `target`, to a descriptor: the command is what
    `command_of` makes of that descriptor."""

    def __init__(self, command_of, **named):
        report_read, report_write = os.pipe()
        try:
            super().__init__(command_of(report_write), pass_fds=[report_write], **named)
        finally:
            os.close(report_write)
        with os.fdopen(report_read) as report:
            line = report.readline()
        self.target = int(line) if line else 0


class Process(ReportedProcess):
    """A program on a host.  `target` is its pid as the test sees it; the parent we wait for is nsrun."""

    def __init__(self, nsrun, host_pid, argv, flags=(), **named):
        super().__init__(lambda fd: [nsrun, "in", str(host_pid), "-f", str(fd), *flags, "--", *argv], **named)

    def end(self, number=signal.SIGKILL):
        """Sends a signal to the program itself; it may have ended already."""
        if self.target:
            kill_quietly(self.target, number)

    @property
    def inner_pid(self):
        """Its pid on its host."""
        status = read_text("/proc/%d/status" % self.target)
        return int(re.search(r"^NSpid:.*?(\d+)$", status, re.MULTILINE).group(1))


class Worker:
    """A process that executes Python sent to it.  A worker and what it forks are one family (C15)."""

    def __init__(self, host, **named):
        self.process = host.popen(
            [PYTHON, "-I", "-S", host.lab.helper("worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **named
        )
        self.busy = False

    def start(self, code, **values):
        """Sends code and does not wait: an expression, or statements that may set `result`."""
        assert not self.busy
        try:
            self.process.stdin.write((repr((code, values)) + "\n").encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError("the worker has ended") from None
        self.busy = True

    def finish(self, timeout=30):
        """The value of what was started; an OSError is raised here as it was there."""
        out = self.process.stdout
        if not select.select([out], [], [], timeout * SLOWNESS)[0]:
            raise WorkerError("no answer within %g s\n%s" % (timeout, self.where()))
        line = out.readline()
        self.busy = False
        if not line:
            raise WorkerError("the worker has ended (status %r)" % self.process.wait())
        answer = eval(line)  # our own repr
        if answer[0] == "oserror":
            raise OSError(answer[1], answer[2])
        if answer[0] == "error":
            raise WorkerError(answer[1])
        return answer[1]

    def __call__(self, code, **values):
        self.start(code, **values)
        return self.finish()

    def is_waiting(self, seconds=0.1):
        """Is the code that was started still running after that time?"""
        return not select.select([self.process.stdout], [], [], seconds)[0]

    def kill(self, number=signal.SIGKILL):
        """Ends the process and waits until it is gone."""
        self.process.end(number)
        self.process.wait(timeout=20 * SLOWNESS)

    def where(self):
        return describe_process("/proc/%d" % self.process.target)


class Reader:
    """Reads a name in a loop on a host and judges every content it meets."""

    def __init__(self, host, name, versions, classify=None):
        self.host = host
        self.worker = Worker(host, cwd=host.mnt)
        self.stop_file = os.path.join(host.scratch, "stop-%d" % self.worker.process.target)
        if classify:
            self.worker(classify)
        call = "watch(path, stop, versions, %s)" % ("classify" if classify else "None")
        self.worker.start(call, path=name, stop=self.stop_file, versions=list(versions))
        self.name = "%s on %s" % (name, host.hostname)

    def stop(self):
        """What was seen: {label: times}.  Fails if anything was no whole version."""
        self.host.touch(self.stop_file)
        seen, bad = self.worker.finish()
        self.worker.kill()
        assert not bad, "reader of %s saw what is no version: %r (all: %r)" % (self.name, bad, seen)
        return seen


class Host:
    """One machine with one mount of the source."""

    def __init__(self, lab, source, hostname, options="", namespaces=True, inside=None):
        self.lab = lab
        self.source = source
        self.hostname = hostname
        self.options = options
        self.scratch = tempfile.mkdtemp(prefix=hostname + "-", dir=lab.directory)
        os.chmod(self.scratch, 0o755)
        # Hosts with namespaces of their own mount at one path, as machines do.
        self.mnt = os.path.join(lab.directory if namespaces and not inside else self.scratch, "mnt")
        os.makedirs(self.mnt, exist_ok=True)
        self.log = os.path.join(self.scratch, "daemon.log")
        self.logs = [self.log]
        self.processes = []
        self.daemon = None
        self.gone = False  # the test ended the daemon itself
        self.init = None
        self.pid = 0
        self._worker = None
        if inside:
            self.pid = inside.pid
        elif namespaces:
            self._make_namespaces()

    def _make_namespaces(self):
        self.init = subprocess.Popen(
            [self.lab.helper("nsrun"), "host", self.hostname], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        words = {self.init.stdout.readline().strip(), self.init.stdout.readline().strip()} - {"ready", ""}
        assert len(words) == 1, "no namespaces"
        self.pid = int(words.pop())

    # ---- processes

    def popen(self, command, cwd=None, uid=None, gid=None, groups=None, pid=None, flags=(), **named):
        """Starts argv, or a bash line, on the host; in the top of the mount unless said otherwise."""
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        flags = list(flags)
        flags += ["-c", cwd or self.mnt]
        for letter, value in (("-u", uid), ("-g", gid), ("-G", groups), ("-t", pid)):
            if value is not None:
                flags += [letter, str(value)]
        named.setdefault("stdin", subprocess.DEVNULL)
        named.setdefault("start_new_session", True)
        places = {"SOURCE": self.source, "MNT": self.mnt, "SCRATCH": self.scratch, "LC_ALL": "C"}
        named.setdefault("env", {**os.environ, **places})
        process = Process(self.lab.helper("nsrun"), self.pid, argv, flags, **named)
        self.processes.append(process)
        return process

    def run(self, command, check=True, timeout=30, text=True, **named):
        """Runs a command to its end: a CompletedProcess with stdout and stderr."""
        given = named.pop("input", None)
        if given is not None:
            named["stdin"] = subprocess.PIPE
        process = self.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text, **named)
        out, err = process.communicate(given, timeout=timeout * SLOWNESS)
        result = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check:
            assert result.returncode == 0, "%r: status %d\n%s\n%s" % (command, result.returncode, out, err)
        return result

    def worker(self, **named):
        named.setdefault("cwd", self.mnt)
        return Worker(self, **named)

    def python(self, code, **values):
        """Runs code in a process of its own, which then ends as a program does."""
        worker = self.worker()
        try:
            return worker(code, **values)
        finally:
            worker.process.stdin.close()
            worker.process.wait(timeout=20 * SLOWNESS)

    def __call__(self, code, **values):
        """Code in the host's standing worker: a stranger to every writer of the test."""
        if self._worker is None:
            self._worker = self.worker()
        return self._worker(code, **values)

    def touch(self, path):
        """Makes an empty file outside the mount."""
        with open(path, "w", encoding="ascii"):
            pass

    # ---- short cuts over the standing worker

    def read(self, name):
        return self("get(path)", path=name)

    def write(self, name, data, **named):
        self("put(path, data, **named)", path=name, data=data, named=named)

    def exists(self, name):
        return self("os.path.lexists(path)", path=name)

    def list(self, name="."):
        return sorted(self("os.listdir(path)", path=name))

    def look(self, name):
        return os.stat_result(tuple(self("look(path)", path=name)) + (0, 0, 0))

    def error(self, call, *args, **named):
        """The errno name a call of the standing worker ends with, or None: error('os.mkdir', 'd')."""
        return self("error(%s, *args, **named)" % call, args=args, named=named)

    def reader(self, name, versions=(), classify=None):
        return Reader(self, name, versions, classify)

    # ---- the daemon

    def argv(self, options=None):
        words = ",".join(word for word in (self.options, options) if word)
        return [self.lab.daemon, self.source, self.mnt, "-f"] + (["-o", words] if words else [])

    def launch(self, options=None, **named):
        """Starts the daemon without waiting for the mount."""
        with open(self.log, "ab") as log:
            self.daemon = self.popen(self.argv(options), cwd="/", stdout=log, stderr=log, **named)
        self.gone = False
        return self.daemon

    def is_mounted(self):
        return " %s " % self.mnt in read_text("/proc/%d/mountinfo" % (self.pid or os.getpid()))

    def is_alive(self):
        """A mount is listed that is not the dead one of a predecessor."""
        answers = self.is_mounted() and self.run(["stat", "-f", self.mnt], cwd="/", check=False, timeout=15)
        return answers and answers.returncode == 0 and self.is_mounted()

    def mount(self, options=None, **named):
        self.launch(options, **named)
        return self.await_mount()

    def await_mount(self):
        deadline = time.monotonic() + 15 * SLOWNESS
        while not self.is_alive():
            assert self.daemon.poll() is None, "the daemon ended:\n" + self.log_text()
            assert time.monotonic() < deadline, "not mounted within 15 s:\n" + self.log_text()
            time.sleep(0.002)
        self("None")
        return self

    def kill_daemon(self):
        """kill -9, as an out-of-memory killer would.  The mount stays, dead."""
        self.gone = True
        self.daemon.end(signal.SIGKILL)
        self.daemon.wait(timeout=20 * SLOWNESS)

    def resident(self):
        """KiB of memory that the daemon has."""
        return int(re.search(r"VmRSS:\s+(\d+)", read_text("/proc/%d/status" % self.daemon.target)).group(1))

    def daemon_stands_still(self):
        tasks = glob.glob("/proc/%d/task/*/status" % self.daemon.target)
        return all("State:\tT" in read_text(task) for task in tasks)

    def log_text(self):
        return "".join(read_text(log) for log in self.logs)

    def umount(self, *flags, check=True):
        return self.run(["umount", *flags, self.mnt], cwd="/", check=check)

    def end_processes(self):
        """Ends every process of the host but the daemon."""
        self._worker = None
        for process in self.processes:
            if process is not self.daemon and process.poll() is None:
                process.end()
        if self.init:
            strays = [str(pid) for pid in self.strays()[0]]
            command = [self.lab.helper("nsrun"), "in", str(self.pid), "--", "kill", "-9", *strays]
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
        for process in self.processes:
            if process is not self.daemon:
                process.wait(timeout=20 * SLOWNESS)
                for pipe in (process.stdin, process.stdout, process.stderr):
                    if pipe:
                        pipe.close()
        self.processes = [self.daemon] if self.daemon else []

    def strays(self):
        """What lives in the host's pid namespace, init and daemons excepted: pids inside, and their /proc."""
        proc = "/proc/%d/root/proc" % self.pid
        daemons = [host.daemon for host in self.lab.hosts if host.pid == self.pid and host.daemon and not host.gone]
        known = {1} | {daemon.inner_pid for daemon in daemons if daemon.poll() is None}
        try:
            return [int(pid) for pid in os.listdir(proc) if pid.isdigit() and int(pid) not in known], proc
        except OSError:
            return [], proc

    def describe_daemon(self):
        return "daemon: " + describe_process("/proc/%d" % self.daemon.target) if self.daemon else ""

    def describe(self):
        pids, proc = self.strays() if self.init else ([p.target for p in self.processes], "/proc")
        parts = [self.describe_daemon()] + [describe_process("%s/%d" % (proc, pid)) for pid in pids]
        return "\n".join("%s: %s" % (self.hostname, part) for part in parts)

    def unmount(self):
        """Clean unmount; what went wrong, as a list of sentences."""
        problems = []
        self.end_processes()
        if not self.daemon or self.gone:
            return problems
        if self.daemon.poll() is not None:
            return ["%s: the daemon died (status %d)" % (self.hostname, self.daemon.returncode)]
        done = eventually(lambda: self.umount(check=False).returncode == 0 or not self.is_mounted(), 5)
        if not done:
            problems.append("%s: cannot be unmounted" % self.hostname)
            self.umount("-l", check=False)
        try:
            status = self.daemon.wait(timeout=15 * SLOWNESS)
        except subprocess.TimeoutExpired:
            problems.append("%s: the daemon outlives its mount\n%s" % (self.hostname, self.describe_daemon()))
            self.daemon.end()
            status = self.daemon.wait()
        if status:
            problems.append("%s: the daemon ended with status %d" % (self.hostname, status))
        self.gone = True
        return problems

    def destroy(self):
        """Whatever state it is in: no process and no mount are left."""
        for process in self.processes:
            process.end()
        if self.init:
            self.init.kill()
            self.init.stdin.close()
            self.init.wait()
        else:
            subprocess.run(["umount", "-l", self.mnt], check=False, stderr=subprocess.DEVNULL)
        for process in self.processes:
            process.wait(timeout=20 * SLOWNESS)


def kill_quietly(pid, number=signal.SIGKILL):
    """It may have ended already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def describe_process(directory):
    """Where every thread of a process stands in the kernel; `directory` is its entry in some /proc."""
    lines = ["process %s %s" % (os.path.basename(directory), read_text(directory + "/comm").strip())]
    for task in sorted(glob.glob(directory + "/task/*")):
        state = re.search(r"^State:\s*(.*)$", read_text(task + "/status"), re.MULTILINE)
        stack = [line.split("] ", 1)[-1] for line in read_text(task + "/stack").splitlines()]
        lines.append(
            "  %s %s, %s, syscall %s: %s"
            % (
                os.path.basename(task),
                state.group(1) if state else "?",
                read_text(task + "/wchan").strip(),
                " ".join(read_text(task + "/syscall").split()[:3]),
                " < ".join(stack[:8]),
            )
        )
    return "\n".join(lines)


class Frozen:
    """The daemon stands still for the time of the block."""

    def __init__(self, host):
        self.host = host

    def __enter__(self):
        self.host.daemon.end(signal.SIGSTOP)
        assert eventually(self.host.daemon_stands_still)

    def __exit__(self, *_):
        self.host.daemon.end(signal.SIGCONT)


def lab_directory():
    """Where everybody can go."""
    directory = tempfile.mkdtemp(prefix="sw-test-", dir=os.environ.get("SW_TEST_DIR"))
    os.chmod(directory, 0o755)
    return directory


class Lab:
    """Everything one test makes, and its end."""

    daemon = DAEMON
    is_emulated = False  # its hosts are so slow that less has to do

    def __init__(self, helpers, directory):
        self.helpers = helpers
        self.directory = directory
        self.hosts = []
        self.sources = []
        self.mounts = []  # of loop devices
        self.leftovers_expected = False

    def helper(self, name):
        return os.path.join(self.helpers, name)

    def source(self, name="source"):
        path = os.path.join(self.directory, name)
        os.mkdir(path)
        os.chmod(path, 0o755)
        self.sources.append(path)
        return path

    def loop_source(self, kind, size, options="loop"):
        """A file system of its own; the caller has made sure that its mkfs is there."""
        image, path = os.path.join(self.directory, "image"), self.source("loop")
        with open(image, "wb") as f:
            f.truncate(size)
        quiet = ["-q", "-F", "-m", "0"] if kind == "ext4" else ["-q"]
        subprocess.run(["mkfs." + kind, *quiet, image], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["mount", "-o", options, image, path], check=True)
        if kind == "ext4":
            os.rmdir(path + "/lost+found")
        self.mounts.append(path)
        return path

    def host(self, source, hostname, options="", mount=True, **named):
        host = Host(self, source, hostname, options, **named)
        self.hosts.append(host)
        return host.mount() if mount else host

    def pair(self, source, options=""):
        """Two hosts over one source."""
        both = [self.host(source, name, options, mount=False) for name in ("alpha", "beta")]
        for host in both:
            host.launch()
        return tuple(host.await_mount() for host in both)

    def ctl(self, *words, check=True, **named):
        result = subprocess.run([CTL, *words], capture_output=True, text=True, check=False, **named)
        if check:
            assert result.returncode == 0, "safewritectl %s: %s" % (" ".join(words), result.stderr)
        return result

    def start_ctl(self, *words):
        return subprocess.Popen([CTL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def salvage(self, source, name=None):
        """The salvage entries of a source, those of one name if given."""
        entries = json.loads(self.ctl("salvage", "list", "--json", source).stdout)
        return [entry for entry in entries if name is None or entry["path"] == name]

    def salvaged(self, source, name=None):
        """The bytes of each salvage entry (of one name), restored beside the source."""
        contents = []
        for number, entry in enumerate(self.salvage(source, name)):
            target = os.path.join(self.directory, "restored-%d-%d" % (time.monotonic_ns(), number))
            self.ctl("salvage", "restore", "--to", target, source, entry["entry"])
            with open(target, "rb") as f:
                contents.append(f.read())
        return contents

    def describe(self):
        return "\n".join(host.describe() for host in self.hosts)

    def log_text(self):
        return "".join("---- %s\n%s" % (host.hostname, host.log_text()) for host in self.hosts)

    def kill_everything(self):
        """From the watchdog's thread: frees whoever waits for a daemon."""
        for host in self.hosts:
            for process in list(host.processes):
                process.end()

    def suspicious_lines(self, expected):
        patterns = [re.compile(text) for text in expected]
        return [
            "%s: %s" % (host.hostname, line)
            for host in self.hosts
            for line in host.log_text().splitlines()
            if SUSPICIOUS.search(line) and not any(p.search(line) for p in patterns)
        ]

    def leftovers(self):
        found = []
        for source in self.sources:
            for place in ("hosts", "leases", "locks", "carriers"):
                found += glob.glob("%s/.safewritefs/%s/*" % (source, place))
        return found

    def finish(self, expected_log):
        """Unmounts everything; fails on whatever is not as clean as it should be."""
        problems = []
        for host in self.hosts:
            problems += host.unmount()
        problems += ["in the log: " + line for line in self.suspicious_lines(expected_log)]
        if not self.leftovers_expected:
            problems += ["left over: " + path for path in self.leftovers()]
        assert not problems, "\n".join(problems)

    def destroy(self):
        for host in reversed(self.hosts):
            host.destroy()
        for path in self.mounts:
            if subprocess.run(["umount", path], check=False, stderr=subprocess.DEVNULL).returncode:
                subprocess.run(["umount", "-l", path], check=False)
        left = [line for line in read_text("/proc/self/mountinfo").splitlines() if self.directory in line]
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not left, "mounts left: %r" % left


def errno_name(call, *args):
    """The errno name a local call ends with, or None."""
    try:
        call(*args)
    except OSError as e:
        return errno.errorcode[e.errno]
    return None
