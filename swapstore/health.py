"""Health: whether datasets are there, fresh and large enough. `Store.health` makes the report.

Pure code: bounds in, the verdict on a status out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs

from swapstore import arguments, figures
from swapstore.errors import Damaged, InvalidInput, Misconfigured, SwapstoreError
from swapstore.models import CLOCKS_AGREE_MS

if TYPE_CHECKING:
    from swapstore.models import Status

State = Literal["fresh", "stale", "too_small", "missing", "damaged", "unreachable", "misconfigured"]
_STATES: tuple[State, ...] = get_args(State)  # from the best to the worst


def _age(value: timedelta | str | None) -> timedelta | None:
    return None if value is None else arguments.duration(value)


@attrs.frozen(kw_only=True)
class Bound:
    """What is expected of a dataset. None: nothing; a `Bound()` expects only that the dataset exists.

    - `max_age`: how long ago a producer last published or confirmed, at most: a timedelta, or a text such as
      `"12h"` (a whole number and `d`, `h`, `m` or `s`).
    - `min_count`: the least `count` of the snapshot that is served. One without a count is too small.
    - `min_size`: its least size in bytes.

    Raises `InvalidInput` for an invalid bound.
    """

    max_age: timedelta | None = attrs.field(default=None, converter=_age)
    min_count: int | None = None
    min_size: int | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("min_count", "min_size"):
            if getattr(self, name) is not None:
                arguments.whole(getattr(self, name), name, least=0)

    @property
    def max_age_ms(self) -> int | None:
        """`max_age` in milliseconds."""
        return None if self.max_age is None else self.max_age // timedelta(milliseconds=1)


@attrs.frozen(kw_only=True)
class DatasetHealth:
    """The health of one dataset.

    `state` is the worst that holds, in this order:

    - `fresh`: it is within its `bound`.
    - `stale`: the last publish or confirmation is longer ago than `max_age`; or more than ten seconds in the
      future, because two clocks disagree, so that nobody can tell.
    - `too_small`: less than `min_count` or `min_size` is served, or what is served has no count.
    - `missing`: nothing is published.
    - `damaged`: its manifest cannot be read.
    - `unreachable`: the store cannot be reached, or cannot serve now.
    - `misconfigured`: the store refuses the credentials, or cannot do this.

    The other fields are None if they are not known. `version` is that of the dataset. `confirmed_age_ms` is
    how long ago a producer last published or confirmed, `age_ms` the age of the data by its `ts`, both in
    milliseconds by the clock of this client. `count` (what its producer counted), `size` in bytes and
    `age_ms` are those of the snapshot that is served; `pinned`: it is pinned. `error` is why the dataset
    could not be read.
    """

    dataset: str
    state: State
    bound: Bound
    version: int | None = None
    confirmed_age_ms: int | None = None
    age_ms: int | None = None
    count: int | None = None
    size: int | None = None
    pinned: bool | None = None
    error: SwapstoreError | None = attrs.field(default=None, eq=False)

    @property
    def ok(self) -> bool:
        """Whether it is `fresh`."""
        return self.state == "fresh"

    @property
    def reason(self) -> str:
        """What is wrong, in words; empty if nothing is."""
        bound = self.bound
        match self.state:
            case "stale":
                return _overdue(self.confirmed_age_ms or 0, bound.max_age_ms or 0)
            case "too_small" if bound.min_count is not None and (self.count or 0) < bound.min_count:
                has = "nobody counted it" if self.count is None else f"it counts {self.count:,}"
                return f"too small: {has}, and {bound.min_count:,} or more are expected"
            case "too_small":
                return f"too small: it has {self.size:,} bytes, and {bound.min_size:,} or more are expected"
            case "missing":
                return "nothing is published"
        return "" if self.error is None else str(self.error.args[0])


def _overdue(age_ms: int, bound_ms: int) -> str:
    last = f"last published or confirmed {figures.age(0, age_ms)}"
    if age_ms < 0:
        return (
            f"the clocks disagree: {last}, by the producer's clock, so nobody can tell whether it is "
            "overdue. Set both clocks (NTP)"
        )
    return f"stale: {last}, and {figures.duration(bound_ms)} is allowed"


@attrs.frozen(kw_only=True)
class Health:
    """The report of `health`.

    `datasets` maps names to the health of each. `checked_at` is when it was made, in milliseconds since the
    Unix epoch. `error` is why the datasets could not be listed, if none were named; else None.
    """

    datasets: dict[str, DatasetHealth]
    checked_at: int
    error: SwapstoreError | None = attrs.field(default=None, eq=False)

    @property
    def ok(self) -> bool:
        """Whether every dataset is `fresh`, and there is one."""
        return self.state == "fresh"

    @property
    def state(self) -> State:
        """The worst state of a dataset; `missing` if there is none."""
        if self.error is not None:
            return _state_of(self.error)
        return max((each.state for each in self.datasets.values()), key=_STATES.index, default="missing")

    def as_dict(self) -> dict[str, Any]:
        """Return the report as `swapstore health` and the HTTP endpoints print it in JSON.

        Of an error it has the class alone, because the message may name an address.
        """
        return {
            "ok": self.ok,
            "state": self.state,
            "checked_at": self.checked_at,
            "error": _named(self.error),
            "datasets": {name: _as_dict(each) for name, each in self.datasets.items()},
        }


def _as_dict(one: DatasetHealth) -> dict[str, Any]:
    found = attrs.asdict(one, recurse=False)
    bound = found.pop("bound")
    found |= {"max_age_ms": bound.max_age_ms, "min_count": bound.min_count, "min_size": bound.min_size}
    return {**found, "error": _named(one.error)}


def _named(error: SwapstoreError | None) -> str | None:
    return None if error is None else type(error).__name__


def bounds_of(given: Any) -> dict[str, Bound]:
    """Return the bound of each dataset. Raises `InvalidInput`, which names the dataset."""
    if not isinstance(given, Mapping):
        raise InvalidInput(
            "health takes a mapping of datasets to bounds, such as {'mena': '12h', 'europe': None}, not a "
            f"{type(given).__name__}"
        )
    try:
        wanted = dict(given.items())
    except Exception as error:
        raise InvalidInput(f"bounds cannot be read: that raised {type(error).__name__}") from error
    found: dict[str, Bound] = {}
    for name, bound in wanted.items():
        known = arguments.dataset(name)
        try:
            found[known] = bound if isinstance(bound, Bound) else Bound(max_age=bound)
        except InvalidInput as error:
            error.dataset = known
            raise
    return found


def judged(dataset: str, found: Status | SwapstoreError | None, bound: Bound) -> DatasetHealth:
    """Return the health of a dataset of this status. None: nothing is published."""
    if found is None:
        return DatasetHealth(dataset=dataset, state="missing", bound=bound)
    if isinstance(found, SwapstoreError):
        return DatasetHealth(dataset=dataset, state=_state_of(found), bound=bound, error=found)
    count = arguments.count_in(found.serving.labels)
    state: State = "fresh"
    if bound.max_age_ms is not None and not -CLOCKS_AGREE_MS <= found.confirmed_age_ms <= bound.max_age_ms:
        state = "stale"
    if (bound.min_count is not None and (count is None or count < bound.min_count)) or (
        bound.min_size is not None and found.bytes < bound.min_size
    ):
        state = "too_small"
    return DatasetHealth(
        dataset=dataset,
        state=state,
        bound=bound,
        version=found.version,
        confirmed_age_ms=found.confirmed_age_ms,
        age_ms=found.age_ms,
        count=count,
        size=found.bytes,
        pinned=found.pinned is not None,
    )


def _state_of(error: SwapstoreError) -> State:
    if isinstance(error, Damaged):
        return "damaged"
    return "misconfigured" if isinstance(error, Misconfigured) else "unreachable"
