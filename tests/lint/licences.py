#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Each source file says at its top which licence it is under, all the same one."""
import os
import re

import lint

# By the end of its name; one without a dot is a script, or read by a shell.
SOURCE = re.compile(r"[^.]+|.*\.(build|c|fish|h|html|in|inc|pml|py|sh|spec|yml|[1-8])|meson_options\.txt|meson\.options")
# Of debian/ these only: the others have no comments, and a build leaves things there.
DEBIAN = ("debian/control", "debian/rules")
LINE = "SPDX-License-Identifier: GPL-2.0-or-later"


def candidates():
    for name in sorted(os.listdir(lint.ROOT)):
        path = os.path.join(lint.ROOT, name)
        if os.path.isfile(path):
            yield path
        elif name == ".ci" or not name.startswith((".", "build", "debian", "obj-", "subprojects")):
            yield from lint.files(name)
    yield from (os.path.join(lint.ROOT, name) for name in DEBIAN)


def complaints():
    for path in candidates():
        name = os.path.basename(path)
        if SOURCE.fullmatch(name) and name != "LICENSE" and LINE not in "".join(lint.read(path).splitlines(True)[:5]):
            yield f"{lint.short(path)}: no line '{LINE}' at its top"


lint.finish(list(complaints()))
