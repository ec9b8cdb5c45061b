# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations on names (C13): at once, on both hosts, with the exact errno."""

import os
import stat

import pytest


def test_visible_at_once(hosts):
    """C2, C13: mkdir, symlink, link, mknod, rename, unlink, rmdir: seen by the other host's next look."""
    a, b = hosts
    for number in range(20):
        first, second = (a, b) if number % 2 else (b, a)
        first("os.mkdir('d')")
        assert second("stat.S_ISDIR(os.stat('d').st_mode)")
        first("put('d/f', b'data')")
        assert second.read("d/f") == b"data"
        first("os.symlink('d/f', 'l')")
        assert second("os.readlink('l')") == "d/f" and second.read("l") == b"data"
        first("os.link('d/f', 'h')")
        assert second.read("h") == b"data"
        first("os.mkfifo('p'); os.mknod('s', stat.S_IFSOCK | 0o600)")
        assert second("stat.S_ISFIFO(os.stat('p').st_mode), stat.S_ISSOCK(os.stat('s').st_mode)") == (True, True)
        first("os.rename('d', 'e')")
        assert second.read("e/f") == b"data" and second.error("os.open", "d", 0) == "ENOENT"
        first("os.unlink('e/f'); os.unlink('l'); os.unlink('h'); os.unlink('p'); os.unlink('s')")
        assert second.list("e") == [] and second.error("os.open", "h", 0) == "ENOENT"
        first("os.rmdir('e')")
        assert second.list() == []


def test_symlink_replaced(hosts):
    """C2: a symbolic link on the way may be attr-cache old, at the end of the path it is read anew by readlink."""
    a, b = hosts
    a("put('one', b'1'); put('two', b'2'); os.symlink('one', 'l')")
    assert b.read("l") == b"1"
    a("os.symlink('two', 't'); os.rename('t', 'l')")
    b("time.sleep(1.1)")
    assert b.read("l") == b"2" and b("os.readlink('l')") == "two"


ERRORS = [
    ("os.mkdir", ("f",), "EEXIST"),
    ("os.mkdir", ("d",), "EEXIST"),
    ("os.mkdir", ("missing/x",), "ENOENT"),
    ("os.mkdir", ("f/x",), "ENOTDIR"),
    ("os.mkdir", ("x" * 256,), "ENAMETOOLONG"),
    ("os.rmdir", ("f",), "ENOTDIR"),
    ("os.rmdir", ("full",), "ENOTEMPTY"),
    ("os.rmdir", ("missing",), "ENOENT"),
    ("os.rmdir", ("d/.",), "EINVAL"),
    ("os.unlink", ("missing",), "ENOENT"),
    ("os.unlink", ("d",), "EISDIR"),
    ("os.unlink", ("f/x",), "ENOTDIR"),
    ("os.symlink", ("x", "f"), "EEXIST"),
    ("os.symlink", ("", "new"), "ENOENT"),
    ("os.link", ("missing", "new"), "ENOENT"),
    ("os.link", ("f", "d"), "EEXIST"),
    ("os.link", ("d", "new"), "EPERM"),
    ("os.rename", ("missing", "new"), "ENOENT"),
    ("os.rename", ("f", "d"), "EISDIR"),
    ("os.rename", ("d", "f"), "ENOTDIR"),
    ("os.rename", ("d", "full"), "ENOTEMPTY"),
    ("os.rename", ("d", "d/inside"), "EINVAL"),
    ("os.open", ("missing", os.O_RDONLY), "ENOENT"),
    ("os.open", ("missing", os.O_WRONLY), "ENOENT"),
    ("os.open", ("missing/f", os.O_WRONLY | os.O_CREAT), "ENOENT"),
    ("os.open", ("d", os.O_WRONLY), "EISDIR"),
    ("os.open", ("d", os.O_RDWR | os.O_CREAT), "EISDIR"),
    ("os.open", ("f", os.O_RDONLY | os.O_DIRECTORY), "ENOTDIR"),
    ("os.open", ("l", os.O_RDONLY | os.O_NOFOLLOW), "ELOOP"),
    ("os.open", ("loop", os.O_RDONLY), "ELOOP"),
    ("os.readlink", ("f",), "EINVAL"),
    ("os.chmod", ("missing", 0o600), "ENOENT"),
    ("os.chown", ("missing", 0, 0), "ENOENT"),
    ("os.utime", ("missing",), "ENOENT"),
    ("os.getxattr", ("f", "user.none"), "ENODATA"),
    ("os.removexattr", ("f", "user.none"), "ENODATA"),
    ("os.setxattr", ("f", "user.has", b"x", os.XATTR_CREATE), "EEXIST"),
    ("os.setxattr", ("f", "user.none", b"x", os.XATTR_REPLACE), "ENODATA"),
    ("os.setxattr", ("f", "nonsense", b"x"), "ENOTSUP"),
    ("os.truncate", ("f", -1), "EINVAL"),
    ("os.truncate", ("d", 0), "EISDIR"),
    ("os.mkfifo", ("f",), "EEXIST"),
    ("os.listdir", ("f",), "ENOTDIR"),
]

