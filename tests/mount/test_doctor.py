# SPDX-License-Identifier: GPL-2.0-or-later
"""safewritectl doctor: what is wrong is found, and said with what to do; what is not wrong is no finding."""

import json
import os
import re
import subprocess

import pytest
from harness import CTL, DAEMON, Frozen
from test_ctl import GONE, control, documented, make_host, names_in

LEASE = 2
USER = {"user": 31001, "group": 31001, "extra_groups": []}


def findings(lab, *words, status=0, command=(), **named):
    """{check: [(result, text, advice)]}, of the program as it is run by `command`."""
    done = subprocess.run([*command, CTL, "doctor", "--json", *words], capture_output=True, text=True, **named)
    assert status is None or done.returncode == status, done
    found = json.loads(done.stdout)
    assert names_in(found) == documented("doctor")
    checks = {}
    for one in found:
        checks.setdefault(one["check"], []).append((one["result"], one["text"], one["advice"]))
    return checks


def results(found):
    return {check: {one[0] for one in some} for check, some in found.items()}


def in_namespace(script):
    """A command in front of another that prepares a mount namespace of its own."""
    return ["unshare", "-m", "sh", "-ec", script + '; exec "$@"', "sh"]


def test_all_is_well(lab, mount, source):
    """A sound mount on a sound machine, by its source and by its mountpoint."""
    for path in (source, mount.mnt):
        found = findings(lab, path)
        assert {result for some in found.values() for result, _, _ in some} <= {"ok", "warning"}
        for check in ("fuse", "helper", "libfuse", "rights", "control", "hosts", "leftovers", "salvage", "mounts"):
            assert results(found)[check] == {"ok"}, found[check]
        assert found["hosts"][0][1] == "1 alive, 0 late" and found["mounts"][0][1] == mount.mnt + " answers"
    text = lab.ctl("doctor", source).stdout
    assert all(line.split()[0] in ("ok", "warning") for line in text.splitlines())
    assert os.listdir(control(source, "salvage")) == [] and lab.ctl("doctor").returncode == 0


def test_the_machine(lab):
    """An old kernel, no /dev/fuse, no fusermount3, no rights: errors; each with what to do."""
    old = findings(lab, command=["setarch", "--uname-2.6"], status=1)
    assert results(old)["kernel"] == {"error"} and "6.1" in old["kernel"][0][2]
    none = findings(lab, command=in_namespace("mount -t tmpfs none /dev"), status=1)
    assert results(none)["fuse"] == {"error"} and "modprobe" in none["fuse"][0][2]
    assert results(findings(lab, env={"PATH": "/nowhere"}))["helper"] == {"warning"}
    assert results(findings(lab, env={"PATH": "/nowhere"}, status=1, **USER))["helper"] == {"error"}
    assert "this user alone" in findings(lab, status=None, **USER)["rights"][0][1]
    bare = findings(lab, command=["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"], status=1)
    assert results(bare)["rights"] == {"error"}
    few = findings(lab, command=["prlimit", "--nofile=100:100"])
    assert results(few)["limits"] == {"warning"}


