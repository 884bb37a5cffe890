"""Which datasets there are, and how one is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Failed, Members, Peek, Register
from swapstore.errors import Damaged
from swapstore.format.manifest import ETAG_PREFIX
from swapstore.models import Status
from swapstore.protocol.load import ask, ask_all, current_head, own, value_of
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from swapstore.format.manifest import Manifest
    from swapstore.protocol.context import Context

CHUNK = 500


def datasets(ctx: Context) -> Operation[list[str]]:
    """List the datasets that have a manifest. The set of names is a hint: each is checked."""
    names = sorted((yield from ask(ctx, Members(ctx.keys.datasets()))))
    found: list[str] = []
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        peeks = [Peek(ctx.keys.manifest(name), len(ETAG_PREFIX)) for name in chunk]
        replies = yield from ask_all(ctx, peeks)
        found.extend(name for name, reply in zip(chunk, replies, strict=True) if _is_there(reply))
    return found


def _is_there(reply: bytes | Failed) -> bool:
    """Say whether a manifest has bytes. A damaged one is listed too: hiding it would hide the damage."""
    if isinstance(reply, Failed) and isinstance(reply.error, Damaged):
        return True
    return bool(value_of(reply))


def status(ctx: Context, dataset: str) -> Operation[Status | None]:
    """Read the manifest's header; None when nothing is published."""
    manifest = yield from current_head(ctx, dataset)
    return None if manifest is None else status_of(ctx, manifest)


def status_of(ctx: Context, manifest: Manifest) -> Status:
    """Show a manifest to a caller."""
    head = manifest.head
    return Status(
        dataset=head.dataset,
        version=head.version,
        etag=head.etag,
        committed_at=head.committed_at,
        confirmed_at=head.confirmed_at,
        count=head.count,
        first_version=head.first_version,
        latest=own(head.latest),
        pinned=own(head.pinned) if head.pinned else None,
        read_at=ctx.clock.now_ms(),
    )


def unlisted(ctx: Context, dataset: str) -> list[Register]:
    """What puts a dataset on the list of names, once for each client: a hint, so it rides along."""
    if ctx.cache.is_listed(ctx.keys.manifest(dataset)):
        return []
    return [Register(ctx.keys.datasets(), dataset)]


def note_listed(ctx: Context, dataset: str, replies: list[Any]) -> None:
    """Take note of what became of that. A refusal is made good by whoever publishes next."""
    if replies and not isinstance(replies[0], Failed):
        ctx.cache.note_listed(ctx.keys.manifest(dataset))
