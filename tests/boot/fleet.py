# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines with Debian and systemd, the rig's NFS server, and the network between them (tests/nfs/machine.py)."""
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "nfs")]
import debian  # noqa: E402
import image  # noqa: E402
import machine  # noqa: E402

# A machine is emulated, and slower than any real one, the more so the busier this one is.
SLOWNESS = float(os.environ.get("SW_SLOWNESS", "5"))
BOOT_SECONDS = 120 * SLOWNESS

# Names of the interfaces, and the machine's address on each.
WORDS = "net.ifnames=0 ip=%s:::255.255.255.0:%s:eth0:none ip=10.0.2.15:::255.255.255.0:%s:eth1:none systemd.hostname=%s"
# What an administrator does to the machine, with its disk in place and nothing running: $1 the root, $2 the own disk, $3 a
# directory with the package and `etc`, which is laid over /etc.
INSTALL = r"""
set -eu
work=$(mktemp -d)
mount -t tmpfs tmpfs "$work"
mkdir "$work/lower" "$work/own" "$work/root"
mount -o loop,ro "$1" "$work/lower"
mount -o loop "$2" "$work/own"
mkdir "$work/own/upper" "$work/own/work"
mount -t overlay -o "lowerdir=$work/lower,upperdir=$work/own/upper,workdir=$work/own/work" overlay "$work/root"
cp "$3/safewritefs.deb" "$work/root/root/"
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive \
    chroot "$work/root" dpkg --install /root/safewritefs.deb
cp -r --no-preserve=ownership "$3/etc/." "$work/root/etc/"
mkdir "$work/root/data" # the service wants it; systemd makes those of fstab
while read -r unit; do systemctl --root="$work/root" enable "$unit"; done <"$3/enabled"
umount "$work/root" "$work/own" "$work/lower" "$work"
rmdir "$work"
"""


def install(directory, root, own, package, files, enabled):
    """The package on a machine's own disk, with these files below /etc, {name: text}, and these units enabled."""
    given = directory + "/given"
    shutil.rmtree(given, ignore_errors=True)
    os.makedirs(given + "/etc")
    shutil.copy(package, given + "/safewritefs.deb")
    for name, text in files.items():
        image.write("%s/etc/%s" % (given, name), text)
    image.write(given + "/enabled", "".join(unit + "\n" for unit in enabled))
    image.output("unshare", "--mount", "--propagation", "private", "bash", "-c", INSTALL, "install", root, own, given)
    shutil.rmtree(given)


def lay(directory, base, package, files, enabled=(), clients=1):
    """A rig that is off: a server, and so many Debians with the package, these files below /etc and these units."""
    made, installed = image.prepare(base), debian.prepare(base)
    os.makedirs(directory)
    names = ["server"] + ["client%d" % (i + 1) for i in range(clients)]
    machine.start_switch(directory, names)
    machine.make_disk(directory + "/export.ext4", 512)
    machine.make_disk(directory + "/nothing.ext4", 4)
    initramfs = directory + "/initramfs-debian"
    debian.initramfs(installed, initramfs)
    common = {"lease": 10, "service": "knfsd", "clock": "utc"}
    nothing = directory + "/nothing.ext4,readonly=on"
    machine.describe(directory, 0, "server", **common, kernel=made.kernel(directory, debian.KERNEL), root=made.root,
                     disks=[nothing, directory + "/export.ext4"])
    for number, name in enumerate(names[1:], 1):
        own = "%s/%s-own.ext4" % (directory, name)
        machine.make_disk(own, 512)
        install(directory, installed + "/root.ext4", own, package, files, enabled)
        words = [WORDS % ("10.77.0.%d" % (number + 1), name, name, name)]
        machine.describe(directory, number, name, **common, kernel=[installed + "/vmlinuz", initramfs], root=installed + "/root.ext4",
                         disks=[nothing, own], reboots=True, words=words)
    return machine.Rig(directory)


def make_shares(server, names):
    """What an administrator makes on the share, once.  The server is off afterwards."""
    server.start()
    server.wait(BOOT_SECONDS)
    server.run("cd /disk/free && mkdir %s && chmod 1777 *" % " ".join(names), check=True)
    server.run(["sync"], check=True)
    server.power_off()


def await_boot(vm, seconds=BOOT_SECONDS):
    """Until systemd has nothing more to start: its state."""
    vm.wait(seconds)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = vm.run(["systemctl", "is-system-running"], timeout=seconds).stdout.strip()
        if state not in ("initializing", "starting", ""):
            return state
        time.sleep(0.5)
    raise machine.RigError("%s is still starting:\n%s" % (vm.name, vm.run(["systemctl", "list-jobs"]).stdout))


def build_package(directory):
    """The Debian package of this tree, built if it is not there."""
    path = directory + "/safewritefs.deb"
    if not os.path.exists(path):
        os.makedirs(directory, exist_ok=True)
        subprocess.run([os.path.join(os.path.dirname(HERE), "package", "package"), directory, "only"], check=True)
    return path
