"""Times that cannot be meant, and clocks that are wrong, on every kind of store."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import msgspec
import pytest

import swapstore
from swapstore import Store
from swapstore.commands import Command, Failed, Time
from swapstore.doctor.check import Verdict
from swapstore.errors import Corrupt, InvalidInput, ReplyLost, Unsupported
from swapstore.protocol.context import SystemClock
from swapstore.testing import VirtualClock
from swapstore.validators import must_be_newer
from tests.retention.model import keeping
from tests.support import invariants
from tests.support.drivers import Meddler, another
from tests.support.times import soon

DAY = 86_400_000


def now() -> int:
    return time.time_ns() // 1_000_000


def with_clock(store: Store, ms: int, **policy: Any) -> Store:
    """Another client, whose clock says something else, and stands still."""
    context = another(store)._context
    changed = msgspec.structs.replace(context.policy, **policy)
    return Store(store._driver, msgspec.structs.replace(context, clock=VirtualClock(ms), policy=changed))


def has_clock(store: Store) -> bool:
    return store._driver.kind != "sqlite"


# --- what callers give -------------------------------------------------------------------------------


@pytest.mark.every_store
@pytest.mark.parametrize(
    ("ts", "says"),
    [
        (int(time.time()), "(seconds, perhaps? Then give"),
        (time.time_ns(), "(nanoseconds, perhaps? Then give"),
        (0, "between 1990"),
        (now() + 2 * DAY, "ahead of this machine's clock"),
        (datetime(2199, 1, 1, tzinfo=UTC), "ahead of this machine's clock"),
    ],
    ids=["seconds", "nanoseconds", "zero", "two days ahead", "2199"],
)
def test_a_time_that_cannot_be_meant_is_refused(store: Store, ts: Any, says: str) -> None:
    """A snapshot of 1970 is seen by nobody; one of 2199 keeps all others from being served."""
    store.publish("mena", "served", id="served")
    before = invariants.contents(store)
    with pytest.raises(InvalidInput, match=re.escape(says)):
        store.publish("mena", "lost", ts=ts)
    for values, given in (
        ({"mena": 1, "europe": 2}, ts),
        ({"mena": 1, "europe": swapstore.Item(2, ts=ts)}, None),
    ):
        with pytest.raises(InvalidInput, match=re.escape(says)):
            store.publish_many(values, ts=given)
    assert invariants.contents(store) == before, "nothing was written"
    if not isinstance(ts, datetime) and ts < now():
        with pytest.raises(InvalidInput, match=re.escape(says)):
            store.read("mena", as_of=ts)
        for bound in ("since", "until"):
            with pytest.raises(InvalidInput, match=re.escape(says)):
                store.history("mena", **{bound: ts})


def test_times_near_the_bounds_are_accepted(store: Store) -> None:
    """Weather of 1985, or a forecast for this evening, cannot be published."""
    assert store.publish("mena", 1, ts=datetime(1985, 1, 1, tzinfo=UTC)).is_latest
    assert store.publish("mena", 2, ts=soon()).is_latest
    snapshot = store.read("mena", as_of=datetime(1985, 1, 2, tzinfo=UTC))
    assert snapshot is not None
    assert snapshot.value == 1
    assert store.read("mena", as_of=now() + 900 * DAY) is not None


def test_the_bound_is_an_option(tmp_path: Any) -> None:
    """A producer of forecasts for next week cannot publish them."""
    next_week = now() + 7 * DAY
    url = f"sqlite:///{tmp_path}/store.db"
    for bound in (timedelta(days=8), None):
        with swapstore.connect(url, max_ahead=bound) as store:
            assert store.publish("mena", str(bound), ts=next_week).is_latest
    for bad in (3600, timedelta(seconds=-1)):
        with pytest.raises(InvalidInput, match="max_ahead"):
            swapstore.connect(url, max_ahead=bad)  # type: ignore[arg-type]


# --- clocks that are ahead ---------------------------------------------------------------------------


def forty_days(store: Store) -> Store:
    """Publish one snapshot a day for forty days until now, each by a clock that was right then."""
    for days in range(39, -1, -1):
        with_clock(store, now() - days * DAY).publish("mena", days, id=f"{days}-days-ago")
    return store


def ids(store: Store) -> list[str]:
    return [row.id for row in another(store).history("mena", limit=None)]


@pytest.mark.every_store
def test_a_clock_a_year_ahead_hides_no_history(store: Store) -> None:
    """One machine without NTP removes the whole history in one publish, or one prune."""
    forty_days(store)
    ahead = keeping(with_clock(store, now() + 365 * DAY), max_age=timedelta(days=90))
    if has_clock(store):
        before = invariants.contents(store)
        for attempt in (lambda: ahead.publish("mena", "ahead"), lambda: ahead.prune("mena")):
            with pytest.raises(InvalidInput, match=r"36[45] days ahead of the store's; nothing was changed"):
                attempt()
        assert invariants.contents(store) == before, "nothing was written"
    else:
        for _ in range(3):
            ahead.prune("mena")
        ahead.publish("mena", "ahead", id="ahead", ts=now())
    assert len([each for each in ids(store) if each != "ahead"]) == 40
    invariants.check(store)


@pytest.mark.every_store
def test_a_right_clock_after_a_long_pause_hides_what_it_should(store: Store) -> None:
    """A dataset that was not published for weeks can never be pruned again."""
    with_clock(store, now() - 200 * DAY).publish("mena", "old", id="old")
    with_clock(store, now() - 60 * DAY).publish("mena", "older", id="older")
    keeping(another(store), max_age=timedelta(days=50)).publish("mena", "new", id="new")
    kept = ["new"] if has_clock(store) else ["new", "older"]
    assert ids(store) == kept, "a SQLite file has no clock to ask"
    keeping(with_clock(store, now(), max_ahead_ms=None), max_age=timedelta(days=50)).prune("mena")
    assert ids(store) == ["new"]


@pytest.mark.every_store
def test_a_clock_that_is_hours_ahead_is_right_enough_after_a_pause(store: Store) -> None:
    """After a quiet week, a producer whose clock is a little ahead can never publish again."""
    with_clock(store, now() - 7 * DAY).publish("mena", "old", id="old")
    ahead = keeping(with_clock(store, now() + DAY // 4), max_age=timedelta(days=30))
    assert ahead.prune("mena").let_go == 0
    assert ahead.publish("mena", "new", id="new").is_latest
    assert ids(store) == ["new", "old"]


@pytest.mark.every_store
def test_a_prune_by_count_asks_no_clock(store: Store) -> None:
    """A machine without NTP cannot free memory, although no age counts."""
    for number in range(3):
        store.publish("mena", number, id=f"id-{number}")
    ahead = keeping(with_clock(store, now() + 365 * DAY), max_count=1)
    ahead.prune("mena")
    assert ids(store) == ["id-2"]


class Clockless(Meddler):
    """A store that does not tell its time, or whose answer is lost so often at first."""

    def __init__(self, store: Store, losses: int | None = None) -> None:
        super().__init__(store._driver)
        self.losses = losses
        self.asked = 0

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        if not isinstance(commands[0], Time):
            return super().execute(commands)
        self.asked += 1
        if self.losses is None:
            return [Failed(Unsupported("no TIME here"))]
        if self.asked <= self.losses:
            raise ReplyLost("lost, on purpose")
        return super().execute(commands)


def test_a_store_that_does_not_tell_its_time(store: Store) -> None:
    """A user who may not send TIME, or a proxy that does not know it, cannot publish after a long pause."""
    with_clock(store, now() - 60 * DAY).publish("mena", "old", id="old")
    driver = Clockless(store)
    client = keeping(Store(driver, another(store)._context), max_age=timedelta(days=50))
    assert client.publish("mena", "new", id="new").is_latest
    assert driver.asked == 1
    assert ids(store) == ["new", "old"], "it is hidden a publish later"
    client.publish("mena", "next", id="next")
    assert (driver.asked, ids(store)) == (1, ["next", "new"])


def test_a_lost_answer_is_asked_for_again(store: Store) -> None:
    """One lost packet fails the first publish after a pause."""
    with_clock(store, now() - 60 * DAY).publish("mena", "old", id="old")
    driver = Clockless(store, losses=2)
    assert Store(driver, another(store)._context).publish("mena", "new").is_latest
    assert driver.asked == 3


def test_the_stores_time_is_asked_for_only_after_a_pause(store: Store) -> None:
    """Every publish takes one more round trip."""
    driver = Clockless(store)
    client = keeping(Store(driver, another(store)._context), 100, timedelta(days=1))
    for number in range(5):
        client.publish("mena", number)
    client.prune("mena")
    assert driver.asked == 0


# --- clocks that are behind --------------------------------------------------------------------------


@pytest.mark.every_store
@pytest.mark.parametrize("how", ["confirm", "publish"])
def test_a_slow_clock_does_not_take_a_confirmation_back(store: Store, how: str) -> None:
    """A monitor raises an alarm about data that was confirmed a moment ago."""
    first = now()
    with_clock(store, first).publish("mena", 1)
    slow = with_clock(store, first - 3 * 3_600_000)
    _ = slow.confirm("mena") if how == "confirm" else slow.publish("mena", 2)
    status = store.status("mena")
    assert status is not None
    assert status.confirmed_at == first


def test_a_confirmation_by_a_clock_days_ahead_does_not_last(store: Store) -> None:
    """After one producer with a wrong clock, a monitor cannot notice a dead producer for a year."""
    with_clock(store, now()).publish("mena", 1)
    with_clock(store, now() + 365 * DAY).confirm("mena")
    status = another(store).confirm("mena")
    assert abs(status.confirmed_age_ms) < 60_000


def test_must_be_newer_accepts_a_publish_without_a_ts(store: Store) -> None:
    """Two publishes within a millisecond, and every one by a machine whose clock is behind, are refused."""
    newer = must_be_newer()
    for client in (with_clock(store, now()), with_clock(store, now() - DAY)):
        for number in range(20):
            assert client.publish("mena", number, validate=newer).is_latest


# --- what an operator is told ------------------------------------------------------------------------


def check_of(store: Store) -> Any:
    (found,) = [check for check in store.doctor() if check.name == "times"]
    return found


@pytest.mark.every_store
def test_doctor_names_datasets_from_the_future(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A latest of next year keeps every publish from being served, and nobody sees why."""
    store.publish("europe", 1)
    assert check_of(store).verdict is Verdict.OK
    with_clock(store, now() + 30 * DAY, max_ahead_ms=None).publish("mena", 1, ts=now() + 30 * DAY)
    found = check_of(store)
    assert (found.verdict, "mena" in found.found, "europe" in found.found) == (Verdict.WARNING, True, False)
    monkeypatch.setattr(SystemClock, "now_ms", lambda _: time.time_ns() // 1_000_000 + 31 * DAY)
    assert check_of(store).verdict is Verdict.OK


@pytest.mark.every_store
def test_when_is_ts_as_a_datetime(store: Store) -> None:
    """A caller computes a datetime from `ts`, and is a thousand times, or a time zone, off."""
    moment = datetime(2026, 1, 31, 18, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
    seen: list[datetime] = []
    commit = store.publish("mena", 1, ts=moment, validate=lambda candidate, _: seen.append(candidate.when))
    snapshot, status = store.read_latest("mena"), store.status("mena")
    assert snapshot is not None
    assert status is not None
    seen += [commit.when, snapshot.when, status.latest.when, *(row.when for row in store.history("mena"))]
    assert seen == [moment] * 5
    assert {each.utcoffset() for each in seen} == {timedelta(0)}


@pytest.mark.parametrize("ts", [2**53 - 1, -(2**53 - 1)])
def test_when_of_a_damaged_ts_says_so(store: Store, ts: int) -> None:
    """A row whose stored `ts` no datetime can hold raises an OverflowError."""
    store.publish("mena", 1)
    (row,) = store.history("mena")
    with pytest.raises(Corrupt, match="damaged"):
        _ = attrs.evolve(row, ts=ts).when
