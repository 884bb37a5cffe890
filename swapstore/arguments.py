"""Checks of arguments: names, times, labels, sizes. Each raises `InvalidInput`, before any write."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, wraps
from typing import Any, Literal, ParamSpec, TypeVar

import msgspec

from swapstore.errors import InvalidInput, PayloadTooLarge

P = ParamSpec("P")
T = TypeVar("T")

MAX_TS_MS = 253_402_300_799_999  # the end of the year 9999, the last one that datetime supports
LATEST_GUESS_MS = 7_258_118_400_000  # 2200
EARLIEST_INT_MS = 631_152_000_000  # 1990; an int below it is most likely a number of seconds
MAX_LABELS_BYTES = 1024
MAX_PATH_BYTES = 4096
LONGEST_SHOWN = 80
MIN_LIVE_TTL_S = 0.001
MAX_LIVE_TTL_S = 366 * 86_400
MIN_POLL_S = 0.001
MAX_POLL_S = 86_400
MAX_TIMEOUT_S = 366 * 86_400
MAX_COUNT = 10**15 - 1  # every reader of JSON keeps it exact
COUNT_LABEL = "count"
LARGEST = sys.float_info.max

COMPRESSIONS: tuple[Literal["none", "zstd", "delta"], ...] = ("none", "zstd", "delta")
COMPRESSION_VARIABLE = "SWAPSTORE_COMPRESSION"

_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
_ID = re.compile(r"[A-Za-z0-9._:/@+-]{1,200}")
_COUNT = re.compile(r"[0-9]{1,15}")
_DURATION = re.compile(r"([0-9]{1,20})([dhms])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_ETAG = re.compile(r"[0-9a-f]{1,40}\.[0-9]{1,20}\.[0-9a-f]{1,40}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def dataset(name: Any) -> str:
    """Return a well-formed dataset name."""
    return _plain_dataset(name) if type(name) is str else _dataset(name)


def _dataset(name: Any) -> str:
    return _matching(
        name,
        _DATASET,
        "dataset name",
        "1 to 128 of A-Z a-z 0-9 . _ / - beginning with a letter or digit",
    )


_plain_dataset = lru_cache(maxsize=1024)(_dataset)  # every call has one, and most calls the same few


def datasets(given: Any) -> tuple[str, ...]:
    """Return well-formed names of datasets, each once, in the given order. One name stands for itself."""
    if not isinstance(given, Iterable):
        raise InvalidInput(f"datasets must be names of datasets, not a {type(given).__name__}")
    try:
        names = [given] if isinstance(given, str) else list(given)
    except Exception as error:
        kind = type(error).__name__
        raise InvalidInput(f"datasets cannot be read: that raised {kind}") from error
    return tuple(dict.fromkeys(dataset(name) for name in names))


def is_dataset(name: str) -> bool:
    """Say whether this is a well-formed dataset name."""
    return _DATASET.fullmatch(name) is not None


def dataset_prefix(value: Any) -> str:
    """Return what the names of datasets can begin with; empty for all of them."""
    return "" if isinstance(value, str) and not len(value) else dataset(value)


def namespace(name: Any) -> str:
    """Return a well-formed namespace. It has no braces: they would move the keys to another cluster slot."""
    return _matching(
        name,
        _NAMESPACE,
        "namespace",
        "1 to 128 of A-Z a-z 0-9 . _ / : - beginning with a letter or digit",
    )


def snapshot_id(value: Any) -> str:
    """Return a well-formed snapshot id."""
    return _matching(value, _ID, "id", "1 to 200 of A-Z a-z 0-9 . _ : / @ + -")


def dedupe_key(value: Any) -> str:
    """Return a well-formed dedupe key. The rule is that of ids."""
    return _matching(value, _ID, "dedupe_key", "1 to 200 of A-Z a-z 0-9 . _ : / @ + -")


def member_name(value: Any) -> str:
    """Return a well-formed name of a member. The rule is that of datasets."""
    return _matching(
        value,
        _DATASET,
        "member name",
        "1 to 128 of A-Z a-z 0-9 . _ / - beginning with a letter or digit",
    )


def member_names(names: Any) -> list[str]:
    """Return well-formed names of members, each once."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidInput(f"members must be names of members, not a {type(names).__name__}")
    try:
        return list(dict.fromkeys(member_name(name) for name in names))
    except InvalidInput:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise InvalidInput(f"members cannot be read: that raised {kind}") from error


