"""Mistakes of retention: what is unlinked too early, what never is, and what becomes visible again."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

HIDING = "retention/test_hiding.py::test_"
GOING = "retention/test_unlinking.py::test_"
DAMAGE = "retention/test_damage.py::test_"

MUTANTS = (
    # --- unlinked too early
    mutant(
        "unlinking latest or pinned",
        "What is served keeps its payload, however old it is.",
        GOING + "a_pinned_snapshot_outlives_its_page_and_is_unlinked_when_unpinned[sqlite]",
        Edit("_retain", "if key not in named", ""),
    ),
    mutant(
        "a base that was succeeded stays",
        "The commit that brings a base unlinks the one before it, if no row needs that.",
        "retention/test_histories_of_bases.py::test_bases_live_as_long_as_they_are_needed",
        Edit("_succeeded", "was.base is None or", "True or"),
    ),
    mutant(
        "unlinking the last rows",
        "A dedupe key and a lost reply find their row among the last ones, hidden or not.",
        HIDING + "dedupe_keys_count_among_hidden_rows[sqlite]",
        Edit("_before_recent", "manifest.recent() - len(log.rows)", "0"),
    ),
    mutant(
        "a page of the last rows unlinked",
        "The last rows never leave the log, also those that are in pages.",
        "unit/test_retention.py::test_the_last_rows_stay",
        Edit("_before_recent", "room -= log.pages[at - 1].count", "room -= manifest.recent()"),
    ),
    mutant(
        "a page unlinked, its reference kept",
        "What the log names is there: a page leaves it in the swap that unlinks it.",
        "retention/test_faults.py::test_a_fault_at_any_command_loses_and_leaks_nothing[publish]",
        Edit("taken_apart", "refs += page.pages", "refs += page.pages or (ref,)"),
    ),
    mutant(
        "a page that is still shown in part is unlinked",
        "What retention does not hide stays.",
        "unit/test_search.py::test_a_search_respects_what_retention_hides",
        Edit("Head.opens", "ref.last_version", "ref.first_version"),
    ),
    mutant(
        "no reader grace",
        "A reader that has the manifest still finds the payload that is unlinked before it asks.",
        GOING + "a_reader_with_the_previous_manifest_still_finds_its_payload[sqlite]",
        Edit("_swap", "ctx.policy.reader_grace_ms", "0"),
    ),
    mutant(
        "a released row unlinked though it is in the log",
        "A hidden row that is no longer served, and is still in the log, keeps its records.",
        GOING + "a_hidden_snapshot_that_is_unpinned_keeps_its_records_while_a_page_names_it[sqlite]",
        Edit("retained", "[] if in_log else", ""),
    ),
    mutant(
        "a lost row unlinks what was published again under its id",
        "An id that was published again, after its records were lost, keeps its payload.",
        GOING + "a_snapshot_that_replaced_a_lost_one_outlives_its_row[sqlite-another ts-publish]",
        Edit("_named", "others |= yield from", "yield from"),
    ),
    mutant(
        "records of the same content are the oldest row's",
        "The same content that was published again, after its records were lost, keeps its payload.",
        GOING + "a_snapshot_that_replaced_a_lost_one_outlives_its_row[sqlite-the same-prune]",
        Edit("_named", "origin.version <= row.version", "origin.version > 0"),
    ),
    mutant(
        "what was published again is never unlinked",
        "Records leave with the row that they belong to.",
        GOING + "a_snapshot_that_replaced_a_lost_one_outlives_its_row[sqlite-the same-prune]",
        Edit("_named", "others - own", "others | own"),
    ),
    mutant(
        "any clock is trusted by retention",
        "A clock a year ahead hides no history.",
        "store/test_times.py::test_a_clock_a_year_ahead_hides_no_history[valkey]",
        Edit("retention_time", "now_ms > theirs + bound", "False"),
    ),
    mutant(
        "a store without a clock trusts any",
        "A clock a year ahead hides no history, even where none can be asked.",
        "store/test_times.py::test_a_clock_a_year_ahead_hides_no_history[sqlite]",
        Edit("retention_time", "return base.log.rows[-1].committed_at + bound", "return now_ms"),
    ),
    mutant(
        "what may still be named is unlinked",
        "A row that may be in a page that cannot be read keeps its records.",
        DAMAGE + "a_pin_whose_page_is_lost_can_be_undone[sqlite]",
        Edit("is_in_log", "return True", "return False"),
    ),
    # --- never unlinked
    mutant(
        "rows leave the log, their records stay",
        "A producer that keeps ten versions does not fill the server.",
        GOING + "the_store_does_not_grow_beyond_the_bound[sqlite-1]",
        Edit("_retain", "keys_of(gone, ", "keys_of(retained.released, "),
    ),
    mutant(
        "a page leaves, its key stays",
        "A page that no log names does not stay permanently.",
        "retention/test_faults.py::test_two_faults_in_one_publish",
        Edit("taken_apart", "keys.append(ref.key)", "pass"),
    ),
    mutant(
        "a released row not unlinked",
        "An old snapshot that was pinned is unlinked when it is unpinned.",
        GOING + "a_pinned_snapshot_outlives_its_page_and_is_unlinked_when_unpinned[sqlite]",
        Edit("retained", "if in_log else [row]", ""),
    ),
    mutant(
        "the latest not released by the publish after it",
        "The target of a rollback is unlinked when something newer is published.",
        GOING + "a_rollback_keeps_its_snapshot_until_another_is_the_latest[sqlite-3000]",
        Edit("_retained", "or row.ts > ts", "or True"),
    ),
    mutant(
        "the latest not released by a publish with its ts",
        "The target of a rollback is unlinked when a snapshot with the same ts takes its place.",
        GOING + "a_rollback_keeps_its_snapshot_until_another_is_the_latest[sqlite-1000]",
        Edit("_retained", "row.ts > ts", "row.ts >= ts"),
    ),
    mutant(
        "count not reduced",
        "The bound on the number of snapshots is one on those that there are.",
        "retention/test_faults.py::test_two_faults_in_one_publish",
        Edit("_retain", "head.count - len(gone)", "head.count"),
    ),
    mutant(
        "a damaged page stops retention",
        "One page that cannot be read does not stop retention for the rest of the history.",
        DAMAGE + "a_damaged_page_does_not_keep_others_from_being_unlinked[sqlite-altered]",
        Edit("_load", "continue", "raise"),
    ),
    # --- visible again, or out of order
    mutant(
        "floor moves down",
        "What is hidden stays hidden, for every next publish.",
        HIDING + "a_clock_that_goes_back_changes_nothing[sqlite]",
        Edit("hidden", "max(head.floor, limits.floor)", "limits.floor"),
    ),
    mutant(
        "first_version moves down",
        "What is hidden stays hidden, for every next publish.",
        "retention/test_hiding.py::test_a_wider_bound_does_not_bring_hidden_rows_back",
        Edit("hidden", "max(first_version,", "max(1,"),
    ),
    mutant(
        "history shows hidden rows",
        "What retention hides is not there, for any way of reading.",
        HIDING + "max_count_hides_all_but_the_newest_at_once[sqlite]",
        Edit("_shown", "head.shows(row) and", ""),
    ),
    mutant(
        "a page opened out of its order",
        "The log stays ordered by version: history, and unlinking the oldest first, depend on it.",
        "retention/test_bounded_size.py::test_bounds_that_change_all_the_time",
        Edit("taken_apart", "refs += page.pages", "refs = [*page.pages, *refs]"),
    ),
    mutant(
        "a hidden id is free",
        "An id that is in the log is taken, hidden or not: a retry of its publish is a success.",
        HIDING + "a_hidden_id_deep_in_a_page_is_still_taken[sqlite]",
        Edit("_owner_of", ", hidden=True", ""),
    ),
    mutant(
        "a hidden row is no commit",
        "A publish whose reply was lost is acknowledged, although retention has hidden it since.",
        "retention/test_hiding.py::test_a_lost_publish_that_is_hidden_is_acknowledged",
        Edit("_in_pages", ", hidden=True", ""),
    ),
    mutant(
        "a backfill below the floor acknowledged",
        "What is acknowledged can be read.",
        HIDING + "a_backfill_that_would_be_hidden_is_refused[sqlite]",
        Edit("_check_age", "ts < floor", "False"),
    ),
    mutant(
        "prune repeats what a late swap did",
        "A prune looks at what is there before it goes on: others are not overwritten.",
        "retention/test_concurrent_prune.py::test_a_prune_that_is_overtaken_goes_on_from_there[sqlite]",
        Edit("prune", "lost += 1", "lost += 1\ncontinue"),
    ),
    mutant(
        "a reference shows the bases of its first and its last row",
        "A log that a repair has rebuilt in another order keeps the bases that its rows need.",
        "fsck/test_bases.py::test_a_log_that_was_rebuilt_in_another_order_keeps_its_bases",
        Edit(
            "span",
            "min(first for first, _ in found), max(last for _, last in found)",
            "found[0][0], found[-1][1]",
        ),
    ),
    mutant(
        "a base between the first and the last not needed",
        "An unpin does not unlink the base of rows in a page.",
        "retention/test_bases.py::test_unpinning_does_not_unlink_the_base_of_rows_in_a_page",
        Edit("is_shown", "first <= version <= last", "version in {first, last}"),
    ),
    mutant(
        "the log not searched when a row is released",
        "A base that no row needs is unlinked with the pin that kept it.",
        "retention/test_bases.py::test_unpinning_unlinks_a_base_that_no_row_needs",
        Edit("_unneeded", "if not (yield from is_in_log(", "if False and not (yield from is_in_log("),
    ),
)
