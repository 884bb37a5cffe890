"""The blocking driver for Redis and Valkey, on redis-py.

A batch is one pipeline, one round trip, on one connection of the pool. The driver uses the public methods of
the connection and not `Redis.pipeline`, for three reasons: it examines each reply by itself, it never sends
anything twice (a client's retry policy wraps its commands, not its connections), and it knows whether
anything was sent when the connection fails.

A connection is used again only after a batch whose replies were all read. After a lost reply, and after a
reply that only a demoted primary gives, all older connections are retired: see `pool.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import redis
from redis._parsers import _HiredisParser, _RESP2Parser
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection
from redis.utils import HIREDIS_AVAILABLE

from swapstore.commands import Ask, AwaitReplicas, Command, Failed, Stage
from swapstore.drivers import refusals
from swapstore.drivers.base import LEFT_S
from swapstore.drivers.redis import address, elsewhere, errors, replicas, sentinel, wire
from swapstore.drivers.redis.pool import BorrowedPool, Pool
from swapstore.drivers.redis.subscription import RedisListener
from swapstore.drivers.redis.wire import Bundle, SharedWait, Wire, bundled, value
from swapstore.errors import ReplyLost, SwapstoreError
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.models import Timeout


Refusing = Callable[[redis.RedisError, str, Command[Any]], Failed]

# Not redis-py's default: that may be a parser of RESP3, which it replaces only if it is that very class.
_Parser: Any = _HiredisParser if HIREDIS_AVAILABLE else _RESP2Parser


class Parser(_Parser):  # type: ignore[misc]
    """redis-py's parser, but LOADING is the reply to one command, and those after it are read."""

    EXCEPTION_CLASSES: ClassVar = {**_Parser.EXCEPTION_CLASSES, "LOADING": errors.Loading}


