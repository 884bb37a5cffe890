"""What became of a draft: told by the manifest that is stored now, also when a reply was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import (
    Already,
    Command,
    Commit,
    Committed,
    Conflict,
    Failed,
    Held,
    Replace,
    Stage,
    Staged,
    Unstaged,
)
from swapstore.errors import (
    Contended,
    Corrupt,
    Damaged,
    OutcomeUnknown,
    ReplyLost,
    SwapstoreError,
    Unavailable,
    Unscripted,
)
from swapstore.format import manifest, search
from swapstore.protocol import telling
from swapstore.protocol.datasets import note_listed, unlisted
from swapstore.protocol.load import find, load_manifest
from swapstore.protocol.operation import Batch, Operation, Wait
from swapstore.protocol.scriptless.probe import Way, without_scripts

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.models import Row
    from swapstore.protocol.context import Context


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

    key: str


@attrs.frozen
class Vanished:
    """A record that was there, and that only the store has, is not there any more."""

    key: str


def settle(
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
    # Later versions stand on version n+1: if that row is ours, so was the commit.
    row = _in_tail(current, ours.version)
    if row is None and lost is not None:
        row = yield from _in_pages(ctx, draft, current, lost)
    if row is None and lost is not None and _may_be_gone(draft, current):
        raise unknown(draft, lost) from lost
    return Swapped() if row is not None and row == draft.row else Moved(current)


def _in_tail(current: Manifest, version: int) -> Row | None:
    return next((row for row in current.log.rows if row.version == version), None)


def _in_pages(ctx: Context, draft: Draft, current: Manifest, lost: ReplyLost) -> Operation[Row | None]:
    """Find the row in the pages, hidden or not: retention may hide what was committed a moment ago."""
    query = search.ByVersion(draft.manifest.version)
    try:
        return (yield from find(ctx, current.head.dataset, search.search(current, query, hidden=True)))
    except (Damaged, Unavailable) as error:
        raise unknown(draft, error) from lost


def _may_be_gone(draft: Draft, current: Manifest) -> bool:
    """Say whether the draft, were it committed, might have left no trace in the log.

    It leaves none without a row of its own. A row leaves the log only when it is hidden, and not while it
    is one of the last F.
    """
    if draft.row is None:
        return True
    last = current.log.rows[-manifest.F :]
    return not current.head.shows(draft.row) and bool(last) and draft.row.version < last[0].version


def ask_after_loss(ctx: Context, draft: Draft, lost: ReplyLost) -> Operation[Manifest | None]:
    """Read the manifest after a lost reply; `OutcomeUnknown` if it cannot be read."""
    try:
        return (yield from load_manifest(ctx, draft.manifest.head.dataset))
    except SwapstoreError as error:
        raise unknown(draft, error) from lost


def unknown(draft: Draft, cause: SwapstoreError) -> OutcomeUnknown:
    """Build the error for a commit whose outcome could not be learned."""
    row = draft.row
    size = len(draft.manifest.raw) + (row.size if row else 0)
    todo = f"publish again with id={row.id!r}" if row else "read the status, and repeat the call if need be"
    return OutcomeUnknown(
        f"the commit of version {draft.manifest.version} was sent and its outcome could not be learned "
        f"({cause.args[0]}); {todo}. If it persists: does the store take requests of {size:,} bytes?",
        id=row.id if row else None,
    )


# --- staging -----------------------------------------------------------------------------------
#
# The records that a draft relies on, and which of them are staged.


@attrs.frozen
class Record:
    """A record that a draft relies on.

    `header` is its header line, newline included. `shared`: it may be permanent already. `stored`: it is in
    the store, and its body is not here.
    """

    key: str
    header: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    shared: bool = False
    stored: bool = False

    @classmethod
    def of(cls, key: str, data: bytes, *, shared: bool = False) -> Record:
        """Make one of all of its bytes."""
        end = data.index(b"\n") + 1
        return cls(key, data[:end], data[end:], shared)

    @property
    def data(self) -> bytes:
        """All of its bytes."""
        return self.header + self.body


class Staging:
    """Which records an operation has staged, across its drafts, so that none is sent twice in vain."""

    def __init__(self) -> None:
        self._staged: dict[str, bytes] = {}
        self._taken_over: set[str] = set()
        self._unmovable: set[str] = set()
        self._kept: dict[str, bytes] = {}

    def keep(self, record: Record) -> None:
        """Note that a record is there, without a TTL, before the commit: see `plain`."""
        self._kept[record.key] = record.header

    def is_kept(self, record: Record) -> bool:
        """Say whether this record is there without a TTL."""
        return self._kept.get(record.key) == record.header

    def lose(self, record: Record) -> None:
        """Note that a record is not there, or may not stay."""
        self._kept.pop(record.key, None)

    def holds_another(self, key: str, header: bytes) -> bool:
        """Say whether another record than this one was put under a key for good."""
        return self._kept.get(key, header) != header

    def commands(self, ctx: Context, needed: list[Record]) -> list[Command[bool]]:
        """Return what has still to be sent so that each record is staged."""
        ttl = ctx.policy.staging_ttl_ms
        wanted = [
            record for record in needed if not record.stored and self._staged.get(record.key) != record.header
        ]
        return [
            Replace(record.key, record.data, ttl)
            if record.key in self._taken_over or record.key in self._staged
            else Stage(record.key, record.header, ttl, record.body)
            for record in wanted
        ]

    def note(self, commands: list[Command[bool]], replies: list[Any]) -> SwapstoreError | None:
        """Remember what was staged; return the first refusal."""
        failure = None
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Failed):
                failure = failure or reply.error
            elif isinstance(command, Replace) and not reply:
                self._unmovable.add(command.key)
            elif isinstance(command, Stage | Replace):
                self._staged[command.key] = command.record[: command.record.index(b"\n") + 1]
        return failure

    def missed(self, unstaged: Unstaged) -> None:
        """Take note that a record is not there, or that another's is, which will be taken over."""
        if unstaged.key in self._unmovable:
            raise unmovable(unstaged.key)
        self._staged.pop(unstaged.key, None)
        if unstaged.present:
            self._taken_over.add(unstaged.key)


