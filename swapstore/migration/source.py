"""Reads the old layout: names with SCAN, indexes with ZSCAN, one payload at a time with GET. It never writes.

Names and scores are held in memory, and one payload at most. Nothing is retried: after a failure, run the
import again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs
import msgspec

from swapstore.commands import Ask, Command, Failed, Get, Peek, Scan
from swapstore.errors import Corrupt, Misconfigured, Unavailable, Unsupported

if TYPE_CHECKING:
    from swapstore.drivers.base import Driver
    from swapstore.migration.layout import Layout

R = TypeVar("R")

PER_REPLY = 1000  # names or members in one reply, about


@attrs.frozen
class Catalog:
    """The keys of the layout that exist.

    `times` are the times in each region's by-time keys, as they are written there. `ids` are the ids in the
    by-id keys, `regions` all regions that any key names.
    """

    regions: set[str] = attrs.field(factory=set)
    ids: set[str] = attrs.field(factory=set)
    times: dict[str, set[str]] = attrs.field(factory=dict)


@attrs.frozen
class PayloadFields:
    """What a payload states about itself. None: it does not."""

    id: str | None = None
    region: str | None = None
    ts: float | None = None


@attrs.frozen
class Seen:
    """What identifies a payload that was read: its digest, and what it states about itself."""

    digest: bytes
    fields: PayloadFields


class Source:
    """The old layout on a Redis or Valkey server, or behind a REST endpoint."""

    def __init__(self, driver: Driver, layout: Layout) -> None:
        self._driver = driver
        self.layout = layout

    @property
    def where(self) -> str:
        """The server's address, for messages, without user and password."""
        return self._driver.where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.close()

    def catalog(self) -> Catalog:
        """List the keys of the layout, in one pass."""
        layout, found = self.layout, Catalog()
        latest, index = layout.matcher(layout.latest_key), layout.matcher(layout.index_key)
        by_id, by_ts = layout.matcher(layout.by_id_key), layout.matcher(layout.by_ts_key)
        cursor: str | None = ""
        while cursor is not None:
            scanned = self._ask(Scan(layout.glob(), cursor, PER_REPLY))
            cursor = scanned.cursor
            for key in scanned.keys:
                if name := latest.fullmatch(key) or index.fullmatch(key):
                    found.regions.add(name["region"])
                elif name := by_ts.fullmatch(key):
                    found.regions.add(name["region"])
                    found.times.setdefault(name["region"], set()).add(name["ts"])
                elif name := by_id.fullmatch(key):
                    found.ids.add(name["id"])
        return found

    def members(self, region: str) -> dict[str, float]:
        """Return the members of a region's index, with their scores. `Corrupt` if it is not a sorted set."""
        key, cursor, found = self.layout.index(region), "0", {}
        while True:
            try:
                reply = self._ask(Ask(("ZSCAN", key, cursor, "COUNT", str(PER_REPLY))), key)
            except Unsupported:  # a proxy may allow only a list of commands
                reply = [b"0", self._ask(Ask(("ZRANGE", key, "0", "-1", "WITHSCORES")), key)]
            cursor = reply[0].decode()
            for member, score in zip(reply[1][::2], reply[1][1::2], strict=True):
                found[member.decode("utf-8", "backslashreplace")] = float(score)
            if cursor == "0":
                return found

    def pointer(self, region: str) -> str | None:
        """Return the id in `latest`, a bare one or a JSON string. None if there is no such key."""
        stored = self.payload(self.layout.latest(region))
        if stored is None:
            return None
        text = stored.decode("utf-8", "backslashreplace").strip()
        try:
            return msgspec.json.decode(text, type=str)
        except msgspec.MsgspecError:
            return text

    def payload(self, key: str) -> bytes | None:
        """Return a key's value, None if there is none. `Corrupt` if it is another type of value."""
        return self._ask(Get(key), key)

    def holds(self, key: str) -> bool:
        """Return whether a key holds a payload, without reading it."""
        try:
            return bool(self._ask(Peek(key, 1), key))
        except Corrupt:
            return False

    def look_at(self, key: str) -> Seen | None:
        """Read a payload and return what identifies it, None if there is none. `Corrupt` as for `payload`."""
        payload = self.payload(key)
        return None if payload is None else Seen(hashlib.sha256(payload).digest(), fields_of(payload))

    def _ask(self, command: Command[R], key: str | None = None) -> R:
        (reply,) = self._driver.execute([command])
        if not isinstance(reply, Failed):
            answer: R = reply
            return answer
        if isinstance(reply.error, Corrupt):
            raise Corrupt(f"{key} holds another type of value", key=key) from reply.error
        if isinstance(reply.error, Unavailable | Misconfigured):
            raise type(reply.error)(f"the source cannot be read: {reply.error}", key=key) from reply.error
        raise reply.error


# --- what a payload states about itself ------------------------------------------------------------


class _Json(msgspec.Struct):
    """The fields that name a snapshot, at the top of the payload or under `meta`."""

    id: Any = None
    snapshot_id: Any = None
    region: Any = None
    region_id: Any = None
    ts: Any = None
    timestamp: Any = None
    generated_at: Any = None
    meta: Any = None


_DECODER = msgspec.json.Decoder(_Json)


def fields_of(payload: bytes) -> PayloadFields:
    """Return the id, region and time in a JSON object. Used only where the keys do not state them."""
    try:
        top = _DECODER.decode(payload)
        meta = msgspec.convert(top.meta, _Json) if isinstance(top.meta, dict) else _Json()
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return PayloadFields()
    ids = [top.snapshot_id, meta.snapshot_id, top.id]
    regions = [top.region_id, top.region, meta.region_id, meta.region]
    times = [top.ts, top.timestamp, top.generated_at, meta.ts, meta.timestamp, meta.generated_at]
    return PayloadFields(
        id=next((text for text in ids if isinstance(text, str) and text), None),
        region=next((text for text in regions if isinstance(text, str) and text), None),
        ts=next((n for n in times if isinstance(n, int | float) and not isinstance(n, bool)), None),
    )
