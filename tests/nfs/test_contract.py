# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract over NFS: mounted tests, the very same, for which real caches, a server and a network between the hosts
make a difference.  The others can be run so as well: SW_NFS=vers=4.2 pytest tests/mount/test_x.py."""
from chosen import take

CHOSEN = {
    "writers": "rename_commits unlink_of_a_file_being_rewritten rewriters_on_both_hosts last_commit_wins",
    "views": "writer_sees_its_own strangers_see_the_old writer_reads_while_others_commit directory_gone_elsewhere",
    "closes": "new_names_visible_when_close_returns reader_keeps_its_version write_after_a_commit_by_rename",
    "edits": "disjoint_edits_survive edit_of_a_removed_file rewrite_of_a_removed_file",
    "exclusive": "decided_at_open dead_winner",
    "appends": "growth_is_seen_by_the_next_open append_to_a_file_being_replaced killed_appender_keeps_its_records",
    "locks": "killed_owner link_count script_inherits",
    "file_locks": "one_excludes_the_other waits_for_its_turn release_commits_and_acquire_moves",
}

for _module, _names in CHOSEN.items():
    take(globals(), _module, _names)
