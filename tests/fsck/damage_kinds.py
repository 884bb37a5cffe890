"""Kinds of damage to a dataset on the simulated store."""

from __future__ import annotations

from collections.abc import Callable

from tests.fsck.simulated import MANIFEST, Clinic, key

Harm = Callable[[Clinic], None]


def manifest_deleted(clinic: Clinic) -> None:
    clinic.delete(MANIFEST)


def manifest_truncated(clinic: Clinic) -> None:
    clinic.alter(MANIFEST, lambda raw: raw[: len(raw) - 20])


def page_deleted(clinic: Clinic) -> None:
    clinic.delete(clinic.pages()[0])


def page_altered(clinic: Clinic) -> None:
    clinic.alter(clinic.pages()[-1], lambda raw: raw[:-1] + b"!")


def page_of_references_deleted(clinic: Clinic) -> None:
    clinic.delete(clinic.pages(of_references=True)[0])


def id_deleted(clinic: Clinic) -> None:
    clinic.delete(key("id", 1))


def latest_altered(clinic: Clinic) -> None:
    clinic.alter(key("id", len(clinic.rows)), lambda raw: raw[:-1] + b"!")


def ts_deleted(clinic: Clinic) -> None:
    clinic.delete(key("ts", 2))


def ts_altered(clinic: Clinic) -> None:
    clinic.alter(key("ts", 3), lambda raw: raw.replace(b'"size"', b'"Size"'))


def record_leaked(clinic: Clinic) -> None:
    clinic.torn("torn")


def page_leaked(clinic: Clinic) -> None:
    clinic.put("swapstore:page:{mena}:abcdef.1-2", b'{"page":"abcdef.1-2"}\n')


def name_lost(clinic: Clinic) -> None:
    clinic.sim.keyspace.sets.clear()


def manifest_expiring(clinic: Clinic) -> None:
    clinic.expire(MANIFEST)


def manifest_published_over(clinic: Clinic) -> None:
    clinic.delete(MANIFEST)
    other = clinic.sim.connect()
    number = len(clinic.rows) + 1
    other.publish("mena", {"n": number}, id=f"id-{number}", ts=number)
    clinic.rows.extend(clinic.history())


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
