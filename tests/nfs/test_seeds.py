# SPDX-License-Identifier: GPL-2.0-or-later
"""What shared directories lose on NFS itself (tests/nfs/seeds measures that), and do not lose here."""
import pytest

APPEND = """
fd = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
for i in range(100): os.write(fd, b'%s record %04d of a host\\n' % (who, i))
os.close(fd)
"""
LOCKED = """
for i in range(50):
    at = (2 * i + who) * 10
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, at)
    os.pwrite(fd, b'%d.%07d\\n' % (who, i), at)
    fcntl.lockf(fd, fcntl.LOCK_UN, 10, at)
"""


@pytest.mark.limit(60)
def test_appends_of_two_hosts(hosts):
    """C11: a client writes whole pages as it has them cached: what the other host appended is not to be among that."""
    workers = [host.worker() for host in hosts]
    for worker, who in zip(workers, (b"one", b"two")):
        worker.start(APPEND, who=who)
    for worker in workers:
        worker.finish(60)
    lines = hosts[1].read("log").splitlines()
    assert sorted(lines) == sorted(b"%s record %04d of a host" % (who, i) for who in (b"one", b"two") for i in range(100))


@pytest.mark.limit(60)
def test_ranges_of_two_hosts(hosts):
    """C22: the same of two who write to neighbouring ranges of one file, each under its lock."""
    hosts[0].write("f", b"." * 1000)
    workers = [host.worker() for host in hosts]
    for who, worker in enumerate(workers):
        worker("fd = os.open('f', os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX, 10, who * 10)", who=who)
        worker("fcntl.lockf(fd, fcntl.LOCK_UN, 10, who * 10)")
    for who, worker in enumerate(workers):
        worker.start(LOCKED, who=who)
    for worker in workers:
        worker.finish(60)
        worker("os.close(fd)")
    assert hosts[1].read("f") == b"".join(b"%d.%07d\n" % (who, i) for i in range(50) for who in range(2))