SCENE = """
put('f', b'data')
os.setxattr('f', 'user.has', b'value')
os.mkdir('d')
os.makedirs('full/x')
os.symlink('f', 'l')
os.symlink('loop', 'loop')
"""


def test_exact_errnos(hosts, lab):
    """C13: each call ends as it does on the file system of the source itself."""
    a, _ = hosts
    a(SCENE)
    plain = lab.source("plain")
    native = a.worker(cwd=plain)
    native(SCENE)
    for call, arguments, name in ERRORS:
        assert native("error(%s, *x)" % call, x=arguments) == name, "native %s%r" % (call, arguments)
        assert a.error(call, *arguments) == name, "%s%r" % (call, arguments)
    assert a.list() == sorted(["f", "d", "full", "l", "loop"])


RENAMES = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def renameat2(old, new, flags):
    if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) < 0:
        raise OSError(ctypes.get_errno(), old)
"""


def test_renameat2(hosts):
    """C13: NOREPLACE and EXCHANGE, and mv, which uses them; other flags EINVAL."""
    a, b = hosts
    worker = a.worker()
    worker(RENAMES)
    worker("put('one', b'1'); put('two', b'2'); os.mkdir('d')")
    assert worker("error(renameat2, 'one', 'two', 1)") == "EEXIST"
    worker("renameat2('one', 'three', 1)")
    assert b.list() == ["d", "three", "two"]
    worker("renameat2('three', 'two', 2)")
    assert (b.read("two"), b.read("three")) == (b"1", b"2")
    worker("renameat2('two', 'd', 2)")
    assert b.read("d") == b"1" and b("stat.S_ISDIR(os.lstat('two').st_mode)")
    assert worker("error(renameat2, 'three', 'missing', 2)") == "ENOENT"
    assert worker("error(renameat2, 'three', 'new', 3)") == "EINVAL"
    b.run("mv -n three d; mv three four")
    assert a.list() == ["d", "four", "two"]


def test_exchange_with_stages(hosts):
    """C13, C15: EXCHANGE of a staged name and a committed one commits it."""
    a, b = hosts
    a.write("old", b"old")
    worker = a.worker()
    worker(RENAMES)
    worker("fd = os.open('new', REPLACE, 0o666); os.write(fd, b'new'); renameat2('new', 'old', 2)")
    assert (b.read("old"), b.read("new")) == (b"new", b"old")
    worker("os.close(fd)")
    assert (b.read("old"), b.read("new")) == (b"new", b"old")


def test_hard_links(hosts, source):
    """C13, C17: link counts and inode numbers are honest; a commit breaks the link it goes through, and only that."""
    a, b = hosts
    a("put('f', b'one'); os.link('f', 'g'); os.link('f', 'h')")
    assert b.look("f").st_nlink == 3 and b.look("f").st_ino == b.look("g").st_ino
    b.write("g", b"two")
    assert (a.read("f"), a.read("g"), a.read("h")) == (b"one", b"two", b"one")
    assert os.stat(source + "/f").st_nlink == 2 and os.stat(source + "/g").st_nlink == 1
    assert a.look("g").st_nlink == 1 and a.look("f").st_nlink == 2
    a("os.unlink('f')")
    assert b.read("h") == b"one" and b.look("h").st_nlink == 1


def test_symlinks_and_special_files(hosts, source):
    """C13: long and dangling links, fifos that connect processes of a host, device nodes."""
    a, b = hosts
    a("os.symlink('x' * 4000, 'long'); os.symlink('/nowhere', 'dangling'); os.mkfifo('p', 0o600)")
    assert b("os.readlink('long')") == "x" * 4000 and b("os.path.exists('dangling')") is False
    a("os.mknod('null', stat.S_IFCHR | 0o666, os.makedev(1, 3))")
    assert os.stat(source + "/null").st_rdev == os.makedev(1, 3)
    reader = a.popen("cat p", stdout=-1)
    a.run("echo through > p")
    assert reader.communicate(timeout=10)[0] == b"through\n"
    assert stat.S_ISLNK(os.lstat(source + "/dangling").st_mode)


def test_directories(hosts):
    """C13: trees, moves between directories, seekdir, many entries, names of all kinds."""
    a, b = hosts
    names = ["plain", "with space", "a\nnewline", "ünï", "-dash", "x" * 255, ".hidden", "percent%d"]
    a("for n in names: put(n, n.encode())", names=names)
    assert b.list() == sorted(names)
    a("os.makedirs('t/u/v'); put('t/u/v/f', b'deep'); os.mkdir('w'); os.rename('t/u', 'w/u')")
    assert b.read("w/u/v/f") == b"deep" and b.list("t") == []
    assert b("os.stat('w/u/..').st_ino == os.stat('w').st_ino")
    a.run("rm -rf t w")
    assert b.list() == sorted(names)


def test_large_directory(hosts):
    """C13: 20,000 entries: each once, while others come and go; rm -rf leaves nothing."""
    a, b = hosts
    a("os.mkdir('d')\nfor i in range(20000): os.mknod('d/%05d' % i)")
    lister = b.worker()
    lister.start("sorted(os.listdir('d'))")
    a("for i in range(200): os.mknod('d/x%d' % i); os.unlink('d/x%d' % i)")
    assert [name for name in lister.finish() if name[0] != "x"] == ["%05d" % i for i in range(20000)]
    b.run("rm -rf d")
    assert a.list() == []


def test_statfs(hosts, source):
    """C13: df tells what the source's file system tells."""
    a, _ = hosts
    mine, theirs = a("tuple(os.statvfs('.'))"), os.statvfs(source)
    assert mine[0] and mine[2] == theirs.f_blocks and mine[9] == theirs.f_namemax


