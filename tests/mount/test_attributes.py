# SPDX-License-Identifier: GPL-2.0-or-later
"""Attributes across a commit (C17), and who may do what: a root mount with callers of many uids."""

import os
import stat
import subprocess
import time

import pytest

USER, GROUP, OTHER = 31001, 31002, 31003


@pytest.fixture
def shared(hosts, source):
    """The top of the source is open to everybody."""
    os.chmod(source, 0o777)
    return (*hosts, source)


def facts(path):
    st = os.lstat(path)
    return stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid


def test_mode_owner_group_kept(shared):
    """C17: a file replaced by its owner keeps mode, owner and group."""
    a, b, source = shared
    a("put('f', b'x'); os.chmod('f', 0o2640); os.chown('f', uid, gid); os.chmod('f', 0o640)", uid=USER, gid=GROUP)
    owner = a.worker(uid=USER, gid=GROUP)
    owner("put('f', b'new')")
    assert facts(source + "/f") == (0o640, USER, GROUP) and b.read("f") == b"new"


def test_root_rewrites_a_users_file(shared):
    """C17: the owner stays where the server lets us."""
    a, _, source = shared
    a("put('f', b'x'); os.chown('f', uid, gid); os.chmod('f', 0o640)", uid=USER, gid=GROUP)
    a("put('f', b'by root'); put_at('f', (0, b'B'))")
    assert facts(source + "/f") == (0o640, USER, GROUP)


def test_another_user_becomes_the_owner(shared):
    """C17: written by another user, who may not give files away: the writer owns it; mode and group stay."""
    a, b, source = shared
    a("put('f', b'x'); os.chown('f', uid, gid); os.chmod('f', 0o666)", uid=USER, gid=GROUP)
    other = a.worker(uid=OTHER, gid=OTHER, groups=str(GROUP))
    other("put('f', b'by other')")
    mode, uid, gid = facts(source + "/f")
    assert b.read("f") == b"by other"
    assert (mode, gid) == (0o666, GROUP) and uid in (USER, OTHER)


def test_setuid_cleared_when_another_user_writes(shared):
    """C17: mode less setuid, setgid and file capabilities."""
    a, _, source = shared
    a("put('f', b'x'); os.chown('f', uid, gid); os.chmod('f', 0o6777)", uid=USER, gid=GROUP)
    a.run("setcap cap_net_raw+ep f || true")
    a.worker(uid=OTHER, gid=OTHER)("put('f', b'y')")
    assert facts(source + "/f")[0] == 0o777
    assert "security.capability" not in os.listxattr(source + "/f")


def test_setuid_of_new_content_by_its_owner(shared):
    """C17: as after a plain write by an ordinary owner: the kernel clears it there, and so do we."""
    a, _, source = shared
    native = source + "-native"
    for path in (source + "/f", native):
        with open(path, "wb") as f:
            f.write(b"x")
        os.chown(path, USER, GROUP)
        os.chmod(path, 0o4755)
    owner = a.worker(uid=USER, gid=GROUP)
    owner("put('f', b'y')")
    os.chmod(os.path.dirname(native), 0o755)
    a.worker(uid=USER, gid=GROUP)("put(path, b'y')", path=native)
    assert facts(source + "/f") == facts(native)
    os.unlink(native)


def test_xattrs_and_acl_kept(shared):
    """C17: user xattrs and the ACL survive a rewrite and an edit."""
    a, b, source = shared
    a("put('f', b'x' * 100); os.setxattr('f', 'user.one', b'1'); os.setxattr('f', 'user.two', b'2' * 1000)")
    a.run("setfacl -m u:%d:rw,g:%d:r f" % (USER, GROUP))
    acl = b.run("getfacl -cnE f").stdout
    for change in ("put('f', b'new')", "put_at('f', (1, b'edit'))", "put('f', b'+', flags=os.O_WRONLY | os.O_APPEND)"):
        a(change)
        assert b.run("getfacl -cnE f").stdout == acl
        assert os.getxattr(source + "/f", "user.one") == b"1"
        assert os.getxattr(source + "/f", "user.two") == b"2" * 1000