class SSLConnection(redis.SSLConnection):
    """A connection whose TLS handshake counts as connecting. A plain server waits for more, mutely.

    After the handshake a server sends tickets. redis-py's pool takes them for a reply to nobody if they are
    there before the first request: so a busy machine could ask no sentinel.
    """

    _has_answered = False

    def can_read(self, timeout: float = 0) -> bool:
        """Say whether it has data. Without a time-out: data that nobody asked for."""
        return (self._has_answered or timeout > 0) and bool(super().can_read(timeout))

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read one reply, and all tickets, which come before it."""
        try:
            return super().read_response(*args, **options)
        finally:
            self._has_answered = True

    def _connect(self) -> Any:
        self._has_answered = False
        reply_s, self.socket_timeout = self.socket_timeout, self.socket_connect_timeout
        try:
            sock: Any = super()._connect()  # type: ignore[no-untyped-call]
        finally:
            self.socket_timeout = reply_s
        sock.settimeout(reply_s)
        return sock


class Request:
    """A batch that was sent, and the connection on which its replies will come."""

    __slots__ = ("asking", "connection", "cut_off", "hurried", "pool", "units")

    def __init__(
        self, pool: Pool | BorrowedPool, connection: Any, units: Sequence[Command[Any]], *, asking: bool
    ) -> None:
        self.pool = pool
        self.connection = connection
        self.units = units
        self.asking = asking
        self.cut_off: errors.CutOff | None = None
        self.hurried = _hurry(connection)


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
    def from_url(cls, url: str, *, timeout: Timeout | None = None, to_replicas: bool = False) -> RedisDriver:
        """Make a driver for a URL of a server, or of sentinels. Connects at the first command.

        `to_replicas`: it leads to the replicas that the sentinels know.
        """
        asked = sentinel.parse(url)
        where, parsed = address.parse(
            asked.url if asked else url,
            redis.BlockingConnectionPool,
            no_retry(),
            Parser,
            timeout,
            where=asked.where if asked else None,
        )
        plain = parsed.connection_class
        plain = SSLConnection if plain is redis.SSLConnection else plain
        leading = replicas.connections if to_replicas else sentinel.connections
        kind = leading(plain) if asked else plain

        def client(options: dict[str, Any]) -> Any:
            return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=plain, **options))

        def pool() -> Pool:
            options, wait_s = parsed.connection_kwargs, parsed.timeout
            if asked and to_replicas:
                options, wait_s = replicas.hasty(options), min(wait_s, replicas.CONNECT_S)
            if asked:
                asks = replicas.Replicas if to_replicas else sentinel.Sentinels
                options = {**options, "sentinels": asks(asked, client, options)}
            return Pool(kind, options, size=parsed.max_connections, wait_s=wait_s)

        return cls(pool(), where=where, renew=pool)

    @classmethod
    def from_client(cls, client: Any, *, timeout: Timeout | None = None) -> RedisDriver:  # noqa: ARG003 - the client has its own
        """Make a driver on the connections of a `redis.Redis`, whatever its decoding and retry settings."""
        where = address.where_of_client(client, redis.Redis, "redis.Redis")
        return cls(BorrowedPool(client.connection_pool), where=where, renew=None)

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands as one pipeline; see `Driver.execute`."""
        if is_for_others(commands):
            return self._elsewhere(commands)
        request = self.send(bundled(commands))
        found = answers(request.units, self.receive(request), self.where)
        if misdirected(commands, found):
            request.pool.retire()
        return found

    def _elsewhere(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Ask sentinels, and replicas that they name, for `doctor`."""
        others = elsewhere.behind(self._pool)
        found = elsewhere.begun(commands, others)
        if others is None:
            return found
        for node, asks in elsewhere.divided(commands).items():
            kind, options = others.way(node)
            pool = Pool(kind, {**options, "retry": no_retry()}, size=1, wait_s=elsewhere.ANSWER_S)
            try:
                replies = RedisDriver(pool, where=node, renew=None).execute([*asks.values()])
            except SwapstoreError as error:
                replies = [Failed(error)] * len(asks)
            finally:
                pool.close()
            for i, reply in zip(asks, replies, strict=True):
                found[i] = elsewhere.final(reply)
        return found

    def send(self, units: Sequence[Command[Any]], *, asking: bool = False) -> Request:
        """Send a batch on a connection of its own, and read nothing yet. Raises as `Driver.execute` does.

        `asking`: precede each command with ASKING, for a node of a cluster that is about to get its key.
        """
        pool = self._pool
        request = Request(pool, self._connected(pool), units, asking=asking)
        try:
            self._send(request)
        except BaseException as error:
            failure = self._failed(request, error)
            if failure is None:
                raise
            raise failure from error
        return request

    def receive(self, request: Request) -> list[Any]:
        """Read the reply to each command of a batch that was sent: a value, or an error of the server."""
        try:
            replies = self._read(request, len(request.units))
            unknown = without_script(request.units, replies)
            if unknown:  # after a restart or SCRIPT FLUSH: they did not run, so send the text of the script
                self._send(request, unknown)
                for i, reply in zip(unknown, self._read(request, len(unknown)), strict=True):
                    replies[i] = reply
        except BaseException as error:
            failure = self._failed(request, error)
            if failure is None:
                raise
            raise failure from error
        sock = request.connection._sock if request.hurried else None  # noqa: SLF001
        if sock is not None:  # else it is closed
            sock.settimeout(request.connection.socket_timeout)
        request.pool.release(request.connection)
        return replies

    def _failed(self, request: Request, error: BaseException) -> SwapstoreError | None:
        """Close the connection of a batch that failed, and return this library's error for it, if any."""
        pool = request.pool
        pool.discard(request.connection)
        failure = errors.of_exchanging(error, self.where, request.units, closed=pool.closed)
        if isinstance(failure, ReplyLost):
            pool.retire()
        return failure

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

    def _send(self, request: Request, as_text: Sequence[int] = ()) -> None:
        """Send the commands of a batch, or, with their scripts as text, those at the indexes `as_text`."""
        connection, units = request.connection, request.units
        frames = (
            [self._wire.frame(units[i], as_text=True) for i in as_text]
            if as_text
            else [self._wire.frame(unit) for unit in units]
        )
        pieces = wire.packed(wire.asking(frames) if request.asking else frames)
        if len(pieces) == 1 and len(pieces[0]) <= wire.PORTION:
            request.cut_off = None
            connection.send_packed_command(pieces, check_health=False)
        else:
            request.cut_off = _send_in_portions(connection, pieces)

    def _read(self, request: Request, count: int) -> list[Any]:
        """Read the replies to so many commands: values, or the errors that the server replied with."""
        connection = request.connection
        read = connection.read_response
        if isinstance(connection, SentinelManagedConnection):
            # Its own method takes READONLY for a failed connection, and leaves the other replies unread.
            read = super(SentinelManagedConnection, connection).read_response
        count = 2 * count if request.asking else count
        replies: list[Any] = []
        try:
            for _ in range(count):
                replies.append(_reply(read))  # noqa: PERF401 - what came before a failure counts
        except (redis.RedisError, OSError):
            if not replies or not errors.is_last(replies[-1]):
                if request.cut_off is not None:
                    raise request.cut_off from None
                raise
            connection.disconnect()
            replies += replies[-1:] * (count - len(replies))  # nothing of the rest was carried out
        return after_asking(replies) if request.asking else replies

    def retire(self) -> None:
        """Close all idle connections now, and the lent ones when they come back."""
        self._pool.retire()

    @property
    def reply_s(self) -> float | None:
        """How long it waits for a reply in silence, in seconds. None: it has no bound."""
        found: float | None = self._pool.connection_kwargs.get("socket_timeout")
        return found

    def listen(self, channels: Sequence[str], pattern: str = "") -> RedisListener:
        """Subscribe to hints on channels; see `Listener`. The connection is not one of the pool's."""
        kind, options = self._pool.connection_class, self._pool.connection_kwargs
        return RedisListener(lambda: kind(**{**options, "retry": no_retry()}), channels, pattern)

    def close(self) -> None:
        """Close the connections if the driver opened them."""
        self._pool.close()
        sentinels = self._pool.connection_kwargs.get("sentinels")
        if sentinels is not None:
            sentinels.close()


def _hurry(connection: Any) -> bool:
    """Wait no longer in silence than the call may still wait. False: its own time-out is not longer."""
    bound, left_s, sock = connection.socket_timeout, LEFT_S.get(), getattr(connection, "_sock", None)
    if left_s >= (float("inf") if bound is None else bound) or not isinstance(sock, socket.socket):
        return False
    sock.settimeout(left_s)
    return True


def no_retry() -> Retry:
    """Return a policy that never sends anything a second time."""
    return Retry(NoBackoff(), 0)


def _send_in_portions(connection: Any, pieces: list[bytes]) -> errors.CutOff | None:
    """Send a request in portions. Returns the failure if the server hung up before the last one.

    The portions after the first are written to the socket itself: if another thread has closed it, redis-py
    would connect anew, and the server would take a part of a payload for commands.
    """
    portions = iter(wire.portions(pieces))
    connection.send_packed_command([next(portions)], check_health=False)
    sock = connection._sock  # noqa: SLF001 - there is no public way that does not connect
    for portion in portions:
        if sock is None:
            raise redis.ConnectionError("the connection was closed while a request was sent")
        try:
            sock.sendall(portion)
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


def answers(
    units: Sequence[Command[Any]], replies: Sequence[Any], where: str, failed: Refusing = errors.failed
) -> list[Any]:
    """Return the answer to each command, refusals included. The one reply to a bundle holds several.

    `failed` turns the error that a server replied with into the answer to a command.

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
            found.append(_answer(unit.wait, reply, where, failed))
            shared += ((place, found[-1]) for place in unit.places)
        elif type(unit) is not Bundle:
            found.append(_answer(unit, reply, where, failed))
        elif isinstance(reply, redis.RedisError):
            found += unit.refused(failed(reply, where, unit.commit))
        else:
            outcome = value(unit.commit, reply)
            if isinstance(reply, bytes):  # committed, and no key was taken
                found += (*[True] * len(unit.stages), outcome)
            else:
                placed = zip(unit.in_commit_order, reply[1:], strict=True)
                staged = {stage.key: _placed(stage, each, where, failed) for stage, each in placed}
                found += (*(staged[stage.key] for stage in unit.stages), outcome)
    for place, answer in sorted(shared, key=lambda each: each[0]):
        found.insert(place, answer)
    return found


def _answer(command: Command[Any], reply: Any, where: str, failed: Refusing) -> Any:
    if isinstance(reply, redis.RedisError):
        return failed(reply, where, command)
    return value(command, reply)


def _placed(stage: Stage, reply: Any, where: str, failed: Refusing) -> bool | Failed:
    """Return the answer to a `Stage` that the commit script carried out: whether its key was free."""
    if isinstance(reply, redis.RedisError):
        return failed(reply, where, stage)
    return bool(reply)


def after_asking(replies: Sequence[Any]) -> list[Any]:
    """Return the replies to commands that each followed an ASKING, or the refusal of that."""
    return [
        asked if isinstance(reply, redis.ResponseError) and isinstance(asked, redis.ResponseError) else reply
        for asked, reply in zip(replies[::2], replies[1::2], strict=True)
    ]


def is_for_others(commands: Sequence[Command[Any]]) -> bool:
    """Say whether a batch is not for the primary: then none of its commands is. See `elsewhere.py`."""
    first = commands[0] if commands else None
    return type(first) is Ask and (bool(first.node) or first.words == elsewhere.NAMES)


def misdirected(commands: Sequence[Command[Any]], found: Sequence[Any]) -> bool:
    """Say whether this server may not be the one to ask.

    It refused a command because of that (see `Failed.again`), or too few replicas had a commit in time: it
    may be an old primary that was cut off.
    """
    for answer in found:
        if type(answer) is Failed and answer.again:
            return True
    return too_few_replicas(commands, found)


def too_few_replicas(commands: Sequence[Command[Any]], found: Sequence[Any]) -> bool:
    """Say whether fewer replicas than asked for had a commit in time."""
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
