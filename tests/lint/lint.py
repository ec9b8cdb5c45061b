# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lint tests share: where the files are, and how a test ends."""
import os
import shutil
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def files(*folders, suffixes=None):
    """All files below the folders of the project, sorted; no build trees, nothing hidden but .ci."""
    for folder in folders:
        for where, subfolders, names in os.walk(os.path.join(ROOT, folder)):
            subfolders[:] = sorted(s for s in subfolders if not s.startswith((".", "build", "__pycache__")))
            for name in sorted(names):
                if suffixes is None or name.endswith(suffixes):
                    yield os.path.join(where, name)


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def short(path):
    return os.path.relpath(path, ROOT)


def need(program):
    """The program, or the test ends as skipped."""
    found = shutil.which(program)
    if not found:
        print(f"skipped: {program} is not installed")
        sys.exit(77)
    return found


def finish(complaints):
    for complaint in complaints:
        print(complaint)
    sys.exit(1 if complaints else 0)
