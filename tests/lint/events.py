#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/operating.md has each event of src/core/event.c, with its MESSAGE_ID, and no other."""
import os
import re

import lint

CODE = re.compile(r'\[SW_EVENT_\w+\] = \{"([a-z-]+)", "([0-9a-f]{32})"\}')
ROW = re.compile(r"^\| `([a-z-]+)` \| `([0-9a-f]{32})` \|", re.MULTILINE)


def main():
    made = set(CODE.findall(lint.read(os.path.join(lint.ROOT, "src/core/event.c"))))
    told = set(ROW.findall(lint.read(os.path.join(lint.ROOT, "docs/operating.md"))))
    complaints = ["docs/operating.md does not have %s with the id %s" % event for event in sorted(made - told)]
    complaints += ["docs/operating.md has %s with the id %s, src/core/event.c has not" % event for event in sorted(told - made)]
    if not made:
        complaints.append("no events were found in src/core/event.c")
    lint.finish(complaints)


main()
