# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Prometheus that scrapes hosts, with our alert rules and our console."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

from harness import CTL, ROOT

MONITORING = os.path.join(ROOT, "docs", "monitoring")
CONFIG = """
global: {scrape_interval: %(every)ds, evaluation_interval: %(every)ds}
rule_files: [%(rules)s]
scrape_configs:
  - job_name: safewritefs
    static_configs: %(targets)s
"""


class Exporter(http.server.ThreadingHTTPServer):
    """Serves what the tool printed last on a host, as node_exporter serves files: a mount that stands still keeps the
    tool waiting, and nobody else."""

    def __init__(self, host, every):
        super().__init__(("127.0.0.1", 0), Page)
        self.host, self.every = host, every
        self.text = self.written()
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=work) for work in (self.serve_forever, self.write_on)]
        for thread in self.threads:
            thread.start()

    def written(self):
        return self.host.run([CTL, "metrics", self.host.mnt], cwd="/", text=False).stdout

    def write_on(self):
        while not self.ending.wait(self.every):
            self.text = self.written()

    def end(self):
        self.ending.set()
        self.shutdown()
        for thread in self.threads:
            thread.join()
        self.server_close()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Prometheus:
    """Runs while it is a context; `hosts` are pairs of the label `instance` and a host, `every` is in seconds.  Nothing
    is asked of the hosts after its end, so that they can be unmounted."""

    program = shutil.which("prometheus")

    def __init__(self, directory, hosts, every=1):
        self.directory, self.hosts, self.every = directory, hosts, every
        self.port = free_port()
        self.process = None
        self.servers = []

    def __enter__(self):
        self.servers = [Exporter(host, self.every) for _, host in self.hosts]
        targets = [
            {"targets": ["127.0.0.1:%d" % server.server_port], "labels": {"instance": instance}}
            for (instance, _), server in zip(self.hosts, self.servers)
        ]
        config = os.path.join(self.directory, "prometheus.yml")
        rules = os.path.join(MONITORING, "safewritefs.rules.yml")
        with open(config, "w", encoding="ascii") as f:
            f.write(CONFIG % {"every": self.every, "rules": rules, "targets": json.dumps(targets)})
        words = ["--config.file=" + config, "--storage.tsdb.path=" + os.path.join(self.directory, "tsdb")]
        words += ["--web.console.templates=" + MONITORING, "--web.listen-address=127.0.0.1:%d" % self.port]
        with open(os.path.join(self.directory, "prometheus.log"), "wb") as log:
            self.process = subprocess.Popen([self.program, *words], stdout=log, stderr=log, cwd="/")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)
        for server in self.servers:
            server.end()

    def fetch(self, path):
        """Status and text of a page."""
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.port, path), timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ask(self, what, **words):
        """The data of an answer of its API; None while it is starting, or if it refuses."""
        try:
            status, text = self.fetch("/api/v1/%s?%s" % (what, urllib.parse.urlencode(words)))
        except OSError:
            return None
        return json.loads(text)["data"] if status == 200 else None
