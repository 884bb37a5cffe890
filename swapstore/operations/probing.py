"""Finding out, by trying, how an endpoint commits. Nothing is written on the way."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from swapstore.commands import Ask, Failed
from swapstore.errors import AccessDenied, Unavailable, Unscripted, Unsupported
from swapstore.operations.operation import Batch, Operation
from swapstore.operations.steps import ask_all
from swapstore.operations.strategy import Way

if TYPE_CHECKING:
    from swapstore.errors import SwapstoreError
    from swapstore.operations.context import Context


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
