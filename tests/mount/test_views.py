# SPDX-License-Identifier: GPL-2.0-or-later
"""Who sees a staged version (C15), and that versions and names change together for everybody else."""

import os
import time

import pytest
from harness import eventually

OLD = b"old version"


@pytest.fixture
def staged(hosts):
    """Two hosts, `f` with OLD, and a writer that holds `f` open with new bytes."""
    a, b = hosts
    a.write("f", OLD)
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'new bytes')")
    return a, b, writer


def test_writer_sees_its_own(staged):
    """C15: open, stat, size and listing of the writer show its own bytes at once."""
    _, _, writer = staged
    assert writer("get('f')") == b"new bytes"
    assert writer("os.stat('f').st_size") == writer("os.fstat(fd).st_size") == 9
    writer("os.write(fd, b' and more')")
    assert writer("os.stat('f').st_size") == 18 and writer("get('f')") == b"new bytes and more"
    assert writer("os.stat('f').st_ino") == writer("os.fstat(fd).st_ino")


def test_strangers_see_the_old(staged):
    """C15: others on the same host see what other hosts see."""
    a, b, _ = staged
    for host in (a, b):
        assert host.read("f") == OLD
        assert host.look("f").st_size == len(OLD)
        assert host("os.stat('f').st_size") == len(OLD)


def test_child_sees_it(staged):
    """C15: the family: a child, a grandchild, a program started by the writer."""
    _, _, writer = staged
    code = """
import subprocess
out = subprocess.run(['cat', 'f'], capture_output=True).stdout
deep = subprocess.run(['sh', '-c', '(cat f; true); wc -c < f'], capture_output=True).stdout
result = out, deep
"""
    assert writer(code) == (b"new bytes", b"new bytes9\n")


def test_parent_does_not(hosts):
    """C15: what a child stages is not its parent's before the commit."""
    a, b = hosts
    a.write("f", OLD)
    parent = a.worker()
    parent(
        """
r, w = os.pipe()
child = os.fork()
if child == 0:
    fd = os.open('f', REPLACE)
    os.write(fd, b'child')
    os.write(w, b'x')
    time.sleep(60)
    os._exit(0)
os.read(r, 1)
"""
    )
    assert parent("get('f')") == OLD
    parent("os.kill(child, 9); os.waitpid(child, 0)")


def test_alternating_looks(staged):
    """C15: writer and strangers look at one name in turn, 100 times; everybody sees his own."""
    a, b, writer = staged
    for number in range(100):
        assert writer("get('f'), os.stat('f').st_size") == (b"new bytes", 9), number
        assert a("get('f'), os.stat('f').st_size") == (OLD, len(OLD)), number
    assert b.read("f") == OLD


def test_switch_at_the_commit(staged):
    """C15, C2: after the commit everybody sees it, the stranger on the same host too, by open and by stat."""
    a, b, writer = staged
    assert a("os.stat('f').st_size") == len(OLD)
    writer("os.close(fd)")
    assert a("get('f'), os.stat('f').st_size") == (b"new bytes", 9)
    assert b.read("f") == b"new bytes"
    assert eventually(lambda: b("os.stat('f').st_size") == 9, 1.5)


