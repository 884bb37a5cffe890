"""A publish that waits until replicas, or disks, have its commit.

The wait travels behind the commit: same batch, same connection (`Scripted.send`). If the commit's own reply
says that it was carried out, the reply to the wait is about it, and that is all.

In every other case (a lost reply, a commit of an earlier publish, a commit without scripts, a demotion during
the wait) the commit was written on another connection, perhaps by another client. A server waits only for
what its connection has written; after reads alone, Valkey 9 returns the full number at once. So one more
batch reads the manifest, writes a mark that expires, and waits. Replicas apply the writes of a server in
their order: those that have the mark have everything that the manifest shows. If it does not show the commit,
a failover has undone it, and the snapshot is published again under its id.

Once a commit was seen, nothing here claims that it was not published: what goes wrong afterwards is
`UnderReplicated`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore import arguments
from swapstore.commands import NOT_ON_DISK, AwaitReplicas, Command, Failed, Get, Put
from swapstore.errors import (
    AccessDenied,
    OutcomeUnknown,
    ReplyLost,
    SwapstoreError,
    Unavailable,
    UnderReplicated,
    Unsupported,
)
from swapstore.format import manifest, search
from swapstore.models import Durability
from swapstore.protocol.load import ask_all, find, value_of
from swapstore.protocol.operation import Batch, Operation, Wait
from swapstore.protocol.publish import Publication, publish

if TYPE_CHECKING:
    from swapstore.models import Commit
    from swapstore.protocol.context import Context

MARK_TTL_MS = 1000


# --- whether it can be had -------------------------------------------------------------------------


def ask_at_connect(ctx: Context) -> Operation[None]:
    """Ask the server, once. If it does not answer now, the first publish asks it."""
    if ctx.durability is not None:
        with suppress(Unavailable):
            (reply,) = yield Batch((_question(ctx, ctx.durability),))
            _note(ctx, ctx.durability, reply)


def asking(ctx: Context, durability: Any) -> Context:
    """Return the context of a publish that asks for a durability of its own."""
    arguments.shorter_than_a_reply(Durability.of(durability).timeout, ctx.policy.reply_s)
    return msgspec.structs.replace(ctx, durability=durability)


def require(ctx: Context, durability: Durability) -> Operation[None]:
    """Raise `Unsupported` if this store cannot give it, before anything is written. Asks a server once."""
    found = ctx.capabilities
    if found.never_awaits:
        raise Unsupported(found.never_awaits)
    if durability.fsync in found.awaits:
        return
    (reply,) = yield from ask_all(ctx, [_question(ctx, durability)])
    _note(ctx, durability, reply)


def _question(ctx: Context, durability: Durability) -> AwaitReplicas:
    return AwaitReplicas(ctx.keys.datasets(), 0, durability.fsync, 1)


def _note(ctx: Context, durability: Durability, reply: int | Failed) -> None:
    """Remember that the server can wait. Raises `Unsupported` if it cannot."""
    if isinstance(reply, Failed):
        if not isinstance(reply.error, AccessDenied | Unsupported):
            raise reply.error
        needed, since = ("WAITAOF", " of Redis 7.2 or Valkey,") if durability.fsync else ("WAIT", "")
        raise Unsupported(
            f"{reply.error.args[0]}. The durability that is asked for needs {needed},{since} so nothing was "
            f"written. Allow it for this user (ACL SETUSER … +{needed.lower()}), choose another durability, "
            "or publish without one"
        ) from reply.error
    ctx.capabilities.awaits.add(durability.fsync)


# --- publish, and wait -----------------------------------------------------------------------------


def publish_durably(ctx: Context, wanted: Publication, durability: Durability) -> Operation[Commit]:
    """Publish, and wait for the durability. Raises `UnderReplicated`, and what `publish` raises."""
    for _ in range(ctx.policy.lost_attempts):
        commit = yield from publish(ctx, wanted)
        replicas = commit.replicas
        if replicas is None:
            try:
                replicas = yield from _wait_again(ctx, commit, durability)
            except SwapstoreError as error:
                raise _not_known(commit, durability, error) from error
        if replicas is not None:
            return _enough(attrs.evolve(commit, replicas=max(replicas, 0)), durability, replicas)
        if commit.created:  # a commit that was found by its dedupe key has the id of another publish
            wanted = msgspec.structs.replace(wanted, id=commit.id)
    raise OutcomeUnknown(
        f"version {commit.version} was committed and then undone, {ctx.policy.lost_attempts} times in a row: "
        f"does the address lead to more than one primary? Publish again with id={commit.id!r}",
        id=commit.id,
    )


def _wait_again(ctx: Context, commit: Commit, durability: Durability) -> Operation[int | None]:
    """Wait for a commit that another connection has written. None: a failover has undone it."""
    key = ctx.keys.manifest(commit.dataset)
    mark = Put(ctx.keys.mark(commit.dataset), b"", MARK_TTL_MS)
    commands: tuple[Command[Any], ...] = (Get(key), mark, AwaitReplicas.of(durability, key))
    failure: SwapstoreError | None = None
    for attempt in range(ctx.policy.lost_attempts):
        if attempt:
            yield Wait(ctx.backoff(attempt))
        try:
            raw, marked, waited = yield Batch(commands)
        except ReplyLost as error:
            failure = error
            continue
        value_of(marked)
        if not (yield from _has(ctx, value_of(raw), commit)):
            return None
        if not isinstance(waited, Failed):
            replicas: int = waited
            return replicas
        failure = waited.error  # demoted during the wait: ask its successor
    assert failure is not None  # noqa: S101 - each attempt but the last returned has set it
    raise failure


def _has(ctx: Context, raw: bytes | None, commit: Commit) -> Operation[bool]:
    """Say whether a stored manifest shows a commit, or has unlinked it since."""
    current = None if raw is None else manifest.parse(raw, commit.dataset, ctx.keys.manifest(commit.dataset))
    if current is None or current.etag == commit.etag:
        return current is not None
    query = search.ByVersion(commit.version)
    row = yield from find(ctx, commit.dataset, search.search(current, query, hidden=True))
    if row is None:
        is_hidden = commit.version < current.head.first_version or commit.ts < current.head.floor
        return is_hidden and current.version > commit.version
    return row.id == commit.id


def _enough(commit: Commit, durability: Durability, replicas: int) -> Commit:
    """Return the commit. Raises `UnderReplicated` if fewer have it than were asked for."""
    if replicas >= durability.replicas:
        return commit
    found = (
        "the server did not have it on its own disk"
        if replicas == NOT_ON_DISK
        else f"{replicas} of {durability.replicas} replicas had it{' on disk' if durability.fsync else ''}"
    )
    hint = "has each replica appendonly on" if durability.fsync else "is this an old primary that was cut off"
    within = f"within {durability.timeout:g} s. Is a replica down or behind, or {hint}?"
    raise _too_few(commit, durability, f"{found} {within}")


def _not_known(commit: Commit, durability: Durability, cause: SwapstoreError) -> UnderReplicated:
    return _too_few(commit, durability, f"the store could not be asked who has it: {cause.args[0]}.")


def _too_few(commit: Commit, durability: Durability, what: str) -> UnderReplicated:
    return UnderReplicated(
        f"version {commit.version}, id {commit.id!r}, is published, but {what} Publish again with this id "
        "and the same content: that waits again, and publishes again what a failover has undone",
        commit=commit,
        durability=durability,
        replicas=commit.replicas or 0,
    )
