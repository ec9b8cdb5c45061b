# SPDX-License-Identifier: GPL-2.0-or-later
"""NFS mount options of the source that people use: it works, and what is weaker for them is told (docs/nfs.md)."""
import hosts
import pytest
from harness import eventually

RECORD = "fd = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666); os.write(fd, data); os.close(fd)"


@pytest.mark.limit(60)
@pytest.mark.expect_log("the source's NFS mount .* has the option")
@pytest.mark.parametrize(
    "option, told", [("soft", "soft: calls fail"), ("nocto", "nocto: a file"), ("noac", None), ("actimeo=600", None)]
)
def test_mount_option(lab, option, told):
    """C2, C9, C11 past whatever the client caches; with `nocto` records are all there, if not seen at once."""
    lab.nfs_options += "," + option
    source = lab.source()
    a, b = lab.host(source, "alpha"), lab.host(source, "beta")
    assert b.error("os.stat", "f") == "ENOENT"
    for data in (b"one", b"two, longer"):
        a.write("f", data)
        assert b.read("f") == data
    b("os.unlink('f')")
    assert not a.exists("f")
    for number, host in enumerate((a, b, a, b)):
        host(RECORD, data=b"record %d\n" % number)
    if option != "nocto":
        assert a.read("log") == b.read("log") == b"".join(b"record %d\n" % number for number in range(4))
    for host in (a, b):
        lines = [line for line in host.log_text().splitlines() if "has the option" in line]
        assert len(lines) == (1 if told else 0) and all(told in line for line in lines)


# On v4 a call that failed is followed by the recovery of the session, for which even soft mounts wait.
SOFT = [flavour for flavour in hosts.FLAVOURS if "vers=3" in flavour]
if SOFT:

    @pytest.mark.limit(90)
    @pytest.mark.expect_log("has the option|cannot|silent|renew|rejoined|not committed|warning")
    @pytest.mark.parametrize("lab", SOFT, indirect=True)
    def test_a_storm_of_errors(lab):
        """C24, C1: a soft mount whose server is away gives EIO for everything; then all goes on, with whole versions only."""
        lab.nfs_options += ",soft,timeo=5,retrans=1"
        source = lab.source()
        a, b = lab.host(source, "alpha", "lease=6"), lab.host(source, "beta", "lease=6")
        old, new = b"old" * 50000, b"new" * 50000
        a.write("f", old)
        writer, other = a.worker(), a.worker()
        writer("fd = os.open('f', REPLACE); write_all(fd, data)", data=new)
        other("None")
        lab.leftovers_expected = True
        lab.rig.cut(a.vm.name)
        try:
            for deed in ("os.stat('g')", "os.listdir('.')", "put('g', b'x')", "os.mkdir('d')", "os.rename('f', 'g')"):
                assert other("error(lambda: %s)" % deed) in ("EIO", "ETIMEDOUT"), deed
            assert writer("error(os.close, fd)") in ("EIO", "ETIMEDOUT")
        finally:
            lab.rig.heal(a.vm.name)
        assert eventually(lambda: a.error("os.listdir", ".") is None, 10)
        assert b.read("f") in (old, new) and a.read("f") == b.read("f")
        a.write("f", b"goes on")
        assert b.read("f") == b"goes on" and not b.exists("d")
