# SPDX-License-Identifier: GPL-2.0-or-later
"""`mount -o remount`: what can change while mounted does, what cannot is refused and nothing is changed.
safewritefs(8), REMOUNT.  (Through mount(8) itself: test_fstab.py.)"""

import os
import time

import pytest
from background import Background
from harness import eventually, read_text
from test_daemon import NOBODY, launch_as_user, users_host  # noqa: F401  a fixture


@pytest.fixture
def alpha(lab, source):
    return lab.host(source, "alpha", mount=False)


def remount(host, options, source=None, mnt=None, **named):
    argv = [host.lab.daemon, source or host.source, mnt or host.mnt, "-o", "remount," + options]
    return host.run(argv, check=False, cwd="/", **named)


def refused(host, options, sentence, **named):
    done = remount(host, options, **named)
    assert done.returncode == 32 and sentence in done.stderr, done
    return done


def flags(host):
    (line,) = [
        line for line in read_text("/proc/%d/mountinfo" % host.pid).splitlines() if line.split()[4] == host.mnt
    ]
    return set(line.split()[5].split(",")) | {"sb-" + word for word in line.split(" - ")[1].split()[2].split(",")}


def attr_cache(host, source):
    """How long the kernel believes a mode: a change on the source, seen by stat."""
    name = "aged-%d" % time.monotonic_ns()
    with open(os.path.join(source, name), "wb"):
        pass
    before = host("os.stat(path).st_mode", path=name)
    os.chmod(os.path.join(source, name), 0o400)
    began = time.monotonic()
    assert eventually(lambda: host("os.stat(path).st_mode", path=name) != before, 10)
    return time.monotonic() - began


def test_a_setting(alpha, source):
    """C2: attr-cache is what it was remounted to, from then on; opens and files stay as they are."""
    alpha.mount("attr-cache=3")
    worker = alpha.worker()
    worker("fd = os.open('f', REPLACE); os.write(fd, b'half ')")
    assert attr_cache(alpha, source) > 2
    assert remount(alpha, "attr-cache=0,lease=20").returncode == 0
    assert attr_cache(alpha, source) < 1
    worker("os.write(fd, b'and half'); os.close(fd)")
    assert alpha.read("f") == b"half and half"


def test_on_kill(alpha):
    """C4: on-kill counts for those who are killed afterwards."""
    alpha.mount()
    for option, content in (("on-kill=commit", b"torso"), ("on-kill=salvage", b"torso")):
        assert remount(alpha, option).returncode == 0
        worker = alpha.worker()
        worker("fd = os.open('f', REPLACE); os.write(fd, data)", data=b"torso" if "commit" in option else b"another")
        worker.kill()
        assert eventually(lambda: alpha.exists("f") and alpha.read("f")) == content


def test_refused_whole(alpha, source):
    """What cannot change is named, and then nothing of the rest changes either."""
    alpha.mount("attr-cache=3,through=*.db")
    refused(alpha, "attr-cache=0,lease=30", "option 'lease' is 20s, and cannot change")
    refused(alpha, "attr-cache=0,restart=no", "option 'restart' is yes, and cannot change")
    refused(alpha, "attr-cache=0,through=*.sqlite", "option 'through' was not given like this")
    refused(alpha, "attr-cache=0,locks=*.mine", "option 'locks' was not given like this")
    refused(alpha, "attr-cache=0,ro,require-fstype=nfs", "option 'require-fstype' was not given like this")
    refused(alpha, "salvage-age=10", "salvage-age must not be shorter than lease")
    refused(alpha, "attr-cache=soon", "'soon' is no time")
    refused(alpha, "strange", "unknown option 'strange'")
    refused(alpha, "attr-cache=0", "what is mounted there is %s, not %s" % (source, alpha.scratch), source=alpha.scratch)
    assert "rw" in flags(alpha) and attr_cache(alpha, source) > 2
    assert remount(alpha, "through=*.db,restart=yes,attr-cache=3").returncode == 0, "nothing new"


