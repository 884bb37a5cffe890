"""What a store holds of a snapshot: a search of all its keys and values, also of what these encode."""

from __future__ import annotations

import binascii
import random

import attrs

from swapstore import Snapshot, Store
from swapstore.errors import SwapstoreError
from swapstore.format import bases, records
from swapstore.format.encodings import Dictionary
from swapstore.format.keys import Keys
from swapstore.models import Compression
from tests.recompress.model import D, storing
from tests.support import invariants

MARK_BYTES = 32  # that only one payload has


def name_of(number: int) -> str:
    """An id that is not part of another one."""
    return f"id-{number:04}-of-it"


def payload_of(number: int, like: int) -> bytes:
    """A payload of random bytes, like those with the same `like` but for a mark in its middle."""
    common = random.Random(like).randbytes(600)
    return common[:300] + random.Random(f"mark {number}").randbytes(MARK_BYTES) + common[300:]


def fill(store: Store, count: int, how: Compression, *, begin: int = 0, like: int = 0) -> None:
    """Publish this many snapshots, with labels and dedupe keys."""
    client = storing(store, how)
    for number in range(begin, begin + count):
        client.publish(
            D,
            payload_of(number, like),
            id=name_of(number),
            codec="bytes",
            labels={"of": f"label {number:04}"},
            dedupe_key=f"key-of-{name_of(number)}",
        )


@attrs.frozen
class Traces:
    """What shows that a snapshot was there: its content, and what a row states of it."""

    id: str
    content: bytes
    sha256: str
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, snapshot: Snapshot) -> Traces:
        return cls(snapshot.id, snapshot.raw, snapshot.sha256, tuple(snapshot.labels.values()))

    def needles(self) -> dict[str, bytes]:
        """The bytes to search for: a run of the content is enough, as a difference may copy parts of it."""
        digest = bytes.fromhex(self.sha256)
        return {
            "its id": self.id.encode(),
            "its payload": self.content[300 : 300 + MARK_BYTES],
            "its digest": self.sha256.encode(),
            "its digest, as a row has it": binascii.b2a_base64(digest, newline=False).rstrip(b"="),
            "the beginning of its digest": self.sha256[:16].encode(),
            **{f"its label {text!r}": text.encode() for text in self.labels},
        }


def found_of(traces: Traces, values: dict[str, bytes], keys: Keys, *, whose: str = D) -> list[str]:
    """Return what is found of a snapshot, and where. Payloads are decoded, with the bases that they need."""
    found = []
    for key, value in values.items():
        for content in (key.encode(), value, binascii_of(value), _decoded(key, value, values, keys, whose)):
            found += [f"{what} in {key}" for what, each in traces.needles().items() if each in content]
    return sorted(set(found))


def binascii_of(value: bytes) -> bytes:
    """The bytes of a text that holds base64 after its header line; empty for others."""
    try:
        return binascii.a2b_base64(value.partition(b"\n")[2], strict_mode=True)
    except ValueError:
        return b""


def _decoded(key: str, value: bytes, values: dict[str, bytes], keys: Keys, dataset: str) -> bytes:
    """The content that an id record or a base holds; empty for other keys, and for what cannot be decoded."""
    name = keys.parse(key)
    try:
        if name is not None and name.kind == "base":
            return bases.parse(value, name.rest, dataset=dataset, key=key).content
        if name is not None and name.kind == "id":
            held = records.held_as(value, key)
            return held.payload(None if held.base is None else _base(held.base, values, keys, dataset))
    except (SwapstoreError, KeyError):  # its base is gone
        return b""
    return b""


def _base(name: str, values: dict[str, bytes], keys: Keys, dataset: str) -> Dictionary:
    key = keys.base(dataset, name)
    return bases.parse(values[key], name, dataset=dataset, key=key)


def left_of(traces: Traces, store: Store) -> list[str]:
    """Return what the keys of a store hold of a snapshot."""
    values = {key: value for key, (value, _) in invariants.contents(store).items()}
    return found_of(traces, values, store._context.keys)
