"""One response: which representation of a snapshot, or that the client has it already.

Strong entity tags name bytes, so they are made of digests: `"<sha256>"` is the payload itself, and
`"<sha256>.zstd.<crc32>"` one zstd frame of it. A version that is served again, by a pin or a rollback, has
its old tag, and a `confirm` changes none. Two servers may have different frames of one payload; each has a
tag of its own, and a client that has any of them, and takes zstd, is up to date.

A date is compared for equality only, because a rollback brings an older one. Two commits may have the same
second, so a date is sent when a minute has passed: producers whose clocks agree within that cannot add
another commit of that second. Nor is one sent if the manifest was swapped since: after a rollback, a later
commit may have the date of what is served.
"""

from __future__ import annotations

import hashlib
import math
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import attrs
import msgspec

from swapstore.cache import version_of
from swapstore.errors import InvalidInput, NotFound, SwapstoreError, Throttled, TooStale, Unavailable
from swapstore.http import frames
from swapstore.http.headers import Asked
from swapstore.models import Group, Snapshot

if TYPE_CHECKING:
    from swapstore.http.headers import Headers

RETRY_AFTER_S = 5
DATED_AFTER_MS = 60_000
JSON, BYTES = "application/json", "application/octet-stream"


@attrs.frozen
class Response:
    """A response, for any framework: its status, its headers, and its body.

    For a `HEAD` request the body is empty, and the headers are those of the response to `GET`.
    """

    status: int
    headers: dict[str, str]
    body: bytes = attrs.field(repr=False)


def response(
    found: Snapshot | SwapstoreError | None,
    request_headers: Headers,
    *,
    method: str = "GET",
    member: str | None = None,
    cache_control: str = "no-cache",
    content_type: str | None = None,
) -> Response:
    """Answer a `GET` or `HEAD` request with a snapshot: 200 with its bytes, or 304 if the client has them.

    - `found`: what a read returned, or the error that it raised. None (nothing is published), `NotFound` and
      `InvalidInput` (no dataset or member has such a name): 404. `Unavailable` and `TooStale`: 503 with
      `Retry-After`. Any other error is raised again, because somebody has to look at it, and so is an
      `InvalidInput` that is `misused`: the store or view is closed, not started, or of another event loop.
    - `request_headers`: a mapping of names to values, or pairs of them. Names may be in any case. A header
      that cannot be parsed counts as not sent.
    - `method`: for `HEAD` the body is empty.
    - `member`: answer with this member of a `Group`. Without it, a group is a JSON object of its members by
      name; 404 if one of them is not JSON.
    - `cache_control`: the header of that name. Default: caches ask before each use whether it is current.
    - `content_type`: default: `application/json`, or `application/octet-stream` for the codec `bytes`.

    `ETag` is the SHA-256 of the payload. The payload is sent as `Content-Encoding: zstd` to a client whose
    `Accept-Encoding` names zstd, if that is smaller; this has an `ETag` of its own. `If-None-Match` and
    `If-Modified-Since` are evaluated; conditions for writing and ranges are not. A snapshot that is `stale`
    has its `Age`, since the store last showed it, and no cache may use it without asking: of `cache_control`,
    only `private` and `no-store` are left.
    """
    if found is None:
        return _problem(404, "Nothing is published", method)
    if isinstance(found, SwapstoreError):
        return _refusal(found, method)
    content = _content(found, member)
    if content is None:
        return _problem(404, "There is no such member, or one has to be named", method)
    asked = Asked.of(request_headers)
    common = {"Cache-Control": cache_control, "Vary": "Accept-Encoding"}
    if found.stale:
        age_s = max(0, _now_ms() - found.seen_at) // 1000
        common |= {"Cache-Control": _revalidated(cache_control), "Age": str(age_s)}
    known = next((tag for tag in asked.tags if content.has(tag, zstd=asked.takes_zstd)), None)
    if known is not None:
        return Response(304, {"ETag": known, **common}, b"")
    frame = frames.frame_of(content.name, content.size, content.body) if asked.takes_zstd else None
    etag = content.etag if frame is None else f'{content.zstd}{frame[1]:08x}"'
    date = _last_modified(found)
    if asked.anything or (asked.none_match is None and date is not None and asked.modified_since == date):
        return Response(304, {"ETag": etag, **common}, b"")
    headers = {"ETag": etag, **common, "Content-Type": content_type or content.type}
    if date is not None:
        headers["Last-Modified"] = date
    if frame is not None:
        headers["Content-Encoding"] = "zstd"
    return whole(200, headers, content.body() if frame is None else frame[0], method)


