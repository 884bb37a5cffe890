"""The swap: carry one draft through to an answer, whatever is lost on the way.

Every change of a dataset ends here, in one batch: the records it relies on, then the commit. The commit
refuses unless each record is really there, so nothing is inferred from the order of the batch. A draft is
bound to the manifest it was built on (`base`); only the store decides whether it became the next one.

What can go wrong, and why it is safe:

- crash before the commit: staged records expire; nobody saw them;
- reply lost: the draft either became version n+1 or it never will once another did. The manifest tells;
  while it still shows version n, the **same bytes** are sent again, so it cannot be committed twice;
- a delayed commit that arrives late finds another etag and does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore import manifest, search
from swapstore.cache import is_newer
from swapstore.commands import (
    Already,
    Command,
    Commit,
    Committed,
    Conflict,
    Failed,
    Held,
    Register,
    Replace,
    Stage,
    Staged,
    Unstaged,
)
from swapstore.errors import Contended, Damaged, OutcomeUnknown, ReplyLost, SwapstoreError, Unavailable
from swapstore.operations.steps import Batch, Operation, Wait, find, load_manifest

if TYPE_CHECKING:
    from swapstore.manifest import Draft, Manifest
    from swapstore.operations.context import Context


@attrs.frozen
class Swapped:
    """The draft is committed."""


@attrs.frozen
class Moved:
    """Another commit came first: the draft is not committed and never will be."""

    current: Manifest | None


@attrs.frozen
class Taken:
    """A permanent record has the key of one of the draft's: this id was committed before."""


@attrs.frozen
class Record:
    """A record that a draft relies on."""

    key: str
    data: bytes = attrs.field(repr=False)
    shared: bool = False

    @property
    def header(self) -> bytes:
        """The header line, newline included."""
        return self.data[: self.data.index(b"\n") + 1]


class Staging:
    """Which records an operation has staged, across its drafts, so that none is sent twice in vain."""

    def __init__(self) -> None:
        self._staged: dict[str, bytes] = {}
        self._taken_over: set[str] = set()

    def commands(self, ctx: Context, needed: list[Record]) -> list[Command[bool]]:
        """Return what has still to be sent so that each record is staged."""
        ttl = ctx.policy.staging_ttl_ms
        wanted = [record for record in needed if self._staged.get(record.key) != record.header]
        return [
            Replace(record.key, record.data, ttl)
            if record.key in self._taken_over or record.key in self._staged
            else Stage(record.key, record.data, ttl)
            for record in wanted
        ]

    def note(self, commands: list[Command[bool]], replies: list[Any]) -> SwapstoreError | None:
        """Remember what was staged; return the first refusal."""
        failure = None
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Failed):
                failure = failure or reply.error
            elif isinstance(command, Stage | Replace):
                self._staged[command.key] = command.record[: command.record.index(b"\n") + 1]
        return failure

    def missed(self, unstaged: Unstaged) -> None:
        """Take note that a record is not there, or that another's is, which will be taken over."""
        self._staged.pop(unstaged.key, None)
        if unstaged.present:
            self._taken_over.add(unstaged.key)


def swap(
    ctx: Context, draft: Draft, needed: list[Record], staging: Staging, *, register: bool = False
) -> Operation[Swapped | Moved | Taken]:
    """Send a draft until the store has decided.

    `register` also lists the dataset's name. Raises what the store refused a command with (nothing was
    committed), `Contended` when records keep being taken over, and `OutcomeUnknown` when a reply was lost
    and the store cannot be asked.
    """
    lost: ReplyLost | None = None
    for attempt in range(ctx.policy.commit_attempts):
        if attempt > 1:
            yield Wait(ctx.backoff(attempt))
        sent_at = ctx.clock.monotonic()
        try:
            outcome = yield from _send(ctx, draft, needed, staging, register=register)
            match outcome:
                case Committed() | Already():
                    ctx.cache.learn(draft.manifest, sent_at)
                    return Swapped()
                case Conflict(raw):
                    current = _parse(ctx, draft, raw, sent_at)
                case Held():
                    return Taken()
                case _:
                    continue  # unstaged: the staging knows what to do about it
        except ReplyLost as error:
            lost = error
            current = yield from _ask_after_loss(ctx, draft, error)
        except SwapstoreError as error:
            if lost is None:
                raise
            raise _unknown(draft, error) from error
        verdict = yield from _judge(ctx, draft, current, lost)
        if verdict is not None:
            return verdict
    if lost is not None:
        raise _unknown(draft, lost) from lost
    raise Contended(
        f"another producer kept taking over the staged records of version {draft.manifest.version}; "
        "let producers use different ids, or try again"
    )


