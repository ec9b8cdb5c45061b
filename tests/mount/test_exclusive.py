# SPDX-License-Identifier: GPL-2.0-or-later
"""O_EXCL (C12): one winner in the whole cluster, decided at open."""

import os

from harness import eventually

CLAIM = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def test_one_winner(lab, source):
    """C12: 12 racers on 3 hosts, 25 names: exactly one wins each, and its bytes are what is there."""
    hosts = [lab.host(source, name) for name in ("alpha", "beta", "gamma")]
    workers = [host.worker() for host in hosts for _ in range(4)]
    race = """
won = []
for i in range(25):
    try:
        fd = os.open('e%d' % i, flags, 0o644)
    except FileExistsError:
        continue
    os.write(fd, b'%d' % me)
    os.close(fd)
    won.append(i)
result = won
"""
    for number, worker in enumerate(workers):
        worker.start(race, flags=CLAIM, me=number)
    won = [worker.finish() for worker in workers]
    assert sorted(name for names in won for name in names) == list(range(25))
    for number, names in enumerate(won):
        for name in names:
            assert hosts[0].read("e%d" % name) == b"%d" % number


def test_decided_at_open(hosts):
    """C12: from the moment of the open every later O_EXCL gets EEXIST, on both hosts."""
    a, b = hosts
    winner = a.worker()
    winner("fd = os.open('e', flags, 0o644)", flags=CLAIM)
    for host in hosts:
        assert host.error("os.open", "e", CLAIM) == "EEXIST"
    winner("os.write(fd, b'mine')")
    assert b.error("os.open", "e", CLAIM) == "EEXIST"
    winner("os.close(fd)")
    assert b.error("os.open", "e", CLAIM) == "EEXIST"
    assert b.read("e") == b"mine"


def test_claim_is_no_file(hosts):
    """C12, C9: until the commit readers see no file, on both hosts, by open, stat and listing."""
    a, b = hosts
    winner = a.worker()
    winner("fd = os.open('e', flags, 0o644); os.write(fd, b'mine')", flags=CLAIM)
    for host in hosts:
        assert host.error("os.open", "e", os.O_RDONLY) == "ENOENT"
        assert host.error("os.lstat", "e") == "ENOENT"
        assert host.error("os.readlink", "e") == "ENOENT"
        assert host.list() == []
    assert winner("get('e'), os.listdir('.'), os.stat('e').st_size") == (b"mine", ["e"], 4)
    winner("os.close(fd)")
    assert b.list() == ["e"]


def test_readers_during_many_claims(hosts):
    """C12, C1: a reader never meets an empty or half file of an exclusive creator."""
    a, b = hosts
    data = b"whole" * 10_000
    readers = [a.reader("e", [data]), b.reader("e", [data])]
    writer = a.worker()
    for _ in range(30):
        writer("put('e', data, flags=flags, piece=9000); os.unlink('e')", data=data, flags=CLAIM)
    for reader in readers:
        assert reader.stop().get("absent")


def test_dead_winner(hosts):
    """C12: killed before its commit: the claim goes with it, on both hosts, at once."""
    a, b = hosts
    for host in hosts:
        winner = a.worker()
        winner("fd = os.open('e', flags, 0o644); os.write(fd, b'never')", flags=CLAIM)
        assert b.error("os.open", "e", CLAIM) == "EEXIST"
        winner.kill()
        assert not host.exists("e")
        host("put('e', b'next', flags=flags); os.unlink('e')", flags=CLAIM)
    assert a.list() == b.list() == []


def test_dead_winner_without_a_byte(hosts):
    """C12: killed with nothing written."""
    a, b = hosts
    winner = a.worker()
    winner("fd = os.open('e', flags, 0o644)", flags=CLAIM)
    winner.kill()
    b("put('e', b'next', flags=flags)", flags=CLAIM)
    assert a.read("e") == b"next"


def test_winner_exits_without_close(hosts):
    """C12, C4: exit is no kill: an empty file, or what was written."""
    a, b = hosts
    a.python("os.open('e', flags, 0o644)", flags=CLAIM)
    assert b.read("e") == b""
    assert b.error("os.open", "e", CLAIM) == "EEXIST"