def test_unlinked_directory_and_cwd(hosts):
    """C13: a working directory that was removed: ENOENT for new names, no crash."""
    a, b = hosts
    a("os.mkdir('d')")
    worker = a.worker()
    worker("os.chdir('d')")
    b("os.rmdir('d')")
    assert worker("error(put, 'f', b'x')") == "ENOENT"
    assert worker("error(os.listdir, '.')") == "ENOENT"
    worker("os.chdir('..')")


def test_chmod_and_friends_on_committed_files(hosts, source):
    """C13: attributes of files nobody writes: at once on the source, and seen elsewhere."""
    a, b = hosts
    a.write("f", b"x")
    ino = os.stat(source + "/f").st_ino
    a("os.chmod('f', 0o4751); os.utime('f', (5, 6)); os.setxattr('f', 'user.k', b'v'); os.chown('f', 5, 6)")
    found = os.stat(source + "/f")
    assert (found.st_ino, found.st_uid, found.st_gid, found.st_atime, found.st_mtime) == (ino, 5, 6, 5, 6)
    assert b("os.getxattr('f', 'user.k'), os.listxattr('f')") == (b"v", ["user.k"])
    a("os.removexattr('f', 'user.k')")
    assert b.error("os.getxattr", "f", "user.k") == "ENODATA"
    a("os.symlink('f', 'l'); os.chown('l', 7, 8, follow_symlinks=False); os.utime('l', (9, 9), follow_symlinks=False)")
    assert os.lstat(source + "/l").st_uid == 7 and os.lstat(source + "/l").st_mtime == 9


