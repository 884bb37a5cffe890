"""Turns redis-py's errors and the servers' error replies into this library's. No message holds a secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import redis
from redis import exceptions as raised
from redis import sentinel
from redis.asyncio import sentinel as asentinel

from swapstore.commands import Failed, Get, GetAll, Members, Peek, ReadCommand, Scan, Time, Ttl
from swapstore.drivers import refusals
from swapstore.drivers.base import closed as closed_error
from swapstore.drivers.redis.pool import Exhausted, NoPrimary
from swapstore.errors import AccessDenied, InvalidInput, ReplyLost, SwapstoreError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command


def of_connecting(
    error: Exception, where: str, pool: Any, *, closed: bool
) -> tuple[SwapstoreError, Exception | None] | None:
    """Turn a failure to get a connection into this library's error, and its cause if that is safe to show.

    Nothing was sent. None: `error` is something else. Raise the result outside of the `except` block, because
    Python would otherwise show the original error with it, and that may quote a password.
    """
    for each in (error, error.__cause__):  # redis-py wraps it in asyncio
        if isinstance(each, NoPrimary):
            return each.failure, None
    if isinstance(error, _NO_SERVER) or isinstance(error.__cause__, _NO_SERVER):
        # No cause: it would quote the options of the sentinels, the password included.
        return passing(Unavailable(f"the sentinels know no server for {where} that is up")), None
    if isinstance(error, _DENIALS):
        return _denied(where, error), error
    if isinstance(error, raised.BusyLoadingError | Loading):
        return passing(refusals.loading(where)), error
    if isinstance(error, raised.MaxConnectionsError | Exhausted) or str(error) == "No connection available.":
        return exhausted(where, pool.max_connections), None
    if closed:
        return closed_error(), None
    if isinstance(error, raised.TimeoutError | TimeoutError):
        hint = "does it speak TLS? If not, write redis://" if is_tls(pool) else "is it overloaded?"
        return passing(Unavailable(f"{where} did not answer in time ({_text(error)}); {hint}")), error
    if isinstance(
        error, redis.RedisError | OSError | ValueError
    ):  # ValueError: redis-py, without descriptors
        return _not_connected(error, where, pool), error
    return None


def is_tls(pool: Any) -> bool:
    """Say whether the connections of a pool are encrypted."""
    return "SSL" in pool.connection_class.__name__


def _not_connected(error: Exception, where: str, pool: Any) -> SwapstoreError:
    text = _text(error)
    if is_tls(pool) and (refused := without_tls(error, where)) is not None:
        return refused
    if isinstance(error, raised.ResponseError) and "DB index" in text:
        return InvalidInput(
            f"{where} has no database of this number ({text}); write a smaller one, such as /0"
        )
    if _MAX_CLIENTS in text:
        return _too_many(where, text)
    return passing(
        Unavailable(f"cannot connect to {where}: {text}. Is the server running and the address right?")
    )


def without_tls(error: Exception, where: str) -> InvalidInput | None:
    """Build the error for a server with which there is no TLS. None: the connection failed otherwise."""
    text, cause = _text(error), str(error.__cause__ or error.__context__ or "")
    if "SSL" in cause and "SSL" not in text:
        text = f"{text}: {cause}"  # redis-py 5 leaves it out in asyncio
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        return InvalidInput(
            f"{where} showed a certificate that is not trusted: {text}. If it is the right server, name its "
            "authority with ?ssl_ca_certs=/path/to/ca.pem, and write the host name that the certificate has"
        )
    if ("SSL" in text or "WRONG_VERSION" in text) and not _HUNG_UP.search(text):
        return InvalidInput(
            f"{where} does not speak TLS as expected: {text}. For a plain port, write redis://"
        )
    return None


U = TypeVar("U", bound=Unavailable)


def passing(error: U) -> U:
    """Mark an error that the same request may not get in a moment: see `Unavailable.again`."""
    error.again = True
    return error


_HUNG_UP = re.compile(r"EOF|reset by peer|broken pipe", re.IGNORECASE)  # as a server does that is stopped
_MAX_CLIENTS = "max number of clients"


def _too_many(where: str, text: str) -> Unavailable:
    return passing(
        Unavailable(
            f"{where} accepts no more connections ({text}); raise maxclients, or open fewer: "
            "?max_connections= in the URL bounds those of one store"
        )
    )


class Loading(raised.ResponseError):
    """The server is loading its data. redis-py's own class for it ends the whole batch."""


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


