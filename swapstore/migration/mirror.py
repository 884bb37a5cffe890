"""The mirror: after each swap, it writes what the manifest serves to the keys of the six-command layout.

It is for readers that have not moved yet and still read in two steps: `latest` holds an id, and the by-id key
of that id the payload. What is written comes from the manifest and not from the call that changed it. So
every writer on the same manifest writes the same, and one complete run repairs whatever an earlier one left.

1. Write the payload to its by-id key, and peek at the manifest in the same batch. `latest` is written only
after
   the payload, so it never names a missing one, and only if the manifest has not changed.
2. Write `latest`, and peek at the manifest again. If the manifest has changed, another producer may have
written
   the newer id first, and this write replaced it: start again with the current manifest. So the last of all
   writers has seen that its values were still right after it wrote them.

What a failure leaves, until the next swap by a store with this mirror repairs it:

- a crash or a refusal before step 2: the old keys show the previous snapshot, complete;
- a crash between the write of `latest` and the second look, or a lost write of `latest` that arrives late: if
  another producer committed in between, `latest` may name the snapshot before that one, complete.

The swap stands whatever happens to the mirror: a failure is logged, and nothing is raised.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from swapstore.commands import Command, Peek, Put, Write
from swapstore.errors import Contended, Damaged, InvalidInput, SwapstoreError
from swapstore.format import encodings, manifest
from swapstore.protocol.load import ask_all, find_id, load_manifest, load_snapshot, value_of
from swapstore.protocol.operation import Operation, Wait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swapstore.format.manifest import Manifest
    from swapstore.migration.layout import Mirror
    from swapstore.models import Commit, Item, Row
    from swapstore.protocol.context import Context
    from swapstore.protocol.publish import Publication

LOG = logging.getLogger("swapstore")
LONGER_MS = 60_000  # that a payload with a TTL outlives the key that names it


def refuse_one_id(items: Mapping[str, Item]) -> None:
    """Refuse one id for several datasets: the mirror's by-id key does not name the dataset."""
    owners: dict[str, str] = {}
    for dataset, item in items.items():
        other = owners.setdefault(item.id, dataset) if item.id is not None else dataset
        if other != dataset:
            raise InvalidInput(
                f"one id for several datasets, {item.id!r} for {other!r} and {dataset!r}, would mix them up "
                "for readers of the mirror, whose by-id key does not name the dataset. Nothing was "
                "published; give each an id of its own, or none"
            )


def refuse_what_it_cannot_write(ctx: Context, wanted: Publication) -> None:
    """Raise `InvalidInput` for a group, and for what is not text if the store's endpoint sends only text."""
    if wanted.parts:
        raise InvalidInput(
            "the old keys have no place for the members of a group. Nothing was published; publish groups "
            "through a store without a mirror"
        )
    payload = wanted.payload
    if encodings.plain(payload, text_only=ctx.policy.text_only).encoding is not None:
        raise InvalidInput(
            "this payload is not text, and over REST its mirror could not be written, because the old keys "
            "hold payloads unencoded. Nothing was published. Publish over the Redis protocol (rediss://), or "
            "without a mirror"
        )


def bring_up_to_date(
    ctx: Context, mirror: Mirror, dataset: str, commit: Commit | None = None, held: bytes | None = None
) -> Operation[None]:
    """Write what the manifest serves to the old keys. A failure is logged, and nothing is raised.

    `commit` is what was just published (or found committed before, which repairs the mirror too). `held` is
    its payload, if it is available.
    """
    try:
        yield from _MirrorRun(ctx, mirror, dataset, commit, held).run()
    except Exception as error:  # noqa: BLE001 - the swap is done: no error may suggest otherwise
        reason = error.args[0] if isinstance(error, SwapstoreError) else type(error).__name__
        LOG.warning(
            "dataset %r is committed, but its mirror in the old keys may be behind: %s; "
            "the next publish brings it up to date",
            dataset,
            reason,
        )


class _MirrorRun(msgspec.Struct):
    """One run of the mirror; for `commit` and `held` see `bring_up_to_date`."""

    ctx: Context
    mirror: Mirror
    dataset: str
    commit: Commit | None = None
    held: bytes | None = None
    written: set[str] = msgspec.field(default_factory=set)  # by-id keys, whose values never change

    def run(self) -> Operation[None]:
        cached = self.ctx.cache.known(self.ctx.keys.manifest(self.dataset))
        current = (
            cached.manifest
            if cached and cached.manifest.complete
            else (yield from load_manifest(self.ctx, self.dataset))
        )
        for attempt in range(self.ctx.policy.commit_attempts):
            if current is None or current.head.is_dropped or (yield from self._write_all(current)):
                return
            yield Wait(self.ctx.backoff(attempt))
            current = yield from load_manifest(self.ctx, self.dataset)
        raise Contended(
            f"other producers committed {self.ctx.policy.commit_attempts} times during the attempts"
        )

    def _write_all(self, current: Manifest) -> Operation[bool]:
        """Write what one manifest serves. False: the manifest has changed, or its records are gone."""
        serving = current.head.serving
        rows = [serving]
        if (
            self.commit is not None and self.commit.id != serving.id
        ):  # a backfill, or another snapshot is pinned
            row = yield from find_id(self.ctx, current, self.commit.id)
            rows = [serving] if row is None else [row, serving]
        for row in rows:
            key = self.mirror.by_id(row.id)
            if key in self.written:
                continue
            payload = yield from self._payload(current, row)
            if payload is None:
                return False
            unmoved = yield from self._write(current, self._put(key, payload, LONGER_MS))
            self.written.add(key)
            if not unmoved:
                return False
        latest = self._put(self.mirror.latest(self.dataset), serving.id.encode(), 0)
        return (yield from self._write(current, latest))

    def _put(self, key: str, value: bytes, longer_ms: int) -> Command[None]:
        """Return the command that writes an old key, with its TTL if the mirror has one."""
        ttl_ms = self.mirror.ttl_ms
        return Write(key, value) if ttl_ms is None else Put(key, value, ttl_ms + longer_ms)

    def _payload(self, current: Manifest, row: Row) -> Operation[bytes | None]:
        """Return a committed payload, None if the manifest has changed and its record is gone."""
        ours = self.commit is not None and (self.commit.id, self.commit.sha256) == (row.id, row.sha256)
        if ours and self.held is not None:
            return self.held
        try:
            return (yield from load_snapshot(self.ctx, current, row)).raw
        except Damaged:
            found = yield from load_manifest(self.ctx, self.dataset)
            if found is not None and found.etag == current.etag:
                raise
            return None

    def _write(self, current: Manifest, write: Command[None]) -> Operation[bool]:
        """Write, then peek, in one batch, which may be resent. False: the manifest has changed.

        The peek shows what is stored after the write. So it is a batch of its own where the old key and the
        manifest may be on different nodes, which carry out their commands in no common order.
        """
        prefix = manifest.prefix(current.etag)
        both: list[Command[Any]] = [write, Peek(current.key, len(prefix))]
        batches = [both] if self.ctx.capabilities.keeps_order else [[each] for each in both]
        seen = None
        for batch in batches:
            for reply in (yield from ask_all(self.ctx, batch)):
                seen = value_of(reply)
        return bool(seen == prefix)