@pytest.mark.limit(90)
def test_trees(hosts, lab):
    """C13, C14: cp -a, rsync -a and tar of a real tree compare equal with content, mode, owner, times and xattrs."""
    a, b = hosts
    a.run(
        """
set -e
mkdir t; cp -a /usr/lib/python3.*/json /usr/lib/python3.*/email t/
ln -s json/decoder.py t/link; ln t/json/decoder.py t/hard; mkfifo t/fifo; setfattr -n user.k -v v t/json
chown 1000:1001 t/hard; touch -d '2001-01-01 UTC' t/json/encoder.py; chmod 2750 t/email
cp -a t cp; rsync -aHAX t/ rsync; tar cpf t.tar --xattrs -C t .; mkdir tar; tar xpf t.tar --xattrs -C tar
"""
    )
    look = (
        "cd %s; find . -printf '%%P %%y %%m %%u %%g %%l %%n\\n' | sort;"
        " find . -type f -printf '%%P %%s %%T@\\n' | sort"
    )
    for copy in ("cp", "rsync", "tar"):
        assert b.run(look % copy).stdout == b.run(look % "t").stdout, copy
        b.run("diff -r --no-dereference t %s -x fifo; getfattr -n user.k %s/json" % (copy, copy))
    a.run("rm -rf t cp rsync tar t.tar")
    assert b.list() == []


NAMED_TWICE = [
    "put('a', b'A'); os.link('a', 'b'); os.unlink('b'); os.link('a', 'e')",
    "put('a', b'A'); os.link('a', 'b'); os.stat('a'); os.unlink('b'); os.link('a', 'e')",
    "put('a', b'A'); put('q', b'Q'); os.link('a', 'c'); os.rename('q', 'c'); os.link('a', 'e')",
    "put('a', b'A'); put('q', b'Q'); os.link('a', 'c'); os.rename('q', 'c'); os.chmod('a', 0o600); os.link('a', 'e')",
    "put('a', b'A'); os.link('a', 'b'); os.unlink('a'); os.rename('b', 'b'); os.link('b', 'c'); os.unlink('c');"
    " os.rename('b', 'b'); os.link('b', 'e')",
    "os.symlink('T', 'a'); os.link('a', 'b', follow_symlinks=False); os.unlink('a'); os.rename('b', 'b');"
    " os.link('b', 'c', follow_symlinks=False); os.unlink('c'); put('e', os.readlink('b').encode())",
]


@pytest.mark.parametrize("code", NAMED_TWICE)
def test_links_of_a_file_that_lost_a_name(host, lab, code):
    """C13: link(2), chmod(2), readlink(2) by the name that is left, or that was not replaced."""
    there = "{name: (get(name), os.stat(name).st_mode, os.stat(name).st_nlink) for name in os.listdir() if name != 'b'}"
    there += " if not os.path.islink('b') else get('e')"
    plain = os.path.join(lab.directory, "plain")
    os.mkdir(plain)
    worker = host.worker(cwd=plain)
    worker(code)
    host(code)
    assert host(there) == worker(there)
