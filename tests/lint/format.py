#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""C files are as clang-format would have them."""
import subprocess
import sys

import lint

PROGRAM = lint.need("clang-format")
sys.exit(subprocess.run([PROGRAM, "--dry-run", "-Werror", *lint.files("src", "tests", suffixes=(".c", ".h"))]).returncode)
