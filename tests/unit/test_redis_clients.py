"""Which objects pass for a client of Redis."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.asyncio

import swapstore
from swapstore import InvalidInput


@pytest.mark.parametrize("transaction", [True, False])
@pytest.mark.parametrize(
    ("connect", "client"), [(swapstore.connect, redis.Redis), (swapstore.aio.connect, redis.asyncio.Redis)]
)
def test_a_pipeline_is_not_a_client(connect: Any, client: Any, transaction: bool) -> None:  # noqa: FBT001
    """A pipeline is accepted, and what is sent through it goes past the commands that it has queued."""
    made = client(port=1)
    with pytest.raises(InvalidInput, match="pass the client that it was made from"):
        connect(made.pipeline(transaction=transaction))
    assert "localhost:1" in connect(made).where


@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
def test_a_client_of_valkey_py_is_told_what_to_pass(connect: Any) -> None:
    """A client of another package fails at its first call, or the error does not say what to do."""
    valkey = pytest.importorskip("valkey", reason="it comes with some versions of fakeredis")
    with pytest.raises(InvalidInput, match="pass its address, valkey://host:6379/0"):
        connect(valkey.Valkey(port=1))
