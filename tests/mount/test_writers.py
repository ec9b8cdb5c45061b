# SPDX-License-Identifier: GPL-2.0-or-later
"""Writers of whole files: nothing written nothing replaced (C8), rename and link as commits (C5), rewriters (C9)."""

import os
import stat
import time

import pytest
from harness import PYTHON, eventually, payload
from test_metrics import grown, numbers

OLD = payload("old", 20_000)


@pytest.fixture
def committed(hosts, source):
    """Two hosts, a file, and its inode on the source."""
    hosts[0].write("f", OLD)
    return (*hosts, os.path.join(source, "f"))


NOTHING = {
    "write-only": "os.close(os.open('f', os.O_WRONLY))",
    "read-write": "os.close(os.open('f', os.O_RDWR))",
    "create": "os.close(os.open('f', os.O_RDWR | os.O_CREAT, 0o600))",
    "append": "os.close(os.open('f', os.O_WRONLY | os.O_APPEND | os.O_CREAT))",
    "python-append": "open('f', 'a').close()",
    "fsync-only": "fd = os.open('f', os.O_RDWR); os.fsync(fd); os.close(fd)",
    "empty-write": "fd = os.open('f', os.O_RDWR); os.write(fd, b''); os.close(fd)",
    "read-through-it": "fd = os.open('f', os.O_RDWR); os.read(fd, 100); os.close(fd)",
    "shared-mapping-unwritten": "import mmap; fd = os.open('f', os.O_RDWR); m = mmap.mmap(fd, 0); m[:9]; m.close(); "
    "os.close(fd)",
    "truncate-to-same-size": "os.truncate('f', os.stat('f').st_size)",
}


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_written_nothing_replaced(committed, case):
    """C8: the same inode, the same times, the same bytes."""
    a, b, path = committed
    before = os.stat(path)
    a.python(NOTHING[case])
    after = os.stat(path)
    assert after.st_ino == before.st_ino
    if case != "truncate-to-same-size":
        assert after.st_mtime_ns == before.st_mtime_ns
    assert b.read("f") == OLD


def test_truncation_of_an_empty_file(hosts, source):
    """C8: O_TRUNC of an already empty file, and truncate(2), replace nothing."""
    a, b = hosts
    a.write("f", b"")
    before = os.stat(source + "/f").st_ino
    b("put('f', b'')")
    a("put('f', b'')")
    a("os.truncate('f', 0)")
    assert os.stat(source + "/f").st_ino == before


def test_touch(committed):
    """C8: touch changes the time and nothing else; it makes a file that is not there."""
    a, b, path = committed
    before = os.stat(path)
    a.run("touch -d '2020-02-02 02:02:02 UTC' f; touch new")
    after = os.stat(path)
    assert (after.st_ino, after.st_mtime) == (before.st_ino, 1580608922)
    assert b.list() == ["f", "new"] and b.read("f") == OLD
    a.run("touch f")
    assert abs(os.stat(path).st_mtime - time.time()) < 5


def test_empty_new_file(hosts, source):
    """C9: a new file without a byte is a file."""
    a, b = hosts
    a.run(": > empty")
    assert b.read("empty") == b""


ATTRIBUTES = {
    "chmod-path": ("os.chmod('f', 0o640)", "chmod"),
    "fchmod": ("os.fchmod(fd, 0o640)", "chmod"),
    "utimens-path": ("os.utime('f', (1e9, 1e9))", "time"),
    "futimens": ("os.utime(fd, (1e9, 1e9))", "time"),
    "chown-path": ("os.chown('f', 1234, 1235)", "owner"),
    "fchown": ("os.fchown(fd, 1234, 1235)", "owner"),
    "xattr-path": ("os.setxattr('f', 'user.key', b'value')", "xattr"),
    "fsetxattr": ("os.setxattr(fd, 'user.key', b'value')", "xattr"),
}


