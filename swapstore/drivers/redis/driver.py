"""The blocking driver for Redis and Valkey, on redis-py.

A batch is one pipeline, one round trip, on one connection of the pool. The driver uses the public methods of
the connection and not `Redis.pipeline`, for three reasons: it examines each reply by itself, it never sends
anything twice (a client's retry policy wraps its commands, not its connections), and it knows whether
anything was sent when the connection fails.

A connection is used again only after a batch whose replies were all read. After a lost reply, and after a
reply that only a demoted primary gives, all older connections are retired: see `pool.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import redis
from redis._parsers import _HiredisParser, _RESP2Parser
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection
from redis.utils import HIREDIS_AVAILABLE

from swapstore.commands import AwaitReplicas, Command, Failed, Stage
from swapstore.drivers import refusals
from swapstore.drivers.redis import address, errors, sentinel, wire
from swapstore.drivers.redis.pool import BorrowedPool, Pool
from swapstore.drivers.redis.subscription import RedisListener
from swapstore.drivers.redis.wire import Bundle, SharedWait, Wire, bundled, value
from swapstore.errors import ReplyLost, SwapstoreError
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swapstore.models import Timeout


# Not redis-py's default: that may be a parser of RESP3, which it replaces only if it is that very class.
_Parser: Any = _HiredisParser if HIREDIS_AVAILABLE else _RESP2Parser


class Parser(_Parser):  # type: ignore[misc]
    """redis-py's parser, but LOADING is the reply to one command, and those after it are read."""

    EXCEPTION_CLASSES: ClassVar = {**_Parser.EXCEPTION_CLASSES, "LOADING": errors.Loading}


class _SSLConnection(redis.SSLConnection):
    """A connection whose TLS handshake counts as connecting. A plain server waits for more, mutely."""

    def _connect(self) -> Any:
        reply_s, self.socket_timeout = self.socket_timeout, self.socket_connect_timeout
        try:
            sock: Any = super()._connect()  # type: ignore[no-untyped-call]
        finally:
            self.socket_timeout = reply_s
        sock.settimeout(reply_s)
        return sock


class RedisDriver:
    """Carries out commands on a Redis or Valkey server.

    Built from a URL, it opens and closes its own connections. Built from a client, it borrows the client's
    connection pool and never closes it.
    """

    kind = "redis"
    binary_safe = True

    def __init__(self, pool: Pool | BorrowedPool, *, where: str, renew: Callable[[], Pool] | None) -> None:
        self._pool = pool
        self._inherited: list[Pool | BorrowedPool] = []
        self._renew = renew  # None: the pool is borrowed
        self._wire = Wire()
        self.where = where
        survive_forks(self)

    def after_fork(self) -> None:
        """Replace the parent's pool, unused: a thread that does not exist in the child may hold its lock."""
        if self._renew is not None:
            self._inherited.append(self._pool)
            self._pool = self._renew()

    @classmethod
    def from_url(cls, url: str, *, timeout: Timeout | None = None) -> RedisDriver:
        """Make a driver for a URL of a server, or of sentinels. Connects at the first command."""
        asked = sentinel.parse(url)
        where, parsed = address.parse(
            asked.url if asked else url,
            redis.BlockingConnectionPool,
            _no_retry(),
            Parser,
            timeout,
            where=asked.where if asked else None,
        )
        plain = parsed.connection_class
        plain = _SSLConnection if plain is redis.SSLConnection else plain
        kind = sentinel.connections(plain) if asked else plain

        def client(options: dict[str, Any]) -> Any:
            return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=plain, **options))

        def pool() -> Pool:
            options = parsed.connection_kwargs
            if asked:
                options = {**options, "sentinels": sentinel.Sentinels(asked, client, options)}
            return Pool(kind, options, size=parsed.max_connections, wait_s=parsed.timeout)

        return cls(pool(), where=where, renew=pool)

    @classmethod
    def from_client(cls, client: Any, *, timeout: Timeout | None = None) -> RedisDriver:  # noqa: ARG003 - the client has its own
        """Make a driver on the connections of a `redis.Redis`, whatever its decoding and retry settings."""
        where = address.where_of_client(client, redis.Redis, "redis.Redis")
        return cls(BorrowedPool(client.connection_pool), where=where, renew=None)

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands as one pipeline; see `Driver.execute`."""
        units = bundled(commands)
        pool = self._pool
        connection = self._connected(pool)
        try:
            replies = self._exchange(connection, units)
            unknown = without_script(units, replies)
            if unknown:  # after a restart or SCRIPT FLUSH: they did not run, so send the text of the script
                again = self._exchange(connection, [units[i] for i in unknown], as_text=True)
                for i, reply in zip(unknown, again, strict=True):
                    replies[i] = reply
        except BaseException as error:
            pool.discard(connection)
            failure = errors.of_exchanging(error, self.where, units, closed=pool.closed)
            if failure is None:
                raise
            if isinstance(failure, ReplyLost):
                pool.retire()
            raise failure from error
        pool.release(connection)
        found = answers(units, replies, self.where)
        if misdirected(commands, found):
            pool.retire()
        return found

    def _connected(self, pool: Pool | BorrowedPool) -> Any:
        """Take a connection from the pool, ready for use."""
        sentinels = pool.connection_kwargs.get("sentinels")
        if sentinels is not None:
            sentinels.refresh()
        try:
            return pool.get_connection()
        except SwapstoreError:
            raise
        except Exception as error:
            failed = errors.of_connecting(error, self.where, pool, closed=pool.closed)
            if failed is None:
                raise
        failure, cause = failed
        raise failure from cause

    def _exchange(
        self, connection: Any, commands: Sequence[Command[Any]], *, as_text: bool = False
    ) -> list[Any]:
        """Send every command, then read every reply: a value, or the error that the server replied with."""
        frames = [self._wire.frame(command, as_text=as_text) for command in commands]
        pieces = wire.packed(frames)
        if len(pieces) == 1 and len(pieces[0]) <= wire.PORTION:
            cut_off = None
            connection.send_packed_command(pieces, check_health=False)
        else:
            cut_off = _send_in_portions(connection, pieces)
        read = connection.read_response
        if isinstance(connection, SentinelManagedConnection):
            # Its own method takes READONLY for a failed connection, and leaves the other replies unread.
            read = super(SentinelManagedConnection, connection).read_response
        replies: list[Any] = []
        try:
            for _ in frames:
                replies.append(_reply(read))  # noqa: PERF401 - what came before a failure counts
        except (redis.RedisError, OSError):
            if not replies or not errors.is_last(replies[-1]):
                if cut_off is not None:
                    raise cut_off from None
                raise
            connection.disconnect()
            replies += replies[-1:] * (len(frames) - len(replies))  # nothing of the rest was carried out
        return replies

    @property
    def reply_s(self) -> float | None:
        """How long it waits for a reply in silence, in seconds. None: it has no bound."""
        found: float | None = self._pool.connection_kwargs.get("socket_timeout")
        return found

    def listen(self, channel: str) -> RedisListener:
        """Subscribe to hints on a channel; see `Listener`. The connection is not one of the pool's."""
        kind, options = self._pool.connection_class, self._pool.connection_kwargs
        return RedisListener(lambda: kind(**{**options, "retry": _no_retry()}), channel)

    def close(self) -> None:
        """Close the connections if the driver opened them."""
        self._pool.close()
        sentinels = self._pool.connection_kwargs.get("sentinels")
        if sentinels is not None:
            sentinels.close()


