"""What several operations send together: bounds on time, and what is refused as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from swapstore import InvalidInput, Store, SwapstoreError, Throttled, Unavailable
from swapstore.cache import Cache
from swapstore.commands import Command, Get, Put
from swapstore.errors import ReplyLost
from swapstore.format.keys import Keys
from swapstore.protocol.batching import batched
from swapstore.protocol.context import Context, Policy
from swapstore.protocol.operation import Batch, Operation, Turn, Wait

CONTEXT = Context(keys=Keys("x"), cache=Cache(0))
SMALL = msgspec.structs.replace(CONTEXT, policy=Policy(max_batch_bytes=10))


def asking(key: str, until: float | None) -> Operation[bytes]:
    (reply,) = yield Batch((Get(key),), until=until)
    found: bytes = reply
    return found


def test_a_batch_is_sent_no_later_than_its_earliest_member_allows() -> None:
    """A step of a writer is sent after its lease ended, because another writer's lease lasts longer."""
    both = batched(CONTEXT, {"a": asking("a", 9.0), "b": asking("b", 5.0), "c": asking("c", None)})
    step = next(both)
    assert isinstance(step, Batch)
    assert step.until == 5.0


def test_a_throttled_batch_is_not_sent_again_in_pieces() -> None:
    """An endpoint that asks for a pause gets as many more requests as there are datasets."""
    both = batched(CONTEXT, {"a": asking("a", None), "b": asking("b", None)})
    next(both)
    throttled = Throttled("later", retry_after_s=60.0)
    with pytest.raises(StopIteration) as ended:
        both.throw(throttled)
    outcomes: dict[str, bytes | SwapstoreError] = ended.value.value
    assert {name: (type(error), str(error)) for name, error in outcomes.items()} == dict.fromkeys(
        "ab", (Throttled, "later")
    )


# --- what was not sent, and what must not be sent twice -------------------------------------------------


def sending(*commands: Command[Any], anywhere: bool = False) -> Operation[Any]:
    """Send one batch. Returns its replies, or the error."""
    try:
        return (yield Batch(commands, anywhere=anywhere))
    except SwapstoreError as error:
        return error


def putting(size: int) -> Put:
    return Put("key", b"x" * size, 1000)


def thrown_into(operation: Operation[Any], *errors: SwapstoreError) -> tuple[list[Any], Any]:
    """Throw the errors into an operation, one at each step. Returns its steps, and its result."""
    steps = [next(operation)]
    for error in errors:
        try:
            steps.append(operation.throw(error))
        except StopIteration as stop:
            return steps, stop.value
    return steps, None


def test_what_was_not_sent_is_not_lost() -> None:
    """A commit that was never sent ends in OutcomeUnknown, because the read before it had no answer."""
    lost = ReplyLost("no answer")
    lost.again = True
    _, found = thrown_into(
        batched(SMALL, {"a": sending(Get("a")), "b": sending(putting(20)), "c": sending(Get("c"))}), lost
    )
    assert [type(error) for error in found.values()] == [ReplyLost, Unavailable, ReplyLost]
    assert "not sent" in str(found["b"])


def test_what_was_not_sent_alone_is_not_lost() -> None:
    """Each commit behind one without an answer ends in OutcomeUnknown."""
    together = {"a": sending(putting(3)), "b": sending(putting(1)), "c": sending(putting(2), Get("c"))}
    steps, found = thrown_into(batched(CONTEXT, together), Unavailable("too large"), ReplyLost("no answer"))
    assert len(steps) == 2
    assert steps[1].commands == (putting(1),), "the smallest first"
    assert {name: type(error) for name, error in found.items()} == {
        "a": Unavailable,
        "b": ReplyLost,
        "c": Unavailable,
    }


def test_a_write_whose_reply_is_lost_is_not_sent_again() -> None:
    """A dataset is committed twice, because another one only reads in the same batch."""
    both = batched(CONTEXT, {"a": sending(Get("a")), "b": sending(putting(1))})
    steps, found = thrown_into(both, ReplyLost("no answer"))
    assert len(steps) == 1
    assert {name: type(error) for name, error in found.items()} == dict.fromkeys("ab", ReplyLost)


@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_request_that_was_cut_off_is_about_its_last_command_only(names: str) -> None:
    """A commit that was carried out counts as refused, because the one behind it was cut off."""
    operations = {name: sending(putting(1)) for name in names}
    _, found = thrown_into(batched(CONTEXT, operations), ReplyLost("hung up", cut_off=True))
    assert [error.cut_off for error in found.values()] == [len(names) == 1] * len(names)


@pytest.mark.parametrize("again", [True, False])
def test_a_store_that_is_away_is_waited_for_once(again: bool) -> None:  # noqa: FBT001
    """Forty datasets wait for forty time-outs, or one that the store refuses fails all behind it."""
    away = Unavailable("away")
    away.again = again
    steps, _ = thrown_into(batched(SMALL, {name: sending(putting(9)) for name in "abc"}), *[away] * 3)
    assert len(steps) == (1 if again else 3)


def test_the_longest_wait_is_waited() -> None:
    """A producer that backs off comes back with the one that waits least, and loses again."""

    def waiting(seconds: float) -> Operation[None]:
        yield Wait(seconds)

    assert next(batched(CONTEXT, {"a": waiting(1.0), "b": waiting(5.0), "c": waiting(2.0)})) == Wait(5.0)


def test_turns_are_taken_in_one_order() -> None:
    """Two producers that publish the same datasets in another order wait for each other without an end."""

    def taking(name: str) -> Operation[None]:
        yield Turn((name,))

    for names in ("abc", "cab"):
        assert next(batched(CONTEXT, {name: taking(name) for name in names})) == Turn(("a", "b", "c"))


def test_a_replica_answers_only_what_it_may() -> None:
    """A dataset is read, or written, at a replica because another one may be."""
    both = {"a": sending(Get("a"), anywhere=True), "b": sending(putting(1))}
    assert next(batched(CONTEXT, both)) == Batch((Get("a"), putting(1)))


def test_a_replica_that_fails_parts_nothing() -> None:
    """After a replica failed, each of forty datasets is read in a round trip of its own."""

    def reading(key: str) -> Operation[Any]:
        yield from sending(Get(key), anywhere=True)
        return (yield Batch((Get(key),)))

    steps, _ = thrown_into(batched(CONTEXT, {"a": reading("a"), "b": reading("b")}), Unavailable("away"))
    assert steps[1] == Batch((Get("a"), Get("b")))


# --- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("datasets", [5, None, [["a"]], ["mena", 3]])
def test_what_is_no_name_of_a_dataset_is_refused(store: Store, datasets: Iterable[str]) -> None:
    """A mistake in a list of names raises a TypeError from inside the library."""
    with pytest.raises(InvalidInput):
        store.read_latest_many(datasets)
    with pytest.raises(InvalidInput):
        store.read_latest(datasets)  # type: ignore[call-overload]
