"""The outcome table of a publish: what is lost, late, raced or refused, and the result of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest

from swapstore import Retention, Row, Store
from swapstore.commands import Command, Failed, Replace, Stage, Swap
from swapstore.errors import (
    AccessDenied,
    Contended,
    IdConflict,
    OutcomeUnknown,
    StoreFull,
    SwapstoreError,
    Unavailable,
)
from swapstore.format import manifest, records
from swapstore.format.append import Stamp, repoint
from swapstore.protocol.context import Policy
from tests.support import invariants
from tests.support.drivers import Meddler, another, lose, meddled
from tests.support.times import at, soon

pytestmark = pytest.mark.every_store

PATIENT = Policy(first_wait_s=0, longest_wait_s=0)


def warm(store: Store) -> tuple[Store, Meddler, int]:
    """A producer that knows the manifest, its meddler, and the number of its next batch."""
    store.publish("mena", "before", id="before")
    client, meddler = meddled(store, policy=PATIENT)
    list(client.history("mena", limit=1))
    client._context.cache.note_listed("swapstore:manifest:{mena}")
    return client, meddler, len(meddler.batches)


def ids(store: Store) -> list[str]:
    """The committed ids, oldest first; every invariant is checked on the way."""
    return [row.id for row in invariants.check(store)]


def test_a_conflict_is_rebuilt_on_the_current_manifest(store: Store) -> None:
    """A publish that lost a race is missing in the history, or its payload is sent twice."""
    client, meddler, batch = warm(store)
    meddler.before(batch, lambda: store.publish("mena", "rival", id="rival"))
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (3, True)
    assert ids(store) == ["before", "rival", "mine"]
    snap = another(store).read_latest("mena")
    assert snap is not None
    assert snap.value == "mine"


def test_a_conflict_does_not_send_the_payload_again(store: Store) -> None:
    """A publish with its own ts sends its payload again after each lost race."""
    client, meddler, batch = warm(store)
    meddler.before(batch, lambda: store.publish("mena", "rival", id="rival"))
    client.publish("mena", "mine", id="mine", ts=at(5))
    anew, swap = meddler.batches[batch + 1]
    assert isinstance(swap, Swap)
    assert isinstance(anew, Replace)  # the ts record: it states the version that is committed
    assert ":ts:" in anew.key
    assert ids(store) == ["before", "rival", "mine"]


@pytest.mark.parametrize(("content", "version"), [(b'"other"', 2), (b'"mine"', 9)])
def test_a_staged_ts_record_of_another_publish_is_taken_over(
    store: Store, content: bytes, version: int
) -> None:
    """A commit relies on a ts record that was staged for other content, or for another version."""
    client, meddler, batch = warm(store)
    other = Row(
        id="mine",
        ts=5,
        size=len(content),
        sha256=records.digest(content),
        codec="json",
        labels={},
        version=version,
        committed_at=0,
    )
    record = records.pack_ts(other, invariants.manifest_of(store).epoch)
    staged = Stage(store._context.keys.ts("mena", 5, "mine"), record, 60_000)
    meddler.before(batch, lambda: store._driver.execute([staged]))
    assert client.publish("mena", "mine", id="mine", ts=at(5)).version == 2
    assert ids(store) == ["before", "mine"]


def test_losing_every_time_is_contended(store: Store) -> None:
    """A publish that loses every race retries forever, or leaves a visible part."""
    store.publish("mena", "before", id="before")
    client, meddler = meddled(store, policy=msgspec.structs.replace(PATIENT, commit_attempts=5))
    list(client.history("mena", limit=1))
    rivals = iter(range(1000))
    for number in range(100):
        meddler.before(
            len(meddler.batches) + number, lambda: store.publish("mena", "rival", id=f"rival-{next(rivals)}")
        )
    with pytest.raises(Contended, match="dataset 'mena': .*5 times"):
        client.publish("mena", "mine", id="mine")
    assert "mine" not in ids(store)
    assert another(store).read("mena", id="mine") is None


def test_a_record_that_vanished_is_staged_again(store: Store) -> None:
    """A publish fails because its staged record expired before the commit."""
    client, meddler, batch = warm(store)
    meddler.between(batch, 2, lambda: expire(store, "swapstore:id:{mena}:mine"))
    assert client.publish("mena", "mine", id="mine").created
    assert [type(command) for command in meddler.batches[batch + 1]] == [Stage, Swap]
    assert ids(store) == ["before", "mine"]


def expire(store: Store, key: str) -> None:
    from tests.store.test_damage import delete  # noqa: PLC0415

    delete(store, key)


def test_a_crashed_producers_record_is_taken_over(store: Store) -> None:
    """The record of a dead producer blocks its id until it expires."""
    client, meddler, batch = warm(store)
    dead = another(store)
    stop_before_commit(dead, "theirs", id="shared")
    commit = client.publish("mena", "ours", id="shared")
    assert commit.created
    kinds = [[type(command) for command in sent] for sent in meddler.batches[batch:]]
    assert kinds[0] == [Stage, Stage, Swap]
    assert kinds[1] == [Replace, Swap]
    snap = another(store).read("mena", id="shared")
    assert snap is not None
    assert snap.value == "ours"
    assert ids(store) == ["before", "shared"]


def stop_before_commit(client: Store, value: object, *, id: str) -> tuple[Command[Any], ...]:  # noqa: A002
    """Stage a publish and never commit it; return the batch that was to be sent."""
    meddler: Any = client._driver
    list(client.history("mena", limit=1))

    def die() -> None:
        meddler._driver.execute(meddler.batches[-1][:-1])
        raise KeyboardInterrupt

    meddler.before(len(meddler.batches), die)
    with pytest.raises(KeyboardInterrupt):
        client.publish("mena", value, id=id, ts=at(9))
    batch: tuple[Command[Any], ...] = meddler.batches[-1]
    return batch


def test_after_a_take_over_the_other_commit_refuses(store: Store) -> None:
    """A producer that was thought dead commits the payload of the one that took over."""
    store.publish("mena", "before", id="before")
    sleeper = another(store)
    batch = stop_before_commit(sleeper, "theirs", id="shared")
    client, meddler = meddled(store)
    list(client.history("mena", limit=1))
    woken: list[Any] = []

    def wake() -> None:
        woken.extend(store._driver.execute(batch[-1:]))

    meddler.between(len(meddler.batches) + 1, 1, wake)
    assert client.publish("mena", "ours", id="shared", ts=at(9)).created
    rows = invariants.check(store)
    assert [row.id for row in rows] == ["before", "shared"]
    snap = another(store).read("mena", id="shared")
    assert snap is not None
    assert snap.value == "ours"
    assert type(woken[0]).__name__ == "Unstaged"


def test_the_same_id_and_content_from_two_producers_is_one_commit(store: Store) -> None:
    """Two cron hosts that run the same job with the same id commit it twice."""
    client, meddler, batch = warm(store)
    first: list[Any] = []
    meddler.between(batch, 2, lambda: first.append(another(store).publish("mena", 7, id="job", ts=at(9))))
    second = client.publish("mena", 7, id="job", ts=at(9))
    assert (first[0].created, second.created) == (True, False)
    assert second.version == first[0].version
    assert ids(store) == ["before", "job"]


def test_the_same_id_with_other_content_from_two_producers_is_a_conflict(store: Store) -> None:
    """The later of two different publishes under one id replaces the first."""
    client, meddler, batch = warm(store)
    meddler.between(batch, 2, lambda: another(store).publish("mena", "theirs", id="job"))
    with pytest.raises(IdConflict):
        client.publish("mena", "ours", id="job")
    snap = another(store).read("mena", id="job")
    assert snap is not None
    assert snap.value == "theirs"
    assert ids(store) == ["before", "job"]


def test_the_same_dedupe_key_from_two_producers_is_one_commit(store: Store) -> None:
    """Two producers with one dedupe key commit twice, or the loser is not told which commit won."""
    client, meddler, batch = warm(store)
    meddler.before(batch, lambda: another(store).publish("mena", 1, id="first", dedupe_key="k"))
    commit = client.publish("mena", 2, id="second", dedupe_key="k")
    assert (commit.id, commit.created) == ("first", False)
    assert ids(store) == ["before", "first"]


# --- lost replies ----------------------------------------------------------------------------------


def test_a_lost_reply_of_an_applied_commit_is_one_commit(store: Store) -> None:
    """A commit that was applied before the connection broke is made twice, or reported as failed."""
    client, meddler, batch = warm(store)
    meddler.after(batch, lose)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (2, True)
    assert meddler.commits() == 1
    assert ids(store) == ["before", "mine"]


@pytest.mark.parametrize("others", [1, 31, 70])
def test_a_lost_reply_is_resolved_under_any_number_of_later_versions(store: Store, others: int) -> None:
    """A commit whose reply is lost is sent twice, because later versions moved its row to a page."""
    client, meddler, batch = warm(store)

    def overtake() -> None:
        for number in range(others):
            store.publish("mena", number)
        lose()

    meddler.after(batch, overtake)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (2, True)
    assert meddler.commits() == 1
    assert ids(store).count("mine") == 1


def test_a_lost_commit_is_sent_again_with_the_same_bytes(store: Store) -> None:
    """The second attempt of a lost commit differs from the first, and both can count."""
    client, meddler, batch = warm(store)
    meddler.before(batch, lose)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (2, True)
    sent = [command for number in meddler.batches[batch:] for command in number if isinstance(command, Swap)]
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert ids(store) == ["before", "mine"]


def test_a_lost_commit_that_another_overtook_is_rebuilt(store: Store) -> None:
    """A lost commit that another one overtook is not published, or published twice."""
    client, meddler, batch = warm(store)

    def overtake() -> None:
        store.publish("mena", "rival", id="rival")
        lose()

    meddler.before(batch, overtake)
    assert client.publish("mena", "mine", id="mine").version == 3
    assert ids(store) == ["before", "rival", "mine"]


def test_a_delayed_packet_does_not_commit_twice(store: Store) -> None:
    """A commit that arrives again after its retry was acknowledged adds a second row."""
    for late in ("before the second", "after the second"):
        name = late.replace(" ", "-")
        client, meddler = meddled(store, policy=PATIENT)
        client.publish("mena", "x", id=f"x-{name}")
        batch = len(meddler.batches)
        meddler.before(batch, lose)

        def arrive(meddler: Meddler = meddler, batch: int = batch) -> None:
            store._driver.execute(meddler.batches[batch])

        if late == "before the second":
            meddler.before(batch + 2, arrive)
        else:
            meddler.after(batch + 2, arrive)
        assert client.publish("mena", "mine", id=name).created
        arrive()
        store.publish("mena", "y", id=f"y-{name}")
        arrive()
        assert ids(store).count(name) == 1


def test_a_late_first_publish_does_not_disturb_a_rebuilt_one(store: Store) -> None:
    """A lost commit that arrives after its publish was rebuilt replaces a newer manifest."""
    client, meddler, batch = warm(store)

    def overtake() -> None:
        store.publish("mena", "rival", id="rival")
        lose()

    meddler.before(batch, overtake)
    client.publish("mena", "mine", id="mine")
    store._driver.execute(meddler.batches[batch])
    assert ids(store) == ["before", "rival", "mine"]


@pytest.mark.parametrize("kind", [Unavailable, AccessDenied])
def test_a_store_that_does_not_tell_the_outcome_after_a_lost_reply(
    store: Store, kind: type[SwapstoreError]
) -> None:
    """The error does not say that the publish may be committed, or its advice does not work."""
    client, meddler, batch = warm(store)
    meddler.after(batch, lose)
    meddler.before(batch + 1, partial(unavailable, kind))
    with pytest.raises(OutcomeUnknown, match="dataset 'mena': .*publish again with id=") as caught:
        client.publish("mena", "mine")
    assert caught.value.id is not None
    assert caught.value.published is None
    assert "othing was published" not in str(caught.value)
    again = client.publish("mena", "mine", id=caught.value.id)
    assert (again.created, again.version) == (False, 2)
    assert ids(store) == ["before", caught.value.id]


def unavailable(kind: type[SwapstoreError] = Unavailable) -> None:
    raise kind("no answer, on purpose")


def test_a_refusal_after_a_lost_reply_is_outcome_unknown(store: Store) -> None:
    """`StoreFull` for the second attempt hides that the first may still arrive."""
    client, meddler, batch = warm(store)
    meddler.before(batch, lose)
    meddler.before(batch + 2, unavailable)
    with pytest.raises(OutcomeUnknown):
        client.publish("mena", "mine", id="mine")
    store._driver.execute(meddler.batches[batch])
    assert client.publish("mena", "mine", id="mine").created is False
    assert ids(store) == ["before", "mine"]


def test_a_pruned_row_after_a_lost_reply_is_outcome_unknown(store: Store) -> None:
    """After retention unlinked version n+1, the outcome is guessed."""
    client, meddler, batch = warm(store)

    def prune_past_it() -> None:
        other = meddled(store, retention=Retention(max_count=1))[0]
        for number in range(manifest.recent() + manifest.F):
            other.publish("mena", number)
        assert invariants.manifest_of(store).log.pages[0].first_version > 2, "its page has left the log"
        lose()

    meddler.after(batch, prune_past_it)
    with pytest.raises(OutcomeUnknown):
        client.publish("mena", "mine", id="mine")


def test_losing_every_reply_ends(store: Store) -> None:
    """A network that loses every reply keeps a producer busy forever."""
    store.publish("mena", "before", id="before")
    client, meddler = meddled(
        store, policy=msgspec.structs.replace(PATIENT, commit_attempts=4, read_attempts=2)
    )
    list(client.history("mena", limit=1))
    for number in range(100):
        meddler.before(len(meddler.batches) + number, lose)
    with pytest.raises(OutcomeUnknown):
        client.publish("mena", "mine", id="mine")
    assert ids(store) == ["before"]


def test_a_row_that_retention_hides_is_still_found(store: Store) -> None:
    """A lost commit that is hidden, but not yet unlinked, is repeated."""
    client, meddler, batch = warm(store)

    def hide_it() -> None:
        other = another(store)
        other.publish("mena", "newer", id="newer", ts=soon())
        known = other._context.cache.known("swapstore:manifest:{mena}")
        assert known is not None
        base = known.manifest
        hidden = repoint(
            base, stamp=Stamp(now_ms=1, nonce="f" * 16, new_epoch="", keys=other._context.keys), floor=soon()
        ).manifest
        commit = next(c for c in meddler.batches[batch] if isinstance(c, Swap))
        swap = msgspec.structs.replace(
            commit,
            expected=b'{"etag":"' + base.etag.encode() + b'"',
            prefix=b'{"etag":"' + hidden.etag.encode() + b'"',
            manifest=hidden.raw,
            staged=(),
        )
        store._driver.execute([swap])
        lose()

    meddler.after(batch, hide_it)
    assert client.publish("mena", "mine", id="mine").created
    assert meddler.commits() == 1


def test_a_server_that_drops_the_request_is_not_flooded(store: Store) -> None:
    """A request that is too large for the server is sent again and again, without a hint."""
    client, meddler, batch = warm(store)
    for number in range(batch, batch + 400, 2):
        meddler.before(number, lose)
    with pytest.raises(OutcomeUnknown, match="does the store take requests of [0-9,]+ bytes") as caught:
        client.publish("mena", "x" * 1000, id="large")
    assert caught.value.id == "large"
    assert meddler.commits() == PATIENT.lost_attempts
    assert ids(store) == ["before"]


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_refused_command_is_an_error_whatever_its_neighbours_say(store: Store, refused: int) -> None:
    """A refused command among successful ones counts as success, or its reason is lost."""
    client, meddler, batch = warm(store)
    real = meddler._driver

    class Refusing:
        where = real.where
        kind = real.kind
        binary_safe = real.binary_safe

        def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
            full = Failed(StoreFull("full, on purpose"))
            return [full if i == refused else real.execute([c])[0] for i, c in enumerate(commands)]

        def close(self) -> None:
            pass

    meddler._driver = Refusing()
    with pytest.raises(StoreFull, match="dataset 'mena': full"):
        client.publish("mena", "mine", id="mine")
    meddler._driver = real
    assert ids(store) == ["before"]
    assert len(meddler.batches) == batch + 1
    assert client.publish("mena", "mine", id="mine").created
    assert ids(store) == ["before", "mine"]
