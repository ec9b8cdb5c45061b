# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a Debian with systemd that mounts NFS and safewritefs above it, by lines of fstab and as a service: it
starts without its server, meets it, loses daemons and server, reboots, and ends (docs/operating.md).

Bounds are far, for the machine is emulated; what was measured is printed (pytest -s)."""
import json
import re
import time

import fleet
from conftest import SHARES
from fleet import BOOT_SECONDS, SLOWNESS

# systemd kills and gives up after 90 s, each time: a shutdown in order takes far less.
SHUTDOWN_SECONDS = 80
# How long a mount is away, in the machine's own seconds.
AWAY = r"""
stat -f -c %T {0} >/dev/null || exit 3
began=$(cut -d' ' -f1 /proc/uptime)
kill -9 {1}
for _ in $(seq 300); do
    [ "$(stat -f -c %T {0} 2>/dev/null)" = fuseblk ] && break
    sleep 0.05
done
[ "$(stat -f -c %T {0})" = fuseblk ] || exit 4
echo $began $(cut -d' ' -f1 /proc/uptime)
"""


def eventually(check, seconds):
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.3)


def property_of(vm, unit, name):
    return vm.run(["systemctl", "show", "--value", "-p", name, unit], check=True).stdout.strip()


def is_active(vm, unit):
    return property_of(vm, unit, "ActiveState") == "active"


def type_at(vm, place):
    """Of what is uppermost there; before Linux 6.5 a dead mount stays below the one that came back."""
    return "".join(vm.run(["findmnt", "-n", "-o", "FSTYPE", place]).stdout.split()[-1:])


def journal(vm, *words):
    """The entries that match, oldest first."""
    lines = vm.run(["journalctl", "-o", "json", "--no-pager", *words], check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def measured(what, seconds):
    print("measured: %s: %.1f s" % (what, seconds))


def test_starts_without_its_server(rig):
    """People can log in although the server is away; nothing is served in its place, and it is still waited for."""
    debian = rig["client1"]
    for vm in (debian, rig.server):
        vm.power_off()
    began = time.monotonic()
    debian.start()
    debian.wait(BOOT_SECONDS)
    for unit in ("remote-fs.target", "systemd-user-sessions.service"):
        assert eventually(lambda: is_active(debian, unit), BOOT_SECONDS), debian.run(["systemctl", "list-jobs"]).stdout
    measured("start without a server", time.monotonic() - began)
    assert type_at(debian, "/srv/nfs") == "" and type_at(debian, "/cache") == "" and type_at(debian, "/data") == ""
    assert not is_active(debian, "cache.mount") and not is_active(debian, "safewritefs@data.service")
    assert debian.run(["ls", "-A", "/srv/nfs"]).stdout == "", "somebody wrote into the place of the share"
    jobs = debian.run(["systemctl", "list-jobs", "--no-legend"], check=True).stdout
    for unit in ("srv-nfs.mount", "cache.mount", "safewritefs@data.service"):
        assert unit in jobs, "nobody waits for " + unit
    assert type_at(debian, "/auto") == "autofs"


def test_everything_is_mounted_when_the_server_comes(server, rig):
    """In order: the share, and what is above it; by the line and as a service."""
    debian = rig["client1"]
    began = time.monotonic()
    if not debian.pid:
        debian.start()
        debian.wait(BOOT_SECONDS)
    for unit in ("srv-nfs.mount", "cache.mount", "safewritefs@data.service"):
        assert eventually(lambda: is_active(debian, unit), BOOT_SECONDS), debian.run(["systemctl", "status", unit]).stdout
    measured("everything is mounted after the server has come", time.monotonic() - began)
    times = [int(property_of(debian, unit, "ActiveEnterTimestampMonotonic"))
             for unit in ("srv-nfs.mount", "cache.mount", "safewritefs@data.service")]
    assert times[0] < times[1] and times[0] < times[2]
    assert fleet.await_boot(debian) == "running", debian.run(["systemctl", "--failed"]).stdout
    for place in ("cache", "data"):
        assert type_at(debian, "/" + place) == "fuse.safewritefs"
        debian.run("rm -f /%s/file; su ann -c 'echo %s >/%s/file'" % (place, place, place), check=True)
        assert server.run(["cat", "/disk/free/%s/file" % place], check=True).stdout == place + "\n"


def test_automount(debian, server):
    """Who comes first mounts it."""
    assert not is_active(debian, "auto.mount")
    debian.run("su bob -c 'echo auto >/auto/file'", check=True, timeout=60 * SLOWNESS)
    assert is_active(debian, "auto.mount") and "fuse.safewritefs" in type_at(debian, "/auto")
    assert server.run(["cat", "/disk/free/auto/file"], check=True).stdout == "auto\n"


def test_status(debian):
    """What systemctl(1) and safewritectl(1) show."""
    said = debian.run(["systemctl", "status", "--no-pager", "safewritefs@data.service"], check=True).stdout
    assert "active (running)" in said and "man:safewritefs(8)" in said
    assert re.search(r'Status: "/srv/nfs/data mounted on /data as host client1\.', said), said
    assert "active (mounted)" in debian.run(["systemctl", "status", "--no-pager", "cache.mount"], check=True).stdout
    said = debian.run(["safewritectl", "status"], check=True).stdout
    for place in ("cache", "data"):
        assert "mounted at /%s " % place in said
    said = debian.run(["safewritectl", "doctor", "/cache"], check=True).stdout
    assert not re.search("^(warning|error)", said, re.MULTILINE) and "no mount option weakens anything" in said, said


def test_doctor(debian):
    """C23: a clock that is wrong is said and does no harm; a weak option of the share is a warning."""
    debian.run(["date", "-s", "+3 hours"], check=True)
    said = debian.run(["safewritectl", "doctor", "/cache"], check=True).stdout
    debian.run(["date", "-s", "-3 hours"], check=True)
    assert re.search(r"^ok +clocks .* ahead of the source", said, re.MULTILINE), said
    debian.run("mkdir -p /run/soft && mount -t nfs4 -o soft,ro server:/free /run/soft", check=True, timeout=60 * SLOWNESS)
    said = debian.run(["safewritectl", "doctor", "/run/soft/cache"]).stdout
    debian.run(["umount", "/run/soft"], check=True)
    assert re.search(r"^warning +nfs .*option soft: .* use hard", said, re.MULTILINE), said


def test_journal(debian):
    """The journal has the fields: what was mounted, and whose bytes are in salvage (C4)."""
    for place in ("cache", "data"):
        entry = journal(debian, "-b", "SW_EVENT=mounted", "SW_MOUNT=/" + place)[0]
        assert entry["SW_SOURCE"] == "/srv/nfs/" + place and entry["SW_HOST"].startswith("client1.")
        assert entry["SYSLOG_IDENTIFIER"] == "safewritefs" and entry["PRIORITY"] == "6" and len(entry["MESSAGE_ID"]) == 32
        unit = "safewritefs@data.service" if place == "data" else place + ".mount"
        assert entry["_SYSTEMD_UNIT"] == unit
    assert "waiting for it" not in str(journal(debian, "-b", "SW_EVENT=source-lost")), "the share was there before"
    debian.run("rm -f /cache/torn; exec 3>/cache/torn; echo half >&3; kill -9 $$")
    entry = eventually(lambda: journal(debian, "-b", "SW_PATH=/cache/torn"), 5 * SLOWNESS)[-1]
    assert entry["SW_EVENT"] == "writer-killed" and entry["SW_REASON"] == "killed" and entry["SW_COMM"] == "bash"
    assert int(entry["SW_PID"]) > 1 and entry["SW_MOUNT"] == "/cache"
    assert debian.run(["test", "-e", "/cache/torn"]).returncode == 1


def test_killed_daemons_come_back(debian):
    """By the supervisor, and by systemd; the journal says so.  That it takes 2 s at most on a machine of ordinary speed is
    tests/mount/test_supervisor.py's business."""
    for place, pid in (("/cache", cache_daemon(debian)), ("/data", property_of(debian, "safewritefs@data.service", "MainPID"))):
        done = debian.run(AWAY.format(place, pid), timeout=60 * SLOWNESS)
        assert done.returncode == 0, done
        began, ended = map(float, done.stdout.split())
        measured("%s is away after kill -9" % place, ended - began)
        assert ended - began < 6 * SLOWNESS
    assert property_of(debian, "safewritefs@data.service", "NRestarts") == "1"
    assert journal(debian, "SW_EVENT=daemon-died", "SW_MOUNT=/cache")
    assert is_active(debian, "cache.mount") and debian.run(["cat", "/cache/file"]).stdout == "cache\n"
    assert debian.run(["cat", "/data/file"]).stdout == "data\n"


