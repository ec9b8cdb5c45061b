# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables, a chart, and what was reached of the targets, from what a session has found."""

import collections
import html
import json
import math
import os
import statistics

import workloads

OURS = "safewritefs"
HAND = ", temp + rename"


class Found:
    """The samples, by metric, lower file system and system."""

    def __init__(self, found):
        self.raw = found
        self.values = collections.defaultdict(dict)  # (metric, lower, system): {turn: value}
        for sample in found["samples"]:
            self.values[sample["metric"], sample["lower"], sample["system"]][tuple(sample["turn"])] = sample["value"]
        self.lowers = [kind for kind in ("tmpfs", "ext4", "xfs", "btrfs") if any(key[1] == kind for key in self.values)]
        self.systems = list(found["systems"])
        self.others = [name for name in self.systems if name != "native"]
        self.peers = [name for name, kind in found["systems"].items() if kind == "peer"]

    def value(self, metric, lower, system):
        values = self.values.get((metric, lower, system))
        return statistics.median(values.values()) if values else None

    def ratio(self, metric, lower, system=OURS, other="native", other_metric=None):
        """How many times as fast as the other, in the same turn each, or None.  A time is the better the less."""
        mine = self.values.get((metric, lower, system), {})
        its = self.values.get((other_metric or metric, lower, other), {})
        ratios = [mine[turn] / its[turn] for turn in mine.keys() & its.keys() if mine[turn] and its[turn]]
        if not ratios:
            return None
        middle = statistics.median(ratios)
        return middle if workloads.is_rate(metric) else 1 / middle

    def against_best(self, metric, lower, peers, other_metric=None):
        """(ratio to the best of these peers, its name)."""
        ratios = [(self.ratio(metric, lower, OURS, peer, other_metric), peer) for peer in peers]
        return min((pair for pair in ratios if pair[0] is not None), default=(None, ""))


# ---- targets


class Target:
    """`reached(found, lower)` tells a number, or None, and a remark."""

    def __init__(self, what, lowers, reached, least=None, most=None, unit=""):
        self.what, self.lowers, self.reached = what, lowers.split(), reached
        self.least, self.most, self.unit = least, most, unit

    def is_met(self, number):
        return number >= self.least if self.least is not None else number <= self.most

    def wanted(self):
        return "≥ %g" % self.least if self.least is not None else "≤ %g%s" % (self.most, self.unit)


def native(metric, other_metric=None):
    return lambda found, lower: (found.ratio(metric, lower, other_metric=other_metric), "of native")


def best(metric, peers=None, other_metric=None):
    def reached(found, lower):
        number, name = found.against_best(metric, lower, peers or found.peers, other_metric)
        return number, "of " + name

    return reached


def scaling(metric):
    def reached(found, lower):
        return found.ratio(metric + " x8", lower, other=OURS, other_metric=metric), "of one thread (native %s)" % told(
            found.ratio(metric + " x8", lower, "native", "native", metric))

    return reached


def growth(found, lower):
    one, large = "append, 1 KiB", "append, 1 GiB"
    return found.ratio(one, lower, other=OURS, other_metric=large), "cost at 1 GiB of that at 1 KiB"


def beyond(metric):
    def reached(found, lower):
        mine, its = found.value(metric, lower, OURS), found.value(metric, lower, "native")
        return (None, "") if mine is None or its is None else (mine - its, "beyond native")

    return reached


def stalled(found, lower):
    return found.value("longest stall", lower, OURS), "(native, where nothing waits: %s ms)" % told(
        found.value("longest stall", lower, "native"))


def commit_targets(metric, what):
    return [
        Target(what + ", against peers' temporary + rename by hand", "tmpfs ext4 xfs", best(metric, None, metric + HAND), 1),
        Target(what + ", against a plain one of bindfs and mergerfs", "tmpfs ext4 xfs", best(metric, ["bindfs", "mergerfs"]), 1),
        Target(what + ", against native temporary + rename", "ext4", native(metric, metric + HAND), 0.8),
    ]


