# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract over NFS, continued (test_contract.py): hosts that die."""
from chosen import take

take(globals(), "hosts", "a_commit_right_after_waking_fails")
