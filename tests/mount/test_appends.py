# SPDX-License-Identifier: GPL-2.0-or-later
"""Appends (C11): each write is one record, none lost, torn, doubled or interleaved, whoever else writes."""

import os
import re
import signal
import time

import pytest
from harness import eventually, payload

APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def check_records(data, expected):
    """`expected`: {who: count}.  Lines "who NNNNNN ...": all once, whole, in each writer's order."""
    next_number = dict.fromkeys(expected, 0)
    for line in data.decode().splitlines():
        assert re.fullmatch(r"\w+ \d{6} [a-z]+", line), "torn: %r in %r" % (line[:80], data[:200])
        who, number, fill = line.split(" ")
        assert who in expected, line[:60]
        assert int(number) == next_number[who], "%s: %s after %d" % (who, number, next_number[who] - 1)
        assert set(fill) == {"abcdefghijklmnopqrstuvwxyz"[int(number) % 26]}
        next_number[who] += 1
    assert next_number == expected


@pytest.mark.parametrize("length", [40, 5000, 200_000])
@pytest.mark.parametrize("how", ["reopen", "keep"])
def test_appenders_from_all_sides(lab, source, length, how):
    """C11: 3 hosts x 3 processes x K records by writev, opened once or for each record."""
    hosts = [lab.host(source, name) for name in ("alpha", "beta", "gamma")]
    count = {40: 60, 5000: 30, 200_000: 8}[length]
    running = [
        host.popen([lab.helper("appendrec"), "log", "%s%d" % (host.hostname, n), str(count), str(length), how])
        for host in hosts
        for n in range(3)
    ]
    for process in running:
        assert process.wait(timeout=50) == 0
    expected = {"%s%d" % (host.hostname, n): count for host in hosts for n in range(3)}
    total = length * count * len(expected)
    assert eventually(lambda: hosts[0].look("log").st_size == total)
    for host in hosts:
        check_records(host.read("log"), expected)


def test_shell_appends(hosts):
    """C11: bash >> from both hosts, a builtin and a program in turn."""
    a, b = hosts
    line = (
        "for i in $(seq 0 39); do n=$(printf %06d $i); c=$(printf abcdefghijklmnopqrstuvwxyz | cut -c$((i % 26 + 1)));"
        ' if ((i % 2)); then echo "$WHO $n $c$c" >> log; else /bin/echo "$WHO $n $c$c" >> log; fi; done'
    )
    running = [host.popen(line, env=dict(os.environ, WHO=host.hostname)) for host in hosts]
    for process in running:
        assert process.wait(timeout=30) == 0
    check_records(b.read("log"), {"alpha": 40, "beta": 40})
    assert a.read("log") == b.read("log")


def test_visible_when_close_returns(hosts):
    """C2, C11: a closed append is seen by the other host's next open, 100 times."""
    a, b = hosts
    expected = b""
    for number in range(100):
        record = b"record %d\n" % number
        hosts[number % 2]("put('log', record, flags=flags)", record=record, flags=APPEND)
        expected += record
        assert hosts[1 - number % 2].read("log") == expected


def test_growth_is_seen_by_the_next_open(hosts):
    """C2, C11: a host that knows the file, and its size, from before reads the new end at its next open; 20 times."""
    a, b = hosts
    expected = b"begin\n"
    a.write("log", expected)
    assert b.read("log") == expected and b("os.stat('log').st_size") == len(expected)
    for number in range(20):
        a("put('log', b'more\\n', flags=flags)", flags=APPEND)
        expected += b"more\n"
        assert b.read("log") == expected, number


COUNTING = """
late, rounds, until = [], 0, time.monotonic() + 6
while time.monotonic() < until and len(late) < 5:
    rounds += 1
    closed = os.stat(counter).st_size
    seen = len(get('log')) // 4
    if seen < closed:
        late.append((rounds, closed, seen))
result = rounds, late
"""