TARGETS = [
    Target("sequential read, cached, 1 GiB", "ext4 xfs", native("seq read"), 0.95),
    Target("random read, cached, 1 GiB", "ext4 xfs", native("rand read"), 0.95),
    Target("new 1 GiB file, fsync and commit included", "ext4 xfs", native("new 1 GiB file"), 0.95),
    Target("cached stat", "tmpfs ext4 xfs", native("stat"), 0.9),
    Target("second find", "ext4", native("second find"), 0.6),
    Target("cold find -size +0, against the best peer", "ext4", best("cold find -size +0"), 2),
    Target("open, read, close of a small cached file, against the best peer", "tmpfs ext4 xfs", best("read"), 1.5),
    *commit_targets("create", "small-file commit, new"),
    *commit_targets("rewrite", "small-file commit, overwriting"),
    Target("append of 100 bytes, by the size of the file", "ext4", growth, most=1.5),
    Target("one byte edited in 1 GiB, reflinks", "xfs btrfs", beyond("edit 1 byte in 1 GiB"), most=20, unit=" ms"),
    Target("joblib cache hit", "tmpfs ext4", native("joblib hit"), 0.9),
    Target("joblib cache miss", "tmpfs ext4", native("joblib miss"), 0.9),
    Target("Optuna trials", "tmpfs ext4", native("optuna trials"), 0.9),
    Target("git clone + status", "tmpfs ext4", native("git clone + status"), 0.8),
    Target("compile", "ext4", native("compile"), 0.9),
    Target("8 threads, small-file commits, new", "tmpfs ext4", scaling("create"), 1.5),
    Target("8 threads, small-file commits, overwriting", "tmpfs ext4", scaling("rewrite"), 1.5),
    Target("8 threads, small-file reads", "tmpfs ext4", scaling("read"), 1.5),
    Target("longest stall while one commit waits 1 s", "tmpfs", stalled, most=5, unit=" ms"),
]


def reached_targets(found):
    """[{target, lower, wanted, reached, remark, met}] of what has been measured."""
    rows = []
    for target in TARGETS:
        for lower in target.lowers:
            number, remark = target.reached(found, lower)
            if number is not None:
                rows.append({"target": target.what, "lower": lower, "wanted": target.wanted(), "reached": number,
                             "unit": target.unit, "remark": remark, "met": target.is_met(number)})
    return rows


# ---- words


def told(number):
    if number is None:
        return "–"
    if number >= 100:
        return "%.0f" % number
    return "%.3g" % number if number < 0.1 else "%.2f" % number if number < 10 else "%.1f" % number


def whole(number):
    """A count, which is whole but for what happens once in a while."""
    return "%.0f" % number if abs(number - round(number)) < 0.1 or number >= 100 else "%.1f" % number


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def head(*cells):
    return [row(*cells), row("---", *["--:"] * (len(cells) - 1))]


def target_lines(found):
    lines = ["## Targets", "", row("target", "on", "wanted", "reached", "", ""), row("---", "---", "--:", "--:", "---", "---")]
    for entry in reached_targets(found):
        reached = told(entry["reached"]) + entry["unit"]
        verdict = "met" if entry["met"] else "**no**"
        lines.append(row(entry["target"], entry["lower"], entry["wanted"], reached, entry["remark"], verdict))
    return lines


def lower_lines(found, lower):
    lines = ["", "## %s" % lower, "", *head("", "native", *found.others)]
    for metric, unit in workloads.UNITS.items():
        base = found.value(metric, lower, "native")
        if base is not None:
            cells = [told(found.ratio(metric, lower, name)) for name in found.others]
            lines.append(row(metric, "%s %s" % (told(base), unit), *cells))
    return lines


def count_lines(found):
    counts = found.raw["counts"]
    lines = ["", "## What one operation costs", "", *head("FUSE messages / daemon's calls / µs of its processor", *counts)]
    for number, first in enumerate(next(iter(counts.values()))):
        entries = [table[number] for table in counts.values()]
        sums = [(sum(e["messages"].values()), sum(e["calls"].values()), e["processor"]) for e in entries]
        cells = ["%s / %s / %.0f" % (whole(messages), whole(calls), processor) for messages, calls, processor in sums]
        lines.append(row(first["operation"], *cells))
    if OURS in counts:
        lines += ["", "Of %s, with the time from sending a message to its answer:" % OURS, ""]
        for entry in counts[OURS]:
            waits = entry["waits"]
            sent = [(name, n) for name, n in entry["messages"].items() if n >= 0.5]
            parts = ["%s %s (%s µs)" % (name, whole(n), told(waits.get(name))) for name, n in sent]
            often = sorted(((n, name) for name, n in entry["calls"].items() if n >= 0.5), reverse=True)
            calls = ["%s %s" % (name, whole(n)) for n, name in often[:16]]
            lines.append("- %s: %s; calls: %s" % (entry["operation"], ", ".join(parts) or "none", " ".join(calls) or "none"))
    return lines