def _no_retry() -> Retry:
    """Return a policy that never sends anything a second time."""
    return Retry(NoBackoff(), 0)


def _send_in_portions(connection: Any, pieces: list[bytes]) -> errors.CutOff | None:
    """Send a request in portions. Returns the failure if the server hung up before the last one.

    The portions after the first are written to the socket itself: if another thread has closed it, redis-py
    would connect anew, and the server would take a part of a payload for commands.
    """
    portions = iter(wire.portions(pieces))
    connection.send_packed_command(next(portions), check_health=False)
    sock = connection._sock  # noqa: SLF001 - there is no public way that does not connect
    for (piece,) in portions:
        if sock is None:
            raise redis.ConnectionError("the connection was closed while a request was sent")
        try:
            sock.sendall(piece)
        except TimeoutError:
            raise
        except OSError as error:
            if next(portions, None) is None:
                raise
            return errors.CutOff(str(error))
    return None


def _reply(read: Callable[..., Any]) -> Any:
    """Read one reply: a value, or the error that the server replied with."""
    try:
        return read(disable_decoding=True)
    except redis.ResponseError as error:
        return error


# --- replies, for the asyncio driver too -----------------------------------------------------------


def answers(units: Sequence[Command[Any]], replies: Sequence[Any], where: str) -> list[Any]:
    """Return the answer to each command, refusals included. The one reply to a bundle holds several.

    Raises `Unavailable` if the server is still loading its data: it has carried out nothing.
    """
    if (
        replies
        and type(replies[0]) is errors.Loading
        and all(type(reply) is errors.Loading for reply in replies)
    ):
        raise errors.passing(refusals.loading(where))
    found: list[Any] = []
    shared: list[tuple[int, Any]] = []
    for unit, reply in zip(units, replies, strict=True):
        if type(unit) is SharedWait:
            found.append(_answer(unit.wait, reply, where))
            shared += ((place, found[-1]) for place in unit.places)
        elif type(unit) is not Bundle:
            found.append(_answer(unit, reply, where))
        elif isinstance(reply, redis.RedisError):
            found += unit.refused(errors.failed(reply, where, unit.commit))
        else:
            outcome = value(unit.commit, reply)
            if isinstance(reply, bytes):  # committed, and no key was taken
                found += (*[True] * len(unit.stages), outcome)
            else:
                placed = zip(unit.in_commit_order, reply[1:], strict=True)
                staged = {stage.key: _placed(stage, each, where) for stage, each in placed}
                found += (*(staged[stage.key] for stage in unit.stages), outcome)
    for place, answer in sorted(shared, key=lambda each: each[0]):
        found.insert(place, answer)
    return found


def _answer(command: Command[Any], reply: Any, where: str) -> Any:
    if isinstance(reply, redis.RedisError):
        return errors.failed(reply, where, command)
    return value(command, reply)


def _placed(stage: Stage, reply: Any, where: str) -> bool | Failed:
    """Return the answer to a `Stage` that the commit script carried out: whether its key was free."""
    if isinstance(reply, redis.RedisError):
        return errors.failed(reply, where, stage)
    return bool(reply)


def misdirected(commands: Sequence[Command[Any]], found: Sequence[Any]) -> bool:
    """Say whether this server may not be the one to ask.

    It refused a command because of that (see `Failed.again`), or too few replicas had a commit in time: it
    may be an old primary that was cut off.
    """
    for answer in found:
        if type(answer) is Failed and answer.again:
            return True
    for command, answer in zip(commands, found, strict=True):
        if type(command) is AwaitReplicas and type(answer) is int and answer < command.replicas:
            return True
    return False


def without_script(units: Sequence[Command[Any]], replies: Sequence[Any]) -> list[int]:
    """Return the indexes of the commands that did not run because the server does not know our script.

    And of the waits: they waited for nothing, or for the rest.
    """
    found = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
    if found:
        found += [i for i, unit in enumerate(units) if isinstance(unit, AwaitReplicas | SharedWait)]
    return sorted(found)
