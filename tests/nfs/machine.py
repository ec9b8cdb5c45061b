# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines of a rig: QEMU processes that can be talked to, frozen, cut off and switched off.

A rig lives in a directory: sockets, disks, consoles and pids of its machines are there, so that any process can use a
rig that another has started.  `Rig.open(directory)` does.
"""

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import image

HERE = os.path.dirname(os.path.abspath(__file__))
BOOT_SECONDS = 120
AGENT_SECONDS = 30
# What serves, and where its exports are for v3.
SERVICES = {"knfsd": "/export", "ganesha": "/disk"}


class RigError(Exception):
    pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def send_frame(connection, letter, data=b""):
    connection.sendall(letter + struct.pack(">I", len(data)) + data)


class Frames:
    """What an agent sends."""

    def __init__(self, connection):
        self.connection = connection
        self.have = b""

    def _need(self, size):
        while len(self.have) < size:
            piece = self.connection.recv(1 << 16)
            if not piece:
                return False
            self.have += piece
        return True

    def __iter__(self):
        while self._need(5):
            size = struct.unpack(">I", self.have[1:5])[0]
            if not self._need(5 + size):
                return
            letter, data, self.have = self.have[:1], self.have[5 : 5 + size], self.have[5 + size :]
            yield letter, data


class Machine:
    def __init__(self, directory, name):
        self.directory = directory
        self.name = name
        with open(self.path("json"), encoding="ascii") as f:
            self.said = json.load(f)

    def path(self, what):
        return "%s/%s.%s" % (self.directory, self.name, what)

    # ---- the process

    @property
    def pid(self):
        try:
            with open(self.path("pid"), encoding="ascii") as f:
                pid = int(f.read())
            os.kill(pid, 0)
            return pid
        except (OSError, ValueError):
            return 0

    def start(self):
        """Switches it on; does not wait until it is up."""
        said = self.said
        kernel, initramfs = said["kernel"]
        words = ["console=ttyS0 quiet panic=-1 rig.name=%s rig.address=%s rig.role=%s rig.service=%s rig.lease=%d" % (
            self.name, said["address"], said["role"], said["service"], said["lease"]), *said.get("words", ())]
        # What a machine has written is in this kernel's cache, and outlives its QEMU: nobody need wait for a real disk.
        drive = "if=virtio,format=raw,cache=unsafe,file=%s%s"
        disks = [drive % (said["root"], ",readonly=on")] + [drive % (path, "") for path in said["disks"]]
        command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,cx16=off", "-m", str(said["memory"]), "-smp", "1",
                   "-nographic", "-kernel", kernel, "-initrd", initramfs, "-append", " ".join(words),
                   "-rtc", "base=" + said["clock"], "-serial", "file:" + self.path("console"), "-monitor", "none",
                   "-qmp", "unix:%s,server=on,wait=off" % self.path("qmp"), "-pidfile", self.path("pid"),
                   "-netdev", "stream,id=lan,server=off,addr.type=unix,addr.path=%s/lan-%s" % (self.directory, self.name),
                   "-device", "virtio-net-pci,netdev=lan,mac=52:54:00:77:00:%02x" % int(said["address"].split(".")[-1]),
                   "-netdev", "user,id=out,restrict=on,hostfwd=tcp:127.0.0.1:%d-:7" % said["port"],
                   "-device", "virtio-net-pci,netdev=out,mac=52:54:00:78:00:%02x" % int(said["address"].split(".")[-1])]
        if not said.get("reboots"):
            command += ["-no-reboot"]
        for text in disks:
            command += ["-drive", text]
        with open(self.path("qemu"), "ab") as log:
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait(self, seconds=BOOT_SECONDS):
        """Until it is up: its agent answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.run(["true"], timeout=seconds).returncode == 0:
                    return self
            except (OSError, RigError):
                pass
            if time.monotonic() > deadline:
                raise RigError("%s does not come up:\n%s" % (self.name, self.console()[-2000:]))
            time.sleep(0.2)

    def console(self):
        try:
            with open(self.path("console"), encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def power_off(self):
        """As if its cable were pulled: nothing is written back, nobody is told."""
        pid = self.pid
        if pid:
            os.kill(pid, signal.SIGKILL)
            while self.pid:
                with contextlib.suppress(ChildProcessError):  # if it is ours to be reaped
                    os.waitpid(pid, os.WNOHANG)
                time.sleep(0.01)

    def power_on(self):
        self.start()
        return self.wait()

    def qmp(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(self.path("qmp"))
            file = connection.makefile("rw")
            file.readline()
            for line in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                file.write(json.dumps(line) + "\n")
                file.flush()
                answer = {}
                while not answer.keys() & {"return", "error"}:
                    answer = json.loads(file.readline())
                if "error" in answer:
                    raise RigError("%s: %s" % (command, answer["error"]))
            return answer["return"]

    def freeze(self):
        """The whole machine stands still, its clocks as well; what is sent to it waits."""
        self.qmp("stop")

    def thaw(self):
        self.qmp("cont")

    # ---- commands

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.said["port"]), timeout=AGENT_SECONDS)

    @staticmethod
    def request(argv, cwd="/", uid=0, gid=None, groups=(), env=None):
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root", **(env or {})}
        words = [cwd, str(uid), str(uid if gid is None else gid), ",".join(map(str, groups)), str(len(variables))]
        words += ["%s=%s" % item for item in variables.items()] + list(argv)
        return b"".join(os.fsencode(word) + b"\0" for word in words)

    def run(self, command, check=False, timeout=60, given=b"", text=True, **named):
        """Runs argv or a bash line to its end: a CompletedProcess."""
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        said = {b"1": b"", b"2": b""}
        status = None
        with self.connect() as connection:
            connection.settimeout(timeout)
            send_frame(connection, b"R", self.request(argv, **named))
            if given:
                send_frame(connection, b"0", given)
            send_frame(connection, b"0")
            for letter, data in Frames(connection):
                if letter in said:
                    said[letter] += data
                elif letter == b"X":
                    status = os.waitstatus_to_exitcode(int(data))
        if status is None:
            raise RigError("%s: %r was not run to its end" % (self.name, command))
        out, err = (said[b].decode(errors="replace") if text else said[b] for b in (b"1", b"2"))
        if check and status:
            raise RigError("%s: %r: status %d\n%s%s" % (self.name, command, status, out, err))
        return subprocess.CompletedProcess(command, status, out, err)

    def nfs(self, options="vers=4.2", export="free"):
        """Mounts that export, if it is not mounted so yet: where."""
        place = "/nfs/%s-%s" % (export, re.sub(r"[^A-Za-z0-9.]+", "-", options))
        root = SERVICES[self.said["service"]] if re.search(r"vers=3|nfsvers=3", options) else ""
        self.run("mountpoint -q {0} || {{ mkdir -p {0} && mount -t nfs -o {1} server:{3}/{2} {0}; }}".format(
            place, options, export, root), check=True, timeout=60)
        return place

    def rpcs(self, mountpoint="/nfs"):
        """RPCs so far of all NFS mounts at and below a place: {operation: calls}, from /proc/self/mountstats."""
        counts, here = {}, False
        for line in self.run(["cat", "/proc/self/mountstats"], check=True).stdout.splitlines():
            words = line.split()
            if line.startswith("device "):
                here = words[4].startswith(mountpoint)
            elif here and len(words) >= 9 and re.match(r"^[A-Z_0-9]+:$", words[0]):
                counts[words[0][:-1]] = counts.get(words[0][:-1], 0) + int(words[1])
        return {name: n for name, n in counts.items() if n}


