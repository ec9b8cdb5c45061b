#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The parser, --help and the manual page know the same options, with the same defaults.

usage: options.py OPTION_PROBE
"""
import os
import re
import subprocess
import sys

import lint

KINDS = ("settings", "kernel", "ignored", "refused")
HELP_TITLES = {"kernel": "Passed on to the kernel:", "ignored": "Accepted and ignored:", "refused": "Refused:"}


def probe(*arguments):
    return subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True).stdout


def from_table():
    found = {kind: {} for kind in KINDS}
    for line in probe("table").splitlines():
        kind, name, default = line.split("\t")
        found[kind][name] = default
    return found


def from_help():
    text = probe("help")
    found = {"settings": {}}
    block = text.split("Mount options [default]:\n")[1].split("\n\n")[0]
    for line in block.splitlines():
        name, default = re.fullmatch(r"    ([a-z-]+)=\S+ +.*?(?: \[(.*)\])?", line).groups()
        found["settings"][name] = default or ""
    for kind, title in HELP_TITLES.items():
        words = re.search(re.escape(title) + r"((?:\s+\S+(?<!:))+?)\n(?=\S|\n)", text).group(1).split()
        found[kind] = {word.split("=")[0]: "" for word in words}
    return found


def from_manual():
    text = lint.read(os.path.join(lint.ROOT, "docs", "safewritefs.8"))
    found = {}
    for kind in KINDS:
        block = re.search(rf'\.\\" begin {kind}\n(.*?)\.\\" end {kind}\n', text, re.S).group(1)
        found[kind] = {}
        macro = r"\.It Cm" if kind in ("settings", "refused") else r"\.Cm"
        for entry in re.split(rf"^(?={macro})", block, flags=re.M):
            name = re.match(rf"{macro} (\S+?)( Ns \*)?(?= |$)", entry, re.M)
            if name:
                default = re.search(r"^\.Pq Default: (.*)$", entry, re.M)
                found[kind][name.group(1) + ("*" if name.group(2) else "")] = default.group(1) if default else ""
    return found


def differences(table, other, what):
    for kind in KINDS:
        for name in sorted(set(table[kind]) | set(other[kind])):
            if name not in other[kind]:
                yield f"{what} does not list {name} as one of {kind}"
            elif name not in table[kind]:
                yield f"{what} lists {name} as one of {kind}, the parser does not"
            elif table[kind][name] != other[kind][name]:
                yield f"{what}: the default of {name} is {table[kind][name]!r}, not {other[kind][name]!r}"


def behaviour(table):
    """What the parser does, rather than what its table says."""
    for kind in KINDS:
        for name in table[kind]:
            word = name.replace("*", "mine")
            answer = probe("parse", "/source", "/mountpoint", "-o", word).strip()
            expected = f"option '{word}' is refused" if kind == "refused" else ("ok", f"option '{word}' needs a value")
            if not answer.startswith(expected):
                yield f"the parser says to {word}: {answer}"
            default = table[kind][name]
            if default and name != "conf":
                answer = probe("parse", "/source", "/mountpoint", "-o", f"{word}={default}").strip()
                if answer != "ok":
                    yield f"the parser refuses the default {word}={default}: {answer}"
    if probe("parse", "/source", "/mountpoint", "-o", "frobnicate=1").strip() != "unknown option 'frobnicate'":
        yield "the parser does not refuse an unknown option"


def main():
    table = from_table()
    lint.finish([*differences(table, from_help(), "--help"), *differences(table, from_manual(), "safewritefs.8"),
                 *behaviour(table)])


main()
