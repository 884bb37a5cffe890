"""Mistakes of repair: what it loses, what it shows that was never committed, what it leaves behind."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

DAMAGE = "fsck/test_damage.py::test_"
DEEP = "fsck/test_deep_damage.py::test_"
RACED = "fsck/test_raced_rows.py::test_"
CLIENTS = "fsck/test_concurrent_clients.py::test_"
TOGETHER = "fsck/test_interleaved.py::test_"

MUTANTS = (
    # --- what would be lost
    mutant(
        "members that a lost base of groups names taken for unneeded",
        "Groups whose members can be read stay, also when the table of their base is lost.",
        "fsck/test_groups.py::test_a_repair_costs_no_group_that_can_be_read[one-alter]",
        Edit("Walk._check_members", "for key in compared.base_keys", "for key in list[str]()"),
    ),
    mutant(
        "the base of a group looked for in its table alone",
        "A rebuilt manifest names the base that the members of its groups need.",
        "fsck/test_groups.py::test_a_base_that_only_members_need_is_no_leftover",
        Edit("judge", ".base or parts.base", ".base"),
    ),
    mutant(
        "a repair from an outdated manifest",
        "What is published during a repair stays.",
        CLIENTS + "a_publish_during_a_repair_stays",
        Edit("Redrafter.repaired", "left_of(current.log.rows)", "left_of(walk.manifest.log.rows)"),
    ),
    mutant(
        "a record unlinked that a lost page may name",
        "When a row is dropped, the later snapshot of its id stays, also while its page is lost.",
        CLIENTS + "a_republished_id_whose_page_is_lost_is_never_without_its_record",
        Edit(
            "Redrafter._left_of", "except Damaged:\n    return [ts_key]", "except Damaged:\n    other = None"
        ),
    ),
    mutant(
        "a page below a lost one taken for unlinked",
        "A page that is lost during a verify is found missing, also when what names it is lost with it.",
        CLIENTS + "a_page_below_one_that_is_lost_during_a_verify_is_missing",
        Edit("is_page_named", "return True", "return False"),
    ),
    mutant(
        "a repair that goes on after a reset",
        "A dataset that was flushed and published again does not get the manifest of the old one.",
        TOGETHER + "repair_of_a_dataset_that_is_flushed_at_the_same_time[begun-anew-manifest_deleted]",
        Edit("_repair", "(current and current.epoch) != (before and before.epoch)", "False"),
    ),
    mutant(
        "a rebuilt manifest not bound to its records",
        "A repair does not write a manifest to a store that was flushed during the repair.",
        TOGETHER + "repair_of_a_dataset_that_is_flushed_at_the_same_time[flushed-manifest_deleted]",
        Edit("Redrafter.rebuilt", "needed += [", "_ = ["),
    ),
    mutant(
        "`whole` compares the beginning only (Lua)",
        "A repair replaces the damaged bytes that it has read, and no later manifest.",
        "drivers/test_contract.py::TestDrivers::test_a_whole_commit_refuses_a_longer_value[fakeredis]",
        Edit("commit.lua", "stored == expected", "sub(stored, 1, #expected) == expected"),
    ),
    mutant(
        "`whole` compares the beginning only (SQLite)",
        "A repair replaces the damaged bytes that it has read, and no later manifest.",
        "drivers/test_contract.py::TestDrivers::test_a_whole_commit_refuses_a_longer_value[sqlite]",
        Edit(
            "_is_expected",
            "stored == commit.expected",
            "stored is not None and stored.startswith(commit.expected)",
        ),
    ),
    mutant(
        "a leaked id unlinked though it was published since",
        "A record that was committed during the repair gets no TTL.",
        TOGETHER + "a_leaked_id_that_is_published_again_stays",
        Edit("Redrafter._unlinked", "key in used", "False"),
    ),
    mutant(
        "a leaked page unlinked though it was sealed since",
        "A page that was committed during the repair gets no TTL.",
        CLIENTS + "a_leaked_page_that_is_sealed_again_stays",
        Edit("Redrafter._unlinked", "if moved", "if False"),
    ),
    mutant(
        "an id record unlinked though it was taken again",
        "Dropping a row leaves the record alone that another row names under its id.",
        CLIENTS + "a_republished_id_is_never_without_its_record",
        Edit("Redrafter._left_of", "if other is not None", "if False"),
    ),
    mutant(
        "versions numbered again",
        "Versions that clients have stored name the same snapshots after a rebuild.",
        DEEP + "a_lost_manifest_of_a_deep_log_comes_back_row_for_row[True-False]",
        Edit("versioned", "max(after + 1, candidate.version)", "after + 1"),
    ),
    mutant(
        "restored by their times",
        "Snapshots come back in the order in which they were committed.",
        DEEP + "a_lost_manifest_of_a_deep_log_comes_back_row_for_row[False-True]",
        Edit("in_order", "candidate.version, candidate.entry.ts", "candidate.entry.ts, candidate.version"),
    ),
    mutant(
        "ts records not written again",
        "After a repair everything could be rebuilt once more.",
        DAMAGE + "a_lost_ts_record_is_written_again[sqlite-1-deleted]",
        Edit("Redrafter.repaired", "yield from self._still(current, damage.without_ts.values())", "[]"),
    ),
    mutant(
        "a follower far behind misses what it returned",
        "What a follower has returned before a repair is no gap when retention hides it.",
        "follow/test_repairs.py::test_what_was_returned_is_no_gap_for_a_follower_far_behind",
        Edit("Place._find_place", "self._complete_to = max(place.version, anchor.version)", "pass"),
    ),
    mutant(
        "a follower returns what came back too late",
        "A follower returns commits in their order, also those that a repair has shown again.",
        "follow/test_repairs.py::test_hidden_rows_that_come_back_are_not_returned_too_late[5]",
        Edit("Place._next_of", "self._start = item.version - 1", "pass"),
    ),
    mutant(
        "a follower forgets what a repair may have moved",
        "A commit that a repair gave another version is not returned twice.",
        "follow/test_repairs.py::test_a_repair_neither_repeats_nor_skips_a_commit[lost0-3]",
        Edit("Place._find_place", "self._repeated_to = manifest.version", "pass"),
    ),
    # --- what would be shown
    mutant(
        "a row of the tail kept though its payload is gone",
        "History shows only what can be read.",
        DAMAGE + "a_snapshot_without_its_payload_is_dropped_and_named[sqlite-deleted-in-the-tail]",
        Edit("Redrafter.repaired", "self._rewriter.left_of(current.log.rows)", "current.log.rows"),
    ),
    mutant(
        "a row of a page kept though its payload is gone",
        "History shows only what can be read.",
        DAMAGE + "a_snapshot_without_its_payload_is_dropped_and_named[sqlite-deleted-in-a-page]",
        Edit("LogRewriter._rewrite", "self.left_of(page.rows)", "page.rows"),
    ),
    mutant(
        "what is served looked up by its version",
        "The header names what was served, also when a rebuilt page gave it another version.",
        RACED + "what_is_served_is_found_again_although_its_version_changed",
        Edit("Redrafter._served_again", "(yield from self._find_again(log, left)) or left", "left"),
    ),
    mutant(
        "an altered row dropped",
        "One altered character in a row drops nothing: two records outvote it.",
        RACED + "one_altered_character_of_a_row_drops_nothing[sha256-79]",
        Edit("Walk._judge_row", "entry is not None", "False"),
    ),
    mutant(
        "an altered id of a row taken for a lost payload",
        "One altered character in the id of a row drops nothing.",
        RACED + "one_altered_character_of_a_row_drops_nothing[id-79]",
        Edit("judge", "None if fault else _altered_row(walk, entry)", "None"),
    ),
    mutant(
        "the origin of another version kept",
        "A ts record that states a later version than its row is written again.",
        RACED + "a_retry_that_dies_leaves_no_later_origin_that_a_repair_keeps",
        Edit("_is_ts_of", "origin.version <= row.version", "True"),
    ),
    mutant(
        "latest not replaced",
        "When the payload of the latest is gone, readers get the newest that is left.",
        "fsck/test_repair_faults.py::test_a_fault_at_any_command_of_a_repair[latest_altered]",
        Edit("Redrafter._served_again", "self._rewriter.left_of([target])", "[target]"),
    ),
    mutant(
        "pinned not removed",
        "When the payload of what is pinned is gone, readers get the latest.",
        "fsck/test_deep_damage.py::test_a_lost_pinned_snapshot_is_unpinned",
        Edit(
            "Redrafter._head",
            "(yield from self._served_again(log, was.pinned)) if was.pinned else None",
            "was.pinned",
        ),
    ),
    mutant(
        "a rollback undone",
        "A repair does not serve again what an operator has rolled back.",
        DEEP + "pins_and_rollbacks_survive_a_repair[pages]",
        Edit("Redrafter._head", "restored or latest is None", "True"),
    ),
    mutant(
        "what retention hid comes back",
        "A rebuilt manifest hides what the one before it hid.",
        DEEP + "retention_is_respected_after_a_rebuild",
        Edit("Redrafter.rebuilt", "was.first_version if was else", ""),
    ),
    mutant(
        "the old epoch kept",
        "Rewritten pages begin a new epoch, so followers look for their place.",
        "follow/test_repairs.py::test_a_repair_neither_repeats_nor_skips_a_commit[lost0-3]",
        Edit("Redrafter._head", "self._epoch if rewritten else", ""),
    ),
    mutant(
        "a rewritten page under the old name",
        "A damaged page does not block the page that replaces it.",
        DEEP + "a_lost_page_beside_lost_payloads",
        Edit(
            "Redrafter.__init__",
            "self._epoch, damage=",
            "walk.manifest.epoch if walk.manifest else self._epoch, damage=",
        ),
    ),
    mutant(
        "restored under versions that are taken",
        "What is named again comes after all that was published since.",
        DAMAGE + "a_lost_manifest_that_was_published_over_gives_the_history_back[sqlite]",
        Edit("Redrafter.repaired", "after=current.version", "after=0"),
    ),
    # --- what would be left behind, or be done without `apply`
    mutant(
        "replaced pages stay",
        "A repair leaves nothing behind that never expires.",
        "fsck/test_repair_faults.py::test_a_fault_at_any_command_of_a_repair[page_deleted]",
        Edit("Redrafter.repaired", "*replaced,", ""),
    ),
    mutant(
        "not registered",
        "A dataset that is not on the list of names is put back on it.",
        "fsck/test_other_keys.py::test_an_unlisted_dataset_is_found_and_listed[sqlite]",
        Edit("_repair", "walk.damage.unlisted and apply", "False"),
    ),
    mutant(
        "a preview that repairs",
        "Without `apply` a repair changes nothing.",
        "cli/test_repair.py::test_without_apply_nothing_changes",
        Edit("_repair", "or not apply", ""),
    ),
    mutant(
        "what is served takes a place in a lost page",
        "The rows of a lost page keep their versions.",
        DEEP + "a_pin_that_left_the_log_takes_no_place_in_a_lost_page",
        Edit("_taken", "sorted(fitting, key=place)", "fitting"),
    ),
    mutant(
        "a lost base stays in force",
        "After a repair, publishes are stored as differences from a base that is there.",
        "fsck/test_bases.py::test_a_base_that_is_wrongly_in_force_is_taken_out[missing]",
        Edit("Redrafter._in_force", "base.name == self._damage.not_in_force", "False"),
    ),
    mutant(
        "the bases of restored rows forgotten",
        "Rows of a rebuilt log protect the bases that their records need.",
        "fsck/test_bases.py::test_a_rebuilt_manifest_has_the_bases_of_its_records",
        Edit("Unnamed.row", "base=self.base", "base=None"),
    ),
)