def relay(machine, argv, stdin=0, report=None, **named):
    """Runs a command with this process's own standard streams, until it ends: its exit status, as a shell has it.  Its
    pid is written to the descriptor `report`, which is then closed."""
    status = 255
    with machine.connect() as connection:
        connection.settimeout(None)
        send_frame(connection, b"R", machine.request(argv, **named))

        def feed():
            try:
                while True:
                    data = os.read(stdin, 1 << 16)
                    send_frame(connection, b"0", data)
                    if not data:
                        return
            except OSError:
                pass

        threading.Thread(target=feed, daemon=True).start()
        for letter, data in Frames(connection):
            if letter == b"P" and report is not None:
                os.write(report, data + b"\n")
                os.close(report)
            elif letter in (b"1", b"2"):
                while data:
                    data = data[os.write(int(letter), data) :]
            elif letter == b"X":
                code = os.waitstatus_to_exitcode(int(data))
                status = 128 - code if code < 0 else code
    return status


class Rig:
    def __init__(self, directory):
        self.directory = directory
        names = [os.path.basename(path)[:-5] for path in glob.glob(directory + "/*.json")]
        self.machines = {name: Machine(directory, name) for name in sorted(names, key=lambda n: (n != "server", n))}

    @property
    def server(self):
        return self.machines["server"]

    @property
    def clients(self):
        return [machine for name, machine in self.machines.items() if name != "server"]

    def __getitem__(self, name):
        if name not in self.machines:
            raise RigError("there is no %s in %s" % (name, self.directory))
        return self.machines[name]

    def switch(self, **said):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(self.directory + "/switch")
            file = connection.makefile("rw")
            file.write(json.dumps(said) + "\n")
            file.flush()
            answer = json.loads(file.readline())
        if "error" in answer:
            raise RigError(answer["error"])
        return answer

    def cut(self, name):
        self.switch(do="link", name=name, up=False)

    def heal(self, name):
        self.switch(do="link", name=name, up=True)

    def cut_at(self, name, operation, when="call", skip=0):
        """The link of that client goes down with its first such NFS call, or before the answer to it gets through."""
        self.switch(do="cut", name=name, operation=operation, when=when, skip=skip)

    def is_cut(self, name):
        return self.switch(do="state", name=name)["cut"] is not None

    def restart_nfs(self):
        """The service is stopped and started, as for an upgrade; clients reclaim what they had."""
        again = {"knfsd": "rpc.nfsd 0; sleep 0.5; rpc.nfsd --lease-time {0} --grace-time {0} 8",
                 "ganesha": "pkill ganesha.nfsd; while pidof ganesha.nfsd; do sleep 0.1; done; "
                            "ganesha.nfsd -L /tmp/ganesha.log -p /run/ganesha.pid"}
        self.server.run(again[self.server.said["service"]].format(self.server.said["lease"]), check=True)

    def end(self):
        """Everything goes, also what crashed half-way."""
        for machine in self.machines.values():
            machine.power_off()
        try:
            with open(self.directory + "/switch.pid", encoding="ascii") as f:
                os.kill(int(f.read()), signal.SIGKILL)
        except (OSError, ValueError):
            pass
        shutil.rmtree(self.directory, ignore_errors=True)


