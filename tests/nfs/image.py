# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk and the kernels of the rig's machines, made of Debian's packages and of nothing else on this machine.

One read-only root for all of them; every machine lays a tmpfs over it.  It is made again when a package has a newer
version, or when what is said here has changed.
"""

import concurrent.futures
import glob
import hashlib
import os
import re
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))

PACKAGES = """bash coreutils util-linux mount kmod iproute2 procps grep sed mawk findutils diffutils tar dash libc-bin base-files
base-passwd libfuse3-3 liburing2 libnuma1 fuse3 libglib2.0-0 attr acl e2fsprogs strace git make nfs-common
nfs-kernel-server nfs-ganesha nfs-ganesha-vfs dbus rpcbind keyutils python3 python3-numpy python3-joblib python3-optuna
liblockfile-bin openssh-sftp-server"""
KERNELS = {"6.1": r"linux-image-6\.1\.\d+-(\d+)-cloud-amd64$", "6.12": r"linux-image-6\.12\.(\d+)\+deb1\d-cloud-amd64$"}
# In the order in which they have to be loaded before there is a root.
EARLY = ["virtio_pci", "virtio_blk", "overlay"]

INITRAMFS = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t ext4 -o ro /dev/vda /lower || exec /bin/busybox sh
/bin/busybox mount -t tmpfs tmpfs /upper
/bin/busybox mkdir /upper/upper /upper/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /root
/bin/busybox cp /rig-init /rig-agent /root/sbin/
exec /bin/busybox switch_root /root /sbin/rig-init
"""


class ImageError(Exception):
    pass


def output(*command, **named):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **named)
    if done.returncode:
        raise ImageError("%s: status %d\n%s" % (" ".join(command), done.returncode, done.stderr[-2000:]))
    return done.stdout


def closure(wanted):
    """What apt would install on an empty machine: {package: version}."""
    said = output("apt-get", "install", "-s", "--no-install-recommends", "-o", "Dir::State::status=/dev/null", *wanted)
    return dict(re.findall(r"^Inst (\S+) \((\S+)", said, re.MULTILINE))


def newest_kernels():
    """The newest package of each series that this distribution offers: {series: package}."""
    names = output("apt-cache", "pkgnames", "linux-image-").split()
    found = {}
    for series, pattern in KERNELS.items():
        matches = [(int(m.group(1)), m.group(0)) for m in (re.match(pattern, name) for name in names) if m]
        if matches:
            found[series] = max(matches)[1]
    if not found:
        raise ImageError("this distribution offers none of the kernels %s" % ", ".join(KERNELS))
    return found


def versions_of(packages):
    said = output("apt-cache", "show", "--no-all-versions", *packages)
    return dict(re.findall(r"^Package: (\S+)$.*?^Version: (\S+)$", said, re.MULTILINE | re.DOTALL))


def fetch(packages, directory):
    """The packages' files, in a directory of ours, where the unprivileged downloader of apt may write."""
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o777)
    have = {os.path.basename(path).split("_")[0] for path in glob.glob(directory + "/*.deb")}
    missing = ["%s=%s" % item for item in packages.items() if item[0] not in have]
    if missing:
        output("apt-get", "download", *missing, cwd=directory)
    return sorted(glob.glob(directory + "/*.deb"))


def extract(package, root):
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", root], stdin=tar.stdout, check=True)
    if tar.returncode:
        raise ImageError("%s cannot be extracted" % package)


def merged_usr(root):
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs("%s/usr/%s" % (root, name))
        os.symlink("usr/" + name, "%s/%s" % (root, name))


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, mode)


def settle(root):
    """What the packages' own scripts would do, as far as it matters here."""
    for name in ("passwd", "group"):
        shutil.copy("%s/usr/share/base-passwd/%s.master" % (root, name), "%s/etc/%s" % (root, name))
    with open(root + "/etc/passwd", "a", encoding="ascii") as f:
        f.write("ann:x:1000:1000::/home/ann:/bin/bash\nbob:x:1001:1001::/home/bob:/bin/bash\n")
        f.write("statd:x:110:65534::/var/lib/nfs:/usr/sbin/nologin\n_rpc:x:111:65534::/run:/usr/sbin/nologin\n")
        f.write("messagebus:x:112:65534::/run:/usr/sbin/nologin\n")
    with open(root + "/etc/group", "a", encoding="ascii") as f:
        f.write("ann:x:1000:\nbob:x:1001:\nmessagebus:x:112:\n")
    write(root + "/etc/ld.so.conf.d/rig.conf", "/usr/lib/x86_64-linux-gnu/blas\n/usr/lib/x86_64-linux-gnu/lapack\n")
    write(root + "/etc/fuse.conf", "user_allow_other\n")
    os.chmod(root + "/usr/bin/fusermount3", 0o4755)
    write(root + "/etc/netconfig", read(root, "/etc/netconfig") or "tcp tpi_cots_ord v inet tcp - -\n")
    if not os.path.exists(root + "/usr/bin/awk"):
        os.symlink("mawk", root + "/usr/bin/awk")
    for name in ("lower", "export", "nfs", "sw", "home/ann", "home/bob", "run", "proc", "sys", "dev", "tmp", "mnt"):
        os.makedirs("%s/%s" % (root, name), exist_ok=True)
    shutil.copytree(root + "/var/lib/nfs", root + "/usr/share/rig-nfs-state", dirs_exist_ok=True)
    output("chroot", root, "/sbin/ldconfig")
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"):
        shutil.rmtree("%s/%s" % (root, name), ignore_errors=True)


