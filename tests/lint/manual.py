#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""mandoc has nothing to say about the manual pages."""
import re
import subprocess
import sys

import lint

PROGRAM = lint.need("mandoc")
PAGES = [path for path in lint.files("docs") if re.search(r"\.[1-8]$", path)]
sys.exit(subprocess.run([PROGRAM, "-T", "lint", "-W", "warning", *PAGES]).returncode)
