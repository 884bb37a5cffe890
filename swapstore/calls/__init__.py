"""What can be asked of a store, without any I/O: each call checks its arguments and is an operation.

`Store` runs them, `AsyncStore` awaits them. Both take signatures and documentation from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.calls.publishing import Publishing
from swapstore.calls.reading import Reading
from swapstore.calls.steering import Steering
from swapstore.calls.upkeep import Upkeep

if TYPE_CHECKING:
    from swapstore.protocol.context import Context


class Calls(Publishing, Reading, Steering, Upkeep):
    """All calls, on one client's context and a kind of store."""

    def __init__(self, context: Context, kind: str) -> None:
        self._context = context
        self._kind = kind
