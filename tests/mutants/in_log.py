"""Mistakes in the manifest and its pages: rows that are lost, `latest` that goes back, names used twice."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

MANIFEST = "unit/test_manifest.py::test_"

ANEW = "recompress/test_recompress.py::test_"

MUTANTS = (
    mutant(
        "elements that a later version adds to rows are refused",
        "Readers and producers of this version go on beside a later one that writes the same format.",
        "store/test_later_versions.py::test_what_a_later_version_adds_is_ignored",
        Edit("StoredRow", "array_like=True", "array_like=True, forbid_unknown_fields=True"),
    ),
    # --- history that is stored anew
    mutant(
        "a record that needs a base is replaced before the manifest names it",
        "Whatever cuts a swap short, a record that needs a base is named with that base.",
        "exploration/test_explore.py::test_every_state_of_history_that_is_stored_anew_keeps_the_promises"
        "[to delta, and a reader of the history-one torn script]",
        Edit("_Run._step", "form.base is not None", "False"),
    ),
    mutant(
        "a base unlinked that another row needs",
        "While rows lose their bases, a base stays as long as one of them needs it, wherever that is.",
        "fsck/test_bases.py::test_history_in_another_order_is_stored_anew",
        Edit("_Run._anew", "[] if needing else [name]", "[name]"),
    ),
    mutant(
        "a base of its own between two rows of one base",
        "Rows with the same base stay neighbours, because what unlinks bases relies on it.",
        ANEW + "between_rows_of_one_base_no_other_is_brought",
        Edit("Deltas.plan", "bring and (name is None or name != after)", "bring"),
    ),
    mutant(
        "history stored anew against a base that may expire",
        "A snapshot that can be read never comes to need a base that is lost, or may expire.",
        ANEW + "nothing_is_stored_against_a_base_that_is_lost_or_may_expire[True-deleted]",
        Edit("_Run._step", "[*added, *there]", "added"),
    ),
    mutant(
        "a page keeps its name though its rows have changed",
        "A reader that has cached a page never takes it for another one.",
        ANEW + "history_becomes_small_and_plain_again[sqlite]",
        Edit("_Resealing._seal", "self._stamp.new_epoch", '"0" * 12'),
    ),
    mutant(
        "what was erased leaves no trace of its version",
        "A follower whose last row was erased goes on, and is not told that the store went back.",
        "erase/test_erase.py::test_followers_go_on_without_a_gap[sqlite-10]",
        Edit("redraft", "(*log.erased, gone)[-manifest.recent() :]", "log.erased"),
    ),
    mutant(
        "a drop that does not say so",
        "From the first swap of a drop on, readers see nothing published.",
        "erase/test_drop.py::test_readers_see_nothing_from_the_first_swap_on[sqlite]",
        Edit("drop", "dropped=version", "dropped=0"),
    ),
    mutant(
        "latest moved back by an older snapshot",
        "A slow producer that started earlier does not move latest back in time.",
        MANIFEST + "latest_is_the_greatest_ts",
        Edit("append", "base.head.latest if base and is_older_than_latest(row.ts, base.head) else", ""),
    ),
    mutant(
        "an equal ts does not win",
        "Of two snapshots of one moment the later commit is the latest.",
        MANIFEST + "latest_is_the_greatest_ts",
        Edit("is_older_than_latest", "ts < head.latest.ts", "ts <= head.latest.ts"),
    ),
    mutant(
        "sealing drops a row",
        "Sealing keeps every row exactly once.",
        MANIFEST + "no_row_is_ever_dropped[16]",
        Edit("sealed_log", "log.rows[size:]", "log.rows[size + 1 :]"),
    ),
    mutant(
        "sealing drops a page",
        "Sealing keeps every page of rows exactly once.",
        MANIFEST + "no_row_is_ever_dropped[72]",
        Edit("sealed_refs", "run = refs[-manifest.G :]", "run = refs[-manifest.G + 1 :]"),
    ),
    mutant(
        "rows of the tail lost on append",
        "A publish adds a row and loses none.",
        MANIFEST + "no_row_is_ever_dropped[15]",
        Edit("append", "(*log.rows, row)", "(*log.rows[1:], row)"),
    ),
    mutant(
        "page key without the epoch",
        "After the manifest was lost, new pages do not have the keys of old ones.",
        "store/test_damage.py::test_a_new_epoch_is_not_blocked_by_old_pages[sqlite]",
        Edit("seal", "{epoch}.", ""),
    ),
    mutant(
        "page key without the last version",
        "A page of references does not have the key of the first page below it.",
        MANIFEST + "no_row_is_ever_dropped[72]",
        Edit("seal", "-{ref.last_version}", ""),
    ),
    mutant(
        "a page says who sealed it",
        "The same rows seal into the same bytes, in every process.",
        MANIFEST + "the_same_rows_seal_into_the_same_bytes",
        Edit("seal", '"size": len(body)', '"size": len(body), "sealed_by": id(ref)'),
    ),
    mutant(
        "page not verified by its digest",
        "An altered page is not read as history.",
        MANIFEST + "a_page_is_checked_against_its_reference",
        Edit("parse", "records.check_body(body, header.size, header.sha256, ref.key)", "pass"),
    ),
    mutant(
        "page not compared with its reference",
        "Another page under a page's key is not read as history.",
        MANIFEST + "a_page_is_checked_against_its_reference",
        Edit("parse", 'or not ref.key.endswith(f":{header.page}")', ""),
    ),
    mutant(
        "a page that cannot be read hides those before it",
        "The rows before a damaged page are read.",
        "store/test_read.py::test_the_rows_before_a_page_that_cannot_be_read_come_first[sqlite-missing]",
        Edit("load_pages", "if not found:", "if True:"),
    ),
    mutant(
        "a limit does not bound a batch of pages",
        "A list of the last few commits loads a few pages.",
        "store/test_read.py::test_history_loads_no_page_that_its_limit_does_not_need[sqlite-13-pages1]",
        Edit("batch", "if rows is None else min(rows, AHEAD_ROWS)", ""),
    ),
    mutant(
        "rows behind pages of references are read ahead",
        "A history holds the rows of one batch.",
        "unit/test_search.py::test_the_rows_of_a_batch_are_returned_before_the_next",
        Edit("batch", "item.count <= manifests.F < found[-1].count", "False"),
    ),
    mutant(
        "version not incremented on pin",
        "Every swap is a version of its own: versions are dense, and an etag is never used twice.",
        MANIFEST + "repoint_changes_the_header_alone",
        Edit("repoint", "base.version + 1", "base.version"),
    ),
    mutant(
        "a publish drops the pin",
        "What an operator pinned is served until it is unpinned.",
        MANIFEST + "repoint_changes_the_header_alone",
        Edit("append", "base.head.pinned if base else", ""),
    ),
    mutant(
        "another dataset's manifest accepted",
        "A key copied by hand does not show one region's data as another's.",
        MANIFEST + "another_datasets_manifest_is_refused",
        Edit("parse", "head.dataset != dataset", "False"),
    ),
)
