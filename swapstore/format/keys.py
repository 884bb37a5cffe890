"""Key names: built and parsed here, and nowhere else.

All keys of a dataset share the hash tag `{<dataset>}`, so that they are in one cluster slot. `arguments`
checks names and ids: none contains a brace or a control character.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from swapstore.errors import Corrupt

if TYPE_CHECKING:
    from swapstore.models import Entry


@attrs.frozen
class Name:
    """A parsed key. `rest` is an id, a ts with an id, or the name of a page or of a base."""

    key: str
    kind: str
    dataset: str
    rest: str

    @property
    def first_version(self) -> int:
        """The version of the page's first row."""
        return int(self.rest.partition(".")[2].partition("-")[0])

    def spans(self, version: int) -> bool:
        """Whether a version lies between those of the page's first and last row."""
        first, _, last = self.rest.partition(".")[2].partition("-")
        return int(first) <= version <= int(last)

    @property
    def ts_and_id(self) -> tuple[int, str]:
        """The ts and the id of a ts record."""
        ts, _, id = self.rest.partition(":")  # noqa: A001
        return int(ts), id


_OURS = re.compile(
    r"(id|ts|page|base|live|lease|mark|manifest):\{([A-Za-z0-9][A-Za-z0-9._/-]{0,127})\}(?::(.*))?", re.DOTALL
)
_PAGE = re.compile(r"[0-9a-f]{1,40}\.[0-9]{1,16}-[0-9]{1,16}")
_BASE = re.compile(r"[0-9]{1,16}\.[0-9a-f]{16}")


def base_name(version: int, sha256: str) -> str:
    """The name of the base that a version brings."""
    return f"{version}.{sha256[:16]}"


def check_base(name: str | None, key: str) -> None:
    """Raise `Corrupt` if the record at `key` names a base by what is no name of one."""
    if name is not None and _BASE.fullmatch(name) is None:
        raise Corrupt(f"{key} names a base by an invalid name, {name[:40]!r}", key=key)


def base_version(name: str) -> int:
    """The version that brought a base."""
    return int(name.partition(".")[0])


@attrs.frozen
class Keys:
    """The keys of one namespace."""

    namespace: str

    def manifest(self, dataset: str) -> str:
        """The manifest. Setting this key is the commit point."""
        return f"{self.namespace}:manifest:{{{dataset}}}"

    def id(self, dataset: str, id: str) -> str:  # noqa: A002 - the public name
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

    def base(self, dataset: str, name: str) -> str:
        """A base, which payloads are stored as differences from; its name is `<version>.<digest>`."""
        return f"{self.namespace}:base:{{{dataset}}}:{name}"

    @staticmethod
    def beside(manifest: str) -> str:
        """The prefix of the keys of a dataset's pages, derived from the key of its manifest."""
        namespace, _, dataset = manifest.rpartition(":manifest:")
        return f"{namespace}:page:{dataset}:"

    def live(self, dataset: str) -> str:
        """The live view."""
        return f"{self.namespace}:live:{{{dataset}}}"

    def lease(self, dataset: str) -> str:
        """The lease: which writer may commit, on an endpoint without scripts and without compare-and-set."""
        return f"{self.namespace}:lease:{{{dataset}}}"

    def mark(self, dataset: str) -> str:
        """Written before a wait for replicas that follows no commit: a server waits only for writes."""
        return f"{self.namespace}:mark:{{{dataset}}}"

    def all(self, dataset: str | None) -> str:
        """A pattern that matches every key of the namespace or of a dataset. It may match other keys too."""
        return f"{self.namespace}:*" if dataset is None else f"{self.namespace}:*:{{{dataset}}}*"

    def parse(self, key: str) -> Name | None:
        """Parse a key; None if it is not the key of a record in this namespace."""
        found = _OURS.fullmatch(key.removeprefix(f"{self.namespace}:"))
        if found is None or not key.startswith(f"{self.namespace}:"):
            return None
        name = Name(key, found[1], found[2], found[3] or "")
        whole = {
            "id": bool(name.rest),
            "ts": re.fullmatch(r"[0-9]{1,15}:.+", name.rest) is not None,
            "page": _PAGE.fullmatch(name.rest) is not None,
            "base": _BASE.fullmatch(name.rest) is not None,
        }
        return name if whole.get(name.kind, not name.rest) else None

    def datasets(self) -> str:
        """The set of all names ever published: candidates for a listing, each of which has to be checked."""
        return f"{self.namespace}:datasets"
