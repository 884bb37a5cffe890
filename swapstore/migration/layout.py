"""The keys of the six-command layout: an import reads them, and a mirror writes some of them.

There are four patterns, with placeholders for a region (here: a dataset), an id and a time. A pattern has no
braces but those of its placeholders. swapstore's own keys have braces around the dataset, so no pattern can
name one of them.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import attrs

from swapstore import arguments
from swapstore.arguments import shown
from swapstore.errors import InvalidInput

_PLACEHOLDER = re.compile(r"\{(region|id|ts)\}")
_STANDS_FOR = {"region": "(?P<region>.+)", "id": "(?P<id>.+)", "ts": "(?P<ts>[0-9]{1,18})"}


def _pattern(*placeholders: str) -> Any:
    """Return a validator: each of these placeholders once, and no other brace."""

    def check(_: Any, attribute: Any, value: Any) -> None:
        wanted = " and ".join(f"{{{name}}}" for name in placeholders)
        if not isinstance(value, str) or sorted(_PLACEHOLDER.findall(value)) != sorted(placeholders):
            raise InvalidInput(
                f"{attribute.name} {shown(value)} must contain {wanted} once, and no other placeholder"
            )
        _refuse_braces(attribute.name, _PLACEHOLDER.sub("", value))

    return check


def _check_prefix(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidInput(f"{attribute.name} must be a string, not {type(value).__name__}")
    _refuse_braces(attribute.name, value)


def _refuse_braces(name: str, text: str) -> None:
    if "{" in text or "}" in text:
        raise InvalidInput(f"{name} {shown(text)} may not contain braces except for placeholders")
    if not text.isprintable():
        raise InvalidInput(
            f"{name} {shown(text)} contains a control character, and no key of this layout has one"
        )


def _check_ttl(_: Any, _attribute: Any, value: Any) -> None:
    if value is not None:
        arguments.ttl_ms(value)


def _filled(pattern: str, **names: str) -> str:
    return _PLACEHOLDER.sub(lambda placeholder: names[placeholder[1]], pattern)


@attrs.frozen(kw_only=True)
class _TwoStep:
    """The two keys of a read in two steps: `latest` holds an id, and the by-id key its payload."""

    prefix: str = attrs.field(default="", validator=_check_prefix)
    latest_key: str = attrs.field(default="snapshot:v1:{region}:latest", validator=_pattern("region"))
    by_id_key: str = attrs.field(default="snapshot-by-id:v1:{id}", validator=_pattern("id"))

    def latest(self, region: str) -> str:
        """Return the key that holds the id of the region's latest snapshot."""
        return self._whole(_filled(self.latest_key, region=region))

    def by_id(self, id: str) -> str:  # noqa: A002 - the term of the layout
        """Return the key that holds the payload of a snapshot, by its id."""
        return self._whole(_filled(self.by_id_key, id=id))

    def _whole(self, pattern: str) -> str:
        """Put the prefix in front, and a colon in between unless the prefix ends in one."""
        colon = ":" if self.prefix and not self.prefix.endswith(":") else ""
        return f"{self.prefix}{colon}{pattern}"


@attrs.frozen(kw_only=True)
class Mirror(_TwoStep):
    """Old keys that a store writes after each swap, for readers that have not moved to swapstore yet.

    - `prefix`: the beginning of both keys; a colon is appended unless it ends in one. Default: none.
    - `latest_key`: the pattern of the key with the id of the served snapshot; `{region}` is the dataset.
    - `by_id_key`: the pattern of the key with a snapshot's payload. It does not contain the region, so ids
      must differ between datasets.
    - `ttl`: how long the old keys live after each swap, in seconds or a timedelta. Default: without end. A
      payload lives a minute longer than the key that names it. If nothing is published, confirmed or pinned
      for so long, old readers find nothing.

    Raises `InvalidInput` for a pattern without its placeholder, or with other braces, and for an invalid TTL.
    """

    ttl: float | timedelta | None = attrs.field(default=None, validator=_check_ttl)

    @property
    def ttl_ms(self) -> int | None:
        """`ttl` in milliseconds."""
        return None if self.ttl is None else arguments.ttl_ms(self.ttl)


@attrs.frozen(kw_only=True)
class Layout(_TwoStep):
    """All keys of the old layout: the two of a read, the index, and the payloads by time."""

    index_key: str = attrs.field(default="snapshot-index:v1:{region}", validator=_pattern("region"))
    by_ts_key: str = attrs.field(default="snapshot:v1:{region}:{ts}", validator=_pattern("region", "ts"))

    def index(self, region: str) -> str:
        """Return the key of the region's index, a sorted set."""
        return self._whole(_filled(self.index_key, region=region))

    def by_ts(self, region: str, ts: str) -> str:
        """Return the key that holds the payload of a snapshot, by its time as it is written in the key."""
        return self._whole(_filled(self.by_ts_key, region=region, ts=ts))

    def glob(self) -> str:
        """Return a glob that all keys of the layout match: the common beginning of the patterns."""
        patterns = (self.latest_key, self.by_id_key, self.index_key, self.by_ts_key)
        heads = [pattern.partition("{")[0] for pattern in patterns]
        shortest = min(heads, key=len)
        same = next((i for i, c in enumerate(shortest) if any(head[i] != c for head in heads)), len(shortest))
        return re.sub(r"([*?\[\]\\])", r"\\\1", self._whole(shortest[:same])) + "*"

    def matcher(self, pattern: str) -> re.Pattern[str]:
        """Return a regular expression for the keys of one pattern, with a group for each placeholder."""
        parts = _PLACEHOLDER.split(self._whole(pattern))
        words = (_STANDS_FOR[part] if i % 2 else re.escape(part) for i, part in enumerate(parts))
        return re.compile("".join(words), re.DOTALL)
