"""What several operations send together: bounds on time, and what is refused as a whole."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from swapstore import InvalidInput, Store, SwapstoreError, Throttled
from swapstore.cache import Cache
from swapstore.commands import Get
from swapstore.format.keys import Keys
from swapstore.protocol.batching import batched
from swapstore.protocol.context import Context
from swapstore.protocol.operation import Batch, Operation

CONTEXT = Context(keys=Keys("x"), cache=Cache(0))


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


@pytest.mark.parametrize("datasets", [5, None, [["a"]], ["mena", 3]])
def test_what_is_no_name_of_a_dataset_is_refused(store: Store, datasets: Iterable[str]) -> None:
    """A mistake in a list of names raises a TypeError from inside the library."""
    with pytest.raises(InvalidInput):
        store.read_latest_many(datasets)
    with pytest.raises(InvalidInput):
        store.read_latest(datasets)  # type: ignore[arg-type]