def test_growth_is_seen_by_many_readers(hosts):
    """C2, C11: openers and lookers of one host, whose look-ups cross each other, see each record that was closed."""
    a, b = hosts
    counter = os.path.join(a.scratch, "counter")
    a("put('log', b''); put(counter, b'')", counter=counter)
    writer, readers = a.worker(), [b.worker() for _ in range(6)]
    code = "until = time.monotonic() + 6\nwhile time.monotonic() < until:\n"
    code += "    put('log', b'abc\\n', flags=flags); put(counter, b'.', flags=flags); time.sleep(0.002)"
    for reader in readers:
        reader.start(COUNTING, counter=counter)
    writer.start(code, flags=APPEND, counter=counter)
    for worker in readers + [writer]:
        rounds, late = worker.finish() or (1, [])
        assert rounds and late == []


GROWING = """
i, until = 0, time.monotonic() + 8
while time.monotonic() < until:
    i += 1
    put('log%d' % i, b'abc\\n', flags=flags)
    put(counter, b'%d %d' % (i, i - 1))
    time.sleep(0.002 * (i % 5))
    put('log%d' % i, b'abc\\n', flags=flags)
    put(counter, b'%d %d' % (i, i))
    time.sleep(0.006)
result = i
"""
READING = """
late, rounds, until = [], 0, time.monotonic() + 8
while time.monotonic() < until:
    words = get(counter).split()
    if len(words) == 2:
        rounds += 1
        if len(get('log%d' % int(words[0]))) < 8 and words[1] == words[0]:
            late.append(words[0])
result = rounds, late
"""


def test_first_growth_is_seen_by_many_readers(hosts):
    """C2, C11: the same of files that are seen to grow for the first time, of whose size the kernel was told that it may
    believe it."""
    a, b = hosts
    counter = os.path.join(a.scratch, "counter")
    a("put(counter, b'')", counter=counter)
    writer, readers = a.worker(), [b.worker() for _ in range(8)]
    for reader in readers:
        reader.start(READING, counter=counter)
    writer.start(GROWING, flags=APPEND, counter=counter)
    for worker in readers:
        rounds, late = worker.finish()
        assert rounds and late == []
    assert writer.finish()


def test_record_over_a_page_boundary(hosts):
    """C11: a write over a page boundary of the cache reaches us in two pieces: one record all the same."""
    a, b = hosts
    a.write("log", b"x" * 4080)
    writers = [a.worker(), b.worker()]
    for worker in writers:
        worker("get('log')")
    for worker, word in zip(writers, (b"a", b"b")):
        code = "for i in range(40): put('log', word * 1000 + b'\\n', flags=flags)"
        worker.start(code, word=word, flags=APPEND)
    for worker in writers:
        worker.finish()
    lines = b.read("log")[4080:].splitlines()
    assert sorted(lines) == [b"a" * 1000] * 40 + [b"b" * 1000] * 40


