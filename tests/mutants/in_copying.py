"""Mistakes of a copy: what is left out, taken for another, or copied again and again."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

COPY = "copying/test_copy.py::test_"

MUTANTS = (
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
)