def _send(
    ctx: Context, draft: Draft, needed: list[Record], staging: Staging, *, register: bool
) -> Operation[Committed | Already | Conflict | Unstaged | Held]:
    """Send one batch: what has to be staged, then the commit. The commit's own reply decides."""
    stages = staging.commands(ctx, needed)
    head = draft.manifest.head
    names = [Register(ctx.keys.datasets(), head.dataset)] if register else []
    commit = Commit(
        key=draft.manifest.key,
        expected=manifest.prefix(draft.base.etag) if draft.base else b"",
        prefix=manifest.prefix(draft.manifest.etag),
        manifest=draft.manifest.raw,
        live_key=ctx.keys.live(head.dataset),
        staged=tuple(Staged(record.key, record.header, record.shared) for record in needed),
        staging_ttl_ms=ctx.policy.staging_ttl_ms,
        grace_ms=ctx.policy.reader_grace_ms,
    )
    replies = yield Batch((*names, *stages, commit))
    refusal = staging.note(stages, replies[len(names) : -1])
    outcome: Any = replies[-1]
    if isinstance(outcome, Failed):
        raise refusal or outcome.error
    if isinstance(outcome, Unstaged):
        if refusal is not None:
            raise refusal  # the record is not there because the store would not take it
        staging.missed(outcome)
    reply: Committed | Already | Conflict | Unstaged | Held = outcome
    return reply


def _judge(
    ctx: Context, draft: Draft, current: Manifest | None, lost: ReplyLost | None
) -> Operation[Swapped | Moved | None]:
    """Say what became of the draft, now that `current` is stored. None: nothing yet, send it again."""
    base, ours = draft.base, draft.manifest
    if current is None:
        return None if base is None else Moved(None)
    if current.etag == ours.etag:
        return Swapped()
    if base is not None and current.etag == base.etag:
        return None
    if current.epoch != ours.epoch or current.version <= ours.version:
        return Moved(current)
    # Later versions stand on version n+1. If that row is ours, so was the commit. Without a lost reply it
    # can only be ours if something in between resends commands; the tail, which is at hand, tells that too.
    if lost is None and not any(row.version == ours.version for row in current.log.rows):
        return Moved(current)
    if draft.row is not None and ours.version >= current.head.first_version:
        try:
            row = yield from find(
                ctx, ours.head.dataset, search.search(current, search.ByVersion(ours.version))
            )
        except (Damaged, Unavailable) as error:
            if lost is None:
                return Moved(current)
            raise _unknown(draft, error) from error
        return Swapped() if row == draft.row else Moved(current)
    if lost is None:
        return Moved(current)
    raise _unknown(draft, lost) from lost


def _ask_after_loss(ctx: Context, draft: Draft, lost: ReplyLost) -> Operation[Manifest | None]:
    try:
        return (yield from load_manifest(ctx, draft.manifest.head.dataset))
    except SwapstoreError as error:
        raise _unknown(draft, error) from lost


def _parse(ctx: Context, draft: Draft, raw: bytes | None, sent_at: float) -> Manifest | None:
    """Parse the manifest that a conflict returned: the stored one, so the client follows it even back."""
    key = draft.manifest.key
    if raw is None:
        ctx.cache.forget(key)
        return None
    current = manifest.parse(raw, draft.manifest.head.dataset, key)
    gone_back = draft.base is not None and is_newer(draft.base, current)
    ctx.cache.learn(current, sent_at, retreat=gone_back)
    return current


def _unknown(draft: Draft, cause: SwapstoreError) -> OutcomeUnknown:
    row = draft.row
    todo = f"publish again with id={row.id!r}" if row else "read the status, and repeat the call if need be"
    return OutcomeUnknown(
        f"the commit of version {draft.manifest.version} was sent and its outcome could not be learned "
        f"({cause.args[0]}); {todo}",
        id=row.id if row else None,
    )
