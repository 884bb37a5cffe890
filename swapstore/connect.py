"""Connect: make a `Store` from an address and options. Only this module names drivers."""

from __future__ import annotations

import logging
import os
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import quote, unquote

import msgspec

from swapstore import arguments, engine
from swapstore.cache import Cache
from swapstore.drivers.base import Endpoint
from swapstore.drivers.rest import address as rest_address
from swapstore.errors import InvalidInput, Misconfigured, SwapstoreError, Unavailable, Unsupported
from swapstore.forks import survive_forks
from swapstore.format.keys import Keys
from swapstore.models import Compression, Durability, Retention, Timeout
from swapstore.protocol.context import Capabilities, Context, Policy
from swapstore.protocol.durability import ask_at_connect
from swapstore.protocol.scriptless.probe import Undecided
from swapstore.store import Store
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swapstore.doctor.check import Check
    from swapstore.drivers.base import AsyncDriver, Driver
    from swapstore.drivers.rest.address import Address
    from swapstore.events import Event, Hook
    from swapstore.migration.layout import Layout, Mirror
    from swapstore.migration.source import Source
    from swapstore.models import Validator
    from swapstore.protocol.operation import Operation

URL_VARIABLE = "SWAPSTORE_URL"
DEFAULT_NAMESPACE = "swapstore"
DEFAULT_MAX_PAYLOAD = 64 * 1024 * 1024
DEFAULT_MAX_BATCH = 8 * 1024 * 1024
DEFAULT_MAX_REQUEST = 10 * 1024 * 1024
DEFAULT_REST_TOTAL_S = 10.0
DEFAULT_PATIENCE_S = 10.0
DEFAULT_CACHE_BYTES = 64 * 1024 * 1024
DEFAULT_MAX_AHEAD = timedelta(days=1)

LOG = logging.getLogger("swapstore")

