"""Two repairs at the same time, and a repair during many publishes, by threads and by processes."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator

import pytest

import swapstore
from swapstore import Repair, Row, Store
from swapstore.errors import Contended
from swapstore.format import manifest
from tests.fsck.conftest import MANIFEST, key
from tests.support import invariants
from tests.support.damage import Damage
from tests.support.drivers import another
from tests.support.times import at

pytestmark = [pytest.mark.every_store, pytest.mark.slow]

COUNT = 75
EACH = 15


@pytest.fixture
def shared(real_url: str) -> Iterator[Store]:
    """A store with a page and a tail, which others can open by its address."""
    with swapstore.connect(real_url) as store:
        for number in range(1, COUNT + 1):
            store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number))
        yield store


def delete_manifest(store: Store) -> None:
    Damage(store).delete(MANIFEST)


def delete_page(store: Store) -> None:
    Damage(store).delete(invariants.manifest_of(store).log.pages[0].key)


def delete_payload(store: Store) -> None:
    Damage(store).delete(key("id", 7))


HARMS = (delete_manifest, delete_page, delete_payload)


def run_concurrently(*acts: Callable[[], object]) -> None:
    """Run them at the same time; raise here what one of them raises."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(acts))

    def guarded(act: Callable[[], object]) -> None:
        try:
            start.wait()
            act()
        except BaseException as error:  # noqa: BLE001 - the test tells
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def repair(url: str) -> list[Repair]:
    with swapstore.connect(url) as store:
        for _ in range(4):
            try:
                return store.repair("mena", apply=True)
            except Contended:
                continue
        return store.repair("mena", apply=True)


def produce(url: str, who: int) -> None:
    with swapstore.connect(url) as store:
        for number in range(EACH):
            store.publish("mena", {"n": number}, id=f"{who}-{number}", ts=at(1000 + number))


def check_end(store: Store, harm: Callable[[Store], None], *, acknowledged: set[str]) -> None:
    """All that was acknowledged is there, except what lost its payload; and nothing is wrong."""
    reader = another(store)
    reader.repair("mena", apply=True)
    assert [finding for finding in another(store).verify() if finding.wrong] == []
    ids = {row.id for row in invariants.check(store)}
    gone = {"id-7"} if harm is delete_payload else set()
    assert ids == {f"id-{number}" for number in range(1, COUNT + 1)} - gone | acknowledged
    assert all(reader.read("mena", id=name) is not None for name in ids)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_two_concurrent_repairs(shared: Store, real_url: str, harm: Callable[[Store], None]) -> None:
    """Two operators or cron jobs that repair at the same time damage the store, or one never ends."""
    rows: list[Row] = list(shared.history("mena", limit=None))
    harm(shared)
    run_concurrently(lambda: repair(real_url), lambda: repair(real_url), lambda: repair(real_url))
    check_end(shared, harm, acknowledged=set())
    gone = {"id-7"} if harm is delete_payload else set()
    assert list(another(shared).history("mena", limit=None)) == [row for row in rows if row.id not in gone]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_repair_during_many_publishes(shared: Store, real_url: str, harm: Callable[[Store], None]) -> None:
    """An acknowledged publish is missing after a repair."""
    harm(shared)
    run_concurrently(
        lambda: repair(real_url),
        *(lambda who=who: produce(real_url, who) for who in range(3)),
    )
    acknowledged = {f"{who}-{number}" for who in range(3) for number in range(EACH)}
    check_end(shared, harm, acknowledged=acknowledged)
    assert len(acknowledged) > manifest.F, "they sealed pages in between"


def test_repairs_and_producers_as_processes(shared: Store, real_url: str) -> None:
    """The same, when repairs and producers share nothing but the store."""
    delete_page(shared)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=repair, args=(real_url,)) for _ in range(2)]
    workers += [context.Process(target=produce, args=(real_url, who)) for who in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    acknowledged = {f"{who}-{number}" for who in range(2) for number in range(EACH)}
    check_end(shared, delete_page, acknowledged=acknowledged)
