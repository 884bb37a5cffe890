"""The face of the library: a `Store` runs the calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.calls import Calls
from swapstore.face import blocking, iterating
from swapstore.sharing import sharing
from swapstore.single_flight import SingleFlight
from swapstore.subscription import FollowedFace, following

if TYPE_CHECKING:
    from swapstore.drivers.base import Driver
    from swapstore.models import Snapshot
    from swapstore.protocol.context import Context


class Store(FollowedFace):
    """Datasets in one namespace of one store. Made by `swapstore.connect`; also a context manager.

    A store may be shared by threads. Every method raises `InvalidInput` for arguments it cannot use (then
    nothing was written), `Unavailable` or one of its children when the server or file cannot serve, and
    `Damaged` or one of its children when what is stored is not what swapstore wrote.
    """

    def __init__(self, driver: Driver, context: Context) -> None:
        super().__init__(driver, context)
        self._flights: SingleFlight[Snapshot | None] = SingleFlight()

    publish = blocking(Calls.publish)
    publish_many = blocking(Calls.publish_many)
    confirm = blocking(Calls.confirm)

    read_latest = sharing(Calls.read_latest)
    read_latest_many = blocking(Calls.read_latest_many)
    read = blocking(Calls.read)
    history = iterating(Calls.history)
    follow = following(Calls.follow)
    datasets = blocking(Calls.datasets)
    status = blocking(Calls.status)

    put_live = blocking(Calls.put_live)
    read_live = blocking(Calls.read_live)

    pin = blocking(Calls.pin)
    unpin = blocking(Calls.unpin)
    rollback = blocking(Calls.rollback)

    prune = blocking(Calls.prune)
    verify = iterating(Calls.verify)
    repair = blocking(Calls.repair)
    doctor = blocking(Calls.doctor)
