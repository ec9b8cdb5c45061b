# SPDX-License-Identifier: GPL-2.0-or-later
"""A tree with everything that copying programs meet, and a manifest by which two trees are compared."""
import hashlib
import os
import random
import stat
import struct

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 7, 65534), (4, 4, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


def put(path, data, mode=0o644):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)


def make_tree(top, folders=40, files=25, seed=1):
    """Some 1,000 files of many sizes and modes, and one of each odd thing in every folder."""
    rng = random.Random(seed)
    os.mkdir(top)
    for d in range(folders):
        folder = f"{top}/folder {d:03d}" if d % 2 else f"{top}/d{d:03d}/deeper/still"
        os.makedirs(folder)
        for i in range(files):
            size = rng.choice((0, 1, 100, 4095, 4096, 4097, 20_000))
            put(
                f"{folder}/f{i:03d}.{rng.choice(('c', 'log', 'lock', 'py', 'bin'))}",
                rng.randbytes(size),
                rng.choice(MODES),
            )
        _odd_things(folder, d)
    _set_times(top, rng)


MODES = (0o644, 0o600, 0o755, 0o444, 0o400, 0o666, 0o4755, 0o2755, 0o000)


def _odd_things(folder, d):
    put(f"{folder}/owned", b"owned by somebody")
    os.chown(f"{folder}/owned", 1000 + d, 2000 + d)
    os.symlink("owned", f"{folder}/link")
    os.symlink("/nowhere/at/all", f"{folder}/dangling")
    os.link(f"{folder}/owned", f"{folder}/hard")
    os.mkfifo(f"{folder}/fifo", 0o620)
    os.mkdir(f"{folder}/empty", 0o1777)
    put(f"{folder}/attributes", b"with attributes")
    os.setxattr(f"{folder}/attributes", "user.origin", b"here %d" % d)
    os.setxattr(f"{folder}/attributes", "system.posix_acl_access", ACL)
    os.setxattr(f"{folder}/empty", "system.posix_acl_default", ACL)
    os.mknod(f"{folder}/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with open(f"{folder}/sparse", "wb") as f:
        f.truncate(1 << 20)
        f.seek(500_000)
        f.write(b"in the middle")
    put(f"{folder}/name with \n and \xff é".encode("utf-8", "surrogateescape"), b"odd name")


def _set_times(top, rng):
    for where, folders, files in os.walk(top, topdown=False):
        for name in files + folders + ["."]:
            ns = rng.randrange(10**18, 1_700_000_000 * 10**9)
            os.utime(f"{where}/{name}", ns=(ns, ns), follow_symlinks=False)


def manifest(top):
    """{path: everything that a faithful copy keeps}."""
    found, inodes = {}, {}
    for where, folders, files in os.walk(os.fsencode(top)):
        for name in sorted(folders + files) + [b"."]:
            path = os.path.normpath(os.path.join(where, name))
            found[os.path.relpath(path, os.fsencode(top))] = _entry(path, inodes)
    return found


def _entry(path, inodes):
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    entry = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns]
    names = sorted(os.listxattr(path, follow_symlinks=False))
    entry.append([(n, os.getxattr(path, n, follow_symlinks=False)) for n in names])
    if kind == stat.S_IFREG:
        with open(path, "rb") as f:
            entry += [st.st_size, hashlib.sha256(f.read()).hexdigest()]
        first = inodes.setdefault(st.st_ino, path) if st.st_nlink > 1 else path
        entry += [st.st_nlink, os.path.basename(first)]
    elif kind == stat.S_IFLNK:
        entry.append(os.readlink(path))
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        entry.append(st.st_rdev)
    return entry


def differences(one, other, limit=10):
    """What two manifests disagree about, as text."""
    lines = []
    for path in sorted(set(one) | set(other)):
        if one.get(path) != other.get(path):
            lines.append(f"{path!r}: {one.get(path)} | {other.get(path)}")
    return "\n".join(lines[:limit] + [f"... {len(lines)} in all"] * (len(lines) > limit))


if __name__ == "__main__":
    import sys

    print(repr(manifest(sys.argv[1])))
