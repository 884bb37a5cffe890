"""Mistakes of verify: damage that it misses, and false alarms."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

DAMAGE = "fsck/test_damage.py::test_"
TOGETHER = "fsck/test_interleaved.py::test_"

MUTANTS = (
    # --- damage that is missed
    mutant(
        "verify skips the digest",
        "An altered payload is found before a reader finds it.",
        DAMAGE + "a_snapshot_without_its_payload_is_dropped_and_named[sqlite-altered-in-a-page]",
        Edit("_of_id", "undecodable(held, base)", "''"),
    ),
    mutant(
        "verify skips the digest of a plain payload",
        "An altered payload is found before a reader finds it.",
        "fsck/test_stored.py::test_an_altered_payload_of_the_same_size_is_found[sqlite]",
        Edit("is_plain", "and digest(memoryview(record)[len(header) :]) == sha256", ""),
    ),
    mutant(
        "a value of another type taken for none",
        "Verify says that a record was overwritten, not that it is gone.",
        "fsck/test_stored.py::test_a_value_of_another_type_is_damage[valkey]",
        Edit("read_stored", "if value is None", "if False"),
    ),
    mutant(
        "a refusal taken for the values of many keys",
        "Where scripts may not run, verify asks for each TTL.",
        "fsck/test_stored.py::test_a_store_that_refuses_to_answer_about_many_keys_is_asked_about_each[Ttls]",
        Edit("_read_together", "isinstance(values, Failed) or isinstance(ttls, Failed)", "False"),
    ),
    mutant(
        "verify skips the ts records",
        "A ts record that is gone is found while it can still be written again.",
        DAMAGE + "a_lost_ts_record_is_written_again[sqlite-70-deleted]",
        Edit("compare", "_of_ts(dataset, row, ts_key, header, ts_stored)", "[]"),
    ),
    mutant(
        "verify ignores the check in a ts record",
        "A ts record of another entry is found, so it does not outvote a row.",
        DAMAGE + "a_lost_ts_record_is_written_again[sqlite-1-altered]",
        Edit("_is_ts_of", "record.startswith(records.begin_of_ts(header))", "True"),
    ),
    mutant(
        "a ts record vouches for another entry than its own",
        "What was only staged is not restored by the ts record of what was there before.",
        "fsck/test_checks.py::test_"
        "what_was_only_staged_is_not_restored_by_the_ts_record_of_a_lost_payload[manifest]",
        Edit("_entry_of", "entry.ts == name.ts and records.states_ts(data, entry)", "entry.ts == name.ts"),
    ),
    mutant(
        "an altered id record outvotes a row and its ts record",
        "Two of the three records of a snapshot outvote the third.",
        "fsck/test_raced_rows.py::test_a_row_and_its_ts_record_outvote_an_altered_id_record",
        Edit("recorded", "agrees = records.states_ts(bytes_of(own), row)", "agrees = False"),
    ),
    mutant(
        "verify skips the TTL of records",
        "A committed record that is going to expire is found.",
        DAMAGE + "a_committed_key_with_a_ttl_is_made_permanent[sqlite-1-id]",
        Edit("_of_ttl", "ttl == PERMANENT", "True"),
    ),
    mutant(
        "verify skips the TTL of bases",
        "A base that is going to expire is found while snapshots need it.",
        "fsck/test_bases.py::test_a_base_with_a_ttl_is_made_permanent[1]",
        Edit("_of_id", "not base.is_permanent", "False"),
    ),
    mutant(
        "verify does not compare the base of a row with its record's",
        "A record that needs another base than its row names is found before that base is unlinked.",
        "fsck/test_bases.py::test_a_row_that_names_another_base_than_its_record_is_corrected[5]",
        Edit("_of_id", "base.name != row.base", "False"),
    ),
    mutant(
        "the bounds of pages are not checked",
        "A page that holds other rows than its reference says is found.",
        "fsck/test_deep_damage.py::test_a_page_of_other_times_than_its_reference_says_is_found",
        Edit("parse", "_check_bounds(page, ref)", "pass"),
    ),
    mutant(
        "SCAN cursor ignored",
        "Verify looks at every key, however many there are.",
        "fsck/test_orphans.py::test_many_orphans_in_a_file",
        Edit("KeyScan.step", "= scanned.cursor", "= None"),
    ),
    mutant(
        "an unlisted dataset not noticed",
        "A dataset that is not on the list of names is put back on it.",
        "fsck/test_other_keys.py::test_an_unlisted_dataset_is_found_and_listed[sqlite]",
        Edit("Walk.begin", "self.dataset not in value_of(names)", "False"),
    ),
    # --- false alarms
    mutant(
        "calling a record wrong without reading the manifest again",
        "A record that was unlinked during verify is no damage.",
        TOGETHER + "verify_during_a_publish_reports_nothing[prune_and_expire-False]",
        Edit("Walk._check_rows", "and (yield from self._is_still_named(row.version))", ""),
    ),
    mutant(
        "calling a page missing without reading the manifest again",
        "A page that was unlinked during verify is no damage.",
        TOGETHER + "verify_during_a_publish_reports_nothing[prune_and_expire-False]",
        Edit("Walk._hole", "yield from self._instead_of(ref)", "None"),
    ),
    mutant(
        "a record called wrong after one read",
        "What a replica shows a moment later is no damage, and a repair does not drop it.",
        "fsck/test_replica_lag.py::test_a_record_that_a_replica_shows_late_is_not_dropped",
        Edit("Walk._check_rows", "self._judge_row(again)", "self._judge_row(each)"),
    ),
    mutant(
        "catch-up skipped",
        "What was published during verify is not called leaked.",
        TOGETHER + "verify_during_a_publish_reports_nothing[publish-False]",
        Edit("still_unreached", "before and current and current.version > before.version", "False"),
    ),
    mutant(
        "a page that is sealed during verify not noticed",
        "A page that was sealed during verify is not called leaked.",
        TOGETHER + "verify_during_constant_publishes_reports_nothing[publish]",
        Edit("_catch_up", "walk.reached.add(name.key)", "pass"),
    ),
    mutant(
        "pinned snapshots outside the log not checked",
        "What is only served, and in no page any more, is not called leaked.",
        TOGETHER + "verify_during_a_publish_reports_nothing[prune-True]",
        Edit(
            "Walk._check_served",
            "found += yield from self._check_rows([row])",
            "yield from ()\nself.rows += 1",
        ),
    ),
    mutant(
        "checked keys forgotten",
        "A committed record is not called leaked, however many there are.",
        "fsck/test_deep_damage.py::test_a_healthy_log_with_pages_of_the_real_size",
        Edit("Keyset.update", "unsorted.add(number)", "pass"),
    ),
    mutant(
        "a lost snapshot called leaked",
        "What an earlier line of versions committed is named again, not given a TTL.",
        DAMAGE + "a_lost_manifest_that_was_published_over_gives_the_history_back[sqlite]",
        Edit("_is_committed", "origin.epoch != walk.manifest.epoch", "False"),
    ),
    mutant(
        "the rows of a hole called leaked",
        "What a lost page named is named again, not given a TTL.",
        DAMAGE + "a_deleted_page_is_rebuilt[sqlite]",
        Edit(
            "_is_committed",
            "any(hole.last_version >= origin.version for hole in walk.damage.holes)",
            "False",
        ),
    ),
    mutant(
        "what a retry staged disproves a commit",
        "A committed record keeps its permanence although a ts record beside it has just expired.",
        "exploration/test_explore.py::test_every_state_of_retention_and_repair_keeps_the_promises"
        "[a repairer of a lost ts record and page, and a retry-one key expires]",
        Edit(
            "judge",
            "bool(ts_record) and value_of(ts_ttl) != PERMANENT",
            "value_of(ts_ttl) not in {PERMANENT, ABSENT}",
        ),
    ),
    mutant(
        "altered ts records taken over one by one",
        "A repair of many altered ts records takes one commit.",
        "fsck/test_raced_rows.py::test_many_altered_ts_records_are_written_again_at_once[None]",
        Edit("Redrafter._needed", "shared=True, replaces=True", "shared=True"),
    ),
    mutant(
        "a record that was never committed is adopted",
        "What a cut commit left behind is not shown as committed.",
        TOGETHER + "repair_during_other_operations_loses_nothing[publish-record_leaked]",
        Edit("decide", "walk.version + 1", "walk.version"),
    ),
    mutant(
        "an older manifest taken for the newest",
        "What was committed after a backup that was put back is named again, not given a TTL.",
        DAMAGE + "an_older_manifest_that_was_put_back_loses_nothing[sqlite-3]",
        Edit("decide", "max(versions, default=0) > walk.version + 1", "False"),
    ),
    mutant(
        "continuing after a reset",
        "A dataset that is reset during verify is verified again: its old records are not called missing.",
        "fsck/test_concurrent_clients.py::test_no_record_is_called_missing_before_a_reset_is_noticed",
        Edit("Walk._current", "or current.epoch != self.manifest.epoch", ""),
    ),
    mutant(
        "a read that was refused taken for damage",
        "`-BUSY` for one read does not make a snapshot leaked.",
        "fsck/test_repair_faults.py::test_a_read_that_the_server_refuses_is_not_taken_for_damage[page_deleted]",
        Edit("bytes_of", "except Corrupt", "except Exception"),
    ),
)
