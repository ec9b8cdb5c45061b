# SPDX-License-Identifier: GPL-2.0-or-later
"""C1 over NFS, whose client leaves a gap where it replaces a file that it has open, and whose server forgets a file with
its last name (v3): two machines over one export."""

import json
import os
import sys
import threading
import uuid

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [HERE, os.path.join(os.path.dirname(HERE), "mount")]
import harness  # noqa: E402
import hosts  # noqa: E402

MNT = "/mnt/versions"
SIZE = 20000
OLD = 1 << 20  # so many times "old": more than the kernel reads ahead of a first byte

# Rewrites `f` 100 times, while descriptors of its last five versions are open; each is read whole before it is closed.
REWRITE = """
import json, os, time
held, errors = [], []
for i in range(100):
    held.append((i, os.open("f", os.O_RDONLY)))
    with open("f", "wb") as f:
        f.write(b"%08d" % (i + 1) * (SIZE // 8))
    got = open("f", "rb").read()
    if got != b"%08d" % (i + 1) * (SIZE // 8):
        errors.append("own read of %d: %r, %d bytes" % (i + 1, got[:8], len(got)))
    if len(held) > 5:
        number, fd = held.pop(0)
        try:
            links = [os.fstat(fd).st_nlink]
            while links[-1] != 0 and len(links) < 30:
                time.sleep(0.1)  # attributes may be so old (C2)
                links.append(os.fstat(fd).st_nlink)
            if links[-1] != 0:
                errors.append("%d has %d links" % (number, links[-1]))
            if os.read(fd, 1 << 20) != b"%08d" % number * (SIZE // 8):
                errors.append("held %d is not whole" % number)
        except OSError as e:
            errors.append("held %d: %s" % (number, e))
        os.close(fd)
open("stop", "w").close()
print(json.dumps(errors))
"""

# Opens and reads `f` until there is `stop`.
READ = """
import json, os
seen = {"good": 0, "torn": 0}
while not os.path.exists("stop"):
    try:
        fd = os.open("f", os.O_RDONLY)
        try:
            data = os.read(fd, 1 << 20)
        finally:
            os.close(fd)
        kind = "good" if len(data) == SIZE and data == data[:8] * (SIZE // 8) else "torn"
    except OSError as e:
        kind = os.strerror(e.errno)
    seen[kind] = seen.get(kind, 0) + 1
print(json.dumps(seen))
"""

# On the server: looks for `f` until there is `stop`.
POLL = """
import json, os, time
seen = {"there": 0, "missing": 0}
while not os.path.exists("stop"):
    for _ in range(100):
        seen["there" if os.path.exists("f") else "missing"] += 1
    time.sleep(0.001)
print(json.dumps(seen))
"""

# Opens `f`, says so, and reads it whole when so many seconds have passed.
HOLD = """
import os, time
fd = os.open("f", os.O_RDONLY)
os.read(fd, 1)
open("held", "w").close()
time.sleep(SECONDS)
os.lseek(fd, 0, os.SEEK_SET)
try:
    data = b""
    while piece := os.read(fd, 1 << 20):
        data += piece
    print("whole" if data == b"old" * OLD else "%d bytes" % len(data))
except OSError as e:
    print(e)
"""

WAIT_HELD = "for i in $(seq 200); do [ -e held ] && break; sleep 0.1; done; "


