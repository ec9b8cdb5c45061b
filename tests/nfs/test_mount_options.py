# SPDX-License-Identifier: GPL-2.0-or-later
"""NFS mount options of the source that people use: it works, and what is weaker for them is told (docs/nfs.md)."""
import pytest

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
