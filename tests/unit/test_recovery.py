"""What is sent again after a failover, and what is not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from swapstore.commands import AwaitReplicas, Command, Committed, Failed, Get, Mismatch, Register, Stage, Swap
from swapstore.drivers.redis.errors import passing
from swapstore.errors import (
    AccessDenied,
    ReadOnly,
    ReplyLost,
    StoreClosed,
    StoreFull,
    SwapstoreError,
    Unavailable,
)
from swapstore.recovery import Again, Patience, recover

GET, NAME, STAGE = Get("a"), Register("names", "mena"), Stage("id", b"{}\n", 1000)
SWAP = Swap(
    key="m", expected=b"", prefix=b"1;", manifest=b"1;", live_key="l", staging_ttl_ms=1000, grace_ms=1000
)
DEMOTED = Failed(ReadOnly("demoted"), again=True)
WAIT = AwaitReplicas("m", 1, False, 1000)  # noqa: FBT003
FULL = Failed(StoreFull("full"))


def sent(commands: list[Command[Any]], replies: list[Any], *answers: Any) -> tuple[list[Again], list[Any]]:
    """Return what is sent again when it is answered so, and the replies at the end."""
    return tried(commands, replies, *answers, patience_s=2.0)


def tried(
    commands: list[Command[Any]], outcome: Any, *answers: Any, patience_s: float
) -> tuple[list[Again], list[Any]]:
    """The same, also for a batch that was not sent."""
    steps, seen, left = recover(commands, outcome, Patience(patience_s)), [], list(answers)
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
    for reply in found:
        assert type(reply.error) is ReadOnly
        assert re.fullmatch(r"demoted\. Tried \d times in 1\.\d s \(patience: 2 s\)", str(reply.error))


def test_a_server_that_is_away_for_a_moment_is_part_of_a_failover() -> None:
    """The moment between two primaries fails a publish that would succeed a little later."""
    _, found = sent([SWAP], [DEMOTED], away(), [Committed()])
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
    assert [found[0].error, *found[1:]] == [error, True, Committed()]


def test_what_a_demoted_server_compared_is_no_answer_when_the_new_one_refuses_us() -> None:
    """A publish ends in a conflict with an outdated manifest, and the wrong password is not told."""
    denied = AccessDenied("wrong password")
    _, found = sent([NAME, STAGE, SWAP], [None, DEMOTED, Mismatch(b"old")], denied)
    assert [found[0], *(reply.error for reply in found[1:])] == [None, denied, denied]


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


# --- a batch that was not sent, or whose reply was lost ----------------------------------------------


def away() -> Unavailable:
    """A server that cannot be reached now."""
    return passing(Unavailable("cannot connect"))


def lost_read() -> ReplyLost:
    """A lost reply to what only reads."""
    return passing(ReplyLost("cut"))


def test_what_was_not_sent_is_sent_when_the_server_is_back() -> None:
    """The restart of a server fails every publish that begins during it."""
    seen, found = tried([NAME, SWAP], away(), away(), away(), [None, Committed()], patience_s=10)
    assert [step.commands for step in seen] == [(NAME, SWAP)] * 3
    assert seen[0].pause_s == 0 < seen[1].pause_s < seen[2].pause_s
    assert found == [None, Committed()]


def test_when_patience_is_over_the_error_says_what_was_seen() -> None:
    """After ten seconds a person reads an error that does not say what was tried, and tries again."""
    with pytest.raises(Unavailable) as caught:
        tried([NAME, SWAP], away(), *[away() for _ in range(99)], patience_s=1)
    assert re.fullmatch(r"cannot connect\. Tried \d times in \d\.\d s \(patience: 1 s\)", str(caught.value))


def test_waits_count_where_no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a frozen clock a call on a dead server never ends."""
    monkeypatch.setattr("swapstore.recovery.time.monotonic", lambda: 0.0)
    with pytest.raises(Unavailable):
        tried([GET], away(), *[away() for _ in range(99)], patience_s=10)


def test_a_lost_reply_to_a_read_is_read_again_and_is_no_lost_reply_in_the_end() -> None:
    """A read fails at the moment of a failover; or it goes on, and the protocol begins once more."""
    assert tried([GET], lost_read(), lost_read(), [b"1"], patience_s=10)[1] == [b"1"]
    with pytest.raises(Unavailable) as caught:
        tried([GET], lost_read(), *[lost_read() for _ in range(99)], patience_s=1)
    assert type(caught.value) is Unavailable


@pytest.mark.parametrize("error", [AccessDenied("wrong password"), Unavailable("the pool is exhausted")])
def test_what_waiting_does_not_cure_ends_it(error: SwapstoreError) -> None:
    """A wrong password of the new primary is tried for ten seconds."""
    with pytest.raises(type(error), match=str(error)):
        tried([SWAP], away(), error, patience_s=10)


@pytest.mark.parametrize("error", [AccessDenied("wrong password"), Unavailable("over"), away()])
def test_what_was_carried_out_is_not_told_as_an_outage(error: SwapstoreError) -> None:
    """A commit was carried out, and its neighbour's refusal makes the caller believe that it was not."""
    answers = [type(error)(*error.args) if isinstance(error, AccessDenied) else error] * 99
    _, found = tried([NAME, SWAP], [DEMOTED, Committed()], *answers, patience_s=1)
    assert found[1] == Committed()
    assert isinstance(found[0], Failed)
    assert type(found[0].error) is type(error)


def test_the_time_out_of_a_call_says_what_was_seen_before() -> None:
    """A call that ends by its time-out hides that the server was down."""
    with pytest.raises(Unavailable, match=r"over\. Tried 3 times .*; before that: cannot connect"):
        tried([SWAP], away(), away(), Unavailable("over"), patience_s=10)


def test_one_warning_for_all_calls_that_wait(caplog: pytest.LogCaptureFixture) -> None:
    """A person at a terminal sees nothing for ten seconds; or a service logs a line for each thread."""
    patience = Patience(10)
    patience.note(away(), 0.5, 60)
    assert not caplog.records
    for _ in range(3):
        patience.note(away(), 1.0, 60)
    assert [each.getMessage() for each in caplog.records] == ["cannot connect. Trying for up to 10 s"]
