"""How `read_latest` becomes a method: answered from memory if it may be, or else together with its like."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from swapstore.protocol.load import own

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from swapstore.calls import Calls
    from swapstore.models import Snapshot
    from swapstore.protocol.operation import Operation

P = ParamSpec("P")


def sharing(
    call: Callable[Concatenate[Calls, P], Operation[Snapshot | None]],
) -> Callable[Concatenate[Any, P], Snapshot | None]:
    """Make a method of a read. Readers at the same time share a load, not what they are given."""

    @wraps(call)
    def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> Snapshot | None:
        self._refuse_if_closed()
        found: Snapshot | None = self._calls.remembered(*args, **kwargs)
        if found is not None:
            return found
        dataset = args[0] if args else kwargs["dataset"]
        found = self._flights.share(dataset, lambda: self._run(call(self._calls, *args, **kwargs)))
        return None if found is None else own(found)

    return method  # type: ignore[return-value]


def asharing(
    call: Callable[Concatenate[Calls, P], Operation[Snapshot | None]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, Snapshot | None]]:
    """Make a method of a read that is awaited; otherwise like `sharing`."""

    @wraps(call)
    async def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> Snapshot | None:
        self._refuse_if_closed()
        found: Snapshot | None = self._calls.remembered(*args, **kwargs)
        if found is not None:
            return found
        dataset = args[0] if args else kwargs["dataset"]
        found = await self._flights.share(dataset, lambda: self._run(call(self._calls, *args, **kwargs)))
        return None if found is None else own(found)

    return method  # type: ignore[return-value]
