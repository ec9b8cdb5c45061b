# SPDX-License-Identifier: GPL-2.0-or-later
"""C13, C25: directories, descriptors and files far beyond the usual, on a source in memory."""

import os
import resource
import subprocess

import pytest

from harness import BUILD, eventually, read_text

MEBI, TEBI = 1 << 20, 1 << 40


@pytest.fixture(name="roomy")
def roomy_host(lab):
    """A host over a file system of its own with inodes enough."""
    path = lab.source("roomy")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=3m,mode=755", "roomy", path], check=True)
    lab.mounts.append(path)
    return lab.host(path, "alpha")


def fill(directory, count):
    os.mkdir(directory)
    for i in range(count):
        os.mknod("%s/%07d" % (directory, i))


@pytest.mark.limit(300)
def test_a_million_names(roomy):
    """C13: a directory of a million names is listed whole by a daemon that may have 1,024 descriptors."""
    resource.prlimit(roomy.daemon.target, resource.RLIMIT_NOFILE, (1024, 1024))
    fill(roomy.source + "/d", MEBI)
    assert roomy.run("find d -type f | wc -l", timeout=120).stdout.split() == [str(MEBI)]
    assert roomy.run("ls -U d | sort -u | wc -l", timeout=120).stdout.split() == [str(MEBI)]
    assert len(os.listdir("/proc/%d/fd" % roomy.daemon.target)) < 100


@pytest.mark.limit(180)
@pytest.mark.skipif("sanitize" in read_text(BUILD + "/build.ninja"), reason="a sanitizer's memory is no measure of ours")
def test_memory_of_a_walk(roomy):
    """400 bytes for each name that the kernel has cached, and they go back when it forgets them."""
    count, start = 200000, roomy.resident() << 10
    fill(roomy.source + "/d", count)
    roomy.run("find d -size +0", timeout=120)
    walked = (roomy.resident() << 10) - start
    assert 100 * count < walked <= 400 * count, walked / count

    def forgotten():
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("2")
        return (roomy.resident() << 10) - start < walked / 4

    assert eventually(forgotten, 60), ((roomy.resident() << 10) - start) / count


@pytest.mark.limit(180)
def test_ten_thousand_open(roomy):
    """C1, C13: 10,000 files that are read at once, and as many that are written at once."""
    worker = roomy.worker()
    worker(
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (10100, 10100))
os.mkdir('read')
os.mkdir('staged')
for i in range(10000):
    with open('read/%d' % i, 'x') as f: f.write(str(i))
fds = [os.open('read/%d' % i, os.O_RDONLY) for i in range(10000)]
"""
    )
    assert worker("[i for i, fd in enumerate(fds) if os.read(fd, 10) != b'%d' % i]") == []
    worker("while fds: os.close(fds.pop())")
    worker("for i in range(10000): fds.append(os.open('staged/%d' % i, REPLACE, 0o600)); os.write(fds[i], b'%d' % i)")
    assert roomy.list("staged") == []
    worker("while fds: os.close(fds.pop())")
    assert roomy("[i for i in range(10000) if get('staged/%d' % i) != b'%d' % i]") == []


def test_a_tebibyte(roomy):
    """C1, C9, C10, C11: a sparse file of 1 TiB is made, edited, appended to and copied; its holes cost nothing."""
    read = "(lambda fd: ([os.pread(fd, 3, place) for place in places], os.fstat(fd).st_size, os.fstat(fd).st_blocks))"
    read += "(os.open(name, os.O_RDONLY))"
    places = [TEBI // 4, TEBI // 2, TEBI - 3]
    roomy.python(
        """
fd = os.open('f', REPLACE, 0o600)
os.ftruncate(fd, size)
os.pwrite(fd, b'mid', size // 2)
os.pwrite(fd, b'end', size - 3)
os.close(fd)
""",
        size=TEBI,
    )
    data, size, blocks = roomy.python("result = " + read, name="f", places=places)
    assert (data, size) == ([b"\0\0\0", b"mid", b"end"], TEBI) and blocks * 512 < MEBI
    roomy.python("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'new', place); os.close(fd)", place=places[0])
    roomy.python("fd = os.open('f', os.O_WRONLY | os.O_APPEND); os.write(fd, b'more'); os.close(fd)")
    roomy.run("cp --sparse=always f g")
    for name in "fg":
        data, size, blocks = roomy.python("result = " + read, name=name, places=[*places, TEBI + 1])
        assert (data, size) == ([b"new", b"mid", b"end", b"ore"], TEBI + 4) and blocks * 512 < MEBI
