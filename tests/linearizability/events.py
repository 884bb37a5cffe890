"""What was observed of a store from outside: who called what, when, and what was returned."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import attrs

Rows = list[tuple[int, str]]  # version and id, oldest first


@attrs.frozen(kw_only=True)
class Event:
    """One call of one client, from `start` to `end` on the machine's monotonic clock (nanoseconds).

    `outcome` is `ok`; `unknown` for a publish that may or may not have happened; `failed` for a publish
    that never will, and for a read without a result. A read with outcome `ok` and version 0 found that
    nothing is published. A publish always has its `id` and `value`.
    """

    client: str
    kind: Literal["publish", "read"]
    start: int
    end: int
    outcome: Literal["ok", "unknown", "failed"] = "ok"
    id: str | None = None
    value: Any = None
    version: int = 0
    etag: str = ""
    created: bool = False
    error: str = ""

    @property
    def seen(self) -> int:
        """The version of the manifest that the store answered with: the etag's (0: there was none)."""
        return int(self.etag.split(".")[1]) if self.etag else 0

    def __str__(self) -> str:
        answer = f"version {self.version}, etag {self.etag or None}" if self.outcome == "ok" else self.outcome
        return f"{self.kind} {self.id or ''} by {self.client} at {self.start}..{self.end} ({answer})"


def to_line(event: Event) -> str:
    return json.dumps(attrs.asdict(event))


def from_line(line: str) -> Event:
    return Event(**json.loads(line))


def save(path: Path, events: Iterable[Event], rows: Rows) -> None:
    """Write a history to a file for analysis: a line for each event, by its start, then the rows."""
    lines = [to_line(event) for event in sorted(events, key=lambda event: event.start)]
    path.write_text("\n".join([*lines, json.dumps({"rows": rows})]) + "\n", "utf-8")
