"""The list of datasets, and the status of one."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from swapstore.commands import Failed, Members, Peek, Register
from swapstore.errors import Damaged, SwapstoreError, Unsupported
from swapstore.format.manifest import DROPPED_BYTES, may_be_dropped
from swapstore.models import Status
from swapstore.protocol.load import ask, ask_all, current_head, own, published, require_data, value_of
from swapstore.protocol.operation import Batch, Operation

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.protocol.context import Context

LOG = logging.getLogger("swapstore")
CHUNK = 500  # manifests that are asked for in one batch


def datasets(ctx: Context) -> Operation[list[str]]:
    """List the datasets that are published. A name on the stored list may have no manifest: it is checked."""
    names = sorted((yield from ask(ctx, Members(ctx.keys.datasets()))))
    if not names:
        yield from require_data(ctx)
    found: list[str] = []
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        peeks = [Peek(ctx.keys.manifest(name), DROPPED_BYTES) for name in chunk]
        replies = yield from ask_all(ctx, peeks)
        for name, reply in zip(chunk, replies, strict=True):
            is_there = _is_there(reply)
            if is_there and isinstance(reply, bytes) and may_be_dropped(reply):
                is_there = (yield from status(ctx, name)) is not None
            found += [name] if is_there else []
    return found


def _is_there(reply: bytes | Failed) -> bool:
    """Say whether there is a manifest. A damaged one is listed too: hiding it would hide the damage."""
    if isinstance(reply, Failed) and isinstance(reply.error, Damaged):
        return True
    return bool(value_of(reply))


def status(ctx: Context, dataset: str) -> Operation[Status | None]:
    """Return the status of a dataset. None: nothing is published."""
    manifest = published((yield from current_head(ctx.reading(), dataset)))
    return None if manifest is None else status_of(ctx, manifest)


def status_of(ctx: Context, manifest: Manifest) -> Status:
    """Build the status that a manifest shows."""
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


def unlisted(ctx: Context, draft: Draft) -> list[Register]:
    """Return the command that puts a dataset on the list of names, unless this client has sent it before.

    It is sent in the same batch as a commit, which does not depend on it. A drop takes the name off the list,
    so it is sent again for a publish over a dropped manifest; where there is none, the cache forgets.
    """
    head, base = draft.manifest.head, draft.base
    is_first = base is not None and base.head.is_dropped
    if head.is_dropped or (not is_first and ctx.cache.is_listed(draft.manifest.key)):
        return []
    return [Register(ctx.keys.datasets(), head.dataset)]


def list_after_all(ctx: Context, draft: Draft) -> Operation[None]:
    """Put a dataset on the list of names if it was committed, and nobody knows if it was listed.

    Where a batch keeps its order, a commit that was carried out comes after a `Register` that was.
    """
    names = [] if ctx.capabilities.keeps_order else unlisted(ctx, draft)
    if names:
        with suppress(SwapstoreError):  # the commit stands: the next publish sends it again
            note_listed(ctx, draft.manifest.head.dataset, (yield Batch(tuple(names))))


def note_listed(ctx: Context, dataset: str, replies: list[Any]) -> None:
    """Note the reply to `unlisted`. If the store refused the command, the next publish sends it again.

    That refusal is logged once: the publish does not depend on it, and nobody would learn of it otherwise.
    """
    if not replies:
        return
    if not isinstance(replies[0], Failed):
        ctx.cache.note_listed(ctx.keys.manifest(dataset))
        return
    if isinstance(replies[0].error, Unsupported):
        ctx.capabilities.may_be_node = ctx.capabilities.tells_role  # the list has moved to another node
    if not ctx.capabilities.is_unlisted_logged:
        ctx.capabilities.is_unlisted_logged = True
        LOG.warning(
            "dataset %r could not be put on the list of names %s: %s. It can be published and read, but "
            "`datasets` does not show it. Allow SADD on that key; the next publish of a new client, or "
            "`swapstore repair`, puts it on the list",
            dataset,
            ctx.keys.datasets(),
            replies[0].error.args[0],
        )
