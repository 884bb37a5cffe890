"""Who may do what: tokens, and the sessions of browsers that have shown one.

A client sends a token as `Authorization: Bearer …`. A browser shows it once, in a form, and gets a cookie:
an expiry date, and a MAC of it under the token, so that nothing has to be kept. Tokens are compared in
constant time, and never shown, not even in a `repr`.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import time

import attrs
from starlette.requests import Request

from swapstore.errors import InvalidInput

COOKIE = "swapstore"
SESSION_S = 12 * 3600
SHORTEST_TOKEN = 16
_TOKEN = re.compile(rf"[!-~]{{{SHORTEST_TOKEN},}}")  # what a header can carry


class Role(enum.IntEnum):
    """What a client may do; each role includes the ones before."""

    NOBODY = 0
    READER = 1
    WRITER = 2


def is_bearer(request: Request) -> bool:
    """Whether a request has a token in its headers, right or wrong. Then its cookie does not count."""
    return request.headers.get("authorization", "").partition(" ")[0].lower() == "bearer"


def _digest(token: str | None) -> bytes | None:
    return None if token is None else hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@attrs.frozen(kw_only=True)
class Access:
    """The rules: whether anybody may write, and which tokens readers and writers have.

    Only digests of the tokens are held. Without a token of readers, everybody who reaches the site may read.
    """

    allow_writes: bool
    writer: bytes | None = attrs.field(repr=False)
    reader: bytes | None = attrs.field(repr=False)

    @classmethod
    def of(cls, *, allow_writes: bool, token: str | None, read_token: str | None) -> Access:
        """Check tokens, and keep their digests. Raises `InvalidInput`, which does not quote them."""
        for name, given in (("token", token), ("read_token", read_token)):
            if given is not None and (not isinstance(given, str) or not _TOKEN.fullmatch(given)):
                raise InvalidInput(
                    f"{name} must be a text of {SHORTEST_TOKEN} characters or more that nobody can guess, in "
                    "ASCII, without spaces and line ends, such as that of: openssl rand -hex 32"
                )
        if token is not None and token == read_token:
            raise InvalidInput("token and read_token must differ: with one token, all readers could write")
        if allow_writes and token is None:
            raise InvalidInput(
                "writing needs a token, so that not everybody who reaches the site can publish: set "
                "SWAPSTORE_TOKEN, or give token="
            )
        return cls(allow_writes=allow_writes, writer=_digest(token), reader=_digest(read_token))

    def role_of(self, request: Request) -> Role:
        """Return the role of the client that sent a request."""
        anybody = Role.NOBODY if self.reader else Role.READER
        if is_bearer(request):
            token = request.headers["authorization"].partition(" ")[2]
            return max(anybody, self.role_by_token(token.strip()))
        return max(anybody, self._role_by_session(request.cookies.get(COOKIE, "")))

    def tells_all(self, request: Request) -> bool:
        """Whether a client may read what names the store: where it is, and why it cannot be read.

        Not if there is a token, but none for readers, and the client has not shown it: anybody may read then.
        """
        return self.reader is not None or self.writer is None or self.role_of(request) is Role.WRITER

    def role_by_token(self, token: str) -> Role:
        """Return the role of who knows a token. Both are compared, so that time tells nothing."""
        shown = _digest(token) or b""
        is_writer = hmac.compare_digest(shown, self.writer or b"")
        is_reader = hmac.compare_digest(shown, self.reader or b"")
        if is_writer and self.writer:
            return Role.WRITER
        return Role.READER if is_reader and self.reader else Role.NOBODY

    def session(self, role: Role) -> str:
        """Return the value of the cookie of a browser that has shown the token of this role."""
        expires = int(time.time()) + SESSION_S
        return f"{role.value}.{expires}.{self._mac(role, expires)}"

    def _role_by_session(self, cookie: str) -> Role:
        parts = cookie.split(".")
        if len(parts) != 3 or parts[0] not in {"1", "2"} or not (parts[1].isdecimal() and parts[1].isascii()):  # noqa: PLR2004
            return Role.NOBODY
        role, expires = Role(int(parts[0])), int(parts[1][:15])
        mac = self._mac(role, expires)
        if not mac or not hmac.compare_digest(mac.encode(), parts[2].encode("utf-8", "surrogateescape")):
            return Role.NOBODY
        return role if time.time() < expires else Role.NOBODY

    def _mac(self, role: Role, expires: int) -> str:
        key = self.writer if role is Role.WRITER else self.reader
        return hmac.digest(key, f"session.{role.value}.{expires}".encode(), "sha256").hex() if key else ""
