# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk of a Debian that boots with systemd, as its installer would leave it: made by mmdebstrap, with all scripts of
its packages run, and the kernel and the initramfs of the rig's machines (tests/nfs/image.py)."""
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "nfs"))
import image  # noqa: E402

KERNEL = "6.1"
# What a machine that mounts NFS has, and what the package of safewritefs depends on: it is installed without a network.
PACKAGES = """systemd-sysv udev dbus kmod iproute2 procps nfs-common fuse3 libglib2.0-0 libfuse3-3 psmisc less python3-minimal
man-db liburing2"""
# The upper layer is a disk of the machine's own, so that it outlives a reboot.
INITRAMFS = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t ext4 -o ro /dev/vda /lower || exec /bin/busybox sh
/bin/busybox mount -t ext4 /dev/vdc /upper || exec /bin/busybox sh
/bin/busybox mkdir -p /upper/upper /upper/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /root
/bin/busybox cp /rig-agent /root/usr/local/sbin/
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /lib/systemd/systemd
"""
# Answers from the first moment on until the machine is off, whatever systemd waits for.
AGENT = """[Unit]
Description=What the tests talk to
DefaultDependencies=no
IgnoreOnIsolate=yes
[Service]
ExecStart=/usr/local/sbin/rig-agent
KillMode=none
SendSIGKILL=no
[Install]
WantedBy=sysinit.target
"""
HOSTS = "127.0.0.1 localhost\n10.77.0.1 server\n" + "".join("10.77.0.%d client%d\n" % (n + 1, n) for n in range(1, 5))


def apt_settings(path):
    """The settings with which this machine's apt reaches its archive, and its sources."""
    said = image.output("apt-config", "dump")
    image.write(path, "".join(line + "\n" for line in said.splitlines() if re.match(r"Acquire::(Check|http|https)", line)))
    found = ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*"))]
    return [name for name in found if name.endswith((".list", ".sources")) and os.path.isfile(name) and os.path.getsize(name)]


def codename():
    return re.search(r"^VERSION_CODENAME=(\S+)", image.read("", "/etc/os-release"), re.MULTILINE).group(1)


def bootstrap(root, work):
    sources = apt_settings(work + "/apt.conf")
    image.output("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--aptopt=" + work + "/apt.conf",
                 "--dpkgopt=force-unsafe-io", "--include=" + ",".join(PACKAGES.split()), codename(), root, *sources)


def configure(root):
    """As an administrator would have it, but for the agent."""
    for name, number in (("ann", 1000), ("bob", 1001)):
        image.output("chroot", root, "useradd", "--create-home", "--uid", str(number), "--shell", "/bin/bash", name)
    image.write(root + "/etc/hosts", HOSTS)
    image.write(root + "/etc/hostname", "debian\n")
    image.write(root + "/etc/fstab", "")
    image.write(root + "/etc/systemd/system/rig-agent.service", AGENT)
    image.output("systemctl", "--root=" + root, "enable", "rig-agent", "systemd-networkd", "systemd-network-generator")
    # Nothing that a machine would do by itself while it is measured.
    image.output("systemctl", "--root=" + root, "mask", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer",
                 "fstrim.timer", "dpkg-db-backup.timer", "man-db.timer", "e2scrub_reap.service", "getty@tty1.service",
                 "serial-getty@ttyS0.service")
    os.makedirs(root + "/var/log/journal", exist_ok=True)
    image.write(root + "/etc/machine-id", "")


def build(directory, kernel):
    root = directory + "/tree"
    bootstrap(root, directory)
    package, version = kernel
    release = package.replace("linux-image-", "")
    for deb in image.fetch({package: version}, directory + "/packages"):
        image.extract(deb, root)
    image.output("depmod", "-b", root, release)
    shutil.copy("%s/boot/vmlinuz-%s" % (root, release), directory + "/vmlinuz")
    image.keep_modules(root, release, directory + "/modules")
    configure(root)
    for name in ("/boot", "/usr/share/doc", "/usr/share/locale"):
        shutil.rmtree(root + name)
    image.disk(root, directory + "/root.ext4", 64)
    shutil.rmtree(root)
    shutil.rmtree(directory + "/packages")


def prepare(base, say=print):
    """The directory of the image below `base`, which is made if it is not there yet: root.ext4, vmlinuz and modules."""
    package = image.newest_kernels()[KERNEL]
    kernel = (package, image.versions_of([package])[package])
    wanted = image.closure(PACKAGES.split())
    wanted.update([kernel])
    known = hashlib.sha256(repr(sorted(wanted.items())).encode())
    for path in (__file__, image.__file__):
        with open(path, "rb") as f:
            known.update(f.read())
    directory = "%s/debian-%s" % (base, known.hexdigest()[:16])
    if not os.path.exists(directory + "/root.ext4"):
        say("making the disk of a Debian with systemd")
        for old in glob.glob(base + "/debian-*"):
            shutil.rmtree(old)
        making = base + "/debian-new"
        os.makedirs(making)
        build(making, kernel)
        os.rename(making, directory)
    return directory


def initramfs(directory, target):
    image.make_initramfs(directory + "/modules", target, INITRAMFS)