def test_winner_unlinks_while_open(hosts):
    """C12: the winner takes its name away again: free for others at once; its close brings nothing back."""
    a, b = hosts
    winner = a.worker()
    winner("fd = os.open('e', flags, 0o644); os.write(fd, b'x'); os.unlink('e')", flags=CLAIM)
    b("put('e', b'other', flags=flags)", flags=CLAIM)
    winner("os.close(fd)")
    assert a.read("e") == b.read("e") == b"other"


def test_winner_renames_while_open(hosts):
    """C12, C5: mkstemp, then rename of the open file: committed under the new name, the claim is gone."""
    a, b = hosts
    winner = a.worker()
    winner("fd = os.open('e', flags, 0o600); os.write(fd, b'x'); os.rename('e', 'f')", flags=CLAIM)
    assert b.read("f") == b"x" and not b.exists("e")
    b("put('e', b'free', flags=flags)", flags=CLAIM)
    winner("os.close(fd)")
    assert a.list() == b.list() == ["e", "f"]


def test_plain_writer_meets_a_claim(hosts):
    """C12, C9: another host opens the claimed name without O_EXCL: whole files, the last commit stays."""
    a, b = hosts
    winner = a.worker()
    winner("fd = os.open('e', flags, 0o644); os.write(fd, b'from the winner')", flags=CLAIM)
    b.write("e", b"from another")
    winner("error(os.close, fd)")
    assert a.read("e") == b.read("e")
    assert a.read("e") in (b"from the winner", b"from another")


def test_other_creators_meet_a_claim(hosts):
    """C12, C13: mkdir, symlink, link, mknod and renameat2(NOREPLACE) on a claimed name: EEXIST."""
    a, b = hosts
    a.write("other", b"")
    winner = a.worker()
    winner("fd = os.open('e', flags, 0o644)", flags=CLAIM)
    for host in hosts:
        assert host.error("os.mkdir", "e") == "EEXIST"
        assert host.error("os.symlink", "x", "e") == "EEXIST"
        assert host.error("os.link", "other", "e") == "EEXIST"
        assert host.error("os.mknod", "e") == "EEXIST"


def test_existing_things(hosts):
    """C12, C13: O_EXCL over a file, a directory, a dangling link of the user's: EEXIST; O_EXCL|O_TRUNC as well."""
    a, b = hosts
    a.write("f", b"data")
    a("os.mkdir('d'); os.symlink('nowhere', 'l')")
    for host in hosts:
        for name in ("f", "d", "l"):
            assert host.error("os.open", name, CLAIM) == "EEXIST"
        assert host.error("os.open", "f", CLAIM | os.O_TRUNC) == "EEXIST"
    assert b.read("f") == b"data"


def test_noclobber_and_friends(hosts):
    """C12: bash noclobber, tar and cp -n."""
    a, b = hosts
    a.run("set -C; echo one > f")
    done = b.run("set -C; echo two > f", check=False)
    assert done.returncode == 1
    b.run("echo three > g; cp -n g f; tar cf t.tar g; rm g; tar xf t.tar; tar xkf t.tar 2>/dev/null; true")
    assert a.read("f") == b"one\n" and a.read("g") == b"three\n"


def test_read_only_mode_file(hosts):
    """C12, C17: git's way: created exclusively with mode 0444, written through the descriptor."""
    a, b = hosts
    a("put('object', b'blob', flags=os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o444)")
    assert b.read("object") == b"blob"
    assert b.look("object").st_mode & 0o777 == 0o444


def test_claim_of_a_dead_daemon(lab, source):
    """C12, C26: the winner's whole mount dies; started again on the same machine, its claims are gone."""
    a, b = lab.host(source, "alpha"), lab.host(source, "beta")
    winner = a.worker()
    winner("fd = os.open('e', flags, 0o644); os.write(fd, b'x')", flags=CLAIM)
    assert b.error("os.open", "e", CLAIM) == "EEXIST"
    a.kill_daemon()
    a.end_processes()
    a.umount("-l", check=False)
    a.mount()
    assert eventually(lambda: b.error("put", "e", b"next", CLAIM) is None)
    assert a.read("e") == b"next"