def read(root, path):
    try:
        with open(root + path, encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def early_modules(root, release):
    """The files to be loaded, dependencies first."""
    order = []
    for module in EARLY:
        said = output("modprobe", "-d", root, "-S", release, "--show-depends", module)
        for path in re.findall(r"^insmod (\S+)", said, re.MULTILINE):
            if path not in order:
                order.append(path)
    return order


def keep_modules(root, release, work):
    """What an initramfs of that kernel needs to find the root."""
    for name in ("bin", "proc", "dev", "lower", "upper", "root", "modules"):
        os.makedirs("%s/%s" % (work, name))
    shutil.copy(shutil.which("busybox"), work + "/bin/busybox")
    names = []
    for path in early_modules(root, release):
        name = os.path.basename(path)
        if name.endswith(".xz"):
            name = name[:-3]
            with open("%s/modules/%s" % (work, name), "wb") as f:
                subprocess.run(["xz", "-dc", path], stdout=f, check=True)
        else:
            shutil.copy(path, "%s/modules/%s" % (work, name))
        names.append(name)
    write(work + "/modules/order", "\n".join(names) + "\n")


def make_initramfs(modules, target, script=INITRAMFS):
    """With the first process and the agent, so that changing them does not change the disk."""
    work = target + ".tree"
    shutil.copytree(modules, work, symlinks=True)
    write(work + "/init", script, 0o755)
    shutil.copy(HERE + "/init", work + "/rig-init")
    output("cc", "-O2", "-static", "-D_GNU_SOURCE", "-o", work + "/rig-agent", HERE + "/agent.c")
    with open(target, "wb") as f:
        subprocess.run("find . | cpio -o -H newc --quiet", shell=True, cwd=work, stdout=f, check=True)
    shutil.rmtree(work)


def disk(tree, target, extra_mb):
    """An ext4 image of a tree."""
    blocks = int(output("du", "-sm", "--apparent-size", tree).split()[0]) * 5 // 4 + extra_mb
    files = sum(len(names) + len(dirs) for _, dirs, names in os.walk(tree))
    output("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N", str(files + 1000), "-d", tree, target,
           "%dM" % blocks)


def key_of(packages):
    known = hashlib.sha256(repr(sorted(packages.items())).encode())
    with open(__file__, "rb") as f:
        known.update(f.read())
    return known.hexdigest()[:16]


class Image:
    """What machines are started from: `root` (a disk), and `kernel(series)`."""

    def __init__(self, directory, kernels):
        self.root = directory + "/root.ext4"
        self.directory = directory
        self.kernels = kernels

    def kernel(self, directory, series=None):
        """(vmlinuz, initramfs) of a series, or of the oldest there is; the latter is made in `directory`."""
        series = series or sorted(self.kernels, key=lambda text: [int(part) for part in text.split(".")])[0]
        if series not in self.kernels:
            raise ImageError("no kernel %s here, but %s" % (series, ", ".join(sorted(self.kernels))))
        target = "%s/initramfs-%s" % (directory, series)
        if not os.path.exists(target):
            make_initramfs("%s/modules-%s" % (self.directory, series), target)
        return "%s/vmlinuz-%s" % (self.directory, series), target


def build(directory, packages, kernels, cache):
    root = directory + "/tree"
    os.makedirs(root)
    merged_usr(root)
    debs = fetch(packages, cache)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda deb: extract(deb, root), debs))
    settle(root)
    for series, package in kernels.items():
        release = package.replace("linux-image-", "")
        output("depmod", "-b", root, release)
        shutil.copy("%s/boot/vmlinuz-%s" % (root, release), "%s/vmlinuz-%s" % (directory, series))
        keep_modules(root, release, "%s/modules-%s" % (directory, series))
    shutil.rmtree(root + "/boot")
    disk(root, directory + "/root.ext4", 64)
    shutil.rmtree(root)


def prepare(base, say=print):
    """The image below `base`, made if it is not there yet."""
    kernels = newest_kernels()
    packages = closure(PACKAGES.split())
    packages.update(versions_of(kernels.values()))
    directory = "%s/image-%s" % (base, key_of(packages))
    if not os.path.exists(directory + "/root.ext4"):
        say("rig: making the machines' disk from %d packages" % len(packages))
        for old in glob.glob(base + "/image-*"):
            shutil.rmtree(old)
        making = base + "/image-new"
        build(making, packages, kernels, "%s/packages-%s" % (base, key_of(packages)))
        os.rename(making, directory)
        for cache in glob.glob(base + "/packages-*"):
            shutil.rmtree(cache)
    return Image(directory, kernels)
