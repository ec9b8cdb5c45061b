#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""C files are as clang-format would have them, by the versions that were seen to agree about these files."""
import re
import subprocess
import sys

import lint

# Debian 12 has 14, Debian 13 has 19.  A newer one may have changed its mind about code that nobody touched.
AGREEING = (14, 16, 17, 18, 19, 22)


def version(program):
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    return int(re.search(r"version (\d+)", said).group(1))


def main():
    program = lint.need("clang-format")
    if version(program) not in AGREEING:
        print(f"skipped: clang-format {version(program)} is none of {AGREEING}, which agree")
        sys.exit(77)
    paths = lint.files("src", "tests", suffixes=(".c", ".h"))
    sys.exit(subprocess.run([program, "--dry-run", "-Werror", *paths]).returncode)


main()