_SERVERS = ("redis", "rediss", "valkey", "valkeys")
_REDIS_SCHEMES = {*_SERVERS, *(f"{scheme}+sentinel" for scheme in _SERVERS), "unix"}
_CLUSTER_SCHEMES = {f"{scheme}+cluster" for scheme in _SERVERS}
_HOST = re.compile(r"[A-Za-z0-9._-]+:[0-9]{1,5}(/[0-9]{1,4})?|localhost|[0-9]+(\.[0-9]+){3}")
_NOT_IN_MEMORY = (
    "there is no store in memory but for tests: swapstore.testing.SimulatedStore().connect(); "
    "otherwise name a file: sqlite:///path.db"
)

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
    timeout: float | Timeout | None = None,
    patience: float = DEFAULT_PATIENCE_S,
    read_from: Literal["primary", "replica"] = "primary",
    compression: Compression | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    stale_if_error: float | timedelta = 0.0,
    max_ahead: timedelta | None = DEFAULT_MAX_AHEAD,
    retention: Retention | None = None,
    durability: Durability | None = None,
    mirror: Mirror | None = None,
    validators: Sequence[Validator] = (),
    on_event: Callable[[Event], object] | None = None,
) -> Store:
    """Return a `Store`. It connects when it is first used.

    A REST endpoint is asked at once what it supports, and a server whether it can give a `durability`.

    - `target`: `redis://`, `rediss://` or `unix://`; `redis+sentinel://host1:26379,host2:26379/mymaster/0`
      for a primary that sentinels name; `redis+cluster://host1:7000,host2:7000` for a cluster; `rediss` for
      TLS, and `valkey` may stand for `redis` in all of these; `sqlite:///path.db` (three slashes: relative to
      the working directory, four: absolute); `https://` for a REST endpoint (Upstash, or a compatible one);
      or a client: a `redis.Redis`, also one from `redis.sentinel.Sentinel(…).master_for(…)`, is borrowed and
      never closed; a `redis.cluster.RedisCluster` lends its nodes, credentials and settings, and the store
      connects by itself. Default: `$SWAPSTORE_URL`, or else `$UPSTASH_REDIS_REST_URL`, or else an embedded
      SQLite file in the user's data directory.
    - `token`: the token of a REST endpoint. Default: `$UPSTASH_REDIS_REST_TOKEN`.
    - `namespace`: the first part of every key. Stores of different namespaces do not see each other.
    - `max_payload`: the size in bytes of the largest encoded payload that a publish accepts.
    - `max_batch`: the most bytes of several datasets that `publish_many` sends at once.
    - `max_request`: the most bytes that a REST endpoint accepts in one request, including the body.
    - `allow_http`: allow sending the token of a REST endpoint unencrypted to another machine.
    - `single_writer`: for an endpoint that runs no scripts and has no compare-and-set: a promise that only
      one process at a time publishes there. No effect on other stores.
    - `timeout`: how long a call waits for the store: a `Timeout`, or a number of seconds that bounds
      everything. Default: 10 seconds in all over REST, 10 seconds of silence on other stores.
    - `patience`: how many seconds a call on Redis or Valkey goes on trying when the server cannot be reached,
      is loading, or is not the primary any more; 0: it raises at once. Nothing is sent twice that may have
      been carried out. Each outage has all of it, and an attempt that has begun is finished. `timeout` bounds
      it too. A wrong address or password is not waited for, except for a host that does not answer. SQLite
      and REST have waits of their own.
    - `read_from`: `"replica"`: on sentinels and clusters, reads ask a replica first, which may be behind.
      What it lacks, or shows older than this client has seen, is read from the primary.
    - `compression`: how publishes of this store are stored: `"none"`; `"zstd"`; or `"delta"`: as differences
      from a base, which makes history small. Readers need no option. Default: `$SWAPSTORE_COMPRESSION`, or
      else `"none"`.
    - `cache_bytes`: how many bytes of immutable records the store caches; 0 turns the cache off.
    - `stale_if_error`: for how many seconds (or a timedelta) reads serve in an outage what they returned
      last: see `read_latest`. For that long the store keeps the last snapshot of each dataset that is read,
      beside the cache, whatever `cache_bytes` is. Default: 0, reads raise.
    - `max_ahead`: how far a `ts` may be ahead of this machine's clock (a timedelta; None: no bound). A later
      one is refused: until that moment, no other publish would become the latest. The same bound holds for
      this machine's clock itself, compared with that of the store: see `Retention`.
    - `retention`: how much history the publishes of this store keep. Default: all of it.
    - `durability`: a `Durability`: each publish waits until replicas, or disks, have its commit. On Redis and
      Valkey; the server is asked at once whether it can. Default: the primary alone acknowledges.
    - `mirror`: old keys to write after each swap, for readers that have not moved yet. On Redis and Valkey,
      also over REST; a SQLite store refuses it.
    - `validators`: functions like `validate` of `publish`. Every publish of this store calls them in order,
      before its own `validate`. `swapstore.validators` has some.
    - `on_event`: called with an event (see `swapstore.events`) for each publish, rejection, retry, read and
      repair. Keep it fast, and do not call the store from it. Its first exception is logged, none is raised.

    Raises `InvalidInput` for an address or option that cannot be used, and `Misconfigured` if the directory
    of the default file cannot be created or a REST endpoint is not usable: `AccessDenied` if it refuses the
    token, `Unsupported` if it has no safe way to commit, or the store cannot give the durability.
    """
    driver, replicas, context = prepare(
        BLOCKING,
        target,
        token=token,
        max_request=max_request,
        allow_http=allow_http,
        single_writer=single_writer,
        timeout=timeout,
        patience=patience,
        read_from=read_from,
        compression=compression,
        namespace=namespace,
        max_payload=max_payload,
        max_batch=max_batch,
        cache_bytes=cache_bytes,
        stale_if_error=stale_if_error,
        max_ahead=max_ahead,
        retention=retention,
        durability=durability,
        mirror=mirror,
        validators=validators,
        on_event=on_event,
    )
    if context.on_connect is not None:
        try:
            total_s = context.policy.total_s
            engine.run(context.on_connect(context), driver, context.clock.sleep, total_s=total_s)
        except SwapstoreError:
            driver.close()
            raise
    return Store(driver, context, replicas)


def default_store() -> Store:
    """Return the default store: that of `connect()` without arguments, the same one for the whole process."""
    return _default.get()


