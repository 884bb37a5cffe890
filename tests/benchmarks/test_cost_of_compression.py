"""The table of costs.md about compression, counted on a real server: round trips, bytes on the wire."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import swapstore
from swapstore import Store
from swapstore.cache import Cache
from tests.benchmarks import payloads, sequences
from tests.support.meter import Meter, Tally
from tests.support.proxy import Proxy
from tests.support.valkey import Server

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "costs.md"
VERSIONS = 48  # whole cycles of pages; each figure is a mean over them
RELATIVE = 0.05  # of the bytes: other versions of zstd compress differently
WAYS: tuple[Any, ...] = ("none", "zstd", "delta")
CALLS = ("`publish`, warm", "`read_latest`, a new version", "`read_latest`, cold")
ROW = re.compile(r"^\| ([\d]+ KB), (\w+) \| (`[^|]+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", re.MULTILINE)

Table = dict[tuple[str, str, str], Tally]


def documents() -> dict[str, list[bytes]]:
    """Versions of documents of three sizes. Those of 1 KB have little in common."""
    made = {"1 KB": [payloads.payload(1024, seed) for seed in range(VERSIONS + 1)]}
    return made | {size: sequences.generated(size, VERSIONS + 1) for size in ("15 KB", "100 KB")}


@pytest.fixture(scope="module")
def counted(servers: Callable[[str], Server]) -> Table:
    """The mean cost of each call, by size, compression and call."""
    found: Table = {}
    with Proxy(servers("valkey").port) as proxy:
        for size, versions in documents().items():
            for way in WAYS:
                namespace = f"{size.split()[0]}-{way}"
                with swapstore.connect(proxy.url, namespace=namespace, compression=way) as store:
                    for call, total in costs(store, proxy, versions).items():
                        found[size, way, call] = total / VERSIONS
    return found


def costs(store: Store, proxy: Proxy, versions: list[bytes]) -> dict[str, Tally]:
    """Publish each version, and read it: the cost of all but the first, by call."""
    meter = Meter(store._driver, proxy)

    def client() -> Store:
        return Store(meter, msgspec.structs.replace(store._context, cache=Cache(8 << 20)))

    producer, reader = client(), client()
    totals = dict.fromkeys(CALLS, Tally())
    for number, payload in enumerate(versions):
        cold = client()
        acts: dict[str, Callable[[], object]] = {
            CALLS[0]: partial(producer.publish, "document", payload, codec="bytes"),
            CALLS[1]: partial(reader.read_latest, "document"),
            CALLS[2]: partial(cold.read_latest, "document"),
        }
        for call, act in acts.items():
            cost = meter.of(act)
            if number:
                totals[call] += cost.rest + cost.pages
        proxy.requests.clear()
    return totals


def test_the_figures_are_those_of_the_document(counted: Table) -> None:
    """The table is out of date: a publish that brings a base pays a round trip, or sends what it need not."""
    told = {
        (size, way, call): (float(trips), *(int(each.replace(",", "")) for each in amounts))
        for size, way, call, trips, *amounts in ROW.findall(DOCUMENT.read_text("utf-8"))
    }
    wrong = []
    for (size, way, call), cost in counted.items():
        expected = told.get((size, way, call), (0, 0, 0))
        found = (cost.round_trips, cost.sent, cost.received)
        if found[0] != expected[0] or found[1:] != pytest.approx(expected[1:], rel=RELATIVE, abs=8):
            trips, sent, received = found
            wrong.append(f"| {size}, {way} | {call} | {trips:g} | {sent:,.0f} | {received:,.0f} |")
    assert not wrong, "counted, as the document would say it:\n" + "\n".join(wrong)
    assert list(told) == list(counted)
