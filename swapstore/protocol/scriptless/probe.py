"""How a store commits: with a script, or, where none runs, with plain commands.

What an endpoint can do is found out by trying, and remembered. A script commits in one atomic step. Where
scripts do not run, `SET … IFEQ` compares and sets in one command. Where that is not there either, only a
single writer is safe, and only who says so (`single_writer=True`) commits there, under a lease.
"""

from __future__ import annotations

import enum
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from swapstore.commands import Ask, Failed
from swapstore.errors import AccessDenied, Unavailable, Unscripted, Unsupported
from swapstore.protocol.load import ask_all
from swapstore.protocol.operation import Batch, Operation

if TYPE_CHECKING:
    from swapstore.errors import SwapstoreError
    from swapstore.protocol.context import Context


class Way(enum.Enum):
    """How the manifest is swapped."""

    SCRIPT = "a script"
    COMPARE = "compare-and-set"
    LEASE = "a plain SET by a single writer, under a lease"


@attrs.define
class Strategy:
    """What one client knows of its endpoint. `way` is None until it was tried.

    `serves`: nothing speaks yet against asking for a manifest and what it serves at once.
    """

    single_writer: bool = False
    way: Way | None = None
    serves: bool = True

    @property
    def scripted(self) -> bool:
        """Whether a commit is sent as a script: nothing speaks against it yet."""
        return self.way in {None, Way.SCRIPT}


# --- probing -----------------------------------------------------------------------------------
#
# Finding out, by trying, how an endpoint commits. Nothing is written on the way.


_A_SCRIPT = Ask(("EVAL", "return 1", "0"))


def at_connect(ctx: Context, kind: str) -> Operation[None]:
    """Ask a REST endpoint how it commits; others are tried by the first publish.

    One that cannot be reached now may be later: then the first publish asks.
    """
    if kind == "upstash":
        try:
            yield from find_way(ctx)
        except (AccessDenied, Unsupported):
            raise
        except Unavailable:
            return


def find_way(ctx: Context) -> Operation[None]:
    """Find out how this endpoint commits, before the first publish needs to know.

    Raises `Unsupported` where no way is left. Credentials that may only read find none and need none.
    """
    # Once: who cannot be reached is asked again by the first publish.
    (reply,) = yield Batch((_A_SCRIPT,))
    if not isinstance(reply, Failed):
        ctx.strategy.way = Way.SCRIPT
    elif not isinstance(reply.error, Unscripted):
        raise reply.error
    else:
        with suppress(AccessDenied):
            yield from without_scripts(ctx)


def without_scripts(ctx: Context) -> Operation[None]:
    """Find another way to commit, now that scripts do not run; `Unsupported` if there is none."""
    # The key is not there, so a server that compares writes nothing, and answers with nothing.
    words = ("SET", f"{ctx.keys.namespace}:probe", "", "IFEQ", ctx.token(16), "PX", "1000")
    (reply,) = yield from ask_all(ctx, [Ask(words)])
    if isinstance(reply, Failed) and not _is_unknown(reply.error):
        raise reply.error  # which says nothing of what the command means here
    if reply is None:
        ctx.strategy.way = Way.COMPARE
    elif ctx.strategy.single_writer:
        yield from _make_sure(ctx)
        ctx.strategy.way = Way.LEASE
    else:
        raise Unsupported(
            "this endpoint runs no scripts (EVAL) and knows no compare-and-set (SET … IFEQ), so nothing here "
            "commits safely. Allow EVAL and EVALSHA for it, or connect through the Redis protocol, or use "
            "Valkey 8.1 or Redis 8.4 and later behind it; or, if one process at a time publishes here, "
            "connect with single_writer=True (the command: --single-writer)"
        )


def _is_unknown(error: SwapstoreError) -> bool:
    """Say whether the server does not know this form of the command."""
    return isinstance(error, Unsupported) or "syntax error" in str(error)


def _make_sure(ctx: Context) -> Operation[None]:
    """Ask once more for scripts: a plain SET beside a producer that has them would take commits back."""
    (reply,) = yield from ask_all(ctx, [_A_SCRIPT])
    if not (isinstance(reply, Failed) and isinstance(reply.error, Unscripted)):
        raise Unavailable("the endpoint refused a script, and now it does not; try again")