@pytest.mark.parametrize(
    "says,result",
    [("fusermount3 version: 3.14.0", "ok"), ("fusermount3 version: 3.10.2", "error"), ("nothing", "warning")],
)
def test_the_library(lab, says, result):
    """One that is too old is an error, one that does not tell is none; nor is one that the daemon does not use."""
    version = subprocess.run([DAEMON, "--version"], capture_output=True, text=True, check=True).stdout
    own = re.search(r"libfuse (\S+) \(bundled\)", version)
    program = os.path.join(lab.directory, "fusermount3")
    with open(program, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\necho '%s'\n" % says)
    os.chmod(program, 0o4755)
    found = findings(lab, status=int(result == "error" and not own), env={"PATH": lab.directory + ":/usr/bin:/bin"})
    if own:
        assert results(found)["libfuse"] == {"ok"} and own.group(1) in found["libfuse"][0][1]
        return
    assert results(found)["libfuse"] == {result}
    assert result != "error" or "3.14" in found["libfuse"][0][2]


@pytest.mark.parametrize(
    "options,fill,result,says",
    [
        ("size=1m", "head -c 1000 /dev/zero >f", "ok", "room"),
        ("size=1m", "head -c 1020000 /dev/zero >f", "warning", "free"),
        ("size=1m,nr_inodes=100", "touch $(seq 97)", "warning", "inodes"),
    ],
)
def test_the_room(lab, source, options, fill, result, says):
    """A source that is nearly full of bytes, or of files."""
    script = "mount -t tmpfs -o %s none %s; cd %s; %s; cd /" % (options, source, source, fill)
    found = findings(lab, source, command=in_namespace(script))
    assert results(found)["space"] == {result} and says in found["space"][0][1]


@pytest.mark.parametrize(
    "text,result,says",
    [
        ("[defaults]\nlease=30\n", "ok", "/etc/safewritefs.conf"),
        ("[defaults]\nlease=never\n", "error", "lease"),
        ("[defaults]\nthrough=+*\n", "warning", "no file is protected"),
        ("[/mnt]\nlocks=a:*\n", "warning", "taken for a lock file"),
    ],
)
def test_the_options(lab, text, result, says):
    """The configuration file is one that a daemon would take, and protects something."""
    script = "mount -t tmpfs none /mnt; cp -a /etc/passwd /etc/group /mnt; printf '%b' \"$0\" >/mnt/safewritefs.conf; "
    command = in_namespace(script + "mount --bind /mnt /etc")
    command[-1] = text
    path = os.path.dirname(lab.daemon) + ":" + os.environ["PATH"]
    found = findings(lab, command=command, status=int(result == "error"), env={**os.environ, "PATH": path})
    assert any(one[0] == result and says in one[1] for one in found["options"]), found["options"]


def test_the_fstab(lab):
    """The same of the options there; other file systems are no business of this."""
    script = "mount -t tmpfs none /mnt; cp -a /etc/passwd /etc/group /mnt; printf '%b' \"$0\" >/mnt/fstab; "
    command = in_namespace(script + "mount --bind /mnt /etc")
    command[-1] = (
        "/s /m safewritefs rw,host-private=*,lease=9 0 0\\n/s /n fuse.safewritefs through=*.db 0 0\\n/t /o other locks=* 0 0\\n"
    )
    wrong = [text for result, text, _ in findings(lab, command=command)["options"] if result == "warning"]
    assert len(wrong) == 1 and wrong[0].startswith("/etc/fstab, /m: host-private=*: no new file is seen")


@pytest.mark.parametrize(
    "options,wrong",
    [
        ("rw,sync,wdelay,no_subtree_check", set()),
        ("rw,async,no_subtree_check", {"async"}),
        ("rw,sync,subtree_check", {"subtree_check"}),
    ],
)
def test_the_export(lab, source, options, wrong):
    """On the server: how it exports the source, or a directory above it; others are no business of this one."""
    lines = ["%s\t*(%s)" % (os.path.dirname(source), options), "/elsewhere\t*(rw,async,subtree_check)"]
    text = "\\n".join(lines + [source[:-1] + "\t*(rw,async,subtree_check)"])
    script = 'mount -t tmpfs none /var/lib; mkdir /var/lib/nfs; printf \'%b\\n\' "$0" >/var/lib/nfs/etab'
    command = in_namespace(script)
    command[-1] = text
    found = findings(lab, source, command=command, status=int(bool(wrong)))["export"]
    assert len(found) == 1 and found[0][0] == ("error" if wrong else "ok")
    assert all("exported with " + word in found[0][1] for word in wrong)


def test_the_control_directory(lab, source):
    """P1: modes and owners for which mounts are refused, with the command that mends them."""
    assert "never mounted" in findings(lab, source)["control"][0][1]
    assert lab.host(source, "alpha").unmount() == []
    assert results(findings(lab, source))["control"] == {"ok"}
    os.chmod(control(source, "leases"), 0o777)
    os.chown(control(source, "hosts"), 31001, 31001)
    os.chmod(control(source, "salvage"), 0o700)
    found = [one for one in findings(lab, source, status=1)["control"] if one[0] != "ok"]
    assert sorted(one[1].split(" ")[0] for one in found) == [
        ".safewritefs/hosts",
        ".safewritefs/leases",
        ".safewritefs/salvage",
    ]
    assert {one[2] for one in found} == {"chown it to uid 0, and chmod it to " + mode for mode in ("0755", "1777")}
    for name, mode in (("leases", 0o755), ("salvage", 0o1777)):
        os.chmod(control(source, name), mode)
    os.chown(control(source, "hosts"), 0, 0)
    assert results(findings(lab, source))["control"] == {"ok"}
    assert "belongs to uid 0" in findings(lab, source, status=None, **USER)["control"][0][1]
    with open(control(source, "format"), "w", encoding="ascii") as f:
        f.write("safewritefs 9\n")
    assert "error" in results(findings(lab, source, status=1))["control"]


def test_what_is_left(lab, source):
    """Dead and silent hosts, what hosts that are gone have left, versions that differ, and much in salvage."""
    mount = lab.host(source, "plain", "lease=60", namespaces=False)
    writer = mount.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'x' * 1000); os.fsync(fd)")
    mount.kill_daemon()
    os.symlink(GONE + " 2 -", control(source, "leases", "0000000000000001"))
    make_host(source, "other.0123456789abcdef", 60)
    found = findings(lab, source, status=1)  # the mount is still there, dead
    assert any("dead mount" in text and advice == "safewritectl gc " + source for _, text, advice in found["hosts"])
    assert any("2 versions" in text for _, text, _ in found["hosts"])
    assert found["leftovers"][0][0] == "warning" and "1 leases" in found["leftovers"][0][1]
    assert found["mounts"][0][0] == "error" and "has died" in found["mounts"][0][1]
    lab.ctl("gc", source)
    found = findings(lab, "--salvage-max", "1K", source, status=1)
    assert results(found)["salvage"] == {"warning"} and results(found)["leftovers"] == {"ok"}
    assert results(findings(lab, source, status=1))["salvage"] == {"ok"}
    assert lab.ctl("doctor", "--salvage-max", "much", source, check=False).returncode == 2
    lab.leftovers_expected = True


def test_a_frozen_mount(lab, source):
    """C24: it is found, and nobody waits for it."""
    host = lab.host(source, "alpha", "lease=60")
    with Frozen(host):
        done = host.run([CTL, "doctor", host.mnt], cwd="/", check=False)
    assert done.returncode == 1 and re.search(r"^error +mounts +\S+ does not answer: ", done.stdout, re.M)
