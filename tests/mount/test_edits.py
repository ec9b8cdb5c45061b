# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits: opens for writing without O_TRUNC (C10), and what works on staged files as on a disk (C14)."""

import os
import time

import pytest
from harness import eventually, payload

SIZE = 64 * 64  # 64 blocks of 64 bytes
BLANK = b"." * SIZE

# Every block is one byte repeated: half an edit shows.
BLOCKS = """
def classify(data):
    if len(data) != 4096:
        return None
    blocks = [data[at:at + 64] for at in range(0, 4096, 64)]
    return 'whole' if all(block == block[:1] * 64 for block in blocks) else None
"""


def block(letter):
    return letter.encode() * 64


def test_edit_is_staged(hosts):
    """C10: nobody sees an edit before its commit; the editor does."""
    a, b = hosts
    a.write("f", BLANK)
    editor = a.worker()
    editor("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'X' * 64, 128)")
    assert editor("get('f')") == BLANK[:128] + block("X") + BLANK[192:]
    assert a.read("f") == b.read("f") == BLANK
    editor("os.close(fd)")
    assert a.read("f") == b.read("f") == BLANK[:128] + block("X") + BLANK[192:]


def test_disjoint_edits_survive(hosts):
    """C10: two hosts edit different ranges of the version both opened: both survive."""
    a, b = hosts
    a.write("f", BLANK)
    first, second = a.worker(), b.worker()
    first("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'A' * 64, 0)")
    second("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'B' * 64, 640)")
    first("os.close(fd)")
    second("os.close(fd)")
    expected = block("A") + BLANK[64:640] + block("B") + BLANK[704:]
    assert a.read("f") == b.read("f") == expected


def test_overlapping_edits(hosts):
    """C10: where both wrote, the later commit stands, byte by byte."""
    a, b = hosts
    a.write("f", BLANK)
    first, second = a.worker(), b.worker()
    first("fd = os.open('f', os.O_WRONLY); os.pwrite(fd, b'A' * 128, 0)")
    second("fd = os.open('f', os.O_WRONLY); os.pwrite(fd, b'B' * 128, 64)")
    second("os.close(fd)")
    first("os.close(fd)")
    assert b.read("f") == b"A" * 128 + block("B") + BLANK[192:]


def test_many_editors_lose_nothing(hosts):
    """C10: 4 editors on 2 hosts, 16 blocks each, one edit per open: every edit is there, no reader sees half of one."""
    a, b = hosts
    a.write("f", BLANK)
    readers = [host.reader("f", classify=BLOCKS) for host in hosts]
    editors = [a.worker(), b.worker(), a.worker(), b.worker()]
    for number, editor in enumerate(editors):
        editor.start(
            "for i in range(16): put_at('f', ((i * 4 + n) * 64, bytes([65 + n]) * 64))",
            n=number,
        )
    for editor in editors:
        editor.finish()
    for reader in readers:
        reader.stop()
    assert a.read("f") == b.read("f") == b"".join(block("ABCD"[n % 4]) for n in range(64))


def test_two_ranges_of_one_edit_appear_together(hosts):
    """C10: an edit of both ends of a file is one step for every reader."""
    a, b = hosts
    a.write("f", b"0" * 200_000)
    check = "def classify(d): return 'same' if len(d) == 200000 and d[0] == d[-1] else None"
    readers = [host.reader("f", classify=check) for host in hosts]
    for number in range(20):
        digit = b"%d" % (number % 10)
        hosts[number % 2].python("put_at('f', (0, d), (199999, d))", d=digit)
    for reader in readers:
        reader.stop()