def make_disk(path, megabytes):
    with open(path, "wb") as f:
        f.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)


def payload(build, directory):
    """What is tested, as a disk for the clients: the programs and the tests' helpers."""
    tree = directory + "/payload"
    os.makedirs(tree)
    for path in ("src/safewritefs", "src/ctl/safewritectl"):
        shutil.copy(os.path.join(build, path), tree)
    for path in glob.glob(build + "/tests/mount/*") + glob.glob(build + "/tests/history/*"):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            shutil.copy(path, tree)
    shutil.copytree(os.path.dirname(HERE), tree + "/tests", ignore=shutil.ignore_patterns("__pycache__"))
    image.disk(tree, directory + "/payload.ext4", 8)
    shutil.rmtree(tree)


def start_switch(directory, names):
    """The network of these machines."""
    with open(directory + "/switch.log", "wb") as log:
        switch = subprocess.Popen([sys.executable, HERE + "/switch.py", directory, *names], stdout=log, stderr=log,
                                  start_new_session=True)
    with open(directory + "/switch.pid", "w", encoding="ascii") as f:
        f.write(str(switch.pid))
    while not os.path.exists(directory + "/switch"):
        time.sleep(0.01)


def describe(directory, number, name, **said):
    """Writes down what a machine is: `said` has kernel, root, disks, lease, service, clock; further `words` for the
    kernel's command line, and `reboots` if a reboot is not to end it."""
    said = {"address": "10.77.0.%d" % (number + 1), "role": "client" if number else "server", "port": free_port(), "memory": 768,
            **said}
    with open("%s/%s.json" % (directory, name), "w", encoding="ascii") as f:
        json.dump(said, f)


def start(directory, base, build, clients=2, kernel=None, lease=20, clocks=(), service=None, say=print):
    """A rig that is up: a server and so many clients.  `lease` is NFSv4's, in seconds; `clocks` are dates that the
    clients' clocks begin with; `service` is one of SERVICES."""
    service = service or "knfsd"
    if service not in SERVICES:
        raise RigError("no NFS server %s here, but %s" % (service, " and ".join(SERVICES)))
    made = image.prepare(base, say)
    os.makedirs(directory)
    names = ["server"] + ["client%d" % (i + 1) for i in range(clients)]
    start_switch(directory, names)
    make_disk(directory + "/export.ext4", 2048)
    payload(build, directory)
    for number, name in enumerate(names):
        server = name == "server"
        disks = [directory + "/payload.ext4" + ",readonly=on"] + ([directory + "/export.ext4"] if server else [])
        describe(directory, number, name, lease=lease, service=service, kernel=made.kernel(directory, kernel), root=made.root,
                 disks=disks, clock=clocks[number - 1] if 0 < number <= len(clocks) else "utc")
    rig = Rig(directory)
    for machine in rig.machines.values():
        machine.start()
    for machine in rig.machines.values():
        machine.wait()
    return rig
