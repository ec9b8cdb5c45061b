# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges what the workers wrote down.  Pure: journals in, violations out; no file system, no clock.

All times are readings of one clock; where hosts have clocks of their own, their journals are brought to one before,
with what is not known of these clocks added to every interval, or taken from what somebody certainly held.

Which search, and why it is exact.  A file that is written whole is a register in which every value is written once,
because each version carries a name of its own.  For such histories no search over orders is needed (Gibbons and
Korach, Testing Shared Memories, 1997): take each value with its write and all its reads as a cluster.  Between the
first end and the last begin of a cluster's operations, if they are in this order (a forward zone), the register must
have had that value the whole time; otherwise (a backward zone, from the last begin to the first end) some moment of
it is enough.  An order that explains everything exists if and only if no read ends before its write begins, no two
forward zones overlap, and no backward zone lies inside a forward one of another value.  A write of unknown outcome
counts from its beginning to the end of time if anybody has read it, and not at all otherwise.

Three things are no such registers: empty versions, which carry no name, are judged by the interval rule (some empty
version must not have been overwritten for certain before the read began), which is necessary and not sufficient; a log
is judged against its final content, of which every earlier content must be a beginning; snapshots of a file with one
slot per writer must form a chain.
"""

import bisect
import collections
import glob
import json
import os

FOREVER = float("inf")
# The outcome is not known after these; after any other error of close(2) or rename(2) there is no version.
UNSURE = {"ENOTCONN", "ECONNABORTED", "EINTR", "EIO", "ETIMEDOUT"}
TROUBLE = UNSURE | {"ESTALE", "ENOENT", "EBUSY", "EAGAIN", "EDEADLK"}  # what a host that died or was fenced may answer
# What is no sign of trouble: a waiting append ends with a signal, SIGSTOP and SIGCONT included (C24).
ORDINARY = {
    "excl": {"EEXIST"},
    "hold": {"EEXIST", "EINTR", "EAGAIN"},
    "append": {"EINTR"},
    "get": {"ENOENT"},
    "stat": {"ENOENT"},
    "tail": {"ENOENT"},
}
APPEND_INTERVAL = 1.0  # s, the mount option's default
SETTLE = 5.0  # s: after a fault, until its last consequence
EARLY = ("begin", "commit", "release")  # phases of which the least possible time counts; of others it is the most
Violation = collections.namedtuple("Violation", "rule text times")
Interval = collections.namedtuple("Interval", "begin end op")


class Op(dict):
    """One operation of a worker: `host`, `who`, `life`, the members of its lines, and the time of each phase."""

    def at(self, phase):
        return self["phases"].get(phase)

    @property
    def begin(self):
        return self["phases"]["begin"]

    @property
    def end(self):
        return self["phases"].get("end", FOREVER)

    @property
    def error(self):
        """None when it never ended."""
        return self.get("err") if "end" in self["phases"] else None

    def __str__(self):
        times = " ".join("%s %.6f" % (phase, t) for phase, t in self["phases"].items())
        what = {k: v for k, v in self.items() if k in ("key", "val", "vals", "slot", "err", "size", "bad", "mode", "prev")}
        return "%s life %d #%d %s %s: %s" % (self["who"], self["life"], self["n"], self["op"], what, times)


class History:
    """`lines`: (name of the worker's life, its lines); `faults`: what the nemesis did; `meta`: lease, attr_cache in s."""

    def __init__(self, lives, faults, meta):
        self.ops, self.faults, self.meta = [], faults, meta
        # The first of several: from then on it may be dead.
        self.kills = {(f["who"], f["life"]): f["t"] for f in reversed(faults) if f["ev"] == "kill"}
        for name, lines in sorted(lives.items()):
            self._add(name, lines)
        self.troubles = self._troubles()
        self.last = max([t for op in self.ops for t in op["phases"].values()], default=0)

    def _add(self, name, lines):
        who, life = name.rsplit(".", 1)
        ops = {}
        for line in lines:
            op = ops.setdefault(line["n"], Op(who=who, life=int(life), host=who.split(".")[0], phases={}))
            again = op["phases"].get("again")
            op["phases"][line["ph"]] = line["t"]
            if line["ph"] == "again" and again is None:
                op.update({"again_" + k: line[k] for k in ("val", "bad", "err") if k in line})
            else:
                op.update({k: v for k, v in line.items() if k not in ("ph", "t")})
        self.ops += ops.values()

    def _troubles(self):
        """{host: [(from, to, since when its locks and stages may be another's)]}"""
        found, open_ = collections.defaultdict(list), {}
        for fault in self.faults:
            host, t, what = fault.get("host"), fault["t"], fault["ev"]
            if what in ("freeze", "daemon-kill"):
                open_[host] = (t, what)
            elif what in ("thaw", "mounted") and host in open_:
                began, kind = open_.pop(host)
                lost = began if kind == "daemon-kill" else began + self.meta["lease"] / 2
                if kind == "daemon-kill" or t - began > 0.6 * self.meta["lease"]:
                    found[host].append((began, t, lost))
            elif what == "stall":
                for other in self.meta["hosts"]:
                    found[other].append((fault["from"], t, fault["from"]))
        for host, (began, _) in open_.items():
            found[host].append((began, FOREVER, began))
        return found

    def of(self, *names):
        return [op for op in self.ops if op["op"] in names]

    def trouble(self, op, begin=None, end=None, settle=0.0):
        """The first fault of the host that meets the time of the operation."""
        begin = op.begin if begin is None else begin
        end = op.end if end is None else end
        for trouble in self.troubles[op["host"]]:
            if trouble[0] <= end and begin <= trouble[1] + settle:
                return trouble
        return None

    def killed(self, op):
        return self.kills.get((op["who"], op["life"]), FOREVER)


def load(directory):
    """The journals of a round: `<who>.<life>.jsonl`, `faults.jsonl`, `meta.json`; nanoseconds become seconds."""
    lives = {}
    with open(os.path.join(directory, "meta.json"), encoding="utf-8") as f:
        meta = json.load(f)
    for path in glob.glob(os.path.join(directory, "*.jsonl")):
        name = os.path.basename(path)[: -len(".jsonl")]
        least, most = meta.get("clocks", {}).get(name.split(".")[0], (0, 0))
        lines = []
        with open(path, encoding="utf-8") as f:
            for line in f:
                lines.append(json.loads(line))
                lines[-1]["t"] = lines[-1]["t"] / 1e9 + (least if lines[-1].get("ph") in EARLY else most)
        lives[name] = lines
    return History(lives, lives.pop("faults", []), meta)


# ---- registers


def commit_of(op):
    """('done' | 'never' | 'unsure', from, to) of a put or an edit."""
    begin = op.begin if op.get("size") == 0 else op.at("commit")  # that a file is empty is seen at the open (C8)
    if op.at("commit") is None:
        return "never", 0, 0
    if op.error == "":
        return "done", begin, op.end
    if op.error is None or op.error in UNSURE:
        return "unsure", begin, FOREVER
    return "never", 0, 0


def check_register(name, writes, never, reads, initial):
    """`writes`: {value: Interval}, the end FOREVER where the outcome is unknown; `never`: {value: op} of what must not
    be seen; `reads`: [(value, Interval)]; `initial`: the value before all writes."""
    clusters = {value: [write] for value, write in writes.items()}
    clusters[initial] = [Interval(-FOREVER, -FOREVER, "the beginning")]
    for value, read in reads:
        if value in never:
            yield Violation("C4", "%s: read a version that was never committed:\n  %s\n  %s" % (name, never[value], read.op),
                            (read.begin,))  # fmt: skip
        elif value not in clusters:
            yield Violation("C1", "%s: read what nobody wrote: %s" % (name, read.op), (read.begin,))
        elif read.end < clusters[value][0].begin:
            write = clusters[value][0]
            yield Violation("C1", "%s: read before it was committed:\n  %s\n  %s" % (name, write.op, read.op), (read.begin,))
        else:
            clusters[value].append(read)
    yield from check_zones(name, [ops for ops in clusters.values() if len(ops) > 1 or ops[0].end < FOREVER])


def check_zones(name, clusters):
    forward, backward = [], []
    for ops in clusters:
        first, last = min(ops, key=lambda i: i.end), max(ops, key=lambda i: i.begin)
        (forward if first.end < last.begin else backward).append((first, last))
    forward.sort(key=lambda zone: zone[0].end)
    for one, other in zip(forward, forward[1:]):
        if other[0].end < one[1].begin:
            yield contradiction(name, one, other)
    ends = [zone[0].end for zone in forward]
    for zone in backward:
        at = bisect.bisect_left(ends, zone[1].begin) - 1
        if at >= 0 and zone[0].end < forward[at][1].begin:
            yield contradiction(name, forward[at], zone)


def contradiction(name, zone, other):
    text = "%s: had one version at the end of\n  %s\nand still at the beginning of\n  %s\nbut another in between:\n  %s" % (
        name, zone[0].op, zone[1].op, "\n  ".join(sorted({str(other[0].op), str(other[1].op)})))  # fmt: skip
    return Violation("C2", text, (zone[0].end, zone[1].begin))


def not_overwritten(writes, begin, end, candidates):
    """Can one of the candidates have been there at some time between begin and end?  (The interval rule.)"""
    return any(
        one.begin < end and not any(one.end < other.begin and other.end < begin for other in writes) for one in candidates
    )


def split_puts(puts):
    writes, never = {}, {}
    for op in puts:
        outcome, begin, end = commit_of(op)
        if outcome == "never":
            never[op["val"]] = op
        else:
            writes[op["val"]] = Interval(begin, end, op)
    return writes, never


def check_files(history):
    by_key = collections.defaultdict(lambda: collections.defaultdict(list))
    for op in history.of("put", "get", "stat"):
        by_key[op["key"]][op["op"]].append(op)
    for key, ops in sorted(by_key.items()):
        writes, never = split_puts(ops["put"])
        reads, empty = [], []
        for op in ops["get"]:
            yield from check_content(op)
            if op.at("opened") and op.get("val") is not None and op.error == "":
                (reads if op["val"] else empty).append((op["val"], Interval(op.begin, op.at("opened"), op)))
            elif op.error == "ENOENT":
                reads.append((None, Interval(op.begin, op.end, op)))
        yield from check_register(key, writes, never, reads, None)
        yield from check_sizes(history, key, list(writes.values()), empty, ops["stat"])


def check_sizes(history, key, writes, empty, stats):
    start = Interval(-FOREVER, -FOREVER, "the beginning")
    by_size = collections.defaultdict(list)
    for write in writes:
        by_size[write.op["size"]].append(write)
    for _, read in empty:
        if not not_overwritten(writes, read.begin, read.end, by_size[0]):
            yield Violation("C1", "%s: read as empty, which it cannot have been: %s" % (key, read.op), (read.begin,))
    for op in stats:
        if op.error == "":
            candidates = by_size[op["size"]]
        elif op.error == "ENOENT":
            candidates = [start]
        else:
            continue
        if not not_overwritten(writes, op.begin - history.meta["attr_cache"], op.end, candidates):
            yield Violation("C2", "%s: stat(2) tells what no version then had: %s" % (key, op), (op.begin,))


def check_content(op):
    for bad in (op.get("bad"), op.get("again_bad")):
        if bad:
            yield Violation("C1", "%s: no whole version: %s" % (op["key"], op), (op.begin,))
    if "again_val" in op and op["again_val"] != op.get("val"):
        yield Violation("C1", "%s: changed under an open file to %s: %s" % (op["key"], op["again_val"], op), (op.begin,))


def check_lists(history):
    first = {}
    for op in history.of("put"):
        if op.error == "" and op["key"][0] == "k":
            first[op["key"]] = min(op.end, first.get(op["key"], FOREVER))
    for op in history.of("list"):
        if op.error != "":
            continue
        missing = [key for key, since in first.items() if since < op.begin and not op["seen"] >> int(key[1:]) & 1]
        if missing or op["reserved"]:
            rule, what = ("C2", "misses %s" % missing) if missing else ("C26", "shows reserved names")
            yield Violation(rule, "a listing %s: %s" % (what, op), (op.begin,))


# ---- logs


def check_logs(history):
    finals = collections.defaultdict(list)
    for fault in history.faults:
        if fault["ev"] == "final":
            finals[fault["key"]].append(fault)
    for key, contents in sorted(finals.items()):
        appends = [op for op in history.of("append") if op["key"] == key]
        for other in contents[1:]:
            if other["vals"] != contents[0]["vals"]:
                yield Violation("C2", "%s: the hosts see different contents in the end" % key, ())
        if contents[0]["rest"]:
            yield Violation("C11", "%s: torn: %s" % (key, contents[0]["rest"]), ())
        yield from check_log(key, contents[0]["vals"], {op["val"]: op for op in appends})
        tails = [op for op in history.of("tail") if op["key"] == key and op.error == ""]
        yield from check_tails(key, contents[0]["vals"], {op["val"]: op for op in appends}, tails)


def check_log(key, order, appends):
    counts = collections.Counter(order)
    for value, count in counts.items():
        if value not in appends or count > 1:
            what = "%d times" % count if count > 1 else "of nobody"
            yield Violation("C11", "%s: record %s is there %s: %s" % (key, value, what, appends.get(value)), ())
    latest, newest = None, {}
    for op in (appends[value] for value in order if value in appends):
        if latest is not None and done(op) < latest.begin:
            yield Violation("C11", "%s: stands after a record that came later:\n  %s\n  %s" % (key, op, latest), (op.end,))
        if latest is None or op.begin > latest.begin:
            latest = op
        number = (op["life"], op["n"])
        if number <= newest.get(op["who"], (-1, 0)):
            yield Violation("C11", "%s: out of its writer's order: %s" % (key, op), (op.begin,))
        newest[op["who"]] = number
    for op in appends.values():
        if op.get("bad"):
            yield Violation("C11", "%s: %s" % (key, op), (op.begin,))
        if op.error == "" and op["val"] not in counts:
            yield Violation("C11", "%s: lost: %s" % (key, op), (op.begin,))


def done(op):
    """When an append had come for certain."""
    return op.end if op.error == "" else FOREVER


def seen_from(op):
    """From when on an open has to see the record: the close (C2), and what is held open the append-interval (C11)."""
    if op.error != "":
        return FOREVER
    return op.at("closed") or op.end + APPEND_INTERVAL


def hashes(order):
    """What worker.c computes over the names of the first n records, for each n."""
    value, found = 1469598103934665603, [1469598103934665603]
    for name in order:
        for letter in name.encode():
            value = (value ^ letter) * 1099511628211 & (1 << 64) - 1
        found.append(value)
    return found


def check_tails(key, order, appends, tails):
    expected, place = hashes(order), {value: i for i, value in enumerate(order)}
    acked = sorted((seen_from(op), place[value]) for value, op in appends.items() if value in place)
    ends, least = [end for end, _ in acked], [0]
    for _, index in acked:
        least.append(max(least[-1], index + 1))
    latest = [-FOREVER]
    for value in order:
        latest.append(max(latest[-1], appends[value].begin if value in appends else -FOREVER))
    for op in tails:
        count = op["records"]
        if count >= len(expected) or op["hash"] != expected[count]:
            yield Violation("C11", "%s: its content was no beginning of what it became: %s" % (key, op), (op.begin,))
            continue
        if count < least[bisect.bisect_left(ends, op.begin)]:
            yield Violation("C2", "%s: a record that had come before is not seen (%d of %d): %s" % (
                key, count, least[bisect.bisect_left(ends, op.begin)], op), (op.begin,))  # fmt: skip
        if latest[count] > op.end:
            yield Violation("C11", "%s: a record is seen before it was written: %s" % (key, op), (op.begin,))
        if op["torn"] and not any(
            value.startswith(op["tail"]) and one.begin < op.end and done(one) > op.begin for value, one in appends.items()
        ):
            yield Violation("C11", "%s: a torn record that nobody was writing: %s" % (key, op), (op.begin,))


# ---- edits


def check_edits(history):
    slots = collections.defaultdict(list)
    for op in history.of("edit"):
        slots[op["slot"]].append(op)
    snaps = []
    for op in history.of("snap"):
        if op.get("bad"):
            yield Violation("C10", "half of an edit: %s" % op, (op.begin,))
        elif op.error == "":
            snaps.append(op)
    for slot, edits in sorted(slots.items()):
        writes, never = split_puts(edits)
        reads = [(op["vals"][slot], Interval(op.begin, op.at("opened"), op)) for op in snaps]
        for violation in check_register("slot %d" % slot, writes, never, reads, 0):
            yield violation._replace(rule="C10") if violation.rule == "C2" else violation
    snaps.sort(key=lambda op: sum(op["vals"]))
    for one, other in zip(snaps, snaps[1:]):
        if any(a > b for a, b in zip(one["vals"], other["vals"])):
            yield Violation("C10", "two contents of which neither can have come first:\n  %s\n  %s" % (one, other), (one.begin,))


# ---- what one has alone


def hold_of(history, op):
    """From when to when an owner certainly had the name or lock, or None."""
    if op.at("held") is None:
        return None
    ends = [op.at("release"), op.end if op.error not in ("", None) else None]
    if op.at("kept") is None or op["op"] == "hold":
        # Nobody can break what has become a file.
        trouble = history.trouble(op, end=min(op.at("release") or FOREVER, op.end))
        ends += [history.killed(op), trouble and trouble[2], op.at("commit") if op.error else None]
    end = min([t for t in ends if t is not None], default=FOREVER)
    return Interval(op.at("held"), end, op) if op.at("held") < end else None


def collide(one, other):
    if "ex" not in (one.get("mode", "ex"), other.get("mode", "ex")):
        return False
    spans = [(op.get("from", 0), op.get("from", 0) + (op.get("len") or FOREVER)) for op in (one, other)]
    return spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]


