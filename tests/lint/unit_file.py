#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd-analyze has nothing to say about the unit, and it asks for nothing that would hide the mount."""
import os
import re
import subprocess
import sys
import tempfile

import lint

NAME = "safewritefs@{}.service"
OWN_MOUNTS = r"^(Private(Tmp|Mounts|Devices|Users)|Protect\w+|Read(Only|Write)Paths|InaccessiblePaths|Mount\w+|Root\w+)="


def complaints_of(program, text):
    with tempfile.TemporaryDirectory() as folder:
        for program_name in ("safewritefs", "safewritectl"):
            stand_in = os.path.join(folder, program_name)
            with open(stand_in, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\n")
            os.chmod(stand_in, 0o755)
        with open(os.path.join(folder, NAME.format("")), "w", encoding="utf-8") as file:
            file.write(text.replace("@bindir@", folder))
        command = [program, "verify", "--man=no", "--recursive-errors=no", os.path.join(folder, NAME.format("cache"))]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stderr.splitlines() or [f"status {done.returncode}"] * (done.returncode != 0)


def main():
    program = lint.need("systemd-analyze")
    text = lint.read(os.path.join(lint.ROOT, "mount-helpers", NAME.format("") + ".in"))
    if not complaints_of(program, text.replace("Restart=", "Rstart=")):
        print("skipped: this systemd-analyze finds nothing")
        sys.exit(77)
    hiding = [f"hides the mount: {found.group()}" for found in re.finditer(OWN_MOUNTS, text, re.M)]
    lint.finish(complaints_of(program, text) + hiding)


main()
