#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a shell offers at a cursor is what there is: the options of the table, the commands of safewritectl.

The shells are asked as by somebody who types: bash and zsh at a terminal of their own, fish by its own command for that.

usage: completions.py bash|zsh|fish OPTION_PROBE SAFEWRITEFS SAFEWRITECTL
"""
import os
import pty
import re
import subprocess
import sys
import tempfile
import time

import lint

SHELL = sys.argv[1]
PROBE, *PROGRAMS = map(os.path.abspath, sys.argv[2:5])
COMPLETIONS = os.path.join(lint.ROOT, "packaging", "completions", SHELL)
PATIENCE_S = 20

BARE = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"]}
# Each binds C-x a to "insert all that is offered", and C-x s to "write the line to a file".
PREPARATIONS = {
    "bash": r"""
        . /usr/share/bash-completion/bash_completion
        bind '"\C-xa": insert-completions'
        bind -x '"\C-xs": printf "%s\n" "$READLINE_LINE" >"$SHOWN"; READLINE_LINE='
        """,
    "zsh": r"""
        fpath=($COMPLETIONS $fpath)
        autoload -Uz compinit && compinit -u -D
        autoload -Uz _all_matches
        zle -C all-matches complete-word _generic
        zstyle ':completion:all-matches::::' completer _all_matches _complete
        zstyle ':completion:all-matches:*' insert true
        show() { print -r -- $BUFFER >$SHOWN; BUFFER= }
        zle -N show
        bindkey '^Xa' all-matches '^Xs' show
        """,
}


class Terminal:
    """An interactive shell at a terminal, which is asked for the line that it has completed."""

    def __init__(self, folder, environment):
        self.shown = environment["SHOWN"]
        script = os.path.join(folder, "prepare")
        with open(script, "w", encoding="utf-8") as file:
            file.write(PREPARATIONS[SHELL])
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(SHELL, [SHELL, *BARE[SHELL], "-i"], environment)
        os.set_blocking(self.fd, False)
        self.said = b""
        self.ask(f"stty columns 4000; . {script}; echo ready >{self.shown}\r")

    def ask(self, keys):
        os.write(self.fd, keys.encode())
        end = time.monotonic() + PATIENCE_S
        while not (os.path.exists(self.shown) and lint.read(self.shown).endswith("\n")):
            try:
                self.said += os.read(self.fd, 65536)
            except BlockingIOError:
                time.sleep(0.01)
            if time.monotonic() > end:
                sys.exit(f"{SHELL} did not answer to {keys!r}, and said: {self.said!r}")
        text = lint.read(self.shown).rstrip("\n")
        os.unlink(self.shown)
        return text

    def offers(self, line):
        whole = self.ask(line + "\x18a\x18s")
        if not whole.startswith(line.rpartition(" ")[0]):
            sys.exit(f"{SHELL} made of {line!r}: {whole!r}")
        return whole[line.rindex(" ") + 1:].split()


class Fish:
    def __init__(self, folder, environment):
        self.environment = environment

    def offers(self, line):
        command = f"set fish_complete_path {COMPLETIONS}; complete -C '{line}'"
        done = subprocess.run(["fish", "--no-config", "-c", command], env=self.environment, capture_output=True,
                              text=True, check=True, timeout=PATIENCE_S)
        return [said.split("\t")[0] for said in done.stdout.splitlines()]


def ask(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def table():
    """The mount options that are worth an offer, by name: what may stand behind the '=', or None."""
    found = {}
    for line in ask(PROBE, "table").splitlines():
        kind, name, _ = line.split("\t")
        if kind in ("settings", "kernel"):
            found[name] = None
    for name, choices in re.findall(r"^    ([a-z-]+)=([a-z]+\|[a-z|]+) ", ask(PROBE, "help"), re.M):
        found[name] = set(choices.split("|"))
    return found


def commands():
    """The commands of safewritectl by name, and their options, from the source."""
    found = {}
    for path in lint.files("src/ctl", suffixes="_cmd.c"):
        for name, options in re.findall(r'\.name = "(.*)",\s*\.options = "(.*)"', lint.read(path)):
            found[name] = {"--" + option for option in options.split()} | {"--help"}
    return found


def helper_switches():
    letters = re.search(r"getopts (\S+)", lint.read(os.path.join(lint.ROOT, "mount-helpers", "mount.safewritefs.in")))
    return {"-" + letter for letter in letters.group(1).replace(":", "")}


def behind(words, mark):
    """What stands behind the last mark: shells put back what stands before it, and zsh goes on with a comma."""
    return {word.rpartition(mark)[2].rstrip(",") for word in words}


def paths(words):
    return {word.rstrip("/") for word in words}


def names(words):
    """Names of mount options; some shells offer each with its values."""
    return {word.rpartition(",")[2].partition("=")[0] for word in words}


def option_cases():
    options = table()
    yield "safewritefs -o ", names, set(options)
    yield "safewritefs /tmp /tmp -o nosuid,lease=3,fs", names, {n for n in options if n.startswith("fs")}
    for name, choices in options.items():
        if choices:
            yield f"safewritefs -o attr-cache=0,{name}=", lambda words: behind(words, "="), choices
    yield "safewritefs --", set, {w for w in re.findall(r"--[a-z]+", ask(PROBE, "help"))}
    if SHELL != "fish":
        yield "mount.safewritefs /tmp /tmp -o comm", names, {n for n in options if n.startswith("comm")}
        yield "mount.safewritefs -", set, helper_switches()


def ctl_cases(folder):
    known = commands()
    yield "safewritectl ", set, {name.split()[0] for name in known} | {"--help", "--version"}
    yield "safewritectl salvage ", set, {n.split()[1] for n in known if " " in n} | {"--help"}
    for name, options in known.items():
        yield f"safewritectl {name} --", set, options
        yield f"safewritectl {name} {folder}/pla", paths, {f"{folder}/place"}
    yield f"safewritectl salvage restore --to {folder}/place/fi", set, {f"{folder}/place/file"}
    yield f"safewritectl metrics --textfile {folder}/pla", paths, {f"{folder}/place"}
    yield f"safewritectl gc --salvage-max 1 {folder}/pla", paths, {f"{folder}/place"}
    yield "safewritectl gc --salvage-max ", set, set()
    yield f"safewritectl locks --json {folder}/place fi", set, {"file"}


def main():
    lint.need(SHELL)
    if SHELL == "bash" and not os.path.exists("/usr/share/bash-completion/bash_completion"):
        print("skipped: bash-completion is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(os.path.join(folder, "place"))
        with open(os.path.join(folder, "place", "file"), "w", encoding="utf-8"):
            pass
        links = os.path.join(folder, "bash", "completions")
        os.makedirs(links)
        for name in ("safewritefs", "safewritectl", "mount.safewritefs"):
            os.symlink(os.path.join(COMPLETIONS, name.replace("mount.", "")), os.path.join(links, name))
        path = os.pathsep.join([*map(os.path.dirname, PROGRAMS), os.environ["PATH"]])
        environment = dict(os.environ, PATH=path, HOME=folder, TERM="vt100", LC_ALL="C.UTF-8", COMPLETIONS=COMPLETIONS,
                           SHOWN=os.path.join(folder, "shown"), BASH_COMPLETION_USER_DIR=os.path.join(folder, "bash"))
        shell = (Fish if SHELL == "fish" else Terminal)(folder, environment)
        complaints = []
        for line, read, expected in [*option_cases(), *ctl_cases(folder)]:
            offered = read(shell.offers(line))
            if offered != expected:
                complaints.append(f"{SHELL}: '{line}' is offered {sorted(offered)}, not {sorted(expected)}")
    lint.finish(complaints)


main()