def check_holds(history):
    holds = collections.defaultdict(list)
    for op in history.of("hold", "excl"):
        hold = hold_of(history, op)
        if hold:
            holds[op["key"]].append(hold)
    for key, intervals in sorted(holds.items()):
        active = []
        for hold in sorted(intervals):
            active = [one for one in active if one.end > hold.begin]
            for one in active:
                if collide(one.op, hold.op):
                    rule = "C12" if hold.op["op"] == "excl" else "C20, C22"
                    yield Violation(rule, "%s: two have it at the same time, from %.6f to %.6f:\n  %s\n  %s" % (
                        key, hold.begin, min(one.end, hold.end), one.op, hold.op), (hold.begin,))  # fmt: skip
            active.append(hold)
    yield from check_counters(history)
    yield from check_freed(history, holds)


def check_counters(history):
    """No increment is lost: of what was written under a lock, no two follow the same value."""
    holds = {(op["who"], op["life"], op["n"]): op for op in history.of("hold")}
    followers = {}
    for op in history.of("put"):
        if "hold" not in op or op.error != "":
            continue
        hold = holds[op["who"], op["life"], op["hold"]]
        if history.trouble(hold, end=op.end):
            continue  # the lock may have been another's by then
        other = followers.setdefault((op["key"], op["prev"]), op)
        if other is not op:
            yield Violation("C20, C22", "%s: an increment is lost:\n  %s\n  %s" % (op["key"], other, op), (op.begin,))