def test_new_name_is_the_familys(hosts):
    """C15: a new file before its commit: listed, found and opened by the family only."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('n', REPLACE, 0o666); os.write(fd, b'12345')")
    assert writer("os.listdir('.'), os.path.exists('n'), os.stat('n').st_size") == (["n"], True, 5)
    assert writer("[(e.name, e.is_file(), e.stat().st_size) for e in os.scandir('.')]") == [("n", True, 5)]
    for host in (a, b):
        assert host.list() == [] and not host.exists("n")
        assert host.error("os.open", "n", os.O_RDONLY) == "ENOENT"
    writer("os.close(fd)")
    assert a.list() == b.list() == ["n"]


def test_whoever_holds_the_descriptor(staged):
    """C15: by fd: a stranger that was sent it reads and writes the stage, and still sees the old version by path."""
    a, b, writer = staged
    stranger = a.worker()
    address = a.scratch + "/socket"
    stranger("import socket; s = socket.socket(socket.AF_UNIX); s.bind(p); s.listen()", p=address)
    writer("import socket; s = socket.socket(socket.AF_UNIX); s.connect(p)", p=address)
    stranger("c = s.accept()[0]")
    writer("rw = os.open('f', os.O_RDWR); socket.send_fds(s, [b'x'], [rw]); os.close(rw)")
    stranger("fd = socket.recv_fds(c, 10, 1)[1][0]")
    assert stranger("os.pread(fd, 100, 0), get('f')") == (b"new bytes", OLD)
    stranger("os.pwrite(fd, b'NEW', 0)")
    assert writer("get('f')") == b"NEW bytes" and a.read("f") == b.read("f") == OLD
    writer("os.close(fd)")
    stranger("os.close(fd)")
    assert eventually(lambda: b.read("f") == b"NEW bytes")


def test_stranger_opens_a_magic_link(staged):
    """C15: /proc/PID/fd/N of the writer opened for reading by a stranger: the version it names."""
    a, _, writer = staged
    writer("os.close(fd); fd = os.open('f', os.O_RDWR | os.O_TRUNC); os.write(fd, b'mine')")
    link = "/proc/%d/fd/%d" % (writer.process.inner_pid, writer("fd"))
    assert a("get(link)", link=link) == b"mine"


def test_family_shares_a_stage(hosts):
    """C15: several handles of one family: one stage, committed when the last that wrote has closed."""
    a, b = hosts
    a.write("f", OLD)
    writer = a.worker()
    writer("one = os.open('f', REPLACE); os.write(one, b'AAAA')")
    writer("two = os.open('f', os.O_RDWR); os.pwrite(two, b'BB', 4)")
    assert writer("get('f')") == b"AAAABB"
    writer("os.close(one)")
    assert b.read("f") == OLD and a.read("f") == OLD
    writer("os.close(two)")
    assert b.read("f") == b"AAAABB" == a.read("f")


def test_reading_handle_does_not_hold_back(hosts):
    """C15, C3: a handle of the family that only reads does not delay the commit, and goes on reading."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'data'); r = os.open('f', os.O_RDONLY); os.close(fd)")
    assert b.read("f") == b"data"
    assert writer("drain(r)") == b"data"


def test_child_reopens_with_truncation(hosts):
    """C15: ccache's way: the parent made it with mkstemp, its child writes it by reopening with O_TRUNC."""
    a, b = hosts
    a.python(
        """
import subprocess, tempfile
fd, name = tempfile.mkstemp(dir='.')
os.close(fd)
subprocess.run(['sh', '-c', 'echo compiled > ' + name], check=True)
os.rename(name, 'object')
fd, name = tempfile.mkstemp(dir='.')
subprocess.run(['sh', '-c', 'echo again > ' + name], check=True)
os.close(fd)
os.rename(name, 'second')
"""
    )
    assert b.read("object") == b"compiled\n"
    assert b.read("second") == b"again\n"
    assert b.list() == ["object", "second"]


def test_rename_of_the_directory(hosts):
    """C15: a stage follows a rename of its directory made on this host."""
    a, b = hosts
    a("os.makedirs('d/e')")
    writer = a.worker()
    writer("fd = os.open('d/e/f', REPLACE, 0o666); os.write(fd, b'moved')")
    a("os.rename('d', 'D')")
    writer("os.write(fd, b' along'); os.close(fd)")
    assert b.read("D/e/f") == b"moved along"
    assert b.list() == ["D"]


def test_rename_of_the_name_by_the_family(hosts):
    """C15, C5: renamed by a child of the writer: committed under the new name."""
    a, b = hosts
    writer = a.worker()
    writer("import subprocess; fd = os.open('t', REPLACE, 0o666); os.write(fd, b'x')")
    writer("subprocess.check_call(['mv', 't', 'u'])")
    assert b.list() == ["u"] and b.read("u") == b"x"
    writer("os.close(fd)")
    assert a.list() == ["u"]


def test_rename_of_the_old_version_by_others(staged):
    """C15: a stranger renames the name that is being rewritten: it moves the old version; the stage follows it."""
    a, b, writer = staged
    a("os.rename('f', 'g')")
    writer("os.close(fd)")
    assert a.list() == b.list() == ["g"]
    assert b.read("g") == b"new bytes"