def test_editors_against_rewriters(hosts):
    """C9, C10: an edit lands on whatever version is current; blocks stay whole, the last rewrite may hide edits."""
    a, b = hosts
    a.write("f", BLANK)
    readers = [host.reader("f", classify=BLOCKS) for host in hosts]
    editor, rewriter = a.worker(), b.worker()
    editor.start("for i in range(60): put_at('f', (i * 64, b'E' * 64))")
    rewriter.start("for i in range(60): put('f', bytes([97 + i % 26]) * 4096)")
    editor.finish()
    rewriter.finish()
    for reader in readers:
        reader.stop()
    editor("put_at('f', (0, b'F' * 64))")
    assert b.read("f")[:64] == block("F") and len(b.read("f")) == SIZE


def test_editors_against_appenders(hosts):
    """C10, C11: an edit in the middle loses no record appended meanwhile."""
    a, b = hosts
    a.write("f", BLANK)
    editor, appender = a.worker(), b.worker()
    editor.start("for i in range(64): put_at('f', (i * 64, b'E' * 64))")
    appender.start("for i in range(60): put('f', b'record %03d\\n' % i, flags=os.O_WRONLY | os.O_APPEND)")
    editor.finish()
    appender.finish()
    expected = b"E" * SIZE + b"".join(b"record %03d\n" % i for i in range(60))
    assert eventually(lambda: a.read("f") == expected) and b.read("f") == expected


def test_edit_beyond_the_end(hosts):
    """C10: an edit may make the file longer; the hole reads as zeros."""
    a, b = hosts
    a.write("f", b"short")
    b.python("put_at('f', (10000, b'far'))")
    assert a.read("f") == b"short" + b"\0" * 9995 + b"far"


@pytest.mark.parametrize("size", [0, 100, SIZE - 1, SIZE + 1000])
def test_truncation_of_an_edit(hosts, size):
    """C10: r+ and ftruncate are applied to the current version, with the writes around them."""
    a, b = hosts
    a.write("f", BLANK)
    editor = a.worker()
    editor("fd = os.open('f', os.O_RDWR); os.ftruncate(fd, size)", size=size)
    assert editor("os.fstat(fd).st_size") == size and b.read("f") == BLANK
    editor("os.pwrite(fd, b'tail', size); os.close(fd)")
    expected = (BLANK + b"\0" * 1000)[:size] + b"tail"
    assert a.read("f") == b.read("f") == expected


def test_truncation_against_an_edit(hosts):
    """C10: A cuts and writes, B edits before the cut: both count."""
    a, b = hosts
    a.write("f", BLANK)
    first, second = a.worker(), b.worker()
    first("fd = os.open('f', os.O_RDWR); os.ftruncate(fd, 1024)")
    second("put_at('f', (64, b'B' * 64))")
    first("os.pwrite(fd, b'A' * 64, 960); os.close(fd)")
    assert a.read("f") == b.read("f") == BLANK[:64] + block("B") + BLANK[128:960] + block("A")


def test_truncate_by_path(hosts):
    """C14: truncate(2): seen by the other host when it has returned."""
    a, b = hosts
    a.write("f", BLANK)
    a("os.truncate('f', 1000)")
    assert b.read("f") == BLANK[:1000]
    b("os.truncate('f', 1010)")
    assert a.read("f") == BLANK[:1000] + b"\0" * 10
    assert a.error("os.truncate", "missing", 0) == "ENOENT"
    assert a.error("os.truncate", ".", 0) == "EISDIR"


def test_truncate_by_path_while_staged(hosts):
    """C14, C15: by the writer itself: its own stage."""
    a, b = hosts
    a.write("f", BLANK)
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'x' * 5000); os.truncate('f', 100)")
    assert writer("os.fstat(fd).st_size") == 100 and b.read("f") == BLANK
    writer("os.close(fd)")
    assert b.read("f") == b"x" * 100


def test_shared_mapping(hosts):
    """C14: MAP_SHARED edits, msync, and two handles of one family."""
    a, b = hosts
    a.write("f", BLANK)
    editor = a.worker()
    editor("import mmap; fd = os.open('f', os.O_RDWR); m = mmap.mmap(fd, 0); m[0:64] = b'M' * 64; m.flush()")
    assert editor("os.pread(fd, 64, 0)") == block("M")
    assert b.read("f") == BLANK
    editor("m[64:128] = b'N' * 64; m.close(); os.close(fd)")
    expected = block("M") + block("N") + BLANK[128:]
    assert eventually(lambda: b.read("f") == expected) and a.read("f") == expected


