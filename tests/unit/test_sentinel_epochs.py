"""Which of several sentinels is believed, when they do not name the same primary."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from swapstore.drivers.redis import sentinel
from swapstore.drivers.redis.sentinel import Sentinels, parse

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
URL = "redis+sentinel://a:1,b:2,c:3/mymaster/0"


class Sentinel:
    """A sentinel that names a primary, with the epoch of the failover that made it one."""

    def __init__(self) -> None:
        self.named, self.state, self.epoch = OLD, OLD, 1
        self.denied = self.down = False

    def names(self, place: tuple[str, int], epoch: int) -> None:
        self.named = self.state = place
        self.epoch = epoch

    def sentinel_get_master_addr_by_name(self, _name: str) -> tuple[str, int]:
        if self.down:
            raise redis.ConnectionError("refused")
        return self.named

    def sentinel_master(self, _name: str) -> dict[str, Any]:
        if self.denied:
            raise redis.exceptions.NoPermissionError("no permission")
        return {"ip": self.state[0], "port": self.state[1], "config-epoch": self.epoch}


def three() -> tuple[Sentinels, list[Sentinel]]:
    """Three sentinels, and what asks them."""
    known = {port: Sentinel() for port in (1, 2, 3)}
    address = parse(URL)
    assert address is not None
    asks = Sentinels(address, lambda options: known[options["port"]], {"socket_connect_timeout": 1.0})
    return asks, list(known.values())


def test_a_sentinel_that_was_away_during_a_failover_is_not_believed() -> None:
    """A client goes back to the old primary, reads its old data, and loses what it writes there."""
    asks, (first, second, third) = three()
    assert asks.primary() == OLD
    first.names(NEW, 2)
    third.names(NEW, 2)
    assert asks.primary() == NEW
    asks.doubt()
    assert asks.primary() == NEW, "the second one is asked first now, and is outdated"
    first.down = third.down = True
    assert asks.primary() == OLD, "no other can be asked"
    second.names(NEW, 2)
    assert asks.primary() == NEW


def test_sentinels_that_were_made_anew_are_believed() -> None:
    """After new sentinels were set up, whose epochs begin at 0, a client never finds the primary."""
    asks, made = three()
    for each in made:
        each.names(OLD, 7)
    assert asks.primary() == OLD
    for each in made:
        each.names(NEW, 0)
    assert asks.primary() == NEW
    assert asks.primary() == NEW


def test_the_new_primary_is_named_before_its_epoch_is() -> None:
    """In the middle of a failover, the sentinel that leads it is outvoted by those that know nothing yet."""
    asks, (first, *_) = three()
    assert asks.primary() == OLD
    first.named = NEW
    assert asks.primary() == NEW
    asks.doubt()
    assert asks.primary() == NEW


def test_a_sentinel_whose_failover_never_ends_is_not_believed_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new primary dies before its failover is over: a client tries it until its patience is over.

    The sentinel that led the failover knows the epoch of the next one, in which the others chose another.
    """
    asks, (first, *others) = three()
    first.named, first.epoch = NEW, 2
    for each in others:
        each.names(OLD, 2)
    assert asks.primary() == NEW
    asks.doubt()
    assert asks.primary() == NEW, "the others may not know yet"
    monkeypatch.setattr(sentinel, "HELLO_S", 0)
    asks.doubt()
    asks.doubt()  # of another connection
    assert [asks.primary() for _ in range(3)] == [OLD] * 3
    for each in others:
        each.names(OLD, 1)
    assert asks.primary() == NEW, "their answer is older than the end of that failover"


def test_a_user_who_may_only_ask_for_the_address() -> None:
    """A right that is not needed is needed."""
    asks, made = three()
    for each in made:
        each.denied = True
    assert asks.primary() == OLD
