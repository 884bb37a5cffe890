"""Answers that no endpoint should give: without an end, too slow, too deep, or quoting the token."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from swapstore import ReplyLost, Timeout, Unavailable, Unsupported
from swapstore.commands import Command, Failed, Get, Peek, Put
from tests.rest.support import FACES, QUICK, driver_of, endpoint, request_of, store_on
from tests.support.rest import RestServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize("face", FACES)
def test_an_answer_without_an_end(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken endpoint fills the memory of every producer and reader."""
    monkeypatch.setattr("swapstore.drivers.rest.transport.BODY_BYTES", 1_000_000)

    def serve(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(HEAD % 10**10)
        for _ in range(10_000):
            connection.sendall(b" " * 65536)

    with (
        endpoint(serve) as url,
        driver_of(face, url) as driver,
        pytest.raises(ReplyLost, match="more than 1,000,000 bytes"),
    ):
        driver.execute([Put("a", b"x", 1000)])


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("status", [200, 400])
def test_json_within_json(face: str, status: int, rest: RestServer) -> None:
    """Deeply nested JSON raises what is no error of this library."""
    for depth in (900, 100_000):
        body = "[" * depth + "]" * depth
        with driver_of(face, rest.url, rest.token) as driver:
            for text in (body, f'[{{"result":{body}}},{{"result":"x"}}]', f'{{"error":{body}}}'):
                rest.switches.answer(status, text)
                with pytest.raises(Unavailable):
                    driver.execute([Get("a")])


@pytest.mark.slow
@pytest.mark.parametrize("face", FACES)
def test_a_large_transfer_that_flows(face: str) -> None:
    """A payload that takes longer to send than the time-out is never published."""
    answer = b'[{"result":"T0s="},{"result":"YmFzZTY0Pw=="}]'

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        data, length = b"", 0
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split()[0])
        left = length - len(body)
        while left:
            left -= len(connection.recv(min(left, 32768)))
            time.sleep(0.02)  # about 1.5 MB a second
        connection.sendall(HEAD % len(answer) + answer)

    quick = Timeout(connect=1, reply=4, total=4)
    with endpoint(serve) as url, driver_of(face, url, timeout=quick) as driver:
        began = time.monotonic()
        assert driver.execute([Put("a", b"x" * 9_000_000, 1000)]) == [None]
        assert time.monotonic() - began > 4


@pytest.mark.parametrize("face", FACES)
def test_a_short_token_does_not_change_what_an_error_says(face: str, rest: RestServer) -> None:
    """The endpoint lacks a command, and the error says that it is only busy."""
    rest.token = "a"  # noqa: S105
    rest.switches.denied = frozenset({"GETRANGE", "GET", "SET"})
    with driver_of(face, rest.url, "a") as driver:
        commands: list[Command[Any]] = [Peek("k", 1), Get("k"), Put("k", b"x", 9)]
        for reply in driver.execute(commands):
            assert isinstance(reply, Failed)
            assert isinstance(reply.error, Unsupported)


@pytest.mark.parametrize("face", FACES)
def test_the_bound_holds_over_several_requests(face: str, rest: RestServer) -> None:
    """With the server gone behind a living proxy, a call takes as long as all its attempts together."""
    with driver_of(face, rest.url, rest.token, timeout=QUICK) as driver:
        store = store_on(driver, rest.url, rest.token, timeout=QUICK)
        store.publish("mena", 1)
        rest.switches.delay_before(3, times=99)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            store.publish("mena", 2)
        with pytest.raises(Unavailable):
            store.read_latest("mena")
        assert time.monotonic() - began < 2.5
        rest.switches.reset()
