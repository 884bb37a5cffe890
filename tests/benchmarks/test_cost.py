"""The cost model of costs.md, counted on a real server: round trips, commands and bytes on the wire."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import attrs
import msgspec
import pytest

import swapstore
from swapstore import Store, arguments
from swapstore.cache import Cache
from tests.benchmarks import payloads
from tests.support import bulk
from tests.support.meter import Meter, Tally
from tests.support.proxy import Proxy
from tests.support.valkey import Server

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "costs.md"
BEGAN_MS = 1_790_000_000_000
PAYLOAD = b"x" * 1024
VERSIONS = 100
DEEP = 16_384
DATASETS = tuple(f"region-{number}" for number in range(8))

# Of the bytes: other versions of servers and protocols need some bytes more or less.
RELATIVE, ABSOLUTE = 0.02, 16
ROW = re.compile(r"^\| (`[^|]+) \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", re.MULTILINE)


class Counted:
    """Clients on one connection whose traffic is counted, and the datasets that they work on."""

    def __init__(self, store: Store, proxy: Proxy) -> None:
        self.meter = Meter(store._driver, proxy)
        self.store = store  # not counted
        self.context = store._context
        self.found: dict[str, Tally] = {}
        self.ts = BEGAN_MS

    def client(self) -> Store:
        """Make a client with an empty cache."""
        return Store(self.meter, msgspec.structs.replace(self.context, cache=Cache(1 << 20)))

    def publish(self, client: Store, dataset: str = "mena") -> None:
        """Publish a payload with its own ts."""
        self.ts += 1
        client.publish(dataset, PAYLOAD, ts=self.ts, codec="bytes")

    def note(self, name: str, act: Callable[[], object]) -> None:
        """Count the cost of a call."""
        cost = self.meter.of(act)
        self.found[name] = cost.rest + cost.pages

    def row(self, name: str) -> tuple[int, ...]:
        """Return a row of the table."""
        return tuple(int(count) for count in attrs.astuple(self.found[name]))


@pytest.fixture(scope="module")
def counted(servers: Callable[[str], Server]) -> Iterator[Counted]:
    """The cost of each operation, after a hundred publishes."""
    server = servers("valkey")
    with Proxy(server.port) as proxy, swapstore.connect(proxy.url, namespace="cost") as store:
        made = Counted(store, proxy)
        producer = made.client()
        for dataset in ("mena", *DATASETS):
            for _ in range(VERSIONS if dataset == "mena" else 1):
                made.publish(producer, dataset)
        publishes(made, producer)
        reads(made, producer)
        batches(made, producer)
        groups(made)
        made.note("`confirm`, warm", lambda: producer.confirm("mena"))
        (newest,) = producer.history("mena", limit=1)
        made.note("`pin`, warm", lambda: producer.pin("mena", id=newest.id))
        made.note("`status`, warm", lambda: producer.status("mena"))
        yield made


def publishes(made: Counted, producer: Store) -> None:
    """Count publishes of one dataset."""
    made.note("`publish`, warm", lambda: made.publish(producer))
    made.note("`publish`, cold", lambda: made.publish(_listed(made)))
    made.note("`publish`, another commit came first", lambda: made.publish(producer))


def reads(made: Counted, producer: Store) -> None:
    """Count reads of one dataset."""
    reader, cold = made.client(), made.client()
    made.note("`read_latest`, cold", lambda: reader.read_latest("mena"))
    made.note("`read_latest`, nothing new", lambda: reader.read_latest("mena"))
    made.note("`read_latest` within `max_staleness`", lambda: reader.read_latest("mena", max_staleness=60))
    made.publish(producer)
    made.note("`read_latest`, a new version", lambda: reader.read_latest("mena"))
    made.publish(producer)
    rows = list(producer.history("mena", limit=5))
    made.note("`read(version=…)`, in the newest 32, cold", lambda: cold.read("mena", version=rows[0].version))
    made.note("`read(version=…)`, in the newest 32, warm", lambda: cold.read("mena", version=rows[1].version))
    made.note("`read(id=…)`, in the newest 32, warm", lambda: cold.read("mena", id=rows[2].id))
    made.note("`read(as_of=…)`, in the newest 32, warm", lambda: cold.read("mena", as_of=rows[3].ts))
    bulk.extend(made.store, "deep", to=DEEP, recorded=False)
    old = bulk.made(1)
    bulk.record(made.store, "deep", [1])
    ways: dict[str, Callable[[Store], object]] = {
        "version=…": lambda client: client.read("deep", version=1),
        "id=…": lambda client: client.read("deep", id=old.id),
        "as_of=…": lambda client: client.read("deep", as_of=old.ts),
    }
    for name, read in ways.items():
        client = made.client()
        client.read("deep", version=DEEP)  # the manifest is known, and no page is
        made.note(f"`read({name})`, the oldest of {DEEP:,}, warm", partial(read, client))


def batches(made: Counted, producer: Store) -> None:
    """Count publishes and reads of eight datasets at once."""
    values = dict.fromkeys(DATASETS, PAYLOAD)
    made.note(
        "`publish_many` of 8, warm",
        lambda: producer.publish_many(values, ts=made.ts, codec="bytes").raise_for_failures(),
    )
    cold = _listed(made)
    made.note(
        "`publish_many` of 8, cold",
        lambda: cold.publish_many(values, ts=made.ts, codec="bytes").raise_for_failures(),
    )
    reader = made.client()
    made.note("`read_latest_many` of 8, cold", lambda: reader.read_latest_many(DATASETS))
    made.note("`read_latest_many` of 8, nothing new", lambda: reader.read_latest_many(DATASETS))


def groups(made: Counted) -> None:
    """Count publishes and reads of groups of eight members of 1 KB; one differs from version to version."""
    members = {f"member-{number}": payloads.payload(1024, number) for number in range(8)}
    policy = made.context.policy
    for compression, with_delta in {"none": "", "delta": ", with `delta`"}.items():
        dataset = f"group-{compression}"
        made.context = msgspec.structs.replace(
            made.context,
            policy=msgspec.structs.replace(policy, compression=arguments.compression(compression)),
        )
        producer, reader, whole = made.client(), made.client(), made.client()

        def publish(number: int, producer: Store = producer, dataset: str = dataset) -> None:
            changed = {"member-0": payloads.payload(1024, 8 + number)}
            producer.publish_group(dataset, members | changed, ts=made.ts + number, codec="bytes")

        publish(0)
        made.note(f"`publish_group` of 8, warm{with_delta}", partial(publish, 1))
        one = partial(reader.read_group, dataset, members=["member-0"])
        made.note(f"`read_group` of one member of 8, cold{with_delta}", one)
        made.note(f"`read_group` of all 8, cold{with_delta}", partial(whole.read_group, dataset))
        publish(2)
        made.note(f"`read_group` of one member of 8, a new version{with_delta}", one)
    made.context = msgspec.structs.replace(made.context, policy=policy)


def _listed(made: Counted) -> Store:
    """Make a client without a manifest; its dataset was put on the list of names before."""
    client = made.client()
    for dataset in ("mena", *DATASETS):
        client._context.cache.note_listed(client._context.keys.manifest(dataset))
    return client


def documented() -> dict[str, tuple[int, ...]]:
    """Return the table of the document."""
    rows = ROW.findall(DOCUMENT.read_text("utf-8"))
    return {name: tuple(int(count.replace(",", "")) for count in counts) for name, *counts in rows}


def test_the_table_has_what_is_counted(counted: Counted) -> None:
    """The table lacks an operation, or has one that no test counts."""
    assert list(documented()) == list(counted.found)


def test_the_figures_are_those_of_the_document(counted: Counted) -> None:
    """The table is out of date: a distant producer pays a round trip that the page does not show."""
    told = documented()
    wrong = []
    for name in counted.found:
        trips, commands, sent, received = counted.row(name)
        expected = told.get(name, (0, 0, 0, 0))
        exact = (trips, commands) == expected[:2]
        if not exact or (sent, received) != pytest.approx(expected[2:], rel=RELATIVE, abs=ABSOLUTE):
            wrong.append(f"| {name} | {trips} | {commands} | {sent:,} | {received:,} |")
    assert not wrong, "counted, as the document would say it:\n" + "\n".join(wrong)
