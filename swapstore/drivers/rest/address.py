"""Where a REST endpoint is, and the token for it. No error here quotes an address: it may hold a secret."""

from __future__ import annotations

import ipaddress
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs

from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from urllib.parse import SplitResult

URL_VARIABLE = "UPSTASH_REDIS_REST_URL"
TOKEN_VARIABLE = "UPSTASH_REDIS_REST_TOKEN"  # noqa: S105 - a name
SCHEMES = ("https", "http")
_PORTS = {"https": 443, "http": 80}


@attrs.frozen(kw_only=True)
class Address:
    """An endpoint. `where` is its name in messages: scheme, host, and the port if it is unusual."""

    scheme: str
    host: str
    port: int
    path: str = attrs.field(repr=False)
    token: str = attrs.field(repr=False)

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def where(self) -> str:
        """The endpoint's name in messages."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_local(self) -> bool:
        """Whether what is sent there stays on this machine."""
        return _is_loopback(self.host)


def parse(url: str, token: Any, *, allow_http: bool) -> Address:
    """Read the address of an endpoint. Without a token: that of the environment."""
    parts = _parts(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not _is_loopback(host) and not allow_http:
        raise InvalidInput(
            f"http:// would send the token and the data to {host} for everybody on the way to read: use "
            "https://, or allow_http=True if the network is private"
        )
    return Address(
        scheme=parts.scheme,
        host=host,
        port=parts.port or _PORTS[parts.scheme],
        path=parts.path.rstrip("/"),
        token=_token(token),
    )


def _parts(url: str) -> SplitResult:
    with suppress(ValueError):
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise InvalidInput(
                "the URL of a REST endpoint takes no user and no password: pass token=, or set "
                f"${TOKEN_VARIABLE} (for the Redis protocol write rediss://)"
            )
        if parts.query or parts.fragment or "?" in url:
            raise InvalidInput(
                "the URL of a REST endpoint ends with its host or path: pass a token as token=, or set "
                f"${TOKEN_VARIABLE}, never in the URL, which others log"
            )
        _ = parts.port  # raises ValueError unless it is one
        if (
            parts.scheme in SCHEMES
            and parts.hostname
            and url.isascii()
            and url.isprintable()
            and " " not in url
        ):
            return parts
    raise InvalidInput("the URL of the REST endpoint is malformed: write https://name.upstash.io")


def _token(given: Any) -> str:
    if given is not None and not isinstance(given, str):
        raise InvalidInput(f"token must be a text, not {type(given).__name__}")
    token = (os.environ.get(TOKEN_VARIABLE, "") if given is None else given).strip()
    if not token:
        raise InvalidInput(
            f"a REST endpoint needs a token: pass token=, or set ${TOKEN_VARIABLE} (the console of the store "
            "shows it beside the URL)"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidInput(
            "the token holds characters that no token has: copy it anew, without quotes or breaks"
        )
    return token


def refuse_token(token: Any) -> None:
    """A token belongs to a REST endpoint; with any other store it is a mistake that must not go unnoticed."""
    if token is not None:
        raise InvalidInput(
            "a token is for a REST endpoint (https://…); redis:// and rediss:// take a password in the URL, "
            "and other stores take neither"
        )


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@contextmanager
def installed() -> Iterator[None]:
    """Say what to install when the driver cannot be imported: its HTTP client is an extra."""
    try:
        yield
    except ImportError as error:
        raise InvalidInput(
            "a REST endpoint needs an HTTP client: pip install 'swapstore[upstash]'"
        ) from error