def test_private_mapping(hosts):
    """C14: MAP_PRIVATE stores reach nobody."""
    a, b = hosts
    a.write("f", BLANK)
    a.python("import mmap; f = open('f', 'r+b'); m = mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE); m[0:3] = b'xxx'")
    assert a.read("f") == b.read("f") == BLANK


def test_fallocate_and_holes(hosts):
    """C14: fallocate, punch hole, SEEK_DATA, SEEK_HOLE on a staged file."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o600); os.posix_fallocate(fd, 0, 1 << 20)")
    assert writer("os.fstat(fd).st_size") == 1 << 20
    writer("os.ftruncate(fd, 0); os.ftruncate(fd, 1 << 20); os.pwrite(fd, b'd' * 4096, 512 << 10)")
    assert writer("os.lseek(fd, 0, os.SEEK_DATA)") == 512 << 10
    assert writer("os.lseek(fd, 512 << 10, os.SEEK_HOLE)") == (512 << 10) + 4096
    writer("os.close(fd)")
    assert b.look("f").st_size == 1 << 20
    assert b.read("f")[512 << 10 :][:4096] == b"d" * 4096
    b.run("fallocate -p -o 524288 -l 4096 f")
    assert a.read("f") == b"\0" * (1 << 20)


def test_copy_file_range(hosts):
    """C14: between files, and cp."""
    a, b = hosts
    data = payload("copied", 300_000)
    a.write("from", data)
    a.python(
        "i, o = os.open('from', os.O_RDONLY), os.open('to', REPLACE, 0o600)\n"
        "n = 0\n"
        "while n < 300000: n += os.copy_file_range(i, o, 300000 - n)\n"
        "os.close(o)"
    )
    assert b.read("to") == data
    a.run("cp from cp; cp --reflink=auto --sparse=always from sparse; install -m 600 from installed")
    assert b.read("cp") == b.read("sparse") == b.read("installed") == data


def test_edit_of_a_removed_file(hosts, lab, source):
    """C15: removed elsewhere: an edit gets ESTALE at close and goes to salvage."""
    a, b = hosts
    a.write("f", BLANK)
    editor = a.worker()
    editor("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'E' * 64, 0)")
    b("os.unlink('f')")
    assert editor("error(os.close, fd)") == "ESTALE"
    assert not a.exists("f") and not b.exists("f")
    assert lab.salvaged(source, "f") == [block("E") + BLANK[64:]]


def test_edit_of_a_file_removed_here(hosts):
    """C15: removed by another program of this host: the editor's file has no name, and nothing fails, also an unlock
    (C22) after a commit and more writing."""
    a, b = hosts
    a.write("f", BLANK)
    editor, other = a.worker(), a.worker()
    editor("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'E' * 64, 0)")
    other("os.unlink('f')")
    editor("os.pwrite(fd, b'F' * 64, 64)")
    assert editor("os.pread(fd, 128, 0)") == block("E") + block("F")
    editor("os.fsync(fd); os.close(fd)")
    editor("import fcntl; fd = os.open('g', REPLACE, 0o666); os.write(fd, b'one'); fcntl.lockf(fd, fcntl.LOCK_EX)")
    editor("fcntl.lockf(fd, fcntl.LOCK_UN)")
    assert b.read("g") == b"one"
    editor("fcntl.lockf(fd, fcntl.LOCK_EX); os.write(fd, b' two')")
    other("os.unlink('g')")
    editor("fcntl.lockf(fd, fcntl.LOCK_UN); os.write(fd, b' three'); os.close(fd)")
    assert a.list() == b.list() == []


def test_rewrite_of_a_removed_file(hosts):
    """C15: removed elsewhere: a rewrite creates it anew."""
    a, b = hosts
    a.write("f", BLANK)
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'anew')")
    b("os.unlink('f')")
    writer("os.close(fd)")
    assert b.read("f") == b"anew"


def test_edit_after_a_rename_elsewhere(hosts):
    """C10, C15: replaced by another host's rename: the edit is applied to what is current."""
    a, b = hosts
    a.write("f", BLANK)
    editor = a.worker()
    editor("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'E' * 64, 0)")
    b("put('t', data); os.rename('t', 'f')", data=b"n" * SIZE)
    editor("os.close(fd)")
    assert a.read("f") == b.read("f") == block("E") + b"n" * (SIZE - 64)


