"""Checks of arguments: names, times, labels, sizes. Each raises `InvalidInput`, before any write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from swapstore.errors import InvalidInput, PayloadTooLarge

MAX_TS_MS = 253_402_300_799_999  # the end of the year 9999, the last one that datetime supports
MAX_LABELS_BYTES = 1024
LONGEST_SHOWN = 80
MIN_LIVE_TTL_S = 0.001
MAX_LIVE_TTL_S = 366 * 86_400
MIN_POLL_S = 0.001
MAX_POLL_S = 86_400
MAX_TIMEOUT_S = 366 * 86_400
INFINITY = float("inf")

_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
_ID = re.compile(r"[A-Za-z0-9._:/@+-]{1,200}")
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


def _matching(value: Any, pattern: re.Pattern[str], what: str, rule: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return str.__str__(value)  # a plain string: an enum member would show its own name in a key
    raise InvalidInput(f"{what} {shown(value)} is not allowed; use {rule}")


def shown(value: Any) -> str:
    """Return the text of a value for a message; of a long one, the beginning."""
    try:
        text = repr(value)
    except ValueError:  # an int of more than 4300 digits
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:60]}… ({len(text)} characters)"


def timestamp_ms(value: Any, what: str = "ts") -> int:
    """Return milliseconds since the Unix epoch, from an int of them or an aware datetime."""
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise InvalidInput(
                f"{what} {value.isoformat()} is a naive datetime; give it a timezone (datetime.UTC)"
            )
        value = (value - _EPOCH) // timedelta(milliseconds=1)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(
            f"{what} must be an aware datetime or an int of milliseconds since 1970, "
            f"not {type(value).__name__}"
        )
    if not 0 <= value <= MAX_TS_MS:
        raise InvalidInput(
            f"{what} {shown(value)} is not between 1970 and 9999 in milliseconds "
            "(micro- or nanoseconds, perhaps?)"
        )
    return value


def labels(value: Any) -> dict[str, str]:
    """Return a copy of the labels: a dict of strings to strings, at most 1 KiB as JSON, sorted by key."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"labels must be a mapping of strings to strings, not {type(value).__name__}")
    if not value:
        return {}
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise InvalidInput(f"label {key!r} must be a string with a string value; convert it with str()")
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


def expected_version(value: Any) -> int:
    """Return an expected version: an int of 0 (nothing is published) or more."""
    return whole(value, "expected_version", least=0)


def whole(value: Any, what: str, *, least: int) -> int:
    """Return an int that is at least `least`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise InvalidInput(f"{what} must be a whole number, {least} or more, not {shown(value)}")


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


def staleness_s(value: Any) -> float:
    """Return a staleness bound in seconds, from seconds or a timedelta."""
    if type(value) is float and 0 <= value < INFINITY:
        return value
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < INFINITY:
        raise InvalidInput(f"max_staleness must be 0 or more seconds, or a timedelta, not {shown(value)}")
    return float(seconds)


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


def timeout_s(value: Any, what: str) -> float:
    """Return a time-out in seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_TIMEOUT_S:
        raise InvalidInput(
            f"{what} must be a number of seconds above 0, at most 366 days, or Timeout(connect=…, reply=…, "
            f"total=…), not {shown(value)}"
        )
    return float(value)


def payload_size(size_bytes: int, limit_bytes: int) -> None:
    """Raise `PayloadTooLarge` for a payload over the limit."""
    if size_bytes > limit_bytes:
        raise PayloadTooLarge(
            f"the payload has {size_bytes:,} bytes, max_payload is {limit_bytes:,}; "
            "publish less, or raise max_payload in connect()",
            size_bytes=size_bytes,
            limit_bytes=limit_bytes,
        )


def retention(max_age: Any, max_count: Any) -> None:
    """Refuse invalid bounds: an age must be 1 ms or more, a count 1 or more."""
    if max_age is not None and (not isinstance(max_age, timedelta) or max_age < timedelta(milliseconds=1)):
        raise InvalidInput(f"max_age must be a timedelta of 1 ms or more, not {shown(max_age)}")
    if max_count is not None:
        whole(max_count, "max_count", least=1)


def etag(value: Any) -> str:
    """Return a well-formed etag."""
    return _matching(value, _ETAG, "etag", "the etag of a Snapshot or a Commit")
