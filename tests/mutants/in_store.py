"""Mistakes on the store's side: in the Lua scripts, in the SQLite driver, in the simulated keyspace."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

CONTRACT = "drivers/test_contract.py::TestDrivers::test_"

MUTANTS = (
    # --- compare
    mutant(
        "blind SET (Lua)",
        "A commit built on an old version never overwrites a newer one.",
        CONTRACT + "commit_refuses_another_manifest[fakeredis]",
        Edit("commit.lua", "not as_expected", "false"),
    ),
    mutant(
        "blind SET (SQLite)",
        "A commit built on an old version never overwrites a newer one.",
        CONTRACT + "commit_refuses_another_manifest[sqlite]",
        Edit("commit", "not _is_expected(stored, commit)", "False"),
    ),
    mutant(
        "blind SET (simulated)",
        "Two producers at once: neither's acknowledged publish is lost.",
        "exploration/test_explore.py::test_every_state_keeps_the_promises[two producers, different ids-none]",
        Edit("Keyspace._refusal", "not as_expected", "False"),
    ),
    mutant(
        "an empty manifest passes for an absent one",
        "A manifest that something cut to nothing is damage, never a fresh start over committed data.",
        CONTRACT + "an_empty_value_is_not_an_absent_manifest[fakeredis]",
        Edit("commit.lua", "and call('EXISTS', manifest) == 0", ""),
    ),
    mutant(
        "a resent commit is not recognised",
        "A commit that is delivered again answers that it was applied already.",
        CONTRACT + "commit_sent_twice_is_applied_once[fakeredis]",
        Edit("commit.lua", "sub(stored, 1, #ours) == ours", "false"),
    ),
    # --- verify
    mutant(
        "no verification of staged records (Lua)",
        "A pointer to a payload that was refused or lost is never committed.",
        CONTRACT + "commit_verifies_each_record[fakeredis]",
        Edit("commit.lua", "3, last do local", "3, 0 do local"),
    ),
    mutant(
        "manifest before payload, and no verification",
        "A crash at any command leaves no manifest that points at nothing.",
        "store/test_crashes.py::test_a_crash_at_any_command_leaves_the_previous_version[sqlite-1]",
        Edit(
            "Scripted.send",
            "replies = yield Batch((*names, *stages, _swap(ctx, draft, needed), *wait))",
            "replies = yield Batch((*names, _swap(ctx, draft, needed), *stages))\n"
            "replies = [*replies[: len(names)], *replies[len(names) + 1 :], replies[len(names)]]",
        ),
        Edit("commit", "for staged in unverified:", "for staged in ():"),
    ),
    mutant(
        "no header check (Lua)",
        "A commit never makes another producer's record its own.",
        CONTRACT + "commit_verifies_each_record[fakeredis]",
        Edit("commit.lua", "#record - 1) ~= record", "#record - 1) == false"),
    ),
    mutant(
        "no header check (SQLite)",
        "A commit never makes another producer's record its own.",
        CONTRACT + "commit_verifies_each_record[sqlite]",
        Edit("_verify", "header == staged.header", "header"),
    ),
    mutant(
        "no header check (simulated)",
        "A producer whose record was taken over does not commit the other's payload.",
        "exploration/test_explore.py::test_every_state_keeps_the_promises"
        "[two producers, the same id, other content-none]",
        Edit("Keyspace._fault", "value.data.startswith(staged.header)", "value.data"),
    ),
    mutant(
        "no TTL check (Lua)",
        "An id that is committed is taken: one row per id.",
        CONTRACT + "commit_refuses_a_record_that_is_permanent[fakeredis]",
        Edit("commit.lua", "ttl == -1 and what % 2 == 0", "false"),
    ),
    mutant(
        "no TTL check (SQLite)",
        "An id that is committed is taken: one row per id.",
        CONTRACT + "commit_refuses_a_record_that_is_permanent[sqlite]",
        Edit("_verify", "expires_at is None and not staged.shared", "False"),
    ),
    # --- make permanent, swap
    mutant(
        "committed records not persisted (Lua)",
        "What is committed has no TTL: it does not vanish ten minutes after it was acknowledged.",
        CONTRACT + "commit_swaps_an_absent_manifest[fakeredis]",
        Edit("commit.lua", "pcall('PERSIST', key)", "0"),
    ),
    mutant(
        "committed records not persisted (SQLite)",
        "What is committed has no TTL: it does not vanish ten minutes after it was acknowledged.",
        CONTRACT + "commit_swaps_an_absent_manifest[sqlite]",
        Edit("commit", "expires_at = NULL", "expires_at = expires_at"),
    ),
    mutant(
        "swap before the records are permanent (Lua)",
        "A commit that is refused half-way leaves no manifest whose records expire.",
        "real/test_commit_refused.py::test_a_commit_that_is_refused_before_its_swap_changes_nothing[persist]",
        Edit(
            "commit.lua",
            "for _, key in ipairs(verified) do",
            "redis.call('SET', manifest, ARGV[3])\nfor _, key in ipairs(verified) do",
        ),
    ),
    mutant(
        "swap before the records are permanent (simulated)",
        "A server that dies inside a commit leaves no manifest whose records expire.",
        "exploration/test_explore.py::test_every_state_keeps_the_promises"
        "[two producers, different ids-a commit is cut]",
        Edit("Keyspace.commit", '("swap", commit.key),', ""),
        Edit("Keyspace.commit", "steps = [", 'steps = [\n    ("swap", commit.key),'),
    ),
    mutant(
        "PERSIST not undone when the SET is refused",
        "A commit that is refused leaves nothing behind that never expires.",
        "real/test_commit_refused.py::test_a_commit_that_is_refused_before_its_swap_changes_nothing[set]",
        Edit("commit.lua", "ipairs(undo)", "ipairs({})"),
    ),
    mutant(
        "what a refused commit brought along stays (Lua)",
        "What was staged and not committed expires, however it was sent.",
        "drivers/test_redis_batch.py::test_records_of_a_refused_commit_stay_staged",
        Edit("commit.lua", "place(i) == 1 then undo[#undo + 1] = key", "place(i) == 1 then"),
    ),
    mutant(
        "what was brought along passes for another's (Lua)",
        "A commit never makes another producer's record its own.",
        "drivers/test_redis_batch.py::test_a_batch_equals_its_commands_one_by_one[valkey-0]",
        Edit("commit.lua", "place(i) == 1", "place(i)"),
    ),
    mutant(
        "unlink before the swap",
        "A commit that is refused unlinks nothing: the records stay committed.",
        "real/test_commit_refused.py::test_a_commit_that_is_refused_before_its_swap_changes_nothing[set]",
        Edit(
            "commit.lua",
            "local swapped",
            "for i = last + 1, #KEYS do\n  pcall('PEXPIRE', KEYS[i], ARGV[6])\nend\nlocal swapped",
        ),
    ),
    # --- housekeeping
    mutant(
        "unlinking the staged keys",
        "A commit gives no TTL to the records that it has just committed.",
        CONTRACT + "commit_swaps_an_absent_manifest[fakeredis]",
        Edit("commit.lua", "last + 1, #KEYS", "3, #KEYS"),
    ),
    mutant(
        "a failing hint fails the commit",
        "After the swap nothing is reported as a failure: the producer would publish again.",
        "real/test_server.py::test_a_command_that_the_acl_forbids_is_access_denied",
        Edit("commit.lua", "pcall('PUBLISH'", "redis.call('PUBLISH'"),
    ),
    mutant(
        "a failing unlink fails the commit",
        "After the swap nothing is reported as a failure: the producer would publish again.",
        "real/test_commit_refused.py::test_a_commit_stands_whatever_fails_after_its_swap[pexpire]",
        Edit("commit.lua", "pcall('PEXPIRE', KEYS[i]", "redis.call('PEXPIRE', KEYS[i]"),
    ),
    mutant(
        "live view not removed",
        "A commit removes the live view in the same step.",
        CONTRACT + "commit_swaps_an_absent_manifest[fakeredis]",
        Edit("commit.lua", "pcall('UNLINK', KEYS[2])", ""),
    ),
    # --- taking over
    mutant(
        "take-over of permanent records (Lua)",
        "Committed data is never replaced by a publish that reuses its id.",
        CONTRACT + "replace_takes_over_what_is_staged_but_never_what_is_permanent[fakeredis]",
        Edit("replace.lua", "== -1", "== -7"),
    ),
    mutant(
        "take-over of permanent records (SQLite)",
        "Committed data is never replaced by a publish that reuses its id.",
        CONTRACT + "replace_takes_over_what_is_staged_but_never_what_is_permanent[sqlite]",
        Edit("_replace", "state is not None and state[0] is None", "False"),
    ),
)