def check_freed(history, holds):
    """The dead's locks are freed: whoever has tried in vain had somebody to wait for, a moment before he gave up."""
    bound = history.meta["lease"] + history.meta["patience"]
    for op in history.of("hold"):
        if op.at("held") is not None or op.error not in ("EEXIST", "EINTR", None):
            continue
        until = min(op.end, history.killed(op), history.last)
        if any(hold.begin < until < hold.end for hold in holds[op["key"]]):
            continue
        since = max([hold.end for hold in holds[op["key"]] if hold.end <= until], default=op.begin)
        if until - since > bound and not history.trouble(op, begin=since, end=until):
            yield Violation("C19", "%s: free since %.6f, and yet refused or kept waiting: %s" % (op["key"], since, op),
                            (since, until))  # fmt: skip


# ---- errors, and hosts that were broken


def check_errors(history):
    for op in history.ops:
        for error in {op.error, op.get("again_err", "")} - {"", None}:
            if error in ORDINARY.get(op["op"], ()):
                continue
            last = max(op["phases"].values()) if "end" in op["phases"] else FOREVER
            if error not in TROUBLE or not history.trouble(op, end=last, settle=SETTLE):
                rule = "C20" if op["op"] == "hold" else "C3"
                yield Violation(rule, "ended with %s, and nothing had happened to its host: %s" % (error, op), (op.begin,))


