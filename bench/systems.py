# SPDX-License-Identifier: GPL-2.0-or-later
"""The lower file systems, and what is mounted over them to be compared."""

import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
EXAMPLES = "/usr/share/doc/libfuse3-dev/examples"  # where Debian's libfuse3-dev puts them
PACKAGES = (
    "fuse3 libfuse3-dev bindfs mergerfs fuse-overlayfs fio git tar make gcc findutils e2fsprogs xfsprogs btrfs-progs "
    "python3-joblib python3-optuna"
).split()


class BenchError(Exception):
    """What cannot be measured, and why."""


def read_text(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def run(argv, timeout=120, **named):
    """A command's output; its failure is what is told of the measurement."""
    try:
        result = subprocess.run(argv, timeout=timeout, capture_output=True, text=True, check=False, **named)
    except FileNotFoundError:
        raise BenchError("%s is not installed" % argv[0]) from None
    except subprocess.TimeoutExpired:
        raise BenchError("%s took longer than %d s" % (os.path.basename(argv[0]), timeout)) from None
    if result.returncode:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines() or ["status %d" % result.returncode]
        raise BenchError("%s: %s" % (os.path.basename(argv[0]), said[0]))
    return result.stdout


def compile_c(sources, target, *flags):
    if os.path.exists(target):
        return target
    run(["cc", "-O2", "-w", "-D_GNU_SOURCE", "-std=gnu11", "-pthread", "-o", target, *sources, *flags])
    return target


def is_mounted(path):
    return " %s " % path in read_text("/proc/self/mountinfo")


def umount(path):
    for _ in range(50):
        if subprocess.run(["umount", path], stderr=subprocess.DEVNULL, check=False).returncode == 0 or not is_mounted(path):
            return
        time.sleep(0.1)
    subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)


