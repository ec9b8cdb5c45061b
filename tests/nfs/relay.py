# SPDX-License-Identifier: GPL-2.0-or-later
"""relay.py DIRECTORY MACHINE REPORT NAMED -- COMMAND...: the command runs on that machine of the rig with our standard
streams.  Its pid is written to the descriptor REPORT; NAMED is a literal with cwd, uid, gid, groups and env."""
import ast
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import machine  # noqa: E402

if __name__ == "__main__":
    directory, name, report, named = sys.argv[1:5]
    os.set_inheritable(int(report), False)
    machine_ = machine.Machine(directory, name)
    sys.exit(machine.relay(machine_, sys.argv[6:], report=int(report), **ast.literal_eval(named)))
