"""The context of an operation: key names, bounds, the clock, randomness, and what the client remembers.

And what a call is about, for its errors and events.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeGuard, TypeVar

import msgspec

from swapstore import arguments
from swapstore.cache import Cache
from swapstore.errors import (
    InvalidInput,
    LeaseLost,
    OutcomeUnknown,
    Rejected,
    StoreClosed,
    SwapstoreError,
    UnderReplicated,
)
from swapstore.format.append import Stamp
from swapstore.format.keys import Keys
from swapstore.models import Compression, Durability, Retention, Validator
from swapstore.protocol.commit import Committer, Scripted
from swapstore.protocol.operation import Operation, Steps, Tally
from swapstore.structs import Struct

if TYPE_CHECKING:
    from swapstore.cache import Known
    from swapstore.events import Event, Hook
    from swapstore.format.manifest import Manifest
    from swapstore.migration.layout import Mirror

T = TypeVar("T")

NO_DATASET: Any = object()
_PUBLISHING = frozenset({"publish", "publish_group", "publish_many"})
_CHANGING = {"publish", "publish_group", "confirm", "pin", "unpin", "rollback", "erase", "drop", "repair"}


class Clock(Protocol):
    """The clocks that operations read, and the sleep with which the engine carries out their waits."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back, for measuring ages."""

    def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        time.sleep(seconds)


class Policy(Struct, frozen=True, kw_only=True):
    """Bounds. Every loop of an operation ends because of one of them."""

    max_payload_bytes: int = 64 * 1024 * 1024
    max_batch_bytes: int = 8 * 1024 * 1024  # the size of a batch that several datasets or members share
    max_request_bytes: int | None = None  # that an endpoint accepts at once; None: it has no such limit
    max_ahead_ms: int | None = 24 * 3_600_000  # how far ahead of the clock a time may be
    staging_ttl_ms: int = 10 * 60_000  # how long the records of a crashed publish stay
    reader_grace_ms: int = 10 * 60_000  # how long an unlinked record can still be read
    leak_ttl_ms: int = 24 * 3_600_000  # how long keys that a repair unlinks can still be inspected
    commit_attempts: int = 200  # against eight busy producers, the odds of losing all are 1 in 10^11
    lost_attempts: int = 4  # how often a commit is sent when the connection is lost each time
    read_attempts: int = 6
    first_wait_s: float = 0.002
    longest_wait_s: float = 0.05
    reply_s: float | None = None  # how long a driver waits for a reply in silence; None: it does not say
    patience_s: float = 2.0  # how long to send again what was not carried out; see `recovery`
    lease_ttl_ms: int = 90_000  # how long a crashed writer blocks others, where a lease is needed
    lease_margin_ms: int = 45_000  # longer than any request takes, including the wait for a connection
    lease_poll_ms: int = 500
    total_s: float | None = None  # that one call may wait in vain; see `Timeout`
    reads_replicas: bool = False  # reads ask a replica first
    stale_if_error_s: float = 0.0  # how old what was seen may be that is served in an outage; 0: none is
    text_only: bool = False  # the endpoint carries text: what is not UTF-8 is stored in base64
    compression: Compression = "none"

    @property
    def stores_plain(self) -> bool:
        """Whether every payload is stored as it is."""
        return self.compression == "none" and not self.text_only


class Route(msgspec.Struct):
    """Where an operation reads. `anywhere`: a replica may answer; else the primary does."""

    anywhere: bool = False

    def leave(self) -> bool:
        """Ask the primary from now on. Returns whether a replica was asked before."""
        left, self.anywhere = self.anywhere, False
        return left


class Capabilities(msgspec.Struct):
    """What one client has found out about its store.

    `committer`: how it commits there. `serves`: whether the store may answer with a manifest and the record
    that it serves in one round trip. `is_unlisted_logged`: it was logged that the store refuses to put
    datasets on the list of names. `tells_role`: whether a server may be asked if it is a replica.
    `may_be_node`: whether it may be one node of a cluster, so that the list of names may be on another.
    `awaits`: the kinds of `Durability` (its `fsync`) that the server was found to give. `never_awaits`: why
    this kind of store gives none; empty: it may. `keeps_order`: whether commands of a batch take effect in
    their order although their keys are in different slots.
    """

    committer: Committer = msgspec.field(default_factory=Scripted)
    serves: bool = True
    is_unlisted_logged: bool = False
    tells_role: bool = False
    may_be_node: bool = False
    awaits: set[bool] = msgspec.field(default_factory=set)
    never_awaits: str = ""
    keeps_order: bool = True


