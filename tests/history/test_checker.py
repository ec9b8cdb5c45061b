# SPDX-License-Identifier: GPL-2.0-or-later
"""The checker itself: good histories pass, and each kind of violation is caught, by the rule that it breaks."""
import checker

META = {"lease": 3, "attr_cache": 1, "patience": 10, "hosts": ["a", "b"]}


class Book:
    """Hand-written histories: op("a.rewrite", "put", begin=1, commit=2, end=3, key="k0", val="x")."""

    def __init__(self):
        self.lives, self.faults, self.count = {}, [], 0

    def op(self, who, op, life=0, **named):
        self.count += 1
        lines = self.lives.setdefault("%s.%d" % (who, life), [])
        for number, phase in enumerate(checker_phases(named)):
            line = {"t": named[phase], "n": self.count, "ph": phase}
            if not number:
                line["op"] = op
                line.update({k: v for k, v in named.items() if k not in PHASES and k not in RESULTS})
            if phase == "end":
                line.update({"err": "", **{k: v for k, v in named.items() if k in RESULTS}})
            lines.append(line)
        return self

    def fault(self, t, ev, **named):
        self.faults.append({"t": t, "ev": ev, **named})
        return self

    def rules(self):
        return sorted({violation.rule for violation in self.violations()})

    def violations(self):
        return checker.check(checker.History(self.lives, self.faults, META))


PHASES = ("begin", "opened", "held", "commit", "kept", "release", "end", "closed")
RESULTS = ("err", "records", "hash", "torn", "tail", "vals", "bad", "seen", "reserved")


def checker_phases(named):
    return [phase for phase in PHASES if phase in named]


def put(book, val, begin, commit, end, err="", who="a.rewrite", key="k0", size=100, **named):
    times = {k: t for k, t in (("begin", begin), ("commit", commit), ("end", end)) if t is not None}
    if end is not None:
        named["err"] = err
    return book.op(who, "put", key=key, val=val, size=size, **times, **named)


def get(book, val, begin, end, who="b.read", key="k0", **named):
    if val is None:
        return book.op(who, "get", key=key, begin=begin, end=end, err="ENOENT")
    return book.op(who, "get", key=key, val=val, begin=begin, opened=end, end=end + 0.1, **named)


# ---- registers


def test_good_register():
    """C1, C2: sequential and overlapping versions, each read by somebody."""
    book = Book()
    get(book, None, 0, 0.5)
    put(book, "x", 1, 2, 3)
    get(book, "x", 4, 5)
    put(book, "y", 6, 7, 9)
    put(book, "z", 6, 7, 9, who="b.rewrite")
    get(book, "x", 7.1, 7.2)
    get(book, "y", 7.5, 8)
    get(book, "z", 8.1, 8.2)
    assert book.violations() == []


def test_old_version():
    """C2: a read that begins after the close sees what was before it."""
    book = Book()
    put(book, "x", 1, 2, 3)
    put(book, "y", 4, 5, 6)
    get(book, "x", 7, 8)
    assert book.rules() == ["C2"]


def test_gap():
    """C1: missing while it is replaced."""
    book = Book()
    put(book, "x", 1, 2, 3)
    get(book, None, 4, 5)
    assert book.rules() == ["C2"]


def test_readers_disagree_on_the_order():
    """C2: two readers see two concurrent versions in different orders."""
    book = Book()
    put(book, "x", 1, 2, 20)
    put(book, "y", 1, 2, 20, who="b.rewrite")
    get(book, "x", 3, 4)
    get(book, "y", 5, 6)
    get(book, "x", 7, 8)
    assert book.rules() == ["C2"]


def test_too_early():
    """C9: seen before it was closed."""
    book = Book()
    put(book, "x", 1, 5, 6)
    get(book, "x", 2, 3)
    assert book.rules() == ["C1"]


def test_lost_version():
    """C9: committed between two reads of what was there, and never seen."""
    book = Book()
    put(book, "x", 1, 2, 3)
    get(book, "x", 4, 5)
    put(book, "y", 6, 7, 8)
    get(book, "x", 9, 10)
    assert book.rules() == ["C2"]


