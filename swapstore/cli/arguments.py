"""Arguments that several commands take, and the converters that parse them.

The converters are stricter than those of cyclopts, which would read `--version 1.6` as 2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

from cyclopts import Parameter

from swapstore import arguments
from swapstore.errors import InvalidInput
from swapstore.models import Retention

STDIN = "<stdin>"  # replaces a lone dash, which cyclopts would take for an option

_WHOLE = re.compile(r"[+-]?[0-9]+")
_SECONDS = re.compile(r"[0-9]{1,8}([.][0-9]{1,6})?")


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
    """Parse a duration, as the library does."""
    try:
        return arguments.duration(tokens[0].value)
    except InvalidInput as error:
        raise ValueError(f"{error}.") from None


def to_seconds(_kind: Any, tokens: Sequence[Token]) -> float:
    """Parse a number of seconds, 0 or more."""
    text = tokens[0].value
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"{text!r} is not a number of seconds, such as 0, 2.5 or 60.")
    return float(text)


def labels_of(pairs: Sequence[str] | None) -> dict[str, str]:
    """Return the labels that `--label KEY=VALUE`, given any number of times, names."""
    return pairs_of("--label", "KEY=VALUE", pairs or ())


def pairs_of(option: str, form: str, pairs: Sequence[str]) -> dict[str, str]:
    """Return what an option of this form, given any number of times, names."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise InvalidInput(f"{option} {pair!r} is not {form}")
        if key in found:
            raise InvalidInput(f"{option} {key!r} is given twice")
        found[key] = value
    return found


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
