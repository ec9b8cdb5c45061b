# SPDX-License-Identifier: GPL-2.0-or-later
"""safewritectl top: what it shows in a terminal, and that it gives that back."""

import json
import re
import shutil
import subprocess

import pytest
from harness import CTL, SLOWNESS, Frozen, eventually
from test_ctl import documented, look, names_in


class Terminal:
    """A shell in a terminal of its own, by tmux."""

    def __init__(self, name, prefix=()):
        self.name = name
        self.prefix = [*prefix]
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "env PS1='ready$ ' sh")

    def tmux(self, *words):
        command = [*self.prefix, "tmux", "-L", self.name, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def lines(self):
        return self.tmux("capture-pane", "-p").splitlines()

    def shows(self, pattern, seconds=20):
        """The screen once it has that, else the last one."""
        found = eventually(lambda: [line for line in self.lines() if re.search(pattern, line)], seconds)
        assert found, "\n".join(self.lines())
        return self.lines()

    def close(self):
        subprocess.run([*self.prefix, "tmux", "-L", self.name, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def terminal(lab, mount):
    if not shutil.which("tmux"):
        pytest.skip("no tmux")
    terminal = Terminal(lab.directory.replace("/", "-"))
    yield terminal
    terminal.close()


def test_the_screen(terminal, mount, source):
    """Hosts, what is written and locked, by whom; it fits into 80 columns and 24 rows, and into less."""
    writer, locker = mount.worker(), mount.worker()
    writer("fd = os.open('a file', REPLACE); os.write(fd, b'12345')")
    locker("lock = os.open('x.lock', os.O_CREAT | os.O_EXCL | os.O_WRONLY)")
    terminal.type("%s top %s" % (CTL, source), "Enter")
    screen = terminal.shows("a file")
    assert len(screen) <= 24 and max(map(len, screen)) <= 80
    assert re.match(r"safewritectl top [\d:]{8}, 1 of 1 mounts here answer, up \S+ \w+ - " + source[:15], screen[0])
    text = "\n".join(screen)
    assert re.search(r"^hosts: 1 alive, 0 late, 0 silent, 0 dead", text, re.M)
    assert re.search(r"^\S+ +alive +[\d.]+ s +1 +5 bytes", text, re.M)
    assert re.search(r"^writing +5 bytes .* a file$", text, re.M) and re.search(r"^\S+ .* x\.lock$", text, re.M)
    mount.write("f", b"data")
    terminal.shows(r"^(create|flush|lookup) +\d+\.\d +\d+.* \| \w+ +\d+\.\d")
    writer("os.close(fd)")
    assert eventually(lambda: "a file" not in "\n".join(terminal.lines()), 20)
    terminal.tmux("resize-window", "-x", "40", "-y", "6")
    assert eventually(lambda: len(terminal.lines()) == 6 and terminal.lines()[1].startswith("hosts: 1 alive"), 20)
    assert max(map(len, terminal.lines())) <= 40
    terminal.tmux("resize-window", "-x", "80", "-y", "24")
    terminal.shows("x.lock")
    locker("os.unlink('x.lock'); os.close(lock)")


@pytest.mark.parametrize("key", ["q", "C-c"])
def test_the_end(terminal, mount, key):
    """q, or ^C: the terminal is as it was before, and echoes what is typed."""
    terminal.type("echo be''fore", "Enter")
    terminal.shows(r"^(ready\$ )?before$")
    terminal.type("%s top %s" % (CTL, mount.mnt), "Enter")
    screen = terminal.shows("^hosts: ")
    assert not [line for line in screen if line.endswith("before")]
    terminal.type(key)
    terminal.shows(r"^(ready\$ )?before$")
    terminal.type("echo $? sta''tus", "Enter")
    screen = terminal.shows(r"\d+ status$")
    assert key == "C-c" or any(line.endswith(" 0 status") or line == "0 status" for line in screen)  # ^C ends dash's wait


def test_no_answer(lab, terminal, mount):
    """C24: a mount that is frozen is shown as one that does not answer, and q still ends it."""
    terminal.type("%s top %s" % (CTL, mount.mnt), "Enter")
    terminal.shows("1 of 1 mounts here answer")
    with Frozen(mount):
        terminal.shows("0 of 1 mounts here answer|NO ANSWER FOR", 30)
        terminal.type("q")
        assert eventually(lambda: not [line for line in terminal.lines() if "ANSWER" in line.upper()], 10)


def test_json(lab, mount, source):
    """One sample, with the documented names, of what is done meanwhile; without a terminal there is no other."""
    top = lab.start_ctl("top", "--json", source)
    while top.poll() is None:
        mount.write("f", b"data")
    sample = json.loads(top.communicate()[0])
    assert names_in(sample) == documented("top")
    assert (sample["mounts"], sample["mounts_up"], sample["hosts"]) == (1, 1, 1) and sample["path"] == source
    assert 0.5 < sample["interval_seconds"] < 10 * SLOWNESS
    assert sample["commits_per_second"] > 0 and sample["written_bytes_per_second"] > 0
    times = [one["per_second"] * one["mean_seconds"] for one in sample["requests"]]
    assert times == sorted(times, reverse=True) and {"create", "flush"} & {one["name"] for one in sample["requests"]}
    assert {"rename"} <= {one["name"] for one in sample["source_calls"]}
    done = lab.ctl("top", source, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "needs a terminal" in done.stderr
    assert lab.ctl("top", lab.directory, check=False).returncode == 1


def test_a_bare_source(lab, source):
    """What is not mounted here is shown as far as it can be seen."""
    assert lab.host(source, "alpha").unmount() == []
    sample = look(lab, "top", "--json", source)
    assert (sample["mounts"], sample["hosts"], sample["interval_seconds"]) == (0, 0, 0)
