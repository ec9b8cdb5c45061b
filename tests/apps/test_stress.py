# SPDX-License-Identifier: GPL-2.0-or-later
"""fio with verification and stress-ng's file system class, short."""
import shutil

import pytest

FIO = """
[global]
directory={mnt}
size=8m
verify=crc32c
verify_fatal=1
do_verify=1
group_reporting
thread={thread}
[sequential]
rw=write
bs=64k
ioengine=psync
numjobs=2
[random]
stonewall
rw=randrw
bs=4k
ioengine=psync
numjobs=2
[odd]
stonewall
rw=randwrite
bsrange=512-70k
bs_unaligned=1
ioengine=vsync
fsync=64
[mapped]
stonewall
rw=randwrite
bs=4k
ioengine=mmap
[async]
stonewall
rw=randwrite
bs=16k
ioengine=libaio
iodepth=8
direct=1
"""


@pytest.mark.limit(200)
@pytest.mark.parametrize("thread", [0, 1])
def test_fio_verify(host, thread):
    if not shutil.which("fio"):
        pytest.skip("fio is not installed")
    job = f"{host.scratch}/job.fio"
    with open(job, "w", encoding="ascii") as f:
        f.write(FIO.format(mnt=host.mnt, thread=thread))
    said = host.run(["fio", "--output-format=terse", job], timeout=180, cwd=host.scratch)
    assert "verify" not in said.stderr.lower(), said.stderr


# What works in --temp-path and needs nothing else of the machine.
STRESSORS = """access acl chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dup fallocate fanotify fcntl
fiemap file-ioctl filename flock flushcache fpunch fstat getdents hdd inode-flags inotify io link lockf lockofd locka
mknod mmapfiles open rename readahead revio seal seek sendfile splice symlink sync-file touch truncate utime xattr"""


@pytest.mark.limit(240)
def test_stress_ng_filesystem_class(host):
    if not shutil.which("stress-ng"):
        pytest.skip("stress-ng is not installed")
    known = host.run("stress-ng --stressors").stdout.split()
    failed = []
    for name in STRESSORS.split():
        if name not in known:
            continue
        command = (
            f"stress-ng --{name} 2 --timeout 1 --verify --temp-path $MNT --hdd-bytes 8m --fallocate-bytes 8m --oomable"
        )
        said = host.run(command, timeout=60, check=False)
        if said.returncode not in (0, 3, 4):  # 3, 4: not implemented or no resources here
            failed.append(f"{name}: status {said.returncode}\n{said.stderr[-600:]}")
    assert not failed, "\n".join(failed)
    assert host.list() == []