def is_member_name(name: str) -> bool:
    """Say whether a group can have a member of this name."""
    return _DATASET.fullmatch(name) is not None


def _matching(value: Any, pattern: re.Pattern[str], what: str, rule: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return str.__str__(value)  # a plain string: an enum member would show its own name in a key
    raise InvalidInput(f"{what} {shown(value)} is not allowed; use {rule}")


def shown(value: Any) -> str:
    """Return the text of a value for a message; of a long one, the beginning."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an int of more than 4300 digits, or a class whose repr raises
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:60]}… ({len(text)} characters)"


def _checking(check: Callable[P, T]) -> Callable[P, T]:
    """Refuse a value that raises while it is checked: its class is not what it seems."""

    @wraps(check)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return check(*args, **kwargs)
        except InvalidInput:
            raise
        except Exception as error:
            kind = type(error).__name__
            raise InvalidInput(f"{shown(args[0])} cannot be used: reading it raised {kind}") from error

    return checked


@_checking
def timestamp_ms(value: Any, what: str = "ts") -> int:
    """Return milliseconds since the Unix epoch, from an int of them or an aware datetime.

    An int before 1990 is refused, because it is most likely a number of seconds. A datetime may be earlier.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise InvalidInput(
                f"{what} {value.isoformat()} is a naive datetime; give it a timezone (datetime.UTC)"
            )
        moment = (value - _EPOCH) // timedelta(milliseconds=1)
        if moment < 0:
            raise InvalidInput(f"{what} {value.isoformat()} is before 1970")
        return moment
    if not isinstance(value, int) or isinstance(value, bool):
        hint = "; of time.time(), give int(time.time() * 1000)" if isinstance(value, float) else ""
        raise InvalidInput(
            f"{what} must be an aware datetime or an int of milliseconds since 1970, "
            f"not {type(value).__name__}{hint}"
        )
    if not EARLIEST_INT_MS <= value <= MAX_TS_MS:
        raise InvalidInput(
            f"{what} {shown(value)} is not between 1990 and 9999 in milliseconds{_probably_meant(value)}; "
            "an earlier moment has to be an aware datetime"
        )
    return int(value)


def _probably_meant(value: int) -> str:
    """Name the unit in which a number would be a time of these decades, and the value in milliseconds."""
    for unit, meant in (
        ("seconds", value * 1000),
        ("microseconds", value // 1000),
        ("nanoseconds", value // 1_000_000),
    ):
        if EARLIEST_INT_MS <= meant <= LATEST_GUESS_MS:
            return f" ({unit}, perhaps? Then give {meant})"
    return ""


def not_ahead(ts_ms: int, now_ms: int, max_ahead_ms: int | None) -> None:
    """Refuse a `ts` further in the future than the bound: until then, no publish would become the latest."""
    if max_ahead_ms is not None and ts_ms > now_ms + max_ahead_ms:
        ahead = (ts_ms - now_ms) // 1000
        raise InvalidInput(
            f"ts {ts_ms} is {ahead:,} s ahead of this machine's clock; as the latest, it would keep every "
            "snapshot before it from being served. Correct it or the clock, or raise max_ahead in connect()"
        )


def max_ahead_ms(value: Any) -> int | None:
    """Return in milliseconds how far ahead of the clock a `ts` may be. None: there is no bound."""
    if value is None:
        return None
    if not isinstance(value, timedelta) or value < timedelta(0):
        raise InvalidInput(
            f"max_ahead must be a timedelta of 0 or more, or None, not {shown(value)}{_as_timedelta(value)}"
        )
    return value // timedelta(milliseconds=1)


@_checking
def labels(value: Any, what: str = "labels") -> dict[str, str]:
    """Return a copy of the labels: a dict of strings to strings, at most 1 KiB as JSON, sorted by key."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{what} must be a mapping of strings to strings, not {type(value).__name__}")
    if not value:
        return {}
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise InvalidInput(
                f"label {shown(key)} must be a string with a string value; convert it with str()"
            )
    ordered = {str.__str__(key): str.__str__(value[key]) for key in sorted(value)}
    try:
        size = len(msgspec.json.encode(ordered))
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "a label contains a lone surrogate, which UTF-8 cannot encode; clean the text first"
        ) from error
    if size > MAX_LABELS_BYTES:
        raise InvalidInput(
            f"labels take {size} bytes as JSON, the limit is {MAX_LABELS_BYTES}; put the rest in the value"
        )
    return ordered


def with_count(value: dict[str, str], count: Any) -> dict[str, str]:
    """Return checked labels and the one that holds this count. None: no count is given."""
    if count is None:
        return value
    if COUNT_LABEL in value:
        raise InvalidInput(f"the label {COUNT_LABEL!r} is what count= sets; give one of the two")
    number = whole(count, "count", least=0)
    if number > MAX_COUNT:
        raise InvalidInput(f"count must be at most {MAX_COUNT:,}, not {shown(count)}")
    return labels({**value, COUNT_LABEL: str(int(number))})


def count_in(value: Mapping[str, str]) -> int | None:
    """Return the count that labels hold. None: they hold none, or a text that is not one."""
    text = value.get(COUNT_LABEL, "")
    return int(text) if _COUNT.fullmatch(text) else None


def expected_version(value: Any) -> int:
    """Return an expected version: an int of 0 (nothing is published) or more."""
    return whole(value, "expected_version", least=0)


def min_version(value: Any) -> int:
    """Return the least version that a dataset must have: an int; 0: none is required."""
    if type(value) is int and value >= 0:  # at once: each read that is served from the cache comes here
        return value
    return whole(value, "min_version", least=0)


@_checking
def whole(value: Any, what: str, *, least: int) -> int:
    """Return an int that is at least `least`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise InvalidInput(f"{what} must be a whole number, {least} or more, not {shown(value)}")


@_checking
def ttl_ms(value: Any) -> int:
    """Return a live view's TTL in milliseconds, from seconds or a timedelta."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not MIN_LIVE_TTL_S <= seconds <= MAX_LIVE_TTL_S
    ):
        raise InvalidInput(
            f"ttl must be between 1 ms and 366 days, in seconds or a timedelta, not {shown(value)}"
        )
    return int(seconds * 1000)


@_checking
def staleness_s(value: Any, what: str = "max_staleness") -> float:
    """Return a bound of staleness or age in seconds, from seconds or a timedelta."""
    if (type(value) is float or type(value) is int) and 0 <= value <= LARGEST:
        return float(value)  # at once, as in `min_version`
    return wait_s(value, what)


@_checking
def wait_s(value: Any, what: str) -> float:
    """Return how long something may take in seconds, 0 or more, from seconds or a timedelta."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LARGEST:
        raise InvalidInput(f"{what} must be 0 or more seconds, or a timedelta, not {shown(value)}")
    return float(seconds)


@_checking
def poll_s(value: Any) -> float:
    """Return the polling interval in seconds, from seconds or a timedelta."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not MIN_POLL_S <= seconds <= MAX_POLL_S
    ):
        raise InvalidInput(
            f"poll must be between 1 ms and a day, in seconds or a timedelta, not {shown(value)}"
        )
    return float(seconds)


@_checking
def timeout_s(value: Any, what: str) -> float:
    """Return a time-out in seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_TIMEOUT_S:
        raise InvalidInput(
            f"{what} must be a number of seconds above 0, at most 366 days, or Timeout(connect=…, reply=…, "
            f"total=…), not {shown(value)}"
        )
    return float(value)


@_checking
def patience_s(value: Any) -> float:
    """Return how long to go on trying, in seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIMEOUT_S:
        raise InvalidInput(
            f"patience must be a number of seconds, 0 or more and at most 366 days, not {shown(value)}"
        )
    return float(value)


def flag(value: Any, what: str) -> bool:
    """Return True or False, or raise."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{what} must be True or False, not {shown(value)}")
    return value


def reads_replicas(value: Any) -> bool:
    """Say whether `read_from` names the replicas."""
    if isinstance(value, str) and value in {"primary", "replica"}:
        return value == "replica"
    raise InvalidInput(f"read_from must be 'primary' or 'replica', not {shown(value)}")


def one_of(value: Any, kind: type[T], what: str) -> T | None:
    """Return an instance of a class, or None."""
    if value is None or isinstance(value, kind):
        return value
    raise InvalidInput(f"{kind.__name__.lower()} must be {what}, not {type(value).__name__}")


def functions(value: Any, what: str) -> tuple[Any, ...]:
    """Return a list of functions as a tuple."""
    if not isinstance(value, list | tuple):
        raise InvalidInput(f"{what} must be a list of functions, not {shown(value)}")
    for each in value:
        if not callable(each):
            raise InvalidInput(f"each of {what} must be a function, not {shown(each)}")
    return tuple(value)


def compression(value: Any) -> Literal["none", "zstd", "delta"]:
    """Return how publishes are stored. Default: what the environment says, or else `"none"`."""
    if value is None:
        value = os.environ.get(COMPRESSION_VARIABLE) or "none"
    return one_compression(value, f"compression (or ${COMPRESSION_VARIABLE})")


def one_compression(value: Any, what: str = "compression") -> Literal["none", "zstd", "delta"]:
    """Return the name of a compression."""
    for known in COMPRESSIONS:
        if isinstance(value, str) and value == known:
            return known
    raise InvalidInput(f"{what} must be 'none', 'zstd' or 'delta', not {shown(value)}")


def payload_size(size_bytes: int, limit_bytes: int) -> None:
    """Raise `PayloadTooLarge` for a payload over the limit."""
    if size_bytes > limit_bytes:
        raise PayloadTooLarge(
            f"the payload has {size_bytes:,} bytes, max_payload is {limit_bytes:,}; "
            "publish less, or raise max_payload in connect()",
            size_bytes=size_bytes,
            limit_bytes=limit_bytes,
        )


@_checking
def retention(max_age: Any, max_count: Any) -> None:
    """Refuse invalid bounds: an age must be 1 ms or more, a count 1 or more."""
    if max_age is not None and (not isinstance(max_age, timedelta) or max_age < timedelta(milliseconds=1)):
        raise InvalidInput(
            f"max_age must be a timedelta of 1 ms or more, not {shown(max_age)}{_as_timedelta(max_age)}"
        )
    if max_count is not None:
        whole(max_count, "max_count", least=1)


@_checking
def duration(value: Any) -> timedelta:
    """Return a duration of 1 ms or more, from a timedelta or a text: a whole number and d, h, m or s."""
    length = value
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None or not int(match[1]):
            raise InvalidInput(
                f"{shown(value)} is not a duration: 1 or more and d, h, m or s (90d, 12h, 30m, 45s)"
            )
        try:
            length = timedelta(**{_UNITS[match[2]]: int(match[1])})
        except OverflowError:
            raise InvalidInput(f"{shown(value)} is too long a duration") from None
    if not isinstance(length, timedelta) or length < timedelta(milliseconds=1):
        raise InvalidInput(
            f"a duration is a timedelta of 1 ms or more, or a text such as '12h', not {shown(value)}"
            f"{_as_timedelta(value)}"
        )
    return length


def _as_timedelta(value: Any) -> str:
    """Say how a number is written as a timedelta, in the units that may be meant."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    return f"; write timedelta(days={shown(value)}), or timedelta(seconds={shown(value)})"


@_checking
def durability(replicas: Any, fsync: Any, timeout: Any) -> None:
    """Refuse a durability that no server can give, or that asks for nothing."""
    if not isinstance(fsync, bool):
        raise InvalidInput(f"fsync must be True or False, not {shown(fsync)}")
    if whole(replicas, "replicas", least=0) == 0 and not fsync:
        raise InvalidInput("a Durability of no replicas and without fsync asks for nothing: name 1 or more")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT_S:
        raise InvalidInput(f"the time-out of a Durability must be seconds above 0, not {shown(timeout)}")


def shorter_than_a_reply(timeout_s: float, reply_s: float | None) -> None:
    """Refuse a wait for replicas during which the connection would be given up."""
    if reply_s is not None and timeout_s >= reply_s:
        raise InvalidInput(
            f"the time-out of the durability, {timeout_s:g} s, must be shorter than that for a reply, "
            f"{reply_s:g} s; see connect(timeout=Timeout(reply=…)), or the client's socket_timeout"
        )


@_checking
def file(value: Any) -> str:
    """Return the path of a file, as a plain str."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    if not isinstance(path, str) or not 0 < len(os.fsencode(path)) <= MAX_PATH_BYTES or "\0" in path:
        raise InvalidInput(f"a file is named by a path, not {shown(value)}")
    return str.__str__(path)


def is_etag(text: str) -> bool:
    """Say whether this has the form of the etag of a manifest."""
    return _ETAG.fullmatch(text) is not None


def etag(value: Any) -> str:
    """Return a well-formed etag."""
    return _matching(value, _ETAG, "etag", "the etag of a Snapshot or a Commit")
