"""Costs do not depend on depth: counted at 100 and at 16,384 versions. The benchmark counts a million."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import swapstore
from swapstore import Store
from swapstore.format.manifest import F
from swapstore.format.search import BATCH_PAGES
from tests.benchmarks import depth
from tests.benchmarks.costs import BOUNDED, DATASET, PUBLISHES, Bed, Costs, ratios, walk
from tests.support import bulk
from tests.support.meter import Cost, Meter, Tally
from tests.support.proxy import Proxy
from tests.support.valkey import Server

SHALLOW, DEEP = 100, 16_384  # deep, and wide: many references
HEIGHTS = 4  # of the pages at 16,384 versions: rows, then three levels of references


@pytest.fixture(scope="module", params=["sqlite", "valkey"])
def costs(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    servers: Callable[[str], Server],
) -> tuple[Costs, Costs]:
    """The cost of each operation on a shallow and on a deep dataset, on each kind of store."""
    if request.param == "sqlite":
        with swapstore.connect(f"sqlite:///{tmp_path_factory.mktemp('depth')}/store.db") as store:
            bed = Bed(store, store)
            return bed.measure(SHALLOW), bed.measure(DEEP)
    server = servers("valkey")
    with (
        Proxy(server.port) as proxy,
        swapstore.connect(server.url) as store,
        swapstore.connect(proxy.url) as metered,
    ):
        bed = Bed(store, metered, proxy)
        return bed.measure(SHALLOW), bed.measure(DEEP)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Store]:
    """A store with a deep dataset."""
    with swapstore.connect(f"sqlite:///{tmp_path}/store.db", cache_bytes=0) as store:
        bulk.extend(store, DATASET, to=DEEP, recorded=False)
        yield store


@pytest.mark.parametrize("name", BOUNDED)
def test_no_operation_costs_more_on_a_deep_dataset(name: str, costs: tuple[Costs, Costs]) -> None:
    """A producer that has published for years, or its readers, pay more than in the first week."""
    shallow, deep = (each[name] for each in costs)
    round_trips, size = ratios(deep, shallow)
    assert round_trips == 1
    assert size <= 1.3, "the bound of the bench is for the depth with the most references"
    assert deep.pages.round_trips <= HEIGHTS
    assert (deep.pages.round_trips > 1) == name.startswith("read("), "only a lookup reads pages"


def test_round_trips_are_those_of_the_documentation(
    costs: tuple[Costs, Costs], request: pytest.FixtureRequest
) -> None:
    """The page gives other round trips than an operation takes, or the meter misses a payload."""
    found, _ = costs
    # A server returns the manifest and the record that it serves in one round trip.
    cold = 1 if request.node.callspec.params["costs"] == "valkey" else 2
    trips = {name: cost.rest.round_trips for name, cost in found.items()}
    assert [trips[name] for name in PUBLISHES] == [1, 1, 2]
    assert [trips[f"read_latest, {how}"] for how in ("nothing new", "a new version", "cold")] == [1, 2, cold]
    assert [trips[f"read({what}), warm"] for what in ("as_of", "version", "id")] == [2, 2, 2]
    assert [trips[f"read({what}), cold"] for what in ("as_of", "version", "id")] == [2, 2, 2]
    more = found["publish 10 KB, warm"].rest.sent - found["publish 1 KB, warm"].rest.sent
    assert 9 * 1024 <= more < 9 * 1024 + 400, "and the header once more: a record of 10 KB goes by itself"


def test_the_history_loads_a_page_when_it_is_reached(deep: Store) -> None:
    """A reader of the newest rows of a long history loads the rest of it, or takes a round trip a page."""
    meter = Meter(deep._driver)
    rows = Store(meter, deep._context).history(DATASET, limit=None)
    for taken in range(1, 1001):
        assert next(rows).version == DEEP + 1 - taken
        assert meter.cost.pages.round_trips <= taken / (BATCH_PAGES * F) * 9 / 8 + HEIGHTS
        assert meter.cost.pages.commands <= taken / F * 8 / 7 + 2 * BATCH_PAGES
    assert meter.cost.pages.commands >= (1000 - 2 * F) / F


def test_the_history_is_never_held_whole(deep: Store) -> None:
    """A walk through a long history needs memory for all of it, instead of a batch of pages."""
    walk(deep, rows=None)  # Python keeps up to 2000 freed tuples of each length: let it have them
    some, whole = walk(deep, rows=2000), walk(deep, rows=None)
    assert (some.rows, whole.rows) == (2000, DEEP)
    assert whole.bytes > 8 * whole.peak_bytes
    assert whole.peak_bytes < 1.25 * some.peak_bytes, "for eight times the rows"


def test_the_bench_prints_its_tables_and_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make bench` does not show the figures of each depth, or does not write them."""
    monkeypatch.setattr(depth, "STORES", ["sqlite"])
    where = tmp_path / "figures.json"
    assert depth.main(["--versions", "100,200", "--json", str(where)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "200 versions: round trips and bytes at most 1.5 times those at 100: 12 of 12, all met" in shown
    (sqlite,) = json.loads(where.read_text("utf-8"))
    assert sqlite["costs"]["200"]["read_latest, cold"]["rest"]["round_trips"] == 2


def test_the_bench_fails_when_a_target_is_missed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cost that grows with depth is not named, or `make bench` succeeds."""

    def grown(kind: str, depths: list[int]) -> depth.Findings:
        costs = {each: dict.fromkeys(BOUNDED, Cost(Tally(1, 1, 1000, 0))) for each in depths}
        costs[max(depths)]["read(id), cold"] = Cost(Tally(1, 1, 1501, 0))
        return depth.Findings(kind, costs, dict.fromkeys(depths, 2), [])

    monkeypatch.setattr(depth, "count", grown)
    assert depth.main(["--versions", "100,200"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "11 of 12, MISSED: read(id), cold" in shown