def new_file(host, name, **who):
    host.worker(**who)("put(name, b'x', mode=0o666)", name=name)


def test_umask_and_plain_create(shared):
    """C17: a new file gets what a plain create would give: umask, the caller's uid and gid."""
    a, _, source = shared
    worker = a.worker(uid=USER, gid=GROUP)
    for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0, 0o666)):
        worker("os.umask(mask); put('f%o' % mask, b'x'); os.mkdir('d%o' % mask)", mask=umask)
        assert facts(source + "/f%o" % umask) == (mode, USER, GROUP)
        assert facts(source + "/d%o" % umask) == (0o777 & ~umask, USER, GROUP)


def test_setgid_directory(shared):
    """C17: the group of a setgid directory, for files and directories; staged, temporary and exclusive ones."""
    a, _, source = shared
    a("os.mkdir('d'); os.chown('d', 0, gid); os.chmod('d', 0o2777)", gid=OTHER)
    worker = a.worker(uid=USER, gid=GROUP, groups=str(OTHER))
    worker("os.umask(0o002); os.mkdir('d/sub'); put('d/f', b'x')")
    worker("put('d/e', b'x', flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL)")
    worker("put('d/g', b'x', flags=os.O_WRONLY | os.O_CREAT | os.O_APPEND)")
    worker("fd = os.open('d', os.O_TMPFILE | os.O_WRONLY, 0o664); os.write(fd, b'x'); name_it(fd, 'd/t'); os.close(fd)")
    for name in ("f", "e", "g", "t"):
        assert facts("%s/d/%s" % (source, name)) == (0o664, USER, OTHER), name
    assert facts(source + "/d/sub") == (0o2775, USER, OTHER)


def test_default_acl(shared):
    """C17: the directory's default ACL, as the kernel applies it to a plain create (umask does not count then)."""
    a, _, source = shared
    plain = os.path.join(source, "plain")
    a("os.mkdir('d', 0o777); os.chmod('d', 0o777)")
    a.run("setfacl -d -m u::rwx,g::r-x,o::---,u:%d:rwx,m::rwx d" % OTHER)
    worker = a.worker(uid=USER, gid=GROUP)
    worker("os.umask(0o027); put('d/f', b'x')")
    worker("put('d/e', b'x', flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o640)")
    worker("os.mkdir('d/sub')")
    native = a.worker(uid=USER, gid=GROUP, cwd=os.path.join(source, "d"))
    native("os.umask(0o027); put('nf', b'x'); put('ne', b'x', mode=0o640); os.mkdir('nsub')")
    for mine, theirs in (("f", "nf"), ("e", "ne"), ("sub", "nsub")):
        found = a.run("getfacl -cnE d/%s; getfacl -cnE d/%s" % (mine, theirs)).stdout.strip().split("\n\n")
        assert found[0] == found[1], (mine, found)
        assert facts("%s/d/%s" % (source, mine)) == facts("%s/d/%s" % (source, theirs))
    assert not os.path.exists(plain)


@pytest.mark.parametrize("where", ["all of it", "a mount within"])
def test_source_without_acls(lab, source, where):
    """C17: the mode says who may do what on a file system that has no ACLs, as NFS 4 has none of POSIX's."""
    inner = "" if where == "all of it" else "inner/"
    os.makedirs(source + "/" + inner, exist_ok=True)
    subprocess.run(["mount", "-t", "ramfs", "none", source + "/" + inner], check=True)
    lab.mounts.append(source + "/" + inner)
    host = lab.host(source, "alpha")
    os.mkdir(source + "/%sd" % inner)
    with open(source + "/%sd/f" % inner, "wb") as f:
        f.write(b"whole")
    os.chmod(f.name, 0o640)
    os.chown(f.name, 0, GROUP)
    member, stranger = host.worker(uid=USER, gid=GROUP), host.worker(uid=OTHER, gid=OTHER)
    for worker in member, stranger:
        assert worker("os.listdir(d + 'd')", d=inner) == ["f"]
    assert member("open(d + 'd/f', 'rb').read()", d=inner) == b"whole"
    assert member("error(os.open, d + 'd/f', os.O_RDWR)", d=inner) == "EACCES"
    assert stranger("error(os.open, d + 'd/f', os.O_RDONLY)", d=inner) == "EACCES"