@pytest.mark.parametrize("kind", ["new", "replaced", "edited"])
@pytest.mark.parametrize("case", ATTRIBUTES)
def test_attributes_set_while_staged(hosts, source, case, kind):
    """C8: attributes set by path or descriptor belong to the stage: unseen before the commit, there after it."""
    a, b = hosts
    code, what = ATTRIBUTES[case]
    if kind != "new":
        a.write("f", OLD)
        before = os.stat(source + "/f")
    flags = "os.O_RDWR" if kind == "edited" else "REPLACE"
    writer = a.worker()
    writer("fd = os.open('f', %s, 0o666); os.write(fd, b'data')" % flags)
    writer(code)
    if kind != "new":
        now = os.stat(source + "/f")
        same = ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_ino")
        assert all(getattr(now, name) == getattr(before, name) for name in same)
    seen_by_fd = writer("tuple(os.fstat(fd))")
    seen_by_path = writer("tuple(os.stat('f'))")
    assert seen_by_fd == seen_by_path
    writer("os.close(fd)")
    after = os.stat(source + "/f")
    if what == "chmod":
        assert stat.S_IMODE(after.st_mode) == 0o640
    elif what == "time":
        assert after.st_mtime == 1e9
    elif what == "owner":
        assert (after.st_uid, after.st_gid) == (1234, 1235)
    else:
        assert os.getxattr(source + "/f", "user.key") == b"value"
    assert b.read("f")[:4] == b"data"


def test_attributes_only(committed):
    """C13, C8: chmod of a file that is open for writing, but not written: at once, in place."""
    a, b, path = committed
    before = os.stat(path).st_ino
    writer = a.worker()
    writer("fd = os.open('f', os.O_RDWR); os.fchmod(fd, 0o600); os.close(fd)")
    after = os.stat(path)
    assert (after.st_ino, stat.S_IMODE(after.st_mode)) == (before, 0o600)


def test_rename_commits(committed):
    """C5: f.tmp -> f while it is still open is a commit; later writes make the next version."""
    a, b, _ = committed
    reader = b.reader("f", [OLD, b"new", b"new and more"])
    writer = a.worker()
    writer("fd = os.open('f.tmp', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600); os.write(fd, b'new')")
    assert b.read("f") == OLD and "f.tmp" not in b.list()
    writer("os.rename('f.tmp', 'f')")
    assert b.read("f") == b"new" and b.list() == ["f"]
    writer("os.write(fd, b' and more')")
    assert b.read("f") == b"new"
    writer("os.close(fd)")
    assert b.read("f") == b"new and more"
    assert set(reader.stop()) <= {0, 1, 2}


def test_link_commits(hosts, source):
    """C5: link(2) of a name that is still being staged commits it; both names are one file."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('tmp_obj', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444); os.write(fd, b'object')")
    assert b.list() == []
    writer("os.link('tmp_obj', 'object')")
    assert b.read("object") == b"object" and b.read("tmp_obj") == b"object"
    assert os.stat(source + "/object").st_ino == os.stat(source + "/tmp_obj").st_ino
    writer("os.unlink('tmp_obj'); os.close(fd)")
    assert b.list() == ["object"]


def test_link_onto_existing(committed):
    """C5, C13: EEXIST stays EEXIST, whatever is staged."""
    a, b, _ = committed
    writer = a.worker()
    writer("fd = os.open('t', REPLACE, 0o666); os.write(fd, b'x')")
    assert writer("error(os.link, 't', 'f')") == "EEXIST"
    assert b.read("f") == OLD


def test_temporary_then_rename(committed):
    """C5: the usual way, closed before the rename, 50 times, with readers."""
    a, b, _ = committed
    versions = [OLD] + [payload("v%d" % n, 30_000) for n in range(50)]
    readers = [a.reader("f", versions), b.reader("f", versions)]
    writer = a.worker()
    for number, version in enumerate(versions[1:]):
        writer("put('.f.%d' % number, data); os.rename('.f.%d' % number, 'f')", number=number, data=version)
        assert b.read("f") == version
    for reader in readers:
        assert "absent" not in reader.stop()
    assert b.list() == ["f"]


def test_unlink_while_open(hosts, source):
    """C15: a file unlinked by its writer never comes back at close; its descriptor works on."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o600); os.write(fd, b'gone'); os.unlink('f')")
    assert writer("error(os.stat, 'f')") == "ENOENT"
    writer("os.write(fd, b' soon')")
    assert writer("os.pread(fd, 100, 0)") == b"gone soon"
    assert writer("os.fstat(fd).st_nlink") == 0
    writer("os.close(fd)")
    time.sleep(0.1)
    assert b.list() == a.list() == []