def test_killed_before_close():
    """C4: never committed, and yet seen."""
    book = Book().fault(1.5, "kill", who="a.rewrite", life=0, host="a")
    put(book, "x", 1, None, None)
    get(book, "x", 4, 5)
    assert book.rules() == ["C4"]


def test_killed_inside_close():
    """C3: may be seen, or not; but not come and go."""
    for reads, rules in (((None, "x"), []), ((None, None), []), (("x", None), ["C2"])):
        book = Book().fault(3, "kill", who="a.rewrite", life=0, host="a")
        put(book, "x", 1, 2, None)
        get(book, reads[0], 4, 5)
        get(book, reads[1], 6, 7)
        assert book.rules() == rules


def test_fenced_writer_publishes():
    """C21: ESTALE from close, and yet seen."""
    book = Book().fault(0, "freeze", host="a").fault(6, "thaw", host="a")
    put(book, "x", 1, 2, 7, err="ESTALE")
    assert book.rules() == []
    get(book, "x", 8, 9)
    assert book.rules() == ["C4"]


def test_mixed_and_changing():
    """C1: what is no version, and what changes under an open file."""
    book = Book()
    book.op("b.read", "get", key="k0", begin=1, opened=2, end=3, bad="mixed")
    assert book.rules() == ["C1"]
    book = Book()
    put(book, "x", 1, 2, 3)
    get(book, "x", 4, 5)
    book.lives["b.read.0"].append({"t": 9, "n": 2, "ph": "again", "val": "y", "err": ""})
    assert book.rules() == ["C1"]


def test_empty_versions():
    """C1, C8: an empty read needs an empty version that may have been there."""
    book = Book()
    put(book, "e", 1, 2, 3, size=0)
    get(book, "", 4, 5)
    put(book, "x", 6, 7, 8)
    assert book.rules() == []
    get(book, "", 9, 10)
    assert book.rules() == ["C1"]


def test_sizes():
    """C2: stat(2) may be attr-cache old, and no older; listings are strict."""
    book = Book()
    put(book, "x", 1, 2, 3, size=100)
    put(book, "y", 4, 5, 6, size=200)
    book.op("b.look", "stat", key="k0", size=100, begin=6.9, end=7)
    book.op("b.look", "list", begin=7, end=8, seen=1, reserved=0)
    assert book.rules() == []
    book.op("b.look", "stat", key="k0", size=100, begin=7.1, end=7.2)
    assert book.rules() == ["C2"]
    assert Book().op("b.look", "list", begin=7, end=8, seen=0, reserved=1).rules() == ["C26"]
    assert put(Book(), "x", 1, 2, 3).op("b.look", "list", begin=7, end=8, seen=0, reserved=0).rules() == ["C2"]


# ---- logs


def log_book(final, torn=""):
    book = Book().fault(99, "final", host="a", key="log0", vals=final, rest=torn)
    book.op("a.append", "append", key="log0", val="p", begin=1, end=2, closed=2.1)
    book.op("b.append", "append", key="log0", val="q", begin=3, end=4, closed=4.1)
    book.op("b.append", "append", key="log0", val="r", begin=5, end=6, err="ESTALE")
    return book.fault(4.5, "daemon-kill", host="b").fault(7, "mounted", host="b")


def tail(book, count, begin, end, order=("p", "q"), torn=0, name=""):
    values = {"records": count, "hash": checker.hashes(order)[count], "torn": torn, "tail": name}
    return book.op("b.tail", "tail", key="log0", begin=begin, opened=begin, end=end, **values)


def test_good_log():
    """C11: what was acknowledged, in order; what is unsure, or not."""
    assert log_book(["p", "q"]).rules() == []
    book = log_book(["p", "q", "r"])
    order = ("p", "q", "r")
    tail(tail(tail(book, 0, 0.5, 1.5, order), 1, 1.5, 3, order), 1, 3.5, 3.6, order, torn=5, name="q")
    assert book.rules() == []


def test_bad_logs():
    """C11: lost, doubled, torn, out of order, of nobody."""
    for final, torn in ((["p"], ""), (["p", "q", "q"], ""), (["p", "q"], "x"), (["q", "p"], ""), (["p", "q", "s"], "")):
        assert log_book(final, torn).rules() == ["C11"], final


