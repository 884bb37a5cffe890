"""The address of a REST endpoint, and its token. No error quotes an address, because it may hold a secret."""

from __future__ import annotations

import ipaddress
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from swapstore.errors import InvalidInput
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator
    from urllib.parse import SplitResult

URL_VARIABLE = "UPSTASH_REDIS_REST_URL"
TOKEN_VARIABLE = "UPSTASH_REDIS_REST_TOKEN"  # noqa: S105 - a name
SCHEMES = ("https", "http")
REDIS_PORT = 6379
_PORTS = {"https": 443, "http": 80}


class Address(Struct, frozen=True, kw_only=True):
    """An endpoint and its token."""

    scheme: str
    host: str
    port: int
    path: str
    token: str

    def __repr__(self) -> str:
        return f"Address({self.scheme}://{self.authority})"

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def where(self) -> str:
        """The endpoint's address for messages: scheme, host, and the port if it is not the default one."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_local(self) -> bool:
        """Whether data that is sent there stays on this machine."""
        return _is_loopback(self.host)


def parse(url: str, token: Any, *, allow_http: bool) -> Address:
    """Parse the address of an endpoint. `token` None: use the environment's.

    Raises `InvalidInput` for an address or a token that cannot be used, and for `http://` to another machine
    without `allow_http`.
    """
    parts = _parts(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not _is_loopback(host) and not allow_http:
        raise InvalidInput(
            f"http:// would send the token and the data to {host} unencrypted: use https://, or "
            "allow_http=True if the network is private"
        )
    return Address(
        scheme=parts.scheme,
        host=host,
        port=parts.port or _PORTS[parts.scheme],
        path=parts.path.rstrip("/"),
        token=_token(token, parts),
    )


def _parts(url: str) -> SplitResult:
    with suppress(ValueError):
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise InvalidInput(
                "the URL of a REST endpoint has no user and no password: pass token=, or set "
                f"${TOKEN_VARIABLE} (for the Redis protocol, write rediss://)"
            )
        if parts.query or parts.fragment or "?" in url:
            raise InvalidInput(
                "the URL of a REST endpoint ends with its host or path: pass a token as token=, or set "
                f"${TOKEN_VARIABLE}, never in the URL, which may be logged"
            )
        _ = parts.port  # raises ValueError if it is not a port
        if (
            parts.scheme in SCHEMES
            and parts.hostname
            and url.isascii()
            and url.isprintable()
            and " " not in url
        ):
            return parts
    raise InvalidInput("the URL of the REST endpoint is malformed: write https://name.upstash.io")


def _token(given: Any, parts: SplitResult) -> str:
    if given is not None and not isinstance(given, str):
        raise InvalidInput(f"token must be a string, not {type(given).__name__}")
    token = (os.environ.get(TOKEN_VARIABLE, "") if given is None else given).strip()
    if not token and parts.port == REDIS_PORT:
        raise InvalidInput(
            f"port {REDIS_PORT} is that of a Redis server: write redis://{parts.netloc}. A REST endpoint "
            f"needs a token (token=, or ${TOKEN_VARIABLE})"
        )
    if not token:
        raise InvalidInput(
            f"a REST endpoint needs a token: pass token=, or set ${TOKEN_VARIABLE} (the store's console "
            "shows it next to the URL)"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidInput(
            "the token contains invalid characters: copy it again, without quotes and line breaks"
        )
    return token


def refuse_token(token: Any) -> None:
    """Raise `InvalidInput` if a token was passed: only REST endpoints take one."""
    if token is not None:
        raise InvalidInput(
            "a token is only for a REST endpoint (https://…); redis:// and rediss:// take a password in the "
            "URL, and other stores take neither"
        )


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@contextmanager
def installed() -> Iterator[None]:
    """Turn the driver's `ImportError` into the advice to install its HTTP client, which is an extra."""
    try:
        yield
    except ImportError as error:
        raise InvalidInput(
            "a REST endpoint needs an HTTP client: pip install 'swapstore[upstash]'"
        ) from error
