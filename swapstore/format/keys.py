"""Key names: built and parsed here, and nowhere else.

All keys of a dataset share the hash tag `{<dataset>}`, so that they are in one cluster slot. `arguments`
checks names and ids: none contains a brace or a control character.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from swapstore.errors import Corrupt
from swapstore.structs import Struct

if TYPE_CHECKING:
    from swapstore.models import Entry


class Name(Struct, frozen=True):
    """A parsed key. `rest` is an id, a ts with an id, or the name of a page or of a base.

    `member`: the member of a group that it belongs to; empty: it belongs to no member. For the record of a
    member `rest` names its group (see `group_name`), and for what it is stored against, the base.
    """

    key: str
    kind: str
    dataset: str
    rest: str
    member: str = ""

    @property
    def first_version(self) -> int:
        """The version of the page's first row."""
        return int(self.rest.partition(".")[2].partition("-")[0])

    def spans(self, version: int) -> bool:
        """Whether a version lies between those of the page's first and last row."""
        first, _, last = self.rest.partition(".")[2].partition("-")
        return int(first) <= version <= int(last)

    @property
    def id(self) -> str:
        """The id of an id or ts record, or that of the group of a member."""
        if self.kind == "member":
            return self.rest.rpartition(":")[0]
        return self.rest if self.kind == "id" else self.rest.partition(":")[2]

    @property
    def ts(self) -> int:
        """The ts of a ts record."""
        return int(self.rest.partition(":")[0])


_OURS = re.compile(
    r"(id|ts|member|page|base|live|lease|mark|manifest):\{([A-Za-z0-9][A-Za-z0-9._/-]{0,127})\}(?::(.*))?",
    re.DOTALL,
)
_PAGE = re.compile(r"[0-9a-f]{1,40}\.[0-9]{1,16}-[0-9]{1,16}")
_BASE = re.compile(r"[0-9]{1,16}\.[0-9a-f]{16}g?")
_GROUP_NAME = re.compile(r".+:[0-9a-f]{8}", re.DOTALL)
_OF_MEMBER = re.compile(r"(.+):([A-Za-z0-9][A-Za-z0-9._/-]{0,127})")
_TS = re.compile(r"[0-9]{1,15}:.+")
_GROUP = "g"  # ends the name of a base that members have records of, too


def base_name(version: int, sha256: str, *, of_group: bool = False) -> str:
    """The name of the base that a version brings."""
    return f"{version}.{sha256[:16]}{_GROUP if of_group else ''}"


def group_name(id: str, sha256: str) -> str:  # noqa: A002 - the public name
    """What the keys of a group's members begin with: its id, and the beginning of the digest of its table.

    So members that were staged for another group under this id, which was not committed or left since, have
    other keys.
    """
    return f"{id}:{sha256[:8]}"


def is_of_group(base: str) -> bool:
    """Whether a base has records of members, by its name."""
    return base.endswith(_GROUP)


def check_base(name: str | None, key: str) -> None:
    """Raise `Corrupt` if the record at `key` names a base by what is no name of one."""
    if name is not None and _BASE.fullmatch(name) is None:
        raise Corrupt(f"{key} names a base by an invalid name, {name[:40]!r}", key=key)


def base_version(name: str) -> int:
    """The version that brought a base."""
    return int(name.partition(".")[0])


class Keys(Struct, frozen=True):
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

    def members(self, dataset: str) -> str:
        """The prefix of the keys of all members of a dataset."""
        return f"{self.namespace}:member:{{{dataset}}}:"

    def member(self, dataset: str, group: str, name: str) -> str:
        """The record of a member of a group: see `group_name`."""
        return f"{self.members(dataset)}{group}:{name}"

    def page(self, dataset: str, name: str) -> str:
        """A page of sealed rows or references; its name is `<epoch>.<first>-<last>`."""
        return f"{self.namespace}:page:{{{dataset}}}:{name}"

    def base(self, dataset: str, name: str) -> str:
        """A base, which payloads are stored as differences from; its name is `<version>.<digest>`."""
        return f"{self.namespace}:base:{{{dataset}}}:{name}"

    def member_base(self, dataset: str, name: str, member: str) -> str:
        """What a member of groups is stored as differences from."""
        return f"{self.base(dataset, name)}:{member}"

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
        of_member = _OF_MEMBER.fullmatch(name.rest) if name.kind in {"member", "base"} else None
        if of_member is not None:
            name = Name(key, name.kind, name.dataset, of_member[1], of_member[2])
        return name if _is_whole(name) else None

    def datasets(self) -> str:
        """The set of all names ever published: candidates for a listing, each of which has to be checked."""
        return f"{self.namespace}:datasets"


def _is_whole(name: Name) -> bool:
    """Say whether what follows the dataset in a key is of the form that its kind has."""
    match name.kind:
        case "id":
            return bool(name.rest)
        case "ts":
            return _TS.fullmatch(name.rest) is not None
        case "page":
            return _PAGE.fullmatch(name.rest) is not None
        case "member":
            return bool(name.member) and _GROUP_NAME.fullmatch(name.rest) is not None
        case "base":
            return _BASE.fullmatch(name.rest) is not None and bool(name.member) <= is_of_group(name.rest)
        case _:
            return not name.rest
