"""Find out how a store commits, by probing it. A probe changes nothing.

A script commits in one atomic step. Where scripts do not run, `SET … IFEQ` compares and sets in one command.
Where the store has neither, only a single writer is safe. A client that promises to be the only one
(`single_writer=True`) commits there under a lease.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from swapstore.commands import Ask, Command, Drop, Failed, Get, Peek, Remove, Ttl
from swapstore.errors import AccessDenied, Unavailable, Unscripted, Unsupported
from swapstore.protocol.commit import Outcome, Scripted, Swapped
from swapstore.protocol.load import ask_all
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.scriptless.resend import sent_again

if TYPE_CHECKING:
    from swapstore.errors import SwapstoreError
    from swapstore.format.append import Draft
    from swapstore.protocol.commit import Record, Staging
    from swapstore.protocol.context import Context


_A_SCRIPT = Ask(("EVAL", "return 1", "0"))


class Undecided(Scripted):
    """Tries to commit with the script, and replaces itself with the committer that the store supports."""

    def __init__(self, *, single_writer: bool = False) -> None:
        self._single_writer = single_writer

    def send(
        self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging
    ) -> Operation[Outcome | None]:
        """Send a draft with the script. If no script runs, nothing was committed: find another way."""
        try:
            outcome = yield from super().send(ctx, draft, needed, staging)
        except Unscripted:
            yield from self._without_scripts(ctx)
            return None
        if isinstance(outcome, Swapped):
            ctx.capabilities.committer = Scripted()
        return outcome

    def ask_at_connect(self, ctx: Context) -> Operation[None]:
        """Probe an endpoint. If it cannot be reached now, the first publish probes it."""
        with suppress(Unavailable):
            yield from self._decide(ctx)

    def _decide(self, ctx: Context) -> Operation[None]:
        """Find out how this endpoint commits, before the first publish needs to know.

        Raises `Unsupported` if nothing here commits safely. Credentials that may only read are not refused,
        because they never commit.
        """
        (reply,) = yield Batch((_A_SCRIPT,))
        if not isinstance(reply, Failed):
            ctx.capabilities.committer = Scripted()
        elif not isinstance(reply.error, Unscripted):
            raise reply.error
        else:
            with suppress(AccessDenied):
                yield from self._without_scripts(ctx)

    def _without_scripts(self, ctx: Context) -> Operation[None]:
        """Find another way to commit, because scripts do not run. Raises `Unsupported` if there is none."""
        from swapstore.protocol.scriptless.committer import (  # noqa: PLC0415 - few stores need it
            ByCompareAndSet,
            UnderLease,
        )

        compares, missing = yield from ask_commands(ctx)
        if missing:
            raise Unsupported(lacks(missing))
        if compares:
            ctx.capabilities.committer = ByCompareAndSet()
        elif self._single_writer:
            yield from _make_sure(ctx)
            ctx.capabilities.committer = UnderLease()
        else:
            raise Unsupported(
                "this endpoint runs no scripts (EVAL) and knows no compare-and-set (SET … IFEQ), so "
                "nothing here commits safely. Allow EVAL and EVALSHA for it, or connect through the Redis "
                "protocol, or use Valkey 8.1 or Redis 8.4 and later behind it; or, if one process at a time "
                "publishes here, connect with single_writer=True (the command: --single-writer)"
            )


def ask_commands(ctx: Context) -> Operation[tuple[bool, list[str]]]:
    """Find out what a commit without scripts has: whether `SET` knows `IFEQ`, and what is missing.

    It changes nothing: the key is not there. A driver that can replace a command by another one does so from
    now on; if both are missing, the command is. Raises the error of a command that is refused for another
    reason.
    """
    key = f"{ctx.keys.namespace}:probe"
    asked: dict[str, Command[Any]] = {
        "SET": Ask(("SET", key, "", "XX", "PX", "1000")),
        "GET": Get(key),
        "GETRANGE or GET": Peek(key, 1),
        "PTTL or TTL": Ttl(key),
        "PEXPIRE or EXPIRE": Drop(key),
        "DEL": Remove(key),
        # A server that knows IFEQ writes nothing, and its reply is nil.
        "IFEQ": Ask(("SET", key, "", "IFEQ", ctx.token(16), "PX", "1000")),
    }
    replies = dict(zip(asked, (yield from sent_again(ctx, Batch(tuple(asked.values())))), strict=True))
    refused = {name: reply.error for name, reply in replies.items() if isinstance(reply, Failed)}
    unknown = [name for name, error in refused.items() if _is_unknown(error)]
    for name, error in refused.items():
        if name not in unknown:
            raise error  # it does not show whether the server knows the command
    return "IFEQ" not in unknown, [name for name in unknown if name != "IFEQ"]


def lacks(missing: list[str]) -> str:
    """Return the message about commands without which nothing can be published."""
    return (
        "this endpoint runs no scripts (EVAL), and lacks what a commit without them needs: "
        f"{', '.join(missing)}. Allow these commands, or EVAL and EVALSHA, for this token or user"
    )


def _is_unknown(error: SwapstoreError) -> bool:
    """Say whether the server refused the command because it does not know IFEQ."""
    return isinstance(error, Unsupported) or "syntax error" in str(error)


def _make_sure(ctx: Context) -> Operation[None]:
    """Try a script once more: a plain SET would overwrite the commits of a producer that uses scripts."""
    (reply,) = yield from ask_all(ctx, [_A_SCRIPT])
    if not (isinstance(reply, Failed) and isinstance(reply.error, Unscripted)):
        raise Unavailable("the endpoint refused a script, and now does not; nothing was published. Try again")
