"""Mistakes of a reader: it shows what was never committed, or what is outdated; and mistakes of its cache."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

RECORDS = "unit/test_records.py::test_"
READ = "store/test_read.py::test_"
STEER = "store/test_pins.py::test_"
CACHE = "unit/test_cache.py::test_"
LAST_GOOD = "store/test_last_good.py::test_"
REPLICAS = "store/test_replicas.py::test_"

MUTANTS = (
    mutant(
        "members of a group found by its id alone",
        "What a publish that was cut short has left under an id is no member of the group that follows.",
        "store/test_groups.py::test_what_a_cut_publish_left_is_taken_over[sqlite]",
        Edit("group_name", "{sha256[:8]}", "00000000"),
    ),
    # --- values of the reader's own type
    mutant(
        "a type that is named is not decoded to",
        "A read with a type returns a value of that type, or raises.",
        "store/test_typed_reads.py::test_every_read_takes_a_type[sqlite-read_latest]",
        Edit("_typed", "found.value_as(kind)", "found.value"),
    ),
    mutant(
        "the message of a misfit quotes the data",
        "No error shows the data.",
        "unit/test_decoders.py::test_what_does_not_fit_is_named_by_its_place",
        Edit("_Msgspec.__call__", '_QUOTING.sub(r"\\1", reason)', "reason"),
    ),
    mutant(
        "damage is taken for a misfit",
        "What is not what was written is reported as damage.",
        "unit/test_decoders.py::test_what_is_not_json_is_damage_and_no_mismatch",
        Edit("_attempt", 'codecs.decode(raw, "json")', "pass"),
    ),
    # --- what replicas show
    mutant(
        "a replica's older version is believed",
        "A client never goes back in time, also when it reads from replicas.",
        REPLICAS + "what_a_client_has_published_it_reads",
        Edit("_goes_on", "known.version <= found.version", "True"),
    ),
    mutant(
        "another epoch of a replica is believed",
        "What was there before a flush does not come back.",
        REPLICAS + "the_past_of_another_epoch",
        Edit("_goes_on", "known.epoch == found.epoch", "True"),
    ),
    mutant(
        "what is gone may be shown by a replica",
        "What the primary does not have any more is not shown by a replica that lags.",
        REPLICAS + "nothing_is_there_any_more",
        Edit("Cache.must_ask_primary", "key in self._only_primary", "False"),
    ),
    mutant(
        "what a replica lacks is not there",
        "A replica that lags proves nothing.",
        REPLICAS + "keys_that_are_missing_or_damaged_on_a_replica[gone-:id:-read_latest]",
        Edit("_ask_a_replica", "or reply in _NOTHING", ""),
    ),
    # --- what is served in an outage
    mutant(
        "what is kept for an outage is not replaced",
        "What is served in an outage is never older than what was served before.",
        LAST_GOOD + "it_is_never_older_than_what_another_read_has_shown[read_latest-0]",
        Edit("_replace_kept", "good.snapshot.etag != found.etag", "False"),
    ),
    mutant(
        "a late answer is kept for an outage",
        "What is served in an outage is never older than what was served before.",
        LAST_GOOD + "a_late_answer_does_not_replace_a_newer_one",
        Edit("Cache.keep_good", "known.manifest.etag == found.etag", "True"),
    ),
    mutant(
        "what this client has changed is served in an outage",
        "A snapshot that this client has erased or rolled back is not served again.",
        LAST_GOOD + "what_this_client_has_changed_is_not_undone_by_an_outage[erase]",
        Edit("Cache.changed", "not _is_served(good.snapshot, known.manifest)", "False"),
    ),
    mutant(
        "each caller tries whether an outage is over",
        "While an outage lasts, one caller at a time waits for the store.",
        LAST_GOOD + "one_caller_at_a_time_tries_and_the_others_are_served_at_once",
        Edit("Outages.tried", "attempt is None or attempt.until < now", "True"),
    ),
    mutant(
        "a publish is kept for an outage though another snapshot is served",
        "What is served in an outage is what the store served.",
        LAST_GOOD + "what_this_client_has_published_is_not_what_is_served",
        Edit("keep_published", "(row.id, row.sha256) == (commit.id, commit.sha256)", "True"),
    ),
    mutant(
        "what is polled is dropped for an outage",
        "What was seen within the bound is served in an outage.",
        LAST_GOOD + "what_is_read_again_and_again_makes_no_room_and_holds_up_nothing",
        Edit("Cache._make_room", "            self._note_seen(key)\n", ""),
    ),
    # --- what a history is asked for
    mutant(
        "pages outside the times are read",
        "An hour out of a long history takes a few round trips.",
        "store/test_asked_history.py::test_times_skip_the_pages_around_them[5000-5010-expected0]",
        Edit("Filter.opens", "ref.max_ts >= self.since", "True"),
    ),
    mutant(
        "until is in the period",
        "A snapshot is in one of two periods that follow each other.",
        "store/test_asked_history.py::test_labels_and_times_choose_rows[sqlite]",
        Edit("Filter.takes", "row.ts < self.until", "row.ts <= self.until"),
    ),
    mutant(
        "a history ends at the first pages without a wanted row",
        "A search goes on until it has found as many rows as it was asked for.",
        "store/test_asked_history.py::test_a_rare_row_is_found_however_far_back",
        Edit("History._walk", "cursor if refs else None", "cursor if refs and rows else None"),
    ),
    # --- what is read
    mutant(
        "reader skips the digest",
        "A reader never gets bytes that were not published.",
        RECORDS + "one_altered_payload_byte_is_corrupt[0]",
        Edit("check_body", "or digest(body) != sha256", ""),
    ),
    mutant(
        "reader skips the header comparison",
        "The record under an id is the one that the manifest committed.",
        RECORDS + "another_entry_is_corrupt[change0]",
        Edit("held", "entry_fields(found.row) != entry_fields(row)", "False"),
    ),
    mutant(
        "an id resolved past the manifest",
        "A record that was staged and never committed is not there.",
        READ + "a_staged_record_is_not_found[sqlite]",
        Edit(
            "find_id",
            "query =",
            'named = {f: getattr(entry, f) for f in ("id", "ts", "size", "sha256", "codec", "labels")}\n'
            "return Row(**named, version=head.version, committed_at=head.committed_at)\n"
            "query =",
        ),
    ),
    mutant(
        "a missing payload is None",
        "None means one thing: nothing is published. An evicted payload is an error.",
        "store/test_damage.py::test_a_deleted_payload_is_missing_and_not_nothing[sqlite]",
        Edit("through_manifest", "None if manifest is None else (yield from view(manifest))", "None"),
    ),
    mutant(
        "an unreachable store is None",
        "None means one thing: nothing is published. A store that cannot be reached is an error.",
        "real/test_sqlite.py::test_paths_that_cannot_be_opened",
        Edit("_ask_once", "except ReplyLost: return None", "except Exception:\n    return Served(None)"),
    ),
    mutant(
        "no second look when a record is missing",
        "A payload that a replica shows a moment later than its manifest is not called lost.",
        "store/test_read.py::test_a_record_that_arrives_late_is_read_all_the_same[sqlite]",
        Edit("through_manifest", "yield Wait(ctx.backoff(attempt))", "raise"),
    ),
    mutant(
        "a store that refuses is asked in the same way again",
        "Where no script may run, each first read does not cost another round trip.",
        "store/test_first_read.py::test_without_scripts_the_manifest_is_read_by_itself[sqlite]",
        Edit(
            "current_served",
            "ctx.capabilities.serves = passing",
            "pass",
        ),
    ),
    mutant(
        "damage of one dataset taken for a lack of scripts",
        "One damaged key does not cost the readers of other datasets a round trip.",
        "store/test_first_read.py::test_damage_of_one_dataset_says_nothing_about_the_others[sqlite]",
        Edit(
            "current_served",
            "isinstance(served, Failed) and (served.again or isinstance(served.error, Damaged))",
            "False",
        ),
    ),
    # --- going back in time
    mutant(
        "a warm reader does not ask",
        "Without `max_staleness` a reader sees a new version at once.",
        READ + "a_warm_reader_sees_a_new_version_at_once[sqlite]",
        Edit("current_head", "peeked.startswith(manifest.prefix(known.manifest.etag))", "True"),
    ),
    mutant(
        "a late reply replaces what is newer",
        "What one thread read before a flush does not replace what another has read since.",
        "store/test_memory.py::test_a_late_reply_replaces_nothing_newer[False-since-warm]",
        Edit(
            "current_head",
            "ctx.cache.learn(found, read_at, basis=known)",
            "ctx.cache.learn(found, read_at, basis=ctx.cache.known(key))",
        ),
    ),
    mutant(
        "following a replica back in time",
        "Within one client a read never shows an older version than the one before.",
        "store/test_memory.py::test_a_lagging_replica_does_not_take_a_client_back_in_time[sqlite-2]",
        Edit("load_manifest", "known is None", "True"),
    ),
    mutant(
        "following a replica back in time (the header)",
        "Within one client a read never shows an older version than the one before.",
        "store/test_memory.py::test_a_lagging_replica_does_not_take_a_client_back_in_time[sqlite-1]",
        Edit("current_head", "or cache.is_newer(known.manifest, found)", ""),
    ),
    mutant(
        "a stale manifest replaces a newer one in memory",
        "A late reply in one thread does not take another back in time.",
        CACHE + "an_older_manifest_does_not_replace_a_newer_one",
        Edit("Cache.learn", "or is_newer(known.manifest, manifest)", ""),
    ),
    mutant(
        "an old epoch comes back into memory",
        "A slow thread does not bring back what was there before a flush.",
        CACHE + "another_epoch_counts_only_if_nothing_newer_was_learned",
        Edit("Cache.learn", "known.manifest.epoch != manifest.epoch or", ""),
    ),
    mutant(
        "records remembered by id alone",
        "After a flush the same id with other content is read from the store.",
        CACHE + "a_record_is_cached_by_its_digest",
        Edit(
            "Cache._get",
            "self._records.get(name)",
            "next((v for k, v in self._records.items() if k[0] == name[0]), None)",
        ),
        Edit("Cache._get", "self._records.move_to_end(name)", "pass"),
    ),
    mutant(
        "pages remembered after the store went back",
        "After a restored backup the name of a page may stand for other rows: none is served from memory.",
        CACHE + "a_restored_store_is_followed_and_its_pages_are_forgotten",
        Edit("Cache.learn", "self._drop_records()", "pass"),
    ),
    # --- max_staleness
    mutant(
        "max_staleness ignored",
        "Within the bound a reader is served from memory.",
        READ + "within_max_staleness_nothing_is_asked[sqlite]",
        Edit("remembered", "max_staleness_s <= 0", "True"),
    ),
    mutant(
        "max_staleness unbounded",
        "Beyond the bound a reader looks again.",
        "store/test_memory.py::test_max_staleness_is_a_bound",
        Edit("remembered", "ctx.clock.monotonic() - known.read_at > max_staleness_s", "False"),
    ),
    mutant(
        "age counted from the reply (warm)",
        "What a slow reply shows is as old as its request.",
        "store/test_memory.py::test_a_slow_reply_is_as_old_as_its_request[warm]",
        Edit("current_head", "touch(known, read_at)", "touch(known, ctx.clock.monotonic())"),
    ),
    mutant(
        "age counted from the reply (cold)",
        "What a slow reply shows is as old as its request.",
        "store/test_memory.py::test_a_slow_reply_is_as_old_as_its_request[cold]",
        Edit("current_served", "learn(found, read_at", "learn(found, ctx.clock.monotonic()"),
    ),
    # --- the live view
    mutant(
        "live view not removed, binding not checked",
        "A view computed on one version is never shown for another.",
        STEER + "a_live_view_is_shown_while_its_version_is_current[sqlite]",
        Edit("commit", "gone = [commit.live_key]", "gone: list[str] = []"),
        Edit("read_live", "if stored.startswith(manifest.prefix(view.etag)) else None", ""),
    ),
    mutant(
        "live view: binding not checked",
        "A late view of an old version stays hidden.",
        STEER + "a_late_live_view_of_an_old_version_stays_hidden[sqlite]",
        Edit("read_live", "if stored.startswith(manifest.prefix(view.etag)) else None", ""),
    ),
    mutant(
        "live view bound to the newest version",
        "A view is bound to the version it can have been computed on.",
        STEER + "a_late_live_view_of_an_old_version_stays_hidden[sqlite]",
        Edit("put_live", "known.manifest if known else", ""),
    ),
    # --- shared loads
    mutant(
        "a thread that loads waits for other loads",
        "A listener, a signal handler or a finalizer that reads does not wait for its own read.",
        "store/test_shared_loads.py::test_listeners_of_two_stores_may_read_from_each_other[sqlite]",
        Edit("SingleFlight.share", "me in busy.threads", "False"),
    ),
    mutant(
        "an interrupted load wakes nobody",
        "Ctrl-C in the thread that loads for others leaves none of them waiting.",
        "store/test_shared_loads.py::test_an_interrupt_at_any_line_leaves_nobody_waiting[leads]",
        Edit("SingleFlight._shared", "finally: self._land(key, mine)", "finally:\n    pass"),
        Edit("SingleFlight._load", "finally: self._land(key, mine)", "finally:\n    pass"),
    ),
    mutant(
        "a load can be joined after it has begun",
        "A read sees what was published before it began.",
        "store/test_single_flight.py::test_a_reader_is_not_answered_by_a_load_that_began_before_it[sqlite]",
        Edit("_begin", "mine.begun = True", "pass"),
    ),
)