class _Default:
    """The store that the module-level functions share. It is made at first use."""

    def __init__(self) -> None:
        self.store: Store | None = None
        self.logged = False  # where the default file is
        self._lock = threading.RLock()
        survive_forks(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def get(self) -> Store:
        with self._lock:
            if self.store is None:
                self.store = connect()
            return self.store


_default = _Default()


# --- options ---------------------------------------------------------------------------------------


def prepare(
    makers: Makers[D],
    target: Any,
    *,
    token: str | None,
    max_request: int,
    allow_http: bool,
    single_writer: bool,
    timeout: float | Timeout | None,
    patience: float,
    read_from: Literal["primary", "replica"],
    compression: Compression | None,
    namespace: str,
    max_payload: int,
    max_batch: int,
    cache_bytes: int,
    stale_if_error: float | timedelta,
    max_ahead: timedelta | None,
    retention: Retention | None,
    durability: Durability | None,
    mirror: Mirror | None,
    validators: Sequence[Validator],
    on_event: Callable[[Event], object] | None,
) -> tuple[D, D | None, Context]:
    """Check the arguments of `connect`, and return what the store is made of: its drivers and its context."""
    policy = Policy(
        max_payload_bytes=arguments.whole(max_payload, "max_payload", least=1),
        max_batch_bytes=arguments.whole(max_batch, "max_batch", least=1),
        max_ahead_ms=arguments.max_ahead_ms(max_ahead),
        compression=arguments.compression(compression),
        stale_if_error_s=arguments.staleness_s(stale_if_error, "stale_if_error"),
    )
    context = Context(
        keys=Keys(arguments.namespace(namespace)),
        cache=Cache(arguments.whole(cache_bytes, "cache_bytes", least=0)),
        policy=policy,
        retention=arguments.one_of(retention, Retention, "a Retention (max_age=, max_count=)") or Retention(),
        durability=None if durability is None else Durability.of(durability),
        mirror=None if mirror is None else _mirror(mirror),
        validators=arguments.functions(validators, "validators"),
        hook=None if on_event is None else _hook(on_event),
    )
    arguments.whole(max_request, "max_request", least=1)
    patience = arguments.patience_s(patience)
    waits = Timeout.of(timeout)
    try:
        driver = _named_driver(makers, target, token, max_request, waits, allow_http=allow_http)
    except OSError as error:  # without a file descriptor, not even the driver's own files can be read
        raise Unavailable(f"cannot connect: {error}. Nothing was sent") from error
    if mirror is not None and driver.kind == "sqlite":
        raise InvalidInput("a mirror is for readers of Redis or Valkey keys; a SQLite store has none")
    policy = msgspec.structs.replace(
        policy,
        text_only=not driver.binary_safe,
        total_s=waits.total,
        reply_s=getattr(driver, "reply_s", None),
        patience_s=patience if driver.kind in {"redis", "cluster"} else policy.patience_s,
    )
    undecided = Undecided(single_writer=single_writer)
    found = Capabilities(
        committer=undecided,
        tells_role=driver.kind == "redis",
        may_be_node=driver.kind == "redis",
        never_awaits=_NOT_DURABLE.get(driver.kind, ""),
        keeps_order=driver.kind != "cluster",
    )
    context = msgspec.structs.replace(context, capabilities=found, doctor=_doctor_of(driver.kind))
    if context.durability is not None:
        if found.never_awaits:
            raise Unsupported(found.never_awaits)
        arguments.shorter_than_a_reply(context.durability.timeout, policy.reply_s)
        context = msgspec.structs.replace(context, on_connect=ask_at_connect)
    if driver.kind == "upstash":
        policy = _over_rest(policy, max_request)
        context = msgspec.structs.replace(context, on_connect=undecided.ask_at_connect)
    replicas = _replicas_for(makers, target, driver, waits) if arguments.reads_replicas(read_from) else None
    policy = msgspec.structs.replace(policy, reads_replicas=replicas is not None)
    return driver, replicas, msgspec.structs.replace(context, policy=policy)


def _mirror(mirror: Any) -> Mirror | None:
    from swapstore.migration.layout import Mirror  # noqa: PLC0415 - few programs have one

    return arguments.one_of(mirror, Mirror, "a Mirror (prefix=…)")


def _hook(on_event: Any) -> Hook:
    from swapstore.events import hook  # noqa: PLC0415 - only listeners need it

    return hook(on_event)


def _replicas_for(makers: Makers[D], target: Any, driver: D, timeout: Timeout) -> D:
    """Return the driver for the replicas of a store. Raises `InvalidInput` if nobody says which it has."""
    target = os.environ[_naming_variable()] if target is None and is_store_named() else target
    scheme = target.partition("://")[0] if isinstance(target, str) else ""
    if driver.kind == "cluster" or scheme.endswith("+sentinel"):
        return makers.replicas(target, timeout)
    raise InvalidInput(
        f"read_from='replica' is for redis+sentinel:// and redis+cluster://: nobody tells the replicas of "
        f"{driver.where}. If it has one, open a second store on its address, and read from that"
    )


_NOT_DURABLE = {
    "sqlite": "a SQLite store has no replicas, so no durability can be asked for. Each of its commits is on "
    "the disk of this machine (synchronous=FULL) before it is acknowledged. Leave durability= out",
    "upstash": "a REST endpoint waits for no replicas, so no durability can be asked for. Leave durability= "
    "out, or connect through the Redis protocol (rediss://) if the provider allows WAIT there",
}


def _over_rest(policy: Policy, max_request: int) -> Policy:
    """Adapt the bounds to a REST endpoint: replicas may be a second behind, and requests have a limit."""
    return msgspec.structs.replace(
        policy,
        total_s=policy.total_s or DEFAULT_REST_TOTAL_S,
        max_batch_bytes=min(policy.max_batch_bytes, max(max_request // 2, 1)),  # JSON and base64 add to it
        max_request_bytes=max_request,
        read_attempts=8,
        first_wait_s=0.02,
        longest_wait_s=0.5,
    )


# --- addresses -------------------------------------------------------------------------------------


def _named_driver(
    makers: Makers[D], target: Any, token: Any, max_request: int, timeout: Timeout, *, allow_http: bool
) -> D:
    """Return the driver for an address, or for that in the environment. An error names the variable."""
    variable = _naming_variable() if target is None else ""
    target = os.environ[variable] if variable else target
    try:
        return _driver_for(makers, target, token, max_request, timeout, allow_http=allow_http)
    except InvalidInput as error:
        if not variable:
            raise
        raise InvalidInput(f"${variable} cannot be used: {error}") from None


def _driver_for(
    makers: Makers[D], target: Any, token: Any, max_request: int, timeout: Timeout, *, allow_http: bool
) -> D:
    if isinstance(target, str) and (target != target.strip() or not target.isprintable()):
        raise InvalidInput("the address has a space around it, or a line break in it; remove that")
    if isinstance(target, str) and target.partition("://")[0].lower() in rest_address.SCHEMES:
        return makers.rest(rest_address.parse(target, token, allow_http=allow_http), max_request, timeout)
    rest_address.refuse_token(token)
    if target is None:
        path = _default_file().absolute()
        _log_default(path)
        return makers.sqlite(path, timeout, True)  # noqa: FBT003 - private
    if isinstance(target, os.PathLike):
        raise InvalidInput(f"a path is no address of a store: it is a URL, sqlite:///{os.fspath(target)}")
    if not isinstance(target, str):
        return makers.redis_client(target, timeout)
    scheme, separator, rest = target.partition("://")
    if separator and scheme in _REDIS_SCHEMES:
        return makers.redis_url(target, timeout)
    if separator and scheme in _CLUSTER_SCHEMES:
        return makers.cluster_url(target, timeout)
    if separator and scheme == "sqlite":
        return makers.sqlite(_path(rest).absolute(), timeout, False)  # noqa: FBT003
    raise InvalidInput(_advice(target))


def _advice(target: str) -> str:
    """Say what to write in place of an address that is none."""
    if target == ":memory:":
        return _NOT_IN_MEMORY
    # Show an address only if it is plain: one that cannot be parsed may contain a password anywhere.
    if not set(target) & set(":@?#") and target.endswith((".db", ".sqlite", ".sqlite3")):
        return f"{target} is no address of a store: it is a URL, sqlite:///{target}"
    if _HOST.fullmatch(target):
        return f"{target} is no address of a store: it is a URL, redis://{target}"
    scheme, separator, _ = target.partition("://")
    return (
        f"unknown kind of store{f' {scheme!r}' if separator and scheme.isalnum() else ''}; "
        "use redis://, rediss://, unix://, redis+sentinel://, redis+cluster://, https:// or sqlite:///path.db"
    )


def _naming_variable() -> str:
    """Return the environment variable with the address of the store, or nothing."""
    return next((name for name in (URL_VARIABLE, rest_address.URL_VARIABLE) if os.environ.get(name)), "")


def is_store_named() -> bool:
    """Say whether the environment names a store. If not, the default file is used."""
    return bool(_naming_variable())


def misspelt() -> str:
    """Return a hint at an environment variable that may be meant to be `$SWAPSTORE_URL`, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where no store is named

    names = {name.upper(): name for name in os.environ if name != URL_VARIABLE}
    close = get_close_matches(URL_VARIABLE, names, n=1, cutoff=0.85)
    return f" (${names[close[0]]} is set: is it misspelt?)" if close else ""


def _log_default(path: Path) -> None:
    """Log once where the default store is: a job that lacks its environment would publish there unnoticed."""
    if not _default.logged:
        _default.logged = True
        LOG.warning(
            "no store is named, so this process uses the default one, %s. Set $%s, or pass an address to "
            "connect()%s",
            path,
            URL_VARIABLE,
            misspelt(),
        )


def default_path() -> Path:
    """Return the path of the embedded store, which is used without an address."""
    import platformdirs  # noqa: PLC0415 - only the default needs it

    return Path(platformdirs.user_data_dir("swapstore", appauthor=False)) / "swapstore.db"


def default_url() -> str:
    """Return the URL of the embedded store, and create its directory."""
    return f"sqlite:///{quote(str(_default_file().absolute()))}"


def _default_file() -> Path:
    path = default_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # data of one user, for nobody else
    except OSError as error:
        raise Misconfigured(
            f"the directory of the default store cannot be created ({error}); set ${URL_VARIABLE}"
        ) from error
    return path


def _path(rest: str) -> Path:
    """Return the path of a URL `sqlite:///<path>`, without host, options or fragment."""
    path = unquote(rest[1:]) if rest.startswith("/") else ""
    if path and not path.isprintable():
        raise InvalidInput(
            f"the path of a SQLite store has a character that cannot be seen: {path!r}. Was the address read "
            "from a file, with the end of its line?"
        )
    if ":memory:" in {path, rest}:
        raise InvalidInput(_NOT_IN_MEMORY)
    if not path or "?" in rest or "#" in rest:
        plain = rest and not set(rest) & set(":@?#/")
        meant = f" Three slashes: sqlite:///{rest}" if plain else ""
        raise InvalidInput(
            "a SQLite store needs a path and nothing else: sqlite:///relative.db or "
            f"sqlite:////absolute/path.db.{meant}"
        )
    return Path(path)


# --- drivers and checks, each imported when it is used ---------------------------------------------


class Makers(Struct, Generic[D], frozen=True):
    """How to make the driver of each kind of store: blocking ones, or those for asyncio."""

    redis_url: Callable[[str, Timeout], D]
    cluster_url: Callable[[str, Timeout], D]
    redis_client: Callable[[Any, Timeout], D]
    replicas: Callable[[Any, Timeout], D]
    sqlite: Callable[[Path, Timeout, bool], D]
    rest: Callable[[Address, int, Timeout], D]


def _sqlite(path: Path, timeout: Timeout, private: bool) -> Driver:  # noqa: FBT001
    from swapstore.drivers.sqlite.driver import SqliteDriver  # noqa: PLC0415

    return SqliteDriver(path, private=private, timeout_s=timeout.reply)


def _redis_url(url: str, timeout: Timeout) -> Driver:
    from swapstore.drivers.redis.driver import RedisDriver  # noqa: PLC0415 - redis-py takes 0.1 s to import

    return RedisDriver.from_url(url, timeout=timeout)


def _redis_client(client: Any, timeout: Timeout) -> Driver:
    from redis.cluster import RedisCluster  # noqa: PLC0415

    if isinstance(client, RedisCluster):
        from swapstore.drivers.redis.cluster import ClusterDriver  # noqa: PLC0415

        return ClusterDriver.from_client(client, timeout=timeout)
    from swapstore.drivers.redis.driver import RedisDriver  # noqa: PLC0415

    return RedisDriver.from_client(client, timeout=timeout)


def _cluster_url(url: str, timeout: Timeout) -> Driver:
    from swapstore.drivers.redis.cluster import ClusterDriver  # noqa: PLC0415

    return ClusterDriver.from_url(url, timeout=timeout)


def _rest(address: Address, max_request: int, timeout: Timeout) -> Driver:
    with rest_address.installed():
        from swapstore.drivers.rest.driver import UpstashDriver  # noqa: PLC0415 - an extra
    return UpstashDriver(address, max_request=max_request, timeout=timeout)


def _replicas(target: Any, timeout: Timeout) -> Driver:
    from swapstore.drivers.redis.reading import ReplicaDriver  # noqa: PLC0415

    return ReplicaDriver.of(target, timeout)


BLOCKING: Makers[Driver] = Makers(_redis_url, _cluster_url, _redis_client, _replicas, _sqlite, _rest)


def _async_redis_url(url: str, timeout: Timeout) -> AsyncDriver:
    from swapstore.drivers.redis.aio import AsyncRedisDriver  # noqa: PLC0415 - redis-py takes 0.1 s to import

    return AsyncRedisDriver.from_url(url, timeout=timeout)


def _async_redis_client(client: Any, timeout: Timeout) -> AsyncDriver:
    from redis.asyncio.cluster import RedisCluster  # noqa: PLC0415

    if isinstance(client, RedisCluster):
        from swapstore.drivers.redis.cluster import AsyncClusterDriver  # noqa: PLC0415

        return AsyncClusterDriver.from_client(client, timeout=timeout)
    from swapstore.drivers.redis.aio import AsyncRedisDriver  # noqa: PLC0415

    return AsyncRedisDriver.from_client(client, timeout=timeout)


def _async_cluster_url(url: str, timeout: Timeout) -> AsyncDriver:
    from swapstore.drivers.redis.cluster import AsyncClusterDriver  # noqa: PLC0415

    return AsyncClusterDriver.from_url(url, timeout=timeout)


def _async_replicas(target: Any, timeout: Timeout) -> AsyncDriver:
    from swapstore.drivers.redis.reading import AsyncReplicaDriver  # noqa: PLC0415

    return AsyncReplicaDriver.of(target, timeout)


def _async_sqlite(path: Path, timeout: Timeout, private: bool) -> AsyncDriver:  # noqa: FBT001
    from swapstore.drivers.threaded import ThreadedDriver  # noqa: PLC0415

    return ThreadedDriver(_sqlite(path, timeout, private))


def _async_rest(address: Address, max_request: int, timeout: Timeout) -> AsyncDriver:
    with rest_address.installed():
        from swapstore.drivers.rest.aio import AsyncUpstashDriver  # noqa: PLC0415 - an extra
    return AsyncUpstashDriver(address, max_request=max_request, timeout=timeout)


ASYNC: Makers[AsyncDriver] = Makers(
    _async_redis_url, _async_cluster_url, _async_redis_client, _async_replicas, _async_sqlite, _async_rest
)


def _doctor_of(kind: str) -> Callable[[Context], Operation[list[Check]]] | None:
    """Return the checks for a kind of store, whose module is imported when they run. None: it has none."""

    def diagnose(ctx: Context) -> Operation[list[Check]]:
        from swapstore.doctor import cluster, redis, rest, sqlite  # noqa: PLC0415 - only operators need them

        modules: dict[str, Any] = {"redis": redis, "cluster": cluster, "sqlite": sqlite, "upstash": rest}
        found: Operation[list[Check]] = modules[kind].diagnose(ctx)
        return found

    return diagnose if kind in {"redis", "cluster", "sqlite", "upstash"} else None


def source_of(url: str, layout: Layout, token: str | None = None, name: str = "the source") -> Source:
    """Return a reader of the six-command layout at a URL of Redis, Valkey or REST. It connects at first use.

    `token`: that of a REST endpoint. Default: `$UPSTASH_REDIS_REST_TOKEN`. `name`: where the URL comes from,
    for messages.
    """
    from swapstore.migration.source import Source  # noqa: PLC0415 - only an import needs it

    try:
        if url.partition("://")[0].lower() in rest_address.SCHEMES:
            address = rest_address.parse(url, token, allow_http=False)
            return Source(_rest(address, DEFAULT_MAX_REQUEST, Timeout()), layout)
        if url.partition("://")[0] in _CLUSTER_SCHEMES:
            return Source(_cluster_url(url, Timeout()), layout)
        return Source(_redis_url(url, Timeout()), layout)
    except InvalidInput as error:
        raise InvalidInput(f"{name} cannot be used: {error}") from None
