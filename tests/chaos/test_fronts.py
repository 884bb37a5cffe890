"""What is cut off is cut off, and only that; what was held back comes late, or never."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.fronts import CLIENT, REPLICA, Front, Fronts, kind_at_bus, kind_at_server


@pytest.fixture
def front() -> Iterator[Front]:
    """Before a server that returns what it gets."""

    def serve(taken: socket.socket) -> None:
        with taken:
            while data := taken.recv(1000):
                taken.sendall(data)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(taken,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener, Fronts() as fronts:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield fronts.before(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def connection(front: Front, first: bytes) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", front.port), timeout=10)
    assert returned(made, first) == first
    return made


def returned(made: socket.socket, sent: bytes) -> bytes:
    made.sendall(sent)
    return made.recv(1000)


def is_over(made: socket.socket) -> bool:
    try:
        return made.recv(1000) == b""
    except ConnectionResetError:
        return True


def test_a_partition_holds_back_one_kind(front: Front) -> None:
    """A round that cuts off replicas cuts off clients too, or nobody."""
    with connection(front, b"GET") as client, connection(front, b"REPLCONF") as replica:
        front.cut(REPLICA)
        assert returned(client, b"1") == b"1"
        replica.settimeout(0.1)
        with pytest.raises(TimeoutError):
            returned(replica, b"2")
        replica.settimeout(10)
        front.heal()
        assert replica.recv(1000) == b"2", "it comes late"
        assert returned(replica, b"3") == b"3"


def test_connections_that_are_reset(front: Front) -> None:
    """A connection outlives a partition that it should not, or another one ends with it."""
    with connection(front, b"GET") as client, connection(front, b"PSYNC") as replica:
        front.cut(CLIENT)
        client.sendall(b"1")
        front.heal(reset=True)
        assert is_over(client)
        assert returned(replica, b"2") == b"2"


def test_kinds_of_connections() -> None:
    """A connection is taken for one of another kind, and the wrong ones are cut off."""
    assert kind_at_server(b"") == kind_at_server(b"*1\r\n$4\r\nPING\r\n") == CLIENT
    assert kind_at_server(b"CLIENT SETNAME sentinel-1234-cmd") == "sentinel"
    assert kind_at_bus(b"RCmb" + b"\0" * 36 + b"a" * 40 + b"more") == "a" * 40
    assert kind_at_bus(b"RCmb") == ""