# Reads that any server and proxy knows. One that does not know a script may hang up each time.
_PLAIN_READS = {Get, GetAll, Peek, Members, Ttl, Scan, Time}


class CutOff(redis.ConnectionError):
    """The server closed the connection before the last portion of a request was sent."""


def is_last(reply: Any) -> bool:
    """Say whether a reply is the last one on its connection: the server can read no further command."""
    return isinstance(reply, raised.ResponseError) and str(reply).startswith(("Protocol error", _PROTOCOL))


_PROTOCOL = "ERR Protocol error"


def of_exchanging(
    error: BaseException, where: str, commands: Sequence[Command[Any]], *, closed: bool
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
        return passing(refusals.loading(where))
    if isinstance(error, redis.RedisError) and _MAX_CLIENTS in str(error):
        return _too_many(where, _text(error))  # it says so instead of the first reply, and reads nothing
    # ValueError: what redis-py's own parser raises for a length that is not a number.
    # Exception: what its connections raise when another thread closes them.
    if isinstance(error, redis.RedisError | OSError | ValueError) or (
        closed and isinstance(error, Exception)
    ):
        lost = ReplyLost(
            f"the connection to {where} failed before the reply came: {_text(error)}. Is the server "
            "healthy and the network stable?",
            cut_off=isinstance(error, CutOff),
        )
        is_failure = isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError)
        lost.again = is_failure and all(type(each) in _PLAIN_READS for each in commands)
        return lost
    return None


def failed(error: redis.RedisError, where: str, command: Command[Any]) -> Failed:
    """Turn an error that came as a command's reply into the answer to this command."""
    text = text_of(error)
    return refusals.failed(refusals.refusal(text, where, command), text)


def text_of(error: redis.RedisError) -> str:
    """Return the text of a server's error as the server sent it, its code included."""
    code = getattr(error, "status_code", None) or next(
        (code for kind, code in _CODES.items() if isinstance(error, kind)), ""
    )
    return str(error) if str(error).startswith(code) else f"{code} {error}"


# redis-py removes the code from the error texts that it knows.
_CODES = {
    raised.OutOfMemoryError: "OOM",
    raised.ReadOnlyError: "READONLY",
    raised.NoPermissionError: "NOPERM",
    raised.NoScriptError: "NOSCRIPT",
    raised.MasterDownError: "MASTERDOWN",  # before CLUSTERDOWN, which it is derived from
    raised.ClusterDownError: "CLUSTERDOWN",
    raised.MovedError: "MOVED",  # before ASK, likewise
    raised.AskError: "ASK",
    raised.TryAgainError: "TRYAGAIN",
    raised.ClusterCrossSlotError: "CROSSSLOT",
    Loading: "LOADING",
}


def _text(error: Exception) -> str:
    return str(error).rstrip(".")


def _denied(where: str, error: Exception) -> AccessDenied:
    if "HELLO must be called" in str(error) or "Authentication required" in str(error):
        what = "it requires a password and was given none"
        return AccessDenied(f"{where} refused the credentials: {what}; {_with_password(where)}")
    return AccessDenied(f"{where} refused the credentials ({error}); check user and password in the URL")


def _with_password(where: str) -> str:
    """Say how a password is given: in the URL, or to the user's own client."""
    scheme, separator, rest = where.partition("://")
    return f"write {scheme}://:PASSWORD@{rest}" if separator else "pass password= to the client"
