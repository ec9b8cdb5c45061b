#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Alerts and dashboard speak of metrics that there are, promtool takes their expressions, alerts come when they should,
the console shows what the dashboard does, and docs/monitoring.md knows every metric and alert."""
import json
import os
import re
import subprocess
import sys
import tempfile

import lint

RULES = os.path.join(lint.ROOT, "docs", "monitoring", "safewritefs.rules.yml")
DASHBOARD = os.path.join(lint.ROOT, "docs", "monitoring", "grafana-dashboard.json")
CONSOLE = os.path.join(lint.ROOT, "docs", "monitoring", "safewritefs.html")
SUFFIXES = r"(_total|_bucket|_sum|_count|_info)?$"


def metrics():
    """Names as the sources have them."""
    core = lint.read(os.path.join(lint.ROOT, "src", "core", "metrics.c"))
    tool = lint.read(os.path.join(lint.ROOT, "src", "ctl", "metrics_cmd.c"))
    names = set(re.findall(r'static const Metric \w+ = \{\s*"(\w+)"', core))
    names |= set(re.findall(r'sw_metrics_family\(out, format, "(\w+)"', core + tool))
    names |= set(re.findall(r'^\s*\{"(\w+)", (?:NULL|"\w+"),', tool, re.M))
    return names


def dashboard_expressions():
    for panel in json.loads(lint.read(DASHBOARD))["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def dashboard_panels():
    """As the console has them: what Prometheus's graphs know of what Grafana's do."""
    for panel in json.loads(lint.read(DASHBOARD))["panels"]:
        defaults = panel["fieldConfig"]["defaults"]
        shown = {"title": panel["title"], "type": panel["type"], "unit": defaults["unit"]}
        shown["stacked"] = "stacking" in defaults.get("custom", {})
        if "description" in panel:
            shown["description"] = panel["description"]
        shown["targets"] = [
            {"legend": re.sub(r"{{(\w+)}}", r"[[ \1 ]]", target["legendFormat"]), "expr": target["expr"]}
            for target in panel["targets"]
        ]
        yield shown


def console_differs():
    """A block of JSON in the page, for which no browser is needed."""
    block = re.search(r'<script type="application/json" id="panels">(.*?)</script>', lint.read(CONSOLE), re.S)
    panels, wanted = json.loads(block.group(1)), list(dashboard_panels())
    for ours, theirs in zip(panels, wanted):
        if ours != theirs:
            yield f"the console and the dashboard differ about the panel '{theirs['title']}'"
    if len(panels) != len(wanted):
        yield f"the console has {len(panels)} panels, the dashboard {len(wanted)}"


def unknown(text, where, known):
    for name in sorted(set(re.findall(r"safewritefs_(\w+)", text))):
        if not name.startswith("rules") and re.sub(SUFFIXES, "", name) not in known:
            yield f"{where}: there is no metric safewritefs_{name}"


def promtool(*words):
    program = lint.need("promtool")
    done = subprocess.run([program, *words], capture_output=True, text=True)
    return [done.stdout + done.stderr] if done.returncode else []


def check_dashboard():
    """As if they were rules, for that is what promtool reads."""
    rules = []
    for expression in dashboard_expressions():
        plain = expression.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$mountpoint", ".*")
        rules.append("      - record: r\n        expr: %s\n" % json.dumps(plain))
        rules[-1] += "        labels: {number: '%d'}\n" % len(rules)
    with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
        file.write("groups:\n  - name: dashboard\n    rules:\n" + "".join(rules))
        file.flush()
        return promtool("check", "rules", file.name)


def main():
    known = metrics()
    page = lint.read(os.path.join(lint.ROOT, "docs", "monitoring.md"))
    rules = lint.read(RULES)
    complaints = list(unknown(rules, "rules", known))
    complaints += unknown("\n".join(dashboard_expressions()), "dashboard", known)
    complaints += unknown(lint.read(CONSOLE), "console", known)
    complaints += console_differs()
    table = page.split("## Metrics")[1].split("## Alerts")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    complaints += [f"docs/monitoring.md and the sources differ about {name}" for name in sorted(listed ^ known)]
    alerts = set(re.findall(r"alert: (\w+)", rules))
    listed = set(re.findall(r"^\| `(\w+)` \|", page.split("## Alerts")[1], re.M))
    complaints += [f"docs/monitoring.md and the rules differ about {name}" for name in sorted(listed ^ alerts)]
    tests = lint.read(os.path.join(lint.ROOT, "tests", "lint", "rules_test.yml"))
    complaints += [f"no test lets {name} fire" for name in sorted(alerts) if f'"{name}"' not in tests and
                   f"alertname: {name}\n        exp_alerts" not in tests]
    if complaints:
        lint.finish(complaints)
    complaints += promtool("check", "rules", RULES) + check_dashboard()
    complaints += promtool("test", "rules", os.path.join(lint.ROOT, "tests", "lint", "rules_test.yml"))
    lint.finish(complaints)


main()
