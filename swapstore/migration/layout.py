"""The keys of the layout that swapstore replaces: what a mirror writes, and what an import reads.

Four patterns, with placeholders for a region (here: a dataset), an id and a time. A placeholder is the only
thing in braces: swapstore's own keys have braces around the dataset, so a pattern never names one of them.
"""

from __future__ import annotations

import re
from typing import Any

import attrs

from swapstore.arguments import shown
from swapstore.errors import InvalidInput

_PLACEHOLDER = re.compile(r"\{(region|id|ts)\}")
_STANDS_FOR = {"region": "(?P<region>.+)", "id": "(?P<id>.+)", "ts": "(?P<ts>[0-9]{1,18})"}


def _pattern(*placeholders: str) -> Any:
    """Return a check: each of these placeholders once, and no other brace."""

    def check(_: Any, attribute: Any, value: Any) -> None:
        wanted = " and ".join(f"{{{name}}}" for name in placeholders)
        if not isinstance(value, str) or sorted(_PLACEHOLDER.findall(value)) != sorted(placeholders):
            raise InvalidInput(f"{attribute.name} {shown(value)} must hold {wanted}, once, and no other")
        _refuse_braces(attribute.name, _PLACEHOLDER.sub("", value))

    return check


def _check_prefix(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidInput(f"{attribute.name} must be a string, not {type(value).__name__}")
    _refuse_braces(attribute.name, value)


def _refuse_braces(name: str, text: str) -> None:
    if "{" in text or "}" in text:
        raise InvalidInput(f"{name} {shown(text)} may not hold braces but for a placeholder")
    if not text.isprintable():
        raise InvalidInput(f"{name} {shown(text)} holds a control character, which no key of this layout has")


def _filled(pattern: str, **names: str) -> str:
    return _PLACEHOLDER.sub(lambda placeholder: names[placeholder[1]], pattern)


@attrs.frozen(kw_only=True)
class _TwoStep:
    """The two keys that a reader in two steps takes: `latest` holds an id, the by-id key the payload."""

    prefix: str = attrs.field(default="", validator=_check_prefix)
    latest_key: str = attrs.field(default="snapshot:v1:{region}:latest", validator=_pattern("region"))
    by_id_key: str = attrs.field(default="snapshot-by-id:v1:{id}", validator=_pattern("id"))

    def latest(self, region: str) -> str:
        """The key that holds the id of the region's latest snapshot."""
        return self._whole(_filled(self.latest_key, region=region))

    def by_id(self, id: str) -> str:  # noqa: A002 - the design's term
        """The key that holds the payload of a snapshot, by its id."""
        return self._whole(_filled(self.by_id_key, id=id))

    def _whole(self, pattern: str) -> str:
        """Put the prefix in front, with a colon between them unless it ends in one."""
        colon = ":" if self.prefix and not self.prefix.endswith(":") else ""
        return f"{self.prefix}{colon}{pattern}"


@attrs.frozen(kw_only=True)
class Mirror(_TwoStep):
    """Old keys to write after each swap, for readers that have not moved to swapstore yet.

    - `prefix`: in front of both keys; a colon is put behind it unless it ends in one.
    - `latest_key`: holds the id of the snapshot that is served; `{region}` is the dataset.
    - `by_id_key`: holds a snapshot's payload. It has no region in it, so ids must differ between datasets.

    Raises `InvalidInput` for a pattern without its placeholder.
    """


@attrs.frozen(kw_only=True)
class Layout(_TwoStep):
    """All keys of the old layout: those of the two steps, the index, and payloads by time."""

    index_key: str = attrs.field(default="snapshot-index:v1:{region}", validator=_pattern("region"))
    by_ts_key: str = attrs.field(default="snapshot:v1:{region}:{ts}", validator=_pattern("region", "ts"))

    def index(self, region: str) -> str:
        """The key of the region's index, a sorted set."""
        return self._whole(_filled(self.index_key, region=region))

    def by_ts(self, region: str, ts: str) -> str:
        """The key that holds the payload of a snapshot, by its time as it is written in the key."""
        return self._whole(_filled(self.by_ts_key, region=region, ts=ts))

    def glob(self) -> str:
        """Return a glob that all keys of the layout match: what the patterns begin with in common."""
        patterns = (self.latest_key, self.by_id_key, self.index_key, self.by_ts_key)
        heads = [pattern.partition("{")[0] for pattern in patterns]
        shortest = min(heads, key=len)
        same = next((i for i, c in enumerate(shortest) if any(head[i] != c for head in heads)), len(shortest))
        return re.sub(r"([*?\[\]\\])", r"\\\1", self._whole(shortest[:same])) + "*"

    def matcher(self, pattern: str) -> re.Pattern[str]:
        """Return an expression that tells a key of one of the patterns apart, and what it names."""
        parts = _PLACEHOLDER.split(self._whole(pattern))
        words = (_STANDS_FOR[part] if i % 2 else re.escape(part) for i, part in enumerate(parts))
        return re.compile("".join(words), re.DOTALL)
