# SPDX-License-Identifier: GPL-2.0-or-later
"""x-systemd.automount: whoever comes first waits until the mount has been made, and the mount does not wait for him."""

import pytest
from background import Background
from harness import PYTHON, SLOWNESS, eventually, read_text

# As systemd does it (autofs(5) of the kernel's documentation): what mounts is of systemd's process group, and whoever else
# comes meanwhile waits.
AUTOMOUNT = r"""
import ctypes, fcntl, os, struct, subprocess, sys
READY, FAIL = 0x9360, 0x9361
mnt, argv = sys.argv[1], sys.argv[2:]
os.setpgid(0, 0)
told, kernel = os.pipe()
options = "fd=%d,pgrp=%d,minproto=5,maxproto=5,direct" % (kernel, os.getpgrp())
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"automount", mnt.encode(), b"autofs", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
top = os.open(mnt, os.O_RDONLY)
comer = subprocess.Popen(["cat", mnt + "/f"], start_new_session=True, stdout=subprocess.PIPE)
token = struct.unpack_from("iiI", os.read(told, 4096))[2]
try:
    done = subprocess.run(argv, timeout=TIMEOUT).returncode == 0
except subprocess.TimeoutExpired:
    done = False
fcntl.ioctl(top, READY if done else FAIL, token)
sys.stdout.buffer.write(comer.communicate()[0])
sys.exit(not done)
"""


@pytest.mark.parametrize("restart", ["yes", "no"])
def test_first_come(lab, source, restart):
    """The daemon of the mount, and its supervisor, are in nobody's way until it answers; then they are on their own."""
    if "\tautofs\n" not in read_text("/proc/filesystems"):
        pytest.skip("the kernel has no autofs")
    with open(source + "/f", "w", encoding="ascii") as f:
        f.write("data\n")
    alpha = lab.host(source, "alpha", mount=False)
    argv = [word for word in alpha.argv("restart=" + restart) if word != "-f"]
    done = alpha.run([PYTHON, "-c", AUTOMOUNT.replace("TIMEOUT", str(20 * SLOWNESS)), alpha.mnt, *argv], cwd="/", check=False, timeout=60 * SLOWNESS)
    assert done.returncode == 0 and done.stdout == "data\n", done
    background = Background.found(alpha)
    pids, proc = background.daemons + background.supervisors, alpha.strays()[1]
    assert len(pids) == 1 + (restart == "yes")
    for pid in pids:
        _, pgrp, session = read_text("%s/%d/stat" % (proc, pid)).rpartition(")")[2].split()[1:4]
        assert int(pgrp) == int(session) == pid
    background.end_programs()
    assert eventually(lambda: alpha.umount(check=False).returncode == 0, 5)
    background.await_end()
    alpha.umount()
