#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions and files stay small: a remark over the limits of the style guide, a failure over the hard ones."""
import json
import statistics
import subprocess
import sys

import lint

FUNCTION, FUNCTION_HARD = 60, 80
FILE, FILE_HARD = 600, 1000
MEDIAN = 15


def functions(ctags, paths):
    command = [ctags, "--output-format=json", "--fields=+ne", "--kinds-C=f", "--languages=C", "-f", "-", *paths]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        tag = json.loads(line)
        if tag["_type"] == "tag" and "end" in tag:
            yield tag["end"] - tag["line"] + 1, f"{lint.short(tag['path'])}:{tag['line']}: {tag['name']}()"


def main():
    ctags = lint.need("ctags")
    if "Universal Ctags" not in subprocess.run([ctags, "--version"], capture_output=True, text=True).stdout:
        print("skipped: ctags is not universal-ctags")
        sys.exit(77)
    paths = list(lint.files("src", "tests", suffixes=(".c", ".h")))
    measured = list(functions(ctags, paths))
    files = [(len(lint.read(path).splitlines()), lint.short(path)) for path in paths]
    hard = [f"{what} has {n} lines, over {FUNCTION_HARD}" for n, what in measured if n > FUNCTION_HARD]
    hard += [f"{what} has {n} lines, over {FILE_HARD}" for n, what in files if n > FILE_HARD]
    for n, what in measured:
        if FUNCTION < n <= FUNCTION_HARD:
            print(f"remark: {what} has {n} lines, over {FUNCTION}")
    for n, what in files:
        if FILE < n <= FILE_HARD:
            print(f"remark: {what} has {n} lines, over {FILE}")
    median = statistics.median([n for n, _ in measured] or [0])
    print(f"{len(measured)} functions, median {median:g} lines" + (f", over {MEDIAN}" if median > MEDIAN else ""))
    lint.finish(hard)


main()