def test_published_while_open(hosts):
    """C11: a long-lived appender is published every append-interval (1 s) at a write boundary."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('log', flags, 0o666); os.write(fd, b'first\\n')", flags=APPEND)
    assert eventually(lambda: b.exists("log") and b.read("log") == b"first\n", 2.5)
    writer("os.write(fd, b'second\\n')")
    assert eventually(lambda: b.read("log") == b"first\nsecond\n", 2.5)
    writer("os.close(fd)")
    assert b.read("log") == b"first\nsecond\n"


@pytest.mark.options("append-interval=100ms")
def test_append_interval(hosts):
    """C11, C25: append-interval= says how long it may take; readers see whole records only."""
    a, b = hosts
    check = "def classify(d): return 'whole' if d == b'one record\\n' * (len(d) // 11) else None"
    reader = b.reader("log", classify=check)
    writer = a.worker()
    writer("fd = os.open('log', flags, 0o666)", flags=APPEND)
    for number in range(20):
        writer("os.write(fd, b'one '  b'record\\n')")
        time.sleep(0.02)
    assert eventually(lambda: len(b.read("log")) == 220, 0.5)
    reader.stop()


def test_tail_follows(hosts):
    """C11: tail -f on the other host: a file that grows, grows for those who have it open."""
    a, b = hosts
    a.write("log", b"begin\n")
    reader = b.worker()
    reader("fd = os.open('log', os.O_RDONLY); drain(fd)")
    a.run("echo more >> log")
    assert eventually(lambda: reader("drain(fd)") == b"more\n")


def test_own_appends_are_seen(hosts):
    """C15: the appender and its family see each record at once."""
    a, _ = hosts
    writer = a.worker()
    writer("fd = os.open('log', os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666); os.write(fd, b'12345')")
    assert writer("os.fstat(fd).st_size, os.stat('log').st_size, get('log')") == (5, 5, b"12345")
    writer("os.write(fd, b'678')")
    assert writer("os.pread(fd, 100, 0)") == b"12345678"
    assert writer("os.lseek(fd, 0, os.SEEK_CUR)") == 8


def test_position_after_foreign_appends(hosts):
    """C11: O_APPEND goes to the end as it is then, not to the end known here."""
    a, b = hosts
    first, second = a.worker(), b.worker()
    for worker in (first, second):
        worker("fd = os.open('log', flags, 0o666)", flags=APPEND)
    for number in range(10):
        first("os.write(fd, b'a%d' % n + b' ')", n=number)
        second("os.write(fd, b'b%d' % n + b' ')", n=number)
    first("os.close(fd)")
    second("os.close(fd)")
    words = b.read("log").split()
    assert [w for w in words if w[:1] == b"a"] == [b"a%d" % n for n in range(10)]
    assert [w for w in words if w[:1] == b"b"] == [b"b%d" % n for n in range(10)]
    assert len(words) == 20


def test_append_to_a_file_being_replaced(hosts):
    """C9, C11: a record closed after the replacement is behind the new version, one closed before it is in the old."""
    a, b = hosts
    a.write("log", b"old\n")
    appender = a.worker()
    appender("fd = os.open('log', flags)", flags=APPEND)
    b("put('new', b'new\\n'); os.rename('new', 'log')")
    appender("put('log', b'after\\n', flags=flags)", flags=APPEND)
    assert b.read("log") == b"new\nafter\n"


def test_append_while_rewritten(hosts):
    """C9, C11: rewriters and appenders on one name: whole versions with whole records behind them."""
    a, b = hosts
    body = payload("body", 3000)
    a.write("f", body)
    check = """
def classify(d):
    tail = d[3000:]
    return 'whole' if d[:3000] == body and tail == b'record\\n' * (len(tail) // 7) else None
body = %r
""" % body
    readers = [a.reader("f", classify=check), b.reader("f", classify=check)]
    appender, rewriter = a.worker(), b.worker()
    appender.start("for i in range(60): put('f', b'record\\n', flags=flags)", flags=APPEND)
    rewriter.start("for i in range(30): put('f', body); time.sleep(0.01)", body=body)
    appender.finish()
    rewriter.finish()
    for reader in readers:
        reader.stop()
    a.write("f", body)
    b("put('f', b'record\\n', flags=flags)", flags=APPEND)
    assert a.read("f") == body + b"record\n"


def test_logrotate(hosts):
    """C11: rename of a log that others hold open: they go on in the renamed file; new opens make a new one."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('a.log', flags, 0o666); os.write(fd, b'one\\n')", flags=APPEND)
    assert eventually(lambda: b.exists("a.log") and b.read("a.log") == b"one\n")
    a("os.rename('a.log', 'a.log.1')")
    writer("os.write(fd, b'two\\n')")
    a.run("echo three >> a.log")
    writer("os.close(fd)")
    assert b.read("a.log.1") == b"one\ntwo\n"
    assert b.read("a.log") == b"three\n"


def test_logrotate_on_the_other_host(hosts):
    """C11: the same when the other host renames it: no record is lost."""
    a, b = hosts
    writer = a.worker()
    writer("fd = os.open('a.log', flags, 0o666); os.write(fd, b'one\\n')", flags=APPEND)
    assert eventually(lambda: b.exists("a.log") and b.read("a.log") == b"one\n")
    b("os.rename('a.log', 'a.log.1')")
    writer("os.write(fd, b'two\\n')")
    writer("error(os.close, fd)")
    everything = b"".join(b.read(name) for name in b.list())
    assert sorted(everything.split()) == [b"one", b"two"]


