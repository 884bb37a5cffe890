"""The one place that knows key names.

All keys of a dataset share the hash tag `{<dataset>}`, so that they live in one cluster slot. Names and
ids are checked elsewhere: none can hold a brace or a control character.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from swapstore.models import Entry


@attrs.frozen
class Name:
    """What a key says about itself: `rest` is an id, a ts with an id, or a page's name."""

    key: str
    kind: str
    dataset: str
    rest: str

    @property
    def first_version(self) -> int:
        """The version of the first row, in the name of a page."""
        return int(self.rest.partition(".")[2].partition("-")[0])

    @property
    def ts_and_id(self) -> tuple[int, str]:
        """The moment and the id in the name of a ts record."""
        ts, _, id = self.rest.partition(":")  # noqa: A001
        return int(ts), id


_OURS = re.compile(
    r"(id|ts|page|live|lease|manifest):\{([A-Za-z0-9][A-Za-z0-9._/-]{0,127})\}(?::(.*))?", re.DOTALL
)
_PAGE = re.compile(r"([0-9a-f]+)\.([0-9]+)-([0-9]+)")


@attrs.frozen
class Keys:
    """The keys of one namespace."""

    namespace: str

    def manifest(self, dataset: str) -> str:
        """The commit point."""
        return f"{self.namespace}:manifest:{{{dataset}}}"

    def id(self, dataset: str, id: str) -> str:  # noqa: A002 - the design's term
        """The record that holds a snapshot's entry and payload."""
        return f"{self.namespace}:id:{{{dataset}}}:{id}"

    def ts(self, dataset: str, ts: int, id: str) -> str:  # noqa: A002
        """The record that holds a snapshot's entry alone, by time."""
        return f"{self.namespace}:ts:{{{dataset}}}:{ts}:{id}"

    def records(self, dataset: str, entry: Entry) -> tuple[str, str]:
        """The id record and the ts record of an entry."""
        return self.id(dataset, entry.id), self.ts(dataset, entry.ts, entry.id)

    def page(self, dataset: str, name: str) -> str:
        """A page of sealed rows or references; its name is `<epoch>.<first>-<last>`."""
        return f"{self.namespace}:page:{{{dataset}}}:{name}"

    @staticmethod
    def beside(manifest: str) -> str:
        """What the keys of a dataset's pages begin with, told by the key of its manifest."""
        namespace, _, dataset = manifest.rpartition(":manifest:")
        return f"{namespace}:page:{dataset}:"

    def live(self, dataset: str) -> str:
        """The live view."""
        return f"{self.namespace}:live:{{{dataset}}}"

    def lease(self, dataset: str) -> str:
        """Who commits where neither a script nor a compare-and-set does."""
        return f"{self.namespace}:lease:{{{dataset}}}"

    def all(self, dataset: str | None) -> str:
        """A pattern that every key of the namespace, or of a dataset, matches, and some others may."""
        return f"{self.namespace}:*" if dataset is None else f"{self.namespace}:*:{{{dataset}}}*"

    def parse(self, key: str) -> Name | None:
        """Read a key; None if it is no record of this namespace."""
        found = _OURS.fullmatch(key.removeprefix(f"{self.namespace}:"))
        if found is None or not key.startswith(f"{self.namespace}:"):
            return None
        name = Name(key, found[1], found[2], found[3] or "")
        whole = {
            "id": bool(name.rest),
            "ts": re.fullmatch(r"[0-9]{1,15}:.+", name.rest) is not None,
            "page": _PAGE.fullmatch(name.rest) is not None,
        }
        return name if whole.get(name.kind, not name.rest) else None

    def datasets(self) -> str:
        """The set of names ever published: a hint for listing, never trusted alone."""
        return f"{self.namespace}:datasets"