def test_no_mount(alpha, source):
    """Where nothing of ours is mounted, below the top of a mount, and where the mount is dead."""
    sentence = "is no mount of safewritefs that could be remounted"
    refused(alpha, "attr-cache=0", sentence)
    alpha.mount()
    alpha("os.mkdir('d')")
    refused(alpha, "attr-cache=0", sentence, mnt=alpha.mnt + "/d")
    alpha.kill_daemon()
    assert eventually(lambda: alpha.error("os.statvfs", alpha.mnt) == "ENOTCONN")
    refused(alpha, "attr-cache=0", "Transport endpoint is not connected")
    alpha.mount()


def test_flags(alpha):
    """The kernel's flags, alone and with settings; read-only is refused while a file is open for writing."""
    alpha.mount("nosuid")
    assert remount(alpha, "ro,noexec,noatime").returncode == 0
    assert {"ro", "nosuid", "noexec", "noatime"} <= flags(alpha)
    assert alpha.error("put", "f", b"x") == "EROFS"
    assert remount(alpha, "attr-cache=0").returncode == 0, "also while it is read-only"
    assert "ro" in flags(alpha)
    assert remount(alpha, "rw,exec,atime").returncode == 0
    assert {"rw", "nosuid", "relatime"} <= flags(alpha) and not {"ro", "noexec", "noatime"} & flags(alpha)
    worker = alpha.worker()
    worker("fd = os.open('f', REPLACE); os.write(fd, b'x')")
    refused(alpha, "ro,attr-cache=3", "Device or resource busy (files are open for writing)")
    worker("os.close(fd)")
    assert alpha.read("f") == b"x"


def test_after_a_crash(alpha, source):
    """The daemon that follows one that crashed has what was remounted, settings and flags."""
    background = Background(alpha, "attr-cache=3")
    assert remount(alpha, "attr-cache=0,noexec,ro").returncode == 0
    background.crash()
    background.await_next()
    assert {"ro", "noexec"} <= flags(alpha)
    assert remount(alpha, "rw").returncode == 0
    assert attr_cache(alpha, source) < 1
    background.crash()
    background.await_next()
    assert {"rw", "noexec"} <= flags(alpha)
    background.end()


def test_whose(alpha, lab, source):
    """Root's mount is root's: a user who may look at it may not ask its daemon for anything."""
    alpha.mount()
    done = remount(alpha, "attr-cache=0", uid=1000, gid=1000)
    assert done.returncode == 32 and "Operation not permitted" in done.stderr


def test_a_users_own(users_host):  # noqa: F811
    """A user remounts his own mount, but for the kernel's flags."""
    launch_as_user(users_host)
    as_user = {"uid": NOBODY, "gid": NOBODY}
    done = remount(users_host, "attr-cache=0", **as_user)
    assert done.returncode == 0, done
    refused(users_host, "ro", "Operation not permitted", **as_user)


@pytest.mark.parametrize("size", [0, 1, 8192])
def test_hostile_requests(alpha, size):
    """Requests of any size and content are answered by an error, or a sentence."""
    alpha.mount()
    for number in (0x5357, 0x5366, 0):
        for direction in range(4):
            command = direction << 30 | size << 16 | number
            for filling in (b"\0", b"\n", b"change\n\n", b"check\n\xff", b"x"):
                code = (
                    "fd = os.open('.', os.O_RDONLY)\n"
                    "try: result = fcntl.ioctl(fd, command, bytearray(data), True)\n"
                    "except OSError as e: result = -e.errno\n"
                    "os.close(fd)"
                )
                alpha(code, command=command, data=(filling * 8192)[:8192])
    assert alpha.worker()("error(fcntl.ioctl, os.open('.', os.O_RDONLY), 0x5401, bytearray(64))") == "ENOTTY"
    assert alpha.error("os.stat", ".") is None
