# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of the mounted tests that are the rig's machines, over real NFS.

A source has the same path for the machines, where it is NFS, and for the test, which sees through sshfs what the
server's own file system has.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
import machine  # noqa: E402

CLONE_NEWNS = 0x20000  # unshare(2); Python knows it from 3.12 on
# SW_NFS chooses others: the NFS mount options, and words of VmLab.
FLAVOURS = (os.environ.get("SW_NFS") or "vers=4.2;vers=3").split(";")
# Ends whatever a test has left on a machine, kernel threads and what is there from the start excepted.
SWEEP = r"""
echo "$1" >/proc/sys/kernel/hostname; shift
for pid in $(cd /proc; echo [0-9]*); do
    case " $* $$ $PPID " in *" $pid "*) ;; *) [ -e /proc/$pid/exe ] && kill -9 $pid ;; esac
done 2>/dev/null
awk '$3 ~ /fuse/ && $2 !~ /connections/ { print $2 }' /proc/mounts | while read m; do umount -l "$m"; done
true
"""
# Until a mount answers that is not the dead one of a predecessor; 1 after a second.
AWAIT = r"""
for i in $(seq 50); do
    grep -q " $1 " /proc/self/mountinfo && stat -f "$1" >/dev/null && grep -q " $1 " /proc/self/mountinfo && exit 0
    sleep 0.02
done 2>/dev/null
exit 1
"""
STACKS = r"""
for task in /proc/[0-9]*/task/*; do
    [ -e ${task%/task/*}/exe ] || continue
    echo "$(cat $task/comm): $(cut -d' ' -f1-3 $task/syscall) $(sed 's/.*\] //' $task/stack | head -8 | tr '\n' '<')"
done 2>/dev/null
"""


class VmProcess(harness.ReportedProcess):
    """A program on a machine; here runs what passes its standard streams on."""

    def __init__(self, vm, argv, request, **named):
        self.vm = vm
        relay = [sys.executable, "-I", "-S", machine.HERE + "/relay.py", vm.directory, vm.name]
        super().__init__(lambda fd: [*relay, str(fd), repr(request), "--", *argv], **named)

    def end(self, number=9):
        if self.target and self.poll() is None:
            self.vm.run(["kill", "-%d" % number, str(self.target)])

    @property
    def inner_pid(self):
        return self.target


class VmHost(harness.Host):
    def __init__(self, lab, source, hostname, options="", namespaces=True, inside=None):
        self.lab, self.source, self.hostname, self.options = lab, source, hostname, options
        self.vm = inside.vm if inside else lab.next_machine()
        self.scratch = tempfile.mkdtemp(prefix=hostname + "-", dir=lab.directory)
        self.mnt = os.path.join(lab.directory if namespaces and not inside else self.scratch, "mnt")
        self.log = os.path.join(self.scratch, "daemon.log")
        self.logs, self.processes = [self.log], []
        self.daemon = self.init = self._worker = None
        self.gone, self.pid = False, 0
        os.makedirs(self.mnt, exist_ok=True)
        self.vm.run("echo {0} >/proc/sys/kernel/hostname; mkdir -p {1} {2}; chmod 755 {2} {3}; chown {4} {1} {2}".format(
            hostname, self.mnt, self.scratch, lab.directory, lab.uid), check=True)

    def popen(self, command, cwd=None, uid=None, gid=None, groups=None, pid=None, flags=(), **named):
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        env = {"SOURCE": self.source, "MNT": self.mnt, "SCRATCH": self.scratch, "LC_ALL": "C"}
        env.update({k: v for k, v in named.pop("env", {}).items() if os.environ.get(k) != v})
        uid = self.lab.uid if uid is None else int(uid)
        groups = [int(group) for group in str(groups).split(",")] if groups else []
        request = {"cwd": cwd or self.mnt, "uid": uid, "gid": None if gid is None else int(gid), "groups": groups, "env": env}
        if pid is not None or flags:
            self.lab.cannot("chosen pids and namespaces")
        named.setdefault("stdin", subprocess.DEVNULL)
        named.setdefault("start_new_session", True)
        process = VmProcess(self.vm, argv, request, **named)
        self.processes.append(process)
        return process

    def touch(self, path):
        self.vm.run(["touch", path], check=True)

    def is_mounted(self):
        return " %s " % self.mnt in self.vm.run(["cat", "/proc/self/mountinfo"], check=True).stdout

    def await_mount(self):
        """As elsewhere, but the machine itself looks again and again."""
        while self.vm.run(["bash", "-c", AWAIT, "await", self.mnt], timeout=30 * harness.SLOWNESS).returncode:
            assert self.daemon.poll() is None, "the daemon ended:\n" + self.log_text()
        self("None")
        return self

    def daemon_stands_still(self):
        said = self.vm.run("cat /proc/%d/task/*/status" % self.daemon.target).stdout
        states = [line for line in said.splitlines() if line.startswith("State:")]
        return all("\tT" in state for state in states)

    def umount(self, *flags, check=True):
        result = self.vm.run(["umount", *flags, self.mnt])
        assert not check or result.returncode == 0, result.stderr
        return result

    def strays(self):
        return [], "/proc"

    def describe(self):
        try:
            return "%s:\n%s" % (self.hostname, self.vm.run(STACKS, timeout=20).stdout)
        except (OSError, machine.RigError) as e:
            return "%s: %s" % (self.hostname, e)

    describe_daemon = describe

    def destroy(self):
        self.lab.rig.heal(self.vm.name)
        self.vm.thaw()
        for process in self.processes:
            process.kill()
            process.wait()


