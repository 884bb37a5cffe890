"""Replicas: which ones there are, and connections that lead to one. Blocking and asyncio side by side.

Behind sentinels, a connection goes to one of the replicas that they know as up and connected, at random. On a
cluster, `topology.py` chooses among the replicas of a slot's primary.

Each connection asks the server for its role when it connects: a replica that has lost its primary is not
read. After some seconds it connects anew, so that it asks again, and a client reads from all replicas in
turn. Nothing here is waited for long, because the primary can answer instead.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import redis

from swapstore.drivers.redis import sentinel
from swapstore.drivers.redis.errors import passing
from swapstore.drivers.redis.pool import NoPrimary
from swapstore.drivers.redis.sentinel import Place
from swapstore.errors import SwapstoreError, Unavailable

if TYPE_CHECKING:
    from swapstore.drivers.redis.address import ClusterAddress

CONNECT_S = 1.0  # how long connecting to a replica may take, and the wait for a free connection
REPLY_S = 2.0  # how long a replica may be silent
CHECKED_S = 10.0  # how long a connection is used before it asks the server for its role again
DOUBT_S = 5.0  # how long a replica is not asked after it failed


def hasty(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of connections that do not wait for long."""
    return {
        **options,
        "socket_connect_timeout": min(options["socket_connect_timeout"], CONNECT_S),
        "socket_timeout": min(options["socket_timeout"], REPLY_S),
    }


class Doubts:
    """Which replicas failed a moment ago."""

    def __init__(self) -> None:
        self._until: dict[Place, float] = {}

    def add(self, place: Place) -> None:
        """Note that a replica failed."""
        self._until[place] = time.monotonic() + DOUBT_S

    def choose(self, places: Sequence[Place]) -> Place | None:
        """Return one of these replicas, at random, that has not failed of late. None: there is none."""
        now = time.monotonic()
        sound = [place for place in places if self._until.get(place, now) <= now]
        return random.choice(sound) if sound else None  # noqa: S311 - it only spreads the load


# --- behind sentinels ------------------------------------------------------------------------------


