"""From an address to a `Store`: which driver serves it, and which store is the default."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import unquote

import attrs

from swapstore import arguments, engine, events
from swapstore.cache import Cache
from swapstore.drivers.base import Endpoint
from swapstore.drivers.rest import address as rest_address
from swapstore.errors import InvalidInput, SwapstoreError, Unavailable
from swapstore.forks import survive_forks
from swapstore.format.keys import Keys
from swapstore.migration.layout import Mirror
from swapstore.models import Retention
from swapstore.protocol.context import Capabilities, Context, Policy
from swapstore.protocol.scriptless.probe import Undecided
from swapstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swapstore.doctor.check import Check
    from swapstore.drivers.base import AsyncDriver, Driver
    from swapstore.drivers.rest.address import Address
    from swapstore.events import Event
    from swapstore.migration.layout import Layout
    from swapstore.migration.source import Source
    from swapstore.models import Validator
    from swapstore.protocol.operation import Operation

URL_VARIABLE = "SWAPSTORE_URL"
DEFAULT_NAMESPACE = "swapstore"
DEFAULT_MAX_PAYLOAD = 64 * 1024 * 1024
DEFAULT_MAX_BATCH = 8 * 1024 * 1024
DEFAULT_MAX_REQUEST = 10 * 1024 * 1024
DEFAULT_CACHE_BYTES = 64 * 1024 * 1024

D = TypeVar("D", bound=Endpoint)


def connect(
    target: Any = None,
    *,
    token: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    max_payload: int = DEFAULT_MAX_PAYLOAD,
    max_batch: int = DEFAULT_MAX_BATCH,
    max_request: int = DEFAULT_MAX_REQUEST,
    allow_http: bool = False,
    single_writer: bool = False,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    retention: Retention | None = None,
    mirror: Mirror | None = None,
    validators: Sequence[Validator] = (),
    on_event: Callable[[Event], object] | None = None,
) -> Store:
    """Return a `Store`. It connects when it is first used; a REST endpoint is asked at once what it can do.

    - `target`: `redis://`, `rediss://`, `unix://` or `sqlite:///path.db` (three slashes: relative to the
      working directory, four: absolute), `https://` for a REST endpoint (Upstash's, or one like it), or a
      `redis.Redis` client, which is borrowed and never closed. Unless given: `$SWAPSTORE_URL`, or else
      `$UPSTASH_REDIS_REST_URL`, or else an embedded SQLite file in the user's data directory.
    - `token`: that of a REST endpoint; `$UPSTASH_REDIS_REST_TOKEN` unless given.
    - `namespace`: the first part of every key; stores of different namespaces do not see each other.
    - `max_payload`: the largest encoded payload in bytes that `publish` takes.
    - `max_batch`: how many bytes of several datasets `publish_many` sends at once, at most.
    - `max_request`: how many bytes a REST endpoint takes in one request, body and all.
    - `allow_http`: whether to send the token of a REST endpoint unencrypted to another machine.
    - `single_writer`: for an endpoint that runs no scripts and cannot compare and set: a promise that one
      process at a time publishes here. Without effect where it is not needed.
    - `cache_bytes`: how many bytes of immutable records a reader remembers; 0 remembers none.
    - `retention`: how much history this store's publishes keep; all of it unless given.
    - `mirror`: old keys to write after each swap, for readers that have not moved yet; Redis and Valkey only.
    - `validators`: functions like `validate` of `publish`. Every publish of this store, to whatever dataset,
      asks them in their order, before its own. See `swapstore.validators` for some.
    - `on_event`: called with an event (see `swapstore.events`) for each publish, rejection, lost race, read
      and repair. Keep it quick, and do not call the store from it. What it raises is logged, once.

    Raises `InvalidInput` for an address or option that cannot be used, `Unavailable` when there is no place
    for the default file, `AccessDenied` when a REST endpoint refuses the token, and `Unsupported` when it has
    no safe way to commit.
    """
    driver, context = prepared(
        _BLOCKING,
        target,
        token=token,
        max_request=max_request,
        allow_http=allow_http,
        single_writer=single_writer,
        namespace=namespace,
        max_payload=max_payload,
        max_batch=max_batch,
        cache_bytes=cache_bytes,
        retention=retention,
        mirror=mirror,
        validators=validators,
        on_event=on_event,
    )
    if context.on_connect is not None:
        try:
            engine.run(context.on_connect(context), driver, context.clock.sleep)
        except SwapstoreError:
            driver.close()
            raise
    return Store(driver, context)


@attrs.frozen
class Makers(Generic[D]):
    """How the drivers of one face are made, for each kind of store."""

    redis_url: Callable[[str], D]
    redis_client: Callable[[Any], D]
    sqlite: Callable[[Path], D]
    rest: Callable[[Address, int], D]


def prepared(
    makers: Makers[D],
    target: Any,
    *,
    token: str | None,
    max_request: int,
    allow_http: bool,
    single_writer: bool,
    namespace: str,
    max_payload: int,
    max_batch: int,
    cache_bytes: int,
    retention: Retention | None,
    mirror: Mirror | None,
    validators: Sequence[Validator],
    on_event: Callable[[Event], object] | None,
) -> tuple[D, Context]:
    """Check what `connect` was given; return the driver and the context that a face is made of."""
    policy = Policy(
        max_payload_bytes=arguments.whole(max_payload, "max_payload", least=1),
        max_batch_bytes=arguments.whole(max_batch, "max_batch", least=1),
    )
    context = Context(
        keys=Keys(arguments.namespace(namespace)),
        cache=Cache(arguments.whole(cache_bytes, "cache_bytes", least=0)),
        policy=policy,
        retention=_retention(retention),
        mirror=_mirror(mirror),
        validators=_validators(validators),
        hook=events.hook(on_event),
    )
    arguments.whole(max_request, "max_request", least=1)
    driver = _driver_for(makers, target, token, max_request, allow_http=allow_http)
    if mirror is not None and driver.kind == "sqlite":
        raise InvalidInput("a mirror is for readers of Redis or Valkey keys; a SQLite store has none")
    policy = attrs.evolve(policy, text_only=not driver.binary_safe)
    undecided = Undecided(single_writer=single_writer)
    context = attrs.evolve(
        context, capabilities=Capabilities(committer=undecided), doctor=_DOCTORS.get(driver.kind)
    )
    if driver.kind == "upstash":
        policy = _over_rest(policy, max_request)
        context = attrs.evolve(context, on_connect=undecided.ask_at_connect)
    return driver, attrs.evolve(context, policy=policy)


def _over_rest(policy: Policy, max_request: int) -> Policy:
    """Bounds for an endpoint: its replicas may be a second behind, and its requests have a limit."""
    return attrs.evolve(
        policy,
        max_batch_bytes=min(policy.max_batch_bytes, max(max_request // 2, 1)),  # JSON makes them longer
        read_attempts=8,
        first_wait_s=0.02,
        longest_wait_s=0.5,
    )


def _retention(value: Any) -> Retention:
    if value is None or isinstance(value, Retention):
        return value or Retention()
    raise InvalidInput(f"retention must be a Retention (max_age=, max_count=), not {type(value).__name__}")


def _mirror(value: Any) -> Mirror | None:
    if value is None or isinstance(value, Mirror):
        return value
    raise InvalidInput(f"mirror must be a Mirror (prefix=…), not {type(value).__name__}")


def _validators(value: Any) -> tuple[Validator, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidInput(f"validators must be a list of functions, not {arguments.shown(value)}")
    for each in value:
        if not callable(each):
            raise InvalidInput(f"each of validators must be a function, not {arguments.shown(each)}")
    return tuple(value)


def _doctor_of_redis(ctx: Context) -> Operation[list[Check]]:
    from swapstore.doctor import redis  # noqa: PLC0415 - for who looks after a store

    return redis.diagnose(ctx)


def _doctor_of_sqlite(ctx: Context) -> Operation[list[Check]]:
    from swapstore.doctor import sqlite  # noqa: PLC0415

    return sqlite.diagnose(ctx)


def _doctor_of_rest(ctx: Context) -> Operation[list[Check]]:
    from swapstore.doctor import rest  # noqa: PLC0415

    return rest.diagnose(ctx)


_DOCTORS = {"redis": _doctor_of_redis, "sqlite": _doctor_of_sqlite, "upstash": _doctor_of_rest}


def default_path() -> Path:
    """Return where the embedded store lives unless a URL says otherwise."""
    import platformdirs  # noqa: PLC0415 - only the default needs it

    return Path(platformdirs.user_data_dir("swapstore", appauthor=False)) / "swapstore.db"


def _driver_for(makers: Makers[D], target: Any, token: Any, max_request: int, *, allow_http: bool) -> D:
    if target is None:
        target = os.environ.get(URL_VARIABLE) or os.environ.get(rest_address.URL_VARIABLE) or None
    if isinstance(target, str) and target.partition("://")[0].lower() in rest_address.SCHEMES:
        return makers.rest(rest_address.parse(target, token, allow_http=allow_http), max_request)
    rest_address.refuse_token(token)
    if target is None:
        return makers.sqlite(_default_file().absolute())
    if not isinstance(target, str):
        return makers.redis_client(target)
    scheme, separator, rest = target.partition("://")
    if separator and scheme in {"redis", "rediss", "unix"}:
        return makers.redis_url(target)
    if separator and scheme == "sqlite":
        return makers.sqlite(_path(rest).absolute())
    # An address is not shown unless it is plain: what cannot be read may hold a password anywhere.
    if not set(target) & set(":@?#") and target.endswith((".db", ".sqlite", ".sqlite3")):
        raise InvalidInput(f"a store is named by a URL: sqlite:///{target}")
    raise InvalidInput(
        f"unknown kind of store{f' {scheme!r}' if separator and scheme.isalnum() else ''}; "
        "use redis://, rediss://, unix://, https:// or sqlite:///path.db"
    )


def _default_file() -> Path:
    path = default_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"the default store has no place, its directory cannot be made ({error}); set ${URL_VARIABLE}"
        ) from error
    return path


def _path(rest: str) -> Path:
    """Return the path of `sqlite:///<path>`, a URL without host, options or fragment."""
    path = unquote(rest[1:]) if rest.startswith("/") else ""
    if not path or path == ":memory:" or "?" in rest or "#" in rest or "\0" in path:
        raise InvalidInput(
            "a SQLite store needs a path and nothing else: sqlite:///relative.db or "
            "sqlite:////absolute/path.db (for a store in memory see swapstore.testing)"
        )
    return Path(path)


def sqlite(path: Path) -> Driver:
    """Make the driver of a SQLite file."""
    from swapstore.drivers.sqlite.driver import SqliteDriver  # noqa: PLC0415 - import what is used

    return SqliteDriver(path)


def _redis_url(url: str) -> Driver:
    from swapstore.drivers.redis.driver import RedisDriver  # noqa: PLC0415 - redis-py takes 0.1 s to import

    return RedisDriver.from_url(url)


def _redis_client(client: Any) -> Driver:
    from swapstore.drivers.redis.driver import RedisDriver  # noqa: PLC0415

    return RedisDriver.from_client(client)


def _rest(address: Address, max_request: int) -> Driver:
    with rest_address.installed():
        from swapstore.drivers.rest.driver import UpstashDriver  # noqa: PLC0415 - an extra
    return UpstashDriver(address, max_request=max_request)


_BLOCKING: Makers[Driver] = Makers(_redis_url, _redis_client, sqlite, _rest)


def _async_redis_url(url: str) -> AsyncDriver:
    from swapstore.drivers.redis.aio import AsyncRedisDriver  # noqa: PLC0415 - redis-py takes 0.1 s to import

    return AsyncRedisDriver.from_url(url)


def _async_redis_client(client: Any) -> AsyncDriver:
    from swapstore.drivers.redis.aio import AsyncRedisDriver  # noqa: PLC0415

    return AsyncRedisDriver.from_client(client)


def _async_sqlite(path: Path) -> AsyncDriver:
    from swapstore.drivers.threaded import ThreadedDriver  # noqa: PLC0415

    return ThreadedDriver(sqlite(path))


def _async_rest(address: Address, max_request: int) -> AsyncDriver:
    with rest_address.installed():
        from swapstore.drivers.rest.aio import AsyncUpstashDriver  # noqa: PLC0415 - an extra
    return AsyncUpstashDriver(address, max_request=max_request)


ASYNC: Makers[AsyncDriver] = Makers(_async_redis_url, _async_redis_client, _async_sqlite, _async_rest)


def source_of(url: str, layout: Layout) -> Source:
    """Return what reads the six-command layout from a Redis or Valkey URL. It connects when first used."""
    from swapstore.migration.source import Source  # noqa: PLC0415 - for an import alone

    try:
        return Source(_redis_url(url), layout)
    except InvalidInput as error:
        raise InvalidInput(f"the source cannot be used: {error}") from None


class _Default:
    """The one store that the module-level functions share, made when it is first used."""

    def __init__(self) -> None:
        self.store: Store | None = None
        self._lock = threading.Lock()
        survive_forks(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def get(self) -> Store:
        with self._lock:
            if self.store is None:
                self.store = connect()
            return self.store


_default = _Default()


def default_store() -> Store:
    """Return the default store, the same one for the whole process: `connect()` without arguments."""
    return _default.get()
