"""Mistakes of a commit of plain commands, where no script runs."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

EXPLORE = "exploration/test_explore.py::test_every_state_without_scripts_keeps_the_promises"
GROUPS = "exploration/test_explore.py::test_every_state_of_groups_without_scripts_keeps_the_promises"


def search(way: str, scenario: str, budget: str) -> str:
    """The search that should notice."""
    return f"{EXPLORE}[Way.{way}-{scenario}-{budget}]"


def group_search(way: str, scenario: str, budget: str) -> str:
    """The search of groups that should notice."""
    return f"{GROUPS}[Way.{way}-{scenario}-{budget}]"


MUTANTS = (
    mutant(
        "what a lost race left is not withdrawn",
        "A publish that lost a race is stored against the new base, and needs nobody to clean up first.",
        "rest/test_compression.py::test_a_lost_race_costs_no_publish[Way.COMPARE]",
        Edit("_Comparing.run", "self._draft.row is not None and not (", "False and not ("),
    ),
    mutant(
        "a record is not read back",
        "A manifest names a record only when it is there and permanent.",
        "rest/test_scriptless.py::test_a_record_that_may_expire_is_not_relied_on[Way.COMPARE]",
        Edit("Found.is_whole", "self.ttl == PERMANENT and", ""),
    ),
    mutant(
        "another's record is taken for ours",
        "An id keeps its content, also when two publish it at once.",
        search("COMPARE", "two producers, the same id, other content", "none"),
        Edit("Found.is_whole", "and self.has_header", ""),
    ),
    mutant(
        "what retention unlinks is adopted",
        "A record that is about to get a TTL is not committed again.",
        search("COMPARE", "a producer with retention, and one that publishes again", "none"),
        Edit("may_adopt", "is_other_line or", "True or"),
    ),
    mutant(
        "what retention by age unlinks is adopted",
        "A record that is about to get a TTL is not committed again.",
        "store/test_without_scripts.py::test_what_is_being_unlinked_is_not_published_again[age-Way.COMPARE]",
        Edit("may_adopt", "and draft.row.ts >= head.floor", ""),
    ),
    mutant(
        "an id in the log is adopted",
        "An id has one row.",
        "rest/test_scriptless.py::test_an_id_deep_in_the_history_is_still_taken[Way.COMPARE]",
        Edit("is_free", "(yield from find_id(ctx, draft.base, draft.row.id, hidden=True)) is None", "True"),
    ),
    mutant(
        "compare-and-set does not compare",
        "A commit that was built on an old version takes back a newer one.",
        search("COMPARE", "two producers, different ids", "none"),
        Edit(
            "_Comparing._swap",
            "CompareAndSet(key, base, draft.manifest.raw)",
            "Write(key, draft.manifest.raw)",
        ),
        Edit("_Comparing._swap", "not value_of(swapped)", "value_of(swapped)"),
    ),
    mutant(
        "the lease of another is ignored",
        "Under a lease one writer at a time swaps the manifest.",
        search("LEASE", "two producers, different ids", "none"),
        Edit("take", "holder == token and", ""),
    ),
    mutant(
        "a lease is released although a command may still arrive",
        "A late SET arrives while the lease is still held, so that no commit builds on what it takes back.",
        "rest/test_scriptless.py::test_a_lost_swap_keeps_its_lease_and_is_not_sent_again[Way.LEASE]",
        Edit(
            "UnderLease.send",
            "LeaseLost): raise",
            "LeaseLost):\n    yield from sending.release()\n    raise",
        ),
    ),
    mutant(
        "a lost SET is sent again",
        "The first may arrive after the second, and after what was built on it.",
        "rest/test_scriptless.py::test_a_lost_swap_keeps_its_lease_and_is_not_sent_again[Way.LEASE]",
        Edit("_Leasing._after_loss", "raise unknown(self._draft, error) from error", "return None"),
    ),
    mutant(
        "unlinked before the swap, without scripts",
        "A commit that loses the race unlinks nothing.",
        search("COMPARE", "a pruner and a producer", "none"),
        Edit("_Comparing.run", "outcome =", "yield from self._finish()\noutcome ="),
    ),
    mutant(
        "what was cut is taken for committed",
        "A repair never makes an uncommitted snapshot visible.",
        search("COMPARE", "a repairer of a lost manifest beside what a cut publish left", "none"),
        Edit("judge", "origin is not None and origin.pending", "False"),
    ),
    mutant(
        "records are deleted although a publish has claimed them",
        "What a commit may have begun to use is not deleted.",
        search("COMPARE", "a deletion of what a lost race left, and one that goes on with it", "none"),
        Edit("delete", "if not marked", "if False"),
    ),
    mutant(
        "records are used without a claim",
        "What a repair may be deleting is not committed.",
        search("COMPARE", "a deletion of what a lost race left, and one that goes on with it", "none"),
        Edit("_Comparing._use", "if not claimed or origin.is_reclaimed", "if origin.is_reclaimed"),
    ),
    mutant(
        "an equal publish relies on another's record",
        "What a publish takes back is its own, so nobody relies on it.",
        "rest/test_lost_races.py::test_an_equal_publish_keeps_the_record_that_it_took_over",
        Edit("_Comparing._use", "claiming =", "if is_live(origin, draft.base):\n    return []\nclaiming ="),
    ),
    mutant(
        "a record that was taken over is taken back",
        "A slow retry deletes no record of what the first attempt has committed.",
        "store/test_without_scripts.py::test_a_late_swap_of_an_equal_publish_keeps_its_record",
        Edit("_Comparing._established", "and not self._staging.is_taken_over(self._ts_key)", ""),
    ),
    mutant(
        "a refused publish leaves what it wrote",
        "A producer with an old manifest in memory leaves nothing behind when it is refused.",
        "rest/test_lost_races.py::test_a_publish_that_ends_without_a_commit_deletes_what_it_wrote[conflict]",
        Edit("_withdraw", "[*staging.claims(), *_surplus(ctx, staging, needed)]", "[]"),
    ),
    mutant(
        "a publish relies on the members of another attempt",
        "What a repair may be deleting is not committed with a group.",
        group_search("COMPARE", "a deletion of members, and their retry", "none"),
        Edit("_Comparing._write_members", "not is_of_attempt(each, attempt)", "False"),
    ),
    mutant(
        "members are deleted although their attempt may be committed",
        "A repair beside a publish of a group leaves its members.",
        group_search("COMPARE", "a deletion of members beside a publish", "none"),
        Edit("_unused", "_attempt_of(value, key) != alive", "True"),
    ),
    mutant(
        "members are sent for a commit that is too large",
        "A group whose commit an endpoint does not take is refused before anything is written.",
        "rest/test_groups.py::test_a_group_whose_commit_is_too_large_is_refused_before_anything_is_written[None]",
        Edit("_check_size", "size > limit", "False"),
    ),
    mutant(
        "what is unlinked stays pending",
        "A record that retention is unlinking is not committed again.",
        search(
            "COMPARE",
            "retention of a snapshot that is still pending, and one that publishes it again",
            "none",
        ),
        Edit("_Comparing._finish_unlinked", "if commands", "if False"),
    ),
    mutant(
        "a committed ts record stays pending",
        "A lost manifest is rebuilt with all that was committed.",
        "rest/test_scriptless.py::test_a_lost_manifest_is_rebuilt_from_what_was_committed[Way.COMPARE]",
        Edit("Sending._is_pending", "self._ts is not None and", "False and"),
    ),
    mutant(
        "a step is sent although the lease is about to run out",
        "Nothing that matters is sent unless the lease holds for longer than any request takes.",
        "rest/test_scriptless.py::test_a_step_is_not_sent_when_the_lease_is_about_to_run_out[manifest-Way.LEASE]",
        Edit("_refuse_if_late", "time.monotonic() >= batch.until", "False"),
    ),
    mutant(
        "a lost update under the lease is not noticed",
        "What is read back after the SET is compared.",
        "rest/test_scriptless.py::test_two_writers_beside_a_lease_are_noticed[Way.LEASE]",
        Edit("_Leasing._set", "replies[1:3] != [prefix, lease.token]", "False"),
    ),
    mutant(
        "a lease is kept after a refusal",
        "A publish that the store refused does not keep the next one waiting.",
        "rest/test_scriptless.py::test_a_refused_publish_gives_its_lease_back[Way.LEASE]",
        Edit("UnderLease.send", "yield from sending.release() raise", "raise"),
    ),
    # --- which committer
    mutant(
        "a store that compares nothing taken for one that does",
        "Where nothing commits safely, connecting is refused.",
        "rest/test_scriptless.py::test_connecting_without_any_way_to_commit_is_refused",
        Edit("Undecided._without_scripts", "if compares", "if True"),
    ),
    mutant(
        "a moment of trouble taken for a lack of scripts",
        "No plain SET takes back what a producer with scripts committed.",
        "rest/test_scriptless.py::test_a_temporary_error_is_not_a_lack_of_scripts[False]",
        Edit("Undecided._decide", "not isinstance(reply.error, Unscripted)", "False"),
        Edit(
            "_make_sure", "not (isinstance(reply, Failed) and isinstance(reply.error, Unscripted))", "False"
        ),
    ),
    mutant(
        "what a cut publish left taken for damage, where scripts run",
        "A producer with scripts is told that another publish of its id was cut.",
        "rest/test_scriptless.py::test_a_script_that_meets_a_cut_publish[Way.COMPARE]",
        Edit("Scripted.adopt", "not origin.pending", "True"),
    ),
    mutant(
        "an id kept although its record has another time",
        "A producer that loses the race publishes after the winner, without scripts too.",
        "rest/test_scriptless.py::test_a_publish_that_is_overtaken_comes_after_the_other[Way.COMPARE]",
        Edit(
            "ByCompareAndSet.adopt",
            "if (yield from reclaim(ctx, dataset, Left.by(entry)))",
            "if False",
        ),
    ),
    mutant(
        "the base of a publish in flight expires",
        "A repair beside a publish without scripts leaves the base that this is about to bring.",
        "fsck/test_scriptless_bases.py::test_a_base_that_a_publish_is_about_to_bring_is_left_to_it",
        Edit("_expire_bases", "current.version + (not apply)", "current.version + 1"),
    ),
    mutant(
        "a lost race binds the encoding",
        "A publish without scripts that loses a race is stored against another base.",
        "fsck/test_scriptless_bases.py::test_a_publish_that_loses_a_race_withdraws_its_base[1-ts1]",
        Edit(
            "_Comparing.run",
            "self._draft.row is not None and not (yield from self._withdraw_superseded(self._draft.row))",
            "False",
        ),
    ),
)
