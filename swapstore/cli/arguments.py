"""Arguments that several commands take, and the converters that parse them.

The converters are stricter than those of cyclopts, which would read `--version 1.6` as 2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

from cyclopts import Parameter

from swapstore.errors import InvalidInput
from swapstore.models import Retention

_WHOLE = re.compile(r"[+-]?[0-9]+")
_SECONDS = re.compile(r"[0-9]{1,8}([.][0-9]{1,6})?")
_DURATION = re.compile(r"([0-9]+)([dhms])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


class Token(Protocol):
    """What cyclopts passes to a converter."""

    value: str


def to_whole(_kind: Any, tokens: Sequence[Token]) -> int:
    """Parse a whole number."""
    text = tokens[0].value
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number.")
    return int(text)


def to_moment(_kind: Any, tokens: Sequence[Token]) -> int | datetime:
    """Parse a time: milliseconds since 1970, or ISO 8601 with an offset."""
    text = tokens[0].value
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise ValueError(
            f"{text!r} is neither milliseconds since 1970 nor ISO 8601 with an offset ({_completed(text)})."
        )
    return moment


def _completed(text: str) -> str:
    """Return what a person may have meant by a date, or by a time without an offset; else an example."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return "2026-01-31T18:00:00Z"
    date_alone = len(text) <= len("2026-01-31")
    return f"{moment.isoformat()}Z{', in UTC, its beginning' if date_alone else ', in UTC'}"


def to_duration(_kind: Any, tokens: Sequence[Token]) -> timedelta:
    """Parse a duration: a whole number of 1 or more and its unit, one of d, h, m and s."""
    text = tokens[0].value
    match = _DURATION.fullmatch(text)
    if match is None or not int(match[1]):
        raise ValueError(f"{text!r} is not a duration: 1 or more and d, h, m or s (90d, 12h, 30m, 45s).")
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except (OverflowError, ValueError):
        raise ValueError(f"{text!r} is too long a duration.") from None


def to_seconds(_kind: Any, tokens: Sequence[Token]) -> float:
    """Parse a number of seconds, 0 or more."""
    text = tokens[0].value
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"{text!r} is not a number of seconds, such as 0, 2.5 or 60.")
    return float(text)


def labels_of(pairs: Sequence[str] | None) -> dict[str, str]:
    """Return the labels that `--label KEY=VALUE`, given any number of times, names."""
    labels: dict[str, str] = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise InvalidInput(f"--label {pair!r} is not KEY=VALUE")
        if key in labels:
            raise InvalidInput(f"--label {key!r} is given twice")
        labels[key] = value
    return labels


def retention_of(max_age: timedelta | None, max_count: int | None) -> Retention | None:
    """Return the retention that the two options ask for; None if neither was given."""
    if max_age is None and max_count is None:
        return None
    return Retention(max_age=max_age, max_count=max_count)


Dataset = Annotated[str, Parameter(help="The dataset's name, for example mena.")]
Moment = int | datetime
SnapshotId = Annotated[
    str | None, Parameter(name="--id", help="The snapshot's id; `swapstore history` lists them.")
]
Version = Annotated[
    int | None, Parameter(converter=to_whole, help="The snapshot that was committed as this version.")
]
MaxAge = Annotated[
    timedelta | None,
    Parameter(
        converter=to_duration,
        help="Keep snapshots whose ts is not older than this: 90d, 12h, 30m, 45s.",
    ),
]
MaxCount = Annotated[
    int | None, Parameter(converter=to_whole, help="Keep this many snapshots: those committed last.")
]