def daemons(vm):
    return set(vm.run("pgrep -x safewritefs", check=True).stdout.split())


UPGRADED = ("exec 3>/{0}/across; echo begin >&3; touch /run/{0}-begun; while [ ! -e /run/{0}-go ]; do sleep 0.1; done; "
            "echo end >&3; exec 3>&-; cat /{0}/across >/run/{0}-seen")


def test_a_new_version_goes_on(debian):
    """C24: by the command, and by systemctl reload: who has a file open goes on with it, and systemd sees no change."""
    for place, unit, command in (("cache", "cache.mount", ["safewritectl", "upgrade", "/cache"]),
                                 ("data", "safewritefs@data.service", ["systemctl", "reload", "safewritefs@data.service"])):
        debian.run(["systemd-run", "--unit=writer-" + place, "bash", "-c", UPGRADED.format(place)], check=True)
        assert eventually(lambda: debian.run(["test", "-e", "/run/%s-begun" % place]).returncode == 0, 10 * SLOWNESS)
        before, since = daemons(debian), property_of(debian, unit, "ActiveEnterTimestampMonotonic")
        debian.run(command, check=True, timeout=60 * SLOWNESS)
        assert eventually(lambda: len(daemons(debian) - before) == len(before - daemons(debian)) == 1, 10 * SLOWNESS)
        debian.run(["touch", "/run/%s-go" % place], check=True)
        seen = eventually(lambda: debian.run(["cat", "/run/%s-seen" % place]).stdout, 30 * SLOWNESS)
        assert seen == "begin\nend\n"
        assert is_active(debian, unit) and property_of(debian, unit, "ActiveEnterTimestampMonotonic") == since
        assert debian.run(["cat", "/%s/file" % place]).stdout == place + "\n"
    assert property_of(debian, "safewritefs@data.service", "NRestarts") == "1"  # that of the test before
    assert property_of(debian, "safewritefs@data.service", "MainPID") in daemons(debian)


