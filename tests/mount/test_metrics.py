# SPDX-License-Identifier: GPL-2.0-or-later
"""safewritectl metrics: what a mount counts, in the formats that Prometheus and node_exporter read."""

import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.parse

import pytest
from harness import CTL, Frozen, eventually, read_text
from scraping import MONITORING, Prometheus
from test_ctl import documented, names_in
from test_late_writes import GONE

LEASE = 2


def samples(text):
    """{(name, label's value or None): number} of one mount."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"safewritefs_(\w+)\{(.*)\} (\S+)", line).groups()
        words = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)
        key = [word for label, word in words if label not in ("mountpoint", "le")]
        if not name.endswith(("_bucket", "_info")):
            found[name, key[0] if key else None] = float(value)
    return found


def numbers(host):
    return samples(host.run([CTL, "metrics", host.mnt], cwd="/").stdout)


def grown(host, before):
    now = numbers(host)
    return {key: now[key] - before.get(key, 0) for key in now if now[key] != before.get(key, 0)}


def test_what_is_counted(lab, hosts):
    """Each event once: commits, edits, an edit made over, records, bytes, requests, a killed writer."""
    a, b = hosts
    before = numbers(a)
    a.write("f", b"x" * 1000)
    grew = grown(a, before)
    assert grew["commits_total", "whole"] == 1 and grew["written_bytes_total", None] == 1000
    assert ("commits_total", "edit") not in grew
    assert grew["request_duration_seconds_count", "create"] == 1
    assert grew["request_duration_seconds_sum", "create"] > 0
    assert grew["source_call_duration_seconds_count", "rename"] >= 1
    before = numbers(a)
    editor = a.worker()
    editor("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'A', 0)")
    assert grown(a, before)["stages", None] == 1
    b("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'B', 500); os.close(fd)")
    editor("os.close(fd)")
    grew = grown(a, before)
    assert grew["commits_total", "edit"] == grew["edits_rebased_total", None] == 1
    before = numbers(a)
    a("fd = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND); os.write(fd, b'one'); os.write(fd, b'two')")
    assert a.read("f")[:1] == b"A"
    grew = grown(a, before)
    assert grew["written_bytes_total", None] == 6 and grew["read_bytes_total", None] == 1000
    before = numbers(a)
    writer = a.worker()
    writer("fd = os.open('g', REPLACE); os.write(fd, b'lost')")
    writer.kill()
    assert eventually(lambda: numbers(a)["salvaged_total", None] == 1)
    assert grown(a, before)["discards_total", "killed"] == 1
    a("os.close(fd)")


@pytest.mark.expect_log("rejoined")
@pytest.mark.options("lease=%d" % LEASE)
def test_a_fenced_host(lab, hosts, source):
    """C21: who broke whom, who was fenced, and the commit that was refused."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('f', REPLACE); os.write(fd, b'late')")
    with Frozen(a):
        assert eventually(lambda: numbers(b)["hosts_ended_total", "silent"] == 1, 6 * LEASE)
    assert writer("error(os.close, fd)") == "ESTALE"
    assert eventually(lambda: numbers(a)["rejoins_total", None] == 1, 4 * LEASE)
    now = numbers(a)
    assert now["discards_total", "fenced"] == 1 and now["request_errors_total", "ESTALE"] >= 1


def test_a_request_that_waits_counts_once(lab, hosts):
    """One that is put off to another thread is one request, and took all the time until its answer."""
    a, _ = hosts
    a.write("f", b"x")
    before = numbers(a)
    a("os.truncate('f', 0)")
    grew = grown(a, before)
    assert grew["requests_deferred_total", None] >= 1
    # The one that is sent round, and the one that truncates.
    assert 1 <= grew["request_duration_seconds_count", "setattr"] <= 2


def test_who_may_ask(lab, mount):
    """Root and the mount's user; others do not see that there is anything."""
    key = "user.safewritefs.metrics"
    assert os.getxattr(mount.mnt, key).startswith(b"safewritefs-metrics 1 ")
    code = "import os; os.setresuid(31001, 31001, 31001); os.getxattr(%r, %r)" % (mount.mnt, key)
    done = subprocess.run(["python3", "-c", code], capture_output=True, text=True, check=False)
    assert "No data available" in done.stderr
    assert key not in os.listxattr(mount.mnt)
    mount("os.mkdir('d')")
    with pytest.raises(OSError):
        os.getxattr(mount.mnt + "/d", key)


def promtool():
    found = shutil.which("promtool")
    if not found:
        pytest.skip("no promtool: package prometheus")
    return found