def unmovable(key: str) -> Corrupt:
    """Build the error for a permanent record in the way, which no commit of this library left there."""
    return Corrupt(
        f"{key} is permanent and holds something else than what belongs there: it was left by a damaged or "
        "restored store; publishing cannot go on before it is removed",
        key=key,
    )


# --- swap --------------------------------------------------------------------------------------
#
# The swap: carry one draft through to an answer, whatever is lost on the way.
#
# Every change of a dataset ends here, in one batch: the records it relies on, then the commit. The commit
# refuses unless each record is really there, so nothing is inferred from the order of the batch. A draft is
# bound to the manifest it was built on (`base`); only the store decides whether it became the next one.
#
# What can go wrong, and why it is safe:
#
# - crash before the commit: staged records expire; nobody saw them;
# - reply lost: the draft either became version n+1 or it never will once another did. The manifest tells;
#   while it still shows version n, the **same bytes** are sent again, so it cannot be committed twice;
# - a delayed commit that arrives late finds another etag and does nothing.


def swap(
    ctx: Context, draft: Draft, needed: list[Record], staging: Staging
) -> Operation[Swapped | Moved | Taken | Vanished]:
    """Send a draft until the store has decided.

    Raises what the store refused a command with (nothing was committed), `Contended` when records keep
    being taken over, and `OutcomeUnknown` when a reply was lost and the store cannot be asked.
    """
    lost: ReplyLost | None = None
    losses = 0
    for attempt in range(ctx.policy.commit_attempts):
        if attempt > 1:
            yield Wait(ctx.backoff(attempt))
        try:
            from swapstore.protocol.scriptless import committer  # noqa: PLC0415

            carry = _send if ctx.strategy.scripted else committer.send
            outcome = yield from carry(ctx, draft, needed, staging)
            if isinstance(outcome, Swapped | Taken | Vanished):
                return outcome
            if outcome is None:
                continue  # a record was not there: the staging knows what to do about it
            current = outcome.current
        except ReplyLost as error:
            lost, losses = error, losses + 1
            current = yield from ask_after_loss(ctx, draft, error)
        except SwapstoreError as error:
            if lost is None:
                raise
            raise unknown(draft, error) from error
        verdict = yield from settle(ctx, draft, current, lost)
        if isinstance(verdict, Moved):
            telling.retried(ctx, draft)
        if verdict is not None:
            return verdict
        if losses == ctx.policy.lost_attempts:
            break
    if lost is not None:
        raise unknown(draft, lost) from lost
    raise Contended(
        f"another producer kept taking over the staged records of version {draft.manifest.version}; "
        "let producers use different ids, or try again"
    )


def _send(
    ctx: Context, draft: Draft, needed: list[Record], staging: Staging
) -> Operation[Swapped | Moved | Taken | Vanished | None]:
    """Send one batch: what has to be staged, then the commit. The commit's own reply decides."""
    key, dataset = draft.manifest.key, draft.manifest.head.dataset
    names = unlisted(ctx, dataset)
    stages = staging.commands(ctx, needed)
    known, sent_at = ctx.cache.known(key), ctx.clock.monotonic()
    replies = yield Batch((*names, *stages, _commit(ctx, draft, needed)))
    note_listed(ctx, dataset, replies[: len(names)])
    refusal = staging.note(stages, replies[len(names) : -1])
    match replies[-1]:
        case Committed() | Already():
            ctx.strategy.way = Way.SCRIPT
            ctx.cache.learn(draft.manifest, sent_at, basis=known)
            return Swapped()
        case Failed(Unscripted()) if ctx.strategy.way is None:
            yield from without_scripts(ctx)
            return None
        case Failed(error):
            raise refusal or error
        case Unstaged() as unstaged:
            if refusal is not None:
                raise refusal  # the record is not there because the store would not take it
            if any(record.stored and record.key == unstaged.key for record in needed):
                return Vanished(unstaged.key)
            staging.missed(unstaged)
            return None
        case Held(held):
            return Taken(held)
        case Conflict(raw):
            current = manifest.parse(raw, dataset, key) if raw is not None else None
            if current is None:
                ctx.cache.forget(key, basis=known)
            else:
                ctx.cache.learn(current, sent_at, basis=known, retreat=True)
            return Moved(current)
        case other:
            raise TypeError(f"a driver answered a commit with {other!r}")


def _commit(ctx: Context, draft: Draft, needed: list[Record]) -> Commit:
    return Commit(
        key=draft.manifest.key,
        expected=manifest.prefix(draft.base.etag) if draft.base else draft.over or b"",
        whole=draft.over is not None,
        prefix=manifest.prefix(draft.manifest.etag),
        manifest=draft.manifest.raw,
        live_key=ctx.keys.live(draft.manifest.head.dataset),
        staged=tuple(Staged(record.key, record.header, record.shared) for record in needed),
        staging_ttl_ms=ctx.policy.staging_ttl_ms,
        unlinked=draft.unlinked,
        grace_ms=ctx.policy.reader_grace_ms if draft.grace_ms is None else draft.grace_ms,
    )
