#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints how the file system of DIRECTORY answers: a line "GROUP CHECK :: RESULT" each, equal for equal behaviour.

    conform.py DIRECTORY [GROUP...]     run (as root, for the checks that act as another user)
    conform.py --list                   the names of the groups
"""
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cases_attr  # noqa: E402,F401
import cases_data  # noqa: E402,F401
import cases_dir  # noqa: E402,F401
import cases_names  # noqa: E402,F401
import cases_open  # noqa: E402,F401
import cases_perm  # noqa: E402,F401
import cases_version  # noqa: E402,F401
from lib import GROUPS, Recorder  # noqa: E402


def run_group(directory, name):
    top = os.path.join(os.path.abspath(directory), f"conform.{name}")
    os.mkdir(top, 0o755)
    recorder = Recorder(top, name)
    GROUPS[name](recorder)
    os.chdir("/")
    shutil.rmtree(top)
    print(f"{name} all removed :: {not os.path.lexists(top)}", flush=True)


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(GROUPS))
        return
    os.umask(0o022)
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    for name in sys.argv[2:] or GROUPS:
        run_group(sys.argv[1], name)


main()
