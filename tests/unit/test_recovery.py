"""What is sent again after a failover, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from swapstore.commands import AwaitReplicas, Command, Committed, Failed, Get, Mismatch, Register, Stage, Swap
from swapstore.errors import (
    AccessDenied,
    ReadOnly,
    ReplyLost,
    StoreClosed,
    StoreFull,
    SwapstoreError,
    Unavailable,
)
from swapstore.recovery import Again, recover

GET, NAME, STAGE = Get("a"), Register("names", "mena"), Stage("id", b"{}\n", 1000)
SWAP = Swap(
    key="m", expected=b"", prefix=b"1;", manifest=b"1;", live_key="l", staging_ttl_ms=1000, grace_ms=1000
)
DEMOTED = Failed(ReadOnly("demoted"), again=True)
WAIT = AwaitReplicas("m", 1, False, 1000)  # noqa: FBT003
FULL = Failed(StoreFull("full"))


def sent(commands: list[Command[Any]], replies: list[Any], *answers: Any) -> tuple[list[Again], list[Any]]:
    """Return what is sent again when it is answered so, and the replies at the end."""
    steps, seen, left = recover(commands, replies, 2.0), [], list(answers)
    try:
        step = next(steps)
        while True:
            seen.append(step)
            answer = left.pop(0)
            step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
    except StopIteration as stop:
        return seen, stop.value


def test_what_was_carried_out_is_not_sent_again() -> None:
    """A write that a primary carried out just before it was demoted is carried out twice."""
    seen, found = sent([NAME, STAGE, SWAP], [None, FULL, DEMOTED], [Committed()])
    assert [step.commands for step in seen] == [(SWAP,)]
    assert found == [None, FULL, Committed()]


def test_what_a_demoted_server_compared_with_its_own_data_is_sent_again() -> None:
    """A commit is refused by an outdated manifest, and the caller gets Conflict for nothing."""
    old = Mismatch(b"old")
    seen, found = sent([STAGE, SWAP, GET], [DEMOTED, old, b"old"], [True, Committed(), b"new"])
    assert [step.commands for step in seen] == [(STAGE, SWAP, GET)]
    assert found == [True, Committed(), b"new"]


def test_a_replica_for_good_is_a_refusal_in_the_end() -> None:
    """A producer on a replica waits without end, or takes the replica's old manifest for an answer."""
    waits = [[DEMOTED, Mismatch(b"old")]] * 20
    seen, found = sent([STAGE, SWAP], [DEMOTED, Mismatch(b"old")], *waits)
    assert sum(step.pause_s for step in seen) <= 2.0
    assert len(seen) < 10
    assert found == [DEMOTED, DEMOTED]


def test_a_server_that_is_away_for_a_moment_is_part_of_a_failover() -> None:
    """The moment between two primaries fails a publish that would succeed a little later."""
    _, found = sent([SWAP], [DEMOTED], Unavailable("cannot connect"), [Committed()])
    assert found == [Committed()]


def test_a_lost_reply_is_a_lost_reply() -> None:
    """A commit that may have been carried out is told as refused."""
    with pytest.raises(ReplyLost):
        sent([SWAP], [DEMOTED], ReplyLost("lost"))


@pytest.mark.parametrize("error", [AccessDenied("wrong password"), StoreClosed("closed")], ids=type)
def test_what_no_attempt_cures_is_a_refusal_of_what_was_sent_again(error: SwapstoreError) -> None:
    """A commit that was carried out is told as failed, because the server after it refused the rest."""
    seen, found = sent([NAME, STAGE, SWAP], [DEMOTED, True, Committed()], error)
    assert [step.commands for step in seen] == [(NAME,)]
    assert found == [Failed(error), True, Committed()]


def test_what_a_demoted_server_compared_is_no_answer_when_the_new_one_refuses_us() -> None:
    """A publish ends in a conflict with an outdated manifest, and the wrong password is not told."""
    denied = AccessDenied("wrong password")
    _, found = sent([STAGE, SWAP], [DEMOTED, Mismatch(b"old")], denied)
    assert found == [Failed(denied), Failed(denied)]


def test_a_wait_is_sent_again_only_with_the_write_before_it() -> None:
    """A new connection, which has written nothing, is asked who has a commit, and says that all have it."""
    seen, found = sent([SWAP, WAIT], [Committed(), DEMOTED])
    assert (seen, found) == ([], [Committed(), DEMOTED])
    seen, found = sent([SWAP, WAIT], [DEMOTED, 1], [Committed(), 0])
    assert [step.commands for step in seen] == [(SWAP, WAIT)]
    assert found == [Committed(), 0]
    seen, found = sent([GET, NAME, WAIT], [b"m", DEMOTED, DEMOTED], [b"n", None, 1])
    assert [step.commands for step in seen] == [(GET, NAME, WAIT)]
    assert found == [b"n", None, 1]
    seen, found = sent([GET, NAME, WAIT], [b"m", None, DEMOTED])
    assert (seen, found) == ([], [b"m", None, DEMOTED])


def test_each_of_several_waits_goes_with_its_own_commit() -> None:
    """A dataset that was committed before a failover is waited for on the server that came after it."""
    batch: list[Command[Any]] = [SWAP, WAIT, SWAP, WAIT]
    seen, found = sent(batch, [Committed(), 1, DEMOTED, 1], [Committed(), 2])
    assert [step.commands for step in seen] == [(SWAP, WAIT)]
    assert found == [Committed(), 1, Committed(), 2]


def test_a_wait_alone_is_a_question_that_is_sent_again() -> None:
    """A store that is connected during a failover is told that it cannot wait."""
    seen, found = sent([WAIT], [DEMOTED], [0])
    assert ([step.commands for step in seen], found) == ([(WAIT,)], [0])