def test_rmdir_sees_stages(hosts):
    """C15: rmdir of a directory with a stage of this host: ENOTEMPTY; after the unlink it goes."""
    a, b = hosts
    a("os.mkdir('d')")
    writer = a.worker()
    writer("fd = os.open('d/f', REPLACE, 0o666); os.write(fd, b'x')")
    assert a.error("os.rmdir", "d") == "ENOTEMPTY"
    assert writer("error(os.rmdir, 'd')") == "ENOTEMPTY"
    writer("os.unlink('d/f'); os.close(fd)")
    assert a.error("os.rmdir", "d") is None
    assert b.list() == []


def test_directory_gone_elsewhere(hosts, lab, source):
    """C15: the directory was removed on another host: ENOENT at close, and salvage."""
    a, b = hosts
    a("os.mkdir('d')")
    writer = a.worker()
    writer("fd = os.open('d/f', REPLACE, 0o666); os.write(fd, b'homeless')")
    b("os.rmdir('d')")
    assert writer("error(os.close, fd)") == "ENOENT"
    assert lab.salvaged(source, "d/f") == [b"homeless"]
    assert a.list() == b.list() == []


def test_rm_rf_of_a_directory_with_a_stage(hosts):
    """C15: rm -r by a stranger on the same host does not tear the writer's file."""
    a, b = hosts
    a("os.mkdir('d'); put('d/f', b'old')")
    writer = a.worker()
    writer("fd = os.open('d/f', REPLACE); os.write(fd, b'x')")
    a.run("rm -rf d", check=False)
    writer("error(os.close, fd)")
    assert not b.exists("d/f") or b.read("d/f") in (b"x", b"old")


def test_many_names_listed(hosts):
    """C15: listing of a big directory while the family stages some of its names: each name once."""
    a, b = hosts
    a("for i in range(1500): os.close(os.open('f%04d' % i, os.O_WRONLY | os.O_CREAT, 0o600))")
    writer = a.worker()
    writer("fds = [os.open('f%04d' % i, REPLACE) for i in range(0, 1500, 100)]")
    writer("fds += [os.open('g%d' % i, REPLACE, 0o600) for i in range(10)]")
    names = ["f%04d" % i for i in range(1500)]
    assert b.list() == names and a.list() == names
    assert writer("sorted(os.listdir('.'))") == names + ["g%d" % i for i in range(10)]
    writer("for fd in fds: os.close(fd)")
    assert b.list() == names + ["g%d" % i for i in range(10)]


def test_inode_numbers_agree(hosts):
    """C15: d_ino, st_ino of lstat and of fstat are the same, before and after a commit."""
    a, _ = hosts
    writer = a.worker()
    same = "{e.inode() for e in os.scandir('.') if e.name == 'f'} | {os.stat('f').st_ino, os.fstat(fd).st_ino}"
    writer("fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o600); os.write(fd, b'x')")
    assert len(writer(same)) == 1
    writer("os.close(fd); fd = os.open('f', os.O_RDONLY)")
    assert len(writer(same)) == 1


def test_commit_does_not_change_the_inode_number_seen(hosts):
    """C15: filelock compares fstat of its descriptor with lstat of the path."""
    a, _ = hosts
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o600); os.write(fd, b'x'); copy = os.open('f', os.O_RDONLY)")
    before = writer("os.fstat(fd).st_ino")
    writer("os.close(fd)")
    assert writer("os.stat('f').st_ino, os.fstat(copy).st_ino") == (before, before)


def test_stage_of_another_host_is_unknown(hosts):
    """C15: both hosts stage one new name; each family sees its own."""
    a, b = hosts
    first, second = a.worker(), b.worker()
    first("fd = os.open('n', REPLACE, 0o666); os.write(fd, b'first')")
    second("fd = os.open('n', REPLACE, 0o666); os.write(fd, b'second!')")
    assert (first("get('n')"), second("get('n')")) == (b"first", b"second!")
    assert not a.exists("n") and not b.exists("n")
    first("os.close(fd)")
    assert (a.read("n"), second("get('n')")) == (b"first", b"second!")
    second("os.close(fd)")
    assert a.read("n") == b"second!"


def test_writer_reads_while_others_commit(staged):
    """C15, C9: others commit the name meanwhile: the writer keeps seeing its own stage."""
    a, b, writer = staged
    for number in range(20):
        b.write("f", b"from beta %d" % number)
        assert writer("get('f')") == b"new bytes"
        assert a.read("f") == b"from beta %d" % number
    writer("os.close(fd)")
    assert b.read("f") == b"new bytes"


