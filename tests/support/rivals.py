"""Producers that know the dataset already, and rivals that commit before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swapstore import Store
from swapstore.commands import Command, Swap
from swapstore.format.manifest import Manifest
from swapstore.protocol.context import Policy
from tests.store.test_damage import MANIFEST, alter
from tests.support.drivers import Meddler, meddled

PATIENT = Policy(first_wait_s=0, longest_wait_s=0)


def warm(store: Store) -> tuple[Store, Meddler, int]:
    """A producer that knows the manifest, its meddler, and the number of its next batch."""
    client, meddler = meddled(store, policy=PATIENT)
    client.read_latest("mena")
    list(client.history("mena", limit=1))  # a first read brings one line of the manifest
    client._context.cache.note_listed(MANIFEST)
    return client, meddler, len(meddler.batches)


def known_to(client: Store) -> Manifest:
    known = client._context.cache.known(MANIFEST)
    assert known is not None
    return known.manifest


def put_in_place(store: Store, manifest: Manifest) -> None:
    """Replace the stored manifest with this one, as a prune would."""
    alter(store, MANIFEST, lambda _: manifest.raw)


class Rivals:
    """Each rival commits right before one of this producer's commits, until there are no more."""

    def __init__(self, store: Store, meddler: Meddler, rivals: int) -> None:
        self._store, self._real, self._left = store, meddler._driver, rivals
        self.where = self._real.where
        self.kind = self._real.kind
        self.binary_safe = self._real.binary_safe
        meddler._driver = self

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        if isinstance(commands[-1], Swap) and self._left:
            self._left -= 1
            self._store.publish("mena", "rival", id=f"rival-{self._left}")
        return self._real.execute(commands)

    def close(self) -> None:
        pass