class Flavour:
    """NFS mount options, and of ours `squash` (the export that maps root to nobody) and `user` (the mount is an ordinary
    user's, and so are the programs)."""

    def __init__(self, text):
        words = text.split(",")
        self.uid = 1000 if "user" in words else 0
        self.export = "squash" if "squash" in words else "free"
        self.owner = self.uid or (65534 if self.export == "squash" else 0)
        self.nfs_options = ",".join(word for word in words if word not in ("squash", "user"))


class VmLab(harness.Lab):

    daemon, ctl_program = "/sw/safewritefs", "/sw/safewritectl"
    is_emulated = True

    def __init__(self, helpers, directory, rig, flavour):
        super().__init__(helpers, directory)
        self.rig, self.flavour = rig, flavour
        chosen = Flavour(flavour)
        self.uid, self.export, self.owner, self.nfs_options = chosen.uid, chosen.export, chosen.owner, chosen.nfs_options
        self.used = 0

    @staticmethod
    def cannot(what):
        import pytest

        pytest.skip("needs %s, which virtual machines do not offer to a test" % what)

    def helper(self, name):
        return "/sw/tests/mount/worker.py" if name == "worker.py" else "/sw/" + name

    def next_machine(self):
        if self.used == len(self.rig.clients):
            self.cannot("more than %d hosts" % self.used)
        self.used += 1
        return self.rig.clients[self.used - 1]

    def source(self, name="source"):
        for client in self.rig.clients:
            place = client.nfs(self.nfs_options, self.export)
        path = "%s/%s-%s" % (place, os.path.basename(self.directory), name)
        inside = "/disk/%s/%s" % (self.export, os.path.basename(path))
        self.rig.server.run("mkdir {0} && chmod 755 {0} && chown {1}:{1} {0}".format(inside, self.owner), check=True)
        self.rig.look_at(self.export, place)
        self.sources.append(path)
        return path

    def loop_source(self, kind, size, options="loop"):
        self.cannot("a file system of its own under the source")

    def host(self, source, hostname, options="", mount=True, **named):
        host = VmHost(self, source, hostname, options, **named)
        self.hosts.append(host)
        return host.mount() if mount else host

    def ctl(self, *words, check=True, **named):
        vm = self.hosts[0].vm if self.hosts else self.rig.clients[0]
        result = vm.run([self.ctl_program, *words], cwd=named.get("cwd", "/"))
        assert not check or result.returncode == 0, "safewritectl %s: %s" % (" ".join(words), result.stderr)
        return result

    def salvaged(self, source, name=None):
        vm, contents = self.hosts[0].vm, []
        for entry in self.salvage(source, name):
            target = "/tmp/restored-%d" % time.monotonic_ns()
            self.ctl("salvage", "restore", "--to", target, source, entry["entry"])
            contents.append(vm.run(["cat", target], check=True, text=False).stdout)
        return contents

    def suspicious_lines(self, expected):
        """A user's daemon has no second mount, and says so once (docs/nfs.md)."""
        return super().suspicious_lines([*expected, "cannot mount .* a second time"] if self.uid else expected)

    def leftovers(self):
        places = " ".join("/disk/%s/%s/.safewritefs/%s/*" % (self.export, os.path.basename(path), place)
                          for path in self.sources for place in ("hosts", "leases", "locks", "carriers"))
        return self.rig.server.run("find %s 2>/dev/null" % places).stdout.split() if places else []

    def destroy(self):
        for host in reversed(self.hosts):
            host.destroy()
        for client in self.rig.clients:
            client.run(["bash", "-c", SWEEP, "sweep", client.name, *self.rig.known[client.name]])
        inside = ["/disk/%s/%s" % (self.export, os.path.basename(path)) for path in self.sources]
        if inside:
            self.rig.server.run(["rm", "-rf", *inside], check=True)
        subprocess.run(["rm", "-rf", self.directory], check=False)


