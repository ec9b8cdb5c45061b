#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""mount.safewritefs hands on what mount(8) says.  The left sides were recorded from util-linux 2.38."""
import os
import subprocess
import tempfile

import lint

CASES = [
    (["/s", "/m", "-o", "rw,lease=20"], ["-o", ",rw,lease=20", "--", "/s", "/m"]),
    (["/my src", "/m nt", "-n", "-v", "-o", "ro"], ["-n", "-v", "-o", ",ro", "--", "/my src", "/m nt"]),
    (["/s", "/m", "-f", "-o", "rw"], ["--check", "-o", ",rw", "--", "/s", "/m"]),
    (["/s", "/m", "-s", "-o", "rw", "-t", "safewritefs.x"], ["-s", "-o", ",rw", "--", "/s", "/m"]),
    (["/s", "/m", "-r", "-o", "a,b", "-w", "-o", "c"], ["-r", "-w", "-o", ",a,b,c", "--", "/s", "/m"]),
    (["/s", "/m", "-o", "private=+*:$(id);`id`"], ["-o", ",private=+*:$(id);`id`", "--", "/s", "/m"]),
    (["/s", "/m"], ["-o", "", "--", "/s", "/m"]),
    (["/s"], None),
    (["/s", "/m", "-q"], None),
]


def run(folder, arguments):
    done = subprocess.run(["sh", os.path.join(folder, "helper"), *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout.split("\0")[:-1]


def main():
    template = lint.read(os.path.join(lint.ROOT, "mount-helpers", "mount.safewritefs.in"))
    complaints = []
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "helper"), "w", encoding="utf-8") as file:
            file.write(template.replace("@bindir@", folder))
        program = os.path.join(folder, "safewritefs")
        with open(program, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nprintf '%s\\0' \"$@\"\nexit 32\n")
        os.chmod(program, 0o755)
        for given, expected in CASES:
            code, words = run(folder, given)
            if (code, words) != ((32, expected) if expected is not None else (1, [])):
                complaints.append(f"{given} became {words}, status {code}")
    lint.finish(complaints)


main()