def test_unlink_of_a_file_being_rewritten(committed, source):
    """C15: the same with an old version there: both go."""
    a, b, _ = committed
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'x'); os.unlink('f'); os.write(fd, b'y'); os.close(fd)")
    time.sleep(0.1)
    assert b.list() == a.list() == []
    assert b.error("os.open", "f", os.O_RDONLY) == "ENOENT"


def test_unlink_and_anew(hosts):
    """C15: unlink by the writer, then a new file of the same name by somebody else, before the first close."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'first'); os.unlink('f')")
    a.write("f", b"second")
    writer("os.write(fd, b' again'); os.close(fd)")
    time.sleep(0.1)
    assert a.read("f") == b"second" and b.read("f") == b"second"


def test_named_temporary_file(hosts):
    """C15, C5: Python's NamedTemporaryFile, deleted and replaced, and TemporaryFile."""
    a, b = hosts
    a.run(
        [
            PYTHON,
            "-c",
            """
import os, tempfile
with tempfile.NamedTemporaryFile(dir='.') as f:
    f.write(b'x' * 1000)
    f.flush()
    assert os.path.getsize(f.name) == 1000
assert os.listdir('.') == []
with tempfile.NamedTemporaryFile(dir='.', delete=False) as f:
    f.write(b'kept')
os.replace(f.name, 'kept')
with tempfile.TemporaryFile(dir='.') as f:
    f.write(b'nameless')
    f.seek(0)
    assert f.read() == b'nameless'
with tempfile.TemporaryDirectory(dir='.') as d:
    open(d + '/inside', 'w').write('y')
""",
        ]
    )
    assert b.list() == ["kept"] and b.read("kept") == b"kept"


def test_tmpfile_and_linkat(hosts):
    """C14: O_TMPFILE is invisible until linkat(2) names it, by /proc/self/fd and by AT_EMPTY_PATH."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o640); os.write(fd, b'named later')")
    assert a.list() == b.list() == [] and writer("os.fstat(fd).st_nlink") == 0
    writer("name_it(fd, 'named')")
    assert b.read("named") == b"named later"
    writer("os.close(fd)")
    assert b.read("named") == b"named later" and b.list() == ["named"]
    writer(
        """
