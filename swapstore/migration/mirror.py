"""The mirror: after each swap, the old keys say what the manifest says.

For readers that have not moved yet and still read in two steps: `latest` holds an id, the by-id key of that
id the payload. What is written comes from the manifest, never from the call that made it, so whoever is
last writes the same, and one run of it heals whatever an earlier one left.

1. Write the payload under its by-id key, and look at the manifest in the same batch. `latest` follows only
   when the payload is there, so it never dangles, and only when the manifest has not moved.
2. Write `latest`, and look at the manifest again. If it has moved, another producer may have written the
   newer id before us, and ours stands over it: begin again on the manifest that is there now. So the last
   of all writers has seen that what it wrote was still right after it was written.

What a failure leaves, until the next swap by a store with this mirror heals it:

- a crash, or a refusal, before step 2: the old keys show the snapshot before, whole;
- a crash between writing `latest` and looking again, or a lost `latest` that arrives late: if another
  producer committed meanwhile, `latest` may name the snapshot before that one, whole.

The swap stands whatever becomes of the mirror: a failure here is logged, and nothing is raised.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Command, Peek, Write
from swapstore.errors import Contended, Damaged, InvalidInput, SwapstoreError
from swapstore.format import manifest
from swapstore.protocol import publish as publishing
from swapstore.protocol import telling
from swapstore.protocol.load import ask_all, find_id, load_manifest, load_snapshot, value_of
from swapstore.protocol.operation import Operation, Wait

if TYPE_CHECKING:
    from swapstore.format.manifest import Manifest
    from swapstore.migration.layout import Mirror
    from swapstore.models import Commit, Row, Status
    from swapstore.protocol.context import Context
    from swapstore.protocol.publish import Publication

LOG = logging.getLogger("swapstore")


def publish(ctx: Context, wanted: Publication) -> Operation[Commit]:
    """Publish, and bring the mirror up to date. A commit that was there already heals it too."""
    if ctx.mirror is not None and ctx.encoding(wanted.payload) is not None:
        raise InvalidInput(
            "this payload is not text, and over REST its mirror could not be written: the old keys hold the "
            "payload as it is. Publish through the Redis protocol (rediss://), or without a mirror"
        )
    commit = yield from telling.publish(ctx, wanted, publishing.publish(ctx, wanted))
    if ctx.mirror is not None:
        held = wanted.payload if commit.created else None
        yield from _quietly(_KeepUp(ctx, ctx.mirror, commit.dataset, commit, held))
    return commit


def after(ctx: Context, steering: Operation[Status]) -> Operation[Status]:
    """Swap something else, and bring the mirror up to date."""
    status = yield from steering
    if ctx.mirror is not None:
        yield from _quietly(_KeepUp(ctx, ctx.mirror, status.dataset))
    return status


def _quietly(keep_up: _KeepUp) -> Operation[None]:
    try:
        yield from keep_up.run()
    except Exception as error:  # noqa: BLE001 - the swap is done: nothing may make it look as if it were not
        said = error.args[0] if isinstance(error, SwapstoreError) else type(error).__name__
        LOG.warning(
            "dataset %r is committed, but its mirror in the old keys may be behind: %s; "
            "the next publish brings it up to date",
            keep_up.dataset,
            said,
        )


@attrs.define
class _KeepUp:
    """One run of the mirror. `commit` is what was just published, `held` its payload if it is at hand."""

    ctx: Context
    mirror: Mirror
    dataset: str
    commit: Commit | None = None
    held: bytes | None = None
    written: set[str] = attrs.field(factory=set)  # by-id keys: what they hold never changes

    def run(self) -> Operation[None]:
        known = self.ctx.cache.known(self.ctx.keys.manifest(self.dataset))
        current = (
            known.manifest
            if known and known.manifest.complete
            else (yield from load_manifest(self.ctx, self.dataset))
        )
        for attempt in range(self.ctx.policy.commit_attempts):
            if current is None or (yield from self._bring_over(current)):
                return
            yield Wait(self.ctx.backoff(attempt))
            current = yield from load_manifest(self.ctx, self.dataset)
        raise Contended(f"other producers committed {self.ctx.policy.commit_attempts} times meanwhile")

    def _bring_over(self, current: Manifest) -> Operation[bool]:
        """Write what one manifest says. False: it has moved, or its records have."""
        serving = current.head.serving
        rows = [serving]
        if self.commit is not None and self.commit.id != serving.id:  # a backfill, or something is pinned
            row = yield from find_id(self.ctx, current, self.commit.id)
            rows = [serving] if row is None else [row, serving]
        for row in rows:
            key = self.mirror.by_id(row.id)
            if key in self.written:
                continue
            payload = yield from self._payload(current, row)
            if payload is None:
                return False
            unmoved = yield from self._write(current, Write(key, payload))
            self.written.add(key)
            if not unmoved:
                return False
        return (yield from self._write(current, Write(self.mirror.latest(self.dataset), serving.id.encode())))

    def _payload(self, current: Manifest, row: Row) -> Operation[bytes | None]:
        """Return a committed payload; None when the manifest has moved on from its record."""
        ours = self.commit is not None and (self.commit.id, self.commit.sha256) == (row.id, row.sha256)
        if ours and self.held is not None:
            return self.held
        try:
            return (yield from load_snapshot(self.ctx, current, row)).raw
        except Damaged:
            moved = yield from load_manifest(self.ctx, self.dataset)
            if moved is not None and moved.etag == current.etag:
                raise
            return None

    def _write(self, current: Manifest, write: Write) -> Operation[bool]:
        """Write, then look, in one batch. False: the manifest has moved. Sending it twice does no harm."""
        prefix = manifest.prefix(current.etag)
        both: list[Command[Any]] = [write, Peek(current.key, len(prefix))]
        _, seen = map(value_of, (yield from ask_all(self.ctx, both)))
        return bool(seen == prefix)
