"""Turns redis-py's errors and the servers' error replies into this library's. No message holds a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
from redis import exceptions as raised
from redis import sentinel
from redis.asyncio import sentinel as asentinel

from swapstore.commands import ReadCommand
from swapstore.drivers import refusals
from swapstore.errors import AccessDenied, ReplyLost, SwapstoreError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command


def of_connecting(error: Exception, where: str, pool: Any) -> tuple[SwapstoreError, Exception | None] | None:
    """Turn a failure to get a connection into this library's error, and its cause if that is safe to show.

    Nothing was sent. None: `error` is something else. Raise the result outside of the `except` block, because
    Python would otherwise show the original error with it, and that may quote a password.
    """
    if isinstance(error, _NO_SERVER) or isinstance(error.__cause__, _NO_SERVER):
        # No cause: it would quote the options of the sentinels, the password included.
        return Unavailable(f"the sentinels know no server for {where} that is up"), None
    if isinstance(error, _DENIALS):
        return _denied(where, error), error
    if isinstance(error, raised.BusyLoadingError):
        return refusals.loading(where), error
    if isinstance(error, raised.MaxConnectionsError) or str(error) == "No connection available.":
        return exhausted(where, pool.max_connections), None
    if isinstance(error, raised.TimeoutError | TimeoutError):
        return Unavailable(f"{where} did not answer in time ({_text(error)}). Is it overloaded?"), error
    if isinstance(error, redis.RedisError | OSError):
        text = f"cannot connect to {where}: {_text(error)}. Is the server running and the address right?"
        return Unavailable(text), error
    return None


def exhausted(where: str, size: int) -> Unavailable:
    """Build the error for a pool in which no connection became free in time."""
    return Unavailable(
        f"all {size} connections of the pool to {where} are in use, and none became free in time; enlarge "
        "the pool (?max_connections= in the URL), or do less at once"
    )


_NO_SERVER = (
    sentinel.MasterNotFoundError,
    sentinel.SlaveNotFoundError,
    asentinel.MasterNotFoundError,
    asentinel.SlaveNotFoundError,
)
_DENIALS = (
    raised.AuthenticationError,
    raised.AuthorizationError,
    raised.NoPermissionError,
    raised.AuthenticationWrongNumberOfArgsError,
)


def of_exchanging(
    error: BaseException, where: str, commands: Sequence[Command[Any]]
) -> SwapstoreError | None:
    """Turn a failure between sending commands and reading their replies into this library's error.

    None: `error` is something else. The connection must not be used again.
    """
    if isinstance(error, _DENIALS):
        return _denied(where, error)  # the server carries out nothing on such a connection
    # redis-py raises this reply and reads no further: later commands of the batch may have run.
    if isinstance(error, raised.BusyLoadingError) and (
        len(commands) == 1 or all(isinstance(each, ReadCommand) for each in commands)
    ):
        return refusals.loading(where)
    # ValueError: what redis-py's own parser raises for a length that is not a number.
    if isinstance(error, redis.RedisError | OSError | ValueError):
        return ReplyLost(
            f"the connection to {where} failed before the reply came: {_text(error)}. Is the server "
            "healthy and the network stable?"
        )
    return None


def refusal(error: redis.RedisError, where: str, command: Command[Any] | None) -> SwapstoreError:
    """Turn an error that came as a command's reply into this library's error."""
    code = getattr(error, "status_code", None) or next(
        (code for kind, code in _CODES.items() if isinstance(error, kind)), ""
    )
    text = str(error)
    return refusals.refusal(text if text.startswith(code) else f"{code} {text}", where, command)


# redis-py removes the code from the error texts that it knows.
_CODES = {
    raised.OutOfMemoryError: "OOM",
    raised.ReadOnlyError: "READONLY",
    raised.NoPermissionError: "NOPERM",
    raised.NoScriptError: "NOSCRIPT",
}


def _text(error: Exception) -> str:
    return str(error).rstrip(".")


def _denied(where: str, error: Exception) -> AccessDenied:
    if "HELLO must be called" in str(error) or "Authentication required" in str(error):
        return AccessDenied(f"{where} refused the credentials: it requires a password and was given none")
    return AccessDenied(f"{where} refused the credentials ({error}); check user and password in the URL")
