"""Mistakes of a reader: what it shows that nobody committed, or that is over; and of what it remembers."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

RECORDS = "unit/test_records.py::test_"
READ = "store/test_read.py::test_"
STEER = "store/test_steer.py::test_"
CACHE = "unit/test_cache.py::test_"
GAPS = "mutants/test_gaps.py::test_"
STEPS = "operations/steps.py"

MUTANTS = (
    # --- what is read
    mutant(
        "reader skips the digest",
        "A reader never gets bytes that nobody published.",
        RECORDS + "one_altered_payload_byte_is_corrupt[0]",
        Edit("records.py", "if len(body) != size or digest(body) != sha256:", "if len(body) != size:"),
    ),
    mutant(
        "reader skips the header comparison",
        "The record under an id is the one that the manifest committed.",
        RECORDS + "another_entry_is_corrupt[change0]",
        Edit("records.py", "if entry_fields(entry) != entry_fields(row):", "if False:"),
    ),
    mutant(
        "an id resolved past the manifest",
        "A record that was staged and never committed is not there.",
        READ + "a_staged_record_is_not_there[sqlite]",
        Edit(
            "operations/lookup.py",
            "    query = search.ById(id, entry.ts)\n",
            "    named = {f: getattr(entry, f) for f in ('id', 'ts', 'size', 'sha256', 'codec', 'labels')}\n"
            "    return Row(**named, version=head.version, committed_at=head.committed_at)\n",
        ),
    ),
    mutant(
        "a missing payload is None",
        "None means one thing: nothing is published. An evicted payload is an error.",
        "store/test_damage.py::test_a_deleted_payload_is_missing_and_not_nothing[sqlite]",
        Edit(
            "operations/read.py",
            "    return None if manifest is None else (yield from view(manifest))\n",
            "    return None\n",
        ),
    ),
    mutant(
        "an unreachable store is None",
        "None means one thing: nothing is published. A store that cannot be reached is an error.",
        "real/test_sqlite.py::test_paths_that_cannot_be_opened",
        Edit(
            STEPS,
            "    except ReplyLost:\n        served = None\n",
            "    except Exception:\n        return None\n",
        ),
    ),
    mutant(
        "no second look when a record is missing",
        "A payload that a replica shows a moment later than its manifest is not called lost.",
        GAPS + "a_record_that_arrives_late_is_read_all_the_same[sqlite]",
        Edit(
            "operations/read.py",
            "            yield Wait(ctx.backoff(attempt))\n            manifest = yield",
            "            raise\n            manifest = yield",
        ),
    ),
    # --- going back in time
    mutant(
        "a warm reader does not ask",
        "A new version is seen at once by who did not ask for less.",
        READ + "a_warm_reader_sees_a_new_version_at_once[sqlite]",
        Edit(STEPS, "    if peeked.startswith(manifest.prefix(known.manifest.etag)):\n", "    if True:\n"),
    ),
    mutant(
        "following a replica back in time",
        "Within one client a read never shows an older version than the one before.",
        GAPS + "a_lagging_replica_does_not_take_a_client_back_in_time[sqlite-2]",
        Edit(
            STEPS,
            "if known is None or (found is not None and not cache.is_newer(known.manifest, found)):",
            "if True:",
        ),
    ),
    mutant(
        "following a replica back in time (the header)",
        "Within one client a read never shows an older version than the one before.",
        GAPS + "a_lagging_replica_does_not_take_a_client_back_in_time[sqlite-1]",
        Edit(STEPS, "if found is None or cache.is_newer(known.manifest, found):", "if found is None:"),
    ),
    mutant(
        "a stale manifest replaces a newer one in memory",
        "A late reply in one thread does not take another back in time.",
        CACHE + "an_older_manifest_does_not_replace_a_newer_one",
        Edit(
            "cache.py",
            "if known.manifest.epoch != manifest.epoch or is_newer(known.manifest, manifest):",
            "if known.manifest.epoch != manifest.epoch:",
        ),
    ),
    mutant(
        "an old epoch comes back into memory",
        "A slow thread does not bring back what was there before a flush.",
        CACHE + "another_epoch_counts_only_if_nothing_was_learned_meanwhile",
        Edit(
            "cache.py",
            "if known.manifest.epoch != manifest.epoch or is_newer(known.manifest, manifest):",
            "if is_newer(known.manifest, manifest):",
        ),
    ),
    mutant(
        "records remembered by id alone",
        "After a flush the same id with other content is read anew.",
        CACHE + "a_record_is_remembered_by_its_digest",
        Edit(
            "cache.py",
            "            found = self._records.get((key, sha256))\n",
            "            found = next((v for k, v in self._records.items() if k[0] == key), None)\n",
        ),
        Edit(
            "cache.py", "                self._records.move_to_end((key, sha256))\n", "                pass\n"
        ),
    ),
    mutant(
        "pages remembered after the store went back",
        "After a restored backup the name of a page may stand for other rows: none is served from memory.",
        CACHE + "a_store_that_went_back_is_followed_and_its_pages_forgotten",
        Edit(
            "cache.py",
            "                self._drop_records()\n            self._manifests[",
            "            self._manifests[",
        ),
    ),
    # --- max_staleness
    mutant(
        "max_staleness ignored",
        "Within the bound a reader is served from memory.",
        READ + "within_max_staleness_nothing_is_asked[sqlite]",
        Edit("operations/read.py", "    if max_staleness_s <= 0:\n", "    if True:\n"),
    ),
    mutant(
        "max_staleness unbounded",
        "Beyond the bound a reader looks again.",
        GAPS + "max_staleness_is_a_bound",
        Edit("operations/read.py", "ctx.clock.monotonic() - known.read_at > max_staleness_s:", "False:"),
    ),
    mutant(
        "age counted from the reply (warm)",
        "What a slow reply showed is as old as the question.",
        GAPS + "a_slow_reply_is_as_old_as_its_question[warm]",
        Edit(
            STEPS,
            "        ctx.cache.touch(known, read_at)\n        return",
            "        ctx.cache.touch(known, ctx.clock.monotonic())\n        return",
        ),
    ),
    mutant(
        "age counted from the reply (cold)",
        "What a slow reply showed is as old as the question.",
        GAPS + "a_slow_reply_is_as_old_as_its_question[cold]",
        Edit(
            STEPS,
            "ctx.cache.learn(found, read_at, basis=None, retreat=True)",
            "ctx.cache.learn(found, ctx.clock.monotonic(), basis=None, retreat=True)",
        ),
    ),
    # --- the live view
    mutant(
        "live view not removed, binding not checked",
        "A view computed on one version is never shown for another.",
        STEER + "a_live_view_is_shown_while_its_version_is_current[sqlite]",
        Edit(
            "drivers/sqlite_commands.py",
            '    connection.execute("DELETE FROM records WHERE key = ?", (commit.live_key,))\n',
            "",
        ),
        Edit(
            "operations/live.py",
            "return view if stored.startswith(manifest.prefix(view.etag)) else None",
            "return view",
        ),
    ),
    mutant(
        "live view: binding not checked",
        "A late view of an old version stays hidden.",
        STEER + "a_late_live_view_of_an_old_version_stays_hidden[sqlite]",
        Edit(
            "operations/live.py",
            "return view if stored.startswith(manifest.prefix(view.etag)) else None",
            "return view",
        ),
    ),
    mutant(
        "live view bound to the newest version",
        "A view is bound to the version it can have been computed on.",
        STEER + "a_late_live_view_of_an_old_version_stays_hidden[sqlite]",
        Edit("operations/live.py", "seen = known.manifest if known else (yield from", "seen = (yield from"),
    ),
)
