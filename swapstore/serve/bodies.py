"""Bodies of requests: bounded in size, in time, and in the memory that all of them take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

from swapstore.errors import InvalidInput, PayloadTooLarge

PATIENCE_S = 30.0  # a body may take this long, and
SLOWEST = 64 << 10  # a second more for as many bytes that have arrived
AT_A_TIME = 2  # bodies of the largest size that are held at a time, or as much in smaller ones
MOST_FORM_BYTES = 8 << 10
RETRY_AFTER_S = 2


class Room:
    """How many bytes of bodies are held. What does not fit in is refused before it is read, or read on."""

    def __init__(self, most_bytes: int) -> None:
        self._free = most_bytes

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Return a share that grows, and is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self._free += share.bytes

    def take(self, size: int) -> None:
        """Reserve bytes, or refuse the request with 503."""
        if size > self._free:
            raise HTTPException(
                503,
                "too many bodies are being received; send it again, with the same Idempotency-Key",
                {"Retry-After": str(RETRY_AFTER_S)},
            )
        self._free -= size


class Share:
    """The bytes that are reserved for one body."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def grow_to(self, size: int) -> None:
        """Reserve so many bytes in all."""
        if size > self.bytes:
            self._room.take(size - self.bytes)
            self.bytes = size


async def read(request: Request, most_bytes: int, share: Share | None = None) -> bytes:
    """Return the body of a request.

    Raises `PayloadTooLarge` at once if the client announces too many bytes, `HTTPException` with 408 if the
    body does not arrive in time, with 503 if there is no room, or with 400 if the client goes away.
    """
    announced = request.headers.get("content-length", "0")
    size = int(announced[:16]) if announced.isascii() and announced.isdecimal() else 0
    _check(size, most_bytes)
    if share is not None:
        share.grow_to(size)
    clock = asyncio.get_running_loop().time
    began, body, is_more = clock(), bytearray(), True
    while is_more:
        try:
            async with asyncio.timeout_at(began + PATIENCE_S + len(body) / SLOWEST):
                message = await request.receive()
        except TimeoutError:
            detail = f"the body did not arrive in time: {len(body):,} bytes in {clock() - began:,.0f} s"
            raise HTTPException(408, detail, {"Connection": "close"}) from None
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "the body ended early")
        chunk, is_more = message.get("body", b""), message.get("more_body", False)
        _check(len(body) + len(chunk), most_bytes)
        if share is not None:
            share.grow_to(len(body) + len(chunk))
        body += chunk  # not a list: of a body in many small parts, that takes a multiple of its size
    return bytes(body)


def _check(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise PayloadTooLarge(
            f"the body has more than {most_bytes:,} bytes, which is the most that this server takes",
            size_bytes=size,
            limit_bytes=most_bytes,
        )


async def form(request: Request) -> dict[str, str]:
    """Return the fields of a form. Of a field that is there several times, the last counts.

    Raises `InvalidInput` if it is not urlencoded UTF-8.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "a form is sent as application/x-www-form-urlencoded")
    body = await read(request, MOST_FORM_BYTES)
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise InvalidInput("the form is not urlencoded UTF-8 of at most 20 fields") from None
    return {name: values[-1] for name, values in fields.items()}