def check_rejoins(history):
    for fault in history.faults:
        if fault["ev"] == "rejoins":
            reasons = len(history.troubles[fault["host"]])
            if fault["count"] > reasons:
                yield Violation("C20", "%s was broken %d times, with %d reasons" % (fault["host"], fault["count"], reasons), ())


CHECKS = (check_files, check_lists, check_logs, check_edits, check_holds, check_errors, check_rejoins)


def check(history):
    return [violation for one in CHECKS for violation in one(history)]


def explain(history, violation, around=0.3, most=16):
    """The contradiction, and what happened near it: operations on the same key, and faults, the nearest ones."""
    lines = ["%s: %s" % (violation.rule, violation.text)]
    times = [t for t in violation.times if abs(t) < FOREVER]
    if not times:
        return lines[0]
    low, high = min(times), max(times)
    near = []
    for fault in history.faults:
        if low - history.meta["lease"] - 2 <= fault["t"] <= high + around and fault["ev"] != "final":
            near.append((fault["t"], "nemesis %s" % {k: v for k, v in fault.items() if k != "t"}))
    key = violation.text.split(":")[0]
    events = [(t, ph, op) for op in history.ops if op.get("key") == key for ph, t in op["phases"].items()]
    events = [event for event in events if low - around <= event[0] <= high + around]
    events.sort(key=lambda event: min(abs(event[0] - low), abs(event[0] - high)))
    near += [(t, "%-7s %s" % (phase, op)) for t, phase, op in events[:most]]
    return "\n".join(lines + ["  nearby:"] + ["  %.6f %s" % event for event in sorted(near)])


def summary(history):
    counts = collections.Counter()
    for op in history.ops:
        counts[op["op"] + ("" if op.error == "" else " unsure" if op.error is None else " " + op.error)] += 1
    counts.update(fault["ev"] for fault in history.faults)
    return ", ".join("%d %s" % (n, what) for what, n in sorted(counts.items()))
