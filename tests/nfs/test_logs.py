# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs that one machine keeps open while another appends: an NFS client that has a file open for writing takes others'
changes for its own, and goes on with the pages it had cached (nfs_update_inode in fs/nfs/inode.c)."""

import pytest

RECORD = b"a record of the other machine\n"
APPEND = "fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, record * 100); os.close(fd)"


@pytest.fixture
def kept(hosts):
    """(the machine that keeps the log open, the other, the keeper)"""
    a, b = hosts
    a.write("log", b"first\n")
    keeper = a.worker()
    keeper("fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'own\\n')")
    assert a.read("log") == b"first\nown\n"  # and from now on that is cached
    return a, b, keeper


def append(host):
    host(APPEND, record=RECORD)


def test_who_opens_it(kept):
    """C1, C2, C11: what others have appended is read by who opens the log, before and after the keeper's next record."""
    a, b, keeper = kept
    expected = b"first\nown\n"
    for _ in range(3):
        append(b)
        expected += RECORD * 100
        assert a.read("log") == expected
        keeper("os.write(fd, b'own\\n')")
        expected += b"own\n"
        assert a.read("log") == b.read("log") == expected


def test_the_keepers_record_first(kept):
    """C11: the keeper appends to a page of which it has an old copy; that is not what is read of it afterwards."""
    a, b, keeper = kept
    append(b)
    keeper("os.write(fd, b'own\\n')")
    assert a.read("log") == b.read("log") == b"first\nown\n" + RECORD * 100 + b"own\n"


@pytest.mark.parametrize("flags", ["O_RDONLY", "O_RDWR | os.O_APPEND"])
def test_who_reads_on(kept, flags):
    """C11: a reader that keeps it open, as tail -f does, reads whole records and nothing else."""
    a, b, keeper = kept
    reader = a.worker()
    reader("ours = os.open('log', os.%s); got = os.read(ours, 1 << 20)" % flags)
    for _ in range(3):
        append(b)
        keeper("os.write(fd, b'own\\n')")
        size = a.look("log").st_size
        reader(
            """
until = time.monotonic() + 60
while len(got) < size and time.monotonic() < until:
    got += os.read(ours, 1 << 20)
""",
            size=size,
        )
    assert reader("got") == b"first\nown\n" + (RECORD * 100 + b"own\n") * 3


def test_an_edit_of_it(kept):
    """C10: the copy that an edit is made on has what others appended, although a page is cached without it."""
    a, b, keeper = kept
    append(b)
    a("fd = os.open('log', os.O_RDWR); os.pwrite(fd, b'FIRST', 0); os.close(fd)")
    assert a.read("log") == b.read("log") == b"FIRST\nown\n" + RECORD * 100