def test_permissions(shared):
    """C24, C17: EACCES and EPERM as the source's own rules say; other groups of the caller count."""
    a, b, source = shared
    a("put('mine', b'x', mode=0o600); os.mkdir('closed', 0o700); os.mkdir('listed', 0o755)")
    a("put('grouped', b'x'); os.chown('grouped', 0, gid); os.chmod('grouped', 0o660)", gid=GROUP)
    user = a.worker(uid=USER, gid=USER)
    member = a.worker(uid=USER, gid=USER, groups=str(GROUP))
    assert user("error(os.open, 'mine', os.O_RDONLY)") == "EACCES"
    assert user("error(os.open, 'mine', os.O_WRONLY)") == "EACCES"
    assert user("error(put, 'closed/f', b'x')") == "EACCES"
    assert user("error(os.listdir, 'closed')") == "EACCES"
    assert user("error(put, 'listed/f', b'x')") == "EACCES"
    assert user("error(os.mkdir, 'listed/d')") == "EACCES"
    assert user("error(os.chmod, 'mine', 0o666)") == "EPERM"
    assert user("error(os.chown, 'mine', %d, -1)" % USER) == "EPERM"
    assert user("error(os.open, 'grouped', os.O_WRONLY)") == "EACCES"
    assert member("error(put, 'grouped', b'by a member')") is None
    assert b.read("grouped") == b"by a member"


def test_sticky_directory(shared):
    """C13, C17: in a sticky directory others neither remove nor rename a file; who may write it does so in place."""
    a, b, source = shared
    a("os.mkdir('tmp'); os.chmod('tmp', 0o1777)")
    a("put('tmp/f', b'0123456789'); os.chown('tmp/f', uid, gid); os.chmod('tmp/f', 0o666)", uid=USER, gid=GROUP)
    before = os.stat(source + "/tmp/f")
    other = a.worker(uid=OTHER, gid=OTHER)
    assert other("error(os.unlink, 'tmp/f')") in ("EPERM", "EACCES")
    assert other("error(os.rename, 'tmp/f', 'tmp/g')") in ("EPERM", "EACCES")
    other("put('tmp/f', b'in place')")
    after = os.stat(source + "/tmp/f")
    assert (after.st_ino, after.st_uid) == (before.st_ino, USER) and b.read("tmp/f") == b"in place"


def test_writable_file_in_a_foreign_directory(shared, lab):
    """C17: the caller may write the file but not replace it: in place, decided at open, and logged."""
    a, b, source = shared
    a("os.mkdir('d', 0o755); put('d/f', b'old'); os.chmod('d/f', 0o666)")
    before = os.stat(source + "/d/f").st_ino
    user = a.worker(uid=USER, gid=GROUP)
    user("put('d/f', b'written')")
    assert b.read("d/f") == b"written" and os.stat(source + "/d/f").st_ino == before
    user("put_at('d/f', (0, b'W'))")
    user("put('d/f', b' and more', flags=os.O_WRONLY | os.O_APPEND)")
    assert b.read("d/f") == b"Written and more" and os.stat(source + "/d/f").st_ino == before
    assert "in place" in lab.log_text()


def test_times(shared):
    """C17: mtime is that of the last write, and no older than 2 s at the commit; set by the program it stays."""
    a, _, source = shared
    worker = a.worker()
    worker("fd = os.open('slow', REPLACE, 0o644); os.write(fd, b'x')")
    time.sleep(2.6)
    worker("os.close(fd)")
    assert time.time() - os.stat(source + "/slow").st_mtime < 2.3
    worker("fd = os.open('set', REPLACE, 0o644); os.write(fd, b'x'); os.utime(fd, (1, 2)); os.close(fd)")
    assert os.stat(source + "/set").st_mtime == 2
    before = time.time() - 0.02
    worker("put('now', b'x')")
    assert before <= os.stat(source + "/now").st_mtime <= time.time() + 0.02