def cache_daemon(vm):
    """The pid of the daemon below the supervisor of /cache, as the journal has it."""
    return journal(vm, "-b", "SW_EVENT=mounted", "SW_MOUNT=/cache")[-1]["_PID"]


def test_server_reboots(debian, server):
    """C24: what waits goes on, and what was told of: the source was lost, and found."""
    writer = ("exec 3>/cache/long; echo begin >&3; touch /run/begun; while [ ! -e /run/go ]; do sleep 0.1; done; "
              "echo end >&3; exec 3>&-; cat /cache/long >/run/seen")
    debian.run(["systemd-run", "--unit=writer", "bash", "-c", writer], check=True)
    assert eventually(lambda: debian.run(["test", "-e", "/run/begun"]).returncode == 0, 10 * SLOWNESS)
    server.power_off()
    assert eventually(lambda: journal(debian, "-b", "SW_EVENT=source-lost", "SW_MOUNT=/cache"), 60 * SLOWNESS)
    debian.run(["touch", "/run/go"])
    server.start()
    server.wait(BOOT_SECONDS)
    assert eventually(lambda: debian.run(["cat", "/run/seen"]).stdout == "begin\nend\n", 120 * SLOWNESS)
    assert eventually(lambda: journal(debian, "-b", "SW_EVENT=source-found", "SW_MOUNT=/cache"), 30 * SLOWNESS)
    assert server.run(["cat", "/disk/free/cache/long"], check=True).stdout == "begin\nend\n"
    assert is_active(debian, "cache.mount") and is_active(debian, "safewritefs@data.service")


def test_power_off(debian, server):
    """The end is quick, and leaves nothing of this host in the sources."""
    began = time.monotonic()
    debian.run(["systemctl", "--no-block", "poweroff"], check=True)
    assert eventually(lambda: not debian.pid, SHUTDOWN_SECONDS * SLOWNESS), debian.console()[-2000:]
    measured("power off", time.monotonic() - began)
    left = server.run("ls -A /disk/free/*/.safewritefs/hosts /disk/free/*/.safewritefs/leases", check=True).stdout
    assert left.count(".safewritefs/hosts:") >= 2 and "client1." not in left, left