class Lower:
    """A file system of its own: `data` is the directory that all systems share, `work` what an overlay needs beside it.

    ext4, xfs and btrfs are on a loop device whose image is in `place`.  What many measurements need is made once, not
    through a mount: `hot`, 100 small files in a directory for each of 8 threads; `big`, one file; `tree`, many files."""

    def __init__(self, kind, place, big, files):
        self.kind, self.place, self.big_size, self.files = kind, place, big, files
        self.root = os.path.join(place, kind)
        self.data, self.work = self.root + "/data", self.root + "/work"

    def make(self):
        os.mkdir(self.root)
        if self.kind == "tmpfs":
            run(["mount", "-t", "tmpfs", "-o", "nr_inodes=0,size=90%", "safewritefs-bench", self.root])
        else:
            image = self.root + ".image"
            with open(image, "wb") as file:
                file.truncate(3 * self.big_size + self.files * 8192 + (2 << 30))
            # An image this large has room for an inode for each 16 KiB, which is too few.
            options = {"ext4": ["-q", "-F", "-m", "0", "-i", "4096"], "xfs": ["-q", "-m", "reflink=1"], "btrfs": ["-q"]}
            run(["mkfs." + self.kind, *options[self.kind], image])
            # Without direct I/O each block would be cached twice, in this file system and in the one of the image.
            device = run(["losetup", "--show", "-f", "--direct-io=on", image]).strip()
            try:
                run(["mount", device, self.root])
            finally:
                run(["losetup", "-d", device])  # when it is unmounted
        os.mkdir(self.data)
        os.mkdir(self.work)
        os.mkdir(self.data + "/shared")
        for number in range(8):
            os.makedirs(self.data + "/shared/hot/t%d" % number)
            for file_number in range(100):
                with open("%s/shared/hot/t%d/f%d" % (self.data, number, file_number), "wb") as file:
                    file.write(b"x" * 4096)
        return self

    def end(self):
        if is_mounted(self.root):
            umount(self.root)

    def big(self):
        path = self.data + "/shared/big"
        if not os.path.exists(path):
            piece = os.urandom(1 << 20)
            with open(path, "wb") as file:
                for _ in range(self.big_size >> 20):
                    file.write(piece)
        return "shared/big"

    def tree(self):
        path = self.data + "/shared/tree"
        if not os.path.exists(path):
            os.mkdir(path)
            for number in range(self.files):
                if number % 1000 == 0:
                    folder = "%s/%d" % (path, number // 1000)
                    os.mkdir(folder)
                with open("%s/file-%d" % (folder, number), "wb") as file:
                    file.write(b"x" * (number % 10 == 0))
        return "shared/tree"


class System:
    """What programs meet at `top`: the lower directory itself here, a mount over it in a subclass.

    `commits` says how programs commit there, in the words of loops.c."""

    daemon = None
    is_mount = is_ours = False
    kind = "directory"

    def __init__(self, name, commits="plain", package=None):
        self.name, self.commits, self.package = name, commits, package
        self.lower = self.top = None

    def needs(self):
        """Why it cannot be here, or None."""
        return None

    def start(self, lower, preload=None):
        self.lower, self.top = lower, lower.data

    def stop(self):
        pass

    def restart(self, preload=None):
        """So that nothing of it is cached any more."""
        self.stop()
        self.start(self.lower, preload)


class Mount(System):
    is_mount = True
    kind = "peer"

    def __init__(self, name, command, package=None, program=None):
        super().__init__(name, "plain", package)
        self.command, self.program = command, program or name

    def needs(self):
        if shutil.which(self.program):
            return None
        return "%s is not installed%s" % (self.name, " (package %s)" % self.package if self.package else "")

    def start(self, lower, preload=None):
        self.lower, self.top = lower, "%s/mnt-%s-%s" % (lower.place, lower.kind, self.name)
        os.makedirs(self.top, exist_ok=True)
        environment = dict(os.environ, LD_PRELOAD=preload) if preload else None
        self.log = self.top.replace("/mnt-", "/log-")
        with open(self.log, "ab") as log:
            # Not in our session: Ctrl-C shall end the bench, which then unmounts it.
            self.daemon = subprocess.Popen(self.command(lower, self.top), stdout=log, stderr=log, env=environment,
                                           stdin=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 10
        while not is_mounted(self.top) or not os.path.isdir(self.top + "/shared"):
            if self.daemon.poll() is not None or time.monotonic() > until:
                said = read_text(self.log).strip().splitlines() or ["?"]
                self.stop()
                raise BenchError("%s does not mount: %s" % (self.name, said[-1]))
            time.sleep(0.01)

    def stop(self):
        if not self.daemon:
            return
        if is_mounted(self.top):
            umount(self.top)
        try:
            # Some go on for long, to what end they know; nothing of theirs is left to be lost.
            self.daemon.wait(timeout=15 if self.is_ours else 0.5)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        self.daemon = None


class Ours(Mount):
    is_ours = True
    kind = "ours"


def ours(name, program, options=""):
    def command(lower, top):
        # Without the machine's configuration file; a lease longer than the bench keeps heartbeats out of the counts.
        words = ",".join(word for word in ("conf=", "lease=1h", options) if word)
        return [program, lower.data, top, "-f", "-o", words]

    return Ours(name, command, program=program)


def example(name, command, tools):
    source, target = "%s/%s.c" % (EXAMPLES, name), os.path.join(tools, name)
    if os.path.exists(source) and shutil.which("pkg-config"):
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=False)
        defines = ["-DHAVE_" + name for name in ("UTIMENSAT", "FSTATAT", "FDATASYNC", "SETXATTR", "POSIX_FALLOCATE")]
        compile_c([source], target, "-I" + EXAMPLES, *defines, *flags.stdout.split())
    return Mount(name, lambda lower, top: [target, *command(lower, top)], package="libfuse3-dev", program=target)


def all_systems(program, also, tools):
    """The peers are as Debian has them, with caches as large as they offer where that is a choice."""

    def mergerfs(lower, top):
        return ["mergerfs", "-f", "-o", "cache.files=auto-full,cache.readdir=true,minfreespace=0", lower.data, top]

    def overlay(lower, top):
        os.makedirs(lower.work + "/empty", exist_ok=True)
        os.makedirs(lower.work + "/overlay", exist_ok=True)
        places = "lowerdir=%s/empty,upperdir=%s,workdir=%s/overlay" % (lower.work, lower.data, lower.work)
        return ["fuse-overlayfs", "-f", "-o", places, top]

    own = [ours("safewritefs", program)]
    own += [ours(*words.replace("=", ",", 1).split(",", 2)) for words in also]
    return [
        System("native"),
        System("by hand", "hand+fsync"),
        *own,
        Mount("bindfs", lambda lower, top: ["bindfs", "-f", lower.data, top], package="bindfs"),
        Mount("mergerfs", mergerfs, package="mergerfs"),
        Mount("fuse-overlayfs", overlay, package="fuse-overlayfs"),
        example("passthrough_ll", lambda lower, top: ["-f", "-o", "source=%s,cache=auto" % lower.data, top], tools),
        example("passthrough_fh", lambda lower, top: ["-f", "-o", "modules=subdir,subdir=" + lower.data, top], tools),
    ]


def install():
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        if subprocess.run(["apt-get", "-q", *words], env=environment, check=False).returncode:
            sys.exit("bench: apt-get %s failed" % words[0])
