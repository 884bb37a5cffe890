"""Mistakes beside a commit: events that are wrong, and old keys that the mirror leaves behind."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

EVENTS = "events/test_events.py::test_"
MIRROR = "migration/test_mirror.py::test_"

MUTANTS = (
    # --- events
    mutant(
        "round trips not counted",
        "An event says how many round trips a call took.",
        EVENTS + "a_publish_is_one_event_with_its_cost[sqlite]",
        Edit("run", "tally.note(step)", "pass"),
    ),
    mutant(
        "round trips not counted (asyncio)",
        "An event says how many round trips a call took.",
        EVENTS + "both_stores_send_the_same_events[sqlite]",
        Edit("arun", "tally.note(step)", "pass"),
    ),
    mutant(
        "round trips not counted (several datasets)",
        "An event says how many round trips a call took, those included that several datasets share.",
        EVENTS + "each_dataset_of_a_batch_is_an_event[sqlite]",
        Edit("_Member.answer", "self._tally.note(step)", "pass"),
    ),
    mutant(
        "a lost race is not told",
        "A producer that keeps losing races can be told from one that is slow.",
        EVENTS + "a_lost_race_is_an_event[sqlite]",
        Edit("_note", "ctx.hook is not None", "False"),
    ),
    mutant(
        "a fetched payload told as one from memory",
        "Events show whether the cache is large enough.",
        EVENTS + "reads_say_whether_the_payload_was_fetched[sqlite]",
        Edit("_emit_read", "tally.served or any(key in tally.asked_for for key in keys)", "False"),
    ),
    mutant(
        "a failing on_event fails the call",
        "What an observer does never makes a commit look like a failure.",
        EVENTS + "a_hook_that_raises_breaks_nothing[sqlite]",
        Edit("Hook.__call__", "except Exception", "except MemoryError"),
    ),
    # --- the mirror
    mutant(
        "a failing mirror fails the publish",
        "A publish that is committed is acknowledged, whatever becomes of the old keys.",
        MIRROR + "a_refused_mirror_is_logged_and_the_publish_stands[5]",
        Edit("bring_up_to_date", "except Exception", "except MemoryError"),
    ),
    mutant(
        "`latest` written before the payload",
        "The old `latest` never names a payload that is not there.",
        MIRROR + "latest_never_dangles_and_catches_up",
        Edit(
            "_MirrorRun._write_all",
            "for row in rows:",
            "latest = Write(self.mirror.latest(self.dataset), serving.id.encode())\n"
            "yield from self._write(current, latest)\n"
            "for row in rows:",
        ),
    ),
    mutant(
        "the mirror does not look again",
        "A slow producer does not take the old readers back to its own snapshot.",
        MIRROR + "a_slow_mirror_does_not_leave_latest_behind",
        Edit("_MirrorRun._write", "bool(seen == prefix)", "True"),
    ),
    mutant(
        "a backfill becomes the old `latest`",
        "Old readers do not go back in time.",
        MIRROR + "a_backfill_has_its_payload_and_leaves_latest_alone",
        Edit("_MirrorRun._write_all", "serving.id.encode()", "(self.commit or serving).id.encode()"),
    ),
)