import ctypes
fd = os.open('.', os.O_TMPFILE | os.O_WRONLY, 0o600)
os.write(fd, b'by descriptor')
libc = ctypes.CDLL(None, use_errno=True)
result = libc.linkat(fd, b'', -100, b'second', 0x1000), ctypes.get_errno()
os.close(fd)
"""
    )
    assert b.read("second") == b"by descriptor"


def test_tmpfile_never_named(hosts, source, lab):
    """C14: an O_TMPFILE that is closed, or killed, without a name leaves nothing."""
    a, b = hosts
    a.python("fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600); os.write(fd, b'x' * 5000); os.close(fd)")
    worker = a.worker()
    worker("fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600); os.write(fd, b'x' * 5000)")
    worker.kill()
    assert a.list() == b.list() == []


def test_rewriters_on_both_hosts(hosts, lab):
    """C9: two writers on each host: always the whole file of one of them, the last one stays."""
    a, b = hosts
    a.write("f", OLD)
    versions = [OLD] + [payload("writer%d" % n, 30_000 + 10_000 * n) for n in range(4)]
    readers = [a.reader("f", versions), b.reader("f", versions)]
    writers = [a.worker(), a.worker(), b.worker(), b.worker()]
    for number, writer in enumerate(writers):
        code = "for i in range(rounds): put('f', data, piece=8192)"
        writer.start(code, data=versions[number + 1], rounds=8 if lab.is_emulated else 40)
    for writer in writers:
        writer.finish()
    for reader in readers:
        assert "absent" not in reader.stop()
    last = a.read("f")
    assert last in versions[1:] and b.read("f") == last


def test_last_commit_wins(hosts):
    """C9: not the last open, the last commit."""
    a, b = hosts
    first, second = a.worker(), b.worker()
    first("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'opened first')")
    second("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'opened second'); os.close(fd)")
    assert a.read("f") == b.read("f") == b"opened second"
    first("os.close(fd)")
    assert a.read("f") == b.read("f") == b"opened first"


def test_rewriters_on_one_host(hosts):
    """C9, C15: two strangers on one host do not share a stage."""
    a, b = hosts
    a.write("f", OLD)
    first, second = a.worker(), a.worker()
    first("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'AAAA')")
    second("fd = os.open('f', REPLACE, 0o666); os.write(fd, b'BB')")
    assert first("os.stat('f').st_size, get('f')") == (4, b"AAAA")
    assert second("os.stat('f').st_size, get('f')") == (2, b"BB")
    assert a.read("f") == b.read("f") == OLD
    second("os.close(fd)")
    assert b.read("f") == b"BB" and first("get('f')") == b"AAAA"
    first("os.close(fd)")
    assert b.read("f") == a.read("f") == b"AAAA"


def test_many_rewrites_of_small_files(hosts):
    """C9: 200 names, each written by both hosts; every file is one of the two."""
    a, b = hosts
    workers = {b"alpha": a.worker(), b"beta": b.worker()}
    for name, worker in workers.items():
        worker.start("for i in range(200): put('n%03d' % i, data * i)", data=name)
    for worker in workers.values():
        worker.finish()
    for number in range(200):
        content = b.read("n%03d" % number)
        assert content in (b"alpha" * number, b"beta" * number)
    assert a.list() == b.list() == ["n%03d" % n for n in range(200)]


def test_rewrite_while_read_by_mapping(hosts):
    """C1: a mapped old version keeps its bytes, page by page, through later commits."""
    a, b = hosts
    data = payload("mapped", 300_000)
    a.write("f", data)
    reader = b.worker()
    reader("import mmap; fd = os.open('f', os.O_RDONLY); m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)")
    for number in range(5):
        a.write("f", payload("v%d" % number, 100_000))
        at = 60_000 * number
        assert reader("m[at:at + 60000]", at=at) == data[at : at + 60_000]
    b.write("f", b"short")
    assert reader("bytes(m)") == data


def test_a_write_is_one_message(host):
    """What is written goes to the daemon as it is: a message for each MiB, and none that asks for attributes before."""
    code = """
import mmap
data = mmap.mmap(-1, 8 << 20)
data[:] = b'x' * len(data)
fd = os.open('f', REPLACE)
for at in range(0, len(data), 1 << 20):
    write_all(fd, memoryview(data)[at:at + (1 << 20)])
os.close(fd)
"""
    before = numbers(host)
    host(code)
    grew = grown(host, before)
    assert grew["request_duration_seconds_count", "write"] == 8
    assert grew["request_duration_seconds_count", "getxattr"] == 1  # of who asks for the numbers
    assert host.read("f") == b"x" * (8 << 20)


def test_written_and_mapped_at_once(hosts):
    """C14, C15: two descriptors of one stage, one for writing only and one mapped: each sees what the other does."""
    a, b = hosts
    writer = a.worker()
    writer("import mmap; w = os.open('f', REPLACE); write_all(w, b'a' * 10000); r = os.open('f', os.O_RDWR)")
    writer("m = mmap.mmap(r, 10000)")
    assert writer("m[:] == os.pread(r, 10000, 0) == b'a' * 10000")
    writer("m[1] = ord('M'); os.pwrite(w, b'W', 3); m[5] = ord('M'); os.pwrite(w, b'WW', 9998)")
    assert writer("m[:7], m[9997:], os.pread(r, 7, 0)") == (b"aMaWaMa", b"aWW", b"aMaWaMa")
    assert a.error("get", "f") == b.error("get", "f") == "ENOENT"
    writer("m.flush(); del m; os.close(w); os.close(r)")
    assert eventually(lambda: b.read("f")[:7] == b"aMaWaMa") and b.read("f")[9997:] == b"aWW"


def test_error_of_a_write_is_made_good(hosts):
    """C3: EBADF and EISDIR stay what they are, and spoil nothing."""
    a, b = hosts
    assert a.error("os.open", ".", os.O_WRONLY) == "EISDIR"
    writer = a.worker()
    writer("fd = os.open('f', REPLACE, 0o666)")
    assert writer("error(os.read, fd, 1)") == "EBADF"
    writer("os.write(fd, b'ok'); os.close(fd)")
    assert eventually(lambda: b.read("f") == b"ok")
