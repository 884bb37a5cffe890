"""The kinds of damage to a dataset on the simulated store."""

from __future__ import annotations

from collections.abc import Callable

from tests.fsck.simulated import MANIFEST, SimulatedDataset, key
from tests.support.times import at

Harm = Callable[[SimulatedDataset], None]


def manifest_deleted(dataset: SimulatedDataset) -> None:
    dataset.delete(MANIFEST)


def manifest_truncated(dataset: SimulatedDataset) -> None:
    dataset.alter(MANIFEST, lambda raw: raw[: len(raw) - 20])


def page_deleted(dataset: SimulatedDataset) -> None:
    dataset.delete(dataset.pages()[0])


def page_altered(dataset: SimulatedDataset) -> None:
    dataset.alter(dataset.pages()[-1], lambda raw: raw[:-1] + b"!")


def page_of_references_deleted(dataset: SimulatedDataset) -> None:
    dataset.delete(dataset.pages(of_references=True)[0])


def id_deleted(dataset: SimulatedDataset) -> None:
    dataset.delete(key("id", 1))


def latest_altered(dataset: SimulatedDataset) -> None:
    dataset.alter(key("id", len(dataset.rows)), lambda raw: raw[:-1] + b"!")


def ts_deleted(dataset: SimulatedDataset) -> None:
    dataset.delete(key("ts", 2))


def ts_altered(dataset: SimulatedDataset) -> None:
    dataset.alter(key("ts", 3), lambda raw: raw.replace(b'"entry":"', b'"entry":"?'))


def record_leaked(dataset: SimulatedDataset) -> None:
    dataset.cut_off("torn")


def page_leaked(dataset: SimulatedDataset) -> None:
    dataset.put("swapstore:page:{mena}:abcdef.1-2", b'{"page":"abcdef.1-2"}\n')


def name_lost(dataset: SimulatedDataset) -> None:
    dataset.sim.keyspace.sets.clear()


def manifest_expiring(dataset: SimulatedDataset) -> None:
    dataset.expire(MANIFEST)


def manifest_published_over(dataset: SimulatedDataset) -> None:
    dataset.delete(MANIFEST)
    other = dataset.sim.connect()
    number = len(dataset.rows) + 1
    other.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number))
    dataset.rows.extend(dataset.history())


HARMS: tuple[Harm, ...] = (
    manifest_deleted,
    manifest_truncated,
    page_deleted,
    page_altered,
    page_of_references_deleted,
    id_deleted,
    latest_altered,
    ts_deleted,
    ts_altered,
    record_leaked,
    page_leaked,
    name_lost,
    manifest_published_over,
)


# --- of a dataset that is stored as differences from bases -------------------------------------------


def base_deleted(dataset: SimulatedDataset) -> None:
    dataset.delete(dataset.bases()[0])


def base_in_force_altered(dataset: SimulatedDataset) -> None:
    dataset.alter(dataset.bases()[-1], lambda raw: raw[:-1] + b"!")


def base_and_manifest_deleted(dataset: SimulatedDataset) -> None:
    dataset.delete(MANIFEST, dataset.bases()[1])


def base_leaked(dataset: SimulatedDataset) -> None:
    dataset.put(dataset.bases()[0].replace("{mena}:", "{mena}:1"), b"{}\n")


HARMS_OF_BASES: tuple[Harm, ...] = (
    base_deleted,
    base_in_force_altered,
    base_and_manifest_deleted,
    base_leaked,
)
