"""Replies are read whole and one by one, however the network cuts them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions as raised

from swapstore.drivers.redis_link import AT_ONCE, Link

Ends = tuple[Link, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A link, and the server's end of it."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        yield Link(ours), theirs


def wire(value: Any) -> bytes:
    """Write a reply as a server does."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, str):
        return b"+%b\r\n" % value.encode()
    return b"*%d\r\n%b" % (len(value), b"".join(map(wire, value)))


def read(value: Any) -> Any:
    """Say what a reader makes of it: a status is a value, too."""
    if isinstance(value, list):
        return [read(each) for each in value]
    return value.encode() if isinstance(value, str) else value


class Drip:
    """A socket that gives what it has in pieces of these sizes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes = data, sizes

    def fileno(self) -> int:
        return 0

    def sendall(self, data: bytes) -> None:
        assert not data

    def recv(self, size: int) -> bytes:
        size = min(size, self._sizes.pop(0) if self._sizes else size)
        piece, self._data = self._data[:size], self._data[size:]
        return piece


PLAIN = st.none() | st.integers() | st.binary(max_size=20) | st.text("abc", max_size=9)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


@given(st.lists(VALUES, max_size=6), st.lists(st.integers(1, 9), max_size=200))
def test_replies_come_out_as_they_went_in(values: list[Any], sizes: list[int]) -> None:
    """A reply that was cut by the network, or taken for the next one's, is another's answer."""
    link = Link(Drip(b"".join(map(wire, values)), sizes))  # type: ignore[arg-type]
    assert link.exchange([b""], len(values)) == [read(value) for value in values]


@pytest.mark.parametrize("size", [AT_ONCE - 9, AT_ONCE, 3 * AT_ONCE + 7])
def test_a_large_value_and_what_comes_behind_it(size: int) -> None:
    """The bytes behind a payload belong to the next reply."""
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    link = Link(Drip(wire([1, value]) + wire(value) + wire(7), [5, 40_000, 1, 70_000]))  # type: ignore[arg-type]
    assert link.exchange([], 3) == [[1, value], value, 7]


def test_errors_that_come_as_replies_are_values(ends: Ends) -> None:
    """An error is that of one command: the replies of its neighbours must still be read."""
    link, theirs = ends
    theirs.sendall(b"-NOSCRIPT No matching script.\r\n*2\r\n-OOM no \xff room\r\n:1\r\n+OK\r\n")
    no_script, (oom, one), ok = link.exchange([b"ask"], 3)
    assert theirs.recv(3) == b"ask"
    assert isinstance(no_script, raised.NoScriptError)
    assert isinstance(oom, raised.ResponseError)
    assert str(oom) == "OOM no \ufffd room"
    assert (one, ok) == (1, b"OK")


def test_the_end_of_a_connection_is_no_reply(ends: Ends) -> None:
    """Half a value must never be taken for one."""
    link, theirs = ends
    theirs.sendall(b"$10\r\nhalf")
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError, match="closed the connection"):
        link.exchange([], 1)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b"%1\r\n", b"\r\n", b"$x\r\n"])
def test_what_is_no_reply_is_refused(ends: Ends, said: bytes) -> None:
    """Something else listens on that port, or speaks another version of the protocol."""
    link, theirs = ends
    theirs.sendall(said)
    with pytest.raises(raised.InvalidResponse):
        link.exchange([], 1)


def test_silence_ends_at_the_time_out() -> None:
    """A server that hangs must not hang its clients."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0.05)
    with ours, theirs, pytest.raises(TimeoutError):
        Link(ours).exchange([], 1)


def test_a_link_is_quiet_until_something_comes(ends: Ends) -> None:
    """What nobody asked for would be taken for the answer to the next question."""
    link, theirs = ends
    assert link.is_quiet()
    theirs.sendall(b"+late\r\n")
    assert not link.is_quiet()
    assert link.exchange([], 1) == [b"late"]
    assert link.is_quiet()
    theirs.sendall(b"+one\r\n+two\r\n")
    assert link.exchange([], 1) == [b"one"]
    assert not link.is_quiet(), "the rest was read with it, and is not in the socket any more"


def test_what_tls_has_decrypted_is_not_quiet() -> None:
    """TLS takes whole records from the socket: there, nothing may be left of a reply that is."""
    ours, theirs = socket.socketpair()

    class Sealed(socket.socket):
        held = 0

        def pending(self) -> int:
            return self.held

    with ours, theirs, Sealed(fileno=ours.detach()) as sealed:
        link = Link(sealed)
        assert link.is_quiet()
        sealed.held = 7
        assert not link.is_quiet()


def test_a_closed_connection_is_not_quiet(ends: Ends) -> None:
    """Sent on a connection that the server has closed, a commit's fate would have to be asked for."""
    link, theirs = ends
    theirs.close()
    assert not link.is_quiet()
