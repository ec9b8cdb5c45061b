# SPDX-License-Identifier: GPL-2.0-or-later
"""The network between the machines of a rig: a process that passes Ethernet frames on, or does not.

Each machine's QEMU connects to one UNIX stream socket, `DIRECTORY/lan-NAME`, over which frames go with a length of four
bytes before them.  `DIRECTORY/switch` takes a line of JSON per request and answers with one:

    {"do": "link", "name": "client1", "up": false}            a partition
    {"do": "link", "name": "client1", "up": false, "ways": ["out"]}    what it sends gets through, what it is sent does not
    {"do": "delay", "name": "client1", "ms": 10}              each way
    {"do": "loss", "name": "client1", "percent": 5, "seed": 1}
    {"do": "cut", "name": "client1", "operation": "RENAME", "when": "call"}
        from the first such NFS call of that client on, itself included, its link is down; with "reply" the call gets
        through and its answer does not.  "skip": so many are let through before
    {"do": "state", "name": "client1"}                        {"up": ..., "cut": null or what has cut it}
    {"do": "count"}                                           calls seen per client and operation

Calls are recognised in the TCP stream to port 2049 where they begin with a segment, which a call does that is no large
write: RFC 5531 (record mark, call header), RFC 1813 (v3 procedures), RFC 8881 (v4 compounds).
"""

import collections
import heapq
import json
import os
import random
import selectors
import socket
import struct
import sys
import time

V3 = """NULL GETATTR SETATTR LOOKUP ACCESS READLINK READ WRITE CREATE MKDIR SYMLINK MKNOD REMOVE RMDIR RENAME LINK READDIR
READDIRPLUS FSSTAT FSINFO PATHCONF COMMIT""".split()
V4 = {3: "ACCESS", 4: "CLOSE", 5: "COMMIT", 6: "CREATE", 7: "DELEGPURGE", 8: "DELEGRETURN", 9: "GETATTR", 10: "GETFH",
      11: "LINK", 12: "LOCK", 13: "LOCKT", 14: "LOCKU", 15: "LOOKUP", 16: "LOOKUPP", 17: "NVERIFY", 18: "OPEN",
      20: "OPEN_CONFIRM", 21: "OPEN_DOWNGRADE", 22: "PUTFH", 23: "PUTPUBFH", 24: "PUTROOTFH", 25: "READ", 26: "READDIR",
      27: "READLINK", 28: "REMOVE", 29: "RENAME", 30: "RENEW", 31: "RESTOREFH", 32: "SAVEFH", 33: "SECINFO",
      34: "SETATTR", 35: "SETCLIENTID", 36: "SETCLIENTID_CONFIRM", 37: "VERIFY", 38: "WRITE", 42: "EXCHANGE_ID",
      43: "CREATE_SESSION", 44: "DESTROY_SESSION", 45: "FREE_STATEID", 53: "SEQUENCE", 55: "TEST_STATEID",
      57: "DESTROY_CLIENTID", 58: "RECLAIM_COMPLETE", 59: "ALLOCATE", 60: "COPY", 61: "COPY_NOTIFY", 62: "DEALLOCATE",
      69: "SEEK", 71: "CLONE", 72: "GETXATTR", 73: "SETXATTR", 74: "LISTXATTRS", 75: "REMOVEXATTR"}
PREPARING = {"SEQUENCE", "PUTFH", "PUTROOTFH", "SAVEFH", "RESTOREFH", "GETATTR"}
NFS_PORT = 2049


def opaque_end(data, at):
    (size,) = struct.unpack_from(">I", data, at)
    return at + 4 + (size + 3) // 4 * 4


def v4_operation(data, at):
    """What a compound does, in one word: its first operation that does not only prepare the others."""
    at = opaque_end(data, at) + 4  # the tag, and the minor version
    (count,) = struct.unpack_from(">I", data, at)
    at += 4
    name = "NULL"
    for _ in range(count):
        (number,) = struct.unpack_from(">I", data, at)
        at += 4
        name = V4.get(number, "OP%d" % number)
        if name not in PREPARING:
            return name
        if name == "SEQUENCE":
            at += 32
        elif name == "PUTFH":
            at = opaque_end(data, at)
        elif name == "GETATTR":
            (words,) = struct.unpack_from(">I", data, at)
            at += 4 + 4 * words
    return name


def tcp_of(frame):
    """(source port, destination port, payload) of an IPv4 TCP frame, or None."""
    if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return None
    ip = 14 + (frame[14] & 15) * 4
    total = struct.unpack_from(">H", frame, 16)[0]
    source, target = struct.unpack_from(">HH", frame, ip)
    return source, target, frame[ip + (frame[ip + 12] >> 4) * 4 : 14 + total]


def call_of(frame):
    """(operation, xid) of an NFS call that begins in this frame, or None."""
    tcp = tcp_of(frame)
    if not tcp or tcp[1] != NFS_PORT or len(tcp[2]) < 32:
        return None
    data = tcp[2]
    try:
        _, xid, kind, _, program, version, procedure = struct.unpack_from(">7I", data)
        if kind != 0 or program != 100003:
            return None
        if version == 3:
            return (V3[procedure] if procedure < len(V3) else "PROC%d" % procedure), xid
        at = opaque_end(data, opaque_end(data, 32) + 4)  # credentials, verifier
        return ("NULL" if procedure == 0 else v4_operation(data, at)), xid
    except (struct.error, IndexError):
        return None


