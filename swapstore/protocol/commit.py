"""The client's half of the commit: prepare the records, send the draft, resolve the outcome.

Theory of operation
===================

Every change of a dataset ends here. A draft is the next manifest, version n+1, built on the one that is
stored, version n (its base). It relies on records: a snapshot's id record and ts record, and pages of older
rows. `commit` sends one batch:

    SET <record> NX PX …    each record that is not staged yet, with a TTL: nobody reads it
    EVAL commit.lua …       the store's half: compare, verify, make permanent, SET the manifest, housekeeping

The Redis driver passes records of up to 16 KB to the script, which stages them, to the same effect. The
commit point is the one SET of the manifest, step 4 of `drivers/redis/commit.lua`. On SQLite, `commit` in
`drivers/sqlite/commands.py` takes the same steps in one transaction. The batch is not atomic. The script is,
and it infers nothing from its neighbours: it refuses unless the base is still stored and every record is
there with the expected header. Its own reply decides.

What can fail, and why nothing is lost, doubled or half seen:

- before the script runs: staged records have a TTL and expire. The manifest does not name them, so no
  reader starts from one. A retry finds them and stages only what is missing.
- the server stops inside the script, before the SET: some records may have lost their TTL already (no
  supported server persists half of a script). No manifest names them, so no reader sees them. Verify
  calls them leaked, and their id cannot be published before a repair lets them expire.
- a record expired, or another producer's has its key: nothing is committed (`Unstaged`). It is staged again;
  another producer's is taken over while it has a TTL. Without one it was committed before (`Held`): then the
  caller looks its id up.
- the base in force is not there (`Vanished`): nothing is committed, and the next draft brings another.
- another commit came first: the script answers with the manifest that is stored (`Mismatch`). The draft is
  not committed and never will be, because its base never returns: every manifest has an etag of its own.
  The caller decides anew on the manifest that came back, and drafts again (`Moved`).
- the reply is lost, or the connection is: the draft may be committed, or still under way, or neither. The
  stored manifest tells (`resolve`). If it is the draft, the commit succeeded. If it is still the base, the
  **same bytes** are sent again: both sends expect one base, so only one of them can swap it, and the other
  finds the draft there (`Already`), or a later version. If a later version is stored, its log has the row of
  version n+1: the commit succeeded if that row is ours. A draft that adds no row leaves no trace there, and
  retention may have unlinked the row: then the outcome is `unknown`.
- the server hangs up before the last portion of a large request is sent: the script, the last command of the
  batch, did not run. The batch is sent once more. If the server hangs up again, the request is too large.
- the store refuses a command (memory, permissions): nothing was committed, and the refusal is raised. After
  a lost reply it proves nothing about the first send, so then the outcome is `unknown`.
- the store is full, and retention makes up for what the swap adds, now or soon: the same manifest is sent
  once more, to be committed beyond the limit (`even_if_full`), in the same steps: see `commit.lua`. What it
  unlinks is deleted at once, after the SET, so a reader of the previous manifest may have to read again.
- after the SET: the commit stands. Housekeeping that fails may leave an unlinked record without a TTL, which
  a repair expires. It may leave the live view of the old version: readers ignore it, because it is bound to
  the old etag. It may lose the hint: followers see the commit at their next poll.

A draft may also store committed records anew, see `recompress.py`: those that need no base right before the
SET, and those that need one right after it. So both manifests can be read at each moment. What leaves with
an unlinked group is found first: see `unlink.py`.

Versions are dense: a draft on version n can only become version n+1. Only a repair skips some, one for each
snapshot that it puts back. Where no script runs, another committer takes the place of `Scripted`: see
`scriptless/committer.py`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from swapstore.commands import (
    Already,
    AwaitReplicas,
    Command,
    Committed,
    Failed,
    Get,
    Held,
    Mismatch,
    Replace,
    Stage,
    Staged,
    Swap,
    Unstaged,
)
from swapstore.errors import (
    Contended,
    OutcomeUnknown,
    PayloadTooLarge,
    ReplyLost,
    StoreFull,
    SwapstoreError,
    Unscripted,
)
from swapstore.format import manifest, records, search
from swapstore.format.retention import complete_from
from swapstore.models import GROUP
from swapstore.protocol.ahead import AHEAD_BYTES, stage_group, staged_in
from swapstore.protocol.datasets import list_after_all, note_listed, unlisted
from swapstore.protocol.leftovers import bound_elsewhere, entry_in, permanent_entry, read_origin, unmovable
from swapstore.protocol.load import ask, find, load_manifest
from swapstore.protocol.operation import Batch, Operation, Wait
from swapstore.protocol.unlink import size_of, unlinks_members, with_members
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.models import Row
    from swapstore.protocol.context import Context
    from swapstore.protocol.publish import Intent
    from swapstore.protocol.scriptless.members import Signature

CUT_ATTEMPTS = 2  # how often a draft is sent when the server hangs up before it has all of it
LARGER = 2  # a full store takes payloads of up to so many times the size of those that leave next


# --- outcomes --------------------------------------------------------------------------------------


class Swapped(Struct, frozen=True):
    """The draft is committed. `replicas`: how many have it; None: not asked, or not known."""

    replicas: int | None = None


class Moved(Struct, frozen=True):
    """Another manifest is stored: another commit came first, or the dataset was reset. The draft is lost."""

    current: Manifest | None


class Taken(Struct, frozen=True):
    """A permanent record has the key of one that the draft needs: this id was committed before."""

    key: str


class Vanished(Struct, frozen=True):
    """A record that only the store has, and that the draft needs or rewrites, is not there as it was."""

    key: str


Outcome = Swapped | Moved | Taken | Vanished


# --- prepare ---------------------------------------------------------------------------------------


class Record(Struct, frozen=True):
    """A record that a draft relies on.

    `header` is what the commit compares: its header line, newline included, and of a ts record the version
    after it. `shared`: it may be permanent already, as a page may be. `stored`: it is in the store already,
    and only its header is known here. `replaces`: another record may be staged under its key, and is taken
    over without asking first; otherwise each costs an attempt to commit.
    """

    key: str
    header: bytes
    body: bytes = b""
    shared: bool = False
    stored: bool = False
    replaces: bool = False

    @classmethod
    def of(cls, key: str, data: bytes, *, shared: bool = False) -> Record:
        """Make a record of all of its bytes."""
        end = data.index(b"\n") + 1
        return cls(key, data[:end], data[end:], shared)

    @property
    def data(self) -> bytes:
        """All of its bytes."""
        return self.header + self.body


class Staging:
    """The records that an operation has staged, over all of its drafts, so that none is sent needlessly."""

    def __init__(self) -> None:
        self._headers: dict[str, bytes] = {}  # of what was sent last
        self.written: set[str] = set()  # keys that were free when their record was staged
        self._staged: dict[str, bytes] = {}
        self._taken_over: set[str] = set()
        self._unmovable: set[str] = set()
        self._kept: dict[str, bytes] = {}
        self._claims: dict[str, bytes] = {}
        self._shared_claims: set[str] = set()
        self.mark = ""  # in its pending ts records, so that no other operation's are equal
        self.signature: Signature | None = None  # of its members, see `scriptless/members.py`

    def keep(self, record: Record) -> None:
        """Note that a record is permanent before the commit. Only `scriptless/committer.py` does that."""
        self._kept[record.key] = record.header

    def is_kept(self, record: Record) -> bool:
        """Say whether this record is permanent before the commit."""
        return self._kept.get(record.key) == record.header

    def kept(self) -> list[str]:
        """Return the keys of the records that are permanent before the commit."""
        return list(self._kept)

    def lose(self, record: Record) -> None:
        """Note that a record is not there, or that it is not permanent."""
        self._kept.pop(record.key, None)

    def superseded(self, record: Record, ts_key: str) -> bytes | None:
        """Forget an id record that was written for a base which is not to be used any more, to be deleted.

        Return the ts record beside it. None: there is no such record.
        """
        data = self._claims.get(ts_key)
        if not data or self._kept.get(record.key, record.header) == record.header:
            return None
        self.lose(record)
        self._kept.pop(ts_key, None)
        self._shared_claims.discard(ts_key)
        self.forget(ts_key)
        return data

    def claim(self, key: str, data: bytes, *, taken_over: bool = False) -> None:
        """Note a ts record as it is stored. Only `scriptless/committer.py` does that.

        `taken_over`: it replaced that of another publish, which may still rely on there being one.
        """
        self._claims[key] = data
        if taken_over:
            self._shared_claims.add(key)

    def forget(self, key: str) -> None:
        """Note that a ts record was deleted. That may take effect late: it must not meet the same bytes."""
        self._claims[key] = b""
        self.mark = ""
        self.signature = None

    def is_taken_over(self, key: str) -> bool:
        """Say whether a claim has replaced that of another publish."""
        return key in self._shared_claims

    def claimed(self, key: str) -> bytes | None:
        """Return a ts record as this operation saw it last."""
        return self._claims.get(key)

    def claims(self) -> list[str]:
        """Return the keys of the ts records that this operation has claimed, and not deleted since."""
        return [key for key, data in self._claims.items() if data]

    def unstaged(self, needed: Sequence[Record]) -> list[Record]:
        """Return those of some records that are not staged yet."""
        return [each for each in needed if not each.stored and self._staged.get(each.key) != each.header]

    def commands(self, ctx: Context, needed: Sequence[Record]) -> list[Command[bool]]:
        """Return the commands that stage the records which are not staged yet."""
        ttl = ctx.policy.staging_ttl_ms
        wanted = self.unstaged(needed)
        self._headers.update({record.key: record.header for record in wanted})
        return [
            Replace(record.key, record.data, ttl)
            if record.replaces or record.key in self._taken_over or record.key in self._staged
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
                self._staged[command.key] = self._headers[command.key]
                if reply:
                    self.written.add(command.key)
        return failure

    def missed(self, unstaged: Unstaged) -> None:
        """Note that a record is not there, or that another producer's has its key: that is taken over next.

        Raises `Corrupt` when it could not be taken over because it is permanent.
        """
        if unstaged.key in self._unmovable:
            raise unmovable(unstaged.key)
        self._staged.pop(unstaged.key, None)
        if unstaged.present:
            self._taken_over.add(unstaged.key)


# --- send ------------------------------------------------------------------------------------------


def commit(ctx: Context, draft: Draft, needed: list[Record], staging: Staging) -> Operation[Outcome]:
    """Send a draft, with the records that it relies on, until its outcome is known.

    Raises the error with which the store refused a command (nothing was committed), `Contended` when other
    producers keep taking over the records, and `OutcomeUnknown` when a reply was lost and the stored manifest
    does not tell the outcome or cannot be read.
    """
    if draft.unlinked and unlinks_members(ctx, draft):
        draft = yield from with_members(ctx, draft)
    lost: ReplyLost | None = None
    losses = cuts = 0
    for attempt in range(ctx.policy.commit_attempts):
        if attempt > 1:
            yield Wait(ctx.backoff(attempt))
        try:
            outcome = yield from ctx.capabilities.committer.send(ctx, draft, needed, staging)
            if isinstance(outcome, Swapped | Taken | Vanished):
                return outcome
            if outcome is None:
                continue  # a record was not there: `staging` has noted what to send instead
            current = outcome.current
        except ReplyLost as error:
            if error.cut_off and lost is None:  # not carried out
                cuts = _cut_again(draft, error, cuts)
                yield from load_manifest(ctx, draft.manifest.head.dataset)  # an outage has to be over first
                continue
            lost, losses = error, losses + 1
            current = yield from ask_after_loss(ctx, draft, error)
        except SwapstoreError as error:
            draft = yield from _for_a_full_store(ctx, draft, error, lost)
            continue
        verdict = yield from resolve(ctx, draft, current, lost)
        if verdict is not None:
            yield from _note(ctx, draft, verdict)
            return verdict
        if losses == ctx.policy.lost_attempts:
            break
    if lost is not None:
        raise unknown(draft, lost) from lost
    raise Contended(
        f"another producer kept taking over the staged records of version {draft.manifest.version}; nothing "
        "was published. Let producers use different ids, or try again"
    )


def _note(ctx: Context, draft: Draft, verdict: Swapped | Moved) -> Operation[None]:
    """Do what is left to do when the outcome had to be resolved."""
    head, row = draft.manifest.head, draft.row
    if isinstance(verdict, Swapped):
        yield from list_after_all(ctx, draft)
    elif ctx.hook is not None:
        from swapstore.events import Retried  # noqa: PLC0415 - only listeners need it

        ctx.emit(Retried(dataset=head.dataset, version=head.version, id=None if row is None else row.id))


def _cut_again(draft: Draft, error: ReplyLost, cuts: int) -> int:
    """Count how often the server hung up before it had the whole draft. Raises `PayloadTooLarge` at last."""
    if cuts + 1 == CUT_ATTEMPTS:
        raise too_large(draft, error) from error
    return cuts + 1


def _for_a_full_store(
    ctx: Context, draft: Draft, error: SwapstoreError, lost: ReplyLost | None
) -> Operation[Draft]:
    """Return a draft as a full store takes it. Raises what the store said if there is no such draft.

    What it unlinks is deleted at once. During a grace, each publish would take more than it gives; and SQLite
    writes a record anew to give it a TTL.
    """
    was_tried = draft.even_if_full and draft.grace_ms == 0
    is_first = isinstance(error, StoreFull) and not (was_tried or draft.grace_ms)
    if is_first and (draft.frees_as_much or (yield from _is_made_up_for(ctx, draft))):
        return msgspec.structs.replace(draft, even_if_full=True, grace_ms=0)
    if lost is None:
        raise error
    raise unknown(draft, error) from error


def _is_made_up_for(ctx: Context, draft: Draft) -> Operation[bool]:
    """Say whether this swap, or one of the next, frees what the draft adds: rows leave by the page.

    Payloads differ in size. One may have up to `LARGER` times the mean size of those that leave next. That of
    a group has the size of its members, too.
    """
    base, sizes = draft.base, list[int]()
    if base is None or draft.row is None or not draft.frees_soon:
        return False
    try:
        for leaving in (yield from find(ctx, base.head.dataset, search.oldest(base.log))):
            sizes.append((yield from size_of(ctx, base.head.dataset, leaving)))
    except SwapstoreError:  # a page that cannot be read does not leave, unless another swap has unlinked it
        with suppress(SwapstoreError):
            current = yield from load_manifest(ctx, base.head.dataset)
            return current is None or current.etag != base.etag
        return False
    return draft.adds_bytes * len(sizes) <= LARGER * sum(sizes)


class Committer(Protocol):
    """One way to commit drafts. A client uses the one that its store supports.

    `expires_leaks`: whether a repair may give a TTL to permanent records that no manifest names.
    """

    expires_leaks: bool

    def send(
        self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging
    ) -> Operation[Outcome | None]:
        """Send a draft once. None: a record was not there; `staging` has noted which."""

    def stage_ahead(self, ctx: Context, needed: list[Record], staging: Staging) -> Operation[None]:
        """Stage records in batches of bounded size, before a repair sends a draft that needs many of them."""

    def adopt(self, ctx: Context, intent: Intent, base: Manifest | None) -> Operation[Intent | None]:
        """Return the intent to go on with, although its id has permanent records that no version names.

        It uses these records, or they were deleted. None: they cannot be used, and nothing shows that another
        publish needs them. Raises `Contended` when they belong to a publish under way or cut short.
        """

    def discard(self, key: str) -> Command[Any]:
        """Return the command that deletes a key if it has a TTL, and leaves it if it is permanent."""
        return Replace(key, records.DELETED, 1)

    def reclaim(self, ctx: Context, dataset: str, leaked: Sequence[str], *, apply: bool) -> Operation[bool]:  # noqa: ARG002
        """Delete leaked records that no swap can unlink. Returns whether there are any (`apply`: were)."""
        yield from ()
        return False


class Scripted(Committer):
    """Commits in one atomic step: the script `drivers/redis/commit.lua`, or a transaction on SQLite."""

    expires_leaks = True

    def send(
        self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging
    ) -> Operation[Outcome | None]:
        """Send one batch: the records that are not staged yet, then the commit. Its own reply decides."""
        key, dataset = draft.manifest.key, draft.manifest.head.dataset
        names = unlisted(ctx, draft)
        if draft.row is not None and draft.row.codec == GROUP:
            yield from stage_group(ctx, draft, needed, staging)
        stages = staging.commands(ctx, needed)
        known, sent_at = ctx.cache.known(key), ctx.clock.monotonic()
        wait = _wait(ctx, draft)
        replies = yield Batch((*names, *stages, _swap(ctx, draft, needed), *wait))
        end = len(names) + len(stages)
        reply, waited = replies[end], [each for each in replies[end + 1 :] if not isinstance(each, Failed)]
        if not isinstance(reply, Failed):
            note_listed(ctx, dataset, replies[: len(names)])
        refusal = staging.note(stages, replies[len(names) : end])
        match reply:
            case Committed() | Already():
                ctx.cache.learn(draft.manifest, sent_at, basis=known)
                # `Already` has written nothing that the server could have waited for.
                return Swapped(waited[0] if waited and isinstance(reply, Committed) else None)
            case Failed(Unscripted() as error):
                raise error
            case Failed(error):
                raise refusal or error
            case Unstaged() as unstaged:
                if refusal is not None:
                    raise refusal  # the record is not there because the store refused to stage it
                stored = {each.key for each in needed if each.stored}
                if unstaged.key in stored | {each.key for each in draft.rewritten}:
                    return Vanished(unstaged.key)
                staging.missed(unstaged)
                return None
            case Held(held):
                return Taken(held)
            case Mismatch(raw):
                if raw is None:
                    ctx.cache.forget(key, basis=known)
                    return Moved(None)
                current = manifest.parse(raw, dataset, key)
                ctx.cache.learn(current, sent_at, basis=known, retreat=True)
                return Moved(current)
            case other:
                raise TypeError(f"a driver answered a commit with {other!r}")

    def stage_ahead(self, ctx: Context, needed: list[Record], staging: Staging) -> Operation[None]:
        """Stage full batches. The rest, and records whose reply is lost, are sent with the commit."""
        for portion in staged_in(staging.unstaged(needed), min(AHEAD_BYTES, ctx.policy.max_batch_bytes))[:-1]:
            commands = staging.commands(ctx, portion)
            with suppress(ReplyLost):
                staging.note(commands, (yield Batch(tuple(commands))))

    def adopt(self, ctx: Context, intent: Intent, _base: Manifest | None) -> Operation[Intent | None]:
        """Refuse records that are pending: a client that commits without scripts needs them. Else None."""
        dataset = intent.wanted.dataset
        key = ctx.keys.id(dataset, intent.id)
        entry = entry_in((yield from ask(ctx, Get(key))), key)
        origin = None if entry is None else (yield from read_origin(ctx, dataset, entry))
        if origin is None or not origin.pending:
            return None
        raise bound_elsewhere(key, (yield from permanent_entry(ctx, key)))


def _wait(ctx: Context, draft: Draft) -> tuple[AwaitReplicas, ...]:
    """Return the wait that travels behind the commit, if there is one: only publishes ask for it."""
    if ctx.durability is None or draft.row is None:
        return ()
    return (AwaitReplicas.of(ctx.durability, draft.manifest.key),)


def _swap(ctx: Context, draft: Draft, needed: list[Record]) -> Swap:
    return Swap(
        key=draft.manifest.key,
        expected=manifest.prefix(draft.base.etag) if draft.base else draft.over or b"",
        whole=draft.over is not None,
        prefix=manifest.prefix(draft.manifest.etag),
        manifest=draft.manifest.raw,
        live_key=ctx.keys.live(draft.manifest.head.dataset),
        staged=tuple(Staged(record.key, record.header, record.shared) for record in needed),
        rewritten=draft.rewritten,
        staging_ttl_ms=ctx.policy.staging_ttl_ms,
        unlinked=draft.unlinked,
        grace_ms=ctx.policy.reader_grace_ms if draft.grace_ms is None else draft.grace_ms,
        even_if_full=draft.even_if_full,
    )


# --- resolve the outcome ---------------------------------------------------------------------------


def resolve(
    ctx: Context, draft: Draft, current: Manifest | None, lost: ReplyLost | None
) -> Operation[Swapped | Moved | None]:
    """Return the outcome of a draft, now that `current` is stored. None: not committed yet, send it again.

    Raises `OutcomeUnknown` when a reply was lost (`lost`) and later versions do not show whose n+1 is.
    """
    base, ours = draft.base, draft.manifest
    if current is None:
        return None if base is None else Moved(None)
    if current.etag == ours.etag:
        return Swapped()
    if base is not None and current.etag == base.etag:
        return None
    if lost is None or current.epoch != ours.epoch or current.version <= ours.version:
        return Moved(current)  # without a lost reply, the store has said that it refused the draft
    # Later versions build on version n+1. If its row is ours, our commit succeeded.
    row = next((row for row in current.log.rows if row.version == ours.version), None)
    if row is None:
        row = yield from _in_pages(ctx, draft, current, lost)
    if row is None and _may_be_gone(draft, current):
        raise unknown(draft, lost) from lost
    return Swapped() if row is not None and row == draft.row else Moved(current)


def _in_pages(ctx: Context, draft: Draft, current: Manifest, lost: ReplyLost) -> Operation[Row | None]:
    """Find the draft's row in the pages, hidden or not: retention may hide it soon after the commit."""
    query = search.ByVersion(draft.manifest.version)
    try:
        return (yield from find(ctx, current.head.dataset, search.search(current, query, hidden=True)))
    except SwapstoreError as error:
        raise unknown(draft, error) from lost