class StandingLab(VmLab):
    """A lab whose hosts stay mounted from test to test, while nothing is wrong with them: to mount and unmount two
    machines takes three times as long as most tests.  Its source is empty when a test begins."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = {}  # host: how much of its log belongs to former tests
        self.is_plain = True  # just a pair of plain hosts
        self.is_sound = True  # its last test has ended well

    def host(self, source, hostname, options="", mount=True, **named):
        """What is not just a pair of plain hosts does not stay."""
        self.is_plain = self.is_plain and len(self.hosts) < 2 and not options and not named
        return super().host(source, hostname, options, mount, **named)

    def source(self, name="source"):
        return self.sources[0] if self.sources and name == "source" else super().source(name)

    def pair(self, source, options=""):
        return tuple(self.hosts[:2]) if self.hosts else super().pair(source, options)

    def suspicious_lines(self, expected):
        whole, self.hosts = self.hosts, [Since(host, self.seen.get(host, 0)) for host in self.hosts]
        try:
            return super().suspicious_lines(expected)
        finally:
            self.hosts = whole

    def finish(self, expected_log):
        """After a test: only what it has left is looked at and removed."""
        if not self.is_plain or len(self.sources) != 1 or any(host.gone for host in self.hosts):
            super().finish(expected_log)
            return
        for host in self.hosts:
            host.end_processes()
            assert host.daemon.poll() is None, "%s: the daemon died (status %d)" % (host.hostname, host.daemon.returncode)
        problems = ["in the log: " + line for line in self.suspicious_lines(expected_log)]
        inside = "/disk/%s/%s/.safewritefs" % (self.export, os.path.basename(self.sources[0]))
        locks = "ls %s/locks" % inside
        if not harness.eventually(lambda: self.rig.server.run(locks).stdout == "", 5):
            problems.append("left over: " + self.rig.server.run(locks).stdout)
        assert not problems, "\n".join(problems)
        self.hosts[0].vm.run("find %s -mindepth 1 -delete" % self.hosts[0].mnt, check=True, uid=self.uid)
        self.rig.server.run("rm -rf %s/salvage/*" % inside, check=True)
        for host in self.hosts:
            self.seen[host] = len(host.log_text())
        self.is_sound = True

    def retire(self):
        """The end of its last test; says what that left undone."""
        try:
            super().finish([])
        finally:
            self.destroy()


class Since:
    """A host, with its log from some place on."""

    def __init__(self, host, place):
        self.hostname, self.log_text = host.hostname, lambda: host.log_text()[place:]


def see_alone(place):
    """From now on this process and its children have an empty directory there.  What a killed run has left at the place is
    nothing to stumble over, and two runs may each have a view at one path."""
    os.makedirs(place, exist_ok=True)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace of our own")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "views", place], check=True)


class TestRig(machine.Rig):
    """A rig with what the tests need of it besides."""

    __test__ = False

    def __init__(self, directory):
        super().__init__(directory)
        see_alone("/nfs")
        self.views = []
        self.standing = None
        for client in self.clients:
            client.run("chmod 755 /nfs; true")
        self.known = {client.name: client.run("cd /proc; echo [0-9]*").stdout.split() for client in self.clients}

    def lab(self, helpers, directory, flavour):
        self.retire()
        return VmLab(helpers, directory, self, flavour)

    def standing_lab(self, helpers, flavour):
        if not self.standing or not self.standing.is_sound or self.standing.flavour != flavour:
            self.retire()
            self.standing = StandingLab(helpers, harness.lab_directory(), self, flavour)
        self.standing.is_sound = False
        return self.standing

    def retire(self):
        """The machines are to be nobody's."""
        standing, self.standing = self.standing, None
        if standing and standing.is_sound:
            standing.retire()
        elif standing:
            standing.destroy()

    def look_at(self, export, place):
        """The server's own view of an export, at the path that the clients have it at, for this process alone."""
        if place in self.views:
            return
        os.makedirs(place, exist_ok=True)
        command = "%s -I -S %s/relay.py %s server 1 {} -- /usr/lib/openssh/sftp-server #" % (sys.executable, machine.HERE,
                                                                                       self.directory)
        script = "%s/sftp" % self.directory
        with open(script, "w", encoding="ascii") as f:
            f.write("#!/bin/bash\nexec 9>/dev/null\n" + command.replace(" 1 {}", " 9 {}") + "\n")
        os.chmod(script, 0o755)
        subprocess.run(["sshfs", "-o", "ssh_command=%s,cache=no,entry_timeout=0,attr_timeout=0,negative_timeout=0" % script,
                        "-o", "allow_other,reconnect", "server:/disk/" + export, place], check=True)
        self.views.append(place)

    def leave(self):
        for place in self.views:
            subprocess.run(["umount", "-l", place], check=False)

    def end(self):
        self.leave()
        super().end()


def session():
    """The rig at SW_RIG if there is one, which then stays; else one of our own."""
    base = os.environ.get("SW_RIG_BASE", "/tmp/sw-rig")
    directory = os.environ.get("SW_RIG") or "%s/test-%d" % (base, os.getpid())
    if not os.path.exists(directory):
        os.makedirs(base, exist_ok=True)
        machine.start(directory, base, harness.BUILD, kernel=os.environ.get("SW_KERNEL"),
                      service=os.environ.get("SW_SERVICE"))
    rig = TestRig(directory)
    if os.environ.get("SW_RIG"):
        rig.end = rig.leave
    return rig


def measure_each(measure):
    """What the tools beside us do: each flavour that the command line names, v4.2 and v3 if none."""
    rig = session()
    try:
        for words in sys.argv[1:] or ["vers=4.2", "vers=3"]:
            measure(rig, words)
    finally:
        rig.end()
