#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""shellcheck has nothing to say about the shell scripts."""
import re
import subprocess
import sys

import lint


def is_shell_script(path):
    """By its first line, or for what is read by a shell that runs, by what it says to shellcheck."""
    with open(path, "rb") as file:
        return re.match(rb"#!\s*(/usr)?/bin/(env )?(ba|da)?sh\b|(#.*\n)*# shellcheck shell=", file.read(200)) is not None


PROGRAM = lint.need("shellcheck")
SCRIPTS = [path for path in lint.files(".ci", "packaging", "docs", "mount-helpers", "tests") if is_shell_script(path)]
sys.exit(subprocess.run([PROGRAM, "--external-sources", *SCRIPTS], cwd=lint.ROOT).returncode)