class Pair:
    """Both clients with a mount of one directory of the export."""

    def __init__(self, rig, flavour, options):
        self.machines = [*rig.clients[:2], rig.server]
        self.chosen = hosts.Flavour(flavour)
        name = "%s/%s" % (self.chosen.export, uuid.uuid4().hex[:8])
        rig.server.run("mkdir /disk/{0} && chown {1}:{1} /disk/{0}".format(name, self.chosen.owner), check=True)
        with open(os.path.join(harness.BUILD, "src", "safewritefs"), "rb") as f:
            program = f.read()
        for machine in rig.clients[:2]:
            self.source = "%s/%s" % (machine.nfs(self.chosen.nfs_options, self.chosen.export), os.path.basename(name))
            machine.run("cat > /tmp/sw-daemon && chmod 755 /tmp/sw-daemon && mkdir -p {0} && chown {1}:{1} {0}".format(
                MNT, self.chosen.uid), check=True, given=program)
            machine.run(["/tmp/sw-daemon", "-o", options, self.source, MNT], check=True, uid=self.chosen.uid)
        self.places = [MNT, MNT, "/disk/" + name]

    def python(self, number, code, **values):
        lines = ["%s = %r" % item for item in {"SIZE": SIZE, "OLD": OLD, **values}.items()]
        done = self.machines[number].run(["python3", "-c", "\n".join(lines) + "\n" + code], cwd=self.places[number],
                                         uid=self.chosen.uid, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def sh(self, number, line):
        return self.machines[number].run(line, check=True, cwd=self.places[number], uid=self.chosen.uid, timeout=120).stdout

    def kept(self):
        return self.machines[0].run("ls -A %s/.safewritefs/hosts/*/old/0 | grep -v :" % self.source).stdout.split()

    def end(self):
        for machine in self.machines[:2]:
            machine.run("umount %s" % MNT, check=True)
        for machine in self.machines[:2]:  # it leaves after the mount is gone
            machine.run("for i in $(seq 100); do pidof sw-daemon || break; sleep 0.1; done")
        assert self.machines[0].run("ls -A %s/.safewritefs/hosts" % self.source).stdout == ""


@pytest.fixture(params=hosts.FLAVOURS)
def flavour(request):
    return request.param


@pytest.fixture
def pair(request, rig, flavour):
    # SW_OPTIONS=keep=never shows what keeping is good for.
    options = [getattr(request, "param", "keep-old=60"), os.environ.get("SW_OPTIONS")]
    rig.retire()
    pair = Pair(rig, flavour, ",".join(filter(None, options)))
    yield pair
    pair.end()


def test_rewrites_leave_no_gap(pair):
    """C1: no ENOENT, no ESTALE, whole versions only, though programs of the rewriter's machine have the file open."""
    pair.sh(0, "head -c %d /dev/zero | tr '\\0' 0 > f" % SIZE)
    seen = {}
    readers = [threading.Thread(target=lambda: seen.update(json.loads(pair.python(1, READ)))),
               threading.Thread(target=lambda: seen.update(json.loads(pair.python(2, POLL))))]
    for reader in readers:
        reader.start()
    errors = json.loads(pair.python(0, REWRITE))
    for reader in readers:
        reader.join()
    print("seen:", seen, "errors:", len(errors))
    assert seen.pop("good") > 50 and seen.pop("there") > 1000
    assert seen == {"torn": 0, "missing": 0}
    assert errors == []
    assert ".nfs" not in pair.sh(0, "ls -A")


@pytest.mark.parametrize("call", ["mv g f", "echo new > f", "rm f"])
def test_old_version_is_read_ten_seconds_later(pair, call):
    """C1: who has the old version open on another machine reads all of it 10 s after it was replaced or removed."""
    assert hold_meanwhile(pair, call, 10) == "whole"


KEEPING = [flavour for flavour in hosts.FLAVOURS if "vers=3" in flavour]
if KEEPING:

    @pytest.mark.parametrize("pair", ["keep-old=6"], indirect=True)
    @pytest.mark.parametrize("call", ["mv g f", "rm f"])
    @pytest.mark.parametrize("flavour", KEEPING, indirect=True)
    def test_old_version_is_kept_by_who_reads_it(pair, call):
        """C1: and also after keep-old, by a link of its own machine, which ends with the reader."""
        assert hold_meanwhile(pair, call, 20) == "whole"
        harness.eventually(lambda: pair.kept() == [], timeout=20)


def hold_meanwhile(pair, call, seconds):
    pair.python(0, "open('f', 'wb').write(b'old' * OLD); open('g', 'w').write('new')")
    said = []
    holder = threading.Thread(target=lambda: said.append(pair.python(1, HOLD, SECONDS=seconds)))
    holder.start()
    pair.sh(0, WAIT_HELD + call)
    holder.join()
    return said[0]


APPEND = """
import os, time
fd = os.open('f', os.O_WRONLY | os.O_APPEND)
os.write(fd, b'two\\n')
open('held', 'w').close()
while not os.path.exists('go'):
    time.sleep(0.1)
os.write(fd, LAST)
os.close(fd)
"""


def append_meanwhile(pair, call, last):
    """A record before the call of the other machine, and one after it, by one descriptor."""
    pair.sh(1, "echo one > f")
    appender = threading.Thread(target=lambda: pair.python(1, APPEND, LAST=last))
    appender.start()
    pair.sh(0, WAIT_HELD + call + "; echo go > go")
    appender.join()


REPLACE_DELEGATED = """
import json
errors = []
held = open("f")  # by the daemon, which gets a delegation, and will replace the file while it is open
held.read()
for i in range(3):
    with open("f", "w") as f:
        f.write("new %d" % i)
    try:
        seen = open("f").read()
    except OSError as e:
        seen = str(e)
    if seen != "new %d" % i:
        errors.append("%d: %s" % (i, seen))
print(json.dumps(errors))
"""


def test_replacing_what_the_client_has_a_delegation_of(pair):
    """C2: the server recalls no delegation from the machine that replaces the file; its programs see the new one at once."""
    for i in range(5):
        pair.sh(1, "echo old > f%d" % i)
    for i in range(5):
        assert json.loads(pair.python(0, REPLACE_DELEGATED.replace('"f"', '"f%d"' % i))) == []
        assert pair.sh(1, "cat f%d" % i) == "new 2"


def test_appends_follow_a_replacement(pair):
    """C11: a version that is kept has lost no link; an appender follows to the new one all the same."""
    append_meanwhile(pair, "echo three > g; mv g f", b"four\n")
    assert pair.sh(0, "cat f") == "three\nfour\n"


def test_an_appender_stays_with_a_renamed_file(pair):
    """C11: logrotate: the file was renamed, not replaced."""
    append_meanwhile(pair, "mv f f.1; echo new > f", b"three\n")
    assert (pair.sh(0, "cat f.1"), pair.sh(0, "cat f")) == ("one\ntwo\nthree\n", "new\n")


REUSE = """
import json, os
numbers, wrong, held = [], [], None
for i in range(30):
    name = "n%d" % i
    with open(name, "w") as f:
        f.write("content of " + name)
    numbers.append(os.stat(name).st_ino)
    seen = open(name).read(), os.stat(name).st_size
    if seen != ("content of " + name, len("content of " + name)):
        wrong.append((name, seen))
    if held and os.pread(held[1], 100, 0).decode() != "content of " + held[0]:
        wrong.append((held, "another's content behind it"))
    if held:
        os.close(held[1])
    held = (name, os.open(name, os.O_RDONLY)) if i % 3 == 0 else None
    os.unlink(name)
print(json.dumps([len(numbers) - len(set(numbers)), wrong]))
"""


def test_a_number_that_is_given_again(pair):
    """C1, F10: the server gives the number of a removed file to the next one: that is another file, for both machines."""
    reused, wrong = json.loads(pair.python(0, REUSE))
    assert wrong == []
    assert reused > 5 or "vers=3" in pair.chosen.nfs_options  # there removed files are kept for a while, with their numbers
    for i in range(10):
        pair.sh(0, "rm -f f; echo %d > g%d; mv g%d f" % (i, i, i))
        assert pair.sh(1, "cat f; stat -c %s f").split() == [str(i), "2"]