@pytest.mark.parametrize("how", ["KILL", "TERM", "SEGV"])
def test_killed_appender_keeps_its_records(hosts, how):
    """C11: what a killed appender had written in whole writes stays."""
    a, b = hosts
    a.write("log", b"begin\n")
    for number in range(4):
        worker = a.worker()
        worker("fd = os.open('log', flags); os.write(fd, b'r%d\\n' % n)", flags=APPEND, n=number)
        worker.kill(getattr(signal, "SIG" + how))
    assert b.read("log") == b"begin\nr0\nr1\nr2\nr3\n" == a.read("log")


def test_killed_at_random(hosts):
    """C11: appenders killed in full flight: whole records, in order."""
    a, b = hosts
    for number in range(6):
        loop = "for i in range(10**6): os.write(fd, b'w%d %06d\\n' % (n, i))"
        worker = hosts[number % 2].worker()
        worker("fd = os.open('log', flags, 0o666)", flags=APPEND)
        worker.start(loop, n=number)
        time.sleep(0.05)
        worker.kill()
    assert eventually(lambda: a.read("log") == b.read("log"))
    counts = {}
    for line in b.read("log").decode().splitlines():
        who, number = line.split(" ")
        assert int(number) == counts.get(who, 0), line
        counts[who] = int(number) + 1
    assert len(counts) == 6


def test_cost_does_not_grow_with_the_file(hosts):
    """C11: a record costs the same behind 64 MiB as behind nothing."""
    a, b = hosts
    a.run("head -c 64M /dev/zero > big; : > small")
    times = {}
    for name in ("small", "big"):
        begin = time.monotonic()
        a("for i in range(100): put(name, b'record', flags=flags)", name=name, flags=APPEND)
        times[name] = time.monotonic() - begin
    assert times["big"] < 4 * times["small"] + 0.3, times
    assert b.look("big").st_size == (64 << 20) + 600


def test_new_file_by_append(hosts):
    """C11: opened with O_APPEND|O_CREAT from both hosts at once: one file with all the records."""
    a, b = hosts
    for number in range(15):
        first, second = a.worker(), b.worker()
        for worker, word in ((first, b"A"), (second, b"B")):
            worker.start("put(name, word, flags=flags)", name="n%d" % number, word=word, flags=APPEND)
        first.finish()
        second.finish()
        assert sorted(b.read("n%d" % number)) == sorted(b"AB"), number
        for worker in (first, second):
            worker.kill()


def test_append_with_truncation(hosts):
    """C9, C11: O_APPEND|O_TRUNC is a rewrite that appends."""
    a, b = hosts
    a.write("f", b"old")
    writer = a.worker()
    writer("fd = os.open('f', REPLACE | os.O_APPEND, 0o666); os.write(fd, b'new')")
    writer("os.lseek(fd, 0, 0); os.write(fd, b'er')")
    writer("os.close(fd)")
    assert b.read("f") == b"newer"


def test_tee_and_logging(hosts):
    """C11: tee -a and Python's logging from both hosts."""
    a, b = hosts
    program = (
        "import logging, sys\nlogging.basicConfig(filename='app.out', level=0, format='%(message)s')\n"
        "for i in range(30): logging.info('%s %06d %s', sys.argv[1], i, chr(97 + i % 26) * 9)\n"
    )
    running = [h.popen(["/usr/bin/python3", "-c", program, h.hostname]) for h in hosts]
    a.run("echo x | tee -a t > /dev/null")
    b.run("echo y | tee -a t > /dev/null")
    for process in running:
        assert process.wait(timeout=20) == 0
    check_records(b.read("app.out"), {"alpha": 30, "beta": 30})
    assert a.read("t") == b"x\ny\n"
