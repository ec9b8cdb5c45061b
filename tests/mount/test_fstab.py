# SPDX-License-Identifier: GPL-2.0-or-later
"""Through mount(8): an installed tree, lines of fstab, `mount -a` and `umount`.

Everything happens in a mount namespace of its own: the installed files are bound over /usr/local/bin and the like, and
another file over /etc/fstab, so that nothing of it is seen outside.
"""

import glob
import os
import re
import shutil
import subprocess

import pytest
from background import Background
from harness import BUILD, DAEMON, ROOT, eventually


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What `meson install` puts where; a built tree is needed."""
    if not os.path.exists(os.path.join(BUILD, "build.ninja")):
        pytest.skip("no meson build at %s to install from" % BUILD)
    top = tmp_path_factory.mktemp("installed")
    command = ["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", str(top)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(top)


def find(top, name):
    paths = glob.glob(top + "/**/" + name, recursive=True)
    found = [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]
    assert len(found) == 1, "%s: %r" % (name, found)
    return found[0]


@pytest.fixture
def machine(lab, installed, source):
    """A host on which safewritefs is installed and nothing is mounted: a function that sets its fstab."""
    host = lab.host(source, "alpha", mount=False)
    for name in ("safewritefs", "mount.safewritefs"):
        path = find(installed, name)
        place = "/" + os.path.relpath(path, installed)
        assert os.path.dirname(place) in ("/usr/local/bin", "/usr/local/sbin", "/sbin", "/usr/sbin", "/usr/bin"), place
        # Bound file by file over a private copy of the directory's list: an overlay keeps what else is there.
        directory, upper = os.path.dirname(place), os.path.join(lab.directory, "upper-" + name)
        os.makedirs(upper)
        shutil.copy(path if name != "safewritefs" else DAEMON, os.path.join(upper, name))
        host.run("mount -t overlay overlay -o lowerdir=%s:%s %s" % (upper, directory, directory), cwd="/")
    fstab = os.path.join(lab.directory, "fstab")
    with open(fstab, "w", encoding="ascii"):
        pass
    host.run(["mount", "--bind", fstab, "/etc/fstab"], cwd="/")

    def write(*lines):
        with open(fstab, "w", encoding="ascii") as f:
            f.writelines(line + "\n" for line in lines)
        return host

    return write


def use(host, source, word):
    """The mount named in fstab works as such, and unmounts."""
    line = host.run(["findmnt", "-n", "-o", "SOURCE,FSTYPE", "--mountpoint", host.mnt], cwd="/").stdout.split()
    assert line == [source, "fuse.safewritefs"]
    host.run("echo %s > f; test $(cat f) = %s; ls -A | grep -v '^f$'; true" % (word, word))
    with open(source + "/f", encoding="ascii") as f:
        assert f.read() == word + "\n"
    host.run(["umount", host.mnt], cwd="/")
    assert eventually(lambda: os.listdir(source + "/.safewritefs/hosts") == [])
    assert eventually(lambda: host.strays()[0] == [])


@pytest.mark.parametrize("kind", ["safewritefs", "fuse.safewritefs"])
def test_mount_a(machine, source, kind):
    """The line of the README, with both spellings of the type: mount -a, mount -a again, umount."""
    host = machine()
    machine("%s %s %s _netdev,lease=20 0 0" % (source, host.mnt, kind))
    host.run("mount -a", cwd="/")
    host.run("mount -a", cwd="/")
    use(host, source, "one")


@pytest.mark.parametrize("kind", ["safewritefs", "fuse.safewritefs"])
def test_mount_by_mountpoint(machine, source, kind):
    """mount MOUNTPOINT, with what mount(8) and systemd.mount(5) know to be written in fstab."""
    host = machine()
    options = (
        "defaults,noauto,nofail,fail,user,owner,group,_netdev,nosuid,exec,symfollow,comment=x,X-mount.mkdir,"
        "x-systemd.requires=x.service,x-systemd.after=x.service,x-systemd.wanted-by=x.target,x-systemd.automount,"
        "x-systemd.idle-timeout=10min,x-systemd.device-timeout=9,x-systemd.mount-timeout=99,x-systemd.rw-only,"
        "x-systemd.requires-mounts-for=/srv"
    )
    machine("%s %s %s %s 0 0" % (source, host.mnt, kind, options))
    host.run("mount -a", cwd="/")
    assert not host.is_mounted()
    host.run(["mount", host.mnt], cwd="/")
    use(host, source, "two")


def test_under_an_automount(machine, source):
    """x-systemd.automount: the mount point is not looked at in a way that waits for what is being mounted; the same
    after a crash, and the automount is there again after umount."""
    host = machine()
    machine("%s %s safewritefs defaults 0 0" % (source, host.mnt))
    systemd = host.worker(cwd="/")
    systemd("import ctypes; r, w = os.pipe(); os.setpgid(0, 0)")
    options = systemd("b'fd=%d,pgrp=%d,minproto=5,maxproto=5,direct' % (w, os.getpgrp())")
    call = "ctypes.CDLL(None).mount(b'auto', path.encode(), b'autofs', 0, options)"
    if systemd(call, path=host.mnt, options=options) != 0:
        pytest.skip("no autofs in this kernel")
    host.run(["mount", host.mnt], cwd="/", timeout=10)
    background = Background.found(host)
    background.crash()
    background.await_next()
    host.run("echo one > $MNT/f", cwd="/")
    host.run(["umount", host.mnt], cwd="/")
    background.await_end()
    kinds = host.run(["findmnt", "-n", "-o", "FSTYPE", "--mountpoint", host.mnt], cwd="/").stdout.split()
    assert kinds == ["autofs"]


def test_lists_survive(machine, source):
    """C25: lists of globs in fstab: no spaces, a separator that is no comma."""
    host = machine()
    machine("%s %s safewritefs through=+*.raw:*.disk,host-private=*.mine,on-kill=commit 0 0" % (source, host.mnt))
    host.run("mount -a", cwd="/")
    host.run("exec 3<> x.raw; echo now >&3; cat $SOURCE/x.raw | grep now; echo z > a.mine; ! test -e $SOURCE/a.mine")
    use(host, source, "three")


def test_mount_by_hand(machine, source):
    """mount -t safewritefs -o ... SOURCE MOUNTPOINT."""
    host = machine()
    host.run(["mount", "-t", "safewritefs", "-o", "attr-cache=0,ro", source, host.mnt], cwd="/")
    assert host.run("echo x > f", check=False).returncode != 0
    host.run(["umount", host.mnt], cwd="/")
    host.run(["mount", "-t", "fuse.safewritefs", source, host.mnt], cwd="/")
    use(host, source, "four")


def test_failures_are_mounts_failures(machine, source, lab):
    """What is wrong comes out of mount(8), with its status 32."""
    host = machine()
    for line, word in (
        ("%s/missing %s safewritefs defaults 0 0" % (source, host.mnt), "missing"),
        ("%s %s safewritefs nonsense=1 0 0" % (source, host.mnt), "nonsense"),
        ("%s %s safewritefs lease=never 0 0" % (source, host.mnt), "lease"),
    ):
        machine(line)
        done = host.run(["mount", host.mnt], cwd="/", check=False)
        assert done.returncode == 32 and word in done.stderr, done
        assert not host.is_mounted()


def test_comes_back(machine, source):
    """C24: what fstab mounted comes back when its daemon is killed."""
    host = machine()
    machine("%s %s safewritefs lease=5 0 0" % (source, host.mnt))
    host.run("mount -a", cwd="/")
    background = Background.found(host)
    background.crash()
    background.await_next()
    use(host, source, "five")


def test_a_share_that_comes_late(machine, source):
    """require-fstype in fstab: mount(8) waits for the share."""
    host = machine()
    machine("%s %s safewritefs require-fstype=nfs:ramfs,wait-source=20 0 0" % (source, host.mnt))
    mounting = host.popen(["mount", host.mnt], cwd="/")
    with pytest.raises(subprocess.TimeoutExpired):
        mounting.wait(timeout=1)
    host.run("mount -t ramfs ramfs $SOURCE", cwd="/")
    assert mounting.wait(timeout=10) == 0 and host.is_mounted()
    host.run(["umount", host.mnt], cwd="/")
    assert eventually(lambda: host.strays()[0] == [])


def test_unmounted_source_is_seen(machine, source):
    """umount by source and umount -f work as for any file system."""
    host = machine()
    machine("%s %s safewritefs defaults 0 0" % (source, host.mnt))
    host.run("mount -a && umount -f %s" % host.mnt, cwd="/")
    assert eventually(lambda: not host.is_mounted())
    assert eventually(lambda: os.listdir(source + "/.safewritefs/hosts") == [])


def lines_of_documents():
    """Every line of fstab that the documents show."""
    found = []
    for name in ("README.md", "docs/operating.md", "docs/safewritefs.8"):
        with open(os.path.join(ROOT, name), encoding="utf-8") as f:
            found += re.findall(r"^ *(/\S+ +/\S+ +(?:fuse\.)?safewritefs +\S+ +0 0)$", f.read(), re.MULTILINE)
    return found


def test_lines_of_the_documents(lab, source):
    """The lines that are there to be copied say nothing that would be refused."""
    lines = [line.split() for line in lines_of_documents()]
    assert len(lines) >= 5
    for _, _, kind, options, *_ in lines:
        done = subprocess.run([DAEMON, "--check", "-o", options, source, lab.directory], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b""), options


def test_systemd_orders_by_the_line(lab):
    """docs/operating.md: with that word, and not by itself, systemd mounts the share first."""
    generator = "/lib/systemd/system-generators/systemd-fstab-generator"
    if not os.path.exists(generator):
        pytest.skip("no systemd")
    (line,) = [line for line in lines_of_documents() if "nofail" in line]
    word = "x-systemd.requires-mounts-for=/srv/nfs,"
    for text, expected in ((line, True), (line.replace(word, ""), False)):
        units = os.path.join(lab.directory, "units-%s" % expected)
        os.mkdir(units)
        with open(units + "/fstab", "w", encoding="ascii") as f:
            f.write(text + "\n")
        subprocess.run([generator, units, units, units], env={"SYSTEMD_FSTAB": units + "/fstab"}, check=True)
        with open(units + "/cache.mount", encoding="utf-8") as f:
            unit = f.read()
        assert ("RequiresMountsFor=/srv/nfs\n" in unit) is expected
        assert os.path.exists(units + "/remote-fs.target.wants/cache.mount")


def test_remount(machine, source):
    """mount -o remount with what fstab says and one option more, and by fstab alone after a change there."""
    host = machine()
    line = "%s %s safewritefs _netdev,nofail,x-systemd.automount,attr-cache=2,through=+*.x,nosuid%%s 0 0" % (source, host.mnt)
    machine(line % "")
    host.run(["mount", host.mnt], cwd="/")
    host.run(["mount", "-o", "remount", host.mnt], cwd="/")
    host.run(["mount", "-o", "remount,ro,salvage-age=1d", host.mnt], cwd="/")
    assert "Read-only file system" in host.run("echo x > $MNT/f", cwd="/", check=False).stderr
    machine(line % ",rw,attr-cache=0")
    host.run(["mount", "-o", "remount", host.mnt], cwd="/")
    host.run("echo x > $MNT/f", cwd="/")
    machine(line % ",lease=5")
    done = host.run(["mount", "-o", "remount", host.mnt], cwd="/", check=False)
    assert done.returncode == 32 and "option 'lease' is 20s, and cannot change" in done.stderr
    use(host, source, "again")
