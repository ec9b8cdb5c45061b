# SPDX-License-Identifier: GPL-2.0-or-later
"""One Debian with systemd and an NFS server, for all tests here: they follow one another in its life.  One that is run
alone finds both up.

SW_PACKAGE tells a directory that has safewritefs.deb, SW_RIG_BASE where the machines' disks are kept; with SW_BOOT_KEEP=1
the machines are left running, for tests/nfs/rig and for another run, with SW_RIG."""
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fleet  # noqa: E402

SHARES = ("cache", "auto", "data")
NFS = "_netdev,bg"
OURS = "_netdev,nofail,x-systemd.requires-mounts-for=/srv/nfs,require-fstype=nfs4"
FILES = {
    "fstab": """server:/free    /srv/nfs  nfs4         %s  0 0
/srv/nfs/cache  /cache    safewritefs  %s  0 0
/srv/nfs/auto   /auto     safewritefs  noauto,x-systemd.automount,%s  0 0
""" % (NFS, OURS, OURS),
    "safewritefs.conf": "[defaults]\nlease=5\n",
    "safewritefs.d/data.conf": "SOURCE=/srv/nfs/data\nMOUNTPOINT=/data\nOPTIONS=require-fstype=nfs4\n",
    "systemd/system/safewritefs@data.service.d/source.conf": "[Unit]\nRequiresMountsFor=/srv/nfs\n",
}


@pytest.fixture(scope="session")
def rig():
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    if os.environ.get("SW_RIG"):
        yield fleet.machine.Rig(os.environ["SW_RIG"])
        return
    base = os.environ.get("SW_RIG_BASE", "/tmp/sw-rig")
    os.makedirs(base, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="boot-", dir=base)
    os.rmdir(directory)
    package = fleet.build_package(os.environ.get("SW_PACKAGE") or directory + "-package")
    made = fleet.lay(directory, base, package, FILES, ["safewritefs@data.service"])
    fleet.make_shares(made.server, SHARES)
    yield made
    shutil.rmtree(directory + "-package", ignore_errors=True)
    if os.environ.get("SW_BOOT_KEEP"):
        print("the machines are in " + directory)
    else:
        made.end()


@pytest.fixture
def server(rig):
    """The NFS server, which is on."""
    if not rig.server.pid:
        rig.server.start()
        rig.server.wait(fleet.BOOT_SECONDS)
    return rig.server


@pytest.fixture
def debian(rig, server):
    """The machine that mounts, and has nothing more to start."""
    vm = rig["client1"]
    if not vm.pid:
        vm.start()
    fleet.await_boot(vm)
    vm.run(["systemctl", "start", "safewritefs@data", "cache.mount"], check=True, timeout=fleet.BOOT_SECONDS)
    vm.run("for place in cache data; do [ -e /$place/file ] || su ann -c \"echo $place >/$place/file\"; done", check=True)
    return vm