def test_commit_through_a_symlink(shared):
    """C13: a write through a symbolic link replaces what it points to, not the link."""
    a, b, source = shared
    a("os.mkdir('d'); put('d/target', b'old'); os.symlink('d/target', 'l')")
    a.write("l", b"new")
    assert os.path.islink(source + "/l") and b.read("d/target") == b"new"
    a("os.symlink('d/created', 'm'); put('m', b'made')")
    assert b.read("d/created") == b"made"


def test_staged_file_of_a_user_is_private(shared):
    """C26: the stage on the source is no door for others: its mode is not wider than the file's."""
    a, _, source = shared
    worker = a.worker(uid=USER, gid=GROUP)
    worker("fd = os.open('secret', REPLACE, 0o600); os.write(fd, b'secret')")
    stages = [os.path.join(d, f) for d, _, fs in os.walk(source + "/.safewritefs/hosts") for f in fs if "stage" in d]
    assert stages
    for stage in stages:
        mode, uid, _ = facts(stage)
        assert uid == USER and mode & 0o077 == 0
    worker("os.close(fd)")


def test_own_uid_files_of_all_kinds(shared):
    """C13: what an ordinary caller makes is the caller's."""
    a, _, source = shared
    user = a.worker(uid=USER, gid=GROUP)
    user("os.mkdir('d'); os.symlink('x', 'l'); os.mkfifo('p'); put('f', b'x'); os.link('f', 'h')")
    for name in ("d", "l", "p", "f", "h"):
        assert facts(source + "/" + name)[1:] == (USER, GROUP), name


def test_a_stage_is_known_at_once(hosts):
    """C15, C2: what fstat and stat say while a file is written, truncated, changed and committed is never older."""
    a, b = hosts
    program, child = a.worker(), a.worker()
    for flags in ("os.O_WRONLY", "os.O_RDWR"):
        program("fd = os.open('f', %s | os.O_CREAT | os.O_TRUNC, 0o640); assert os.fstat(fd).st_size == 0" % flags)
        program(
            "for n in range(1, 30): os.write(fd, b'x' * 1000); "
            "assert os.fstat(fd).st_size == os.stat('f').st_size == 1000 * n; assert os.fstat(fd).st_blocks > 0"
        )
        program("os.ftruncate(fd, 5000); assert os.fstat(fd).st_size == 5000 == os.stat('f').st_size")
        program("os.truncate('f', 6000); assert os.fstat(fd).st_size == 6000 == os.stat('f').st_size")
        program("os.chmod('f', 0o604); assert os.fstat(fd).st_mode & 0o777 == 0o604 == os.stat('f').st_mode & 0o777")
        program("os.fchmod(fd, 0o600); assert os.stat('f').st_mode & 0o777 == 0o600")
        program("os.utime('f', (5, 7)); assert (os.fstat(fd).st_mtime, os.stat('f').st_atime) == (7, 5)")
        program("before = os.fstat(fd).st_mtime; os.pwrite(fd, b'y', 0); assert os.fstat(fd).st_mtime > before")
        program("os.posix_fallocate(fd, 0, 9000); assert os.fstat(fd).st_size == 9000 == os.stat('f').st_size")
        program(
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    os.pwrite(fd, b'z', 19999)\n"
            "    os._exit(0)\n"
            "os.waitpid(pid, 0); assert os.fstat(fd).st_size == 20000 == os.stat('f').st_size"
        )
        program("os.close(fd); assert os.stat('f').st_size == 20000")
        assert child("os.stat('f').st_size") == 20000 == b("os.stat('f').st_size")
        assert child("os.stat('f').st_mtime_ns") == b("os.stat('f').st_mtime_ns")
        b("put('f', b'')")
