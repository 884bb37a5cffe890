"""Sentinels: who is the primary now, and connections that lead to it. Blocking and asyncio side by side.

A connection asks the sentinels each time it connects, and then asks the server for its role: right after a
failover some sentinels still name the old primary. One that answers nothing, or names a server that is no
primary, is asked last the next time.

Connections stay open to a server that was demoted, or that only the sentinels cannot reach any more. So the
driver asks again now and then before it lends a connection (`refresh`). A connection to any other server than
the one that was named last is not used again (`should_reconnect`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode

import attrs
import redis
from redis.asyncio.sentinel import SentinelManagedConnection as AsyncManaged
from redis.sentinel import SentinelManagedConnection as Managed

from swapstore.drivers import refusals
from swapstore.drivers.redis.errors import passing, without_tls
from swapstore.drivers.redis.pool import NoPrimary
from swapstore.errors import AccessDenied, InvalidInput, Misconfigured, SwapstoreError, Unavailable

SCHEMES = {f"{scheme}+sentinel" for scheme in ("redis", "rediss", "valkey", "valkeys")}
PORT = 26379
ANSWER_S = 1.0  # how long one sentinel may take to connect, and to answer
CHECK_S = 1.0  # how often to ask again while connections are open
LATER_S = 10.0  # the same, after no sentinel could be reached
HELLO_S = 2.0  # how often sentinels tell each other what they know

Place = tuple[str, int]
T = TypeVar("T")

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(?::([0-9]{1,5}))?")
_DENIED = re.compile(
    r"NOAUTH|WRONGPASS|NOPERM|no permission|Authentication required|invalid (username|password)|HELLO must",
    re.IGNORECASE,
)
_NO_PASSWORD_SET = re.compile(r"without any password configured|no password is set", re.IGNORECASE)
_NO_SENTINEL = re.compile(r"unknown command", re.IGNORECASE)


# --- addresses -------------------------------------------------------------------------------------


@attrs.frozen
class Address:
    """What a URL of sentinels says.

    `name` is what the sentinels call the primary, `url` the address of the primary but for its host, which is
    that of the first sentinel. `access` is the user and the password of the sentinels.
    """

    where: str
    name: str
    places: tuple[Place, ...]
    url: str = attrs.field(repr=False)
    access: dict[str, str] = attrs.field(repr=False)


def parse(url: str) -> Address | None:
    """Parse a URL of sentinels. None: it is another kind of URL. Raises `InvalidInput`."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        return None
    before, _, query = rest.partition("?")
    if "://" in before:
        raise InvalidInput(
            "the address mixes several schemes: write it once, and the sentinels behind it with commas: "
            f"{scheme}://host1:26379,host2:26379/mymaster/0"
        )
    authority, _, path = before.partition("/")
    access, _, hosts = authority.rpartition("@")
    options = dict(parse_qsl(query, keep_blank_values=True))
    name, _, database = path.strip("/").partition("/")
    if not name or (name.isdecimal() and not database):
        raise InvalidInput(
            "the address of sentinels does not say what they call the primary: write "
            f"{scheme}://host1:26379,host2:26379/mymaster/0, with the name from `sentinel monitor mymaster …`"
        )
    database = database or options.get("db") or "0"
    places = []
    for host in hosts.split(","):
        found = _HOST.fullmatch(host)
        port = int(found[2] or PORT) if found else 0
        if found is None or not 0 < port < 1 << 16 or not database.isdecimal() or "#" in url or "@" in query:
            raise _malformed(scheme)
        places.append((found[1].strip("[]"), port))
    own = {key.removeprefix("sentinel_"): options.pop(key) for key in _ACCESS & options.keys()}
    first = f"[{places[0][0]}]" if ":" in places[0][0] else places[0][0]
    start = "rediss" if scheme.startswith(("rediss", "valkeys")) else "redis"
    user = f"{access}@" if access else ""
    return Address(
        where=f"{scheme}://{','.join(map(_shown, places))}/{unquote(name)}/{database}",
        name=unquote(name),
        places=tuple(places),
        url=f"{start}://{user}{first}:{places[0][1]}/{database}?{urlencode(options)}",
        access=own,
    )