class _Replicas(sentinel._Sentinels):  # noqa: SLF001 - the sentinels are the same
    """Asks the sentinels for replicas, and chooses among them.

    `_places`: those that can be read, by the last answer; None: nobody has asked yet.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._places: Sequence[Place] | None = None
        self._doubts = Doubts()
        self._failure: SwapstoreError | None = None

    def _asking_for_replicas(self) -> Generator[Callable[[], Any], Any, Sequence[Place]]:
        """Yield questions, to be sent their answers, until one sentinel names replicas that can be read."""
        failures: list[tuple[Place, Exception]] = []
        for place, client in list(self._clients):
            try:
                known = yield partial(client.sentinel_slaves, self.name)
            except (redis.RedisError, OSError, ValueError) as error:
                failures.append((place, error))
                continue
            found = [(str(each["ip"]), int(each["port"])) for each in known if _can_be_read(each)]
            if found:  # else this sentinel may have just started
                self._prefer(client)
                return found
        if len(failures) == len(self._clients):
            raise NoPrimary(self._none_answers(failures))
        return ()

    def _learn(self, found: Sequence[Place]) -> None:
        self._places, self._failure = found, None
        self._due = time.monotonic() + sentinel.CHECK_S

    def _fail(self, error: NoPrimary) -> None:
        """Go on with what is known: the next question comes later."""
        self._places, self._failure = self._places or (), error.failure
        self._due = time.monotonic() + sentinel.LATER_S

    def is_due(self) -> bool:
        """Say whether to ask now: again after some time, or because nobody has an answer yet."""
        now = time.monotonic()
        if self._places is not None and now < self._due:
            return False
        self._due = now + sentinel.LATER_S
        return True

    def choose(self) -> Place:
        """Return the address of a replica. Raises `NoPrimary` if there is none to be had."""
        found = self._doubts.choose(self._places or ())
        if found is not None:
            return found
        if self._failure is not None:
            raise NoPrimary(copy.copy(self._failure))
        raise NoPrimary(
            passing(
                Unavailable(
                    f"the sentinels of {self.where} know no replica that is up, connected to the primary and "
                    "can be reached"
                )
            )
        )

    def suspect(self, place: Place) -> None:
        """Do not choose this replica for some seconds."""
        self._doubts.add(place)

    def knows(self, place: Place) -> bool:
        """Say whether the sentinels named this replica the last time."""
        return place in (self._places or ())


def _can_be_read(state: dict[str, Any]) -> bool:
    """Say whether a sentinel knows a replica as up, and connected to its primary."""
    flags = set(str(state["flags"]).split(","))
    return not flags & {"s_down", "o_down", "disconnected"} and state["master-link-status"] == "ok"


class Replicas(_Replicas, sentinel.Sentinels):
    """Asks sentinels for replicas, and blocks."""

    def refresh(self) -> None:
        """Ask again if it is time. Without an answer, what was known stays."""
        if self.is_due():
            try:
                self._learn(self._answer(self._asking_for_replicas()))
            except NoPrimary as error:
                self._fail(error)


class AsyncReplicas(_Replicas, sentinel.AsyncSentinels):
    """Asks sentinels for replicas, for asyncio."""

    async def refresh(self) -> None:
        """Ask again if it is time; see `Replicas.refresh`."""
        if self.is_due():
            try:
                self._learn(await self._answer(self._asking_for_replicas()))
            except NoPrimary as error:
                self._fail(error)


# --- connections -----------------------------------------------------------------------------------


class Checked:
    """A connection to a server that said, not long ago, that it is connected to its primary."""

    checked_at = float("-inf")

    def should_reconnect(self) -> bool:
        """Say whether to connect anew, and ask again."""
        is_old = time.monotonic() - self.checked_at >= CHECKED_S
        return is_old or bool(getattr(super(), "should_reconnect", bool)())


class _Leads(Checked):
    _sentinels: Any
    host: str
    port: int

    def should_reconnect(self) -> bool:
        """Say whether to connect anew, perhaps to another replica."""
        return not self._sentinels.knows((self.host, self.port)) or super().should_reconnect()


class _ToReplica(_Leads):
    def __init__(self, *, sentinels: Replicas, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options, redis_connect_func=_greet)  # type: ignore[call-arg]

    def _connect(self) -> Any:
        self.host, self.port = self._sentinels.choose()
        try:
            return super()._connect()  # type: ignore[misc]
        except BaseException:
            self._sentinels.suspect((self.host, self.port))
            raise


class _AsyncToReplica(_Leads):
    def __init__(self, *, sentinels: AsyncReplicas, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options, redis_connect_func=_agreet)  # type: ignore[call-arg]

    async def _connect(self) -> None:
        self.host, self.port = self._sentinels.choose()
        try:
            await super()._connect()  # type: ignore[misc]
        except BaseException:
            self._sentinels.suspect((self.host, self.port))
            raise


def connections(kind: type[Any], *, is_async: bool = False) -> type[Any]:
    """Return a class of connections like `kind`, which lead to a replica that their `sentinels` name."""
    return type(f"Replica{kind.__name__}", (_AsyncToReplica if is_async else _ToReplica, kind), {})


def of_cluster(place: ClusterAddress, *, is_async: bool = False) -> ClusterAddress:
    """Return the address of a cluster whose replicas are read."""
    kind = type(f"Checked{place.kind.__name__}", (Checked, place.kind), {})
    options = {**hasty(place.options), "redis_connect_func": _agreet_node if is_async else _greet_node}
    wait_s = min(place.wait_s, CONNECT_S)
    return attrs.evolve(place, kind=kind, options=options, wait_s=wait_s, to_replicas=True)


# They are functions and not methods, because a connection that refers to itself is not closed when dropped.


def _greet(connection: Any) -> None:
    """Authenticate and choose the database, then make sure that the server is a connected replica."""
    try:
        connection.on_connect()
        _require_connected(connection, _role(connection), is_replica=True)
    except BaseException:
        connection._sentinels.suspect((connection.host, connection.port))  # noqa: SLF001
        raise


async def _agreet(connection: Any) -> None:
    try:
        await connection.on_connect()
        _require_connected(connection, await _arole(connection), is_replica=True)
    except BaseException:
        connection._sentinels.suspect((connection.host, connection.port))  # noqa: SLF001
        raise


def _greet_node(connection: Any) -> None:
    """Authenticate, then ask a node of a cluster to answer as a replica, too, if it is one."""
    connection.on_connect()
    connection.send_command("READONLY", check_health=False)
    connection.read_response()
    _require_connected(connection, _role(connection), is_replica=False)


async def _agreet_node(connection: Any) -> None:
    await connection.on_connect()
    await connection.send_command("READONLY", check_health=False)
    await connection.read_response()
    _require_connected(connection, await _arole(connection), is_replica=False)


def _role(connection: Any) -> Any:
    """Ask for the role. None: this user may not ask, so nothing can be made sure of."""
    connection.send_command("ROLE", check_health=False)
    with suppress(redis.ResponseError):
        return connection.read_response()
    return None


async def _arole(connection: Any) -> Any:
    await connection.send_command("ROLE", check_health=False)
    with suppress(redis.ResponseError):
        return await connection.read_response()
    return None


def _require_connected(connection: Any, role: Any, *, is_replica: bool) -> None:
    """Raise `NoPrimary` if this is a replica that has lost its primary; or none, although it must be one."""
    words = [each.decode() if isinstance(each, bytes) else each for each in role or ()]
    problem = ""
    if words and words[0] == "slave":
        problem = "" if words[3] == "connected" else "is a replica that is not connected to its primary"
    elif words and is_replica:
        problem = f"is a {words[0]} and no replica"
    if problem:
        place = sentinel._shown((connection.host, connection.port))  # noqa: SLF001
        raise NoPrimary(passing(Unavailable(f"{place} {problem}")))
    connection.checked_at = time.monotonic()
