"""Bases: the records that payloads are stored as differences from, by name, and which of them a log needs.

A base is the content of some snapshot, under a name that has the version which brought it, and the beginning
of its digest. So one name comes into force once: content that returns later is another base. A base in force
stays so until another is brought; until then it is what new snapshots are encoded with.

A manifest shows the bases of the rows in it. A reference tells the first and the last version that brought a
base which a row below it needs. A row below it may need any base between the two. So when rows leave, their
bases leave with them unless one of the rows that are left may need them, or they are in force.

Bases come into force in the order of their versions, so hardly any base lies between two that a reference
tells. Three things bring another order: history that is stored anew, rows that a repair puts back, and rows
that are served after they have left the log. Then the log is searched; see `protocol/prune.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swapstore.errors import Corrupt, PayloadMissing
from swapstore.format import encodings, records
from swapstore.format.keys import base_version
from swapstore.models import Ref, Row, Whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swapstore.format.encodings import Encoded


# --- the record ------------------------------------------------------------------------------------


class _BaseHeader(msgspec.Struct):
    base: str
    format: Whole
    dataset: str
    size: Whole
    sha256: str
    member: str | None = None


def pack(
    name: str, content: Encoded, *, size: int, sha256: str, dataset: str, member: str | None = None
) -> bytes:
    """Build the record of a base, whose content takes `size` bytes and has this digest.

    Its header does not tell the encoding, so producers at different endpoints can share the record. `member`:
    it is the content of this member of the group whose table is the base.
    """
    header = {
        "base": name,
        **({} if member is None else {"member": member}),
        "format": records.FORMAT,
        "dataset": dataset,
        "size": size,
        "sha256": sha256,
    }
    return records.pack(header, content.body)


def begin(name: str) -> bytes:
    """The first bytes of the record of a base."""
    return b'{"base":"%b"' % name.encode()


def parse(
    record: bytes, name: str, *, dataset: str, key: str, member: str | None = None
) -> encodings.Dictionary:
    """Parse the record of a base, and check it.

    Raises `Corrupt` if the bytes are damaged or of another base; `UnsupportedFormat` if the format is newer.
    """
    line, body = records.split(record, key)
    try:
        header = msgspec.json.decode(line, type=_BaseHeader)
    except records.UNREADABLE as error:
        raise Corrupt(f"{key} is not a base ({error})", key=key) from error
    if header.format > records.FORMAT:
        raise records.newer_format(key, header.format)
    digest = name.partition(".")[2][:16]
    is_named = header.base == name and (member is not None or header.sha256.startswith(digest))
    if header.dataset != dataset or header.member != member or not is_named:
        raise Corrupt(f"{key} holds another base than its name says", key=key)
    if header.size > encodings.LARGEST_BASE:
        raise Corrupt(f"{key} says that it holds {header.size:,} bytes, more than any base has", key=key)
    try:
        content = encodings.decoded(body, encodings.of_frame(body), header.size)
        records.check_body(content, header.size, header.sha256, key)
        return encodings.Dictionary(name, content)
    except ValueError as error:
        raise Corrupt(f"the content of base {key} is damaged: {error}", key=key) from error


def missing(key: str) -> PayloadMissing:
    """Build the error for a base that a record needs and that does not exist."""
    return PayloadMissing(
        f"the base {key} does not exist: it was deleted or evicted, and what is stored as a difference from "
        f"it cannot be read. `swapstore repair` says which snapshots that are; publishing goes on",
        key=key,
    )


# --- which bases a log needs -----------------------------------------------------------------------


def span(items: Iterable[Row] | Iterable[Ref]) -> tuple[int, int] | None:
    """The versions that brought the first and the last base which rows and references show."""
    found = list(_shown(items))
    return (min(first for first, _ in found), max(last for _, last in found)) if found else None


def is_shown(name: str, items: Iterable[Row | Ref]) -> bool:
    """Whether one of these rows, or a row below one of these references, may need a base."""
    version = base_version(name)
    return any(first <= version <= last for first, last in _shown(items))


def lies_between(name: str, refs: Iterable[Ref]) -> bool:
    """Whether only the pages below these references tell if a row below them needs a base."""
    version = base_version(name)
    spans = list(_shown(refs))
    is_told = any(version in span for span in spans)
    return not is_told and any(first < version < last for first, last in spans)


def _shown(items: Iterable[Row | Ref]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last version that brought a base, for each item that shows one."""
    for item in items:
        if isinstance(item, Ref):
            if item.bases is not None:
                yield item.bases
        elif item.base is not None:
            version = base_version(item.base)
            yield version, version