_ACCESS = {"sentinel_username", "sentinel_password"}


def _malformed(scheme: str) -> InvalidInput:
    """Build the error for a bad URL. It quotes no part of it that may be a password."""
    return InvalidInput(
        f"the address of sentinels is malformed: write {scheme}://user:password@host1:26379,host2:26379/"
        "mymaster/0?sentinel_password=…, with the passwords percent-encoded (urllib.parse.quote(password, "
        "safe=''))"
    )


def _shown(place: Place) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- asking ----------------------------------------------------------------------------------------


class _Sentinels:
    """Asks one sentinel after the other who the primary is. `named` is the last answer.

    Each failover gives the answer a higher epoch. A sentinel that was away during the last one still names
    the primary before it, which may be up and not know better either. What is written there will be lost, and
    what is read there goes back. So a lower epoch than that of the last answer counts only if no sentinel has
    a higher one.

    `client`: makes the client of one sentinel from its connection options. `options`: those, by its address.
    """

    def __init__(
        self, address: Address, client: Callable[[dict[str, Any]], Any], options: dict[str, Any]
    ) -> None:
        self.where = address.where
        self.name = address.name
        self.named: Place | None = None
        self._has_password = "password" in address.access
        plain = {key: each for key, each in options.items() if key not in _OF_THE_PRIMARY}
        answer_s = min(ANSWER_S, options["socket_connect_timeout"])
        plain |= {"socket_timeout": answer_s, "socket_connect_timeout": answer_s, "decode_responses": True}
        self.options = {
            _shown(place): {**plain, **address.access, "host": place[0], "port": place[1]}
            for place in address.places
        }
        self._clients = [(place, client(self.options[_shown(place)])) for place in address.places]
        self._epoch = 0
        self._ahead_since: float | None = None  # since when a sentinel names a server before the others do
        self._due = 0.0

    def _asking(self) -> Generator[Callable[[], Any], Any, Place]:
        """Yield questions, to be sent their answers, until one sentinel names the primary."""
        failures: list[tuple[Place, Exception]] = []
        strangers: list[tuple[Place, Any]] = []
        outdated: list[tuple[Any, Place, int, bool]] = []
        for place, client in list(self._clients):
            try:
                named, epoch, is_ahead = yield from self._named_by(client)
            except (redis.RedisError, OSError, ValueError) as error:
                failures.append((place, error))
                continue
            if named is None:
                strangers.append((place, client))
            elif epoch >= self._epoch:
                return self._believe(client, named, epoch, is_ahead)
            else:
                outdated.append((client, named, epoch, is_ahead))
        if outdated:
            return self._believe(*max(outdated, key=lambda each: each[2]))
        if not strangers:
            raise NoPrimary(self._none_answers(failures))
        known: list[str] = []
        with suppress(redis.RedisError, OSError, ValueError):
            known = sorted((yield strangers[0][1].sentinel_masters))
        raise NoPrimary(self._unknown_name([place for place, _ in strangers], known))

    def _named_by(self, client: Any) -> Generator[Callable[[], Any], Any, tuple[Place | None, int, bool]]:
        """Ask one sentinel. Returns whom it names, the epoch of that, and whether its failover is not over.

        It names the new primary before this has got its epoch. 0: it does not tell this user the epoch.
        """
        found = yield partial(client.sentinel_get_master_addr_by_name, self.name)
        if not found:
            return None, 0, False
        named = (str(found[0]), int(found[1]))
        try:
            state = yield partial(client.sentinel_master, self.name)
            epoch = int(state["config-epoch"])
        except (redis.ResponseError, KeyError, TypeError):
            return named, 0, False
        is_ahead = (str(state["ip"]), int(state["port"])) != named
        return named, epoch + is_ahead, is_ahead

    def _believe(self, client: Any, named: Place, epoch: int, is_ahead: bool) -> Place:  # noqa: FBT001
        self._prefer(client)
        now = time.monotonic()
        is_same = named == self.named and self._ahead_since is not None
        self._ahead_since = (self._ahead_since if is_same else now) if is_ahead else None
        self.named, self._epoch = named, epoch
        self._due = now + CHECK_S
        return named

    def _prefer(self, client: Any) -> None:
        # Not `list.sort`: to other threads, a list is empty while it is sorted. The others keep their order.
        self._clients = sorted(self._clients, key=lambda each: each[1] is not client)

    def doubt(self) -> None:
        """Ask another sentinel first the next time: the server that this one named is not to be had.

        A sentinel whose failover does not end, because the new primary died, names that one for as long as
        it is away, whatever the others have agreed on. They are believed again when they could know better.
        """
        self._clients = self._clients[1:] + self._clients[:1]
        since = self._ahead_since
        if since is not None and time.monotonic() - since >= HELLO_S:
            self._ahead_since, self._epoch = None, self._epoch - 1

    def is_due(self) -> bool:
        """Say whether to ask again now. The caller then does; others go on with what is known."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + LATER_S
        return self.named is not None

    # --- what is wrong -----------------------------------------------------------------------------

    def _none_answers(self, failures: Sequence[tuple[Place, Exception]]) -> SwapstoreError:
        for place, error in failures:
            text = refusals.shown(str(error))
            if _NO_SENTINEL.search(text):
                return Misconfigured(
                    f"{_shown(place)} is a server and no sentinel: write redis://{_shown(place)}/0, or the "
                    "port of a sentinel (usually 26379)"
                )
            if _NO_PASSWORD_SET.search(text):
                return AccessDenied(
                    f"the sentinel {_shown(place)} has no password, and the URL gives it one: leave out "
                    "sentinel_password. The password before the @ is that of the primary"
                )
            if _DENIED.search(text) or isinstance(error, redis.AuthenticationError):
                return AccessDenied(self._denied(place, text))
            if (refused := without_tls(error, f"the sentinel {_shown(place)}")) is not None:
                return refused
        texts = "; ".join(f"{_shown(place)}: {refusals.shown(str(error))}" for place, error in failures)
        silent = any(isinstance(error, redis.TimeoutError) for _, error in failures)
        is_tls = self.where.startswith(("rediss", "valkeys"))
        asked = "Do they speak TLS? If not, write redis+sentinel://" if silent and is_tls else ""
        return passing(
            Unavailable(
                f"no sentinel of {self.where} can be reached ({texts}). "
                f"{asked or 'Are they running, and the addresses right?'}"
            )
        )

    def _denied(self, place: Place, text: str) -> str:
        if "NOPERM" in text or "no permission" in text:
            return (
                f"the sentinel {_shown(place)} does not tell this user the primary ({text}): allow it "
                "SENTINEL GET-MASTER-ADDR-BY-NAME"
            )
        if self._has_password:
            return (
                f"the sentinel {_shown(place)} refused the credentials ({text}); check sentinel_username and "
                "sentinel_password in the URL"
            )
        return (
            f"the sentinel {_shown(place)} requires a password of its own: add ?sentinel_password=… to the "
            "URL. The password before the @ is that of the primary"
        )

    def _unknown_name(self, places: Sequence[Place], known: Sequence[str]) -> SwapstoreError:
        which = ", ".join(map(_shown, places))
        they = f"they know {', '.join(map(repr, known))}" if known else "they name no other either"
        return Misconfigured(
            f"the sentinels {which} know no primary by the name {self.name!r}; {they}. Write the name from "
            "`sentinel monitor NAME …` after the hosts"
        )

    def not_primary(self, place: Place, role: str) -> NoPrimary:
        """Build the error for a server that was named as the primary and is not, not yet or not any more."""
        self.doubt()
        return NoPrimary(
            passing(
                Unavailable(
                    f"the sentinels of {self.where} name {_shown(place)} as the primary, and that is a "
                    f"{role}; a failover may be under way"
                )
            )
        )


# Options of connections to the primary that are not those of connections to sentinels.
_OF_THE_PRIMARY = {"host", "port", "db", "username", "password", "client_name", "health_check_interval"}


class Sentinels(_Sentinels):
    """Asks sentinels, and blocks."""

    def primary(self) -> Place:
        """Return the address of the primary. Raises `NoPrimary`."""
        return self._answer(self._asking())

    def _answer(self, steps: Generator[Callable[[], Any], Any, T]) -> T:
        try:
            question = next(steps)
            while True:
                try:
                    answer = question()
                except Exception as error:  # noqa: BLE001 - the generator knows which it can handle
                    question = steps.throw(error)
                else:
                    question = steps.send(answer)
        except StopIteration as stop:
            found: T = stop.value
            return found

    def refresh(self) -> None:
        """Ask again if it is time. The answer is in `named`; without one, it stays as it was."""
        if self.is_due():
            with suppress(NoPrimary):
                self.primary()

    def close(self) -> None:
        """Close the connections to the sentinels."""
        for _, client in self._clients:
            with suppress(redis.RedisError, OSError):
                client.connection_pool.disconnect()  # `close` leaves a pool that it was given


class AsyncSentinels(_Sentinels):
    """Asks sentinels, for asyncio."""

    async def primary(self) -> Place:
        """Return the address of the primary. Raises `NoPrimary`."""
        return await self._answer(self._asking())

    async def _answer(self, steps: Generator[Callable[[], Any], Any, T]) -> T:
        try:
            question = next(steps)
            while True:
                try:
                    answer = await question()
                except Exception as error:  # noqa: BLE001 - the generator knows which it can handle
                    question = steps.throw(error)
                else:
                    question = steps.send(answer)
        except StopIteration as stop:
            found: T = stop.value
            return found

    async def refresh(self) -> None:
        """Ask again if it is time; see `Sentinels.refresh`."""
        if self.is_due():
            with suppress(NoPrimary):
                await self.primary()

    async def close(self) -> None:
        """Close the connections to the sentinels."""
        for _, client in self._clients:
            with suppress(redis.RedisError, OSError):
                await client.connection_pool.disconnect()


# --- connections -----------------------------------------------------------------------------------


def connections(kind: type[Any], *, is_async: bool = False) -> type[Any]:
    """Return a class of connections like `kind`, which lead to the primary that their `sentinels` name."""
    return type(f"Primary{kind.__name__}", (_AsyncToPrimary if is_async else _ToPrimary, kind), {})


def plain(kind: type[Any]) -> type[Any]:
    """Return the class of connections that `kind`, which lead to a primary, are made of."""
    leading = (_Leads, Managed, AsyncManaged)
    return next(each for each in kind.__mro__ if not issubclass(each, leading))


class _Leads:
    """What both kinds of connections have in common."""

    _sentinels: Any
    host: str
    port: int

    def should_reconnect(self) -> bool:
        """Say whether the primary is another server now."""
        return (self.host, self.port) != self._sentinels.named or bool(
            getattr(super(), "should_reconnect", bool)()
        )


class _ToPrimary(_Leads):
    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options, redis_connect_func=_greet)  # type: ignore[call-arg]

    def _connect(self) -> Any:
        self.host, self.port = self._sentinels.primary()
        try:
            return super()._connect()  # type: ignore[misc]
        except BaseException:
            self._sentinels.doubt()
            raise


class _AsyncToPrimary(_Leads):
    def __init__(self, *, sentinels: AsyncSentinels, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options, redis_connect_func=_agreet)  # type: ignore[call-arg]

    async def _connect(self) -> None:
        self.host, self.port = await self._sentinels.primary()
        try:
            await super()._connect()  # type: ignore[misc]
        except BaseException:
            self._sentinels.doubt()
            raise


def _greet(connection: Any) -> None:
    """Authenticate and choose the database, then make sure that the server is a primary.

    A function and not a method, because a connection that refers to itself is not closed when it is dropped.
    """
    connection.on_connect()
    connection.send_command("ROLE", check_health=False)
    with suppress(redis.ResponseError):  # this user may not ask, so nothing can be made sure of
        _require_primary(connection, connection.read_response())


async def _agreet(connection: Any) -> None:
    await connection.on_connect()
    await connection.send_command("ROLE", check_health=False)
    with suppress(redis.ResponseError):
        _require_primary(connection, await connection.read_response())


def _require_primary(connection: Any, reply: Any) -> None:
    role = reply[0].decode() if isinstance(reply[0], bytes) else str(reply[0])
    if role != "master":
        role = "replica" if role == "slave" else role
        raise connection._sentinels.not_primary((connection.host, connection.port), role)  # noqa: SLF001
