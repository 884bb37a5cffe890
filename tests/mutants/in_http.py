"""Mistakes of HTTP responses: a client keeps what is not served any more, or gets what it cannot decode."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

RESPONSES = "http/test_responses.py::test_"

MUTANTS = (
    mutant(
        "a delta is passed on as a frame",
        "A client can decode what it gets.",
        RESPONSES + "other_payloads_are_compressed_once[sqlite-delta]",
        Edit("note_frame", "and held.base is None", ""),
    ),
    mutant(
        "a later date than that of the commit will do",
        "After a rollback, a client gets what was rolled back to.",
        RESPONSES + "dates[given_headers2-200]",
        Edit("response", "asked.modified_since == date", "asked.modified_since is not None"),
    ),
    mutant(
        "a date counts beside a tag",
        "A client whose tag is another one gets what is served.",
        RESPONSES + "dates[given_headers6-200]",
        Edit("response", "asked.none_match is None and", ""),
    ),
    mutant(
        "a date is sent at once",
        "Two commits within one second are told apart.",
        RESPONSES + "no_date_is_sent_that_another_commit_may_have[-1]",
        Edit("_last_modified", "- DATED_AFTER_MS", ""),
    ),
    mutant(
        "a frame will do for a client that takes none",
        "Each encoding has a tag of its own.",
        RESPONSES + "each_representation_has_a_strong_tag_of_its_own",
        Edit("_Content.has", "zstd and tag.startswith(self.zstd)", "tag.startswith(self.zstd)"),
    ),
    mutant(
        "the date of another commit of the same second will do",
        "After a rollback, a client gets what was rolled back to.",
        RESPONSES + "no_date_is_sent_that_a_later_commit_had[rollback]",
        Edit("_last_modified", "version_of(found.etag) != found.version", "False"),
    ),
    mutant(
        "in an outage, every cache may keep what is for one user",
        "`private` and `no-store` hold in an outage, too.",
        RESPONSES + "a_stale_snapshot_is_kept_by_no_cache_that_may_not_keep_it[no-store-no-cache, no-store]",
        Edit("_revalidated", "if name in names", "if not names"),
    ),
    mutant(
        "a view that is not started has no datasets",
        "A client is told that there is no such dataset only if there is none.",
        RESPONSES + "a_view_that_is_not_started_is_no_missing_dataset",
        Edit("_refusal", "and not error.misused", ""),
    ),
)