class Port:
    """One machine's end of the network."""

    def __init__(self, name):
        self.name = name
        self.socket = None
        self.received = b""
        self.unsent = b""
        self.down = set()  # "in" from the machine, "out" to it
        self.delay = 0.0
        self.loss = 0.0
        self.random = random.Random(0)
        self.rule = None
        self.cut = None
        self.seen = collections.Counter()
        self.last_xid = None

    def frames(self, data):
        self.received += data
        while len(self.received) >= 4:
            (size,) = struct.unpack_from(">I", self.received)
            if len(self.received) < 4 + size:
                return
            frame, self.received = self.received[4 : 4 + size], self.received[4 + size :]
            yield frame

    def watch(self, frame):
        """Counts a call of the machine, and cuts its link where it was told to.  True: the frame is to be dropped."""
        call = call_of(frame)
        if not call or call[1] == self.last_xid:
            return False
        operation, self.last_xid = call
        self.seen[operation] += 1
        rule = self.rule
        if not rule or rule["operation"] != operation:
            return False
        if rule.get("skip", 0) > 0:
            rule["skip"] -= 1
            return False
        self.rule, self.cut = None, operation
        self.down = {"in", "out"}
        return rule["when"] == "call"


class Switch:
    LIMIT = 4 << 20  # bytes that a machine which does not read keeps waiting

    def __init__(self, directory, names):
        self.directory = directory
        self.ports = {name: Port(name) for name in names}
        self.selector = selectors.DefaultSelector()
        self.late = []  # (when, number, port, frame)
        self.number = 0
        self.macs = {}
        for name in names:
            self.listen("lan-" + name, self.accept_machine, self.ports[name])
        self.listen("switch", self.accept_control, None)

    def listen(self, name, accept, data):
        path = os.path.join(self.directory, name)
        if os.path.exists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(8)
        self.selector.register(listener, selectors.EVENT_READ, (accept, data))

    def accept_machine(self, listener, port, _):
        if port.socket:
            self.drop_machine(port)
        port.socket = listener.accept()[0]
        port.socket.setblocking(False)
        port.received = port.unsent = b""
        self.selector.register(port.socket, selectors.EVENT_READ, (self.machine, port))

    def drop_machine(self, port):
        self.selector.unregister(port.socket)
        port.socket.close()
        port.socket = None

    def accept_control(self, listener, _, __):
        connection = listener.accept()[0]
        connection.settimeout(10)
        with connection, connection.makefile("rw") as file:
            line = file.readline()
            if line:
                file.write(json.dumps(self.control(json.loads(line))) + "\n")

    def control(self, said):
        port = self.ports.get(said.get("name"))
        if said["do"] == "count":
            return {name: dict(port.seen) for name, port in self.ports.items()}
        if not port:
            return {"error": "there is no %s" % said.get("name")}
        if said["do"] == "link":
            port.cut = port.rule = None
            port.down = set() if said["up"] else set(said.get("ways", ["in", "out"]))
        elif said["do"] == "delay":
            port.delay = said["ms"] / 1000
        elif said["do"] == "loss":
            port.loss, port.random = said["percent"] / 100, random.Random(said.get("seed", 0))
        elif said["do"] == "cut":
            port.rule = dict(said)
        elif said["do"] != "state":
            return {"error": "what is %s?" % said["do"]}
        return {"up": not port.down, "cut": port.cut}

    def machine(self, _, port, mask):
        if mask & selectors.EVENT_WRITE:
            self.flush(port)
        if not mask & selectors.EVENT_READ or not port.socket:
            return
        try:
            data = port.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop_machine(port)
            return
        for frame in port.frames(data):
            self.route(port, frame)

    def route(self, source, frame):
        self.macs[frame[6:12]] = source
        if "in" in source.down or source.watch(frame):
            return
        target = self.macs.get(frame[:6])
        for port in [target] if target else self.ports.values():
            if port is not source:
                self.pass_on(source, port, frame)

    def pass_on(self, source, port, frame):
        if "out" in port.down or any(p.loss and p.random.random() < p.loss for p in (source, port)):
            return
        delay = source.delay + port.delay
        if delay:
            self.number += 1
            heapq.heappush(self.late, (time.monotonic() + delay, self.number, port, frame))
        else:
            self.send(port, frame)

    def send(self, port, frame):
        if not port.socket or len(port.unsent) > self.LIMIT or "out" in port.down:
            return
        port.unsent += struct.pack(">I", len(frame)) + frame
        self.flush(port)

    def flush(self, port):
        if not port.socket:
            return
        try:
            port.unsent = port.unsent[port.socket.send(port.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.drop_machine(port)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.unsent else 0)
        self.selector.modify(port.socket, wanted, (self.machine, port))

    def run(self):
        while True:
            wait = max(0, self.late[0][0] - time.monotonic()) if self.late else None
            for key, mask in self.selector.select(wait):
                handler, data = key.data
                handler(key.fileobj, data, mask)
            while self.late and self.late[0][0] <= time.monotonic():
                _, _, port, frame = heapq.heappop(self.late)
                self.send(port, frame)


if __name__ == "__main__":
    Switch(sys.argv[1], sys.argv[2:]).run()