def test_textfile(lab, mount):
    """--textfile: one whole file for each mount, which promtool has nothing against; gone with its mount."""
    directory = lab.directory + "/textfiles"
    os.mkdir(directory)
    mount.write("f", b"data")
    lab.ctl("metrics", "--textfile", directory, mount.mnt)
    (name,) = os.listdir(directory)
    assert re.fullmatch(r"safewritefs-[\w.-]+\.prom", name)
    text = read_text(directory + "/" + name)
    assert samples(text)["commits_total", "whole"] == 1 and samples(text)["up", None] == 1
    stranger, old = directory + "/other.prom", directory + "/safewritefs--2fgone.prom"
    mount.touch(stranger)
    mount.touch(old)
    lab.ctl("metrics", "--textfile", directory, mount.mnt)
    assert os.path.exists(old)  # it was asked about one mount only
    lab.ctl("metrics", "--textfile", directory, check=False)  # of other tests' mounts, too, which may end meanwhile
    assert os.path.exists(stranger)
    assert lab.ctl("metrics", "--textfile", directory + "/missing", mount.mnt, check=False).returncode == 1
    subprocess.run([promtool(), "check", "metrics"], input=text, check=True, text=True)


def test_openmetrics(lab, mount):
    """Standard output is OpenMetrics, by the reference parser."""
    text = lab.ctl("metrics", mount.mnt).stdout
    assert text.endswith("\n# EOF\n")
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert families["safewritefs_commits"].type == "counter"
    assert families["safewritefs_request_duration_seconds"].type == "histogram"
    assert families["safewritefs_request_duration_seconds"].unit == "seconds"
    assert families["safewritefs_up"].samples[0].value == 1


def test_a_frozen_mount(lab, source):
    """C24: it is shown as down, and nobody waits for it."""
    host = lab.host(source, "alpha", "lease=60")
    with Frozen(host):
        done = host.run([CTL, "metrics", host.mnt], cwd="/")
        found = samples(done.stdout)
        assert found["up", None] == 0 and found["source_hosts", "alive"] + found["source_hosts", "late"] == 1
        assert ("commits_total", "whole") not in found and "cannot be asked" in done.stderr
        (shown,) = json.loads(host.run([CTL, "metrics", "--json", host.mnt], cwd="/").stdout)
        assert shown["up"] is False and shown["host"] is None


def test_json(lab, mount, source):
    """The documented names, and no others."""
    mount.write("f", b"data")
    (shown,) = json.loads(lab.ctl("metrics", "--json", source).stdout)
    assert names_in(shown) == documented("metrics")
    assert shown["up"] is True and shown["mountpoint"] == mount.mnt and shown["source"] == source
    counts = {(count["name"], count["label"]): count["value"] for count in shown["counts"]}
    assert counts["commits", "whole"] == 1
    (create,) = [one for one in shown["times"] if one["label"] == "create"]
    assert create["count"] == sum(create["buckets"]) == 1
    assert lab.ctl("metrics", "/", check=False).returncode == 1


@pytest.fixture
def prometheus():
    if not Prometheus.program:
        pytest.skip("no prometheus: package prometheus")
    return Prometheus


