"""Mistakes of a producer: what it makes of replies, of lost replies, and of what it remembers."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

OUTCOMES = "store/test_outcomes.py::test_"
PUBLISH = "store/test_publish.py::test_"
DURABILITY = "store/test_durability.py::test_"

MUTANTS = (
    mutant(
        "a base is relied on that the store has lost",
        "What is acknowledged can be read: a publish relies on no copy of a base that is gone.",
        "store/test_compression.py::test_publishing_goes_on_when_the_base_in_force_is_lost[sqlite-deleted-True]",
        Edit("_base_records", "name is None", "True"),
    ),
    # --- several datasets, each with options of its own
    mutant(
        "a bad option of one dataset is found after the others are published",
        "An option that cannot be used is refused before anything is written to any dataset.",
        "batching/test_items.py::test_an_item_that_cannot_be_used_is_refused_before_anything_is_written[sqlite-id]",
        Edit("Calls._items", "error.dataset = name if type(value) is Item else None\nraise", "pass"),
    ),
    mutant(
        "a run published from memory",
        "Whether a run is published is asked of the store, not of what this client remembers.",
        "store/test_published.py::test_what_others_published_since_is_seen[sqlite]",
        Edit(
            "published",
            "return (yield",
            "if known := _remembered(ctx, dataset):\n    return (yield from view(known))\nreturn (yield",
        ),
    ),
    # --- replies
    mutant(
        "Mismatch taken for committed",
        "A producer that loses the race publishes after the winner, and is not told that it has committed.",
        OUTCOMES + "a_conflict_is_rebuilt_on_the_current_manifest[sqlite]",
        Edit("Scripted.send", "return Moved(current)", "return Swapped()"),
    ),
    mutant(
        "a refused commit taken for committed",
        "Every reply of a batch is checked: a refused commit is an error.",
        OUTCOMES + "a_refused_command_is_an_error_whatever_its_neighbours_say[sqlite-2]",
        Edit("Scripted.send", "raise refusal or error", "return Swapped()"),
    ),
    mutant(
        "an unknown outcome told as nothing published",
        "An error never says that nothing was published when the commit may have arrived.",
        OUTCOMES + "a_store_that_does_not_tell_the_outcome_after_a_lost_reply[sqlite-AccessDenied]",
        Edit("about.__exit__", "not isinstance(error, OutcomeUnknown | LeaseLost | UnderReplicated)", "True"),
    ),
    mutant(
        "a refused record not checked",
        "Every reply of a batch is checked: a payload that the store refused is an error that says why.",
        OUTCOMES + "a_refused_command_is_an_error_whatever_its_neighbours_say[sqlite-1]",
        Edit("Staging.note", "failure = failure or reply.error", "pass"),
    ),
    mutant(
        "a staged record that vanished is not staged again",
        "A record that expired before the commit is sent again, and the publish goes on.",
        OUTCOMES + "a_record_that_vanished_is_staged_again[sqlite]",
        Edit("Staging.missed", "self._staged.pop(unstaged.key, None)", "pass"),
    ),
    mutant(
        "a dead producer blocks its id",
        "What a crashed producer staged is taken over.",
        OUTCOMES + "a_crashed_producers_record_is_taken_over[sqlite]",
        Edit("Staging.missed", "self._taken_over.add(unstaged.key)", "pass"),
    ),
    # --- lost replies
    mutant(
        "a lost reply taken for success",
        "A publish that never arrived is not acknowledged.",
        OUTCOMES + "a_lost_commit_is_sent_again_with_the_same_bytes[sqlite]",
        Edit("commit", "lost, losses = error, losses + 1", "return Swapped()"),
    ),
    mutant(
        "a lost reply taken for failure",
        "A publish that was applied is acknowledged although its reply was lost.",
        OUTCOMES + "a_lost_reply_of_an_applied_commit_is_one_commit[sqlite]",
        Edit("commit", "lost, losses = error, losses + 1", "raise"),
    ),
    mutant(
        "a lost commit retried blindly",
        "After a lost reply the manifest is read before anything is sent again.",
        OUTCOMES + "a_lost_reply_of_an_applied_commit_is_one_commit[sqlite]",
        Edit("commit", "current = yield from ask_after_loss(ctx, draft, error)", "continue"),
    ),
    mutant(
        "a lost commit retried with new bytes",
        "The same bytes are sent again, so that a delayed first send cannot count as well.",
        OUTCOMES + "a_lost_commit_is_sent_again_with_the_same_bytes[sqlite]",
        Edit("resolve", "base.etag: return None", "base.etag:\n    return Moved(current)"),
    ),
    mutant(
        "another's row of version n+1 taken for ours",
        "A lost publish that another overtook is not acknowledged; it is tried again.",
        "store/test_lost_replies.py::test_a_lost_commit_that_several_overtook_is_rebuilt[sqlite-2]",
        Edit("resolve", "and row == draft.row", ""),
    ),
    mutant(
        "a row in a page is not looked for",
        "The outcome of a lost commit is resolved, however many others have committed since.",
        OUTCOMES + "a_lost_reply_is_resolved_under_any_number_of_later_versions[sqlite-70]",
        Edit("resolve", "if row is None: row = yield from", "if False: row = yield from"),
    ),
    mutant(
        "guessing when version n+1 was pruned",
        "If nothing shows whether it committed, the outcome is unknown, and the producer is told so.",
        OUTCOMES + "a_pruned_row_after_a_lost_reply_is_outcome_unknown[sqlite]",
        Edit("_may_be_gone", "not head.shows(row)", "False"),
    ),
    mutant(
        "what was dropped counts as committed",
        "An id that was dropped can be published again at once.",
        "erase/test_drop.py::test_a_producer_goes_on_at_once[sqlite-none-0]",
        Edit("_owner_of", "row.version <= base.head.dropped", "False"),
    ),
    mutant(
        "what is erased has its ten minutes",
        "When erase returns, no key has anything of the snapshot.",
        "erase/test_erase.py::test_nothing_of_it_is_left_and_nothing_else_changes[sqlite-none]",
        Edit("_Erase._anew", "grace_ms=0", "grace_ms=None"),
    ),
    mutant(
        "guessing the outcome of a pin",
        "A pin whose reply was lost is not silently done twice.",
        "store/test_pins.py::test_a_pin_with_an_unknown_outcome_says_so[sqlite]",
        Edit("_may_be_gone", "return True", "return False"),
    ),
    mutant(
        "a refusal after a lost reply is called final",
        "While the first send may still arrive, a refusal does not mean that nothing was committed.",
        OUTCOMES + "a_refusal_after_a_lost_reply_is_outcome_unknown[sqlite]",
        Edit("_for_a_full_store", "if lost is None", "if True"),
    ),
    mutant(
        "a full store grows past its limit",
        "A publish that needs more memory than it frees is refused by a full server.",
        "real/test_full_store.py::test_a_publish_that_would_grow_the_store_is_refused_whole[100]",
        Edit("Draft.frees_as_much", "self.adds_bytes <= self.freed_bytes", "True"),
    ),
    mutant(
        "a full store takes what retention makes up for some day",
        "A dataset that still grows does not make a full server pass its limit.",
        "retention/test_full_store.py::test_a_dataset_that_still_grows_is_refused[retention1]",
        Edit("append", "0 < ahead <= manifest.F", "ahead <= manifest.F"),
    ),
    mutant(
        "a full store takes growing snapshots",
        "Snapshots that become larger do not make a full server pass its limit.",
        "retention/test_full_store.py::test_sizes_that_vary_are_taken_and_growth_is_not",
        Edit("_is_made_up_for", "return draft.adds_bytes * len(sizes) <=", "return 0 <="),
    ),
    mutant(
        "a full store counts no members",
        "Groups whose members become larger do not make a full server pass its limit.",
        "retention/test_full_store.py::test_groups_are_counted_with_their_members",
        Edit("Draft.adds_bytes", "self.added_bytes + ", ""),
    ),
    mutant(
        "an erase that forgets how many need a base",
        "An erase that is cut after any of its swaps has lost no snapshot that was stored as a difference.",
        "erase/test_erase.py::test_a_base_that_more_snapshots_need_than_one_swap_stores_anew",
        Edit("_Erase._next", "ROWS_A_SWAP + 2", "ROWS_A_SWAP"),
    ),
    mutant(
        "a full store takes only what frees as much at once",
        "A producer whose retention keeps the store at its size goes on when the store is full.",
        "retention/test_full_store.py::test_a_producer_that_keeps_so_many_goes_on[1-0-False]",
        Edit("_for_a_full_store", "or (yield from _is_made_up_for(ctx, draft))", ""),
    ),
    mutant(
        "a refused commit resolved as if its reply had been lost",
        "One publish creates a version: a producer that was refused is told who created it.",
        "store/test_races.py::test_a_version_is_created_by_one_producer",
        Edit("resolve", "lost is None or", ""),
    ),
    # --- ids, dedupe, expected_version, validate
    mutant(
        "same id, other content: success",
        "An id names one content permanently.",
        PUBLISH + "an_id_keeps_its_content[sqlite-change0]",
        Edit("_existing", "not this.is_content_of(row)", "False"),
    ),
    mutant(
        "a retry of a lost snapshot is a success",
        "An id whose payload is gone is not called published already.",
        "store/test_damage.py::test_a_retry_of_a_lost_snapshot_is_not_called_a_success[sqlite]",
        Edit("_existing", "yield from snapshot_at(ctx, base, row)", "yield from ()"),
    ),
    mutant(
        "dedupe answered from memory",
        "After the store was flushed a producer's next publish is not refused as a duplicate.",
        PUBLISH + "dedupe_is_not_decided_from_the_cache[sqlite]",
        Edit("publish", "is_stopped = existing is not None", "is_stopped = False"),
    ),
    mutant(
        "dedupe decided before the commit only",
        "Two producers with one dedupe key at once make one commit.",
        OUTCOMES + "the_same_dedupe_key_from_two_producers_is_one_commit[sqlite]",
        Edit(
            "_decide",
            "base is not None and this.wanted.dedupe_key is not None",
            "is_first and base is not None and this.wanted.dedupe_key is not None",
        ),
    ),
    mutant(
        "dedupe marked before the commit",
        "A publish that failed never blocks its own retry.",
        "store/test_guards.py::test_a_publish_that_died_does_not_block_its_dedupe_key[sqlite]",
        Edit(
            "_decide",
            "try:",
            "if base and this.wanted.dedupe_key is not None:\n"
            "    from swapstore.commands import Stage\n"
            "    from swapstore.protocol.operation import Batch\n"
            '    guard = Stage(f"guard:{this.wanted.dedupe_key}", this.id.encode(), 600_000)\n'
            "    (free,) = yield Batch((guard,))\n"
            "    if not free:\n"
            "        return _known(base, base.head.latest)\n"
            "try:",
        ),
    ),
    mutant(
        "expected_version checked before the race only",
        "A producer that read version n does not publish over a version n+1 it never saw.",
        "store/test_guards.py::test_expected_version_is_checked_again_after_a_lost_race[sqlite]",
        Edit("_decide", "_check_version(this, base)", "if is_first:\n    _check_version(this, base)"),
    ),
    mutant(
        "expected_version refused from memory",
        "A producer is refused for what the store holds, not for what it remembers.",
        PUBLISH + "expected_version_holds_or_conflicts[sqlite]",
        Edit("publish", "if not from_memory", "if True"),
    ),
    mutant(
        "validated before the race only",
        "The candidate is compared with the snapshot that it really follows.",
        "store/test_guards.py::test_validate_is_asked_again_after_a_lost_race[sqlite]",
        Edit(
            "_decide",
            "yield from validated(ctx, this, base)",
            "if is_first:\n    yield from validated(ctx, this, base)",
        ),
    ),
    mutant(
        "sealed pages not shared",
        "A page that a cut commit made permanent does not block every later publish.",
        "store/test_crashes.py::test_a_page_that_a_cut_commit_left_behind_blocks_nobody",
        Edit("_records", "page.record, shared=True", "page.record, shared=False"),
    ),
    mutant(
        "expiring the previous latest",
        "An acknowledged publish stays readable until retention or an operator removes it.",
        "store/test_crashes.py::test_a_crash_at_any_command_leaves_the_previous_version[sqlite-0]",
        Edit(
            "_swap",
            "unlinked=draft.unlinked",
            "unlinked=(ctx.keys.id(draft.base.head.dataset, draft.base.head.latest.id),)\n"
            "if draft.base else ()",
        ),
    ),
    # --- turns
    mutant(
        "publishes of one dataset do not queue",
        "Producers of one process do not race for each version.",
        "store/test_turns.py::test_every_swap_takes_its_turn[sqlite-publish]",
        Edit("Calls._publish", "yield Turn((name,))", "pass"),
    ),
    mutant(
        "a validator waits for its own publish",
        "A validator may publish to the dataset that it validates.",
        "store/test_turns.py::test_a_validator_may_swap_the_same_dataset[sqlite-publish]",
        Edit("Place.wait", "me in busy.threads", "False"),
    ),
    # --- content
    mutant(
        "a datetime without a time zone is taken for UTC",
        "What would have to be guessed is refused.",
        "typed/test_published_values.py::test_what_is_refused_is_named_with_what_to_write",
        Edit("_moment", "offset = item.utcoffset()", "offset = item.utcoffset() or dt.timedelta(0)"),
    ),
    mutant(
        "codecs are not part of the content",
        "The same bytes under another codec are other content: a reader would decode them otherwise.",
        "store/test_same_content.py::test_other_content_under_a_committed_id_is_a_conflict[sqlite-in_the_tail]",
        Edit("Intent.is_content_of", "len(wanted.payload), wanted.codec,", "len(wanted.payload), row.codec,"),
    ),
    mutant(
        "what is encoded is not what was checked",
        "NaN that another thread sets during a publish is never stored as null.",
        "unit/test_codecs.py::test_a_part_that_changes_after_it_was_checked",
        Edit("_Walk._checked", "parts = item.copy()", "parts = item"),
    ),
    mutant(
        "a long table may hold NaN",
        "NaN in one cell of many is refused like any other, and never stored as null.",
        "unit/test_codecs.py::test_a_table_is_refused_for_one_cell",
        Edit("_Walk._are_rows", "if type(leaf) is float", "if False"),
    ),
    # --- durability
    mutant(
        "a commit on too few replicas acknowledged",
        "A publish that asks for two replicas is not acknowledged while one has it.",
        DURABILITY + "too_few_replicas",
        Edit("_enough", "replicas >= durability.replicas", "True"),
    ),
    mutant(
        "an earlier commit waited for behind reads alone",
        "An id published again waits for its commit, although this connection has written nothing.",
        DURABILITY + "the_same_id_again_waits_for_what_was_committed_before",
        Edit("_wait_again", 'mark = Put(ctx.keys.mark(commit.dataset), b"", MARK_TTL_MS)', "mark = Get(key)"),
    ),
    mutant(
        "a wait sent again without its commit",
        "After a demotion, the new primary is not asked about a connection that has written nothing.",
        "unit/test_recovery.py::test_a_wait_is_sent_again_only_with_the_write_before_it",
        Edit("_is_done", "return i > 0 and _is_done(commands, replies, i - 1)", "return False"),
    ),
    mutant(
        "a commit that a failover has undone acknowledged",
        "A commit that the new primary does not have is published again.",
        DURABILITY + "a_failover_that_undoes_the_commit_publishes_it_again",
        Edit("_wait_again", "if not (yield from _has(ctx, value_of(raw), commit)):", "if False:"),
    ),
    mutant(
        "a durability that cannot be had found out too late",
        "A server that cannot wait is told before anything is written.",
        DURABILITY + "a_server_that_lacks_the_command_is_told_before_anything_is_written",
        Edit("Calls._publish", "yield from require(ctx, ctx.durability)", "pass"),
    ),
    mutant(
        "an undone commit taken for a hidden one",
        "A commit that a failover has undone is published again, whatever retention hides since.",
        DURABILITY + "a_commit_that_was_undone_before_retention_could_hide_it",
        Edit("_has", "is_hidden and current.version > commit.version", "is_hidden"),
    ),
    mutant(
        "a commit that was not sent taken for a lost one",
        "Of what shares a call, only what was sent can have an unknown outcome.",
        "batching/test_batches.py::test_what_was_not_sent_is_not_lost",
        Edit("_unsent", "isinstance(failure, ReplyLost) and not _only_reads(member)", "False"),
    ),
    mutant(
        "a commit that was carried out before counts as waited for",
        "A commit that a former send has carried out is waited for behind a write of this connection.",
        "exploration/test_explore.py::test_every_state_of_publishes_that_wait_keeps_the_promises"
        "[one producer-one late command]",
        Edit("Scripted.send", "waited and isinstance(reply, Committed)", "waited"),
    ),
)