def test_bad_tails():
    """C2, C11: not seen after the close, seen before the write, another beginning, torn without a writer."""
    assert tail(log_book(["p", "q"]), 1, 8, 9).rules() == ["C2"]
    assert tail(log_book(["p", "q"]), 2, 2.5, 2.6).rules() == ["C11"]
    assert tail(log_book(["p", "q"]), 1, 2, 3, order=("x",)).rules() == ["C11"]
    assert tail(log_book(["p", "q"]), 2, 8, 9, torn=3, name="p").rules() == ["C11"]
    other = log_book(["p", "q"]).fault(99, "final", host="b", key="log0", vals=["p"], rest="")
    assert other.rules() == ["C2"]


# ---- edits


def edit(book, slot, val, begin, commit, end, err=""):
    return book.op("ab"[slot] + ".edit", "edit", key="e0", slot=slot, val=val, begin=begin, commit=commit, end=end, err=err)


def snap(book, vals, begin, opened):
    return book.op("b.snap", "snap", key="e0", begin=begin, opened=opened, end=opened + 0.1, vals=vals)


def test_edits():
    """C10: lost, half, and contents that exclude each other."""
    book = edit(edit(Book(), 0, 1, 1, 2, 10), 1, 1, 1, 2, 10)
    snap(snap(book, [0, 0], 0, 0.5), [1, 0], 3, 4)
    snap(book, [1, 1], 11, 12)
    assert book.rules() == []
    assert snap(edit(Book(), 0, 1, 1, 2, 3), [0, 0], 4, 5).rules() == ["C10"]
    assert snap(snap(edit(edit(Book(), 0, 1, 1, 2, 10), 1, 1, 1, 2, 10), [1, 0], 3, 9), [0, 1], 3, 9).rules() == ["C10"]
    assert Book().op("b.snap", "snap", key="e0", begin=1, opened=2, end=3, bad="half").rules() == ["C10"]


# ---- names and locks


def hold(book, who, begin, held, release, end, key="l0.lock", mode="ex", err="", **named):
    times = {"begin": begin, "held": held, "release": release, "end": end}
    times = {k: t for k, t in times.items() if t is not None}
    named = {"from": 0, "len": 0, **named}
    return book.op(who, "hold", key=key, mode=mode, err=err, **times, **named)


def test_holds():
    """C20, C22: no two at once, but of shared locks and of ranges that do not meet."""
    assert hold(hold(Book(), "a.l", 1, 2, 3, 4), "b.l", 1, 3.5, 5, 6).rules() == []
    assert hold(hold(Book(), "a.l", 1, 2, 3, 4), "b.l", 1, 2.9, 5, 6).rules() == ["C20, C22"]
    assert hold(hold(Book(), "a.l", 1, 2, 3, 4, mode="sh"), "b.l", 1, 2.9, 5, 6, mode="sh").rules() == []
    assert hold(hold(Book(), "a.l", 1, 2, 3, 4, mode="sh"), "b.l", 1, 2.9, 5, 6).rules() == ["C20, C22"]
    ranges = {"from": 10, "len": 10}
    assert hold(hold(Book(), "a.l", 1, 2, 3, 4, len=10), "b.l", 1, 2.9, 5, 6, **ranges).rules() == []
    assert hold(hold(Book(), "a.l", 1, 2, 3, 4), "b.l", 1, 2.9, 5, 6, **ranges).rules() == ["C20, C22"]


def test_holds_of_the_dead():
    """C19: a hold ends with its process, its daemon, and half a lease after its host froze; not before, and not with
    a short freeze or a stopped process."""
    dead = hold(Book().fault(3, "kill", who="a.l", life=0, host="a"), "a.l", 1, 2, None, None)
    assert hold(dead, "b.l", 1, 3.1, 5, 6).rules() == []
    assert hold(dead, "b.l", 1, 2.9, 5, 6, life=1).rules() == ["C20, C22"]
    twice = Book().fault(3, "kill", who="a.l", life=0, host="a").fault(5, "kill", who="a.l", life=0, host="a")
    assert hold(hold(twice, "a.l", 1, 2, None, None), "b.l", 1, 3.1, 5, 6).rules() == []
    for frozen, rules in ((6, []), (1, ["C20, C22"])):
        book = Book().fault(2, "freeze", host="a").fault(2 + frozen, "thaw", host="a")
        hold(hold(book, "a.l", 1, 1.5, 9, 10), "b.l", 1, 5.5, 6, 7)
        assert book.rules() == rules
    book = Book().fault(2, "stop", who="a.l", life=0, host="a").fault(8, "cont", who="a.l", life=0, host="a")
    assert hold(hold(book, "a.l", 1, 1.5, 9, 10), "b.l", 1, 5.5, 6, 7).rules() == ["C20, C22"]