@pytest.mark.limit(180)
def test_prometheus(lab, mount, prometheus):
    """Debian's Prometheus takes the numbers, knows their types, and has the alerts, none of which fires."""
    for number in range(3):
        mount.write("f%d" % number, b"data")
    with prometheus(lab.directory, [("node1", mount)]) as running:

        def query(expression):
            found = running.ask("query", query=expression)
            return float(found["result"][0]["value"][1]) if found and found["result"] else None

        assert eventually(lambda: query("sum(safewritefs_commits_total)") == 3, 60)
        assert query("safewritefs_up") == 1
        assert 0 < query("histogram_quantile(0.5, sum by (le) (safewritefs_request_duration_seconds_bucket))") < 1
        types = running.ask("metadata")
        assert types["safewritefs_commits"][0]["type"] == "counter"
        assert types["safewritefs_request_duration_seconds"][0]["type"] == "histogram"
        (group,) = running.ask("rules")["groups"]
        assert len(group["rules"]) == 10 and {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
        assert eventually(
            lambda: {rule["health"] for rule in running.ask("rules")["groups"][0]["rules"]} == {"ok"}, 30
        )
        assert running.ask("alerts")["alerts"] == []


def dashboard():
    """(title, legend, expression) of each curve and number of Grafana's dashboard."""
    for panel in json.loads(read_text(MONITORING + "/grafana-dashboard.json"))["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["legendFormat"], target["expr"]


def as_grafana(expression):
    """With all machines and mounts chosen; a rate's interval is at least four times that of scraping, and one that a
    loaded machine may have missed some of."""
    for name, value in (("$instance", ".*"), ("$mountpoint", ".*"), ("$__rate_interval", "30s")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def values(running, expression, start):
    """All that a graph from then until now would show; NaN is a gap."""
    words = {"query": as_grafana(expression), "start": start, "end": time.time(), "step": 1}
    found = running.ask("query_range", **words)
    assert found is not None, expression
    numbers = [float(value) for series in found["result"] for _, value in series["values"]]
    return [number for number in numbers if number == number]


# What only a source that is full makes come true is there, and is nothing; and so may be what is counted only where the
# commit of a host that was taken for dead comes before that host has noticed (test_a_fenced_host).
UNTROUBLED = {"salvage failed", "commits fenced"}


def lease_of(host, source, name):
    """As of one that appends, and takes its time, or died; its path."""
    inode = os.stat(source + "/" + name).st_ino
    path = "%s/.safewritefs/leases/%016x" % (source, inode)
    os.symlink("%s 1 append 3 3 %d %s" % (host, inode, name), path)
    return path


def troubles(a, b, running):
    """Each thing that the dashboard has a curve for."""
    for name in ("f", "g"):
        a.write(name, b"x" * 1000)
    a.read("f")
    b.read("f")
    editor = a.worker()
    editor("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'A', 0)")
    b("fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'B', 500); os.close(fd)")
    editor("os.close(fd)")
    a("fd = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND); os.write(fd, b'one'); os.close(fd)")
    a("os.rename('g', 'h'); os.unlink('h')")
    writer = a.worker()
    writer("os.open('f.lock', os.O_CREAT | os.O_EXCL | os.O_WRONLY); fd = os.open('f', REPLACE); os.write(fd, b'lost')")
    time.sleep(3)  # scraped while it writes and holds
    writer.kill()
    assert eventually(lambda: not a.exists("f.lock"), 4 * LEASE)
    a("os.truncate('f', 0)")
    late = a.worker()
    late("fd = os.open('late', REPLACE); os.write(fd, b'late')")
    (alpha,) = [name for name in os.listdir(a.source + "/.safewritefs/hosts") if name.startswith("alpha.")]
    held = lease_of(alpha, a.source, "f")
    assert eventually(lambda: running.ask("query", query="safewritefs_source_content_leases > 0")["result"], 20)
    pathlib.Path(held).unlink(missing_ok=True)
    lease_of(GONE, a.source, "log")
    b("put('log', b'two', flags=os.O_WRONLY | os.O_APPEND)")
    with Frozen(a):
        assert eventually(lambda: numbers(b)["hosts_ended_total", "silent"] == 1, 6 * LEASE)
        down = "safewritefs_up == 0"
        assert eventually(lambda: running.ask("query", query=down)["result"], 30)
    assert late("error(os.close, fd)") == "ESTALE"
    assert eventually(lambda: numbers(a)["rejoins_total", None] == 1, 4 * LEASE)
    a.write("again", b"x")


@pytest.mark.limit(240)
@pytest.mark.expect_log("rejoined")
@pytest.mark.options("lease=%d" % LEASE)
def test_dashboard(lab, hosts, prometheus):
    """Each expression of Grafana's dashboard answers in a running Prometheus, and not with zeros only."""
    start = time.time()
    with prometheus(lab.directory, [("node1:9100", hosts[0]), ("node2:9100", hosts[1])]) as running:
        scraped = "count(count_over_time(safewritefs_up[1m]) >= 3)"
        assert eventually(lambda: (running.ask("query", query=scraped) or {}).get("result"), 60)
        troubles(*hosts, running)

        def silent():
            """Curves without anything to see."""
            shown = {(title, legend): values(running, text, start) for title, legend, text in dashboard()}
            assert all(shown[key] for key in shown if key[1] in UNTROUBLED)
            return [key for key in shown if key[1] not in UNTROUBLED and not any(n > 0 for n in shown[key])]

        eventually(lambda: not silent(), 20)
        assert not silent(), silent()


@pytest.mark.limit(120)
def test_console(lab, source, prometheus):
    """It is a page without errors, with all panels; what it loads is there; no name of a mount becomes a part of it."""
    plain = lab.host(source, "plain")
    odd = lab.host(lab.source("other"), "odd", mount=False)
    odd.mnt = os.path.join(lab.directory, "a\"<i>'&{{.}}$+b")
    os.mkdir(odd.mnt)
    odd.mount()
    plain.write("f", b"data")
    page = "/consoles/safewritefs.html"
    with prometheus(lab.directory, [("node1:9100", plain), ("node2:9100", odd)]) as running:
        both = "count(safewritefs_up == 1) == 2"
        assert eventually(lambda: (running.ask("query", query=both) or {}).get("result"), 60)
        status, text = running.fetch(page + "?" + urllib.parse.urlencode({"mountpoint": odd.mnt, "instance": "<i>"}))
        assert status == 200, text
        assert "<i>" not in text
        # Each has its row, with the numbers of its own.
        rows = re.findall(r"<tr><td>(node\d:9100)</td>(.*?)</tr>", text, re.S)
        assert [row[0] for row in rows] == ["node1:9100", "node2:9100"]
        for (_, row), host in zip(rows, (plain, odd)):
            assert "<td>%s." % host.hostname in row and ">yes<" in row and '<td class="number">1</td>' in row
            (address, name) = re.search(r'<a href="\?(.*?)">(.*)</a>', row).groups()
            assert html.unescape(name) == host.mnt
            assert urllib.parse.parse_qs(html.unescape(address))["mountpoint"] == [host.mnt]
        assert [html.unescape(name) for name in re.findall(r"<option selected>(.*)</option>", text)] == [odd.mnt]
        panels = json.loads(re.search(r'id="panels">(.*?)</script>', text, re.S).group(1))
        shown = {(one["title"], target["expr"]) for one in panels for target in one["targets"]}
        assert shown == {(title, expression) for title, _, expression in dashboard()}
        for path in re.findall(r'(?:src|href)="(/classic/[^"]*)"', text):
            assert running.fetch(path)[0] == 200, path
