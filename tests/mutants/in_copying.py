"""Mistakes of a copy: what is left out, taken for another, or copied again and again."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

COPY = "copying/test_copy.py::test_"
PINS = "copying/test_pins.py::test_"
BACK = "copying/test_going_back.py::test_"

MUTANTS = (
    mutant(
        "a copy pins what a producer has published over",
        "A copy pins a dataset in the commit before which nothing is published in it, and never else.",
        PINS + "a_producer_that_publishes_first_keeps_the_pin_out",
        Edit("_draft", " and (base is None or base.head.is_dropped)", ""),
    ),
    mutant(
        "the pinned snapshot is copied in its turn",
        "A restore serves what the source serves from its first commit on.",
        PINS + "a_restore_serves_what_the_source_served_from_its_first_commit_on",
        Edit("_Dataset._begin", "plan.pin is not None", "False"),
        Edit("_Dataset._rows", "row == first", "False"),
    ),
    mutant(
        "a copied snapshot is deduplicated by its key",
        "Every commit of the source is in the copy, whatever keys came again.",
        COPY + "a_dedupe_key_that_comes_again_is_no_reason_to_leave_a_snapshot_out",
        Edit("_decide", " and this.wanted.committed_at is None", ""),
    ),
    mutant(
        "what the target has unlinked is copied again",
        "A copy into a store with a short history ends with the newest commits, however often it runs.",
        COPY + "retention_by_count_bounds_what_is_copied",
        Edit("_Plan._bounded", 'is_cut and state == "already"', "False"),
    ),
    mutant(
        "a source that went back is followed by its versions",
        "What a source gets after it has lost commits is copied.",
        COPY + "a_source_that_went_back_is_compared_again",
        Edit("_Dataset._begin", "if _run(job.source, reading):", "if _run(job.source, reading) or True:"),
    ),
    mutant(
        "a target that went back is not noticed",
        "What a target loses in a failover is copied again.",
        COPY + "a_target_that_went_back_is_filled_again",
        Edit("_Dataset._note", "commit.version <= self.version", "False"),
        Edit("_Dataset._has_committed", "theirs.version >= self.version", "True"),
        Edit("_Dataset.advance", "not self._has_seen(theirs)", "False"),
    ),
    mutant(
        "a payload under the id of another row",
        "A source that is flushed during a copy leaves no mixture in the target.",
        COPY + "a_row_is_not_copied_with_the_payload_of_another",
        Edit("snapshot_of", "current is None or not same_row(current, row)", "current is None"),
    ),
    mutant(
        "the versions of a source that went back count as done",
        "What a source gets after it has lost commits is copied, if it loses them while it is read.",
        BACK + "a_source_that_goes_back_before_its_last_pages_are_read",
        Edit("_Dataset._walk", "self.position = min(upto, ends[-1])", "self.position = upto"),
    ),
    mutant(
        "what came after the first look is bounded like what was there",
        "A target that went back gets all again that was copied to it while it was followed.",
        BACK + "a_target_of_the_newest_commits_that_goes_back_while_the_copy_waits",
        Edit("_Dataset._begin", "min(self.began, plan.after)", "self.began"),
    ),
    mutant(
        "a dataset that was dropped is copied",
        "Nothing is published in a dataset whose drop is under way or was cut short.",
        COPY + "a_dataset_that_is_being_dropped_has_nothing_to_copy",
        Edit(
            "stored",
            "published((yield from current_manifest(ctx.reading(), dataset)))",
            "(yield from current_manifest(ctx.reading(), dataset))",
        ),
    ),
)
