# SPDX-License-Identifier: GPL-2.0-or-later
"""safewritectl metrics: what a mount counts, in the formats that Prometheus and node_exporter read."""

import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request

import pytest
from harness import CTL, ROOT, Frozen, eventually, read_text
from test_ctl import documented, names_in

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


class Exporter(http.server.BaseHTTPRequestHandler):
    """Serves what the tool prints, as node_exporter serves files."""

    mountpoint = None

    def do_GET(self):
        text = subprocess.run([CTL, "metrics", self.mountpoint], capture_output=True, check=True).stdout
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


CONFIG = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - job_name: safewritefs
    static_configs: [{targets: ['127.0.0.1:%d']}]
"""


def ask(port, words):
    try:
        with urllib.request.urlopen("http://127.0.0.1:%d/api/v1/%s" % (port, words), timeout=10) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


@pytest.fixture
def prometheus(lab, mount):
    """A running Prometheus that scrapes the mount, with our rules; its port."""
    program = shutil.which("prometheus")
    if not program:
        pytest.skip("no prometheus: package prometheus")
    served = type("Served", (Exporter,), {"mountpoint": mount.mnt})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    config = lab.directory + "/prometheus.yml"
    with open(config, "w", encoding="ascii") as f:
        f.write(CONFIG % (ROOT + "/docs/monitoring/safewritefs.rules.yml", server.server_port))
    words = ["--config.file=" + config, "--storage.tsdb.path=" + lab.directory + "/tsdb"]
    with open(lab.directory + "/prometheus.log", "wb") as log:
        process = subprocess.Popen(
            [program, *words, "--web.listen-address=127.0.0.1:%d" % port], stdout=log, stderr=log, cwd="/"
        )
    yield port
    process.terminate()
    process.wait(timeout=60)
    server.shutdown()
    server.server_close()


@pytest.mark.limit(180)
def test_prometheus(mount, prometheus):
    """Debian's Prometheus takes the numbers, knows their types, and has the alerts, none of which fires."""
    for number in range(3):
        mount.write("f%d" % number, b"data")

    def query(expression):
        found = ask(prometheus, "query?" + urllib.parse.urlencode({"query": expression}))
        return float(found["result"][0]["value"][1]) if found and found["result"] else None

    assert eventually(lambda: query("sum(safewritefs_commits_total)") == 3, 60)
    assert query("safewritefs_up") == 1
    assert 0 < query("histogram_quantile(0.5, sum by (le) (safewritefs_request_duration_seconds_bucket))") < 1
    types = ask(prometheus, "metadata")
    assert types["safewritefs_commits"][0]["type"] == "counter"
    assert types["safewritefs_request_duration_seconds"][0]["type"] == "histogram"
    (group,) = ask(prometheus, "rules")["groups"]
    assert len(group["rules"]) == 10 and {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    assert eventually(lambda: {rule["health"] for rule in ask(prometheus, "rules")["groups"][0]["rules"]} == {"ok"}, 30)
    assert ask(prometheus, "alerts")["alerts"] == []
