"""What a caller wants published, and what it becomes on a given manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.models import Encoding, Entry, Validator

if TYPE_CHECKING:
    from swapstore.format.manifest import Manifest


@attrs.frozen(kw_only=True)
class Publication:
    """What a caller wants published, checked and encoded. None for `id` and `ts`: choose them."""

    dataset: str
    payload: bytes = attrs.field(repr=False)
    codec: str
    id: str | None = None
    ts: int | None = None
    labels: dict[str, str] = attrs.field(factory=dict)
    dedupe_key: str | None = None
    expected_version: int | None = None
    validate: Validator | None = None


@attrs.frozen
class Intent:
    """A publication with its id and digest, and when it began."""

    wanted: Publication
    id: str
    sha256: str
    began_ms: int
    encoding: Encoding | None = None

    def ts(self, base: Manifest | None) -> int:
        """Return when it is of. Unless the caller set that it is now, and never older than `latest`.

        So what is published last without a `ts` is the latest, also when two producers' clocks differ.
        """
        if self.wanted.ts is not None:
            return self.wanted.ts
        return max(self.began_ms, base.head.latest.ts if base else 0)

    def entry(self, base: Manifest | None) -> Entry:
        """Describe the snapshot."""
        return Entry(
            id=self.id,
            ts=self.ts(base),
            size=len(self.wanted.payload),
            sha256=self.sha256,
            codec=self.wanted.codec,
            encoding=self.encoding,
            labels=self.wanted.labels,
        )

    def is_content_of(self, row: Entry) -> bool:
        """Say whether an entry is what the caller wants published under this id."""
        wanted = self.wanted
        ours = (self.sha256, len(wanted.payload), wanted.codec, wanted.labels)
        return (row.sha256, row.size, row.codec, row.labels) == ours and wanted.ts in {None, row.ts}