def is_quick(found: Snapshot | SwapstoreError | None, member: str | None) -> bool:
    """Whether `response` takes no time that an event loop would notice: it has nothing large to compress."""
    if not isinstance(found, Snapshot):
        return True
    content = _content(found, member)
    return content is None or frames.is_quick(content.name, content.size)


def has_tag(found: Snapshot, tag: str) -> bool:
    """Whether a strong entity tag names a representation of a snapshot that `response` sends."""
    content = _content(found, None)
    return content is not None and content.has(tag, zstd=True)


# --- what is sent -----------------------------------------------------------------------------------


@attrs.frozen
class _Content:
    """What is sent, and a name for its bytes. `parts`: joined, they are the bytes."""

    name: str
    type: str
    parts: list[bytes]

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))

    @property
    def etag(self) -> str:
        return f'"{self.name}"'

    @property
    def zstd(self) -> str:
        """How the etag of each frame of it begins."""
        return f'"{self.name}.zstd.'

    def has(self, tag: str, *, zstd: bool) -> bool:
        """Whether an entity tag of a client names these bytes, or a frame of them, if it takes `zstd`."""
        return tag == self.etag or (zstd and tag.startswith(self.zstd))

    def body(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


def _content(found: Snapshot, member: str | None) -> _Content | None:
    """Return what is sent of a snapshot. None: it has no such member, or is a group that is not all JSON."""
    if member is None and isinstance(found, Group):
        return _object(found)
    one = found if member is None else found.members.get(member)
    return None if one is None else _Content(one.sha256, JSON if one.codec == "json" else BYTES, [one.raw])


def _object(group: Group) -> _Content | None:
    """Return the members of a group as one JSON object, without a copy of them."""
    parts: list[bytes] = []
    names = hashlib.sha256()
    for name, member in group.members.items():
        if member.codec != "json":
            return None
        parts += [b"," if parts else b"{", msgspec.json.encode(name), b":", member.raw]
        names.update(f"{name}:{member.sha256}\n".encode())
    return _Content(f"group.{names.hexdigest()}", JSON, [*(parts or [b"{"]), b"}"])


def _revalidated(cache_control: str) -> str:
    """Return the header by which no cache uses a response without asking, nor keeps what it may not keep."""
    names = {each.partition("=")[0].strip().lower() for each in cache_control.split(",")}
    return ", ".join(["no-cache", *(name for name in ("no-store", "private") if name in names)])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _last_modified(found: Snapshot) -> str | None:
    """Return the time of the commit. None: another one may follow within the same second, or have followed.

    One may have followed if the manifest was swapped since the commit: by a rollback, or by any other call.
    """
    if version_of(found.etag) != found.version:
        return None
    if not 0 <= found.committed_at <= time.time() * 1000 - DATED_AFTER_MS:
        return None
    return formatdate(found.committed_at // 1000, usegmt=True)


# --- what is not sent -------------------------------------------------------------------------------


def _refusal(error: SwapstoreError, method: str) -> Response:
    """Return what a client is told of an error. Addresses and advice in its message are for operators."""
    if isinstance(error, Unavailable):
        wait_s = error.retry_after_s if isinstance(error, Throttled) else None
        retry = {"Retry-After": str(RETRY_AFTER_S if wait_s is None else math.ceil(wait_s))}
        return _problem(503, "The store cannot be reached", method, retry)
    if isinstance(error, TooStale):
        return _problem(503, "The data is too old", method, {"Retry-After": str(RETRY_AFTER_S)})
    if isinstance(error, NotFound) or (isinstance(error, InvalidInput) and not error.misused):
        return _problem(404, "There is no such dataset or member", method)
    raise error


def _problem(status: int, title: str, method: str, more: dict[str, str] | None = None) -> Response:
    """Return an error as RFC 9457 has it, which no cache keeps."""
    headers = {"Content-Type": "application/problem+json", "Cache-Control": "no-store", **(more or {})}
    return whole(status, headers, msgspec.json.encode({"status": status, "title": title}), method)


def whole(status: int, headers: dict[str, str], body: bytes, method: str) -> Response:
    """Return a response with its length; without the body for `HEAD`."""
    headers["Content-Length"] = str(len(body))
    return Response(status, headers, b"" if method == "HEAD" else body)
