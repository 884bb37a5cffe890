"""Validation: ask the validators of a publish before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.errors import Corrupt, InvalidInput, PayloadMissing, Rejected
from swapstore.models import Candidate
from swapstore.protocol.members import snapshot_at
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from swapstore.format.manifest import Manifest
    from swapstore.models import Snapshot, Validator
    from swapstore.protocol.context import Context
    from swapstore.protocol.publish import Intent


def validated(ctx: Context, this: Intent, base: Manifest | None) -> Operation[None]:
    """Call the store's validators in order, then that of this publish. The first that refuses decides."""
    asked = [("a validator of the store", validator) for validator in ctx.validators]
    if this.wanted.validate is not None:
        asked.append(("validate", this.wanted.validate))
    previous = (yield from _previous(ctx, base)) if base else None
    entry = this.entry(base)
    candidate = Candidate(
        dataset=this.wanted.dataset,
        id=entry.id,
        ts=entry.ts,
        size=entry.size,
        sha256=entry.sha256,
        codec=entry.codec,
        labels=dict(entry.labels),
        raw=this.wanted.payload,
        ts_is_default=this.wanted.ts is None,
        members={name: part.member(name) for name, part in this.wanted.parts.items()},
    )
    for who, validator in asked:
        _ask(who, validator, candidate, previous)


def _ask(who: str, validator: Validator, candidate: Candidate, previous: Snapshot | None) -> None:
    try:
        reason = validator(candidate, previous)
    except Rejected as error:
        error.id = candidate.id
        raise
    except Exception as error:
        kind = type(error).__name__
        raise Rejected(f"{who} refused the publish: {kind}: {error}", reason=kind, id=candidate.id) from error
    if isinstance(reason, str):
        raise Rejected(f"{who} refused the publish: {reason}", reason=reason, id=candidate.id)
    if reason is not None:
        raise InvalidInput(
            f"{who} returned {type(reason).__name__}; return None to accept, or a reason as str to refuse"
        )


def _previous(ctx: Context, base: Manifest) -> Operation[Snapshot | None]:
    """Read the latest snapshot for a validator. None: its payload is lost.

    Readers cannot read it either. Publishing is what helps them, so a lost payload does not stop it.
    """
    try:
        return (yield from snapshot_at(ctx, base, base.head.latest))
    except (PayloadMissing, Corrupt):
        return None