def text(found):
    raw = found.raw
    lines = ["# Measured " + raw["machine"]["when"], ""]
    machine = ", ".join("%s %s" % pair for pair in raw["machine"].items() if pair[0] != "when")
    lines.append("%s; %d passes." % (machine, raw["passes"]))
    lines += ["", "A number without a unit is a ratio: how many times as fast as native, median of interleaved runs.", ""]
    lines += target_lines(found)
    for lower in found.lowers:
        lines += lower_lines(found, lower)
    if raw["counts"]:
        lines += count_lines(found)
    if raw["skipped"]:
        lines += ["", "## Skipped", ""] + ["- " + why for why in raw["skipped"]]
    return "\n".join(lines) + "\n"


# ---- chart

COLOURS = {OURS: "#c0392b", "by hand": "#2c3e50", "bindfs": "#8e9aa0", "mergerfs": "#6c8ebf", "fuse-overlayfs": "#82b366",
           "passthrough_ll": "#d6a52c", "passthrough_fh": "#b08bbf"}
LEFT, WIDTH, LINE = 210, 640, 15
LEAST, MOST = 0.003, 3.0


def across(ratio):
    place = math.log(min(max(ratio, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LEFT + WIDTH * place


def label(x, y, words, anchor="start", weight="normal"):
    return '<text x="%.1f" y="%.1f" text-anchor="%s" font-weight="%s">%s</text>' % (x, y, anchor, weight, html.escape(words))


def chart(found):
    """A line for each workload, with a dot for each system where its ratio to native is."""
    parts, y = [], 50
    for number, name in enumerate(found.others):
        x = 14 + number * 118
        parts.append('<circle cx="%d" cy="16" r="4" fill="%s"/>' % (x, COLOURS.get(name, "#000")))
        parts.append(label(x + 8, 20, name))
    top = y - 8
    for lower in found.lowers:
        parts.append(label(8, y + 4, lower, weight="bold"))
        y += LINE
        for metric in workloads.UNITS:
            if found.value(metric, lower, "native") is None:
                continue
            parts.append(label(LEFT - 10, y + 4, metric, "end"))
            parts.append('<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="#eee"/>' % (LEFT, LEFT + WIDTH, y, y))
            for name in reversed(found.others):
                ratio = found.ratio(metric, lower, name)
                if ratio:
                    size = 5 if name == OURS else 3.5
                    words = html.escape("%s, %s on %s: %s" % (metric, name, lower, told(ratio)))
                    parts.append('<circle cx="%.1f" cy="%d" r="%g" fill="%s"><title>%s</title></circle>'
                                 % (across(ratio), y, size, COLOURS.get(name, "#000"), words))
            y += LINE
    for ratio in (0.01, 0.03, 0.1, 0.3, 1, 3):
        x = across(ratio)
        grey = "#888" if ratio == 1 else "#ddd"
        parts.insert(0, '<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s"/>' % (x, x, top, y, grey))
        parts.append(label(x, y + 12, "%g" % ratio, "middle"))
    parts.append(label(LEFT + WIDTH / 2, y + 28, "times as fast as native", "middle"))
    size = 'width="%d" height="%d"' % (LEFT + WIDTH + 40, y + 40)
    return '<svg xmlns="http://www.w3.org/2000/svg" %s font-family="sans-serif" font-size="11">\n' \
           '<rect width="100%%" height="100%%" fill="#fff"/>\n%s\n</svg>\n' % (size, "\n".join(parts))


def write(raw, out):
    found = Found(raw)
    os.makedirs(out, exist_ok=True)
    raw["targets"] = reached_targets(found)
    raw["ratios"] = [{"metric": metric, "lower": lower, "system": name, "ratio": found.ratio(metric, lower, name)}
                     for metric, lower, name in found.values if name != "native"]
    results = {"json": json.dumps(raw, indent=1), "md": text(found), "svg": chart(found)}
    for ending, content in results.items():
        with open(os.path.join(out, "results." + ending), "w", encoding="utf-8") as file:
            file.write(content)
    print(text(found))