def test_first_byte_of_a_large_file(hosts):
    """C10: the base is copied when the first byte is written, not at open."""
    a, b = hosts
    a.run("head -c 40M /dev/zero > f")
    editor = a.worker()
    begin = time.monotonic()
    editor("for i in range(20): os.close(os.open('f', os.O_RDWR))")
    assert time.monotonic() - begin < 1
    editor("put_at('f', (20 << 20, b'x'))")
    assert b("fd = os.open('f', os.O_RDONLY); result = os.pread(fd, 3, (20 << 20) - 1); os.close(fd)") == b"\0x\0"
    assert b.look("f").st_size == 40 << 20


@pytest.mark.options("edit-copy-max=1M")
def test_edit_in_place_above_the_limit(hosts, lab, source):
    """C10: above edit-copy-max, where the source cannot clone, an edit is in place, and logged."""
    a, b = hosts
    a.run("head -c 2M /dev/zero > f")
    before = os.stat(source + "/f").st_ino
    a.python("put_at('f', (100, b'in place'))")
    assert b.read("f")[100:108] == b"in place"
    assert os.stat(source + "/f").st_ino == before
    assert "in place" in lab.log_text()


def test_on_other_file_systems(loop_source, lab):
    """C10, C14: the same where the source clones (xfs, btrfs) and where it cannot (ext4)."""
    a, b = lab.host(loop_source, "alpha"), lab.host(loop_source, "beta")
    data = payload("base", 1_000_000)
    a.write("f", data)
    first, second = a.worker(), b.worker()
    first("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'A' * 5000, 100)")
    second("put_at('f', (500000, b'B' * 5000))")
    first("os.close(fd)")
    expected = data[:100] + b"A" * 5000 + data[5100:500_000] + b"B" * 5000 + data[505_000:]
    assert a.read("f") == b.read("f") == expected
    a.run("for i in 1 2 3 4 5; do echo record $i >> log; done; mkdir d; cp f d/g; mv d/g d/h; ln d/h hard")
    assert b.read("log") == b"".join(b"record %d\n" % i for i in range(1, 6))
    assert b.read("hard") == expected
    writer = a.worker()
    writer("fd = os.open('.', os.O_TMPFILE | os.O_WRONLY, 0o600); os.write(fd, b'x')")
    writer("name_it(fd, 'tmp'); os.close(fd)")
    assert b.read("tmp") == b"x"


def test_python_and_shell_editors(hosts):
    """C10: 'r+', dd conv=notrunc, sed -i, perl -i, sort -o, truncate, split."""
    a, b = hosts
    a.write("f", b"3\n1\n2\n")
    a.run(
        """
printf X | dd of=f bs=1 seek=2 conv=notrunc status=none
sed -i s/3/9/ f
perl -i -pe 's/2/7/' f
sort -o f f
printf '0123456789' > s; split -b 4 s part.
truncate -s 4 s
"""
    )
    assert b.read("f") == b"7\n9\nX\n"
    assert [b.read("part." + name) for name in ("aa", "ab", "ac")] == [b"0123", b"4567", b"89"]
    assert b.read("s") == b"0123"