class Context(Struct, frozen=True, kw_only=True):
    """Everything that an operation gets from its client, which uses one namespace.

    `where`: the store's address, for messages. `durability`: what its publishes wait for; None: for no
    replica. `on_connect`: the operation that runs once, when the client connects. `route`: see `reading`.
    `doctor`: the checks for this kind of store. `hook`: called with each event; None: there is no listener.
    """

    keys: Keys
    cache: Cache
    where: str = ""
    policy: Policy = Policy()
    retention: Retention = msgspec.field(default_factory=Retention)
    durability: Durability | None = None
    mirror: Mirror | None = None
    validators: tuple[Validator, ...] = ()
    hook: Hook | None = None
    capabilities: Capabilities = msgspec.field(default_factory=Capabilities)
    route: Route = msgspec.field(default_factory=Route)
    on_connect: Callable[[Context], Operation[None]] | None = None
    doctor: Callable[[Context], Operation[list[Any]]] | None = None
    clock: Clock = msgspec.field(default_factory=SystemClock)
    random: random.Random = msgspec.field(default_factory=random.SystemRandom)

    @property
    def place(self) -> str:
        """Where this client looks for datasets, for messages: often it is the wrong place."""
        return f"{self.where}, namespace {self.keys.namespace!r}"

    def reading(self) -> Context:
        """Return the context for one operation that only reads, which may ask a replica."""
        return (
            msgspec.structs.replace(self, route=Route(anywhere=True)) if self.policy.reads_replicas else self
        )

    def seen_at(self, current: Manifest) -> int:
        """Return when the store last showed this manifest, in milliseconds since the Unix epoch."""
        known = self.cache.known(current.key)
        if known is None or known.manifest.etag != current.etag:
            return self.clock.now_ms()  # a moment ago: another caller has just read a newer one
        return known.seen_at or self.moment(known)

    def moment(self, known: Known) -> int:
        """Work out when the store last showed a manifest, in milliseconds since the Unix epoch."""
        known.seen_at = self.clock.now_ms() - int((self.clock.monotonic() - known.read_at) * 1000)
        return known.seen_at

    def token(self, characters: int) -> str:
        """Return random lowercase hexadecimal characters."""
        return f"{self.random.getrandbits(4 * characters):0{characters}x}"

    def emit(self, event: Event) -> None:
        """Call the hook with an event, if there is one."""
        if self.hook is not None:
            self.hook(event)

    def is_long_after(self, base: Manifest | None, now_ms: int) -> TypeGuard[Manifest]:
        """Say whether the last commit seems so long ago that this machine's clock may be ahead."""
        bound, rows = self.policy.max_ahead_ms, base.log.rows if base else ()
        return bound is not None and bool(rows) and now_ms > rows[-1].committed_at + bound

    def tally(self) -> Tally | None:
        """Return a new count of what an operation costs. None: there is no hook for events."""
        return None if self.hook is None else Tally(self.clock.monotonic())

    def stamp(self) -> Stamp:
        """Return the time, the nonce and the epoch of a new manifest."""
        bits = self.random.getrandbits(64 + 48)  # one draw for both, because each draw is a system call
        return Stamp(
            now_ms=self.clock.now_ms(),
            nonce=f"{bits & 0xFFFF_FFFF_FFFF_FFFF:016x}",
            new_epoch=f"{bits >> 64:012x}",
            keys=self.keys,
            max_ahead_ms=self.policy.max_ahead_ms,
        )

    def new_id(self) -> str:
        """Return a new UUIDv7. UUIDv7s sort by the time at which they were made."""
        bits = (self.clock.now_ms() & (2**48 - 1)) << 80 | self.random.getrandbits(80)
        bits = bits & ~(0xF << 76) | 0x7 << 76  # version 7
        bits = bits & ~(0x3 << 62) | 0x2 << 62  # the RFC 9562 variant
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def backoff(self, attempt: int) -> float:
        """Return the seconds to wait before another attempt: exponential, with full jitter."""
        bound = min(self.policy.longest_wait_s, self.policy.first_wait_s * 2 ** min(attempt, 30))
        return self.random.uniform(0, bound)


# --- what failed, and where ---------------------------------------------------------------------------


class about:  # noqa: N801 - it reads as a sentence: with about(context, "publish", dataset) as name
    """Check a dataset's name, set it on each error that passes through, and emit an event for the error.

    An error of a publish also says if anything was published. `NO_DATASET`: the call is about none, or all.
    """

    __slots__ = ("_began", "_call", "_context", "_name")

    def __init__(self, context: Context, call: str, dataset: Any) -> None:
        self._context = context
        self._call = call
        self._name = ""
        self._began = 0.0 if context.hook is None else context.clock.monotonic()
        if dataset is not NO_DATASET:
            try:
                self._name = arguments.dataset(dataset)
            except InvalidInput as error:
                error.published = False if call in _PUBLISHING else None
                self._emit(error)
                raise

    def __enter__(self) -> str:
        return self._name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._call in _CHANGING and (error is None or isinstance(error, UnderReplicated)):
            self._context.cache.changed(self._context.keys.manifest(self._name))
        if isinstance(error, SwapstoreError):
            if error.dataset is None and self._name:
                error.dataset = self._name
            if self._call in _PUBLISHING and not isinstance(
                error, OutcomeUnknown | LeaseLost | UnderReplicated
            ):
                error.published = False
            if not isinstance(error, Rejected | StoreClosed):  # a rejection has an event of its own
                self._emit(error)

    def _emit(self, error: SwapstoreError) -> None:
        if self._context.hook is not None:
            from swapstore.events import CallFailed  # noqa: PLC0415 - only listeners need it

            elapsed_s = self._context.clock.monotonic() - self._began
            failed = CallFailed(
                dataset=self._name or error.dataset or "",
                call=self._call,
                error=type(error).__name__,
                elapsed_s=elapsed_s,
            )
            self._context.emit(failed)


class Named(Generic[T]):
    """Steps whose errors name the dataset, if they are about one."""

    def __init__(self, context: Context, call: str, dataset: Any, steps: Steps[T]) -> None:
        self._context = context
        self._call = call
        self._dataset = dataset
        self._steps = steps

    def step(self) -> Operation[list[T] | None]:
        """Take one step."""
        with about(self._context, self._call, self._dataset):
            return (yield from self._steps.step())
