"""The arguments that several commands take, and how their text is read.

The converters are strict where the parser is not (it would read `--version 1.6` as 2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

from cyclopts import Parameter

_WHOLE = re.compile(r"[+-]?[0-9]+")


class Token(Protocol):
    """What the parser hands to a converter."""

    value: str


def to_whole(_kind: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number."""
    text = tokens[0].value
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number.")
    return int(text)


def to_moment(_kind: Any, tokens: Sequence[Token]) -> int | datetime:
    """Read a time: milliseconds since 1970, or ISO 8601 with an offset."""
    text = tokens[0].value
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise ValueError(
            f"{text!r} is neither milliseconds since 1970 nor ISO 8601 with an offset (2026-01-31T18:00:00Z)."
        )
    return moment


Dataset = Annotated[str, Parameter(help="The dataset's name, for example mena.")]
Whole = Annotated[int, Parameter(converter=to_whole)]
Moment = int | datetime
