"""Bases: the records that payloads are stored as differences from, by name, and which of them a log needs.

A base is the content of some snapshot, under a name that has the version which brought it, and the beginning
of its digest. So one name comes into force once: content that returns later is another base. A base in force
stays so until another is brought; until then it is what new snapshots are encoded with.

Rows with the same base are neighbours in the log, but for rows without one. So what a manifest shows of its
log tells whether some row needs a base: the rows in it, and the first and the last base below each reference.
When rows leave, their bases leave with them unless they are still shown, or in force. A row that is served
although it has left the log does not show where its neighbours are: see `prune.retained`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swapstore.errors import Corrupt, PayloadMissing
from swapstore.format import encodings, records
from swapstore.format.keys import base_version
from swapstore.models import Ref, Row, Whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from swapstore.format.encodings import Encoded, Encoding

ENCODINGS = frozenset({"zstd", "zstd+base64"})


# --- the record ------------------------------------------------------------------------------------


class _BaseHeader(msgspec.Struct):
    base: str
    format: Whole
    dataset: str
    size: Whole
    sha256: str
    encoding: str


def pack(name: str, content: Encoded, *, size: int, sha256: str, dataset: str) -> bytes:
    """Build the record of a base, whose content takes `size` bytes and has this digest."""
    header = {
        "base": name,
        "format": records.FORMAT,
        "dataset": dataset,
        "size": size,
        "sha256": sha256,
        "encoding": content.encoding,
    }
    return records.pack(header, content.body)


def begin(name: str) -> bytes:
    """The first bytes of the record of a base."""
    return b'{"base":"%b"' % name.encode()


def parse(record: bytes, name: str, *, dataset: str, key: str) -> encodings.Dictionary:
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
    is_named = header.base == name and name.endswith(f".{header.sha256[:16]}")
    if header.dataset != dataset or not is_named or header.encoding not in ENCODINGS:
        raise Corrupt(f"{key} holds another base than its name says", key=key)
    if header.size > encodings.LARGEST_BASE:
        raise Corrupt(f"{key} says that it holds {header.size:,} bytes, more than any base has", key=key)
    encoding: Encoding = "zstd" if header.encoding == "zstd" else "zstd+base64"
    try:
        content = encodings.decoded(body, encoding, header.size)
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


def span(items: Sequence[Row] | Sequence[Ref]) -> tuple[int, int] | None:
    """The versions that brought the first and the last base of some rows, or below some references."""
    found = list(shown(items))
    return (found[0], found[-1]) if found else None


def shown(items: Iterable[Row | Ref]) -> Iterator[int]:
    """Yield the versions that brought the bases which rows and references show, in their order."""
    for item in items:
        if isinstance(item, Ref):
            yield from item.bases or ()
        elif item.base is not None:
            yield base_version(item.base)