def test_reopen_after_own_commit(hosts):
    """C15: write, close, reopen, 200 times by one process, with a second family doing the same."""
    a, b = hosts
    one, two = a.worker(), a.worker()
    loop = """
for i in range(200):
    data = b'%s %d' % (me, i)
    put('f' + me.decode(), data)
    assert get('f' + me.decode()) == data
    put('shared', data)
    assert get('shared').split()[0] in (b'one', b'two')
"""
    one.start(loop, me=b"one")
    two.start(loop, me=b"two")
    one.finish()
    two.finish()
    assert b.read("fone") == b"one 199" and b.read("ftwo") == b"two 199"


def test_stat_is_never_older_than_attr_cache(hosts):
    """C2: stat of a name that another host replaced: at most attr-cache (1 s) old."""
    a, b = hosts
    a.write("f", b"1")
    assert b("os.stat('f').st_size") == 1
    a.write("f", b"22")
    time.sleep(1.1)
    assert b("os.stat('f').st_size") == 2


@pytest.mark.options("attr-cache=0")
def test_strict_stat(hosts):
    """C2: attr-cache=0: stat is strict as well, 50 times."""
    a, b = hosts
    for number in range(50):
        a.write("f", b"x" * number)
        assert b("os.stat('f').st_size") == number
        a("os.chmod('f', 0o600 + n)", n=number)
        assert b("os.stat('f').st_mode") & 0o777 == 0o600 + number
    assert os.O_RDONLY == 0


SETTLED = 2.2  # seconds after which the kernel is let keep what it has read of a directory


def test_listings_that_the_kernel_keeps_are_never_old(hosts, source):
    """C2: an opendir shows what the other host has done before, whether it is by the mount or beside it, and how often."""
    a, b = hosts
    a("os.mkdir('d'); [put('d/f%d' % i, b'x') for i in range(50)]")
    expected = {"f%d" % i for i in range(50)}
    for round in range(3):
        time.sleep(SETTLED)
        for _ in range(3):  # the first is kept, the others are served from that
            assert set(a.list("d")) == set(b.list("d")) == expected
        b.write("d/new%d" % round, b"x")
        expected.add("new%d" % round)
        assert set(a.list("d")) == expected
        b("os.rename('d/f%d' % round, 'd/other%d' % round)", round=round)
        expected ^= {"f%d" % round, "other%d" % round}
        assert set(a.list("d")) == expected
        for number in range(40):  # within one tick of the source's clock
            name = "t%d" % number
            with open("%s/d/%s" % (source, name), "wb"):
                pass
            assert name in a.list("d")
            os.unlink("%s/d/%s" % (source, name))
            assert name not in a.list("d")


def test_listings_that_the_kernel_keeps_are_everybodys(hosts):
    """C15: a new file that is being written is listed to its writer only; also by descriptors that began before."""
    a, _ = hosts
    a.write("old", b"x")
    writer, stranger = a.worker(), a.worker()
    for worker in writer, stranger:
        worker("fd = os.open('.', os.O_RDONLY | os.O_DIRECTORY)")
    time.sleep(SETTLED)
    for _ in range(2):
        assert writer("os.listdir('.')") == stranger("os.listdir('.')") == ["old"]
        assert writer("os.listdir(fd)") == stranger("os.listdir(fd)") == ["old"]
    writer("new = os.open('new', REPLACE)")
    for _ in range(2):
        assert set(writer("os.listdir('.')")) == {"old", "new"} == set(writer("os.listdir(fd)"))
        assert stranger("os.listdir('.')") == ["old"]
    writer("os.close(new)")
    for worker in writer, stranger:
        assert set(worker("os.listdir('.')")) == {"old", "new"} == set(worker("os.listdir(fd)"))


@pytest.mark.parametrize("age", [0, 2.5])
def test_renamed_over_a_stage(hosts, age):
    """C15: who has a stage sees it by path, also when a file that the kernel believes in is renamed to that name."""
    a, b = hosts
    writer, other = a.worker(), a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'12345')")
    other("put('t', b'by the other')")
    time.sleep(age)
    other("for i in range(3): os.stat('t')")
    other("os.rename('t', 'f')")
    for _ in range(3):
        assert writer("os.stat('f').st_size") == 5
        assert other("os.stat('f').st_size") == 12 == b("os.stat('f').st_size")
    writer("os.close(fd)")
    assert other("os.stat('f').st_size") == 5 == len(b.read("f"))