def _may_be_gone(draft: Draft, current: Manifest) -> bool:
    """Say whether the draft may have been committed although the log does not show it.

    A draft without a row never shows in the log. A row leaves it when it is hidden and not one of the last,
    or is erased or dropped.
    """
    row, head, log = draft.row, current.head, current.log
    if row is None or row.version in log.erased or row.version <= head.dropped:
        return True
    return not head.shows(row) and row.version < complete_from(log)


def ask_after_loss(ctx: Context, draft: Draft, lost: ReplyLost) -> Operation[Manifest | None]:
    """Read the manifest after a lost reply. Raises `OutcomeUnknown` if it cannot be read."""
    try:
        return (yield from load_manifest(ctx, draft.manifest.head.dataset))
    except SwapstoreError as error:
        raise unknown(draft, error) from lost


def too_large(draft: Draft, cause: SwapstoreError) -> PayloadTooLarge:
    """Build the error for a request that the server does not read to its end."""
    size = draft.size_bytes
    return PayloadTooLarge(
        f"the server hangs up while version {draft.manifest.version} is sent, so a request of {size:,} bytes "
        f"seems to be too large for it ({cause.args[0]}); nothing was published. Publish less, or raise "
        "client-query-buffer-limit and proto-max-bulk-len of the server",
        size_bytes=size,
    )


def unknown(draft: Draft, cause: SwapstoreError) -> OutcomeUnknown:
    """Build the error for a commit whose outcome could not be resolved."""
    row = draft.row
    size = draft.size_bytes
    todo = f"publish again with id={row.id!r}" if row else "read the status, and repeat the call if need be"
    return OutcomeUnknown(
        f"the commit of version {draft.manifest.version} was sent and its outcome could not be resolved "
        f"({cause.args[0]}); {todo}. If it persists: does the store take requests of {size:,} bytes?",
        id=row.id if row else None,
    )