def test_robbed():
    """C20: the owner finds its lock gone, and nothing had happened to its host."""
    assert hold(Book(), "a.l", 1, 2, 3, 4, err="ENOENT").rules() == ["C20"]
    broken = Book().fault(2.5, "daemon-kill", host="a").fault(5, "mounted", host="a")
    assert hold(broken, "a.l", 1, 2, 3, 4, err="ENOENT").rules() == []


def test_lost_increment():
    """C20, C22: two who held the lock both went on from the same counter."""
    book = Book()
    hold(hold(book, "a.l", 1, 2, 3, 4), "b.l", 1, 5, 8, 9)
    put(book, "x", 2, 2.1, 2.2, who="a.l", key="c", hold=1, prev="")
    put(book, "y", 6, 6.1, 6.2, who="b.l", key="c", hold=2, prev="")
    assert book.rules() == ["C20, C22"]


def test_never_freed():
    """C19: long after its owner was killed others are still refused, or wait."""
    for err, end in (("EEXIST", 40), ("EINTR", 40)):
        book = Book().fault(3, "kill", who="a.l", life=0, host="a")
        hold(book, "a.l", 1, 2, None, None)
        hold(book, "b.l", 5, None, None, 10, err="EEXIST")
        assert book.rules() == []
        hold(book, "b.l", 30 if err == "EEXIST" else 5, None, None, end, err=err)
        assert book.rules() == ["C19"], err


def test_exclusive_names():
    """C12: one winner, until it removes the name or dies before its commit."""

    def excl(book, who, held, **named):
        return book.op(who, "excl", key="r1", val=who, begin=held - 0.5, held=held, **named)

    assert excl(excl(Book(), "a.x", 2, commit=3, kept=4), "b.x", 5).rules() == ["C12"]
    assert excl(excl(Book(), "a.x", 2, commit=3, kept=4, release=5, end=6), "b.x", 5.5).rules() == []
    killed = Book().fault(3, "kill", who="a.x", life=0, host="a")
    assert excl(excl(killed, "a.x", 2), "b.x", 5).rules() == []
    killed = Book().fault(9, "kill", who="a.x", life=0, host="a")
    assert excl(excl(killed, "a.x", 2, commit=3, kept=4), "b.x", 10).rules() == ["C12"]


# ---- errors and hosts


def test_errors():
    """C3: an error needs a fault of that host."""
    assert put(Book(), "x", 1, 2, 3, err="EIO").rules() == ["C3"]
    book = Book().fault(2, "daemon-kill", host="a").fault(4, "mounted", host="a")
    assert put(book, "x", 1, 2, 3, err="ENOTCONN").rules() == []
    assert put(book, "y", 1, 2, 3, err="ENOTCONN", who="b.rewrite").rules() == ["C3"]


def test_broken_for_nothing():
    """C20: a host was broken, and nobody had stopped it; a short freeze is no reason, a stalled machine is one."""
    book = Book().fault(1, "freeze", host="a").fault(2, "thaw", host="a").fault(9, "rejoins", host="a", count=1)
    assert book.rules() == ["C20"]
    book.fault(8, "stall", **{"from": 5})
    assert book.rules() == []


def test_explanation():
    """It names the rule, the operations and the faults near them."""
    book = Book().fault(5, "freeze", host="b").fault(5.5, "thaw", host="b")
    put(book, "x", 1, 2, 3)
    put(book, "y", 4, 5, 6)
    get(book, "x", 7, 8)
    history = checker.History(book.lives, book.faults, META)
    text = checker.explain(history, checker.check(history)[0])
    assert "C2: k0: had one version" in text and "nemesis" in text and "'val': 'y'" in text
